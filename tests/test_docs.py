"""The code in the documentation runs."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from vrrpkit import MemoryBus, State, VRRPInstance

HOW_TO = Path(__file__).parent.parent / "docs" / "how-to"


def code(page: str) -> SimpleNamespace:
    """The names that the first Python block of a page defines."""
    found = re.search(r"^```python\n(.*?)^```$", (HOW_TO / page).read_text(), re.M | re.S)
    assert found is not None
    names: dict[str, Any] = {"__name__": page}
    exec(compile(found[1], page, "exec"), names)
    return SimpleNamespace(**names)


def test_own_transport_carries_a_failover() -> None:
    transport = code("own-transport.md").UDPTransport(port=11200)
    bus = MemoryBus()

    def node(name: str, own: str, other: str, priority: int) -> VRRPInstance:
        return VRRPInstance(
            name,
            bus.interface(own),
            vrid=51,
            vips=["192.0.2.10/24"],
            priority=priority,
            interval=0.05,
            peers=[other],
            transport=transport,
        )

    async def main() -> None:
        async with node("b", "127.0.0.2", "127.0.0.1", 100) as b:
            async with node("a", "127.0.0.1", "127.0.0.2", 150) as a, asyncio.timeout(10):
                await a.wait_for(State.MASTER)
                await asyncio.sleep(0.2)
                assert (b.state, str(b.master)) == (State.BACKUP, "127.0.0.1")
            async with asyncio.timeout(10):
                await b.wait_for(State.MASTER)
        assert a.statistics.advertisement_sent > 1
        assert b.statistics.advertisement_rcvd > 1
        assert not b.statistics.rejected

    asyncio.run(main())
