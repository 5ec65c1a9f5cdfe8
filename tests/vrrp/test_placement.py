"""When the addresses of a new MASTER are there, and who waits for it."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Awaitable, Callable
from ipaddress import ip_address
from typing import Any

import pytest

from vrrp.routers import VIP as ADDRESS, became, router
from vrrpkit import (
    GroupTransition,
    MemoryBus,
    NotifyFunction,
    State,
    SyncGroup,
    Transition,
    VRRPInstance,
)
from vrrpkit.events import AddressesInPlace
from vrrpkit.testing import virtual_time
from vrrpkit.vrrp.placement import PATIENCE

BACKUP, MASTER, FAULT, INIT = State.BACKUP, State.MASTER, State.FAULT, State.INIT


class Told:
    """A hook that notes states, with the time and whether the address was there."""

    def __init__(self, bus: MemoryBus) -> None:
        self.bus = bus
        self.heard: list[tuple[State, float, bool]] = []

    def __call__(self, event: object) -> Awaitable[None] | None:
        if isinstance(event, Transition | GroupTransition):
            there = self.bus.owner(ADDRESS) is not None
            self.heard.append((event.state, asyncio.get_running_loop().time(), there))
        return None

    @property
    def states(self) -> list[State]:
        return [state for state, _, _ in self.heard]


def started(bus: MemoryBus, delay: float, **options: Any) -> tuple[VRRPInstance, Told, list[float]]:
    """A router whose host takes ``delay`` seconds for each request; when it became MASTER."""
    bus.interface("192.0.2.1").manager.delay = delay
    told = Told(bus)
    a = router(bus, notify=[NotifyFunction(told)], **options)
    moments: list[float] = []

    def note(transition: Transition) -> None:
        if transition.state is MASTER:
            moments.append(transition.at)

    a.on_transition(note)
    return a, told, moments


async def now(after: Callable[[], Awaitable[object]]) -> float:
    await after()
    return asyncio.get_running_loop().time()


@virtual_time()
async def test_master_is_told_when_the_addresses_are_there() -> None:
    bus = MemoryBus()
    a, told, moments = started(bus, 0.3)
    events: list[object] = []
    a._hub.subscribe(events.append)  # pyright: ignore[reportPrivateUsage]
    async with a:
        at = await now(lambda: a.wait_for(MASTER))
        assert at - moments[0] == pytest.approx(0.3)
        assert bus.owner(ADDRESS) == "192.0.2.1"
        kinds = [type(each) for each in events if isinstance(each, Transition | AddressesInPlace)]
        assert kinds == [Transition, Transition, AddressesInPlace]
        await asyncio.sleep(0)
        assert told.heard[1] == (MASTER, at, True)
        # The second time there is nothing to wait for.
        assert await now(lambda: a.wait_for(MASTER)) == at
        # Nor is it told again when one is put back.
        bus.interface("192.0.2.1").delete(ADDRESS)
        await asyncio.sleep(2)
        assert len([each for each in events if isinstance(each, AddressesInPlace)]) == 1


@virtual_time()
async def test_nobody_waits_longer_than_a_second() -> None:
    bus = MemoryBus()
    a, told, moments = started(bus, 2.5)
    async with a:
        assert await now(lambda: a.wait_for(MASTER)) - moments[0] == pytest.approx(PATIENCE)
        await asyncio.sleep(0)
        assert told.states == [BACKUP, MASTER] and not told.heard[1][2]
        in_place = await a._hub.wait_for(  # pyright: ignore[reportPrivateUsage]
            lambda event: isinstance(event, AddressesInPlace)
        )
        assert in_place.at - moments[0] == pytest.approx(2.5)


@virtual_time()
async def test_a_refusal_ends_it() -> None:
    bus = MemoryBus()
    a, told, moments = started(bus, 0.2)
    bus.interface("192.0.2.1").manager.failures[ip_address(ADDRESS)] = OSError(errno.ENOSPC, "No")
    async with a:
        assert await a.wait_for(MASTER) is MASTER
        assert asyncio.get_running_loop().time() - moments[0] == pytest.approx(0.2)
        assert a.state is FAULT
        await asyncio.sleep(0.01)
        # A hook of all states hears the newest, and this one has gone on already.
        assert told.states[-1] is FAULT


@virtual_time()
async def test_leaving_ends_it_and_the_order_is_kept() -> None:
    bus = MemoryBus()
    heard: list[State] = []
    a = router(bus)
    bus.interface("192.0.2.1").manager.delay = 0.5

    class Noting:
        """Notes what it is told at once, as a lane would not."""

        def attach(self, subject: object) -> Noting:
            return self

        def tell(self, event: object) -> None:
            if isinstance(event, Transition):
                heard.append(event.state)

        async def close(self) -> None: ...

        def cancel(self) -> None: ...

    a.add_notifier(Noting())
    async with a:
        waiting = asyncio.create_task(a.wait_for(MASTER))
        await became(a, MASTER)
        assert heard == [BACKUP]
        late: list[State] = []

        class Late(Noting):
            def tell(self, event: object) -> None:
                if isinstance(event, Transition):
                    late.append(event.state)

        # What is kept back is told to it once.
        a.add_notifier(Late())
        assert late == []
        a.demote(5)
        assert (heard, late) == ([BACKUP, MASTER, BACKUP], [MASTER, BACKUP])
        assert await waiting is MASTER
    assert heard == [BACKUP, MASTER, BACKUP, INIT]


@virtual_time()
async def test_the_end_of_a_router_is_told_in_order() -> None:
    bus = MemoryBus()
    a, told, _ = started(bus, 0.5)
    async with a:
        await became(a, MASTER)
    assert told.states[-1] is INIT


@virtual_time()
async def test_a_group_waits_for_all_its_members() -> None:
    bus, other = MemoryBus(), MemoryBus()
    told = Told(other)
    one = router(bus, "one")
    two = router(other, "two", "192.0.2.2")
    other.interface("192.0.2.2").manager.delay = 0.4
    async with SyncGroup("both", [one, two], notify=[NotifyFunction(told)]) as both:
        moments: list[float] = []
        both.on_transition(lambda transition: moments.append(transition.at))
        at = await now(lambda: both.wait_for(MASTER))
        assert at - moments[-1] == pytest.approx(0.4)
        assert (bus.owner(ADDRESS), other.owner(ADDRESS)) == ("192.0.2.1", "192.0.2.2")
        await asyncio.sleep(0)
        assert told.heard[-1] == (MASTER, at, True)
