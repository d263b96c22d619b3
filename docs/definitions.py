"""Sphinx extension: what goes with the code of a definition: its place, who uses it, and its signature, folded.

The code itself says what a definition is called, what it takes and what for, so the page shows the code. What autodoc makes of
it stands under the code, folded: there the types are links, and so are the lines in the repository.
"""

from __future__ import annotations

from typing import Any

from docutils import nodes
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective
from uses import used_by

SIGNATURE_WIDTH = 88  # characters of a signature that is set in one line


def short(full: str, module: str) -> str:
    "The name of a definition in the address of its page, as nbdev's index of the package has it."
    return full.removeprefix(f"{module}.")


class Place(SphinxDirective):
    "Where links to a definition lead: to its code. What comes behind its kind are places under which nbdev knows its parts."

    required_arguments = 2
    optional_arguments = 1
    final_argument_whitespace = True

    def run(self) -> list[nodes.Node]:
        full, kind, *parts = self.arguments
        place = short(full, full.rpartition(".")[0])
        target = nodes.target("", "", ids=[place, *" ".join(parts).split()])
        self.state.document.note_explicit_target(target)
        self.env.domains.python_domain.note_object(full, kind, place, location=target)
        return [target]


class Definition(SphinxDirective):
    "Who uses a definition; and what autodoc says of it, unless it is a constant or private."

    required_arguments = 2

    def run(self) -> list[nodes.Node]:
        full, kind = self.arguments
        name = full.rpartition(".")[2]
        if kind == "data" or name.startswith("_"):
            return [used_by("", name=full, named=True)]
        python = self.env.domains.python_domain
        python.objects.pop(full, None)  # autodoc says again that it is there
        found = self.parse_text_to_nodes(f".. auto{kind}:: {full}")
        for entry in [each for top in found for each in top.findall(addnodes.index)]:
            entry["entries"] = []  # the search has the names anyway
        for signature in [each for top in found for each in top.findall(addnodes.desc_signature)]:
            self.settle(signature)
        summary = f'<details><summary><code class="name">{name}</code></summary>'
        folded = [nodes.raw("", summary, format="html"), *found, nodes.raw("", "</details>", format="html")]
        return [nodes.container("", *folded, used_by("", name=full, named=False), classes=["definition"])]

    def settle(self, signature: addnodes.desc_signature) -> None:
        "Set a signature in a line if it fits, and let links lead to the code of what has code of its own."
        for parameters in signature.findall(addnodes.desc_parameterlist):
            parameters["multi_line_parameter_list"] = len(signature.astext()) > SIGNATURE_WIDTH
        module, full = signature["module"], f"{signature['module']}.{signature['fullname']}"
        objects = self.env.domains.python_domain.objects
        if full in objects:
            place = short(full, module)
            objects[full] = objects[full]._replace(node_id=place)
            signature["ids"] = [place] if "." in place else []


def setup(app: Sphinx) -> dict[str, Any]:
    app.add_directive("place", Place)
    app.add_directive("definition", Definition)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
