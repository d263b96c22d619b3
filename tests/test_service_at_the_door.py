"""Starting the service as an administrator does, and getting it wrong: folders, settings, `atplugins`, what is packaged.

As root, most of it; what only root can set up is skipped for others.
"""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from mailserver import PATIENCE, ROOT, until
from service_process import SESSION, Service, remove, short_folder

from ra_plugins.cli.check.service import check_service
from ra_plugins.cli.check.setup import SetUp
from ra_plugins.cli.install import install
from ra_plugins.cli.listing import page
from ra_plugins.hosts.catalogue import catalogue
from ra_plugins.hosts.service.status import STATUS_ENDING
from ra_plugins.hosts.settings import read_settings
from ra_plugins.support.command_line import Fault
from ra_plugins.support.listening import UnixListener, folder_fault

NOBODY, STRANGER = 65534, 12345  # users' numbers
CAPABLE = [  # of reading, where Python is in root's home
    *("setpriv", "--securebits=+no_setuid_fixup", "--bounding-set=-dac_override"),
    *("--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search"),
]
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can be somebody else")


@pytest.fixture
def folder() -> Iterator[Path]:
    "A folder of few bytes, that everybody may pass."
    found = short_folder()
    found.chmod(0o755)
    yield found
    remove(found)


def sockets(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir() if path.is_socket()}


def failed(folder: Path, *options: str) -> list[str]:
    "What a service that can't start has logged."
    running = Service(folder, *options)
    running.launch()
    assert running.process and running.process.wait(PATIENCE) == 3
    return running.lines()


# Folders


@as_root
@pytest.mark.parametrize("owner", ["root", "nobody"])
def test_root_starts_it_for_another_user(folder: Path, owner: str) -> None:
    "In root's folder, or in that user's, from which both sockets are gone at the end."
    if owner == "nobody":
        os.chown(folder, NOBODY, -1)
    running = Service(folder, "--user", "nobody", before=CAPABLE)
    running.start()
    assert sockets(folder) == {"socket", f"socket{STATUS_ENDING}"}
    assert {(folder / name).stat().st_uid for name in sockets(folder)} == {NOBODY}
    assert Path(f"/proc/{running.pid}").stat().st_uid == NOBODY
    assert running.ask("msa")
    assert running.end() == 0
    assert sockets(folder) == (set() if owner == "nobody" else {"socket", f"socket{STATUS_ENDING}"})
    assert "nobody can ask" not in running.log.read_text()


@as_root
def test_the_folder_of_a_third_user_is_none(folder: Path) -> None:
    os.chown(folder, STRANGER, -1)
    (line,) = failed(folder, "--user", "nobody")
    assert "belongs to another user (number 12345)" in line


@as_root
@pytest.mark.parametrize("owner", [0, NOBODY])
@pytest.mark.parametrize("options", [("--caller", "nonesuch"), ("--settings", "/nowhere")], ids=lambda options: options[0])
def test_a_start_that_fails_leaves_no_socket(folder: Path, owner: int, options: tuple[str, ...]) -> None:
    os.chown(folder, owner, -1)
    failed(folder, *options, "--user", "nobody" if owner else "root")
    assert sockets(folder) == set()


