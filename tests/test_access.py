"""The plugin access in real sessions: second messages, exemptions taken back, files that change, hostile lines."""

from __future__ import annotations

import asyncio
import os
import re
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mailserver import DELIVER, ENVIRON, Home, Server

from ra_plugins.cli.install import install
from ra_plugins.hosts.guard import Guard
from ra_plugins.plugins.access import ACCESS_FIELDS, AccessMatch, access, check_access_rules, parse_access_rules
from ra_plugins.plugins.shared.listkeys import address_keys, client_keys
from ra_plugins.smtpd.trial import Trial
from ra_plugins.spp.command import AddHeader, Command, Next, Refuse
from ra_plugins.spp.session import sample_session
from ra_plugins.support import control as module
from ra_plugins.support.control import Control, ControlFiles

REFUSED = "550 sorry, your mail isn't wanted here (#5.7.1)"
LOGIN_FIRST = "550 You should be authenticated"


@pytest.fixture
def home(tmp_path: Path) -> Home:
    install(str(tmp_path / "plugins"), ["access", "msa", "rater", "userthrottle"])
    return Home(tmp_path / "qmail", tmp_path / "plugins")


def session(home: Home, *said: str) -> tuple[list[str], list[str]]:
    "What a client hears after EHLO, and what the plugins log."
    server = Server(home, "--deliver", DELIVER, environ=ENVIRON)
    heard = server.transcript("EHLO x", *said)
    logged = server.said()
    server.stop()
    after = next(place for place, line in enumerate(heard) if line.startswith("250 ") and "250-" not in line)
    return heard[after + 1 : -1], [line.partition(" - ")[2] for line in logged if line.startswith(("access", "msa"))]


def test_the_last_message_s_recipient_is_not_this_one_s(home: Home) -> None:
    "SMTPRCPTTO is stale at the second MAIL: a refused recipient mustn't cost the next message its sender."
    home.plugins("[mail]", "plugins/access", "[rcpt]", ":ACCESSSTAGE=rcpt exec plugins/access")
    home.write(access="refuse recipient list@example.org\n")
    to = "MAIL FROM:<ana@example.net>", "RCPT TO:<list@example.org>", "RSET"
    heard, _ = session(home, *to, "MAIL FROM:<ana@example.net>", "RCPT TO:<ben@example.org>", "RCPT TO:<list@example.org>")
    assert heard == ["250 ok", REFUSED, "250 flushed", "250 ok", "250 ok", REFUSED]


def test_without_knowing_the_section_rules_about_recipients_match_nobody(home: Home) -> None:
    home.plugins("[mail]", "plugins/access", "[rcpt]", "plugins/access")
    home.write(access="refuse recipient list@example.org\nrefuse sender eve@example.com\n")
    heard, logged = session(home, "MAIL FROM:<ana@example.net>", "RCPT TO:<list@example.org>", "MAIL FROM:<eve@example.com>")
    assert heard == ["250 ok", "250 ok", REFUSED]
    why = "rules about recipients need ACCESSSTAGE=rcpt below [rcpt], since access stands below [mail], too"
    assert logged[:2] == [why, why] and logged[3].startswith("refused by line 2 (sender eve@example.com): ")


def test_an_exemption_is_for_what_matched_and_no_longer(home: Home) -> None:
    home.plugins("[mail]", "plugins/access", "plugins/msa")
    home.write(access="exempt from msa sender ana@example.net\n")
    said = "MAIL FROM:<ana@example.net>", "RSET", "MAIL FROM:<eve@example.com>", "MAIL FROM:<ana@example.net>"
    heard, logged = session(home, *said)
    assert heard == ["250 ok", "250 flushed", LOGIN_FIRST, "250 ok"]
    exempt = "exempt from msa by line 1 (sender ana@example.net): client 127.0.0.1, sender ana@example.net"
    assert logged == [
        exempt, "No checks performed, because ACCESSEXEMPT exempts from them",
        "Message rejected (no auth).",
        exempt, "No checks performed, because ACCESSEXEMPT exempts from them",
    ]  # fmt: skip


