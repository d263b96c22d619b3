"""From a checkout to an sdist, from that to a wheel, from that to a machine that has nothing but Python.

What builds is this environment's own: no test asks PyPI.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import stat
import subprocess
import sys
import tarfile
import venv
from configparser import ConfigParser
from email.message import Message
from email.parser import Parser
from pathlib import Path
from zipfile import ZipFile

import pytest
from notebooks import ROOT
from servers import program

from ra_plugins.cli.extras import extra_for
from ra_plugins.cli.manual import PROGRAMS
from ra_plugins.cli.units import main as units_main
from ra_plugins.hosts.catalogue import catalogue
from ra_plugins.support.extras import _WANT_MORE, EXTRAS

SYSTEM = "/usr/sbin:/usr/bin:/sbin:/bin"
CONFIG = ConfigParser(delimiters=["="], interpolation=None)
CONFIG.read(ROOT / "settings.ini", encoding="utf-8")
PROJECT = CONFIG["DEFAULT"]


def run(*command: str | Path, **options: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, timeout=300, **options)  # type: ignore[call-overload,no-any-return]


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    "What git has of this checkout, and what it would take up: nothing that was made from it."
    folder = tmp_path_factory.mktemp("checkout")
    done = run("git", "ls-files", "--cached", "--others", "--exclude-standard", "-z", cwd=ROOT)
    assert done.returncode == 0, done.stderr
    for name in filter(None, done.stdout.split("\0")):
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / name)
    return folder


@pytest.fixture(scope="module")
def built(checkout: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    "The folder with an sdist, and the wheel that was built from it."
    folder = tmp_path_factory.mktemp("dist")
    done = run(sys.executable, "-m", "build", "--no-isolation", "--outdir", folder, checkout)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


@pytest.fixture(scope="module")
def wheel(built: Path) -> Path:
    return next(built.glob("*.whl"))


@pytest.fixture(scope="module")
def clean(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    "An environment with the wheel, and nothing else."
    folder = tmp_path_factory.mktemp("clean")
    venv.create(folder, symlinks=True)
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--python", str(folder / "bin" / "python")]
    done = run(*pip, "install", "--no-index", wheel)  # with what it requires, and that is nothing
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


@pytest.fixture(scope="module")
def metadata(wheel: Path) -> Message:
    with ZipFile(wheel) as archive:
        name = next(each for each in archive.namelist() if each.endswith(".dist-info/METADATA"))
        return Parser().parsestr(archive.read(name).decode())


def command(clean: Path, *words: str | Path, **environ: str) -> subprocess.CompletedProcess[str]:
    "What a program of that environment says, called with its path."
    first, *rest = words
    return run(clean / "bin" / first, *rest, env={"PATH": SYSTEM, "LC_ALL": "C.UTF-8", **environ}, cwd=clean)


def test_an_sdist_has_what_it_is_built_from(built: Path) -> None:
    with tarfile.open(next(built.glob("*.tar.gz"))) as archive:
        names = {each.name.partition("/")[2] for each in archive}
    assert {"settings.ini", "README.md", "packaging/rater.service", "nbs/index.ipynb", "tests/test_packaging.py"} <= names
    assert not {name for name in names if name.startswith((".venv", "_docs")) or "__pycache__" in name}


def test_a_wheel_has_packaging_as_it_is(wheel: Path) -> None:
    with ZipFile(wheel) as archive:
        before = "ra_plugins/packaging/"
        inside = {each.removeprefix(before): archive.read(each) for each in archive.namelist() if each.startswith(before)}
    files = [path for path in (ROOT / "packaging").rglob("*") if path.is_file()]
    assert inside == {str(path.relative_to(ROOT / "packaging")): path.read_bytes() for path in files}


def test_it_requires_nothing_without_an_extra(metadata: Message) -> None:
    required = metadata.get_all("Requires-Dist", [])
    assert required and all("extra ==" in each for each in required)
    extras = set(metadata.get_all("Provides-Extra", []))
    assert {"spf", "smtpd", "service", "sql", "rater", "dns", "cdb", "checkback", "all"} <= extras


def test_its_links_lead_somewhere_on_pypi(metadata: Message) -> None:
    links = re.findall(r"\]\(([^)\s]+)\)", str(metadata.get_payload()))
    assert len(links) > 40 and not [link for link in links if not link.startswith(("https://", "http://", "#"))]
    ours = [link.partition("/blob/main/")[2] for link in links if link.startswith(PROJECT["git_url"] + "/blob/")]
    assert ours and not [path for path in ours if not (ROOT / path.partition("#")[0]).exists()]


def test_its_licence_is_an_expression(metadata: Message) -> None:
    assert metadata["License-Expression"] == "Apache-2.0" and not metadata["License"]
    assert not [each for each in metadata.get_all("Classifier", []) if each.startswith("License")]


def test_the_pythons_that_it_names_are_those_that_are_tested(metadata: Message) -> None:
    told = re.findall(r"Python :: (3\.\d+)", "\n".join(metadata.get_all("Classifier", [])))
    for name in ("site", "release"):
        text = (ROOT / ".github" / "workflows" / f"{name}.yaml").read_text()
        assert set(re.findall(r'"(3\.\d+)"', text)) >= set(told) == {"3.11", "3.12", "3.13", "3.14"}


def test_nbdev_finds_its_index(clean: Path) -> None:
    text = (
        "from importlib.metadata import entry_points\n"
        "found, = entry_points(group='nbdev', name='ra_plugins')\n"
        "print(found.load()['settings']['lib_path'])"
    )
    done = command(clean, "python", "-c", text)
    assert (done.stdout, done.stderr) == ("ra_plugins\n", "")


def test_manual_knows_each_program() -> None:
    named = dict(line.split("=") for line in PROJECT["console_scripts"].split())
    assert {name: f"{module}:main" for name, module in PROGRAMS.items()} == named


@pytest.mark.parametrize("name", PROGRAMS)
def test_each_program_starts_with_nothing_else_installed(clean: Path, name: str) -> None:
    version = command(clean, name, "--version")
    assert (version.returncode, version.stderr) == (0, "") and PROJECT["version"] in version.stdout
    helped = command(clean, name, "--help")
    assert (helped.returncode, helped.stderr) == (0, "") and helped.stdout.startswith("usage: ")


def test_man_finds_commands_and_plugins(clean: Path) -> None:
    man = program("man", "man-db")
    pages = list((clean / "share" / "man").rglob("*.[18]"))
    plugins = {path.stem for path in (ROOT / "nbs" / "plugins").glob("*.ipynb")}
    assert plugins <= {path.stem for path in pages if path.suffix == ".8"}
    path = f"{clean}/bin:{SYSTEM}"
    for words in (["tarpit"], ["8", "rater"], ["1", "rater"], ["ra-plugins-check"], ["spfquery"]):
        found = run(man, "-w", *words, env={"PATH": path, "LC_ALL": "C.UTF-8"})
        assert str(clean / "share/man") in found.stdout, found.stderr
    whatis = run(man, "tarpit", env={"PATH": path, "LC_ALL": "C.UTF-8", "MANPAGER": "cat"})
    assert "TARPITCOUNT" in whatis.stdout and "Message rejected" not in whatis.stdout


def test_manual_pages_have_no_mistake(clean: Path) -> None:
    pages = sorted((clean / "share" / "man").rglob("*.[18]"))
    lint = run(program("mandoc", "mandoc"), "-T", "lint", "-W", "warning", *pages)
    assert (lint.returncode, lint.stdout + lint.stderr) == (0, "")
    man = [program("man", "man-db"), "--warnings", "-E", "UTF-8", "-l", "-Tutf8", "-Z"]
    for page in pages:
        done = run(*man, page, env={"LC_ALL": "C.UTF-8", "PATH": SYSTEM})
        assert (done.returncode, done.stderr) == (0, ""), page


def test_a_plugins_page_has_what_it_declares(clean: Path) -> None:
    page = (clean / "share" / "man" / "man8" / "msa.8").read_text()
    for part in ("NAME", "SETTINGS", "LOG LINES", "EXIT STATUS", "FILES", "SEE ALSO"):
        assert f"\n.SH {part}\n" in page
    assert "\\fBMSACODE\\fR\n" in page and "Default:\n550." in page and "Message rejected (no auth)." in page


BASH = r"""
source "$1"
COMP_WORDS=($2)
COMP_CWORD=$((${#COMP_WORDS[@]} - 1))
COMP_LINE=$2 COMP_POINT=${#2}
"$(complete -p ra-plugins | sed 's/.*-F \([^ ]*\).*/\1/')" ra-plugins "${COMP_WORDS[COMP_CWORD]}" ""
printf '%s\n' "${COMPREPLY[@]}"
"""


def test_bash_completes_commands_options_and_plugins(clean: Path) -> None:
    script = clean / "share" / "bash-completion" / "completions" / "ra-plugins"

    def completed(line: str) -> set[str]:
        done = run("bash", "-c", BASH, "bash", script, line)
        return {word.strip() for word in done.stdout.split()}

    assert completed("ra-plugins sh") == {"show"}
    assert completed("ra-plugins show tar") == {"tarpit"}
    assert completed("ra-plugins units --ki") == {"--kind"}
    assert completed("ra-plugins units /tmp --kind s") == {"systemd", "s6"}
    assert completed("ra-plugins units /tmp po") == {"postfix"}


def test_fish_completes_commands_and_plugins(clean: Path, tmp_path: Path) -> None:
    script = clean / "share" / "fish" / "vendor_completions.d" / "ra-plugins.fish"

    def completed(line: str) -> set[str]:
        asked = f"source {script}; complete -C '{line}'"
        done = run(program("fish", "fish"), "--no-config", "-c", asked, env={"PATH": SYSTEM, "HOME": str(tmp_path)})
        return {each.partition("\t")[0] for each in done.stdout.splitlines()}

    assert completed("ra-plugins sh") == {"show"}
    assert completed("ra-plugins show tar") == {"tarpit"}


def test_zsh_reads_its_scripts(clean: Path) -> None:
    scripts = sorted((clean / "share" / "zsh" / "site-functions").iterdir())
    assert {path.name for path in scripts} >= {"_ra-plugins", "_rater", "_spfquery"}
    for path in scripts:
        done = run(program("zsh", "zsh"), "-f", "-n", path)
        assert (done.returncode, done.stderr) == (0, ""), path
        assert path.read_text().startswith(f"#compdef {path.name[1:]}\n")


def test_completion_prints_what_was_installed(clean: Path) -> None:
    done = command(clean, "ra-plugins", "completion", "fish")
    assert done.stdout == (clean / "share/fish/vendor_completions.d/ra-plugins.fish").read_text()


def test_units_name_the_installed_programs(clean: Path, tmp_path: Path) -> None:
    done = command(clean, "ra-plugins", "units", tmp_path / "units", "--etc", tmp_path / "etc")
    assert done.returncode == 0, done.stderr
    for name, program_name in (("ra-plugins.service", "ra-plugins service"), ("rater.service", "rater")):
        text = (tmp_path / "units" / name).read_text()
        assert f"\nExecStart={clean}/bin/{program_name} " in text and f"{tmp_path}/etc/" in text
        assert "/usr/local" not in text
        assert f"written: {tmp_path}/units/{name}\n" in done.stdout
    assert "systemctl enable --now ra-plugins.socket ra-plugins.service rater\n" in done.stdout
    assert stat.S_IMODE((tmp_path / "etc" / "ra-plugins.settings").stat().st_mode) == 0o640


def test_systemd_reads_the_units(clean: Path, tmp_path: Path) -> None:
    verify = program("systemd-analyze", "systemd")
    command(clean, "ra-plugins", "units", tmp_path, "rater")
    done = run(verify, "verify", "--man=no", tmp_path / "rater.service")
    assert "rater.service" not in done.stderr, done.stderr
    command(clean, "ra-plugins", "units", tmp_path, "postfix", "--etc", tmp_path / "etc")
    done = run(verify, "verify", "--man=no", tmp_path / "ra-plugins-postfix.service")
    assert "ra-plugins-postfix" not in done.stderr, done.stderr


@pytest.mark.parametrize("kind", ["daemontools", "s6"])
def test_scripts_of_other_supervisors_can_be_run(clean: Path, tmp_path: Path, kind: str) -> None:
    done = command(clean, "ra-plugins", "units", tmp_path, "--kind", kind)
    assert done.returncode == 0, done.stderr
    for name in ("ra-plugins", "rater"):
        script = tmp_path / name / "run"
        assert os.access(script, os.X_OK) and f"{clean}/bin/{name} " in script.read_text()
        assert f"ln -s {tmp_path}/{name} " in done.stdout
        if kind == "daemontools":
            assert run("sh", "-n", script).returncode == 0 and os.access(tmp_path / name / "log" / "run", os.X_OK)


def test_units_say_which_folders_they_make(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    "A mistyped one, and those above it; not those of each service in it."
    (tmp_path / "ra-plugins").write_text("#!/bin/sh\n")
    (tmp_path / "ra-plugins").chmod(0o755)
    words = [f"{tmp_path}/typo/services", "service", "--kind", "daemontools", "--programs", str(tmp_path)]
    for made in ([f"made the folder: {tmp_path}/typo", f"made the folder: {tmp_path}/typo/services"], []):
        assert units_main(words) == 0
        said = capsys.readouterr().out.splitlines()
        assert [line for line in said if line.startswith("made the folder")] == made


def test_units_write_over_nothing_unasked(clean: Path, tmp_path: Path) -> None:
    units = ("ra-plugins", "units", tmp_path, "--etc", tmp_path / "etc")
    assert command(clean, *units).returncode == 0
    again = command(clean, *units)
    assert again.returncode == 0 and f"already there: {tmp_path}/rater.service\n" in again.stdout
    (tmp_path / "rater.service").write_text("mine\n")
    (tmp_path / "ra-plugins.socket").unlink()
    (tmp_path / "etc" / "rater.toml").write_text("# mine\n")
    refused = command(clean, *units)
    assert refused.returncode == 3 and refused.stdout == ""
    assert refused.stderr == (
        f"ra-plugins units: already there, and not the same: {tmp_path}/rater.service; --force writes over them\n"
    )
    assert not (tmp_path / "ra-plugins.socket").exists()  # all or nothing
    assert command(clean, *units, "--force").returncode == 0
    assert "ExecStart=" in (tmp_path / "rater.service").read_text() and (tmp_path / "ra-plugins.socket").exists()
    assert (tmp_path / "etc" / "rater.toml").read_text() == "# mine\n"  # settings stay


@pytest.mark.parametrize(
    ("words", "package", "extra"),
    [
        (("spfquery", "-ip=192.0.2.1", "-sender=ana@example.org", "-helo=x"), "dnspython", "spf"),
        (("ra-plugins", "spf", "explain", "example.org", "--ip", "192.0.2.1"), "dnspython", "spf"),
    ],
)
def test_a_command_whose_extra_is_missing_says_which(
    clean: Path, words: tuple[str, ...], package: str, extra: str
) -> None:
    done = command(clean, *words)
    name = " ".join(words[:3]) if words[0] == "ra-plugins" else words[0]
    assert done.stdout == "" and done.returncode in (3, 255)
    assert done.stderr == f"{name}: {package} isn't installed: pip install 'ra-plugins[{extra}]'\n"


def test_show_names_the_extra_of_who_answers(clean: Path) -> None:
    done = command(clean, "ra-plugins", "show", "spfchecks")
    assert done.returncode == 0 and "pip install 'ra-plugins[" in done.stderr and "No module named" not in done.stderr


@pytest.fixture(scope="module")
def installed(clean: Path) -> subprocess.CompletedProcess[str]:
    return command(clean, "ra-plugins", "install", "--create", clean / "plugins", "--user", str(os.geteuid()))


def test_install_says_which_plugins_lack_what(installed: subprocess.CompletedProcess[str]) -> None:
    said = [line.removeprefix("ra-plugins: ") for line in installed.stderr.splitlines()]
    dns = "greylist, mfdnschecks, rblchecks, rdnschecks"
    assert f"{dns} can't work without dnspython, idna: pip install 'ra-plugins[dns]'" in said
    assert "spfchecks can't work without authres, dnspython, idna: pip install 'ra-plugins[spf]'" in said
    assert "checkback can't work without aiosmtplib, dnspython, idna: pip install 'ra-plugins[checkback]'" in said
    assert "rcptcheckscdb can't work without pure-cdb: pip install 'ra-plugins[cdb]'" in said
    assert not [line for line in said if "dotblind" in line]


def test_install_of_what_needs_nothing_says_nothing(clean: Path, tmp_path: Path) -> None:
    folder = clean / "few"
    done = command(clean, "ra-plugins", "install", "--create", folder, "dotblind", "tarpit", "--user", str(os.geteuid()))
    assert "pip install" not in done.stderr and os.access(folder / "dotblind", os.X_OK)


def test_a_database_of_ours_is_looked_for(clean: Path, tmp_path: Path) -> None:
    (tmp_path / "morercpthosts.cdb").touch()
    words = ("ra-plugins", "install", "--create", clean / "more", "dotblind", "--user", str(os.geteuid()))
    done = command(clean, *words, CONTROLDIR=str(tmp_path))
    assert f"who reads {tmp_path}/morercpthosts.cdb can't work without pure-cdb: pip install 'ra-plugins[cdb]'" in (
        done.stderr
    )


@pytest.mark.parametrize("name", ["mfdnschecks", "checkback", "spfchecks", "rblchecks", "rdnschecks"])
def test_mail_passes_where_dns_cant_be_asked_for_want_of_a_package(
    clean: Path, installed: subprocess.CompletedProcess[str], tmp_path: Path, name: str
) -> None:
    assert installed.stdout
    for file, text in (("me", "mail.example.org\n"), ("rcpthosts", "example.org\n")):
        (tmp_path / file).write_text(text)
    environ = {
        "TCPREMOTEIP": "192.0.2.1",
        "SMTPHELOHOST": "mail.example.net",
        "SMTPMAILFROM": "ana@example.net",
        "CONTROLDIR": str(tmp_path),
        "CHECKBACK_CACHE": str(tmp_path / "cache"),
    }
    done = run(clean / "plugins" / name, env=environ)
    assert done.returncode == 0 and not re.search(r"^[EDR]", done.stdout, re.M)
    assert "dnspython isn't installed: pip install 'ra-plugins[" in done.stderr and "Traceback" not in done.stderr


def test_the_list_of_extras_has_each_plugin_beside_its_own() -> None:
    cells = json.loads((ROOT / "nbs/guides/installing.ipynb").read_text(encoding="utf-8"))["cells"]
    text = "\n".join("".join(cell["source"]) for cell in cells)
    rows = dict(re.findall(r"^\| (none|`\[\w+\]`) \| (.*) \|$", text, re.M))
    for name, each in catalogue().items():
        row = rows[f"`[{extra}]`" if (extra := extra_for(each)) else "none"]
        assert re.search(rf"\b{name}\b", row), name


def test_what_brings_a_module_is_what_settings_say() -> None:
    for module, (package, extra) in EXTRAS.items():
        named = re.findall(r"[A-Za-z][\w-]*(?=[<>=\[])", PROJECT[f"{extra}_requirements"])
        assert package in named, module
    for extra, modules in _WANT_MORE.values():
        named = re.findall(r"[A-Za-z][\w-]*(?=[<>=\[])", PROJECT[f"{extra}_requirements"])
        assert {EXTRAS[module][0] for module in modules} == set(named)


def test_what_pipx_would_lay_is_complete(wheel: Path, tmp_path: Path) -> None:
    pip = [sys.executable, "-m", "pip", "install", "--no-index", "--no-deps", "--ignore-installed"]
    done = run(*pip, "--prefix", tmp_path, wheel)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "share/man/man8/tarpit.8").exists() and (tmp_path / "share/man/man1/ra-plugins.1").exists()
    assert {path.name for path in (tmp_path / "bin").iterdir()} == set(PROGRAMS)


def test_debian_makes_a_package_of_it(checkout: Path, tmp_path: Path) -> None:
    lintian, _ = program("lintian", "lintian"), program("dh", "debhelper")
    source = tmp_path / "ra-plugins"
    shutil.copytree(checkout, source, ignore=shutil.ignore_patterns("build", "*.egg-info"))
    environ = {"PATH": SYSTEM, "LC_ALL": "C.UTF-8", "HOME": str(tmp_path)}
    done = run(program("dpkg-buildpackage", "dpkg-dev"), "-us", "-uc", "-b", cwd=source, env=environ)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    package = next(tmp_path.glob("*.deb"))
    listed = run("dpkg-deb", "--contents", package).stdout
    for name in ("bin/ra-plugins", "share/man/man8/tarpit.8.gz", "share/bash-completion/completions/ra-plugins"):
        assert f" ./usr/{name}\n" in listed
    assert f"Version: {PROJECT['version']}\n" in run("dpkg-deb", "--info", package).stdout.replace(" Version", "Version")
    found = run(lintian, "--allow-root", "--fail-on", "error,warning", package, env=environ)
    assert found.returncode == 0, found.stdout
