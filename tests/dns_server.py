"""A nameserver on loopback that serves a zone, slowly or wrongly where a test wants it so, and counts.

`with DnsServer(zone) as server` runs it in a thread; `with remote_server(zone) as server` in a process of its own,
for measurements. Both listen on `server.port`, UDP and TCP.
"""

from __future__ import annotations

import asyncio
import contextlib
import multiprocessing
import socket
import threading
from collections.abc import Iterable, Iterator
from functools import partial
from multiprocessing.connection import Connection
from types import SimpleNamespace
from typing import Any

import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rrset

from ra_plugins.ask.dns import CNAME_LIMIT, RDTYPES, Lookup, Zone
from ra_plugins.ask.question import Unanswered

FAULTS = {
    "drop": "no answer over UDP nor TCP",
    "late": "the answer is held back until `release`",
    "truncate": "over UDP, half of the answer with the flag that says so; over TCP, all of it",
    "truncate always": "over TCP too",
    "close": "truncated over UDP; over TCP, the connection is closed after the question",
    "hang": "truncated over UDP; over TCP, nothing",
    "drip": "truncated over UDP; over TCP, a byte now and then, and never the last",
    "cut": "half of the packet, and no flag",
    "garbage": "bytes that aren't a message",
    "wrong id": "the answer to another question's number",
    "wrong name": "the answer to a question about another name",
    "wrong answer": "the question as asked, and records of another name",
    "wrong source": "the true answer, from another port",
    "servfail": "SERVFAIL",
    "refused": "REFUSED",
    "referral": "the names of other nameservers, as from one that looks up nothing for others",
    "formerr": "FORMERR, whatever is asked",
    "no edns": "FORMERR to a query with EDNS, as from one that doesn't know it",
    "not implemented": "NOTIMP to a query with EDNS",
    "endless": "an alias for a name that is asked about in the same way, and so on",
}

CODES = {
    "servfail": dns.rcode.SERVFAIL,
    "refused": dns.rcode.REFUSED,
    "formerr": dns.rcode.FORMERR,
    "no edns": dns.rcode.FORMERR,
    "not implemented": dns.rcode.NOTIMP,
}


