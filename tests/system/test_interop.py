"""vrrpkit takes turns with keepalived and with FRR on one link, in both roles."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import pytest

from system.lab import Host, Lab, require_root_and, wait_until
from system.ours import Vrrpkit
from system.peers import FRR, FRR_PROGRAMS, KEEPALIVED, Keepalived, Peer, keepalived_conf
from system.scenario import (
    HIGH,
    LOW,
    VIP4,
    VIP6,
    VRID,
    Bench,
    announced,
    bench_in,
    family_of,
    goodbyes,
    last_advert,
    reached,
    skew,
    virtual_mac,
)
from system.wire import Advert, Sniffer

REASON = require_root_and(KEEPALIVED, *FRR_PROGRAMS, "ping") or ""

pytestmark = [pytest.mark.system, pytest.mark.skipif(bool(REASON), reason=REASON)]

VIPS = {4: (f"{VIP4}/24",), 6: ("fe80::51:10/64", f"{VIP6}/64")}
TWENTY = tuple(f"192.0.2.{number}/32" for number in range(100, 120))

#: How early a takeover may seem: clocks are read on both sides of a wire, and FRR counts whole
#: centiseconds.
EARLY = 0.002
EARLY_FRR = 0.012
#: From our first advert to our first announcement: enough for the kernel to take the addresses, not
#: for anything that should have been made ready beforehand.
PROMPT = 0.04


@dataclass(frozen=True, kw_only=True)
class Case:
    """How the two routers are set up."""

    peer: str = "keepalived"
    family: int = 4
    version: int = 3
    interval: float = 0.2
    password: str | None = None
    unicast: bool = False
    our_virtual_mac: bool = False
    their_virtual_mac: bool = False
    vips: tuple[str, ...] = ()

    @property
    def addresses(self) -> tuple[str, ...]:
        """The virtual addresses with prefix lengths."""
        return self.vips or VIPS[self.family]

    @property
    def bare(self) -> tuple[str, ...]:
        """The same without prefix lengths."""
        return tuple(vip.split("/")[0] for vip in self.addresses)


CASES = {
    "v3-ipv4": Case(),
    "v3-ipv6": Case(family=6),
    "v3-ipv4-frr": Case(peer="frr"),
    "v3-ipv6-frr": Case(peer="frr", family=6),
    "unicast": Case(unicast=True),
    "100ms": Case(interval=0.1),
    "our-virtual-mac": Case(our_virtual_mac=True, vips=(f"{VIP4}/32",)),
    "their-virtual-mac": Case(their_virtual_mac=True, vips=(f"{VIP4}/32",)),
    "virtual-macs": Case(our_virtual_mac=True, their_virtual_mac=True, vips=(f"{VIP4}/32",)),
    "virtual-macs-ipv6": Case(family=6, our_virtual_mac=True, their_virtual_mac=True),
    "20-vips": Case(vips=TWENTY),
}
#: Version 2 knows whole seconds only.
SLOW_CASES = (Case(version=2, interval=1), Case(version=2, interval=1, password="secret"))


@dataclass(frozen=True)
class Router:
    """One of the two, and what is to be expected of it."""

    peer: Peer
    priority: int
    #: Where neighbours find the VIP when this one is master.
    mac: str
    early: float
    #: Whether its first advert comes an interval after its takeover only.
    slow: bool = False

    @property
    def host(self) -> Host:
        """Where it runs."""
        return self.peer.host


def our_router(case: Case, host: Host, other: Host, priority: int) -> Router:
    options: dict[str, object] = {}
    if case.unicast:
        options |= {"source": host.address, "peers": [other.address]}
    if case.password is not None:
        options["password"] = case.password
    peer = Vrrpkit(
        host,
        vrid=VRID,
        vips=case.addresses,
        priority=priority,
        version=case.version,
        interval=case.interval,
        virtual_mac=case.our_virtual_mac,
        announcements={"delay": 1},
        **options,
    )
    mac = virtual_mac(case.family) if case.our_virtual_mac else host.mac
    return Router(peer, priority, mac, EARLY)


def their_router(case: Case, host: Host, other: Host, priority: int) -> Router:
    if case.peer == "frr":
        peer = FRR(host, vrid=VRID, vips=case.addresses, priority=priority, interval=case.interval)
        slow = case.family == 6
        return Router(peer, priority, virtual_mac(case.family), EARLY_FRR, slow)
    if case.their_virtual_mac:
        # Otherwise eth0 asks for a client's address with the VIP as sender, and the client learns
        # the physical MAC.
        host.sysctl({"net/ipv4/conf/all/arp_announce": 2})
    config = keepalived_conf(
        vrid=VRID,
        priority=priority,
        vips=case.addresses,
        interval=case.interval,
        version=case.version,
        auth_pass=case.password,
        unicast_src=host.address if case.unicast else None,
        unicast_peers=[other.address] if case.unicast else (),
        use_vmac=case.their_virtual_mac,
        options={"garp_master_delay": 1},
    )
    mac = virtual_mac(case.family) if case.their_virtual_mac else host.mac
    return Router(Keepalived(host, config), priority, mac, EARLY)


def state_of(router: Router, family: int) -> str | None:
    peer = router.peer
    if isinstance(peer, FRR):
        return peer.state(family)
    assert isinstance(peer, Keepalived | Vrrpkit)
    return peer.state()


class Scenario:
    """Two routers on a bench, and what is measured of them."""

    def __init__(self, bench: Bench, case: Case, ours_high: bool) -> None:
        self.bench, self.case = bench, case
        makes = (our_router, their_router) if ours_high else (their_router, our_router)
        self.high = makes[0](case, bench.a, bench.b, HIGH)
        self.low = makes[1](case, bench.b, bench.a, LOW)
        self.ours, self.theirs = (self.high, self.low) if ours_high else (self.low, self.high)
        #: The address that the watcher talks to; a link-local one would need a scope.
        self.address = case.bare[-1]
        self.skew = skew(LOW, case.interval, case.version)
        self.down = 3 * case.interval + self.skew
        #: Far less than what is told apart, and more than a stalled machine takes.
        self.late = 2.5 * case.interval

    def expect_master(self, router: Router, since: float) -> float:
        """Wait until all VIPs are announced by a router and reached there; the first's time."""
        times = [announced(self.bench, vip, since, router.mac) for vip in self.case.bare]
        reached(self.bench, self.address, router.host, router.mac)
        return min(times)

    def settled(self) -> None:
        """The higher one has all VIPs, and the lower one none."""
        high, low = self.high, self.low
        for vip in self.case.bare:
            wait_until(lambda vip=vip: not low.peer.owns(vip), 10, f"{low.host.name} without {vip}")
            assert high.peer.owns(vip)
        wait_until(lambda: state_of(low, self.case.family) == "BACKUP", 5, "one BACKUP")
        assert state_of(high, self.case.family) == "MASTER"

    def takeover(self, since: float, silent: float, wait: float) -> tuple[float, float]:
        """The lower one takes over ``wait`` after ``silent``: its advert and announcement.

        Nothing that is seen before ``since`` counts: both may have the same virtual MAC.
        """
        low, case = self.low, self.case
        announced_at = self.expect_master(low, since) - silent
        first = self.bench.wire.wait_for(
            Advert, lambda seen: seen.priority == LOW and seen.vrid == VRID, since=since
        )
        advert_at = first.time - silent
        assert wait - low.early < announced_at < wait + self.late
        if low is self.ours:
            assert announced_at - advert_at < PROMPT
        if low.slow:
            wait += case.interval
        assert wait - low.early < advert_at < wait + self.late
        assert all(low.peer.owns(vip) for vip in case.bare)
        assert state_of(low, case.family) == "MASTER"
        return advert_at, announced_at


