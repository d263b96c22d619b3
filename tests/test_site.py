"The website: every reference leads somewhere, and a browser shows it as it should be."

from __future__ import annotations

import fcntl
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from notebooks import ROOT

from ra_plugins import _modidx

pytest.importorskip("sphinx", reason="what sets the website isn't installed: `make docs` does that")
sync_api = pytest.importorskip("playwright.sync_api", reason="playwright isn't installed: `make docs` does that")
axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe isn't installed: `make docs` does that")

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
needs_browser = pytest.mark.skipif(not BROWSER, reason="there is no Chromium")
LARGEST_PAGE = 300_000  # bytes
USUAL_PAGE = 55_000  # bytes of a page on the average, with its share of what all pages have: 12 MB for 218 of them


def build(project: Path, site: Path, *options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(project / "docs" / "build.py"), *options, str(site)]
    environ = {**os.environ, "PYTHONPATH": str(project)}
    return subprocess.run(command, cwd=project, env=environ, capture_output=True, text=True)


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Path:
    "The website, built once for all workers of pytest-xdist, which share the folder above their own."
    base = tmp_path_factory.getbasetemp()
    shared = base if worker_id == "master" else base.parent
    folder, told = shared / "site", shared / "site.json"
    with (shared / "site.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not told.exists():
            done = build(ROOT, folder)
            told.write_text(json.dumps([done.returncode, done.stdout, done.stderr]))
    status, output, errors = json.loads(told.read_text())
    assert status == 0, errors
    assert re.search(r"^ +0  that could not be resolved$", output, re.M)
    return folder


def pages(site: Path) -> list[Path]:
    return sorted(path for path in site.rglob("*.html") if path.relative_to(site).parts[0] not in ("_static", "lite"))


# What the build finds


PLANTED = [
    ("A `Sesion` is what a plugin sees.", "`Sesion`: is it `Session`?"),
    ("`block_permanently` refuses.", "`block_permanently`: is it `block_permanent`?"),
    ("It has `Session.client_address`.", "`Session.client_address`"),
    ("So does `os.pathh`.", "`os.pathh`"),
    ("[Plugins](spp/03_plugins.ipynb) has the rest.", "spp/plugins.ipynb"),
    ("[Commands](spp/02_command.ipynb#the-values-there-are) too.", "the-values-there-are"),
    ("TARPITCOUNT is one, `TARPITCONT` isn't.", "`TARPITCONT`: is it `TARPITCOUNT`?"),
]
SOUND = "`Refuse`, `session.Session`, `int`, `os.path.join`, `TARPITCOUNT=4`, `ana@example.org`, `all`, `control/me`: these are."


@pytest.mark.usefixtures("site")  # built before, so that two builds don't share the machine
def test_broken_references_fail_the_build(tmp_path: Path) -> None:
    "A misspelt name, a renamed function, a dead link, an unknown setting: each is found, with the notebook and the cell."
    project = tmp_path / "project"
    for name in ("docs", "ra_plugins", "nbs/spp", "nbs/support"):
        shutil.copytree(ROOT / name, project / name, ignore=shutil.ignore_patterns("__pycache__"))
    (project / "nbs/plugins").mkdir()
    for name in ("settings.ini", "nbs/plugins/tarpit.ipynb"):
        shutil.copy(ROOT / name, project / name)
    cells = ["# A start page\n\n> With faults.", SOUND, *(text for text, _ in PLANTED)]
    markdown = [
        {"cell_type": "markdown", "id": f"c{n}", "metadata": {}, "source": text} for n, text in enumerate(cells)
    ]
    kernel = {"kernelspec": {"display_name": "python3", "language": "python", "name": "python3"}}
    notebook = {"cells": markdown, "metadata": kernel, "nbformat": 4, "nbformat_minor": 5}
    (project / "nbs/index.ipynb").write_text(json.dumps(notebook))
    module = project / "ra_plugins/plugins/tarpit.py"
    module.write_text(module.read_text().replace("without the ceiling.", "without the `ceilling_of_it`."))

    done = build(project, tmp_path / "site", "--no-lite")

    assert done.returncode != 0
    told = done.stderr.splitlines()
    for cell, (text, expected) in enumerate(PLANTED, start=2):
        found = [line for line in told if line.startswith(f"nbs/index.ipynb, cell {cell}:") and expected in line]
        assert found, f"{text}\n{done.stderr}"
    assert len([line for line in told if line.startswith("nbs/index.ipynb")]) == len(PLANTED)
    assert [line for line in told if re.match(r"nbs/plugins/tarpit.ipynb, cell \d+.*`ceilling_of_it`", line)]


def test_pages_are_small(site: Path) -> None:
    sizes = {str(path.relative_to(site)): path.stat().st_size for path in pages(site)}
    assert {name: size for name, size in sizes.items() if size > LARGEST_PAGE} == {}
    files = [path for path in site.rglob("*") if path.is_file() and path.relative_to(site).parts[0] != "lite"]
    assert sum(path.stat().st_size for path in files) < USUAL_PAGE * len(sizes)


def test_addresses_have_no_numbers(site: Path) -> None:
    assert (site / "spp/plugin.html").exists()
    assert [path.name for path in pages(site) if re.match(r"\d", path.name)] == []


@pytest.mark.parametrize(
    ("plugin", "facts"),
    [
        (
            "ipthrottle",
            {
                "Asks": "Rate: How often .* Block: Have ipsvd deny .*",
                "May answer": "Disconnect",
                "Takes": "at most 30 seconds",
                "Settings": "IPTHROTTLEMINUTES",
                "Settings of who answers Rate": "RATER, RATERTIMEOUT",
                "Settings of who answers Block": "IPSVDIR",
            },
        ),
        ("authlogger", {"Asks": "nothing", "May answer": "nothing: it only logs", "Settings": "none"}),
        ("rcptcheckscdb", {"May answer": "Refuse, SetVariable", "Keeps": "WRONGRCPTCOUNT"}),
    ],
)
def test_page_of_a_plugin_says_what_it_declares(site: Path, plugin: str, facts: dict[str, str]) -> None:
    "What it asks, may answer and keeps, and also the settings of those that answer it."
    html = (site / "plugins" / f"{plugin}.html").read_text(encoding="utf-8")
    listed = html.partition('<dl class="plugin-facts')[2].partition("</dl>")[0]
    text = re.sub("<[^>]*>", "", re.sub("<d[td]>", "\n", listed))
    said = dict(re.findall(r"(\w[\w ]*\w):?\s*\n\s*(.+)", text))
    assert {
        name: said.get(name, "") for name, value in facts.items() if not re.fullmatch(value, said.get(name, ""))
    } == {}


def test_page_of_a_plugin_tells_an_administrator_what_to_type_and_what_he_sees(site: Path) -> None:
    "Right behind the opening, and before the parts."
    for name in ("tarpit", "greylist", "access", "spfchecks"):
        text = re.sub("<[^>]*>", "", html(site, f"plugins/{name}").partition("<h1>")[2])
        sections = re.findall(r"<h([23])>(.*?)<", html(site, f"plugins/{name}"))
        assert sections[:5] == [
            ("2", "For the administrator"),
            ("3", "Switching it on"),
            ("3", "What the log says, and what the client sees"),
            ("3", "Undo"),
            ("3", "At a glance"),
        ]
        assert f"$ ra-plugins install --create /var/qmail/plugins {name}" in text
        assert f"L: {name}: pid 4711 - " in text
    access = html(site, "plugins/access").partition('<dl class="plugin-facts')[2].partition("</dl>")[0]
    assert access.count("<details>") == access.count("Also ") == 1 and "CONNECTION: " in access


def html(site: Path, name: str) -> str:
    return (site / f"{name}.html").read_text(encoding="utf-8")


def test_every_page_says_what_it_is_about(site: Path) -> None:
    "To those who search the web, in words of its own."
    told = {
        str(path): re.findall(r"<meta content=([\"'].*?) name=description", path.read_text(encoding="utf-8"))
        for path in pages(site)
    }
    assert [name for name, found in told.items() if len(found) != 1 or len(found[0]) < 20] == []
    assert len({found[0] for found in told.values()}) == len(told)


def test_a_section_of_an_rfc_is_of_the_rfc_that_is_meant(site: Path) -> None:
    "In SPF's notebooks RFC 8616 is named in passing, and has no section 7.3."
    wrong = {name: re.findall(r"rfc8616.html#section-[\d.]+", html(site, name)) for name in ("spf/record", "spf/query")}
    assert {name: [each for each in found if not each.endswith("-4")] for name, found in wrong.items()} == {
        "spf/record": [],
        "spf/query": [],
    }


def test_a_method_knows_who_uses_it(site: Path) -> None:
    "Even where nobody has said what type the value in front of it has."
    page = html(site, "rater/limits")
    below = page.partition("<dt class=sig id=Rule.covers>")[2].partition("</dl>")[0]
    users = below.partition("used by ")[2]
    assert "<a href=config.html#Before>" in users and "control.html#matching" in users


def test_no_name_stands_nowhere(site: Path) -> None:
    "What a hidden cell defines and one in sight uses is there, folded; what only tests use isn't."
    assert any(">Set-up<" in path.read_text(encoding="utf-8") for path in site.rglob("*.html"))
    assert "def shell" not in html(site, "guides/qmail")


def test_a_word_of_ours_is_a_link_to_what_it_means(site: Path) -> None:
    "Where it first stands on a page, and only there."
    assert html(site, "plugins/localmail").count("href=../words.html#word-Mend") == 1
    assert "where a plugin does something else than the C plugin" in html(site, "words")
    assert "href=../words.html#word-mark" in html(site, "rater/memory")
    assert "href=../words.html#word-mark" not in html(site, "guides/qmail")  # a word of rater's


def test_guides_show_no_python_where_one_types_commands(site: Path) -> None:
    for path in sorted((site / "guides").glob("*.html")):
        text = re.sub("<[^>]*>", "", path.read_text(encoding="utf-8"))
        assert [word for word in ("shell(", "%%sh", "subprocess.run") if word in text] == [], path.name
        assert "write_text(" not in text or path.stem == "writing_a_plugin"  # which is about Python, and has it folded


def test_pages_whose_notebook_cannot_run_say_why(site: Path) -> None:
    if not (site / "lite").exists():
        pytest.skip("this site was built without what runs notebooks in the page: that needs npm and network")
    reasons = {"guides/qmail": "starts programs", "hosts/service/worker": "", "plugins/tarpit": None}
    for name, reason in reasons.items():
        found = re.search(r'class=run-not>This notebook can’t run in a browser: (.+?)\.<', html(site, name))
        assert bool(found) == (reason is not None) and (not found or (reason or "") in found[1])
    assert "run-not" not in html(site, "guides/why")


# In a browser


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    options = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-background-networking", "--disable-sync"]
    with sync_api.sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=BROWSER, args=options)
        yield chromium
        chromium.close()


