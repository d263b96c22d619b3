"""rater's client: an answer in any case, in bounded time, with nothing left open.

No time is measured. A server here goes on with what it does until its client has left, so that a client which had no
deadline of its own would never be done.
"""

from __future__ import annotations

import _socket
import asyncio
import os
import pydoc
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mailserver import ENVIRON, PATIENCE, ROOT, until
from rater_server import Misbehaving, rater

import ra_plugins.rater
from ra_plugins.rater import client
from ra_plugins.rater.client import (
    ANSWER_LIMIT,
    IDLE_LIMIT,
    QUESTION_LIMIT,
    Answer,
    AsyncClient,
    Client,
    RaterReason,
    aask,
    ask,
    question,
    read_answer,
)
from ra_plugins.rater.protocol import read_request

COMMAND = [sys.executable, "-c", "import sys; from ra_plugins.rater.client import main; sys.exit(main())"]
SHORT = 0.2  # seconds that a client here waits for what never comes


def asked_once(address: str, timeout: float = PATIENCE, value: str = "192.0.2.1") -> Answer:
    return ask("ip", value, address=address, timeout=timeout)


def asked_on_a_kept_connection(address: str, timeout: float = PATIENCE, value: str = "192.0.2.1") -> Answer:
    with Client(address, timeout) as kept:
        return kept.ask("ip", value)


def asked_on_asyncio(address: str, timeout: float = PATIENCE, value: str = "192.0.2.1") -> Answer:
    return asyncio.run(aask("ip", value, address=address, timeout=timeout))


def asked_on_asyncio_and_kept(address: str, timeout: float = PATIENCE, value: str = "192.0.2.1") -> Answer:
    async def asking() -> Answer:
        async with AsyncClient(address, timeout) as kept:
            return await kept.ask("ip", value)

    return asyncio.run(asking())


def unreachable(address: str, said: str) -> Answer:
    return Answer(2, "Can't connect to rater", f"{address}: {said}", RaterReason.CANT_CONNECT)


Way = Callable[..., Answer]
each_way = pytest.mark.parametrize("asked", [asked_once, asked_on_a_kept_connection, asked_on_asyncio, asked_on_asyncio_and_kept])


@pytest.fixture
def serving() -> Iterator[Callable[[Callable[[socket.socket], None]], Misbehaving]]:
    "Starts misbehaving servers."
    servers: list[Misbehaving] = []

    def start(handle: Callable[[socket.socket], None]) -> Misbehaving:
        servers.append(Misbehaving(handle))
        return servers[-1]

    yield start
    for server in servers:
        server.close()


Serving = Callable[[Callable[[socket.socket], None]], Misbehaving]


def silent(connection: socket.socket) -> None:
    "Say nothing."


def dripping(connection: socket.socket) -> None:
    "Say a byte at a time, without an end."
    connection.settimeout(0.01)
    while True:
        connection.send(b"0")
        try:
            if not connection.recv(1000):
                return
        except TimeoutError:
            pass


def half_an_answer(connection: socket.socket) -> None:
    "Say the beginning of an answer, and no more."
    connection.sendall(b"1 12/1")


def hanging_up(connection: socket.socket) -> None:
    "Hear a question, and say that there is nothing to come."
    connection.recv(1000)
    connection.shutdown(socket.SHUT_WR)


def hanging_up_halfway(connection: socket.socket) -> None:
    "The same, in the middle of an answer."
    connection.recv(1000)
    connection.sendall(b"1 12/1")
    connection.shutdown(socket.SHUT_WR)


def resetting(connection: socket.socket) -> None:
    "Hear a question, and cut the connection."
    connection.recv(1000)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


def flooding(connection: socket.socket) -> None:
    "Say a megabyte and no newline."
    connection.sendall(b"0" * 1_000_000)


def chattering(connection: socket.socket) -> None:
    "Say more than was asked for."
    connection.recv(1000)
    connection.sendall(b"0 1/2\r\n0 1/2\r\n")


