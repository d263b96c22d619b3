"""Settings that the plugins in C had, and lines that scripts count, mean what they meant."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from cdb_files import cdb

from ra_plugins.hosts.catalogue import catalogue
from ra_plugins.hosts.service.decider import file_variables
from ra_plugins.plugins.tarpit import CURVES
from ra_plugins.spp.command import Command, Delay
from ra_plugins.spp.session import sample_session
from ra_plugins.support.control import ControlFiles
from ra_plugins.support.environment import Environment

FOUND = catalogue()


def decided(name: str, control: ControlFiles | None = None, **values: object) -> tuple[list[Command], list[str]]:
    "What a plugin answers, and what it logs; nothing else."
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


# Numbers with something around them, which atoi took

NUMBERS = {  # the settings of the plugins in C that are numbers, with their defaults
    "tarpit": {"TARPITCOUNT": 50, "TARPITDELAY": 2},
    "rcptchecks": {"CHKUSER_RCPTLIMIT": 10000, "CHKUSER_WRONGRCPTLIMIT": 10000, "CHKUSER_MBXQUOTA": 100},
    "rcptchecksfile": {"CHKUSER_RCPTLIMIT": 10000, "CHKUSER_WRONGRCPTLIMIT": 10000},
    "rcptcheckscdb": {"CHKUSER_RCPTLIMIT": 10000, "CHKUSER_WRONGRCPTLIMIT": 10000},
    "checkback": {"CHECKBACK_CACHETIME": 86400},
    "spfchecks": {"BOUNCELEVEL": -1},
}


def read(name: str, setting: str, text: str) -> tuple[object, list[str]]:
    "What a plugin takes a setting's text for, and what it logs."
    (variable,) = (each for each in FOUND[name].settings.variables() if each.name == setting)
    log: list[str] = []
    return variable.read(Environment({setting: text}, log.append)), log


@pytest.mark.parametrize(("name", "setting"), [(name, each) for name, some in NUMBERS.items() for each in some])
@pytest.mark.parametrize("text", ["3x", " 3", "3 ", "+3", "03 s", "\t3", "3.9", "3\n"])
def test_a_number_is_what_it_was_and_told(name: str, setting: str, text: str) -> None:
    value, (line,) = read(name, setting, text)
    assert value == 3
    assert line.startswith(f"{setting}={text} should be ") and line.endswith("; taken as 3")


@pytest.mark.parametrize(("name", "setting"), [(name, each) for name, some in NUMBERS.items() for each in some])
@pytest.mark.parametrize("text", ["lots", "x3", "+-3", " "])
def test_what_is_no_number_is_the_default(name: str, setting: str, text: str) -> None:
    "To atoi it was 0, which would switch tarpit off, and refuse every recipient."
    value, (line,) = read(name, setting, text)
    assert value == NUMBERS[name][setting] and line.startswith(f"{setting}={text} should be ")


def test_more_than_there_is_is_as_much_as_there_is() -> None:
    assert read("spfchecks", "BOUNCELEVEL", "7")[0] == 5 and read("spfchecks", "BOUNCELEVEL", "-3")[0] == -1
    assert read("rcptchecksfile", "CHKUSER_RCPTLIMIT", "99999999999")[0] == 999_999_999


def test_an_empty_count_switches_tarpit_off_without_a_word() -> None:
    assert decided("tarpit", rcpt_count_all=60, TARPITCOUNT="") == ([], [])


def test_a_setting_of_ours_alone_stays_strict() -> None:
    assert read("tarpit", "TARPITMAXDELAY", "30s")[0] == 240


# No whitelist

OURS = {"rcpthosts": "example.org\n", "virtualdomains": "example.org:example.org\n", "addresslist": "ana@example.org\n"}


@pytest.mark.parametrize(
    ("name", "setting"),
    [
        ("rcptchecks", "CHKUSER_WLFILE"),
        ("rcptchecksfile", "CHKUSER_WLFILE"),
        ("rcptcheckscdb", "CHKUSER_WLFILE"),
        ("senderchecks", "SENDERCHK_WLFILE"),
        ("senderchecksfile", "SENDERCHK_WLFILE"),
    ],
)
def test_an_empty_whitelist_is_none(name: str, setting: str) -> None:
    "Not a word about it, and the same answer as without the setting."
    values: dict[str, object] = {"mail_from": "bea@example.org", "rcpt_to": "bea@example.org"}
    values |= {"CHKUSER_SOURCE": "list", "SENDERCHK_SOURCE": "list"} if name.endswith("checks") else {}
    files = OURS | ({"addresslist": cdb(b"ana@example.org")} if name == "rcptcheckscdb" else {})
    unset = decided(name, ControlFiles(files), **values)
    assert unset[1] == ["511 sorry, no mailbox here by that name (bea@example.org)"]
    assert decided(name, ControlFiles(files), **values, **{setting: ""}) == unset


@pytest.mark.parametrize("setting", ["CHKUSER_WLFILE", "SENDERCHK_WLFILE"])
def test_a_whitelist_is_still_a_file_to_a_service(setting: str) -> None:
    "Which reads no other than among the control files, whatever its caller says."
    assert setting in file_variables(FOUND.values())


# Lines that are counted by address


def recipients_lines(name: str, address: str, **values: object) -> list[str]:
    "What is logged about a recipient, with a list that has ana@example.org, and a whitelist that has example.net."
    listed = cdb(b"ana@example.org") if name == "rcptcheckscdb" else "ana@example.org\n"
    control = ControlFiles({"rcpthosts": "example.org\n", "addresslist": listed, "unchecked": "example.net\n"})
    return decided(name, control, rcpt_to=address, CHKUSER_WLFILE="unchecked", **values)[1]


@pytest.mark.parametrize("name", ["rcptchecksfile", "rcptcheckscdb"])
@pytest.mark.parametrize(
    ("address", "values", "line"),
    [
        ("Ana@Example.ORG", {}, "Accepted recipient (ana@example.org number 0 of 10000 )"),
        ("Eva@Elsewhere.Example", {"rcpt_count": 3}, "Accepted recipient (eva@elsewhere.example number 3 of 10000 )"),
        ("Zoe@Example.NET", {}, "Whitelisted recipient (zoe@example.net number 0 of 10000 )"),
        ("Bea@Example.ORG", {}, "511 sorry, no mailbox here by that name (bea@example.org)"),
        ("Ana@@Example.ORG", {}, "511 Invalid address (ana@@example.org)"),
        ("NOBODY", {}, "511 Invalid address (nobody)"),
        (
            "Ana@Example.ORG",
            {"rcpt_count": 2, "CHKUSER_RCPTLIMIT": 2},
            "571 sorry, reached maximum number of recipients for one session (2 of 2 - ana@example.org)",
        ),
        (
            "Bea@Example.ORG",
            {"rcpt_count": 4, "rcpt_count_all": 5, "WRONGRCPTCOUNT": 2, "CHKUSER_WRONGRCPTLIMIT": 2},
            "571 sorry, you are violating our security policies (3 of 2 - bea@example.org)",
        ),
    ],
)
def test_addresses_are_logged_in_lower_case(name: str, address: str, values: dict[str, object], line: str) -> None:
    assert recipients_lines(name, address, **values) == [line]


def test_rcptchecks_logs_addresses_as_they_came() -> None:
    assert recipients_lines("rcptchecks", "Zoe@Example.NET") == [
        "Whitelisted recipient (Zoe@Example.NET number 0 of 10000 )"
    ]


# Lists that nobody has made


def test_localmail_without_a_list_says_nothing() -> None:
    control = ControlFiles({"rcpthosts": "example.org\n"})
    for user in ("ana@example.org", "ben"):
        for address in ("eva@example.com", "ana@example.org", "postmaster"):
            assert decided("localmail", control, auth_user=user, rcpt_to=address) == ([], [])


@pytest.mark.parametrize(
    ("list_", "values", "line"),
    [
        ({"localonly": b"a\0b"}, {}, "error opening localonly: "),
        ({}, {"LOCALMAILCONF": "pupils"}, "error opening pupils: no such file or directory"),
    ],
)
def test_localmail_tells_of_a_list_that_cannot_be_read(
    list_: dict[str, bytes], values: dict[str, str], line: str
) -> None:
    "One that a setting names, or one that is something else."
    control = ControlFiles({"rcpthosts": "example.org\n", **list_})
    answer, (logged,) = decided("localmail", control, auth_user="ana@example.org", rcpt_to="eva@example.com", **values)
    assert answer == []
    assert logged.startswith(line)


@pytest.mark.parametrize("user", [None, "ana@example.org"])
@pytest.mark.parametrize(
    "name", ["localmail", "greylist", "ownsender", "rdnschecks", "rblchecks", "checkback", "spfchecks"]
)
def test_a_list_that_may_be_missing_costs_no_line(name: str, user: str | None) -> None:
    values = {"auth_user": user, "mail_from": "eva@example.com", "rcpt_to": "ana@example.org"}
    log = decided(name, ControlFiles({"rcpthosts": "example.org\n"}), **values)[1]
    assert not [line for line in log if "no such file" in line]
