"""Plugins of somebody else's, from a package and from a file: listed, shown, installed, run and found again like ours.

The package is a wheel, as pip would build it, and it is installed by pip into a folder that isn't this environment's.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import pytest
from mailserver import COMMAND, ENVIRON, ME, PATIENCE, ROOT, Home, Server

from ra_plugins.hosts import catalogue

FAULT = 3
OURS = sum(path.stem != "__init__" for path in (ROOT / "ra_plugins" / "plugins").glob("*.py"))  # how many plugins there are
PUTOFF = """
"Put off whoever comes for the first time."

from ra_plugins.ask.answerer import Answerer
from ra_plugins.ask.question import Question
from ra_plugins.spp.command import Refuse
from ra_plugins.spp.plugin import plugin
from ra_plugins.support.environment import Environment, text, variable


class Known(Question):
    "Has this client been here before?"

    answerer = "example_plugins.putoff:KnownAnswerer"

    def __init__(self, address):
        self.address = address


class KnownSettings(Environment):
    "What the answerer can be told."

    clients = variable("PUTOFFKNOWN", text, "", "The addresses that have been here, with blanks between.")


class KnownAnswerer(Answerer):
    settings_class = KnownSettings

    def answer(self, question, until):
        return question.address in self.settings.clients.split()


class PutoffSettings(Environment):
    "What putoff can be told."

    advice = variable("PUTOFFADVICE", text, "later", "The last word of the reply.")


@plugin("rcpt", settings=PutoffSettings, asks=(Known,), answers=(Refuse,), seconds=5)
async def putoff(session, settings, log):
    "Put off a client that hasn't been here."
    if not await Known(str(session.client_ip)):
        log("put off")
        return Refuse(451, "4.7.1", f"Come back {settings.advice}")
"""
MUTE = """class Mute(Exception):
    def __str__(self):
        raise SystemExit("not a word")


