"""Servers of other people's that tests talk to: started on a free loopback port, with data of their own, and ended.

A server whose program isn't there skips the test, and names the Debian package that has it.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from mailserver import PATIENCE, until

NO_OUTPUT = subprocess.DEVNULL


def free_port() -> int:
    "A TCP port on loopback that nobody listens on."
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def program(name: str, package: str, *folders: str) -> str:
    "The path of a program, looked for in PATH and in folders (patterns below /); the test is skipped without it."
    found = shutil.which(name) or next((str(each) for folder in folders for each in Path("/").glob(f"{folder}/{name}")), None)
    if found is None:
        pytest.skip(f"{name} isn't there (Debian: {package})")
    return found


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
        self.process = subprocess.Popen(
            self.command, user=self.user, start_new_session=True, stdin=NO_OUTPUT, stdout=NO_OUTPUT, stderr=NO_OUTPUT
        )
        until(self.answers, f"{self.command[0]} takes connections")

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
        subprocess.run([*made, "-E", "UTF8", "--locale=C"], user=user, check=True, stdout=NO_OUTPUT, cwd=folder)
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
    mariadbd = program("mariadbd", "mariadb-server", "usr/sbin")
    install = program("mariadb-install-db", "mariadb-server")
    pytest.importorskip("pymysql")
    user, port = ("mysql" if os.getuid() == 0 else None), free_port()
    with data_folder(user) as folder:
        data = ["--no-defaults", f"--datadir={folder}/data"]
        subprocess.run([install, *data, "--skip-test-db"], user=user, check=True, stdout=NO_OUTPUT, stderr=NO_OUTPUT)
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
