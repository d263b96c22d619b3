"What sets the site, part by part; what comes of it all, test_site.py sees."

from __future__ import annotations

import ast
import re
import sys
from types import SimpleNamespace
from typing import Any

import pytest
from notebooks import ROOT

pytest.importorskip("sphinx", reason="what sets the website isn't installed: `make docs` does that")
from sphinx_codeautolink.parse import LinkContext  # noqa: E402

sys.path.insert(0, str(ROOT / "docs"))

import names  # noqa: E402
import references  # noqa: E402
import stage  # noqa: E402
import tips  # noqa: E402
import uses  # noqa: E402
import words  # noqa: E402


def statements(text: str) -> list[ast.stmt]:
    return ast.parse(text).body


# What a cell defines


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("def f(): pass", {"f": "function"}),
        ("async def f(): pass", {"f": "function"}),
        ("class C:\n    x = 1", {"C": "class"}),
        ("A, (B, *C) = 1, (2, 3)", {"A": "data", "B": "data", "C": "data"}),
        ("A: int = 1", {"A": "data"}),
        ("A = B = 1", {"A": "data", "B": "data"}),
        ("if TYPE_CHECKING:\n    from x import y", {}),
        ("TYPE_CHECKING = False", {}),
        ("print(1)", {}),
    ],
)
def test_what_a_cell_defines(text: str, found: dict[str, str]) -> None:
    assert stage.definitions(statements(text)) == found


def test_places_of_nbdevs_index() -> None:
    "In lower case, and none that another name of the page has."
    text = "class Zone:\n    def __call__(self): pass\n    def at(self): pass\n\ndef ask(): pass\n\ndef zone(): pass"
    taken = stage.definitions(statements(text))
    assert stage.nbdev_places(statements(text), taken) == {"Zone": ["zone.__call__", "zone.at"], "ask": [], "zone": []}


def test_addresses_have_no_numbers_and_links_follow() -> None:
    assert stage.NUMBER.sub(r"\1", "spf/07_evaluation") == "spf/evaluation"
    assert stage.NUMBER.sub(r"\1", "hosts/service/10_log") == "hosts/service/log"
    assert stage.NUMBER.sub(r"\1", "plugins/rater") == "plugins/rater"
    found = [each[1] for each in stage.LINK.finditer("[a](spf/01_record.ipynb) [b](#here) [c](https://example.org/x)")]
    assert found == ["spf/01_record.ipynb"]


# What a name in backticks means


PAGE: Any = SimpleNamespace(name="spf/query", scope={"Query": "p.spf.query.Query"}, words={"Query", "Limits"})


def known(*ours: str) -> names.Names:
    return names.Names({}, ours, ["os.path.join", "all"], ["TARPITCOUNT"])


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("Query", "p.spf.query.Query"),  # by what the page's own code means
        ("Query.among", "p.spf.query.Query.among"),
        ("sample_session", "p.spp.session.sample_session"),  # by the one place that has it
        ("os.path.join", "os.path.join"),
        ("all", None),  # a word of SPF's
        ("a b", None),
        ("among", None),  # a plain word isn't taken for a name of ours
    ],
)
def test_what_a_name_means(text: str, found: str | None) -> None:
    ours = ("p.spf.query.Query", "p.spf.query.Query.among", "p.spp.session.sample_session")
    assert known(*ours).find(text, PAGE) == found


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("TARPITCONT", "is it `TARPITCOUNT`"),
        ("sample_sesion", "is it `sample_session`"),
        ("Twice", "`Twice` may be p.a.Twice or p.b.Twice"),
    ],
)
def test_what_a_name_should_mean(text: str, told: str) -> None:
    with pytest.raises(names.BrokenReference, match=told):
        known("p.spp.session.sample_session", "p.a.Twice", "p.b.Twice").find(text, PAGE)


# RFCs in prose


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("RFC 7208, section 4.6.4,", [("7208", "4.6.4")]),
        ("RFC 5321 4.5.3.2.3", [("5321", "4.5.3.2.3")]),
        ("RFC 7505", [("7505", None)]),
        ("RFC 7208, sections 4.4 and 5.2", [("7208", "4.4"), (None, "5.2")]),
        ("RFC7208", []),
        ("version 4.5", []),
    ],
)
def test_rfcs(text: str, found: list[tuple[str | None, str | None]]) -> None:
    places = [match.groupdict() for match in references.RFC.finditer(text)]
    sections = [each["section"] or each["bare"] or each["alone"] or each["more"] for each in places]
    assert list(zip((each["rfc"] for each in places), sections, strict=True)) == found


def test_where_an_rfc_is() -> None:
    assert references.address("7208", "4.6.4") == "https://www.rfc-editor.org/rfc/rfc7208.html#section-4.6.4"
    assert references.address("7505", "") == "https://www.rfc-editor.org/rfc/rfc7505.html"


# Code


def test_marks_without_a_colour_go() -> None:
    html = '<span class="n">a</span><span class="o">.</span><span class="n"><a href="#b">b</a></span><span class="o">==</span>'
    assert uses.linked(html, [], str) == 'a.<a href="#b">b</a><span class="o">==</span>'


def test_names_in_code_become_links() -> None:
    "The last of a line first, so that both names of `a = a` can be links."
    plain = LinkContext.none
    name = SimpleNamespace(lineno=1, end_lineno=1, code_str="f", context=plain, resolved_location="p.f")
    html = '<span class="n">x</span> <span class="o">=</span> <span class="n">f</span><span class="p">(</span>'
    assert uses.linked(html, [name], lambda full: f"#{full}") == 'x = <a href="#p.f">f</a>('


@pytest.mark.parametrize(
    ("text", "head"),
    [
        ('def f(x):\n    "What it does."\n    return x', 2),
        ("def f(x):\n    return x", 1),
        ('@cache\ndef f(\n    x,  # a number\n):\n    """What\n    it does."""\n    return x', 6),
        ('class C:\n    "What it is."\n\n    x = 1', 2),
        ("LIMIT = (\n    1,\n)", 3),
    ],
)
def test_what_a_name_shows_first(text: str, head: int) -> None:
    "What says what it is: down to the docstring, or to the first line that does something."
    lines, shown = tips.cut(statements(text)[0], text.splitlines())
    assert (lines, shown) == (text.splitlines(), head)


# What CONTRIBUTING says of these parts


def test_each_part_is_weighed_against_a_library_by_its_lines() -> None:
    "The table names every part, and its figures aren't older than a tenth."
    rows = re.findall(r"^\| (`[^|]*\.py`[^|]*) \| (\d+) \|", (ROOT / "CONTRIBUTING.md").read_text(), re.M)
    sizes = {path.name: path.read_text().count("\n") for path in sorted((ROOT / "docs").glob("*.py"))}
    sizes["site.js"] = (ROOT / "docs" / "static" / "site.js").read_text().count("\n")
    named = [(re.findall(r"`([\w.]+)`", parts), int(lines)) for parts, lines in rows]
    assert sizes.keys() - {"conf.py", "build.py"} == {part for parts, _ in named for part in parts}
    assert [(parts, lines) for parts, lines in named if abs(sum(sizes[part] for part in parts) - lines) > lines / 10] == []


# Words of our own


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("Each mark, and all marks, and a mark again", ["mark", "marks"]),
        ("a bookmark, a benchmark-like thing, mark-up", []),
        ("the small client says", ["small client"]),
    ],
)
def test_first_mentions(text: str, found: list[str]) -> None:
    assert [each[0] for each in words.first_mentions(text, ["marks", "mark", "small client"])] == found
