"""Trackers of real things decide who is MASTER, beside keepalived with the same ones."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest

from system.lab import Host, Lab, alive, require_root_and, wait_until
from system.ours import INTERVAL, Vrrpkit, mastered, router
from system.peers import KEEPALIVED, Keepalived, keepalived_conf
from system.scenario import HIGH, LOW, VIP4, VRID, Bench, announced, goodbyes, last_advert, skew
from system.wire import Advert
from vrrpkit import MemoryBus, State, TrackProcess, VRRPInstance

pytestmark = pytest.mark.system

needs_keepalived = pytest.mark.skipif(
    require_root_and(KEEPALIVED) is not None, reason=require_root_and(KEEPALIVED) or "installed"
)

SKEW = skew(LOW, INTERVAL)
DOWN = 3 * INTERVAL + SKEW
EARLY = 0.002
LATE = 2.5 * INTERVAL
#: Moves the higher one below the lower one.
ENOUGH = -60


def tracking(host: Host, tracker: dict[str, object], priority: int = HIGH) -> Vrrpkit:
    return router(host, priority, track=[tracker])


def keepalived(host: Host, priority: int, *, track: str = "", head: str = "") -> Keepalived:
    config = keepalived_conf(
        vrid=VRID,
        vips=[f"{VIP4}/32"],
        priority=priority,
        interval=INTERVAL,
        options={"garp_master_delay": 1, **({track: None} if track else {})},
    )
    return Keepalived(host, head + config)


def settled(high: Vrrpkit | Keepalived, low: Vrrpkit | Keepalived) -> None:
    """The higher one is master, and the lower one has heard it."""
    high.start()
    wait_until(lambda: high.state() == "MASTER" and high.owns(VIP4), 10, "MASTER")
    low.start()
    wait_until(lambda: low.state() == "BACKUP", 5, "BACKUP")
    time.sleep(DOWN)
    assert (high.state(), low.state()) == ("MASTER", "BACKUP")


# --- scripts


class Flag:
    """A file that a script looks for: while it is there, the script fails."""

    def __init__(self, lab: Lab) -> None:
        self.path = lab.directory / "sick"
        self.argv = ["/usr/bin/test", "!", "-e", str(self.path)]

    def track(self, weight: int, **options: object) -> dict[str, object]:
        return {
            "kind": "TrackScript",
            "args": [self.argv],
            "weight": weight,
            "interval": 0.1,
            **options,
        }

    def keepalived(self, weight: int) -> tuple[str, str]:
        """The head of a configuration, and what tracks it."""
        head = (
            "global_defs {\n  script_user root\n  enable_script_security\n}\n"
            f'vrrp_script fit {{\n  script "{" ".join(self.argv)}"\n  interval 1\n}}\n'
        )
        return head, f"track_script {{\n    fit weight {weight}\n  }}"

    def set(self) -> float:
        self.path.touch()
        return time.monotonic()

    def clear(self) -> float:
        self.path.unlink()
        return time.monotonic()


@needs_keepalived
@pytest.mark.parametrize("ours_high", [True, False], ids=["ours-high", "ours-low"])
def test_a_script_with_weight_0_makes_a_fault_and_its_recovery_brings_back(
    bench: Bench, ours_high: bool
) -> None:
    flag = Flag(bench.lab)
    head, track = flag.keepalived(0)
    high: Vrrpkit | Keepalived
    low: Vrrpkit | Keepalived
    if ours_high:
        high, low = tracking(bench.a, flag.track(0)), keepalived(bench.b, LOW)
    else:
        high, low = keepalived(bench.a, HIGH, track=track, head=head), router(bench.b, LOW)
    settled(high, low)
    sick = flag.set()
    wait_until(lambda: high.state() == "FAULT", 5, "FAULT")
    goodbye = bench.wire.wait_for(Advert, lambda a: a.priority == 0, since=sick).time
    at = announced(bench, VIP4, goodbye, bench.b.mac) - goodbye
    assert SKEW - EARLY < at < SKEW + LATE
    assert not high.owns(VIP4)
    if ours_high:
        assert len(goodbyes(bench, sick)) == 1
    well = flag.clear()
    announced(bench, VIP4, well, bench.a.mac)
    wait_until(lambda: (high.state(), low.state()) == ("MASTER", "BACKUP"), 5, "back again")


@needs_keepalived
@pytest.mark.parametrize("ours_high", [True, False], ids=["ours-high", "ours-low"])
def test_a_master_whose_priority_drops_serves_until_the_other_ones_timer_ends(
    bench: Bench, ours_high: bool
) -> None:
    flag = Flag(bench.lab)
    head, track = flag.keepalived(ENOUGH)
    high: Vrrpkit | Keepalived
    low: Vrrpkit | Keepalived
    if ours_high:
        high, low = tracking(bench.a, flag.track(ENOUGH)), keepalived(bench.b, LOW)
    else:
        high, low = keepalived(bench.a, HIGH, track=track, head=head), router(bench.b, LOW)
    settled(high, low)
    sick = flag.set()
    lowered = bench.wire.wait_for(Advert, lambda a: a.priority == HIGH + ENOUGH, since=sick)
    accepted = last_advert(bench, HIGH, lowered.time).time
    took = announced(bench, VIP4, sick, bench.b.mac)
    assert DOWN - EARLY < took - accepted < DOWN + LATE
    # Until then it served, and repeated its lower priority, which nobody accepts.
    kept = [a for a in bench.wire.adverts(VRID, lowered.time) if a.source == bench.a.address]
    assert len(kept) >= 3
    assert {a.priority for a in kept} == {HIGH + ENOUGH}
    wait_until(lambda: not high.owns(VIP4), 2, "the retreat")
    wait_until(lambda: (high.state(), low.state()) == ("BACKUP", "MASTER"), 5, "roles changed")
    assert not goodbyes(bench, 0)
    well = flag.clear()
    announced(bench, VIP4, well, bench.a.mac)


def test_a_weight_that_is_too_small_moves_nothing_and_says_so(bench: Bench) -> None:
    flag = Flag(bench.lab)
    high, low = tracking(bench.a, flag.track(LOW - HIGH)), router(bench.b, LOW)
    low.start()
    mastered(low, VIP4)
    high.start()
    mastered(high, VIP4)
    # One less would do; that many only make the priorities equal.
    (warning,) = high.events("WeightTooSmall")
    assert (warning["weight"], warning["enough"]) == (LOW - HIGH, HIGH - LOW + 1)
    sick = flag.set()
    bench.wire.wait_for(
        Advert, lambda a: a.source == bench.a.address and a.priority == LOW, since=sick
    )
    time.sleep(2 * DOWN)
    assert (high.state(), low.state()) == ("MASTER", "BACKUP")
    assert high.transitions(sick) == []


class Scripted:
    """A script whose exit codes are written down beforehand, and that writes down its runs."""

    def __init__(self, host: Host, codes: str) -> None:
        self._log = host.directory / "runs"
        self._log.touch()
        file = host.directory / "codes"
        file.write_text(codes + "0" * 200)
        self.path = host.directory / "script.sh"
        self.path.write_text(
            f"""\
