"""Our plugins as real processes behind a real server: what the client sees, what the log says, what becomes of the mail."""

from __future__ import annotations

import re
import signal
import socket
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from cdb_files import cdb
from mailserver import DELIVER, Client, Home, Server, gone, until

from ra_plugins.hosts.catalogue import catalogue

Serve = Callable[..., Server]

MAIL, ANA, BEN = "MAIL FROM:<eva@example.net>", "RCPT TO:<ana@example.org>", "RCPT TO:<ben@example.org>"
MESSAGE = "Subject: Tea\n\nAt four?\n"
NO_MAILBOX = "511 sorry, no mailbox here by that name"
TOO_MANY = "571 sorry, reached maximum number of recipients for one session"
POLICY = "571 sorry, you are violating our security policies"


def log(name: str, *messages: str) -> list[str]:
    "The log lines of a plugin."
    return [f"{name}: pid PID - {message}" for message in messages]


def accepted(address: str, number: int, limit: int = 10000) -> str:
    "What a recipient check logs of a recipient that passes."
    return f"Accepted recipient ({address} number {number} of {limit} )"


# Each plugin


def test_authlogger(home: Home, serve: Serve) -> None:
    home.plugins("[auth]", "plugins/authlogger")
    server = serve("--like", "gentoo", "--users", home.users(ana="secret", ben="hidden"))
    with server.client() as client:
        client.ehlo()
        assert client.esmtp_features["auth"].split() == ["LOGIN", "PLAIN"]
        assert client.say("AUTH PLAIN AGFuYQB3cm9uZw==")[:3] == "535"  # NUL ana NUL wrong
        assert server.said() == log("smtpd", "log-in of ana by plain failed")
        assert client.login("ana", "secret")[0] == 235
    assert server.said() == log("authlogger", "authenticated as ana by plain from 127.0.0.1")
    with server.client() as client:
        client.ehlo()
        client.user, client.password = "ben", "hidden"
        assert client.auth("LOGIN", client.auth_login)[0] == 235
    assert server.said() == log("authlogger", "authenticated as ben by login from 127.0.0.1")


def test_authlogger_names_on_one_line(home: Home, serve: Serve) -> None:
    home.plugins("[auth]", "plugins/authlogger")
    name = "a\x1b[2Jna"
    users = home.path / "users"
    users.write_bytes(f"{name}:secret\n".encode())
    server = serve("--like", "gentoo", "--users", str(users))
    with server.client() as client:
        client.ehlo()
        assert client.login(name, "secret")[0] == 235
    assert server.said() == log("authlogger", r"authenticated as a\x1b[2Jna by plain from 127.0.0.1")


@pytest.mark.parametrize(
    "code, reply", [("550", "550 You should be authenticated"), ("530", "530 5.7.0 Authentication required")]
)
def test_msa(home: Home, serve: Serve, code: str, reply: str) -> None:
    home.plugins("[mail]", "plugins/msa")
    server = serve("--like", "gentoo", "--users", home.users(ana="secret"), "--set", f"MSACODE={code}")
    with server.client() as client:
        assert client.say(MAIL) == reply
        assert server.said() == log("msa", "Message rejected (no auth).")
        assert client.say(BEN) == "503 MAIL first (#5.5.1)"
        client.login("ana", "secret")
        assert [client.say(MAIL), client.say(BEN)] == ["250 ok", "250 ok"]
    assert server.said() == []


def test_overload_between_commands(home: Home, serve: Serve) -> None:
    home.plugins("[mail]", "plugins/overload")
    flag = home.control / "overloaded"
    server = serve("--like", "gentoo", "--users", home.users(ana="secret"))
    patient, late, ours = server.client(), server.client(), server.client()
    assert patient.say(MAIL) == "250 ok"
    flag.touch()
    assert patient.say(BEN) == "250 ok"  # only MAIL is judged
    wire = server.wire()
    wire.reply()
    wire.send(b"MAIL FROM:<>\r\n")
    assert wire.rest() == b"451 Temporary Failure: Server overload\r\n"  # and hung up
    assert server.said() == log("overload", "Temporary Failure: Server overload")
    ours.login("ana", "secret")
    assert ours.say(MAIL) == "250 ok"
    flag.unlink()
    assert late.say(MAIL) == "250 ok"
    assert server.said() == []
    for client in (patient, late, ours):
        client.close()
    wire.close()


