"""spfquery as people run it: its options, its lines and its exit status, as a process where that matters."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import pytest

from ra_plugins.ask.dns import Zone
from ra_plugins.cli.command import main as ra_plugins
from ra_plugins.spf.evaluation import EXPLANATION_LENGTH
from ra_plugins.spf.spfquery import CANT_ANSWER, STATUS, SpfquerySetup, SpfRequest, answer_request, main

ZONE = """
$ORIGIN example.org.
@       MX   10 mx
        A    192.0.2.80
mx      A    192.0.2.33
nobody  TXT  "v=spf1 -all"
soft    TXT  "v=spf1 ~all"
open    TXT  "v=spf1 ?all"
other   TXT  "v=spf2 default=bogus"
broken  TXT  "v=spf1 some:unrecognized=mechanism -all"
loop    CNAME loop
mail    TXT  "v=spf1 mx -all"
        MX   10 relay
relay   A    192.0.2.10
host    TXT  "v=spf1 a -all"
        A    192.0.2.120
three   TXT  "v=spf1 mx mx:example.org mx:mail.example.org -all"
        MX   10 relay
inner   TXT  "v=spf1 ip4:192.0.2.128/28 -all"
outer   TXT  "v=spf1 a include:inner.example.org -all"
        A    192.0.2.121
plain   A    198.51.100.4

$ORIGIN trusted-forwarder.org.
spf           TXT "v=spf1 exists:%{ir}.wl.trusted-forwarder.org ?all"
7.2.0.192.wl  A 127.0.0.2
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("spfquery")
    (folder / "zone").write_text(ZONE, encoding="utf-8")
    return folder


class Run:
    "What a run of a command did."

    def __init__(self, status: int, output: str, errors: str):
        self.status, self.output, self.errors, self.lines = status, output, errors, output.splitlines()
        assert "Traceback" not in errors, errors


def process(
    folder: Path,
    *arguments: str,
    stdin: str = "",
    command: str = "main()",  # or another of the module's
    **environ: str,
) -> Run:
    "Run spfquery as a process."
    script = f"import os, sys; from ra_plugins.spf.spfquery import *; sys.exit({command})"
    found = subprocess.run(
        [sys.executable, "-c", script, *arguments],
        cwd=folder,
        env={**os.environ, **environ},
        input=stdin.encode("utf-8", "surrogateescape"),
        capture_output=True,
        timeout=60,
        check=False,
    )
    return Run(found.returncode, found.stdout.decode(), found.stderr.decode())


def spfquery(folder: Path, *arguments: str) -> Run:
    "Run spfquery in this process, which is quicker, with the zone from above."
    output, errors = io.StringIO(), io.StringIO()
    before = Path.cwd()
    os.chdir(folder)
    try:
        with redirect_stdout(output), redirect_stderr(errors):
            status = main(["-zone=zone", *arguments])
    finally:
        os.chdir(before)
    return Run(status, output.getvalue(), errors.getvalue())


# Exit statuses and options

LOCAL = ["-ip=192.0.2.1", "-sender=host.example.org", "-local", "ip4:192.0.2.0/28"]
FAIL = ["-ip=192.0.2.1", "-sender=ana@nobody.example.org", "-helo=x"]


@pytest.mark.parametrize(
    ("ip", "sender", "result"),
    [
        ("192.0.2.10", "mail.example.org", "pass"),
        ("192.0.2.1", "nobody.example.org", "fail"),
        ("192.0.2.1", "soft.example.org", "softfail"),
        ("192.0.2.1", "open.example.org", "neutral"),
        ("192.0.2.1", "broken.example.org", "permerror"),
        ("192.0.2.1", "loop.example.org", "temperror"),
        ("192.0.2.1", "other.example.org", "none"),
    ],
)
def test_status(folder: Path, ip: str, sender: str, result: str) -> None:
    run = process(folder, "-zone=zone", f"-ip={ip}", f"-sender={sender}")
    assert run.lines[0] == result and run.status == STATUS[result] and len(run.lines) == 4


def test_statuses_are_those_of_mail_spf() -> None:
    assert list(STATUS) == ["pass", "fail", "softfail", "neutral", "permerror", "temperror", "none"]
    assert list(STATUS.values()) == list(range(7))


@pytest.mark.parametrize(
    "arguments",
    [
        ["-ip", "192.0.2.1", "-sender", "ana@nobody.example.org", "-helo", "x"],
        ["--ip=192.0.2.1", "--sender=ana@nobody.example.org", "--helo=x"],
        ["-i", "192.0.2.1", "-s", "ana@nobody.example.org", "-h=x"],
        ["--ip-address", "192.0.2.1", "-mail-from=ana@nobody.example.org", "-helo-identity=x"],
        ["-ipv4=192.0.2.1", "--sen", "ana@nobody.example.org", "-helo=x", "-trusted", "0", "-sanitize"],
    ],
)
def test_ways_to_write_options(folder: Path, arguments: list[str]) -> None:
    assert spfquery(folder, *arguments).lines == spfquery(folder, *FAIL).lines


