"""Debian's Postfix refuses, defers and tags mail that a client sends, by our verdict; and spf-engine beside ours.

What Postfix makes of an action is in access(5); what it does if nobody answers, in SMTPD_POLICY_README and postconf(5).
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from dns_server import DnsServer
from mailserver import COMMAND, ENVIRON, PATIENCE, until
from postfix_server import GATE, Asking, Policies, Postfix, a_folder, codes, policyd_spf, request
from rater_server import Process
from servers import free_port
from service_process import remove, short_folder

from ra_plugins.ask.zonefile import zone_from_text
from ra_plugins.hosts.catalogue import catalogue

SMTPDS = 200  # at once
ZONE = zone_from_text(r"""
example.net.        TXT  "v=spf1 ip4:192.0.2.0/28 ip6:2001:db8::/32 -all"
mail.example.net.   TXT  "v=spf1 ip4:192.0.2.0/28 -all"
soft.example.net.   TXT  "v=spf1 ip4:192.0.2.1 ~all"
neutral.example.net. TXT "v=spf1 ?all"
why.example.net.    TXT  "v=spf1 -all exp=text.example.net"
text.example.net.   TXT  "%{i} is none of ours"
twice.example.net.  TXT  "v=spf1 -all"
twice.example.net.  TXT  "v=spf1 +all"
many.example.net.   TXT  "v=spf1 exists:1.example exists:2.example exists:3.example -all"
include.example.net. TXT "v=spf1 include:example.net -all"
broken.example.net. TXT  "v=spf1 ip4:1.2.3 -all"
single.             TXT  "v=spf1 -all"
example.org.        MX   10 mx.example.org.
example.org.        MX   20 backup.example.org.
backup.example.org. A    203.0.113.20
away.example.net.   TXT  "v=spf1 include:silent.example.net -all"
silent.example.net. TXT  "v=spf1 -all"
7.100.51.198.bl.example.   A    127.0.0.2
7.100.51.198.bl.example.   TXT  "Spam on Monday"
7.100.51.198.two.example.  A    127.0.0.2
7.100.51.198.two.example.  TXT  "Spam on Monday"
8.100.51.198.two.example.  A    127.0.0.2
""")
FAULTS = {"silent.example.net": "servfail"}
OPEN = "permit_auth_destination, reject"
GATED = (
    GATE
    + """
from ra_plugins.spp.command import AddHeader, Refuse
from ra_plugins.spp.plugin import plugin


@plugin("rcpt", asks=(Gate,), seconds=80)
async def patient(session):
    "Wait for the gate."
    return Refuse(550, "5.7.1", f"{await Gate()} for {session.rcpt_to}")