def test_dotblind(home: Home, serve: Serve) -> None:
    home.plugins("[rcpt]", "plugins/dotblind", ':echo "P$SMTPRCPTTO"')
    server = serve()
    replies = {
        "V.A.Pier@example.org": ["VAPier@example.org", "250 ok"],
        "...@example.org": ["...@example.org", "250 ok"],
        "a.b@example.com": ["a.b@example.com", "553 sorry, that domain isn't in my list of allowed rcpthosts (#5.7.1)"],
        "postmaster": ["postmaster", "250 ok"],
    }
    for address, reply in replies.items():
        assert server.transcript(MAIL, f"RCPT TO:<{address}>")[2:-1] == reply
    assert server.said() == log("dotblind", "changed V.A.Pier@example.org to VAPier@example.org")
    assert server.transcript(MAIL, "RCPT TO:<a@b@example.org>")[2:-1] == ["a@b@example.org", "250 ok"]
    assert server.said() == log("dotblind", "error: no valid SMTPRCPTTO")


def test_plusaliases(home: Home, serve: Serve) -> None:
    home.plugins("[rcpt]", "plugins/plusaliases", ':echo "P$SMTPRCPTTO"')
    server = serve("--set", "PLUSALIASESCHARS=+-")
    said = [f"RCPT TO:<{local}@example.org>" for local in ("ana+a-b", "ana-a+b", "+a", "ana")]
    changed = [line.partition("@")[0] for line in server.transcript(MAIL, *said) if "@" in line]
    assert changed == ["ana", "ana", "+a", "ana"]
    assert server.said() == log(
        "plusaliases",
        "changed ana+a-b@example.org to ana@example.org",
        "changed ana-a+b@example.org to ana@example.org",
    )


@pytest.mark.parametrize(
    "order, changes",
    [
        (("plusaliases", "dotblind"), ["a.b@example.org", "ab@example.org"]),
        (("dotblind", "plusaliases"), ["abc@example.org"]),  # nothing is left for plusaliases to cut
    ],
)
def test_order_of_rewriting(home: Home, serve: Serve, order: tuple[str, ...], changes: list[str]) -> None:
    "Where both plugins change the same character, the one that comes first decides."
    home.plugins("[rcpt]", *(f"plugins/{name}" for name in order), "plugins/rcptchecksfile")
    home.write(addresslist="ab@example.org\nabc@example.org\n")
    server = serve("--deliver", DELIVER, "--set", "DOTBLINDSTRIP=.+")
    with server.client() as client:
        client.sendmail("eva@example.net", ["a.b+c@example.org"], MESSAGE)
    result = changes[-1]
    steps = zip(order, ["a.b+c@example.org", *changes], changes, strict=False)
    assert server.said() == [
        *(line for name, before, after in steps for line in log(name, f"changed {before} to {after}")),
        *log("rcptchecksfile", accepted(result, 0)),
    ]
    assert home.delivered("SENDER", "RECIPIENTS", "SMTPRCPTTO") == ["eva@example.net", result, result]


def test_localmail(home: Home, serve: Serve) -> None:
    home.plugins("[rcpt]", "plugins/localmail")
    home.write(localonly="# trainees\r\nAna\r\n")
    server = serve("--like", "gentoo", "--users", home.users(ana="secret", ben="hidden"), "--deliver", DELIVER)
    eve = "RCPT TO:<eve@example.com>"
    with server.client() as client:
        client.login("ana", "secret")
        assert [client.say(line) for line in (MAIL, eve, BEN)] == [
            "250 ok",
            "550 You are only allowed to send to local addresses.",
            "250 ok",
        ]
        assert server.said() == log("localmail", "blocked from ana to eve@example.com")
        assert client.say_message(MESSAGE) == "250 ok"
    assert home.delivered("RECIPIENTS", "SMTPAUTHUSER") == ["ben@example.org", "ana"]
    with server.client() as client:
        client.login("ben", "hidden")
        assert [client.say(MAIL), client.say(eve)] == ["250 ok", "250 ok"]
    assert server.said() == []
    (home.control / "localonly").unlink()
    with server.client() as client:
        client.login("ana", "secret")
        assert [client.say(MAIL), client.say(eve)] == ["250 ok", "250 ok"]
    assert server.said() == []


