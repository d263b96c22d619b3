"greylist as an SMTP client meets it, and what becomes of mail when DNS is silent, the file is gone or somebody is hostile."

from __future__ import annotations

import asyncio
import re
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mailserver import DELIVER, Home, Server

from ra_plugins.ask.answerer import Answerer, Answerers
from ra_plugins.ask.dns import Lookup, Prefetch, Zone
from ra_plugins.ask.question import Broken, Late, Nobody
from ra_plugins.ask.seen import Seen, Sighting
from ra_plugins.plugins import greylist as module
from ra_plugins.plugins.greylist import folded, greylist
from ra_plugins.smtpd.trial import Trial
from ra_plugins.spp.command import Command, Later, Refuse
from ra_plugins.spp.session import sample_session
from ra_plugins.support.control import Control, ControlFiles

Serve = Callable[..., Server]

HELLO, MAIL, BOUNCE, BEN = "EHLO x", "MAIL FROM:<ana@example.net>", "MAIL FROM:<>", "RCPT TO:<ben@example.org>"
WAIT = "451 Greylisted, please come back in 300 seconds (#4.7.1)"
REFUSAL = Refuse(451, "4.7.1", "Greylisted, please come back in 300 seconds")
TRIPLET = "(127.0.0.0/24, ana@example.net to ben@example.org)"
MESSAGE = "Subject: Tea\n\nAt four?\n"


def first(question: Seen) -> Sighting:
    return Sighting("first", 0, 300)


def later(path: Path, seconds: int) -> None:
    "Let time pass: all that is kept was kept so much earlier."
    with closing(sqlite3.connect(path)) as database, database:
        database.execute("UPDATE entries SET at = at - ?, counted = counted - ?", (seconds, seconds))


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return tmp_path / "greylist.db"


@pytest.fixture
def server(home: Home, serve: Serve, store: Path) -> Iterator[Server]:
    home.plugins("[rcpt]", "plugins/greylist")
    yield serve("--deliver", DELIVER, GREYLISTSTORE=str(store))


def logged(server: Server) -> list[str]:
    return [line.removeprefix("greylist: pid PID - ") for line in server.said()]


# Behind a server


def seconds(line: str, before: str) -> int:
    "The number behind these words."
    found = re.search(rf"{before} (\d+) s", line)
    assert found, line
    return int(found[1])


def test_a_mail_server_gets_in_when_it_comes_back(home: Home, server: Server, store: Path) -> None:
    assert server.talk(HELLO, MAIL, BEN)[2] == WAIT
    assert logged(server) == [f"first seen, come back in 300 s {TRIPLET}"]
    later(store, 100)
    assert 100 < seconds(server.talk(HELLO, MAIL, BEN)[2], "451 Greylisted, please come back in") <= 200
    (line,) = logged(server)
    assert 100 < seconds(line, "too early,") <= 200 and line.endswith(f" s left {TRIPLET}")
    later(store, 200)
    with server.client() as client:
        assert [client.say(line)[:3] for line in (HELLO, MAIL, BEN)] == ["250"] * 3
        assert client.say_message(MESSAGE)[:3] == "250"
    (line,) = logged(server)
    assert 300 <= seconds(line, "passed after") < 400 and line.endswith(TRIPLET)
    assert home.message().endswith("At four?\n")
    later(store, 30 * 86400)
    assert server.talk(HELLO, MAIL, BEN)[2][:3] == "250"
    (line,) = logged(server)
    assert seconds(line, "known, last seen") >= 30 * 86400


def test_who_comes_back_after_the_window_is_a_stranger_again(server: Server, store: Path) -> None:
    server.talk(HELLO, MAIL, BEN)
    later(store, 2 * 86400)
    assert server.talk(HELLO, MAIL, BEN)[2] == WAIT
    assert logged(server) == [f"first seen, come back in 300 s {TRIPLET}"] * 2


