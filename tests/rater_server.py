"A rater to test with, in a thread of its own, and servers that misbehave."

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from mailserver import PATIENCE

from ra_plugins.rater.limits import Rule, RuleBook, parse_limit
from ra_plugins.rater.memory import Memory
from ra_plugins.rater.protocol import Rater
from ra_plugins.rater.server import Server, listen, listen_unix


@contextmanager
def rater(
    where: str | Path | int = 0,  # a port, or the path of a Unix socket
    **limits: str,  # of all values, by class: `ip="10 in 1m"`
) -> Iterator[str]:  # its address
    "A rater that listens."
    book = RuleBook({name: [Rule("*", [parse_limit(limit)])] for name, limit in limits.items()})
    server = Server()
    listener = listen("127.0.0.1", where) if isinstance(where, int) else listen_unix(str(where))
    server.serve(listener, Rater(book, Memory()))
    name = listener.getsockname()
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        yield name if isinstance(name, str) else f"{name[0]}:{name[1]}"
    finally:
        server.stopping = True
        thread.join(PATIENCE)


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
