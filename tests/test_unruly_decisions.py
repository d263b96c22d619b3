"""A decision of somebody else's, in a file, with a question and an answerer of its own, that does what it mustn't.

The same file runs as a script, in a dry run, and behind our server. Whatever it does, the mail goes on, and one line in
the log says why, with the line of the file that is to be mended.
"""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import pytest
from mailserver import COMMAND, ENVIRON, ME, PATIENCE, Home, Server

UNRULY = """"A plugin that does what its setting HOW says."
import asyncio
import sys
import time

from ra_plugins.ask.answerer import Answerer
from ra_plugins.ask.question import Question, Unanswered, gather
from ra_plugins.spp.command import Delay, Refuse
from ra_plugins.spp.plugin import plugin
from ra_plugins.support.environment import Environment, text, variable


class Reputation(Question):
    "How good is a client?"

    answerer = "unruly:Blocking"

    def __init__(self, how):
        self.how = how

    def __repr__(self):
        return f"{type(self).__name__}({self.how!r})"


class Later(Reputation):
    answerer = "unruly:Asynchronous"


class Blocking(Answerer):
    def answer(self, question, until):
        if question.how == "raises":
            raise KeyError("no such client")
        if question.how == "exits":
            sys.exit("enough")
        if question.how == "hangs":
            time.sleep(3600)
        if question.how == "rubbish":
            return "good, I think"
        return 10


class Asynchronous(Answerer):
    async def aanswer(self, question, until):
        if question.how == "blocks":
            time.sleep(3600)
        while question.how == "hangs":
            try:
                await asyncio.sleep(3600)
            except asyncio.CancelledError:
                pass  # it won't even be cancelled
        return Blocking.answer(self, question, until)


class UnrulySettings(Environment):
    how: str = variable("HOW", text, "", "What to do.")


async def failing():
    return 1 / 0  # here: fails in what is gathered


async def leaving():
    sys.exit("I don't like that")  # here: leaves in what is gathered


async def decide(session, settings, log):
    how, _, what = settings.how.partition(" ")
    if how == "raises":
        int("x")  # here: raises
    if how == "leaves":
        sys.exit("I don't like that")  # here: leaves
    if how == "prints":
        print("Debug: got here")
        return Refuse(550, None, "no")
    if how == "refuses":
        return Refuse("go away")  # here: refuses
    if how == "waits":
        return Delay(-5)  # here: waits
    if how == "answers":
        return "550 no"
    if how == "loops":
        while True: pass  # here: loops
    if how == "sleeps":
        time.sleep(3600)  # here: sleeps
    if how == "awaits":
        await asyncio.sleep(0)  # here: awaits
    if how == "cancels":
        raise asyncio.CancelledError  # here: cancels
    if how == "gathers":
        await gather(failing() if what == "failing" else leaving(), Reputation("good"))
    while how == "persists":
        try:
            await Reputation("good")
        except Unanswered:
            pass
    if how in ("asks", "asks-later"):
        try:
            answer = await (Reputation if how == "asks" else Later)(what)
        except Unanswered as why:
            log(f"nobody knows: {type(why).__name__}")
            return Refuse(450, None, "come again")
        if answer < 5:  # here: rubbish
            return Refuse(550, None, "no")
    return None


@plugin("connection", settings=UnrulySettings, asks=(Reputation,), seconds=0.7)
async def unruly(session, settings, log):
    "Does what its setting says."
    return await decide(session, settings, log)


@plugin("connection", settings=UnrulySettings, asks=(Later,), seconds=0.7)
async def unruly_later(session, settings, log):
    "The same, with an event loop."
    return await decide(session, settings, log)


@plugin("connection", settings=UnrulySettings)
async def unhurried(session, settings, log):
    "The same, without saying how long it may take."
    return await decide(session, settings, log)
"""


def line_of(mark: str) -> int:
    "The number of the line in the file that bears a mark."
    (number,) = (number for number, line in enumerate(UNRULY.splitlines(), 1) if line.endswith(f"# here: {mark}"))
    return number


