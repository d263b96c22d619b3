"rater as a process: what clients, the operator, Prometheus and signals get from it."

from __future__ import annotations

import json
import os
import pty
import pwd
import re
import resource
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from urllib.request import urlopen

import pytest
from mailserver import ENVIRON, PATIENCE, ROOT, until
from rater_server import everything
from servers import free_port
from test_rater_config import C_RATER

from ra_plugins import __version__
from ra_plugins.rater.client import QUESTION_LIMIT
from ra_plugins.rater.config import load_config
from ra_plugins.rater.control import AT_ONCE

RATER = [sys.executable, "-c", "import sys; from ra_plugins.rater.daemon import main; sys.exit(main())"]
RATERCTL = [sys.executable, "-c", "import sys; from ra_plugins.rater.control import main; sys.exit(main())"]
LOG_LINE = re.compile(r"(fatal|error|warning|info|debug): .+")
PLACES = "port = 0\ncontrol_port = 0\n"
LIMIT = '[[limits.ip]]\nlimit = "2 in 1h"\n'


class Daemon:
    "A rater with a configuration file of its own, on free ports."

    def __init__(self, folder: Path, config: str, prepare: Callable[[], None] | None = None, **environ: str):
        self.config = folder / "config"
        self.config.write_text(config)
        self.process = subprocess.Popen(
            [*RATER, "--config", self.config],
            env={**ENVIRON, **environ},
            stderr=subprocess.PIPE,
            text=True,
            preexec_fn=prepare,  # noqa: PLW1509 (no threads)
        )
        self.ports: dict[str, int] = {}
        self.started: list[str] = []
        while not self.started or not self.started[-1].startswith("info: marks: "):
            self.started.append(self.line())
            if found := re.fullmatch(r"info: (.+?): \S+ port (\d+)", self.started[-1]):
                self.ports[found[1]] = int(found[2])

    def line(self) -> str:
        "The next line of the log on standard error."
        assert self.process.stderr
        line = self.process.stderr.readline().rstrip("\n")
        assert LOG_LINE.fullmatch(line) and line.isprintable(), line
        return line

    def connect(self, what: str = "questions") -> socket.socket:
        "A connection."
        return socket.create_connection(("127.0.0.1", self.ports[what]), PATIENCE)

    def ask(self, data: bytes, what: str = "questions") -> bytes:
        "Send bytes, and get what comes until the daemon closes."
        with self.connect(what) as connection:
            connection.sendall(data)
            connection.shutdown(socket.SHUT_WR)
            return everything(connection)

    def reread(self, config: str) -> None:
        "Give it another configuration."
        self.config.write_text(config)
        self.process.send_signal(signal.SIGHUP)

    def ctl(self, *words: str) -> tuple[int, str, str]:
        "What raterctl says to these words: its status, standard output and standard error."
        command = [*RATERCTL, "--port", str(self.ports["control port"]), *words]
        done = subprocess.run(command, env=ENVIRON, capture_output=True, text=True, timeout=PATIENCE)
        return done.returncode, done.stdout, done.stderr

    def stop(self, number: int = signal.SIGTERM) -> tuple[int, list[str]]:
        "End it with a signal: its status, and what it still had to say."
        self.process.send_signal(number)
        _, rest = self.process.communicate(timeout=PATIENCE)
        return self.process.returncode, rest.splitlines()


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Daemon]]:
    "Starts raters. They have to end well, and their log to be log lines."
    with ExitStack() as daemons:

        def begin(
            config: str = f"[settings]\n{PLACES}{LIMIT}", prepare: Callable[[], None] | None = None, **environ: str
        ) -> Daemon:
            daemon = Daemon(tmp_path, config, prepare, **environ)
            daemons.callback(end, daemon)
            return daemon

        yield begin


def end(daemon: Daemon) -> None:
    "Stop a rater that still runs."
    if daemon.process.poll() is None:
        status, rest = daemon.stop()
        assert status == 0 and all(LOG_LINE.fullmatch(line) and line.isprintable() for line in rest), rest
    if daemon.process.stderr:
        daemon.process.stderr.close()


def rater(*arguments: str | Path, folder: Path | None = None) -> tuple[int, str, str]:
    "What `rater` says that ends at once: its status, standard output and standard error."
    done = subprocess.run(
        [*RATER, *arguments], env=ENVIRON, cwd=folder, capture_output=True, text=True, timeout=PATIENCE
    )
    assert "Traceback" not in done.stderr
    return done.returncode, done.stdout, done.stderr


# Questions


def test_the_protocol_with_the_c_raters_configuration(start: Callable[..., Daemon]) -> None:
    config = C_RATER.decode().replace("port: 1999", "port: 0").replace("control_port: 4445", "control_port: 0")
    daemon = start(config)
    assert daemon.started[:2] == [
        f"warning: {daemon.config}:3: {name} has no effect: a mark is kept for as long as a window needs it"
        for name in ("expiration_timer", "max_age")
    ]
    for question, answer in (
        (b"ip 10.0.0.4\n", b"0 1/20\r\n"),
        (b"ip 10.0.0.4\r\n", b"0 2/20\r\n"),
        (b"ip 192.0.2.1\n", b"0 1/1\r\n"),
        (b"ip 192.0.2.1\n", b"1 2/1\r\n"),
        (b"user rosario\n", b"0 1/20\r\n"),
        (b"user 192.0.2.1\n", b"0 1/2\r\n"),
        (b"user Ana  Maria\n", b"0 1/2\r\n"),
        (b"user Ana  Maria\r\n", b"0 2/2\r\n"),
        (b"user Ana  Maria \n", b"0 1/2\r\n"),
        (b"user \n", b"0 1/2\r\n"),
        (b"user caf\xe9\n", b"0 1/2\r\n"),
        (b"hello\n", b"2 Bad Input (no space)\r\n"),
        (b"\n", b"2 Bad Input (no space)\r\n"),
        (b"colour red\n", b"2 Class not found: colour\r\n"),
        (b"ip 192.0.2.9\nip 192.0.2.9\n", b"0 1/1\r\n"),
        (b"user " + b"x" * (QUESTION_LIMIT - 5) + b"\n", b"0 1/2\r\n"),
        (b"user " + b"x" * (QUESTION_LIMIT - 4) + b"\n", b"2 Line too long\r\n"),
        (b"x" * 1_000_000, b"2 Line too long\r\n"),
    ):
        assert daemon.ask(question) == answer, question


