"""Postfix asks: the service as a process, its sockets, and all that a connection can bring.

Answers are those of SMTPD_POLICY_README and access(5); Debian's Postfix does with them what they say.
"""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from mailserver import COMMAND, ENVIRON, PATIENCE, until
from postfix_server import GATE, Asking, PolicySockets, request
from service_process import remove, short_folder

SMTPDS = 200  # at once
PLUGINS = (
    GATE
    + """
from ra_plugins.spp.command import AddHeader, ChangeAddress, Delay, Later, Refuse, SetVariable
from ra_plugins.spp.plugin import State, plugin
from ra_plugins.support.environment import Environment, number, text, variable


class Settings(Environment):
    word = variable("WORD", text, "nothing", "A word.")


@plugin("connection", answers=(AddHeader,))
def looker(session, log):
    "Look once."
    log(f"looked at {session.client_ip}, who said {session.helo}")
    return [AddHeader("X-Looked: yes"), AddHeader("X-Looked: twice")]


@plugin("rcpt", asks=(Gate,), seconds=60)
async def patient(session):
    "Wait for the gate, if the recipient says so."
    if session.rcpt_to.startswith("wait"):
        return Refuse(550, "5.7.1", f"{await Gate()} for {session.rcpt_to}")


@plugin("rcpt", settings=Settings, answers=(Refuse, Later, SetVariable))
def judge(session, settings):
    "Do what the recipient says."
    word, count = session.rcpt_to.partition("@")[0], session.rcpt_count_all
    if word == "refuse":
        return Refuse(553, "5.7.1", f"{settings.word} {session.rcpt_count} of {count}")
    if word == "defer":
        return Refuse(451, "4.7.1", "come again")
    if word == "later":
        return Later("data", Refuse(452, "4.5.3", "at the end"))
    if word == "set":
        return SetVariable("WORD_SET", "yes")
    if word == "get":
        return Refuse(550, "5.7.1", f"set: {session.environ.get('WORD_SET', 'no')}")
    if word == "fail":
        return 1 / 0


@plugin("rcpt")
def dies(session):
    "End the process."
    if session.rcpt_to.startswith("kill"):
        os._exit(3)


@plugin("rcpt", answers=(ChangeAddress,))
def changes(session):
    "Change an address."
    return ChangeAddress("other@example.org")
"""
)
CHAINS = "[client]\nlooker\n[rcpt]\npatient\njudge\nWORD=sorry\ndies\n[data]\n[other:data]\n[other:rcpt]\njudge\nWORD=other\n"


class Policies(PolicySockets):
    "The service with both kinds of sockets for Postfix."

    def __init__(self, folder: Path, *options: str, chains: str = CHAINS, alone: bool = False):
        (folder / "policies.py").write_text(PLUGINS)
        places = [f"unix:{folder}/policy", "inet:127.0.0.1:0", f"other=unix:{folder}/other"]
        files = [folder / "policies.py"]
        words = [word for place in places for word in ("--postfix", place)]
        super().__init__(folder, *words, *options, files=files, control={"postfixplugins": chains})
        if alone:
            user = ["--user", "root"] if os.geteuid() == 0 else []
            self.command = [*COMMAND, "postfix", *places, *user, "--plugins", str(files[0]), *options]


@pytest.fixture(scope="module")
def running() -> Iterator[Policies]:
    folder = short_folder()
    with Policies(folder) as service:
        yield service
    assert not (folder / "policy").exists()
    remove(folder)


@pytest.fixture
def folder() -> Iterator[Path]:
    made = short_folder()
    yield made
    remove(made)


def instance(number: list[int] = [0]) -> str:  # noqa: B006
    "One that hasn't been yet."
    number[0] += 1
    return f"123.{number[0]}.0"


@pytest.mark.parametrize("kind", ["unix", "inet"])
def test_many_requests_on_one_connection(running: Policies, kind: str) -> None:
    with Asking(getattr(running, kind)) as smtpd:
        answers = smtpd.ask("refuse", "defer", "ben", "carl", "dora", instance=instance())
    assert answers == [
        "553 5.7.1 sorry 0 of 1",
        "451 4.7.1 come again",
        "PREPEND X-Looked: yes",
        "PREPEND X-Looked: twice",
        "DUNNO",
    ]
    said = [line for line in running.lines() if f"123.{instance.__defaults__[0][0]}.0" in line]  # type: ignore[index]
    assert [line.partition(" [")[0] for line in said] == [
        "judge: pid 291 - refused at rcpt: 553 5.7.1 sorry 0 of 1",
        "judge: pid 291 - refused at rcpt: 451 4.7.1 come again",
    ]
    assert "192.0.2.1, from <ana@example.net>, to <refuse@example.org>, queue_id 8045F2AB23" in said[0]


