"What the lint of SPF records finds: by hand, and as other projects' users have met it."

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ra_plugins.ask.dns import Lookup, Records, Zone
from ra_plugins.ask.question import Refused, Unanswered, drive
from ra_plugins.ask.zonefile import zone_from_text
from ra_plugins.cli.command import main as ra_plugins
from ra_plugins.spf.owner.lint import LINT_RULES, LintFinding, finding_lines, lint, meant_networks
from ra_plugins.spf.owner.lint_domain import LintReport, lint_questions, main, run_lint


def codes(text: str, domain: str = "example.org") -> list[str]:
    return [finding.code for finding in lint(text, domain)]


def marked(finding: LintFinding) -> str:
    return finding.text[finding.place :][: finding.length]


CASES = [  # the record, the code that is expected, what is marked, and words of the advice
    ("v=spf1 +all", "pass-all", "+all", ""),
    ("v=spf1 all", "pass-all", "all", ""),
    ("v=spf1 ?all", "neutral-all", "?all", ""),
    ("v=spf1 mx ~all", "softfail-all", "~all", ""),
    ("v=spf1 mx", "no-all", "", ""),
    ("v=spf1", "empty", "", "v=spf1 -all"),
    ("v=spf1 ip4:0.0.0.0/0 -all", "pass-all", "ip4:0.0.0.0/0", ""),
    ("v=spf1 ip6:::/0 -all", "pass-all", "ip6:::/0", ""),
    ("v=spf1 ip4:128.0.0.0/1 mx ip4:0.0.0.0/1 -all", "pass-all", "ip4:0.0.0.0/1", ""),
    ("v=spf1 ip4:0.0.0.0/2 ip4:64.0.0.0/2 ip4:128.0.0.0/1 -all", "pass-all", "ip4:128.0.0.0/1", ""),
    ("v=spf1 a/0 -all", "pass-all", "a/0", ""),
    ("v=spf1 mx//0 -all", "pass-all", "mx//0", ""),
    ("v=spf1 ip4:10.0.0.0/8 -all", "wide-network", "ip4:10.0.0.0/8", ""),
    ("v=spf1 a/8 -all", "wide-network", "a/8", ""),
    ("v=spf1 ptr -all", "ptr", "ptr", ""),
    ("v=spf1 ptr:example.net -all", "ptr", "ptr:example.net", ""),
    ("v=spf1 exists:%{p}.example.net -all", "p-macro", "exists:%{p}.example.net", ""),
    ("v=spf1 exists:%{h}.example.net -all", "helo-macro", "exists:%{h}.example.net", ""),
    ("v=spf1 mx -all a ip4:192.0.2.1", "behind-all", "a ip4:192.0.2.1", "at the end"),
    ("v=spf1 mx -all redirect=example.net", "redirect-ignored", "redirect=example.net", ""),
    ("v=spf1 mx a mx -all", "duplicate", "mx", ""),
    ("v=spf1 ip4:192.0.2.0/24 ip4:192.0.2.128/25 -all", "covered-network", "ip4:192.0.2.128/25", ""),
    ("v=spf1 ip4:192.0.2.128/25 ip4:192.0.2.0/24 -all", "covered-network", "ip4:192.0.2.128/25", ""),
    ("v=spf1 ip6:2001:db8::/32 ip6:2001:db8:5::1 -all", "covered-network", "ip6:2001:db8:5::1", ""),
    ("v=spf1 ip4:192.0.2.9/24 -all", "host-bits", "ip4:192.0.2.9/24", "ip4:192.0.2.0/24"),
    ("v=spf1 ip:192.0.2.1 -all", "ip-mechanism", "ip:192.0.2.1", "ip4:192.0.2.1"),
    ("v=spf1 ip:2001:db8::1 -all", "ip-mechanism", "ip:2001:db8::1", "ip6:2001:db8::1"),
    ("v=spf1 -ipv4:192.0.2.0/24 ~all", "ip-mechanism", "-ipv4:192.0.2.0/24", "-ip4:192.0.2.0/24"),
    ("v=spf1 192.0.2.0/24 -all", "bare-address", "192.0.2.0/24", "ip4:192.0.2.0/24"),
    ("v=spf1 2001:db8::/32 -all", "bare-address", "2001:db8::/32", "ip6:2001:db8::/32"),
    ("v=spf1 ip4=192.0.2.1 -all", "mechanism-as-modifier", "ip4=192.0.2.1", "ip4:192.0.2.1"),
    ("v=spf1 include:_spf -all", "single-label", "include:_spf", "include:_spf.example.org"),
    ("v=spf1 mx:10 -all", "single-label", "mx:10", ""),
    ("v=spf1 mail.example.com -all", "bare-name", "mail.example.com", "a:mail.example.com"),
    ("v=spf1 a:example.com:25 -all", "port", "a:example.com:25", "write a:example.com"),
    ("v=spf1 mx - all", "sign-alone", "-", "-all is one word"),
    ("v=spf1 mx -al", "mechanism-typo", "-al", "perhaps -all"),
    ("v=spf1 mx --all", "mechanism-typo", "--all", "perhaps -all"),
    ("v=spf1 include:*.example.com -all", "wildcard", "include:*.example.com", ""),
    ("v=spf1 include:a.example;include:b.example -all", "separator", "include:a.example;include:b.example", "blank"),
    (
        "v=spf1 ip4:192.0.2.1ip4:192.0.2.2 -all",
        "separator",
        "ip4:192.0.2.1ip4:192.0.2.2",
        "ip4:192.0.2.1 ip4:192.0.2.2",
    ),
    ("v=spf1 ip4:192.168.1.0/24 -all", "private-network", "ip4:192.168.1.0/24", ""),
    ("v=spf1 ip6:fd00::/8 -all", "private-network", "ip6:fd00::/8", ""),
    ("v=spf1 ip4:224.0.0.1 -all", "private-network", "ip4:224.0.0.1", ""),
    ("v=spf1 ip6:ff02::1 -all", "private-network", "ip6:ff02::1", ""),
    ("v=spf1 ip6:::ffff:192.0.2.1 -all", "mapped-address", "ip6:::ffff:192.0.2.1", "write ip4:192.0.2.1"),
    ("v=spf1 -ip6:::ffff:c000:200/120 -all", "mapped-address", "-ip6:::ffff:c000:200/120", "write -ip4:192.0.2.0/24"),
    ("v=spf1 ip4:192.0.2.8-192.0.2.15 -all", "network", "ip4:192.0.2.8-192.0.2.15", "perhaps ip4:192.0.2.8/29"),
    ("v=spf1 ip4:192.0.2.8-9 -all", "network", "ip4:192.0.2.8-9", "perhaps ip4:192.0.2.8/31"),
    ("v=spf1 -ip4:192.0.2.* -all", "network", "-ip4:192.0.2.*", "perhaps -ip4:192.0.2.0/24"),
    ("v=spf1 ip4:192.0.2 -all", "network", "ip4:192.0.2", "perhaps ip4:192.0.2.0/24"),
    ("v=spf1 ip4:192.0.2.0/255.255.255.0 -all", "network", "ip4:192.0.2.0/255.255.255.0", "perhaps ip4:192.0.2.0/24"),
    ("v=spf1 ip4:192.0.2.1,192.0.2.2 -all", "network", "ip4:192.0.2.1,192.0.2.2", "ip4:192.0.2.1 ip4:192.0.2.2"),
    ("v=spf1 ip4:192.0.2.01 -all", "network", "ip4:192.0.2.01", "perhaps ip4:192.0.2.1"),
    ("v=spf1 ip4:192.0.2.1:25 -all", "network", "ip4:192.0.2.1:25", "perhaps ip4:192.0.2.1"),
    ("v=spf1 ip6:[2001:db8::1] -all", "network", "ip6:[2001:db8::1]", "perhaps ip6:2001:db8::1"),
    ("v=spf1 ip4:192.0.2.999 -all", "network", "ip4:192.0.2.999", "write all four numbers"),
    ("v=spf1 ip4 192.0.2.1 -all", "network", "ip4", "without a blank"),
    ("v=spf1 exists:%i.example.com -all", "syntax", "%i.example.c", "%{i}"),
    ("v=spf1 redirect=", "syntax", "redirect=", ""),
    ("v=spf1 include:m\u00fcnchen.example -all", "look-alike", "\u00fc", "xn--mnchen-3ya.example"),
    ("v=spf1 include=example.net -all", "mechanism-as-modifier", "include=example.net", "include:example.net"),
    ("v=spf1 redirect:example.net", "modifier-as-mechanism", "redirect:example.net", "redirect=example.net"),
    ("v=spf1 redrect=example.net", "modifier-typo", "redrect=example.net", "redirect=example.net"),
    ("v=spf1 mx expl=why.example.net -all", "modifier-typo", "expl=why.example.net", "exp=why.example.net"),
    ("v=spf1 mx moo=cow -all", "unknown-modifier", "moo=cow", ""),
    ("v=spf1 mx exp=a.example exp=b.example -all", "modifier-twice", "exp=b.example", ""),
    ("v=spf1 inclde:example.net -all", "mechanism-typo", "inclde:example.net", "include:example.net"),
    ("v=spf1 mx \u2013all", "look-alike", "\u2013", ""),
    ("v=spf1 mx\u00a0-all", "look-alike", "\u00a0", ""),
    ("v=spf1 include:ex\u0430mple.net -all", "look-alike", "\u0430", ""),
    ('v=spf1 "mx -all', "quote", '"', ""),
    ("v=spf1 mx, a -all", "separator", "mx,", "blank"),
    ("v=spf1 mx;a;-all", "separator", "mx;a;-all", "blank"),
    ("v=spf1 include: example.net -all", "space-after-colon", "include:", ""),
    ("v=spf1 a:192.0.2.1 -all", "address-in-name", "a:192.0.2.1", "ip4:192.0.2.1"),
    ("v=spf1 ip4:mail.example.org -all", "name-in-network", "ip4:mail.example.org", "a:mail.example.org"),
    ("v=spf1 include:https://example.net -all", "url", "include:https://example.net", ""),
    ("v=spf1 include:ana@example.net -all", "mail-address", "include:ana@example.net", ""),
    ("v=spf1 mx v=spf1 -all", "record-in-record", "v=spf1", ""),
    ("v=spf1 include:Example.ORG. -all", "includes-itself", "include:Example.ORG.", ""),
    ("v=spf1 exists:%{x}.example.net -all", "syntax", "%{x}.example", ""),
    ("v=spf1; mx -all", "version", "v=spf1;", ""),
    ("v=spf1,mx -all", "version", "v=spf1,", ""),
    ("V = SPF1 mx -all", "version", "V = SPF1", ""),
    ("\ufeffv=spf1 mx -all", "version", "\ufeffv=spf1", ""),
    ("v=spf10 mx -all", "version", "v=spf10", ""),
    ("spf2.0/mfrom,pra mx -all", "sender-id", "spf2.0", ""),
    (
        "v=spf1 " + "".join(f"a:h{n}.example.net " for n in range(11)) + "-all",
        "too-many-lookups",
        "a:h10.example.net",
        "",
    ),
    ("v=spf1 " + "".join(f"a:h{n}.example.net " for n in range(9)) + "-all", "near-lookup-limit", "", ""),
    ("v=spf1 " + "".join(f"ip4:198.51.{n}.0/24 " for n in range(14)) + "-all", "long", "", "255"),
    ("v=spf1 " + "".join(f"ip4:198.51.{n}.0/24 " for n in range(25)) + "-all", "too-long", "", ""),
]


