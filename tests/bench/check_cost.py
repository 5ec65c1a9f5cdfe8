"""CPU per health check, keepalived's and ours at the same time, to the nanosecond.

    unshare --net python -m bench.check_cost tcp|http [SECONDS [ROUNDS]]

Prints one JSON object for each round: microseconds of CPU per check of both programs. Needs root
and an empty network namespace, in which it makes TAP devices; all of it goes with its process.

The checks run inside the IPVS kernel, where both programs find a table for their servers. That
kernel is an ordinary program: one process of this machine for the kernel, and one for each program
inside. This machine accounts their CPU to the nanosecond. The kernel inside samples it, at the
ticks that its timers go off at: a program that works right after its timers is charged for all of
the tick, or for nothing.

**What is counted** is the CPU time that a whole machine inside takes while it makes a steady 500
checks a second, less what it takes at rest, by the connections that the servers accept from it
meanwhile. In it are the program's own work, its system calls, its timers and wake-ups, and the
network stack. Each program has a machine of its own, and both run at the same time on the same
processor: whatever slows that one down, makes both dearer, and the ratio stands.

**What is not counted** is the servers' work: they answer on this side of the TAP devices.

A check is dearer in there than on a kernel of its own: a system call costs two switches of process,
a packet costs a system call of this machine, which takes it as far as the servers' socket. That is
so for both, but weighs the more, the less a program does besides: over four fifths of keepalived's
figure is the kernel's, and two thirds of vrrpkit's. Where system calls are cheap, both need far
less, and the ratio is not this one but larger.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from pathlib import Path

from kernel.uml import Machine

SERVERS = 500
PORT = 8080
CONTROL = 8081
NETWORK = "10.78.0.0/16"
"""The servers' addresses are in it."""
SETTLE = 5.0
"""Seconds from the start of the programs until their checks run steadily."""
REST = 3.0
"""Seconds for which the cost of a machine at rest is taken."""
STARVED = 0.8
"""Share of the checks due below which a measurement does not count: the machine had no time."""
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nConnection: close\r\n\r\nok\n"

OURS = """
import asyncio, sys
from vrrpkit.checks.http import HTTPChecker
from vrrpkit.checks.tcp import TCPChecker
from vrrpkit.ipvs.server import VirtualServer
async def main():
    settings = dict(interval=1.0, timeout=5.0)
    check = TCPChecker(**settings) if sys.argv[1] == "tcp" else HTTPChecker("/", **settings)
    async with VirtualServer("192.0.2.10:80/tcp", scheduler="rr", check=check,
                             servers=sys.argv[2:]):
        await asyncio.sleep(600)
asyncio.run(main())
"""


def addresses() -> list[str]:
    """One for each real server."""
    return [f"10.78.{number // 250}.{number % 250 + 1}" for number in range(SERVERS)]


def configuration(kind: str) -> str:
    """The same servers and checks for keepalived."""
    check = (
        "TCP_CHECK { connect_timeout 5 }"
        if kind == "tcp"
        else "HTTP_GET { url {\npath /\nstatus_code 200\n}\nconnect_timeout 5\n}"
    )
    real = "\n".join(
        f"real_server {address} {PORT} {{\nweight 1\n{check}\n}}" for address in addresses()
    )
    return (
        "global_defs {\nrouter_id bench\n}\n"
        "virtual_server 192.0.2.10 80 {\ndelay_loop 1\nlb_algo rr\nlb_kind NAT\n"
        f"protocol TCP\n{real}\n}}\n"
    )


def keepalived(kind: str, scratch: Path) -> list[str]:
    """keepalived's command line."""
    config = scratch / "keepalived.conf"
    config.write_text(configuration(kind))
    return ["keepalived", "-n", "-l", "-C", "-f", str(config)]


def vrrpkit(kind: str, scratch: Path) -> list[str]:
    """Ours."""
    servers = [f"{address}:{PORT}" for address in addresses()]
    return [sys.executable, "-c", OURS, kind, *servers]


