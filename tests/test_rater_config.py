"rater's configuration: what each syntax means, and that every mistake is named with its line."

from __future__ import annotations

import re
from ipaddress import IPv6Address, ip_address, ip_network
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ra_plugins.rater.config import described, load_config, parse_config
from ra_plugins.rater.limits import LATELY, Limit, Rule, RuleBook, address_bytes, one_spelling
from ra_plugins.rater.memory import Memory
from ra_plugins.rater.protocol import Rater, read_request
from ra_plugins.rater.settings import DaemonSettings
from ra_plugins.rater.syntax import ConfigError, is_toml, read_config

ROOT = Path(__file__).resolve().parent.parent

C_RATER = b"""
settings: { address: "127.0.0.1"; port: 1999; control_address: "127.0.0.1"; control_port: 4445;
            expiration_timer: 180; max_age: 90; db_path: ":memory:"; log: "/dev/stderr"; log_level: 3; };
limits: { user: ( ("rosario", 90, 20), ("*", 30, 2) );      // wildcard, seconds, count
          ip:   ( ("10.0.0.*", 90, 20), ("*", 10, 1) ); };  // the first that matches counts
"""


def problems(content: bytes, file: str = "rater.toml") -> list[str]:
    "What is wrong in a file, as people are told it."
    with pytest.raises(ConfigError) as caught:
        parse_config(file, content)
    return str(caught.value).splitlines()


def test_a_configuration_of_the_c_rater_works_unchanged() -> None:
    settings, book, notes, policy = parse_config("config", C_RATER)
    assert settings == DaemonSettings(expiration_timer=180, max_age=90) and policy is None
    limits = {name: [(rule.pattern, rule.limits) for rule in rules] for name, rules in book.classes.items()}
    assert limits == {
        "user": [("rosario", (Limit(20, 90),)), ("*", (Limit(2, 30),))],
        "ip": [("10.0.0.*", (Limit(20, 90),)), ("*", (Limit(1, 10),))],
    }
    assert [str(note).partition(" has no effect")[0] for note in notes] == [
        "config:3: expiration_timer",
        "config:3: max_age",
    ]


def test_both_syntaxes_mean_the_same() -> None:
    toml = b"""
        [settings]
        port = 2000
        socket = "/run/rater.sock"
        metrics_port = 9100
        control_port = false
        [[limits.ip]]
        match = "10.0.0.0/8"
        exempt = true
        [[limits.ip]]
        limit = ["10 in 1m", "200 in 1d"]
        prefix4 = 24
        prefix6 = 64
        watch = true
        """
    libconfig = b"""
        settings = { port = 2000; socket = "/run/rater.sock"; metrics_port = 0x238c; control_port = false };
        limits = { ip = ( { match = "10.0.0.0/8"; exempt = true },
                          { limit = [ "10 in 1m", "200 in 1d" ]; prefix4 = 24; prefix6 = 64; watch = true } ) };
        """
    one, other = parse_config("rater.toml", toml), parse_config("rater.conf", libconfig)
    assert one.settings == other.settings and described(one) == described(other)
    assert described(one) == (
        """Questions: 127.0.0.1 port 2000 and /run/rater.sock
Marks: in memory, gone when rater ends
Control port: none
Metrics: 127.0.0.1 port 9100
Log: /dev/stderr, level 3 (info)
Connections: at most 10,000 at once, 30 s for a question
Class ip:
  10.0.0.0/8: exempt
  *: 10 in 1m, 200 in 1d, watched only; IPv4 by /24; IPv6 by /64"""
    )


def test_toml_needs_no_ending() -> None:
    assert parse_config("config", b"# ours\n  [settings]\nport = 2000").settings.port == 2000
    assert parse_config("config.toml", b"settings.port = 2000").settings.port == 2000


@pytest.mark.parametrize(
    "line, kept",
    [
        ("", "in memory"),
        ('db_path = ":memory:"', "in memory"),
        ('db_path = "/var/lib/marks"', "in /var/lib/marks, an SQLite file"),
        ('store = "sqlite:/var/lib/marks"', "in /var/lib/marks, an SQLite file"),
        ('store = "redis://:secret@127.0.0.1:6379/0"', "in Redis, redis://…@127.0.0.1:6379/0"),
    ],
)
def test_where_marks_are_kept(line: str, kept: str) -> None:
    assert f"Marks: {kept}" in described(parse_config("rater.toml", f"[settings]\n{line}".encode()))