@pytest.mark.parametrize("names", ["msa", "all"])
def test_an_exemption_by_recipient_ends_with_its_message(home: Home, names: str) -> None:
    "access stands at RCPT only, msa before it: nobody takes the exemption back before the next MAIL is judged."
    os.link(home.path / "plugins" / "msa", home.path / "plugins" / "login")  # whatever the file is called
    for entry in ("plugins/msa", "env X=1 plugins/msa", "plugins/login"):
        later = f':test -z "$FIRST" || exec {entry}'  # the first message passes
        home.plugins("[mail]", later, ":echo SFIRST=no", "[rcpt]", "plugins/access")
        home.write(access=f"exempt from {names} recipient ben@example.org\n")
        to_ben = "MAIL FROM:<ana@example.net>", "RCPT TO:<ben@example.org>"
        heard, logged = session(home, *to_ben, "RSET", "MAIL FROM:<ana@example.net>")
        assert heard == ["250 ok", "250 ok", "250 flushed", LOGIN_FIRST]
        heard, logged = session(home, *to_ben, "DATA", "x", ".", "MAIL FROM:<>", "MAIL FROM:<ana@example.net>")
        assert heard[-2:] == [LOGIN_FIRST] * 2 and not any("No checks" in line for line in logged)


def test_an_exemption_by_recipient_holds_for_what_stands_behind(home: Home) -> None:
    "userthrottle can stand at MAIL, too; here it doesn't."
    home.plugins("[mail]", "plugins/msa", "[rcpt]", "plugins/access", "plugins/userthrottle", "plugins/msa")
    home.write(access="exempt from userthrottle msa recipient ben@example.org\n")
    server = Server(home, environ={**ENVIRON, "RELAYCLIENT": ""})
    server.transcript("EHLO x", "MAIL FROM:<ana@example.net>", "RCPT TO:<ben@example.org>", "RCPT TO:<eva@example.org>")
    said = [re.sub(r"^session \d+: ", "", line) for line in server.log.lines()]
    logged = [line.partition(":")[0] + line.partition(" - ")[2] for line in said if " - " in line]
    server.stop()
    exempt = "No checks performed, because ACCESSEXEMPT exempts from them"
    assert logged.count(f"userthrottle{exempt}") == 1 and f"msa{exempt}" not in logged
    assert any("exempt from userthrottle msa, except msa, which runs before access, by line 1" in line for line in logged)


def test_what_stands_before_access_is_not_exempt_for_the_last_sender(home: Home) -> None:
    home.write(access="exempt from msa sender ana@example.net\n")
    first = ':test -z "$FIRST" || exec plugins/msa'
    home.plugins("[mail]", first, "plugins/access", ":echo SFIRST=no")
    heard, _ = session(home, "MAIL FROM:<ana@example.net>", "RSET", "MAIL FROM:<eve@example.com>")
    assert heard == ["250 ok", "250 flushed", LOGIN_FIRST]


def test_an_exemption_by_client_lasts_if_it_was_given_when_the_client_came(home: Home) -> None:
    home.plugins("[connection]", "plugins/access", "[mail]", "plugins/msa", "[rcpt]", "plugins/userthrottle")
    home.write(access="exempt from msa client 127.0.0.1\n")
    to_ben = "MAIL FROM:<ana@example.net>", "RCPT TO:<ben@example.org>"
    heard, _ = session(home, *to_ben, "RSET", *to_ben)
    assert heard == ["250 ok", "250 ok", "250 flushed", "250 ok", "250 ok"]


