"""RaSPF beside pyspf, on random senders in random zones: they agree, or RFC 7208 says why not.

The reasons are in spf_peer.py. EXAMPLES=20000 in the environment looks longer.
"""

from __future__ import annotations

import inspect
import re

from hypothesis import HealthCheck, event, given, note, settings
from hypothesis import strategies as st
from spf_peer import FAULTS, ask, departures
from spf_strategies import EXAMPLES, Invented, clients, helos, senders

from ra_plugins.ask.question import drive
from ra_plugins.spf.evaluation import check_identity
from ra_plugins.spf.query import Query


@settings(max_examples=EXAMPLES, suppress_health_check=[HealthCheck.too_slow])
@given(clients, senders, helos, st.data())
def test_same_as_pyspf(ip: str, sender: str, helo: str, data: st.DataObject) -> None:
    zone = Invented(data.draw)
    found = drive(check_identity(Query(ip, sender, helo), "DEFAULT"), zone)
    faults = departures(lambda kind: ask(zone, ip, sender, helo, kind)[:2] == (found.result, found.explanation))
    event(found.result)
    event("agrees" if faults == () else ", ".join(fault.__name__ for fault in faults or ()))
    note(f"{found!r} {found.problem} {found.explanation!r}, pyspf {ask(zone, ip, sender, helo)}, zone {zone.answers}")
    assert faults is not None


def test_reasons_name_a_section() -> None:
    for fault in FAULTS:
        assert re.match(r"\d(\.\d)*\b", inspect.getdoc(fault) or ""), fault