def test_rcptchecksfile_and_rcptcheckscdb(home: Home, serve: Serve) -> None:
    home.write(addresslist="Ana@Example.org\r\n@example.net\n", rcpthosts="example.org\nexample.net\n")
    home.write(**{"addresslist.cdb": cdb("ana@example.org", "@example.net")})
    for name, listed in (("rcptchecksfile", "addresslist"), ("rcptcheckscdb", "addresslist.cdb")):
        home.plugins("[rcpt]", f"plugins/{name}")
        server = serve("--set", f"CHKUSER_ADDRFILE={listed}")
        recipients = ["ANA@example.org", "x@example.net", "postmaster", "anna@example.org", "a@b@example.org", ""]
        assert server.talk(MAIL, *(f"RCPT TO:<{address}>" for address in recipients)) == [
            *["250 ok"] * 4,
            f"{NO_MAILBOX} (#5.1.1 - {name})",
            *[f"511 Invalid address (#5.1.1 - {name})"] * 2,
        ]
        assert server.said() == log(
            name,
            accepted("ana@example.org", 0),
            accepted("x@example.net", 1),
            accepted("postmaster", 2),
            f"{NO_MAILBOX} (anna@example.org)",
            "511 Invalid address (a@b@example.org)",
            "511 Invalid address ()",
        )


def test_senderchecksfile(home: Home, serve: Serve) -> None:
    home.plugins("[mail]", "plugins/senderchecksfile")
    home.write(addresslist="ana@example.org\n", unchecked="lists.example.org\n")
    home.write(rcpthosts="example.org\n.example.org\n")
    server = serve("--set", "SENDERCHK_WLFILE=unchecked")
    senders = "Ana@example.org x@lists.example.org eva@example.net payroll@example.org x@www.example.org root"
    assert server.talk(*(f"MAIL FROM:<{sender}>" for sender in ("", *senders.split()))) == [
        *["250 ok"] * 4,
        *[f"{NO_MAILBOX} (#5.1.1 - senderchecksfile)"] * 2,
        "501 Invalid address",
    ]
    assert server.said() == log(
        "senderchecksfile",
        "Accepted empty sender",
        "Accepted sender (Ana@example.org)",
        "Whitelisted sender (x@lists.example.org)",
        "Accepted sender (eva@example.net)",
        f"{NO_MAILBOX} (payroll@example.org)",
        f"{NO_MAILBOX} (x@www.example.org)",
        "501 Invalid address (root)",
    )


def test_tarpit_replies_after_the_delay(home: Home, serve: Serve) -> None:
    home.plugins("[rcpt]", "plugins/tarpit")
    server = serve("--set", "TARPITCOUNT=2", "--set", "TARPITDELAY=1")
    wire = server.wire()
    assert [wire.reply(), wire.say(MAIL.encode()), wire.say(ANA.encode())][1:] == [b"250 ok\r\n"] * 2
    assert server.said() == []
    wire.send(f"{BEN}\r\n{ANA}\r\n".encode())
    server.log.wait_for("tarpit: pid [0-9]+ - started tarpitting\n")
    assert [wire.reply(), wire.reply()] == [b"250 ok\r\n"] * 2
    assert server.said() == log("tarpit", "started tarpitting")  # once a message
    wire.close()


def test_tarpit_waits_as_sleep_and_ends_with_the_client(home: Home, serve: Serve) -> None:
    home.plugins("[rcpt]", "plugins/tarpit")
    server = serve("--set", "TARPITCOUNT=1", "--set", "TARPITDELAY=240")
    open_before = len(server.descriptors())
    wire = server.wire()
    assert [wire.reply(), wire.say(MAIL.encode())][1] == b"250 ok\r\n"
    wire.send(f"{ANA}\r\n".encode())
    server.log.wait_for("started tarpitting\n")
    (waiting,) = server.children()
    until(lambda: Path(f"/proc/{waiting}/comm").read_text() == "sleep\n", "the process becomes sleep")
    assert wire.silent()
    assert server.talk(MAIL) == ["250 ok"]  # others are served meanwhile
    wire.close(abruptly=True)
    gone(waiting)
    server.settled(open_before)
    assert server.said() == log("tarpit", "started tarpitting")


