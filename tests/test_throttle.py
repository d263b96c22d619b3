"""The plugins that ask rater: programs behind our server, with a rater that counts, one that has gone, and ipsvd."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import socket
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from mailserver import COMMAND, DELIVER, ENVIRON, PATIENCE, Home, Server, until
from rater_server import rater
from test_rater_daemon import Daemon, end

from ra_plugins.rater.client import Answer, Client, aask

Serve = Callable[..., Server]

BANNER, MAIL, ANA = "220 mail.example.org ESMTP", "MAIL FROM:<eva@example.net>", "RCPT TO:<ana@example.org>"
TOO_MANY = "421 Too many connections. Please reduce connections per minute."
OVER = "Rate exceeded per IP (127.0.0.1)"


def log(name: str, *messages: str) -> list[str]:
    "The log lines of a plugin."
    return [f"{name}: pid PID - {message}" for message in messages]


def test_ipthrottle(home: Home, serve: Serve) -> None:
    "The third connection within a minute is sent away with a reply, before it says anything."
    home.plugins("[connection]", "plugins/ipthrottle")
    with rater(ip="2 in 1m") as address:
        server = serve(RATER=address)
        assert [server.transcript(MAIL) for _ in range(2)] == [[BANNER, "250 ok", "221 mail.example.org"]] * 2
        assert server.said() == []
        assert server.wire().rest().decode() == TOO_MANY + "\r\n"
        assert server.said() == log("ipthrottle", OVER)
    assert server.transcript(MAIL)[1] == "250 ok"
    assert server.said() == log("ipthrottle", f"Can't connect to rater ({address}: Connection refused)")


@pytest.mark.parametrize("stage, before", [("helo", []), ("mail", []), ("rcpt", [MAIL]), ("data", [MAIL, ANA])])
def test_ipthrottle_at_any_command(home: Home, serve: Serve, stage: str, before: list[str]) -> None:
    home.plugins(f"[{stage}]", "plugins/ipthrottle")
    says = {"helo": "EHLO x", "mail": MAIL, "rcpt": ANA, "data": "DATA"}[stage]
    with rater(ip="0 in 1m") as address:
        said = serve(RATER=address).transcript(*before, says, "NOOP")
    assert said == [BANNER, *["250 ok"] * len(before), TOO_MANY]


def test_ipthrottle_blocks_with_ipsvd(home: Home, serve: Serve, tmp_path: Path) -> None:
    "A file of mode 0200 named like the client, once; the reply tells for how long."
    peers = tmp_path / "peers"
    peers.mkdir()
    home.plugins("[connection]", "plugins/ipthrottle")
    with rater(ip="1 in 1m") as address:
        server = serve(RATER=address, IPSVDIR=str(peers), IPTHROTTLEMINUTES="5")
        heard = [server.transcript()[0] for _ in range(3)]
    assert heard == [BANNER, f"{TOO_MANY} Blocking for 5 minutes.", TOO_MANY]
    assert server.said() == log("ipthrottle", OVER, "Blocked 127.0.0.1", OVER)
    (path,) = peers.iterdir()
    assert path.name == "127.0.0.1" and stat.S_IMODE(path.stat().st_mode) == 0o200 and path.stat().st_size == 0


def test_ipthrottle_leaves_the_administrators_file_alone(home: Home, serve: Serve, tmp_path: Path) -> None:
    (tmp_path / "127.0.0.1").write_text("+RELAYCLIENT=")
    home.plugins("[connection]", "plugins/ipthrottle")
    with rater(ip="0 in 1m") as address:
        server = serve(RATER=address, IPSVDIR=str(tmp_path))
        assert server.transcript() == [TOO_MANY]
    assert server.said() == log("ipthrottle", OVER)
    assert (tmp_path / "127.0.0.1").read_text() == "+RELAYCLIENT="


def test_ipthrottle_can_not_block(home: Home, serve: Serve, tmp_path: Path) -> None:
    home.plugins("[connection]", "plugins/ipthrottle")
    with rater(ip="0 in 1m") as address:
        server = serve(RATER=address, IPSVDIR=str(tmp_path / "missing"))
        assert server.transcript() == [TOO_MANY]
    assert server.said() == log("ipthrottle", OVER, "error blocking 127.0.0.1: No such file or directory")


def test_ipthrottle_counts_right_when_all_come_at_once(home: Home, serve: Serve) -> None:
    home.plugins("[connection]", "plugins/ipthrottle")
    with rater(ip="10 in 1m") as address:
        server = serve(RATER=address)
        with ThreadPoolExecutor(8) as clients:
            heard = list(clients.map(lambda _: server.transcript()[0], range(24)))
    assert sorted(heard) == [BANNER] * 10 + [TOO_MANY] * 14
    assert server.said() == log("ipthrottle", *[OVER] * 14)


def run(home: Home, name: str, **environ: str) -> tuple[str, str]:
    "A plugin as qmail-smtpd would run it: what it prints and logs."
    program = home.path / "plugins" / name
    done = subprocess.run([program], env=environ, stdin=subprocess.DEVNULL, capture_output=True, restore_signals=False)
    assert done.returncode == 0
    return done.stdout.decode(), done.stderr.decode().replace(f": pid {os.getpid()} - ", ": pid PID - ")


def test_ipthrottle_and_addresses(home: Home) -> None:
    "An IPv4 address in an IPv6 one is the IPv4 address, an IPv6 address has one form, and what isn't one asks nothing."
    with rater(ip="1 in 1m") as address:
        for told, logged in (
            ("192.0.2.1", ""),
            ("::ffff:192.0.2.1", "Rate exceeded per IP (192.0.2.1)"),
            ("2001:db8::25", ""),
            ("2001:DB8:0:0::0025", "Rate exceeded per IP (2001:db8::25)"),
            ("fe80::1%eth0", ""),
            ("fe80::1", "Rate exceeded per IP (fe80::1)"),
        ):
            printed = f"R{TOO_MANY}\n" if logged else ""
            lines = "\n".join([*log("ipthrottle", logged), ""]) if logged else ""
            assert run(home, "ipthrottle", TCPREMOTEIP=told, RATER=address) == (printed, lines), told
        none = log("ipthrottle", "511 No IP address")[0]
        assert run(home, "ipthrottle", RATER=address) == ("", f"{none}\n")
        printed, logged = run(home, "ipthrottle", RATER=address, TCPREMOTEIP="../../etc/passwd", IPSVDIR="/nowhere")
        assert printed == "" and logged.endswith(f"{none}\n") and logged.count("\n") == 2


def test_userthrottle(home: Home, serve: Serve) -> None:
    "Each user has a limit of their own, and who hasn't logged in has none."
    home.plugins("[mail]", "plugins/userthrottle")
    with rater(user="2 in 1m") as address:
        server = serve("--like", "gentoo", "--users", home.users(ana="secret", ben="hidden"), RATER=address)
        for user, password, expected in (
            ("ana", "secret", ["250 ok", "250 ok", TOO_MANY]),
            ("ben", "hidden", ["250 ok", "250 ok"]),
        ):
            with server.client() as client:
                client.ehlo()
                client.login(user, password)
                assert [client.say(MAIL) for _ in expected] == expected
        assert server.talk(MAIL, MAIL, MAIL) == ["250 ok"] * 3
    assert server.said() == log("userthrottle", "Rate exceeded per user (ana)")


def test_userthrottle_counts_recipients(home: Home, serve: Serve) -> None:
    home.plugins("[rcpt]", "plugins/userthrottle")
    with rater(user="2 in 1m") as address:
        server = serve("--like", "gentoo", "--users", home.users(ana="secret"), RATER=address)
        with server.client() as client:
            client.ehlo()
            client.login("ana", "secret")
            said = [client.say(line) for line in (MAIL, ANA, ANA, ANA)]
    assert said == ["250 ok", "250 ok", "250 ok", TOO_MANY]


def test_a_user_can_not_ask_for_another(home: Home) -> None:
    "A newline in the user's name doesn't become a second question, which would count against somebody else."
    with rater(user="1 in 1m") as address:
        for name in ("eve\nuser ana", "eve\r\nuser ana", "-weight=9 ana"):
            assert run(home, "userthrottle", SMTPAUTHUSER=name, RATER=address)[0] == "", name
        assert run(home, "userthrottle", SMTPAUTHUSER="ana", RATER=address) == ("", "")
        printed, logged = run(home, "userthrottle", SMTPAUTHUSER="eve\nuser ana", RATER=address)
        assert printed == f"R{TOO_MANY}\n"
        assert logged == log("userthrottle", r"Rate exceeded per user (eve\x0auser ana)")[0] + "\n"


def test_rater_by_domain_and_network(home: Home, serve: Serve) -> None:
    "Two questions of one plugin, each with settings of its own."
    home.plugins(
        "[mail]",
        ":exec env RATERCLASS=net RATERVALUE='{client_net}' plugins/rater",
        ":exec env RATERCLASS=domain RATERVALUE='{sender_domain}' plugins/rater",
    )
    with rater(net="4 in 1m", domain="1 in 1m") as address:
        server = serve(RATER=address)
        heard = [
            server.transcript(f"MAIL FROM:<{sender}>")[1]
            for sender in ("a@example.net", "b@example.com", "c@Example.NET", "", "d@example.edu")
        ]
    assert heard == ["250 ok", "250 ok", TOO_MANY, "250 ok", TOO_MANY]
    assert server.said() == log(
        "rater",
        "Rate exceeded per domain (example.net)",
        "no sender_domain, so rater isn't asked",
        "Rate exceeded per net (127.0.0.0/24)",
    )


def test_rater_with_weights(home: Home, serve: Serve) -> None:
    "A message counts as often as it has recipients."
    home.plugins("[data]", "plugins/rater")
    weights = {"RATERCLASS": "sender", "RATERVALUE": "{sender}", "RATERWEIGHT": "{recipient_count}"}
    with rater(sender="5 in 1m") as address:
        server = serve("--deliver", DELIVER, RATER=address, **weights)
        message = ["DATA", "Subject: Tea", "."]
        codes = [line[:3] for line in server.transcript(MAIL, ANA, ANA, ANA, *message)]
        assert codes == ["220", "250", "250", "250", "250", "354", "250", "221"]
        assert server.transcript(MAIL, ANA, ANA, ANA, *message)[-1] == TOO_MANY
    assert server.said() == log("rater", "Rate exceeded per sender (eva@example.net)")


def test_what_rater_says_instead_of_a_verdict_is_logged(home: Home, serve: Serve) -> None:
    home.plugins("[mail]", "plugins/rater")
    with rater(ip="1 in 1m") as address:
        server = serve(RATER=address)
        assert server.talk(MAIL) == ["250 ok"]
    assert server.said() == log("rater", "Class not found: net")


def test_a_rater_that_hangs(home: Home, serve: Serve) -> None:
    "The mail waits for as long as was set, and goes on."
    home.plugins("[mail]", "plugins/ipthrottle")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = serve(RATER="{}:{}".format(*listener.getsockname()), RATERTIMEOUT="1")
        assert server.talk(MAIL) == ["250 ok"]
    assert server.said() == log("ipthrottle", "No answer from rater: timed out")


def test_a_rater_behind_a_unix_socket(home: Home, serve: Serve, tmp_path: Path) -> None:
    home.plugins("[connection]", "plugins/ipthrottle")
    with rater(tmp_path / "rater", ip="1 in 1m") as address:
        server = serve(RATER=address)
        assert [server.transcript()[0] for _ in range(2)] == [BANNER, TOO_MANY]


def test_a_dry_run_counts_nothing(home: Home) -> None:
    "It tells what was asked and answered, and changes nothing: neither the count nor ipsvd's folder."
    peers = home.path / "peers"
    peers.mkdir()
    home.plugins("[connection]", "plugins/ipthrottle")
    session = ["--ip", "192.0.2.1"]

    def attempt(*options: str) -> tuple[int, str]:
        command = [*COMMAND, "try", *session, "--control", str(home.control), *options]
        done = subprocess.run(command, env=ENVIRON, capture_output=True, timeout=PATIENCE)
        assert not done.stderr
        return done.returncode, done.stdout.decode()

    with rater(ip="2 in 1m") as address:
        options = ("--set", f"RATER={address}", "--set", f"IPSVDIR={peers}")
        for _ in range(3):
            status, told = attempt(*options)
            assert status == 0 and "asked     Rate('ip', '192.0.2.1'): Answer(0, '0/2')\n" in told
        for _ in range(3):
            run(home, "ipthrottle", TCPREMOTEIP="192.0.2.1", RATER=address)
        status, told = attempt(*options, "--json")
        (asked, blocked) = json.loads(told)["steps"][0]["plugins"][0]["asked"]
        assert status == 2 and asked == {"question": "Rate('ip', '192.0.2.1')", "answer": "Answer(1, '3/2')"}
        assert blocked == {"question": "Block('192.0.2.1')", "answer": "True"}
    assert list(peers.iterdir()) == []
    status, told = attempt(*options)
    assert status == 0 and f"asked     Rate('ip', '192.0.2.1'): Broken(\"Can't connect to rater ({address}: " in told


# rater itself, as a process


CONFIG = """
[settings]
port = {port}
socket = "{socket}"
control_port = false
[[limits.ip]]
match = "127.0.0.0/8"
limit = "100 in 1h"
[[limits.user]]
match = "newsletter"
exempt = true
[[limits.user]]
limit = "{limit}"
"""


def raterclient(*arguments: str) -> tuple[int, str]:
    "The exit status of raterclient, and what it writes."
    command = [sys.executable, "-c", "import sys; from ra_plugins.rater.client import main; sys.exit(main())"]
    done = subprocess.run([*command, *arguments], env=ENVIRON, stderr=subprocess.PIPE, text=True, timeout=PATIENCE)
    return done.returncode, done.stderr


def test_from_the_client_to_rater_and_back(home: Home, serve: Serve, tmp_path: Path) -> None:
    "SMTP clients, our server, plugins as programs, and rater: counted, told another limit, stopped, started anew."
    where = tmp_path / "rater.sock"
    daemon = Daemon(tmp_path, CONFIG.format(port=0, socket=where, limit="2 in 1h"))
    port = daemon.ports["questions"]
    home.plugins("[connection]", "plugins/ipthrottle", "[mail]", "plugins/userthrottle")
    users = home.users(ana="secret", newsletter="weekly")
    server = serve("--like", "gentoo", "--users", users, RATER=f"127.0.0.1:{port}")

    def mail(user: str, password: str, times: int) -> list[str]:
        with server.client() as client:
            client.ehlo()
            client.login(user, password)
            return [client.say(MAIL) for _ in range(times)]

    try:
        assert mail("ana", "secret", 3) == ["250 ok", "250 ok", TOO_MANY]
        assert mail("newsletter", "weekly", 5) == ["250 ok"] * 5
        assert server.said() == log("userthrottle", "Rate exceeded per user (ana)")
        assert raterclient("--address", str(where), "-peek", "user", "ana") == (1, "1 3/2\n")
        assert raterclient("--address", str(where), "-peek", "ip", "127.0.0.1") == (0, "0 2/100\n")

        daemon.reread(CONFIG.format(port=0, socket=where, limit="4 in 1h"))
        until(lambda: raterclient("--address", str(where), "-peek", "user", "ana")[1] == "0 3/4\n", "another limit")
        assert mail("ana", "secret", 2) == ["250 ok", TOO_MANY]
        server.said()

        assert daemon.stop()[0] == 0
        assert mail("ana", "secret", 1) == ["250 ok"]
        assert server.said() == [
            *log("ipthrottle", f"Can't connect to rater (127.0.0.1:{port}: Connection refused)"),
            *log("userthrottle", f"Can't connect to rater (127.0.0.1:{port}: Connection refused)"),
        ]

        daemon = Daemon(tmp_path, CONFIG.format(port=port, socket=where, limit="1 in 1h"))
        assert mail("ana", "secret", 2) == ["250 ok", TOO_MANY]
    finally:
        end(daemon)


def test_a_connection_to_rater_outlives_it(tmp_path: Path) -> None:
    "The client goes on with the new one; while there is none, it says so."
    daemon = Daemon(tmp_path, CONFIG.format(port=0, socket=tmp_path / "rater.sock", limit="5 in 1h"))
    port = daemon.ports["questions"]
    with Client(f"127.0.0.1:{port}", PATIENCE) as client:
        assert [str(client.ask("user", "ana")) for _ in range(2)] == ["0 1/5", "0 2/5"]
        assert str(client.ask("user", "newsletter")) == "0 0/0"
        assert daemon.stop()[0] == 0
        assert client.ask("user", "ana").text == "Can't connect to rater"
        daemon = Daemon(tmp_path, CONFIG.format(port=port, socket=tmp_path / "rater.sock", limit="5 in 1h"))
        try:
            assert str(client.ask("user", "ana", weight=6)) == "1 6/5"
            assert asyncio.run(aask("user", "ana", address=str(tmp_path / "rater.sock"), peek=True)) == Answer(1, "6/5")
        finally:
            end(daemon)


# ipsvd itself


@pytest.fixture
def tcpsvd(home: Home) -> Iterator[Callable[[str, Path], int]]:
    "Starts tcpsvd with ipthrottle in the place of qmail-smtpd, and gives its port."
    program = shutil.which("tcpsvd")
    if not program:
        pytest.skip("ipsvd isn't installed")
    started: list[subprocess.Popen[bytes]] = []

    def start(address: str, peers: Path) -> int:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            port: int = listener.getsockname()[1]
        command = [
            program,
            "-i",
            str(peers),
            "-t",
            "60",
            "127.0.0.1",
            str(port),
            str(home.path / "plugins" / "ipthrottle"),
        ]
        started.append(subprocess.Popen(command, env={"RATER": address, "IPSVDIR": str(peers)}))
        until(lambda: listens(port), "tcpsvd listens")
        return port

    yield start
    for process in started:
        process.terminate()
        process.wait(PATIENCE)


def listens(port: int) -> bool:
    "Does anybody accept connections there?"
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0


def test_ipsvd_refuses_who_is_blocked(tcpsvd: Callable[[str, Path], int], tmp_path: Path) -> None:
    "What ipthrottle leaves behind is what tcpsvd understands: from then on it doesn't start the program."
    peers = tmp_path / "peers"
    peers.mkdir()

    def heard(port: int) -> bytes:
        with socket.create_connection(("127.0.0.1", port), PATIENCE) as client:
            return client.makefile("rb").read()

    with rater(ip="3 in 1m") as address:
        port = tcpsvd(address, peers)  # which has asked once
        until(lambda: b"Blocking" in heard(port), "the client is blocked")
        assert heard(port) == b""
    assert [path.name for path in peers.iterdir()] == ["127.0.0.1"]
