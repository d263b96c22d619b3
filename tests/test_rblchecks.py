"""rblchecks as a program, in the dry run and in a host that lives, against rbldnsd, nsd and nameservers with faults."""

from __future__ import annotations

import asyncio
import json
import subprocess
from collections.abc import Callable, Iterator
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path
from typing import Any

import pytest
from dns_server import DnsServer
from hypothesis import given
from hypothesis import strategies as st
from mailserver import COMMAND, ENVIRON, PATIENCE, Home, Server
from servers import nsd, rbldnsd

from ra_plugins.ask.answerer import Answerers
from ra_plugins.ask.dns import Lookup, Records, Zone
from ra_plugins.ask.question import Broken
from ra_plugins.plugins.rblchecks import RblchecksSettings, rblchecks
from ra_plugins.plugins.shared.blocklists import FAILURES, TEST_POINTS, about_address
from ra_plugins.spp.command import write
from ra_plugins.spp.session import SAMPLE, Session, sample_session
from ra_plugins.support.control import ControlFiles

KEY = "abcdefghijklmnopqrstuvwxyz"
SILENT = {"RBLTIMEOUT": "20"}  # seconds; a test that waited for a silent list would be noticed by what is logged then
CLIENT = about_address(IPv4Address("192.0.2.1"))
NOBODY = TEST_POINTS["IPv4"][1]


def run(folder: Path, port: int, **environ: str) -> tuple[bytes, list[str]]:
    "What the installed program writes, and logs, for a client; its log without name and process."
    told = {**SAMPLE, "DNSSERVERS": f"127.0.0.1#{port}", "CONTROLDIR": "/nowhere", **environ}
    done = subprocess.run([folder / "rblchecks"], env=told, capture_output=True, timeout=PATIENCE)
    lines = done.stderr.decode().splitlines()
    assert done.returncode == 0 and all(line.startswith("rblchecks: pid ") for line in lines), done.stderr
    return done.stdout, [line.split(" - ", 1)[1] for line in lines]


def blocked(name: str, reason: str = "", client: str = "192.0.2.1") -> tuple[bytes, list[str]]:
    "What a listed client's session comes to."
    text = f"R451 Your IP ({client}) is blocked. Reason: {reason}\n"
    if not reason:
        text = f"R541 Your IP ({client}) is blocked, more information at http://{name}\n"
    return text.encode(), [f"541 Blocked by {name} ({client})"]


def accepted(*before: str, client: str = "192.0.2.1") -> tuple[bytes, list[str]]:
    return b"", [*before, f"Accepted {client}"]


def listed(*names: str, texts: dict[str, str] | None = None, answer: str = "127.0.0.2") -> dict[tuple[str, str], list[str]]:
    "Records that put the sample client on lists."
    records = {(f"{CLIENT.label}.{name}", "A"): [answer] for name in names}
    return records | {(f"{CLIENT.label}.{name}", "TXT"): [text] for name, text in (texts or {}).items()}