def test_a_question_that_is_cut_short_is_none(start: Callable[..., Daemon]) -> None:
    daemon = start()
    with daemon.connect() as connection:
        connection.sendall(b"ip 192.0.2.1")
        connection.shutdown(socket.SHUT_WR)
        assert everything(connection) == b"2 Cut short: a question ends with a newline\r\n"
    assert daemon.ask(b"ip 192.0.2.1\n") == b"0 1/2\r\n"
    assert (
        daemon.ask(b"-keep ip 192.0.2.1\nip 192") == b"0 2/2\r\n" + b"2 Cut short: a question ends with a newline\r\n"
    )
    assert daemon.ask(b"") == b""
    assert daemon.ask(b"near\nnear", "control port").splitlines()[-2] == b"error: a command ends with a newline"


def test_by_hand_with_netcat(start: Callable[..., Daemon]) -> None:
    if not shutil.which("nc"):
        pytest.skip("nc isn't installed")
    daemon = start()
    command = f"printf 'ip 10.0.0.4\\n' | nc 127.0.0.1 {daemon.ports['questions']}"
    assert subprocess.run(command, shell=True, capture_output=True, timeout=PATIENCE).stdout == b"0 1/2\r\n"  # noqa: S602


def test_many_questions_on_a_connection(start: Callable[..., Daemon]) -> None:
    daemon = start()
    with daemon.connect() as connection:
        connection.sendall(b"-keep ip a\n-keep ip a\n-keep -peek ip a\n-keep -weight=5 ip a\nnonsense\n")
        file = connection.makefile("rb")
        answers = [file.readline() for _ in range(5)]
        assert answers == [b"0 1/2\r\n", b"0 2/2\r\n", b"0 2/2\r\n", b"1 7/2\r\n", b"2 Bad Input (no space)\r\n"]
        file.close()


def test_which_limit_it_is_and_when_to_come_again(start: Callable[..., Daemon]) -> None:
    limits = LIMIT.replace('"2 in 1h"', '["5 in 1m", "2 in 1h"]')
    daemon = start(f"[settings]\n{PLACES}metrics_port = 0\n{limits}[[limits.ip6]]\nexempt = true\n")
    assert daemon.ask(b"-more ip 192.0.2.1\n") == b"0 1/2 3600 0\r\n"
    assert daemon.ask(b"-more -peek ip 192.0.2.2\n") == b"0 0/5 60 0\r\n"
    assert daemon.ask(b"-more ip6 x\n") == b"0 0/0 0 0\r\n"
    assert daemon.ask(b"-weight=2 ip 192.0.2.1\n") == b"1 3/2\r\n"
    found = re.fullmatch(rb"1 3/2 3600 (\d+)\r\n", daemon.ask(b"-peek -more ip 192.0.2.1\n"))
    assert found and 3500 < int(found[1]) <= 3600
    assert daemon.ask(b"-weight=3 -more ip 192.0.2.1\n") == b"1 6/2 3600 -\r\n"  # three are never within
    assert daemon.ask(b"-more colour red\n") == b"2 Class not found: colour\r\n"
    assert daemon.line() == "info: ip 192.0.2.1 is over its limit of 2 in 1h: 3/2"
    assert daemon.ctl("near")[1] == "ip 192.0.2.1 6/2 in 1h over\n"
    with urlopen(f"http://127.0.0.1:{daemon.ports['metrics']}/metrics", timeout=PATIENCE) as page:
        assert 'rater_over_total{class="ip",limit="2 in 1h"} 3.0' in page.read().decode()


def test_unix_socket(start: Callable[..., Daemon], tmp_path: Path) -> None:
    path = tmp_path / "socket"
    with socket.socket(socket.AF_UNIX) as left_behind:
        left_behind.bind(str(path))
    config = f'[settings]\n{PLACES}socket = "{path}"\n{LIMIT}'
    daemon = start(config)
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(str(path))
        connection.sendall(b"ip 192.0.2.1\n")
        assert everything(connection) == b"0 1/2\r\n"
    assert daemon.ask(b"ip 192.0.2.1\n") == b"0 2/2\r\n"
    status, _, errors = rater(daemon.config)
    assert status == 3 and errors.endswith(f"\nrater: somebody listens on {path} already\n")
    daemon.stop()
    assert not path.exists()


def test_a_unix_socket_alone(start: Callable[..., Daemon], tmp_path: Path) -> None:
    daemon = start(f'[settings]\nport = false\ncontrol_port = false\nsocket = "{tmp_path}/socket"\n{LIMIT}')
    assert daemon.started == [f"info: questions: {tmp_path}/socket", "info: marks: in memory, gone when rater ends"]


def test_a_connection_has_its_time(start: Callable[..., Daemon]) -> None:
    daemon = start(f"[settings]\n{PLACES}timeout = 1\n{LIMIT}")
    with daemon.connect() as connection:
        connection.sendall(b"ip ")
        assert everything(connection) == b"2 Cut short: a question ends with a newline\r\n"
    assert "1 dropped" in daemon.ctl("status")[1]


