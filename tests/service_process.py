"The service as a process, its small client, and sessions that call them, for tests, measurements and hours of both."

from __future__ import annotations

import os
import shutil
import signal
import socket
import struct
import subprocess
import tempfile
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

from mailserver import COMMAND, ENVIRON, PATIENCE, ROOT, until

from ra_plugins.hosts.service.client import compile_client
from ra_plugins.hosts.service.request import SERVICE_REPLY_LIMIT, ServiceReply, ServiceRequest, read_netstring

SESSION = {
    "TCPREMOTEIP": "192.0.2.1",
    "SMTPHELOHOST": "mail.example.net",
    "SMTPMAILFROM": "ana@example.net",
    "SMTPRCPTTO": "b.e.n@example.org",
    "SMTPRCPTCOUNT": "0",
    "SMTPRCPTCOUNTALL": "1",
    "SMTPRCPTHOSTSOK": "1",
}


class Service:
    "`ra-plugins service` on a socket in a folder, with control files beside it. A context manager."

    def __init__(
        self,
        folder: Path,
        *options: str,  # of the command line
        files: Iterable[Path] = (),  # that hold plugins
        control: dict[str, str] | None = None,  # control files by name
        before: Sequence[str] = (),  # a command that runs a command
        errors: int | IO[Any] | None = None,  # where its log goes; by default, to the file `log` in the folder
        **environ: str,
    ):
        self.folder, self.socket, self.control, self.log = folder, folder / "socket", folder / "control", folder / "log"
        self.control.mkdir(exist_ok=True)
        for name, text in {"rcpthosts": "example.org\n", **(control or {})}.items():
            (self.control / name).write_text(text)
        user = ["--user", "root"] if os.geteuid() == 0 and "setpriv" not in before else []
        words = [str(each) for each in files]
        self.command = [*before, *COMMAND, "service", "--socket", str(self.socket), *user, *options, *words]
        self.environ = {**ENVIRON, "PYTHONPATH": f"{ROOT}:{folder}", "CONTROLDIR": str(self.control), **environ}
        self.errors = errors
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        "Start it, and wait until it is ready."
        ready = self.log.read_text().count("ready on") if self.log.exists() else 0
        self.launch()
        if self.errors is None:
            until(lambda: self.log.read_text().count("ready on") > ready or self._ended(), "the service is ready")
        else:
            until(lambda: self.answers() or self._ended(), "the service answers")
        assert not self._ended(), self.log.read_text() if self.log.exists() else "the service has ended"

    def launch(self) -> None:
        "Start it."
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                self.command,
                env=self.environ,
                stdin=subprocess.DEVNULL,
                stderr=log if self.errors is None else self.errors,
                stdout=subprocess.DEVNULL,
            )

    def _ended(self) -> bool:
        return self.process is None or self.process.poll() is not None

    @property
    def pid(self) -> int:
        "The supervisor's."
        assert self.process
        return self.process.pid

    def workers(self) -> list[int]:
        "The workers' process numbers."
        return children(self.pid)

    def end(self) -> int:
        "End it as one does: its exit status."
        assert self.process
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self.kill()
            raise

    def kill(self) -> None:
        "Kill it and its workers, as the kernel does that is out of memory."
        pids = [self.pid, *self.workers()]
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        if self.process:
            self.process.wait(PATIENCE)

    def connect(self) -> socket.socket:
        "A connection."
        connection = socket.socket(socket.AF_UNIX)
        connection.setsockopt(
            socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("ll", int(PATIENCE), 0)
        )  # while its queue is full
        connection.connect(str(self.socket))
        connection.settimeout(PATIENCE)
        return connection

    def ask(self, name: str, **environ: str) -> ServiceReply | None:  # None where the client would run its script
        "Ask as a client does."
        with self.connect() as connection:
            return asked(connection, name, environ)

    def answers(self) -> bool:
        "Does it answer?"
        try:
            return self.ask("msa") is not None
        except OSError:
            return False

    def lines(self) -> list[str]:
        "Of its log."
        return self.log.read_text(errors="replace").splitlines()

    def __enter__(self) -> Service:
        self.start()
        return self

    def __exit__(self, kind: object, *error: object) -> None:
        if kind is None:
            assert self.end() == 0, self.log.read_text()
            assert not self.socket.exists()
        else:
            self.kill()


def children(pid: int) -> list[int]:
    "Of a process that may have ended."
    try:
        return [int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def memory(pid: int) -> int:
    "Bytes that a process alone holds."
    text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    return sum(int(line.split()[1]) << 10 for line in text.splitlines() if line.startswith("Private_"))


def asked(connection: socket.socket, name: str, environ: dict[str, str]) -> ServiceReply | None:
    "Ask on a connection, and hear the answer; None for none."
    with suppress(ConnectionError):
        connection.sendall(ServiceRequest(name, os.getpid(), {**SESSION, **environ}).pack())
        return heard(connection)
    return None


def heard(connection: socket.socket) -> ServiceReply | None:
    "The reply to what has been asked; None for none."
    received = b""
    with suppress(ConnectionError):
        while data := connection.recv(1 << 16):
            received += data
    while received.startswith(b"0:,"):
        received = received[3:]
    payload = read_netstring(received, SERVICE_REPLY_LIMIT) if received else None
    return ServiceReply.unpack(payload) if payload is not None else None


class Clients:
    "The small client under several names, and the scripts that it becomes."

    def __init__(self, folder: Path, socket: Path, names: Iterable[str], script: str = "#!/bin/sh\necho Sby script\n"):
        self.folder = folder
        (folder / "scripts").mkdir(parents=True)
        program = compile_client(str(socket), str(folder / "scripts")).program
        for name in names:
            write_program(folder / name, program)
            write_program(folder / "scripts" / name, script.encode())

    def call(self, name: str, **environ: str) -> subprocess.Popen[bytes]:
        "A client at work, as qmail-smtpd starts it."
        return subprocess.Popen(
            [self.folder / name],
            env={**SESSION, **environ},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )

    def run(self, name: str, **environ: str) -> tuple[str, str]:
        "What one says, and logs."
        return said(self.call(name, **environ))


def write_program(path: Path, program: bytes) -> None:
    "Write a program."
    path.write_bytes(program)
    path.chmod(0o755)


def said(client: subprocess.Popen[bytes]) -> tuple[str, str]:
    "What a client says, and logs; its exit status is 0, whatever happens."
    output, log = client.communicate(timeout=PATIENCE)
    assert client.returncode == 0
    return output.decode(), log.decode().replace(f"pid {os.getpid()} - ", "")


def short_folder() -> Path:
    "A folder whose path leaves room for a socket's name, for the one who makes it to remove."
    return Path(tempfile.mkdtemp(prefix="ra-"))


def remove(folder: Path) -> None:
    "Remove it, and what is in it."
    shutil.rmtree(folder, ignore_errors=True)
