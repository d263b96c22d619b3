"""What a stranger can make a check do is bounded: bytes that are kept, pieces of a macro, terms, names.

Work is counted, not timed.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from spf_suites import ROOT

import ra_plugins.spf.record as record_module
from ra_plugins.ask.dns import Lookup, Prefetch, Records, Zone
from ra_plugins.ask.question import Question, drive
from ra_plugins.spf import Limits, Result
from ra_plugins.spf.evaluation import EXPLANATION_LENGTH, EXPLANATIONS, check_identity, kept_explanation
from ra_plugins.spf.macro import Expansion
from ra_plugins.spf.query import LOCAL_LENGTH, Query
from ra_plugins.spf.record import (
    MOST_LOOKUPS,
    RECORDS,
    KeptTexts,
    RecordError,
    _is_name,
    is_name,
    parse_record,
    parse_term,
    record_size,
)
from ra_plugins.spf.trace import FaultyRecord, HostLimitExceeded, LookupLimitExceeded
from ra_plugins.support.compiled import compiled_modules

MOST = 65_000  # characters of a text in DNS


def count_calls() -> None:
    "Of functions that a test puts in the place of others."
    if compiled_modules():
        pytest.skip("compiled code doesn't call what a test puts in a function's place")


def judged(record: str, sender: str = "ana@example.org", helo: str = "mail.example.org", **more: Any) -> Result:
    zone = Zone({("example.org", "TXT"): [record], **more.pop("records", {})})
    return drive(check_identity(Query("192.0.2.1", sender, helo, **more)), zone)


@pytest.fixture
def applied(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    "The lengths of the values that macros are filled with, as they are."
    count_calls()
    lengths: list[int] = []
    apply = Expansion.apply

    def counted(self: Expansion, value: str) -> str:
        lengths.append(len(value))
        return apply(self, value)

    monkeypatch.setattr(Expansion, "apply", counted)
    yield lengths
    EXPLANATIONS.clear()
    RECORDS.clear()


# What is kept

MEMORY = """
import pathlib, resource, sys
sys.path.insert(0, {root!r})
from ra_plugins.spf.record import RECORDS, kept_record
for number in range({records}):
    kept_record({record})