@pytest.mark.parametrize(
    "line, message",
    [
        ("port = 65536", "port should be a whole number from 0 .*, not 65536"),
        ('port = "1999"', 'port should be a whole number .*, not "1999"'),
        ("port = true", "port should be .*, not true"),
        ("log_level = 5", "log_level should be a whole number from 0 to 4, not 5"),
        ("timeout = 0", "timeout should be .*, not 0"),
        ('address = "localhost"', 'address should be an IP address in double quotes, not "localhost"'),
        ('store = "mysql:x"', "'mysql:x' is no store: memory, sqlite:PATH, .*"),
        ("prot = 1", "prot is unknown; should it be port.*"),
        ("colour = 1", "colour is unknown; there are address, port, .*"),
        ("log = 1979-05-27", 'log should be a text in double quotes, not "1979-05-27"'),
        ("port 1999", "Expected '=' after a key in a key/value pair"),
        ("port = 1\nport = 2", "Cannot overwrite a value"),
        ("port = false", "port is false and there is no socket, so nobody could ask"),
        ('db_path = "a"\nstore = "memory"', "db_path and store both say .*"),
    ],
)
def test_wrong_settings(line: str, message: str) -> None:
    (problem,) = problems(f"\n[settings]\n{line}\n".encode())
    wrong = line.count("\n") + 3 if "overwrite" in message else 3
    assert problem.startswith(f"rater.toml:{wrong}: ")
    assert re.search(f": {message}$", problem)


def test_both_kinds_of_mistakes_at_once_and_in_order() -> None:
    found = problems(
        b"""
[[limits.ip]]
match = "10.0.0.1/8"
exempt = true
[[limits.ip]]
match = "*"
[[limits.ip]]
limit = "10 per minute"
exempt = true
[[limits."a b"]]
limit = ["1 in 1m", "1 in 0s"]
[[limits.-x]]
limits = "1 in 1m"
prefix4 = 33
[limits.user]
limit = "1 in 1m"
[setings]
port = 0
"""
    )
    assert [line.split(" should")[0].split(" is unknown")[0] for line in found] == [
        "rater.toml:3: 10.0.0.1/8",
        "rater.toml:5: a rule",
        "rater.toml:8: '10 per minute'",
        'rater.toml:10: "a b" can\'t be a class: its name',
        "rater.toml:11: a window",
        'rater.toml:12: "-x" can\'t be a class: its name',
        "rater.toml:13: limits",
        "rater.toml:14: prefix4",
        "rater.toml:15: user",
        "rater.toml:17: setings",
    ]


@pytest.mark.parametrize(
    "content, expected",
    [
        (
            'limits: { ip:\n( ("*", 10) ); };',
            '2: a rule should be a table, or (wildcard, seconds, count) as in ("*", 30, 2)',
        ),
        ('limits: { ip:\n( ("*", 10, -1) ); };', "2: a count should be from 0 to 1,000,000, not -1"),
        ('limits: { ip:\n( ("*", 0, 1) ); };', "2: a window should be over 0"),
        ('limits: { ip:\n( ("*", 10, true) ); };', "2: a rule should be"),
        ("limits: { ip:\n( (10, 10, 1) ); };", "2: a rule should be"),
        ('limits: { ip: (\n("10.0.0.1/8", 10, 1) ); };', "2: 10.0.0.1/8 should be a network"),
        ('limits: {\nip: ("*", 10, 1); };', "2: a rule should be"),
        ("limits: {\nip: 1; };", "2: ip should be a list of rules"),
        ('limits: { ip: (\n("*", 10, 1)\n("10.*", 1, 1) ); };', "3: ( stands where ) should be"),
        ("settings: {\n port: 1\n port: 2 };", "3: port comes twice"),
        ("settings: {\n address: 127.0.0.1 };", "2: .0 stands where } should be"),
        ("settings: {\n port: 01 };", "2: there is nothing like this in libconfig: port: 01 };"),
        ('settings: {\n log: "x };', '2: there is nothing like this in libconfig: log: "x };'),
        ("settings: {\n", "2: the end of the file stands where } should be"),
        ("\nsettings: 1;", "2: settings should be a section"),
        ('\n@include "config"', "2: config would include itself"),
        ('\n@include "/nowhere/limits"', "2: can't read /nowhere/limits: No such file or directory"),
    ],
)
def test_mistakes_in_libconfig(content: str, expected: str) -> None:
    assert problems(content.encode(), "config")[0].startswith(f"config:{expected}")


