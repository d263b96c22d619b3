"""What a service lacks, and who doesn't do his part: no open files, a log that nobody reads, children, plugins that hang."""

from __future__ import annotations

import asyncio
import os
import resource
import signal
import socket
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from mailserver import PATIENCE, gone, until
from service_process import SESSION, Service, heard, remove, short_folder

from ra_plugins.ask.exchange import SOCKET_LIMIT
from ra_plugins.hosts.service import decider, supervisor
from ra_plugins.hosts.service.request import ServiceReply, ServiceRequest
from ra_plugins.hosts.service.status import ask_status, status_table
from ra_plugins.hosts.service.worker import ANSWERER_FILES
from ra_plugins.spp.plugin import plugin
from ra_plugins.support.listening import SPARE_FILES

DOTBLIND = b"Cben@example.org\n"
PLUGINS = """
import os, signal
from ra_plugins.ask.dns import Lookup
from ra_plugins.spp.command import SetVariable
from ra_plugins.spp.plugin import plugin
import ra_plugins.hosts.service.worker as worker

worker.HANGING_SECONDS = float(os.environ.get("HANGING", worker.HANGING_SECONDS))


def child():
    return SetVariable("CHILD", str(pid)) if (pid := os.fork()) else None


@plugin("rcpt", answers=(SetVariable,))
def returns(session):
    "Have a child, and both go on."
    return child()


@plugin("rcpt", answers=(SetVariable,))
def raises(session):
    "Have a child that raises an exception."
    return child() or 1 // 0


@plugin("rcpt", asks=(Lookup,), answers=(SetVariable,))
async def asks(session):
    "Have a child that asks."
    made = child()
    if not made:
        await Lookup("example.net", "A")
    return made


@plugin("rcpt")
def numb(session):
    "Hang where no alarm is heard."
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGALRM, signal.SIGTERM})
    open(os.path.join(os.path.dirname(__file__), "hanging"), "w").close()
    while True:
        pass


@plugin("rcpt")
def prints(session):
    "Print to standard error."
    import sys
    print("x" * 1000, file=sys.stderr)
"""


@pytest.fixture
def folder() -> Iterator[Path]:
    "A folder with the plugins on this page."
    made = short_folder()
    (made / "hardships.py").write_text(PLUGINS)
    yield made
    remove(made)


def service(folder: Path, *options: str, errors: int | None = None, **environ: str) -> Service:
    "One with these plugins."
    return Service(folder, *options, files=[folder / "hardships.py"], errors=errors, **environ)  # type: ignore[arg-type]


def answer(reply: ServiceReply | None) -> bytes | None:
    "What a client prints; None if its script runs."
    return reply.output if reply else None


# No open files


def allow_no_more(pid: int) -> None:
    "No file that this process opens from now on."
    taken = {int(each) for each in os.listdir(f"/proc/{pid}/fd")}
    free = next(number for number in range(len(taken) + 1) if number not in taken)
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (free, resource.prlimit(pid, resource.RLIMIT_NOFILE)[1]))


@pytest.mark.parametrize("loop", ["uvloop", "asyncio"])
def test_clients_are_hung_up_on_at_once_and_counted(folder: Path, loop: str) -> None:
    if loop == "asyncio":
        (folder / "uvloop.py").write_text("raise ImportError")
    with service(folder) as running:
        assert answer(running.ask("dotblind")) == DOTBLIND
        (worker,) = running.workers()
        before = resource.prlimit(worker, resource.RLIMIT_NOFILE)
        allow_no_more(worker)
        for _ in range(20):
            with running.connect() as waiting:
                assert heard(waiting) is None
        assert ask_status(str(running.socket))["sent_back"] == {"no open files": 20}
        (line,) = [line for line in running.lines() if "ready on" not in line]
        assert line == "ra-plugins service: no open files, so the client runs its script: Too many open files"
        resource.prlimit(worker, resource.RLIMIT_NOFILE, before)
        assert answer(running.ask("dotblind")) == DOTBLIND


def test_a_worker_without_open_files_is_replaced(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor, "STARVING_SECONDS", 0.1)
    monkeypatch.setattr(supervisor, "LOOK_SECONDS", 0.1)
    path, log = str(folder / "socket"), list[str]()

    async def serve() -> None:
        running = supervisor.Supervisor(supervisor.ServiceOptions(path), log.append)
        await running.start()
        (worker,) = running.workers
        allow_no_more(worker.process.pid)
        reader, writer = await asyncio.open_unix_connection(path)
        with suppress(ConnectionError):
            assert await reader.read() == b""
        await asyncio.wait_for(worker.ended.wait(), PATIENCE)
        writer.close()
        reader, writer = await asyncio.open_unix_connection(path)
        writer.write(ServiceRequest("msa", 1, SESSION).pack())
        assert await reader.read() != b""
        writer.close()
        assert running.own.events["workers replaced"] == 1 and running.own.events["workers that ended by themselves"] == 0
        await running.end()

    asyncio.run(serve())
    assert log == ["a worker has had no open files for 0.1 s; another takes over"]


def test_there_are_files_for_who_asks(folder: Path) -> None:
    assert SPARE_FILES + ANSWERER_FILES >= SOCKET_LIMIT + 100
    running = service(folder)
    running.command = ["prlimit", "--nofile=1024", *running.command]
    with running:
        assert any("only 640 connections are possible" in line for line in running.lines())
        soft, _ = resource.prlimit(running.workers()[0], resource.RLIMIT_NOFILE)
        assert soft == 1024


