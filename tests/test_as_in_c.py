"""Settings that the plugins in C had, and lines that scripts count, mean what they meant."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from ra_plugins.hosts.catalogue import catalogue
from ra_plugins.plugins.tarpit import CURVES
from ra_plugins.spp.command import Command, Delay
from ra_plugins.spp.session import sample_session
from ra_plugins.support.control import ControlFiles

FOUND = catalogue()


def decided(name: str, control: ControlFiles | None = None, **values: object) -> tuple[list[Command], list[str]]:
    "What a plugin answers, and what it logs; nothing on standard output, where a session's own complaints go."
    log: list[str] = []
    return FOUND[name](sample_session(**values), control or ControlFiles({}), log.append, {}), log


# tarpit's words


@pytest.mark.parametrize(
    ("word", "delays"),
    [
        ("NORMAL", [2, 4, 6]),
        ("MEDIUM", [5, 10, 15]),
        ("HARD", [1, 4, 9]),
        ("N", [2, 4, 6]),
        ("Mild", [5, 10, 15]),
        ("H2", [1, 4, 9]),
        ("3", [3, 3, 3]),
    ],
)
def test_the_first_letter_of_tarpits_delay_counts(word: str, delays: list[int]) -> None:
    said = [decided("tarpit", rcpt_count_all=count, TARPITCOUNT=5, TARPITDELAY=word) for count in (5, 6, 7)]
    assert [answer for answer, _ in said] == [[Delay(delay)] for delay in delays]
    assert [log for _, log in said] == [["started tarpitting"], [], []]


@pytest.mark.parametrize("word", ["normal", "hard", "h", " HARD", "soft"])
def test_only_a_capital_counts(word: str) -> None:
    answer, (line,) = decided("tarpit", rcpt_count_all=60, TARPITDELAY=word)
    assert answer == [Delay(2)]
    assert line.startswith(f"TARPITDELAY={word} should be ")


@pytest.mark.parametrize("off", ["", "0"])
def test_no_delay_is_none(off: str) -> None:
    assert [decided("tarpit", rcpt_count_all=count, TARPITDELAY=off) for count in (50, 60)] == [([], [])] * 2


def test_the_letters_are_explained_beside_the_setting() -> None:
    (meaning,) = (each.meaning for each in FOUND["tarpit"].settings.variables() if each.name == "TARPITDELAY")
    for letter, word in (("N", "NORMAL"), ("M", "MEDIUM"), ("H", "HARD")):
        growth: Callable[[int], int] = CURVES[letter]
        begins = ", ".join(str(growth(step)) for step in (1, 2, 3))
        assert f"{letter} ({word}) {begins}" in meaning
