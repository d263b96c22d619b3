"""Sphinx extension: where in the notebooks a warning belongs, and how many references there are.

A build ends with a table of the references by kind, and of those that lead nowhere: each of these is a warning.
"""

from __future__ import annotations

import logging
import re
from bisect import bisect_right
from collections import Counter
from typing import Any
from urllib.parse import urljoin, urlsplit

from docutils import nodes
from sphinx.application import Sphinx
from stage import Page

KINDS = {
    "code": "names in code",
    "ours": "names in text and signatures, to a definition here",
    "docs.python.org": "names in text and signatures, to Python's documentation",
    "dnspython.readthedocs.io": "names in text and signatures, to dnspython's",
    "setting": "settings",
    "rfc": "RFCs and their sections",
    "page": "pages and sections",
    "web": "other places on the web",
}


class Location(logging.Filter):
    "Say of a warning in which notebook it is and in which cell, counted from 0 as everywhere in this project."

    def __init__(self, app: Sphinx):
        super().__init__()
        self.app = app

    def filter(self, record: Any) -> bool:
        if record.levelno >= logging.WARNING:
            self.app.broken += 1
        place = str(getattr(record, "location", "") or "")
        docstring = re.search(r":docstring of ([\w.]+)", place)
        staged = re.match(rf"{re.escape(str(self.app.srcdir))}/(.*)\.ipynb(?::(\d+))?", place)
        if docstring:
            record.location = self.of_definition(docstring[1]) or place
        elif staged and staged[1] in self.app.pages:
            record.location = self.of_line(self.app.pages[staged[1]], int(staged[2] or 0))
        return True

    def of_line(self, page: Page, line: int) -> str:
        cell = page.notebook.cells[max(bisect_right(page.lines, line - 2) - 1, 0)] if line else None
        return page.source + (f", cell {cell.metadata['number']}" if cell else "")

    def of_definition(self, full: str) -> str:
        for page in self.app.pages.values():
            name = full.removeprefix(page.module + ".").partition(".")[0]
            if page.module and full.startswith(page.module + ".") and name in page.defined:
                return (
                    f"{page.source}, cell {page.defined[name]}, documentation of {full.removeprefix(page.module + '.')}"
                )
        return ""


def count(app: Sphinx, doctree: nodes.document, docname: str) -> None:
    "Count what leads where on a page; the names in its code are counted as they are linked."
    for reference in doctree.findall(nodes.reference):
        host = urlsplit(reference.get("refuri", "")).netloc
        anchor = reference.get("refuri", "").partition("#")[2] or reference.get("refid", "")
        if "rfc" in reference["classes"]:
            kind = "rfc"
        elif host:
            kind = host if host in KINDS else "web"
        else:
            place = urljoin(f"{docname}.html", reference.get("refuri", "") or f"#{anchor}")
            kind = "setting" if anchor.startswith("setting-") else "ours" if place in app.places else "page"
        app.counted[kind] += 1


def report(app: Sphinx, exception: Exception | None) -> None:
    if exception is None:
        print("\nReferences:")
        for kind, name in KINDS.items():
            print(f"{app.counted[kind]:7}  {name}")
        print(f"{app.broken:7}  that could not be resolved")


def begin(app: Sphinx) -> None:
    app.counted, app.broken = Counter(), 0
    for handler in logging.getLogger("sphinx").handlers:
        handler.addFilter(Location(app))


def setup(app: Sphinx) -> dict[str, Any]:
    app.connect("builder-inited", begin, priority=1)
    app.connect("doctree-resolved", count, priority=900)
    app.connect("build-finished", report, priority=900)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
