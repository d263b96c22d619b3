"""README.md from nbs/index.ipynb: `python docs/readme.py` writes it, `--check` only says whether it is current.

nbdev's own command for this, `nbdev_readme`, wants Quarto. Its processors don't, and nbconvert does the rest.
"""

from __future__ import annotations

import posixpath
import re
import sys
from pathlib import Path
from typing import Any

import nbformat
from execnb.nbio import nb2str
from jinja2 import DictLoader
from nbconvert import MarkdownExporter
from nbconvert.preprocessors import TagRemovePreprocessor
from nbdev import processors
from nbdev.process import NBProcessor

ROOT = Path(__file__).resolve().parent.parent
INDEX = ROOT / "nbs" / "index.ipynb"
README = ROOT / "README.md"

# nbconvert names no language, indents what a cell printed as if it were code, and takes HTML where text would do.
TEMPLATE = """
{%- extends 'markdown/index.md.j2' -%}
{%- block input %}
```python
{{ cell.source }}
```
{% endblock input -%}
{%- block stream %}
```text
{{ output.text.rstrip() }}
```
{% endblock stream -%}
{%- block data_text scoped %}
```text
{{ output.data['text/plain'] }}
```
{% endblock data_text -%}
{%- block data_html scoped %}
```text
{{ output.data['text/plain'].rstrip() }}
```
{% endblock data_html -%}
"""


def hide_input(cell: Any) -> None:
    "`#| echo: false`, which nbdev leaves to Quarto, in nbconvert's terms."
    if cell.directives_.get("echo:") == ["false"]:
        cell.metadata["tags"] = ["remove-input"]


def link_from_root(cell: Any) -> None:
    "A link to another notebook, or to a file beside nbs/, as it reads from the root; so, too, in Markdown that a cell shows."
    if cell.cell_type == "markdown":
        cell.source = from_root(cell.source)
    for output in cell.get("outputs", ()):
        data = output.get("data", {})
        if "text/markdown" in data:
            data["text/markdown"] = from_root("".join(data["text/markdown"]))


def from_root(text: str) -> str:
    return re.sub(r"\]\((?![a-z]+:|[/#])([^)\s]+)", lambda link: f"]({posixpath.normpath('nbs/' + link[1])}", text)


def readme() -> str:
    "The text of README.md, as nbs/index.ipynb has it."
    steps = [processors.strip_ansi, processors.hide_line, processors.rm_export, processors.hide_]
    processor = NBProcessor(INDEX, [*steps, hide_input, link_from_root])
    processor.process()
    exporter = MarkdownExporter(extra_loaders=[DictLoader({"readme": TEMPLATE})], template_file="readme")
    exporter.register_preprocessor(TagRemovePreprocessor(remove_input_tags={"remove-input"}), enabled=True)
    text, _ = exporter.from_notebook_node(nbformat.reads(nb2str(processor.nb), as_version=4))
    one_blank_line = re.sub(r"(^```.*?^```$)|\n{3,}", lambda found: found[1] or "\n\n", text, flags=re.M | re.S)
    return one_blank_line.strip() + "\n"


if __name__ == "__main__":
    if sys.argv[1:] != ["--check"]:
        README.write_text(readme(), encoding="utf-8")
    elif README.read_text(encoding="utf-8") != readme():
        sys.exit("README.md isn't what nbs/index.ipynb says: run `make notebooks` and commit")
