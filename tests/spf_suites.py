"""The SPF test suites: their cases and zones, in the form that RaSPF takes, and what is known of their results."""

from __future__ import annotations

import os
import tarfile
from collections import Counter
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import spf
import yaml
from spf_peer import ask, departures

from ra_plugins.ask.dns import Lookup, Records, Zone
from ra_plugins.ask.question import Broken, Unanswered, drive
from ra_plugins.spf.evaluation import check_identity
from ra_plugins.spf.query import Query
from ra_plugins.spf.spfquery import SpfquerySetup, SpfRequest, answer_request

ROOT = Path(__file__).resolve().parent.parent
ARCHIVE = ROOT / ".cache" / "pyspf-2.0.14.tar.gz"  # which `make test` fetches: see pyspf.txt
IN_ARCHIVE = "pyspf-2.0.14/test/{}"
LIVE = Path(os.environ.get("LIBSPF2_SUITE", ""))  # libspf2's suite of live DNS, as YAML, which isn't ours to ship
OWN = ROOT / "nbs" / "spf" / "12_cases.ipynb"

SUITES = {
    "rfc7208": "OpenSPF, for RFC 7208",
    "rfc4408": "OpenSPF, for RFC 4408",
    "pyspf": "pyspf",
    "live": "libspf2, live DNS",
    "own": "our own",
}
OLD_NAMES = {"unknown": "permerror", "/^unknown/": "permerror", "error": "temperror"}  # of results, before RFC 4408

# Where a suite doesn't want what RFC 7208 says: what we answer, and why. Each reason begins with the section.
SPF_TYPE = "3.1: records of the type SPF are no longer asked for"
NO_NAME = "4.8: such a name is undefined; as RFC 7208's suite prefers, it doesn't match"
UNKNOWN = "6: default= is a modifier like any that isn't known, and is ignored"
MISTAKE = "4.6: a mistake anywhere is a permerror, even where a term matches before it"
MODIFIER = "6: mp3=yes is a modifier that isn't known, and is ignored"
SUITE_WRONG = {
    "rfc4408/Record lookup/spfonly": ("none", SPF_TYPE),
    "rfc4408/Record lookup/txttimeout": ("temperror", SPF_TYPE),
    "rfc4408/Selecting records/spfoverride": ("fail", SPF_TYPE),
    "rfc4408/Selecting records/multitxt1": ("permerror", SPF_TYPE),
    "rfc4408/Selecting records/multispf2": ("pass", SPF_TYPE),
    "rfc4408/Record evaluation/invalid-domain-empty-label": ("fail", NO_NAME),
    "rfc4408/Record evaluation/invalid-domain-long": ("fail", NO_NAME),
    "rfc4408/Record evaluation/invalid-domain-long-via-macro": ("fail", NO_NAME),
    "rfc4408/EXISTS mechanism syntax/exists-dnserr": ("temperror", "5: a DNS error in a mechanism is a temperror"),
    "rfc4408/Processing limits/mx-limit": ("permerror", "4.6.4: an mx with more than ten hosts is a permerror"),
    "pyspf/corner cases/default-modifier": ("neutral", UNKNOWN),
    "pyspf/corner cases/default-modifier-harsh": ("neutral", UNKNOWN),
    "live/live-007": ("neutral", UNKNOWN),
    "live/live-121": ("permerror", MISTAKE),
    "live/live-168": ("permerror", MISTAKE),
    "live/live-169": ("permerror", MISTAKE),
    "live/live-178": ("pass", MODIFIER),
    "live/live-179": ("fail", MODIFIER),
    "live/live-183": ("permerror", "6.2: exp= without a domain is a mistake"),
}

