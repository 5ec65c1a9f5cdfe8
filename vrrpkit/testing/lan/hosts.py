"""The machines of a :class:`vrrpkit.testing.Lan`, and the routers that run on them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator, Sequence
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import TypeAlias

import attrs

from vrrpkit.configured import described, from_keepalived
from vrrpkit.host.base import Interface
from vrrpkit.host.memory.bus import MemoryBus, MemoryInterface
from vrrpkit.publishing import EventsLost
from vrrpkit.testing.lan.timeline import LanEvent, MachineStep, Noted, Started
from vrrpkit.values import VIP, IPAddress
from vrrpkit.vrrp.config import VRRPInstanceConfig
from vrrpkit.vrrp.instance import VRRPInstance, VRRPInstanceArguments
from vrrpkit.vrrp.protocol.effects import Effect
from vrrpkit.vrrp.protocol.events import (
    AdvertAnomaly,
    AdvertRejected,
    Anomaly,
    ClockSkew,
    ForeignAddress,
    SendFailed,
)
from vrrpkit.vrrp.protocol.inputs import Input, Refreshed
from vrrpkit.vrrp.protocol.machine import Machine
from vrrpkit.vrrp.receiver import InstanceRecorder

__all__ = ["LanRouterArguments", "Log", "Probe", "RouterHost", "RouterPlace", "own_address"]

Log: TypeAlias = Callable[[str | None, LanEvent], None]
"""Writes down what happened to whom."""

_SPARE: dict[int, IPv4Network | IPv6Network] = {
    4: IPv4Network("198.51.100.0/24"),
    6: IPv6Network("2001:db8:0:1::/64"),
}
_ROOM = 8
"""Addresses that a prefix must have to be of use for the routers' own."""


@attrs.frozen
class LanRouterArguments(VRRPInstanceArguments):
    """What :meth:`vrrpkit.testing.Lan.router` takes: what describes a router, but for its
    interface, which the Lan makes.

    :param name: what this Lan and the router's events call it.
    :param vrid: virtual router identifier, 1 to 255.
    :param address: the address of its host, ``"192.0.2.1/24"``; by default a free one in the
        prefix of the first virtual address, counted upwards (an owner's is that address).
    :param on: share the host of this router, which must have another VRID.
    """

    place: str | Interface = attrs.field(init=False, eq=False, repr=False)
    vrid: int = attrs.field(default=51, kw_only=True, metadata=from_keepalived("virtual_router_id"))
    address: str | None = attrs.field(default=None, kw_only=True)
    on: str | None = attrs.field(default=None, kw_only=True)

    def __attrs_post_init__(self) -> None:
        object.__setattr__(self, "place", "lan")
        super().__attrs_post_init__()


class Probe:
    """Watches one run of one router, for the Lan and for the recorder that a user attached."""

    def __init__(self, router: str, log: Log, recorder: InstanceRecorder | None) -> None:
        self.dead = False
        """A dead process does nothing that anybody could see."""
        self._router = router
        self._log = log
        self._recorder = recorder

    def record(self, machine: Machine, event: Input, now: float, effects: Sequence[Effect]) -> None:
        """See :class:`vrrpkit.vrrp.driver.InstanceRecorder`."""
        if self.dead:
            return
        if not isinstance(event, Refreshed):
            step = MachineStep(event, tuple(effects), machine.state, machine.priority)
            self._log(self._router, step)
        if self._recorder is not None:
            self._recorder.record(machine, event, now, effects)

    def note(self, notice: object) -> None:
        """Write down what only the driver publishes: the rest came with :meth:`record`."""
        by_machine = (
            isinstance(notice, AdvertAnomaly) and notice.anomaly is Anomaly.DUPLICATE_ADDRESS
        )
        if self.dead or by_machine:
            return
        if isinstance(
            notice,
            AdvertRejected | AdvertAnomaly | SendFailed | ClockSkew | ForeignAddress | EventsLost,
        ):
            self._log(self._router, Noted(notice))


