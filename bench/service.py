"""The service and its small client, start to end, beside dash scripts that do nothing and beside the same as scripts.

The service is the real one, as a process, on uvloop where that is installed. `VERDICTS=` sets how many verdicts its
memory is watched over; a million by default.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from shutil import which
from statistics import median

from measure import Benchmark, Figure, Side, Times, Unmeasurable, ratio
from scripts import SESSION, check, compiled, run

sys.path.append(str(Path(__file__).resolve().parent.parent / "tests"))

from dns_server import remote_server
from service_process import Service, memory, write_program

from ra_plugins.ask.dns import Zone
from ra_plugins.cli.install import install
from ra_plugins.hosts.service.client import client_source
from ra_plugins.hosts.service.request import ServiceRequest

Bounds = tuple[float, float, float]  # of one plugin, of five at once, and of what asks DNS, as times a dash script
COMPILERS: dict[str, Bounds] = {"musl-gcc -static": (0.55, 0.15, 1.5), "gcc -static": (1, 0.25, 1.5)}
BUSY_BOUND = 0.05  # of the time that a verdict takes by scripts: twenty times as many
GROWTH_BOUND = 1.05  # of memory, from one half of the verdicts to the other
VERDICTS = int(os.environ.get("VERDICTS") or 1_000_000)
SESSIONS = 200  # at once
SECONDS = 3  # of each side in a round
FIVE = ("plusaliases", "dotblind", "localmail", "overload", "tarpit")
TEN = ("access", "authlogger", "ownsender", "senderchecksfile", "rcptchecksfile", *FIVE)
COMMANDS = ("connection", "helo", "auth", "mail", "data")  # rcpt has five
LISTS = [f"list{number}.example" for number in range(5)]
ENVIRON = {**SESSION, "SMTPRCPTTO": "b.en@example.org"}
ASKING = {**ENVIRON, "RBLSERVERS": ":".join(LISTS), "SMTPMAILFROM": "ana@mail.example"}
SECTIONS = {**dict.fromkeys(COMMANDS, TEN), "rcpt": FIVE, "pass": ("spfchecks", "rblchecks")}
SPAWNER = r"""
/* Sessions at once: each runs programs, one after the other, until time is up; each begins with another one.
   Arguments: sessions, seconds, then programs. Standard input is to be closed in them, as in qmail-smtpd's.
   Prints programs done, seconds, and seconds that half of them and 99 of 100 stayed below. */
#include <fcntl.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

extern char **environ;
struct session { pid_t pid; char **at; double began; };
static char **first, **last;
static posix_spawn_file_actions_t quiet;

static double now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec + time.tv_nsec / 1e9;
}

static void start(struct session *session)
{
    char *words[] = { *session->at, NULL };
    if (posix_spawn(&session->pid, *session->at, &quiet, NULL, words, environ))
        exit(2);
}

static int compare(const void *a, const void *b)
{
    double x = *(const double *) a, y = *(const double *) b;
    return (x > y) - (x < y);
}

