"""Notifiers of a virtual server, on a table in memory under virtual time."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from vrrpkit import MemoryTable, NotifyFIFO, NotifyFunction, VirtualServer
from vrrpkit.events import ServerDown
from vrrpkit.notify.model.keepalived import notification_of
from vrrpkit.testing import ScriptedChecker, virtual_time


@virtual_time()
async def test_a_pool_of_several_services_speaks_once_and_by_its_name() -> None:
    told: list[str] = []
    checker = ScriptedChecker(interval=1.0, retry=0)
    pool: VirtualServer

    def note(event: object) -> None:
        word = notification_of(event, pool)
        if word is not None:
            told.append(word.line)

    pool = VirtualServer(
        ["192.0.2.10:8000-8099/tcp", "192.0.2.11:53/udp"],
        servers=["10.0.0.1", "10.0.0.2:8080"],
        name='the "web"',
        check=checker,
        quorum=2,
        omega=True,
        table=MemoryTable(),
        notify=[NotifyFunction(note)],
    )
    async with pool:
        await asyncio.sleep(2.5)
        checker.fails("10.0.0.2:8080")
        await asyncio.sleep(2.5)
        checker.passes("10.0.0.2:8080")
        await asyncio.sleep(2.5)
    assert told == [
        "VS [the??web?]:0 UP",
        "RS [10.0.0.2]:tcp:8080 [the??web?]:0 DOWN",
        "VS [the??web?]:0 DOWN",
        "RS [10.0.0.2]:tcp:8080 [the??web?]:0 UP",
        "VS [the??web?]:0 UP",
        # omega: at the end as if everything went down; port 0 is that of each service.
        "RS [10.0.0.1]:tcp:0 [the??web?]:0 DOWN",
        "RS [10.0.0.2]:tcp:8080 [the??web?]:0 DOWN",
        "VS [the??web?]:0 DOWN",
    ]


@virtual_time()
async def test_what_a_word_costs_does_not_grow_with_the_pool(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def look_at_all(_: VirtualServer) -> None:
        raise AssertionError("with 10,000 servers this holds everything up")

    async with VirtualServer("192.0.2.10:80", servers=["10.0.0.1"], table=MemoryTable()) as pool:
        monkeypatch.setattr(VirtualServer, "servers", property(look_at_all))
        event = ServerDown(virtual_server="web", at=0.0, server="10.0.0.1", reason="refused")
        word = notification_of(event, pool)
    assert word is not None
    assert word.line == "RS [10.0.0.1]:tcp:80 [192.0.2.10]:tcp:80 DOWN"


@virtual_time()
async def test_who_comes_later_is_told_what_is_wrong_and_of_the_quorum() -> None:
    heard: list[str] = []
    checker = ScriptedChecker(interval=1.0, retry=0)
    checker.fails("10.0.0.2:80", "connection refused")
    pool = VirtualServer(
        "192.0.2.10:80",
        servers=["10.0.0.1:80", "10.0.0.2:80"],
        name="web",
        check=checker,
        table=MemoryTable(),
    )
    async with pool:
        await asyncio.sleep(2.5)
        pool.add_notifier(NotifyFunction(lambda event: heard.append(str(event))))
        await asyncio.sleep(0.1)
        assert heard == [
            "web: 10.0.0.2:80 is down: Scripted: connection refused",
            "web: quorum reached with weight 1",
        ]
        checker.fails("10.0.0.1:80")
        await asyncio.sleep(2.5)
        heard.clear()
        pool.add_notifier(NotifyFunction(lambda event: heard.append(str(event))))
        await asyncio.sleep(0.1)
        assert heard[-1] == "web: quorum lost with weight 0"


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
