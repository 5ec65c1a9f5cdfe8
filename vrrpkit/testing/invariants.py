"""What must be true of every group of virtual routers, whatever happens to it. Pure.

Three rules, checked against the timeline of a :class:`vrrpkit.testing.Lan`. Their limits follow
from the scenario itself: the options of the routers, the delays and losses of the link, who was
cut off, unplugged or paused, and when.
"""

from __future__ import annotations

import enum
import itertools
from collections.abc import Iterable, Iterator
from typing import TypeAlias

import attrs

from vrrpkit.testing.timeline import Entry, Lost, Timeline
from vrrpkit.testing.world import Router, World
from vrrpkit.values import State

__all__ = ["Invariant", "InvariantBroken", "Violation", "violations"]

TOLERANCE = 0.001
"""Seconds by which any limit may be missed: for the rounding of times."""

RECONCILE = 0.1
"""Seconds that a host may take to put addresses on and to take them off."""


class Invariant(enum.StrEnum):
    """The rules."""

    ONE_MASTER = "one-master"
    """Two MASTERs that hear each other last at most the larger advertisement interval plus transit;
    each lost advert adds an interval."""
    A_MASTER = "a-master"
    """A router that is fit and hears no MASTER becomes one within down_factor x the learnt interval
    + skew + what of startup_delay is left (and the transit of the last advert)."""
    NO_STRAY_ADDRESS = "no-stray-address"
    """A virtual address is on no host whose router is not MASTER, beyond one round of its
    reconciler."""


@attrs.frozen(kw_only=True)
class Violation:
    """One rule was broken."""

    invariant: Invariant
    at: float
    """When the limit passed, in seconds of the event loop."""
    routers: tuple[str, ...]
    message: str

    def __str__(self) -> str:
        return f"{self.invariant}: {self.message}"


class InvariantBroken(AssertionError):
    """Rules were broken; ``violations`` are the details, and the message ends with the timeline."""

    def __init__(self, violations: Iterable[Violation], timeline: Timeline) -> None:
        self.violations = tuple(violations)
        lines = [f"at {each.at - timeline.start:.3f} {each}" for each in self.violations]
        super().__init__("\n".join([*lines, "", str(timeline)]))


def violations(
    timeline: Timeline,
    until: float | None = None,
    *,
    reconcile: float = RECONCILE,
    tolerance: float = TOLERANCE,
) -> list[Violation]:
    """Every time that a rule was broken, in order.

    :param until: when the timeline ends, in seconds of the event loop; by default with its last
        entry.
    :param reconcile: seconds that a host may take to take addresses off.
    :param tolerance: seconds by which any limit may be missed; under real time, give the lateness
        of the event loop.
    """
    checker = _Checker(timeline.start, reconcile, tolerance)
    for entry in timeline:
        checker.reach(entry.at)
        checker.follow(entry)
    if until is not None:
        checker.reach(until)
    return checker.found


@attrs.define(eq=False)
class _Clock:
    """Runs while something lasts that may last only so long."""

    since: float
    lost: int = 0
    """Adverts that were lost meanwhile."""
    expired: bool = False


_Key: TypeAlias = tuple[Invariant, tuple[str, ...], tuple[object, ...]]
"""What lasts, with whom, and what would make it begin afresh."""


class _Checker:
    def __init__(self, start: float, reconcile: float, tolerance: float) -> None:
        self.found: list[Violation] = []
        self._start = start
        self._reconcile = reconcile
        self._tolerance = tolerance
        self._world = World()
        self._clocks: dict[_Key, _Clock] = {}

    def follow(self, entry: Entry) -> None:
        """Something happened: some clocks stop, others start."""
        world = self._world
        world.apply(entry)
        if isinstance(entry.what, Lost):
            for (_invariant, names, _epochs), clock in self._clocks.items():
                hosts = {world.routers[name].host.name for name in names if name in world.routers}
                clock.lost += {entry.who, entry.what.to} == hosts
            return
        running = [*self._rivals(), *self._orphans(), *self._strays()]
        self._clocks = {key: self._clocks.get(key) or _Clock(entry.at) for key in running}

    def reach(self, now: float) -> None:
        """Nothing happened until ``now``."""
        for key, clock in self._clocks.items():
            if clock.expired:
                continue
            due, message = self._limit(key, clock)
            if now > due + self._tolerance:
                clock.expired = True
                invariant, names, _epochs = key
                self.found.append(
                    Violation(invariant=invariant, at=due, routers=names[:2], message=message)
                )

    def _limit(self, key: _Key, clock: _Clock) -> tuple[float, str]:
        invariant, names, _epochs = key
        transit = self._world.transit
        match invariant:
            case Invariant.ONE_MASTER:
                interval = max(self._world.routers[name].options.interval for name in names)
                limit = max(interval, transit) + transit + clock.lost * interval
                message = f"{names[0]} and {names[1]} are both MASTER and hear each other"
            case Invariant.A_MASTER:
                router = self._world.routers[names[0]]
                held = max(router.ready_at - clock.since, 0.0)
                limit = max(held + router.patience + transit, router.moved - clock.since)
                message = f"{names[0]} hears no MASTER and does not become one"
            case Invariant.NO_STRAY_ADDRESS:
                limit = self._reconcile
                message = f"{names[1]} is on {names[0]}, whose router is not MASTER"
        began = clock.since - self._start
        return clock.since + limit, f"{message}, for more than {limit:.3f} s since {began:.3f}"

    def _rivals(self) -> Iterator[_Key]:
        masters = [router for router in self._world.routers.values() if router.master]
        for a, b in itertools.combinations(masters, 2):
            if self._world.hears(a, b) and self._world.hears(b, a):
                epochs = (a.epoch, a.moved, b.epoch, b.moved)
                yield Invariant.ONE_MASTER, (a.name, b.name), epochs

    def _orphans(self) -> Iterator[_Key]:
        world = self._world
        for router in world.routers.values():
            if router.able and not router.master and not self._led(router):
                yield Invariant.A_MASTER, (router.name,), (router.epoch,)

    def _led(self, router: Router) -> bool:
        return any(
            other.master and self._world.hears(router, other)
            for other in self._world.routers.values()
        )

    def _strays(self) -> Iterator[_Key]:
        for host in self._world.hosts.values():
            if not host.awake:
                continue
            served = {
                address
                for router in self._world.on(host)
                if router.state is State.MASTER
                for address in router.options.all_addresses
            }
            for address in host.held - served:
                yield Invariant.NO_STRAY_ADDRESS, (host.name, str(address)), (host.epoch,)
