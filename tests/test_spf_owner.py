"""What an SPF record leads to and costs, whoever calls: hand-counted, held against the check, and under hostile DNS."""

from __future__ import annotations

import asyncio
import gc
import json
import re
import sys
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import dns.message
import dns.rrset
import pytest
from dns_server import DnsServer
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from resolving import asking
from spf_strategies import DOMAINS, EXAMPLES, Invented, clients

from ra_plugins.ask.dns import Records, Zone
from ra_plugins.ask.question import Late, adrive, drive
from ra_plugins.ask.zonefile import zone_from_text
from ra_plugins.cli.command import main
from ra_plugins.spf.evaluation import check_identity
from ra_plugins.spf.limits import Limits
from ra_plugins.spf.owner.addresses import AddressSet, senders
from ra_plugins.spf.owner.cost import SurveyCost, record_sizes, survey_cost
from ra_plugins.spf.owner.explain import explained_survey
from ra_plugins.spf.owner.survey import BOUNDS, Survey, address_block, arun_survey, run_survey, survey
from ra_plugins.spf.owner.tree import SurveyReport
from ra_plugins.spf.query import Query
from ra_plugins.spf.show import is_void
from ra_plugins.spf.spfquery import CANT_ANSWER
from ra_plugins.spf.trace import EXPLANATION

TEN = """
$ORIGIN example.org.
@         TXT   "v=spf1 mx include:_spf.example.net a:www include:_spf.example.com -all"
@         MX    10 mx1
@         MX    20 mx2
mx1       A     192.0.2.25
mx1       AAAA  2001:db8::25
mx2       A     192.0.2.26
$ORIGIN example.net.
_spf      TXT   "v=spf1 include:_a.example.net include:_b.example.net ~all"
_a        TXT   "v=spf1 a:a1.example.net a:a2.example.net ~all"
_b        TXT   "v=spf1 a:b1.example.net ip4:198.51.100.0/24 ~all"
a1        A     198.51.100.1
a2        A     203.0.113.2
b1        A     203.0.113.3
$ORIGIN example.com.
_spf      TXT   "v=spf1 exists:%{i}._ok.%{d} -all"
"""
TEN = TEN.replace("a:www ", "a:www.example.org ")


def zone_of(**records: str) -> Zone:
    "A zone of SPF records, by the first label of names below example."
    return zone_from_text("".join(f'{name}.example. TXT "v=spf1 {terms}"\n' for name, terms in records.items()))


def cost_of(terms: str, **records: str) -> SurveyCost:
    "What a record of top.example costs."
    return survey_cost(run_survey("top.example", resolver=zone_of(top=terms, **records)))


# The ten-lookup record


def test_the_ten_lookups_by_hand() -> None:
    "mx; include, its two includes with 2 + 1 hosts; a; include with its exists: 1 + 1 + 2 + 3 + 1 + 1 + 1."
    found = survey_cost(run_survey("example.org", resolver=zone_from_text(TEN)))
    assert found.lookups.total == 10 and found.lookups.over is None
    assert [f"{each.record.domain} {each.term.text}" for each in found.lookups.spent] == [
        "example.org mx",
        "example.org include:_spf.example.net",
        "_spf.example.net include:_a.example.net",
        "_a.example.net a:a1.example.net",
        "_a.example.net a:a2.example.net",
        "_spf.example.net include:_b.example.net",
        "_b.example.net a:b1.example.net",
        "example.org a:www.example.org",
        "example.org include:_spf.example.com",
        "_spf.example.com exists:%{i}._ok.%{d}",
    ]
    by_include = {term.text: 1 + found.lookups.inside(term) for term in found.survey.root.terms if term.inner}
    assert by_include == {"include:_spf.example.net": 6, "include:_spf.example.com": 2}


def test_void_lookups_by_the_version_of_the_client() -> None:
    "For IPv4, www alone. For IPv6, mx2, a1, a2, b1 and www have no address, and the third of them is one too many."
    found = survey_cost(run_survey("example.org", resolver=zone_from_text(TEN)))
    assert {version: worst.total for version, worst in found.voids.items()} == {4: 1, 6: 5}
    assert found.voids[4].over is None
    over = found.voids[6].over
    assert over and over.term.text == "a:a2.example.net" and [term.text for term in over.by] == [
        "include:_spf.example.net",
        "include:_a.example.net",
    ]
    assert found.permerror


