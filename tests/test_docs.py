"What sets the site, part by part; what comes of it all, test_site.py sees."

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
from base64 import b64decode
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from zlib import decompress

import pytest
from notebooks import ROOT

pytest.importorskip("sphinx", reason="what sets the website isn't installed: `make docs` does that")
from execnb.nbio import mk_cell, new_nb  # noqa: E402
from sphinx_codeautolink.parse import LinkContext  # noqa: E402

from ra_plugins.hosts.catalogue import OURS, catalogue  # noqa: E402
from ra_plugins.spp.plugin import plugin  # noqa: E402
from ra_plugins.spp.session import Session  # noqa: E402

sys.path.insert(0, str(ROOT / "docs"))

import administrator  # noqa: E402
import names  # noqa: E402
import references  # noqa: E402
import samples  # noqa: E402
import small  # noqa: E402
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
        ('os.environ["HOME"] = here.path', {}),
        ('del os.environ["HOME"]', {}),
        ("box.width += 1", {}),
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
    assert stage.NUMBER.sub(r"\1", "spf/08_evaluation") == "spf/evaluation"
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


@pytest.mark.parametrize(
    ("html", "short"),
    [
        ('<span class="n">a</span><span class="o">.</span><span class="n"><a href="#">b</a></span>', 'a.<a href="#">b</a>'),
        ('<a href="#int"><span class="nb">int</span></a><span class="p">,</span>', '<a href="#int"><u>int</u></a>,'),
        ('<span class="s2">"</span><span class="si">{</span>x<span class="si">}</span>', '<i>"{</i>x<i>}</i>'),
        ('<span class="k">is</span><span class="w"> </span><span class="ow">not</span>', "<b>is not</b>"),
        ('<span class="c1"># a</span>\n<span class="c1"># b</span>\n', "<small># a\n# b</small>\n"),
        ('<span class="gp">$ </span>ls', '<span class="gp">$ </span>ls'),  # which the button to copy leaves out
    ],
)
def test_each_colour_in_code_is_a_short_element(html: str, short: str) -> None:
    assert small.marks(html) == uses.linked(html, [], str) == short


def test_colours_are_those_of_pygments() -> None:
    "An element has the colour of the first of its classes, in the light and in the dark."
    css = ".highlight .k { color: #8045E5 } /* Keyword */\n.highlight .kc { color: #8045E5 } /* Keyword.Constant */\n"
    dark = 'body[data-theme="dark"] .highlight .c { color: #ABABAB; font-style: italic } /* Comment */\n'
    other = ".highlight .gp { color: #AAA } /* Generic.Prompt */\n.highlight .p { color: #1E1E1E } /* Punctuation */\n"
    assert small.colours(css + dark + other).splitlines() == [
        ".highlight b { color: #8045E5 }",
        'body[data-theme="dark"] .highlight small { color: #ABABAB; font-style: italic }',
        ".highlight .gp { color: #AAA } /* Generic.Prompt */",
    ]


# A page in fewer bytes

CELL = """\
<div class="cell docutils container">
<div class="cell_input docutils container">
<div class="highlight-python notranslate"><div class="highlight"><pre><span></span><b>if</b> a:
    b

</pre></div>
</div>
</div>
<div class="output stderr highlight-myst-ansi notranslate"><div class="highlight"><pre><span></span>no
</pre></div>
</div>
</div>
"""
SIGNATURE = """\
<dl class="py class"><dt class="sig sig-object py" id="A.b">
<span class="property"><span class="k"><span class="pre">class</span></span><span class="w"> </span></span>\
<span class="sig-name descname"><span class="pre">b</span></span><span class="sig-paren">(</span><em class="sig-param">\
<span class="n"><span class="pre">c</span></span><span class="p"><span class="pre">:</span></span><span class="w"> </span>\
<span class="n"><a class="reference internal" href="d.html#D"><span class="pre">D</span></a></span></em>\
<span class="sig-paren">)</span></dt></dl>
"""
FOLDED = """\
<details class="admonition hide above-input">
<summary aria-label="Toggle hidden content">
<p class="collapsed admonition-title">Imports</p>
<p class="expanded admonition-title">Imports</p>
</summary>
<pre>import os
</pre></details>
"""
PROSE = """\
<p>A <a class="word reference internal" href="w.html#m">mark</a>, <a class="rfc reference external" href="r">RFC 1</a>,
<a class="reference internal" href="p.html"><span class="std std-doc">a page</span></a>,
<a class="reference external" href="x" title="(in Python v3.11)"><code class="literal">x</code></a>.</p>
"""


