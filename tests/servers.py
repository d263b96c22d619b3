"""Servers of others that tests run against: each on a free port of 127.0.0.1, its data in a test's folder, ended with it.

A program that isn't installed is a reason to skip, which names the Debian package that has it.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

PATIENCE = 30  # seconds for a server to begin or end


def program(
    name: str,
    package: str,  # Debian's, that has it
    *folders: str,  # patterns below /, where it may be, too
) -> str:
    "The path of a program; the test is skipped if it isn't installed."
    path = shutil.which(name, path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/usr/local/sbin")
    path = path or next((str(each) for folder in folders for each in Path("/").glob(f"{folder}/{name}")), None)
    if path is None:
        pytest.skip(f"{name} isn't installed; Debian's package {package} has it")
    return path


def free_port() -> int:
    "A port of 127.0.0.1 that nobody has, neither over UDP nor over TCP."
    while True:
        with socket.socket(type=socket.SOCK_DGRAM) as udp, socket.socket() as tcp:
            udp.bind(("127.0.0.1", 0))
            try:
                tcp.bind(udp.getsockname())
            except OSError:
                continue
            return int(udp.getsockname()[1])


@contextmanager
def running(command: list[str], ready: str) -> Iterator[subprocess.Popen[bytes]]:
    "A server that stays in the foreground: from when it has printed `ready` until the block ends."
    with subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True
    ) as process:
        assert process.stdout
        printed: list[bytes] = []
        began = threading.Event()

        def read() -> None:  # all of it, so that the server can't be held up by a full pipe
            for line in process.stdout or ():
                printed.append(line)
                if ready.encode() in line:
                    began.set()
            began.set()

        reader = threading.Thread(target=read, daemon=True)
        reader.start()
        try:
            assert began.wait(PATIENCE) and process.poll() is None, b"".join(printed).decode(errors="replace")
            yield process
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
            try:
                process.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                process.kill()
            reader.join(PATIENCE)


@contextmanager
def rbldnsd(
    folder: Path,
    zones: dict[str, dict[str, str]],  # by a list's name, its data by the kind of data set: ip4set, ip6trie, dnset
) -> Iterator[int]:
    "rbldnsd with lists; its port."
    path, port, data = program("rbldnsd", "rbldnsd"), free_port(), folder / "rbldnsd"
    data.mkdir(exist_ok=True)
    data.chmod(0o755)
    sets = []
    for number, (zone, kinds) in enumerate(zones.items()):
        for kind, text in kinds.items():
            name = f"{number}.{kind}"
            (data / name).write_text(f"$SOA 300 ns.example. hostmaster.example. 1 1h 1h 1d 300\n{text}")
            sets.append(f"{zone}:{kind}:{name}")
    # It won't run as root; and whoever else it runs as needn't be let into the folders above.
    rights = ["-r", str(data), "-u", "nobody"] if os.geteuid() == 0 else ["-w", str(data)]
    with running([path, "-n", *rights, "-b", f"127.0.0.1/{port}", *sets], "started"):
        yield port


@contextmanager
def nsd(
    folder: Path,
    zones: dict[str, str],  # by name, the text of a zone file
) -> Iterator[int]:
    "nsd, an authoritative nameserver; its port."
    path, port, data = program("nsd", "nsd"), free_port(), folder / "nsd"
    data.mkdir(exist_ok=True)
    lines = [
        *("server:", "ip-address: 127.0.0.1", f"port: {port}", "do-ip6: no", "server-count: 1", "rrl-ratelimit: 0"),
        *('username: ""', 'chroot: ""', f'zonesdir: "{data}"', f'pidfile: "{data}/nsd.pid"', 'database: ""'),
        *(f'xfrdfile: "{data}/xfrd.state"', f'zonelistfile: "{data}/zone.list"', f'xfrdir: "{data}"', "verbosity: 1"),
        *("remote-control:", "control-enable: no"),
    ]
    for number, (zone, text) in enumerate(zones.items()):
        (data / f"{number}.zone").write_text(text)
        lines += ["zone:", f'name: "{zone}"', f'zonefile: "{number}.zone"']
    (data / "nsd.conf").write_text("\n".join([*lines, ""]))
    with running([path, "-d", "-c", str(data / "nsd.conf")], "nsd started"):
        yield port


SILENT: Any = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.DEVNULL)  # for `subprocess`


class DatabaseServer:
    "A database server with a user `mail` and a password. It can be stopped, frozen, and started again."

    PASSWORD = "sesame!open"  # noqa: S105

    def __init__(self, scheme: str, database: str, command: list[str], port: int, user: str | None):
        self.scheme, self.database, self.command, self.port, self.user = scheme, database, command, port, user
        self.process: subprocess.Popen[bytes] | None = None

    def url(self, password: str = PASSWORD) -> str:
        "As SQLAlchemy writes it."
        return f"{self.scheme}://mail:{password}@127.0.0.1:{self.port}/{self.database}"

    def start(self) -> None:
        "Start it, and wait until it takes connections."
        self.process = subprocess.Popen(self.command, user=self.user, start_new_session=True, **SILENT)
        deadline = time.monotonic() + PATIENCE
        while not self.answers():
            assert time.monotonic() < deadline, f"{self.command[0]} takes no connections"
            time.sleep(0.05)

    def answers(self) -> bool:
        "Does it answer a query?"
        assert self.process and self.process.poll() is None, f"{self.command[0]} has ended"
        try:
            self.execute("SELECT 1")
        except Exception:
            return False
        return True

    def execute(self, *statements: str, **values: Any) -> None:
        "Run statements."
        from sqlalchemy import NullPool, create_engine, text

        with create_engine(self.url(), poolclass=NullPool).begin() as connection:
            for statement in statements:
                connection.execute(text(statement), values)

    def send(self, number: int) -> None:
        "A signal for it and for its children, of which PostgreSQL has one for each connection."
        assert self.process
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        for pid in (self.process.pid, *map(int, children)):
            with suppress(ProcessLookupError):
                os.kill(pid, number)

    @contextmanager
    def frozen(self) -> Iterator[None]:
        "For a while it neither answers nor closes anything."
        self.send(signal.SIGSTOP)
        try:
            yield
        finally:
            self.send(signal.SIGCONT)

    def kill(self) -> None:
        "End it at once, and all its connections."
        if self.process:
            self.send(signal.SIGKILL)
            self.process.wait(PATIENCE)
            self.process = None


@contextmanager
def data_folder(user: str | None) -> Iterator[Path]:
    "A folder that the server's user can reach, which those of pytest's don't let it."
    folder = Path(tempfile.mkdtemp(prefix="server-"))
    try:
        if user:
            shutil.chown(folder, user)
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def postgresql() -> Iterator[DatabaseServer]:
    "PostgreSQL, asked through psycopg. It refuses to run as root, so root runs it as the user of the package."
    where = "usr/lib/postgresql/*/bin"
    initdb, postgres = (program(name, "postgresql", where) for name in ("initdb", "postgres"))
    pytest.importorskip("psycopg")
    user, port = ("postgres" if os.getuid() == 0 else None), free_port()
    with data_folder(user) as folder:
        (folder / "password").write_text(DatabaseServer.PASSWORD)
        (folder / "password").chmod(0o644)
        made = [initdb, "-D", f"{folder}/data", "-U", "mail", "-A", "scram-sha-256", f"--pwfile={folder}/password", "-N"]
        subprocess.run([*made, "-E", "UTF8", "--locale=C"], user=user, check=True, cwd=folder, **SILENT)
        options = {"listen_addresses": "127.0.0.1", "unix_socket_directories": "", "fsync": "off", "shared_buffers": "16MB"}
        settings = [word for name, value in options.items() for word in ("-c", f"{name}={value}")]
        command = [postgres, "-D", f"{folder}/data", "-p", str(port), *settings]
        server = DatabaseServer("postgresql+psycopg", "postgres", command, port, user)
        try:
            server.start()
            yield server
        finally:
            server.kill()


@contextmanager
def mariadb() -> Iterator[DatabaseServer]:
    "MariaDB, asked through PyMySQL."
    mariadbd = program("mariadbd", "mariadb-server")
    install = program("mariadb-install-db", "mariadb-server")
    pytest.importorskip("pymysql")
    user, port = ("mysql" if os.getuid() == 0 else None), free_port()
    with data_folder(user) as folder:
        data = ["--no-defaults", f"--datadir={folder}/data"]
        subprocess.run([install, *data, "--skip-test-db"], user=user, check=True, **SILENT)
        (folder / "first.sql").write_text(
            "CREATE DATABASE IF NOT EXISTS mail;\n"
            f"CREATE USER IF NOT EXISTS mail@'127.0.0.1' IDENTIFIED BY '{DatabaseServer.PASSWORD}';\n"
            "GRANT ALL ON mail.* TO mail@'127.0.0.1';\n"
        )
        (folder / "first.sql").chmod(0o644)
        listen = [f"--port={port}", "--bind-address=127.0.0.1", f"--socket={folder}/socket", "--skip-name-resolve"]
        small = ["--innodb-buffer-pool-size=32M", "--innodb-flush-log-at-trx-commit=0", f"--init-file={folder}/first.sql"]
        server = DatabaseServer("mysql+pymysql", "mail", [mariadbd, *data, *listen, *small], port, user)
        try:
            server.start()
            yield server
        finally:
            server.kill()