def test_included_files(tmp_path: Path) -> None:
    limits, config = tmp_path / "limits", tmp_path / "config"
    limits.write_text('limits: { ip: (\n("*", 10, 1) ); };')
    config.write_text(f'settings: {{ port: 2000; }};\n@include "{limits}"\nsettingz: 1;')
    with pytest.raises(ConfigError, match=rf"^{config}:3: settingz is unknown; should it be settings\?$"):
        load_config(str(config))
    config.write_text(f'@include "{limits}"')
    assert load_config(str(config)).book.rule("ip", "10.0.0.4").limits == (Limit(1, 10),)
    limits.write_text('limits: { ip: (\n("*", 10, -1) ); };')
    with pytest.raises(ConfigError, match=f"^{limits}:2: a count should be"):
        load_config(str(config))


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    for path, reason in ((tmp_path, "Is a directory"), (tmp_path / "x", "No such file or directory")):
        with pytest.raises(ConfigError, match=f"can't read .*: {reason}$"):
            load_config(str(path))


@pytest.mark.parametrize(
    "content, expected",
    [
        ("", ["rater.toml: there are no limits, so each question is answered with 2 Class not found"]),
        (
            '[[limits.ip]]\nlimit = "1 in 1s"\n[[limits.ip]]\nmatch = "10.*"\nexempt = true',
            ["rater.toml:3: this rule is never reached: the one before it, *, is for every value"],
        ),
        (
            '[settings]\ncontrol_address = "0.0.0.0"\n[[limits.ip]]\nlimit = "1 in 1s"',
            ["rater.toml:2: the control port is open to other machines, and asks for no password"],
        ),
    ],
)
def test_what_may_not_be_meant_is_noted(content: str, expected: list[str]) -> None:
    assert [str(note) for note in parse_config("rater.toml", content.encode()).notes] == expected


PIECES = [b"settings", b"limits", b"ip", b"port", b"match", b"limit", b"exempt", b'"*"', b'"10 in 1m"', b"true", b"30"]
MARKS = [
    b": ",
    b" = ",
    b"{",
    b"}",
    b"(",
    b")",
    b"[",
    b"]",
    b"[[limits.ip]]",
    b"[settings]",
    b";",
    b",",
    b"\n",
    b'"',
    b"'",
    b".",
]


@given(
    st.one_of(st.binary(), st.lists(st.sampled_from(PIECES + MARKS)).map(b"".join)), st.sampled_from(["a", "a.toml"])
)
@example(b"a = " + b"[" * 10000, "a.toml")
@example(b"a = " + b"(" * 10000, "a")
@example(b"a = " + b"9" * 10000, "a.toml")
@example(b"a = " + b"9" * 10000, "a")
@example(b"[settings]\nport = nan\n", "a.toml")
def test_any_bytes_are_a_configuration_or_a_complaint(content: bytes, file: str) -> None:
    try:
        described(parse_config(file, content))
    except ConfigError as error:
        assert all(line.startswith(f"{file}:") and line.isprintable() for line in str(error).split("\n"))


# Patterns that can't be meant


@pytest.mark.parametrize(
    "match, instead",
    [
        ("10.0.0/8", "; is 10.0.0.0/8 meant?"),
        ("10/8", "; is 10.0.0.0/8 meant?"),
        ("10.0.0.*/24", "; is 10.0.0.0/24 meant?"),
        ("[2001:db8::]/32", "; is 2001:db8::/32 meant?"),
        ("10.0.256.0/24", ""),
        ("10.0.0.0/33", ""),
        ("::ffff:172.16.0.0/108", "addresses are counted as such: 172.16.0.0/12"),
        ("[2001:db8::1]", "which has no brackets: 2001:db8::1"),
    ],
)
def test_what_means_a_network_and_is_none_is_told(match: str, instead: str) -> None:
    (problem,) = problems(f'[[limits.ip]]\nmatch = "{match}"\nexempt = true'.encode())
    assert problem.startswith(f"rater.toml:2: {match} should be ") and problem.endswith(instead)


