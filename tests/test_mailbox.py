"""rcptchecks and senderchecks on a server of vpopmail's: what they take, and what they withstand."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest
from cdblib import Writer
from mailserver import ENVIRON, Home, Server

from ra_plugins.ask.answerer import Answerers
from ra_plugins.ask.mailbox import NOT_FOUND, DovecotMailbox, MailboxFound, PostfixMailbox, VpopmailMailbox
from ra_plugins.ask.question import Broken, Late
from ra_plugins.hosts.catalogue import catalogue
from ra_plugins.spp.command import ChangeAddress
from ra_plugins.spp.session import sample_session
from ra_plugins.support.control import Control, ControlFiles

Serve = Callable[..., Server]
KNOWN, ALL = MailboxFound(True, False, None), MailboxFound(True, True, None)
NO_MAILBOX = "511 sorry, no mailbox here by that name"
VDELIVERMAIL = "| /home/vpopmail/bin/vdelivermail ''"
MAIL = "MAIL FROM:<eva@example.net>"


class Vpopmail(NamedTuple):
    "A qmail home with a domain of vpopmail's."

    home: Path
    domain: Path  # its folder

    def tell(self, address: str) -> object:
        "What is there for an address."
        with Answerers({"MAILBOX_USERS": str(self.home / "users")}) as answerers:
            return answerers.tell(VpopmailMailbox(address), time.monotonic() + 30)


def furnish(home: Path) -> Vpopmail:
    "Make the domain: ana, whose mailbox is full; ben; an alias; a list."
    domain = home / "domains" / "example.org"
    (domain / "ana" / "Maildir").mkdir(parents=True)
    (home / "users").mkdir()
    (home / "control").mkdir(exist_ok=True)
    (home / "users" / "assign").write_text(f"+example.org-:example.org:89:89:{domain}:-::\n.\n")
    (home / "control" / "virtualdomains").write_text("example.org:example.org\n")
    (domain / "vpasswd").write_text(
        f"ana:x:1:0:Ana:{domain}/ana:1000S,100C\nben:x:1:0:Ben:{domain}/ben:NOQUOTA\n"
        f"johndoe:x:1:0:Johnny:{domain}/johndoe:NOQUOTA\npostmaster:x:1:0::{domain}/postmaster:NOQUOTA\n"
    )
    (domain / "ana" / "Maildir" / "maildirsize").write_text("1000S,100C\n600 1\n400 1\n")
    (domain / ".qmail-sales").write_text("&ana@example.org\n")
    (domain / ".qmail-john:doe").write_text("&ben@example.org\n")
    (domain / ".qmail-list-default").write_text("|ezmlm-send list\n")
    (domain / ".qmail-default").write_text(f"{VDELIVERMAIL} bounce-no-mailbox\n")
    return Vpopmail(home, domain)


@pytest.fixture
def vpopmail(tmp_path: Path) -> Vpopmail:
    return furnish(tmp_path / "vpopmail")


# On a server


def test_on_a_server(home: Home, serve: Serve) -> None:
    "Both plugins as programs under an SMTP server: replies and log."
    furnish(home.path)
    home.plugins("[mail]", "plugins/senderchecks", "[rcpt]", "plugins/rcptchecks")
    server = serve()
    said = ["payroll@example.org", "ben@example.org", ""]
    assert server.talk(*(f"MAIL FROM:<{sender}>" for sender in said)) == [
        f"{NO_MAILBOX} (#5.1.1 - senderchecks)",
        *["250 ok"] * 2,
    ]
    names = ["ben", "Sales", "ana", "zoe", "list-subscribe", "../ben"]
    assert server.talk(MAIL, *(f"RCPT TO:<{name}@example.org>" for name in names)) == [
        *["250 ok"] * 3,
        "522 sorry, recipient mailbox is full (#5.2.2 - rcptchecks)",
        f"{NO_MAILBOX} (#5.1.1 - rcptchecks)",
        "250 ok",
        f"{NO_MAILBOX} (#5.1.1 - rcptchecks)",
    ]
    assert [line.partition(" - ")[2] for line in server.said()] == [
        f"{NO_MAILBOX} (payroll@example.org)",
        "Accepted sender (ben@example.org)",
        "Accepted empty sender",
        "Accepting non-local sender (eva@example.net)",
        "Accepted recipient (ben@example.org number 0 of 10000 )",
        "Accepted recipient (Sales@example.org number 1 of 10000 )",
        "522 sorry, recipient mailbox is full (ana@example.org)",
        f"{NO_MAILBOX} (zoe@example.org)",
        "Accepted recipient (list-subscribe@example.org number 2 of 10000 )",
        f"{NO_MAILBOX} (../ben@example.org)",
    ]


@pytest.mark.parametrize(
    ("recipient", "status", "said"),
    [
        ("ben@example.org", 0, "Accepted recipient (ben@example.org number 0 of 10000 )"),
        ("zoe@example.org", 100, f"{NO_MAILBOX} (zoe@example.org)"),
        ("ana@example.org", 100, "522 sorry, recipient mailbox is full (ana@example.org)"),
        ("zoe@example.net", 0, "Accepted recipient (zoe@example.net number 0 of 10000 )"),
        ("postmaster", 0, "Accepted recipient (postmaster number 0 of 10000 )"),
        ("zoe", 100, "511 Invalid address (zoe)"),
    ],
)
def test_rcptcheck(vpopmail: Vpopmail, recipient: str, status: int, said: str) -> None:
    "The program for qmails without qmail-spp: exit status, a line in the log, nothing on standard output."
    told = {"SENDER": "eva@example.net", "RECIPIENT": recipient, "HELO": "x", "CONTROLDIR": str(vpopmail.home / "control")}
    program = [sys.executable, "-c", "from ra_plugins.hosts.rcptcheck import main; main()"]
    done = subprocess.run(program, env={**ENVIRON, **told}, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (status, "", f"rcptchecks: pid {os.getpid()} - {said}\n")


def test_rcptcheck_without_files_accepts(tmp_path: Path) -> None:
    told = {"RECIPIENT": "zoe@example.org", "CONTROLDIR": str(tmp_path)}
    program = [sys.executable, "-c", "from ra_plugins.hosts.rcptcheck import main; main()"]
    done = subprocess.run(program, env={**ENVIRON, **told}, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    assert done.returncode == 0 and done.stderr.endswith(" - error opening virtualdomains: no such file or directory\n")


@pytest.mark.parametrize(
    ("names", "status", "said"),
    [
        ("nosuch", 0, ["RCPTCHECKPLUGINS=nosuch should name plugins with blanks between"]),
        ("plusaliases,rcptchecks", 0, ["RCPTCHECKPLUGINS=plusaliases,rcptchecks should name plugins with blanks between"]),
        ("nosuch rcptchecks", 100, ["RCPTCHECKPLUGINS=nosuch should name plugins", f"{NO_MAILBOX} (zoe@example.org)"]),
        ("", 0, ["RCPTCHECKPLUGINS is empty, so nothing is checked; it should name plugins with blanks between"]),
    ],
)
def test_rcptcheck_with_names_that_are_none(vpopmail: Vpopmail, names: str, status: int, said: list[str]) -> None:
    "Told with the name of the setting and what it should be; the others run."
    told = {"RECIPIENT": "zoe@example.org", "CONTROLDIR": str(vpopmail.home / "control"), "RCPTCHECKPLUGINS": names}
    program = [sys.executable, "-c", "from ra_plugins.hosts.rcptcheck import main; main()"]
    done = subprocess.run(program, env={**ENVIRON, **told}, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    lines = [line.partition(" - ")[2] for line in done.stderr.splitlines()]
    assert done.returncode == status and len(lines) == len(said) and "Error" not in done.stderr
    assert all(line.startswith(begin) for line, begin in zip(lines, said, strict=True))


# What a list of mailboxes must know


def decided(name: str, address: str, files: dict[str, str | bytes], **settings: object) -> tuple[list[object], list[str]]:
    "What a plugin at RCPT answers about an address, and logs."
    lines: list[str] = []
    session = sample_session(rcpt_to=address, **settings)
    return [*catalogue()[name](session, ControlFiles(files), lines.append)], lines


OURS: dict[str, str | bytes] = {"rcpthosts": "example.org\n"}


@pytest.mark.parametrize("name", ["plusaliases", "dotblind"])
def test_a_listed_address_stays_as_it_is(name: str) -> None:
    "Before: john.doe@ went to johndoe@ without a line in the log, and news+daily@ got 511."
    files = OURS | {"addresslist": "john.doe@example.org\njohndoe@example.org\nnews+daily@example.org\n"}
    for address in ("john.doe@example.org", "News+Daily@Example.org"):
        settings = {"DOTBLINDSTRIP": ".+", "PLUSALIASESCHARS": "+."}
        assert decided(name, address, files, **settings) == ([], [])


def test_what_is_changed_is_logged() -> None:
    assert decided("plusaliases", "ana+tea@example.org", OURS) == (
        [ChangeAddress("ana@example.org")],
        ["changed ana+tea@example.org to ana@example.org"],
    )
    assert decided("dotblind", "a.na@example.org", OURS)[1] == ["changed a.na@example.org to ana@example.org"]


def test_a_catch_all_doesnt_end_rewriting() -> None:
    files = OURS | {"addresslist": "ana@example.org\n@example.org\n"}
    assert decided("plusaliases", "ana+tea@example.org", files)[0] == [ChangeAddress("ana@example.org")]


def test_rewriting_asks_vpopmail_for_its_domains(vpopmail: Vpopmail) -> None:
    "Without any setting: virtualdomains says that it is one of vpopmail's."
    control = vpopmail.home / "control"
    (control / "rcpthosts").write_text("example.org\n")
    dotblind, lines = catalogue()["dotblind"], []
    with Answerers({"CONTROLDIR": str(control)}) as answerers:
        for address in ("John.Doe@example.org", "b.en@example.org"):
            lines += dotblind(sample_session(rcpt_to=address), Control(str(control)), lambda message: None, answerers)
    assert lines == [ChangeAddress("ben@example.org")]


@pytest.mark.parametrize("name", ["rcptchecksfile", "rcptcheckscdb"])
@pytest.mark.parametrize(
    ("address", "settings", "accepted"),
    [
        ("list-subscribe@example.org", {}, True),
        ("list@example.org", {}, True),
        ("ana-shop@example.org", {}, True),
        ("ben-shop@example.org", {}, False),
        ("ben-shop@example.org", {"CHKUSER_EXTENSIONS": 1}, True),
        ("ben+shop@example.org", {"CHKUSER_EXTENSIONS": 1}, False),
        ("ben+shop@example.org", {"CHKUSER_EXTENSIONS": 1, "CHKUSER_DELIMITER": "+"}, True),
        ("eva+x@example.org", {"CHKUSER_DELIMITER": "-+"}, True),
        ("eva+x@example.org", {}, False),
        ("list-return-42-eva=example.net@example.org", {}, True),
        ("ben-return-42-eva=example.net@example.org", {}, False),
        ("ben-return-42-eva=example.net@example.org", {"CHKUSER_VERP": 1}, True),
        ("zoe-return-42-eva=example.net@example.org", {"CHKUSER_VERP": 1}, False),
        ("SRS0=x9Zk=4T=example.net=eva@example.org", {}, False),
        ("SRS0=x9Zk=4T=example.net=eva@example.org", {"CHKUSER_SRS": 1}, True),
        ("SRS1=aB=example.com==x9Zk=4T=example.net=eva@example.org", {"CHKUSER_SRS": 1}, True),
        ("SRS0=nothing@example.org", {"CHKUSER_SRS": 1}, False),
        ('"ben"@example.org', {}, True),
        (r'"b\en"@example.org', {}, True),
        ('"ana maria"@example.org', {}, True),
        ("ana maria@example.org", {}, True),
        ("-" * 880 + "@example.org", {"CHKUSER_EXTENSIONS": 1}, False),
    ],
)
def test_what_a_list_must_know(
    name: str, address: str, settings: dict[str, object], accepted: bool, tmp_path: Path
) -> None:
    entries = ["list@", "list-*@", "ana-*@", "ben@", "eva@", "eva+*@", '"ana maria"@']
    keys = [f"{entry}example.org" for entry in entries]
    if name == "rcptchecksfile":
        addresses: str | bytes = "\n".join(keys)
    else:
        with open(tmp_path / "list", "wb") as file, Writer(file) as writer:
            for key in keys:
                writer.put(key.encode(), b"")
        addresses = (tmp_path / "list").read_bytes()
    answer, lines = decided(name, address, OURS | {"addresslist": addresses}, **settings)
    assert bool(answer) is not accepted
    assert lines[0].startswith("Accepted recipient (" if accepted else NO_MAILBOX)


# What vpopmail's files may be like


@pytest.mark.parametrize(
    ("ending", "found"),
    [("bounce-no-mailbox", NOT_FOUND), ("delete", NOT_FOUND), ("ana@example.org", ALL), ("/home/x/Maildir", ALL)],
)
def test_what_qmail_default_says(vpopmail: Vpopmail, ending: str, found: MailboxFound) -> None:
    (vpopmail.domain / ".qmail-default").write_text(f"{VDELIVERMAIL} {ending}\n")
    assert vpopmail.tell("zoe@example.org") == found
    assert vpopmail.tell("ben@example.org") == KNOWN


@pytest.mark.parametrize(
    ("lines", "found"),
    [
        (f"# {VDELIVERMAIL} bounce-no-mailbox\n&boss@example.net\n", ALL),
        (f"#{VDELIVERMAIL} delete\n\n./Maildir/\n", ALL),
        (f"# none\n{VDELIVERMAIL} bounce-no-mailbox \t\n", NOT_FOUND),
        (f"{VDELIVERMAIL} bounce-no-mailbox # as ever\n", NOT_FOUND),
        (f"{VDELIVERMAIL} bounce-no-mailbox\n&boss@example.net\n", NOT_FOUND),
        (f"{VDELIVERMAIL} delete\n&boss@example.net\n", ALL),
        ("# nobody gets it\n", NOT_FOUND),
        ("", ALL),
        ("| maildrop /etc/vdelivermail/bounce-no-mailbox.rc\n", ALL),
    ],
)
def test_qmail_default_is_read_as_qmail_local_reads_it(vpopmail: Vpopmail, lines: str, found: MailboxFound) -> None:
    "Comments, blanks at the end, several lines: dot-qmail(5), qmail-command(8)."
    (vpopmail.domain / ".qmail-default").write_text(lines)
    assert vpopmail.tell("zoe@example.org") == found


def test_a_dot_file_that_begins_with_a_blank_line(vpopmail: Vpopmail) -> None:
    "qmail-local puts the delivery off, so nobody can tell what will become of it."
    (vpopmail.domain / ".qmail-default").write_text(f"\n{VDELIVERMAIL} bounce-no-mailbox\n")
    answer = vpopmail.tell("zoe@example.org")
    assert isinstance(answer, Broken) and "begins with a blank line" in str(answer)


def test_the_default_isnt_a_mailbox(vpopmail: Vpopmail) -> None:
    assert vpopmail.tell("default@example.org") == vpopmail.tell("Default@example.org") == NOT_FOUND
    assert vpopmail.tell("list-default@example.org") == KNOWN  # which takes what begins with list-
    (vpopmail.domain / ".qmail-default").write_text("&boss@example.net\n")
    assert vpopmail.tell("default@example.org") == ALL


def test_a_domain_that_users_assign_doesnt_have(vpopmail: Vpopmail) -> None:
    "Its mail goes to the user alias, who may have a file for it: it passes, and the log says why."
    control = vpopmail.home / "control"
    (control / "virtualdomains").write_text("example.org:example.org\nexample.net:example.net\n")
    lines: list[str] = []
    session = sample_session(rcpt_to="ana@example.net")
    answerers = Answerers({"MAILBOX_USERS": str(vpopmail.home / "users")})
    assert catalogue()["rcptchecks"](session, Control(str(control)), lines.append, answerers) == []
    assert lines == [
        "Error opening address list file (vpopmail): qmail's users/assign, or users/cdb made of it, has no entry for "
        "example.net, so its mail isn't vpopmail's, but the user alias's"
    ]


def test_a_domain_without_users(vpopmail: Vpopmail) -> None:
    "An empty vpasswd.cdb says so; an empty vpasswd alone may be an accident. Aliases are known either way."
    (vpopmail.domain / "vpasswd").write_text("")
    answer = vpopmail.tell("zoe@example.org")
    assert isinstance(answer, Broken) and str(answer).startswith("in the folder of example.org, vpasswd: is empty")
    assert vpopmail.tell("sales@example.org") == KNOWN
    with open(vpopmail.domain / "vpasswd.cdb", "wb") as file, Writer(file):
        pass
    assert vpopmail.tell("zoe@example.org") == NOT_FOUND
    assert vpopmail.tell("sales@example.org") == KNOWN


# How full a mailbox is


def stale(path: Path, minutes: int = 16) -> None:
    "Make a file older."
    os.utime(path, (time.time() - 60 * minutes,) * 2)


def test_a_mailbox_that_was_full_isnt_for_ever(vpopmail: Vpopmail) -> None:
    "15 minutes later its messages are counted, and nothing is written."
    maildir = vpopmail.domain / "ana" / "Maildir"
    for minutes, fill in ((14, 100), (16, 0), (60 * 24 * 30, 0), (-60, 0)):
        stale(maildir / "maildirsize", minutes)
        assert vpopmail.tell("ana@example.org") == MailboxFound(True, False, fill), minutes
    assert [each.name for each in maildir.iterdir()] == ["maildirsize"]
    assert (maildir / "maildirsize").read_text() == "1000S,100C\n600 1\n400 1\n"


def test_what_counts_in_a_maildir(vpopmail: Vpopmail) -> None:
    "By hand: 100 + 200 + 30 + 4 bytes of 1000; trash, what is being delivered, and other files don't count."
    maildir = vpopmail.domain / "ana" / "Maildir"
    stale(maildir / "maildirsize")
    for name, size in {
        "new/1.M1.a,S=100": 1,
        "cur/2.M1.a,S=200,W=210:2,S": 1,
        "cur/3.M1.a:2,": 30,
        ".Sent/cur/4.M1.a,S=4:2,": 1,
        "cur/5.M1.a,S=5000:2,ST": 1,
        ".Trash/cur/6.M1.a,S=5000:2,": 1,
        "tmp/7.M1.a,S=5000": 1,
        ".Sent/maildirfolder": 5000,
        "courierimapuiddb": 5000,
    }.items():
        (maildir / name).parent.mkdir(parents=True, exist_ok=True)
        (maildir / name).write_text("x" * size)
    assert vpopmail.tell("ana@example.org") == MailboxFound(True, False, 33)


def test_a_mailbox_that_cant_be_counted_in_time_passes(vpopmail: Vpopmail, monkeypatch: pytest.MonkeyPatch) -> None:
    maildir = vpopmail.domain / "ana" / "Maildir"
    stale(maildir / "maildirsize")
    (maildir / "new").mkdir()
    for number in range(4):
        (maildir / "new" / f"{number}.a,S=300").write_text("")
    lines: list[str] = []
    for most, fill in ((4, 120), (3, None)):
        monkeypatch.setattr("ra_plugins.ask.vpopmail.COUNTED_MESSAGES", most)
        with Answerers({"MAILBOX_USERS": str(vpopmail.home / "users")}, lines.append) as answerers:
            assert answerers.tell(VpopmailMailbox("ana@example.org")) == MailboxFound(True, False, fill)
    assert len(lines) == 1 and "too many messages to be counted" in lines[0]


# What is odd


@pytest.mark.parametrize("file", ["vpasswd", "vpasswd.cdb"])
def test_every_cut_of_a_password_file(vpopmail: Vpopmail, file: str) -> None:
    "Half of a list doesn't say that somebody isn't there; only a cut between two lines of text can't be told."
    path = vpopmail.domain / file
    if file == "vpasswd.cdb":
        lines = [line.partition(":") for line in (vpopmail.domain / "vpasswd").read_text().splitlines()]
        with path.open("wb") as database, Writer(database) as writer:
            for name, _, rest in lines:
                writer.put(name.encode(), rest.encode())
    whole = path.read_bytes()
    for length in range(0, len(whole), max(len(whole) // 60, 1)):
        path.write_bytes(whole[:length])
        answer = vpopmail.tell("postmaster@example.org")
        between_lines = file == "vpasswd" and whole[length - 1 : length] == b"\n"
        assert isinstance(answer, Broken) or answer == (NOT_FOUND if between_lines else KNOWN), length
        assert vpopmail.tell("sales@example.org") == KNOWN
    path.write_bytes(whole)
    assert vpopmail.tell("postmaster@example.org") == KNOWN


@pytest.mark.parametrize("file", ["vpasswd", "vpasswd.cdb", ".qmail-default"])
def test_a_file_that_cant_be_read(vpopmail: Vpopmail, file: str) -> None:
    "Who is found elsewhere is found; of the others nobody can tell."
    (vpopmail.domain / file).unlink(missing_ok=True)
    (vpopmail.domain / file).mkdir()
    assert vpopmail.tell("sales@example.org") == KNOWN
    answer = vpopmail.tell("zoe@example.org")
    assert isinstance(answer, Broken) and str(answer) == f"in the folder of example.org, {file}: is a directory"


def test_a_folder_that_is_gone(vpopmail: Vpopmail) -> None:
    vpopmail.domain.rename(vpopmail.domain.parent / "moved")
    assert isinstance(vpopmail.tell("ben@example.org"), Broken)


TRICKS = ["../secret", "..", "../../users/assign", "/etc/passwd", "x/../../secret", "a\0b", ".", "", "%2e%2e%2fsecret"]


@pytest.mark.parametrize("trick", TRICKS)
def test_no_path_leads_out_of_the_domains_folder(vpopmail: Vpopmail, trick: str) -> None:
    "As a local part, and as a domain: nothing outside is looked at, and nothing found."
    (vpopmail.domain.parent / "secret").write_text("")
    (vpopmail.domain / ".qmail-x").mkdir()
    looked_at: list[str] = []
    real = os.stat

    def noted(path: object, *arguments: object, **options: object) -> os.stat_result:
        looked_at.append(os.path.normpath(os.fsdecode(path)))  # type: ignore[arg-type]
        return real(path, *arguments, **options)  # type: ignore[arg-type]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "stat", noted)
        answers = [vpopmail.tell(f"{trick}@example.org"), vpopmail.tell(f"ben@{trick}")]
    assert answers[0] == NOT_FOUND and "has no entry for" in str(answers[1])
    inside = (str(vpopmail.home / "users"), str(vpopmail.domain))
    assert [path for path in looked_at if not path.startswith(inside)] == []


@pytest.mark.parametrize("trick", TRICKS)
def test_no_path_leads_out_of_dovecots_folder(tmp_path: Path, trick: str) -> None:
    (tmp_path / "users").mkdir()
    (tmp_path / "secret").write_text("ben:x\n")
    with Answerers({"MAILBOX_DOVECOT": f"{tmp_path}/users/%d"}) as answerers:
        answer = answerers.tell(DovecotMailbox(f"ben@{trick}"))
    assert answer == NOT_FOUND or isinstance(answer, Broken)


@pytest.mark.parametrize(
    "address",
    ["x" * 887 + "@example.org", "\udcff\udcfe@example.org", '"a"b@example.org', "' OR 1=1 --@example.org", "a\nb@example.org"],
)
def test_odd_addresses(vpopmail: Vpopmail, tmp_path: Path, address: str) -> None:
    assert vpopmail.tell(address) == NOT_FOUND
    (tmp_path / "map").write_bytes(b"ben@example.org x\n")
    with Answerers({"MAILBOX_POSTFIX": f"hash:{tmp_path}/map", "MAILBOX_DOVECOT": f"{tmp_path}/map"}) as answerers:
        assert answerers.tell(PostfixMailbox(address)) == answerers.tell(DovecotMailbox(address)) == NOT_FOUND


def test_a_quota_at_its_limit(vpopmail: Vpopmail) -> None:
    "By bytes, by messages, by the mailbox's own limit in vpasswd, which is another than that in maildirsize."
    sizes = vpopmail.domain / "ana" / "Maildir" / "maildirsize"
    for lines, fill in (("999 1\n", 99), ("1000 1\n", 100), ("0 100\n", 100), ("", 0), ("700 1\n-701 -1\n", 0)):
        sizes.write_text(f"9S\n{lines}")
        assert vpopmail.tell("ana@example.org") == MailboxFound(True, False, fill), lines
    sizes.unlink()
    assert vpopmail.tell("ana@example.org") == KNOWN


def test_users_cdb_as_qmail_newu_makes_it(vpopmail: Vpopmail) -> None:
    "users/cdb is asked first, as qmail-lspawn does."
    (vpopmail.home / "users" / "assign").write_text(".\n")
    assert isinstance(vpopmail.tell("ben@example.org"), Broken)
    with open(vpopmail.home / "users" / "cdb", "wb") as file, Writer(file) as writer:
        writer.put(b"!example.org-", b"\0".join([b"example.org", b"89", b"89", os.fsencode(vpopmail.domain), b"-", b"", b""]))
    assert vpopmail.tell("ben@example.org") == KNOWN


def test_a_service_isnt_held_up_by_a_file(vpopmail: Vpopmail, monkeypatch: pytest.MonkeyPatch) -> None:
    "A disk that hangs: who asks is told in time, and the loop turns on."
    from ra_plugins.ask.vpopmail import VpopmailFiles

    hanging = threading.Event()
    monkeypatch.setattr(VpopmailFiles, "folder_of", lambda self, domain: hanging.wait(30))

    async def ask() -> list[object]:
        async with Answerers({"MAILBOX_USERS": str(vpopmail.home / "users")}) as answerers:
            end = time.monotonic() + 0.2
            return [*await asyncio.gather(*(answerers.atell(VpopmailMailbox("ben@example.org"), end) for _ in range(3)))]

    answers = asyncio.run(ask())
    hanging.set()
    assert all(isinstance(each, Late) for each in answers)


@pytest.mark.parametrize("name", ["senderchecks", "senderchecksfile"])
@pytest.mark.parametrize(
    ("sender", "refused"),
    [("no@example.org.", True), ("no@EXAMPLE.ORG.", True), ("ana@example.org.", False), ("no@example.net.", False)],
)
def test_a_dot_at_the_end_makes_no_domain_of_ours_foreign(name: str, sender: str, refused: bool) -> None:
    control = ControlFiles({"rcpthosts": "example.org\n", "addresslist": "ana@example.org\n"})
    logged: list[str] = []
    session = sample_session(mail_from=sender, SENDERCHK_SOURCE="list")
    answer = catalogue()[name](session, control, logged.append)
    assert bool(answer) is refused and logged[0].startswith("511 sorry, no mailbox here" if refused else "Accept")
