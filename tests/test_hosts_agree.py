"""Whatever a plugin answers: script, dry run and server do the same with it."""

from __future__ import annotations

import asyncio
import os
import re
import sys
from collections.abc import AsyncGenerator, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from mailserver import DELIVER, ENVIRON, Home, Server
from test_properties import anything, final, fit, run_here, unfit

from ra_plugins.cli.install import install
from ra_plugins.smtpd.qmail_spp import Checks, encoded, run_program
from ra_plugins.smtpd.trial import Notes, Run, Step, Trial, decided
from ra_plugins.spp.command import (
    Accept,
    AddHeader,
    Command,
    Delay,
    Disconnect,
    Drop,
    Later,
    Refuse,
    Say,
    SetVariable,
    UnsetVariable,
)
from ra_plugins.spp.plugin import STAGES, plugin
from ra_plugins.support.control import Control

ANSWER: list[Command] = []
PIDS = re.compile(r": pid \d+ - ")
VARIABLES = {"mail": "SMTPMAILFROM", "rcpt": "SMTPRCPTTO"}


@plugin("mail")
def stub(session: object) -> list[Command]:
    "Answers with what a test wants."
    return ANSWER


class Came(NamedTuple):
    "What came of an answer."

    reply: str  # go on, skip qmail's checks, or refused
    said: list[bytes]
    environ: dict[bytes, bytes]
    address: bytes
    headers: list[bytes]
    later: dict[str, list[bytes]]
    on: bool
    closed: bool
    delay: int


def raw(texts: list[str]) -> list[bytes]:
    "Texts as bytes, the form in which a client and the next plugin get them."
    return [text.encode("utf-8", "surrogateescape") for text in texts]


def came(checks: Checks, reply: str, said: list[str], delay: int) -> Came:
    "What the effects on a connection are, in bytes."
    effects = checks.effects
    (address,) = raw([effects.address])
    later = {stage: raw(replies) for stage, replies in effects.later.items()}
    environ = encoded(effects.environ)
    return Came(reply, raw(said), environ, address, raw(effects.headers), later, effects.on, checks.closed, delay)


ENVIRON_THERE = {"PATH": os.defpath, "TCPREMOTEIP": "192.0.2.1", "CONTROLDIR": "/nowhere", "X_SET": "before"}


async def in_dry_run(stage: str) -> tuple[Came, list[str]]:
    "What `ra-plugins try` makes of the answer, and its log."
    notes, run = Notes(), Run("plugins/stub")
    notes.steps.append(Step("here"))

    def commands(entry: str, environ: dict[str, str]) -> AsyncGenerator[Command, None]:
        return decided(stub, run, environ)

    checks = Checks({stage: ["plugins/stub"]}, {**ENVIRON_THERE}, commands, notes.say, notes.wait)
    reply = await checks.check(stage, VARIABLES.get(stage, ""), "ana@example.net")
    return came(checks, reply, notes.steps[0].replies, notes.delay), run.logged


async def on_server(stage: str, output: Path, delay: int) -> Came:
    "What our server makes of a program that prints this."
    said: list[str] = []

    async def say(line: str) -> None:
        said.append(line)

    def commands(entry: str, environ: dict[str, str]) -> AsyncGenerator[Command, None]:
        return run_program(entry, {"PATH": os.defpath}, "/")

    checks = Checks({stage: [f":exec cat '{output}'"]}, {**ENVIRON_THERE}, commands, say)
    reply = await checks.check(stage, VARIABLES.get(stage, ""), "ana@example.net")
    return came(checks, reply, said, delay)


KINDS = [Accept, AddHeader, Disconnect, Drop, Later, Refuse, Say, SetVariable, UnsetVariable, Delay]
written = st.builds(
    lambda kind, text: kind.as_written(text), st.sampled_from(KINDS), anything | st.from_regex(r"[MRD=\d].*")
)
made = fit | unfit | st.builds(Delay, st.integers(0, 9))
cut: st.SearchStrategy[list[Command]] = st.builds(
    lambda some, last, more: [*some, last, *more], st.lists(made), final, st.lists(made)
)
answers = st.lists(made, max_size=6) | cut | st.lists(made | final | written | st.just(Command()), max_size=4)


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(answers, st.sampled_from(STAGES[1:5]))
@example([Refuse(550, None, "no"), SetVariable("X_SET", "after")], "mail")
@example([Refuse(550, None, "no"), Delay(7)], "rcpt")
@example([Delay(2), Accept(), Later("data", Refuse(451, None, "later")), Delay(7)], "mail")
@example([Later.as_written("X550 no"), SetVariable.as_written("A"), Command()], "mail")
@example([Delay.as_written("soon"), Say.as_written("a\nb")], "mail")
def test_script_dry_run_and_server_agree(tmp_path: Path, answer: list[Command], stage: str) -> None:
    "Replies, variables, headers, address, later refusals, delays, hang-ups, the end of all checks, and the log."
    ANSWER[:] = answer
    script = run_here(stub, encoded(ENVIRON_THERE))
    (tmp_path / "output").write_bytes(script.output)
    tried, logged = asyncio.run(in_dry_run(stage))
    assert tried == asyncio.run(on_server(stage, tmp_path / "output", script.delay))
    assert PIDS.sub(": ", script.log.decode()) == PIDS.sub(": ", "".join(f"{line}\n" for line in logged))


