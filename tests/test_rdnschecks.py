"""rdnschecks over nameservers that answer, don't, or lie, as a dry run, a script and behind the server."""

from __future__ import annotations

import asyncio
import time
from ipaddress import ip_address
from pathlib import Path

import pytest
from dns_server import DnsServer
from hypothesis import given
from hypothesis import strategies as st
from mailserver import ENVIRON, Home, Server
from resolving import asking, one_test

from ra_plugins.ask.dns import Lookup, Zone
from ra_plugins.ask.question import adrive, drive
from ra_plugins.ask.resolver import Lookups
from ra_plugins.cli.install import install
from ra_plugins.plugins.rdnschecks import NAMES_LOOKED_UP, is_made_of, rdnschecks, reverse
from ra_plugins.spp.command import Command, Refuse, SetVariable
from ra_plugins.spp.session import Session, sample_session
from ra_plugins.support.control import ControlFiles

ME = ControlFiles({"me": "mail.example.org\n"})
POINTER = "25.2.0.192.in-addr.arpa"
GOOD = Zone({(POINTER, "PTR"): ["mail.example.net"], ("mail.example.net", "A"): ["192.0.2.25"]})
FINE = "Accepting 192.0.2.25, HELO mail.example.net"


async def checked(server: DnsServer, **values: object) -> tuple[list[Command], list[str]]:
    "What the plugin answers and logs, with this nameserver."
    logged: list[str] = []
    session = sample_session(**{"client_ip": "192.0.2.25", **values})
    async with Lookups(asking(server)) as lookups:
        given = rdnschecks.start(session, ME, logged.append, 0.0)
        return await adrive(given, lookups.tell, time.monotonic() + rdnschecks.seconds), logged


@one_test
async def test_a_client_whose_name_leads_back() -> None:
    with DnsServer(GOOD) as server:
        assert await checked(server, RDNSTHRESHOLD=1) == ([], [FINE])
        assert server.queries == [(POINTER, "PTR", "udp"), ("mail.example.net", "A", "udp")]


TROUBLE = ["drop", "late", "hang", "drip", "cut", "garbage", "wrong id", "wrong answer", "servfail", "refused"]


@pytest.mark.parametrize("fault", TROUBLE)
@pytest.mark.parametrize("name", [POINTER, "mail.example.net"])
def test_trouble_with_dns_is_no_finding(fault: str, name: str) -> None:
    "Neither of the PTR nor of the name's address; and within the plugin's own time."

    @one_test
    async def run() -> None:
        with DnsServer(GOOD, faults={name: fault}) as server:
            answer, logged = await checked(server, RDNSTHRESHOLD=1, RDNSTIMEOUT=1)
            assert answer == [] and logged[-1] == FINE and len(logged) == 2
            assert logged[0].startswith(("can't look up the name of 192.0.2.25: ", "can't look up mail.example.net: "))

    run()


@one_test
async def test_no_name_is_a_finding_and_silence_is_not() -> None:
    with DnsServer(Zone({})) as server:
        answer, logged = await checked(server, RDNSTHRESHOLD=3)
        assert answer[0] == SetVariable("RDNSSCORE", 3) and isinstance(answer[1], Refuse) and answer[1].code == 550
        assert logged == ["Rejecting 192.0.2.25, HELO mail.example.net: empty-rdns 3, together 3"]


@one_test
async def test_a_client_with_a_thousand_names_costs_as_many_lookups_as_one_with_ten() -> None:
    names = [f"n{number}.example.net" for number in range(1000)]
    with DnsServer(Zone({(POINTER, "PTR"): names})) as server:
        answer, logged = await checked(server)
        assert len(server.queries) <= 2 + NAMES_LOOKED_UP
        assert logged == ["Accepting 192.0.2.25, HELO mail.example.net: unresolvable-rdns 3, together 3"]


@one_test
async def test_an_address_behind_another_s_name_is_not_confirmed() -> None:
    "Anybody may say that an address of theirs is called www.example.org."
    zone = Zone({(POINTER, "PTR"): ["www.example.org"], ("www.example.org", "A"): ["192.0.2.80"]})
    with DnsServer(zone) as server:
        assert (await checked(server))[0] == [SetVariable("RDNSSCORE", 3)]


