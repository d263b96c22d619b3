"""Begin a plugin: `make plugin NAME=…` writes the skeleton of its notebook, which works as it is.

It refuses one recipient, whom a setting names. What the plugin is to do takes the place of that, and what is in italics is to
be told in your own words.
"""

from __future__ import annotations

import json
import keyword
import re
import sys
from hashlib import sha256
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
NAME_LIMIT = 30  # characters of a plugin's name: it stands in each of its log lines
CELLS = """
%% markdown
# NAME

> *What it does, in a line of its own.*
%% markdown
*The problem, in a paragraph that somebody new to it understands, with one real example.* Until that is written: this plugin
refuses mail for one recipient.
%% code
#| default_exp plugins.NAME
%% code
#| exporti
from __future__ import annotations

from ra_plugins.spp.command import Refuse
from ra_plugins.spp.plugin import plugin
from ra_plugins.support.environment import Environment, text, variable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from ra_plugins.spp.session import Session
%% code
#| hide
from ra_plugins.spp.command import write
from ra_plugins.spp.session import sample_session
from ra_plugins.support.environment import VariableTable
%% markdown
*What can be set, and why it is as it is if nobody sets it.*
%% code
#| export
class ClassSettings(Environment):
    "What NAME can be told."

    nobody: str = variable("SETTINGNOBODY", text, "nobody", "The local part of the recipient to refuse.")
%% code
#| echo: false
VariableTable(ClassSettings)
%% markdown
## The plugin

*What it decides, and where a choice is made, why.* What follows the decorator says where it runs and what it may answer. The
docstring is the line that `ra-plugins list` and the start page have for it.
%% code
#| export
@plugin("rcpt", settings=ClassSettings, answers=(Refuse,))
def NAME(session: Session, settings: ClassSettings, log: Callable[[str], None]) -> Refuse | None:
    "Refuse mail for one recipient."
    local, _, _ = (session.rcpt_to or "").rpartition("@")
    if local.lower() != settings.nobody.lower():
        return None
    log(f"refused mail for {session.rcpt_to}")
    return Refuse(550, "5.1.1", "Nobody here has this name")
%% code
NAME(sample_session(rcpt_to="Nobody@example.org"))
%% markdown
Anybody else gets their mail, which is the empty list:
%% code
NAME(sample_session(rcpt_to="ana@example.org"))
%% markdown
This is what qmail-smtpd gets to read:
%% code
write(NAME(sample_session(rcpt_to="nobody@example.org")))
%% code
#| hide
def answer(named, log=len, **settings):
    return write(NAME(sample_session(rcpt_to=named, **settings), log=log))


assert answer("eve@example.org", SETTINGNOBODY="Eve") == b"E550 Nobody here has this name (#5.1.1)\\n"
assert answer("nobody@example.org", SETTINGNOBODY="eve") == answer(None) == answer("postmaster") == b""
logged = []
assert answer("nobody@example.org", logged.append) != b"" and logged == ["refused mail for nobody@example.org"]
"""


def fault(name: str) -> str:
    "Why this can't be the name of a new plugin, if so."
    if not (name.isascii() and name.isidentifier() and name == name.lower() and name.isalnum()) or keyword.iskeyword(
        name
    ):
        return f"{name!r} should be one word of small letters and digits, such as tarpit: make plugin NAME=tarpit"
    if len(name) > NAME_LIMIT:
        return f"{name!r:.60} should have at most {NAME_LIMIT} letters"
    if (ROOT / "nbs" / "plugins" / f"{name}.ipynb").exists():
        return f"there is a plugin {name}: nbs/plugins/{name}.ipynb"
    return "" if name != "shared" else "'shared' is the folder of what plugins have in common"


def skeleton(name: str) -> str:
    "The notebook of a plugin of this name, as nbdev leaves one that is clean."
    cells = []
    for number, text in enumerate(CELLS.split("\n%% ")[1:]):
        kind, _, source = text.rstrip("\n").partition("\n")
        words = {"NAME": name, "Class": name.capitalize(), "SETTING": name.upper()}
        for word, meant in words.items():
            source = source.replace(word, meant)
        if kind == "markdown":
            source = re.sub(r"(?<=[^\n])\n(?=[^\n])", " ", source)  # a paragraph is a line
        cell = {"cell_type": kind, "id": sha256(f"{name} {number}".encode()).hexdigest()[:8], "metadata": {}}
        runs: dict[str, object] = {"execution_count": None, "outputs": []} if kind == "code" else {}
        cells.append(dict(sorted({**cell, **runs, "source": source.splitlines(keepends=True)}.items())))
    kernel = {"kernelspec": {"display_name": "python3", "language": "python", "name": "python3"}}
    notebook = {"cells": cells, "metadata": kernel, "nbformat": 4, "nbformat_minor": 5}
    return json.dumps(notebook, indent=1, ensure_ascii=False) + "\n"


def main() -> None:
    name = sys.argv[1] if len(sys.argv) == 2 else ""
    if why := fault(name):
        sys.exit(why)
    path = ROOT / "nbs" / "plugins" / f"{name}.ipynb"
    path.write_text(skeleton(name), encoding="utf-8")
    print(
        f"{path.relative_to(ROOT)} is a plugin that works. Make it yours, then: make notebooks, make test, CHANGELOG.md."
    )


if __name__ == "__main__":
    main()
