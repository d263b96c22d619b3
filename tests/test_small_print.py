"""Small print: rules that a check of SPF, a resolver or a command could lose, and everything else would still pass."""

from __future__ import annotations

import asyncio
import math
import time
from typing import Any

import pytest
from dns_server import DnsServer
from resolving import PATIENCE, ZONE, asking, one_test

from ra_plugins.ask.dns import Lookup, Prefetch, Zone
from ra_plugins.ask.nameserver import parse_resolv_conf
from ra_plugins.ask.question import LONGEST, Question, Unanswered, drive
from ra_plugins.ask.resolver import Resolver, ResolverAnswerer, ResolverSettings, resolve
from ra_plugins.spf import Limits, check
from ra_plugins.spf.evaluation import check_identity
from ra_plugins.spf.macro import MacroError, parse_macro
from ra_plugins.spf.query import Query
from ra_plugins.spp.command import HEADER_LIMIT, AddHeader, write

POINTER = ("1.2.0.192.in-addr.arpa", "PTR")


# The letter p


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["mail.example.org", "example.org", "example.net"], "example.org"),  # the domain itself, wherever it stands
        (["example.org", "mail.example.org"], "example.org"),
        (["example.net", "mail.example.org"], "mail.example.org"),  # or else a name below it
        (["example.net", "example.com"], "example.net"),  # or else any
        (["notexample.org", "a.example.org"], "a.example.org"),
        (["forged.example.com"], "unknown"),  # that isn't the client's
    ],
)
def test_the_letter_p_prefers_the_domain_itself(names: list[str], expected: str) -> None:
    "RFC 7208, section 7.3."
    zone = Zone(
        {
            ("example.org", "TXT"): ["v=spf1 exists:%{p}.named.example -all"],
            POINTER: names,
            **{(name, "A"): ["192.0.2.1"] for name in names if not name.startswith("forged")},
            (f"{expected}.named.example", "A"): ["127.0.0.2"],
        }
    )
    assert check("192.0.2.1", "ana@example.org", resolver=zone).result == "pass"


# How many parts of a name are kept


@pytest.mark.parametrize("digits", ["0", "00", "000"])
@pytest.mark.parametrize("letter", ["s", "d", "L"])
def test_no_macro_keeps_nothing(letter: str, digits: str) -> None:
    'RFC 7208, section 7.1: "the number MUST be nonzero". However it is written.'
    with pytest.raises(MacroError):
        parse_macro(f"%{{{letter}{digits}}}")
    zone = Zone({("example.org", "TXT"): [f"v=spf1 exists:%{{{letter}{digits}}}.example.net -all"]})
    assert check("192.0.2.1", "ana@example.org", resolver=zone).result == "permerror"


@pytest.mark.parametrize(("digits", "kept"), [("01", "org"), ("002", "example.org"), ("10", "mail.example.org")])
def test_a_zero_before_or_behind_other_digits_is_one_of_them(digits: str, kept: str) -> None:
    assert parse_macro(f"%{{d{digits}}}").expand({"d": "mail.example.org"}) == kept


# Headers


@pytest.mark.parametrize("letter", ["é", "€", "𝄞"])
@pytest.mark.parametrize("before", range(4))
def test_a_header_is_not_cut_within_a_character(letter: str, before: int) -> None:
    "Two, three and four bytes (RFC 3629), and a limit that falls on each of them."
    text = "X-A: " + "a" * before + letter * HEADER_LIMIT
    line = write([AddHeader(text)]).removeprefix(b"H").removesuffix(b"\n")
    assert text.startswith(line.decode("utf-8", "strict"))
    assert HEADER_LIMIT - len(letter.encode()) < len(line) <= HEADER_LIMIT


# Time limits of DNS


@pytest.mark.parametrize("until", [math.inf, PATIENCE * 10])
@one_test
async def test_a_lookup_ends_at_the_resolvers_own_limit(until: float) -> None:
    "However much later whoever asks has to be done, and though no nameserver is asked again."
    with DnsServer(ZONE, fault="drop") as server:
        resolver = asking(server, timeout=0.2, try_again=600)
        asked = resolve(resolver, Lookup("example.org", "A"), time.monotonic() + until)
        assert isinstance(await asyncio.wait_for(asked, PATIENCE), Unanswered)


@pytest.mark.parametrize(("value", "seconds", "complaints"), [("1", 1, 0), ("60", 60, 0), ("61", 10, 1), ("0", 10, 1)])
def test_the_setting_has_a_limit_above(value: str, seconds: int, complaints: int) -> None:
    told: list[str] = []
    settings = ResolverSettings({"DNSTIMEOUT": value}, told.append)
    assert ResolverAnswerer(settings, told.append).resolver.timeout == seconds
    assert len(told) == complaints


def test_resolver_takes_no_time_above_the_limit() -> None:
    for name in ("timeout", "try_again"):
        Resolver(["192.0.2.53"], **{name: LONGEST})  # type: ignore[arg-type]
        for seconds in (LONGEST + 0.001, math.inf, math.nan):
            with pytest.raises(ValueError, match=f"^{name} should be a number of seconds from 0.001 to 86400, not "):
                Resolver(["192.0.2.53"], **{name: seconds})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("written", "kept"),
    [("timeout:30", 30), ("timeout:31", 30), ("timeout:999999999", 30), ("attempts:5", 5), ("attempts:6", 5)],
)
def test_resolv_conf_has_the_limits_of_the_c_library(written: str, kept: int) -> None:
    "RES_MAXRETRANS and RES_MAXRETRY, in resolv.conf(5): silently capped."
    assert parse_resolv_conf(f"options {written}")[1] == {written.partition(":")[0]: kept}


# What is asked ahead


def asked_ahead(record: str, limit: int, more: dict[tuple[str, str], Any] | None = None) -> list[list[str]]:
    "The names that a check says it may ask soon, each time that it says so, when so many terms may ask."
    zone, said = Zone({("example.org", "TXT"): [record], **(more or {})}), list[list[str]]()

    def tell(question: Question[Any], until: float) -> Any:
        if not isinstance(question, Prefetch):
            return zone(question, until)
        said.append([lookup.name for lookup in question.lookups])
        return None

    drive(check_identity(Query("192.0.2.1", "ana@example.org", limits=Limits(lookups=limit), prefetch=True)), tell)
    return said


FIVE = ["a.example.net", "b.example.net", "c.example.net", "d.example.net", "e.example.net"]


@pytest.mark.parametrize("limit", range(7))
def test_nothing_is_asked_ahead_beyond_the_terms_left(limit: int) -> None:
    record = "v=spf1 a:a.example.net ip4:203.0.113.1 mx:b.example.net exists:c.example.net redirect=d.example.net"
    assert asked_ahead(record, limit) == ([FIVE[: min(limit, 4)]] if limit else [])


def test_terms_that_have_had_their_turn_count() -> None:
    "Of four, the outer record's first takes one, and so does the inner record's: two are left for what comes then."
    inner = {("in.example.org", "TXT"): ["v=spf1 " + " ".join(f"a:{name}" for name in FIVE) + " -all"]}
    assert asked_ahead("v=spf1 a:first.example.org include:in.example.org a:last.example.org", 4, inner) == [
        ["first.example.org", "in.example.org", "last.example.org"],
        FIVE[:2],
    ]


def test_what_has_its_name_from_later_is_a_term_all_the_same() -> None:
    "The letter p isn't known ahead, so that term's name isn't told, and its turn counts."
    assert asked_ahead("v=spf1 exists:%{p}.example.com a:a.example.net a:b.example.net", 2)[0] == FIVE[:1]
