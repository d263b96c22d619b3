"""Sphinx extension: references from prose and signatures to definitions, to other documentation, to settings and RFCs.

What is written in backticks leads to its definition, "RFC 7208, section 4.6.4" to that section, the name of a setting to
its row in the table of settings. What can't be resolved is a warning, and warnings fail the build.
"""

from __future__ import annotations

import re
from collections import defaultdict
from importlib import import_module
from pathlib import Path
from pydoc import locate
from typing import Any

from docutils import nodes
from names import BrokenReference, Names
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.ext.intersphinx import InventoryAdapter
from sphinx.transforms import SphinxTransform
from sphinx.transforms.post_transforms import SphinxPostTransform
from sphinx.util import logging
from sphinx.util.nodes import make_refnode
from stage import REPOSITORY, Page, stage_all

LOG = logging.getLogger(__name__)
SECTION = r"\d+(?:\.\d+)+"
RFC = re.compile(
    rf"RFC (?P<rfc>\d{{3,5}})(?:,? sections? (?P<section>{SECTION}|\d+)| (?P<bare>{SECTION}))?"  # RFC 7208, section 5.3
    rf"|\bsections? (?P<alone>{SECTION})"  # of the RFC that was named last
    rf"|(?<=\d)(?:, | and | to )(?P<more>{SECTION})"
)


def begin(app: Sphinx) -> None:
    app.pages = stage_all(Path(app.srcdir), app.config.sections, app.config.first)


def tidy(app: Sphinx) -> None:
    "MyST-NB keeps copies of the notebooks, beside the site if it is let."
    app.env.mystnb_config = app.env.mystnb_config.copy(output_folder=str(Path(app.doctreedir) / "notebooks"))


def adopt(app: Sphinx, doctree: nodes.document) -> None:
    "MyST leaves reStructuredText in documents of its own; with each of them the whole environment would be pickled."
    for node in doctree.findall():
        node.document = doctree


class Backticks(SphinxPostTransform):
    "A name in backticks leads to what it names."

    default_priority = 5  # before Sphinx resolves references

    def run(self, **_: Any) -> None:
        names, page = self.app.names, self.app.pages[self.env.current_document.docname]
        for reference in self.document.findall(addnodes.pending_xref):
            if reference["refdomain"] == "py" and reference["reftarget"].isidentifier():
                reference["reftarget"] = names.in_scope(reference["reftarget"], page) or reference["reftarget"]
        for literal in list(self.document.findall(nodes.literal)):
            inside = (literal.parent, literal.parent.parent)
            if any(isinstance(each, (nodes.reference, nodes.title, addnodes.pending_xref)) for each in inside):
                continue
            text = literal.astext()
            if setting := names.setting(text):
                literal.replace_self(to_setting(self.app, page.name, setting, literal))
                continue
            try:
                found = names.find(text, page)
            except BrokenReference as error:
                LOG.warning(str(error), location=literal, type="reference", subtype="name")
                continue
            if found:
                literal.replace_self(self.reference(found, literal))

    def reference(self, full: str, literal: nodes.literal) -> nodes.Node:
        kind = "mod" if full in self.env.domains.python_domain.modules else "obj"
        options = {"refdomain": "py", "reftype": kind, "reftarget": full, "refwarn": True, "refexplicit": True}
        options["refdoc"] = self.env.current_document.docname
        if full not in self.app.names.ours and full in InventoryAdapter(self.env).main_inventory.get("py:module", {}):
            options["reftype"] = "mod"
        return addnodes.pending_xref("", literal.deepcopy(), **options)


def to_setting(app: Sphinx, docname: str, name: str, node: nodes.Node) -> nodes.Node:
    target, anchor = app.env.variables[name]
    return make_refnode(app.builder, docname, target, anchor, node.deepcopy())


def known_elsewhere(app: Sphinx, env: Any, node: Any, contnode: Any) -> nodes.Node | None:
    """A type that is documented under another name, as `asyncio.transports.Transport` under `asyncio.Transport`.

    One that exists, and that its documentation doesn't list, is no broken reference.
    """
    name = node.get("reftarget", "")
    short = f"{name.partition('.')[0].removeprefix('_')}.{name.rpartition('.')[2]}"
    if short in app.elsewhere:
        return nodes.reference("", "", contnode, refuri=app.elsewhere[short])
    return contnode if node.get("refdomain") == "py" and locate(name) else None


class Settings(SphinxTransform):
    "Each row of a table of settings is a place that references lead to."

    default_priority = 500

    def apply(self, **_: Any) -> None:
        page = self.app.pages[self.env.current_document.docname]
        declared = declarations(page)
        for row in self.document.findall(nodes.row):
            name = row[0].astext()
            if name in declared:
                row["ids"].append(f"setting-{name}")
                self.env.variables[name] = (page.name, f"setting-{name}")
                standard = self.env.domains.standard_domain
                if ("envvar", name) not in standard.objects:  # for the search; two plugins may have one setting
                    standard.note_object("envvar", name, f"setting-{name}", location=row)
                for attribute in declared[name]:
                    self.env.domains.python_domain.note_object(attribute, "attribute", f"setting-{name}", location=row)


