"Skips are named and counted, and fail on CI unless they are listed; signals are as a test expects them."

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import skips

TESTS = Path(skips.__file__).parent
MODULE = """
import pytest

@pytest.mark.parametrize("number", range(3))
def test_it(number):
    if number < 2:
        pytest.skip({reason!r})
    assert "fails" not in {reason!r}
"""


def run(folder: Path, reason: str, *options: str, **environ: str) -> subprocess.CompletedProcess[str]:
    "A run of pytest over a module of which two tests of three are skipped."
    (folder / "test_some.py").write_text(MODULE.format(reason=reason))
    (folder / "conftest.py").write_text("from skips import pytest_sessionfinish, pytest_terminal_summary\n")
    usual = {name: value for name, value in os.environ.items() if name not in ("CI", "PYTEST_ADDOPTS")}
    command = [sys.executable, "-m", "pytest", "-q", *options, "test_some.py"]
    told = {**usual, "PYTHONPATH": str(TESTS), **environ}
    return subprocess.run(command, cwd=folder, env=told, capture_output=True, text=True)


@pytest.mark.parametrize("options", [(), ("-n", "2")], ids=["in one process", "in two"])
def test_skips_are_counted_by_reason(tmp_path: Path, options: tuple[str, ...]) -> None:
    done = run(tmp_path, "the moon is full", *options)
    assert done.returncode == 0 and "    2  the moon is full\n" in done.stdout


@pytest.mark.parametrize("options", [(), ("-n", "2")], ids=["in one process", "in two"])
def test_a_skip_that_is_not_listed_fails_on_ci(tmp_path: Path, options: tuple[str, ...]) -> None:
    done = run(tmp_path, "the moon is full", *options, CI="true")
    assert done.returncode == 1 and "    2  the moon is full  (not in .ci/skips)\n" in done.stdout


def test_one_that_is_listed_does_not(tmp_path: Path) -> None:
    done = run(tmp_path, skips.listed()[0].replace("*", "anything"), CI="true")
    assert done.returncode == 0 and "not in .ci/skips" not in done.stdout


def test_a_test_that_failed_is_not_run_once_more_where_a_skip_fails_the_run(tmp_path: Path) -> None:
    "It would pass, perhaps, and nobody would hear of the skip."
    failed = tmp_path / ".pytest_cache" / "v" / "cache" / "lastfailed"
    assert run(tmp_path, "it fails", "-n", "2").returncode == 1
    assert json.loads(failed.read_text()) == {"test_some.py::test_it[2]": True}
    assert run(tmp_path, "it fails", "-n", "2", CI="true").returncode == 1
    assert json.loads(failed.read_text()) == {}


def test_a_run_without_skips_says_nothing_of_them(tmp_path: Path) -> None:
    assert "skipped" not in run(tmp_path, "never", "-k", "2", CI="true").stdout


def test_what_a_test_starts_can_be_interrupted() -> None:
    "Also where whoever runs the tests has SIGINT ignored, as a shell has for what it runs in the background."
    script = "import signal, conftest, subprocess, sys; sys.exit(subprocess.run(['sh', '-c', 'kill -INT $$']).returncode != -2)"
    command = ["sh", "-c", 'trap "" INT; exec "$0" -c "$1"', sys.executable, script]
    assert subprocess.run(command, env={**os.environ, "PYTHONPATH": str(TESTS)}).returncode == 0