# Lists of rbldnsd and nsd, which have nothing of ours in them


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    "rbldnsd with a list of addresses of both kinds, a list without reasons, one of domains, and one that allows."
    lists = {
        "bl.example": {
            "ip4set": ":127.0.0.2:Spam seen, see http://bl.example/$\n127.0.0.2\n192.0.2.1\n198.51.100.0/24\n",
            "ip6trie": ":127.0.0.4:Six $\n2001:db8:0:25::/64\n",
        },
        "mute.example": {"ip4set": ":127.0.0.3:\n127.0.0.2\n192.0.2.1\n"},
        "dbl.example": {"dnset": ":127.0.1.2:Phishing\ntest\n.bad.example\n"},
        "allow.example": {"ip4set": ":127.0.5.2:\n127.0.0.2\n198.51.100.7\n"},
        "world.example": {"ip4set": ":127.0.0.2:everybody\n0.0.0.0/1\n128.0.0.0/1\n"},
    }
    with rbldnsd(tmp_path_factory.mktemp("rbldnsd"), lists) as port:
        yield port


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({}, blocked("bl.example", "Spam seen, see http://bl.example/192.0.2.1")),
        ({"TCPREMOTEIP": "::ffff:192.0.2.1"}, blocked("bl.example", "Spam seen, see http://bl.example/192.0.2.1")),
        ({"TCPREMOTEIP": "192.0.2.2"}, accepted(client="192.0.2.2")),
        ({"TCPREMOTEIP": "2001:db8:0:25::1"}, blocked("bl.example", "Six 2001:db8:0:25::1", "2001:db8:0:25::1")),
        ({"TCPREMOTEIP": "2001:db8::1"}, accepted(client="2001:db8::1")),
        ({"RBLSERVERS": "mute.example"}, blocked("mute.example")),
        ({"RBLSERVERS": "mute.example=127.0.0.2"}, accepted()),
        ({"RBLSERVERS": "mute.example=127.0.0.2-3"}, blocked("mute.example")),
        ({"RBLSERVERS": "other.example"}, accepted("error asking other.example: REFUSED")),
        ({"RBLSERVERS": "world.example"}, accepted("error asking world.example: lists 127.0.0.1, and so everybody")),
        ({"SMTPAUTHUSER": "ana"}, (b"", ["No checks performed, because user is authenticated"])),
        ({"RELAYCLIENT": ""}, (b"", ["No checks performed, because client may relay"])),
        (
            {"TCPREMOTEIP": "198.51.100.7", "RBLALLOW": "allow.example"},
            accepted("Allowed by allow.example (198.51.100.7)", client="198.51.100.7"),
        ),
        (
            {"SMTPMAILFROM": "ana@www.bad.example", "RBLSERVERS": "", "RBLSENDER": "dbl.example"},
            (
                b"R451 Your domain (www.bad.example) is blocked. Reason: Phishing\n",
                ["541 Blocked by dbl.example (www.bad.example)"],
            ),
        ),
        (
            {"SMTPHELOHOST": "Bad.Example", "RBLSERVERS": "", "RBLHELO": "dbl.example"},
            (
                b"R451 Your domain (bad.example) is blocked. Reason: Phishing\n",
                ["541 Blocked by dbl.example (bad.example)"],
            ),
        ),
    ],
)
def test_installed_program_and_rbldnsd(
    real: int, installed: Path, environ: dict[str, str], expected: tuple[bytes, list[str]]
) -> None:
    assert run(installed, real, **{"RBLSERVERS": "bl.example", **environ}) == expected


def test_a_client_without_address_is_dropped(installed: Path) -> None:
    environ = {name: value for name, value in SAMPLE.items() if name != "TCPREMOTEIP"}
    done = subprocess.run([installed / "rblchecks"], env=environ, capture_output=True, timeout=PATIENCE)
    assert done.stdout == b"D\n" and done.stderr.endswith(b" - no TCPREMOTEIP\n")


def test_weights_add_up(real: int, installed: Path) -> None:
    lists = {"RBLSERVERS": "bl.example*2:mute.example", "RBLTHRESHOLD": "3"}
    reply, log = run(installed, real, **lists)
    assert reply[:5] in (b"R451 ", b"R541 ")  # of the list that was the last to answer
    assert sorted(log) in (
        ["541 Blocked by bl.example (192.0.2.1)", "Listed by mute.example (192.0.2.1): 1 of 3"],
        ["541 Blocked by mute.example (192.0.2.1)", "Listed by bl.example (192.0.2.1): 2 of 3"],
    )
    client = {"TCPREMOTEIP": "198.51.100.9", **lists}
    assert run(installed, real, **client)[0] == b""


