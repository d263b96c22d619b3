"""Run notebooks, and keep or compare what they print: `python tests/notebooks.py [NOTEBOOK …]` writes the outputs.

A notebook's stored outputs are part of the documentation, so they have to be what the code prints today.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

from execnb.nbio import read_nb, write_nb
from execnb.shell import CaptureShell
from nbdev.clean import clean_nb

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOKS = sorted(path for path in (ROOT / "nbs").rglob("*.ipynb") if ".ipynb_checkpoints" not in path.parts)


def title(path: Path) -> str:
    "A notebook's name in reports: its path below nbs/, without the ending."
    return path.relative_to(ROOT / "nbs").with_suffix("").as_posix()


def run(path: Path) -> tuple[Any, Any]:
    "The notebook as stored and as it is after a run, both clean; raises what a cell raises."
    before, after = read_nb(path), read_nb(path)
    shell = CaptureShell(path)
    os.chdir(path.parent)
    shell.run_all(after, exc_stop=True)
    for notebook in (before, after):
        clean_nb(notebook)
    return before, after


def outputs(cell: Any) -> list[tuple[str, str]]:
    "What a cell shows: the kind and the text of each output, streams joined."
    shown: list[tuple[str, str]] = []
    for output in cell.get("outputs", []):
        data = output.get("data") or {output.get("name", output["output_type"]): output.get("text", "")}
        for kind, lines in sorted(data.items()):
            joins = kind == "stdout" and bool(shown) and shown[-1][0] == kind
            before = shown.pop()[1] if joins else ""
            shown.append((kind, before + "".join(lines)))
    return shown


def differences(path: Path) -> list[str]:
    "The cells whose stored output isn't what they print."
    before, after = run(path)
    return [
        f"cell {number} of {title(path)}:\n{''.join(old.source)}\nstored:  {outputs(old)}\nprinted: {outputs(new)}"
        for number, (old, new) in enumerate(zip(before.cells, after.cells, strict=True))
        if outputs(old) != outputs(new)
    ]


def main(names: list[str]) -> None:
    for path in [Path(name).resolve() for name in names] or NOTEBOOKS:
        if sys.stderr.isatty():
            print(title(path), file=sys.stderr)
        _, after = run(path)
        write_nb(after, path)


if __name__ == "__main__":
    main(sys.argv[1:])
