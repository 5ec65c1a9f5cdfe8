"""Two that are MASTER at the same time, for their configurations differ: heard, counted, told."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from vrrp.routers import VIP, mastering, router
from vrrpkit import ConfigError, MemoryBus, State
from vrrpkit.events import AdvertRejected
from vrrpkit.testing import virtual_time
from vrrpkit.vrrp import RejectReason

UNICAST: dict[str, Any] = {"peers": ["192.0.2.1"], "source": "192.0.2.2"}


@virtual_time()
async def test_another_version_is_named_with_what_to_do() -> None:
    bus = MemoryBus()
    async with router(bus) as a:
        assert a.contested() is None
        await mastering(a)
        assert a.contested() is None
        events = a.events()
        async with router(bus, "b", "192.0.2.2", version=2, priority=100) as b:
            await mastering(b)
            assert (a.state, b.state) == (State.MASTER, State.MASTER)
            assert a.contested() == (
                "MASTER, but 192.0.2.2 claims it too: its adverts are rejected "
                "(version: got 2, want 3)"
            )
            assert "(version: got 3, want 2)" in (b.contested() or "")
        await asyncio.sleep(6)
        assert a.contested() is None, "no more"
    assert a.contested() is None
    rejected = [event async for event in events if isinstance(event, AdvertRejected)]
    assert rejected[0].advice == ("it speaks version 2: say version=2, or 'vrrp_version 3' there")
    assert str(rejected[0]).endswith(rejected[0].advice)


@virtual_time()
async def test_one_that_does_not_hear_us() -> None:
    bus = MemoryBus()
    async with router(bus) as a, router(bus, "b", "192.0.2.2", priority=100) as b:
        await mastering(a)
        bus.cut("192.0.2.1", "192.0.2.2", one_way=True)
        await mastering(b)
        await asyncio.sleep(2)
        assert a.contested() == "MASTER, but 192.0.2.2 claims it too, with priority 100"
        assert b.contested() is None, "it hears nobody"


@virtual_time()
async def test_multicast_hears_unicast() -> None:
    bus = MemoryBus()
    async with router(bus) as a, router(bus, "b", "192.0.2.2", priority=100, **UNICAST) as b:
        await mastering(a)
        await mastering(b)
        await asyncio.sleep(2)
        assert a.statistics.rejected[RejectReason.DESTINATION] >= 2
        assert "destination: got 192.0.2.1, want 224.0.0.18" in (a.contested() or "")
        assert not b.statistics.rejected
        assert b.contested() is None


@virtual_time()
async def test_unicast_hears_multicast_when_asked() -> None:
    bus = MemoryBus()
    async with (
        router(bus) as a,
        router(bus, "b", "192.0.2.2", priority=100, diagnose=True, **UNICAST) as b,
    ):
        await mastering(a)
        await mastering(b)
        await asyncio.sleep(2)
        assert b.statistics.rejected[RejectReason.DESTINATION] >= 2
        assert "destination: got 224.0.0.18, want unicast" in (b.contested() or "")


@virtual_time()
async def test_a_group_of_its_own_hears_the_usual_one() -> None:
    bus = MemoryBus()
    async with (
        router(bus, group="224.0.0.200") as a,
        router(bus, "b", "192.0.2.2", priority=100) as b,
    ):
        await mastering(a)
        await mastering(b)
        await asyncio.sleep(2)
        assert "destination: got 224.0.0.18, want 224.0.0.200" in (a.contested() or "")
        assert b.contested() is None, "which group others use cannot be known"


@virtual_time()
async def test_a_backup_says_why_it_is_none() -> None:
    bus = MemoryBus()
    async with router(bus) as a, router(bus, "b", "192.0.2.2", priority=100) as b:
        await mastering(a)
        assert b.contested() is None
        assert "follows 192.0.2.1" in (b.why_not_master() or "")


def test_diagnose_goes_with_peers() -> None:
    bus = MemoryBus()
    with pytest.raises(ConfigError, match="diagnose=True goes with peers="):
        router(bus, diagnose=True)
    with pytest.raises(ConfigError, match="diagnose"):
        router(bus, diagnose="yes", **UNICAST)
    assert router(bus, diagnose=True, **UNICAST).config.diagnose
    assert router(bus, vips=[VIP]).config.diagnose is False
