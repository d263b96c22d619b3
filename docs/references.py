"""Sphinx extension: references between the pages, and from them to Python, to dnspython and to the RFCs.

What is written in backticks leads to its definition, "RFC 7208, section 4.6.4" to that section, the name of a setting to
its row in a plugin's table. Under each definition stands who uses it. What can't be resolved is a warning, with the
notebook and its cell, and warnings fail the build.
"""

from __future__ import annotations

import ast
import inspect
import logging as python_logging
import re
from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from pydoc import locate
from typing import Any
from urllib.parse import urlsplit

from docutils import nodes
from fastcore.docments import docments
from names import BrokenReference, Names
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.ext.intersphinx import InventoryAdapter
from sphinx.transforms import SphinxTransform
from sphinx.transforms.post_transforms import SphinxPostTransform
from sphinx.util import logging
from sphinx.util.docutils import SphinxDirective
from sphinx.util.nodes import make_refnode
from sphinx.writers.html5 import HTML5Translator
from sphinx_codeautolink.extension.block import construct_name_pattern
from sphinx_codeautolink.extension.resolve import populate_type_checking
from stage import REPOSITORY, ROOT, definitions, stage_all

LOG = logging.getLogger(__name__)
SECTION = r"\d+(?:\.\d+)+"
RFC = re.compile(
    rf"RFC (?P<rfc>\d{{3,5}})(?:,? sections? (?P<section>{SECTION}|\d+)| (?P<bare>{SECTION}))?"  # RFC 7208, section 5.3
    rf"|\bsections? (?P<alone>{SECTION})"  # of the RFC that was named last
    rf"|(?<=\d)(?:, | and | to )(?P<more>{SECTION})"
)
PLAIN = re.compile(r'<span class="[nwp]">([^<]*)</span>')  # names, blanks and brackets have no colour, and need no mark
FOLD = '<details class="used-by"><summary>{}</summary>'
SHOWN = 6  # users of a definition before the rest is folded


def begin(app: Sphinx) -> None:
    "Stage the notebooks, and complete their modules for autodoc, which reads types that only checkers import."
    app.pages = stage_all(Path(app.srcdir), app.config.sections)
    for page in app.pages.values():
        if page.module:
            populate_type_checking(import_module(page.module))
    app.names, app.counted, app.broken = None, Counter(), 0
    for handler in python_logging.getLogger("sphinx").handlers:
        handler.addFilter(Location(app))


def tidy(app: Sphinx) -> None:
    "MyST-NB keeps copies of the notebooks, beside the site if it is let."
    app.env.mystnb_config = app.env.mystnb_config.copy(output_folder=str(Path(app.doctreedir) / "notebooks"))


class Location(python_logging.Filter):
    "Say of a warning in which notebook it is and in which cell, counted from 0 as everywhere in this project."

    def __init__(self, app: Sphinx):
        super().__init__()
        self.app = app

    def filter(self, record: Any) -> bool:
        if record.levelno >= python_logging.WARNING:
            self.app.broken += 1
        place = str(getattr(record, "location", "") or "")
        docstring = re.search(r":docstring of ([\w.]+)", place)
        staged = re.match(rf"{re.escape(str(self.app.srcdir))}/(.*)\.ipynb(?::(\d+))?", place)
        if docstring:
            record.location = self.of_definition(docstring[1]) or place
        elif staged and staged[1] in self.app.pages:
            record.location = self.of_line(self.app.pages[staged[1]], int(staged[2] or 0))
        return True

    def of_line(self, page: Any, line: int) -> str:
        cell = page.notebook.cells[max(bisect_right(page.lines, line - 2) - 1, 0)] if line else None
        return page.source + (f", cell {cell.metadata['number']}" if cell else "")

    def of_definition(self, full: str) -> str:
        for page in self.app.pages.values():
            name = full.removeprefix(page.module + ".").partition(".")[0]
            if page.module and full.startswith(page.module + ".") and name in page.defined:
                return f"{page.source}, cell {page.defined[name]}, documentation of {full.removeprefix(page.module + '.')}"
        return ""


# Definitions


