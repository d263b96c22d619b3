"""Sphinx extension: how a page is found: a description for those who search the web, and one for the site's own search.

Sphinx cuts what it shows of a result out of the whole page, where buttons and outputs stand, too, and fetches the page for that,
which a page that is opened as a file may not. Here a file that is loaded as a script has a sentence for each page.
"""

from __future__ import annotations

import json
import re
from html import escape
from pathlib import Path
from typing import Any

from sphinx.application import Sphinx
from stage import Page

OTHERS = {  # pages that have no notebook
    "search": "Search the documentation of ra-plugins.",
    "genindex": "All names and settings of ra-plugins, by the alphabet.",
    "py-modindex": "The modules of ra-plugins.",
    "py": "Where Python's documentation has the names that ra-plugins uses.",
}


def plain(text: str) -> str:
    "Markdown as text."
    return " ".join(re.sub(r"\[([^]]*)\]\([^)]*\)|[`*]", lambda found: found[1] or "", text).split())


def description(page: Page) -> str:
    "What a page is about: the sentence below its title, or the first paragraph if that is missing."
    texts = [page.description, *(cell.source for cell in page.notebook.cells if cell.cell_type == "markdown")]
    sentences = (plain(text) for text in texts if text and not re.match(r"[#`{:<|]", text))
    return next(sentences, page.title)


def add(app: Sphinx, pagename: str, template: str, context: dict[str, Any], doctree: Any) -> None:
    page = app.pages.get(pagename)
    said = f"{page.title}: {description(page)}" if page else OTHERS.get(pagename, f"{app.config.project}: {pagename}")
    context["metatags"] = f'<meta name="description" content="{escape(plain(said))}">'


def write(app: Sphinx, exception: Exception | None) -> None:
    if exception or app.builder.format != "html":
        return
    found = {name: description(page) for name, page in app.pages.items()}
    path = Path(app.outdir, "_static", "descriptions.js")
    path.write_text(f"const descriptions = {json.dumps(found)};\n", encoding="utf-8")


def in_search(app: Sphinx, pagename: str, template: str, context: dict[str, Any], doctree: Any) -> None:
    if pagename == "search":
        app.add_js_file("descriptions.js")
        app.add_js_file("search.js")


def setup(app: Sphinx) -> dict[str, Any]:
    app.connect("html-page-context", add)
    app.connect("html-page-context", in_search)
    app.connect("build-finished", write)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
