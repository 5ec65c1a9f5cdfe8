"""Calls from another thread than that of the event loop are refused, with what to use."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from vrrpkit import BFDSession, MemoryBus, MemoryTable, SyncGroup, VirtualServer, VRRPInstance
from vrrpkit.errors import VRRPKitError


def nothing(_event: object) -> None:
    """A callback."""


async def refused(call: Callable[[], object]) -> None:
    def elsewhere() -> None:
        outcome = call()
        if asyncio.iscoroutine(outcome):
            outcome.send(None)

    with pytest.raises(VRRPKitError, match=r"is called from the thread .*call_soon_threadsafe"):
        await asyncio.to_thread(elsewhere)


def test_who_calls_from_another_thread_is_told_what_to_use() -> None:
    async def main() -> None:
        bus, other = MemoryBus(), MemoryBus()
        web = VRRPInstance("web", bus.interface("192.0.2.1"), vrid=51, vips=["192.0.2.10/24"])
        group = SyncGroup(
            "group",
            [
                VRRPInstance("a", bus.interface("192.0.2.2"), vrid=1, vips=["192.0.2.20/24"]),
                VRRPInstance("b", other.interface("10.0.0.2"), vrid=1, vips=["10.0.0.20/24"]),
            ],
        )
        pool = VirtualServer("192.0.2.10:80/tcp", servers=["10.0.0.1:80"], table=MemoryTable())
        bfd = BFDSession("192.0.2.9", interface=bus.interface("192.0.2.1"))
        async with web, group, pool, bfd:
            before = web.priority
            calls: list[Callable[[], object]] = [
                lambda: web.demote(5),
                web.promote,
                lambda: web.set_priority(7),
                web.announce,
                web.events,
                lambda: web.on_transition(nothing),
                lambda: group.demote(5),
                group.promote,
                group.events,
                lambda: group.on_transition(nothing),
                lambda: pool.disable("10.0.0.1:80"),
                lambda: pool.set_weight("10.0.0.1:80", 5),
                lambda: pool.drain("10.0.0.1:80"),
                lambda: pool.remove("10.0.0.1:80"),
                lambda: pool.add("10.0.0.2:80"),
                pool.wait_for_quorum,
                lambda: pool.on_result(nothing),
                bfd.admin_down,
                bfd.admin_up,
                lambda: bfd.set_timers(multiplier=4),
                lambda: bfd.on_lost(lambda: None),
                bfd.close,
            ]
            for call in calls:
                await refused(call)
            assert web.priority == before
            # To look is no deed.
            await asyncio.to_thread(lambda: (web.state, web.why_not_master(), pool.servers))
            # And so it goes.
            loop = asyncio.get_running_loop()
            await asyncio.to_thread(lambda: loop.call_soon_threadsafe(web.set_priority, 7))
            await asyncio.sleep(0)
            assert web.priority == 7

    asyncio.run(main())


def test_before_it_is_entered_an_object_has_no_thread_yet() -> None:
    web = VRRPInstance("web", MemoryBus().interface("192.0.2.1"), vrid=51, vips=["192.0.2.10/24"])

    async def main() -> None:
        await asyncio.to_thread(lambda: web.on_transition(nothing))
        async with web:
            web.demote(1)

    asyncio.run(main())
