"""Random senders and zones for hypothesis: mostly well-formed, and built to hit one another."""

from __future__ import annotations

import os
from collections.abc import Callable
from itertools import product
from typing import Any, TypeVar

from hypothesis import strategies as st

from ra_plugins.ask.dns import Lookup, Records, Zone
from ra_plugins.ask.question import Broken, Unanswered

T = TypeVar("T")

EXAMPLES = int(os.environ.get("EXAMPLES", "400"))  # how many, for each test

# Few names, so that terms lead somewhere.
DOMAINS = ["a.example", "b.example", "c.d.example", "e-f.example"]
HOSTS = ["mx1.example", "mx2.example", "www.a.example"]
WILD = "wild.example"  # below which macros are expanded
ALIAS = "alias.example"  # leads elsewhere
NOWHERE = "nowhere.example"  # has no records
NAMES = [*DOMAINS, *HOSTS, ALIAS, NOWHERE]
NO_NAMES = ["a..example", "x" * 64 + ".example", ".example"]  # well-formed in a record, and never in DNS
CLIENTS4 = ["192.0.2.1", "192.0.2.2", "198.51.100.7"]
CLIENTS6 = ["2001:db8::1", "2001:db8:1::1"]
ADDRESSES4 = [[], *([each] for each in CLIENTS4), ["192.0.2.129", "192.0.2.1"], ["0.0.0.1", "255.255.255.255"]]
ADDRESSES6 = [[], *([each] for each in CLIENTS6), ["ffff::", "2001:db8::2"], ["2001:db8::1", "::"]]
LOCAL_PARTS = ["ana", "a-b", "x.y-z", "strong-bad+news", "a.b.c.d.e", "postmaster"]


def often(likely: st.SearchStrategy[T], unlikely: st.SearchStrategy[T], odds: int) -> st.SearchStrategy[T]:
    "The first, and once in `odds` times the other."
    return st.integers(1, odds).flatmap(lambda number: unlikely if number == odds else likely)


# What terms are made of. A list is one draw, so that an example is made of few.
MACROS = [
    f"%{{{letter}{digits}{reverse}{delimiters}}}"
    for letter, digits in product("slodivhpSLH", ("", "1", "2", "128"))
    for reverse, delimiters in product(("", "r"), ("", "-", "+-."))
]
ODD_MACROS = ["%", "%%", "%_", "%-", "%{d0}", "%{x}", "%{d", "%(d)", "%{c}", "%{d*}", "%{d2r-.}", "%{d2R}"]
PLAIN = [*NAMES, *NO_NAMES, "A.Example", "a.example."]
EXPANDED = [
    *(f"{macro}.{WILD}" for macro in MACROS),
    *(f"{macro}.%{{d2}}.{WILD}" for macro in MACROS[::7]),
    *("%{d}", "%{o}", "www.%{d}", "%{d2}", "%{h}", "%{l}.example", "%{l1r-}.example", "%{d1r}.example", "%{o}.%{o}"),
    *(".".join([macro] * 17) + f".{WILD}" for macro in ("%{s}", "%{d}", "%{ir}")),
]
ODD_DOMAINS = [
    *("localhost", "192.0.2.1", "a.example,", "a.-b", "%{d}a", "a.example:25", "a.1", "a.museum-"),
    *(f"{macro}.{WILD}" for macro in ODD_MACROS),
    *(f"a.example{macro}" for macro in ODD_MACROS),
]
LENGTHS4 = ["", "", "/32", "/25", "/24", "/0"]
LENGTHS6 = ["", "", "//128", "//47", "//0"]
ADDRESS_TERMS = [
    *(f"ip4:{address}{length}" for address, length in product([*CLIENTS4, "192.0.2.128"], LENGTHS4)),
    *(f"ip6:{address}{length[1:]}" for address, length in product([*CLIENTS6, "::"], LENGTHS6)),
]
ODD_TERMS = [
    *("all:x", "exists", "include", "include:", "a:", "moo", "ip4:192.0.2", "ip6:192.0.2.1", "ptr/8", "ptr:", "-"),
    *("=a", "1a=b", "moo=%", "exp=", "redirect=", "mx,", "a:/24", "mx:a.example/"),
    *("ip4:192.0.2.1/33", "ip4:192.0.2.01", "ip6:2001:db8::/129"),
    *("a/33", "a/", "a/08", "a//129", "a//", "a/24/24", "a/24//", "ip4:192.0.2.1//32", "ip6:::/064"),
]
MODIFIERS = ["exp=why.example", "exp=why.%{d}", "exp=%{l}.wild.example", "moo=%{d}", "moo=", "op=auth", "a.b-c_d=e/f:g"]

