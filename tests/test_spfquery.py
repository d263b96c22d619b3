"""spfquery as people run it: a process, its options, its lines and its exit status; and libspf2's suite through it.

The suite's zone is written to a master file for the processes. `servfail.spf1-test.mailzone.com`, which never answers,
can't be in one, so that case is judged in this process like the rest of the 183.
"""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import pytest
from dns_server import DnsServer
from spf_suites import SuiteZone, cases

from ra_plugins.spf.check import EXPLANATION_LENGTH
from ra_plugins.spf.spfquery import FAULT, STATUS, Request, Setup, judge, lines, main
from ra_plugins.support.dns import Zone
from ra_plugins.support.resolver import Resolver

ROOT = Path(__file__).resolve().parent.parent
SUITE = Path(os.environ.get("RA_SHARED", ROOT.parent / "shared")) / "data" / "libspf2-live.yml"
if not SUITE.exists():
    pytest.skip(f"libspf2's suite isn't at {SUITE}", allow_module_level=True)
CASES = {name: (case, zone) for name, case, zone in cases(SUITE)}
SUITE_ZONE = next(iter(CASES.values()))[1]
OLD = {"unknown": "permerror", "/^unknown/": "permerror", "error": "temperror"}  # names of results before RFC 4408

# Where RFC 7208 and the suite, which is older, don't agree: the section, and what we answer.
OTHER_RESULTS = {
    "live-007": ("6", "neutral"),  # `default=deny` is an unknown modifier: the record is a bare v=spf1
    "live-121": ("4.6", "permerror"),  # `moo` is no term, and a mistake anywhere is a permerror, behind `-all` too
    "live-168": ("4.6", "permerror"),  # `gpg` likewise, although `mx` before it would match
    "live-169": ("4.6", "permerror"),  # … or `-a`
    "live-178": ("6", "pass"),  # `mp3=yes` is a modifier that nobody knows, and its name may hold a digit
    "live-179": ("6", "fail"),
    "live-183": ("6.2", "permerror"),  # `exp=` without a domain
}
# The suite's words for what is wrong with a record, where ours (and pyspf's) are others; the result is the same.
OTHER_REASONS = {
    "Required option is missing": ["live-076"],
    "Could not find a valid SPF record": ["live-081", "live-082", "live-084", "live-085"],
    "Mechanisms used too many DNS lookups": ["live-086", "live-087", "live-127"],
    "Unknown mechanism found": [f"live-{number}" for number in range(157, 165)],  # ours say what isn't a macro
    "Invalid character found": ["live-171", "live-172", "live-173", "live-174"],
}
# `problem=` in the header is the term that is wrong, and a record whose last terms are never reached isn't wrong.
OTHER_PROBLEMS = ["live-010", "live-119", "live-124", "live-125", "live-128", "live-151", "live-152", "live-170"]
WITHOUT_POSTMASTER = ["live-180"]  # the suite's sender lacks the postmaster that its other 182 cases have


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("spfquery")
    (folder / "zone").write_text(master_file(SUITE_ZONE), encoding="utf-8")
    return folder


def master_file(zone: SuiteZone) -> str:
    "A zone as RFC 1035 has it."
    forms: dict[str, Any] = {
        "TXT": lambda text: '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"',
        "MX": lambda value: f"{value[0]} {value[1]}.",
        "PTR": lambda name: f"{name}.",
        "CNAME": lambda name: f"{name}.",
    }
    return "\n".join(
        f"{name}. {rdtype} {forms.get(rdtype, str)(value)}"
        for (name, rdtype), values in zone.records.items()
        for value in values
    )


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
    "Run spfquery in this process, which is quicker, with the suite's zone."
    output, errors = io.StringIO(), io.StringIO()
    before = Path.cwd()
    os.chdir(folder)
    try:
        with redirect_stdout(output), redirect_stderr(errors):
            status = main(["-zone=zone", *arguments])
    finally:
        os.chdir(before)
    return Run(status, output.getvalue(), errors.getvalue())


