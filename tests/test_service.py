"""The service as a process, and all that may befall it. Whatever it is, each client has one answer, by it or by its script.

The client is the real one, in C where there is a compiler. Its script is one that says so.
"""

from __future__ import annotations

import asyncio
import os
import resource
import shutil
import signal
import socket
import struct
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from mailserver import PATIENCE, gone, until
from service_process import SESSION, Clients, Service, heard, memory, remove, said, short_folder

from ra_plugins.hosts.service import supervisor
from ra_plugins.hosts.service.request import SILENCE, ServiceRequest
from ra_plugins.hosts.service.status import ask_status

SESSIONS = 200  # at a time
BY_SCRIPT = "Sby script\n"
DOTBLIND = "Cben@example.org\n"  # what dotblind says in our session
HOSTILE = """
import asyncio, os, signal, subprocess, sys, threading, time
from ra_plugins.ask.answerer import Answerer
from ra_plugins.ask.question import Question
from ra_plugins.spp.command import Refuse, SetVariable
from ra_plugins.spp.plugin import plugin

HERE = os.path.dirname(os.path.abspath(__file__))


class Gate(Question[str]):
    "Is it open?"

    answerer = "hostile:GateAnswerer"


class GateAnswerer(Answerer):
    "Knows when the gate opens: as soon as there is such a file."

    looking = None

    async def aanswer(self, question, until):
        with open(f"{HERE}/arrived", "ab", 0) as file:
            file.write(b".")
        self.looking = self.looking or asyncio.ensure_future(self.look())
        await asyncio.wait({self.looking})
        return "open"

    async def look(self):
        while not os.path.exists(f"{HERE}/open"):
            await asyncio.sleep(0.01)


@plugin("rcpt", asks=(Gate,), answers=(SetVariable,), seconds=60)
async def patient(session):
    "Wait for the gate."
    return SetVariable("GATE", str(await Gate()))


@plugin("rcpt")
def faulty(session):
    "Have an error."
    return 1 // 0


@plugin("rcpt", seconds=60)
def endless(session):
    "Never come back."
    while True:
        pass


@plugin("rcpt")
def asleep(session):
    "Sleep for an hour."
    time.sleep(3600)


@plugin("rcpt")
def rubbish(session):
    "Answer with what isn't an answer."
    return {"no": object()}


@plugin("rcpt")
def two_lines(session):
    "Answer with two lines where one may be."
    return Refuse(550, "5.7.1", "one\\nE250 two")


@plugin("rcpt")
def huge(session):
    "Answer with more than there may be."
    return [SetVariable(f"A{number}", "x" * 1000) for number in range(2000)]


@plugin("rcpt")
def prints(session):
    "Print an answer that isn't one."
    print("E550 printed")


@plugin("rcpt")
def writes(session):
    "Write to where the service may talk."
    os.write(1, b"E550 written\\n" + b"{}\\n" + b"{\\"counts\\": 1}\\n" + b"\\xff[\\n")


@plugin("rcpt")
def has_child(session):
    "Have a program print and read."
    subprocess.run(["sh", "-c", "echo E550 by a child; cat"], check=True, timeout=5)


@plugin("rcpt")
def reads(session):
    "Read what isn't for it."
    return SetVariable("READ", repr(os.read(0, 100)))


@plugin("rcpt")
def leaves(session):
    "End the process."
    os._exit(3)


@plugin("rcpt")
def exits(session):
    "End the program."
    sys.exit(3)


@plugin("rcpt")
async def cancels(session):
    "Cancel its task."
    asyncio.current_task().cancel()
    await asyncio.sleep(0)


@plugin("rcpt")
def interrupts(session):
    "Raise what isn't an error."
    raise KeyboardInterrupt


@plugin("rcpt")
def recurses(session):
    "Go deeper and deeper."
    return recurses.decision(session)


@plugin("rcpt")
def stops_the_loop(session):
    "Stop everything."
    asyncio.get_running_loop().stop()


@plugin("rcpt")
def has_a_thread(session):
    "Leave a thread behind that sleeps, and one that fails."
    threading.Thread(target=time.sleep, args=(3600,)).start()
    threading.Thread(target=lambda: 1 // 0).start()


@plugin("rcpt")
def numb(session):
    "Hang where no alarm is heard."
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGALRM})
    while True:
        pass
"""
NAMES = [line.split()[-1].partition("(")[0] for line in HOSTILE.splitlines() if line.startswith(("def ", "async def "))]


