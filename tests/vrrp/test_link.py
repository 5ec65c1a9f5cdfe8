"""The place of a router on its interface: what is shared by all routers there, and done once."""

from __future__ import annotations

import asyncio
import gc
import tracemalloc
from contextlib import AsyncExitStack
from ipaddress import ip_address

import pytest

from vrrpkit import MemoryBus, State, VRRPInstance
from vrrpkit.testing import virtual_time
from vrrpkit.vrrp.link import VRRPLink

CROWD = 60

MOST = 18_000
"""Octets of memory that one more router may take, its peers and history aside."""


class Looks:
    """Counts how often seats are looked at."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.count = 0
        self.seats: set[VRRPLink] = set()
        looking = VRRPLink.look

        def look(vrrp_link: VRRPLink) -> bool:
            self.count += 1
            self.seats.add(vrrp_link)
            return looking(vrrp_link)

        monkeypatch.setattr(VRRPLink, "look", look)


@virtual_time()
async def test_a_takeover_of_many_routers_looks_at_no_interface_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    looks = Looks(monkeypatch)
    bus = MemoryBus()
    interface = bus.interface("192.0.2.1")
    async with AsyncExitStack() as stack:
        routers = [
            VRRPInstance(f"r{vrid}", interface, vrid=vrid, vips=[f"198.18.0.{vrid}/32"])
            for vrid in range(1, CROWD + 1)
        ]
        for router in routers:
            await stack.enter_async_context(router)
        entered = looks.count
        assert CROWD <= entered <= 2 * CROWD
        await asyncio.sleep(10)
        assert {router.state for router in routers} == {State.MASTER}
        assert len(bus.owners("198.18.0.60")) == 1
        assert looks.count == entered
        # What all have in common is there once.
        assert len(looks.seats) == CROWD
        assert len({id(vrrp_link.own) for vrrp_link in looks.seats}) == 1


@virtual_time()
@pytest.mark.parametrize("priority", [100, 255])
async def test_an_address_that_moves_away_is_nobodys_own_but_an_owners(
    monkeypatch: pytest.MonkeyPatch, priority: int
) -> None:
    looks = Looks(monkeypatch)
    bus = MemoryBus()
    interface = bus.interface("192.0.2.1", "192.0.2.7")
    interface.add("192.0.2.10/24")
    router = VRRPInstance(
        "web", interface, vrid=51, vips=["192.0.2.10/24"], priority=priority, source="192.0.2.7"
    )
    async with router:
        (vrrp_link,) = looks.seats
        moving = {ip_address("192.0.2.10")} if priority == 255 else set[object]()
        others = {address for address in interface.link.listed if address.version == 6}
        stays = {ip_address("192.0.2.1"), ip_address("192.0.2.7")} | others
        assert vrrp_link.own == stays | moving
        # What it spoke from may still be on its way back to it.
        interface.delete("192.0.2.7")
        assert ip_address("192.0.2.7") in vrrp_link.own
        interface.delete("192.0.2.1")
        assert ip_address("192.0.2.1") not in vrrp_link.own


@virtual_time()
async def test_each_further_router_takes_little_memory() -> None:
    """What is the same for all of them, empty or rarely used, is not kept 255 times."""
    bus = MemoryBus()
    interface = bus.interface("192.0.2.1")

    async def enter(stack: AsyncExitStack, vrids: range) -> None:
        for vrid in vrids:
            vips = [f"198.18.0.{vrid}/32"]
            await stack.enter_async_context(
                VRRPInstance(f"r{vrid}", interface, vrid=vrid, vips=vips)
            )
        await asyncio.sleep(10)
        gc.collect()

    tracemalloc.start()
    try:
        async with AsyncExitStack() as stack:
            await enter(stack, range(1, 21))
            before, _peak = tracemalloc.get_traced_memory()
            bus.record.clear()
            await enter(stack, range(21, 21 + CROWD))
            bus.record.clear()
            gc.collect()
            after, _peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert (after - before) / CROWD < MOST
