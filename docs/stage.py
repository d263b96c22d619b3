"""Bring the notebooks into the form that Sphinx reads. No cell is run, and nbdev's processors do what is nbdev's.

A page has the path of its notebook, without the number that orders it in its folder. Behind an exported cell comes what
definitions.py makes of it; a hidden cell is left out.
"""

from __future__ import annotations

import ast
import re
import tokenize
from collections.abc import Collection
from functools import cached_property
from importlib import import_module
from io import StringIO
from itertools import accumulate
from pathlib import Path
from typing import Any

from administrator import administrator
from console import MAGIC, prompted
from execnb.nbio import mk_cell, nb2str, new_nb, read_nb
from nbdev.config import get_config
from nbdev.doclinks import nbglob
from nbdev.process import Processor
from nbdev.processors import FilterDefaults

CONFIG = get_config()
ROOT = Path(CONFIG.config_path).resolve()
NOTEBOOKS = Path(CONFIG.nbs_path).resolve()
README_ONLY = "<!-- README only"  # begins a cell that the site leaves out
REPOSITORY = f"{CONFIG.git_url}/blob/{CONFIG.branch}"
NUMBER = re.compile(r"(^|/)\d+[a-z]?_")  # orders a notebook in its folder, and isn't part of its address
LINK = re.compile(r"(?<=\]\()(?![a-z]+:|[#/])([^)\s#]+)")
PARTS = re.compile(r"## |#\| *default_exp")
EXPORTS, HIDDEN = {"export", "exports", "exporti"}, {"hide", "default_exp"}
FUNCTION = (ast.FunctionDef, ast.AsyncFunctionDef)


class Page:
    "A notebook, and what the site has to know about it."

    def __init__(self, path: Path, notebook: Any = None):  # read from there, unless it is given
        self.path = path
        self.name = NUMBER.sub(
            r"\1", path.relative_to(NOTEBOOKS).with_suffix("").as_posix()
        )  # as Sphinx names the page
        self.title, self.description = self.name, ""
        self.notebook = notebook or read_nb(path)
        for number, cell in enumerate(self.notebook.cells):
            cell.metadata["number"] = number
            if cell.source.startswith(MAGIC):
                cell.metadata["terminal"] = True
                cell.source = prompted(cell.source.removeprefix(MAGIC))
        heads = (cell.metadata["number"] for cell in self.notebook.cells if PARTS.match(cell.source))
        self.parts = next(heads, 0)  # the first cell of what follows the opening: the problem, and the whole at work
        self.code = [cell.source for cell in self.notebook.cells if is_python(cell)]
        mark_setup([cell for cell in self.notebook.cells if is_python(cell)])
        module = re.search(r"^#\|\s*default_exp\s+(\S+)", "\n".join(self.code), re.M)
        self.module = f"{CONFIG.lib_name}.{module[1]}".removesuffix(".__init__") if module else ""
        self.imports = [node for source in self.code for node in import_statements(source)]
        self.words = {word for source in self.code for word in words(source)}
        self.defined: dict[str, int] = {}  # what is exported from it, and from which cell
        self.lines: list[int] = []  # at which line each cell of the page begins, to Sphinx

    @property
    def source(self) -> str:
        "The notebook's path, from the root of the project."
        return self.path.relative_to(ROOT).as_posix()

    @cached_property
    def scope(self) -> dict[str, str]:
        "What names mean in its code: those that it defines, and those that it imports."
        found = {}
        for node in self.imports:
            module = f"{node.module}." if isinstance(node, ast.ImportFrom) else ""
            for each in node.names:
                name = each.asname or each.name.partition(".")[0]
                found[name] = module + (each.name if module or each.asname else name)
        return {**found, **{name: f"{self.module}.{name}" for name in self.defined}}

    @cached_property
    def plugin(self) -> Any:
        "The plugin that is exported from it, if one is: it has the module's name."
        module = self.module and import_module(self.module)
        found = getattr(module, self.module.rpartition(".")[2], None)
        return found if hasattr(found, "stages") else None


