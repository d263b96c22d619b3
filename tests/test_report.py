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
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mailserver import COMMAND, PATIENCE
from test_declarations import FAILURES, FILES, FOUND, PLUGINS, TOLD, environments

from ra_plugins.ask.question import Question
from ra_plugins.ask.seen import FIRST_SEEN, STANDINGS, TOO_EARLY, Seen, Sighting
from ra_plugins.cli.report.frequent import FrequentCounter
from ra_plugins.cli.report.messages import (
    NEAR_MISS,
    TROUBLE,
    WAS_DEFERRED,
    WAS_REFUSED,
    event_in,
    may_tell,
    plugin_of_reply,
)
from ra_plugins.cli.report.page import report_page
from ra_plugins.cli.report.reading import LOG_LINE_BYTES, LogFile
from ra_plugins.cli.report.sessions import SESSIONS_KEPT
from ra_plugins.cli.report.stamps import Stamps
from ra_plugins.cli.report.tally import LogTally
from ra_plugins.cli.report.telling import report_data, report_text
from ra_plugins.cli.report.timeline import Timeline
from ra_plugins.hosts.service.verdicts import verdict_line
from ra_plugins.spp.command import Command, Drop, Later, Refuse, Reply
from ra_plugins.spp.session import Session
from ra_plugins.support.control import ControlFiles
from ra_plugins.support.drawing import bars, element, markup
from ra_plugins.support.log import log_line

NOW = datetime(2026, 11, 26, 12, tzinfo=UTC).timestamp()
VERDICT = '{"time": "2025-11-25T13:55:01+00:00", "pid": 1, "plugin": "msa", "verdict": "refuse 5xx", "letter": "E"}'
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


def tally_lines(*lines: str | bytes, **options: Any) -> LogTally:
    tally = LogTally(**options)
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
    verdicts = [event.verdict for event in events if event.verdict in (WAS_REFUSED, WAS_DEFERRED)]
    code = stopped(answers)
    if code is None:
        assert not verdicts, lines
    else:
        assert len(verdicts) == 1, lines
        assert name in EITHER or verdicts == [WAS_DEFERRED if code == 4 else WAS_REFUSED], lines
    for each in answers:
        if isinstance(each, Reply) and isinstance(each, Refuse) and name not in ("access", "spfchecks"):
            said = plugin_of_reply(each.text)
            assert said in (name, "") or (name == "rater" and said == "rater"), each


def test_a_light_that_is_off_is_no_refusal() -> None:
    "ipthrottle without a client's address lets it through, in words that begin like a refusal of rcptchecks."
    event = event_in("ipthrottle: pid 7 - 511 No IP address")
    assert event is not None and event.verdict == TROUBLE


@pytest.mark.parametrize(
    ("line", "plugin", "verdict"),
    [
        (": pid 7 - 511 sorry, no mailbox here by that name (bea@example.org)", "unnamed", WAS_REFUSED),  # rcptcheckscdb in C
        ("spfchecks: pid 7 - Rejecting on SPF_RESULT_FAIL, No comments", "spfchecks", WAS_REFUSED),
        ("spfchecks: pid 7 - Accepting on SPF_RESULT_SOFTFAIL, No comments", "spfchecks", NEAR_MISS),
        ("ipthrottle: pid 7 - Can't connect to rater", "ipthrottle", TROUBLE),
        ("tarpit: pid 7 - started tarpitting", "tarpit", NEAR_MISS),
        ("greylist: pid 7 - only observed: first seen, come back in 9 s (192.0.2.0/24, <> to a@b.c)", "greylist", NEAR_MISS),
        ("mine: pid 7 - hello", "mine", "told"),  # somebody else's plugin may say what it likes
        ("session 4: msa: pid 7 - Message rejected (no auth).", "msa", WAS_REFUSED),  # our own smtpd
    ],
)
def test_lines(line: str, plugin: str, verdict: str) -> None:
    event = event_in(line)
    assert event is not None and (event.plugin, event.verdict) == (plugin, verdict)


