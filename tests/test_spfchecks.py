"""spfchecks: what a result means for the mail, as a decision, as an installed program over a real nameserver, and tried."""

from __future__ import annotations

import asyncio
import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from authres import AuthenticationResultsHeader
from dns_server import DnsServer
from hypothesis import given
from hypothesis import strategies as st
from mailserver import COMMAND, DELIVER, ENVIRON, PATIENCE, Client, Home, Server

from ra_plugins.ask.answerer import Answerer, Answerers
from ra_plugins.ask.dns import Lookup, Prefetch, Zone
from ra_plugins.ask.question import Broken, Late, Nobody, Question, Refused, Unanswered
from ra_plugins.ask.zonefile import zone_from_text
from ra_plugins.plugins.spfchecks import BOUNCED, SpfchecksState, message_place, spf_refusal, spfchecks
from ra_plugins.spf.evaluation import check_identity
from ra_plugins.spf.query import Query
from ra_plugins.spp.command import AddHeader, Refuse, SetVariable, read, write
from ra_plugins.spp.session import sample_session
from ra_plugins.support.control import ControlFiles

Serve = Callable[..., Server]

RECORDS = r"""
fail.example.      TXT   "v=spf1 ip4:192.0.2.0/28 ip4:127.0.0.2 ip6:2001:db8::/32 -all"
softfail.example.  TXT   "v=spf1 ~all exp=why.softfail.example"
why.softfail.example. TXT "%{i} is perhaps none of ours"
neutral.example.   TXT   "v=spf1 ?all"
none.example.      TXT   "no policy"
temperror.example. TXT   "v=spf1 include:loop.example -all"
loop.example.      CNAME loop.example.
permerror.example. TXT   "v=spf1 nonsense -all"
pass.example.      TXT   "v=spf1 ip4:127.0.0.1 ip4:192.0.2.0/24 ip4:198.51.100.0/24 ip6:2001:db8::/32 -all"
own.example.       TXT   "v=spf1 -all exp=why.own.example"
why.own.example.   TXT   "Dear %{s}: %{i} may not, see %{r}"
evil.example.      TXT   "v=spf1 -all exp=why.evil.example"
why.evil.example.  TXT   "no\010A\013\010250 ok\000\027[2J\255"
evil7.example.     TXT   "v=spf1 -all exp=why.evil7.example"
why.evil7.example. TXT   "no\010A\013\010250 ok\010SMTPAUTHUSER=x\027[2J"
blank.example.     TXT   "v=spf1 -all exp=why.blank.example"
why.blank.example. TXT   "   "
long.example.      TXT   "v=spf1 -all exp=why.long.example"
example.org.       MX    10 mail.example.org.
example.org.       MX    20 backup.example.org.
backup.example.org. A    198.51.100.20
backup.example.org. A    127.0.0.1
backup.example.org. AAAA 2001:db8:ffff::20
"""
PIECE = '"' + "x" * 250 + '"'
ZONE = zone_from_text(f"{RECORDS}why.long.example. TXT {' '.join([PIECE] * 20)}\n")
CONTROL = ControlFiles({"me": "mail.example.org\n", "forwarders": "# ours\n198.51.100.0/28\n2001:db8:7::25\n"})
STRANGER = {"client_ip": "203.0.113.9", "rcpt_to": "ben@example.com"}


def judged(sender: str | None, told: Any = ZONE, **values: object) -> tuple[list[str], list[str]]:
    "The commands as qmail-spp reads them, but for what is kept, and what was logged."
    logged: list[str] = []
    session = sample_session(**{**STRANGER, "mail_from": sender, **values})
    answerers: dict[type[Question[Any]], Any] = {Lookup: told, Prefetch: lambda _: None}
    answer = write(spfchecks(session, CONTROL, log=logged.append, answerers=answerers))
    assert len(read(answer)) == answer.count(b"\n")
    return [line for line in answer.decode("ascii").splitlines() if line[0] != "S"], logged


def reply(sender: str | None, told: Any = ZONE, **values: object) -> str:
    "How mail is refused, and nothing for mail that isn't."
    answer, logged = judged(sender, told, **values)
    refused = [line[1:] for line in answer if line[0] == "E"]
    assert bool(refused) == any(line.startswith("Rejecting on ") for line in logged)
    return refused[0] if refused else ""


