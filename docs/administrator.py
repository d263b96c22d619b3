"""What an administrator has to know of a plugin, as Markdown: how it is switched on, what is seen of it, and the way back.

All of it comes from the plugin's declaration and from a session that is held as the page is made (samples.py).
"""

from __future__ import annotations

import asyncio
import os
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from textwrap import wrap

from console import prompted
from samples import SAMPLES, Sample

from ra_plugins.cli.listing import answerer_settings, page
from ra_plugins.smtpd.trial import Step, Trial
from ra_plugins.spp.command import AddHeader, ChangeAddress, Delay
from ra_plugins.spp.plugin import Plugin
from ra_plugins.support.control import Control
from ra_plugins.support.environment import Variable, shown

WIDTH = 84  # characters of a line
PROGRAMS, CONTROL = "/var/qmail/plugins", "/var/qmail/control"
STATE = "/var/lib/ra-plugins"
SERVER = {"me": "mail.example.org\n", "rcpthosts": "example.org\n", "virtualdomains": "example.org:example.org\n"}
LETTERS = {  # that stand before a line
    "C": "what the client says",
    "S": "what qmail-smtpd replies",
    "L": "what the plugin logs",
    "H": "a header that the message gets",
}


def administrator(plugin: Plugin) -> str:
    "The section about a plugin."
    sample = SAMPLES.get(plugin.name, Sample(""))
    parts = ["## For the administrator", "### Switching it on", *switching_on(plugin, sample)]
    if lines := session(plugin, sample):
        parts += [
            "### What the log says, and what the client sees",
            legend(sample, lines),
            fenced("\n".join(lines), "text"),
        ]
    parts += ["### Undo", *undo(plugin), "### At a glance", "```{plugin}\n```"]
    return "\n\n".join(parts)


def switching_on(plugin: Plugin, sample: Sample) -> Iterator[str]:
    "Program, section, lists and settings, as one types them."
    yield "The program, " + ("its lists, " if sample.files else "") + "and its line in `control/smtpplugins`, as root:"
    typed = [f"ra-plugins install --create {PROGRAMS} {plugin.name}"]
    if kept_in(plugin):
        typed += [f"install -d -o qmaild -m 700 {STATE}"]
    for name, text in sample.files.items():
        typed += added(name, text)
    lines, note = section(plugin, sample)
    typed += [*sample.typed, *added("smtpplugins", lines)]
    yield fenced("\n".join(typed), prompts=True)
    if kept_in(plugin):
        yield f"`{STATE}` belongs to the user that qmail-smtpd runs as, which is `qmaild` as a rule."
    if note:
        yield note
    yield from setting(plugin, sample)
    yield (
        "It runs from the next connection on. [On a qmail server](/guides/qmail.ipynb) tells the rest: settings for some "
        "clients only, a look at the whole set-up with `ra-plugins check`, a trial with `ra-plugins try`."
    )


def setting(plugin: Plugin, sample: Sample) -> Iterator[str]:
    "The settings that matter, and how one sets them."
    known = declared(plugin)
    named = [known[name] for name in (*sample.matters, *sample.settings)]
    if named:
        listed = "\n".join(f"- `{each.name}`: {each.meaning} Default: {shown(each.default)}." for each in named)
        yield f"{'The settings that matter' if len(named) > 1 else 'The setting that matters'}:\n\n{listed}"
    if sample.settings:
        values = " ".join(f"{name}={quoted(value)}" for name, value in sample.settings.items())
        yield "In the script that starts qmail-smtpd, which is then started anew:"
        yield fenced(f"export {values}", "sh")


def section(plugin: Plugin, sample: Sample) -> tuple[str, str]:
    "The lines for `smtpplugins`, and where else they may stand, as `ra-plugins show` says it."
    parts = page(plugin, log=unheard).split("\n\n")
    place = next(number for number, part in enumerate(parts) if part.startswith("In control/smtpplugins"))
    lines = "".join(f"{line.strip()}\n" for line in parts[place + 1].split("\n"))
    if sample.stage:
        lines = re.sub(r"\[\w+\]", f"[{sample.stage}]", lines)
    note = parts[place + 2] if parts[place + 2].startswith("It may stand") else ""
    return lines, re.sub(r"\[\w+\]", r"`\g<0>`", note)


