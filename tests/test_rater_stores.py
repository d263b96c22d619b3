"The three stores: the same answers from all of them, and what becomes of them when something breaks."

from __future__ import annotations

import os
import re
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
import tracemalloc
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import pytest
import redis
from hypothesis import given, settings
from hypothesis import strategies as st
from redis_servers import Server, forwarding, installed, started

from ra_plugins.rater.limits import Limit, Rule, RuleBook, parse_limit
from ra_plugins.rater.memory import HELD_LENGTH, RETRY_PAUSE, SPARE_MARKS, Mark, Memory, Store, StoreError
from ra_plugins.rater.protocol import Rater, read_request
from ra_plugins.rater.redis import Redis
from ra_plugins.rater.sqlite import LOSS, SLICE, Sqlite
from ra_plugins.rater.stores import open_store

ROOT = Path(__file__).resolve().parent.parent
T = TypeVar("T")

MINUTE = Limit(10, 60)
OFFICE = Mark("ip", "192.0.2.1", (MINUTE,))


class Clock:
    "A clock that we set."

    def __init__(self, now: float = 1000.0):
        self.now = now

    def __call__(self) -> float:
        return self.now


def after_a_while(ask: Callable[[], T]) -> T:
    "Ask until the store works again, which it does by itself."
    end = time.monotonic() + 30
    while True:
        try:
            return ask()
        except StoreError:
            if time.monotonic() > end:
                raise
            time.sleep(0.02)


def python(script: str, *arguments: str) -> subprocess.Popen[str]:
    "A Python process of its own, which prints for us."
    return subprocess.Popen([sys.executable, "-c", script, *arguments], cwd=ROOT, stdout=subprocess.PIPE, text=True)


def counted(store: Store, mark: Mark) -> tuple[int, ...]:
    "What a store counts for one mark."
    (found,) = store.count([mark])
    assert not isinstance(found, StoreError), found
    return found


def failure(store: Store, mark: Mark) -> str:
    "What a store says of a mark that it can't make."
    (found,) = store.count([mark])
    assert isinstance(found, StoreError), found
    return str(found)


# Servers


@pytest.fixture(scope="module", params=["redis-server", "valkey-server"])
def program(request: pytest.FixtureRequest) -> str:
    return installed(str(request.param))


@pytest.fixture
def server(program: str) -> Iterator[Server]:
    with started(program) as server:
        yield server


@pytest.fixture(scope="module")
def shared_server(program: str) -> Iterator[Server]:
    "One that many examples use, each with an empty database."
    with started(program) as server:
        yield server


@pytest.fixture
def store(server: Server) -> Iterator[Redis]:
    store = Redis(server.url, timeout=60)
    store.keep({"ip": 60})
    yield store
    store.close()


# The same answers

VALUES = [("ip", "192.0.2.1"), ("ip", "2001:db8::/64"), ("user", "ana maria"), ("user", "andr\udce9\0:")]
LONGEST = 120  # seconds; no limit's window is longer
limits = st.builds(
    Limit, st.sampled_from([0, 1, 3, 20, 1500]), st.sampled_from([10, 12.5, 30, 60, LONGEST]) | st.floats(10, LONGEST)
)
rules = st.fixed_dictionaries({value: st.lists(limits, min_size=1, max_size=3).map(tuple) for value in VALUES})
weights = st.sampled_from([0, 1, 1, 1, 2, 7, 600, 10**9])
batches = st.lists(st.tuples(st.sampled_from(VALUES), weights), min_size=1, max_size=6)
steps = st.one_of(
    st.tuples(st.just("ask"), batches),
    st.tuples(st.just("ask"), batches),
    st.tuples(
        st.just("wait"), st.sampled_from([0.001, 0.5, 1, 10, 30, 60, LONGEST, 3 * LONGEST]) | st.floats(0, LONGEST)
    ),
    st.tuples(st.just("put back"), st.sampled_from([0.001, 1, 10]) | st.floats(0, LONGEST)),
    st.tuples(st.just("forget"), st.sampled_from(VALUES)),
    st.tuples(st.just("tidy"), st.none()),
    st.tuples(st.just("keep"), st.sampled_from([2, 3])),
    st.tuples(st.just("start again"), st.none()),
)