def test_every_plugin_has_a_test() -> None:
    "Behind a server, over sockets: in this file or in another one, where its name stands."
    texts = "\n".join(path.read_text(encoding="utf-8") for path in Path(__file__).parent.glob("test_*.py"))
    assert [name for name in catalogue() if not re.search(rf"\b{name}\b", texts)] == []


# Several plugins, several messages


def test_limits_over_several_messages(home: Home, serve: Serve) -> None:
    "At most three recipients, and two wrong ones: each message by itself, whatever ended the one before."
    home.plugins("[rcpt]", "plugins/plusaliases", "plugins/rcptchecksfile")
    home.write(addresslist="".join(f"{name}@example.org\n" for name in ("ana", "ben", "eva", "max")))
    server = serve("--deliver", DELIVER, "--set", "CHKUSER_RCPTLIMIT=3", "--set", "CHKUSER_WRONGRCPTLIMIT=2")

    def name_more(client: Client, *names: str) -> list[str]:
        "Name recipients, and tell what was replied to each."
        return [client.say(f"RCPT TO:<{each}@example.org>") for each in names]

    def name(client: Client, *names: str) -> list[str]:
        "Begin a message with these recipients."
        assert client.say(MAIL) == "250 ok"
        return name_more(client, *names)

    def lines(*expected: tuple[str, str, int]) -> list[str]:
        "What should stand in the log: for each recipient the kind of line, the name and a number."
        forms = {
            "ok": lambda address, number: accepted(address, number, 3),
            "wrong": lambda address, number: f"{NO_MAILBOX} ({address})",
            "policy": lambda address, number: f"{POLICY} ({number} of 2 - {address})",
            "many": lambda address, number: f"{TOO_MANY} ({number} of 3 - {address})",
        }
        return log("rcptchecksfile", *(forms[kind](f"{name}@example.org", number) for kind, name, number in expected))

    ok, wrong = "250 ok", f"{NO_MAILBOX} (#5.1.1 - rcptchecksfile)"
    policy, many = f"{POLICY} (#5.7.1 - rcptchecksfile)", f"{TOO_MANY} (#5.7.1 - rcptchecksfile)"
    with server.client() as client:
        # the wrong limit, then the other
        assert name(client, "anna", "bob", "carl", "ana+tea") == [wrong, wrong, policy, ok]
        assert server.said() == [
            *lines(("wrong", "anna", 1), ("wrong", "bob", 2), ("policy", "carl", 3)),
            *log("plusaliases", "changed ana+tea@example.org to ana@example.org"),
            *lines(("ok", "ana", 0)),
        ]
        assert name_more(client, "ben", "dora", "eva", "max") == [ok, policy, ok, many]
        assert server.said() == lines(("ok", "ben", 1), ("policy", "dora", 4), ("ok", "eva", 2), ("many", "max", 3))
        assert client.say_message(MESSAGE) == "250 ok"
        assert home.delivered("RECIPIENTS") == ["ana@example.org\nben@example.org\neva@example.org"]
        # a message was taken: both counts begin anew
        assert name(client, "bob", "ana") == [wrong, ok]
        assert server.said() == lines(("wrong", "bob", 1), ("ok", "ana", 0))
        # RSET
        assert client.say("RSET") == "250 flushed"
        assert name(client, "ana", "bob", "bob", "bob") == [ok, wrong, wrong, policy]
        assert server.said() == lines(("ok", "ana", 0), ("wrong", "bob", 1), ("wrong", "bob", 2), ("policy", "bob", 3))
        # a second MAIL
        assert name(client, "ben", "eva", "max", "ana") == [ok, ok, ok, many]
        assert server.said() == lines(("ok", "ben", 0), ("ok", "eva", 1), ("ok", "max", 2), ("many", "ana", 3))
        assert client.say_message(MESSAGE) == "250 ok"
    assert home.delivered("RECIPIENTS") == ["ben@example.org\neva@example.org\nmax@example.org"]