def speaking_http(connection: socket.socket) -> None:
    "Be something else."
    connection.recv(1000)
    connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")


MISBEHAVIOUR: dict[Callable[[socket.socket], None], tuple[str, str]] = {
    silent: (RaterReason.TIMED_OUT, "timed out"),
    dripping: (RaterReason.TIMED_OUT, "timed out"),
    half_an_answer: (RaterReason.TIMED_OUT, "timed out"),
    hanging_up: (RaterReason.CLOSED, "the connection was closed"),
    hanging_up_halfway: (RaterReason.CLOSED, "the connection was closed"),
    resetting: (RaterReason.CLOSED, "Connection reset by peer"),
    flooding: (RaterReason.NONSENSE, "that makes no sense: b'0000"),
    chattering: (RaterReason.NONSENSE, r"that makes no sense: b'0 1/2\\r\\n0 1/2"),
    speaking_http: (RaterReason.NONSENSE, "that makes no sense: b'HTTP/1.1 400"),
}


@each_way
@pytest.mark.parametrize("handle", MISBEHAVIOUR, ids=lambda handle: handle.__name__)
def test_servers_that_misbehave(asked: Way, handle: Callable[[socket.socket], None], serving: Serving) -> None:
    "There is no verdict, the reason is told, as a value and as a text, and the connection is closed."
    server = serving(handle)
    reason, text = MISBEHAVIOUR[handle]
    answer = asked(server.address, SHORT if reason == RaterReason.TIMED_OUT else PATIENCE)
    assert (answer.verdict, answer.why, answer.reason) == (2, "", reason)
    assert answer.text.startswith(f"No answer from rater: {text}".replace("\\\\", "\\"))
    assert server.has_left()


@each_way
def test_no_server(asked: Way, tmp_path: Path) -> None:
    with rater(ip="1 in 1m") as gone:
        pass
    (tmp_path / "file").touch()
    for address, why in (
        (gone, "Connect"),  # asyncio puts it in other words
        (str(tmp_path / "missing"), "No such file or directory"),
        (str(tmp_path / "file"), "Connection refused"),
        ("/" + "x" * 200, "AF_UNIX path too long"),
        ("no.such.host.invalid:1999", ""),
        ("a..b:1999", ""),
    ):
        answer = asked(address)
        assert (answer.verdict, answer.text, answer.reason) == (2, "Can't connect to rater", RaterReason.CANT_CONNECT)
        assert answer.why.startswith(f"{address}: {why}"), answer


@each_way
def test_a_port_where_nobody_accepts(asked: Way) -> None:
    "The kernel takes the connection, as long as its queue has room, and then not even that."
    with socket.create_server(("127.0.0.1", 0), backlog=0) as listener:
        address = "{}:{}".format(*listener.getsockname())
        waiting = [_connecting(listener.getsockname()) for _ in range(4)]
        assert asked(address, SHORT) == unreachable(address, "timed out")
        for each in waiting:
            each.close()


def _connecting(where: tuple[str, int]) -> socket.socket:
    "A socket that connects and doesn't wait for it."
    connection = socket.socket()
    connection.setblocking(False)
    connection.connect_ex(where)
    return connection