class Model:
    "Every mark that was ever made, and the counts by their definition."

    def __init__(self) -> None:
        self.marks: dict[tuple[str, str], list[float]] = defaultdict(list)

    def count(self, mark: Mark, now: float) -> tuple[int, ...]:
        made = self.marks[mark[:2]]
        if mark.weight:
            most = max(limit.allowed for limit in mark.limits) + SPARE_MARKS
            made[:] = [min(each, now) for each in made] + [now] * min(mark.weight, most)
        inside = [sum(each > now - limit.seconds for each in made) for limit in mark.limits]
        return tuple(min(marks, limit.allowed + SPARE_MARKS) for marks, limit in zip(inside, mark.limits, strict=True))


class Stores:
    "The three stores and the model, side by side."

    def __init__(self, folder: str, server: Server):
        self.clock, self.latest, self.model = Clock(), 1000.0, Model()
        self.path, self.server, self.spans = f"{folder}/marks.db", server, 2
        self.stores: list[Store] = [Memory(self.clock), *self.others()]
        self.keep(2)

    def others(self) -> tuple[Store, Store]:
        return Sqlite(self.path, self.clock), Redis(self.server.url, timeout=60, clock=self.clock)

    def keep(self, spans: int) -> None:
        self.spans = spans
        for store in self.stores:
            store.keep({"ip": spans * LONGEST, "user": spans * LONGEST})

    def start_again(self) -> None:
        for store in self.stores[1:]:
            store.close()
        self.server.admin().script_flush()
        self.stores[1:] = self.others()
        self.keep(self.spans)

    def wait(self, seconds: float) -> None:
        self.clock.now += seconds
        self.latest = max(self.latest, self.clock.now)

    def put_back(self, seconds: float) -> None:
        "What is older than a span is gone, so the clock must not go back to when it wasn't."
        self.clock.now = max(self.clock.now - seconds, self.latest - LONGEST)

    def ask(self, marks: list[Mark]) -> None:
        expected = [self.model.count(mark, self.clock.now) for mark in marks]
        assert [store.count(marks) for store in self.stores] == [expected] * 3

    def forget(self, name: str, value: str) -> None:
        marks = self.model.marks.pop((name, value), [])
        found = [store.forget(name, value) for store in self.stores]
        if any(each > self.clock.now - LONGEST for each in marks):  # what is older may be gone already
            assert found == [True] * 3

    def tidy(self) -> None:
        for store in self.stores:
            store.tidy()


@settings(max_examples=80)
@given(rules=rules, history=st.lists(steps, min_size=1, max_size=40))
def test_all_stores_answer_alike(
    shared_server: Server, rules: dict[tuple[str, str], tuple[Limit, ...]], history: list[tuple[str, Any]]
) -> None:
    shared_server.admin().flushall()
    with tempfile.TemporaryDirectory() as folder:
        stores = Stores(folder, shared_server)
        for what, argument in history:
            if what == "ask":
                stores.ask([Mark(name, value, rules[name, value], weight) for (name, value), weight in argument])
            elif what == "forget":
                stores.forget(*argument)
            else:
                getattr(stores, what.replace(" ", "_"))(*([] if argument is None else [argument]))
        for store in stores.stores:
            store.close()


def test_far_over_a_limit_all_stores_answer_alike(shared_server: Server) -> None:
    "A flood is counted exactly to a thousand over the limit. Then it dies away."
    shared_server.admin().flushall()
    with tempfile.TemporaryDirectory() as folder:
        stores = Stores(folder, shared_server)
        for _ in range(30):
            stores.ask([OFFICE] * 50)
            stores.wait(0.5)
        assert stores.stores[0].count([OFFICE._replace(weight=0)]) == [(10 + SPARE_MARKS,)]
        for _ in range(24):
            stores.wait(2.5)
            stores.ask([OFFICE._replace(weight=0)])
        assert stores.stores[0].count([OFFICE]) == [(1,)]


# A file


@pytest.mark.filterwarnings("error::DeprecationWarning")
def test_file_is_opened_as_later_versions_of_python_have_it(tmp_path: Path) -> None:
    "From Python 3.15 on, `sqlite3.connect` takes its time-out by name only; 3.13 begins to say so."
    with closing(Sqlite(str(tmp_path / "marks.db"))) as store:
        assert store.held() == 0


