"""The Lan: what can happen on it, what can be seen, and how it prints."""

from __future__ import annotations

import asyncio
import time
from ipaddress import ip_address
from typing import Any

import pytest

from vrrpkit import Closed, ConfigError, State, VRRPInstance, VRRPKitError
from vrrpkit.testing import Lan, virtual_time
from vrrpkit.vrrp.protocol.inputs import SetPriority
from vrrpkit.vrrp.protocol.machine import Machine

VIP = "192.0.2.10"
VIPS = [f"{VIP}/24"]


def pair(lan: Lan, **options: Any) -> tuple[VRRPInstance, VRRPInstance]:
    """Two routers: ``a`` is to be MASTER."""
    a = lan.router("a", vips=VIPS, priority=150, **options)
    return a, lan.router("b", vips=VIPS, **options)


def now() -> float:
    return asyncio.get_running_loop().time()


@virtual_time(seed=7)
async def test_writer_follows_the_vip() -> None:
    async with Lan() as lan:
        a = lan.router("a", vips=["192.0.2.10/24"], priority=150)
        lan.router("b", vips=["192.0.2.10/24"])
        await lan.settle()
        assert a.state is State.MASTER
        lan.crash("a")
        await asyncio.sleep(3.7)
        assert lan.owner("192.0.2.10") == "b"
        lan.check()


class TestRouters:
    @virtual_time()
    async def test_they_run_once_something_is_awaited(self) -> None:
        async with Lan() as lan:
            a, _b = pair(lan)
            assert a.state is State.INIT
            await asyncio.sleep(0)
            await a.wait_for(State.BACKUP)
            assert lan.instance("a") is a

    @virtual_time()
    async def test_addresses_are_counted_upwards_and_clear_of_the_virtual_ones(self) -> None:
        async with Lan() as lan:
            for name, vips in (
                ("a", ["192.0.2.2/24"]),
                ("b", ["192.0.2.2/24"]),
                ("small", ["203.0.113.7/32"]),
                ("six", ["2001:db8::1/64"]),
                ("local", ["fe80::1/64"]),
            ):
                lan.router(name, vips=vips, vrid=51 if len(name) == 1 else 52)
            owner = lan.router("owner", vips=["192.0.2.9/24"], vrid=53, priority=255)
            given = lan.router("given", vips=VIPS, vrid=54, address="192.0.2.77")
            await asyncio.sleep(0.1)
            named = {name: str(lan.interface(name).manager.table) for name in ("a", "b", "small")}
            assert "192.0.2.1/24" in named["a"] and "192.0.2.3/24" in named["b"]
            assert "198.51.100.1/24" in named["small"]
            assert str(owner.source) == "192.0.2.9" and str(given.source) == "192.0.2.77"
            six = lan.instance("six")
            assert six.source is not None and six.source.is_link_local
            assert lan.instance("local").state is State.BACKUP

    @virtual_time()
    async def test_two_on_one_host(self) -> None:
        async with Lan() as lan:
            for host, first, second in (("a", 150, 100), ("b", 100, 150)):
                lan.router(host, vips=VIPS, priority=first)
                lan.router(f"{host}2", vips=["192.0.2.11/24"], vrid=52, priority=second, on=host)
            await lan.settle()
            assert (lan.owner(VIP), lan.owner("192.0.2.11")) == ("a", "b2")
            assert (lan.masters(), lan.masters(52)) == (["a"], ["b2"])
            lan.crash("a2")
            await lan.settle()
            assert (lan.owner(VIP), lan.owner("192.0.2.11")) == ("b", "b2")
            lan.start("a2")
            lan.start("a")
            await lan.settle()
            assert lan.owner(VIP) == "a"
            lan.check()

    @virtual_time()
    async def test_mistakes_are_told(self) -> None:
        lan = Lan()
        with pytest.raises(VRRPKitError, match="async with"):
            lan.router("a", vips=VIPS)
        async with lan:
            lan.router("a", vips=VIPS)
            with pytest.raises(ConfigError, match="there is a router 'a' already"):
                lan.router("a", vips=VIPS)
            with pytest.raises(ConfigError, match="to share it, use on="):
                lan.router("b", vips=VIPS, address="192.0.2.1")
            with pytest.raises(ConfigError, match="vips is empty"):
                lan.router("b", vips=[])
            with pytest.raises(ConfigError, match="there is no router 'z' on this Lan, but a"):
                lan.crash("z")
            with pytest.raises(VRRPKitError, match="a runs already"):
                lan.start("a")
        with pytest.raises(ConfigError, match="probability"):
            Lan(loss=2)

    @virtual_time()
    async def test_version_2_and_ipv6_settle_too(self) -> None:
        async with Lan(delay=0.002) as lan:
            for name in "ab":
                lan.router(name, vips=VIPS, version=2)
                lan.router(f"{name}6", vips=["2001:db8::10/64"], on=name)
            await lan.settle()
            assert lan.owner(VIP) == "b" and lan.owner("2001:db8::10") == "b6"
            lan.check()