@pytest.mark.skipif(not hasattr(resource, "prlimit"), reason="only Linux tells what another process may open")
def test_as_many_files_as_connections(start: Callable[..., Daemon]) -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    daemon = start(prepare=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (128, hard)))
    soft, _ = resource.prlimit(daemon.process.pid, resource.RLIMIT_NOFILE)
    assert soft > 10_000 or soft == hard


def test_fewer_files_than_connections(start: Callable[..., Daemon]) -> None:
    daemon = start(prepare=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (128, 256)))
    expected = "warning: only 192 connections are possible: the system allows 256 open files (ulimit -n)"
    assert expected in daemon.started
    silent = [daemon.connect("questions") for _ in range(300)]  # more than that
    for client in silent:
        client.sendall(b"i")
    assert daemon.ask(b"ip 192.0.2.1\n") == b"0 1/2\r\n"
    assert re.search("connections: 19[0-2] open", daemon.ctl("status")[1])
    for client in silent:
        client.close()


def test_idle_connections_to_the_metrics_take_no_files_from_clients(start: Callable[..., Daemon]) -> None:
    config = f"[settings]\n{PLACES}metrics_port = 0\ntimeout = 1\n{LIMIT}"
    daemon = start(config, prepare=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (128, 128)))
    silent = [daemon.connect("metrics") for _ in range(200)]
    for client in silent:
        client.sendall(b"GET /metr")
    assert daemon.ask(b"ip 192.0.2.1\n") == b"0 1/2\r\n"
    with daemon.connect("metrics") as connection:
        connection.sendall(b"GET /metrics HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        head, _, body = everything(connection).partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200 OK\r\n") and b"rater_connections " in body
    with silent[-1]:  # it has had its time, too
        assert everything(silent[-1]).startswith(b"HTTP/1.1 400 ")
    for client in silent:
        client.close()


def test_a_rater_that_ends_leaves_its_successors_sockets(start: Callable[..., Daemon], tmp_path: Path) -> None:
    paths = [tmp_path / "questions", tmp_path / "operator"]
    config = (
        f'[settings]\nport = false\ncontrol_port = false\nsocket = "{paths[0]}"\ncontrol_socket = "{paths[1]}"\n{LIMIT}'
    )
    first = start(config)
    for path in paths:
        path.unlink()
    start(config)
    first.stop()
    for path in paths:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(str(path))


def test_modes_and_groups_of_unix_sockets(start: Callable[..., Daemon], tmp_path: Path) -> None:
    group = os.getgrouplist(pwd.getpwuid(os.getuid()).pw_name, os.getgid())[-1]
    settings = (
        *("port = false", "control_port = false", f'socket = "{tmp_path}/questions"', 'socket_mode = "0660"'),
        *(f'control_socket = "{tmp_path}/operator"', f'control_group = "{group}"', f'control_owner = "{os.getuid()}"'),
    )
    config = "\n".join(["[settings]", *settings, LIMIT])
    daemon = start(config)
    questions, operator = (tmp_path / "questions").stat(), (tmp_path / "operator").stat()
    assert (questions.st_mode & 0o777, operator.st_mode & 0o777, operator.st_gid) == (0o660, 0o600, group)
    daemon.stop()
    for path in (tmp_path / "questions", tmp_path / "operator"):
        assert not path.exists()
    (tmp_path / "config").write_text(config.replace(f'"{group}"', '"no-such-group"'))
    _, _, errors = rater(tmp_path / "config")
    assert errors.endswith("rater: there is no user or group no-such-group on this machine\n")
    tmp_path.chmod(0o777)
    (tmp_path / "config").write_text(config)
    _, _, errors = rater(tmp_path / "config")
    assert "may be written to by others, who could put another socket there" in errors
    assert [path.name for path in tmp_path.iterdir()] == ["config"]


# Signals


def test_marks_are_kept_when_the_configuration_is_read_again(start: Callable[..., Daemon]) -> None:
    daemon = start()
    for answer in (b"0 1/2\r\n", b"0 2/2\r\n", b"1 3/2\r\n"):
        assert daemon.ask(b"ip 192.0.2.1\n") == answer
    assert daemon.line() == "info: ip 192.0.2.1 is over its limit of 2 in 1h: 3/2"
    more = '[[limits.user]]\nlimit = "1 in 1h"\n'
    daemon.reread(f"[settings]\n{PLACES}max_age = 1\n" + LIMIT.replace("2 in 1h", "9 in 1h") + more)
    assert daemon.line() == f"info: read again: {daemon.config}"
    assert "max_age has no effect" in daemon.line()
    assert daemon.ask(b"ip 192.0.2.1\n") == b"0 4/9\r\n"
    assert daemon.ask(b"user ana\n") == b"0 1/1\r\n"


@pytest.mark.parametrize(
    "config, message",
    [
        (LIMIT.replace("1h", "1 hour"), "2: '2 in 1 hour' should be a count and a time, .*"),
        ("[settings", r"1: Expected .*"),
        ('[settings]\nlog = "/nowhere/log"', "can't use /nowhere/log: No such file or directory"),
    ],
)
def test_a_wrong_configuration_is_refused_as_a_whole(start: Callable[..., Daemon], config: str, message: str) -> None:
    daemon = start()
    daemon.reread(config + '\n[[limits.user]]\nlimit = "1 in 1h"\n')
    assert re.fullmatch(f"error: .*{message}", daemon.line())
    assert daemon.line() == "error: refused: what was read before stays"
    assert daemon.ask(b"ip 192.0.2.1\n") == b"0 1/2\r\n"
    assert daemon.ask(b"user ana\n") == b"2 Class not found: user\r\n"


