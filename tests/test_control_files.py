"""Control files that stay the same, change, or aren't what they should be, on disk and under the plugins' eyes."""

from __future__ import annotations

import errno
import os
import resource
import socket
import struct
import subprocess
import sys
import time
import tracemalloc
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from cdb_files import cdb

from ra_plugins.hosts.catalogue import catalogue
from ra_plugins.plugins.localmail import localmail
from ra_plugins.plugins.rcptcheckscdb import rcptcheckscdb
from ra_plugins.plugins.rcptchecksfile import rcptchecksfile
from ra_plugins.plugins.senderchecksfile import senderchecksfile
from ra_plugins.spp.command import Command, Refuse
from ra_plugins.spp.plugin import Plugin
from ra_plugins.spp.session import sample_session
from ra_plugins.support import control as module
from ra_plugins.support.control import Control, ControlFiles

NO_FILE = "no such file or directory"


class Counting(Control):
    "Notes which files are opened."

    def __init__(self, folder: str):
        super().__init__(folder)
        self.opened: list[str] = []

    def _open(self, name: str) -> module.RegularFile | module.FileInMemory:
        self.opened.append(name)
        return super()._open(name)


def wait_for_rest(*paths: Path) -> None:
    "Until a change of these files would show in their times."
    while not all(module._at_rest(path.stat().st_ctime_ns, time.time_ns()) for path in paths):
        time.sleep(0.005)


def said(plugin: Plugin, control: Control, **values: object) -> tuple[list[Command], list[str]]:
    "What a plugin answers and logs."
    lines: list[str] = []
    return plugin(sample_session(**values), control, lines.append), lines


def open_files() -> set[str]:
    "What this process has open."
    links = (f"/proc/self/fd/{number}" for number in os.listdir("/proc/self/fd"))
    return {os.readlink(link) for link in links if os.path.lexists(link)}


needs_proc = pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="no /proc/self/fd here")


# A list is read once


def test_a_decision_reads_a_long_list_once(tmp_path: Path) -> None:
    "Lists of 100,000 addresses and domains, asked for again and again, are opened once."
    (tmp_path / "addresslist").write_text("".join(f"user{each}@example.org\n" for each in range(100_000)))
    (tmp_path / "rcpthosts").write_text("example.org\n" + "".join(f"www{each}.example.net\n" for each in range(99_999)))
    wait_for_rest(tmp_path / "addresslist", tmp_path / "rcpthosts")
    control = Counting(str(tmp_path))
    for number in range(100):
        assert said(rcptchecksfile, control, rcpt_to=f"user{number}@example.org")[0] == []
        assert len(said(rcptchecksfile, control, rcpt_to=f"nobody{number}@example.org")[0]) == 2
        assert said(senderchecksfile, control, mail_from=f"user{number}@example.org")[0] == []
        assert control.is_ours("www7.example.net") and not control.is_ours("www7.example.com")
    assert [control.opened.count(name) for name in ("addresslist", "rcpthosts")] == [1, 1]


def test_the_second_decision_has_what_the_first_read(tmp_path: Path) -> None:
    "Also if a long list was written right before: by the time it is read it is old enough, or is read again."
    path = tmp_path / "list"
    path.write_text("".join(f"user{each}@example.org\n" for each in range(300_000)))
    if path.stat().st_ctime_ns % 1_000_000_000 == 0:
        pytest.skip("this file system keeps times in whole seconds")
    control = Counting(str(tmp_path))
    assert control.has("list", "user0@example.org")
    before = len(control.opened)
    assert control.has("list", "user1@example.org") and len(control.opened) == before <= 2


def test_a_whitelist_that_is_a_cdb_is_not_read_as_text(tmp_path: Path) -> None:
    "To look into a CDB of some megabytes a decision needs next to no memory."
    (tmp_path / "rcpthosts").write_text("example.org\n")
    (tmp_path / "unchecked").write_bytes(cdb(*(f"lists{each}.example.org" for each in range(100_000))))
    control = Control(str(tmp_path))
    tracemalloc.start()
    try:
        found = said(rcptchecksfile, control, rcpt_to="x@lists99999.example.org", CHKUSER_WLFILE="unchecked")
        most = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert found == ([], ["Whitelisted recipient (x@lists99999.example.org number 0 of 10000 )"])
    assert most < 1_000_000 < (tmp_path / "unchecked").stat().st_size


# It changes


