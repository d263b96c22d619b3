"What `make` hands on, and that what CI installs is one list."

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest
from notebooks import ROOT

PACKAGES = ROOT / ".ci" / "packages"


def commands(*words: str) -> str:
    "What make would do."
    environ = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    done = subprocess.run(["make", "--dry-run", *words], cwd=ROOT, env=environ, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("test", "ARGS=-k spp"), "pytest -n auto --maxprocesses 4 -k spp\n"),
        (("quick", "ARGS=-x"), "-x\n"),
        (("notebooks", "NB=nbs/index.ipynb"), "tests/notebooks.py nbs/index.ipynb\n"),
        (("plugin", "NAME=putoff"), "tools/plugin.py 'putoff'\n"),
        (("bench", "ARGS=rater"), "bench/run.py rater\n"),
    ],
)
def test_what_is_asked_for_is_handed_on(words: tuple[str, ...], expected: str) -> None:
    assert expected in commands(*words)


def test_jupyterlab_gets_options_and_may_be_roots() -> None:
    started = commands("lab", "ARGS=--no-browser --port 9999")
    assert "--no-browser --port 9999" in started and "pre_save_hook=nbdev.clean.clean_jupyter" in started
    assert ("--allow-root" in started) == (os.geteuid() == 0)


def test_what_make_quick_runs_is_there() -> None:
    named = re.findall(r"tests/test_\w+\.py", commands("quick"))
    assert len(named) > 10 and [each for each in named if not (ROOT / each).exists()] == []


def packages() -> dict[str, str]:
    "Debian's packages, each with the command that fails where it is missing."
    lines = [line.split(None, 1) for line in PACKAGES.read_text().splitlines() if line and not line.startswith("#")]
    return {name: command for name, command in lines}


def test_ci_installs_one_list_of_packages() -> None:
    assert {"gcc", "libc6-dev", "musl-tools", "dash", "systemd", "redis-server", "chromium"} <= set(packages())
    assert "apt-get" not in (ROOT / ".github" / "workflows" / "site.yaml").read_text()
    assert ".ci/packages" in (ROOT / ".ci" / "run").read_text()


def test_it_has_what_tests_and_benchmarks_ask_for() -> None:
    asking = [*(ROOT / "tests").glob("*.py"), ROOT / "bench" / "needs.py"]
    named = {
        name for path in asking for name in re.findall(r"Debian(?:'s package|:) ([a-z][a-z0-9-]+)", path.read_text())
    }
    assert named and named <= set(packages()), named - set(packages())


def test_its_commands_say_what_is_missing(tmp_path: Path) -> None:
    "With nothing on the path, each of them fails, but for what is looked for elsewhere."
    (tmp_path / "ls").symlink_to("/bin/false")
    found = {name for name, command in packages().items() if passes(command, str(tmp_path))}
    assert found == set()


def passes(command: str, path: str) -> bool:
    done = subprocess.run(["/bin/bash", "-c", command], env={"PATH": path}, capture_output=True)
    return done.returncode == 0
