"""The resolver against a real nameserver on loopback, which fails in all the ways that nameservers do."""

from __future__ import annotations

import asyncio
import functools
import os
import random
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import dns.asyncresolver
import dns.message
import dns.resolver
import pytest
from dns_server import FAULTS, DnsServer, remote_server
from spf_results import whole

from ra_plugins.ask.dns import CNAME_LIMIT, Ahead, Lookup, Zone
from ra_plugins.ask.question import Question, Together, Unanswered, adrive
from ra_plugins.ask.resolver import (
    ENDLESS,
    LATE,
    SILENCE,
    Cache,
    Resolver,
    Session,
    default_resolver,
    read,
    resolve,
)
from ra_plugins.ask.zonefile import zone_from_text
from ra_plugins.spf.run import acheck, check
from ra_plugins.spf.spfquery import Request, Setup, judge

pytestmark = pytest.mark.filterwarnings("error")  # a socket or task left behind

PATIENCE = 15  # seconds that a machine under load may take for what takes a moment

LONG = "v=spf1 " + "ip4:192.0.2.0/24 " * 60 + "-all"  # fits into one UDP packet with EDNS0, not into 512 bytes
MONSTROUS = LONG + " x" * 800  # fits into no UDP packet

ZONE = Zone(
    {
        ("example.org", "MX"): [(10, "mx.example.org"), (20, "MX2.example.org")],
        ("example.org", "TXT"): ["v=spf1 mx -all", "caf\udce9 " + "x" * 300],
        ("example.org", "A"): ["192.0.2.1", "192.0.2.2"],
        ("example.org", "AAAA"): ["2001:db8::1"],
        ("1.2.0.192.in-addr.arpa", "PTR"): ["example.org", "www.example.org"],
        ("null.example.org", "MX"): [(0, "")],
        ("long.example.org", "TXT"): [LONG],
        ("monstrous.example.org", "TXT"): [MONSTROUS],
        ("www.example.org", "CNAME"): ["web.example.org"],
        ("web.example.org", "CNAME"): ["Example.org"],
        ("dangling.example.org", "CNAME"): ["nowhere.example.org"],
        ("self.example.org", "CNAME"): ["self.example.org"],
        ("ping.example.org", "CNAME"): ["pong.example.org"],
        ("pong.example.org", "CNAME"): ["ping.example.org"],
        **{(f"c{n}.example.org", "CNAME"): [f"c{n + 1}.example.org"] for n in range(CNAME_LIMIT + 1)},
        (f"c{CNAME_LIMIT + 1}.example.org", "A"): ["192.0.2.3"],
    }
)


