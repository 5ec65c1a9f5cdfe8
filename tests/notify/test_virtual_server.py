"""Notifiers of a virtual server, on a table in memory under virtual time."""

from __future__ import annotations

import asyncio
from pathlib import Path

from vrrpkit import Hook, MemoryTable, NotifyFIFO, VirtualServer
from vrrpkit.notify.words import words
from vrrpkit.testing import ScriptedChecker, virtual_time


@virtual_time()
async def test_servers_and_quorum_in_keepalived_s_words(tmp_path: Path) -> None:
    told: list[str] = []
    checker = ScriptedChecker(interval=1.0, retry=0)
    pool: VirtualServer

    def note(event: object) -> None:
        told.extend(word.line for word in words(event, pool))

    pool = VirtualServer(
        ["192.0.2.10:80,443/tcp"],
        servers=["10.0.0.1", "10.0.0.2:8080"],
        check=checker,
        quorum=2,
        omega=True,
        table=MemoryTable(),
        notify=[Hook(note)],
    )
    async with pool:
        await asyncio.sleep(2.5)
        assert told == ["VS [192.0.2.10]:tcp:80 UP", "VS [192.0.2.10]:tcp:443 UP"]
        told.clear()
        checker.fails("10.0.0.2:8080")
        await asyncio.sleep(2.5)
        checker.passes("10.0.0.2:8080")
        await asyncio.sleep(2.5)
    one, two = "[192.0.2.10]:tcp:80", "[192.0.2.10]:tcp:443"
    assert told[:8] == [
        f"RS [10.0.0.2]:tcp:8080 {one} DOWN",
        f"RS [10.0.0.2]:tcp:8080 {two} DOWN",
        f"VS {one} DOWN",
        f"VS {two} DOWN",
        f"RS [10.0.0.2]:tcp:8080 {one} UP",
        f"RS [10.0.0.2]:tcp:8080 {two} UP",
        f"VS {one} UP",
        f"VS {two} UP",
    ]
    # omega: at the end as if everything went down; port 0 is that of the service.
    assert f"RS [10.0.0.1]:tcp:80 {one} DOWN" in told[8:]
    assert f"RS [10.0.0.1]:tcp:443 {two} DOWN" in told[8:]


def test_the_fifo_is_freed_when_entering_fails(tmp_path: Path) -> None:
    path = tmp_path / "fifo"
    table = MemoryTable()

    async def main() -> None:
        first = VirtualServer("192.0.2.10:80", servers=["10.0.0.1:80"], table=table)
        second = VirtualServer(
            "192.0.2.10:80", servers=["10.0.0.1:80"], table=table, notify=[NotifyFIFO(path)]
        )
        async with first:
            try:
                async with second:
                    raise AssertionError("two with one service")
            except ValueError:
                pass

    asyncio.run(main())
    assert not path.exists()
