"""A link with virtual routers on it, to which anything can happen.

::

    @virtual_time(seed=7)
    async def test_writer_follows_the_vip():
        async with Lan() as lan:
            a = lan.router("a", vips=["192.0.2.10/24"], priority=150)
            b = lan.router("b", vips=["192.0.2.10/24"])
            await lan.settle()
            lan.crash("a")
            await asyncio.sleep(3.7)
            assert lan.owner("192.0.2.10") == "b"
            lan.check()

It works under real time too, only slowly.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from types import TracebackType
from typing import Self

import attrs

from vrrpkit.configured import configured_by
from vrrpkit.errors import ConfigError, VRRPKitError
from vrrpkit.host.memory.bus import MemoryBus, MemoryInterface
from vrrpkit.testing.lan.hosts import LanRouterArguments, RouterHost, RouterPlace, own_address
from vrrpkit.testing.lan.invariants import RECONCILE, TOLERANCE, InvariantBroken, violations
from vrrpkit.testing.lan.journal import LanLog
from vrrpkit.testing.lan.settling import settled, slowest_takeover
from vrrpkit.testing.lan.timeline import (
    Conditioned,
    Crashed,
    Cut,
    Healed,
    Killed,
    Paused,
    Plugged,
    Resumed,
    Timeline,
    Unplugged,
)
from vrrpkit.testing.virtual import VirtualLoop
from vrrpkit.transport.memory import Conditions
from vrrpkit.values import VIP, IPAddress, State, parse_address
from vrrpkit.vrrp.instance import VRRPInstance

__all__ = ["Lan"]

RECORD = 1_000_000
"""Messages that are remembered: the limits of the invariants depend on what was lost."""

PATIENCE = 5
"""For how many times the slowest possible takeover :meth:`Lan.settle` waits."""

TURNS = 5
"""Turns of the loop until something that was said has reached a router."""


class Lan:
    """One link in memory with any number of virtual routers, each on a host of its own.

    Leaving it leaves every router in an orderly way. A bug in a router ends the ``async with`` at
    once and is raised from it.

    :param seed: seeds everything random on the link. By default it follows from the seed of the
        virtual loop.
    :param loss: probability that an advert does not arrive at a host, 0 to 1.
    :param delay: seconds that each takes.
    :param jitter: up to so many seconds more.
    :param duplication: probability that one arrives twice, 0 to 1.
    :param reordering: probability that one is overtaken by later ones, 0 to 1.
    :raises ConfigError: a value is out of range.
    """

    def __init__(
        self,
        *,
        seed: int | None = None,
        loss: float = 0.0,
        delay: float = 0.0,
        jitter: float = 0.0,
        duplication: float = 0.0,
        reordering: float = 0.0,
    ) -> None:
        loop = asyncio.get_running_loop()
        if seed is None:
            seed = loop.random.getrandbits(32) if isinstance(loop, VirtualLoop) else 0
        self.bus = MemoryBus(
            seed=seed,
            loss=loss,
            delay=delay,
            jitter=jitter,
            duplication=duplication,
            reordering=reordering,
            record=RECORD,
        )
        """The link itself. What is done to it directly is unknown to :meth:`check`."""
        self._journal = LanLog(self.bus)
        self._log = self._journal.log
        self._hosts = self._journal.hosts
        self._places: dict[str, RouterPlace] = {}
        self._tasks = asyncio.TaskGroup()
        self._open = False
        if self.bus.segment.conditions != Conditions():
            self._condition(self.bus.segment.conditions)

    async def __aenter__(self) -> Self:
        await self._tasks.__aenter__()
        self._open = True
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._open = False
        for host in self._hosts.values():
            if host.paused:
                self._resume(host)
        for place in self._places.values():
            place.end()
        try:
            # What the body raised shall not be wrapped in a group; a cancellation may be the
            # group's own.
            if isinstance(error, asyncio.CancelledError):
                await self._tasks.__aexit__(kind, error, trace)
            else:
                await self._tasks.__aexit__(None, None, None)
        except BaseExceptionGroup as failures:
            if len(failures.exceptions) == 1:
                raise failures.exceptions[0] from None
            raise

    # --- routers ---------------------------------------------------------------------------------

    @configured_by(LanRouterArguments)
    def router(self, arguments: LanRouterArguments) -> VRRPInstance:
        """Add a router and start it; it runs once the caller awaits anything.

        :raises VRRPKitError: the Lan was not entered, or was left.
        """
        name, on = arguments.name, arguments.on
        if not self._open:
            raise VRRPKitError("a Lan runs routers only inside of its 'async with'")
        if name in self._places:
            raise ConfigError(f"there is a router {name!r} already; start() starts it again")
        if on is not None:
            host = self._host(on)
        else:
            host = self._new_host(name, arguments.vips, arguments.address, arguments.owner)
        place = RouterPlace(host, arguments, self._log)
        self._hosts[host.name] = host
        host.places.append(place)
        self._places[name] = place
        return place.start(self._tasks, self.bus)

    def _new_host(
        self, name: str, vips: Sequence[VIP], address: str | None, owner: bool
    ) -> RouterHost:
        taken = {vip.address for vip in vips}
        for place in self._places.values():
            taken |= place.config.all_addresses
        for host in self._hosts.values():
            taken |= {entry.ip for entry in host.interface.manager.table}
        if address is None:
            if not vips:
                raise ConfigError("vips is empty: name at least one, such as '192.0.2.10/24'")
            address = own_address(vips[0], owner, taken)
        interface = self.bus.interface(address, name=name)
        if any(host.interface is interface for host in self._hosts.values()):
            raise ConfigError(f"{address} is the address of another host; to share it, use on=")
        return RouterHost(name, interface)

    def start(self, name: str) -> VRRPInstance:
        """Start a router again, with the same options, after :meth:`stop`, :meth:`crash` or
        :meth:`kill`; a crashed host gets its power back. Returns the new instance.

        :raises VRRPKitError: it runs already.
        """
        place = self._place(name)
        if place.runs:
            raise VRRPKitError(f"{name} runs already")
        return place.start(self._tasks, self.bus)

    async def stop(self, name: str) -> None:
        """Have a router leave in an orderly way: it sends priority 0 and removes its addresses.
        Returns when that is done; a paused host is resumed first."""
        place = self._place(name)
        if place.host.paused:
            self.resume(name)
        task = place.end()
        if task is not None and not task.done():
            await asyncio.wait({task})

    def crash(self, name: str) -> None:
        """Take the power from a router's host: nothing is said, and its addresses are gone with it.
        Its instances end: what waits for them gets ``Closed``."""
        host = self._host(name)
        self._log(host.name, Crashed())
        self._dead(host)
        host.crashed = True
        self.bus.crash(host.station)
        self._journal.look()

    def kill(self, name: str) -> None:
        """Kill the process on a router's host with SIGKILL: nothing is said, and its addresses stay
        where they are, until their lease ends or the router is started again."""
        host = self._host(name)
        self._log(host.name, Killed())
        self._dead(host)
        host.die()

    def _dead(self, host: RouterHost) -> None:
        host.paused = False
        for place in host.places:
            place.probe.dead = True
            place.end()

    def pause(self, name: str) -> None:
        """Stop the process on a router's host, as SIGSTOP, or a hypervisor, does. What arrives
        waits; the addresses stay; timers are late."""
        host = self._host(name)
        if not host.paused and any(place.runs for place in host.places):
            self._log(host.name, Paused())
            host.paused = True
            self.bus.pause(host.station)

    def resume(self, name: str) -> None:
        """Let it go on."""
        host = self._host(name)
        if host.paused:
            self._resume(host)

    def _resume(self, host: RouterHost) -> None:
        self._log(host.name, Resumed())
        host.paused = False
        self.bus.resume(host.station)

    # --- the link --------------------------------------------------------------------------------

    def unplug(self, name: str) -> None:
        """Pull the cable of a router's host: it has no carrier, and knows it."""
        self._plug(name, plugged=False)

    def plug(self, name: str) -> None:
        """Put it back."""
        self._plug(name, plugged=True)

    def _plug(self, name: str, *, plugged: bool) -> None:
        host = self._host(name)
        if host.plugged is plugged:
            return
        self._log(host.name, Plugged() if plugged else Unplugged())
        host.plugged = plugged
        if host.crashed or host.killed:
            host.interface.set_carrier(plugged)
        elif plugged:
            self.bus.plug(host.station)
        else:
            self.bus.unplug(host.station)

    def cut(self, a: str, b: str, *, one_way: bool = False) -> None:
        """Let nothing through from the host of ``a`` to that of ``b``, and back unless ``one_way``.
        Carriers stay up: nobody knows."""
        from_, to = self._host(a), self._host(b)
        self._log(from_.name, Cut(to.name, one_way))
        self.bus.cut(from_.station, to.station, one_way=one_way)

    def heal(self, a: str | None = None, b: str | None = None) -> None:
        """End the cuts between ``a`` and ``b``, those of ``a``, or all of them."""
        hosts = [None if name is None else self._host(name) for name in (a, b)]
        names = [None if host is None else host.name for host in hosts]
        self._log(names[0], Healed(names[1]))
        self.bus.heal(*(None if host is None else host.station for host in hosts))

    def lossy(self, probability: float) -> None:
        """Lose each advert with this probability, at each host on its own; 0 loses none."""
        self._condition(attrs.evolve(self.bus.segment.conditions, loss=probability))

    def slow(self, delay: float, jitter: float = 0.0) -> None:
        """Have each advert take ``delay`` seconds, and up to ``jitter`` more."""
        self._condition(attrs.evolve(self.bus.segment.conditions, delay=delay, jitter=jitter))

    def _condition(self, conditions: Conditions) -> None:
        self.bus.segment.conditions = conditions
        self._log(None, Conditioned(conditions.loss, _transit(conditions)))

    # --- what can be seen ------------------------------------------------------------------------

    def interface(self, name: str) -> MemoryInterface:
        """The network interface of a router's host, to put addresses on and to take them off."""
        return self._host(name).interface

    def instance(self, name: str) -> VRRPInstance:
        """The latest run of a router."""
        return self._place(name).instance

    def masters(self, vrid: int = 51) -> list[str]:
        """The routers of a group that are MASTER, as far as they know."""
        return [
            place.name
            for place in self._places.values()
            if place.config.vrid == vrid and place.instance.state is State.MASTER
        ]

    def owners(self, vip: str | IPAddress) -> list[str]:
        """The routers whose hosts have an address on their interfaces now."""
        address = parse_address(vip, "address")
        return [
            next((each.name for each in host.places if _serves(each, address)), host.name)
            for host in self._hosts.values()
            if host.interface.holds(address)
        ]

    def owner(self, vip: str | IPAddress) -> str | None:
        """The router whose host has an address on its interface now, or ``None``.

        :raises VRRPKitError: several have; see :meth:`owners`.
        """
        owners = self.owners(vip)
        if len(owners) > 1:
            raise VRRPKitError(f"{vip} is held by {', '.join(owners)} at the same time\n\n{self}")
        return owners[0] if owners else None

    def timeline(self) -> Timeline:
        """What happened so far; ``print()`` it, or ``print(lan)``."""
        return self._journal.timeline()

    def __str__(self) -> str:
        return str(self.timeline())

    def check(self, *, reconcile: float = RECONCILE, tolerance: float = TOLERANCE) -> None:
        """Hold everything that happened so far against the invariants.

        :param reconcile: seconds that a host may take to take addresses off.
        :param tolerance: seconds by which any limit may be missed; under real time, give the
            lateness of the event loop.
        :raises InvariantBroken: a rule was broken; the message ends with the timeline.
        """
        timeline = self.timeline()
        now = asyncio.get_running_loop().time()
        found = violations(timeline, now, reconcile=reconcile, tolerance=tolerance)
        if found:
            raise InvariantBroken(found, timeline)

    async def settle(self, limit: float | None = None) -> None:
        """Wait until every router is MASTER with its addresses in place, alone as far as it hears,
        or follows a MASTER that it will not preempt; or until nothing changes any more.

        :param limit: seconds; by default several times what the slowest takeover can take.
        :raises TimeoutError: routers still change; the message ends with the timeline.
        """
        # What the caller has just said to a tracker, say, first reaches the routers.
        for _ in range(TURNS):
            await asyncio.sleep(0)
        now = asyncio.get_running_loop().time
        journal, places = self._journal, self._places.values()
        quiet = slowest_takeover(places, _transit(self.bus.segment.conditions))
        end = now() + (PATIENCE * quiet if limit is None else limit)
        while not settled(places, journal.world) and now() < journal.moved + quiet:
            if now() >= end:
                raise TimeoutError(f"the routers do not settle\n\n{self}")
            journal.changed.clear()
            try:
                async with asyncio.timeout_at(min(journal.moved + quiet, end)):
                    await journal.changed.wait()
            except TimeoutError:
                continue

    def _place(self, name: str) -> RouterPlace:
        try:
            return self._places[name]
        except KeyError:
            known = ", ".join(self._places) or "none"
            raise ConfigError(f"there is no router {name!r} on this Lan, but {known}") from None

    def _host(self, name: str) -> RouterHost:
        return self._place(name).host


def _serves(place: RouterPlace, address: IPAddress) -> bool:
    return address in place.config.all_addresses


def _transit(conditions: Conditions) -> float:
    late = conditions.held_back if conditions.reordering > 0 else 0.0
    return conditions.delay + conditions.jitter + late
