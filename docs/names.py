"What a name in backticks means: something of ours, of the standard library, of dnspython, a setting, or nothing."

from __future__ import annotations

import builtins
import inspect
import re
import sys
from collections import defaultdict
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from functools import cached_property
from pydoc import locate

from stage import CONFIG, Page

NAME = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*(\(\))?")
SETTING = re.compile(r"([A-Z][A-Z0-9]*_?[A-Z0-9]+)(=.*)?")
PACKAGE = CONFIG.lib_name
COMMANDS = {line.partition("=")[0] for line in CONFIG.d["console_scripts"].split("\n")}
# No names of ours: commands and extensions of SMTP, types and answers of DNS, other people's programs.
OTHERS = {
    *(
        "HELO",
        "EHLO",
        "MAIL",
        "RCPT",
        "DATA",
        "BDAT",
        "RSET",
        "NOOP",
        "QUIT",
        "VRFY",
        "EXPN",
        "HELP",
        "AUTH",
        "STARTTLS",
    ),
    *("PIPELINING", "CHUNKING", "SIZE", "PLAIN", "LOGIN", "AAAA", "CNAME", "DNAME", "NXDOMAIN", "SERVFAIL"),
    *("ADDRESS", "DOMAIN", "EnvironmentFile", "getopt_long_only", "nbdev_export"),
    *("main.cf", "DUNNO", "DEFER_IF_PERMIT", "REJECT", "PREPEND", "check_policy_service", "reject_unauth_destination"),
    *("line_length_limit", "smtpd_delay_reject", "smtpd_relay_restrictions", "smtpd_recipient_restrictions"),
    *("smtpd_data_restrictions", "recipient_count", "no_verdict"),
    *("smtpd_policy_service_timeout", "smtpd_policy_service_default_action", "smtpd_policy_service_max_idle"),
    *("_spf1", "_spf2", "inet_aton", "metrics_port", "reject_warning", "warn_if_reject", "permit_mynetworks", "Received"),
    *("milter_mail_macros", "milter_command_timeout", "milter_default_action"),
    *("smtpd_policy_service_max_ttl", "sasl_username", "policy_context"),
    *("PEXPIRE", "GETRANGE", "SETRANGE", "RANDOMKEY", "rediss", "ssl_ca_certs"),
    *("rater.toml", "rater.service", "SOURCE_DATE_EPOCH"),
}
ENDINGS = {
    "com",
    "example",
    "invalid",
    "net",
    "org",
    "test",
    "html",
    "ipynb",
    "json",
    "md",
    "py",
    "txt",
}  # no attributes


class BrokenReference(Exception):
    "A name that should mean something, and doesn't."