def is_python(cell: Any) -> bool:
    "Is this code, and no command for a shell?"
    return cell.cell_type == "code" and not cell.metadata.get("terminal") and not cell.source.startswith(MAGIC)


def mark_setup(cells: list[Any]) -> None:
    "A hidden cell that defines what a cell in sight uses is shown, folded: nobody shall meet a name that stands nowhere."
    used: set[str] = set()
    for cell in reversed(cells):
        head = cell.source.split("\n", 2)[:2]
        if any(re.match(r"#\| *hide\b", line) for line in head):
            cell.metadata["setup"] = bool(definitions(ast.parse(cell.source).body).keys() & used)
        elif not any(re.match(r"#\| *(echo: *false|default_exp|export)", line) for line in head):
            used |= words(cell.source)


def notebooks() -> list[Path]:
    "The notebooks' paths, in the order in which they are read: a folder's index is its first."
    found = [path.resolve() for path in nbglob(as_path=True)]
    return sorted(found, key=lambda path: (path.parent, path.stem != "index", path))


def words(source: str) -> set[str]:
    "The names in a text, and the strings that could be names."
    tokens = tokenize.generate_tokens(StringIO(source).readline)
    found = {each.string.strip("\"'") for each in tokens if each.type in (tokenize.NAME, tokenize.STRING)}
    return {each for each in found if each.isidentifier()}


def import_statements(source: str) -> list[ast.Import | ast.ImportFrom]:
    "All imports of a text, wherever in it they stand."
    found = [node for node in ast.walk(ast.parse(source)) if isinstance(node, (ast.Import, ast.ImportFrom))]
    return [node for node in found if getattr(node, "module", "") != "__future__"]


def definitions(statements: list[ast.stmt]) -> dict[str, str]:
    "The names that a cell defines at its top level, each with its kind in Sphinx's words."
    found: dict[str, str] = {}
    for node in statements:
        if isinstance(node, (*FUNCTION, ast.ClassDef)):
            found[node.name] = "function" if isinstance(node, FUNCTION) else "class"
        for target in getattr(node, "targets", [getattr(node, "target", None)]):
            names = [each for each in ast.walk(target) if isinstance(each, ast.Name)] if target else []
            stored = [each.id for each in names if isinstance(each.ctx, ast.Store)]  # unlike x in x.y = 1, or in del x[1]
            found.update({name: "data" for name in stored if name != "TYPE_CHECKING"})
    return found


def nbdev_places(statements: list[ast.stmt], taken: Collection[str]) -> dict[str, list[str]]:
    "Where nbdev's index has functions, classes and their methods, in lower case, apart from what is there anyway."
    found = {}
    for node in statements:
        if isinstance(node, (*FUNCTION, ast.ClassDef)):
            parts = [each.name for each in node.body if isinstance(each, FUNCTION)]
            names = [node.name, *(f"{node.name}.{part}" for part in parts)]
            found[node.name] = [name.lower() for name in dict.fromkeys(names) if name.lower() not in taken]
    return found


def markdown(source: str, number: int) -> Any:
    "A cell that we add, with the number of the one that it belongs to."
    cell = mk_cell(source, "markdown")
    cell.directives_ = {}
    cell.metadata["number"] = number
    return cell


def is_shown(cell: Any) -> bool:
    "Is the code of this cell on the page?"
    return not cell.directives_.keys() & HIDDEN and cell.directives_.get("echo:") != ["false"]