@as_root
def test_the_owner_of_the_folder_cannot_lead_root_elsewhere(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    "A link in the socket's place, at the worst moment."
    secret, path, chmod = folder / "secret", folder / "run" / "socket", os.chmod
    secret.write_text("")
    secret.chmod(0o600)
    path.parent.mkdir()
    os.chown(path.parent, NOBODY, -1)

    def swap(name: str, mode: int) -> None:
        path.unlink()
        path.symlink_to(secret)
        chmod(name, mode)

    monkeypatch.setattr(os, "chmod", swap)
    with pytest.raises(Fault, match="Operation not permitted"):
        UnixListener(str(path), 0o666, owner=NOBODY)
    assert secret.stat().st_mode & 0o777 == 0o600 and path.is_symlink()
    assert os.geteuid() == 0 and os.getegid() == 0


@as_root
def test_a_socket_in_its_users_folder_is_for_the_group_as_well(folder: Path) -> None:
    "Of which that user need be no member."
    os.chown(folder, NOBODY, -1)
    groups = os.getgroups()
    listener = UnixListener(str(folder / "socket"), 0o660, owner=NOBODY, group=54321)
    state = (folder / "socket").stat()
    assert (state.st_uid, state.st_gid, state.st_mode & 0o777) == (NOBODY, 54321, 0o660)
    listener.remove()
    assert sockets(folder) == set() and os.getgroups() == groups


@as_root
@pytest.mark.parametrize("links", [["there"], ["there", "again"]])
def test_a_strangers_link_in_a_sticky_folder(folder: Path, links: list[str]) -> None:
    shared, target = folder / "shared", folder / "run"
    target.mkdir()
    shared.mkdir()
    shared.chmod(0o1777)
    for name in links:
        (shared / name).symlink_to(target)
        target = shared / name
    assert folder_fault(str(target)) == ""
    os.lchown(shared / links[0], STRANGER, -1)
    assert folder_fault(str(target)).startswith(f"{shared}/{links[0]} belongs to another user (number 12345), ")
    assert folder_fault(str(target), STRANGER) == ""
    shared.chmod(0o755)
    assert folder_fault(str(target)) == ""  # a link can't be changed, and replaced by root alone


def test_a_folder_that_is_named_from_here(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    (folder / "run").mkdir()
    (folder / "link").symlink_to("run")
    for path in ("socket", "./run/socket", "link/../socket"):
        UnixListener(path).remove()
        assert not os.path.lexists(path)
    (folder / "round").symlink_to("round")
    with pytest.raises(Fault):
        UnixListener("round/socket")


# Settings


def test_a_password_in_a_line_that_is_wrong_is_not_told(folder: Path) -> None:
    (folder / "settings").write_text("DNSTIMEOUT=5\nsecret word\n")
    (line,) = failed(folder, "--settings", str(folder / "settings"))
    assert line == f"ra-plugins service: {folder}/settings, line 2: a setting is NAME=VALUE, in plain text"
    (folder / "control" / "smtpplugins").write_text("")
    (mistake,) = check_service(SetUp(str(folder / "control"), {}), str(folder / "socket"), str(folder / "settings"))
    assert "line 2" in str(mistake) and "secret" not in str(mistake)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"A=1\nB=\0\n", "settings, line 2: a setting is NAME=VALUE, in plain text"),
        (b"A=1\n\0\n", "settings, line 2: a setting is NAME=VALUE, in plain text"),
        (None, "settings: isn't a regular file"),
    ],
    ids=["NUL", "a line of NUL", "FIFO"],
)
def test_a_settings_file_that_is_none(folder: Path, content: bytes | None, reason: str) -> None:
    "At the start, and at SIGHUP, where the workers stay."
    settings = folder / "settings"

    def spoil() -> None:
        settings.unlink(missing_ok=True)
        os.mkfifo(settings) if content is None else settings.write_bytes(content)

    spoil()
    (line,) = failed(folder, "--settings", str(settings))
    assert line.endswith(reason)
    settings.unlink()
    settings.write_text("")
    with Service(folder, "--settings", str(settings)) as running:
        spoil()
        os.kill(running.pid, signal.SIGHUP)
        until(lambda: f"{reason}; the workers stay" in running.log.read_text(), "it has looked")
        assert running.ask("msa")


def test_settings_as_editors_save_them(folder: Path) -> None:
    "With a byte order mark, with CR, without a last LF; and what Python takes for the end of a line may be in a value."
    (folder / "settings").write_bytes(b"\xef\xbb\xbfA=1\r\n# B=2\r\nC=\xe2\x80\xa8x\x0cy=z\xff")
    assert read_settings(str(folder / "settings")) == {"A": "1", "C": "\u2028x\x0cy=z\udcff"}


