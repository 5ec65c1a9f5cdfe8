"""TrackInterface on the in-memory bus."""

from __future__ import annotations

import asyncio
import logging

import pytest

from vrrpkit import ConfigError, MemoryBus, State, VRRPInstance
from vrrpkit.testing import virtual_time
from vrrpkit.trackers.interface import TrackInterface


@virtual_time()
async def test_a_second_interface_is_followed() -> None:
    bus, uplink = MemoryBus(), MemoryBus()
    track = TrackInterface(uplink.interface("198.51.100.1"), address="198.51.100.1")
    async with VRRPInstance(
        "a", bus.interface("192.0.2.1"), vrid=1, vips=["192.0.2.10/24"], track=[track]
    ) as a:
        assert (a.state, a.signals) == (State.BACKUP, {track.label: True})
        await a.wait_for(State.MASTER)
        uplink.unplug("198.51.100.1")
        await a.wait_for(State.FAULT)
        assert a.faults == {track.label}
        uplink.plug("198.51.100.1")
        await a.wait_for(State.MASTER)


@virtual_time()
async def test_an_address_must_be_there() -> None:
    bus, uplink = MemoryBus(), MemoryBus()
    track = TrackInterface(uplink.interface("198.51.100.1"), address="198.51.100.9", weight=10)
    async with VRRPInstance(
        "a", bus.interface("192.0.2.1"), vrid=1, vips=["192.0.2.10/24"], track=[track]
    ) as a:
        await asyncio.sleep(0.1)
        assert (a.priority, a.signals) == (100, {track.label: False})


@virtual_time()
async def test_a_link_counts_when_its_delay_has_passed() -> None:
    bus, uplink = MemoryBus(), MemoryBus()
    track = TrackInterface(
        uplink.interface("198.51.100.1"), weight=10, link_up_delay=5, link_down_delay=2
    )
    async with VRRPInstance(
        "a", bus.interface("192.0.2.1"), vrid=1, vips=["192.0.2.10/24"], track=[track]
    ) as a:
        await asyncio.sleep(0.1)
        assert a.priority == 110
        uplink.unplug("198.51.100.1")
        await asyncio.sleep(1.9)
        assert a.priority == 110
        await asyncio.sleep(0.2)
        assert a.priority == 100
        uplink.plug("198.51.100.1")
        await asyncio.sleep(4.9)
        assert a.priority == 100
        await asyncio.sleep(0.2)
        assert a.priority == 110


@virtual_time()
async def test_during_the_delay_the_address_is_not_missed() -> None:
    bus, uplink = MemoryBus(), MemoryBus()
    other = uplink.interface("198.51.100.1")
    track = TrackInterface(other, address="198.51.100.1", weight=10, link_down_delay=2)
    async with VRRPInstance(
        "a", bus.interface("192.0.2.1"), vrid=1, vips=["192.0.2.10/24"], track=[track]
    ) as a:
        other.carrier = False
        other.delete("198.51.100.1")
        await asyncio.sleep(1.9)
        assert a.priority == 110
        await asyncio.sleep(0.2)
        assert a.priority == 100


@pytest.mark.parametrize("name", ["link_up_delay", "link_down_delay"])
def test_limits_of_the_delays(name: str) -> None:
    for good in (0, 1000):
        assert TrackInterface("eth0", **{name: good}) != TrackInterface("eth0", **{name: 1})  # type: ignore[arg-type]
    for bad in (-1, 1000.5, None):
        with pytest.raises(ConfigError, match=name):
            TrackInterface("eth0", **{name: bad})  # type: ignore[arg-type]


def test_bad_values_are_refused() -> None:
    with pytest.raises(ConfigError, match="empty"):
        TrackInterface("")
    with pytest.raises(ConfigError, match="interface 7 must be the name of one"):
        TrackInterface(7)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="netns 7 must be the name of one"):
        TrackInterface("eth0", netns=7)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="no IPv4 or IPv6 address"):
        TrackInterface("eth0", address="here")
    with pytest.raises(ConfigError, match="netns"):
        TrackInterface(MemoryBus().interface("192.0.2.1"), netns="x")
    assert TrackInterface("eth0").label == "interface eth0"


@virtual_time()
async def test_why_it_is_bad_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "vrrpkit.tracking")
    bus, uplink = MemoryBus(), MemoryBus()
    there = uplink.interface("198.51.100.1")
    track = TrackInterface(there, weight=10, link_up_delay=5)
    lacks = TrackInterface(there, address="198.51.100.9", weight=10, name="address")
    async with VRRPInstance(
        "a", bus.interface("192.0.2.1"), vrid=1, vips=["192.0.2.10/24"], track=[track, lacks]
    ):
        await asyncio.sleep(1)
        assert [record.message for record in caplog.records] == [
            "address: it has no usable address 198.51.100.9",
            "tracker address is bad",
        ]
        caplog.clear()
        uplink.unplug("198.51.100.1")
        await asyncio.sleep(1)
        uplink.plug("198.51.100.1")
        await asyncio.sleep(10)
        assert [(record.levelname, record.message) for record in caplog.records] == [
            ("INFO", f"{track.label}: it is down, or has no carrier"),
            ("INFO", f"tracker {track.label} is bad"),
            ("INFO", f"tracker {track.label} is good"),
        ]
