"""The service asks ahead: what it asks, that it asks it once, what it never does, and how much of it.

Sessions go through a real port over a Unix socket, lookups to a real nameserver on loopback.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import pytest
from dns_server import DnsServer
from resolving import PATIENCE, one_test

from ra_plugins.ask.answerer import Answerer
from ra_plugins.ask.dns import Lookup, Zone
from ra_plugins.ask.question import Question, as_completed, gather
from ra_plugins.hosts.service import ahead
from ra_plugins.hosts.service.ahead import NEWS_OF_A_SESSION, QUESTIONS_AHEAD, WAITED_FOR, Rehearsals, later_names
from ra_plugins.hosts.service.decider import Decider
from ra_plugins.hosts.service.port import ServicePort
from ra_plugins.hosts.service.request import SERVICE_REPLY_LIMIT, ServiceReply, ServiceRequest, read_netstring
from ra_plugins.plugins.greylist import greylist
from ra_plugins.plugins.mfdnschecks import mfdnschecks
from ra_plugins.plugins.rblchecks import rblchecks
from ra_plugins.plugins.rdnschecks import rdnschecks
from ra_plugins.plugins.spfchecks import spfchecks
from ra_plugins.spp.command import Refuse
from ra_plugins.spp.plugin import Plugin, plugin
from ra_plugins.spp.session import Session
from ra_plugins.support.control import ControlFiles

LISTS = [f"{name}.example" for name in ("one", "two", "three", "four", "five")]
ZONE = Zone(
    {
        ("1.2.0.192.in-addr.arpa", "PTR"): ["mx.example.net"],
        ("mx.example.net", "A"): ["192.0.2.1"],
        ("mx.example.net", "TXT"): ["v=spf1 a -all"],
        ("example.net", "TXT"): ["v=spf1 mx include:spf.example.net -all"],
        ("example.net", "MX"): [(10, "mail.example.net")],
        ("mail.example.net", "A"): ["192.0.2.25"],
        ("spf.example.net", "TXT"): ["v=spf1 ip4:192.0.2.1 -all"],
        ("example.com", "TXT"): ["v=spf1 -all"],
        ("example.org", "MX"): [(10, "mx.example.org")],
        ("mx.example.org", "A"): ["198.51.100.1"],
        ("9.2.0.192.two.example", "A"): ["127.0.0.2"],
        ("9.2.0.192.two.example", "TXT"): ["Spam"],
    }
)
Files = dict[str, str | bytes]  # control files by name
CONTROL: Files = {"me": "mail.example.org\n", "atplugins": "[mail]\nrblchecks\nrdnschecks\n[rcpt]\nspfchecks\n"}
OURS = (rblchecks, rdnschecks, spfchecks, mfdnschecks, greylist)
CONNECTION = {"TCPREMOTEIP": "192.0.2.1", "TCPREMOTEPORT": "40000", "RBLSERVERS": ":".join(LISTS)}
HELO = {"SMTPHELOHOST": "mx.example.net"}
MAIL = {"SMTPMAILFROM": "ana@example.net"}
RCPT = {"SMTPRCPTTO": "ben@example.org", "SMTPRCPTCOUNT": "0", "SMTPRCPTCOUNTALL": "1", "SMTPRCPTHOSTSOK": "1"}
COMMANDS = {"at-connection": {}, "at-helo": HELO, "at-mail": MAIL, "at-rcpt": RCPT}


class Service:
    "A service in this process; `ask` is a client."

    def __init__(self, path: Path, plugins: tuple[Plugin, ...], control: Files, dns: DnsServer | None, **options: Any):
        environ = {"DNSSERVERS": f"127.0.0.1#{dns.port}"} if dns else {}
        self.path = str(path)
        self.said: list[str] = []  # by the service itself
        self.decider = Decider({each.name: each for each in plugins}, environ, self.said.append, ControlFiles(control))
        self.rehearsals = Rehearsals(self.decider, **options)

    async def ask(self, name: str, environ: dict[str, str], pid: int = 4711) -> tuple[bytes, list[str]]:
        "What a client is to answer and to log."
        reader, writer = await asyncio.open_unix_connection(self.path)
        writer.write(ServiceRequest(name, pid, dict(environ)).pack())
        data = await asyncio.wait_for(reader.read(), PATIENCE)
        writer.close()
        payload = read_netstring(data.replace(b"0:,", b""), SERVICE_REPLY_LIMIT)
        assert payload is not None
        reply = ServiceReply.unpack(payload)
        return reply.output, reply.log

    async def settled(self) -> None:
        await asyncio.wait_for(self.rehearsals.settled(), PATIENCE)


@asynccontextmanager
async def service(
    folder: Path,
    dns: DnsServer | None = None,
    control: Files | None = None,
    plugins: tuple[Plugin, ...] = OURS,
    asking_ahead: bool = True,
    **options: Any,
) -> AsyncIterator[Service]:
    "A service that listens."
    made = Service(folder / "socket", plugins, CONTROL if control is None else control, dns, **options)
    port = ServicePort(made.decider, made.said.append, heard=made.rehearsals.heard if asking_ahead else None)
    server = await asyncio.get_running_loop().create_unix_server(port.connection, made.path)
    try:
        yield made
    finally:
        server.close()
        await port.settle(PATIENCE)
        await made.rehearsals.aclose()
        await made.decider.aclose()
        Path(made.path).unlink(missing_ok=True)
        await asyncio.sleep(0)


async def session(made: Service, **settings: str) -> list[tuple[bytes, list[str]]]:
    "A session from connection to RCPT: what is answered at each command."
    environ, replies = CONNECTION | settings, []
    for name, told in COMMANDS.items():
        environ |= told | {key: value for key, value in settings.items() if key in told}
        replies.append(await made.ask(name, environ))
        await made.settled()
    return replies


def asked(dns: DnsServer) -> set[tuple[str, str]]:
    "What has been asked, by name and type, since the last look; each at most once."
    queries = [(name.lower(), rdtype) for name, rdtype, _ in dns.queries]
    dns.queries.clear()
    assert max(Counter(queries).values(), default=0) <= 1, Counter(queries).most_common(3)
    return set(queries)


def listed(client: str) -> set[tuple[str, str]]:
    return {(f"{'.'.join(reversed(client.split('.')))}.{each}", "A") for each in LISTS}


NAME = {("1.2.0.192.in-addr.arpa", "PTR"), ("mx.example.net", "A")}  # what rdnschecks asks
SENDER = {(name, "TXT") for name in ("example.net", "spf.example.net")} | {("example.net", "MX"), ("mail.example.net", "A")}


# What is asked, and when


@one_test
async def test_each_question_is_asked_as_soon_as_it_is_known(tmp_path: Path) -> None:
    with DnsServer(ZONE) as dns:
        async with service(tmp_path, dns) as made:
            environ = CONNECTION | {"BOUNCELEVEL": "0"}
            for command, expected in (
                ("at-connection", listed("192.0.2.1") | NAME),
                ("at-helo", {("mx.example.net", "TXT")}),
                ("at-mail", SENDER),
                ("at-rcpt", set()),
            ):
                environ |= COMMANDS[command]
                await made.ask(command, environ)
                await made.settled()
                assert asked(dns) == expected, command
            assert made.decider.counts.verdicts == {(each, "go on"): 1 for each in ("rblchecks", "rdnschecks", "spfchecks")}
            assert made.said == []


@one_test
async def test_a_question_that_is_still_under_way_isnt_asked_again(tmp_path: Path) -> None:
    with DnsServer(ZONE, fault="late") as dns:
        async with service(tmp_path, dns, {"atplugins": "[mail]\nrblchecks\n"}) as made:
            await made.ask("at-connection", CONNECTION)
            assert await asyncio.to_thread(dns.wait_for, len(LISTS))
            waiting = asyncio.create_task(made.ask("at-mail", CONNECTION | HELO | MAIL))
            while made.decider.counts.events["connections"] != 2:
                await asyncio.sleep(0.001)
            await made.ask("at-helo", CONNECTION | HELO)  # so that the one at MAIL has been read
            dns.release()
            assert await waiting == (b"", [waiting.result()[1][0]]) and waiting.result()[1][0].endswith("Accepted 192.0.2.1")
            assert asked(dns) == listed("192.0.2.1")


SESSIONS: dict[str, dict[str, str]] = {
    "pass": {},
    "fail, refused": {"BOUNCELEVEL": "0", "SMTPMAILFROM": "ana@example.com"},
    "HELO fails": {"BOUNCELEVEL": "0", "TCPREMOTEIP": "198.51.100.7"},
    "secondary MX": {"BOUNCELEVEL": "0", "TCPREMOTEIP": "198.51.100.1", "SPFHELO": "0"},
    "bounce": {"SMTPMAILFROM": ""},
    "listed": {"TCPREMOTEIP": "192.0.2.9"},
    "lists of domains": {"RBLHELO": "dbl.example", "RBLSENDER": "dbl.example"},
    "no names": {"TCPREMOTEIP": "192.0.2.77", "RDNSTHRESHOLD": "3", "RDNSHELOUNRESOLVABLE": "1"},
    "IPv6": {"TCPREMOTEIP": "2001:db8::1"},
    "an odd HELO": {"SMTPHELOHOST": "[192.0.2.1]", "BOUNCELEVEL": "2"},
    "no port": {"TCPREMOTEPORT": ""},
}


@pytest.mark.parametrize("case", SESSIONS)
@one_test
async def test_answers_are_the_same_and_so_are_questions(tmp_path: Path, case: str) -> None:
    found = []
    with DnsServer(ZONE) as dns:
        for asking_ahead in (False, True):
            async with service(tmp_path, dns, asking_ahead=asking_ahead) as made:
                replies = await session(made, **SESSIONS[case])
                found.append((replies, dict(made.decider.counts.verdicts), asked(dns)))
    (replies, verdicts, questions), (others, other_verdicts, more) = found
    assert replies == others and verdicts == other_verdicts
    assert questions - more == set()
    # A decision that has been made gives up what it doesn't need any more, and may have asked less by then; and a client
    # that is sent away at MAIL is asked about at connection by a name that nobody wants in the end.
    assert more == questions or case in ("listed", "no names"), more - questions


@one_test
async def test_helo_isnt_asked_about_before_it_is_certain(tmp_path: Path) -> None:
    with DnsServer(ZONE) as dns:
        async with service(tmp_path, dns, {"atplugins": "[rcpt]\nspfchecks\n"}) as made:
            await made.ask("at-helo", CONNECTION | HELO | {"BOUNCELEVEL": "-1"})
            await made.settled()
            assert asked(dns) == set()
            await made.ask("at-helo", CONNECTION | HELO | {"BOUNCELEVEL": "0"}, pid=4712)
            await made.settled()
            assert asked(dns) == {("mx.example.net", "TXT"), ("mx.example.net", "A")}  # v=spf1 a -all


@one_test
async def test_what_stands_there_from_the_message_before_isnt_taken_for_new(tmp_path: Path) -> None:
    control: Files = {"atplugins": "[mail]\nmfdnschecks\n[rcpt]\nspfchecks\n"}
    with DnsServer(ZONE) as dns:
        async with service(tmp_path, dns, control) as made:
            environ = CONNECTION | HELO | {"SMTPMAILFROM": "ana@example.com"} | RCPT
            await made.ask("at-mail", environ)
            await made.settled()
            assert ("example.org", "MX") not in asked(dns)  # is the client a secondary MX of the recipient's? Of which one?
            await made.ask("at-helo", environ | {"SMTPHELOHOST": "mail.example.net", "SMTPMAILFROM": "ana@example.com"})
            await made.settled()
            assert asked(dns) == set()


@one_test
async def test_single_plugins_that_qmail_smtpd_starts(tmp_path: Path) -> None:
    control: Files = {"smtpplugins": "[connection]\nplugins/rdnschecks\n[mail]\nplugins/rblchecks\n[rcpt]\n/x/spfchecks\n"}
    with DnsServer(ZONE) as dns:
        async with service(tmp_path, dns, control) as made:
            environ = CONNECTION
            for name, told, expected in (
                ("rdnschecks", {}, NAME | listed("192.0.2.1")),
                ("rblchecks", HELO | MAIL, SENDER),
                ("spfchecks", RCPT, set()),
            ):
                environ |= told
                await made.ask(name, environ)
                await made.settled()
                assert asked(dns) == expected, name
            assert made.decider.counts.events["rehearsals"] == 3  # two after connection, and spfchecks after MAIL


def test_which_plugins_come_later() -> None:
    plugins = {each.name: each for each in OURS}
    control: Files = {"atplugins": "[mail]\nrblchecks\n[rcpt]\nspfchecks\nnone\n", "smtpplugins": "[data]\nplugins/rdnschecks\n"}
    made = Decider(plugins, control=ControlFiles(control))
    for name, stage, expected in (
        ("at-connection", "connection", ["rblchecks", "spfchecks", "rdnschecks"]),
        ("at-auth", "helo", ["rblchecks", "spfchecks", "rdnschecks"]),
        ("at-mail", "mail", ["spfchecks", "rdnschecks"]),
        ("at-rcpt", "mail", ["rdnschecks"]),
        ("at-data", "mail", []),
        ("at-pass", "mail", []),
        ("rblchecks", "mail", ["spfchecks", "rdnschecks"]),
        ("rdnschecks", "helo", ["rblchecks", "spfchecks", "rdnschecks"]),
    ):
        assert later_names(made, name, stage) == expected, name
    unreadables: list[Files] = [{}, {"atplugins": "\0"}]
    for unreadable in unreadables:
        assert later_names(Decider(plugins, control=ControlFiles(unreadable)), "at-helo", "helo") == []


# For whom nothing is asked


@pytest.mark.parametrize(
    "more",
    [{"RELAYCLIENT": ""}, {"SMTPAUTHUSER": "ana"}, {"RAEXEMPT": "all"}, {"ACCESSEXEMPT": "rblchecks,spfchecks,rdnschecks"}],
)
@one_test
async def test_nothing_is_asked_about_those_whom_plugins_let_be(tmp_path: Path, more: dict[str, str]) -> None:
    with DnsServer(ZONE) as dns:
        async with service(tmp_path, dns) as made:
            await session(made, **more)
            assert made.decider.counts.events["rehearsals"] and asked(dns) == set()


@one_test
async def test_nothing_is_asked_after_a_refusal(tmp_path: Path) -> None:
    @plugin("mail")
    def refusing(session: Session) -> Refuse:
        "Refuse."
        return Refuse(550, "5.7.1", "no")

    async with service(tmp_path, None, {"atplugins": "[mail]\nrefusing\n[rcpt]\nspfchecks\n"}, (refusing, spfchecks)) as made:
        output, _ = await made.ask("at-mail", CONNECTION | HELO | MAIL)
        assert output.startswith(b"E550")
        await made.settled()
        assert not made.decider.counts.events["rehearsals"]


# Nothing but questions of that kind


class Tick(Question[int]):
    "A question that changes what it answers."

    answerer = f"{__name__}:Ticker"


class Ticker(Answerer):
    "Counts."

    ticks = 0

    async def aanswer(self, question: Tick, until: float) -> int:
        Ticker.ticks += 1
        return Ticker.ticks


@plugin("rcpt", asks=(Lookup, Tick))
async def in_turn(session: Session, log: Any) -> None:
    "One after the other."
    await Lookup("before.example", "A")
    log(f"tick {await Tick()}")
    await Lookup("after.example", "A")


@plugin("rcpt", asks=(Lookup, Tick))
async def side_by_side(session: Session, log: Any) -> None:
    "All at once."
    await gather(Lookup("before.example", "A"), Tick(), Tick())
    await Lookup("after.example", "A")


@plugin("rcpt", asks=(Lookup, Tick))
async def stubborn(session: Session, log: Any) -> None:
    "Goes on whatever happens."
    await Lookup("before.example", "A")
    try:
        log(f"for {session.rcpt_to}")
    except BaseException:
        log("never mind")
    await Lookup("after.example", "A")
    await Tick()


@pytest.mark.parametrize("decision", [in_turn, side_by_side, stubborn])
@one_test
async def test_other_questions_end_it(tmp_path: Path, decision: Plugin) -> None:
    Ticker.ticks = 0
    with DnsServer(ZONE) as dns:
        async with service(tmp_path, dns, {"atplugins": f"[mail]\n[rcpt]\n{decision.name}\n"}, (decision,)) as made:
            _, log = await made.ask("at-mail", CONNECTION | HELO | MAIL)
            await made.settled()
            assert asked(dns) == {("before.example", "A")}
            assert Ticker.ticks == 0 and log == [] and made.said == [] and not made.decider.counts.verdicts
            assert made.decider.counts.events["rehearsals that failed"] == 0
            await made.ask("at-rcpt", CONNECTION | HELO | MAIL | RCPT)
            assert asked(dns) == {("after.example", "A")} and Ticker.ticks > 0  # before.example was known


@one_test
async def test_a_store_isnt_touched(tmp_path: Path) -> None:
    control: Files = {"atplugins": "[rcpt]\ngreylist\n"}
    async with service(tmp_path, None, control) as made:
        made.decider.answerers.environ = {"GREYLISTSTORE": str(tmp_path / "greylist.sqlite")}
        await made.ask("at-mail", CONNECTION | HELO | MAIL)
        await made.settled()
        assert made.decider.counts.events["rehearsals"] == 1 and os.listdir(tmp_path) == ["socket"]


@one_test
async def test_what_goes_wrong_is_counted_and_no_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ahead, "STEP_SECONDS", 0.1)

    @plugin("rcpt", asks=(Lookup,))
    async def failing(session: Session, log: Any) -> None:
        "Say something, and fail."
        print("printed")
        log("logged")
        raise RuntimeError("no idea")

    @plugin("rcpt", asks=(Lookup,))
    async def endless(session: Session) -> None:
        "Never come back."
        while True:
            pass

    @plugin("rcpt", asks=(Lookup,))
    async def leaving(session: Session) -> None:
        "Try to end the service."
        raise SystemExit

    control: Files = {"atplugins": "[mail]\n[rcpt]\nfailing\nendless\nleaving\n"}
    async with service(tmp_path, None, control, (failing, endless, leaving)) as made:
        assert await made.ask("at-mail", CONNECTION | HELO | MAIL) == (b"", [])
        await made.settled()
        events = made.decider.counts.events
        assert (events["rehearsals"], events["rehearsals that failed"]) == (3, 3)
        assert made.said == [] and not made.decider.counts.verdicts and "errors of plugins" not in events


# Bounds


@one_test
async def test_only_so_many_at_a_time(tmp_path: Path) -> None:
    with DnsServer(ZONE, fault="late") as dns:
        async with service(tmp_path, dns, {"atplugins": "[mail]\nrblchecks\n"}, limit=2) as made:
            for number in range(5):
                await made.ask("at-connection", CONNECTION | {"TCPREMOTEIP": f"198.51.100.{number}"}, 4711 + number)
            events = made.decider.counts.events
            assert (len(made.rehearsals.running), events["rehearsals"], events["rehearsals left out"]) == (2, 2, 3)
            assert await asyncio.to_thread(dns.wait_for, 2 * len(LISTS))
            dns.release()
            await made.settled()
            assert asked(dns) == listed("198.51.100.0") | listed("198.51.100.1")


@one_test
async def test_one_session_is_rehearsed_a_few_times(tmp_path: Path) -> None:
    with DnsServer(ZONE) as dns:
        async with service(tmp_path, dns, {"atplugins": "[rcpt]\nspfchecks\n"}) as made:
            for number in range(NEWS_OF_A_SESSION + 5):
                await made.ask("at-mail", CONNECTION | HELO | {"SMTPMAILFROM": f"ana@{number}.example"})
                await made.settled()
            assert asked(dns) == {(f"{number}.example", "TXT") for number in range(NEWS_OF_A_SESSION)}


@one_test
async def test_only_so_many_questions(tmp_path: Path) -> None:
    @plugin("rcpt", asks=(Lookup,))
    async def curious(session: Session) -> None:
        "Ask about everything."
        for number in range(QUESTIONS_AHEAD + 50):
            await Lookup(f"{number}.example", "A")

    with DnsServer(ZONE) as dns:
        async with service(tmp_path, dns, {"atplugins": "[rcpt]\ncurious\n"}, (curious,)) as made:
            await made.ask("at-mail", CONNECTION | HELO | MAIL)
            await made.settled()
            assert len(asked(dns)) == QUESTIONS_AHEAD


@one_test
async def test_only_so_many_questions_under_way_and_those_of_decisions_go_first(tmp_path: Path) -> None:
    @plugin("mail", "rcpt", asks=(Lookup,), seconds=60)
    async def curious(session: Session) -> None:
        "Ask about everything at once."
        name = session.environ["TCPREMOTEPORT"]
        async for _ in as_completed(*(Lookup(f"{name}-{number}.slow.example", "A") for number in range(50))):
            pass

    @plugin("helo", asks=(Lookup,))
    async def brief(session: Session, log: Any) -> None:
        "Ask one thing."
        log(f"{len(await Lookup('mx.example.net', 'A'))} addresses")

    slow = {f"{port}-{number}.slow.example": "late" for port in range(4) for number in range(50)}
    control: Files = {"atplugins": "[helo]\nbrief\n[rcpt]\ncurious\n"}
    with DnsServer(ZONE, faults=slow) as dns:
        async with service(tmp_path, dns, control, (curious, brief)) as made:
            for port in range(4):
                await made.ask("at-mail", CONNECTION | HELO | MAIL | {"TCPREMOTEPORT": str(port)}, 4711 + port)
            assert await asyncio.to_thread(dns.wait_for, WAITED_FOR)
            _, log = await made.ask("at-helo", CONNECTION | HELO)
            assert log == ["brief: pid 4711 - 1 addresses"]
            assert len(made.rehearsals.asked) == WAITED_FOR and len(dns.queries) == WAITED_FOR + 1
            dns.faults.clear()
            dns.release()
            await made.settled()
            assert len(asked(dns)) == 5 * 50 + 1  # four at MAIL, one after HELO, and that of the decision


@one_test
async def test_a_rehearsal_has_the_time_that_its_plugin_declares(tmp_path: Path) -> None:
    @plugin("rcpt", asks=(Lookup,), seconds=0.05)
    async def patient(session: Session) -> None:
        "Ask again and again."
        while True:
            await gather(Lookup("held.example", "A"))

    with DnsServer(ZONE, fault="late") as dns:
        async with service(tmp_path, dns, {"atplugins": "[rcpt]\npatient\n"}, (patient,)) as made:
            await made.ask("at-mail", CONNECTION | HELO | MAIL)
            while made.rehearsals.running or not dns.queries:
                await asyncio.sleep(0.01)
            dns.release()
            await made.settled()
            assert made.said == []


@one_test
async def test_the_reply_goes_first(tmp_path: Path) -> None:
    heard, waited = threading.Event(), []

    @plugin("rcpt", asks=(Lookup,))
    async def holding(session: Session) -> None:
        "Hold up whoever waits for us, until the client has been heard to have its reply."
        waited.append(heard.wait(1))

    def client() -> bytes:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(str(tmp_path / "socket"))
            connection.sendall(ServiceRequest("at-mail", 4711, CONNECTION | HELO | MAIL).pack())
            reply = connection.recv(1000)
        heard.set()
        return reply

    async with service(tmp_path, None, {"atplugins": "[mail]\n[rcpt]\nholding\n"}, (holding,)) as made:
        assert await asyncio.to_thread(client) == b"3:0\0\0,"
        await made.settled()
        assert waited == [True]


# The program


@contextmanager
def program(folder: Path, dns: DnsServer, *options: str) -> Iterator[str]:
    "`ra-plugins service`; the path of its socket."
    (folder / "control").mkdir()
    (folder / "control" / "atplugins").write_text("[connection]\n[helo]\n[mail]\nrblchecks\n")
    environ = os.environ | {"CONTROLDIR": str(folder / "control"), "DNSSERVERS": f"127.0.0.1#{dns.port}"}
    user = ["--user", "root"] if os.geteuid() == 0 else []
    path = str(folder / "socket")
    words = [str(Path(sys.executable).with_name("ra-plugins")), "service", "--socket", path, *user, *options]
    with subprocess.Popen(words, env=environ, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr
        try:
            said = []
            for line in process.stderr:
                said.append(line)
                if "ready on" in line:
                    break
            assert process.poll() is None and "ready on" in "".join(said), said
            yield path
        finally:
            process.send_signal(signal.SIGTERM)
            process.stderr.read()
            assert process.wait(PATIENCE) == 0


def ask_program(path: str, name: str, environ: dict[str, str]) -> bytes:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(PATIENCE)
        connection.connect(path)
        connection.sendall(ServiceRequest(name, 4711, environ).pack())
        data = b""
        while more := connection.recv(1000):
            data += more
    return data


def test_the_program_asks_ahead(tmp_path: Path) -> None:
    with DnsServer(ZONE) as dns, program(tmp_path, dns) as path:
        assert ask_program(path, "at-connection", CONNECTION) == b"3:0\0\0,"
        assert dns.wait_for(len(LISTS))
        assert b"Accepted 192.0.2.1" in ask_program(path, "at-mail", CONNECTION | HELO | MAIL)
        assert asked(dns) == listed("192.0.2.1")


def test_the_program_is_told_not_to(tmp_path: Path) -> None:
    with DnsServer(ZONE) as dns, program(tmp_path, dns, "--no-ahead") as path:
        for name in ("at-connection", "at-helo"):
            assert ask_program(path, name, CONNECTION) == b"3:0\0\0,"
        assert asked(dns) == set()
        assert b"Accepted 192.0.2.1" in ask_program(path, "at-mail", CONNECTION | HELO | MAIL)
        assert asked(dns) == listed("192.0.2.1")
