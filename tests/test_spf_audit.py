"Many names at once: what comes out, in which order, and what one name can do to the others."

from __future__ import annotations

import asyncio
import io
import json
import re
import sys
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from dns_server import DnsServer
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from spf_strategies import DOMAINS, EXAMPLES, Invented

from ra_plugins.ask.dns import Zone
from ra_plugins.ask.question import drive
from ra_plugins.ask.resolver import Resolver
from ra_plugins.ask.zonefile import zone_from_text
from ra_plugins.cli.command import main
from ra_plugins.spf.evaluation import check_identity
from ra_plugins.spf.owner import audit, audit_command
from ra_plugins.spf.owner.audit import (
    AuditName,
    AuditRow,
    audit_over_dns,
    audited_policy,
    in_order,
    listed_names,
    run_audit,
    zone_audit,
    zone_names,
)
from ra_plugins.spf.owner.audit_page import AuditTally, audit_page
from ra_plugins.spf.owner.cost import survey_cost
from ra_plugins.spf.owner.lint_domain import run_lint
from ra_plugins.spf.owner.survey import run_survey
from ra_plugins.spf.query import Query

PROVIDER = ("_spf.example.net", "TXT"), ["v=spf1 ip4:198.51.100.0/24 ~all"]

FILE = """$ORIGIN example.org.
$TTL 3600
@        SOA   ns hostmaster 1 7200 900 86400 300
@        NS    ns
@        MX    10 mx
@        TXT   "v=spf1 mx include:_spf.example.net -all"
mx       A     192.0.2.25
www      A     192.0.2.80
mail     MX    10 mx
_dmarc   TXT   "v=DMARC1; p=none"
s1._domainkey TXT "v=DKIM1; p=AAAA"
_spf     TXT   "v=spf1 include:gone ip4:192.0.2.0/28 ~all"
dept     TXT   "v=spf1 redirect=_spf.example.net"
gone     TXT   "v=spf1 include:nobody.example.org -all"
shop     NS    ns.example.net.
ns.shop  A     192.0.2.53
"""


def names(*domains: str) -> list[AuditName]:
    return [AuditName(domain, domain) for domain in domains]


def audited(domains: list[AuditName], server: Any, **options: Any) -> list[AuditRow]:
    async def rows() -> list[AuditRow]:
        resolver = Resolver(["127.0.0.1"], server.port, try_again=options.pop("try_again", None))
        return [row async for row in audit_over_dns(domains, resolver, **options)]

    return asyncio.run(rows())


def codes(row: AuditRow) -> set[str]:
    return {finding.code for finding in row.findings}


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    status = main(["spf", "audit", *arguments])
    return status, *capsys.readouterr()


# Names


def test_a_list_as_people_have_it() -> None:
    lines = ["", " Example.ORG. ", "# ours", "example.org ; again", "ana@example.net",
             "BÜCHER.example", "bücher.example", "two words.example", "https://example.com/", "localhost",
             "x" * 300, ".", "-", "\x00.example"]  # fmt: skip
    found = list(listed_names(lines))
    assert [each.domain for each in found if each.domain] == ["example.org", "example.net", "xn--bcher-kva.example"]
    assert [each.given for each in found if not each.domain] == ["two words.example", "https://example.com/", "localhost",
                                                                 "x" * 100, ".", "-", "\x00.example"]  # fmt: skip


def test_names_of_a_zone() -> None:
    "Keys, services and what is somebody else's are left out; a host is one that takes no mail."
    found = {each.domain: each.host for each in zone_names(zone_from_text(FILE))}
    assert found == {"example.org": False, "mx.example.org": True, "www.example.org": True, "mail.example.org": False,
                     "_spf.example.org": False, "dept.example.org": False, "gone.example.org": False}  # fmt: skip


def test_where_a_zone_has_the_last_word() -> None:
    zone = zone_from_text(FILE)
    served = ("example.org", "nobody.example.org", "WWW.example.org")
    others = ("shop.example.org", "a.shop.example.org", "example.net", "org", "")
    assert all(map(zone.is_served, served)) and not any(map(zone.is_served, others))
    fragment = zone_from_text("example.org. A 192.0.2.1\n*.w.example.org. A 192.0.2.1\n")
    assert fragment.is_served("example.org") and fragment.is_served("x.w.example.org")
    assert not fragment.is_served("other.example.org")


