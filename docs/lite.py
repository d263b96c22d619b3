"""Notebooks that run in the page: JupyterLite with Pyodide, all of it served from the site itself.

Pyodide is Python for the browser, compiled to WebAssembly. npm has its core, and PyPI the rest, which is in Python, in the
versions that Pyodide's lock file names. What has been fetched stays in .cache/. A notebook runs there if its cells start no
process, open no socket and have no threads. It is the notebook of the repository, with its own definitions and what it has
printed there; as soon as Python is there, static/lite.js has it run once, so that any cell can be changed and run.
"""

from __future__ import annotations

import ast
import hashlib
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any
from zipfile import ZipFile

from docutils import nodes
from execnb.nbio import mk_cell, nb2dict, new_nb
from jupyterlite_pyodide_kernel.constants import PYODIDE_VERSION
from nbdev.process import NBProcessor
from sphinx.application import Sphinx
from sphinx.util.parallel import ParallelTasks
from stage import CONFIG, EXPORTS, NOTEBOOKS, ROOT, Page, import_statements, is_python, is_shown, notebooks

CACHE = ROOT / ".cache" / "lite"
CORE = ["pyodide.mjs", "pyodide.js", "pyodide.asm.mjs", "pyodide.asm.wasm", "python_stdlib.zip"]
KERNEL = ["micropip", "packaging", "ipython", "jedi", "comm"]  # what JupyterLite's kernel loads
# What a notebook that runs there doesn't import at all, and why; what only its exported cells may is named in UNUSED.
NO_PROCESS, NO_NETWORK, NO_LOOP = "it starts programs", "it opens connections", "it has an event loop of its own"
NO_THREADS, NO_SERVER = "it has threads", "it needs the part of the package that runs servers and programs"
ABSENT = {
    **dict.fromkeys(["multiprocessing", "subprocess", "terminal"], NO_PROCESS),
    **dict.fromkeys(["prometheus_client", "redis", "select", "smtplib", "socketserver"], NO_NETWORK),
    "asyncio": NO_LOOP,
}
ROOMS = ("hosts", "smtpd", "cli")
THREADED = ("ask.mailbox", "ask.vpopmail", "ask.workers")  # threads, and files that a browser's system doesn't have
LISTENING = ("support.listening", "support.systemd")
HOSTED = tuple(f"{CONFIG.lib_name}.{each}" for each in (*ROOMS, *THREADED, *LISTENING))
UNUSED = {
    **dict.fromkeys(HOSTED, NO_SERVER),
    **dict.fromkeys([f"{CONFIG.lib_name}.{each}" for each in THREADED], NO_THREADS),
    **dict.fromkeys(["concurrent.", "threading"], NO_THREADS),
    **dict.fromkeys(["resource", "signal"], NO_PROCESS),
    "socket": NO_NETWORK,
}
REQUIREMENTS = f"{CONFIG.d['smtpd_requirements']} {CONFIG.d['rater_requirements']}"

# Pyodide's socket can't read IPv6 addresses, nor can the module in C below it, which some import to start sooner.
WITHOUT_IPV6 = """
import _socket, ipaddress, socket
VERSIONS = {socket.AF_INET: ipaddress.IPv4Address, socket.AF_INET6: ipaddress.IPv6Address}

def inet_pton(family, text):
    try:
        return VERSIONS[family](text.replace("%", "x")).packed  # which takes no zone
    except ValueError:
        raise OSError("illegal IP address string passed to inet_pton") from None

def inet_ntop(family, packed):
    address = VERSIONS[family](packed)
    mapped = getattr(address, "ipv4_mapped", None)
    return f"::ffff:{mapped}" if mapped else str(address)

for module in (_socket, socket):
    module.inet_pton, module.inet_ntop = inet_pton, inet_ntop
"""


class NotAvailable(Exception):
    "Why notebooks can't run in the page of this site."


