"""What our server and the dry run say is what qmail-smtpd says: its files, its replies, its bounds; and who is who in the log."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from mailserver import COMMAND, DELIVER, ENVIRON, PATIENCE, Home, Server, gone

from ra_plugins.cli.install import install

Serve = Callable[..., Server]

MAIL, ANA, STRANGER = "MAIL FROM:<eva@example.net>", "RCPT TO:<ana@example.org>", "RCPT TO:<x@example.com>"
LOGIN = "AUTH PLAIN AGFuYQBzZWNyZXQ="  # ana, secret
FOREIGN = "553 sorry, that domain isn't in my list of allowed rcpthosts (#5.7.1)"
CODES = re.compile(r"(?m)^(\d{3}) ")


def heard(server: Server, *lines: str) -> list[str]:
    "What the client hears between the banner and the goodbye."
    return server.transcript(*lines)[1:-1]


# What is read once


def test_what_plugins_set_is_for_plugins(home: Home, serve: Serve) -> None:
    "RELAYCLIENT and TCPLOCALIP are read when a session begins."
    home.plugins("[connection]", ":echo SRELAYCLIENT=; echo STCPLOCALIP=192.0.2.7", "[rcpt]", ":echo P${RELAYCLIENT-none}")
    assert heard(serve(), MAIL, STRANGER)[1:] == ["", FOREIGN]
    assert heard(serve(), "MAIL FROM:<a@[192.0.2.7]>", "RCPT TO:<a@[192.0.2.7]>")[-1] == FOREIGN
    home.plugins("[connection]", ":echo URELAYCLIENT", "[rcpt]", ":echo P${RELAYCLIENT-none}")
    assert heard(serve(RELAYCLIENT=""), MAIL, STRANGER)[1:] == ["none", "250 ok"]


def test_a_refusal_for_later_is_shown_as_it_was_first(home: Home, serve: Serve) -> None:
    home.plugins("[mail]", ':echo "LR550 for $SMTPMAILFROM"')
    said = heard(serve(), "MAIL FROM:<one@x>", ANA, "MAIL FROM:<two@x>", ANA, "RSET", "MAIL FROM:<three@x>", ANA)
    assert said == ["250 ok", "550 for one@x", "250 ok", "550 for one@x", "250 flushed", "250 ok", "550 for three@x"]


def test_sagredo_judges_what_plugins_have_left(home: Home, serve: Serve) -> None:
    seen = ':echo P$SMTPRCPTTO $SMTPRCPTCOUNT'
    home.plugins("[rcpt]", ":test $SMTPRCPTTO = x@example.com && echo Cnew@example.org", "[pass]", seen, ":echo Clast@x")
    server = serve("--like", "sagredo", "--deliver", DELIVER, ENABLE_SPP="")
    assert heard(server, MAIL, STRANGER, ANA, "DATA", ".")[1:5] == ["new@example.org 1", "250 ok", "ana@example.org 2", "250 ok"]
    assert home.delivered("RECIPIENTS") == ["last@x\nlast@x"]
    home.plugins("[rcpt]", ":echo Cnew@example.com", "[pass]", seen)
    assert heard(server, MAIL, ANA) == ["250 ok", FOREIGN]
    home.plugins("[rcpt]", ":echo Pbefore $SMTPRCPTCOUNT", "[pass]", ":echo E550 no")
    assert heard(server, MAIL, ANA, ANA)[1:] == ["before 0", "550 no", "before 1", "550 no"]
    assert heard(server, MAIL, "RCPT TO:", "RCPT TO:<>")[1:2] == ["555 syntax error (#5.5.4)"]


@pytest.mark.parametrize("like, told", [("netqmail", ["", ""]), ("gentoo", ["ana", ""]), ("sagredo", ["ana", "ana"])])
def test_who_tells_plugins_who_has_logged_in(home: Home, serve: Serve, like: str, told: list[str]) -> None:
    home.plugins("[mail]", ":echo P$SMTPAUTHUSER,$SMTP_AUTH_USER,$TCPREMOTEINFO", "plugins/msa")
    server = serve("--like", like, "--users", home.users(ana="secret"), ENABLE_SPP="")
    reply = "250 ok" if told[0] else "550 You should be authenticated"
    assert heard(server, LOGIN, MAIL) == ["235 ok, go ahead (#2.0.0)", f"{','.join(told)},ana", reply]
    server.said()


# qmail's own files


def test_qmails_own_files(home: Home, serve: Serve) -> None:
    "A CR belongs to what stands in front of it, and what is read is read when a session begins."
    server = serve()
    home.write(rcpthosts="example.org\r\n")
    assert heard(server, MAIL, ANA) == ["250 ok", FOREIGN]
    home.write(rcpthosts="# ours\n\nExample.org \t\n", badmailfrom="eva@example.net\r\n")
    assert heard(server, MAIL, ANA) == ["250 ok", "250 ok"]
    home.write(badmailfrom="@EXAMPLE.net\n", smtpgreeting="hello  \n")
    bad = "553 sorry, your envelope sender is in my badmailfrom list (#5.7.1)"
    assert server.transcript("HELO x", MAIL, ANA) == ["220 hello ESMTP", "250 hello", "250 ok", bad, "221 hello"]
    with server.client() as client:
        home.write(rcpthosts="example.com\n", badmailfrom="")
        assert [client.say(MAIL), client.say(ANA)] == ["250 ok", bad]


def test_unreadable_files_of_qmails(home: Home, serve: Serve) -> None:
    server = serve()
    for name in ("rcpthosts", "badmailfrom", "databytes", "localiphost"):
        (home.control / name).unlink(missing_ok=True)
        (home.control / name).mkdir()
        assert server.wire().rest() == b"421 unable to read controls (#4.3.0)\r\n", name
        (home.control / name).rmdir()
    (home.control / "me").unlink()
    assert server.wire().rest() == b"421 unable to read controls (#4.3.0)\r\n"
    server.said()


def test_databytes(home: Home, serve: Serve) -> None:
    "So many are taken, one more isn't; and no message is held in memory."
    home.write(databytes="20\n")
    server = serve("--deliver", DELIVER)
    big = "552 sorry, that message size exceeds my databytes limit (#5.3.4)"
    assert heard(server, MAIL, ANA, "DATA", "x" * 19, ".")[-1] == "250 ok"
    (home.path / "message").unlink()
    assert heard(server, MAIL, ANA, "DATA", "x" * 20, ".", "NOOP")[-2:] == [big, "250 ok"]
    assert not (home.path / "message").exists()
    assert heard(serve(DATABYTES="0"), MAIL, ANA, "DATA", "x" * 20, ".")[-1][:6] == "250 ok"
    assert heard(server, "MAIL FROM:<a@b> SIZE=21") == ["250 ok"]
    assert heard(serve("--like", "sagredo"), "MAIL FROM:<a@b> SIZE=21") == [big]


def test_a_big_message_costs_no_memory(home: Home, serve: Serve) -> None:
    server = serve()
    with server.client() as client:
        client.ehlo()
        for line in (MAIL, ANA, "DATA"):
            client.say(line)
        for _ in range(60):
            client.send(b"x" * 998 + b"\r\n" + (b"x" * 998 + b"\r\n") * 999)
        assert client.say(".") == "250 ok, and thrown away"
    peak = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{server.pid}/status").read_text())
    assert peak and int(peak[1]) < 60_000  # less than the message has


def test_hops_and_bare_newlines(home: Home, serve: Serve) -> None:
    server = serve("--deliver", DELIVER)
    loop = "554 too many hops, this message is looping (#5.4.6)"
    lines = ["Received: x", "DELIVERED-to: y"] * 49 + ["received-by: z"]
    assert heard(server, MAIL, ANA, "DATA", *lines, "", "Received: x", ".")[-1] == "250 ok"
    assert heard(server, MAIL, ANA, "DATA", *lines, "Received: x", ".")[-1] == loop
    stray = b"451 See http://pobox.com/~djb/docs/smtplf.html.\r\n"
    for text in (b"a\nb\r\n.\r\n", b"\n.\r\n", b".\n", b"a\r\n.\n"):
        wire = server.wire()
        wire.send(f"{MAIL}\r\n{ANA}\r\nDATA\r\n".encode() + text + b"QUIT\r\n")
        assert wire.rest().endswith(b"354 go ahead\r\n" + stray), text
        wire.close()


def test_timeout(home: Home, serve: Serve) -> None:
    home.write(timeoutsmtpd="1\n")
    wire = serve().wire()
    assert wire.rest().endswith(b"ESMTP\r\n451 timeout (#4.4.2)\r\n")
    wire.close()


# Replies


def test_replies(home: Home, serve: Serve) -> None:
    assert heard(serve(), "EXPN x", "", " NOOP", "noop\tx", "STARTTLS", "AUTH PLAIN", "help", "DATA", "vrfy x", "NoOp") == [
        *["502 unimplemented (#5.5.1)"] * 6,
        "214 netqmail home page: http://qmail.org/netqmail",
        "503 MAIL first (#5.5.1)",
        "252 send some mail, i'll try my best",
        "250 ok",
    ]
    assert heard(serve(), MAIL, ANA, "DATA", ".")[2:] == ["354 go ahead", "250 ok, and thrown away"]
    assert heard(serve("--like", "gentoo"), "AUTH PLAIN") == ["503 auth not available (#5.3.3)"]
    assert heard(serve(), "EHLO x") == ["250-mail.example.org", "250-PIPELINING", "250 8BITMIME"]


def test_replies_to_auth(home: Home, serve: Serve) -> None:
    server = serve("--like", "gentoo", "--users", home.users(ana="secret"))
    assert heard(server, LOGIN.replace("AUTH PLAIN", "auth plain"), LOGIN) == [
        "235 ok, go ahead (#2.0.0)",
        "503 you're already authenticated (#5.5.0)",
    ]
    assert heard(server, MAIL, LOGIN)[1] == "503 no auth during mail transaction (#5.5.0)"
    assert heard(server, "AUTH login", "YW5h", "c2VjcmV0")[-1] == "235 ok, go ahead (#2.0.0)"
    said = heard(server, "AUTH CRAM-MD5", "AUTH PLAIN", "*", "AUTH PLAIN !", "AUTH PLAIN AGFuYQB3cm9uZw==")
    assert said == [
        "504 auth type unimplemented (#5.5.1)",
        "334 ",
        "501 auth exchange canceled (#5.0.0)",
        "501 malformed auth input (#5.5.4)",
        "535 authentication failed (#5.7.1)",
    ]
    assert server.said() == ["smtpd: pid PID - log-in of ana by plain failed"]


# Connections, processes, and the log


def test_a_client_that_closes_its_side_gets_all_replies(home: Home, serve: Serve) -> None:
    home.plugins("[mail]", ":sleep 0.3")
    wire = serve().wire()
    wire.send(f"{MAIL}\r\n{ANA}\nNOOP\r\nhalf a line".encode())
    wire.socket.shutdown(1)
    assert CODES.findall(wire.rest().decode()) == ["220", "250", "250", "250"]
    wire.close()


def test_deliver_ends_with_all_that_it_has_started(home: Home, serve: Serve) -> None:
    server = serve("--deliver", "sleep 1000 & echo $! $$ > pids; sleep 1000", "--seconds", "0.5")
    assert heard(server, MAIL, ANA, "DATA", ".")[-1] == "451 qq timeout (#4.3.0)"
    gone(*map(int, (home.path / "pids").read_text().split()))
    assert server.said() == ["smtpd: pid PID - the command that takes messages has not ended after 0.5 seconds"]


def test_too_many_recipients_for_a_command(home: Home, serve: Serve) -> None:
    "Linux takes 128 kB in one variable."
    server = serve("--deliver", "true")
    long = f"RCPT TO:<{'a' * 880}@example.org>"
    assert heard(server, MAIL, *[long] * 160, "DATA", ".")[-1] == "451 unable to exec qq (#4.3.0)"
    assert "can't be started: Argument list too long" in server.said()[0]


def test_sessions_can_be_told_apart(home: Home, serve: Serve) -> None:
    home.plugins("[mail]", "plugins/msa", ":echo no newline >&2")
    server = serve()
    with server.client() as one, server.client() as two:
        one.say("HELO x")
        two.say(MAIL)
        one.say(MAIL)
    lines = server.log.lines()
    pid = server.pid
    for number in (1, 2):
        mine = [line.partition(": ")[2] for line in lines if line.startswith(f"session {number}: ")]
        assert mine == [
            f"smtpd: pid {pid} - 127.0.0.1 has called",
            f"msa: pid {pid} - Message rejected (no auth).",
            f"smtpd: pid {pid} - 127.0.0.1 is gone: it has said goodbye",
        ]
    assert len(lines) == 6


def test_bounds_of_a_session(home: Home, serve: Serve) -> None:
    said = serve().transcript(*["EXPN x"] * 2000)
    assert said[-1] == "421 too many errors (#4.7.0)" and len(said) == 1002
    said = heard(serve(), MAIL, *[ANA] * 10_001, "NOOP")
    assert said[-3:] == ["250 ok", "452 sorry, too many recipients (#4.5.3)", "250 ok"]


def test_what_plugins_inherit(home: Home, serve: Serve) -> None:
    "No locale that Python has set for itself, nothing of somebody else's connection."
    home.plugins("[mail]", ":echo P${LC_CTYPE-none} ${TCPREMOTEINFO-none} ${TCPREMOTEHOST-none} $TCPLOCALHOST")
    foreign = {"TCPREMOTEINFO": "eve", "TCPREMOTEHOST": "elsewhere", "TCPLOCALHOST": "x"}
    assert heard(serve(**foreign), MAIL)[0] == "none none none mail.example.org"
    assert heard(serve(LC_CTYPE="C.UTF-8"), MAIL)[0] == "C.UTF-8 none none mail.example.org"


# The dry run


def tried(home: Home, *options: str, **environ: str) -> tuple[int, str, str]:
    "The exit status of `ra-plugins try`, and what it says."
    done = subprocess.run(
        [*COMMAND, "try", "--control", str(home.control), "--ip", "192.0.2.8", "--helo", "x", *options],
        env={**ENVIRON, **environ},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    return done.returncode, done.stdout, done.stderr


FROM, TO = ("--from", "eva@example.net"), ("--to", "ana@example.org")


def test_try_with_rules(home: Home, tmp_path: Path) -> None:
    "The longest match counts, a range, a name; what is set is set before qmail-smtpd begins."
    rules = tmp_path / "tcp.smtp"
    rules.write_text('192.0.2.7-8:allow,RELAYCLIENT="",A=/x/\n192.0.2.:allow,NOSPP=""\n=mx.example.net:allow,A="name"\n:deny\n')
    home.plugins("[rcpt]", ":echo P$A")
    given = ("--rules", str(rules), *FROM, "--to", "x@example.com")
    status, output, _ = tried(home, *given)
    assert status == 0 and "S: x\nS: 250 ok" in output and 'rule of line 1: 192.0.2.7-8:allow,RELAYCLIENT="",A=/x/' in output
    status, output, _ = tried(home, *given, "--ip", "192.0.2.9")
    assert status == 1 and FOREIGN in output and "plugins" not in output
    status, output, _ = tried(home, *given, "--ip", "198.51.100.1", "--set", "TCPREMOTEHOST=mx.example.net")
    assert status == 1 and "S: name\n" in output
    status, output, _ = tried(home, *given, "--ip", "198.51.100.1")
    assert status == 1 and output.splitlines()[:3] == ["C: (connects)", "     rule of line 4: :deny", "S: (hangs up)"]
    rules.write_text("10.:allow\n10.:allow, X\n")
    assert tried(home, *given) == (3, "", f"ra-plugins: {rules}, line 2: tcprules doesn't take '10.:allow, X'\n")


def test_try_several_messages(home: Home) -> None:
    home.plugins("[mail]", ":test $SMTPMAILFROM = eve@x && echo E550 no", "[rcpt]", ":echo P$SMTPRCPTCOUNTALL")
    again = ("--from", "eve@x", *TO, "--from", "", *TO, *TO, "--json")
    status, output, _ = tried(home, *FROM, *TO, *again)
    data = json.loads(output)
    assert status == 1 and [each["sender"] for each in data["messages"]] == ["eva@example.net", ""]
    assert [step["command"] for step in data["steps"]][2:] == [
        *("MAIL FROM:<eva@example.net>", "RCPT TO:<ana@example.org>", "DATA", "."),
        *("MAIL FROM:<eve@x>", "RSET", "MAIL FROM:<>", *["RCPT TO:<ana@example.org>"] * 2, "DATA"),
    ]
    assert [step["replies"][0] for step in data["steps"] if (step["command"] or "").startswith("RCPT")] == ["1", "1", "2"]


@pytest.mark.parametrize("said", ["<ana@example.org>", "to=<ana@example.org>,", " ana@example.org ", "Ana <ana@example.org>"])
def test_try_an_address_from_a_log(home: Home, said: str) -> None:
    status, output, _ = tried(home, "--from", "<>", "--to", said)
    assert status == 0 and "C: MAIL FROM:<>\n" in output and "C: RCPT TO:<ana@example.org>\n" in output


def test_try_our_own_address(home: Home) -> None:
    home.write(rcpthosts="mail.example.org\n")
    for options in (("--to", "u@[127.0.0.1]"), ("--to", "u@[192.0.2.77]", "--set", "TCPLOCALIP=192.0.2.77")):
        assert tried(home, *FROM, *options)[0] == 0


def test_try_with_another_list_alone(home: Home) -> None:
    (home.control / "smtpplugins").rename(home.control / "new")
    assert tried(home, *FROM, *TO, SPPCONFFILE="control/new")[0] == 0
    assert tried(home, *FROM, *TO, "--set", "SPPCONFFILE=control/new")[0] == 0
    assert tried(home, *FROM, *TO)[0] == 3
    assert tried(home, *FROM, *TO, "--set", "NOSPP=")[0] == 0


@pytest.mark.parametrize(
    "old, new, status",
    [
        *(("#!", "#!/nowhere", 2), ("#!/", "#! /nowhere/", 2), ("\n", "\r\n", 0)),
        *(("ra_plugins.plugins", "ra_plugins.gone", 0), ("['/", "['/nowhere/", 0)),
    ],
)
def test_try_a_program_that_is_not_todays(home: Home, old: str, new: str, status: int) -> None:
    "What qmail-smtpd would make of it, and not what its plugin would say."
    (home.path / "plugins").unlink()
    install(str(home.path / "plugins"), ["msa"])
    home.plugins("[mail]", "plugins/msa")
    assert tried(home, *FROM)[0] == 1
    program = home.path / "plugins" / "msa"
    text = program.read_text()
    assert old in text
    program.write_text(text.replace(old, new, 1))
    found, output, _ = tried(home, *FROM)
    assert found == status and "it is run as a program" in output, output
    program.write_text(text)
    program.chmod(0o644)
    assert tried(home, *FROM)[0] == 2


def test_try_keeps_the_hyphens(home: Home) -> None:
    assert "S: 250-mail.example.org\nS: 250-PIPELINING\nS: 250 8BITMIME\n" in tried(home)[1]


def test_the_demonstration_keeps_the_hyphens() -> None:
    done = subprocess.run([*COMMAND, "demo"], env=ENVIRON, capture_output=True, text=True, timeout=60, check=False)
    assert "S: 250-mail.example.org\nS: 250-PIPELINING\nS: 250 8BITMIME\n" in done.stdout, done.stderr