def test_alone(folder: Path) -> None:
    service = Policies(folder, alone=True)
    service.start()
    with Asking(service.unix) as one, Asking(service.inet) as other:
        assert one.ask("refuse") == ["553 5.7.1 sorry 0 of 1"]
        assert other.ask("ben", "refuse")[1] == "553 5.7.1 sorry 1 of 3"
    assert not (folder / "socket").exists()
    assert service.end() == 0 and not (folder / "policy").exists()


def test_the_service_answers_the_small_client_too(running: Policies) -> None:
    assert running.answers()


def test_a_chain_by_socket_and_by_policy_context(running: Policies) -> None:
    with Asking(str(running.folder / "other")) as smtpd:
        assert smtpd.ask("refuse", instance=instance()) == ["553 5.7.1 other 0 of 1"]
    with Asking(running.unix) as smtpd:
        assert smtpd.ask("refuse", instance=instance(), policy_context="other") == ["553 5.7.1 other 0 of 1"]


def test_what_is_kept_is_kept_for_one_message(running: Policies) -> None:
    "S and L, over connections and beside another message."
    one, two = instance(), instance()
    with Asking(running.unix) as smtpd, Asking(running.inet) as other:
        smtpd.ask("set", "later", instance=one)
        assert other.ask("get", instance=two) == ["550 5.7.1 set: no"]
        assert other.ask("get", instance=one) == ["550 5.7.1 set: yes"]
        ending = {"protocol_state": "DATA", "recipient_count": "2"}
        assert other.ask("", instance=two, **ending)[0].startswith("PREPEND")
        assert smtpd.ask("", instance=one, **ending) == ["452 4.5.3 at the end"]
        assert smtpd.ask("", instance=one, **ending | {"protocol_state": "END-OF-MESSAGE"}) == ["452 4.5.3 at the end"]


def test_the_client_is_looked_at_once_a_message(running: Policies) -> None:
    said = f"looked at 192.0.2.1, who said {instance()}.example.net"
    name = said.rpartition(" ")[2]
    with Asking(running.unix) as smtpd:
        smtpd.ask("ben", "carl", "dora", instance=instance(), helo_name=name)
    assert sum(said in line for line in running.lines()) == 1


def test_a_plugin_that_fails_lets_the_mail_through(running: Policies) -> None:
    with Asking(running.unix) as smtpd:
        assert smtpd.ask("fail", "refuse", instance=instance())[1].startswith("553")
    assert any(
        line.startswith("judge: pid 291 - failed, so the mail goes on: ZeroDivision") for line in running.lines()
    )


def test_many_smtpds_at_once(running: Policies) -> None:
    "All wait for one answer, and each gets its own; nobody waits for those that wait."
    arrived, opened = running.folder / "arrived", running.folder / "open"
    smtpds = [Asking(running.inet if number % 2 else running.unix) for number in range(SMTPDS)]
    for number, smtpd in enumerate(smtpds):
        smtpd.send(request(f"wait{number}", instance=instance()))
    until(lambda: arrived.exists() and arrived.stat().st_size == SMTPDS, "all of them wait")
    with Asking(running.unix) as quick:
        assert quick.ask("refuse", instance=instance()) == ["553 5.7.1 sorry 0 of 1"]
    opened.touch()
    for number, smtpd in enumerate(smtpds):
        assert smtpd.answer() == f"550 5.7.1 open for wait{number}@example.org"
        smtpd.__exit__()
    arrived.unlink()
    opened.unlink()


@pytest.mark.parametrize(
    "sent",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        b"sender=" + b"x" * 1_000_000,
        request(more=b"sender=eve@example.com\n"),
        request(more=b"=x\n"),
        request(more=b"a=\0\n"),
        request(more=b"".join(b"a%d=\n" % number for number in range(1000))),
        b"\n\n",
        request(request="junk"),
    ],
    ids=["http", "megabyte", "twice", "nameless", "zero", "thousand", "empty", "other"],
)
def test_what_is_no_request_gets_no_answer(sent: bytes, running: Policies) -> None:
    with Asking(running.unix) as neighbour, Asking(running.inet) as stranger:
        with suppress(ConnectionError):  # closed already
            stranger.send(sent)
        assert stranger.answer() == ""
        assert neighbour.ask("defer", instance=instance()) == ["451 4.7.1 come again"]
    assert any("Postfix is left without an answer" in line for line in running.lines())


