"""Somebody else's plugin crashes, hangs, prints garbage or a megabyte: the client gets an answer, and the next is served."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from mailserver import Home, Server, gone

MAIL = "MAIL FROM:<eva@example.net>"
OK = "250 ok"
MEGABYTE = 1_000_000
LIMIT = 0.7  # seconds that a plugin may take where it is one that hangs


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, installed: Path) -> Iterator[Server]:
    "One server for all of them: it has to live through everything on this page."
    server = Server(Home(tmp_path_factory.mktemp("hostile") / "qmail", installed))
    yield server
    server.stop()


@pytest.fixture(scope="module")
def impatient(tmp_path_factory: pytest.TempPathFactory, installed: Path) -> Iterator[Server]:
    "And one that doesn't wait long, for those that hang."
    server = Server(Home(tmp_path_factory.mktemp("hanging") / "qmail", installed), "--seconds", str(LIMIT))
    yield server
    server.stop()


Meet = Callable[..., list[str]]


@contextmanager
def meeting(server: Server) -> Iterator[Meet]:
    "Run programs at MAIL and tell what the client hears. Afterwards nothing may be left of them."
    open_before = len(server.descriptors())

    def meet(*entries: str) -> list[str]:
        server.home.plugins("[mail]", *entries)
        banner, *heard, last = server.transcript(MAIL)
        assert (banner, last[:4]) == ("220 mail.example.org ESMTP", "221 ")
        return heard

    yield meet
    server.settled(open_before)
    assert not [line for line in server.said() if line.startswith(("Traceback", "smtpd: pid PID "))]


@pytest.fixture
def meet(server: Server) -> Iterator[Meet]:
    "Afterwards a new client is served."
    with meeting(server) as meet:
        yield meet
        server.home.plugins("[mail]", ":echo E550 served")
        assert server.talk(MAIL) == ["550 served"]


@pytest.fixture
def wait(impatient: Server) -> Iterator[Meet]:
    "Afterwards a new client is served; no plugin is run for it, since a slow machine might not be done in time."
    with meeting(impatient) as meet:
        yield meet
        impatient.home.plugins()
        assert impatient.talk(MAIL) == [OK]


def failure(entry: str, what: str) -> str:
    "The reply where a plugin has failed."
    return f"451 qmail-spp failure: {entry}: {what} (#4.3.0)"


# It crashes


@pytest.mark.parametrize("signal", ["KILL", "SEGV", "ABRT", "TERM", "HUP", "BUS", "FPE", "ALRM", "USR1"])
def test_crash(meet: Meet, signal: str) -> None:
    entry = f":kill -{signal} $$"
    assert meet(entry) == [failure(entry, "child crashed")]


@pytest.mark.parametrize("signal", ["KILL", "TERM", "INT", "HUP"])
def test_it_kills_its_whole_process_group(meet: Meet, signal: str) -> None:
    entry = f":kill -{signal} 0"
    assert meet(entry) == [failure(entry, "child crashed")]


def test_traceback(meet: Meet, server: Server) -> None:
    server.home.program("broken", f"#!{sys.executable}\nimport os\nos.write(1, b'PHello\\n')\n1 / 0\n")
    assert meet("broken") == ["Hello", OK]
    assert server.said()[-1].startswith("ZeroDivisionError")


def test_out_of_memory(meet: Meet) -> None:
    assert meet(f":ulimit -v 50000; exec {sys.executable} -IS -c 'x = bytearray(10**9)' 2>/dev/null") == [OK]


# It hangs


@pytest.mark.parametrize(
    "entry",
    [
        ":sleep 1000",
        ":exec sleep 1000",
        ":trap '' TERM INT HUP; sleep 1000; sleep 1000",
        ":kill -STOP $$",
        ":exec >&-; sleep 1000",
        ":sleep 1000 & exit 0",
        ":while :; do :; done",
        ":while echo; do :; done",
        ":printf 'E550 n'; sleep 1000",
    ],
)
def test_hanging(wait: Meet, entry: str) -> None:
    assert wait(entry) in (
        [failure(entry, f"no end after {LIMIT:g} seconds")],
        [failure(entry, f"more than {MEGABYTE} bytes of output")],
    )


def test_hanging_after_a_command(wait: Meet) -> None:
    entry = ":echo PHello; echo SA=b; sleep 1000"
    assert wait(entry) == ["Hello", failure(entry, f"no end after {LIMIT:g} seconds")]


def test_hanging_after_a_final_command(wait: Meet) -> None:
    "The refusal has been said; the session waits for the plugin's end all the same, and the client is out of step."
    entry = ":echo E550 no; exec sleep 1000"
    assert wait(entry) == ["550 no", failure(entry, f"no end after {LIMIT:g} seconds")]


def test_children_of_one_that_hangs_go_with_it(wait: Meet, impatient: Server) -> None:
    "In the background, the plugin itself being there or not."
    for entry in (":sleep 1000 & echo $! > child; sleep 1000", ":sleep 1000 & echo $! > child"):
        assert wait(entry) == [failure(entry, f"no end after {LIMIT:g} seconds")]
        gone(int(impatient.home.lines("child")[0]))


def test_a_child_that_holds_no_pipe_may_stay(meet: Meet, server: Server) -> None:
    "A plugin that starts something for later, and says so by closing standard output, does as under qmail-smtpd."
    assert meet(":sleep 1000 >/dev/null & echo $! > child; echo PHello") == ["Hello", OK]
    child = int(server.home.lines("child")[0])
    os.kill(child, 15)
    gone(child)


# It prints garbage, or too much


@pytest.mark.parametrize(
    "entry",
    [
        ":head -c 1000 /dev/zero",
        ":head -c 900000 /dev/zero",
        ":printf '\\n%.0s' $(seq 50000)",
        ":yes xyz | head -c 900000",
        ":yes '' | head -c 300000",
        ":printf '\\377\\376\\000\\n\\001\\002\\n'",
        ":printf '\\303(\\n \\n\\t\\n-\\n250 ok\\n'",
        ":seq 100000",
        ":cat /bin/sh | tr -d 'A-Z' | head -c 900000",
        ":head -c 900000 /dev/zero >&2",
        ":yes 'tail: pid 1 - forged' | head -c 900000 >&2",
    ],
)
def test_garbage_that_holds_no_command(meet: Meet, entry: str) -> None:
    assert meet(f"{entry} 2>/dev/null" if ">&2" not in entry else entry) == [OK]


def test_random_bytes(meet: Meet) -> None:
    "Whatever commands these bytes may hold: the session gets an end, and the server goes on."
    for size in (100, 10_000, 500_000):
        meet(f":head -c {size} /dev/urandom | tr -d DRO")


@pytest.mark.parametrize("entry", [":head -c 1000001 /dev/zero", ":yes", ":cat /dev/zero", ":yes xyz"])
def test_more_than_a_megabyte(meet: Meet, entry: str) -> None:
    assert meet(entry)[-1] == failure(entry, f"more than {MEGABYTE} bytes of output")


def test_a_long_reply(meet: Meet) -> None:
    "Nearly a megabyte in one line, and in many: the client gets it as it is."
    assert meet(":printf E; head -c 900000 /dev/zero | tr '\\0' x; echo") == ["x" * 900_000]
    assert meet(":yes PHello | head -n 10000") == ["Hello"] * 10_000 + [OK]


def test_a_reply_to_a_client_that_does_not_listen(server: Server) -> None:
    "Nearly a megabyte for somebody who reads a line of it: the plugin is held up until he leaves, others are served."
    open_before = len(server.descriptors())
    server.home.plugins("[connection]", ":yes PHello 2>/dev/null | head -n 140000 2>/dev/null")
    with socket.socket() as deaf:
        deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        deaf.connect(("127.0.0.1", server.port))
        assert deaf.recv(5) == b"Hello"
        server.home.plugins("[mail]", ":echo E550 no")
        assert server.talk(MAIL) == ["550 no"]
        assert server.children()
    server.settled(open_before)
    assert server.said() == []


# It spoils the ground for the next one


def test_a_variable_that_cannot_be(meet: Meet) -> None:
    "A name with a NUL in it, an empty one, one with a blank: no reason not to run the next plugin."
    for printed in (r"SA\0B=c", "S=x", "SA B=c", r"S\377=\376", "SA", "S", "U", "U=", r"UA\0B", r"C\0", r"SA=b\0c"):
        assert meet(f":printf '{printed}\\n'", ":echo PHello") == ["Hello", OK], printed


def test_a_variable_that_is_too_long(meet: Meet) -> None:
    "The kernel takes no variable of 200 kB (execve(2)): the next plugin can't be executed, as under qmail-smtpd."
    entry = ":echo PHello"
    assert meet(":printf SA=; head -c 200000 /dev/zero | tr '\\0' x; echo", entry) == [failure(entry, "can't execute")]


def test_variables_that_others_need(meet: Meet) -> None:
    "Without PATH, with a strange one, and with another control folder, our plugins still work and do no harm."
    told = ["550 You should be authenticated"]
    for printed in (
        "SPATH=/nowhere",
        "UPATH",
        "UCONTROLDIR",
        "SPYTHONHOME=/nowhere",
        "SPYTHONPATH=.",
        "SLC_ALL=x",
        "SIFS=n",
    ):
        assert meet(f":echo {printed}", "plugins/msa") == told, printed
    assert meet(":echo SCONTROLDIR=/nowhere", "plugins/overload", "plugins/senderchecksfile") == [OK]


def test_odd_changes_of_the_address(server: Server) -> None:
    home = server.home
    for printed in ("C", r"C\0", r"C\001@\177", "Ca@b@c", r"C\377", "C" + "x" * 5000, "C<a>", r"Cb@example.org\r"):
        home.plugins("[mail]", f":printf '{printed}\\n'", "[rcpt]", f":printf '{printed}\\n'", "plugins/rcptchecksfile")
        assert [reply[:1] in "25" for reply in server.talk(MAIL, "RCPT TO:<ana@example.org>")] == [True, True], printed
    server.said()


def test_it_takes_the_configuration_away(server: Server) -> None:
    home = server.home
    home.plugins("[mail]", ":rm control/smtpplugins control/rcpthosts; mkdir control/rcpthosts; echo PHello")
    wire = server.wire()
    assert [wire.reply(), wire.say(MAIL.encode()), wire.reply()][1:] == [b"Hello\r\n", b"250 ok\r\n"]
    assert wire.say(b"RCPT TO:<ana@example.org>") == b"250 ok\r\n"  # rcpthosts was read when the session began
    assert wire.say(b"RCPT TO:<postmaster>") == b"250 ok\r\n"
    wire.close()
    assert server.wire().rest() == b"421 unable to read controls (#4.3.0)\r\n"
    (home.control / "rcpthosts").rmdir()
    home.write(rcpthosts="example.org\n", smtpplugins="")
    assert server.talk(MAIL, "RCPT TO:<ana@example.org>") == [OK, OK]
    assert all(line.startswith("smtpd: ") for line in server.said())


def test_it_closes_what_it_inherits_and_stops_reading(meet: Meet) -> None:
    assert meet(":exec 1>&- 2>&-; exit 3", ":exec 2>&-; echo PHello; ls /nowhere") == ["Hello", OK]
