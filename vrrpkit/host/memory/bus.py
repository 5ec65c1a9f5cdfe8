"""Network interfaces in memory: everything that a virtual router does to a host, without a host.

::

    bus = MemoryBus(seed=7, loss=0.1)
    a, b = bus.interface("192.0.2.1"), bus.interface("192.0.2.2")
    bus.unplug("192.0.2.1")

Each interface stands for a machine of its own, so that it can also be paused and crash.
"""

from __future__ import annotations

from collections import deque
from ipaddress import IPv6Address, ip_interface

from vrrpkit.errors import ConfigError, InterfaceMissing, VRRPKitError
from vrrpkit.host.memory.interface import MemoryInterface, own_address
from vrrpkit.host.memory.resources import IPInterface
from vrrpkit.transport.memory import RECORD, Conditions, Crossing, Segment
from vrrpkit.values import IPAddress, parse_address

__all__ = ["MemoryBus", "MemoryInterface"]


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
        own = [own_address(each) for each in (address, *more)]
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
        interface.manager.taken = lambda address: self._taken(interface, address)
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
        for each in interface.machine():
            each.manager.die()
        interface.routing.die()

    def restart(self, address: str) -> None:
        """Give the power back after :meth:`crash`, once its routers were left; enter new ones."""
        interface = self._find(address)
        for each in interface.machine():
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

    def _taken(self, interface: MemoryInterface, address: IPAddress) -> bool:
        """Whether another interface answers for an address, as this one would find out."""
        return interface.station.plugged and any(
            other.station.plugged and other.holds(address)
            for other in self._names.values()
            if other is not interface
        )

    def _find(self, address: str) -> MemoryInterface:
        found = self._names.get(address)
        if found is None:
            found = self._interfaces.get(own_address(address).ip)
        if found is None:
            raise InterfaceMissing(address)
        return found

    def _station(self, address: str) -> str:
        return self._find(address).station.name

    def _set_plugged(self, address: str, *, plugged: bool) -> None:
        interface = self._find(address)
        interface.station.plugged = plugged
        interface.set_carrier(plugged)


def _link_local(mac: bytes) -> IPInterface:
    host = bytes([mac[0] ^ 2, *mac[1:3], 0xFF, 0xFE, *mac[3:]])
    return ip_interface((IPv6Address(b"\xfe\x80" + bytes(6) + host), 64))