PROGRAMS = {"keepalived": keepalived, "vrrpkit": vrrpkit}


class Server(threading.Thread):
    """Answers the connections to all real servers, and counts them by client."""

    def __init__(self) -> None:
        super().__init__(name="server", daemon=True)
        self.accepted: Counter[str] = Counter()
        self._listener = socket.create_server(("", PORT), backlog=1024)
        self._listener.setblocking(False)
        self._poll = select.epoll()
        self._poll.register(self._listener, select.EPOLLIN)

    def run(self) -> None:
        clients: dict[int, socket.socket] = {}
        while True:
            for descriptor, _events in self._poll.poll():
                client = clients.pop(descriptor, None)
                if client is None:
                    clients.update(self._new())
                    continue
                with contextlib.suppress(OSError):
                    if client.recv(4096):
                        client.send(ANSWER)
                client.close()

    def _new(self) -> Iterator[tuple[int, socket.socket]]:
        with contextlib.suppress(BlockingIOError):
            while True:
                client, (address, _port) = self._listener.accept()
                client.setblocking(False)
                self._poll.register(client, select.EPOLLIN)
                self.accepted[address] += 1
                yield client.fileno(), client


def processes(group: int) -> set[int]:
    """The processes of a group."""
    found: set[int] = set()
    for entry in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            if entry.read_text().rpartition(")")[2].split()[2] == str(group):
                found.add(int(entry.parent.name))
    return found


def spent(pid: int) -> int:
    """CPU time of a process with all its threads, user and system, in nanoseconds."""
    # clock_getcpuclockid(3), which Python has for threads only: ~pid, then CPUCLOCK_SCHED.
    return time.clock_gettime_ns(~pid << 3 | 2)


@dataclass(frozen=True)
class Cost:
    """What a machine does in a while."""

    seconds: float
    cpu: float
    """Seconds of CPU."""
    checks: int

    @property
    def rate(self) -> float:
        """Checks per second."""
        return self.checks / self.seconds

    def per_check(self, rest: Cost) -> float:
        """Microseconds of CPU, without what the machine takes at rest."""
        return (self.cpu - rest.cpu * self.seconds / rest.seconds) / self.checks * 1e6


class Inside:
    """One machine, on a network of its own, with its agent.

    :param number: 0, 1, ...: which one it is.
    """

    def __init__(self, number: int, server: Server, stack: contextlib.ExitStack) -> None:
        self._server = server
        device, here = f"tap{number}", f"10.77.{number}.1"
        self._address = f"10.77.{number}.2"
        for command in (
            f"tuntap add {device} mode tap",
            f"addr add {here}/24 dev {device}",
            f"link set {device} up",
        ):
            subprocess.run(["ip", *command.split()], check=True)
        stack.callback(subprocess.run, ["ip", "link", "del", device], check=True)
        control = stack.enter_context(socket.create_server((here, CONTROL)))
        control.settimeout(60)
        agent = [sys.executable, "-m", "bench.inside_checks", self._address, here, NETWORK]
        self.machine = stack.enter_context(
            Machine(
                [*agent, str(CONTROL)], options=[f"vec0:transport=tap,ifname={device}"], memory=256
            )
        )
        try:
            self._control, _ = control.accept()
        except TimeoutError:
            raise RuntimeError(f"nobody inside has called\n{self.machine.told()}") from None
        stack.enter_context(self._control)
        # A machine that is killed closes no connection.
        self._control.settimeout(60)

    def start(self, argv: list[str]) -> None:
        """Start the program."""
        self._control.sendall(json.dumps(argv).encode() + b"\n")

    def state(self) -> tuple[int, str]:
        """How many servers the program has in the table, and what it has said; asked for once."""
        self._control.shutdown(socket.SHUT_WR)
        text = ""
        with self._control.makefile("r") as stream, contextlib.suppress(TimeoutError):
            text = stream.read()
        if not text:
            raise RuntimeError(f"nobody inside answers\n{self.machine.told()}")
        answer = json.loads(text)
        return int(answer["healthy"]), str(answer["said"])

    def begin(self) -> Measurement:
        """Look at the clocks."""
        return Measurement(self.machine.pid, lambda: self._server.accepted[self._address])