def one_test(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    "Run a test on asyncio, and see that it leaves neither tasks nor open files."

    @functools.wraps(test)
    def run(**arguments: Any) -> None:
        async def checked() -> None:
            await test(**arguments)
            await asyncio.sleep(0)  # the loop closes a socket at its next turn
            assert asyncio.all_tasks() == {asyncio.current_task()}

        before = open_files()
        asyncio.run(checked())
        end = time.monotonic() + PATIENCE
        while open_files() > before and time.monotonic() < end:
            time.sleep(0.01)  # the nameserver's thread closes its end of a connection
        assert open_files() <= before

    return run


def open_files() -> int:
    return len(os.listdir("/proc/self/fd")) if sys.platform == "linux" else 0


@pytest.fixture
def server() -> Iterator[DnsServer]:
    with DnsServer(ZONE) as running:
        yield running


def asking(*servers: DnsServer, **options: Any) -> Resolver:
    "A resolver that asks these; it gives up soon, unless told otherwise."
    resolver = Resolver(["127.0.0.1"] * len(servers), **{"timeout": 5, "try_again": 2, **options})
    for known, running in zip(resolver.servers, servers, strict=True):
        known.port = running.port
    return resolver


async def lookup(resolver: Resolver, name: str, rdtype: str = "A") -> Any:
    return await asyncio.wait_for(resolve(resolver, Lookup(name, rdtype)), PATIENCE)


# Answers


@pytest.mark.parametrize("key", [key for key in ZONE.records if key[1] != "CNAME"])
@one_test
async def test_every_type_arrives_as_the_zone_has_it(server: DnsServer, key: tuple[str, str]) -> None:
    answer = await lookup(asking(server), *key)
    assert sorted(answer) == sorted(ZONE.records[key])


@one_test
async def test_a_long_text_takes_one_packet_and_a_monstrous_one_tcp(server: DnsServer) -> None:
    resolver = asking(server)
    assert await lookup(resolver, "long.example.org", "TXT") == [LONG]
    assert [transport for _, _, transport in server.queries] == ["udp"] and len(LONG) > 1000
    assert await lookup(resolver, "monstrous.example.org", "TXT") == [MONSTROUS]
    assert [transport for _, _, transport in server.queries] == ["udp", "udp", "tcp"]
    assert resolver.sent == 3


@pytest.mark.parametrize("links", [1, 2, 100])
@one_test
async def test_cnames_are_followed_as_a_zone_does(links: int) -> None:
    names = ["www", "dangling", "self", "ping", *(f"c{n}" for n in range(CNAME_LIMIT + 2))]
    with DnsServer(ZONE, links=links, soa=links != 2) as server:
        for name in names:
            expected = ZONE.answer(Lookup(f"{name}.example.org", "A"))
            answer = await lookup(asking(server), f"{name}.example.org")
            assert answer == expected or str(answer) == str(expected) == ENDLESS, name
    assert str(ZONE.answer(Lookup("c0.example.org", "A"))) == ENDLESS


@one_test
async def test_what_cannot_be_a_name_is_not_asked(server: DnsServer) -> None:
    resolver = asking(server)
    for name in ("", ".", "a..b", "a" * 64, ".".join(["a" * 60] * 5), "é.example", "\udcff.example", "a."):
        assert await lookup(resolver, name) == []
    assert resolver.sent == 0 and server.queries == []


@one_test
async def test_every_character_of_a_name_is_meant() -> None:
    odd = ("back\\slash.example", "a b.example", 'quo"te.example', "new\nline.example", "nul\0.example", "_;@$.example")
    with DnsServer(Zone({(name, "A"): ["192.0.2.1"] for name in odd})) as server:
        resolver = asking(server)
        for name in odd:
            assert await lookup(resolver, name) == ["192.0.2.1"], name
        assert resolver.sent == len(odd)


# Faults

REASONS = {
    "drop": SILENCE,
    "late": SILENCE,
    "truncate always": "an answer cut short",
    "close": "EOF",
    "cut": SILENCE,
    "garbage": SILENCE,
    "wrong id": SILENCE,
    "wrong name": SILENCE,
    "wrong answer": "an answer about something else",
    "servfail": "SERVFAIL",
    "refused": "REFUSED",
}


@pytest.mark.parametrize("fault", [fault for fault in FAULTS if fault != "truncate"])
@one_test
async def test_a_fault_is_an_answer_in_time(fault: str) -> None:
    with DnsServer(ZONE, fault=fault) as server:
        seconds = 0.3 if REASONS[fault] == SILENCE else PATIENCE
        resolver = asking(server, timeout=seconds, try_again=seconds / 3)
        answer = await lookup(resolver, "example.org", "MX")
        assert isinstance(answer, Unanswered)
        assert str(answer) == REASONS[fault]
        server.fault = ""  # nothing of it is kept
        server.release()
        assert len(await lookup(asking(server, cache=resolver.cache), "example.org", "MX")) == 2


@one_test
async def test_truncated_packets_are_asked_again_over_tcp() -> None:
    with DnsServer(ZONE, fault="truncate") as server:
        assert await lookup(asking(server), "null.example.org", "MX") == [(0, "")]
        assert [transport for _, _, transport in server.queries] == ["udp", "tcp"]


@one_test
async def test_a_late_answer_reaches_nobody() -> None:
    with DnsServer(ZONE, faults={"example.org": "late"}) as server:
        assert isinstance(await lookup(asking(server, timeout=0.2, try_again=0.1), "example.org"), Unanswered)
        server.release()
        resolver = asking(server)
        server.faults = {}
        assert sorted(await lookup(resolver, "example.org")) == ["192.0.2.1", "192.0.2.2"]


@one_test
async def test_a_forged_packet_does_not_shut_out_the_answer() -> None:
    with DnsServer(ZONE) as server:
        true = server.packets
        server.packets = lambda query, transport: [  # type: ignore[method-assign]
            b"",
            b"\xff" * 20,
            b"\0\0" + true(query, transport)[0][2:],
            true(query, transport)[0].replace(b"\7example\3org", b"\7example\3net"),
            *true(query, transport),
        ]
        assert await lookup(asking(server), "example.org", "AAAA") == ["2001:db8::1"]


@one_test
async def test_a_query_that_is_lost_is_sent_again(server: DnsServer) -> None:
    server.fault = "drop"
    resolver = asking(server, try_again=0.1, timeout=PATIENCE)
    asked = asyncio.ensure_future(lookup(resolver, "example.org", "AAAA"))
    await asyncio.to_thread(server.wait_for, 2)
    server.fault = ""
    assert await asked == ["2001:db8::1"]
    assert resolver.sent >= 3


@one_test
async def test_servers_take_turns_and_a_silent_one_comes_last() -> None:
    with DnsServer(ZONE, fault="drop") as silent, DnsServer(ZONE) as good:
        resolver = asking(silent, good, try_again=0.3)
        assert await lookup(resolver, "example.org", "AAAA") == ["2001:db8::1"]
        assert len(silent.queries) == len(good.queries) == 1
        assert len(await lookup(resolver, "example.org", "MX")) == 2
        assert len(silent.queries) == 1 and len(good.queries) == 2
        good.fault, silent.fault = "drop", ""
        assert len(await lookup(resolver, "example.org", "A")) == 2
        assert len(silent.queries) == 2


@pytest.mark.parametrize("fault", ["servfail", "refused", "wrong answer", "close"])
@one_test
async def test_a_broken_server_leads_to_the_next(fault: str) -> None:
    with DnsServer(ZONE, fault=fault) as broken, DnsServer(ZONE) as good:
        answer = await lookup(asking(broken, good), "example.org", "AAAA")
        assert answer == ["2001:db8::1"] or (fault == "wrong answer" and isinstance(answer, Unanswered))


@one_test
async def test_a_server_that_is_not_running_is_known_at_once() -> None:
    with DnsServer(ZONE) as gone:
        resolver = asking(gone, timeout=PATIENCE)
    assert isinstance(await lookup(resolver, "example.org"), Unanswered)
    assert resolver.sent == 1


@one_test
async def test_packets_changed_at_random_do_no_harm() -> None:
    with DnsServer(ZONE) as server:
        true, chance = server.packets, random.Random(7208)  # noqa: S311

        def mangled(query: bytes, transport: str) -> list[bytes]:
            packet = bytearray(true(query, transport)[0])
            for _ in range(chance.randrange(1, 6)):
                packet[chance.randrange(2, len(packet))] = chance.randrange(256)
            return [bytes(packet)[: chance.choice((len(packet), chance.randrange(len(packet))))]]

        server.packets = mangled  # type: ignore[method-assign]
        resolver = asking(server, timeout=0.05, try_again=0.05)
        keys = [key for key in ZONE.records if key[1] != "CNAME"] * 20
        for start in range(0, len(keys), 20):
            answers = await asyncio.gather(*(lookup(resolver, *key) for key in keys[start : start + 20]))
            assert all(isinstance(answer, (list, Unanswered)) for answer in answers)
            resolver.cache = Cache()


def test_no_packet_makes_the_reader_fail() -> None:
    request, chance = dns.message.make_query("example.org", "TXT"), random.Random(7208)  # noqa: S311
    response = dns.message.make_response(request).to_wire()
    assert read(request, response) is not None
    for _ in range(2000):
        packet = bytearray(response + bytes(chance.randrange(256) for _ in range(chance.randrange(60))))
        for _ in range(chance.randrange(8)):
            packet[chance.randrange(len(packet))] = chance.randrange(256)
        try:
            assert isinstance(read(request, bytes(packet)), (dns.message.Message, type(None)))
        except dns.message.Truncated:
            assert packet[:2] == response[:2] and packet[2] & 2


@pytest.mark.parametrize("text", [None, "", "nameserver ns.example.org\n", "nameserver\nsearch example.org\n", "\0\n"])
@one_test
async def test_a_resolv_conf_of_no_use(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str | None) -> None:
    path = tmp_path / "resolv.conf"
    if text is not None:
        path.write_text(text)
    true = dns.resolver.BaseResolver.read_resolv_conf
    monkeypatch.setattr(dns.resolver.BaseResolver, "read_resolv_conf", lambda self, _: true(self, path))
    resolver = Resolver()
    answer = await lookup(resolver, "example.org")
    assert isinstance(answer, Unanswered) and 0 < len(str(answer)) < 120
    with DnsServer(ZONE) as server:  # and one that has been mended is read
        path.write_text("nameserver 127.0.0.1\n")
        resolver.port = server.port
        assert await lookup(resolver, "example.org", "AAAA") == ["2001:db8::1"]


def test_nameservers_are_addresses() -> None:
    for address in ("ns.example.org", "192.0.2", "", "192.0.2.1:53"):
        with pytest.raises(ValueError, match="nameservers"):
            Resolver([address])


# What is kept


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@one_test
async def test_answers_are_kept_for_their_ttl(server: DnsServer) -> None:
    clock = Clock()
    resolver = asking(server, cache=Cache(clock=clock))
    for now, sent in ((1000, 1), (1299.9, 1), (1300, 2), (1599.9, 2), (1600, 3)):
        clock.now = now
        assert await lookup(resolver, "example.ORG", "AAAA") == ["2001:db8::1"]
        assert resolver.sent == sent


@pytest.mark.parametrize("links", [1, 100])
@one_test
async def test_the_shortest_ttl_of_a_chain_counts(server: DnsServer, links: int) -> None:
    clock, true, server.links = Clock(), server.add, links

    def add(response: Any, name: Any, rdtype: str, values: list[Any]) -> None:
        server.ttl = 7 if name == "web.example.org" else 300
        true(response, name, rdtype, values)

    server.add = add  # type: ignore[method-assign]
    resolver = asking(server, cache=Cache(clock=clock))
    for now, times in ((1000, 1), (1006.9, 1), (1007, 2)):
        clock.now = now
        assert sorted(await lookup(resolver, "www.example.org")) == ["192.0.2.1", "192.0.2.2"]
        assert resolver.sent == times * (3 if links == 1 else 1)


@one_test
async def test_that_there_is_nothing_is_kept_too(server: DnsServer) -> None:
    clock = Clock()
    resolver = asking(server, cache=Cache(clock=clock))
    for rdtype in ("A", "TXT", "AAAA", "MX"):
        assert await lookup(resolver, "nowhere.example.org", rdtype) == []
    assert resolver.sent == 1  # no such name: known for all types
    assert await lookup(resolver, "null.example.org", "A") == await lookup(resolver, "null.example.org", "A") == []
    assert resolver.sent == 2
    assert await lookup(resolver, "null.example.org", "TXT") == []
    assert resolver.sent == 3  # no such record: for one type
    assert await lookup(resolver, "dangling.example.org", "A") == await lookup(resolver, "dangling.example.org", "MX") == []
    assert resolver.sent == 4
    clock.now += 300
    assert await lookup(resolver, "nowhere.example.org") == []
    assert resolver.sent == 5


@one_test
async def test_without_a_soa_it_is_not_kept(server: DnsServer) -> None:
    server.soa = False
    resolver = asking(server)
    for sent in (1, 2):
        assert await lookup(resolver, "nowhere.example.org") == []
        assert resolver.sent == sent


@pytest.mark.parametrize("ttl", [0, 2**30, 2**31 - 1, 2**31, 2**32 - 1])
@one_test
async def test_odd_ttls(ttl: int) -> None:
    clock = Clock()
    with DnsServer(ZONE) as server:
        true = server.packets

        def packets(query: bytes, transport: str) -> list[bytes]:
            return [true(query, transport)[0].replace((300).to_bytes(4, "big"), ttl.to_bytes(4, "big"))]

        server.packets = packets  # type: ignore[method-assign]
        resolver = asking(server, cache=Cache(clock=clock))
        assert await lookup(resolver, "example.org", "AAAA") == ["2001:db8::1"]
        clock.now += 86_400
        assert await lookup(resolver, "example.org", "AAAA") == ["2001:db8::1"]
        assert resolver.sent == 2


@one_test
async def test_the_cache_is_bounded(server: DnsServer) -> None:
    resolver = asking(server, cache=Cache(size=5))
    for number in range(20):
        await lookup(resolver, f"n{number}.example.org")
        await lookup(resolver, "example.org", "AAAA")
    assert len(resolver.cache.answers) == 5 and resolver.sent == 21


# Many at once


@one_test
async def test_a_herd_asks_once(server: DnsServer) -> None:
    server.faults = {"example.org": "late"}
    resolver = asking(server, timeout=PATIENCE, try_again=PATIENCE)
    herd = [asyncio.ensure_future(lookup(resolver, name, "AAAA")) for name in ("example.org", "EXAMPLE.org") * 50]
    await asyncio.to_thread(server.wait_for, 1)
    server.release()
    assert await asyncio.gather(*herd) == [["2001:db8::1"]] * 100
    assert resolver.sent == len(server.queries) == 1


@one_test
async def test_a_herd_shares_a_failure_and_the_next_asks_again(server: DnsServer) -> None:
    server.fault = "servfail"
    resolver = asking(server)
    assert {str(answer) for answer in await asyncio.gather(*[lookup(resolver, "example.org")] * 1)} == {"SERVFAIL"}
    herd = await asyncio.gather(*(lookup(resolver, "example.org") for _ in range(10)))
    assert {str(answer) for answer in herd} == {"SERVFAIL"} and resolver.sent == 2
    server.fault = ""
    assert len(await lookup(resolver, "example.org")) == 2


@one_test
async def test_when_the_first_hangs_up_another_takes_over(server: DnsServer) -> None:
    server.faults = {"example.org": "late"}
    resolver = asking(server, timeout=PATIENCE, try_again=PATIENCE)
    first, second, third = (asyncio.ensure_future(resolve(resolver, Lookup("example.org", "AAAA"))) for _ in range(3))
    await asyncio.to_thread(server.wait_for, 1)
    third.cancel()
    first.cancel()
    await asyncio.to_thread(server.wait_for, 2)
    server.release()
    assert await second == ["2001:db8::1"]
    assert first.cancelled() and third.cancelled() and resolver.running == {}
    assert resolver.sent == 2


def test_threads_share_a_resolver(server: DnsServer) -> None:
    resolver = asking(server)
    with ThreadPoolExecutor(8) as threads:
        found = list(threads.map(lambda n: repr(check(f"192.0.2.{n % 2}", "a@example.org", resolver=resolver)), range(80)))
    assert set(found) == {"<fail: -all, 1 lookups, 2 void>"}
    sent = resolver.sent
    check("192.0.2.1", "a@example.org", resolver=resolver)
    assert resolver.sent == sent <= 8 * 4


# A session


async def in_session(decision: Coroutine[Any, Any, Any], resolver: Resolver, timeout: float | None = None) -> Any:
    async with Session(resolver, timeout) as session:
        return await asyncio.wait_for(adrive(decision, session.tell), PATIENCE)


@one_test
async def test_together(server: DnsServer) -> None:
    server.faults = {"web.example.org": "servfail"}

    async def several() -> list[Any]:
        lookups = (Lookup("example.org", "AAAA"), Lookup("web.example.org", "A"), Lookup("EXAMPLE.org", "AAAA"))
        return await Together(*lookups, Ahead([], lambda *_: []), Question())

    same, failed, again, nothing, unknown = await in_session(several(), asking(server))
    assert same == again == ["2001:db8::1"] and nothing is None
    assert str(failed) == "SERVFAIL" and isinstance(unknown, Unanswered)
    assert len(server.queries) == 2


@one_test
async def test_within_a_check_nothing_is_asked_twice_even_without_a_ttl(server: DnsServer) -> None:
    server.ttl = 0
    server.faults = {"web.example.org": "servfail"}

    async def again() -> list[Any]:
        answers = [await Lookup("example.org", "AAAA"), await Lookup("example.org", "AAAA")]
        return answers + await Together(Lookup("web.example.org", "A")) + await Together(Lookup("web.example.org", "A"))

    resolver = asking(server)
    answers = await in_session(again(), resolver)
    assert answers[:2] == [["2001:db8::1"]] * 2 and str(answers[2]) == str(answers[3]) == "SERVFAIL"
    assert resolver.sent == 2
    await in_session(again(), resolver)
    assert resolver.sent == 4


POLICIES = zone_from_text("""
$ORIGIN example.
plain      TXT   "v=spf1 mx a -all"
           MX    10 mx1.plain
           MX    20 mx2.plain
           A     192.0.2.10
mx1.plain  A     192.0.2.11
mx2.plain  A     192.0.2.12
big        TXT   "v=spf1 redirect=_spf.big.example"
_spf.big   TXT   "v=spf1 include:n1.big.example include:n2.big.example include:n3.big.example ~all"
n1.big     TXT   "v=spf1 ip4:198.51.100.0/26 ip6:2001:db8::/32 ~all"
n2.big     TXT   "v=spf1 ip4:198.51.100.64/26 ~all"
n3.big     TXT   "v=spf1 ip4:198.51.100.128/26 ~all"
deep       TXT   "v=spf1 include:d1.deep.example include:n3.big.example exists:%{ir}.ok.deep.example -all exp=why.deep.example"
d1.deep    TXT   "v=spf1 include:d2.deep.example include:d3.deep.example ?all"
d2.deep    TXT   "v=spf1 a:alias.deep.example ?all"
d3.deep    TXT   "v=spf1 ptr:deep.example ?all"
alias.deep CNAME big-host.deep
big-host.deep A 203.0.113.1
9.113.0.203.ok.deep A 127.0.0.2
why.deep   TXT   "%{i} isn't one of ours"
loop       TXT   "v=spf1 include:loop2.example -all"
loop2      TXT   "v=spf1 include:loop.example -all"
many       TXT   "v=spf1 include:n1.big.example include:n2.big.example include:n3.big.example a:x1.many.example mx -all"
void       TXT   "v=spf1 a:v1.void.example a:v2.void.example a:v3.void.example a:v4.void.example ~all"
two        TXT   "v=spf1 -all"
           TXT   "v=spf1 +all"
typo       TXT   "v=spf1 include:n1.big.example ip4:192.0.2.0/33 -all"
endless    TXT   "v=spf1 a:self.endless.example -all"
self.endless CNAME self.endless
many-mx    TXT   "v=spf1 mx -all"
""" + "".join(f"many-mx MX {n} mx{n}.many-mx\n" for n in range(11)) + """
$ORIGIN .
7.113.0.203.in-addr.arpa PTR ours.deep.example.
7.113.0.203.in-addr.arpa PTR theirs.example.
ours.deep.example A 203.0.113.7
""")  # fmt: skip
DOMAINS = ["plain", "big", "deep", "loop", "many", "void", "two", "typo", "endless", "many-mx", "nowhere"]
CLIENTS = [
    *("192.0.2.10", "192.0.2.11", "192.0.2.12"),
    *("198.51.100.1", "198.51.100.65", "198.51.100.129"),
    *("203.0.113.1", "203.0.113.7", "203.0.113.9"),
    *("2001:db8::1", "2001:db9::1"),
]


@pytest.mark.parametrize("domain", DOMAINS)
@one_test
async def test_all_ways_agree(domain: str) -> None:
    with DnsServer(POLICIES) as server:
        for client in CLIENTS:
            expected = check(client, f"ana@{domain}.example", resolver=POLICIES)
            single = asking(server, ahead=0)
            one_by_one = await acheck(client, f"ana@{domain}.example", resolver=single)
            ahead = await acheck(client, f"ana@{domain}.example", resolver=asking(server))
            inside = check(client, f"ana@{domain}.example", resolver=asking(server))  # with a loop running here
            outside = await asyncio.to_thread(check, client, f"ana@{domain}.example", resolver=asking(server))
            in_zone = await acheck(client, f"ana@{domain}.example", resolver=POLICIES)
            for way in (one_by_one, ahead, inside, outside, in_zone):
                assert whole(way) == whole(expected)


@one_test
async def test_a_repeat_within_the_ttl_asks_nothing() -> None:
    with DnsServer(POLICIES) as server:
        resolver = asking(server)
        for domain in DOMAINS:
            first = await acheck("203.0.113.9", f"ana@{domain}.example", resolver=resolver)
            sent = resolver.sent
            second = await acheck("203.0.113.9", f"ben@{domain}.example", resolver=resolver)
            if domain != "endless":
                assert resolver.sent == sent, domain
            assert (first.result, first.lookups, first.voids) == (second.result, second.lookups, second.voids)


# Asking ahead


@one_test
async def test_what_is_expected_is_asked_while_the_check_waits() -> None:
    with DnsServer(POLICIES, faults={f"n{n}.big.example": "late" for n in (1, 2, 3)}) as server:
        resolver = asking(server, timeout=PATIENCE, try_again=PATIENCE)
        found = asyncio.ensure_future(acheck("192.0.2.1", "ana@big.example", resolver=resolver))
        await asyncio.to_thread(server.wait_for, 5)  # all three includes, before any is answered
        assert [name for name, _, _ in server.queries[2:]] == ["n1.big.example", "n2.big.example", "n3.big.example"]
        server.release()
        assert repr(await found) == "<softfail: ~all, 4 lookups, 0 void>"
        assert resolver.sent == 5


@one_test
async def test_an_early_match_cancels_what_is_under_way() -> None:
    with DnsServer(POLICIES, faults={f"n{n}.big.example": "drop" for n in (2, 3)}) as server:
        resolver = asking(server, timeout=PATIENCE, try_again=PATIENCE)
        found = await asyncio.wait_for(acheck("198.51.100.1", "ana@big.example", resolver=resolver), PATIENCE)
        assert repr(found) == "<pass: include:n1.big.example, 2 lookups, 0 void>"
        assert resolver.running == {}


@one_test
async def test_no_more_is_asked_ahead_than_there_is_room() -> None:
    records = {("example.org", "TXT"): ["v=spf1 include:a.example.org -all"]}
    for depth in range(1, 12):
        terms = " ".join(f"include:x{n}.{'a.' * depth}example.org" for n in range(9))
        records["a." * depth + "example.org", "TXT"] = [f"v=spf1 {terms} include:{'a.' * (depth + 1)}example.org -all"]
        for number in range(9):
            records[f"x{number}.{'a.' * depth}example.org", "TXT"] = ["v=spf1 ?all"]
    with DnsServer(Zone(records)) as server:
        for room in (1, 7, 30):
            resolver, single = asking(server, ahead=room), asking(server, ahead=0)
            found = await acheck("192.0.2.1", "ana@example.org", resolver=resolver)
            assert repr(found) == repr(await acheck("192.0.2.1", "ana@example.org", resolver=single))
            assert single.sent <= resolver.sent <= single.sent + room


@pytest.mark.parametrize("room", [0, 1, 5, 10])
@one_test
async def test_the_room_is_kept_to_while_the_check_waits(room: int) -> None:
    terms = " ".join(f"include:n{number}.example.org" for number in range(40))
    records = {("example.org", "TXT"): [f"v=spf1 {terms} -all"], ("n0.example.org", "TXT"): ["v=spf1 +all"]}
    with DnsServer(Zone(records), faults={f"n{number}.example.org": "late" for number in range(40)}) as server:
        resolver = asking(server, timeout=PATIENCE, try_again=PATIENCE, ahead=room)
        found = asyncio.ensure_future(acheck("192.0.2.1", "ana@example.org", resolver=resolver))
        await asyncio.to_thread(server.wait_for, 1 + max(room, 1))
        server.release()
        assert (await found).result == "pass"
        assert resolver.sent == 1 + max(room, 1)


@one_test
async def test_an_answer_that_fails_ahead_fails_only_where_it_is_asked() -> None:
    with DnsServer(POLICIES, faults={"n2.big.example": "servfail"}) as server:
        found = await acheck("198.51.100.1", "ana@big.example", resolver=asking(server))
        assert found.result == "pass"
        found = await acheck("198.51.100.129", "ana@big.example", resolver=asking(server))
        assert (found.result, found.problem) == ("temperror", "DNS TXT n2.big.example: SERVFAIL")


# The deadline


@pytest.mark.parametrize("door", ["check", "acheck"])
def test_a_check_ends_in_time(door: str) -> None:
    with DnsServer(POLICIES, faults={"n2.big.example": "drop"}) as server:
        resolver, start = asking(server, timeout=600, try_again=600), time.monotonic()
        ways: dict[str, Callable[..., Any]] = {"check": check, "acheck": lambda *a, **k: asyncio.run(acheck(*a, **k))}
        found = ways[door]("198.51.100.129", "ana@big.example", resolver=resolver, timeout=1)
        assert time.monotonic() - start < PATIENCE
        assert (found.result, found.problem) == ("temperror", f"DNS TXT n2.big.example: {LATE}")
        assert (found.lookups, found.trace.redirected.visits[0].result) == (3, "softfail")


@one_test
async def test_a_ptr_that_is_cut_short_is_no_reason_to_refuse() -> None:
    zone = Zone({("example.org", "TXT"): ["v=spf1 ptr -all"], ("x", "TXT"): []})
    with DnsServer(zone, faults={"1.2.0.192.in-addr.arpa": "drop"}) as server:
        found = await acheck("192.0.2.1", "a@example.org", resolver=asking(server, timeout=600, try_again=600), timeout=1)
        assert (found.result, found.problem) == ("temperror", f"DNS: {LATE}")
        found = await acheck("192.0.2.1", "a@example.org", resolver=asking(server, timeout=1, try_again=1))
        assert found.result == "fail"  # the lookup failed, in time: RFC 7208, section 5.5


@one_test
async def test_a_fail_stands_when_only_its_explanation_is_late() -> None:
    zone = Zone({("example.org", "TXT"): ["v=spf1 -all exp=why.example.org"]})
    with DnsServer(zone, faults={"why.example.org": "drop"}) as server:
        resolver = asking(server, timeout=600, try_again=600)
        found = await acheck("192.0.2.1", "a@example.org", resolver=resolver, timeout=1, default="No: %{d}")
        assert (found.result, found.explanation) == ("fail", "No: example.org")


@pytest.mark.parametrize("hasty_leads", [True, False])
@one_test
async def test_the_deadline_of_one_is_not_that_of_others(hasty_leads: bool) -> None:
    with DnsServer(ZONE, fault="late") as server:
        resolver, asked = asking(server, timeout=PATIENCE, try_again=PATIENCE), Lookup("example.org", "AAAA")
        deadlines = {"hasty": time.monotonic() + 0.1, "patient": time.monotonic() + PATIENCE}
        order = sorted(deadlines, reverse=not hasty_leads)
        found = {name: asyncio.ensure_future(resolve(resolver, asked, deadlines[name])) for name in order}
        assert str(await found["hasty"]) == LATE
        await asyncio.to_thread(server.wait_for, 2 if hasty_leads else 1)
        server.release()
        assert await found["patient"] == ["2001:db8::1"]
        assert resolver.sent == (2 if hasty_leads else 1)


@one_test
async def test_a_check_that_is_cancelled_leaves_nothing() -> None:
    with DnsServer(POLICIES, fault="drop") as server:
        resolver = asking(server, timeout=600, try_again=600)
        found = asyncio.ensure_future(acheck("192.0.2.1", "ana@big.example", resolver=resolver))
        await asyncio.to_thread(server.wait_for, 1)
        found.cancel()
        with pytest.raises(asyncio.CancelledError):
            await found
        assert resolver.running == {}


# The front door


def test_arguments_of_no_use_are_named() -> None:
    for ip in ("", "example.org", "192.0.2.1/24", "192.0.2.1\n", "\0", "\udcff", "1" * 65536, b"\xc0\0\2\1", b"\xff", 7, None):
        with pytest.raises(ValueError, match="^ip should be ") as caught:
            check(ip, "ana@big.example", resolver=POLICIES)  # type: ignore[arg-type]
        assert len(str(caught.value)) < 120
    with pytest.raises(ValueError, match="^sender should be "):
        check("192.0.2.1", None, resolver=POLICIES)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="^helo should be "):
        check("192.0.2.1", "", 3, resolver=POLICIES)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "domain",
    ["a\nb.example", "a\0.example", "\x7f.example", "é" * 300, "\udcff.example", "[192.0.2.1]", "a..example",
     ".example", "x" * 64 + ".example", "x." * 40000 + "example", "localhost", "", ".", "*" * 70, "é\n.example"],
)  # fmt: skip
def test_no_domain_no_policy(server: DnsServer, domain: str) -> None:
    resolver = asking(server)
    for text in (domain, f"ana@{domain}", f"a@b@{domain}", f"ana@{domain}".encode("utf-8", "surrogateescape")):
        assert check("192.0.2.1", text, resolver=resolver).result == "none"
        assert check("192.0.2.1", "", text, resolver=resolver).result == "none"
    assert server.queries == []


