"""The service's small client, in C and in Python, with services that answer well, badly and not at all.

Both are asked the same. Whatever a service does, there is one answer, and the exit status is 0.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from ra_plugins.cli import install as installing
from ra_plugins.cli.command import main as ra_plugins
from ra_plugins.cli.install import install
from ra_plugins.hosts.catalogue import CLIENT_MARK, is_client, is_installed, plugin_of, script_of, section_of
from ra_plugins.hosts.script import executable
from ra_plugins.hosts.service import client as module
from ra_plugins.hosts.service.client import (
    CLIENT_NAME_LIMIT,
    SOCKET_PATH_LIMIT,
    c_string,
    client_source,
    compile_client,
    python_client,
)
from ra_plugins.hosts.service.request import REQUEST_LIMIT, SERVICE_REPLY_LIMIT, netstring
from ra_plugins.spp.plugin import STAGES
from ra_plugins.support.command_line import Fault

HASTY, PATIENT = 0.2, 60.0  # seconds of silence: for a service that is silent, and for one that isn't
SHORT, LONG = 0.2, 600.0  # seconds in all, likewise
BY_SCRIPT = "by script\n"
Serve = Callable[[socket.socket], None]

# Programs


class Clients:
    "Clients of one kind, all of one socket."

    def __init__(self, kind: str, folder: Path):
        self.kind, self.folder, self.socket = kind, folder, folder / "socket"
        self.scripts = folder / "scripts"
        self.scripts.mkdir()
        (folder / "short").mkdir()
        self.write(folder / "plugin", PATIENT, LONG)
        self.write(folder / "hasty", HASTY, LONG)
        self.write(folder / "brief", PATIENT, SHORT)
        for name in ("plugin", "hasty", "brief"):
            script(self.scripts / name)

    def write(self, path: Path, silence: float, seconds: float) -> None:
        "Write a client."
        if self.kind == "python":
            path.write_text(python_client(str(self.socket), str(self.scripts), silence, seconds))
        elif self.kind == "c":
            path.write_bytes(compile_client(str(self.socket), str(self.scripts), None, silence, seconds).program)
        else:
            source = path.with_suffix(".c")
            source.write_text(client_source(str(self.socket), str(self.scripts), silence, seconds))
            subprocess.run([*self.kind.split(), "-Wall", "-Wextra", "-Werror", "-O2", "-o", path, source], check=True)
        path.chmod(0o755)


def of_another_python(path: Path) -> None:
    "Let a client in Python be one that another version has written."
    path.write_text(path.read_text().replace(f"sys.hexversion == {sys.hexversion}", "sys.hexversion == 1"))


def script(path: Path, text: str = "#!/bin/sh\necho by script\n", mode: int = 0o755) -> None:
    "Write what a client falls back on."
    path.write_text(text)
    path.chmod(mode)


@pytest.fixture(scope="module", params=["c", "python"])
def clients(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Clients:
    "Clients in C, by the best compiler that there is, and in Python."
    if request.param == "c" and not shutil.which("cc"):
        pytest.skip("no C compiler")
    return Clients(request.param, tmp_path_factory.mktemp(request.param))


@pytest.fixture(scope="module")
def in_c(tmp_path_factory: pytest.TempPathFactory) -> Clients:
    "For what a Python program can't be: called by another name than its file's."
    if not shutil.which("cc"):
        pytest.skip("no C compiler")
    return Clients("c", tmp_path_factory.mktemp("in_c"))


# Services


@contextmanager
def service(path: Path, serve: Serve) -> Iterator[list[BaseException]]:
    "A service that does something with each caller, one after the other."
    errors: list[BaseException] = []
    with suppress(FileNotFoundError):
        path.unlink()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()

        def run() -> None:
            while True:
                call, _ = listener.accept()
                with call:
                    if not call.recv(1, socket.MSG_PEEK):
                        return
                    try:
                        serve(call)
                    except (BrokenPipeError, ConnectionResetError):
                        pass
                    except BaseException as error:
                        errors.append(error)

        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        yield errors
        with socket.socket(socket.AF_UNIX) as end:
            end.connect(str(path))
        thread.join(60)
    path.unlink()
    assert not errors and not thread.is_alive()


def asked(call: socket.socket) -> list[bytes]:
    "Read a request to its end: its parts."
    received = b""
    while b":" not in received:
        received += call.recv(1)
    size = int(received[:-1])
    payload = b""
    while len(payload) < size + 1:
        more = call.recv(size + 1 - len(payload))
        assert more, "the request has no end"
        payload += more
    assert payload[-2:] == b"\0,"
    return payload[:-2].split(b"\0")


ANSWER = netstring(b"0\0plugin: pid 1 - changed\n\0Cben@example.org\n")
ANSWERED = (0, b"Cben@example.org\n", b"plugin: pid 1 - changed\n")


def saying(*pieces: bytes) -> Serve:
    "A service that says this to everybody, and ends."

    def serve(call: socket.socket) -> None:
        asked(call)
        for piece in pieces:
            call.sendall(piece)

    return serve


def run(program: Path, **environ: str) -> tuple[int, bytes, bytes]:
    "As qmail-smtpd does it: exit status, standard output, standard error."
    done = subprocess.run(
        [program], env=environ, stdin=subprocess.DEVNULL, capture_output=True, restore_signals=False, timeout=120
    )
    return done.returncode, done.stdout, done.stderr


def fell_back(name: str, reason: str) -> tuple[int, bytes, bytes]:
    "What a client's script says, and the client before."
    line = f"{name}: pid {os.getpid()} - the service doesn't answer ({reason}), so the script does it\n"
    return 0, BY_SCRIPT.encode(), line.encode()


# Answers


def test_what_is_asked_and_answered(clients: Clients) -> None:
    requests: list[list[bytes]] = []

    def serve(call: socket.socket) -> None:
        requests.append(asked(call))
        call.sendall(ANSWER)

    with service(clients.socket, serve):
        assert run(clients.folder / "plugin", SMTPRCPTTO="b.en@example.org", EMPTY="") == ANSWERED
    assert requests == [[b"plugin", b"%d" % os.getpid(), b"SMTPRCPTTO=b.en@example.org", b"EMPTY="]]


@pytest.mark.parametrize("kind", ["musl-gcc -static", "cc -static", "cc"])
def test_every_compiler_makes_it_without_a_warning(kind: str, tmp_path: Path) -> None:
    if not shutil.which(kind.partition(" ")[0]):
        pytest.skip(f"no {kind}")
    made = Clients(kind, tmp_path)
    with service(made.socket, saying(ANSWER)):
        assert run(tmp_path / "plugin") == ANSWERED
    assert run(tmp_path / "plugin") == fell_back("plugin", "No such file or directory")


@pytest.mark.parametrize(
    "pieces",
    [
        [ANSWER[:each] for each in (0,)] + [bytes([byte]) for byte in ANSWER],
        [b"0:,", ANSWER],
        [b"0:,0:,0:,0", b":", b",0:,", ANSWER[:7], ANSWER[7:]],
        [b"0:," * 100_000 + ANSWER],
        [ANSWER + b"what comes later"],
        [netstring(ANSWER.partition(b":")[2].replace(b"0\0", b"000\0", 1)[:-1])],
    ],
    ids=["byte by byte", "heartbeat", "heartbeats in parts", "many heartbeats", "more than a reply", "zeros"],
)
def test_a_reply_may_come_in_parts(clients: Clients, pieces: list[bytes]) -> None:
    with service(clients.socket, saying(*pieces)):
        assert run(clients.folder / "plugin") == ANSWERED


@pytest.mark.parametrize(
    ("log", "output"),
    [(b"", b""), (b"log\n", b""), (b"", b"N\n"), (b"\xff\x01\n", b"E550 caf\xe9\n"), (b"l" * 400_000, b"o" * 599_000)],
    ids=["nothing", "log", "output", "odd bytes", "long"],
)
def test_what_comes_is_printed_as_it_is(clients: Clients, log: bytes, output: bytes) -> None:
    with service(clients.socket, saying(netstring(b"0\0%b\0%b" % (log, output)))):
        assert run(clients.folder / "plugin") == (0, output, log)


def test_the_longest_reply(clients: Clients) -> None:
    output = b"x" * (SERVICE_REPLY_LIMIT - len(b"0\0\0"))
    with service(clients.socket, saying(netstring(b"0\0\0" + output))):
        assert run(clients.folder / "plugin") == (0, output, b"")
    with service(clients.socket, saying(netstring(b"0\0\0x" + output))):
        assert run(clients.folder / "plugin") == fell_back("plugin", "what it says is no reply")


def test_the_answer_comes_before_the_wait_and_output_stays_open(clients: Clients) -> None:
    with service(clients.socket, saying(netstring(b"3600500\0log\n\0N\n"))):
        process = subprocess.Popen(
            [clients.folder / "plugin"], env={}, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        with process:
            assert process.stdout is not None and process.stderr is not None
            assert (process.stdout.readline(), process.stderr.readline()) == (b"N\n", b"log\n")
            os.set_blocking(process.stdout.fileno(), False)
            assert process.stdout.read() is None  # there might be more
            assert process.poll() is None
            process.kill()


@pytest.mark.parametrize("delay", [b"1", b"20", b"1001"])
def test_a_short_wait_ends(clients: Clients, delay: bytes) -> None:
    with service(clients.socket, saying(netstring(delay + b"\0\0N\n"))):
        assert run(clients.folder / "plugin") == (0, b"N\n", b"")


def test_written_by_another_python_it_does_the_same(tmp_path: Path) -> None:
    made = Clients("python", tmp_path)
    for name in ("plugin", "hasty"):
        before = (tmp_path / name).read_text()
        of_another_python(tmp_path / name)
        assert (tmp_path / name).read_text() != before
    with service(made.socket, saying(b"0:,", ANSWER)):
        assert run(tmp_path / "plugin") == ANSWERED
    with service(made.socket, saying(ANSWER)):
        assert run(tmp_path / "plugin") == ANSWERED
    with held(made.socket):
        assert run(tmp_path / "hasty") == fell_back("hasty", "it is silent")


# The service doesn't answer


def test_there_is_no_socket(clients: Clients) -> None:
    assert run(clients.folder / "plugin") == fell_back("plugin", "No such file or directory")


def test_nobody_listens(clients: Clients) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(clients.socket))
    assert run(clients.folder / "plugin") == fell_back("plugin", "Connection refused")
    clients.socket.unlink()


@pytest.mark.parametrize("what", ["file", "folder", "dangling", "datagrams"])
def test_something_else_stands_there(clients: Clients, what: str) -> None:
    path = clients.socket
    if what == "file":
        path.write_text("")
    elif what == "folder":
        path.mkdir()
    elif what == "dangling":
        path.symlink_to("/nowhere/socket")
    else:
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM).bind(str(path))
    status, output, log = run(clients.folder / "plugin")
    assert (status, output, log.count(b"\n")) == (0, BY_SCRIPT.encode(), 1)
    path.rmdir() if what == "folder" else path.unlink()


def hangs_up(call: socket.socket) -> None:
    asked(call)


def test_it_hangs_up(clients: Clients) -> None:
    with service(clients.socket, hangs_up):
        assert run(clients.folder / "plugin") == fell_back("plugin", "it has hung up")


def test_it_hangs_up_without_reading(clients: Clients) -> None:
    with service(clients.socket, lambda call: None):
        status, output, log = run(clients.folder / "plugin")
    assert (status, output) == (0, BY_SCRIPT.encode())
    assert log in [fell_back("plugin", why)[2] for why in ("it has hung up", "Connection reset by peer", "Broken pipe")]


@pytest.mark.parametrize("end", range(1, len(ANSWER), 6))
def test_it_hangs_up_in_the_middle(clients: Clients, end: int) -> None:
    with service(clients.socket, saying(b"0:,", ANSWER[:end])):
        assert run(clients.folder / "plugin") == fell_back("plugin", "it has hung up")


@pytest.mark.parametrize(
    "reply",
    [
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
        b"\n",
        b":0\0\0,",
        b"-1:,",
        b" 4:0\0\0N,",
        b"+4:0\0\0N,",
        b"04:0\0\0N,",
        b"00:,",
        b"4:0\0\0N;",
        b"4:0\0\0N\n,",
        b"99999999999999999999:",
        b"18446744073709551620:0\0\0N,",
        b"1000001:",
        netstring(b"N\n"),
        netstring(b"0\0N\n"),
        netstring(b"0\0\0\0N\n"),
        netstring(b"0\0\0N\0\n"),
        netstring(b"\0\0N\n"),
        netstring(b"-1\0\0N\n"),
        netstring(b" 1\0\0N\n"),
        netstring(b"1.5\0\0N\n"),
        netstring(b"1x\0\0N\n"),
        netstring("²".encode() + b"\0\0N\n"),
        netstring(b"1234567890\0\0N\n"),
        b"0:," + netstring(b"N\n"),
    ],
)
def test_rubbish_is_not_an_answer(clients: Clients, reply: bytes) -> None:
    with service(clients.socket, saying(reply)):
        assert run(clients.folder / "plugin") == fell_back("plugin", "what it says is no reply")


@contextmanager
def held(path: Path, *said: bytes) -> Iterator[None]:
    "A service that reads, says something and then nothing, until the client is gone."

    def serve(call: socket.socket) -> None:
        saying(*said)(call)
        while call.recv(100):
            pass

    with service(path, serve):
        yield


@pytest.mark.parametrize("said", [(), (b"0:,",), (ANSWER[:-1],), (b"4",)], ids=["nothing", "heartbeat", "most", "digit"])
def test_silence(clients: Clients, said: Sequence[bytes]) -> None:
    with held(clients.socket, *said):
        assert run(clients.folder / "hasty") == fell_back("hasty", "it is silent")


@pytest.mark.parametrize("said", [b"0:,", b"0"], ids=["heartbeats", "a reply without an end"])
def test_it_goes_on_for_ever(clients: Clients, said: bytes) -> None:
    def serve(call: socket.socket) -> None:
        asked(call)
        call.sendall(b"" if said == b"0:," else b"100000:0\0\0")
        while True:
            call.sendall(said)
            threading.Event().wait(0.01)

    with service(clients.socket, serve):
        assert run(clients.folder / "brief") == fell_back("brief", "it has taken too long")


def test_a_flood_of_heartbeats(clients: Clients) -> None:
    def serve(call: socket.socket) -> None:
        asked(call)
        while True:
            call.sendall(b"0:," * 20_000 + b"0")
            call.sendall(b":,")

    with service(clients.socket, serve):
        assert run(clients.folder / "brief") == fell_back("brief", "it has taken too long")


def test_its_queue_is_full(clients: Clients) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(clients.socket))
        listener.listen(0)
        callers = []
        with suppress(BlockingIOError):
            while True:
                caller = socket.socket(socket.AF_UNIX)
                caller.setblocking(False)
                callers.append(caller)
                caller.connect(str(clients.socket))
        assert run(clients.folder / "hasty") == fell_back("hasty", "its queue is full")
        for caller in callers:
            caller.close()
    clients.socket.unlink()


# Large and odd environments


def room(name: str) -> int:
    "For a variable's value, in the largest request."
    return REQUEST_LIMIT - len(f"{name}\0{os.getpid()}\0BIG=\0")


def test_the_largest_request(clients: Clients) -> None:
    sizes: list[int] = []

    def serve(call: socket.socket) -> None:
        sizes.append(sum(len(part) + 1 for part in asked(call)))
        call.sendall(ANSWER)

    # One value may have 128 kB: execve(2), MAX_ARG_STRLEN. So two of them.
    first, second = "x" * 100_000, "y" * (room("plugin") - 100_000 - len("TWO=\0"))
    with service(clients.socket, serve):
        assert run(clients.folder / "plugin", BIG=first, TWO=second) == ANSWERED
        assert sizes == [REQUEST_LIMIT]
        larger = run(clients.folder / "plugin", BIG=first, TWO=second + "y")
        assert larger == fell_back("plugin", "the environment is too large for it")
        assert run(clients.folder / "plugin", BIG=first, TWO=first)[:2] == (0, BY_SCRIPT.encode())
        assert sizes == [REQUEST_LIMIT]


libc = ctypes.CDLL(None, use_errno=True)


def spawn(program: Path, arguments: list[bytes], environ: list[bytes], *closed: int) -> tuple[int, bytes, bytes]:
    "Start a program with arguments and an environment that no library would put together."
    actions = ctypes.create_string_buffer(1024)
    (out, out_end), (err, err_end) = os.pipe(), os.pipe()
    libc.posix_spawn_file_actions_init(actions)
    for descriptor, end in ((1, out_end), (2, err_end)):
        libc.posix_spawn_file_actions_adddup2(actions, end, descriptor)
    for descriptor in closed:
        libc.posix_spawn_file_actions_addclose(actions, descriptor)
    pid = ctypes.c_int()
    argv = (ctypes.c_char_p * (len(arguments) + 1))(*arguments, None)
    envp = (ctypes.c_char_p * (len(environ) + 1))(*environ, None)
    assert libc.posix_spawn(ctypes.byref(pid), os.fsencode(program), actions, None, argv, envp) == 0
    os.close(out_end)
    os.close(err_end)
    with open(out, "rb") as output, open(err, "rb") as log:
        said = output.read(), log.read()
    return os.waitstatus_to_exitcode(os.waitpid(pid.value, 0)[1]), *said


@pytest.mark.parametrize(
    "environ",
    [
        [],
        [b"odd"],
        [b"A=1", b"A=2", b"odd", b"", b"=", b"=x", b"A==b"],
        [b"SMTPMAILFROM=caf\xe9@example.net", b"\xff\xfe=\x01\n"],
        [b"LC_ALL=C", b"LANG=de_DE.ISO-8859-1"],
        [b"BIG=" + b"x" * 100_000],
        [b"PYTHONPATH=/nowhere", b"PYTHONHOME=/nowhere", b"LD_BIND_NOW=1"],
        [b"%d=" % each for each in range(5000)],
    ],
    ids=["empty", "no equals sign", "doubled", "8-bit", "locale", "100 kB", "python", "many"],
)
def test_the_environment_goes_as_it_stands(clients: Clients, environ: list[bytes]) -> None:
    requests: list[list[bytes]] = []

    def serve(call: socket.socket) -> None:
        requests.append(asked(call))
        call.sendall(ANSWER)

    program = clients.folder / "plugin"
    with service(clients.socket, serve):
        assert spawn(program, [os.fsencode(program)], environ) == ANSWERED
    assert requests == [[b"plugin", b"%d" % os.getpid(), *environ]]


def test_the_script_gets_arguments_and_environment(clients: Clients) -> None:
    script(clients.scripts / "plugin", '#!/bin/sh\necho "$0 $* $A ${LC_CTYPE-none}"\n')
    program = clients.folder / "plugin"
    status, output, log = spawn(program, [os.fsencode(program), b"one", b"two"], [b"odd", b"A=\xe9"])
    script(clients.scripts / "plugin")
    assert (status, log.count(b"\n")) == (0, 1)
    if clients.kind == "c":
        assert output == b"%b one two \xe9 none\n" % os.fsencode(clients.scripts / "plugin")
    else:  # Python may have set LC_CTYPE by itself: PEP 538
        assert output.startswith(b"%b one two \xe9 " % os.fsencode(clients.scripts / "plugin"))


# Odd names: a Python program can't see what it was called by, only where its file is


@pytest.mark.parametrize("called", ["plugin", "./plugin", "/a/b/plugin", "//plugin", "plugins/plugin"])
def test_a_name_is_what_stands_behind_the_last_slash(in_c: Clients, called: str) -> None:
    names: list[bytes] = []

    def serve(call: socket.socket) -> None:
        names.append(asked(call)[0])
        call.sendall(ANSWER)

    with service(in_c.socket, serve):
        assert spawn(in_c.folder / "plugin", [called.encode()], []) == ANSWERED
    assert names == [b"plugin"]
    assert spawn(in_c.folder / "plugin", [called.encode()], [])[1] == BY_SCRIPT.encode()


@pytest.mark.parametrize(
    "arguments",
    [[], [b""], [b"/"], [b"plugins/"], [b"x" * (CLIENT_NAME_LIMIT + 1)], [b"/" + b"x" * 100_000]],
    ids=["no arguments", "empty", "slash", "folder", "long", "longer"],
)
def test_a_name_that_no_plugin_has(in_c: Clients, arguments: list[bytes]) -> None:
    with service(in_c.socket, saying(ANSWER)):
        status, output, log = spawn(in_c.folder / "plugin", arguments, [])
    assert (status, output) == (0, b"")
    line = f"ra-plugins: pid {os.getpid()} - called by a name that no plugin has, so the mail goes on\n"
    assert log == line.encode()


@pytest.mark.parametrize("name", ["x" * CLIENT_NAME_LIMIT, "..", ".", "a b", "caf\udce9", "%s%n"])
def test_a_name_without_a_script(in_c: Clients, name: str) -> None:
    status, output, log = spawn(in_c.folder / "plugin", [os.fsencode(name)], [])
    assert (status, output, log.count(b"\n")) == (0, b"", 1)
    start = f"{name}: pid {os.getpid()} - neither the service nor {in_c.scripts}/{name} can be reached, so the mail goes on: "
    assert log.startswith(os.fsencode(start)), log


def test_a_name_cannot_write_a_line_of_its_own(in_c: Clients) -> None:
    log = spawn(in_c.folder / "plugin", [b"a\n\x1b[2Jb\x7f"], [])[2]
    assert log.startswith(b"a??[2Jb?: pid ") and log.count(b"\n") == 1 and b"\x1b" not in log


# Neither service nor script


def make_copy_of_client(clients: Clients, path: Path) -> None:
    shutil.copy(clients.folder / "plugin", path)


NO_SCRIPTS: dict[str, tuple[Callable[[Clients, Path], None], str]] = {
    "missing": (lambda clients, path: None, "No such file or directory"),
    "not executable": (lambda clients, path: script(path, mode=0o644), "Permission denied"),
    "folder": (lambda clients, path: path.mkdir(), "Is a directory"),
    "empty": (lambda clients, path: script(path, ""), "it is no script"),
    "program": (lambda clients, path: path.symlink_to("/bin/true"), "it is no script"),
    "client": (make_copy_of_client, "it is no script"),
    "link to client": (lambda clients, path: path.hardlink_to(clients.folder / "plugin"), "it is no script"),
    "no interpreter": (lambda clients, path: script(path, "#!/nowhere/python\n"), "No such file or directory"),
}


@pytest.mark.parametrize("case", NO_SCRIPTS)
def test_mail_goes_on_without_service_and_script(clients: Clients, case: str) -> None:
    path = clients.scripts / "other"
    make_copy_of_client(clients, clients.folder / "other")
    make, reason = NO_SCRIPTS[case]
    make(clients, path)
    status, output, log = run(clients.folder / "other")
    assert (status, output) == (0, b"")
    lines = log.decode().splitlines()
    assert lines[-1] == (
        f"other: pid {os.getpid()} - neither the service nor {path} can be reached, so the mail goes on: "
        f"No such file or directory; {reason}"
    )
    # That a file can't be executed shows only when one tries.
    assert len(lines) == (2 if case in ("not executable", "no interpreter") else 1)
    if case == "folder":
        path.rmdir()
    else:
        path.unlink(missing_ok=True)


# Descriptors and signals


@pytest.mark.parametrize("answers", [True, False])
def test_nobody_reads_the_answer(clients: Clients, answers: bool) -> None:
    "SIGPIPE may kill, or be ignored: qmail-smtpd ignores it, a shell doesn't."
    for restore in (True, False):
        read_end, write_end = os.pipe()
        os.close(read_end)
        with service(clients.socket, saying(ANSWER) if answers else hangs_up):
            done = subprocess.run(
                [clients.folder / "plugin"], env={}, stdout=write_end, stderr=write_end, restore_signals=restore, timeout=60
            )
        os.close(write_end)
        assert done.returncode == 0 if answers else done.returncode >= 0  # the script's own, then


@pytest.mark.parametrize("closed", [(0,), (1,), (0, 1), (1, 2), (2,), (0, 1, 2), (0, 2)], ids=str)
def test_closed_descriptors_do_not_become_the_socket(clients: Clients, closed: tuple[int, ...]) -> None:
    "Otherwise the service would be told its own answer."
    heard: list[bytes] = []

    def serve(call: socket.socket) -> None:
        asked(call)
        call.sendall(ANSWER)
        call.shutdown(socket.SHUT_WR)
        heard.append(call.recv(100))

    program = clients.folder / "plugin"
    with service(clients.socket, serve):
        status, output, log = spawn(program, [os.fsencode(program)], [], *closed)
    assert (status, heard) == (0, [b""])
    assert (output, log) == (b"" if 1 in closed else ANSWERED[1], b"" if 2 in closed else ANSWERED[2])


@pytest.mark.parametrize("closed", [(0,), (1,), (2,), (0, 2), (1, 2), (0, 1, 2)], ids=str)
@pytest.mark.parametrize("name", ["ipthrottle", "at-connection"])
def test_a_script_with_closed_descriptors_answers_and_logs_where_it_should(
    tmp_path: Path, name: str, closed: tuple[int, ...]
) -> None:
    "What is logged never becomes an answer."
    install(str(tmp_path), ["ipthrottle"], log=lambda line: None, service="/nowhere/socket")
    (tmp_path / "atplugins").write_text("[connection]\nipthrottle\nmissing\n")
    environ = [b"TCPREMOTEIP=192.0.2.1", b"RATER=/nowhere/rater", b"CONTROLDIR=" + os.fsencode(tmp_path)]
    status, output, log = spawn(tmp_path / "scripts" / name, [os.fsencode(tmp_path / "scripts" / name)], environ, *closed)
    assert (status, output) == (0, b"")
    assert (b"ipthrottle: pid " in log) == (2 not in closed)


def test_the_script_finds_standard_input_closed_as_it_was(clients: Clients) -> None:
    script(clients.scripts / "plugin", "#!/bin/sh\n[ -e /proc/$$/fd/0 ] && echo open || echo closed\n")
    program = clients.folder / "plugin"
    with service(clients.socket, hangs_up):
        assert spawn(program, [os.fsencode(program)], [], 0)[:2] == (0, b"closed\n")
    script(clients.scripts / "plugin")


def test_stopped_and_continued_it_waits_on(clients: Clients) -> None:
    "With a bound on waiting, a system call ends with EINTR then: signal(7)."
    waits, answers = threading.Event(), threading.Event()

    def serve(call: socket.socket) -> None:
        asked(call)
        waits.set()
        answers.wait(60)
        call.sendall(ANSWER)

    with service(clients.socket, serve):
        process = subprocess.Popen(
            [clients.folder / "plugin"], env={}, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        assert waits.wait(60)
        for _ in range(3):
            process.send_signal(signal.SIGSTOP)
            assert os.WIFSTOPPED(os.waitpid(process.pid, os.WUNTRACED)[1])
            process.send_signal(signal.SIGCONT)
            assert os.WIFCONTINUED(os.waitpid(process.pid, os.WCONTINUED)[1])
        answers.set()
        output, log = process.communicate(timeout=60)
    assert (process.returncode, output, log) == ANSWERED


# Compiling


def only(folder: Path, monkeypatch: pytest.MonkeyPatch, **programs: str) -> None:
    "Let the PATH have these programs and no others: their texts, or where they are."
    folder.mkdir()
    for name, text in programs.items():
        path = folder / name.replace("_", "-")
        if text.startswith("#!"):
            script(path, text)
        else:
            path.symlink_to(text)
    monkeypatch.setenv("PATH", str(folder))


def test_without_a_compiler_it_is_in_python(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    only(tmp_path / "bin", monkeypatch)
    client = compile_client("/run/socket", "/scripts")
    assert client.kind == "in Python" and client.program.startswith(b"#!")
    assert client.tried == ("musl-gcc -static: not there", "cc -static: not there", "cc: not there")


@pytest.mark.parametrize(
    ("wrapper", "kind", "tried"),
    [
        ('exec {cc} "$@"', "in C, compiled by cc -static", 1),
        ('case "$*" in *-static*) echo "cannot find -lc" >&2; exit 1;; esac\nexec {cc} "$@"', "in C, compiled by cc", 2),
        ("exit 1", "in Python", 3),
        ("echo nonsense >&2; exit 1", "in Python", 3),
        ("kill -9 $$", "in Python", 3),
        ("exit 0", "in Python", 3),
        ('for last do :; done; cp "$last" "${{last%.c}}"', "in Python", 3),  # for another machine
        ('for last do :; done; cp {true} "${{last%.c}}"', "in Python", 3),  # runs, and is something else
    ],
)
def test_compilers_that_fail(wrapper: str, kind: str, tried: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = {name: shutil.which(name) for name in ("cc", "true", "cp")}
    if not found["cc"]:
        pytest.skip("no C compiler")
    text = "#!/bin/sh\nPATH=/usr/bin:/bin\n" + wrapper.format(**found) + "\n"
    only(tmp_path / "bin", monkeypatch, cc=text)
    client = compile_client("/run/socket", "/scripts", str(tmp_path))
    assert (client.kind, len(client.tried)) == (kind, tried), client.tried
    assert all(len(why) < 300 and "\n" not in why for why in client.tried)
    assert os.listdir(tmp_path) == ["bin"]


def test_a_compiler_that_never_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    only(tmp_path / "bin", monkeypatch, cc="#!/bin/sh\nexec /bin/sleep 1000\n")
    monkeypatch.setattr(module, "COMPILER_SECONDS", 0.1)
    assert compile_client("/run/socket", "/scripts").tried[1] == "cc -static: not done in 0.1 seconds"


def test_musl_comes_first() -> None:
    if not shutil.which("musl-gcc"):
        pytest.skip("no musl-gcc")
    client = compile_client("/run/socket", "/scripts")
    assert (client.kind, client.tried) == ("in C, compiled by musl-gcc -static", ())
    assert b".symtab" not in client.program and len(client.program) < 100_000


ODD_NAMES = ['a "quoted" one', "back\\slash", "per%cent", "caf\udce9", "tri??=graph", "new\nline", "$(x)", "'''", '"""']


