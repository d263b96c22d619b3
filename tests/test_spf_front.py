"""SPF as people meet it: what is imported, what is refused by name, what a result says, and why."""

from __future__ import annotations

import asyncio
import inspect
import json
import math
import pydoc
import subprocess
import sys
from itertools import product
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from dns_server import DnsServer
from spf_suites import ROOT

import ra_plugins.spf
from ra_plugins.ask.dns import Lookup, Silent
from ra_plugins.ask.question import Broken, Late, Question, Refused, Unanswered, drive
from ra_plugins.spf import Limits, Resolver, Result, Zone, acheck, check, trace, zone_from_text
from ra_plugins.spf.evaluation import check_identity
from ra_plugins.spf.query import Query
from ra_plugins.spf.record import RESULTS, parse_record
from ra_plugins.support.compiled import compiled_modules

ZONE = zone_from_text("""
$ORIGIN example.org.
@       TXT "v=spf1 mx include:_spf.example.net -all exp=why.%{d}"
@       MX  10 mx
mx      A   192.0.2.25
why     TXT "%{i} isn't one of our servers"
loop    TXT "v=spf1  include:loop.example.org -all"
void    TXT "v=spf1 a:a.void.example.org mx:b.void.example.org a:c.void.example.org -all"
many    TXT "v=spf1 -ip4:192.0.2.0/25 mx -all"
wrong   TXT "v=spf1 mx ip4:192.0.2.0/33 -all"
two     TXT "v=spf1 -all"
two     TXT "v=spf1 +all"
lost    TXT "v=spf1 ?ip4:192.0.2.1 include:nowhere.example.org -all"
gone    TXT "v=spf1 redirect=nowhere.example.org"
moved   TXT "v=spf1 redirect=lost.example.org"
open    TXT "v=spf1 ip4:192.0.2.1"

$ORIGIN example.net.
_spf    TXT "v=spf1 ip4:198.51.100.0/24 ~all"
""")
ZONE.records["many.example.org", "MX"] = [(1, f"mx{number}.example.org") for number in range(11)]


# Imports


def python(program: str) -> str:
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    return done.stdout


def test_the_front_door_loads_nothing() -> None:
    program = "import sys; import ra_plugins.spf; print(*sorted(name for name in sys.modules if name.startswith('ra_plugins')))"
    assert python(program).split() == ["ra_plugins", "ra_plugins.spf"]
    heavy = ("re", "typing", "asyncio", "dns", "ipaddress", "urllib")
    assert (
        python(
            f"import sys; before = set(sys.modules); import ra_plugins.spf; print(*({set(heavy)} & set(sys.modules) - before))"
        )
        == "\n"
    )


def test_the_front_door_has_what_most_programs_need() -> None:
    names = ["check", "acheck", "Result", "Limits", "Resolver", "Zone", "zone_from_text"]
    assert ra_plugins.spf.__all__ == names and set(names) <= set(dir(ra_plugins.spf))
    assert all(getattr(ra_plugins.spf, name) for name in names) and callable(check)
    with pytest.raises(AttributeError, match="has no attribute 'chek'"):
        _ = ra_plugins.spf.chek  # type: ignore[attr-defined]


def test_a_check_over_a_zone_does_without_dnspython() -> None:
    program = """
import sys
from ra_plugins.spf import Zone, check
assert check("192.0.2.1", "ana@example.org", resolver=Zone({("example.org", "TXT"): ["v=spf1 -all"]})).result == "fail"
print(*sorted({"asyncio", "dns", "ra_plugins.spf.show", "ra_plugins.ask.resolver"} & set(sys.modules)))"""
    assert python(program) == "\n"


def test_help_tells_parameters_units_and_results() -> None:
    text = pydoc.plain(pydoc.render_doc(check))
    assert all(f"{result} " in text for result in RESULTS)
    assert all(f"{name} " in text for name in inspect.signature(check).parameters)
    assert "seconds" in text and "ValueError" in text
    assert inspect.signature(check) == inspect.signature(acheck)