def test_bounce(folder: Path) -> None:
    for sender in ("", "<>"):
        run = spfquery(folder, "-ip=192.0.2.1", f"-sender={sender}", "-helo=nobody.example.org")
        assert run.status == 1 and "envelope-from=postmaster@nobody.example.org; helo=nobody." in run.lines[3]
    assert spfquery(folder, "-ip=192.0.2.1", "-helo=nobody.example.org").lines == run.lines


def test_name_and_explanation(folder: Path) -> None:
    run = spfquery(folder, *FAIL, "-name", "mx.example.org", "-default-explanation", "%{s} isn't from %{i}, says %{r}")
    assert run.lines[1] == "ana@nobody.example.org isn't from 192.0.2.1, says mx.example.org"
    assert run.lines[2].startswith("mx.example.org: ") and "(mx.example.org: " in run.lines[3]


def test_sanitize(folder: Path) -> None:
    blanks = ["-default-explanation", "a  b"]
    assert spfquery(folder, *FAIL, *blanks).lines[1] == "a b"
    assert spfquery(folder, *FAIL, *blanks, "-sanitize=0").lines[1] == "a  b"


def test_local(folder: Path) -> None:
    run = spfquery(folder, *FAIL[:1], "-sender=host.example.org", "-local", "-all")
    assert run.lines[0] == "fail" and run.lines[2] == (
        "spfquery: local policy does not designate 192.0.2.1 as permitted sender"
    )


def test_trusted(folder: Path) -> None:
    asked = ["-ip=192.0.2.7", "-sender=host.example.org"]
    assert [spfquery(folder, *asked, *option).lines[0] for option in ([], ["-trusted"], ["-trusted", "0"])] == [
        "fail",
        "pass",
        "fail",
    ]
    assert spfquery(folder, "-ip=192.0.2.8", asked[1], "-trusted=1").lines[0] == "fail"


def test_guess(folder: Path) -> None:
    asked = ["-ip=198.51.100.4", "-sender=plain.example.org"]
    assert spfquery(folder, *asked).lines[0] == "none"
    run = spfquery(folder, *asked, "-guess", "v=spf1 a/24 mx/24 ptr")
    assert run.lines[0] == "pass" and "best guess record for domain of plain.example.org designates" in run.lines[2]
    assert spfquery(folder, *FAIL, "-guess=+all").lines[0] == "fail"  # it has a policy


def test_max_lookup(folder: Path) -> None:
    asked = ["-ip=192.0.2.1", "-sender=three.example.org", "-max-lookup"]
    assert [spfquery(folder, *asked, most).lines[0] for most in ("3", "2", "0")] == ["fail", "permerror", "permerror"]


def test_recipients(folder: Path) -> None:
    asked = ["-ip=192.0.2.33", "-sender=host.example.org", "-rcpt-to"]
    run = spfquery(folder, *asked, "foo@example.org, foo@example.net")
    assert run.lines[0] == "pass,fail,fail" and run.status == 1
    run = spfquery(folder, *asked, "foo@example.org")
    assert run.lines[0] == "pass,pass" and run.status == 0 and run.lines[1] == ""
    assert run.lines[2] == (
        "spfquery: message received from 192.0.2.33 which is an MX secondary for example.org."
    )
    assert run.lines[3].startswith("Received-SPF: pass (spfquery: message received from 192.0.2.33 ")


def test_json(folder: Path) -> None:
    run = spfquery(folder, *FAIL, "-rcpt-to=foo@example.net", "--json")
    told = json.loads(run.output)
    assert len(run.lines) == 1 and run.status == 1 and told["result"] == told["check"]["result"] == "fail"
    assert told["recipients"] == [{"recipient": "foo@example.net", "result": "fail"}]
    assert told["header"].startswith("Received-SPF: fail (spfquery: domain of nobody.")
    assert told["check"]["trace"]["terms"][0]["term"] == "-all" and told["other policy"] is None
    told = json.loads(spfquery(folder, *LOCAL, "-json").output)
    assert (told["result"], told["check"]["result"], told["other policy"]["result"]) == ("pass", "fail", "pass")


def test_trace_and_debug(folder: Path) -> None:
    plain = spfquery(folder, *FAIL)
    run = spfquery(folder, *FAIL, "-trace")
    assert run.lines[:4] == plain.lines and run.lines[-1].split() == ["-all", "match:", "fail"]
    trees = spfquery(folder, *LOCAL, "-trace").lines[4:]
    assert [line.split(":")[0] for line in trees if " lookups, " in line] == ["fail", "pass"]
    run = spfquery(folder, *FAIL, "-debug", "2")
    assert run.lines == plain.lines and run.errors.splitlines()[-1].split() == ["-all", "match:", "fail"]


