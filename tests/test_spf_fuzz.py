"""Any text as record, macro string, address, sender, HELO name, explanation: a documented result, soon.

`make fuzz` goes on where this ends: see fuzz/record.py. With EXAMPLES=20000 in the environment, it looks longer here.
"""

from __future__ import annotations

import ipaddress
import re
import signal
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

import pytest
from hypothesis import HealthCheck, assume, event, example, given, settings
from hypothesis import strategies as st
from spf_strategies import (
    ADDRESS_TERMS,
    DOMAINS,
    EXAMPLES,
    EXPANDED,
    MACROS,
    ODD_DOMAINS,
    ODD_MACROS,
    ODD_TERMS,
    Invented,
    clients,
    directives,
    helos,
    records,
    senders,
)

from ra_plugins.ask.dns import Records, Zone
from ra_plugins.ask.question import drive
from ra_plugins.spf import Result, check
from ra_plugins.spf.evaluation import DEFAULT_EXPLANATION, EXPLANATION_LENGTH, check_identity
from ra_plugins.spf.macro import MacroError, parse_macro
from ra_plugins.spf.query import Query
from ra_plugins.spf.record import RECORDS, RESULTS, RecordError, is_record, parse_record

SYNTAX = [" ", "%", "{", "}", "/", "//", ":", "=", ".", "-", "@", "_", "0", "8", "a", "mx", "r", "\0", "\n", "\t"]
UNUSUAL = ["\udcff", "\ud800", "\xe9", "\u212a", "\u0130", "\u0661", "\u2028", "\x7f", "%{H}", "%{S}", "%{L}", "include:", "exp="]
PIECES = [*SYNTAX, *UNUSUAL, *ODD_TERMS, *ODD_DOMAINS, *ODD_MACROS, *EXPANDED, *MACROS, *ADDRESS_TERMS]

anything = st.binary(max_size=60).map(lambda data: data.decode("utf-8", "surrogateescape"))
pieces = st.lists(st.sampled_from(PIECES), max_size=8).map("".join)
hostile = st.one_of(anything, pieces, st.text(max_size=40), st.builds("{}{}{}".format, pieces, anything, pieces))
nearly = st.lists(st.one_of(directives, pieces), max_size=4).map(" ".join)  # the terms of a record
given_often = settings(max_examples=EXAMPLES, suppress_health_check=[HealthCheck.too_slow])


# What RFC 7208 calls well-formed, written down once more from its grammar (section 12), to compare with.

MACRO = r"%(?:[%_-]|\{[slodiphv](?!0+\D)\d*r?[-.+,/_=]*\})"
MACRO_STRING = rf"(?:{MACRO}|[!-$&-~])*"
TOP_LABEL = r"(?:[0-9]*[a-z][a-z0-9]*|[a-z0-9]+-[a-z0-9-]*[a-z0-9])"
DOMAIN_SPEC = rf"(?:{MACRO_STRING}(?:\.{TOP_LABEL}\.?|{MACRO}))"
LENGTH4, LENGTH6 = r"/(?:[0-9]|[12][0-9]|3[0-2])", r"/(?:[0-9]|[1-9][0-9]|1[01][0-9]|12[0-8])"
HOSTS = rf"(?:a|mx)(?::{DOMAIN_SPEC})?(?:{LENGTH4})?(?:/{LENGTH6})?"
NAMED = rf"all|(?:include|exists):{DOMAIN_SPEC}|ptr(?::{DOMAIN_SPEC})?|{HOSTS}"
NETWORK = rf"ip4:(?P<ip4>[0-9.]+)(?:{LENGTH4})?|ip6:(?P<ip6>[0-9a-f:.]+)(?:{LENGTH6})?"
MODIFIER = rf"(?P<known>redirect|exp)={DOMAIN_SPEC}|(?!(?:redirect|exp)=)[a-z][a-z0-9_.-]*={MACRO_STRING}"
TERM = re.compile(rf"[-+?~]?(?:{NAMED}|{NETWORK})|{MODIFIER}", re.IGNORECASE | re.ASCII)


def is_well_formed(terms: str) -> bool:
    "Do these terms make a record?"
    found = [TERM.fullmatch(term) for term in terms.split(" ") if term]
    known = Counter(match["known"].lower() for match in found if match and match["known"])
    return all(match and has_address(match) for match in found) and all(count == 1 for count in known.values())


def has_address(match: re.Match[str]) -> bool:
    try:
        return bool((match["ip4"] is None or ipaddress.IPv4Address(match["ip4"])) and ipv6(match["ip6"]))
    except ValueError:
        return False


