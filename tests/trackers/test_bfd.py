"""TrackBFD in memory, under virtual time."""

from __future__ import annotations

import asyncio
import logging

import pytest

from bfd.ends import A, B, both_up, end
from vrrpkit import BFDSession, ConfigError, MemoryBus, State, VRRPInstance
from vrrpkit.bfd.protocol.packet import BFDState
from vrrpkit.testing import virtual_time
from vrrpkit.trackers.bfd import TrackBFD


@virtual_time()
async def test_the_signal_follows_the_session_which_runs_while_it_is_tracked() -> None:
    bus, uplink = MemoryBus(), MemoryBus()
    session, router = end(uplink), end(uplink, B, A)
    track = TrackBFD(session, weight=-60)
    assert track.label == f"BFD to {B}"
    async with router:
        async with VRRPInstance(
            "a", bus.interface("10.0.0.1"), vrid=1, vips=["10.0.0.10/24"], track=[track]
        ) as a:
            assert (a.priority, a.signals) == (40, {track.label: False})
            await both_up(session, router)
            assert (a.priority, a.signals) == (100, {track.label: True})
            uplink.cut(A, B)
            await asyncio.sleep(0.6)
            assert a.priority == 40
            uplink.heal()
            await both_up(session, router)
            assert a.priority == 100
            router.admin_down()
            await asyncio.sleep(0.1)
            assert a.priority == 40
        assert session.state is BFDState.ADMIN_DOWN


@virtual_time()
async def test_without_a_weight_a_session_that_is_not_up_is_a_fault() -> None:
    bus, uplink = MemoryBus(), MemoryBus()
    session, router = end(uplink), end(uplink, B, A)
    async with (
        session,
        VRRPInstance(
            "a",
            bus.interface("10.0.0.1"),
            vrid=1,
            vips=["10.0.0.10/24"],
            track=[TrackBFD(session)],
        ) as a,
        VRRPInstance(
            "b",
            bus.interface("10.0.0.2"),
            vrid=1,
            vips=["10.0.0.10/24"],
            track=[TrackBFD(session, reverse=True, name="alone")],
        ) as b,
    ):
        assert (a.state, b.state) == (State.FAULT, State.BACKUP)
        async with router:
            await a.wait_for(State.BACKUP)
            assert b.faults == {"alone"}


@virtual_time()
async def test_an_ordinary_start_is_no_fault() -> None:
    bus, uplink = MemoryBus(), MemoryBus()
    session, router = end(uplink), end(uplink, B, A)
    states: list[State] = []
    instance = VRRPInstance(
        "a",
        bus.interface("10.0.0.1"),
        vrid=1,
        vips=["10.0.0.10/24"],
        track=[TrackBFD(session)],
    )
    instance.on_transition(lambda transition: states.append(transition.state))
    async with router, instance as a:
        await a.wait_for(State.MASTER)
        assert session.state is BFDState.UP
    assert State.FAULT not in states


@virtual_time()
@pytest.mark.parametrize(("idle", "limit"), [(1.0, 3.0), (10.0, 5.0)])
async def test_a_session_that_does_not_come_up_is_a_fault_after_a_while(
    idle: float, limit: float
) -> None:
    bus, uplink = MemoryBus(), MemoryBus()
    session = BFDSession(B, interface=uplink.interface(A), idle_tx=idle)
    clock = asyncio.get_running_loop().time
    began = clock()
    tracker = TrackBFD(session)
    async with (
        VRRPInstance(
            "a", bus.interface("10.0.0.1"), vrid=1, vips=["10.0.0.10/24"], track=[tracker]
        ) as a,
        VRRPInstance(
            "b", bus.interface("10.0.0.2"), vrid=2, vips=["10.0.0.11/24"], track=[tracker]
        ) as b,
    ):
        # Those who share a session do not wait in turn.
        assert clock() - began == pytest.approx(limit)
        assert (a.state, b.state) == (State.FAULT, State.FAULT)


def test_anything_but_a_session_is_refused() -> None:
    with pytest.raises(ConfigError, match="takes a BFDSession, not '192"):
        TrackBFD("192.0.2.2")  # type: ignore[arg-type]


@virtual_time()
async def test_why_it_is_bad_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "vrrpkit.tracking")
    bus, uplink = MemoryBus(), MemoryBus()
    session, router = end(uplink), end(uplink, B, A)
    track = TrackBFD(session, weight=-60)
    async with (
        router,
        VRRPInstance("a", bus.interface("10.0.0.1"), vrid=1, vips=["10.0.0.10/24"], track=[track]),
    ):
        await both_up(session, router)
        await asyncio.sleep(1)
        caplog.clear()
        uplink.cut(A, B)
        await asyncio.sleep(1)
        first = caplog.records[0]
        assert (first.levelname, first.message) == (
            "INFO",
            f"{track.label}: the session is Down, control detection time expired",
        )
        assert caplog.records[1].message == f"tracker {track.label} is bad"
