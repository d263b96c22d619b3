"""What RaSPF and pyspf make of the SPF suites, for the documentation.

`python tests/spf_table.py` writes nbs/spf/suites.json. A suite that isn't there keeps what the file says of it.
"""

from __future__ import annotations

import json
from typing import Any

from spf_suites import (
    ROOT,
    SUITE_WRONG,
    SUITES,
    Answer,
    Case,
    answer,
    is_as_wanted,
    missing,
    pyspf_answer,
    suite,
    why_apart,
)

FILE = ROOT / "nbs" / "spf" / "suites.json"


def row(name: str) -> dict[str, Any]:
    "What there is to say of a suite: how many cases, how many as it wants them, and where somebody disagrees."
    cases = suite(name)
    ours = [answer(case) for case in cases]
    theirs = [pyspf_answer(case) for case in cases]
    return {
        "title": SUITES[name],
        "cases": len(cases),
        "ours": sum(map(is_as_wanted, cases, ours)),
        "ours allowed": sum(map(is_allowed, cases, ours)),
        "pyspf": sum(map(is_as_wanted, map(about_sender, cases), theirs)),
        "pyspf allowed": sum(map(is_allowed, map(about_sender, cases), theirs)),
        "apart": [each for found in zip(cases, ours, theirs, strict=True) for each in apart(*found)],
    }


def about_sender(case: Case) -> Case:
    "A case without its recipients, of whom pyspf knows nothing."
    return case._replace(data={**case.data, "result": [result.split(",")[-1] for result in case.wanted]})


def is_allowed(case: Case, found: Answer) -> bool:
    wanted = case._replace(data={**case.data, "result": found.result})
    return found.result in case.wanted and is_as_wanted(wanted, found)


def apart(case: Case, ours: Answer, theirs: Answer) -> list[dict[str, str]]:
    "The disagreements about a case: ours with the suite, pyspf's with us."
    reasons = [SUITE_WRONG[case.id][1]] if case.id in SUITE_WRONG else []
    reasons += [str(why_apart(case))] if why_apart(case) else []
    if not reasons:
        return []
    return [
        {
            "case": case.id.partition("/")[2],
            **checked(case),
            "wants": " or ".join(case.wanted),
            "ours": ours.result,
            "pyspf": theirs.result,
            "why": "; ".join(dict.fromkeys(reason.removesuffix(".") for reason in reasons)),
        }
    ]


def checked(case: Case) -> dict[str, str]:
    "The record that a case is about, and for whom."
    ip, sender, helo = case.who
    domain = (sender or helo).rpartition("@")[2].removesuffix(".").lower()
    record, *_ = case.zone.records.get((domain, "TXT"), [""])
    local = f", and {case.data['local']} of our own" if "local" in case.data else ""
    return {"record": shortened(record), "who": f"{shortened(sender or helo)} at {ip}{local}"}


def shortened(text: str) -> str:
    words = " ".join(text.split())
    return words if len(words) < 80 else f"{words[:40]}…{words[-30:]}"


def main() -> None:
    table = json.loads(FILE.read_text(encoding="utf-8")) if FILE.exists() else {}
    table.update({name: row(name) for name in SUITES if not missing(name)})
    FILE.write_text(json.dumps(table, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
