"""`ra-plugins install` looks as the user that qmail-smtpd runs as: closed doors, and those that stand too wide open."""

from __future__ import annotations

import os
import resource
import shutil
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import mkdtemp

import pytest
from mailserver import COMMAND, ENVIRON, PATIENCE, Home, Server

import ra_plugins
from ra_plugins.cli import looks
from ra_plugins.cli.install import install
from ra_plugins.cli.looks import User, look, smtpd_user
from ra_plugins.hosts.script import LOOK_OPTION, executable
from ra_plugins.plugins.msa import msa
from ra_plugins.support.command_line import Fault

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
SYSTEM = Path("/usr/bin/python3")  # one that everybody may run
HAS_SYSTEM = SYSTEM.exists() and (
    subprocess.run([SYSTEM, "-c", "import sys; sys.exit(sys.version_info < (3, 11))"]).returncode == 0
)
with_system = pytest.mark.skipif(not HAS_SYSTEM, reason="no Python from 3.11 on in /usr/bin")
STRANGER = User("stranger", 64011, (64010,))


@pytest.fixture
def place() -> Iterator[Path]:
    "A folder that everybody can reach, unlike those of pytest, with a copy of the package."
    folder = Path(os.path.realpath(mkdtemp()))
    folder.chmod(0o755)
    import cdblib

    for source in (ra_plugins.__file__, cdblib.__file__):
        package = Path(str(source)).parent
        target = folder / "lib" / package.name
        shutil.copytree(package, target, ignore=shutil.ignore_patterns("__pycache__"))
    for path in (folder / "lib", *(folder / "lib").rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def written(place: Path) -> Callable[..., str]:
    "Writes the program of msa, for a Python and a folder to import from."

    def write(python: str | Path = SYSTEM, folder: Path = place / "lib", name: str = "msa") -> str:
        program = place / name
        program.write_text(executable(msa, python=str(python), path=(str(folder),)))
        program.chmod(0o755)
        return str(program)

    return write


@pytest.fixture
def command(place: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    "`ra-plugins` of the copy, under a Python and a umask."

    def run(
        *arguments: str | Path, python: str | Path = SYSTEM, umask: int = 0o022
    ) -> subprocess.CompletedProcess[str]:
        script = "import sys; from ra_plugins.cli.command import main; sys.exit(main())"
        return subprocess.run(
            [python, "-c", script, *arguments],
            env={"PATH": os.defpath, "PYTHONPATH": f"{place}/lib"},
            cwd="/",
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            umask=umask,
        )

    return run


# As that user, for real


@as_root
@with_system
def test_all_is_well(written: Callable[..., str]) -> None:
    assert look([written()], STRANGER) == []


@as_root
@with_system
@pytest.mark.parametrize("umask", [0o022, 0o077])
def test_what_install_makes_is_open_whatever_the_umask(
    command: Callable[..., subprocess.CompletedProcess[str]], place: Path, umask: int
) -> None:
    "Folder, programs and bytecode, those made anew and those of before."
    subprocess.run([SYSTEM, "-m", "compileall", "-q", place / "lib" / "ra_plugins" / "cli"], umask=0o077, check=True)
    done = command("install", "--create", "--user", "64011", place / "new" / "plugins", umask=umask)
    assert done.returncode == 0
    assert not [line for line in done.stderr.splitlines() if ": pip install 'ra-plugins[" not in line]  # extras aren't here
    made = [place / "new", *(place / "new").rglob("*"), *(place / "lib" / "ra_plugins").rglob("__pycache__")]
    assert {stat.S_IMODE(path.stat().st_mode) for path in made} == {0o755}
    bytecode = list((place / "lib" / "ra_plugins").rglob("*.pyc"))
    assert len(bytecode) > 100 and {stat.S_IMODE(path.stat().st_mode) for path in bytecode} == {0o644}


@as_root
@with_system
def test_a_package_of_umask_077(command: Callable[..., subprocess.CompletedProcess[str]], place: Path) -> None:
    package = place / "lib" / "ra_plugins"
    package.chmod(0o700)
    done = command("install", "--create", "--user", "64011", place / "plugins", "msa")
    assert done.returncode == 3 and done.stdout == f"{place}/plugins/msa\n"
    closed, effect = done.stderr.splitlines()
    assert closed.startswith(f"ra-plugins: {package} (mode 0700) can't be listed by user 64011")
    assert effect.startswith("ra-plugins: as user 64011, msa doesn't come up, so mail would pass unchecked: ")
    assert "No module named 'ra_plugins" in effect or "Permission denied" in effect
    package.chmod(0o755)
    (package / "ask" / "resolver.py").chmod(0o600)  # imported when a plugin asks, and not before
    done = command("install", "--create", "--user", "64011", place / "plugins", "msa")
    assert done.returncode == 3
    assert f"{package}/ask/resolver.py (mode 0600) can't be read by user 64011: chmod a+r" in done.stderr


@as_root
@with_system
def test_a_python_below_a_private_folder(command: Callable[..., subprocess.CompletedProcess[str]], place: Path) -> None:
    "A virtual environment below a folder like /root."
    private = place / "private"
    subprocess.run([SYSTEM, "-m", "venv", "--without-pip", private / "env"], check=True)
    python = private / "env/bin/python"
    private.chmod(0o700)
    done = command("install", "--create", "--user", "64011", place / "plugins", "msa", "tarpit", python=python)
    assert done.returncode == 3
    closed, effect = done.stderr.splitlines()
    assert closed.startswith(f"ra-plugins: {private} (mode 0700) is closed to user 64011, and the interpreter in it: ")
    assert effect == (
        "ra-plugins: as user 64011, msa and tarpit can't be started (Permission denied), "
        "so qmail-smtpd would tell every client 451"
    )
    private.chmod(0o711)
    done = command("install", "--create", "--user", "64011", place / "plugins", "msa", "tarpit", python=python)
    assert (done.returncode, done.stderr) == (0, "")


@as_root
@with_system
def test_an_interpreter_that_has_gone(written: Callable[..., str], place: Path) -> None:
    missing, effect = look([written(place / "gone" / "python3")], STRANGER)
    assert missing.startswith(f"there is no {place}/gone, and the interpreter should be there")
    assert "can't be started (No such file or directory), so qmail-smtpd would tell every client 451" in effect


@as_root
@with_system
def test_a_first_line_that_is_longer_than_the_kernel_reads(written: Callable[..., str], place: Path) -> None:
    "The shell hands over, and a closed door on the way to that interpreter is still told."
    deep = place / ("d" * 120) / "a folder"
    deep.mkdir(parents=True)
    (deep / "python3").symlink_to(SYSTEM)
    program = written(deep / "python3")
    assert Path(program).read_text().startswith("#!/bin/sh\n")
    assert look([program], STRANGER) == []
    deep.chmod(0o700)
    closed, effect = look([program], STRANGER)
    assert closed.startswith(f"{deep} (mode 0700) is closed to stranger, and the interpreter in it")
    assert "so mail would pass unchecked" in effect  # the shell ends with 126, which isn't qmail-smtpd's 120


@as_root
@with_system
def test_a_file_system_that_runs_no_programs(written: Callable[..., str], place: Path) -> None:
    (place / "programs").mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "noexec,mode=755", "none", place / "programs"]).returncode:
        pytest.skip("no file system can be mounted here")
    try:
        said, effect = look([written(name="programs/msa")], STRANGER)
    finally:
        subprocess.run(["umount", place / "programs"], check=True)
    assert said.startswith(f"{place}/programs/msa is on a file system that runs no programs")
    assert "can't be started (Permission denied)" in effect