class Stage(Processor):
    "Put around an exported cell the place that links lead to, and who uses what it defines."

    page: Page

    def begin(self) -> None:
        exported = [source for source in self.page.code if re.match(r"#\| *export", source)]
        self.taken = definitions([node for source in exported for node in ast.parse(source).body])
        self.nb.cells = [each for cell in self.nb.cells for each in self.staged(cell)]

    def staged(self, cell: Any) -> list[Any]:
        if cell.cell_type == "markdown":
            cell.source = LINK.sub(self.link, cell.source)
        for output in cell.get("outputs", ()):
            data = output.get("data", {})
            if "text/markdown" in data:
                data["text/markdown"] = LINK.sub(self.link, "".join(data["text/markdown"]))
        is_exported = cell.cell_type == "code" and is_shown(cell) and EXPORTS & cell.directives_.keys()
        return self.exported(cell) if is_exported else [cell]

    def exported(self, cell: Any) -> list[Any]:
        statements = ast.parse(cell.source).body
        found = definitions(statements)
        self.page.defined.update(dict.fromkeys(found, cell.metadata["number"]))
        indexed = nbdev_places(statements, self.taken)
        named = {name: f"{self.page.module}.{name} {kind}" for name, kind in found.items()}
        before = [" ".join([f".. place:: {each}", *indexed.get(name, ())]) for name, each in named.items()]
        after = [f".. definition:: {each}" for each in named.values()]
        return [*self.restructured(before, cell), cell, *self.restructured(after, cell)]

    def restructured(self, directives: list[str], cell: Any) -> list[Any]:
        "A cell of reStructuredText, which is what autodoc speaks."
        text = "```{eval-rst}\n" + "\n\n".join(directives) + "\n```"
        return [markdown(text, cell.metadata["number"])] if directives else []

    def link(self, found: re.Match[str]) -> str:
        "A link to a notebook leads to its page, one to another file of the project to the repository."
        target = (self.page.path.parent / found[1]).resolve()
        if target.suffix == ".ipynb":
            return NUMBER.sub(r"\1", found[1])
        if target.is_dir() and target.is_relative_to(NOTEBOOKS):
            return f"{found[1].rstrip('/')}/index.ipynb"
        if target.is_relative_to(ROOT) and target.exists():
            return f"{REPOSITORY}/{target.relative_to(ROOT).as_posix()}"
        return found[1]


class Show(Processor):
    "Show of a code cell what it asks for."

    def cell(self, cell: Any) -> None:
        if cell.cell_type != "code":
            return
        if cell.metadata.get("terminal"):
            cell.metadata["tags"] = ["terminal"]
            return
        cell.source = re.sub(r"^#\| *[\w-]+:.*\n?", "", cell.source, flags=re.M)
        is_setup = cell.metadata.get("setup", False)
        is_removed = not is_shown(cell) and not is_setup
        is_folded = "exporti" in cell.directives_ or is_setup
        cell.metadata["tags"] = ["hide-input"] * is_folded + ["remove-input"] * is_removed
        label = "Code" if definitions(ast.parse(cell.source).body) else "Imports"
        if is_setup:
            label, cell.outputs = "Set-up", []
        cell.metadata["mystnb"] = {"code_prompt_show": label, "code_prompt_hide": label}
        for output in cell.outputs:
            data = output.get("data", {})
            if "image/svg+xml" in data:  # as a part of the page it has the page's colours, in the dark too
                data["text/html"] = data.pop("image/svg+xml")


def remove(cell: Any) -> None:
    "Leave out what is hidden, and the cell that names the module, and what is for README.md."
    if (cell.directives_.keys() & HIDDEN and not cell.metadata.get("setup")) or cell.source.startswith(README_ONLY):
        cell["source"] = None


class Processors(FilterDefaults):
    "nbdev's processors, without those that run cells or write for Quarto."

    def base_procs(self) -> list[Any]:
        ours = {"add_show_docs": Stage, "rm_export": remove}
        left_out = {"insert_warning", "clean_show_doc", "exec_show_docs", "add_links", "add_fold", "mv_exports", "hide_"}
        return [ours.get(each.__name__, each) for each in super().base_procs() if each.__name__ not in left_out] + [
            Show
        ]


