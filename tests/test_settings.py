"""Slips in settings: 0 where it would mean never or nobody, times without end, limits that nobody can reach."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import pytest

from ra_plugins.ask.answerer import load
from ra_plugins.ask.mailbox import Mailbox, MailboxFound, SqlSettings
from ra_plugins.hosts.catalogue import OURS, catalogue
from ra_plugins.spp.plugin import Plugin
from ra_plugins.spp.session import sample_session
from ra_plugins.support.control import ControlFiles
from ra_plugins.support.environment import Environment, Variable

ROOT = Path(__file__).resolve().parent.parent
FOUND = catalogue()
PLUGINS = [FOUND[name] for name, origin in FOUND.origins.items() if origin == OURS]


def answerers_settings(plugin: Plugin) -> list[type[Environment]]:
    "What those can be told who answer a plugin's questions."
    names = {getattr(kind, "answerer", "") for kind in plugin.asks} - {""}
    return [load(name).settings_class for name in sorted(names)]


def settings_of_time() -> dict[str, tuple[type[Environment], Variable, list[Plugin]]]:
    "The settings that say how long somebody waits, with those plugins that wait."
    found: dict[str, tuple[type[Environment], Variable, list[Plugin]]] = {}
    for plugin in PLUGINS:
        for environment in (plugin.settings, *answerers_settings(plugin)):
            for each in environment.variables():
                if each.name.endswith(("TIMEOUT", "SERVERTIME")):
                    found.setdefault(each.name, (environment, each, []))[2].append(plugin)
    return found


TIMES = settings_of_time()


def test_settings_of_time_are_found() -> None:
    assert set(TIMES) == {
        *("CHECKBACK_TIMEOUT", "CHECKBACK_SERVERTIME", "DNSTIMEOUT", "GREYLISTTIMEOUT", "MAILBOX_SQLTIMEOUT"),
        *("MFDNSTIMEOUT", "RATERTIMEOUT", "RBLTIMEOUT", "RDNSTIMEOUT", "SPFTIMEOUT"),
    }


@pytest.mark.parametrize("name", sorted(TIMES))
def test_nobody_waits_for_no_time_or_without_end(name: str) -> None:
    "0 seconds would never bring an answer, and an hour is more than any client waits."
    environment, each, _ = TIMES[name]
    for value in ("0", "3600", "x", ""):
        log: list[str] = []
        assert getattr(environment({name: value}, log.append), each.attribute) == each.default
        assert log == [f"{name}={value} should be {each.kind.__doc__}; taken as {each.default}"]
    for value in ("1", "20"):
        assert getattr(environment({name: value}, pytest.fail), each.attribute) == int(value)


@pytest.mark.parametrize("name", sorted(TIMES))
def test_a_plugin_has_the_time_that_it_may_be_set_to(name: str) -> None:
    "The longest time that a setting takes ends before the host ends the plugin."
    environment, each, plugins = TIMES[name]
    longest = max(value for value in range(1, 61) if not _refused(environment, each, value))
    if name not in ("DNSTIMEOUT", "RATERTIMEOUT"):  # for one question of many, which has the plugin's own bound as well
        assert all(plugin.seconds > longest for plugin in plugins), [(plugin.name, plugin.seconds) for plugin in plugins]


def _refused(environment: type[Environment], each: Variable, value: int) -> bool:
    log: list[str] = []
    getattr(environment({each.name: str(value)}, log.append), each.attribute)
    return bool(log)


@pytest.mark.parametrize("value", ["0", "101", "x"])
def test_a_pool_without_connections(value: str) -> None:
    log: list[str] = []
    assert SqlSettings({"MAILBOX_SQLPOOL": value}, log.append).connections == 5
    assert log == [f"MAILBOX_SQLPOOL={value} should be a whole number from 1 to 100; taken as 5"]


# Limits at 0


@pytest.mark.parametrize("name", ["rcptchecks", "rcptchecksfile", "rcptcheckscdb"])
def test_a_limit_of_no_recipients_is_none(name: str) -> None:
    "It would refuse all mail."
    session = sample_session(rcpt_to="eva@elsewhere.example", rcpt_count=7, CHKUSER_RCPTLIMIT=0, CHKUSER_SOURCE="list")
    log: list[str] = []
    control = ControlFiles({"rcpthosts": "example.org\n", "addresslist": ""})
    assert FOUND[name](session, control, log.append, {}) == []
    assert log == ["Accepted recipient (eva@elsewhere.example number 7 of 0 )"]


@pytest.mark.parametrize(("quota", "full"), [(0, False), (1, True), (100, True), (101, False)])
def test_a_quota_of_nothing_is_none(quota: int, full: bool) -> None:
    "At 0 per cent every mailbox that has a quota would be full, an empty one as well."
    control = ControlFiles({"rcpthosts": "example.org\n"})
    session = sample_session(rcpt_to="ben@example.org", CHKUSER_SOURCE="sql", CHKUSER_MBXQUOTA=quota)
    for fill in (100, 0):
        log: list[str] = []
        found = MailboxFound(True, False, fill)
        answers = FOUND["rcptchecks"](session, control, log.append, {Mailbox: partial(_told, found)})
        assert bool(answers) == (full and fill == 100)


def _told(found: MailboxFound, question: Mailbox) -> MailboxFound:
    return found


# Lists in which nothing can match


@pytest.mark.parametrize(
    ("name", "lists", "values", "entry"),
    [
        ("rcptchecksfile", {"wl": "@example.org\nexample.net\n"}, {"CHKUSER_WLFILE": "wl"}, "@example.org"),
        ("rcptcheckscdb", {"wl": "ana@example.org\n"}, {"CHKUSER_WLFILE": "wl"}, "ana@example.org"),
        ("senderchecksfile", {"wl": ".example.net\n"}, {"SENDERCHK_WLFILE": "wl"}, ".example.net"),
        ("checkback", {"cbwldom": "@example.com\n"}, {}, "@example.com"),
        ("checkback", {"cbwladdr": "example.com\n"}, {}, "example.com"),
        ("dotblind", {"mine": "@example.org\n"}, {"DOTBLINDDOMAINS": "mine"}, "@example.org"),
        ("plusaliases", {"mine": "@example.org\n"}, {"PLUSALIASESDOMAINS": "mine"}, "@example.org"),
        ("greylist", {"greylistclients": "mx.example.net\n"}, {}, "mx.example.net"),
        ("greylist", {"greylistsenders": "example.net\n"}, {}, "example.net"),
        ("greylist", {"greylistrecipients": "abuse\n"}, {}, "abuse"),
        ("spfchecks", {"fw": "mx.example.net\n"}, {"SPFFORWARDERS": "fw"}, "mx.example.net"),
    ],
)
def test_an_entry_that_nothing_matches_is_told_once(
    name: str, lists: dict[str, str], values: dict[str, str], entry: str
) -> None:
    "One line for each time that the list is read, whatever else is logged."
    files: dict[str, str | bytes] = {"rcpthosts": "example.org\n", "addresslist": "", **lists}
    control = ControlFiles(files)
    session = sample_session(mail_from="eva@example.net", rcpt_to="a.na+x@example.org", **values)
    log: list[str] = []
    for _ in range(3):
        FOUND[name](session, control, log.append, {})
    said = f"{next(iter(lists))}, line 1: nothing matches {entry}"
    assert [line.partition(";")[0] for line in log if "nothing matches" in line] == [said]
    files |= {listed: f"{text}# changed\n" for listed, text in lists.items()}
    FOUND[name](session, control, log.append, {})
    assert len([line for line in log if "nothing matches" in line]) == 2


def test_a_list_as_it_should_be_is_not_told_of() -> None:
    lists = {
        "cbwldom": "example.com\n# @\n\n[192.0.2.1]\n",
        "cbwladdr": 'ana@example.com\n"a b"@example.com\n',
        "greylistclients": "192.0.2.0/24\n2001:db8::/32\n",
        "greylistsenders": "<>\n@example.com\nana@\nana@example.com\n",
        "greylistrecipients": "postmaster\nabuse@\n",
    }
    control, log = ControlFiles({"rcpthosts": "example.org\n", **lists}), list[str]()
    for name in ("checkback", "greylist"):
        FOUND[name](sample_session(mail_from="eva@example.net"), control, log.append, {})
    assert not [line for line in log if "nothing matches" in line]


# What the pages and the help tell


def test_a_setting_of_a_service_says_so() -> None:
    "A script lives for one command, so it leaves no list alone."
    settings = (FOUND["rblchecks"].settings, *answerers_settings(FOUND["rblchecks"]))
    (rest,) = (each for kind in settings for each in kind.variables() if each.name == "RBLREST")
    assert rest.meaning.startswith("In a service: ")


def test_one_way_to_make_the_folder() -> None:
    """What a page says about /var/lib/ra-plugins can be pasted, and names whose it has to be.

    Those of checkback and greylist are told by docs/administrator.py, which test_docs.py looks at.
    """
    name, owner = "rcptchecks", "vpopmail"
    cells = json.loads((ROOT / "nbs" / "plugins" / f"{name}.ipynb").read_text())["cells"]
    lines = "".join("".join(each["source"]) + "\n" for each in cells if each["cell_type"] == "markdown").splitlines()
    commands = [line.strip() for line in lines if line.startswith("    ") and "/var/lib/ra-plugins" in line]
    assert commands[0] == f"install -d -o {owner} -m 700 /var/lib/ra-plugins"
    assert commands[1:] == ["chown -R vpopmail /var/lib/ra-plugins"]
    assert not [line for line in lines if line.startswith("    #")]