def ipv6(text: str | None) -> bool:
    return text is None or bool(ipaddress.IPv6Address(text))


@given_often
@given(st.one_of(hostile, nearly))
def test_record(terms: str) -> None:
    "A record is one by the grammar of RFC 7208, or the error names the first term that is wrong, and its place."
    text = f"v=spf1 {terms}"
    assert is_record(text)
    event("well-formed" if is_well_formed(terms) else "a mistake")
    try:
        record = parse_record(text)
    except RecordError as error:
        assert not is_well_formed(terms)
        wrong = text[error.place :].partition(" ")[0]
        assert wrong and error.problem in wrong and text[error.place - 1] == " "
        assert is_well_formed(text[6 : error.place])
    else:
        assert is_well_formed(terms)
        assert set(record.directives) <= set(terms.split(" ")) and record.text == text


@given_often
@given(hostile, hostile, st.booleans())
@example("%{S}%{L}%{H}", "\udcff", True)
def test_macro(text: str, value: str, explanation: bool) -> None:
    "A macro string is taken apart and put together again, or it is a `MacroError`."
    try:
        macro = parse_macro(text, explanation)
    except MacroError:
        assert not re.fullmatch(MACRO_STRING, text, re.IGNORECASE | re.ASCII)
    else:
        assert explanation or re.fullmatch(MACRO_STRING, text, re.IGNORECASE | re.ASCII)
        expanded = macro.expand(dict.fromkeys(macro.letters, value))
        assert macro.letters or expanded == macro.plain
        for limit in (1, 7, 253):
            values = dict.fromkeys(macro.letters, value)
            assert (macro.expand(values, limit), macro.expand_end(values, limit)) == (expanded[:limit], expanded[-limit:])
        assert len(expanded) <= len(text) * (2 + 3 * len(value))  # an escape is up to twelve characters, a macro four


def is_documented(found: Result) -> bool:
    "Is it a result as the documentation says, with an explanation that is fit for an SMTP reply?"
    line = found.explanation
    return (
        found.result in RESULTS
        and bool(found.problem) == found.result.endswith("error")
        and (bool(line) <= (found.result == "fail"))
        and len(line) <= EXPLANATION_LENGTH
        and line.isascii()
        and (line.isprintable())
        and found.lookups <= 11
        and found.voids <= 3
    )


@given_often
@given(
    clients,
    st.one_of(senders, hostile, st.builds("{}@{}".format, hostile, st.sampled_from(DOMAINS))),
    st.one_of(helos, hostile),
    st.one_of(records, nearly.map("v=spf1 {}".format), nearly.map("v=spf1 {} -all exp=why.example".format)),
    st.one_of(hostile, st.sampled_from(["%{S}", "%{H}", "%{h}%{l}", "%{p}"])),
    st.sampled_from([DEFAULT_EXPLANATION, "%{p} isn't known, see %{S}"]),
    st.data(),
)
def test_check(ip: str, sender: str, helo: str, text: str, why: str, default: str, data: st.DataObject) -> None:
    "Whatever a client and the DNS say, a check has a result."
    query = Query(ip, sender, helo, receiver="mx.example.com", prefetch=data.draw(st.booleans()))
    zone = Invented(data.draw)
    zone.answers.update({(name, "TXT"): Records([text]) for name in {query.domain.lower(), *DOMAINS}})
    zone.answers["why.example", "TXT"] = Records([why])
    found = drive(check_identity(query, default), zone)
    event(found.result)
    assert is_documented(found), (found, found.explanation)


@given_often
@given(st.one_of(clients, hostile, st.ip_addresses().map(str)), senders, helos, st.sampled_from([str.encode, str]))
@example("192.0.2.1%", "ana@a.example", "a.example", str)
def test_address(ip: str, sender: str, helo: str, form: type) -> None:
    "What isn't an address is a `ValueError` that says so; what is one is taken, as text or as bytes."
    try:
        ipaddress.ip_address(ip)
    except ValueError:
        assume(":" not in ip)  # the name of an interface behind a % may be odd
        with pytest.raises(ValueError, match="^ip should be an IP address"):
            check(ip, sender, helo, resolver=Zone({}))
    else:
        assert is_documented(check(form(ip), form(sender), form(helo), resolver=Zone({})))


# Time: all of these would take hours if it grew with the square of the length.

LENGTH = 200_000  # characters; what DNS can hold is a third of it
SECONDS = 60  # of processor time