def test_a_callback_is_answered_at_once_and_a_bounce_comes_back(home: Home, server: Server, store: Path) -> None:
    "Another server that asks whether there is a Ben says RCPT and leaves: it never hears of greylisting."
    for _ in range(3):
        assert server.talk(HELLO, BOUNCE, BEN, "RSET")[2:] == ["250 ok", "250 flushed"]
    with server.client() as client:
        assert [client.say(line)[:3] for line in (HELLO, BOUNCE, BEN)] == ["250"] * 3
        assert client.say("DATA").startswith("451 Greylisted, please come back in ")
        assert client.say("RSET")[:3] == "250"
        later(store, 301)
        assert [client.say(line)[:3] for line in (BOUNCE, BEN)] == ["250"] * 2
        assert client.say_message(MESSAGE)[:3] == "250"
    assert [line.partition(" ")[0] for line in logged(server)] == ["first", "too", "too", "too", "passed"]
    assert home.message().endswith("At four?\n")


def test_a_put_off_bounce_does_not_hold_up_the_next_message(server: Server, store: Path) -> None:
    server.talk(HELLO, MAIL, BEN)
    later(store, 301)
    with server.client() as client:
        assert [client.say(line)[:3] for line in (HELLO, BOUNCE, BEN, "DATA", "RSET")] == ["250", "250", "250", "451", "250"]
        assert [client.say(line)[:3] for line in (MAIL, BEN)] == ["250"] * 2
        assert client.say_message(MESSAGE)[:3] == "250"
    assert len(logged(server)) == 3


def test_a_recipient_that_is_not_ours_is_not_remembered(server: Server, store: Path) -> None:
    assert server.talk(HELLO, MAIL, "RCPT TO:<ben@example.com>")[2][:3] == "553"
    assert server.said() == [] and not store.exists()


def test_a_client_that_may_relay_or_has_logged_in_does_not_wait(home: Home, serve: Serve, store: Path) -> None:
    home.plugins("[rcpt]", "plugins/greylist")
    server = serve(GREYLISTSTORE=str(store), RELAYCLIENT="")
    assert server.talk(HELLO, MAIL, BEN)[2][:3] == "250"
    assert logged(server) == ["No checks performed, because client may relay"]
    server = serve("--like", "gentoo", "--users", home.users(ana="secret"), GREYLISTSTORE=str(store))
    with server.client() as client:
        client.ehlo()
        client.login("ana", "secret")
        assert [client.say(line)[:3] for line in (MAIL, BEN)] == ["250"] * 2
    assert logged(server) == ["No checks performed, because user is authenticated"]
    server = serve(GREYLISTSTORE=str(store), RELAYCLIENT="", GREYLISTSKIPRELAY="0")
    assert server.talk(HELLO, MAIL, BEN)[2] == WAIT


@pytest.mark.parametrize("place", ["/nowhere/greylist.db", "/", "unix:///nowhere/redis", "redis://:secret@192.0.2.1:port"])
def test_nobody_waits_where_nobody_remembers(home: Home, serve: Serve, place: str) -> None:
    home.plugins("[rcpt]", "plugins/greylist")
    server = serve(GREYLISTSTORE=place)
    assert server.talk(HELLO, MAIL, BEN)[2][:3] == "250"
    (line,) = logged(server)
    assert line.startswith("nobody remembers, so nobody has to come back: ") and "secret" not in line


def test_only_observed(home: Home, serve: Serve, store: Path) -> None:
    home.plugins("[rcpt]", "plugins/greylist")
    server = serve(GREYLISTSTORE=str(store), GREYLISTOBSERVE="1")
    assert server.talk(HELLO, MAIL, BEN, BOUNCE, BEN)[2][:3] == "250"
    assert all(line.startswith("only observed: first seen, ") for line in logged(server))


def test_a_dry_run_remembers_nothing(home: Home, store: Path) -> None:
    home.plugins("[rcpt]", "plugins/greylist")
    for _ in range(2):
        trial = Trial(Control(str(home.control)), {"TCPREMOTEIP": "192.0.2.1", "GREYLISTSTORE": str(store)})
        asyncio.run(trial.hold("x", "ana@example.net", ["ben@example.org"]))
        assert trial.notes.steps[-1].replies[-1] == WAIT
        assert not store.exists()


# By itself


def decided(answerers: Any = None, control: Control | None = None, **values: Any) -> tuple[list[Command], list[str]]:
    lines: list[str] = []
    answer = greylist(sample_session(**values), control, lines.append, answerers or {Seen: first}, now=1000)
    return answer, lines


