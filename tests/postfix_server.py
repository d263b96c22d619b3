"""Debian's Postfix, started on loopback with a configuration of its own; what asks like it, and what answers it.

`with Postfix(folder, {"smtpd_recipient_restrictions": …}) as server` has a Postfix at `server.port`, which takes mail for
example.org into a folder, throws away mail for example.net, and believes what a client says by XCLIENT about itself.
"""

from __future__ import annotations

import os
import re
import shutil
import smtplib
import socket
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import mkdtemp
from typing import Self

import pytest
from mailserver import COMMAND, ENVIRON, PATIENCE, until
from servers import free_port
from service_process import Service

MASTER = Path("/usr/lib/postfix/sbin/master")
MASTER_CF = """\
127.0.0.1:{port} inet n - n - {smtpds} smtpd
rewrite   unix - - n - - trivial-rewrite
cleanup   unix n - n - 0 cleanup
qmgr      unix n - n 300 1 qmgr
bounce    unix - - n - 0 bounce
defer     unix - - n - 0 bounce
trace     unix - - n - 0 bounce
error     unix - - n - - error
smtp      unix - - n - - smtp
discard   unix - - n - - discard
virtual   unix - n n - - virtual
anvil     unix - - n - 1 anvil
proxymap  unix - - n - - proxymap
showq     unix n - n - - showq
postlog   unix-dgram n - n - 1 postlogd
"""
GATE = """
import asyncio, os
from ra_plugins.ask.answerer import Answerer
from ra_plugins.ask.question import Question

HERE = os.path.dirname(os.path.abspath(__file__))


class Gate(Question[str]):
    "Is it open?"

    answerer = f"{__name__}:GateAnswerer"


class GateAnswerer(Answerer):
    "Knows when the gate opens: as soon as there is such a file."

    async def aanswer(self, question, until):
        with open(f"{HERE}/arrived", "ab", 0) as file:
            file.write(b".")
        while not os.path.exists(f"{HERE}/open"):
            await asyncio.sleep(0.01)
        return "open"
"""  # of a plugin's file: a question that is answered when the file `open` is there
SETTINGS = {
    "compatibility_level": "3.6",
    "queue_directory": "{folder}/spool",
    "data_directory": "{folder}/data",
    "maillog_file": "{folder}/maillog",
    "maillog_file_prefixes": "{folder}",
    "myhostname": "mx.example.org",
    "mydestination": "",
    "inet_protocols": "ipv4",
    "virtual_mailbox_domains": "example.org",
    "virtual_mailbox_maps": "static:box/",
    "virtual_mailbox_base": "{folder}/mail",
    "virtual_uid_maps": "static:65534",
    "virtual_gid_maps": "static:65534",
    "relay_domains": "example.net",
    "relay_transport": "discard:",
    "default_transport": "discard:",
    "local_transport": "error:none",
    "alias_maps": "",
    "smtpd_authorized_xclient_hosts": "127.0.0.1",
    "smtpd_client_connection_count_limit": "0",
    "smtpd_policy_service_retry_delay": "1s",
}


def a_folder() -> Path:
    "One that Postfix's user may pass through, for whoever made it to remove. Skips the test if no Postfix can be started."
    if os.geteuid() or not MASTER.exists():
        pytest.skip("to start a Postfix takes one that is installed, and root")
    folder = Path(mkdtemp(prefix="ra-"))
    folder.chmod(0o755)
    return folder


def greets(port: int) -> bool:
    "Does a mail server there?"
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), PATIENCE) as client:
        client.settimeout(PATIENCE)
        return client.recv(3) == b"220"
    return False