# The same with processes


PRINTING = """
import os

from ra_plugins.spp.command import *
from ra_plugins.spp.plugin import plugin

with open(os.path.join(os.path.dirname(__file__), "answer"), encoding="utf-8", errors="surrogateescape") as file:
    ANSWER = eval(file.read())


@plugin("mail")
def printing(session):
    return ANSWER
"""


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Home:
    "A qmail home with one plugin, of somebody else's, as a program."
    folder = tmp_path_factory.mktemp("agree")
    (folder / "printing.py").write_text(PRINTING)
    (folder / "answer").write_text("[]")
    install(str(folder / "plugins"), [str(folder / "printing.py")])
    home = Home(folder / "qmail", folder / "plugins")
    home.plugins("[mail]", "plugins/printing")
    return home


@pytest.fixture(scope="module")
def server(home: Home) -> Iterator[Server]:
    "A server that keeps what it is sent."
    server = Server(home, "--deliver", DELIVER, environ=ENVIRON)
    yield server
    server.stop()


variables = st.from_regex(r"X_[A-Z]{1,5}", fullmatch=True)
values = st.text(st.characters(codec="utf-8"), max_size=50)
simple = st.one_of(  # an answer whose effects can be seen from outside
    st.builds(SetVariable, variables, values),
    st.builds(UnsetVariable, variables),
    st.builds(AddHeader, values.map("X-A: {}".format)),
    st.builds(Later, st.sampled_from(["rcpt", "data"]), st.just(Refuse(451, "4.7.1", "later"))),
    st.builds(Say, st.just(250), values),
    st.builds(Delay, st.integers(0, 0)),
)


@settings(max_examples=10, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(st.lists(simple, max_size=4), st.lists(final, max_size=1), st.lists(simple, max_size=2))
@example([AddHeader("X-A: b"), SetVariable("X_A", "b")], [Accept()], [SetVariable("X_A", "c"), Delay(7)])
@example([], [Refuse(550, "5.7.1", "no")], [SetVariable("X_A", "b"), Delay(7)])
def test_processes_agree(
    home: Home, server: Server, some: list[Command], last: list[Command], more: list[Command]
) -> None:
    "A session with a real client, a real server and a real script beside the same session as a dry run."
    (home.path.parent / "answer").write_text(repr([*some, *last, *more]), "utf-8")
    sys.modules.pop("printing", None)  # the dry run loads it anew, as a process of its own would
    for name in ("message", "environ"):
        (home.path / name).unlink(missing_ok=True)
    heard = server.transcript(
        "EHLO x", "MAIL FROM:<ana@example.net>", "RCPT TO:<ben@example.org>", "DATA", "Subject: x", "."
    )
    trial = Trial(Control(str(home.control)), {"TCPREMOTEIP": "127.0.0.1"})
    asyncio.run(trial.hold("x", "ana@example.net", ["ben@example.org"]))
    tried = [line for step in trial.notes.steps for line in step.replies]
    taken = trial.notes.steps[-1].code == 354
    assert told(heard) == told(tried) and taken == (home.path / "message").exists()
    if taken:
        names = {
            command.text.partition("=")[0] for command in some if isinstance(command, (SetVariable, UnsetVariable))
        }
        effects = trial.checks.effects
        assert home.delivered(*sorted(names)) == [effects.environ.get(name) for name in sorted(names)]
        assert home.message().splitlines()[2:-1] == effects.headers
    server.said()


def told(lines: list[str]) -> list[str]:
    "What a session says that depends on the plugin: the replies up to the refusal at MAIL, at RCPT or at DATA, or to the 354."
    kept = []
    for line in lines:
        if line.startswith("250-") and line[4:] in ("mail.example.org", "PIPELINING", "8BITMIME"):
            continue
        if line in ("250 8BITMIME", "250 mail.example.org", "250 ok, and thrown away"):
            continue
        kept.append(line)
        if line[:3] in ("354", "503") or (line[3:4] == " " and line[0] in "45"):
            break
    return kept
