"""Run notebooks, each in a process of its own: `python tests/notebooks.py [--check] [NOTEBOOK …]`.

A notebook's stored outputs are part of the documentation, so they have to be what the code prints today. They are
written, and it is said where that has changed one; with `--check` they are compared, and every difference is shown. The
notebook of a plugin has it answer, in one cell or another, each command that it declares. Without names: all notebooks.
"""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from argparse import ArgumentParser
from concurrent.futures import ThreadPoolExecutor
from difflib import unified_diff
from ipaddress import ip_address
from pathlib import Path
from typing import Any, NamedTuple

from execnb.nbio import read_nb, write_nb
from execnb.shell import CaptureShell
from fastcore.ansi import strip_ansi
from nbdev.clean import clean_nb

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOKS = sorted(path for path in (ROOT / "nbs").rglob("*.ipynb") if ".ipynb_checkpoints" not in path.parts)


def title(path: Path) -> str:
    "A notebook's name in reports: its path below nbs/, without the ending."
    return path.relative_to(ROOT / "nbs").with_suffix("").as_posix()


def is_run(cell: Any) -> bool:
    "Is this a cell that runs? nbdev leaves out those that begin with `#| eval: false`."
    return cell.cell_type == "code" and "#| eval: false" not in cell.source.splitlines()


class Run(NamedTuple):
    "A notebook as stored and as it is after a run, both clean, and what is wrong with its plugin, if it is one's."

    before: Any
    after: Any
    unanswered: str


def run(path: Path) -> Run:
    "Run a notebook; a cell that raises ends the process."
    before, after = read_nb(path), read_nb(path)
    sys.path.insert(0, str(ROOT))
    os.chdir(path.parent)
    os.environ["COLUMNS"] = "80"  # argparse fills lines to the width of the terminal, where there is one
    quiet_about_signals()
    shell, answered = CaptureShell(path), noted_answers() if is_plugins(path) else {}
    for number, cell in enumerate(after.cells):
        if is_run(cell):
            cell.outputs = []  # the shell leaves the old ones to a cell that shows nothing
            shell.cell(cell)
        if shell.exc:
            printed = "".join(text for _, text in outputs(cell))
            sys.exit(f"{title(path)}, cell {number} raises an exception:\n\n{cell.source}\n\n{strip_ansi(printed)}")
    for notebook in (before, after):
        clean_nb(notebook)
    return Run(before, after, unanswered(path, shell.user_ns, answered) if is_plugins(path) else "")


def quiet_about_signals() -> None:
    "A shell has SIGINT ignored for what it runs in the background. Notebooks, and what they start, can be interrupted."
    signal.signal(signal.SIGINT, signal.default_int_handler)


def is_plugins(path: Path) -> bool:
    "Is this the notebook of a plugin?"
    return path.parent == ROOT / "nbs" / "plugins"


def noted_answers() -> dict[str, set[type]]:
    "The kinds of commands that plugins answer from now on, by the plugin's name."
    from ra_plugins.spp.plugin import Plugin

    answered: dict[str, set[type]] = {}
    decide = Plugin.decide

    def noting(plugin: Plugin, *arguments: Any, **options: Any) -> Any:
        answers = decide(plugin, *arguments, **options)
        answered.setdefault(plugin.name, set()).update(map(type, answers))
        return answers

    for name in ("decide", "__call__"):
        setattr(Plugin, name, noting)
    return answered


def unanswered(path: Path, names: dict[str, Any], answered: dict[str, set[type]]) -> str:
    "What is wrong where a plugin declares commands and no cell of its notebook has it answer them."
    plugin: Any = names.get(path.stem)
    if not hasattr(plugin, "answers"):
        return f"{title(path)} defines no plugin {path.stem}"
    never = sorted(kind.__name__ for kind in set(plugin.answers or ()) - answered.get(path.stem, set()))
    return f"{title(path)}: no cell has the plugin answer {', '.join(never)}, which it declares" if never else ""


