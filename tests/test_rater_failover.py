"Marks in more than one server: a failover in the middle of load, by sentinels and in a cluster."

from __future__ import annotations

import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

import pytest
import redis
from mailserver import beside
from redis.crc import key_slot
from redis_servers import PATIENCE, Clustered, Guarded, installed, until

from ra_plugins.rater.limits import Limit, Rule, RuleBook
from ra_plugins.rater.memory import RETRY_PAUSE, Mark, StoreError
from ra_plugins.rater.protocol import Rater, read_request
from ra_plugins.rater.redis import Redis

HOUR = Limit(1_000_000, 3600)
OFFICE = Mark("ip", "192.0.2.1", (HOUR,))
VALUES = [f"192.0.2.{last}" for last in range(1, 41)]


@pytest.fixture(params=["redis-server", "valkey-server"])
def program(request: pytest.FixtureRequest) -> str:
    return installed(str(request.param))


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


@pytest.fixture
def folder(stack: ExitStack) -> Path:
    return Path(
        stack.enter_context(tempfile.TemporaryDirectory())
    )  # not tmp_path: the path of a socket has to be short


@pytest.fixture
def guarded(program: str, folder: Path, stack: ExitStack) -> Guarded:
    return Guarded(program, folder, stack)


@pytest.fixture
def clustered(program: str, folder: Path, stack: ExitStack) -> Clustered:
    return Clustered(program, folder, stack)


class Load:
    "Questions about all values, again and again, and what each was answered."

    def __init__(self, store: Redis, down: str | None = None):
        book = RuleBook({"ip": [Rule("*", [HOUR])]}, {"ip": down} if down else {})
        self.rater, self.answers = Rater(book, store), list[list[bytes]]()
        self.turn, self.ended = threading.Condition(), False

    def run(self) -> None:
        "Ask until told to end."
        requests = [read_request(f"ip {value}".encode()) for value in VALUES]
        while not self.ended:
            answers = self.rater.answers(requests)
            with self.turn:
                self.answers.append(answers)
                self.turn.notify_all()

    def wait(self, happens: Callable[[list[bytes]], bool], since: int | None = None) -> list[bytes]:
        "The next answers that are as wanted, from now on or since so many."
        with self.turn:
            place = len(self.answers) if since is None else since
            while True:
                for answers in self.answers[place:]:
                    if happens(answers):
                        return answers
                place = len(self.answers)
                assert self.turn.wait(PATIENCE)


@contextmanager
def under_load(load: Load) -> Iterator[Load]:
    with beside(load.run, partial(setattr, load, "ended", True)):
        yield load


def all_counted(answers: list[bytes]) -> bool:
    return all(answer.startswith(b"0 ") for answer in answers)


def counted(answer: bytes) -> int:
    return int(answer.split()[1].partition(b"/")[0])


