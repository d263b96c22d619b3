"""Is there a mailbox? Among a million what it costs among a thousand: a CDB, vpopmail's files, a database.

Asked in one process, as in a service, about an address that isn't there and another one each time, so that nothing is
answered from what was found before. Each side is a store's answer without the way there, which is the same for all.
"""

from __future__ import annotations

import io
import sqlite3
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from time import perf_counter

from cdblib import Writer
from measure import Benchmark, Figure, Side, Unmeasurable, ratio, unheard
from scripts import users, write_cdb

from ra_plugins.ask.mailbox import Mailbox, SqlMailbox, VpopmailMailbox
from ra_plugins.ask.mailbox_sql import SqlStore
from ra_plugins.ask.question import drive, inf
from ra_plugins.ask.vpopmail import VpopmailStore
from ra_plugins.plugins.shared.mailboxes import CdbMailboxes
from ra_plugins.support.address import Address
from ra_plugins.support.control import Control

FEW, MANY = 1_000, 1_000_000  # mailboxes
BOUND = 1.2  # times what it costs among few
TIMES = 50  # lookups that are timed together
Found = Callable[[str], bool]  # of a name


def timed_lookups(found: Found, number: int) -> Callable[[], float]:
    "Look for somebody who isn't there; first, see that those who are there are found."
    if not (found("user0") and found(f"user{number - 1}")) or found("nobody"):
        raise Unmeasurable(f"the store of {number} mailboxes finds the wrong people")
    numbers = count()

    def one() -> float:
        begin = perf_counter()
        for _ in range(TIMES):
            found(f"nobody{next(numbers)}")
        return (perf_counter() - begin) / TIMES

    return one


def in_cdb(folder: Path, number: int) -> Found:
    "A list as rcptcheckscdb reads it."
    write_cdb(folder / f"{number}.cdb", users(number))
    mailboxes = CdbMailboxes(Control(str(folder)), f"{number}.cdb")
    return lambda name: bool(drive(mailboxes.find(Address(name, "example.org")), tell=None))  # type: ignore[arg-type]


def in_vpopmail(folder: Path, number: int) -> Found:
    "A domain of vpopmail's, with users/cdb and vpasswd.cdb."
    home, domain = folder / f"vpopmail{number}", folder / f"vpopmail{number}" / "example.org"
    domain.mkdir(parents=True)
    assigned = io.BytesIO()
    with Writer(assigned) as writer:
        writer.put(b"!example.org-", b"example.org\x0089\x0089\0" + str(domain).encode() + b"\0-\0\0")
    (home / "cdb").write_bytes(assigned.getvalue())
    with open(domain / "vpasswd.cdb", "wb") as file, Writer(file) as accounts:
        for each in range(number):
            accounts.put(b"user%d" % each, b"x:1:0::" + str(domain).encode() + b"/user%d:NOQUOTA" % each)
    (domain / ".qmail-default").write_text("| vdelivermail '' bounce-no-mailbox\n")
    store = VpopmailStore(VpopmailStore.settings_class({"MAILBOX_USERS": str(home)}), unheard)
    return lambda name: bool(store.answer(VpopmailMailbox(f"{name}@example.org")))


def in_database(folder: Path, number: int) -> Found:
    "A table of SQLite's, asked with a query of one's own."
    path = folder / f"{number}.db"
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE mailboxes (address TEXT PRIMARY KEY) WITHOUT ROWID")
        connection.executemany("INSERT INTO mailboxes VALUES (?)", ((address,) for address in users(number)))
    query = "SELECT 1 FROM mailboxes WHERE address = :address"
    settings = SqlStore.settings_class({"MAILBOX_SQLURL": f"sqlite:///{path}", "MAILBOX_SQLQUERY": query})
    store = SqlStore(settings, unheard)

    def found(name: str) -> bool:
        answer = store.answer(asked(name), inf)
        if isinstance(answer, Exception):
            raise Unmeasurable(f"the database says: {answer!r}")
        return bool(answer)

    def asked(name: str) -> Mailbox:
        return SqlMailbox(f"{name}@example.org")

    return found


def measurements(folder: Path) -> Iterator[Benchmark]:
    "Each kind, among few and among many."
    for title, make in (("a CDB", in_cdb), ("vpopmail's files", in_vpopmail), ("a database", in_database)):
        few, many = f"{title} of {FEW:,} mailboxes", f"{title} of {MANY:,}"
        sides: dict[str, Side] = {few: timed_lookups(make(folder, FEW), FEW), many: timed_lookups(make(folder, MANY), MANY)}
        figures = [Figure(few, few, ratio(few, few)), Figure(many, many, ratio(many, few), BOUND)]
        yield Benchmark(f"a look into {title}, against {FEW:,} mailboxes", sides, figures, "µs")