def test_two_zones_in_one_file_each_with_its_soa() -> None:
    soa = "@ SOA ns hostmaster 1 7200 900 86400 300\n"
    zone = zone_from_text(f"$ORIGIN example.org.\n{soa}a A 192.0.2.1\n$ORIGIN example.net.\n{soa}")
    assert zone.is_served("x.example.org") and zone.is_served("x.example.net")
    assert zone.records["a.example.org", "A"] == ("192.0.2.1",)


# Rows


def test_policies() -> None:
    zone = Zone({
        **{(f"{name}.example", "TXT"): [f"v=spf1 {terms}"] for name, terms in {
            "minus": "mx -all", "tilde": "~all", "ask": "?all", "plus": "all", "bare": "ip4:192.0.2.1",
            "to": "redirect=minus.example",
            "beside": "~all redirect=minus.example", "far": "redirect=to.example", "lost": "redirect=no.example",
            "round": "redirect=circle.example", "circle": "redirect=round.example", "macro": "redirect=%{i}.example",
            "fault": "ip4:1 -all", "exp": "ip4:192.0.2.1 exp=why.example", "behind": "-all mx"}.items()},
        ("two.example", "TXT"): ["v=spf1 -all", "v=spf1 ~all"], ("none.example", "TXT"): ["hello"],
    })  # fmt: skip
    expected = {"minus": "-all", "tilde": "~all", "ask": "?all", "plus": "+all", "bare": "no all", "to": "-all", "beside": "~all",
                "far": "-all", "lost": "permerror", "round": "permerror", "macro": "unknown", "fault": "permerror",
                "exp": "no all", "behind": "-all", "two": "permerror", "none": "no record"}  # fmt: skip
    rows = run_audit([f"{name}.example" for name in expected], resolver=zone)
    assert {row.domain.removesuffix(".example"): row.policy for row in rows} == expected


def test_policies_of_those_who_never_get_to_the_end() -> None:
    "RFC 7208, section 5.2: an include without a record is a permerror; section 4.6.4: so is a third void lookup."
    zone = zone_from_text("""
$ORIGIN example.org.
inc     TXT "v=spf1 include:no.example.org ip4:192.0.2.1 -all"
deep    TXT "v=spf1 include:inc.example.org -all"
later   TXT "v=spf1 ip4:192.0.2.1 include:no.example.org ~all"
behind  TXT "v=spf1 -all include:no.example.org"
void    TXT "v=spf1 a:n1.example.org a:n2.example.org a:n3.example.org ip4:192.0.2.1 -all"
two     TXT "v=spf1 a:n1.example.org a:n2.example.org ip4:192.0.2.1 -all"
six     TXT "v=spf1 a:v4.example.org a:v4.example.org a:v4.example.org -all"
v4      A   192.0.2.80
loop    TXT "v=spf1 include:ring.example.org -all"
ring    TXT "v=spf1 include:loop.example.org -all"
eleven  TXT ( "v=spf1 a:v4.example.org a:v4.example.org a:v4.example.org a:v4.example.org a:v4.example.org a:v4.example.org "
              "a:v4.example.org a:v4.example.org a:v4.example.org a:v4.example.org a:v4.example.org -all" )
plus    TXT "v=spf1 +all"
all     TXT "v=spf1 include:plus.example.org -all"
ask     TXT "v=spf1 ?include:plus.example.org include:no.example.org -all"
fixed   TXT "v=spf1 exists:v4.example.org include:no.example.org -all"
""")
    expected = {"inc": "permerror", "deep": "permerror", "later": "permerror", "behind": "-all", "void": "permerror",
                "two": "-all", "six": "-all", "loop": "permerror", "eleven": "permerror", "all": "+all", "ask": "?all",
                "fixed": "+all"}  # fmt: skip
    rows = run_audit([f"{name}.example.org" for name in expected], resolver=zone)
    assert {row.domain.removesuffix(".example.org"): row.policy for row in rows} == expected