@pytest.mark.parametrize(
    ("plugin", "message", "verdict"),
    [
        ("rcptchecks", "511 sorry, no mailbox here by that name ({0})", WAS_REFUSED),
        ("rcptchecks", "571 sorry, you are violating our security policies (3 of 2 - {0})", WAS_REFUSED),
        ("senderchecks", "501 Invalid address ({0})", WAS_REFUSED),
        ("mfdnschecks", "blocked with: your envelope sender domain must exist: {0}", WAS_REFUSED),
        ("localmail", "blocked from {0} to eva@example.net", WAS_REFUSED),
        ("greylist", "first seen, come back in 300 s (192.0.2.0/24, {0} to {0})", WAS_DEFERRED),
        ("userthrottle", "Rate exceeded per user ({0})", WAS_DEFERRED),
        ("access", "refused for now by line 3 (sender {0}): client 192.0.2.1, sender {0}", WAS_DEFERRED),
        ("spfchecks", "Rejecting on SPF_RESULT_FAIL, domain of {0}", WAS_REFUSED),
    ],
)
def test_a_line_that_was_cut_still_counts(plugin: str, message: str, verdict: str) -> None:
    written = log_line(plugin, 7, message.format("x" * 2000 + "@example.org"))
    assert written.endswith("…")
    event = event_in(written)
    assert event is not None and event.verdict == verdict


def test_a_line_that_would_keep_a_pattern_busy_doesnt() -> None:
    "8,000 characters that are all but an address took a minute, tried from each on."
    event = event_in("spfchecks: pid 1 - Accepting 192.0.2.1" + "1:" * 4000)
    assert event is not None and event.plugin == "spfchecks"


# What stands around


@pytest.mark.parametrize(
    "line",
    [
        f"@400000006925b53f12345678 {REFUSAL}",
        f"2025-11-25 13:55:01.305419896 {REFUSAL}",
        f"2025-11-25_13:55:01.30541 {REFUSAL}",
        f"Nov 25 13:55:01 mail qmail-smtpd[12]: {REFUSAL}",
        f"<22>Nov 25 13:55:01 mail qmail-smtpd[12]: {REFUSAL}",
        f"2025-11-25T13:55:01.305419+00:00 mail qmail-smtpd[12]: {REFUSAL}",
        f"2025-11-25T14:55:01+0100 mail qmail-smtpd[12]: {REFUSAL}",
        json.dumps({"__REALTIME_TIMESTAMP": "1764078901305419", "_HOSTNAME": "mail", "MESSAGE": REFUSAL}),
        json.dumps({"__REALTIME_TIMESTAMP": "1764078901305419", "MESSAGE": VERDICT}),
        json.dumps({"__REALTIME_TIMESTAMP": "1764078901305419", "MESSAGE": [*REFUSAL.encode()[:-1], 255, 41]}),
    ],
)
def test_every_log_is_read_alike(line: str) -> None:
    tally = LogTally()
    latest = datetime(2025, 11, 26, tzinfo=UTC).timestamp()
    tally.read(iter([line.encode()]), Stamps(latest))
    assert tally.verdicts == {WAS_REFUSED: 1}
    assert tally.first is not None and int(tally.first) == 1764078901


@pytest.mark.parametrize(
    ("begins", "ends"),
    [
        (
            "tcpserver: ok 4711 mail.example.org:198.51.100.1:25 mx.example.net:192.0.2.1::3312",
            "tcpserver: end 4711 status 0",
        ),
        ("tcpserver: pid 4711 from 192.0.2.1", "tcpserver: end 4711 status 256"),
        ("tcpsvd: info: pid 4711 from 192.0.2.1", "tcpsvd: info: end 4711 exit 0"),
    ],
)
def test_the_client_comes_from_the_line_that_names_the_process(begins: str, ends: str) -> None:
    tally = tally_lines(begins, REFUSAL, ends, REFUSAL)
    assert tally.tops["client"].top(9) == [("192.0.2.1", 1)], "and not from a process that has ended"


def test_our_own_smtpds_sessions_are_told_apart() -> None:
    "Its process has the same number for all of them."
    tally = tally_lines(
        "session 1: smtpd: pid 9 - 192.0.2.1 has called",
        "session 2: smtpd: pid 9 - 192.0.2.2 has called",
        "session 1: msa: pid 9 - Message rejected (no auth).",
    )
    assert tally.tops["client"].top(9) == [("192.0.2.1", 1)]


POSTFIX = (
    "Nov 25 13:55:01 mail postfix/smtpd[7]: NOQUEUE: reject: RCPT from mx.example.net[192.0.2.1]: {} "
    "<bea@example.org>: Recipient address rejected: {}; from=<eva@example.net> to=<bea@example.org> proto=ESMTP helo=<mx>"
)


