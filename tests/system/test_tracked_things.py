"""Trackers of interfaces, files, processes and servers decide who is MASTER."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import time
from pathlib import Path

import pytest

from system.lab import Host, alive, wait_until
from system.ours import DOWN, INTERVAL, SKEW, mastered, router, settled, tracking
from system.scenario import HIGH, LOW, VIP4, VRID, Bench, announced
from system.wire import Advert
from vrrpkit import MemoryBus, State, TrackProcess, VRRPInstance

pytestmark = pytest.mark.system

EARLY = 0.002
#: What a busy machine may add.
LATE = 5 * INTERVAL
#: Moves the higher one below the lower one.
ENOUGH = -60
#: A program that no other run of these tests starts on this machine.
TRACKED = f"vk{os.getpid()}-sleep"


def test_another_interface_that_loses_its_carrier(bench: Bench) -> None:
    far = bench.lab.second_link(bench.a, bench.lab.second_switch(), "198.51.100.1/24")
    high = tracking(bench.a, {"kind": "TrackInterface", "args": ["eth1"]})
    low = router(bench.b, LOW)
    settled(high, low)
    pulled = time.monotonic()
    far.unplug()
    # The kernel tells of a carrier once a second at most.
    goodbye = bench.wire.wait_for(Advert, lambda a: a.priority == 0, since=pulled).time
    at = announced(bench, VIP4, goodbye, bench.b.mac) - goodbye
    assert SKEW - EARLY < at < SKEW + LATE
    assert high.report()["faults"] == ["interface eth1"]
    plugged = time.monotonic()
    far.plug()
    announced(bench, VIP4, plugged, bench.a.mac)
    wait_until(lambda: low.state() == "BACKUP", 5, "BACKUP")


def test_another_interface_that_comes_later_and_its_weight(bench: Bench) -> None:
    tracked = {
        "kind": "TrackInterface",
        "args": ["eth7"],
        "address": "198.51.100.7",
        "weight": 60,
    }
    low = tracking(bench.a, tracked, LOW)
    high = router(bench.b, HIGH)
    settled(high, low)
    bench.a.ip("link", "add", "eth7", "type", "veth", "peer", "name", "eth8")
    bench.a.ip_batch("link set eth7 up", "link set eth8 up")
    time.sleep(2 * INTERVAL)
    # Its address is missing still.
    assert (low.state(), low.report()["priority"]) == ("BACKUP", LOW)
    bench.a.ip("address", "add", "198.51.100.7/24", "dev", "eth7")
    wait_until(lambda: low.state() == "MASTER", 5, "MASTER")
    assert low.report()["priority"] == LOW + 60
    bench.a.ip("link", "delete", "eth7")
    wait_until(lambda: (low.state(), high.state()) == ("BACKUP", "MASTER"), 5, "all as before")


def test_the_number_in_a_file(bench: Bench) -> None:
    path = bench.lab.directory / "offset"
    high = tracking(bench.a, {"kind": "TrackFile", "args": [str(path)], "weight": 1})
    low = router(bench.b, LOW)
    settled(high, low)

    def write(text: str) -> None:
        new = path.with_suffix(".new")
        new.write_text(text)
        new.rename(path)

    def roles(one: str, other: str) -> None:
        wait_until(lambda: (high.state(), low.state()) == (one, other), 5, f"{one}, {other}")

    write("-60\n")
    roles("BACKUP", "MASTER")
    assert high.report()["priority"] == HIGH - 60
    path.write_text("20")
    roles("MASTER", "BACKUP")
    assert high.report()["priority"] == HIGH + 20
    write("-254")
    roles("FAULT", "MASTER")
    path.unlink()
    roles("MASTER", "BACKUP")
    assert high.report()["priority"] == HIGH
    # Nonsense counts as no number at all.
    write("many\n")
    time.sleep(DOWN)
    roles("MASTER", "BACKUP")


class Program:
    """A program with a name of its own."""

    def __init__(self, directory: Path, host: Host | None = None) -> None:
        self.path = directory / TRACKED
        shutil.copy(shutil.which("sleep") or "/bin/sleep", self.path)
        self._host = host
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        argv = [str(self.path), "3600"]
        self.process = subprocess.Popen(argv) if self._host is None else self._host.popen(argv)

    def kill(self) -> None:
        assert self.process is not None
        self.process.kill()
        self.process.wait()


def test_a_process_in_a_network_namespace_is_polled(bench: Bench) -> None:
    program = Program(bench.a.directory, bench.a)
    track = {"kind": "TrackProcess", "args": [TRACKED]}
    high, low = tracking(bench.a, track), router(bench.b, LOW)
    program.start()
    settled(high, low)
    # The kernel tells of processes in the first network namespace only.
    assert high.report()["told"] is False
    killed = time.monotonic()
    program.kill()
    bench.wire.wait_for(Advert, lambda a: a.priority == 0, since=killed)
    announced(bench, VIP4, killed, bench.b.mac)
    assert high.report()["faults"] == [f"process {TRACKED}"]
    program.start()
    began = time.monotonic()
    wait_until(lambda: high.state() != "FAULT", 10, "no FAULT")
    announced(bench, VIP4, began, bench.a.mac)
    assert program.process is not None and alive(program.process.pid)


def test_a_program_that_is_restarted_in_time_was_never_away(bench: Bench) -> None:
    program = Program(bench.a.directory, bench.a)
    track = {"kind": "TrackProcess", "args": [TRACKED], "terminate_delay": 3}
    ours = tracking(bench.a, track)
    program.start()
    ours.start()
    mastered(ours, VIP4)
    began = time.monotonic()
    program.kill()
    program.start()
    time.sleep(3.5)
    assert ours.transitions(began) == []
    program.kill()
    wait_until(lambda: ours.state() == "FAULT", 6, "FAULT")


def test_a_process_where_the_kernel_tells(tmp_path: Path) -> None:
    program = Program(tmp_path)

    async def main() -> bool:
        bus = MemoryBus()
        track = [TrackProcess(TRACKED)]
        async with VRRPInstance(
            "vip",
            bus.interface("192.0.2.1"),
            vrid=VRID,
            vips=["192.0.2.10/24"],
            interval=0.02,
            track=track,
        ) as one:
            if not TrackProcess.told():
                return False
            assert one.state is State.FAULT
            # There is no next look through /proc that could see it.
            for _ in range(3):
                program.start()
                async with asyncio.timeout(10):
                    await one.wait_for(State.BACKUP, State.MASTER)
                    program.kill()
                    await one.wait_for(State.FAULT)
        return True

    try:
        if not asyncio.run(main()):
            pytest.skip("the kernel does not tell of processes here")
    finally:
        if program.process is not None:
            program.kill()


WEB = """\
import http.server, sys