def current(text: str) -> str:
    "A result of the suite by its present name."
    return ",".join(OLD.get(name, name) for name in text.split(","))


def answer(case: dict[str, Any], zone: Any) -> list[str]:
    setup = Setup()
    setup.resolver, setup.local = zone, case.get("local", "")
    recipients = case["rcpt-to"].split(",") if "rcpt-to" in case else []
    return lines(judge(Request(case["host"], case["mailfrom"], case["helo"], recipients), setup))


# libspf2's suite


@pytest.mark.parametrize("name", CASES)
def test_suite(name: str) -> None:
    case, zone = CASES[name]
    result, _, comment, header = answer(case, zone)
    if name in OTHER_RESULTS:
        assert result == OTHER_RESULTS[name][1] != current(case["result"])
        return
    assert result == current(case["result"])
    reasons = [reason for reason, names in OTHER_REASONS.items() if name in names]
    if reasons:
        beginning, reason, _ = case["header-comment"].partition(reasons[0])
        assert comment.startswith(beginning) and reason and comment != case["header-comment"]
    elif "header-comment" in case:
        assert comment == case["header-comment"]
        wanted = case["received-spf"]
        for old, new in OLD.items():
            wanted = wanted.replace(f"Received-SPF: {old} ", f"Received-SPF: {new} ")
        if name in OTHER_PROBLEMS:
            assert header.split(" problem=")[0] == wanted.split(" problem=")[0] and header != wanted
        elif name in WITHOUT_POSTMASTER:
            assert header.replace("postmaster@", "") == wanted
        else:
            assert header == wanted


def test_suite_is_whole() -> None:
    assert len(CASES) == 183


@pytest.mark.parametrize("name", ["live-001", "live-003", "live-005", "live-006", "live-012", "live-140", "live-148"])
def test_suite_as_process(folder: Path, name: str) -> None:
    case, _ = CASES[name]
    local = ["-local", case["local"]] if "local" in case else []
    run = process(
        folder, "-zone=zone", "-ip", case["host"], "--sender", case["mailfrom"], f"--helo={case['helo']}", *local
    )
    assert run.lines[0] == current(case["result"]) and run.lines[2:] == [case["header-comment"], case["received-spf"]]
    assert run.status == STATUS[run.lines[0]] and not run.errors
    assert run.lines[1].startswith("Please see https://") == (run.lines[0] == "fail")


@pytest.mark.parametrize("name", ["live-005", "live-041", "live-139", "live-130", "live-133", "live-165"])
def test_dns_says_the_same(name: str) -> None:
    case, zone = CASES[name]
    with DnsServer(zone) as server:
        assert answer(case, Resolver(["127.0.0.1"], port=server.port)) == answer(case, zone)


# Exit statuses and options

LOCAL = ["-ip=192.0.2.1", "-sender=20.spf1-test.mailzone.com", "-local", "ip4:192.0.2.0/28"]
FAIL = ["-ip=192.0.2.1", "-sender=ana@02.spf1-test.mailzone.com", "-helo=x"]


@pytest.mark.parametrize(
    ("ip", "sender", "result"),
    [
        ("192.0.2.10", "10.spf1-test.mailzone.com", "pass"),
        ("192.0.2.1", "02.spf1-test.mailzone.com", "fail"),
        ("192.0.2.1", "03.spf1-test.mailzone.com", "softfail"),
        ("192.0.2.1", "06.spf1-test.mailzone.com", "neutral"),
        ("192.0.2.1", "110.spf1-test.mailzone.com", "permerror"),
        ("192.0.2.1", "loop.example", "temperror"),
        ("192.0.2.1", "07.spf1-test.mailzone.com", "none"),
    ],
)
def test_status(folder: Path, ip: str, sender: str, result: str) -> None:
    (folder / "more").write_text((folder / "zone").read_text() + "\nloop.example. CNAME loop.example.\n")
    run = process(folder, "-zone=more", f"-ip={ip}", f"-sender={sender}")
    assert run.lines[0] == result and run.status == STATUS[result] and len(run.lines) == 4