def test_postfixs_own_line_names_plugin_client_sender_and_recipient() -> None:
    tally = tally_lines(POSTFIX.format("451 4.7.1", "Greylisted, please come back in 300 seconds"))
    assert tally.verdicts == {WAS_DEFERRED: 1}
    assert [tally.plugins[WAS_DEFERRED].top(1), tally.tops["client"].top(1), tally.tops["sender"].top(1)] == [
        [("greylist", 1)],
        [("192.0.2.1", 1)],
        [("eva@example.net", 1)],
    ]


def test_one_refusal_told_by_plugin_and_postfix_counts_once() -> None:
    "And what only Postfix says of it, the client, counts, too."
    said = "sorry, no mailbox here by that name (#5.1.1 - rcptchecks)"
    tally = tally_lines(f"Nov 25 13:55:01 mail ra-plugins[7]: {REFUSAL}", POSTFIX.format("511 5.1.1", said))
    assert tally.verdicts == {WAS_REFUSED: 1} and tally.twice == 1
    assert tally.tops["client"].top(9) == [("192.0.2.1", 1)]
    assert tally.tops["recipient"].top(9) == [("bea@example.org", 1)]


def test_a_refusal_without_a_recipient_and_postfixs_own_line_count_once() -> None:
    "spfchecks names no recipient; what the same smtpd had to do with before contradicts nothing."
    ours = "Nov 25 13:55:01 mail ra-plugins[9]: spfchecks: pid 7 - {}"
    lines = [
        "Nov 25 13:54:59 mail ra-plugins[9]: mfdnschecks: pid 7 - allowed from 192.0.2.77 by line 3 (x): client 192.0.2.77",
        ours.format("Rejecting on SPF_RESULT_FAIL, No comments"),
        ours.format("refused at rcpt: 550 5.7.1 Message rejected by server [192.0.2.1, to <bea@example.org>, instance 7.2.0]"),
        POSTFIX.format("550 5.7.1", "Message rejected by server"),
    ]
    for order in (lines, [*lines[:1], lines[3], *lines[1:3]]):
        tally = tally_lines(*order)
        assert tally.verdicts[WAS_REFUSED] == 1 and tally.twice == 1, order
    assert tally_lines(*lines, lines[1], lines[3]).verdicts[WAS_REFUSED] == 2
    later = lines[3].replace("13:55:01", "13:57:01")
    assert tally_lines(*lines[:3], later).verdicts[WAS_REFUSED] == 2
    stranger = ours.format("571 sorry, nobody (cia@example.org)").replace("spfchecks", "rcptchecks")
    assert tally_lines(stranger, lines[3]).verdicts[WAS_REFUSED] == 2


def test_one_refusal_told_by_plugin_and_verdict_log_counts_once() -> None:
    when = datetime(2026, 11, 25, 13, 55, 1, tzinfo=UTC)
    answer: list[Command] = [Refuse(511, "5.1.1", "sorry, no mailbox here by that name", by="rcptchecks")]
    verdict = verdict_line("rcptchecks", 4711, {"TCPREMOTEIP": "192.0.2.1"}, answer, 0.1, when)
    assert tally_lines(verdict).verdicts == {WAS_REFUSED: 1}
    both = tally_lines(verdict, f"2026-11-25 13:55:01.5 {REFUSAL}")
    assert both.verdicts == {WAS_REFUSED: 1} and both.tops["client"].top(9) == [("192.0.2.1", 1)]


def test_only_what_was_asked_for() -> None:
    lines = [f"2026-11-{day:02} 10:00:00 {REFUSAL}" for day in (20, 21, 22)] + [REFUSAL]
    since, until = (datetime(2026, 11, day, tzinfo=UTC).timestamp() for day in (21, 22))
    assert tally_lines(*lines).counted == 4
    assert tally_lines(*lines, since=since).counted == 2, "a line without a time isn't known to be later"
    assert tally_lines(*lines, since=since, until=until).counted == 1
    assert tally_lines(*lines, plugin="msa").counted == 0
    for told in (tally_lines(*lines, since=NOW), tally_lines(*lines, plugin="msa")):
        text = report_text(report_data(told, []))
        assert text == "Nothing in 4 lines is what was asked for; 4 are of another time or plugin.", "none of ours, it said"


# What a stranger can do


