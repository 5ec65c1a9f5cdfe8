"""TrackChecker with a scripted checker."""

from __future__ import annotations

import asyncio

import pytest

from vrrpkit import ConfigError, MemoryBus, State, VRRPInstance
from vrrpkit.checks.tcp import TCPChecker
from vrrpkit.testing import ScriptedChecker, virtual_time
from vrrpkit.trackers.checker import TrackChecker


@virtual_time()
async def test_a_sick_server_is_a_fault_and_its_recovery_ends_it() -> None:
    checker = ScriptedChecker(interval=1.0, retry=0, fall=2)
    track = TrackChecker(checker, "127.0.0.1", 8080)
    async with VRRPInstance(
        "a", MemoryBus().interface("192.0.2.1"), vrid=1, vips=["192.0.2.10/24"], track=[track]
    ) as a:
        # It waited for the first result, so that it need not begin in FAULT.
        assert (a.state, a.signals) == (State.BACKUP, {track.label: True})
        await a.wait_for(State.MASTER)
        checker.fails("127.0.0.1:8080", "no more")
        await asyncio.sleep(1.1)
        assert a.state is State.MASTER
        await a.wait_for(State.FAULT)
        assert a.faults == {track.label}
        checker.passes("127.0.0.1:8080")
        await a.wait_for(State.MASTER)


def test_what_cannot_be_checked_is_refused() -> None:
    with pytest.raises(ConfigError, match="takes a Checker"):
        TrackChecker("http", "127.0.0.1")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="no port"):
        TrackChecker(TCPChecker(), "127.0.0.1")