# Types

SNIPPET = """
from ra_plugins.spf import Limits, Resolver, Result, Zone, check

found: Result = check("192.0.2.1", "ana@example.org", resolver=Zone({}), limits=Limits(lookups=5))
if found.result == "pass":
    print(found.data()["why"], found.header("mx.example.net"), found.why.kind, found.lookups + found.voids)
"""


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("", ""),
        ('found.result == "psas"', "comparison-overlap"),
        ('found.result = "pas"', "assignment"),
        ("found.explanation + 1", "operator"),
        ('check("192.0.2.1", "", timeout="3")', "arg-type"),
        ('check("192.0.2.1", "", resolver="192.0.2.53")', "arg-type"),
        ("found.resutl", "attr-defined"),
    ],
)
def test_mypy_finds_slips(tmp_path: Path, line: str, complaint: str) -> None:
    (tmp_path / "snippet.py").write_text(f"{SNIPPET}{line}\n")
    command = [sys.executable, "-m", "mypy", "--strict", "--cache-dir", str(ROOT / ".mypy_cache"), "snippet.py"]
    done = subprocess.run(command, cwd=tmp_path, env={"MYPYPATH": str(ROOT)}, capture_output=True, text=True)
    found = [each for each in done.stdout.splitlines() if each.startswith("snippet.py")]
    assert len(found) == bool(complaint) and all(f"[{complaint}]" in each for each in found), done.stdout + done.stderr


@pytest.mark.skipif(bool(compiled_modules()), reason="a compiled class keeps no annotations")
def test_attributes_are_declared() -> None:
    names = {"query", "trace", "result", "error", "explanation"}
    assert names <= {name for each in Result.__mro__ for name in vars(each).get("__annotations__", {})}
    assert {"lookups", "voids", "void_ipv6", "void_ipv4"} <= vars(Limits)["__annotations__"].keys()


# Arguments


def asked(**more: Any) -> Result:
    return check(**{"ip": "192.0.2.99", "sender": "ana@example.org", "resolver": ZONE, **more})


WRONG: list[tuple[str, object]] = [
    *product(["timeout"], (math.nan, -1, -math.inf, "3", b"3", True, ())),
    *product(["resolver"], ("192.0.2.53", ("192.0.2.53",), 0, 53, Resolver, SimpleNamespace(room=1))),
    *product(["limits"], (10, None, (10, 2), Limits)),
    *product(["receiver"], (None, 5, ("mx.example.net",))),
    *product(["default"], ("50%", "%{x}", None, 5)),
    *product(["ip"], ("", "192.0.2", None, "192.0.2.1/24", 5)),
    *product(["sender", "helo"], (None, 5, ("ana@example.org",))),
]


@pytest.mark.parametrize(("name", "value"), WRONG, ids=str)
def test_a_wrong_argument_is_named(name: str, value: object) -> None:
    "By check and acheck, over a zone and over DNS, before anything is asked."
    for resolver in (ZONE, Resolver(["127.0.0.1"], port=9)):
        arguments: dict[str, Any] = {"ip": "192.0.2.99", "sender": "ana@example.org", "resolver": resolver, name: value}
        for way in (check, lambda **given: asyncio.run(acheck(**given))):
            with pytest.raises(ValueError, match=f"^{name} should be ") as raised:
                way(**arguments)
            assert len(str(raised.value)) < 160


@pytest.mark.parametrize("timeout", [None, 0, 1, 2.5, math.inf])
def test_times_that_are_some(timeout: float | None) -> None:
    assert asked(timeout=timeout).result == "fail"


