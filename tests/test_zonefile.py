"""Zone files that are anything but."""

from __future__ import annotations

import random
import sys
from pathlib import Path

import pytest

from ra_plugins.ask.dns import Lookup, Records
from ra_plugins.ask.zonefile import ZONE_LENGTH, zone_from_file, zone_from_text

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


def test_a_large_zone_takes_work_by_its_length() -> None:
    "Counted in calls of functions, and not in seconds, which are the machine's."

    def calls(names: int) -> int:
        text, events = "".join(f"n{number}.example A 192.0.2.1\n" for number in range(names)), list[str]()
        sys.setprofile(lambda frame, event, argument: events.append(event))
        try:
            zone_from_text(text)
        finally:
            sys.setprofile(None)
        return len(events)

    calls(100)
    assert calls(4000) < 4.1 * calls(1000)


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


@pytest.mark.parametrize(
    "text", ["\u201cv=spf1\u201d", "\u201cv=spf1 -all\u201d", "\u2018v=spf1\u2019", "\u201ev=spf1", "\u00abv=spf1\u00bb"]
)
def test_quotes_of_a_word_processor_are_a_mistake(text: str) -> None:
    with pytest.raises(ValueError, match='^zone:1: .*plain ones, as in .*TXT "v=spf1'):
        zone_from_text(f"example.org TXT {text}\n")
    quoted = zone_from_text(f'example.org TXT "{text}"\n').answer(Lookup("example.org", "TXT"))
    assert quoted == (text,)  # in quotes, they are what somebody wants to say


@pytest.mark.parametrize("line", ['@ TXT "v=spf1 -all"', '@ 300 IN TXT "v=spf1 -all"', "www MX 10 @", "www CNAME @", "@"])
def test_an_origin_that_nobody_has_named(line: str) -> None:
    "Isn't the root of all names."
    with pytest.raises(ValueError, match=r"^zone:2: .*\$ORIGIN example.org."):
        zone_from_text(f"a.example A 192.0.2.1\n{line}\n")
    with pytest.raises(ValueError, match=r"^zone:2: .* as in "):  # nor is who has no name at all
        zone_from_text('$ORIGIN example.org.\n  TXT "v=spf1 -all"\n')


def test_an_origin_that_somebody_has_named() -> None:
    assert zone_from_text('$origin example.org.\n@ TXT "x"\n').records.keys() == {("example.org", "TXT")}
    assert zone_from_text('$ORIGIN .\n@ TXT "x"\n').records.keys() == {("", "TXT")}
    assert zone_from_text("a.example TXT @\n").answer(Lookup("a.example", "TXT")) == ("@",)


def test_a_colon_behind_a_name_is_a_mistake() -> None:
    with pytest.raises(ValueError, match="^zone:2: .*colon behind it: example.org:"):
        zone_from_text('a.example A 192.0.2.1\nexample.org: TXT "x"\n')
    assert zone_from_text('odd\\: TXT "x"\n').records.keys() == {("odd:", "TXT")}


@pytest.mark.parametrize(
    ("line", "example"),
    [
        *(("www A 192.0.2", "www A 192.0.2.80"), ("www A", "www A 192.0.2.80"), ("www 60 IN a x", "www A 192.0.2.80")),
        *(("www AAAA 192.0.2.1", "www AAAA 2001:db8::80"), ("mx MX mx", "MX 10 mx"), ("www MX 10", "MX 10 mx")),
        ("txt TXT", 'TXT "v=spf1'),
        *(("www", "www A 192.0.2.80"), ("www 192.0.2.1 A", "www A"), ("www CNAME a b", "www CNAME web.example.org.")),
    ],
)
def test_a_malformed_entry_is_shown_what_would_do(line: str, example: str) -> None:
    with pytest.raises(ValueError, match="^example.zone:2: ") as raised:
        zone_from_text(f"a.example A 192.0.2.1\n{line}\n", "example.zone")
    assert example in str(raised.value) or "unknown rdatatype '192.0.2.1'" in str(raised.value)


