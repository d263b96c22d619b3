"""The resolver against a real nameserver on loopback, which fails in all the ways that nameservers do."""

from __future__ import annotations

import asyncio
import os
import random
import subprocess
import sys
import threading
import time
import tracemalloc
from collections.abc import Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import dns.message
import dns.rcode
import pytest
from dns_server import FAULTS, DnsServer, remote_server
from resolving import LONG, MONSTROUS, PATIENCE, ZONE, asking, lookup, one_test

from ra_plugins.ask.answerer import Answerers
from ra_plugins.ask.cache import FAILURE_TTL, AnswerCache, answer_size
from ra_plugins.ask.dns import CNAME_LIMIT, ENDLESS, Lookup, Prefetch, Records, Silent, Zone
from ra_plugins.ask.exchange import EXHAUSTED, matching_response
from ra_plugins.ask.nameserver import NameserverList, parse_nameserver, parse_resolv_conf
from ra_plugins.ask.question import Broken, Late, Question, Refused, Unanswered, adrive, drive, gather
from ra_plugins.ask.resolver import Lookups, Resolver, ResolverAnswerer, default_resolver, resolve

pytestmark = pytest.mark.filterwarnings("error")  # a socket or task left behind


@pytest.fixture
def server() -> Iterator[DnsServer]:
    with DnsServer(ZONE) as running:
        yield running


# Answers


@pytest.mark.parametrize("key", [key for key in ZONE.records if key[1] != "CNAME"])
@one_test
async def test_every_type_arrives_as_the_zone_has_it(server: DnsServer, key: tuple[str, str]) -> None:
    answer = await lookup(asking(server), *key)
    assert sorted(answer) == sorted(ZONE.records[key])


@one_test
async def test_a_long_text_takes_one_packet_and_a_monstrous_one_tcp(server: DnsServer) -> None:
    resolver = asking(server)
    assert await lookup(resolver, "long.example.org", "TXT") == (LONG,)
    assert [transport for _, _, transport in server.queries] == ["udp"] and len(LONG) > 1000
    assert await lookup(resolver, "monstrous.example.org", "TXT") == (MONSTROUS,)
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
        assert await lookup(resolver, name) == ()
    assert resolver.sent == 0 and server.queries == []


@one_test
async def test_every_character_of_a_name_is_meant() -> None:
    odd = ("back\\slash.example", "a b.example", 'quo"te.example', "new\nline.example", "nul\0.example", "_;@$.example")
    with DnsServer(Zone({(name, "A"): ["192.0.2.1"] for name in odd})) as server:
        resolver = asking(server)
        for name in odd:
            assert await lookup(resolver, name) == ("192.0.2.1",), name
        assert resolver.sent == len(odd)


# Faults

SILENCE = Silent("no answer in time")
REASONS = {
    "drop": SILENCE,
    "late": SILENCE,
    "truncate always": Broken("an answer cut short"),
    "close": Broken("the nameserver hung up"),
    "hang": SILENCE,
    "drip": SILENCE,
    "cut": SILENCE,
    "garbage": SILENCE,
    "wrong id": SILENCE,
    "wrong name": SILENCE,
    "wrong source": SILENCE,
    "wrong answer": Broken("an answer about something else"),
    "servfail": Broken("SERVFAIL"),
    "refused": Refused("REFUSED"),
    "referral": Refused("only a referral to other nameservers"),
    "formerr": Broken("FORMERR"),
    "endless": Broken(ENDLESS),
}


@pytest.mark.parametrize("fault", [fault for fault in FAULTS if fault in REASONS])
@one_test
async def test_a_fault_is_an_answer_in_time(fault: str) -> None:
    with DnsServer(ZONE, fault=fault) as server:
        seconds = 0.3 if REASONS[fault] is SILENCE else PATIENCE
        clock = Clock()
        resolver = asking(server, timeout=seconds, try_again=seconds / 3, cache=AnswerCache(clock=clock))
        answer = await lookup(resolver, "example.org", "MX")
        assert repr(answer) == repr(REASONS[fault])
        server.fault = ""  # nothing of it is kept for longer than a moment
        server.release()
        clock.now += FAILURE_TTL
        assert len(await lookup(asking(server, cache=resolver.cache), "example.org", "MX")) == 2


def test_every_fault_is_tried() -> None:
    assert set(FAULTS) - set(REASONS) == {"truncate", "no edns", "not implemented"}


@one_test
async def test_truncated_packets_are_asked_again_over_tcp() -> None:
    with DnsServer(ZONE, fault="truncate") as server:
        assert await lookup(asking(server), "null.example.org", "MX") == ((0, ""),)
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

        def forged(query: bytes, transport: str) -> list[bytes]:
            (packet,) = true(query, transport)
            other_name = packet.replace(b"\7example\3org", b"\7example\3net")
            return [b"", b"\xff" * 20, b"\0\0" + packet[2:], other_name, packet]

        server.packets = forged  # type: ignore[method-assign]
        assert await lookup(asking(server), "example.org", "AAAA") == ("2001:db8::1",)