@given(st.lists(st.binary(max_size=200) | st.just(REFUSAL.encode()), max_size=20))
def test_any_bytes_are_a_log(lines: list[bytes]) -> None:
    tally = LogTally()
    tally.read(iter(lines), Stamps(NOW))
    data = report_data(tally, [])
    assert all(line.isprintable() for line in report_text(data).splitlines())
    json.dumps(data).encode()
    report_page(data).encode()


def test_control_characters_reach_neither_terminal_nor_page() -> None:
    data = report_data(tally_lines(b"x: pid 1 - 511 sorry, no mailbox here by that name (\x1b]0;owned\x07\xff@example.org)"), [])
    shown = data["top"]["recipients"]["top"][0]["name"]
    assert shown == r"\x1b]0;owned\x07\xff@example.org"
    for text in (report_text(data), report_page(data), json.dumps(data, ensure_ascii=False)):
        assert "\x1b" not in text and "\x07" not in text


def test_a_page_holds_no_element_that_a_stranger_wrote() -> None:
    name = """<script>alert(1)</script>"><img src=x onerror='x'>@example.org"""
    page = report_page(report_data(tally_lines(f"senderchecks: pid 1 - 511 sorry, no mailbox here by that name ({name})"), []))
    assert "&lt;script&gt;alert(1)" in page
    assert not re.search(r"<(script|img|link|iframe|object)\b", page)
    assert not re.search(r"""(src|href|url\()\s*=?\s*["']?(https?:)?//""", page)
    assert "default-src 'none'" in page


def test_attributes_are_escaped() -> None:
    assert markup(element("p", title='"><b>')) == '<p title="&quot;&gt;<b&gt;"></p>'


def test_time_stamps_of_nonsense_leave_a_line_without_a_time() -> None:
    tally = tally_lines(
        f"@ffffffffffffffffffffffff {REFUSAL}",
        f"9999-12-31 23:59:59 {REFUSAL}",
        f"2026-02-31 00:00:00 {REFUSAL}",
        f"Feb 31 00:00:00 mail x: {REFUSAL}",
    )
    assert (tally.counted, tally.odd, tally.timeless, tally.timeline.buckets) == (4, 4, 4, {})


def test_a_counter_is_never_off_by_more_than_it_says() -> None:
    counter, truth = FrequentCounter(10), dict[str, int]()
    for number in range(5000):
        for name in (f"once {number}", f"often {number % 7}"):
            counter.add(name)
            truth[name] = truth.get(name, 0) + 1
    assert len(counter.counts) <= 20
    assert all(count <= truth[name] <= count + counter.error for name, count in counter.counts.items())
    assert {name for name, _ in counter.top(7)} == {f"often {number}" for number in range(7)}


def test_what_is_remembered_is_bounded() -> None:
    tally = LogTally()
    tally.read(
        (f"msa: pid {pid} - authenticated as u{pid} from 192.0.2.1".encode() for pid in range(SESSIONS_KEPT + 1000)), Stamps(NOW)
    )
    assert len(tally.sessions.known) == SESSIONS_KEPT
    timeline = Timeline()
    for day in range(0, 36 * 365):
        for hour in (3, 15):
            timeline.add(day * 86_400 + hour * 3600, WAS_REFUSED)
    assert timeline.step == 86_400 and len(timeline.buckets) == 36 * 365
    assert len(timeline.spans(48)[1]) <= 48


# Files


def run(*arguments: str, stdin: bytes | None = None, cwd: Path) -> subprocess.CompletedProcess[bytes]:
    "The command, as one types it."
    command = [*COMMAND, "report", *arguments]
    return subprocess.run(command, input=stdin, capture_output=True, cwd=cwd, env={**os.environ, "TZ": "UTC"})


def report(*arguments: str, stdin: bytes | None = None, cwd: Path) -> tuple[int, dict[str, Any], str]:
    done = run("--json", *arguments, stdin=stdin, cwd=cwd)
    return done.returncode, json.loads(done.stdout or b"{}"), done.stderr.decode()


LOG = f"2026-11-20 10:00:00 {REFUSAL}\n".encode()