STRANGERS = "203.0.113.250", "2001:db8:ffff::250"  # whom no invented record names
POLICIES = {"fail": {"-all"}, "softfail": {"~all"}, "neutral": {"?all", "no all"}, "pass": {"+all"},
            "permerror": {"permerror"}, "none": {"no record"}}  # fmt: skip


@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much])
@given(data=st.data(), domain=st.sampled_from(DOMAINS))
def test_a_policy_is_what_strangers_get(data: st.DataObject, domain: str) -> None:
    zone = Invented(data.draw)
    found = run_survey(domain, resolver=zone)
    cost = survey_cost(found)
    assume(not cost.open and not cost.unknown and not found.partial)
    results = {drive(check_identity(Query(ip, f"ana@{domain}")), zone).result for ip in STRANGERS}
    assume(len(results) == 1)
    assert audited_policy(found, cost) in POLICIES[results.pop()]


def test_a_zone_with_names_that_are_no_domains(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "z").write_text(
        'www IN A 192.0.2.2\nlocalhost. A 127.0.0.1\nmail MX 10 www\na@b.example.org. TXT "v=spf1 -all"\n'
        'example.org. TXT "v=spf1 -all"\n'
    )
    status, out, err = run(capsys, str(tmp_path / "z"), "--offline", "--json")
    rows = {row["given"]: row for row in map(json.loads, out.splitlines())}
    assert status == 0 and err == "" and rows["example.org"]["policy"] == "-all"
    severities = {name: [each["severity"] for each in rows[name]["findings"]] for name in rows}
    assert severities == {
        "www": ["info"], "localhost": ["info"], "mail": ["error"], "a\\@b.example.org": ["error"], "example.org": []
    }  # fmt: skip
    assert {row["policy"] for name, row in rows.items() if name != "example.org"} == {"no name"}
    assert "$ORIGIN" in rows["www"]["findings"][0]["advice"]


def test_a_row_says_what_lint_says() -> None:
    zone = zone_from_text(FILE)
    for row in zone_audit(zone_names(zone), zone):
        if row.policy != "no record" and row.domain != "example.org":  # lint looks at further names there
            assert row.findings == run_lint(row.domain, resolver=zone).findings, row.domain


def test_a_host_without_a_record_is_no_error_and_a_mail_domain_is() -> None:
    zone = zone_from_text(FILE)
    rows = {row.domain: row for row in zone_audit(zone_names(zone), zone)}
    assert rows["www.example.org"].count("error") == 0 and codes(rows["www.example.org"]) == {"no-record"}
    assert rows["mail.example.org"].count("error") == 1


def test_an_endless_record_is_json_that_others_can_read() -> None:
    zone = Zone({("loop.example", "TXT"): ["v=spf1 include:loop.example -all"]})
    (row,) = run_audit(["loop.example"], resolver=zone)
    data = json.loads(json.dumps(row.data(), allow_nan=False))
    assert data["lookups"] is None and data["endless"] is True and data["domain"] == "loop.example"


# Side by side


def test_the_order_is_that_of_the_list_and_the_provider_is_asked_once() -> None:
    domains = [f"d{n}.example.org" for n in range(300)]
    zone = Zone(
        {PROVIDER[0]: PROVIDER[1], **{(name, "TXT"): ["v=spf1 include:_spf.example.net -all"] for name in domains}}
    )
    with DnsServer(zone, delays={"0.example.org": 0.05}) as server:
        rows = audited(names(*domains), server)
        assert [row.domain for row in rows] == domains
        assert [(row.policy, row.lookups, row.partial) for row in rows] == [("-all", 1, False)] * 300
        assert sum(name == "_spf.example.net" for name, _, _ in server.queries) == 1
        assert len(server.queries) == 301


def test_no_more_are_under_way_than_may_be() -> None:
    running = most = 0

    async def work() -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0)
        running -= 1

    async def all_of_them() -> int:
        return sum([1 async for _ in in_order((work() for _ in range(100)), 7)])

    assert asyncio.run(all_of_them()) == 100 and most == 7