@attrs.define(eq=False)
class RouterHost:
    """One machine: an interface, and what befell it."""

    name: str
    interface: MemoryInterface
    places: list[RouterPlace] = attrs.Factory(list["RouterPlace"])
    plugged: bool = True
    paused: bool = False
    crashed: bool = False
    killed: bool = False
    held: frozenset[IPAddress] = frozenset()
    """What routers had put on it when it was last looked at."""
    foreign: frozenset[IPAddress] = frozenset()
    """What else was on it then."""
    _watched: set[MemoryInterface] = attrs.Factory(set[MemoryInterface])

    @property
    def station(self) -> str:
        """What the bus calls it."""
        return self.interface.station.name

    def look(
        self, changed: Callable[[], None]
    ) -> tuple[frozenset[IPAddress], frozenset[IPAddress]]:
        """The addresses that routers have put on it, and the others; ``changed`` is called when
        they change."""
        held: set[IPAddress] = set()
        foreign: set[IPAddress] = set()
        for interface in self.interface.machine():
            if interface not in self._watched:
                self._watched.add(interface)
                interface.watch_addresses(changed)
            for address, entry in interface.manager.table.items():
                (held if entry.ours else foreign).add(address.ip)
        return frozenset(held), frozenset(foreign)

    def die(self) -> None:
        """Kill the process: it can do nothing any more, and what it did stays."""
        self.killed = True
        self.interface.station.plugged = False
        for interface in self.interface.machine():
            interface.manager.dead = True
            interface.manager.running.set()

    def revive(self, bus: MemoryBus) -> None:
        """Get a host ready for new processes, once the old ones are gone."""
        if self.crashed:
            bus.restart(self.station)
        if self.killed:
            for interface in self.interface.machine():
                interface.manager.dead = False
        if self.crashed or self.killed:
            self.interface.station.plugged = self.plugged
        self.crashed = self.killed = False


class RouterPlace:
    """A router by name, through all its runs."""

    def __init__(self, host: RouterHost, arguments: LanRouterArguments, log: Log) -> None:
        self.name = arguments.name
        self.host = host
        self._log = log
        self._arguments = arguments
        self._task: asyncio.Task[None] | None = None
        self._ending = False
        self.probe, self.instance = self._build()

    def _build(self) -> tuple[Probe, VRRPInstance]:
        probe = Probe(self.name, self._log, self._arguments.recorder)
        instance = described(
            VRRPInstance, self._arguments, interface=self.host.interface, recorder=probe
        )
        return probe, instance

    @property
    def config(self) -> VRRPInstanceConfig:
        """The router's description."""
        return self.instance.config

    @property
    def runs(self) -> bool:
        """Whether it was started and nobody has ended it."""
        return self._task is not None and not self._ending and not self._task.done()

    @property
    def takes_part(self) -> bool:
        """Whether its process can act now."""
        return self.runs and not self.host.paused

    def start(self, tasks: asyncio.TaskGroup, bus: MemoryBus) -> VRRPInstance:
        """Begin a run; one that is ending ends first."""
        if self._task is not None:
            self.probe, self.instance = self._build()
        before = [place._task for place in self.host.places if place._task and not place.runs]
        self._ending = False
        self._task = tasks.create_task(
            self._run(self.instance, self.probe, before, bus), name=f"vrrpkit Lan: {self.name}"
        )
        return self.instance

    async def _run(
        self,
        instance: VRRPInstance,
        probe: Probe,
        before: Sequence[asyncio.Task[None]],
        bus: MemoryBus,
    ) -> None:
        if before:
            await asyncio.wait(before)
        self.host.revive(bus)
        events = instance.events()
        self._log(self.name, Started(self.host.name, instance.config))
        async with instance:
            async for notice in events:
                probe.note(notice)

    def end(self) -> asyncio.Task[None] | None:
        """Have the run leave; returns what to wait for."""
        self._ending = True
        if self._task is not None:
            self._task.cancel()
        return self._task


def own_address(vip: VIP, owner: bool, taken: Iterable[IPAddress]) -> str:
    """An address of its own for the interface of a router that serves ``vip``."""
    barred = frozenset(taken)
    if owner:
        return str(vip)
    for address in _candidates(vip):
        if address not in barred:
            return f"{address}/{_network(vip).prefixlen}"
    raise AssertionError("the spare networks have room for more routers than memory")


def _network(vip: VIP) -> IPv4Network | IPv6Network:
    network = ip_network(vip.interface.network)
    small = network.num_addresses < _ROOM or vip.address.is_link_local
    return _SPARE[vip.family] if small else network


def _candidates(vip: VIP) -> Iterator[IPAddress]:
    return iter(_network(vip).hosts())
