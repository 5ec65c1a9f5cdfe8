"""ScriptedTracker: what it says moves priorities and fitness, when the test says so."""

from __future__ import annotations

import asyncio

import pytest

from vrrpkit import ConfigError, State
from vrrpkit.testing import Lan, ScriptedTracker, virtual_time

VIP = "192.0.2.10"


@virtual_time()
async def test_a_bad_signal_moves_the_address_and_a_good_one_brings_it_back() -> None:
    disk = ScriptedTracker(name="disk", weight=-100)
    async with Lan() as lan:
        a = lan.router("a", vips=[f"{VIP}/24"], priority=150, track=[disk])
        lan.router("b", vips=[f"{VIP}/24"])
        await lan.settle()
        assert lan.owner(VIP) == "a"
        disk.says(False)
        await asyncio.sleep(0)
        assert a.priority == 50
        await lan.settle()
        assert lan.owner(VIP) == "b"
        disk.says(True, after=5)
        await asyncio.sleep(4.9)
        assert a.priority == 50
        await asyncio.sleep(0.2)
        assert a.priority == 150
        await lan.settle()
        assert lan.owner(VIP) == "a"
        lan.check()


@virtual_time()
async def test_every_router_hears_the_same_and_each_signal() -> None:
    fit = ScriptedTracker(first=False)
    async with Lan() as lan:
        routers = [
            lan.router(name, vips=[f"{VIP}/24"], track=[fit], vrid=vrid)
            for name, vrid in (("a", 1), ("b", 2))
        ]
        await asyncio.sleep(1)
        assert [each.state for each in routers] == [State.FAULT, State.FAULT]
        assert routers[0].why_not_master() == "in FAULT: scripted"
        fit.says(True)
        await asyncio.sleep(1)
        assert [each.state for each in routers] == [State.BACKUP, State.BACKUP]
        entered = []
        routers[0].on_transition(lambda change: entered.append(change.state))
        fit.says(False)
        fit.says(True)
        await asyncio.sleep(0.1)
        assert entered == [State.FAULT, State.BACKUP]


@virtual_time()
async def test_one_that_fails_is_bad_and_started_again() -> None:
    fit = ScriptedTracker()
    async with Lan() as lan:
        a = lan.router("a", vips=[f"{VIP}/24"], track=[fit])
        await lan.settle()
        fit.fails("no such sensor")
        await asyncio.sleep(1)
        assert a.state is State.FAULT
        fit.says(True)
        await asyncio.sleep(1)
        assert a.state is State.FAULT
        await asyncio.sleep(4.5)
        assert a.state is State.BACKUP


@virtual_time()
async def test_not_known_yet_and_numbers() -> None:
    level = ScriptedTracker(first=None, weight=10)
    async with Lan() as lan:
        a = lan.router("a", vips=[f"{VIP}/24"], track=[level])
        await asyncio.sleep(1)
        assert a.priority == 100
        level.says(3)
        await asyncio.sleep(0.1)
        assert a.priority == 130


def test_two_are_two_and_a_negative_wait_is_refused() -> None:
    one, other = ScriptedTracker(), ScriptedTracker()
    assert one != other
    assert len({one, other}) == 2
    with pytest.raises(ConfigError, match="after -1"):
        one.says(True, after=-1)