@pytest.fixture(scope="module")
def place() -> Iterator[Path]:
    "A folder for a socket, plugins and control files; a path of few bytes."
    folder = short_folder()
    (folder / "hostile.py").write_text(HOSTILE)
    yield folder
    remove(folder)


@pytest.fixture(scope="module")
def clients(place: Path) -> Clients:
    "Clients of the plugins on this page, and some others."
    names = [*NAMES, "dotblind", "msa", "at-rcpt", "tarpit", "unknown"]
    return Clients(place / "plugins", place / "socket", names)


@pytest.fixture
def folder(place: Path) -> Iterator[Path]:
    "The same, with nothing left of the test before."
    yield place
    for name in ("open", "arrived", "log"):
        (place / name).unlink(missing_ok=True)
    shutil.rmtree(place / "control", ignore_errors=True)
    left = os.path.lexists(place / "socket")
    if left:
        (place / "socket").unlink()
    assert not left


def service(folder: Path, *options: str, **more: object) -> Service:
    "One with the plugins on this page."
    control = {"atplugins": "[rcpt]\nfaulty\nprints\ndotblind\nmissing\ntarpit\n"}
    return Service(folder, *options, files=[folder / "hostile.py"], control=control, **more)  # type: ignore[arg-type]


def arrived(folder: Path) -> int:
    "How many wait at the gate."
    path = folder / "arrived"
    return path.stat().st_size if path.exists() else 0


def waiting(folder: Path, clients: Clients, number: int = SESSIONS) -> list[subprocess.Popen[bytes]]:
    "So many clients that wait at the gate, in the middle of a decision."
    before = arrived(folder)
    called = [clients.call("patient") for _ in range(number)]
    until(lambda: arrived(folder) - before >= number, "all have arrived")
    return called


CLOSED = ("it has hung up", "Connection reset by peer", "Broken pipe")  # by which a client learns of it
OPEN = ("SGATE=open\n", "")
HUNG_UP = (BY_SCRIPT, "patient: the service doesn't answer (it has hung up), so the script does it\n")


# It is killed


def test_a_worker_is_killed_in_the_middle_of_200_sessions(folder: Path, clients: Clients) -> None:
    with service(folder) as running:
        called = waiting(folder, clients)
        os.kill(running.workers()[0], signal.SIGKILL)
        assert Counter(map(said, called)) == {HUNG_UP: SESSIONS}
        until(running.answers, "another worker")
        assert clients.run("dotblind") == (DOTBLIND, "dotblind: changed b.e.n@example.org to ben@example.org\n")


def test_one_of_two_workers_is_killed(folder: Path, clients: Clients) -> None:
    with service(folder, "--workers", "2") as running:
        called = waiting(folder, clients)
        os.kill(running.workers()[0], signal.SIGKILL)
        (folder / "open").touch()
        found = Counter(map(said, called))
        assert set(found) <= {HUNG_UP, OPEN} and found.total() == SESSIONS


def test_the_supervisor_is_killed_and_what_has_been_taken_is_answered(folder: Path, clients: Clients) -> None:
    running = service(folder)
    running.start()
    called, workers = waiting(folder, clients), running.workers()
    os.kill(running.pid, signal.SIGKILL)
    running.end()
    until(lambda: refused(running), "nobody listens any more")
    assert clients.run("dotblind")[0] == BY_SCRIPT
    with service(folder):  # beside the worker that is left
        assert clients.run("dotblind")[0] == DOTBLIND
        (folder / "open").touch()
        assert Counter(map(said, called)) == {OPEN: SESSIONS}
        gone(*workers)


def refused(running: Service) -> bool:
    "Does nobody listen?"
    try:
        running.connect().close()
    except ConnectionRefusedError:
        return True
    return False