# As the reference has it


@pytest.mark.parametrize("level", range(-1, 6))
@pytest.mark.parametrize(("place", "result"), list(enumerate(BOUNCED)))
def test_bounce_level(level: int, place: int, result: str) -> None:
    texts = {
        "fail": "550 SPF fail - not authorized",
        "softfail": "550 203.0.113.9 is perhaps none of ours",
        "temperror": "451 Message rejected by server",
    }
    said = reply(f"ana@{result}.example", BOUNCELEVEL=level, helo="none.example")
    assert said == (texts.get(result, "550 Message rejected by server") if place <= level else "")


@pytest.mark.parametrize("level", ["-2", "x", ""])
def test_a_bounce_level_of_no_use_refuses_nothing(level: str) -> None:
    answer, logged = judged("ana@fail.example", BOUNCELEVEL=level)
    assert [line[0] for line in answer] == ["H"] and logged[0].startswith(f"BOUNCELEVEL={level} should be ")


@pytest.mark.parametrize("level", ["6", "0.5", " 0", "+1"])
def test_a_bounce_level_with_a_slip_refuses_as_it_did_in_c(level: str) -> None:
    answer, logged = judged("ana@fail.example", BOUNCELEVEL=level)
    assert "E" in [line[0] for line in answer] and logged[0].startswith(f"BOUNCELEVEL={level} should be ")


COMMENTS = {
    "pass": "domain of pass.example designates 192.0.2.1 as permitted sender",
    "fail": "domain of fail.example does not designate 203.0.113.9 as permitted sender",
    "softfail": "transitioning domain of softfail.example does not designate 203.0.113.9 as permitted sender",
    "neutral": "203.0.113.9 is neither permitted nor denied by domain of neutral.example",
    "none": "203.0.113.9 is neither permitted nor denied by domain of none.example",
    "temperror": "temporary error in processing during lookup of temperror.example: TXT loop.example",
    "permerror": "permanent error in processing domain of permerror.example: Unknown mechanism found",
}


@pytest.mark.parametrize("result", COMMENTS)
def test_log_lines(result: str) -> None:
    "The comment is that of the header."
    client = {"client_ip": "192.0.2.1"} if result == "pass" else {}
    line = f"SPF_RESULT_{result.upper()}, mail.example.org: {COMMENTS[result]}"
    answer, logged = judged(f"ana@{result}.example", **client)
    assert logged[-1] == line if result == "pass" else logged[-1] == f"Accepting on {line}"
    assert f"(mail.example.org: {COMMENTS[result]})" in answer[0]
    if result != "pass":
        assert judged(f"ana@{result}.example", BOUNCELEVEL=5, SPFHELO=0)[1][-1] == f"Rejecting on {line}"


def test_a_temperror_is_logged_with_its_reason() -> None:
    assert judged("ana@temperror.example")[1][0] == "DNS TXT loop.example: a chain of CNAMEs without an end"


@pytest.mark.parametrize("sender", ["nobody", "ana@localhost", "ana@[192.0.2.1]", "@", "\udce9@\udce9"])
def test_no_comments_where_there_is_nothing_to_check(sender: str) -> None:
    assert judged(sender)[1] == ["Accepting on SPF_RESULT_NONE, No comments"]
    assert reply(sender, BOUNCELEVEL=3) == "550 Message rejected by server"


def test_authenticated_users_are_skipped() -> None:
    answer = judged("ana@fail.example", auth_user="ana", BOUNCELEVEL=5)
    assert answer == ([], ["No checks performed, because user is authenticated"])
    assert reply("ana@fail.example", auth_user="", BOUNCELEVEL=0)


def test_clients_that_may_relay_are_skipped_by_setting() -> None:
    answer = judged("ana@fail.example", relay_client="", BOUNCELEVEL=5)
    assert answer == ([], ["No checks performed, because client may relay"])
    assert reply("ana@fail.example", relay_client="", SPFSKIPRELAY=0, BOUNCELEVEL=0)


@pytest.mark.parametrize("values", [{"client_ip": None}, {"helo": ""}, {"helo": None}, {"client_ip": None, "helo": ""}])
@pytest.mark.parametrize("sender", ["", None])
def test_missing_information(values: dict[str, str | None], sender: str | None) -> None:
    assert judged(sender, **values) == ([], ["error, missing information."])


