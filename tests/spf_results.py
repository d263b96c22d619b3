"""All that the result of a check says, in a form that can be compared."""

from __future__ import annotations

from typing import Any

from ra_plugins.spf.check import Result, Visit


def whole(found: Result) -> tuple[Any, ...]:
    "Result, reasons, explanation, counts, and the trace with every lookup in its place."
    counts = found.lookups, found.voids
    return found.result, found.problem, found.problem_text, found.explanation, found.mechanism, counts, visits(found.trace)


def visits(visit: Visit) -> list[Any]:
    inner = [*visit.visits.values(), *([visit.redirected] if visit.redirected else [])]
    return [visit.domain, visit.result, visit.problem, visit.matched, visit.asked, [visits(each) for each in inner]]
