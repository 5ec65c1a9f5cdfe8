"""Scripts and the FIFO on real parts: nothing of them delays an advert, and the words are
keepalived's."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest

from system.lab import Host, Lab, require_root_and, wait_until
from system.ours import Vrrpkit, mastered, router
from system.peers import KEEPALIVED, Keepalived, keepalived_conf, sync_group_conf
from system.scenario import VIP4, VRID, Bench

pytestmark = pytest.mark.system

needs_keepalived = pytest.mark.skipif(
    require_root_and(KEEPALIVED) is not None, reason=require_root_and(KEEPALIVED) or "installed"
)

#: Of the routers whose adverts are timed.
QUICK = 0.05
#: How long they are watched.
WATCHED = 60.0

SILENT = """\
import socket
listener = socket.create_server(("0.0.0.0", 25))
kept = []
while True:
    kept.append(listener.accept())
"""


def script(directory: Path, text: str, name: str = "notify.sh") -> str:
    """A script that only root can change."""
    path = directory / name
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return str(path)


def scripts(path: str, **options: object) -> dict[str, object]:
    return {"kind": "NotifyScripts", "args": [path], **options}


def letters(server: str, **options: object) -> dict[str, object]:
    mail = {"kind": "Mail", "args": [server], "to": ["ops@example.net"], "security": "none"}
    return {**mail, "deadline": 2, "flush": 1, **options}


def notifying(host: Host, interval: float = QUICK, **notifiers: dict[str, object]) -> Vrrpkit:
    """A quick router with notifiers."""
    options = {
        "name": "vip",
        "interface": host.dev,
        "vrid": VRID,
        "vips": [f"{VIP4}/32"],
        "interval": interval,
        "announcements": {"delay": 0},
        "notify": list(notifiers),
    }
    return Vrrpkit(host, routers=[options], notifiers=notifiers, freeze=1)


def lateness(bench: Bench, host: Host, since: float) -> tuple[int, float]:
    """How many adverts of a host there were, and by how much the latest one came late."""
    times = [a.time for a in bench.wire.adverts(None, since) if a.source == host.address]
    return len(times), max(later - earlier for earlier, later in pairwise(times)) - QUICK


def assert_punctual(bench: Bench, since: float) -> None:
    """No advert of host a is late by half a second, or by more than those of host b are, which has
    nothing to do but advertise: the machine may be busy. What hangs here does so for a second at
    least."""
    ours, late = lateness(bench, bench.a, since)
    control, usual = lateness(bench, bench.b, since)
    assert abs(ours - control) <= max(5, 0.05 * control), (ours, control)
    assert late < max(10 * QUICK, usual + 4 * QUICK), (late, usual)


@pytest.fixture
def control(bench: Bench) -> Vrrpkit:
    """Another router, which shows how punctual adverts can be now."""
    ours = router(bench.b, vrid=VRID + 1, vips=["192.0.2.11/32"], interval=QUICK)
    ours.start()
    mastered(ours, "192.0.2.11")
    return ours


def test_a_minute_of_scripts_and_mail_servers_that_hang_delays_no_advert(
    bench: Bench, control: Vrrpkit
) -> None:
    """One server accepts connections and says nothing, one is away, and one does not run."""
    log = bench.a.directory / "log"
    hanging = script(bench.a.directory, f"echo $$ $3 >> {log}\nwhile :; do sleep 1000; done")
    bench.watch.python("-c", SILENT)
    wait_until(lambda: ":25 " in bench.watch.run(["ss", "-Hltn"]), 10, "the silent server")
    ours = notifying(
        bench.a,
        scripts=scripts(hanging, timeout=600, flush=0.5),
        silent=letters(bench.watch.address),
        away=letters("192.0.2.99"),
        refusing=letters(bench.watch.address, port=26),
    )
    ours.start()
    mastered(ours, VIP4)
    wait_until(log.exists, 10, "the script")

    def half_a_minute() -> None:
        since = time.monotonic()
        time.sleep(WATCHED / 2)
        assert_punctual(bench, since)
        assert lateness(bench, bench.a, since)[0] > 0.8 * WATCHED / 2 / QUICK

    half_a_minute()
    # More to tell, which is merged: the servers are tried again and again meanwhile.
    bench.a.unplug()
    wait_until(lambda: ours.state() == "FAULT", 5, "FAULT")
    bench.a.plug()
    mastered(ours, VIP4)
    half_a_minute()
    # It hangs on the first word, and only the newest state waits for its turn.
    pid, state = log.read_text().split()
    assert state == "BACKUP"
    assert os.path.exists(f"/proc/{pid}")
    leaving = time.monotonic()
    ours.stop(30)
    # Limited, and with the script and what it had started.
    assert 0.4 < time.monotonic() - leaving < 15
    assert not ours.owns(VIP4)
    assert not os.path.exists(f"/proc/{pid}")
    assert "sleep 1000" not in bench.a.run(["ps", "-e", "-o", "args"])
    # BACKUP, MASTER and FAULT, each once however often, and the end.
    assert ours.log().count("4 letters were not delivered within 1 s") == 3


def test_many_words_and_scripts_that_fail_delay_no_advert(bench: Bench, control: Vrrpkit) -> None:
    log = bench.a.directory / "log"
    failing = script(bench.a.directory, f"echo $3 $4 >> {log}\nexit 7")
    ours = notifying(bench.a, scripts=scripts(failing, priorities=True))
    ours.start()
    mastered(ours, VIP4)
    since = time.monotonic()
    for number in range(40):
        ours.do("priority", priority=101 + number)
        time.sleep(0.05)
    wait_until(lambda: log.read_text().split()[-1] == "140", 20, "the last word")
    assert_punctual(bench, since)
    # In order; of those that had to wait, the newest.
    told = [int(line.split()[1]) for line in log.read_text().splitlines()]
    assert told == sorted(told)
    assert "exit status 7" in ours.log()


def test_what_does_delay_adverts_is_seen(bench: Bench, control: Vrrpkit) -> None:
    # A program that blocks its event loop: what the two tests above would have noticed.
    ours = notifying(bench.a)
    ours.start()
    mastered(ours, VIP4)
    since = time.monotonic()
    time.sleep(0.5)
    ours.signal(signal.SIGUSR1)
    time.sleep(1.5)
    mastered(ours, VIP4)
    with pytest.raises(AssertionError):
        assert_punctual(bench, since)


def test_scripts_run_in_order_as_another_user_with_a_clean_environment(bench: Bench) -> None:
    public = bench.a.directory / "public"
    public.mkdir()
    public.chmod(0o777)
    log = public / "log"
    generic = script(
        bench.a.directory, f'echo "generic $* as $(id -u):$(id -g) $SECRET" >> {log}', "generic.sh"
    )
    special = script(
        bench.a.directory,
        f'echo "$1 because $VRRPKIT_REASON, was $VRRPKIT_PREVIOUS" >> {log}',
        "special.sh",
    )
    states = {state: [special, state] for state in ("master", "backup", "fault", "stop")}
    ours = notifying(bench.a, 0.2, scripts=scripts(generic, user="nobody", **states))
    os.environ["SECRET"] = "of the program"
    try:
        ours.start()
    finally:
        del os.environ["SECRET"]
    mastered(ours, VIP4)

    def told(count: int) -> Callable[[], bool]:
        return lambda: log.exists() and len(log.read_text().splitlines()) == count

    wait_until(told(4), 5, "BACKUP and MASTER told")
    bench.a.unplug()
    wait_until(told(6), 5, "FAULT told")
    ours.stop()
    assert log.read_text().splitlines() == [
        "backup because startup, was INIT",
        "generic INSTANCE vip BACKUP 100 as 65534:65534 ",
        "master because no-response, was BACKUP",
        "generic INSTANCE vip MASTER 100 as 65534:65534 ",
        "fault because fault, interface-down, was MASTER",
        "generic INSTANCE vip FAULT 100 as 65534:65534 ",
        "stop because shutdown, was FAULT",
        "generic INSTANCE vip STOP 100 as 65534:65534 ",
    ]


def test_root_runs_no_script_that_others_can_change(bench: Bench) -> None:
    path = script(bench.a.directory, "true")
    Path(path).chmod(0o775)
    os.chown(path, 0, 65534)
    ours = notifying(bench.a, scripts=scripts(path))
    assert f"{path} can be written to by group 65534" in ours.fails()
    # One that becomes so later is not run.
    Path(path).chmod(0o755)
    ours.start()
    os.chmod(path, 0o757)
    mastered(ours, VIP4)
    wait_until(lambda: "is not run" in ours.log(), 5, "a warning")
    assert ours.state() == "MASTER"


# --- FIFO


class Reader:
    """``cat`` at the other end of a FIFO."""

    def __init__(self, host: Host, fifo: Path) -> None:
        self._lines = host.directory / "lines"
        host.popen(["cat", str(fifo)], log=self._lines)

    @property
    def lines(self) -> list[str]:
        # keepalived's checkers end a line with a NUL besides.
        return self._lines.read_text().replace("\0", "").splitlines()

    def states(self, start: str) -> list[str]:
        """The states told of one object."""
        found = [line for line in self.lines if line.startswith(start)]
        return [line.split()[2] for line in found]


SIDES = {"in": VRID, "out": VRID + 1}


def our_group(host: Host, fifo: Path, first: int, priority: int) -> Vrrpkit:
    return Vrrpkit(
        host,
        routers=[
            {
                "name": name,
                "interface": host.dev,
                "vrid": vrid + first,
                "vips": [f"192.0.2.{vrid + first}/32"],
                "priority": priority,
                "interval": 0.2,
                "notify": ["fifo"],
            }
            for name, vrid in SIDES.items()
        ],
        group={"name": "both", "notify": ["fifo"]},
        notifiers={"fifo": {"kind": "NotifyFIFO", "args": [str(fifo)]}},
    )


def their_group(host: Host, fifo: Path, first: int, priority: int) -> Keepalived:
    head = f"global_defs {{\n  script_user root\n  vrrp_notify_fifo {fifo}\n}}\n"
    instances = [
        keepalived_conf(
            name=name,
            vrid=vrid + first,
            vips=[f"192.0.2.{vrid + first}/32"],
            priority=priority,
            interval=0.2,
        )
        for name, vrid in SIDES.items()
    ]
    return Keepalived(host, "".join([head, sync_group_conf("both", list(SIDES)), *instances]))


@needs_keepalived
def test_the_fifo_tells_the_same_life_in_the_same_lines_as_keepalived(lab: Lab) -> None:
    told: dict[str, list[str]] = {}
    for number, (name, make) in enumerate((("ours", our_group), ("theirs", their_group)), 1):
        host = lab.host(name, f"192.0.2.{number}/24")
        fifo = host.directory / "fifo"
        os.mkfifo(fifo, 0o600)
        reader = Reader(host, fifo)
        group: Vrrpkit | Keepalived = make(host, fifo, 10 * number, 120)

        def last(*states: str, reader: Reader = reader) -> Callable[[], bool]:
            return lambda: reader.states('GROUP "both"')[-len(states) :] == [*states]

        group.start()
        wait_until(last("BACKUP", "MASTER"), 10, "MASTER")
        host.unplug()
        wait_until(last("FAULT"), 10, "FAULT")
        host.plug()
        wait_until(last("BACKUP", "MASTER"), 10, "MASTER again")
        group.stop()
        wait_until(last("STOP"), 10, "STOP")
        told[name] = reader.lines
    router_run = ["BACKUP", "MASTER", "FAULT", "BACKUP", "MASTER", "STOP"]
    for name in SIDES:
        start = f'INSTANCE "{name}" '
        ours = [line for line in told["ours"] if line.startswith(start)]
        assert ours == [f"{start}{state} 120" for state in router_run]
        assert ours == [line for line in told["theirs"] if line.startswith(start)]
    for lines in told.values():
        groups = [line for line in lines if line.startswith("GROUP")]
        assert groups == [f'GROUP "both" {state} 0' for state in router_run]
        assert len(lines) == 3 * len(router_run)
    # The members first, then their group; keepalived begins the other way round.
    assert told["ours"][2::3] == groups
    assert told["theirs"][0] == 'GROUP "both" BACKUP 0'
    assert told["theirs"][5::3] == groups[1:]


def test_a_reader_that_does_not_read_delays_no_advert(bench: Bench, control: Vrrpkit) -> None:
    fifo = bench.a.directory / "fifo"
    ours = notifying(
        bench.a, fifo={"kind": "NotifyFIFO", "args": [str(fifo)], "limit": 5, "priorities": True}
    )
    ours.start()
    mastered(ours, VIP4)
    # Open, and stopped: the pipe holds 64 KiB, and that is soon full.
    reader = bench.a.popen(["cat", str(fifo)], log=bench.a.directory / "lines")
    reader.send_signal(signal.SIGSTOP)
    for number in range(2500):
        ours.do("priority", priority=100 + number % 2)
    wait_until(lambda: "nobody reads" in ours.log(), 20, "a full pipe")
    since = time.monotonic()
    time.sleep(2)
    assert_punctual(bench, since)
    ours.do("priority", priority=150)
    wait_until(lambda: ours.report()["priority"] == 150, 20, "the last priority")
    reader.send_signal(signal.SIGCONT)
    # Not the last line perhaps: on a machine that is too busy a change of state may follow.
    wait_until(
        lambda: "_PRIORITY 150\n" in (bench.a.directory / "lines").read_text(),
        15,
        "the newest line",
    )
    ours.stop()
    assert not fifo.exists()