def renamed(path: Path, content: str) -> None:
    "A new file over the old one."
    new = path.with_name("new")
    new.write_text(content)
    os.replace(new, path)


def rewritten(path: Path, content: str) -> None:
    "Into the same file."
    path.write_text(content)


def backdated(path: Path, content: str) -> None:
    "Into the same file, and its time of change put back: `touch -d`."
    before = path.stat()
    path.write_text(content)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


@pytest.mark.parametrize("change", [renamed, rewritten, backdated], ids=lambda value: value.__name__)
def test_a_change_counts_at_once(tmp_path: Path, change: Callable[[Path, str], None]) -> None:
    "As often as a list of the same length changes, right after the last look: nobody is given an older one."
    path = tmp_path / "list"
    path.write_text("user0000@example.org\n")
    control = Control(str(tmp_path))
    for number in range(1000):
        name = f"user{number:04}@example.org"
        change(path, f"{name}\n")
        assert control.entries("list") == {name} == control.entries("list")
        assert control.first_line("list") == name and control.has("list", name)


def test_two_changes_in_one_step_of_the_clock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    "A file system may give both the same time. So what has just changed isn't kept."
    path = tmp_path / "list"
    path.write_text("ana@example.org\n")
    status = path.stat()
    monkeypatch.setattr(module, "_identity", lambda status: (status.st_ino, status.st_size))  # times say nothing
    monkeypatch.setattr(time, "time_ns", lambda: status.st_ctime_ns + 1_000_000)
    control = Control(str(tmp_path))
    assert control.has("list", "ana@example.org")
    path.write_text("ben@example.org\n")
    monkeypatch.setattr(time, "time_ns", lambda: path.stat().st_ctime_ns + 1_000_000)
    assert control.has("list", "ben@example.org")


@needs_proc
def test_a_cdb_that_was_replaced_is_closed(tmp_path: Path) -> None:
    "And so is one that has gone."
    path = tmp_path / "list"
    control = Control(str(tmp_path))
    path.write_bytes(cdb("ana@example.org"))
    wait_for_rest(path)
    assert control.has("list", "ana@example.org") and str(path) in open_files()
    (tmp_path / "new").write_bytes(cdb("ben@example.org"))
    wait_for_rest(tmp_path / "new")
    os.replace(tmp_path / "new", path)
    wait_for_rest(path)
    assert control.has("list", "ben@example.org") and not control.has("list", "ana@example.org")
    assert [name for name in open_files() if name.startswith(str(tmp_path))] == [str(path)]
    path.unlink()
    with pytest.raises(FileNotFoundError):
        control.has("list", "ben@example.org")
    assert not [name for name in open_files() if name.startswith(str(tmp_path))]


@needs_proc
def test_open_files_are_bounded(tmp_path: Path) -> None:
    control = Control(str(tmp_path))
    paths = [tmp_path / f"{number}.cdb" for number in range(200)]
    for path in paths:
        path.write_bytes(cdb("ana@example.org"))
    wait_for_rest(*paths)
    for path in paths:
        assert control.has(path.name, "ana@example.org")
    assert len([name for name in open_files() if name.startswith(str(tmp_path))]) == module.KEPT_FILES


def test_a_cdb_cut_short_between_two_looks_leaves_the_process_alive(tmp_path: Path) -> None:
    "By a map of the file that would be SIGBUS. It is looked at in a process of its own, to see how it ends."
    path = tmp_path / "list"
    path.write_bytes(cdb(*(f"user{each}@example.org" for each in range(100_000))))
    script = """
import os, sys
from ra_plugins.support.control import Control, RegularFile
from ra_plugins.support.cdb import ConstantDatabase
path = sys.argv[1]
control, database = Control(os.path.dirname(path)), ConstantDatabase(RegularFile(path))
assert control.has("list", "user5@example.org") and database.has("user5@example.org")
os.truncate(path, 2048)
for look in (lambda: control.has("list", "user5@example.org"), lambda: database.has("user5@example.org")):
    try:
        print(look())
    except (OSError, ValueError) as error:
        print(getattr(error, "strerror", None) or error)
"""
    done = subprocess.run([sys.executable, "-c", script, path], capture_output=True, text=True, check=False)
    whole = "isn't text, and not a whole CDB: it is cut short, or something else"
    assert (done.returncode, done.stdout.splitlines()) == (0, [whole, "it was cut short while it was read"]), done


