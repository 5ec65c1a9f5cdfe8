"""VRRPInstance in memory, under virtual time: what its users can rely on."""

from __future__ import annotations

import asyncio

import pytest

from vrrp.routers import VIP, adverts, free, mastering, router
from vrrpkit import Closed, ConfigError, MemoryBus, State, Transition, VRRPInstance, VRRPKitError
from vrrpkit.errors import DuplicateRouter, InterfaceMissing, NotEligible, SourceMissing
from vrrpkit.events import EventsLost, PriorityChanged, TransitionReason
from vrrpkit.host.base import Link
from vrrpkit.host.memory.bus import MemoryInterface
from vrrpkit.testing import virtual_time

MASTER, BACKUP, FAULT, INIT = State.MASTER, State.BACKUP, State.FAULT, State.INIT


def now() -> float:
    return asyncio.get_running_loop().time()


class TestLifecycle:
    @virtual_time()
    async def test_entering_returns_once_started(self) -> None:
        bus = MemoryBus()
        instance = router(bus)
        assert instance.state is INIT
        started = now()
        async with instance as entered:
            assert entered is instance
            assert (instance.state, now()) == (BACKUP, started)
        assert instance.state is INIT

    @virtual_time()
    async def test_silence_makes_it_master(self) -> None:
        bus = MemoryBus()
        started = now()
        async with router(bus) as instance:
            await instance.wait_for(MASTER)
            assert now() - started == pytest.approx(3 + 106 / 256)
            assert instance.skew_time == pytest.approx(106 / 256)
            assert instance.master_down_interval == pytest.approx(3 + 106 / 256)

    @virtual_time()
    async def test_an_owner_is_master_at_once(self) -> None:
        bus = MemoryBus()
        async with router(bus, address=f"{VIP}/24", priority=255) as owner:
            assert owner.state is MASTER
            assert owner.source == owner.master
            assert adverts(bus, VIP) == [(now(), 255)]

    @virtual_time()
    async def test_leaving_says_priority_0_and_removes_the_addresses(self) -> None:
        bus = MemoryBus()
        async with router(bus) as instance:
            await mastering(instance)
            assert bus.owner(VIP) == "192.0.2.1"
        assert adverts(bus)[-1] == (now(), 0)
        assert bus.owner(VIP) is None

    @virtual_time()
    async def test_a_backup_leaves_silently(self) -> None:
        bus = MemoryBus()
        async with router(bus):
            await asyncio.sleep(1)
        assert adverts(bus) == []

    @virtual_time()
    async def test_an_exception_in_the_body_leaves_too(self) -> None:
        bus = MemoryBus()

        async def body() -> None:
            async with router(bus) as instance:
                await mastering(instance)
                raise KeyError("mine")

        with pytest.raises(KeyError, match="mine"):
            await body()
        assert adverts(bus)[-1] == (now(), 0)
        assert bus.owner(VIP) is None

    @virtual_time()
    async def test_it_is_entered_once(self) -> None:
        bus = MemoryBus()
        async with router(bus) as instance:
            with pytest.raises(VRRPKitError, match="make a new VRRPInstance"):
                await instance.__aenter__()
        with pytest.raises(VRRPKitError, match="make a new VRRPInstance"):
            await instance.__aenter__()

    @virtual_time()
    async def test_the_interface_can_be_used_again(self) -> None:
        bus = MemoryBus()
        for _ in range(2):
            async with router(bus) as instance:
                await mastering(instance)

    @virtual_time()
    async def test_the_same_virtual_router_runs_once_on_an_interface(self) -> None:
        bus = MemoryBus()
        async with router(bus) as first:
            with pytest.raises(DuplicateRouter, match="choose another VRID"):
                async with router(bus, "b", vips=["192.0.2.11/24"]):
                    pass
            async with router(bus, "c", vrid=52, vips=["192.0.2.12/24"]) as other:
                await mastering(other)
            await mastering(first)
        async with router(bus):
            pass

    def test_values_are_checked_on_construction(self) -> None:
        with pytest.raises(ConfigError, match="vrid 0"):
            router(MemoryBus(), vrid=0)
        with pytest.raises(ConfigError, match="netns"):
            router(MemoryBus(), netns="blue")

    @virtual_time()
    async def test_what_needs_a_run_says_so(self) -> None:
        instance = router(MemoryBus())
        for use in (lambda: instance.skew_time, lambda: instance.set_priority(7)):
            with pytest.raises(VRRPKitError, match="enter it with 'async with' first"):
                use()
        assert (instance.source, instance.master, instance.master_priority) == (None, None, None)
        assert (instance.priority, instance.faults) == (150, frozenset())

    @virtual_time()
    async def test_it_knows_its_master(self) -> None:
        bus = MemoryBus()
        async with router(bus), router(bus, "b", "192.0.2.2", priority=100) as b:
            assert b.master is None and b.master_priority is None
            await asyncio.sleep(4)
            assert (str(b.master), b.master_priority) == ("192.0.2.1", 150)
            assert repr(b) == "<VRRPInstance 'b' vrid 51 BACKUP>"