@contextmanager
def limited_time() -> Iterator[None]:
    "Fail after `SECONDS` of this process's time, however busy the machine is."

    def stop(number: int, frame: FrameType | None) -> None:
        raise TimeoutError(f"more than {SECONDS} s")

    before = signal.signal(signal.SIGVTALRM, stop)
    signal.setitimer(signal.ITIMER_VIRTUAL, SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)


def filled(beginning: str, middle: str, end: str = "") -> str:
    return beginning + middle * (LENGTH // len(middle)) + end


LONG = [
    *(filled(f"{term}:x.", "a", end) for term in ("a", "mx", "ptr", "include", "exists") for end in ("", "_", "-")),
    *(filled("a:", middle, end) for middle in ("a.", "a-", "1", "-", ".", "/1", "/", "//1") for end in ("", "_")),
    *(filled("a:x.example/", middle, "x") for middle in ("1", "1/", "1//1", "0")),
    *(filled("", middle) for middle in ("a", "-", "+", "=", ":", "/", " ", "\t", "m.-", "%", "\xe9", "\udcff")),
    *(filled("", middle) for middle in ("a ", "mx ", "ptr ", "all ", "m=n ", "ip4:192.0.2.1 ", "?ip6:::/5 ")),
    *(filled("ip4:", middle, end) for middle in ("1", "1.", "/") for end in ("", "/8")),
    *(filled("ip6:", middle, end) for middle in ("1", "1:", ":", "::1/") for end in ("", "/8")),
    *(filled("ip4:192.0.2.1/", digit) for digit in "01"),
    *(filled("m", middle, end) for middle in ("m", ".", "-") for end in ("", "=", "=%")),
    *(filled("exists:", middle, ".example.org") for middle in ("%{i}", "%{d}.", "%{p}", "%%", "%{l}.", "%{h1r-}")),
    *(filled("exists:%{d", middle, "}") for middle in ("1", "0", "-", "-.", "r")),
    *(filled("exists:%{d", middle) for middle in ("1", "-", "r", "}%{d")),
    *(filled("redirect=", middle, ".example.org") for middle in ("%{i}", "%{d}.", "a.")),
    filled("v=spf1 -all exp=", "%{i}", ".example.org"),
]


@pytest.mark.parametrize("terms", LONG, ids=lambda terms: ascii(f"{terms[:14]}...{terms[-4:]}"))
def test_time_is_bounded_by_the_record(terms: str) -> None:
    zone = Zone({("example.org", "TXT"): [f"v=spf1 {terms}"]})
    with limited_time():
        for prefetch in (False, True):
            assert is_documented(drive(check_identity(Query("2001:db8::1", "ana@example.org", prefetch=prefetch)), zone))
    RECORDS.clear()


@pytest.mark.parametrize("part", ["a.", ".", "a", "-", "@", "\xe9.", "\udcff", '"'], ids=ascii)
def test_time_is_bounded_by_the_sender(part: str) -> None:
    long = filled("", part)[: LENGTH // 10]  # it has its place in a command of SMTP, whose line has 512 characters
    text = "v=spf1 exists:%{l}.%{d} exists:%{s1r-.@}.%{d} exists:%{h}.%{h2r}.%{d} -all exp=why.example.org"
    zone = Zone({("example.org", "TXT"): [text], ("why.example.org", "TXT"): ["%{S}%{H}%{L}%{s}%{h}"]})
    with limited_time():
        for sender in (f"{long}@example.org", "", f"ana@{long}", f"ana@{long}.example.org"):
            assert is_documented(check("192.0.2.1", sender, long, resolver=zone))


@pytest.mark.parametrize("part", ["a", "%{i}", "%{p}", "%%", " ", "%", "\n", "\xe9"], ids=ascii)
def test_time_is_bounded_by_the_explanation(part: str) -> None:
    texts = {"example.org": "v=spf1 -all exp=why.example.org", "why.example.org": filled("", part)}
    zone = Zone({(name, "TXT"): [text] for name, text in texts.items()})
    with limited_time():
        assert is_documented(check("2001:db8::1", "ana@example.org", "mail.example.org", resolver=zone))


def test_the_timer_stops_what_takes_long() -> None:
    "Else those tests couldn't fail."
    quadratic = re.compile("a*a*b")
    with pytest.raises(TimeoutError), limited_time():
        signal.setitimer(signal.ITIMER_VIRTUAL, 0.01)
        quadratic.match("a" * sys.maxunicode)
