"The plugin ownsender with users who log in, and what any sender may do to it."

from __future__ import annotations

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st
from mailserver import ENVIRON, Home, Server

from ra_plugins.cli.install import install
from ra_plugins.plugins.ownsender import is_own, ownsender
from ra_plugins.spp.command import write
from ra_plugins.spp.session import sample_session
from ra_plugins.support.control import ControlFiles

NOT_YOURS = "550 sorry, that isn't an address of yours (#5.7.1)"
NOT_HERE = "550 sorry, mail in the name of that domain comes from its own servers (#5.7.1)"


def test_users_and_strangers_on_a_server(tmp_path: Path) -> None:
    install(str(tmp_path / "plugins"), ["ownsender"])
    home = Home(tmp_path / "qmail", tmp_path / "plugins")
    home.plugins("[mail]", "plugins/ownsender")
    home.write(ownsenders="ben: sales@example.org\n")
    server = Server(home, "--like", "gentoo", "--users", home.users(ben="secret"), environ={**ENVIRON, "OWNSENDERSTRANGERS": "1"})
    try:
        strangers = server.talk("EHLO x", "MAIL FROM:<boss@example.org>", "MAIL FROM:<eva@example.net>", "MAIL FROM:<>")
        assert strangers[1:] == [NOT_HERE, "250 ok", "250 ok"]
        login = "AUTH PLAIN AGJlbgBzZWNyZXQ="  # ben, secret
        said = server.talk("EHLO x", login, *(f"MAIL FROM:<{name}@example.org>" for name in ("boss", "Ben", "ben+x", "SALES")))
        assert said[2:] == [NOT_YOURS, "250 ok", "250 ok", "250 ok"]
        logged = [line.partition(" - ")[2] for line in server.said() if line.startswith("ownsender")]
        assert logged == ["127.0.0.1 may not send as boss@example.org", "ben may not send as boss@example.org"]
    finally:
        server.stop()


def test_a_dot_behind_our_domain_and_u_labels_get_nobody_past(tmp_path: Path) -> None:
    install(str(tmp_path / "plugins"), ["ownsender"])
    home = Home(tmp_path / "qmail", tmp_path / "plugins")
    home.plugins("[mail]", "plugins/ownsender")
    home.write(rcpthosts="example.org\nxn--bcher-kva.example\n")
    server = Server(home, environ={**ENVIRON, "OWNSENDERSTRANGERS": "1"})
    try:
        spelt = ("boss@example.org.", "boss@EXAMPLE.ORG.", "boss@bücher.example", "boss@BÜCHER.example.")
        heard = server.transcript("EHLO x", *(f"MAIL FROM:<{sender}>" for sender in spelt), "MAIL FROM:<eva@example.net.>")
        assert heard[-6:-1] == [NOT_HERE] * 4 + ["250 ok"]
    finally:
        server.stop()


def test_what_stands_before_our_domain_gets_nobody_past(tmp_path: Path) -> None:
    "A quoted @, and what no address can have: it is the domain that is ours."
    install(str(tmp_path / "plugins"), ["ownsender"])
    home = Home(tmp_path / "qmail", tmp_path / "plugins")
    home.plugins("[mail]", "plugins/ownsender")
    server = Server(home, environ={**ENVIRON, "OWNSENDERSTRANGERS": "1"})
    try:
        spelt = ('"a@boss"@example.org', "a@boss@example.org", "boss\t@example.org", "\tboss@example.org.")
        heard = server.transcript("EHLO x", *(f"MAIL FROM:<{sender}>" for sender in spelt), "MAIL FROM:<a@boss@example.net>")
        logged = [line for line in server.log.lines() if "may not send as" in line]
    finally:
        server.stop()
    assert heard[-6:-1] == [NOT_HERE] * 4 + ["250 ok"] and len(logged) == 4


def test_a_name_without_a_domain_is_not_at_home_in_all_of_ours() -> None:
    files = ControlFiles({"rcpthosts": "example.org\nexample.com\n"})
    for sender, passes in (("ben@example.com", True), ("boss@example.com", False), ("boss@example.org", False)):
        session = sample_session(auth_user="ben", mail_from=sender, OWNSENDER="domain")
        assert (ownsender(session, files, lambda message: None) == []) is passes, sender


SIGNS = 'ben@.+"\\ \t\n\r\x7f#:,*<>[]é\udcff'
pieces = st.lists(st.sampled_from([*SIGNS, "example.org", "@example.org", "ben@example.org"]), max_size=9)
odd = pieces.map("".join) | st.text(st.characters(exclude_characters="\0"), max_size=30)
CONTROL = ControlFiles({"rcpthosts": "example.org\n", "ownsenders": "ana@example.org: any@example.net\n"})


@given(odd, st.sampled_from(["address", "domain"]))
def test_no_sender_passes_for_ben_that_is_not_in_his_domain(sender: str, own: str) -> None:
    "Whatever else it does: one reply, one line of the log, and nobody else's address."
    logged: list[str] = []
    session = sample_session(auth_user="ben@example.org", mail_from=sender, OWNSENDER=own)
    reply = write(ownsender(session, CONTROL, logged.append))
    ours = sender.lower().rstrip(".").endswith("@example.org")
    passes = sender == "" or ours and (own == "domain" or sender.lower().startswith("ben"))
    assert reply in (b"", f"E{NOT_YOURS}\n".encode()) and len(logged) == bool(reply)
    assert passes or reply


@given(odd, odd)
def test_what_is_own_is_so_in_any_case(user: str, sender: str) -> None:
    def ours(domain: str) -> bool:
        return domain == "example.org"

    assert is_own(user, user, ours)
    assert is_own(user, sender, ours, "domain", "+") or not is_own(user, sender, ours, "address", "+")
