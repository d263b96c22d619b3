"""rater beside a sliding window in Redis, written in Lua, and beside a server on uvloop that only echoes.

All three are asked by the same client, over TCP on this machine. Where it says CPU, it is the server's.
"""

from __future__ import annotations

import os
import random
import socket
import subprocess
import sys
import tracemalloc
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from itertools import count
from pathlib import Path
from statistics import median
from time import perf_counter, thread_time
from typing import NamedTuple

from measure import Benchmark, Figure, Side, Unmeasurable, ratio

from ra_plugins.rater.limits import Limit
from ra_plugins.rater.memory import Mark, Memory

LIMITS = (Limit(10, 60),)
KEYS = 100_000
QUESTIONS = 1000  # in a round
AT_ONCE = 8
FLOOD = 1_000_000  # marks

WINDOW = """
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
redis.call('ZREMRANGEBYSCORE', KEYS[1], 0, now - ARGV[1] * 1000000)
redis.call('ZADD', KEYS[1], now, now)
redis.call('EXPIRE', KEYS[1], ARGV[1])
return redis.call('ZCARD', KEYS[1])
"""

ECHO = """
import asyncio, sys, uvloop

class Echo(asyncio.Protocol):
    def connection_made(self, transport):
        self.transport = transport

    def data_received(self, data):
        self.transport.write(data)
        if not data.startswith(b"-keep"):
            self.transport.close()

async def main():
    server = await asyncio.get_running_loop().create_server(Echo, "127.0.0.1", int(sys.argv[1]), backlog=1024)
    await server.serve_forever()

uvloop.run(main())
"""


class Peer(NamedTuple):
    "A server that is running, and how it is asked."

    process: subprocess.Popen[bytes]
    port: int
    question: Callable[[str], bytes]  # from a value
    kept: Callable[[str], bytes]  # the same on a connection that stays open

    def cpu(self) -> float:
        "Seconds that the server has computed, its system calls included."
        return int(Path(f"/proc/{self.process.pid}/schedstat").read_text().split()[0]) / 1e9

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=10)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def started(stack: ExitStack, command: Sequence[str], port: int, **environ: str) -> subprocess.Popen[bytes]:
    "A server's process, once it listens. It ends with `stack`."
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, env={**os.environ, **environ})
    stack.callback(process.wait)
    stack.callback(process.terminate)
    until = perf_counter() + 30
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError as error:
            if perf_counter() > until or process.poll() is not None:
                raise Unmeasurable(f"{command[0]} doesn't listen: {error}") from error
        else:
            return process


def rater(stack: ExitStack, folder: Path, **environ: str) -> Peer:
    "Our own, with a limit that isn't reached."
    port = free_port()
    config = folder / "rater.toml"
    config.write_text(
        f'[settings]\nport = {port}\ncontrol_port = 0\nlog_level = 1\n[[limits.ip]]\nmatch = "*"\nlimit = "10 in 60s"\n'
    )
    command = [sys.executable, "-c", "from ra_plugins.rater.daemon import main; main()", "--config", str(config)]
    process = started(stack, command, port, **environ)
    return Peer(process, port, lambda value: f"ip {value}\n".encode(), lambda value: f"-keep ip {value}\n".encode())