def run(*command: str | Path, folder: Path = ROOT) -> None:
    try:
        subprocess.run(command, cwd=folder, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    except FileNotFoundError:
        raise NotAvailable(f"{command[0]} isn't installed") from None
    except subprocess.CalledProcessError as error:
        lines = error.stderr.strip().splitlines() or ["it doesn't say why"]
        why = next((line for line in reversed(lines) if re.search(r"error\b", line, re.I)), lines[-1])
        raise NotAvailable(f"{' '.join(map(str, command[:4]))} failed: {why}") from None


def pip(*arguments: str | Path) -> None:
    run(sys.executable, "-m", "pip", "--disable-pip-version-check", *arguments)


# The notebooks


def obstacle(page: Page, packages: set[str]) -> str:
    "Why a notebook can't run in the page with these packages; nothing if it can."
    imported = top_level(page.imports)
    shown = [cell for cell in NBProcessor(page.path).nb.cells if is_python(cell) and not cell.directives_.keys() & EXPORTS]
    used = [page.module, *modules([node for cell in shown for node in import_statements(cell.source)])]
    whys = [ABSENT[name] for name in imported if name in ABSENT]
    whys += [why for start, why in UNUSED.items() for module in used if module.startswith(start)]
    whys += [f"{name} isn't there" for name in imported if name not in packages | sys.stdlib_module_names]
    return next(iter(whys), "")


def runnable(page: Page) -> Any:
    "The notebook as it runs in the page, with the outputs that are stored; set-up that a page doesn't show is folded."
    title, *cells = NBProcessor(page.path).nb.cells
    shown = [cell for cell in cells if cell.cell_type != "raw" and "default_exp" not in cell.directives_]
    made = new_nb([mk_cell(f"# {page.title}\n\n{page.description}", "markdown"), *map(stored, shown)])
    made.metadata = {"kernelspec": {"name": "python", "display_name": "Python (Pyodide)", "language": "python"}}
    return made


def modules(nodes: list[ast.Import | ast.ImportFrom]) -> list[str]:
    return [getattr(node, "module", None) or each.name for node in nodes for each in node.names]


def top_level(nodes: list[ast.Import | ast.ImportFrom]) -> list[str]:
    return [module.partition(".")[0] for module in modules(nodes)]


def stored(cell: Any) -> Any:
    "A cell as it is stored; the code that the page doesn't show, or folds, is folded."
    if cell.cell_type == "markdown":
        return mk_cell(cell.source, "markdown")
    is_folded = not is_shown(cell) or "exporti" in cell.directives_
    metadata = {"trusted": True, **({"jupyter": {"source_hidden": True}} if is_folded else {})}
    made = mk_cell(cell.source, "code", metadata=metadata)
    made["outputs"] = [joined(output) for output in cell.get("outputs", [])]
    return made


def joined(output: Any) -> Any:
    "An output with each text in one piece: a notebook's file has it in lines, which a server joins, and there is none."
    whole: dict[str, Any] = {key: "".join(value) if key == "text" else value for key, value in output.items()}
    if "data" in whole:
        whole["data"] = {kind: "".join(value) for kind, value in whole["data"].items()}
    return whole


# Python


def fetched() -> Path:
    "The folder with Pyodide, and the wheels of all that the package needs: what has to be asked of the network."
    wanted = hashlib.sha256(REQUIREMENTS.encode()).hexdigest()[:8]
    folder = CACHE / f"{PYODIDE_VERSION}-{wanted}"
    if not (folder / "complete").exists():
        fetch(folder)
    return folder


def importable(wheel: Path) -> set[str]:
    with ZipFile(wheel) as archive:
        return {path.partition("/")[0].removesuffix(".py") for path in archive.namelist() if path.endswith(".py")}


def pyodide(packages: Path, folder: Path) -> None:
    "Pyodide with the package and all that it needs."
    shutil.copytree(packages, folder)
    pip("wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", folder, package(CACHE / "package"))
    lock = json.loads((folder / "pyodide-lock.json").read_text())
    known = lock["packages"]
    lock["packages"] = {name: package for wheel in folder.glob("*.whl") for name, package in [entry(wheel, known)]}
    ours = lock["packages"][CONFIG.lib_name.replace("_", "-")]
    ours["depends"] = sorted(lock["packages"].keys() - needed(known).keys() - {ours["name"]})
    write(folder / "pyodide-lock.json", lock)


def package(folder: Path) -> Path:
    "The project with what its package needs where it runs in a page."
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(ROOT / CONFIG.lib_path, folder / CONFIG.lib_name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("settings.ini", "setup.py", "pyproject.toml", "README.md"):
        shutil.copy(ROOT / name, folder)
    with (folder / CONFIG.lib_name / "__init__.py").open("a") as file:
        file.write(WITHOUT_IPV6)
    return folder


def fetch(folder: Path) -> None:
    "The core from npm, and the wheels from PyPI."
    folder.mkdir(parents=True, exist_ok=True)
    run("npm", "pack", "--silent", f"pyodide@{PYODIDE_VERSION}", folder=CACHE)
    shutil.unpack_archive(CACHE / f"pyodide-{PYODIDE_VERSION}.tgz", CACHE / "npm")
    for name in [*CORE, "pyodide-lock.json"]:
        shutil.copy(CACHE / "npm" / "package" / name, folder)
    lock = json.loads((folder / "pyodide-lock.json").read_text())
    version = ["--python-version", lock["info"]["python"].rpartition(".")[0], "--only-binary", ":all:"]
    pip("download", "--no-deps", *version, "--dest", folder, *needed(lock["packages"]).values())
    pip("wheel", "--wheel-dir", folder, *REQUIREMENTS.split())
    (folder / "complete").touch()


def needed(packages: dict[str, Any]) -> dict[str, str]:
    "What the kernel needs, and what that needs, in the versions of the lock file. All of it is in Python."
    found: dict[str, str] = {}
    left = list(KERNEL)
    while left:
        name = left.pop()
        if name not in found:
            package = packages.get(name, {"name": name, "depends": []})
            found[name] = "==".join([package["name"], *([package["version"]] if "version" in package else [])])
            left += package["depends"]
    return found


def entry(wheel: Path, known: dict[str, Any]) -> tuple[str, Any]:
    "What stands in the lock file about a wheel."
    file, version, *_ = wheel.name.split("-")
    name = file.lower().replace("_", "-")
    about = {"name": name, "install_dir": "site", "package_type": "package", "unvendored_tests": False, "depends": []}
    about["imports"] = sorted(importable(wheel))
    digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
    return name, {**about, **known.get(name, {}), "version": version, "file_name": wheel.name, "sha256": digest}


# The site


def contents(folder: Path, pages: dict[str, Page], packages: set[str]) -> dict[str, str]:
    "Write the notebooks that run in the page, and the files that they read; answers for each page why it can't run."
    whys = {name: obstacle(page, packages) for name, page in pages.items() if page.path.exists() and page.code}
    for name, why in whys.items():
        if not why:
            write(folder / f"{name}.ipynb", nb2dict(runnable(pages[name])))
    for path in set(NOTEBOOKS.rglob("*.*")) - set(notebooks()):
        if path.is_file() and path.suffix not in (".ipynb", ".py", ".pyc"):
            shutil.copy(path, folder / path.relative_to(NOTEBOOKS))
    return whys


def configure(work: Path, folder: Path) -> None:
    "Tell JupyterLite what to put where, and to ask nobody else for Python and its packages."
    kernel = {"disablePyPIFallback": True, "pyodideUrl": "./static/pyodide/pyodide.mjs"}
    settings: dict[str, Any] = {"appName": CONFIG.repo, "exposeAppInBrowser": True}
    settings["litePluginSettings"] = {"@jupyterlite/pyodide-kernel-extension:kernel": kernel}
    write(work / "jupyter-lite.json", {"jupyter-lite-schema-version": 0, "jupyter-config-data": settings})
    build = {"contents": ["contents"], "output_dir": str(folder), "apps": ["notebooks"], "no_sourcemaps": True}
    wheels = {"piplite_urls": [str(path) for path in (work / "static/pyodide").glob("comm-*.whl")]}
    build["no_unused_shared_packages"] = True
    write(work / "jupyter_lite_config.json", {"LiteBuildConfig": build, "PipliteAddon": wheels})


def write(path: Path, data: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(data))


# In the pages

BUTTON = '<p class="run"><a href="{}lite/notebooks/index.html?path={}.ipynb">Run this notebook in your browser</a></p>'
WHY_NOT = '<p class="run-not">This notebook can’t run in a browser: {}.</p>'


def prepare(app: Sphinx) -> None:
    "Begin with JupyterLite where that is wanted and possible; it is built beside the pages."
    app.runnable, app.lite = {}, None
    if not app.config.lite:
        return
    work, folder = Path(app.srcdir) / "lite", Path(app.outdir) / "lite"
    shutil.rmtree(work, ignore_errors=True)
    try:
        packages = fetched()
    except NotAvailable as error:
        print(f"Notebooks can't be run in the page of this site: {error}", file=sys.stderr)
        return
    names = {CONFIG.lib_name}.union(*map(importable, packages.glob("*.whl")))
    app.runnable = contents(work / "contents", app.pages, names)
    app.lite = ParallelTasks(1)
    app.lite.add_task(build, (packages, work, folder))


def build(folders: tuple[Path, Path, Path]) -> None:
    packages, work, folder = folders
    pyodide(packages, work / "static" / "pyodide")
    configure(work, folder)
    run(sys.executable, "-m", "jupyter", "lite", "build", "--lite-dir", ".", folder=work)


def finish(app: Sphinx, exception: Exception | None) -> None:
    if not app.lite:
        return
    app.lite.join()
    folder = Path(app.outdir)
    shutil.copy(folder / "lite" / "icon-120x120.png", folder / "favicon.ico")  # which its pages ask for
    page = folder / "lite" / "notebooks" / "index.html"
    page.write_text(page.read_text().replace("</head>", '<script src="../../_static/lite.js"></script></head>', 1))


def add_button(app: Sphinx, doctree: nodes.document, docname: str) -> None:
    if docname not in app.runnable:
        return
    title, why = next(iter(doctree.findall(nodes.title))), app.runnable[docname]
    text = WHY_NOT.format(why) if why else BUTTON.format("../" * docname.count("/"), docname)
    lead = next((each for each in title.parent if "lead" in each.get("classes", ())), title)
    title.parent.insert(title.parent.index(lead) + 1, nodes.raw("", text, format="html"))


def setup(app: Sphinx) -> dict[str, Any]:
    app.add_config_value("lite", False, "html", bool)
    app.connect("builder-inited", prepare, priority=2)
    app.connect("doctree-resolved", add_button)
    app.connect("build-finished", finish)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
