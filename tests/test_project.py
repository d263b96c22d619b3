"What the project promises about itself: what is made from the notebooks is current, and a plugin starts light."

from __future__ import annotations

import ast
import filecmp
import json
import os
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

from ra_plugins.support.extras import EXTRAS as BROUGHT

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
        pytest.fail(
            f"{what}: {names_of_those}\nrun `make notebooks`, remove what no notebook makes, and commit", pytrace=False
        )


def test_package_is_what_the_notebooks_export(copy: Path) -> None:
    fail_where_different(copy, "ra_plugins/**/*", "not what the notebooks export")


def test_notebooks_are_clean(copy: Path) -> None:
    fail_where_different(copy, "nbs/**/*.ipynb", "not as nbdev_clean leaves it")


def test_readme_is_what_index_says() -> None:
    done = subprocess.run([sys.executable, ROOT / "docs" / "readme.py", "--check"], stderr=subprocess.PIPE, text=True)
    if done.returncode:
        pytest.fail(done.stderr, pytrace=False)


def versioned() -> list[Path]:
    "The files under version control, and those that may come under it."
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    listed = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    if listed.returncode:
        pytest.skip("not a git checkout")
    return [path for path in map(ROOT.joinpath, sorted(set(listed.stdout.split("\0")))) if path.is_file()]


def test_no_file_is_large() -> None:
    assert [str(path) for path in versioned() if path.stat().st_size > LARGEST] == []


# What git and nbdev leave of a conflict: a line of its own; in a notebook, a cell of its own, or a line of one.
MARKER = re.compile(rb"""^[ ]*(?:"[`]*)?(?:<{7}|>{7}|[|]{7})(?=[ \r\n"`\\]|$)|^[ ]*"[`]*={7}[`"\\]|^={7}\r?$""", re.M)


def conflicts(content: bytes) -> list[int]:
    "The lines at which a merge has been left half done."
    return [content.count(b"\n", 0, found.start()) + 1 for found in MARKER.finditer(content)]


def test_notebooks_are_notebooks() -> None:
    "As their format has it (nbformat(4)): what isn't opens in no editor, and sets no page."
    import nbformat

    wrong = []
    for path in NOTEBOOKS:
        try:
            nbformat.validate(nbformat.read(path, 4))
        except nbformat.ValidationError as error:
            wrong.append(f"{path.relative_to(ROOT)}: {str(error).splitlines()[0]}")
    assert wrong == []


def test_no_merge_is_left_half_done() -> None:
    places = [f"{path.relative_to(ROOT)}, line {line}" for path in versioned() for line in conflicts(path.read_bytes())]
    if places:
        pytest.fail(
            "markers of a conflict: " + "; ".join(places) + "\nCONTRIBUTING.md says how a merge is finished",
            pytrace=False,
        )


@pytest.mark.parametrize("mark", ["<" * 7, "=" * 7, ">" * 7, "|" * 7], ids=["ours", "middle", "theirs", "base"])
@pytest.mark.parametrize(
    "form",
    [
        "def one() -> None:\n{} HEAD\n    pass\n",  # in code, and in README.md
        '   "source": [\n    "{} HEAD\\n",\n    "def one"',  # in a cell, where git has merged lines of JSON
        '   "source": [\n    "`{} HEAD`"\n   ]',  # a cell of its own, as nbdev-merge writes it
        '   "source": [\n{} HEAD\n    "def one"',  # beside the JSON
    ],
)
def test_markers_of_a_conflict_are_found(mark: str, form: str) -> None:
    written = form.format(mark) if mark[0] != "=" else form.replace(" HEAD", "").format(mark)
    assert conflicts(written.encode()) == [2]


@pytest.mark.parametrize(
    "line", ["Title\n========\n", "a == b\n", ">>> 1 << 7\n", '    "<<<<<<\\n"', "--- a\n+++ b\n", "<" * 8]
)
def test_other_lines_are_no_markers(line: str) -> None:
    assert conflicts(line.encode()) == []


