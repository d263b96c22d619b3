"""A milter, asked by a real Postfix: the process, its socket, and what a client gets to see and a recipient gets.

What Postfix does with replies and changes is MILTER_README's; smtp-sink, which comes with it, keeps what it delivers.
"""

from __future__ import annotations

import os
import shutil
import signal
import smtplib
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Self

import pytest
from mailserver import COMMAND, ENVIRON, PATIENCE, until
from postfix_server import Postfix, a_folder, greets
from servers import free_port
from service_process import remove

SETTINGS = {  # of main.cf, with the milter and what keeps the messages
    "relay_transport": "smtp:[127.0.0.1]:{sink}",
    "smtpd_relay_restrictions": "permit_auth_destination, reject",
    "smtputf8_enable": "no",
    "smtpd_hard_error_limit": "100",
    "smtpd_soft_error_limit": "100",
    "smtpd_milters": "{milter}",
    "milter_default_action": "tempfail",
    "milter_command_timeout": "8s",
}
PLUGINS = """
import asyncio, os
from ra_plugins.ask.answerer import Answerer
from ra_plugins.ask.question import Question
from ra_plugins.spp.command import (
    AddHeader, ChangeAddress, Delay, Disconnect, Later, Refuse, Say, SetVariable
)
from ra_plugins.spp.plugin import plugin

HERE = os.path.dirname(os.path.abspath(__file__))


@plugin("connection", answers=(Refuse, SetVariable))
def door(session, log):
    "Some may not."
    log(f"{session.client_ip} {session.client_host} port {session.client_port}")
    if session.client_ip and str(session.client_ip) == "192.0.2.66":
        return Refuse(554, "5.7.1", "not you")


@plugin("mail", answers=(AddHeader, SetVariable, Later, ChangeAddress))
def greet(session, log):
    "Count messages of a connection."
    log(f"helo {session.helo} user {session.auth_user} by {session.auth_method} relays {session.relay_client is not None}")
    number = int(session.environ.get("NUMBER", 0)) + 1
    answer = [SetVariable("NUMBER", number), AddHeader(f"X-Number: {number}"), AddHeader("X-Second: ja, gr\u00fcn")]
    if session.mail_from == "later@example.net":
        answer.append(Later("data", Refuse(452, "4.3.1", "at DATA, 100%")))
    if session.mail_from == "old@example.net":
        answer.append(ChangeAddress("new@example.net"))
    return answer


@plugin("rcpt", seconds=60)
def judge(session):
    "Do what the recipient says."
    word = session.rcpt_to.partition("@")[0]
    if word == "no":
        return Refuse(550, "5.1.1", f"100% no, number {session.rcpt_count_all} behind {session.rcpt_count}")
    if word == "busy":
        return Disconnect(451, "4.3.2", "busy")
    if word == "listed":
        return Disconnect(553, "5.7.1", "listed")
    if word == "wait":
        return Delay(12)
    if word == "fail":
        return 1 / 0


@plugin("rcpt", answers=(Say,))
def talker(session):
    "Talk."
"""
SECTIONS = "[connection]\ndoor\n[mail]\ngreet\n[rcpt]\nplusaliases\njudge\n"
CONTROL = {"milterplugins": SECTIONS, "rcpthosts": "example.net\n"}


@pytest.fixture
def home() -> Iterator[Path]:
    "A folder that Postfix's user may pass through, for a Postfix of our own."
    if not find_spec("milter"):
        pytest.skip("pymilter isn't installed")
    folder = a_folder()
    (folder / "run").mkdir()
    yield folder
    remove(folder)


