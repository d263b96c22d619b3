"""Sphinx extension: links in code, and under each definition the list of those who use it.

What a name in code means is found by the parser and the resolver of sphinx-codeautolink. Its Sphinx extension isn't used: it
parses all cells before a cell again for each, and reads every written page again to put in the links.
"""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any

from docutils import nodes
from docutils.parsers.rst import directives
from small import marks
from sphinx.application import Sphinx
from sphinx.util import logging
from sphinx.util.docutils import SphinxDirective
from sphinx.util.nodes import make_refnode
from sphinx.writers.html5 import HTML5Translator
from sphinx_codeautolink.extension.block import construct_name_pattern
from sphinx_codeautolink.extension.resolve import CouldNotResolve, resolve_location
from sphinx_codeautolink.parse import ImportTrackerVisitor
from stage import Page, definitions

LOG = logging.getLogger(__name__)
FOLD = '<details class="used-by"><summary>{}</summary>'
SHOWN = 6  # users of a definition before the rest is folded


class Translator(HTML5Translator):
    "Sphinx's, with links in code."

    def visit_literal_block(self, node: nodes.literal_block) -> None:
        try:
            super().visit_literal_block(node)
        except nodes.SkipNode:
            here = self.builder.current_docname
            self.body[-1] = linked(self.body[-1], self.builder.app.linked.get((here, node.astext()), []), self.target)
            raise

    def visit_literal(self, node: nodes.literal) -> None:
        "Code in a line of text, which Sphinx would put into two elements with three classes."
        self.body.append(f'<code class="literal">{self.encode(node.astext())}</code>')
        raise nodes.SkipNode

    def visit_entry(self, node: nodes.entry) -> None:
        "A corner of a table with nothing in it heads no column."
        super().visit_entry(node)
        if isinstance(node.parent.parent, nodes.thead) and not node.astext():
            self.body[-1] = self.body[-1].replace("<th", "<td")
            self.context[-1] = self.context[-1].replace("th>", "td>")

    def target(self, full: str) -> str:
        python, here = self.builder.env.domains.python_domain, self.builder.current_docname
        entry = python.objects.get(full) or python.modules.get(full)
        if not entry:
            return str(self.builder.app.elsewhere[full])
        return f"{self.builder.get_relative_uri(here, entry.docname)}#{entry.node_id}"


def linked(html: str, names: list[Any], target: Callable[[str], str]) -> str:
    "A highlighted text with links around names, which sphinx-codeautolink has found, each with its lines."
    lines = html.split("\n")
    for name in names:
        first, last = name.lineno - 1, name.end_lineno
        text = "\n".join(lines[first:last])
        found = list(re.finditer(construct_name_pattern(name), text))[-1:]  # from the right, for `a = a`
        for match in found:
            start = match.start() + len(match[1] or "")
            link = f'<a href="{target(name.resolved_location)}">{text[start : match.end()]}</a>'
            lines[first:last] = (text[:start] + link + text[match.end() :]).split("\n")
    return marks("\n".join(lines))


def read(app: Sphinx, doctree: nodes.document) -> None:
    "What the code of a page names, block by block: each is read once, and knows what those before it have defined."
    page = app.pages[app.env.current_document.docname]
    visitor = ImportTrackerVisitor(doctree)
    for node in page.imports:
        visitor.visit(node)
    export(visitor, page, page.defined)
    blocks = app.env.metadata[page.name]["blocks"] = []
    for block in doctree.findall(nodes.literal_block):
        if block.get("language", "default") not in ("default", "python"):
            continue
        source, before = block.astext(), len(visitor.accessed)
        try:
            tree = ast.parse(source)
        except SyntaxError as error:
            if "language" in block:
                LOG.warning("this isn't Python: %s", error, location=block, type="reference", subtype="code")
            continue
        visitor.visit(tree)
        names = [name for name in visitor.accessed[before:] if name.code_str]
        blocks.append((source, lines_of(tree, page), names))
        export(visitor, page, [name for name in definitions(tree.body) if name in page.defined])


def export(visitor: ImportTrackerVisitor, page: Page, names: Collection[str]) -> None:
    "From here on, names that the page exports mean what is in the package."
    if names:
        visitor.visit(ast.parse(f"from {page.module} import {', '.join(names)}"))