@pytest.mark.parametrize("ours_high", [True, False], ids=["ours-high", "ours-low"])
@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_takes_turns(bench: Bench, case: Case, ours_high: bool) -> None:
    take_turns(bench, case, ours_high)


def test_takes_turns_in_version_2() -> None:
    def in_a_laboratory_of_its_own(case: Case, ours_high: bool) -> None:
        with Lab() as lab, Sniffer(lab.switch) as wire:
            take_turns(bench_in(lab, wire), case, ours_high)

    # All at once: they do little but wait.
    runs = [(case, ours_high) for case in SLOW_CASES for ours_high in (True, False)]
    with ThreadPoolExecutor(len(runs)) as pool:
        running = {pool.submit(in_a_laboratory_of_its_own, *run): run for run in runs}
    failed = {running[run]: error for run in running if (error := run.exception()) is not None}
    if failed:
        raise AssertionError(f"failed: {list(failed)}") from next(iter(failed.values()))


def take_turns(bench: Bench, case: Case, ours_high: bool) -> None:
    """Start, stop, start, kill and start the higher one: each time the right one is master."""
    scenario = Scenario(bench, case, ours_high)
    high, wire = scenario.high, bench.wire

    # FRR wants to be the first on a link, and its first IPv6 advert comes late.
    started = time.monotonic()
    scenario.theirs.peer.start()
    scenario.expect_master(scenario.theirs, started)
    wire.wait_for(Advert)
    joined = time.monotonic()
    scenario.ours.peer.start()
    if ours_high:
        scenario.expect_master(high, joined)
    else:
        # Deaf to the master, it would take over now.
        time.sleep(scenario.down + case.interval)
    scenario.settled()
    check_adverts(bench, scenario)

    stopped = time.monotonic()
    high.peer.stop()
    released = wire.wait_for(Advert, lambda seen: seen.priority == 0, since=stopped)
    after_stop = scenario.takeover(released.time, released.time, scenario.skew)
    assert [seen.source for seen in goodbyes(bench, stopped)] == [released.source]
    assert not any(high.peer.owns(vip) for vip in case.bare)

    restarted = time.monotonic()
    high.peer.start()
    scenario.expect_master(high, restarted)
    scenario.settled()

    wire.wait_for(Advert, lambda seen: seen.priority == HIGH, since=restarted)
    killed = time.monotonic()
    high.peer.kill9()
    dead = time.monotonic()
    silent = last_advert(bench, HIGH, dead).time
    after_kill = scenario.takeover(dead, silent, scenario.down)
    # Nobody cleaned up behind the dead one.
    assert all(high.peer.owns(vip) for vip in case.bare)

    revived = time.monotonic()
    high.peer.start()
    scenario.expect_master(high, revived)
    scenario.settled()
    assert not goodbyes(bench, killed)
    report(scenario, after_stop, after_kill)


