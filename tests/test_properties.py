"""What holds whatever stands in the environment, in a control file, on the wire or in a plugin's output."""

from __future__ import annotations

import io
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import pytest
from cdb_files import cdb
from dns_server import DnsServer
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from mailserver import ENVIRON, LOG_LINE, Home, Server
from rater_server import rater

from ra_plugins.ask.answerer import load
from ra_plugins.ask.block import Block
from ra_plugins.ask.dns import Zone
from ra_plugins.ask.mailbox import NOT_FOUND, Mailbox
from ra_plugins.ask.rate import Rate
from ra_plugins.hosts import script
from ra_plugins.hosts.catalogue import catalogue
from ra_plugins.plugins.shared.blocklists import blocklists
from ra_plugins.rater.client import Answer
from ra_plugins.spp.command import (
    Accept,
    AddHeader,
    ChangeAddress,
    Command,
    Delay,
    Disconnect,
    Drop,
    Later,
    Next,
    Okay,
    Refuse,
    Say,
    SetVariable,
    UnsetVariable,
    read,
    write,
)
from ra_plugins.spp.plugin import Plugin
from ra_plugins.spp.session import SAMPLE, Session, sample_session
from ra_plugins.support.address import parse_address
from ra_plugins.support.control import Control
from ra_plugins.support.environment import Meant, Variable, filename_or_empty, shown, text

PLUGINS = sorted(catalogue())
LETTERS = {name: {kind.letter for kind in plugin.answers or ()} for name, plugin in catalogue().items()}



# Environments and control files as bad as they come


