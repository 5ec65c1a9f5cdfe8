"""How a virtual server uses masquerading, with the rules and the kernel's table played."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from pathlib import Path

import pytest

from vrrpkit.errors import Closed, HostError
from vrrpkit.ipvs.memory.table import MemoryTable
from vrrpkit.ipvs.model.entries import Destination, ServiceKey
from vrrpkit.ipvs.server import VirtualServer
from vrrpkit.testing import virtual_time

A, B, SORRY = "10.0.0.1:80", "10.0.0.2:80", "10.0.0.9:80"


class Kernel(MemoryTable):
    netns = "left"
    current_one: Kernel

    @classmethod
    def current(cls) -> Kernel:
        return cls.current_one


class Rules:
    """Notes what it is asked for."""

    log: list[str] = []  # noqa: RUF012 - one for all of a test
    problem: str | None = None
    gone = False
    delay = 0.0
    pause = 0.0
    table: Kernel

    def __init__(self, services: Iterable[ServiceKey], *, netns: str | None, name: str) -> None:
        self.log.append(f"{', '.join(map(str, services))} in {netns} for {name}")

    def _check(self) -> None:
        if self.problem is not None:
            raise HostError(self.problem)

    async def update(self, destinations: Iterable[Destination]) -> None:
        self._check()
        await asyncio.sleep(self.delay)
        self.log.append("servers " + ", ".join(str(d.key) for d in destinations))

    async def __aenter__(self) -> None:
        self._check()
        self.log.append(f"enter with {len(await self.table.read())} services")
        await asyncio.sleep(self.pause)

    async def __aexit__(self, *problem: object) -> None:
        self.log.append(f"exit with {len(await self.table.read())} services")

    async def keep(self) -> None:
        self.log.append(f"keep with {len(await self.table.read())} services")

    async def ensure(self) -> bool:
        await asyncio.sleep(1)
        self._check()
        self.log.append("ensure")
        return self.gone


@pytest.fixture
def table(monkeypatch: pytest.MonkeyPatch) -> Kernel:
    monkeypatch.setattr("vrrpkit.ipvs.kernel.table.KernelTable", Kernel)
    monkeypatch.setattr("vrrpkit.ipvs.masquerade.rules.Masquerade", Rules)
    made = Kernel()
    monkeypatch.setattr(Rules, "log", [])
    monkeypatch.setattr(Rules, "table", made, raising=False)
    monkeypatch.setattr(Kernel, "current_one", made, raising=False)
    return made


def web(at_exit: str = "remove", state_file: Path | None = None) -> VirtualServer:
    return VirtualServer(
        "192.0.2.10:80",
        servers=[A],
        sorry=SORRY,
        name="web",
        masquerade=True,
        at_exit=at_exit,
        state_file=state_file,
        poll_interval=10,
    )


@virtual_time()
async def test_the_rules_are_there_before_the_services_and_until_after(table: Kernel) -> None:
    async with web() as pool:
        await pool.add(B)
        await pool.remove(A)
    assert Rules.log == [
        "192.0.2.10:80/tcp in left for web",
        f"servers {SORRY}, {A}",
        "enter with 0 services",
        f"servers {SORRY}, {A}, {B}",
        f"servers {SORRY}, {B}",
        "exit with 0 services",
    ]
    assert table.users == 0


@virtual_time()
async def test_kept_services_keep_their_rules(table: Kernel) -> None:
    async with web("keep"):
        pass
    assert Rules.log[-1] == "keep with 1 services"
    assert len(await table.read()) == 1


@virtual_time()
async def test_where_nothing_is_kept_the_rules_go_too(
    table: Kernel, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "state").mkdir()
    with pytest.raises(HostError, match="cannot be read"):
        await web("keep", state_file=tmp_path / "state").__aenter__()
    assert Rules.log[-1] == "exit with 0 services"
    async with web("keep"):
        await table.flush()
        table.refuse(lambda _: True)
        await asyncio.sleep(15)
    assert Rules.log[-1] == "exit with 0 services"


@virtual_time()
async def test_a_run_that_fails_to_start_keeps_what_serves(table: Kernel, tmp_path: Path) -> None:
    async with web("keep"):
        pass
    (tmp_path / "state").mkdir()
    with pytest.raises(HostError, match="cannot be read"):
        await web("keep", state_file=tmp_path / "state").__aenter__()
    assert Rules.log[-1] == "keep with 1 services"


@virtual_time()
async def test_without_masquerading_what_was_kept_is_forgotten(
    table: Kernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    forgotten: list[tuple[str, str | None]] = []

    async def discard(name: str, netns: str | None) -> None:
        forgotten.append((name, netns))

    monkeypatch.setattr("vrrpkit.ipvs.masquerade.rules.discard", discard)
    async with VirtualServer("192.0.2.10:80", servers=[A], name="web"):
        assert forgotten == [("web", "left")]
    async with VirtualServer("192.0.2.10:80", servers=[A], name="web", table=MemoryTable()):
        assert len(forgotten) == 1


@virtual_time()
async def test_cancelled_while_the_rules_are_set_it_takes_them_back(
    table: Kernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Rules, "pause", 1.0)
    entering = asyncio.create_task(web().__aenter__())
    await asyncio.sleep(0.5)
    entering.cancel()
    with pytest.raises(asyncio.CancelledError):
        await entering
    assert Rules.log[-2:] == ["enter with 0 services", "exit with 0 services"]


@virtual_time()
async def test_what_the_host_lacks_is_said_before_the_table_is_touched(
    table: Kernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Rules, "problem", "no nft")
    with pytest.raises(HostError, match="no nft"):
        await web().__aenter__()
    assert (table.operations, table.users) == ([], 0)


@virtual_time()
async def test_a_server_that_cannot_be_masqueraded_does_not_join(
    table: Kernel, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async with web() as pool:
        with monkeypatch.context() as patch:
            patch.setattr(Rules, "problem", "no nft")
            with pytest.raises(HostError, match="no nft"):
                await pool.add(B)
            assert [status.name for status in pool.servers] == [A]
        await pool.add(B)
        monkeypatch.setattr(Rules, "problem", "no nft")
        await pool.remove(B)
    assert f"{B}: it is masqueraded on: no nft" in caplog.text


@virtual_time()
async def test_those_who_join_together_are_all_masqueraded(
    table: Kernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Rules, "delay", 0.5)
    async with web() as pool:
        await asyncio.gather(pool.add(B), pool.add("10.0.0.3:80"))
        assert Rules.log[-1] == f"servers {SORRY}, {A}, {B}, 10.0.0.3:80"


@virtual_time()
async def test_one_that_joins_while_it_ends_does_not_join(
    table: Kernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Rules, "delay", 0.5)
    async with web("keep") as pool:
        joining = asyncio.create_task(pool.add(B))
        await asyncio.sleep(0.1)
    with pytest.raises(Closed):
        await joining
    assert [len(entry.destinations) for entry in (await table.read()).values()] == [1]


@virtual_time()
async def test_each_poll_looks_after_the_rules(
    table: Kernel, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async with web():
        await asyncio.sleep(12)
        assert Rules.log.count("ensure") == 1
        assert "put right" not in caplog.text
        monkeypatch.setattr(Rules, "gone", True)
        await asyncio.sleep(10)
        assert "put right: the rules for masquerading were gone" in caplog.text
        monkeypatch.setattr(Rules, "problem", "no nft")
        await asyncio.sleep(10)
        assert "cannot be restored: no nft" in caplog.text
        monkeypatch.setattr(Rules, "problem", None)
        await asyncio.sleep(8.5)
    # One that was under way has ended before the rules went.
    assert Rules.log[-2:] == ["ensure", "exit with 0 services"]