# Where pyspf doesn't answer what we do, and not for one of the reasons in spf_peer.py.
LOOPBACK = "spfquery lets 127.0.0.1 pass, as libspf2's does; RFC 7208 has no such rule, and `check` doesn't know it"
RECIPIENTS = "spfquery asks whether the client takes mail for the recipients; pyspf can't"
LOCAL = "spfquery asks a local policy before a record's last word, as libspf2 does; pyspf before what has a qualifier"
PYSPF_APART = {
    "live/live-001": LOOPBACK,
    "live/live-002": LOOPBACK,
    "live/live-131": RECIPIENTS,
    "live/live-138": LOCAL,
    "live/live-150": LOCAL,
    "own/7.3/6": "RFC 8616, 4: a term that needs a local part which isn't ASCII doesn't match",
}


class SuiteZone(Zone):
    "A suite's zone. TIMEOUT stands for a question that isn't answered."

    def __init__(self, data: dict[str, list[Any]]):
        super().__init__({})
        self.silent: set[tuple[str, str]] = set()
        self.mute: set[str] = set()
        for name, entries in data.items():
            self._add(name.lower(), entries)

    def _add(self, name: str, entries: list[Any]) -> None:
        texts: list[Any] = []
        own_txt = any("TXT" in entry for entry in entries if isinstance(entry, dict))
        for entry in entries:
            if entry == "TIMEOUT":
                self.mute.add(name)
                continue
            for rdtype, value in entry.items():
                if rdtype == "TXT" or (rdtype == "SPF" and not own_txt):
                    texts.append(value)
                elif rdtype != "SPF":
                    self._value(name, rdtype, value)
        for value in texts:
            self._value(name, "TXT", value)

    def _value(self, name: str, rdtype: str, value: Any) -> None:
        if value == "TIMEOUT":
            self.silent.add((name, rdtype))
        elif value not in ("NONE", ["NONE"]):
            if rdtype == "MX":
                value = (int(value[0]), value[1].rstrip("."))
            elif rdtype in ("CNAME", "PTR"):
                value = value.rstrip(".")
            elif rdtype == "TXT":
                value = value if isinstance(value, str) else "".join(value)
            self.records.setdefault((name, rdtype), []).append(value)

    def answer(self, lookup: Lookup) -> Records | Unanswered:
        name = lookup.key[0]
        mute = name in self.mute and lookup.key not in self.records
        if mute or lookup.key in self.silent or name.startswith("error."):
            return Broken("SERVFAIL")
        return super().answer(lookup)


class Case(NamedTuple):
    "A case of a suite."

    id: str  # suite, scenario and name
    data: dict[str, Any]  # what the suite says of it
    zone: Zone

    @property
    def suite(self) -> str:
        return self.id.partition("/")[0]

    @property
    def wanted(self) -> list[str]:
        "The results that the suite allows, the one that it prefers first."
        wanted = self.data["result"]
        return [wanted] if isinstance(wanted, str) else list(wanted)

    @property
    def who(self) -> tuple[str, str, str]:
        "The client's address, the sender and the HELO name."
        return str(self.data["host"]), self.data.get("mailfrom") or "", self.data.get("helo") or ""


def documents(path: Path | str) -> Iterator[tuple[str, dict[str, Any]]]:
    "The scenarios of a suite, with their titles; `path` is a file, or one in the archive."
    if isinstance(path, Path):
        text = path.read_bytes()
    else:
        with tarfile.open(ARCHIVE) as archive:
            file = archive.extractfile(IN_ARCHIVE.format(path))
            text = file.read() if file else b""
    for number, scenario in enumerate(yaml.safe_load_all(text), 1):
        yield str(scenario.get("description") or scenario.get("comment") or number).strip(), scenario


def cases(path: Path | str) -> Iterator[tuple[str, dict[str, Any], SuiteZone]]:
    "Each case of a suite: its name, what it says, and the zone that it is about."
    for _, scenario in documents(path):
        zone = SuiteZone(scenario["zonedata"])
        for name, case in scenario["tests"].items():
            yield name, case, zone


