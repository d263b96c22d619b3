"""RaSPF beside pyspf: processor time for the same checks over the same zone, both in memory.

Two zones. One has the longest lists that large senders publish: a redirect to three includes of them, nested includes,
a record that uses all ten lookups, and a plain `mx a -all`. The other has records as they usually are: ten to twelve
networks each, three to ten records in a check, `mx`, `a`, `exists` and `redirect` among them.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

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


USUAL_TEXTS = {
    # a provider that many others include: a redirect, then four records of networks
    "host.example": "v=spf1 redirect=_spf.host.example",
    "_spf.host.example": "v=spf1 include:_n1.host.example include:_n2.host.example include:_n3.host.example "
    "include:_n4.host.example ~all",
    "_n1.host.example": f"v=spf1 {ip4s(11)} ~all",
    "_n2.host.example": f"v=spf1 {ip4s(8)} {ip6s(3)} ~all",
    "_n3.host.example": f"v=spf1 {ip4s(10)} ip4:192.0.2.0/24 ~all",
    "_n4.host.example": f"v=spf1 {ip6s(10)} ip6:2001:db8:4::/48 ~all",
    # one that sends newsletters
    "letters.example": f"v=spf1 {ip4s(9)} ip4:198.51.100.0/25 ip4:198.51.100.192/27 ~all",
    # a help desk's, whose hosts are in DNS one by one
    "desk.example": f"v=spf1 {ip4s(10)} exists:%{{i}}._hosts.desk.example ~all",
    # companies that send by themselves and by them
    "shop.example": "v=spf1 a mx include:_spf.host.example include:letters.example ip4:203.0.113.0/28 -all",
    "office.example": "v=spf1 mx include:host.example include:desk.example -all",
    "club.example": f"v=spf1 {ip4s(4)} a:www.club.example include:letters.example include:desk.example "
    "include:host.example ?all",
    "away.example": "v=spf1 redirect=office.example",
}
USUAL_MX = {
    "shop.example": ["mx1.shop.example", "mx2.shop.example"],
    "office.example": ["mx.office.example"],
}
USUAL_ADDRESSES = {
    "shop.example": "203.0.113.65",
    "mx1.shop.example": "203.0.113.66",
    "mx2.shop.example": "203.0.113.67",
    "mx.office.example": "203.0.113.70",
    "www.club.example": "203.0.113.71",
    "203.0.113.90._hosts.desk.example": "127.0.0.2",
}
USUAL_CHECKS = [
    ("203.0.113.65", "shop.example", "pass"),  # by a, one record
    ("203.0.113.67", "shop.example", "pass"),  # by mx
    ("192.0.2.7", "shop.example", "pass"),  # by the provider's third list, five records
    ("198.51.100.200", "shop.example", "pass"),  # by the newsletters', seven
    ("203.0.113.14", "shop.example", "pass"),  # by its own network, behind them all
    ("203.0.113.250", "shop.example", "fail"),
    ("192.0.2.200", "office.example", "pass"),  # by a redirect in an include
    ("203.0.113.90", "office.example", "pass"),  # by exists
    ("203.0.113.70", "away.example", "pass"),
    ("203.0.113.250", "away.example", "fail"),
    ("203.0.113.71", "club.example", "pass"),
    ("198.51.100.7", "club.example", "pass"),
    ("192.0.2.9", "club.example", "pass"),
    ("203.0.113.250", "club.example", "neutral"),  # nine records
    ("192.0.2.10", "host.example", "pass"),
    ("203.0.113.251", "host.example", "softfail"),
]


class Records(NamedTuple):
    "A zone's records, and checks over them with their results."

    texts: dict[str, str]
    mail_hosts: dict[str, list[str]]
    addresses: dict[str, str]
    checks: list[tuple[str, str, str]]


LARGE = Records(TEXTS, HOSTS, ADDRESSES, CHECKS)
USUAL = Records(USUAL_TEXTS, USUAL_MX, USUAL_ADDRESSES, USUAL_CHECKS)


def zone(records: Records = LARGE) -> Zone:
    "The zone, for RaSPF."
    made: dict[tuple[str, str], list[Any]] = {(name, "TXT"): [text] for name, text in records.texts.items()}
    made.update({(name, "MX"): [(10, host) for host in hosts] for name, hosts in records.mail_hosts.items()})
    made.update({(name, "A"): [address] for name, address in records.addresses.items()})
    return Zone(made)


def pyspf_lookup(records: Records) -> Callable[..., list[tuple[tuple[str, str], Any]]]:
    "The zone, in the form in which pyspf's resolver gives answers."

    def look_up(name: str, rdtype: str, *arguments: object, **keywords: object) -> list[tuple[tuple[str, str], Any]]:
        key = name.lower()
        found: list[Any] = []
        if rdtype == "TXT" and key in records.texts:
            found = [(records.texts[key].encode(),)]
        elif rdtype == "MX":
            found = [(10, host) for host in records.mail_hosts.get(key, [])]
        elif rdtype == "A" and key in records.addresses:
            found = [records.addresses[key]]
        return [((name, rdtype), value) for value in found]

    return look_up


PASSES = {"pyspf": 1, "RaSPF": 4, "RaSPF, records kept": 20}  # over the checks, so that a side's turns are about as long


def ours(records: Records, passes: int, cached: bool) -> Callable[[], object]:
    "All checks, by RaSPF, with parsed records kept or not."
    answers = zone(records)

    def run() -> None:
        setattr(evaluation, "kept_record", kept_record if cached else parse_record)  # noqa: B010
        for ip, domain, expected in records.checks * passes:
            found = drive(check_identity(Query(ip, f"ana@{domain}", "mail.example.net")), answers)
            assert found.result == expected, (ip, domain, found)

    return run


def theirs(records: Records) -> Callable[[], object]:
    "All checks, by pyspf."
    look_up = pyspf_lookup(records)

    def run() -> None:
        pyspf.DNSLookup = look_up
        for ip, domain, expected in records.checks:
            found = pyspf.query(i=ip, s=f"ana@{domain}", h="mail.example.net", strict=True).check()
            assert found[0] == expected, (ip, domain, found)

    return run


def share(side: str) -> Callable[[Times], float]:
    "The time for a check, of pyspf's."
    return lambda times: ratio(side, "pyspf")(times) / PASSES[side]


def measurements(folder: Path) -> Iterator[Benchmark]:
    "What is measured here."
    for title, records, bounds in (
        ("over the records of large senders", LARGE, (1 / 5, 1 / 25)),
        ("over records as they usually are", USUAL, (1 / 5, 1 / 15)),
    ):
        sides = {
            "pyspf": theirs(records),
            "RaSPF": ours(records, PASSES["RaSPF"], cached=False),
            "RaSPF, records kept": ours(records, PASSES["RaSPF, records kept"], cached=True),
        }
        figures = [
            Figure("a check, nothing kept, of pyspf's time", "RaSPF", share("RaSPF"), bounds[0]),
            Figure("a check, parsed records kept", "RaSPF, records kept", share("RaSPF, records kept"), bounds[1]),
        ]
        yield Benchmark(f"{len(records.checks)} checks {title}", sides, figures)
