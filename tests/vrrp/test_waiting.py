"""Why a router is not MASTER, in words."""

from __future__ import annotations

import asyncio

from builders import machine_config
from vrrpkit import MemoryBus, State, VRRPInstance
from vrrpkit.testing import virtual_time
from vrrpkit.vrrp.machine import Machine
from vrrpkit.vrrp.vocabulary import Startup, TimerFired
from vrrpkit.vrrp.waiting import waiting_for


def router(bus: MemoryBus, number: int, priority: int) -> VRRPInstance:
    return VRRPInstance(
        f"r{number}",
        bus.interface(f"192.0.2.{number}"),
        vrid=1,
        vips=["192.0.2.10/24"],
        priority=priority,
    )


@virtual_time()
async def test_a_router_says_what_it_waits_for() -> None:
    bus = MemoryBus()
    one, two = router(bus, 1, 150), router(bus, 2, 100)
    assert one.why_not_master() == "not running"
    async with one, two:
        assert one.why_not_master() == "listens whether there is a master"
        await one.wait_for(State.MASTER)
        await asyncio.sleep(2)
        assert one.why_not_master() is None
        assert two.why_not_master() == ("follows 192.0.2.1, whose priority is 150 (its own is 100)")
        one.demote(60)
        await two.wait_for(State.MASTER)
        await asyncio.sleep(2)
        assert one.why_not_master() == (
            "was demoted, and follows 192.0.2.2, whose priority is 100 (its own is 1)"
        )
        bus.unplug("192.0.2.1")
        assert one.why_not_master() == "in FAULT: interface-down"
    assert one.why_not_master() == "not running"


def test_a_member_of_a_group_waits_for_the_others() -> None:
    machine = Machine(machine_config(grouped=True))
    assert waiting_for(machine) == "not running"
    machine.handle(Startup(primary=None), 0.0)
    machine.handle(TimerFired(), 10.0)
    machine.handle(TimerFired(), 20.0)
    assert waiting_for(machine) == "waits for the other members of its sync group"