class SiteServer(ThreadingHTTPServer):
    "Says nothing of a browser that goes on to another page in the middle of this one."

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


@pytest.mark.parametrize(
    ("error", "said"), [(ConnectionResetError, False), (BrokenPipeError, False), (ValueError, True)]
)
def test_the_web_server_says_nothing_of_a_client_that_leaves(
    error: type[Exception], said: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    with SiteServer(("127.0.0.1", 0), SimpleHTTPRequestHandler) as server:
        try:
            raise error
        except error:
            server.handle_error(None, ("127.0.0.1", 0))
    assert ("Traceback" in capsys.readouterr().err) == said


@pytest.fixture(scope="module")
def address(site: Path) -> Iterator[str]:
    "The site on a web server of its own."

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

    with SiteServer(("127.0.0.1", 0), partial(Quiet, directory=str(site))) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}/"
        server.shutdown()


@pytest.fixture
def visit(browser: Any, address: str) -> Iterator[Any]:
    "Opens a page. Nothing may be asked of another server or fail, and nothing may stand in the console."
    faults: list[str] = []
    contexts = []

    def failed(request: Any) -> None:
        if request.failure != "net::ERR_ABORTED":  # by us, who went on to the next page
            faults.append(f"{request.failure}: {request.url}")

    def open_page(path: str, base: str = address, **options: Any) -> Any:
        context = browser.new_context(**options)
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: faults.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.on("requestfailed", failed)
        page.on(
            "response", lambda answer: faults.append(f"{answer.status}: {answer.url}") if answer.status > 399 else None
        )
        page.on(
            "request", lambda request: faults.append(f"asks {request.url}") if is_foreign(request.url, base) else None
        )
        page.goto(base + path)
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert faults == []