@pytest.mark.parametrize(
    ("html", "short"),
    [
        (
            CELL,
            "<div class=cell><div class=highlight><pre><b>if</b> a:\n    b\n\n</pre></div>"
            '<div class="output stderr highlight"><pre>no\n</pre></div></div>',
        ),
        (
            FOLDED,
            "<details class=hide><summary>Imports</summary> <pre>import os\n</pre></details>",
        ),
        (
            SIGNATURE,
            '<dl class="py class"><dt class=sig id=A.b>class <b>b</b>(c: <a href=d.html#D>D</a>)</dt></dl>',
        ),
        (
            PROSE,
            "<p>A <a class=word href=w.html#m>mark</a>, <a class=rfc href=r>RFC 1</a>, <a href=p.html>a page</a>, "
            "<a href=x><code>x</code></a>.",
        ),
    ],
)
def test_a_page_says_the_same_in_fewer_bytes(html: str, short: str) -> None:
    assert small.small(html) == short


def test_names_of_python_lead_to_the_one_page_that_has_their_addresses() -> None:
    "Those of another page of Python's, and those that aren't in code, lead there themselves."
    html = "".join(f'<a href="https://docs.python.org/3/library/{each}">x</a>' for each in ("a.html#b", "c.html#b", "d.html"))
    near = small.near(html, {"b": "library/a.html"}, "../")
    assert near == html.replace("https://docs.python.org/3/library/a.html#b", "../py.html#b")


def test_what_is_deflated_is_what_a_browser_inflates() -> None:
    "As DecompressionStream does, which wants zlib's header."
    assert json.loads(decompress(b64decode(json.loads(small.deflated({"a": ["<b>é</b>"]}))))) == {"a": ["<b>é</b>"]}


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
# What an administrator is told of a plugin


PLUGINS = catalogue(log=lambda message: None)


@pytest.mark.parametrize("name", ["checkback", "greylist"])
def test_the_folder_of_what_is_kept_is_made_in_one_way(name: str) -> None:
    "It belongs to the user that qmail-smtpd runs as; a plugin that keeps nothing doesn't have it."
    made = re.findall(r"^\$ (install .*|chown .*)$", administrator.administrator(PLUGINS[name]), re.M)
    assert made == ["install -d -o qmaild -m 700 /var/lib/ra-plugins"]
    assert "/var/lib/ra-plugins" not in administrator.administrator(PLUGINS["tarpit"])


def test_an_administrator_can_type_what_the_page_of_a_plugin_says() -> None:
    text = administrator.administrator(PLUGINS["tarpit"])
    terminal = [block.partition("\n```")[0].splitlines() for block in text.split("```\n$ ")[1:]]
    assert terminal[0] == [
        "ra-plugins install --create /var/qmail/plugins tarpit",
        "$ cat >> /var/qmail/control/smtpplugins <<EOF",
        "> [rcpt]",
        "> plugins/tarpit",
        "> EOF",
    ]
    assert terminal[1] == [
        r"sed -i '\:^plugins/tarpit$:d' /var/qmail/control/smtpplugins",
        "$ rm /var/qmail/plugins/tarpit",
    ]
    assert "- `TARPITCOUNT`: The recipient at which the delays begin; 0 switches them off. Default: 50.\n" in text
    assert "```sh\nexport TARPITCOUNT=20 TARPITDELAY=N\n```" in text
    assert "```text\nC: RCPT TO:<user20@example.org>\nL: tarpit: pid 4711 - started tarpitting\n" in text


