"""SPF checks over a real nameserver on loopback: the same results as over a zone, and in time."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from dns_server import DnsServer
from resolving import PATIENCE, ZONE, asking, one_test
from spf_results import whole

from ra_plugins.ask.dns import Zone
from ra_plugins.ask.nameserver import NameserverList
from ra_plugins.ask.question import TOO_LATE
from ra_plugins.ask.resolver import default_resolver
from ra_plugins.ask.zonefile import zone_from_text
from ra_plugins.spf import acheck, check
from ra_plugins.spf.spfquery import SpfquerySetup, SpfRequest, answer_request

pytestmark = pytest.mark.filterwarnings("error")  # a socket or task left behind


@pytest.fixture
def server() -> Iterator[DnsServer]:
    with DnsServer(ZONE) as running:
        yield running


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
            single = asking(server, prefetch=0)
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
            resolver, single = asking(server, prefetch=room), asking(server, prefetch=0)
            found = await acheck("192.0.2.1", "ana@example.org", resolver=resolver)
            assert repr(found) == repr(await acheck("192.0.2.1", "ana@example.org", resolver=single))
            assert single.sent <= resolver.sent <= single.sent + room


@pytest.mark.parametrize("room", [0, 1, 5, 10])
@one_test
async def test_the_room_is_kept_to_while_the_check_waits(room: int) -> None:
    terms = " ".join(f"include:n{number}.example.org" for number in range(40))
    records = {("example.org", "TXT"): [f"v=spf1 {terms} -all"], ("n0.example.org", "TXT"): ["v=spf1 +all"]}
    with DnsServer(Zone(records), faults={f"n{number}.example.org": "late" for number in range(40)}) as server:
        resolver = asking(server, timeout=PATIENCE, try_again=PATIENCE, prefetch=room)
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
        assert (found.result, found.problem) == ("temperror", f"DNS TXT n2.big.example: {TOO_LATE}")
        assert (found.lookups, found.trace.redirected.visits[0].result) == (3, "softfail")


@one_test
async def test_a_ptr_that_is_cut_short_is_no_reason_to_refuse() -> None:
    zone = Zone({("example.org", "TXT"): ["v=spf1 ptr -all"], ("x", "TXT"): []})
    with DnsServer(zone, faults={"1.2.0.192.in-addr.arpa": "drop"}) as server:
        found = await acheck(
            "192.0.2.1", "a@example.org", resolver=asking(server, timeout=600, try_again=600), timeout=1
        )
        assert (found.result, found.problem) == ("temperror", f"DNS: {TOO_LATE}")
        found = await acheck("192.0.2.1", "a@example.org", resolver=asking(server, timeout=1, try_again=1))
        assert found.result == "fail"  # the lookup failed, in time: RFC 7208, section 5.5


@one_test
async def test_a_fail_stands_when_only_its_explanation_is_late() -> None:
    zone = Zone({("example.org", "TXT"): ["v=spf1 -all exp=why.example.org"]})
    with DnsServer(zone, faults={"why.example.org": "drop"}) as server:
        resolver = asking(server, timeout=600, try_again=600)
        found = await acheck("192.0.2.1", "a@example.org", resolver=resolver, timeout=1, default="No: %{d}")
        assert (found.result, found.explanation) == ("fail", "No: example.org")


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
    for ip in (
        "",
        "example.org",
        "192.0.2.1/24",
        "192.0.2.1\n",
        "\0",
        "\udcff",
        "1" * 65536,
        b"\xc0\0\2\1",
        b"\xff",
        7,
        None,
    ):
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


def test_by_default_the_nameservers_of_this_machine_are_asked(tmp_path: Path) -> None:
    path = tmp_path / "resolv.conf"
    path.write_text("nameserver 127.0.0.1\noptions timeout:1\n")
    default_resolver.cache_clear()
    with DnsServer(POLICIES) as server:
        default_resolver().nameservers = NameserverList(None, server.port, str(path))
        for _ in range(2):
            assert check("198.51.100.1", "ana@big.example").result == "pass"
            assert asyncio.run(acheck("198.51.100.1", "ana@big.example")).result == "pass"
        assert len(server.queries) <= 5
    default_resolver.cache_clear()


def test_other_policies_are_asked_under_a_running_loop_too() -> None:
    with DnsServer(Zone({**ZONE.records, ("null.example.org", "TXT"): ["v=spf1 mx -all"]})) as server:
        setup = SpfquerySetup()
        setup.resolver, setup.local = asking(server), "a:www.example.org"

        async def judged() -> str:
            return answer_request(SpfRequest("192.0.2.2", "ana@null.example.org"), setup).name

        assert asyncio.run(judged()) == "pass"


def test_threads_share_a_resolver(server: DnsServer) -> None:
    resolver = asking(server)
    with ThreadPoolExecutor(8) as threads:
        found = list(
            threads.map(lambda n: repr(check(f"192.0.2.{n % 2}", "a@example.org", resolver=resolver)), range(80))
        )
    assert set(found) == {"<fail: -all, 1 lookups, 2 void>"}
    sent = resolver.sent
    check("192.0.2.1", "a@example.org", resolver=resolver)
    assert resolver.sent == sent <= 8 * 4


THOUSAND = """
import asyncio, collections, resource, sys
from ra_plugins.ask.resolver import Resolver
from ra_plugins.spf import acheck

async def main(port, limit):
    resolver = Resolver(["127.0.0.1"], port, try_again=1)
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
    checks = (acheck("192.0.2.1", f"ana@n{number}.example", resolver=resolver, timeout=50) for number in range(1000))
    print(*sorted(collections.Counter(found.result for found in await asyncio.gather(*checks)).items()))

asyncio.run(main(*map(int, sys.argv[1:])))
"""


@pytest.mark.parametrize("limit", [1024, 64])
def test_a_thousand_checks_at_once_all_come_out_right(limit: int) -> None:
    records: dict[tuple[str, str], list[Any]] = {("_spf.example", "TXT"): ["v=spf1 ip4:198.51.100.0/24 -all"]}
    for number in range(1000):
        records[f"n{number}.example", "TXT"] = [f"v=spf1 a:a{number}.example include:_spf.example -all"]
        records[f"a{number}.example", "A"] = ["192.0.2.1" if number % 2 else "192.0.2.2"]
    with DnsServer(Zone(records)) as server:
        command = [sys.executable, "-c", THOUSAND, str(server.port), str(limit)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.stderr) == ("('fail', 500) ('pass', 500)\n", "")