def stage(page: Page) -> None:
    "Process a notebook: `page.notebook` is then what Sphinx reads."
    Stage.page = page
    Processors()(page.notebook)
    front = page.notebook.frontmatter_
    page.title, page.description = front.get("title", page.name), front.get("description", "")
    parts = [f"# {page.title}", "{.lead}\n" + page.description if page.description else ""]
    parts += [f"```{{py:module}} {page.module}\n```" if page.module else ""]
    head = markdown("\n\n".join(filter(None, parts)), 0)
    cells = [cell for cell in page.notebook.cells if cell.cell_type != "raw"]
    if page.plugin:
        opening = sum(cell.metadata["number"] < page.parts for cell in cells)
        cells.insert(opening, markdown(administrator(page.plugin), page.parts))
    page.notebook.cells = [head, *cells]


def number_lines(page: Page) -> None:
    "Say at which line each cell begins: Sphinx reports faults by line. And name cells alike each time."
    for number, cell in enumerate(page.notebook.cells):
        cell["id"] = f"cell-{number}"
    lengths = (cell.source.count("\n") + 1 for cell in page.notebook.cells)
    page.lines = [0, *accumulate(lengths)]
    page.notebook.metadata["source_map"] = page.lines[:-1]
    page.notebook.metadata["language_info"] = {"name": "python", "pygments_lexer": "python"}  # there are no magics


def contents(folder: str, title: str, description: str, pages: list[Page]) -> Page:
    "The page of a folder that has no notebook of its own for that: what is in it, each with its first sentence."
    listed = [f"- [{page.title}](/{page.name}.ipynb): {page.description}".removesuffix(": ") for page in pages]
    notebook = new_nb([mk_cell(f"# {title}\n\n{{.lead}}\n{description}\n\n" + "\n".join(listed), "markdown")])
    notebook.cells[0].metadata["number"] = 0
    return Page(NOTEBOOKS / folder / "index.ipynb", notebook)


def stage_all(folder: Path, sections: dict[str, tuple[str, str]], first: list[str]) -> dict[str, Page]:
    "Write all pages below a folder, and remove what isn't a page; sections have a title, a sentence, and their order."
    pages = {page.name: page for page in map(Page, notebooks())}
    for page in pages.values():
        stage(page)
    inside: dict[str, list[str]] = {section: [] for section in sections}
    for name in sorted(pages, key=lambda name: first.index(name) if name in first else len(first)):
        if name != "index" and not name.endswith("/index"):
            inside.setdefault(name.rpartition("/")[0], []).append(name)
    for section in sorted(filter(None, inside), key=lambda each: each.count("/"), reverse=True):
        names = inside[section]
        if f"{section}/index" not in pages:
            title, description = sections.get(section, (section.rpartition("/")[2].title(), ""))
            pages[f"{section}/index"] = contents(section, title, description, [pages[name] for name in names])
            pages[f"{section}/index"].title, pages[f"{section}/index"].description = title, description
        if "/" in section:
            inside[section.rpartition("/")[0]].append(f"{section}/index")
    inside[""] = [f"{section}/index" for section in inside if section and "/" not in section] + inside.get("", [])
    for section, names in inside.items():
        tree = "\n".join(["```{toctree}\n:hidden:", *(f"/{name}" for name in names), "```"])
        pages[f"{section}/index".removeprefix("/")].notebook.cells.append(markdown(tree, 0))
    for page in pages.values():
        number_lines(page)
        write(folder / f"{page.name}.ipynb", nb2str(page.notebook))
    for path in set(folder.rglob("*.ipynb")) - {folder / f"{name}.ipynb" for name in pages}:
        path.unlink()
    return pages


def write(path: Path, text: str) -> None:
    "Write a file if that changes it, so that Sphinx sets only pages that have changed."
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.exists() or path.read_text(encoding="utf-8") != text:
        path.write_text(text, encoding="utf-8")
