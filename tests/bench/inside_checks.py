"""CPU per health check, keepalived's and ours in turn. Runs inside the IPVS kernel, as root.

    python -m bench.inside_checks tcp|http [seconds]

Prints one JSON object: microseconds of CPU per check, and the checks per second that were counted
by the server that answers them.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Generator
from pathlib import Path

SERVERS = 500
PORT = 8080
SETTLE = 6.0
ROUNDS = 2
"""The lower of so many measurements of each counts."""
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nConnection: close\r\n\r\nok\n"
TICKS = os.sysconf("SC_CLK_TCK")

OURS = """
import asyncio, sys
from vrrpkit.checks.http import HTTPChecker
from vrrpkit.checks.tcp import TCPChecker
from vrrpkit.ipvs.server import VirtualServer
async def main():
    settings = dict(interval=1.0, timeout=5.0)
    check = TCPChecker(**settings) if sys.argv[1] == "tcp" else HTTPChecker("/", **settings)
    async with VirtualServer("127.1.0.1:8080/tcp", scheduler="rr", check=check,
                             servers=sys.argv[2:]) as pool:
        await asyncio.sleep(600)
asyncio.run(main())
"""


def addresses() -> list[str]:
    """One real server each, all on the loopback interface."""
    return [f"127.2.{number // 250}.{number % 250 + 1}" for number in range(SERVERS)]


def serve(counter: int) -> None:
    """Answer every connection, and count them in a pipe's other end."""
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(("0.0.0.0", PORT))
    listener.listen(1024)
    poll = select.epoll()
    poll.register(listener, select.EPOLLIN)
    clients: dict[int, socket.socket] = {}
    accepted = 0
    os.set_blocking(counter, False)
    while True:
        for descriptor, _events in poll.poll():
            if descriptor == listener.fileno():
                with contextlib.suppress(BlockingIOError):
                    while True:
                        client, _ = listener.accept()
                        client.setblocking(False)
                        clients[client.fileno()] = client
                        poll.register(client, select.EPOLLIN)
                        accepted += 1
                        with contextlib.suppress(BlockingIOError):
                            os.pwrite(counter, b"%20d" % accepted, 0)
            else:
                client = clients.pop(descriptor)
                with contextlib.suppress(OSError):
                    if client.recv(4096):
                        client.send(ANSWER)
                client.close()


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
        f"virtual_server 127.1.0.1 {PORT} {{\ndelay_loop 1\nlb_algo rr\nlb_kind NAT\n"
        f"protocol TCP\n{real}\n}}\n"
    )


def ticks(pid: int) -> int:
    """CPU of one process, user and system, in clock ticks."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


def children(pid: int) -> list[int]:
    """The processes that ``pid`` started."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            if entry.read_text().rpartition(")")[2].split()[1] == str(pid):
                found.append(int(entry.parent.name))
    return found


@contextlib.contextmanager
def running(command: list[str], log: Path) -> Generator[int]:
    """A program for the length of the block, killed at its end; its process id."""
    with log.open("w") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output, start_new_session=True)
    try:
        yield process.pid
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def counted(counter: Path) -> int:
    """Connections that the server has accepted so far."""
    return int(counter.read_text() or 0)


def measure(pids: list[int], counter: Path, seconds: float) -> dict[str, float]:
    """Let it settle, then take the CPU per check."""
    time.sleep(SETTLE)
    before, checks, start = sum(map(ticks, pids)), counted(counter), time.monotonic()
    time.sleep(seconds)
    spent = sum(map(ticks, pids)) - before
    done, took = counted(counter) - checks, time.monotonic() - start
    return {"us": spent / TICKS / done * 1e6 if done else float("inf"), "rate": done / took}


def _cost(measured: dict[str, float]) -> float:
    return measured["us"]


def main() -> None:
    """Measure both in turn; what else runs on the machine only makes either dearer."""
    kind = sys.argv[1]
    seconds = float(sys.argv[2]) if len(sys.argv) > 2 else 10.0
    with tempfile.TemporaryDirectory() as scratch:
        directory = Path(scratch)
        counter = directory / "count"
        descriptor = os.open(counter, os.O_RDWR | os.O_CREAT)
        server = os.fork()
        if server == 0:
            serve(descriptor)
        try:
            config = directory / "keepalived.conf"
            config.write_text(configuration(kind))
            command = ["keepalived", "-n", "-l", "-C", "-f", str(config)]
            pids = ["-p", str(directory / "a.pid"), "-c", str(directory / "b.pid")]
            servers = [f"{address}:{PORT}" for address in addresses()]
            theirs, ours = [], []
            for _ in range(ROUNDS):
                with running([*command, *pids], directory / "keepalived.log") as parent:
                    time.sleep(1)
                    theirs.append(measure([parent, *children(parent)], counter, seconds))
                with running([sys.executable, "-c", OURS, kind, *servers], directory / "ours") as p:
                    ours.append(measure([p], counter, seconds))
            log = (directory / "ours").read_text()
        finally:
            os.kill(server, signal.SIGKILL)
            os.waitpid(server, 0)
    best = {"keepalived": min(theirs, key=_cost), "vrrpkit": min(ours, key=_cost)}
    print(json.dumps({"kind": kind, **best, "log": log[-2000:]}))


if __name__ == "__main__":
    main()