@one_test
async def test_a_query_that_is_lost_is_sent_again(server: DnsServer) -> None:
    server.fault = "drop"
    resolver = asking(server, try_again=0.1, timeout=PATIENCE)
    asked = asyncio.ensure_future(lookup(resolver, "example.org", "AAAA"))
    await asyncio.to_thread(server.wait_for, 2)
    server.fault = ""
    assert await asked == ("2001:db8::1",)
    assert resolver.sent >= 3


@one_test
async def test_servers_take_turns_and_a_silent_one_comes_last() -> None:
    with DnsServer(ZONE, fault="drop") as silent, DnsServer(ZONE) as good:
        resolver = asking(silent, good, try_again=0.3)
        assert await lookup(resolver, "example.org", "AAAA") == ("2001:db8::1",)
        assert len(silent.queries) == len(good.queries) == 1
        assert len(await lookup(resolver, "example.org", "MX")) == 2
        assert len(silent.queries) == 1 and len(good.queries) == 2
        good.fault, silent.fault = "drop", ""
        assert len(await lookup(resolver, "example.org", "A")) == 2
        assert len(silent.queries) == 2


@pytest.mark.parametrize(
    "fault", ["servfail", "refused", "wrong answer", "close", "referral", "formerr", "truncate always"]
)
@one_test
async def test_a_server_that_has_no_answer_leads_to_the_next(fault: str) -> None:
    with DnsServer(ZONE, fault=fault) as broken, DnsServer(ZONE) as good:
        assert await lookup(asking(broken, good), "example.org", "AAAA") == ("2001:db8::1",)
        assert len(good.queries) == 1


@pytest.mark.parametrize(
    ("faults", "expected"),
    [
        (("refused", "refused"), Refused("REFUSED")),
        (("refused", "referral"), Refused("only a referral to other nameservers")),
        (("refused", "drop"), Broken("REFUSED")),
        (("servfail", "refused"), Broken("SERVFAIL")),
        (("refused", "servfail"), Broken("SERVFAIL")),
        (("drop", "servfail"), Broken("SERVFAIL")),
        (("drop", "drop"), SILENCE),
    ],
)
@one_test
async def test_the_class_says_why_nobody_answered(faults: tuple[str, str], expected: Unanswered) -> None:
    with DnsServer(ZONE, fault=faults[0]) as first, DnsServer(ZONE, fault=faults[1]) as second:
        resolver = asking(first, second, timeout=0.3, try_again=0.1)
        assert repr(await lookup(resolver, "example.org")) == repr(expected)


@pytest.mark.parametrize("fault", ["no edns", "not implemented"])
@one_test
async def test_a_server_without_edns_is_asked_without_for_a_while(fault: str) -> None:
    with DnsServer(ZONE, fault=fault) as server:
        resolver = asking(server)
        assert await lookup(resolver, "example.org", "AAAA") == ("2001:db8::1",)
        assert resolver.sent == 2
        assert await lookup(resolver, "long.example.org", "TXT") == (LONG,)  # in 512 bytes and then over TCP
        assert [transport for _, _, transport in server.queries[2:]] == ["udp", "tcp"]
        resolver.nameservers.servers[0].plain_until = 0  # the while is over
        assert len(await lookup(resolver, "example.org", "MX")) == 2
        assert resolver.sent == 6


@one_test
async def test_a_server_that_understands_nothing_is_not_taken_for_one_without_edns() -> None:
    with DnsServer(ZONE, fault="formerr") as server:
        resolver = asking(server)
        assert isinstance(await lookup(resolver, "example.org"), Broken)
        server.fault = ""
        assert await lookup(resolver, "long.example.org", "TXT") == (LONG,)
        assert [transport for _, _, transport in server.queries] == ["udp"] * 3


@one_test
async def test_numbers_and_ports_are_random(server: DnsServer) -> None:
    resolver = asking(server)
    await asyncio.gather(*(lookup(resolver, f"n{number}.example.org") for number in range(100)))
    assert len(set(server.numbers)) > 90 and len(set(server.ports)) > 90
    assert max(abs(one - other) for one, other in zip(server.numbers, server.numbers[1:], strict=False)) > 1000


@one_test
async def test_sixty_kilobytes_arrive() -> None:
    addresses = [f"192.0.{number // 250}.{number % 250}" for number in range(3000)]
    zone = Zone({("example.org", "A"): addresses, ("example.org", "TXT"): ["x" * 60_000]})
    with DnsServer(zone) as server:
        resolver = asking(server, cache=AnswerCache(size=2**20))
        assert await lookup(resolver, "example.org") == tuple(addresses)
        assert await lookup(resolver, "example.org", "TXT") == ("x" * 60_000,)
        assert len(resolver.cache) == 0  # one alone would drive out too many others