def test_what_is_typed_first_is_what_undo_takes_away(tmp_path: Path) -> None:
    "The line of sed, run over a file with others' lines."
    spfchecks = PLUGINS["spfchecks"]
    lines, note = administrator.section(spfchecks, samples.SAMPLES["spfchecks"])
    assert (lines, note) == (
        "[rcpt]\nplugins/spfchecks\n",
        "It may stand below `[mail]` instead; below two, it runs twice.",
    )
    path = tmp_path / "smtpplugins"
    path.write_text("[rcpt]\nplugins/spfchecks2\n" + lines)
    _, block, *_ = administrator.undo(spfchecks)
    command = block.splitlines()[1].removeprefix("$ ").replace("/var/qmail/control/smtpplugins", str(path))
    subprocess.run(["/bin/sh", "-c", command], check=True)
    assert path.read_text() == "[rcpt]\nplugins/spfchecks2\n[rcpt]\n"


def test_every_plugin_of_ours_has_a_sample_in_which_it_speaks() -> None:
    "And what is set there is a setting, and taken without a complaint."
    ours = {name for name, origin in PLUGINS.origins.items() if origin == OURS}
    assert set(samples.SAMPLES) == ours
    for name in sorted(ours):
        declared, sample = PLUGINS[name], samples.SAMPLES[name]
        lines = administrator.session(declared, sample)
        assert [line[:1] for line in lines if line[:1] in "CLS"][:2] == ["C", "L"], name
        assert lines[1].startswith(f"L: {name}: pid 4711 - ") and lines[-1].startswith(("S: ", "     ")), lines
        assert not [line for line in lines if " should be " in line or "rror" in line or len(line) > 84], lines
        assert {*sample.matters, *sample.settings} <= administrator.declared(declared).keys()
        assert sample.matters or sample.settings or name == "authlogger"


def test_a_plugin_without_a_sample_still_has_its_lines() -> None:
    def quiet(session: Session) -> None:
        "Look on."

    text = administrator.administrator(plugin("mail")(quiet))
    assert "> [mail]\n> plugins/quiet\n" in text and "### Undo" in text and "What the log says" not in text


@pytest.mark.parametrize(
    ("cells", "found"),
    [
        (["# a\n\n> b", "The problem.", "print(1)", "#| default_exp plugins.a", "## Parts"], 3),
        (["# a\n\n> b", "The problem.", "## Parts", "#| default_exp plugins.a"], 2),
    ],
)
def test_the_opening_of_a_page_ends_where_its_parts_begin(cells: list[str], found: int) -> None:
    kinds = ["code" if text.startswith(("#|", "print")) else "markdown" for text in cells]
    notebook = new_nb([mk_cell(text, kind) for text, kind in zip(cells, kinds, strict=True)])
    assert stage.Page(stage.NOTEBOOKS / "plugins" / "a.ipynb", notebook).parts == found


def test_what_a_hidden_cell_defines_for_one_in_sight_is_shown() -> None:
    "And what only tests use isn't."
    cells = [
        mk_cell(text)
        for text in ("#| hide\ndef say(x): ...", "say(1)", "#| hide\ndef checked(x): ...", "#| hide\nassert checked(1)")
    ]
    stage.mark_setup(cells)
    assert [cell.metadata.get("setup") for cell in cells] == [True, None, False, False]


def test_no_heading_hides_in_an_opening() -> None:
    "It would stand in front of what an administrator is told, and what is below it belongs behind."
    for path in sorted((stage.NOTEBOOKS / "plugins").glob("*.ipynb")):
        page = stage.Page(path)
        opening = [cell.source for cell in page.notebook.cells[: page.parts]]
        assert opening and not [text for text in opening if "\n## " in text], path.name