class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        sick = open(sys.argv[1]).read() == "sick"
        self.send_response(503 if sick else 200)
        self.end_headers()
    def log_message(self, *args):
        pass

http.server.ThreadingHTTPServer(("127.0.0.1", 8080), Handler).serve_forever()
"""


@pytest.mark.parametrize("kind", ["HTTPChecker", "TCPChecker"])
def test_the_health_of_a_server(bench: Bench, kind: str) -> None:
    health = bench.lab.directory / "health"
    health.write_text("well")
    checker: dict[str, object] = {
        "kind": kind,
        "interval": 0.1,
        "timeout": 5,
        "retry": 0,
        "warmup": 0,
    }
    if kind == "HTTPChecker":
        checker["args"] = ["/healthz"]
    track = {"kind": "TrackChecker", "args": [checker, "127.0.0.1", 8080], "weight": ENOUGH}
    high, low = tracking(bench.a, track), router(bench.b, LOW)
    server = bench.a.python("-c", WEB, str(health))
    wait_until(lambda: "8080" in bench.a.run(["ss", "-Hltn"]), 5, "the web server")
    settled(high, low)
    health.write_text("sick")
    if kind == "HTTPChecker":
        wait_until(lambda: (high.state(), low.state()) == ("BACKUP", "MASTER"), 5, "moved")
        health.write_text("well")
        wait_until(lambda: (high.state(), low.state()) == ("MASTER", "BACKUP"), 5, "moved back")
    else:
        # It accepts connections, which is all that is asked.
        time.sleep(2 * DOWN)
        assert (high.state(), low.state()) == ("MASTER", "BACKUP")
    killed = time.monotonic()
    server.kill()
    announced(bench, VIP4, killed, bench.b.mac)
    wait_until(lambda: high.state() == "BACKUP", 5, "BACKUP")
    assert high.report()["priority"] == HIGH + ENOUGH