def notes(*rules: str) -> list[str]:
    "What is noted of rules, each given as the lines of its table without line feeds in between."
    text = "".join(f"[[limits.ip]]\n{rule}\n" for rule in rules)
    return [str(note) for note in parse_config("rater.toml", text.encode()).notes]


@pytest.mark.parametrize(
    "first, second, hidden",
    [
        ("10.0.0.0/8", "10.2.0.0/16", True),
        ("10.0.0.0/8", "10.2.3.4", True),
        ("10.0.0.0/8", "::ffff:10.2.3.4", True),
        ("10.0.0.0/8", "10.2.*", True),
        ("10.*", "10.2.0.0/16", True),
        ("2001:db8::/32", "2001:DB8:1::/48", True),
        ("192.0.2.1", "192.0.2.1", True),
        ("**", "ana", True),
        ("*@example.org", "ana@example.org", True),
        ("*@example.org", "a*@example.org", True),
        ("10.2.0.0/16", "10.0.0.0/8", False),
        ("10.0.0.0/8", "11.0.0.0/8", False),
        ("0.0.0.0/0", "2001:db8::1", False),
        ("ana@*", "*@example.org", False),
        ("a?", "a*", False),
        ("*a*", "[ab]", False),
    ],
)
def test_a_rule_that_is_never_reached_is_told(first: str, second: str, hidden: bool) -> None:
    told = notes(f'match = "{first}"\nexempt = true', f'match = "{second}"\nlimit = "1 in 1s"')
    assert [each.partition(",")[0] for each in told] == [
        "rater.toml:4: this rule is never reached: the one before it"
    ] * hidden


def test_what_can_match_nothing_and_a_limit_that_never_decides_are_told() -> None:
    assert notes('match = "2001:DB8:*"\nlimit = ["20 in 1m", "10 in 1h", "50 in 1d"]') == [
        'rater.toml:2: no value can match "2001:DB8:*": addresses are counted in lower case',
        "rater.toml:3: 20 in 1m never decides: 10 in 1h is passed before it",
    ]
    assert notes('match = "::ffff:10.*"\nexempt = true')[0].startswith("rater.toml:2: no value can match")
    assert notes('match = "[z-a]"\nexempt = true')[0].startswith("rater.toml:2: no value can match")
    assert "2001:0db8:*" in notes('match = ["192.0.2.1", "2001:0db8:*"]\nexempt = true')[0]
    assert not notes('match = "AA:BB:CC:*"\nlimit = ["10 in 1m", "200 in 1d"]', 'match = "[A-F]?"\nexempt = true')


LIKE_ADDRESSES = [
    "10.0.0.256",
    "010.0.0.1",
    "10.0.0.",
    "10.0.0.0 / 8",
    "10.0.0.1-10.0.0.9",
    "10.0.0.1:25",
    "[10.0.0.1]",
]
LIKE_ADDRESSES += [" 10.0.0.1", "1.2.3.4%eth0", "[2001:db8::1]:25", "IPv6:2001:db8::1", "2001:db8:", "2001:db8::-9"]


@pytest.mark.parametrize("pattern", LIKE_ADDRESSES)
def test_what_looks_like_an_address_and_is_none_is_told(pattern: str) -> None:
    told = f'"{pattern}" is taken for a text, since no address and no network is written so'
    assert notes(f'match = "{pattern}"\nexempt = true') == [f"rater.toml:2: {told}"]
    assert notes(f'match = ["ana", "{pattern}"]\nexempt = true') == [f"rater.toml:2: {told}"]


@pytest.mark.parametrize(
    "pattern", ["release 10.0.0.1", "00:00:5e:00:53:01", "12:34:56", "1.2.3", "a::b c", "3.141", "x@10.0.0.1"]
)
def test_other_texts_are_let_be(pattern: str) -> None:
    assert not notes(f'match = "{pattern}"\nexempt = true')


# Addresses