def report(
    scenario: Scenario, after_stop: tuple[float, float], after_kill: tuple[float, float]
) -> None:
    """Print what was measured (shown with ``-rP``)."""
    print(
        f"{type(scenario.low.peer).__name__} took over:"
        f" {after_stop[0]:.4f} s after the goodbye (announced {after_stop[1]:.4f},"
        f" skew {scenario.skew:.4f}),"
        f" {after_kill[0]:.4f} s after the last advert (announced {after_kill[1]:.4f},"
        f" down interval {scenario.down:.4f})"
    )


def check_adverts(bench: Bench, scenario: Scenario) -> None:
    """Ours look as they should, and on the wire like the others'."""
    case = scenario.case
    group = "224.0.0.18" if case.family == 4 else "ff02::12"
    since = time.monotonic()
    if scenario.ours is scenario.high:
        other = scenario.low.host
        advert = bench.wire.wait_for(Advert, since=since)
        unit = 100 if case.version == 3 else 1
        assert (advert.version, advert.ttl, advert.priority) == (case.version, 255, HIGH)
        assert advert.interval == round(case.interval * unit)
        assert advert.addresses == case.bare
        assert advert.destination == (other.address if case.unicast else group)
        assert advert.source not in advert.addresses
        assert advert.source_mac == scenario.ours.mac
        assert (family_of(advert.source) == 6) == (case.family == 6)
