"""Servers that are real, one context manager each: they listen on loopback and are ended by the test that has them."""

from __future__ import annotations

import asyncio
import shutil
import socket
import ssl
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from aiosmtpd.smtp import SMTP, Envelope, Session

# A mail server that others call, by aiosmtpd


class MailExchanger:
    "Knows some recipients, and notes what it is asked. As a handler of aiosmtpd's, it says what its replies are."

    def __init__(self, known: set[str]):
        self.known, self.sender_reply, self.unknown_reply = known, "250 ok", "550 5.1.1 no such user"
        self.asked: list[tuple[str, str, bool]] = []  # name in EHLO, recipient, and whether TLS is on
        self.senders: list[str] = []
        self.connections: set[Any] = set()  # those that are open
        self.most = 0  # of them at once
        self.held = threading.Event()  # set: RCPT is answered at once
        self.held.set()
        self.port = 0

    async def handle_MAIL(self, server: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]) -> str:
        self.senders.append(address)
        envelope.mail_from = address
        return self.sender_reply

    async def handle_RCPT(self, server: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]) -> str:
        self.asked.append((str(session.host_name), address, session.ssl is not None))
        await asyncio.to_thread(self.held.wait)
        if address not in self.known:
            return self.unknown_reply
        envelope.rcpt_tos.append(address)
        return "250 ok"


class Counted(SMTP):
    "aiosmtpd's server, which also counts connections."

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self.event_handler.connections.add(self)
        self.event_handler.most = max(self.event_handler.most, len(self.event_handler.connections))

    def connection_lost(self, error: Exception | None) -> None:
        self.event_handler.connections.discard(self)
        super().connection_lost(error)


@contextmanager
def mail_exchanger(
    *known: str,  # recipients
    host: str = "127.0.0.2",
    port: int = 0,  # any that is free
    name: str = "mx.example.net",  # that it greets by
    tls: ssl.SSLContext | None = None,  # what STARTTLS is offered with
    require_tls: bool = False,
) -> Iterator[MailExchanger]:
    "A server that takes mail for some recipients."
    handler, listening, running = MailExchanger(set(known)), threading.Event(), asyncio.Runner()
    loop, ended, failed = running.get_loop(), asyncio.Event(), []

    def made() -> SMTP:
        return Counted(handler, hostname=name, tls_context=tls, require_starttls=require_tls, enable_SMTPUTF8=True, loop=loop)

    async def serve() -> None:
        loop.set_exception_handler(lambda loop, context: None)  # clients that leave in the middle are expected
        server = await loop.create_server(made, host, port)
        handler.port = server.sockets[0].getsockname()[1]
        listening.set()
        await ended.wait()
        server.close()
        for each in list(handler.connections):
            each.transport.abort()
        await asyncio.sleep(0)  # sockets are closed at the loop's next turn

    def run() -> None:
        try:
            with running:
                running.run(serve())
        except OSError as error:
            failed.append(error)
            listening.set()

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        assert listening.wait(30)
        if failed:
            raise failed[0]
        yield handler
    finally:
        handler.held.set()
        if not failed:
            loop.call_soon_threadsafe(ended.set)
        thread.join()


def certificate(folder: Path) -> ssl.SSLContext:
    "A server's side of TLS, with a certificate that nobody has signed."
    program = shutil.which("openssl")
    if not program:
        pytest.skip("no openssl (Debian package openssl)")
    key, signed = folder / "key.pem", folder / "certificate.pem"
    subprocess.run(
        [program, "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=other.example", "-days", "2"]
        + ["-keyout", key, "-out", signed],
        check=True,
        capture_output=True,
    )
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(signed, key)
    return context


# A mail server that means harm, byte by byte


@contextmanager
def raw_server(
    converse: Callable[[socket.socket], None],  # called with each connection, in a thread; it may fail at any time
    host: str = "127.0.0.2",
    port: int = 0,
) -> Iterator[int]:  # its port
    "A server that does with its connections whatever a test wants."
    connections: list[socket.socket] = []

    def serve(connection: socket.socket) -> None:
        with connection, suppress(OSError):
            converse(connection)

    def accept() -> None:
        with suppress(OSError):
            while True:
                connection, _ = listener.accept()
                connections.append(connection)
                threads.append(threading.Thread(target=serve, args=(connection,), daemon=True))
                threads[-1].start()

    with socket.create_server((host, port)) as listener:
        threads = [threading.Thread(target=accept, daemon=True)]
        threads[0].start()
        try:
            yield listener.getsockname()[1]
        finally:
            for each in (listener, *connections):
                with suppress(OSError):
                    each.shutdown(socket.SHUT_RDWR)
            for thread in threads:
                thread.join(30)