def test_addresses_by_hand() -> None:
    "Four hosts by IPv4 outside of the network of 256, one within; one by IPv6; the client of exists is anybody's guess."
    found = senders(run_survey("example.org", resolver=zone_from_text(TEN)))
    assert [str(block) for block in found.passing.blocks(4)] == [
        "192.0.2.25",
        "192.0.2.26",
        "198.51.100.0/24",
        "203.0.113.2/31",
    ]
    assert found.passing.count(4) == 260 and found.passing.count(6) == 1
    assert [term.text for _, term in found.unknown] == ["exists:%{i}._ok.%{d}"]


class Rounds:
    "A nameserver that answers whatever it was asked at the same time in one go, and counts how often."

    def __init__(self, zone: Zone):
        self.zone, self.rounds, self.asked = zone, 0, 0
        self.waiting: list[asyncio.Future[None]] = []

    async def tell(self, question: Any, until: float) -> Any:
        self.asked += 1
        self.waiting.append(asyncio.get_running_loop().create_future())
        await self.waiting[-1]
        return self.zone(question)

    async def run(self, decision: Coroutine[Any, Any, Survey]) -> Survey:
        task = asyncio.create_task(adrive(decision, self.tell))
        while not task.done():
            for _ in range(50):  # until all have asked that can
                await asyncio.sleep(0)
            if self.waiting:
                self.rounds += 1
            for future in self.waiting:
                future.set_result(None)
            self.waiting = []
        return await task


def test_round_trips_are_the_depth_of_the_tree() -> None:
    "The record, two includes in one another and the hosts in the inner one: four rounds for 18 lookups."
    server = Rounds(zone_from_text(TEN))
    found = asyncio.run(server.run(survey("example.org")))
    assert server.rounds == found.rounds == 4
    # TXT; TXT, TXT, MX, A and AAAA of www; TXT, TXT, and both of two MX; both of three hosts
    assert server.asked == found.lookups == 1 + 5 + 6 + 6


def test_all_ways_agree() -> None:
    zone = zone_from_text(TEN)
    with DnsServer(zone) as server:

        def seen(found: Survey) -> Any:
            data = SurveyReport(found).data()
            for record in data["records"].values():
                del record["ttl"]
            return data

        over_zone = seen(run_survey("example.org", resolver=zone))
        assert seen(run_survey("example.org", resolver=asking(server))) == over_zone
        assert seen(asyncio.run(arun_survey("example.org", resolver=asking(server)))) == over_zone
        assert seen(asyncio.run(arun_survey("ana@example.org", resolver=zone))) == over_zone


# First match ends evaluation


@pytest.mark.parametrize(
    ("terms", "records", "lookups"),
    [
        ("include:a.example a:h.example -all", {"a": "+all"}, 1),  # everybody passes there
        ("include:a.example a:h.example -all", {"a": "-ip4:192.0.2.1 +all"}, 2),  # but for one
        ("include:a.example a:h.example -all", {"a": "a:h.example a:h.example ?all"}, 4),
        ("all a:h.example redirect=a.example", {"a": "mx"}, 0),
        ("a:h.example redirect=a.example", {"a": "mx:h.example ptr -all"}, 4),
        ("exists:a.example a:h.example", {"a": ""}, 2),  # there is no address there
        ("ip4:0.0.0.0/0 ip6:::/0 a:h.example -all", {}, 0),
        ("ip4:0.0.0.0/0 a:h.example -all", {}, 1),  # an IPv6 client gets there
        ("include:a.example include:a.example", {"a": "a:h.example"}, 4),  # each time
        ("exists:%{i}.h.example include:%{l}.example ptr", {}, 3),
    ],
)
def test_the_worst_case(terms: str, records: dict[str, str], lookups: int) -> None:
    assert cost_of(terms, **records).lookups.total == lookups


def strangers_lookups(zone: Zone, domain: str) -> int:
    "What a client costs that nobody knows."
    query = Query("203.0.113.250", f"ana@{domain}", limits=Limits(100, 1000))
    return drive(check_identity(query), zone).lookups