@as_root
@with_system
def test_rights_are_given_back(written: Callable[..., str]) -> None:
    before = os.getresuid(), os.getresgid(), os.getgroups()
    look([written()], STRANGER)
    assert (os.getresuid(), os.getresgid(), os.getgroups()) == before


@as_root
@with_system
def test_scripts_behind_clients_are_looked_at(written: Callable[..., str], place: Path) -> None:
    "A client that isn't a script of ours isn't started: that would have it ask its service."
    (place / "scripts").mkdir()
    script = Path(written(name="scripts/msa"))
    client = place / "msa"
    client.write_text(f"#!/bin/sh\ntouch {place}/started\n")
    client.chmod(0o755)
    assert look([str(client)], STRANGER) == []
    script.chmod(0o700)
    said, effect = look([str(client)], STRANGER)
    assert said.startswith(f"{script} (mode 0700) can't be run by stranger") and "can't be started" in effect
    assert not (place / "started").exists()


# Who may write


@as_root
@with_system
def test_what_others_may_change(written: Callable[..., str], place: Path) -> None:
    program = written()
    for path, what in (
        (place / "lib" / "ra_plugins" / "plugins" / "msa.py", "the module ra_plugins"),
        (place / "lib", "the module ra_plugins and the module cdblib"),
        (place / "msa", "the program msa"),
    ):
        before = path.stat().st_mode
        path.chmod(before | stat.S_IWOTH)
        (said,) = look([program], STRANGER)
        assert said.startswith(f"{path} (mode ") and f"may be changed by everybody, and {what} with it" in said
        path.chmod(before)
    place.chmod(0o1777)  # others add what they like, and remove nothing of ours
    assert look([program], STRANGER) == []
    (place / "lib").chmod(0o1777)  # but they can add what Python imports
    assert len(look([program], STRANGER)) == 1