@pytest.mark.parametrize(
    ("name", "entry", "values"),
    [
        ("greylistclients", "192.0.2.1", {}),
        ("greylistclients", "192.0.2.0/24", {}),
        ("greylistclients", "192.0.2.0/29", {"client_ip": "::ffff:192.0.2.7"}),
        ("greylistclients", "2001:db8::/32", {"client_ip": "2001:db8:1::25"}),
        ("greylistclients", "2001:db8::25", {"client_ip": "2001:0db8::0025"}),
        ("greylistsenders", "Ana@example.net", {}),
        ("greylistsenders", "@EXAMPLE.net", {}),
        ("greylistsenders", "ana@", {}),
        ("greylistsenders", "<>", {"mail_from": ""}),
        ("greylistrecipients", "ben@example.org", {}),
        ("greylistrecipients", "postmaster@", {"rcpt_to": "Postmaster@example.org"}),
        ("greylistrecipients", "postmaster", {"rcpt_to": "postmaster"}),
    ],
)
def test_who_is_listed_does_not_wait(name: str, entry: str, values: dict[str, Any]) -> None:
    answer, lines = decided(control=ControlFiles({name: f"# ours\n{entry}\r\n"}), **values)
    assert answer == [] and len(lines) == 1 and lines[0].startswith(f"listed {name[8:-1]} (")


@pytest.mark.parametrize("entry", ["192.0.2.2", "192.0.2.0/32", "@example.com", "example.net", "na@example.net", "<>", ""])
def test_who_is_not_listed_waits(entry: str) -> None:
    files = ControlFiles({f"greylist{name}": f"{entry}\n" for name in ("clients", "senders", "recipients")})
    assert decided(control=files)[0] == [REFUSAL]


def test_a_list_that_cannot_be_read_is_told_and_lists_nobody() -> None:
    files = ControlFiles({f"greylist{name}": b"a\0b" for name in ("clients", "senders", "recipients")})
    answer, lines = decided(control=files)
    assert answer == [REFUSAL] and [line.partition(":")[0] for line in lines[:3]] == [
        "error opening greylistclients",
        "error opening greylistsenders",
        "error opening greylistrecipients",
    ]


ZONE = Zone(
    {
        ("example.net", "TXT"): ["v=spf1 ip4:192.0.2.0/24 -all"],
        ("example.com", "TXT"): ["v=spf1 include:loop.example.com -all"],
        ("loop.example.com", "TXT"): ["v=spf1 include:loop.example.com -all"],
        ("mail.example.net", "TXT"): ["v=spf1 a -all"],
        ("mail.example.net", "A"): ["192.0.2.1"],
        ("example.org", "MX"): [(10, "mail.example.org"), (20, "backup.example.net")],
        ("mail.example.org", "A"): ["198.51.100.25"],
        ("backup.example.net", "A"): ["192.0.2.1"],
    }
)
ASKING = {Seen: first, Lookup: ZONE, Prefetch: ZONE}


@pytest.mark.parametrize(
    ("waits", "values"),
    [
        (False, {"GREYLISTSPF": 1}),
        (False, {"GREYLISTSPF": 1, "mail_from": ""}),  # by HELO
        (True, {"GREYLISTSPF": 1, "client_ip": "203.0.113.1"}),
        (True, {"GREYLISTSPF": 1, "mail_from": "eva@example.com"}),  # a permerror
        (True, {"GREYLISTSPF": 1, "mail_from": "eva@nowhere.example"}),
        (False, {"GREYLISTMX": 1, "mail_from": "eva@nowhere.example"}),
        (True, {"GREYLISTMX": 1, "client_ip": "203.0.113.1"}),
        (False, {"GREYLISTMX": 1, "GREYLISTSPF": 1, "client_ip": "198.51.100.25"}),
        (True, {}),
    ],
)
def test_who_is_vouched_for_in_dns_does_not_wait(waits: bool, values: dict[str, Any]) -> None:
    answer, lines = decided(ASKING, **values)
    assert bool(answer) is waits and len(lines) == 1
    assert lines[0].startswith("first seen" if waits else ("SPF pass for ", "accepted from secondary MX"))


