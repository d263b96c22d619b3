"""How long a client waits at RCPT for plugins that ask DNS, whose every answer is 20 ms late: asked ahead, and in turn.

Two services run side by side, one of them with `--no-ahead`. A client says what it has to say over their sockets, with
the pauses that a round trip of 30 ms makes of it, and what is timed is its wait for the answer to RCPT. Each session is
of another client and another sender, so nothing is known from the one before. And what does it cost? The CPU time of a
session about which all is known before, so that asking ahead is in vain.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Iterator
from itertools import count
from pathlib import Path

from measure import Benchmark, Figure, Side, Unmeasurable, ratio

sys.path.append(str(Path(__file__).resolve().parent.parent / "tests"))

from dns_server import remote_server
from service_process import Service, heard

from ra_plugins.ask.dns import Zone
from ra_plugins.hosts.service.ahead import Rehearsals
from ra_plugins.hosts.service.decider import Decider
from ra_plugins.hosts.service.request import ServiceReply, ServiceRequest
from ra_plugins.plugins.rblchecks import rblchecks
from ra_plugins.plugins.rdnschecks import rdnschecks
from ra_plugins.plugins.spfchecks import spfchecks
from ra_plugins.support.control import ControlFiles

LATE = 0.02  # seconds, of every answer
ROUND_TRIP = 0.03  # seconds between our answer and the client's next command
LISTS = ":".join(f"{name}.example" for name in ("one", "two", "three", "four", "five"))
NUMBERS = count(1)  # of sessions


class AnybodysZone(Zone):
    "Every client has the same name, and every sender's domain below example.net the same records."

    def owner(self, name: str) -> str:
        "Whose records a name has."
        if name.endswith(".ip6.arpa"):
            return "ip6.arpa"
        return "sender.example.net" if name.startswith("sender") else name


ZONE = AnybodysZone(
    {
        ("ip6.arpa", "PTR"): ["mx.example.net"],
        ("mx.example.net", "AAAA"): ["2001:db8::25"],
        ("sender.example.net", "TXT"): ["v=spf1 mx include:spf.example.com -all"],
        ("sender.example.net", "MX"): [(10, "mx.example.net")],
        ("spf.example.com", "TXT"): ["v=spf1 ip6:2001:db8::/32 -all"],
    }
)
CHECKS = {  # the plugins at RCPT, and what they log of a client
    "rblchecks": "Accepted ",
    "rdnschecks": "Accepting ",
    "spfchecks": "SPF_RESULT_PASS",
}


def service(folder: Path, port: int, plugins: tuple[str, ...], *options: str) -> Service:
    "The service with these plugins at RCPT, and a nameserver."
    folder.mkdir(parents=True)
    control = {"me": "mail.example.org\n", "atplugins": "\n".join(["[rcpt]", *plugins, ""])}
    return Service(folder, *options, control=control, DNSSERVERS=f"127.0.0.1#{port}")


def asked(running: Service, name: str, environ: dict[str, str]) -> tuple[ServiceReply, float]:
    "A client's question: the reply, and how many seconds it took."
    began = time.perf_counter()
    with running.connect() as connection:
        connection.sendall(ServiceRequest(name, 4711, environ).pack())
        reply = heard(connection)
    took = time.perf_counter() - began
    if reply is None:
        raise Unmeasurable(f"the service doesn't answer {name}")
    return reply, took


def commands(number: int) -> Iterator[tuple[str, dict[str, str]]]:
    "What a client's programs are called, and the environment that they are started with."
    environ = {"TCPREMOTEIP": f"2001:db8::1:{number:x}", "TCPREMOTEPORT": "40000", "RBLSERVERS": LISTS}
    for name, told in (
        ("at-connection", {}),
        ("at-helo", {"SMTPHELOHOST": "mx.example.net"}),
        ("at-mail", {"SMTPMAILFROM": f"ana@sender{number}.example.net"}),
        ("at-rcpt", {"SMTPRCPTTO": "ben@example.org", "SMTPRCPTCOUNT": "0", "SMTPRCPTCOUNTALL": "1"}),
    ):
        environ = environ | told
        yield name, environ


def session(running: Service, plugins: tuple[str, ...], pipelining: bool) -> float:
    "A session up to RCPT: how many seconds that took."
    for name, environ in commands(next(NUMBERS)):
        reply, took = asked(running, name, environ)
        if not (pipelining and name == "at-mail"):  # MAIL and RCPT in one go: RFC 2920
            time.sleep(ROUND_TRIP)
    for line, plugin in zip(reply.log, plugins, strict=True):
        if CHECKS[plugin] not in line:
            raise Unmeasurable(f"{plugin} says {line}")
    return took


def side(running: Service, plugins: tuple[str, ...], pipelining: bool = False) -> Side:
    "The wait at RCPT, timed."
    return lambda: session(running, plugins, pipelining)


def costs(port: int, ahead: bool) -> Side:
    "The CPU time of a session's decisions, by a service that knows all the answers."
    runner = asyncio.Runner()
    plugins = {each.name: each for each in (rblchecks, rdnschecks, spfchecks)}
    control = ControlFiles({"me": "mail.example.org\n", "atplugins": "\n".join(["[rcpt]", *plugins, ""])})
    decider = Decider(plugins, {"DNSSERVERS": f"127.0.0.1#{port}"}, control=control)
    rehearsals = Rehearsals(decider)
    pids = count(1)

    async def once() -> float:
        began, pid = time.process_time(), next(pids)
        for name, environ in commands(0):
            request = ServiceRequest(name, pid, dict(environ))
            section = (await decider.outcome(request)).section
            if ahead and section:
                rehearsals.heard(request, section)
                await rehearsals.settled()
        return time.process_time() - began

    return lambda: runner.run(once())


def measurements(folder: Path) -> Iterator[Benchmark]:
    "What is measured here."
    for title, plugins, bound in (
        ("five lists and the client's name", ("rblchecks", "rdnschecks"), 0.25),
        ("SPF of the sender, with lookups one behind the other", ("spfchecks",), 0.8),
        ("all of these", tuple(CHECKS), 0.8),
    ):
        place = folder / plugins[-1] / str(len(plugins))
        with (
            remote_server(ZONE, LATE) as server,
            service(place / "ahead", server.port, plugins) as ahead,
            service(place / "turn", server.port, plugins, "--no-ahead") as turn,
        ):
            sides = {
                "in turn": side(turn, plugins),
                "ahead": side(ahead, plugins),
                "pipelining": side(ahead, plugins, pipelining=True),
            }
            figures = [
                Figure("asked in turn", "in turn", ratio("in turn", "in turn")),
                Figure("asked ahead", "ahead", ratio("ahead", "in turn"), bound),
                Figure("asked ahead, MAIL and RCPT in one go", "pipelining", ratio("pipelining", "in turn")),
            ]
            yield Benchmark(f"{title}: a client's wait at RCPT", sides, figures, most=40)
    with remote_server(ZONE) as server:
        sides = {"in turn": costs(server.port, ahead=False), "ahead": costs(server.port, ahead=True)}
        figures = [
            Figure("asked in turn", "in turn", ratio("in turn", "in turn")),
            Figure("asked ahead, in vain", "ahead", ratio("ahead", "in turn"), 4),
        ]
        yield Benchmark("all of these, and all known before: CPU time of a session", sides, figures, "µs")
