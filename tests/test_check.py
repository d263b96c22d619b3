"""`ra-plugins check`: each planted mistake is found, and nothing is said of a set-up that is right."""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import mkdtemp

import pytest
from cdb_files import cdb
from mailserver import COMMAND, ENVIRON, PATIENCE

from ra_plugins.cli.check.command import check_parser
from ra_plugins.cli.demo import SETTINGS, furnish
from ra_plugins.cli.install import install

ME = ("--as", str(os.getuid()))
Said = tuple[int, list[str], str]


@pytest.fixture
def home() -> Iterator[Path]:
    "A qmail home that is all right, in a folder that everybody may pass."
    folder = Path(os.path.realpath(mkdtemp()))
    folder.chmod(0o755)
    (folder / "control").mkdir()
    for name, text in {
        "me": "mail.example.org\n",
        "rcpthosts": "example.org\n.example.org\n",
        "addresslist": "ana@example.org\nben@example.org\n@lists.example.org\n",
    }.items():
        (folder / "control" / name).write_text(text)
    yield folder
    subprocess.run(["rm", "-r", folder], check=True)


def checked(
    home: Path, *arguments: str | Path, environ: dict[str, str] | None = None, status: int | None = None
) -> Said:
    "The exit status, the places of mistakes without their folder, and all that was said."
    done = subprocess.run(
        [*COMMAND, "check", "--control", home / "control", *ME, *arguments],
        env={**ENVIRON, **(environ or {})},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=PATIENCE,
        text=True,
    )
    assert "Traceback" not in done.stdout + done.stderr and done.stderr == "", done.stderr
    places = [line.partition(": ")[0].rpartition("/")[2] for line in done.stdout.splitlines()]
    assert status in (None, done.returncode), done.stdout
    return done.returncode, places, done.stdout


MISTAKES = {  # by place, what the line has to name
    "environment": "CHKUSER_WRONGRCPTLIMT is no setting, .*did you mean CHKUSER_WRONGRCPTLIMIT",
    "tcp.smtp:2": "tcprules doesn't take this line",
    "tcp.smtp:3": "192.168.0.0/16 matches nobody",
    "tcp.smtp:4": "TARPITCOUNT=many should be a whole number",
    "tcp.smtp:5": "RELAYCLIENT is set for everybody",
    "tcp.smtp": "changed since tcp.smtp.cdb was made; tcprules",
    "run:2": "softlimit -m 3000000 is too little",
    "run:3": "CHKUSER_RCPTLIMT is no setting, .*did you mean CHKUSER_RCPTLIMIT",
    "run:4": "RAEXEMPT names tarpet",
    "smtpplugins:1": r"plugins/overload stands before the first section",
    "smtpplugins:2": r"\[RCPT\] is no section",
    "smtpplugins:5": "nothing sets SMTPAUTHUSER .* msa refuses everybody",
    "smtpplugins:6": "there is no .*/plugins/spfcheks, .*did you mean spfchecks",
    "smtpplugins:7": "plugins/tarpit does nothing below .mail.*rcpt",
    "smtpplugins:8": r"\[mial\] is taken for \[mail\]",
    "smtpplugins:11": "plugins/plusaliases stands behind plugins/rcptchecksfile",
    "smtpplugins:12": "mode 0777.* may be changed by everybody",
    "smtpplugins:13": "mode 0644.* can't be run",
    "smtpplugins:14": "-v is part of the program's name",
    "smtpplugins:15": "plugins/greylist runs before access, whose rules let it off",
    "smtpplugins:17": "plugins/greylist stands on line 15 already",
    "smtpplugins:18": r"\[auth\] is no section of netqmail's",
    "access:2": "refuze, and not with one of",
    "rcpthosts": "CR LF",
    "addresslist": "byte order mark",
    "addresslist:2": "neither an address",
    "addresslist:3": "isn't in rcpthosts; did you mean example.org",
    "greylistclients:1": "has bits behind its prefix; 192.0.2.0/24 is the network",
    "greylistsenders": "neither text nor a whole CDB",
}


