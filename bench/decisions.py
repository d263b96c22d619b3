"""Decisions of plugins in one process, as a service takes them: what a long list costs once it has been read.

A list that is the same is kept, so from the second decision on its length shouldn't matter. How a CDB is looked at, by
reads and not by a map of the file, is compared with a map as well.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from functools import partial
from itertools import count
from pathlib import Path
from time import perf_counter

from cdblib import Reader
from measure import Benchmark, Figure, Side, Unmeasurable, against_bound, ratio, unheard
from scripts import users, write_cdb

from ra_plugins.plugins.rcptcheckscdb import rcptcheckscdb
from ra_plugins.plugins.rcptchecksfile import rcptchecksfile
from ra_plugins.spp.plugin import Plugin
from ra_plugins.spp.session import sample_session
from ra_plugins.support.cdb import ConstantDatabase
from ra_plugins.support.control import Control, RegularFile

LONG = 100_000  # addresses, and domains
BOUND = 0.0001  # seconds for a decision over a list that was read before
TIMES = 100  # decisions that are timed together


def refuses(plugin: Plugin, control: Control, addresses: str, name: str, domain: str) -> None:
    "Judge a mailbox that isn't there; `Unmeasurable` if that doesn't end in a refusal."
    session = sample_session(rcpt_to=f"{name}@{domain}", CHKUSER_ADDRFILE=addresses)
    if len(plugin(session, control, log=unheard)) != 2:
        raise Unmeasurable(f"{plugin.name} accepts {name}@{domain}")


def first(plugin: Plugin, folder: Path, addresses: str) -> None:
    "The first decision of a process."
    refuses(plugin, Control(str(folder)), addresses, "nobody", "example.org")


def later(plugin: Plugin, folder: Path, addresses: str, domain: str = "example.org") -> Callable[[], float]:
    "A decision of a process that has made others before, about another address each time."
    control, numbers = Control(str(folder)), count()
    refuses(plugin, control, addresses, "nobody", domain)

    def one() -> float:
        begin = perf_counter()
        for _ in range(TIMES):
            refuses(plugin, control, addresses, f"nobody{next(numbers)}", domain)
        return (perf_counter() - begin) / TIMES

    return one


def lists(folder: Path) -> Benchmark:
    "Lists that were read, beside the reading."
    domains = "".join(f"mail{each}.example.net\n" for each in range(LONG))
    (folder / "rcpthosts").write_text(f"example.org\n{domains}")
    (folder / "10").write_text("".join(f"{each}\n" for each in users(10)))
    (folder / "text").write_text("".join(f"{each}\n" for each in users(LONG)))
    write_cdb(folder / "cdb", users(LONG))
    sides: dict[str, Side] = {
        "text, the first time": partial(first, rcptchecksfile, folder, "text"),
        "10 addresses in text": later(rcptchecksfile, folder, "10"),
        "100,000 in text": later(rcptchecksfile, folder, "text"),
        "100,000 in a CDB": later(rcptcheckscdb, folder, "cdb"),
        "100,000 in text, the last of 100,000 domains": later(
            rcptchecksfile, folder, "text", f"mail{LONG - 1}.example.net"
        ),
    }
    unread, *read = sides
    figures = [Figure(unread, unread, against_bound(unread, BOUND))]
    figures += [Figure(side, side, against_bound(side, BOUND), 1) for side in read]
    return Benchmark("a decision after the first, against 0.1 ms", sides, figures, "µs")


def looks(path: Path) -> Benchmark:
    "One key in a CDB, whose file is read or mapped."
    key = f"user{LONG - 1}@example.org"
    database, mapped, file = ConstantDatabase(RegularFile(str(path))), Reader.from_file_path(path), path.open("rb")

    def kept(look: Callable[[], bool]) -> Callable[[], float]:
        def one() -> float:
            begin = perf_counter()
            for _ in range(TIMES):
                look()
            return (perf_counter() - begin) / TIMES

        return one

    def by_map() -> bool:
        "The size is asked for, since a map that is longer than its file ends the process."
        return os.fstat(file.fileno()).st_size == len(mapped.data) and mapped.get(key.encode()) is not None

    def map_anew() -> None:
        with Reader.from_file_path(path) as reader:
            reader.get(key.encode())

    sides: dict[str, Side] = {
        "by a map, kept": kept(by_map),
        "by reads, kept": kept(lambda: database.has(key)),
        "by a map, made for it": map_anew,
        "by reads, opened for it": lambda: ConstantDatabase(RegularFile(str(path))).has(key),
    }
    first_side = next(iter(sides))
    return Benchmark("a look into a CDB", sides, [Figure(side, side, ratio(side, first_side)) for side in sides], "µs")


def measurements(folder: Path) -> Iterator[Benchmark]:
    "All of this file."
    yield lists(folder)
    yield looks(folder / "cdb")
