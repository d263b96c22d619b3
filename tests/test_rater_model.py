"""Three raters, over memory, a file and Redis, beside a model that knows every mark that was ever made.

Addresses come in every spelling, and now and then a store can't answer for one value, while it can for all others.
"""

from __future__ import annotations

import tempfile
from collections import defaultdict
from collections.abc import Iterator, Sequence
from ipaddress import IPv6Address, ip_address, ip_network
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from redis_servers import Server, installed, started

from ra_plugins.rater.limits import Limit, Rule, RuleBook
from ra_plugins.rater.memory import SPARE_MARKS, Mark, Memory, StoreError, series_key
from ra_plugins.rater.protocol import Rater, read_request
from ra_plugins.rater.redis import Redis
from ra_plugins.rater.sqlite import Sqlite

LONGEST = 120  # seconds; no window is longer
FOUR = ["192.0.2.1", "192.0.2.2", "198.51.100.1"]
SIX = ["2001:db8::1", "2001:db8::2", "2001:db8:0:1::1", "::1.2.3.4"]
OTHER = ["ana", "Ana", "1.2.3", "::ffff:1.2.3", "x" * 64, "x" * 65, "x" * 66, "andr\udce9"]


def spelled(address: str) -> list[str]:
    "Ways to write an address."
    if "." in address and ":" not in address:
        number = int(ip_address(address))
        return [
            address,
            f"::ffff:{address}",
            f"::FFFF:{number >> 16:x}:{number & 0xFFFF:X}",
            f"0:0:0:0:0:ffff:{address}",
        ]
    whole = IPv6Address(address).exploded
    return [
        str(IPv6Address(address)),
        whole,
        whole.upper(),
        ":".join(f"{int(each, 16):x}" for each in whole.split(":")),
    ]


def spelling(value: str) -> st.SearchStrategy[tuple[str, str]]:
    "How a value is told, and which one it is."
    return st.tuples(st.just(value) if value in OTHER else st.sampled_from(spelled(value)), st.just(value))


values = st.sampled_from(FOUR + SIX + OTHER).flatmap(spelling)
limits = st.builds(Limit, st.sampled_from([0, 1, 2, 3, 20]), st.sampled_from([10, 30, 60, LONGEST]))
options = st.fixed_dictionaries(
    {"within": st.booleans(), "prefix4": st.sampled_from([32, 24]), "prefix6": st.sampled_from([128, 64])}
)
rules = st.tuples(st.lists(limits, min_size=1, max_size=3, unique=True), options, st.integers(0, 3))
questions = st.tuples(values, st.sampled_from([0, 1, 1, 1, 2, 5, 2000]))
steps = st.one_of(
    st.tuples(st.just("ask"), st.lists(questions, min_size=1, max_size=6)),
    st.tuples(st.just("ask"), st.lists(questions, min_size=1, max_size=6)),
    st.tuples(st.just("wait"), st.sampled_from([0.5, 1, 10, 30, 60, LONGEST])),
    st.tuples(st.just("put back"), st.sampled_from([0.5, 1, 10, 30])),
    st.tuples(st.just("forget"), values),
    st.tuples(st.just("break"), values),
    st.tuples(st.just("mend"), st.none()),
    st.tuples(st.just("tidy"), st.none()),
    st.tuples(st.just("start again"), st.none()),
)


class Failing:
    "A store that can't answer for some values. Redis does that by itself."

    def __init__(self, store: Memory | Sqlite, broken: set[str]):
        self.store, self.broken = store, broken

    def __getattr__(self, name: str) -> Any:
        return getattr(self.store, name)

    def count(self, marks: Sequence[Mark]) -> list[tuple[int, ...] | StoreError]:
        found = iter(self.store.count([mark for mark in marks if mark.value not in self.broken]))
        return [StoreError("broken") if mark.value in self.broken else next(found) for mark in marks]