class Postfix:
    "A Postfix of our own. A context manager."

    def __init__(
        self,
        folder: Path,
        settings: Mapping[str, str],  # of main.cf, in place of those above or beside them
        smtpds: str = "-",  # how many there may be; 100 by default
    ):
        self.folder, self.port, self.smtpds = folder, free_port(), smtpds
        self.settings = {**SETTINGS, **settings}

    def __enter__(self) -> Self:
        lines = (f"{name} = {value}\n" for name, value in self.settings.items())
        (self.folder / "main.cf").write_text("".join(lines).replace("{folder}", str(self.folder)))
        (self.folder / "master.cf").write_text(MASTER_CF.format(port=self.port, smtpds=self.smtpds))
        for name, owner in {"spool": "root", "data": "postfix", "mail": "nobody"}.items():
            (self.folder / name).mkdir()
            shutil.chown(self.folder / name, owner)
        environ = {**os.environ, "MAIL_CONFIG": str(self.folder)}
        subprocess.run(["postfix", "-c", str(self.folder), "check"], check=True, env=environ, capture_output=True)
        self.process = subprocess.Popen(
            [MASTER, "-c", str(self.folder), "-d"], env=environ, stdin=subprocess.DEVNULL, start_new_session=True
        )
        try:
            until(lambda: greets(self.port), "Postfix greets")
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(self, *error: object) -> None:
        self._end()

    def _end(self) -> None:
        self.process.terminate()
        self.process.wait(PATIENCE)

    def log(self) -> str:
        "What it has logged."
        with suppress(FileNotFoundError):
            return (self.folder / "maillog").read_text(errors="replace")
        return ""

    def mail(self) -> list[str]:
        "The messages that have come in."
        return [path.read_text() for path in sorted((self.folder / "mail").glob("box/new/*"))]

    def client(self, ip: str = "192.0.2.1", helo: str = "mail.example.net", **more: str) -> smtplib.SMTP:
        "A client that has said EHLO, as from that address; more: XCLIENT's attributes."
        client = smtplib.SMTP("127.0.0.1", self.port, helo, PATIENCE)
        client.ehlo()
        told = {"ADDR": ip, "NAME": "[UNAVAILABLE]", **more}
        assert client.docmd("XCLIENT", " ".join(f"{name}={value}" for name, value in told.items()))[0] == 220
        client.ehlo()
        return client

    def send(
        self, *recipients: str, sender: str = "ana@example.net", subject: str = "hello", **client: str
    ) -> list[str]:
        "Send a message: the replies at RCPT, and if one was 250, that to the message."
        with self.client(**client) as smtp:
            smtp.mail(sender)
            replies = [smtp.rcpt(each) for each in recipients]
            if any(code == 250 for code, _ in replies):
                try:
                    replies.append(smtp.data(f"Subject: {subject}\n\nHello\n"))
                except smtplib.SMTPDataError as error:  # refused at DATA itself
                    replies.append((error.smtp_code, error.smtp_error))  # type: ignore[arg-type]
        return [f"{code} {text.decode()}" for code, text in replies]


def codes(replies: Iterable[str]) -> list[int]:
    "Of replies."
    return [int(reply[:3]) for reply in replies]


def request(recipient: str = "ben", more: bytes = b"", **attributes: str) -> bytes:
    "A request of Postfix's, at RCPT, as it goes over the wire."
    told = {
        "request": "smtpd_access_policy",
        "protocol_state": "RCPT",
        "protocol_name": "ESMTP",
        "helo_name": "mail.example.net",
        "queue_id": "8045F2AB23",
        "sender": "ana@example.net",
        "recipient": recipient and f"{recipient}@example.org",
        "recipient_count": "0",
        "client_address": "192.0.2.1",
        "client_name": "mail.example.net",
        "instance": "123.456.7",
        "size": "12345",
        **attributes,
    }
    return (
        "".join(f"{name}={value}\n" for name, value in told.items()).encode("utf-8", "surrogateescape") + more + b"\n"
    )


class Asking:
    "A connection of an smtpd process."

    def __init__(self, address: str | tuple[str, int]):
        self.socket = socket.socket(socket.AF_UNIX if isinstance(address, str) else socket.AF_INET)
        self.socket.settimeout(PATIENCE)
        self.socket.connect(address)

    def __enter__(self) -> Asking:
        return self

    def __exit__(self, *error: object) -> None:
        self.socket.close()

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def answer(self) -> str:  # empty if the connection was closed
        "The next answer."
        received = b""
        try:
            while not received.endswith(b"\n\n"):
                if not (data := self.socket.recv(1)):
                    assert received == b""
                    return ""
                received += data
        except ConnectionError:
            return ""
        assert received.startswith(b"action=") and received.count(b"\n") == 2
        return received[7:-2].decode()

    def ask(self, *recipients: str, **attributes: str) -> list[str]:
        "The answers about these."
        answers = []
        for recipient in recipients:
            self.send(request(recipient, b"", **attributes))
            answers.append(self.answer())
        return answers


