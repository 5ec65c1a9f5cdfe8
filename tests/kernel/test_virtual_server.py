"""Virtual servers on the kernel's table: what is wished is what is read."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from namespaces import Net
from vrrpkit.ipvs.kernel.table import KernelTable
from vrrpkit.ipvs.model.entries import Operation, Tunnel, TunnelType
from vrrpkit.ipvs.model.events import TableRefused, TableRepaired, VirtualServerEvent
from vrrpkit.ipvs.server import RealServer, VirtualServer
from vrrpkit.publishing import EventsLost

pytestmark = pytest.mark.kernel

POLL = 0.5


@pytest.fixture(scope="module")
def net() -> Iterator[Net]:
    with Net() as net:
        yield net


KINDS: dict[str, dict[str, Any]] = {
    "nat": {"services": "192.0.2.10:80", "servers": ["10.0.0.1:8080", "10.0.0.2"]},
    "many": {"services": "192.0.2.10-14:80,443/udp", "servers": ["10.0.0.1", "10.0.0.2"]},
    "sctp": {"services": "192.0.2.10:80/sctp", "servers": ["10.0.0.1:80"], "scheduler": "wrr"},
    "six": {"services": "[2001:db8::10]:80", "servers": ["[2001:db8::1]:80"], "scheduler": "lc"},
    "dr": {"services": "192.0.2.10:80", "servers": ["10.0.0.1"], "forward": "dr"},
    "mixed": {"services": "192.0.2.10:80", "servers": ["[2001:db8::1]"], "forward": "tun"},
    "gue": {
        "services": "192.0.2.10:80",
        "servers": ["10.0.0.1"],
        "forward": "tun",
        "tunnel": Tunnel(type=TunnelType.GUE, port=5555, remote_checksum=True),
    },
    "gre": {
        "services": "192.0.2.10:80",
        "servers": ["10.0.0.1", RealServer("10.0.0.2", forward="dr")],
        "forward": "tun",
        "tunnel": Tunnel(type=TunnelType.GRE, checksum=True),
    },
    "mark": {"fwmark": [7, 8], "servers": ["10.0.0.1", "10.0.0.2:80"]},
    "mark six": {"fwmark": 7, "family": 6, "servers": ["[2001:db8::1]"]},
    "sticky": {
        "services": "192.0.2.10",
        "servers": ["10.0.0.1"],
        "persistence": 360,
        "granularity": 24,
    },
    "sticky six": {
        "services": "[2001:db8::10]:80",
        "servers": ["[2001:db8::1]:80"],
        "persistence": 50,
        "granularity": 64,
    },
    "hashed": {
        "services": "192.0.2.10:80",
        "servers": [RealServer("10.0.0.1:80", weight=3, upper=100, lower=50)],
        "scheduler": "sh",
        "scheduler_flags": ["sh-port", "flag-1"],
    },
    "maglev": {
        "services": "192.0.2.10:80",
        "servers": ["10.0.0.1:80"],
        "scheduler": "mh",
        "scheduler_flags": ["mh-fallback", "flag-3"],
    },
    "one packet": {"services": "192.0.2.10:53/udp", "servers": ["10.0.0.1:53"], "one_packet": True},
    "sorry": {
        "services": "192.0.2.10:80",
        "servers": ["10.0.0.1:80"],
        "sorry": "10.0.0.9:80",
        "sorry_inhibit": True,
        "quorum": 9,
    },
}


async def watched(web: VirtualServer) -> list[VirtualServerEvent | EventsLost]:
    """What the kernel refused, and what had to be put right, while a virtual server ran."""
    found: list[VirtualServerEvent | EventsLost] = []

    async def read() -> None:
        found.extend(
            [
                event
                async for event in web.events()
                if isinstance(event, TableRefused | TableRepaired)
            ]
        )

    reading = asyncio.create_task(read())
    await asyncio.sleep(0)
    async with web:
        await asyncio.sleep(3 * POLL)
    await reading
    return found


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_is_put_right_that_nobody_changed(net: Net, kind: str) -> None:
    async def main() -> None:
        table = KernelTable(net.name)
        assert await watched(VirtualServer(table=table, poll_interval=POLL, **KINDS[kind])) == []
        await table.open()
        assert await table.read() == {}
        await table.close()

    asyncio.run(main())


def test_what_ipvsadm_clears_is_put_back(net: Net) -> None:
    async def main() -> None:
        table = KernelTable(net.name)
        web = VirtualServer(table=table, poll_interval=POLL, **KINDS["many"])
        async with web:
            await table.flush()
            async for event in web.events():
                if isinstance(event, TableRepaired):
                    break
            found = await web.statistics()
            assert set(found) == set(web.services)
            assert all(set(each.servers) == {"10.0.0.1", "10.0.0.2"} for each in found.values())

    asyncio.run(main())


class Noting(KernelTable):
    """Notes what it was asked to do."""

    def __init__(self, netns: str) -> None:
        super().__init__(netns)
        self.asked: list[Operation] = []

    async def apply(self, operations: Sequence[Operation]) -> list[OSError | None]:
        self.asked += operations
        return await super().apply(operations)


def test_a_restart_touches_nothing(net: Net) -> None:
    async def main() -> None:
        first, second = Noting(net.name), Noting(net.name)
        async with VirtualServer(table=first, at_exit="keep", **KINDS["hashed"]):
            assert len(first.asked) == 2
        async with VirtualServer(table=second, **KINDS["hashed"]):
            assert second.asked == []
        assert len(second.asked) == 1

    asyncio.run(main())
