"What greylisting remembers: the same answers from a file, from Redis and from a model, and what becomes of them in trouble."

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import socketserver
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from redis_servers import Server, started

from ra_plugins.ask.answerer import Answerers
from ra_plugins.ask.question import Broken, Late
from ra_plugins.ask.seen import FEW, Seen, SeenAnswerer, Sighting, SightingsFile, SightingsServer, Terms
from ra_plugins.rater.memory import StoreError
from ra_plugins.rater.stores import open_store

ROOT = Path(__file__).resolve().parent.parent
DAY = 86400
TERMS = Terms(delay=300, window=2 * DAY, life=35 * DAY, proven=5)
Store = SightingsFile | SightingsServer


def ask(number: int = 0, now: int = 1000, terms: Terms = TERMS, client: str = "192.0.2.0/24") -> Seen:
    return Seen(client, f"ana{number}@example.net", "ben@example.org", terms, now)


@pytest.fixture(scope="module")
def program() -> str:
    found = shutil.which("redis-server") or shutil.which("valkey-server")
    if found is None:
        pytest.skip("redis-server isn't installed (Debian: redis-server)")
    return found


@pytest.fixture(scope="module")
def shared_server(program: str) -> Iterator[Server]:
    with started(program) as server:
        yield server


@pytest.fixture
def server(program: str) -> Iterator[Server]:
    "One to be broken."
    with started(program) as server:
        yield server


# The same answers


class Model:
    "What greylisting is, in dictionaries, and everything looked at each time."

    def __init__(self) -> None:
        self.waiting: dict[bytes, int] = {}
        self.passed: dict[bytes, int] = {}
        self.clients: dict[bytes, int] = {}
        self.successes: dict[bytes, tuple[int, int]] = {}

    def see(self, seen: Seen, most: int, dry: bool = False) -> Sighting:
        (triplet, client), now, (delay, window, life, proven) = seen.keys, seen.now, seen.terms
        waiting, passed, here = (
            each[key] if key in each and each[key] > now - span and each[key] <= now + 3600 else None
            for each, key, span in (
                (self.waiting, triplet, window),
                (self.passed, triplet, life),
                (self.clients, client, life),
            )
        )
        times, counted = self.successes[client] if here is not None else (0, None)
        if proven and times >= proven and here is not None:
            sighting, changed = Sighting("proven", max(0, now - here), 0), [(self.clients, client, life)]
        elif passed is not None:
            sighting, changed = Sighting("known", max(0, now - passed), 0), [(self.passed, triplet, life)]
        elif waiting is None:
            sighting, changed = Sighting("first", 0, delay), [(self.waiting, triplet, window)]
        elif (age := max(0, now - waiting)) < delay:
            sighting, changed = Sighting("early", age, delay - age), []
        else:
            sighting, changed = Sighting("passed", age, 0), [(self.passed, triplet, life)]
            changed += [(self.clients, client, life)] * (proven > 0)
        if not dry:
            if sighting.standing == "passed":
                del self.waiting[triplet]
                if proven:
                    counts = counted is None or counted > now or counted <= now - 3600
                    self.successes[client] = (times + 1, now) if counts or counted is None else (times, counted)
            for entries, key, span in changed:
                entries[key] = now
                self.tidy(entries, now, span, most)
        return sighting

    def tidy(self, entries: dict[bytes, int], now: int, span: int, most: int) -> None:
        def oldest_first() -> list[bytes]:
            return sorted(entries, key=lambda key: (entries[key], key))

        self.drop(entries, [key for key in reversed(oldest_first()) if entries[key] > now + 3600][:FEW])
        self.drop(entries, [key for key in oldest_first() if entries[key] <= now - span][:FEW])
        self.drop(entries, oldest_first()[: min(max(len(entries) - most, 0), FEW)])

    def drop(self, entries: dict[bytes, int], keys: list[bytes]) -> None:
        for key in keys:
            del entries[key]
            if entries is self.clients:
                del self.successes[key]


