"""Who may know whom, read off the imports; no circles; one public name, one meaning; notebooks in one order.

An import is an import wherever it stands: at the top, in a function, under `if TYPE_CHECKING:`, by `__import__` or
`import_module` with a name that can be read. What a question says of its answerer is no import: a host looks it up.
"""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest
from notebooks import NOTEBOOKS, ROOT

PACKAGE = ROOT / "ra_plugins"
NAME = PACKAGE.name
FILES = sorted(path for path in PACKAGE.rglob("*.py") if path.name != "_modidx.py")
ANY = "*"
ALLOWED = {  # rooms, or modules in them, by room; each knows itself
    "support": set(),
    "rater": {"support"},
    "ask": {"support", "rater.client"},
    "spf": {"ask", "support"},
    "spp": {"ask", "support"},
    "plugins": {"spp", "ask", "spf", "support"},  # and of plugins only what stands in plugins.shared
    "smtpd": {"spp", "support", "hosts"},
    "hosts": {"spp", "ask", "support", "plugins="},  # of the plugins, the folder only: their names
    "cli": {ANY},
}


def module_of(path: Path) -> str:
    "A module's name in the package: `spp.plugin`, or `spf` for what `spf/__init__.py` holds, or nothing for the package."
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_of(path): path for path in FILES}


def named(node: ast.AST, inside: list[str]) -> Iterator[str]:
    "The full names that an import, or a call that is one, may bring in; `inside` are the packages that it stands in."
    if isinstance(node, ast.Import):
        yield from (each.name for each in node.names)
    elif isinstance(node, ast.ImportFrom):
        base = inside[: len(inside) - node.level + 1] if node.level else []
        whole = ".".join([*base, *([node.module] if node.module else [])])
        yield from (f"{whole}.{each.name}" for each in node.names)
    elif isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
        function = getattr(node.func, "attr", getattr(node.func, "id", ""))
        if function in ("__import__", "import_module") and isinstance(node.args[0].value, str):
            yield node.args[0].value


def imported(path: Path, modules: set[str]) -> set[str]:
    "The modules of ours that a file imports; of `from package import name` the name's module, if it is one."
    inside = [NAME, *path.relative_to(PACKAGE).parts[:-1]]
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        for name in named(node, inside):
            if name == NAME or name.startswith(f"{NAME}."):
                module = name.removeprefix(NAME).removeprefix(".")
                while module not in modules:
                    module = module.rpartition(".")[0]
                found.add(module)
    return found - {""}


EDGES = {module: imported(path, set(MODULES)) - {module} for module, path in MODULES.items()}


def may_know(knower: str, known: str) -> bool:
    "Does the table let one module import another?"
    room, other = knower.partition(".")[0], known.partition(".")[0]
    if room == "plugins" and other == "plugins":
        return known.startswith("plugins.shared")
    if room == other or not room:
        return True
    allowed = ALLOWED[room]
    return ANY in allowed or other in allowed or known in allowed or f"{known}=" in allowed


def circle(edges: dict[str, set[str]]) -> str:
    "A circle of modules of which each imports the next, if there is one."
    try:
        TopologicalSorter(edges).prepare()
    except CycleError as error:
        return " <- ".join(error.args[1])
    return ""


def fail_if_any(what: str, faults: list[str]) -> None:
    "Fail with each fault on a line of its own."
    if faults:
        pytest.fail("\n  ".join([f"{what}:", *faults]), pytrace=False)


def test_every_folder_is_a_room() -> None:
    assert {path.name for path in PACKAGE.iterdir() if path.is_dir() and path.name != "__pycache__"} == set(ALLOWED)


def test_rooms_know_only_whom_they_may_know() -> None:
    edges = [(knower, known) for knower in EDGES for known in sorted(EDGES[knower])]
    fail_if_any("against the table", [f"{one} imports {other}" for one, other in edges if not may_know(one, other)])


def test_what_several_hosts_share_belongs_to_none_of_them() -> None:
    "A milter goes by places as main.cf has them, and by the words of a refusal; what else both need, others keep."
    known = {each for knower in EDGES if knower.startswith("hosts.milter.") for each in EDGES[knower]}
    assert {each for each in known if each.startswith("hosts.postfix.")} == {"hosts.postfix.places", "hosts.postfix.action"}


def test_no_circles() -> None:
    assert circle(EDGES) == ""


def test_the_table_itself_has_no_circle() -> None:
    "Otherwise something could run back up by two steps that are each allowed."
    assert circle({room: {each.rstrip("=").partition(".")[0] for each in known - {ANY}} for room, known in ALLOWED.items()}) == ""


