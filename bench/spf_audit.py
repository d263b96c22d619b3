"""`ra-plugins spf audit` of 10,000 domains beside checkdmarc's way, one after the other; every answer is 20 ms late.

checkdmarc checks a few hundred of the same domains in a row, by its `check_spf`, which does nothing but SPF (`check_domains`
asks for much else), over the same nameserver on this machine, and its time is scaled by the number of domains: in such a
row each costs as much as the one before. Its process is its own, and so is that of the audit.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from time import perf_counter
from typing import Any

from measure import Benchmark, Figure, Side, Unmeasurable, ratio

sys.path.append(str(Path(__file__).resolve().parent.parent / "tests"))

from dns_server import remote_server

from ra_plugins.ask.dns import Zone

LATE = 0.02  # seconds
DOMAINS, SAMPLE = 10_000, 200  # that are audited, and that checkdmarc checks
PROVIDERS = 20

THEIRS = """
import sys, time
import dns.resolver
from checkdmarc.spf import check_spf

port, domains = int(sys.argv[1]), sys.argv[2:]
resolver = dns.resolver.Resolver(configure=False)
resolver.nameservers, resolver.port = ["127.0.0.1"], port
check_spf(domains[0], resolver=resolver)
begun = time.perf_counter()
for domain in domains[1:]:
    found = check_spf(domain, resolver=resolver)
    assert found["valid"], found
print((time.perf_counter() - begun) / (len(domains) - 1))
"""


def domain_zone() -> Zone:
    "Domains that send by their own MX and by one of a few providers, as most do."
    zone: dict[tuple[str, str], Any] = {}
    for number in range(PROVIDERS):
        name = f"provider{number}.example"
        zone[f"_spf.{name}", "TXT"] = [f"v=spf1 include:_a.{name} include:_b.{name} ~all"]
        zone[f"_a.{name}", "TXT"] = [f"v=spf1 ip4:198.51.100.{number}/32 ~all"]
        zone[f"_b.{name}", "TXT"] = [f"v=spf1 ip4:203.0.113.{number}/32 ~all"]
    for number in range(DOMAINS):
        name = f"d{number}.example"
        zone[name, "TXT"] = [f"v=spf1 mx include:_spf.provider{number % PROVIDERS}.example -all", "site-verification=1"]
        zone[name, "MX"] = [(10, f"mx.{name}")]
        zone[f"mx.{name}", "A"] = [f"192.0.2.{number % 256}"]
    return Zone(zone)


def ours(port: int, folder: Path) -> Side:
    "The command over a list of all domains, start of the interpreter and reading of the list included."
    listed = folder / "domains"
    listed.write_text("".join(f"d{number}.example\n" for number in range(DOMAINS)))
    program = "import sys\nfrom ra_plugins.cli.command import main\nsys.exit(main(sys.argv[1:]))"
    options = ["spf", "audit", str(listed), "--json", "--strict", "--nameserver", f"127.0.0.1#{port}"]

    def run() -> float:
        begun = perf_counter()
        done = subprocess.run([sys.executable, "-c", program, *options], capture_output=True, text=True, check=False)
        took = perf_counter() - begun
        rows = done.stdout.splitlines()
        if done.returncode or len(rows) != DOMAINS or json.loads(rows[-1])["lookups"] != 4:
            raise Unmeasurable(f"the audit ends with {done.returncode} and {len(rows)} rows: {done.stderr[:500]}")
        return took

    return run


def theirs(port: int) -> Side:
    "What checkdmarc takes for so many domains, from a sample of them."
    domains = [f"d{number}.example" for number in range(SAMPLE + 1)]

    def run() -> float:
        command = [sys.executable, "-c", THEIRS, str(port), *domains]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise Unmeasurable(f"checkdmarc: {done.stderr[-500:]}")
        return float(done.stdout) * DOMAINS

    return run


def measurements(folder: Path) -> Iterator[Benchmark]:
    "What is measured here."
    with remote_server(domain_zone(), LATE) as server:
        sides = {"audit": ours(server.port, folder), "checkdmarc": theirs(server.port)}
        figures = [
            Figure("audit of 10,000 domains, of checkdmarc's", "audit", ratio("audit", "checkdmarc"), 1 / 20),
            Figure("checkdmarc, scaled from 200", "checkdmarc", ratio("checkdmarc", "checkdmarc")),
        ]
        yield Benchmark("10,000 domains, every answer 20 ms late", sides, figures, most=1)
