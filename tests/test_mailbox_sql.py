"""Mailboxes in real databases: what is there, what comes from a client, and a server that is slow or goes away."""

from __future__ import annotations

import asyncio
import socket
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
from mailserver import PATIENCE
from servers import DatabaseServer, mariadb, postgresql

from ra_plugins.ask.answerer import Answerers
from ra_plugins.ask.mailbox import NOT_FOUND, MailboxFound, SqlMailbox, VpopmailMailbox
from ra_plugins.ask.mailbox_sql import cut
from ra_plugins.ask.question import Broken, Late, Unanswered
from ra_plugins.plugins.rcptchecks import rcptchecks
from ra_plugins.spp.session import sample_session
from ra_plugins.support.control import Control, ControlFiles

KNOWN = MailboxFound(True, False, None)
QUERY = "SELECT quota, used FROM mailboxes WHERE address = :address"
TABLES = (
    "CREATE TABLE mailboxes (address VARCHAR(200) PRIMARY KEY, quota VARCHAR(20), used BIGINT)",
    "INSERT INTO mailboxes VALUES ('ana@example.org', '1000S', 970), ('ben@example.org', NULL, NULL)",
    "INSERT INTO mailboxes VALUES ('@example.net', NULL, NULL), ('o''neil@example.org', NULL, NULL)",
    "INSERT INTO mailboxes VALUES ('list@example.org', NULL, NULL), ('news-*@example.org', NULL, NULL)",
    "CREATE TABLE vpopmail (pw_name VARCHAR(64), pw_domain VARCHAR(96), pw_passwd VARCHAR(128), pw_uid INT, pw_gid INT,"
    " pw_gecos VARCHAR(64), pw_dir VARCHAR(160), pw_shell VARCHAR(20), PRIMARY KEY (pw_name, pw_domain))",
    "INSERT INTO vpopmail VALUES ('ana', 'example.org', 'x', 0, 0, 'Ana', '/nowhere/ana', 'NOQUOTA')",
    "INSERT INTO vpopmail VALUES ('bob', 'example.org', 'x', 0, 16, 'Bob', '/nowhere/bob', 'NOQUOTA')",
    "CREATE TABLE valias (alias VARCHAR(32), domain VARCHAR(96), valias_line TEXT)",
    "INSERT INTO valias VALUES ('sales', 'example.org', 'ana'), ('list-default', 'example.org', 'list')",
)
RETURN = "list-return-42-eva=example.com"  # to a list that has no entry for its returns
HOSTILE = [
    "' OR 1=1 --@example.org",
    "ana@example.org' OR '1'='1",
    "'; DROP TABLE mailboxes; --@example.org",
    "%@example.org",
    "_na@example.org",
    "\\@example.org",
    '"ana@example.org',
    ":address@example.org",
    "%(address)s@example.org",
    "\udcff\udcfe@example.org",
    "a\0b@example.org",
    "\U0001f600@example.org",
    "x" * 887 + "@example.org",
    "ana\u2028@example.org",
]


class Sqlite:
    "SQLite, with what a server has."

    def __init__(self, path: Path):
        self.path = path

    def url(self) -> str:
        return f"sqlite:///{self.path}"

    def execute(self, *statements: str) -> None:
        with sqlite3.connect(self.path) as connection:
            for statement in statements:
                connection.execute(statement)


SERVERS: dict[str, Callable[[], AbstractContextManager[DatabaseServer]]] = {"postgresql": postgresql, "mariadb": mariadb}