def test_help_and_version(folder: Path) -> None:
    run = process(folder, "--help")
    assert run.status == 0 and all(f"  -{name}" in run.output for name in ("ip", "rcpt-to", "max-lookup", "json"))
    run = process(folder, "-version")
    assert run.status == 0 and run.output.startswith("spfquery of ra-plugins ") and len(run.lines) == 1


# Many at a time

MANY = """\
# a comment
192.0.2.1 nobody.example.org x

192.0.2.10  ana@mail.example.org\tmail.example.org
192.0.2.33 host.example.org x foo@example.org,foo@example.net
192.0.2.1 <> soft.example.org"""


@pytest.mark.parametrize("from_stdin", [True, False])
def test_file(folder: Path, from_stdin: bool) -> None:
    (folder / "many").write_text(MANY)
    run = process(folder, "-zone=zone", "-file", "-" if from_stdin else "many", stdin=MANY.replace("\n", "\r\n"))
    assert run.lines[::4] == ["fail", "pass", "pass,fail,fail", "softfail"] and len(run.lines) == 16
    assert run.status == STATUS["softfail"] and not run.errors


def test_thousand(folder: Path) -> None:
    run = process(folder, "-zone=zone", "-f=-", "-json", stdin="192.0.2.1 ana@three.example.org x\n" * 1000)
    assert len(run.lines) == 1000 and {json.loads(line)["result"] for line in run.lines} == {"fail"}


def test_comments(folder: Path) -> None:
    assert process(folder, "-zone=zone", "-f=-", "-keep-comments", stdin=MANY).lines[0] == "# a comment"


def test_wrong_lines(folder: Path) -> None:
    bad = "192.0.2.1\n192.0.2.300 a b\n\udcff\udcfe a\n1 2 3 4 5\n\x1b[2J b c\n192.0.2.10 mail.example.org\n"
    run = process(folder, "-zone=zone", "-f=-", stdin=bad)
    assert run.lines[0] == "pass" and len(run.lines) == 4 and run.status == CANT_ANSWER
    assert [line.split(":")[1] for line in run.errors.splitlines()] == [f" line {number}" for number in range(1, 6)]
    assert "\x1b" not in run.errors


def test_answers_come_at_once(folder: Path) -> None:
    "Whoever pipes requests into spfquery gets each answer before the next request."
    command = "import sys; from ra_plugins.spf.spfquery import main; sys.exit(main())"
    arguments = [sys.executable, "-c", command, "-zone=zone", "-file=-"]
    with subprocess.Popen(arguments, cwd=folder, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin and process.stdout
        for sender, result in (("nobody", "fail"), ("soft", "softfail")):
            process.stdin.write(f"192.0.2.1 {sender}.example.org x\n")
            process.stdin.flush()
            assert [process.stdout.readline() for _ in range(4)][0] == f"{result}\n"
        process.stdin.close()
        assert process.wait(60) == STATUS["softfail"]


# What goes wrong


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["-ip=192.0.2.1"],
        ["-sender=a@b.example"],
        ["-ip=192.0.2.1", "-sender="],
        ["-ip=192.0.2.256", "-sender=a@b.example"],
        ["-ip=\udcff", "-sender=a@b.example"],
        ["-ip", "-sender=a@b.example"],
        ["-sender"],
        ["-bogus"],
        ["bogus"],
        ["-json=1"],
        ["-max-lookup=-1", *FAIL],
        ["-max-lookup=", *FAIL],
        ["-max-lookup=99999999999", *FAIL],
        ["-default-explanation=100%", *FAIL],
        ["-file=/nowhere/at\nall"],
        ["-file=."],
        ["-file=-", "-ip=192.0.2.1"],
        ["-file=-"],
        ["-zone=/nowhere", *FAIL],
        ["-zone=broken", *FAIL],
    ],
)
def test_faults(folder: Path, arguments: list[str]) -> None:
    (folder / "broken").write_text("mx A 192.0.2\n")
    run = process(folder, "-zone=zone", *arguments) if "-file=-" in arguments else spfquery(folder, *arguments)
    assert run.status == CANT_ANSWER and run.output == ""
    assert run.errors.startswith("spfquery: ") and run.errors.count("\n") == 1 and run.errors.rstrip("\n").isprintable()


