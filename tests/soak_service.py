"""An hour of mixed sessions, and the service stays as it was: `python tests/soak_service.py [--seconds N]`.

Sections and single plugins, with clients, senders and recipients that change; plugins that fail, hang and answer
rubbish; clients that say nothing, say something else, go away, or don't read. Now and then the settings are read again,
or a worker is killed. Exit status 1 where the service has grown, keeps files open, or doesn't answer.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import socket
import struct
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from typing import NamedTuple

from dns_server import remote_server
from service_process import SESSION, Service, memory, remove, short_folder
from soak import show

from ra_plugins.ask.dns import Zone
from ra_plugins.hosts.service.request import ServiceRequest

PLUGINS = """
import time
from ra_plugins.spp.plugin import plugin


@plugin("rcpt")
def faulty(session):
    "Have an error."
    return 1 // 0


@plugin("rcpt")
def rubbish(session):
    "Answer with what isn't an answer."
    return {"no": object()}


@plugin("rcpt")
def prints(session):
    "Print."
    print("E550 printed\\n" * 20)


@plugin("rcpt")
def asleep(session):
    "Sleep for an hour."
    time.sleep(3600)
"""
SECTIONS = """
[connection]
rdnschecks
ipthrottle
[helo]
rdnschecks
[mail]
rblchecks
spfchecks
mfdnschecks
senderchecks
overload
[rcpt]
faulty
plusaliases
dotblind
greylist
rcptchecks
tarpit
"""
LISTS = ["one.example", "two.example"]
NAMES = 300  # of domains, hosts and users, so that what is kept on purpose is soon all there
OPEN = 200  # connections that say nothing, at a time
GROWTH = 6 << 20  # bytes that may come after the first quarter and have nothing to do with time
EVERY = 60  # seconds from one thing that happens to the service to the next
PAUSE = 20  # seconds from one plugin that hangs to the next

DICE = random.Random(1)  # noqa: S311


def zone() -> Zone:
    "Senders with records, a list with a client, and names of clients."
    return Zone(
        {
            ("example.net", "TXT"): ["v=spf1 include:a.example.net -all"],
            ("a.example.net", "TXT"): ["v=spf1 ip4:192.0.2.0/24 mx -all"],
            ("a.example.net", "MX"): [(10, "mail.example.net")],
            ("example.net", "MX"): [(10, "mail.example.net")],
            ("mail.example.net", "A"): ["192.0.2.1"],
            ("1.2.0.192.in-addr.arpa", "PTR"): ["mail.example.net"],
            ("66.2.0.192.two.example", "A"): ["127.0.0.2"],
        }
    )


def session() -> dict[str, str]:
    "Somebody who sends mail to somebody."
    domain = DICE.choice(("example.net", "example.com", f"d{DICE.randrange(NAMES)}.example"))
    return {
        **SESSION,
        "TCPREMOTEIP": f"192.0.2.{DICE.randrange(256)}"
        if DICE.random() < 0.9
        else f"2001:db8::{DICE.randrange(NAMES):x}",
        "SMTPHELOHOST": DICE.choice(("mail.example.net", "localhost", f"h{DICE.randrange(NAMES)}.example")),
        "SMTPMAILFROM": DICE.choice(("", f"u{DICE.randrange(NAMES)}@{domain}", f"ana@{domain}")),
        "SMTPRCPTTO": f"b.e.n+{DICE.randrange(NAMES)}@example.org",
        "SMTPRCPTCOUNT": str(DICE.randrange(30)),
        "RBLSERVERS": ":".join(LISTS),
        f"ODD{DICE.randrange(10**6)}": "x" * DICE.randrange(1000),
    }


GOOD = (
    "at-connection",
    "at-helo",
    "at-mail",
    "at-mail",
    "at-rcpt",
    "at-rcpt",
    "at-data",
    "dotblind",
    "msa",
    "access",
    "tarpit",
)
BAD = ("faulty", "rubbish", "prints", "unknown")


def call(running: Service) -> bool:
    "A command of a session: was there an answer?"
    return running.ask(DICE.choice(GOOD), **session()) is not None


def misuse(running: Service) -> None:
    "Something else than a session."
    with running.connect() as connection:
        request = ServiceRequest(DICE.choice(GOOD + BAD), 1, session()).pack()
        way = DICE.randrange(5)
        if way == 0:
            connection.sendall(DICE.randbytes(DICE.randrange(1, 5000)))
        elif way == 1:  # goes away
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            connection.sendall(request)
        elif way == 2:  # in the middle
            connection.sendall(request[: DICE.randrange(len(request))])
        elif way == 3:  # and never reads
            connection.sendall(request)
        else:
            connection.sendall(b"131072:")
            connection.sendall(b"x" * 100_000)


class Soaked(NamedTuple):
    "What came of it."

    asked: int
    unanswered: int
    early: dict[str, int]  # bytes of memory and open files, once it was warm
    late: dict[str, int]  # at the end

    def grown(self) -> list[str]:
        "What has."
        return [name for name, most in MOST.items() if self.late[name] - self.early[name] > most]


MOST = {"supervisor": GROWTH, "workers": GROWTH, "files": 30}  # that there may be more at the end


def taken(running: Service) -> dict[str, int]:
    "What it holds."
    workers = running.workers()
    files = sum(len(os.listdir(f"/proc/{pid}/fd")) for pid in (running.pid, *workers))
    return {"supervisor": memory(running.pid), "workers": sum(map(memory, workers)), "files": files}


def disturb(running: Service, number: int) -> None:
    "Something that happens to a service now and then: it starts other workers, which have to become warm."
    if number % 2:
        os.kill(running.workers()[0], signal.SIGKILL)
    elif running.process:
        running.process.send_signal(signal.SIGHUP)


def soak(
    seconds: float,
    say: Callable[[str], object] = lambda text: None,  # is told how it goes, about once a second
) -> Soaked:
    "In the first part all sorts of things happen to the service. In the rest it is only asked, well and badly."
    folder = short_folder()
    (folder / "odd.py").write_text(PLUGINS)
    (folder / "settings").write_text(f"GREYLISTSTORE={folder}/greylist.db\nIPSVDIR={folder}/ipsv\n")
    with remote_server(zone()) as server:
        running = Service(
            folder,
            *("--workers", "2", "--settings", str(folder / "settings")),
            files=[folder / "odd.py"],
            control={"atplugins": SECTIONS, "me": "mail.example.org\n"},
            DNSSERVERS=f"127.0.0.1#{server.port}",
        )
        with running:
            found = _soaked(running, seconds, say)
    remove(folder)
    return found


def _soaked(running: Service, seconds: float, say: Callable[[str], object]) -> Soaked:
    begin, told, done, unanswered, disturbed, hung = time.monotonic(), 0.0, 0, 0, 0, 0
    early: dict[str, int] = {}
    silent: list[socket.socket] = []
    while (passed := time.monotonic() - begin) < seconds:
        with suppress(ConnectionError):
            if DICE.random() < 0.8:
                unanswered += not call(running)
            else:
                misuse(running)
        if len(silent) < OPEN:
            silent.append(running.connect())
        elif not done % 50:
            silent.pop(0).close()
        if passed < seconds / 4 and passed > (disturbed + 1) * min(EVERY, seconds / 20):
            disturbed += 1
            disturb(running, disturbed)
        if passed > (hung + 1) * PAUSE:
            hung += 1
            with running.connect() as connection:
                connection.sendall(ServiceRequest("asleep", 1, session()).pack())
        done += 1
        if not early and passed > seconds / 2:
            with suppress(OSError):  # a worker may be ending; then it is looked at again
                early = taken(running)
        if passed - told >= 1:
            told = passed
            with suppress(OSError):
                held = taken(running)
                say(
                    f"{passed:.0f} of {seconds:.0f} s, {done:,} clients, {held['files']} files, "
                    f"{held['supervisor'] >> 10:,} kB in the supervisor, {held['workers'] >> 10:,} kB in the workers"
                )
    for client in silent:
        client.close()
    assert running.answers()
    time.sleep(1)  # for what is left of connections
    return Soaked(done, unanswered, early, taken(running))


def main() -> int:
    "Soak, and say what came of it."
    parser = argparse.ArgumentParser(
        description="Ask the service for a long time, well and badly, and see whether it grows."
    )
    parser.add_argument("--seconds", type=float, default=float(os.environ.get("SECONDS") or 3600), metavar="N")
    found = soak(parser.parse_args().seconds, show)
    show("")
    print(f"{found.asked:,} clients, {found.unanswered} of them left to their scripts")
    for name in ("supervisor", "workers"):
        print(f"memory of {name}: {found.early[name] >> 10:,} kB half way, {found.late[name] >> 10:,} kB at the end")
    print(f"open files: {found.early['files']} half way, {found.late['files']} at the end")
    return 1 if found.grown() else 0


if __name__ == "__main__":
    sys.exit(main())