def test_why_a_request_is_none_is_logged(folder: Path) -> None:
    with Policies(folder) as service:
        with Asking(service.unix) as stranger:
            stranger.send(request("defer") + request(more=b"sender=eve@example.com\n"))
            assert [stranger.answer(), stranger.answer()] == ["451 4.7.1 come again", ""]
        with Asking(service.unix) as stranger:
            stranger.send(request()[:-20])
        until(lambda: "a request without its end, so" in service.log.read_text(), "it is in the log")
        told = "no request, so Postfix is left without an answer, and the client has to come again: an attribute is there twice"
        assert told in service.log.read_text()


def test_a_request_that_comes_in_bits(running: Policies) -> None:
    with Asking(running.inet) as smtpd:
        for byte in request("refuse", instance=instance()):
            smtpd.send(bytes([byte]))
        assert smtpd.answer() == "553 5.7.1 sorry 0 of 1"


def test_unknown_eight_bit_and_line_ends(running: Policies) -> None:
    "What a client says can't become an attribute, a line of the log or a part of the answer."
    helo = "caf\udce9\r\x1b[31m.example"
    with Asking(running.unix) as smtpd:
        smtpd.send(
            request("refuse", b"new_in_postfix_9=\xff\nccert_subject=a=b\n", instance=instance(), helo_name=helo)
        )
        assert smtpd.answer() == "553 5.7.1 sorry 0 of 1"
    (line,) = [line for line in running.lines() if "who said caf" in line]
    assert line.endswith(r"who said caf\xe9\x0d\x1b[31m.example")


def test_other_states_have_no_say(running: Policies) -> None:
    with Asking(running.unix) as smtpd:
        for state in ("VRFY", "ETRN", "UNHEARD-OF"):
            assert smtpd.ask("refuse", protocol_state=state, instance=instance()) == ["DUNNO"]


def test_an_end_in_the_middle_of_a_request(folder: Path) -> None:
    "What is asked is answered; a connection on which nothing is asked is closed, and Postfix asks elsewhere."
    service = Policies(folder)
    service.start()
    with Asking(service.unix) as busy, Asking(service.inet) as idle, Asking(service.inet) as half:
        idle.ask("ben")
        half.send(request()[:50])
        busy.send(request("wait"))
        until((folder / "arrived").exists, "the plugin has begun")
        os.kill(service.pid, signal.SIGTERM)
        assert idle.answer() == "" and half.answer() == ""
        (folder / "open").touch()
        assert [busy.answer(), busy.answer()] == ["550 5.7.1 open for wait@example.org", ""]
    assert service.end() == 0 and not (folder / "policy").exists()


def test_a_worker_that_dies_in_the_middle_of_a_request(folder: Path) -> None:
    "Postfix is told nothing, and its second try finds another worker."
    with Policies(folder) as service:
        with Asking(service.unix) as smtpd:
            smtpd.send(request("kill"))
            assert smtpd.answer() == ""
        with Asking(service.unix) as smtpd:
            assert smtpd.ask("defer") == ["451 4.7.1 come again"]


def test_an_answer_comes_before_postfix_gives_up(folder: Path) -> None:
    with Policies(folder, "--postfix-seconds", "0.2") as service:
        with Asking(service.unix) as smtpd:
            smtpd.send(request("wait"))
            assert smtpd.answer() == "DUNNO"
            assert smtpd.ask("defer") == ["451 4.7.1 come again"]
        assert any(
            "patient: pid 291 - no end after 0.2 seconds, so the mail goes on" in line for line in service.lines()
        )


@pytest.mark.parametrize("alone", [True, False], ids=["alone", "service"])
def test_what_postfix_cant_do_ends_the_start(folder: Path, alone: bool) -> None:
    service = Policies(
        folder, chains=CHAINS + "[mail]\nmsa\n[end-of-message]\nlooker\n[helo]\nchanges\nmissing\n", alone=alone
    )
    service.launch()
    assert service.process and service.process.wait(PATIENCE) == 3
    told = service.log.read_text()
    for words in (
        "line 16: looker may add a header field, and at the end of a message it's too late for that",
        "line 16: looker can't stand at [end-of-message]: it is meant for [client]",
        "line 18: changes may change an address, and a policy service can't; Postfix does that itself: recipient_delimiter",
        "line 19: there is no plugin missing",
    ):
        assert words in told
    assert not (folder / "policy").exists()