def test_the_list_isnt_read_further_than_its_rows_are_wanted() -> None:
    taken = 0

    def endless() -> Iterator[AuditName]:
        nonlocal taken
        while True:
            taken += 1
            yield AuditName("", "")

    async def some() -> None:
        rows = audit_over_dns(endless(), Resolver(["127.0.0.1"], 9), at_once=5)
        assert [(await anext(rows)).policy for _ in range(20)] == ["no name"] * 20
        await rows.aclose()
        assert len(asyncio.all_tasks()) == 1

    asyncio.run(some())
    assert taken <= 20 + 5 * 10


def test_domains_that_never_answer_are_partial_and_the_others_are_not() -> None:
    domains = [f"{kind}{n}.example.org" for n in range(20) for kind in ("dead", "fine")]
    zone = Zone({(name, "TXT"): ["v=spf1 -all"] for name in domains})
    faults = {name: "drop" for name in domains if name.startswith("dead")}
    with DnsServer(zone, faults=faults) as server:
        rows = audited(names(*domains), server, timeout=0.3, at_once=10)
    for row in rows:
        dead = row.domain.startswith("dead")
        assert (row.partial, row.policy) == ((True, "unknown") if dead else (False, "-all")), row
        assert ("not-known" in codes(row)) == dead


def test_a_provider_that_never_answers_leaves_what_is_known() -> None:
    zone = Zone({("a.example", "TXT"): ["v=spf1 include:dead.example ptr -all"]})
    with DnsServer(zone, faults={"dead.example": "drop"}) as server:
        (row,) = audited(names("a.example"), server, timeout=0.3)
    assert row.partial and row.policy == "-all" and {"not-known", "ptr"} <= codes(row)


def test_a_flood_of_names_that_arent_there() -> None:
    "Each is asked once, though a name that isn't there is said not to be in many ways, and memory doesn't grow with them."
    domains = names(*(f"n{n}.example" for n in range(1500)))
    with DnsServer(Zone({("example", "TXT"): ["x"]})) as server:
        rows = audited(domains, server)
        assert len(server.queries) == 1500
    assert {(row.policy, tuple(codes(row)), row.partial) for row in rows} == {("no record", ("no-record",), False)}


def test_a_zone_beside_nameservers() -> None:
    "The file answers about its own names, also about those that DNS still has; nameservers about others."
    published = Zone({
        PROVIDER[0]: PROVIDER[1],
        ("nobody.example.org", "TXT"): ["v=spf1 +all"],  # no longer in the file
        ("a.shop.example.org", "TXT"): ["v=spf1 ip4:192.0.2.1 -all"],
    })  # fmt: skip
    zone = zone_from_text(FILE + 'far TXT "v=spf1 include:a.shop.example.org -all"\nalias CNAME _spf.example.net.\n')
    with DnsServer(published) as server:
        rows = {row.domain: row for row in audited(list(zone_names(zone)), server, zone=zone)}
        asked = {name for name, _, _ in server.queries}
    assert asked == {"_spf.example.net", "a.shop.example.org"}
    assert "broken-include" in codes(rows["gone.example.org"])
    assert rows["far.example.org"].findings == [] and rows["dept.example.org"].policy == "~all"
    assert rows["alias.example.org"].record == PROVIDER[1][0]


# What is kept


def test_the_worst_are_kept_and_no_more() -> None:
    zone = Zone({(f"d{n}.example", "TXT"): ["v=spf1 -all" if n % 10 else "v=spf1 +all"] for n in range(100)})
    tally = AuditTally(kept=15)
    for row in run_audit([f"d{n}.example" for n in range(100)], resolver=zone):
        tally.add(row)
    worst = [row.domain for row in tally.worst()]
    assert worst[:10] == [f"d{n}.example" for n in range(0, 100, 10)] and worst[10:] == [
        f"d{n}.example" for n in range(1, 6)
    ]
    assert (tally.rows, tally.errors, tally.policies["-all"], tally.policies["+all"]) == (100, 10, 90, 10)
    page = audit_page(tally)
    assert "85 more aren" in page and page.count("<svg") == 3