def is_foreign(url: str, base: str) -> bool:
    return not url.startswith((base, "data:", "blob:"))


@needs_browser
@pytest.mark.parametrize("served", [True, False], ids=["web server", "file"])
def test_start_page(visit: Any, site: Path, served: bool) -> None:
    page = visit("index.html") if served else visit("index.html", base=site.as_uri() + "/")
    assert page.locator("h1").inner_text().startswith("ra-plugins")
    sections = page.locator(".sidebar-tree > ul > li > a").all_inner_texts()
    assert sections[:4] == ["Guides", "Plugins", "Foundation", "Asking"]
    page.locator(".sidebar-tree").get_by_role("link", name="Plugins", exact=True).click()
    page.locator("article").get_by_text("The more recipients a client names, the slower we answer.").wait_for()
    page.locator(".sidebar-tree").get_by_role("link", name="tarpit", exact=True).click()
    assert page.locator("h1").inner_text().startswith("tarpit")
    assert page.locator(".related-pages .next-page").count() + page.locator(".related-pages .prev-page").count()


@needs_browser
@pytest.mark.parametrize("served", [True, False], ids=["web server", "file"])
@pytest.mark.parametrize(
    ("words", "found"),
    [
        ("sample_session", "/spp/session.html#sample_session"),
        ("TARPITCOUNT", "/plugins/tarpit.html#setting-TARPITCOUNT"),
        ("tarpit", "/plugins/tarpit.html"),
        ("greylisting", "/plugins/greylist.html"),
        ("why was my mail refused", "/guides/why.html"),
        ("DNSBL", "/plugins/rblchecks.html"),
        ("uninstall", "/guides/installing.html"),
        ("upgrade", "/guides/installing.html"),
    ],
)
def test_search(visit: Any, site: Path, words: str, found: str, served: bool) -> None:
    "What one looks for comes first, with a sentence of its page's below it."
    place = f"search.html?q={words.replace(' ', '+')}"
    page = visit(place, **({} if served else {"base": site.as_uri() + "/"}))
    page.locator("#search-summary, .search-summary", has_text=re.compile("finished|found", re.I)).first.wait_for()
    first = page.locator("#search-results li").first
    first.wait_for()
    page.locator("#search-results li p.context").first.wait_for()
    assert re.sub(r"[?#]highlight=.*", "", first.locator("a").first.evaluate("link => link.href")).endswith(found)
    assert len(first.locator("p.context").inner_text()) > 10
    assert page.get_by_text("Run this notebook").count() == 0


