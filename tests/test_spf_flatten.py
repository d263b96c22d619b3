"""Flattened records and differences between records: worked out by hand, held against the check, and under hostile DNS."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from spf_strategies import EXAMPLES

from ra_plugins.ask.dns import Lookup, Records, Zone
from ra_plugins.ask.question import Late, drive
from ra_plugins.ask.zonefile import zone_from_file, zone_from_text
from ra_plugins.cli.command import main
from ra_plugins.spf.evaluation import check_identity
from ra_plugins.spf.owner.diff import SpfDiff, run_diff
from ra_plugins.spf.owner.flatten import Flattened, FlattenError, FlattenSettings, flatten, quoted_strings, run_flatten
from ra_plugins.spf.owner.survey import run_survey, survey
from ra_plugins.spf.query import Query

HOSTS = """
$TTL 1h
$ORIGIN example.
mx    A     192.0.2.25
mx    AAAA  2001:db8::25
top   MX    10 mx
www   A     192.0.2.80
"""


def zone_of(**records: str) -> Zone:
    "A zone of SPF records, by the first label of names below example, with some hosts."
    lines = [f"{name} TXT {quoted_strings(f'v=spf1 {terms}')}\n" for name, terms in records.items()]
    return zone_from_text(HOSTS + "".join(lines))


def flat(terms: str, *keep: str, size: int = 512, keep_a: bool = False, keep_mx: bool = False, **records: str) -> Flattened:
    "The record of top.example, flattened."
    wanted = FlattenSettings(keep, keep_a, keep_mx, size)
    return run_flatten("top.example", settings=wanted, resolver=zone_of(top=terms, **records))


def text(*arguments: Any, **options: Any) -> str:
    "Its terms, where they fit into one record."
    (record,) = flat(*arguments, **options).records.values()
    return record.removeprefix("v=spf1 ")


# By hand


def test_halves_become_one_network_and_networks_inside_others_vanish() -> None:
    terms = "ip4:198.51.100.0/25 include:a ip4:198.51.100.7 -all".replace("include:a", "include:a.example")
    assert text(terms, a="ip4:198.51.100.128/25 ~all") == "ip4:198.51.100.0/24 -all"


def test_hosts_become_addresses_of_both_kinds() -> None:
    assert text("mx a:www.example/31 ~all") == "ip4:192.0.2.25 ip4:192.0.2.80/31 ip6:2001:db8::25 ~all"


def test_what_is_refused_first_stays_refused() -> None:
    assert text("-ip4:198.51.100.7 include:a.example ~all", a="ip4:198.51.100.0/24 -all") == (
        "-ip4:198.51.100.7 ip4:198.51.100.0/24 ~all"
    )


def test_a_refusal_in_an_include_is_no_match_and_goes_on_behind_it() -> None:
    "198.51.100.7 doesn't match the include, so the next term has its turn."
    terms = "include:a.example ?ip4:198.51.100.0/24 -all"
    assert text(terms, a="-ip4:198.51.100.7 ip4:198.51.100.0/24 -all") == "?ip4:198.51.100.7 ip4:198.51.100.0/24 -all"


def test_qualifiers_of_includes_are_those_of_the_networks() -> None:
    assert text("?include:a.example ~include:b.example -all", a="ip4:192.0.2.1 -all", b="ip4:192.0.2.2 -all") == (
        "?ip4:192.0.2.1 ~ip4:192.0.2.2 -all"
    )


def test_what_all_says_anyway_is_left_out() -> None:
    assert text("ip4:192.0.2.1 -ip4:192.0.2.0/24 -all") == "ip4:192.0.2.1 -all"


def test_a_record_without_all_has_none_afterwards() -> None:
    assert text("ip4:192.0.2.1 ?ip4:192.0.2.2") == "ip4:192.0.2.1"


def test_a_redirect_gives_its_all() -> None:
    assert text("ip4:192.0.2.1 redirect=a.example", a="ip4:192.0.2.0 exp=why.example ~all") == (
        "ip4:192.0.2.0/31 ~all exp=why.example"
    )


def test_exists_stays_where_it_stood_and_its_include_gives_way() -> None:
    terms = "-ip4:192.0.2.9 ?include:a.example ip4:192.0.2.2 -all"
    inner = "ip4:192.0.2.1 exists:%{i}.ok.example ip4:192.0.2.3 -all"
    assert text(terms, a=inner) == (
        "?ip4:192.0.2.1 -ip4:192.0.2.9 ?exists:%{i}.ok.example ip4:192.0.2.2 ?ip4:192.0.2.3 -all"
    )


@pytest.mark.parametrize("inner", ["-ip4:192.0.2.1 exists:%{i}.ok.example -all", "exists:%{i}.%{d} -all", "-ptr ?all"])
def test_an_include_that_nothing_else_can_say_stays(inner: str) -> None:
    found = flat("ip4:192.0.2.4 include:a.example ip4:192.0.2.5 -all", a=inner)
    assert found.records == {"top.example": "v=spf1 ip4:192.0.2.4 include:a.example ip4:192.0.2.5 -all"}
    assert found.after == 2


def test_ptr_of_another_record_names_its_domain() -> None:
    assert text("include:a.example -all", a="ptr ~all") == "ptr:a.example -all"


def test_what_is_kept_by_name_stays_whole() -> None:
    found = flat("mx a:www.example include:A.example. redirect=b.example", "a.example", keep_a=True, keep_mx=True,
                 a="include:c.example -all", b="ip4:192.0.2.1 ~all", c="ip4:198.51.100.0/24 -all")  # fmt: skip
    assert found.records["top.example"] == "v=spf1 mx a:www.example include:A.example. ip4:192.0.2.1 ~all"
    assert found.kept == ["mx", "a:www.example", "include:A.example."] and found.after == 4


def test_a_kept_redirect_is_one_afterwards() -> None:
    "An include in its place would make neutral what b.example refuses."
    assert text("ip4:192.0.2.9 redirect=b.example", "b.example", b="mx -all") == "ip4:192.0.2.9 redirect=b.example"
    inside = text("include:a.example", "b.example", a="ip4:192.0.2.9 redirect=b.example", b="ip4:192.0.2.3 -all")
    assert inside == "ip4:192.0.2.9 include:b.example"


def test_a_host_without_address_is_told() -> None:
    assert flat("a:gone.example mx -all").notes == ["a:gone.example of top.example has no address now"]


# Sizes


def test_records_fit_into_strings_and_answers() -> None:
    found = flat(" ".join(f"ip4:198.51.100.{host}" for host in range(0, 160, 2)) + " ?ip4:203.0.113.0/24 -all")
    own, *parts = found.records.values()
    assert own == "v=spf1 ?ip4:203.0.113.0/24 " + " ".join(
        f"include:_spf{number}.top.example" for number in range(1, len(parts) + 1)
    ) + " -all"  # fmt: skip
    assert found.after == len(parts) == 4
    assert all(size + 11 <= 512 for size in found.sizes.values())
    assert all(len(name) + len(each) <= 450 for name, each in found.records.items())
    strings = [piece for piece in found.zone_text().split('"') if "ip4" in piece]
    assert max(map(len, strings)) == 255


def test_other_texts_take_room() -> None:
    zone = zone_of(top=" ".join(f"ip4:198.51.100.{host}" for host in range(0, 36, 2)) + " -all")
    assert len(run_flatten("top.example", resolver=zone).records) == 1
    (record,) = zone.records["top.example", "TXT"]
    zone = Zone({**zone.records, ("top.example", "TXT"): [record, "k" * 200]})
    found = run_flatten("top.example", resolver=zone)
    assert len(found.records) == 2 and found.sizes["top.example"] + 11 <= 512


def test_a_larger_answer_needs_fewer_records() -> None:
    terms = " ".join(f"ip4:198.51.{host}.0/25" for host in range(100)) + " -all"
    # 1,890 characters of terms: an answer of 512 bytes has room for about 450 of them, one of 1,232 for 1,170
    assert len(flat(terms).records) == 1 + 5 and len(flat(terms, size=1232).records) == 1 + 2


def test_no_lookups_arent_endless_ones() -> None:
    assert repr(flat("ip4:192.0.2.1 -all")) == "<top.example: 1 records, 0 lookups, 0 before>"


def test_too_many_networks_are_refused() -> None:
    terms = " ".join(f"ip4:10.{host // 256}.{host % 256}.0/25" for host in range(3000)) + " -all"
    what, kept = "3000 networks don't fit into 10 records of answers of", "keep the include .*--keep DOMAIN"
    with pytest.raises(FlattenError, match=rf"{what} 512 bytes: let answers be larger \(--size 1232\), or {kept}"):
        flat(terms)
    with pytest.raises(FlattenError, match=f"{what} 1232 bytes: {kept}"):
        flat(terms, size=1232)


def test_what_is_behind_a_bound_isnt_blamed_on_dns() -> None:
    "Waiting doesn't help: the record is as large tomorrow."
    many = " ".join(f"include:n{number}.example" for number in range(3000)) + " -all"
    networks: dict[str, Any] = {f"n{number}": f"ip4:198.51.100.{number % 256} -all" for number in range(270)}
    with pytest.raises(FlattenError) as raised:
        flat(many, **networks)
    assert not raised.value.partial
    assert str(raised.value) == (
        "it leads to more than is looked at: too many terms: top.example (101 that ask were read)"
    )
    broad: dict[str, Any] = {
        f"b{each}": " ".join(f"include:n{number}.example" for number in range(90 * each, 90 * each + 90))
        for each in range(3)
    }
    with pytest.raises(FlattenError) as raised:
        flat("include:b0.example include:b1.example include:b2.example -all", **broad, **networks)
    assert not raised.value.partial  # 1 + 3 + 246 are 250, so 24 of 270 aren't read
    assert str(raised.value) == (
        "it leads to more than is looked at: too many records: include:n246.example of b2.example"
        " (250 were read), and 23 more like it"
    )


def test_nobodys_record_isnt_flattened() -> None:
    with pytest.raises(FlattenError, match="^mx is about the record's own domain, which nobody has named$"):
        run_flatten("v=spf1 mx -all", resolver=zone_of())
    assert run_flatten("v=spf1 ip4:192.0.2.1 -all", resolver=zone_of()).networks == 1


def test_octets_that_no_zone_file_has_are_escaped() -> None:
    assert quoted_strings('a"b\\c\udcff') == '"a\\"b\\\\c\\255"'


# What is refused


@pytest.mark.parametrize(
    ("terms", "why"),
    [
        ("include:gone.example -all", "leads to no record"),
        ("include:bad.example -all", "leads to a faulty record"),
        ("include:nolabel -all", "top.example has a faulty record: "),
        ("include:loop.example -all", "is a loop"),
        ("include:top.example -all", "is a loop"),
    ],
)
def test_an_error_isnt_flattened(terms: str, why: str) -> None:
    with pytest.raises(FlattenError, match=why) as raised:
        flat(terms, bad="moo", loop="include:loop.example -all")
    assert not raised.value.partial


def silent(zone: Zone, *names: str) -> Any:
    "A zone that doesn't answer for some names."
    return lambda question, until: Late("no answer") if question.name in names else zone(question)


@pytest.mark.parametrize("name", ["www.example", "mx.example", "a.example", "b.example", "top.example"])
def test_nothing_is_published_where_dns_is_silent(name: str) -> None:
    zone = zone_of(top="mx a:www.example include:a.example -all", a="include:b.example -all", b="ip4:192.0.2.1 -all")
    with pytest.raises(FlattenError, match=name) as raised:
        flatten(drive(survey("top.example"), silent(zone, name)))
    assert raised.value.partial


def test_silence_behind_what_stays_is_told() -> None:
    zone = zone_of(top="mx include:a.example -all", a="include:b.example -all")
    found = flatten(drive(survey("top.example"), silent(zone, "b.example")), FlattenSettings(["a.example"]))
    assert found.records["top.example"] == "v=spf1 ip4:192.0.2.25 ip6:2001:db8::25 include:a.example -all"
    assert "DNS didn't tell all of what stays" in found.notes[0]


def test_a_hostile_tree_ends() -> None:
    long = " ".join(f"ip4:10.{number // 256}.{number % 256}.0/25" for number in range(2500))  # 45 kB

    def hostile(question: Any, until: float) -> Records:
        if question.rdtype != "TXT":
            return Records()
        if question.name.endswith("grows.example"):
            return Records(["v=spf1 include:x.%{d} -all"])
        if question.name == "wide.example":
            return Records([f"v=spf1 {' '.join(f'include:n{number}.example' for number in range(3000))} -all"])
        return Records([f"v=spf1 {'-' * (question.name == 'n1.example')}{long} -all"])

    for name in ("grows.example", "wide.example", "long.example"):
        with pytest.raises(FlattenError):
            flatten(drive(survey(name), hostile))


# Any record


TERMS = [
    *("ip4:192.0.2.0/30", "ip4:192.0.2.2", "ip4:192.0.2.1/31", "ip6:2001:db8::/126", "ip6:2001:db8::2", "ip4:0.0.0.0/0"),
    *("a:www.example", "mx:top.example", "a:www.example/30", "exists:%{i}.ok.example", "exists:%{i}.%{d}", "ptr:p.example"),
    *("exists:www.example", "include:a.example", "include:b.example", "include:c.example", "a:gone.example", "all"),
]
directives = st.builds("{}{}".format, st.sampled_from(["", "", "", "-", "~", "?"]), st.sampled_from(TERMS))
INNER = ("a.example", "b.example", "c.example")


def below(number: int) -> st.SearchStrategy[str]:
    "A record of these that leads to none before it, so that there is no loop."
    shut = INNER[: number + 1]
    ends = ["", "-all", "~all", "?all", *(f"redirect={name}" for name in INNER[number + 1 :])]
    some = directives.filter(lambda term: not term.endswith(shut) if shut else True)
    return st.builds(lambda terms, end: " ".join([*terms, end]), st.lists(some, max_size=4), st.sampled_from(ends))


CLIENTS = [f"192.0.2.{host}" for host in (0, 1, 2, 3, 4, 25, 80, 81)] + ["2001:db8::1", "2001:db8::2", "2001:db8:1::"]


class Asked(Zone):
    "A zone with some clients of whom exists is true."

    def __init__(self, zone: Zone, matching: Sequence[str]) -> None:
        super().__init__(zone.records)
        self.matching = matching

    def answer(self, lookup: Lookup) -> Any:
        if lookup.rdtype == "A" and any(lookup.name.startswith(f"{ip}.") for ip in self.matching):
            return Records(["127.0.0.2"])
        return super().answer(lookup)


@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    below(-1),
    *map(below, range(3)),
    st.lists(st.sampled_from(CLIENTS[:8]), max_size=3),
    st.lists(st.sampled_from(["c.example", "b.example"]), max_size=1),
    st.sampled_from([300, 512]),
)
def test_a_check_says_the_same_before_and_after(
    top: str, a: str, b: str, c: str, matching: list[str], keep: list[str], size: int
) -> None:
    zone = zone_of(top=top, a=a, b=b, c=c)
    try:
        found = flatten(run_survey("top.example", resolver=zone), FlattenSettings(keep, size=size))
    except FlattenError as error:
        assert "flattened, there would be" in str(error) or "has no record" in str(error), error
        return
    after = zone_from_text(found.zone_text())
    both = Asked(zone, matching), Asked(Zone({**zone.records, **after.records}), matching)
    for ip in CLIENTS:
        old, new = (drive(check_identity(Query(ip, "ana@top.example")), each) for each in both)
        if old.result not in ("permerror", "temperror"):  # of which flattening cures some: too many lookups
            assert new.result == old.result, (ip, found.records)
            assert new.result != "permerror"


# Differences


def test_what_is_gained_and_lost_by_hand() -> None:
    zone = zone_of(top="mx include:a.example ~all", a="ip4:198.51.100.0/24 ~all")
    found = run_diff("top.example", "v=spf1 mx ip4:198.51.100.0/26 ip6:2001:db8:1::/48 -all", resolver=zone)
    assert [*map(str, found.total("lost").blocks(4))] == ["198.51.100.64/26", "198.51.100.128/25"]
    assert [*map(str, found.total("gained").blocks(6))] == ["2001:db8:1::/48"]
    (lost,) = found.of_kind("lost")
    assert (str(lost.old), lost.after) == ("ip4:198.51.100.0/24 of a.example, by include:a.example", "fail")
    (changed,) = found.of_kind("changed")
    assert (changed.before, changed.after) == ("softfail", "fail")
    assert changed.addresses.count(4) == 2**32 - 1 - 256


def test_the_same_addresses_in_another_form_differ_in_nothing() -> None:
    zone = zone_of(top="include:a.example -all", a="ip4:198.51.100.0/25 ip4:198.51.100.128/25 ~all")
    found = run_diff("top.example", "v=spf1 ip4:198.51.100.0/24 -all", resolver=zone)
    assert not found.differs and not found.partial
    assert str(found).endswith("the same for all addresses")


@pytest.mark.parametrize(
    ("old", "new", "differs"),
    [
        ("exists:%{i}.ok.example -all", "exists:%{i}.ok.example -all", False),
        ("exists:%{i}.ok.example -all", "-all", True),
        ("exists:%{i}.ok.example -all", "?exists:%{i}.ok.example -all", True),
        ("exists:%{i}.ok.example ip4:192.0.2.0/24 -all", "ip4:192.0.2.0/24 exists:%{i}.ok.example -all", False),
        ("ptr -all", "ptr:top.example -all", False),
        ("ptr -all", "ptr:a.example -all", True),
        ("include:%{l}.a.example", "redirect=%{l}.a.example", False),
    ],
)
def test_terms_that_depend_on_the_client(old: str, new: str, differs: bool) -> None:
    sides = [run_survey(f"v=spf1 {terms}", "top.example", resolver=zone_of()) for terms in (old, new)]
    assert bool(SpfDiff(*sides).clients) == differs


def test_silence_is_no_difference_but_partial() -> None:
    zone = zone_of(top="ip4:192.0.2.1 include:a.example -all")
    old = drive(survey("top.example"), silent(zone, "a.example"))
    found = SpfDiff(old, run_survey("v=spf1 -all", "top.example", resolver=zone))
    assert found.partial and [*map(str, found.total("lost").blocks(4))] == ["192.0.2.1"] and len(found.parts) == 1


# The commands


def written(path: Path, **records: str) -> str:
    "A zone file."
    path.write_text(HOSTS + "".join(f"{name} TXT {quoted_strings(f'v=spf1 {terms}')}\n" for name, terms in records.items()))
    return str(path)


def test_the_diff_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    zone = written(tmp_path / "zone", top="mx include:a.example -all", a="ip4:198.51.100.0/24 -all")
    plain = tmp_path / "record"
    plain.write_text("v=spf1 mx ip4:198.51.100.0/24 -all\n")
    assert main(["spf", "diff", "top.example", str(plain), "--zone", zone]) == 0
    assert main(["spf", "diff", "top.example", "v=spf1 mx -all", "--zone", zone, "--json"]) == 1
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert found["lost"][0]["ip4"] == {"count": 256, "networks": ["198.51.100.0/24"]}
    assert main(["spf", "diff", "top.example", str(tmp_path / "none"), "--zone", zone]) == 3
    assert "No such file" in capsys.readouterr().err


@pytest.mark.parametrize("term", ["mx", "a", "include:_spf.%{d}", "exists:ok.%{d}"])
def test_a_diff_of_drafts_wants_to_know_whose_they_are(
    term: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    zone = written(tmp_path / "zone", top="-all")
    drafts = ["spf", "diff", "v=spf1 ip4:192.0.2.1 -all", f"v=spf1 {term} -all", "--zone", zone]
    for command in (drafts, [*drafts[:2], drafts[3], drafts[2], *drafts[4:]]):
        assert main(command) == 3
        said = f"ra-plugins spf diff: {term} is about the record's own domain; --domain NAME names it\n"
        assert capsys.readouterr() == ("", said)
        assert main([*command, "--domain", "top.example"]) == 1
        capsys.readouterr()
    assert main([*drafts[:3], "v=spf1 ip4:192.0.2.0/24 ?ptr -all", "--zone", zone]) == 1  # asks about the client
    assert "gained" in capsys.readouterr().out


def test_a_diff_of_a_loop(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    zone = written(tmp_path / "zone", loop="include:loop.example -all")
    assert main(["spf", "diff", "loop.example", "v=spf1 -all", "--zone", zone]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[1] == "  lookups without end, where 10 may be, and a permerror for some clients"
    assert lines[2].startswith("  too many lookups: number 11 is include:loop.example of loop.example, by ")
    assert lines[4] == "  at most 0 of 10 lookups"


def looked_up(count: int, last: str = "ip4:192.0.2.1") -> str:
    "Terms that cost so many lookups, each of which brings something, before the last."
    return " ".join([*(["a:mx.example"] * count), last, "-all"])


VOID = "a:one.example a:two.example a:six.example ip4:192.0.2.1 -all"


def test_one_record_alone_over_the_lookups_differs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    zone = written(tmp_path / "zone", old=looked_up(11), new="ip4:192.0.2.25 ip6:2001:db8::25 ip4:192.0.2.1 -all")
    for domain, result in (("old.example", "permerror"), ("new.example", "pass")):  # what a check says
        assert drive(check_identity(Query("192.0.2.1", f"ana@{domain}")), zone_from_file(zone)).result == result
    for sides, over in ((("old.example", "new.example"), "old"), (("new.example", "old.example"), "new")):
        assert main(["spf", "diff", *sides, "--zone", zone]) == 1
        lines = capsys.readouterr().out.splitlines()
        assert "  too many lookups: number 11 is a:mx.example of old.example" in lines
        assert lines[-2:] == ["the same for all addresses, not counting the limits", f"only {over} has too many lookups"]
        assert main(["spf", "diff", *sides, "--zone", zone, "--json"]) == 1
        found = json.loads(capsys.readouterr().out)
        assert (found["differs"], found["addresses differ"], found["limits differ"]) == (True, False, True)
        assert found["within the limits"] is False and [bool(found[side]["exceeded"]) for side in ("old", "new")] == [
            over == "old", over == "new"]  # fmt: skip
        assert found[over]["exceeded"] == [
            {"limit": "lookups", "version": None, "used": 11, "most": 10, "domain": "old.example", "term": "a:mx.example",
             "by": []}]  # fmt: skip


def test_one_record_alone_over_the_voids_differs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    zone = written(tmp_path / "zone", void=VOID, plain="ip4:192.0.2.1 -all", inc="include:none.example ip4:192.0.2.1 -all")
    assert drive(check_identity(Query("192.0.2.1", "ana@void.example")), zone_from_file(zone)).result == "permerror"
    assert main(["spf", "diff", "plain.example", "void.example", "--zone", zone]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[4:] == [
        "  too many void lookups for IPv4 clients: number 3 is a:six.example of void.example",
        "  too many void lookups for IPv6 clients: number 3 is a:six.example of void.example",
        "the same for all addresses, not counting the limits",
        "only new has too many void lookups for IPv4 clients",
        "only new has too many void lookups for IPv6 clients",
    ]
    # permerror before and after: that it says "gained" holds without the limits only
    assert main(["spf", "diff", "inc.example", "void.example", "--zone", zone]) == 1
    lines = capsys.readouterr().out.splitlines()
    gained = lines.index("gained, permerror -> pass: 1 IPv4 address: 192.0.2.1")
    before = "what follows doesn't count the limits: whoever comes to the lookup that is too many has a permerror"
    assert lines.index(before) < gained


def test_two_records_over_the_same_limit_are_no_difference(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    zone = written(tmp_path / "zone", old=looked_up(11), new=looked_up(12))
    assert main(["spf", "diff", "old.example", "new.example", "--zone", zone]) == 0
    assert capsys.readouterr().out.endswith("\nthe same for all addresses, not counting the limits\n")
    assert main(["spf", "diff", "old.example", "old.example", "--zone", zone, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert not found["differs"] and not found["limits differ"] and not found["within the limits"]


def test_limits_are_values_of_a_diff() -> None:
    zone = zone_of(old=looked_up(11), new=looked_up(10))
    found = run_diff("old.example", "new.example", resolver=zone)
    (exceeded,) = found.costs["old"].exceeded
    assert (exceeded.limit, exceeded.version, exceeded.worst.total) == ("lookups", None, 11)
    assert found.only_exceeded("old") == [exceeded] and found.only_exceeded("new") == []
    assert found.differs and found.limits_differ and not found.addresses_differ


def test_a_file_is_behind_if_only_the_file_goes_over_a_limit(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    over, within = looked_up(11), "ip4:192.0.2.25 ip6:2001:db8::25 ip4:192.0.2.1 -all"
    for source, flat, status in ((over, within, 0), (within, over, 1)):
        zone, kept = written(tmp_path / "zone", source=source), written(tmp_path / "flat", top=flat)
        command = ["spf", "flatten", "source.example", "--at", "top.example", "--zone", zone, "--check", kept]
        assert main(command) == status
        assert ("only old has too many lookups" in capsys.readouterr().out) == bool(status)
        assert main([*command, "--json"]) == status
        found = json.loads(capsys.readouterr().out)
        assert found["behind"] is bool(status) and found["limits differ"]


@pytest.mark.parametrize(
    ("command", "words"),
    [("diff", "v=spf1 mx -all"), ("diff", "v=spf1 -all"), ("diff", "a.example v=spf1 mx ~all"), ("diff", "v=spf1 a mx x"),
     ("flatten", "v=spf1 mx -all"), ("flatten", "v=spf1 -all")],
)  # fmt: skip
def test_a_record_without_quotes(command: str, words: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["spf", command, *words.split()]) == 3
    said = f"ra-plugins spf {command}: a record stands in quotes, as in 'v=spf1 mx -all'\n"
    assert capsys.readouterr() == ("", said)


def test_a_check_refuses_to_keep_what_nothing_includes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    zone = written(tmp_path / "zone", source="include:a.example -all", a="ip4:192.0.2.1 -all")
    flat = written(tmp_path / "flat", top="ip4:192.0.2.1 -all")
    command = ["spf", "flatten", "source.example", "--at", "top.example", "--zone", zone, "--check", flat, "--keep"]
    assert main([*command, "nosuch.example"]) == 3
    said = "ra-plugins spf flatten: --keep nosuch.example: nothing includes it, but a.example\n"
    assert capsys.readouterr() == ("", said)
    assert main([*command, "a.example"]) == 0


def test_a_domain_that_nothing_includes_cant_be_kept(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    zone = written(tmp_path / "zone", top="mx include:a.example redirect=b.example", a="-all", b="ip4:192.0.2.1 -all")
    command = ["spf", "flatten", "top.example", "--zone", zone, "--keep"]
    for name in ("c.example", "mx.example"):  # a host of mx is no include
        assert main([*command, name]) == 3
        said = f"ra-plugins spf flatten: --keep {name}: nothing includes it, but a.example, b.example\n"
        assert capsys.readouterr() == ("", said)
    assert main([*command, "A.example."]) == 0
    for name in ("", "a"):
        with pytest.raises(SystemExit) as ended:
            main([*command, name])
        assert ended.value.code == 3 and f"argument --keep: {name!r} should be a domain" in capsys.readouterr().err


def test_a_record_in_a_file_may_have_a_byte_order_mark(tmp_path: Path) -> None:
    zone = written(tmp_path / "zone", top="mx -all")
    (tmp_path / "record").write_text("\ufeffv=spf1 mx -all\n", encoding="utf-8")
    assert main(["spf", "diff", "top.example", str(tmp_path / "record"), "--zone", zone]) == 0


def test_a_file_goes_before_dns_and_dns_tells_the_rest(tmp_path: Path) -> None:
    zone = written(tmp_path / "zone", top="mx include:a.example -all", a="ip4:198.51.100.0/24 -all")
    new = tmp_path / "new.zone"
    new.write_text('top.example. TXT "v=spf1 mx include:_spf1.top.example -all"\n'
                   '_spf1.top.example. TXT "v=spf1 include:a.example -all"\n')  # fmt: skip
    assert main(["spf", "diff", "top.example", str(new), "--zone", zone]) == 0


def test_the_flatten_command_for_cron(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    records = {"source.top": "mx include:a.example ~all", "a 300": "ip4:198.51.100.0/24 -all"}
    zone, kept = written(tmp_path / "zone", **records), tmp_path / "flat.zone"
    command = ["spf", "flatten", "source.top.example", "--at", "top.example", "--zone", zone]
    assert main(command) == 0
    kept.write_text(capsys.readouterr().out)
    assert "What flattening costs" in kept.read_text() and "at least every 5 minutes" in kept.read_text()
    (line,) = [each for each in kept.read_text().splitlines() if not each.startswith(";")]
    assert line.endswith('300 IN TXT "v=spf1 ip4:192.0.2.25 ip4:198.51.100.0/24 ip6:2001:db8::25 ~all"')
    assert main([*command, "--check", str(kept)]) == 0 and capsys.readouterr().out == ""
    written(tmp_path / "zone", **{**records, "a 300": "ip4:198.51.100.0/25 -all"})
    assert main([*command, "--check", str(kept)]) == 1
    assert "lost, pass -> softfail: 128 IPv4 addresses: 198.51.100.128/25" in capsys.readouterr().out


def test_a_flattened_record_isnt_held_against_itself(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    zone = written(tmp_path / "zone", top="ip4:192.0.2.1 -all")
    kept = tmp_path / "flat"
    assert main(["spf", "flatten", "top.example", "--zone", zone]) == 0
    kept.write_text(out := capsys.readouterr().out)
    assert "publishing this at top.example replaces what it is made of" in out
    assert main(["spf", "flatten", "top.example", "--zone", zone, "--check", str(kept)]) == 3
    assert "nothing to hold it against" in capsys.readouterr().err


def test_a_refusal_writes_no_lines(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    zone = written(tmp_path / "zone", top="include:gone.example -all")
    assert main(["spf", "flatten", "top.example", "--zone", zone]) == 1
    found = capsys.readouterr()
    assert not found.out and "include:gone.example of top.example leads to no record" in found.err
    assert main(["spf", "flatten", "v=spf1 mx -all", "--zone", zone]) == 3