def test_a_bounce_is_checked_by_helo() -> None:
    assert reply("", helo="fail.example", BOUNCELEVEL=0) == "550 SPF fail - not authorized"
    answer, logged = judged("", helo="pass.example", client_ip="192.0.2.1", BOUNCELEVEL=0)
    assert logged == [f"SPF_RESULT_PASS, mail.example.org: {COMMENTS['pass']}"]
    assert 'envelope-from="postmaster@pass.example"' in answer[0]


def test_secondary_mx() -> None:
    secondary = {"client_ip": "198.51.100.20", "rcpt_to": "ben@example.org"}
    for level in (-1, 5):
        assert judged("ana@fail.example", **secondary, BOUNCELEVEL=level) == ([], ["accepted from secondary MX"])
    by_ipv6 = {**secondary, "client_ip": "2001:db8:ffff::20"}
    assert judged("ana@own.example", **by_ipv6, BOUNCELEVEL=0) == ([], ["accepted from secondary MX"])
    assert judged("ana@pass.example", **secondary)[1][0].startswith("SPF_RESULT_PASS, ")
    for other in ({"client_ip": "203.0.113.9"}, {"rcpt_to": "ben@example.com"}, {"rcpt_to": None}, {"rcpt_to": "postmaster"}):
        assert reply("ana@fail.example", **{**secondary, **other}, BOUNCELEVEL=0) == "550 SPF fail - not authorized"
    assert reply("ana@fail.example", **secondary, BOUNCELEVEL=0, SPFSTAGE="mail")  # the recipient is an old one


# Beyond that


def test_ipv6_clients() -> None:
    assert judged("ana@pass.example", client_ip="2001:db8::25")[1][0].startswith("SPF_RESULT_PASS, ")
    assert judged("ana@pass.example", client_ip="::ffff:192.0.2.1")[1][0].startswith("SPF_RESULT_PASS, ")
    assert reply("ana@pass.example", client_ip="2001:db9::25", BOUNCELEVEL=0) == "550 SPF fail - not authorized"


def test_received_spf() -> None:
    (header,), _ = judged("ana@pass.example", client_ip="192.0.2.1")
    assert header == (
        f"HReceived-SPF: Pass (mail.example.org: {COMMENTS['pass']}) client-ip=192.0.2.1; "
        'envelope-from="ana@pass.example"; helo=mail.example.net; receiver=mail.example.org; '
        'mechanism="ip4:192.0.2.0/24"; identity=mailfrom'
    )
    assert judged("ana@pass.example", SPFRECEIVED=0)[0] == []


def test_authentication_results() -> None:
    "RFC 8601, as a parser of somebody else's reads it."
    answer, _ = judged("ana@pass.example", client_ip="192.0.2.1", SPFAUTHRESULTS=1)
    assert [line.partition(":")[0] for line in answer] == ["HReceived-SPF", "HAuthentication-Results"]
    parsed = AuthenticationResultsHeader.parse(answer[1][1:])
    assert parsed.authserv_id == "mail.example.org"
    (result,) = parsed.results
    assert (result.method, result.result) == ("spf", "pass")
    assert [(each.type, each.name, each.value) for each in result.properties] == [("smtp", "mailfrom", "ana@pass.example")]
    (header,), _ = judged("ana@pass.example", SPFRECEIVED=0, SPFAUTHRESULTS=1, SPFAUTHSERVID="mx.example.com\nX: y")
    assert AuthenticationResultsHeader.parse(header[1:]).authserv_id.startswith("mx.example.com")


def test_no_header_for_mail_that_is_refused() -> None:
    "It would stand above the client's next message."
    assert [line[0] for line in judged("ana@fail.example", BOUNCELEVEL=0, SPFAUTHRESULTS=1)[0]] == ["E"]