def test_a_stranger_pays_the_worst_case() -> None:
    zone = zone_of(
        top="a:h.example include:a.example include:b.example include:a.example redirect=c.example",
        a="include:b.example mx:h.example ~all",
        b="a:h.example exists:h.example -ip4:192.0.2.0/24 ?all",
        c="ip4:198.51.100.0/24 include:a.example -all",
    )
    found = survey_cost(run_survey("top.example", resolver=zone))
    assert found.lookups.total == strangers_lookups(zone, "top.example") == 1 + 5 + 3 + 5 + 1 + 5


@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much])
@given(data=st.data(), domain=st.sampled_from(DOMAINS), ip=clients)
def test_no_client_pays_more_and_those_pass_that_are_counted(data: st.DataObject, domain: str, ip: str) -> None:
    zone = Invented(data.draw)
    checked = drive(check_identity(Query(ip, f"ana@{domain}", limits=Limits(100, 1000))), zone)
    found = run_survey(domain, resolver=zone)
    cost, who = survey_cost(found), senders(found)
    assume(not who.unknown and not who.partial and not cost.open)
    voids = sum(
        is_void(checked.query, lookup, answer)
        for visit in checked.trace.walk()
        for number, lookup, answer in visit.asked
        if number != EXPLANATION
    )
    if not found.loops:
        assert (ip in who.passing) == (checked.result == "pass")
        assert voids <= cost.voids[checked.query.version].total
    assert checked.lookups <= cost.lookups.total
    json.dumps(SurveyReport(found).data())
    assert all(line.isprintable() for line in str(SurveyReport(found)).split("\n"))


# Macros


def test_macros_that_need_no_client_are_followed() -> None:
    zone = zone_of(top="include:%{d1r}.b.example include:%{o}.c.example exists:%{l}.example -all")
    zone.records["top.b.example", "TXT"] = ["v=spf1 include:%{o}.%{d2} -all"]
    zone.records["top.example.c.example", "TXT"] = ["v=spf1 -all"]
    zone.records["top.example.b.example", "TXT"] = ["v=spf1 ip4:192.0.2.1 -all"]
    found = run_survey("top.example", resolver=zone)
    assert [*found.records] == ["top.example", "top.b.example", "top.example.c.example", "top.example.b.example"]
    assert [term.letters for term in found.root.terms] == ["", "", "l", ""]


# Bytes


@pytest.mark.parametrize(("length", "strings"), [(255, 1), (256, 2), (510, 2), (511, 3)])
def test_strings_of_255_bytes(length: int, strings: int) -> None:
    text = f"v=spf1 x={'y' * (length - 14)} -all"
    found = run_survey(text, "example.org", resolver=Zone({}))
    assert len(found.root.text) == length
    assert record_sizes(found.root)[:2] == (length, strings)


def test_an_answer_is_as_long_as_dnspython_writes_it() -> None:
    texts = ["v=spf1 " + " ".join(f"ip4:192.0.2.{number}" for number in range(30)) + " -all", "other", "x" * 700]
    zone = Zone({("mail.example.org", "TXT"): texts})
    sizes = record_sizes(run_survey("mail.example.org", resolver=zone).root)
    message = dns.message.make_response(dns.message.make_query("mail.example.org", "TXT"))
    chunks = [" ".join(f'"{text[at : at + 255]}"' for at in range(0, len(text), 255)) for text in texts]
    message.answer.append(dns.rrset.from_text("mail.example.org.", 300, "IN", "TXT", *chunks))
    assert sizes.answer == len(message.to_wire(max_size=65535)) and sizes.records == 3
    assert sizes.together == len("mail.example.org") + sum(map(len, texts))
    with_edns = dns.message.make_response(dns.message.make_query("mail.example.org", "TXT", use_edns=0))
    with_edns.answer = message.answer
    assert sizes.answer + 11 == len(with_edns.to_wire(max_size=65535))


def test_a_draft_is_measured_with_what_stands_beside_it() -> None:
    zone = Zone({("example.org", "TXT"): ["v=spf1 mx -all", "a key", "another"]})
    sizes = record_sizes(run_survey("v=spf1 -all", "example.org", resolver=zone).root)
    assert (sizes.record, sizes.records, sizes.together) == (11, 3, 11 + 11 + 5 + 7)


# Hosts behind an MX