@as_root
@with_system
def test_what_the_user_itself_may_change(written: Callable[..., str], place: Path) -> None:
    program = written()
    os.chown(place / "lib", STRANGER.uid, 0)
    (said,) = look([program], STRANGER)
    assert said.startswith(f"{place}/lib may be changed by stranger (mode 0755, of user 64011)")
    os.chown(place / "lib", 0, STRANGER.groups[0])
    assert look([program], STRANGER) == []
    (place / "lib").chmod(0o775)
    assert len(look([program], STRANGER)) == 1


def test_a_plugin_of_your_own(place: Path) -> None:
    "Its file, and the folder that it is imported from. Looked at by modes, as somebody would who isn't root."
    mine = place / "mine" / "looked_at.py"
    mine.parent.mkdir()
    mine.parent.chmod(0o755)
    mine.write_text("from ra_plugins.spp.plugin import plugin\n\n\n@plugin('rcpt')\ndef looked_at():\n    'Mine.'\n")
    (program,) = install(str(place / "plugins"), [str(mine)], log=lambda line: None)
    user = User("stranger", 64011, (64010,))

    def said() -> list[str]:
        found = looks.flaws(looks.needs([program]), user, lambda path, wanted: looks.may(user, path, wanted))
        return [line.replace(str(place), "…") for line in looks.sentences(found, user) if f"{place}/mine" in line]

    mine.chmod(0o644)
    assert said() == []
    mine.chmod(0o600)
    assert said() == ["…/mine/looked_at.py (mode 0600) can't be read by stranger: chmod a+r"]
    mine.chmod(0o644)
    for mode, wrong in ((0o777, "may be changed by everybody"), (0o700, "can't be listed by stranger")):
        mine.parent.chmod(mode)
        (line,) = said()
        assert line.startswith(f"…/mine (mode {mode:04o}) {wrong}")
    mine.parent.chmod(0o755)
    sys.modules.pop("looked_at")


# Who looks


def test_users() -> None:
    assert smtpd_user().name in ("qmaild", "nobody", "somebody else")
    assert smtpd_user("0").uid == 0 and smtpd_user("3999999999") == User("user 3999999999", 3999999999, (3999999999,))


@pytest.mark.parametrize("name", ["qmialed", "99999999999", "4294967295", "-1", "a\x1bb", "a\0b"])
def test_a_user_that_is_not_there(name: str, tmp_path: Path) -> None:
    "Said before anything is written."
    with pytest.raises(Fault, match="there is no user") as fault:
        smtpd_user(name)
    assert str(fault.value).isprintable()
    if "\0" not in name:
        line = [*COMMAND, "install", "--create", f"--user={name}", str(tmp_path / "plugins"), "msa"]
        done = subprocess.run(line, env=ENVIRON, capture_output=True, text=True)
        assert done.returncode == 3 and "there is no user" in done.stderr and not (tmp_path / "plugins").exists()


@as_root
@with_system
def test_without_root_modes_are_looked_at(place: Path) -> None:
    "And that this was all is said; for oneself, programs are started."
    script = "import sys; from ra_plugins.cli.command import main; sys.exit(main())"

    def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [SYSTEM, "-c", script, "install", *arguments],
            env={"PATH": os.defpath, "PYTHONPATH": f"{place}/lib"},
            capture_output=True,
            text=True,
            cwd="/",
            user=64012,
            group=64012,
            extra_groups=[],
        )

    note = "ra-plugins: note: only root can start programs as user 64011"
    (place / "theirs").mkdir()
    os.chown(place / "theirs", 64012, 64012)
    done = run("--create", "--user", "64011", place / "theirs" / "plugins", "msa")
    assert done.returncode == 0 and done.stderr.startswith(note) and len(done.stderr.splitlines()) == 1
    (place / "theirs").chmod(0o700)
    done = run("--user", "64011", place / "theirs" / "plugins", "msa")
    assert done.returncode == 3 and f"{place}/theirs (mode 0700) is closed to user 64011" in done.stderr
    done = run("--user", "64012", place / "theirs" / "plugins", "msa")
    assert (done.returncode, done.stderr) == (0, "")


