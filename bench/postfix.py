"""`ra-plugins postfix` beside postfix-policyd-spf-python (spf-engine): policy requests a second on one connection, with SPF.

Both are processes that ask one nameserver on this machine, which is a process, too. Theirs is asked over its standard input,
as Postfix's spawn(8) has it, ours over a Unix socket and a port. Each request is about a message of its own. Once senders come
again, as most of a day's mail does: ours keeps what DNS has answered as long as DNS says. And once each sender's domain is
new, and includes the record of one of the providers. DNS answers at once, as from this machine, or 2 ms later.
Then ten plugins a request: how long half of the answers take at most, and 99 of 100.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from itertools import count
from pathlib import Path
from time import perf_counter
from typing import Any

from measure import Benchmark, Figure, Side, Times, Unmeasurable, ratio
from spf_checks import USUAL, zone

sys.path.append(str(Path(__file__).resolve().parent.parent / "tests"))

from dns_server import remote_server
from postfix_server import Asking, Policies, policyd_spf, request
from service_process import remove, short_folder

from ra_plugins.ask.dns import Zone

BOUND = 0.1  # of the time that theirs takes: at least ten times as many
REQUESTS = 200  # of one run
NEW = 100  # of one run, each from a domain that nobody has asked about
RUNS = 20  # at most
PROVIDERS = ("_spf.host.example", "letters.example", "desk.example")
CLIENTS = {"192.0.2.1": "pass", "203.0.113.200": "softfail or fail"}
SPF = "[rcpt]\nspfchecks\nBOUNCELEVEL=0\nSPFRFCCODES=1\n"
TEN = """\
[client]
rdnschecks
[helo]
access
[mail]
rblchecks
RBLSERVERS=one.example:two.example
mfdnschecks
ownsender
overload
[rcpt]
rcptchecksfile
spfchecks
BOUNCELEVEL=0
greylist
tarpit
[data]
"""
CONTROL = {
    "addresslist": "".join(f"user{number}@example.org\n" for number in range(500)),
    "rcpthosts": "example.org\n",
}
DRAW = random.Random(2821)
Ask = Callable[[bytes], str]
NUMBERS = count(1)


def everything() -> Zone:
    "What all of them ask about: senders that come again, and those that are new."
    served = zone(USUAL)
    for domain in {domain for _, domain, _ in USUAL.checks}:
        served.records.setdefault((domain, "A"), ["203.0.113.65"])  # mfdnschecks wants one to exist
    for number in range(NEW * (RUNS + 1)):
        served.records[f"company{number}.example", "TXT"] = [
            f"v=spf1 ip4:10.{number // 250}.{number % 250}.1 include:{PROVIDERS[number % len(PROVIDERS)]} ~all"
        ]
    return served


def told(ip: str, domain: str, user: int = 0) -> bytes:
    "A request about a message of its own, with all that Postfix tells."
    number = next(NUMBERS)
    more = (
        "client_port=46532\nreverse_client_name=mail.example.net\nserver_address=203.0.113.25\nserver_port=25\n"
        "sasl_method=\nsasl_username=\nsasl_sender=\nccert_subject=\nccert_issuer=\nccert_fingerprint=\n"
        "ccert_pubkey_fingerprint=\nencryption_protocol=TLSv1.3\nencryption_cipher=TLS_AES_256_GCM_SHA384\n"
        "encryption_keysize=256\netrn_domain=\nstress=\npolicy_context=\n"
    )
    return request(
        f"user{user}",
        more.encode(),
        helo_name="mail.example.net",
        queue_id="",
        sender=f"ana@{domain}",
        client_address=ip,
        instance=f"{number % 200 + 4000:x}.6b{number:08x}.1f7d2.0",
    )


def again() -> list[bytes]:
    "Requests about senders that come again and again."
    return [told(ip, domain) for ip, domain, _ in (DRAW.choice(USUAL.checks) for _ in range(REQUESTS))]


def new(numbers: Iterator[int]) -> list[bytes]:
    "Requests about senders of whom nobody has heard."
    drawn = [next(numbers) for _ in range(NEW)]
    return [told(DRAW.choice(list(CLIENTS)), f"company{number}.example") for number in drawn]


def seconds(ask: Ask, requests: Callable[[], list[bytes]]) -> Side:
    "The time that a request takes, one after the other."

    def run() -> float:
        asked = requests()
        begin = perf_counter()
        answers = [ask(each) for each in asked]
        spent = (perf_counter() - begin) / len(asked)
        if not all(answer.lower().startswith(("prepend received-spf: ", "550 5.7.23 ")) for answer in answers):
            raise Unmeasurable(f"no verdicts: {sorted(set(answers))[:3]}")
        return spent

    return run


def quantile(ask: Ask, part: float) -> Side:
    "The time below which such a part of the answers stays."

    def run() -> float:
        asked = [
            told(ip, domain, DRAW.randrange(500))
            for ip, domain, _ in (DRAW.choice(USUAL.checks) for _ in range(REQUESTS))
        ]
        took = []
        for each in asked:
            begin = perf_counter()
            answer = ask(each)
            took.append(perf_counter() - begin)
            if not answer.startswith(("451 4.7.1 Greylisted", "550 SPF", "550 5.7.23 SPF")):
                raise Unmeasurable(answer)
        return sorted(took)[int(part * len(took))]

    return run


def over(smtpd: Asking) -> Ask:
    "Ask on a connection, and read as Postfix does."

    def ask(data: bytes) -> str:
        smtpd.send(data)
        received = b""
        while not received.endswith(b"\n\n"):
            if not (part := smtpd.socket.recv(4096)):
                raise Unmeasurable("ours has hung up")
            received += part
        return received[7:-2].decode()

    return ask


def measurements(folder: Path) -> Iterator[Benchmark]:
    "What is measured here."
    for late, title, bounds in (
        (0.0, "DNS answers at once", (0.3, 1.0)),
        (0.002, "DNS answers after 2 ms", (BOUND, 0.5)),
    ):
        with ExitStack() as stack:
            made = short_folder()
            stack.callback(remove, made)
            server: Any = stack.enter_context(remote_server(everything(), late))
            ours = stack.enter_context(Policies(made, SPF, DNSSERVERS=f"127.0.0.1#{server.port}"))
            theirs = stack.enter_context(policyd_spf(folder, server.port)).ask
            unix, inet = (over(stack.enter_context(Asking(place))) for place in (ours.unix, ours.inet))
            for each in again():
                unix(each)
            sides = {name: seconds(ask, again) for name, ask in (("unix", unix), ("inet", inet), ("theirs", theirs))}
            figures = [
                Figure("postfix-policyd-spf-python", "theirs", itself),
                Figure("ours over a Unix socket", "unix", ratio("unix", "theirs"), bounds[0]),
                Figure("ours over a port", "inet", ratio("inet", "theirs"), bounds[0]),
            ]
            yield Benchmark(f"a request with SPF, {title}, senders come again", sides, figures, most=RUNS)
            sides = {name: seconds(ask, new_each_time()) for name, ask in (("unix", unix), ("theirs", theirs))}
            figures = [
                Figure("postfix-policyd-spf-python", "theirs", itself),
                Figure("ours over a Unix socket", "unix", ratio("unix", "theirs"), bounds[1]),
            ]
            yield Benchmark(f"a request with SPF, {title}, each sender is new", sides, figures, most=RUNS)
    yield from ten_plugins()


def itself(times: Times) -> float:
    "What the others are compared with."
    return 1


def new_each_time() -> Callable[[], list[bytes]]:
    "Makes requests about senders of whom nobody has heard, for one side."
    numbers = count()
    return lambda: new(numbers)


def ten_plugins() -> Iterator[Benchmark]:
    "Ten plugins at each request."
    with ExitStack() as stack:
        made = short_folder()
        stack.callback(remove, made)
        server: Any = stack.enter_context(remote_server(everything()))
        store = f"{made}/greylist.db"
        service = Policies(made, TEN, DNSSERVERS=f"127.0.0.1#{server.port}", GREYLISTSTORE=store)
        for name, text in CONTROL.items():
            (service.control / name).write_text(text)
        stack.enter_context(service)
        asks = {
            "unix": over(stack.enter_context(Asking(service.unix))),
            "inet": over(stack.enter_context(Asking(service.inet))),
        }
        parts = {"p50": 0.5, "p99": 0.99}
        sides = {f"{name} {title}": quantile(ask, part) for name, ask in asks.items() for title, part in parts.items()}
        figures = [Figure(f"{side}, of Unix p50", side, ratio(side, "unix p50")) for side in sides]
        yield Benchmark("ten plugins, for each request", sides, figures, most=20)
