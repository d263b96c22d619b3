"""All that the result of a check says, in a form that can be compared."""

from __future__ import annotations

from typing import Any

from ra_plugins.spf.result import Result
from ra_plugins.spf.trace import Visit


def whole(found: Result) -> tuple[Any, ...]:
    "Result, reasons, explanation, counts, and the trace with every lookup in its place."
    counts, why = (found.lookups, found.voids), found.why.data()
    return found.result, found.problem, found.problem_text, found.explanation, found.mechanism, counts, why, visits(found.trace)


def visits(visit: Visit) -> list[Any]:
    asked = [(*each, answer if isinstance(answer, int) else (type(answer), str(answer))) for *each, answer in visit.asked]
    inner = [visits(each) for each in visit.inner()]
    return [visit.domain, visit.result, str(visit.error), visit.matched, asked, inner]
