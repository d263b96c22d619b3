"""RaSPF beside pyspf: processor time for the 203 cases of OpenSPF's suite for RFC 7208, both in memory.

Its records are short, and many are wrong. The bound is for parsed records that are kept, as they are by default.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import spf as pyspf
from measure import Benchmark, Figure, Times, Unmeasurable, ratio

sys.path.append(str(Path(__file__).resolve().parent.parent / "tests"))

from spf_peer import Resolver
from spf_suites import Case, missing, suite

from ra_plugins.ask.dns import Lookup, Zone
from ra_plugins.ask.question import drive
from ra_plugins.spf import evaluation
from ra_plugins.spf.evaluation import check_identity
from ra_plugins.spf.query import Query
from ra_plugins.spf.record import kept_record, parse_record

PASSES = {"pyspf": 1, "RaSPF": 3, "RaSPF, records kept": 4}  # over the cases, so that a side's turns are about as long


Answers = dict[tuple[str, str], Any]  # by name and type


class Remembered(Zone):
    "A zone whose answers are made once."

    def __init__(self, zone: Zone):
        super().__init__(zone.records)
        self.zone, self.answers = zone, Answers()

    def answer(self, lookup: Lookup) -> Any:
        if lookup.key not in self.answers:
            self.answers[lookup.key] = self.zone.answer(lookup)
        return self.answers[lookup.key]


class RememberedByPyspf:
    "The same, in the form in which pyspf's resolver gives answers."

    def __init__(self, zone: Zone):
        self.resolver, self.answers = Resolver(zone, links=True), Answers()

    def __call__(self, name: str, rdtype: str, *arguments: Any) -> Any:
        if (name, rdtype) not in self.answers:
            try:
                self.answers[name, rdtype] = self.resolver(name, rdtype)
            except pyspf.TempError as error:
                self.answers[name, rdtype] = error
        answer = self.answers[name, rdtype]
        if isinstance(answer, pyspf.TempError):
            raise answer
        return answer


def ours(cases: list[Case], passes: int, cached: bool) -> Callable[[], object]:
    "All cases, by RaSPF, with parsed records kept or not."
    prepared = [(*case.who, Remembered(case.zone), case.wanted) for case in cases] * passes

    def run() -> None:
        setattr(evaluation, "kept_record", kept_record if cached else parse_record)  # noqa: B010
        for ip, sender, helo, zone, wanted in prepared:
            found = drive(check_identity(Query(ip, sender, helo)), zone)
            assert found.result in wanted, (ip, sender, found)

    return run


def theirs(cases: list[Case]) -> Callable[[], object]:
    "All cases, by pyspf."
    prepared = [(*case.who, RememberedByPyspf(case.zone), case.wanted) for case in cases]

    def run() -> None:
        for ip, sender, helo, answers, wanted in prepared:
            pyspf.DNSLookup = answers
            found = pyspf.query(i=ip, s=sender, h=helo).check()
            assert found[0] in wanted, (ip, sender, found)

    return run


def share(side: str) -> Callable[[Times], float]:
    "The time for a check, of pyspf's."
    return lambda times: ratio(side, "pyspf")(times) / PASSES[side]


def measurements(folder: Path) -> Iterator[Benchmark]:
    "What is measured here."
    if missing("rfc7208"):
        raise Unmeasurable(missing("rfc7208"))
    cases = suite("rfc7208")
    sides = {
        "pyspf": theirs(cases),
        "RaSPF": ours(cases, PASSES["RaSPF"], cached=False),
        "RaSPF, records kept": ours(cases, PASSES["RaSPF, records kept"], cached=True),
    }
    figures = [
        Figure("a check, nothing kept, of pyspf's time", "RaSPF", share("RaSPF")),
        Figure("a check, parsed records kept", "RaSPF, records kept", share("RaSPF, records kept"), 1 / 2),
    ]
    yield Benchmark("the 203 cases of the suite for RFC 7208", sides, figures)