def lines_of(tree: ast.Module, page: Page) -> dict[int, str]:
    "For each line of an exported cell: the definition that it belongs to."
    found: dict[int, str] = {}
    for node in tree.body:
        names = [name for name in definitions([node]) if name in page.defined]
        found.update({line: names[0] for line in range(node.lineno, (node.end_lineno or 0) + 1) if names})
    return found


def learn(app: Sphinx, env: Any) -> None:
    "When all pages are read: what the code names, and who uses what."
    app.linked, app.uses = {}, defaultdict(lambda: (set(), set()))
    for page in app.pages.values():
        for source, owners, names in env.metadata[page.name]["blocks"]:
            app.linked[page.name, source] = [name for name in names if is_found(name, app)]
            for name in app.linked[page.name, source]:
                app.counted["code"] += 1
                users, places = app.uses[name.resolved_location]
                if name.lineno in owners:
                    users.add(f"{page.module}.{owners[name.lineno]}")
                elif not name.context.startswith("import"):
                    places.add(page.name)
            for method, line in called(source, app.names.methods) if owners else ():
                if line in owners:
                    app.uses[method][0].add(f"{page.module}.{owners[line]}")


def called(source: str, methods: Mapping[str, str]) -> Iterator[tuple[str, int]]:
    "The methods that a cell names behind a value whose type nobody has said, if only one class has one of that name."
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Attribute) and node.attr in methods:
            yield methods[node.attr], node.end_lineno or node.lineno


def is_found(name: Any, app: Sphinx) -> bool:
    "Is it documented, and not only a variable whose type is somebody else's?"
    try:
        full = name.resolved_location = resolve_location(name, app.names.known)
    except CouldNotResolve:
        return False
    return full in app.names.ours or (full in app.names.others and name.code_str.endswith(full.rpartition(".")[2]))


class used_by(nodes.General, nodes.Element):  # noqa: N801 - docutils names nodes so
    pass


class UsedBy(SphinxDirective):
    "The place of the list of uses."

    required_arguments = 1
    option_spec = {"named": directives.flag}  # say whose users these are: there is no heading that does

    def run(self) -> list[nodes.Node]:
        return [used_by("", name=self.arguments[0], named="named" in self.options)]


def resolve(app: Sphinx, doctree: nodes.document, docname: str) -> None:
    for node in list(doctree.findall(used_by)):
        node.replace_self(uses(app, docname, node["name"], node["named"]))


def uses(app: Sphinx, docname: str, name: str, named: bool) -> list[nodes.Node]:
    users, places = app.uses[name]
    module = app.pages[docname].module
    users = sorted(users - {name}, key=lambda user: (not user.startswith(module + "."), user))
    pages = [page for page in app.pages if page in places - {docname}]
    links = [to_definition(app, docname, user) for user in users]
    links += [to_page(app, docname, page) for page in pages]
    if not links:
        return []
    head = [nodes.literal("", name.rpartition(".")[2]), nodes.Text(": ")] if named else []
    head += [nodes.Text("used by ")]
    first, rest = links[:SHOWN], links[SHOWN:]
    found = [nodes.paragraph("", "", *head, *listed(first), classes=["used-by"])]
    if rest:
        before, after = (
            nodes.raw("", text, format="html") for text in (FOLD.format(f"and {len(rest)} more"), "</details>")
        )
        found += [before, nodes.paragraph("", "", *listed(rest), classes=["used-by"]), after]
    return found


def listed(links: list[nodes.Node]) -> list[nodes.Node]:
    return [node for link in links for node in (nodes.Text(", "), link)][1:]


def to_definition(app: Sphinx, docname: str, full: str) -> nodes.Node:
    entry = app.env.domains.python_domain.objects[full]
    shown = nodes.literal("", full.rpartition(".")[2])
    return make_refnode(app.builder, docname, entry.docname, entry.node_id, shown, full)


def to_page(app: Sphinx, docname: str, target: str) -> nodes.Node:
    return make_refnode(app.builder, docname, target, "", nodes.Text(app.pages[target].title))


def setup(app: Sphinx) -> dict[str, Any]:
    app.set_translator("html", Translator)
    app.add_node(used_by)
    app.add_directive("used-by", UsedBy)
    app.connect("doctree-read", read)
    app.connect("env-updated", learn, priority=901)
    app.connect("doctree-resolved", resolve)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