def test_each_planted_mistake_and_nothing_else(home: Path) -> None:
    "Over two dozen, one line each."
    plugins, control = home / "plugins", home / "control"
    install(
        str(plugins), ["access", "greylist", "msa", "overload", "plusaliases", "rcptchecksfile", "tarpit", "spfchecks"]
    )
    for name, mode in (("open", 0o777), ("shut", 0o644)):
        (plugins / name).write_text("#!/bin/sh\n")
        (plugins / name).chmod(mode)
    (control / "smtpplugins").write_text(
        "plugins/overload\n[RCPT]\nplugins/tarpit\n[mail]\nplugins/msa\nplugins/spfcheks\nplugins/tarpit\n[mial]\n"
        "[rcpt]\nplugins/rcptchecksfile\nplugins/plusaliases\nplugins/open\nplugins/shut\nplugins/tarpit -v\n"
        "plugins/greylist\nplugins/access\nplugins/greylist\n[auth]\n"
    )
    (control / "access").write_text("exempt from greylist client 192.0.2.1\nrefuze everybody\n")
    (control / "rcpthosts").write_bytes(b"example.org\r\n.example.org\r\n")
    (control / "addresslist").write_bytes("ana@example.org\nben @example.org\neva@exmaple.org\n".encode("utf-8-sig"))
    (control / "greylistclients").write_text("192.0.2.1/24\n198.51.100.7\n")
    (control / "greylistsenders").write_bytes("ana@example.net\n".encode("utf-16"))
    rules, run = home / "tcp.smtp", home / "run"
    rules.write_text(
        '127.:allow,RELAYCLIENT=""\n10.0.:alow\n192.168.0.0/16:allow,RELAYCLIENT=""\n'
        '192.0.2.:allow,TARPITCOUNT="many"\n:allow,RELAYCLIENT=""\n'
    )
    (home / "tcp.smtp.cdb").write_text("")
    os.utime(home / "tcp.smtp.cdb", (1, 1))
    run.write_text(
        "#!/bin/sh\nsoftlimit -m 3000000 tcpserver 0 25 qmail-smtpd\nexport CHKUSER_RCPTLIMT=50\nRAEXEMPT=tarpet\n"
    )
    status, places, said = checked(
        home,
        "--rules",
        rules,
        "--run",
        run,
        environ={"CHKUSER_WRONGRCPTLIMT": "5", "TARPITDELAY": "1", "GREYLISTSTORE": f"{home}/greylist.db"},
    )
    assert status == 1 and sorted(places) == sorted(MISTAKES), said
    for place, what in MISTAKES.items():
        (line,) = [line for line in said.splitlines() if re.match(rf"(\S*/)?{re.escape(place)}: ", line)]
        assert re.search(what, line) and "; " in line, (place, what, line)


def test_as_json(home: Path) -> None:
    (home / "control" / "smtpplugins").write_text("[RCPT]\n")
    status, _, said = checked(home, "--json")
    wrong = "[RCPT] is no section of netqmail's, and what is in it never runs"
    file = str(home / "control" / "smtpplugins")
    assert status == 1 and json.loads(said) == [{"file": file, "line": 1, "wrong": wrong, "remedy": "write [rcpt]"}]
    (home / "control" / "smtpplugins").write_text("")
    assert checked(home, "--json") == (0, ["[]"], "[]\n")


def test_a_set_up_without_sections(home: Path) -> None:
    "The folder is there, and the file isn't: qmail-spp puts everybody off."
    assert checked(home)[:2] == (1, ["smtpplugins"]) and "421" in checked(home)[2]