# That it has no effect


def test_every_program_can_be_looked_at_without_an_effect(installed: Path) -> None:
    "It says its name, logs nothing and decides nothing, whatever is in its environment."
    for program in sorted(installed.iterdir()):
        done = subprocess.run(
            [program, LOOK_OPTION], env={"SMTPAUTHUSER": ""}, capture_output=True, text=True, timeout=PATIENCE
        )
        assert (done.returncode, done.stdout, done.stderr) == (0, f"{program.name}\n", "")


def test_a_program_that_never_comes_up(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(looks, "START_SECONDS", 0.2)
    program = place / "endless"
    program.write_text(f'#!/bin/sh\nexec sleep {PATIENCE}\n#["{LOOK_OPTION}"]\n')
    program.chmod(0o755)
    assert (
        looks.start(str(program), smtpd_user(str(os.geteuid())))
        == "isn't ready after 0.2 seconds, so clients would wait"
    )
    program.write_text("#!/bin/sh\nkill -9 $$\n")
    assert looks.start(str(program), smtpd_user(str(os.geteuid()))).startswith(
        "dies by signal 9, so qmail-smtpd would tell"
    )


def test_help_says_the_exit_status() -> None:
    script = "import sys; from ra_plugins.cli.command import main; sys.exit(main())"
    done = subprocess.run(
        [sys.executable, "-c", script, "install", "--help"], env=ENVIRON, capture_output=True, text=True
    )
    said = " ".join(done.stdout.split())
    assert "--user NAME" in said and "Exit status: 0 all is well; 3 they couldn't be installed" in said


# Memory, as softlimit(8) limits it


def softlimit(megabytes: int) -> Callable[[], None]:
    "As `softlimit -m`: data, stack, locked pages and all."

    def limit() -> None:
        for which in (resource.RLIMIT_DATA, resource.RLIMIT_STACK, resource.RLIMIT_MEMLOCK, resource.RLIMIT_AS):
            hard = resource.getrlimit(which)[1]
            wanted = megabytes * 10**6
            resource.setrlimit(which, (wanted if hard == resource.RLIM_INFINITY else min(wanted, hard), hard))

    return limit


def test_every_plugin_works_with_100_megabytes(installed: Path) -> None:
    "The limit of the stack is that of all memory then, and a thread would ask for all of it."
    environ = {"TCPREMOTEIP": "192.0.2.1", "CONTROLDIR": "/nowhere", "RATER": "/nowhere/rater"}
    environ |= {"DNSSERVERS": "127.0.0.1#9", "DNSTIMEOUT": "1"}
    for program in sorted(installed.iterdir()):
        done = subprocess.run(
            [program], env=environ, capture_output=True, text=True, preexec_fn=softlimit(100), timeout=PATIENCE
        )
        assert done.returncode == 0, done.stderr
        assert "Traceback" not in done.stderr and "so the mail goes on" not in done.stderr
        assert "last bound" not in done.stderr


def _is_one_large_program() -> bool:
    "As Debian has it, without a shared library of its own."
    linked = subprocess.run(["ldd", SYSTEM.resolve()], capture_output=True, text=True).stdout
    return "libpython" not in linked and SYSTEM.resolve().stat().st_size > 5 * 10**6


@with_system
@pytest.mark.skipif(not (HAS_SYSTEM and _is_one_large_program()), reason="/usr/bin/python3 isn't one large program")
@pytest.mark.parametrize("megabytes", [3, 6])
def test_too_little_memory_for_python_puts_every_client_off(
    place: Path, written: Callable[..., str], home: Home, megabytes: int
) -> None:
    "Python is ended by a signal while it starts, and qmail-smtpd then answers 451, here as in the guide."
    program = written()
    assert subprocess.run([program], env={}, capture_output=True, preexec_fn=softlimit(megabytes)).returncode < 0
    home.plugins("[mail]", f":ulimit -v {megabytes * 1000}; exec {program}")
    server = Server(home)
    assert any(line.startswith("451 qmail-spp failure") for line in server.transcript("EHLO x", "MAIL FROM:<>"))
    server.stop()
