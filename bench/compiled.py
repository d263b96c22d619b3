"""The compiled package beside the plain one: the same work, in a process each, in turns.

Two zones of SPF checks, as in `spf_checks.py`, and rater's answers without a server around them.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

from measure import Benchmark, Figure, Side, Unmeasurable, ratio

ROOT = Path(__file__).resolve().parent.parent
QUESTIONS = 5000  # in a round


def rater() -> Callable[[], object]:
    "Questions read and judged, one by one, with their marks in memory."
    from ra_plugins.rater.limits import Limit, Rule, RuleBook
    from ra_plugins.rater.memory import Memory
    from ra_plugins.rater.protocol import Rater, read_request

    asked = Rater(RuleBook({"ip": [Rule("*", [Limit(10, 60)])]}), Memory())
    lines = [f"ip 192.0.{number // 256 % 256}.{number % 256}".encode() for number in range(QUESTIONS)]

    def run() -> None:
        for line in lines:
            assert asked.answers([read_request(line)])

    return run


def works() -> dict[str, Callable[[], object]]:
    "What is measured, by its name."
    from spf_checks import LARGE, USUAL, ours

    return {
        "large, nothing kept": ours(LARGE, 2, cached=False),
        "large, records kept": ours(LARGE, 10, cached=True),
        "usual, nothing kept": ours(USUAL, 4, cached=False),
        "usual, records kept": ours(USUAL, 20, cached=True),
        "rater": rater(),
    }


TITLES = {
    "large, nothing kept": "SPF over the records of large senders, nothing kept",
    "large, records kept": "SPF over the records of large senders, records kept",
    "usual, nothing kept": "SPF over records as they usually are, nothing kept",
    "usual, records kept": "SPF over records as they usually are, records kept",
    "rater": f"{QUESTIONS:,} questions to rater, read and judged",
}


def serve() -> None:
    "In a process of its own: do what each line names, and say when it is done."
    from ra_plugins.support.compiled import compiled_modules

    known = works()
    print(len(compiled_modules()), flush=True)
    for line in sys.stdin:
        known[line.rstrip("\n")]()
        print("done", flush=True)


def worker(stack: ExitStack, package: Path, compiled: bool) -> Callable[[str], Side]:
    "A process with the package in a folder; what it gives makes a side of a work's name."
    environ = {**os.environ, "PYTHONPATH": f"{package}:{ROOT / 'bench'}"}
    command = [sys.executable, str(Path(__file__).resolve())]
    pipe = subprocess.PIPE
    process = stack.enter_context(subprocess.Popen(command, env=environ, stdin=pipe, stdout=pipe, text=True))
    stack.callback(process.kill)
    assert process.stdin and process.stdout
    to, back = process.stdin, process.stdout
    if (int(back.readline() or -1) > 0) != compiled:
        raise Unmeasurable(f"the package in {package} should be {'compiled' if compiled else 'plain'}")

    def side(name: str) -> Side:
        def run() -> None:
            to.write(name + "\n")
            to.flush()
            if back.readline() != "done\n":
                raise Unmeasurable(f"{name} has failed")

        return run

    return side


def measurements(folder: Path) -> Iterator[Benchmark]:
    "What is measured here."
    sys.path.insert(0, str(ROOT / "tools"))
    from compiled_copy import compiled_package

    with ExitStack() as stack:
        plain = worker(stack, ROOT, compiled=False)
        compiled = worker(stack, compiled_package(ROOT / ".compiled"), compiled=True)
        for name, title in TITLES.items():
            figure = Figure("compiled / plain", "compiled", ratio("compiled", "plain"), 1)
            yield Benchmark(title, {"plain": plain(name), "compiled": compiled(name)}, [figure])


if __name__ == "__main__":
    serve()
