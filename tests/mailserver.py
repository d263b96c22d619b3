"""A mail server to test with: a qmail home, `ra-plugins smtpd` as a process on it, its log, and two clients."""

from __future__ import annotations

import os
import re
import select
import signal
import smtplib
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import ra_plugins

ROOT = Path(str(ra_plugins.__file__)).resolve().parent.parent
COMMAND = [sys.executable, "-c", "import sys; from ra_plugins.cli.command import main; sys.exit(main())"]
ENVIRON = {"PATH": os.environ.get("PATH", os.defpath), "PYTHONPATH": str(ROOT)}
ME = ("--create", "--user", str(os.getuid()))  # for `ra-plugins install`: whoever runs the tests can also run what they install
PATIENCE = 30  # seconds; what hasn't happened by then never will
DELIVER = "env -0 > environ; cat > message"  # for `--deliver`: keeps what a message comes with
SESSION = re.compile(r"session \d+: ")  # in front of each line of the log that belongs to one
LOG_LINE = re.compile(r"(session \d+: )?[a-z_-]+: pid (\d+|PID) - .*")
COME_AND_GONE = re.compile(r"smtpd: pid \d+ - \S+ (has called|is gone: .*)")


def until(happened: Callable[[], object], what: str) -> None:
    "Wait for what sends no event."
    deadline = time.monotonic() + PATIENCE
    while not happened():
        assert time.monotonic() < deadline, f"never: {what}"
        time.sleep(0.01)


@contextmanager
def beside(
    work: Callable[[], object],
    end: Callable[[], object],  # has `work` return
) -> Iterator[None]:
    "Do some work in a thread of its own, for as long as the block lasts."
    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        end()
        thread.join(PATIENCE)


def plain(reply: str) -> str:
    "The yes to a message, without the time and the number of the process that took it."
    return re.sub(r"^250 ok \d+ qp \d+$", "250 ok", reply)


def gone(*pids: int) -> None:
    "Wait for processes to end, be they children of ours or not."
    for pid in pids:
        try:
            descriptor = os.pidfd_open(pid)
        except ProcessLookupError:
            continue
        ended, _, _ = select.select([descriptor], [], [], PATIENCE)
        os.close(descriptor)
        assert ended, f"process {pid} is still there"


class Home:
    "A qmail home: control files, and our plugins as programs."

    def __init__(self, path: Path, plugins: Path):
        self.path, self.control = path, path / "control"
        self.control.mkdir(parents=True)
        (path / "plugins").symlink_to(plugins)
        self.write(me="mail.example.org\n", rcpthosts="example.org\n", smtpplugins="")

    def write(self, **files: str | bytes) -> None:
        "Write control files."
        for name, content in files.items():
            (self.control / name).write_bytes(content.encode() if isinstance(content, str) else content)

    def plugins(self, *lines: str) -> None:
        "Write control/smtpplugins, a section or a program on each line."
        self.write(smtpplugins="\n".join([*lines, ""]))

    def program(self, name: str, text: str, mode: int = 0o755) -> str:
        "Somebody else's plugin: write it, and return its entry in smtpplugins."
        path = self.path / name
        path.write_text(text)
        path.chmod(mode)
        return name

    def users(self, **passwords: str) -> str:
        "Write a file for `--users`, and return its path."
        path = self.path / "users"
        path.write_text("".join(f"{name}:{password}\n" for name, password in passwords.items()))
        return str(path)

    def lines(self, name: str) -> list[str]:
        "What a plugin wrote into a file of the home folder."
        return (self.path / name).read_text("utf-8", "surrogateescape").splitlines()

    def message(self) -> str:
        "The message that came last, as `DELIVER` keeps it."
        return (self.path / "message").read_bytes().decode("utf-8", "surrogateescape")

    def delivered(self, *names: str) -> list[str | None]:
        "What the variables of these names held when the last message came."
        pairs = (pair.partition(b"=") for pair in (self.path / "environ").read_bytes().split(b"\0"))
        environ = {name.decode(): value.decode("utf-8", "surrogateescape") for name, _, value in pairs}
        return [environ.get(name) for name in names]


class Log:
    "What a server and its plugins write on standard error: a pipe that a thread empties."

    MARK = b"\0read as far as here\0"

    def __init__(self) -> None:
        self.reader, self.writer = os.pipe()
        self.text = b""
        self.grown = threading.Condition()
        self.thread = threading.Thread(target=self._read, daemon=True)
        self.thread.start()

    def _read(self) -> None:
        while chunk := os.read(self.reader, 65536):
            with self.grown:
                self.text += chunk
                self.grown.notify_all()

    def lines(self) -> list[str]:
        "All that has been written since the last call. Our own mark, behind it in the pipe, tells when it is here."
        os.write(self.writer, self.MARK)
        with self.grown:
            assert self.grown.wait_for(lambda: self.MARK in self.text, PATIENCE)
            said, _, self.text = self.text.partition(self.MARK)
        return said.decode("utf-8", "surrogateescape").splitlines()

    def wait_for(self, pattern: str) -> re.Match[str]:
        "Wait until somebody has written this. It stays unread."

        def found() -> re.Match[str] | None:
            return re.search(pattern, self.text.decode("utf-8", "surrogateescape"))

        with self.grown:
            match = self.grown.wait_for(found, PATIENCE)
        assert match, f"no {pattern!r} in the log: {self.text!r}"
        return match

    def close(self) -> None:
        "The end. Processes that live on may still write; nobody reads it."
        os.close(self.writer)


