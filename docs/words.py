"""Sphinx extension: the words of our own, told of on one page, are links to it where they first stand on another.

The page is nbs/words.ipynb. In the first column of its tables stand the words as they are written on other pages, in the second
what they mean, which a link shows under the pointer. A table below the title of a section is for the pages of that section,
one below any other title for all pages.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from html import escape
from typing import Any

import tips
from docutils import nodes
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.transforms import SphinxTransform
from sphinx.transforms.post_transforms import SphinxPostTransform
from sphinx.util.nodes import make_refnode

PAGE = "words"
NO_PROSE = (
    *(nodes.title, nodes.reference, nodes.literal, nodes.literal_block, nodes.raw, nodes.table),
    *(addnodes.pending_xref, addnodes.desc_signature),
)


class Words(SphinxTransform):
    "Each row of the page is a place that links lead to."

    default_priority = 500

    def apply(self, **_: Any) -> None:
        if self.env.current_document.docname != PAGE:
            return
        for row in self.document.findall(nodes.row):
            if isinstance(row.parent, nodes.thead):
                continue
            forms = row[0].astext().split(", ")
            row["ids"].append(f"word-{forms[0]}")
            about = row.parent.parent.parent.parent[0].astext().lower()  # the title of the table's section
            scope = f"{about}/" if about in self.config.sections and about != "plugins" else ""
            for form in forms:
                self.env.words[form] = (f"word-{forms[0]}", row[1].astext(), scope)
            self.env.domains.standard_domain.note_object("term", forms[0], f"word-{forms[0]}", location=row)


def first_mentions(text: str, words: list[str]) -> Iterator[re.Match[str]]:
    "Where each of these words first stands in a text, in order."
    seen = set[str]()
    for match in re.finditer(rf"(?<![\w-])(?:{'|'.join(map(re.escape, words))})(?![\w-])", text) if words else ():
        if match[0] not in seen:
            seen.add(match[0])
            yield match


class Mentions(SphinxPostTransform):
    "The first mention of a word on a page is a link to what it means."

    default_priority = 7  # after RFCs and settings

    def run(self, **_: Any) -> None:
        name = self.env.current_document.docname
        if name == PAGE:
            return
        words = {word: place for word, (place, _, scope) in self.env.words.items() if name.startswith(scope)}
        for text in list(self.document.findall(nodes.Text)):
            if text.parent is None or any(isinstance(each, NO_PROSE) for each in above(text)):
                continue
            parts, end = list[nodes.Node](), 0
            for match in first_mentions(text.astext(), list(words)):
                if match[0] not in words:  # another form of one that stands before it
                    continue
                place = words[match[0]]
                link = make_refnode(self.app.builder, name, PAGE, place, nodes.Text(match[0]))
                link["classes"] = ["word"]
                parts += [nodes.Text(text.astext()[end : match.start()]), link]
                end = match.end()
                words = {word: other for word, other in words.items() if other != place}
            if parts:
                text.parent.replace(text, [*parts, nodes.Text(text.astext()[end:])])


def above(node: nodes.Node) -> Iterator[nodes.Node]:
    "What a node stands in."
    while node.parent is not None:
        node = node.parent
        yield node


def forget(app: Sphinx, env: Any, docnames: list[str]) -> None:
    env.words = getattr(env, "words", {})


def merge(app: Sphinx, env: Any, docnames: list[str], other: Any) -> None:
    "Take over what was found in pages that another process has read."
    env.words.update(other.words)


def write(app: Sphinx, exception: Exception | None) -> None:
    "What the links show under the pointer."
    if exception or app.builder.format != "html":
        return
    found = {place: f"<p>{escape(meaning)}</p>" for place, meaning, _ in app.env.words.values()}
    tips.save(app, PAGE, found)


def setup(app: Sphinx) -> dict[str, Any]:
    app.add_transform(Words)
    app.add_post_transform(Mentions)
    app.connect("env-before-read-docs", forget)
    app.connect("env-merge-info", merge)
    app.connect("build-finished", write)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