def test_statuses_are_those_of_mail_spf() -> None:
    assert list(STATUS) == ["pass", "fail", "softfail", "neutral", "permerror", "temperror", "none"]
    assert list(STATUS.values()) == list(range(7))


@pytest.mark.parametrize(
    "arguments",
    [
        ["-ip", "192.0.2.1", "-sender", "ana@02.spf1-test.mailzone.com", "-helo", "x"],
        ["--ip=192.0.2.1", "--sender=ana@02.spf1-test.mailzone.com", "--helo=x"],
        ["-i", "192.0.2.1", "-s", "ana@02.spf1-test.mailzone.com", "-h=x"],
        ["--ip-address", "192.0.2.1", "-mail-from=ana@02.spf1-test.mailzone.com", "-helo-identity=x"],
        ["-ipv4=192.0.2.1", "--sen", "ana@02.spf1-test.mailzone.com", "-helo=x", "-trusted", "0", "-sanitize"],
    ],
)
def test_ways_to_write_options(folder: Path, arguments: list[str]) -> None:
    assert spfquery(folder, *arguments).lines == spfquery(folder, *FAIL).lines


def test_bounce(folder: Path) -> None:
    for sender in ("", "<>"):
        run = spfquery(folder, "-ip=192.0.2.1", f"-sender={sender}", "-helo=02.spf1-test.mailzone.com")
        assert run.status == 1 and "envelope-from=postmaster@02.spf1-test.mailzone.com; helo=02." in run.lines[3]
    assert spfquery(folder, "-ip=192.0.2.1", "-helo=02.spf1-test.mailzone.com").lines == run.lines


def test_name_and_explanation(folder: Path) -> None:
    run = spfquery(folder, *FAIL, "-name", "mx.example.org", "-default-explanation", "%{s} isn't from %{i}, says %{r}")
    assert run.lines[1] == "ana@02.spf1-test.mailzone.com isn't from 192.0.2.1, says mx.example.org"
    assert run.lines[2].startswith("mx.example.org: ") and "(mx.example.org: " in run.lines[3]


def test_sanitize(folder: Path) -> None:
    blanks = ["-default-explanation", "a  b"]
    assert spfquery(folder, *FAIL, *blanks).lines[1] == "a b"
    assert spfquery(folder, *FAIL, *blanks, "-sanitize=0").lines[1] == "a  b"


def test_local(folder: Path) -> None:
    run = spfquery(folder, *FAIL[:1], "-sender=20.spf1-test.mailzone.com", "-local", "-all")
    assert run.lines[0] == "fail" and run.lines[2] == (
        "spfquery: local policy does not designate 192.0.2.1 as permitted sender"
    )


def test_trusted(folder: Path) -> None:
    listed = "7.2.0.192.wl.trusted-forwarder.org. A 127.0.0.2\n"
    (folder / "trust").write_text((folder / "zone").read_text() + "\n" + listed)
    asked = ["-zone=trust", "-ip=192.0.2.7", "-sender=20.spf1-test.mailzone.com"]
    assert [spfquery(folder, *asked, *option).lines[0] for option in ([], ["-trusted"], ["-trusted", "0"])] == [
        "fail",
        "pass",
        "fail",
    ]
    assert spfquery(folder, *asked[:1], "-ip=192.0.2.8", asked[2], "-trusted=1").lines[0] == "fail"


def test_guess(folder: Path) -> None:
    asked = ["-ip=64.236.24.4", "-sender=www1.cnn.com"]
    assert spfquery(folder, *asked).lines[0] == "none"
    run = spfquery(folder, *asked, "-guess", "v=spf1 a/24 mx/24 ptr")
    assert run.lines[0] == "pass" and "best guess record for domain of www1.cnn.com designates" in run.lines[2]
    assert spfquery(folder, *FAIL, "-guess=+all").lines[0] == "fail"  # it has a policy


