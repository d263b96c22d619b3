"""Hours of gibberish and of questions, and rater stays as it was: `python tests/soak.py [--minutes N]`.

What its author tested, and more of the kind: clients that send random bytes, a line without an end, a byte now and
then, that connect and say nothing, that leave in the middle or never read. Between them, questions that have answers.
Exit status 1 where rater has grown, or didn't answer.
"""

from __future__ import annotations

import argparse
import os
import random
import socket
import struct
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

from rater_server import Process, everything

LIMITS = """
[[limits.ip]]
match = "192.0.2.*"
limit = ["10 in 1s", "100 in 1m"]
[[limits.ip]]
limit = "10 in 10s"
"""
VALUES = 2000  # that questions are asked about
SILENT = 500  # connections that are held open at a time
GROWTH = 8 << 20  # bytes that may come with the first busy minute and have nothing to do with time

DICE = random.Random(1)  # noqa: S311
Connection = Callable[[], socket.socket]


def gibberish(connect: Connection) -> None:
    "Bytes, of which some happen to be newlines."
    with connect() as client:
        client.sendall(DICE.randbytes(DICE.randrange(1, 5000)))
        client.recv(1024)


def endless_line(connect: Connection) -> None:
    "A megabyte without a newline."
    with connect() as client:
        client.sendall(b"ip " + b"x" * 1_000_000)
        client.recv(1024)


def reset(connect: Connection) -> None:
    "Half a question, and the connection is torn down."
    with connect() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        client.sendall(b"ip 192.0.2")


def half_closed(connect: Connection) -> None:
    "No newline, and nothing more to say."
    with connect() as client:
        client.sendall(b"ip 192.0.2.1")
        client.shutdown(socket.SHUT_WR)
        client.recv(1024)


def never_read(connect: Connection) -> None:
    "Questions without end, and nobody who hears the answers."
    with connect() as client:
        client.setblocking(False)
        with suppress(BlockingIOError):
            for _ in range(1000):
                client.send(b"-keep ip 192.0.2.1\n" * 100)


def unknown(connect: Connection) -> None:
    "A class that there isn't, each time another one."
    assert ask(connect, f"class{DICE.random()} x").startswith("2 Class not found")


def question(connect: Connection) -> None:
    "A question of few values, which stay the same."
    assert ask(connect, f"ip 192.0.2.{DICE.randrange(256)}")[:2] in ("0 ", "1 ")


def other_question(connect: Connection) -> None:
    "A question of many values."
    assert ask(connect, f"ip 2001:db8::{DICE.randrange(VALUES):x}")[:2] in ("0 ", "1 ")


def many_questions(connect: Connection) -> None:
    "Some on one connection."
    with connect() as client:
        client.sendall(b"-keep ip 198.51.100.1\n" * 20)
        client.shutdown(socket.SHUT_WR)
        assert everything(client).count(b"/10\r\n") == 20


def ask(connect: Connection, line: str) -> str:
    "One question, as the shell asks it."
    with connect() as client:
        client.sendall(f"{line}\n".encode())
        return client.recv(1024).decode()


BAD = (gibberish, endless_line, reset, half_closed, never_read, unknown)
GOOD = (question, other_question, many_questions)


class Soaked(NamedTuple):
    "What came of it."

    asked: int
    early: int  # bytes of memory, once it was warm
    late: int  # at the end

    @property
    def grown(self) -> int:
        "Bytes."
        return self.late - self.early


def soak(
    seconds: float,
    say: Callable[[str], object] = lambda text: None,  # is told how it goes, about once a second
) -> Soaked:
    "Half of the time gibberish for the most part, half of it questions."
    with TemporaryDirectory() as folder, Process(Path(folder), LIMITS, timeout=5) as rater:
        begin, told, done, early = time.monotonic(), 0.0, 0, 0
        silent: list[socket.socket] = []
        while (passed := time.monotonic() - begin) < seconds:
            bad, good = (9, 1) if passed % (seconds / 4) < seconds / 8 else (0, 1)
            with suppress(ConnectionError):  # rater may have heard enough
                DICE.choice(DICE.choices((BAD, GOOD), (bad, good))[0])(rater.connect)
            if bad and len(silent) < SILENT:
                silent.append(rater.connect())
                silent[-1].sendall(b"i")
            elif silent and not done % 10:
                silent.pop(0).close()
            done += 1
            if not early and passed > seconds / 4:
                early = rater.memory()
            if passed - told >= 1:
                told = passed
                say(f"{passed:.0f} of {seconds:.0f} s, {done:,} clients, {rater.memory() >> 10:,} kB")
        for client in silent:
            client.close()
        assert ask(rater.connect, "ip 203.0.113.1") == "0 1/10\r\n"
        return Soaked(done, early, rater.memory())


def show(progress: str) -> None:
    "On a terminal, and nowhere else."
    if sys.stderr.isatty():
        print(f"\r\033[K{progress}", end="", file=sys.stderr, flush=True)


def main() -> int:
    "Soak, and say what came of it."
    parser = argparse.ArgumentParser(description="Ask rater for a long time, well and badly, and see whether it grows.")
    parser.add_argument("--minutes", type=float, default=float(os.environ.get("MINUTES") or 4), metavar="N")
    found = soak(parser.parse_args().minutes * 60, show)
    show("")
    print(f"{found.asked:,} clients; memory {found.early >> 10:,} kB early, {found.late >> 10:,} kB at the end")
    return 0 if found.grown <= GROWTH else 1


if __name__ == "__main__":
    sys.exit(main())