def test_who_is_known_costs_no_lookup() -> None:
    def asked(question: object) -> None:
        raise AssertionError(question)

    known = {Seen: lambda question: Sighting("known", 5, 0), Lookup: asked, Prefetch: asked}
    assert decided(known, GREYLISTSPF=1, GREYLISTMX=1)[0] == []


class Hanging(Answerer):
    async def aanswer(self, question: object, until: float) -> None:
        await asyncio.sleep(3600)


def test_dns_that_hangs_costs_its_seconds_and_exempts_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "DNS_SECONDS", 0.1)
    lines: list[str] = []
    hanging = Hanging(None, print)
    answerers = Answerers(known={Seen: first, Lookup: hanging, Prefetch: hanging}, only_known=True)
    session = sample_session(GREYLISTSPF=1, GREYLISTMX=1)
    assert asyncio.run(greylist.adecide(session, log=lines.append, answerers=answerers, now=1000)) == [REFUSAL]
    assert len(lines) == 1 and lines[0].startswith("first seen")


@pytest.mark.parametrize("why", [Late("no answer before the deadline"), Broken("disk full"), Nobody("nobody here")])
def test_mail_goes_on_where_nobody_answers(why: Exception) -> None:
    assert decided({Seen: lambda question: why}) == ([], [f"nobody remembers, so nobody has to come back: {why}"])


def test_settings_that_nobody_could_fulfil_are_told(store: Path) -> None:
    with Answerers({"GREYLISTSTORE": str(store)}) as answerers:
        answer, (line,) = decided(answerers, GREYLISTDELAY=86400, GREYLISTWINDOW=3600)
    assert answer == [] and line.endswith("nobody could come back after 86400 s and within 3600 s")


def test_five_successes_of_a_network_and_it_is_proven(store: Path) -> None:
    with Answerers({"GREYLISTSTORE": str(store)}) as answerers:

        def tried(number: int, now: int, **values: object) -> list[Command]:
            session = sample_session(mail_from=f"ana{number}x@example.net", client_ip=f"192.0.2.{number}", **values)
            return greylist(session, log=lambda line: None, answerers=answerers, now=now)

        for number in range(1, 6):
            assert tried(number, 10_000 * number) == [REFUSAL]
            assert tried(number, 10_000 * number + 300) == []
        assert tried(7, 60_000) == []
        assert tried(8, 60_000, GREYLISTPROVEN=0) == tried(8, 60_000, GREYLISTPROVEN=6) != []


@given(st.text(max_size=300), st.text(max_size=300))
def test_whatever_the_addresses_are_there_is_one_line_and_an_answer(sender: str, recipient: str) -> None:
    answer, lines = decided(mail_from=sender, rcpt_to=recipient)
    assert len(lines) == 1
    assert answer == [REFUSAL if sender else Later("data", REFUSAL)]


@pytest.mark.parametrize(
    ("monday", "tuesday"),
    [
        ("prvs=0891a9abd5=ana@example.net", "ana@example.net"),  # draft-levine-smtp-batv-01, and as indimail-mta signs
        ("prvs=0891a9abd5=ana@example.net", "prvs=0902b0bce6=Ana@example.net"),
        ("PRVS=0891a9abd5=ana@example.net", "prvs=ana=0902b0bce6@example.net"),  # the other way round
        ("prvs=ana/0891a9abd5@example.net", "ana@example.net"),
        ("btv1==0891a9abd5==ana@example.net", "btv1==0902b0bce6==ana@example.net"),  # Barracuda's
        ("msprvs1=19d2xvkqg3xmz=bounces-7-1@example.net", "msprvs1=19d3abcdefghi=bounces-8-1@example.net"),  # SparkPost's
        ("prvs=0891a9abd5=news-return-7-ben=example.org@example.net", "news-return-8-ben=example.org@example.net"),
        ("SRS0=x9Zk=4T=example.com=ana@example.net", "SRS0=yb3Q=4U=example.com=ana@example.net"),
        ("SRS0+x9Zk=4T=example.com=ana@example.net", "SRS0=yb3Q=4U=example.com=ana@example.net"),
        (
            "SRS1=aB=example.org==x9Zk=4T=example.com=ana@example.net",
            "SRS1=cD=example.org==yb3Q=4U=example.com=ana@example.net",
        ),
    ],
)
def test_a_sender_who_signs_is_the_same_on_the_next_day(monday: str, tuesday: str) -> None:
    def asked(sender: str, **values: Any) -> Seen:
        questions: list[Seen] = []

        def known(question: Seen) -> Sighting:
            questions.append(question)
            return first(question)

        decided({Seen: known}, mail_from=sender, **values)
        return questions[0]

    assert asked(monday).keys == asked(tuesday).keys
    assert asked(monday, GREYLISTVERP=0).keys != asked(tuesday, GREYLISTVERP=0).keys


