"""Virtual addresses that are checked for duplicates (``nodad=False``), and fail."""

from __future__ import annotations

import asyncio
from ipaddress import ip_address
from typing import Any

import pytest

from vrrp.routers import became, mastering, router
from vrrpkit import VIP, MemoryBus, State, VRRPInstance
from vrrpkit.events import AddressesRefused, AddressLost
from vrrpkit.host.memory.resources import DETECTION
from vrrpkit.host.static import RETRY, StaticNetwork
from vrrpkit.testing import virtual_time

BACKUP, MASTER, FAULT = State.BACKUP, State.MASTER, State.FAULT
SIX = "2001:db8::10"
CHECKED = VIP(f"{SIX}/128", nodad=False)


def checked(bus: MemoryBus, **options: Any) -> VRRPInstance:
    return router(bus, excluded_vips=[CHECKED], **options)


def happened(instance: VRRPInstance) -> list[tuple[str, str]]:
    """Losses and refusals, with what is done about them."""
    seen: list[tuple[str, str]] = []

    def note(notice: object) -> None:
        if isinstance(notice, AddressLost):
            seen.append(("duplicate" if notice.duplicate else "lost", notice.action))
        elif isinstance(notice, AddressesRefused):
            seen.append(("refused", f"{notice.retry_in:g}"))

    for kind in (AddressLost, AddressesRefused):
        instance._hub.on(kind, note)  # pyright: ignore[reportPrivateUsage]
    return seen


@virtual_time()
async def test_an_address_is_announced_once_it_may_be_used() -> None:
    bus = MemoryBus()
    async with checked(bus) as a:
        await became(a, MASTER)
        await asyncio.sleep(0.01)
        told = [each.announced for each in bus.record if each.announced == CHECKED.address]
        assert told == [] and bus.owner(SIX) == "192.0.2.1"
        await asyncio.sleep(DETECTION)
        assert any(each.announced == CHECKED.address for each in bus.record)


@virtual_time()
async def test_a_duplicate_is_checked_again_and_then_a_fault() -> None:
    bus = MemoryBus()
    bus.interface("192.0.2.9").add(f"{SIX}/64")
    a = checked(bus)
    seen = happened(a)
    async with a:
        await mastering(a)
        await asyncio.sleep(DETECTION)
        assert (a.state, seen) == (MASTER, [("duplicate", "checked again")])
        await asyncio.sleep(1 + DETECTION + 0.1)
        assert (a.state, a.faults) == (FAULT, {"addresses"})
        assert seen[1:] == [("refused", "5")]
        assert bus.owners(SIX) == ["192.0.2.9"]
        # The wait is doubled, for nothing has worked in between.
        await asyncio.sleep(5 + 3.5 + 2 * DETECTION + 1.1)
        assert seen[2:] == [("duplicate", "checked again"), ("refused", "10")]
        bus.interface("192.0.2.9").delete(SIX)
        await asyncio.sleep(10 + 3.5)
        assert a.state is MASTER and bus.owner(SIX) == "192.0.2.1"
        await asyncio.sleep(60)
        assert a.state is MASTER and len(seen) == 4


@virtual_time()
async def test_success_resets_the_wait() -> None:
    bus = MemoryBus()
    other = bus.interface("192.0.2.9")
    other.add(f"{SIX}/64")
    a = checked(bus)
    seen = happened(a)
    async with a:
        await mastering(a)
        await asyncio.sleep(3 * DETECTION + 0.2)
        other.delete(SIX)
        await asyncio.sleep(5 + 3.5 + DETECTION)
        assert a.state is MASTER
        other.add(f"{SIX}/64")
        bus.interface("192.0.2.1").delete(SIX)
        await asyncio.sleep(3 * DETECTION + 0.2)
        assert seen[-1] == ("refused", "5")


