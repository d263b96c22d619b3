"""The command line, as processes: what it prints, how it ends, and that no fault shows as a traceback."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import IO

import pytest
from mailserver import COMMAND, ENVIRON, ME, PATIENCE, ROOT, Home, Server, gone, until

import ra_plugins
from ra_plugins.cli.completion import completion
from ra_plugins.cli.listing import answerer_settings, runs_at
from ra_plugins.cli.spf import SPF_COMMANDS
from ra_plugins.cli.units import DAEMONS
from ra_plugins.hosts.catalogue import catalogue

FAULT = 3
COMMANDS = ("list", "show", "install", "check", "smtpd", "try", "demo", "overload-flag", "rblchecks", "service")
SESSION = ("--ip", "192.0.2.1", "--helo", "mail.example.net", "--from", "ana@example.net")


class Done:
    "What a command said, and how it ended."

    def __init__(
        self,
        *arguments: str | Path,
        environ: dict[str, str] | None = None,
        stdout: int | IO[bytes] = subprocess.PIPE,
    ):
        done = subprocess.run(
            [*COMMAND, *arguments],
            env={**ENVIRON, **(environ or {})},
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=subprocess.PIPE,
            timeout=PATIENCE,
            check=False,
        )
        self.status = done.returncode
        self.output = (done.stdout or b"").decode()
        self.errors = (done.stderr or b"").decode()
        assert "Traceback" not in self.output + self.errors, self.errors
        assert "Exception ignored" not in self.errors, self.errors

    def fails(self, message: str) -> bool:
        "Is this the only thing it said, in one line, and its status a fault's?"
        return (
            self.status == FAULT
            and not self.output
            and re.fullmatch(f"ra-plugins.*: {message}\n", self.errors) is not None
        )


@pytest.fixture
def attempt(home: Home) -> Callable[..., Done]:
    "`ra-plugins try` on the test's home: one client, and the recipients and options given."

    def run(*options: str, to: tuple[str, ...] = ("ben@example.org",), **environ: str) -> Done:
        recipients = [word for recipient in to for word in ("--to", recipient)]
        return Done("try", *SESSION, *recipients, "--control", home.control, *options, environ=environ)

    return run


# Help


def test_help() -> None:
    done = Done("--help")
    assert done.status == 0 and not done.errors
    assert [name for name in COMMANDS if not re.search(rf"^ +{name}\b", done.output, re.MULTILINE)] == []


@pytest.mark.parametrize("command", COMMANDS)
def test_help_of_each_command(command: str) -> None:
    done = Done(command, "--help")
    assert done.status == 0 and not done.errors
    assert done.output.startswith(f"usage: ra-plugins {command} ")


@pytest.mark.parametrize(
    "line",
    [
        "",
        "nonsense",
        "show",
        "install",
        "try",
        "try --ip 192.0.2.1",
        "smtpd --port x",
        "smtpd --nonsense",
        "list more",
        "smtpd --like qmail",
    ],
)
def test_wrong_command_lines(line: str) -> None:
    assert Done(*line.split()).fails(".+")


PROGRAMS = ("ra-plugins", "rcptcheck", "checkbackpurge", "spfquery", "raterclient", "rater", "raterctl")
OF_THEIR_OWN = {"rcptcheck", "spfquery", "raterclient", "ra-plugins spf explain"}  # statuses that others have fixed
SETTINGS_INI = (ROOT / "settings.ini").read_text()
MAINS = dict(line.strip().split("=") for line in SETTINGS_INI.partition("console_scripts = ")[2].splitlines() if "=" in line)


def program(name: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    "Run one of our programs, as its console script does."
    module, _, function = MAINS[name].partition(":")
    script = f"import sys; from {module} import {function} as main; sys.exit(main())"
    command = [sys.executable, "-c", script, *arguments]
    return subprocess.run(command, env=ENVIRON, capture_output=True, text=True, timeout=PATIENCE, stdin=subprocess.DEVNULL)


@pytest.mark.parametrize(
    "line",
    [*PROGRAMS, *(f"ra-plugins {name}" for name in (*COMMANDS, "spf", *(f"spf {each}" for each in SPF_COMMANDS)))],
)
def test_each_program_and_command_says_its_version_and_its_exit_statuses(line: str) -> None:
    name, *words = line.split()
    done = program(name, *words, "--version")
    said = f"ra-plugins {ra_plugins.__version__}\n"
    assert (done.returncode, done.stdout, done.stderr) == (0, said if name == "ra-plugins" else f"{name} of {said}", "")
    told = program(name, *words, "--help")
    helped = " ".join(told.stdout.split()).lower()
    assert told.returncode == 0 and ("-version" in helped or line == "rcptcheck")
    assert re.search("(the )?exit status:? (is )?0 ", helped), helped
    if line not in OF_THEIR_OWN and line != "ra-plugins spf":
        assert "3 it couldn't be done" in helped or "3 they couldn't be installed" in helped, helped


@pytest.mark.parametrize("line", [*PROGRAMS, *(f"ra-plugins {name}" for name in COMMANDS)])
def test_a_command_line_that_makes_no_sense_has_the_status_of_a_fault(line: str) -> None:
    name, *words = line.split()
    if name in OF_THEIR_OWN:
        return
    done = program(name, *words, "--nonsense")
    assert (done.returncode, done.stdout) == (FAULT, ""), done.stderr
    assert re.fullmatch(f"{name}.*: .+\n", done.stderr)


@pytest.mark.parametrize(
    "line",
    [
        "ra-plugins service --socket /nowhere/socket --user root",
        "ra-plugins service --status --socket /nowhere/socket",
        "ra-plugins install /nowhere/plugins msa",
        "ra-plugins check --control /nowhere",
        "ra-plugins try --ip 192.0.2.1 --control /nowhere",
        "ra-plugins rblchecks --self-test --control /nowhere x..y",
        "checkbackpurge --cache /nowhere/cache",
        "rater --check /nowhere/config",
        "rater /nowhere/config",
        "raterctl --port 1 state",
    ],
)
def test_what_could_not_be_done_has_the_same_status_in_every_command(line: str) -> None:
    name, *words = line.split()
    done = program(name, *words)
    assert (done.returncode, done.stdout) == (FAULT, "") and done.stderr, (done.returncode, done.stderr)


# list, show, install


def test_list() -> None:
    lines = Done("list").output.splitlines()
    assert [line.split()[:2] for line in lines] == [[name, runs_at(each)] for name, each in catalogue().items()]
    assert all(line.endswith(".") for line in lines)


@pytest.mark.parametrize("name", catalogue())
def test_show(name: str) -> None:
    "Where it runs, what it asks and answers, and all that can be set: also of who answers what it asks."
    plugin, done = catalogue()[name], Done("show", name)
    assert (done.status, done.errors) == (0, "") and done.output.startswith(f"{name}: ")
    variables = [*plugin.settings.variables(), *plugin.state.variables()]
    for settings in answerer_settings(plugin, pytest.fail).values():
        variables += settings.variables()
    classes = [*plugin.asks, *(plugin.answers or ())]
    expected = [f"[{plugin.stages[0]}]", f"plugins/{name}", f"at most {plugin.seconds:g} seconds", "Comes with  ra-plugins"]
    expected += [f"\n  {each.name}\n" for each in variables] + [each.__name__ for each in classes]
    assert [each for each in expected if each not in done.output] == []


@pytest.mark.parametrize("name", catalogue())
def test_what_show_prints_for_smtpplugins_can_be_pasted_as_it_stands(name: str) -> None:
    "One section, in which the plugin does all that it can; others stand in a sentence."
    output = Done("show", name).output
    pasted = [line.strip() for line in output.splitlines() if line.startswith("    ") and line[4:5] in "[p"]
    section, *programs = [line for line in pasted if line.startswith(("[", "plugins/"))]
    assert programs == [f"plugins/{name}"]
    expected = {"access": "[rcpt]", "spfchecks": "[rcpt]", "userthrottle": "[rcpt]", "rdnschecks": "[mail]", "msa": "[mail]"}
    assert section == expected.get(name, section)
    others = [stage for stage in catalogue()[name].stages if f"[{stage}]" != section]
    assert ("It may stand below " in output) == bool(others)


def test_show_says_where_a_question_is_answered() -> None:
    "The rater that ipthrottle asks, and the folder of ipsvd, are set by its answerers' settings."
    output = Done("show", "ipthrottle").output
    assert [
        name for name in ("IPTHROTTLEMINUTES", "RATER", "RATERTIMEOUT", "IPSVDIR") if f"\n  {name}\n" not in output
    ] == []
    assert re.search(r"^  Asks +Rate: How often .*\n +Block: Have ipsvd deny", output, re.MULTILINE)
    assert re.search(r"^  Answers +Disconnect$", output, re.MULTILINE)


def test_show_of_a_plugin_that_only_logs() -> None:
    assert re.search(r"^  Answers +nothing: it only logs$", Done("show", "authlogger").output, re.MULTILINE)


@pytest.mark.parametrize(
    ("plugin", "setting", "default"),
    [
        ("dotblind", "DOTBLINDSTRIP", '"."'),
        ("plusaliases", "PLUSALIASESCHARS", '"+"'),
        ("rcptchecksfile", "CHKUSER_DELIMITER", '"-"'),
        ("rcptchecksfile", "CHKUSER_ADDRFILE", "addresslist"),
        ("spfchecks", "BOUNCELEVEL", "-1"),
        ("rcptchecks", "MAILBOX_SQLQUERY", "empty"),
    ],
)
def test_show_tells_a_default_from_the_sentence_around_it(plugin: str, setting: str, default: str) -> None:
    "Nothing that could be a full stop, or a dash, and nothing behind it."
    lines = Done("show", plugin).output.split("\n")
    _, _, value, shown = lines[(place := lines.index(f"  {setting}")) : place + 4]
    assert value.startswith("      Value: ")
    assert not value.endswith(".")
    assert shown == f"      Default: {default}"


def test_show_explains_tarpits_letters() -> None:
    assert re.search(r"N \(NORMAL\) 2, 4, 6 .*M \(MEDIUM\) 5, 10, 15, .*H \(HARD\) 1, 4, 9, 16", Done("show", "tarpit").output)


def test_show_several_and_unknown() -> None:
    pages = [Done("show", name).output for name in ("msa", "tarpit")]
    assert Done("show", "msa", "tarpit").output == "\n".join(pages)
    assert Done("show", "msa", "tarpet", "overlord").fails("no plugin tarpet, overlord; there are access, authlogger, .*")


def test_install(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "plugins"
    done = Done("install", *ME, folder)
    assert (done.status, done.errors) == (0, "")
    assert done.output.split() == [str(folder / name) for name in catalogue()]
    assert {path.name for path in folder.iterdir()} == set(catalogue())
    assert {path.stat().st_mode & 0o777 for path in folder.iterdir()} == {0o755}
    assert Done("install", *ME, folder, "msa").status == 0  # again


def test_install_makes_no_folder_unless_it_is_told_to(tmp_path: Path) -> None:
    "A mistyped path is told, and nothing is written."
    (tmp_path / "plugins").mkdir()
    me, folder = ME[1:], tmp_path / "plugns"
    for more in ([], ["--service=/run/ra-plugins/socket"]):
        assert Done("install", *me, *more, folder).fails(f"there is no folder {folder}; --create makes it")
    assert {path.name for path in tmp_path.iterdir()} == {"plugins"}
    assert Done("install", *me, "--create", folder, "msa").status == Done("install", *me, folder, "msa").status == 0


def test_install_goes_wrong(tmp_path: Path) -> None:
    "Before anything is written."
    folder = tmp_path / "plugins"
    assert Done("install", *ME, folder, "msa", "tarpet").fails("no plugin tarpet; there are .*")
    assert not folder.exists()
    folder.mkdir()
    (folder / "dotblind").write_text("#!/bin/sh\n")
    assert Done("install", *ME, folder, "msa", "dotblind").fails(
        "already there, and not ours: .*/dotblind; --force writes over them"
    )
    assert {path.name for path in folder.iterdir()} == {"dotblind"}
    assert Done("install", *ME, folder, "dotblind", "--force").status == 0
    assert Done("install", *ME, folder / "dotblind", "msa").fails(f"{folder}/dotblind isn't a folder, and .*")
    below = folder / "dotblind" / "below"
    assert Done("install", *ME, below, "msa").fails(f"can't write to {below}: Not a directory")
    (folder / "msa").mkdir()
    assert Done("install", *ME, folder, "tarpit", "msa", "--force").fails(f"there is a folder where .*: {folder}/msa")
    assert {path.name for path in folder.iterdir()} == {"dotblind", "msa"}


# try


def test_try_as_text(home: Home, attempt: Callable[..., Done]) -> None:
    home.plugins(
        "[mail]", "plugins/overload", "[rcpt]", "plugins/tarpit", "plugins/plusaliases", "plugins/rcptchecksfile"
    )
    home.write(addresslist="ben@example.org\n")
    done = attempt(
        "--set",
        "TARPITCOUNT=2",
        "--set",
        "TARPITDELAY=N",
        to=("Ben+tea@example.org", "bob@example.org", "ben@example.org"),
    )
    assert (done.status, done.errors) == (1, "")
    assert re.sub(r"pid \d+", "pid PID", done.output) == (
        """C: (connects)
