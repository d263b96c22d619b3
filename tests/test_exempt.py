"""Whom plugins let be: clients that may relay, and sessions that somebody has exempted from a plugin by name."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from mailserver import ENVIRON, Home, Server

from ra_plugins.cli.install import install
from ra_plugins.hosts.catalogue import catalogue
from ra_plugins.hosts.guard import Guard
from ra_plugins.smtpd.trial import Trial
from ra_plugins.spp.command import Command, Delay, Disconnect, Refuse
from ra_plugins.spp.session import sample_session
from ra_plugins.support.control import Control, ControlFiles

PLUGINS = catalogue()
FILES = ControlFiles({"overloaded": ""})
STRICT: list[tuple[str, Command]] = [
    ("overload", Disconnect(451, None, "Temporary Failure: Server overload")),
    ("msa", Refuse(550, None, "You should be authenticated")),
    ("tarpit", Delay(2)),
]


def answer(name: str, **values: object) -> list[Command]:
    return PLUGINS[name](sample_session(rcpt_count_all=60, **values), FILES, lambda message: None)


@pytest.mark.parametrize(("name", "command"), STRICT)
def test_a_network_that_may_relay_is_exempt_unless_a_setting_says_otherwise(name: str, command: Command) -> None:
    assert answer(name) == [command]
    assert answer(name, relay_client="") == []
    assert answer(name, relay_client="@relay.example.org") == []
    assert answer(name, relay_client="", **{f"{name.upper()}SKIPRELAY": 0}) == [command]


def test_who_has_logged_in_is_judged_as_that_although_auth_sets_relayclient() -> None:
    told = {"auth_user": "ana@example.org", "relay_client": ""}
    assert answer("overload", **told) == answer("msa", **told) == []
    assert answer("overload", **told, OVERLOADSKIPRELAY=0) == answer("msa", **told, MSASKIPRELAY=0) == []
    assert answer("tarpit", **told) == [Delay(2)]
    assert answer("tarpit", **told, TARPITSKIPAUTH=1) == []


@pytest.mark.parametrize("variable", ["RAEXEMPT", "ACCESSEXEMPT"])
@pytest.mark.parametrize("names", ["msa", "tarpit msa", "tarpit,msa", "all"])
def test_the_guard_lets_be_what_is_exempt(variable: str, names: str) -> None:
    logged: list[str] = []
    guard, session = Guard(PLUGINS["msa"], logged.append), sample_session(**{variable: names})
    assert guard.decide(session) == asyncio.run(guard.adecide(session)) == []
    assert logged == [f"No checks performed, because {variable} exempts from them"] * 2


@pytest.mark.parametrize("names", ["", "MSA", "msa2", "msa\nA", "msa;", "\udce9 msa", "msa " * 1000])
def test_what_are_no_names_exempts_from_nothing(names: str) -> None:
    logged: list[str] = []
    session = sample_session(RAEXEMPT=names)
    session.log = logged.append
    assert Guard(PLUGINS["msa"], logged.append).decide(session) == [STRICT[1][1]]
    assert logged[-1] == "Message rejected (no auth)."
    assert all(line.startswith("RAEXEMPT=") and len(line) < 200 for line in logged[:-1])


def test_script_dry_run_and_server_let_the_same_be(tmp_path: Path) -> None:
    install(str(tmp_path / "plugins"), ["msa"])
    home = Home(tmp_path / "qmail", tmp_path / "plugins")
    home.plugins("[mail]", "plugins/msa")
    said = {"": "550 You should be authenticated", "overload": "550 You should be authenticated", "msa": "250 ok"}
    for names, reply in said.items():
        server = Server(home, environ={**ENVIRON, "RAEXEMPT": names})
        heard = server.transcript("EHLO x", "MAIL FROM:<ana@example.net>")
        logged = server.said()
        server.stop()
        trial = Trial(Control(str(home.control)), {"TCPREMOTEIP": "192.0.2.1", "RAEXEMPT": names})
        asyncio.run(trial.hold("x", "ana@example.net"))
        (run,) = trial.notes.steps[-1].runs
        assert heard[-2] == trial.notes.steps[-1].replies[-1] == reply
        assert [line.partition(" - ")[2] for line in run.logged] == [line.partition(" - ")[2] for line in logged if "msa" in line]


def test_a_client_cannot_exempt_itself(tmp_path: Path) -> None:
    "Whatever it says, the names of variables aren't its to choose."
    install(str(tmp_path / "plugins"), ["msa"])
    home = Home(tmp_path / "qmail", tmp_path / "plugins")
    home.plugins("[mail]", "plugins/msa")
    server = Server(home, environ=ENVIRON)
    said = ["EHLO RAEXEMPT=msa", "MAIL FROM:<RAEXEMPT=msa@example.net>", "MAIL FROM:<a@example.net\0RAEXEMPT=msa>"]
    heard = server.transcript(*said)
    server.stop()
    assert heard[-3:] == ["550 You should be authenticated"] * 2 + ["221 mail.example.org"]
