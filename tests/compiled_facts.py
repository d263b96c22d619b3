"""What the package does, as JSON: `python tests/compiled_facts.py CASES`, which `test_compiled.py` runs with the plain package
first, which writes the file of cases, and then with the compiled one.
"""

from __future__ import annotations

import copy
import json
import pickle
import random
import sys
import time
import traceback
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from spf_results import whole
from spf_strategies import Invented, clients, helos, senders
from spf_suites import suite
from test_rater_model import Model

from ra_plugins.ask.dns import Zone
from ra_plugins.ask.question import drive
from ra_plugins.rater.limits import Limit, Rule, RuleBook
from ra_plugins.rater.memory import Memory
from ra_plugins.rater.protocol import Rater, read_request
from ra_plugins.spf.evaluation import check_identity
from ra_plugins.spf.limits import Limits
from ra_plugins.spf.macro import MacroString, parse_macro
from ra_plugins.spf.query import Query
from ra_plugins.spf.record import RecordError, parse_record
from ra_plugins.support.compiled import COMPILED, compiled_modules

ZONES, QUESTIONS = 300, 2000


def suites() -> dict[str, str]:
    "Each case of RFC 7208's suite, with all that its result says."
    found = {}
    for case in suite("rfc7208"):
        asking = Query(*case.who, receiver=case.data.get("receiver") or "unknown")
        found[case.id] = str(whole(drive(check_identity(asking, "DEFAULT"), case.zone)))
    return found


Case = tuple[Query, dict[tuple[str, str], Any]]  # what is asked, and the answers that it needs, by name and type


def invented() -> list[Case]:
    "Checks over random zones. What hypothesis draws isn't the same where other modules are loaded."
    found: list[Case] = []

    @settings(
        max_examples=ZONES, derandomize=True, database=None, suppress_health_check=list(HealthCheck), deadline=None
    )
    @given(clients, senders, helos, st.data())
    def one(ip: str, sender: str, helo: str, data: st.DataObject) -> None:
        zone = Invented(data.draw)
        drive(check_identity(Query(ip, sender, helo), "DEFAULT"), zone)
        found.append((Query(ip, sender, helo), zone.answers))

    one()
    return found


def zones() -> list[str]:
    "Results over random zones, those in a file, which the first run writes."
    cases = Path(sys.argv[1])
    if not cases.exists():
        cases.write_bytes(pickle.dumps(invented()))
    found = []
    for asking, answers in pickle.loads(cases.read_bytes()):  # noqa: S301

        def tell(lookup: Any, _: float, answers: Any = answers) -> Any:
            return answers[lookup.key]

        found.append(str(whole(drive(check_identity(asking, "DEFAULT"), tell))))
    return found


def rater() -> list[list[str]]:
    "Random questions: what rater answers, and what a model of it does."
    draw, now = random.Random(7208), [1000.0]  # noqa: S311
    rule = Rule("*", [Limit(3, 10), Limit(20, 60)], prefix6=64)
    asked, model = Rater(RuleBook({"ip": [rule]}), Memory(lambda: now[0])), Model(rule)
    values = ["192.0.2.1", "192.0.2.2", "ana", "2001:db8::1", "2001:db8::2", "2001:db8:0:1::1"]
    found = []
    for _ in range(QUESTIONS):
        now[0] += draw.choice([0, 0.1, 0.5, 3])
        value, weight = draw.choice(values), draw.choice([0, 1, 1, 1, 2, 5])
        line = f"-weight={weight} ip {value}" if weight else f"-peek ip {value}"
        (answer,) = asked.answers([read_request(line.encode())])
        found.append([answer.decode().rstrip(), model.answer(value, weight, now[0])])
    return found


def raised(call: Callable[[], object]) -> list[str]:
    "An error's type and text, and where its traceback leads."
    try:
        call()
    except Exception as error:
        ours = [each for each in traceback.extract_tb(error.__traceback__) if "ra_plugins" in each.filename]
        return [type(error).__name__, str(error), *(f"{Path(each.filename).name}: {each.name}" for each in ours)]
    return []


