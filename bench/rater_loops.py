"""rater on its own loop beside the same rater on asyncio and on uvloop.

All three read lines, judge and answer by the same code, with marks in memory, and give each connection half a minute. They
are asked in turns, in one run, by the same client. Where it says CPU, it is the server's.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

from measure import Benchmark, Figure, Side, ratio
from rater import Peer, free_port, kept_open, one_at_a_time, one_connection_each, rater, sent_together, started

ON_ASYNCIO = """
import asyncio, sys

from ra_plugins.rater.limits import Limit, Rule, RuleBook
from ra_plugins.rater.memory import Memory
from ra_plugins.rater.protocol import Rater
from ra_plugins.rater.server import BACKLOG, listen, whole_lines

RATER = Rater(RuleBook({"ip": [Rule("*", [Limit(10, 60)])]}), Memory())
SECONDS = 30  # for a question, and for each further one

class Connection(asyncio.Protocol):
    buffer = b""

    def connection_made(self, transport):
        self.transport = transport
        self.time = LOOP.call_later(SECONDS, transport.abort)

    def data_received(self, data):
        lines, self.buffer = whole_lines(self.buffer + data)
        asked = []
        for line in lines:
            asked.append(RATER.read(line))
            if not asked[-1].keep:
                break
        if asked:
            self.transport.write(b"".join(RATER.answers(asked)))
            self.time.cancel()
            if asked[-1].keep:
                self.time = LOOP.call_later(SECONDS, self.transport.abort)
            else:
                self.transport.close()

    def connection_lost(self, error):
        self.time.cancel()

async def tidy():
    while True:
        await asyncio.sleep(0.1)
        RATER.tidy()

async def main():
    global LOOP
    LOOP = asyncio.get_running_loop()
    listener = listen("127.0.0.1", int(sys.argv[1]))
    server = await LOOP.create_server(Connection, sock=listener, backlog=BACKLOG)
    await asyncio.gather(server.serve_forever(), tidy())

if sys.argv[2] == "uvloop":
    import uvloop
    uvloop.run(main())
else:
    asyncio.run(main())
"""


def on(loop: str, stack: ExitStack) -> Peer:
    "rater on `asyncio` or `uvloop`."
    port = free_port()
    process = started(stack, [sys.executable, "-c", ON_ASYNCIO, str(port), loop], port)
    return Peer(process, port, lambda value: f"ip {value}\n".encode(), lambda value: f"-keep ip {value}\n".encode())


def measurements(folder: Path) -> Iterator[Benchmark]:
    "What the loop costs."
    with ExitStack() as stack:
        peers = {"own loop": rater(stack, folder), **{name: on(name, stack) for name in ("asyncio", "uvloop")}}

        def benchmark(title: str, side: Callable[[Peer], Side], what: str, bound: float | None = None) -> Benchmark:
            figures = [
                Figure(f"{what}, own loop / {name}", name, ratio("own loop", name), bound)
                for name in ("asyncio", "uvloop")
            ]
            return Benchmark(title, {name: side(peer) for name, peer in peers.items()}, figures, "µs")

        yield benchmark("a connection for each question, 8 at once", one_connection_each, "CPU", 1)
        yield benchmark("a connection for each question, one at a time", one_at_a_time, "median wait", 1)
        yield benchmark("many questions on a connection", lambda peer: kept_open(peer, stack), "time")
        yield benchmark("many, sent without waiting", lambda peer: sent_together(peer, stack), "time")