def test_a_folder_named_from_here_and_another_file(home: Path) -> None:
    "As in a trial: the sections have another name, and the folder is a relative path."
    (home / "control" / "smtpplugins").write_text("")
    (home / "control" / "smtpplugins.new").write_text("[RCPT]\n")
    for environ, said in (
        ({}, ""),
        ({"SPPCONFFILE": "control/smtpplugins.new"}, "control/smtpplugins.new:1: [RCPT] is"),
    ):
        done = subprocess.run(
            [*COMMAND, "check", "--control", "control", *ME],
            cwd=home,
            env={**ENVIRON, **environ},
            capture_output=True,
            text=True,
        )
        assert (done.returncode, done.stderr) == (bool(said), "") and done.stdout.startswith(said), done.stdout


def test_what_cannot_be_looked_at(home: Path) -> None:
    for arguments in (
        ("--control", "/nowhere"),
        ("--rules", "/nowhere/tcp.smtp"),
        ("--run", str(home)),
        ("--as", "no body"),
        ("--like", "postfix"),
        ("--loud",),
    ):
        (home / "control" / "smtpplugins").write_text("")
        done = subprocess.run(
            [*COMMAND, "check", "--control", home / "control", *arguments], env=ENVIRON, capture_output=True, text=True
        )
        assert (done.returncode, done.stdout) == (3, ""), arguments
        assert re.fullmatch("ra-plugins check: .+\n", done.stderr), done.stderr


# One mistake at a time


def all_right(home: Path) -> None:
    "The set-up of the guide, to which each of the following does one thing."
    install(str(home / "plugins"), ["ipthrottle", "overload", "plusaliases", "rater", "rcptchecksfile", "tarpit"])
    written(
        home, "[mail]", "plugins/overload", "[rcpt]", "plugins/plusaliases", "plugins/rcptchecksfile", "plugins/tarpit"
    )


def own_program(home: Path, raw: bytes) -> None:
    (home / "plugins" / "mine").write_bytes(raw)
    (home / "plugins" / "mine").chmod(0o755)
    written(home, "[mail]", "plugins/mine")


def replaced(home: Path, make: Callable[[Path], object]) -> None:
    (home / "plugins" / "tarpit").unlink()
    make(home / "plugins" / "tarpit")


def renamed(home: Path) -> None:
    (home / "plugins" / "tarpit").rename(home / "plugins" / "slow")
    written(home, "[rcpt]", "plugins/slow")


def linked(home: Path) -> None:
    (home / "plugins" / "slow").symlink_to("tarpit")
    written(home, "[rcpt]", "plugins/slow")


def without_me(home: Path) -> None:
    (home / "control" / "me").rename(home / "control" / "smtpgreeting")


def piped(home: Path) -> None:
    (home / "control" / "addresslist").unlink()
    os.mkfifo(home / "control" / "addresslist")


def listed(home: Path, text: str) -> None:
    (home / "control" / "addresslist").write_text(text)


