"""Fuzz the parser of SPF records, the macro expander and the check with atheris: `python fuzz/record.py [OPTIONS]`.

Options are libFuzzer's: -max_total_time=60 stops after a minute, a folder keeps what was found. What a run shows is an
exception that isn't documented, or an input that takes longer than -timeout (10 s here).
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import atheris

with atheris.instrument_imports(include=["ra_plugins"]):
    from ra_plugins.ask.dns import Lookup, Records, Zone
    from ra_plugins.ask.question import drive
    from ra_plugins.spf.evaluation import EXPLANATION_LENGTH, EXPLANATIONS, check_identity
    from ra_plugins.spf.macro import MacroError, parse_macro
    from ra_plugins.spf.query import Query
    from ra_plugins.spf.record import RECORDS, RecordError, parse_record

VALUES = dict.fromkeys("slodiphvcrt", "strong-bad.42@example.org")


class Echo(Zone):
    "Every name has the same records, and the question says a little about them."

    def __init__(self, text: str):
        super().__init__({})
        self.text = text

    def answer(self, lookup: Lookup) -> Records:
        if len(lookup.name) % 7 == 0:
            return Records()
        answers: dict[str, list[Any]] = {
            "TXT": [self.text if lookup.name != "why.example.org" else self.text[7:]],
            "A": ["192.0.2.1"],
            "AAAA": ["2001:db8::1"],
            "MX": [(1, "mx.example.org"), (0, "mail.example.org")],
            "PTR": ["mail.example.org", "www.example.org"],
        }
        return Records(answers[lookup.rdtype])


def record(text: str) -> None:
    try:
        parse_record(f"v=spf1 {text}")
    except RecordError as error:
        if error.problem not in f"v=spf1 {text}"[error.place :]:
            raise AssertionError(f"{error!r} at {error.place}") from error


def macro(text: str) -> None:
    for explanation in (False, True):
        try:
            parse_macro(text, explanation).expand(VALUES)
        except MacroError:
            continue


def check(text: str) -> None:
    terms, sender, helo, *_ = *text.split("\n", 2), "", ""
    ip = "2001:db8::2" if len(terms) % 2 else "192.0.2.2"
    query = Query(ip, f"{sender}@example.org", helo, prefetch=len(terms) % 3 == 0)
    found = drive(check_identity(query), Echo(f"v=spf1 {terms} -all exp=why.example.org"))
    line = found.explanation
    if len(line) > EXPLANATION_LENGTH or not line.isascii() or not line.isprintable():
        raise AssertionError(f"an explanation that isn't fit for an SMTP reply: {line!r}")


TARGETS = [record, macro, check]


def one(data: bytes) -> None:
    "One input: its first byte says what to try, the rest is the text."
    if data:
        TARGETS[data[0] % len(TARGETS)](data[1:].decode("utf-8", "surrogateescape"))
    RECORDS.clear()
    EXPLANATIONS.clear()


def main() -> None:
    defaults = ["-timeout=10", f"-dict={Path(__file__).with_suffix('.dict')}"]  # those that come later count
    atheris.Setup([sys.argv[0], *defaults, *sys.argv[1:]], one)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