def spellings(number: int, bits: int) -> list[str]:
    "Ways to write an address."
    if bits == 32:
        four = str(ip_address(number))
        mapped = f"::FFFF:{number >> 16:x}:{number & 0xFFFF:X}"
        return [four, f"::ffff:{four}", mapped, f"0:0:0:0:0:ffff:{four}", f"{mapped}%eth0"]
    six = IPv6Address(number)
    return [
        str(six),
        str(six).upper(),
        six.exploded,
        six.exploded.upper(),
        ":".join(f"{int(each, 16):x}" for each in six.exploded.split(":")),
        str(six) if six.is_link_local else f"{six}%eth0",
    ]


addresses = st.one_of(
    st.tuples(st.integers(0, 2**32 - 1), st.just(32)),
    st.tuples(st.integers(0, 2**128 - 1).filter(lambda number: number >> 32 != 0xFFFF), st.just(128)),
    st.tuples(st.integers(0, 2**40 - 1).filter(lambda number: number >> 32 != 0xFFFF), st.just(128)),
)


@given(addresses, st.data())
def test_an_address_is_one_however_it_is_written(address: tuple[int, int], data: st.DataObject) -> None:
    number, bits = address
    one, other = (data.draw(st.sampled_from(spellings(number, bits))) for _ in range(2))
    plain = str(ip_address(number)) if bits == 32 else str(IPv6Address(number))
    prefix = data.draw(st.integers(0, bits))
    everybody = Rule("*", (), prefix4=prefix if bits == 32 else 32, prefix6=prefix if bits == 128 else 128)
    assert Rule("*", ()).counted(one) == plain
    assert everybody.counted(one) == (plain if prefix == bits else str(ip_network(f"{plain}/{prefix}", strict=False)))
    assert Rule(other.partition("%")[0], ()).covers(one) and Rule(
        str(ip_network(f"{plain}/{prefix}", strict=False)), ()
    ).covers(one)
    assert not Rule(str(ip_address(plain) + (1 if number < 2**bits - 1 else -1)), ()).covers(one)


@given(st.text(max_size=40) | st.from_regex(r"[0-9a-fA-F:.%]{1,40}", fullmatch=True))
def test_what_is_no_address_is_left_as_it_is(value: str) -> None:
    try:
        ip_address(value.partition("%")[0] if ":" in value else value)
    except ValueError:
        assert one_spelling(value) == value and address_bytes(value) is None


def test_a_zone_tells_link_local_addresses_apart_and_no_others() -> None:
    rule = Rule("*", (), prefix6=64)
    assert [rule.counted(f"FE80::1%{zone}") for zone in ("eth0", "eth1", "")] == [
        "fe80::%eth0/64",
        "fe80::%eth1/64",
        "fe80::/64",
    ]
    assert {rule.counted(f"2001:db8::{number}%{number}") for number in range(9)} == {"2001:db8::/64"}
    assert {Rule("*", ()).counted(f"::ffff:192.0.2.1%{number}") for number in range(9)} == {"192.0.2.1"}
    assert Rule("192.0.2.0/24", ()).covers("::ffff:192.0.2.1%eth0") and Rule("fe80::/10", ()).covers("fe80::1%eth0")


@pytest.mark.parametrize("pattern, instead", [("fe80::1%eth0", "fe80::1"), ("fe80::%eth0/10", "fe80::/10")])
def test_a_match_with_a_zone_is_refused_since_it_would_be_for_all_zones(pattern: str, instead: str) -> None:
    with pytest.raises(ConfigError, match=f"2: {pattern} should be without its zone.*: {instead}$"):
        notes(f'match = "{pattern}"\nexempt = true')


def test_what_a_book_remembers_of_addresses_changes_no_answer_and_is_bounded() -> None:
    rules = [Rule("2001:db8:1::/48", ()), Rule("*", [Limit(1, 60)], prefix4=24, prefix6=63)]
    book = RuleBook({"ip": rules, "plain": [Rule("*", [Limit(1, 60)])]})
    for _ in range(2):
        assert book.found("ip", "2001:DB8:1::7") == (rules[0], "2001:db8:1::7")
        assert book.found("ip", "2001:DB8:0:3::7") == (rules[1], "2001:db8:0:2::/63")
        assert book.found("ip", "::ffff:c000:207") == (rules[1], "192.0.2.0/24")
        assert book.found("plain", "::FFFF:c000:207")[1] == "192.0.2.7" and book.found("plain", "a:B")[1] == "a:B"
    for number in range(1, 3 * LATELY):
        value = f"2001:DB8::{number:x}"
        assert (book.found("plain", value)[1], book.found("ip", value)[1]) == (
            value.lower().replace("::0", "::"),
            "2001:db8::/63",
        )
    assert len(book._spelled) <= LATELY and book._lately.cache_info().currsize <= LATELY