def test_rules_that_cannot_match_where_access_stands_are_told(home: Home) -> None:
    home.plugins("[connection]", "plugins/access")
    home.write(access="refuse sender eve@example.com\nrefuse helo x recipient @example.org\nrefuse client 192.0.2.7\n")
    heard, logged = session(home, "MAIL FROM:<eve@example.com>", "RCPT TO:<list@example.org>")
    places, envelope = "[helo], [mail], [rcpt], [data], [auth], [pass]", "[mail], [rcpt], [data], [pass]"
    assert heard == ["250 ok", "250 ok"]
    assert logged == [
        f"below [connection], line 1: sender eve@example.com never matches, since it is known at {envelope} only",
        f"below [connection], line 2: helo x never matches, since it is known at {places} only",
        "below [connection], line 2: recipient @example.org never matches, since it is known at [rcpt], [pass] only",
    ]


@pytest.mark.parametrize("sender", ["eve@example.com.", "Eve@EXAMPLE.com.", "eve@bücher.example", "eve@xn--bcher-kva.example."])
def test_a_domain_is_the_same_however_it_is_spelt(home: Home, sender: str) -> None:
    home.plugins("[rcpt]", "plugins/access")
    for rules in ("refuse sender @example.com\nrefuse sender @Bücher.example", "refuse sender in l"):
        home.write(access=rules, l="@example.com\n@xn--bcher-kva.example\n")
        heard, _ = session(home, f"MAIL FROM:<{sender}>", "RCPT TO:<ben@example.org>")
        assert heard == ["250 ok", REFUSED]


def test_entries_of_a_list_that_cannot_match_are_told_once_a_load(home: Home) -> None:
    home.write(access="refuse client in l\n", l="198.51.100.\n198.51.100.7/24\n")
    control, logged = Control(str(home.control)), list[str]()
    while not module._at_rest((home.control / "l").stat().st_ctime_ns, time.time_ns()):
        time.sleep(0.005)
    for _ in range(3):
        access(sample_session(), control, logged.append)
    assert logged == [
        "l, line 1: nothing matches 198.51.100.; it is neither an address nor a network",
        "l, line 2: nothing matches 198.51.100.7/24; it has bits behind its prefix; 198.51.100.0/24 is the network",
    ]


@pytest.mark.parametrize("rule", ["Refuse Sender In l Say Go Away", "REFUSE SENDER IN l SAY Go Away"])
def test_case_does_not_matter_for_any_word(home: Home, rule: str) -> None:
    home.plugins("[rcpt]", "plugins/access")
    home.write(access=f"{rule}\n", l="eve@example.com\n")
    heard, logged = session(home, "MAIL FROM:<eve@example.com>", "RCPT TO:<ben@example.org>")
    assert heard == ["250 ok", "550 Go Away (#5.7.1)"] and len(logged) == 1


def test_case_does_not_matter_for_plugins_of_ours(home: Home) -> None:
    home.plugins("[mail]", "plugins/access", "plugins/msa")
    for names in ("MSA", "All"):
        home.write(access=f"EXEMPT FROM {names} CLIENT 127.0.0.1\n")
        heard, _ = session(home, "MAIL FROM:<ana@example.net>")
        assert heard == ["250 ok"]


@pytest.mark.parametrize(
    ("rule", "fault"),
    [
        ("allow everybody say x", "everybody stands alone, and here is say beside it"),
        ("allow client 192.0.2.1 Everybody", "everybody stands alone, and here is client beside it"),
        ("refuse everybody SAY", "something is missing behind SAY"),
        ("allow user x SAY x", "SAY is no condition; there are client, name, helo, sender, recipient, user and everybody"),
        ("exempt from rblcheks everybody", "rblcheks is no plugin of ours; is rblchecks meant?"),
        ("exempt from greylist Graylist everybody", "Graylist is no plugin of ours; is greylist meant?"),
    ],
)
def test_the_word_that_is_wrong_is_named(rule: str, fault: str) -> None:
    logged: list[str] = []
    access(sample_session(), ControlFiles({"access": f"{rule}\n"}), logged.append)
    assert logged[0] == f"access, line 1: {fault}"


