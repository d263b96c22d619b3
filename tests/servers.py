"""Servers of others that tests run against: each on a free port of 127.0.0.1, its data in a test's folder, ended with it.

A program that isn't installed is a reason to skip, which names the Debian package that has it.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

PATIENCE = 30  # seconds for a server to begin or end


def program(
    name: str,
    package: str,  # Debian's, that has it
) -> str:
    "The path of a program; the test is skipped if it isn't installed."
    path = shutil.which(name, path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/usr/local/sbin")
    if path is None:
        pytest.skip(f"{name} isn't installed; Debian's package {package} has it")
    return path


def free_port() -> int:
    "A port of 127.0.0.1 that nobody has, neither over UDP nor over TCP."
    while True:
        with socket.socket(type=socket.SOCK_DGRAM) as udp, socket.socket() as tcp:
            udp.bind(("127.0.0.1", 0))
            try:
                tcp.bind(udp.getsockname())
            except OSError:
                continue
            return int(udp.getsockname()[1])


@contextmanager
def running(command: list[str], ready: str) -> Iterator[subprocess.Popen[bytes]]:
    "A server that stays in the foreground: from when it has printed `ready` until the block ends."
    with subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True
    ) as process:
        assert process.stdout
        printed: list[bytes] = []
        began = threading.Event()

        def read() -> None:  # all of it, so that the server can't be held up by a full pipe
            for line in process.stdout or ():
                printed.append(line)
                if ready.encode() in line:
                    began.set()
            began.set()

        reader = threading.Thread(target=read, daemon=True)
        reader.start()
        try:
            assert began.wait(PATIENCE) and process.poll() is None, b"".join(printed).decode(errors="replace")
            yield process
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
            try:
                process.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                process.kill()
            reader.join(PATIENCE)


@contextmanager
def rbldnsd(
    folder: Path,
    zones: dict[str, dict[str, str]],  # by a list's name, its data by the kind of data set: ip4set, ip6trie, dnset
) -> Iterator[int]:
    "rbldnsd with lists; its port."
    path, port, data = program("rbldnsd", "rbldnsd"), free_port(), folder / "rbldnsd"
    data.mkdir(exist_ok=True)
    data.chmod(0o755)
    sets = []
    for number, (zone, kinds) in enumerate(zones.items()):
        for kind, text in kinds.items():
            name = f"{number}.{kind}"
            (data / name).write_text(f"$SOA 300 ns.example. hostmaster.example. 1 1h 1h 1d 300\n{text}")
            sets.append(f"{zone}:{kind}:{name}")
    # It won't run as root; and whoever else it runs as needn't be let into the folders above.
    rights = ["-r", str(data), "-u", "nobody"] if os.geteuid() == 0 else ["-w", str(data)]
    with running([path, "-n", *rights, "-b", f"127.0.0.1/{port}", *sets], "started"):
        yield port


@contextmanager
def nsd(
    folder: Path,
    zones: dict[str, str],  # by name, the text of a zone file
) -> Iterator[int]:
    "nsd, an authoritative nameserver; its port."
    path, port, data = program("nsd", "nsd"), free_port(), folder / "nsd"
    data.mkdir(exist_ok=True)
    lines = [
        *("server:", "ip-address: 127.0.0.1", f"port: {port}", "do-ip6: no", "server-count: 1", "rrl-ratelimit: 0"),
        *('username: ""', 'chroot: ""', f'zonesdir: "{data}"', f'pidfile: "{data}/nsd.pid"', 'database: ""'),
        *(f'xfrdfile: "{data}/xfrd.state"', f'zonelistfile: "{data}/zone.list"', f'xfrdir: "{data}"', "verbosity: 1"),
        *("remote-control:", "control-enable: no"),
    ]
    for number, (zone, text) in enumerate(zones.items()):
        (data / f"{number}.zone").write_text(text)
        lines += ["zone:", f'name: "{zone}"', f'zonefile: "{number}.zone"']
    (data / "nsd.conf").write_text("\n".join([*lines, ""]))
    with running([path, "-d", "-c", str(data / "nsd.conf")], "nsd started"):
        yield port