@pytest.mark.parametrize("name", ODD_NAMES)
def test_paths_of_any_kind(name: str, tmp_path: Path) -> None:
    folder = tmp_path / name
    folder.mkdir()
    for kind in ("c", "python"):
        (folder / kind).mkdir()
        made = Clients(kind, folder / kind)
        with service(made.socket, saying(ANSWER)):
            assert run(made.folder / "plugin") == ANSWERED
        assert run(made.folder / "plugin") == fell_back("plugin", "No such file or directory")


@pytest.mark.parametrize("make", [client_source, python_client, compile_client])
@pytest.mark.parametrize("path", ["", "socket", "./socket", "/a\0b", "/" + "x" * SOCKET_PATH_LIMIT])
def test_paths_that_cannot_be_compiled_in(make: Callable[[str, str], object], path: str) -> None:
    with pytest.raises(Fault):
        make(path, "/scripts")
    with pytest.raises(Fault):
        make("/socket", path if len(path) < 50 else path * 100)


def test_the_longest_path_of_a_socket(tmp_path: Path) -> None:
    longest = "/" + "x" * (SOCKET_PATH_LIMIT - 1)
    assert compile_client(longest, "/scripts").program and python_client(longest, "/scripts")


def test_a_string_of_c_holds_no_byte_that_means_something() -> None:
    assert c_string("/run/a-b_c.d") == '"/run/a-b_c.d"'
    assert c_string('"\\?\n1') == '"\\042\\134\\077\\0121"'


