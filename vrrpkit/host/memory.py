"""Network interfaces in memory: everything that a virtual router does to a host, without a host.

::

    bus = MemoryBus(seed=7, loss=0.1)
    a, b = bus.interface("192.0.2.1"), bus.interface("192.0.2.2")
    bus.unplug("192.0.2.1")

Each interface stands for a machine of its own, so that it can also be paused and crash.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from ipaddress import IPv6Address, ip_interface
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

from vrrpkit.errors import ConfigError, InterfaceMissing, VRRPKitError
from vrrpkit.host.announcing import Announcer
from vrrpkit.host.base import (
    AddressHold,
    AddressListener,
    Announcements,
    Ban,
    Interface,
    Link,
    RouteHold,
)
from vrrpkit.host.deadlines import Deadlines
from vrrpkit.host.memory_parts import (
    IPInterface,
    MemoryAddresses,
    MemoryBan,
    MemoryRoutes,
    PausableAlarm,
)
from vrrpkit.host.reconciler import Reconciler
from vrrpkit.transport.memory import RECORD, Conditions, Crossing, Segment, Station
from vrrpkit.values import VIP, IPAddress, parse_address

if TYPE_CHECKING:
    from vrrpkit.host.routes import Entry, Route, Rule

__all__ = ["MemoryBus", "MemoryInterface"]

PREFIXES = {4: 24, 6: 64}
"""Prefix length of an interface's own address that was given without one."""

VIRTUAL_MACS = {4: "00005e0001", 6: "00005e0002"}
"""RFC 9568 section 7.3, without the VRID."""


