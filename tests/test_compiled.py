"""The compiled package beside the plain one: the same results, errors, copies, and subclasses, and the suites on it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Any

import pytest
from notebooks import ROOT

from ra_plugins.support.compiled import COMPILED

HEADERS = Path(sysconfig.get_path("include"), "Python.h")
pytestmark = [
    pytest.mark.skipif(not shutil.which("gcc"), reason="gcc isn't installed; Debian's package gcc has it"),
    pytest.mark.skipif(
        not HEADERS.exists(), reason="Python's headers aren't there: Debian's package python3-dev has them"
    ),
]
FACTS = ("suites", "zones", "rater", "fillings", "errors", "copies", "subclasses", "names")
# Those that take seconds; `make compiled` runs all of SPF's and rater's.
SUITES = (
    "mistakes_at_the_door",
    "rater_config",
    "rater_hostile",
    "spf_bounds",
    "spf_front",
    "spf_places",
    "spf_suites",
)


@pytest.fixture(scope="module")
def copy() -> Path:
    "A copy of the checkout with a compiled package in it. It is made once for a text, whoever asks first."
    folder = ROOT / ".compiled"
    subprocess.run([sys.executable, str(ROOT / "tools" / "compiled_copy.py"), str(folder)], check=True)
    return folder


def facts(package: Path, cases: Path) -> dict[str, Any]:
    "What the package in a folder does; the file of cases is made if it isn't there."
    environ = {**os.environ, "PYTHONPATH": f"{package}:{ROOT / 'tests'}"}
    command = [sys.executable, str(ROOT / "tests" / "compiled_facts.py"), str(cases)]
    done = subprocess.run(command, env=environ, capture_output=True, text=True, check=True)
    told: dict[str, Any] = json.loads(done.stdout)
    return told


def test_compiled_is_as_plain(copy: Path, tmp_path: Path) -> None:
    assert all((copy / name.replace(".", "/")).with_suffix(".py").exists() for name in COMPILED)
    cases = tmp_path / "cases"
    plain, compiled = facts(ROOT, cases), facts(copy, cases)
    assert (plain["compiled"], compiled["compiled"]) == ([], list(COMPILED))
    for name in FACTS:
        assert compiled[name] == plain[name], name
    assert all(answer == model for answer, model in compiled["rater"]) and all(compiled["copies"].values())
    assert compiled["fillings"] == [5, 5]  # of `ana.`, with one that ends the text or begins it


def test_suites_pass_on_compiled(copy: Path) -> None:
    tests = [f"tests/test_{name}.py" for name in SUITES]
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *tests]
    done = subprocess.run(
        command, cwd=copy, env={**os.environ, "PYTHONPATH": str(copy)}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-2000:]
