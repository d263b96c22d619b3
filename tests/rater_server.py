"A rater to test with, in a thread of its own or as a process, and servers that misbehave."

from __future__ import annotations

import resource
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

from mailserver import ENVIRON, PATIENCE, beside, until
from servers import free_port

from ra_plugins.rater.limits import Rule, RuleBook, parse_limit
from ra_plugins.rater.memory import Memory
from ra_plugins.rater.protocol import Rater
from ra_plugins.rater.server import LocalListener, RaterServer, listen


@contextmanager
def rater(
    where: str | Path | int = 0,  # a port, or the path of a Unix socket
    **limits: str,  # of all values, by class: `ip="10 in 1m"`
) -> Iterator[str]:  # its address
    "A rater that listens."
    book = RuleBook({name: [Rule("*", [parse_limit(limit)])] for name, limit in limits.items()})
    server = RaterServer()
    listener = listen("127.0.0.1", where) if isinstance(where, int) else LocalListener(str(where))
    server.serve(listener, Rater(book, Memory()))
    name = listener.getsockname()
    with beside(server.run, partial(setattr, server, "stopping", True)):
        yield name if isinstance(name, str) else f"{name[0]}:{name[1]}"


COMMAND = [sys.executable, "-c", "import sys; from ra_plugins.rater.daemon import main; sys.exit(main())"]


class Process:
    "A rater as a process, on a free port, that logs errors to a file. A context manager."

    def __init__(self, folder: Path, limits: str, **settings: int | str):
        self.port, self.log, self.config = free_port(), folder / "log", folder / "rater.toml"
        told = {"port": self.port, "control_port": 0, "log": str(self.log), "log_level": 1, **settings}
        lines = [f"{name} = {value!r}" for name, value in told.items()]
        self.config.write_text("\n".join(["[settings]", *lines, limits, ""]))

    def __enter__(self) -> Process:
        self.process = subprocess.Popen([*COMMAND, "--config", str(self.config)], env=ENVIRON)
        until(self._answers, "rater answers")
        return self

    def _answers(self) -> bool:
        assert self.process.poll() is None, self.log.read_text() if self.log.exists() else "it has ended"
        with suppress(ConnectionRefusedError):
            self.connect().close()
            return True
        return False

    def __exit__(self, *error: object) -> None:
        self.process.terminate()
        assert self.process.wait(PATIENCE) == 0

    def connect(self) -> socket.socket:
        "A connection."
        return socket.create_connection(("127.0.0.1", self.port), PATIENCE)

    def ask(self, data: bytes) -> bytes:
        "Send bytes, and hear what comes until rater closes the connection."
        with self.connect() as client:
            with suppress(ConnectionError):  # it has heard enough
                client.sendall(data)
            return everything(client)

    def memory(self) -> int:
        "Bytes that the process has in memory."
        return int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1]) * resource.getpagesize()


def everything(client: socket.socket) -> bytes:
    "What comes until the other side closes the connection."
    heard = b""
    while chunk := client.recv(65536):
        heard += chunk
    return heard


class Misbehaving:
    "A server that does something with each connection. It notes which clients have left."

    def __init__(self, handle: Callable[[socket.socket], None]):
        self.handle, self.left = handle, threading.Semaphore(0)
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.address = "{}:{}".format(*self.listener.getsockname())
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        with suppress(OSError):  # the listener has been closed
            while True:
                connection, _ = self.listener.accept()
                threading.Thread(target=self._handle, args=(connection,), daemon=True).start()

    def _handle(self, connection: socket.socket) -> None:
        with connection, suppress(OSError):
            self.handle(connection)
            while connection.recv(1000):
                pass
        self.left.release()

    def has_left(self) -> bool:
        "Wait until one more client has closed its connection."
        return self.left.acquire(timeout=PATIENCE)

    def close(self) -> None:
        "Listen no more."
        with suppress(OSError):
            self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
