"""Two sides of a gateway move together: sync groups on two links, beside keepalived's."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from system.lab import Host, Lab, require_root_and, wait_until
from system.ours import Vrrpkit
from system.peers import KEEPALIVED, Keepalived, keepalived_conf, sync_group_conf
from system.scenario import HIGH, LOW, skew
from system.wire import Advert, Sniffer

REASON = require_root_and(KEEPALIVED, "ping") or ""

pytestmark = [pytest.mark.system, pytest.mark.skipif(bool(REASON), reason=REASON)]

INTERVAL = 0.25
SKEW = skew(LOW, INTERVAL)
DOWN = 3 * INTERVAL + SKEW
#: Clocks are read on both sides of a wire.
EARLY = 0.002
#: More than a stalled machine takes, and far less than what is told apart.
LATE = 2 * INTERVAL
#: Both addresses follow within one exchange with the kernel; each is announced once it is there.
TOGETHER = 0.06

INSIDE, OUTSIDE = "192.0.2.10", "198.51.100.10"
VRIDS = {"inside": 51, "outside": 52}


@dataclass(frozen=True)
class Side:
    """One link of the gateway."""

    name: str
    vip: str
    wire: Sniffer

    @property
    def vrid(self) -> int:
        return VRIDS[self.name]

    def announced(self, host: Host, since: float) -> list[float]:
        """When a host has announced the address of this side."""
        return [frame.time for frame in self.wire.garps(self.vip, since) if _from(frame, host)]

    def goodbyes(self, since: float) -> list[float]:
        """When somebody said that it leaves."""
        return [a.time for a in self.wire.adverts(self.vrid, since) if a.priority == 0]

    def last_advert(self, priority: int, before: float) -> float:
        found = [a.time for a in self.wire.adverts(self.vrid) if a.priority == priority]
        return max(at for at in found if at < before)


def _from(frame: object, host: Host) -> bool:
    mac: str = frame.source_mac  # type: ignore[attr-defined]
    return mac.rpartition(":")[2] == f"{int(host.address.rpartition('.')[2]):02x}"


@dataclass(frozen=True)
class Machine:
    """One machine of the gateway, seen from both of its links."""

    inside: Host
    outside: Host


@dataclass(frozen=True)
class Gateway:
    """Two machines between two links."""

    a: Machine
    b: Machine
    inside: Side
    outside: Side

    @property
    def sides(self) -> tuple[Side, Side]:
        return (self.inside, self.outside)

    def taken(self, machine: Machine, since: float) -> tuple[float, float]:
        """When a machine announced both addresses; waits for it."""
        for side in self.sides:
            wait_until(
                lambda side=side: bool(side.announced(machine.inside, since)),
                15,
                f"{side.vip} announced by {machine.inside.name}",
            )
        first = [side.announced(machine.inside, since)[0] for side in self.sides]
        assert machine.inside.has(INSIDE) and machine.inside.has(OUTSIDE)
        return (first[0], first[1])


@pytest.fixture
def gateway(lab: Lab) -> Iterator[Gateway]:
    far = lab.second_switch()
    machines: list[Machine] = []
    for number, name in ((1, "a"), (2, "b")):
        host = lab.host(name, f"192.0.2.{number}/24")
        machines.append(Machine(host, lab.second_link(host, far, f"198.51.100.{number}/24")))
    with Sniffer(lab.switch) as near_wire, Sniffer(far) as far_wire:
        yield Gateway(
            *machines, Side("inside", INSIDE, near_wire), Side("outside", OUTSIDE, far_wire)
        )


def ours(machine: Machine, priority: int, *, grouped: bool = True) -> Vrrpkit:
    routers = [
        {
            "name": name,
            "interface": host.dev,
            "vrid": VRIDS[name],
            "vips": [f"{vip}/24"],
            "priority": priority,
            "interval": INTERVAL,
            "announcements": {"delay": 0},
        }
        for name, host, vip in (
            ("inside", machine.inside, INSIDE),
            ("outside", machine.outside, OUTSIDE),
        )
    ]
    group = {"group": {"name": "gateway"}} if grouped else {}
    return Vrrpkit(machine.inside, routers=routers, **group)


def theirs(machine: Machine, priority: int) -> Keepalived:
    instances = [
        keepalived_conf(
            name=name,
            dev=host.dev,
            vrid=VRIDS[name],
            vips=[f"{vip}/24"],
            priority=priority,
            interval=INTERVAL,
            options={"garp_master_delay": 1},
        )
        for name, host, vip in (
            ("inside", machine.inside, INSIDE),
            ("outside", machine.outside, OUTSIDE),
        )
    ]
    return Keepalived(
        machine.inside, "".join([sync_group_conf("gateway", list(VRIDS)), *instances])
    )


MAKERS = {"vrrpkit": ours, "keepalived": theirs}
PAIRS = [("vrrpkit", "vrrpkit"), ("vrrpkit", "keepalived"), ("keepalived", "vrrpkit")]
pairs = pytest.mark.parametrize(("high", "low"), PAIRS, ids=["-over-".join(p) for p in PAIRS])


class Pair:
    """The higher group on machine a, the lower one on b, and what is expected of them."""

    def __init__(self, gateway: Gateway, high: str, low: str) -> None:
        self.gateway = gateway
        self.high = MAKERS[high](gateway.a, HIGH)
        self.low = MAKERS[low](gateway.b, LOW)
        self.ours_takes_over = low == "vrrpkit"

    def settle(self) -> None:
        """The higher one serves on both links, and the lower one has heard it on both."""
        began = time.monotonic()
        self.high.start()
        self.gateway.taken(self.gateway.a, began)
        self.low.start()
        wait_until(lambda: set(self.states(self.low)) == {"BACKUP"}, 5, "BACKUP")
        time.sleep(DOWN)
        self.check("MASTER", "BACKUP")

    def check(self, high: str, low: str) -> None:
        assert (self.states(self.high), self.states(self.low)) == ([high] * 2, [low] * 2)

    @staticmethod
    def states(group: Vrrpkit | Keepalived) -> list[str | None]:
        return [group.state(name) for name in VRIDS]

    def taken_over(self, since: float, silent: float, wait: float) -> None:
        """The lower one has both addresses ``wait`` seconds after ``silent``, together."""
        first = self.gateway.taken(self.gateway.b, since)
        assert all(wait - EARLY < at - silent < wait + LATE for at in first), (first, silent)
        if self.ours_takes_over:
            assert abs(first[0] - first[1]) < TOGETHER
        wait_until(lambda: self.states(self.low) == ["MASTER"] * 2, 5, "MASTER")


@pairs
def test_pulling_one_cable_moves_both_addresses_and_back(
    gateway: Gateway, high: str, low: str
) -> None:
    pair = Pair(gateway, high, low)
    pair.settle()
    pulled = time.monotonic()
    gateway.a.inside.unplug()
    wait_until(lambda: pair.states(pair.high) == ["FAULT"] * 2, 5, "FAULT of both")
    goodbye = gateway.outside.wire.wait_for(Advert, lambda a: a.priority == 0, since=pulled).time
    if pair.ours_takes_over:
        # The link that is silent follows the one that said goodbye: a skew time, not three
        # intervals.
        pair.taken_over(pulled, goodbye, SKEW)
    else:
        # keepalived has each member wait for its own timer.
        pair.taken_over(pulled, gateway.inside.last_advert(HIGH, pulled), DOWN)
    assert not gateway.a.inside.has(OUTSIDE) and not gateway.a.inside.has(INSIDE)
    assert len(gateway.outside.goodbyes(pulled)) == 1
    assert not gateway.inside.goodbyes(pulled)
    plugged = time.monotonic()
    gateway.a.inside.plug()
    gateway.taken(gateway.a, plugged)
    wait_until(lambda: pair.states(pair.low) == ["BACKUP"] * 2, 5, "BACKUP of both")
    pair.check("MASTER", "BACKUP")
    assert not gateway.b.inside.has(INSIDE) and not gateway.b.inside.has(OUTSIDE)
    # Whoever is preempted says nothing.
    assert not any(side.goodbyes(plugged) for side in gateway.sides)


@pairs
def test_whoever_leaves_says_so_on_both_links(gateway: Gateway, high: str, low: str) -> None:
    pair = Pair(gateway, high, low)
    pair.settle()
    stopped = time.monotonic()
    pair.high.stop()
    said = [side.goodbyes(stopped) for side in gateway.sides]
    assert [len(each) for each in said] == [1, 1]
    pair.taken_over(stopped, min(said[0][0], said[1][0]), SKEW)
    assert not gateway.a.inside.has(INSIDE) and not gateway.a.inside.has(OUTSIDE)


@pairs
def test_a_killed_master_is_replaced_on_both_links_at_once(
    gateway: Gateway, high: str, low: str
) -> None:
    pair = Pair(gateway, high, low)
    pair.settle()
    pair.high.kill9()
    dead = time.monotonic()
    last = max(side.last_advert(HIGH, dead) for side in gateway.sides)
    pair.taken_over(dead, last, DOWN)
    assert not any(side.goodbyes(0) for side in gateway.sides)


def test_a_lost_address_on_one_link_takes_nothing_apart(gateway: Gateway) -> None:
    group = ours(gateway.a, HIGH)
    group.start()
    gateway.taken(gateway.a, 0)
    deleted = time.monotonic()
    gateway.a.outside.ip("address", "delete", f"{OUTSIDE}/24", "dev", "eth1")
    # Put back, and announced: that is all.
    wait_until(
        lambda: bool(gateway.outside.announced(gateway.a.inside, deleted)), 5, "announced again"
    )
    assert gateway.a.outside.has(OUTSIDE)
    assert group.transitions(deleted) == []
    assert Pair.states(group) == ["MASTER"] * 2


# --- failing: the peers are in no group


def test_addresses_of_peers_without_a_group_move_apart(gateway: Gateway) -> None:
    high, low = ours(gateway.a, HIGH), ours(gateway.b, LOW, grouped=False)
    high.start()
    gateway.taken(gateway.a, 0)
    low.start()
    time.sleep(DOWN)
    pulled = time.monotonic()
    gateway.a.inside.unplug()
    inside, outside = gateway.taken(gateway.b, pulled)
    (goodbye,) = gateway.outside.goodbyes(pulled)
    silent = gateway.inside.last_advert(HIGH, pulled)
    assert SKEW - EARLY < outside - goodbye < SKEW + LATE
    assert DOWN - EARLY < inside - silent < DOWN + LATE
    # Unlike those of a group.
    assert inside - outside > TOGETHER


def test_a_group_cannot_follow_peers_that_come_apart(gateway: Gateway) -> None:
    high, low = ours(gateway.a, HIGH, grouped=False), ours(gateway.b, LOW)
    high.start()
    gateway.taken(gateway.a, 0)
    low.start()
    time.sleep(DOWN)
    gateway.a.inside.unplug()
    wait_until(lambda: high.state("inside") == "FAULT", 5, "FAULT")
    time.sleep(2 * DOWN)
    # Outside the other one still serves, so it has to stay away inside too, and says why.
    assert Pair.states(low) == ["BACKUP"] * 2
    assert low.state("gateway") == "BACKUP"
    assert not gateway.b.inside.has(INSIDE)
    why = low.report()["why"]
    assert why == (f"outside follows 198.51.100.1, whose priority is {HIGH} (its own is {LOW})")
    high.stop()
    wait_until(lambda: Pair.states(low) == ["MASTER"] * 2, 5, "MASTER of both")