@pytest.mark.parametrize("way", ["ask", "client"])
def test_a_name_that_nobody_knows_in_time(way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    "The system's call for names can't be told how long it may take, and we go on without it."
    done, real = threading.Event(), _socket.getaddrinfo

    def stuck(host: bytes, *arguments: Any) -> Any:
        if host == b"rater.example.org" and len(arguments) < 4:  # not the call that only reads addresses
            done.wait(PATIENCE)
            raise socket.gaierror(-2, "late")
        return real(host, *arguments)

    monkeypatch.setattr(_socket, "getaddrinfo", stuck)
    asked = asked_once if way == "ask" else asked_on_a_kept_connection
    answer = asked("rater.example.org:1999", SHORT)
    assert answer == unreachable("rater.example.org:1999", "timed out")
    done.set()


def test_a_name() -> None:
    with rater(ip="2 in 1m") as address:
        port = address.rpartition(":")[2]
        assert str(ask("ip", "192.0.2.1", address=f"localhost:{port}", timeout=PATIENCE)) == "0 1/2"


def test_ipv6() -> None:
    try:
        listener = socket.create_server(("::1", 0), family=socket.AF_INET6)
    except OSError:
        pytest.skip("no IPv6 on this machine")
    with listener:
        address = f"[::1]:{listener.getsockname()[1]}"
        answers: list[Answer] = []
        asking = threading.Thread(target=lambda: answers.append(asked_once(address)))
        asking.start()
        connection, _ = listener.accept()
        with connection:
            assert connection.recv(1000) == b"ip 192.0.2.1\n"
            connection.sendall(b"1 2/1\r\n")
        asking.join(PATIENCE)
    assert answers == [Answer(1, "2/1")]


@each_way
def test_unix_socket(asked: Way, tmp_path: Path) -> None:
    with rater(tmp_path / "rater.sock", ip="2 in 1m") as address:
        assert address == str(tmp_path / "rater.sock")
        assert [str(asked(address)) for _ in range(3)] == ["0 1/2", "0 2/2", "1 3/2"]


@each_way
def test_nothing_stays_open(asked: Way, serving: Serving) -> None:
    "Hundreds of questions to good servers and bad ones, and as many descriptors as before."
    bad = [serving(handle) for handle in (hanging_up, resetting, chattering, speaking_http, silent)]
    with rater(ip="1000 in 1m") as good:
        addresses = [good, *(server.address for server in bad), "127.0.0.1:1", "/nowhere/rater"]
        asked(good)
        before = len(os.listdir("/proc/self/fd"))
        for _ in range(40):
            for address in addresses:
                asked(address, 0.01)
        for server in bad:
            for _ in range(40):
                assert server.has_left()
        until(
            lambda: len(os.listdir("/proc/self/fd")) <= before, "as few descriptors as before"
        )  # the servers' are here, too


def test_asked_by_many_at_once() -> None:
    "Each gets an answer of its own, and together they have counted right."

    async def all_at_once(address: str) -> list[Answer]:
        return await asyncio.gather(*(aask("ip", "x", address=address, timeout=PATIENCE) for _ in range(300)))

    with rater(ip="100 in 1m") as address:
        answers = asyncio.run(all_at_once(address))
    assert sorted(answer.count for answer in answers) == list(range(1, 301))
    assert sum(answer.verdict for answer in answers) == 200


def test_asyncio_goes_on_with_others(serving: Serving) -> None:
    "While one question waits for a server that is silent, others are answered; and it can be cancelled."
    server = serving(silent)

    async def both(good: str) -> list[Answer]:
        waiting = asyncio.create_task(aask("ip", "x", address=server.address, timeout=PATIENCE))
        answers = [await aask("ip", "x", address=good, timeout=PATIENCE) for _ in range(20)]
        assert not waiting.done()
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        return answers

    with rater(ip="20 in 1m") as good:
        assert [answer.verdict for answer in asyncio.run(both(good))] == [0] * 20
    assert server.has_left()


# One connection for many questions


def test_many_questions_on_a_connection() -> None:
    with rater(ip="500 in 1m") as address, Client(address, PATIENCE) as kept:
        kept.ask("ip", "x")
        connection = kept.connection
        assert [kept.ask("ip", "x").count for _ in range(999)] == list(range(2, 1001))
        assert kept.connection is connection
        assert kept.ask("colour", "red") == Answer(2, "Class not found: colour")
        assert kept.connection is connection


def test_rater_is_started_anew() -> None:
    "The connection has gone; the client makes another, once. With nobody there it says so, and tries again the next time."
    with rater(ip="9 in 1m") as address:
        kept = Client(address, PATIENCE)
        assert str(kept.ask("ip", "x")) == "0 1/9"
    with rater(int(address.rpartition(":")[2]), ip="9 in 1m"):
        assert [str(kept.ask("ip", "x")) for _ in range(2)] == ["0 1/9", "0 2/9"]
    assert kept.ask("ip", "x") == unreachable(address, "Connection refused")
    with rater(int(address.rpartition(":")[2]), ip="9 in 1m"):
        assert str(kept.ask("ip", "x")) == "0 1/9"
    kept.close()
    kept.close()


def test_a_connection_that_is_out_of_step_is_dropped(serving: Serving) -> None:
    "An answer that comes after the time-out must not be taken for that to the next question."
    late = threading.Event()

    def answering_late(connection: socket.socket) -> None:
        value = connection.recv(1000).split()[-1]
        if value == b"first":
            late.wait(PATIENCE)
            connection.sendall(b"1 9/1\r\n")
        else:
            connection.sendall(b"0 1/1\r\n")

    server = serving(answering_late)
    with Client(server.address, SHORT) as kept:
        assert kept.ask("ip", "first").text == "No answer from rater: timed out"
        late.set()
        kept.timeout = PATIENCE
        assert str(kept.ask("ip", "second")) == "0 1/1"
    assert server.has_left() and server.has_left()


@pytest.mark.parametrize("said", [b"2 No answer from rater today\r\n", b"2 Can't connect to rater\r\n"])
def test_a_message_of_raters_own_keeps_the_connection(said: bytes, serving: Serving) -> None:
    "Whatever it sounds like, it came over a connection that is in step."

    def saying_so(connection: socket.socket) -> None:
        while connection.recv(1000):
            connection.sendall(said)

    with Client(serving(saying_so).address, PATIENCE) as kept:
        first = kept.ask("ip", "x")
        assert (first.verdict, first.reason, first.text) == (2, RaterReason.MESSAGE, said[2:-2].decode())
        connection = kept.connection
        assert connection and kept.ask("ip", "x") == first and kept.connection is connection


def test_a_server_that_keeps_hanging_up_is_asked_twice_at_most(serving: Serving) -> None:
    heard: list[bytes] = []

    def once(connection: socket.socket) -> None:
        heard.append(connection.recv(1000))
        if len(heard) == 1:
            connection.sendall(b"0 1/2\r\n")
        connection.shutdown(socket.SHUT_RDWR)

    with Client(serving(once).address, PATIENCE) as kept:
        assert str(kept.ask("ip", "x")) == "0 1/2"
        assert kept.ask("ip", "x").text == "No answer from rater: the connection was closed"
    assert heard[1:] in ([b"-keep ip x\n"], [b"-keep ip x\n"] * 2)


def test_many_tasks_share_an_asynchronous_client(serving: Serving) -> None:
    "Their questions run side by side, each has its own answer, and the connections are used again, within a bound."

    async def both(address: str) -> tuple[list[int], int]:
        async with AsyncClient(address, PATIENCE) as kept:
            many = await asyncio.gather(*(kept.ask("ip", "x") for _ in range(100)))
            assert len(kept.idle) == IDLE_LIMIT
            before = list(kept.idle)
            for _ in range(20):
                await kept.ask("ip", "y")
            assert kept.idle == before
        assert not kept.idle
        return sorted(answer.count for answer in many), (await kept.ask("ip", "y", peek=True)).count

    with rater(ip="500 in 1m") as address:
        assert asyncio.run(both(address)) == (list(range(1, 101)), 20)


def test_an_asynchronous_client_after_a_restart(serving: Serving) -> None:
    async def asked(kept: AsyncClient) -> str:
        return str(await kept.ask("ip", "x"))

    with asyncio.Runner() as runner:
        with rater(ip="9 in 1m") as address:
            kept = AsyncClient(address, PATIENCE)
            assert runner.run(asked(kept)) == "0 1/9"
        with rater(int(address.rpartition(":")[2]), ip="9 in 1m"):
            assert [runner.run(asked(kept)) for _ in range(2)] == ["0 1/9", "0 2/9"]
        assert runner.run(asked(kept)).startswith(f"2 Can't connect to rater ({address}: ")
        kept.close()


def test_an_answer_that_comes_too_late_isnt_the_next_ones_on_asyncio(serving: Serving) -> None:
    late = threading.Event()

    def answering_late(connection: socket.socket) -> None:
        while value := connection.recv(1000):
            if b"slow" in value:
                late.wait(PATIENCE)
            connection.sendall(b"1 9/1\r\n" if b"slow" in value else b"0 1/1\r\n")

    async def asking(address: str) -> list[str]:
        async with AsyncClient(address, PATIENCE) as kept:
            answers = [str(await kept.ask("ip", "first"))]
            kept.timeout = SHORT
            answers.append(str(await kept.ask("ip", "slow")))
            late.set()
            kept.timeout = PATIENCE
            return [*answers, str(await kept.ask("ip", "second"))]

    answers = asyncio.run(asking(serving(answering_late).address))
    assert answers == ["0 1/1", "2 No answer from rater: timed out", "0 1/1"]


# Where rater is, if nobody says it


def test_the_variable_says_where_rater_is(monkeypatch: pytest.MonkeyPatch) -> None:
    "To every client alike, and an address that is given goes before it."

    async def asked_on_asyncio() -> list[str]:
        async with AsyncClient() as kept:
            return [str(await kept.ask("ip", "x")), str(await aask("ip", "x"))]

    with rater(ip="9 in 1m") as address, rater(ip="5 in 1m") as other:
        monkeypatch.setenv("RATER", address)
        with Client() as kept:
            assert [str(ask("ip", "x")), str(kept.ask("ip", "x"))] == ["0 1/9", "0 2/9"]
        assert asyncio.run(asked_on_asyncio()) == ["0 3/9", "0 4/9"]
        assert str(ask("ip", "x", address=other)) == "0 1/5"
        monkeypatch.setenv("RATER", "nowhere")
        with pytest.raises(ValueError, match="rater's address is .*, not 'nowhere'"):
            ask("ip", "x")
        monkeypatch.setenv("RATER", "")
        assert Client().address == "127.0.0.1:1999"


# What an answer says


def test_an_answer_isnt_true_by_accident() -> None:
    for answer in (Answer(0, "1/2"), Answer(1, "3/2"), Answer(2, "Store failed")):
        with pytest.raises(TypeError, match="neither true nor false"):
            bool(answer)
    assert [Answer(0, "1/2").over, Answer(1, "3/2").over, Answer(2, "Store failed").over] == [False, True, False]


@pytest.mark.parametrize("way", ["ask", "client", "aask", "async client"])
def test_which_limit_it_is_and_when_to_come_again(way: str) -> None:
    async def on_asyncio(address: str) -> Answer:
        if way == "aask":
            return await aask("ip", "x", address=address, more=True)
        async with AsyncClient(address) as kept:
            return await kept.ask("ip", "x", more=True)

    def asked(address: str) -> Answer:
        if way in ("ask", "client"):
            with Client(address) as kept:
                return kept.ask("ip", "x", more=True) if way == "client" else ask("ip", "x", address=address, more=True)
        return asyncio.run(on_asyncio(address))

    with rater(ip="2 in 1h") as address:
        answers = [asked(address) for _ in range(3)]
    assert [(each.verdict, each.count, each.limit, each.window) for each in answers] == [
        (0, 1, 2, 3600),
        (0, 2, 2, 3600),
        (1, 3, 2, 3600),
    ]
    assert [each.wait for each in answers[:2]] == [0, 0]
    assert answers[2].wait and 3500 < answers[2].wait <= 3600


# What can't be asked


NAN, INFINITY = float("nan"), float("inf")
WORDS = {
    "name": "a class",
    "value": "a value",
    "weight": "a weight",
    "address": "rater's address",
    "timeout": "a time-out",
}


def aask_waited_for(*given: Any, **options: Any) -> Answer:
    return asyncio.run(aask(*given, **options))


@pytest.mark.parametrize("way", [ask, aask_waited_for])
@pytest.mark.parametrize(
    ("argument", "wrong"),
    [
        *(("address", each) for each in ("", "localhost", "localhost:0", "::1:1999", "a b:1", "/\0", 1999, b"/x")),
        *(("timeout", each) for each in (0, -1, NAN, INFINITY, -INFINITY, "2", None)),
        *(("name", each) for each in ("", "two words", "-peek", "a\nb", "x" * 1000, None, b"ip", 4)),
        *(("value", each) for each in (None, b"192.0.2.1", 4)),
        *(("weight", each) for each in (0, -1, 10**9, 1.5, NAN, "2", None)),
    ],
)
def test_what_cant_be_asked_is_named(way: Callable[..., Answer], argument: str, wrong: object) -> None:
    "It is a mistake in the program that asks. Nothing is sent: a value of None isn't counted as somebody called None."
    with rater(ip="1 in 1m") as address:
        given: dict[str, Any] = {"name": "ip", "value": "x", "address": address, "timeout": PATIENCE, argument: wrong}
        with pytest.raises(ValueError, match=f"{WORDS[argument]} is .*, not "):
            way(given.pop("name"), given.pop("value"), **given)
        assert str(ask("ip", "x", address=address, timeout=PATIENCE)) == "0 1/1"
        assert str(ask("ip", "None", address=address, timeout=PATIENCE)) == "0 1/1"


# What is sent, and what is heard


anything = st.text(st.characters(exclude_categories=())) | st.binary().map(
    lambda raw: raw.decode("utf-8", "surrogateescape")
)


@given(value=anything, weight=st.integers(1, 999_999_999), peek=st.booleans(), keep=st.booleans())
def test_whatever_the_value_it_is_one_question(value: str, weight: int, peek: bool, keep: bool) -> None:
    "rater reads one line, with our class and options, and the value as far as it can be printed."
    line = question("ip", value, weight, peek, keep)
    assert line.count(b"\n") == 1 and line[-1:] == b"\n" and len(line) <= QUESTION_LIMIT
    assert not set(line[:-1]) & {*range(32), 127}
    read_back = read_request(line[:-1])
    assert read_back[:1] + read_back[2:5] == ("ip", 0 if peek else weight, keep, "")
    if value.isprintable() and len(value.encode()) < QUESTION_LIMIT - 100:
        assert read_back.value == value


@given(st.binary(max_size=2 * ANSWER_LIMIT) | st.from_regex(rb"\A[0-9] ?[0-9]{0,3}/?[0-9]{0,3}\r?\n?\Z"))
def test_whatever_the_answer_it_is_read(line: bytes) -> None:
    "It is a verdict with two numbers, or none with a message that fits on a line."
    answer = read_answer(line)
    assert str(answer).isprintable() and answer.text
    if answer.verdict == 2:
        assert answer.count == answer.limit == 0
    else:
        assert [part.isdigit() for part in answer.text.split("/")] == [True, True]
        assert answer.count >= 0 <= answer.limit


# The command


def raterclient(*arguments: str, **environ: str) -> tuple[int, str]:
    "The exit status, and what it writes on standard error."
    done = subprocess.run(
        [*COMMAND, *arguments],
        env={**ENVIRON, **environ},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=PATIENCE,
    )
    assert done.stdout == b"" or arguments == ("--help",)
    assert b"Traceback" not in done.stderr
    return done.returncode, (done.stderr or done.stdout).decode()


def test_raterclient() -> None:
    with rater(ip="1 in 1m", motto="1 in 1m") as address:
        for arguments, expected in (
            (["ip", "192.0.2.1"], (0, "0 1/1\n")),
            (["ip", "192.0.2.1"], (1, "1 2/1\n")),
            (["-peek", "ip", "192.0.2.1"], (1, "1 2/1\n")),
            (["-weight=3", "ip", "192.0.2.1"], (1, "1 5/1\n")),
            (["motto", "in", "three", "words"], (0, "0 1/1\n")),
            (["motto", "in three words"], (1, "1 2/1\n")),
            (["ip", "192.0.2.2\nip 192.0.2.3"], (0, "0 1/1\n")),
            (["-peek", "ip", "192.0.2.3"], (0, "0 0/1\n")),
            (["colour", "red"], (2, "2 Class not found: colour\n")),
            (["hello"], (2, "2 Bad Input (no space)\n")),
        ):
            assert raterclient(*arguments, RATER=address) == expected, arguments
        assert raterclient("--address", address, "--timeout", "9", "ip", "x", RATER="/nowhere") == (0, "0 1/1\n")
    assert raterclient("ip", "x", RATER=address) == (2, f"2 Can't connect to rater ({address}: Connection refused)\n")


def test_raterclient_with_nobody_to_read_its_answer() -> None:
    "The exit status still tells."
    with rater(ip="1 in 1m") as address:
        for expected in (0, 1):
            read_end, write_end = os.pipe()
            os.close(read_end)
            done = subprocess.run(
                [*COMMAND, "ip", "x"], env={**ENVIRON, "RATER": address}, stderr=write_end, timeout=PATIENCE
            )
            os.close(write_end)
            assert done.returncode == expected


@pytest.mark.parametrize(
    "arguments", [[], ["--nonsense", "ip", "x"], ["--address", "localhost", "ip", "x"], ["--timeout", "-1", "ip", "x"]]
)
def test_raterclient_used_wrongly(arguments: list[str]) -> None:
    status, told = raterclient(*arguments)
    assert status == 2 and told.startswith(("usage: raterclient ", "raterclient: "))


# The front door


def test_the_front_door_opens_when_somebody_enters() -> None:
    script = """
import sys
import ra_plugins.rater
print("ra_plugins.rater.client" in sys.modules, {*ra_plugins.rater.__all__} <= {*dir(ra_plugins.rater)})
from ra_plugins.rater import Answer, Client, aask, ask
from ra_plugins.rater import client
print((Answer, Client, aask, ask) == (client.Answer, client.Client, client.aask, client.ask))
print(hasattr(ra_plugins.rater, "axe"))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.splitlines() == ["False True", "True", "False"]


@pytest.mark.parametrize("name", ["ask", "aask"])
def test_help_tells_the_parameters_and_their_units(name: str) -> None:
    told = " ".join(pydoc.plain(pydoc.render_doc(getattr(ra_plugins.rater, name))).split())
    signature = f"{name}(name: str, value: str, *, address: str | None = None, timeout: float = 2.0,"
    assert signature in told.replace("'", "")
    for part in ("timeout: seconds", "weight: as how many this one counts", "address: `host:port`", "`ValueError`"):
        assert part in told


# Its start


SCRIPT = """
import sys
sys.path.insert(0, {folder!r})
from ra_plugins.rater.client import ask
print(ask("ip", "192.0.2.1", address="127.0.0.1:1"), *sys.modules, sep="\\n")
"""
HEAVY = {"asyncio", "collections", "encodings.idna", "enum", "functools", "os", "re", "socket", "threading", "typing"}


def test_it_starts_light() -> None:
    "A process is started for each question, so what it imports is what it costs."

    def modules(script: str) -> list[str]:
        done = subprocess.run([sys.executable, "-I", "-S", "-c", script], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout.splitlines()

    bare = modules("import sys; print(*sys.modules, sep='\\n')")
    answer, *imported = modules(SCRIPT.format(folder=str(Path(client.__file__).parents[2])))
    assert answer.startswith("2 Can't connect to rater")
    assert HEAVY & {*imported} - {*bare} == set()