# Sections that run nothing

NO_SECTION = {
    "empty": "",
    "CR only": "[rcpt]\rplugins/dotblind\r",
    "indented": " [rcpt]\nplugins/dotblind\n",
    "capitals": "[RCPT]\nplugins/dotblind\n",
    "no heading": "plugins/dotblind\n",
    "another": "[mail]\nplugins/msa\n",
    "missing": None,
    "dangling": None,
}
UNCHECKED = "atplugins has no plugins for [rcpt], so the mail goes on unchecked"


@pytest.fixture(scope="module")
def section() -> Iterator[tuple[Service, Path]]:
    "A service, and a folder with the scripts that stand in for it."
    place = short_folder()
    names = ["plusaliases", "dotblind", "msa", "rcptchecksfile"]
    install(str(place / "plugins"), names, service=str(place / "socket"), log=lambda line: None)
    with Service(place) as running:
        yield running, place / "plugins" / "scripts"
    remove(place)


def answers(section: tuple[Service, Path], **environ: str) -> list[tuple[bytes, list[str]]]:
    "What at-rcpt says and logs: by the service, by the script."
    running, scripts = section
    reply = running.ask("at-rcpt", **environ)
    assert reply
    done = subprocess.run(
        [scripts / "at-rcpt"],
        env={**SESSION, "CONTROLDIR": str(running.control), **environ},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=True,
        timeout=PATIENCE,
    )
    return [(reply.output, reply.log), (done.stdout, done.stderr.decode().splitlines())]


@pytest.mark.parametrize("case", NO_SECTION)
def test_a_section_that_runs_nothing_is_told_of(section: tuple[Service, Path], case: str) -> None:
    path, text = section[0].control / "atplugins", NO_SECTION[case]
    path.unlink(missing_ok=True)
    if text is not None:
        path.write_bytes(text.encode())
    elif case == "dangling":
        path.symlink_to("nowhere")
    reason = ": no such file or directory" if text is None else ""
    for output, log in answers(section):
        assert (output, log) == (b"", [f"at-rcpt: pid {os.getpid()} - {UNCHECKED}{reason}"])


def test_a_section_that_is_meant_to_be_empty_is_not(section: tuple[Service, Path]) -> None:
    path = section[0].control / "atplugins"
    path.unlink(missing_ok=True)
    path.write_text("[mail]\nmsa\n[rcpt] \n# plugins/dotblind\n")
    assert answers(section) == [(b"", []), (b"", [])]


def test_script_and_service_tell_of_missing_plugins_alike(section: tuple[Service, Path]) -> None:
    "In the same words, when it is their turn, and not at all behind a refusal."
    running, _ = section
    (running.control / "atplugins").unlink(missing_ok=True)
    (running.control / "atplugins").write_text("[rcpt]\nplusaliases\nnonesuch\nrcptchecksfile\nneverseen\n")
    (running.control / "addresslist").write_text("ana@example.org\n")
    by_service, by_script = answers(section, SMTPRCPTTO="ben+tea@example.org")
    assert by_service == by_script
    output, log = by_service
    assert output.startswith(b"Cben@example.org\n") and b"\nE511 " in output and len(log) == 3
    assert log[1] == f"at-rcpt: pid {os.getpid()} - there is no plugin nonesuch, so the mail goes on without it"


# Files that a session names


def outside(running: Service, name: str, **environ: str) -> list[str]:
    reply = running.ask(name, **environ)
    assert reply
    return [line.partition(" - ")[2] for line in reply.log if "outside" in line]


def test_only_the_plugins_that_read_a_file_complain_of_it(section: tuple[Service, Path]) -> None:
    running, _ = section
    (running.control / "atplugins").unlink(missing_ok=True)
    (running.control / "atplugins").write_text("[rcpt]\nplusaliases\ndotblind\nrcptchecksfile\n")
    files = {"DOTBLINDDOMAINS": "/etc/passwd", "ACCESSFILE": "/etc/passwd"}
    told = f"DOTBLINDDOMAINS names a file outside {running.control}; not read"
    assert outside(running, "msa", **files) == []
    assert outside(running, "dotblind", **files) == [told]
    assert outside(running, "at-rcpt", **files) == [told]


