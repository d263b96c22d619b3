"""How much memory plugins need: `python bench/memory.py [PYTHON …]`, by default this Python.

softlimit(8), as it stands in many run scripts, limits data, stack, locked pages and the total to the same number. This
does so with the programs that `ra-plugins install` writes, and says how one of them ends below each of the usual limits,
and from which limit on each plugin does its work. The plugins meet a client, and ask a nameserver that isn't there.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from itertools import groupby
from pathlib import Path
from resource import RLIM_INFINITY, RLIMIT_AS, RLIMIT_DATA, RLIMIT_MEMLOCK, RLIMIT_STACK, getrlimit, setrlimit
from tempfile import TemporaryDirectory

from ra_plugins.hosts.catalogue import OURS, catalogue
from ra_plugins.hosts.script import executable

MEGABYTE = 1_000_000  # bytes: who types 3000000 means three of these
USUAL = range(2, 18)  # megabytes, as run scripts have them, and a few more
MOST = 60  # megabytes that are tried
SECONDS = 5  # for a plugin; short of memory, Python may also hang
HUNG = 1000  # no exit status
CLIENT = {"TCPREMOTEIP": "192.0.2.1", "SMTPHELOHOST": "mail.example.net", "SMTPMAILFROM": "ana@example.net"}
NOBODY = {"CONTROLDIR": "/nowhere", "RATER": "/nowhere/rater", "DNSSERVERS": "127.0.0.1#9", "DNSTIMEOUT": "1"}


def soft_limit(limited: int) -> None:
    "Limit this process as `softlimit -m` does; `limited` is in bytes."
    for which in (RLIMIT_DATA, RLIMIT_STACK, RLIMIT_MEMLOCK, RLIMIT_AS):
        hard = getrlimit(which)[1]
        setrlimit(which, (limited if hard == RLIM_INFINITY else min(limited, hard), hard))


def run(program: Path, megabytes: int) -> tuple[int, str]:
    "Exit status and log of a program below a limit."
    try:
        done = subprocess.run(
            [program],
            env={**CLIENT, **NOBODY},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=False,
            preexec_fn=partial(soft_limit, megabytes * MEGABYTE),
        )
    except subprocess.TimeoutExpired:
        return HUNG, ""
    return done.returncode, done.stderr


def works(program: Path, megabytes: int) -> bool:
    "Does a plugin do its work below a limit?"
    status, log = run(program, megabytes)
    return status == 0 and "so the mail goes on" not in log and "without its last bound" not in log


def enough(works_with: Callable[[int], bool]) -> int:
    "The number of megabytes from which on each will do. One below it may: memory comes in large pieces."
    return next((megabytes + 1 for megabytes in range(MOST, 0, -1) if not works_with(megabytes)), 1)


def ending(status: int, log: str) -> str:
    "What the end of a program means to qmail-smtpd."
    if status == HUNG:
        return "hangs, and the client with it"
    if status < 0:
        return f"dies by signal {-status}: 451 for every client"
    if status:
        return f"ends with status {status}: mail passes unchecked"
    return "logs that it can't: mail passes unchecked" if "so the mail goes on" in log else "answers"


def endings(program: Path) -> Iterator[str]:
    "How a program ends below the usual limits."
    for how, some in groupby(USUAL, lambda megabytes: ending(*run(program, megabytes))):
        limits = list(some)
        yield f"  {limits[0]} to {limits[-1]} MB: {how}"


def report(python: str, folder: Path) -> Iterator[str]:
    "What a Python needs."
    found = catalogue()
    needed: dict[str, int] = {}
    for name in (name for name, origin in found.origins.items() if origin == OURS):
        program = folder / name
        program.write_text(executable(found[name], python=python))
        program.chmod(0o755)
        run(program, MOST)  # once, so that bytecode is there
        needed[name] = enough(partial(works, program))
    yield python
    yield from endings(folder / "rcptchecksfile")
    for megabytes, names in groupby(sorted(needed, key=lambda name: needed[name]), lambda name: needed[name]):
        yield f"  from {megabytes} MB on: {', '.join(sorted(names))}"


if __name__ == "__main__":
    for each in sys.argv[1:] or [os.path.realpath(sys.executable)]:
        with TemporaryDirectory() as made:
            print(*report(each, Path(made)), sep="\n")