def test_a_forged_helo_decides_before_the_sender_is_asked_about() -> None:
    asked: list[str] = []

    def tell(lookup: Lookup) -> Any:
        asked.append(lookup.name)
        return ZONE.answer(lookup)

    client = {"client_ip": "198.51.100.7", "helo": "fail.example", "rcpt_to": None}
    assert reply("ana@pass.example", tell, **client, BOUNCELEVEL=0) == "550 SPF fail - not authorized"
    assert asked == ["fail.example"]
    for level in (0, -1):
        assert reply("ana@pass.example", **client, BOUNCELEVEL=level, SPFHELO=0 if level == 0 else 1) == ""


@pytest.mark.parametrize("helo", ["softfail.example", "none.example", "temperror.example", "permerror.example", "x", "[1.2.3.4]"])
def test_only_a_fail_of_helo_counts(helo: str) -> None:
    answer, logged = judged("ana@pass.example", client_ip="192.0.2.1", helo=helo, BOUNCELEVEL=5)
    assert logged == [f"SPF_RESULT_PASS, mail.example.org: {COMMENTS['pass']}"] and "identity=mailfrom" in answer[0]


@pytest.mark.parametrize(
    ("result", "codes"),
    [
        ("fail", "550 5.7.23 SPF fail - not authorized"),
        ("softfail", "550 5.7.23 203.0.113.9 is perhaps none of ours"),
        ("neutral", "550 5.7.1 Message rejected by server"),
        ("none", "550 5.7.1 Message rejected by server"),
        ("temperror", "451 4.4.3 Message rejected by server"),
        ("permerror", "550 5.7.24 Message rejected by server"),
    ],
)
def test_registered_codes(result: str, codes: str) -> None:
    assert reply(f"ana@{result}.example", helo="x", BOUNCELEVEL=5, SPFRFCCODES=1) == codes


def test_own_forwarders() -> None:
    for ip in ("198.51.100.1", "198.51.100.15", "::ffff:198.51.100.1", "2001:db8:7::25"):
        passed = judged("ana@own.example", client_ip=ip, SPFFORWARDERS="forwarders", BOUNCELEVEL=5)
        assert passed == ([], ["accepted from own forwarder"])
    for ip in ("198.51.100.16", "2001:db8:7::26"):
        assert reply("ana@own.example", client_ip=ip, SPFFORWARDERS="forwarders", BOUNCELEVEL=0)
    answer, logged = judged("ana@own.example", client_ip="198.51.100.1", SPFFORWARDERS="missing", BOUNCELEVEL=0)
    assert answer[0].startswith("E550 ") and logged[0] == "error opening missing: no such file or directory"


def test_explanations() -> None:
    assert reply("ana@own.example", BOUNCELEVEL=0) == "550 Dear ana@own.example: 203.0.113.9 may not, see mail.example.org"
    assert reply("ana@fail.example", BOUNCELEVEL=0, SPFEXPLANATION="see https://example.org/?%{S}") == (
        "550 see https://example.org/?ana%40fail.example"
    )
    answer, logged = judged("ana@fail.example", BOUNCELEVEL=0, SPFEXPLANATION="%{")
    assert answer == ["E550 SPF fail - not authorized"] and logged[0].startswith("SPFEXPLANATION=%{ should be text, in which")


@pytest.mark.parametrize("domain", ["evil.example", "evil7.example", "blank.example", "long.example"])
def test_an_explanation_is_one_line_of_a_reply(domain: str) -> None:
    "Whatever a sender's DNS has: no second command, no second line of a reply, no control character."
    answer, logged = judged(f"ana@{domain}", BOUNCELEVEL=0)
    assert len(answer) == 1 and len(answer[0]) <= 511 and answer[0].isprintable() and answer[0].startswith("E550 ")
    assert len(answer[0].split()) > 1 and len(logged) == 1
    if domain.startswith("evil"):
        assert answer[0] == "E550 SPF fail - not authorized"  # no macro string has a control character: RFC 7208, 7.1


def test_a_refusal_is_one_line_whatever_it_is_given() -> None:
    for text in ("no\nA\r\n250 ok\nSMTPAUTHUSER=x\x1b[2J", "\n", "\0", "\udce9", "x" * 5000, ""):
        for rfc_codes in (False, True):
            written = write([spf_refusal("fail", text, rfc_codes)])
            assert written.startswith(b"E550 ") and written.count(b"\n") == 1 and written[:-1].decode("ascii").isprintable()


