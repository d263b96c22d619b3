"Where a mistake is, why there is no policy, which lookup failed; and the settings that the commands share with the library."

from __future__ import annotations

import json
from copy import deepcopy
from time import monotonic
from typing import Any

import pytest

import ra_plugins.spf.spfquery as command
from ra_plugins.ask.dns import Zone
from ra_plugins.ask.question import Late, Refused, drive
from ra_plugins.ask.resolver import Resolver
from ra_plugins.ask.zonefile import zone_from_text
from ra_plugins.spf import Limits, check
from ra_plugins.spf.evaluation import check_identity
from ra_plugins.spf.query import Query
from ra_plugins.spf.result import Result
from ra_plugins.spf.spfquery import LIMITING, SpfqueryAnswer, SpfquerySetup, SpfRequest, answer_request, explain, main
from ra_plugins.support.command_line import Fault

ZONE = zone_from_text("""
$ORIGIN example.org.
@        TXT "v=spf1 mx ip4:192.0.2.0/33 -all"
macro    TXT "v=spf1 exists:%{i}.%{d0}.example.net -all"
two      TXT "v=spf1 -all"
two      TXT "V=SPF1 mx ~all"
outer    TXT "v=spf1 include:example.org -all"
texts    TXT "some=thing"
bare     A   192.0.2.7
helo     TXT "v=spf1 exists:%{h}.hosts.example.org -all"
moo      TXT "v=spf1 moo=cow mx -all Redirekt=x.example.net"
mx.example.net.hosts A 127.0.0.2
unknown.hosts        TXT "no address"
""")


def of(domain: str, ip: str = "192.0.2.99", helo: str = "", **more: Any) -> Result:
    return check(ip, f"ana@{domain}" if domain else "", helo, resolver=ZONE, **more)


@pytest.mark.parametrize(
    ("domain", "record", "marked"),
    [
        ("example.org", "v=spf1 mx ip4:192.0.2.0/33 -all", "ip4:192.0.2.0/33"),
        ("macro.example.org", "v=spf1 exists:%{i}.%{d0}.example.net -all", "%{d0}"),
        ("outer.example.org", "v=spf1 mx ip4:192.0.2.0/33 -all", "ip4:192.0.2.0/33"),
    ],
)
def test_the_tree_shows_the_record_with_the_place_marked(domain: str, record: str, marked: str) -> None:
    "As text, in JSON and in the picture."
    found = of(domain)
    text = str(found).splitlines()
    (line,) = [number for number, each in enumerate(text) if each.strip() == record]
    place = text[line + 1].index("^")
    assert text[line][place : place + text[line + 1].count("^")] == marked
    why = json.loads(json.dumps(found.data()))["why"]
    part = why["part"]
    assert record[part["place"] :][: part["length"]] == marked and record[why["place"] :][: why["length"]] == why["term"]
    visit = found.data()["trace"]
    while visit["terms"]:
        visit = visit["terms"][0]["visit"]
    assert visit["record"] == record and f"<mark>{marked}</mark>" in found._repr_html_()
    assert str(deepcopy(found)) == str(found)


def test_two_records_are_both_shown() -> None:
    found = of("two.example.org")
    lines = [line.strip() for line in str(found).splitlines()]
    assert lines[-4:] == ["v=spf1 -all", "^^^^^^", "V=SPF1 mx ~all", "^^^^^^"]
    assert found.data()["why"]["records"] == ["v=spf1 -all", "V=SPF1 mx ~all"]
    assert found._repr_html_().count("<mark>") == 2


@pytest.mark.parametrize(
    ("sender", "helo", "cause", "words"),
    [
        ("ana@bare.example.org", "", "no TXT record", "bare.example.org has no TXT record"),
        ("ana@nowhere.example.org", "", "no such name", "there is no name nowhere.example.org in DNS (NXDOMAIN)"),
        (
            *("ana@texts.example.org", "", "TXT records, none for SPF"),
            "texts.example.org has TXT records, but none that begins with v=spf1 and a blank",
        ),
        ("ana@localhost", "", "one label", "localhost has only one label, so it has no policy"),
        ("ana@a..example", "", "malformed", "a..example has an empty label, so it has no policy"),
        ("ana@[192.0.2.1]", "", "malformed", "[192.0.2.1] is an address in brackets, so it has no policy"),
        ("ana@a b.example", "", "malformed", "a b.example has a character that no domain name has, so it has no policy"),
        ("ana@", "", "empty", "the sender has no domain"),
        ("", "", "empty", "the sender is empty, and so is HELO"),
        ("", "mail", "one label", "the sender is empty, and mail from HELO has only one label, so it has no policy"),
        ("", ".", "empty", "the sender is empty, and so is HELO"),
    ],
)
def test_none_says_why(sender: str, helo: str, cause: str, words: str) -> None:
    found = check("192.0.2.1", sender, helo, resolver=ZONE)
    why = found.data()["why"]
    assert (found.result, why["cause"], why["text"]) == ("none", cause, words)
    assert words in str(found).splitlines() and words in found._repr_html_()


def test_a_temperror_names_the_lookup() -> None:
    "In the comment and the header, and on one line."

    def refuses(question: Any, until: float) -> Any:
        return Refused("REFUSED\r\nX: y") if getattr(question, "rdtype", "") == "MX" else ZONE(question)

    found = drive(check_identity(Query("192.0.2.1", "ana@moo.example.org", "mail.example.net")), refuses)
    header = found.header("mx.example.com")
    assert "temporary error in processing during lookup of moo.example.org: MX moo.example.org)" in header
    assert 'problem="MX moo.example.org"' in header and header.isprintable() and len(header) < 998