@needs_browser
def test_commands_are_copied_without_prompt_and_output(visit: Any) -> None:
    page = visit("guides/first_five_minutes.html", permissions=["clipboard-read", "clipboard-write"])
    block = page.locator("div.cell.tag_terminal", has_text="cat > control/addresslist")
    assert block.locator("pre").first.inner_text().startswith("$ mkdir control\n$ echo mail.example.org > control/me\n")
    assert "> ana@example.org" in block.inner_text()
    block.hover()
    block.locator("button.copybtn").click()
    page.wait_for_function("navigator.clipboard.readText().then(text => text.includes('EOF'))")
    copied = page.evaluate("navigator.clipboard.readText()")
    assert copied.startswith("mkdir control\necho mail.example.org > control/me\n") and "$" not in copied
    assert "addresslist <<EOF\nana@example.org\nben@example.org\nEOF" in copied


@needs_browser
def test_first_page_has_a_picture_and_three_doors(visit: Any) -> None:
    page = visit("index.html", viewport={"width": 1400, "height": 1000})
    picture = page.locator(".raspf").first.bounding_box()
    assert picture["y"] + picture["height"] < 1000
    assert page.locator("article h2").all_inner_texts()[:3] == ["Try it", "Run it", "Read it"]
    assert page.locator("article table").count() == 1
    page.get_by_role("link", name="Where things are", exact=True).last.click()
    page.locator("article").get_by_role("link", name="nbs/support/").click()
    assert page.url.endswith("/support/index.html")


