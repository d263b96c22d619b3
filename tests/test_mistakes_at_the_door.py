"""What a program gets wrong is named when it happens: senders with brackets, resolvers, zones, times. Reasons can be copied."""

from __future__ import annotations

import asyncio
import copy
import importlib
import inspect
import math
import pickle
import pkgutil
import pydoc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import ra_plugins
from ra_plugins.ask.cache import AnswerCache
from ra_plugins.ask.dns import Lookup, Records, Silent
from ra_plugins.ask.exchange import LocalFault
from ra_plugins.ask.nameserver import parse_nameserver
from ra_plugins.ask.question import Broken, Late, Question, Refused, Unanswered, drive
from ra_plugins.ask.resolver import nameserver_list
from ra_plugins.rater.syntax import ConfigError, ConfigProblem
from ra_plugins.spf import Limits, Resolver, Result, Zone, acheck, check, zone_from_text
from ra_plugins.spf.evaluation import check_identity
from ra_plugins.spf.query import Query
from ra_plugins.spf.record import RecordError, parse_record
from ra_plugins.support.sqlite import DatabaseFault

ZONE = Zone(
    {
        ("example.org", "TXT"): ["v=spf1 ip4:192.0.2.1 -all"],
        ("faulty.example.org", "TXT"): ["v=spf1 mx ip4:192.0.2.0/33 -all"],
        ("outer.example.org", "TXT"): ["v=spf1 include:faulty.example.org -all"],
        ("moved.example.org", "TXT"): ["v=spf1 redirect=faulty.example.org"],
        ("open.example.org", "TXT"): ["v=spf1 ip4:192.0.2.1"],
        ("loop.example.org", "TXT"): ["v=spf1 include:loop.example.org -all"],
        ("void.example.org", "TXT"): ["v=spf1 a:a.void.example.org a:b.void.example.org a:c.void.example.org"],
        ("many.example.org", "TXT"): ["v=spf1 mx -all"],
        ("many.example.org", "MX"): [(number, f"mx{number}.example.org") for number in range(11)],
        ("two.example.org", "TXT"): ["v=spf1 -all", "v=spf1 +all"],
        ("lost.example.org", "TXT"): ["v=spf1 include:nowhere.example.org -all"],
        ("host.example.org", "TXT"): ["v=spf1 a -all"],
        ("ptr.example.org", "TXT"): ["v=spf1 ptr -all"],
    }
)


# A sender in brackets


@pytest.mark.parametrize(
    "sender",
    [
        "<ana@example.org> SIZE=1000",
        "<ana@example.org> SIZE=1000 BODY=8BITMIME SMTPUTF8",
        " <ana@example.org>\tAUTH=<>".replace("<>", "%3C%3E"),
        "<ana@example.org",
        "ana@example.org>",
        '<"a>b <c"@example.org> SIZE=5',
        '"a<b>"@example.org',
        '<"\\">"@example.org>',
        '<o"brien@example.org>',
    ],
)
def test_a_sender_is_what_it_means(sender: str) -> None:
    assert check("192.0.2.1", sender, resolver=ZONE).result == "pass"


@pytest.mark.parametrize("sender", ["<> SIZE=1000", "<>"])
def test_a_bounce_with_parameters(sender: str) -> None:
    assert check("192.0.2.1", sender, "example.org", resolver=ZONE).result == "pass"


@pytest.mark.parametrize(
    "sender",
    [
        *("<ana@example.org>,", "<ana@example.org>>", "<<ana@example.org>>", "<<ana@example.org>", "Ana <ana@example.org>"),
        *("<ana@example.org> <bob@example.org>", "<ana@example.org>;", "<ana@example.org>SIZE=5", "ana@example.org> SIZE=5"),
        *('<o"brien>@example.org>', "<>ana@example.org", "<" * 50_000, '"\\' * 50_000 + "<"),
    ],
)
@pytest.mark.parametrize("form", [str, str.encode])
def test_a_sender_that_is_not_understood_is_refused(sender: str, form: Callable[[str], Any]) -> None:
    "And isn't a silent `none`."
    for way in (check, lambda *given, **more: asyncio.run(acheck(*given, **more))):
        with pytest.raises(ValueError, match="^sender should be ") as raised:
            way("192.0.2.1", form(sender), resolver=ZONE)
        assert len(str(raised.value)) < 160