def test_a_page_loads_nothing_and_strangers_words_stay_text() -> None:
    evil = '"><img src=//example.net onerror=alert(1)>'
    zone = Zone({("a.example", "TXT"): [f"v=spf1 include:{evil} -all"], ("b.example", "TXT"): ["v=spf1 -all"]})
    tally = AuditTally()
    for row in run_audit(["a.example", "b.example", evil], resolver=zone):
        tally.add(row)
    page = audit_page(tally, evil)
    assert (
        "<img" not in page
        and "<script" not in page
        and not re.search(r"""(?:src|href)=|url\(""", page.replace("src=//", ""))
    )
    assert "default-src 'none'" in page


def test_memory_doesnt_grow_with_the_list() -> None:
    "Rows are counted and let go: ten times as many names take about as much memory."

    def peak(count: int) -> int:
        zone, tally = Zone({("example", "TXT"): ["x"]}), AuditTally(kept=10)
        tracemalloc.start()
        for row in zone_audit((AuditName("", f"n{n}.example") for n in range(count)), zone):
            tally.add(row)
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return most

    peak(100)
    assert peak(5000) < peak(500) + 2_000_000


# The command


def test_the_command_over_a_zone_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "zone").write_text(FILE)
    status, out, err = run(capsys, str(tmp_path / "zone"), "--offline", "--strict")
    lines = out.splitlines()
    assert status == 1 and err == "" and lines[0].startswith("name ")
    assert [line.split()[0] for line in lines[1:8]] == ["example.org", "mx.example.org", "www.example.org", "mail.example.org",
                                                        "_spf.example.org", "dept.example.org", "gone.example.org"]  # fmt: skip
    assert lines[-1].startswith("7 names: ")
    assert run(capsys, str(tmp_path / "zone"), "--offline")[0] == 0


def test_a_list_from_standard_input(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    zone = Zone({("a.example", "TXT"): ["v=spf1 -all"], ("b.example", "TXT"): ["v=spf1 a:dead.example -all"]})
    with DnsServer(zone, faults={"dead.example": "servfail"}) as server:
        where = f"--nameserver=127.0.0.1#{server.port}"
        monkeypatch.setattr(sys, "stdin", io.StringIO("a.example\na.example\nnonsense here\n"))
        status, out, err = run(capsys, "-", "--json", "--strict", where)
        first, second = map(json.loads, out.splitlines())
        assert (first["policy"], second["policy"], second["given"]) == ("-all", "no name", "nonsense here")
        assert status == 1 and err == ""  # nothing about progress on a pipe
        for text, expected in (("a.example\n", 0), ("b.example", 2)):
            monkeypatch.setattr(sys, "stdin", io.StringIO(text))
            assert run(capsys, "-", "--strict", where)[0] == expected


def test_a_page_beside_the_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "zone").write_text(FILE)
    status, out, _ = run(capsys, str(tmp_path / "zone"), "--offline", "--html", str(tmp_path / "page.html"))
    page = (tmp_path / "page.html").read_text()
    assert status == 0 and "example.org" in out and "gone.example.org" in page and page.count("<svg") == 3


def test_a_page_in_place_of_the_table(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "zone").write_text(FILE)
    monkeypatch.chdir(tmp_path)
    status, out, err = run(capsys, "zone", "--offline", "--html", "-", "--strict")
    assert status == 1 and out.lower().startswith("<!doctype html>") and out.endswith("</html>\n") and not err
    assert not (tmp_path / "-").exists()
    status, out, err = run(capsys, "zone", "--offline", "--html", "-", "--json")
    assert (status, out) == (3, "") and "--json and --html - both want standard output" in err


def test_a_page_never_replaces_the_zone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "zone").write_text(FILE)
    (tmp_path / "link").symlink_to("zone")
    status, out, err = run(capsys, str(tmp_path / "zone"), "--offline", "--html", str(tmp_path / "link"))
    assert (status, out) == (3, "") and "the page would replace it" in err and (tmp_path / "zone").read_text() == FILE


