"""CDBs of other people's programs: tinycdb, freecdb and pure-cdb make files in which `rcptcheckscdb` finds the same."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from cdb_files import cdb
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mailserver import Home, Server

from ra_plugins.plugins.rcptcheckscdb import rcptcheckscdb
from ra_plugins.spp.command import Command, Refuse, SetVariable
from ra_plugins.spp.session import sample_session
from ra_plugins.support.control import Control

NO_MAILBOX = [
    SetVariable("WRONGRCPTCOUNT", 1),
    Refuse.as_written("511 sorry, no mailbox here by that name (#5.1.1 - rcptcheckscdb)"),
]


def records(keys: Sequence[bytes]) -> bytes:
    "Keys with empty values, in the form that cdbmake(1) reads."
    return b"".join(b"+%d,0:%b->\n" % (len(key), key) for key in keys) + b"\n"


def by_tinycdb(path: Path, keys: Sequence[bytes]) -> None:
    "`cdb -c`."
    subprocess.run(["cdb", "-c", path], input=records(keys), check=True)


def by_freecdb(path: Path, keys: Sequence[bytes]) -> None:
    "`cdbmake`, as djb's."
    subprocess.run(["cdbmake", path, f"{path}.tmp"], input=records(keys), check=True)


def by_pure_cdb(path: Path, keys: Sequence[bytes]) -> None:
    "The package that we read with."
    path.write_bytes(cdb(*keys))


Make = Callable[[Path, Sequence[bytes]], None]


def peer(make: Make, program: str, package: str) -> object:
    "A maker, to be skipped where its program isn't there."
    missing = shutil.which(program) is None
    return pytest.param(
        make, id=package, marks=pytest.mark.skipif(missing, reason=f"no {program} here: package {package}")
    )


MAKERS = [
    peer(by_tinycdb, "cdb", "tinycdb"),
    peer(by_freecdb, "cdbmake", "freecdb"),
    pytest.param(by_pure_cdb, id="pure-cdb"),
]
with_each_maker = pytest.mark.parametrize("make", MAKERS)


def asked(folder: Path, address: str, **values: object) -> tuple[list[Command], list[str]]:
    "What the plugin answers and logs of a recipient."
    lines: list[str] = []
    return rcptcheckscdb(sample_session(rcpt_to=address, **values), Control(str(folder)), lines.append), lines


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    "A control folder for example.org."
    (tmp_path / "rcpthosts").write_text("example.org\n")
    return tmp_path


@with_each_maker
def test_the_same_answers(make: Make, folder: Path) -> None:
    keys = [
        b"ana@example.org",
        b"caf\xe9@example.org",
        "señor@example.org".encode(),
        b'"a b"@example.org',
        b"a" * 887 + b"@example.org",
    ]
    make(folder / "addresslist", keys)
    for address in (
        "ana@example.org",
        "ANA@Example.org",
        "caf\udce9@example.org",
        "SEÑOR@example.org",
        "A" * 887 + "@example.org",
    ):
        assert asked(folder, address) == ([], [f"Accepted recipient ({address.lower()} number 0 of 10000 )"])
    for address in (
        "anna@example.org",
        "ana@example.or",
        "na@example.org",
        "cafe@example.org",
        "caf\udcc9@example.org",
    ):
        answer, lines = asked(folder, address)
        if address.endswith("example.org"):
            assert (answer, lines) == (NO_MAILBOX, [f"511 sorry, no mailbox here by that name ({address})"])
        else:
            assert answer == []  # not ours


@with_each_maker
def test_an_empty_list_and_a_catch_all(make: Make, folder: Path) -> None:
    make(folder / "addresslist", [])
    assert asked(folder, "ana@example.org")[0] == NO_MAILBOX
    make(folder / "addresslist", [b"@example.org"])
    assert asked(folder, "anybody@Example.org")[0] == []


@with_each_maker
def test_domains(make: Make, folder: Path) -> None:
    "`morercpthosts.cdb`, and a whitelist in a CDB."
    make(folder / "addresslist", [b"ana@example.net"])
    make(folder / "morercpthosts.cdb", [b"example.net", b".dept.example.net"])
    make(folder / "unchecked", [b"lists.example.org"])
    assert asked(folder, "ana@example.net")[0] == []
    assert asked(folder, "zoe@example.net")[0] == asked(folder, "zoe@www.dept.example.net")[0] == NO_MAILBOX
    assert asked(folder, "zoe@dept.example.net")[1] == ["Accepted recipient (zoe@dept.example.net number 0 of 10000 )"]
    answer, lines = asked(folder, "news@lists.example.org", CHKUSER_WLFILE="unchecked")
    assert (answer, lines) == ([], ["Whitelisted recipient (news@lists.example.org number 0 of 10000 )"])


@with_each_maker
def test_a_long_list(make: Make, folder: Path) -> None:
    make(folder / "addresslist", [b"user%d@example.org" % number for number in range(100_000)])
    for number in (0, 1, 49_999, 99_999):
        assert asked(folder, f"user{number}@example.org")[0] == []
    for number in (-1, 100_000, 1_000_000):
        assert asked(folder, f"user{number}@example.org")[0] == NO_MAILBOX


@with_each_maker
def test_a_list_that_was_cut_short(make: Make, folder: Path) -> None:
    "Wherever the file ends, nobody who is listed is refused."
    path = folder / "addresslist"
    make(path, [b"user%d@example.org" % number for number in range(50)])
    whole = path.read_bytes()
    line = "Error opening address list file (addresslist)"
    for length in {*range(0, len(whole), 37), *range(len(whole) - 20, len(whole))}:
        path.write_bytes(whole[:length])
        for number in (0, 25, 49):
            answer, lines = asked(folder, f"user{number}@example.org")
            assert answer == [] and len(lines) == 1 and lines[0].startswith(f"{line}: is"), (length, lines)


@with_each_maker
def test_in_a_session(make: Make, home: Home, serve: Callable[..., Server]) -> None:
    make(home.control / "addresslist", [b"ana@example.org"])
    home.plugins("[rcpt]", "plugins/rcptcheckscdb")
    server = serve()
    said = ["MAIL FROM:<>", "RCPT TO:<Ana@example.org>", "RCPT TO:<anna@example.org>"]
    assert [reply[:3] for reply in server.talk(*said)] == ["250", "250", "511"]
    assert server.said() == [
        "rcptcheckscdb: pid PID - Accepted recipient (ana@example.org number 0 of 10000 )",
        "rcptcheckscdb: pid PID - 511 sorry, no mailbox here by that name (anna@example.org)",
    ]


users = st.binary(min_size=1, max_size=40).filter(
    lambda name: not set(name) & set(b'@"') and min(name) >= 32 and 127 not in name
)


def folded(user: bytes) -> bytes:
    "In lower case, as the keys of a list have to be."
    return user.decode("utf-8", "surrogateescape").lower().encode("utf-8", "surrogateescape")


@pytest.mark.skipif(
    not (shutil.which("cdb") and shutil.which("cdbmake")), reason="no cdb (tinycdb) or no cdbmake (freecdb) here"
)
@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sets(users.map(folded), max_size=30), st.sets(users, max_size=10))
def test_any_names(folder: Path, listed: set[bytes], others: set[bytes]) -> None:
    "Lists of any bytes, asked for all that is in them and for other names."
    keys = sorted(user + b"@example.org" for user in listed)
    for make in (by_tinycdb, by_freecdb, by_pure_cdb):
        make(folder / make.__name__, keys)
        for user in listed | others:
            address = (user + b"@example.org").decode("utf-8", "surrogateescape")
            answer, _ = asked(folder, address, CHKUSER_ADDRFILE=make.__name__)
            assert answer == ([] if folded(user) in listed else NO_MAILBOX), (make, user)


@pytest.mark.skipif(
    not (shutil.which("cdb") and shutil.which("cdbget")), reason="no cdb (tinycdb) or no cdbget (freecdb) here"
)
def test_they_read_what_we_write(folder: Path) -> None:
    "The other way round: the CDBs that our tests and pages make are CDBs to the others."
    path = folder / "addresslist"
    by_pure_cdb(path, [b"user%d@example.org" % number for number in range(1000)])
    for key, status in (("user0@example.org", 0), ("user999@example.org", 0), ("user1000@example.org", 100)):
        assert subprocess.run(["cdb", "-q", path, key], check=False).returncode == status
        with open(path, "rb") as file:
            assert subprocess.run(["cdbget", key], stdin=file, check=False).returncode == status