def outputs(cell: Any) -> list[tuple[str, str]]:
    "What a cell shows: the kind and the text of each output, streams joined."
    shown: list[tuple[str, str]] = []
    for output in cell.get("outputs", []):
        data = output.get("data") or {output.get("name", output["output_type"]): output.get("text", "")}
        for kind, lines in sorted(data.items()):
            joins = kind == "stdout" and bool(shown) and shown[-1][0] == kind
            before = shown.pop()[1] if joins else ""
            shown.append((kind, before + "".join(lines)))
    return shown


def differences(path: Path) -> list[str]:
    "The cells whose stored output isn't what they print, each with a line-by-line comparison."
    before, after, wrong = run(path)
    reports = [wrong] if wrong else []
    for number, (old, new) in enumerate(zip(before.cells, after.cells, strict=True)):
        lines = list(unified_diff(as_lines(outputs(old)), as_lines(outputs(new)), "stored", "printed now", n=1, lineterm=""))
        if lines:
            reports.append("\n".join([f"{title(path)}, cell {number}:\n", new.source, "", *lines, ""]))
    return reports


def store(path: Path) -> None:
    "Run a notebook, write it, and say which of its stored outputs that has changed."
    before, after, wrong = run(path)
    write_nb(after, path)
    cells = enumerate(zip(before.cells, after.cells, strict=True))
    changed = [str(number) for number, (old, new) in cells if outputs(old) != outputs(new)]
    if changed:
        print(f"{title(path)}: another output of cell{'s' * (len(changed) > 1)} {', '.join(changed)}")
    if wrong:
        print(wrong, file=sys.stderr)


def as_lines(shown: list[tuple[str, str]]) -> list[str]:
    "What `outputs` found, each line with its kind."
    return [f"{kind}: {line}" for kind, text in shown for line in text.splitlines()]


def is_local(host: str | bytes | None) -> bool:
    "Does this name or address mean the machine itself?"
    name = host.decode() if isinstance(host, bytes) else host or "localhost"
    try:
        return ip_address(name).is_loopback or ip_address(name).is_unspecified
    except ValueError:
        return name == "localhost"


def refuse_network(event: str, arguments: tuple[Any, ...]) -> None:
    "An audit hook (PEP 578): the notebook finds itself on a machine without network."
    if event in ("socket.getaddrinfo", "socket.gethostbyname"):
        host = arguments[0]
    elif event in ("socket.connect", "socket.sendto", "socket.sendmsg") and isinstance(arguments[1], tuple):
        host = arguments[1][0]  # not a tuple: the path of a Unix socket
    else:
        return
    if not is_local(host):
        raise OSError(errno.ENETUNREACH, f"notebooks run without network, and this one asks for {host!r}")


def main() -> None:
    parser = ArgumentParser(description="Run notebooks, and store what they print.")
    parser.add_argument("--check", action="store_true", help="compare with what is stored, and store nothing")
    parser.add_argument("notebook", nargs="*", type=Path)
    options = parser.parse_args()
    paths = [path.resolve() for path in options.notebook] or NOTEBOOKS
    if len(paths) != 1:
        run_each(paths, ["--check"] if options.check else [])
        return
    sys.addaudithook(refuse_network)
    if options.check:
        found = differences(paths[0])
        sys.exit("\n".join([*found, "If that is as it should be: make notebooks, and commit."]) if found else 0)
    store(paths[0])


def run_each(paths: list[Path], options: list[str]) -> None:
    "Each notebook in a process of its own, as many at once as there are processors."

    def one(path: Path) -> int:
        done = subprocess.run([sys.executable, __file__, *options, path], check=False)
        if sys.stderr.isatty():
            print(title(path), file=sys.stderr)
        return done.returncode

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        sys.exit(any(pool.map(one, paths)))


if __name__ == "__main__":
    main()
