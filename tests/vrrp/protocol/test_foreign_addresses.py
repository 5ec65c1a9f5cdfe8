"""Virtual addresses that somebody else has put on the host of a router that is not MASTER."""

from __future__ import annotations

import asyncio
import logging
import math
from ipaddress import ip_address
from typing import Any

import pytest

from vrrp.routers import VIP as ADDRESS, mastering, router
from vrrpkit import VIP, ConfigError, MemoryBus, State, VRRPInstance
from vrrpkit.events import ForeignAddress
from vrrpkit.testing import virtual_time
from vrrpkit.vrrp.protocol.foreign_addresses import AGAIN, ForeignState, MisplacedAddress

BACKUP, MASTER, FAULT, INIT = State.BACKUP, State.MASTER, State.FAULT, State.INIT
ONE = MisplacedAddress("eth0", ip_address("192.0.2.10"), 24)
TWO = MisplacedAddress("eth0", ip_address("192.0.2.11"), 32)
NONE = frozenset[MisplacedAddress]()


class TestForeignState:
    @pytest.mark.parametrize("state", [BACKUP, FAULT])
    def test_each_is_told_once(self, state: State) -> None:
        foreign = ForeignState(remove=False)
        assert foreign.look(frozenset({ONE}), state, 0) == [ONE]
        assert foreign.look(frozenset({ONE}), state, 1) == []
        assert foreign.look(frozenset({ONE, TWO}), state, 2) == [TWO]
        assert foreign.present == {ONE, TWO}
        assert foreign.look(NONE, state, 3) == []
        assert foreign.present == NONE
        assert foreign.look(frozenset({TWO, ONE}), state, 4) == [ONE, TWO]
        assert not foreign.may_remove(4)

    @pytest.mark.parametrize("state", [MASTER, INIT])
    def test_who_may_use_it_is_told_when_that_ends(self, state: State) -> None:
        foreign = ForeignState(remove=False)
        assert foreign.look(frozenset({ONE}), BACKUP, 0) == [ONE]
        assert foreign.look(frozenset({ONE}), state, 1) == []
        assert foreign.present == NONE
        assert foreign.look(frozenset({ONE}), BACKUP, 2) == [ONE]

    def test_removals_are_bounded(self) -> None:
        foreign = ForeignState(remove=True)
        assert [foreign.may_remove(now) for now in (0, 1, 2, 3)] == [True, True, True, False]
        assert foreign.retry_at == 3 + AGAIN
        foreign.look(frozenset({ONE}), BACKUP, 3)
        assert foreign.look(frozenset({ONE}), BACKUP, 3 + AGAIN - 1) == []
        assert foreign.look(frozenset({ONE}), BACKUP, 3 + AGAIN) == [ONE]
        assert foreign.may_remove(3 + AGAIN)
        assert foreign.retry_at is None

    def test_what_nobody_minds_any_more_is_not_tried_again(self) -> None:
        foreign = ForeignState(remove=True)
        for now in range(4):
            foreign.may_remove(now)
        foreign.look(frozenset({ONE}), MASTER, 4)
        assert foreign.retry_at is None


def noted(instance: VRRPInstance) -> list[ForeignAddress]:
    seen: list[ForeignAddress] = []
    instance._hub.on(ForeignAddress, seen.append)  # pyright: ignore[reportPrivateUsage]
    return seen


def told(seen: list[ForeignAddress]) -> list[tuple[str, str]]:
    return [(f"{each.address}/{each.prefix} dev {each.device}", each.action) for each in seen]


@pytest.mark.parametrize("prefix", [24, 32])
@virtual_time()
async def test_an_address_that_is_there_at_the_start(
    prefix: int, caplog: pytest.LogCaptureFixture
) -> None:
    bus = MemoryBus()
    host = bus.interface("192.0.2.2")
    host.add(f"{ADDRESS}/{prefix}")
    b = router(bus, "b", "192.0.2.2", vips=[f"{ADDRESS}/32"], priority=100)
    seen = noted(b)
    async with router(bus, "a", vips=[f"{ADDRESS}/32"]) as a:
        await mastering(a)
        async with b:
            await asyncio.sleep(5)
            what = f"{ADDRESS}/{prefix} dev {host.name}"
            assert told(seen) == [(what, "left there")]
            assert b.foreign_addresses == (what,)
            (line,) = [each for each in caplog.records if ADDRESS in each.getMessage()]
            assert line.levelno == logging.WARNING
            assert f"ip address delete {what}" in line.getMessage()
            assert set(bus.owners(ADDRESS)) == {"192.0.2.1", "192.0.2.2"}
        assert host.holds(ip_address(ADDRESS))
    assert a.foreign_addresses == ()


@virtual_time()
async def test_one_that_comes_later_and_goes_again() -> None:
    bus = MemoryBus()
    host = bus.interface("192.0.2.2")
    b = router(bus, "b", "192.0.2.2", priority=100)
    seen = noted(b)
    async with router(bus) as a, b:
        await mastering(a)
        host.add(f"{ADDRESS}/32")
        assert [each.state for each in seen] == [BACKUP]
        host.add("192.0.2.77/32")
        host.delete(ADDRESS)
        assert b.foreign_addresses == ()
        host.add(f"{ADDRESS}/32")
        assert len(seen) == 2