def test_submission(home: Home, serve: Serve) -> None:
    "authlogger, msa and localmail together, as on the submission port."
    home.plugins(
        "[auth]", "plugins/authlogger", "[mail]", "plugins/msa", "[rcpt]", "plugins/localmail", "plugins/plusaliases"
    )
    home.write(localonly="ana\n")
    server = serve("--like", "gentoo", "--users", home.users(ana="secret", ben="hidden"), "--deliver", DELIVER)
    assert server.talk(MAIL, ANA) == ["550 You should be authenticated", "503 MAIL first (#5.5.1)"]
    assert server.said() == log("msa", "Message rejected (no auth).")
    recipients = ["max+shop@example.org", "eve@example.com"]
    with server.client() as client:
        client.login("ana", "secret")
        assert set(client.sendmail("ana@example.org", recipients, MESSAGE)) == {"eve@example.com"}
    assert home.delivered("SENDER", "RECIPIENTS", "TCPREMOTEINFO") == ["ana@example.org", "max@example.org", "ana"]
    assert server.said() == [
        *log("authlogger", "authenticated as ana by plain from 127.0.0.1"),
        *log("plusaliases", "changed max+shop@example.org to max@example.org"),
        *log("localmail", "blocked from ana to eve@example.com"),
    ]
    with server.client() as client:
        client.login("ben", "hidden")
        assert client.sendmail("ben@example.org", recipients, MESSAGE) == {}
    assert home.delivered("RECIPIENTS", "RELAYCLIENT") == ["max@example.org\neve@example.com", ""]
    assert server.said() == [
        *log("authlogger", "authenticated as ben by plain from 127.0.0.1"),
        *log("plusaliases", "changed max+shop@example.org to max@example.org"),
    ]


def test_all_at_once(home: Home, serve: Serve) -> None:
    "A server with nearly everything: a good message passes, and each plugin has its say in order."
    at_rcpt = [f"plugins/{name}" for name in ("tarpit", "plusaliases", "dotblind", "localmail", "rcptchecksfile")]
    home.plugins("[mail]", "plugins/overload", "plugins/senderchecksfile", "[rcpt]", *at_rcpt)
    home.write(addresslist="annalee@example.org\n")
    server = serve("--deliver", DELIVER)
    with server.client() as client:
        assert client.sendmail("eva@example.net", ["Ann.Alee+tea@example.org"], MESSAGE, ["SIZE=99"]) == {}
    assert server.said() == [
        *log("senderchecksfile", "Accepted sender (eva@example.net)"),
        *log("plusaliases", "changed Ann.Alee+tea@example.org to Ann.Alee@example.org"),
        *log("dotblind", "changed Ann.Alee@example.org to AnnAlee@example.org"),
        *log("rcptchecksfile", accepted("annalee@example.org", 0)),
    ]
    assert home.delivered("RECIPIENTS") == ["AnnAlee@example.org"]
    received, *rest = home.message().splitlines()
    assert received == "Received: from unknown (HELO mail.example.net) (127.0.0.1)"
    assert rest.pop(0).startswith("  by mail.example.org with SMTP; ")
    assert rest == ["Subject: Tea", "", "At four?"]


def test_control_files_are_read_anew(home: Home, serve: Serve) -> None:
    "A list that changes, and one that has gone, between two commands."
    home.plugins("[rcpt]", "plugins/rcptchecksfile")
    home.write(addresslist="")
    server = serve()
    with server.client() as client:
        assert [client.say(line) for line in (MAIL, ANA)][1] == f"{NO_MAILBOX} (#5.1.1 - rcptchecksfile)"
        home.write(addresslist="ana@example.org\n")
        assert client.say(ANA) == "250 ok"
        (home.control / "addresslist").unlink()
        assert client.say(BEN) == "250 ok"
    assert server.said() == log(
        "rcptchecksfile",
        f"{NO_MAILBOX} (ana@example.org)",
        accepted("ana@example.org", 0),
        "Error opening address list file (addresslist): no such file or directory",
    )


# What clients do