#!/bin/sh
date +%s.%N >> {self._log}
exit $(cut -c $(wc -l < {self._log}) {file})
"""
        )
        self.path.chmod(0o755)

    @property
    def runs(self) -> list[float]:
        """When it ran, in seconds of the real time."""
        return [float(line) for line in self._log.read_text().split()]

    def until(self, condition: Callable[[], bool], what: str) -> int:
        """How often it had run when something was seen."""
        wait_until(condition, 30, what)
        return len(self.runs)


@needs_keepalived
def test_rise_and_fall_are_counted_as_keepalived_does(lab: Lab) -> None:
    # Up at once; two failures and a success count for nothing; the third failure in a row is down;
    # one success is not enough for up, nor are two with a failure between them.
    codes = "0110111" + "01001"
    ours_host, their_host = lab.host("a", "192.0.2.1/24"), lab.host("b", "192.0.2.2/24")
    one, other = Scripted(ours_host, codes), Scripted(their_host, codes)
    ours = router(
        ours_host,
        track=[
            {"kind": "TrackScript", "args": [[str(one.path)]], "interval": 1, "rise": 2, "fall": 3}
        ],
    )
    head = (
        "global_defs {\n  script_user root\n  enable_script_security\n}\n"
        f'vrrp_script fit {{\n  script "{other.path}"\n  interval 1\n  rise 2\n  fall 3\n}}\n'
    )
    # Another virtual router: the two shall not meet.
    config = keepalived_conf(
        vrid=VRID + 1,
        vips=["192.0.2.11/32"],
        interval=INTERVAL,
        options={"track_script {\n    fit\n  }": None},
    )
    theirs = Keepalived(their_host, head + config)
    ours.start()
    theirs.start()
    counted: list[list[int]] = []
    for script, peer in ((one, ours), (other, theirs)):
        # Which run it was that made the difference: the state follows within milliseconds.
        counted.append([script.until(lambda p=peer: p.state() == "FAULT", "FAULT")])
    for runs, (script, peer) in zip(counted, ((one, ours), (other, theirs)), strict=True):
        runs.append(script.until(lambda p=peer: p.state() != "FAULT", "no FAULT"))
    assert counted == [[7, 11], [7, 11]]
    gaps = [later - earlier for earlier, later in pairwise(one.runs)]
    assert all(0.8 < gap < 1.2 for gap in gaps), gaps
    assert 0.98 < sum(gaps) / len(gaps) < 1.02


def test_runs_never_overlap_and_one_that_traps_sigterm_fails(lab: Lab) -> None:
    host = lab.host("a", "192.0.2.1/24")
    log = host.directory / "log"
    script = host.directory / "slow.sh"
    script.write_text(
        f"""\