# Installing


def modes(folder: Path) -> set[str]:
    return {oct(stat.S_IMODE(path.stat().st_mode)) for path in folder.iterdir()}


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.mark.parametrize("umask", [0o022, 0o077, 0o000])
def test_clients_and_scripts_are_for_everybody_to_run(tmp_path: Path, umask: int, said: list[str]) -> None:
    folder = tmp_path / "plugins"
    before = os.umask(umask)
    try:
        paths = install(str(folder), ["msa", "tarpit"], log=said.append, service=str(tmp_path / "socket"))
    finally:
        os.umask(before)
    names = {"msa", "tarpit", *(f"at-{stage}" for stage in STAGES)}
    assert {Path(path).name for path in paths} == names
    assert {path.name for path in folder.iterdir()} == names | {"scripts"}
    assert {path.name for path in (folder / "scripts").iterdir()} == names
    assert modes(folder) == modes(folder / "scripts") == {"0o755"}
    for name in names:
        path = str(folder / name)
        assert is_client(path) and is_installed(path) and script_of(path) == str(folder / "scripts" / name)
        assert is_installed(script_of(path)) and not is_client(script_of(path))
    assert section_of(str(folder / "at-rcpt")) == "rcpt" and section_of(str(folder / "msa")) == ""
    assert repr(plugin_of(str(folder / "msa"))) == "<plugin msa at mail>"
    assert said[-1].startswith(f"clients of the service at {tmp_path}/socket, in ")
    assert said[-1].endswith(f"are in {folder}; scripts, in case it doesn't answer, in {folder}/scripts")