raise Mute
"""
BROKEN = {
    "example_plugins/half.py": "def (",
    "example_plugins/leaves.py": "raise SystemExit('no licence')",
    "example_plugins/talks.py": "print('Thank you for choosing talks!')\nfrom example_plugins.putoff import putoff",
    "example_plugins/replaces.py": "from ra_plugins.spp.plugin import plugin\n@plugin('mail')\ndef msa():\n    'All.'",
}
POINTS = """[ra_plugins.plugins]
putoff = example_plugins.putoff:putoff
half = example_plugins.half:half
leaves = example_plugins.leaves:leaves
lost = example_plugins.putoff:nowhere
missing = example_plugins.missing:missing
msa = example_plugins.replaces:msa
question = example_plugins.putoff:Known
talks = example_plugins.talks:putoff
"""


def wheel(folder: Path) -> Path:
    "A wheel of a package with one good plugin and all kinds of bad ones (the binary distribution format of Python)."
    info = "example_plugins-1.0.dist-info"
    files = {
        "example_plugins/__init__.py": "",
        "example_plugins/putoff.py": PUTOFF,
        **BROKEN,
        f"{info}/METADATA": "Metadata-Version: 2.1\nName: example-plugins\nVersion: 1.0\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: a test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/entry_points.txt": POINTS,
    }
    path = folder / "example_plugins-1.0-py3-none-any.whl"
    with ZipFile(path, "w") as archive:
        record = ""
        for name, content in files.items():
            digest = base64.urlsafe_b64encode(hashlib.sha256(content.encode()).digest()).rstrip(b"=").decode()
            record += f"{name},sha256={digest},{len(content.encode())}\n"
            archive.writestr(name, content)
        archive.writestr(f"{info}/RECORD", record + f"{info}/RECORD,,\n")
    return path


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    "A folder into which pip has installed the package."
    folder = tmp_path_factory.mktemp("packages")
    options = ["--no-index", "--no-deps", "--no-compile", "--quiet", "--disable-pip-version-check"]
    target = ["--target", str(folder / "site"), str(wheel(folder))]
    done = subprocess.run([sys.executable, "-m", "pip", "install", *options, *target], capture_output=True, text=True)
    if "No module named pip" in done.stderr:
        pytest.skip("there is no pip in this environment")
    assert done.returncode == 0, done.stderr
    return folder / "site"


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    "A file with two plugins, one of which needs a module beside it, and one that it has imported."
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "beside.py").write_text("TEXT = 'Not here'\n")
    path = tmp_path / "mine" / "my_plugins.py"
    path.write_text(
        textwrap.dedent("""
        from beside import TEXT
        from ra_plugins.plugins.tarpit import tarpit
        from ra_plugins.spp.command import Accept, Refuse
        from ra_plugins.spp.plugin import plugin

        print("printed when it is imported")

        @plugin("mail", answers=(Refuse,))
        def stranger(session, log):
            "Refuse whoever isn't Ana."
            log(f"{session.mail_from} is a stranger")
            return Refuse(550, "5.7.1", TEXT)

        @plugin("rcpt", answers=(Accept,))
        def friend():
            "Accept."
            return Accept()
        """)
    )
    return path


def command(*arguments: str | Path, packages: Path | None = None) -> subprocess.CompletedProcess[str]:
    "`ra-plugins` with the package on Python's path, or without it."
    path = os.pathsep.join([str(ROOT), *([str(packages)] if packages else [])])
    environ = {**ENVIRON, "PYTHONPATH": path}
    line = [*COMMAND, *map(str, arguments)]
    done = subprocess.run(line, env=environ, capture_output=True, text=True, timeout=PATIENCE, stdin=subprocess.DEVNULL)
    assert "Traceback" not in done.stdout + done.stderr, done.stderr
    return done


def program(path: Path, **environ: str) -> tuple[int, str, str]:
    "Run a program as qmail-smtpd does: with none of our environment."
    done = subprocess.run(
        [path], env=environ, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=PATIENCE
    )
    return done.returncode, done.stdout, done.stderr.replace(f"pid {os.getpid()} ", "pid PID ")


def one_line_each(errors: str) -> None:
    "Each of the package's faults, once."
    lines = errors.splitlines()
    assert [line for line in lines if not line.startswith("ra-plugins: ")] == []
    expected = [
        "half = example_plugins.half:half (example-plugins 1.0) can't be loaded: invalid syntax (half.py, line 1)",
        "leaves = example_plugins.leaves:leaves (example-plugins 1.0) can't be loaded: SystemExit: no licence ",
        "lost = example_plugins.putoff:nowhere (example-plugins 1.0) can't be loaded: there is no nowhere in ",
        "missing = example_plugins.missing:missing (example-plugins 1.0) can't be loaded: ModuleNotFoundError: ",
        "example-plugins 1.0: there is a plugin msa of ra-plugins; this one is left out",
        "example-plugins 1.0: <class 'example_plugins.putoff.Known'> isn't a plugin",
        "talks = example_plugins.talks:putoff (example-plugins 1.0): printed by mistake: Thank you for choosing talks!",
    ]
    found = [[line for line in lines if line.startswith(f"ra-plugins: {start}")] for start in expected]
    assert [len(each) for each in found] == [1] * len(expected), errors
    assert len(lines) == len(expected)


# A package


def test_a_package_is_listed_and_what_is_broken_in_it_costs_a_line_each(packages: Path) -> None:
    done = command("list", packages=packages)
    assert done.returncode == 0
    rows = [line.split(maxsplit=2) for line in done.stdout.splitlines()]
    assert ["putoff", "rcpt", "example-plugins 1.0  Put off a client that hasn't been here."] in rows
    assert [row[2].split()[0] for row in rows if row[0] == "msa"] == ["ra-plugins"]
    assert len(rows) == OURS + 1  # ours, and this one
    one_line_each(done.stderr)


def test_a_package_is_shown_with_what_it_asks(packages: Path) -> None:
    done = command("show", "putoff", packages=packages)
    assert done.returncode == 0
    for expected in (
        "putoff: Put off a client that hasn't been here.\n",
        "  Comes with  example-plugins 1.0\n",
        "  Asks        Known: Has this client been here before?\n",
        "  Answers     Refuse\n",
        "  Takes       at most 5 seconds\n",
        "    [rcpt]\n    plugins/putoff\n",
        "  PUTOFFADVICE\n",
        "Settings of who answers Known, in the same place, and with a service in its own settings:\n\n  PUTOFFKNOWN\n",
    ):
        assert expected in done.stdout
    one_line_each(done.stderr)


def test_a_package_is_installed_by_name_only_and_runs(packages: Path, tmp_path: Path) -> None:
    "Its program finds package and answerer in their folder; ours are installed beside a broken package."
    ours = command("install", *ME, tmp_path / "all", packages=packages)
    assert ours.returncode == 0 and not (tmp_path / "all" / "putoff").exists()
    assert len(ours.stdout.splitlines()) == len(list((tmp_path / "all").iterdir())) == OURS
    one_line_each(ours.stderr)
    done = command("install", *ME, tmp_path / "one", "putoff", packages=packages)
    assert (done.returncode, done.stdout) == (0, f"{tmp_path}/one/putoff\n")
    path = tmp_path / "one" / "putoff"
    client = {"TCPREMOTEIP": "192.0.2.1", "PUTOFFADVICE": "soon"}
    assert program(path, **client) == (0, "E451 Come back soon (#4.7.1)\n", "putoff: pid PID - put off\n")
    assert program(path, **client, PUTOFFKNOWN="192.0.2.7 192.0.2.1") == (0, "", "")


def test_a_plugin_of_ours_is_not_replaced_by_one_of_its_name(packages: Path, tmp_path: Path) -> None:
    done = command("install", *ME, tmp_path, "msa", packages=packages)
    assert done.returncode == 0 and "there is a plugin msa of ra-plugins; this one is left out" in done.stderr
    assert program(tmp_path / "msa")[1] == "E550 You should be authenticated\n"


# A file


def test_a_file_is_listed_shown_and_installed(mine: Path, tmp_path: Path) -> None:
    "All plugins that it defines, and not the one of ours that it imports."
    listed = command("list", mine)
    assert listed.returncode == 0
    rows = [line.split(maxsplit=3) for line in listed.stdout.splitlines()]
    assert ["stranger", "mail", str(mine), "Refuse whoever isn't Ana."] in rows and len(rows) == OURS + 2
    assert [line for line in listed.stderr.splitlines() if "printed when it is imported" not in line] == []
    shown = command("show", mine)
    assert shown.returncode == 0 and shown.stdout.count("  Comes with  ") == 2
    assert [name for name in ("stranger: ", "friend: ", str(mine)) if name not in shown.stdout] == []
    done = command("install", *ME, tmp_path / "plugins", mine, "tarpit")
    assert done.returncode == 0
    assert sorted(done.stdout.split()) == [
        str(tmp_path / "plugins" / name) for name in ("friend", "stranger", "tarpit")
    ]


def test_a_file_is_imported_from_where_it_is(mine: Path, tmp_path: Path) -> None:
    "With the module beside it. What it prints goes to the log."
    assert command("install", *ME, tmp_path / "plugins", mine).returncode == 0
    status, output, log = program(tmp_path / "plugins" / "stranger", SMTPMAILFROM="eva@example.net")
    assert (status, output) == (0, "E550 Not here (#5.7.1)\n")
    assert log == "printed when it is imported\nstranger: pid PID - eva@example.net is a stranger\n"
    mine.unlink()
    status, output, log = program(tmp_path / "plugins" / "stranger", SMTPMAILFROM="eva@example.net")
    assert (status, output, log.count("\n")) == (0, "", 1) and "can't be loaded, so the mail goes on" in log


@pytest.mark.parametrize(
    ("name", "text", "why"),
    [
        ("half.py", "def (", r"invalid syntax \(half.py, line 1\)"),
        ("leaves.py", "raise SystemExit('no licence')", r"SystemExit: no licence \(leaves.py, line 1\)"),
        ("raises.py", "\n1 / 0", r"ZeroDivisionError: division by zero \(raises.py, line 2\)"),
        ("lacks.py", "import nowhere_at_all", "ModuleNotFoundError: No module named 'nowhere_at_all' .*"),
        ("raises_base.py", "raise BaseException('no')", r"BaseException: no \(raises_base.py, line 1\)"),
        ("exits.py", "raise GeneratorExit", r"GeneratorExit:  \(exits.py, line 1\)"),
        ("interrupts.py", "raise KeyboardInterrupt", r"KeyboardInterrupt:  \(interrupts.py, line 1\)"),
        ("mute.py", MUTE, "Mute, whose text raises SystemExit"),
        ("__main__.py", "", "__main__ means something to Python already; the file needs a name of its own"),
        ("email.py", "", "Python has another module email .*; the file needs a name of its own"),
        ("my-plugin.py", "", "its name should be that of a module: .*"),
        ("missing.py", None, "No such file or directory"),
    ],
)
def test_a_broken_file_costs_a_line(tmp_path: Path, name: str, text: str | None, why: str) -> None:
    "`list` goes on without it; `show` and `install`, which were asked for just this one, fail by the same line."
    path = tmp_path / name
    if text is not None:
        path.write_text(text)
    line = re.compile(f"ra-plugins: {re.escape(str(path))} can't be loaded: {why}\n")
    listed = command("list", path)
    assert listed.returncode == 0 and len(listed.stdout.splitlines()) == OURS and line.fullmatch(listed.stderr)
    for arguments in (("show", path), ("install", *ME, tmp_path / "plugins", path)):
        done = command(*arguments)
        assert (done.returncode, done.stdout) == (FAULT, "") and line.fullmatch(done.stderr), done.stderr
    assert not (tmp_path / "plugins").exists()


@pytest.mark.parametrize("name", ["main", "output", "os", "sys", "error", "__builtins__"])
def test_a_plugin_whose_name_its_program_needs(tmp_path: Path, name: str) -> None:
    path = tmp_path / "named.py"
    path.write_text(f"from ra_plugins.spp.plugin import plugin\n\n\n@plugin('rcpt')\ndef {name}():\n    'Named.'\n")
    line = f"{path}: a plugin can't be called {name}, which means something else in its program or is too long\n"
    listed, installed = command("list", path), command("install", *ME, tmp_path / "plugins", path)
    assert (listed.returncode, listed.stderr, len(listed.stdout.splitlines())) == (0, f"ra-plugins: {line}", OURS)
    assert (installed.returncode, installed.stdout, installed.stderr) == (FAULT, "", f"ra-plugins: {line}")


def test_what_a_file_does_to_others(tmp_path: Path) -> None:
    "One that empties Python's path, one that unsays what it has declared, and one that wants to clear the screen."
    head = "import sys\nfrom ra_plugins.spp.plugin import plugin\n\n\n@plugin('rcpt')\n"
    files = {
        "clearing.py": f"{head}def clearing():\n    'Clear.'\n\n\nsys.path.clear()\n",
        "unsaid.py": f"{head}def unsaid():\n    'Unsay.'\n\n\nunsaid.stages = None\n",
        "loud.py": f"{head}def loud():\n    'Loud \\x1b[2J.'\n",
    }
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    done = command("list", *(tmp_path / name for name in files))
    assert done.returncode == 0 and len(done.stdout.splitlines()) == OURS + 2
    assert "clearing" in done.stdout and "Loud \\x1b[2J." in done.stdout and "\x1b" not in done.stdout
    first, second = done.stderr.splitlines()
    assert re.search(r"clearing.py: it has taken \d+ folders off Python's path", first)
    assert "unsaid.py: the plugin unsaid isn't what it was when it was defined" in second
    shown = command("show", tmp_path / "loud.py").stdout
    assert "Loud \\x1b[2J." in shown and "\x1b" not in shown


def test_a_file_that_never_stops_loading(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "never_ends.py"
    path.write_text("while True:\n    pass\n")
    monkeypatch.setattr(catalogue, "LOADING_SECONDS", 0.2)
    lines: list[str] = []
    assert "msa" in catalogue.catalogue([str(path)], lines.append)
    assert len(lines) == 1
    assert lines[0].startswith(f"{path} can't be loaded: Overdue: no end after 0.2 seconds (never_ends.py, line ")


# From a program to its plugin


def test_every_installed_program_leads_to_its_plugin(packages: Path, mine: Path, tmp_path: Path) -> None:
    "In a process that hasn't seen package or file: whatever the program is called, and a foreign program is None."
    folder = tmp_path / "plugins"
    assert command("install", *ME, folder, "putoff", "msa", mine, packages=packages).returncode == 0
    (folder / "msa").rename(folder / "renamed")
    (folder / "foreign").write_text("#!/bin/sh\nfrom x import y\n")
    text = (folder / "renamed").read_text()
    (folder / "broken").write_text(text.replace("import msa", "import nobody"))
    script = """