class TestCancellation:
    @pytest.mark.parametrize("turns", range(12))
    def test_at_every_await_of_entering(self, turns: int) -> None:
        @virtual_time()
        async def cancelled_while_entering() -> None:
            bus = MemoryBus()
            interface = bus.interface("192.0.2.1")
            # A leftover makes entering wait for the kernel.
            interface.add(f"{VIP}/24", ours=True)

            async def main() -> None:
                async with router(bus):
                    await asyncio.sleep(3600)

            task = asyncio.create_task(main())
            for _ in range(turns):
                await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            # Whoever comes next finds the place free.
            async with router(bus) as instance:
                await mastering(instance)
            assert free(interface)

        cancelled_while_entering()

    @pytest.mark.parametrize("turns", range(12))
    @pytest.mark.parametrize("state", [MASTER, BACKUP])
    def test_at_every_await_of_leaving(self, turns: int, state: State) -> None:
        @virtual_time()
        async def cancelled_while_leaving() -> None:
            bus = MemoryBus()
            interface = bus.interface("192.0.2.1")
            interface.manager.delay = 0.0
            left = asyncio.Event()

            async def main() -> None:
                async with router(bus) as instance:
                    await instance.wait_for(state)
                    await asyncio.sleep(0.5)
                    left.set()

            task = asyncio.create_task(main())
            await left.wait()
            for _ in range(turns):
                await asyncio.sleep(0)
            if task.cancel():
                with pytest.raises(asyncio.CancelledError):
                    await task
            await asyncio.sleep(0)
            assert free(interface)
            assert [p for _, p in adverts(bus)][-1:] == ([0] if state is MASTER else [])
            async with router(bus):
                pass

        cancelled_while_leaving()

    @virtual_time()
    async def test_twice_while_the_kernel_is_slow(self) -> None:
        bus = MemoryBus()
        interface = bus.interface("192.0.2.1")
        interface.manager.delay = 2.0

        async def main() -> None:
            async with router(bus) as instance:
                await instance.wait_for(MASTER)
                await asyncio.sleep(3)

        task = asyncio.create_task(main())
        await asyncio.sleep(5)
        said = now()
        task.cancel()
        await asyncio.sleep(0.5)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert adverts(bus)[-1] == (said, 0)
        assert free(interface)

    @virtual_time()
    async def test_a_kernel_that_hangs_delays_leaving_by_five_seconds_only(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        bus = MemoryBus()
        interface = bus.interface("192.0.2.1")
        async with router(bus) as instance:
            await mastering(instance)
            interface.manager.delay = 7
            leaving = now()
        assert "did not take the addresses back within 5 s" in caplog.text
        assert adverts(bus)[-1] == (leaving, 0)
        assert 5 <= now() - leaving <= 10


class TestHost:
    @virtual_time()
    async def test_no_source(self) -> None:
        bus = MemoryBus()
        interface = bus.interface("2001:db8::1")
        with pytest.raises(SourceMissing, match="no IPv4 address"):
            async with VRRPInstance("a", interface, vrid=1, vips=[f"{VIP}/24"]):
                pass
        with pytest.raises(SourceMissing, match=r"192\.0\.2\.9 is not on"):
            async with router(bus, source="192.0.2.9"):
                pass

    @virtual_time()
    async def test_a_virtual_address_is_no_source(self) -> None:
        bus = MemoryBus()
        with pytest.raises(SourceMissing, match="besides the virtual ones"):
            async with router(bus, address=f"{VIP}/24"):
                pass

    @virtual_time()
    async def test_it_can_wait_for_its_address(self) -> None:
        bus = MemoryBus()
        interface = bus.interface("2001:db8::1")
        async with VRRPInstance(
            "a", interface, vrid=1, vips=[f"{VIP}/24"], wait_for_interface=True
        ) as instance:
            assert instance.state is FAULT and instance.faults == {"no-source"}
            interface.add("192.0.2.1/24")
            assert (instance.state, str(instance.source)) == (BACKUP, "192.0.2.1")

    @virtual_time()
    async def test_the_interface_may_be_missing(self) -> None:
        interface = Vanishing(MemoryBus())
        with pytest.raises(InterfaceMissing, match="wait_for_interface=True"):
            async with VRRPInstance("a", interface.itself, vrid=1, vips=[f"{VIP}/24"]):
                pass
        async with VRRPInstance(
            "a", interface.itself, vrid=1, vips=[f"{VIP}/24"], wait_for_interface=True
        ) as instance:
            assert instance.state is FAULT and instance.faults == {"interface-missing"}
            interface.appear()
            assert instance.state is BACKUP
            await mastering(instance)
            interface.vanish()
            assert instance.state is FAULT

    @virtual_time()
    async def test_an_advert_must_fit_the_interface(self) -> None:
        bus = MemoryBus()
        vips = [f"2001:db8::1:{number:x}/64" for number in range(1, 120)]
        with pytest.raises(ConfigError, match="move some to excluded_vips"):
            async with VRRPInstance("a", bus.interface("2001:db8::1"), vrid=1, vips=vips):
                pass


class Vanishing:
    """An interface in memory that is there or not."""

    def __init__(self, bus: MemoryBus) -> None:
        self.there = False
        self.itself: MemoryInterface = bus.interface("192.0.2.1")
        outer = self

        class Kind(MemoryInterface):
            @property
            def link(self) -> Link | None:  # type: ignore[override]
                return super().link if outer.there else None

        self.itself.__class__ = Kind

    def appear(self) -> None:
        self.there = True
        self.itself.set_carrier(True)

    def vanish(self) -> None:
        self.there = False
        self.itself.set_carrier(False)


class TestWaiting:
    @virtual_time()
    async def test_in_the_state_already(self) -> None:
        async with router(MemoryBus()) as instance:
            await instance.wait_for(BACKUP)

    @virtual_time()
    async def test_a_state_that_was_left_again(self) -> None:
        bus = MemoryBus()
        async with router(bus) as instance:
            await mastering(instance)
            waiting = asyncio.create_task(instance.wait_for(FAULT))
            await asyncio.sleep(0)
            bus.unplug("192.0.2.1")
            bus.plug("192.0.2.1")
            assert instance.state is BACKUP
            await waiting

    @virtual_time()
    async def test_the_end_closes_it(self) -> None:
        instance = router(MemoryBus())
        waiting = asyncio.create_task(instance.wait_for(MASTER))
        async with instance:
            await asyncio.sleep(1)
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(1):
                    await instance.wait_for(FAULT)
        with pytest.raises(Closed):
            await waiting
        with pytest.raises(Closed):
            await instance.wait_for(MASTER)
        await instance.wait_for(INIT)

    @virtual_time()
    async def test_an_entry_that_fails_closes_it(self) -> None:
        instance = router(MemoryBus(), source="192.0.2.9")
        waiting = asyncio.create_task(instance.wait_for(MASTER))
        await asyncio.sleep(0)
        with pytest.raises(SourceMissing):
            await instance.__aenter__()
        with pytest.raises(Closed):
            await waiting


class TestEvents:
    @virtual_time()
    async def test_they_end_with_the_instance(self) -> None:
        bus = MemoryBus()
        instance = router(bus)
        events = instance.events()
        async with instance:
            await instance.wait_for(MASTER)
        seen = [event async for event in events]
        assert [(e.previous, e.state, e.reason) for e in seen if isinstance(e, Transition)] == [
            (INIT, BACKUP, TransitionReason.STARTUP),
            (BACKUP, MASTER, TransitionReason.NO_RESPONSE),
            (MASTER, INIT, TransitionReason.SHUTDOWN),
        ]
        assert [event async for event in instance.events()] == []

    @virtual_time()
    async def test_a_slow_reader_is_told_what_it_missed(self) -> None:
        async with router(MemoryBus()) as instance:
            events = instance.events(limit=2)
            for priority in (10, 20, 30, 40, 50):
                instance.set_priority(priority)
            assert await anext(events) == EventsLost(3)
            event = await anext(events)
            assert isinstance(event, PriorityChanged) and event.priority == 40

    @virtual_time()
    async def test_transitions_call_back(self, caplog: pytest.LogCaptureFixture) -> None:
        seen: list[str] = []

        def broken(_transition: Transition) -> None:
            raise RuntimeError("the callback's own bug")

        instance = router(MemoryBus())
        instance.on_transition(broken)
        end = instance.on_transition(lambda transition: seen.append(str(transition)))
        async with instance:
            instance.set_priority(151)
            await instance.wait_for(MASTER)
            end()
        assert seen == ["a: INIT -> BACKUP: startup", "a: BACKUP -> MASTER: no-response"]
        assert "the callback's own bug" in caplog.text

    @virtual_time()
    async def test_a_callback_may_command(self) -> None:
        """What it asks for happens after the present event is done."""
        order: list[str] = []
        async with router(MemoryBus()) as instance:

            def demote(transition: Transition) -> None:
                order.append(str(transition.state))
                if transition.state is MASTER:
                    instance.demote(5)

            instance.on_transition(demote)
            await asyncio.sleep(4)
            assert order == ["MASTER", "BACKUP"]
            assert instance.state is BACKUP


class TestCommands:
    @virtual_time()
    async def test_a_priority_moves_the_running_deadline(self) -> None:
        started = now()
        async with router(MemoryBus(), priority=1) as instance:
            await asyncio.sleep(1)
            instance.set_priority(254)
            assert instance.priority == 254
            await instance.wait_for(MASTER)
            assert now() - started == pytest.approx(3 + 2 / 256)

    @pytest.mark.parametrize("priority", [0, 255, -1, True, 1.5, "7"])
    def test_priorities_that_are_refused(self, priority: int) -> None:
        @virtual_time()
        async def refused() -> None:
            async with router(MemoryBus()) as instance:
                with pytest.raises(ConfigError, match="from 1 to 254"):
                    instance.set_priority(priority)

        refused()

    @virtual_time()
    async def test_an_owner_keeps_its_priority(self) -> None:
        async with router(MemoryBus(), address=f"{VIP}/24", priority=255) as owner:
            with pytest.raises(ConfigError, match="use demote"):
                owner.set_priority(100)

    @virtual_time()
    async def test_demotion_hands_over_and_ends(self) -> None:
        bus = MemoryBus()
        async with router(bus) as a, router(bus, "b", "192.0.2.2", priority=100) as b:
            await mastering(a)
            handed = now()
            a.demote(10)
            assert (a.state, a.priority) == (BACKUP, 1)
            await b.wait_for(MASTER)
            # b heard priority 0, so it waits for its skew only.
            assert now() - handed == pytest.approx(156 / 256)
            await asyncio.sleep(9)
            assert b.state is MASTER
            await a.wait_for(MASTER)
            assert a.priority == 150

    @virtual_time()
    async def test_demotion_alone_never_loses_the_address_for_good(self) -> None:
        bus = MemoryBus()
        async with router(bus) as a:
            await mastering(a)
            a.demote(60)
            await a.wait_for(MASTER)
            assert a.priority == 1
            for seconds in (0, -1):
                with pytest.raises(ConfigError, match="more than 0"):
                    a.demote(seconds)

    @virtual_time()
    async def test_promotion(self) -> None:
        bus = MemoryBus()
        async with router(bus, "b", "192.0.2.2", priority=100) as b:
            await mastering(b)
            async with router(bus, preempt=False) as a:
                await asyncio.sleep(5)
                assert a.state is BACKUP
                with pytest.raises(NotEligible, match="only the MASTER"):
                    await a.announce()
                a.promote()
                assert a.state is MASTER
                await asyncio.sleep(0.1)
                assert b.state is BACKUP
                with pytest.raises(NotEligible, match="has priority 150"):
                    b.promote()
                bus.unplug("192.0.2.2")
                with pytest.raises(NotEligible, match="in FAULT"):
                    b.promote()

    @virtual_time()
    async def test_announcing_on_demand(self) -> None:
        bus = MemoryBus()
        async with router(bus) as instance:
            await mastering(instance)
            await asyncio.sleep(10)
            before = sum(crossing.announced is not None for crossing in bus.record)
            await instance.announce()
            await instance.announce(repeat=2)
            await asyncio.sleep(0.1)
            after = sum(crossing.announced is not None for crossing in bus.record)
            assert after - before == 5 + 2
