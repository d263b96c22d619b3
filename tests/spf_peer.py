"""pyspf beside RaSPF: the same check over the same zone, by pyspf as it is and with faults of its own mended.

Where the two disagree, pyspf is asked again with its known departures from RFC 7208 mended. Those that it takes to make
it agree are the reason for the disagreement; so a reason is shown to be one, and not only claimed.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache
from typing import Any, NamedTuple

import spf

from ra_plugins.ask.dns import Lookup, Zone
from ra_plugins.ask.question import Unanswered


class Answer(NamedTuple):
    "What pyspf says of a sender."

    result: str
    explanation: str  # of a fail
    problem: str  # behind an error


class Resolver:
    "Answers pyspf's lookups from a zone, in the shapes in which it has them from dnspython."

    def __init__(
        self,
        zone: Zone,
        links: bool,  # hand out the links of a chain of CNAMEs without an end, and not an error?
    ):
        self.zone, self.links = zone, links

    def __call__(self, name: str, rdtype: str, strict: Any = True, timeout: Any = None) -> list[tuple[Any, Any]]:
        name = name.removesuffix(".")
        answer: Any = self.zone.answer(Lookup(name, rdtype)) if rdtype != "SPF" else ()
        if isinstance(answer, Unanswered):
            alias = self.zone.records.get((name.lower(), "CNAME"))
            if alias and self.links:
                return [((name, "CNAME"), alias[0])]
            raise spf.TempError(str(answer))
        values = [(text.encode("utf-8", "surrogateescape"),) for text in answer] if rdtype == "TXT" else answer
        return [((name, rdtype), value) for value in values]


def ask(
    zone: Zone,
    ip: str,
    sender: str,
    helo: str,
    kind: type[Any] = spf.query,  # or one with faults mended
    **more: Any,  # arguments of `spf.query`
) -> Answer:
    "The answer of pyspf. An explanation is DEFAULT where the domain has none."
    query = kind(i=ip, s=sender, h=helo, **more)
    spf.DNSLookup = Resolver(zone, links=not isinstance(query, Aliases))
    query.set_default_explanation("DEFAULT")
    result, _, explanation = query.check()
    if result != "fail":
        return Answer(result, "", query.prob if result in ("permerror", "temperror") else "")
    return Answer(result, explanation.value("DEFAULT") if isinstance(explanation, Later) else explanation, "")


# What pyspf does otherwise than RFC 7208 says: each with the section, and mended.


class Domains(spf.query):
    "4.3: a domain has several labels, no [, @ or blank, may end in a dot, is asked by its A-labels; else it has no policy."

    o: str
    d: str

    def __init__(self, *arguments: Any, **options: Any):
        super().__init__(*arguments, **options)
        domain = self.o.removesuffix(".")
        self.o = self.d = domain if domain.isascii() else domain.encode("idna").decode()

    def check(self, *arguments: Any) -> Any:
        is_domain = "." in self.d and set("[@ ").isdisjoint(self.d)
        return super().check(*arguments) if is_domain else ("none", 250, "")


class LocalPart(spf.query):
    "4.3: a sender without a local part has postmaster's, in %{s} too; the domain is what stands behind the last @."

    s: str

    def __init__(self, *arguments: Any, **options: Any):
        super().__init__(*arguments, **options)
        if self.ident == "mailfrom":
            local, _, self.o = self.s.rpartition("@")
            self.l, self.d = local or "postmaster", self.o
            self.s = f"{self.l}@{self.o}"


class Aliases(spf.query):
    "4.4: aliases that lead in circles are a failure of DNS, so a temperror; pyspf takes them for no answer."


class Modifiers(spf.query):
    "6: an unknown modifier is ignored, however often it is there; names have no case; pyspf differs in both."

    def dns_spf(self, domain: str) -> Any:
        terms = (super().dns_spf(domain) or "").split(" ")
        for number, term in enumerate(terms):
            name, equals, value = term.partition("=")
            if equals and name.lower() in ("redirect", "exp"):
                terms[number] = name.lower() + equals + value
            elif equals and number and re.fullmatch(r"[a-z][a-z0-9_.-]*", name, re.IGNORECASE | re.ASCII):
                terms[number] = f"unknown{number}={value}"
        return " ".join(terms)


class Grammar(spf.query):
    "5.2, 5.7: include and exists name a domain; pyspf lets them do without where they have a qualifier."

    def validate_mechanism(self, mech: str) -> Any:
        if mech.lstrip("+-~?").lower() in ("include", "exists"):
            raise spf.PermError("Unknown mechanism found", mech)
        return super().validate_mechanism(mech)


class Recursion(spf.query):
    "4.6.4: that a domain includes itself is found out by counting, when it happens; pyspf looks at the text."

    def expand_domain(self, arg: str) -> Any:
        domain = super().expand_domain(arg)
        return domain.swapcase() if domain == self.d else domain  # the same name, but it looks different


class Names(spf.query):
    "5.5: a name that DNS doesn't answer for isn't validated, and that is all; pyspf gives temperror."

    def validated_ptrs(self) -> list[str]:
        return [name for name in self._asked(self.dns_ptr, self.i)[: spf.MAX_PTR] if self._leads_back(name)]

    def _leads_back(self, name: str) -> Any:
        return self.cidrmatch(self._asked(self.dns_a, name, self.A), self.cidrmax)

    def _asked(self, dns: Callable[..., Any], *question: str) -> list[Any]:
        try:
            return list(dns(*question))
        except spf.TempError:
            return []


class Chosen(spf.query):
    "7.3: %{p} is a name below the domain whose record it stands in; pyspf keeps that of the first."

    d: str

    def getp(self) -> Any:
        before, self.d, self.p = self.d, self.d.lower(), None
        try:
            return super().getp().lower()
        finally:
            self.d = before


class MailHosts(spf.query):
    "5.4: the hosts of an mx are asked until one matches; pyspf asks all, and what goes wrong there counts."

    def dns_mx(self, domain: str) -> Iterator[str]:
        hosts = self.dns(domain, "MX")
        if len(hosts) > spf.MAX_MX:
            raise spf.PermError("More than 10 MX records returned")
        return (address for _, host in sorted(hosts) for address in self.dns_a(host, self.A))

    def cidrmatch(self, addresses: Iterable[str], length: int) -> bool:
        return any(super(MailHosts, self).cidrmatch([address], length) for address in addresses)


class Order(spf.query):
    "4.6.2, 6.1: terms are evaluated in order; pyspf asks for %{p} and counts a redirect before all of them."

    level: int | None = None  # of includes

    def expand_domain(self, arg: str) -> Any:
        domain = super().expand_domain(re.sub("%{p", "%{o", arg, flags=re.IGNORECASE))
        return Later(arg, self) if "%{p" in arg.lower() else domain

    def get_explanation(self, spec: str) -> Any:
        texts = self.dns_txt(spec, ignore_void=True)
        if len(texts) == 1 and b"%{p" in texts[0].lower():
            return Later(texts[0].decode("ascii"), self)
        return super().get_explanation(spec)

    def dns_spf(self, domain: str) -> Any:
        return super().dns_spf(domain.value() if isinstance(domain, Later) else domain)

    def dns(self, name: str, *arguments: Any, **options: Any) -> Any:
        return super().dns(name.value() if isinstance(name, Later) else name, *arguments, **options)

    def check1(self, text: Any, domain: str, level: int) -> Any:
        if level == self.level:  # so it is a redirect: an include is one deeper
            self.check_lookups()
        return super().check1(text, domain.value() if isinstance(domain, Later) else domain, level)

    def check0(self, text: Any, level: int) -> Any:
        before, self.level = self.level, level
        self.lookups -= any(term.lower().startswith("redirect=") for term in (text or "").split(" "))
        try:
            return super().check0(text, level)
        finally:
            self.level = before


class Later(str):
    "A domain or an explanation with %{p} in it, which isn't asked for before it is needed."

    query: Any
    domain: str
    known: str

    def __new__(cls, text: str, query: Any) -> Later:
        later = super().__new__(cls, text)
        later.query, later.domain, later.known = query, query.d, ""
        return later

    def value(
        self,
        default: str | None = None,  # of an explanation
    ) -> str:
        query, is_domain = self.query, default is None
        before, query.d = query.d, self.domain
        if not is_domain:
            self._settle_name()
        try:
            self.known = self.known or str(query.expand(str(self), stripdot=is_domain))
        except spf.PermError:
            if default is None:
                raise
            self.known = default
        finally:
            query.d = before
        return self.known

    def _settle_name(self) -> None:
        "In an explanation, a name that DNS or a limit of lookups keeps from us is unknown (7.3), and nothing else is wrong."
        try:
            self.query.getp()
        except (spf.PermError, spf.TempError):
            self.query.p, self.query.getp = "unknown", lambda: "unknown"  # pyspf reads `p`

    def lower(self) -> str:  # which pyspf does with a domain that it compares
        return self.value().lower()


class Macros(spf.query):
    "7.1: a macro string is what the grammar says, in letters of any case; pyspf's patterns say something else."

    def expand(self, text: str, stripdot: bool = True) -> Any:
        if text == self.d:
            return text  # of a term that names no domain, and pyspf expands it once more
        if "%" in re.sub(r"(?i:%\{[slodiphcrtv](?!0+\D)\d*r?[-.+,/_=]*\}|%[%_-])", "", text):
            raise spf.PermError("Invalid macro", text)
        text = re.sub(r"(?i:(%\{[a-z]\d*)r)", r"\1r", text)
        before, spf.RE_INVALID_MACRO = spf.RE_INVALID_MACRO, re.compile(r"(?!)")
        try:
            return super().expand(text, stripdot)
        finally:
            spf.RE_INVALID_MACRO = before


class Length(spf.query):
    "7.3: a name that is too long loses as many labels as it takes; pyspf removes one."

    def expand(self, text: str, stripdot: bool = True) -> Any:
        expanded = super().expand(text, stripdot)
        while stripdot and len(expanded) > 253 and "." in expanded:
            expanded = expanded.partition(".")[2]
        return expanded


class Joining(spf.query):
    "7.3: parts are joined with dots, whatever they were split at; pyspf keeps the delimiters of most letters."

    def expand(self, *arguments: Any, **options: Any) -> Any:
        before, spf.JOINERS = spf.JOINERS, dict.fromkeys("slodiphvcrt", ".")
        try:
            return super().expand(*arguments, **options)
        finally:
            spf.JOINERS = before


Fault = type[Any]
FAULTS: tuple[Fault, ...] = (
    Domains,
    LocalPart,
    Aliases,
    Modifiers,
    Grammar,
    Recursion,
    Names,
    Chosen,
    MailHosts,
    Order,
    Macros,
    Length,
    Joining,
)


@lru_cache
def mended(faults: tuple[Fault, ...]) -> type[Any]:
    "pyspf without these faults."
    return type("Mended", faults or (spf.query,), {})


def departures(
    agrees: Callable[[type[Any]], bool],  # does pyspf, with such a query, say what we do?
) -> tuple[Fault, ...] | None:  # none of them if it agrees anyway, and None where they don't explain it
    "The faults that have to be mended so that pyspf agrees: no more than it takes."
    for few in ((), *((fault,) for fault in FAULTS)):
        if agrees(mended(few)):
            return few
    if not agrees(mended(FAULTS)):
        return None
    faults = FAULTS
    for fault in FAULTS:
        fewer = tuple(each for each in faults if each is not fault)
        if agrees(mended(fewer)):
            faults = fewer
    return faults