@pytest.mark.parametrize(
    "wrong",
    [
        {"lookups": -1},
        {"lookups": "10"},
        {"lookups": 1.5},
        {"lookups": True},
        {"lookups": 10**9},
        {"voids": -1},
        {"void_ipv6": "no"},
        {"void_ipv4": 0},
    ],
)
def test_limits_refuse_nonsense(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=f"^{next(iter(wrong))} should be "):
        Limits(**wrong)


def test_limits_show_themselves() -> None:
    assert repr(Limits(voids=5)) == "Limits(lookups=10, voids=5, void_ipv6=True, void_ipv4=True)"


@pytest.mark.parametrize("form", ["<{}>", " {}", "{} ", "\t<{}>\r\n", "{}\n", "<{}", "{}>"])
@pytest.mark.parametrize("sender", ["ana@example.org", b"ana@example.org"])
def test_a_sender_as_it_stands_in_a_log(form: str, sender: str | bytes) -> None:
    "is what it means."
    copied: Any = form.format(sender) if isinstance(sender, str) else form.format(sender.decode()).encode()
    assert asked(sender=copied).data() == asked(sender="ana@example.org").data()


@pytest.mark.parametrize("bounce", ["", "<>", " <> ", b"<>"])
def test_a_bounce(bounce: Any) -> None:
    found = asked(sender=bounce, helo=" example.org ")
    assert (found.result, found.query.local, found.query.domain) == ("fail", "postmaster", "example.org")


# Why

WHYS: list[tuple[str, type[trace.Reason], dict[str, Any], str]] = [
    ("example.org", trace.Matched, {"kind": "match", "domain": "example.org", "term": "-all", "place": 35}, ""),
    (
        "open.example.org",
        trace.NothingMatched,
        {"kind": "no match", "domain": "open.example.org", "term": None, "place": None},
        "",
    ),
    (
        "nowhere.example.org",
        trace.NoPolicy,
        {
            **{"kind": "no policy", "domain": "nowhere.example.org", "term": None, "place": None},
            **{"cause": "no such name", "text": "there is no name nowhere.example.org in DNS (NXDOMAIN)"},
        },
        "",
    ),
    (
        "localhost",
        trace.NoDomain,
        {
            **{"kind": "no domain", "domain": "localhost", "term": None, "place": None},
            **{"cause": "one label", "text": "localhost has only one label, so it has no policy"},
        },
        "",
    ),
    (
        "loop.example.org",
        trace.LookupLimitExceeded,
        {
            "kind": "lookup limit",
            "domain": "loop.example.org",
            "term": "include:loop.example.org",
            "place": 8,
            "limit": 10,
        },
        "Too many DNS lookups",
    ),
    (
        "void.example.org",
        trace.VoidLimitExceeded,
        {
            **{"kind": "void lookup limit", "domain": "void.example.org", "term": "a:c.void.example.org", "place": 50},
            **{"limit": 2, "name": "c.void.example.org", "type": "A"},
        },
        "Void lookup limit of 2 exceeded",
    ),
    (
        "many.example.org",
        trace.HostLimitExceeded,
        {"kind": "MX host limit", "domain": "many.example.org", "term": "mx", "place": 25, "limit": 10},
        "More than 10 MX records returned",
    ),
    (
        "wrong.example.org",
        trace.FaultyRecord,
        {
            **{"kind": "faulty record", "domain": "wrong.example.org", "term": "ip4:192.0.2.0/33", "place": 10},
            **{"message": "Invalid IP4 CIDR length", "text": "ip4:192.0.2.0/33", "length": 16},
            **{"part": {"place": 10, "length": 16}},
        },
        "Invalid IP4 CIDR length",
    ),
    (
        "two.example.org",
        trace.SeveralRecords,
        {
            **{"kind": "several records", "domain": "two.example.org", "term": None, "place": None},
            **{"records": ["v=spf1 -all", "v=spf1 +all"]},
        },
        "Two or more type TXT spf records found.",
    ),
    *(
        (
            domain,
            trace.NoRecord,
            {"kind": "no record", "domain": "lost.example.org", "term": "include:nowhere.example.org", "place": 22},
            "include has no SPF record",
        )
        for domain in ("lost.example.org", "moved.example.org")
    ),
    (
        "gone.example.org",
        trace.NoRecord,
        {"kind": "no record", "domain": "gone.example.org", "term": "redirect=nowhere.example.org", "place": None},
        "redirect domain has no SPF record",
    ),
]