def declarations(page: Page) -> dict[str, list[str]]:
    "The settings that a page's module declares, with the attributes that have them."
    found: dict[str, list[str]] = defaultdict(list)
    for name in page.defined if page.module else []:
        each = getattr(import_module(page.module), name)
        for variable in each.variables() if isinstance(each, type) and hasattr(each, "variables") else []:
            if variable.attribute in vars(each):
                found[variable.name].append(f"{page.module}.{name}.{variable.attribute}")
    return found


class Prose(SphinxPostTransform):
    "RFCs with their sections, and settings, as they are named in prose."

    default_priority = 6

    def run(self, **_: Any) -> None:
        rfc = ""
        leaves = (nodes.literal, nodes.literal_block, nodes.reference, nodes.title, addnodes.pending_xref, nodes.raw)
        for text in list(self.document.findall(nodes.Text)):
            parents = [text.parent, text.parent.parent]
            if any(isinstance(each, (*leaves, addnodes.desc_signature)) for each in parents):
                continue
            parts, rfc = self.parts(text.astext(), rfc)
            if len(parts) > 1:
                text.parent.replace(text, parts)

    def parts(self, text: str, rfc: str) -> tuple[list[nodes.Node], str]:
        "A text, cut into plain text and references, and the RFC that was named last."
        found: list[nodes.Node] = []
        end = 0
        for match in self.pattern().finditer(text):
            place = match.groupdict()
            node: nodes.Node = nodes.Text(match[0])
            if place["setting"]:
                node = to_setting(self.app, self.env.current_document.docname, match[0], nodes.Text(match[0]))
            elif place["rfc"] or rfc:
                rfc = place["rfc"] or rfc
                node = nodes.reference(
                    "", match[0], refuri=address(rfc, next(filter(None, list(place.values())[1:]), ""))
                )
                node["classes"] = ["rfc"]
            found += [nodes.Text(text[end : match.start()]), node]
            end = match.end()
        return [*found, nodes.Text(text[end:])], rfc

    def pattern(self) -> re.Pattern[str]:
        names = "|".join(sorted(self.env.variables)) or "(?!)"
        return re.compile(rf"{RFC.pattern}|(?P<setting>\b(?:{names})\b)")


def address(rfc: str, section: str) -> str:
    return f"https://www.rfc-editor.org/rfc/rfc{rfc}.html" + (f"#section-{section}" if section else "")


def forget(app: Sphinx, env: Any, docnames: list[str]) -> None:
    env.variables = getattr(env, "variables", {})


def merge(app: Sphinx, env: Any, docnames: list[str], other: Any) -> None:
    "Take over what was found in pages that another process has read."
    env.variables.update(other.variables)


def learn(app: Sphinx, env: Any) -> None:
    "When all pages are read: all that names can mean."
    python = env.domains.python_domain
    inventory = InventoryAdapter(env).main_inventory
    app.elsewhere = {
        name: item.uri for kind, items in inventory.items() if kind.startswith("py:") for name, item in items.items()
    }
    app.names = Names(app.pages, [*python.objects, *python.modules], app.elsewhere, env.variables)
    app.places = {f"{each.docname}.html#{each.node_id}" for each in python.objects.values()}


def link_to_notebook(app: Sphinx, pagename: str, template: str, context: dict[str, Any], doctree: Any) -> None:
    "Furo's link to the source of a page leads to the notebook, if there is one."
    page = app.pages.get(pagename)
    has_notebook = page is not None and page.path.exists()
    context["theme_top_of_page_buttons"] = ["view"] if has_notebook else []
    context["theme_source_view_link"] = f"{REPOSITORY}/{page.source}" if has_notebook else ""


def untitled(app: Sphinx, doctree: nodes.document, docname: str) -> None:
    "Leave out what links to our own definitions say under the pointer: the address says it, and the page shows more."
    for reference in doctree.findall(nodes.reference):
        if reference.get("internal"):
            reference.attributes.pop("reftitle", None)


def fold_sections(app: Sphinx, pagename: str, template: str, context: dict[str, Any], doctree: Any) -> None:
    "In the sidebar, the pages of the section that one reads, and of the others their first page."
    if "toctree" in context:
        whole = context["toctree"]
        context["toctree"] = lambda **options: whole(**{**options, "collapse": True})


def setup(app: Sphinx) -> dict[str, Any]:
    app.add_config_value("sections", {}, "env")
    app.add_config_value("first", [], "env")
    app.add_transform(Settings)
    app.add_post_transform(Backticks)
    app.add_post_transform(Prose)
    app.connect("builder-inited", begin, priority=1)
    app.connect("builder-inited", tidy, priority=900)
    app.connect("env-before-read-docs", forget)
    app.connect("doctree-read", adopt)
    app.connect("env-merge-info", merge)
    app.connect("env-updated", learn, priority=900)
    app.connect("missing-reference", known_elsewhere, priority=900)
    app.connect("doctree-resolved", untitled, priority=900)
    app.connect("html-page-context", link_to_notebook)
    app.connect("html-page-context", fold_sections, priority=400)  # before Furo, which asks for all pages
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