def test_killed_at_any_instant_the_file_is_whole_and_lacks_a_second_at_most(tmp_path: Path) -> None:
    script = """
import os, sys, time
from ra_plugins.rater.limits import Limit
from ra_plugins.rater.memory import Mark
from ra_plugins.rater.sqlite import Sqlite

now = 0.0
store = Sqlite(sys.argv[1], clock=lambda: now)
store.keep({"ip": 1e9})
for index in range(10**9):
    now = 50 * time.time()  # a second is over in 20 milliseconds
    value = str(index % 701)
    store.count([Mark("ip", value, (Limit(1000, 1e9),))])
    os.write(1, f"{value} {now!r}\\n".encode())
"""
    path, limit, safe, made = tmp_path / "marks.db", Limit(1_000_000, 1e9), Counter[str](), Counter[str]()
    for lines in (1, 3, 250, 251, 900, 1500, 2200, 3100, 4500, 6000):
        process = python(script, str(path))
        assert process.stdout is not None
        read = [next(process.stdout) for _ in range(lines)]
        process.kill()
        marks = [
            line.split() for line in read + process.communicate()[0].splitlines(keepends=True) if line.endswith("\n")
        ]
        last = float(marks[-1][1])
        safe += Counter(value for value, when in marks if float(when) <= last - LOSS)
        made += Counter(value for value, _ in marks)
        with closing(sqlite3.connect(path)) as database:
            assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        store = Sqlite(str(path), Clock(last))
        store.keep({"ip": 1e9})
        found = {value: counted(store, Mark("ip", value, (limit,), weight=0))[0] for value in made}
        store.close()
        assert all(safe[value] <= found[value] for value in made)
        assert sum(found.values()) <= sum(made.values()) + 1  # a mark whose answer wasn't printed any more
        safe, made = Counter(found), Counter(found)  # what is in the file now stays there
    assert sum(safe.values()) > 10_000


def test_full_disk_fails_and_loses_nothing(tmp_path: Path) -> None:
    script = """
import resource, sys
from ra_plugins.rater.limits import Limit
from ra_plugins.rater.memory import Mark, StoreError
from ra_plugins.rater.sqlite import Sqlite

now = 0.0
store = Sqlite(sys.argv[1], clock=lambda: now)
store.keep({"ip": 1e9})
limits = (Limit(10, 1e9),)
_, most = resource.getrlimit(resource.RLIMIT_FSIZE)
answered = 0
for full in (False, True, False):
    resource.setrlimit(resource.RLIMIT_FSIZE, (60_000 if full else most, most))
    for index in range(4000):
        now += 0.01
        try:
            store.count([Mark("ip", str(answered), limits)])
            answered += 1
        except StoreError as error:
            print(error)
    print(full, answered, len(store.changes.series))
print(sum(store.count([Mark("ip", str(value), limits, weight=0)])[0][0] for value in range(answered)) == answered)
store.close()
"""
    process = python(script, str(tmp_path / "marks.db"))
    lines = process.communicate()[0].splitlines()
    assert process.returncode == 0
    assert lines[0].startswith("False 4000 ")
    assert len([line for line in lines if "marks.db: disk" in line or "marks.db: database" in line]) > 3000
    (full,) = [line for line in lines if line.startswith("True ")]
    assert int(full.split()[2]) <= SLICE  # what can't be written doesn't grow
    assert lines[-1] == "True"


def test_file_that_may_not_be_written_fails_until_it_may(tmp_path: Path) -> None:
    clock = Clock()
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        Path(folder).chmod(0o755)
        store = Sqlite(f"{folder}/marks.db", clock)
        store.keep({"ip": 60})
        store.count([OFFICE])
        store.close()
        Path(store.file.path).chmod(0o444)
        Path(folder).chmod(0o555)
        if os.geteuid() == 0:  # may do everything
            os.seteuid(65534)
            stack.callback(os.seteuid, 0)
        clock.now += 2
        with pytest.raises(StoreError, match=r"marks\.db: \w"):
            store.count([OFFICE])
        stack.close()
        Path(folder).chmod(0o755)
        Path(store.file.path).chmod(0o644)
        clock.now += RETRY_PAUSE
        assert store.count([OFFICE]) == [(2,)]
        store.close()


def test_damaged_file_fails_until_it_is_moved_away(tmp_path: Path) -> None:
    clock = Clock()
    store = Sqlite(str(tmp_path / "marks.db"), clock)
    store.keep({"ip": 60})
    store.count([OFFICE._replace(value=str(value)) for value in range(2000)])
    store.close()
    path = tmp_path / "marks.db"
    data = bytearray(path.read_bytes())
    data[4096:] = b"\xff" * (len(data) - 4096)
    path.write_bytes(data)
    clock.now += 2
    with pytest.raises(StoreError, match=r"marks\.db: database disk image is malformed \(move"):
        store.count([OFFICE._replace(value=str(value)) for value in range(2000)])
    path.rename(tmp_path / "damaged")
    with pytest.raises(StoreError, match="malformed"):
        store.count([OFFICE])  # it isn't asked again at once
    clock.now += RETRY_PAUSE
    assert store.count([OFFICE]) == [(1,)]
    store.close()


