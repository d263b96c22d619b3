"""What a benchmark needs that isn't in every clone: programs, C headers, and packages of Python's.

`make bench` installs the packages; programs are for the system to have, and each stands here with Debian's package.
"""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from importlib.util import find_spec
from shutil import which

NEEDS = {  # by benchmark
    "compiled": ("gcc", "libc6-dev", "redis-server", "uvloop"),
    "postfix": ("spf-engine",),
    "rater": ("redis-server", "uvloop"),
    "rater_loops": ("uvloop",),
    "service": ("dash", "gcc", "libc6-dev"),
    "spf_audit": ("checkdmarc",),
    "service_client": ("dash", "gcc", "libc6-dev", "musl-tools", "uvloop"),
}


def has_headers() -> bool:
    "Does the C compiler find those of the C library?"
    command = ["gcc", "-E", "-include", "stdio.h", "-x", "c", "/dev/null"]
    return bool(which("gcc")) and subprocess.run(command, capture_output=True, check=False).returncode == 0


THERE: dict[str, tuple[str, Callable[[], object]]] = {  # by need: what brings it, and whether it is there
    "redis-server": ("Debian's package redis-server", lambda: which("redis-server")),
    "dash": ("Debian's package dash", lambda: which("dash")),
    "gcc": ("Debian's package gcc", lambda: which("gcc")),
    "libc6-dev": ("Debian's package libc6-dev", has_headers),
    "musl-tools": ("Debian's package musl-tools", lambda: which("musl-gcc")),
    "checkdmarc": ("pip install 'checkdmarc>=6,<7'", lambda: find_spec("checkdmarc")),
    "spf-engine": ("pip install spf-engine", lambda: find_spec("spf_engine")),
    "uvloop": ("pip install 'ra-plugins[service]'", lambda: find_spec("uvloop")),
}


def missing(name: str) -> list[str]:
    "What a benchmark needs and doesn't find, each with what brings it."
    return [f"{need} ({THERE[need][0]})" for need in NEEDS.get(name, ()) if not THERE[need][1]()]