class Side:
    "The model, a file and a server, side by side."

    def __init__(self, folder: str, server: Server, most: int):
        self.path, self.server, self.most, self.now = f"{folder}/greylist.db", server, most, 1_700_000_000
        self.terms, self.model = TERMS, Model()
        self.open()

    def open(self) -> None:
        self.stores: list[Store] = [SightingsFile(self.path, self.most), SightingsServer(self.server.url, 60, self.most)]
        self.dry: list[Store] = [SightingsFile(self.path, self.most, True), SightingsServer(self.server.url, 60, self.most, True)]

    def close(self) -> None:
        for store in [*self.stores, *self.dry]:
            store.close()

    def see(self, triplet: tuple[str, str, str]) -> None:
        seen = Seen(*triplet, self.terms, self.now)
        looked = self.model.see(seen, self.most, dry=True)
        assert [store.see(seen, 60) for store in self.dry] == [looked] * 2
        assert [store.see(seen, 60) for store in self.stores] == [self.model.see(seen, self.most)] * 2

    def held(self) -> list[list[int]]:
        model = [len(each) for each in (self.model.waiting, self.model.passed, self.model.clients)]
        with closing(sqlite3.connect(self.path)) as database:
            told = [each for (each,) in database.execute("SELECT number FROM held ORDER BY kind")]
            counted = [database.execute("SELECT count(*) FROM entries WHERE kind = ?", (k,)).fetchone()[0] for k in range(3)]
        admin = self.server.admin()
        redis = [admin.zcard(f"greylist:{name}") for name in ("waiting", "passed", "clients")]
        assert admin.hlen("greylist:successes") == redis[2]
        return [model, told, counted, redis]


triplets = st.tuples(
    st.sampled_from(["192.0.2.0/24", "2001:db8::/64", "198.51.100.0/24"]),
    st.sampled_from(["", "ana@example.net", "andr\udce9@example.net"]),
    st.sampled_from(["ben@example.org", "eva@example.org"]),
)
spans = st.sampled_from([0, 1, 60, 299, 300, 301, 3599, 3600, 3601, DAY, 2 * DAY, 35 * DAY, 40 * DAY]) | st.integers(0, 40 * DAY)
steps = st.one_of(
    st.tuples(st.just("see"), triplets),
    st.tuples(st.just("see"), triplets),
    st.tuples(st.just("come back"), triplets),
    st.tuples(st.just("wait"), spans),
    st.tuples(st.just("put back"), spans),
    st.tuples(st.just("terms"), st.builds(Terms, st.integers(0, 600), st.sampled_from([601, 2 * DAY]), spans, st.integers(0, 3))),
    st.tuples(st.just("start again"), st.none()),
)


@settings(max_examples=100, deadline=None)
@given(most=st.sampled_from([1, 2, 5, 1000]), history=st.lists(steps, min_size=1, max_size=60))
def test_file_and_server_answer_as_the_model(shared_server: Server, most: int, history: list[tuple[str, Any]]) -> None:
    shared_server.admin().flushall()
    with tempfile.TemporaryDirectory() as folder:
        side = Side(folder, shared_server, most)
        for what, argument in history:
            if what == "see":
                side.see(argument)
            elif what == "come back":
                side.see(argument)
                side.now += side.terms.delay
                side.see(argument)
            elif what == "wait":
                side.now += argument
            elif what == "put back":
                side.now -= argument
            elif what == "terms":
                side.terms = argument
            else:
                side.close()
                shared_server.admin().script_flush()
                side.open()
        if any(what in ("see", "come back") for what, _ in history):
            held = side.held()
            assert held == [held[0]] * 4
        side.close()


def stories(store: Store) -> None:
    "By hand: a client that comes too early, too late, in time, and again, until it has proven itself."
    now = 1_700_000_000
    assert store.see(ask(1, now), 60) == Sighting("first", 0, 300)
    assert store.see(ask(1, now + 299), 60) == Sighting("early", 299, 1)
    assert store.see(ask(1, now + 2 * DAY), 60) == Sighting("first", 0, 300)
    now += 2 * DAY
    assert store.see(ask(1, now + 300), 60) == Sighting("passed", 300, 0)
    assert store.see(ask(1, now + 300 + 35 * DAY - 1), 60) == Sighting("known", 35 * DAY - 1, 0)
    now += 36 * DAY
    for number in range(2, 6):  # the first success is a month old, so four more are needed, and a fifth that counts
        assert store.see(ask(number, now), 60).standing == "first"
        now += 3600
        assert store.see(ask(number, now), 60) == Sighting("passed", 3600, 0)
    assert store.see(ask(6, now), 60).standing == "first"
    now += 3600
    assert store.see(ask(6, now), 60).standing == "passed"
    assert store.see(ask(7, now + 60), 60) == Sighting("proven", 60, 0)
    assert store.see(ask(8, now + 60, client="198.51.100.0/24"), 60).standing == "first"
    assert store.see(ask(9, now + 60 + 35 * DAY), 60).standing == "first"