# Reasons, copied


def answered_badly(failure: Unanswered) -> Callable[[Question[Any], float], Any]:
    return lambda question, until: failure if getattr(question, "rdtype", "") in ("A", "PTR") else ZONE(question)


REASONS: list[tuple[str, Any]] = [
    *((name, ZONE) for name in ("example.org", "open.example.org", "nowhere.example.org", "localhost", "loop.example.org")),
    *((f"{name}.example.org", ZONE) for name in ("faulty", "outer", "moved", "void", "many", "two", "lost")),
    *(("host.example.org", answered_badly(failure)) for failure in (Late("l"), Silent("s"), Refused("r"), LocalFault("f"))),
    ("ptr.example.org", answered_badly(Late("late"))),
]


def every_way(value: Any) -> list[Any]:
    "Copies of a value."
    pickled = [pickle.loads(pickle.dumps(value, version)) for version in range(2, pickle.HIGHEST_PROTOCOL + 1)]  # noqa: S301
    return [copy.copy(value), copy.deepcopy(value), *pickled]


@pytest.mark.parametrize(("domain", "tell"), REASONS, ids=lambda value: value if isinstance(value, str) else "")
def test_a_result_can_be_copied(domain: str, tell: Any) -> None:
    "With its reason, whatever that is, and says afterwards what it said before."
    found = drive(check_identity(Query("192.0.2.99", f"ana@{domain}")), tell)
    for again in every_way(found):
        assert isinstance(again, Result) and again.data() == found.data() and str(again) == str(found)
        assert type(again.why) is type(found.why) and (again.error is again.why) == (found.error is found.why)
    for why in every_way(found.why):
        assert type(why) is type(found.why) and why.data() == found.why.data() and str(why).partition(" at 0x")[0] == str(
            found.why
        ).partition(" at 0x")[0]


def test_all_kinds_of_reasons_are_copied() -> None:
    from ra_plugins.spf import trace

    seen = {type(drive(check_identity(Query("192.0.2.99", f"ana@{domain}")), tell).why) for domain, tell in REASONS}
    kinds = {each for each in vars(trace).values() if isinstance(each, type) and issubclass(each, trace.Reason) and each.kind}
    assert seen == kinds


def test_the_error_of_a_copy_is_that_of_its_record() -> None:
    found = check("192.0.2.99", "ana@outer.example.org", resolver=ZONE)
    for again in (copy.deepcopy(found), pickle.loads(pickle.dumps(found))):  # noqa: S301
        assert again.error is again.trace.error is again.trace.inner()[0].error


def errors_of_ours() -> set[type[BaseException]]:
    "The classes of exceptions in all modules, but private ones."
    modules = [importlib.import_module(each.name) for each in pkgutil.walk_packages(ra_plugins.__path__, "ra_plugins.")]
    found = {each for module in modules for each in vars(module).values() if isinstance(each, type)}
    return {
        each
        for each in found
        if issubclass(each, BaseException) and each.__module__.startswith("ra_plugins") and each.__name__[0] != "_"
    }


def test_errors_of_ours_can_be_copied() -> None:
    "Those that are made of more than a text are made here; a new one is added to them, or takes a text."
    made: dict[type[BaseException], BaseException] = {
        RecordError: RecordError("Invalid macro", "%{x}", 7),
        ConfigError: ConfigError(ConfigProblem("rater.conf", 3, "wrong"), ConfigProblem("rater.conf", 5, "worse")),
        DatabaseFault: DatabaseFault(5, "is locked", "seen.db"),
    }
    for each in errors_of_ours() - made.keys():
        if not each.__module__.endswith(".trace"):  # whose errors are those of results
            made[each] = each("what was wrong")
    assert len(made) > 15
    for error in made.values():
        for again in every_way(error):
            assert type(again) is type(error) and str(again) == str(error) and again.args == error.args
            assert vars(again) == vars(error)


def test_a_mistake_in_a_record_says_what_it_said() -> None:
    with pytest.raises(RecordError) as raised:
        parse_record("v=spf1 mx ip4:192.0.2.0/33")
    again = copy.copy(raised.value)
    assert str(again) == "Invalid IP4 CIDR length: ip4:192.0.2.0/33" and again.place == 10


# A resolver


def each_of(name: str, *values: Any) -> list[dict[str, Any]]:
    return [{name: value} for value in values]