class PolicySockets(Service):
    "What listens for Postfix at a path and at a port."

    def __enter__(self) -> Self:
        self.start()
        return self

    @property
    def unix(self) -> str:
        return str(self.folder / "policy")

    @property
    def inet(self) -> tuple[str, int]:
        "The port that it says it listens on."
        (port,) = re.findall(r"ready on .*inet:127\.0\.0\.1:(\d+)", self.log.read_text())[-1:]
        return "127.0.0.1", int(port)

    @property
    def check(self) -> str:
        "What main.cf says to have it asked at the port."
        return f"check_policy_service inet:127.0.0.1:{self.inet[1]}"


class Policies(PolicySockets):
    "`ra-plugins postfix`, at a path and at a port."

    def __init__(
        self,
        folder: Path,
        chains: str,  # control/postfixplugins
        *options: str,
        files: Iterable[Path] = (),  # that hold plugins
        port: int = 0,  # any that is free
        **environ: str,
    ):
        control = {"postfixplugins": chains, "me": "mx.example.org\n"}
        super().__init__(folder, control=control, **environ)  # type: ignore[arg-type]
        user = ["--user", "root"] if os.geteuid() == 0 else []
        plugins = [word for each in files for word in ("--plugins", str(each))]
        places = [f"unix:{folder}/policy", f"inet:127.0.0.1:{port}"]
        self.command = [*COMMAND, "postfix", *places, *user, *plugins, *options]

    def end_at_once(self) -> None:
        "Kill it, as if the machine had no memory left."
        self.kill()


# spf-engine, which is postfix-policyd-spf-python: it takes requests on standard input, as Postfix's spawn(8) gives them.

POLICYD_SPF = """\
import sys
import dns.resolver
asking = dns.resolver.Resolver(configure=False)
asking.nameservers, asking.port = ["127.0.0.1"], int(sys.argv.pop(1))
dns.resolver.default_resolver = asking
from spf_engine.policyd_spf import main
main()
"""
POLICYD_SPF_CONF = {  # as Debian ships it, but that nothing is known of this host
    "debugLevel": "-1",
    "TestOnly": "1",
    "HELO_reject": "Fail",
    "Mail_From_reject": "Fail",
    "PermError_reject": "False",
    "TempError_Defer": "False",
    "skip_addresses": "127.0.0.0/8,::ffff:127.0.0.0/104,::1",
}


class PolicydSpf:
    "spf-engine as a process, with that nameserver."

    def __init__(self, folder: Path, nameserver: int, **settings: str):
        conf = folder / "policyd-spf.conf"
        conf.write_text("".join(f"{name} = {value}\n" for name, value in {**POLICYD_SPF_CONF, **settings}.items()))
        words = [sys.executable, "-W", "ignore", "-c", POLICYD_SPF, str(nameserver), str(conf)]
        self.process: subprocess.Popen[bytes] = subprocess.Popen(
            words, env=ENVIRON, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )

    def ask(self, data: bytes) -> str:
        "The action for a request."
        assert self.process.stdin and self.process.stdout
        self.process.stdin.write(data)
        self.process.stdin.flush()
        action, end = self.process.stdout.readline(), self.process.stdout.readline()
        assert action.startswith(b"action=") and end == b"\n", (action, end)
        return action[7:-1].decode()

    def end(self) -> None:
        "It has no more requests."
        self.process.communicate(timeout=PATIENCE)


@contextmanager
def policyd_spf(folder: Path, nameserver: int, **settings: str) -> Iterator[PolicydSpf]:
    "spf-engine, for as long as the block lasts."
    theirs = PolicydSpf(folder, nameserver, **settings)
    try:
        yield theirs
    finally:
        theirs.end()