def test_sentinels_name_another_server_in_the_middle_of_load(guarded: Guarded) -> None:
    "The first is killed. What the second had copied by then still counts, and nothing has to be restarted."
    store = Redis(guarded.url)
    with under_load(Load(store)) as load:
        load.wait(all_counted)
        first, second = guarded.servers
        assert guarded.main() is first
        load.wait(lambda answers: all_counted(answers) and counted(answers[0]) > 20)
        copied = until(lambda: second.admin().strlen("rater:ip 192.0.2.1") // 8, "it is copied")
        begin = len(load.answers)
        first.kill()
        assert set(load.wait(lambda answers: not all_counted(answers), begin)) == {b"2 Store failed\r\n"}
        answers = load.wait(all_counted)
        assert counted(answers[0]) > copied
        assert guarded.main() is second
        first.start()  # it is told to copy the second; on a busy machine they may have changed over once more by then
        until(guarded.has_one_copy, "one of the two copies the other")
        load.wait(all_counted)
    store.close()


def test_sentinels_are_told_to_change_over(guarded: Guarded) -> None:
    "The server stays alive, as one that only copies. rater leaves it."
    store = Redis(guarded.url)
    with under_load(Load(store)) as load:
        load.wait(all_counted)
        first, second = guarded.servers
        redis.Redis(port=guarded.ports[0]).execute_command("SENTINEL FAILOVER mail")
        until(lambda: second.admin().info("replication")["role"] == "master", "the second is the one")
        until(lambda: first.admin().info("replication")["role"] == "slave", "the first copies it")
        before = second.admin().strlen("rater:ip 192.0.2.1")
        load.wait(all_counted)
        until(lambda: guarded.main().admin().strlen("rater:ip 192.0.2.1") > before, "the one that they name is asked")
    store.close()


def test_a_class_is_counted_in_memory_while_there_is_no_server(guarded: Guarded) -> None:
    store = Redis(guarded.url)
    with under_load(Load(store, down="memory")) as load:
        load.wait(lambda answers: counted(answers[0]) > 5)
        begin = len(load.answers)
        guarded.main().kill()
        load.wait(lambda answers: counted(answers[0]) == 1, begin)  # it begins anew
        load.wait(lambda answers: not load.rater.health.failing)
    assert all(map(all_counted, load.answers))  # each question has had its verdict
    store.close()


def test_no_sentinel_no_verdict(folder: Path) -> None:
    store = Redis("redis+sentinel://127.0.0.1:1,127.0.0.1:2/mail?timeout=0.5")
    with pytest.raises(StoreError, match="No master found for 'mail'"):
        store.count([OFFICE])


def test_a_cluster_loses_a_server_in_the_middle_of_load(clustered: Clustered) -> None:
    "Those whose server is gone wait for its heir, and the others are answered all the time."
    store, client = Redis(clustered.url), clustered.client()
    owners = [client.get_node_from_key(f"rater:ip {value}").port for value in VALUES]
    assert len(set(owners)) == 3
    lost = owners[0]
    others = [index for index, owner in enumerate(owners) if owner != lost]
    with under_load(Load(store)) as load:
        load.wait(lambda answers: all_counted(answers) and counted(answers[0]) > 20)
        written = clustered.at(lost).admin().info("replication")["master_repl_offset"]
        until(partial(clustered.has_copied, lost, written), "it is copied")
        begin = len(load.answers)
        clustered.at(lost).kill()
        load.wait(lambda answers: not all_counted(answers), begin)
        answers = load.wait(all_counted)
        assert counted(answers[0]) > 20  # its heir had copied what was marked
        during = load.answers[begin:]
    partly = [answers for answers in during if not all_counted(answers)]
    for answers in partly:
        assert {answers[index] for index in range(len(VALUES)) if index not in others} == {b"2 Store failed\r\n"}
    assert partly and all(answers[index].startswith(b"0 ") for answers in during for index in others)
    assert store.held() == len(VALUES)
    store.close()


def test_a_slot_of_a_cluster_is_moved_in_the_middle_of_load(clustered: Clustered) -> None:
    "While it is on its way, and after that, each question is answered and none is counted twice."
    store, client = Redis(clustered.url), clustered.client()
    key = "rater:ip 192.0.2.1"
    slot, owner = key_slot(key.encode()), client.get_node_from_key(key)
    heir = next(node for node in client.get_primaries() if node.port != owner.port)
    source, target = clustered.at(owner.port).admin(), clustered.at(heir.port).admin()
    ids = {address.partition("@")[0]: node["node_id"] for address, node in source.cluster("nodes").items()}
    new = next(
        value for value in (f"x{number}" for number in range(200_000)) if key_slot(f"rater:ip {value}".encode()) == slot
    )
    with under_load(Load(store)) as load:
        load.wait(all_counted)
        target.execute_command("CLUSTER", "SETSLOT", slot, "IMPORTING", ids[f"127.0.0.1:{owner.port}"])
        source.execute_command("CLUSTER", "SETSLOT", slot, "MIGRATING", ids[f"127.0.0.1:{heir.port}"])
        load.wait(all_counted)
        assert store_of(clustered).count([OFFICE._replace(value=new)] * 2) == [(1,), (2,)]  # ASK: a new key goes ahead
        source.execute_command("MIGRATE", "127.0.0.1", heir.port, "", 0, 5000, "KEYS", key, f"rater:ip {new}")
        load.wait(all_counted)
        for each in (target, source):
            each.execute_command("CLUSTER", "SETSLOT", slot, "NODE", ids[f"127.0.0.1:{heir.port}"])
        load.wait(all_counted)
    assert all(map(all_counted, load.answers))
    assert [counted(answers[0]) for answers in load.answers] == [*range(1, len(load.answers) + 1)]
    assert target.strlen(key) == 8 * len(load.answers)
    store.close()


def store_of(clustered: Clustered) -> Redis:
    store = Redis(clustered.url)
    store.keep({"ip": 3600})
    return store


def test_a_cluster_answers_as_one_server(clustered: Clustered) -> None:
    store = store_of(clustered)
    marks = [OFFICE._replace(value=value) for value in VALUES]
    assert store.count(marks + marks) == [(1,)] * 40 + [(2,)] * 40
    assert (
        store.held() == 40
        and len(store.likely(100)) == 40
        and set(store.likely(100)) == {("ip", value) for value in VALUES}
    )
    assert store.forget("ip", VALUES[0]) and not store.forget("ip", VALUES[0]) and store.held() == 39
    client = clustered.client()
    client.script_flush()
    assert store.count(marks) == [(1,)] + [(3,)] * 39
    store.keep({"ip": 36000})
    for _ in range(20):
        store.tidy()
    assert all(client.pttl(f"rater:ip {value}") > 3_600_000 for value in VALUES)
    store.close()


def test_a_cluster_that_cannot_be_reached(folder: Path) -> None:
    store = Redis("redis+cluster://127.0.0.1:1?timeout=0.5")
    began = time.monotonic()
    for _ in range(50):
        with pytest.raises(StoreError, match="^Redis: "):
            store.count([OFFICE])
    assert time.monotonic() - began < 10 * RETRY_PAUSE