def test_self_test_and_rbldnsd(real: int, tmp_path: Path) -> None:
    lists = {"RBLSERVERS": "bl.example:world.example", "RBLSENDER": "dbl.example", "DNSSERVERS": f"127.0.0.1#{real}"}
    done = subprocess.run(
        [*COMMAND, "rblchecks", "--self-test", "--control", tmp_path],
        env={**ENVIRON, **lists},
        capture_output=True,
        timeout=PATIENCE,
    )
    assert [line.split() for line in done.stdout.decode().splitlines()] == [
        ["ok", "bl.example", "IPv4", "lists", "127.0.0.2", "as", "127.0.0.2"],
        ["ok", "bl.example", "IPv6", "lists", "::FFFF:7F00:2", "as", "127.0.0.2"],  # rbldnsd takes it for 127.0.0.2
        ["FAIL", "world.example", "IPv4", "lists", "127.0.0.1,", "and", "so", "everybody"],
        ["FAIL", "world.example", "IPv6", "lists", "::FFFF:7F00:1,", "and", "so", "everybody"],
        ["ok", "dbl.example", "domain", "lists", "TEST", "as", "127.0.1.2"],
    ]
    assert (done.returncode, done.stderr) == (1, b"")


def test_behind_the_server(real: int, home: Home, serve: Callable[..., Server]) -> None:
    "The client of the test is 127.0.0.1, and a list that has it lists everybody. So its domain is listed."
    home.plugins("[mail]", "plugins/rblchecks")
    server = serve(DNSSERVERS=f"127.0.0.1#{real}", RBLSERVERS="world.example", RBLSENDER="dbl.example")
    said = server.transcript("MAIL FROM:<ana@bad.example>", "NOOP")
    assert said == ["220 mail.example.org ESMTP", "451 Your domain (bad.example) is blocked. Reason: Phishing"]
    assert "rblchecks: pid PID - 541 Blocked by dbl.example (bad.example)" in server.said()


def test_installed_program_and_nsd(installed: Path, tmp_path: Path) -> None:
    "A list in a zone file: reasons of several strings, IPv6, answers that are refusals, and one that has been sold."
    six = about_address(IPv6Address("2001:db8::25")).label
    top = "$TTL 300\n@ SOA ns hostmaster 1 1h 1h 1d 300\n@ NS ns\nns A 127.0.0.1\n"
    listing = f'{CLIENT.label} A 127.0.0.2\n{CLIENT.label} TXT "Two " "strings, " "or three"\n{six} A 127.0.0.4\n'
    zones = {
        "zen.example": top + listing,
        "quota.example": f"{top}* A 127.255.255.254\n",
        "parked.example": f"{top}* A 203.0.113.80\n",
    }
    refused = "error asking quota.example: refuses to answer us (127.255.255.254: we ask by way of a public resolver)"
    with nsd(tmp_path, zones) as port:
        assert run(installed, port, RBLSERVERS="zen.example") == blocked("zen.example", "Two strings, or three")
        client = "2001:db8::25"
        assert run(installed, port, RBLSERVERS="zen.example", TCPREMOTEIP=client) == blocked("zen.example", "", client)
        assert run(installed, port, RBLSERVERS="zen.example", TCPREMOTEIP="192.0.2.9") == accepted(client="192.0.2.9")
        assert run(installed, port, RBLSERVERS="quota.example") == accepted(refused)
        assert run(installed, port, RBLSERVERS="parked.example") == accepted(
            "error asking parked.example: answers 203.0.113.80, which isn't in 127.0.0.0/8"
        )


# Nameservers with faults


