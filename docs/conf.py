"How Sphinx sets the site: `make docs`. What comes in is made by stage.py, and what leads where by references.py."

import sys
from pathlib import Path

from sphobjinv import Inventory, compress, writebytes

HERE = Path(__file__).parent.resolve()
sys.path.insert(0, str(HERE))

from stage import CONFIG, ROOT  # noqa: E402

project, author, copyright = CONFIG.repo, CONFIG.author, f"{CONFIG.author}, {CONFIG.license}"
extensions = [
    "report",
    "references",
    "lite",
    "api",
    "console",
    "uses",
    "definitions",
    "tips",
    "words",
    "plugins",
    "found",
    "small",
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.intersphinx",
    "sphinx_copybutton",
]
# The folders of nbs/, in the order of the sidebar, which is that in which they can be read: each stands on those before it.
# One that isn't named here comes behind them, under its own name.
sections = {
    "guides": ("Guides", "How to get something done, from the first five minutes on."),
    "plugins": ("Plugins", "What each of them decides, its settings, its log lines, and how it does it."),
    "plugins/shared": ("What several plugins share", "Lists, throttles, and the order of a mailbox check."),
    "support": ("Foundation", "Log lines, addresses, control files: what knows nothing of mail servers."),
    "ask": ("Asking", "How a decision asks DNS, rater or a database without waiting, and who answers."),
    "spp": ("What a plugin is", "The session that it sees and the commands that it may answer: the contract with qmail-spp."),
    "spf": ("SPF", ""),
    "spf/owner": ("For the owner of a domain", "What a record costs, what is wrong with it, and whom it lets send."),
    "rater": ("rater, the rate limiter", ""),
    "hosts": ("Running plugins", "As a script that qmail-smtpd starts, in a service, for Postfix."),
    "hosts/service": ("The service", "One process that holds all plugins, and the small client that asks it."),
    "hosts/postfix": ("Postfix", "The same plugins over Postfix's policy delegation protocol."),
    "hosts/milter": ("A milter", "The same plugins where Postfix or Sendmail asks a milter."),
    "smtpd": ("A server to try them on", "qmail-smtpd with qmail-spp, imitated."),
    "cli": ("The command line", "`ra-plugins` and its commands."),
    "cli/check": ("Checking a set-up", "What `ra-plugins check` looks at, before a client finds it."),
    "cli/report": ("Reports", "What the logs say: who was refused, when, and why."),
}

# Those that come first in their folder, whatever they are called.
first = [
    f"guides/{name}"
    for name in ("what_do_you_want_to_do", "first_five_minutes", "installing", "qmail", "service", "reports", "limiter")
]

nb_execution_mode = "off"
nb_merge_streams = True
nb_render_markdown_format = "myst"
nb_code_prompt_show = nb_code_prompt_hide = "Code"
myst_enable_extensions = ["attrs_block", "colon_fence"]
myst_heading_anchors = 3
default_role = "literal"  # backticks in docstrings are those of Markdown

autodoc_default_options = {"members": True}
autodoc_preserve_defaults = True
autodoc_member_order = "bysource"
python_display_short_literal_types = True
add_module_names = False
toc_object_entries = False

exclude_patterns = ["lite"]
nitpicky = True
nitpick_ignore_regex = [("py:class", r".*\.[A-Z]|.*\[.*")]  # type variables, and what Sphinx doesn't read


def inventory(name: str) -> str:
    "An inventory in the form that intersphinx reads, from the text in docs/."
    made = ROOT / "_proc" / f"{name}.inv"
    made.parent.mkdir(exist_ok=True)
    writebytes(str(made), compress(Inventory(HERE / f"{name}.txt").data_file()))
    return str(made)


intersphinx_mapping = {
    "python": ("https://docs.python.org/3", inventory("python")),
    "dnspython": ("https://dnspython.readthedocs.io/en/stable", inventory("dnspython")),
}

html_theme = "furo"
html_title = CONFIG.repo
templates_path = ["templates"]
html_static_path = [str(HERE / "static")]
html_favicon = str(HERE / "static" / "icon.svg")
html_css_files = ["site.css"]
html_js_files = ["site.js"]
html_search_scorer = str(HERE / "static" / "scorer.js")
html_show_search_summary = False  # which Sphinx cuts out of whole pages, buttons and outputs included, and can't over file://
copybutton_selector = "div.cell > div.highlight pre, details.hide > div.highlight pre, section > div.highlight pre"
copybutton_exclude = ".gp, .go"  # prompts, and what is printed behind them
html_show_sourcelink = False
html_use_index = html_domain_indices = False  # the search finds all of it
html_copy_source = False
html_last_updated_fmt = None
