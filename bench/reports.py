"""What a report costs: a million lines and ten million, of plugins under multilog, a quarter of them about something else.

Clients, senders and recipients are ever new ones, which is the most that a stranger can do to our memory. `python
bench/reports.py [LINES …]` by itself says lines a second of the processor's time, and the highest memory of a process.
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

from measure import Benchmark, Figure, Side, against_bound

LINES = 100_000  # in a round
BOUND = 20e-6  # seconds for a line
MEMORY = 150_000_000  # bytes, however long the log is
_BEGIN = 2**62 + 10 + 1_795_000_000


def lines(number: int) -> Iterator[str]:
    "So many lines of sessions, two seconds apart, each with a client that nobody has seen before."
    drawn = random.Random(1)
    for at in range(0, number, 4):
        pid, stamp = 1000 + at % 30_000, f"@{_BEGIN + at // 10:016x}{at:08x}"
        client = f"{drawn.randrange(1, 224)}.{drawn.randrange(256)}.{drawn.randrange(256)}.{drawn.randrange(256)}"
        who = f"user{drawn.randrange(10**9)}@example.net"
        yield f"{stamp} tcpserver: ok {pid} mail.example.org:198.51.100.1:25 :{client}::{at % 60_000}\n"
        yield f"{stamp} spfchecks: pid {pid} - Accepting on SPF_RESULT_SOFTFAIL, domain of {who} does not designate {client}\n"
        yield f"{stamp} rcptchecks: pid {pid} - 511 sorry, no mailbox here by that name ({who})\n"
        yield f"{stamp} delivery {at}: success: did_0+0+1/\n"


def write(path: Path, number: int) -> None:
    "Write a log of so many lines."
    with path.open("w") as file:
        file.writelines(lines(number))


def report(path: Path) -> tuple[float, int]:
    "Have a process report on a log; returns its seconds of the processor's time, and its highest memory in bytes."
    script = "import sys, resource; from ra_plugins.cli.report.command import main; main(sys.argv[1:])"
    script += "; used = resource.getrusage(resource.RUSAGE_SELF)"
    script += "; print(used.ru_utime + used.ru_stime, used.ru_maxrss * 1024, file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", script, str(path)], capture_output=True, text=True, check=True)
    assert "rcptchecks" in done.stdout
    seconds, memory = done.stderr.split()
    return float(seconds), int(memory)


def measurements(folder: Path) -> Iterator[Benchmark]:
    "A report on a log of `LINES` lines, and the memory that it takes."
    path = folder / "log"
    write(path, LINES)
    sides: dict[str, Side] = {"report": lambda: report(path)[0]}
    figure = Figure("a line, of what it may take", "report", against_bound("report", BOUND * LINES), 1)
    yield Benchmark(f"a report on {LINES:,} lines", sides, [figure], most=5)
    memory: dict[str, Side] = {"report": lambda: float(report(path)[1])}
    held = Figure("memory, of what it may take", "report", against_bound("report", MEMORY), 1)
    yield Benchmark(f"memory of a report on {LINES:,} lines", memory, [held], unit="bytes", most=1)


def main(numbers: list[int]) -> None:
    "Print lines a second and memory for each number of lines."
    with TemporaryDirectory() as folder:
        for number in numbers:
            path = Path(folder) / "log"
            write(path, number)
            seconds, memory = report(path)
            size = os.path.getsize(path)
            speed = f"{number / seconds:,.0f} lines a second, {memory / 1e6:.0f} MB of memory"
            print(f"{number:,} lines, {size / 1e6:,.0f} MB: {speed}", flush=True)


if __name__ == "__main__":
    main([int(each) for each in sys.argv[1:]] or [1_000_000, 10_000_000])