ALONE: dict[str, tuple[Callable[[Path], object], str]] = {  # what is done, and the line that is said of it
    "a dangling link": (
        lambda home: replaced(home, lambda path: path.symlink_to("/nowhere/tarpit")),
        r"smtpplugins:6: plugins/tarpit is a link to /nowhere/tarpit, which isn't there, .*install --force HOME/plugins tarpit",
    ),
    "a FIFO": (
        lambda home: replaced(home, os.mkfifo),
        "smtpplugins:6: plugins/tarpit is no file that could be a program",
    ),
    "an interpreter that isn't there": (
        lambda home: own_program(home, b"#!/nowhere/python\n"),
        "smtpplugins:2: there is no /nowhere, and the interpreter should be there",
    ),
    "CR LF in one whose interpreter has an option": (
        lambda home: own_program(home, b"#!/bin/sh -e\r\nexit 0\r\n"),
        "smtpplugins:2: plugins/mine can't do its work, and mail would pass unchecked: the CR .* an option",
    ),
    "CR LF in a program": (
        lambda home: own_program(home, b"#!/bin/sh\r\nexit 0\r\n"),
        "smtpplugins:2: plugins/mine can't be started, and every client is told 451: the CR .*; write lines that end in LF",
    ),
    "no interpreter": (
        lambda home: own_program(home, b"echo N\n"),
        "smtpplugins:2: plugins/mine can't be started, .*doesn't name an interpreter; begin it with #!/bin/sh",
    ),
    "an empty program": (lambda home: own_program(home, b""), "smtpplugins:2: plugins/mine can't be started"),
    "a name without its folder": (
        lambda home: written(home, "[rcpt]", "tarpit"),
        "smtpplugins:2: there is no HOME/tarpit, .*; did you mean plugins/tarpit",
    ),
    "a mistyped folder": (
        lambda home: written(home, "[rcpt]", "plugin/tarpit"),
        "smtpplugins:2: there is no HOME/plugin/tarpit, .*; did you mean plugins/tarpit",
    ),
    "a folder that nobody has made": (
        lambda home: written(home, "[rcpt]", "programs/spfchecks"),
        "smtpplugins:2: there is no HOME/programs/spfchecks, .*; ra-plugins install --create HOME/programs spfchecks",
    ),
    "a heading with a blank in front": (lambda home: written(home, "[mail]", " [rcpt]"), "smtpplugins:2: .*; write"),
    "a heading without brackets": (
        lambda home: written(home, "[mail]", "rcpt:"),
        "smtpplugins:2: there is no HOME/rcpt:, .*; write \\[rcpt\\]",
    ),
    "a client counted twice": (
        lambda home: written(home, "[mail]", "plugins/ipthrottle", "[rcpt]", "plugins/ipthrottle"),
        "smtpplugins:4: plugins/ipthrottle stands on line 2 already, and counts twice",
    ),
    "comments alone": (
        lambda home: listed(home, "# none\n\n"),
        "addresslist: has no entry, so rcptchecksfile knows no mailbox",
    ),
    "brackets": (
        lambda home: listed(home, "<ana@example.org>\n"),
        "addresslist:1: <ana@example.org>: no host's name has > in it",
    ),
    "a star": (lambda home: listed(home, "*@example.org\n"), "addresslist:1: .*; write that"),
    "a star in rcpthosts": (
        lambda home: (home / "control" / "rcpthosts").write_text("example.org\n*.example.org\n.example.org\n"),
        r"rcpthosts:2: \*.example.org: no host's name has \* in it",
    ),
    "a port in rcpthosts": (
        lambda home: (home / "control" / "rcpthosts").write_text("example.org\nexample.net:25\n.example.org\n"),
        "rcpthosts:2: example.net:25: no host's name has : in it",
    ),
    "no name": (
        lambda home: (home / "control" / "me").unlink(),
        "me: there is no such file, and qmail-smtpd tells every client 421",
    ),
    "a name with CR LF": (
        lambda home: (home / "control" / "me").write_bytes(b"mail.example.org\r\n"),
        "me: has lines that end in CR LF",
    ),
    "fifty megabytes": (
        lambda home: listed(home, "ana@example.org\n" * 3_000_000),
        "addresslist: can't be read: has over 33554432 bytes, .*; make it a CDB",
    ),
    "a list that is a FIFO": (
        piped,
        "addresslist: can't be read: .*; make it a file with text in it",
    ),
    "an open home": (lambda home: home.chmod(0o777), "smtpplugins:6: HOME .mode 0777. may be changed by everybody"),
    "an open list": (
        lambda home: (home / "control" / "addresslist").chmod(0o666),
        "addresslist: .mode 0666. may be changed by everybody, and rcptchecksfile with it",
    ),
    "open control files": (
        lambda home: (home / "control").chmod(0o777),
        "HOME/control: .mode 0777. may be changed by everybody, and what runs, rcptchecksfile and qmail-smtpd with it",
    ),
}


