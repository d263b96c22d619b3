"""Other people's programs behind our server: it treats them as qmail-smtpd with qmail-spp does."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Callable

import pytest
from mailserver import DELIVER, Home, Server

Serve = Callable[..., Server]

BANNER = "220 mail.example.org ESMTP"
MAIL, ANA, BEN = "MAIL FROM:<eva@example.net>", "RCPT TO:<ana@example.org>", "RCPT TO:<ben@example.org>"
STRANGER, FOREIGN = "RCPT TO:<eve@example.com>", "553 sorry, that domain isn't in my list of allowed rcpthosts (#5.7.1)"
LOGIN = "AUTH PLAIN AGFuYQBzZWNyZXQ="  # ana, secret
UNREADABLE = b"421 unable to read controls (#4.3.0)\r\n"
CANT_EXECUTE = "451 qmail-spp failure: {}: can't execute (#4.3.0)"


def heard(server: Server, *lines: str) -> list[str]:
    "What the client hears between the banner and the goodbye."
    transcript = server.transcript(*lines)
    assert transcript[0] == BANNER, transcript
    return [line for line in transcript[1:] if not line.startswith("221 ")]


# control/smtpplugins


SECTIONS = """:echo Pbefore any section
[connection]
:echo Pconnection
[hubble]
:echo Phelo
[a]
:echo Pauth
[m
:echo Pmail
[rcpt]
:echo Prcpt
[pass]
:echo Ppass
[d]
:echo Pdata
[Mail]
:echo Pupper case
[spam]
:echo Punknown
[]
:echo Pno letter
[ mail]
:echo Pblank
[ready]
:echo Prcpt again
"""


@pytest.mark.parametrize("like, added", [("netqmail", []), ("gentoo", ["auth"]), ("sagredo", ["auth", "pass"])])
def test_sections(home: Home, serve: Serve, like: str, added: list[str]) -> None:
    "Point 1: which sections a build knows, by their first letter, and in which order programs run."
    home.write(smtpplugins=SECTIONS)
    server = serve("--like", like, "--users", home.users(ana="secret"), ENABLE_SPP="")
    said = server.transcript("EHLO x", LOGIN, MAIL, ANA, "DATA", "Subject: x", ".")
    told = [line for line in said if not line[:3].isdigit()]
    expected = ["connection", "helo", "auth", "mail", "rcpt", "rcpt again", "pass", "data"]
    assert told == [name for name in expected if name in added or name not in ("auth", "pass")]


def test_entries(home: Home, serve: Serve) -> None:
    "Point 2: comments and trailing blanks go; all else is the path, from qmail's home."
    home.program("greet", "#!/bin/sh\necho P$(pwd)\n")
    (home.path / "bin").mkdir()
    home.program("bin/two words", "#!/bin/sh\necho Ptwo words\n")
    server = serve()
    for entry, expected in (
        ("# :echo Pcomment", []),
        ("greet \t ", [str(home.path)]),
        ("bin/two words", ["two words"]),
        (str(home.path / "greet"), [str(home.path)]),
    ):
        home.plugins("[mail]", entry)
        assert heard(server, MAIL) == [*expected, "250 ok"], entry
    for entry in (" greet", "greet\r", "greet argument", "greet # comment", "true", "/", ".", "plugins", " :echo Pno"):
        home.plugins("[mail]", entry)
        assert heard(server, MAIL) == [CANT_EXECUTE.format(entry)], entry


def test_shell_commands(home: Home, serve: Serve) -> None:
    "Point 3: a colon makes it a command for the shell; one that isn't there is passed over."
    home.plugins("[mail]", ":echo 'Pa; b' | tr a-z A-Z", ":no-such-command 2>/dev/null", ":true && echo Pall && exit 3")
    assert heard(serve(), MAIL) == ["A; B", "all", "250 ok"]


def test_read_again_for_each_connection(home: Home, serve: Serve) -> None:
    "Point 4: but not within one; without the file there is no session."
    server = serve()
    old = server.client()
    home.plugins("[mail]", ":echo E550 no")
    assert (old.say(MAIL), server.talk(MAIL)) == ("250 ok", ["550 no"])
    old.close()
    home.write(smtpplugins="")
    assert server.talk(MAIL) == ["250 ok"]
    (home.control / "smtpplugins").unlink()
    assert server.wire().rest() == UNREADABLE
    (home.control / "smtpplugins").mkdir()
    assert server.wire().rest() == UNREADABLE
    missing, folder = server.said()
    for line, reason in ((missing, "No such file or directory"), (folder, "Is a directory")):
        assert line.startswith("smtpd: pid PID - can't begin a session: can't read /") and line.endswith(f"smtpplugins: {reason}")


@pytest.mark.parametrize(
    "like, environ, reply",
    [
        ("netqmail", {}, "550 no"),
        ("netqmail", {"NOSPP": ""}, "250 ok"),
        ("gentoo", {"NOSPP": "0"}, "250 ok"),
        ("sagredo", {}, "250 ok"),
        ("sagredo", {"ENABLE_SPP": ""}, "550 no"),
        ("sagredo", {"ENABLE_SPP": "0", "NOSPP": ""}, "550 no"),
        ("netqmail", {"SPPCONFFILE": "control/other"}, "550 other"),
    ],
)
def test_switches(home: Home, serve: Serve, like: str, environ: dict[str, str], reply: str) -> None:
    "Point 5: NOSPP, SPPCONFFILE and ENABLE_SPP."
    home.plugins("[mail]", ":echo E550 no")
    home.write(other="[mail]\n:echo E550 other\n")
    assert heard(serve("--like", like, **environ), MAIL) == [reply]


def test_another_file_that_is_not_there(home: Home, serve: Serve) -> None:
    server = serve(SPPCONFFILE="control/missing")
    assert server.wire().rest() == UNREADABLE
    assert len(server.said()) == 1


# What a plugin sees


LOOK = """#!/bin/sh
test -e /proc/$$/fd/0 || echo Pstandard input is closed
while read name mask; do test $name = SigIgn: && echo P$mask; done </proc/$$/status
echo P$PPID $SETTING $PROTO $TCPREMOTEIP $TCPREMOTEPORT $TCPLOCALIP $TCPLOCALPORT
echo on the log >&2
"""


def test_process(home: Home, serve: Serve) -> None:
    "Point 6: the server's environment, standard input closed, SIGPIPE ignored, the server as its parent."
    home.plugins("[connection]", home.program("look", LOOK))
    server = serve(SETTING="outside")
    wire = server.wire()
    port = wire.socket.getsockname()[1]
    assert wire.reply() == b"standard input is closed\r\n"
    assert int(wire.reply(), 16) >> (signal.SIGPIPE - 1) & 1
    assert wire.reply().decode() == f"{server.pid} outside TCP 127.0.0.1 {port} 127.0.0.1 {server.port}\r\n"
    assert wire.reply() == f"{BANNER}\r\n".encode()
    wire.close()
    assert server.said() == ["on the log"]


def test_standard_input_in_python(home: Home, serve: Serve) -> None:
    "Point 6: there is none, and the first file that is opened becomes descriptor 0."
    text = f"#!{sys.executable} -I\nimport os, sys\nprint('P', sys.stdin, os.open('/dev/null', os.O_RDONLY))\n"
    home.plugins("[mail]", home.program("look", text))
    assert heard(serve(), MAIL) == [" None 0", "250 ok"]


def test_variables_of_each_stage(home: Home, serve: Serve) -> None:
    "Points 7 and 8: what is set when, and that nothing is unset."
    for stage in ("connection", "helo", "auth", "mail", "rcpt", "data"):
        keep = f":env | grep -E '^(SMTP|RELAYCLIENT|TCPREMOTEINFO)' | sort > {stage}"
        with open(home.control / "smtpplugins", "a") as file:
            file.write(f"[{stage}]\n{keep}\n")
    server = serve("--like", "gentoo", "--users", home.users(ana="secret"))

    def seen(stage: str) -> dict[str, str]:
        return dict(line.split("=", 1) for line in home.lines(stage))

    with server.client() as client:
        assert seen("connection") == {}
        client.say("EHLO")
        assert seen("helo") == {"SMTPHELOHOST": ""}
        client.say("EHLO mail.example.net and more")
        told = {"SMTPHELOHOST": "mail.example.net and more"}
        assert seen("helo") == told
        client.say("MAIL FROM:<>")
        told["SMTPMAILFROM"] = ""
        assert seen("mail") == told
        client.say("RCPT TO:<Ana@example.org>")
        told |= {"SMTPRCPTTO": "Ana@example.org", "SMTPRCPTCOUNT": "0", "SMTPRCPTCOUNTALL": "1", "SMTPRCPTHOSTSOK": "1"}
        assert seen("rcpt") == told
        assert client.say(STRANGER)[:3] == "553"
        told |= {"SMTPRCPTTO": "eve@example.com", "SMTPRCPTCOUNT": "1", "SMTPRCPTCOUNTALL": "2", "SMTPRCPTHOSTSOK": "0"}
        assert seen("rcpt") == told
        client.say(BEN)
        told |= {"SMTPRCPTTO": "ben@example.org", "SMTPRCPTCOUNTALL": "3", "SMTPRCPTHOSTSOK": "1"}
        assert seen("rcpt") == told
        assert client.say_message("Subject: x\n")[:3] == "250"
        assert seen("data") == told
        client.say(LOGIN)
        told |= {"SMTPAUTHUSER": "ana", "SMTPAUTHMETHOD": "plain"}
        assert seen("auth") == told
        client.say("RSET")
        client.say(MAIL)
        told |= {"SMTPMAILFROM": "eva@example.net", "TCPREMOTEINFO": "ana", "RELAYCLIENT": ""}
        assert seen("mail") == told  # the last recipient and its counts are still there
        client.say(STRANGER)
        told |= {"SMTPRCPTTO": "eve@example.com", "SMTPRCPTCOUNT": "0", "SMTPRCPTCOUNTALL": "1", "SMTPRCPTHOSTSOK": "1"}
        assert seen("rcpt") == told


ADDRESSES = {
    "<Ana@Example.org>": "Ana@Example.org",
    "<@relay.example,@other.example:ana@example.org>": "ana@example.org",
    '<"ana maria"@example.org>': "ana maria@example.org",
    r'<"a\"b"@example.org>': 'a"b@example.org',
    r"<a\@b@example.org>": "a@b@example.org",
    "ana@example.org SIZE=7": "ana@example.org",
    " <ana@example.org> BODY=8BITMIME": "ana@example.org",
    "<caf\udce9@example.org>": "caf\udce9@example.org",
    "<señor@example.org>": "señor@example.org",
    "<ana@example.com>": "ana@example.com",
    "<ana@[127.0.0.2]>": "ana@[127.0.0.2]",
    "<postmaster>": "postmaster",
    "<>": "",
    f"<{'a' * 887}@example.org>": "a" * 887 + "@example.org",
}


def test_addresses(home: Home, serve: Serve) -> None:
    "Point 9: addresses without brackets, quotes, backslashes and source routes."
    home.plugins("[mail]", ':echo "P$SMTPMAILFROM"', "[rcpt]", ':echo "P$SMTPRCPTTO $SMTPRCPTHOSTSOK"')
    server = serve()
    for said, seen in ADDRESSES.items():
        allowed = seen.lower().endswith("@example.org") or "@" not in seen
        expected = [seen, "250 ok", f"{seen} {int(allowed)}", "250 ok" if allowed else FOREIGN]
        assert heard(server, f"MAIL FROM:{said}", f"RCPT TO:{said}") == expected, said
    for said in (f"<{'a' * 888}@example.org>", "<" + "a" * 900 + ">"):
        assert heard(server, f"MAIL FROM:{said}", MAIL, f"RCPT TO:{said}")[::3] == ["555 syntax error (#5.5.4)"] * 2


def test_our_own_address_literal(home: Home, serve: Serve) -> None:
    "Points 9 and 23: our own address, with nothing behind it, becomes the server's name."
    home.plugins("[mail]", ':echo "P$SMTPMAILFROM"', "[rcpt]", ':echo "P$SMTPRCPTTO"')
    home.write(rcpthosts="mail.example.org\n")
    here = "ana@[127.0.0.1]"
    said = heard(serve(), f"MAIL FROM:<{here}>", f"RCPT TO:<{here}>")
    assert said == ["ana@mail.example.org", "250 ok"] * 2
    for there in ("ana@[127.0.0.1].", "ana@[127.0.0.1", "ana@[127.0.1]", "ana@[192.0.2.1]", "ana@[::1]"):
        assert heard(serve(), f"MAIL FROM:<{there}>") == [there, "250 ok"]
    home.write(localiphost="here.example.org \n")
    assert heard(serve(), f"MAIL FROM:<{here}>") == ["ana@here.example.org", "250 ok"]


def test_relay_client(home: Home, serve: Serve) -> None:
    "Points 10 and 20: with RELAYCLIENT every domain is fine, and what it holds is put behind the address at the end."
    home.plugins("[rcpt]", ":echo P$SMTPRCPTTO $SMTPRCPTHOSTSOK")
    assert heard(serve(RELAYCLIENT=""), MAIL, STRANGER) == ["250 ok", "eve@example.com 1", "250 ok"]
    server = serve("--deliver", DELIVER, RELAYCLIENT=".fax")
    assert heard(server, MAIL, STRANGER, "DATA", ".")[:3] == ["250 ok", "eve@example.com 1", "250 ok"]
    assert home.delivered("RECIPIENTS", "SMTPRCPTTO") == ["eve@example.com.fax", "eve@example.com"]
    home.plugins("[rcpt]", ":echo Cnew@example.net")
    heard(server, MAIL, STRANGER, "DATA", ".")
    assert home.delivered("RECIPIENTS") == ["new@example.net.fax"]
    server = serve("--deliver", DELIVER, "--like", "sagredo", ENABLE_SPP="", RELAYCLIENT=".fax")
    heard(server, MAIL, STRANGER, "DATA", ".")
    assert home.delivered("RECIPIENTS") == ["new@example.net"]


def test_refused_at_auth(home: Home, serve: Serve) -> None:
    "Point 11: not logged in, and yet SMTPAUTHUSER stays."
    home.plugins("[auth]", ":echo E535 not today", "[mail]", ":echo P$SMTPAUTHUSER ${RELAYCLIENT-none}")
    server = serve("--like", "gentoo", "--users", home.users(ana="secret"))
    assert heard(server, "EHLO x", LOGIN, MAIL, STRANGER)[-4:] == ["535 not today", "ana none", "250 ok", FOREIGN]


def test_refused_at_a_second_mail(home: Home, serve: Serve) -> None:
    "Point 12: the first transaction goes on."
    home.plugins("[mail]", ":test $SMTPMAILFROM = eve@example.com && echo E550 not you")
    server = serve("--deliver", DELIVER)
    said = heard(server, MAIL, ANA, "MAIL FROM:<eve@example.com>", BEN, "DATA", "Subject: x", ".")
    assert [line[:3] for line in said] == ["250", "250", "550", "250", "354", "250"]
    assert home.delivered("SENDER", "RECIPIENTS") == ["eva@example.net", "ana@example.org\nben@example.org"]


# What it may print


def test_final_commands(home: Home, serve: Serve) -> None:
    "E, R, D, N, O and A: what comes before them has happened, what follows is dropped."
    server = serve()
    later = ":echo Plater"
    for command, mail, rcpt in (
        ("E550 no", ["550 no"], ["503 MAIL first (#5.5.1)"]),
        ("R421 bye", ["421 bye"], []),
        ("Disconnected", [], []),
        ("Nothing more", ["250 ok"], ["later", "250 ok"]),
        ("Okay", ["250 ok"], ["later", "250 ok"]),
        ("And so on", ["250 ok"], ["250 ok"]),
    ):
        home.plugins("[mail]", f":printf 'Pfirst\\n{command}\\nPdropped\\nE550 dropped\\n'", later, "[rcpt]", later)
        assert heard(server, MAIL, ANA) == ["first", *mail, *rcpt], command


def test_refusals_of_each_stage(home: Home, serve: Serve) -> None:
    "E refuses the command at hand, and in place of the banner it ends nothing."
    server = serve("--like", "gentoo", "--users", home.users(ana="secret"))
    home.plugins("[connection]", ":echo E554 no banner")
    assert server.transcript(MAIL)[:2] == ["554 no banner", "250 ok"]
    for stage, replies in (
        ("helo", "550 235 250 250 354 250"),
        ("auth", "250 550 250 250 354 250"),
        ("mail", "250 235 550 503 503 502 502"),
        ("rcpt", "250 235 250 550 503 502 502"),
        ("data", "250 235 250 250 550 502 502"),
    ):
        home.plugins(f"[{stage}]", ":echo E550 no")
        said = heard(server, "EHLO x", LOGIN, MAIL, ANA, "DATA", "Subject: x", ".")
        assert [line[:3] for line in said if line[3] != "-"] == replies.split(), stage


def test_n_and_o_and_the_checks_of_qmail(home: Home, serve: Serve) -> None:
    "After N rcpthosts and badmailfrom have their say; O skips them."
    home.write(badmailfrom="eva@example.net\n@Example.com\n")
    server = serve()
    bad = "553 sorry, your envelope sender is in my badmailfrom list (#5.7.1)"
    for mail, rcpt, recipient, reply in (
        ("N", "N", ANA, bad),
        ("O", "N", ANA, "250 ok"),
        ("O", "N", STRANGER, FOREIGN),
        ("O", "O", STRANGER, "250 ok"),
    ):
        home.plugins("[mail]", f":echo {mail}", "[rcpt]", f":echo {rcpt}")
        assert heard(server, MAIL, recipient) == ["250 ok", reply], (mail, rcpt)
        assert heard(server, "MAIL FROM:<x@example.com>", recipient) == ["250 ok", reply], (mail, rcpt)


def test_a_lasts_beyond_rset(home: Home, serve: Serve) -> None:
    home.plugins("[mail]", ":echo PA; echo A", "[rcpt]", ":echo E550 no")
    assert heard(serve(), MAIL, ANA, "RSET", MAIL, ANA) == ["A", "250 ok", "250 ok", "250 flushed", "250 ok", "250 ok"]


def test_later_refusals(home: Home, serve: Serve) -> None:
    "LM, LR and LD: this command succeeds, and the next ones of that kind are refused until RSET or a message's end."
    server = serve()
    home.plugins("[helo]", ":echo LM451 later; echo LM451 tomorrow", ":echo Pgoes on", "[mail]", ":echo Pnot asked")
    assert heard(server, "HELO x", MAIL, MAIL, "RSET", MAIL) == [
        *["goes on", "250 mail.example.org"],
        *["451 later", "451 tomorrow"] * 2,
        *["250 flushed", "not asked", "250 ok"],
    ]
    home.plugins("[mail]", ":echo LR452 later")
    said = heard(server, MAIL, ANA, BEN, "RSET", ANA)
    assert said == ["250 ok", "452 later", "452 later", "250 flushed", "503 MAIL first (#5.5.1)"]
    home.plugins("[rcpt]", ':test "$SMTPRCPTCOUNTALL" = 1 && echo LD554 later')
    said = heard(server, MAIL, ANA, "DATA", "DATA", BEN, "DATA")
    assert said == ["250 ok", "250 ok", "554 later", "554 later", "250 ok", "554 later"]
    home.plugins("[data]", ':test -z "$ONCE" && echo SONCE=1 && echo LM451 later')
    message = (MAIL, ANA, "DATA", "Subject: x", ".")
    assert [line[:3] for line in heard(server, *message, *message)] == ["250", "250", "354", "250"] * 2


CHANGING = """[helo]
:echo Cnobody@example.org
[mail]
:echo Cfirst@example.net; echo Cana@example.com
:echo P$SMTPMAILFROM
[rcpt]
:test $SMTPRCPTTO = ana@example.org && echo Cvictim@example.com
:echo P$SMTPRCPTTO $SMTPRCPTHOSTSOK
[data]
:echo Cnobody@example.org
"""


def test_changed_addresses(home: Home, serve: Serve) -> None:
    "C: the last one counts, later plugins see it, rcpthosts was looked at before; elsewhere it does nothing."
    home.write(smtpplugins=CHANGING)
    server = serve("--deliver", DELIVER)
    said = heard(server, "HELO x", MAIL, ANA, BEN, STRANGER, "DATA", "Subject: x", ".")
    assert said[:3] == ["250 mail.example.org", "ana@example.com", "250 ok"]
    assert said[3:7] == ["victim@example.com 1", "250 ok", "ben@example.org 1", "250 ok"]
    assert said[7:9] == ["eve@example.com 0", FOREIGN]
    assert home.delivered("SENDER", "RECIPIENTS") == ["ana@example.com", "victim@example.com\nben@example.org"]


SETTING = """[mail]
:echo SA=b=c; echo SB=; echo Snothing; echo S=x
:echo P$A[${B-unset}][${nothing-unset}]
[rcpt]
:echo P$A[$B][$SETTING]; echo UB; echo USETTING
:echo P${B-unset} ${SETTING-unset}
"""


def test_variables(home: Home, serve: Serve) -> None:
    "S and U: for later plugins and for whoever takes the message, beyond RSET, and in this connection only."
    home.write(smtpplugins=SETTING)
    server = serve("--deliver", DELIVER, SETTING="ours")
    said = heard(server, MAIL, ANA, "RSET", MAIL, ANA, "DATA", "Subject: x", ".")
    assert said[:5] == ["b=c[][unset]", "250 ok", "b=c[][ours]", "unset unset", "250 ok"]
    assert said[5:10] == ["250 flushed", "b=c[][unset]", "250 ok", "b=c[][]", "unset unset"]
    assert home.delivered("A", "B", "SETTING") == ["b=c", None, None]
    home.plugins("[mail]", ":echo P${A-unset} $SETTING")
    assert heard(server, MAIL) == ["unset ours", "250 ok"]


HEADING = """[mail]
:echo HX-Mail: $SMTPMAILFROM
[rcpt]
:echo HX-Rcpt: $SMTPRCPTTO
:test $SMTPRCPTTO = ben@example.org && echo E550 no
[data]
:printf 'HX-Data: caf\\351\\n'
"""


def test_headers(home: Home, serve: Serve) -> None:
    "H: above the message, below Received; kept when a recipient is refused, forgotten with RSET and after a message."
    home.write(smtpplugins=HEADING)
    server = serve("--deliver", DELIVER)
    message = (ANA, "DATA", "Subject: x", "", "..dot", ".")
    assert heard(server, "MAIL FROM:<old@example.net>", ANA, "RSET", MAIL, BEN, *message)[-1] == "250 ok"
    received, _, *rest = home.message().splitlines()
    mail, ben, ana, data = (
        "X-Mail: eva@example.net",
        "X-Rcpt: ben@example.org",
        "X-Rcpt: ana@example.org",
        "X-Data: caf\udce9",
    )
    assert received.startswith("Received: ")
    assert rest == [mail, ben, ana, data, "Subject: x", "", ".dot"]
    assert heard(server, MAIL, BEN, *message, MAIL, *message)[-1] == "250 ok"
    assert home.message().splitlines()[2:] == [mail, ana, data, "Subject: x", "", ".dot"]


def test_said_at_once(home: Home, serve: Serve) -> None:
    "P: the client hears it while the plugin still runs."
    home.plugins("[mail]", ":echo Pwait; while test ! -e go; do sleep 0.01; done; echo E550 no")
    wire = serve().wire()
    wire.send(f"{MAIL}\r\n".encode())
    assert [wire.reply(), wire.reply()] == [f"{BANNER}\r\n".encode(), b"wait\r\n"]
    (home.path / "go").touch()
    assert wire.reply() == b"550 no\r\n"
    wire.close()


# What goes wrong


def test_failures(home: Home, serve: Serve) -> None:
    "Point 13: what can't run and what dies of a signal is a 451 and ends the checks; any other exit status is ignored."
    home.program("bad interpreter", "#!/nowhere/sh\n")
    home.program("no interpreter", "echo Pshell script\n")
    home.program("empty", "")
    home.program("forbidden", "#!/bin/sh\n", mode=0o644)
    server = serve()
    paths = ("missing", "plugins/missing", "plugins", "bad interpreter", "no interpreter", "empty", "forbidden")
    for entry in (*paths, "empty/missing", "x" * 300, ":exit 120"):
        home.plugins("[mail]", entry, ":echo Plater")
        assert heard(server, MAIL, ANA) == [CANT_EXECUTE.format(entry), "503 MAIL first (#5.5.1)"], entry
    for name in ("KILL", "SEGV", "TERM", "HUP"):
        entry = f":echo SA=b; kill -{name} $$"
        home.plugins("[mail]", ":echo Pfirst", entry, ":echo Plater", "[rcpt]", ":echo P$A")
        assert heard(server, MAIL) == ["first", f"451 qmail-spp failure: {entry}: child crashed (#4.3.0)"]
    for entry in (":exit 1", ":exit 100", ":exit 119", ":exit 121", ":exit 255", ":/bin/false"):
        home.plugins("[mail]", entry, ":echo Plater")
        assert heard(server, MAIL) == ["later", "250 ok"], entry


def test_traceback_lets_mail_through(home: Home, serve: Serve) -> None:
    home.program("broken", f"#!{sys.executable}\nraise SystemError\n")
    home.plugins("[mail]", "broken")
    server = serve()
    assert heard(server, MAIL) == ["250 ok"]
    assert server.said()[-1] == "SystemError"


CHATTY = f"""#!{sys.executable}
import select
print("E550 no", flush=True)
closed = select.poll()
closed.register(1, 0)
closed.poll()
print("E550 no, I said")
"""


def test_printing_on_after_a_final_command(home: Home, serve: Serve) -> None:
    "Point 14: the pipe is closed then, Python ends with status 120 for it, and the client gets two replies."
    home.plugins("[mail]", home.program("chatty", CHATTY), ":echo Plater")
    server = serve()
    assert heard(server, MAIL) == ["550 no", CANT_EXECUTE.format("chatty")]
    assert "BrokenPipeError: [Errno 32] Broken pipe" in server.said()


def test_odd_output(home: Home, serve: Serve) -> None:
    "Point 15: a last line without newline, empty and unknown lines, NUL, 8-bit, CR."
    server = serve()
    for output, replies in (
        ("E550 no", ["550 n"]),
        ("A", ["250 ok"]),
        (r"P\n\nx\n550 no\npQ\n \nlM451 x\nL\nLx\nPend\n", ["", "end", "250 ok"]),
        (r"E550 no\0 matter\n", ["550 no"]),
        (r"E550 caf\351\n", ["550 caf\udce9"]),
        (r"E550 no\r\n", ["550 no\r"]),
        (r"\0E550 no\n", ["250 ok"]),
        (r"\377\376\n", ["250 ok"]),
    ):
        home.plugins("[mail]", f":printf '{output}'", "[rcpt]", ":echo Prcpt")
        assert heard(server, MAIL) == replies, output
        goes_on = ["rcpt", "250 ok"] if replies[-1] == "250 ok" else ["503 MAIL first (#5.5.1)"]
        assert heard(server, MAIL, ANA) == [*replies, *goes_on], output


def test_too_little_memory(home: Home, serve: Serve) -> None:
    "Point 17: below what Python needs a plugin dies at its start. If it ends by itself, mail goes through unchecked."
    server = serve()
    little = f"ulimit -v 4000; exec {home.path}/plugins/msa"
    crashes = subprocess.run(["sh", "-c", little], env={}, capture_output=True).returncode < 0  # as Debian's Python does
    home.plugins("[mail]", f":{little}")
    (reply,) = heard(server, MAIL)
    assert reply.startswith("451 qmail-spp failure") if crashes else reply == "250 ok"
    home.plugins("[mail]", ":ulimit -v 200000; exec plugins/msa")
    assert heard(server, MAIL) == ["550 You should be authenticated"]
    assert server.said()


@pytest.mark.parametrize("locale", ["C", "POSIX", "C.UTF-8", "en_US.ISO-8859-1", "nonsense", ""])
def test_locales(home: Home, serve: Serve, locale: str) -> None:
    "Point 18: our plugins keep every byte of an address, whatever the locale is."
    home.plugins("[rcpt]", "plugins/plusaliases", "plugins/rcptchecksfile", ':printf "P%s\\n" "$SMTPRCPTTO"')
    home.write(addresslist=b"\xff\xe9@example.org\n")
    server = serve(LC_ALL=locale, LANG=locale, PYTHONIOENCODING="ascii")
    said = heard(server, MAIL, "RCPT TO:<\udcff\udce9+tag@example.org>")
    assert said == ["250 ok", "\udcff\udce9@example.org", "250 ok"]
    assert server.said() == [
        r"plusaliases: pid PID - changed \xff\xe9+tag@example.org to \xff\xe9@example.org",
        r"rcptchecksfile: pid PID - Accepted recipient (\xff\xe9@example.org number 0 of 10000 )",
    ]


# The message


@pytest.mark.parametrize(
    "command, reply",
    [
        ("exit 0", "250 ok"),
        ("exit 11", "554 envelope address too long for qq (#5.1.3)"),
        ("exit 31", "554 mail server permanently rejected message (#5.3.0)"),
        ("exit 40", "554 qq permanent problem (#5.3.0)"),
        ("exit 10", "451 qq temporary problem (#4.3.0)"),
        ("exit 41", "451 qq temporary problem (#4.3.0)"),
        ("exit 71", "451 mail server temporarily rejected message (#4.3.0)"),
        ("kill -9 $$", "451 qq crashed (#4.3.0)"),
        ("no-such-command 2>&1", "451 qq temporary problem (#4.3.0)"),
        ("exec 0<&-; exit 0", "250 ok"),
    ],
)
def test_who_takes_the_message(home: Home, serve: Serve, command: str, reply: str) -> None:
    "An exit status of qmail-queue(8); a megabyte that nobody reads is no trouble."
    server = serve("--deliver", command)
    with server.client() as client:
        client.say(MAIL)
        client.say(ANA)
        assert client.say_message("Subject: x\n\n" + ("x" * 999 + "\n") * 1000) == reply
        assert client.say(ANA) == "503 MAIL first (#5.5.1)"
    told = "smtpd: pid PID - the command that takes messages ended with status "
    assert [line.rstrip("-0123456789") for line in server.said()] == ([] if reply == "250 ok" else [told])


def test_message_arrives_as_sent(home: Home, serve: Serve) -> None:
    "All bytes, dots and long lines, between 0 and 4 MB."
    server = serve("--deliver", DELIVER)
    wire = server.wire()
    wire.reply()
    every_byte = bytes(set(range(256)) - {10})
    for body in (b"", b".", b"..", every_byte, b"x" * 60_000, b"\r\n".join([every_byte] * 16_000)):
        for line in (MAIL, ANA, "DATA"):
            assert wire.say(line.encode())[:1] in (b"2", b"3")
        stuffed = b"\r\n".join(b"." + line if line.startswith(b".") else line for line in body.split(b"\r\n"))
        assert wire.say(stuffed + b"\r\n.").startswith(b"250 ok ")
        assert (home.path / "message").read_bytes().split(b"\n", 2)[2] == body.replace(b"\r\n", b"\n") + b"\n"
    wire.close()


def test_no_descriptor_is_handed_on(home: Home, serve: Serve) -> None:
    "A plugin gets standard output and standard error, and nothing else of the server's."
    look = f"#!{sys.executable} -I\nimport os\nprint('P', *sorted(os.listdir('/proc/self/fd')))\n"
    home.plugins("[mail]", home.program("look", look))
    server = serve()
    with server.client(), server.client():
        assert heard(server, MAIL) == [" 0 1 2", "250 ok"]  # 0 is the folder that it reads