class Measurement:
    """What a machine, a group of processes, does from now on."""

    def __init__(self, group: int, count: Callable[[], int]) -> None:
        self._group = group
        self._count = count
        self._members = processes(group)
        self._start, self._checks = time.monotonic(), count()
        self._before = {pid: spent(pid) for pid in self._members}

    def end(self) -> Cost:
        """What it did until now.

        :raises RuntimeError: a program started or ended meanwhile, so that its time is not known.
        """
        if processes(self._group) != self._members:
            raise RuntimeError("a program inside started or ended while its time was taken")
        cpu = sum(spent(pid) - before for pid, before in self._before.items())
        return Cost(time.monotonic() - self._start, cpu / 1e9, self._count() - self._checks)


@contextlib.contextmanager
def urgent() -> Generator[None]:
    """What is started in the block runs on one processor, before whatever else wants it.

    Kernel and programs inside take turns: on one processor that costs the least. Checks that are
    late would be fewer checks.
    """
    processors = os.sched_getaffinity(0)
    policy, priority = os.sched_getscheduler(0), os.sched_getparam(0)
    os.sched_setaffinity(0, {max(processors)})
    # In a container root may not, and then an idle machine is needed.
    with contextlib.suppress(PermissionError):
        os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(1))
    try:
        yield
    finally:
        os.sched_setscheduler(0, policy, priority)
        os.sched_setaffinity(0, processors)


def one_round(kind: str, seconds: float, server: Server) -> dict[str, float]:
    """Microseconds of CPU per check, by program.

    :raises RuntimeError: it could not be measured.
    """
    with contextlib.ExitStack() as stack:
        with urgent():
            machines = {name: Inside(number, server, stack) for number, name in enumerate(PROGRAMS)}
        time.sleep(1)
        resting = {name: inside.begin() for name, inside in machines.items()}
        time.sleep(REST)
        rest = {name: measurement.end() for name, measurement in resting.items()}
        for name, inside in machines.items():
            inside.start(PROGRAMS[name](kind, inside.machine.scratch))
        time.sleep(SETTLE)
        working = {name: inside.begin() for name, inside in machines.items()}
        time.sleep(seconds)
        found: dict[str, float] = {}
        for name, inside in machines.items():
            cost = working[name].end()
            healthy, said = inside.state()
            if healthy != SERVERS:
                raise RuntimeError(f"{name}: {healthy} of {SERVERS} servers are healthy\n{said}")
            if cost.rate < STARVED * SERVERS:
                raise RuntimeError(
                    f"{name}: {cost.rate:.0f} checks a second instead of {SERVERS}: this machine "
                    f"is too busy\n{said}"
                )
            found[name] = cost.per_check(rest[name])
    return found


def main() -> None:
    """Measure, each time on new machines."""
    kind = sys.argv[1]
    seconds = float(sys.argv[2]) if len(sys.argv) > 2 else 15.0
    rounds = int(sys.argv[3]) if len(sys.argv) > 3 else 3
    caller = os.getppid()
    for command in ("link set lo up", f"route add local {NETWORK} dev lo"):
        subprocess.run(["ip", *command.split()], check=True)
    server = Server()
    server.start()
    for _ in range(rounds):
        found = one_round(kind, seconds, server)
        if os.getppid() != caller:
            raise RuntimeError("whoever asked has gone")
        print(json.dumps(found), flush=True)


if __name__ == "__main__":
    try:
        main()
    except RuntimeError as problem:
        sys.exit(f"check_cost: {problem}")