@pytest.mark.parametrize("local", ["", "\0\r\nA", "é", "\udcff", "x" * 65536, "a." * 32768, '"a@b"', "%{d}", "\x1b[2J"])
def test_any_local_part_has_a_result(local: str) -> None:
    zone = Zone(
        {
            ("example.org", "TXT"): ["v=spf1 exists:%{l1r+-}.%{lr}.%{d} exists:%{S}.x.%{d} -all exp=e.example.org"],
            ("e.example.org", "TXT"): ["%{s} %{l} %{h}"],
        }
    )
    with DnsServer(zone) as server:
        found = check("192.0.2.1", f"{local}@example.org", f"{local}.example.org", resolver=asking(server))
        assert whole(found) == whole(check("192.0.2.1", f"{local}@example.org", f"{local}.example.org", resolver=zone))
        assert found.result == "fail" and found.explanation.isascii() and found.explanation.isprintable()


def test_bytes_are_text() -> None:
    for arguments in (("198.51.100.1", "ana@big.example"), ("192.0.2.10", "", "plain.example")):
        found = check(*(each.encode() for each in arguments), resolver=POLICIES)
        assert whole(found) == whole(check(*arguments, resolver=POLICIES)) and found.result == "pass"


def test_a_zone_needs_neither_dnspython_nor_asyncio() -> None:
    program = """
import sys
from ra_plugins.spf.run import check
from ra_plugins.ask.dns import Zone
assert check("192.0.2.1", "ana@example.org", resolver=Zone({("example.org", "TXT"): ["v=spf1 -all"]})).result == "fail"
print(sorted({"asyncio", "dns", "concurrent.futures"} & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_by_default_the_nameservers_of_this_machine_are_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "resolv.conf"
    path.write_text("nameserver 127.0.0.1\noptions timeout:1\n")
    true = dns.resolver.BaseResolver.read_resolv_conf
    monkeypatch.setattr(dns.resolver.BaseResolver, "read_resolv_conf", lambda self, _: true(self, path))
    default_resolver.cache_clear()
    with DnsServer(POLICIES) as server:
        default_resolver().port = server.port
        for _ in range(2):
            assert check("198.51.100.1", "ana@big.example").result == "pass"
            assert asyncio.run(acheck("198.51.100.1", "ana@big.example")).result == "pass"
        assert len(server.queries) <= 5
    default_resolver.cache_clear()


def test_other_policies_are_asked_under_a_running_loop_too() -> None:
    with DnsServer(Zone({**ZONE.records, ("null.example.org", "TXT"): ["v=spf1 mx -all"]})) as server:
        setup = Setup()
        setup.resolver, setup.local = asking(server), "a:www.example.org"

        async def judged() -> str:
            return judge(Request("192.0.2.2", "ana@null.example.org"), setup).name

        assert asyncio.run(judged()) == "pass"


def test_a_server_in_a_process_of_its_own_counts() -> None:
    with remote_server(POLICIES) as server:
        resolver = Resolver(["127.0.0.1"], server.port, ahead=0)
        assert check("198.51.100.65", "ana@big.example", resolver=resolver).result == "pass"
        assert [server.count(), server.count()] == [resolver.sent, 0] == [4, 0]


def test_the_server_itself_leaves_no_thread() -> None:
    before = threading.active_count()
    with DnsServer(ZONE):
        assert threading.active_count() == before + 1
    assert threading.active_count() == before
