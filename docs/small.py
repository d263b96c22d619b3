"""Sphinx extension: the same site in half of its bytes.

What Pygments, docutils, Sphinx and MyST-NB put around a text for style sheets that we don't have goes, and minify-html leaves out
what HTML lets one leave out. An address in Python's documentation, of which a page may have hundreds, stands once, on a page of
its own; what only scripts read is deflated, and static/site.js undoes both.
"""

from __future__ import annotations

import json
import re
from base64 import b64encode
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from zlib import compress

from minify_html import minify
from sphinx.application import Sphinx

PYTHON, PAGE = "https://docs.python.org/3/", "py"
# For each colour in code a short element: Pygments' classes for it, of which the first has the colour.
MARKS = {
    "b": "k kc kd kn kp kr kt ow",  # keywords
    "i": "s s1 s2 sa sb sc sd se sh si sr dl",  # strings
    "u": "nb ne bp fm vm nd m mi mf mh mo mb il na",  # what Python has built in, and numbers
    "var": "nf nc",  # what is being defined
    "small": "c c1 cm ch cp",  # comments
    "": "n nn nx p w o",  # names, blanks, brackets and operators need no mark; half a page would be marks
}
ELEMENT = {name: element for element, names in MARKS.items() for name in names.split()}
MARK = re.compile(r'<span class="(\w+)">(.*?)</span>', re.S)
BETWEEN = re.compile(r"</(b|i|u|var|small)>(\s*)<\1>")
CODE = (
    r'<div class="(?:output stream |output text_plain )?(output stderr )?highlight-[\w-]+ notranslate">'
    r'<div class="highlight"><pre><span></span>(.*?)</pre></div>\n</div>'
)
DROPPED = [
    (rf'<div class="cell_input docutils container">\n{CODE}\n</div>', r'<div class="highlight"><pre>\2</pre></div>'),
    (CODE, r'<div class="\1highlight"><pre>\2</pre></div>'),
    (
        r'<details class="admonition hide above-input">\s*<summary[^>]*>\s*<p class="collapsed[^>]*>(.*?)</p>.*?</summary>',
        r'<details class="hide"><summary>\1</summary>',
    ),
    (r'(<div class="(?:cell|definition)[\w -]*?) docutils container(?=")', r"\1"),
    (r'class="reference (?:in|ex)ternal"|(?<=\w) reference (?:in|ex)ternal(?=")', ""),
    (r'<span class="std std-\w+">([^<]*)</span>', r"\1"),
    (r'<code class="literal">', "<code>"),
    (r'class="toctree-l\d ?', 'class="'),
    (r'(?<=<dt class=")sig sig-object py(?=")', "sig"),
    (r' class="field-(?:odd|even)"', ""),
    (r'<span class="colon">:</span>', ":"),
    (r' title="(?:\(in|Link to this) [^"]*"', ""),  # which site.js says of a headline
    (r'(<button class="theme-toggle"[^>]*>).*?(?=</button>)', r"\1"),  # which does nothing without scripts
]
SIGNATURE = re.compile(r'(<dt class="sig[^>]*>)(.*?)(?=</dt>)', re.S)
NAME = re.compile(r'<span class="sig-name[^>]*>(.*?)</span></span>', re.S)
RULE = re.compile(r"^(.*\.highlight) \.(\w+)( {.*}).*\n", re.M)


def marks(html: str) -> str:
    "Highlighted code with a short element for each colour, and one for neighbours that have the same."

    def short(found: re.Match[str]) -> str:
        element = ELEMENT.get(found[1])
        return found[0] if element is None else f"<{element}>{found[2]}</{element}>" if element else found[2]

    return BETWEEN.sub(r"\2", MARK.sub(short, html))


def signature(found: re.Match[str]) -> str:
    "What autodoc says of a definition: its name, its links, and the text between them."
    return found[1] + re.sub(r"</?(?:span|em)\b[^>]*>", "", NAME.sub(r"<b>\1</b>", found[2]))


def small(html: str) -> str:
    "A page in fewer bytes."
    html = SIGNATURE.sub(signature, html)
    for pattern, instead in DROPPED:
        html = re.sub(pattern, instead, html, flags=re.S)
    return str(minify(html))