def test_what_holds_from_the_next_start_on_is_said_each_time(start: Callable[..., Daemon]) -> None:
    daemon = start()
    for _ in range(2):
        daemon.reread(f'[settings]\nport = 1\nstore = "sqlite:marks.db"\nlog_level = 2\n{LIMIT}')
        assert daemon.line() == "warning: port, store, control_port: changed, which holds from the next start on"
    assert daemon.ask(b"ip 192.0.2.1\n") == b"0 1/2\r\n"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_what_was_asked_is_answered_before_the_end(start: Callable[..., Daemon], number: int) -> None:
    "It is stopped while fifty clients ask, so that the signal that ends it finds all of their questions waiting."
    daemon = start()
    os.kill(daemon.process.pid, signal.SIGSTOP)
    with ExitStack() as clients:
        connections = [clients.enter_context(daemon.connect()) for _ in range(50)]
        for index, connection in enumerate(connections):
            connection.sendall(b"ip %d\n" % index)
        daemon.process.send_signal(number)
        os.kill(daemon.process.pid, signal.SIGCONT)
        assert [everything(connection) for connection in connections] == [b"0 1/2\r\n"] * 50
    _, rest = daemon.process.communicate(timeout=PATIENCE)
    assert (daemon.process.returncode, rest) == (0, "info: told to end\n")


@pytest.mark.parametrize("abstract", [False, True])
def test_systemd_is_told_when_it_is_ready(start: Callable[..., Daemon], tmp_path: Path, abstract: bool) -> None:
    if abstract and sys.platform != "linux":
        pytest.skip("only Linux has sockets without a file")
    name = f"{tmp_path}/notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as messages:
        messages.settimeout(PATIENCE)
        messages.bind(f"\0{name}" if abstract else name)
        start(NOTIFY_SOCKET=f"@{name}" if abstract else name)
        assert messages.recv(100) == b"READY=1"


# The log


def test_a_log_file_can_be_moved_away(start: Callable[..., Daemon], tmp_path: Path) -> None:
    path, moved = tmp_path / "log", tmp_path / "log.1"
    config = f'[settings]\n{PLACES}log = "{path}"\n{LIMIT}'
    (tmp_path / "rater.toml").write_text(config)
    process = subprocess.Popen([*RATER, tmp_path / "rater.toml"], env=ENVIRON, stderr=subprocess.PIPE)
    until(lambda: path.exists() and "marks" in path.read_text(), "it has started")
    assert re.match(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} info: questions: ", path.read_text())
    path.rename(moved)
    process.send_signal(signal.SIGHUP)
    until(lambda: path.exists() and "read again" in path.read_text(), "it has opened another log")
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=PATIENCE)
    assert (process.returncode, errors) == (0, b"")
    assert "told to end" in path.read_text() and "told to end" not in moved.read_text()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full")
def test_a_log_that_cannot_be_written_stops_nothing(start: Callable[..., Daemon], tmp_path: Path) -> None:
    path = tmp_path / "socket"
    (tmp_path / "rater.toml").write_text(f'[settings]\n{PLACES}log = "/dev/full"\nsocket = "{path}"\n{LIMIT}')
    process = subprocess.Popen([*RATER, tmp_path / "rater.toml"], env=ENVIRON, stderr=subprocess.PIPE)
    until(path.exists, "it has started")
    with socket.socket(socket.AF_UNIX) as connection:
        until(lambda: connection.connect_ex(str(path)) == 0, "it listens")
        connection.sendall(b"ip 192.0.2.1\n")
        assert everything(connection) == b"0 1/2\r\n"
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=PATIENCE)
    assert (process.returncode, errors) == (0, b"")


def test_questions_in_the_log_at_level_4(start: Callable[..., Daemon]) -> None:
    daemon = start(f"[settings]\n{PLACES}log_level = 4\n{LIMIT}")
    daemon.ask(b"ip \x1b[2J\xff\n")
    assert daemon.line() == r"debug: ip \x1b[2J\xff: 0 1/2"
    daemon.ask(b"hello\n")
    assert daemon.line() == "debug: no question: 2 Bad Input (no space)"


def test_nothing_but_errors_in_the_log_at_level_1(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    (tmp_path / "rater.toml").write_text(f'[settings]\n{PLACES}log_level = 1\nmax_age = 9\nsocket = "{path}"\n{LIMIT}')
    process = subprocess.Popen([*RATER, tmp_path / "rater.toml"], env=ENVIRON, stderr=subprocess.PIPE)
    until(path.exists, "it has started")
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=PATIENCE)
    assert (process.returncode, errors) == (0, b"")


# Stores


@pytest.mark.parametrize("setting", ['store = "sqlite:{}"', 'db_path = "{}"'])
def test_marks_outlive_the_process(start: Callable[..., Daemon], tmp_path: Path, setting: str) -> None:
    config = f"[settings]\n{PLACES}{setting.format(tmp_path / 'marks.db')}\n{LIMIT}"
    for answer in (b"0 1/2\r\n", b"0 2/2\r\n", b"1 3/2\r\n"):
        daemon = start(config)
        assert daemon.started[-1] == f"info: marks: in {tmp_path}/marks.db, an SQLite file"
        assert daemon.ask(b"ip 192.0.2.1\n") == answer
        daemon.stop()


@pytest.mark.parametrize("store", ["sqlite:/nowhere/marks.db", "unix:///nowhere/redis"])
def test_a_store_that_fails_is_said_once(start: Callable[..., Daemon], store: str) -> None:
    daemon = start(f'[settings]\n{PLACES}store = "{store}"\n{LIMIT}[[limits.user]]\nexempt = true\n')
    assert re.fullmatch("error: no verdicts yet, since the store failed: .*No such file or directory.*", daemon.line())
    for _ in range(2):
        assert daemon.ask(b"ip 192.0.2.1\n") == b"2 Store failed\r\n"
    assert daemon.ask(b"user ana\n") == b"0 0/0\r\n"
    for words in (["near"], ["forget", "ip", "192.0.2.1"]):
        assert re.fullmatch("error: .*No such file or directory.*\n", daemon.ctl(*words)[2])
    status, output, _ = daemon.ctl("status")
    assert status == 0 and re.search("^store: 2 failures, it fails now\nvalues held: unknown$", output, re.MULTILINE)
    assert [line for line in daemon.stop()[1] if "store" in line] == []