def declared(plugin: Plugin) -> dict[str, Variable]:
    "All that can be set, of the plugin itself and of those that answer it."
    environments = [plugin.settings, *answerer_settings(plugin, unheard).values()]
    return {each.name: each for environment in environments for each in environment.variables()}


def unheard(message: str) -> None:
    "What keeps an answerer from being loaded, plugins.py says."


def kept_in(plugin: Plugin) -> list[str]:
    "The files in which something is remembered."
    defaults = [str(each.default) for each in declared(plugin).values()]
    return [path for path in defaults if path.startswith(f"{STATE}/")]


def added(name: str, text: str) -> list[str]:
    "The commands that add lines to a control file."
    return [f"cat >> {CONTROL}/{name} <<EOF", *text.splitlines(), "EOF"]


def quoted(value: str) -> str:
    "A value as one types it."
    return value if re.fullmatch(r"[\w./:-]+", value) else f"'{value}'"


def fenced(text: str, language: str = "", prompts: bool = False) -> str:
    "A block; with prompts it is a terminal's."
    return f"```{language}\n{prompted(text) if prompts else text}\n```"


def undo(plugin: Plugin) -> Iterator[str]:
    "The way back."
    yield "First the line, then the program, since a line without its program puts every client off:"
    line = rf"sed -i '\:^plugins/{plugin.name}$:d' {CONTROL}/smtpplugins"
    yield fenced(f"{line}\nrm {PROGRAMS}/{plugin.name}", prompts=True)
    if left := kept_in(plugin):
        yield f"What it remembers stays in `{left[0]}`, until you remove that, too."


# What is seen of it


def legend(sample: Sample, lines: list[str]) -> str:
    "What happens, and what the letters mean that stand before it."
    first, *others = [letter for letter in LETTERS if any(line.startswith(f"{letter}:") for line in lines)]
    said = [f"{first} is {LETTERS[first]}", *(f"{letter} {LETTERS[letter]}" for letter in others)]
    return f"{sample.story} {', '.join(said)}:"


def session(plugin: Plugin, sample: Sample) -> list[str]:
    "The lines of a session in which the plugin has something to say; none without a sample."
    if not sample.story:
        return []
    with tempfile.TemporaryDirectory() as home:
        control = Path(home, "control")
        control.mkdir()
        texts = {**SERVER, **sample.files, "smtpplugins": section(plugin, sample)[0]}
        for name, text in {**{name: text.encode() for name, text in texts.items()}, **sample.there}.items():
            (control / name).write_bytes(text)
        environ = {"TCPREMOTEIP": sample.ip, **sample.settings, **sample.environ}
        trial = Trial(Control(str(control)), environ, "gentoo", answering=sample.answers)
        asyncio.run(trial.hold(sample.helo, sample.sender, sample.recipients, sample.user))
    told = [step for step in trial.notes.steps if any(run.logged or run.answered for run in step.runs)]
    return [line for step in told for said in overheard(step) for line in wrapped(said)]


def overheard(step: Step) -> Iterator[str]:
    "An SMTP command, what the plugin makes of it, and the reply."
    yield f"C: {step.said or '(connects)'}"
    for run in step.runs:
        yield from (f"L: {line}" for line in run.logged)
        for command in run.answered:
            if isinstance(command, Delay):
                yield f"   ({command.seconds} seconds pass)"
            elif isinstance(command, AddHeader):
                yield f"H: {command.text}"
            elif isinstance(command, ChangeAddress):
                yield f"   (from here on it is {command.text})"
    yield from (f"S: {line}" for line in step.replies)


def wrapped(line: str) -> list[str]:
    "A line without the number of this process, broken where it is too long."
    usual = line.replace(f"pid {os.getpid()}", "pid 4711")
    return wrap(usual, WIDTH, subsequent_indent="     ", break_long_words=False, break_on_hyphens=False)