class TestEnds:
    @virtual_time()
    async def test_stopping_releases(self) -> None:
        async with Lan() as lan:
            a, b = pair(lan)
            await lan.settle()
            stopped = now()
            await lan.stop("a")
            assert (a.state, lan.owner(VIP), now()) == (State.INIT, None, stopped)
            await b.wait_for(State.MASTER)
            assert now() - stopped == pytest.approx(156 / 256)
            await lan.stop("a")

    @virtual_time()
    async def test_a_crash_says_nothing_and_takes_the_addresses_along(self) -> None:
        async with Lan() as lan:
            a, b = pair(lan)
            await lan.settle()
            waiting = asyncio.create_task(a.wait_for(State.BACKUP))
            await asyncio.sleep(0)
            crashed = now()
            lan.crash("a")
            assert lan.owner(VIP) is None
            with pytest.raises(Closed):
                await waiting
            assert a.state is State.INIT
            await b.wait_for(State.MASTER)
            assert now() - crashed == pytest.approx(3 + 156 / 256)
            again = lan.start("a")
            assert again is not a
            await lan.settle()
            assert lan.owner(VIP) == "a" and again.state is State.MASTER
            lan.check()

    @virtual_time()
    async def test_a_killed_process_leaves_its_addresses(self) -> None:
        async with Lan() as lan:
            pair(lan)
            await lan.settle()
            lan.kill("a")
            await asyncio.sleep(4)
            assert lan.owners(VIP) == ["a", "b"]
            with pytest.raises(VRRPKitError, match=r"held by a, b at the same time"):
                lan.owner(VIP)
            lan.start("a")
            await asyncio.sleep(0.1)
            assert lan.owner(VIP) == "b"
            lan.check()

    @pytest.mark.parametrize("how", ["kill", "pause"])
    def test_a_lease_takes_them_off_all_the_same(self, how: str) -> None:
        @virtual_time()
        async def leased() -> None:
            async with Lan() as lan:
                pair(lan, vip_lease=3)
                await lan.settle()
                getattr(lan, how)("a")
                await asyncio.sleep(3.01)
                assert lan.owner(VIP) is None
                await lan.settle()
                assert lan.owner(VIP) == "b"
                lan.check()

        leased()

    @virtual_time()
    async def test_leaving_leaves_every_router(self) -> None:
        async with Lan() as lan:
            pair(lan)
            await lan.settle()
            lan.pause("b")
        assert lan.owners(VIP) == []
        assert str(lan).count("-> INIT: shutdown") == 2

    @virtual_time()
    async def test_what_the_body_raises_is_not_wrapped(self) -> None:
        async def body() -> None:
            async with Lan() as lan:
                pair(lan)
                await lan.settle()
                raise KeyError("mine")

        with pytest.raises(KeyError, match="mine"):
            await body()

    @virtual_time()
    async def test_a_bug_in_a_router_ends_the_body(self, monkeypatch: pytest.MonkeyPatch) -> None:
        handle = Machine.handle

        def failing(self: Machine, event: Any, at: float) -> Any:
            if isinstance(event, SetPriority):
                raise ZeroDivisionError
            return handle(self, event, at)

        async def body() -> None:
            async with Lan() as lan:
                a, _b = pair(lan)
                await lan.settle()
                monkeypatch.setattr(Machine, "handle", failing)
                a.set_priority(7)
                await asyncio.sleep(3600)

        with pytest.raises(ZeroDivisionError):
            await body()

    @virtual_time()
    async def test_a_router_that_cannot_start_ends_it(self) -> None:
        async def body() -> None:
            async with Lan() as lan:
                lan.router("a", vips=VIPS, source="192.0.2.99")
                await lan.settle()

        with pytest.raises(VRRPKitError, match=r"192\.0\.2\.99 is not on a"):
            await body()

    @virtual_time()
    async def test_cancelling_it(self) -> None:
        async def body() -> None:
            async with Lan() as lan:
                pair(lan)
                await asyncio.sleep(3600)

        task = asyncio.create_task(body())
        await asyncio.sleep(5)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


