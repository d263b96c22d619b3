"""The compiled package beside the plain one, and both beside their peers: the same work, in a process each, in turns.

SPF checks over two zones, as in `spf_checks.py`; rater's answers without a server around them, and with one, as in
`rater.py`; the service's verdicts; and how long it takes to load an SPF check, since a script does that for each command.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path

from measure import Benchmark, Figure, Side, Times, Unmeasurable, ratio

ROOT = Path(__file__).resolve().parent.parent
QUESTIONS = 5000  # in a round
REQUESTS = 200  # to the service, likewise; each has ten plugins
PLAIN, COMPILED = "plain", "compiled"


def rater_alone() -> Callable[[], object]:
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


PASSES = {"nothing kept": 3, "records kept": 15}  # over the checks, where pyspf makes one
LARGE, USUAL = "SPF over the records of large senders", "SPF over records as they usually are"
BOUNDS = {(USUAL, "nothing kept"): 100 / 6, (USUAL, "records kept"): 100 / 18}  # per cent of pyspf's time
RATER = f"{QUESTIONS:,} questions to rater, read and judged"


def works() -> dict[str, Callable[[], object]]:
    "What is measured, by its name."
    import spf_checks

    found = {RATER: rater_alone()}
    for title, records in ((LARGE, spf_checks.LARGE), (USUAL, spf_checks.USUAL)):
        found[f"{title}, pyspf"] = spf_checks.theirs(records)
        for how, passes in PASSES.items():
            found[f"{title}, {how}"] = spf_checks.ours(records, passes, cached=how == "records kept")
    return found


def serve() -> None:
    "In a process of its own: do what each line names, and say how much processor time that took."
    from time import process_time

    from ra_plugins.support.compiled import compiled_modules

    known = works()
    print(len(compiled_modules()), flush=True)
    for line in sys.stdin:
        begin = process_time()
        known[line.rstrip("\n")]()
        print(process_time() - begin, flush=True)


def of_package(package: Path) -> dict[str, str]:
    "The environment in which a process has the package in a folder, whatever folder it is started in."
    return {**os.environ, "PYTHONPATH": f"{package}:{ROOT / 'bench'}", "PYTHONSAFEPATH": "1"}


def worker(stack: ExitStack, package: Path, compiled: bool) -> Callable[[str], Side]:
    "A process with the package in a folder; what it gives makes a side of a work's name."
    command = [sys.executable, str(Path(__file__).resolve())]
    pipe = subprocess.PIPE
    process = subprocess.Popen(command, env=of_package(package), stdin=pipe, stdout=pipe, text=True)
    stack.enter_context(process)
    stack.callback(process.kill)
    assert process.stdin and process.stdout
    to, back = process.stdin, process.stdout
    if (int(back.readline() or -1) > 0) != compiled:
        raise Unmeasurable(f"the package in {package} should be {'compiled' if compiled else 'plain'}")

    def side(name: str) -> Side:
        def run() -> float:
            to.write(name + "\n")
            to.flush()
            told = back.readline()
            if not told:
                raise Unmeasurable(f"{name} has failed")
            return float(told)

        return run

    return side


def against_plain() -> Figure:
    "The compiled side's share of the plain one's time."
    return Figure("compiled / plain", COMPILED, ratio(COMPILED, PLAIN), 1)


def of_pyspf(side: str, passes: int, bound: float | None = None) -> Figure:
    "A check's share of pyspf's time, in per cent."

    def value(times: Times) -> float:
        return 100 * ratio(side, "pyspf")(times) / passes

    return Figure(f"{side}, a check, per cent of pyspf's time", side, value, bound)


def checks(plain: Callable[[str], Side], compiled: Callable[[str], Side]) -> Iterator[Benchmark]:
    "SPF beside pyspf."
    for title in (LARGE, USUAL):
        for how, passes in PASSES.items():
            name = f"{title}, {how}"
            sides = {"pyspf": plain(f"{title}, pyspf"), PLAIN: plain(name), COMPILED: compiled(name)}
            bound = BOUNDS.get((title, how))
            figures = [against_plain(), of_pyspf(PLAIN, passes), of_pyspf(COMPILED, passes, bound)]
            yield Benchmark(name, sides, figures)


def raters(folder: Path, packages: dict[str, Path]) -> Iterator[Benchmark]:
    "rater as a server, beside a window in Redis."
    from rater import kept_open, one_at_a_time, one_connection_each, rater, redis

    with ExitStack() as stack:
        peers = {"Redis": redis(stack)}
        for name, package in packages.items():
            (folder / name).mkdir()
            peers[name] = rater(stack, folder / name, **of_package(package))
        for title, side, what, bound in (
            ("a connection for each question, 8 at once", one_connection_each, "CPU", 0.65),
            ("a connection for each question, one at a time", one_at_a_time, "median wait", 1.0),
            ("many questions on a connection", partial(kept_open, stack=stack), "time", 1.1),
        ):
            figures = [
                Figure(f"{what}, plain / Redis", PLAIN, ratio(PLAIN, "Redis")),
                Figure(f"{what}, compiled / Redis", COMPILED, ratio(COMPILED, "Redis"), bound),
            ]
            yield Benchmark(f"rater: {title}", {name: side(peer) for name, peer in peers.items()}, figures, "µs")


def a_second(side: str, times: Times) -> float:
    "Verdicts a second."
    from statistics import median

    return 10 * REQUESTS / median(times[side])


def services(folder: Path, packages: dict[str, Path]) -> Iterator[Benchmark]:
    "The service, ten plugins a command."
    from service import ENVIRON, SECTIONS
    from service_process import Service

    from ra_plugins.hosts.service.request import ServiceRequest

    sections = "".join(f"[{stage}]\n" + "".join(f"{name}\n" for name in names) for stage, names in SECTIONS.items())
    requests = [
        ServiceRequest(
            "at-mail", 1, {**ENVIRON, "SMTPRCPTTO": f"user{number}@example.org", "TCPREMOTEIP": f"192.0.2.{number}"}
        ).pack()
        for number in range(REQUESTS)
    ]

    def side(service: Service) -> Side:
        def run() -> None:
            for request in requests:
                with service.connect() as connection:
                    connection.sendall(request)
                    if not connection.recv(1 << 16):
                        raise Unmeasurable("the service doesn't answer")

        return run

    with ExitStack() as stack:
        sides = {}
        for name, package in packages.items():
            (folder / f"service-{name}").mkdir()
            control = {"atplugins": sections, "me": "mail.example.org\n"}
            found = of_package(package)["PYTHONPATH"]
            service = Service(folder / f"service-{name}", control=control, PYTHONPATH=found, PYTHONSAFEPATH="1")
            sides[name] = side(stack.enter_context(service))
        figures = [
            Figure("compiled / plain", COMPILED, ratio(COMPILED, PLAIN)),
            *(Figure(f"{name}: verdicts a second", name, partial(a_second, name)) for name in packages),
        ]
        yield Benchmark("the service, ten plugins a command, one at a time", sides, figures)


def loading(packages: dict[str, Path]) -> Benchmark:
    "A process that loads an SPF check, and ends."

    def side(package: Path) -> Side:
        command = [sys.executable, "-c", "import ra_plugins.spf.evaluation"]
        return partial(subprocess.run, command, env=of_package(package), check=True)

    figure = Figure("compiled / plain", COMPILED, ratio(COMPILED, PLAIN), 1.15)
    return Benchmark("to load an SPF check", {name: side(each) for name, each in packages.items()}, [figure])


def measurements(folder: Path) -> Iterator[Benchmark]:
    "What is measured here."
    sys.path.insert(0, str(ROOT / "tools"))
    from compiled_copy import compiled_package

    packages = {PLAIN: ROOT, COMPILED: compiled_package(ROOT / ".compiled")}
    with ExitStack() as stack:
        plain, compiled = (worker(stack, package, name == COMPILED) for name, package in packages.items())
        yield from checks(plain, compiled)
        yield Benchmark(RATER, {PLAIN: plain(RATER), COMPILED: compiled(RATER)}, [against_plain()])
    yield loading(packages)
    yield from raters(folder, packages)
    yield from services(folder, packages)


if __name__ == "__main__":
    serve()