@pytest.mark.parametrize("name", ["rblchecks2", "my_greylist", "mda", "spamhook", "Rblchecks", "rater"])
def test_a_plugin_of_somebody_else_is_no_mistake(name: str) -> None:
    logged: list[str] = []
    answer = access(sample_session(), ControlFiles({"access": f"exempt from {name} everybody\n"}), logged.append)
    assert len(logged) == 1 and logged[0].startswith("exempt from ") and len(answer) == 1


@pytest.mark.parametrize(
    ("rules", "sender"),
    [
        ("exempt from msa sender ana@example.net\n", "ana@example.net"),
        ("exempt from all client 127.0.0.0/8\nrefuse everybody\n", "ana@example.net"),
        ("allow client 127.0.0.1\n", "ana@example.net"),
        ("refuse for now sender in gone\nrefuse sender @example.net say go away\n", "ana@example.net"),
        ("tag sender <> with X-Kind: bounce\n", ""),
        ("nonsense\nexempt from msa\n", "ana@example.net"),
    ],
)
def test_script_dry_run_and_server_agree(home: Home, rules: str, sender: str) -> None:
    home.plugins("[mail]", "plugins/access", "plugins/msa")
    home.write(access=rules)
    heard, logged = session(home, f"MAIL FROM:<{sender}>")
    trial = Trial(Control(str(home.control)), {"TCPREMOTEIP": "127.0.0.1"})
    asyncio.run(trial.hold("x", sender))
    step = trial.notes.steps[-1]
    assert heard == step.replies
    assert logged == [line.partition(" - ")[2] for run in step.runs for line in run.logged]


def test_a_message_has_its_header_field_once(home: Home) -> None:
    home.plugins("[mail]", "plugins/access", "[rcpt]", ":ACCESSSTAGE=rcpt exec plugins/access")
    home.write(access="tag sender @example.net with X-Kind: newsletter\n")
    message = "MAIL FROM:<ana@example.net>", "RCPT TO:<a@example.org>", "RCPT TO:<b@example.org>", "DATA", "Subject: x", "."
    for times in (1, 2):
        session(home, *message * times)
        assert home.message().count("X-Kind: newsletter\n") == 1


def test_before_mail_a_refusal_closes_the_connection(home: Home) -> None:
    for section in ("[connection]", "[helo]"):
        home.plugins(section, "plugins/access")
        home.write(access="refuse client 127.0.0.0/8\n")
        trial = Trial(Control(str(home.control)), {"TCPREMOTEIP": "127.0.0.1"})
        asyncio.run(trial.hold("x", "ana@example.net"))
        assert trial.notes.steps[-1].replies == ["554 sorry, your mail isn't wanted here (#5.7.1)"] and trial.checks.closed


class Counting(Control):
    "Notes which files are opened."

    opened = 0

    def _open(self, name: str) -> module.RegularFile | module.FileInMemory:
        self.opened += name == "access"
        return super()._open(name)


def test_the_file_is_taken_apart_once_and_a_change_counts_at_once(tmp_path: Path) -> None:
    path = tmp_path / "access"
    path.write_text("".join(f"allow sender joe{number}@example.net\n" for number in range(10_000)) + "refuse everybody\n")
    while not module._at_rest(path.stat().st_ctime_ns, time.time_ns()):
        time.sleep(0.005)
    control = Counting(str(tmp_path))

    def answer() -> list[Command]:
        return access(sample_session(mail_from="joe9999@example.net"), control, lambda message: None)

    assert [answer() for _ in range(5)] == [[Next()]] * 5
    assert control.opened == 1
    (tmp_path / "new").write_text("refuse sender @example.net say no\n")
    os.replace(tmp_path / "new", path)
    assert answer() == [Refuse(550, "5.7.1", "no")]