#!/bin/sh
trap 'echo end >> {log}; exit 0' TERM
echo begin >> {log}
while :; do sleep 0.05; done
"""
    )
    script.chmod(0o755)
    track = {"kind": "TrackScript", "args": [[str(script)]], "interval": 0.1, "timeout": 0.35}
    ours = tracking(host, track)
    ours.start()
    wait_until(lambda: log.exists() and len(log.read_text().split()) >= 8, 10, "four runs")
    words = log.read_text().split()
    assert words[:8] == ["begin", "end"] * 4
    assert ours.state() == "FAULT"
    ours.stop()
    # Nothing of the script is left.
    assert log.read_text().split()[-1] == "end"
    assert str(script) not in host.run(["ps", "-e", "-o", "args"])


def test_a_script_runs_as_another_user_and_root_runs_none_that_others_can_write_to(
    lab: Lab,
) -> None:
    host = lab.host("a", "192.0.2.1/24")
    script = host.directory / "who.sh"
    script.write_text("#!/bin/sh\ntest $(id -u) = 65534\n")
    script.chmod(0o777)
    track = {"kind": "TrackScript", "args": [[str(script)]], "interval": 0.1}
    ours = tracking(host, track | {"user": "nobody"})
    ours.start()
    mastered(ours, VIP4)
    ours.stop()
    ours.options["track"] = [track]
    text = ours.fails()
    assert f"{script} would run as root, but {script} can be written to by everybody" in text


# --- interfaces, files, processes, servers


def test_another_interface_that_loses_its_carrier(bench: Bench) -> None:
    far = bench.lab.second_link(bench.a, bench.lab.second_switch(), "198.51.100.1/24")
    high = tracking(bench.a, {"kind": "TrackInterface", "args": ["eth1"]})
    low = router(bench.b, LOW)
    settled(high, low)
    pulled = time.monotonic()
    far.unplug()
    goodbye = bench.wire.wait_for(Advert, lambda a: a.priority == 0, since=pulled).time
    assert goodbye - pulled < INTERVAL
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
        self.path = directory / "vk-tracked"
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
    track = {"kind": "TrackProcess", "args": ["vk-tracked"]}
    high, low = tracking(bench.a, track), router(bench.b, LOW)
    program.start()
    settled(high, low)
    # The kernel tells of processes in the first network namespace only.
    assert high.report()["told"] is False
    killed = time.monotonic()
    program.kill()
    goodbye = bench.wire.wait_for(Advert, lambda a: a.priority == 0, since=killed).time
    # Its end is seen at once all the same.
    assert goodbye - killed < INTERVAL
    announced(bench, VIP4, killed, bench.b.mac)
    assert high.report()["faults"] == ["process vk-tracked"]
    program.start()
    began = time.monotonic()
    wait_until(lambda: high.state() != "FAULT", 5, "no FAULT")
    assert time.monotonic() - began < 1.5
    announced(bench, VIP4, began, bench.a.mac)
    assert program.process is not None and alive(program.process.pid)


def test_a_program_that_is_restarted_in_time_was_never_away(bench: Bench) -> None:
    program = Program(bench.a.directory, bench.a)
    track = {"kind": "TrackProcess", "args": ["vk-tracked"], "terminate_delay": 3}
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
        track = [TrackProcess("vk-tracked")]
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
            loop = asyncio.get_running_loop()
            for _ in range(3):
                began = loop.time()
                program.start()
                async with asyncio.timeout(5):
                    await one.wait_for(State.BACKUP, State.MASTER)
                    # Not after the next look through /proc, but now.
                    assert loop.time() - began < 0.5
                    ended = loop.time()
                    program.kill()
                    await one.wait_for(State.FAULT)
                assert loop.time() - ended < 0.5
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
        "timeout": 1,
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
