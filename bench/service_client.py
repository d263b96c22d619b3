"""The service's small client, start to end, beside a dash script that does nothing. The bounds are for uvloop.

The service is the smallest that there can be, on asyncio or uvloop: what the real one takes is measured elsewhere.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from shutil import which

from measure import Benchmark, Figure, Side, Unmeasurable, ratio
from scripts import BARE, SESSION, check, compiled, run

from ra_plugins.hosts.service.client import client_source, python_client

GCC_BOUND = 1  # times a dash script that does nothing
MUSL_BOUND = 0.55
PYTHON_BOUND = 1  # times python -I -S -c pass
NOTHING, PASS = "dash, a script that does nothing", "python -I -S -c pass"
COMPILERS: dict[str, float | None] = {  # with the bound of what each makes
    "musl-gcc -static": MUSL_BOUND,
    "gcc -static": GCC_BOUND,
    "gcc": None,
}
RESPONDER = """
import asyncio, sys

class Answer(asyncio.Protocol):
    def connection_made(self, transport):
        self.transport, self.received = transport, b""

    def data_received(self, data):
        self.received += data
        size, colon, rest = self.received.partition(b":")
        if colon and len(rest) > int(size):
            self.transport.write(b"21:0\\0\\0Cben@example.org\\n\\n,")
            self.transport.close()

async def serve():
    server = await asyncio.get_running_loop().create_unix_server(Answer, sys.argv[1], backlog=1000)
    print("ready", flush=True)
    await server.serve_forever()

if sys.argv[2] == "uvloop":
    import uvloop
    uvloop.run(serve())
else:
    asyncio.run(serve())
"""


@contextmanager
def responder(path: Path, loop: str) -> Iterator[None]:
    "A service that answers everybody the same."
    path.unlink(missing_ok=True)
    command = [sys.executable, "-c", RESPONDER, str(path), loop]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        try:
            assert process.stdout is not None
            if process.stdout.readline() != "ready\n":
                raise Unmeasurable(f"there is no service on {loop}: is it installed?")
            yield
        finally:
            process.kill()


def clients(folder: Path) -> dict[str, Path]:
    "Those that there are, by how they are made."
    source = client_source(str(folder / "socket"), str(folder / "scripts"))
    made = {compiler: compiled(folder, compiler, source, compiler.replace(" ", "")) for compiler in COMPILERS}
    made["the client in Python"] = folder / "python"
    made["the client in Python"].write_text(python_client(str(folder / "socket"), str(folder / "scripts")))
    made["the client in Python"].chmod(0o755)
    return made


def measurements(folder: Path) -> Iterator[Benchmark]:
    "The benchmarks of this file. `folder` is empty, and thrown away afterwards."
    nothing, made = folder / "nothing", clients(folder)
    nothing.write_text(f"#!{which('dash')}\nexit 0\n")
    nothing.chmod(0o755)
    for loop in ("uvloop", "asyncio"):
        sides: dict[str, Side] = {NOTHING: partial(run, str(nothing), environ=SESSION)}
        sides[PASS] = partial(run, *BARE, "pass", environ=SESSION)
        figures = []
        with responder(folder / "socket", loop):
            for name, path in made.items():
                check(path, SESSION, "Cben@example.org\n", "")
                sides[name] = partial(run, str(path), environ=SESSION)
                base, bound = (NOTHING, COMPILERS[name]) if name in COMPILERS else (PASS, PYTHON_BOUND)
                bound = bound if loop == "uvloop" else None
                figures.append(Figure(f"{name}, against {base.split()[0].rstrip(',')}", name, ratio(name, base), bound))
            figures.append(Figure(f"{PASS}, against dash", PASS, ratio(PASS, NOTHING)))
            yield Benchmark(f"a client of a service on {loop}", sides, figures)