def test_a_file_tells_the_stories(tmp_path: Path) -> None:
    with closing(SightingsFile(str(tmp_path / "greylist.db"), 1000)) as store:
        stories(store)


def test_a_server_tells_the_stories(shared_server: Server) -> None:
    shared_server.admin().flushall()
    with closing(SightingsServer(shared_server.url, 60, 1000)) as store:
        stories(store)


def test_a_hundred_successes_within_an_hour_are_one(tmp_path: Path) -> None:
    with closing(SightingsFile(str(tmp_path / "greylist.db"), 1000)) as store:
        for number in range(100):
            store.see(ask(number, 1000), 1)
        assert Counter(store.see(ask(number, 1300 + number), 1).standing for number in range(100)) == {"passed": 100}
        assert store.see(ask(100, 1500), 1).standing == "first"


# What is held


def held(path: Path) -> list[int]:
    with closing(sqlite3.connect(path)) as database:
        return [number for (number,) in database.execute("SELECT number FROM held ORDER BY kind")]


def test_a_flood_of_strangers_is_bounded_and_drives_out_nobody_who_has_passed(tmp_path: Path) -> None:
    path = tmp_path / "greylist.db"
    with closing(SightingsFile(str(path), 1000)) as store:
        store.see(ask(0, 0), 1)
        assert store.see(ask(0, 300), 1).standing == "passed"
        for number in range(1, 5000):
            store.see(ask(number, 400), 1)
        assert held(path) == [1000, 1, 1]
        assert store.see(ask(0, 500), 1).standing == "known"


def test_a_file_full_of_those_who_have_passed_lets_strangers_in(tmp_path: Path) -> None:
    with closing(SightingsFile(str(tmp_path / "greylist.db"), 1000)) as store:
        for number in range(1500):
            store.see(ask(number, number), 1)
            store.see(ask(number, number + 300), 1)
        assert store.see(ask(2000, 3000), 1).standing == "first"
        assert store.see(ask(2000, 3300), 1).standing == "passed"


def test_old_ones_go_a_few_at_a_time(tmp_path: Path) -> None:
    path = tmp_path / "greylist.db"
    with closing(SightingsFile(str(path), 1000)) as store:
        for number in range(100):
            store.see(ask(number, 1000), 1)
        found = []
        for number in range(100, 130):
            store.see(ask(number, 1000 + 2 * DAY), 1)
            found.append(held(path)[0])
    assert found == [100 - FEW * each + each for each in range(1, 26)] + [26, 27, 28, 29, 30]


def test_a_dry_run_changes_nothing(tmp_path: Path, shared_server: Server) -> None:
    path, admin = tmp_path / "greylist.db", shared_server.admin()
    admin.flushall()
    looks: list[Store] = [SightingsFile(str(path), 1000, dry=True), SightingsServer(shared_server.url, 60, 1000, dry=True)]
    assert [look.see(ask(), 1).standing for look in looks] == ["first"] * 2
    assert list(tmp_path.iterdir()) == [] and admin.keys() == []
    stores: list[Store] = [SightingsFile(str(path), 1000), SightingsServer(shared_server.url, 60, 1000)]
    for store in stores:
        store.see(ask(), 1)
    assert [look.see(ask(now=1300), 1).standing for look in looks] == ["passed"] * 2  # while others have the file open
    looks[0].close()
    for store in stores:
        store.close()
    before = path.read_bytes(), admin.zrange("greylist:waiting", 0, -1, withscores=True), admin.keys()
    assert [look.see(ask(now=1300), 1).standing for look in looks] == ["passed"] * 2
    assert [look.see(ask(1), 1).standing for look in looks] == ["first"] * 2
    assert (path.read_bytes(), admin.zrange("greylist:waiting", 0, -1, withscores=True), admin.keys()) == before
    assert [each.name for each in tmp_path.iterdir()] == ["greylist.db"]
    for look in looks:
        look.close()


