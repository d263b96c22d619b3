"rater under clients that are up to no good. Each test ends with a question that has an answer."

from __future__ import annotations

import errno
import random
import resource
import socket
import struct
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from math import inf
from pathlib import Path
from typing import NoReturn

import pytest
from mailserver import PATIENCE, until
from rater_server import Process, everything
from soak import GROWTH, soak

from ra_plugins.rater.server import Listener, Turns, listen

LIMIT = '[[limits.ip]]\nlimit = "3 in 1h"'


@pytest.fixture
def rater(tmp_path: Path) -> Iterator[Process]:
    "A rater that waits a second for a question, and has room for fifty that keep it waiting."
    with Process(tmp_path, LIMIT, timeout=1, connections=50) as running:
        yield running
        assert running.ask(b"ip 203.0.113.1\n") == b"0 1/3\r\n"
        assert running.process.poll() is None


def test_a_client_that_says_nothing_more_is_dropped(rater: Process) -> None:
    for said in (b"i", b"-keep ip 192.0.2.1\n"):
        with rater.connect() as client:
            client.sendall(said)
            everything(client)  # ends when rater closes the connection


def test_one_that_keeps_on_sending_bytes_is_dropped_too(rater: Process) -> None:
    with rater.connect() as client:
        client.settimeout(0.05)
        with pytest.raises(ConnectionError):
            for _ in range(20 * PATIENCE):
                client.sendall(b"x")
                try:
                    assert client.recv(1024) in (b"2 Cut short: a question ends with a newline\r\n", b"")
                except TimeoutError:
                    continue
                raise ConnectionError


def test_who_comes_finds_room_however_many_are_there(rater: Process) -> None:
    silent = [rater.connect() for _ in range(200)]
    for client in silent:
        client.sendall(b"i")
    assert rater.ask(b"ip 192.0.2.1\n") == b"0 1/3\r\n"
    for client in silent[:100]:  # those that have waited for longest had to go
        assert client.recv(1) == b""
    for client in silent:
        client.close()


@contextmanager
def many_files(wanted: int) -> Iterator[None]:
    "Let this process, and those that it starts, open so many files."
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < wanted:
        pytest.skip(f"a process may open {hard} files here")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_ten_thousand_that_say_nothing(tmp_path: Path) -> None:
    with many_files(10_100), Process(tmp_path, LIMIT, timeout=PATIENCE, connections=20_000) as rater:
        silent = [rater.connect() for _ in range(10_000)]
        try:
            assert rater.ask(b"ip 192.0.2.1\n") == b"0 1/3\r\n"
            for client in silent:
                client.sendall(b"i")
            assert rater.ask(b"ip 192.0.2.1\n") == b"0 2/3\r\n"
        finally:
            for client in silent:
                client.close()
        assert rater.ask(b"ip 192.0.2.1\n") == b"0 3/3\r\n"


def test_a_thousand_that_send_a_byte_now_and_then(tmp_path: Path) -> None:
    with many_files(1100), Process(tmp_path, LIMIT, timeout=PATIENCE) as rater:
        slow = [rater.connect() for _ in range(1000)]
        for count, byte in enumerate(b"ip 192.0.2.1\n"[:-1], start=1):
            for client in slow:
                client.sendall(bytes([byte]))
            assert rater.ask(f"ip 198.51.100.{count}\n".encode()) == b"0 1/3\r\n"
        for client in slow[:4]:
            client.sendall(b"\n")
        assert sorted(everything(client) for client in slow[:4]) == [b"0 1/3\r\n", b"0 2/3\r\n", b"0 3/3\r\n", b"1 4/3\r\n"]
        for client in slow:
            client.close()


def test_a_line_of_a_megabyte(rater: Process) -> None:
    assert rater.ask(b"ip " + b"x" * 1_000_000 + b"\n") == b"2 Line too long\r\n"
    assert rater.ask(b"-keep ip 192.0.2.1\n" + b"x" * 1_000_000 + b"\nip 192.0.2.1\n") == (
        b"0 1/3\r\n2 Line too long\r\n"
    )
    assert rater.ask(b"ip " + b"x" * 997 + b"\r\n") == b"0 1/3\r\n"


def test_a_second_line_isnt_heard_and_the_answer_to_the_first_isnt_lost(rater: Process) -> None:
    assert rater.ask(b"ip 192.0.2.1\n" + b"ip 192.0.2.2\n" * 50_000) == b"0 1/3\r\n"
    assert rater.ask(b"ip 192.0.2.2\n") == b"0 1/3\r\n"


def test_one_that_never_reads_is_bounded(rater: Process) -> None:
    before = rater.memory()
    with rater.connect() as client:
        client.settimeout(0.5)
        with pytest.raises(OSError):  # its questions aren't taken any more, or it has been dropped
            for _ in range(100_000):
                client.sendall(b"-keep ip 192.0.2.1\n" * 100)
        assert rater.ask(b"ip 192.0.2.9\n") == b"0 1/3\r\n"
    assert rater.memory() - before < GROWTH


def test_connections_that_are_torn_down(rater: Process) -> None:
    for said in (b"", b"i", b"ip 192.0.2.1\n", b"-keep ip 192.0.2.1\nip 192"):
        for _ in range(50):
            with rater.connect() as client:
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                client.sendall(said)


def test_a_question_that_is_cut_doesnt_count(rater: Process) -> None:
    with rater.connect() as client:
        client.sendall(b"ip 192.0.2.1")
        client.shutdown(socket.SHUT_WR)
        assert client.recv(1024) == b"2 Cut short: a question ends with a newline\r\n"
    assert rater.ask(b"ip 192.0.2.1\n") == b"0 1/3\r\n"


def test_any_bytes(rater: Process) -> None:
    dice = random.Random(1)  # noqa: S311
    for _ in range(300):
        said = dice.randbytes(dice.randrange(1, 2000)) + b"\n"
        first = said.split(b"\n")[0]
        with rater.connect() as client:
            client.sendall(said)
            answer = everything(client)
        assert answer[:2] == b"2 " and answer[-2:] == b"\r\n" and answer.count(b"\n") == 1, (first, answer)
        assert answer.decode().rstrip("\r\n").isprintable()


def test_it_doesnt_grow() -> None:
    found = soak(20)
    assert found.asked > 200 and found.grown <= GROWTH


class Nothing:
    "A service that says nothing new."

    keep, cut_short = False, b"cut\n"

    def read(self, line: bytes) -> Nothing:
        return self

    def answers(self, asked: Sequence[object]) -> list[bytes]:
        return [b"done\n" for _ in asked]


def test_no_open_files_and_nobody_to_drop(monkeypatch: pytest.MonkeyPatch) -> None:
    "The loop waits until it may try again, and doesn't go round in the meantime."
    server, listener = Turns(), listen("127.0.0.1", 0)
    server.serve(listener, Nothing())
    server._tick = inf  # the next look at deadlines, at which it tries again
    with socket.create_connection(listener.getsockname(), PATIENCE) as client:
        client.sendall(b"question\n")
        monkeypatch.setattr(Listener, "accept", no_files)
        until(lambda: server.turn(0.1), "it has tried to accept")
        assert [server.turn(0) for _ in range(5)] == [False] * 5 and server.waiting.pauses == 1
        server._tick = 0.0
        assert not server.turn(0) and server.turn(0) and server.waiting.pauses == 2
        monkeypatch.undo()
        until(lambda: server.turn(0.1) and server.waiting.accepted == 1, "it has accepted")
        assert everything(client) == b"done\n"
    listener.close()


def no_files(listener: Listener) -> NoReturn:
    raise OSError(errno.EMFILE, "Too many open files")