S: 220 mail.example.org ESMTP
C: EHLO mail.example.net
S: 250-mail.example.org
S: 250-PIPELINING
S: 250 8BITMIME
C: MAIL FROM:<ana@example.net>
     plugins/overload
S: 250 ok
C: RCPT TO:<Ben+tea@example.org>
     plugins/tarpit
     plugins/plusaliases
       logged    plusaliases: pid PID - changed Ben+tea@example.org to Ben@example.org
       answered  ChangeAddress('Ben@example.org')
     plugins/rcptchecksfile
       logged    rcptchecksfile: pid PID - Accepted recipient (ben@example.org number 0 of 10000 )
S: 250 ok
C: RCPT TO:<bob@example.org>
     plugins/tarpit
       logged    tarpit: pid PID - started tarpitting
       answered  Delay(2)
     plugins/plusaliases
     plugins/rcptchecksfile
       logged    rcptchecksfile: pid PID - 511 sorry, no mailbox here by that name (bob@example.org)
       answered  SetVariable('WRONGRCPTCOUNT', '1')
       answered  Refuse(511, '5.1.1', 'sorry, no mailbox here by that name', by='rcptchecksfile')
S: 511 sorry, no mailbox here by that name (#5.1.1 - rcptchecksfile)
C: RCPT TO:<ben@example.org>
     plugins/tarpit
       answered  Delay(4)
     plugins/plusaliases
     plugins/rcptchecksfile
       logged    rcptchecksfile: pid PID - Accepted recipient (ben@example.org number 1 of 10000 )
S: 250 ok
C: DATA
S: 354 go ahead
The session is refused, after 6 s of waiting.
"""
    )


def test_try_as_json(home: Home, attempt: Callable[..., Done]) -> None:
    home.plugins(
        "[auth]",
        "plugins/authlogger",
        "[mail]",
        "plugins/msa",
        ':echo "HX-Test: $SMTPAUTHUSER"',
        "[rcpt]",
        ":kill -9 $$",
    )
    done = attempt("--json", "--like", "gentoo", "--auth", "ana", to=("ben@example.org", "eva@example.com"))
    assert (done.status, done.errors) == (2, "")
    told = json.loads(re.sub(r"pid \d+", "pid PID", done.output))
    assert {key: value for key, value in told.items() if key != "steps"} == {
        **{"verdict": "temporary", "delay": 0, "sender": "ana@example.net", "recipients": []},
        "headers": ["X-Test: ana"],
        "notes": [],
    }
    failure = "451 qmail-spp failure: :kill -9 $$: child crashed (#4.3.0)"
    assert [(step["command"], step["replies"]) for step in told["steps"]] == [
        (None, ["220 mail.example.org ESMTP"]),
        ("EHLO mail.example.net", ["250-mail.example.org", "250-AUTH LOGIN PLAIN", "250-PIPELINING", "250 8BITMIME"]),
        ("AUTH PLAIN ana", ["235 ok, go ahead (#2.0.0)"]),
        ("MAIL FROM:<ana@example.net>", ["250 ok"]),
        ("RCPT TO:<ben@example.org>", [failure]),
        ("RCPT TO:<eva@example.com>", [failure]),
    ]
    assert told["steps"][2]["plugins"] == [
        {
            **{"plugin": "plugins/authlogger", "asked": [], "answered": [], "failure": None},
            "logged": ["authlogger: pid PID - authenticated as ana by plain from 192.0.2.1"],
        }
    ]
    assert [run["answered"] for run in told["steps"][3]["plugins"]] == [
        [],
        [{"command": "AddHeader", "text": "X-Test: ana"}],
    ]
    assert told["steps"][4]["plugins"][0]["failure"] == "child crashed"


NEEDS = {"connection": (), "helo": ("--helo", "x"), "mail": ("--from", ""), "rcpt": ("--to", "ben@example.org")}


@pytest.mark.parametrize("stage", NEEDS)
def test_try_asks_for_what_the_stage_needs(home: Home, stage: str) -> None:
    "An address is enough for what runs at connection; a name comes with HELO, a sender with MAIL, a recipient with RCPT."
    home.plugins(f"[{stage}]", ":echo E550 here", "[rcpt]", ":echo E550 at rcpt")
    told: list[str] = []
    for name, options in NEEDS.items():
        told += options
        done = Done("try", "--ip", "192.0.2.1", *told, "--control", home.control)
        assert not done.errors and ("S: 550 here" in done.output) == (stage in list(NEEDS)[: list(NEEDS).index(name) + 1])
        if stage == name:
            break
        assert done.status == 0 and "The session is accepted so far.\n" in done.output


def test_try_with_a_recipient_and_no_sender(home: Home) -> None:
    done = Done("try", "--ip", "192.0.2.1", "--to", "ben@example.org", "--control", home.control)
    assert done.fails(re.escape("a recipient (--to) comes after a sender (--from)"))


@pytest.mark.parametrize(
    "printed, status",
    [
        ("N", 0),
        ("E550 no", 1),
        ("E451 later", 2),
        ("R421 bye", 2),
        ("R554 bye", 1),
        ("D", 2),
        ("Eno code", 2),
        ("LR452 later", 2),
        ("LD554 no", 1),
    ],
)
def test_verdict_of_try(home: Home, attempt: Callable[..., Done], printed: str, status: int) -> None:
    home.plugins("[mail]", f":echo {printed}")
    for options in ((), ("--json",)):
        assert attempt(*options).status == status


def test_try_keeps_to_bytes(home: Home, attempt: Callable[..., Done]) -> None:
    "What isn't text, from a plugin, a file or the command line, is shown and harms nothing."
    home.plugins(
        "[mail]", ":printf 'P\\351\\033[2J\\n'; printf '\\351\\033[2J\\n' >&2", "[rcpt]", "plugins/rcptchecksfile"
    )
    home.write(addresslist=b"caf\xe9@example.org\n", me=b"caf\xe9.example.org\n")
    for environ in ({}, {"LC_ALL": "C"}, {"PYTHONIOENCODING": "ascii"}, {"PYTHONUTF8": "0", "LC_ALL": "nonsense"}):
        for options in ((), ("--json",)):
            done = attempt(*options, to=("caf\udce9@example.org", "señor@example.org"), **environ)
            assert done.status == 1 and done.errors == "" and "\x1b" not in done.output


@pytest.mark.parametrize(
    "name, content", [("rcpthosts", None), ("me", None), ("badmailfrom", None), ("morercpthosts.cdb", b"cut")]
)
def test_try_with_a_control_file_that_cannot_be_read(
    home: Home, attempt: Callable[..., Done], name: str, content: bytes | None
) -> None:
    "A folder of that name, or half a CDB: a line that says so, or a session that is refused for now, as on the server."
    (home.control / name).unlink(missing_ok=True)
    if content is None:
        (home.control / name).mkdir()
    else:
        (home.control / name).write_bytes(content)
    done = attempt(to=("eve@example.com",))
    assert done.status in (2, FAULT) and len(done.errors.splitlines()) == (done.status == FAULT)


@pytest.mark.parametrize("name", ["control/missing", "control", "control/me/below"])
def test_try_with_another_file_that_is_not_there(attempt: Callable[..., Done], name: str) -> None:
    assert attempt("--set", f"SPPCONFFILE={name}").fails(".*")


def test_try_without_smtpplugins(home: Home, attempt: Callable[..., Done]) -> None:
    (home.control / "smtpplugins").unlink()
    assert attempt().fails("can't read .*/control/smtpplugins: No such file or directory")
    (home.control / "smtpplugins").mkdir()
    assert attempt().fails("can't read .*/control/smtpplugins: Is a directory")


@pytest.mark.parametrize(
    "options", ["--set A", "--set =b", "--set A-B=c", "--seconds x", "--seconds nan", "--seconds -1", "--like x"]
)
def test_options_that_make_no_sense(attempt: Callable[..., Done], options: str) -> None:
    assert attempt(*options.split()).fails(".+")


@pytest.mark.parametrize("address", ["x", "", "192.0.2", "192.0.2.256", "192.0.2.1\n", "mail.example.net", "\u0661"])
def test_try_with_what_is_no_address(home: Home, address: str) -> None:
    done = Done("try", "--ip", address, "--control", home.control)
    assert done.fails("argument --ip: .* should be an IP address: 192.0.2.1 or 2001:db8::1")


@pytest.mark.parametrize(
    "content, expected",
    [
        ("[mial]\n:echo N\n", ["smtpplugins, line 1: [mial] is taken for [mail], by its first letter"]),
        ("[mail]\nplugins/tarpit\n", ["plugins/tarpit stands below [mail], and is meant for rcpt"]),
        ("[mail]\nplugins/msa\n[rcpt]\nplugins/tarpit\n", []),
        (
            "\ufeff[mail]\nplugins/msa\n",
            [
                "smtpplugins begins with a byte order mark, so its first line means nothing to qmail-spp",
                "smtpplugins, line 2: plugins/msa stands before the first section, and never runs",
            ],
        ),
        (
            "[mail]\nplugins/msa\n".encode("utf-16"),
            ["smtpplugins isn't plain text (UTF-16, perhaps), and no line of it means anything to qmail-spp"],
        ),
    ],
)
def test_try_notes_slips_in_the_sections(
    home: Home, attempt: Callable[..., Done], content: str | bytes, expected: list[str]
) -> None:
    "On standard error beside the text, and in JSON as a list."
    home.write(smtpplugins=content)
    shown, data = attempt(), attempt("--json")
    assert shown.errors.splitlines() == [f"ra-plugins: note: {line}" for line in expected]
    assert not data.errors and json.loads(data.output)["notes"] == expected
    assert "The session is " in shown.output


def test_try_notes_a_name_that_is_almost_a_settings(home: Home, attempt: Callable[..., Done]) -> None:
    "Whatever else is set may be a program's."
    home.write(smtpplugins="[mail]\n")
    done = attempt("--set", "BOUNCELEVLE=0", "--set", "BOUNCELEVEL=0", "--set", "MINEALONE=1")
    assert done.errors == "ra-plugins: note: --set: no plugin has a setting BOUNCELEVLE; did you mean BOUNCELEVEL?\n"


# What is no regular file


def test_a_named_pipe_is_no_file(home: Home, tmp_path: Path) -> None:
    "Nobody writes into it, and a command that opened it would wait for ever."
    pipe = tmp_path / "pipe.py"
    os.mkfifo(pipe)
    refused = f"can't read {pipe}: isn't a regular file"
    assert Done("smtpd", "--control", home.control, "--users", pipe).fails(refused)
    assert Done("try", *SESSION, "--control", home.control, "--zone", pipe).fails(refused)
    assert Done("spf", "explain", "example.org", "--ip", "192.0.2.1", "--zone", pipe).status not in (0, None)
    assert Done("show", pipe).fails(f"{pipe} can't be loaded: isn't a regular file")
    assert Done("install", *ME, tmp_path / "plugins", pipe).fails(f"{pipe} can't be loaded: isn't a regular file")
    listed = Done("list", pipe)
    assert (listed.status, listed.errors) == (0, f"ra-plugins: {pipe} can't be loaded: isn't a regular file\n")
    for name, arguments in (("smtpplugins", ["try", *SESSION]), ("me", ["smtpd"])):
        (home.control / name).unlink()
        os.mkfifo(home.control / name)
        assert Done(*arguments, "--control", home.control).fails(f"can't read .*/{name}: isn't a regular file")


def test_options_may_stand_between_names(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        "from ra_plugins.spp.plugin import plugin\n\n\n@plugin('rcpt')\ndef mine():\n    'Mine.'\n"
    )
    folder = tmp_path / "plugins"
    lines: list[list[str | Path]] = [
        [folder, "--force", tmp_path / "mine.py"],
        [folder, "msa", "--force", tmp_path / "mine.py"],
        ["--force", folder, tmp_path / "mine.py", "msa"],
    ]
    for line in lines:
        done = Done("install", *ME, *line)
        assert done.status == 0 and str(folder / "mine") in done.output.split(), done.errors
    assert Done("install", "--force").fails(".*required: DIR.*")
    assert Done("rblchecks", "nowhere.invalid", "--self-test", "no list").fails("of the lists on the command line, .*")


def test_a_slow_plugin_in_try(home: Home, attempt: Callable[..., Done]) -> None:
    home.plugins("[mail]", ":sleep 1000")
    done = attempt("--seconds", "0.1")
    assert done.status == 2 and "no end after 0.1 seconds" in done.output


def test_try_is_interrupted(home: Home) -> None:
    "Control-C: the plugin that runs ends too, and there is no traceback."
    home.plugins("[mail]", ":echo $$ > plugin; exec sleep 1000")
    arguments = ["try", *SESSION, "--to", "ben@example.org", "--control", str(home.control)]
    process = subprocess.Popen([*COMMAND, *arguments], env=ENVIRON, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    plugin = home.path / "plugin"
    until(lambda: plugin.exists() and plugin.read_text().endswith("\n"), "the plugin runs")
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=PATIENCE)
    gone(int(plugin.read_text()))
    assert process.returncode != 0 and b"Traceback" not in errors


# smtpd


def test_smtpd_without_control_files(tmp_path: Path) -> None:
    assert Done("smtpd", "--control", tmp_path).fails(f"can't read {tmp_path}/me: No such file or directory")
    (tmp_path / "me").mkdir()
    assert Done("smtpd", "--control", tmp_path).fails(f"can't read {tmp_path}/me: Is a directory")


def test_smtpd_without_users(home: Home) -> None:
    missing = home.path / "missing"
    assert Done("smtpd", "--control", home.control, "--users", missing).fails(
        f"can't read {missing}: No such file or directory"
    )


def test_smtpd_at_a_port_in_use(home: Home) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        done = Done("smtpd", "--control", home.control, "--port", port)
    assert done.fails(f"can't listen at 127.0.0.1 port {port}: .*ddress already in use.*")


@pytest.mark.parametrize(
    "where", ["--port=99999", "--port=-1", "--host=192.0.2.1", "--host=nowhere.invalid", "--host=..", "--host=\u2028"]
)
def test_smtpd_where_it_cannot_listen(home: Home, where: str) -> None:
    assert Done("smtpd", "--control", home.control, "--port=0", where).fails(".+")


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT"])
def test_smtpd_ends_with_its_plugins(home: Home, serve: Callable[..., Server], name: str) -> None:
    "A signal ends it with status 0, clients and plugins in the middle of something or not."
    home.plugins("[mail]", ":echo $$ > plugin; exec sleep 1000")
    server = serve()
    wire = server.wire()
    wire.reply()
    wire.send(b"MAIL FROM:<>\r\n")
    plugin = home.path / "plugin"
    until(lambda: plugin.exists() and plugin.read_text().endswith("\n"), "the plugin runs")
    idle = server.wire()
    idle.reply()
    server.process.send_signal(getattr(signal, name))
    assert server.process.wait(PATIENCE) == 0
    gone(int(plugin.read_text()))
    assert wire.rest() == idle.rest() == b""
    assert server.said() == []


def test_smtpd_without_standard_input_and_output(home: Home) -> None:
    "As a service manager may start it: descriptors 0 and 1 closed."
    home.plugins("[mail]", ":echo E550 no")
    arguments = " ".join(f"'{word}'" for word in (*COMMAND, "smtpd", "--control", home.control, "--port", "0"))
    process = subprocess.Popen(
        ["sh", "-c", f"exec {arguments} <&- >&-"], env=ENVIRON, stderr=subprocess.PIPE, text=True
    )
    assert process.stderr
    port = int(process.stderr.readline().split("port ")[1].split(",")[0])
    with socket.create_connection(("127.0.0.1", port)) as client, client.makefile("rb") as heard:
        client.sendall(b"MAIL FROM:<>\r\nQUIT\r\n")
        assert heard.read().split(b"\r\n")[1] == b"550 no"
    process.send_signal(signal.SIGTERM)
    assert process.wait(PATIENCE) == 0
    logged = [line.partition(" - ")[2] for line in process.stderr]
    assert logged == ["127.0.0.1 has called\n", "127.0.0.1 is gone: it has said goodbye\n"]
    process.stderr.close()


# Where the output goes


def test_nobody_reads_the_output() -> None:
    "A closed pipe, as with `| head -0`."
    reader, writer = os.pipe()
    os.close(reader)
    done = Done("list", stdout=writer)
    os.close(writer)
    assert (done.status, done.errors) == (FAULT, "")


def test_the_disk_is_full() -> None:
    with open("/dev/full", "wb") as full:
        assert Done("show", *catalogue(), stdout=full).fails(".*No space left on device")


def test_demo() -> None:
    "It shows four conversations through the service, what that has decided, and a dry run, and leaves nothing behind."
    done = Done("demo")
    assert (done.status, done.errors) == (0, "")
    assert done.output.count("\n--- ") == 6 and "the service doesn't answer" not in done.output
    for line in (
        "S: 250 ok",
        "S: 451 Temporary Failure: Server overload",
        "started tarpitting",
        "4 rcptchecksfile: refuse 5xx",
        "The session is refused",
    ):
        assert line in done.output


# overload-flag


def test_overload_flag(home: Home) -> None:
    "Up over 100 messages, down below 50, and as it was between."
    flag = home.control / "overloaded"
    line = "messages in queue but not yet preprocessed:"
    for count, up in ((0, False), (100, False), (101, True), (51, True), (50, True), (49, False), (60, False)):
        home.program("qstat", f"#!/bin/sh\necho messages in queue: 9999\necho {line} {count}\n")
        done = Done("overload-flag", "--control", home.control, "--qstat", home.path / "qstat")
        assert (done.status, done.output, flag.exists()) == (0, "", up), count
        assert re.fullmatch(rf"(overload-flag: pid \d+ - (raised|lowered) {flag}: queue {count} .*\n)?", done.errors)


def test_overload_flag_cannot_measure(home: Home) -> None:
    "A count that can't be had changes nothing, and is told in the log."
    for text in ("#!/bin/sh\nexit 1\n", "#!/bin/sh\necho nonsense\n", "not a program", "#!/bin/sh\nkill -9 $$\n"):
        home.program("qstat", text)
        done = Done("overload-flag", "--control", home.control, "--qstat", home.path / "qstat")
        assert done.status == FAULT and not done.output
        assert re.fullmatch(r"overload-flag: pid \d+ - can't read queue: .*\n", done.errors)
    assert not (home.control / "overloaded").exists()


@pytest.mark.parametrize(
    "line", ["--queue 1", "--queue 50 100", "--queue x 1", "--no-queue", "--every 0", "--nonsense", "more"]
)
def test_overload_flag_wrong_command_lines(line: str) -> None:
    done = Done("overload-flag", *line.split())
    assert done.fails(".+")


def test_overload_flag_that_is_a_link_to_nothing_yet(home: Home) -> None:
    "Into /run, for example: the flag is up when the command says so, and the link outlives it."
    flag, target = home.control / "overloaded", home.path / "run-overloaded"
    flag.symlink_to(target)
    line = "messages in queue but not yet preprocessed:"
    for count, up in ((500, True), (500, True), (1, False), (500, True)):
        home.program("qstat", f"#!/bin/sh\necho {line} {count}\n")
        done = Done("overload-flag", "--control", home.control, "--qstat", home.path / "qstat")
        assert (done.status, flag.exists(), target.exists(), flag.is_symlink()) == (0, up, up, True), done.errors
    target.unlink()
    flag.unlink()
    flag.symlink_to("/nowhere/flag")
    done = Done("overload-flag", "--control", home.control, "--qstat", home.path / "qstat")
    assert done.status == FAULT and "can't raise" in done.errors and not flag.exists()


def test_overload_flag_goes_on_until_it_is_told(home: Home) -> None:
    "The flag that it raises is the one that turns clients away."
    home.program("qstat", "#!/bin/sh\necho messages in queue but not yet preprocessed: $(cat count)\n")
    (home.path / "count").write_text("500")
    process = subprocess.Popen(
        [*COMMAND, "overload-flag", "--control", home.control, "--qstat", home.path / "qstat", "--every", "0.02"],
        env=ENVIRON,
        cwd=home.path,
        stderr=subprocess.PIPE,
    )
    assert process.stderr and b"raised" in process.stderr.readline()
    home.plugins("[mail]", "plugins/overload")
    attempt = ("try", *SESSION, "--to", "ben@example.org", "--control", home.control)
    assert Done(*attempt).status == 2
    (home.path / "count").write_text("1")
    assert b"lowered" in process.stderr.readline()
    assert Done(*attempt).status == 0
    process.send_signal(signal.SIGTERM)
    assert (process.wait(PATIENCE), process.stderr.read()) == (0, b"")
    process.stderr.close()


def test_what_is_required_is_named_and_nothing_else() -> None:
    assert Done("install").fails("the following arguments are required: DIR")


def test_a_page_that_installs_into_a_folder_makes_it() -> None:
    "A plugin's page may be the first that somebody reads, and then there is no /var/qmail/plugins."
    told = 0
    for path in (Path(__file__).parent.parent / "nbs").rglob("*.ipynb"):
        for cell in json.loads(path.read_text())["cells"]:
            if cell["cell_type"] == "markdown":
                for line in re.findall(r"ra-plugins install [^`\n]*/var/qmail/plugins[^`\n]*", "".join(cell["source"])):
                    assert "--create" in line, (path, line)
                    told += 1
    assert told  # the pages of plugins get theirs from docs/administrator.py, and test_docs.py looks at that


# In the same words


@pytest.mark.parametrize("text", ["example.net. MX ten mx\n", None], ids=["broken", "missing"])
def test_a_zone_that_cannot_be_read_is_told_in_one_way(home: Home, tmp_path: Path, text: str | None) -> None:
    "By each command with an option --zone."
    zone = tmp_path / "zone"
    if text is not None:
        zone.write_text(text)
    tried = Done("try", *SESSION, "--control", home.control, "--zone", zone)
    linted = Done("spf", "lint", "example.org", "--zone", zone)
    told = f"can't read {zone}: No such file or directory\n" if text is None else f"--zone: {zone}:1: expecting an integer; "
    for done in (tried, linted):
        assert done.status == FAULT and done.errors.partition(": ")[2].startswith(told), done.errors


def test_units_asks_for_no_more_than_it_needs() -> None:
    assert Done("units").fails("the following arguments are required: DIR")


def test_completion_knows_the_options_of_the_commands_for_spf() -> None:
    script = completion("bash", "ra-plugins")
    some = {"explain": "--void-lookups", "diff": "--domain", "flatten": "--keep-mx", "lint": "--strict", "audit": "--offline"}
    for name, option in some.items():
        start = f"_shtab_ra_plugins_spf_{name}_option_strings=("
        (line,) = (line for line in script.splitlines() if line.startswith(start))
        assert option in line.removeprefix(start).rstrip(")").split()


def test_completion_knows_every_daemon_and_that_logs_are_files() -> None:
    script = completion("bash", "ra-plugins")
    (daemons,) = re.findall(r"ra_plugins_units_pos_1_choices=\(([^)]*)\)", script)
    assert set(daemons.split()) == set(DAEMONS) == {"service", "rater", "postfix"}
    assert "ra_plugins_report_pos_0_COMPGEN=_shtab_compgen_files\n" in script