def raised_by(record: str) -> RecordError:
    "The mistake in a record, as it is raised."
    try:
        parse_record(record)
    except RecordError as error:
        return error
    raise AssertionError(record)


def copies() -> dict[str, bool]:
    "Is what is pickled, or copied, and had back the same?"
    zone = Zone({("example.org", "TXT"): ["v=spf1 ip4:192.0.2.0/24 a:%{i}.example.net mx -all"]})
    result = drive(check_identity(Query("198.51.100.1", "ana@example.org", "mx.example.org")), zone)
    ways: list[Callable[[Any], Any]] = [copy.copy, copy.deepcopy, lambda each: pickle.loads(pickle.dumps(each))]  # noqa: S301
    told: list[tuple[str, Any, Callable[[Any], object]]] = [
        ("result", result, lambda each: str(whole(each))),
        ("limit", Limit(10, 60), str),
        (
            "rule",
            Rule("192.0.2.0/24", [Limit(10, 60)], watch=True),
            lambda each: (each.pattern, each.limits, each.watched),
        ),
        ("mistake", raised_by("v=spf1 mx ip4:192.0.2.0/33"), lambda each: (str(each), each.place, each.args)),
        ("request", read_request(b"ip 192.0.2.1"), str),
    ]
    return {name: all(told_of(way(each)) == told_of(each) for way in ways) for name, each, told_of in told}


class Letters(dict[str, str]):
    "Values of macro letters, which count how often they are looked at."

    looked = 0

    def __getitem__(self, letter: str) -> str:
        self.looked += 1
        return super().__getitem__(letter)


def fillings() -> list[int]:
    "How many of a thousand holes are filled for a text of twenty characters, from the left and from the right."
    found = []
    for expand in (MacroString.expand, MacroString.expand_end):
        values = Letters(l="ana", s="ana@example.org")
        assert len(expand(parse_macro("%{l}." * 1000), values, 20)) == 20
        found.append(values.looked)
    return found


class Deaf(Memory):
    "A store that counts nothing."

    def count(self, marks: Any) -> Any:
        return [(0,) * len(mark.limits) for mark in marks]


class Failing(Memory):
    "A store with a mistake in it."

    def count(self, marks: Any) -> Any:
        raise LookupError("nothing there")


class Loud(Rater):
    "A rater of somebody else's."

    def answers(self, requests: Any) -> Any:
        return [answer.upper() for answer in super().answers(requests)]


def subclasses() -> list[str]:
    "What classes of others' answer, called from where ours are."
    rater = Loud(RuleBook({"ip": [Rule("*", [Limit(1, 10)])]}), Deaf())
    return [answer.decode() for _ in range(3) for answer in rater.answers([read_request(b"ip ana")])]


def names() -> dict[str, list[str]]:
    "What the modules have for others."
    found = {}
    for name in COMPILED:
        module = import_module(name)
        found[name] = list(module.__all__)
    return found


def errors() -> dict[str, list[str]]:
    "Errors of each kind."
    calls: dict[str, Callable[[], object]] = {
        "record": lambda: parse_record("v=spf1 ip4:192.0.2.0/33 -all"),
        "limit": lambda: Limits(lookups=True),
        "limit of another type": lambda: Limits("ten"),  # type: ignore[arg-type]
        "memory": lambda: Rater(RuleBook({"ip": [Rule("*", [Limit(1, 10)])]}), Failing()).answers(
            [read_request(b"ip ana")]
        ),
    }
    return {name: raised(call) for name, call in calls.items()}


if __name__ == "__main__":
    setattr(time, "time", lambda: 0)  # noqa: B010 - for %{t} in explanations
    made = (suites, zones, rater, fillings, errors, copies, subclasses, names)
    facts = {"compiled": compiled_modules(), **{each.__name__: each() for each in made}}
    json.dump(facts, sys.stdout)
