"""RaSPF beside pyspf: processor time for the same checks over the same zone, both in memory.

The zone has the shapes of large senders: a redirect to three includes of long lists, nested includes, a record that
uses all ten lookups, and a plain `mx a -all`.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import spf as pyspf
from measure import Benchmark, Figure, Times, ratio

from ra_plugins.ask.dns import Zone
from ra_plugins.ask.question import drive
from ra_plugins.spf import evaluation
from ra_plugins.spf.evaluation import check_identity
from ra_plugins.spf.query import Query
from ra_plugins.spf.record import kept_record, parse_record

NETWORKS = random.Random(7208)  # the same ones each time


def ip4s(count: int) -> str:
    "A list of IPv4 networks outside the clients' own."
    draw = NETWORKS.randrange
    return " ".join(f"ip4:{draw(11, 172)}.{draw(256)}.{draw(256)}.{4 * draw(64)}/{draw(16, 31)}" for _ in range(count))


def ip6s(count: int) -> str:
    "A list of IPv6 networks, likewise."
    draw = NETWORKS.randrange
    return " ".join(f"ip6:2a{draw(16):02x}:{draw(1, 65536):x}:{draw(1, 65536):x}::/{draw(32, 48)}" for _ in range(count))


TEXTS = {
    # a large provider: a redirect to three includes of long lists
    "mail.example": "v=spf1 redirect=_spf.mail.example",
    "_spf.mail.example": "v=spf1 include:_net1.mail.example include:_net2.mail.example include:_net3.mail.example ~all",
    "_net1.mail.example": f"v=spf1 {ip4s(45)} ~all",
    "_net2.mail.example": f"v=spf1 {ip6s(30)} ~all",
    "_net3.mail.example": f"v=spf1 {ip4s(40)} ip4:192.0.2.0/24 ~all",
    # a sender of newsletters: includes within includes
    "news.example": "v=spf1 include:_a.news.example include:_b.news.example -all",
    "_a.news.example": f"v=spf1 {ip4s(30)} include:_c.news.example ~all",
    "_b.news.example": f"v=spf1 {ip4s(30)} ip4:198.51.100.0/25 include:_d.news.example ~all",
    "_c.news.example": f"v=spf1 {ip4s(25)} {ip6s(10)} ~all",
    "_d.news.example": f"v=spf1 {ip4s(25)} ip6:2001:db8:4::/48 ~all",
    # a company that uses its ten lookups up
    "corp.example": "v=spf1 mx a:web.corp.example include:mail.example include:_b.news.example "
    "include:_c.news.example ip4:203.0.113.0/26 -all",
    # a company that uses too many
    "over.example": "v=spf1 mx include:corp.example include:news.example a:web.over.example -all",
    # a plain one
    "plain.example": "v=spf1 mx a -all",
}
HOSTS = {
    "corp.example": ["mx1.corp.example", "mx2.corp.example"],
    "over.example": ["mx.over.example"],
    "plain.example": ["mx.plain.example"],
}
ADDRESSES = {
    "mx1.corp.example": "203.0.113.65",
    "mx2.corp.example": "203.0.113.66",
    "web.corp.example": "203.0.113.67",
    "mx.over.example": "203.0.113.70",
    "web.over.example": "203.0.113.71",
    "mx.plain.example": "203.0.113.80",
    "plain.example": "203.0.113.81",
}
CHECKS = [
    ("192.0.2.7", "mail.example", "pass"),
    ("203.0.113.250", "mail.example", "softfail"),
    ("2001:db8:9::1", "mail.example", "softfail"),
    ("198.51.100.7", "news.example", "pass"),
    ("198.51.100.200", "news.example", "fail"),
    ("2001:db8:4::1", "news.example", "pass"),
    ("203.0.113.65", "corp.example", "pass"),
    ("203.0.113.66", "corp.example", "pass"),
    ("203.0.113.67", "corp.example", "pass"),
    ("192.0.2.7", "corp.example", "pass"),
    ("198.51.100.7", "corp.example", "pass"),
    ("203.0.113.250", "corp.example", "fail"),
    ("203.0.113.70", "over.example", "pass"),
    ("203.0.113.250", "over.example", "permerror"),
    ("203.0.113.80", "plain.example", "pass"),
    ("203.0.113.81", "plain.example", "pass"),
    ("203.0.113.82", "plain.example", "fail"),
]


def zone() -> Zone:
    "The zone, for RaSPF."
    records: dict[tuple[str, str], list[Any]] = {(name, "TXT"): [text] for name, text in TEXTS.items()}
    records.update({(name, "MX"): [(10, host) for host in hosts] for name, hosts in HOSTS.items()})
    records.update({(name, "A"): [address] for name, address in ADDRESSES.items()})
    return Zone(records)


def pyspf_lookup(name: str, rdtype: str, *arguments: object, **keywords: object) -> list[tuple[tuple[str, str], Any]]:
    "The zone, in the form in which pyspf's resolver gives answers."
    key = name.lower()
    found: list[Any] = []
    if rdtype == "TXT" and key in TEXTS:
        found = [(TEXTS[key].encode(),)]
    elif rdtype == "MX":
        found = [(10, host) for host in HOSTS.get(key, [])]
    elif rdtype == "A" and key in ADDRESSES:
        found = [ADDRESSES[key]]
    return [((name, rdtype), value) for value in found]


PASSES = {"pyspf": 1, "RaSPF": 4, "RaSPF, records kept": 20}  # over the checks, so that a side's turns are about as long


def ours(answers: Zone, passes: int, cached: bool) -> Callable[[], object]:
    "All checks, by RaSPF, with parsed records kept or not."

    def run() -> None:
        setattr(evaluation, "kept_record", kept_record if cached else parse_record)  # noqa: B010
        for ip, domain, expected in CHECKS * passes:
            found = drive(check_identity(Query(ip, f"ana@{domain}", "mail.example.net")), answers)
            assert found.result == expected, (ip, domain, found)

    return run


def theirs() -> None:
    "All checks, by pyspf."
    pyspf.DNSLookup = pyspf_lookup
    for ip, domain, expected in CHECKS:
        found = pyspf.query(i=ip, s=f"ana@{domain}", h="mail.example.net", strict=True).check()
        assert found[0] == expected, (ip, domain, found)


def share(side: str) -> Callable[[Times], float]:
    "The time for a check, of pyspf's."
    return lambda times: ratio(side, "pyspf")(times) / PASSES[side]


def measurements(folder: Path) -> Iterator[Benchmark]:
    "What is measured here."
    answers = zone()
    sides = {
        "pyspf": theirs,
        "RaSPF": ours(answers, PASSES["RaSPF"], cached=False),
        "RaSPF, records kept": ours(answers, PASSES["RaSPF, records kept"], cached=True),
    }
    figures = [
        Figure("a check, nothing kept, of pyspf's time", "RaSPF", share("RaSPF"), 1 / 5),
        Figure("a check, parsed records kept", "RaSPF, records kept", share("RaSPF, records kept"), 1 / 25),
    ]
    yield Benchmark("17 checks over the records of large senders", sides, figures)
