"""A copy of the checkout with a compiled package in it: `python tools/compiled_copy.py FOLDER`.

`RA_PLUGINS_COMPILE=1 pip wheel` makes the package, as it does for those who install it; what is around it, such as tests
and notebooks, is copied as it is. A package that was made of the same text is kept.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from argparse import ArgumentParser
from fcntl import LOCK_EX, flock
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path
from tempfile import TemporaryDirectory
from zipfile import ZipFile

ROOT = Path(__file__).resolve().parent.parent
FOLDERS = (".ci", "tests", "nbs", "bench", "docs", "tools", "packaging", ".cache")
AROUND = (*FOLDERS, "settings.ini", "setup.py", "pyproject.toml", "Makefile")
NOT_OURS = shutil.ignore_patterns("__pycache__", ".ipynb_checkpoints")


def digest() -> str:
    "Of all that a compiled package is made of, and of the Python that it is for."
    made = hashlib.sha256(sys.version.encode())
    sources = [*(ROOT / "ra_plugins").rglob("*.py"), ROOT / "setup.py", ROOT / "settings.ini", ROOT / "pyproject.toml"]
    for path in sorted(sources):
        made.update(path.relative_to(ROOT).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    return made.hexdigest()


def build(folder: Path, isolated: bool) -> None:
    "Compile the package into a folder."
    environ = {**os.environ, "RA_PLUGINS_COMPILE": "1"}
    with TemporaryDirectory() as place:
        source, wheels = Path(place, "source"), Path(place, "wheels")
        source.mkdir()
        for name in ("ra_plugins", "packaging"):
            shutil.copytree(ROOT / name, source / name, ignore=NOT_OURS)
        for name in ("setup.py", "settings.ini", "pyproject.toml", "README.md", "LICENSE"):
            shutil.copy(ROOT / name, source / name)
        how = [] if isolated else ["--no-build-isolation"]
        pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "wheel", "--quiet", "--no-deps", *how]
        subprocess.run([*pip, "--wheel-dir", str(wheels), str(source)], env=environ, check=True)
        (wheel,) = wheels.glob("*.whl")
        with ZipFile(wheel) as archive:
            archive.extractall(folder)


def compiled_package(folder: Path, isolated: bool = False) -> Path:
    "The folder, with a compiled package in it that is of today's text. One process makes it while others wait."
    with folder.with_name(folder.name + ".lock").open("w") as lock:
        flock(lock, LOCK_EX)
        made, wanted = folder / "made-of", digest()
        if not made.exists() or made.read_text(encoding="utf-8") != wanted:
            shutil.rmtree(folder, ignore_errors=True)
            build(folder, isolated)
            made.write_text(wanted, encoding="utf-8")
    return folder


def compiled_copy(folder: Path, isolated: bool = False) -> Path:
    "The same, with tests and notebooks around it."
    compiled_package(folder, isolated)
    for name in AROUND:
        source, target = ROOT / name, folder / name
        if source.is_dir():
            shutil.rmtree(target, ignore_errors=True)
            shutil.copytree(source, target, ignore=NOT_OURS)
        elif source.exists():
            shutil.copy(source, target)
    return folder


def machine_code(folder: Path) -> set[str]:
    "The modules below a folder that are machine code."
    suffix = EXTENSION_SUFFIXES[0]
    paths = (path.relative_to(folder).as_posix() for path in folder.rglob(f"*{suffix}"))
    return {path.removesuffix(suffix).replace("/", ".") for path in paths}


def main() -> None:
    "Make the copy that the command line names."
    parser = ArgumentParser(description="Make a copy of the checkout with a compiled package in it.")
    parser.add_argument("folder", type=Path, help="where it is made; what was there goes")
    parser.add_argument("--isolated", action="store_true", help="build as pip does by itself, which takes network")
    options = parser.parse_args()
    print(*sorted(machine_code(compiled_copy(options.folder, options.isolated))), sep="\n")


if __name__ == "__main__":
    main()