def test_bytes_of_addresses(home: Home, serve: Serve) -> None:
    "An address comes out as it went in, and on a log line what isn't text is escaped."
    home.plugins("[rcpt]", "plugins/plusaliases", "plugins/rcptchecksfile")
    home.write(addresslist="señor@example.org\n".encode() + b"caf\xe9@example.org\n")
    server = serve("--deliver", DELIVER)
    wire = server.wire()
    wire.reply()
    said = [
        b"MAIL FROM:<\xff\xfe@example.net>",
        b"RCPT TO:<caf\xe9+\xe9@example.org>",
        "RCPT TO:<señor@example.org>".encode(),
        b"RCPT TO:<\x1b[2J@example.org>",
        b"RCPT TO:<cafe@example.org>",
    ]
    assert [wire.say(line)[:3] for line in said] == [b"250", b"250", b"250", b"511", b"511"]
    assert [wire.say(b"DATA")[:3], wire.say(b"Subject: Tea\r\n.")[:7]] == [b"354", b"250 ok "]
    wire.close()
    assert home.delivered("SENDER", "RECIPIENTS") == [
        "\udcff\udcfe@example.net",
        "caf\udce9@example.org\nseñor@example.org",
    ]
    assert server.said() == [
        *log("plusaliases", r"changed caf\xe9+\xe9@example.org to caf\xe9@example.org"),
        *log("rcptchecksfile", accepted(r"caf\xe9@example.org", 0), accepted("señor@example.org", 1)),
        *log("plusaliases", "error: no valid SMTPRCPTTO"),
        *log("rcptchecksfile", r"511 Invalid address (\x1b[2j@example.org)", f"{NO_MAILBOX} (cafe@example.org)"),
    ]


def test_long_addresses(home: Home, serve: Serve) -> None:
    "899 bytes pass through a plugin whole; one more is a syntax error, and no plugin is asked."
    home.plugins("[rcpt]", "plugins/plusaliases", "plugins/rcptchecksfile")
    longest = "a" * 887 + "@example.org"
    home.write(addresslist=f"{longest}\n")
    server = serve("--deliver", DELIVER)
    assert server.talk(f"MAIL FROM:<{'a' * 888}@example.net>") == ["555 syntax error (#5.5.4)"]
    assert server.talk(MAIL, f"RCPT TO:<a{longest}>") == ["250 ok", "555 syntax error (#5.5.4)"]
    assert server.said() == []
    with server.client() as client:
        assert client.sendmail("a" * 887 + "@example.net", [longest], MESSAGE) == {}
    assert home.delivered("SENDER", "RECIPIENTS") == ["a" * 887 + "@example.net", longest]
    assert server.said() == log("rcptchecksfile", accepted(longest, 0))


def test_long_lines(home: Home, serve: Serve) -> None:
    "A line of 100 kB is refused as a command, and the session goes on. In a message it is no trouble."
    home.plugins("[helo]", ':echo "P${#SMTPHELOHOST} characters"')
    server = serve("--deliver", DELIVER)
    assert server.transcript(f"EHLO {'a' * 60_000}")[1] == "60000 characters"
    with server.client() as client:
        assert client.say(f"MAIL FROM:<{'a' * 100_000}>")[:3] == "500"
        assert client.say("x" * 1_000_000)[:3] == "500"
        assert [client.say(MAIL), client.say(ANA)] == ["250 ok", "250 ok"]
        assert client.say_message(f"Subject: {'a' * 100_000}\n") == "250 ok"
    assert "\nSubject: " + "a" * 100_000 + "\n" in home.message()


def test_pipelining(home: Home, serve: Serve) -> None:
    "A whole message in one write, and the same byte by byte: the same replies, in order."
    home.plugins("[mail]", "plugins/msa", "[rcpt]", "plugins/dotblind", "plugins/rcptchecksfile")
    home.write(addresslist="ana@example.org\n")
    server = serve("--like", "gentoo", "--users", home.users(ana="secret"), "--deliver", DELIVER)
    message = [MAIL, ANA, BEN, "RCPT TO:<a.n.a@example.org>", "DATA", "Subject: Tea\r\n."]
    said = ["EHLO x", "AUTH PLAIN AGFuYQBzZWNyZXQ=", *message, MAIL, "QUIT"]
    expected = [b"235", b"250", b"250", b"511", b"250", b"354", b"250", b"250", b"221", b""]
    for size in (65536, 1):
        wire = server.wire()
        data = "\r\n".join([*said, ""]).encode()
        for start in range(0, len(data), size):
            wire.send(data[start : start + size])
        replies = [wire.reply() for _ in range(len(said) + 2)]
        assert [reply[:3] for reply in replies[2:]] == expected
        wire.close()
        assert home.delivered("RECIPIENTS") == ["ana@example.org\nana@example.org"]


def test_goodbye(serve: Serve) -> None:
    "As qmail-smtpd says it, and nothing that was sent behind it counts."
    assert serve().transcript("QUIT", MAIL, "NOOP") == ["220 mail.example.org ESMTP", "221 mail.example.org"]