def test_eleven_hosts_are_one_too_many() -> None:
    for count in (10, 11):
        zone = zone_of(top="mx -all")
        zone.records["top.example", "MX"] = [(10, f"h{number}.example") for number in range(count)]
        for number in range(count):
            zone.records[f"h{number}.example", "A"] = [f"192.0.2.{number}"]
            zone.records[f"h{number}.example", "AAAA"] = [f"2001:db8::{number}"]
        found = SurveyReport(run_survey("top.example", resolver=zone))
        assert [len(term.hosts) for _, term in found.cost.mx] == [count]
        assert bool(found.cost.mx_over) == found.cost.permerror == (count == 11)
        assert found.senders.passing.count(4) == (10 if count == 10 else 0)
    assert "too many hosts: mx of top.example has 11 of 10" in str(found)


# What a stranger may do


def test_a_loop_is_named() -> None:
    found = cost_of("include:a.example -all", a="include:b.example ~all", b="a:h.example redirect=a.example")
    assert found.survey.loops == [["a.example", "b.example", "a.example"]] and not found.survey.partial
    assert found.lookups.total == float("inf") and found.permerror
    # include:a, three times include:b, a:h and redirect=a, and then:
    assert found.lookups.over and found.lookups.over.term.text == "include:b.example"


def hostile(answer: Callable[[str, str], Any]) -> Callable[[Any, float], Any]:
    "A nameserver that makes its answers up, from a name and a type: a record's terms, records, or why there are none."

    def tell(question: Any, until: float) -> Any:
        found = answer(question.name, question.rdtype)
        return Records([f"v=spf1 {found}"]) if isinstance(found, str) else found

    return tell


def test_a_name_that_grows_ends_somewhere() -> None:
    tell = hostile(lambda name, rdtype: "include:x.%{d} -all")
    found = drive(survey("example.org"), tell)
    assert len(found.records) == BOUNDS.depth + 1 and found.lookups == BOUNDS.depth + 1
    assert found.partial and [gap.kind for gap in found.gaps] == ["growing name"]
    report = SurveyReport(found)
    assert report.result == "permerror" and "partial, and so no less than that: growing name: include:x.%{d}" in str(report)


def test_a_chain_without_an_end_is_too_deep() -> None:
    tell = hostile(lambda name, rdtype: f"include:n{int(name[1:-8]) + 1}.example -ip4:192.0.2.{int(name[1:-8])} -all")
    found = drive(survey("n1.example"), tell)
    assert [gap.kind for gap in found.gaps] == ["too deep"] and len(found.records) == BOUNDS.depth + 1


def test_a_tree_that_is_too_broad() -> None:
    "A hundred includes, each of a hundred others, each of a hundred."
    tell = hostile(lambda name, rdtype: " ".join(f"include:n{number}.{name[-60:]}" for number in range(100)))
    found = drive(survey("example.org"), tell)
    assert len(found.records) == BOUNDS.records and found.lookups <= BOUNDS.lookups
    assert "too many records" in {gap.kind for gap in found.gaps}
    assert SurveyReport(found).result == "permerror"
    assert len(str(SurveyReport(found)).splitlines()) < 550


@pytest.mark.parametrize(
    "term", ["a:h{}.example", "include:i{}.example", "ip4:10.{0}.0.1", "mx:m{}.example", "exists:%{{i}}.{}.example"]
)
def test_a_record_of_60_kB(term: str) -> None:
    terms, number = "", 0
    while len(terms) < 60_000:
        terms += term.format(number % 256 if "ip4" in term else number) + " "
        number += 1
    answers: dict[str, Any] = {"TXT": Records(["v=spf1 -all"]), "A": Records(["192.0.2.1"]), "AAAA": Records()}
    answers["MX"] = Records([(10, f"h{number}.example") for number in range(300)])

    def tell(question: Any, until: float) -> Any:
        return Records([f"v=spf1 {terms}-all"]) if question.name == "example.org" else answers[question.rdtype]

    found = drive(survey("example.org"), tell)
    report = SurveyReport(found)
    assert len(found.root.terms) == number + 1 and found.lookups <= BOUNDS.lookups
    assert report.cost.lookups.total == (0 if "ip4" in term else number)
    assert found.partial == ("ip4" not in term)
    assert len(str(report)) < 200_000 and record_sizes(found.root).answer > 60_000