def deflated(value: Any) -> str:
    "What `inflate` in static/site.js reads."
    return json.dumps(b64encode(compress(json.dumps(value).encode(), 9)).decode())


def near(html: str, places: dict[str, str], root: str) -> str:
    "A page whose links to these places in Python's documentation lead to our page of them."

    def link(found: re.Match[str]) -> str:
        return f'href="{root}{PAGE}.html#{found[2]}"' if places.get(found[2]) == found[1] else found[0]

    return re.sub(rf'href="{re.escape(PYTHON)}([^"#]*)#([^"]*)"', link, html)


def learn(app: Sphinx, env: Any) -> None:
    "The names of Python's that stand in code, each with its page there; and what `addresses` in static/site.js reads."
    names = {name.resolved_location for found in app.linked.values() for name in found} | {"None"}
    app.python = {}
    for name in sorted(names & app.elsewhere.keys()):
        page, _, anchor = app.elsewhere[name].removeprefix(PYTHON).partition("#")
        if "//" not in page and anchor.removeprefix("module-") == name:
            app.python[anchor] = page
    pages = defaultdict(list)
    for anchor, page in app.python.items():
        pages[page].append(anchor)
    path = Path(app.outdir, "_static", "python.js")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"const python = {json.dumps(pages)};\n", encoding="utf-8")


def collect(app: Sphinx) -> Iterator[tuple[str, dict[str, Any], str]]:
    "The page of Python's names."
    items = "".join(
        f'<li id="{anchor}"><a href="{PYTHON}{page}#{anchor}">{anchor.removeprefix("module-")}</a></li>'
        for anchor, page in app.python.items()
    )
    body = f"<h1>Python’s names</h1><p>Each leads to its place in Python’s documentation:</p><ul>{items}</ul>"
    yield PAGE, {"title": "Python’s names", "body": f"<section>{body}</section>"}, "page.html"


def colours(css: str) -> str:
    "Pygments' style sheet, for what `marks` makes."

    def rule(found: re.Match[str]) -> str:
        element = ELEMENT.get(found[2])
        if element is None:
            return found[0]
        return f"{found[1]} {element}{found[3]}\n" if MARKS[element].split()[0] == found[2] and element else ""

    return RULE.sub(rule, css)


def begin(app: Sphinx) -> None:
    "Each page is made small as it is written, by the process that writes it."
    render = app.builder.templates.render

    def write(template: str, context: dict[str, Any]) -> str:
        html = render(template, context)
        return small(html if context["pagename"] == PAGE else near(html, app.python, context["content_root"]))

    app.builder.templates.render = write


def finish(app: Sphinx, exception: Exception | None) -> None:
    "What goes with the pages; and style sheets that no page names, nobody needs."
    if exception or app.builder.format != "html":
        return
    static = Path(app.outdir, "_static")
    path = static / "pygments.css"
    path.write_text(colours(path.read_text(encoding="utf-8")), encoding="utf-8")
    path = static / "styles" / "furo.css"
    css = path.read_text(encoding="utf-8").replace(".sidebar-tree .toctree-l1", ".sidebar-tree>ul>li")
    path.write_text(re.sub(r"a?\.reference(?![\w.-])", "a[href]", css), encoding="utf-8")
    path = Path(app.outdir, "searchindex.js")
    index = json.loads(path.read_text(encoding="utf-8").removeprefix("Search.setIndex(").rstrip().removesuffix(")"))
    path.write_text(f"inflate({deflated(index)}).then(Search.setIndex);\n", encoding="utf-8")
    for each in [*static.rglob("*.map"), *(static / f"{name}.css" for name in ("basic", "skeleton", "debug"))]:
        each.unlink(missing_ok=True)


def setup(app: Sphinx) -> dict[str, Any]:
    app.add_js_file("python.js")
    app.connect("builder-inited", begin)
    app.connect("env-updated", learn, priority=902)  # after uses.py
    app.connect("html-collect-pages", collect)
    app.connect("build-finished", finish, priority=900)  # after Furo
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