def test_nothing_runs_after_the_server_has_hung_up(home: Home, serve: Serve) -> None:
    "What a client sent in advance isn't looked at once a plugin has closed the connection."
    for command, heard in (("R421 bye", ["421 bye"]), ("D", [])):
        home.plugins("[helo]", f":echo {command}", "[mail]", ":touch reached")
        server = serve()
        assert [line for line in server.transcript("EHLO x", MAIL, ANA)[1:] if line] == heard
        server.settled(len(server.descriptors()))
        assert not (home.path / "reached").exists()


def test_a_log_line_is_nothing_a_client_can_write(home: Home, serve: Serve) -> None:
    "Whatever a client says, what the server logs is lines of the common form."
    server = serve("--users", home.users(ana="secret"))
    wire = server.wire()
    wire.reply()
    for said in (b"\x1b[2JFOO x", b"msa: pid 1 - forged", b"A\rmsa: pid 1 - forged", b"\x00\x01", b"HELP \x1b[2J"):
        wire.say(said)
    wire.say(b"EHLO x")
    wire.say(b"AUTH PLAIN")
    wire.say(b"*")
    wire.close()
    for line in server.said():
        assert line.startswith("smtpd: pid PID - ") and line.isprintable(), line


STAGES = {
    "connection": b"",
    "helo": b"EHLO x\r\n",
    "auth": b"EHLO x\r\nAUTH PLAIN AGFuYQBzZWNyZXQ=\r\n",
    "mail": b"MAIL FROM:<a@b>\r\n",
    "rcpt": b"MAIL FROM:<a@b>\r\nRCPT TO:<ana@example.org>\r\n",
    "pass": b"MAIL FROM:<a@b>\r\nRCPT TO:<ana@example.org>\r\n",
    "data": b"MAIL FROM:<a@b>\r\nRCPT TO:<ana@example.org>\r\nDATA\r\n",
}
LINGERING = ":sleep 1000 & echo lingering: pid $$ - with child $! >&2; wait"


@pytest.mark.parametrize("stage", STAGES)
def test_client_leaves_while_a_plugin_runs(home: Home, serve: Serve, stage: str) -> None:
    "The plugin ends with all its children, the server cleans up and goes on, and nothing is said of it in the log."
    server = serve("--like", "sagredo", "--users", home.users(ana="secret"), ENABLE_SPP="")
    open_before = len(server.descriptors())
    home.plugins(f"[{stage}]", LINGERING)
    wire = server.wire()
    wire.send(STAGES[stage])
    match = server.log.wait_for(r"lingering: pid (\d+) - with child (\d+)\n")
    wire.close(abruptly=True)
    gone(int(match[1]), int(match[2]))
    server.settled(open_before)
    home.plugins("[mail]", "plugins/msa")
    assert server.talk(MAIL) == ["550 You should be authenticated"]
    assert server.said() == [match[0].rstrip("\n"), *log("msa", "Message rejected (no auth).")]


def test_client_closes_its_side_while_a_plugin_runs(home: Home, serve: Serve) -> None:
    "It may be waiting for its replies, so the plugin runs on, up to its time limit."
    home.plugins("[mail]", LINGERING)
    server = serve("--seconds", "0.5")
    wire = server.wire()
    wire.send(f"{MAIL}\r\n".encode())
    match = server.log.wait_for(r"lingering: pid (\d+) - with child (\d+)\n")
    wire.socket.shutdown(socket.SHUT_WR)
    failed = f"451 qmail-spp failure: {LINGERING}: no end after 0.5 seconds (#4.3.0)\r\n"
    assert wire.rest() == f"220 mail.example.org ESMTP\r\n{failed}".encode()
    gone(int(match[1]), int(match[2]))
    wire.close()
    server.log.lines()


def test_client_leaves_while_a_child_in_the_background_runs(home: Home, serve: Serve) -> None:
    "The plugin itself has ended; its child keeps standard output open, and goes with the client."
    home.plugins("[mail]", ":sleep 1000 & echo lingering: pid $$ - with child $! >&2")
    server = serve()
    open_before = len(server.descriptors())
    wire = server.wire()
    wire.send(b"MAIL FROM:<a@b>\r\n")
    match = server.log.wait_for(r"lingering: pid (\d+) - with child (\d+)\n")
    until(lambda: not server.children(), "the server has seen the end of the plugin itself")
    wire.close(abruptly=True)
    gone(int(match[2]))
    server.settled(open_before)