def test_a_check_finds_what_would_end_the_start(folder: Path) -> None:
    (folder / "postfixplugins").write_text("# nothing yet\n")
    words = [*COMMAND, "postfix", "--check"]
    done = subprocess.run(words, env={**os.environ, "CONTROLDIR": str(folder)}, capture_output=True, timeout=PATIENCE)
    assert (done.returncode, done.stdout) == (3, b"") and b"postfixplugins has no section" in done.stderr


VALUES = "BOUNCELEVEL=foo\n[rcpt]\nspfchecks\nSPFTIMEOUT=-1\nRAEXEMPT=spfcheck\n"  # the first is for all sections
WRONG_VALUES = (
    "line 1: BOUNCELEVEL=foo should be a whole number from -1 to 5; mend it, or take it out",
    "line 4: SPFTIMEOUT=-1 should be a whole number from 1 to 60; mend it, or take it out",
    "line 5: RAEXEMPT names spfcheck, and there is no such plugin; mend it, or take it out",
)


def check_alone(folder: Path, *options: str, chains: str = "[rcpt]\nspfchecks\n") -> subprocess.CompletedProcess[str]:
    "`ra-plugins postfix --check` on this control file."
    (folder / "postfixplugins").write_text(chains)
    words = [*COMMAND, "postfix", "--check", *options]
    environ = {**os.environ, "CONTROLDIR": str(folder)}
    return subprocess.run(words, env=environ, cwd=folder, capture_output=True, text=True, timeout=PATIENCE)


def test_a_check_tells_a_value_that_makes_no_sense(folder: Path) -> None:
    done = check_alone(folder, chains=VALUES)
    assert (done.returncode, done.stdout) == (3, "")
    path = folder / "postfixplugins"
    told = [line.removeprefix("ra-plugins postfix: ") for line in done.stderr.splitlines()]
    assert told == [f"{path}, {wrong}" for wrong in WRONG_VALUES]
    sound = "BOUNCELEVEL=-1\n[rcpt]\nspfchecks\nSPFTIMEOUT=5\nRAEXEMPT=spfchecks\n"
    assert check_alone(folder, chains=sound).returncode == 0


def test_a_value_that_makes_no_sense_ends_the_start(folder: Path) -> None:
    "As all other faults of that file do."
    service = Policies(folder, chains=CHAINS + VALUES.replace("[rcpt]", "[mail:rcpt]").partition("\n")[2])
    service.launch()
    assert service.process and service.process.wait(PATIENCE) == 3
    assert "line 15: SPFTIMEOUT=-1 should be a whole number from 1 to 60; mend it" in service.log.read_text()


def test_a_check_looks_at_what_stands_beside_the_file(folder: Path) -> None:
    "Plugins that can't be loaded, a user who isn't there, settings that make no sense."
    (folder / "settings").write_text("# ours\nDNSTIMEOUT=soon\n")
    (folder / "none.py").write_text("print('hello')\n")
    (folder / "policies.py").write_text("print('hello')\n" + PLUGINS)
    for options, told in (
        (["--plugins", "nofile.py"], "nofile.py can't be loaded: No such file or directory"),
        (["--plugins", "none.py"], "none.py: printed by mistake: hello\nnone.py defines no plugin"),
        (["--user", "nosuchuser"], "there is no user nosuchuser"),
        (["--settings", "settings"], "settings, line 2: DNSTIMEOUT=soon should be a whole number from 1 to 60"),
        (["--settings", "gone"], "can't read gone: No such file or directory"),
    ):
        done = check_alone(folder, *options)
        assert (done.returncode, done.stdout) == (3, "") and f"ra-plugins postfix: {told}" in done.stderr, done
    done = check_alone(folder, "--plugins", "policies.py", "--user", pwd.getpwuid(os.geteuid()).pw_name)
    assert (done.returncode, done.stdout) == (0, "[rcpt] spfchecks\n")
    assert done.stderr == "ra-plugins: policies.py: printed by mistake: hello\n"