class Milter:
    "`ra-plugins milter` as a process."

    def __init__(self, folder: Path, place: str, *options: str):
        self.log, control = folder / "log", folder / "control"
        control.mkdir(exist_ok=True)
        for name, text in CONTROL.items():
            (control / name).write_text(text)
        (folder / "plugs.py").write_text(PLUGINS)
        user = ["--user", "root"] if os.geteuid() == 0 and "--user" not in options else []
        words = [*COMMAND, "milter", place, "--plugins", str(folder / "plugs.py"), *user, *options]
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(words, env={**ENVIRON, "CONTROLDIR": str(control)}, stderr=log)

    def __enter__(self) -> Milter:
        until(lambda: "ready on" in self.said() or self.process.poll() is not None, "it is ready")
        assert self.process.poll() is None, self.said()
        return self

    def __exit__(self, *error: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(PATIENCE)

    def said(self) -> str:
        return self.log.read_text("utf-8", "replace")


class Delivering(Postfix):
    "A Postfix that delivers to smtp-sink, which keeps each message in a file."

    def __init__(self, folder: Path, milter: str):
        self.sink, self.delivered = free_port(), folder / "delivered"
        named = {"sink": self.sink, "milter": milter}
        super().__init__(folder, {name: value.format(**named) for name, value in SETTINGS.items()})

    def __enter__(self) -> Self:
        self.delivered.mkdir()
        shutil.chown(self.delivered, "postfix")
        words = ["smtp-sink", "-u", "postfix", "-d", f"{self.delivered}/%M.", f"127.0.0.1:{self.sink}", "100"]
        self.sinking = subprocess.Popen(words, stderr=subprocess.DEVNULL)
        try:
            until(lambda: greets(self.sink), "smtp-sink greets")
            return super().__enter__()
        except BaseException:
            self._end_sink()
            raise

    def __exit__(self, *error: object) -> None:
        super().__exit__(*error)
        self._end_sink()

    def _end_sink(self) -> None:
        self.sinking.terminate()
        self.sinking.wait(PATIENCE)

    def messages(self, number: int) -> dict[str, list[str]]:
        "The lines of what was delivered, by subject, as soon as there are so many."

        def ended() -> list[list[str]]:
            texts = [path.read_text("utf-8") for path in self.delivered.iterdir()]
            return [text.splitlines() for text in texts if "the end" in text]

        until(lambda: len(ended()) >= number, f"{number} messages are delivered")
        return {next(line[9:] for line in each if line.startswith("Subject: ")): each for each in ended()}


@contextmanager
def asked(home: Path, *options: str, tcp: bool = False) -> Iterator[tuple[Milter, Delivering]]:
    "A milter, and a Postfix that asks it."
    place = f"inet:127.0.0.1:{free_port()}" if tcp else f"unix:{home}/run/milter"
    with Milter(home, place, *options) as milter, Delivering(home, place) as postfix:
        yield milter, postfix


def smtp(postfix: Postfix, helo: str = "client.example.org") -> smtplib.SMTP:
    client = smtplib.SMTP("127.0.0.1", postfix.port, timeout=PATIENCE)
    client.ehlo(helo)
    return client


def send(
    client: smtplib.SMTP, subject: str, *recipients: str, sender: str = "ana@example.net"
) -> list[tuple[int, str]]:
    "The replies at each RCPT, and to the message."
    replies = [client.mail(sender), *(client.rcpt(f"{each}@example.net") for each in recipients)]
    if any(code == 250 for code, _ in replies[1:]):
        try:
            replies.append(client.data(f"Subject: {subject}\n\nthe end\n".encode()))
        except smtplib.SMTPDataError as refused:
            replies.append((refused.smtp_code, bytes(refused.smtp_error)))  # type: ignore[arg-type]
    return [(code, said.decode()) for code, said in replies[1:]]


def recipients(message: list[str]) -> list[str]:
    "Whom smtp-sink was told."
    return sorted(line.split("<")[1].split(">")[0] for line in message if line.startswith("X-Rcpt-Args: "))


def test_what_plugins_say_becomes_of_mail_as_under_qmail(home: Path) -> None:
    with asked(home) as (milter, postfix):
        with smtp(postfix) as client:
            assert send(client, "one", "ben+tea", "no", "eva") == [
                (250, "2.1.5 Ok"),
                (550, "5.1.1 100% no, number 2 behind 1"),
                (250, "2.1.5 Ok"),
                send_ok(250),
            ]
            send(client, "two", "dora", "fail", sender="old@example.net")
        messages = postfix.messages(2)
        assert recipients(messages["one"]) == ["ben@example.net", "eva@example.net"]
        assert recipients(messages["two"]) == ["dora@example.net", "fail@example.net"]
        assert any(line.startswith("X-Mail-Args: <new@example.net>") for line in messages["two"])
        fields = [
            line for line in messages["one"] if line.startswith(("X-Number", "X-Second", "Received: from client"))
        ]
        assert fields[:2] == ["X-Number: 1", "X-Second: ja, grün"] and fields[2].startswith("Received: from client")
        assert "X-Number: 2" in messages["two"]
        assert "judge: pid" in milter.said() and "ZeroDivisionError" in milter.said()
        assert "refused at rcpt: 550 5.1.1 100% no" in milter.said() and "to <no@example.net>" in milter.said()


class send_ok(tuple[int, str]):  # noqa: N801, SLOT001
    "Any yes to a message."

    def __new__(cls, code: int) -> send_ok:
        return super().__new__(cls, (code, ""))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, tuple) and other[0] == self[0]

    __hash__ = tuple.__hash__


