"""Zone files that are anything but."""

from __future__ import annotations

import random
import time

import pytest

from ra_plugins.ask.dns import Lookup, Records
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


UNQUOTED = ["v=spf1 -all", "'v=spf1 -all'", '"v=spf1" -all', "v=DMARC1; p=reject", "\u201cv=spf1 -all\u201d"]


@pytest.mark.parametrize("text", UNQUOTED)
def test_a_text_without_quotes_is_a_mistake_with_its_line(text: str) -> None:
    for line in (f"www TXT {text}", f"www 300 IN txt {text}", f"www TXT\t{text} ; a comment"):
        with pytest.raises(ValueError, match="^example.zone:3: .*quotes"):
            zone_from_text(f"$ORIGIN example.org.\nmx A 192.0.2.25\n{line}\n", "example.zone")


def test_records_keep_the_ttl_that_the_file_gives_them() -> None:
    zone = zone_from_text("$TTL 300\na A 192.0.2.1\nb 60 A 192.0.2.2\nc CNAME b\nd 7 CNAME a\n")
    answers = [zone.answer(Lookup(name, "A")) for name in "abcd"]
    assert [answer.ttl for answer in answers if isinstance(answer, Records)] == [300, 60, 60, 7]


def test_a_zone_tells_no_name_from_no_record() -> None:
    zone = zone_from_text("a.b.example A 192.0.2.1\nc.example CNAME nowhere.example\n*.w.example TXT x\n")
    exists = {name: zone.answer(Lookup(f"{name}.example", "MX")) for name in ("a.b", "b", "c", "x.w", "y")}
    found = {name: answer.exists for name, answer in exists.items() if isinstance(answer, Records) and not answer}
    assert found == {"a.b": True, "b": True, "c": False, "x.w": True, "y": False}