@pytest.mark.parametrize("pack", [bytes, gzip.compress, bz2.compress, lzma.compress])
def test_packed_files_and_standard_input_by_what_is_in_them(tmp_path: Path, pack: Any) -> None:
    (tmp_path / "log").write_bytes(pack(LOG * 3))
    assert report("log", cwd=tmp_path)[1]["verdicts"][WAS_REFUSED] == 3
    assert report(stdin=pack(LOG * 3), cwd=tmp_path)[1]["verdicts"][WAS_REFUSED] == 3
    assert report("log", "-", stdin=pack(LOG), cwd=tmp_path)[1]["verdicts"][WAS_REFUSED] == 4


@pytest.mark.parametrize("pack", [gzip.compress, bz2.compress, lzma.compress])
def test_a_packed_file_that_is_cut_short_is_told_in_part(tmp_path: Path, pack: Any) -> None:
    lines = b"".join(LOG.replace(b"4711", b"%d" % number) for number in range(20_000))
    packed = pack(lines)
    (tmp_path / "log").write_bytes(packed[: len(packed) * 9 // 10])
    status, data, _ = report("log", cwd=tmp_path)
    assert status == 1
    assert any(note.startswith("only a part of log was read: ") for note in data["notes"])
    if pack is not bz2.compress:  # which has blocks of 900 kB
        assert 0 < data["verdicts"][WAS_REFUSED] < 20_000


@pytest.mark.parametrize(
    ("start", "way"), [(b"\x28\xb5\x2f\xfd", "zstd -dc log | "), (b"LPKSHHRH", "journalctl --file=log -o json | ")]
)
def test_what_cant_be_unpacked_names_what_can(tmp_path: Path, start: bytes, way: str) -> None:
    if sys.version_info >= (3, 14) and way.startswith("zstd"):
        pytest.skip("Python 3.14 unpacks zstd")
    (tmp_path / "log").write_bytes(start + bytes(100))
    done = run("log", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (3, b"") and f"{way}ra-plugins report" in done.stderr.decode()


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be"])
def test_a_log_in_utf_16_is_no_empty_one(tmp_path: Path, encoding: str) -> None:
    (tmp_path / "log").write_bytes(LOG.decode().encode(encoding))
    done = run("log", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (3, b"")
    assert "log: this isn't UTF-8, but UTF-16 as some editors save it; save it as UTF-8" in done.stderr.decode()


def test_a_log_that_begins_in_zeros_after_a_crash_is_read(tmp_path: Path) -> None:
    (tmp_path / "log").write_bytes(bytes(512) + b"\n" + LOG)
    assert report("log", cwd=tmp_path)[1]["counted"] == 1


def test_a_log_that_is_named_twice_is_read_once(tmp_path: Path) -> None:
    (tmp_path / "log").write_bytes(LOG)
    (tmp_path / "link").symlink_to("log")
    status, data, said = report("log", "log", "link", cwd=tmp_path)
    assert (status, data["counted"]) == (0, 1)
    assert said.splitlines() == [
        "ra-plugins report: log is named again: read once",
        "ra-plugins report: link is the same as log: read once",
    ]


def test_a_file_that_has_vanished_is_named_and_the_others_are_told(tmp_path: Path) -> None:
    (tmp_path / "log").write_bytes(LOG)
    status, data, said = report("gone", "log", cwd=tmp_path)
    assert (status, data["counted"]) == (1, 1) and said == "ra-plugins report: can't read gone: No such file or directory\n"
    assert report("gone", cwd=tmp_path)[0] == 3


def test_a_line_of_a_megabyte_and_an_end_in_the_middle_of_a_character(tmp_path: Path) -> None:
    (tmp_path / "log").write_bytes(LOG[:-1] + b" x" * 500_000 + b"\n" + LOG + "mära".encode()[:2])
    log = LogFile(str(tmp_path / "log"))
    lines = list(log.lines())
    assert [len(lines[0]), lines[1] + b"\n", lines[2]] == [LOG_LINE_BYTES, LOG, b"m\xc3"]
    status, data, _ = report("log", cwd=tmp_path)
    assert status == 0 and any("longer than 8,192 bytes" in note for note in data["notes"])


def test_rotated_files_are_read_in_the_order_of_their_time(tmp_path: Path) -> None:
    "The shell names the youngest first; the process that the second names is known by then."
    stamp = "2026-11-20 1{}:00:00 "
    (tmp_path / "log").write_text(stamp.format(2) + REFUSAL + "\n")
    (tmp_path / "log.1").write_text(stamp.format(1) + "tcpserver: pid 4711 from 192.0.2.1\n")
    (tmp_path / "log.2.gz").write_bytes(gzip.compress((stamp.format(0) + "tcpserver: end 4711 status 0\n").encode()))
    data = report("log", "log.1", "log.2.gz", cwd=tmp_path)[1]
    assert data["top"]["clients"]["top"] == [{"name": "192.0.2.1", "count": 1}]


def test_a_year_that_syslog_leaves_out_is_that_before_the_files_change(tmp_path: Path) -> None:
    (tmp_path / "log").write_text(f"Dec 31 23:00:00 mail x: {REFUSAL}\nJan  1 01:00:00 mail x: {REFUSAL}\n")
    changed = datetime(2025, 1, 1, 2, tzinfo=UTC).timestamp()
    os.utime(tmp_path / "log", (changed, changed))
    data = report("log", cwd=tmp_path)[1]
    assert (data["from"], data["to"]) == ("2024-12-31T23:00:00", "2025-01-01T01:00:00")


def test_multilogs_folder_stands_for_its_logs(tmp_path: Path) -> None:
    (tmp_path / "smtpd").mkdir()
    for name in ("current", "@400000006741f2a1193c7f9c.s", "lock", "state"):
        (tmp_path / "smtpd" / name).write_bytes(LOG)
    assert report("smtpd", cwd=tmp_path)[1]["counted"] == 2
    done = run(str(tmp_path), cwd=tmp_path)
    assert done.returncode == 3 and b"is a folder, and none of multilog's" in done.stderr


def test_a_page_is_whole_and_its_owners(tmp_path: Path) -> None:
    (tmp_path / "log").write_bytes(LOG)
    done = run("log", "--html", "page.html", cwd=tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
    page = (tmp_path / "page.html").read_text()
    assert page.startswith("<!DOCTYPE html>") and page.endswith("</html>\n") and "<svg" in page
    assert (tmp_path / "page.html").stat().st_mode & 0o777 == 0o600
    assert sorted(each.name for each in tmp_path.iterdir()) == ["log", "page.html"]


def test_a_page_never_replaces_a_log_that_is_read(tmp_path: Path) -> None:
    (tmp_path / "log").write_bytes(LOG)
    (tmp_path / "link").symlink_to("log")
    for page in ("log", "link", "./log"):
        done = run("log", "--html", page, cwd=tmp_path)
        assert (done.returncode, done.stdout) == (3, b"") and b" is one of the logs" in done.stderr
    assert (tmp_path / "log").read_bytes() == LOG


def test_a_dash_is_standard_output_for_a_page(tmp_path: Path) -> None:
    (tmp_path / "log").write_bytes(LOG)
    done = run("log", "--html", "-", cwd=tmp_path)
    assert done.returncode == 0 and done.stdout.startswith(b"<!DOCTYPE html>") and not (tmp_path / "-").exists()


@pytest.mark.parametrize("page", ["-", "/dev/stdout", "page"])
def test_two_outputs_for_one_standard_output_are_refused(tmp_path: Path, page: str) -> None:
    (tmp_path / "log").write_bytes(LOG)
    with (tmp_path / "page").open("wb") as output:
        words = [*COMMAND, "report", "log", "--json", "--html", page]
        done = subprocess.run(words, cwd=tmp_path, stdout=output, stderr=subprocess.PIPE, text=True, timeout=PATIENCE)
    told = "ra-plugins report: the page and JSON can't both be standard output; name a file: --html FILE\n"
    assert (done.returncode, done.stderr, (tmp_path / "page").read_bytes()) == (3, told, b"")


@pytest.mark.parametrize("options", [["--html", "-"], ["--json"], []])
def test_a_full_disk_behind_standard_output_is_named(tmp_path: Path, options: list[str]) -> None:
    (tmp_path / "log").write_bytes(LOG)
    with open("/dev/full", "wb") as full:
        words = [*COMMAND, "report", "log", *options]
        done = subprocess.run(words, cwd=tmp_path, stdout=full, stderr=subprocess.PIPE, text=True, timeout=PATIENCE)
    told = "ra-plugins report: can't write to standard output: No space left on device\n"
    assert (done.returncode, done.stderr) == (3, told)


def test_nobody_who_reads_the_page_is_no_fault_to_tell(tmp_path: Path) -> None:
    (tmp_path / "log").write_bytes(LOG)
    reads, writes = os.pipe()
    os.close(reads)
    words = [*COMMAND, "report", "log", "--html", "-"]
    done = subprocess.run(words, cwd=tmp_path, stdout=writes, stderr=subprocess.PIPE, text=True, timeout=PATIENCE)
    os.close(writes)
    assert (done.returncode, done.stderr) == (3, "")


# as journalctl 252 writes one entry; of the last, one record behind RS (RFC 7464)
OTHER_FORMS = {
    "export": "__CURSOR=s=0a1b;i=1c;b=2d;m=3e;t=4f;x=5a\n__REALTIME_TIMESTAMP=1732373009000000\nMESSAGE=msa: pid 1 - x\n\n",
    "verbose": "Sat 2024-11-23 15:43:29.000000 UTC [s=0a1b;i=1c;b=2d;m=3e;t=4f;x=5a]\n    PRIORITY=6\n    MESSAGE=x\n",
    "json-pretty": '{\n\t"MESSAGE" : "msa: pid 1 - x",\n\t"PRIORITY" : "6"\n}\n',
    "json-sse": 'data: {"MESSAGE":"msa: pid 1 - x"}\n\n',
    "json-seq": '\x1e{"MESSAGE":"msa: pid 1 - x"}\n',
}


@pytest.mark.parametrize("form", OTHER_FORMS)
def test_other_forms_of_journalctl_are_told_apart(tmp_path: Path, form: str) -> None:
    done = run("-", stdin=OTHER_FORMS[form].encode(), cwd=tmp_path)
    assert (done.returncode, done.stdout) == (3, b"")
    assert done.stderr.endswith(b"read is -o json: journalctl -o json | ra-plugins report\n")
    (tmp_path / "log").write_bytes(LOG)
    (tmp_path / "journal").write_text(OTHER_FORMS[form])
    done = run("log", "journal", cwd=tmp_path)
    assert done.returncode == 1 and done.stdout and b"-o json" in done.stderr  # of the other log all is told


@pytest.mark.parametrize("words", [["--since", "-2d"], ["--since=-2d"], ["--sin", "-2d"], ["--since", "2d"]])
def test_so_long_ago_as_journalctl_has_it(tmp_path: Path, words: list[str]) -> None:
    "Of three verdicts, two are from the last two days."
    stamps = [datetime.now(UTC) - timedelta(hours=hours) for hours in (72, 24, 1)]
    lines = [f"{stamp:%Y-%m-%dT%H:%M:%SZ} mail smtpd: {REFUSAL}\n" for stamp in stamps]
    done = run("-", *words, "--json", stdin="".join(lines).encode(), cwd=tmp_path)
    assert done.returncode == 0 and json.loads(done.stdout)["verdicts"]["refused"] == 2, done


def test_nothing_is_said_on_a_pipe_but_the_report(tmp_path: Path) -> None:
    done = run("-", stdin=LOG * 50_000, cwd=tmp_path)
    assert done.stderr == b"" and b"50,000 verdicts in 50,000 lines" in done.stdout


def test_without_a_log_at_a_terminal_it_asks_for_one(tmp_path: Path) -> None:
    leader, follower = os.openpty()
    script = "import sys; from ra_plugins.cli.command import main; sys.exit(main())"
    done = subprocess.run([sys.executable, "-c", script, "report"], stdin=follower, capture_output=True, cwd=tmp_path)
    os.close(leader)
    os.close(follower)
    assert done.returncode == 3 and done.stderr.startswith(b"ra-plugins report: which log? ")


@pytest.mark.parametrize(
    "wrong",
    [
        ["--since", "tomorrow"],
        ["--since", "2026-11-24", "--until", "2026-11-23"],
        ["--top", "0"],
        ["--top", "x"],
        ["-", "-"],
    ],
)
def test_mistakes_on_the_command_line(tmp_path: Path, wrong: list[str]) -> None:
    done = run(*wrong, stdin=b"", cwd=tmp_path)
    assert (done.returncode, done.stdout, done.stderr.count(b"\n")) == (3, b"", 1)


def test_bars_reach_from_the_floor_up() -> None:
    drawn = bars("Refused", ["a", "b"], {"refused": [5, 0], "deferred": [5, 10]})
    heights = [float(each) for each in re.findall(r'<rect [^>]*height="([\d.]+)"', drawn)]
    assert len(heights) == 3 and heights[0] == heights[1] == heights[2] / 2