@one_test
async def test_no_such_name_is_told_from_no_such_record(server: DnsServer) -> None:
    resolver = asking(server)
    for name, exists in (("nowhere.example.org", False), ("null.example.org", True), ("dangling.example.org", False)):
        answers: list[Any] = [await lookup(resolver, name, "TXT"), await lookup(resolver, name, "TXT")]
        for answer in (*answers, ZONE.answer(Lookup(name, "TXT"))):
            assert len(answer) == 0 and answer.exists is exists
    assert resolver.sent == 3
    assert await lookup(resolver, "dangling.example.org", "CNAME") == ("nowhere.example.org",)


@one_test
async def test_nobody_can_change_an_answer_for_others(server: DnsServer) -> None:
    resolver = asking(server)
    answer: Any = await lookup(resolver, "example.org", "AAAA")
    for change in (lambda: answer.append("x"), lambda: answer.__setitem__(0, "x"), lambda: setattr(answer, "ttl", 9)):
        with pytest.raises((AttributeError, TypeError)):
            change()
    assert await lookup(resolver, "example.org", "AAAA") == ("2001:db8::1",)


@one_test
async def test_the_type_of_a_lookup_is_that_of_its_answer(server: DnsServer) -> None:
    async def decision() -> tuple[list[int], str]:
        hosts = await Lookup("example.org", "MX")
        texts = await Lookup("www.example.org", "AAAA")
        preferences: list[int] = [preference for preference, _ in hosts]
        address: str = texts[0].upper()
        return sorted(preferences), address

    async with Lookups(asking(server)) as lookups:
        assert await adrive(decision(), lookups.tell) == ([10, 20], "2001:DB8::1")


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
            assert all(isinstance(answer, (Records, Unanswered)) for answer in answers)
            resolver.cache = AnswerCache()


def test_no_packet_makes_the_reader_fail() -> None:
    request, chance = dns.message.make_query("example.org", "TXT"), random.Random(7208)  # noqa: S311
    response = dns.message.make_response(request).to_wire()
    assert matching_response(request, response) is not None
    for _ in range(2000):
        packet = bytearray(response + bytes(chance.randrange(256) for _ in range(chance.randrange(60))))
        for _ in range(chance.randrange(8)):
            packet[chance.randrange(len(packet))] = chance.randrange(256)
        try:
            assert isinstance(matching_response(request, bytes(packet)), (dns.message.Message, type(None)))
        except dns.message.Truncated:
            assert packet[:2] == response[:2] and packet[2] & 2


@pytest.mark.parametrize(
    "text", [None, "", "nameserver ns.example.org\n", "nameserver\nsearch example.org\n", "\0\n", b"\xff"]
)
@one_test
async def test_a_resolv_conf_of_no_use(tmp_path: Path, text: str | bytes | None) -> None:
    path = tmp_path / "resolv.conf"
    if text is not None:
        path.write_bytes(text.encode() if isinstance(text, str) else text)
    resolver = Resolver(resolv_conf=str(path))
    answer = await lookup(resolver, "example.org", "AAAA")
    assert type(answer) is not Broken and isinstance(answer, Broken) and 0 < len(str(answer)) < 60 + len(str(path))
    with DnsServer(ZONE) as server:  # and one that has appeared, or been mended, is read
        resolver.nameservers.port = server.port
        path.write_text("nameserver 127.0.0.1\n")
        assert await lookup(resolver, "example.org", "AAAA") == ("2001:db8::1",)


