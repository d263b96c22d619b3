"""`ra-plugins report`: what plugins log is what it reads in it, whatever stands around, however a log is broken."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_declarations import FAILURES, FILES, FOUND, PLUGINS, TOLD, environments

from ra_plugins.ask.question import Question
from ra_plugins.ask.seen import FIRST_SEEN, STANDINGS, TOO_EARLY, Seen, Sighting
from ra_plugins.cli.report.command import main, tally_of
from ra_plugins.cli.report.drawing import bars, element, markup
from ra_plugins.cli.report.messages import (
    DEFERRED,
    LET_THROUGH,
    NEAR,
    REFUSED,
    TROUBLE,
    Event,
    event_in,
    may_tell,
    plugin_of_reply,
)
from ra_plugins.cli.report.page import report_page
from ra_plugins.cli.report.reading import LOG_LINE_BYTES, LogFile
from ra_plugins.cli.report.stamps import Stamps
from ra_plugins.cli.report.tally import SESSIONS, FrequentCounter, Tally, Timeline
from ra_plugins.cli.report.telling import report_data, report_text
from ra_plugins.hosts.service.verdicts import verdict_line
from ra_plugins.spp.command import Command, Drop, Later, Refuse, Reply
from ra_plugins.spp.session import Session
from ra_plugins.support.control import ControlFiles
from ra_plugins.support.log import log_line

NOW = datetime(2026, 11, 26, 12, tzinfo=UTC).timestamp()
REFUSAL = "rcptchecks: pid 4711 - 511 sorry, no mailbox here by that name (bea@example.org)"


@pytest.fixture(autouse=True)
def utc(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    "Local time is UTC."
    import time

    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


def tally_lines(*lines: str | bytes, **options: Any) -> Tally:
    tally = Tally(**options)
    tally.read(iter([line.encode() if isinstance(line, str) else line for line in lines]), Stamps(NOW))
    return tally


# What plugins log


def stopped(answers: list[Command]) -> int | None:
    "The class of the code that mail is stopped with; 5 for a connection that is dropped; None where it goes on."
    for answer in answers:
        if isinstance(answer, Drop):
            return 5
        if isinstance(answer, Later):
            return int(answer.reply[0])
        if isinstance(answer, Reply):
            return answer.code // 100
    return None


ANSWERS = {  # as test_declarations has them, without what nobody who remembers would say
    **TOLD,
    Seen: [*(Sighting(each, 60, 0) for each in STANDINGS), Sighting(FIRST_SEEN, 0, 300), Sighting(TOO_EARLY, 60, 240), *FAILURES],
}
EITHER = ("rblchecks", "rdnschecks")  # their lines are the same whatever code they are set to


@pytest.mark.parametrize("name", PLUGINS)
@settings(max_examples=300)
@given(data=st.data())
def test_what_a_plugin_refuses_is_told_from_what_it_logs(name: str, data: st.DataObject) -> None:
    plugin = FOUND[name]
    environ = data.draw(environments(plugin), "environment")
    missing = data.draw(st.sets(st.sampled_from(sorted(FILES))), "missing files")
    control = ControlFiles({file: content for file, content in FILES.items() if file not in missing})

    def answer(question: Question[Any]) -> Any:
        told = data.draw(st.sampled_from(ANSWERS.get(type(question), FAILURES)), repr(question))
        if isinstance(told, Exception):
            raise told
        return told(question) if callable(told) else told

    lines: list[str] = []
    answers = plugin(Session(environ, lines.append, pid=4711), control, lines.append, {Question: answer})
    events = []
    for line in lines:
        written = log_line(name, 4711, line)
        assert may_tell(written)
        event = event_in(written)
        assert event is not None and event.plugin == name and event.pid == "4711"
        events.append(event)
    verdicts = [event.verdict for event in events if event.verdict in (REFUSED, DEFERRED)]
    code = stopped(answers)
    if code is None:
        assert not verdicts, lines
    else:
        assert len(verdicts) == 1, lines
        assert name in EITHER or verdicts == [DEFERRED if code == 4 else REFUSED], lines
    for each in answers:
        if isinstance(each, Reply) and isinstance(each, Refuse) and name not in ("access", "spfchecks"):
            said = plugin_of_reply(each.text)
            assert said in (name, "") or (name == "rater" and said == "rater"), each