# The operator


def test_raterctl(start: Callable[..., Daemon]) -> None:
    daemon = start()
    for _ in range(3):
        daemon.ask(b"ip 192.0.2.1\n")
    daemon.ask(b"ip 192.0.2.2\n")
    assert daemon.ctl("limits") == (0, "Class ip:\n  *: 2 in 1h\n", "")
    assert daemon.ctl("near") == (0, "ip 192.0.2.1 3/2 in 1h over\nip 192.0.2.2 1/2 in 1h\n", "")
    assert daemon.ctl("near", "1") == (0, "ip 192.0.2.1 3/2 in 1h over\n", "")
    assert daemon.ctl("forget", "ip", "192.0.2.1") == (0, "forgotten: ip 192.0.2.1\n", "")
    assert daemon.ctl("forget", "ip", "192.0.2.1") == (0, "it had no marks: ip 192.0.2.1\n", "")
    assert daemon.ask(b"ip 192.0.2.1\n") == b"0 1/2\r\n"
    _, status, _ = daemon.ctl("status")
    for expected in ("answered with 0: 4 of ip\n", "answered with 1: 1 of ip\n", "values held: 2\n"):
        assert expected in status
    assert daemon.ctl() == daemon.ctl("help") and "forget CLASS PATTERN" in daemon.ctl("help")[1]
    assert daemon.ctl("quit") == (0, "", "")


def test_raterctl_reload(start: Callable[..., Daemon]) -> None:
    daemon = start()
    daemon.config.write_text(f"[settings]\n{PLACES}{LIMIT.replace('2', '7')}")
    assert daemon.ctl("reload") == (0, f"read again: {daemon.config}\n", "")
    assert daemon.ask(b"ip 192.0.2.1\n") == b"0 1/7\r\n"
    daemon.config.write_text("[settings]\nport = -1\nlog = 1\n")
    status, output, errors = daemon.ctl("reload")
    assert (status, output) == (1, "")
    assert [line.partition(" should")[0] for line in errors.splitlines()] == [
        f"error: {daemon.config}:2: port",
        f"{daemon.config}:3: log",
        "refused: what was read before stays",
    ]


def test_the_metrics_and_the_status_tell_of_a_reload_that_was_refused(start: Callable[..., Daemon]) -> None:
    daemon = start(f"[settings]\n{PLACES}metrics_port = 0\n{LIMIT}")

    def figures() -> list[float]:
        with urlopen(f"http://127.0.0.1:{daemon.ports['metrics']}/metrics", timeout=PATIENCE) as page:
            lines = dict(line.rsplit(" ", 1) for line in page.read().decode().splitlines() if line[0] != "#")
        names = ("successful", "timestamp_seconds", "refused_timestamp_seconds")
        return [float(lines[f"rater_reload_{name}"]) for name in names]

    good = daemon.config.read_text()
    successful, read, refused = figures()
    assert (successful, refused) == (1, 0) and "rules:" not in daemon.ctl("status")[1]
    daemon.config.write_text("[settings]\nport = -1\n")
    assert daemon.ctl("reload")[0] == 1
    successful, read_then, refused = figures()
    assert (successful, read_then) == (0, read) and refused > read
    assert "rules: the configuration was refused when it was read last" in daemon.ctl("status")[1]
    daemon.config.write_text(good)
    assert daemon.ctl("reload")[0] == 0
    successful, read, refused_then = figures()
    assert (successful, refused_then) == (1, refused) and read > refused
    assert "rules:" not in daemon.ctl("status")[1]


def test_raterctl_goes_wrong(start: Callable[..., Daemon]) -> None:
    daemon = start()
    for words, message in (
        (["shutdown"], "unknown command: shutdown; help .*"),
        (["near", "-1"], "near takes a number, not -1"),
        (["near", "x"], "near takes a number, not x"),
        (["forget", "ip"], "forget takes a class and a value"),
        (["forget", "colour", "red"], "there is no class colour"),
    ):
        status, output, errors = daemon.ctl(*words)
        assert (status, output) == (1, "") and re.fullmatch(f"error: {message}\n", errors)
    assert daemon.ctl("forget", "ip", "a\nreload")[0] == daemon.ctl("forget", "ip", "x" * 1000)[0] == 3
    daemon.stop()
    assert daemon.ctl("near") == (
        *(3, ""),
        f"raterctl: no answer from 127.0.0.1:{daemon.ports['control port']}: Connection refused\n",
    )


def test_raterctl_over_a_unix_socket(start: Callable[..., Daemon], tmp_path: Path) -> None:
    path = str(tmp_path / "operator")
    daemon = start(f'[settings]\nport = 0\ncontrol_port = false\ncontrol_socket = "{path}"\n{LIMIT}')
    daemon.ask(b"ip 192.0.2.1\n")
    for arguments, environ in ((["--socket", path], {}), ([], {"RATER_CONTROL": path})):
        done = subprocess.run(
            [*RATERCTL, *arguments, "near"],
            env={**ENVIRON, **environ},
            capture_output=True,
            text=True,
            timeout=PATIENCE,
        )
        assert (done.returncode, done.stdout) == (0, "ip 192.0.2.1 1/2 in 1h\n")
    done = subprocess.run(
        [*RATERCTL, "--socket", "here", "near"], env=ENVIRON, capture_output=True, text=True, timeout=PATIENCE
    )
    assert (done.returncode, done.stdout) == (3, "") and "raterctl: a control port is --socket /PATH" in done.stderr