@pytest.mark.parametrize(
    ("text", "options", "told"),
    [
        ("$ORIGIN example.org.\n@ MX ten mx\n", [], "zone:2: "),
        ("example.org\n", ["--html", "/"], "can't write /: Is a directory"),
        ("example.org. A 192.0.2.1\n", ["--offline", "--nameserver", "192.0.2.53"], "--offline asks nobody"),
        (b"\xff\xfee\0x\0a\0m\0p\0l\0e\0.\0o\0r\0g\0", ["--list"], "this isn't UTF-8, but UTF-16"),
        ("example.org. A 192.0.2.1\n".encode("utf-16"), ["--offline"], "this isn't UTF-8, but UTF-16"),
        ("example.org. A 192.0.2.1\nnonsense\n", [], "zone:2: "),
        ("", [], "no name in"),
        ("# nothing\n", ["--list"], "no name in"),
        ("example.org\n", ["--offline"], "--offline needs a zone file"),
        ("example.org\n", ["--nameserver", "somewhere"], "--nameserver: "),
        ("example.org\n", ["--html", "/nowhere/at/all.html"], "can't write /nowhere/at/all.html"),
    ],
)
def test_what_cant_be_done(
    text: str | bytes, options: list[str], told: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    "It is said before there is a table."
    (tmp_path / "zone").write_bytes(text if isinstance(text, bytes) else text.encode())
    status, out, err = run(capsys, str(tmp_path / "zone"), *options)
    assert (status, out) == (3, "") and told in err and err.count("\n") == 1


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--at-once", "0"], "argument --at-once: '0' should be a number from 1 to 10000"),
        (["--at-once", "x"], "argument --at-once: 'x' should be a number from 1 to 10000"),
        (["--timeout", "-1"], "argument --timeout: '-1' should be a number over 0"),
        ([], "the following arguments are required: ZONEFILE|LIST|-"),
    ],
)
def test_a_command_line_of_no_use(options: list[str], told: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["spf", "audit", *options])
    assert ended.value.code == 3 and capsys.readouterr().err == f"ra-plugins spf audit: {told}\n"