def test_a_conflict_that_nbdev_has_merged_is_found(tmp_path: Path) -> None:
    "Two people change one cell, and git merges with nbdev's driver, as `make hooks` sets it up."

    def git(*words: str) -> int:
        who = [
            "-c",
            "user.name=Ana",
            "-c",
            "user.email=ana@example.org",
            "-c",
            f"merge.nbdev-merge.driver={BIN}/nbdev_merge %O %A %B %P",
        ]
        return subprocess.run(["git", *who, *words], cwd=tmp_path, capture_output=True).returncode

    notebook = tmp_path / "nbs" / "index.ipynb"
    notebook.parent.mkdir()
    for name in ("settings.ini", ".gitattributes"):
        shutil.copy(ROOT / name, tmp_path / name)
    text = (ROOT / "nbs" / "index.ipynb").read_text(encoding="utf-8")
    assert text.count("## Try it") == 1
    git("init", "--quiet", "--initial-branch=main")
    for branch, title in (("main", "## Try it"), ("theirs", "## Try them"), ("main", "## Try this")):
        git("checkout", "--quiet", *(["-b"] if branch == "theirs" else []), branch)
        notebook.write_text(text.replace("## Try it", title), encoding="utf-8")
        git("add", "--all")
        git("commit", "--quiet", "--message", title)
    git("merge", "theirs")
    assert conflicts(notebook.read_bytes())


def test_a_save_after_a_run_changes_nothing() -> None:
    "Jupyter numbers the cells that it has run, and notes its kernel; nbdev's hook takes that off as the notebook is saved."
    path = ROOT / "nbs" / "spp" / "00_session.ipynb"
    stored = path.read_text(encoding="utf-8")
    notebook = json.loads(stored)
    notebook["metadata"]["language_info"] = {"name": "python", "version": "3.11.2", "file_extension": ".py"}
    notebook["metadata"]["kernelspec"]["display_name"] = "Python 3 (ipykernel)"
    for number, cell in enumerate(notebook["cells"]):
        cell["metadata"] = {"execution": {"iopub.status.busy": "2026-01-01T00:00:00.000000Z"}, "tags": []}
        if cell["cell_type"] == "code":
            cell["execution_count"] = number
            cell["outputs"] = [
                {**each, **({"execution_count": number} if "execution_count" in each else {})}
                for each in cell["outputs"]
            ]
    from nbdev.clean import clean_jupyter

    clean_jupyter(path=str(path), model={"type": "notebook", "content": notebook})
    assert json.dumps(notebook, indent=1, ensure_ascii=False, sort_keys=True) + "\n" == stored


def test_type_checkers_find_the_package_from_outside(tmp_path: Path) -> None:
    "In an editable install, too: with its types, and not as something unknown."
    (tmp_path / "mine.py").write_text(
        "from ra_plugins.spf import check\n\nreveal_type(check('192.0.2.1', 'ana@example.org').result)\n"
    )
    command = [sys.executable, "-m", "mypy", "--strict", "--cache-dir", str(tmp_path / "cache"), "mine.py"]
    environ = {name: value for name, value in os.environ.items() if name not in ("MYPYPATH", "PYTHONPATH")}
    done = subprocess.run(command, cwd=tmp_path, env=environ, capture_output=True, text=True)
    assert re.search(r"Revealed type is .*Literal.*'permerror'", done.stdout), done.stdout


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


EXTRAS = ("dns", "spf", "cdb", "checkback", "smtpd", "rater", "service", "sql", "milter", "completion")


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
    needed = {each.replace("_", "-") for name in others for each in brought.get(name) or [BROUGHT.get(name, (name,))[0]]}
    ours = set().union(*(required(f"{extra}_requirements") for extra in EXTRAS))
    assert not required("requirements"), "the package alone needs Python alone"
    assert needed <= ours, "imported, and not among the requirements in settings.ini"
    assert not ours & required("dev_requirements")