@pytest.mark.parametrize("kind", ["folder", "fifo", "full"])
@one_test
async def test_a_resolv_conf_that_is_no_file(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "resolv.conf"
    if kind == "full":
        path.symlink_to("/dev/zero")
    else:
        os.mkfifo(path) if kind == "fifo" else path.mkdir()
    assert isinstance(await lookup(Resolver(resolv_conf=str(path)), "example.org"), Broken)


@one_test
async def test_resolv_conf_is_read_again_when_it_has_changed(tmp_path: Path) -> None:
    path = tmp_path / "resolv.conf"
    path.write_text("nameserver 127.0.0.1\n")
    listed = NameserverList(None, 5353, str(path))
    first = listed.look()
    path.write_text("nameserver 127.0.0.1\nnameserver 127.0.0.2\noptions rotate\n")
    listed.looked = float("inf")  # it was looked at a moment ago
    assert listed.look() is first
    listed.looked = 0
    assert [each.address for each in listed.look()] == ["127.0.0.1", "127.0.0.2"] and listed.look()[0] is first[0]
    assert [listed.in_order()[0].address for _ in range(4)] == ["127.0.0.2", "127.0.0.1"] * 2
    path.unlink()  # as while somebody writes a new one
    listed.looked = 0
    assert len(listed.look()) == 2
    path.write_text("nameserver 127.0.0.3\n")
    listed.looked = 0
    assert [each.address for each in listed.look()] == ["127.0.0.3"] and listed.options == {}


@one_test
async def test_the_options_of_resolv_conf_are_kept_to(tmp_path: Path) -> None:
    path = tmp_path / "resolv.conf"
    path.write_text("nameserver 127.0.0.1\noptions timeout:1 attempts:1\n")
    with DnsServer(ZONE, fault="drop") as server:
        resolver = Resolver(None, server.port, timeout=600, resolv_conf=str(path))
        assert repr(await lookup(resolver, "example.org")) == repr(SILENCE)
        assert len(server.queries) == 1


def test_any_resolv_conf_can_be_read() -> None:
    chance = random.Random(1035)  # noqa: S311
    words = [
        "nameserver",
        "options",
        "timeout:",
        "attempts:9",
        "rotate",
        "192.0.2.1",
        "::1",
        "fe80::1%eth0",
        "9" * 5000,
        "²",
        "\0",
        "\u2028",
    ]
    for _ in range(2000):
        text = "".join(chance.choice(words) + chance.choice(" \n\t:#;") for _ in range(chance.randrange(12)))
        addresses, options = parse_resolv_conf(text)
        assert all(parse_nameserver(each) == (each, 53) for each in addresses)
        assert options.keys() <= {"timeout", "attempts", "rotate"} and all(1 <= each <= 30 for each in options.values())


def test_nameservers_are_addresses() -> None:
    for address in (
        "ns.example.org",
        "192.0.2",
        "",
        "192.0.2.1#",
        "192.0.2.1#0",
        "192.0.2.1:65536",
        "[2001:db8::1",
        "#53",
    ):
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
    resolver = asking(server, cache=AnswerCache(clock=clock))
    for now, sent in ((1000, 1), (1299.9, 1), (1300, 2), (1599.9, 2), (1600, 3)):
        clock.now = now
        assert await lookup(resolver, "example.ORG", "AAAA") == ("2001:db8::1",)
        assert resolver.sent == sent


@pytest.mark.parametrize("links", [1, 100])
@one_test
async def test_the_shortest_ttl_of_a_chain_counts(server: DnsServer, links: int) -> None:
    clock, true, server.links = Clock(), server.add, links

    def add(response: Any, name: Any, rdtype: str, values: Any) -> None:
        server.ttl = 7 if name == "web.example.org" else 300
        true(response, name, rdtype, values)

    server.add = add  # type: ignore[method-assign]
    resolver = asking(server, cache=AnswerCache(clock=clock))
    for now, times in ((1000, 1), (1006.9, 1), (1007, 2)):
        clock.now = now
        assert sorted(await lookup(resolver, "www.example.org")) == ["192.0.2.1", "192.0.2.2"]
        assert resolver.sent == times * (3 if links == 1 else 1)


@one_test
async def test_that_there_is_nothing_is_kept_too(server: DnsServer) -> None:
    clock = Clock()
    resolver = asking(server, cache=AnswerCache(clock=clock))
    for rdtype in ("A", "TXT", "AAAA", "MX"):
        assert await lookup(resolver, "nowhere.example.org", rdtype) == ()
    assert resolver.sent == 1  # no such name: known for all types
    assert await lookup(resolver, "null.example.org", "A") == await lookup(resolver, "null.example.org", "A") == ()
    assert resolver.sent == 2
    assert await lookup(resolver, "null.example.org", "TXT") == ()
    assert resolver.sent == 3  # no such record: for one type
    assert (
        await lookup(resolver, "dangling.example.org", "A")
        == await lookup(resolver, "dangling.example.org", "MX")
        == ()
    )
    assert resolver.sent == 4
    clock.now += 300
    assert await lookup(resolver, "nowhere.example.org") == ()
    assert resolver.sent == 5


@one_test
async def test_without_a_soa_it_is_not_kept(server: DnsServer) -> None:
    server.soa = False
    resolver = asking(server)
    for sent in (1, 2):
        assert await lookup(resolver, "nowhere.example.org") == ()
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
        resolver = asking(server, cache=AnswerCache(clock=clock))
        assert await lookup(resolver, "example.org", "AAAA") == ("2001:db8::1",)
        clock.now += 86_400
        assert await lookup(resolver, "example.org", "AAAA") == ("2001:db8::1",)
        assert resolver.sent == 2


@one_test
async def test_an_answer_says_for_how_long_it_still_holds(server: DnsServer) -> None:
    clock = Clock()
    resolver = asking(server, cache=AnswerCache(clock=clock))
    for now, ttl in ((1000, 300), (1000, 300), (1100, 200), (1299.5, 0), (1300, 300)):
        clock.now = now
        assert (await lookup(resolver, "example.org", "AAAA")).ttl == ttl
    for name in ("nowhere.example.org", "null.example.org"):
        assert (await lookup(resolver, name)).ttl == 300


@pytest.mark.parametrize("make", [
    lambda number: Records([f"192.0.2.{number % 250}"], 300),
    lambda number: Records([(10, f"mx{number}.example.org"), (2000, f"mx{number}.example.net")], 300),
    lambda number: Records([f"v=spf1 include:n{number}.example.org -all" + "x" * 200, "\udcff" * 50 + str(number)], 300),
    lambda number: Records([f"192.0.{number % 200}.{each}" for each in range(100)], 300),
    lambda number: Records(ttl=300, exists=False),
    lambda number: Broken("SERVFAIL"),
])  # fmt: skip
def test_what_is_kept_is_counted_as_it_is(make: Any) -> None:
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        cache = AnswerCache()
        for number in range(1000):
            cache.put(f"n{number}.example.org", "A", make(number))
        size = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert len(cache) == 1000 and size / 1.2 < cache.used < size * 2


def test_strangers_cannot_fill_memory() -> None:
    cache = AnswerCache(size=8 * 2**20)
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        for number in range(1000):
            cache.put(f"n{number}.example.org", "TXT", Records([str(number) + 64_000 * "x"], 300))
            cache.put("example.org", "TXT", Records(["v=spf1 -all"], 300))
            assert cache.get("n0.example.org", "TXT") is not None  # used last
        size = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert size < 9 * 2**20 and cache.used <= cache.size
    assert cache.get("n999.example.org", "TXT") is not None and cache.get("n1.example.org", "TXT") is None
    assert cache.used == sum(answer_size(name, answer) for (name, _), (_, answer) in cache.kept.items())


# Many at once


@one_test
async def test_a_herd_asks_once(server: DnsServer) -> None:
    server.faults = {"example.org": "late"}
    resolver = asking(server, timeout=PATIENCE, try_again=PATIENCE)
    herd = [asyncio.ensure_future(lookup(resolver, name, "AAAA")) for name in ("example.org", "EXAMPLE.org") * 50]
    await asyncio.to_thread(server.wait_for, 1)
    server.release()
    assert await asyncio.gather(*herd) == [("2001:db8::1",)] * 100
    assert resolver.sent == len(server.queries) == 1


@one_test
async def test_a_failure_is_kept_for_a_moment(server: DnsServer) -> None:
    server.fault, clock = "servfail", Clock()
    resolver = asking(server, cache=AnswerCache(clock=clock))
    herd = await asyncio.gather(*(lookup(resolver, "example.org") for _ in range(10)))
    server.fault = ""
    herd.append(await lookup(resolver, "example.org"))
    assert {repr(answer) for answer in herd} == {"Broken('SERVFAIL')"} and resolver.sent == 1
    assert len({id(answer) for answer in herd[-2:]}) == 2  # each has an exception of its own
    clock.now += FAILURE_TTL
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
    assert await second == ("2001:db8::1",)
    assert first.cancelled() and third.cancelled() and resolver.running == {}
    assert resolver.sent == 2


# A session


async def in_lookups(decision: Coroutine[Any, Any, Any], resolver: Resolver) -> Any:
    async with Lookups(resolver) as lookups:
        return await asyncio.wait_for(adrive(decision, lookups.tell), PATIENCE)


@one_test
async def test_several_at_a_time(server: DnsServer) -> None:
    server.faults = {"web.example.org": "servfail"}

    async def several() -> Any:
        lookups = (Lookup("example.org", "AAAA"), Lookup("web.example.org", "A"), Lookup("EXAMPLE.org", "AAAA"))
        return await gather(*lookups, Prefetch([], lambda *_: []), Question())

    same, failed, again, nothing, unknown = await in_lookups(several(), asking(server))
    assert same == again == ("2001:db8::1",) and nothing is None
    assert str(failed) == "SERVFAIL" and isinstance(unknown, Unanswered)
    assert len(server.queries) == 2


@one_test
async def test_within_a_check_nothing_is_asked_twice_even_without_a_ttl(server: DnsServer) -> None:
    server.ttl = 0
    server.faults = {"web.example.org": "servfail"}

    async def again() -> tuple[Any, ...]:
        answers = await Lookup("example.org", "AAAA"), await Lookup("example.org", "AAAA")
        return answers + await gather(Lookup("web.example.org", "A")) + await gather(Lookup("web.example.org", "A"))

    resolver = asking(server)
    answers = await in_lookups(again(), resolver)
    assert answers[:2] == (("2001:db8::1",),) * 2 and str(answers[2]) == str(answers[3]) == "SERVFAIL"
    assert resolver.sent == 2
    await in_lookups(again(), resolver)
    assert resolver.sent == 3  # that it failed is still known


@one_test
async def test_what_came_too_late_once_may_be_asked_again(server: DnsServer) -> None:
    server.faults = {"example.org": "late"}

    class Released(Lookups):
        async def tell(self, question: Question[Any], until: float = float("inf")) -> Any:
            if until == float("inf"):
                server.release()
            return await super().tell(question, until)

    async def hasty_and_patient() -> tuple[Any, ...]:
        (hasty,) = await gather(Lookup("example.org", "AAAA"), within=0.05)
        return hasty, await Lookup("example.org", "AAAA")

    resolver = asking(server, timeout=PATIENCE, try_again=PATIENCE)
    async with Released(resolver) as lookups:
        hasty, answer = await asyncio.wait_for(adrive(hasty_and_patient(), lookups.tell), PATIENCE)
    assert type(hasty) is Late and answer == ("2001:db8::1",) and resolver.sent == 1


# The deadline


@pytest.mark.parametrize("fault", ["drop", "hang", "drip"])
@one_test
async def test_there_is_one_deadline_for_all_tries(fault: str) -> None:
    with DnsServer(ZONE, fault=fault) as first, DnsServer(ZONE, fault=fault) as second:
        resolver = asking(first, second, timeout=600, try_again=0.03)
        answer = await asyncio.wait_for(resolve(resolver, Lookup("example.org", "A"), time.monotonic() + 0.3), PATIENCE)
        assert repr(answer) == "Late('no answer before the deadline')"
        assert first.queries and second.queries and resolver.sockets.taken == 0


@pytest.mark.parametrize("fault", ["drop", "hang", "drip"])
@one_test
async def test_there_is_one_deadline_whatever_happens(fault: str) -> None:
    with DnsServer(ZONE, fault=fault) as first, DnsServer(ZONE, fault=fault) as second:
        resolver = asking(first, second, timeout=600, try_again=600)
        answer = await asyncio.wait_for(resolve(resolver, Lookup("example.org", "A"), time.monotonic() + 0.2), PATIENCE)
        assert repr(answer) == "Late('no answer before the deadline')"
        assert [each.failures for each in resolver.nameservers.servers] == [0, 0]  # they had hardly any time
        resolver = asking(first, second, timeout=0.2, try_again=600)
        assert repr(await lookup(resolver, "example.org")) == repr(SILENCE)
        assert [each.failures for each in resolver.nameservers.servers] == [1, 0]


@one_test
async def test_tcp_has_what_udp_has_left_over() -> None:
    with DnsServer(ZONE, fault="hang", delay=1.0) as server:
        resolver = asking(server, timeout=600, try_again=600)
        until, overdue = time.monotonic() + 1.2, asyncio.Event()
        timer = asyncio.get_running_loop().call_later(2.0, overdue.set)
        assert type(await resolve(resolver, Lookup("example.org", "A"), until)) is Late
        assert [transport for _, _, transport in server.queries] == ["udp", "tcp"]
        assert not overdue.is_set()  # as it was when each transport had all the time there was at first
        timer.cancel()


@one_test
async def test_after_the_deadline_only_what_is_known_is_an_answer(server: DnsServer) -> None:
    resolver = asking(server)
    assert type(await resolve(resolver, Lookup("example.org", "AAAA"), time.monotonic())) is Late
    assert resolver.sent == 0
    await lookup(resolver, "example.org", "AAAA")
    assert await resolve(resolver, Lookup("example.org", "AAAA"), time.monotonic()) == ("2001:db8::1",)


@pytest.mark.parametrize("hasty_leads", [True, False])
@one_test
async def test_the_deadline_of_one_is_not_that_of_others(hasty_leads: bool) -> None:
    with DnsServer(ZONE, fault="late") as server:
        resolver, asked = asking(server, timeout=PATIENCE, try_again=PATIENCE), Lookup("example.org", "AAAA")
        deadlines = {"hasty": time.monotonic() + 0.1, "patient": time.monotonic() + PATIENCE}
        order = sorted(deadlines, reverse=not hasty_leads)
        found = {name: asyncio.ensure_future(resolve(resolver, asked, deadlines[name])) for name in order}
        assert type(await found["hasty"]) is Late
        await asyncio.to_thread(server.wait_for, 2 if hasty_leads else 1)
        server.release()
        assert await found["patient"] == ("2001:db8::1",)
        assert resolver.sent == (2 if hasty_leads else 1)


def test_the_server_itself_leaves_no_thread() -> None:
    before = threading.active_count()
    with DnsServer(ZONE):
        assert threading.active_count() == before + 1
    assert threading.active_count() == before


# Sockets


@one_test
async def test_no_more_sockets_are_open_than_allowed(server: DnsServer) -> None:
    server.fault = "late"
    resolver = asking(server, timeout=PATIENCE, try_again=PATIENCE, sockets=3)
    asked = [asyncio.ensure_future(lookup(resolver, f"n{number}.example.org")) for number in range(10)]
    await asyncio.to_thread(server.wait_for, 3)
    assert resolver.sockets.taken == 3 and len(resolver.sockets.waiting) == 7 and len(server.queries) == 3
    server.fault = ""
    server.release()
    assert await asyncio.gather(*asked) == [()] * 10
    assert resolver.sockets.taken == 0 and not resolver.sockets.waiting


@one_test
async def test_who_waits_for_a_socket_waits_within_the_deadline(server: DnsServer) -> None:
    server.fault = "late"
    resolver = asking(server, timeout=PATIENCE, try_again=PATIENCE, sockets=1)
    first = asyncio.ensure_future(lookup(resolver, "n1.example.org"))
    await asyncio.to_thread(server.wait_for, 1)
    assert type(await resolve(resolver, Lookup("n2.example.org", "A"), time.monotonic() + 0.05)) is Late
    resolver.timeout = 0.05
    assert isinstance(await lookup(resolver, "n3.example.org"), Broken)
    assert resolver.nameservers.servers[0].failures == 0
    server.fault = ""
    server.release()
    assert await first == ()
    assert await lookup(resolver, "n3.example.org") == ()  # that there was no socket isn't kept


@one_test
async def test_places_are_not_lost_when_those_who_wait_hang_up(server: DnsServer) -> None:
    chance, resolver = random.Random(7208), asking(server, sockets=2)  # noqa: S311
    for _ in range(20):
        asked = [
            asyncio.ensure_future(resolve(resolver, Lookup(f"n{chance.random()}.example.org", "A"))) for _ in range(10)
        ]
        for _ in range(chance.randrange(6)):
            await asyncio.sleep(0)
        for task in chance.sample(asked, 5):
            task.cancel()
        answers = await asyncio.gather(*asked, return_exceptions=True)
        answered = [answer for answer in answers if not isinstance(answer, asyncio.CancelledError)]
        assert len(answered) >= 5 and set(answered) == {()}
        assert resolver.sockets.taken == 0


def test_threads_share_the_sockets(server: DnsServer) -> None:
    resolver = asking(server, sockets=2, timeout=PATIENCE)

    async def several(start: int) -> list[Any]:
        return await asyncio.gather(*(lookup(resolver, f"n{start + number}.example.org") for number in range(10)))

    with ThreadPoolExecutor(8) as threads:
        found = list(threads.map(lambda number: asyncio.run(several(10 * number)), range(16)))
    assert found == [[()] * 10] * 16 and resolver.sockets.taken == 0


MANY = """
import asyncio, resource, sys
from ra_plugins.ask.dns import Lookup
from ra_plugins.ask.question import adrive
from ra_plugins.ask.resolver import Lookups, Resolver

async def decision(number):
    return await Lookup(f"n{number}.example.org", "TXT") == (f"text {number}",)

async def check(resolver, number):
    async with Lookups(resolver) as lookups:
        return await adrive(decision(number), lookups.tell)

async def main(port, limit):
    resolver = Resolver(["127.0.0.1"], port, timeout=50, try_again=1)
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
    found = await asyncio.gather(*(check(resolver, number) for number in range(1000)))
    return found.count(True), resolver.nameservers.servers[0].failures, resolver.sockets.taken

print(*asyncio.run(main(*map(int, sys.argv[1:]))))
"""
NUMBERED = Zone({(f"n{number}.example.org", "TXT"): [f"text {number}"] for number in range(1000)})


@pytest.mark.parametrize("limit", [1024, 24])
def test_a_thousand_at_once_with_few_files(limit: int) -> None:
    over_tcp = {f"n{number}.example.org": "truncate" for number in range(0, 1000, 20)}
    with DnsServer(NUMBERED, faults=over_tcp) as server:
        command = [sys.executable, "-c", MANY, str(server.port), str(limit)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.stderr) == ("1000 0 0\n", "")


NONE_LEFT = """
import asyncio, resource, sys
from ra_plugins.ask.dns import Lookup
from ra_plugins.ask.resolver import Resolver, resolve

async def main(port):
    resolver, files = Resolver(["127.0.0.1"], port), []
    resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
    try:
        while True:
            files.append(open("/dev/null"))
    except OSError:
        print(repr(await resolve(resolver, Lookup("n1.example.org", "TXT"))), resolver.nameservers.servers[0].failures)
    for file in files:
        file.close()
    print(*await resolve(resolver, Lookup("n1.example.org", "TXT")))

asyncio.run(main(int(sys.argv[1])))
"""


def test_that_files_have_run_out_is_no_fault_of_a_nameserver() -> None:
    with DnsServer(NUMBERED) as server:
        command = [sys.executable, "-c", NONE_LEFT, str(server.port)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.stdout.lower().splitlines() == ["localfault('too many open files') 0", "text 1"], done.stderr


@pytest.mark.parametrize("number", sorted(EXHAUSTED))
@one_test
async def test_what_this_machine_lacks_is_no_fault_of_a_nameserver(
    server: DnsServer, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lacking(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    resolver = asking(server)
    with monkeypatch.context() as patch:
        patch.setattr("socket.socket.connect", lacking)
        assert isinstance(await lookup(resolver, "example.org", "AAAA"), Broken)
    assert resolver.nameservers.servers[0].failures == 0
    assert await lookup(resolver, "example.org", "AAAA") == ("2001:db8::1",)  # nor is it kept


# In a host


def hosting(server: DnsServer, **environ: str) -> Answerers:
    return Answerers({"DNSSERVERS": f"127.0.0.1#{server.port}", **environ})


def answerer(host: Answerers) -> ResolverAnswerer:
    found: ResolverAnswerer = host.find(Lookup)
    return found


@one_test
async def test_a_host_has_one_resolver_and_one_cache(server: DnsServer) -> None:
    async with hosting(server, DNSTIMEOUT="3") as host:
        assert answerer(host).resolver.timeout == 3 and host.find(Prefetch) is host.find(Lookup)
        for _ in range(3):
            assert await host.atell(Lookup("example.org", "AAAA"), time.monotonic() + PATIENCE) == ("2001:db8::1",)
        answerer(host).resolver.sockets.limit = 0  # what is known needs no socket
        assert await host.atell(Lookup("EXAMPLE.org", "AAAA"), time.monotonic() + PATIENCE) == ("2001:db8::1",)
        assert len(server.queries) == 1
        assert type(await host.atell(Lookup("example.org", "MX"), time.monotonic() + 0.05)) is Late


@one_test
async def test_what_is_asked_ahead_in_a_host_is_asked_once(server: DnsServer) -> None:
    server.faults = {"example.org": "late", "www.example.org": "late"}

    async def decision() -> tuple[Any, ...]:
        await Prefetch([Lookup("example.org", "AAAA"), Lookup("www.example.org", "A")], lambda *_: [])
        return await gather(Lookup("www.example.org", "A"), Lookup("example.org", "AAAA"))

    async with hosting(server) as host:
        asked = asyncio.ensure_future(adrive(decision(), host.atell, time.monotonic() + PATIENCE))
        await asyncio.to_thread(server.wait_for, 2)
        server.release()
        addresses, found = await asyncio.wait_for(asked, PATIENCE)
        assert sorted(addresses) == ["192.0.2.1", "192.0.2.2"] and found == ("2001:db8::1",)
        assert len(server.queries) == 2


@one_test
async def test_what_is_asked_ahead_in_a_host_is_bounded_and_ends(server: DnsServer) -> None:
    server.fault = "drop"

    def for_ever(lookup: Lookup, answer: Records) -> list[Lookup]:
        return [Lookup(f"{number}.{lookup.name}", "A") for number in range(10)]

    async with hosting(server) as host:
        until = time.monotonic() + PATIENCE
        for number in range(100):
            asked = [Lookup(f"n{number}.{each}.example.org", "A") for each in range(50)]
            assert await host.atell(Prefetch(asked, for_ever), until) is None
        await asyncio.to_thread(server.wait_for, 128)
        assert answerer(host).resolver.sent == 128  # half of the sockets
        assert len(answerer(host).ahead) == 5  # of 30 each, and one of 8
    assert host.made == {}


@one_test
async def test_what_is_asked_ahead_in_a_host_has_the_deadline_of_the_decision(server: DnsServer) -> None:
    server.fault = "drop"
    async with hosting(server) as host:
        asked = Prefetch([Lookup("example.org", "A")], lambda *_: [])
        assert await host.atell(asked, time.monotonic() + 0.1) is None
        (task,) = answerer(host).ahead
        await asyncio.wait_for(task, PATIENCE)
        assert not answerer(host).ahead and answerer(host).resolver.sockets.taken == 0


def test_a_script_has_a_loop_for_its_lookups(server: DnsServer) -> None:
    async def decision() -> Any:
        await Prefetch([Lookup("example.org", "AAAA")], lambda *_: [])
        return await Lookup("example.org", "AAAA")

    assert ResolverAnswerer.needs_loop()
    with hosting(server) as host:
        assert drive(decision(), host.tell, time.monotonic() + PATIENCE) == ("2001:db8::1",)
        assert isinstance(host.tell(Lookup("nowhere.example.org", "A"), time.monotonic() + PATIENCE), Records)
    assert len(server.queries) == 2


def test_settings_that_make_no_sense_are_logged(server: DnsServer) -> None:
    lines: list[str] = []
    with Answerers({"DNSSERVERS": "ns.example.org", "DNSTIMEOUT": "0"}, lines.append) as host:
        assert answerer(host).resolver.timeout == 10 and not answerer(host).resolver.nameservers.fixed
    assert len(lines) == 2 and "DNSSERVERS" in lines[0] and "DNSTIMEOUT" in lines[1]


def test_by_default_the_nameservers_of_this_machine_are_asked() -> None:
    assert default_resolver() is default_resolver() and default_resolver().nameservers.path == "/etc/resolv.conf"


def test_a_server_in_a_process_of_its_own_counts() -> None:
    with remote_server(ZONE) as server:
        resolver = Resolver(["127.0.0.1"], server.port)
        asyncio.run(lookup(resolver, "example.org"))
        assert [server.count(), server.count()] == [resolver.sent, 0] == [1, 0]
