"""CPU per health check on this machine's own kernel, beside HAProxy's own checks.

    unshare --net python -m bench.loopback tcp|http [SECONDS [ROUNDS]]

Prints one JSON object for each round: microseconds of CPU per check of both programs. Needs root
and an empty network namespace, of which it uses the loopback interface alone.

HAProxy needs no IPVS to check servers, so nothing stands between its checks and the kernel. Both
programs check the same 500 servers every half second, addresses of 127.0.0.0/8 behind one socket of
this process. They take turns, and the one that begins is another one in each round.

**What is counted** is the CPU time of the whole process, user and system, from when its checks run
steadily, by the connections that it asks the kernel for meanwhile. Not by those that the servers
accept: HAProxy's check of a connection resets it before it stands, as soon as the server's side has
agreed. On the loopback interface the time includes what the kernel does at the server's side when
a packet arrives there, for both alike.
"""

from __future__ import annotations

import csv
import json
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from bench.check_cost import PORT, Server, spent, urgent
from bench.rounds import measured, middle
from bench.table import Figure

SERVERS = 500
INTERVAL = 0.5
SETTLE = 2.5
"""Seconds from the start of a program until its checks run steadily."""
STARVED = 0.8
"""Share of the checks due below which a measurement does not count: the machine had no time."""

MOST = {"tcp": 1.8, "http": 1.8}
"""The largest ratio allowed, by kind of check."""

OURS = """
import asyncio, sys
from vrrpkit import HTTPChecker, Target, TCPChecker
from vrrpkit.checks.engine.scheduler import CheckScheduler
async def main():
    settings = dict(interval=float(sys.argv[2]), timeout=5.0)
    check = TCPChecker(**settings) if sys.argv[1] == "tcp" else HTTPChecker("/", **settings)
    asked = asyncio.Event()
    async with CheckScheduler() as scheduler:
        checks = [scheduler.add(check, Target(each, int(sys.argv[3]))) for each in sys.argv[4:]]
        asyncio.get_running_loop().add_reader(0, asked.set)
        await asked.wait()
        print(sum(check.count > 0 and check.healthy for check in checks))
asyncio.run(main())
"""

CONFIGURATION = """
global
    nbthread 1
    stats socket {socket}
defaults
    mode {mode}
    timeout connect 5s
    timeout client 5s
    timeout server 5s
backend servers
{option}
{servers}
"""


def addresses() -> list[str]:
    """One for each server."""
    return [f"127.78.{number // 250}.{number % 250 + 1}" for number in range(SERVERS)]


def connections() -> int:
    """How many were asked for in this network namespace."""
    lines = Path("/proc/self/net/snmp").read_text().splitlines()
    names, values = (line.split() for line in lines if line.startswith("Tcp:"))
    return int(values[names.index("ActiveOpens")])


class HAProxy:
    """HAProxy, with ``option httpchk`` or its plain check of a connection."""

    def __init__(self, kind: str, scratch: Path) -> None:
        self._socket = scratch / "stats"
        servers = "".join(
            f"    server s{number} {address}:{PORT} check inter {INTERVAL * 1e3:.0f}ms\n"
            for number, address in enumerate(addresses())
        )
        config = scratch / "haproxy.cfg"
        config.write_text(
            CONFIGURATION.format(
                socket=self._socket,
                mode=kind,
                option="    option httpchk" if kind == "http" else "",
                servers=servers,
            )
        )
        self.process = subprocess.Popen(
            ["haproxy", "-db", "-q", "-f", str(config)], stdin=subprocess.DEVNULL
        )

    def healthy(self) -> int:
        """How many servers have passed their last check."""
        with socket.socket(socket.AF_UNIX) as asking:
            asking.settimeout(10)
            asking.connect(str(self._socket))
            asking.sendall(b"show stat\n")
            with asking.makefile("r") as answer:
                rows = csv.DictReader(answer)
                # A star is for a check that is being made.
                passed = ("L4OK", "L7OK", "* L4OK", "* L7OK")
                return sum(row["check_status"] in passed for row in rows)


class Ours:
    """A scheduler of vrrpkit, without any table."""

    def __init__(self, kind: str, scratch: Path) -> None:
        command = [sys.executable, "-c", OURS, kind, str(INTERVAL), str(PORT), *addresses()]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=scratch
        )

    def healthy(self) -> int:
        """How many servers have passed their last check."""
        told, _ = self.process.communicate(timeout=10)
        return int(told)


PROGRAMS: dict[str, type[HAProxy | Ours]] = {"haproxy": HAProxy, "vrrpkit": Ours}


def cost(name: str, kind: str, seconds: float) -> float:
    """Microseconds of CPU per check of one program.

    :raises RuntimeError: it could not be measured.
    """
    with tempfile.TemporaryDirectory() as scratch:
        with urgent():
            program = PROGRAMS[name](kind, Path(scratch))
        process = program.process
        try:
            time.sleep(SETTLE)
            start, before, cpu = time.monotonic(), connections(), spent(process.pid)
            time.sleep(seconds)
            cpu = spent(process.pid) - cpu
            checks, took = connections() - before, time.monotonic() - start
            healthy = program.healthy()
        finally:
            process.kill()
            process.wait()
    if healthy != SERVERS:
        raise RuntimeError(f"{name}: {healthy} of {SERVERS} servers are healthy")
    if checks < STARVED * took * SERVERS / INTERVAL:
        raise RuntimeError(f"{name}: {checks / took:.0f} checks a second: this machine is too busy")
    return cpu / 1e3 / checks


def rounds(kind: str, seconds: float, count: int) -> Iterator[dict[str, float]]:
    """The costs of both programs, by name, round by round.

    :raises RuntimeError: they could not be measured.
    """
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    server = Server()
    server.start()
    for number in range(count):
        names = list(PROGRAMS) if number % 2 else list(PROGRAMS)[::-1]
        yield {name: cost(name, kind, seconds) for name in names}


def loopback(quick: bool) -> Iterator[Figure]:
    """CPU per health check beside HAProxy: the round whose ratio is the middle one of several."""
    for kind, most in MOST.items():
        yield middle(
            measured("bench.loopback", kind, *((3, 3) if quick else (8, 5))),
            name=f"CPU per {kind.upper()} check, 1000 a second (the other is HAProxy)",
            unit="us",
            peer="haproxy",
            target=most,
        )


def main() -> None:
    """Measure, and print each round."""
    kind = sys.argv[1]
    seconds = float(sys.argv[2]) if len(sys.argv) > 2 else 8.0
    count = int(sys.argv[3]) if len(sys.argv) > 3 else 5
    for found in rounds(kind, seconds, count):
        print(json.dumps(found), flush=True)


if __name__ == "__main__":
    try:
        main()
    except RuntimeError as problem:
        sys.exit(f"loopback: {problem}")