def test_a_table_without_an_empty_slot_ends(tmp_path: Path) -> None:
    "A damaged CDB is an error with a log line; `pure-cdb` alone would search it for ever."
    (tmp_path / "rcpthosts").write_text("example.org\n")
    (tmp_path / "addresslist").write_bytes(struct.pack("<LL", 2048, 3) * 256 + struct.pack("<LL", 1, 1) * 3)
    answer, lines = said(rcptcheckscdb, Control(str(tmp_path)), rcpt_to="ana@example.org")
    why = "not a whole CDB: a hash table has no empty slot within reach"
    assert (answer, lines) == ([], [f"Error opening address list file (addresslist): {why}"])


# It isn't a text file


def fifo(path: Path) -> str:
    os.mkfifo(path)
    return "isn't a regular file"


def endless(path: Path) -> str:
    path.symlink_to("/dev/full")
    return "isn't a regular file"


def listening(path: Path) -> str:
    folder = os.open(path.parent, os.O_RDONLY)
    with socket.socket(socket.AF_UNIX) as it:
        it.bind(f"/proc/self/fd/{folder}/{path.name}")  # a socket's path has 108 bytes
    os.close(folder)
    return "isn't a regular file"


def a_folder(path: Path) -> str:
    path.mkdir()
    return "is a directory"


def loop(path: Path) -> str:
    path.symlink_to(path.name)
    return os.strerror(errno.ELOOP)[0].lower() + os.strerror(errno.ELOOP)[1:]


def too_long(path: Path) -> str:
    path.write_bytes(b"ana@example.org\n" * 1000)
    os.truncate(path, 1 << 40)  # a sparse file
    return f"has over {module.TEXT_LIMIT} bytes"


def utf_16(path: Path) -> str:
    path.write_bytes("ana@example.org\nben@example.org\n".encode("utf-16"))
    return "isn't text"


ODD = [fifo, endless, listening, a_folder, loop, too_long, utf_16]


@pytest.mark.parametrize("odd", ODD, ids=lambda value: value.__name__)
def test_what_is_no_list_is_an_error_and_no_hang(odd: Callable[[Path], str], tmp_path: Path) -> None:
    "In place of each list of each plugin: one log line as in C, with the reason behind it, and the mail goes on."
    lists = ("rcpthosts", "addresslist", "localonly", "unchecked")
    pupil = {"auth_user": "ana@example.org", "rcpt_to": "eva@example.com"}
    cases: list[tuple[str, Plugin, str, Mapping[str, object]]] = [
        ("rcpthosts", rcptchecksfile, "error opening rcpthosts", {"rcpt_to": "ana@example.org"}),
        ("rcpthosts", localmail, "error opening rcpthosts", pupil),
        ("rcpthosts", catalogue()["dotblind"], "error opening rcpthosts", {"rcpt_to": "a.b@example.org"}),
        ("localonly", localmail, "error opening localonly", pupil),
        ("localonly", catalogue()["plusaliases"], "error opening localonly",
         {"rcpt_to": "a+b@example.org", "PLUSALIASESDOMAINS": "localonly"}),
        ("addresslist", rcptchecksfile, "Error opening address list file (addresslist)", {"rcpt_to": "ana@example.org"}),
        ("addresslist", rcptcheckscdb, "Error opening address list file (addresslist)", {"rcpt_to": "ana@example.org"}),
        ("addresslist", senderchecksfile, "Error opening address list file (addresslist)",
         {"mail_from": "ana@example.org"}),
        ("unchecked", senderchecksfile, "Couldn't open whitelist file (unchecked)",
         {"mail_from": "ana@example.com", "SENDERCHK_WLFILE": "unchecked"}),
    ]  # fmt: skip
    for name, plugin, line, values in cases:
        folder = tmp_path / f"{name}-{plugin.name}"
        folder.mkdir()
        for each in lists:
            (folder / each).write_text("example.org\nana@example.org\n")
        (folder / name).unlink()
        reason = odd(folder / name)
        answer, lines = said(plugin, Control(str(folder)), **values)
        assert answer == [], (plugin.name, name)
        assert lines[0].startswith(f"{line}: {reason}"), lines
        assert len(lines) == 1 or name == "unchecked"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read(tmp_path: Path) -> None:
    (tmp_path / "rcpthosts").touch(0)
    lines = said(rcptchecksfile, Control(str(tmp_path)), rcpt_to="ana@example.org")[1]
    assert lines == ["error opening rcpthosts: permission denied"]