@pytest.mark.parametrize(
    ("fault", "why"),
    [
        ("servfail", "SERVFAIL"),
        ("refused", "REFUSED"),
        ("referral", "only a referral to other nameservers"),
        ("formerr", "FORMERR"),
        ("wrong answer", "an answer about something else"),
        ("endless", "a chain of CNAMEs without an end"),
        ("drop", "no answer before the deadline"),
        ("garbage", "no answer before the deadline"),
        ("wrong id", "no answer before the deadline"),
        ("cut", "no answer before the deadline"),
        ("hang", "no answer before the deadline"),
        ("drip", "no answer before the deadline"),
    ],
)
def test_a_list_with_a_fault_says_nothing(installed: Path, fault: str, why: str) -> None:
    "The log says why, and the mail goes on."
    faulty = Zone(listed("bl.example", texts={"bl.example": "Spam"}))
    with DnsServer(faulty, fault=fault) as server:
        expected = accepted(f"error asking bl.example: {why}")
        assert run(installed, server.port, RBLSERVERS="bl.example", RBLTIMEOUT="1") == expected


@pytest.mark.parametrize("fault", ["drop", "servfail", "refused", "garbage", "hang"])
def test_a_list_that_is_no_good_holds_nobody_up(installed: Path, fault: str) -> None:
    "Another list has the client: it is refused, and the log has nothing of an answer that hasn't come."
    name = f"{CLIENT.label}.bad.example"
    with DnsServer(Zone(listed("bl.example")), faults={name: fault}) as server:
        reply, log = run(installed, server.port, RBLSERVERS="bad.example:bl.example", **SILENT)
    assert reply == blocked("bl.example")[0] and log[-1:] == blocked("bl.example")[1]
    assert not any("deadline" in line for line in log)


@pytest.mark.parametrize("fault", ["drop", "servfail", "garbage", "hang", "refused"])
def test_a_listing_stands_if_its_reason_cant_be_had(installed: Path, fault: str) -> None:
    records = listed("bl.example", texts={"bl.example": "x" * 2000})

    class Faulty(DnsServer):
        def fault_for(self, query: bytes) -> str:
            return fault if self.question(query)[1] == "TXT" else ""

    with Faulty(Zone(records)) as server:
        assert run(installed, server.port, RBLSERVERS="bl.example") == blocked("bl.example")


def test_a_reason_of_sixty_kilobytes_is_cut(installed: Path) -> None:
    evil = "Spam\r\nA\nD\r\n250 ok \udcff\0 " + "x" * 60_000
    with DnsServer(Zone(listed("bl.example", texts={"bl.example": evil}))) as server:
        reply, log = run(installed, server.port, RBLSERVERS="bl.example")
    start = b"R451 Your IP (192.0.2.1) is blocked. Reason: Spam A D 250 ok \\xff\\x00 xxxxxxxx"
    assert reply.startswith(start) and reply.endswith(b"x\n") and reply.count(b"\n") == 1 and len(reply) <= 512
    assert log == blocked("bl.example")[1]
    assert ("TXT", "tcp") in [asked[1:] for asked in server.queries]