WRONG: list[dict[str, Any]] = [
    *each_of("sockets", 0, -1, None, "1", 1.5, True),
    *each_of("try_again", 0, -1, "1", math.nan, math.inf, 10**400, -(10**400), True),
    *each_of("timeout", 0, -1, "1", math.nan, math.inf, 10**400, 10**5000, None),
    *each_of("port", "53", 0, -1, 65536, 70000, None, 53.0),
    *each_of("cache", 5, {}, True, AnswerCache),
    *each_of("prefetch", "x", -1, None, 1.5),
    *each_of("resolv_conf", 5, None, b"/etc/resolv.conf"),
    *each_of("nameservers", [5], "127.0.0.1", b"127.0.0.1", 5, [None], [b"192.0.2.53"], ["ns.example.org"]),
]


@pytest.mark.parametrize("wrong", WRONG, ids=lambda value: next(iter(value)))
def test_a_resolver_names_what_it_can_not_use(wrong: dict[str, Any]) -> None:
    name = next(iter(wrong))
    with pytest.raises(ValueError, match=f"^{name} should be ") as raised:
        Resolver(**wrong)
    assert len(str(raised.value)) < 160


def test_a_text_is_no_list_of_nameservers() -> None:
    with pytest.raises(ValueError, match="a list of addresses"):
        Resolver("127.0.0.1")


@pytest.mark.parametrize(
    "text", ["127.0.0.1:5353", "127.0.0.1#5353", "[::1]:5353", "::1#5353", "127.0.0.1", "::1", "192.0.2.1:0", "x:5"]
)
def test_nameservers_have_one_form(text: str) -> None:
    "A program's list and `DNSSERVERS` take the same, and mean the same by it."
    try:
        place = parse_nameserver(text)
    except ValueError:
        for way in (nameserver_list, lambda text: Resolver([text])):
            with pytest.raises(ValueError, match="nameservers"):
                way(text)
        return
    assert place[0] in ("127.0.0.1", "::1") and place[1] in (53, 5353)
    assert nameserver_list(text) == (text,)
    assert [(each.address, each.port) for each in Resolver([text]).nameservers.servers] == [place]


@pytest.mark.parametrize("right", [{"timeout": 1}, {"try_again": 0.5, "sockets": 1}, {"prefetch": 0}, {"resolv_conf": Path("x")}])
def test_a_resolver_takes_what_is_some_use(right: dict[str, Any]) -> None:
    assert Resolver(["192.0.2.53", "2001:db8::53"], port=5353, cache=AnswerCache(), **right).sent == 0


@pytest.mark.parametrize("size", [-1, 1.5, "1", None, True])
def test_a_cache_names_what_it_can_not_use(size: Any) -> None:
    with pytest.raises(ValueError, match="^size should be "):
        AnswerCache(size=size)


@pytest.mark.parametrize("timeout", [10**400, 10**5000, -(10**5000)], ids=["400", "5000", "-5000"])
def test_a_time_that_is_no_float(timeout: Any) -> None:
    for way in (check, lambda *given, **more: asyncio.run(acheck(*given, **more))):
        with pytest.raises(ValueError, match="^timeout should be a number of seconds") as raised:
            way("192.0.2.1", "ana@example.org", resolver=ZONE, timeout=timeout)
        assert len(str(raised.value)) < 160


@pytest.mark.parametrize(
    "wrong", [{"receiver": 5}, {"receiver": None}, {"receiver": b"mx"}, {"field": []}, {"field": "X"}, {"identity": ["helo"]}]
)
def test_a_header_names_what_it_can_not_use(wrong: dict[str, Any]) -> None:
    found = check("192.0.2.1", "ana@example.org", resolver=ZONE)
    with pytest.raises(ValueError, match=f"^{next(iter(wrong))} should be "):
        found.header(**wrong)


@pytest.mark.parametrize("what", [Resolver, acheck, check])
def test_help_tells_parameters_and_units(what: Any) -> None:
    text = pydoc.plain(pydoc.render_doc(what))
    described = inspect.getdoc(what) or ""
    parameters = [name for name in inspect.signature(what).parameters if name != "self"]
    assert all(any(line.split()[0] == name for line in described.splitlines() if line.strip()) for name in parameters), described
    assert "seconds" in described and "ValueError" in described and described.splitlines()[0] in text


# Zones