@virtual_time()
async def test_a_master_uses_it_in_place_and_tells_on_leaving() -> None:
    bus = MemoryBus()
    host = bus.interface("192.0.2.1")
    a = router(bus)
    seen = noted(a)
    host.add(f"{ADDRESS}/24")
    async with a:
        await mastering(a)
        assert len(seen) == 1 and a.foreign_addresses == ()
        host.delete(ADDRESS)
        await asyncio.sleep(0.1)
        host.delete(ADDRESS)
        await asyncio.sleep(0.1)
        assert a.state is MASTER and len(seen) == 1
        a.demote(1)
        await asyncio.sleep(0.1)
        assert (a.state, len(seen)) == (BACKUP, 1), "its own address is gone by then"
        host.add(f"{ADDRESS}/24")
        await mastering(a)
        bus.unplug("192.0.2.1")
        assert [each.state for each in seen] == [BACKUP, BACKUP, FAULT]


@virtual_time()
async def test_it_is_removed_if_asked_and_not_for_ever() -> None:
    bus = MemoryBus()
    host = bus.interface("192.0.2.2")
    b = router(bus, "b", "192.0.2.2", priority=100, foreign_address="remove")
    seen = noted(b)
    async with router(bus) as a, b:
        await mastering(a)
        for _ in range(3):
            host.add(f"{ADDRESS}/32")
            assert not host.holds(ip_address(ADDRESS))
            await asyncio.sleep(1)
        host.add(f"{ADDRESS}/32")
        assert [each.action for each in seen] == ["removed"] * 3 + ["left there"]
        assert host.holds(ip_address(ADDRESS))
        await asyncio.sleep(AGAIN)
        assert [each.action for each in seen[4:]] == ["removed"]
        assert bus.owners(ADDRESS) == ["192.0.2.1"]


@virtual_time()
async def test_what_cannot_be_removed_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    bus = MemoryBus()
    host = bus.interface("192.0.2.2")
    monkeypatch.setattr(host, "remove_foreign", lambda *_: PermissionError(1, "Not permitted"))
    b = router(bus, "b", "192.0.2.2", foreign_address="remove")
    seen = noted(b)
    host.add(f"{ADDRESS}/32")
    async with b:
        assert told(seen) == [(f"{ADDRESS}/32 dev {host.name}", "Not permitted")]


@pytest.mark.parametrize(
    ("device", "options"),
    [("lo", {"vips": [VIP(ADDRESS, dev="lo")]}), ("mem1", {"priority": 255}), ("eth1", {})],
    ids=["lo", "owner", "elsewhere"],
)
@virtual_time()
async def test_where_it_is_nobody_s_business(device: str, options: dict[str, Any]) -> None:
    bus = MemoryBus()
    host = bus.interface("192.0.2.1", name="mem1")
    place = host.device(device)
    place.add(f"{ADDRESS}/32")
    place.abandoned.add(ip_address(ADDRESS))
    a = router(bus, foreign_address="remove", **options)
    seen = noted(a)
    async with a:
        bus.unplug("192.0.2.1")
        assert (a.state, seen, a.foreign_addresses) == (FAULT, [], ())
        assert place.holds(ip_address(ADDRESS))


@virtual_time()
async def test_on_another_device() -> None:
    bus = MemoryBus()
    host = bus.interface("192.0.2.1")
    host.device("eth1").add(f"{ADDRESS}/32")
    host.add(f"{ADDRESS}/32")
    a = router(bus, vips=[VIP(ADDRESS, dev="eth1")], foreign_address="remove")
    seen = noted(a)
    async with a:
        assert told(seen) == [(f"{ADDRESS}/32 dev eth1", "removed")]
        assert [str(each.ip) for each in host.device("eth1").manager.table] == []
        assert ADDRESS in {str(each.ip) for each in host.manager.table}


@virtual_time()
async def test_what_a_killed_keepalived_left_is_removed_at_the_start() -> None:
    bus = MemoryBus()
    host = bus.interface("192.0.2.1")
    for text in (f"{ADDRESS}/24", "192.0.2.99/24"):
        host.add(text)
        host.abandoned.add(ip_address(text.partition("/")[0]))
    a = router(bus)
    seen = noted(a)
    async with a:
        assert seen == []
        assert not host.manager.table.keys() & {VIP(f"{ADDRESS}/24").interface}
        assert host.holds(ip_address("192.0.2.99"))


@pytest.mark.parametrize("bad", ["keep", None, True, math.nan])
def test_the_policy_is_one_of_two(bad: Any) -> None:
    for good in ("tell", "remove"):
        router(MemoryBus(), foreign_address=good)
    with pytest.raises(ConfigError, match="foreign_address"):
        router(MemoryBus(), foreign_address=bad)