HOSTILE = ["a" * 890 + "@b.example", "andr\udce9@example.net", "\"'; DROP TABLE entries; --\"@example.net", "a\rb@c", ""]


def test_whatever_an_address_holds_it_is_kept_as_16_bytes(tmp_path: Path, shared_server: Server) -> None:
    shared_server.admin().flushall()
    stores: list[Store] = [SightingsFile(str(tmp_path / "greylist.db"), 1000), SightingsServer(shared_server.url, 60, 1000)]
    for store in stores:
        for now, standing in ((1000, "first"), (1300, "passed"), (1301, "known")):
            seen = [Seen("192.0.2.0/24", sender, rcpt, TERMS, now) for sender in HOSTILE for rcpt in HOSTILE]
            assert {store.see(each, 1).standing for each in seen} == {standing}
        store.close()
    with closing(sqlite3.connect(tmp_path / "greylist.db")) as database:
        assert database.execute("SELECT DISTINCT length(key) FROM entries").fetchall() == [(16,)]
    assert {len(each) for each in shared_server.admin().zrange("greylist:passed", 0, -1)} == {16}


# Many at once

MANY = """
import sys
from ra_plugins.ask.answerer import Answerers
from ra_plugins.ask.seen import Seen, Terms

terms = Terms(300, 172800, 3024000, 5)
sys.stdin.read()
with Answerers({"GREYLISTSTORE": sys.argv[1], "GREYLISTTIMEOUT": "60"}) as answerers:
    for number in range(20):
        for sender in ("all", sys.argv[2]):
            seen = Seen("192.0.2.0/24", f"{sender}{number}@example.net", "b@example.org", terms, 9)
            print(sender, number, answerers.tell(seen))
"""


def asked_by_many(store: str, processes: int) -> Counter[tuple[str, str]]:
    "What so many processes are told that begin at the same moment: for which triplets, and how often."
    gate, starter = os.pipe()
    command = [sys.executable, "-c", MANY, store]
    started = [
        subprocess.Popen([*command, f"own{each}-"], cwd=ROOT, stdin=gate, stdout=subprocess.PIPE, text=True)
        for each in range(processes)
    ]
    os.close(starter)
    os.close(gate)
    lines = [line for process in started for line in process.communicate(timeout=300)[0].splitlines()]
    return Counter((line.split()[0][:3], line.split("standing=")[-1]) for line in lines)


@pytest.mark.parametrize("kind", ["file", "server"])
def test_fifty_processes_at_once(kind: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    "Of those who come with the same triplet, one is the first."
    path = tmp_path / "greylist.db"
    store = str(path)
    if kind == "server":
        server = request.getfixturevalue("shared_server")
        server.admin().flushall()
        store = server.url
    assert asked_by_many(store, 50) == {
        ("all", "'first', age=0, wait=300)"): 20,
        ("all", "'early', age=0, wait=300)"): 49 * 20,
        ("own", "'first', age=0, wait=300)"): 50 * 20,
    }
    if kind == "file":
        assert held(path) == [51 * 20, 0, 0]
        with closing(sqlite3.connect(path)) as database:
            assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)


