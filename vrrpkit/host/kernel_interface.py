"""A network interface of this machine, shared by the virtual routers on it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection, Sequence
from ipaddress import ip_interface
from typing import Protocol
from weakref import WeakKeyDictionary

import attrs

from vrrpkit.errors import Closed, HostError
from vrrpkit.host.addresses.kernel import GONE, KernelAddresses, key_of
from vrrpkit.host.addresses.reconciler import Reconciler
from vrrpkit.host.announce.announcer import Announcer
from vrrpkit.host.announce.frames import FrameSender
from vrrpkit.host.base import (
    AddressClaim,
    AddressListener,
    Announcements,
    FilterRule,
    Interface,
    Link,
    RouteClaim,
)
from vrrpkit.host.firewall.filters import FilteredAddress
from vrrpkit.host.links import records
from vrrpkit.host.links.macvlan import Macvlan, default_name, virtual_mac
from vrrpkit.host.links.monitor import Removal
from vrrpkit.host.links.records import AddressKey, AddressRecord
from vrrpkit.host.links.requests import delete_found
from vrrpkit.host.links.solicited import SolicitedNodes
from vrrpkit.host.liveness import speaks_vrrp
from vrrpkit.host.resources import Resources
from vrrpkit.routes.route import Entry, Route, Rule
from vrrpkit.values import VIP, IPAddress

__all__ = ["KernelInterface"]

log = logging.getLogger(__name__)


class InterfaceOwner(Protocol):
    """What an interface asks of the host that it belongs to."""

    def acquire(self, interface: KernelInterface) -> Resources:
        """Open everything, unless it is open, on behalf of an interface.

        :raises PermissionMissing: a capability is missing.
        :raises HostError: there is no such namespace.
        """
        ...

    def release(self, interface: KernelInterface) -> None:
        """End what :meth:`acquire` began."""

    def sweep(self) -> None:
        """Have what a killed run left behind removed, unless that was begun."""

    def interface(self, name: str) -> KernelInterface:
        """Another interface of the same host."""
        ...


@attrs.frozen(eq=False)
class _Open:
    """What an interface has while it is open."""

    resources: Resources
    addresses: KernelAddresses
    frames: FrameSender
    announcer: Announcer
    reconciler: Reconciler


class KernelInterface(Interface):
    """One network interface by name; made by :meth:`vrrpkit.host.host.Host.interface`.

    There need not be an interface of that name: it may come later, and go.
    """

    def __init__(self, host: InterfaceOwner, name: str) -> None:
        super().__init__(name)
        self._host = host
        self._users = 0
        self._open: _Open | None = None
        self._lock = asyncio.Lock()
        self._holds: WeakKeyDictionary[AddressClaim, tuple[VIP, ...]] = WeakKeyDictionary()
        self._macvlan: Macvlan | None = None
        self._silence: FilterRule | None = None
        self._carried: dict[str, KernelInterface] = {}

    # --- life

    async def open(self) -> None:
        async with self._lock:
            if self._open is None:
                self._open = self._start(self._host.acquire(self))
            self._users += 1

    def _start(self, resources: Resources) -> _Open:
        self.deadlines = resources.deadlines
        self.transport = resources.transport
        addresses = KernelAddresses(self.name, resources.netlink, resources.monitor)
        frames = FrameSender(
            resources.namespace,
            addresses.device,
            resources.monitor.record,
            addresses.tentative,
            lambda name: resources.sysctls.read(f"ipv6/conf/{name}/forwarding") == 1,
        )
        announcer = Announcer(resources.deadlines, frames.send)
        reconciler = Reconciler(addresses, announcer, resources.deadlines)
        return _Open(resources, addresses, frames, announcer, reconciler)

    async def close(self) -> None:
        async with self._lock:
            if self._open is None:
                return
            self._users -= 1
            if self._users:
                return
            opened = self._open
            try:
                await opened.reconciler.close()
            finally:
                silences = self._stop(opened)
                # Now that there is nobody left to keep silent.
                for silence in silences:
                    await silence.close()

    def _stop(self, opened: _Open) -> list[FilterRule]:
        self._open = None
        opened.announcer.close()
        opened.frames.close()
        unused = [each for each in self._carried.values() if each._open is None]
        self._carried.clear()
        silences = [each._drop_macvlan() for each in (*unused, self)]
        self._host.release(self)
        return [silence for silence in silences if silence is not None]

    def _drop_macvlan(self) -> FilterRule | None:
        if self._macvlan is not None:
            self._macvlan.close()
            self._macvlan = None
        silence, self._silence = self._silence, None
        return silence

    @property
    def _required(self) -> _Open:
        if self._open is None:
            raise Closed(f"interface {self.name} is not open; 'await interface.open()' first")
        return self._open

    # --- the link

    @property
    def link(self) -> Link | None:
        return None if self._open is None else self._open.resources.monitor.link(self.name)

    def device(self, name: str) -> Interface:
        return self if name == self.name else self._host.interface(name)

    def watch(self, changed: Callable[[], None]) -> Callable[[], None]:
        return self._required.resources.monitor.watch(self.name, changed)

    def watch_machine(self, changed: Callable[[], None]) -> Callable[[], None]:
        # Imported at need: most routers are never refused anything.
        from vrrpkit.host.changes import HostChanges

        resources = self._required.resources
        return HostChanges(
            resources.namespace, resources.monitor, resources.deadlines, changed
        ).close

    async def virtual(self, vrid: int, family: int, name: str | None) -> Interface:
        resources = self._required.resources
        mac = virtual_mac(vrid, family)
        name = default_name(vrid, family) if name is None else name
        interface = self._host.interface(name)
        async with interface._lock:
            macvlan = interface._macvlan
            if macvlan is None:
                await interface._carry(resources, self.name, mac)
            elif (macvlan.parent, macvlan.mac) != (self.name, mac):
                raise HostError(
                    f"{name} is in use on {macvlan.parent} with MAC {macvlan.mac.hex(':')}; choose "
                    'another name with virtual_mac="NAME"'
                )
            self._carried[name] = interface
        return interface

    async def _carry(self, resources: Resources, parent: str, mac: bytes) -> None:
        # Before there is anything to say.
        silence = await resources.packet_filter.silence(self.name)
        macvlan = Macvlan(
            parent,
            self.name,
            mac,
            netlink=resources.netlink,
            monitor=resources.monitor,
            sysctls=resources.sysctls,
            deadlines=resources.deadlines,
            solicited=SolicitedNodes(resources.namespace.socket),
        )
        try:
            macvlan.ensure()
        except BaseException:
            macvlan.close()
            await silence.close()
            raise
        self._macvlan, self._silence = macvlan, silence

    @property
    def carried(self) -> bool:
        """Whether it is one with a virtual MAC address that was made, or adopted, here."""
        return self._macvlan is not None

    async def refuse(self, vips: Sequence[VIP]) -> FilterRule:
        return await self._required.resources.packet_filter.refuse(
            FilteredAddress(vip.address, vip.dev or self.name) for vip in vips
        )

    # --- addresses

    async def hold(
        self,
        vips: Sequence[VIP],
        announcements: Announcements,
        listener: AddressListener,
        lease: float | None = None,
    ) -> AddressClaim:
        opened = self._required
        await opened.resources.packet_filter.sweep()
        kept = [vip for held in list(self._holds.values()) for vip in held]
        opened.addresses.keep([*kept, *vips])
        opened.frames.keep([*kept, *vips])
        opened.addresses.prepare(vips, lease)
        opened.frames.prepare(vips)
        if self._macvlan is not None:
            self._macvlan.solicited.want(
                vip.address for vip in (*kept, *vips) if vip.dev in (None, self.name)
            )
        self._advise(vips)
        opened.resources.routing.sweep()
        self._host.sweep()
        hold = await opened.reconciler.hold(vips, announcements, listener, lease)
        self._holds[hold] = tuple(vips)
        return hold

    def remove_abandoned(self, addresses: Collection[IPAddress]) -> None:
        resources = self._required.resources
        wanted = {address.packed for address in addresses}
        left = [
            record
            for record in resources.monitor.addresses(self.name).values()
            if record.protocol == records.KEEPALIVED and record.key[0] in wanted
        ]
        if not left:
            return
        words = ", ".join(map(str, left))
        if speaks_vrrp(resources.namespace):
            log.info("%s on %s may be those of a keepalived that lives", words, self.name)
            return
        log.warning("removing %s from %s, left behind by keepalived", words, self.name)
        for record in left:
            self._remove(record)

    def remove_foreign(self, address: IPAddress, prefix: int) -> OSError | None:
        key = (address.packed, prefix)
        record = self._required.resources.monitor.addresses(self.name).get(key)
        return None if record is None else self._remove(record)

    def _remove(self, record: AddressRecord) -> OSError | None:
        resources = self._required.resources
        with resources.monitor.removing([(record.ifindex, record.key)]):
            (problem,) = resources.netlink.exchange([delete_found(record)])
        if problem is None or problem.errno in GONE:
            return None
        log.warning("%s stays on %s: %s", record, self.name, problem)
        return problem

    def hold_routes(
        self, routes: Sequence[Route], rules: Sequence[Rule], lost: Callable[[Entry], None]
    ) -> RouteClaim:
        routing = self._required.resources.routing
        self._host.sweep()
        return routing.hold(routes, rules, lost)

    def held(self, name: str) -> set[AddressKey]:
        """The addresses on the interface ``name`` that virtual routers here hold."""
        return {
            key_of(vip)
            for held in list(self._holds.values())
            for vip in held
            if (vip.dev or self.name) == name
        }

    def removed(self, removals: Sequence[Removal]) -> None:
        """Learn from the link monitor that addresses are gone, on whatever interface."""
        if self._open is None:
            return
        devices = {vip.dev for vips in list(self._holds.values()) for vip in vips}
        for removal in removals:
            name, (octets, prefix) = removal.name, removal.key
            for dev in {None, name} if name == self.name else {name}:
                if dev in devices:
                    address, own = records.to_address(octets), bool(removal.taken_along)
                    self._open.reconciler.removed(address, prefix, dev, own=own)

    def detected(self, name: str, key: AddressKey, usable: bool) -> None:
        """Learn what duplicate address detection has found, on whatever interface."""
        if self._open is None:
            return
        octets, prefix = key
        for dev in {None, name} if name == self.name else {name}:
            self._open.reconciler.detected(records.to_address(octets), prefix, dev, usable=usable)

    def _advise(self, vips: Sequence[VIP]) -> None:
        resources = self._required.resources
        for name in {vip.dev or self.name for vip in vips}:
            link = resources.monitor.link(name)
            own = () if link is None else link.addresses
            networks = {
                ip_interface(address).network: address[0]
                for address in own
                if address[0].version == 4
            }
            inside = [
                str(vip)
                for vip in vips
                if (vip.dev or self.name) == name
                and vip.family == 4
                and vip.interface.network in networks
                and vip.address not in networks.values()
            ]
            if not inside:
                continue
            places = ("ipv4/conf/all", f"ipv4/conf/{name}")
            log.warning(
                "%s on %s: in the prefix of the interface's own address; write /32, so that the "
                "host never takes it for a source address%s",
                ", ".join(inside),
                name,
                ""
                if any(resources.sysctls.read(f"{place}/promote_secondaries") for place in places)
                else " and it stays when the interface's own address goes (sysctl "
                "promote_secondaries is 0)",
            )
