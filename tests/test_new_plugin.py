"""`make plugin` begins a plugin that passes every check, and nothing else has to be edited by hand for it."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from notebooks import ROOT
from test_project import BIN

NAME = "aardvarks"  # before all others in any list
LISTS = ["cli/00_listing", "cli/01_install", "cli/04_command", "guides/first_five_minutes", "guides/from_the_c_plugins"]


def files(top: Path) -> set[str]:
    found = (path.relative_to(top) for path in top.rglob("*") if path.is_file())
    return {str(path) for path in found if not {"__pycache__", ".ipynb_checkpoints"} & set(path.parts)}


class Copy:
    "A copy of the project, in which a plugin has been begun as `make plugin` does it."

    def __init__(self, folder: Path):
        self.folder = folder
        ignored = shutil.ignore_patterns("__pycache__", ".ipynb_checkpoints", ".hypothesis")
        for name in ("nbs", "ra_plugins", "tests", "tools", "docs", "bench"):
            shutil.copytree(ROOT / name, folder / name, ignore=ignored)
        for name in ("settings.ini", "pyproject.toml", "README.md"):
            shutil.copy(ROOT / name, folder / name)
        self.before = {name: (folder / name).read_bytes() for name in files(folder)}
        notebooks = [f"nbs/{name}.ipynb" for name in (f"plugins/{NAME}", "index")]
        self.run("tools/plugin.py", NAME)
        self.program("nbdev_export")
        self.stored = self.run("tests/notebooks.py", *notebooks)
        self.program("nbdev_clean")
        self.run("docs/readme.py")

    def run(self, *words: str) -> str:
        return self.program(sys.executable, *words)

    def program(self, name: str, *words: str) -> str:
        "Run something in the copy; it has to end well. What it says."
        # Of a copy that isn't a git checkout some tests are skipped, which CI wouldn't have, and coverage isn't asked.
        usual = {key: value for key, value in os.environ.items() if key != "CI" and not key.startswith("COVERAGE_")}
        environ = {**usual, "PYTHONPATH": str(self.folder)}
        command = [str(BIN / name), *words]  # an absolute name stays what it is
        done = subprocess.run(
            command, cwd=self.folder, env=environ, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        if done.returncode:
            pytest.fail(f"{' '.join(words)} ends with status {done.returncode}:\n{done.stdout}", pytrace=False)
        return done.stdout


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Copy:
    return Copy(tmp_path_factory.mktemp("project"))


def test_nothing_else_changes_but_what_is_made(copy: Copy) -> None:
    now = {name: (copy.folder / name).read_bytes() for name in files(copy.folder) if not name.startswith("tests/.")}
    changed = {
        name for name in now if now[name] != copy.before.get(name) and ".cache" not in name and "_proc" not in name
    }
    made = {f"ra_plugins/plugins/{NAME}.py", "ra_plugins/_modidx.py", "nbs/index.ipynb", "README.md"}
    assert changed == made | {f"nbs/plugins/{NAME}.ipynb"}
    assert (
        f"| [{NAME}](nbs/plugins/{NAME}.ipynb) | RCPT | Refuse mail for one recipient. |" in now["README.md"].decode()
    )


def test_it_is_said_which_stored_outputs_have_changed(copy: Copy) -> None:
    changed = dict(re.findall(r"^(.+): another output of cells? ([\d, ]+)$", copy.stored, re.MULTILINE))
    assert set(changed) == {"index", f"plugins/{NAME}"} and len(changed["index"].split(", ")) == 1


@pytest.mark.parametrize("notebook", [f"plugins/{NAME}", "index", "hosts/00_catalogue", *LISTS])
def test_notebooks_print_what_they_have_stored(copy: Copy, notebook: str) -> None:
    copy.run("tests/notebooks.py", "--check", f"nbs/{notebook}.ipynb")


def test_the_projects_own_tests_pass(copy: Copy) -> None:
    modules = [f"tests/test_{name}.py" for name in ("declarations", "project", "rooms", "properties")]
    chosen = f"{NAME} or clean or exports or index or meaning or rooms or order"
    copy.run("-m", "pytest", "-q", "-p", "no:cacheprovider", *modules, "-k", chosen)


def test_ruff_and_mypy_have_nothing_to_say(copy: Copy) -> None:
    copy.run("-m", "ruff", "check", f"ra_plugins/plugins/{NAME}.py")
    copy.run("-m", "mypy", f"ra_plugins/plugins/{NAME}.py")


def test_a_declared_command_that_is_never_answered_is_found(copy: Copy) -> None:
    path = copy.folder / "nbs" / "plugins" / f"{NAME}.ipynb"
    stored = path.read_text(encoding="utf-8")
    path.write_text(
        stored.replace("answers=(Refuse,)", "answers=(Refuse, Delay)").replace("import Refuse", "import Delay, Refuse")
    )
    try:
        command = [sys.executable, "tests/notebooks.py", "--check", str(path)]
        environ = {**os.environ, "PYTHONPATH": str(copy.folder)}
        done = subprocess.run(command, cwd=copy.folder, env=environ, capture_output=True, text=True)
    finally:
        path.write_text(stored, encoding="utf-8")
    assert done.returncode == 1
    assert done.stderr.startswith(f"plugins/{NAME}: no cell has the plugin answer Delay, which it declares\n")


@pytest.mark.parametrize(
    "name", ["", "Tarpit", "my-plugin", "my_plugin", "2many", "class", "tarpit", "shared", "x" * 31, "../x", "é"]
)
def test_names_that_can_be_none(name: str) -> None:
    before = files(ROOT / "nbs")
    done = subprocess.run([sys.executable, ROOT / "tools" / "plugin.py", name], capture_output=True, text=True)
    assert done.returncode == 1 and done.stderr.count("\n") == 1 and "Traceback" not in done.stderr
    assert files(ROOT / "nbs") == before
