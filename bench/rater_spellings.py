"""What it costs that an address is counted in one spelling, and that only what is within is counted.

Each side is a rater of its own with marks in memory. They are asked in turns, in one run, by the same client: a thousand
clients that come again, and a hundred thousand of which hardly one does. The side that the others are held against is asked about
texts that are no addresses and just as long, or counts every mark. Where it says CPU, it is the server's.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path

from measure import Benchmark, Figure, Side, ratio
from rater import AT_ONCE, QUESTIONS, Peer, ask, free_port, started

BOUND = 1.05
UNBOUNDED = ("IPv4", "IPv6 by /64")  # where it takes no spelling, and where it takes a network's name, too
TEXT, IPV4, IPV6 = "2001-db8--{:x}", "10.1.{}.{}", "2001:db8::{:x}"
NETWORKS, MAPPED = "2001:db8:{:x}:{:x}::1", "::ffff:10.1.{}.{}"  # a client to a /64


def values(pattern: str, clients: int) -> list[str]:
    "A round's clients."
    numbers = random.choices(range(clients), k=QUESTIONS)
    return [pattern.format(*((each >> 8, each & 255) if pattern.count("{") == 2 else (each,))) for each in numbers]


def with_rule(rule: str, stack: ExitStack, folder: Path) -> Peer:
    "A rater with this rule for the class `ip`."
    port = free_port()
    config = folder / f"{port}.toml"
    config.write_text(f"[settings]\nport = {port}\ncontrol_port = 0\nlog_level = 1\n[[limits.ip]]\n{rule}\n")
    command = [sys.executable, "-c", "from ra_plugins.rater.daemon import main; main()", "--config", str(config)]
    process = started(stack, command, port)
    return Peer(process, port, lambda value: f"ip {value}\n".encode(), lambda value: f"-keep ip {value}\n".encode())


def alone(peer: Peer, pattern: str, clients: int) -> Side:
    "The server's CPU for a question on a connection of its own."

    def run() -> float:
        questions = [peer.question(value) for value in values(pattern, clients)]
        before = peer.cpu()
        for question in questions:
            ask(peer, question)
        return (peer.cpu() - before) / len(questions)

    return run


def together(peer: Peer, pattern: str, clients: int, stack: ExitStack) -> Side:
    "The server's CPU for a question on a connection with eight under way."
    client = stack.enter_context(peer.connect())

    def run() -> float:
        questions = [peer.kept(value) for value in values(pattern, clients)]
        before = peer.cpu()
        for start in range(0, QUESTIONS, AT_ONCE):
            client.sendall(b"".join(questions[start : start + AT_ONCE]))
            answers = 0
            while answers < AT_ONCE:
                answers += client.recv(65536).count(b"\n")
        return (peer.cpu() - before) / QUESTIONS

    return run


def measurements(folder: Path) -> Iterator[Benchmark]:
    "What is paid for it."
    plain, within = 'limit = "10 in 1m"', 'limit = "10 in 1m"\ncount = "within"'
    with ExitStack() as stack:

        def sides(make: Callable[[Peer, str], Side]) -> dict[str, Side]:
            told = {
                "text": (plain, TEXT),
                "IPv4": (plain, IPV4),
                "IPv6": (plain, IPV6),
                "IPv6 by /64": (f"{plain}\nprefix6 = 64", NETWORKS),
                "mapped IPv4": (plain, MAPPED),
                "within": (within, TEXT),
            }
            return {name: make(with_rule(rule, stack, folder), pattern) for name, (rule, pattern) in told.items()}

        def benchmark(title: str, made: dict[str, Side], bound: float | None) -> Benchmark:
            figures = [
                Figure(f"CPU, {name} / text", name, ratio(name, "text"), None if name in UNBOUNDED else bound)
                for name in made
                if name != "text"
            ]
            return Benchmark(title, made, figures, "µs")

        for clients in (1000, 100_000):
            title = f"{clients:,} clients, a connection for each question"
            yield benchmark(title, sides(partial(alone, clients=clients)), BOUND)
            title = f"{clients:,} clients, eight questions at once on a connection"
            made = sides(partial(together, clients=clients, stack=stack))
            yield benchmark(title, made, None)