@pytest.mark.parametrize("name", ALONE)
def test_one_line_for_one_mistake(home: Path, name: str) -> None:
    all_right(home)
    ALONE[name][0](home)
    status, _, said = checked(home)
    assert status == 1 and len(said.splitlines()) == 1, said
    line = ALONE[name][1].replace("HOME", re.escape(str(home)))
    assert re.match(line if line.startswith("/") else rf"\S*/{line}", said), said


FINE: dict[str, Callable[[Path], object]] = {
    "a program under another name": renamed,
    "a link": linked,
    "rater twice": lambda home: written(home, "[connection]", "plugins/rater", "[mail]", "plugins/rater"),
    "a program of somebody else's": lambda home: own_program(home, b"#! /bin/sh -e\nexit 0\n"),
    "one that is no script": lambda home: own_program(home, Path("/bin/true").read_bytes()),
    "another greeting": without_me,
    "a CDB larger than a text may be": lambda home: (home / "control" / "addresslist").write_bytes(
        cdb("ana@example.org") + bytes(40_000_000)
    ),
    "lines with CR LF": lambda home: (home / "control" / "addresslist").write_bytes(
        b"ana@example.org\r\n@example.org\r\n"
    ),
    "odd local parts": lambda home: listed(
        home, 'o\'brien@example.org\na*b@example.org\n"a b"@example.org\nj\u00f6rg@example.org\n'
    ),
}


@pytest.mark.parametrize("name", FINE)
def test_no_line_for_what_is_unusual(home: Path, name: str) -> None:
    all_right(home)
    FINE[name](home)
    assert checked(home) == (0, [], "")


@pytest.mark.parametrize(
    ("rules", "said"),
    [
        ("127.:allow\n192.0.2.7 deny\n:allow\n", "2: tcprules passes over a line without a colon"),
        (" 127.:allow\n:allow\n", "1: ' 127.' matches nobody, since the blank is part of the address; take it out"),
        (
            "localhost:deny\n",
            "1: localhost matches nobody, since a host's name has = in front; write =mail.example.net",
        ),
        ("10.:allow\n:allow\n10.:deny\n", "3: 10. has a rule on line 1 already, and tcpserver goes by the first"),
        (":allow\r\n", "1: tcprules doesn't take this line, and without it takes none; write lines that end in LF"),
        ("# x\n \t\n # y\n127.:allow\n=:allow\nana@192.0.2.1:deny\n10.1-2.:deny\n:allow", ""),
    ],
)
def test_rules_as_tcprules_reads_them(home: Path, rules: str, said: str) -> None:
    all_right(home)
    (home / "rules").write_bytes(rules.encode())
    out = checked(home, "--rules", home / "rules")[2]
    assert len(out.splitlines()) == bool(said) and out.startswith(f"{home}/rules:{said}" if said else ""), out


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ("ulimit -v 4000\nexec tcpserver 0 25 qmail-smtpd\n", "1: ulimit -v 4000 is too little for plugins"),
        ("ulimit -Sv 100000; ulimit -c 0\nexec tcpserver 0 25 qmail-smtpd\n", ""),
        ("NOSPP=1\nexport NOSPP\n", "1: NOSPP is set, so no plugin runs"),
    ],
)
def test_a_run_script(home: Path, script: str, said: str) -> None:
    all_right(home)
    (home / "run").write_text(script)
    out = checked(home, "--run", home / "run")[2]
    assert len(out.splitlines()) == bool(said) and out.startswith(f"{home}/run:{said}" if said else ""), out


def test_where_greylist_and_checkback_can_keep_nothing(home: Path) -> None:
    install(str(home / "plugins"), ["checkback", "greylist"])
    written(home, "[mail]", "plugins/checkback", "[rcpt]", "plugins/greylist")
    folder = home / "kept"
    settings = {"GREYLISTSTORE": f"{folder}/greylist.db", "CHECKBACK_CACHE": f"{folder}/checkback.db"}
    status, places, said = checked(home, environ=settings)
    assert (status, places) == (1, ["smtpplugins:2", "smtpplugins:4"])
    for line in said.splitlines():
        assert "and there is no such folder; install -d -o " in line and line.endswith(f" -m 700 {folder}")
    folder.mkdir()
    assert checked(home, environ=settings) == (0, [], "")
    folder.rmdir()
    assert checked(home, environ={**settings, "GREYLISTSTORE": "redis://127.0.0.1/0"})[1] == ["smtpplugins:2"]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root looks as somebody else")