@virtual_time()
async def test_who_preempts_is_not_stopped_by_the_old_master() -> None:
    """It runs the detection while the old master still has the address."""
    bus = MemoryBus()
    b = router(bus, "b", "192.0.2.2", priority=100, excluded_vips=[CHECKED])
    a = checked(bus)
    seen = happened(a)
    async with b:
        await mastering(b)
        # The old master takes long to remove it.
        bus.interface("192.0.2.2").manager.delay = 1.2
        async with a:
            await mastering(a)
            await asyncio.sleep(DETECTION)
            assert seen == [("duplicate", "checked again")]
            await asyncio.sleep(10)
            assert (a.state, len(seen)) == (MASTER, 1)
            assert bus.owner(SIX) == "192.0.2.1"


@virtual_time()
async def test_ignoring_is_obeyed() -> None:
    bus = MemoryBus()
    bus.interface("192.0.2.9").add(f"{SIX}/64")
    a = checked(bus, on_address_lost="ignore")
    seen = happened(a)
    async with a:
        await mastering(a)
        await asyncio.sleep(60)
        assert (a.state, seen) == (MASTER, [("duplicate", "ignored")])


@virtual_time()
async def test_who_has_stopped_being_master_checks_nothing() -> None:
    bus = MemoryBus()
    bus.interface("192.0.2.9").add(f"{SIX}/64")
    a = checked(bus)
    seen = happened(a)
    async with a:
        await mastering(a)
        await asyncio.sleep(DETECTION + 0.1)
        a.demote(2)
        await asyncio.sleep(1.5)
        assert len(seen) == 1 and bus.owners(SIX) == ["192.0.2.9"]
        # The next time it starts anew.
        await mastering(a)
        await asyncio.sleep(DETECTION + 0.1)
        assert seen == [("duplicate", "checked again")] * 2


@virtual_time()
async def test_no_detection_of_what_says_so() -> None:
    bus = MemoryBus()
    bus.interface("192.0.2.9").add(f"{SIX}/64")
    async with router(bus, excluded_vips=[SIX]) as a:
        await mastering(a)
        await asyncio.sleep(30)
        assert a.state is MASTER


@pytest.mark.parametrize("plugged", [True, False])
@virtual_time()
async def test_only_who_is_on_the_link_is_found(plugged: bool) -> None:
    bus = MemoryBus()
    bus.interface("192.0.2.9").add(f"{SIX}/64")
    if not plugged:
        bus.unplug("192.0.2.9")
    a = checked(bus)
    seen = happened(a)
    async with a:
        await mastering(a)
        await asyncio.sleep(DETECTION + 0.1)
        assert bool(seen) is plugged


@virtual_time()
async def test_on_a_device_and_with_a_virtual_mac() -> None:
    bus = MemoryBus()
    bus.interface("192.0.2.9").add(f"{SIX}/64")
    bus.interface("192.0.2.9").add("2001:db8::11/64")
    vips = [
        VIP(f"{SIX}/128", dev="eth1", nodad=False),
        VIP("2001:db8::11/128", nodad=False),
    ]
    a = router(bus, excluded_vips=vips, virtual_mac=True)
    seen = happened(a)
    async with a:
        await mastering(a)
        await asyncio.sleep(DETECTION + 0.1)
        assert seen == [("duplicate", "checked again")] * 2
        await asyncio.sleep(2)
        assert a.state is FAULT


@virtual_time()
async def test_a_static_address_is_tried_until_it_is_nobody_else_s() -> None:
    bus = MemoryBus()
    other = bus.interface("192.0.2.9")
    other.add(f"{SIX}/64")
    eth1 = bus.interface("192.0.2.1", name="eth1")
    static = StaticNetwork([f"{SIX}/64 dev eth1"], interfaces={"eth1": eth1})
    async with static:
        assert static.missing == ()
        await asyncio.sleep(DETECTION + 0.1)
        assert static.missing == (f"{SIX}/64 dev eth1",)
        await asyncio.sleep(2 * RETRY)
        assert static.missing == (f"{SIX}/64 dev eth1",)
        other.delete(SIX)
        await asyncio.sleep(2 * RETRY + DETECTION)
        assert static.missing == () and eth1.holds(ip_address(SIX))
