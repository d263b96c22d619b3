"Sphinx extension: what there is to say of every plugin, at the head of its page."

from __future__ import annotations

from typing import Any

from docutils import nodes
from references import to_setting
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective
from stage import Page
from uses import listed, to_page


class plugin_facts(nodes.General, nodes.Element):  # noqa: N801 - docutils names nodes so
    pass


class PluginFacts(SphinxDirective):
    "The place of what there is to say of every plugin."

    def run(self) -> list[nodes.Node]:
        return [plugin_facts()]


def facts(app: Sphinx, page: Page) -> nodes.Node:
    "At which SMTP commands a plugin runs, its settings, and the other plugins there."
    plugin = page.plugin
    others = [each for each in app.pages.values() if each.plugin and each is not page]
    names = [each.name for each in plugin.settings.variables()]
    settings = [
        to_setting(app, page.name, name, nodes.literal("", name)) for name in names if name in app.env.variables
    ]
    rows = [("Runs at", [nodes.Text(", ".join(stage.upper() for stage in plugin.stages))])]
    rows += [("Settings", listed(settings) or [nodes.Text("none")])]
    for stage in plugin.stages:
        neighbours = [to_page(app, page.name, each.name) for each in others if stage in each.plugin.stages]
        rows += [(f"Also at {stage.upper()}", listed(neighbours))] if neighbours else []
    fields = [(nodes.field_name("", name), nodes.field_body("", nodes.paragraph("", "", *row))) for name, row in rows]
    return nodes.field_list("", *(nodes.field("", *field) for field in fields), classes=["plugin-facts"])


def resolve(app: Sphinx, doctree: nodes.document, docname: str) -> None:
    for node in list(doctree.findall(plugin_facts)):
        node.replace_self(facts(app, app.pages[docname]))


def setup(app: Sphinx) -> dict[str, Any]:
    app.add_node(plugin_facts)
    app.add_directive("plugin", PluginFacts)
    app.connect("doctree-resolved", resolve)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
