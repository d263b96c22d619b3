"""Is what is installed compiled, and does it work? `python -P tools/compiled_wheel.py`, from anywhere but the checkout."""

from __future__ import annotations

import sys

from ra_plugins.ask.dns import Zone
from ra_plugins.rater.limits import Limit, Rule, RuleBook
from ra_plugins.rater.memory import Memory
from ra_plugins.rater.protocol import Rater, read_request
from ra_plugins.spf import check
from ra_plugins.support.compiled import COMPILED, compiled_modules


def main() -> int:
    "Check a client, and ask rater twice: an exit status, and what was compiled."
    zone = Zone({("example.org", "TXT"): ["v=spf1 ip4:192.0.2.0/24 -all"]})
    results = [check(ip, "ana@example.org", resolver=zone).result for ip in ("192.0.2.1", "198.51.100.1")]
    rater = Rater(RuleBook({"ip": [Rule("*", [Limit(1, 60)])]}), Memory())
    answers = [answer for _ in range(2) for answer in rater.answers([read_request(b"ip 192.0.2.1")])]
    print(*compiled_modules(), *results, *answers, sep="\n")
    works = results == ["pass", "fail"] and answers == [b"0 1/1\r\n", b"1 2/1\r\n"]
    return 0 if works and compiled_modules() == list(COMPILED) else 1


if __name__ == "__main__":
    sys.exit(main())
