"""checkback over real sockets: mail servers that behave and that don't, DNS, fifty processes, and a cache out of order."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import re
import resource
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from dns_server import DnsServer
from mail_exchanger import MailExchanger, certificate, mail_exchanger, raw_server
from mailserver import ENVIRON, PATIENCE, Home, Server, until

from ra_plugins.ask.answerer import Answerers
from ra_plugins.ask.callout import CalloutReply, KeepReply, KeptReply, LastReply
from ra_plugins.ask.dns import Zone
from ra_plugins.plugins.checkback import checkback
from ra_plugins.spp.session import SAMPLE, Session
from ra_plugins.support.control import ControlFiles

pytestmark = pytest.mark.filterwarnings("error")  # a socket or task left behind

Serve = Callable[..., Server]

CONTROL = ControlFiles({"me": "mail.example.org\n", "rcpthosts": "example.org\n"})
LATER = ["451 Couldn't verify sender, come back later (#4.3.0)"]
REFUSED = ["553 sorry, Could not verify sender (#5.7.1)"]
FIRST, SECOND = "127.0.0.2", "127.0.0.3"


@pytest.fixture
def dns() -> Iterator[DnsServer]:
    "example.net has one server, example.com two."
    records: dict[tuple[str, str], list[Any]] = {
        ("example.net", "MX"): [(10, "mx.example.net")],
        ("example.com", "MX"): [(20, "second.example.com"), (10, "mx.example.net")],
        ("mx.example.net", "A"): [FIRST],
        ("second.example.com", "A"): [SECOND],
        ("null.example.net", "MX"): [(0, "")],
        ("loop.example.net", "A"): ["127.0.0.1"],
        ("xn--bcher-kva.example", "MX"): [(10, "mx.example.net")],
    }
    with DnsServer(Zone(records)) as running:
        yield running


class Plugin:
    "checkback in this process, with answerers as a service has them, over real sockets."

    def __init__(self, folder: Path, dns: DnsServer):
        self.cache = folder / "checkback.db"
        self.environ = {
            **SAMPLE,
            "DNSSERVERS": f"127.0.0.1#{dns.port}",
            "CHECKBACK_CACHE": str(self.cache),
            "CHECKBACK_PRIVATE": "1",
            "CHECKBACK_SERVERTIME": "1",
            "TCPLOCALIP": "127.0.0.1",
        }
        self.lines: list[str] = []

    def __call__(self, sender: str, port: int, dry: bool = False, **settings: str) -> list[str]:
        "What the client is told; `lines` is the log."
        return asyncio.run(self.decide(sender, port, dry, settings))

    async def decide(self, sender: str, port: int, dry: bool, settings: dict[str, str]) -> list[str]:
        environ = {**self.environ, "CHECKBACK_PORT": str(port), "SMTPMAILFROM": sender, **settings}
        self.lines = []
        async with Answerers(environ, self.lines.append, dry) as answerers:
            answer = await checkback.adecide(Session(environ), CONTROL, self.lines.append, answerers)
        assert asyncio.all_tasks() == {asyncio.current_task()}
        return [command.text for command in answer]

    def kept(self, address: str) -> KeptReply | None:
        "What is remembered."
        answer = Answerers({"CHECKBACK_CACHE": str(self.cache)}, dry=True).tell(LastReply(address))
        assert answer is None or isinstance(answer, KeptReply)
        return answer


@pytest.fixture
def plugin(tmp_path: Path, dns: DnsServer) -> Plugin:
    return Plugin(tmp_path, dns)


@pytest.fixture
def exchanger() -> Iterator[MailExchanger]:
    with mail_exchanger("ana@example.net", "ana@example.com") as running:
        yield running


# Servers that behave


def test_a_sender_that_its_server_knows_passes_and_is_remembered(plugin: Plugin, exchanger: MailExchanger) -> None:
    assert plugin("ana@example.net", exchanger.port) == []
    testing = "Testing server mx.example.net for address ana@example.net"
    assert plugin.lines == ["Checking sender (ana@example.net)", testing, "OK ana@example.net"]
    assert exchanger.asked == [("mail.example.org", "ana@example.net", False)] and exchanger.senders == ["<>"]
    assert plugin("ana@Example.NET", exchanger.port) == []
    assert re.fullmatch(r"Sender in cache \(ana@Example\.NET - \d+ seconds\)", plugin.lines[1])
    assert plugin.lines[2:] == ["OK ana@Example.NET"] and len(exchanger.asked) == 1


def test_a_sender_that_its_server_refuses_is_refused_and_remembered_for_a_shorter_time(
    plugin: Plugin, exchanger: MailExchanger
) -> None:
    rejected = "Server rejected our RCPT TO: zoe@example.net with code 550"
    for _ in range(2):
        assert plugin("zoe@example.net", exchanger.port) == REFUSED
        assert plugin.lines[-2:] == [rejected, "blocked with: Could not verify sender"]
    assert len(exchanger.asked) == 1
    exchanger.known.add("zoe@example.net")
    assert plugin("zoe@example.net", exchanger.port, CHECKBACK_FAILTIME="0") == [] and len(exchanger.asked) == 2


def test_a_server_that_refuses_bounces(plugin: Plugin, exchanger: MailExchanger) -> None:
    exchanger.sender_reply = "550 5.7.1 no bounces"
    assert plugin("ana@example.net", exchanger.port) == ["553 sorry, Sender's server doesn't _accept my mail (#5.7.1)"]
    assert plugin.lines[2:] == [
        "Server rejected our MAIL FROM: <> with code 550",
        "blocked with: Sender's server doesn't _accept my mail",
    ]


def test_a_server_that_greylists_is_temporary(plugin: Plugin, exchanger: MailExchanger) -> None:
    exchanger.unknown_reply = "451 4.7.1 come again"
    assert plugin("eva@example.net", exchanger.port) == LATER
    assert plugin.lines[2:] == [
        "Server rejected our RCPT TO: eva@example.net with code 451",
        "temporary failure: Couldn't verify sender, come back later",
    ]
    exchanger.known.add("eva@example.net")
    assert plugin("eva@example.net", exchanger.port) == LATER  # as it is remembered
    assert plugin("eva@example.net", exchanger.port, CHECKBACK_RETRYTIME="0") == []


def test_servers_are_called_in_the_order_of_their_preference(plugin: Plugin, exchanger: MailExchanger) -> None:
    with mail_exchanger(host=SECOND, port=exchanger.port) as second:
        assert plugin("ana@example.com", exchanger.port) == []
    assert len(exchanger.asked) == 1 and second.asked == []


def test_the_next_server_is_called_if_one_is_down(plugin: Plugin) -> None:
    with mail_exchanger("ana@example.com", host=SECOND) as second:
        assert plugin("ana@example.com", second.port) == []
    assert plugin.lines[1:] == [
        "Testing server mx.example.net for address ana@example.com",
        "Server mx.example.net gave error Connection refused (127.0.0.2)",
        "Testing server second.example.com for address ana@example.com",
        "OK ana@example.com",
    ]


def test_a_server_at_an_ipv6_address(plugin: Plugin, dns: DnsServer) -> None:
    dns.zone.records["six.example.net", "AAAA"] = ["::1"]
    try:
        with mail_exchanger("ana@six.example.net", host="::1") as six:
            assert plugin("ana@six.example.net", six.port) == [] and len(six.asked) == 1
    except OSError:
        pytest.skip("no IPv6 here")


@pytest.mark.parametrize(
    ("sender", "said"),
    [
        ("ana maria@example.net", '"ana maria"@example.net'),
        ('a"b<c>@example.net', '"a\\"b<c>"@example.net'),
        ("ana'; DROP TABLE replies; --@example.net", "\"ana'; DROP TABLE replies; --\"@example.net"),
        ("andré@example.net", "andré@example.net"),
        ("ana@bücher.example", "ana@xn--bcher-kva.example"),
    ],
)
def test_addresses_that_need_care(plugin: Plugin, exchanger: MailExchanger, sender: str, said: str) -> None:
    exchanger.known.add(said)
    assert plugin(sender, exchanger.port) == []
    assert exchanger.asked == [("mail.example.org", said, False)]
    assert plugin(sender, exchanger.port) == [] and len(exchanger.asked) == 1


def test_an_address_of_nine_hundred_bytes(plugin: Plugin, exchanger: MailExchanger) -> None:
    sender = "x" * 880 + "@example.net"
    assert plugin(sender, exchanger.port) == REFUSED
    assert all(line.isprintable() for line in plugin.lines)


def test_a_server_that_knows_no_ehlo(plugin: Plugin) -> None:
    heard = []

    def converse(connection: socket.socket) -> None:
        connection.sendall(b"220 mx.example.net\r\n")
        for reply in (b"502 what?\r\n", b"250 ok\r\n", b"250 ok\r\n", b"250 ok\r\n", b"221 bye\r\n"):
            heard.append(hear(connection))
            connection.sendall(reply)

    with raw_server(converse) as port:
        assert plugin("ana@example.net", port) == []
    names = [b"EHLO mail.example.org\r\n", b"HELO mail.example.org\r\n"]
    assert heard == [*names, b"MAIL FROM:<>\r\n", b"RCPT TO:<ana@example.net>\r\n", b"QUIT\r\n"]


# STARTTLS


def test_starttls_is_used_whoever_has_signed_the_certificate(plugin: Plugin, tmp_path: Path) -> None:
    with mail_exchanger("ana@example.net", tls=certificate(tmp_path), require_tls=True) as exchanger:
        assert plugin("ana@example.net", exchanger.port) == []
    assert exchanger.asked == [("mail.example.org", "ana@example.net", True)]


def hear(connection: socket.socket) -> bytes:
    "A command."
    command = b""
    while not command.endswith(b"\n"):
        byte = connection.recv(1)
        if not byte:
            raise OSError("it has left")
        command += byte
    return command


def say(connection: socket.socket, *replies: bytes) -> None:
    "Replies, each to a command, but for the first, which is the greeting."
    connection.sendall(replies[0])
    for reply in replies[1:]:
        hear(connection)
        connection.sendall(reply)


GREETING, OFFER = b"220 mx.example.net\r\n", b"250-mx.example.net\r\n250 STARTTLS\r\n"


def half_secure(connection: socket.socket, after: bytes) -> None:
    "Offers STARTTLS, breaks it, and is fine without."
    say(connection, GREETING, OFFER)
    if b"STARTTLS" in hear(connection):
        connection.sendall(after)
    else:
        say(connection, b"250 ok\r\n", b"250 ok\r\n", b"221 bye\r\n")


@pytest.mark.parametrize("after", [b"220 go\r\n", b"220 go\r\nwhat?\r\n" * 9, b"", b"220 go\r\n250 ok\r\n250 ok\r\n"])
def test_a_server_that_breaks_starttls_is_called_without(plugin: Plugin, after: bytes) -> None:
    with raw_server(lambda connection: half_secure(connection, after)) as port:
        assert plugin("ana@example.net", port) == []
    assert re.fullmatch(
        r"Server mx\.example\.net gave error .*, at STARTTLS \(127\.0\.0\.2\); once more without TLS", plugin.lines[2]
    )
    assert plugin.lines[3:] == ["OK ana@example.net"]


def test_a_server_that_takes_its_offer_back(plugin: Plugin) -> None:
    replies = [GREETING, OFFER, b"454 not now\r\n", *[b"250 ok\r\n"] * 2, b"221 bye\r\n"]
    with raw_server(lambda connection: say(connection, *replies)) as port:
        assert plugin("ana@example.net", port) == []
    assert plugin.lines[2:] == ["OK ana@example.net"]


# Servers that mean harm


def silent(connection: socket.socket) -> None:
    connection.recv(1000)


def dripping(connection: socket.socket) -> None:
    gone = threading.Event()
    for byte in b"220 mx.example.net" * 1000:
        connection.sendall(bytes([byte]))
        gone.wait(0.05)


def megabyte(connection: socket.socket) -> None:
    connection.sendall(b"220 " + b"x" * 2**20 + b"\r\n")
    connection.recv(1000)


def endless(connection: socket.socket) -> None:
    while True:
        connection.sendall(b"220-and another thing\r\n" * 100)


def endless_later(connection: socket.socket) -> None:
    say(connection, GREETING, b"250-mx.example.net\r\n")
    while True:
        connection.sendall(b"250-SIZE\r\n" * 100)


def closing(command: int) -> Callable[[socket.socket], None]:
    "Closes the connection where a reply would be due."

    def converse(connection: socket.socket) -> None:
        say(connection, *[GREETING, b"250 ok\r\n", b"250 ok\r\n"][:command])
        hear(connection)

    return converse


def babbling(connection: socket.socket) -> None:
    say(connection, GREETING, b"\x1b[2J\xff\0 ok\r\n" * 9, b"250 ok\r\n")


def pipelining(connection: socket.socket) -> None:
    connection.sendall(GREETING + b"\0\xff\x1b[2J\r\n" * 100)
    hear(connection)
    connection.sendall(b"250 ok\r\n")


def odd_codes(connection: socket.socket) -> None:
    say(connection, GREETING, b"250 ok\r\n", b"250 ok\r\n", b"999 \x1b]0;owned\x07\r\n", b"221 bye\r\n")


def refusing(connection: socket.socket) -> None:
    say(connection, b"554 no service\r\n", b"221 bye\r\n")


def leaving(connection: socket.socket) -> None:
    say(connection, GREETING, b"250 ok\r\n", b"421 too busy\r\n")


def secret(connection: socket.socket) -> None:
    say(connection, GREETING, b"250 ok\r\n", b"530 5.7.0 Must issue a STARTTLS command first\r\n", b"221 bye\r\n")


HOSTILE = {
    "silent": (silent, r"no reply within 1 s"),
    "dripping": (dripping, r"no reply within 1 s"),
    "megabyte": (megabyte, r"Response too long"),
    "endless": (endless, r"Response too long"),
    "endless later": (endless_later, r"Response too long"),
    "closing at once": (lambda connection: None, r"it closed the connection"),
    "closing after the greeting": (closing(1), r"it closed the connection, at EHLO"),
    "closing after EHLO": (closing(2), r"it closed the connection, at MAIL FROM"),
    "closing after MAIL": (closing(3), r"it closed the connection, at RCPT TO"),
    "babbling": (babbling, r"Malformed SMTP response line: .*"),
    "pipelining rubbish": (pipelining, r"Malformed SMTP response line: .*"),
    "odd codes": (odd_codes, r"999 to RCPT TO: \\x1b\]0;owned\\x07"),
    "refusing": (refusing, r"554 to connection: no service"),
    "leaving": (leaving, r"421 to MAIL FROM: too busy"),
    "secret": (secret, r"530 to MAIL FROM: 5\.7\.0 Must issue a STARTTLS command first"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_server_is_given_up_and_the_mail_is_temporary(plugin: Plugin, name: str) -> None:
    converse, error = HOSTILE[name]
    with raw_server(converse) as port:
        assert plugin("ana@example.net", port) == LATER
        assert plugin("ana@example.net", port) == LATER  # as it is remembered, without another call
    assert len(plugin.lines) == 3 and plugin.lines[1].startswith("Sender in cache (ana@example.net")
    with raw_server(converse) as port:
        assert plugin("ana@example.net", port, CHECKBACK_RETRYTIME="0") == LATER
    assert re.fullmatch(rf"Server mx\.example\.net gave error {error} \(127\.0\.0\.2\)", plugin.lines[2])
    assert plugin.lines[3:] == ["temporary failure: Couldn't verify sender, come back later"]
    assert all(line.isprintable() for line in plugin.lines)


@pytest.mark.parametrize("name", HOSTILE)
def test_behind_a_hostile_server_the_next_one_is_called(plugin: Plugin, name: str) -> None:
    with raw_server(HOSTILE[name][0]) as port, mail_exchanger("ana@example.com", host=SECOND, port=port):
        assert plugin("ana@example.com", port) == []


def test_one_deadline_over_all_servers(plugin: Plugin, dns: DnsServer) -> None:
    "Five silent servers with four addresses each would take twenty seconds."
    for number in range(10):
        dns.zone.records[f"mx{number}.example.net", "A"] = [f"127.0.1.{number}", f"127.0.2.{number}"]
    dns.zone.records["many.example.net", "MX"] = [(number, f"mx{number}.example.net") for number in range(10)]
    with ExitStack() as servers:
        port = servers.enter_context(raw_server(silent, ""))
        assert plugin("ana@many.example.net", port, CHECKBACK_TIMEOUT="2") == LATER
    assert "no server of many.example.net has told within 2 s" in plugin.lines
    assert sum(line.startswith("Server") for line in plugin.lines) <= 2


def test_dns_that_is_silent_is_temporary(plugin: Plugin, dns: DnsServer, exchanger: MailExchanger) -> None:
    for fault, reason in (("servfail", "error looking up the servers of example.net: "), ("drop", "no server of ")):
        dns.fault = fault
        assert plugin("ana@example.net", exchanger.port, CHECKBACK_TIMEOUT="1", CHECKBACK_RETRYTIME="0") == LATER
        assert plugin.lines[1].startswith(reason) and exchanger.asked == []


# Whom it never calls


def test_a_server_that_is_ourselves_is_not_asked(plugin: Plugin) -> None:
    with mail_exchanger("ana@example.net", name="mail.example.org") as exchanger:
        assert plugin("ana@example.net", exchanger.port) == REFUSED
    assert exchanger.senders == []
    us = "Server mx.example.net isn't called: it greets as mail.example.org, and that is us (127.0.0.2)"
    assert plugin.lines[2] == us and plugin.kept("ana@example.net") is None


@pytest.mark.parametrize(
    ("sender", "settings", "why"),
    [
        ("ana@loop.example.net", {}, "127.0.0.1 is the address of this server"),
        ("ana@example.net", {"CHECKBACK_PRIVATE": "0"}, "127.0.0.2 isn't a public address"),
        ("ana@[127.0.0.2]", {"CHECKBACK_PRIVATE": "0"}, "127.0.0.2 isn't a public address"),
        ("ana@[192.0.0.8]", {"CHECKBACK_PRIVATE": "0"}, "192.0.0.8 isn't a public address"),
        ("ana@[198.19.255.255]", {"CHECKBACK_PRIVATE": "0"}, "198.19.255.255 isn't a public address"),
        ("ana@[IPv6:64:ff9b::7f00:2]", {"CHECKBACK_PRIVATE": "0"}, "64:ff9b::7f00:2 isn't a public address"),
        ("ana@[IPv6:2002:7f00:2::1]", {"CHECKBACK_PRIVATE": "0"}, "2002:7f00:2::1 isn't a public address"),
        ("ana@[IPv6:::7f00:2]", {"CHECKBACK_PRIVATE": "0"}, "::7f00:2 isn't a public address"),
    ],
)
def test_addresses_that_are_not_called(
    plugin: Plugin, exchanger: MailExchanger, sender: str, settings: dict[str, str], why: str
) -> None:
    assert plugin(sender, exchanger.port, False, **settings) == REFUSED
    assert exchanger.most == 0 and plugin.lines[2].endswith(f" isn't called: {why}")


def test_a_null_mx_is_no_server(plugin: Plugin) -> None:
    assert plugin("ana@null.example.net", 1) == REFUSED
    assert plugin.lines[1:] == ["blocked with: Could not verify sender"]


# Several at once


CALL = """
import sys, time
from ra_plugins.ask.answerer import Answerers
from ra_plugins.ask.callout import Callout
environ = dict(word.split("=") for word in sys.argv[2:])
with Answerers(environ) as answerers:
    print(repr(answerers.tell(Callout("mx", "127.0.0.2", sys.argv[1], ("mail.example.org",)), time.monotonic() + 55)))
