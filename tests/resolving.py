"""What the tests share that ask DNS: a zone, a resolver for it, and how such a test is run."""

from __future__ import annotations

import asyncio
import functools
import os
import sys
import time
from collections.abc import Callable, Coroutine
from typing import Any

from dns_server import DnsServer

from ra_plugins.ask.dns import CNAME_LIMIT, Lookup, Zone
from ra_plugins.ask.resolver import Resolver, resolve

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


def asking(*servers: DnsServer, **options: Any) -> Resolver:
    "A resolver that asks these; it gives up soon, unless told otherwise."
    return Resolver([f"127.0.0.1#{each.port}" for each in servers], **{"timeout": 5, "try_again": 2, **options})


async def lookup(resolver: Resolver, name: str, rdtype: str = "A") -> Any:
    return await asyncio.wait_for(resolve(resolver, Lookup(name, rdtype)), PATIENCE)