@pytest.mark.parametrize(
    ("sender", "other"),
    [
        ("prvs=0891a9abd5=ana@example.net", "prvs=0891a9abd5=ben@example.net"),
        ("SRS0=x9Zk=4T=example.com=ana@example.net", "SRS0=x9Zk=4T=example.com=ben@example.net"),
        ("SRS0=x9Zk=4T=example.com=ana@example.net", "SRS0=x9Zk=4T=example.org=ana@example.net"),
        ("SRS1=aB=example.org==x9Zk=4T=example.com=ana@x", "SRS1=aB=example.net==x9Zk=4T=example.com=ana@x"),
        ("prvs=@example.net", "prvs@example.net"),
        ("srs0=a=b@example.net", "srs0=c=d@example.net"),
    ],
)
def test_two_who_sign_are_two(sender: str, other: str) -> None:
    assert folded(sender) != folded(other)


FORWARDED = "srs0=#=#=example.net=ana@example.com"


@pytest.mark.parametrize(
    ("sender", "same"),
    [  # of one message and of one some days later: hash and day of SRS differ, and so does the tag inside
        ("SRS0=x9zk=4t=example.net=prvs=0123abcdef=ana@example.com", FORWARDED),
        ("SRS0=Qw7p=5A=example.net=prvs=0456fedcba=ana@example.com", FORWARDED),
        ("SRS0=x9zk=4t=example.net=prvs=ana=0123abcdef@example.com", FORWARDED),
        ("SRS0=x9zk=4t=example.net=prvs=ana/0456fedcba@example.com", FORWARDED),
        ("SRS0+x9zk=4t=example.net=btv1==0123abcdef==ana@example.com", FORWARDED),
        ("SRS0=x9zk=4t=example.net=ana@example.com", FORWARDED),
        ("prvs=0456fedcba=SRS0=x9zk=4t=example.net=prvs=0123abcdef=ana@example.com", FORWARDED),
        (
            "SRS1=ab12=example.org==x9zk=4t=example.net=prvs=0123abcdef=ana@example.com",
            "srs1=#=example.org==#=#=example.net=ana@example.com",
        ),
    ],
)
def test_a_signature_inside_a_forwarded_sender_is_left_out(sender: str, same: str) -> None:
    assert folded(sender) == same


def test_who_signs_and_is_forwarded_is_known_the_next_day(store: Path) -> None:
    "By BATV (draft-levine-smtp-batv-01), and then by SRS."
    answerers = Answerers({"GREYLISTSTORE": str(store)})
    today, tomorrow = "x9zk=4t=example.net=prvs=0123abcdef", "Qw7p=5A=example.net=prvs=0124fedcba"
    answers = [
        greylist(sample_session(mail_from=f"SRS0={signed}=ana@example.com"), answerers=answerers, now=now, log=print)
        for now, signed in ((0, today), (400, today), (86400, tomorrow))
    ]
    answerers.close()
    assert answers == [[REFUSAL], [], []]


SIGNED = st.lists(st.sampled_from([*"=/+@a", "==", "prvs", "btv1", "srs0", "srs1", "1abcdef9"]), max_size=20).map("".join)


@given(st.text("ab19_-+=@.é٣", max_size=30) | SIGNED)
def test_folding_is_done_once_and_for_all_and_keeps_the_domain(sender: str) -> None:
    once = folded(sender)
    assert folded(once) == once or "@" not in sender
    assert once.rpartition("@")[2] == sender.lower().rpartition("@")[2] or "@" not in sender