@pytest.mark.parametrize(
    "hostile",
    [
        "a\nb@nobody.example.org",
        "x) client-ip=1.2.3.4 (@nobody.example.org",
        'x"; y="\\@nobody.example.org',
        "caf\udce9@nobody.example.org",
        "a@nobody.example.org\r\nBcc: all@example.org",
        "a" * 20_000 + "@nobody.example.org",
        "@",
        "\x1b[2J",
        "a@" + "b." * 9000 + "example",
        "<b>@[192.0.2.1]",
        "é@é",
    ],
)
def test_hostile_words(folder: Path, hostile: str) -> None:
    for arguments in (["-sender", hostile], ["-helo", hostile], [f"-sender={hostile}", f"-helo={hostile}", "-trace"]):
        run = spfquery(folder, "-ip=192.0.2.1", *arguments, "-rcpt-to", hostile)
        assert run.status in STATUS.values() and len(run.lines) >= 4 and not run.errors
        assert all(line.isprintable() and len(line) < 1000 for line in run.lines)
        assert run.lines[3].startswith("Received-SPF: ") and len(run.lines[1]) <= EXPLANATION_LENGTH
        if "-trace" not in arguments:
            assert len(run.lines) == 4 and run.output.isascii()


def test_output_in_any_locale(folder: Path) -> None:
    run = process(
        folder, "-zone=zone", "-ip=192.0.2.1", "-sender=é@nobody.example.org", "-trace", PYTHONIOENCODING="ascii"
    )
    assert run.status == 1 and run.output.isascii() and "é" not in run.output


def test_nobody_reads(folder: Path) -> None:
    command = f"{sys.executable} -c 'import sys; from ra_plugins.spf.spfquery import main; sys.exit(main())'"
    many = "192.0.2.1 nobody.example.org x\n" * 2000
    found = subprocess.run(
        ["/bin/sh", "-c", f"{command} -zone=zone -file=- -trace | head -1"],
        cwd=folder,
        input=many.encode(),
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert found.stdout == b"fail\n" and found.stderr == b""


def test_hostile_words_as_process(folder: Path) -> None:
    run = process(
        folder, "-zone=zone", "-ip=192.0.2.1", "-sender=caf\udce9\n@nobody.example.org", "-helo=\x1b[2J"
    )
    assert run.status == 1 and len(run.lines) == 4 and run.output.isascii() and "\x1b" not in run.output


def test_fault_as_process(folder: Path) -> None:
    run = process(folder, "-bogus")
    assert (run.status, run.output, run.errors) == (CANT_ANSWER, "", "spfquery: there is no option -bogus\n")


def test_no_standard_input(folder: Path) -> None:
    command = "os.close(0) or main()"
    run = process(folder, "-zone=zone", "-file=-", command=command)
    assert run.status == CANT_ANSWER and run.errors == "spfquery: can't read -: Bad file descriptor\n"


# `ra-plugins spf explain`


def test_explain(folder: Path) -> None:
    command = "explain(sys.argv[1:])"
    run = process(folder, "outer.example.org", "--ip", "192.0.2.130", "--zone=zone", command=command)
    assert run.status == 0 and run.lines[0].startswith(
        "pass: outer.example.org from 192.0.2.130: 2 of 10 lookups"
    )
    assert "include:inner.example.org" in run.lines[3] and "match: pass" in run.lines[3]
    run = process(folder, "--json", "--ip=192.0.2.1", "--zone=zone", "ana@nobody.example.org", command=command)
    assert run.status == 1 and json.loads(run.output)["decided"] == {
        "domain": "nobody.example.org",
        "term": "-all",
    }
    for arguments in ([], ["--ip=192.0.2.1"], ["a", "b", "--ip=1"], ["example.org", "--ip=x"]):
        run = process(folder, *arguments, "--zone=zone", command=command)
        assert run.status == CANT_ANSWER and run.errors.startswith("ra-plugins spf explain: ") and run.errors.count("\n") == 1


def test_explain_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert ra_plugins(["spf", "explain", "--help"]) == 0
    assert capsys.readouterr().out.startswith("usage: ra-plugins spf explain DOMAIN")


@pytest.mark.parametrize("arguments", [["spf", "--help"], ["spf", "-h"]])
def test_the_commands_for_spf(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert ra_plugins(arguments) == 0
    said = capsys.readouterr().out
    assert said.startswith("usage: ra-plugins spf") and all(f"\n    {name} " in said for name in ("explain", "lint"))


def test_a_command_for_spf_that_is_not_there(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in (["spf"], ["spf", "bogus"]):
        assert ra_plugins(arguments) == 3
        assert capsys.readouterr().err.startswith("ra-plugins spf: ")


def test_policies_ask_nothing_of_who_answers() -> None:
    "A zone without anything in it: every option has its say, and nothing goes wrong."
    for options in ({}, {"local": "mx include:a.example ~all"}, {"guess": "a mx ptr ?all"}, {"trusted": True}):
        setup = SpfquerySetup()
        setup.resolver = Zone({})
        vars(setup).update(options)
        assert answer_request(SpfRequest("192.0.2.1", "a@b.example", "c", ["d@e.example"]), setup).name in STATUS
