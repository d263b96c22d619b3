"`make bench` in a clean clone: what isn't there is said by name, and nothing ends in a traceback."

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from notebooks import ROOT

PROGRAMS = {"redis-server": "redis-server", "dash": "dash", "gcc": "gcc", "musl-tools": "musl-gcc"}  # by Debian package


def bench(*arguments: str, path: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "bench" / "run.py"), "--rounds", "1", *arguments]
    return subprocess.run(command, env={**os.environ, "PATH": path}, capture_output=True, text=True)


def test_programs_that_are_missing_are_named(tmp_path: Path) -> None:
    done = bench("rater", "service", "service_client", path=str(tmp_path))
    assert done.returncode == 3 and done.stdout == ""
    rater, service, client = done.stderr.splitlines()
    assert rater.startswith("bench: rater isn't measured without redis-server (Debian's package redis-server)")
    assert service.startswith("bench: service isn't measured without ")
    assert set(re.findall(r"package ([\w-]+)\)", service)) == {"dash", "gcc", "libc6-dev"}
    assert client.startswith("bench: service_client isn't measured without ")
    assert set(re.findall(r"package ([\w-]+)\)", client)) == {"dash", "gcc", "libc6-dev", "musl-tools"}


@pytest.mark.skipif(not shutil.which("gcc"), reason="gcc isn't installed; Debian's package gcc has it")
def test_a_compiler_without_headers_is_one_that_lacks_them(tmp_path: Path) -> None:
    "As gcc is on Debian without libc6-dev."
    for program in PROGRAMS.values():
        (tmp_path / program).write_text("#!/bin/sh\nexit 1\n")
        (tmp_path / program).chmod(0o755)
    done = bench("service_client", path=str(tmp_path))
    assert done.returncode == 3
    assert done.stderr.startswith("bench: service_client isn't measured without libc6-dev (Debian's package libc6-dev)")
    assert "Traceback" not in done.stderr


def test_a_package_that_is_missing_is_named() -> None:
    "As uvloop is where no wheel of it fits."
    script = "import sys; sys.modules['uvloop'] = None\nimport needs\nprint(*needs.missing('rater'), sep='\\n')"
    environ = {**os.environ, "PYTHONPATH": str(ROOT / "bench")}
    done = subprocess.run([sys.executable, "-c", script], env=environ, capture_output=True, text=True)
    assert "uvloop (pip install 'ra-plugins[service]')" in done.stdout.splitlines(), done.stderr


def test_the_others_are_measured(tmp_path: Path) -> None:
    "What is missing for one benchmark doesn't keep another from being measured."
    done = bench("rater", "rblchecks", path=str(tmp_path))
    assert done.returncode != 0 and "rblchecks:" in done.stdout and "Traceback" not in done.stderr
    assert done.stderr.startswith("bench: rater isn't measured without redis-server")