class MemoryInterface(Interface):
    """One network interface in memory; made by :meth:`MemoryBus.interface`."""

    def __init__(
        self, name: str, ifindex: int, mac: bytes, own: Sequence[IPInterface], station: Station
    ) -> None:
        super().__init__(name)
        self.manager = MemoryAddresses(self._removed, self._changed)
        """Its addresses; a test may slow it down or make it refuse some."""
        self.routing = MemoryRoutes(self.manager, self._hear)
        """The routes and rules of its machine; a test may make it refuse some."""
        self.transport = station
        self.station = station
        self.carrier = True
        """Whether the link is up, as this machine sees it."""
        self._ifindex = ifindex
        self._mac = mac
        self._users = 0
        self._watchers: dict[object, Callable[[], None]] = {}
        self._virtual: dict[tuple[int, int], MemoryInterface] = {}
        self._unheard: deque[Callable[[], None]] = deque()
        self._bans: list[MemoryBan] = []
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
        return Link(
            name=self.name,
            ifindex=self._ifindex,
            up=self.carrier,
            mac=self._mac,
            addresses=tuple((a.ip, a.network.prefixlen) for a in self.manager.table),
        )

    def watch(self, changed: Callable[[], None]) -> Callable[[], None]:
        key = object()
        self._watchers[key] = changed

        def unwatch() -> None:
            self._watchers.pop(key, None)

        return unwatch

    async def hold(
        self,
        vips: Sequence[VIP],
        announcements: Announcements,
        listener: AddressListener,
        lease: float | None = None,
    ) -> AddressHold:
        if self._reconciler is None:
            raise VRRPKitError(f"{self.name} is not open; await open() before hold()")
        return await self._reconciler.hold(vips, announcements, listener, lease)

    def hold_routes(
        self, routes: Sequence[Route], rules: Sequence[Rule], lost: Callable[[Entry], None]
    ) -> RouteHold:
        return self.routing.hold(routes, rules, lost)

    @property
    def routes(self) -> list[Route]:
        """The routes that are in place on its machine, in the order in which they came."""
        from vrrpkit.host.routes import Route

        return [entry for entry in self.routing.table if isinstance(entry, Route)]

    @property
    def rules(self) -> list[Rule]:
        """The rules that are in place on its machine, in the order in which they came."""
        from vrrpkit.host.routes import Rule

        return [entry for entry in self.routing.table if isinstance(entry, Rule)]

    async def refuse(self, vips: Sequence[VIP]) -> Ban:
        ban = MemoryBan(tuple(vips), self._bans)
        self._bans.append(ban)
        return ban

    @property
    def refused(self) -> frozenset[IPAddress]:
        """The addresses that its machine accepts no packets to, though it may hold them."""
        bans = [ban for each in self.family() for ban in each._bans]
        return frozenset(vip.address for ban in bans for vip in ban.vips)

    async def virtual(self, vrid: int, family: int, name: str | None) -> MemoryInterface:
        key = (vrid, family)
        interface = self._virtual.get(key)
        if interface is None:
            mac = bytes.fromhex(VIRTUAL_MACS[family]) + bytes([vrid])
            index = self._ifindex * 1000 + vrid + (500 if family == 6 else 0)
            interface = MemoryInterface(name or f"vrrp.{vrid}", index, mac, (), self.station)
            interface.carrier = self.carrier
            self._virtual[key] = interface
        return interface

    def add(self, address: str, *, ours: bool = False) -> None:
        """Put an address on, as somebody else would.

        :param address: ``"192.0.2.10/24"``.
        :param ours: make it look as if a killed run had left it behind.
        """
        self.manager.put(_own(address), None, ours=ours)
        self._changed()

    def delete(self, address: str | IPAddress) -> None:
        """Take an address off, as somebody else would. Without effect when it is not there."""
        wanted = parse_address(address, "address")
        for interface in self.family():
            for entry in [entry for entry in interface.manager.table if entry.ip == wanted]:
                interface.manager.remove(entry)
                interface._changed()

    def delete_route(self, entry: str | Entry) -> None:
        """Remove a route or a rule (as text: a route), as somebody else would. Without effect when
        it is not there."""
        from vrrpkit.host.routes import Route, Rule

        self.routing.delete(entry if isinstance(entry, Rule) else Route.of(entry))

    def holds(self, address: IPAddress) -> bool:
        """Whether the address is on this interface now, or on one with a virtual MAC on top."""
        return any(entry.ip == address for each in self.family() for entry in each.manager.table)

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

    def set_carrier(self, up: bool) -> None:
        """Lose the carrier, or get it back."""
        for interface in self.family():
            interface.carrier = up
            interface._changed()

    def pause(self) -> None:
        """Stop the process, as SIGSTOP does. What arrives waits; leases run out all the same."""
        self.station.frozen = True
        for interface in self.family():
            interface.paused = True
            interface.manager.running.clear()
            for alarm in list(interface._alarms):
                alarm.pause()

    def resume(self) -> None:
        """Let it go on: first it hears what it missed, then its overdue timers fire."""
        self.station.frozen = False
        self.station.drain()
        for interface in self.family():
            if not interface.paused:
                continue
            interface.paused = False
            interface.manager.running.set()
            while interface._unheard:
                interface._unheard.popleft()()
            for alarm in list(interface._alarms):
                alarm.resume()

    def _removed(self, address: IPInterface) -> None:
        def tell() -> None:
            if self._reconciler is not None:
                self._reconciler.removed(address.ip, address.network.prefixlen)

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
        for key, changed in list(self._watchers.items()):
            if key in self._watchers:
                changed()

    def _announce(self, vips: Sequence[VIP]) -> None:
        self.station.announce(vip.address for vip in vips)