def test_max_lookup(folder: Path) -> None:
    asked = ["-ip=192.0.2.1", "-sender=14.spf1-test.mailzone.com", "-max-lookup"]
    assert [spfquery(folder, *asked, most).lines[0] for most in ("3", "2", "0")] == ["fail", "permerror", "permerror"]


def test_recipients(folder: Path) -> None:
    asked = ["-ip=192.0.2.33", "-sender=20.spf1-test.mailzone.com", "-rcpt-to"]
    run = spfquery(folder, *asked, "foo@spf1-test.mailzone.com, foo@bar.com")
    assert run.lines[0] == "pass,fail,fail" and run.status == 1
    run = spfquery(folder, *asked, "foo@spf1-test.mailzone.com")
    assert run.lines[0] == "pass,pass" and run.status == 0 and run.lines[1] == ""
    assert run.lines[2] == (
        "spfquery: message received from 192.0.2.33 which is an MX secondary for spf1-test.mailzone.com."
    )
    assert run.lines[3].startswith("Received-SPF: pass (spfquery: message received from 192.0.2.33 ")


def test_json(folder: Path) -> None:
    run = spfquery(folder, *FAIL, "-rcpt-to=foo@bar.com", "--json")
    told = json.loads(run.output)
    assert len(run.lines) == 1 and run.status == 1 and told["result"] == told["check"]["result"] == "fail"
    assert told["recipients"] == [{"recipient": "foo@bar.com", "result": "fail"}]
    assert told["header"].startswith("Received-SPF: fail (spfquery: domain of 02.")
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
192.0.2.1 02.spf1-test.mailzone.com x