@pytest.mark.parametrize(
    ("record", "code", "part", "advice"), CASES, ids=[f"{case[1]}-{case[0][:40]}" for case in CASES]
)
def test_a_finding_names_the_place_and_what_would_do(record: str, code: str, part: str, advice: str) -> None:
    found = [finding for finding in lint(record, "example.org") if finding.code == code]
    assert found, codes(record)
    assert part in map(marked, found) and any(advice in finding.advice for finding in found)
    for finding in found:
        assert finding.severity in ("error", "warning", "info") and finding.section and finding.what
        assert all(line.isprintable() for line in finding_lines(finding))


@pytest.mark.parametrize(
    "record",
    [
        "v=spf1 -all",
        "V=SPF1 IP4:192.0.2.1 -ALL",
        "v=spf1 mx a:mail.example.org include:_spf.example.net ip6:2001:db8::/32 -all",
        "v=spf1 redirect=_spf.example.net",
        "v=spf1  mx   -all ",
        "v=spf1 -ip4:192.0.2.7 ip4:192.0.2.0/24 -all",
        "v=spf1 exists:%{ir}.%{v}._spf.%{d2} -all exp=why.example.org",
        "v=spf1 a:mail.%{d}/28//64 -all",
    ],
)
def test_there_is_nothing_to_say_about_a_good_record(record: str) -> None:
    assert codes(record) == []