def test_a_check_looks_at_what_a_start_would_stumble_over(folder: Path) -> None:
    "As the start says it; what may be there, a file of verdicts or who listens there already, is neither made nor asked."
    me = pwd.getpwuid(os.geteuid()).pw_name
    folder.chmod(0o755)
    for options, told in (
        (["--verdicts", "/nowhere/verdicts"], "can't write verdicts to /nowhere/verdicts: No such file or directory"),
        (["--verdicts", str(folder)], f"can't write verdicts to {folder}: Is a directory"),
        (["--metrics", "192.0.2.1:9100"], "can't tell metrics on 192.0.2.1 port 9100: Cannot assign requested address"),
        (["--user", me, "unix:/nowhere/socket"], "can't listen on unix:/nowhere/socket: /nowhere: No such file or directory"),
        (["--user", me, "inet:192.0.2.1:10040"], "can't listen on inet:192.0.2.1:10040: Cannot assign requested address"),
    ):
        done = check_alone(folder, *options)
        assert (done.returncode, done.stdout, done.stderr) == (3, "", f"ra-plugins postfix: {told}\n"), options
    with socket.create_server(("127.0.0.1", 0)) as there:
        place = f"inet:127.0.0.1:{there.getsockname()[1]}"
        done = check_alone(folder, "--user", me, place, f"unix:{folder}/socket", "--verdicts", f"{folder}/verdicts")
    assert (done.returncode, done.stderr) == (0, "") and not (folder / "verdicts").exists()
    milter = [*COMMAND, "milter", "--check", "--verdicts", "/nowhere/verdicts"]
    done = subprocess.run(milter, capture_output=True, text=True, timeout=PATIENCE)
    assert done.returncode == 3 and "can't write verdicts to /nowhere/verdicts" in done.stderr


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be another")
def test_a_python_that_is_closed_to_the_user_is_told_by_check_and_start(folder: Path) -> None:
    "With the folder that closes it: this one's holds a link to the interpreter."
    (folder / "closed").mkdir(mode=0o700)
    (folder / "closed" / "python").symlink_to(sys.executable)
    folder.chmod(0o755)
    (folder / "postfixplugins").write_text("[rcpt]\nspfchecks\n")
    environ = {**ENVIRON, "CONTROLDIR": str(folder)}
    python = str(folder / "closed" / "python")
    code = f"import sys; sys.executable = {python!r}; from ra_plugins.cli.postfix import main; sys.exit(main())"
    for options in (["--check"], []):
        words = [sys.executable, "-c", code, "--user", "nobody", "inet:127.0.0.1:0", *options]
        done = subprocess.run(words, env=environ, capture_output=True, text=True, timeout=PATIENCE)
        told = f"{folder}/closed (mode 0700) is closed to nobody, and Python"
        assert done.returncode == 3 and told in done.stderr, done.stderr


def test_a_check_notes_what_looks_like_a_slip(folder: Path) -> None:
    "A name that is almost a setting's, a setting and a plugin that stand twice: the last line counts, the plugin runs twice."
    (folder / "settings").write_text("BOUNCELEVELS=1\nDNSTIMEOUT=4\nHOMEPAGE=x\nDNSTIMEOUT=5\n")
    chains = "SPFTIMEOUT=1\n[mail]\nspfchecks\n[rcpt]\nspfchecks\nSPFTIMEOUT=5\nplugins/spfchecks\nSPFTIMEOUT=6\n"
    done = check_alone(folder, "--settings", "settings", chains=chains)
    assert (done.returncode, done.stdout) == (0, "[mail] spfchecks\n[rcpt] spfchecks, spfchecks\n")
    assert done.stderr.splitlines() == [
        "ra-plugins: note: settings: no plugin has a setting BOUNCELEVELS; did you mean BOUNCELEVEL?",
        "ra-plugins: note: settings, line 4: DNSTIMEOUT is set in line 2 already, and this line counts",
        f"ra-plugins: note: {folder}/postfixplugins, line 7: spfchecks stands in line 5, too: it runs twice",
        f"ra-plugins: note: {folder}/postfixplugins, line 8: SPFTIMEOUT is set in line 6 already, and this line counts",
    ]


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le"])
def test_a_file_in_utf_16_is_called_that(folder: Path, encoding: str) -> None:
    said = "this isn't UTF-8, but UTF-16 as some editors save it; save it as UTF-8, or use iconv -f UTF-16 -t UTF-8"
    (folder / "settings").write_bytes("SPFTIMEOUT=5\n".encode(encoding))
    done = check_alone(folder, "--settings", "settings")
    assert (done.returncode, done.stderr) == (3, f"ra-plugins postfix: settings: {said}\n")
    for command, name in (("postfix", "postfixplugins"), ("milter", "milterplugins")):
        (folder / name).write_bytes("[rcpt]\nspfchecks\n".encode(encoding))
        environ = {**os.environ, "CONTROLDIR": str(folder)}
        done = subprocess.run(
            [*COMMAND, command, "--check"], env=environ, cwd=folder, capture_output=True, text=True, timeout=PATIENCE
        )
        assert (done.returncode, done.stderr) == (3, f"ra-plugins {command}: {folder}/{name}: {said}\n")


