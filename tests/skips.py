"""Skips are named and counted at the end of a run; on CI, one that `.ci/skips` doesn't list fails it.

There everything is installed that a test may want, so a skip that nobody has thought of is a test that has been lost.
"""

from __future__ import annotations

import os
from collections import Counter
from fnmatch import fnmatchcase
from pathlib import Path

import pytest

LISTED = Path(__file__).resolve().parent.parent / ".ci" / "skips"


def listed() -> list[str]:
    "The reasons, as patterns, for which a test may be skipped on CI."
    lines = LISTED.read_text(encoding="utf-8").splitlines()
    return [line.strip() for line in lines if line.strip() and not line.startswith("#")]


def reasons(config: pytest.Config) -> Counter[str]:
    "Why tests were skipped, and how many for each reason. A module that is skipped as a whole counts as one."
    reporter = config.pluginmanager.get_plugin("terminalreporter")
    skipped = reporter.stats.get("skipped", []) if reporter else []
    told = {
        (each.nodeid, each.longrepr[2].removeprefix("Skipped: ")) for each in skipped
    }  # once, by however many workers
    return Counter(reason for _, reason in told)


def unlisted(config: pytest.Config) -> list[str]:
    "The reasons that fail the run: none where it isn't on CI."
    allowed = listed() if os.environ.get("CI") else ["*"]
    return sorted(reason for reason in reasons(config) if not any(fnmatchcase(reason, each) for each in allowed))


@pytest.hookimpl(trylast=True)  # after pytest has written which tests failed
def pytest_sessionfinish(session: pytest.Session) -> None:
    if hasattr(session.config, "workerinput") or not unlisted(session.config):
        return
    if session.exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
    if cache := getattr(session.config, "cache", None):
        cache.set("cache/lastfailed", {})  # .ci/run runs once more what failed, and that wouldn't mend this


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    found, refused = reasons(config), unlisted(config)
    if found:
        terminalreporter.section("skipped")
    for reason, number in sorted(found.items()):
        terminalreporter.line(f"{number:5}  {reason}{'  (not in .ci/skips)' if reason in refused else ''}")
    if refused:
        terminalreporter.line("On CI, a test is skipped only for a reason that .ci/skips lists.", red=True)
