"""The code in the documentation runs."""

from __future__ import annotations

import asyncio
import re
from ipaddress import ip_address
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from vrrpkit import CheckFailed, MemoryBus, State, Target, VRRPInstance
from vrrpkit.testing import run_virtual, virtual_time

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


def test_own_checker_tells_a_primary_from_a_replica() -> None:
    names = code("own-checker.md")
    roles = {b"primary": b"master", b"replica": b"slave"}

    async def main() -> None:
        for role, word in roles.items():

            async def answer(
                reader: asyncio.StreamReader, writer: asyncio.StreamWriter, word: bytes = word
            ) -> None:
                assert await reader.readline() == b"ROLE\r\n"
                writer.write(b"*3\r\n$%d\r\n%s\r\n:0\r\n*0\r\n" % (len(word), word))
                await writer.drain()
                writer.close()

            async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
                port = server.sockets[0].getsockname()[1]
                target = Target(ip_address("127.0.0.1"), port, "redis")
                wanted = names.RedisChecker(role=role.decode())
                assert (await wanted.check(target)).value == 100
                other = names.RedisChecker(role="replica" if role == b"primary" else "primary")
                with pytest.raises(CheckFailed, match=f"is a {role.decode()}"):
                    await other.check(target)

    asyncio.run(main())


def test_tracking_follows_what_the_program_knows() -> None:
    page = code("tracking.md")
    interface = MemoryBus().interface("192.0.2.1")

    @virtual_time()
    async def main() -> list[State]:
        return await page.failover(interface, page.Pool())

    assert main() == [State.MASTER, State.FAULT, State.BACKUP]


def test_bfd_decides_who_is_fit() -> None:
    assert run_virtual(code("bfd.md").main()) == [90, 150, 90]