def test_domains_that_never_answer_are_told() -> None:
    def tell(question: Any, until: float) -> Any:
        if "silent" in question.name:
            return Late("no answer in time")
        return zone_of(top="include:a.example include:silent.example a:silent.example -all", a="ip4:192.0.2.1 -all")(question)

    found = drive(survey("top.example"), tell)
    assert {gap.kind for gap in found.gaps} == {"lookup failed"} and len(found.gaps) >= 2
    report = SurveyReport(found)
    assert report.result == "temperror" and report.cost.lookups.total == 3
    assert [term.text for _, term in report.cost.unknown] == ["include:silent.example"]
    assert report.senders.partial and report.senders.passing == AddressSet([address_block("192.0.2.1")])


def test_the_rest_is_told_if_the_time_is_over() -> None:
    "One nameserver of two doesn't answer, within a survey that has half a second."
    zone = zone_of(top="include:a.example include:silent.example -all", a="ip4:192.0.2.1 -all")
    with DnsServer(zone, faults={"silent.example": "drop"}) as server:
        found = run_survey("top.example", resolver=asking(server), timeout=0.5)
    assert [gap.kind for gap in found.gaps] == ["lookup failed"] and found.records["a.example"].state == "record"


def test_an_address_that_is_no_address() -> None:
    for about in ("", "localhost", "a b.example", "v=spf2 mx", "x" * 70 + ".example"):
        with pytest.raises(ValueError, match="should be a domain, or a record"):
            run_survey(about, resolver=Zone({}))


@pytest.mark.parametrize(
    ("texts", "state"),
    [
        ([], "no record"),
        (["hello"], "no record"),
        (["v=spf1 -all", "v=spf1 mx"], "several records"),
        (["v=spf1 moo -all"], "faulty record"),
    ],
)
def test_why_there_is_no_record(texts: list[str], state: str) -> None:
    zone = Zone({("a.example", "TXT"): texts, ("top.example", "TXT"): ["v=spf1 include:a.example ip4:192.0.2.1 -all"]})
    found = SurveyReport(run_survey("a.example", resolver=zone))
    assert found.survey.root.state == state and found.result == ("none" if state == "no record" else "permerror")
    outer = SurveyReport(run_survey("top.example", resolver=zone))
    assert outer.result == "permerror" and not outer.senders.passing and f"a.example: {state}" in str(outer)