def test_as_another_user_one_line_for_each_closed_door(home: Path) -> None:
    all_right(home)
    for mode, path, place in (
        (0o644, home / "plugins" / "tarpit", f"{home}/control/smtpplugins:6"),
        (0o700, home / "plugins", f"{home}/control/smtpplugins:6"),
        (0o600, home / "control" / "addresslist", f"{home}/control/addresslist"),
    ):
        before = path.stat().st_mode
        path.chmod(mode)
        done = subprocess.run(
            [*COMMAND, "check", "--control", home / "control", "--as", "64011"],
            env=ENVIRON,
            capture_output=True,
            text=True,
        )
        path.chmod(before)
        about = [line for line in done.stdout.splitlines() if str(path) in line or "tarpit" in line]
        assert len(about) == 1 and about[0].startswith(f"{place}: ") and "64011" in about[0], done.stdout


# Set-ups that are right


def written(home: Path, *lines: str) -> None:
    (home / "control" / "smtpplugins").write_text("".join(f"{line}\n" for line in lines))


def of_the_demonstration(home: Path) -> list[str]:
    "The one of `ra-plugins demo`, with its settings, as scripts: its service doesn't run here."
    demo = home / "demo"
    demo.mkdir()
    furnish(demo)
    install(str(demo / "plugins"), log=lambda line: None)
    return ["--control", str(demo / "control")]


def of_the_guide(home: Path) -> list[str]:
    "On a qmail server, with the guide's rules."
    install(str(home / "plugins"), ["overload", "plusaliases", "rcptchecksfile", "tarpit"])
    written(
        home, "[mail]", "plugins/overload", "[rcpt]", "plugins/plusaliases", "plugins/rcptchecksfile", "plugins/tarpit"
    )
    (home / "tcp.smtp").write_text(
        '192.168.:allow,RELAYCLIENT="",TARPITCOUNT="0"\n192.168.0.7:allow,RELAYCLIENT="",NOSPP=""\n'
    )
    (home / "run").write_text(
        "#!/bin/sh\nexport TARPITCOUNT=20 TARPITDELAY=N\nexec softlimit -m 100000000 tcpserver 0 25 x\n"
    )
    return ["--rules", str(home / "tcp.smtp"), "--run", str(home / "run")]


def of_a_submission_port(home: Path) -> list[str]:
    "sagredo's, with msa, and switched on in the run script."
    install(str(home / "plugins"), ["authlogger", "localmail", "msa", "ownsender", "userthrottle"])
    written(home, "[auth]", "plugins/authlogger", "[mail]", "plugins/msa", "plugins/ownsender", "plugins/userthrottle",
            "[rcpt]", "plugins/localmail", "[pass]", ':echo "Hello $SMTPRCPTTO" >&2')  # fmt: skip
    (home / "tcp.smtp").write_text(":allow\n")
    (home / "run").write_text("#!/bin/sh\nENABLE_SPP=1 exec tcpserver -x /etc/tcp.smtp.cdb 0 587 qmail-smtpd x true\n")
    return ["--like", "sagredo", "--rules", str(home / "tcp.smtp"), "--run", str(home / "run")]


def of_netqmail_that_sets_the_user(home: Path) -> list[str]:
    "netqmail with a patch that does, as the program itself shows."
    install(str(home / "plugins"), ["msa", "overload"])
    (home / "bin").mkdir()
    (home / "bin" / "qmail-smtpd").write_bytes(b"\x7fELF 250-AUTH LOGIN PLAIN\0control/smtpplugins\0SMTPAUTHUSER\0")
    written(home, "[mail]", "plugins/msa", "plugins/overload")
    return []