def failed(what: str, mark: str) -> str:
    "The log's line for an exception that came up there."
    return f"failed, so the mail goes on: {what} (unruly.py, line {line_of(mark)})"


PASSED, COME_AGAIN, REFUSED = "", "E450 come again\n", "E550 no\n"
OVERDUE = "Overdue: no end after 0.7 seconds"
CASES = {  # what it does: what a script prints, and the one line in the log
    "raises": (PASSED, failed("ValueError: invalid literal for int() with base 10: 'x'", "raises")),
    "leaves": (PASSED, failed("SystemExit: I don't like that", "leaves")),
    "prints": (REFUSED, "printed by mistake: Debug: got here"),
    "refuses": (PASSED, failed("ValueError: a refusal has a code from 400 to 599, not 'go away'", "refuses")),
    "waits": (PASSED, failed("ValueError: a delay is a whole number of seconds from 0 to 3600, not -5", "waits")),
    "answers": (
        PASSED,
        "failed, so the mail goes on: TypeError: a plugin answers with commands, not with '550 no'",
    ),
    "loops": (PASSED, failed(OVERDUE, "loops")),
    "sleeps": (PASSED, failed(OVERDUE, "sleeps")),
    "awaits": (
        PASSED,
        failed("TypeError: a decision awaits questions, and what they are gathered in, not None", "awaits"),
    ),
    "cancels": (PASSED, failed("CancelledError: ", "cancels")),
    "gathers failing": (PASSED, failed("ZeroDivisionError: division by zero", "fails in what is gathered")),
    "gathers leaving": (PASSED, failed("SystemExit: I don't like that", "leaves in what is gathered")),
    "persists": (PASSED, "failed, so the mail goes on: Overdue: no end after "),
    "asks good": (PASSED, ""),
    "asks raises": (COME_AGAIN, "nobody knows: Broken"),
    "asks exits": (COME_AGAIN, "nobody knows: Broken"),
    "asks hangs": (COME_AGAIN, "nobody knows: Late"),
    "asks rubbish": (PASSED, failed("TypeError: '<' not supported between instances of 'str' and 'int'", "rubbish")),
    "asks-later good": (PASSED, ""),
    "asks-later raises": (COME_AGAIN, "nobody knows: Broken"),
    "asks-later exits": (COME_AGAIN, "nobody knows: Broken"),
    "asks-later hangs": (COME_AGAIN, "nobody knows: Late"),
    "asks-later blocks": (COME_AGAIN, "nobody knows: Late"),
    "asks-later rubbish": (
        PASSED,
        failed("TypeError: '<' not supported between instances of 'str' and 'int'", "rubbish"),
    ),
}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Home:
    "A qmail home where the file has been installed, as anybody would install it."
    folder = tmp_path_factory.mktemp("unruly")
    (folder / "unruly.py").write_text(UNRULY)
    command = [*COMMAND, "install", *ME, str(folder / "plugins"), "./unruly.py"]
    subprocess.run(command, cwd=folder, env=ENVIRON, check=True, capture_output=True, timeout=PATIENCE)
    return Home(folder / "qmail", folder / "plugins")


def name_for(how: str) -> str:
    "Which of the file's plugins does that."
    return "unruly_later" if how.startswith("asks-later") else "unruly"


def messages(log: str, name: str) -> list[str]:
    "What a plugin has logged, without its name and its number; nothing else may stand there but what the server says."
    said = [re.sub(r"^session \d+: ", "", line) for line in log.splitlines()]
    lines = [re.fullmatch(rf"{name}: pid \d+ - (.*)", line) for line in said if not line.startswith("smtpd: ")]
    assert all(lines), log
    return [line[1] for line in lines if line]


def as_expected(lines: list[str], expected: str) -> bool:
    "Is it this line, or one that begins so, and no other?"
    return len(lines) == bool(expected) and all(line.startswith(expected) for line in lines)


@pytest.mark.parametrize("how", CASES)
def test_as_a_script(home: Home, how: str) -> None:
    name, (printed, expected) = name_for(how), CASES[how]
    done = subprocess.run(
        [home.path / "plugins" / name],
        env={"TCPREMOTEIP": "192.0.2.1", "HOW": how},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        restore_signals=False,
        timeout=PATIENCE,
    )
    assert (done.returncode, done.stdout.decode()) == (0, printed)
    assert as_expected(messages(done.stderr.decode(), name), expected)