status = pathlib.Path("/proc/self/status")  # on Linux, getrusage counts what the process held before it was this program
if status.exists():
    print(int(status.read_text().partition("VmHWM:")[2].split()[0]) // 1024)
else:
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // (1024 if sys.platform != "darwin" else 1024 * 1024))
"""
ALL = int(os.environ.get("SPF_RECORDS", "0"))  # how many, in place of a few hundred


@pytest.mark.parametrize(
    ("records", "size", "pattern"),
    [
        (400, 65_000, "ip4:198.51.{0}.{1}/32 "),  # many times of what there is room for, so that more change nothing
        (400, 65_000, "a:h{1}.org "),
        (6000, 3_000, "ip4:198.51.{0}.{1}/32 "),
        (1500, 3_000, "a:h{1}.org "),
    ],
)
def test_memory_of_100_000_distinct_records_of_64_kB(records: int, size: int, pattern: str) -> None:
    """100,000 distinct 64 kB records: memory stays under 200 MB, where it was 7 GB and more.

    As many as come: a few hundred fill the room that there is several times over, and are what runs every day. All of them, in
    some minutes for each kind: `SPF_RECORDS=100000 pytest tests/test_spf_bounds.py -k 100_000`.
    """
    terms = size // len(pattern.format(10, 100))
    body = f"''.join({pattern!r}.format(each // 250, each % 250 + 1) for each in range({terms}))"
    record = "'v=spf1 a:n' + str(number) + '.org ' + body"
    script = MEMORY.format(root=str(ROOT), records=ALL or records, record=record).replace("\nfor", f"\nbody = {body}\nfor", 1)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=7200 if ALL else 120)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 200, f"{done.stdout} MB"


def test_kept_bytes_are_counted() -> None:
    "What is kept comes to the bound and no further, the text that was used last is there, and a large one never is."
    kept = KeptTexts(str, len, total=1000, share=1 / 10)
    for number in range(500):
        kept.get(f"{number:0>50}")
        assert sum(map(len, {**kept.old, **kept.young})) <= 1000
    assert kept.bytes == sum(map(len, kept.young)) > 0
    assert f"{499:0>50}" in kept.young and f"{0:0>50}" not in {**kept.old, **kept.young}
    assert kept.get("x" * 101) == "x" * 101 and "x" * 101 not in {**kept.old, **kept.young}
    for _ in range(500):  # one that is used again and again stays, whatever else comes
        kept.get("often")
        kept.get(f"{_:0>60}")
    assert "often" in {**kept.old, **kept.young}


@pytest.mark.parametrize(
    "pattern",
    [
        *("ip4:198.51.{0}.{1}/32 ", "ip6:2001:db8:{0}::{1}/{2} ", "a ip4:192.0.2.{0}/{3} "),
        *("a:h{0}.org ", "a:%{{d}}%{{i}} ", "exists:%%%_a%{{l{3}}} ", "m{0}=%{{d}} "),
    ],
)
def test_estimates_are_no_less_than_what_is_taken(pattern: str) -> None:
    import tracemalloc

    text = "v=spf1 " + "".join(pattern.format(n % 250, n // 250 + 1, n % 128 + 1, n % 32 + 1) for n in range(1500))
    tracemalloc.start()
    try:
        record = parse_record(text)
        taken = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    assert taken <= record_size(record)


def test_names_that_are_kept_are_names() -> None:
    "Of what is asked about, only what DNS could hold is remembered: 10,000 texts of 64 kB would be 640 MB."
    before = _is_name.cache_info().currsize
    assert not any(is_name(f"{number}." + "a." * 30_000 + "org") for number in range(20))
    assert _is_name.cache_info().currsize == before


def test_large_explanations_are_not_kept() -> None:
    EXPLANATIONS.clear()
    for number in range(20):
        kept_explanation(f"{number}" + "%{d}" * 16_000)
    assert not EXPLANATIONS.young and not EXPLANATIONS.old
    assert kept_explanation("%{i} may not") is kept_explanation("%{i} may not")


# Macros

LOCALS = {
    "long": "a" * LOCAL_LENGTH,
    "dots": "." * LOCAL_LENGTH,
    "escapes": "@" * LOCAL_LENGTH,
    "labels": "a." * 400 + "a",
}


@pytest.mark.parametrize("local", LOCALS.values(), ids=LOCALS)
@pytest.mark.parametrize("macro", ["%{L}", "%{l}", "%{s}", "%{lr}", "%{d}"])
def test_expansion_stops_at_its_limit(applied: list[int], macro: str, local: str) -> None:
    "60 kB of macros fill no more of them than a name holds, and a name is filled from its right."
    found = judged("v=spf1 exists:" + macro * 15_000 + ".example.org -all", f"{local}@example.org")
    assert found.result == "fail" and 0 < len(applied) <= 256, len(applied)


@pytest.mark.parametrize("macro", ["%{L}", "%{S}", "%{i}", "%{h}"])
def test_explanation_stops_at_its_limit(applied: list[int], macro: str) -> None:
    records = {("why.example.org", "TXT"): [macro * 15_000]}
    found = judged("v=spf1 -all exp=why.example.org", "a" * LOCAL_LENGTH + "@example.org", records=records)
    assert len(found.explanation) == EXPLANATION_LENGTH and 0 < len(applied) <= EXPLANATION_LENGTH


@pytest.mark.parametrize("length", [LOCAL_LENGTH + 1, 30_000, 1_000_000])
def test_a_local_part_over_its_bound_takes_no_part_in_macros(applied: list[int], length: int) -> None:
    "The policy holds for it, so that nobody walks past a -all by a long name; a term that needs it doesn't match."
    names = {("ana.example.org", "A"): ["127.0.0.2"], ("why.example.org", "TXT"): ["%{l}" * 9000]}
    record = "v=spf1 exists:%{l1r-}.example.org exists:%{s}.example.org -all exp=why.example.org"
    assert judged(record, "ana@example.org", records=names).result == "pass"
    found = judged(record, "ana-" + "x" * (length - 4) + "@example.org", records=names)
    assert (found.result, found.lookups, found.voids) == ("fail", 2, 0)
    assert found.explanation == ("ana-" + "x" * 500)[:EXPLANATION_LENGTH]
    assert max(applied) <= LOCAL_LENGTH


def test_a_helo_name_over_its_bound_takes_no_part_in_macros(applied: list[int]) -> None:
    names = {("mail.example.net", "A"): ["127.0.0.2"]}
    record = "v=spf1 exists:%{h3} -all"
    assert judged(record, helo="mail.example.net", records=names).result == "pass"
    assert judged(record, helo="x." * 30_000 + "mail.example.net", records=names).result == "fail"
    assert max(applied) <= 253


def test_a_fitting_local_part_may_be_long() -> None:
    "qmail-smtpd takes 899 bytes, so its last label can be what a name is made of."
    local = "x." * 440 + "ana"
    assert len(local) <= LOCAL_LENGTH
    names = {("ana.example.org", "A"): ["127.0.0.2"]}
    assert judged("v=spf1 exists:%{l1}.example.org -all", f"{local}@example.org", records=names).result == "pass"


@pytest.mark.parametrize("digits", ["", "1", "2", "128"])
def test_parts_that_are_dropped_are_not_made(digits: str) -> None:
    "Of a thousand labels, no more are split off than are kept."
    count_calls()

    class Text(str):
        pieces: list[int] = []

        def split(self, *arguments: Any) -> list[str]:
            found = str.split(self, *arguments)
            self.pieces.append(len(found))
            return found

        def rsplit(self, *arguments: Any) -> list[str]:
            found = str.rsplit(self, *arguments)
            self.pieces.append(len(found))
            return found

    for reverse in ("", "r"):
        Text.pieces = []
        made = Expansion("l", digits, reverse, "").apply(Text("a." * 999 + "a"))
        assert made.count("a") == int(digits or 1000) and Text.pieces == [int(digits or 999) + 1]


def test_repeated_delimiters_are_one() -> None:
    assert Expansion("l", "", "", "-" * MOST + ".").delimiters == "-."


def test_a_domain_over_its_bound_is_refused_first(monkeypatch: pytest.MonkeyPatch) -> None:
    "idna is asked for nothing that no name could be."
    import idna

    monkeypatch.setattr(idna, "encode", lambda *_, **__: pytest.fail("encoded"))
    for domain in ("é." * 30_000 + "org", "é" * 255):
        assert judged("v=spf1 -all", f"ana@{domain}").result == "none"


# Terms, records, names


class Counting(Zone):
    "A zone that counts."

    def __init__(self, records: dict[tuple[str, str], Any], prefetching: bool = False):
        super().__init__(records)
        self.asked: Counter[str] = Counter()
        self.ahead: list[Lookup] = []

    def __call__(self, question: Question[Any], until: float = 0) -> Any:
        if isinstance(question, Prefetch):
            waiting = [*question.lookups]
            while waiting:
                lookup = waiting.pop(0)
                self.ahead.append(lookup)
                answer = self.answer(lookup)
                if isinstance(answer, Records):
                    waiting += question.follow(lookup, answer)
        elif isinstance(question, Lookup):
            self.asked[question.rdtype] += 1
        return super().__call__(question, until)


def counted(records: dict[tuple[str, str], Any], **options: Any) -> tuple[Result, Counting]:
    zone = Counting(records)
    return drive(check_identity(Query("192.0.2.1", "ana@example.org", "mail.example.org", **options)), zone), zone


@pytest.mark.parametrize(
    "term", ["a ", "a:x.example ", "exists:%{ir}.x.example ", "ptr ", "a:..%{d} ", "ip4:192.0.2.9 a "]
)
def test_no_more_terms_are_tried_than_may_be(term: str) -> None:
    records = {("example.org", "TXT"): ["v=spf1 " + term * (MOST // len(term))], ("example.org", "A"): ["192.0.2.9"]}
    records |= {("x.example", "A"): ["192.0.2.9"], ("1.2.0.192.x.example", "A"): ["127.0.0.1"]}
    records |= {("1.2.0.192.in-addr.arpa", "PTR"): ["x.example"]}
    found, zone = counted(records)
    assert zone.asked.total() <= 1 + 10 * 11 and found.lookups <= 11


@pytest.mark.parametrize(
    "term", ["a ", "a:x{}.example ", "include:x{}.example ", "a:..%{{d}} ", "exists:%{{l}}.x{}.example "]
)
def test_no_more_is_prefetched_than_terms_are_left(applied: list[int], term: str) -> None:
    "Terms that can't be asked are among them, so that nobody looks at 10,000 of those."
    record = "v=spf1 " + "".join(map(term.format, range(MOST // len(term) - 900)))
    _, zone = counted({("example.org", "TXT"): [record]}, prefetch=True)
    assert len(zone.ahead) <= 10 and len(applied) <= 2 * 11


def test_a_tree_of_includes_is_prefetched_within_bounds() -> None:
    "Each record of a tree names ten more; what is asked ahead is left to who asks, what is asked has its limit."
    records = {("example.org", "TXT"): ["v=spf1 " + "".join(f"include:x{n}.example " for n in range(10))]}
    records |= {
        (f"x{n}.example", "TXT"): ["v=spf1 " + "".join(f"a:y{n}{m}.example " for m in range(10))] for n in range(10)
    }
    found, zone = counted(records, prefetch=True)
    assert isinstance(found.why, LookupLimitExceeded) or found.voids == 3
    assert zone.asked.total() <= 12


def test_mx_with_thousands_of_hosts() -> None:
    records = {
        ("example.org", "TXT"): ["v=spf1 mx -all"],
        ("example.org", "MX"): [(number, f"mx{number}.example") for number in range(4000)],
    }
    found, zone = counted(records, prefetch=True)
    assert isinstance(found.why, HostLimitExceeded) and zone.asked == {"TXT": 1, "MX": 1}
    assert zone.ahead == [Lookup("example.org", "MX")]


def test_ptr_with_thousands_of_names() -> None:
    records = {
        ("example.org", "TXT"): ["v=spf1 ptr exists:%{p}.example -all"],
        ("1.2.0.192.in-addr.arpa", "PTR"): [f"n{number}.example" for number in range(4000)],
        **{(f"n{number}.example", "A"): ["192.0.2.9"] for number in range(4000)},
    }
    found, zone = counted(records, prefetch=True)
    assert found.result == "fail" and zone.asked == {"TXT": 1, "PTR": 2, "A": 2 * 10 + 1}
    assert len(zone.ahead) <= 1 + 10


def test_thousands_of_texts() -> None:
    texts = [f"x{number}" for number in range(4000)]
    found, zone = counted({("example.org", "TXT"): [*texts, "v=spf1 -all"]}, prefetch=True)
    assert found.result == "fail" and zone.asked == {"TXT": 1}


@pytest.mark.parametrize("way", ["include:{}", "redirect={}"])
def test_the_deepest_nesting_that_limits_allow(way: str) -> None:
    "Python's stack holds it, in the check, as text, as data and as a picture."
    record = f"v=spf1 {way.format('example.org')}"
    for limits in (Limits(), Limits(lookups=MOST_LOOKUPS)):
        found = judged(record, limits=limits)
        assert isinstance(found.why, LookupLimitExceeded) and found.lookups == limits.lookups + 1
        assert found.data()["why"]["limit"] == limits.lookups and str(found) and found._repr_html_()
        assert len([*found.trace.walk()]) == limits.lookups + 1


TERMS = [
    *("a:h{}.org ", "A:H{}.ORG/24//64 ", "a ", "mx//{} ", "ptr ", "ptr:h{}.org ", "include:h{}.org ", "exists:%{{i}}.h{}.org "),
    *("a:%{{d}} ", "a:%{{d}}%{{l{}r-}}.org. ", "a:h{}%% ", "a:h/{}.org ", "-all "),
]


@pytest.mark.parametrize("term", TERMS)
def test_terms_that_no_check_gets_to_are_not_taken_apart(monkeypatch: pytest.MonkeyPatch, term: str) -> None:
    "A record of 64 kB costs no more objects than a check can have use of: 100 lookups are the most that limits allow."
    count_calls()
    taken: list[str] = []

    def counted(text: str) -> Any:
        taken.append(text)
        return parse_term(text)

    monkeypatch.setattr(record_module, "parse_term", counted)
    text = "v=spf1 " + "".join(term.format(number % 98 + 1) for number in range(MOST // len(term) - 900))
    record = parse_record(text)
    assert len(taken) == len(record.steps) == MOST_LOOKUPS + 1
    assert record.directives == text.split()[1:] and len(record.places()) == len(record.directives)


@pytest.mark.parametrize("term", ["m{}=%{{d}} ", "m={} ", "m={}%%%_%-%{{l1r-}} "])
def test_unknown_modifiers_are_not_taken_apart(monkeypatch: pytest.MonkeyPatch, term: str) -> None:
    count_calls()
    monkeypatch.setattr(record_module, "parse_macro", lambda *_: pytest.fail("taken apart"))
    record = parse_record("v=spf1 " + "".join(term.format(number) for number in range(MOST // len(term) - 900)))
    assert not record.directives and not record.steps


PIECES = [
    *("a", "mx", "all", "ptr", "include", "exists", "A", "redirect", "exp", "moo", "ip4", "-", "?", ":", "=", "/", "//", "."),
    *("org", "x-1", "-x", "1", "32", "33", "128", "129", "024", "%{d}", "%{D2r.-}", "%{d0}", "%{d00}", "%{d01}", "%{c}", "%{x}"),
    *("%%", "%_", "%-", "%", "{", "}", "_", "@", "\x7f", "é", "\t", "\n", "ı", "ſ", "٣", "192.0.2.1", "x" * 70),
]


@given(st.lists(st.sampled_from(PIECES), min_size=1, max_size=9).map("".join))
@example("a:example.org/32//128")
@example("include:a.%{d}.example-1.org.")
@example("a:%{d}.")
@example("a:x.1-1/0")
@example("a:x}")
@settings(max_examples=2000)
def test_a_term_is_right_or_wrong_wherever_it_stands(term: str) -> None:
    "What is only looked at, behind the terms that a check can get to, is held to the same grammar (RFC 7208, section 4.6)."

    def judged(before: str) -> object:
        try:
            return parse_record(f"v=spf1 {before}{term}").directives[before.count(" ") :]
        except RecordError as error:
            return str(error), error.place - len(before)

    assert judged("") == judged("mx " * (MOST_LOOKUPS + 1)), term


@pytest.mark.parametrize(
    "wrong", ["a:localhost", "mx/33", "exists:%{c}.org", "incl:x.org", "m=%", "all.", "a:" + "x." * 30_000 + "1"]
)
def test_a_mistake_behind_thousands_of_terms_is_a_permerror(wrong: str) -> None:
    "A mistake anywhere is one (RFC 7208, section 4.6), whatever matches before it."
    found = judged("v=spf1 +all " + "a:h.org " * 500 + wrong)
    assert isinstance(found.why, FaultyRecord) and found.why.place == 7 + 5 + 500 * 8 and found.why.term == wrong


@pytest.mark.parametrize("term", ["a:h{}.org ", "ip4:198.51.100.{} ", "a "])
def test_records_of_64_kB_are_taken_apart_once(monkeypatch: pytest.MonkeyPatch, term: str) -> None:
    "However often a record includes itself, and whether it may be kept or not; nor is one taken apart before its turn."
    texts: list[str] = []

    def parse(text: str) -> Any:
        texts.append(text[7:20])
        return parse_record(text)

    monkeypatch.setattr(RECORDS, "make", parse)
    RECORDS.clear()
    rest = "".join(term.format(number) for number in range(MOST // len(term) - 900))
    records = {(f"x{number}.example", "TXT"): [f"v=spf1 {number} {rest}"] for number in range(10)}
    records["example.org", "TXT"] = [f"v=spf1 include:example.org {rest}"]
    records["example.com", "TXT"] = [
        "v=spf1 a:www.example.com " + "".join(f"include:x{number}.example " for number in range(10))
    ]
    records["www.example.com", "A"] = ["192.0.2.1"]
    zone = Counting(records)
    for domain, taken in (("example.org", ["include:examp"]), ("example.com", ["a:www.example"])):
        drive(check_identity(Query("192.0.2.1", f"ana@{domain}", prefetch=True)), zone)
        assert texts == taken
        texts.clear()
    assert len(zone.ahead) > 9
    RECORDS.clear()


def test_an_error_keeps_no_frames_alive() -> None:
    "A result in a log or a list holds what it says, and not all that was on the stack when a check ended."
    for record in (
        "v=spf1 include:nowhere.example -all",
        "v=spf1 ip4:1 -all",
        "v=spf1 a:1.example a:2.example a:3.example",
    ):
        error = judged(record).error
        assert error is not None and error.__traceback__ is None and error.__context__ is None, record