192.0.2.10  ana@10.spf1-test.mailzone.com\tmail.example.org
192.0.2.33 20.spf1-test.mailzone.com x foo@spf1-test.mailzone.com,foo@bar.com
192.0.2.1 <> 03.spf1-test.mailzone.com"""


@pytest.mark.parametrize("from_stdin", [True, False])
def test_file(folder: Path, from_stdin: bool) -> None:
    (folder / "many").write_text(MANY)
    run = process(folder, "-zone=zone", "-file", "-" if from_stdin else "many", stdin=MANY.replace("\n", "\r\n"))
    assert run.lines[::4] == ["fail", "pass", "pass,fail,fail", "softfail"] and len(run.lines) == 16
    assert run.status == STATUS["softfail"] and not run.errors


def test_thousand(folder: Path) -> None:
    run = process(folder, "-zone=zone", "-f=-", "-json", stdin="192.0.2.1 ana@14.spf1-test.mailzone.com x\n" * 1000)
    assert len(run.lines) == 1000 and {json.loads(line)["result"] for line in run.lines} == {"fail"}


def test_comments(folder: Path) -> None:
    assert process(folder, "-zone=zone", "-f=-", "-keep-comments", stdin=MANY).lines[0] == "# a comment"


def test_wrong_lines(folder: Path) -> None:
    bad = "192.0.2.1\n192.0.2.300 a b\n\udcff\udcfe a\n1 2 3 4 5\n\x1b[2J b c\n192.0.2.10 10.spf1-test.mailzone.com\n"
    run = process(folder, "-zone=zone", "-f=-", stdin=bad)
    assert run.lines[0] == "pass" and len(run.lines) == 4 and run.status == FAULT
    assert [line.split(":")[1] for line in run.errors.splitlines()] == [f" line {number}" for number in range(1, 6)]
    assert "\x1b" not in run.errors


def test_answers_come_at_once(folder: Path) -> None:
    "Whoever pipes requests into spfquery gets each answer before the next request."
    command = "import sys; from ra_plugins.spf.spfquery import main; sys.exit(main())"
    arguments = [sys.executable, "-c", command, "-zone=zone", "-file=-"]
    with subprocess.Popen(arguments, cwd=folder, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin and process.stdout
        for sender, result in (("02", "fail"), ("03", "softfail")):
            process.stdin.write(f"192.0.2.1 {sender}.spf1-test.mailzone.com x\n")
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
    assert run.status == FAULT and run.output == ""
    assert run.errors.startswith("spfquery: ") and run.errors.count("\n") == 1 and run.errors.rstrip("\n").isprintable()


@pytest.mark.parametrize(
    "hostile",
    [
        "a\nb@02.spf1-test.mailzone.com",
        "x) client-ip=1.2.3.4 (@02.spf1-test.mailzone.com",
        'x"; y="\\@02.spf1-test.mailzone.com',
        "caf\udce9@02.spf1-test.mailzone.com",
        "a@02.spf1-test.mailzone.com\r\nBcc: all@example.org",
        "a" * 20_000 + "@02.spf1-test.mailzone.com",
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
        folder, "-zone=zone", "-ip=192.0.2.1", "-sender=é@02.spf1-test.mailzone.com", "-trace", PYTHONIOENCODING="ascii"
    )
    assert run.status == 1 and run.output.isascii() and "é" not in run.output


def test_nobody_reads(folder: Path) -> None:
    command = f"{sys.executable} -c 'import sys; from ra_plugins.spf.spfquery import main; sys.exit(main())'"
    many = "192.0.2.1 02.spf1-test.mailzone.com x\n" * 2000
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
        folder, "-zone=zone", "-ip=192.0.2.1", "-sender=caf\udce9\n@02.spf1-test.mailzone.com", "-helo=\x1b[2J"
    )
    assert run.status == 1 and len(run.lines) == 4 and run.output.isascii() and "\x1b" not in run.output


def test_fault_as_process(folder: Path) -> None:
    run = process(folder, "-bogus")
    assert (run.status, run.output, run.errors) == (FAULT, "", "spfquery: there is no option -bogus\n")


def test_no_standard_input(folder: Path) -> None:
    command = "os.close(0) or main()"
    run = process(folder, "-zone=zone", "-file=-", command=command)
    assert run.status == FAULT and run.errors == "spfquery: can't read -: Bad file descriptor\n"


# `ra-plugins spf explain`


def test_explain(folder: Path) -> None:
    command = "explain(sys.argv[1:])"
    run = process(folder, "51.spf1-test.mailzone.com", "--ip", "192.0.2.130", "--zone=zone", command=command)
    assert run.status == 0 and run.lines[0].startswith(
        "pass: 51.spf1-test.mailzone.com from 192.0.2.130: 2 of 10 lookups"
    )
    assert "include:42.spf1-test.mailzone.com" in run.lines[2] and "match: pass" in run.lines[2]
    run = process(folder, "--json", "--ip=192.0.2.1", "--zone=zone", "ana@02.spf1-test.mailzone.com", command=command)
    assert run.status == 1 and json.loads(run.output)["decided"] == {
        "domain": "02.spf1-test.mailzone.com",
        "term": "-all",
    }
    for arguments in ([], ["example.org"], ["--ip=192.0.2.1"], ["a", "b", "--ip=1"], ["example.org", "--ip=x"]):
        run = process(folder, *arguments, "--zone=zone", command=command)
        assert run.status == FAULT and run.errors.startswith("ra-plugins spf explain: ") and run.errors.count("\n") == 1


def test_policies_ask_nothing_of_who_answers() -> None:
    "A zone without anything in it: every option has its say, and nothing goes wrong."
    for options in ({}, {"local": "mx include:a.example ~all"}, {"guess": "a mx ptr ?all"}, {"trusted": True}):
        setup = Setup()
        setup.resolver = Zone({})
        vars(setup).update(options)
        assert judge(Request("192.0.2.1", "a@b.example", "c", ["d@e.example"]), setup).name in STATUS