IN_SIGHT = """() => {
    const {top} = document.querySelector(":target").getBoundingClientRect();
    return 0 <= top && top < innerHeight;
}"""


@needs_browser
def test_reference_leads_to_its_definition(visit: Any) -> None:
    "To its code, with what it takes and who uses it under it."
    page = visit("plugins/tarpit.html")
    page.locator("p").get_by_role("link", name="Delay", exact=True).first.click()
    assert page.url.endswith("/spp/command.html#Delay")
    page.wait_for_function(IN_SIGHT)  # Furo scrolls smoothly
    code = page.locator(".cell", has=page.locator("pre", has_text="class Delay")).first
    above = "code => code.getBoundingClientRect().top - document.getElementById('Delay').getBoundingClientRect().top"
    assert 0 <= code.evaluate(above) < 40
    about = page.locator(".definition", has=page.locator("summary code.name", has_text=re.compile("^Delay$")))
    assert not about.locator("dl.py").first.is_visible()
    about.locator("summary").first.click()
    assert "class Delay(" in " ".join(about.locator("dt.sig").first.inner_text().split())
    if about.locator("details.used-by").count():
        about.locator("details.used-by > summary").last.click()
    about.locator(".used-by a[href$='plugins/tarpit.html#tarpit']:visible").last.click()
    assert "/plugins/tarpit.html#tarpit" in page.url


@needs_browser
@pytest.mark.parametrize("served", [True, False], ids=["web server", "file"])
def test_a_name_shows_what_it_is(visit: Any, site: Path, served: bool) -> None:
    "Under the pointer and under the keyboard's focus, and no longer than somebody looks."
    page = visit("plugins/tarpit.html", **({} if served else {"base": site.as_uri() + "/"}))
    name = page.locator("div.highlight pre a[href='#pace']").last
    name.hover()
    tip = page.get_by_role("tooltip")
    tip.wait_for()
    assert "def pace(value: str) -> int | str:" in tip.inner_text()
    page.keyboard.press("Escape")
    assert tip.count() == 0
    page.mouse.move(0, 0)
    page.locator("div.highlight pre a[href='../spp/command.html#Delay']").last.focus()
    tip.wait_for()
    assert "class Delay" in tip.inner_text()
    assert page.locator("a[aria-describedby=tip]").inner_text() == "Delay"
    page = visit("rater/memory.html", **({} if served else {"base": site.as_uri() + "/"}))
    page.locator("a[href='../words.html#word-mark']").hover()
    page.get_by_role("tooltip").wait_for()
    assert "something has happened once" in page.get_by_role("tooltip").inner_text()


@needs_browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize(
    "name",
    [
        "index",
        "plugins/tarpit",
        "plugins/index",
        "guides/qmail",
        "spf/evaluation",
        "spf/show",
        "rater/memory",
        "search",
    ],
)
def test_nobody_is_shut_out(visit: Any, name: str, scheme: str) -> None:
    "What axe-core checks of WCAG and good practice: contrast, headings, names of parts, what the keyboard reaches."
    page = visit(f"{name}.html", color_scheme=scheme, viewport={"width": 1400, "height": 1000})
    found = axe.Axe().run(page).response["violations"]
    assert [(each["id"], [node["html"] for node in each["nodes"]][:3]) for each in found] == []


def test_addresses_of_nbdevs_index_exist(site: Path) -> None:
    "By them other projects that use nbdev link to ours."
    missing = []
    ids: dict[str, set[str]] = {}
    index: Any = _modidx.d["syms"]
    for names in index.values():
        for address, _ in names.values():
            page, _, anchor = address.partition("#")
            if page not in ids:
                ids[page] = set(re.findall(r' id="?([^" >]+)', (site / page).read_text(encoding="utf-8")))
            missing += [address] if anchor not in ids[page] else []
    assert missing == []


