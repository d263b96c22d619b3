"""The SPF test suites: what RaSPF says of each case, and whether pyspf says the same."""

from __future__ import annotations

import asyncio
from copy import copy

import pytest
from dns_server import DnsServer
from spf_results import whole
from spf_suites import PYSPF_APART, SUITE_WRONG, Case, answer, is_as_wanted, missing, pyspf_answer, suite, why_apart

from ra_plugins.ask.question import drive
from ra_plugins.ask.resolver import Resolver
from ra_plugins.spf import acheck, check
from ra_plugins.spf.evaluation import check_identity
from ra_plugins.spf.header import received_spf
from ra_plugins.spf.query import Query

COUNTS = {"rfc7208": 203, "rfc4408": 191, "pyspf": 16, "live": 183}
CASES = [case for name in COUNTS for case in suite(name)]  # our own are in their notebook, which asserts them
WITH_HEADER = [case for case in CASES if "header" in case.data]


def ids(case: Case) -> str:
    return case.id


@pytest.mark.parametrize("name", COUNTS)
def test_suite_is_whole(name: str) -> None:
    "A suite that isn't there is skipped here, with the reason, and has no cases below."
    if missing(name):
        pytest.skip(missing(name))
    assert len(suite(name)) == COUNTS[name] == len({case.id for case in suite(name)})


@pytest.mark.parametrize("case", CASES, ids=ids)
def test_suite(case: Case) -> None:
    "We say what the suite prefers, or what RFC 7208 says in its place."
    found = answer(case)
    if case.id in SUITE_WRONG:
        known, _ = SUITE_WRONG[case.id]
        assert (found.result, is_as_wanted(case, found)) == (known, False)
        assert case.suite != "rfc4408" or found.result in case.wanted  # what RFC 7208 left of RFC 4408
    else:
        assert is_as_wanted(case, found), found


@pytest.mark.parametrize("case", CASES, ids=ids)
def test_pyspf(case: Case) -> None:
    "pyspf says the same, or it is known why not."
    ours, theirs = answer(case), pyspf_answer(case)
    why = why_apart(case)
    assert why is not None, (ours, theirs)
    assert bool(why) == ((ours.result.split(",")[-1], ours.explanation) != theirs)


@pytest.mark.parametrize("case", CASES, ids=ids)
def test_all_ways_agree(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    "The zone in memory, `check` and `acheck` over DNS, asking ahead or not: one result, one trace."
    monkeypatch.setattr("time.time", lambda: 0)  # for %{t} in explanations
    receiver, zone = case.data.get("receiver") or "unknown", copy(case.zone)
    zone.records = {key: list(dict.fromkeys(values)) for key, values in zone.records.items()}  # as DNS: RFC 2181, 5
    expected = whole(check(*case.who, receiver=receiver, resolver=zone))
    assert whole(asyncio.run(acheck(*case.who, receiver=receiver, resolver=zone))) == expected
    with DnsServer(zone) as server:
        for prefetch in (0, 30):
            resolvers = [Resolver(["127.0.0.1"], server.port, prefetch=prefetch) for _ in range(2)]
            assert whole(check(*case.who, receiver=receiver, resolver=resolvers[0])) == expected
            found = asyncio.run(acheck(*case.who, receiver=receiver, resolver=resolvers[1]))
            assert whole(found) == expected


def test_all_ways_agree_on_our_own(monkeypatch: pytest.MonkeyPatch) -> None:
    for case in suite("own"):
        test_all_ways_agree(case, monkeypatch)


def test_our_own_beside_pyspf() -> None:
    for case in suite("own"):
        test_pyspf(case)


def test_lists_name_cases() -> None:
    "No case is excused that isn't there."
    there = {case.id for case in [*CASES, *suite("own")]}
    for listed in (*SUITE_WRONG, *PYSPF_APART):
        assert listed in there or missing(listed.partition("/")[0]), listed


@pytest.mark.parametrize("case", WITH_HEADER, ids=ids)
def test_received_spf(case: Case) -> None:
    "The Received-SPF fields that pyspf's own suite asks for."
    receiver = case.data["receiver"]
    found = drive(check_identity(Query(*case.who, receiver=receiver)), case.zone)
    assert received_spf(found, receiver, "mailfrom") == case.data["header"]