def of_everything(home: Path) -> list[str]:
    "Every plugin where it belongs, with lists, comments and programs of others."
    install(str(home / "plugins"))
    written(
        home, "# all of them", "",
        "[connection]", ":ACCESSSTAGE=connection plugins/access", "plugins/ipthrottle",
        "[mail]", ":ACCESSSTAGE=mail plugins/access", "plugins/rdnschecks", "plugins/mfdnschecks", "plugins/rblchecks",
        "plugins/senderchecks", "plugins/checkback", ':test -n "$RELAYCLIENT" || echo N',
        "[rcpt]", ":ACCESSSTAGE=rcpt plugins/access", "plugins/plusaliases", "plugins/dotblind", "plugins/rcptcheckscdb",
        "plugins/spfchecks", "plugins/greylist", "plugins/tarpit", "plugins/rater", "/bin/true",
    )  # fmt: skip
    files = {
        "access": "exempt from greylist client 192.0.2.0/24\nrefuse sender @example.com say no\nallow name .example.net\n",
        "greylistclients": "# known\n192.0.2.0/24\n2001:db8::/32\n203.0.113.9\n",
        "greylistsenders": "@example.net\nana@\n<>\n",
        "spfforwarders": "198.51.100.7\n",
        "badmailfrom": "offers@example.com\n@example.com\n",
    }
    for name, text in files.items():
        (home / "control" / name).write_text(text)
    (home / "control" / "addresslist").write_bytes(cdb("ana@example.org"))
    kept = f"GREYLISTSTORE={home}/greylist.db CHECKBACK_CACHE={home}/checkback.db"
    (home / "run").write_text(
        f"{kept} SPFFORWARDERS=spfforwarders RBLSERVERS=bl.example.net tcpserver 0 25 qmail-smtpd\n"
    )
    return ["--run", str(home / "run")]


@pytest.mark.parametrize(
    "made", [of_the_demonstration, of_the_guide, of_a_submission_port, of_netqmail_that_sets_the_user, of_everything]
)
def test_nothing_is_said_of_what_is_right(home: Path, made: Callable[[Path], list[str]]) -> None:
    settings = SETTINGS if made is of_the_demonstration else {}
    assert checked(home, *made(home), environ=settings) == (0, [], "")


# AUTH without SMTPAUTHUSER


@pytest.mark.parametrize(
    ("smtpd", "run", "found"),
    [
        (b"", "", []),  # a server where nobody logs in
        (b"250-AUTH LOGIN\0", "", ["smtpplugins:2"]),
        (b"", "exec tcpserver 0 25 qmail-smtpd mail.example.org /bin/checkpassword /bin/true\n", ["smtpplugins:2"]),
        (b"250-AUTH LOGIN\0SMTPAUTHUSER\0", "", []),
    ],
)
def test_overload_where_auth_sets_no_user(home: Path, smtpd: bytes, run: str, found: list[str]) -> None:
    "It turns away those who have logged in, and only then is there anything wrong with it."
    install(str(home / "plugins"), ["overload"])
    written(home, "[mail]", "plugins/overload")
    if smtpd:
        (home / "bin").mkdir()
        (home / "bin" / "qmail-smtpd").write_bytes(smtpd)
    (home / "run").write_text(run)
    status, places, said = checked(home, "--run", home / "run")
    assert places == found and status == bool(found), said
    assert not found or "overload turns away those who have logged in" in said


def test_msa_with_each_build(home: Path) -> None:
    install(str(home / "plugins"), ["msa"])
    written(home, "[mail]", "plugins/msa")
    assert [checked(home, "--like", like)[0] for like in ("netqmail", "gentoo", "sagredo")] == [1, 0, 0]


# The service