def test_the_control_port_doesnt_obey_http(start: Callable[..., Daemon]) -> None:
    "A browser or curl can be made to send lines to it that a stranger has written, but never as the first ones."
    daemon = start()
    daemon.ask(b"ip 192.0.2.1\n")
    body = b"x=\nforget ip 192.0.2.1\nreload\n"
    for first in (b"POST / HTTP/1.1", b"reload / HTTP/1.1", b"near / HTTP/1.1", b"help / HTTP/1.0", b"forget"):
        with daemon.connect("control port") as connection:
            connection.sendall(first + b"\r\nHost: 127.0.0.1:4445\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
            answer = everything(connection)
        assert b"error: " in answer and b"forgotten" not in answer and b"read again" not in answer, first
    assert daemon.ask(b"-peek ip 192.0.2.1\n") == b"0 1/2\r\n"


def test_as_with_head(start: Callable[..., Daemon]) -> None:
    daemon = start()
    for number in range(400):
        daemon.ask(b"ip %s%d\n" % (b"x" * 900, number))
    command = f"{shlex.join(RATERCTL)} --port {daemon.ports['control port']} near 400 | head -1"
    done = subprocess.run(command, shell=True, env=ENVIRON, capture_output=True, text=True, timeout=PATIENCE)  # noqa: S602
    assert done.stdout.startswith("ip xxx") and done.stdout.count("\n") == 1 and done.stderr == ""


def test_nobody_reads_what_raterctl_prints(start: Callable[..., Daemon]) -> None:
    "As with `| head -0`: nothing is said about it, and the status isn't that of a command that was done."
    daemon = start()
    reader, writer = os.pipe()
    os.close(reader)
    command = [*RATERCTL, "--port", str(daemon.ports["control port"]), "limits"]
    done = subprocess.run(command, env=ENVIRON, stdout=writer, stderr=subprocess.PIPE, timeout=PATIENCE)
    os.close(writer)
    assert (done.returncode, done.stderr) == (3, b"")


def test_the_control_port_by_hand(start: Callable[..., Daemon]) -> None:
    daemon = start()
    assert daemon.ask(b"limits\r\nnear\nquit\n", "control port") == b"Class ip:\r\n  *: 2 in 1h\r\n.\r\n.\r\n.\r\n"


def test_quit_ends_a_connection(start: Callable[..., Daemon]) -> None:
    daemon = start()
    with daemon.connect("control port") as connection:
        connection.sendall(b"near\nquit\nnear\n")
        assert everything(connection) == b".\r\n.\r\n"


@pytest.mark.parametrize(
    "data", [b"x" * 100_000 + b"\n", b"\n" * 10_000, b"near\n" * 5000, bytes(range(256)) * 50 + b"\n"]
)
def test_the_control_port_and_gibberish(start: Callable[..., Daemon], data: bytes) -> None:
    daemon = start()
    with daemon.connect("control port") as connection:
        connection.sendall(data)
        connection.shutdown(socket.SHUT_WR)
        for line in everything(connection).decode().splitlines():
            assert line == "." or line.startswith("error: ") and line.isprintable()
    assert daemon.ask(b"ip 192.0.2.1\n") == b"0 1/2\r\n"


def test_few_commands_at_once(start: Callable[..., Daemon]) -> None:
    daemon = start()
    answer = daemon.ask(b"help\n" * AT_ONCE + b"help\nquit\n", "control port").decode()
    assert answer.count("forget CLASS PATTERN") == AT_ONCE
    assert answer.count(f"error: more than {AT_ONCE} commands at once\r\n.\r\n") == 2


# Prometheus


def test_metrics(start: Callable[..., Daemon]) -> None:
    daemon = start(f"[settings]\n{PLACES}metrics_port = 0\n{LIMIT}")
    for _ in range(3):
        daemon.ask(b"ip 192.0.2.1\n")
    daemon.ask(b"hello\n")
    with urlopen(f"http://127.0.0.1:{daemon.ports['metrics']}/metrics", timeout=PATIENCE) as page:
        lines = page.read().decode().splitlines()
    for expected in (
        'rater_questions_total{answer="0",class="ip"} 2.0',
        'rater_questions_total{answer="1",class="ip"} 1.0',
        'rater_questions_total{answer="2",class="-"} 1.0',
        "rater_connections_accepted_total 5.0",
        "rater_store_failures_total 0.0",
    ):
        assert expected in lines
    assert any(line.startswith("process_resident_memory_bytes ") for line in lines)


# The command line


def test_check(tmp_path: Path) -> None:
    config = tmp_path / "config"
    config.write_bytes(C_RATER)
    status, output, errors = rater("--check", config)
    assert (status, errors) == (0, "")
    assert (
        output
        == f"""Questions: 127.0.0.1 port 1999
Marks: in memory, gone when rater ends
Control port: 127.0.0.1 port 4445
Metrics: none
Log: /dev/stderr, level 3 (info)
Connections: at most 10,000 at once, 30 s for a question
Class user:
  rosario: 20 in 90s
  *: 2 in 30s
Class ip:
  10.0.0.*: 20 in 90s
  *: 1 in 10s
{config}:3: expiration_timer has no effect: a mark is kept for as long as a window needs it
{config}:3: max_age has no effect: a mark is kept for as long as a window needs it
"""
    )
    assert rater("--check", folder=tmp_path)[0] == rater("--check", "--config", "config", folder=tmp_path)[0] == 0
    config.write_bytes(C_RATER.replace(b"30, 2", b"30, -2").replace(b"port: 1999", b"port: 19999999"))
    for arguments in (["--check"], []):
        status, output, errors = rater(*arguments, "config", folder=tmp_path)
        assert (status, output) == (3, "")
        assert [line.partition(" should")[0] for line in errors.splitlines()] == ["config:2: port", "config:4: a count"]


def test_check_on_a_full_disk(tmp_path: Path) -> None:
    (tmp_path / "config").write_bytes(C_RATER)
    with open("/dev/full", "wb") as full:
        done = subprocess.run(
            [*RATER, "--check"], env=ENVIRON, cwd=tmp_path, stdout=full, stderr=subprocess.PIPE, timeout=PATIENCE
        )
    assert (done.returncode, done.stderr) == (3, b"rater: can't write to standard output: No space left on device\n")


def test_where_rater_cannot_start(tmp_path: Path) -> None:
    config = tmp_path / "rater.toml"
    assert rater(folder=tmp_path) == (3, "", "config: can't read config: No such file or directory\n")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        for name, rest in (("port", ""), ("control_port", "port = 0\n"), ("metrics_port", PLACES)):
            config.write_text(f"[settings]\n{rest}{name} = {port}\nlog_level = 0\n{LIMIT}")
            expected = f"rater: can't use 127.0.0.1 port {port}: Address already in use\n"
            assert rater("--config", config) == (3, "", expected)
        config.write_text(f'[settings]\nport = {port}\nlog = "{tmp_path}/log"\n{LIMIT}')
        assert rater(config) == (3, "", expected)
        assert (tmp_path / "log").read_text().endswith(f" fatal: {expected.removeprefix('rater: ')}")
    config.write_text(f'[settings]\n{PLACES}log = "/nowhere/log"\n{LIMIT}')
    assert rater(config) == (3, "", "rater: can't use /nowhere/log: No such file or directory\n")


@pytest.mark.parametrize(
    "module, config, message",
    [
        ("libconf", C_RATER.decode(), "config: to read it takes libconf: pip install 'ra-plugins[rater]'"),
        (
            "prometheus_client",
            f"[settings]\n{PLACES}metrics_port = 0\nlog_level = 0\n{LIMIT}",
            "rater: metrics need prometheus_client: pip install 'ra-plugins[rater]'",
        ),
    ],
)
def test_without_what_only_some_need(tmp_path: Path, module: str, config: str, message: str) -> None:
    (tmp_path / "config").write_text(config)
    command = [*RATER[:2], f"import sys; sys.modules[{module!r}] = None; {RATER[2]}"]
    done = subprocess.run(command, env=ENVIRON, cwd=tmp_path, capture_output=True, text=True, timeout=PATIENCE)
    assert (done.returncode, done.stderr) == (3, f"{message}\n")


@pytest.mark.parametrize("arguments", [["--nonsense"], ["a", "b"], ["--config", "a", "b"], ["--config"]])
def test_wrong_command_lines(arguments: list[str]) -> None:
    status, output, errors = rater(*arguments)
    assert (status, output) == (3, "") and errors.startswith("rater: ")


# What comes with it


def test_packaged_configuration() -> None:
    assert load_config(str(ROOT / "packaging" / "rater.toml")).notes == ()


def test_systemd_unit(tmp_path: Path) -> None:
    if not shutil.which("systemd-analyze"):
        pytest.skip("systemd-analyze isn't installed")
    unit = tmp_path / "rater.service"
    unit.write_text((ROOT / "packaging" / "rater.service").read_text().replace("/usr/local/bin/rater", sys.executable))
    done = subprocess.run(["systemd-analyze", "verify", unit], capture_output=True, text=True, timeout=PATIENCE)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("name", ["run", "log/run"])
def test_daemontools_scripts(name: str) -> None:
    script = ROOT / "packaging" / "daemontools" / name
    assert os.access(script, os.X_OK)
    assert subprocess.run(["sh", "-n", script], timeout=PATIENCE).returncode == 0


# What the operator does with one value, or many


OPERATED = f"""[settings]
{PLACES}STORE
[[limits.ip]]
limit = ["2 in 1h", "5 in 1d"]
prefix6 = 64
[[limits.user]]
match = "root"
exempt = true
[[limits.user]]
match = "*@example.org"
limit = "2 in 1h"
"""


def test_show_tells_how_a_value_is_doing_and_counts_nothing(start: Callable[..., Daemon]) -> None:
    daemon = start(OPERATED.replace("STORE", ""))
    for _ in range(3):
        daemon.ask(b"ip 2001:db8::7\n")
    for _ in range(2):
        *lines, wait = daemon.ctl("show", "ip", "2001:db8::99")[1].splitlines()
        assert lines[0].startswith("ip 2001:db8::/64 by the rule *: 2 in 1h, 5 in 1d")
        assert lines[1:] == ["ip 2001:db8::/64 3/2 in 1h over", "ip 2001:db8::/64 3/5 in 1d"]
        found = re.fullmatch(r"room for one more in (\d+) s", wait)
        assert found and 3500 < int(found[1]) <= 3600
    assert daemon.ctl("show", "ip", "192.0.2.1")[1].splitlines()[1:] == [
        "ip 192.0.2.1 0/2 in 1h",
        "ip 192.0.2.1 0/5 in 1d",
    ]
    assert daemon.ctl("show", "user", "root")[1] == "user root by the rule root: exempt\n"
    assert daemon.ctl("show", "user", "ana") == (1, "", "error: No limit for: ana\n")
    assert daemon.ctl("show", "ip")[0] == daemon.ctl("show", "colour", "red")[0] == 1
    assert "values held: 1\n" in daemon.ctl("status")[1]


@pytest.mark.parametrize("store", ["", 'store = "sqlite:{}/marks.db"'])
def test_forget_by_a_pattern(start: Callable[..., Daemon], tmp_path: Path, store: str) -> None:
    daemon = start(OPERATED.replace("STORE", store.format(tmp_path)))
    for value in ("192.0.2.1", "192.0.2.200", "198.51.100.1", "2001:db8:1::1", "2001:db8:2::1", "2001:db9::1"):
        daemon.ask(f"ip {value}\n".encode())
    for value in ("ana", "eva", "*"):
        daemon.ask(f"user {value}@example.org\n".encode())

    def forgotten(*words: str) -> list[str]:
        return sorted(line.removeprefix("forgotten: ") for line in daemon.ctl("forget", *words)[1].splitlines())

    assert forgotten("ip", "192.0.2.0/24") == ["ip 192.0.2.1", "ip 192.0.2.200"]
    assert forgotten("ip", "2001:db8::/32") == ["ip 2001:db8:1::/64", "ip 2001:db8:2::/64"]
    assert forgotten("ip", "192.0.2.0/24") == ["it had no marks: ip 192.0.2.0/24"]
    assert daemon.ctl("forget", "ip", "192.0.2.1/24")[0] == 1
    assert forgotten("user", "*@example.org") == ["user *@example.org"]  # somebody is called that
    assert forgotten("user", "*@example.org") == ["user ana@example.org", "user eva@example.org"]
    assert daemon.ask(b"-peek ip 198.51.100.1\n") == b"0 1/2\r\n"
    assert daemon.ask(b"-peek ip 2001:db9::2\n") == b"0 1/2\r\n"


def test_answers_for_programs(start: Callable[..., Daemon]) -> None:
    daemon = start()
    value = "\x1b[2J caf\u00e9 " + "\U0001f600" * 200
    for _ in range(3):
        daemon.ask(f"ip {value}\n".encode())
    status, output, _ = daemon.ctl("--json", "near")
    assert status == 0 and output.isascii() and "\x1b" not in output
    (near,) = map(json.loads, output.splitlines())
    assert near == {
        **{"class": "ip", "value": near["value"], "marks": 3, "allowed": 2, "seconds": 3600, "over": True},
        "watched": False,
    }
    assert value == near["value"] or value.startswith(near["value"][:20])
    for words in (["status"], ["limits"], ["show", "ip", "x"], ["help"], ["forget", "ip", "nobody"]):
        assert all(isinstance(json.loads(line), dict) for line in daemon.ctl("--json", *words)[1].splitlines())
    assert daemon.ctl("--json", "forget", "ip") == (1, "", "error: forget takes a class and a value\n")


def test_top_is_a_page_where_there_is_no_terminal(start: Callable[..., Daemon]) -> None:
    daemon = start()
    for _ in range(3):
        daemon.ask(b"ip 192.0.2.1\n")
    status, output, errors = daemon.ctl("top")
    assert (status, errors) == (0, "") and "ip 192.0.2.1 3/2 in 1h over\n" in output and "\x1b" not in output


def test_top_follows_on_a_terminal(start: Callable[..., Daemon]) -> None:
    daemon = start()
    for _ in range(3):
        daemon.ask(b"ip 192.0.2.1\n")
    ours, theirs = pty.openpty()
    command = [*RATERCTL, "--port", str(daemon.ports["control port"]), "top"]
    process = subprocess.Popen(command, env={**ENVIRON, "TERM": "xterm"}, stdout=theirs, stderr=subprocess.PIPE)
    os.close(theirs)
    heard = b""
    while heard.count(b"\x1b[2J") < 2:  # a second page has begun
        heard += os.read(ours, 4096)
    assert b"\x1b[31mip 192.0.2.1 3/2 in 1h over\x1b[0m" in heard
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=PATIENCE)
    os.close(ours)
    assert (process.returncode, errors) == (0, b"")