class TestHardship:
    @virtual_time()
    async def test_a_stalled_process(self) -> None:
        async with Lan() as lan:
            a, b = pair(lan)
            await lan.settle()
            lan.pause("a")
            lan.pause("a")
            await lan.settle()
            assert lan.owners(VIP) == ["a", "b"] and b.state is State.MASTER
            lan.resume("a")
            lan.resume("a")
            await asyncio.sleep(0.1)
            assert a.state is State.BACKUP and lan.owner(VIP) == "b"
            await lan.settle()
            assert lan.owner(VIP) == "a"
            lan.check()

    @virtual_time()
    async def test_a_stalled_process_can_be_stopped_and_crash(self) -> None:
        async with Lan() as lan:
            pair(lan)
            await lan.settle()
            lan.pause("a")
            await lan.stop("a")
            assert lan.owner(VIP) is None
            lan.start("a")
            await lan.settle()
            lan.pause("a")
            lan.crash("a")
            assert lan.owner(VIP) is None
            lan.start("a")
            await lan.settle()
            lan.pause("a")
            lan.kill("a")
            assert lan.owner(VIP) == "a"
            await lan.settle()
            lan.start("a")
            await lan.settle()
            assert lan.owner(VIP) == "a"
            lan.check()

    @virtual_time()
    async def test_a_partition_and_its_end(self) -> None:
        async with Lan() as lan:
            pair(lan)
            await lan.settle()
            lan.cut("a", "b")
            await lan.settle()
            assert lan.masters() == ["a", "b"]
            lan.heal("a", "b")
            await lan.settle()
            assert lan.masters() == ["a"] and lan.owner(VIP) == "a"
            lan.cut("b", "a", one_way=True)
            await asyncio.sleep(10)
            assert lan.masters() == ["a"]
            lan.heal()
            lan.cut("a", "b", one_way=True)
            await lan.settle()
            assert lan.masters() == ["a", "b"]
            lan.heal("b")
            await lan.settle()
            lan.check()

    @virtual_time()
    async def test_cables(self) -> None:
        async with Lan() as lan:
            a, b = pair(lan)
            await lan.settle()
            lan.unplug("a")
            lan.unplug("a")
            assert a.state is State.FAULT
            await lan.settle()
            assert b.state is State.MASTER
            lan.unplug("b")
            await lan.settle()
            assert lan.owners(VIP) == []
            lan.crash("a")
            lan.plug("a")
            lan.plug("b")
            lan.start("a")
            await lan.settle()
            assert lan.owner(VIP) == "a"
            lan.kill("b")
            lan.unplug("b")
            again = lan.start("b")
            await asyncio.sleep(1)
            assert again.state is State.FAULT
            lan.plug("b")
            await lan.settle()
            lan.check()

    @virtual_time(seed=4)
    async def test_losses_and_delays(self) -> None:
        async with Lan(delay=0.01, jitter=0.01, duplication=0.1, reordering=0.1) as lan:
            pair(lan)
            await lan.settle()
            lan.lossy(0.3)
            await asyncio.sleep(300)
            lan.slow(0.2, 0.1)
            await asyncio.sleep(100)
            lan.lossy(0)
            await lan.settle()
            lan.check()
            assert "lost" in lan.timeline().text(adverts=True)

    @virtual_time()
    async def test_it_gives_up_when_nothing_settles(self) -> None:
        async with Lan() as lan:
            pair(lan)
            with pytest.raises(TimeoutError, match=r"do not settle(.|\n)*INIT -> BACKUP"):
                await lan.settle(limit=3)

    @virtual_time()
    async def test_waiting_for_a_preemption(self) -> None:
        async with Lan() as lan:
            lan.router("b", vips=VIPS)
            await lan.settle()
            lan.router("a", vips=VIPS, priority=150, preempt_delay=30)
            lan.router("c", vips=VIPS, priority=200, preempt=False)
            await lan.settle()
            assert lan.masters() == ["a"]
            lan.check()

    @virtual_time()
    async def test_a_virtual_mac(self) -> None:
        async with Lan() as lan:
            pair(lan, virtual_mac=True)
            await lan.settle()
            assert lan.owner(VIP) == "a"
            lan.crash("a")
            await lan.settle()
            lan.start("a")
            await lan.settle()
            assert lan.owner(VIP) == "a"
            lan.check()


