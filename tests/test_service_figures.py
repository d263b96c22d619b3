"""What a running service says of itself: to Prometheus, to `--status`, and in a line for each verdict.

Each test has a service of its own, as a process on a socket in the test's folder.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import stat
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from dns_server import DnsServer
from mailserver import COMMAND, ENVIRON, PATIENCE, until
from prometheus_client.parser import text_string_to_metric_families
from servers import free_port

from ra_plugins.ask.dns import Zone
from ra_plugins.hosts.service.request import ServiceReply, ServiceRequest, read_netstring
from ra_plugins.hosts.service.status import INQUIRIES
from ra_plugins.hosts.service.supervisor import ServiceOptions, Supervisor
from ra_plugins.hosts.service.verdicts import VERDICT_LIMIT
from ra_plugins.spp.session import SAMPLE

PLUGINS = '''
from ra_plugins.ask.dns import Lookup
from ra_plugins.spp.command import Disconnect, Refuse
from ra_plugins.spp.plugin import plugin


@plugin("rcpt", answers=(Refuse,))
def later(session):
    "Refuse for now."
    return Refuse(451, "4.7.1", f"not yet, {session.rcpt_to}")


@plugin("rcpt", answers=(Disconnect,))
def never(session):
    "Refuse for good."
    return Disconnect(554, "5.7.1", "go away")


@plugin("rcpt")
def broken(session):
    "Fail."
    raise RuntimeError("no plugin is perfect")


@plugin("rcpt")
def forever(session):
    "Never come back."
    while True:
        pass


@plugin("rcpt", asks=(Lookup,))
async def curious(session):
    "Ask DNS."
    await Lookup("example.net", "A")
'''


class Service:
    "A service as a process."

    def __init__(self, folder: Path, *options: object, before: str = "", **environ: str):
        self.folder, self.socket, self.lines = folder, folder / "socket", list[str]()
        self.said = threading.Condition()
        control = folder / "control"
        control.mkdir(exist_ok=True)
        (control / "rcpthosts").write_text("example.org\n")
        (folder / "mine.py").write_text(PLUGINS)
        user = ["--user", "root"] if os.geteuid() == 0 else []
        command = [*COMMAND[:2], before + COMMAND[2], "service", "--socket", self.socket, *user, *options, folder / "mine.py"]
        self.process = subprocess.Popen(
            [str(word) for word in command],
            env={**ENVIRON, "CONTROLDIR": str(control), **environ},
            stderr=subprocess.PIPE,
            text=True,
            errors="surrogateescape",
        )
        self.reader = threading.Thread(target=self._read)
        self.reader.start()

    def _read(self) -> None:
        for line in self.process.stderr or ():
            with self.said:
                self.lines.append(line.rstrip("\n"))
                self.said.notify_all()
        with self.said:
            self.lines.append("")
            self.said.notify_all()

    def wait_for(self, words: str, times: int = 1) -> None:
        "Wait until its log has said this so often."

        def heard() -> bool:
            return sum(words in line for line in self.lines) >= times or self.lines[-1:] == [""]

        with self.said:
            assert self.said.wait_for(heard, PATIENCE), self.lines
            assert sum(words in line for line in self.lines) >= times, self.lines

    def connect(self, name: str, **environ: str) -> socket.socket:
        "A client that has asked."
        client = socket.socket(socket.AF_UNIX)
        client.settimeout(PATIENCE)
        client.connect(str(self.socket))
        with suppress(BrokenPipeError):  # hung up on, before it has asked
            client.sendall(ServiceRequest(name, 4711, {**SAMPLE, **environ}).pack())
        return client

    def ask(self, name: str, **environ: str) -> bytes:
        "What a client is to print; nothing if it has to run its script."
        with self.connect(name, **environ) as client:
            received = b""
            with suppress(ConnectionError):
                while data := client.recv(65536):
                    received += data
        while received.startswith(b"0:,"):
            received = received[3:]
        payload = read_netstring(received, 10**6)
        return ServiceReply.unpack(payload).output if payload else b""

    def status(self) -> dict[str, Any]:
        "As `--status --json` has it."
        done = status_of(self.socket, "--json")
        assert (done.returncode, done.stderr) == (0, "")
        told: dict[str, Any] = json.loads(done.stdout)
        return told

    def end(self) -> int:
        "End it; its exit status."
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(PATIENCE)
        self.reader.join(PATIENCE)
        return self.process.returncode


def status_of(path: Path, *options: str) -> subprocess.CompletedProcess[str]:
    "`ra-plugins service --status`."
    command = [*COMMAND, "service", "--status", "--socket", str(path), *options]
    return subprocess.run(command, env=ENVIRON, capture_output=True, text=True, timeout=PATIENCE)


Start = Callable[..., Service]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    "Starts a service, and ends it."
    with ExitStack() as services:

        def begin(*options: object, ready: bool = True, **environ: str) -> Service:
            service = Service(tmp_path, *options, **environ)
            services.callback(service.end)
            if ready:
                service.wait_for("ready on")
            return service

        yield begin


# Metrics


def metrics(port: int) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    "What Prometheus reads, by name and labels."
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=PATIENCE) as page:
        families = [*text_string_to_metric_families(page.read().decode())]
    return {(each.name, frozenset(each.labels.items())): each.value for family in families for each in family.samples}


def labelled(found: Mapping[tuple[str, frozenset[tuple[str, str]]], float], name: str, **labels: str) -> float | None:
    "A number of those, None for none."
    return found.get((f"ra_plugins_{name}", frozenset(labels.items())))


def test_metrics_tell_verdicts_and_times(start: Start) -> None:
    port = free_port()
    service = start("--metrics", f"127.0.0.1:{port}", "--workers", 2)
    for name, times in (("dotblind", 3), ("later", 2), ("never", 1), ("broken", 1), ("missing", 1)):
        for _ in range(times):
            service.ask(name)
    found = metrics(port)
    assert labelled(found, "verdicts_total", plugin="dotblind", verdict="go on") == 3
    assert labelled(found, "verdicts_total", plugin="later", verdict="refuse 4xx") == 2
    assert labelled(found, "verdicts_total", plugin="never", verdict="disconnect 5xx") == 1
    assert labelled(found, "verdicts_total", plugin="broken", verdict="go on") == 1
    assert labelled(found, "verdicts_total", plugin="missing", verdict="go on") is None
    assert labelled(found, "decision_seconds_bucket", plugin="dotblind", le="+Inf") == 3
    assert labelled(found, "decision_seconds_count", plugin="later") == 2
    assert labelled(found, "plugin_errors_total") == 1 and labelled(found, "steps_cut_total") == 0
    assert labelled(found, "clients_sent_back_total", reason="a plugin that isn't here") == 1
    assert labelled(found, "connections_accepted_total") == 8 and labelled(found, "workers") == 2


def test_metrics_tell_what_the_cache_saves(start: Start) -> None:
    port = free_port()
    with DnsServer(Zone({("example.net", "A"): ["192.0.2.1"]})) as dns:
        service = start("--metrics", port, DNSSERVERS=f"127.0.0.1#{dns.port}")
        for _ in range(3):
            service.ask("curious")
        found, sent = metrics(port), len(dns.queries)
    assert labelled(found, "questions_total", kind="Lookup", answer="answered") == 3
    assert labelled(found, "questions_at_once_total", kind="Lookup") == 2
    assert labelled(found, "answerers_total", answerer="ResolverAnswerer", what="queries sent") == sent == 1


def test_metrics_tell_steps_cut_and_workers_that_ended(start: Start) -> None:
    port = free_port()
    service = start("--metrics", port)
    assert service.ask("forever") == b""
    (worker,) = service.status()["workers"]
    os.kill(worker["pid"], signal.SIGKILL)
    service.wait_for("a worker has ended by signal 9")
    until(lambda: [each["pid"] for each in service.status()["workers"]] not in ([], [worker["pid"]]), "another worker")
    found = metrics(port)
    assert labelled(found, "steps_cut_total") == 1  # also of a worker that has been killed since
    assert labelled(found, "workers_ended_total") == 1 and labelled(found, "workers_killed_total") == 0


def test_a_worker_that_hangs_is_killed_and_told(start: Start) -> None:
    hasty = "import ra_plugins.hosts.service.supervisor as it; it.STUCK_SECONDS = it.LOOK_SECONDS = 0.5; "
    service = start("--workers", 2, before=hasty)
    hanging, other = [worker["pid"] for worker in service.status()["workers"]]
    os.kill(hanging, signal.SIGSTOP)
    service.wait_for("a worker hasn't answered")
    until(lambda: len({worker["pid"] for worker in service.status()["workers"]} - {hanging}) == 2, "another worker")
    told = service.status()
    assert other in [worker["pid"] for worker in told["workers"]]
    assert (told["events"]["workers killed"], told["events"]["workers that ended by themselves"]) == (1, 0)


def test_clients_sent_back_are_counted_by_reason(start: Start) -> None:
    port = free_port()
    service = start("--metrics", port, "--connections", 1)
    with socket.socket(socket.AF_UNIX) as idle, socket.socket(socket.AF_UNIX) as rubbish:
        idle.connect(str(service.socket))
        assert service.ask("dotblind") == b""
        service.wait_for("too many connections")
        idle.close()
        until(lambda: service.status()["connections"]["open"] == 0, "the idle connection is closed")
        rubbish.settimeout(PATIENCE)
        rubbish.connect(str(service.socket))
        with suppress(ConnectionError):
            rubbish.sendall(b"GET / HTTP/1.0\r\n\r\n")
            assert rubbish.recv(1) == b""
    found = metrics(port)
    assert labelled(found, "clients_sent_back_total", reason="too many connections") == 1
    assert labelled(found, "clients_sent_back_total", reason="no request") == 1
    assert service.status()["sent_back"] == {"no request": 1, "too many connections": 1}


def test_metrics_are_for_this_machine_and_in_bounds(start: Start) -> None:
    port = free_port()
    start("--metrics", port)
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.2", port), PATIENCE)
    for path, status in (("/", 404), ("/metrics/", 404)):
        with pytest.raises(urllib.error.HTTPError) as caught:
            urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=PATIENCE)
        assert caught.value.code == status
        caught.value.close()
    with ExitStack() as connections:
        idle = [connections.enter_context(socket.create_connection(("127.0.0.1", port), PATIENCE)) for _ in range(INQUIRIES)]
        with socket.create_connection(("127.0.0.1", port), PATIENCE) as one_more, suppress(ConnectionError):
            assert one_more.recv(1) == b""
        for connection in idle:  # each is closed when its time is up
            with suppress(ConnectionError):
                assert connection.recv(1) == b""
    assert labelled(metrics(port), "workers") == 1
    with socket.create_connection(("127.0.0.1", port), PATIENCE) as endless, suppress(ConnectionError):
        while True:
            endless.sendall(b"x" * 65536)


def test_idle_connections_shut_nobody_out(start: Start) -> None:
    port = free_port()
    start("--metrics", port)
    with ExitStack() as connections:
        for _ in range(3 * INQUIRIES):
            connections.enter_context(socket.create_connection(("127.0.0.1", port), PATIENCE))
        assert labelled(metrics(port), "workers") == 1
        assert labelled(metrics(port), "workers_silent") == 0


def test_metrics_tell_a_worker_that_hangs(start: Start) -> None:
    port = free_port()
    service = start("--metrics", port)
    (worker,) = service.status()["workers"]
    os.kill(worker["pid"], signal.SIGSTOP)
    try:
        assert labelled(metrics(port), "workers_silent") == 1
    finally:
        os.kill(worker["pid"], signal.SIGCONT)


def test_counts_never_go_back(start: Start) -> None:
    port = free_port()
    with DnsServer(Zone({("example.net", "A"): ["192.0.2.1"]}), fault="late") as dns:
        service = start("--metrics", port, DNSSERVERS=f"127.0.0.1#{dns.port}")
        service.ask("dotblind")
        with service.connect("curious") as waiting:
            assert dns.wait_for(1)
            before = metrics(port)
            assert labelled(before, "connections") == 1
            service.process.send_signal(signal.SIGHUP)
            service.wait_for("new workers have taken over")
            service.ask("dotblind")
            after = metrics(port)
            assert labelled(after, "verdicts_total", plugin="dotblind", verdict="go on") == 2
            assert sorted(worker["leaving"] for worker in service.status()["workers"]) == [False, True]
            dns.release()
            while waiting.recv(65536):
                pass
        until(lambda: len(service.status()["workers"]) == 1, "the old worker has ended")
        last = metrics(port)
    assert labelled(last, "verdicts_total", plugin="dotblind", verdict="go on") == 2
    assert labelled(last, "verdicts_total", plugin="curious", verdict="go on") == 1
    assert labelled(last, "workers_ended_total") == 0


def test_new_workers_have_taken_over_when_no_old_one_takes_clients(tmp_path: Path) -> None:
    "The log says so no sooner: a client that came then might be counted by one that nobody asks any more."
    lines = list[str]()

    async def scenario() -> None:
        service = Supervisor(ServiceOptions(str(tmp_path / "socket")), lines.append)
        await service.start()
        (old,) = service.workers
        os.kill(old.process.pid, signal.SIGSTOP)  # it can't hear that it is to go
        reloading = asyncio.ensure_future(service.reload())
        while not old.leaving:
            await asyncio.sleep(0.01)
        assert not any("taken over" in line for line in lines)
        os.kill(old.process.pid, signal.SIGCONT)
        await asyncio.wait_for(reloading, PATIENCE)
        await service.end()

    asyncio.run(scenario())
    assert [line for line in lines if "taken over" in line] == ["read again; new workers have taken over"]


def test_metrics_that_cannot_be(start: Start) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        service = start("--metrics", port, ready=False)
        assert service.process.wait(PATIENCE) == 3
        service.wait_for(f"ra-plugins service: can't tell metrics on 127.0.0.1 port {port}: Address already in use")
    missing = start("--metrics", free_port(), ready=False, before="import sys; sys.modules['prometheus_client'] = None; ")
    assert missing.process.wait(PATIENCE) == 3
    missing.wait_for("ra-plugins service: metrics need prometheus_client: pip install 'ra-plugins[service]'")
    assert not missing.socket.exists() and not Path(f"{missing.socket}.status").exists()


# Status


def test_status_of_a_service_that_runs(start: Start) -> None:
    service = start("--workers", 2)
    for name in ("dotblind", "later", "later"):
        service.ask(name)
    done = status_of(service.socket)
    assert (done.returncode, done.stderr) == (0, "")
    first, *lines = done.stdout.splitlines()
    assert first.startswith("ra-plugins service 0.1.0, process ") and ", up " in first
    rows = [line.split() for line in lines]
    assert ["dotblind", "1"] in [row[:2] for row in rows] and ["later", "2"] in [row[:2] for row in rows]
    assert next(row for row in rows if row[:1] == ["later"])[-3:] == ["refuse", "4xx", "2"]
    told = service.status()
    assert told["pid"] == service.process.pid and len(told["workers"]) == 2
    assert {f"/proc/{worker['pid']}" for worker in told["workers"]} <= {str(path) for path in Path("/proc").iterdir()}
    assert told["plugins"]["later"]["verdicts"] == {"refuse 4xx": 2} and told["plugins"]["later"]["median"] < 10
    assert told["connections"] == {"open": 0, "all": 3} and told["events"]["steps cut"] == 0


def test_status_of_none(tmp_path: Path, start: Start) -> None:
    done = status_of(tmp_path / "socket")
    reason = f"ra-plugins service: no service answers on {tmp_path}/socket.status: No such file or directory\n"
    assert (done.returncode, done.stdout, done.stderr) == (3, "", reason)
    service = start()
    assert service.end() == 0
    assert status_of(service.socket).returncode == 3 and [*tmp_path.glob("*socket*")] == []
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(f"{tmp_path}/socket.status")
        other.listen()

        def answer() -> None:
            connection, _ = other.accept()
            connection.sendall(b"220 mail.example.org ESMTP\r\n")
            connection.close()

        thread = threading.Thread(target=answer)
        thread.start()
        done = status_of(tmp_path / "socket")
        thread.join(PATIENCE)
    assert done.returncode == 3 and "no service of ours" in done.stderr


def test_status_socket_is_as_the_first(start: Start) -> None:
    service = start("--mode", "600")
    first, second = (os.stat(path) for path in (service.socket, f"{service.socket}.status"))
    assert stat.S_ISSOCK(second.st_mode) and stat.S_IMODE(second.st_mode) == 0o600
    assert (first.st_uid, first.st_gid) == (second.st_uid, second.st_gid)


def test_mail_goes_on_without_a_status(tmp_path: Path, start: Start) -> None:
    (tmp_path / "elsewhere").touch()
    (tmp_path / "socket.status").symlink_to(tmp_path / "elsewhere")
    service = start()
    service.wait_for("nobody can ask for the status")
    assert service.ask("later").startswith(b"E451 ")
    assert status_of(service.socket).returncode == 3
    service.end()
    assert (tmp_path / "socket.status").is_symlink() and (tmp_path / "elsewhere").read_bytes() == b""


# Verdicts


def verdicts(path: Path) -> list[dict[str, Any]]:
    "The lines of a file, each an object of JSON."
    return [json.loads(line) for line in path.read_bytes().decode().splitlines()]


def test_a_line_for_each_verdict(tmp_path: Path, start: Start) -> None:
    service = start("--verdicts", tmp_path / "verdicts", "--workers", 2)
    service.ask("dotblind", SMTPRCPTTO="ben@example.org")
    service.ask("later", TCPREMOTEIP="2001:db8::1", SMTPMAILFROM="")
    first, second = verdicts(tmp_path / "verdicts")
    for line in (first, second):
        assert abs(datetime.fromisoformat(line.pop("time")) - datetime.now(UTC)) < timedelta(minutes=5)
        assert 0 <= line.pop("milliseconds") < 60_000
    told = {"pid": 4711, "helo": "mail.example.net", "recipient": "ben@example.org"}
    passed = {"plugin": "dotblind", "verdict": "go on", "letter": "", "client": "192.0.2.1", "sender": "ana@example.net"}
    assert first == told | passed
    reply = "451 not yet, ben@example.org (#4.7.1)"
    refused = {"plugin": "later", "verdict": "refuse 4xx", "letter": "E", "client": "2001:db8::1", "sender": "", "reply": reply}
    assert second == told | refused


@pytest.mark.parametrize(
    "words",
    [
        'a"}\n{"verdict": "go on',
        "a\r\u2028\u0085b",
        "\udcff\udcfe" * 3000,
        "\U0001f600" * 5000,
        '"\\' * 5000,
    ],
)
def test_a_client_cannot_write_a_line(tmp_path: Path, start: Start, words: str) -> None:
    service = start("--verdicts", tmp_path / "verdicts")
    assert service.ask("never", SMTPHELOHOST=words, SMTPMAILFROM=words).startswith(b"R554 ")
    content = (tmp_path / "verdicts").read_bytes()
    assert content.count(b"\n") == 1 and content.endswith(b"\n") and len(content) <= VERDICT_LIMIT
    assert verdicts(tmp_path / "verdicts")[0]["verdict"] == "disconnect 5xx"


def test_workers_write_whole_lines(tmp_path: Path, start: Start) -> None:
    service = start("--verdicts", tmp_path / "verdicts", "--workers", 2)

    def many(name: str) -> None:
        for number in range(100):
            service.ask("later", SMTPMAILFROM=f"{name}{number}@example.net", SMTPHELOHOST=name * 800)

    clients = [threading.Thread(target=many, args=(name,)) for name in "abcd"]
    for client in clients:
        client.start()
    for client in clients:
        client.join(PATIENCE)
    senders = [line["sender"] for line in verdicts(tmp_path / "verdicts")]
    assert sorted(senders) == sorted(f"{name}{number}@example.net" for name in "abcd" for number in range(100))


def test_the_file_is_opened_anew(tmp_path: Path, start: Start) -> None:
    service = start("--verdicts", tmp_path / "verdicts")
    service.ask("later")
    (tmp_path / "verdicts").rename(tmp_path / "verdicts.1")
    service.ask("dotblind")
    service.process.send_signal(signal.SIGHUP)
    service.wait_for("new workers have taken over")
    until(lambda: len(service.status()["workers"]) == 1, "the old worker has ended")
    service.ask("never")
    assert [line["plugin"] for line in verdicts(tmp_path / "verdicts.1")] == ["later", "dotblind"]
    assert [line["plugin"] for line in verdicts(tmp_path / "verdicts")] == ["never"]
    assert stat.S_IMODE(os.stat(tmp_path / "verdicts").st_mode) & 0o007 == 0


def test_a_full_disk_is_told_once(start: Start) -> None:
    service = start("--verdicts", "/dev/full")
    for _ in range(20):
        assert service.ask("later").startswith(b"E451 ")
    assert service.end() == 0
    told = [line for line in service.lines if "verdict" in line]
    assert told == ["ra-plugins service: a verdict couldn't be noted: /dev/full: No space left on device"]


def test_nobody_waits_for_a_pipe_that_nobody_empties(tmp_path: Path, start: Start) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    try:
        service = start("--verdicts", pipe)
        for _ in range(40):  # of 2 KB at least, while the pipe takes 64
            assert service.ask("later", SMTPHELOHOST="x" * 900, SMTPMAILFROM="y" * 900).startswith(b"E451 ")
        service.wait_for("a verdict couldn't be noted")
        held = os.read(reader, 10**6).decode()
    finally:
        os.close(reader)
    assert held.endswith("\n") and all(json.loads(line)["plugin"] == "later" for line in held.splitlines())


def test_verdicts_in_the_log(start: Start) -> None:
    service = start("--verdicts", "-")
    service.ask("later")
    assert service.end() == 0
    (line,) = [line for line in service.lines if line.startswith("{")]
    assert json.loads(line)["reply"] == "451 not yet, ben@example.org (#4.7.1)"


def test_verdicts_that_cannot_be_written(tmp_path: Path, start: Start) -> None:
    service = start("--verdicts", tmp_path / "nowhere" / "verdicts", ready=False)
    assert service.process.wait(PATIENCE) == 3
    service.wait_for(f"can't write verdicts to {tmp_path}/nowhere/verdicts: No such file or directory")


def test_nothing_is_imported_for_what_nobody_wants() -> None:
    words = "import sys, ra_plugins.cli.service, ra_plugins.hosts.service.worker; print('prometheus_client' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", words], env=ENVIRON, capture_output=True, text=True, timeout=PATIENCE)
    assert done.stdout == "False\n"