@pytest.mark.parametrize("how", CASES)
def test_in_a_dry_run(home: Home, how: str) -> None:
    "It says the same as the script, and `try` itself ends, with nothing on standard error."
    name, (printed, expected) = name_for(how), CASES[how]
    run = attempt(home, name, "--set", f"HOW={how}")
    assert as_expected(messages("\n".join(run["logged"]), name), expected)
    assert [f"E{command['text']}\n" for command in run["answered"]] == ([printed] if printed else [])
    asked = {"asks": "Reputation", "asks-later": "Later"}.get(how.partition(" ")[0])
    if asked:
        assert [each["question"] for each in run["asked"]] == [f"{asked}({how.partition(' ')[2]!r})"]


def attempt(home: Home, name: str, *options: str) -> dict[str, list]:  # type: ignore[type-arg]
    "What one plugin did in a dry run of no more than a connection."
    home.plugins("[connection]", f"plugins/{name}")
    command = [*COMMAND, "try", "--ip", "192.0.2.1", "--control", str(home.control), "--json", *options]
    done = subprocess.run(command, env=ENVIRON, capture_output=True, timeout=PATIENCE)
    assert done.stderr == b"" and done.returncode in (0, 1, 2)
    told = json.loads(done.stdout)
    (run,) = told["steps"][0]["plugins"]
    assert run["failure"] is None
    found: dict[str, list] = run  # type: ignore[type-arg]
    return found


@pytest.mark.parametrize("how", ["loops", "asks hangs", "persists"])
def test_a_dry_run_waits_no_longer_than_it_is_told(home: Home, how: str) -> None:
    "`try --seconds` holds for a plugin that says nothing about its time, and whose 30 seconds would be more."
    run = attempt(home, "unhurried", "--set", f"HOW={how}", "--seconds", "0.3")
    expected = "nobody knows: Late" if how == "asks hangs" else "failed, so the mail goes on: Overdue: no end after "
    assert as_expected(messages("\n".join(run["logged"]), "unhurried"), expected)


def test_behind_the_server(home: Home) -> None:
    "One session after the other: the client hears a banner, or the one refusal that was meant."
    for how, (printed, expected) in CASES.items():
        name = name_for(how)
        home.plugins("[connection]", f"plugins/{name}")
        server = Server(home, environ={"HOW": how})
        reply = printed[1:].rstrip("\n") or "220 mail.example.org ESMTP"
        assert server.transcript() == [reply, "221 mail.example.org"], how
        assert as_expected(messages("\n".join(server.stop()), name), expected), how


def test_a_plugin_that_cannot_be_loaded(home: Home, tmp_path: Path) -> None:
    "Its file has gone, or prints, leaves or loops when it is imported: a line in the log, and the mail goes on."
    broken = tmp_path / "broken.py"
    broken.write_text(UNRULY.replace("def unruly(", "def broken("))
    command = [*COMMAND, "install", *ME, str(tmp_path / "plugins"), "./broken.py"]
    subprocess.run(command, cwd=tmp_path, env=ENVIRON, check=True, capture_output=True, timeout=PATIENCE)
    there = Home(tmp_path / "qmail", tmp_path / "plugins")
    leaving = "import sys\nprint('Done')\nsys.exit('no')\n"
    for text, reason in ((leaving, "no"), ("1 / 0\n", "division by zero"), (None, "broken")):
        broken.write_text(text) if text else broken.unlink()
        there.plugins("[connection]", "plugins/broken")
        server = Server(there)
        assert server.transcript()[0] == "220 mail.example.org ESMTP"
        (line,) = [each.partition(": ")[2] for each in server.stop() if ": broken: " in each]
        assert line.startswith("broken: pid ") and "can't be loaded, so the mail goes on" in line and reason in line
        run = attempt(there, "broken")
        assert run["answered"] == [] and "can't be loaded" in run["logged"][-1] and reason in run["logged"][-1]
