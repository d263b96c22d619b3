"""A session for each plugin, as an administrator sees one: what is set, who comes, and who answers in DNS's or rater's place.

The site holds these sessions as it is built (administrator.py), so what a page shows of replies and log lines is what the
plugins say.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from io import BytesIO
from typing import Any

from cdblib import Writer

from ra_plugins.ask.block import Block
from ra_plugins.ask.callout import Callout, CalloutReply, KeepReply, LastReply
from ra_plugins.ask.dns import Lookup, Prefetch
from ra_plugins.ask.mailbox import NOT_FOUND, MailboxFound, VpopmailMailbox
from ra_plugins.ask.rate import Rate
from ra_plugins.ask.seen import Seen, Sighting
from ra_plugins.ask.zonefile import zone_from_text
from ra_plugins.rater.client import Answer


@dataclass(frozen=True)
class Sample:
    "A session: what is special about the server, and what the client says."

    story: str  # what happens, in a sentence
    settings: Mapping[str, str] = field(default_factory=dict)  # that are set
    matters: tuple[str, ...] = ()  # settings that matter and may stay as they are by default
    files: Mapping[str, str] = field(default_factory=dict)  # lists among the control files, by name
    typed: tuple[str, ...] = ()  # how other files come there
    there: Mapping[str, bytes] = field(default_factory=dict)  # files that are there, and aren't written by hand
    stage: str = ""  # the section below which the plugin stands, if it isn't the first that it declares
    ip: str = "192.0.2.1"
    helo: str = "mail.example.net"
    sender: str = "eva@example.net"
    recipients: tuple[str, ...] = ("ben@example.org",)
    user: str = ""  # who logs in
    environ: Mapping[str, str] = field(default_factory=dict)  # what tcpserver's rules set for this client
    answers: Mapping[Any, Callable[[Any], Any]] = field(default_factory=dict)  # by class of question


def cdb(*keys: str) -> bytes:
    "A constant database of these keys."
    file = BytesIO()
    with Writer(file) as writer:
        for key in keys:
            writer.put(key.encode(), b"")
    return file.getvalue()


def answered_by(zone: str) -> dict[Any, Callable[[Any], Any]]:
    "DNS, from the text of a zone."
    found = zone_from_text(zone)
    return {Lookup: found, Prefetch: lambda question: None}


def mailboxes(**fill: int) -> dict[Any, Callable[[Any], Any]]:
    "vpopmail, with these users at example.org, each with the per cent of its quota that is used."

    def answer(question: Any) -> MailboxFound:
        known = question.domain == "example.org" and question.local in fill
        return MailboxFound(True, False, fill[question.local]) if known else NOT_FOUND

    return {VpopmailMailbox: answer}


OVER = {Rate: lambda question: Answer(1, "101/100"), Block: lambda question: True}
LISTED = {"addresslist": "ana@example.org\nben@example.org\n"}
SAMPLES = {
    "access": Sample(
        "A client comes from a domain that has a line in the file.",
        matters=("ACCESSFILE",),
        files={
            "access": "exempt from rblchecks, greylist  client 203.0.113.0/24\n"
            "refuse  sender @offers.example.com  say we have told you\n"
        },
        sender="joe@offers.example.com",
    ),
    "authlogger": Sample("Ana logs in.", user="ana@example.org"),
    "checkback": Sample(
        "The server that takes mail for example.net doesn't know the sender.",
        matters=("CHECKBACK_TIMEOUT",),
        files={"cbwldom": "example.com\n"},
        sender="ref-88213@example.net",
        answers={
            **answered_by("example.net. MX 10 mx.example.net.\nmx.example.net. A 192.0.2.26\n"),
            Callout: lambda question: CalloutReply("RCPT TO", 550, ""),
            LastReply: lambda question: None,
            KeepReply: lambda question: None,
        },
    ),
    "dotblind": Sample(
        "There is benmiller@example.org, and nobody is called ben.miller.",
        {"CHKUSER_SOURCE": "list"},
        files={"addresslist": "benmiller@example.org\n"},
        recipients=("ben.miller@example.org",),
    ),
    "greylist": Sample(
        "A stranger comes for the first time.",
        {"GREYLISTDELAY": "60"},
        answers={Seen: lambda question: Sighting("first", 0, question.terms.delay)},
    ),
    "ipthrottle": Sample(
        "A client has come more often than rater lets it.", {"IPSVDIR": "/etc/qmail/peers"}, answers=OVER
    ),
    "localmail": Sample(
        "Ana is on the list, and writes to somebody outside.",
        matters=("LOCALMAILCONF",),
        files={"localonly": "ana@example.org\n"},
        sender="ana@example.org",
        recipients=("eva@example.net",),
        user="ana@example.org",
        environ={"RELAYCLIENT": ""},
    ),
    "mfdnschecks": Sample(
        "There is no domain example.invalid.",
        {"MFDNSRFCCODES": "1"},
        sender="eva@example.invalid",
        answers=answered_by("example.net. MX 10 mx.example.net.\n"),
    ),
    "msa": Sample("A client hands in a message, and hasn't logged in.", {"MSACODE": "530"}),
    "overload": Sample("A stranger comes while the flag is up.", matters=("OVERLOADFILE",), there={"overloaded": b""}),
    "ownsender": Sample(
        "A stranger writes as the boss.",
        {"OWNSENDERSTRANGERS": "1"},
        files={"ownsenders": "ben@example.org: sales@example.org\n"},
        sender="boss@example.org",
    ),
    "plusaliases": Sample(
        "Ben has ben@example.org, and has told a shop something longer.",
        {"CHKUSER_SOURCE": "list"},
        files=LISTED,
        recipients=("ben+shop@example.org",),
    ),
    "rater": Sample(
        "The sender's domain has sent as many messages as it may.",
        {"RATERCLASS": "domain", "RATERVALUE": "{sender_domain}"},
        stage="mail",
        answers=OVER,
    ),
    "rblchecks": Sample(
        "A list has the client's address.",
        {"RBLSERVERS": "bl.example.net"},
        answers=answered_by(
            '1.2.0.192.bl.example.net. A 127.0.0.2\n1.2.0.192.bl.example.net. TXT "Spam, see bl.example.net"\n'
        ),
    ),
    "rcptchecks": Sample(
        "There is no Bob, and Ben's mailbox is full.",
        matters=("CHKUSER_SOURCE",),
        recipients=("bob@example.org", "ben@example.org"),
        answers=mailboxes(ana=20, ben=100),
    ),
    "rcptcheckscdb": Sample(
        "There is no Bob.",
        matters=("CHKUSER_ADDRFILE",),
        typed=("cd /var/qmail/control", "tr -d '\\r' < addresses | tr A-Z a-z | cdb -c -m addresslist"),
        there={"addresslist": cdb("ana@example.org", "ben@example.org")},
        recipients=("bob@example.org",),
    ),
    "rcptchecksfile": Sample(
        "There is no Bob.", matters=("CHKUSER_ADDRFILE",), files=LISTED, recipients=("bob@example.org",)
    ),
    "rdnschecks": Sample(
        "A computer behind a dial-up line calls itself by our name.",
        {"RDNSTHRESHOLD": "5"},
        ip="192.0.2.77",
        helo="mail.example.org",
        answers=answered_by(
            "77.2.0.192.in-addr.arpa. PTR dsl-192-0-2-77.pool.example.net.\n"
            "dsl-192-0-2-77.pool.example.net. A 192.0.2.77\n"
        ),
    ),
    "senderchecks": Sample(
        "Somebody writes as Bob, and there is no Bob.",
        matters=("SENDERCHK_SOURCE",),
        sender="bob@example.org",
        answers=mailboxes(ana=20, ben=100),
    ),
    "senderchecksfile": Sample(
        "Somebody writes as Bob, and there is no Bob.",
        matters=("SENDERCHK_ADDRFILE",),
        files=LISTED,
        sender="bob@example.org",
    ),
    "spfchecks": Sample(
        "example.net says who sends its mail, and this client isn't among them.",
        {"BOUNCELEVEL": "0"},
        answers=answered_by('example.net. TXT "v=spf1 ip4:203.0.113.0/24 -all"\n'),
    ),
    "tarpit": Sample(
        "A message names one recipient after the other.",
        {"TARPITCOUNT": "20", "TARPITDELAY": "N"},
        recipients=tuple(f"user{number}@example.org" for number in range(1, 22)),
    ),
    "userthrottle": Sample(
        "Ana has written more in this hour than rater lets her.",
        matters=("RATER",),
        sender="ana@example.org",
        recipients=("eva@example.net",),
        user="ana@example.org",
        environ={"RELAYCLIENT": ""},
        answers=OVER,
    ),
}
