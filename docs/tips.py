"""Sphinx extension: what a name is, for who points at a link to it: its code, down to its docstring, and the rest folded.

Beside each page stands a file of these, which static/site.js loads when it is first wanted. It is a script and no JSON, since a
page that is opened as a file may load scripts and nothing else. sphinx-tippy does the same with HTML of the pages, of which it
puts a copy into each page that links there, and loads its own scripts from another host.
"""

from __future__ import annotations

import ast
import json
from collections.abc import Callable, Iterator
from html import escape
from pathlib import Path
from typing import Any

from small import deflated, marks
from sphinx.application import Sphinx
from stage import FUNCTION, Page, definitions

SHORT, MOST = 10, 30  # lines of a definition that is shown whole, and of one at most


def parts(page: Page) -> Iterator[tuple[str, list[str], int]]:
    "Each definition of a page: its name in the page's address, its lines, and how many of them say what it is."
    for cell in page.notebook.cells:
        if cell.cell_type != "code" or cell.metadata.get("number") not in page.defined.values():
            continue
        lines = cell.source.splitlines()
        for node in ast.parse(cell.source).body:
            for name in definitions([node]):
                if not name.startswith("_"):  # the page that uses it has it, too
                    yield name, *cut(node, lines)
            for part in node.body if isinstance(node, ast.ClassDef) else ():
                for name in definitions([part]):
                    if not name.startswith("_"):
                        yield f"{getattr(node, 'name', '')}.{name}", *cut(part, lines)


def cut(node: ast.stmt, lines: list[str]) -> tuple[list[str], int]:
    "The lines of a definition, and how many are its head: down to its docstring, or to its first line of code."
    first = min([node.lineno, *(each.lineno for each in getattr(node, "decorator_list", []))])
    found = lines[first - 1 : node.end_lineno]
    indent = len(found[0]) - len(found[0].lstrip())
    found = [line[indent:] for line in found]
    if not isinstance(node, (*FUNCTION, ast.ClassDef)):
        return found, len(found)
    said = node.body[0]
    is_docstring = isinstance(said, ast.Expr) and isinstance(said.value, ast.Constant)
    return found, ((said.end_lineno or 0) if is_docstring else said.lineno - 1) - first + 1


def tips(page: Page, highlight: Callable[[str], str]) -> dict[str, str]:
    "What is shown of each definition, as HTML."
    found = {}
    for name, lines, head in parts(page):
        whole = len(lines) if len(lines) <= SHORT else head
        found[name] = highlight("\n".join(lines[:whole]))
        if rest := lines[whole:MOST]:
            rest += [f"# and {len(lines) - MOST} lines more"] * (len(lines) > MOST)
            code = escape("\n".join(rest), quote=False)
            found[name] += f"<details><summary>{len(lines) - whole} lines more</summary><pre>{code}</pre></details>"
    return found


def write(app: Sphinx, exception: Exception | None) -> None:
    if exception or app.builder.format != "html":
        return

    def highlight(text: str) -> str:
        return marks(app.builder.highlighter.highlight_block(text, "python"))

    for page in app.pages.values():
        if page.module and (found := tips(page, highlight)):
            save(app, page.name, found)


def save(app: Sphinx, name: str, found: dict[str, str]) -> None:
    "Write the file beside a page."
    path = Path(app.outdir, "_static", "tips", f"{name}.js")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"tips({json.dumps(name)}, {deflated(found)});\n", encoding="utf-8")


def setup(app: Sphinx) -> dict[str, Any]:
    app.connect("build-finished", write)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
