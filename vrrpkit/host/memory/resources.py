"""What an interface in memory is made of: its addresses, and an alarm that can be stopped."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from ipaddress import IPv4Interface, IPv6Interface
from typing import TYPE_CHECKING, TypeAlias

import attrs

from vrrpkit.host.base import FilterRule, RouteClaim
from vrrpkit.timers import LoopAlarm
from vrrpkit.values import VIP, IPAddress

if TYPE_CHECKING:
    from vrrpkit.routes.route import Entry, Route, Rule

__all__ = ["IPInterface", "MemoryAddresses", "MemoryFilterRule", "MemoryRoutes", "PausableAlarm"]

IPInterface: TypeAlias = IPv4Interface | IPv6Interface

DETECTION = 1.0
"""Seconds that duplicate address detection takes (RFC 4862: RetransTimer, once)."""


@attrs.define(eq=False)
class _Entry:
    """One address on one interface."""

    address: IPInterface
    ours: bool
    usable: bool = True
    verdict: asyncio.TimerHandle | None = None
    """When duplicate address detection ends."""
    until: asyncio.TimerHandle | None = None


class PausableAlarm:
    """An alarm that stays silent while the process that it belongs to is stopped."""

    def __init__(self) -> None:
        self._alarm = LoopAlarm()
        self._order: tuple[float, Callable[[], None]] | None = None
        self.paused = False

    def now(self) -> float:
        return self._alarm.now()

    def arm(self, when: float, wake: Callable[[], None]) -> None:
        self._order = (when, wake)
        if not self.paused:
            self._alarm.arm(when, wake)

    def close(self) -> None:
        self._order = None
        self._alarm.close()

    def pause(self) -> None:
        self.paused = True
        self._alarm.close()

    def resume(self) -> None:
        self.paused = False
        if self._order is not None:
            self._alarm.arm(*self._order)


class MemoryAddresses:
    """The addresses on one interface (an :class:`vrrpkit.host.base.AddressManager`)."""

    def __init__(
        self,
        removed: Callable[[IPInterface, bool], None],
        changed: Callable[[], None],
        detected: Callable[[IPInterface, bool], None] = lambda _address, _usable: None,
        manager_of: Callable[[str], MemoryAddresses] | None = None,
    ) -> None:
        self.delay = 0.0
        """Seconds that each request takes."""
        self.failures: dict[IPAddress, OSError] = {}
        """What the kernel answers to requests that name these addresses."""
        self.requests = 0
        """How many requests were made."""
        self.table: dict[IPInterface, _Entry] = {}
        self.dead = False
        """The machine has no power: requests have no effect."""
        self.running = asyncio.Event()
        """Cleared while the process is stopped: it makes no requests then."""
        self.running.set()
        self.promote_secondaries = True
        """Whether the other IPv4 addresses of a prefix stay when the first one goes, as the sysctl
        of that name says."""
        self.taken: Callable[[IPAddress], bool] = lambda _address: False
        """Whether somebody else on the link has an address."""
        self._detected = detected
        self._others: tuple[tuple[IPAddress, int], ...] | None = None
        self._removed = removed
        self._changed = changed
        self._manager_of = manager_of

    async def apply(
        self, add: Sequence[VIP], remove: Sequence[VIP], lease: float | None
    ) -> list[tuple[VIP, OSError]]:
        await asyncio.sleep(self.delay)
        await self.running.wait()
        if self.dead:
            return []
        self.requests += 1
        failures: list[tuple[VIP, OSError]] = []
        for vip in (*remove, *add):
            problem = self.failures.get(vip.address)
            if problem is not None:
                failures.append((vip, problem))
        refused = {vip for vip, _problem in failures}
        for vip in remove:
            if vip not in refused:
                self._at(vip).remove(vip.interface, own=True)
        for vip in add:
            if vip not in refused:
                self._at(vip).put(
                    vip.interface, lease, ours=True, detect=vip.family == 6 and not vip.nodad
                )
        for manager in {self, *(self._at(vip) for vip in (*remove, *add))}:
            manager._changed()
        return failures

    def _at(self, vip: VIP) -> MemoryAddresses:
        """Those of the interface that an address goes on."""
        return self if vip.dev is None or self._manager_of is None else self._manager_of(vip.dev)

    def present(self, vip: VIP) -> bool:
        return vip.interface in self._at(vip).table

    def ours(self, vip: VIP) -> bool:
        entry = self._at(vip).table.get(vip.interface)
        return entry is not None and entry.ours

    @property
    def others(self) -> tuple[tuple[IPAddress, int], ...]:
        """The addresses that this library did not put there, with their prefix lengths; the same
        object until they change."""
        if self._others is None:
            self._others = tuple(
                (each.ip, each.network.prefixlen)
                for each, entry in self.table.items()
                if not entry.ours
            )
        return self._others

    def tentative(self, vip: VIP) -> bool:
        entry = self._at(vip).table.get(vip.interface)
        return entry is not None and not entry.usable

    def put(
        self, address: IPInterface, lease: float | None, *, ours: bool, detect: bool = False
    ) -> None:
        """Add an address, or give the one that is there a new lease.

        :param detect: it may be used only once duplicate address detection has passed.
        """
        entry = self.table.get(address)
        if entry is None:
            entry = self.table[address] = _Entry(address, ours, usable=not detect)
            if detect:
                loop = asyncio.get_running_loop()
                entry.verdict = loop.call_later(DETECTION, self._judge, entry)
        self._forget_lease(entry)
        if not entry.ours:
            self._others = None
        if lease is not None:
            loop = asyncio.get_running_loop()
            entry.until = loop.call_later(lease, self.remove, address)

    def _judge(self, entry: _Entry) -> None:
        entry.verdict = None
        entry.usable = not self.taken(entry.address.ip)
        self._detected(entry.address, entry.usable)

    def remove(self, address: IPInterface, *, own: bool = False) -> None:
        """Take an address off, whoever put it there."""
        alike: list[IPInterface] = []
        if not self.promote_secondaries and address.version == 4:
            alike = [each for each in self.table if each.network == address.network]
        entry = self.table.pop(address, None)
        if entry is None:
            return
        self._end(entry)
        if not entry.ours:
            self._others = None
        if alike and alike[0] == address:
            for other in alike[1:]:
                self._lose(other, own=own)
        self._removed(address, False)

    def _lose(self, address: IPInterface, *, own: bool) -> None:
        """Lose an address with the first one of its prefix."""
        entry = self.table.pop(address)
        self._end(entry)
        if not entry.ours:
            self._others = None
        if own and not entry.ours:
            self.put(address, None, ours=False)
        else:
            self._removed(address, own)

    def start(self) -> None:
        """Serve a process on the present event loop."""
        self.running = asyncio.Event()
        self.running.set()

    def die(self) -> None:
        """Lose every address that is ours, as in a power failure: nobody is told."""
        self.dead = True
        self.running.set()
        for entry in [entry for entry in self.table.values() if entry.ours]:
            self._end(entry)
            del self.table[entry.address]

    def _forget_lease(self, entry: _Entry) -> None:
        if entry.until is not None:
            entry.until.cancel()
            entry.until = None

    def _end(self, entry: _Entry) -> None:
        self._forget_lease(entry)
        if entry.verdict is not None:
            entry.verdict.cancel()
            entry.verdict = None


class _MemoryRouteClaim(RouteClaim):
    """The routes and rules of one virtual router."""

    def __init__(
        self, table: MemoryRoutes, entries: Sequence[Entry], lost: Callable[[Entry], None]
    ) -> None:
        self.entries = tuple(entries)
        self.lost = lost
        self.wanted = False
        self._table = table

    def acquire(self) -> list[tuple[Entry, OSError]]:
        self.wanted = True
        return self._table.acquire(self.entries)

    @property
    def missing(self) -> list[Entry]:
        return [entry for entry in self.entries if entry not in self._table.table]

    def release(self) -> None:
        self.wanted = False
        self._table.release(self.entries)

    def close(self) -> None:
        self.release()
        self._table.holds.pop(self, None)


@attrs.frozen(eq=False)
class MemoryFilterRule(FilterRule):
    """Addresses of one router that packets are not accepted to."""

    vips: tuple[VIP, ...]
    filter_rules: list[MemoryFilterRule]
    """All of one interface, this one among them."""

    async def close(self) -> None:
        if self in self.filter_rules:
            self.filter_rules.remove(self)


class MemoryRoutes:
    """The routes and rules of one host.

    :param addresses: knows whether the host has power.
    :param tell: runs what the process hears, once it can.
    """

    def __init__(
        self, addresses: MemoryAddresses, tell: Callable[[Callable[[], None]], None]
    ) -> None:
        self.failures: dict[Entry, OSError] = {}
        """What the kernel answers when these are to be added."""
        self.table: dict[Entry, bool] = {}
        """What is in place, in the order in which it came, and whether it is ours."""
        self.holds: dict[_MemoryRouteClaim, None] = {}
        self._addresses = addresses
        self._tell = tell

    def hold(
        self, routes: Sequence[Route], rules: Sequence[Rule], lost: Callable[[Entry], None]
    ) -> RouteClaim:
        """Make a hold, after what an earlier run left behind is removed."""
        hold = _MemoryRouteClaim(self, (*routes, *rules), lost)
        self.release(hold.entries)
        self.holds[hold] = None
        return hold

    def acquire(self, entries: Sequence[Entry]) -> list[tuple[Entry, OSError]]:
        """Put entries in place; what is refused."""
        if self._addresses.dead:
            return []
        refused = [(entry, self.failures[entry]) for entry in entries if entry in self.failures]
        for entry in entries:
            if entry not in self.failures:
                self.table.setdefault(entry, True)
        return refused

    def release(self, entries: Sequence[Entry]) -> None:
        """Remove entries that are ours and that no hold wants, from the last to the first."""
        if self._addresses.dead:
            return
        wanted = {entry for hold in self.holds if hold.wanted for entry in hold.entries}
        for entry in reversed(entries):
            if self.table.get(entry) and entry not in wanted:
                del self.table[entry]

    def delete(self, entry: Entry) -> None:
        """Remove an entry as somebody else would."""
        if self.table.pop(entry, None) is None:
            return

        def tell() -> None:
            for hold in list(self.holds):
                if hold.wanted and entry in hold.entries:
                    hold.lost(entry)

        self._tell(tell)

    def die(self) -> None:
        """Lose all that is ours, as in a power failure."""
        self.table = {entry: False for entry, ours in self.table.items() if not ours}