def test_all_of_ipv4_is_one_mistake_and_not_two() -> None:
    assert codes("v=spf1 ip4:192.0.2.1/0 -all") == ["pass-all"]


@pytest.mark.parametrize(
    ("record", "begins"),
    [("v=spf1", "  v=spf1 -all says"), ("v=spf1 ?all", "  End with"), ("v=spf1 ip4:a.example.org -all", "  Write a:")],
)
def test_advice_begins_as_a_sentence_unless_it_begins_with_a_term(record: str, begins: str) -> None:
    (finding,) = lint(record)
    assert list(finding_lines(finding))[-1].startswith(begins)


# Records that users of other projects have met, or that those name for what they find: where from, the record, our code.
ORIGINS = [
    ("rspamd issue 626", "v=spf1 ipv4:120.197.68.19/24 ipv4:113.106.14.0/24 -all", "ip-mechanism"),
    ("phplist3 issue 1055", "v=spf1 ip4: 198.58.98.141 -all", "space-after-colon"),
    ("coppertone pull request 57", "v=spf1 include.spf.protection.outlook.com", "mechanism-typo"),
    ("checkdmarc issue 209", "v=spf1 ip4:45.154.45.81~all", "separator"),
    ("checkdmarc pull request 87", "v=spf1 ip6:192.0.2.1 -all", "wrong-family"),
    ("checkdmarc pull request 87, the other way round", "v=spf1 ip4:2001:db8::1 -all", "wrong-family"),
    ("checkdmarc pull request 53", "v=spf1 ip6:1200:0000:AB00:1234:0000:2552:7777:1313/130 ~all", "network"),
    ("checkdmarc, testJunkAfterAll", "v=spf1 ip4:213.5.39.110 -all MS=83859DAEBD1978F9A7A67D3", "unknown-modifier"),
    ("decon-spf, RedirectWithAllMechanism", "v=spf1 redirect=_spf.example.com -all", "redirect-ignored"),
    ("decon-spf, ModifierMayOccurOnlyOnce", "v=spf1 redirect=a.example.com redirect=b.example.com", "modifier-twice"),
    ("decon-spf, InvalidVersion", "v=spf2 -all", "not-spf"),
    ("decon-spf, NotIP4Network", "v=spf1 ip4:2001:db8::/32 -all", "wrong-family"),
    ("dmarcchecker.app, missing spaces", "v=spf1include:spf.mandrillapp.com?all", "version"),
    ("OfficeDocs-Exchange issue 347", "v=spf1 ipv4:198.51.100.4 -all", "ip-mechanism"),
]