def test_the_packaged_rule_counts_an_address_once() -> None:
    rater = Rater(load_config(str(ROOT / "packaging/rater.toml")).book, Memory())
    asked = [b"ip 198.51.100.1", b"ip ::ffff:198.51.100.1", b"ip ::ffff:c633:6401"]
    assert rater.answers([read_request(line) for line in asked]) == [b"0 1/10\r\n", b"0 2/10\r\n", b"0 3/10\r\n"]


# What a rule and a class choose


def test_watch_count_down_and_values_mean_the_same_in_both_syntaxes() -> None:
    toml = b"""
        [settings]
        values = 5000
        [[limits.ip]]
        limit = ["10 in 1m", "200 in 1d"]
        watch = "200 in 1d"
        count = "within"
        [classes.ip]
        down = "memory"
        """
    libconfig = b"""
        settings: { values: 5000; };
        limits: { ip: ( { limit: ["10 in 1m", "200 in 1d"]; watch: ["200 in 1d"]; count: "within"; } ); };
        classes: { ip: { down: "memory"; }; };
        """
    for file, content in (("rater.toml", toml), ("rater.conf", libconfig)):
        config = parse_config(file, content)
        (rule,) = config.book.classes["ip"]
        assert (rule.watched, rule.within, config.book.down) == ((False, True), (True, False), {"ip": "memory"})
        assert described(config).splitlines()[1:2] + described(config).splitlines()[-3:] == [
            "Marks: in memory, gone when rater ends, at most 5,000 values",
            "Class ip:",
            "  while the store is away, marks are counted in this rater's memory",
            "  *: 10 in 1m, 200 in 1d (watched only), only what is within is counted",
        ]


@pytest.mark.parametrize(
    "content, expected",
    [
        (
            '[[limits.ip]]\nlimit = "1 in 1m"\nwatch = "2 in 1m"',
            "1: watch should name limits of this rule, and 2 in 1m is none",
        ),
        ('[[limits.ip]]\nlimit = "1 in 1m"\nwatch = 1', "3: watch should be true or false, or one of the limits"),
        ('[[limits.ip]]\nlimit = "1 in 1m"\ncount = "few"', '3: count should be "all" or "within", not "few"'),
        (
            '[[limits.ip]]\nlimit = "1 in 1m"\n[classes.ip]\ndown = true',
            '4: down should be "pass", "refuse" or "memory"',
        ),
        (
            '[[limits.ip]]\nlimit = "1 in 1m"\n[classes.user]\ndown = "pass"',
            '3: there are no limits for a class "user"',
        ),
        ("[settings]\nvalues = 10", "2: values should be a whole number from 1000 to 100000000"),
        (
            '[settings]\nstore = "redis+sentinel://:secret@192.0.2.1"',
            "2: no address of a Redis server: redis+sentinel://",
        ),
        (
            '[settings]\nstore = "redis://192.0.2.1?timeout=-1"',
            "2: no address of a Redis server: timeout should be over 0",
        ),
    ],
)
def test_mistakes_in_what_a_rule_and_a_class_choose(content: str, expected: str) -> None:
    (problem,) = problems(content.encode())
    assert problem.startswith(f"rater.toml:{expected}") and "secret" not in problem


# The syntax


def test_an_array_on_a_line_of_its_own_is_no_toml() -> None:
    old = b'/* the\n[office] */\nlimits: { ip: ( // wildcard, seconds, count\n("*", 10, 1) ); };'
    assert str(parse_config("config", old).book.classes["ip"][0]) == "*: 1 in 10s"
    assert read_config("config", b"ports:  # all of them\n [1999, 2000];").values == {"ports": [1999, 2000]}
    for toml in (b"port = 1\n[settings]", b"a = [\n[1],\n[2]]\n # x\n [b] # c", b"[[limits.ip]]\nlimit = '1 in 1s'"):
        assert is_toml(toml)


# Lists, and values that are taken for one


