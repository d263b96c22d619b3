"""Sphinx extension: commands as a terminal shows them, `$ ` in front of each, and their output below.

They are the cells that begin with `%%sh`, and the blocks in text whose first line begins with `$ `. The signs are prompts to
the copy button, too, which leaves them out.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from typing import Any

from docutils import nodes
from pygments.lexer import Lexer, do_insertions
from pygments.lexers.shell import BashLexer
from pygments.token import Generic
from sphinx.application import Sphinx

MAGIC = "%%sh"
BEGINS, GOES_ON = "$ ", "> "
HERE_DOCUMENT = re.compile(r"<<-?\s*['\"]?(\w+)")
OPEN, CLOSE = {"for", "while", "until", "if", "case", "{", "("}, {"done", "fi", "esac", "}", ")"}


def prompted(text: str) -> str:
    "Commands, each with the sign at which one types it, and another one where it takes more than a line."
    shown, command, until = [], "", ""
    for line in text.strip("\n").split("\n"):
        shown.append((GOES_ON if command else BEGINS) + line)
        command += f"{line}\n"
        if until:
            until = "" if line.strip() == until else until
        elif found := HERE_DOCUMENT.search(line):
            until = found[1]
        if not until and is_whole(command):
            command = ""
    return "\n".join(line.rstrip() for line in shown)


def is_whole(command: str) -> bool:
    "Does a shell run this, or wait for the next line?"
    try:
        words = re.sub(r"<<.*", "", command, flags=re.S) if HERE_DOCUMENT.search(command) else command
        found = [word.strip(";") for word in shlex.split(words, comments=True)]
    except ValueError:  # in the middle of a string
        return False
    opened = sum(word in OPEN for word in found) - sum(word in CLOSE for word in found)
    return opened <= 0 and not command.endswith("\\\n")


class Console(Lexer):
    "Lines behind a prompt are commands, the others are what they print."

    name = "Terminal"

    def get_tokens_unprocessed(self, text: str) -> Iterator[tuple[int, Any, str]]:
        place = 0
        for typed, lines in grouped(text.splitlines(keepends=True)):
            whole = "".join(lines)
            if typed:
                code, prompts = "", []
                for line in lines:
                    prompts.append((len(code), [(0, Generic.Prompt, line[:2])]))
                    code += line[2:]
                tokens = do_insertions(prompts, BashLexer().get_tokens_unprocessed(code))
                yield from ((place + at, kind, value) for at, kind, value in tokens)
            else:
                yield place, Generic.Output, whole
            place += len(whole)


def grouped(lines: list[str]) -> Iterator[tuple[bool, list[str]]]:
    "Lines that are typed, and those that are printed, in turn."
    found: list[str] = []
    typed = False
    for line in lines:
        is_typed = line.startswith(BEGINS) or line.rstrip("\n") == "$" or (typed and line.startswith(">"))
        if found and is_typed != typed:
            yield typed, found
            found = []
        typed = is_typed
        found.append(line)
    if found:
        yield typed, found


def name(app: Sphinx, doctree: nodes.document) -> None:
    "Say of each such block what it is."
    for block in doctree.findall(nodes.literal_block):
        cell = block.parent.parent.get("cell_metadata", {}) if block.parent.parent else {}
        said = block.parent.get("nb_element") == "cell_code_source" and cell.get("terminal")
        if said or (block.get("language", "default") == "default" and block.astext().startswith(BEGINS)):
            block["language"] = "terminal"


def setup(app: Sphinx) -> dict[str, Any]:
    app.add_lexer("terminal", Console)
    app.connect("doctree-read", name, priority=100)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