# The command


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "zone").write_text(TEN, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def explain(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    "Status, output and errors of the command."
    status = main(["spf", "explain", *arguments])
    return status, *capsys.readouterr()


def test_explain_without_a_client(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, output, _ = explain(capsys, "example.org", "--zone=zone")
    lines = output.splitlines()
    assert status == 4  # for IPv6 clients, by their void lookups
    assert lines[0] == "example.org: at worst 10 of 10 lookups; 1 of 2 void for IPv4, 5 of 2 void for IPv6 clients"
    told = "may send: 260 IPv4 addresses in 4 networks and 1 IPv6 address in 1 network, not counting the limits"
    assert told in lines
    (include,) = (line for line in lines if line.startswith("  include:_spf.example.net"))
    assert include.split() == ["include:_spf.example.net", "1", "+", "5", "3", "void", "IPv6"]
    status, output, _ = explain(capsys, "example.org", "--zone=zone", "--json")
    data = json.loads(output)
    assert status == 4 and data["lookups"]["used"] == 10 and data["voids"]["ipv6"]["used"] == 5
    assert data["senders"]["ipv6"] == {"addresses": 1, "networks": ["2001:db8::25"]}
    assert data["records"]["_a.example.net"]["terms"][1]["networks"] == ["203.0.113.2"]


def test_explain_by_another_limit(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _, output, _ = explain(capsys, "example.org", "--zone=zone", "--max-lookup=9")
    assert "too many lookups: number 10 is exists:%{i}._ok.%{d} of _spf.example.com, by include:_spf.example.com" in output


def test_senders_behind_a_limit_arent_promised(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    told = "may send: 1 IPv4 address in 1 network"
    void = " ".join(f"a:gone{number}.example.org" for number in range(3))
    asking = " ".join(["a:a1.example.org"] * 11)
    zone = f"""$ORIGIN example.org.
void TXT "v=spf1 {void} ip4:192.0.2.1 -all"
asking TXT "v=spf1 {asking} ip4:192.0.2.1 -all"
six TXT "v=spf1 {' '.join(['a:a1.example.org'] * 3)} ip4:192.0.2.1 -all"
a1 A 192.0.2.1
"""
    (folder / "zone").write_text(zone)
    for name, status, more in (("void", 4, True), ("asking", 4, True), ("six", 4, False)):  # six: IPv6 clients alone
        found, output, _ = explain(capsys, f"{name}.example.org", "--zone=zone")
        assert found == status and f"{told}{', not counting the limits' * more}" in output.splitlines(), name
        data = json.loads(explain(capsys, f"{name}.example.org", "--zone=zone", "--json")[1])
        assert data["senders"]["not counting the limits"] is more
    assert explain(capsys, "void.example.org", "--zone=zone", "--ip=192.0.2.1")[0] == 4
    assert explain(capsys, "six.example.org", "--zone=zone", "--ip=192.0.2.1")[0] == 0


def test_explain_without_a_client_counts_voids_as_asked(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "zone").write_text("""$ORIGIN example.org.
@ TXT "v=spf1 a:one.example.org a:two.example.org a:six.example.org -all"
one A 192.0.2.1
two A 192.0.2.2
six A 192.0.2.6
""")
    client = "--ip=2001:db8::1"
    for more, status, voids in (([], 4, 3), (["--void-ipv6=1"], 4, 3), (["--void-ipv6=0"], 0, 0), (["--void-ipv4=0"], 4, 3)):
        found, output, _ = explain(capsys, "example.org", "--zone=zone", *more)
        assert found == status and f"{voids} of 2 void for IPv6 clients" in output
        assert explain(capsys, "example.org", "--zone=zone", client, *more)[0] == (status or 1)
    (folder / "zone").write_text('example.org. TXT "v=spf1 exists:a.example exists:b.example exists:c.example -all"')
    found, output, _ = explain(capsys, "example.org", "--zone=zone", "--void-ipv6=0", "--void-ipv4=0")
    assert found == 4 and "3 of 2 void for IPv4, 3 of 2 void for IPv6 clients" in output  # no host's addresses


def test_explain_a_picture(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for more in ([], ["--ip=192.0.2.25"]):
        explain(capsys, "example.org", "--zone=zone", "--picture=picture.html", *more)
        page = (folder / "picture.html").read_text(encoding="utf-8")
        assert page.startswith("<!doctype html>") and "include:_spf.example.net" in page and "<script" not in page
    status, _, errors = explain(capsys, "example.org", "--zone=zone", "--picture=nowhere/picture.html")
    said = "ra-plugins spf explain: can't write nowhere/picture.html: No such file or directory\n"
    assert status == CANT_ANSWER and errors == said


def test_explain_a_record_before_it_is_published(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    draft = "v=spf1 mx include:_b.example.net -all"
    status, output, _ = explain(capsys, draft, "--zone=zone", "--domain=example.org")
    assert status == 0 and output.startswith("example.org: at worst 3 of 10 lookups; 0 of 2 void for IPv4, 2 of 2 void for IPv6")
    assert "domain.example" not in output
    status, output, _ = explain(capsys, draft, "--zone=zone")
    assert "its own domain is taken for domain.example, which nobody has; --domain NAME names it" in output
    assert explain(capsys, draft, "--zone=zone", "--domain=example.org", "--ip=192.0.2.26")[0] == 0
    draft = "v=spf1 include:_b.example.net mx -all"
    status, output, _ = explain(capsys, draft, "--zone=zone", "--ip=198.51.100.9")
    assert status == 0 and output.startswith("pass: domain.example from 198.51.100.9")


def test_nobody_is_asked_about_a_domain_that_nobody_has_named(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "zone").write_text('domain.example. MX 10 mx.example.net.\nmx.example.net. A 192.0.2.77\n')
    status, output, _ = explain(capsys, "v=spf1 mx a:%{d} include:_spf.%{d} exists:%{i}.%{d} -all", "--zone=zone")
    lines = output.splitlines()
    assert status == 0 and "may send: nobody that can be counted" in lines
    assert "not looked up, since it needs its own domain: mx; a:%{d}; include:_spf.%{d}" in lines
    _, output, _ = explain(capsys, "v=spf1 mx -all", "--zone=zone", "--json")
    data = json.loads(output)
    assert data["partial"] is True and data["records"]["domain.example"]["terms"][0]["asked"] == []
    status, output, _ = explain(capsys, "v=spf1 mx -all", "--zone=zone", "--domain=domain.example.net")
    assert "not looked up" not in output and "nothing: MX domain.example.net" in output


@pytest.mark.parametrize("term", ["mx", "a/24", "?ptr", "exists:%{i}.%{d}", "include:_spf.%{d}", "exists:%{o}.ok.example.org"])
def test_a_client_isnt_judged_by_a_domain_that_nobody_has_named(
    folder: Path, capsys: pytest.CaptureFixture[str], term: str
) -> None:
    status, output, errors = explain(capsys, f"v=spf1 ip4:192.0.2.1 {term} -all", "--zone=zone", "--ip=192.0.2.2")
    said = f"ra-plugins spf explain: {term} is about the record's own domain; --domain NAME names it\n"
    assert (status, output, errors) == (CANT_ANSWER, "", said)
    assert explain(capsys, f"v=spf1 ip4:192.0.2.2 {term} -all", "--zone=zone", "--ip=192.0.2.2")[0] == 0  # no need of it


def test_a_picture_on_standard_output(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for more in ([], ["--ip=192.0.2.25"]):
        _, output, errors = explain(capsys, "example.org", "--zone=zone", "--picture", "-", *more)
        assert output.startswith("<!doctype html>") and output.endswith("</html>\n") and not errors
        assert not (folder / "-").exists() and "at worst" not in output.partition("<body>")[0]
        status, output, errors = explain(capsys, "example.org", "--zone=zone", "--picture=-", "--json", *more)
        assert (status, output) == (CANT_ANSWER, "") and "--json and --picture - both want standard output" in errors


def test_a_place_for_the_picture_is_looked_at_first(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ra_plugins.spf.spfquery.setup_for", lambda *_: pytest.fail("the work has begun"))
    for path, why in ((".", "can't write .: Is a directory"), ("zone", "zone is read: the page would replace it")):
        status, output, errors = explain(capsys, "example.org", "--zone=zone", f"--picture={path}")
        assert (status, output, errors) == (CANT_ANSWER, "", f"ra-plugins spf explain: {why}\n")
    assert (folder / "zone").read_text(encoding="utf-8") == TEN


@pytest.mark.parametrize(
    ("option", "said"),
    [
        ("--max-lookup=-1", "--max-lookup should be a number from 0 to 9999, not -1"),
        ("--void-lookups=x", "--void-lookups should be a number from 0 to 9999, not x"),
        ("--timeout=x", "--timeout should be a number from 1 to 9999, not x"),
        ("--timeout=0", "--timeout should be a number from 1 to 9999, not 0"),
        ("--void-ipv6=7", "--void-ipv6 should be 0 or 1, not 7"),
        ("--void-ipv4=", "--void-ipv4 should be 0 or 1, not "),
        ("--zone=broken", "--zone: broken:1: "),
        ("--void", "there is no option --void; --void-lookups, --void-ipv6, --void-ipv4?"),
    ],
)
def test_options_are_named_as_they_are_typed(
    folder: Path, capsys: pytest.CaptureFixture[str], option: str, said: str
) -> None:
    (folder / "broken").write_text("mx A 192.0.2\n")
    for more in ([], ["--ip=192.0.2.1"]):
        assert explain(capsys, "example.org", option, *more)[2].startswith(f"ra-plugins spf explain: {said}")


def test_a_loop_costs_lookups_without_end(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "zone").write_text('loop.example. TXT "v=spf1 include:loop.example -all"\n')
    _, output, _ = explain(capsys, "loop.example", "--zone=zone", "--picture=picture.html")
    assert output.startswith("loop.example: lookups without end, where 10 may be; ")
    assert "lookups without end, where 10 may be" in (folder / "picture.html").read_text(encoding="utf-8")


def test_a_draft_is_checked_over_dns_too(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    with DnsServer(zone_from_text(TEN)) as server:
        resolver = asking(server)
        monkeypatch.setattr("ra_plugins.ask.resolver.default_resolver", lambda: resolver)
        draft = "v=spf1 mx include:_b.example.net -all"
        assert explain(capsys, draft, "--domain=example.org", "--ip=203.0.113.3")[0] == 0
        status, output, _ = explain(capsys, "example.org")
        assert status == 4 and output.startswith("example.org: at worst 10 of 10 lookups")
        assert ("example.org", "TXT", "udp") in server.queries  # of the second, since the first has its record


FAULTY = """
example.org.      TXT "v=spf1 mx ip4:192.0.2.0/33 -all"
two.example.org.  TXT "v=spf1 mx -all"
two.example.org.  TXT "v=spf1 a -all"
out.example.org.  TXT "v=spf1 include:example.org -all"
"""


@pytest.mark.parametrize(
    ("about", "marked"),
    [
        ("example.org", ["  v=spf1 mx ip4:192.0.2.0/33 -all", "            ^^^^^^^^^^^^^^^^"]),
        ("two.example.org", ["  v=spf1 mx -all", "  ^^^^^^", "  v=spf1 a -all", "  ^^^^^^"]),
        ("out.example.org", ["      v=spf1 mx ip4:192.0.2.0/33 -all", "                ^^^^^^^^^^^^^^^^"]),
        ("v=spf1 a/b -all", ["  v=spf1 a/b -all", "         ^^^"]),
        ("v=spf1 -all", []),
    ],
)
def test_explain_marks_a_mistake(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], about: str, marked: list[str]
) -> None:
    "With a client and without, in the text and in the picture: it is the same mistake."
    zone, picture = tmp_path / "zone", tmp_path / "picture.html"
    zone.write_text(FAULTY, encoding="utf-8")
    for more in ([], ["--ip=192.0.2.1"]):
        _, output, _ = explain(capsys, about, f"--zone={zone}", f"--picture={picture}", *more)
        lines = output.splitlines()
        places = [number for number, line in enumerate(lines) if line and not line.strip(" ^")]
        assert [line for number in places for line in lines[number - 1 : number + 1]] == marked
        assert picture.read_text(encoding="utf-8").count("<mark>") == len(places)


@pytest.mark.parametrize("about", ["example.org", "two.example.org", "v=spf1 a/b -all"])
def test_the_mistake_is_the_same_in_json(tmp_path: Path, capsys: pytest.CaptureFixture[str], about: str) -> None:
    zone = tmp_path / "zone"
    zone.write_text(FAULTY, encoding="utf-8")
    judged = json.loads(explain(capsys, about, f"--zone={zone}", "--json", "--ip=192.0.2.1")[1])["why"]
    (record,) = json.loads(explain(capsys, about, f"--zone={zone}", "--json")[1])["records"].values()
    assert record["mistake"] == judged
    if about == "v=spf1 a/b -all":
        assert (judged["text"], judged["length"], judged["part"]) == ("a/b", 3, {"place": 7, "length": 3})


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "a domain or a record is needed; --help tells more"),
        (["v=spf1", "mx", "-all"], "a record stands in quotes, as in 'v=spf1 mx -all'"),
        (["v=spf2 mx"], "should be a domain, or a record that begins with v=spf1, not 'v=spf2 mx'"),
        (["example.org", "--domain=example.net"], "--domain is for a record in quotes, which begins with v=spf1"),
        (["v=spf1 -all", "--domain=x y"], "should be a domain, or a record that begins with v=spf1, not 'x y'"),
        (["v=spf1 -all", "--domain=x y", "--ip=192.0.2.1"], "--domain should be a domain, not x y"),
        (["example.org", "--helo=mx"], "--helo needs --ip"),
    ],
)
def test_what_cant_be_explained(folder: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], said: str) -> None:
    status, output, errors = explain(capsys, *arguments, "--zone=zone")
    assert (status, output, errors) == (CANT_ANSWER, "", f"ra-plugins spf explain: {said}\n")


def test_statuses_without_a_client(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for about, expected in (("v=spf1 -all", 0), ("v=spf1 include:nowhere.example -all", 4), ("nowhere.example", 6)):
        assert explain(capsys, about, "--zone=zone")[0] == expected


def test_what_isnt_installed_leaves_no_question_behind(
    monkeypatch: pytest.MonkeyPatch, recwarn: pytest.WarningsRecorder
) -> None:
    "Python would warn of a survey that nobody has waited for, behind the line that says what to install."
    monkeypatch.setitem(sys.modules, "ra_plugins.ask.resolver", None)
    with pytest.raises(ImportError):
        explained_survey("example.org")
    gc.collect()
    assert [str(each.message) for each in recwarn if each.category is RuntimeWarning] == []


@pytest.mark.parametrize("about", [".", "nobody@", "localhost"])
def test_what_is_no_domain_is_named_as_it_was_typed(about: str) -> None:
    with pytest.raises(ValueError, match=re.escape(f"not {about!r}")):
        run_survey(about, resolver=Zone({}))
