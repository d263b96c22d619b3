"""How the notebooks read, in figures: `.venv/bin/python tools/reading.py [FOLDER…]`, of all module notebooks, by folder.

What is printed, for each folder below nbs/ and, without an argument, for all of them:

    prose/line       characters of prose for a line of definitions: of an exported function or class, without blank lines,
                     comments and docstrings
    prose/statement  the same for a statement, however many lines it is broken into
    you              words such as we, you, us, I, our and your, in 1,000 words of prose
    pictures         pictures, and in how many notebooks
    cell             lines of a cell that defines something, without blank ones: the median, and the ninth decile
    over 88          lines of code that are longer

Prose is what stands in Markdown cells, without headings, tables and blocks of code. The guides define nothing, and are asked
about by name: `tools/reading.py guides`. With a notebook in a folder's place it is that notebook alone.
"""

from __future__ import annotations

import ast
import json
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median, quantiles
from typing import Any

NOTEBOOKS = Path(__file__).resolve().parent.parent / "nbs"
LINE = 88  # characters of a line of code that a page shows whole
DEFINITION = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
PERSON = re.compile(r"\b(?:we|us|our|ours|you|your|yours|I|me|my)\b", re.IGNORECASE)
FENCED = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)
DRAWN = re.compile(r"!\[[^\]]*\]\([^)]+\)|<svg\b|```\{?mermaid")


@dataclass
class Figures:
    "What is counted in one notebook, or in several."

    notebooks: int = 0
    drawn: int = 0  # notebooks with a picture
    pictures: int = 0
    characters: int = 0  # of prose
    words: int = 0
    persons: int = 0
    lines: int = 0  # of definitions
    statements: int = 0
    over: int = 0
    cells: list[int] = field(default_factory=list)  # lines of each that defines something

    def __add__(self, other: Figures) -> Figures:
        return Figures(*(mine + theirs for mine, theirs in zip(vars(self).values(), vars(other).values(), strict=True)))

    def row(self, name: str) -> str:
        "One line of the table."
        middle = median(self.cells) if self.cells else 0
        ninth = quantiles(self.cells, n=10, method="inclusive")[-1] if len(self.cells) > 1 else middle
        return (
            f"{name:24} {self.notebooks:9} {self.characters / (self.lines or 1):10.1f}"
            f" {self.characters / (self.statements or 1):15.1f} {1000 * self.persons / (self.words or 1):6.1f}"
            f" {self.pictures:6} in {self.drawn:2} {middle:7g} / {ninth:4g} {self.over:8}"
        )


HEAD = f"{'':24} notebooks prose/line prose/statement    you  pictures          cell  over {LINE}"


def prose(text: str) -> str:
    "A Markdown cell without headings, tables and code."
    lines = FENCED.sub("", text).splitlines()
    return "\n".join(line for line in lines if not line.startswith(("#", "|", "    ")))


def definition_lines(definition: ast.stmt, source: list[str]) -> tuple[int, int]:
    "How many lines of code, and how many statements, a definition has."
    inside = [each for each in ast.walk(definition) if isinstance(each, ast.stmt)]
    texts = [each for each in inside if isinstance(each, ast.Expr) and isinstance(each.value, ast.Constant)]
    told = {line for each in texts for line in range(each.lineno, (each.end_lineno or 0) + 1)}
    first = min(each.lineno for each in (definition, *getattr(definition, "decorator_list", ())))
    lines = [
        number
        for number in range(first, (definition.end_lineno or 0) + 1)
        if number not in told and source[number - 1].strip() and not source[number - 1].lstrip().startswith("#")
    ]
    return len(lines), len(inside) - len(texts)


def drawings(cell: dict[str, Any]) -> int:
    "How many pictures a cell shows."
    shown = [output.get("data", {}) for output in cell.get("outputs", [])]
    written = "".join(cell["source"]) if cell["cell_type"] == "markdown" else ""
    as_html = ["".join(data.get("text/html", "")) for data in shown if "image/svg+xml" not in data]
    return (
        sum(any(kind.startswith("image/") for kind in data) for data in shown)
        + sum("<svg" in html for html in as_html)
        + len(DRAWN.findall(written))
    )


def measured(path: Path) -> Figures:
    "The figures of one notebook."
    found = Figures(notebooks=1)
    for cell in json.loads(path.read_text())["cells"]:
        text = "".join(cell["source"])
        found.pictures += drawings(cell)
        if cell["cell_type"] == "markdown":
            told = prose(text)
            found.characters += len(told)
            found.words += len(re.findall(r"[\w'’]+", told))
            found.persons += len(PERSON.findall(told))
        elif cell["cell_type"] == "code":
            _measure_code(text, found)
    found.drawn = int(found.pictures > 0)
    return found


def _measure_code(text: str, found: Figures) -> None:
    source = text.splitlines()
    found.over += sum(len(line) > LINE for line in source)
    if not text.startswith("#| export"):
        return
    definitions = [each for each in ast.parse(text).body if isinstance(each, DEFINITION)]
    for each in definitions:
        lines, statements = definition_lines(each, source)
        found.lines += lines
        found.statements += statements
    if definitions:
        found.cells.append(sum(bool(line.strip()) and not line.startswith("#|") for line in source))


def notebooks(folder: Path) -> Iterator[Path]:
    "The notebooks of a folder, without those of folders in it."
    yield from sorted(folder.glob("*.ipynb"))


def main(names: list[str]) -> int:
    "Print the table."
    folders = [NOTEBOOKS / name for name in names] or [
        each
        for each in sorted({path.parent for path in NOTEBOOKS.rglob("*.ipynb")})
        if each.name not in ("guides", ".ipynb_checkpoints")
    ]
    print(HEAD)
    total = Figures()
    for folder in folders:
        paths = [folder] if folder.suffix == ".ipynb" else list(notebooks(folder))
        if not paths or not all(path.exists() for path in paths):
            print(
                f"No notebooks in {folder}: a folder or a notebook below nbs/ is asked for, as in `rater`.",
                file=sys.stderr,
            )
            return 2
        each = sum((measured(path) for path in paths), Figures())
        total += each
        print(each.row(str(folder.relative_to(NOTEBOOKS)).replace(".", "(start)", folder == NOTEBOOKS)))
    if len(folders) > 1:
        print(total.row("all"))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
