"""What a benchmark is, and how its sides are timed: in turns, so that a busy machine is as busy for each of them.

pyperf and hyperfine do much more, but run one side to its end before the other begins, and on a machine that others
use that compares two machines (https://github.com/sharkdp/hyperfine/issues/21).
"""

from __future__ import annotations

from collections.abc import Callable
from statistics import median
from time import perf_counter
from typing import NamedTuple

# A side does once what is measured, and raises where it didn't work. What is measured is the time that it takes, in
# seconds, unless it returns a float: a server's share of the work, say, or bytes.
Side = Callable[[], object]
Times = dict[str, list[float]]  # what was measured of each side, by its name, round by round
PARTS = 3  # of a run, each judged by itself, to see by how much a figure varies


class Unmeasurable(Exception):
    "What is to be timed doesn't do its work. The text says what it did."


def unheard(message: str) -> None:
    "A log that nobody reads."


class Figure(NamedTuple):
    "What the times are turned into, and what it may be at most."

    title: str
    side: str  # whose time stands beside it in the table
    value: Callable[[Times], float]
    bound: float | None = None  # None for a figure that is there for scale


class Benchmark(NamedTuple):
    "Sides that are timed together, and what comes of it."

    title: str
    sides: dict[str, Side]
    figures: list[Figure]
    unit: str = "ms"  # in which the table shows what was measured
    most: int = 1000  # rounds, however many are asked for


class Result(NamedTuple):
    "A figure as measured."

    title: str
    level: float  # median of its side
    value: float
    lowest: float  # of the parts of the run
    highest: float
    bound: float | None

    @property
    def ok(self) -> bool:
        "Is the bound kept? One that isn't there is."
        return self.bound is None or self.value <= self.bound


def ratio(side: str, base: str) -> Callable[[Times], float]:
    "How many times as long one side takes as another: the median over the rounds, which compares neighbours in time."
    return lambda times: median(a / b for a, b in zip(times[side], times[base], strict=True))


def against_bound(side: str, bound: float) -> Callable[[Times], float]:
    "How much of what it may take, in the same unit, a side takes."
    return lambda times: median(times[side]) / bound


def timed(
    benchmark: Benchmark,
    rounds: int,
    progress: Callable[[int], object],  # is told how many rounds are done
) -> Times:
    "Time every side once in each round, the rounds forwards and backwards in turn, after one that doesn't count."
    names = list(benchmark.sides)
    times: Times = {name: [] for name in names}
    for side in benchmark.sides.values():
        side()
    for number in range(rounds):
        progress(number)
        for name in names if number % 2 else reversed(names):
            side = benchmark.sides[name]
            begin = perf_counter()
            told = side()
            times[name].append(told if isinstance(told, float) else perf_counter() - begin)
    return times


def results(benchmark: Benchmark, times: Times, rounds: int) -> list[Result]:
    "The figures of a benchmark."
    parts = min(PARTS, rounds)
    edges = [rounds * part // parts for part in range(parts + 1)]
    spans = [slice(begin, end) for begin, end in zip(edges, edges[1:], strict=False)]
    pieces = [{name: taken[span] for name, taken in times.items()} for span in spans]
    found = []
    for figure in benchmark.figures:
        values = [figure.value(piece) for piece in pieces]
        level, value = median(times[figure.side]), figure.value(times)
        found.append(Result(figure.title, level, value, min(values), max(values), figure.bound))
    return found
