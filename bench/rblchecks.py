"""Five block lists whose answers take different times, beside the slowest of them alone; and a question repeated.

What is timed is waiting: a nameserver on this machine answers for each list after its time, and nothing is kept
between two runs.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from measure import Benchmark, Figure, Side, Unmeasurable, ratio

sys.path.append(str(Path(__file__).resolve().parent.parent / "tests"))

from dns_server import remote_server

from ra_plugins.ask.answerer import Answerers
from ra_plugins.ask.dns import Zone
from ra_plugins.plugins.rblchecks import rblchecks
from ra_plugins.spp.session import sample_session

SECONDS = {"one.example": 0.03, "two.example": 0.06, "three.example": 0.09, "four.example": 0.12, "five.example": 0.15}
SLOWEST = "five.example"
LISTED = {"192.0.2.1": "two.example"}  # a client that is on a list, which says why
BOUND = 1.2  # of the wall time of the slowest


def zone() -> Zone:
    "The lists."
    records: dict[tuple[str, str], list[str]] = {}
    for client, name in LISTED.items():
        label = ".".join(reversed(client.split(".")))
        records |= {(f"{label}.{name}", "A"): ["127.0.0.2"], (f"{label}.{name}", "TXT"): ["Spam"]}
    return Zone(records)


async def decided(answerers: Answerers, client: str, lists: list[str]) -> None:
    "One decision, and a look at it."
    log: list[str] = []
    session = sample_session(client_ip=client, RBLSERVERS=":".join(lists))
    answer = await rblchecks.adecide(session, log=log.append, answerers=answerers)
    if bool(answer) != (LISTED.get(client) in lists) or len(log) != 1:
        raise Unmeasurable(f"{client} on {lists}: {answer}, {log}")


async def once(server: Any, client: str, lists: list[str], times: int = 1) -> None:
    "Decisions of a host that has asked nothing before."
    async with Answerers({"DNSSERVERS": f"127.0.0.1#{server.port}"}) as answerers:
        for _ in range(times):
            await decided(answerers, client, lists)


def side(server: Any, client: str, *lists: str) -> Side:
    "One decision, timed."
    return lambda: asyncio.run(once(server, client, list(lists)))


def repeated(server: Any, client: str) -> int:
    "How many questions a second decision on the same client asks."
    counts = []
    for times in (1, 2):
        server.count()
        asyncio.run(once(server, client, [*SECONDS], times))
        counts.append(server.count())
    return int(counts[1] - counts[0])


def measurements(folder: Path) -> Iterator[Benchmark]:
    "What is measured here."
    with remote_server(zone(), delays=SECONDS) as server:
        alone, five, listed = f"{SLOWEST} alone", "five lists", "five lists, on the second"
        sides = {
            alone: side(server, "192.0.2.9", SLOWEST),
            five: side(server, "192.0.2.9", *SECONDS),
            listed: side(server, "192.0.2.1", *SECONDS),
        }
        again = repeated(server, "192.0.2.9")  # not of a listed client, whose decision gives up what isn't needed
        figures = [
            Figure(f"five lists, of {SLOWEST}'s time", five, ratio(five, alone), BOUND),
            Figure("a client on the second, which says why", listed, ratio(listed, alone), BOUND),
            Figure("queries on a repeat within the TTL", five, lambda times: again, 0),
        ]
        yield Benchmark("five lists, 30 to 150 ms late, against the slowest", sides, figures)