def test_client_leaves_in_the_middle_of_a_message(home: Home, serve: Serve) -> None:
    server = serve("--deliver", DELIVER)
    open_before = len(server.descriptors())
    wire = server.wire()
    wire.reply()
    assert [wire.say(line.encode())[:3] for line in (MAIL, ANA, "DATA")] == [b"250", b"250", b"354"]
    wire.send(b"Subject: half a mess")
    wire.close()
    server.settled(open_before)
    assert not (home.path / "message").exists()


@pytest.mark.parametrize("printed", ["P220-Welcome", "SA=b"])
@pytest.mark.parametrize("stage", ["connection", "helo"])
def test_client_leaves_while_a_plugin_prints(home: Home, serve: Serve, stage: str, printed: str) -> None:
    "The server, held up for a while, finds a plugin's output and the client's farewell at the same time."
    server = serve()
    open_before = len(server.descriptors())
    waiting = ":echo waiting: pid $$ - here >&2; while test ! -e go; do sleep 0.01; done"
    home.plugins(f"[{stage}]", f"{waiting}; echo {printed}; touch done; exec sleep 1000")
    wire = server.wire()
    wire.send(b"EHLO x\r\n")
    plugin = int(server.log.wait_for(r"waiting: pid (\d+) - here\n")[1])
    server.process.send_signal(signal.SIGSTOP)
    (home.path / "go").touch()
    until((home.path / "done").exists, "the plugin has printed")
    wire.close(abruptly=True)
    server.process.send_signal(signal.SIGCONT)
    gone(plugin)
    server.settled(open_before)
    assert server.said() == [f"waiting: pid {plugin} - here"]


def test_clients_that_leave_at_any_moment(home: Home, serve: Serve) -> None:
    "Two hundred clients who say something and hang up: no process, pipe or socket is left, and no traceback."
    home.plugins("[connection]", ":echo P220-x", "[helo]", ":echo PHello", "[mail]", "plugins/msa")
    server = serve()
    open_before = len(server.descriptors())

    def leave(number: int) -> None:
        wire = server.wire()
        wire.send((b"EHLO x\r\nMAIL FROM:<a@b>\r\nRSET\r\n" * 3)[: number % 40])
        if number % 3:
            wire.reply()
        wire.close(abruptly=number % 2 == 0)

    with ThreadPoolExecutor(40) as clients:
        list(clients.map(leave, range(200)))
    server.settled(open_before)
    home.plugins("[mail]", "plugins/msa")
    assert server.talk(MAIL) == ["550 You should be authenticated"]
    assert set(server.said()) <= set(log("msa", "Message rejected (no auth)."))


def test_fifty_clients_at_once(home: Home, serve: Serve) -> None:
    "All connected at the same time, each with its own recipients and counts; each gets its own replies."
    home.plugins("[mail]", "plugins/overload", "[rcpt]", "plugins/rcptchecksfile")
    home.write(addresslist="".join(f"user{number}@example.org\n" for number in range(50)))
    server = serve("--set", "CHKUSER_WRONGRCPTLIMIT=1")
    open_before = len(server.descriptors())
    everybody = threading.Barrier(50)

    def converse(number: int) -> list[str]:
        with server.client() as client:
            everybody.wait()
            client.ehlo()
            names = (f"user{number}", f"nobody{number}", "nobody")
            return [client.say(line) for line in (MAIL, *(f"RCPT TO:<{name}@example.org>" for name in names))]

    with ThreadPoolExecutor(50) as clients:
        heard = list(clients.map(converse, range(50)))
    wrong, policy = f"{NO_MAILBOX} (#5.1.1 - rcptchecksfile)", f"{POLICY} (#5.7.1 - rcptchecksfile)"
    assert heard == [["250 ok", "250 ok", wrong, policy]] * 50
    expected = [
        message
        for number in range(50)
        for message in (
            accepted(f"user{number}@example.org", 0),
            f"{NO_MAILBOX} (nobody{number}@example.org)",
            f"{POLICY} (2 of 1 - nobody@example.org)",
        )
    ]
    assert sorted(server.said()) == sorted(log("rcptchecksfile", *expected))
    server.settled(open_before)