class Names:
    "All that names can mean, to find out what one means on a page."

    def __init__(
        self,
        pages: Mapping[str, Page],
        ours: Iterable[str],  # full names, of modules too
        others: Iterable[str],  # of Python and of libraries
        settings: Iterable[str],
    ):
        self.pages, self.ours, self.others, self.settings = pages, set(ours), set(others), set(settings)
        self.known = self.ours | self.others
        self.modules = {page.module: page for page in pages.values() if page.module}
        self.plugins = {page.plugin.name: f"{page.module}.{page.plugin.name}" for page in pages.values() if page.plugin}
        self.short: dict[str, list[str]] = defaultdict(list)  # `Session.helo`, `session.Session.helo`, …
        for full in self.ours:
            parts = full.split(".")
            for start in range(1, len(parts)):
                self.short[".".join(parts[start:])].append(full)

    @cached_property
    def methods(self) -> dict[str, str]:
        "The methods and attributes whose name one class here has, and nothing elsewhere: whoever says it means that one."
        found: dict[str, list[str]] = defaultdict(list)
        for full in self.ours:
            owner, _, name = full.rpartition(".")
            if owner in self.ours and owner not in self.modules and not name.startswith("_"):
                found[name].append(full)
        others = {full.rpartition(".")[2] for full in self.others}
        others |= {name for kind in vars(builtins).values() if inspect.isclass(kind) for name in dir(kind)}
        return {name: full for name, (full, *more) in found.items() if not more and name not in others}

    def setting(self, text: str) -> str | None:
        "The setting that `NAME` or `NAME=value` is about."
        match = SETTING.fullmatch(text)
        return match[1] if match and match[1] in self.settings else None

    def find(self, text: str, page: Page) -> str | None:
        "The full name that is meant, if any; `BrokenReference` where one should be, and isn't."
        name = text.removesuffix("()")
        if not NAME.fullmatch(text):
            match = SETTING.fullmatch(text)
            if match:
                self.check(match[1], text, page)
            return None
        found = (
            self.in_scope(name, page)
            or (name if name in self.ours else None)
            or self.plugins.get(name)
            or self.elsewhere(name, page)
            or self.foreign(name, text, page)
        )
        if not found:
            self.check(name, text, page)
        return found

    def in_scope(self, name: str, page: Page) -> str | None:
        "What the page's own code means by a name."
        head, dot, rest = name.partition(".")
        return self.canonical(page.scope[head] + dot + rest) if head in page.scope else None

    def canonical(self, full: str) -> str | None:
        "The name under which something is documented, be it imported or inherited."
        if full in self.known:
            return full
        module, _, name = full.rpartition(".")
        if module in self.modules and name in self.modules[module].scope:
            target = self.modules[module].scope[name]
            return self.canonical(target) if target != full else None
        owner = locate(module)
        if inspect.isclass(owner):
            known = [f"{each.__module__}.{each.__qualname__}" for each in owner.__mro__]
            documented = [each for each in known if f"{each}.{name}" in self.known]
            if documented:
                return f"{documented[0]}.{name}"
            if hasattr(owner, name) or (known[0] in self.ours and f"self.{name}" in inspect.getsource(owner)):
                return self.canonical(known[0])
        return None

    def elsewhere(self, name: str, page: Page) -> str | None:
        "A name of ours that the page's code doesn't use; one that is also a plain word isn't taken for it."
        found = self.short.get(name, [])
        if not found or name in page.words or name.isalpha() and name.islower():
            return None
        if len(found) > 1:
            near = {full.rpartition(".")[0] for full in page.scope.values()}
            found = [each for each in found if each.removesuffix(f".{name}") in near] or found
        if len(found) > 1:
            folder = f"{PACKAGE}.{page.name.rpartition('/')[0]}."
            found = [each for each in found if each.startswith(folder)] or found
        if len(found) > 1:
            raise BrokenReference(f"`{name}` may be {' or '.join(sorted(found))}")
        return found[0]

    def foreign(self, name: str, text: str, page: Page) -> str | None:
        "A name of the standard library or of dnspython. `all` isn't the function, `all()` is."
        if name not in self.others:
            return None
        builtin = getattr(builtins, name, None)
        plain = name.isalpha() and name.islower() and text == name
        if (
            plain
            and not inspect.isclass(builtin)
            and (name not in sys.stdlib_module_names or name in page.words - {*page.scope})
        ):
            return None
        return name

    def check(self, name: str, text: str, page: Page) -> None:
        "Of a name that means nothing: isn't it a misspelt one?"
        head, _, rest = name.partition(".")
        if set(name.split(".")) <= page.words or name in self.short or name in OTHERS | COMMANDS or locate(name):
            return
        near = get_close_matches(name, [*self.short, *self.settings], 1, 0.8 if name != name.lower() else 0.9)
        dotted = (
            rest
            and rest.rpartition(".")[2] not in ENDINGS
            and (head in page.scope or head in self.short or head in (PACKAGE, *sys.stdlib_module_names))
        )
        capitals = SETTING.fullmatch(name) and len(name) > 4
        if (
            text.endswith("()")
            or dotted
            or capitals
            or ("_" in name and not rest)
            or re.search(r"[a-z][A-Z]", name)
            or near
        ):
            kind = "setting" if capitals and not rest else "name"
            raise BrokenReference(f"unknown {kind} `{text}`" + (f": is it `{near[0]}`?" if near else ""))