qualifiers = st.sampled_from(["", "", "-", "~", "?", "+"])
specs = often(often(st.sampled_from(EXPANDED), st.sampled_from(PLAIN), 2), st.sampled_from(ODD_DOMAINS), 60)
hosts = st.builds(
    "{}{}{}{}".format,
    st.sampled_from(["a", "mx", "a", "mx", "MX"]),
    st.one_of(st.just(""), st.sampled_from(HOSTS).map(":{}".format), specs.map(":{}".format)),
    st.sampled_from(LENGTHS4),
    st.sampled_from(LENGTHS6),
)
mechanisms = st.one_of(
    st.sampled_from(DOMAINS).map("include:{}".format),
    specs.map("include:{}".format),
    specs.map("exists:{}".format),
    hosts,
    st.one_of(st.sampled_from(["ptr", "PTR", "ptr:example", "all"]), specs.map("ptr:{}".format)),
    st.sampled_from(ADDRESS_TERMS),
)
directives = st.builds("{}{}".format, qualifiers, often(mechanisms, st.sampled_from(ODD_TERMS), 60))
modifiers = st.one_of(st.sampled_from(MODIFIERS), specs.map("redirect={}".format))
terms = st.lists(often(directives, modifiers, 8), max_size=5).map(" ".join)
starts = often(st.just("v=spf1 "), st.sampled_from(["V=SPF1  ", "v=spf10 ", "v=spf1\t", "v=spf1", "v=spf2 "]), 60)
ends = ["", " ", " -all", " ~all", " -all exp=why.example", " -all exp=why.%{d}", " redirect=b.example"]
endings = st.sampled_from(ends)
records = st.builds("{}{}{}".format, starts, terms, endings)
others = st.sampled_from([*[[]] * 15, ["hello"], ["v=spf1 -all"], ["v=spf10", "caf\xe9"], ["x" * 3000]])  # beside it
policies = st.builds(lambda record, rest: [record, *rest], records, others)

EXPLANATIONS = ["%{i} isn't one of %{o}'s", "see %{r}, %{c}", "%{p}", "%{d}%{s}%_%%", "plain", "50%", "%{z}", "caf\xe9"]
explanations = st.lists(st.sampled_from([*EXPLANATIONS, *MACROS]), min_size=1, max_size=2)
few_names = st.lists(st.sampled_from(NAMES), max_size=3)
many_names = st.integers(6, 11).map(lambda count: [f"h{number}.example" for number in range(count)])
some_names = often(few_names, many_names, 6)

ANSWERS: dict[str, st.SearchStrategy[list[Any]]] = {
    "TXT": policies,
    "A": st.sampled_from(ADDRESSES4),
    "AAAA": st.sampled_from(ADDRESSES6),
    "MX": some_names.map(lambda names: list(enumerate(names))),
    "PTR": some_names,
}


class Invented(Zone):
    "A zone that is made up as it is asked: each example holds what its check needs, and no more."

    def __init__(
        self,
        draw: Callable[[st.SearchStrategy[Any]], Any],  # of `st.data`
    ):
        super().__init__({})
        self.draw = draw
        self.answers: dict[tuple[str, str], Records | Unanswered] = {}

    def answer(self, lookup: Lookup) -> Records | Unanswered:
        "The same answer each time."
        if lookup.key not in self.answers:
            self.answers[lookup.key] = self.invent(*lookup.key)
        return self.answers[lookup.key]

    def invent(self, name: str, rdtype: str) -> Records | Unanswered:
        "A new answer."
        if name == ALIAS:
            if (name, "CNAME") not in self.records:
                self.records[name, "CNAME"] = [self.draw(st.sampled_from(NAMES))]
            target = self.records[name, "CNAME"][0]
            circle = Broken("a chain of CNAMEs without an end")
            return circle if target == ALIAS else self.answer(Lookup(target, rdtype))
        if name == NOWHERE:
            return Records(exists=False)
        strategy = explanations if rdtype == "TXT" and name.startswith("why.") else ANSWERS[rdtype]
        answer: list[Any] | Unanswered = self.draw(often(strategy, st.just(Broken("no answer")), 40))
        return answer if isinstance(answer, Unanswered) else Records(answer)


domains = often(st.sampled_from(DOMAINS), st.sampled_from(["A.Example", "localhost", "a..example", ""]), 20)
addresses = st.builds("{}@{}".format, st.sampled_from(LOCAL_PARTS), domains)
odd_senders = st.one_of(domains, domains.map("@{}".format), st.just(""), domains.map('"a@b"@{}'.format))
senders = often(addresses, odd_senders, 10)
helos = st.sampled_from([*NAMES, "[192.0.2.1]", "helo", "x@b.example"])
clients = st.sampled_from([*CLIENTS4, *CLIENTS6, "::ffff:192.0.2.1"])