int main(int argc, char **argv)
{
    int count = atoi(argv[1]), busy = count, i, status;
    struct session *sessions = calloc(count, sizeof *sessions);
    double *took = NULL, begin = now(), end = begin + atof(argv[2]);
    size_t done = 0, room = 0;

    first = argv + 3;
    last = argv + argc;
    posix_spawn_file_actions_init(&quiet);
    posix_spawn_file_actions_addclose(&quiet, 0);
    posix_spawn_file_actions_addopen(&quiet, 1, "/dev/null", O_WRONLY, 0);
    posix_spawn_file_actions_addopen(&quiet, 2, "/dev/null", O_WRONLY, 0);
    for (i = 0; i < count; i++) {
        sessions[i].at = first + i % (last - first);
        sessions[i].began = now();
        start(sessions + i);
    }
    while (busy) {
        pid_t pid = wait(&status);
        struct session *session = sessions;
        if (pid < 0 || status)
            return 3;
        while (session->pid != pid)
            session++;
        if (done == room)
            took = realloc(took, (room = 2 * room + 1000) * sizeof *took);
        took[done++] = now() - session->began;
        if (++session->at == last)
            session->at = first;
        session->began = now();
        if (session->began > end) {
            session->pid = 0;
            busy--;
            continue;
        }
        start(session);
    }
    end = now();
    qsort(took, done, sizeof *took, compare);
    printf("%zu %f %f %f\n", done, end - begin, took[done / 2], took[done * 99 / 100]);
    return 0;
}
"""


def zone() -> Zone:
    "A sender with a record of some length, and lists that the client isn't on."
    networks = " ".join(f"ip4:198.51.100.{number}" for number in range(40))
    return Zone(
        {
            ("mail.example", "TXT"): ["v=spf1 include:a.mail.example include:b.mail.example -all"],
            ("a.mail.example", "TXT"): [f"v=spf1 {networks} -all"],
            ("b.mail.example", "TXT"): ["v=spf1 ip4:192.0.2.0/24 -all"],
            ("mail.example.net", "A"): ["192.0.2.1"],
        }
    )


@contextmanager
def serving(folder: Path) -> Iterator[Service]:
    "The service, with a nameserver."
    sections = "".join(f"[{stage}]\n" + "".join(f"{name}\n" for name in names) for stage, names in SECTIONS.items())
    with (
        remote_server(zone()) as server,
        Service(
            folder, control={"atplugins": sections, "me": "mail.example.org\n"}, DNSSERVERS=f"127.0.0.1#{server.port}"
        ) as service,
    ):
        yield service


def clients(folder: Path, service: Service) -> dict[str, Path]:
    "Folders of clients, by the compilers that there are here."
    made = {}
    for compiler in COMPILERS:
        if which(compiler.split()[0]):
            place = folder / compiler.partition(" ")[0]
            place.mkdir()
            source = client_source(str(service.socket), str(folder / "nowhere"))
            program = compiled(folder, compiler, source, "client").read_bytes()
            for name in (*TEN, *(f"at-{stage}" for stage in SECTIONS)):
                write_program(place / name, program)
            made[compiler] = place
    return made


def repeated(side: Side, times: int) -> Side:
    "The same several times."

    def several() -> None:
        for _ in range(times):
            side()

    return several


def against(side: str, base: str, scale: float) -> Callable[[Times], float]:
    "As `ratio`, of a base that is a part of what was timed."
    return lambda times: ratio(side, base)(times) * scale


def starts(nothing: Path, made: dict[str, Path]) -> Iterator[Benchmark]:
    "One start for a plugin, for five, and for those that ask DNS."
    one: dict[str, Side] = {"dash, a script that does nothing": partial(run, str(nothing), environ=ENVIRON)}
    base = next(iter(one))
    what: dict[str, tuple[str, dict[str, str], int, int]] = {
        "a plugin": ("dotblind", ENVIRON, 1, 0),
        "five plugins by at-rcpt": ("at-rcpt", ENVIRON, 5, 1),
        "spfchecks and five lists, all in the cache": ("at-pass", ASKING, 1, 2),
    }
    for title, (name, environ, times, bound) in what.items():
        sides = dict(one) if times == 1 else {f"{times} dash scripts": repeated(one[base], times)}
        beside, figures = next(iter(sides)), []
        for compiler, place in made.items():
            side = f"{title.partition(',')[0]}, {compiler}"
            sides[side] = partial(run, str(place / name), environ=environ)
            figures.append(Figure(side, side, ratio(side, beside), COMPILERS[compiler][bound]))
        yield Benchmark(f"{title}, start to end, against {beside}", sides, figures)


class Busy(float):
    "Seconds for a verdict, and for the programs that gave them."

    half = most = 0.0  # seconds that half of the programs, and 99 of 100, stayed below


def level(name: str, which_one: str, times: Times) -> float:
    "Milliseconds."
    return 1000 * median(float(getattr(each, which_one)) for each in times[name])


def busy(spawner: Path, scripts: Path, place: Path) -> Benchmark:
    "Ten plugins on each of five commands, 200 sessions at once."

    def side(programs: Sequence[Path], verdicts: int) -> Side:
        def once() -> Busy:
            command = [str(spawner), str(SESSIONS), str(SECONDS), *map(str, programs)]
            environ = {**ENVIRON, "CONTROLDIR": str(scripts.parent / "control")}
            done = subprocess.run(command, env=environ, capture_output=True, text=True, check=False)
            if done.returncode:
                raise Unmeasurable(f"a program hasn't ended well: {done.returncode}")
            count, took, half, most = map(float, done.stdout.split())
            busy = Busy(took / count / verdicts)
            busy.half, busy.most = half, most
            return busy

        return once

    by_scripts, by_clients, by_sections = "scripts", "a client for each plugin", "a client for each command"
    sides = {
        by_scripts: side([scripts / name for name in TEN], 1),
        by_clients: side([place / name for name in TEN], 1),
        by_sections: side([place / f"at-{stage}" for stage in COMMANDS], len(TEN)),
    }

    figures = [
        Figure("a verdict by clients, of one by scripts", by_clients, ratio(by_clients, by_scripts)),
        Figure("a verdict by sections, of one by scripts", by_sections, ratio(by_sections, by_scripts), BUSY_BOUND),
    ]
    for name in sides:
        figures.append(Figure(f"{name}: verdicts a second", name, partial(a_second, name)))
        figures.append(Figure(f"{name}: one of them, p50, ms", name, partial(level, name, "half")))
        figures.append(Figure(f"{name}: one of them, p99, ms", name, partial(level, name, "most")))
    return Benchmark(f"{SESSIONS} sessions at once, {len(TEN)} plugins a command", sides, figures, "µs", 3)


def a_second(name: str, times: Times) -> float:
    "Verdicts a second."
    return 1 / median(times[name])


def lasting(service: Service) -> Benchmark:
    "Memory, after half of the verdicts and after all."
    held: list[int] = []
    requests = [
        ServiceRequest(
            "at-mail", 1, {**ENVIRON, "SMTPRCPTTO": f"user{number}@example.org", "TCPREMOTEIP": f"192.0.2.{number}"}
        ).pack()
        for number in range(200)
    ]

    def half() -> float:
        for number in range(VERDICTS // 2 // len(TEN)):
            with service.connect() as connection:
                connection.sendall(requests[number % len(requests)])
                if not connection.recv(1 << 16):
                    raise Unmeasurable("the service doesn't answer")
        held.append(memory(service.workers()[0]) + memory(service.pid))
        return float(held[-1])

    figure = Figure("after all, of after half", "memory", lambda times: held[-1] / held[-2], GROWTH_BOUND)
    return Benchmark(f"memory of the service over {VERDICTS:,} verdicts", {"memory": half}, [figure], "bytes", 1)


def measurements(folder: Path) -> Iterator[Benchmark]:
    "The benchmarks of this file. `folder` is empty, and thrown away afterwards."
    nothing = folder / "nothing"
    write_program(nothing, f"#!{which('dash')}\nexit 0\n".encode())
    with serving(folder) as service:
        made = clients(folder, service)
        best = next(iter(made.values()))
        changed = "changed b.en@example.org to ben@example.org"
        check(best / "dotblind", ENVIRON, "Cben@example.org", changed)
        yield from starts(nothing, made)
        install(str(folder / "plugins"), TEN)
        check(
            folder / "plugins" / "dotblind",
            {**ENVIRON, "CONTROLDIR": str(service.control)},
            "Cben@example.org",
            changed,
        )
        yield busy(compiled(folder, "gcc", SPAWNER, "spawner"), folder / "plugins", best)
        yield lasting(service)