@pytest.fixture(scope="module", params=["sqlite", *SERVERS])
def database(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    "Each kind of database, with the tables in it."
    if request.param == "sqlite":
        embedded = Sqlite(tmp_path_factory.mktemp("sql") / "mail.db")
        embedded.execute(*TABLES)
        yield embedded
    else:
        with SERVERS[request.param]() as server:
            server.execute(*TABLES)
            yield server


on_servers = pytest.mark.parametrize("database", [*SERVERS], indirect=True)


@pytest.fixture
def server(database: Any) -> Iterator[DatabaseServer]:
    "A database that is a server, running again at the end."
    yield database
    if database.process is None:
        database.start()


def settings(database: Any, query: str = QUERY, **values: str) -> dict[str, str]:
    return {"MAILBOX_SQLURL": database.url(), "MAILBOX_SQLQUERY": query, **values}


def told(database: Any, address: str, query: str = QUERY, **values: str) -> Any:
    "What a script is told, which has answerers of its own for one question."
    with Answerers(settings(database, query, **values)) as answerers:
        return answerers.tell(SqlMailbox(address), time.monotonic() + PATIENCE)


def test_a_query_of_ones_own(database: Any) -> None:
    assert told(database, "Ana@Example.org") == MailboxFound(True, False, 97)
    assert told(database, "ben@example.org") == KNOWN == told(database, "o'neil@example.org")
    assert told(database, "anybody@example.net") == MailboxFound(True, True, None)
    assert told(database, "zoe@example.org") == NOT_FOUND


def test_parameters_one_by_one(database: Any) -> None:
    query = "SELECT 1 FROM vpopmail WHERE pw_name = :local AND pw_domain = :domain AND :address <> 'x'"
    assert told(database, "ana@example.org", query) == KNOWN and told(database, "zoe@example.org", query) == NOT_FOUND


def test_vpopmails_tables(database: Any) -> None:
    expected = {"ana": True, "bob": False, "sales": True, "list-return-42": True, "list": False, "zoe": False}
    assert {name: told(database, f"{name}@example.org", "").known for name in expected} == expected
    assert told(database, "ana@example.net", "") == NOT_FOUND


def test_what_a_client_says_is_never_part_of_a_query(database: Any) -> None:
    with Answerers(settings(database)) as answerers, Answerers(settings(database, "")) as tables:
        for address in HOSTILE:
            for asked in (answerers, tables):
                answer = asked.tell(SqlMailbox(address), time.monotonic() + PATIENCE)
                assert answer == NOT_FOUND or isinstance(answer, Unanswered), address
        assert answerers.tell(SqlMailbox("ana@example.org")) == MailboxFound(True, False, 97)


def test_the_plugin_over_it(database: Any) -> None:
    "Accepted, refused, full, by extension and as a list's return, by its own entry or a setting: in the words of the log."
    control = ControlFiles({"rcpthosts": "example.org\n"})
    lines: list[str] = []
    with Answerers(settings(database)) as answerers:
        for address in ("ben", "zoe", "ana", "news-x", "news-return-7-eva=example.com", RETURN, RETURN):
            verp = lines.count(f"511 sorry, no mailbox here by that name ({RETURN}@example.org)")
            told = {"CHKUSER_SOURCE": "sql", "CHKUSER_MBXQUOTA": 97, "CHKUSER_VERP": verp}
            session = sample_session(rcpt_to=f"{address}@example.org", **told)
            rcptchecks(session, control, lines.append, answerers)
    assert lines == [
        "Accepted recipient (ben@example.org number 0 of 10000 )",
        "511 sorry, no mailbox here by that name (zoe@example.org)",
        "522 sorry, recipient mailbox is full (ana@example.org)",
        "Accepted recipient (news-x@example.org number 0 of 10000 )",
        "Accepted recipient (news-return-7-eva=example.com@example.org number 0 of 10000 )",
        f"511 sorry, no mailbox here by that name ({RETURN}@example.org)",
        f"Accepted recipient ({RETURN}@example.org number 0 of 10000 )",
    ]


def test_users_of_vpopmail_that_are_in_a_database(database: Any, tmp_path: Path) -> None:
    "vpopmail built over MySQL has no vpasswd; its dot files are where they always are."
    users, domain = tmp_path / "users", tmp_path / "example.org"
    users.mkdir()
    domain.mkdir()
    (users / "assign").write_text(f"+example.org-:example.org:89:89:{domain}:-::\n.\n")
    (domain / ".qmail-info").write_text("&ana@example.org\n")
    environ = {"MAILBOX_USERS": str(users), "MAILBOX_SQLURL": database.url()}
    with Answerers(environ) as answerers:
        names = ("ana", "sales", "info", "zoe", "bob")
        found = [answerers.tell(VpopmailMailbox(f"{name}@example.org")).known for name in names]
    assert found == [True, True, True, False, False]


def test_a_service_asks_many_at_once(database: Any) -> None:
    "A hundred questions over two connections, all answered."

    async def ask_all() -> list[Any]:
        async with Answerers(settings(database, MAILBOX_SQLPOOL="2")) as answerers:
            names = ("ana", "zoe") * 50
            end = time.monotonic() + PATIENCE
            return await asyncio.gather(*(answerers.atell(SqlMailbox(f"{name}@example.org"), end) for name in names))

    assert asyncio.run(ask_all()) == [MailboxFound(True, False, 97), NOT_FOUND] * 50


@on_servers
def test_a_server_that_is_restarted_in_the_middle(server: DatabaseServer) -> None:
    "While it is away the answer is that it is; then the same answerer has a new connection at once."
    question = SqlMailbox("ben@example.org")
    with Answerers(settings(server)) as answerers:
        assert answerers.tell(question) == KNOWN
        server.kill()
        away = answerers.tell(question, time.monotonic() + PATIENCE)
        assert isinstance(away, Broken) and server.PASSWORD not in str(away)
        server.start()
        assert answerers.tell(question) == KNOWN
        server.kill()
        server.start()  # and if nobody asked while it was away
        assert answerers.tell(question) == KNOWN


@on_servers
def test_a_server_that_hangs(server: DatabaseServer) -> None:
    "The answer comes at the deadline, with a connection that was open as with a new one; afterwards all is well."
    question = SqlMailbox("ben@example.org")
    with Answerers(settings(server, MAILBOX_SQLTIMEOUT="2", MAILBOX_SQLPOOL="1")) as answerers:
        assert answerers.tell(question) == KNOWN
        with server.frozen():
            assert isinstance(answerers.tell(question, time.monotonic() + 0.3), Late)
            with Answerers(settings(server, MAILBOX_SQLTIMEOUT="2")) as others:
                assert isinstance(others.tell(question, time.monotonic() + 0.3), Late)
        deadline = time.monotonic() + PATIENCE
        while answerers.tell(question, deadline) != KNOWN:  # the one thread may still be on its way back
            assert time.monotonic() < deadline


@on_servers
def test_a_server_that_hangs_and_a_service(server: DatabaseServer) -> None:
    "Twenty sessions on a server that hangs: each is told in time, and the loop goes on."

    async def ask_all() -> list[Any]:
        async with Answerers(settings(server, MAILBOX_SQLTIMEOUT="2")) as answerers:
            end = time.monotonic() + 0.5
            return await asyncio.gather(*(answerers.atell(SqlMailbox("ben@example.org"), end) for _ in range(20)))

    with server.frozen():
        assert all(isinstance(each, Late) for each in asyncio.run(ask_all()))


@on_servers
def test_a_query_that_takes_too_long(server: DatabaseServer) -> None:
    "The setting ends it even if the plugin has all the time of the world."
    sleep = "pg_sleep(60)" if "postgresql" in server.scheme else "SLEEP(60)"
    answer = told(server, "ben@example.org", f"SELECT 1, {sleep}", MAILBOX_SQLTIMEOUT="1")
    assert isinstance(answer, (Broken, Late))


@on_servers
def test_no_secret_in_what_is_said(server: DatabaseServer) -> None:
    with Answerers({**settings(server), "MAILBOX_SQLURL": server.url("wrong-sesame")}) as answerers:
        answer = answerers.tell(SqlMailbox("ben@example.org"))
    assert isinstance(answer, Broken) and "wrong-sesame" not in repr(answer)
    assert "sesame" not in repr(SqlMailbox("ben@example.org"))


@on_servers
def test_the_plugin_lets_pass_and_says_why(server: DatabaseServer) -> None:
    server.kill()
    lines: list[str] = []
    session = sample_session(rcpt_to="zoe@example.org", CHKUSER_SOURCE="sql")
    with Answerers(settings(server)) as answerers:
        assert rcptchecks(session, ControlFiles({"rcpthosts": "example.org\n"}), lines.append, answerers) == []
    assert len(lines) == 1 and lines[0].startswith("Error opening address list file (sql): ")


def test_a_locked_sqlite_file(tmp_path: Path) -> None:
    embedded = Sqlite(tmp_path / "mail.db")
    embedded.execute(*TABLES)
    holder = sqlite3.connect(embedded.path)
    holder.execute("BEGIN EXCLUSIVE")
    answer = told(embedded, "ana@example.org", MAILBOX_SQLTIMEOUT="1")
    assert isinstance(answer, (Broken, Late))
    holder.rollback()
    assert told(embedded, "ana@example.org") == MailboxFound(True, False, 97)
    holder.close()


def test_as_a_program(database: Any, tmp_path: Path) -> None:
    "The plugin as qmail-smtpd starts it, with the URL in a file that the environment names."
    import subprocess

    from ra_plugins.cli.install import install

    install(str(tmp_path / "plugins"), ["rcptchecks"])
    (tmp_path / "url").write_text(database.url() + "\n")
    (tmp_path / "rcpthosts").write_text("example.org\n")
    values = {"CHKUSER_SOURCE": "sql", "MAILBOX_SQLURL": str(tmp_path / "url"), "MAILBOX_SQLQUERY": QUERY}
    environ = {"CONTROLDIR": str(tmp_path), "SMTPRCPTCOUNT": "0", "SMTPRCPTCOUNTALL": "1", **values}
    program = str(tmp_path / "plugins" / "rcptchecks")
    outputs = []
    for name in ("ben", "zoe"):
        told = {**environ, "SMTPRCPTTO": f"{name}@example.org"}
        done = subprocess.run([program], env=told, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=True)
        outputs.append((done.stdout, done.stderr.partition(" - ")[2]))
    assert outputs == [
        ("", "Accepted recipient (ben@example.org number 0 of 10000 )\n"),
        (
            "SWRONGRCPTCOUNT=1\nE511 sorry, no mailbox here by that name (#5.1.1 - rcptchecks)\n",
            "511 sorry, no mailbox here by that name (zoe@example.org)\n",
        ),
    ]
    assert Control(str(tmp_path)).is_ours("example.org")


# What is written wrongly, and what a table can't hold


@on_servers
def test_an_address_that_a_table_cant_hold_isnt_in_it(server: DatabaseServer) -> None:
    "Nor does it get round the check; a catch-all is still one, and a query that is wrong for all addresses says nothing."
    face = "\U0001f600@example"
    if "postgresql" in server.scheme:
        query = "SELECT 1 FROM mailboxes WHERE convert_to(address, 'LATIN1') = convert_to(:address, 'LATIN1')"
    else:
        server.execute(
            "CREATE TABLE older (address VARCHAR(200)) CHARACTER SET latin1",
            "INSERT INTO older SELECT address FROM mailboxes",
        )
        query = "SELECT 1 FROM older WHERE address = :address"
    assert told(server, f"{face}.org", query) == NOT_FOUND
    assert told(server, f"{face}.net", query) == MailboxFound(True, True, None)
    assert told(server, "ben@example.org", query) == KNOWN
    assert isinstance(told(server, f"{face}.org", query.replace("older", "nowhere").replace("mailboxes", "nowhere")), Broken)
    assert told(server, f"{face}.org", "") == NOT_FOUND


@pytest.mark.parametrize(
    "password", ["open@sesame", "open@sesame/here", "open@sesame:5", "open@sesame?x=1", "@sesame", "open@@sesame"]
)
def test_an_at_sign_in_a_password(password: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    "Its end is no host: it is neither looked up nor shown, from the setting as from a file."
    asked: list[object] = []

    def look_up(*arguments: object, **options: object) -> list[object]:
        asked.append(arguments)
        return []

    monkeypatch.setattr("socket.getaddrinfo", look_up)
    url = f"mysql+pymysql://mail:{password}@db.example.org/mail"
    (tmp_path / "url").write_text(url)
    for value in (url, str(tmp_path / "url")):
        with Answerers({"MAILBOX_SQLURL": value}) as answerers:
            answer = answerers.tell(SqlMailbox("ben@example.org"))
        assert isinstance(answer, Broken) and "MAILBOX_SQLURL" in str(answer) and "sesame" not in str(answer)
    assert asked == []


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("mysql+pymysql://mail:sesame@127.0.0.1:1/mail?foo=bar", "a host or an option that mysql+pymysql doesn't take: foo"),
        ("mysql+pymysql://mail:sesame@127.0.0.1:1/mail?read_timeout=x", "a host or an option that mysql+pymysql doesn't take"),
        ("postgresql+psycopg://mail:sesame@127.0.0.1:1/mail?foo=bar", 'invalid connection option "foo"'),
        ("mysql+nosuch://mail:sesame@127.0.0.1/mail", "Can't load plugin: sqlalchemy.dialects:mysql.nosuch"),
    ],
)
def test_a_mistake_in_the_url_is_one_of_the_setting(url: str, said: str) -> None:
    with Answerers({"MAILBOX_SQLURL": url}) as answerers:
        answer = answerers.tell(SqlMailbox("ben@example.org"))
    assert isinstance(answer, Broken) and str(answer).startswith("MAILBOX_SQLURL") and said in str(answer)
    assert "sesame" not in str(answer) and "Error" not in str(answer)


