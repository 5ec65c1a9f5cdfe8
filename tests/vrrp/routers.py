"""Routers in memory for the tests of VRRPInstance and its driver."""

from __future__ import annotations

import asyncio
from typing import Any

from vrrpkit import MemoryBus, State, Transition, VRRPInstance
from vrrpkit.host.memory.bus import MemoryInterface
from vrrpkit.transport.memory import Crossing, Fate

VIP = "192.0.2.10"


def router(
    bus: MemoryBus, name: str = "a", address: str = "192.0.2.1", **options: Any
) -> VRRPInstance:
    """An ordinary router on a bus; priority 150 takes 3.414 s to become MASTER."""
    usual: dict[str, Any] = {"vrid": 51, "vips": [f"{VIP}/24"], "priority": 150}
    return VRRPInstance(name, bus.interface(address), **(usual | options))


async def mastering(instance: VRRPInstance) -> None:
    """Wait until it is MASTER and its host has the addresses."""
    await instance.wait_for(State.MASTER)
    await asyncio.sleep(0.01)


async def became(instance: VRRPInstance, state: State) -> None:
    """Wait until it enters a state, whatever becomes of its addresses."""
    await instance._hub.wait_for(  # pyright: ignore[reportPrivateUsage]
        lambda notice: isinstance(notice, Transition) and notice.state is state
    )


def adverts(bus: MemoryBus, sender: str = "192.0.2.1") -> list[tuple[float, int]]:
    """When a station sent adverts that left it, and with which priority."""
    return [
        (crossing.time, _priority(crossing))
        for crossing in bus.record
        if crossing.payload
        and crossing.sender == sender
        and Fate.UNPLUGGED not in crossing.fates.values()
    ]


def _priority(crossing: Crossing) -> int:
    return crossing.payload[2]


def free(interface: MemoryInterface) -> bool:
    """Whether nothing of any router is left on an interface."""
    return not any(entry.ours for entry in interface.manager.table.values())


__all__ = ["VIP", "adverts", "became", "free", "mastering", "router"]
