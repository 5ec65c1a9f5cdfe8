"""Two routers in memory: watch a failover. No root, no network.

python examples/01_two_nodes.py
"""

import asyncio

import vrrpkit
from vrrpkit import MemoryBus, State, VRRPInstance


async def main() -> None:
    bus = MemoryBus()
    start = asyncio.get_running_loop().time()

    def node(name: str, address: str, priority: int) -> VRRPInstance:
        vips = ["192.0.2.10/32"]
        return VRRPInstance(name, bus.interface(address), vrid=51, vips=vips, priority=priority)

    def show(happening: object) -> None:
        print(f"{asyncio.get_running_loop().time() - start:5.2f} s  {happening}", flush=True)

    async with node("a", "192.0.2.1", 150) as a, node("b", "192.0.2.2", 100) as b:
        a.on_transition(show)
        b.on_transition(show)
        await a.wait_for(State.MASTER)
        show("the cable of a is pulled")
        bus.unplug("192.0.2.1")
        await b.wait_for(State.MASTER)
        show("the cable of a is plugged in again")
        bus.plug("192.0.2.1")
        await a.wait_for(State.MASTER)
        show("both leave")


vrrpkit.run(main())