@pytest.mark.parametrize(("origin", "record", "code"), ORIGINS, ids=[origin for origin, _, _ in ORIGINS])
def test_as_others_have_met_it(origin: str, record: str, code: str) -> None:
    assert code in codes(record)


def test_checkdmarc_takes_capitals_as_we_do() -> None:
    "Its testUppercaseSPFMechanism: no warning."
    assert codes("v=spf1 IP4:147.75.8.208 -ALL") == []


HOSTILE = [
    "a ",
    "ip4:192.0.2.1 ",
    "x=y ",
    "\u00a0",
    "é ",
    "%{x} ",
    ";",
    "a:",
    "~all",
    "include:",
    '"',
    "ip6:2001:db8::1 ",
    "-",
]


@pytest.mark.parametrize("piece", HOSTILE)
@pytest.mark.parametrize("begin", ["v=spf1 ", "v=spf1", "", "\u00a0" * 30_000 + "v=spf1 "])
def test_a_hostile_text_has_a_bounded_report(piece: str, begin: str) -> None:
    found = lint(begin + piece * (60_000 // len(piece)), "example.org")
    report = str(LintReport("example.org", "", found))
    assert len(found) <= 11 * len(LINT_RULES) and len(report) < 100_000 and report.replace("\n", "").isprintable()
    assert len(json.dumps([finding.data() for finding in found])) < 10_000_000


# A domain

ZONE = zone_from_text("""
$ORIGIN example.org.
@       TXT ( "v=spf1 mx a:gone.example.org include:lost.example.net include:two.example.net "
              "include:bad.example.net include:good.example.net -all exp=why.example.org" )
@       MX  10 mx
mx      A   192.0.2.25
_spf    TXT "v=spf1 ip4:192.0.2.0/28 -all"
circle  TXT "v=spf1 include:round.example.org -all"
round   TXT "v=spf1 include:circle.example.org -all"
lost    A   192.0.2.1
www.lost TXT "v=spf1 mx -all"
twice   TXT "v=spf1 mx -all"
twice   TXT "v=spf1 a -all"
near    TXT "v=spf1; mx -all"
deep    TXT "v=spf1 include:d1.example.org -all"
d1      TXT "v=spf1 a:mx.example.org a:mx.example.org a:mx.example.org a:mx.example.org include:d2.example.org -all"
d2      TXT "v=spf1 a:mx.example.org a:mx.example.org a:mx.example.org a:mx.example.org a:mx.example.org -all"
fine    TXT "v=spf1 ip4:192.0.2.1 -all"
moved   TXT "v=spf1 redirect=lost.example.net"

$ORIGIN example.net.
two     TXT "v=spf1 -all"
two     TXT "v=spf1 mx -all"
bad     TXT "v=spf1 ip4:192.0.2 -all"
good    TXT "v=spf1 ip4:198.51.100.0/24 ptr ~all"
""")


def of(domain: str) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for finding in run_lint(domain, resolver=ZONE).findings:
        found.setdefault(finding.code, []).append(marked(finding))
    return found


def test_what_a_record_leads_to() -> None:
    assert of("example.org") == {
        "void-lookup": ["a:gone.example.org"],
        "broken-include": ["include:lost.example.net"],
        "faulty-include": ["include:two.example.net", "include:bad.example.net"],
        "no-explanation": ["exp=why.example.org"],
        "unused-record": [""],
    }


@pytest.mark.parametrize(
    ("domain", "code"),
    [
        ("circle.example.org", "loop"),
        ("lost.example.org", "no-record"),
        ("lost.example.org", "wrong-name"),
        ("twice.example.org", "several-records"),
        ("near.example.org", "version"),
        ("deep.example.org", "too-many-lookups"),
        ("nowhere.example.org", "no-record"),
        ("moved.example.org", "broken-redirect"),
    ],
)
def test_a_domain(domain: str, code: str) -> None:
    assert code in of(domain)


def test_a_good_domain() -> None:
    assert of("fine.example.org") == {}


def test_what_dns_has_not_told_is_said() -> None:
    def refuses(question: Any, until: float) -> Any:
        return Refused("REFUSED") if getattr(question, "name", "") == "good.example.net" else ZONE(question)

    report = drive(lint_questions("example.org"), refuses)
    assert report.partial and "not-known" in {finding.code for finding in report.findings}


def test_a_record_in_place_of_a_domain_asks_for_what_it_leads_to() -> None:
    report = run_lint("v=spf1 include:two.example.net ip:192.0.2.1 -all", resolver=ZONE)
    assert {finding.code for finding in report.findings} >= {"ip-mechanism"}
    report = run_lint("v=spf1 include:two.example.net -all", resolver=ZONE)
    assert [finding.code for finding in report.findings] == ["faulty-include"]


def test_the_same_record_twice_is_two() -> None:
    zone = Zone({("example.org", "TXT"): ["v=spf1 -all", "v=spf1 -all"]})
    (finding,) = run_lint("example.org", resolver=zone).findings
    assert finding.code == "several-records" and "the same one twice" in finding.what


WIDE = zone_from_text("""
$ORIGIN example.org.
inc      TXT "v=spf1 include:plus.example.net -all"
far      TXT "v=spf1 -ip4:192.0.2.1 include:inc.example.org -all"
red      TXT "v=spf1 redirect=plus.example.net"
fixed    TXT "v=spf1 exists:w.example.org -all"
w        A   192.0.2.80
halves   TXT "v=spf1 include:halves.example.net -all"
both     TXT "v=spf1 ip4:0.0.0.0/1 include:half.example.net -all"
seen     TXT "v=spf1 include:plus.example.net +all"
neutral  TXT "v=spf1 ?include:plus.example.net -all"
behind   TXT "v=spf1 -exists:w.example.org include:plus.example.net -all"
round    TXT "v=spf1 include:round.example.org -all"

$ORIGIN example.net.
plus     TXT "v=spf1 +all"
halves   TXT "v=spf1 ip4:0.0.0.0/1 ip4:128.0.0.0/1 -all"
half     TXT "v=spf1 ip4:128.0.0.0/1 -all"
""")


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("inc", "include:plus.example.net lets everybody pass"),
        ("far", "include:inc.example.org lets everybody pass"),
        ("red", "redirect=plus.example.net lets everybody pass"),
        ("fixed", "exists:w.example.org lets everybody pass"),
        ("halves", "include:halves.example.net lets all of IPv4 pass"),
        ("both", "with all that it leads to, it lets all of IPv4 pass"),
        ("seen", "+all lets everybody pass"),
        ("neutral", None),
        ("behind", None),
        ("round", None),
    ],
)
def test_who_lets_everybody_pass_by_what_it_leads_to(name: str, what: str | None) -> None:
    found = run_lint(f"{name}.example.org", resolver=WIDE).findings
    told = [(finding.what, finding.severity) for finding in found if finding.code == "pass-all"]
    assert told == ([(what, "error")] if what else [])


