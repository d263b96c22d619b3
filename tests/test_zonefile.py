"""Zone files that are anything but."""

from __future__ import annotations

import random
import time

import pytest

from ra_plugins.ask.dns import Lookup
from ra_plugins.ask.zonefile import zone_from_text

TEXT = """
$TTL 300
$ORIGIN example.org.
@       MX    10 mx
        TXT   ( "v=spf1 mx "
                "include:%{d} -all" )  ; two strings, one text
*.w 60 IN A   192.0.2.25
www     CNAME web.example.net.
$ORIGIN .
7.2.0.192.in-addr.arpa PTR mail.example.net.
"""
PIECES = [
    *("$ORIGIN", "$TTL", "$INCLUDE /dev/zero", "$GENERATE 1-9 a$ A 192.0.2.$", "$", "@", "(", ")", '"', ";", "\\", "\n", " "),
    *("\\999", "\\0", "\0", "é", "\udce9", "\udfff", "\u2028", "CH", "TYPE1", "CLASS1", "\\# 4 01020304", "9" * 30, "*", ".."),
]


def test_any_text_is_a_zone_or_a_value_error_with_its_line() -> None:
    chance = random.Random(1035)  # noqa: S311
    zones = 0
    for _ in range(2000):
        text = list(TEXT)
        for _ in range(chance.randrange(1, 5)):
            place = chance.randrange(len(text))
            text[place : place + chance.randrange(20)] = [chance.choice((*PIECES, "", "", ""))]
        try:
            zone = zone_from_text("".join(text), "odd.zone")
        except ValueError as error:
            assert str(error).startswith("odd.zone:")
            assert 1 <= int(str(error).split(":")[1]) <= "".join(text).count("\n") + 1
        else:
            zones += 1
            for name, rdtype in zone.records:
                zone.answer(Lookup(name, rdtype))
    assert 100 < zones < 2000  # both happen


@pytest.mark.parametrize("directive", ["$INCLUDE /etc/passwd", "$GENERATE 1-9 a$ A 192.0.2.$", "$include /etc/passwd"])
def test_a_zone_neither_opens_files_nor_grows(directive: str) -> None:
    with pytest.raises(ValueError, match=r"^zone:2: .* not allowed"):
        zone_from_text(f"a.example A 192.0.2.1\n{directive}\n")


def test_a_large_zone_takes_time_by_its_length() -> None:
    def seconds(names: int) -> float:
        start = time.process_time()
        zone_from_text("".join(f"n{number}.example A 192.0.2.1\n" for number in range(names)))
        return time.process_time() - start

    seconds(100)
    assert min(seconds(4000) for _ in range(3)) < 12 * min(seconds(1000) for _ in range(3))  # 4 times, were it exact
