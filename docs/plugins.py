"Sphinx extension: what there is to say of every plugin, behind what administrator.py tells of it."

from __future__ import annotations

from typing import Any

from docutils import nodes
from references import to_setting
from sphinx.application import Sphinx
from sphinx.util import logging
from sphinx.util.docutils import SphinxDirective
from stage import Page
from uses import listed, to_definition, to_page

from ra_plugins.cli.listing import answerer_settings, commands_answered, summary
from ra_plugins.spp.plugin import STAGES
from ra_plugins.support.environment import Environment

LOG = logging.getLogger(__name__)


class plugin_facts(nodes.General, nodes.Element):  # noqa: N801 - docutils names nodes so
    pass


class PluginFacts(SphinxDirective):
    "The place of what there is to say of every plugin."

    def run(self) -> list[nodes.Node]:
        return [plugin_facts()]


def facts(app: Sphinx, page: Page) -> nodes.Node:
    "Where a plugin runs, what it asks and may answer, its settings and those of who answers it, and who else is there."
    plugin = page.plugin
    stages = [stage for stage in STAGES if stage in plugin.stages]
    asked = [[to_class(app, page.name, kind), nodes.Text(": "), *marked(summary(kind))] for kind in plugin.asks]
    answered = [to_class(app, page.name, kind) for kind in plugin.answers or ()]
    rows = [
        ("Runs at", [nodes.Text(", ".join(map(str.upper, stages)))]),
        ("Asks", [each for question in asked for each in (nodes.Text(" "), *question)][1:] or [nodes.Text("nothing")]),
        ("May answer", listed(answered) or [nodes.Text(commands_answered(plugin))]),
        ("Takes", [nodes.Text(f"at most {plugin.seconds:g} seconds")]),
        ("Settings", variables(app, page, plugin.settings) or [nodes.Text("none")]),
    ]
    for kind, settings in answerer_settings(plugin, LOG.warning).items():
        rows += [(f"Settings of who answers {kind}", variables(app, page, settings))]
    kept = variables(app, page, plugin.state)
    rows += [("Keeps", kept)] if kept else []
    others = [each for each in app.pages.values() if each.plugin and each is not page]
    neighbours = {stage: [each.name for each in others if stage in each.plugin.stages] for stage in stages}
    links = {
        stage: listed([to_page(app, page.name, name) for name in names]) for stage, names in neighbours.items() if names
    }
    where = f"Also at {stages[0].upper()}" if len(stages) == 1 else "Also there"
    rows += [(where, folded(links, len(set().union(*neighbours.values()))))] if links else []
    bodies = [row if isinstance(row[0], nodes.raw) else [nodes.paragraph("", "", *row)] for _, row in rows]
    fields = [
        (nodes.field_name("", name), nodes.field_body("", *body)) for (name, _), body in zip(rows, bodies, strict=True)
    ]
    return nodes.field_list("", *(nodes.field("", *field) for field in fields), classes=["plugin-facts"])


def folded(
    links: dict[str, list[nodes.Node]],  # by stage
    number: int,  # of those that they lead to, of which one may be at several stages
) -> list[nodes.Node]:
    "Links that can be opened: a plugin that runs everywhere has all the others beside it."
    named = [(f"{stage.upper()}: " if len(links) > 1 else "", each) for stage, each in links.items()]
    inside = [nodes.paragraph("", "", nodes.Text(stage), *each) for stage, each in named]
    summary = nodes.raw("", f"<details><summary>{number} more</summary>", format="html")
    return [summary, *inside, nodes.raw("", "</details>", format="html")]


def marked(text: str) -> list[nodes.Node]:
    "A text of a docstring, in which backticks mark code."
    return [nodes.literal("", each) if place % 2 else nodes.Text(each) for place, each in enumerate(text.split("`"))]


def to_class(app: Sphinx, docname: str, kind: type) -> nodes.Node:
    "A class, with a link to where it is defined."
    full = f"{kind.__module__}.{kind.__name__}"
    known = full in app.env.domains.python_domain.objects
    return to_definition(app, docname, full) if known else nodes.literal("", kind.__name__)


def variables(app: Sphinx, page: Page, environment: type[Environment]) -> list[nodes.Node]:
    "The variables of an environment, each with a link to its row in a table, if it stands in one."
    names = [each.name for each in environment.variables()]
    links = [
        to_setting(app, page.name, name, nodes.literal("", name))
        if name in app.env.variables
        else nodes.literal("", name)
        for name in names
    ]
    return listed(links)


def resolve(app: Sphinx, doctree: nodes.document, docname: str) -> None:
    for node in list(doctree.findall(plugin_facts)):
        node.replace_self(facts(app, app.pages[docname]))


def setup(app: Sphinx) -> dict[str, Any]:
    app.add_node(plugin_facts)
    app.add_directive("plugin", PluginFacts)
    app.connect("doctree-resolved", resolve)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