def test_what_belongs_to_a_message_that_was_given_up_is_in_no_other(home: Path) -> None:
    with asked(home) as (_, postfix):
        with smtp(postfix) as client:
            client.mail("later@example.net")
            client.rcpt("gone+x@example.net")
            client.rset()
            send(client, "kept", "ben")
        message = postfix.messages(1)["kept"]
        assert recipients(message) == ["ben@example.net"] and message.count("X-Number: 2") == 1
        assert "X-Number: 1" not in message


def test_a_refusal_put_off_comes_at_its_stage(home: Path) -> None:
    with asked(home) as (_, postfix), smtp(postfix) as client:
        assert send(client, "x", "ben", sender="later@example.net") == [(250, "2.1.5 Ok"), (452, "4.3.1 at DATA, 100%")]
        client.rset()
        assert [code for code, _ in send(client, "y", "ben")] == [250, 250]


@pytest.mark.parametrize(("word", "reply"), [("busy", (421, b"4.3.2 busy")), ("listed", (521, b"5.7.1 listed"))])
def test_a_client_is_disconnected(home: Path, word: str, reply: tuple[int, bytes]) -> None:
    with asked(home) as (_, postfix):
        client = smtp(postfix)
        client.mail("ana@example.net")
        assert client.rcpt(f"{word}@example.net") == reply
        with pytest.raises(smtplib.SMTPServerDisconnected):
            client.noop()


def test_who_may_not_connect_is_refused_whatever_he_says(home: Path) -> None:
    with asked(home) as (milter, postfix):
        client = smtplib.SMTP("127.0.0.1", postfix.port, timeout=PATIENCE)
        client.ehlo("x.example.net")
        assert client.docmd("XCLIENT ADDR=192.0.2.66 NAME=bad.example.net PORT=4711")[0] == 220
        client.docmd("HELO x.example.net")  # Postfix may say yes to that, and refuse what comes
        assert client.docmd("MAIL FROM:<ana@example.net>") == (554, b"5.7.1 not you")
        assert "door: pid" in milter.said() and "192.0.2.66 bad.example.net port" in milter.said()
        client.close()


def test_a_user_who_has_logged_in_is_told_to_plugins(home: Path) -> None:
    with asked(home) as (milter, postfix), smtp(postfix) as client:
        assert client.docmd("XCLIENT ADDR=192.0.2.7 NAME=mail.example.net LOGIN=ana")[0] == 220
        client.ehlo("mail.example.net")
        assert [code for code, _ in send(client, "x", "ben")] == [250, 250]
        assert "helo mail.example.net user ana by" in milter.said() and "relays True" in milter.said()


def test_a_wait_longer_than_postfix_has_patience(home: Path) -> None:
    with asked(home) as (_, postfix), smtp(postfix) as client:
        assert send(client, "x", "wait")[0] == (250, "2.1.5 Ok")  # 12 seconds, and milter_command_timeout is 8


def test_bytes_that_are_no_text_open_no_way_past_it(home: Path) -> None:
    with asked(home) as (milter, postfix):
        client = smtplib.SMTP("127.0.0.1", postfix.port, timeout=PATIENCE)
        for helo in (b"\xff.example.org", b"a..b", b"x" * 300):
            for sender in (b"<ana@example.net>", b"<\xff@example.net>", b"<>", b"<a@example.net> ENVID=a=b"):
                for line in (b"EHLO " + helo, b"MAIL FROM:" + sender, b"RCPT TO:<no@example.net>"):
                    client.send(line + b"\r\n")
                    code, said = client.getreply()
                assert code == 550 and b"5.1.1 100% no" in said, (helo, sender, code, said)
        assert milter.said().count("UnicodeDecodeError") == 1 and "Traceback" not in milter.said()
        client.close()


def test_over_tcp_and_as_another_user(home: Path) -> None:
    with asked(home, "--user", "nobody", tcp=True) as (milter, postfix):
        with smtp(postfix) as client:
            assert [code for code, _ in send(client, "x", "ben", "no")] == [250, 550, 250]
        assert (Path("/proc") / str(milter.process.pid)).stat().st_uid != 0


