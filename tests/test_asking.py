"""Many sessions that ask at once, on asyncio."""

from __future__ import annotations

import asyncio
import selectors
from typing import Any

import pytest

from ra_plugins.ask.answerer import Answerer, Answerers
from ra_plugins.ask.question import Late, Question, gather
from ra_plugins.spp.command import Command, Refuse
from ra_plugins.spp.plugin import plugin
from ra_plugins.spp.session import Session, sample_session

SESSIONS = 1000
LISTS = ("one.example", "two.example", "silent.example")
LISTED = {"one.example": {0, 1}, "two.example": {0, 2}}  # addresses by the rest of their number divided by 4
TWICE = Refuse(550, "5.7.1", "listed twice")


class Listed(Question[bool]):
    "Is an address on a list?"

    answerer = f"{__name__}:Lists"

    def __init__(self, address: str, name: str):
        self.address, self.name = address, name


class Lists(Answerer):
    "Two lists that answer, in their own time, and one that never does. It counts who waits."

    waiting = most = 0

    async def aanswer(self, question: Listed, until: float) -> bool:
        "Whether the list knows the address."
        Lists.waiting += 1
        Lists.most = max(Lists.most, Lists.waiting)
        try:
            if question.name == "silent.example":
                await asyncio.Event().wait()
            await asyncio.sleep(0)
        finally:
            Lists.waiting -= 1
        return int(question.address.rpartition(".")[2]) % 4 in LISTED[question.name]


class Patient(selectors.DefaultSelector):
    "Time passes only while nobody has anything to do: so that a busy machine can't make an answer late."

    now = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        "What is ready; if nothing is, the time goes on to where something will be."
        found = super().select(0)
        if not found and timeout:
            self.now += timeout
        return found


ANSWERS: dict[str, tuple[Any, ...]] = {}


@plugin("connection", asks=(Listed,), answers=(Refuse,))
async def listed_twice(session: Session) -> Command | None:
    "Refuse a client that two lists know."
    address = session.environ["TCPREMOTEIP"]
    answers = await gather(*(Listed(address, name) for name in LISTS), within=0.3)
    ANSWERS[address] = answers
    return TWICE if sum(answer is True for answer in answers) >= 2 else None


def test_a_thousand_sessions_and_a_list_that_is_silent(monkeypatch: pytest.MonkeyPatch) -> None:
    "Each gets its verdict from the two lists that answer; the third is late, for all of them at the same time."
    clock = Patient()
    loop = asyncio.SelectorEventLoop(clock)
    monkeypatch.setattr(loop, "time", lambda: clock.now)
    for module in ("ask.question", "ask.answerer", "spp.plugin"):
        monkeypatch.setattr(f"ra_plugins.{module}.monotonic", lambda: clock.now)
    addresses = [f"10.0.{number // 200}.{number % 200}" for number in range(SESSIONS)]

    async def decided() -> list[list[Command]]:
        async with Answerers() as answerers:
            sessions = (sample_session(client_ip=address) for address in addresses)
            return await asyncio.gather(*(listed_twice.adecide(session, answerers=answerers) for session in sessions))

    with asyncio.Runner(loop_factory=lambda: loop) as runner:
        found = runner.run(decided())
    assert clock.now == pytest.approx(0.3)
    for address, answer in zip(addresses, found, strict=True):
        place = int(address.rpartition(".")[2]) % 4
        one, two, silent = ANSWERS[address]
        assert (one, two, type(silent)) == (place in (0, 1), place in (0, 2), Late)
        assert answer == ([TWICE] if place == 0 else [])
    assert Lists.most >= SESSIONS and Lists.waiting == 0  # all waited at once, and nobody waits any more
