"""TrackInterface on the in-memory bus."""

from __future__ import annotations

import asyncio

import pytest

from vrrpkit import ConfigError, MemoryBus, State, VRRPInstance
from vrrpkit.testing import virtual_time
from vrrpkit.tracking.interface import TrackInterface


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