@pytest.mark.parametrize(("domain", "kind", "data", "message"), WHYS, ids=[why[0] for why in WHYS])
def test_why(domain: str, kind: type[trace.Reason], data: dict[str, Any], message: str) -> None:
    "What ended a check is a value by type, with its record, term and place; the text is what it was."
    found = check("203.0.113.7", f"ana@{domain}", resolver=ZONE)
    assert type(found.why) is kind and found.why.data() == data and found.data()["why"] == data
    assert found.problem == message and json.loads(json.dumps(found.data())) == found.data()
    assert (found.error is found.why) == isinstance(found.why, trace.EvaluationError) == bool(message)
    if found.why.place is not None:
        texts = {text for texts in ZONE.records.values() for text in texts if str(text).startswith("v=spf1")}
        assert any(text[found.why.place :].startswith(found.why.term) for text in texts)


@pytest.mark.parametrize(
    ("failure", "kind"),
    [
        (Late("l"), "late"),
        (Silent("s"), "late"),
        (Refused("r"), "refused"),
        (Broken("b"), "broken"),
        (Unanswered("u"), "unanswered"),
    ],
)
def test_which_lookup_failed_how(failure: Unanswered, kind: str) -> None:
    def tell(question: Question[Any], until: float) -> Any:
        return failure if getattr(question, "rdtype", "") == "MX" else ZONE(question)

    found = drive(check_identity(Query("192.0.2.99", "ana@example.org")), tell)
    why = found.why
    assert isinstance(why, trace.LookupFailed) and type(why.failure) is type(failure)
    assert (found.result, why.lookup, why.term, why.place) == ("temperror", Lookup("example.org", "MX"), "mx", 7)
    assert why.data()["failure"] == kind == found.data()["trace"]["terms"][0]["asked"][0]["failure"]
    assert found.problem == f"DNS MX example.org: {failure}"


@pytest.mark.parametrize(
    ("failure", "late"),
    [
        (Late("no answer before the deadline"), True),
        (Silent("slow"), False),
        (Broken("no answer before the deadline"), False),
    ],
)
def test_only_the_deadline_cuts_a_check_short(failure: Unanswered, late: bool) -> None:
    "By its type, whatever the text says; not a nameserver's silence, and not in an explanation."
    records = {("example.org", "TXT"): ["v=spf1 ptr -all exp=why.example.org"]}

    def tell(question: Any, until: float) -> Any:
        return failure if question.rdtype == "PTR" else Zone(records)(question)

    def tell_late(question: Any, until: float) -> Any:
        return Late("") if question.name.startswith("why") else Zone(records)(question)

    found = drive(check_identity(Query("192.0.2.99", "ana@example.org")), tell)
    assert found.result == ("temperror" if late else "fail") and found.trace.result == "fail"
    assert isinstance(found.why, trace.DeadlinePassed) == late and found.problem == (f"DNS: {failure}" if late else "")
    assert drive(check_identity(Query("192.0.2.99", "ana@example.org")), tell_late).result == "fail"


def test_places_of_directives() -> None:
    record = parse_record("v=spf1  mx moo=mx exp=a.example mx   redirect=b.example ip4:192.0.2.1 mx")
    assert record.directives == ["mx", "mx", "ip4:192.0.2.1", "mx"] and record.places() == [8, 32, 56, 70]


# RFC 7208