def document_parameters(app: Sphinx, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    "To a docstring add what the comments behind the parameters say, and who uses it."
    lines[:] = [line.replace("\\", "\\\\") for line in lines]
    if what in ("function", "method") or (what == "class" and "__init__" in vars(obj)):
        target = getattr(obj, "__wrapped__", obj)
        target = target.__init__ if what == "class" else target
        try:
            said = docments(target, full=True)
        except (OSError, TypeError, ValueError):
            said = {}
        lines.append("")
        for parameter, about in said.items():
            if about["docment"]:
                field = "returns" if parameter == "return" else f"param {parameter}"
                lines.append(f":{field}: " + about["docment"].replace("\n", " "))
    lines += ["", f".. used-by:: {name}", ""]


def leave_out_inherited(
    app: Sphinx, what: str, name: str, obj: Any, options: Any, signature: str | None, returns: str | None
) -> tuple[str, None] | None:
    "A class that is made as its base is has no signature of its own."
    return ("", None) if signature and what == "class" and "__init__" not in vars(obj) else None


class Mark(SphinxDirective):
    "The place of a definition that its code alone documents: a constant, or something private."

    required_arguments = 2

    def run(self) -> list[nodes.Node]:
        name, kind = self.arguments
        target = nodes.target("", "", ids=[name])
        self.state.document.note_explicit_target(target)
        self.env.domains.python_domain.note_object(name, kind, name, location=target)
        return [target]


class UsedBy(SphinxDirective):
    "The place of the list of uses."

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        return [used_by("", name=self.arguments[0])]


class used_by(nodes.General, nodes.Element):  # noqa: N801 - docutils names nodes so
    pass


# Backticks


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
    target, anchor = app.env.settings[name]
    return make_refnode(app.builder, docname, target, anchor, node.deepcopy())


def known_elsewhere(app: Sphinx, env: Any, node: Any, contnode: Any) -> nodes.Node | None:
    """A type that is documented under another name, as `asyncio.transports.Transport` under `asyncio.Transport`.

    One that exists, and that its documentation doesn't list, is no broken reference.
    """
    name = node.get("reftarget", "")
    package, last = name.partition(".")[0].removeprefix("_"), name.rpartition(".")[2]
    for kind, names in InventoryAdapter(env).main_inventory.items():
        if kind.startswith("py:") and f"{package}.{last}" in names:
            return nodes.reference("", "", contnode, refuri=names[f"{package}.{last}"].uri)
    return contnode if node.get("refdomain") == "py" and locate(name) else None


# Settings and RFCs in prose


class Settings(SphinxTransform):
    "Each row of a table of settings is a place that references lead to."

    default_priority = 500

    def apply(self, **_: Any) -> None:
        page = self.app.pages[self.env.current_document.docname]
        declared = declarations(page)
        for row in self.document.findall(nodes.row):
            literal = next(iter(row.findall(nodes.literal)), None)
            name = literal.astext() if literal else ""
            if name in declared and row.index(literal.parent.parent) == 0:
                row["ids"].append(f"setting-{name}")
                self.env.settings[name] = (page.name, f"setting-{name}")
                for attribute in declared[name]:
                    self.env.domains.python_domain.note_object(attribute, "attribute", f"setting-{name}", location=row)


def declarations(page: Any) -> dict[str, list[str]]:
    "The settings that a page's module declares, with the attributes that have them."
    found = defaultdict(list)
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
                node = nodes.reference("", match[0], refuri=address(rfc, next(filter(None, list(place.values())[1:]), "")))
                node["classes"] = ["rfc"]
            found += [nodes.Text(text[end : match.start()]), node]
            end = match.end()
        return [*found, nodes.Text(text[end:])], rfc

    def pattern(self) -> re.Pattern[str]:
        names = "|".join(sorted(self.env.settings)) or "(?!)"
        return re.compile(rf"{RFC.pattern}|(?P<setting>\b(?:{names})\b)")


def address(rfc: str, section: str) -> str:
    return f"https://www.rfc-editor.org/rfc/rfc{rfc}.html" + (f"#section-{section}" if section else "")


# Code


class Translator(HTML5Translator):
    "Sphinx's, with links in code."

    def visit_literal_block(self, node: nodes.literal_block) -> None:
        try:
            super().visit_literal_block(node)
        except nodes.SkipNode:
            here = self.builder.current_docname
            self.body[-1] = linked(self.body[-1], self.builder.app.linked.get((here, node.astext()), []), self.target)
            raise

    def target(self, full: str) -> str:
        domain, here = self.builder.env.domains.python_domain, self.builder.current_docname
        if full in domain.objects:
            return f"{self.builder.get_relative_uri(here, domain.objects[full].docname)}#{domain.objects[full].node_id}"
        if full in domain.modules:
            return f"{self.builder.get_relative_uri(here, domain.modules[full].docname)}#{domain.modules[full].node_id}"
        return self.builder.app.elsewhere[full]


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
    return PLAIN.sub(r"\1", "\n".join(lines))


# Uses


def forget(app: Sphinx, env: Any, docnames: list[str]) -> None:
    env.settings = getattr(env, "settings", {})


def learn(app: Sphinx, env: Any) -> None:
    "When all pages are read: what names can mean, what the code names, and who uses what."
    python = env.domains.python_domain
    inventory = InventoryAdapter(env).main_inventory
    app.elsewhere = {
        name: item.uri for kind, items in inventory.items() if kind.startswith("py:") for name, item in items.items()
    }
    app.names = Names(app.pages, [*python.objects, *python.modules], app.elsewhere, env.settings)
    app.linked, app.uses = {}, defaultdict(lambda: (set(), set()))
    for docname, blocks in env.sphinx_codeautolink_transforms.items():
        for block in blocks:
            block.names = [name for name in block.names if is_named(name, app)]
            app.linked[docname, block.source] = block.names
            note_uses(app, app.pages[docname], block)
    env.sphinx_codeautolink_transforms.clear()  # the links are ours to write: its own way is slow


def is_named(name: Any, app: Sphinx) -> bool:
    "Isn't this only a variable whose type is somebody else's?"
    return name.resolved_location in app.names.ours or name.code_str.endswith(name.resolved_location.rpartition(".")[2])


def note_uses(app: Sphinx, page: Any, block: Any) -> None:
    owners = lines_of(block.source, page)
    for name in block.names:
        app.counted["code"] += 1
        users, places = app.uses[name.resolved_location]
        if name.lineno in owners:
            users.add(owners[name.lineno])
        elif not name.context.startswith("import"):
            places.add(page.name)


def lines_of(source: str, page: Any) -> dict[int, str]:
    "For each line of an exported cell: the definition that it belongs to."
    found = {}
    for node in ast.parse(source).body:
        names = [name for name in definitions(ast.unparse(node)) if name in page.defined]
        found.update({line: f"{page.module}.{names[0]}" for line in range(node.lineno, node.end_lineno + 1) if names})
    return found


def resolve(app: Sphinx, doctree: nodes.document, docname: str) -> None:
    "Write the lists of uses, and what there is to say of a plugin; count what leads where."
    for node in list(doctree.findall(used_by)):
        node.replace_self(uses(app, docname, node["name"]))
    for node in list(doctree.findall(plugin_facts)):
        node.replace_self(facts(app, app.pages[docname]))
    count(app, doctree)


def uses(app: Sphinx, docname: str, name: str) -> list[nodes.Node]:
    users, places = app.uses[name]
    module = app.pages[docname].module
    users = sorted(users - {name}, key=lambda user: (not user.startswith(module + "."), user))
    pages = [page for page in app.pages if page in places - {docname}]
    links = [to_definition(app, docname, user) for user in users]
    links += [to_page(app, docname, page) for page in pages]
    if not links:
        return []
    first, rest = links[:SHOWN], links[SHOWN:]
    found = [nodes.paragraph("", "", nodes.Text("Used by "), *listed(first), classes=["used-by"])]
    if rest:
        before, after = (nodes.raw("", text, format="html") for text in (FOLD.format(f"and {len(rest)} more"), "</details>"))
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


# Plugins


class plugin_facts(nodes.General, nodes.Element):  # noqa: N801
    pass


class PluginFacts(SphinxDirective):
    "The place of what there is to say of every plugin."

    def run(self) -> list[nodes.Node]:
        return [plugin_facts()]


def facts(app: Sphinx, page: Any) -> nodes.Node:
    "At which SMTP commands a plugin runs, its settings, and the other plugins there."
    plugin = page.plugin
    others = [each for each in app.pages.values() if each.plugin and each is not page]
    names = [each.name for each in plugin.settings.variables()]
    settings = [to_setting(app, page.name, name, nodes.literal("", name)) for name in names if name in app.env.settings]
    rows = [("Runs at", [nodes.Text(", ".join(stage.upper() for stage in plugin.stages))])]
    rows += [("Settings", listed(settings) or [nodes.Text("none")])]
    for stage in plugin.stages:
        neighbours = [to_page(app, page.name, each.name) for each in others if stage in each.plugin.stages]
        rows += [(f"Also at {stage.upper()}", listed(neighbours))] if neighbours else []
    body = [nodes.field("", nodes.field_name("", name), nodes.field_body("", nodes.paragraph("", "", *row))) for name, row in rows]
    return nodes.field_list("", *body, classes=["plugin-facts"])


# The count

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


def count(app: Sphinx, doctree: nodes.document) -> None:
    for reference in doctree.findall(nodes.reference):
        host = urlsplit(reference.get("refuri", "")).netloc
        anchor = reference.get("refuri", "").partition("#")[2] or reference.get("refid", "")
        if "rfc" in reference["classes"]:
            kind = "rfc"
        elif host:
            kind = host if host in KINDS else "web"
        else:
            kind = "setting" if anchor.startswith("setting-") else "ours" if anchor in app.names.ours else "page"
        app.counted[kind] += 1


def report(app: Sphinx, exception: Exception | None) -> None:
    if exception is None:
        print("\nReferences:")
        for kind, name in KINDS.items():
            print(f"{app.counted[kind]:7}  {name}")
        print(f"{app.broken:7}  that could not be resolved")


def link_to_notebook(app: Sphinx, pagename: str, template: str, context: dict[str, Any], doctree: Any) -> None:
    "Furo's link to the source of a page leads to the notebook."
    page = app.pages.get(pagename)
    context["theme_top_of_page_buttons"] = ["view"] if page else []
    context["theme_source_view_link"] = f"{REPOSITORY}/{page.source}" if page else ""


def place_in_repository(module: str, name: str) -> str | None:
    "The lines of a definition, for sphinx.ext.linkcode."
    found: Any = import_module(module)
    for part in name.split("."):
        found = getattr(found, part, None)
    found = getattr(found, "fget", getattr(found, "__wrapped__", found))
    try:
        lines, first = inspect.getsourcelines(found)
        path = Path(inspect.getsourcefile(found) or "").resolve().relative_to(ROOT)
    except (TypeError, OSError, ValueError):
        return None
    return f"{REPOSITORY}/{path.as_posix()}#L{first}-L{first + len(lines) - 1}"


def setup(app: Sphinx) -> dict[str, Any]:
    app.setup_extension("sphinx.ext.autodoc")
    app.add_config_value("sections", {}, "env")
    app.set_translator("html", Translator)
    app.add_node(used_by)
    app.add_directive("mark", Mark)
    app.add_directive("used-by", UsedBy)
    app.add_node(plugin_facts)
    app.add_directive("plugin", PluginFacts)
    app.add_transform(Settings)
    app.add_post_transform(Backticks)
    app.add_post_transform(Prose)
    app.connect("missing-reference", known_elsewhere, priority=900)
    app.connect("doctree-resolved", resolve)
    app.connect("html-page-context", link_to_notebook)
    app.connect("build-finished", report, priority=900)
    app.connect("builder-inited", begin, priority=1)
    app.connect("builder-inited", tidy, priority=900)
    app.connect("env-before-read-docs", forget)
    app.connect("env-updated", learn, priority=900)
    app.connect("autodoc-process-signature", leave_out_inherited)
    app.connect("autodoc-process-docstring", document_parameters)
    return {"version": "1", "parallel_read_safe": False, "parallel_write_safe": False}