def test_a_published_record_is_split_already() -> None:
    text = "v=spf1 " + "".join(f"ip4:198.51.{n}.0/24 " for n in range(14)) + "-all"  # 269 bytes
    zone = Zone({
        ("example.org", "TXT"): [text],
        ("b.org", "TXT"): ["v=spf1 include:_s.b.org -all"], ("_s.b.org", "TXT"): [text],
    })  # fmt: skip
    assert run_lint("example.org", resolver=zone).findings == []
    assert "long" not in [finding.code for finding in run_lint("b.org", resolver=zone).findings]
    assert [finding.code for finding in run_lint(text, "c.org", resolver=zone).findings] == ["long"]


def test_what_a_wildcard_answers_nobody_has_put_there() -> None:
    zone = zone_from_text("""
$ORIGIN example.org.
*.wild      TXT "v=spf1 -all"
_spf.wild   TXT "v=spf1 ip4:192.0.2.1 -all"
""")
    assert run_lint("x.wild.example.org", resolver=zone).findings == []
    (finding,) = (each for each in run_lint("wild.example.org", resolver=zone).findings if each.code == "wrong-name")
    assert "_spf.wild.example.org" in finding.what


# The command


@pytest.fixture
def zone(tmp_path: Path) -> str:
    (tmp_path / "zone").write_text(
        '$ORIGIN example.org.\n@ TXT "v=spf1 mx ~all"\n@ MX 10 mx\nmx A 192.0.2.25\nbad TXT "v=spf1 ip:192.0.2.1 -all"\n'
    )
    return str(tmp_path / "zone")