def test_an_installed_client_asks_and_falls_back(tmp_path: Path, said: list[str]) -> None:
    install(str(tmp_path / "plugins"), ["msa"], log=said.append, service=str(tmp_path / "socket"))
    program = tmp_path / "plugins" / "msa"
    with service(tmp_path / "socket", saying(ANSWER)):
        assert run(program) == ANSWERED
    status, output, log = run(program)
    assert (status, output) == (0, b"E550 You should be authenticated\n")
    assert log.decode().splitlines() == [
        f"msa: pid {os.getpid()} - the service doesn't answer (No such file or directory), so the script does it",
        f"msa: pid {os.getpid()} - Message rejected (no auth).",
    ]


def test_programs_of_others_stay(tmp_path: Path, said: list[str]) -> None:
    for place in ("plugins", "plugins/scripts"):
        (tmp_path / place).mkdir()
        script(tmp_path / place / "msa")
        with pytest.raises(Fault, match="already there, and not ours: .*/msa"):
            install(str(tmp_path / "plugins"), ["msa"], log=said.append, service="/run/socket")
        assert (tmp_path / place / "msa").read_text().endswith("echo by script\n")
        (tmp_path / place / "msa").unlink()
    script(tmp_path / "plugins" / "at-rcpt")
    with pytest.raises(Fault, match="at-rcpt"):
        install(str(tmp_path / "plugins"), ["msa"], log=said.append, service="/run/socket")
    install(str(tmp_path / "plugins"), ["msa"], force=True, log=said.append, service="/run/socket")
    assert is_client(str(tmp_path / "plugins" / "at-rcpt"))