@given(st.text(st.characters(min_codepoint=1, max_codepoint=255), max_size=500), st.sampled_from("-~"))
def test_any_explanation(text: str, qualifier: str) -> None:
    zone = Zone({("x.example", "TXT"): [f"v=spf1 {qualifier}all exp=y.example"], ("y.example", "TXT"): [text]})
    assert reply("ana@x.example", zone, helo="x", BOUNCELEVEL=1).startswith("550 ")


# Once a message


@given(
    st.lists(st.integers(1, 4), min_size=1, max_size=6),
    st.sampled_from(["rcpt", "mail and rcpt", "told mail"]),
)
def test_one_header_a_message(messages: list[int], where: str) -> None:
    "In a connection of messages to so many recipients each."
    environ: dict[str, str] = {}
    shown: int | None = None

    def call(stage: str | None) -> bool:
        state = SpfchecksState(environ)
        begun, count, at_mail = message_place(stage, shown, state)
        recorded = 0 if begun else state.recorded
        environ.update(SPFCOUNT=str(count), SPFATMAIL=str(at_mail), SPFRECORDED="1")
        return not recorded

    for recipients in messages:
        written = 0
        if where != "rcpt":
            written += call("mail" if where == "told mail" else None)
        for number in range(1, recipients + 1):
            shown = number
            if where != "told mail":
                written += call(None)
        assert written == 1, (messages, where)


def headers(home: Home) -> list[str]:
    "The names of the fields above the message, those that we have written."
    return [line.partition(":")[0] for line in home.message().split("\n\n")[0].splitlines() if "SPF" in line or "spf=" in line]


def send(client: Client, sender: str, *recipients: str) -> list[str]:
    "One message; the replies to RCPT."
    client.say(f"MAIL FROM:<{sender}>")
    replies = [client.say(f"RCPT TO:<{recipient}>") for recipient in recipients]
    if "250 ok" in replies:
        assert client.say_message("Subject: Tea\n\nAt four?\n")[:3] == "250"
    return replies


TO = ["ana@example.org", "ben@example.org", "eva@example.org"]
SECTIONS = {
    "rcpt": ["[rcpt]", "plugins/spfchecks"],
    "both": ["[mail]", "plugins/spfchecks", "[rcpt]", "plugins/spfchecks"],
    "mail": ["[mail]", ":SPFSTAGE=mail plugins/spfchecks"],
    "told": ["[mail]", ":SPFSTAGE=mail plugins/spfchecks", "[rcpt]", ":SPFSTAGE=rcpt plugins/spfchecks"],
}


@pytest.mark.parametrize("where", SECTIONS)
def test_one_header_a_message_behind_a_server(home: Home, serve: Serve, where: str) -> None:
    home.plugins(*SECTIONS[where])
    with DnsServer(ZONE) as dns:
        server = serve("--deliver", DELIVER, DNSSERVERS=f"127.0.0.1#{dns.port}")
        with server.client() as client:
            client.ehlo()
            for recipients in (TO, TO[:1], TO[:1], TO[:2], TO):
                assert set(send(client, "ana@pass.example", *recipients)) == {"250 ok"}
                assert headers(home) == ["Received-SPF"]
            for line in ("MAIL FROM:<ana@pass.example>", f"RCPT TO:<{TO[0]}>", f"RCPT TO:<{TO[1]}>", "RSET"):
                assert client.say(line)[:3] == "250"
            assert send(client, "ana@pass.example", *TO) == ["250 ok"] * 3
            assert headers(home) == ["Received-SPF"]
        assert all(": pid " in line and "SPF_RESULT_PASS" in line for line in server.said())


def test_the_header_comes_with_the_first_recipient_that_is_accepted(home: Home, serve: Serve) -> None:
    home.plugins("[rcpt]", "plugins/spfchecks")
    home.write(rcpthosts="example.org\nexample.com\n")
    with DnsServer(ZONE) as dns:
        server = serve("--deliver", DELIVER, DNSSERVERS=f"127.0.0.1#{dns.port}", BOUNCELEVEL="0")
        with server.client() as client:
            client.ehlo()
            refused, accepted = send(client, "ana@own.example", "ben@example.com", TO[0])
        assert refused == "550 Dear ana@own.example: 127.0.0.1 may not, see mail.example.org" and accepted == "250 ok"
        assert headers(home) == []  # it came by way of the secondary MX
        with server.client() as client:
            client.ehlo()
            replies = send(client, "ana@pass.example", "ben@example.net", TO[0], TO[1])
            assert [each[:3] for each in replies] == ["553", "250", "250"]
        assert headers(home) == ["Received-SPF"]


