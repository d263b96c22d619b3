"""Plugins as qmail-smtpd starts them: a new process for each SMTP command.

Under qmail-spp that start is what a plugin costs, so it is measured whole, from the start of the process to its end.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterable, Iterator
from functools import partial
from itertools import count
from pathlib import Path

from cdblib import Writer
from measure import Benchmark, Figure, Side, Times, Unmeasurable, ratio

from ra_plugins.cli.install import install

START_BOUND = 4  # times bare Python
SAME_BOUND = 1.1  # "the same", within a tenth
GROWTH_BOUND = 1.5  # "in proportion", with room for noise; a cost that grew with the square would give 10
BARE = [sys.executable, "-I", "-S", "-c"]
QUIET = [  # standard input closed, as qmail-smtpd leaves it, and what is printed thrown away
    (os.POSIX_SPAWN_CLOSE, 0),
    (os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0),
    (os.POSIX_SPAWN_OPEN, 2, os.devnull, os.O_WRONLY, 0),
]
Environ = dict[str, str]
SESSION = {
    "TCPREMOTEIP": "192.0.2.1",
    "SMTPHELOHOST": "mail.example.net",
    "SMTPMAILFROM": "ana@example.net",
    "SMTPRCPTTO": "ben@example.org",
    "SMTPRCPTCOUNT": "0",
    "SMTPRCPTCOUNTALL": "1",
    "SMTPRCPTHOSTSOK": "1",
}
PLUGINS: dict[str, tuple[Environ, str, str]] = {  # those that ask nobody: of the session, the answer, the log
    "authlogger": ({"SMTPAUTHUSER": "ben"}, "", "authenticated as ben from 192.0.2.1"),
    "dotblind": ({"SMTPRCPTTO": "b.en@example.org"}, "Cben@example.org", "changed b.en@example.org to ben@example.org"),
    "localmail": (
        {"SMTPAUTHUSER": "ben", "SMTPRCPTTO": "eva@example.com"},
        "E550 You are only allowed to send to local addresses.",
        "blocked from ben to eva@example.com",
    ),
    "msa": ({}, "E550 You should be authenticated", "Message rejected (no auth)."),
    "overload": ({}, "R451 Temporary Failure: Server overload", "Temporary Failure: Server overload"),
    "plusaliases": (
        {"SMTPRCPTTO": "ben+tea@example.org"},
        "Cben@example.org",
        "changed ben+tea@example.org to ben@example.org",
    ),
    "tarpit": ({"SMTPRCPTCOUNTALL": "49"}, "", ""),
}
CONTROL = {"rcpthosts": "example.org\n", "localonly": "ben\n", "overloaded": ""}
LEAST = 0.01  # growth that can't be told from none
LENGTHS = (0, 1_000, 10_000, 100_000)  # of address lists


def run(program: str, *arguments: str, environ: Environ) -> None:
    "Run a program to its end; `Unmeasurable` where that isn't a good one."
    child = os.posix_spawn(program, [program, *arguments], environ, file_actions=QUIET)
    if status := os.waitpid(child, 0)[1]:
        raise Unmeasurable(f"{program} ended with status {status}")


def check(program: Path, environ: Environ, answer: str, message: str) -> None:
    "Does the program answer and log this? `Unmeasurable` otherwise: one that fails at once is quick."
    done = subprocess.run([program], env=environ, stdin=subprocess.DEVNULL, capture_output=True, check=False)
    logged = f"{program.name}: pid {os.getpid()} - {message}\n" if message else ""
    if (done.returncode, done.stdout.decode(), done.stderr.decode()) != (0, answer and answer + "\n", logged):
        raise Unmeasurable(
            f"{program.name} ends with {done.returncode}: {done.stdout!r}, and in the log {done.stderr!r}"
        )


def starts(folder: Path) -> Benchmark:
    "Plugins that look at their environment, and at a control file or two."
    imports = {"bare Python": "pass", "import os": "import os", "import asyncio": "import asyncio"}
    sides: dict[str, Side] = {name: partial(run, *BARE, text, environ=SESSION) for name, text in imports.items()}
    for name, (values, answer, message) in PLUGINS.items():
        environ = {**SESSION, "CONTROLDIR": str(folder), **values}
        check(folder / name, environ, answer, message)
        sides[name] = partial(run, str(folder / name), environ=environ)
    bounds = dict.fromkeys(PLUGINS, START_BOUND)
    figures = [Figure(name, name, ratio(name, "bare Python"), bounds.get(name)) for name in sides]
    return Benchmark("the start of a plugin, against python -I -S -c pass", sides, figures)


def lookups(name: str, folder: Path, addresses: str) -> Side:
    "Look up, in the list `addresses`, a mailbox that isn't there: another one each time."
    environ = {**SESSION, "CONTROLDIR": str(folder), "CHKUSER_ADDRFILE": addresses}
    refusal = "511 sorry, no mailbox here by that name"
    answer = f"SWRONGRCPTCOUNT=1\nE{refusal} (#5.1.1 - {name})"
    check(folder / name, {**environ, "SMTPRCPTTO": "x@example.org"}, answer, f"{refusal} (x@example.org)")
    numbers = count()
    return lambda: run(str(folder / name), environ={**environ, "SMTPRCPTTO": f"nobody{next(numbers)}@example.org"})


def users(number: int) -> Iterator[str]:
    "So many addresses."
    return (f"user{each}@example.org" for each in range(number))


def compiled(folder: Path, compiler: str, source: str, name: str) -> Path:
    "A program in C, made by a compiler with its options."
    text, program = folder / f"{name}.c", folder / name
    text.write_text(source)
    subprocess.run([*compiler.split(), "-O2", "-s", "-o", program, text], check=True)
    return program


def write_cdb(path: Path, addresses: Iterable[str]) -> None:
    "Make a CDB of addresses."
    with path.open("wb") as file, Writer(file) as writer:
        for address in addresses:
            writer.put(address.encode(), b"")


def in_cdb(folder: Path) -> Benchmark:
    "A long list against a short one, where length shouldn't matter."
    short, long = "10 addresses", "100,000 addresses"
    sides = {}
    for title, number in ((short, 10), (long, 100_000)):
        write_cdb(folder / f"{number}.cdb", users(number))
        sides[title] = lookups("rcptcheckscdb", folder, f"{number}.cdb")
    figures = [Figure(short, short, ratio(short, short)), Figure(long, long, ratio(long, short), SAME_BOUND)]
    return Benchmark("rcptcheckscdb, against 10 addresses", sides, figures)


def in_text(folder: Path) -> Benchmark:
    "Lists of several lengths, where the time should be that of the start and so much for each address."
    sides = {}
    for number in LENGTHS:
        (folder / f"{number}.txt").write_text("".join(f"{address}\n" for address in users(number)))
        sides[f"{number:,} addresses"] = lookups("rcptchecksfile", folder, f"{number}.txt")
    empty, short, middle, long = sides

    def growth(side: str, times: Times) -> float:
        return ratio(side, empty)(times) - 1

    def off_line(times: Times) -> float:
        "The time of the shortest list, against a straight line from the empty one to the longest."
        return (1 + growth(short, times)) / (1 + growth(long, times) / 100)

    def of_an_address(times: Times) -> float:
        "What an address costs in the longest list, against one in a list a tenth as long."
        return growth(long, times) / 10 / max(growth(middle, times), LEAST)

    figures = [Figure(title, title, ratio(title, empty)) for title in sides]
    figures.append(Figure("1,000, against a straight line from 0 to 100,000", short, off_line, SAME_BOUND))
    figures.append(Figure("each of 100,000, against each of 10,000", long, of_an_address, GROWTH_BOUND))
    return Benchmark("rcptchecksfile, against an empty list", sides, figures)


def measurements(folder: Path) -> Iterator[Benchmark]:
    "The benchmarks of this file. `folder` is empty, and thrown away afterwards."
    for name, text in CONTROL.items():
        (folder / name).write_text(text)
    install(str(folder), [*PLUGINS, "rcptcheckscdb", "rcptchecksfile"])
    yield starts(folder)
    yield in_cdb(folder)
    yield in_text(folder)