def test_all_clients_of_a_folder_are_of_one_service(tmp_path: Path, said: list[str]) -> None:
    folder = str(tmp_path / "plugins")
    install(folder, ["msa", "tarpit"], log=said.append, service=str(tmp_path / "old"))
    install(folder, ["msa"], log=said.append, service=str(tmp_path / "new"))
    with service(tmp_path / "new", saying(ANSWER)):
        for name in ("msa", "tarpit", "at-mail"):
            assert run(tmp_path / "plugins" / name) == ANSWERED


def test_clients_of_an_older_service_are_run_to_their_end(tmp_path: Path, said: list[str]) -> None:
    "A program that runs can't be written to: text file busy. Ours are replaced."
    folder = tmp_path / "plugins"
    install(str(folder), ["msa"], log=said.append, service=str(tmp_path / "socket"))
    reached, go_on = threading.Event(), threading.Event()

    def serve(call: socket.socket) -> None:
        asked(call)
        reached.set()
        go_on.wait(60)
        call.sendall(ANSWER)

    with service(tmp_path / "socket", serve):
        process = subprocess.Popen([folder / "msa"], env={}, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        assert reached.wait(60)
        install(str(folder), ["msa"], log=said.append, service=str(tmp_path / "socket"))
        go_on.set()
        assert process.communicate(timeout=60)[0] == ANSWERED[1]


OWN = "from ra_plugins.spp.plugin import plugin\n\n\n@plugin('rcpt')\ndef mine():\n    'Mine.'\n"


def test_back_to_scripts(tmp_path: Path, said: list[str]) -> None:
    folder, own = tmp_path / "plugins", tmp_path / "mine.py"
    own.write_text(OWN)
    install(str(folder), ["msa", "tarpit", str(own)], log=said.append, service=str(tmp_path / "socket"))
    script(folder / "theirs")

    assert install(str(folder), ["msa"], log=said.append) == [str(folder / "msa")]
    assert said[-1].startswith(f"still clients of the service, in {folder}: at-auth, ") and "tarpit" in said[-1]
    assert not is_client(str(folder / "msa")) and is_client(str(folder / "tarpit"))
    assert not (folder / "scripts" / "msa").exists() and (folder / "scripts" / "tarpit").exists()

    paths = install(str(folder), log=said.append)
    assert {str(folder / "mine"), str(folder / "at-rcpt"), str(folder / "tarpit")} <= set(paths)
    assert not [path for path in folder.iterdir() if is_client(str(path))]
    assert not (folder / "scripts").exists() and said[-1] == f"no client is left in {folder}, so {folder}/scripts is gone"
    assert modes(folder) == {"0o755"} and (folder / "theirs").read_text().endswith("echo by script\n")
    assert run(folder / "msa")[:2] == (0, b"E550 You should be authenticated\n")
    assert run(folder / "mine") == (0, b"", b"")
    assert section_of(str(folder / "at-rcpt")) == "rcpt"


def test_a_client_without_a_script_is_told_of(tmp_path: Path, said: list[str]) -> None:
    folder = tmp_path / "plugins"
    install(str(folder), ["msa"], log=said.append, service=str(tmp_path / "socket"))
    shutil.copy(folder / "msa", folder / "renamed")
    (folder / "scripts" / "theirs").write_text("not ours")
    install(str(folder), log=said.append)
    assert said[-1] == f"still clients of the service, in {folder}: renamed; they have no scripts"
    assert [path.name for path in (folder / "scripts").iterdir()] == ["theirs"]
    assert run(folder / "renamed")[:2] == (0, b"")


def test_a_folder_that_cannot_be_written_to(tmp_path: Path) -> None:
    with pytest.raises(Fault, match="scripts isn't a folder"):
        (tmp_path / "scripts").write_text("")
        install(str(tmp_path), ["msa"], service="/run/socket")
    with pytest.raises(Fault, match="the socket should be named by its full path"):
        install(str(tmp_path / "other"), ["msa"], service="socket")
    assert not list((tmp_path / "other").iterdir())


def test_a_failure_leaves_nothing_half_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: list[str]) -> None:
    "What is there when the disk is full is what was there before, or the whole."
    folder = tmp_path / "plugins"
    install(str(folder), ["msa"], log=said.append)
    before = (folder / "msa").read_bytes()
    replace, done = os.replace, []

    def fail_later(source: str, target: str) -> None:
        done.append(target)
        if len(done) > 3:
            raise OSError(28, "No space left on device")
        replace(source, target)

    monkeypatch.setattr(os, "replace", fail_later)
    with pytest.raises(Fault, match="No space left on device"):
        install(str(folder), ["msa"], log=said.append, service="/run/socket")
    assert (folder / "msa").read_bytes() == before
    assert not [path for path in folder.rglob("*") if path.name.startswith(".ra-plugins-")]


