"What the project promises about itself: what is made from the notebooks is current, and a plugin starts light."

from __future__ import annotations

import ast
import filecmp
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from configparser import ConfigParser
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from notebooks import NOTEBOOKS, ROOT

BIN = Path(sys.executable).parent
PACKAGE = ROOT / "ra_plugins"
PLUGINS = sorted((PACKAGE / "plugins").glob("[!_]*.py"))
HEAVY = {"argparse", "asyncio", "dataclasses", "dns", "inspect", "logging", "re", "subprocess", "typing"}
LARGEST = 1_000_000  # bytes of a file under version control


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    "A copy of the project with the package exported anew, and the notebooks cleaned."
    folder = tmp_path_factory.mktemp("copy")
    for path in [*NOTEBOOKS, ROOT / "settings.ini", PACKAGE / "py.typed"]:
        (folder / path.relative_to(ROOT)).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, folder / path.relative_to(ROOT))
    for command in ("nbdev_export", "nbdev_clean"):
        subprocess.run([BIN / command], cwd=folder, check=True)
    return folder


def files(top: Path, pattern: str) -> set[Path]:
    found = (path.relative_to(top) for path in top.glob(pattern) if path.is_file())
    return {path for path in found if not {"__pycache__", ".ipynb_checkpoints"} & set(path.parts)}


def fail_where_different(copy: Path, pattern: str, what: str) -> None:
    names = files(ROOT, pattern) | files(copy, pattern)
    _, changed, missing = filecmp.cmpfiles(ROOT, copy, names, shallow=False)
    if changed or missing:
        names_of_those = ", ".join(sorted(map(str, changed + missing)))
        pytest.fail(f"{what}: {names_of_those}\nrun `make notebooks`, remove what no notebook makes, and commit", pytrace=False)


def test_package_is_what_the_notebooks_export(copy: Path) -> None:
    fail_where_different(copy, "ra_plugins/**/*", "not what the notebooks export")


def test_notebooks_are_clean(copy: Path) -> None:
    fail_where_different(copy, "nbs/**/*.ipynb", "not as nbdev_clean leaves it")


def test_readme_is_what_index_says() -> None:
    done = subprocess.run([sys.executable, ROOT / "docs" / "readme.py", "--check"], stderr=subprocess.PIPE, text=True)
    if done.returncode:
        pytest.fail(done.stderr, pytrace=False)


def test_no_file_is_large() -> None:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    if listed.returncode:
        pytest.skip("not a git checkout")
    present = [path for path in map(ROOT.joinpath, listed.stdout.split("\0")) if path.is_file()]
    assert [str(path) for path in present if path.stat().st_size > LARGEST] == []


@pytest.mark.parametrize("module", [path.stem for path in PLUGINS])
def test_plugin_starts_light(module: str) -> None:
    "qmail-smtpd starts a plugin for every SMTP command, so it imports nothing that takes long."
    script = f"""
import sys
sys.path.insert(0, {str(ROOT)!r})
import ra_plugins.plugins.{module}
print(*sorted({HEAVY!r} & set(sys.modules)))"""
    done = subprocess.run([sys.executable, "-I", "-S", "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [], f"{module} imports these; python -X importtime shows by which way"


def required(key: str) -> set[str]:
    "The distributions that settings.ini names, without their versions."
    config = ConfigParser(delimiters=["="], interpolation=None)
    config.read(ROOT / "settings.ini", encoding="utf-8")
    return {re.split(r"[\[<>=!~]", each)[0] for each in config["DEFAULT"][key].split()}


def imported(path: Path) -> Iterator[str]:
    "The top-level packages that a module imports, wherever in it but for what only a type checker sees."
    tree = ast.parse(path.read_text(encoding="utf-8"))
    unseen = [each for node in ast.walk(tree) if isinstance(node, ast.If) for each in node.body if is_checking(node)]
    skipped = {node for each in unseen for node in ast.walk(each)}
    for node in ast.walk(tree):
        if node in skipped:
            continue
        names = [each.name for each in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom) and not node.level and node.module:
            names = [node.module]
        yield from (name.partition(".")[0] for name in names)


def is_checking(node: ast.If) -> bool:
    return isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"


def test_package_runs_without_what_builds_it() -> None:
    known = {*sys.stdlib_module_names, PACKAGE.name}
    others = {name for path in PACKAGE.rglob("*.py") for name in imported(path)} - known
    brought = packages_distributions()
    needed = {each.replace("_", "-") for name in others for each in brought.get(name, [f"what brings {name}"])}
    extras = required("rater_requirements") | required("sql_requirements") | required("service_requirements")
    ours = required("requirements") | extras
    assert needed <= ours, "imported, and not among the requirements in settings.ini"
    assert not ours & required("dev_requirements")