@pytest.mark.parametrize(
    ("arguments", "status"),
    [
        (["example.org"], 0),
        (["example.org", "--strict"], 0),
        (["bad.example.org"], 0),
        (["bad.example.org", "--strict"], 1),
        (["--strict"], 1),
        (["v=spf1 mx -all", "--strict"], 0),
        (["v=spf1 mx, -all", "--strict"], 1),
        (["v=spf1", "mx", "-all"], 3),
        (["a..b"], 3),
    ],
)
def test_the_command(zone: str, arguments: list[str], status: int, capsys: pytest.CaptureFixture[str]) -> None:
    try:
        found = ra_plugins(["spf", "lint", *arguments, "--zone", zone])
    except SystemExit as end:
        found = int(end.code or 0)
    said = capsys.readouterr()
    assert found == status, said
    assert said.err == "" if status < 3 else said.err.startswith("ra-plugins spf lint: ") and said.err.count("\n") == 1


def test_the_whole_zone_as_json(zone: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--zone", zone, "--json"]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["domain"] for line in lines] == ["bad.example.org", "example.org"]
    assert lines[0]["findings"][0]["code"] == "ip-mechanism" and lines[0]["findings"][0]["part"] == "ip:192.0.2.1"


def test_without_anything_to_look_at(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 3 and main(["--zone", "/nowhere/zone"]) == 3
    assert capsys.readouterr().err.count("\n") == 2


def test_an_empty_zone() -> None:
    assert [finding.code for finding in run_lint("example.org", resolver=Zone({})).findings] == ["no-record"]


@pytest.mark.parametrize("value", ["1-2", "-", "192.0.2.1-2001:db8::1", "9" * 500, "1.2.3.4/" + "9" * 400,
                                   "0.0.0.1-255.255.255.254",
                                   ",".join(["192.0.2.1"] * 60), "[", "1..2", "\u00b2.1"])  # fmt: skip
def test_what_cant_be_worked_out_about_a_network_isnt_guessed(value: str) -> None:
    assert meant_networks(value) == []


def test_nobody_is_asked_about_a_domain_that_nobody_has_named() -> None:
    "domain.example stands in for it, and what DNS says of that one is no concern of yours."
    asked = []

    class Asked(Zone):
        def answer(self, lookup: Lookup) -> Records | Unanswered:
            asked.append(lookup.name)
            return super().answer(lookup)

    draft = "v=spf1 mx a:%{d} include:_spf.%{d} a:host.example.org -all"
    (finding, missing) = sorted(run_lint(draft, resolver=Asked({})).findings)
    assert (finding.code, finding.severity) == ("no-domain", "info") and "--domain NAME" in finding.advice
    assert finding.what == "mx and 2 more weren't looked up: nobody has said whose record this is"
    assert missing.what == "a:host.example.org: host.example.org has no address" and set(asked) == {"host.example.org"}
    codes = [finding.code for finding in run_lint("v=spf1 mx -all", "example.org", resolver=Zone({})).findings]
    assert codes == ["void-lookup"]


def test_what_is_behind_a_bound_wont_be_there_later() -> None:
    many = " ".join(f"include:n{number}.example" for number in range(3000))
    found = run_lint("example.org", resolver=Zone({("example.org", "TXT"): [f"v=spf1 {many} -all"]}))
    (finding,) = (each for each in found.findings if each.code == "not-known")
    assert "101 that ask were read" in finding.what and "make it smaller" in finding.advice


def test_the_others_arent_asked_about_before_all_are_domains(
    zone: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["example.org", "no domain", "--zone", zone]) == 3
    assert capsys.readouterr().out == ""


def test_a_record_without_quotes(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["v=spf1", "mx", "-all"]) == 3
    assert "a record stands in quotes" in capsys.readouterr().err


def out(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    status = main([*arguments])
    said = capsys.readouterr()
    return status, said.out, said.err


@pytest.mark.parametrize("name", ["_spf1.example.org", "spf1.example.org", "SPF2.example.org", "_spf10.example.org."])
def test_a_name_that_begins_as_a_record_might_is_a_name(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "z").write_text(f'{name.removesuffix(".")}. TXT "v=spf1 ptr -all"\n')
    for arguments in [name], []:
        status, told, _ = out(capsys, *arguments, "--zone", str(tmp_path / "z"))
        assert status == 0 and "ptr is slow" in told and "isn't an SPF record" not in told


def test_names_of_a_zone_are_never_taken_for_something_else(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "z").write_text(
        'v=spf1.example.org. TXT "v=spf1 -all"\n'
        'a@b.example.org. TXT "v=spf1 -all"\nb.example.org. A 192.0.2.1\nmail MX 10 mx.example.org.\n'
    )
    status, told, _ = out(capsys, "--zone", str(tmp_path / "z"), "--json")
    reports = [json.loads(line) for line in told.splitlines()]
    codes = {report["domain"]: [finding["code"] for finding in report["findings"]] for report in reports}
    assert status == 0
    assert codes == {"v=spf1.example.org": [], "a\\@b.example.org": ["no-name"], "mail": ["no-name"]}


def test_a_zone_with_nothing_to_look_at(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "empty").write_text("www.example.org. A 192.0.2.1\n")
    status, _, told = out(capsys, "--zone", str(tmp_path / "empty"))
    assert status == 3 and "empty: there is no SPF record in this file" in told and "is needed" not in told


def test_a_file_in_place_of_a_domain(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from ra_plugins.spf.owner import lint_domain

    answered = Zone({("example.org", "TXT"): ["v=spf1 -all"]})
    monkeypatch.setattr(lint_domain, "run_lint", lambda about, *_, **__: run_lint(about, resolver=answered))
    monkeypatch.chdir(tmp_path)
    for name in ("z.zone", "example.org"):
        Path(name).write_text("")
    assert "did you mean --zone z.zone?" in out(capsys, "z.zone")[2]
    assert out(capsys, "example.org")[2] == ""  # the domain has a record: it was meant