# A log that nobody reads


@pytest.fixture(params=["pipe", "socket"])
def full(request: pytest.FixtureRequest) -> Iterator[tuple[int, int]]:
    "Two ends, of which the second takes nothing more."
    if request.param == "pipe":
        ends = os.pipe()
    else:
        first, second = socket.socketpair()
        ends = first.detach(), second.detach()
    os.set_blocking(ends[1], False)
    with suppress(BlockingIOError):
        while True:
            os.write(ends[1], b"x" * 999 + b"\n")
    with suppress(BlockingIOError):
        while True:
            os.write(ends[1], b"\n")
    os.set_blocking(ends[1], True)
    yield ends
    for end in ends:
        os.close(end)


def test_a_log_that_nobody_reads_holds_nobody_up(folder: Path, full: tuple[int, int]) -> None:
    reads, writes = full
    with service(folder, "--verdicts", "-", errors=writes) as running:
        with running.connect() as rubbish:
            rubbish.sendall(b"rubbish")
            assert heard(rubbish) is None
        for name in ("prints", "unknown", "dotblind"):
            running.ask(name)
        assert answer(running.ask("dotblind")) == DOTBLIND
        for worker in running.workers():
            os.kill(worker, signal.SIGKILL)
        until(running.answers, "another worker")
        assert running.process
        running.process.send_signal(signal.SIGHUP)
        until(lambda: len(running.workers()) == 1 and running.answers(), "it has read again")
        assert answer(running.ask("dotblind")) == DOTBLIND
        assert ask_status(str(running.socket))["events"]["lines of the log that are lost"] > 0
        told = b""
        os.set_blocking(reads, False)

        def is_told() -> bool:
            nonlocal told
            with suppress(BlockingIOError):
                told += os.read(reads, 10**6)
            return b" lines before this one are lost" in told

        until(is_told, "it says that lines are lost")


def test_a_worker_ends_whose_supervisor_is_gone(folder: Path, full: tuple[int, int]) -> None:
    running = service(folder, "--verdicts", "-", errors=full[1])
    running.start()
    workers = running.workers()
    running.ask("dotblind")
    os.kill(running.pid, signal.SIGKILL)
    running.end()
    gone(*workers)
    running.socket.unlink()


def test_a_worker_ends_that_hangs_when_its_supervisor_is_gone(folder: Path) -> None:
    running = service(folder, HANGING="2")
    running.start()
    (worker,) = running.workers()
    with running.connect() as hanging:
        hanging.sendall(ServiceRequest("numb", 1, SESSION).pack())
        until((folder / "hanging").exists, "it hangs")
        os.kill(running.pid, signal.SIGKILL)
        running.end()
        gone(worker)
        assert heard(hanging) is None
    running.socket.unlink()


# Children


@pytest.mark.parametrize("name", ["returns", "raises", "asks"])
@pytest.mark.parametrize("loop", ["uvloop", "asyncio"])
def test_a_child_of_a_plugin_is_no_worker(folder: Path, name: str, loop: str) -> None:
    if loop == "asyncio":
        (folder / "uvloop.py").write_text("raise ImportError")
    with service(folder) as running:
        before = running.workers()
        for _ in range(3):
            reply = answer(running.ask(name))
            assert reply and reply.startswith(b"SCHILD=") and reply.count(b"\n") == 1
            gone(int(reply.removeprefix(b"SCHILD=")))
        assert [answer(running.ask("dotblind")) for _ in range(10)] == [DOTBLIND] * 10
        assert running.workers() == before
        assert ask_status(str(running.socket))["connections"] == {"open": 0, "all": 13}


# Plugins that hang


def test_a_worker_that_hangs_is_shown(folder: Path) -> None:
    with service(folder, "--workers", "2") as running:
        hanging, other = running.workers()
        os.kill(hanging, signal.SIGSTOP)
        try:
            status = ask_status(str(running.socket))
        finally:
            os.kill(hanging, signal.SIGCONT)
        silent = {worker["pid"]: worker["silent"] for worker in status["workers"]}
        assert silent[hanging] >= 1 and silent[other] == 0
        (line,) = [line for line in status_table(status).splitlines() if "hasn't answered for" in line]
        assert line.split()[0] == str(hanging)


def test_a_plugin_that_hangs_again_and_again_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decider, "STEP_SECONDS", 0.05)
    runs, log = list[int](), list[str]()

    @plugin("rcpt")
    def endless(session: object) -> None:
        "Never come back."
        runs.append(1)
        while True:
            pass

    async def decide() -> list[str]:
        made = decider.Decider({"endless": endless}, {}, log.append)
        replies = [await made.outcome(ServiceRequest("endless", 1, dict(SESSION))) for _ in range(5)]
        assert made.counts.events["decisions of plugins left alone"] == 2 and made.counts.events["steps cut"] == 3
        assert made.counts.verdicts["endless", "go on"] == 5
        return [line for reply in replies for line in reply.log]

    lines = asyncio.run(decide())
    assert len(runs) == 3 and ["hung too often" in line for line in lines] == [False] * 3 + [True] * 2
    assert log == ["endless has hung 3 times within 60 s: it isn't run for 60 s"]