@pytest.mark.parametrize("given", ["link", "relative"])
def test_the_same_file_by_another_path_is_inside(folder: Path, given: str) -> None:
    (folder / "control").mkdir()
    (folder / "control" / "mine").write_text("example.org\n")
    (folder / "control" / "out").symlink_to("/etc")
    (folder / "link").symlink_to("control")
    environ = {"CONTROLDIR": str(folder / "link") if given == "link" else os.path.relpath(folder / "control")}
    running = Service(folder)
    running.environ.update(environ)
    with running:
        for path in ("mine", "./mine", "../control/mine", str(folder / "control" / "mine"), str(folder / "link" / "mine")):
            assert outside(running, "dotblind", DOTBLINDDOMAINS=path) == [], path
        for path in ("../mine", "out/../etc/passwd", "/etc/passwd", str(folder), str(folder / "control")):
            assert len(outside(running, "dotblind", DOTBLINDDOMAINS=path)) == 1, path


def test_show_says_what_a_service_reads() -> None:
    found = catalogue()
    assert page(found["dotblind"]).endswith(
        "A service reads files among the control files alone: CHKUSER_ADDRFILE, DOTBLINDDOMAINS can't name others there."
    )
    assert "A service" not in page(found["msa"])
    assert "with a service in its own settings" in page(found["rblchecks"])


# What is packaged


@pytest.mark.parametrize("name", ["daemontools", "service/daemontools"])
@pytest.mark.parametrize("logger", ["multilog", "svlogd"])
def test_a_copy_of_the_log_service_makes_its_folder(tmp_path: Path, name: str, logger: str) -> None:
    "With daemontools, or with runit, which stand-ins take the place of."
    tools, log = tmp_path / "bin", tmp_path / "log"
    tools.mkdir()
    log.mkdir()
    runner = {"multilog": "setuidgid", "svlogd": "chpst"}[logger]
    shift = {"multilog": "shift", "svlogd": "shift; shift"}[logger]
    for tool, text in {
        runner: f'test "$1" = -u || test {logger} = multilog; {shift}; exec "$@"',
        "chown": f"echo chown $@ >> {shlex.quote(str(tmp_path))}/done",
        logger: f"test -d main && echo {logger} >> {shlex.quote(str(tmp_path))}/done",
        "mkdir": 'exec /bin/mkdir "$@"',
    }.items():
        (tools / tool).write_text(f"#!/bin/sh\n{text}\n")
        (tools / tool).chmod(0o755)
    (log / "run").write_bytes((ROOT / "packaging" / name / "log" / "run").read_bytes())
    for _ in range(2):  # the second time, the folder is there
        subprocess.run(["/bin/sh", "./run"], cwd=log, env={"PATH": str(tools)}, check=True, timeout=PATIENCE)
    user = "qmaill" if name.startswith("service") else "raterlog"
    assert (tmp_path / "done").read_text() == f"chown {user} main\n{logger}\n" * 2


@as_root
@pytest.mark.parametrize("script", ["daemontools/run", "s6/run"])
def test_the_scripts_make_a_folder_of_the_services_user(script: str) -> None:
    text = (ROOT / "packaging" / "service" / script).read_text()
    assert os.access(ROOT / "packaging" / "service" / script, os.X_OK)
    assert "install -d -o ra-plugins -m 755 /run/ra-plugins" in text and "mkdir" not in text


def test_the_guide_copies_two_units_and_not_the_settings() -> None:
    guide = (ROOT / "nbs" / "guides" / "service.ipynb").read_text()
    assert "cp ra-plugins.service ra-plugins.socket /etc/systemd/system/" in guide
    assert "ra-plugins.s*" not in guide