class TestTimeline:
    @virtual_time()
    async def test_it_reads_well(self) -> None:
        async with Lan() as lan:
            pair(lan)
            await lan.settle()
            await asyncio.sleep(2.5)
            lan.crash("a")
            await lan.settle()
            assert str(lan).splitlines() == [
                "    0.000  a  started (priority 150)",
                "    0.000  a  INIT -> BACKUP: startup",
                "    0.000  b  started (priority 100)",
                "    0.000  b  INIT -> BACKUP: startup",
                "    3.414  a  BACKUP -> MASTER: no-response",
                "    3.414  b  follows 192.0.2.1 (priority 150)",
                "    3.414  a  +192.0.2.10",
                "    5.914  a  *** crash",
                "    5.914  a  -192.0.2.10",
                "    9.023  b  BACKUP -> MASTER: no-response",
                "    9.023  b  +192.0.2.10",
            ]
            assert "a  advert with priority 150 (2 times)" in lan.timeline().text(adverts=True)
            timeline = lan.timeline()
            assert len(timeline.of("a")) + len(timeline.of("b")) == len(timeline)
            later = timeline.since(timeline.start + 6)
            assert str(later).startswith("    9.023  b  BACKUP") and later[0].who == "b"

    @virtual_time()
    async def test_everything_has_its_line(self) -> None:
        async with Lan(delay=0.001) as lan:
            a = lan.router("a", vips=VIPS, priority=150)
            lan.router("b", vips=[*VIPS, "192.0.2.11/24"], interval=2)
            lan.router("c", vips=VIPS, priority=20, version=2)
            lan.router("d", vips=["192.0.2.50/24"], vrid=52, on="a")
            await lan.settle()
            lan.interface("a").delete(VIP)
            await asyncio.sleep(3)
            lan.cut("a", "b", one_way=True)
            await asyncio.sleep(8)
            lan.heal("a", "b")
            lan.pause("a")
            await asyncio.sleep(12)
            lan.resume("a")
            a.set_priority(140)
            lan.unplug("a")
            lan.plug("a")
            await lan.settle()
            await lan.stop("a")
            lan.kill("b")
            text = str(lan)
        for line in (
            "*** loss 0, transit at most 0.001 s",
            "d  started on a (priority 100)",
            "lost 192.0.2.10, reinstated",
            "interval from 192.0.2.2: got 200 cs, want 100 cs",
            "address-list from 192.0.2.2: got 192.0.2.11, want nothing else",
            "rejects 1 from 192.0.2.3: version: got 2, want 3",
            "a  *** cut -> b",
            "a  *** healed <-> b",
            "a  *** paused",
            "a  *** resumed",
            "a  stood still for",
            "a  priority 150 -> 140",
            "a  *** unplugged",
            "a  *** plugged in",
            "a  faults: interface-down",
            "a  faults: none",
            "a  advert with priority 0",
            "b  *** kill -9",
            "hears another master, 192.0.2.2 (priority 100)",
        ):
            assert line in text, f"{line!r} is not in\n{text}"

    def test_equal_seeds_give_equal_runs(self) -> None:
        def router_run(seed: int) -> str:
            @virtual_time(seed=seed)
            async def run() -> str:
                async with Lan(loss=0.3, jitter=0.05) as lan:
                    pair(lan)
                    await asyncio.sleep(60)
                    return lan.timeline().text(adverts=True)

            return run()

        assert router_run(5) == router_run(5) != router_run(6)


def test_it_works_under_real_time() -> None:
    async def main() -> None:
        async with Lan() as lan:
            pair(lan, interval=0.05)
            await lan.settle()
            lan.crash("a")
            await lan.settle()
            assert lan.owner(VIP) == "b"
            lan.check(tolerance=0.5)

    before = time.monotonic()
    asyncio.run(main())
    assert time.monotonic() - before < 5


class TestInvariantsAllowWhatIsRight:
    @virtual_time()
    async def test_a_refused_address(self) -> None:
        async with Lan() as lan:
            pair(lan)
            lan.interface("a").manager.failures[ip_address(VIP)] = OSError(99, "refused")
            await asyncio.sleep(30)
            assert lan.owner(VIP) == "b"
            lan.crash("b")
            await asyncio.sleep(30)
            assert lan.masters() == ["a"] and lan.owner(VIP) is None
            lan.interface("a").manager.failures.clear()
            lan.start("b")
            await asyncio.sleep(60)
            lan.check()

    @virtual_time()
    async def test_an_address_that_is_left_gone(self) -> None:
        async with Lan() as lan:
            lan.router("a", vips=[f"{VIP}/24"], on_address_lost="ignore")
            await lan.settle()
            lan.interface("a").delete(VIP)
            await asyncio.sleep(5)
            assert lan.owner(VIP) is None
            lan.check()

    @virtual_time()
    async def test_an_address_that_was_there_before(self) -> None:
        async with Lan() as lan:
            a, _ = pair(lan)
            lan.interface("a").add(f"{VIP}/24")
            await lan.settle()
            assert a.state is State.MASTER
            lan.check()

    @virtual_time()
    async def test_a_router_that_is_promoted_while_its_process_stands_still(self) -> None:
        async with Lan() as lan:
            late = lan.router("b", vips=[f"{VIP}/24"], priority=150)
            await asyncio.sleep(0)
            lan.pause("b")
            lan.router("c", vips=[f"{VIP}/24"], priority=50)
            await asyncio.sleep(3)
            late.promote()
            await asyncio.sleep(1)
            lan.check()