@pytest.mark.parametrize(
    ("records", "named"),
    [
        ({("example.org", "TXT"): "v=spf1 -all"}, "TXT records of example.org .*list"),
        ({("example.org", "TXT"): b"v=spf1 -all"}, "TXT records of example.org .*list"),
        ({("example.org", "TXT"): None}, "TXT records of example.org .*list"),
        ({("example.org", "TXT"): 5}, "TXT records of example.org .*list"),
        ({("example.org", "TXT"): [None]}, "TXT record of example.org .*None"),
        ({("example.org", "TXT"): [b"v=spf1 -all"]}, "TXT record of example.org .*b'v=spf1"),
        ({("example.org", "TXT"): [("v=spf1", "-all")]}, "TXT record of example.org"),
        ({("example.org", "A"): ["x"]}, "A record of example.org should be an IPv4 address"),
        ({("example.org", "A"): Records(["x"])}, "A record of example.org should be an IPv4 address"),
        ({("example.org", "A"): ["2001:db8::1"]}, "A record of example.org should be an IPv4 address"),
        ({("example.org", "AAAA"): ["192.0.2.1"]}, "AAAA record of example.org should be an IPv6 address"),
        ({("example.org", "MX"): ["mx.example.org"]}, "MX record of example.org"),
        ({("example.org", "MX"): [("10", "mx.example.org")]}, "MX record of example.org"),
        ({("example.org", "MX"): [(10, b"mx")]}, "MX record of example.org"),
        ({("example.org", "MX"): (10, "mx.example.org")}, "MX record of example.org"),
        ({("example.org", "PTR"): [5]}, "PTR record of example.org"),
        ({("example.org", "CNAME"): [("www.example.net",)]}, "CNAME record of example.org"),
        ({("example.org", "SPF"): ["v=spf1 -all"]}, "example.org .*'SPF'"),
        ({"example.org": ["v=spf1 -all"]}, "by name and type.*'example.org'"),
        ({(b"example.org", "TXT"): ["v=spf1 -all"]}, "by name and type"),
        ({("example.org", "TXT", 300): ["v=spf1 -all"]}, "by name and type"),
        ({("example.org", "A"): [], ("Example.org.", "a"): []}, "A records of example.org stand there twice"),
        ([("example.org", "TXT")], "dictionary"),
        (None, "dictionary"),
    ],
)
def test_a_zone_names_records_of_no_use(records: Any, named: str) -> None:
    "When it is made, and not by a `none` when it is asked."
    with pytest.raises((TypeError, ValueError), match=named) as raised:
        Zone(records)
    assert len(str(raised.value)) < 250


def test_names_in_a_zone_are_spelt_in_any_way() -> None:
    zone = Zone({("Example.ORG.", "txt"): ["v=spf1 mx -all"], ("EXAMPLE.org", "Mx"): [[10, "mx.example.org."]]})
    assert zone.answer(Lookup("example.org", "MX")) == ((10, "mx.example.org"),)
    assert check("192.0.2.1", "ana@example.org", resolver=zone).result == "fail"
    zone.records["mx.example.org", "A"] = ["192.0.2.1"]
    assert check("192.0.2.1", "ana@example.org", resolver=zone).result == "pass"


def test_what_is_put_into_a_zone_later_is_looked_at_too() -> None:
    zone = Zone({})
    zone.records["example.org", "TXT"] = "v=spf1 -all"
    with pytest.raises(TypeError, match="TXT records of example.org"):
        check("192.0.2.1", "ana@example.org", resolver=zone)


def test_an_alias_may_end_in_a_dot() -> None:
    assert isinstance(Zone({("a.example", "CNAME"): ["a.example."]}).answer(Lookup("a.example", "A")), Broken)


@pytest.mark.parametrize("text", [b'a TXT "x"', None, 5, ['a TXT "x"']])
def test_a_zone_as_text_is_text(text: Any) -> None:
    with pytest.raises(ValueError, match="^text should be text, not "):
        zone_from_text(text)


def test_limits_are_what_they_say() -> None:
    assert Limits() == Limits() and hash(Limits()) == hash(Limits(lookups=10)) and {Limits(), Limits()} == {Limits()}
    assert Limits() != Limits(voids=3) and Limits() != (10, 2, True) and pickle.loads(pickle.dumps(Limits())) == Limits()  # noqa: S301