import sys
from ra_plugins.hosts.catalogue import plugin_of
for path in sys.argv[1:]:
    print(plugin_of(path))
"""
    names = ("putoff", "renamed", "stranger", "friend", "foreign", "broken", "missing")
    done = subprocess.run(
        [sys.executable, "-c", script, *(str(folder / name) for name in names)],
        env={**ENVIRON, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.stdout.splitlines() == [
        "<plugin putoff at rcpt>",
        "<plugin msa at mail>",
        "<plugin stranger at mail>",
        "<plugin friend at rcpt>",
        *["None"] * 3,
    ]
    lines = [line for line in done.stderr.splitlines() if "printed when" not in line]
    assert len(lines) == 1 and f"{folder}/broken can't be loaded: " in lines[0]


def test_try_runs_and_shows_all_three_kinds(packages: Path, mine: Path, home: Home) -> None:
    "What the package's plugin asks is answered by the answerer that it brings, with its settings, and told."
    home.plugins("[mail]", "plugins/overload", "[rcpt]", "others/putoff", "others/friend")
    install = command("install", *ME, home.path / "others", "putoff", mine, packages=packages)
    assert install.returncode == 0
    client = ["--ip", "192.0.2.1", "--helo", "mail.example.net", "--from", "ana@example.net", "--to", "ben@example.org"]
    line = ["try", *client, "--control", str(home.control), "--json"]
    done = command(*line)
    told = [(run["plugin"], run["asked"], run["answered"], run["failure"]) for run in runs(done.stdout)]
    assert done.returncode == 2
    assert [each[0] for each in told] == ["plugins/overload", "others/putoff"]
    plugin, asked, answered, failure = told[1]
    assert [each["answer"] for each in asked] == ["False"] and "Known" in asked[0]["question"]
    assert answered == [{"command": "Refuse", "text": "451 Come back later (#4.7.1)"}]
    assert failure is None
    known = command(*line, "--set", "PUTOFFKNOWN=192.0.2.1")
    assert known.returncode == 0
    assert [(run["plugin"], [each["command"] for each in run["answered"]]) for run in runs(known.stdout)] == [
        ("plugins/overload", []),
        ("others/putoff", []),
        ("others/friend", ["Accept"]),
    ]


def runs(told: str) -> list[dict[str, Any]]:
    "All runs of plugins in what `try --json` tells."
    return [run for step in json.loads(told)["steps"] for run in step["plugins"]]


def test_a_server_serves_all_three_kinds(packages: Path, mine: Path, home: Home, serve: Callable[..., Server]) -> None:
    home.plugins("[rcpt]", "plugins/tarpit", "others/putoff", "others/friend")
    assert command("install", *ME, home.path / "others", "putoff", mine, packages=packages).returncode == 0
    replies = serve(PUTOFFADVICE="soon").talk("EHLO x", "MAIL FROM:<ana@example.net>", "RCPT TO:<ben@example.org>")
    assert replies[-1] == "451 Come back soon (#4.7.1)"


# What a script pays


def test_what_runs_programs_knows_no_catalogue() -> None:
    script = "import sys, ra_plugins.hosts.script; print({'importlib.metadata', 'ra_plugins.hosts.catalogue'} & {*sys.modules})"
    environ = {**ENVIRON, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-S", "-c", script], env=environ, capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("set()\n", "")


@pytest.mark.parametrize("kind", ["msa", "file", "package"])
def test_a_program_looks_up_no_entry_points(packages: Path, mine: Path, tmp_path: Path, kind: str) -> None:
    "It imports neither importlib.metadata nor the catalogue, whosever plugin it runs."
    name, wanted = {"msa": ("msa", "msa"), "file": ("friend", str(mine)), "package": ("putoff", "putoff")}[kind]
    assert command("install", *ME, tmp_path, wanted, packages=packages).returncode == 0
    path = tmp_path / name
    loaded = "print(sorted({'importlib.metadata', 'ra_plugins.hosts.catalogue'} & {*sys.modules}), file=sys.stderr)"
    text = path.read_text()
    assert text.count("    main(") == 1
    path.write_text(text.replace("    main(", f"    {loaded}; main("))
    _, _, log = program(path, TCPREMOTEIP="192.0.2.1")
    assert "[]\n" in log and "importlib" not in log
