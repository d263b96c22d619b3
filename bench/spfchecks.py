"""spfchecks beside what postfix-policyd-spf-python calls, pyspf's check2: whole decisions, over the same nameserver.

The nameserver is a process on this machine that serves one zone. spfchecks reads its session, asks by way of its answerer,
writes its log line and its header; check2 is the bare call. Answers are kept by neither, unless a figure says so.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import dns.resolver
import spf as pyspf
from measure import Benchmark, Figure, Side, Times, Unmeasurable, unheard
from spf_checks import CHECKS, zone

sys.path.append(str(Path(__file__).resolve().parent.parent / "tests"))

from dns_server import remote_server

from ra_plugins.ask.answerer import Answerers
from ra_plugins.plugins.spfchecks import spfchecks
from ra_plugins.spp.session import sample_session
from ra_plugins.support.control import ControlFiles

PYSPF_LOOKUP = pyspf.DNSLookup  # by dnspython, before other benchmarks replace it
CONTROL = ControlFiles({"me": "mail.example.org\n"})


async def decide(ip: str, domain: str, expected: str, answerers: Answerers) -> None:
    "One decision; `Unmeasurable` if it isn't the right one."
    said: list[str] = []
    session = sample_session(client_ip=ip, mail_from=f"ana@{domain}", rcpt_to=None)
    await spfchecks.adecide(session, CONTROL, said.append, answerers)
    if f"SPF_RESULT_{expected.upper()}, " not in said[-1]:
        raise Unmeasurable(f"{said} of {domain}")


def ours(server: Any) -> Side:
    "All checks by spfchecks, each with an answerer of its own, so that nothing is kept."

    async def all_checks() -> None:
        for check in CHECKS:
            async with Answerers({"DNSSERVERS": f"127.0.0.1#{server.port}"}, unheard) as answerers:
                await decide(*check, answerers)

    return lambda: asyncio.run(all_checks())


def in_a_service(server: Any) -> Side:
    "All checks by spfchecks with one answerer, which has been asked everything before."
    runner = asyncio.Runner()
    answerers = Answerers({"DNSSERVERS": f"127.0.0.1#{server.port}"}, unheard)

    async def all_checks() -> None:
        for check in CHECKS:
            await decide(*check, answerers)

    return lambda: runner.run(all_checks())


def theirs() -> None:
    "All checks by check2."
    pyspf.DNSLookup = PYSPF_LOOKUP
    for ip, domain, expected in CHECKS:
        found = pyspf.check2(i=ip, s=f"ana@{domain}", h="mail.example.net")
        if found[0] != expected:
            raise Unmeasurable(f"check2 says {found} of {domain}")


def against_check2(times: Times, side: str) -> float:
    "The sum of the times of one side, of check2's."
    return sum(times[side]) / sum(times["check2"])


def constant(value: float) -> Callable[[Times], float]:
    "A figure that doesn't depend on times."
    return lambda times: value


def measurements(folder: Path) -> Iterator[Benchmark]:
    "What is measured here."
    for late, title, bound in ((0.0, "answers at once", 3.0), (0.02, "every answer 20 ms late", 0.6)):
        with ExitStack() as stack:
            server = stack.enter_context(remote_server(zone(), late))
            asking = dns.resolver.Resolver(configure=False)
            asking.nameservers, asking.port = ["127.0.0.1"], server.port
            dns.resolver.default_resolver = asking
            sides = {"spfchecks": ours(server), "in a service": in_a_service(server), "check2": theirs}
            sides["in a service"]()
            server.count()
            sides["in a service"]()
            yield Benchmark(
                f"{len(CHECKS)} checks, {title}",
                sides,
                [
                    Figure("check2", "check2", constant(1)),
                    Figure("spfchecks, of check2's", "spfchecks", lambda times: against_check2(times, "spfchecks"), bound),
                    Figure("all known before", "in a service", lambda times: against_check2(times, "in a service"), 0.3),
                    Figure("queries on a repeat within the TTL", "in a service", constant(server.count()), 0),
                ],
                most=10,
            )
