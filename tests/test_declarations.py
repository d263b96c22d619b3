"""What a plugin says of itself is so: whatever a server tells it, it asks and answers only what it has declared.

`ra-plugins show` and the website print those declarations, and a host may rely on them.
"""

from __future__ import annotations

import io
from typing import Any

import pytest
from cdblib import Writer
from hypothesis import given
from hypothesis import strategies as st

from ra_plugins.ask.block import Block
from ra_plugins.ask.mailbox import (
    NOT_FOUND,
    DovecotMailbox,
    Found,
    Mailbox,
    PostfixMailbox,
    SqlMailbox,
    VpopmailMailbox,
)
from ra_plugins.ask.question import Broken, Late, Nobody, Question
from ra_plugins.ask.rate import Rate
from ra_plugins.hosts.catalogue import OURS, catalogue
from ra_plugins.rater.client import Answer
from ra_plugins.spp.plugin import Plugin
from ra_plugins.spp.session import SAMPLE, Session
from ra_plugins.support.control import ControlFiles

FOUND = catalogue()
PLUGINS = sorted(name for name, origin in FOUND.origins.items() if origin == OURS)
NUMBERS = ["0", "1", "2", "4", "50", "10000", "x"]
VALUES = {  # by the kind of a variable, or by its name where that is any text
    "number": NUMBERS,
    "pace": ["0", "1", "N", "M", "H", "x"],
    "yes_or_no": ["0", "1", "x"],
    "reply_code": ["530", "550", "x"],
    "filename": ["addresslist", "addresslist.cdb", "localonly", "rcpthosts", "missing", "odd"],
    "ip_address": ["192.0.2.1", "2001:db8::25", "x"],
    "template": ["net", "{client_ip}", "{sender_domain}", "{recipient_count}", "{nonsense}", ""],
    "SMTPMAILFROM": ["", "ana@example.org", "eva@example.org", "eva@example.net", "no address"],
    "SMTPRCPTTO": ["postmaster", "ana@example.org", "A.na+tea@example.org", "eva@example.org", "eva@example.net", "@"],
    "SMTPAUTHUSER": ["ana", "ben", ""],
    "DOTBLINDSTRIP": [".", ".+", ""],
    "PLUSALIASESCHARS": ["+", "+-.", ""],
    "mailbox_sources": ["vpopmail", "sql", "postfix dovecot", "list", "vpopmail list", "x"],
    "CHKUSER_DELIMITER": ["-", "+-", ""],
}


def cdb(*keys: bytes) -> bytes:
    file = io.BytesIO()
    with Writer(file) as writer:
        for key in keys:
            writer.put(key, b"")
    return file.getvalue()


FILES: dict[str, str | bytes] = {
    "rcpthosts": "example.org\n",
    "virtualdomains": "example.org:example.org\n",
    "addresslist": "ana@example.org\n",
    "addresslist.cdb": cdb(b"ana@example.org"),
    "localonly": "ana\n",
    "overloaded": "",
    "odd": b"\xff\xfea\0",
}
FAILURES = [Late("late"), Broken("broken"), Nobody("nobody")]
MAILBOXES = [NOT_FOUND, Found(True, False, None), Found(True, False, 100), Found(True, True, None), *FAILURES]
TOLD: dict[type[Question[Any]], list[Any]] = {
    Rate: [Answer(0, "1/2"), Answer(1, "3/2"), *FAILURES],
    Block: [True, False, *FAILURES],
    **dict.fromkeys((DovecotMailbox, PostfixMailbox, SqlMailbox, VpopmailMailbox), MAILBOXES),
}


@st.composite
def environments(draw: st.DrawFn, plugin: Plugin) -> dict[str, str]:
    "A session in the middle of RCPT, of which some is missing or otherwise, and some of what the plugin can be told."
    environ = dict(SAMPLE)
    variables = [*Session.variables(), *plugin.settings.variables(), *plugin.state.variables()]
    for each in draw(st.lists(st.sampled_from(variables), max_size=8)):
        usual = VALUES.get(each.name, VALUES.get(each.kind.__name__, ["x", ""]))
        value = draw(st.sampled_from(usual) | st.text(st.characters(exclude_characters="\0"), max_size=20) | st.none())
        if value is None:
            environ.pop(each.name, None)
        else:
            environ[each.name] = value
    return environ


@pytest.mark.parametrize("name", PLUGINS)
def test_every_plugin_declares_what_it_answers(name: str) -> None:
    plugin = FOUND[name]
    assert plugin.answers is not None
    assert all(issubclass(kind, Question) for kind in plugin.asks)
    assert all(kind in TOLD for kind in plugin.asks), "say above what such a question may be told"


@pytest.mark.parametrize("name", PLUGINS)
@given(data=st.data())
def test_a_plugin_keeps_to_its_declaration(name: str, data: st.DataObject) -> None:
    plugin = FOUND[name]
    environ = data.draw(environments(plugin), "environment")
    missing = data.draw(st.sets(st.sampled_from(sorted(FILES))), "missing files")
    control = ControlFiles({file: content for file, content in FILES.items() if file not in missing})
    asked: set[type[Question[Any]]] = set()

    def answer(question: Question[Any]) -> Any:
        asked.add(type(question))
        told = data.draw(st.sampled_from(TOLD.get(type(question), FAILURES)), repr(question))
        if isinstance(told, Exception):
            raise told
        return told

    session = Session(environ, lambda message: None, pid=4711)
    answers = plugin(session, control, lambda message: None, {Question: answer})
    assert asked <= set(plugin.asks)
    assert {type(command) for command in answers} <= set(plugin.answers or ())


ANSWERED = [  # what brings each command about: of the session and the settings, or the verdict of rater
    ("dotblind", {"SMTPRCPTTO": "a.na@example.org"}),
    ("ipthrottle", {"OVER": "1"}),
    ("localmail", {"SMTPAUTHUSER": "ana", "SMTPRCPTTO": "eva@example.net"}),
    ("msa", {}),
    ("overload", {}),
    ("plusaliases", {"SMTPRCPTTO": "ana+tea@example.org"}),
    ("rater", {"OVER": "1"}),
    ("rcptchecks", {"SMTPRCPTTO": "eva@example.org"}),
    ("rcptcheckscdb", {"CHKUSER_ADDRFILE": "addresslist.cdb", "SMTPRCPTTO": "eva@example.org"}),
    ("rcptchecksfile", {"SMTPRCPTTO": "eva@example.org"}),
    ("senderchecks", {"SMTPMAILFROM": "eva@example.org"}),
    ("senderchecksfile", {"SMTPMAILFROM": "eva@example.org"}),
    ("tarpit", {"SMTPRCPTCOUNTALL": "60"}),
    ("userthrottle", {"OVER": "1", "SMTPAUTHUSER": "ana"}),
]


def test_there_is_a_case_for_every_plugin_that_answers() -> None:
    assert [name for name, _ in ANSWERED] == [name for name in PLUGINS if FOUND[name].answers]


@pytest.mark.parametrize(("name", "values"), ANSWERED)
def test_a_plugin_declares_no_command_that_it_never_answers(name: str, values: dict[str, str]) -> None:
    verdict = Answer(1, "3/2") if "OVER" in values else Answer(0, "1/2")
    session = Session({**SAMPLE, **values}, lambda message: None)
    answerers = {Rate: lambda _: verdict, Block: lambda _: True, Mailbox: lambda _: NOT_FOUND}
    answers = FOUND[name](session, ControlFiles(FILES), lambda message: None, answerers)
    assert {type(command) for command in answers} == set(FOUND[name].answers or ())