def test_lists_are_asked_side_by_side(installed: Path) -> None:
    "All five questions are there before any is answered."
    lists = [f"{name}.example" for name in ("one", "two", "three", "four", "five")]
    with DnsServer(Zone(listed()), fault="late") as server:
        environ = {**SAMPLE, "DNSSERVERS": f"127.0.0.1#{server.port}", "RBLSERVERS": ":".join(lists), **SILENT}
        with subprocess.Popen([installed / "rblchecks"], env=environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as script:
            assert server.wait_for(5)
            assert {name for name, *_ in server.queries[:5]} == {f"{CLIENT.label}.{each}" for each in lists}
            server.fault = ""
            server.release()
            output, log = script.communicate(timeout=PATIENCE)
    assert output == b"" and log.endswith(b" - Accepted 192.0.2.1\n") and log.count(b"\n") == 1


def test_an_allow_list_is_waited_for(installed: Path) -> None:
    "A block list has the client; the allow list, which is late, has it too."
    late = f"{CLIENT.label}.allow.example"
    with DnsServer(Zone(listed("bl.example", "allow.example")), faults={late: "late"}) as server:
        lists = {"RBLSERVERS": "bl.example", "RBLALLOW": "allow.example", **SILENT}
        environ = {**SAMPLE, "DNSSERVERS": f"127.0.0.1#{server.port}", **lists}
        with subprocess.Popen([installed / "rblchecks"], env=environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as script:
            with server.asked:
                wanted = (f"{NOBODY.label}.bl.example", "A", "udp")
                assert server.asked.wait_for(lambda: wanted in server.queries, PATIENCE)
            server.faults = {}
            server.release()
            output, log = script.communicate(timeout=PATIENCE)
    assert output == b"" and b"Allowed by allow.example (192.0.2.1)" in log


# Keys


def hides_key(text: str) -> bool:
    return KEY not in text.lower()


@pytest.mark.parametrize("fault", ["", "drop", "servfail", "refused", "garbage", "wrong answer", "endless", "truncate always"])
@pytest.mark.parametrize("where", ["name", "file"])
def test_no_key_in_any_line(home: Home, installed: Path, fault: str, where: str) -> None:
    "The nameserver is asked with the key, and neither reply, log nor dry run has it, whatever the nameserver answers."
    zone = f"{KEY}.zen.dq.spamhaus.net"
    echo = f"see {zone.upper()}"
    home.plugins("[mail]", "plugins/rblchecks")
    lists = {"RBLSERVERS": zone if where == "name" else "zen.dq.spamhaus.net", "RBLTIMEOUT": "1"}
    if where == "file":
        home.write(rblkeys=f"zen.dq.spamhaus.net {KEY}\n")
    with DnsServer(Zone(listed(zone, texts={zone: echo})), fault=fault) as server:
        reply, log = run(installed, server.port, CONTROLDIR=str(home.control), **lists)
        settings = {**lists, "DNSSERVERS": f"127.0.0.1#{server.port}"}
        options = [word for name, value in settings.items() for word in ("--set", f"{name}={value}")]
        session = ["--ip", "192.0.2.1", "--helo", "mail.example.net", "--from", "ana@example.net", "--to", "ben@example.org"]
        for more in ([], ["--json"]):
            tried = subprocess.run(
                [*COMMAND, "try", *session, "--control", home.control, *options, *more],
                env=ENVIRON,
                capture_output=True,
                timeout=PATIENCE,
            )
            assert hides_key(tried.stdout.decode()) and not tried.stderr
            assert "Listed('192.0.2.1', 'zen.dq.spamhaus.net')" in tried.stdout.decode()
            assert more == [] or json.loads(tried.stdout)
    assert any(name.endswith(f".{zone}") for name, *_ in server.queries)
    assert hides_key(reply.decode()) and all(map(hides_key, log))
    if not fault:
        assert (reply, log) == blocked("zen.dq.spamhaus.net", "see KEY.ZEN.DQ.SPAMHAUS.NET")
    else:
        assert reply == b"" and len(log) == 2 and log[0].startswith("error asking zen.dq.spamhaus.net: ")


def test_no_key_in_what_is_said_about_settings() -> None:
    settings = {"RBLSERVERS": f"{KEY}.zen.dq.spamhaus.net=1:{KEY}/x:{KEY}.bl.example.org*x", "RBLALLOW": f"{KEY}@x"}
    log: list[str] = []
    session = Session({**SAMPLE, **settings}, log.append)
    assert rblchecks(session, ControlFiles({"rblkeys": f"{KEY}\n"}), log.append, {Lookup: Zone({})}) == []
    assert len(log) == 6 and all(map(hides_key, log))


SHORT = "k3y9"  # too short to be taken for a key by itself


@pytest.mark.parametrize("fault", ["", "drop", "servfail", "wrong answer", "endless", "truncate always"])
def test_a_short_key_is_hidden_by_braces(home: Home, installed: Path, fault: str) -> None:
    "In reply, log and dry run; the nameserver is asked with it, and without the braces."
    zone = f"{SHORT}.bl.example.org"
    home.plugins("[mail]", "plugins/rblchecks")
    lists = {"RBLSERVERS": f"{{{SHORT.upper()}}}.BL.example.org*2", "RBLTIMEOUT": "1"}
    with DnsServer(Zone(listed(zone, texts={zone: f"ask {zone}"})), fault=fault) as server:
        reply, log = run(installed, server.port, CONTROLDIR=str(home.control), **lists)
        settings = {**lists, "DNSSERVERS": f"127.0.0.1#{server.port}"}
        options = [word for name, value in settings.items() for word in ("--set", f"{name}={value}")]
        session = ["--ip", "192.0.2.1", "--helo", "mail.example.net", "--from", "ana@example.net", "--to", "ben@example.org"]
        told = [*COMMAND, "try", *session, "--control", str(home.control), *options, "--json"]
        tried = subprocess.run(told, env=ENVIRON, capture_output=True, timeout=PATIENCE)
    assert any(name.endswith(f".{zone}") for name, *_ in server.queries)
    assert "Listed('192.0.2.1', 'bl.example.org')" in tried.stdout.decode()
    assert SHORT not in (tried.stdout + tried.stderr + reply).decode().lower() and SHORT not in "".join(log).lower()
    assert reply == (b"" if fault else b"R451 Your IP (192.0.2.1) is blocked. Reason: ask KEY.bl.example.org\n")


def test_no_error_has_a_short_key() -> None:
    "Nor what a list's question and its settings are shown as, or why a list failed."
    settings = RblchecksSettings({"RBLSERVERS": f"{{{SHORT}}}.bl.example.org:{{{SHORT}.bl.example:x.{{{SHORT}}}.example"})
    assert SHORT not in f"{settings.servers} {settings.servers!r} {settings.servers.faults}"
    asked: list[str] = []

    def told(question: Any) -> Records[str]:
        asked.append(f"{question!r} {question}")
        raise Broken(f"no nameserver of {question.name}")

    log: list[str] = []
    session = sample_session(RBLSERVERS=f"{{{SHORT}}}.bl.example.org")
    assert rblchecks(session, log=log.append, answerers={Lookup: told}) == []
    assert log[0] == "error asking bl.example.org: no nameserver of 1.2.0.192.KEY.bl.example.org"
    assert asked and SHORT not in "".join(asked + log)


@pytest.mark.parametrize(
    ("lists", "said"),
    [
        ("https://bl.example.org", "a web address is no list; write the list's name in DNS, as in bl.spamcop.net"),
        ("http://bl.example.org/lookup?ip=", "a web address is no list; write the list's name in DNS, as in bl.spamcop.net"),
        ("bl.example.org,", "between lists there is a colon, and no comma or blank, as in one.example:two.example"),
        ("bl.example.org two.example", "between lists there is a colon, and no comma or blank, as in one.example:two.example"),
        (
            "bl.example.org=127.0.0.2,two.example",
            "between lists there is a colon, and no comma or blank, as in one.example:two.example",
        ),
        ("bl.example.org=127.0.0.2, *2", "answers are written as 127.0.0.2-11, several with commas between them"),
        ("{key.bl.example.org", "braces stand around a key in front of a list's name, as in {KEY}.bl.example.org"),
        ("bl.{key}.example.org", "braces stand around a key in front of a list's name, as in {KEY}.bl.example.org"),
    ],
)
def test_what_is_no_list_is_told(lists: str, said: str) -> None:
    "One line, which says what would do; the list beside it counts, and no list named https is asked."
    log: list[str] = []
    asked: list[str] = []

    def told(question: Any) -> Records[str]:
        asked.append(question.blocklist.name)
        return Records()

    session = sample_session(RBLSERVERS=f"{lists}:good.example")
    assert rblchecks(session, log=log.append, answerers={Lookup: told}) == []
    assert log == [f"RBLSERVERS: entry 1 is left out: {said}", "Accepted 192.0.2.1"] and asked == ["good.example"]


@pytest.mark.parametrize(
    ("settings", "total"),
    [
        ({"RBLSERVERS": "one.example:two.example*2", "RBLTHRESHOLD": "4"}, 3),
        ({"RBLSERVERS": "one.example", "RBLSENDER": "dbl.example", "RBLHELO": "dbl.example", "RBLTHRESHOLD": "3"}, 2),
        ({"RBLSERVERS": "one.example:two.example*2", "RBLTHRESHOLD": "3"}, None),
        ({"RBLSERVERS": "one.example*0", "RBLTHRESHOLD": "3"}, None),  # for the log only, and meant so
        ({"RBLSERVERS": "", "RBLTHRESHOLD": "3"}, None),
    ],
)
def test_a_threshold_out_of_reach_is_told(settings: dict[str, str], total: int | None) -> None:
    log: list[str] = []
    rblchecks(sample_session(**settings), log=log.append, answerers={Lookup: Zone({})})
    threshold = settings["RBLTHRESHOLD"]
    line = (
        f"RBLTHRESHOLD={threshold} is out of reach: all lists together weigh {total}, so nobody is refused; "
        "lower it, or give lists a weight, as in NAME*2"
    )
    assert log == [*([line] if total else []), "Accepted 192.0.2.1"]


def test_show_has_a_whole_setting() -> None:
    shown = subprocess.run([*COMMAND, "show", "rblchecks"], env=ENVIRON, capture_output=True, timeout=PATIENCE)
    (example,) = [line for line in shown.stdout.decode().split("`") if line.startswith("bl.spamcop.net:")]
    log: list[str] = []
    settings = RblchecksSettings({"RBLSERVERS": example}, log.append)
    assert str(settings.servers) == "bl.spamcop.net:zen.spamhaus.org=127.0.0.2-11*2:bl.example.org"
    assert (settings.servers.faults, log) == ((), [])


# A host that lives


async def decided(answerers: Answerers, log: list[str], **settings: str) -> bytes:
    return write(await rblchecks.adecide(sample_session(**settings), log=log.append, answerers=answerers))


def test_a_list_that_goes_on_failing_is_left_alone() -> None:
    "From the third failure on it isn't asked, and the log has said so once; others are asked as ever."
    lists, log = {"RBLSERVERS": "bad.example:bl.example"}, list[str]()

    async def sessions() -> None:
        with DnsServer(Zone({}), faults={f"{n}.2.0.192.bad.example": "servfail" for n in range(1, 9)}) as server:
            async with Answerers({"DNSSERVERS": f"127.0.0.1#{server.port}"}) as host:
                for number in range(1, 9):
                    assert await decided(host, log, client_ip=f"192.0.2.{number}", **lists) == b""
            asked = [name.split(".", 4)[4] for name, *_ in server.queries]
            assert (asked.count("bad.example"), asked.count("bl.example")) == (FAILURES, 8)

    asyncio.run(sessions())
    assert [line for line in log if not line.startswith("Accepted")] == [
        "error asking bad.example: SERVFAIL",
        "bad.example is left alone for 60 seconds at a time",
    ]


def test_a_refusal_is_told_once() -> None:
    "While a list refuses to answer us, the log says so once, and again after it has answered."
    log: list[str] = []

    async def sessions() -> None:
        records: Any = {(f"{n}.2.0.192.bl.example", "A"): ["127.255.255.255"] for n in (1, 2, 4)}
        with DnsServer(Zone(records)) as server:
            async with Answerers({"DNSSERVERS": f"127.0.0.1#{server.port}", "RBLREST": "0"}) as host:
                for number in range(1, 5):
                    await decided(host, log, client_ip=f"192.0.2.{number}", RBLSERVERS="bl.example")

    asyncio.run(sessions())
    fault = "error asking bl.example: refuses to answer us (127.255.255.255: we ask too much)"
    assert log == [fault, *(f"Accepted 192.0.2.{n}" for n in (1, 2, 3)), fault, "Accepted 192.0.2.4"]


def test_a_repeated_question_asks_nothing() -> None:
    "Within the records' TTL, for clients that are listed and such as aren't."

    async def sessions() -> None:
        log: list[str] = []
        records: Any = listed("bl.example", texts={"bl.example": "Spam"})
        with DnsServer(Zone(records)) as server:
            async with Answerers({"DNSSERVERS": f"127.0.0.1#{server.port}"}) as host:
                clients = ("192.0.2.1", "192.0.2.2")
                first = [await decided(host, log, client_ip=each, RBLSERVERS="bl.example") for each in clients]
                queries = len(server.queries)
                again = [await decided(host, log, client_ip=each, RBLSERVERS="bl.example") for each in clients]
        assert first == again == [b"R451 Your IP (192.0.2.1) is blocked. Reason: Spam\n", b""]
        assert queries == 4 == len(server.queries)  # listed, why, everybody? not listed

    asyncio.run(sessions())


# The dry run


@pytest.mark.parametrize(
    ("client", "status", "said"),
    [("192.0.2.9", 0, "Accepted 192.0.2.9"), ("192.0.2.1", 2, "451 Your IP (192.0.2.1) is blocked. Reason: Spam"),
     ("192.0.2.2", 1, "541 Your IP (192.0.2.2) is blocked, more information at http://bl.example")],
)  # fmt: skip
def test_dry_run_over_a_zone_file(home: Home, client: str, status: int, said: str) -> None:
    zone = home.path / "zone"
    zone.write_text(
        "$ORIGIN bl.example.\n$TTL 300\n"
        '1.2.0.192 A 127.0.0.2\n1.2.0.192 TXT "Spam"\n2.2.0.192 A 127.0.0.2\n'
    )
    home.plugins("[mail]", "plugins/rblchecks")
    session = ["--ip", client, "--helo", "mail.example.net", "--from", "ana@example.net", "--to", "ben@example.org"]
    done = subprocess.run(
        [*COMMAND, "try", *session, "--control", home.control, "--zone", zone, "--set", "RBLSERVERS=bl.example"],
        env=ENVIRON,
        capture_output=True,
        timeout=PATIENCE,
    )
    assert (done.returncode, done.stderr) == (status, b"") and said in done.stdout.decode()


# What is promised of the default, and of what strangers choose


def test_the_default_is_one_open_list() -> None:
    "None that has shut down, as njabl.org has, and none that asks for a registration."
    assert [each.name for each in RblchecksSettings({}).servers] == ["bl.spamcop.net"]
    assert all(not getattr(RblchecksSettings({}), each) for each in ("allow", "helo", "sender"))


STRANGE = st.text(max_size=80) | st.sampled_from(["a\r\nA", "x" * 900, "bad.example\nD", '"@"@bad.example', "[192.0.2.1]"])


@given(helo=STRANGE, sender=STRANGE, text=STRANGE, answer=st.ip_addresses(v=4).map(str))
def test_whatever_strangers_send_is_one_command(helo: str, sender: str, text: str, answer: str) -> None:
    "A HELO, a sender, a reason, an answer: at most one line comes of it, and a client outside all lists is accepted."
    lists = {"RBLSERVERS": "bl.example", "RBLHELO": "dbl.example", "RBLSENDER": "dbl.example"}
    log: list[str] = []
    session = sample_session(helo=helo.replace("\0", ""), mail_from=sender.replace("\0", ""), **lists)

    def told(question: Any) -> Records[str]:
        if question.subject in (NOBODY, TEST_POINTS["domain"][1]):
            return Records()
        return Records([text] if question.rdtype == "TXT" else [answer])

    written = write(rblchecks(session, log=log.append, answerers={Lookup: told}))
    lines = written.decode("utf-8", "surrogateescape").split("\n")
    assert len(lines) <= 2 and lines[-1] == "" and len(written) <= 512
    assert written[:5] in (b"", b"R451 ", b"R541 ")
    assert answer.startswith("127.") or written == b""