@pytest.mark.parametrize(
    ("line", "module"),
    [
        ("import ra_plugins.spp.plugin", "spp.plugin"),
        ("from ra_plugins.spp.plugin import Plugin", "spp.plugin"),
        ("from ra_plugins.spp import plugin", "spp.plugin"),
        ("from ..spp import plugin", "spp.plugin"),
        ("from ..spp.plugin import Plugin", "spp.plugin"),
        ("def f():\n    from ra_plugins.spp.plugin import Plugin", "spp.plugin"),
        ("if TYPE_CHECKING:\n    from ra_plugins.spp.plugin import Plugin", "spp.plugin"),
        ("__import__('ra_plugins.spp.plugin')", "spp.plugin"),
        ("importlib.import_module('ra_plugins.spp.plugin')", "spp.plugin"),
        ("from ra_plugins import __version__", None),
        ("from os import path", None),
    ],
)
def test_every_kind_of_import_is_read(line: str, module: str | None) -> None:
    nodes = ast.walk(ast.parse(line))
    names = {name for node in nodes for name in named(node, [NAME, "support"])}
    found = {name for name in names if name.startswith(f"{NAME}.{module}")} if module else {*()}
    assert bool(found) == bool(module)


@pytest.mark.parametrize(
    ("knower", "known", "allowed"),
    [
        ("ask.rate", "rater.client", True),
        ("ask.rate", "rater.limits", False),
        ("plugins.msa", "plugins.shared.mailboxes", True),
        ("plugins.msa", "plugins.tarpit", False),
        ("plugins.shared.mailboxes", "plugins.tarpit", False),
        ("hosts.catalogue", "plugins", True),
        ("hosts.catalogue", "plugins.tarpit", False),
        ("support.control", "spp.session", False),
        ("spp.plugin", "hosts.script", False),
        ("spf.run", "rater.client", False),
        ("cli.command", "plugins.overload", True),
    ],
)
def test_the_table(knower: str, known: str, allowed: bool) -> None:
    assert may_know(knower, known) is allowed


def test_circles_are_found() -> None:
    edges = {"a": {"b"}, "b": {"c"}, "c": {"a", "d"}, "d": set(), "e": {"f"}, "f": {"e"}}
    assert set(circle(edges).split(" <- ")) in ({"a", "b", "c"}, {"e", "f"})
    assert circle({"a": {"b"}, "b": {"c"}, "c": set()}) == ""


# Names


def public_names(path: Path) -> set[str]:
    "What a module says it offers, but for what it only passes on, as a front door does."
    offered: set[str] = set()
    passed_on: set[str] = set()
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign) and any(getattr(target, "id", "") == "__all__" for target in node.targets):
            offered.update(ast.literal_eval(node.value))
        for each in ast.walk(node):
            if isinstance(each, ast.ImportFrom):
                passed_on.update(alias.asname or alias.name for alias in each.names)
    return offered - passed_on


def test_one_public_name_has_one_meaning() -> None:
    "Only `main` stands in several modules: in each, what its command runs."
    where = defaultdict(list)
    for module, path in MODULES.items():
        for name in public_names(path) - {"main"}:
            where[name].append(module)
    doubled = [f"{name}: {', '.join(modules)}" for name, modules in sorted(where.items()) if len(modules) > 1]
    fail_if_any("names that several modules define", doubled)


# Notebooks


def numbers(folder: Path) -> list[str]:
    "The numbers of a folder's notebooks; an empty one for a notebook that has none. A start page needs none."
    paths = [path for path in NOTEBOOKS if path.parent == folder and path.stem != "index"]
    return [re.match(r"(?:(\d\d)_)?", path.stem)[1] or "" for path in paths]  # type: ignore[index]


@pytest.mark.parametrize("folder", sorted({path.parent for path in NOTEBOOKS}), ids=lambda path: path.name)
def test_notebooks_of_a_folder_have_one_order(folder: Path) -> None:
    "All of them are numbered, and no number stands twice, or none is."
    found = numbers(folder)
    assert set(found) <= {""} or ("" not in found and len(set(found)) == len(found))


@pytest.mark.parametrize("page", ["index", "where_things_are"])
def test_the_start_page_and_the_inventory_lead_to_every_room(page: str) -> None:
    "To its folder: what is in that, the site lists by itself."
    text = (ROOT / "nbs" / f"{page}.ipynb").read_text(encoding="utf-8")
    fail_if_any(f"not in nbs/{page}.ipynb", [room for room in sorted(ALLOWED) if f"]({room.partition('/')[0]}/)" not in text])
