"""The table of suites in the documentation is what a run gives now."""

from __future__ import annotations

import json

import pytest
from spf_suites import SUITES, missing
from spf_table import FILE, row


@pytest.mark.parametrize("name", [name for name in SUITES if not missing(name)])
def test_table(name: str) -> None:
    table = json.loads(FILE.read_text(encoding="utf-8"))
    assert table[name] == row(name), "python tests/spf_table.py writes it"
    assert list(table) == list(SUITES)