def test_a_client_that_has_become_a_script_meanwhile(clients: Clients) -> None:
    "It waits for the service while `install` takes all clients back."
    program = clients.folder / "late"
    clients.write(program, PATIENT, LONG)

    def take_back(call: socket.socket) -> None:
        asked(call)
        script(clients.folder / "new")
        os.replace(clients.folder / "new", program)

    with service(clients.socket, take_back):
        assert run(program) == fell_back("late", "it has hung up")
    program.unlink()
    clients.write(program, PATIENT, LONG)  # and a client doesn't become itself
    assert run(program)[:2] == (0, b"")


def as_python(path: Path) -> tuple[int, bytes]:
    "What comes of a Python that the kernel has started with a script, and that opens now what is at its path."
    done = subprocess.run([sys.executable, "-IS", path], env={}, stdin=subprocess.DEVNULL, capture_output=True, check=False)
    return done.returncode, done.stdout


@pytest.mark.parametrize("odd", [False, True], ids=["direct", "by way of the shell"])
def test_what_has_been_started_as_a_script_ends_as_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: list[str], odd: bool
) -> None:
    "From scripts to clients and back, seen in the pauses that `install` makes."
    folder, seen, refused = tmp_path / "plugins", list[str](), b"E550 You should be authenticated\n"
    if odd:
        (tmp_path / "a python").symlink_to(sys.executable)
        monkeypatch.setattr("ra_plugins.cli.install.executable", lambda plugin: executable(plugin, f"{tmp_path}/a python"))

    def look(seconds: float) -> None:
        program = folder / "msa"
        if is_client(str(program)):  # the bridge is still there for those on it
            seen.append("client")
            assert [path.name for path in folder.glob(".ra-plugins-*/*")] == ["msa"]
        elif not (folder / "scripts").exists():
            raise AssertionError("scripts come first")
        elif list(folder.glob(".ra-plugins-*")):
            seen.append("bridge")
            assert as_python(program) == (0, refused)
            with service(tmp_path / "socket", saying(ANSWER)):
                assert run(program) == ANSWERED
            assert run(program)[:2] == (0, refused)
        else:
            seen.append("back")
            assert as_python(program) == as_python(folder / "scripts" / "msa") == (0, refused)
            assert run(program)[:2] == (0, refused)

    monkeypatch.setattr(installing, "sleep", look)
    for socket_path in (None, str(tmp_path / "socket"), None):
        install(str(folder), ["msa"] if socket_path or not seen else [], log=said.append, service=socket_path)
        assert not list(folder.glob(".ra-plugins-*"))
    assert seen == ["bridge", "client", "back"]