@lru_cache
def suite(name: str) -> list[Case]:
    "All cases of a suite, by its name in `SUITES`; none where it isn't there (see `missing`)."
    if missing(name):
        return []
    if name == "own":
        return own_cases()
    if name == "live":
        return [
            Case(f"live/{case}", {**data, "result": current(data["result"])}, zone) for case, data, zone in cases(LIVE)
        ]
    found: list[Case] = []
    for title, scenario in documents("test.yml" if name == "pyspf" else f"{name}-tests.yml"):
        zone = SuiteZone(scenario["zonedata"])
        found += [Case(f"{name}/{title}/{case}", data, zone) for case, data in scenario["tests"].items()]
    return found


def missing(name: str) -> str:
    "Why a suite isn't there, if so."
    if name == "live":
        return "" if os.environ.get("LIBSPF2_SUITE") else "libspf2's suite isn't there: LIBSPF2_SUITE would say where"
    return "" if name == "own" or ARCHIVE.exists() else "pyspf's source archive isn't in .cache; `make test` fetches it"


def current(results: str) -> str:
    "Results of libspf2's suite, by their present names."
    return ",".join(OLD_NAMES.get(result, result) for result in results.split(","))


def own_cases() -> list[Case]:
    "The cases of our own notebook, which it collects as it runs them."
    from execnb.nbio import read_nb
    from execnb.shell import CaptureShell

    shell, before = CaptureShell(OWN), Path.cwd()
    os.chdir(OWN.parent)
    try:
        shell.run_all(read_nb(OWN), exc_stop=True)
    finally:
        os.chdir(before)
    found = []
    numbers: Counter[str] = Counter()
    for section, zone, ip, sender, helo, result, explanation in shell.user_ns["CASES"]:
        numbers[section] += 1
        data = {"host": ip, "mailfrom": sender, "helo": helo, "result": result, "receiver": "mx.example.com"}
        if explanation is not None:
            data["explanation"] = "DEFAULT" if explanation == "default" else explanation
        found.append(Case(f"own/{section}/{numbers[section]}", data, zone))
    return found


class Answer(NamedTuple):
    "A result and, except for libspf2's suite, the explanation of a fail."

    result: str
    explanation: str


def answer(case: Case) -> Answer:
    "Ours; for libspf2's suite, that of spfquery."
    if case.suite == "live":
        setup = SpfquerySetup()
        setup.resolver, setup.local = case.zone, case.data.get("local", "")
        recipients = case.data["rcpt-to"].split(",") if "rcpt-to" in case.data else []
        found = answer_request(SpfRequest(*case.who, recipients=recipients), setup)
        return Answer(",".join([*(result for _, result in found.recipients), found.name]), "")
    query = Query(*case.who, receiver=case.data.get("receiver") or "unknown")
    result = drive(check_identity(query, "DEFAULT"), case.zone)
    return Answer(result.result, result.explanation)


def pyspf_answer(case: Case, kind: type[Any] = spf.query) -> Answer:
    "pyspf's, or that of one with faults mended."
    options = {name: case.data[name] for name in ("receiver", "strict", "local") if name in case.data}
    found = ask(case.zone, *case.who, kind=kind, **options)
    return Answer(found.result, "" if case.suite == "live" else found.explanation)


def why_apart(case: Case) -> str | None:
    "Why pyspf doesn't answer what we do; nothing where it does, None where it isn't known."
    if case.id in PYSPF_APART:
        return PYSPF_APART[case.id]
    ours = Answer(answer(case).result.split(",")[-1], answer(case).explanation)
    faults = departures(lambda kind: pyspf_answer(case, kind) == ours)
    return None if faults is None else " ".join(str(fault.__doc__) for fault in faults)


def is_as_wanted(case: Case, found: Answer) -> bool:
    "Is this the result that the suite prefers, and the explanation, where it asks for one?"
    return found.result == case.wanted[0] and case.data.get("explanation", found.explanation) == found.explanation
