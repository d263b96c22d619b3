"""Build the website: `python docs/build.py`.

The pages go to _docs/, which a web server or a browser by itself shows alike. A reference that can't be resolved fails the
build. Notebooks that can run in the page get a button; without npm or network the site is built without it.
"""

from __future__ import annotations

import gc
import os
import shutil
import sys
from argparse import ArgumentParser
from pathlib import Path

from sphinx.cmd.build import main as sphinx
from stage import ROOT

HERE = Path(__file__).resolve().parent


def main() -> int:
    parser = ArgumentParser(description="Build the website from the notebooks.")
    parser.add_argument("--no-lite", action="store_true", help="without what runs notebooks in the page")
    parser.add_argument("folder", nargs="?", type=Path, default=ROOT / "_docs", help="where the pages go: _docs/")
    options = parser.parse_args()
    work = ROOT / "_proc"
    shutil.rmtree(options.folder, ignore_errors=True)
    work.mkdir(exist_ok=True)
    quiet = [] if sys.stdout.isatty() else ["-q"]
    plain = [] if sys.stderr.isatty() else ["--no-color"]  # which CI=true in the environment would switch on
    strict = ["-W", "--keep-going"]  # every warning fails the build, after all of them have been shown
    anew = ["-E", "-a"]  # who uses what, all pages together say
    folders = ["-c", str(HERE), "-d", str(work / ".doctrees"), str(work), str(options.folder)]
    beside = ["-j", str((os.cpu_count() or 1) + 1)]  # one process prepares the pages that the others write
    lite = [] if options.no_lite else ["-D", "lite=1"]
    gc.disable()  # a fifth of the time would go into looking for garbage in documents, of which there is next to none
    return int(sphinx([*quiet, *plain, *strict, *anew, *beside, *lite, *folders]))


if __name__ == "__main__":
    sys.exit(main())