# Over a nameserver, whole and broken


def session(server: Server, sender: str, recipient: str = "ben@example.com") -> tuple[str, list[str]]:
    "The reply to RCPT, and the plugin's messages."
    said = server.talk("EHLO x", f"MAIL FROM:<{sender}>", f"RCPT TO:<{recipient}>")[-1]
    return said, [line.removeprefix("spfchecks: pid PID - ") for line in server.said()]


@pytest.fixture
def at_rcpt(home: Home) -> Home:
    home.plugins("[rcpt]", "plugins/spfchecks")
    home.write(rcpthosts="example.org\nexample.com\n")
    return home


def test_behind_a_server(at_rcpt: Home, serve: Serve) -> None:
    with DnsServer(ZONE) as dns:
        server = serve(DNSSERVERS=f"127.0.0.1#{dns.port}", BOUNCELEVEL="4")
        assert session(server, "ana@pass.example")[0] == "250 ok"
        refused = session(server, "ana@fail.example")
        comment = "mail.example.org: domain of fail.example does not designate 127.0.0.1 as permitted sender"
        assert refused == ("550 SPF fail - not authorized", [f"Rejecting on SPF_RESULT_FAIL, {comment}"])
        assert session(server, "ana@fail.example", "ben@example.org") == ("250 ok", ["accepted from secondary MX"])
        assert session(server, "ana@temperror.example")[0] == "451 Message rejected by server"
        assert session(server, "ana@none.example")[0] == "550 Message rejected by server"
        evil, logged = session(server, "ana@evil7.example")
        assert evil == "550 SPF fail - not authorized" and len(logged) == 1
        replies = server.transcript("HELO x", "MAIL FROM:<a@evil7.example>", *["RCPT TO:<ben@example.com>"] * 2)
        assert replies[3:5] == [evil, evil]  # the checks go on


@pytest.mark.parametrize("fault", ["drop", "late", "wrong id", "wrong answer", "servfail", "refused", "endless", "garbage"])
def test_bad_nameservers(at_rcpt: Home, serve: Serve, fault: str) -> None:
    "No answer, or none that can be used, is a temporary error, within the time that a check has."
    with DnsServer(ZONE, fault=fault) as dns:
        environ = {"DNSSERVERS": f"127.0.0.1#{dns.port}", "SPFTIMEOUT": "1"}
        for level, expected in (("3", "250 ok"), ("4", "451 Message rejected by server")):
            said, logged = session(serve(**environ, BOUNCELEVEL=level), "ana@pass.example")
            word = "Accepting" if level == "3" else "Rejecting"
            error = "mail.example.org: temporary error in processing during lookup of pass.example: TXT pass.example"
            assert said == expected and logged[-1] == f"{word} on SPF_RESULT_TEMPERROR, {error}"
            assert len(logged) == 2 and logged[0].startswith("DNS")


def test_one_deadline_for_all_lookups(at_rcpt: Home, serve: Serve) -> None:
    "A policy of ten terms whose every name is silent takes no longer than one."
    terms = " ".join(f"a:a{number}.example" for number in range(10))
    zone = Zone({("many.example", "TXT"): [f"v=spf1 {terms} -all"]})
    with DnsServer(zone, faults={f"a{number}.example": "drop" for number in range(10)}) as dns:
        server = serve(DNSSERVERS=f"127.0.0.1#{dns.port}", SPFTIMEOUT="1", BOUNCELEVEL="4")
        said, logged = session(server, "ana@many.example")
        assert said == "451 Message rejected by server" and len(logged) == 2


def test_nxdomain_isnt_servfail(at_rcpt: Home, serve: Serve) -> None:
    with DnsServer(ZONE, faults={"broken.example": "servfail"}) as dns:
        server = serve(DNSSERVERS=f"127.0.0.1#{dns.port}", BOUNCELEVEL="4")
        assert session(server, "ana@broken.example")[0] == "451 Message rejected by server"
        assert session(server, "ana@nothing.example")[0] == "550 Message rejected by server"
        assert session(serve(DNSSERVERS=f"127.0.0.1#{dns.port}", BOUNCELEVEL="2"), "ana@nothing.example")[0] == "250 ok"