def test_expired_values_go_a_slice_at_a_time(tmp_path: Path) -> None:
    clock = Clock()
    store = Sqlite(str(tmp_path / "marks.db"), clock)
    store.keep({"ip": 60})
    for value in range(10 * SLICE):
        store.count([OFFICE._replace(value=str(value))])
    clock.now += 60
    with closing(sqlite3.connect(tmp_path / "marks.db")) as other:
        held: list[int] = []
        while not held or held[-1]:
            store.tidy()
            held.append(other.execute("SELECT count(*) FROM series").fetchone()[0])
    assert held == [*range(9 * SLICE, -1, -SLICE)]
    store.close()


# A server


ASKING = """
import sys
from ra_plugins.rater.limits import Limit
from ra_plugins.rater.memory import Mark
from ra_plugins.rater.redis import Redis

url, allowed, *within = sys.argv[1:]
mark = Mark("ip", "192.0.2.1", (Limit(int(allowed), 3600),), within=(True,) * len(within))
store = Redis(url, timeout=60)
store.keep({"ip": 3600})
print("ready", flush=True)
sys.stdin.read()
for _ in range(100):
    for (marks,) in store.count([mark] * 5):
        print(marks)
"""


def counted_by_two(server: Server, allowed: int, *within: str) -> tuple[list[int], list[int]]:
    "What two raters are answered that ask 500 times each, beginning at the same time."
    gate, starter = os.pipe()
    command = [sys.executable, "-c", ASKING, server.url, str(allowed), *within]
    raters = [subprocess.Popen(command, cwd=ROOT, stdin=gate, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    for rater in raters:
        assert rater.stdout is not None and rater.stdout.readline() == "ready\n"
    os.close(starter)  # go
    one, other = ([int(line) for line in rater.communicate(timeout=60)[0].split()] for rater in raters)
    os.close(gate)
    return one, other


def test_two_raters_on_one_server_count_together(server: Server) -> None:
    one, other = counted_by_two(server, 1000)
    assert sorted(one + other) == list(range(1, 1001))
    assert one == sorted(one) and other == sorted(other)


def test_server_tells_the_time_and_drops_what_has_expired(server: Server, store: Redis) -> None:
    assert store.count([OFFICE, OFFICE]) == [(1,), (2,)]
    admin = server.admin()
    assert admin.keys() == [b"rater:ip 192.0.2.1"]
    assert 0 < admin.pttl("rater:ip 192.0.2.1") <= 60_000
    assert store.held() == 1 and store.forget("ip", "192.0.2.1") and not store.forget("ip", "192.0.2.1")
    assert store.held() == 0 and store.count([OFFICE]) == [(1,)]


def test_cost_of_a_question_does_not_grow_with_the_marks(server: Server, store: Redis) -> None:
    many = Mark("ip", "192.0.2.1", (Limit(100_000, 60),), weight=100_000)
    assert store.count([many]) == [(100_000,)]
    admin = server.admin()
    admin.config_resetstat()
    assert store.count([many._replace(weight=1)]) == [(100_001,)]
    assert admin.info("commandstats")["cmdstat_getrange"]["calls"] <= 20


def test_server_by_tcp_with_a_prefix_and_a_database(server: Server) -> None:
    store = open_store(f"redis://127.0.0.1:{server.port}/3?prefix=mail:&timeout=5")
    assert store.count([OFFICE]) == [(1,)]
    admin = redis.Redis(port=server.port, db=3)
    assert admin.keys() == [b"mail:ip 192.0.2.1"]
    store.close()


def test_password(server: Server) -> None:
    server.admin().config_set("requirepass", "secret")
    with pytest.raises(StoreError, match="Authentication required"):
        Redis(server.url).count([OFFICE])
    with pytest.raises(StoreError, match="invalid username-password pair"):
        Redis(f"unix://:wrong@{server.path}").count([OFFICE])
    assert Redis(f"unix://:secret@{server.path}").count([OFFICE]) == [(1,)]


def test_server_stopped_and_started_again(server: Server, store: Redis) -> None:
    assert store.count([OFFICE]) == [(1,)]
    server.stop()
    with pytest.raises(StoreError, match="^Redis: "):
        store.count([OFFICE])
    server.start()
    assert after_a_while(lambda: store.count([OFFICE])) == [(1,)]


def test_server_that_says_nothing(server: Server) -> None:
    known, new = Redis(server.url, timeout=0.4), Redis(server.url, timeout=0.4)
    after_a_while(lambda: known.count([OFFICE]))
    server.process.send_signal(signal.SIGSTOP)
    for store in (known, new):
        for _ in range(100):
            with pytest.raises(StoreError, match="Timeout"):
                store.count([OFFICE] * 20)
    server.process.send_signal(signal.SIGCONT)
    for store in (known, new):
        after_a_while(partial(store.count, [OFFICE]))
        store.close()


def test_server_that_answers_slowly_is_not_waited_for_at_each_answer(tmp_path: Path) -> None:
    sent = []
    given_up = threading.Event()

    def answer(listener: socket.socket) -> None:
        client, _ = listener.accept()
        with client:
            for number in range(100):
                if given_up.wait(0.05):
                    return
                client.sendall(b"*1\r\n:1\r\n")
                sent.append(number)

    with closing(socket.create_server(("127.0.0.1", 0))) as listener:
        thread = threading.Thread(target=answer, args=(listener,))
        thread.start()
        store = Redis(f"redis://127.0.0.1:{listener.getsockname()[1]}", timeout=0.4)
        with pytest.raises(StoreError, match="Timeout"):
            store.count([OFFICE] * 100)
        given_up.set()
        thread.join()
    assert 0 < len(sent) < 50


def test_server_that_forgets_its_scripts(server: Server, store: Redis) -> None:
    assert store.count([OFFICE, OFFICE]) == [(1,), (2,)]
    server.admin().script_flush()
    assert store.count([OFFICE, OFFICE]) == [(3,), (4,)]


def test_server_that_closes_idle_connections(server: Server, store: Redis) -> None:
    assert store.count([OFFICE]) == [(1,)]
    server.admin().client_kill_filter(_type="normal", skipme=True)
    assert store.count([OFFICE]) == [(2,)]


def test_full_server(server: Server, store: Redis) -> None:
    assert store.count([OFFICE]) == [(1,)]
    server.admin().config_set("maxmemory", 1)
    assert re.search(r"command not allowed.*192\.0\.2\.1$", failure(store, OFFICE))
    assert store.count([OFFICE._replace(weight=0)]) == [(1,)]
    server.admin().config_set("maxmemory", 0)
    assert store.count([OFFICE]) == [(2,)]


def test_key_that_another_program_uses(server: Server, store: Redis) -> None:
    server.admin().lpush("rater:ip 192.0.2.9", "theirs")
    assert re.search(r"WRONGTYPE.*rater:ip 192\.0\.2\.9$", failure(store, OFFICE._replace(value="192.0.2.9")))
    first, theirs, last = store.count([OFFICE, OFFICE._replace(value="192.0.2.9"), OFFICE])
    assert (first, last) == ((1,), (2,)) and isinstance(theirs, StoreError)  # the others are answered
    assert server.admin().lrange("rater:ip 192.0.2.9", 0, -1) == [b"theirs"]


def rater_over(store: Store, limit: str = "10 in 1m") -> Rater:
    "A rater with a class `ip`."
    return Rater(RuleBook({"ip": [Rule("*", [parse_limit(limit)])]}), store)


def ask(rater: Rater, *values: str) -> list[str]:
    "What a rater answers about addresses that come in one turn."
    return [
        answer.decode().rstrip() for answer in rater.answers([read_request(f"ip {value}".encode()) for value in values])
    ]


def test_an_error_of_one_key_is_the_answer_of_those_who_asked_about_it(
    server: Server, store: Redis, caplog: pytest.LogCaptureFixture
) -> None:
    "`WRONGTYPE` and an access list: the others are answered and marked, the client sees no key, the log says it once."
    admin, rater = server.admin(), rater_over(store)
    admin.lpush("rater:ip 192.0.2.9", "theirs")
    for count in range(1, 101):
        assert ask(rater, "192.0.2.1", "192.0.2.9", "192.0.2.2") == [
            f"{int(count > 10)} {count}/10",
            "2 Store failed",
            f"{int(count > 10)} {count}/10",
        ]
        assert ask(rater, "192.0.2.9") == ["2 Store failed"]
    errors = [each.getMessage() for each in caplog.records if each.levelname == "ERROR"]
    assert len(errors) == 1 and "WRONGTYPE" in errors[0] and errors[0].endswith("rater:ip 192.0.2.9")
    assert not [each for each in caplog.records if each.levelname == "WARNING"]
    admin.acl_setuser(
        "default", enabled=True, nopass=True, commands=["+@all"], keys=["rater:ip?192.0.2.1"], reset_keys=True
    )
    assert ask(rater, "192.0.2.1", "192.0.2.2", "192.0.2.1") == ["1 101/10", "2 Store failed", "1 102/10"]
    errors = [each.getMessage() for each in caplog.records if each.levelname == "ERROR"]
    assert len(errors) == 2 and "192.0.2.2" in errors[1]


@pytest.mark.parametrize("command", ["append", "pexpire", "set", "setrange", "getrange", "time"])
def test_who_is_told_2_is_not_marked_whatever_command_is_denied(server: Server, command: str) -> None:
    "A script that fails in its middle isn't undone, so nothing that can fail comes after the mark."
    clock, admin = Clock(), server.admin()
    store = Redis(server.url, timeout=60, clock=None if command == "time" else clock)
    store.keep({"ip": 60})
    admin.acl_setuser("default", enabled=True, nopass=True, commands=["+@all", f"-{command}"], keys=["*"])
    for step in (1, 1, -5, 1, 3000):
        clock.now += step
        before = admin.execute_command("STRLEN", "rater:ip 192.0.2.1")
        (found,) = store.count([OFFICE._replace(weight=700)])
        made = (admin.execute_command("STRLEN", "rater:ip 192.0.2.1") - before) // 8
        assert made <= 0 if isinstance(found, StoreError) else found[0] >= 700
        assert admin.pttl("rater:ip 192.0.2.1") != -1
    store.close()


def test_a_demoted_server_is_left(server: Server, program: str) -> None:
    "One that only copies another says READONLY; the next connection may lead to a server that writes."
    with tempfile.TemporaryDirectory() as folder:
        other = Server(program, Path(folder))
        with forwarding(server.port) as door:
            store = Redis(f"redis://127.0.0.1:{door.port}", timeout=60)
            store.keep({"ip": 60})
            assert store.count([OFFICE]) == [(1,)]
            server.admin().replicaof("127.0.0.1", other.port)
            with pytest.raises(StoreError, match="READONLY"):
                store.count([OFFICE, OFFICE])
            door.target = other.port
            first, second = after_a_while(lambda: store.count([OFFICE, OFFICE]))
            assert (first, second) == ((1,), (2,))
            store.close()
        other.stop()


def test_a_demoted_server_is_left_without_a_lost_question(server: Server, program: str) -> None:
    with started(program) as other, forwarding(server.port) as door:
        store = Redis(f"redis://127.0.0.1:{door.port}", timeout=60)
        store.keep({"ip": 60})
        assert store.count([OFFICE]) == [(1,)]
        door.target = other.port  # for new connections: ours stays with the server that is demoted now
        server.admin().replicaof("127.0.0.1", other.port)
        assert store.count([OFFICE, OFFICE]) == [(1,), (2,)]
        store.close()


def test_a_server_that_asks_for_a_password_by_now_is_asked_anew(server: Server) -> None:
    with_password = Redis(f"unix://:secret@{server.path}", timeout=60)
    server.admin().config_set("requirepass", "secret")
    assert with_password.count([OFFICE]) == [(1,)]
    without = Redis(server.url, timeout=60)
    with pytest.raises(StoreError, match="NOAUTH|Authentication required"):
        without.count([OFFICE])
    redis.Redis.from_url(f"unix://:secret@{server.path}").config_set("requirepass", "")
    assert after_a_while(lambda: without.count([OFFICE])) == [(2,)]


# What all stores do alike


@pytest.fixture(params=["memory", "sqlite", "redis-server", "valkey-server"])
def make(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Callable[..., Store]]:
    "Makes a store, and the same once more as after a restart."
    with ExitStack() as stack:
        yield partial(store_of_kind, str(request.param), tmp_path, stack, [])


def store_of_kind(
    kind: str, path: Path, stack: ExitStack, servers: list[Server], clock: Callable[[], float], most: int = 1_000_000
) -> Store:
    if kind == "memory":
        return Memory(clock, most)
    if kind == "sqlite":
        return Sqlite(str(path / "marks.db"), clock, most)
    if not servers:
        servers.append(stack.enter_context(started(installed(kind))))
    return Redis(servers[0].url, timeout=60, clock=clock, most=most)


def test_a_store_holds_so_many_values_and_lets_those_go_that_would_have_gone_soon(
    make: Callable[..., Store], caplog: pytest.LogCaptureFixture
) -> None:
    clock = Clock()
    store = make(clock, most=50)
    book = RuleBook({"soon": [Rule("*", [Limit(10, 600)])], "late": [Rule("*", [Limit(10, 60_000)])]})
    rater = Rater(book, store)
    for number in range(60):
        clock.now += 2  # a file is written to each second
        name = "soon" if number < 45 else "late"
        rater.answers([read_request(f"{name} {number}".encode())])
    clock.now += 2
    store.tidy()
    assert store.held() <= 50 and store.dropped == 10
    late = [Mark("late", str(number), (Limit(10, 60_000),), 0) for number in range(45, 60)]
    assert store.count(late) == [(1,)] * 15
    rater.tidy()
    full = [each.getMessage() for each in caplog.records if "the oldest go" in each.getMessage()]
    assert len(full) == 1
    store.close()


def test_a_long_value_is_held_under_a_digest(make: Callable[..., Store]) -> None:
    clock = Clock()
    store = make(clock)
    store.keep({"ip": 60})
    one, other = "x" * 898 + "1", "x" * 898 + "2"
    marks = [OFFICE._replace(value=value) for value in (one, other, one)]
    assert store.count(marks) == [(1,), (1,), (2,)] and store.held() == 2
    clock.now += 2
    store.tidy()
    held = [value for _, value in store.likely(10)]
    assert all(len(value) == HELD_LENGTH and value.startswith("x" * 31) for value in held)
    assert store.forget("ip", one) and not store.forget("ip", one) and store.held() == 1
    assert store.count([marks[0], marks[1]]) == [(1,), (2,)]
    store.close()


def test_names_of_899_bytes_take_little_memory() -> None:
    store = Memory()
    store.keep({"user": 3600})
    tracemalloc.start()
    for number in range(20_000):
        store.count([Mark("user", f"{number:0899}", (Limit(10, 3600),))])
    taken, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert taken / 20_000 < 300  # bytes


def test_who_is_over_and_goes_on_is_throttled_and_not_shut_out(make: Callable[..., Store]) -> None:
    clock = Clock()
    store = make(clock)
    rater = Rater(RuleBook({"ip": [Rule("*", [Limit(3, 60)], within=True)]}), store)
    said = []
    for clock.now in range(2000, 2200, 10):
        said += ask(rater, "192.0.2.1")
    assert said == (["0 1/3", "0 2/3", "0 3/3"] + ["1 4/3"] * 3) + (["0 3/3"] * 3 + ["1 4/3"] * 3) * 2 + ["0 3/3"] * 2
    clock.now -= 3600  # the clock is put back: nobody is shut out until it has caught up
    assert ask(rater, "192.0.2.1")[0].startswith("1 ")
    clock.now += 61
    assert ask(rater, "192.0.2.1") == ["0 1/3"]
    store.close()


def test_marks_live_as_long_as_a_longer_window_that_is_read_later(make: Callable[..., Store]) -> None:
    clock = Clock()
    store, longer = make(clock), OFFICE._replace(limits=(Limit(10, 3600),), weight=0)
    store.keep({"ip": 60})
    store.count([OFFICE._replace(value=str(number)) for number in range(300)])
    clock.now += 59
    store.tidy()
    store.keep({"ip": 3600})
    for clock.now in (1060.0, 1119.0, 1130.0, 4500.0):
        for _ in range(5):
            store.tidy()
        assert store.count([longer._replace(value=str(number)) for number in range(300)]) == [(1,)] * 300
    store.close()


def test_redis_keeps_keys_for_the_longer_window(server: Server) -> None:
    store = Redis(server.url, timeout=60)
    store.keep({"ip": 60, "user": 60})
    store.count([OFFICE, OFFICE._replace(name="user")])
    server.admin().lpush("rater:ip theirs", "x")
    store.keep({"ip": 3600, "user": 60})
    store.tidy()
    admin = server.admin()
    assert 3_500_000 < admin.pttl("rater:ip 192.0.2.1") <= 3_600_000 and admin.pttl("rater:user 192.0.2.1") <= 60_000
    assert admin.pttl("rater:ip theirs") == -1
    store.close()


def test_who_is_near_is_still_known_after_a_reload_and_a_restart(make: Callable[..., Store]) -> None:
    clock = Clock()
    store = make(clock)
    rules = [Rule("192.0.2.0/24", []), Rule("*", [Limit(4, 3600)], prefix6=64)]
    rater = Rater(RuleBook({"ip": rules}), store)
    ask(rater, "2001:db8::1", "2001:db8::2", "2001:db8::3", "198.51.100.1", "198.51.100.1", "198.51.100.2")
    expected = [("2001:db8::/64", 3), ("198.51.100.1", 2)]

    def near(of: Rater) -> list[tuple[str, int]]:
        return [(each.value, each.verdict.marks) for each in of.near.verdicts(of.store)]

    assert near(rater) == expected
    rater.use(RuleBook({"ip": rules}))
    assert near(rater) == expected
    store.close()
    if not isinstance(store, Memory):
        again = Rater(RuleBook({"ip": rules}), make(clock))
        assert near(again) == expected
        again.store.close()


@pytest.mark.parametrize(
    "down, answers", [("pass", ["0 0/0"] * 3), ("refuse", ["1 1/0"] * 3), ("memory", ["0 1/2", "0 2/2", "1 3/2"])]
)
def test_what_a_class_does_while_the_store_is_away(server: Server, down: str, answers: list[str]) -> None:
    store = Redis(server.url, timeout=60)
    rater = Rater(
        RuleBook({"ip": [Rule("*", [Limit(2, 60)])], "user": [Rule("*", [Limit(2, 60)])]}, {"ip": down}), store
    )
    assert ask(rater, "192.0.2.1") == ["0 1/2"]
    server.stop()
    assert ask(rater, "192.0.2.1", "192.0.2.1", "192.0.2.1") == answers
    assert rater.answers([read_request(b"user ana")]) == [b"2 Store failed\r\n"]
    server.start()
    after_a_while(store.held)
    assert ask(rater, "192.0.2.1") == ["0 1/2"]
    store.close()


def test_two_raters_on_one_server_let_no_more_through_than_one(server: Server) -> None:
    "`within` is atomic: of a thousand questions that two ask at the same time, a hundred are within the limit."
    one, other = counted_by_two(server, 100, "within")
    assert sorted(one + other) == [*range(1, 101), *[101] * 900]
    assert server.admin().strlen("rater:ip 192.0.2.1") == 800


# The log


def passed(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [each.getMessage() for each in caplog.records if "is over its limit" in each.getMessage()]


def test_the_log_names_each_limit_that_is_passed_and_does_not_repeat_itself(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "rater")
    clock = Clock()
    rater = Rater(RuleBook({"ip": [Rule("*", [Limit(2, 10), Limit(4, 3600)])]}), Memory(clock))
    rater.near.clock = clock
    for clock.now in range(1000, 1030):
        ask(rater, "192.0.2.1")
    assert passed(caplog) == [
        "ip 192.0.2.1 is over its limit of 2 in 10s: 3/2",
        "ip 192.0.2.1 is over its limit of 4 in 1h: 5/4",
    ]
    caplog.clear()
    for _ in range(5):
        rater.answers([read_request(b"-weight=5000 ip 192.0.2.2")])
    assert passed(caplog) == [
        "ip 192.0.2.2 is over its limit of 2 in 10s: 1002/2",
        "ip 192.0.2.2 is over its limit of 4 in 1h: 1004/4",
    ]
    caplog.clear()
    clock.now += 3600
    rater.answers([read_request(b"-weight=3 ip 192.0.2.2")])
    assert passed(caplog) == ["ip 192.0.2.2 is over its limit of 2 in 10s: 3/2"]
    rater.use(RuleBook({"ip": [Rule("*", [Limit(2, 10)])]}))  # the log is moved away: nothing is said again
    rater.answers([read_request(b"ip 192.0.2.2")])
    assert len(passed(caplog)) == 1


def test_one_limit_of_several_is_watched(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "rater")
    rater = Rater(
        RuleBook({"ip": [Rule("*", [Limit(10, 60), Limit(3, 3600)], watch=[Limit(3, 3600)])]}), Memory(Clock())
    )
    assert ask(rater, *["192.0.2.1"] * 11) == [*[f"0 {count}/10" for count in range(1, 11)], "1 11/10"]
    assert passed(caplog) == [
        "ip 192.0.2.1 is over its limit of 3 in 1h: 4/3, watched only",
        "ip 192.0.2.1 is over its limit of 10 in 1m: 11/10",
    ]
    assert rater.watched == {("ip", "3 in 1h"): 8}