def test_the_system_says_permission_denied(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    "The same for root, who is refused nothing."
    (tmp_path / "rcpthosts").touch()

    def denied(path: str, flags: int) -> int:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)

    monkeypatch.setattr(os, "open", denied)
    lines = said(rcptchecksfile, Control(str(tmp_path)), rcpt_to="ana@example.org")[1]
    assert lines == ["error opening rcpthosts: permission denied"]


def test_a_list_in_utf_16_says_so() -> None:
    "Such a `localonly` restricts nobody, which somebody should know."
    pupils = "ana@example.org\r\n".encode("utf-16")
    control = ControlFiles({"rcpthosts": "example.org\n", "localonly": pupils})
    answer, lines = said(localmail, control, auth_user="ana@example.org", rcpt_to="eva@example.com")
    assert answer == [] and len(lines) == 1 and lines[0].startswith("error opening localonly: isn't text")


def test_a_mark_at_the_start_and_blanks() -> None:
    "As editors leave them."
    control = ControlFiles(
        {"rcpthosts": "\ufeffexample.org\r\n", "localonly": "\ufeff\t ana@example.org \t\r\n # x\r\n"}
    )
    answer, lines = said(localmail, control, auth_user="Ana@example.org", rcpt_to="eva@example.com")
    assert answer == [Refuse.as_written("550 You are only allowed to send to local addresses.")]
    assert said(localmail, control, auth_user="ana@example.org", rcpt_to="eva@example.org") == ([], [])
    assert control.entries("localonly") == {"ana@example.org"}


# In memory


def test_a_cdb_in_memory_is_not_looked_for_in_the_current_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "morercpthosts.cdb").write_bytes(cdb("example.net"))
    monkeypatch.chdir(tmp_path)
    control = ControlFiles({"rcpthosts": "", "morercpthosts.cdb": cdb("example.com")})
    assert control.is_ours("example.com") and not control.is_ours("example.net")
    assert not ControlFiles({"rcpthosts": ""}).is_ours("example.net")
    answer, lines = said(rcptcheckscdb, ControlFiles({"rcpthosts": "example.org\n"}), rcpt_to="ana@example.org")
    assert (answer, lines) == ([], [f"Error opening address list file (addresslist): {NO_FILE}"])


@pytest.fixture
def little_memory() -> Iterator[None]:
    "An address space 200 MB larger than it is now, and no more."
    with open("/proc/self/statm", encoding="ascii") as file:
        size = int(file.read().split()[0]) * resource.getpagesize()
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (size + 200_000_000, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_AS, before)


@needs_proc
def test_a_first_line_without_end_is_not_read(tmp_path: Path, little_memory: None) -> None:
    "Of a file of one terabyte."
    too_long(tmp_path / "me")
    assert Control(str(tmp_path)).first_line("me") == "ana@example.org"
    (tmp_path / "me").write_bytes(b"x" * 5000)
    with pytest.raises(OSError, match="has over 4096 bytes in its first line"):
        Control(str(tmp_path)).first_line("me")


@pytest.mark.parametrize("domain", ["a." * 20_000, "." * 40_000, "x" * 256, "a." * 126 + "org"])
def test_a_domain_over_its_bound_is_never_ours(domain: str) -> None:
    "And isn't taken apart: 20,000 labels came to 400 MB of entries."
    control = ControlFiles({"rcpthosts": f"{domain}\n.org\n."})
    assert control.is_ours(domain) == (len(domain) <= 255) and len(module._covering(domain)) <= 128
    with pytest.raises(OSError, match="rcpthosts"):
        ControlFiles({}).is_ours(domain)


@pytest.mark.parametrize("wanted", [b"ana@example.org", None, 5, ["ana@example.org"]])
def test_what_is_no_text_is_no_entry(tmp_path: Path, wanted: Any) -> None:
    "Nor is it silently none: a whitelist that was asked for bytes never had them."
    (tmp_path / "whitelist").write_text("ana@example.org\n")
    for control in (Control(str(tmp_path)), ControlFiles({"whitelist": "ana@example.org\n", "rcpthosts": "example.org\n"})):
        with pytest.raises(TypeError, match="^an entry is text, not "):
            control.has("whitelist", "bob@example.org", wanted)
        with pytest.raises(TypeError, match="^a domain is text, not "):
            control.is_ours(wanted)
        assert control.has("whitelist", "Ana@example.org") and not control.has("whitelist")