@pytest.mark.parametrize(("last", "expected"), [("ip4:127.0.0.1", "250 ok"), ("nonsense", "550 Message rejected by server")])
def test_a_record_of_60_kilobytes(at_rcpt: Home, serve: Serve, last: str, expected: str) -> None:
    record = "v=spf1 " + "ip4:192.0.2.0/24 " * 3500 + last + " -all"
    with DnsServer(Zone({("big.example", "TXT"): [record]})) as dns:
        assert len(record) > 59_000
        said, logged = session(serve(DNSSERVERS=f"127.0.0.1#{dns.port}", BOUNCELEVEL="5"), "ana@big.example")
        assert said == expected and len(logged) == 1 and len(logged[0]) < 1000


@pytest.mark.parametrize(
    "sender",
    [
        "\udce9" * 300 + "@own.example",
        "'; DROP TABLE mail; --@own.example",
        '"a b\\"@c"@own.example',
        "a" * 880 + "@own.example",
        "%{s}@own.example",
    ],
)
def test_odd_senders(at_rcpt: Home, serve: Serve, sender: str) -> None:
    "One reply of one line, and one line in the log, printable."
    with DnsServer(ZONE) as dns:
        server = serve(DNSSERVERS=f"127.0.0.1#{dns.port}", BOUNCELEVEL="0")
        replies = server.transcript("HELO x", f"MAIL FROM:<{sender}>", "RCPT TO:<ben@example.com>")
        assert len(replies) == 5 and replies[3][:4] in ("550 ", "503 ") and len(replies[3]) <= 510 and replies[3].isprintable()
        logged = server.said()
        assert len(logged) == (1 if replies[3][:3] == "550" else 0) and all(line.isprintable() for line in logged)


def test_without_a_name_of_our_own(at_rcpt: Home, serve: Serve) -> None:
    unreadable: Any = ControlFiles({"me": b"\0"})
    logged: list[str] = []
    session = sample_session(mail_from="ana@pass.example")
    (*_, header) = spfchecks(session, unreadable, logged.append, {Lookup: ZONE, Prefetch: ZONE})
    assert header.text.startswith("Received-SPF: Pass (unknown: domain of ") and logged[0] == "error opening me: isn't text"


# Whoever answers


@pytest.mark.parametrize("why", [Broken("b"), Late("l"), Refused("r"), Nobody("n")])
def test_whatever_keeps_an_answer_away_is_temporary(why: Unanswered) -> None:
    assert reply("ana@pass.example", lambda _: why, BOUNCELEVEL=4) == "451 Message rejected by server"
    assert judged("ana@pass.example", lambda _: why)[1][-1].startswith("Accepting on SPF_RESULT_TEMPERROR, ")


def test_nobody_needs_to_ask_ahead() -> None:
    "A check goes on if nobody takes what it will ask soon."
    zone = Zone({("x.example", "TXT"): ["v=spf1 a:y.example -all"], ("y.example", "A"): ["192.0.2.1"]})
    several: list[dict[type[Question[Any]], Any]] = [{Lookup: zone}, {Lookup: zone, Prefetch: lambda _: Late("too late")}]
    for answerers in several:
        logged: list[str] = []
        spfchecks(sample_session(mail_from="ana@x.example"), CONTROL, logged.append, answerers)
        assert logged[-1].startswith("SPF_RESULT_PASS, ")


class Hanging(Answerer):
    "Never comes back."

    async def aanswer(self, question: Any, until: float) -> Any:
        await asyncio.Event().wait()


@pytest.mark.parametrize("hanging", [Lookup, Prefetch])
def test_an_answerer_that_never_comes_back_is_temporary(hanging: type[Question[Any]]) -> None:
    zone = Zone({("x.example", "TXT"): ["v=spf1 include:y.example -all"], ("y.example", "TXT"): ["v=spf1 -all"]})
    answerers = Answerers(known={Lookup: zone, Prefetch: zone, hanging: Hanging(None, print)}, only_known=True)
    logged: list[str] = []
    session = sample_session(**STRANGER, mail_from="ana@x.example", BOUNCELEVEL=4, SPFTIMEOUT=1, SPFHELO=0)
    answer = asyncio.run(spfchecks.adecide(session, CONTROL, logged.append, answerers))
    assert answer[-1] == Refuse(451, None, "Message rejected by server")
    assert logged[-1].startswith("Rejecting on SPF_RESULT_TEMPERROR, ")