@pytest.mark.parametrize("kind", ["file", "server"])
def test_a_service_asks_for_many_sessions_at_once(kind: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    store = str(tmp_path / "greylist.db")
    if kind == "server":
        server = request.getfixturevalue("shared_server")
        server.admin().flushall()
        store = server.url

    async def all_of_them() -> list[Any]:
        async with Answerers({"GREYLISTSTORE": store, "GREYLISTTIMEOUT": "60"}) as answerers:
            return await asyncio.gather(*(answerers.atell(ask(number % 50)) for number in range(200)))

    assert Counter(each.standing for each in asyncio.run(all_of_them())) == {"first": 50, "early": 150}


# Trouble


def tell(store: str, seen: Seen, timeout: str = "1", within: float = 60) -> Any:
    with Answerers({"GREYLISTSTORE": store, "GREYLISTTIMEOUT": timeout}) as answerers:
        return answerers.tell(seen, time.monotonic() + within)


def test_a_locked_file_is_waited_for_and_then_told(tmp_path: Path) -> None:
    path = str(tmp_path / "greylist.db")
    tell(path, ask())
    with closing(sqlite3.connect(path, isolation_level=None, check_same_thread=False)) as other:
        other.execute("BEGIN IMMEDIATE")
        locked = tell(path, ask(), "0")
        assert isinstance(locked, Broken) and str(locked) == f"{path}: database is locked (another process writes to it)"
        releasing = threading.Timer(0.2, other.execute, ("ROLLBACK",))
        releasing.start()
        assert tell(path, ask(), "60").standing == "early"
        releasing.join()


def test_a_locked_file_costs_no_more_than_the_deadline(tmp_path: Path) -> None:
    path = str(tmp_path / "greylist.db")
    tell(path, ask())
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        assert isinstance(tell(path, ask(), "3600", within=0.1), Broken)  # it would take an hour
        assert isinstance(tell(path, ask(), "3600", within=0), Late)


def test_a_damaged_file_is_told_until_it_is_moved_away(tmp_path: Path) -> None:
    path = tmp_path / "greylist.db"
    with closing(SightingsFile(str(path), 1000)) as store:
        for number in range(500):
            store.see(ask(number), 1)
    data = bytearray(path.read_bytes())
    data[4096:] = b"\xff" * (len(data) - 4096)
    path.write_bytes(data)
    broken = tell(str(path), ask())
    assert isinstance(broken, Broken)
    assert str(broken).endswith("malformed (move the file away, and greylist makes a new one)")
    path.write_bytes(b"no database at all" * 100)
    assert str(tell(str(path), ask())).endswith("file is not a database (name another file)")
    path.unlink()
    assert tell(str(path), ask()).standing == "first"


def test_a_file_of_another_program_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "other.db"
    with closing(sqlite3.connect(path)) as other:
        other.execute("CREATE TABLE people (name)")
    before = path.read_bytes()
    assert str(tell(str(path), ask())).endswith("a database of another program; name another file")
    assert path.read_bytes() == before


FULL = """
import resource, sys
from ra_plugins.ask.question import Broken
from ra_plugins.ask.seen import Seen, SightingsFile, Terms

terms = Terms(300, 172800, 3024000, 5)
clock = 0.0
store = SightingsFile(sys.argv[1], 100000)
store.file.clock = lambda: clock
_, most = resource.getrlimit(resource.RLIMIT_FSIZE)
for full in (False, True, False):
    resource.setrlimit(resource.RLIMIT_FSIZE, (60_000 if full else most, most))
    for number in range(1500):
        clock += 2
        try:
            print(store.see(Seen("192.0.2.0/24", f"{full}{number}@example.net", "b@example.org", terms, 9), 1).standing)
        except Broken as why:
            print(why)
"""


def test_a_full_disk_is_told_and_what_was_kept_stays(tmp_path: Path) -> None:
    path = tmp_path / "greylist.db"
    done = subprocess.run([sys.executable, "-c", FULL, str(path)], cwd=ROOT, capture_output=True, text=True, check=True)
    lines = done.stdout.splitlines()
    assert lines[:1500] == ["first"] * 1500
    told = Counter(line for line in lines[1500:3000] if line not in ("first", "early"))
    assert sum(told.values()) > 1000
    assert all(line.startswith(f"{path}: d") and line.endswith(("sound?)", "(make room)")) for line in told), told
    assert lines[3000:] == ["early"] * 1500


def test_a_file_that_may_not_be_written_is_told_until_it_may(tmp_path: Path) -> None:
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        path = Path(folder, "greylist.db")
        tell(str(path), ask())
        path.chmod(0o444)
        Path(folder).chmod(0o555)
        if os.geteuid() == 0:  # may do everything
            os.seteuid(65534)
            stack.callback(os.seteuid, 0)
        assert isinstance(tell(str(path), ask()), Broken)
        stack.close()
        Path(folder).chmod(0o755)
        path.chmod(0o644)
        assert tell(str(path), ask()).standing == "early"


def test_killed_at_any_instant_the_file_is_whole_and_its_counts_are_right(tmp_path: Path) -> None:
    path, kept = tmp_path / "greylist.db", 0
    script = """
import sys
from ra_plugins.ask.seen import Seen, SightingsFile, Terms

store = SightingsFile(sys.argv[1], 100000)
for number in range(int(sys.argv[2]), 10**9):
    store.see(Seen("192.0.2.0/24", f"{number}@example.net", "b@example.org", Terms(300, 172800, 3024000, 5), 9), 60)
    print(number, flush=True)
"""
    for lines in (1, 5, 50, 300, 700):
        process = subprocess.Popen([sys.executable, "-c", script, path, str(kept)], cwd=ROOT, stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        read = [next(process.stdout) for _ in range(lines)]
        process.kill()
        answered = 1 + max(int(line) for line in read + process.communicate()[0].splitlines(keepends=True) if line[-1:] == "\n")
        with closing(sqlite3.connect(path)) as database:
            assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
            (kept,) = database.execute("SELECT count(*) FROM entries").fetchone()
        assert held(path) == [kept, 0, 0]
        assert answered <= kept <= answered + 1  # the last one's answer may not have been printed any more


def test_a_server_that_is_stopped_and_started_again(server: Server) -> None:
    with closing(SightingsServer(server.url, 2, 1000)) as store:
        assert store.see(ask(), 1).standing == "first"
        server.stop()
        with pytest.raises(Broken, match=r"^Redis: "):
            store.see(ask(), 1)
        server.start()
        with pytest.raises(Broken, match=r"^Redis: "):  # not asked again yet
            store.see(ask(), 1)
        store.failed = float("-inf")
        assert store.see(ask(), 1).standing == "first"  # this server keeps nothing over a restart


def test_a_server_that_says_nothing_is_waited_for_once(server: Server) -> None:
    server.process.send_signal(signal.SIGSTOP)
    with closing(SightingsServer(server.url, 0.4, 1000)) as store:
        for _ in range(100):
            with pytest.raises(Broken, match="Timeout"):
                store.see(ask(), 1)
    server.process.send_signal(signal.SIGCONT)


def test_a_server_that_closes_idle_connections_is_no_failure(server: Server) -> None:
    with closing(SightingsServer(server.url, 60, 1000)) as store:
        assert store.see(ask(), 1).standing == "first"
        server.admin().client_kill_filter(_type="normal", skipme=True)
        assert store.see(ask(), 1).standing == "early"


def test_a_full_server_is_told(server: Server) -> None:
    server.admin().config_set("maxmemory", 1)
    full = tell(server.url, ask())
    assert isinstance(full, Broken) and "maxmemory" in str(full)


def test_a_password_is_in_no_answer(server: Server) -> None:
    server.admin().config_set("requirepass", "secret")
    for url in (f"unix://:wrong@{server.path}", f"redis://:wrong@127.0.0.1:{server.port}", server.url, "redis://:wrong/x@h:1"):
        told = tell(url, ask())
        assert isinstance(told, Broken) and "wrong" not in repr(told) and "secret" not in repr(told), told
    assert tell(f"unix://:secret@{server.path}?prefix=mx:", ask()).standing == "first"


def test_an_answerer_opens_nothing_before_it_is_asked(tmp_path: Path) -> None:
    answerers = Answerers({"GREYLISTSTORE": str(tmp_path / "greylist.db")})
    assert isinstance(answerers.find(Seen), SeenAnswerer)
    assert list(tmp_path.iterdir()) == []
    answerers.close()


@pytest.mark.parametrize("dry", [False, True])
@pytest.mark.parametrize("store", ["redis//:s3cret@h/0", "valkey://:s3cret@h/0", "postgres://u:s3cret@h/d", "greylist.db"])
def test_what_is_no_store_is_told_without_being_shown(store: str, dry: bool) -> None:
    "A slip of the pen in a URL puts no password into a log, and is seen in a dry run, too."
    with Answerers({"GREYLISTSTORE": store}, dry=dry) as answerers:
        why = answerers.tell(Seen("192.0.2.0/24", "ana@example.net", "ben@example.org", TERMS, 0))
    assert isinstance(why, Broken)
    assert str(why) == "GREYLISTSTORE should be redis://HOST, rediss://HOST, unix:///PATH, or the full path of a file"


@pytest.mark.parametrize(
    "url",
    [
        "redis://:open/s3cret@192.0.2.1",
        "redis://:1/s3cret@192.0.2.1",
        "redis://u:1#s3cret@192.0.2.1",
        "redis://u:1?s3cret@192.0.2.1",
        "rediss://u:open@1/s3cret@192.0.2.1",
        "unix://:1/s3cret@/run/redis.sock",
        "redis://:open@192.0.2.1:s3cret",
        "redis://[s3cret@192.0.2.1",
    ],
)
def test_a_password_that_isnt_escaped_is_no_host(url: str) -> None:
    "Its end is neither looked up nor shown; rater's store takes it likewise."
    told = tell(url, ask())
    assert isinstance(told, Broken) and str(told).startswith("GREYLISTSTORE should be redis://HOST")
    with pytest.raises(ValueError) as why:
        open_store(url)
    assert "s3cret" not in str(why.value) and "%2F" in str(why.value)


def test_what_is_escaped_is_no_mistake() -> None:
    for url in ("redis://:s3%40%2Fcret@127.0.0.1:1/0?prefix=mx:", "redis://u:s3@cret@127.0.0.1:1", "unix://:a@/nowhere/redis@1/sock?db=1"):
        told = tell(url, ask())
        assert isinstance(told, Broken) and str(told).startswith("Redis: ") and "cret" not in str(told)
    with pytest.raises(ValueError, match="is no store") as why:
        open_store("redsi://u:s3cret@127.0.0.1")
    assert "s3cret" not in str(why.value)


@pytest.mark.parametrize(
    ("options", "named"), [("pasword=x", ": pasword"), ("db=1&colour=red", ": colour"), ("protocol=9", "")]
)
def test_a_mistake_in_the_options_is_one_of_the_setting(options: str, named: str) -> None:
    "Told at once, without Python's words."
    told = tell(f"redis://:s3cret@127.0.0.1:1/0?{options}", ask())
    assert str(told) == f"GREYLISTSTORE has an option that redis-py doesn't take{named}"


class Odd(socketserver.BaseRequestHandler):
    "A server that isn't one: it says the same over and over."

    says, pause = b"$", 0.02

    def handle(self) -> None:
        with suppress(OSError):
            while True:
                self.request.sendall(self.says)
                time.sleep(self.pause)


@contextmanager
def odd_server(says: bytes) -> Iterator[str]:
    handler = type("Saying", (Odd,), {"says": says})
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), handler) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"redis://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


def test_a_server_that_drips_has_no_more_time_than_one_that_is_silent() -> None:
    "However many bytes come: the limit is for all of them, and the thread that heard them is free afterwards."
    with odd_server(b"$") as url, closing(SightingsServer(url, 0.4, 1000)) as store:
        with pytest.raises(Broken, match=r"^Redis: no answer within 0.4 s$"):
            store.see(ask(), 60)
        deadline = time.monotonic() + 30
        while store.begun:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        store.failed = float("-inf")
        with pytest.raises(Late):  # one who has less time isn't a failure of the server's
            store.see(ask(), 0.01)
        assert store.failed == float("-inf")


def test_raters_store_is_held_to_its_time_as_well() -> None:
    with odd_server(b"$") as url, closing(open_store(f"{url}?timeout=0.4")) as store, pytest.raises(StoreError, match="Timeout"):
        store.held()


def test_something_else_that_answers_is_told_as_that() -> None:
    for says in (b"+OK\r\n", b"HTTP/1.0 400 bad\r\n\r\n", b":1\r\n"):
        with odd_server(says) as url:
            told = tell(url, ask())
        assert isinstance(told, Broken) and str(told).startswith("Redis: "), told