class DnsServer:
    "A nameserver in a thread."

    def __init__(
        self,
        zone: Zone,
        delay: float = 0.0,  # seconds before each answer
        fault: str = "",  # a key of `FAULTS`, for every answer
        faults: dict[str, str] | None = None,  # for single names, in lower case
        ttl: int = 300,  # seconds, of all records and of the SOA in negative answers
        soa: bool = True,  # do negative answers have one?
        links: int = 2 * CNAME_LIMIT,  # of a chain of CNAMEs that go into one answer
        delays: dict[str, float] | None = None,  # for names that end so, in lower case, in place of `delay`
    ):
        self.zone, self.delay, self.fault, self.faults = zone, delay, fault, faults or {}
        self.ttl, self.soa, self.links, self.delays = ttl, soa, links, delays or {}
        self.queries: list[tuple[str, str, str]] = []  # name, type, and `udp` or `tcp`
        self.numbers: list[int] = []  # of the queries over UDP
        self.ports: list[int] = []  # and whence they came
        self.held: list[Any] = []  # functions that send what is held back
        self.asked = threading.Condition()  # notified at each query
        self.known: dict[bytes, tuple[str, str]] = {}  # questions by query, without its number
        self.made: dict[Any, bytes] = {}  # answers by question, without their numbers
        self.port = 0

    # From a question to packets

    def fault_for(self, query: bytes) -> str:
        "The fault that the answer to a query is to have."
        return self.faults.get(self.question(query)[0].lower(), self.fault)

    def question(self, query: bytes) -> tuple[str, str]:
        "Name and type that a query asks for. One that was asked before isn't taken apart again, which takes time."
        if query[2:] not in self.known:
            message = dns.message.from_wire(query)
            self.known[query[2:]] = plain(message), message.question[0].rdtype.name
        return self.known[query[2:]]

    def delay_for(self, query: bytes) -> float:
        "How late the answer to a query is, in seconds."
        name = self.question(query)[0].lower()
        return next((delay for end, delay in self.delays.items() if name.endswith(end)), self.delay)

    def packets(self, query: bytes, transport: str) -> list[bytes]:
        "The answer to a query, and what a fault makes of it: one packet, or none."
        name, rdtype = self.question(query)
        fault = self.fault_for(query)
        with self.asked:
            self.queries.append((name, rdtype, transport))
            self.asked.notify_all()
        key = query[2:], transport, fault
        if key not in self.made:
            self.made[key] = self.answer(dns.message.from_wire(query), name, rdtype, transport, fault)[2:]
        number = bytes([query[0] ^ 1, query[1]]) if fault == "wrong id" else query[:2]
        packet = number + self.made[key]
        if fault == "drop" or (fault in ("close", "hang") and transport == "tcp"):
            return []
        return [b"\xff" * 40 if fault == "garbage" else packet[: len(packet) // 2] if fault == "cut" else packet]

    def answer(self, query: dns.message.Message, name: str, rdtype: str, transport: str, fault: str) -> bytes:
        response = dns.message.make_response(query, recursion_available=fault != "referral")
        code = CODES.get(fault)
        if code is not None and (query.edns >= 0 or fault not in ("no edns", "not implemented")):
            if fault in ("no edns", "not implemented"):
                response.use_edns(False)
            response.set_rcode(code)
            return response.to_wire(max_size=65535)
        if fault == "referral":
            response.authority.append(dns.rrset.from_text("example.org.", self.ttl, "IN", "NS", "ns.example.org."))
            return response.to_wire(max_size=65535)
        if fault == "endless":
            self.add(response, name, "CNAME", [f"a.{name}"])
            return response.to_wire(max_size=65535)
        if fault == "wrong name":
            response.question[0] = dns.rrset.from_text("other.example.", 0, "IN", rdtype)
        self.fill(response, name, rdtype, dns.name.from_text("other.example") if fault == "wrong answer" else None)
        wire = response.to_wire(max_size=65535)
        room = max(512, query.payload) if transport == "udp" else 65535
        truncates = (
            ("truncate", "truncate always", "close", "hang", "drip") if transport == "udp" else ("truncate always",)
        )
        if fault in truncates or len(wire) > room:
            response.flags |= dns.flags.TC
            response.answer = response.answer[: len(response.answer) // 2]
            wire = response.to_wire(max_size=65535)
        return wire

    def fill(self, response: dns.message.Message, name: str, rdtype: str, owner: dns.name.Name | None) -> None:
        "Put in what the zone has: CNAMEs, then records or, where there are none, the SOA."
        for _ in range(self.links):
            alias = self.zone.records.get((name.lower(), "CNAME"))
            if self.zone.records.get((name.lower(), rdtype)) or not alias:
                break
            self.add(response, name, "CNAME", alias[:1])
            name = alias[0]
        else:
            return
        values = self.zone.answer(Lookup(name, rdtype)) if rdtype in RDTYPES else ()
        if isinstance(values, Unanswered):
            response.set_rcode(dns.rcode.SERVFAIL)
        elif values:
            self.add(response, owner or name, rdtype, values)
        else:
            if not any(known == name.lower() for known, _ in self.zone.records):
                response.set_rcode(dns.rcode.NXDOMAIN)
            if self.soa:
                soa = f"ns.example. hostmaster.example. 1 7200 900 86400 {self.ttl}"
                response.authority.append(dns.rrset.from_text(".", self.ttl, "IN", "SOA", soa))

    def add(self, response: dns.message.Message, name: str | dns.name.Name, rdtype: str, values: Iterable[Any]) -> None:
        owner = absolute(name) if isinstance(name, str) else name
        for value in values:  # one by one, since dnspython shuffles what belongs together
            response.answer.append(dns.rrset.from_text(owner, self.ttl, "IN", rdtype, presentation(rdtype, value)))

    # The server itself

    def __enter__(self) -> DnsServer:
        ready = threading.Event()
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.run, args=(ready,), daemon=True)
        self.thread.start()
        ready.wait()
        return self

    def __exit__(self, *_: object) -> None:
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join()

    def run(self, ready: threading.Event) -> None:
        asyncio.set_event_loop(self.loop)
        self.loop.run_until_complete(self.listen())
        ready.set()
        self.loop.run_forever()
        self.loop.run_until_complete(self.shut())
        self.loop.close()

    async def listen(self) -> None:
        for _ in range(20):  # until a port is free for both
            self.tcp = await asyncio.start_server(self.converse, "127.0.0.1", 0)
            self.port = self.tcp.sockets[0].getsockname()[1]
            try:
                self.udp, _ = await self.loop.create_datagram_endpoint(
                    partial(Datagrams, self), local_addr=("127.0.0.1", self.port)
                )
                return
            except OSError:
                self.tcp.close()
        raise OSError("no port")

    async def shut(self) -> None:
        self.udp.close()
        self.tcp.close()
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.sleep(0)  # connections are closed at the loop's next turn

    async def converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        "One question over TCP."
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            query = await reader.readexactly(int.from_bytes(await reader.readexactly(2), "big"))
            packets = self.packets(query, "tcp")
            await asyncio.sleep(self.delay_for(query))
            for packet in packets:
                framed = len(packet).to_bytes(2, "big") + packet
                if self.fault_for(query) == "drip":
                    await self.drip(reader, writer, framed)
                else:
                    writer.write(framed)
                    await writer.drain()
            if self.fault_for(query) in ("drop", "hang", "drip"):
                await reader.read()  # until the client has had enough
        writer.close()

    async def drip(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, framed: bytes) -> None:
        "Send a packet slowly, all of it but the last byte, until the client has had enough."
        for start in range(len(framed) - 1):
            if reader.at_eof():
                return
            writer.write(framed[start : start + 1])
            await writer.drain()
            await asyncio.sleep(0.02)

    def release(self) -> None:
        "Send what is held back, also for the query that is just being read."
        self.loop.call_soon_threadsafe(self.let_go)

    def let_go(self) -> None:
        while self.held:
            self.held.pop(0)()

    def wait_for(self, queries: int) -> bool:
        "Wait until so many queries have come."
        with self.asked:
            return self.asked.wait_for(lambda: len(self.queries) >= queries, 30)


class Datagrams(asyncio.DatagramProtocol):
    "Questions over UDP."

    def __init__(self, server: DnsServer):
        self.server = server

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def datagram_received(self, query: bytes, client: Any) -> None:
        server = self.server
        server.numbers.append(int.from_bytes(query[:2], "big"))
        server.ports.append(client[1])
        for packet in server.packets(query, "udp"):
            if server.fault_for(query) == "late":
                server.held.append(partial(self.reply, packet, client))
            else:
                server.loop.call_later(server.delay_for(query), self.reply, packet, client)

    def reply(self, packet: bytes, client: Any) -> None:
        if self.server.fault == "wrong source":
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
                other.sendto(packet, client)
        elif not self.transport.is_closing():
            self.transport.sendto(packet, client)


def plain(query: dns.message.Message) -> str:
    "The name that a query is about, as a zone has it."
    return b".".join(query.question[0].name.labels[:-1]).decode("utf-8", "surrogateescape")


def absolute(name: str) -> dns.name.Name:
    "A name whose every character is meant; the root for none."
    labels = name.split(".") if name else []
    return dns.name.Name([label.encode("utf-8", "surrogateescape") for label in labels] + [b""])


def presentation(rdtype: str, value: Any) -> str:
    "A value of a zone, as a master file has it."
    if rdtype == "TXT":
        data = value.encode("utf-8", "surrogateescape")
        strings = [data[start : start + 255] for start in range(0, len(data), 255)] or [b""]
        return " ".join('"' + "".join(f"\\{byte:03}" for byte in string) + '"' for string in strings)
    if rdtype == "MX":
        return f"{value[0]} {absolute(value[1])}"
    return str(absolute(value)) if rdtype in ("PTR", "CNAME") else str(value)


@contextlib.contextmanager
def remote_server(zone: Zone, delay: float = 0.0, delays: dict[str, float] | None = None) -> Iterator[Any]:
    "A server in a process of its own: `port`, and `count()`, the queries since it was last called."
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.Process(target=_serve, args=(zone, delay, delays, theirs), daemon=True)
    process.start()

    def count() -> int:
        ours.send("count")
        return int(ours.recv())

    try:
        yield SimpleNamespace(port=ours.recv(), count=count)
    finally:
        ours.send("stop")
        process.join()


def _serve(zone: Zone, delay: float, delays: dict[str, float] | None, pipe: Connection) -> None:
    with DnsServer(zone, delay, delays=delays) as server:
        pipe.send(server.port)
        while pipe.recv() == "count":
            count = len(server.queries)
            del server.queries[:count]
            pipe.send(count)
