"""Measure: `python bench/run.py [--rounds N] [--json] [NAME …]`. Exit status 1 where a bound isn't kept.

A benchmark that lacks a program or a package (`needs.py`) is left out: the others are measured, what is missing is said by
name, and the exit status is 3, as it is where something that is measured doesn't do its work.

A benchmark is a file in this folder with a function `measurements(folder)`, which yields `Benchmark`s. All figures
are ratios of times taken in one run on one machine, so they can be compared with those of another.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
from collections.abc import Iterator, Sequence
from importlib import import_module
from pathlib import Path
from subprocess import CalledProcessError
from tempfile import TemporaryDirectory
from typing import Any

from measure import Benchmark, Result, Unmeasurable, results, timed
from needs import missing

HERE = Path(__file__).resolve().parent
NAMES = sorted(path.stem for path in HERE.glob("*.py") if path.stem not in ("run", "measure", "memory", "needs"))
UNITS = {"ms": 1000, "µs": 1_000_000, "bytes": 1}  # of what is measured in seconds, or told by a side
MISSED, UNMEASURED, INTERRUPTED = 1, 3, 130  # exit statuses; argparse's own, for a wrong command line, is 2


def show(progress: str) -> None:
    "On a terminal, and nowhere else, say what is being done."
    if sys.stderr.isatty():
        print(f"\r\033[K{progress}", end="", file=sys.stderr, flush=True)


def measured(name: str, benchmark: Benchmark, rounds: int) -> tuple[str, Benchmark, list[Result]]:
    "Run a benchmark: its file's name, what it is, its figures."
    title, rounds = f"{name}: {benchmark.title}", min(rounds, benchmark.most)
    times = timed(benchmark, rounds, lambda done: show(f"{title}: round {done + 1} of {rounds}"))
    show("")
    return name, benchmark, results(benchmark, times, rounds)


def all_measured(names: Sequence[str], rounds: int) -> Iterator[tuple[str, Benchmark, list[Result]]]:
    "Run the benchmarks of several files."
    for name in names:
        with TemporaryDirectory() as folder:
            for benchmark in import_module(name).measurements(Path(folder)):
                yield measured(name, benchmark, rounds)


def table(name: str, benchmark: Benchmark, found: list[Result]) -> str:
    "The figures of a benchmark, for people."
    scale = UNITS[benchmark.unit]
    lines = [f"{name}: {benchmark.title}", f"  {'':50}{benchmark.unit:>9}{'ratio':>8}{'varied':>20}  bound"]
    for each in found:
        varied = f"{each.lowest:.2f} to {each.highest:.2f}"
        bound = "" if each.bound is None else f"  {each.bound:<6g}{'ok' if each.ok else 'OVER'}"
        lines.append(f"  {each.title:50}{each.level * scale:9.1f}{each.value:8.2f}{varied:>20}{bound}")
    return "\n".join(lines) + "\n"


def data(name: str, benchmark: Benchmark, found: list[Result]) -> dict[str, Any]:
    "The same, for programs."
    figures = [{**each._asdict(), "ok": each.ok} for each in found]
    return {"file": name, "title": benchmark.title, "unit": benchmark.unit, "figures": figures}


def positive(text: str) -> int:
    "A number of rounds."
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError(f"{text!r} should be a whole number from 1")
    return int(text)


def main() -> int:
    "Run the benchmarks that the command line names, or all."
    parser = argparse.ArgumentParser(description="Measure ra-plugins against others, as ratios in one run.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(NAMES)}; without any, all")
    parser.add_argument(
        "--rounds", type=positive, default=50, metavar="N", help="how often each side runs (%(default)s)"
    )
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    options = parser.parse_args()
    if unknown := [name for name in options.names if name not in NAMES]:
        parser.error(f"no benchmark {', '.join(unknown)}; there are {', '.join(NAMES)}")
    lacking = {name: needs for name in options.names or NAMES if (needs := missing(name))}
    for name, needs in lacking.items():
        print(f"bench: {name} isn't measured without {', '.join(needs)}", file=sys.stderr)
    gathered, ok = [], True
    for each in all_measured([name for name in options.names or NAMES if name not in lacking], options.rounds):
        ok = ok and all(result.ok for result in each[2])
        gathered.append(data(*each))
        if not options.json:
            print(table(*each), flush=True)
    if options.json:
        told = {"python": platform.python_version(), "machine": platform.machine(), "rounds": options.rounds}
        print(json.dumps({**told, "benchmarks": gathered}, indent=2))
    return MISSED if not ok else UNMEASURED if lacking else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (Unmeasurable, CalledProcessError, OSError) as error:
        print(f"bench: {error}", file=sys.stderr)
        sys.exit(UNMEASURED)
    except KeyboardInterrupt:
        show("")
        sys.exit(INTERRUPTED)
