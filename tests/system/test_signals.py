"""How a router begins and ends: signals, kills, stops, and a host that lacks what it needs."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable

import pytest

from system.lab import Host, require_root_and, wait_until
from system.ours import INTERVAL, Vrrpkit, mastered, router as ours_router
from system.peers import KEEPALIVED, Keepalived, keepalived_conf
from system.scenario import (
    HIGH,
    LOW,
    OUR_MARK,
    VIP4,
    VIP6,
    VRID,
    Bench,
    address_marks,
    announcements,
    goodbyes,
    skew,
    taken,
)
from system.wire import Advert

pytestmark = pytest.mark.system

DOWN_LOW = 3 * INTERVAL + skew(LOW, INTERVAL)

needs_keepalived = pytest.mark.skipif(
    require_root_and(KEEPALIVED) is not None, reason=require_root_and(KEEPALIVED) or "installed"
)


def router(host: Host, priority: int = HIGH, **options: object) -> Vrrpkit:
    """A router of one VIP that takes another one, of IPv6, along."""
    return ours_router(host, priority, **{"excluded_vips": [f"{VIP6}/128"], **options})


def signalled(number: signal.Signals) -> Callable[[Vrrpkit], None]:
    return lambda ours: ours.signal(number)


def told(command: str) -> Callable[[Vrrpkit], None]:
    return lambda ours: ours.do(command)


ENDINGS = {
    "SIGTERM": (signalled(signal.SIGTERM), 0),
    "SIGINT": (signalled(signal.SIGINT), 0),
    "end": (told("end"), 0),
    "exception": (told("raise"), 1),
    "cancellation": (told("cancel"), 1),
}


@pytest.mark.parametrize(("end", "wanted"), ENDINGS.values(), ids=ENDINGS)
def test_every_ending_says_goodbye_and_removes_the_addresses(
    bench: Bench, end: Callable[[Vrrpkit], None], wanted: int
) -> None:
    ours = router(bench.a)
    ours.start()
    mastered(ours, VIP4, VIP6)
    before = time.monotonic()
    end(ours)
    code = ours.wait(5)
    assert code == wanted, ours.log()
    assert not ours.owns(VIP4)
    assert not ours.owns(VIP6)
    goodbye = bench.wire.wait_for(Advert, lambda seen: seen.priority == 0, since=before)
    # Longer than an interval: nothing follows.
    time.sleep(2 * INTERVAL)
    assert len(goodbyes(bench, 0)) == 1
    assert bench.wire.adverts(VRID)[-1] == goodbye
    assert not announcements(bench, VIP4, goodbye.time, bench.a.mac)
    assert not announcements(bench, VIP6, goodbye.time, bench.a.mac)
    if wanted and end is ENDINGS["exception"][0]:
        assert "RuntimeError: the body failed" in ours.log()


def test_a_backup_leaves_without_a_word(bench: Bench) -> None:
    master, backup = router(bench.a), router(bench.b, LOW)
    master.start()
    mastered(master, VIP4, VIP6)
    backup.start()
    time.sleep(DOWN_LOW)
    backup.stop()
    assert backup.transitions() == [("BACKUP", "startup"), ("INIT", "shutdown")]
    assert not goodbyes(bench, 0)
    assert {advert.source for advert in bench.wire.adverts()} == {bench.a.address}


def test_ten_routers_of_one_program_leave_together(bench: Bench) -> None:
    numbers = range(1, 11)
    ours = Vrrpkit(
        bench.a,
        routers=[
            {
                "name": f"vip{n}",
                "interface": "eth0",
                "vrid": n,
                "vips": [f"192.0.2.{100 + n}/32"],
                "interval": INTERVAL,
                "priority": HIGH,
            }
            for n in numbers
        ],
    )
    ours.start()
    addresses = [f"192.0.2.{100 + n}" for n in numbers]
    wait_until(lambda: all(map(ours.owns, addresses)), 5, "all addresses")
    ours.stop()
    assert not any(map(ours.owns, addresses))
    said = [a.vrid for a in bench.wire.adverts() if a.priority == 0]
    assert sorted(said) == list(numbers)


# --- killed


def test_what_a_killed_run_left_is_adopted_by_a_master_and_removed_at_the_end(
    bench: Bench,
) -> None:
    bench.a.ip("address", "add", "192.0.2.200/32", "dev", "eth0")
    ours = router(bench.a)
    ours.start()
    mastered(ours, VIP4, VIP6)
    ours.kill9()
    assert ours.owns(VIP4) and ours.owns(VIP6)
    marks = address_marks(bench.a)
    assert (marks[VIP4], marks[VIP6], marks["192.0.2.200"]) == (OUR_MARK, OUR_MARK, 0)
    again = time.monotonic()
    ours.start()
    # Nothing is known of the others yet: not a master's any more.
    assert not ours.owns(VIP4)
    assert not ours.owns(VIP6)
    mastered(ours, VIP4, VIP6)
    taken(bench, bench.a, VIP4, again)
    ours.stop()
    assert not ours.owns(VIP4) and not ours.owns(VIP6)
    assert bench.a.has("192.0.2.200")


def test_what_a_killed_run_left_is_removed_by_a_backup(bench: Bench) -> None:
    first, second = router(bench.a), router(bench.b, LOW)
    first.start()
    mastered(first, VIP4, VIP6)
    second.start()
    first.kill9()
    mastered(second, VIP4, VIP6)
    first.options["priority"] = LOW - 10
    first.start()
    assert not first.owns(VIP4) and not first.owns(VIP6)
    time.sleep(DOWN_LOW)
    assert (first.state(), second.state()) == ("BACKUP", "MASTER")
    taken(bench, bench.b, VIP4, 0)


def test_addresses_of_another_configuration_are_removed_too(bench: Bench) -> None:
    bench.a.ip("address", "add", "192.0.2.200/32", "dev", "eth0")
    ours = router(bench.a)
    ours.start()
    mastered(ours, VIP4, VIP6)
    ours.kill9()
    ours.options["vips"] = ["192.0.2.77/32"]
    ours.options["excluded_vips"] = []
    ours.start()
    mastered(ours, "192.0.2.77")
    wait_until(lambda: not ours.owns(VIP4) and not ours.owns(VIP6), 3, "a clean interface")
    assert ours.owns("192.0.2.77") and bench.a.has("192.0.2.200")


def test_another_living_program_keeps_its_addresses(bench: Bench) -> None:
    # Two programs on one host: the second one must not take the first one's for leftovers.
    one = router(bench.a)
    one.start()
    mastered(one, VIP4, VIP6)
    two = Vrrpkit(
        bench.b,
        run_on=bench.a,
        netns=bench.a.namespace,
        vrid=VRID + 1,
        vips=["192.0.2.78/32"],
        interval=INTERVAL,
    )
    two.start()
    time.sleep(1.5)
    assert one.owns(VIP4) and one.owns(VIP6)
    two.stop()
    assert one.owns(VIP4) and one.owns(VIP6)


LEASE = 3


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP], ids=["kill", "stop"])
def test_the_kernel_ends_a_lease(bench: Bench, number: signal.Signals) -> None:
    ours = router(bench.a, vip_lease=LEASE)
    ours.start()
    mastered(ours, VIP4, VIP6)
    # Renewed: a lease and more has passed.
    end = time.monotonic() + LEASE + 1
    while time.monotonic() < end:
        assert ours.owns(VIP4) and ours.owns(VIP6)
        time.sleep(0.1)
    before = time.monotonic()
    ours.signal(number)
    gone = {
        address: wait_until(lambda a=address: not ours.owns(a), LEASE + 2, f"{address} gone")
        for address in (VIP4, VIP6)
    }
    # It was renewed a third of a lease ago at most; the kernel counts in whole seconds, rarely
    # looked at.
    assert all(LEASE * 2 / 3 - 1 < at - before < LEASE + 1.2 for at in gone.values())
    assert not ours.transitions(before)


# --- stopped


@needs_keepalived
def test_a_stopped_master_steps_back_and_takes_over_afresh(bench: Bench) -> None:
    ours = router(bench.a, excluded_vips=[])
    theirs = Keepalived(
        bench.b,
        keepalived_conf(vrid=VRID, vips=[f"{VIP4}/32"], priority=LOW, interval=INTERVAL),
    )
    ours.start()
    mastered(ours, VIP4)
    theirs.start()
    time.sleep(DOWN_LOW)
    stopped = time.monotonic()
    ours.signal(signal.SIGSTOP)
    taken(bench, bench.b, VIP4, stopped)
    time.sleep(1)
    went_on = time.monotonic()
    ours.signal(signal.SIGCONT)
    wait_until(lambda: not ours.owns(VIP4), 0.5, "the address dropped at once")
    taken(bench, bench.a, VIP4, went_on)
    wait_until(lambda: not theirs.owns(VIP4), 2, "the other one's retreat")
    assert ours.transitions(went_on) == [("BACKUP", "stalled"), ("MASTER", "preempted")]
    (stalled,) = ours.events("Stalled")
    assert went_on - stopped - INTERVAL < stalled["seconds"] < went_on - stopped + 2 * INTERVAL
    assert_no_two_masters(bench, went_on, bench.a.address)
    # Not before it has listened to one interval of the link.
    back = announcements(bench, VIP4, went_on, bench.a.mac)[0] - went_on
    assert INTERVAL < back < 3 * INTERVAL + 0.3


def test_a_stopped_master_yields_to_a_higher_one(bench: Bench) -> None:
    ours, other = router(bench.a, LOW), router(bench.b)
    ours.start()
    mastered(ours, VIP4, VIP6)
    ours.signal(signal.SIGSTOP)
    stopped = time.monotonic()
    other.start()
    mastered(other, VIP4, VIP6)
    time.sleep(1)
    went_on = time.monotonic()
    ours.signal(signal.SIGCONT)
    wait_until(lambda: not ours.owns(VIP4) and not ours.owns(VIP6), 0.5, "addresses dropped")
    time.sleep(2 * DOWN_LOW)
    assert ours.transitions(stopped) == [("BACKUP", "higher-priority")]
    assert not [a for a in bench.wire.adverts(VRID, went_on) if a.source == bench.a.address]
    assert other.transitions(went_on) == []
    taken(bench, bench.b, VIP4, stopped)


def test_a_stopped_backup_does_not_take_over(bench: Bench) -> None:
    master, ours = router(bench.a), router(bench.b, LOW)
    master.start()
    mastered(master, VIP4, VIP6)
    ours.start()
    time.sleep(INTERVAL)
    ours.signal(signal.SIGSTOP)
    time.sleep(3 * DOWN_LOW)
    went_on = time.monotonic()
    ours.signal(signal.SIGCONT)
    time.sleep(2 * DOWN_LOW)
    assert ours.transitions(went_on) == []
    assert ours.state() == "BACKUP"
    assert {advert.source for advert in bench.wire.adverts()} == {bench.a.address}


def test_a_stopped_master_alone_on_its_link_comes_back(bench: Bench) -> None:
    ours = router(bench.a)
    ours.start()
    mastered(ours, VIP4, VIP6)
    ours.signal(signal.SIGSTOP)
    time.sleep(2)
    went_on = time.monotonic()
    ours.signal(signal.SIGCONT)
    wait_until(lambda: len(ours.transitions(went_on)) == 2, 3, "two changes of state")
    assert ours.transitions(went_on) == [("BACKUP", "stalled"), ("MASTER", "no-response")]
    taken(bench, bench.a, VIP4, went_on)


def assert_no_two_masters(bench: Bench, since: float, winner: str) -> None:
    """From its return on, the others advertise for one interval at most after the winner does."""
    adverts = [a for a in bench.wire.adverts(VRID, since) if a.priority]
    first = next(a.time for a in adverts if a.source == winner)
    late = [a.time - first for a in adverts if a.time > first and a.source != winner]
    assert all(after < INTERVAL for after in late)