@pytest.mark.parametrize("string", ['"x" ', '"' + "x" * 250 + '" ', '"' + "\\120" * 250 + '" '])
def test_a_text_is_no_longer_than_a_record(string: str) -> None:
    "RFC 1035: 65,535 bytes, which is some 65,000 characters in strings of 250. 10^6 strings took 17 s."
    one = string.count("x") + string.count("120") + 1
    most = 65_535 // one
    found = zone_from_text(f"a.example TXT {string * most}\n").answer(Lookup("a.example", "TXT"))
    assert isinstance(found, Records) and len(found[0]) == most * (one - 1)
    for many in (most + 1, 6 * most):
        with pytest.raises(ValueError, match="^zone:2: a record has room for 65535 bytes"):
            zone_from_text(f"b.example TXT x\na.example TXT {string * many}\n")


def test_a_zone_has_a_bound(tmp_path: Path) -> None:
    "dnspython reads some thousand lines in a second, so what it gets is bounded."
    text = "a.example A 192.0.2.1\n" * (ZONE_LENGTH // 22 + 1)
    with pytest.raises(ValueError, match="^big.zone: .*4194304 characters"):
        zone_from_text(text, "big.zone")
    (tmp_path / "big.zone").write_text(text)
    with pytest.raises(ValueError, match="4194304 characters"):
        zone_from_file(tmp_path / "big.zone")


def test_a_byte_order_mark_is_no_part_of_the_first_name(tmp_path: Path) -> None:
    "Some editors begin a file with it."
    (tmp_path / "zone").write_text("\ufeff$ORIGIN example.org.\n@ A 192.0.2.1\n", encoding="utf-8")
    assert zone_from_file(tmp_path / "zone").answer(Lookup("example.org", "A")) == ("192.0.2.1",)


@pytest.mark.parametrize("stop", [KeyboardInterrupt, SystemExit])
def test_ctrl_c_is_no_mistake_in_the_file(stop: type[BaseException], monkeypatch: pytest.MonkeyPatch) -> None:
    "dnspython makes a SyntaxError without words of what happens while it reads a record."
    import dns.rdtypes.IN.A

    def interrupted(*_: object, **__: object) -> None:
        raise stop

    monkeypatch.setattr(dns.rdtypes.IN.A.A, "from_text", interrupted)
    with pytest.raises(stop):
        zone_from_text("example.org. A 192.0.2.1\n")


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32"])
def test_a_file_in_utf_16_is_said_to_be_one(encoding: str, tmp_path: Path) -> None:
    (tmp_path / "zone").write_bytes("$ORIGIN example.org.\n@ A 192.0.2.1\n".encode(encoding))
    with pytest.raises(ValueError, match="zone:1: this isn't UTF-8, but UTF-16 .*save it as UTF-8"):
        zone_from_file(tmp_path / "zone")


@pytest.mark.parametrize("first", ["CNAME web", "A 192.0.2.1"])
def test_a_cname_stands_alone(first: str) -> None:
    "RFC 1034, section 3.6.2; of DNSSEC's records some may stand beside it (RFC 4035, section 2.5)."
    second = "A 192.0.2.1" if first.startswith("CNAME") else "CNAME web"
    with pytest.raises(ValueError, match="^zone:3: www.example.org has a CNAME and other records"):
        zone_from_text(f"$ORIGIN example.org.\nwww {first}\nwww {second}\n")
    assert zone_from_text(f"www NSEC web. A\nwww {first}\n").records


def test_a_record_that_stands_there_twice_is_one() -> None:
    "RFC 2181, section 5: names in any case are the same; two texts that are cut otherwise aren't."
    zone = zone_from_text('a 60 MX 10 b\nc A 192.0.2.1\nA 30 MX 10 B\na TXT "xy"\na TXT "xy"\na TXT "x" "y"\na MX 5 c\n')
    assert zone.records["a", "MX"] == ((10, "b"), (5, "c")) and zone.records["a", "MX"].ttl == 30
    assert zone.answer(Lookup("a", "TXT")) == ("xy", "xy")