def test_a_deadline_names_the_lookup() -> None:
    def late(question: Any, until: float) -> Any:
        return Late("no answer before the deadline") if getattr(question, "rdtype", "") == "MX" else ZONE(question)

    found = drive(check_identity(Query("192.0.2.1", "ana@moo.example.org")), late)
    assert found.header("r").startswith(
        "Received-SPF: TempError (r: temporary error in processing during lookup of moo.example.org: MX moo.example.org)"
    )


@pytest.mark.parametrize(
    ("helo", "asked", "result", "cause"),
    [
        ("mx.example.net", "mx.example.net.hosts.example.org", "pass", None),
        ("mx.example.net.", "mx.example.net.hosts.example.org", "pass", "HELO with a dot"),
        ("", "unknown.hosts.example.org", "fail", "no HELO"),
    ],
)
def test_helo_in_a_macro(helo: str, asked: str, result: str, cause: str | None) -> None:
    found = of("helo.example.org", helo=helo)
    assert found.result == result and [lookup.name for _, lookup, _ in found.trace.asked][1] == asked
    assert [note["cause"] for note in found.data()["notes"]] == ([cause] if cause else [])
    assert ("HELO " in str(found)) == bool(cause)


def test_unknown_modifiers_are_shown() -> None:
    lines = [line.split() for line in str(of("moo.example.org")).splitlines()]
    assert ["moo=cow", "ignored"] in lines and ["Redirekt=x.example.net", "ignored"] in lines
    states = {term["term"]: term["state"] for term in of("moo.example.org").data()["trace"]["terms"]}
    assert states["moo=cow"] == "ignored" and states["-all"] == "match"


# Settings

HOSTS = "v=spf1 {0}:a.example.net {0}:b.example.net {0}:c.example.net -all"


@pytest.mark.parametrize(
    ("ip", "term", "limits", "result"),
    [
        ("192.0.2.1", "a", {}, "permerror"),
        ("192.0.2.1", "a", {"void_ipv4": False}, "fail"),
        ("192.0.2.1", "a", {"void_ipv6": False}, "permerror"),
        ("2001:db8::1", "a", {"void_ipv4": False}, "permerror"),
        ("2001:db8::1", "a", {"void_ipv6": False}, "fail"),
        ("192.0.2.1", "exists", {"void_ipv4": False}, "permerror"),  # which asks for no host's address
        ("192.0.2.1", "mx", {"void_ipv4": False}, "permerror"),  # no MX is another matter
        ("192.0.2.1", "a", {"voids": 3}, "fail"),
    ],
)
def test_what_counts_as_void(ip: str, term: str, limits: dict[str, Any], result: str) -> None:
    zone = Zone({("example.org", "TXT"): [HOSTS.format(term)]})
    found = check(ip, "ana@example.org", resolver=zone, limits=Limits(**limits))
    assert found.result == result
    data = found.data()
    assert len(data["voids"]["by"]) == data["voids"]["used"] == found.voids
    marks = [asked["void"] for each in data["trace"]["terms"] for asked in each["asked"]]
    assert sum(marks) == found.voids


@pytest.mark.parametrize(("option", "status"), [("", 4), ("-void-lookups=3", 1), ("-void-ipv4=0", 1), ("-void-ipv6=0", 4)])
def test_the_commands_have_the_limits(tmp_path: Any, capsys: pytest.CaptureFixture[str], option: str, status: int) -> None:
    (tmp_path / "zone").write_text(f'example.org. TXT "{HOSTS.format("a")}"\n')
    more = ["-ip=192.0.2.1", f"-zone={tmp_path}/zone", *filter(None, [option])]
    assert main(["-sender=ana@example.org", *more]) == explain(["example.org", *more]) == status
    assert all(f"-{name}=" in help_of(capsys) for name in LIMITING)


def help_of(capsys: pytest.CaptureFixture[str]) -> str:
    main(["-help"])
    return capsys.readouterr().out


@pytest.mark.parametrize("option", ["-void-lookups=x", "-void-lookups=-1", "-timeout=", "-timeout=1e3", "-max-lookup=101"])
def test_a_setting_that_makes_no_sense(capsys: pytest.CaptureFixture[str], option: str) -> None:
    assert main(["-ip=192.0.2.1", "-helo=x", option]) == 255
    assert capsys.readouterr().err.startswith(f"spfquery: {option.partition('=')[0]}")


def test_one_deadline_for_all_policies_and_recipients(monkeypatch: pytest.MonkeyPatch) -> None:
    "Whatever is asked for a request has to be answered by the same time."
    seen: list[float] = []

    async def adrive(decision: Any, tell: Any, until: float) -> Any:
        seen.append(until)
        return drive(decision, lambda question, end: Late("no answer before the deadline"))

    async def over_dns(query: Any, default: str, resolver: Any, until: float) -> Any:
        seen.append(until)
        zone = Zone({("example.org", "TXT"): ["v=spf1 mx -all"], ("example.org", "MX"): [(1, "mx.example.org")]})
        return drive(check_identity(query, default), zone)

    monkeypatch.setattr("ra_plugins.ask.question.adrive", adrive)
    monkeypatch.setattr(command, "check_over_dns", over_dns)
    setup = SpfquerySetup()
    setup.resolver, setup.local, setup.trusted, setup.timeout = Resolver(["192.0.2.53"]), "", True, 7
    request = SpfRequest("203.0.113.7", "ana@example.org", "", ["ben@example.net", "bob@example.com"])
    begin = monotonic()
    answer = answer_request(request, setup)
    assert isinstance(answer, SpfqueryAnswer) and answer.name == "fail"
    assert len(seen) >= 3 and len(set(seen)) == 1 and begin + 7 <= seen[0] <= monotonic() + 7
    with pytest.raises(Fault):
        command.setup_for({"timeout": "soon"})
