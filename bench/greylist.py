"""Greylisting in SQLite, in one process, over a file that is full: what a decision costs, against 5,000 a second.

The triplets are as a mail server meets them: most are strangers that never come back, some come back too early, some in
time, and some are known. Since the file is full, each stranger that is remembered drives out the oldest one.
"""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import Callable, Iterator
from itertools import cycle
from pathlib import Path
from time import perf_counter, process_time

from measure import Benchmark, Figure, Side, Unmeasurable, against_bound

from ra_plugins.ask.answerer import Answerers
from ra_plugins.ask.seen import WAITING, Seen, Terms
from ra_plugins.plugins.greylist import greylist
from ra_plugins.spp.session import sample_session
from ra_plugins.support.sqlite import DatabaseFile

BOUND = 1 / 5000  # seconds for a decision
KEY = 16  # bytes, of an entry's
MOST = 1_000_000  # triplets that wait, and the file has as many
DECISIONS = 1000  # in a round
TERMS = Terms(delay=300, window=2 * 86400, life=35 * 86400, proven=5)
START = 1_700_000_000  # seconds since 1970
PER_SECOND = 1  # decisions, by the clock that triplets come with
KINDS = random.Random(1).choices(("stranger", "early", "back", "known"), (70, 10, 5, 15), k=100_000)


def stream() -> Iterator[tuple[str, str, float]]:
    "Clients, senders and times, without an end. Who comes back does so after six minutes."
    chance, early, back, known = random.Random(2), [""], [("", 0.0)], ["192.0.2.1 ana0@example.net"]
    for number, kind in enumerate(cycle(KINDS)):
        now = START + number / PER_SECOND
        who = f"{chance.randrange(1, 224)}.{chance.randrange(256)}.{chance.randrange(256)}.1 a{number}x@example.net"
        if kind == "early" and early[-1]:
            who = early.pop()
        elif kind == "back" and back[0][0] and now - back[0][1] > 360:
            who, _ = back.pop(0)
            known.append(who)
        elif kind == "known":
            who = chance.choice(known[-10_000:])
        else:
            early.append(who)
            if number % 14 == 0:
                back = [*back, (who, now)] if back[0][0] else [(who, now)]
        client, _, sender = who.partition(" ")
        yield client, sender, now


def fill(answerers: Answerers) -> None:
    "Remember as many strangers as there may be, the latest an hour ago."
    answerers.tell(Seen("198.51.100.0/24", "", "", TERMS, START - 7200))
    file: DatabaseFile = answerers.find(Seen).store.file
    with file.asked(60) as database:
        database.execute("BEGIN IMMEDIATE")
        rows = ((WAITING, os.urandom(16), START - 3600 - number // 100, 0, 0) for number in range(MOST - 1))
        database.executemany("INSERT INTO entries VALUES (?, ?, ?, ?, ?)", rows)
        database.execute("COMMIT")


def taken(triplets: Iterator[tuple[str, str, float]]) -> list[tuple[str, str, float]]:
    "As many as a round has."
    return [triplet for triplet, _ in zip(triplets, range(DECISIONS), strict=False)]


def by_plugin(answerers: Answerers, clock: Callable[[], float], met: set[str]) -> Callable[[], float]:
    "The whole decision: settings, lists, question, answer and log line."
    triplets = stream()

    def log(line: str) -> None:
        met.add(line.partition(" ")[0].rstrip(","))

    def one() -> float:
        sessions = [(sample_session(client_ip=client, mail_from=sender), now) for client, sender, now in taken(triplets)]
        begin = clock()
        for session, now in sessions:
            greylist(session, log=log, answerers=answerers, now=now)
        return (clock() - begin) / DECISIONS

    return one


def by_question(answerers: Answerers, recipient: str) -> Callable[[], float]:
    "The question alone."
    triplets = stream()

    def one() -> float:
        asked = [Seen(client, sender, recipient, TERMS, now) for client, sender, now in taken(triplets)]
        begin = perf_counter()
        for seen in asked:
            answerers.tell(seen)
        return (perf_counter() - begin) / DECISIONS

    return one


def on_asyncio(answerers: Answerers, recipient: str) -> Callable[[], float]:
    "The question as a service asks it, eight at a time, each in a thread."
    triplets = stream()

    async def all_of_them(asked: Iterator[Seen]) -> None:
        async def worker() -> None:
            for seen in asked:
                await answerers.atell(seen)

        await asyncio.gather(*(worker() for _ in range(8)))

    def one() -> float:
        asked = [Seen(client, sender, recipient, TERMS, now) for client, sender, now in taken(triplets)]
        begin = perf_counter()
        asyncio.run(all_of_them(iter(asked)))
        return (perf_counter() - begin) / DECISIONS

    return one


def size(path: Path) -> float:
    "How much of the file an entry takes."
    return path.stat().st_size / MOST


def measurements(folder: Path) -> Iterator[Benchmark]:
    "All of this file."
    path, met = folder / "greylist.db", set[str]()
    with Answerers({"GREYLISTSTORE": str(path), "GREYLISTTIMEOUT": "60", "GREYLISTMOST": str(MOST)}) as answerers:
        fill(answerers)
        whole = "a decision of the plugin"
        sides: dict[str, Side] = {
            whole: by_plugin(answerers, perf_counter, met),
            "the same, by this process's CPU": by_plugin(answerers, process_time, met),
            "the question alone": by_question(answerers, "eva@example.org"),
            "the question on asyncio, eight at a time": on_asyncio(answerers, "fay@example.org"),
        }
        figures = [Figure(side, side, against_bound(side, BOUND), 1 if side == whole else None) for side in sides]
        yield Benchmark("a greylisting decision over a full file, against 0.2 ms", sides, figures, "µs")
        if missing := {"first", "too", "passed", "known"} - met:
            raise Unmeasurable(f"nothing was logged as {', '.join(missing)}")
    told: dict[str, Side] = {"an entry": lambda: size(path)}
    yield Benchmark("the file", told, [Figure("an entry", "an entry", against_bound("an entry", KEY))], "bytes", 1)
