"""A shell for the commands of a guide: a cell that begins with `%%sh` is run as if it were typed into a terminal.

One shell runs all cells of a page, in a folder of its own, so `cd`, variables and `$?` hold from one cell to the next. What is
typed reads nothing from the page, and what it prints stands below it, both streams in one.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from IPython import get_ipython

ENDED = "-- this command line has ended --"


def usual(text: str) -> str:
    "A text with 4711 in place of the numbers of processes, which are others in each run."
    return re.sub(r"pid \d+", "pid 4711", text)


class Terminal:
    "A shell in a new folder, which the page is in, too; its programs are those of this environment."

    def __init__(
        self, clean: Callable[[str], str] = usual
    ):  # takes off what differs from run to run
        self.home, self.usual = Path(tempfile.mkdtemp()), clean
        self.typed = Path(tempfile.mkdtemp(), "typed")
        os.chdir(self.home)
        os.environ["PATH"] = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        os.environ["PYTHONPATH"] = os.pathsep.join(sys.path)
        pipe = subprocess.PIPE
        self.shell = subprocess.Popen(
            ["/bin/sh"], stdin=pipe, stdout=pipe, stderr=subprocess.STDOUT, text=True
        )
        ipython = get_ipython()
        ipython.register_magic_function(self.cell, "cell", "sh")

    def cell(self, line: str, text: str) -> None:
        print(self.run(text), end="")

    def run(self, text: str) -> str:
        "Type something, and answer what is printed."
        self.typed.write_text(text, encoding="utf-8")
        assert self.shell.stdin and self.shell.stdout
        self.shell.stdin.write(f"(exit ${{ended:-0}}); . {self.typed} < /dev/null\n")
        self.shell.stdin.write(f"ended=$?; echo '{ENDED}'\n")
        self.shell.stdin.flush()
        printed = ""
        for line in self.shell.stdout:
            before, ended, _ = line.partition(ENDED)
            printed += before
            if ended:
                return self.clean(printed)
        raise EOFError(f"the shell has ended: {printed}")

    def clean(self, text: str) -> str:
        "A text as it is in each run, with HOME in place of the folder."
        return self.usual(text).replace(str(self.home), "HOME")

    def close(self) -> None:
        "End the shell, and leave nothing behind."
        os.chdir("/")
        self.shell.communicate()
        shutil.rmtree(self.home, ignore_errors=True)
        shutil.rmtree(self.typed.parent)