@pytest.fixture(scope="module", autouse=True)
def elsewhere(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    "A setting may name any file, and one without a folder is made in this one."
    before = Path.cwd()
    os.chdir(tmp_path_factory.mktemp("anywhere"))
    yield
    os.chdir(before)


PIECES = [
    *b'ana @ @ example.org example.net . + " \\ [192.0.2.1] [IPv6:::1] # = postmaster'.split(),
    *b"0 1 50 -1 999999999 1000000000 \xd9\xa5 N H 550 %s $(id)".split(),
    *(b" ", b"\n", b"\r\n", b"\nE550 forged\n", b"\nA\n", b"\x1b[2J", b"\x7f"),
    *(
        b"\xff",
        b"\xc3\xa9",
        b"\xe2\x80\xa8",
        b"\xe2\x80\xae",
    ),  # no UTF-8, é, a line separator, a right-to-left override
]
values = st.one_of(
    st.lists(st.sampled_from(PIECES), max_size=12).map(b"".join),
    st.binary(max_size=200).map(lambda value: value.replace(b"\0", b"")),
    st.text(max_size=100).map(lambda value: value.encode("utf-8", "replace").replace(b"\0", b"")),
    st.builds(lambda piece, length: (piece * length)[:length], st.sampled_from(PIECES), st.sampled_from([1000, 65536])),
    st.just(b""),
)


def mostly(likely: list[bytes], rarely: st.SearchStrategy[bytes] = values) -> st.SearchStrategy[bytes]:
    "One of the likely values, three times out of four."
    return st.integers(0, 3).flatmap(lambda turn: st.sampled_from(likely) if turn else rarely)


local_parts = mostly([b"ana", b"Ana.Lee+x", b"zoe", b'"a.b+c"', b"...", b"+", b"a" * 887, b"a" * 888, b"caf\xe9"])
domains = mostly([b"example.org", b"Example.ORG", b"mx.example.net", b"example.com", b"[192.0.2.1]"])
addresses = st.builds(lambda local, domain: (local + b"@" + domain)[:65536], local_parts, domains)
LIKELY: dict[str, st.SearchStrategy[bytes]] = {  # by the kind of a variable, or by its name where that is any text
    "number": st.sampled_from([b"0", b"1", b"2", b"3", b"50", b"60", b"10000", b"999999999"]),
    "pace": st.sampled_from([b"0", b"1", b"N", b"MEDIUM", b"HARD", b""]),
    "yes_or_no": st.sampled_from([b"0", b"1"]),
    "reply_code": st.sampled_from([b"530", b"550"]),
    "filename": mostly(
        [b"addresslist", b"addresslist.cdb", b"localonly", b"rcpthosts", b"missing", b".", b"/nowhere/list"]
    ),
    "filename_or_empty": mostly([b"rcpthosts", b"addresslist.cdb", b"missing", b"/nowhere/list", b""]),
    "blocklists": mostly([b"one.example", b"one.example=127.0.0.2-4*2:two.example", b"two.example", b""]),
    "ip_address": st.sampled_from([b"192.0.2.1", b"2001:db8::25", b"fe80::1%eth0"]),
    "bounce_level": st.sampled_from([b"-1", b"0", b"1", b"3", b"4", b"5"]),
    "timeout_seconds": st.sampled_from([b"1", b"20", b"60"]),
    "macro_string": st.sampled_from([b"no, %{i}, %{s}", b"%{", b" "]),
    "message_stage": st.sampled_from([b"mail", b"rcpt"]),
    "SMTPMAILFROM": mostly([b""], addresses) | addresses,
    "SMTPRCPTTO": mostly([b"postmaster"], addresses) | addresses,
    "SMTPAUTHUSER": mostly([b"ana", b"ben", b""]),
    "DOTBLINDSTRIP": st.sampled_from([b".", b".+", b""]),
    "PLUSALIASESCHARS": st.sampled_from([b"+", b"+-.", b""]),
    "mailbox_sources": st.sampled_from([b"vpopmail", b"sql", b"postfix dovecot", b"list", b"list vpopmail"]),
    "CHKUSER_DELIMITER": st.sampled_from([b"-", b"-+", b""]),
}


@st.composite
def environments(draw: st.DrawFn, plugin: Plugin) -> dict[bytes, bytes]:
    "What a mail server may set for a plugin, and some of its settings; a few of all these unset, and a few with anything."
    told = {each.name: each for each in Session.variables()}
    declared = (plugin.settings, plugin.state, *(load(each.answerer).settings_class for each in plugin.asks))
    own = {each.name: each for settings in declared for each in settings.variables()}
    names = set(told) | (draw(st.sets(st.sampled_from(sorted(own))), "settings") if own else set())
    few = st.lists(st.sampled_from(sorted(told | own)), max_size=2)
    environ = {}
    for name in sorted(names.difference(draw(few, "unset"))):
        kind = (told | own)[name].kind.__name__
        environ[name.encode()] = draw(LIKELY.get(name, LIKELY.get(kind, values)), name)
    return environ | {name.encode(): draw(values, name) for name in draw(few, "anything")}


MISSING, FOLDER, LOOP = "missing", "a folder", "a link to itself"
DOMAINS = b"example.org\n.example.net\n"
WHOLE = cdb(b"ana@example.org", b"example.org", b"@example.org")
contents = st.one_of(
    st.sampled_from([MISSING, FOLDER, LOOP]),
    st.sampled_from([b"", DOMAINS.replace(b"\n", b"\r\n"), b"ana@example.org", b"\xef\xbb\xbfexample.org\n", WHOLE]),
    st.sampled_from([b"user@example.org\n" * 100_000, b"\n" * 100_000, b"x" * 1_000_000, bytes(100_000)]),
    st.lists(st.sampled_from(PIECES), max_size=30).map(b"".join),
    st.binary(max_size=300),
    st.integers(0, len(WHOLE) - 1).map(lambda length: WHOLE[:length]),
    st.builds(
        lambda place, byte: WHOLE[:place] + bytes([byte]) + WHOLE[place + 1 :],
        st.integers(0, len(WHOLE) - 1),
        st.integers(0, 255),
    ),
)
FILES: dict[str, str | bytes] = {
    "rcpthosts": DOMAINS,
    "morercpthosts.cdb": MISSING,
    "addresslist": b"ana@example.org\nana.lee@example.org\n",
    "addresslist.cdb": WHOLE,
    "localonly": b"ana\n",
    "access": (
        b"refuse for now sender ana@example.org user ben\nallow user in localonly\ntag helo .net with X-A: b\nnonsense\n"
        b"exempt from all recipient postmaster\nrefuse client 192.0.2.0/24 recipient in addresslist say no\n"
    ),
    "ownsenders": b"ben: @example.org\nana\n",
    "me": b"mail.example.org\n",
    "overloaded": b"",
    "virtualdomains": b"example.org:example.org\nmx.example.net:mx.example.net\n",
}


@st.composite
def folders(draw: st.DrawFn) -> dict[str, str | bytes]:
    "Control files as they should be, but for one or two."
    odd = draw(st.lists(st.sampled_from(sorted(FILES)), max_size=2), "odd files")
    return FILES | {name: draw(contents, name) for name in odd}


def furnish(folder: Path, files: dict[str, str | bytes]) -> None:
    "Make a control folder with these files and no others."
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    for name, content in files.items():
        if isinstance(content, bytes):
            (folder / name).write_bytes(content)
        elif content == FOLDER:
            (folder / name).mkdir()
        elif content == LOOP:
            (folder / name).symlink_to(name)


# Running a plugin, in here and as a process


class Outcome(NamedTuple):
    "What came of a plugin."

    status: int
    output: bytes
    log: bytes
    delay: int = 0


@contextmanager
def replaced_environment(environ: dict[bytes, bytes]) -> Iterator[None]:
    "Another environment for this process, for a while."
    before = dict(os.environb)
    try:
        os.environb.clear()
        os.environb.update(environ)
        yield
    finally:
        os.environb.clear()
        os.environb.update(before)


@contextmanager
def replaced_descriptor(number: int) -> Iterator[io.FileIO]:
    "A file in memory in place of standard output or standard error, for a while."
    file = io.FileIO(os.memfd_create("output"), "w+")
    before = os.dup(number)
    try:
        os.dup2(file.fileno(), number)
        yield file
    finally:
        os.dup2(before, number)
        os.close(before)
        file.close()


def run_here(plugin: Plugin, environ: dict[bytes, bytes]) -> Outcome:
    "Be the plugin's script, without a process of its own, and without waiting."
    delays: list[int] = []
    with pytest.MonkeyPatch.context() as patch, replaced_descriptor(1) as output, replaced_descriptor(2) as log:
        patch.setattr(script, "_wait", lambda seconds, output: delays.append(seconds))
        with replaced_environment(environ):
            script.main(plugin)
        written, logged = (os.pread(file.fileno(), 10_000_000, 0) for file in (output, log))
    return Outcome(0, written, logged, sum(delays))


def run_there(program: Path, environ: dict[bytes, bytes]) -> Outcome:
    "Run the plugin's script as qmail-smtpd does."
    done = subprocess.run(
        [program], env=environ, stdin=subprocess.DEVNULL, capture_output=True, restore_signals=False, check=False
    )
    return Outcome(done.returncode, done.stdout, done.stderr)


REPLY = re.compile(rb"[ER][245][0-9][0-9] [ -~]+")
FORMS = {
    "E": REPLY,
    "R": REPLY,
    "C": re.compile(rb"C[^\x00-\x1f\x7f]{3,899}"),
    "S": re.compile(
        rb"S(WRONGRCPTCOUNT|RDNSSCORE|SPF[A-Z]+)=\d{1,10}|SACCESSEXEMPT(AT)?=[\w, ]*|SACCESSTAGGED=(\d+ \d+)?"
    ),
    "H": re.compile(rb"H[\w-]+: [^\x00-\x1f\x7f]+"),
    "N": re.compile(rb"N"),
    "D": re.compile(rb"D"),
}


def check_outcome(name: str, outcome: Outcome) -> None:
    "Only the commands that are meant, one a line; only log lines; no refusal without one; no trace of a crash."
    assert outcome.status == 0
    *lines, rest = outcome.output.split(b"\n")
    assert rest == b""
    for line in lines:
        letter = chr(line[0])
        assert letter in LETTERS[name], line
        assert FORMS[letter].fullmatch(line), line
        assert len(line) < 512 if letter in "ER" else len(line) < 1000
        if letter == "C":
            parse_address(line[1:].decode("utf-8", "surrogateescape"))
    assert outcome.log[-1:] in (b"", b"\n")
    logged = outcome.log.decode().split("\n")[:-1]
    for entry in logged:
        assert entry.startswith(f"{name}: pid ") and LOG_LINE.fullmatch(entry) and entry.isprintable(), entry
        assert len(entry) <= 1050 and "failed, so the mail goes on" not in entry, entry
    assert logged or not any(line[:1] in (b"E", b"R") for line in lines)
    assert 0 <= outcome.delay <= 999_999_999


@pytest.fixture(scope="module")
def raters() -> Iterator[st.SearchStrategy[bytes]]:
    "Where RATER may lead: to one that refuses everybody, and to nobody."
    with rater(ip="0 in 1m", user="0 in 1m", net="0 in 1m") as address:
        yield st.sampled_from([address.encode(), b"/nowhere/rater"])


SPAM = "Spam\r\nA\n\udcff" * 99
ZONE: dict[tuple[str, str], list[Any]] = {
    ("1.2.0.192.one.example", "A"): ["127.0.0.2"],
    ("1.2.0.192.one.example", "TXT"): [SPAM],
    ("example.org", "MX"): [(10, "mx.example.net")],
    ("mx.example.net", "TXT"): ["v=spf1 -all exp=why.example.net"],
    ("why.example.net", "TXT"): ["%{s} from %{h}, %{p}: no"],
    ("example.net", "MX"): [(10, "mx.example.net")],
    ("example.net", "TXT"): [f"v=spf1 ip4:192.0.2.0/24 ~all exp=why.example.net{SPAM}"],
    ("example.com", "TXT"): ["v=spf1 ip4:192.0.2.0/24 -all"],
}


@pytest.fixture(scope="module")
def nameserver() -> Iterator[bytes]:
    "What DNSSERVERS leads to: a list that has the usual client, and a few domains."
    with DnsServer(Zone(ZONE)) as server:
        yield f"127.0.0.1#{server.port}".encode()


@pytest.mark.parametrize("name", PLUGINS)
@settings(max_examples=120, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_whatever_the_environment_and_the_files_hold(
    name: str, tmp_path: Path, raters: st.SearchStrategy[bytes], nameserver: bytes, data: st.DataObject
) -> None:
    plugin = catalogue()[name]
    control, peers = tmp_path / "control", tmp_path / "peers"
    furnish(control, data.draw(folders(), "files"))
    furnish(peers, {})
    environ = data.draw(environments(plugin), "environment") | {b"RATER": data.draw(raters, "rater")}
    environ |= {b"CONTROLDIR": os.fsencode(control), b"IPSVDIR": os.fsencode(peers), b"DNSSERVERS": nameserver}
    check_outcome(name, run_here(plugin, environ))


@pytest.mark.parametrize("name", PLUGINS)
@settings(max_examples=12, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_the_process_does_the_same(
    name: str,
    tmp_path: Path,
    installed: Path,
    raters: st.SearchStrategy[bytes],
    nameserver: bytes,
    data: st.DataObject,
) -> None:
    "The script prints, logs and ends as the decision in here."
    plugin = catalogue()[name]
    control = tmp_path / "control"
    furnish(control, data.draw(folders(), "files"))
    environ = data.draw(environments(plugin), "environment") | {b"RATER": data.draw(raters, "rater")}
    environ |= {b"CONTROLDIR": os.fsencode(control), b"IPSVDIR": b"/nowhere", b"DNSSERVERS": nameserver}
    environ |= {b"TARPITMAXDELAY": b"0"}  # nobody wants to wait here
    there, here = run_there(installed / name, environ), run_here(plugin, environ)
    check_outcome(name, there)
    pids = re.compile(rb": pid \d+ - ")
    assert there.output == here.output
    assert pids.sub(b": ", there.log) == pids.sub(b": ", here.log)


@pytest.mark.parametrize("name", PLUGINS)
def test_no_control_folder_at_all(name: str, installed: Path, nameserver: bytes, tmp_path: Path) -> None:
    "It is missing, is a file, or can't have such a name: the mail goes on."
    told = SAMPLE | {"SMTPAUTHUSER": "ana", "RATER": "/nowhere/rater"}
    environ = {name.encode(): value.encode() for name, value in told.items()} | {b"DNSSERVERS": nameserver}
    (tmp_path / "file").touch()
    for folder in ("missing", "file", "x" * 5000):
        outcome = run_there(installed / name, environ | {b"CONTROLDIR": os.fsencode(tmp_path / folder)})
        check_outcome(name, outcome)
        assert outcome.output == b""


# Settings that make no sense


NONSENSE = ("lots", "-1", "", "1.5", "0x10", "٥", "1000000000", "y" * 70, "two\nlines", "\udcff", "N ", " 2", "551")
SCENES: list[dict[str, object]] = [  # between them, each plugin looks at each of its settings
    {"rcpt_to": "a.b+c@example.org", "rcpt_count_all": 60, "IPSVDIR": "/etc/peers"},
    {"rcpt_to": "a.b+c@example.com", "auth_user": "ana", "rcpt_count_all": 60},
    {"rcpt_to": "zoe@mx.example.net", "mail_from": "zoe@example.org"},
]
SETTINGS = [(name, each) for name in PLUGINS for each in catalogue()[name].settings.variables()]


TOO_MUCH = {  # answers to what plugins ask: rates are over their limits, and what is to be done can be done
    Rate: lambda question: Answer(1, "2/1"),
    Block: lambda question: True,
    Mailbox: lambda question: NOT_FOUND,
}


def makes_no_sense(variable: Variable, value: str) -> bool:
    "Does the variable's kind refuse this text, and can't tell either what was meant?"
    try:
        variable.kind(value)
    except Meant:
        return False
    except ValueError:
        return True
    return False


@pytest.mark.parametrize("name, variable", SETTINGS, ids=lambda value: getattr(value, "name", value))
def test_nonsense_is_logged_and_the_default_taken(name: str, variable: Variable, tmp_path: Path) -> None:
    "One line names the setting, the value and what would do, and everything goes on as if nothing had been set."
    plugin = catalogue()[name]
    addresslist = FILES["addresslist.cdb" if name == "rcptcheckscdb" else "addresslist"]
    furnish(tmp_path / "control", FILES | {"addresslist": addresslist})

    def decide(scene: dict[str, object], **setting: str) -> tuple[list[Command], list[str]]:
        lines: list[str] = []
        control = Control(str(tmp_path / "control"))  # a new one, so that mistakes in files are told each time
        return plugin(sample_session(**{**scene, **setting}), control, lines.append, TOO_MUCH), lines

    bad = [value for value in NONSENSE if makes_no_sense(variable, value)]
    assert bad or variable.kind in (text, filename_or_empty, blocklists)  # any text is one; of lists, entries are left out
    for value in bad:
        complaint = f"{variable.name}={value:.60} should be {variable.kind.__doc__}; taken as {shown(variable.default)}"
        complaints = 0
        for scene in SCENES:
            answer, lines = decide(scene)
            odd_answer, odd_lines = decide(scene, **{variable.name: value})
            assert odd_answer == answer
            assert [line for line in odd_lines if line != complaint] == lines
            complaints = max(complaints, odd_lines.count(complaint))
            assert odd_lines.count(complaint) <= 1
        assert complaints == 1, (variable.name, value)


# Writing and reading commands


replies = st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=505).filter(str.strip)
names = st.from_regex(r"[A-Za-z_][A-Za-z0-9_]*", fullmatch=True)
printable = st.text(max_size=200).filter(str.isprintable)
stages = st.sampled_from(["mail", "rcpt", "data"])
ReplyKind = TypeVar("ReplyKind", Refuse, Disconnect)


@st.composite
def refusals(draw: st.DrawFn, kind: type[ReplyKind], said: st.SearchStrategy[str] = replies) -> ReplyKind:
    "A refusal with any code, and any enhanced status code that goes with it, or none."
    code = draw(st.integers(400, 599))
    detail = st.integers(0, 999)
    enhanced = draw(st.none() | st.builds(f"{code // 100}.{{}}.{{}}".format, detail, detail))
    text, by, in_front = draw(said), draw(st.sampled_from(["", "me"])), draw(st.booleans())
    return kind(code, enhanced, text if says_something(text) else "no", by=by, in_front=in_front)


def says_something(text: str) -> bool:
    "Is anything left of a text when it has been made to fit?"
    return bool(re.sub(r"\s", "", text[:300]))


headers = st.builds("{}: {}".format, st.from_regex(r"[A-Za-z-]{1,20}", fullmatch=True), printable)
characters = st.characters(codec="utf-8", min_codepoint=32, exclude_characters="\x7f")
addresses = st.text(characters, min_size=1, max_size=200)  # of up to four bytes each
fit = st.one_of(  # commands that can be written as they are
    st.builds(Say, st.integers(200, 599), replies),
    st.builds(Later, stages, refusals(Refuse)),
    st.builds(SetVariable, names, printable),
    st.builds(UnsetVariable, names),
    st.builds(AddHeader, headers),
    st.builds(ChangeAddress, addresses),
)
final = st.one_of(refusals(Refuse), refusals(Disconnect), st.sampled_from([Accept(), Next(), Okay(), Drop()]))
decoded = st.binary(max_size=700).map(lambda raw: raw.decode("utf-8", "surrogateescape"))
anything = st.text(st.characters(codec=None)) | decoded
texts = anything.filter(lambda value: not re.search("[\ud800-\udc7f\udd00-\udfff]", value))  # which no bytes decode to
unfit = st.one_of(  # with texts from strangers
    st.builds(Say, st.integers(200, 599), texts),
    refusals(Refuse, texts),
    refusals(Disconnect, texts),
    st.builds(AddHeader, texts.map("X-A: {}".format)),
    st.builds(Later, stages, refusals(Refuse, texts)),
    st.builds(SetVariable, names, texts),
    st.builds(Delay, st.integers(0, 240)),
)


@given(st.lists(fit), final | st.none())
def test_what_is_written_is_read(commands: list[Command], last: Command | None) -> None:
    commands = [*commands, last] if last else commands
    assert read(write(commands)) == commands


@given(st.lists(unfit))
def test_a_command_is_a_line(commands: list[Command]) -> None:
    "Whatever a stranger's text holds, each command is one line of its own letter, short enough, and of one kind when read."
    output = write(commands)
    ends = [number for number, command in enumerate(commands) if command.final]
    expected = [command for command in commands[: ends[0] + 1 if ends else None] if command.letter]
    *lines, rest = output.split(b"\n")
    assert rest == b"" and [line[:1].decode() for line in lines] == [command.letter for command in expected]
    for line, command in zip(lines, expected, strict=True):
        if command.letter in "PERL":
            assert len(line) < 512 and line.isascii() and line.decode().isprintable()
        if command.letter == "H":
            assert len(line) < 1000 and line.decode().isprintable()
    again = read(output)
    assert [type(command) for command in again] == [type(command) for command in expected]
    assert write(again) == output


@given(anything)
@example("A")
@example("A=B")
@example("A\nE550 forged")
def test_names_and_addresses_are_written_as_they_are_or_not_at_all(value: str) -> None:
    makers: list[tuple[Callable[[], Command], bytes]] = [
        (lambda: ChangeAddress(value), b"C%b\n"),
        (lambda: UnsetVariable(value), b"U%b\n"),
        (lambda: SetVariable(value, "x"), b"S%b=x\n"),
    ]
    for make, form in makers:
        try:
            command = make()
            output = write([command])
        except ValueError:
            continue
        assert output == form % value.encode("utf-8", "surrogateescape")
        assert output.count(b"\n") == 1 and [type(each) for each in read(output)] == [type(command)]
        assert isinstance(command, ChangeAddress) or value.isidentifier()


GRAMMAR: list[tuple[bytes, type[Command]]] = [  # a line, from its first byte on, and which of its bytes are the text
    (rb"A.*", Accept),
    (rb"N.*", Next),
    (rb"O.*", Okay),
    (rb"D.*", Drop),
    (rb"E([^\0]*).*", Refuse),
    (rb"R(.*)", Disconnect),
    (rb"L([MRD].*)", Later),
    (rb"C(.*)", ChangeAddress),
    (rb"S([^=]*=.*)", SetVariable),
    (rb"U(.*)", UnsetVariable),
    (rb"H(.*)", AddHeader),
    (rb"P(.*)", Say),
]


def model(output: bytes) -> list[Command]:
    "What qmail-spp makes of a plugin's output, line by line."
    commands: list[Command] = []
    while output and not (commands and commands[-1].final):
        line, newline, output = output.partition(b"\n")
        line = line if newline else line[:-1]
        for form, kind in GRAMMAR:
            if match := re.fullmatch(form, line, re.DOTALL):
                commands.append(kind.as_written(b"".join(match.groups()).decode("utf-8", "surrogateescape")))
    return commands


lines = st.builds(bytes.__add__, st.sampled_from([bytes([code]) for code in range(256)]), st.binary(max_size=20))
likely = st.builds(
    bytes.__add__,
    st.sampled_from([b"P", b"LM", b"L", b"S", b"SA=", b"U", b"H", b"C", b"E", b"x", b""]),
    st.binary(max_size=20),
)


@given(st.binary(max_size=2000) | st.lists(lines | likely).map(b"\n".join) | st.lists(likely).map(b"\n".join))
@example(b"E550 no")
@example(b"A")
@example(b"Pa\nDone\nE550 never read")
def test_whatever_is_printed_is_read_as_qmail_spp_does(output: bytes) -> None:
    assert read(output) == model(output)


# Whatever a client says


VERBS = b"EHLO |HELO |MAIL FROM:<|RCPT TO:<|mail from:|RSET|VRFY |NOOP|HELP |AUTH PLAIN |xyz |".split(b"|")
one_line = values.map(lambda value: value.replace(b"\n", b""))
conversations = st.lists(st.builds(lambda verb, rest: verb + rest + b">", st.sampled_from(VERBS), one_line), max_size=8)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, installed: Path) -> Iterator[Server]:
    "A server with a plugin at every stage."
    home = Home(tmp_path_factory.mktemp("said") / "qmail", installed)
    at_mail, at_rcpt = ["[mail]", "plugins/senderchecksfile"], ["[rcpt]", "plugins/plusaliases"]
    home.plugins("[helo]", ":echo P-", "[auth]", "plugins/authlogger", *at_mail, *at_rcpt)
    home.write(addresslist="ana@example.org\n")
    server = Server(home, "--like", "gentoo", "--users", home.users(ana="secret"), environ=ENVIRON)
    yield server
    server.stop()


@settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture])
@given(conversations)
def test_whatever_a_client_says(server: Server, commands: list[bytes]) -> None:
    "Each line gets a reply, no fault of ours is told of, and the log holds log lines."
    wire = server.wire()
    wire.send(b"".join(command + b"\r\n" for command in [*commands, b"", b"QUIT"]))
    heard = wire.rest().split(b"\r\n")
    wire.close()
    replies = [line for line in heard if line[3:4] == b" "]
    assert len(replies) >= min(len(commands), 5) and not [line for line in heard if line.startswith(b"451 internal")]
    for line in server.said():
        assert LOG_LINE.fullmatch(line) and line.isprintable(), line