@one_test
async def test_helo_and_name_are_asked_side_by_side() -> None:
    zone = Zone({**GOOD.records, ("pc.example.net", "AAAA"): []})
    with DnsServer(zone, faults={POINTER: "late"}) as server:
        task = asyncio.ensure_future(checked(server, helo="pc.example.net", RDNSHELOUNRESOLVABLE=2))
        assert await asyncio.to_thread(server.wait_for, 3)  # the name's, which is held back, and the two of HELO
        assert {name for name, _, _ in server.queries} == {POINTER, "pc.example.net"}
        server.release()
        assert (await task)[0] == [SetVariable("RDNSSCORE", 2)]


octets = st.tuples(*[st.integers(0, 255)] * 4)


FORMS = ["{0}-{1}-{2}-{3}", "{3}.{2}.{1}.{0}", "ip{0}_{1}_{2}_{3}", "x{0:03}{1:03}{2:03}{3:03}", "{0:02x}{1:02x}{2:02x}{3:02x}"]


@given(octets, st.sampled_from(FORMS))
def test_every_way_to_write_an_address_is_seen(parts: tuple[int, int, int, int], form: str) -> None:
    address = ip_address(".".join(map(str, parts)))
    assert is_made_of(form.format(*parts) + ".dyn.example.net", address)


@given(st.text(max_size=60), st.ip_addresses())
def test_any_name_can_be_looked_at(name: str, address: object) -> None:
    "PTR records hold what strangers write."
    assert is_made_of(name.lower(), ip_address(str(address))) in (True, False)


odd_names = st.text(max_size=20) | st.sampled_from(["a" * 300, "mail.example.net", "\udce9", "a..b", "*.", " "])
odd_literals = st.sampled_from(["[", "[]", "[ipv6:]", "1.2.3.4", "a\nA", "." * 300])
odd_helos = st.text(st.characters(exclude_characters="\0"), max_size=40) | odd_literals


@given(st.lists(odd_names, max_size=12), odd_helos)
def test_hostile_names_and_helo(names: list[str], helo: str) -> None:
    zone = Zone({(POINTER, "PTR"): names})
    logged: list[str] = []
    session = Session({"TCPREMOTEIP": "192.0.2.25", "SMTPHELOHOST": helo, "RDNSHELOUNRESOLVABLE": "1"}, logged.append)
    answer = rdnschecks(session, ME, logged.append, {Lookup: zone})
    assert len(answer) <= 1 and logged[-1].startswith("Accepting 192.0.2.25")
    assert len(drive(reverse(ip_address("192.0.2.25")), zone).names) <= NAMES_LOOKED_UP


def test_script_and_server(tmp_path: Path) -> None:
    "A real session: the server's client is 127.0.0.1, and the nameserver is told to call it something."
    install(str(tmp_path / "plugins"), ["rdnschecks"])
    home = Home(tmp_path / "qmail", tmp_path / "plugins")
    home.plugins("[helo]", "plugins/rdnschecks", "[mail]", "plugins/rdnschecks")
    zone = Zone({("1.0.0.127.in-addr.arpa", "PTR"): ["dsl-127-0-0-1.pool.example.net"]})
    with DnsServer(zone) as nameserver:
        environ = {**ENVIRON, "DNSSERVERS": f"127.0.0.1#{nameserver.port}", "RDNSTHRESHOLD": "8"}
        server = Server(home, environ=environ)
        heard = server.transcript("EHLO pc.example.net", "MAIL FROM:<ana@example.net>", "EHLO 127.0.0.1")
        logged = [line.partition(" - ")[2] for line in server.said() if line.startswith("rdnschecks")]
        server.stop()
    name = "unresolvable-rdns 3, ip-in-rdns-keyword 4"
    assert logged == [
        f"Accepting 127.0.0.1, HELO pc.example.net: {name}, together 7",
        f"Accepting 127.0.0.1, HELO pc.example.net: {name}, together 7",
        f"Rejecting 127.0.0.1, HELO 127.0.0.1: helo-bare-ip 2, {name}, together 9",
    ]
    assert heard[-2].startswith("550 sorry, your server's name in DNS or HELO")