# Tried


def tried(home: Home, zone: Path, *options: str) -> tuple[int, dict[str, Any]]:
    "The exit status of `ra-plugins try`, and what it tells."
    line = ["try", "--json", "--control", str(home.control), "--zone", str(zone), "--helo", "x", "--to", "ben@example.com"]
    done = subprocess.run([*COMMAND, *line, *options], env=ENVIRON, capture_output=True, text=True, timeout=PATIENCE)
    return done.returncode, json.loads(done.stdout)


def test_tried_over_a_zone_file(at_rcpt: Home, tmp_path: Path) -> None:
    "Accepted, refused, refused for now, as the exit status says; for an IPv6 client, too."
    (tmp_path / "zone").write_text(RECORDS)
    level = ["--set", "BOUNCELEVEL=4"]
    for ip in ("192.0.2.1", "2001:db8::1"):
        for status, domain in enumerate(["pass.example", "own.example", "temperror.example"]):
            found, told = tried(at_rcpt, tmp_path / "zone", "--ip", ip, "--from", f"ana@{domain}", *level)
            assert found == status and (len(told["headers"]) == 1) == (status == 0)
            questions = [each["question"] for each in told["steps"][3]["plugins"][0]["asked"]]
            assert f"Lookup('{domain}', 'TXT')" in questions


# The kinds of commands


def test_what_is_kept_is_what_has_changed() -> None:
    first = spfchecks(sample_session(mail_from="ana@pass.example"), CONTROL, print, {Lookup: ZONE})
    assert first[:2] == [SetVariable("SPFCOUNT", 1), SetVariable("SPFRECORDED", 1)] and isinstance(first[2], AddHeader)
    again = sample_session(mail_from="ana@pass.example", rcpt_count_all=2, SPFCOUNT=1, SPFRECORDED=1)
    assert spfchecks(again, CONTROL, print, {Lookup: ZONE}) == [SetVariable("SPFCOUNT", 2)]
    refused = spfchecks(sample_session(mail_from="ana@own.example", BOUNCELEVEL=0), CONTROL, print, {Lookup: ZONE})
    assert isinstance(refused[-1], Refuse)


def test_the_result_is_that_of_the_library() -> None:
    from ra_plugins.ask.question import drive

    for domain in ("pass", "fail", "softfail", "neutral", "none", "temperror", "permerror"):
        query = Query("203.0.113.9", f"ana@{domain}.example", "x", "mail.example.org")
        found = drive(check_identity(query), ZONE)
        assert f"SPF_RESULT_{found.result.upper()}, " in judged(f"ana@{domain}.example")[1][-1]


@pytest.mark.parametrize(
    ("ip", "settings", "result"),
    [
        ("203.0.113.9", {}, "PERMERROR"),
        ("203.0.113.9", {"SPFVOIDIPV4": 0}, "FAIL"),
        ("203.0.113.9", {"SPFVOIDIPV6": 0}, "PERMERROR"),
        ("2001:db8:9::1", {"SPFVOIDIPV6": 0}, "FAIL"),
        ("2001:db8:9::1", {"SPFVOIDIPV4": 0}, "PERMERROR"),
        ("203.0.113.9", {"SPFVOIDLIMIT": 3}, "FAIL"),
        ("203.0.113.9", {"SPFVOIDLIMIT": "many"}, "PERMERROR"),
    ],
)
def test_what_counts_as_void(ip: str, settings: dict[str, object], result: str) -> None:
    "Three hosts that aren't there are one too many, unless somebody has said otherwise."
    zone = zone_from_text('void.example. TXT "v=spf1 a:a.void.example a:b.void.example a:c.void.example -all"\n')
    _, logged = judged("ana@void.example", zone, client_ip=ip, **settings)
    assert f"SPF_RESULT_{result}" in logged[-1]