# On the command line


def test_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "plugins"
    me = ["--create", "--user", str(os.geteuid())]
    assert ra_plugins(["install", str(folder), "--service", str(tmp_path / "socket"), "msa", *me]) == 0
    told = capsys.readouterr()
    assert f"{folder}/msa\n" in told.out and f"{folder}/at-rcpt\n" in told.out
    assert f"ra-plugins: clients of the service at {tmp_path}/socket, in " in told.err
    assert ra_plugins(["install", str(folder), "msa", "--service", *me]) == 0
    assert "clients of the service at /run/ra-plugins/socket, " in capsys.readouterr().err
    with pytest.raises(SystemExit) as end:
        ra_plugins(["install", str(folder), "--service", "msa"])
    assert end.value.code == 3 and "'msa' should be a path that begins with /" in capsys.readouterr().err


def control_folder(home: Path, sections: str) -> Path:
    "A mail server's control files."
    control = home / "control"
    control.mkdir()
    (control / "me").write_text("mail.example.org\n")
    (control / "rcpthosts").write_text("example.org\n")
    (control / "smtpplugins").write_text(sections)
    return control


def test_a_dry_run_with_a_folder_of_clients(tmp_path: Path, capsys: pytest.CaptureFixture[str], said: list[str]) -> None:
    "It judges by the plugin itself, asks no service, and knows that a client is out of place."
    control = control_folder(tmp_path, "[mail]\nplugins/msa\nplugins/at-rcpt\n[rcpt]\nplugins/msa\n")
    install(str(tmp_path / "plugins"), ["msa"], log=said.append, service=str(tmp_path / "socket"))
    session = ["--ip", "192.0.2.1", "--helo", "x", "--from", "ana@example.net", "--control", str(control)]
    assert ra_plugins(["try", *session]) == 1
    told = capsys.readouterr()
    assert "S: 550 You should be authenticated" in told.out and "the service doesn't answer" not in told.out
    assert "plugins/at-rcpt stands below [mail], and runs the plugins of [rcpt]" in told.err
    assert "plugins/msa stands below [rcpt], and is meant for mail" in told.err