@pytest.mark.parametrize(
    ("quota", "used", "fill", "told_why"),
    [
        ("'1000S'", "'many'", None, "'many'"),
        ("'1000S'", "'12.5'", None, "'12.5'"),
        ("'1000S'", "12.5", 1, ""),
        ("1000.0", "970", 97, ""),
        ("CAST('1000S' AS BLOB)", "970", 97, ""),
        ("'1000S'", "x'ff'", None, "b'\\xff'"),
        ("'1000S'", "9e999", None, "inf"),
    ],
)
def test_a_size_that_is_no_number(quota: str, used: str, fill: int | None, told_why: str, tmp_path: Path) -> None:
    "The mailbox was found, and only its fill isn't known; the log says what should be mended."
    sqlite3.connect(tmp_path / "mail.db").close()
    lines: list[str] = []
    query = f"SELECT {quota} AS quota, {used} AS used"
    with Answerers({"MAILBOX_SQLURL": f"sqlite:///{tmp_path}/mail.db", "MAILBOX_SQLQUERY": query}, lines.append) as answerers:
        assert answerers.tell(SqlMailbox("ben@example.org")) == MailboxFound(True, False, fill)
    why = f"MAILBOX_SQLQUERY's column used should be a whole number of bytes, not {told_why}; taken as not known"
    assert lines == ([why] if told_why else [])


def test_a_connection_of_pymysql_can_be_cut() -> None:
    "Its thread is free at once, however often something comes."
    pymysql = pytest.importorskip("pymysql")
    ours, theirs = socket.socketpair()
    connection = pymysql.connections.Connection(defer_connect=True)
    connection._sock = ours
    cut(connection)
    assert ours.recv(1) == theirs.recv(1) == b""
    ours.close()
    theirs.close()