def test_a_rule_for_several_patterns_and_for_those_in_a_file(tmp_path: Path) -> None:
    office = tmp_path / "office"
    office.write_text("# the office\n10.0.0.0/8\n\n2001:DB8::1\n  *.example.org  \nana\n")
    config = parse_config(
        "rater.toml",
        f"""
        [[limits.ip]]
        match = "file:{office}"
        exempt = true
        [[limits.ip]]
        match = ["192.0.2.0/24", "198.51.100.7", "x*", "eva"]
        limit = "7 in 1m"
        [[limits.ip]]
        limit = "1 in 1m"
        """.encode(),
    )
    assert config.notes == () and described(config).splitlines()[-3:] == [
        f"  file:{office} (4): exempt",
        "  192.0.2.0/24, 198.51.100.7, x* and 1 more: 7 in 1m",
        "  *: 1 in 1m",
    ]
    allowed = {
        0: "10.1.2.3 ::ffff:10.1.2.3 2001:db8:0::1 mx.example.org ana",
        7: "192.0.2.9 ::ffff:192.0.2.9 198.51.100.7 xyz eva",
        1: "2001:db8::2 198.51.100.8 example.org anna eve",
    }
    for count, values in allowed.items():
        for value in values.split():
            limits = config.book.rule("ip", value).limits
            assert (limits[0].allowed if limits else 0) == count, value


@pytest.mark.parametrize(
    "match, expected",
    [
        ('"file:/nowhere/list"', "can't read /nowhere/list: No such file or directory"),
        ('"file:{}"', "{}, line 2: 10.0.0.1/8 should be a network: 10.0.0.1/8 has host bits set; is 10.0.0.0/8 meant?"),
        ('["10.0.0.1/8", "x"]', "10.0.0.1/8 should be a network: 10.0.0.1/8 has host bits set; is 10.0.0.0/8 meant?"),
        ("[]", "match should be a network, an address, a wildcard as in a shell, a list of those, or"),
        ('["x", 1]', "match should be a network, an address, a wildcard as in a shell, a list of those, or"),
    ],
)
def test_mistakes_in_lists(tmp_path: Path, match: str, expected: str) -> None:
    path = tmp_path / "list"
    path.write_text("192.0.2.1\n10.0.0.1/8\n")
    (problem,) = problems(f"[[limits.ip]]\nmatch = {match}\nexempt = true\n".replace("{}", str(path)).encode())
    told = problem.removeprefix("rater.toml:2: ").removeprefix("match ")
    assert told.startswith(expected.replace("{}", str(path)).removeprefix("match ")), problem


def test_an_empty_file_is_for_nobody(tmp_path: Path) -> None:
    (tmp_path / "list").write_text("# nobody yet\n")
    config = parse_config("rater.toml", f'[[limits.ip]]\nmatch = "file:{tmp_path}/list"\nexempt = true'.encode())
    assert not any(config.book.classes["ip"][0].covers(value) for value in ("", "x", "192.0.2.1"))


def test_case_and_tags_by_class() -> None:
    config = parse_config(
        "rater.toml",
        b"""
        [classes.from]
        fold = true
        tag = "+"
        [[limits.from]]
        match = "Boss@*"
        exempt = true
        [[limits.from]]
        limit = "2 in 1m"
        [[limits.user]]
        limit = "2 in 1m"
        """,
    )
    assert "  counted in lower case and without what a + stands before in a local part" in described(config)
    rater = Rater(config.book, Memory())

    def asked(name: str, *values: str) -> list[str]:
        return [
            line.decode().strip()
            for line in rater.answers([read_request(f"{name} {each}".encode()) for each in values])
        ]

    assert asked("from", "ana@example.org", "ANA@Example.org", "ana+1@example.org") == ["0 1/2", "0 2/2", "1 3/2"]
    assert asked("from", "boss+x@example.org", "BOSS@example.org", "+a@example.org") == ["0 0/0", "0 0/0", "0 1/2"]
    assert asked("from", "ana+1", "Ana") == ["0 1/2", "0 2/2"]
    assert asked("user", "ana", "Ana", "ana+1") == ["0 1/2"] * 3
    (problem,) = problems(b'[[limits.user]]\nlimit = "1 in 1s"\n[classes.user]\ntag = "ab"')
    assert problem.startswith("rater.toml:4: tag should be one character")