"""


def started(address: str, environ: dict[str, str]) -> subprocess.Popen[str]:
    "A process that makes one callout and prints what came of it."
    settings = [f"{name}={value}" for name, value in environ.items() if name.startswith("CHECKBACK_")]
    return subprocess.Popen([sys.executable, "-c", CALL, address, *settings], env=ENVIRON, stdout=subprocess.PIPE, text=True)


def test_callouts_to_one_server_are_bounded_over_all_processes(plugin: Plugin, exchanger: MailExchanger) -> None:
    environ = {**plugin.environ, "CHECKBACK_PORT": str(exchanger.port), "CHECKBACK_LIMIT": "2", "CHECKBACK_SERVERTIME": "55"}
    exchanger.held.clear()
    processes = [started(f"{number}@example.net", environ) for number in range(6)]
    until(lambda: len(exchanger.asked) == 2, "two callouts")
    exchanger.held.set()
    answers = [process.communicate(timeout=PATIENCE)[0] for process in processes]
    assert answers == ["CalloutReply(command='RCPT TO', code=550, text='5.1.1 no such user')\n"] * 6
    assert exchanger.most == 2 and len(exchanger.asked) == 6


def test_who_waits_too_long_for_a_place_comes_later(plugin: Plugin, exchanger: MailExchanger) -> None:
    environ = {**plugin.environ, "CHECKBACK_PORT": str(exchanger.port), "CHECKBACK_LIMIT": "1", "CHECKBACK_SERVERTIME": "55"}
    exchanger.held.clear()
    first = started("ana@example.net", environ)
    until(lambda: exchanger.asked, "the first callout")
    assert plugin("ana@example.net", exchanger.port, CHECKBACK_LIMIT="1") == LATER
    assert plugin.lines[2] == "Server mx.example.net gave error 1 callouts to it are under way (127.0.0.2)"
    exchanger.held.set()
    assert first.communicate(timeout=PATIENCE)[0] == "CalloutReply(command='RCPT TO', code=250, text='ok')\n"
    assert len(exchanger.asked) == 1


def test_a_place_is_free_again_when_its_process_is_killed(plugin: Plugin, exchanger: MailExchanger) -> None:
    environ = {**plugin.environ, "CHECKBACK_PORT": str(exchanger.port), "CHECKBACK_LIMIT": "1", "CHECKBACK_SERVERTIME": "55"}
    exchanger.held.clear()
    first = started("ana@example.net", environ)
    until(lambda: exchanger.asked, "the first callout")
    first.kill()
    first.communicate()
    exchanger.held.set()
    assert plugin("ana@example.net", exchanger.port, CHECKBACK_LIMIT="1") == []


def use(environ: dict[str, str], number: int, done: Any) -> None:
    "One process that remembers two senders, one of whom all remember."
    yes, no = CalloutReply("RCPT TO", 250, "ok"), CalloutReply("RCPT TO", 550, "no")
    asked = (KeepReply(f"{number}@example.net", yes), KeepReply("all@example.net", no), LastReply("all@example.net"))
    end = time.monotonic() + PATIENCE
    with Answerers(environ, lambda message: None) as answerers:
        answers = [answerers.tell(question) for question in asked]
        while "locked" in "".join(map(str, answers)) and time.monotonic() < end:  # of fifty, one may be unlucky
            answers = [answerers.tell(question) for question in asked]
    done.put([*map(repr, answers[:2]), repr(getattr(answers[2], "reply", answers[2]))])


def test_fifty_processes_on_one_cache(tmp_path: Path) -> None:
    environ = {"CHECKBACK_CACHE": str(tmp_path / "checkback.db")}
    context = multiprocessing.get_context("fork")
    done = context.Queue()
    started = [context.Process(target=use, args=(environ, number, done)) for number in range(50)]
    for process in started:
        process.start()
    answers = [done.get(timeout=2 * PATIENCE) for _ in started]
    for process in started:
        process.join()
    assert answers == [["None", "None", repr(CalloutReply("RCPT TO", 550, "no"))]] * 50
    with sqlite3.connect(tmp_path / "checkback.db") as database:
        assert database.execute("SELECT count(*) FROM replies").fetchone() == (51,)
    database.close()


# A cache out of order


def spoil_by_text(cache: Path) -> None:
    cache.write_text("Not a database, but a text of some length. " * 40)


def spoil_by_zeros(cache: Path) -> None:
    with sqlite3.connect(cache) as database:
        database.execute("PRAGMA journal_mode = DELETE")
    database.close()
    cache.write_bytes(cache.read_bytes()[:100] + b"\0" * (cache.stat().st_size - 100))


def spoil_by_folder(cache: Path) -> None:
    cache.unlink()
    cache.mkdir()


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (spoil_by_text, "file is not a database (name another file)"),
        (spoil_by_zeros, "database disk image is malformed (move the file away, and checkback makes a new one)"),
        (spoil_by_folder, "it should be a file"),
    ],
)
def test_a_spoiled_cache_is_logged_and_the_sender_judged(
    plugin: Plugin, exchanger: MailExchanger, spoil: Callable[[Path], None], reason: str
) -> None:
    assert plugin("ana@example.net", exchanger.port) == []
    for name in ("-wal", "-shm"):
        Path(f"{plugin.cache}{name}").unlink(missing_ok=True)
    spoil(plugin.cache)
    assert plugin("ana@example.net", exchanger.port) == [] and plugin("zoe@example.net", exchanger.port) == REFUSED
    assert plugin.lines[1].startswith(f"error reading the cache: {plugin.cache}: ") and reason in plugin.lines[1]
    assert len(exchanger.asked) == 3


def test_a_locked_cache_is_logged_and_the_sender_judged(plugin: Plugin, exchanger: MailExchanger) -> None:
    assert plugin("ana@example.net", exchanger.port) == []
    other = sqlite3.connect(plugin.cache, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    assert plugin("ana@example.net", exchanger.port) == [] and len(exchanger.asked) == 1  # others may read
    assert plugin("zoe@example.net", exchanger.port) == REFUSED
    assert plugin.lines[-3].startswith("error writing to the cache: ") and "locked" in plugin.lines[-3]
    other.execute("ROLLBACK")
    other.close()


# As programs


@pytest.fixture
def settings(plugin: Plugin) -> Callable[[int], dict[str, str]]:
    "The environment of installed programs."
    names = ("DNSSERVERS", "CHECKBACK_CACHE", "CHECKBACK_PRIVATE", "CHECKBACK_SERVERTIME")
    return lambda port: {**{name: plugin.environ[name] for name in names}, "CHECKBACK_PORT": str(port)}


def test_the_installed_plugin_behind_a_real_server(
    home: Home, serve: Serve, settings: Callable[[int], dict[str, str]], exchanger: MailExchanger, plugin: Plugin
) -> None:
    home.plugins("[mail]", "plugins/checkback")
    server = serve(**settings(exchanger.port))
    lines = ("MAIL FROM:<ana@example.net>", "RSET", "MAIL FROM:<zoe@example.net>", "MAIL FROM:<ana@example.net>", "RSET")
    refused = REFUSED[0]
    replies = server.talk("HELO mail.example.net", *lines, "MAIL FROM:<>")[1:]
    assert replies == ["250 ok", "250 flushed", refused, "250 ok", "250 flushed", "250 ok"]
    said = [re.sub(r"- \d+ seconds", "- N seconds", line.removeprefix("checkback: pid PID - ")) for line in server.said()]
    assert said == [
        "Checking sender (ana@example.net)",
        "Testing server mx.example.net for address ana@example.net",
        "OK ana@example.net",
        "Checking sender (zoe@example.net)",
        "Testing server mx.example.net for address zoe@example.net",
        "Server rejected our RCPT TO: zoe@example.net with code 550",
        "blocked with: Could not verify sender",
        "Checking sender (ana@example.net)",
        "Sender in cache (ana@example.net - N seconds)",
        "OK ana@example.net",
    ]
    assert len(exchanger.asked) == 2
    purge = "import sys; from ra_plugins.cli.checkbackpurge import main; sys.exit(main())"
    environ = {**ENVIRON, "CHECKBACK_CACHE": str(plugin.cache), "CHECKBACK_FAILTIME": "0"}
    done = subprocess.run([sys.executable, "-c", purge], env=environ, capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout == ""
    assert re.fullmatch(r"checkbackpurge: pid \d+ - Traversed 2 items, deleted 1 items\n", done.stderr)


def test_the_installed_plugin_against_a_silent_server(
    home: Home, serve: Serve, settings: Callable[[int], dict[str, str]]
) -> None:
    home.plugins("[mail]", "plugins/checkback")
    with raw_server(silent) as port:
        server = serve(**settings(port))
        assert server.talk("HELO mail.example.net", "MAIL FROM:<ana@example.net>", "MAIL FROM:<>")[1:] == [*LATER, "250 ok"]
    assert "no reply within 1 s" in "\n".join(server.said())


def run_installed(installed: Path, environ: dict[str, str], **options: Any) -> tuple[bytes, list[str]]:
    "What the program writes: commands, and its log."
    done = subprocess.run([installed / "checkback"], env={**ENVIRON, **SAMPLE, **environ}, capture_output=True, **options)
    return done.stdout, [re.sub(r"^checkback: pid \d+ - ", "", line) for line in done.stderr.decode().splitlines()]


def test_a_full_disk_is_logged_and_the_sender_judged(
    installed: Path, settings: Callable[[int], dict[str, str]], exchanger: MailExchanger, plugin: Plugin
) -> None:
    "A limit on the size of files is as good as a disk without room."
    environ = {**settings(exchanger.port), "SMTPMAILFROM": "zoe@example.net", "PYTHONDONTWRITEBYTECODE": "1"}

    def no_room() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))

    output, lines = run_installed(installed, environ, preexec_fn=no_room)
    assert output.decode() == f"E{REFUSED[0]}\n"
    assert any(line.startswith("error ") and str(plugin.cache) in line for line in lines)
    assert lines[-1] == "blocked with: Could not verify sender" and len(exchanger.asked) == 1


def test_a_missing_folder_is_logged_and_the_sender_judged(
    installed: Path, settings: Callable[[int], dict[str, str]], exchanger: MailExchanger
) -> None:
    environ = {**settings(exchanger.port), "SMTPMAILFROM": "ana@example.net", "CHECKBACK_CACHE": "/nowhere/checkback.db"}
    output, lines = run_installed(installed, environ)
    assert output == b"" and lines[-1] == "OK ana@example.net"
    assert "error reading the cache: /nowhere/checkback.db: No such file or directory" in lines


def test_a_dry_run_calls_and_remembers_nothing(plugin: Plugin, exchanger: MailExchanger) -> None:
    assert plugin("ana@example.net", exchanger.port, dry=True) == [] and len(exchanger.asked) == 1
    assert os.listdir(plugin.cache.parent) == []
