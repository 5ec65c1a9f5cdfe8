"""A network interface in memory, and the machine that it stands for."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Sequence
from ipaddress import ip_interface
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

from vrrpkit.errors import ConfigError, VRRPKitError
from vrrpkit.host.addresses.reconciler import Reconciler
from vrrpkit.host.announce.announcer import Announcer
from vrrpkit.host.base import (
    AddressClaim,
    AddressListener,
    Announcements,
    FilterRule,
    Interface,
    Link,
    RouteClaim,
)
from vrrpkit.host.memory.resources import (
    IPInterface,
    MemoryAddresses,
    MemoryFilterRule,
    MemoryRoutes,
    PausableAlarm,
)
from vrrpkit.timers import Deadlines
from vrrpkit.transport.memory import Station
from vrrpkit.values import VIP, IPAddress, parse_address

if TYPE_CHECKING:
    from vrrpkit.routes.route import Entry, Route, Rule

__all__ = ["MemoryInterface", "own_address"]

PREFIXES = {4: 24, 6: 64}
"""Prefix length of an interface's own address that was given without one."""

VIRTUAL_MACS = {4: "00005e0001", 6: "00005e0002"}
"""RFC 9568 section 7.3, without the VRID."""


class MemoryInterface(Interface):
    """One network interface in memory; made by :meth:`vrrpkit.MemoryBus.interface`."""

    def __init__(
        self, name: str, ifindex: int, mac: bytes, own: Sequence[IPInterface], station: Station
    ) -> None:
        super().__init__(name)
        self.manager = MemoryAddresses(
            self._removed, self._changed, self._detected, self._manager_of
        )
        """Its addresses; a test may slow it down or make it refuse some."""
        self.routing = MemoryRoutes(self.manager, self._hear)
        """The routes and rules of its machine; a test may make it refuse some."""
        self.transport = station
        self.station = station
        self.carrier = True
        """Whether the link is up, as this machine sees it."""
        self.abandoned: set[IPAddress] = set()
        """Which addresses on it a killed keepalived has left."""
        self._ifindex = ifindex
        self._mac = mac
        self._users = 0
        self._link: Link | None = None
        self._told: Link | None = None
        self._watchers: dict[object, Callable[[], None]] = {}
        self._address_watchers: dict[object, Callable[[], None]] = {}
        self._virtual: dict[tuple[int, int], MemoryInterface] = {}
        self._devices: dict[str, MemoryInterface] = {}
        self._base: MemoryInterface = self
        self._unheard: deque[Callable[[], None]] = deque()
        self._filter_rules: list[MemoryFilterRule] = []
        # As a set that keeps its order.
        self._alarms: WeakKeyDictionary[PausableAlarm, None] = WeakKeyDictionary()
        self._announcer: Announcer | None = None
        self._reconciler: Reconciler | None = None
        self.paused = False
        for address in own:
            self.manager.put(address, None, ours=False)

    async def open(self) -> None:
        self._users += 1
        if self._users > 1:
            return
        self.deadlines = Deadlines(self.alarm())
        self.deadlines.drains[self.station] = self.station.drain
        self._announcer = Announcer(self.deadlines, self._announce)
        self._reconciler = Reconciler(self.manager, self._announcer, self.deadlines)
        if not self.paused:
            self.manager.start()

    async def close(self) -> None:
        if self._users == 0:
            return
        self._users -= 1
        if self._users or self._reconciler is None or self._announcer is None:
            return
        self.resume()
        reconciler, self._reconciler = self._reconciler, None
        try:
            await reconciler.close()
        finally:
            self._announcer.close()
            self.deadlines.close()

    @property
    def link(self) -> Link:
        # One object until something changes: hundreds of routers look at it.
        link, others = self._link, self.manager.others
        if link is None or link.up is not self.carrier or link.addresses is not others:
            link = self._link = Link(
                name=self.name,
                ifindex=self._ifindex,
                up=self.carrier,
                mac=self._mac,
                addresses=others,
            )
        return link

    def watch(self, changed: Callable[[], None]) -> Callable[[], None]:
        # Asked now, so that the next change is seen as one.
        if not self._watchers:
            self._told = self.link
        return self._watch(self._watchers, changed)

    def watch_addresses(self, changed: Callable[[], None]) -> Callable[[], None]:
        """Call ``changed`` after each change of the addresses in the table of :attr:`manager`,
        those of virtual routers among them; returns what ends it."""
        return self._watch(self._address_watchers, changed)

    def _watch(
        self, watchers: dict[object, Callable[[], None]], changed: Callable[[], None]
    ) -> Callable[[], None]:
        key = object()
        watchers[key] = changed

        def unwatch() -> None:
            watchers.pop(key, None)

        return unwatch

    def watch_machine(self, changed: Callable[[], None]) -> Callable[[], None]:
        before = self._base._strangers()

        def look() -> None:
            nonlocal before
            now = self._base._strangers()
            if now != before:
                before = now
                changed()

        unwatch = [interface.watch(look) for interface in self._base.machine()]

        def end() -> None:
            for each in unwatch:
                each()

        return end

    def _strangers(self) -> list[tuple[str, bool, frozenset[IPInterface]]]:
        """Links, and the addresses that no virtual router put there."""
        return [
            (
                each.name,
                each.carrier,
                frozenset(a for a, entry in each.manager.table.items() if not entry.ours),
            )
            for each in self.machine()
        ]

    def device(self, name: str) -> MemoryInterface:
        """Another interface of the same machine, which is there when it is asked for, and up."""
        base = self._base
        for each in base.family():
            if each.name == name:
                return each
        found = base._devices.get(name)
        if found is None:
            index = base._ifindex * 1000 + 800 + len(base._devices)
            mac = bytes([2, 1, *index.to_bytes(4)])
            found = base._devices[name] = MemoryInterface(name, index, mac, (), base.station)
            found._base = base
            found.manager.taken = base.manager.taken
            if base.paused:
                found.pause()
        return found

    def _manager_of(self, name: str) -> MemoryAddresses:
        return self.device(name).manager

    async def hold(
        self,
        vips: Sequence[VIP],
        announcements: Announcements,
        listener: AddressListener,
        lease: float | None = None,
    ) -> AddressClaim:
        if self._reconciler is None:
            raise VRRPKitError(f"{self.name} is not open; await open() before hold()")
        return await self._reconciler.hold(vips, announcements, listener, lease)

    def remove_abandoned(self, addresses: Collection[IPAddress]) -> None:
        for address in self.abandoned & set(addresses):
            self.delete(address)
        self.abandoned.clear()

    def remove_foreign(self, address: IPAddress, prefix: int) -> OSError | None:
        self.manager.remove(ip_interface((address, prefix)), own=True)
        self._changed()
        return None

    def hold_routes(
        self, routes: Sequence[Route], rules: Sequence[Rule], lost: Callable[[Entry], None]
    ) -> RouteClaim:
        return self.routing.hold(routes, rules, lost)

    @property
    def routes(self) -> list[Route]:
        """The routes that are in place on its machine, in the order in which they came."""
        from vrrpkit.routes.route import Route

        return [entry for entry in self.routing.table if isinstance(entry, Route)]

    @property
    def rules(self) -> list[Rule]:
        """The rules that are in place on its machine, in the order in which they came."""
        from vrrpkit.routes.route import Rule

        return [entry for entry in self.routing.table if isinstance(entry, Rule)]

    async def refuse(self, vips: Sequence[VIP]) -> FilterRule:
        filter_rule = MemoryFilterRule(tuple(vips), self._filter_rules)
        self._filter_rules.append(filter_rule)
        return filter_rule

    @property
    def refused(self) -> frozenset[IPAddress]:
        """The addresses that its machine accepts no packets to, though it may hold them."""
        filter_rules = [filter_rule for each in self.family() for filter_rule in each._filter_rules]
        return frozenset(vip.address for filter_rule in filter_rules for vip in filter_rule.vips)

    async def virtual(self, vrid: int, family: int, name: str | None) -> MemoryInterface:
        key = (vrid, family)
        interface = self._virtual.get(key)
        if interface is None:
            mac = bytes.fromhex(VIRTUAL_MACS[family]) + bytes([vrid])
            index = self._ifindex * 1000 + vrid + (500 if family == 6 else 0)
            interface = MemoryInterface(name or f"vrrp.{vrid}", index, mac, (), self.station)
            interface.carrier = self.carrier
            interface._base = self
            interface.manager.taken = self.manager.taken
            self._virtual[key] = interface
        return interface

    def add(self, address: str, *, ours: bool = False) -> None:
        """Put an address on, as somebody else would.

        :param address: ``"192.0.2.10/24"``.
        :param ours: make it look as if a killed run had left it behind.
        """
        self.manager.put(own_address(address), None, ours=ours)
        self._changed()

    def delete(self, address: str | IPAddress) -> None:
        """Take an address off, as somebody else would. Without effect when it is not there."""
        wanted = parse_address(address, "address")
        for interface in self.machine():
            for entry in [entry for entry in interface.manager.table if entry.ip == wanted]:
                interface.manager.remove(entry)
                interface._changed()

    def delete_route(self, entry: str | Entry) -> None:
        """Remove a route or a rule (as text: a route), as somebody else would. Without effect when
        it is not there."""
        from vrrpkit.routes.route import Route, Rule

        self.routing.delete(entry if isinstance(entry, Rule) else Route.of(entry))

    def holds(self, address: IPAddress) -> bool:
        """Whether the address is on this interface now, or on another one of its machine."""
        return any(entry.ip == address for each in self.machine() for entry in each.manager.table)

    def alarm(self) -> PausableAlarm:
        """An alarm for whatever else the process behind this interface does: it is silent while
        that is stopped."""
        alarm = PausableAlarm()
        if self.paused:
            alarm.pause()
        self._alarms[alarm] = None
        return alarm

    def family(self) -> list[MemoryInterface]:
        """This interface, and those with a virtual MAC on top of it."""
        return [self, *self._virtual.values()]

    def machine(self) -> list[MemoryInterface]:
        """Every interface of this machine."""
        return [*self.family(), *self._devices.values()]

    def set_carrier(self, up: bool) -> None:
        """Lose the carrier, or get it back."""
        for interface in self.family():
            interface.carrier = up
            interface._changed()

    def pause(self) -> None:
        """Stop the process, as SIGSTOP does. What arrives waits; leases run out all the same."""
        self.station.frozen = True
        for interface in self.machine():
            interface.paused = True
            interface.manager.running.clear()
            for alarm in list(interface._alarms):
                alarm.pause()

    def resume(self) -> None:
        """Let it go on: first it hears what it missed, then its overdue timers fire."""
        self.station.frozen = False
        self.station.drain()
        for interface in self.machine():
            if not interface.paused:
                continue
            interface.paused = False
            interface.manager.running.set()
            while interface._unheard:
                interface._unheard.popleft()()
            for alarm in list(interface._alarms):
                alarm.resume()

    def _removed(self, address: IPInterface, own: bool) -> None:
        def tell() -> None:
            for each in self._base.machine():
                for dev in (None, self.name) if each is self else (self.name,):
                    if each._reconciler is not None:
                        each._reconciler.removed(
                            address.ip, address.network.prefixlen, dev, own=own
                        )

        self._hear(tell)

    def _detected(self, address: IPInterface, usable: bool) -> None:
        def tell() -> None:
            for each in self._base.machine():
                for dev in (None, self.name) if each is self else (self.name,):
                    if each._reconciler is not None:
                        each._reconciler.detected(
                            address.ip, address.network.prefixlen, dev, usable=usable
                        )

        self._hear(tell)

    def _hear(self, tell: Callable[[], None]) -> None:
        if self.paused:
            self._unheard.append(tell)
        else:
            tell()

    def _changed(self) -> None:
        if self.paused:
            if self._tell_watchers not in self._unheard:
                self._unheard.append(self._tell_watchers)
        else:
            self._tell_watchers()

    def _tell_watchers(self) -> None:
        self._tell(self._address_watchers)
        # As in the kernel's case: who watches the link hears nothing of what routers do to it. All
        # of them would look at it again at each address that one of them takes.
        link = self.link
        if link != self._told:
            self._told = link
            self._tell(self._watchers)

    def _tell(self, watchers: dict[object, Callable[[], None]]) -> None:
        for key, changed in list(watchers.items()):
            if key in watchers:
                changed()

    def _announce(self, vips: Sequence[VIP]) -> None:
        tentative = self.manager.tentative
        self.station.announce(vip.address for vip in vips if not tentative(vip))


def own_address(text: str) -> IPInterface:
    """An address with or without its prefix length, as it is given for an interface.

    :raises ConfigError: it is none.
    """
    if "/" not in text:
        address = parse_address(text, "address")
        return ip_interface((address, PREFIXES[address.version]))
    try:
        return ip_interface(text)
    except ValueError as problem:
        raise ConfigError(f"{text!r} is not of the form 'ADDRESS/PREFIX': {problem}") from None