def test_ten_thousand_rules_are_not_gone_through() -> None:
    "As many as may match are looked at."
    clients = [f"198.51.{number // 250}.{number % 250}" for number in range(5_000)]
    lines = [f"refuse client {client}\nrefuse sender joe{number}@example.com" for number, client in enumerate(clients)]
    rules = parse_access_rules("\n".join([*lines, "refuse sender @.example.net", "allow recipient in friends"]))
    session = sample_session(client_ip="198.51.3.3", mail_from="joe7@mx.example.net")
    keys = {"client": client_keys(session.client_ip), "sender": address_keys(session.mail_from)}
    assert [rule.line for rule in rules.candidates(keys)] == [2 * 753 + 1, 10_001, 10_002]


words = st.sampled_from(
    ["allow", "refuse", "for", "now", "tag", "exempt", "from", "all", "say", "with", "in", "everybody", "X-A: b", "list",
     "192.0.2.0/24", "::/0", "@example.net", "<>", ".net", "#", "\t", "\r", "\x00", "\udce9", "A" * 2000, *ACCESS_FIELDS]
)  # fmt: skip
lines = st.lists(st.lists(words, max_size=7).map(" ".join) | st.text(max_size=40), max_size=6).map("\n".join)


names = st.sampled_from(
    ["mail_from", "rcpt_to", "helo", "client_host", "auth_user", "client_ip", "ACCESSTAGGED", "ACCESSEXEMPT", "ACCESSEXEMPTAT"]
)
long = st.sampled_from(["@" * 900, "." * 900, "a@" + "b." * 400])
texts = st.text(st.characters(exclude_characters="\0"), max_size=30) | long


@given(lines, st.dictionaries(names, texts))
def test_whatever_is_in_the_file_and_in_the_session(text: str, values: dict[str, str]) -> None:
    "Nothing is raised, every line that can't be read is named, and what can be written is answered."
    logged: list[str] = []
    session = sample_session(**values)
    session.log = logged.append
    files = ControlFiles({"access": text.encode("utf-8", "surrogatepass"), "list": "ana@example.net"})
    Guard(access, logged.append).decide(session, files)
    assert not any(line.startswith("failed") for line in logged)
    assert len(logged) < 40
    check_access_rules(text, "mail")


def test_a_faulty_line_is_named_and_the_rest_holds() -> None:
    text = "allow sender ana@example.net\nallow sender\n\n# \nfoo\nrefuse client 192.0.2.300\nrefuse sender @example.net\n"
    logged: list[str] = []
    files, senders = ControlFiles({"access": text}), ("ana@example.net", "b@example.net")
    answers = [access(sample_session(mail_from=sender), files, logged.append) for sender in senders]
    assert answers == [[Next()], [Refuse(550, "5.7.1", "sorry, your mail isn't wanted here")]]
    assert [line.partition(":")[0] for line in logged[:3]] == ["access, line 2", "access, line 5", "access, line 6"]


def test_the_first_match_is_the_first_line_however_it_is_kept() -> None:
    "AccessRules are kept apart by what they are about; the line decides."
    rules = [
        f"tag {whom} with X-A: {whom}"
        for whom in (
            "user ana",
            "recipient @example.org",
            "sender in list",
            "sender @example.net",
            "client 0.0.0.0/0",
            "helo .net",
            "everybody",
        )
    ]
    for shift in range(len(rules)):
        order = rules[shift:] + rules[:shift]
        control = ControlFiles({"access": "\n".join(order), "list": "ana@example.net"})
        answer = access(sample_session(auth_user="ana"), control, lambda message: None)
        assert answer[-1] == AddHeader(order[0].partition(" with ")[2])


def test_match_says_when_a_list_could_not_be_looked_at() -> None:
    rules = parse_access_rules("allow sender in gone\nrefuse everybody\n")
    match = AccessMatch(rules, {"sender": ["ana@example.net"]}, ControlFiles({}), lambda message: None)
    assert match.unsure and match.rule is not None and match.rule.line == 2