def redis(stack: ExitStack) -> Peer:
    "Redis, with the window as a script that it keeps."
    port = free_port()
    command = ["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
    process = started(stack, command, port)
    with socket.create_connection(("127.0.0.1", port)) as client:
        client.sendall(command_of("SCRIPT", "LOAD", WINDOW))
        digest = client.recv(100).split()[1].decode()

    def question(value: str) -> bytes:
        return command_of("EVALSHA", digest, "1", value, "60")

    return Peer(process, port, question, question)


def command_of(*words: str) -> bytes:
    "A command as Redis reads it."
    parts = [f"${len(word)}\r\n{word}\r\n" for word in words]
    return f"*{len(words)}\r\n{''.join(parts)}".encode()


def echo(stack: ExitStack) -> Peer:
    "What Python can do when there is nothing to do."
    port = free_port()
    process = started(stack, [sys.executable, "-c", ECHO, str(port)], port)
    return Peer(process, port, lambda value: f"ip {value}\n".encode(), lambda value: f"-keep ip {value}\n".encode())


def ask(peer: Peer, question: bytes) -> None:
    "One question on a connection of its own."
    with peer.connect() as client:
        client.sendall(question)
        if not client.recv(1024):
            raise Unmeasurable("no answer")


def values() -> list[str]:
    "A round's clients, of 100,000."
    return [f"10.0.{number >> 8}.{number & 255}" for number in random.choices(range(KEYS), k=QUESTIONS)]


def one_connection_each(peer: Peer) -> Side:
    "The server's CPU for a question, 8 clients at a time."
    pool = ThreadPoolExecutor(AT_ONCE)

    def run() -> float:
        questions = [peer.question(value) for value in values()]
        before = peer.cpu()
        for _ in pool.map(lambda question: ask(peer, question), questions):
            pass
        return (peer.cpu() - before) / QUESTIONS

    return run


def one_at_a_time(peer: Peer) -> Side:
    "How long a client waits for its answer: the median, from its connect to its close."

    def run() -> float:
        waits = []
        for question in map(peer.question, values()[:200]):
            begin = perf_counter()
            ask(peer, question)
            waits.append(perf_counter() - begin)
        return median(waits)

    return run


def kept_open(peer: Peer, stack: ExitStack) -> Side:
    "The time for a question on 8 connections, each with one question under way."
    clients = [stack.enter_context(peer.connect()) for _ in range(AT_ONCE)]

    def run() -> float:
        questions = [peer.kept(value) for value in values()]
        begin = perf_counter()
        for number, question in enumerate(questions):
            client = clients[number % AT_ONCE]
            if number >= AT_ONCE:
                client.recv(1024)
            client.sendall(question)
        for client in clients:
            client.recv(1024)
        return (perf_counter() - begin) / QUESTIONS

    return run


def sent_together(peer: Peer, stack: ExitStack) -> Side:
    "The time for a question on 8 connections, each with 25 under way."
    clients = [stack.enter_context(peer.connect()) for _ in range(AT_ONCE)]
    together = QUESTIONS // AT_ONCE // 5

    def run() -> float:
        questions = [peer.kept(value) for value in values()]
        begin = perf_counter()
        for start in range(0, QUESTIONS, AT_ONCE * together):
            batch = questions[start : start + AT_ONCE * together]
            for number, client in enumerate(clients):
                client.sendall(b"".join(batch[number::AT_ONCE]))
            for client in clients:
                answers = 0
                while answers < together:
                    answers += client.recv(65536).count(b"\n")
        return (perf_counter() - begin) / QUESTIONS

    return run


def one_value(peer: Peer, stack: ExitStack, value: Callable[[], str]) -> Side:
    "The server's CPU for a question about one value, many on a connection."
    client = stack.enter_context(peer.connect())

    def run() -> float:
        questions = b"".join(peer.kept(value()) for _ in range(100))
        before = peer.cpu()
        for _ in range(QUESTIONS // 100):
            client.sendall(questions)
            answers = 0
            while answers < 100:
                answers += client.recv(65536).count(b"\n")
        return (peer.cpu() - before) / QUESTIONS

    return run


def flood(peer: Peer, value: str) -> None:
    "A million marks for one value."
    with peer.connect() as client:
        client.sendall(peer.kept(value) * 100)
        for _ in range(FLOOD // 100):
            answers = 0
            while answers < 100:
                answers += client.recv(65536).count(b"\n")
            client.sendall(peer.kept(value) * 100)


def bytes_for(values: int, marks: int) -> Side:
    "Bytes for a value with so many marks, beside its name."

    def run() -> float:
        now = 0.0
        names = [f"2001:db8::{number:x}" for number in range(values)]
        memory = Memory(clock=lambda: now + 0.0)  # a new float each time, as from a real clock
        memory.keep({"ip": 60})
        tracemalloc.start()
        before = tracemalloc.get_traced_memory()[0]
        for number in range(marks):
            now = number / marks
            for name in names:
                memory.count([Mark("ip", name, LIMITS)])
        after = tracemalloc.get_traced_memory()[0]
        tracemalloc.stop()
        return (after - before) / values

    return run


def longest_pause() -> float:
    "A million values, and then each is due to go. The longest that a question or the tidying computes, in seconds."
    now = longest = 0.0
    memory = Memory(clock=lambda: now)
    memory.keep({"ip": 60})
    for number in range(FLOOD):
        now = number * 10 / FLOOD
        memory.count([Mark("ip", f"2001:db8::{number:x}", LIMITS)])
    held = memory.held()
    while held and now < 200:
        now += 0.1
        for step in (memory.tidy, lambda: memory.count([Mark("ip", "192.0.2.1", LIMITS)])):
            begin = thread_time()
            step()
            longest = max(longest, thread_time() - begin)
        held = memory.held() - 1
    if held:
        raise Unmeasurable(f"{held} values are still there")
    return longest


def in_memory() -> Iterator[Benchmark]:
    "What needs no server."
    sides = {"one": bytes_for(200_000, 1), "many": bytes_for(1, 10_000), "flooded": bytes_for(1, 100_000)}
    yield Benchmark(
        "memory",
        sides,
        [
            Figure("bytes for a value with one mark, of 150", "one", lambda times: median(times["one"]) / 150, 1),
            Figure("a value with 100,000 marks / with 10,000", "flooded", ratio("flooded", "many"), 1.1),
        ],
        "bytes",
        most=2,
    )
    figure = Figure(
        "longest pause while a million values go, of 10 ms", "pause", lambda times: median(times["pause"]) / 0.01, 1
    )
    yield Benchmark("expiry", {"pause": longest_pause}, [figure], most=3)


def measurements(folder: Path) -> Iterator[Benchmark]:
    "rater's figures."
    yield from in_memory()
    with ExitStack() as stack:
        ours, theirs, bare = rater(stack, folder), redis(stack), echo(stack)
        peers = {"rater": ours, "Redis": theirs, "echo on uvloop": bare}

        def benchmark(title: str, unit: str, side: Callable[[Peer], Side], bound: float, what: str) -> Benchmark:
            sides = {name: side(peer) for name, peer in peers.items()}
            return Benchmark(
                title,
                sides,
                [
                    Figure(f"{what}, rater / Redis", "rater", ratio("rater", "Redis"), bound),
                    Figure(f"{what}, rater / echo on uvloop", "echo on uvloop", ratio("rater", "echo on uvloop")),
                ],
                "µs",
            )

        yield benchmark("a connection for each question, 8 at once", "µs", one_connection_each, 0.8, "CPU")
        yield benchmark("a connection for each question, one at a time", "µs", one_at_a_time, 1.0, "median wait")
        yield benchmark("many questions on a connection", "µs", lambda peer: kept_open(peer, stack), 1 / 1.3, "time")
        yield Benchmark(
            "many questions on a connection, sent without waiting",
            {"rater, without waiting": sent_together(ours, stack), "Redis": kept_open(theirs, stack)},
            [
                Figure(
                    "time, rater / Redis that is asked one by one",
                    "rater, without waiting",
                    ratio("rater, without waiting", "Redis"),
                    1 / 1.3,
                )
            ],
            "µs",
        )
        fresh = count()
        flood(ours, "198.51.100.1")
        yield Benchmark(
            "one value with a million marks",
            {
                "flooded": one_value(ours, stack, lambda: "198.51.100.1"),
                "new": one_value(ours, stack, lambda: f"2001:db8::{next(fresh):x}"),
            },
            [Figure("CPU, flooded / new values", "flooded", ratio("flooded", "new"), 1.1)],
            "µs",
        )