@needs_browser
def test_references_in_code_and_signatures(visit: Any) -> None:
    page = visit("plugins/tarpit.html")
    places = page.locator("div.highlight pre a").evaluate_all("links => links.map(link => link.getAttribute('href'))")
    assert "../spp/command.html#Delay" in places
    assert "https://docs.python.org/3/library/functions.html#min" in places
    types = page.locator("dt.sig a").evaluate_all("links => links.map(link => link.getAttribute('href'))")
    assert "../spp/session.html#Session" in types
    rfcs = page.locator("a.rfc").evaluate_all("links => links.map(link => link.getAttribute('href'))")
    assert "https://www.rfc-editor.org/rfc/rfc5321.html#section-4.5.3.2.3" in rfcs


@needs_browser
def test_page_of_a_plugin(visit: Any) -> None:
    "It says at which command the plugin runs, its settings and its neighbours."
    page = visit("plugins/tarpit.html")
    facts = page.locator(".plugin-facts")
    assert "RCPT" in facts.inner_text()
    assert not facts.get_by_role("link", name="dotblind").is_visible()
    facts.get_by_text("more").click()
    assert facts.get_by_role("link", name="dotblind").is_visible()
    facts.get_by_role("link", name="TARPITDELAY").click()
    assert page.locator(":target").inner_text().startswith("TARPITDELAY")
    assert page.locator("tbody tr", has_text="TARPITDELAY").count() == 1


@needs_browser
def test_dark(visit: Any) -> None:
    "By the reader's choice, and by that of the system."

    def background(page: Any) -> int:
        return sum(map(int, re.findall(r"\d+", page.evaluate("getComputedStyle(document.body).backgroundColor"))[:3]))

    page = visit("spf/show.html", color_scheme="light")
    assert background(page) > 600
    while page.evaluate("document.body.dataset.theme") != "dark":
        page.locator(".theme-toggle:visible").first.click()
    assert background(page) < 150
    assert background(visit("spf/show.html", color_scheme="dark")) < 150


@needs_browser
def test_narrow_window(visit: Any, site: Path, address: str) -> None:
    "No page scrolls sideways on a phone."
    page = visit("index.html", viewport={"width": 360, "height": 740})
    wide = {}
    for path in pages(site):
        page.goto(address + path.relative_to(site).as_posix())
        width = page.evaluate("document.scrollingElement.scrollWidth")
        if width > 360:
            wide[page.url] = width
    assert wide == {}


CUT_OFF = """() => [...document.querySelectorAll("article div.highlight pre")]
    .filter((code) => code.checkVisibility() && code.scrollWidth > code.clientWidth + 1)
    .map((code) => code.innerText.slice(0, 100))"""


@needs_browser
def test_no_code_is_cut_off(visit: Any, site: Path, address: str) -> None:
    "On a window of 1,400 pixels each block of code is as wide as its box, at most."
    page = visit("index.html", viewport={"width": 1400, "height": 1000})
    cut = {}
    for path in pages(site):
        page.goto(address + path.relative_to(site).as_posix())
        if found := page.evaluate(CUT_OFF):
            cut[page.url] = found
    assert cut == {}


@needs_browser
def test_without_scripts(visit: Any) -> None:
    page = visit("spf/evaluation.html", java_script_enabled=False)
    assert page.get_by_text("And now the walk itself. The terms are tried in order, and the first match decides").is_visible()
    assert page.locator("div.highlight pre", has_text="async def match_a").first.is_visible()
    page.locator("div.highlight pre").get_by_role("link", name="isinstance", exact=True).first.click()
    assert page.locator(":target a").get_attribute("href") == "https://docs.python.org/3/library/functions.html#isinstance"


# Notebooks that run in the page


@pytest.fixture(scope="module")
def lite(site: Path) -> Path:
    folder = site / "lite"
    if not folder.exists():
        pytest.skip("this site was built without what runs notebooks in the page: that needs npm and network")
    return folder