def test_a_start_says_what_it_does_without(folder: Path) -> None:
    "A file of plugins that can't be loaded, a setting that makes no sense."
    (folder / "settings").write_text("BOUNCELEVEL=x\nDNSTIMEOUT=soon\n")
    (folder / "raises.py").write_text("raise ValueError('no')\n")
    options = ["--settings", str(folder / "settings"), "--plugins", "nofile.py", "--plugins", str(folder / "raises.py")]
    with Policies(folder, *options, alone=True) as service:
        said = service.log.read_text()
    assert "nofile.py gives no plugin, so it goes on without that\n" in said
    assert f"{folder}/raises.py gives no plugin, so it goes on without that\n" in said
    wrong = "should be a whole number from -1 to 5; mend it, or take it out; until then, taken as -1\n"
    assert f"line 1: BOUNCELEVEL=x {wrong}" in said
    assert "DNSTIMEOUT=soon should be a whole number from 1 to 60; mend it, or take it out; until then, taken as" in said


def test_it_logs_by_its_own_name(folder: Path) -> None:
    "The supervisor and its worker; a setting that makes no sense is told once, with its line."
    (folder / "settings").write_text("DNSTIMEOUT=soon\n")
    with Policies(folder, "--settings", str(folder / "settings"), "--workers", "2", alone=True) as service:
        with Asking(service.unix) as smtpd:
            smtpd.send(b"request=other\n\n")
            until(lambda: "a request of another kind" in service.log.read_text(), "the worker complains")
        os.kill(service.pid, signal.SIGHUP)
        until(lambda: "new workers have taken over" in service.log.read_text(), "it has read again")
    lines = service.log.read_text().splitlines()
    own = [line for line in lines if line.startswith("ra-plugins ")]
    assert len(own) > 4 and all(line.startswith("ra-plugins postfix: ") for line in own)
    wrong = f"ra-plugins postfix: {folder}/settings, line 1: DNSTIMEOUT=soon should be a whole number from 1 to 60"
    assert sum(line.startswith(wrong) for line in lines) == 2  # once at the start, once at SIGHUP


@pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("setpriv"), reason="only root can be another")
def test_a_user_whom_only_root_could_become_is_told(folder: Path) -> None:
    folder.chmod(0o755)
    (folder / "postfixplugins").write_text("[rcpt]\nspfchecks\n")
    other = ["setpriv", "--reuid=nobody", "--regid=0", "--clear-groups"]
    capable = ["--inh-caps=+dac_override", "--ambient-caps=+dac_override"]  # Python may be in root's home
    for name in ("root", "daemon", "nobody"):
        log = folder / f"log-{name}"
        words = [*other, *capable, *COMMAND, "postfix", "inet:127.0.0.1:0", "--user", name]
        with log.open("wb") as errors:
            process = subprocess.Popen(words, env={**ENVIRON, "CONTROLDIR": str(folder)}, stderr=errors)
        until(lambda: "ready on" in log.read_text() or process.poll() is not None, "it is ready")  # noqa: B023
        process.terminate()
        assert process.wait(PATIENCE) == 0, log.read_text()
        told = f"ra-plugins postfix: only root can run as {name}; --user is passed over\n"
        assert (told in log.read_text()) is (name != "nobody")


def test_a_file_that_is_read_again(folder: Path) -> None:
    "At SIGHUP: a good one counts from then on, a bad one changes nothing."
    with Policies(folder) as service:
        for text, told, answer in (
            (CHAINS.replace("sorry", "changed"), "new workers have taken over", "553 5.7.1 changed 0 of 1"),
            (CHAINS + "changes\n", "the workers stay as they were", "553 5.7.1 changed 0 of 1"),
        ):
            (folder / "control" / "postfixplugins").write_text(text)
            os.kill(service.pid, signal.SIGHUP)
            until(lambda told=told: told in service.log.read_text(), told)  # type: ignore[misc]
            with Asking(service.unix) as smtpd:
                assert smtpd.ask("refuse", instance=instance()) == [answer]
