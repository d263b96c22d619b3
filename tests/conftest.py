"""What all tests share: a qmail home, servers on it, and how hypothesis looks for examples."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from hypothesis import settings
from mailserver import LOG_LINE, Home, Server
from skips import pytest_sessionfinish, pytest_terminal_summary

from ra_plugins.cli.install import install

__all__ = ["pytest_sessionfinish", "pytest_terminal_summary"]  # hooks of pytest's

settings.register_profile("tests", deadline=None, derandomize="CI" in os.environ, print_blob=True)
settings.load_profile("tests")
# nohup has SIGHUP ignored, a shell without job control SIGINT for what it runs in the background, and what we start would
# inherit that. A handler is set back by exec, so what we start has SIGINT's default.
signal.signal(signal.SIGHUP, signal.SIG_DFL)
signal.signal(signal.SIGINT, signal.default_int_handler)
# What is in it is about a suite that isn't ours to ship: test_spf_suites.py names it where it isn't there.
collect_ignore = [] if os.environ.get("LIBSPF2_SUITE") else ["test_spfquery_suite.py"]


@pytest.fixture(scope="session")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    "A folder with all our plugins as programs."
    folder = tmp_path_factory.mktemp("installed") / "plugins"
    install(str(folder), [])
    return folder


@pytest.fixture
def home(tmp_path: Path, installed: Path) -> Home:
    "A qmail home of its own for each test."
    return Home(tmp_path / "qmail", installed)


@pytest.fixture
def serve(home: Home) -> Iterator[Callable[..., Server]]:
    "Starts servers on `home`. They have to end well, and whatever nobody has read of their log has to be log lines."
    with ExitStack() as servers:

        def start(*options: str, **environ: str) -> Server:
            server = Server(home, *options, environ=environ)
            servers.callback(end, server)
            return server

        yield start


def end(server: Server) -> None:
    "Stop a server and look at the rest of its log."
    for line in server.stop():
        assert LOG_LINE.fullmatch(line) and line.isprintable(), line
