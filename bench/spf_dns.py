"""RaSPF beside pyspf over real DNS: a nameserver on this machine whose every answer is 20 ms late, nothing cached.

What is timed is waiting. pyspf asks one question after the other; RaSPF asks ahead.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import dns.resolver
import spf as pyspf
from measure import Benchmark, Figure, Side, Times, ratio
from spf_checks import CHECKS, zone

sys.path.append(str(Path(__file__).resolve().parent.parent / "tests"))

from dns_server import remote_server

from ra_plugins.ask.resolver import Resolver
from ra_plugins.spf import check

LATE = 0.02  # seconds
PYSPF_LOOKUP = pyspf.DNSLookup  # by dnspython, before other benchmarks replace it


def ours(ip: str, domain: str, expected: str, server: Any) -> Side:
    "One check, by RaSPF with a cache that is empty."

    def run() -> None:
        resolver = Resolver(["127.0.0.1"], server.port)
        found = check(ip, f"ana@{domain}", "mail.example.net", resolver=resolver)
        assert found.result == expected, (ip, domain, found)

    return run


def theirs(ip: str, domain: str, expected: str) -> Side:
    "One check, by pyspf."

    def run() -> None:
        pyspf.DNSLookup = PYSPF_LOOKUP
        found = pyspf.query(i=ip, s=f"ana@{domain}", h="mail.example.net", strict=True).check()
        assert found[0] == expected, (ip, domain, found)

    return run


def queries(side: Side, server: Any) -> int:
    "How many questions a check asks."
    server.count()
    side()
    return int(server.count())


def repeated(server: Any) -> int:
    "How many questions RaSPF asks when all checks come once more, within the TTL."
    resolver = Resolver(["127.0.0.1"], server.port)
    for ip, domain, _ in CHECKS:
        check(ip, f"ana@{domain}", "mail.example.net", resolver=resolver)
    sent = resolver.sent
    for ip, domain, _ in CHECKS:
        check(ip, f"ben@{domain}", "mail.example.net", resolver=resolver)
    return resolver.sent - sent


def of_all(names: list[str], figure: Callable[[list[float]], float]) -> Callable[[Times], float]:
    "A figure over the ratios of all checks."
    return lambda times: figure([ratio(f"{name}, RaSPF", f"{name}, pyspf")(times) for name in names])


def total(names: list[str]) -> Callable[[Times], float]:
    "The time for all checks, of pyspf's."
    return lambda times: sum(sum(times[f"{name}, RaSPF"]) for name in names) / sum(
        sum(times[f"{name}, pyspf"]) for name in names
    )


def measurements(folder: Path) -> Iterator[Benchmark]:
    "What is measured here."
    with ExitStack() as stack:
        server = stack.enter_context(remote_server(zone(), LATE))
        asking = dns.resolver.Resolver(configure=False)
        asking.nameservers, asking.port = ["127.0.0.1"], server.port
        dns.resolver.default_resolver = asking
        names = [f"{ip} {domain}" for ip, domain, _ in CHECKS]
        sides: dict[str, Side] = {}
        for name, each in zip(names, CHECKS, strict=True):
            sides[f"{name}, pyspf"] = theirs(*each)
            sides[f"{name}, RaSPF"] = ours(*each, server)
        asked = {who: sum(queries(sides[f"{name}, {who}"], server) for name in names) for who in ("pyspf", "RaSPF")}
        fails = "203.0.113.250 corp.example"
        again = repeated(server)
        figures = [
            Figure("wall time of 17 checks, of pyspf's", f"{fails}, RaSPF", total(names), 1 / 2),
            Figure("the record of ten lookups that fails", f"{fails}, RaSPF", ratio(f"{fails}, RaSPF", f"{fails}, pyspf"), 1 / 4),
            Figure("the slowest of the checks", f"{fails}, RaSPF", of_all(names, max), 1.05),
            Figure("queries, of pyspf's", f"{fails}, RaSPF", lambda times: asked["RaSPF"] / asked["pyspf"], 1.3),
            Figure("queries on a repeat within the TTL", f"{fails}, RaSPF", lambda times: again, 0),
        ]
        yield Benchmark("17 checks, every answer 20 ms late", sides, figures)
