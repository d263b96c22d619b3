"Every notebook runs from top to bottom, and prints what is stored in it."

import shutil
import subprocess
import sys
from pathlib import Path

import notebooks
import pytest

LONGEST = 300  # seconds; a notebook takes about one
NEEDS = {"hosts/service/05_client": "cc"}  # programs that aren't everywhere


@pytest.mark.parametrize("path", notebooks.NOTEBOOKS, ids=notebooks.title)
def test_notebook(path: Path, tmp_path: Path) -> None:
    if (need := NEEDS.get(notebooks.title(path))) and not shutil.which(need):
        pytest.skip(f"there is no {need}")
    command = [sys.executable, notebooks.__file__, "--check", str(path)]
    report = tmp_path / "report"
    with report.open("w") as file:  # not a pipe: that ends when the last process ends which a notebook leaves behind
        done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=file, stderr=file, timeout=LONGEST)
    if done.returncode:
        pytest.fail(report.read_text(), pytrace=False)