def test_a_section_of_the_service(home: Path) -> None:
    "What stands in atplugins is judged as if it stood in smtpplugins."
    socket = home / "socket"
    install(
        str(home / "plugins"), ["plusaliases", "rcptchecksfile", "tarpit"], service=str(socket), log=lambda line: None
    )
    written(home, "[rcpt]", "plugins/at-rcpt")
    served = home / "control" / "atplugins"
    served.write_text("[rcpt]\nplugins/rcptchecksfile\nplugins/plusaliases\nplugins/tarpet\n[mail]\nplugins/tarpit\n")
    _, places, said = checked(home, "--socket", socket)
    assert sorted(places) == ["atplugins:3", "atplugins:4", "atplugins:5", "socket"], said
    settings = home / "settings"
    settings.write_text("# ours\nDNSTIMEOUT=5\nTARPITCOUNT=3\nDNSSERVER=127.0.0.1\n")
    served.write_text("[rcpt]\nplugins/plusaliases\nplugins/rcptchecksfile\nplugins/tarpit\n")
    _, places, said = checked(home, "--socket", socket, "--settings", settings)
    assert sorted(places) == ["settings:3", "settings:4", "socket"], said
    settings.write_text("# ours\nDNSTIMEOUT 5\n")
    _, _, said = checked(home, "--socket", socket, "--settings", settings)
    wrong = "line 2: a setting is NAME=VALUE, in plain text; mend that, or the service doesn't start"
    assert f"{settings}: {wrong}" in said.splitlines()


def test_a_service_that_runs(home: Path) -> None:
    socket = home / "socket"
    install(str(home / "plugins"), ["tarpit"], service=str(socket), log=lambda line: None)
    written(home, "[rcpt]", "plugins/tarpit")
    user = ["--user", "root"] if os.geteuid() == 0 else []
    caller = subprocess.check_output(["id", "-un"], text=True).strip()
    command = [*COMMAND, "service", "--socket", str(socket), "--caller", caller, *user]
    with subprocess.Popen(command, env=ENVIRON, stderr=subprocess.PIPE, text=True) as service:
        try:
            assert service.stderr and "ready" in service.stderr.readline()
            assert checked(home, "--socket", socket) == (0, [], "")
        finally:
            service.terminate()
    assert checked(home, "--socket", socket)[1] == ["socket"]


def test_the_options_tell_of_all_that_can_be_looked_at() -> None:
    told = check_parser().format_help()
    assert all(option in told for option in ("--control", "--as", "--like", "--rules", "--run", "--home", "--json"))


# Postfix


def test_a_postfix_server(home: Path) -> None:
    "No smtpplugins there, and none is missed: postfixplugins is looked at, beside the other or alone."
    (home / "control" / "postfixplugins").write_text("[rcpt]\nspfcheck\n[mail]\nplusaliases\nrblchecks\nRBLSERVRES=bl.example\n")
    alone = checked(home, status=1)
    assert alone[1] == ["postfixplugins:2", "postfixplugins:4", "postfixplugins:4", "postfixplugins:6"]
    for words in ("there is no plugin spfcheck", "can't; Postfix does that itself", "no plugin here has a setting RBLSERVRES"):
        assert words in alone[2]
    (home / "control" / "smtpplugins").write_text("")
    assert checked(home, status=1)[2] == alone[2]
    (home / "control" / "postfixplugins").write_text("BOUNCELEVEL=foo\n[mail]\nspfchecks\nSPFTIMEOUT=-1\n")
    values = checked(home, status=1)
    assert values[1] == ["postfixplugins:1", "postfixplugins:4"]
    assert "BOUNCELEVEL=foo should be a whole number from -1 to 5; mend it, or take it out\n" in values[2]
    (home / "control" / "postfixplugins").write_bytes("[mail]\nspfchecks\n".encode("utf-16"))
    assert "this isn't UTF-8, but UTF-16 as some editors save it; save it as UTF-8" in checked(home, status=1)[2]
    (home / "control" / "postfixplugins").write_text("[mail]\nrblchecks\nRBLSERVERS=bl.example\n")
    assert checked(home) == (0, [], "")