class Wire:
    "A client that says and hears bytes."

    def __init__(self, port: int):
        self.socket = socket.create_connection(("127.0.0.1", port), PATIENCE)
        self.file = self.socket.makefile("rb")

    def send(self, said: bytes) -> None:
        "Say something."
        self.socket.sendall(said)

    def reply(self) -> bytes:
        "Hear one reply, with all its lines."
        heard = line = self.file.readline()
        while line[3:4] == b"-":
            line = self.file.readline()
            heard += line
        return heard

    def say(self, line: bytes) -> bytes:
        "Say one line, and hear the reply."
        self.send(line + b"\r\n")
        return self.reply()

    def rest(self) -> bytes:
        "Hear all that comes until the server hangs up."
        return self.file.read()

    def silent(self) -> bool:
        "Has the server said nothing so far?"
        return not select.select([self.socket], [], [], 0)[0]

    def close(self, abruptly: bool = False) -> None:
        "Leave, without a goodbye; abruptly, with a TCP reset."
        if abruptly:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        self.file.close()
        self.socket.close()


class Client(smtplib.SMTP):
    "Python's SMTP client, with replies as text."

    command_encoding = "utf-8"

    def __init__(self, port: int):
        super().__init__(local_hostname="mail.example.net", timeout=PATIENCE)
        code, text = self.connect("127.0.0.1", port)
        self.banner = f"{code} {text.decode()}"

    def say(self, line: str) -> str:
        "Say one line, and hear the reply."
        code, text = self.docmd(line)
        return f"{code} {text.decode('utf-8', 'surrogateescape')}"

    def say_message(self, text: str) -> str:
        "Say DATA and the message, and hear the reply to it."
        code, reply = self.data(text)
        return plain(f"{code} {reply.decode()}")


class Server:
    "`ra-plugins smtpd` as a process."

    def __init__(self, home: Home, *options: str, environ: dict[str, str] | None = None):
        self.home, self.log = home, Log()
        self.process = subprocess.Popen(
            [*COMMAND, "smtpd", "--control", str(home.control), "--port", "0", *options],
            env={**ENVIRON, **(environ or {})},
            stdin=subprocess.DEVNULL,
            stderr=self.log.writer,
        )
        self.pid = self.process.pid
        self.port = int(self.log.wait_for(r"listening at 127\.0\.0\.1 port (\d+)")[1])
        self.log.lines()

    def client(self) -> Client:
        "A client that has connected."
        return Client(self.port)

    def wire(self) -> Wire:
        "A client that has connected and hasn't heard anything yet."
        return Wire(self.port)

    def talk(self, *lines: str) -> list[str]:
        "One session, and the reply to each line."
        with self.client() as client:
            return [client.say(line) for line in lines]

    def transcript(self, *lines: str) -> list[str]:
        "One session whose client says everything at once and then QUIT: all lines that the server says."
        wire = self.wire()
        wire.send("".join(f"{line}\r\n" for line in (*lines, "QUIT")).encode("utf-8", "surrogateescape"))
        heard = wire.rest().decode("utf-8", "surrogateescape")
        wire.close()
        return [plain(line) for line in heard.removesuffix("\r\n").split("\r\n")]

    def said(self) -> list[str]:
        """What was logged since the last call, but not who came and went, with PID for the server's number, which plugins
        log as qmail-smtpd's, and without the number of the session."""
        lines = [SESSION.sub("", line, count=1) for line in self.log.lines()]
        return [line.replace(f": pid {self.pid} - ", ": pid PID - ") for line in lines if not COME_AND_GONE.fullmatch(line)]

    def children(self) -> list[int]:
        "The processes that it has started and that haven't been waited for."
        return [int(pid) for pid in Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()]

    def descriptors(self) -> list[str]:
        "The files, pipes and sockets that it has open."
        found = []
        for descriptor in Path(f"/proc/{self.pid}/fd").iterdir():
            with suppress(FileNotFoundError):
                found.append(os.readlink(descriptor))
        return found

    def settled(self, descriptors: int) -> None:
        "Wait until nothing of any client is left: no process, and no more than so many descriptors."
        until(lambda: not self.children(), f"no child processes, but {self.children()}")
        until(lambda: len(self.descriptors()) <= descriptors, f"{descriptors} descriptors, but {self.descriptors()}")

    def stop(self) -> list[str]:
        "End it as a service manager would; what it logged and nobody has read yet."
        self.process.send_signal(signal.SIGTERM)
        status = self.process.wait(PATIENCE)
        lines = self.log.lines()
        self.log.close()
        assert status == 0, (status, lines)
        return lines