"""
)


@pytest.fixture
def folder() -> Iterator[Path]:
    made = a_folder()
    yield made
    remove(made)


@pytest.fixture(scope="module")
def nameserver() -> Iterator[DnsServer]:
    with DnsServer(ZONE, faults=FAULTS) as server:
        yield server


def settings(check: str, **more: str) -> dict[str, str]:
    "Of main.cf: asked about recipients, behind what says whether mail is for us."
    return {
        "smtpd_relay_restrictions": OPEN,
        "smtpd_recipient_restrictions": f"reject_unauth_destination, {check}",
        **more,
    }


def at_data(check: str) -> dict[str, str]:
    "Of main.cf: asked at DATA, too."
    return {"smtpd_data_restrictions": check}


def test_spf_refuses_and_tags(folder: Path, nameserver: DnsServer) -> None:
    chains = "[rcpt]\nspfchecks\nBOUNCELEVEL=0\nSPFRFCCODES=1\nSPFAUTHRESULTS=1\n[data]\n"
    with (
        Policies(folder, chains, DNSSERVERS=f"127.0.0.1#{nameserver.port}") as ours,
        Postfix(folder, {**settings(ours.check), **at_data(ours.check)}) as server,
    ):
        assert codes(server.send("ben@example.org", "eva@example.org")) == [250, 250, 250]
        (refused,) = server.send("ben@example.org", sender="ana@why.example.net")
        assert refused == ("550 5.7.23 <ben@example.org>: Recipient address rejected: 192.0.2.1 is none of ours")
        assert codes(server.send("ben@example.org", ip="198.51.100.9")) == [550]
        until(lambda: len(server.mail()) == 2, "both copies have come in")
        for message in server.mail():
            head = message.partition("\n\n")[0]
            assert len(re.findall("^Received-SPF: Pass ", head, re.M)) == 1
            assert len(re.findall(r"^Authentication-Results: mx\.example\.org;\s+spf=pass", head, re.M)) == 1


def test_listed_clients_are_refused_by_weight(folder: Path, nameserver: DnsServer) -> None:
    "As postscreen_dnsbl_sites and postscreen_dnsbl_threshold would: bl.example*2, two.example, and 3 are enough."
    chains = "[mail]\nrblchecks\nRBLSERVERS=bl.example*2:two.example\nRBLTHRESHOLD=3\n"
    with (
        Policies(folder, chains, DNSSERVERS=f"127.0.0.1#{nameserver.port}") as ours,
        Postfix(folder, settings(ours.check)) as server,
    ):
        (reply,) = server.send("ben@example.org", ip="198.51.100.7")
        assert reply == (
            "421 4.7.1 <ben@example.org>: Recipient address rejected: "
            "Your IP (198.51.100.7) is blocked. Reason: Spam on Monday"
        )
        assert codes(server.send("ben@example.org", ip="198.51.100.8")) == [250, 250]
        assert codes(server.send("ben@example.org", ip="198.51.100.9")) == [250, 250]


def test_greylist_defers_a_stranger_until_it_comes_back(folder: Path) -> None:
    chains = "[rcpt]\ngreylist\nGREYLISTDELAY=1\n[data]\n"
    with (
        Policies(folder, chains, GREYLISTSTORE=f"{folder}/greylist.db") as ours,
        Postfix(folder, {**settings(ours.check), **at_data(ours.check)}) as server,
    ):
        assert codes(server.send("ben@example.org")) == [451]
        until(lambda: codes(server.send("ben@example.org"))[0] == 250, "its wait is over")
        assert codes(server.send("eva@example.org")) == [451]
        # a bounce, or somebody who asks whether there is a ben: only a message is put off
        assert codes(server.send("ben@example.org", sender="")) == [250, 451]


def test_tarpit_slows_a_client_down(folder: Path) -> None:
    "A delay is waited for before the answer; nothing is refused, and others aren't kept waiting."
    with (
        Policies(folder, "[rcpt]\ntarpit\nTARPITCOUNT=2\nTARPITDELAY=1\n") as ours,
        Postfix(folder, settings(ours.check)) as server,
    ):
        assert codes(server.send(*(f"r{number}@example.org" for number in range(3)))) == [250, 250, 250, 250]
        until(lambda: len(server.mail()) == 3, "the message has come in")
        waited = re.findall(r"delays=([\d.]+)/", server.log())  # smtpd's share: from the first recipient on
        assert len(waited) == 3 and all(float(seconds) >= 2 for seconds in waited)


def test_rater_at_its_own_port(folder: Path) -> None:
    rules = '[[policy.rules]]\nclass = "ip"\nvalue = "{client_address}"\n[[limits.ip]]\nlimit = "2 in 1h"\n'
    port = free_port()
    with Process(folder, f'[policy]\nlisten = "127.0.0.1:{port}"\n{rules}', log_level=3) as rater:
        until(lambda: "marks: " in rater.log.read_text(), "it listens everywhere")
        with Postfix(folder, settings(f"check_policy_service inet:127.0.0.1:{port}")) as server:
            recipients = [f"r{number}@example.org" for number in range(3)]
            assert codes(server.send(*recipients)) == [250, 250, 450, 250]
            assert codes(server.send("ben@example.org", ip="192.0.2.9")) == [250, 250]


def test_watching_first(folder: Path, nameserver: DnsServer) -> None:
    "warn_if_reject: the log says what would be refused, and the mail comes in; a plugin that only looks says it, too."
    chains = "[rcpt]\nspfchecks\nBOUNCELEVEL=0\n"
    with (
        Policies(folder, chains, DNSSERVERS=f"127.0.0.1#{nameserver.port}") as ours,
        Postfix(folder, settings(f"warn_if_reject {ours.check}")) as server,
    ):
        assert codes(server.send("ben@example.org", sender="ana@why.example.net")) == [250, 250]
        until(lambda: "reject_warning: RCPT from" in server.log(), "Postfix has logged it")
        assert "192.0.2.1 is none of ours" in server.log()
        assert any("refused at rcpt: 550 192.0.2.1 is none of ours" in line for line in ours.lines())


def test_a_service_that_dies_in_the_middle_of_a_request(folder: Path) -> None:
    "Postfix asks again, hears nobody, and says 451: the client has its mail still, and brings it when we are back."
    (folder / "gates.py").write_text(GATED)
    port = free_port()
    chains = "[rcpt]\npatient\n"
    ours = Policies(folder, chains, files=[folder / "gates.py"], port=port)
    ours.start()
    try:
        with Postfix(folder, settings(ours.check)) as server, server.client() as smtp:
            smtp.mail("ana@example.net")
            replies: list[tuple[int, bytes]] = []
            sending = threading.Thread(target=lambda: replies.append(smtp.rcpt("ben@example.org")))
            sending.start()
            until((folder / "arrived").exists, "the plugin has begun")
            ours.end_at_once()
            sending.join(PATIENCE)
            refused = b"4.3.5 <ben@example.org>: Recipient address rejected: Server configuration problem"
            assert replies == [(451, refused)]
            until(lambda: "problem talking to server" in server.log(), "Postfix has logged it")
            (folder / "control/postfixplugins").write_text("[rcpt]\n")
            (folder / "policy").unlink(missing_ok=True)
            ours.start()
            assert codes(server.send("ben@example.org")) == [250, 250]
    finally:
        ours.end()


def test_what_else_can_be_done_while_it_is_away(folder: Path) -> None:
    "smtpd_policy_service_default_action = DUNNO has mail come in unjudged."
    check = f"check_policy_service inet:127.0.0.1:{free_port()}"
    with Postfix(folder, settings(check, smtpd_policy_service_default_action="DUNNO")) as server:
        assert codes(server.send("ben@example.org")) == [250, 250]


def test_many_smtpds_at_once(folder: Path) -> None:
    "Each process of Postfix has a connection of its own, all wait for one answer, and each client gets its own."
    (folder / "gates.py").write_text(GATED)
    with (
        Policies(folder, "[rcpt]\npatient\n", files=[folder / "gates.py"]) as ours,
        Postfix(folder, settings(ours.check), smtpds=str(SMTPDS + 10)) as server,
        ExitStack() as stack,
    ):
        clients = []
        for number in range(SMTPDS):
            clients.append(stack.enter_context(server.client(ip=f"192.0.2.{number}")))
            clients[-1].mail("ana@example.net")
            clients[-1].putcmd("rcpt", f"TO:<r{number}@example.org>")
        arrived = folder / "arrived"
        until(lambda: arrived.exists() and arrived.stat().st_size == SMTPDS, "all of them wait")
        (folder / "open").touch()
        for number, client in enumerate(clients):
            code, text = client.getreply()
            assert code == 550 and text.endswith(f"open for r{number}@example.org".encode())


@pytest.mark.parametrize("seconds", ["90", "1"], ids=["longer than Postfix waits", "shorter"])
def test_slow_dns_and_a_postfix_that_is_in_a_hurry(folder: Path, seconds: str) -> None:
    "Postfix waits for two seconds. An answer comes before that if we're told so; else it says 451. Mail isn't lost."
    chains = "[rcpt]\nspfchecks\nBOUNCELEVEL=0\nSPFTIMEOUT=8\n"
    with (
        DnsServer(ZONE, fault="drop") as silent,
        Policies(folder, chains, "--seconds", seconds, DNSSERVERS=f"127.0.0.1#{silent.port}") as ours,
        Postfix(folder, settings(ours.check, smtpd_policy_service_timeout="2s")) as server,
    ):
        replies = server.send("ben@example.org", sender="ana@why.example.net")
        assert codes(replies) == ([451] if seconds == "90" else [250, 250])


# spf-engine beside ours: client, HELO, sender; what is done about it, and the result of SPF.

REFUSE, TAG, DEFER, NOTHING = "refuse", "tag", "defer", "nothing"
ALIKE = {
    ("192.0.2.1", "mail.example.net", "ana@example.net"): (TAG, "pass"),
    ("192.0.2.20", "host.example.com", "ana@example.net"): (REFUSE, "fail"),
    ("198.51.100.1", "mail.example.net", "ana@soft.example.net"): (REFUSE, "fail"),  # of HELO
    ("198.51.100.1", "host.example.com", "ana@soft.example.net"): (TAG, "softfail"),
    ("198.51.100.1", "host.example.com", "ana@neutral.example.net"): (TAG, "neutral"),
    ("198.51.100.1", "host.example.com", "ana@example.com"): (TAG, "none"),
    ("198.51.100.1", "host.example.com", "ana@why.example.net"): (REFUSE, "fail"),
    ("198.51.100.1", "host.example.com", "ana@broken.example.net"): (TAG, "permerror"),
    ("198.51.100.1", "host.example.com", "ana@twice.example.net"): (TAG, "permerror"),
    ("198.51.100.1", "host.example.com", "ana@many.example.net"): (TAG, "permerror"),
    ("198.51.100.1", "host.example.com", "ana@include.example.net"): (REFUSE, "fail"),
    ("192.0.2.1", "host.example.com", "ana@include.example.net"): (TAG, "pass"),
    ("198.51.100.1", "host.example.com", "ana@away.example.net"): (TAG, "temperror"),
    ("2001:db8::1", "host.example.com", "ana@example.net"): (TAG, "pass"),
    ("2001:db9::1", "host.example.com", "ana@example.net"): (REFUSE, "fail"),
    ("192.0.2.1", "mail.example.net", ""): (TAG, "pass"),
    ("198.51.100.1", "mail.example.net", ""): (REFUSE, "fail"),
    ("198.51.100.1", "host.example.com", ""): (TAG, "none"),
}


def judged(action: str) -> tuple[str, str]:
    "What is done, and the result: of a refusal that of its text or else fail, which is what both refuse here."
    verb, _, rest = action.partition(" ")
    if verb.lower() == "prepend":
        found = re.match(r"Received-SPF: (\w+) ", rest)
        return TAG, found[1].lower() if found else ""
    if verb.lower() == "dunno":
        return NOTHING, ""
    if verb[0] == "4" or verb.lower().startswith("defer"):
        return DEFER, "temperror"
    return REFUSE, "permerror" if rest.startswith("5.7.24") else "fail"


# Where the two differ: client, HELO, sender, more of the request; ours, theirs, and why.
DIFFERENT = {
    ("203.0.113.20", "host.example.com", "ana@example.net", ""): (
        *((NOTHING, ""), (REFUSE, "fail")),
        "the client takes mail for example.org (MX): whoever has sent it there, it passes it on",
    ),
    ("198.51.100.1", "host.example.com", "ana@example.net", "ana"): (
        *((NOTHING, ""), (REFUSE, "fail")),
        "a user who has logged in may send from anywhere; theirs is to stand behind permit_sasl_authenticated",
    ),
    ("127.0.0.1", "host.example.com", "ana@example.net", ""): (
        *((REFUSE, "fail"), (TAG, "")),
        "theirs leaves out this host, by skip_addresses; ours stands behind permit_mynetworks",
    ),
    ("198.51.100.1", "host.example.com", "ana@single", ""): (
        *((TAG, "none"), (REFUSE, "fail")),
        "a domain has more than one label (RFC 7208, section 4.3), so this one has no policy",
    ),
    ("198.51.100.1", "host.example.com", "ana@example.net.", ""): (
        *((REFUSE, "fail"), (TAG, "none")),
        "with a dot at its end a domain is the same (RFC 7208, section 4.3)",
    ),
    ("198.51.100.1", "broken.example.net", "ana@example.com", ""): (
        *((TAG, "none"), (TAG, "permerror")),
        "the sender's result is the message's; theirs tells that of HELO, if the sender has none",
    ),
}


def sent(ip: str, helo: str, sender: str, user: str = "", instance: list[int] = [0]) -> bytes:  # noqa: B006
    "A request about a message of its own."
    instance[0] += 1
    attributes = {"client_address": ip, "helo_name": helo, "sender": sender, "sasl_username": user}
    return request("ben", b"", client_name="unknown", instance=f"1a.{instance[0]}.0", **attributes)


@pytest.fixture(scope="module")
def beside(nameserver: DnsServer) -> Iterator[Callable[[bytes], tuple[str, str]]]:
    "Asks both."
    pytest.importorskip("spf_engine")
    made = short_folder()
    chains = "[rcpt]\nspfchecks\nBOUNCELEVEL=0\nSPFRFCCODES=1\n"
    with (
        Policies(made, chains, DNSSERVERS=f"127.0.0.1#{nameserver.port}") as ours,
        Asking(ours.unix) as smtpd,
        policyd_spf(made, nameserver.port) as theirs,
    ):

        def ask(data: bytes) -> tuple[str, str]:
            smtpd.send(data)
            return smtpd.answer(), theirs.ask(data)

        yield ask
    remove(made)


@pytest.mark.parametrize("message", ALIKE, ids=" ".join)
def test_spf_engine_says_the_same(beside: Callable[[bytes], tuple[str, str]], message: tuple[str, str, str]) -> None:
    ours, theirs = map(judged, beside(sent(*message)))
    assert ours == theirs == ALIKE[message]


@pytest.mark.parametrize("message", DIFFERENT, ids=" ".join)
def test_spf_engine_differs_for_a_reason(
    beside: Callable[[bytes], tuple[str, str]], message: tuple[str, str, str, str]
) -> None:
    assert (*map(judged, beside(sent(*message))), DIFFERENT[message][2]) == DIFFERENT[message]


def test_spf_engine_and_ours_refuse_with_one_code_and_tag_once(beside: Callable[[bytes], tuple[str, str]]) -> None:
    refused = beside(sent("198.51.100.1", "host.example.com", "ana@why.example.net"))
    assert [action[:10] for action in refused] == ["550 5.7.23"] * 2
    assert all("198.51.100.1 is none of ours" in action for action in refused)
    data = sent("192.0.2.1", "mail.example.net", "ana@example.net")
    first, second = beside(data), beside(data.replace(b"ben@", b"eva@"))
    assert [judged(action)[0] for action in (*first, *second)] == [TAG, TAG, NOTHING, NOTHING]


# Started by systemd


def test_a_socket_that_systemd_has_opened(folder: Path) -> None:
    "Postfix's connection waits there until the service has come up, and is then answered."
    if not (activate := shutil.which("systemd-socket-activate")):
        pytest.skip("systemd isn't installed")
    port = free_port()
    ours = Policies(folder, "[rcpt]\n", port=port)
    passed = [word for name in ours.environ for word in ("-E", name)]
    ours.command = [activate, "--listen", f"127.0.0.1:{port}", *passed, *ours.command]
    ours.launch()
    try:
        until(lambda: "Listening on 127.0.0.1" in ours.log.read_text(), "somebody listens for us")
        with Postfix(folder, settings(f"check_policy_service inet:127.0.0.1:{port}")) as server:
            assert codes(server.send("ben@example.org")) == [250, 250]
    finally:
        assert ours.end() == 0
    assert f"inet:127.0.0.1:{port}, 1 worker" in ours.log.read_text()


# The guide

GUIDE = Path(__file__).parent.parent / "nbs/guides/postfix.ipynb"


def guide() -> str:
    "What it says and does."
    return "\n".join("".join(cell["source"]) for cell in json.loads(GUIDE.read_text())["cells"])


def test_the_guide_followed_to_the_letter(folder: Path, nameserver: DnsServer) -> None:
    "Its files and its lines for postconf: first all mail comes in, and is marked; then it is refused; then nobody is asked."
    text = guide()
    watching, refusing = re.findall(r"^cat > postfixplugins <<EOF\n(.*?)^EOF$", text, re.S | re.M)
    lines = re.findall(r"^    postconf -e '(.*)'$", text, re.M)
    assert len(lines) == 4
    port = free_port()
    dns, store = f"127.0.0.1#{nameserver.port}", f"{folder}/greylist.db"
    forged = {"sender": "ana@why.example.net"}

    def told(*words: str) -> None:
        "What the guide has one type, for this Postfix."
        subprocess.run([words[0], "-c", folder, *words[1:]], check=True, capture_output=True, env={**os.environ})

    with (
        Policies(folder, watching, port=port, DNSSERVERS=dns, GREYLISTSTORE=store) as ours,
        Postfix(folder, {}) as server,
    ):
        for each in lines[:2]:
            told("postconf", "-e", each.replace("10040", str(port)))
        told("postfix", "reload")
        until(lambda: "reload -- version" in server.log(), "Postfix has read it")
        assert codes(server.send("ben@example.org", **forged)) == [250, 250]
        assert codes(server.send("ben@example.org")) == [250, 250]
        assert codes(server.send("ben@elsewhere.example")) in ([454], [554])
        until(lambda: len(server.mail()) == 2, "both have come in")
        assert sorted(re.findall(r"^Received-SPF: (\w+) ", "\n".join(server.mail()), re.M)) == ["Fail", "Pass"]
        (folder / "control/postfixplugins").write_text(refusing)
        os.kill(ours.pid, signal.SIGHUP)
        until(lambda: "new workers have taken over" in ours.log.read_text(), "it is read again")
        for each in lines[2:]:
            told("postconf", "-e", each.replace("10040", str(port)))
        told("postfix", "reload")
        until(lambda: server.log().count("reload -- version") == 2, "Postfix has read it")
        (refused,) = server.send("ben@example.org", **forged)
        assert refused.startswith("550 5.7.23 ")
        assert codes(server.send("eva@example.org")) == [451]
        told("postconf", *(re.findall(r"^    postconf (-X .*)$", text, re.M)[0].split()))
        told("postfix", "reload")
        until(lambda: server.log().count("reload -- version") == 3, "Postfix has read it")
        assert codes(server.send("eva@example.org", **forged)) == [250, 250]


def test_the_guide_names_settings_that_there_are() -> None:
    "In its tables."
    known = {each.name for plugin in catalogue().values() for each in plugin.settings.variables()} | {"GREYLISTSTORE"}
    named = set(re.findall(r"\b((?:SPF|GREYLIST|RBL)[A-Z0-9]+|BOUNCELEVEL)\b", guide()))
    assert named - known == {"GREYLISTOBSERVES"}, "the slip that it shows"


def test_a_report_counts_what_postfix_was_told_once(folder: Path, nameserver: DnsServer) -> None:
    "A plugin's own line and the service's line about one refusal are one."
    chains = "[rcpt]\nspfchecks\nBOUNCELEVEL=0\n"
    with Policies(folder, chains, DNSSERVERS=f"127.0.0.1#{nameserver.port}") as ours, Asking(ours.unix) as smtpd:
        (action,) = smtpd.ask("ben", sender="ana@why.example.net")
    assert action.startswith("550 ")
    done = subprocess.run([*COMMAND, "report", "--json", ours.log], env=ENVIRON, check=True, capture_output=True)
    assert json.loads(done.stdout)["verdicts"]["refused"] == 1
