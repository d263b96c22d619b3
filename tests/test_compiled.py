"""The compiled package beside the plain one: the same results, errors, copies, and subclasses."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from notebooks import ROOT

from ra_plugins.support.compiled import COMPILED

FACTS = ("suites", "zones", "rater", "errors", "copies", "subclasses", "names")


def facts(package: Path) -> dict[str, Any]:
    "What the package in a folder does."
    environ = {**os.environ, "PYTHONPATH": f"{package}:{ROOT / 'tests'}"}
    command = [sys.executable, str(ROOT / "tests" / "compiled_facts.py")]
    done = subprocess.run(command, env=environ, capture_output=True, text=True, check=True)
    told: dict[str, Any] = json.loads(done.stdout)
    return told


@pytest.mark.skipif(not shutil.which("gcc"), reason="gcc isn't installed; Debian's package gcc has it")
def test_compiled_is_as_plain() -> None:
    folder = ROOT / ".compiled"
    subprocess.run([sys.executable, str(ROOT / "tools" / "compiled_copy.py"), str(folder)], check=True)
    assert all((folder / name.replace(".", "/")).with_suffix(".py").exists() for name in COMPILED)
    plain, compiled = facts(ROOT), facts(folder)
    assert (plain["compiled"], compiled["compiled"]) == ([], list(COMPILED))
    for name in FACTS:
        assert compiled[name] == plain[name], name
    assert all(answer == model for answer, model in compiled["rater"]) and all(compiled["copies"].values())
