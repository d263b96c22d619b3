"When to come again: rater's answer to `-more`, held to the marks themselves."

from __future__ import annotations

from collections.abc import Sequence
from math import inf
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ra_plugins.rater.limits import Limit, Rule, RuleBook
from ra_plugins.rater.memory import Mark, Memory, Store, StoreError
from ra_plugins.rater.protocol import NEARLY, Rater, read_request, seconds_to_wait
from ra_plugins.rater.sqlite import Sqlite

limits = st.lists(st.builds(Limit, st.integers(0, 6), st.sampled_from([0.25, 1.0, 10.0, 60.0, 86400.0])), min_size=1, max_size=3)


def would_be_within(times: Sequence[float], limits: Sequence[Limit], weight: int, then: float) -> bool:
    return all(sum(time > then - limit.seconds for time in times) + weight <= limit.allowed for limit in limits)


@settings(max_examples=150, deadline=None)
@given(limits, st.lists(st.integers(0, 800).map(lambda eighths: eighths / 8), max_size=30), st.integers(1, 4), st.booleans())
def test_it_is_neither_too_early_nor_more_than_a_second_late(
    several: list[Limit], gaps: list[float], weight: int, file: bool
) -> None:
    now = 0.0
    with TemporaryDirectory() as folder:
        store: Store = Sqlite(str(Path(folder, "marks.db")), lambda: now) if file else Memory(lambda: now)
        store.keep({"ip": max(limit.seconds for limit in several)})
        mark, times = Mark("ip", "x", tuple(several)), []
        for gap in gaps:
            now += gap
            times.append(now)
            store.count([mark])
        (wait,) = seconds_to_wait(store, [mark._replace(weight=weight)])
        store.close()
    if wait is None:
        assert not would_be_within(times, several, weight, inf)
    else:
        assert would_be_within(times, several, weight, now + wait)
        assert wait < 2 or not would_be_within(times, several, weight, now + wait - 1 - NEARLY)


def test_a_limit_that_is_only_watched_lets_nobody_wait() -> None:
    now = 0.0
    day, minute = Limit(1, 86400), Limit(2, 60)
    rater = Rater(RuleBook({"ip": [Rule("*", [day, minute], watch=[day])]}), Memory(lambda: now))
    answers = rater.answers([read_request(b"-more ip x")] * 3)
    assert answers == [b"0 1/2 60 0\r\n", b"0 2/2 60 0\r\n", b"1 3/2 60 60\r\n"]


@pytest.mark.parametrize("down, answer", [("pass", b"0 0/0 0 0"), ("refuse", b"1 1/0 0 -"), ("", b"2 Store failed")])
def test_while_the_store_is_away(down: str, answer: bytes) -> None:
    class Away(Memory):
        def count(self, marks: Sequence[Mark]) -> list[tuple[int, ...] | StoreError]:
            raise StoreError("away")

    rater = Rater(RuleBook({"ip": [Rule("*", [Limit(1, 60)])]}, {"ip": down} if down else {}), Away())
    assert rater.answers([read_request(b"-more ip x")]) == [answer + b"\r\n"]
