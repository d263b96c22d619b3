"""What a plugin says of itself is so: whatever a server tells it, it asks and answers only what it has declared.

`ra-plugins show` and the website print those declarations, and a host may rely on them. That it does answer what it has
declared, its notebook shows: notebooks.py sees to that.
"""

from __future__ import annotations

from typing import Any

import pytest
from cdb_files import cdb
from hypothesis import given
from hypothesis import strategies as st

from ra_plugins.ask.block import Block
from ra_plugins.ask.callout import Callout, CalloutReply, KeepReply, KeptReply, LastReply, Ourselves
from ra_plugins.ask.dns import Lookup, Prefetch, Records
from ra_plugins.ask.mailbox import (
    NOT_FOUND,
    DovecotMailbox,
    MailboxFound,
    PostfixMailbox,
    SqlMailbox,
    VpopmailMailbox,
)
from ra_plugins.ask.question import Broken, Late, Nobody, Question
from ra_plugins.ask.rate import Rate
from ra_plugins.ask.seen import STANDINGS, Seen, Sighting
from ra_plugins.hosts.catalogue import OURS, catalogue
from ra_plugins.plugins.shared.blocklists import Listed, ListOutcomes, ListsLeftAlone
from ra_plugins.rater.client import Answer
from ra_plugins.spp.plugin import Plugin
from ra_plugins.spp.session import SAMPLE, Session
from ra_plugins.support.control import ControlFiles

FOUND = catalogue()
PLUGINS = sorted(name for name, origin in FOUND.origins.items() if origin == OURS)
NUMBERS = ["0", "1", "2", "4", "50", "10000", "x"]
VALUES = {  # by the kind of a variable, or by its name where that is any text
    "number": NUMBERS,
    "pace": ["0", "1", "N", "MEDIUM", "HARD", "x", ""],
    "yes_or_no": ["0", "1", "x"],
    "address_or_domain": ["address", "domain", "x"],
    "reply_code": ["530", "550", "x"],
    "blocklists": ["one.example", "one.example=127.0.0.2-4*2:two.example*0", "one.example:x/y*3", ""],
    "callout_seconds": ["1", "55", "x"],
    "filename": ["addresslist", "addresslist.cdb", "localonly", "rcpthosts", "missing", "odd"],
    "filename_or_empty": ["rcpthosts", "missing", "odd", ""],
    "ip_address": ["192.0.2.1", "2001:db8::25", "x"],
    "prefix4": ["8", "32", "x"],
    "prefix6": ["16", "128", "x"],
    "bounce_level": ["-1", "0", "3", "5", "x"],
    "timeout_seconds": ["1", "60", "x"],
    "macro_string": ["no, %{i}", "%{", ""],
    "message_stage": ["mail", "rcpt", "x"],
    "template": ["net", "{client_ip}", "{sender_domain}", "{recipient_count}", "{nonsense}", ""],
    "ACCESSTAGGED": ["", "1 0", "3 2", "x"],
    "RAEXEMPT": ["", "msa", "all", "x;"],
    "ACCESSEXEMPT": ["", "msa", "all", "x;"],
    "exemption_place": ["", "rcpt", "mail msa", "x"],
    "SMTPMAILFROM": ["", "ana@example.org", "eva@example.org", "eva@example.net", "no address"],
    "SMTPRCPTTO": ["postmaster", "ana@example.org", "A.na+tea@example.org", "eva@example.org", "eva@example.net", "@"],
    "SMTPAUTHUSER": ["ana", "ben", ""],
    "DOTBLINDSTRIP": [".", ".+", ""],
    "PLUSALIASESCHARS": ["+", "+-.", ""],
    "mailbox_sources": ["vpopmail", "sql", "postfix dovecot", "list", "vpopmail list", "x"],
    "CHKUSER_DELIMITER": ["-", "+-", ""],
}


FILES: dict[str, str | bytes] = {
    "rcpthosts": "example.org\n",
    "virtualdomains": "example.org:example.org\n",
    "addresslist": "ana@example.org\n",
    "addresslist.cdb": cdb(b"ana@example.org"),
    "localonly": "ana\n",
    "ownsenders": "ana: eva@example.net\nben\n",
    "ownforwarders": "192.0.2.0/25\n",
    "access": """
refuse for now  sender eve@example.org
refuse          recipient eve@example.org  say no
allow           user ben
tag             sender @example.org        with X-A: b
exempt from msa client 192.0.2.0/24
refuse          nonsense
""",
    "overloaded": "",
    "odd": b"\xff\xfea\0",
}
FAILURES = [Late("late"), Broken("broken"), Nobody("nobody")]
MAILBOXES = [NOT_FOUND, *(MailboxFound(True, *each) for each in ((False, None), (False, 100), (True, None))), *FAILURES]
REPLIES = [CalloutReply(*each, "") for each in (("RCPT TO", 250), ("RCPT TO", 451), ("MAIL FROM", 550), ("EHLO", 421))]
RECORDS: dict[str, list[Any]] = {
    **{"A": ["192.0.2.25", "127.0.0.1"], "AAAA": ["2001:db8::25"], "MX": [(10, "mail.example.org")]},
    **{"TXT": ["v=spf1 +all"], "PTR": ["mail.example.org"], "CNAME": ["mail.example.org"]},
}
TOLD: dict[type[Question[Any]], list[Any]] = {
    Rate: [Answer(0, "1/2"), Answer(1, "3/2"), *FAILURES],
    Block: [True, False, *FAILURES],
    Seen: [*(Sighting(standing, 60, wait) for standing in STANDINGS for wait in (0, 300)), *FAILURES],
    Lookup: [lambda lookup: Records(RECORDS[lookup.rdtype]), Records(), Records(exists=False), *FAILURES],
    Prefetch: [None, *FAILURES],
    Listed: [Records(["127.0.0.2"], 300), Records(["a reason"]), Records(["127.255.255.254"]), Records(), *FAILURES],
    ListsLeftAlone: [frozenset(), frozenset({"one.example"}), *FAILURES],
    ListOutcomes: [[], ["one.example answers again"], *FAILURES],
    Callout: [*REPLIES, Ourselves("us"), *FAILURES],
    LastReply: [None, *(KeptReply(reply, 60) for reply in REPLIES), *FAILURES],
    KeepReply: [None, *FAILURES],
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
        return told(question) if callable(told) else told

    session = Session(environ, lambda message: None, pid=4711)
    answers = plugin(session, control, lambda message: None, {Question: answer})
    assert asked <= set(plugin.asks)
    assert {type(command) for command in answers} <= set(plugin.answers or ())