@needs_browser
def test_notebook_in_the_page_is_the_notebook(visit: Any, lite: Path) -> None:
    """By its button, in JupyterLite: what is stored is there before anything runs, with the plugin's own definition.

    When Python is there, a definition can be changed, and a cell far below it run, as the first that one runs.
    """
    page = visit("plugins/msa.html", viewport={"width": 1200, "height": 900})
    page.locator(".run a").click()
    page.wait_for_selector(".jp-NotebookPanel .jp-Cell", timeout=120_000)
    answer = "Refuse(530, '5.7.0', 'Authentication required', in_front=True)"
    page.locator(".jp-OutputArea-output", has_text=answer).first.wait_for(timeout=20_000)
    assert page.locator("body[data-prepared]").count() == 0  # before Python is there
    definition = page.locator(".jp-CodeCell", has_text="def msa(").first
    imports = page.locator(".jp-Cell", has_text="import msa")  # on the first screen, and not in the definition's place
    assert definition.count() == 1 and imports.count() == 1
    page.locator("body[data-prepared]").wait_for(state="attached", timeout=240_000)
    cell = page.locator(".jp-CodeCell", has=page.locator(".jp-OutputArea-output", has_text=answer)).first
    cell.locator(".cm-content").click()
    page.keyboard.press("Control+A")
    page.keyboard.insert_text(
        "def msa(session):\n    return f'asked about {session.client_ip}'\n\n\nmsa(sample_session())"
    )
    page.keyboard.press("Shift+Enter")
    page.locator(".jp-OutputArea-output", has_text="asked about 192.0.2.1").wait_for(timeout=60_000)
    assert page.locator(".jp-OutputArea-output:has-text('Traceback')").count() == 0
    page.locator("a#back").click()
    page.wait_for_url("**/plugins/msa.html")


RUN = """async ([root, notebooks]) => {
    const {loadPyodide} = await import(root + "static/pyodide/pyodide.mjs");
    const python = await loadPyodide({indexURL: root + "static/pyodide/", packages: ["ra-plugins", "ipython"]});
    const run = python.runPython(`
        from __future__ import annotations
        from ast import PyCF_ALLOW_TOP_LEVEL_AWAIT
        from pyodide.code import eval_code_async
        async def run(cell, globals):  # in a notebook, that import holds for all cells behind it
            flags = annotations.compiler_flag
            try:
                compile(cell, "cell", "exec", flags)
            except SyntaxError:  # it awaits at the top, which IPython allows where a cell has it
                flags |= PyCF_ALLOW_TOP_LEVEL_AWAIT
            globals["_"] = await eval_code_async(cell, globals, flags=flags)
        run`);
    const faults = {};
    for (const [name, files, cells] of notebooks) {
        const folder = "/home/pyodide/" + name;
        python.FS.mkdirTree(folder);
        python.FS.chdir(folder);
        for (const [file, text] of Object.entries(files)) python.FS.writeFile(file, text);
        const globals = python.toPy({__name__: "__main__"});
        try { for (const cell of cells) await run(cell, globals); }
        catch (error) { faults[name] = String(error).trim().split("\\n").at(-1); }
        finally { globals.destroy(); }
    }
    return faults;
}"""


@needs_browser
def test_every_runnable_notebook_runs_in_a_browser(visit: Any, lite: Path, address: str) -> None:
    "The same Python as in the page, without JupyterLite around it."
    notebooks = []
    for path in sorted((lite / "files").rglob("*.ipynb")):
        files = {
            each.name: each.read_text() for each in path.parent.iterdir() if each.is_file() and each.suffix != ".ipynb"
        }
        cells = [
            "".join(cell["source"]) for cell in json.loads(path.read_text())["cells"] if cell["cell_type"] == "code"
        ]
        notebooks.append((path.relative_to(lite / "files").with_suffix("").as_posix(), files, cells))
    assert {"plugins/tarpit", "spf/evaluation"} <= {name for name, _, _ in notebooks}
    faults: dict[str, str] = {}
    crashed = 0
    while notebooks:  # some a page: what WebAssembly has taken it gives back with its page only
        page = visit("index.html")
        page.set_default_timeout(300_000)
        try:
            faults |= page.evaluate(RUN, [address + "lite/", notebooks[:20]])
        except sync_api.Error as error:  # Chromium's own process: where the machine is full, it may happen once
            crashed += 1
            if "crashed" not in str(error) or crashed > 1:
                raise
        else:
            del notebooks[:20]
        page.close()
    assert faults == {}