class Model:
    "Every mark that was made, and answers by their definition."

    def __init__(self, rule: Rule):
        self.rule, self.marks = rule, defaultdict[str, list[float]](list)

    def counted(self, value: str) -> str:
        "Under which name a value is counted."
        if value in OTHER:
            return value
        address = ip_address(value)
        prefix = self.rule.prefix4 if address.version == 4 else self.rule.prefix6
        whole = prefix == address.max_prefixlen
        return str(address) if whole else str(ip_network(f"{address}/{prefix}", strict=False))

    def answer(self, value: str, weight: int, now: float) -> str:
        "Mark, and answer."
        name, rule = self.counted(value), self.rule
        made = self.marks[name]
        if weight:
            made[:] = [min(each, now) for each in made]
        added = [now] * min(weight, 20 + SPARE_MARKS)
        inside = [len([each for each in made if each > now - limit.seconds]) + len(added) for limit in rule.limits]
        decide = [not watched for watched in rule.watched]
        over = any(
            must and marks > limit.allowed for must, marks, limit in zip(decide, inside, rule.limits, strict=True)
        )
        if not (over and rule.within):
            made += added
        shown = [
            (min(marks, limit.allowed + SPARE_MARKS), limit.allowed)
            for marks, limit in zip(inside, rule.limits, strict=True)
        ]
        chosen = [each for each, must in zip(shown, decide, strict=True) if must] or shown
        marks, allowed = max(chosen, key=lambda each: each[0] / each[1] if each[1] else 2 * each[0])
        return f"{int(over)} {marks}/{allowed}"


class Raters:
    "The three, and the model."

    def __init__(self, folder: str, server: Server, rule: Rule):
        self.now = self.latest = 1000.0
        self.path, self.server, self.rule = f"{folder}/marks.db", server, rule
        self.model, self.broken = Model(rule), set[str]()
        self.memory = Memory(lambda: self.now)
        self.raters = [self.rater(self.memory)]
        self.start()

    def rater(self, store: Any) -> Rater:
        return Rater(RuleBook({"ip": [self.rule]}), store if isinstance(store, Redis) else Failing(store, self.broken))

    def start(self) -> None:
        others = Sqlite(self.path, lambda: self.now), Redis(self.server.url, timeout=60, clock=lambda: self.now)
        self.raters[1:] = [self.rater(store) for store in others]

    def start_again(self) -> None:
        self.close(self.raters[1:])
        self.start()

    @staticmethod
    def close(raters: list[Rater]) -> None:
        for each in raters:
            each.store.close()

    def wait(self, seconds: float) -> None:
        self.now += seconds
        self.latest = max(self.latest, self.now)

    def put_back(self, seconds: float) -> None:
        self.now = max(self.now - seconds, self.latest - LONGEST)

    def ask(self, asked: list[tuple[tuple[str, str], int]]) -> None:
        lines, expected = [], []
        for (told, value), weight in asked:
            option = f"-weight={weight}" if weight else "-peek"
            lines.append(read_request(f"{option} ip {told}".encode("utf-8", "surrogateescape")))
            broken = self.model.counted(value) in self.broken
            expected.append("2 Store failed" if broken else self.model.answer(value, weight, self.now))
        for rater in self.raters:
            assert [answer.decode().rstrip() for answer in rater.answers(lines)] == expected

    def forget(self, value: tuple[str, str]) -> None:
        name = self.model.counted(value[1])
        if name not in self.broken:
            self.model.marks.pop(name, None)
            for rater in self.raters:
                rater.store.forget("ip", name)

    def break_(self, value: tuple[str, str]) -> None:
        name = self.model.counted(value[1])
        admin, key = self.server.admin(), series_key("ip", name, "rater:")
        if name not in self.broken:
            self.broken.add(name)
            if admin.exists(key):
                admin.rename(key, b"aside " + key)
            admin.lpush(key, "theirs")

    def mend(self) -> None:
        admin = self.server.admin()
        for name in self.broken:
            key = series_key("ip", name, "rater:")
            admin.delete(key)
            if admin.exists(b"aside " + key):
                admin.rename(b"aside " + key, key)
        self.broken.clear()

    def tidy(self) -> None:
        for rater in self.raters:
            rater.tidy()


@pytest.fixture(scope="module", params=["redis-server", "valkey-server"])
def server(request: pytest.FixtureRequest) -> Iterator[Server]:
    with started(installed(str(request.param))) as server:
        yield server


@settings(max_examples=80)
@given(rule=rules, history=st.lists(steps, min_size=1, max_size=40))
def test_three_raters_answer_as_the_model(
    server: Server, rule: tuple[list[Limit], dict[str, Any], int], history: list[tuple[str, Any]]
) -> None:
    server.admin().flushall()
    allowed, chosen, watched = rule
    with tempfile.TemporaryDirectory() as folder:
        raters = Raters(folder, server, Rule("*", allowed, watch=allowed[:watched], **chosen))
        for what, argument in history:
            step = getattr(raters, {"break": "break_"}.get(what, what.replace(" ", "_")))
            step(*([] if argument is None else [argument]))
        raters.mend()
        raters.close(raters.raters)