def test_a_dry_run_of_a_whole_section(tmp_path: Path, capsys: pytest.CaptureFixture[str], said: list[str]) -> None:
    "It shows what each plugin does, as if smtpplugins named them, and no client asks anybody."
    control = control_folder(tmp_path, "[rcpt]\nplugins/at-rcpt\n")
    (control / "atplugins").write_text("[rcpt]\nplusaliases\ndotblind\nnonesuch\n")
    folder = tmp_path / "plugins"
    session = ["--ip", "192.0.2.1", "--helo", "x", "--from", "ana@example.net", "--to", "b.en+tea@example.org"]
    for to_service in (str(tmp_path / "socket"), None):
        install(str(folder), ["plusaliases", "dotblind"] if to_service else [], log=said.append, service=to_service)
        assert ra_plugins(["try", *session, "--control", str(control)]) == 0
        told = capsys.readouterr()
        assert "changed b.en@example.org to ben@example.org" in told.out and "doesn't answer" not in told.out
        assert "there is no plugin nonesuch, so the mail goes on without it" in told.out


def test_a_section_falls_back_on_its_script(tmp_path: Path, said: list[str]) -> None:
    control = control_folder(tmp_path, "")
    (control / "atplugins").write_text("[rcpt]\nplusaliases\ndotblind\n")
    install(str(tmp_path / "plugins"), ["plusaliases", "dotblind"], log=said.append, service=str(tmp_path / "socket"))
    status, output, log = run(
        tmp_path / "plugins" / "at-rcpt", SMTPRCPTTO="b.en+tea@example.org", CONTROLDIR=str(control)
    )
    assert (status, output) == (0, b"Cb.en@example.org\nCben@example.org\n")
    assert log.startswith(b"at-rcpt: pid %d - the service doesn't answer " % os.getpid())


def test_a_mail_server_with_a_folder_of_clients(tmp_path: Path, said: list[str]) -> None:
    "With the service, and without it, the client of the mail server is told the same."
    from smtplib import SMTP

    control = control_folder(tmp_path, "[mail]\nplugins/msa\n")
    install(str(tmp_path / "plugins"), ["msa"], log=said.append, service=str(tmp_path / "socket"))
    command = [sys.executable, "-m", "ra_plugins.cli.command", "smtpd", "--control", str(control), "--port", "0"]
    command[1:3] = ["-c", "from ra_plugins.cli.command import main; raise SystemExit(main())"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as server:
        assert server.stderr is not None
        for line in server.stderr:
            if "listening at" in line:
                port = int(line.split(" port ")[1].split(",")[0])
                break
        replies = []
        for serving in (True, False):
            with service(tmp_path / "socket", saying(netstring(b"0\0\0E550 You should be authenticated\n"))):
                if not serving:
                    (tmp_path / "socket").rename(tmp_path / "away")
                with SMTP("127.0.0.1", port) as session:
                    session.ehlo("mail.example.net")
                    replies.append(session.mail("ana@example.net"))
                if not serving:
                    (tmp_path / "away").rename(tmp_path / "socket")
        server.terminate()
        log = server.stderr.read()
    assert replies == [(550, b"You should be authenticated")] * 2
    assert log.count("the service doesn't answer (No such file or directory), so the script does it") == 1


def test_every_client_has_the_mark_that_it_is_known_by(clients: Clients) -> None:
    assert CLIENT_MARK.encode() in (clients.folder / "plugin").read_bytes()
    assert is_client(str(clients.folder / "plugin")) and not is_client(str(clients.scripts / "plugin"))
