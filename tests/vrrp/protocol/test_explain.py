"""Why a router is not MASTER, in words."""

from __future__ import annotations

import asyncio
from ipaddress import ip_address
from typing import Any

import pytest

from builders import advert, faults, machine_config, started
from vrrpkit import MemoryBus, State, VRRPInstance
from vrrpkit.testing import virtual_time
from vrrpkit.vrrp.protocol.explain import waiting_for
from vrrpkit.vrrp.protocol.inputs import (
    Demote,
    GroupReleased,
    Input,
    MasterUnreachable,
    SetPriority,
    Startup,
    TimerFired,
)
from vrrpkit.vrrp.protocol.machine import Machine

MASTER = ip_address("192.0.2.2")


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
    assert one.why_not_master() == "not running: enter it with 'async with'"
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
    assert one.why_not_master() == "has ended"


LOWER = "follows 192.0.2.2, whose priority is 50 (its own is 100)"
OLD = "follows 192.0.2.2, whose priority is 150 (its own is 100)"


@pytest.mark.parametrize(
    ("changes", "steps", "waits"),
    [
        ({}, [], "listens whether there is a master"),
        ({"startup_delay": 5}, [advert(150, 1)], "waits for the end of startup_delay"),
        (
            {},
            [advert(50, 1)],
            "hears a master of lower priority, and takes over when its timer ends",
        ),
        ({}, [advert(150, 1)], OLD),
        (
            {},
            [advert(100, 1)],
            "follows 192.0.2.2, whose priority is 100 (its own is 100); equals do not preempt "
            "each other",
        ),
        ({"preempt": False}, [advert(50, 1)], f"{LOWER}; preempt=False leaves it in place"),
        ({"preempt_delay": 9}, [advert(50, 1)], f"{LOWER}, until preempt_delay has passed"),
        (
            {"priority": 40},
            [advert(50, 1), SetPriority(100)],
            f"{LOWER}, and takes over when its timer ends",
        ),
        (
            {},
            [advert(150, 1), advert(0, 2)],
            "heard the master leave, and takes over unless a better router does first",
        ),
        (
            {},
            [advert(150, 1), MasterUnreachable(MASTER)],
            f"{OLD} and who is leaving: takes over unless it hears from it or a better one",
        ),
        (
            {},
            [advert(150, 1), GroupReleased()],
            f"{OLD} and who is leaving: takes over unless it hears from it or a better one",
        ),
        ({}, [Demote(9)], "was demoted, and listens whether there is a master"),
        (
            {},
            [advert(50, 1), Demote(9), advert(50, 2)],
            "was demoted, and follows 192.0.2.2, whose priority is 50 (its own is 1)",
        ),
        ({}, [faults("b", "a")], "in FAULT: a, b"),
    ],
)
def test_the_words_for_every_state(changes: dict[str, Any], steps: list[Input], waits: str) -> None:
    machine = started(**changes)
    for now, event in enumerate(steps, 1):
        machine.handle(event, float(now))
    assert waiting_for(machine) == waits


def test_a_member_of_a_group_waits_for_the_others() -> None:
    machine = Machine(machine_config(grouped=True))
    assert waiting_for(machine) == "not running"
    machine.handle(Startup(primary=None), 0.0)
    machine.handle(TimerFired(), 10.0)
    machine.handle(TimerFired(), 20.0)
    assert waiting_for(machine) == "waits for the other members of its sync group"
    assert waiting_for(machine, lambda: "b is slow") == (
        "waits for the other members of its sync group: b is slow"
    )
