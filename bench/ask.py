"""What asking costs: many sessions at once, a rater that is silent, `await` beside `yield`, one question by each driver."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Coroutine, Generator, Iterator
from math import inf
from pathlib import Path
from statistics import median
from time import monotonic
from typing import Any

from measure import Benchmark, Figure, Side, Times, Unmeasurable, ratio

from ra_plugins.ask.answerer import Answerer, Answerers
from ra_plugins.ask.question import Late, Question, Unanswered, adrive, drive, gather
from ra_plugins.ask.rate import Rate
from ra_plugins.spp.command import Command, Refuse
from ra_plugins.spp.plugin import plugin
from ra_plugins.spp.session import Session, sample_session

SESSIONS = 1000
SECONDS = 0.6  # for all of them, where a list is silent and nobody waits for longer than 0.3
SILENT_BOUND = 1.2  # five sessions that wait for the same second, against one
QUESTIONS = 10_000  # for what takes microseconds
LISTS = ("one.example", "two.example", "silent.example")


# A thousand sessions


class Listed(Question[bool]):
    "Is an address on a list?"

    answerer = f"{__name__}:Lists"

    def __init__(self, name: str):
        self.name = name


class Lists(Answerer):
    "Two lists that answer after ten milliseconds, and one that never does."

    async def aanswer(self, question: Listed, until: float) -> bool:
        "It is."
        await asyncio.sleep(3600 if question.name == "silent.example" else 0.01)
        return True


@plugin("connection", asks=(Listed,), answers=(Refuse,))
async def listed_twice(session: Session) -> Command | None:
    "Refuse a client that two lists know."
    answers = await gather(*(Listed(name) for name in LISTS), within=0.3)
    return Refuse(550, "5.7.1", "listed") if answers[:2] == (True, True) and isinstance(answers[2], Late) else None


async def all_decided(sessions: int) -> None:
    "Let so many sessions decide at once."
    async with Answerers() as answerers:
        found = await asyncio.gather(
            *(listed_twice.adecide(sample_session(), answerers=answerers) for _ in range(sessions))
        )
    if not all(found):
        raise Unmeasurable(f"{found.count([])} of {sessions} sessions came out wrong")


def level(side: str, scale: float = 1) -> Callable[[Times], float]:
    "The time of a side by itself, in seconds, where what is promised is a time."
    return lambda times: median(times[side]) * scale


def thousand() -> Benchmark:
    "Sessions that ask three lists, of which one is silent."
    one, many = "1 session", f"{SESSIONS:,} sessions"
    sides: dict[str, Side] = {
        one: lambda: asyncio.run(all_decided(1)),
        many: lambda: asyncio.run(all_decided(SESSIONS)),
    }
    figures = [Figure(one, one, ratio(one, one)), Figure(many, many, ratio(many, one))]
    figures.append(Figure(f"{many}, in seconds", many, level(many), SECONDS))
    return Benchmark("three lists, one silent, within 0.3 s, against one session", sides, figures, most=10)


# A rater that is silent


@plugin("connection", asks=(Rate,))
async def asks_rater(session: Session) -> Command | None:
    "Ask, and refuse with the reason if nobody answers."
    try:
        await Rate("ip", "192.0.2.1")
    except Unanswered as why:
        return Refuse(450, None, str(why))
    return None


async def all_waited(sessions: int, address: str) -> None:
    "Let so many sessions wait for rater at once, each for a second."
    environ = {"RATER": address, "RATERTIMEOUT": "1"}
    async with Answerers(environ) as answerers:
        found = await asyncio.gather(
            *(asks_rater.adecide(sample_session(), answerers=answerers) for _ in range(sessions))
        )
    if not all(answer and "timed out" in answer[0].text for answer in found):
        raise Unmeasurable(f"a rater that should have been silent for a second: {found}")


def silent_rater(listener: socket.socket) -> Benchmark:
    "Sessions that ask a rater which takes connections and says nothing."
    address = "{}:{}".format(*listener.getsockname())
    sides: dict[str, Side] = {
        "1 session": lambda: asyncio.run(all_waited(1, address)),
        "5 sessions": lambda: asyncio.run(all_waited(5, address)),
    }
    figures = [
        Figure("1 session", "1 session", ratio("1 session", "1 session")),
        Figure("5 sessions", "5 sessions", ratio("5 sessions", "1 session"), SILENT_BOUND),
    ]
    return Benchmark("a rater that is silent for a second, against one session", sides, figures, most=5)


# A question


class Price(Question[int]):
    "What does a thing cost?"

    def __init__(self, thing: str):
        self.thing = thing


async def awaiting() -> int:
    "Ask many times, with `await`."
    return sum([await Price("stamp") for _ in range(QUESTIONS)])


def yielding() -> Generator[Price, int, int]:
    "The same, with `yield`."
    total = 0
    for _ in range(QUESTIONS):
        total += yield Price("stamp")
    return total


def tell(question: Question[Any], until: float) -> int:
    "The answer."
    return 95


async def atell(question: Question[Any], until: float) -> int:
    "The answer, on asyncio."
    return 95


def by_hand(decision: Generator[Price, int, int] | Coroutine[Any, Any, int]) -> int:
    "Drive a generator or a coroutine with as little as will do."
    send, answer = decision.send, None
    try:
        while True:
            answer = tell(send(answer), inf)  # type: ignore[arg-type]
    except StopIteration as end:
        total: int = end.value
        return total


class Almanac(Answerer):
    "Answers on asyncio and elsewhere."

    def answer(self, question: Price, until: float) -> int:
        "The answer."
        return 95

    async def aanswer(self, question: Price, until: float) -> int:
        "The answer."
        return 95


def answered(run: Callable[[], int]) -> Side:
    "A side that looks at its own result."

    def side() -> None:
        if run() != QUESTIONS * 95:
            raise Unmeasurable("a wrong sum")

    return side


def questions() -> Benchmark:
    "One question, by each way of having it answered, against a generator driven by hand."
    base = "yield, by hand"
    known: dict[type[Question[Any]], Almanac] = {Price: Almanac(None, print)}
    deadline = monotonic() + 3600
    sides = {
        base: answered(lambda: by_hand(yielding())),
        "await, by hand": answered(lambda: by_hand(awaiting())),
        "await, by drive": answered(lambda: drive(awaiting(), tell)),
        "await, by adrive": answered(lambda: asyncio.run(adrive(awaiting(), atell))),
        "await, by drive and Answerers": answered(lambda: drive(awaiting(), Answerers(known=known).tell, deadline)),
        "await, by adrive and Answerers": answered(
            lambda: asyncio.run(adrive(awaiting(), Answerers(known=known).atell, deadline))
        ),
    }
    figures = [Figure(name, name, ratio(name, base)) for name in sides]
    return Benchmark(f"{QUESTIONS:,} questions, against yield", sides, figures)


def measurements(folder: Path) -> Iterator[Benchmark]:
    "What is measured here."
    yield thousand()
    with socket.create_server(("127.0.0.1", 0), backlog=100) as listener:
        yield silent_rater(listener)
    yield questions()