def test_who_is_near_is_still_told_after_a_reload_and_a_restart(start: Callable[..., Daemon], tmp_path: Path) -> None:
    config = f'[settings]\n{PLACES}store = "{tmp_path / "marks.db"}"\n{LIMIT}'
    daemon = start(config)
    for value in (b"192.0.2.1", b"::ffff:192.0.2.1", b"::ffff:c000:201"):
        daemon.ask(b"ip " + value + b"\n")
    assert daemon.ctl("near")[1] == "ip 192.0.2.1 3/2 in 1h over\n"
    daemon.ctl("reload")
    assert daemon.ctl("near")[1] == "ip 192.0.2.1 3/2 in 1h over\n"
    daemon.stop()
    assert start(config).ctl("near")[1] == "ip 192.0.2.1 3/2 in 1h over\n"


def test_metrics_tell_the_watched_limit_the_store_and_the_build(start: Callable[..., Daemon], tmp_path: Path) -> None:
    port = free_port()
    rule = '[[limits.ip]]\nlimit = ["10 in 1m", "1 in 1h"]\nwatch = "1 in 1h"\n'
    daemon = start(f'[settings]\n{PLACES}metrics_port = {port}\nstore = "{tmp_path / "marks.db"}"\n{rule}')
    began = time.time() - 60
    assert [daemon.ask(b"ip 192.0.2.1\n") for _ in range(3)] == [b"0 1/10\r\n", b"0 2/10\r\n", b"0 3/10\r\n"]
    with urlopen(f"http://127.0.0.1:{port}/metrics") as page:
        lines = dict(line.rsplit(" ", 1) for line in page.read().decode().splitlines() if line.startswith("rater_"))
    assert lines['rater_watched_total{class="ip",limit="1 in 1h"}'] == "2.0"
    assert lines["rater_store_seconds_count"] == "3.0" and float(lines["rater_reload_timestamp_seconds"]) > began
    assert lines[f'rater_build_info{{version="{__version__}"}}'] == "1.0"