def test_all_is_killed_and_started_anew_under_load(folder: Path, clients: Clients) -> None:
    running = service(folder, "--workers", "2")
    running.start()
    called = [clients.call("dotblind") for _ in range(SESSIONS // 2)]
    running.kill()
    called += [clients.call("dotblind") for _ in range(SESSIONS // 2)]
    running.launch()
    while not running.answers():
        called.append(clients.call("dotblind"))
    called += [clients.call("dotblind") for _ in range(SESSIONS // 2)]
    found = Counter(output for output, _ in map(said, called))
    assert set(found) == {BY_SCRIPT, DOTBLIND} and found.total() == len(called)
    assert running.end() == 0


def test_workers_that_are_killed_again_and_again(folder: Path, clients: Clients) -> None:
    with service(folder, "--workers", "2") as running:
        called = []
        for number in range(2 * SESSIONS):
            if not number % 40:
                for worker in running.workers()[:1]:
                    os.kill(worker, signal.SIGKILL)
            called.append(clients.call("dotblind"))
        found = Counter(output for output, _ in map(said, called))
        assert set(found) <= {BY_SCRIPT, DOTBLIND} and found.total() == len(called)
        until(lambda: len(running.workers()) == 2 and running.answers(), "two workers")


def test_while_there_is_no_worker_nobody_waits(folder: Path, clients: Clients) -> None:
    with service(folder) as running:
        for _ in range(2):  # after the second, there is none for two seconds
            until(running.answers, "a worker")
            assert clients.run("leaves")[0] == BY_SCRIPT
        output, log = clients.run("dotblind")
        assert output == BY_SCRIPT and any(reason in log for reason in CLOSED)
        until(running.answers, "another worker")
        assert ask_status(str(running.socket))["sent_back"]["no worker"] > 0


# Its signals


def test_sigterm_answers_what_has_been_taken(folder: Path, clients: Clients) -> None:
    running = service(folder, "--workers", "2")
    running.start()
    called = waiting(folder, clients)
    idle = running.connect()
    assert running.process
    running.process.send_signal(signal.SIGTERM)
    until(lambda: not running.socket.exists(), "it has heard")
    assert clients.run("dotblind")[0] == BY_SCRIPT
    (folder / "open").touch()
    assert Counter(map(said, called)) == {OPEN: SESSIONS}
    assert running.process.wait(PATIENCE) == 0 and heard(idle) is None


def test_sighup_under_load_costs_nobody_the_service(folder: Path, clients: Clients) -> None:
    with service(folder, "--workers", "2") as running:
        before = running.workers()
        called = waiting(folder, clients)
        assert running.process
        running.process.send_signal(signal.SIGHUP)
        found: Counter[str] = Counter()
        while "new workers have taken over" not in running.log.read_text():
            found.update(output for output, _ in map(said, [clients.call("dotblind") for _ in range(20)]))
        found.update(output for output, _ in map(said, [clients.call("dotblind") for _ in range(SESSIONS)]))
        assert set(found) == {DOTBLIND}
        (folder / "open").touch()
        assert Counter(map(said, called)) == {OPEN: SESSIONS}
        gone(*before)
        until(lambda: len(running.workers()) == 2, "the old ones have been waited for")


def test_sigterm_waits_for_workers_that_sighup_has_sent_off(folder: Path, clients: Clients) -> None:
    running = service(folder)
    running.start()
    (before,) = running.workers()
    called = waiting(folder, clients)
    assert running.process
    running.process.send_signal(signal.SIGHUP)
    until(lambda: "new workers have taken over" in running.log.read_text(), "new workers")
    running.process.send_signal(signal.SIGTERM)
    until(lambda: set(running.workers()) <= {before}, "the new one has ended")
    with pytest.raises(subprocess.TimeoutExpired):
        running.process.wait(1)
    (folder / "open").touch()
    assert Counter(map(said, called)) == {OPEN: SESSIONS}
    assert running.process.wait(PATIENCE) == 0


def test_sighup_takes_new_settings_and_keeps_the_old_ones_if_they_are_wrong(folder: Path) -> None:
    settings, other = folder / "settings", folder / "other"
    other.mkdir()
    (other / "rcpthosts").write_text("example.com\n")
    settings.write_text("")
    with service(folder, "--settings", str(settings)) as running:
        assert asked_of(running) == DOTBLIND
        assert running.process
        settings.write_text("what is this\n")
        running.process.send_signal(signal.SIGHUP)
        until(lambda: "the workers stay as they were" in running.log.read_text(), "it has looked")
        assert asked_of(running) == DOTBLIND
        settings.write_text(f"CONTROLDIR={other}\n")
        running.process.send_signal(signal.SIGHUP)
        until(lambda: "new workers have taken over" in running.log.read_text(), "new workers")
        until(lambda: asked_of(running) == "", "only new workers")
    settings.unlink()
    shutil.rmtree(other)


def asked_of(running: Service, name: str = "dotblind", **environ: str) -> str:
    "What the service says."
    reply = running.ask(name, **environ)
    assert reply is not None
    return reply.output.decode()


# What plugins do


@pytest.fixture(scope="module")
def hosted(hostile: Service) -> Clients:
    "Its clients."
    return Clients(hostile.folder / "plugins", hostile.socket, [*NAMES, "dotblind", "at-rcpt", "unknown"])


@pytest.fixture(scope="module")
def hostile(place: Path) -> Iterator[Service]:
    "One service for all of them: it has to live through everything on this page."
    folder = place / "hostile"
    folder.mkdir()
    shutil.copy(place / "hostile.py", folder)
    with service(folder) as running:
        yield running


LET_THROUGH = "failed, so the mail goes on: "


@pytest.mark.parametrize(
    ("name", "answer", "log"),
    [
        ("faulty", "", [LET_THROUGH + "ZeroDivisionError: integer division or modulo by zero"]),
        ("rubbish", "", [LET_THROUGH]),
        ("two_lines", "E550 one E250 two (#5.7.1)\n", []),
        ("prints", "", ["printed by mistake: E550 printed"]),
        ("exits", "", [LET_THROUGH + "SystemExit: 3"]),
        ("cancels", "", [LET_THROUGH]),
        ("interrupts", "", [LET_THROUGH + "KeyboardInterrupt"]),
        ("recurses", "", [LET_THROUGH + "RecursionError"]),
        ("reads", "SREAD=b''\n", []),
        ("writes", "", []),
        ("has_child", "", []),
        ("has_a_thread", "", []),
        ("endless", "", [LET_THROUGH + "Overdue: no end after 2 seconds"]),
        ("asleep", "", [LET_THROUGH + "Overdue: no end after 2 seconds"]),
        ("huge", "", [LET_THROUGH]),
        ("unknown", None, []),
    ],
)
def test_a_plugin_may_do_what_it_likes(
    hostile: Service, hosted: Clients, name: str, answer: str | None, log: list[str]
) -> None:
    pids = hostile.workers()
    output, said_there = hosted.run(name)
    assert output == (BY_SCRIPT if answer is None else answer)
    log = [HUNG_UP[1].strip().replace("patient: ", "")] if answer is None else log
    lines = said_there.splitlines()
    assert len(lines) == len(log) and all(
        line.startswith(f"{name}: {start}") for line, start in zip(lines, log, strict=True)
    )
    assert hostile.workers() == pids
    assert hosted.run("dotblind")[0] == DOTBLIND


@pytest.mark.parametrize("name", ["leaves", "stops_the_loop"])
def test_a_plugin_that_ends_its_worker_costs_a_script_at_most(folder: Path, clients: Clients, name: str) -> None:
    with service(folder) as running:
        (before,) = running.workers()
        assert clients.run(name)[0] in ("", BY_SCRIPT)  # one that has ended the loop may have been answered before
        gone(before)
        until(running.answers, "another worker")
        assert clients.run("dotblind")[0] == DOTBLIND


def test_a_section_goes_on_after_what_is_wrong_in_it(hosted: Clients) -> None:
    output, log = hosted.run("at-rcpt")
    assert output == DOTBLIND
    assert [line.partition(":")[0] for line in log.splitlines()] == ["faulty", "prints", "dotblind", "at-rcpt"]


def test_many_that_hang_leave_the_others_an_answer(folder: Path, clients: Clients) -> None:
    with service(folder, "--workers", "2"):
        hanging = [clients.call("endless") for _ in range(3)]
        others = [clients.call("dotblind") for _ in range(20)]
        assert {said(each)[0] for each in others} <= {DOTBLIND, BY_SCRIPT}
        assert {said(each)[0] for each in hanging} <= {"", BY_SCRIPT}


def test_one_that_hears_no_alarm_is_killed(folder: Path, clients: Clients, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor, "STUCK_SECONDS", 1)
    monkeypatch.setattr(supervisor, "LOOK_SECONDS", 0.2)
    monkeypatch.setenv("PYTHONPATH", str(folder), prepend=":")
    monkeypatch.setenv("CONTROLDIR", str(service(folder).control))
    log: list[str] = []

    async def serve() -> None:
        options = supervisor.ServiceOptions(str(folder / "socket"), files=[str(folder / "hostile.py")])
        running = supervisor.Supervisor(options, log.append)
        await running.start()
        (worker,) = running.workers
        numb = clients.call("numb")
        await asyncio.wait_for(worker.ended.wait(), PATIENCE)
        assert await asyncio.to_thread(said, numb) == (BY_SCRIPT, HUNG_UP[1].replace("patient", "numb"))
        await asyncio.wait_for(running.settled(), PATIENCE)
        assert (await asyncio.to_thread(clients.run, "dotblind"))[0] == DOTBLIND
        await running.end()

    asyncio.run(serve())
    assert log[0] == "a worker hasn't answered for 1 s: killed"


# Who connects


def test_5000_connections_at_once(folder: Path, clients: Clients) -> None:
    number = min(5000, resource.getrlimit(resource.RLIMIT_NOFILE)[1] - 2 * SESSIONS - 200)
    with service(folder) as running, allowed_files():
        idle = [running.connect() for _ in range(number)]
        called = [clients.call("dotblind") for _ in range(SESSIONS)]
        assert {output for output, _ in map(said, called)} == {DOTBLIND}
        for each in idle:
            each.close()
        assert clients.run("dotblind")[0] == DOTBLIND


class allowed_files:
    "As many open files as the system allows us."

    def __enter__(self) -> None:
        self.before = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (self.before[1], self.before[1]))

    def __exit__(self, *error: object) -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, self.before)


def test_more_connections_than_there_may_be(folder: Path, clients: Clients) -> None:
    with service(folder, "--connections", "20") as running:
        idle = [running.connect() for _ in range(20)]
        assert clients.run("dotblind")[0] == BY_SCRIPT
        for each in idle:
            each.close()
        until(lambda: clients.run("dotblind")[0] == DOTBLIND, "there is room")
        assert any("too many connections" in line for line in running.lines())


def test_all_that_are_answered_at_once(folder: Path) -> None:
    number = min(4000, resource.getrlimit(resource.RLIMIT_NOFILE)[1] - 200)
    with service(folder) as running, allowed_files():
        connections = [running.connect() for _ in range(number)]
        request = ServiceRequest("patient", 1, SESSION).pack()
        for each in connections:
            each.sendall(request)
        until(lambda: arrived(folder) == number, "all have arrived")
        (folder / "open").touch()
        for each in connections:
            reply = heard(each)
            assert reply and reply.output == b"SGATE=open\n"
            each.close()


RUBBISH = {
    "HTTP": b"GET / HTTP/1.0\r\n\r\n",
    "NUL bytes": b"\0" * 100,
    "no length": b":,",
    "a length that lies": b"3:abcd,",
    "too long a length": b"131073:" + b"x" * 1000,
    "no process": b"8:msa\0abc\0,",
    "no name": b"0:,",
    "two requests": ServiceRequest("msa", 1, SESSION).pack() + b"1:x,",
}


@pytest.mark.parametrize("data", RUBBISH.values(), ids=list(RUBBISH))
def test_what_is_no_request_gets_no_reply(hostile: Service, data: bytes) -> None:
    with hostile.connect() as connection:
        connection.sendall(data)
        assert heard(connection) is None
    assert hostile.answers()


def test_100_megabytes_are_not_read(hostile: Service) -> None:
    before = memory(hostile.workers()[0])
    for beginning in (b"", b"99999999:", b"131072:"):
        with hostile.connect() as connection, pytest.raises((BrokenPipeError, ConnectionResetError)):
            connection.sendall(beginning)
            for _ in range(1600):
                connection.sendall(b"1" * 65536)
    assert hostile.answers()
    assert memory(hostile.workers()[0]) - before < 10_000_000


def test_a_byte_at_a_time_is_too_slow(hostile: Service) -> None:
    began, request = time.monotonic(), ServiceRequest("msa", 1, SESSION).pack()
    with hostile.connect() as slow, hostile.connect() as silent:
        with pytest.raises((BrokenPipeError, ConnectionResetError)):
            for byte in request:
                slow.send(bytes([byte]))
                time.sleep(0.25)
                assert hostile.answers()
        assert heard(silent) is None
    assert SILENCE <= time.monotonic() - began < PATIENCE


def test_one_that_never_reads_holds_nobody_up(hostile: Service) -> None:
    deaf = [hostile.connect() for _ in range(50)]
    for each in deaf:
        each.sendall(ServiceRequest("msa", 1, SESSION).pack())
    assert hostile.answers()
    for each in deaf:
        each.close()


def test_clients_that_go_away_while_they_wait(folder: Path, clients: Clients) -> None:
    with service(folder) as running:
        called = waiting(folder, clients)
        before = descriptors(running.workers()[0])
        for each in called[1:]:
            each.kill()
            each.communicate()
        until(lambda: descriptors(running.workers()[0]) <= before - SESSIONS + 1, "it has let them go")
        (folder / "open").touch()
        assert said(called[0]) == OPEN
        for _ in range(100):
            with running.connect() as connection:
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                connection.sendall(ServiceRequest("dotblind", 1, SESSION).pack())
        assert running.answers()
        until(lambda: descriptors(running.workers()[0]) <= before - SESSIONS, "none is left")


def descriptors(pid: int) -> int:
    "Open files of a process."
    return len(os.listdir(f"/proc/{pid}/fd"))


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be somebody else")
def test_another_user_may_not_ask(folder: Path, clients: Clients) -> None:
    with service(folder, "--mode", "666") as running:
        folder.chmod(0o755)
        stranger = subprocess.Popen([clients.folder / "dotblind"], env=SESSION, user=12345, group=12345, extra_groups=[],
                                    stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)  # fmt: skip
        output, log = said(stranger)
        assert output == BY_SCRIPT and any(reason in log for reason in CLOSED)
        assert any(
            "a user who may not ask, so the client runs its script: user 12345" in line for line in running.lines()
        )
        assert clients.run("dotblind")[0] == DOTBLIND
        running.socket.chmod(0o660)
        stranger = subprocess.Popen([clients.folder / "dotblind"], env=SESSION, user=12345, group=12345, extra_groups=[],
                                    stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)  # fmt: skip
        assert said(stranger) == (
            BY_SCRIPT,
            "dotblind: the service doesn't answer (Permission denied), so the script does it\n",
        )


def test_what_a_session_says_of_the_services_affairs(folder: Path) -> None:
    elsewhere = folder / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "rcpthosts").write_text("example.com\n")
    settings = {
        "CONTROLDIR": str(elsewhere),
        "DNSSERVERS": "192.0.2.53",
        "DOTBLINDDOMAINS": str(elsewhere / "rcpthosts"),
    }
    settings |= {name: f"sqlite:{elsewhere}/{name}" for name in ("GREYLISTSTORE", "CHECKBACK_CACHE", "MAILBOX_SQLURL")}
    with service(folder) as running:
        reply = running.ask("dotblind", **settings)
        assert reply and reply.output.decode() == DOTBLIND
        reply = running.ask("greylist", **settings)
        assert reply and os.listdir(elsewhere) == ["rcpthosts"]
    shutil.rmtree(elsewhere)


# What the system lacks


def test_the_disk_for_its_log_is_full(folder: Path, clients: Clients) -> None:
    with open("/dev/full", "wb") as full, service(folder, errors=full) as running:
        for name in ("faulty", "exits", "has_a_thread", "unknown"):
            clients.run(name)
        with running.connect() as connection:
            connection.sendall(b"rubbish")
            assert heard(connection) is None
        os.kill(running.workers()[0], signal.SIGKILL)
        until(running.answers, "another worker")
        assert clients.run("dotblind")[0] == DOTBLIND


def test_nobody_reads_its_log(folder: Path, clients: Clients) -> None:
    reads, writes = os.pipe()
    with os.fdopen(writes, "wb") as pipe, service(folder, errors=pipe) as running:
        os.close(reads)
        assert clients.run("unknown")[0] == BY_SCRIPT
        assert clients.run("dotblind")[0] == DOTBLIND
        os.kill(running.workers()[0], signal.SIGKILL)
        until(running.answers, "another worker")


def test_no_more_open_files(folder: Path, clients: Clients) -> None:
    with service(folder) as running:
        (worker,) = running.workers()
        before = resource.prlimit(worker, resource.RLIMIT_NOFILE)
        resource.prlimit(worker, resource.RLIMIT_NOFILE, (descriptors(worker) + 5, before[1]))
        idle = [running.connect() for _ in range(50)]
        called = [clients.call("dotblind") for _ in range(10)]
        assert {said(each)[0] for each in called} <= {BY_SCRIPT, DOTBLIND}
        for each in idle:
            each.close()
        until(lambda: clients.run("dotblind")[0] == DOTBLIND, "it serves again")
        assert running.workers() == [worker]


def test_few_open_files_are_said_at_the_start(folder: Path, clients: Clients) -> None:
    with service(folder, before=["prlimit", "--nofile=100"]) as running:
        assert any("only 34 connections are possible" in line for line in running.lines())
        idle = [running.connect() for _ in range(60)]
        assert clients.run("dotblind")[0] == BY_SCRIPT
        for each in idle:
            each.close()
        until(lambda: clients.run("dotblind")[0] == DOTBLIND, "there is room")


@pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("setpriv"), reason="only root can be another")
def test_no_more_processes(folder: Path, clients: Clients) -> None:
    other = ["setpriv", "--reuid=12345", "--regid=0", "--clear-groups"]
    capable = ["--inh-caps=+dac_override", "--ambient-caps=+dac_override"]  # Python may be in root's home
    folder.chmod(0o755)
    os.chown(folder, 12345, 0)
    try:
        with service(folder, before=[*other, *capable]) as running:
            limit = [*other, "prlimit", "--pid", str(running.pid)]
            subprocess.run([*limit, "--nproc=1:"], check=True)
            os.kill(running.workers()[0], signal.SIGKILL)
            until(lambda: any("can't start a worker" in line for line in running.lines()), "it says so")
            assert clients.run("dotblind")[0] == BY_SCRIPT
            subprocess.run([*limit, "--nproc=1000:"], check=True)
            until(running.answers, "another worker")
            assert clients.run("dotblind")[0] == DOTBLIND
    finally:
        os.chown(folder, 0, 0)


# In the socket's place


def test_something_else_stands_there(folder: Path) -> None:
    path = folder / "socket"
    target = folder / "target"
    for what, said_there in (("link", "a symbolic link"), ("dangling", "a symbolic link"), ("file", "no socket")):
        if what == "file":
            path.write_text("mine")
        else:
            path.symlink_to(target)
        if what == "link":
            target.write_text("mine")
        running = service(folder)
        running.launch()
        assert running.process and running.process.wait(PATIENCE) == 3
        assert said_there in running.lines()[-1] and len(running.lines()) == 1
        assert path.is_symlink() or path.read_text() == "mine"
        path.unlink()
        running.log.unlink()
        target.unlink(missing_ok=True)


def test_somebody_listens_there(folder: Path, clients: Clients) -> None:
    with service(folder) as running:
        second = service(folder)
        second.log = folder / "second"
        second.launch()
        assert second.process and second.process.wait(PATIENCE) == 3
        assert second.lines() == [f"ra-plugins service: somebody listens on {running.socket} already"]
        assert clients.run("dotblind")[0] == DOTBLIND
    second.log.unlink()


def test_a_socket_that_is_left_is_taken_over(folder: Path, clients: Clients) -> None:
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(folder / "socket"))
    with service(folder):
        assert clients.run("dotblind")[0] == DOTBLIND


def test_another_socket_in_its_place_is_left_alone(folder: Path) -> None:
    running = service(folder)
    running.start()
    running.socket.unlink()
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(running.socket))
        assert running.end() == 0
        assert running.socket.is_socket()
    running.socket.unlink()


def test_a_folder_that_others_can_write_to(folder: Path) -> None:
    for place, mode in ((Path("/tmp"), None), (folder / "open-to-all", 0o777), (folder / "open-to-all", 0o1777)):  # noqa: S108
        if mode:
            place.mkdir(exist_ok=True)
            place.chmod(mode)
        running = service(folder)
        running.socket = place / "ra-plugins-socket"
        running.command[running.command.index("--socket") + 1] = str(running.socket)
        running.launch()
        assert running.process and running.process.wait(PATIENCE) == 3
        assert "may be written to by others" in running.lines()[-1]
        assert not running.socket.exists()
    place.rmdir()