def test_at_the_end_what_was_asked_is_answered(home: Path) -> None:
    with asked(home) as (milter, postfix), smtp(postfix) as client:
        client.mail("ana@example.net")
        client.putcmd("rcpt", "TO:<wait@example.net>")
        until(lambda: "helo client" in milter.said(), "MAIL was heard")
        milter.process.send_signal(signal.SIGTERM)
        code, _ = client.getreply()
        assert code in (250, 451) and milter.process.wait(PATIENCE) == 0
        assert not (home / "run" / "milter").exists()


def test_what_a_milter_cannot_do_ends_the_start(tmp_path: Path) -> None:
    (tmp_path / "plugs.py").write_text(PLUGINS)
    (tmp_path / "milterplugins").write_text("[rcpt]\ntalker\n")
    user = ["--user", "root"] if os.geteuid() == 0 else []
    for words in (["--check"], [f"unix:{tmp_path}/socket", *user]):
        command = [*COMMAND, "milter", *words, "--plugins", str(tmp_path / "plugs.py")]
        done = subprocess.run(command, env={**ENVIRON, "CONTROLDIR": str(tmp_path)}, capture_output=True, text=True)
        if not find_spec("milter") and words != ["--check"]:
            assert "pip install 'ra-plugins[milter]'" in done.stderr
            continue
        assert done.returncode == 3 and "line 2: talker may talk to the client before the reply" in done.stderr


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_root_does_not_stay_root_unsaid(tmp_path: Path) -> None:
    "As for the service, and for Postfix's."
    (tmp_path / "milterplugins").write_text("")
    command = [*COMMAND, "milter", f"unix:{tmp_path}/socket"]
    done = subprocess.run(command, env={**ENVIRON, "CONTROLDIR": str(tmp_path)}, capture_output=True, text=True)
    assert done.returncode == 3 and "--user NAME says whom to run as, --user root that root is meant" in done.stderr


def test_a_check_looks_at_what_stands_beside_the_file(tmp_path: Path) -> None:
    "Settings that make no sense, with their line; plugins that can't be loaded; a user who isn't there."
    (tmp_path / "milterplugins").write_text("[rcpt]\nspfchecks\n")
    (tmp_path / "settings").write_text("# ours\nBOUNCELEVEL=foo\nSPFTIMEOUT=-1\nRAEXEMPT=spfcheck\n")
    for options, told in (
        (["--settings", "settings"], "settings, line 2: BOUNCELEVEL=foo should be a whole number from -1 to 5; mend it"),
        (["--settings", "settings"], "settings, line 3: SPFTIMEOUT=-1 should be a whole number from 1 to 60; mend it"),
        (["--settings", "settings"], "settings, line 4: RAEXEMPT names spfcheck, and there is no such plugin; mend it"),
        (["--plugins", "nofile.py"], "nofile.py can't be loaded: No such file or directory"),
        (["--user", "nosuchuser"], "there is no user nosuchuser"),
    ):
        command = [*COMMAND, "milter", "--check", *options]
        environ = {**ENVIRON, "CONTROLDIR": str(tmp_path)}
        done = subprocess.run(command, env=environ, cwd=tmp_path, capture_output=True, text=True, timeout=PATIENCE)
        assert (done.returncode, done.stdout) == (3, "") and told in done.stderr, done


@pytest.mark.parametrize("words", [["--check", "--workers", "2"], ["mail=inet:127.0.0.1:10040"]])
def test_a_place_has_no_name(words: list[str]) -> None:
    "There are no chains as Postfix's policy service has them, and nobody is told of any."
    done = subprocess.run([*COMMAND, "milter", *words], capture_output=True, text=True, timeout=PATIENCE)
    assert (done.returncode, done.stdout) == (3, "")
    told = f"argument PLACE: '{words[-1]}' should be unix:/PATH or inet:HOST:PORT, as in main.cf"
    assert done.stderr == f"ra-plugins milter: {told}\n"


def test_it_logs_by_its_own_name_and_tells_settings_that_make_no_sense(home: Path) -> None:
    (home / "settings").write_text("SPFTIMEOUT=-1\n")
    with Milter(home, f"unix:{home}/run/milter", "--settings", str(home / "settings")) as milter:
        said = milter.said()
    wrong = f"ra-plugins milter: {home}/settings, line 1: SPFTIMEOUT=-1 should be a whole number from 1 to 60; mend it"
    assert wrong in said and f"ra-plugins milter: a milter, ready on unix:{home}/run/milter" in said
    assert "ra-plugins service" not in said
