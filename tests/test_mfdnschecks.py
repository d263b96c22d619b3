"""mfdnschecks: what a sender's domain must be, as a decision, as an installed program over a real nameserver, and tried."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from dns_server import DnsServer
from mailserver import COMMAND, ENVIRON, PATIENCE, Home, Server

from ra_plugins.ask.dns import Lookup, Records, Zone
from ra_plugins.ask.question import Broken, Late, Nobody, Question, Refused, Unanswered
from ra_plugins.ask.zonefile import zone_from_text
from ra_plugins.plugins.mfdnschecks import HOST_LIMIT, mfdnschecks
from ra_plugins.spp.command import write
from ra_plugins.spp.session import sample_session
from ra_plugins.support.environment import ip_address
from ra_plugins.support.networks import NOT_PUBLIC, is_public

Serve = Callable[..., Server]

RECORDS = r"""
example.net.         MX    10 mail.example.net.
mail.example.net.    A     192.0.2.25
v4.example.net.      A     192.0.2.26
v6.example.net.      AAAA  2001:db8::26
alias.example.net.   CNAME v6.example.net.
text.example.net.    TXT   "no server"
nomail.example.net.  MX    0 .
loop.example.net.    CNAME loop.example.net.
home.example.net.    MX    10 localhost.example.net.
home.example.net.    MX    20 lan.example.net.
localhost.example.net. A   127.0.0.1
localhost.example.net. AAAA ::1
lan.example.net.     A     192.168.1.2
half.example.net.    MX    10 lan.example.net.
half.example.net.    MX    20 v6.example.net.
gone.example.net.    MX    10 nothing.example.net.
self.example.net.    A     10.0.0.1
doubt.example.net.   MX    10 lan.example.net.
doubt.example.net.   MX    20 loop.example.net.
xn--bcher-kva.example. MX  10 mail.example.net.
"""
ZONE = zone_from_text(RECORDS)
EXIST = "your envelope sender domain must exist"
NOWHERE = "your envelope sender domain has no mail server that can be reached"


def judged(sender: str | None, told: Any = ZONE, **values: object) -> tuple[str, list[str]]:
    "The reply, nothing for mail that passes, and what was logged."
    logged: list[str] = []
    session = sample_session(mail_from=sender, **values)
    answer = mfdnschecks(session, log=logged.append, answerers={Lookup: told})
    return write(answer).decode("utf-8", "surrogateescape"), logged


# As the C plugin answers


def test_no_sender_named() -> None:
    refused = "E553 sorry, no MAIL FROM envelope header has been sent. (#5.7.1)\n"
    assert judged(None) == (refused, ["blocked with: no MAIL FROM envelope header has been sent."])


def test_a_bounce_passes() -> None:
    assert judged("") == ("", [])


MALFORMED = ["ana", "@example.net", "ana@", "ana@ben@example.net", "ana@[192.0.2]", "x@[", "a" * 900 + "@b.c"]


@pytest.mark.parametrize("sender", MALFORMED)
def test_malformed(sender: str) -> None:
    reply, logged = judged(sender)
    assert reply.startswith("E553 sorry, invalid mail address in MAIL FROM envelope header: ")
    assert reply.endswith(" (#5.7.1)\n") and len(reply) <= 512
    assert logged == [f"blocked with: invalid mail address in MAIL FROM envelope header: {sender}"]


@pytest.mark.parametrize("domain", ["exampel.net", "text.example.net", "b.text.example.net", "x..net", ".", "x" * 64 + ".net"])
def test_no_domain(domain: str) -> None:
    assert judged(f"ana@{domain}") == (f"E553 sorry, {EXIST}: {domain} (#5.7.1)\n", [f"blocked with: {EXIST}: {domain}"])


@pytest.mark.parametrize("why", [Broken("SERVFAIL"), Late("no answer"), Refused("REFUSED"), Nobody("nobody")])
def test_trouble_is_temporary(why: Unanswered) -> None:
    reply, logged = judged("ana@example.net", lambda _: why)
    assert reply == "E451 DNS temporary failure. (#4.3.0)\n"
    assert logged == [f"can't look up the domain of ana@example.net: {why}", "temporary failure: DNS temporary failure."]


FINE = ["ana@example.net", "ana@v4.example.net", "ana@EXAMPLE.NET", "ana@example.net.", '"a b"@example.net']


@pytest.mark.parametrize("sender", FINE)
def test_a_domain_that_exists(sender: str) -> None:
    assert judged(sender) == ("", [f"OK {sender}"])


def test_whoever_has_logged_in_is_checked_too() -> None:
    assert judged("ana@exampel.net", auth_user="ana")[0].startswith("E553")


# What it does beyond that


@pytest.mark.parametrize("domain", ["v6.example.net", "alias.example.net"])
def test_an_ipv6_address_is_one(domain: str) -> None:
    assert judged(f"ana@{domain}") == ("", [f"OK ana@{domain}"])


def test_a_null_mx_is_refused() -> None:
    reply, logged = judged("ana@nomail.example.net")
    assert reply == "E553 sorry, your envelope sender domain accepts no mail: nomail.example.net (#5.7.1)\n"
    assert logged == ["blocked with: your envelope sender domain accepts no mail: nomail.example.net"]


def test_an_mx_that_leads_nowhere_is_refused_if_one_wants_so() -> None:
    for domain in ("home.example.net", "self.example.net", "gone.example.net"):
        assert judged(f"ana@{domain}") == ("", [f"OK ana@{domain}"])
        reply, logged = judged(f"ana@{domain}", MFDNSBOGUSMX=1)
        assert (reply, logged) == (f"E553 sorry, {NOWHERE}: {domain} (#5.7.1)\n", [f"blocked with: {NOWHERE}: {domain}"])
    for domain in ("example.net", "half.example.net", "v4.example.net", "v6.example.net"):
        assert judged(f"ana@{domain}", MFDNSBOGUSMX=1) == ("", [f"OK ana@{domain}"])
    assert judged("ana@doubt.example.net", MFDNSBOGUSMX=1)[0].startswith("E451 ")  # the second may be a good one


def test_address_literals() -> None:
    for sender in ("ana@[192.0.2.1]", "ana@[IPv6:2001:db8::1]"):
        assert judged(sender, lambda _: pytest.fail("nothing to ask")) == ("", [f"OK {sender}"])
        assert judged(sender, MFDNSBOGUSMX=1)[0] == ""
    assert judged("ana@[127.0.0.1]")[0] == ""
    assert judged("ana@[127.0.0.1]", MFDNSBOGUSMX=1)[0] == f"E553 sorry, {NOWHERE}: [127.0.0.1] (#5.7.1)\n"


def test_internationalised_domains() -> None:
    assert judged("ana@bücher.example") == ("", ["OK ana@bücher.example"])
    assert judged("ana@BÜCHER.example")[0] == judged("ana@xn--bcher-kva.example")[0] == ""
    reply, logged = judged("ana@kücher.example")
    assert reply == f"E553 sorry, {EXIST}: k?cher.example (#5.7.1)\n" and logged == [f"blocked with: {EXIST}: kücher.example"]
    assert judged("ana@b\udcfccher.example")[0].startswith(f"E553 sorry, {EXIST}: b\\xfccher.example")  # Latin-1


@pytest.mark.parametrize(
    ("sender", "reply"),
    [
        (None, "503 5.5.1 no MAIL FROM envelope header has been sent."),
        ("ana", "501 5.1.7 invalid mail address in MAIL FROM envelope header: ana"),
        ("ana@exampel.net", f"550 5.1.8 {EXIST}: exampel.net"),
        ("ana@nomail.example.net", "550 5.7.27 your envelope sender domain accepts no mail: nomail.example.net"),
        ("ana@home.example.net", f"550 5.1.8 {NOWHERE}: home.example.net"),
        ("ana@loop.example.net", "451 4.4.3 DNS temporary failure."),
    ],
)
def test_registered_codes(sender: str | None, reply: str) -> None:
    "RFC 3463, section 3; RFC 7505, section 4.2. What is logged stays the same."
    said, logged = judged(sender, MFDNSRFCCODES=1, MFDNSBOGUSMX=1)
    assert said == f"E{reply}\n"
    assert logged == judged(sender, MFDNSBOGUSMX=1)[1]


# Bounds


def test_nothing_is_asked_in_vain() -> None:
    asked: list[Question[Any]] = []

    def tell(question: Lookup) -> Any:
        asked.append(question)
        return ZONE.answer(question)

    judged("ana@exampel.net", tell)  # NXDOMAIN, whatever the type
    judged("ana@example.net", tell)
    assert asked == [Lookup("exampel.net", "MX"), Lookup("example.net", "MX")]


def test_a_domain_with_many_servers_costs_no_more_than_ten() -> None:
    asked: list[Lookup] = []

    def tell(lookup: Lookup) -> Records:
        asked.append(lookup)
        many = [(preference, f"m{preference}.example.net") for preference in range(2000)]
        return Records(many if lookup.rdtype == "MX" else ["127.0.0.1"] if lookup.rdtype == "A" else ["::1"])

    assert judged("ana@example.net", tell, MFDNSBOGUSMX=1)[0].startswith("E553")
    assert len(asked) == 1 + 2 * HOST_LIMIT
    assert {lookup.name for lookup in asked[1:]} == {f"m{preference}.example.net" for preference in range(HOST_LIMIT)}


def test_networks_that_nobody_on_the_internet_has() -> None:
    "Each network's ends are in it, and their neighbours outside, if those aren't in another."
    import ipaddress

    networks = [ipaddress.ip_network(text) for text in NOT_PUBLIC]
    for network in networks:
        for address in (network[0], network[-1]):
            assert not is_public(address)
        for number in (int(network[0]) - 1, int(network[-1]) + 1):
            if 0 <= number < 2**network.max_prefixlen:
                address = type(network[0])(number)
                assert is_public(address) != any(address in each for each in networks)
    for text in ("64:ff9b::10.0.0.1", "64:ff9b::c0a8:1", "64:ff9b::192.0.0.1", "::ffff:198.18.0.1"):
        assert not is_public(ip_address(text))
    for text in ("64:ff9b::192.0.2.1", "64:ff9b:0:0:0:1:7f00:1"):
        assert is_public(ip_address(text))
    for text in ("192.0.2.1", "172.15.255.255", "172.32.0.0", "100.128.0.0", "8.8.8.8", "2001:db8::1", "2001:4860::1"):
        assert is_public(ip_address(text))


@pytest.mark.parametrize("seconds", ["0", "61", "x", "-1", ""])
def test_a_senseless_timeout(seconds: str) -> None:
    reply, logged = judged("ana@example.net", MFDNSTIMEOUT=seconds)
    complaint = f"MFDNSTIMEOUT={seconds} should be a whole number from 1 to 60; taken as 20"
    assert (reply, logged) == ("", [complaint, "OK ana@example.net"])


# As an installed program, over a nameserver


def session(server: Server, sender: str) -> tuple[str, list[str]]:
    "The reply to MAIL, and the plugin's messages."
    reply = server.talk("EHLO mail.example.net", f"MAIL FROM:<{sender}>")[-1]
    return reply, [line.removeprefix("mfdnschecks: pid PID - ") for line in server.said()]


def test_behind_a_server(home: Home, serve: Serve) -> None:
    home.plugins("[mail]", "plugins/mfdnschecks")
    with DnsServer(ZONE) as dns:
        server = serve(DNSSERVERS=f"127.0.0.1#{dns.port}", MFDNSBOGUSMX="1")
        for sender in ("ana@example.net", "ana@v6.example.net", "ana@half.example.net", "ana@[192.0.2.1]"):
            assert session(server, sender) == ("250 ok", [f"OK {sender}"])
        assert session(server, "") == ("250 ok", [])
        reply, logged = session(server, "ana@exampel.net")
        assert reply == f"553 sorry, {EXIST}: exampel.net (#5.7.1)" and logged == [f"blocked with: {EXIST}: exampel.net"]
        assert session(server, "ana@home.example.net")[0] == f"553 sorry, {NOWHERE}: home.example.net (#5.7.1)"
        assert session(server, "ana@nomail.example.net")[0].startswith("553 sorry, your envelope sender domain accepts no mail")
        assert server.transcript("HELO mail.example.net", "MAIL FROM:<ana@bücher.example>")[2] == "250 ok"


@pytest.mark.parametrize(
    ("fault", "why"),
    [
        ("drop", "no answer before the deadline"),  # silent
        ("late", "no answer before the deadline"),  # slow
        ("wrong id", "no answer before the deadline"),  # lying: an answer that isn't to our question is none
        ("wrong source", "no answer before the deadline"),
        ("wrong answer", "an answer about something else"),
        ("servfail", "SERVFAIL"),
        ("refused", "REFUSED"),
        ("endless", "a chain of CNAMEs without an end"),
    ],
)
def test_bad_nameservers(home: Home, serve: Serve, fault: str, why: str) -> None:
    "Whatever is wrong, the client may come again, and mail from others goes on."
    home.plugins("[mail]", "plugins/mfdnschecks")
    with DnsServer(ZONE, fault=fault) as dns:
        server = serve(DNSSERVERS=f"127.0.0.1#{dns.port}", MFDNSTIMEOUT="1")
        reply, logged = session(server, "ana@example.net")
        assert reply == "451 DNS temporary failure. (#4.3.0)"
        assert logged == [f"can't look up the domain of ana@example.net: {why}", "temporary failure: DNS temporary failure."]
        assert session(server, "") == ("250 ok", [])


def test_an_answer_of_60_kilobytes(home: Home, serve: Serve) -> None:
    home.plugins("[mail]", "plugins/mfdnschecks")
    many = [(number, f"{'x' * 40}{number}.example.net") for number in range(1000)]
    with DnsServer(Zone({("example.net", "MX"): many})) as dns:
        server = serve(DNSSERVERS=f"127.0.0.1#{dns.port}")
        assert session(server, "ana@example.net") == ("250 ok", ["OK ana@example.net"])
        assert ("example.net", "MX", "tcp") in dns.queries


@pytest.mark.parametrize(
    "sender",
    [
        "\udce9" * 400 + "@example.net",
        "'; DROP TABLE mail; --@exampel.net",
        '"<b>\\"@evil\\""@exampel.net',
        "a" * 500 + "@" + "b." * 180 + "net",
        "{}{0.text}%s%n@exampel.net",
    ],
)
def test_odd_senders(home: Home, serve: Serve, sender: str) -> None:
    "One reply of one line, and one line in the log, printable."
    home.plugins("[mail]", "plugins/mfdnschecks")
    with DnsServer(ZONE) as dns:
        server = serve(DNSSERVERS=f"127.0.0.1#{dns.port}")
        replies = server.transcript("HELO mail.example.net", f"MAIL FROM:<{sender}>")
        assert len(replies) == 4 and len(replies[2]) <= 510 and replies[2][:4] in ("250 ", "553 ", "555 ")
        logged = server.said()
        assert len(logged) == (0 if replies[2][:3] == "555" else 1) and all(line.isprintable() for line in logged)


def test_tried_over_a_zone_file(home: Home, tmp_path: Path) -> None:
    "`ra-plugins try --zone`: accepted, refused, refused for now, as the exit status says."
    home.plugins("[mail]", "plugins/mfdnschecks")
    (tmp_path / "zone").write_text(RECORDS)
    expected = {"ana@example.net": "accepted", "ana@exampel.net": "refused", "ana@loop.example.net": "temporary"}
    for status, (sender, verdict) in enumerate(expected.items()):
        line = ["try", "--json", "--control", str(home.control), "--zone", str(tmp_path / "zone"), "--ip", "192.0.2.1"]
        words = [*COMMAND, *line, "--helo", "mail.example.net", "--from", sender]
        done = subprocess.run(words, env=ENVIRON, capture_output=True, text=True, timeout=PATIENCE)
        told = json.loads(done.stdout)
        assert (done.returncode, told["verdict"]) == (status, verdict)
        (run,) = told["steps"][-1]["plugins"]
        assert run["asked"][0]["question"] == f"Lookup('{sender[4:]}', 'MX')"


@pytest.mark.parametrize(("text", "problem"), [(None, "can't read"), ("example.net. MX x y\n", "zone:1:")])
def test_a_zone_file_of_no_use(home: Home, tmp_path: Path, text: str | None, problem: str) -> None:
    home.plugins("[mail]", "plugins/mfdnschecks")
    if text:
        (tmp_path / "zone").write_text(text)
    words = [*COMMAND, "try", "--control", str(home.control), "--zone", str(tmp_path / "zone"), "--ip", "192.0.2.1"]
    done = subprocess.run(words, env=ENVIRON, capture_output=True, text=True, timeout=PATIENCE)
    assert done.returncode == 3 and problem in done.stderr and done.stderr.count("\n") == 1