class MemoryBus:
    """A link with network interfaces on it, all in memory.

    It works on any asyncio event loop, under real and under virtual time.

    :param seed: seeds everything random: equal seeds give equal runs under virtual time.
    :param loss: probability that a message does not arrive at a station, 0 to 1.
    :param delay: seconds that each message takes.
    :param jitter: up to so many seconds more, evenly spread; order is kept.
    :param duplication: probability that a message arrives twice, 0 to 1.
    :param reordering: probability that a message is overtaken by later ones, 0 to 1.
    :param record: messages to remember, the latest ones.
    :raises ConfigError: a value is out of range.
    """

    def __init__(
        self,
        *,
        seed: int = 0,
        loss: float = 0.0,
        delay: float = 0.0,
        jitter: float = 0.0,
        duplication: float = 0.0,
        reordering: float = 0.0,
        record: int = RECORD,
    ) -> None:
        conditions = Conditions(
            loss=loss, delay=delay, jitter=jitter, duplication=duplication, reordering=reordering
        )
        self.segment = Segment(seed=seed, conditions=conditions, record=record)
        """The link itself, with everything else that can be done to it."""
        self._interfaces: dict[IPAddress, MemoryInterface] = {}
        self._names: dict[str, MemoryInterface] = {}

    @property
    def record(self) -> deque[Crossing]:
        """What was sent, oldest first, with what became of it."""
        return self.segment.record

    def interface(self, address: str, *more: str, name: str | None = None) -> MemoryInterface:
        """The interface with this address, made when there is none.

        :param address: ``"192.0.2.1"``, or with a prefix length; without, it is /24 or /64.
        :param more: further addresses. A link-local IPv6 address comes by itself.
        :param name: what to call it; by default ``mem1``, ``mem2`` and so on.
        :raises ConfigError: an address is none, or belongs to another interface.
        """
        own = [_own(each) for each in (address, *more)]
        found = self._interfaces.get(own[0].ip)
        if found is not None:
            return found
        for each in own:
            if each.ip in self._interfaces:
                raise ConfigError(f"{each.ip} belongs to another interface of this bus already")
        number = len(self._names) + 1
        name = name or f"mem{number}"
        if name in self._names:
            raise ConfigError(f"there is an interface {name!r} on this bus; choose another name")
        mac = bytes([2, 0, 0, 0, *number.to_bytes(2)])
        if not any(each.ip.is_link_local and each.version == 6 for each in own):
            own.append(_link_local(mac))
        station = self.segment.station(str(own[0].ip))
        interface = MemoryInterface(name, number, mac, own, station)
        self._names[name] = interface
        for each in own:
            self._interfaces[each.ip] = interface
        return interface

    def unplug(self, address: str) -> None:
        """Pull the cable of the interface with this address or name: its carrier is gone."""
        self._set_plugged(address, plugged=False)

    def plug(self, address: str) -> None:
        """Put the cable back."""
        self._set_plugged(address, plugged=True)

    def cut(self, a: str, b: str, *, one_way: bool = False) -> None:
        """Let nothing through from ``a`` to ``b`` and back unless ``one_way``. Carriers stay up."""
        self.segment.cut(self._station(a), self._station(b), one_way=one_way)

    def heal(self, a: str | None = None, b: str | None = None) -> None:
        """End the cuts between ``a`` and ``b``, those of ``a``, or all of them."""
        self.segment.heal(
            None if a is None else self._station(a), None if b is None else self._station(b)
        )

    def pause(self, address: str) -> None:
        """Stop the process behind this interface, as SIGSTOP does."""
        self._find(address).pause()

    def resume(self, address: str) -> None:
        """Let it go on."""
        self._find(address).resume()

    def crash(self, address: str) -> None:
        """Take the power from the machine behind this interface: it says nothing, and its virtual
        addresses are gone. Leave its routers afterwards, as you would without a crash."""
        interface = self._find(address)
        interface.station.plugged = False
        interface.pause()
        for each in interface.family():
            each.manager.die()
        interface.routing.die()

    def restart(self, address: str) -> None:
        """Give the power back after :meth:`crash`, once its routers were left; enter new ones."""
        interface = self._find(address)
        for each in interface.family():
            each.manager.dead = False
        interface.resume()
        interface.station.plugged = True

    def owners(self, vip: str | IPAddress) -> list[str]:
        """The interfaces that hold an address now, each by its own first address."""
        address = parse_address(vip, "address")
        return [
            interface.station.name for interface in self._names.values() if interface.holds(address)
        ]

    def owner(self, vip: str | IPAddress) -> str | None:
        """The interface that holds an address now, or ``None``.

        :raises VRRPKitError: several do; see :meth:`owners`.
        """
        owners = self.owners(vip)
        if len(owners) > 1:
            raise VRRPKitError(f"{vip} is held by {', '.join(owners)} at the same time")
        return owners[0] if owners else None

    def _find(self, address: str) -> MemoryInterface:
        found = self._names.get(address)
        if found is None:
            found = self._interfaces.get(_own(address).ip)
        if found is None:
            raise InterfaceMissing(address)
        return found

    def _station(self, address: str) -> str:
        return self._find(address).station.name

    def _set_plugged(self, address: str, *, plugged: bool) -> None:
        interface = self._find(address)
        interface.station.plugged = plugged
        interface.set_carrier(plugged)


def _own(text: str) -> IPInterface:
    if "/" not in text:
        address = parse_address(text, "address")
        return ip_interface((address, PREFIXES[address.version]))
    try:
        return ip_interface(text)
    except ValueError as problem:
        raise ConfigError(f"{text!r} is not of the form 'ADDRESS/PREFIX': {problem}") from None


def _link_local(mac: bytes) -> IPInterface:
    host = bytes([mac[0] ^ 2, *mac[1:3], 0xFF, 0xFE, *mac[3:]])
    return ip_interface((IPv6Address(b"\xfe\x80" + bytes(6) + host), 64))