def test_a_file_that_isnt_there_or_is_too_long(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "can't read" in run(capsys, str(tmp_path / "none"))[2]
    monkeypatch.setattr(audit_command, "AUDIT_INPUT", 100)
    (tmp_path / "long").write_text("example.org\n" * 20)
    assert "split it" in run(capsys, str(tmp_path / "long"))[2]


def test_a_list_whose_first_line_has_two_words(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "list").write_text("oh dear\nexample\n")
    assert "for a list of domains, --list" in run(capsys, str(tmp_path / "list"))[2]
    assert run(capsys, str(tmp_path / "list"), "--list", "--strict")[0] == 1


def test_records_that_many_include_are_looked_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    "A stranger's fifteen records include each other: all that come later."
    looked_at: list[int] = []

    def lets_all(record: object, version: int) -> bool:
        looked_at.append(version)
        return False

    monkeypatch.setattr(audit, "lets_all", lets_all)
    text = "$ORIGIN example.org.\n" + "".join(
        f'c{n} TXT "v=spf1{"".join(f" include:c{later}.example.org" for later in range(n + 1, 15))} ?all"\n'.replace(
            " include:c9", '" " include:c9'
        )
        for n in range(15)
    )
    (row,) = zone_audit([AuditName("c0.example.org", "c0.example.org", False)], zone_from_text(text))
    assert row.policy == "permerror"  # for its lookups
    assert looked_at.count(4) == looked_at.count(6) == 14


def test_a_zone_of_a_hundred_thousand_names_is_read(tmp_path: Path) -> None:
    "More than the four megabytes that other readers of a zone allow; and it is listed in order."
    text = "$ORIGIN example.org.\n" + "".join(
        f'd{n} TXT "v=spf1 ip4:192.0.2.{n % 256} a:mail.example.net -all"\n' for n in range(100_000)
    )
    assert len(text) > 4 * 2**20
    read = audit_command.audit_input(text, "zone")
    assert read.expected == 100_000 and [next(read.names).domain for _ in range(2)] == [
        "d0.example.org",
        "d1.example.org",
    ]


def test_a_terminal_is_told_how_far_reading_is(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    seconds = iter(range(10**6))
    monkeypatch.setattr("ra_plugins.spf.owner.explain.monotonic", lambda: next(seconds))
    zone = tmp_path / "zone"
    zone.write_text("$ORIGIN example.org.\n" + "".join(f"n{n} A 192.0.2.1\n" for n in range(4000)))
    for command in (["audit", str(zone), "--offline"], ["lint", "example.org", "--zone", str(zone)]):
        monkeypatch.setattr(sys, "stderr", terminal := Terminal())
        assert main(["spf", *command]) == 0
        told = re.findall(r"reading: ([\d,]+) of 4,002 lines", terminal.getvalue())
        assert told == ["1,000", "2,000", "3,000", "4,000"]
        assert "reading" not in capsys.readouterr().out and terminal.getvalue().endswith("\r\033[K")


# Names with the same record

OWN = "n1.example.org"
TERMS = st.sampled_from([
    "mx", "a", "ptr", "-all", "?all", "moo", "a:host.example.org", "mx:mx.example.org", "ip4:192.0.2.0/24",
    "exists:%{i}.example.org", "a:%{d}", "include:_spf.%{o}", "include:n1.example.org", "include:_spf.n1.example.org",
    "include:_spf.example.org", "include:back.example.org", "include:nowhere.example.net", "include:host",
    "exp=%{d}", "redirect=n2.example.org", "a:" + "x" * 60 + ".example.org", "ip4:198.51.100.1 " * 20,
])  # fmt: skip
TEXTS = st.lists(st.lists(TERMS, max_size=4).map(lambda terms: " ".join(["v=spf1", *terms])), max_size=2)
HOSTS: dict[tuple[str, str], list[Any]] = {
    ("mx.example.org", "MX"): [(10, "mx.example.org")],
    ("mx.example.org", "A"): ["192.0.2.25"],
    ("_spf.n1.example.org", "TXT"): ["v=spf1 a:gone.example.org"],
    ("_spf.example.org", "TXT"): ["v=spf1 ip4:192.0.2.0/24 ?exists:%{o}.example.org -all"],
    ("back.example.org", "TXT"): ["v=spf1 include:n2.example.org -all"],
}


@settings(max_examples=EXAMPLES, deadline=None)
@given(TEXTS, TEXTS)
def test_a_name_is_judged_the_same_among_others_and_alone(text: list[str], other: list[str]) -> None:
    "A record that several names have is looked at once, as far as it says the same of all of them."
    names = ["n0.example.org", OWN, "n2.example.org", "n3.example.org", "a.long.name.example.org", "x.org", "example.org"]
    texts = {name: other if name == "n3.example.org" else text for name in names}
    zone = Zone({**HOSTS, **{(name, "TXT"): each for name, each in texts.items() if each}})
    for order in (names, names[::-1]):
        wanted = [AuditName(name, name, name == "x.org") for name in order]
        together = list(zone_audit(wanted, zone))
        assert together == [row for name in wanted for row in zone_audit([name], zone)]


def test_a_record_that_many_names_have_is_looked_at_once() -> None:
    "Counted in calls of functions, and not in seconds, which are the machine's."

    def calls(count: int) -> int:
        zone = Zone({(f"n{n:04}.example", "TXT"): ["v=spf1 ip4:192.0.2.0/24 -all"] for n in range(count)})
        wanted, events = [AuditName("", f"n{n:04}.example") for n in range(count)], list[str]()
        sys.setprofile(lambda frame, event, argument: events.append(event))
        try:
            assert sum(1 for _ in zone_audit(wanted, zone)) == count
        finally:
            sys.setprofile(None)
        return len(events)

    calls(2)
    assert calls(1000) - calls(2) < 100 * 998  # one by one, it is several hundred for each


def test_a_name_among_many_delegations_isnt_looked_for_in_all_of_them() -> None:
    class Names(frozenset[str]):
        def __or__(self, other: object) -> Any:
            raise AssertionError("all of them are gone through for one name")

    zone = zone_from_text(FILE)
    zone.delegated = Names(zone.delegated)
    assert not zone.is_served("ns.shop.example.org") and zone.is_served("www.example.org")