@pytest.mark.parametrize(
    ("term", "result"),
    [
        ("include:%{d1}", "permerror"),  # 4.3: one label is no domain with a policy
        ("redirect=%{d1}", "permerror"),
        ("include:%{o1r}.%{o1}", "pass"),
        ("exists:%{d1}", "pass"),  # a name like any other: 4.8
    ],
)
def test_a_name_of_one_label(term: str, result: str) -> None:
    texts = {
        name: [text]
        for name, text in (("example.org", f"v=spf1 {term}"), ("org", "v=spf1 +all"), ("example", "v=spf1 +all"))
    }
    zone = Zone({**{(name, "TXT"): text for name, text in texts.items()}, ("org", "A"): ["192.0.2.1"]})
    found = check("192.0.2.1", "ana@example.org", resolver=zone)
    if term == "include:%{o1r}.%{o1}":  # `example.org`, which is no domain of one label: it includes itself
        assert isinstance(found.why, trace.LookupLimitExceeded)
        return
    assert found.result == result
    assert result == "pass" or isinstance(found.why, trace.NoRecord)


@pytest.mark.parametrize("term", ["a:{}", "exists:{}", "mx:{}", "include:{}", "redirect={}", "ptr:{}"])
@pytest.mark.parametrize("macro", [False, True])
def test_a_long_name_loses_labels_from_its_left(term: str, macro: bool) -> None:
    "7.3: with macros in it or without."
    name = ".".join(["x" * 49] * 6) + ".example.org"  # of 311 characters
    kept = ".".join(["x" * 49] * 4) + ".example.org"  # of 211: a fifth label would make it 261
    text = name.replace("example.org", "%{d}") if macro else name
    records: dict[tuple[str, str], list[Any]] = {
        ("example.org", "TXT"): [f"v=spf1 {term.format(text)}{'' if '=' in term else ' -all'}"],
        (kept, "TXT"): ["v=spf1 ip4:192.0.2.1 -all"],
        (kept, "A"): ["192.0.2.1"],
        (kept, "MX"): [(10, kept)],
        ("1.2.0.192.in-addr.arpa", "PTR"): [kept],
    }
    assert check("192.0.2.1", "ana@example.org", resolver=Zone(records)).result == "pass"


def test_what_is_left_of_a_long_name_may_be_one_label() -> None:
    records = {("example.org", "TXT"): ["v=spf1 include:" + "x" * 260 + ".org -all"], ("org", "TXT"): ["v=spf1 +all"]}
    found = check("192.0.2.1", "ana@example.org", resolver=Zone(records))
    assert found.result == "permerror" and isinstance(found.why, trace.NoRecord)


# Over DNS


def over_dns(way: str, server: DnsServer, **more: Any) -> Result:
    arguments: dict[str, Any] = {"resolver": Resolver(["127.0.0.1"], server.port), **more}
    if way == "check":
        return check("203.0.113.7", "ana@example.org", **arguments)
    return asyncio.run(acheck("203.0.113.7", "ana@example.org", **arguments))


@pytest.mark.parametrize("way", ["check", "acheck"])
@pytest.mark.parametrize("fault", ["drop", "truncate"])
def test_a_check_that_is_late_says_so(way: str, fault: str) -> None:
    "One deadline for UDP and TCP: a nameserver that hangs over either makes it a temperror, and the value says Late."
    with DnsServer(ZONE, fault=fault, delay=600 if fault == "truncate" else 0) as server:
        found = over_dns(way, server, timeout=0.2)
    assert found.result == "temperror" and isinstance(found.why, trace.LookupFailed)
    assert isinstance(found.why.failure, Late) and not isinstance(found.why.failure, Silent)
    assert found.data()["why"]["failure"] == "late"


@pytest.mark.parametrize("way", ["check", "acheck"])
def test_no_time_at_all(way: str) -> None:
    with DnsServer(ZONE) as server:
        found = over_dns(way, server, timeout=0)
    assert found.result == "temperror" and found.data()["why"]["failure"] == "late"
