"""Where marks are kept, as one setting names it: what can't be is refused before anybody asks, no URL ends a rater later,
and a file has one rater."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
import redis
from mailserver import ENVIRON, PATIENCE, ROOT, until
from rater_server import Misbehaving
from servers import free_port
from test_rater_daemon import LIMIT, PLACES, RATER, Daemon, end

from ra_plugins.rater.config import described, kept, parse_config
from ra_plugins.rater.limits import Limit
from ra_plugins.rater.memory import Mark, StoreError
from ra_plugins.rater.stores import open_store
from ra_plugins.rater.syntax import ConfigError

SECRET = "opensesame"  # noqa: S105
NEVER = [  # what can't be an address
    *(f"redis://192.0.2.1?timeout={wrong}" for wrong in ("-1", "0", "nan", "inf", "1e9", "soon")),
    *(f"redis://192.0.2.1?socket_{wrong}" for wrong in ("timeout=-1", "connect_timeout=nan", "read_size=-1", "type=7")),
    *(f"redis://192.0.2.1?{wrong}" for wrong in ("encoding=rot13", "retry=5", "protocol=9", "parser_class=x", "a=b")),
    *(
        f"redis://192.0.2.1?{wrong}"
        for wrong in ("host=192.0.2.2", "port=6380", "path=/run/redis", "timeout=1&timeout=2")
    ),
    "redis://192.0.2.1/1?db=2",
    "redis+cluster://192.0.2.1/1",
    "redis+cluster://192.0.2.1?db=1",
    "redis+sentinel://192.0.2.1/rater?socket_timeout=-1",
    "rediss://192.0.2.1?ssl_cert_reqs=maybe",
    f"redis://:{SECRET}@192.0.2.1?password=another",
    f"redis://:{SECRET}?a=b@192.0.2.1",
    f"redis://user:{SECRET}@192.0.2.1?max_connections=0",
    "redis+sentinel://192.0.2.1,/rater",
    "redis+cluster://192.0.2.1,:6379",
    f"redis+sentinel://:{SECRET}@192.0.2.1,:{SECRET}@192.0.2.2/rater",
]


@pytest.mark.parametrize("store", NEVER)
def test_a_place_that_cant_be_is_refused_with_its_line(store: str) -> None:
    with pytest.raises(ConfigError) as refused:
        parse_config("rater.toml", f'[settings]\nstore = "{store}"\n{LIMIT}'.encode())
    assert str(refused.value).startswith("rater.toml:2: no address of a Redis server: ")
    assert SECRET not in str(refused.value)


@pytest.mark.parametrize(
    "store",
    ["REDIS://192.0.2.1", "Redis+cluster://192.0.2.1", "sqlite::memory:", "SQLite:marks.db", "Memory", " memory"],
)
def test_a_place_is_what_it_is_described_as_or_refused(store: str) -> None:
    with pytest.raises(ConfigError, match="rater.toml:2: .* is no store"):
        parse_config("rater.toml", f'[settings]\nstore = "{store}"\n{LIMIT}'.encode())


def test_a_file_that_can_have_no_write_ahead_log_is_no_store_and_nobody_waits_for_it(tmp_path: Path) -> None:
    ask = """if True:
        from ra_plugins.rater.sqlite import Sqlite
        try:
            Sqlite(":memory:").held()  # for SQLite, not the file that is called so
        except Exception as error:
            print(error)
        """
    done = subprocess.run([sys.executable, "-c", ask], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert "it can't have a write-ahead log" in done.stdout and not done.stderr


def test_of_sentinels_that_cant_be_reached_the_log_tells_why_and_not_with_which_options() -> None:
    store = open_store(f"redis+sentinel://:{SECRET}@127.0.0.1:1,127.0.0.1:2/rater?sentinel_password={SECRET}")
    with pytest.raises(StoreError, match="No master found for .rater. : .*ConnectionError") as failed:
        store.held()
    assert len(str(failed.value)) < 250 and "redis." not in str(failed.value)


def test_a_password_is_nobodys_business_wherever_it_stands() -> None:
    for store in (
        f"redis://192.0.2.1?password={SECRET}",
        f"rediss://192.0.2.1?ssl_password={SECRET}&timeout=1",
        f"redis+sentinel://192.0.2.1/rater?timeout=1&sentinel_password={SECRET}",
        f"redis://:{SECRET}@192.0.2.1",
    ):
        text = described(parse_config("rater.toml", f'[settings]\nstore = "{store}"\n{LIMIT}'.encode()))
        assert "192.0.2.1" in text and SECRET not in text


def test_a_file_is_described_as_a_file() -> None:
    assert kept("sqlite:a://b") == "in a://b, an SQLite file"


@pytest.fixture
def nonsense() -> Iterator[str]:
    "The port of a server that answers to everything with a word that Redis would use elsewhere."

    def answer(connection: socket.socket) -> None:
        while connection.recv(4096):
            connection.sendall(b"+OK\r\n")

    server = Misbehaving(answer)
    yield server.address.rpartition(":")[2]
    server.close()


@pytest.mark.parametrize(
    "store",
    [
        "redis://a..b",
        "redis://" + "x" * 70,
        "redis://a%00b",
        "redis+sentinel://a..b/rater",
        "redis+cluster://a..b",
        "redis://127.0.0.1:PORT?socket_keepalive=yes&client_name=a%20b",
        "redis+sentinel://127.0.0.1:PORT/rater?sentinel_password=x",
        "redis+cluster://127.0.0.1:PORT",
        "rediss://127.0.0.1:PORT?ssl_ca_certs=/nowhere",
    ],
)
def test_no_place_ends_a_rater(store: str, nonsense: str) -> None:
    "It is a store that can't tell, whatever is or isn't there."
    marks = open_store(store.replace("PORT", nonsense))
    marks.keep({"ip": 60})
    calls: list[Callable[[], object]] = [
        lambda: marks.count([Mark("ip", "192.0.2.1", (Limit(1, 60),))]),
        marks.held,
        lambda: marks.likely(10),
        lambda: marks.forget("ip", "192.0.2.1"),
    ]
    for call in calls[:1] if "127.0.0.1" in store else calls:
        with pytest.raises(StoreError):
            call()
    for call in calls[1:]:
        with suppress(StoreError):
            call()
    marks.tidy()
    marks.close()


# A server over TLS, by a user who may do what rater does


def test_the_packaged_acl_and_tls(tmp_path: Path) -> None:
    "All that a rater ever asks is allowed by it, and nothing more is."
    for program in ("redis-server", "openssl"):
        if not shutil.which(program):
            pytest.skip(f"{program} isn't installed")
    certificate, port = tmp_path / "certificate.pem", free_port()
    make = ("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=localhost", "-days", "2")
    names = ("-addext", "subjectAltName=IP:127.0.0.1", "-keyout", tmp_path / "key.pem", "-out", certificate)
    subprocess.run([*make, *names], check=True, capture_output=True)
    acl = (ROOT / "packaging" / "rater.acl").read_text()
    (tmp_path / "users.acl").write_text(f"user default off\nuser admin on >admin ~* +@all\n{acl}")
    tls = (
        "--tls-port",
        port,
        "--tls-cert-file",
        certificate,
        "--tls-key-file",
        tmp_path / "key.pem",
        "--tls-auth-clients",
        "no",
    )
    command = ("redis-server", "--port", 0, *tls, "--aclfile", tmp_path / "users.acl", "--dir", tmp_path, "--save", "")
    server = subprocess.Popen([str(each) for each in command], stdout=subprocess.DEVNULL)
    try:
        url = f"rediss://{{}}@127.0.0.1:{port}/0?ssl_ca_certs={certificate}"
        admin = redis.Redis.from_url(url.format("admin:admin"))
        until(lambda: connects(admin), "it answers")
        marks = open_store(url.format("rater:CHANGE-ME"), 1000)
        marks.keep({"ip": 60})
        marks.most = 3  # type: ignore[attr-defined]
        limit = Limit(2, 60)
        for number in range(6):
            asked = [Mark("ip", str(number), (limit,), 1, (True,)), Mark("ip", "flood", (limit,), 500)]
            assert not [each for each in marks.count([*asked, *asked]) if isinstance(each, StoreError)]
        assert marks.dropped and marks.held() <= 4 and marks.likely(1)
        assert "flood" in marks.values("ip") and not marks.values("i") and marks.forget("ip", "flood")
        marks.keep({"ip": 3600})
        marks.tidy()
        marks.close()
        assert admin.acl_log() == []
        user = redis.Redis.from_url(url.format("rater:CHANGE-ME"))
        for refused in (("FLUSHALL",), ("CONFIG", "GET", "*"), ("KEYS", "*"), ("GET", "other"), ("SET", "other", "x")):
            with pytest.raises(redis.exceptions.NoPermissionError):
                user.execute_command(*refused)
        for client in (user, admin):
            client.close()
    finally:
        server.kill()
        server.wait(PATIENCE)


def connects(client: redis.Redis) -> bool:
    with suppress(redis.exceptions.ConnectionError):
        return bool(client.ping())
    return False


# One file, two raters


def test_two_raters_on_one_file(tmp_path: Path) -> None:
    "The second says so, gives no verdict, and marks nothing. When the first has ended, it goes on from there."
    config = f'[settings]\n{PLACES}store = "sqlite:{tmp_path}/marks.db"\n{LIMIT}'
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    first = Daemon(tmp_path / "one", config)
    assert first.ask(b"ip 192.0.2.1\n") == b"0 1/2\r\n"
    second = Daemon(tmp_path / "two", config)
    assert re.fullmatch(
        "error: no verdicts yet, since the store failed: .*/marks.db: another rater has it open; .*", second.line()
    )
    assert second.ask(b"ip 192.0.2.1\n") == b"2 Store failed\r\n"
    assert first.ask(b"ip 192.0.2.1\n") == b"0 2/2\r\n"
    first.stop()
    end(first)
    until(lambda: second.ask(b"-peek ip 192.0.2.1\n") == b"0 2/2\r\n", "it has the file")
    assert second.ask(b"ip 192.0.2.1\n") == b"1 3/2\r\n"
    end(second)


def test_a_file_that_is_removed_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "marks.db"
    daemon = Daemon(tmp_path, f'[settings]\n{PLACES}store = "sqlite:{path}"\n{LIMIT}')
    assert daemon.ask(b"ip 192.0.2.1\n") == b"0 1/2\r\n"
    until(lambda: path.with_name("marks.db-wal").stat().st_size > 0, "it has written")
    for name in ("marks.db", "marks.db-wal", "marks.db-shm"):
        os.unlink(tmp_path / name)
    assert daemon.ask(b"ip 192.0.2.1\n") == b"2 Store failed\r\n"
    assert daemon.line().endswith("marks.db: somebody has removed it, or put another in its place")
    until(lambda: not daemon.ask(b"-peek ip 192.0.2.2\n").startswith(b"2"), "it has made another")
    assert path.exists() and daemon.line() == "warning: the store works again"
    end(daemon)


def test_check_leaves_a_file_alone(tmp_path: Path) -> None:
    config = tmp_path / "rater.toml"
    config.write_text(f'[settings]\nstore = "sqlite:{tmp_path}/marks.db"\n{LIMIT}')
    done = subprocess.run([*RATER, "--check", config], env=ENVIRON, capture_output=True, timeout=PATIENCE)
    assert done.returncode == 0 and sorted(path.name for path in tmp_path.iterdir()) == ["rater.toml"]
