"""What the driver makes of bugs, bad adverts, lost addresses and links, and what it counts."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Callable, Iterator, Sequence
from ipaddress import ip_address
from typing import TypeVar

import attrs
import pytest

from vrrp.routers import VIP, adverts, free, mastering, router
from vrrpkit import MemoryBus, PermissionMissing, State, SyncGroup, Transition, VRRPInstance
from vrrpkit.events import (
    AddressesRefused,
    AddressLost,
    AdvertAnomaly,
    AdvertRejected,
    Anomaly,
    SendFailed,
    TransitionReason,
)
from vrrpkit.testing import Lan, run_virtual, virtual_time
from vrrpkit.transport.base import Membership, Receiver, Transport, TransportLink
from vrrpkit.values import IPAddress
from vrrpkit.vrrp import ChecksumForm, RejectReason, RouterStatistics
from vrrpkit.vrrp.driver import Driver
from vrrpkit.vrrp.protocol.effects import Effect
from vrrpkit.vrrp.protocol.inputs import (
    Input,
    Refreshed,
    SetPriority,
    Shutdown,
    Startup,
    TimerFired,
)
from vrrpkit.vrrp.protocol.machine import Machine
from vrrpkit.vrrp.protocol.packet import Advertisement, encode

MASTER, BACKUP, FAULT, INIT = State.MASTER, State.BACKUP, State.FAULT, State.INIT
GROUP = ip_address("224.0.0.18")
PEER = ip_address("192.0.2.7")

N = TypeVar("N")


def now() -> float:
    return asyncio.get_running_loop().time()


def forge(bus: MemoryBus, *, ttl: int = 255, source: IPAddress = PEER, **changes: object) -> None:
    """Send an advert of a router that does not exist."""
    fields: dict[str, object] = {
        "version": 3,
        "vrid": 51,
        "priority": 200,
        "wire_interval": 100,
        "addresses": (ip_address(VIP),),
    }
    advert = Advertisement(**(fields | changes))  # type: ignore[arg-type]
    payload = encode(advert, source, GROUP, ChecksumForm.PSEUDO_HEADER)
    bus.segment.station("192.0.2.7").send(payload, source, GROUP, ttl)


class Watch:
    """The events of an instance, kept."""

    def __init__(self, instance: VRRPInstance) -> None:
        self._events = instance.events()
        self.seen: list[object] = []

    async def of(self, kind: type[N]) -> list[N]:
        """Those of one kind so far."""
        while True:
            try:
                async with asyncio.timeout(0.001):
                    self.seen.append(await anext(self._events))
            except (TimeoutError, StopAsyncIteration):
                return [event for event in self.seen if isinstance(event, kind)]


class Broken(Exception):
    """A bug."""


@pytest.fixture
def bug(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Make every machine fail on events of some kinds."""
    handle = Machine.handle

    def install(*kinds: type[Input]) -> None:
        def failing(self: Machine, event: Input, at: float) -> list[Effect]:
            if isinstance(event, kinds):
                raise Broken(type(event).__name__)
            return handle(self, event, at)

        monkeypatch.setattr(Machine, "handle", failing)
        # The short way of a periodic advert, which knows no events.
        monkeypatch.setattr(Machine, "repeated", lambda self, at: False)

    return install


class TestBugs:
    @virtual_time()
    async def test_a_bug_ends_the_run_and_is_raised(self, bug: Callable[..., None]) -> None:
        bus = MemoryBus()

        async def body() -> None:
            async with router(bus) as instance:
                await mastering(instance)
                bug(TimerFired)
                await asyncio.sleep(3600)

        with pytest.raises(Broken, match="TimerFired"):
            await body()
        assert adverts(bus)[-1] == (now(), 0)
        assert free(bus.interface("192.0.2.1"))
        task = asyncio.current_task()
        assert task is not None and task.cancelling() == 0
        await asyncio.sleep(1)

    @virtual_time()
    async def test_in_a_command_at_the_end_of_the_body(self, bug: Callable[..., None]) -> None:
        bus = MemoryBus()

        async def body() -> None:
            async with router(bus) as instance:
                await mastering(instance)
                bug(SetPriority)
                instance.set_priority(7)

        with pytest.raises(Broken, match="SetPriority"):
            await body()
        assert free(bus.interface("192.0.2.1"))
        task = asyncio.current_task()
        assert task is not None and task.cancelling() == 0
        await asyncio.sleep(1)

    @virtual_time()
    async def test_on_entering(self, bug: Callable[..., None]) -> None:
        bug(Startup)
        with pytest.raises(Broken, match="Startup"):
            async with router(MemoryBus()):
                await asyncio.sleep(3600)
        await asyncio.sleep(1)

    @virtual_time()
    async def test_on_leaving_priority_0_is_said_all_the_same(
        self, bug: Callable[..., None]
    ) -> None:
        bus = MemoryBus()

        async def body() -> None:
            async with router(bus) as instance:
                await mastering(instance)
                bug(Shutdown)

        with pytest.raises(Broken, match="Shutdown"):
            await body()
        assert adverts(bus)[-1] == (now(), 0)
        assert free(bus.interface("192.0.2.1"))
        task = asyncio.current_task()
        assert task is not None and task.cancelling() == 0
        await asyncio.sleep(1)

    @virtual_time()
    async def test_everywhere(self, bug: Callable[..., None]) -> None:
        bus = MemoryBus()

        async def body() -> None:
            async with router(bus) as instance:
                await mastering(instance)
                bug(TimerFired, Shutdown)
                await asyncio.sleep(3600)

        with pytest.raises(Broken, match="TimerFired"):
            await body()
        assert adverts(bus)[-1] == (now(), 0)
        assert free(bus.interface("192.0.2.1"))

    @virtual_time()
    async def test_in_reading_an_advert(self, monkeypatch: pytest.MonkeyPatch) -> None:
        bus = MemoryBus()

        def broken(*args: object) -> None:
            raise Broken("inspect")

        async def body() -> None:
            async with router(bus) as instance:
                await mastering(instance)
                monkeypatch.setattr(
                    "vrrpkit.vrrp.protocol.validation.AdvertValidator.inspect", broken
                )
                forge(bus)
                await asyncio.sleep(3600)

        with pytest.raises(Broken, match="inspect"):
            await body()
        assert adverts(bus)[-1] == (now(), 0)

    @virtual_time()
    async def test_others_on_the_interface_go_on(self, bug: Callable[..., None]) -> None:
        bus = MemoryBus()
        async with router(bus, "other", vrid=52, vips=["192.0.2.11/24"]) as other:
            await mastering(other)
            async with asyncio.TaskGroup() as tasks:

                async def fails() -> None:
                    async with router(bus) as instance:
                        await mastering(instance)
                        bug(SetPriority)
                        instance.set_priority(9)

                async def expects() -> None:
                    with pytest.raises(Broken):
                        await fails()

                tasks.create_task(expects())
            assert other.state is MASTER and bus.owner("192.0.2.11") == "192.0.2.1"


class TestRejections:
    @virtual_time()
    async def test_one_event_a_second_for_each_pair(self) -> None:
        bus = MemoryBus()
        async with router(bus) as instance:
            watch = Watch(instance)
            for _ in range(30):
                forge(bus, ttl=64)
                await asyncio.sleep(0.1)
            forge(bus, ttl=63, source=ip_address("192.0.2.8"))
            forge(bus, version=2, wire_interval=1)
            rejected = await watch.of(AdvertRejected)
            ttl = [event for event in rejected if event.reason is RejectReason.TTL]
            assert [(str(event.peer), event.got, event.want, event.count) for event in ttl] == [
                ("192.0.2.7", "64", "255", 1),
                ("192.0.2.7", "64", "255", 10),
                ("192.0.2.7", "64", "255", 10),
                ("192.0.2.8", "63", "255", 1),
            ]
            assert rejected[-1].reason is RejectReason.VERSION
            statistics = instance.statistics
            assert (statistics.ip_ttl_errors, statistics.version_errors) == (31, 1)
            assert statistics.peers[PEER].rejected == {
                RejectReason.TTL: 30,
                RejectReason.VERSION: 1,
            }
            assert statistics.advertisement_rcvd == 0

    @virtual_time()
    async def test_they_move_no_timer(self) -> None:
        bus = MemoryBus()
        started = now()
        async with router(bus) as instance:
            for _ in range(33):
                forge(bus, ttl=64)
                await asyncio.sleep(0.1)
            await instance.wait_for(MASTER)
            assert now() - started == pytest.approx(3 + 106 / 256)

    @virtual_time()
    async def test_what_is_accepted_all_the_same(self) -> None:
        bus = MemoryBus()
        async with router(bus) as instance:
            watch = Watch(instance)
            for _ in range(3):
                forge(bus, addresses=(ip_address("192.0.2.99"),), wire_interval=200)
                await asyncio.sleep(0.2)
            anomalies = await watch.of(AdvertAnomaly)
            assert [(event.anomaly, event.got, event.want) for event in anomalies] == [
                (Anomaly.INTERVAL, "200 cs", "100 cs"),
                (Anomaly.ADDRESS_LIST, "192.0.2.99", "192.0.2.10"),
            ]
            assert instance.statistics.anomalies == {Anomaly.INTERVAL: 3, Anomaly.ADDRESS_LIST: 3}
            assert (instance.statistics.interval_errors, instance.master) == (3, PEER)
            assert instance.master_down_interval == pytest.approx(6 + 2 * 106 / 256)

    @virtual_time()
    async def test_lost_adverts_start_the_wait_again(self) -> None:
        started = now()
        overflowed = DeafTransport()
        async with router(MemoryBus(), transport=overflowed) as instance:
            await asyncio.sleep(3)
            overflowed.receiver.overflowed()
            await instance.wait_for(MASTER)
            assert now() - started == pytest.approx(6 + 106 / 256)


class DeafTransport(Transport):
    """Another way to travel: nothing arrives, and sending may fail."""

    receiver: Receiver
    sent: int = 0
    broken: OSError | None = None
    broken_for: IPAddress | None = None
    full: OSError | None = None

    def __init__(self) -> None:
        self.tries: list[float] = []

    def join(self, membership: Membership, receiver: Receiver) -> TransportLink:
        self.tries.append(now())
        if self.full is not None:
            raise self.full
        self.receiver = receiver
        outer = self

        class Line(TransportLink):
            def send(self, payload: bytes, destination: IPAddress) -> None:
                if outer.broken is not None:
                    raise outer.broken
                if destination == outer.broken_for:
                    raise OSError(errno.EHOSTUNREACH, "No route to host")
                outer.sent += 1

            def close(self) -> None:
                """Nothing is held."""

        return Line()


class TestSending:
    @virtual_time()
    async def test_a_refused_advert_is_counted_and_told_once_a_second(self) -> None:
        transport = DeafTransport()
        async with router(MemoryBus(), transport=transport, interval=0.1) as instance:
            await mastering(instance)
            watch = Watch(instance)
            transport.broken = OSError(errno.ENETUNREACH, "Network is unreachable")
            await asyncio.sleep(2.05)
            failed = await watch.of(SendFailed)
            assert [event.count for event in failed] == [1, 10, 10][: len(failed)]
            assert len(failed) in (2, 3) and "unreachable" in failed[0].error
            assert instance.statistics.send_errors >= 20
            assert instance.state is MASTER
            transport.broken = None

    @virtual_time()
    async def test_what_did_not_leave_is_not_counted(self) -> None:
        transport = DeafTransport()
        async with router(MemoryBus(), transport=transport, interval=0.1) as instance:
            await mastering(instance)
            transport.broken = OSError(errno.ENOBUFS, "No buffer space available")
            before = attrs.evolve(instance.statistics)
            await asyncio.sleep(1.05)
        after = instance.statistics
        assert after.advertisement_sent == before.advertisement_sent
        assert after.priority_zero_pkts_sent == 0
        assert after.send_errors == 11, "the goodbye too"

    @virtual_time()
    async def test_an_advert_that_reaches_one_of_two_peers_has_left(self) -> None:
        transport = DeafTransport()
        peers = ["192.0.2.2", "192.0.2.3"]
        async with router(MemoryBus(), transport=transport, peers=peers) as instance:
            await mastering(instance)
            before = instance.statistics.advertisement_sent
            transport.broken_for = ip_address("192.0.2.2")
            await asyncio.sleep(2)
            statistics = instance.statistics
            assert (statistics.advertisement_sent - before, statistics.send_errors) == (2, 2)


class TestLeavingTheLink:
    @virtual_time()
    async def test_says_priority_zero_while_it_still_can(self) -> None:
        bus = MemoryBus()
        interface = bus.interface("192.0.2.1")
        async with router(bus) as a, router(bus, "b", "192.0.2.2", priority=100) as b:
            await mastering(a)
            gone = now()
            interface.delete("192.0.2.1")
            await asyncio.sleep(0)
            assert (a.state, a.faults) == (FAULT, {"no-source"})
            assert adverts(bus)[-1] == (gone, 0)
            assert a.statistics.priority_zero_pkts_sent == 1
            await b.wait_for(MASTER)
            assert now() - gone == pytest.approx(156 / 256), "a skew, not a down interval"
            sent = len(adverts(bus))
            await asyncio.sleep(5)
            assert len(adverts(bus)) == sent
            interface.add("192.0.2.1/24")
            await a.wait_for(MASTER)

    @virtual_time()
    async def test_a_group_says_it_on_every_link(self) -> None:
        bus, other = MemoryBus(), MemoryBus()
        one = router(bus, "one")
        two = router(other, "two", vrid=52)
        async with SyncGroup("group", [one, two]) as group:
            await group.wait_for(MASTER)
            bus.interface("192.0.2.1").delete("192.0.2.1")
            await asyncio.sleep(0)
            assert group.state is FAULT
            assert (adverts(bus)[-1][1], adverts(other)[-1][1]) == (0, 0)


class TestJoining:
    @virtual_time()
    async def test_is_tried_again_by_the_clock(self, caplog: pytest.LogCaptureFixture) -> None:
        """EMFILE, ENOBUFS by igmp_max_memberships: the interface does not change when it ends."""
        transport = DeafTransport()
        transport.full = OSError(errno.EMFILE, "Too many open files")
        begin = now()
        async with router(MemoryBus(), transport=transport) as instance:
            assert (instance.state, instance.faults) == (FAULT, {"not-joined"})
            await asyncio.sleep(200)
            tries = [round(when - begin) for when in transport.tries]
            assert tries == [0, 1, 3, 7, 15, 31, 61, 91, 121, 151, 181]
            assert "cannot join on" in caplog.text
            assert "Too many open files; tries again in 30 s" in caplog.text
            transport.full = None
            await instance.wait_for(MASTER)
            assert now() - begin < 181 + 30 + 4
            assert instance.faults == frozenset()
            transport.full = OSError(errno.EMFILE, "Too many open files")
            await asyncio.sleep(100)
            assert instance.state is MASTER, "and no more"

    @virtual_time()
    async def test_a_new_address_is_joined_before_the_old_one_is_left(self) -> None:
        bus = MemoryBus()
        interface = bus.interface("192.0.2.1")
        transport = DeafTransport()
        async with router(bus, transport=transport) as instance:
            await mastering(instance)
            transport.full = OSError(errno.EMFILE, "Too many open files")
            sent = transport.sent
            interface.add("192.0.2.5/24")
            interface.delete("192.0.2.1")
            await asyncio.sleep(0)
            assert (instance.state, instance.faults) == (FAULT, {"not-joined"})
            assert transport.sent == sent + 1, "priority 0 left by the old one"
            transport.full = None
            await instance.wait_for(MASTER)
            assert str(instance.source) == "192.0.2.5"

    @virtual_time()
    async def test_a_missing_capability_is_an_error_at_the_start_only(self) -> None:
        transport = DeafTransport()
        transport.full = PermissionMissing("CAP_NET_RAW", "a raw socket for adverts")
        with pytest.raises(PermissionMissing):
            async with router(MemoryBus(), transport=transport):
                pass
        bus = MemoryBus()
        transport.full = None
        async with router(bus, transport=transport) as instance:
            await mastering(instance)
            transport.full = PermissionMissing("CAP_NET_RAW", "a raw socket for adverts")
            bus.interface("192.0.2.1").add("192.0.2.5/24")
            bus.interface("192.0.2.1").delete("192.0.2.1")
            await asyncio.sleep(1)
            assert (instance.state, instance.faults) == (FAULT, {"not-joined"})


class TestAddresses:
    @virtual_time()
    async def test_a_deleted_address_is_reinstated(self) -> None:
        bus = MemoryBus()
        interface = bus.interface("192.0.2.1")
        async with router(bus) as instance:
            await mastering(instance)
            watch = Watch(instance)
            interface.delete(VIP)
            await asyncio.sleep(0.01)
            assert bus.owner(VIP) == "192.0.2.1"
            (lost,) = await watch.of(AddressLost)
            assert (str(lost.address), lost.action) == (VIP, "reinstated")
            assert not await watch.of(Transition)

    @virtual_time()
    async def test_again_and_again_it_steps_down(self) -> None:
        bus = MemoryBus()
        interface = bus.interface("192.0.2.1")
        async with router(bus) as instance:
            await mastering(instance)
            watch = Watch(instance)
            for _ in range(4):
                interface.delete(VIP)
                await asyncio.sleep(0.5)
            actions = [event.action for event in await watch.of(AddressLost)]
            assert actions == ["reinstated"] * 3 + ["stepped down"]
            assert (instance.state, bus.owner(VIP)) == (BACKUP, None)
            await mastering(instance)
            assert bus.owner(VIP) == "192.0.2.1"

    @virtual_time()
    async def test_stepping_down_at_once_as_keepalived_does(self) -> None:
        bus = MemoryBus()
        interface = bus.interface("192.0.2.1")
        async with router(bus, on_address_lost="step_down") as instance:
            await mastering(instance)
            watch = Watch(instance)
            interface.delete(VIP)
            (change,) = await watch.of(Transition)
            assert change.reason is TransitionReason.ADDRESS_LOST
            assert adverts(bus)[-1][1] == 0

    @virtual_time()
    async def test_ignoring_it(self) -> None:
        bus = MemoryBus()
        interface = bus.interface("192.0.2.1")
        async with router(bus, on_address_lost="ignore") as instance:
            await mastering(instance)
            watch = Watch(instance)
            interface.delete(VIP)
            await asyncio.sleep(5)
            assert (instance.state, bus.owner(VIP)) == (MASTER, None)
            assert [event.action for event in await watch.of(AddressLost)] == ["ignored"]

    @virtual_time()
    async def test_a_refusal_is_a_fault_until_the_next_try(self) -> None:
        bus = MemoryBus()
        manager = bus.interface("192.0.2.1").manager
        manager.failures[ip_address(VIP)] = OSError(errno.ENOSPC, "No space left")
        async with router(bus) as instance:
            watch = Watch(instance)
            await instance.wait_for(FAULT)
            assert instance.faults == {"addresses"}
            assert adverts(bus)[-1][1] == 0
            (refused,) = await watch.of(AddressesRefused)
            assert refused.failures == (f"{VIP}/24: No space left",)
            manager.failures.clear()
            await asyncio.sleep(refused.retry_in)
            assert instance.state is BACKUP
            await mastering(instance)
            assert bus.owner(VIP) == "192.0.2.1"

    @virtual_time()
    async def test_an_address_that_was_there_before_stays(self) -> None:
        bus = MemoryBus()
        interface = bus.interface("192.0.2.1")
        interface.add(f"{VIP}/24")
        async with router(bus) as instance:
            await mastering(instance)
        assert bus.owner(VIP) == "192.0.2.1"


class TestLinks:
    @virtual_time()
    async def test_carrier_loss_is_a_fault_and_ends(self) -> None:
        bus = MemoryBus()
        async with router(bus) as instance:
            await mastering(instance)
            bus.unplug("192.0.2.1")
            assert (instance.state, instance.faults) == (FAULT, {"interface-down"})
            await asyncio.sleep(0.01)
            assert bus.owner(VIP) is None
            bus.plug("192.0.2.1")
            assert instance.state is BACKUP
            await mastering(instance)

    @virtual_time()
    async def test_the_source_goes_and_another_is_chosen(self) -> None:
        bus = MemoryBus()
        interface = bus.interface("192.0.2.1", "192.0.2.3")
        async with router(bus) as instance, router(bus, "b", "192.0.2.2", priority=100) as b:
            await mastering(instance)
            interface.delete("192.0.2.1")
            assert (instance.state, str(instance.source)) == (MASTER, "192.0.2.3")
            await asyncio.sleep(5)
            assert (str(b.master), b.state) == ("192.0.2.3", BACKUP)
            interface.delete("192.0.2.3")
            assert (instance.state, instance.faults) == (FAULT, {"no-source"})
            interface.add("192.0.2.4/24")
            assert (instance.state, str(instance.source)) == (BACKUP, "192.0.2.4")
            await mastering(instance)

    @virtual_time()
    async def test_losing_the_only_source_releases_the_others_at_once(self) -> None:
        bus = MemoryBus()
        interface = bus.interface("192.0.2.1")
        async with router(bus) as a, router(bus, "b", "192.0.2.2", priority=100) as b:
            await mastering(a)
            interface.delete("192.0.2.1")
            await asyncio.sleep(3.7)
            assert (a.state, b.state) == (FAULT, MASTER)


class TestStatistics:
    @virtual_time()
    async def test_a_failover_is_counted(self) -> None:
        bus = MemoryBus()
        async with router(bus, "b", "192.0.2.2", priority=100) as b:
            async with router(bus) as a:
                await mastering(a)
                await asyncio.sleep(2.5)
                assert a.statistics.master_transitions == 1
                assert a.statistics.advertisement_sent == 3
            await b.wait_for(MASTER)
            assert a.statistics.advertisement_sent == 4
            assert a.statistics.priority_zero_pkts_sent == 1
            statistics = b.statistics
            assert statistics.advertisement_rcvd == 4
            assert statistics.priority_zero_pkts_rcvd == 1
            peer = statistics.peers[ip_address("192.0.2.1")]
            assert (peer.accepted, peer.checksum) == (4, ChecksumForm.PSEUDO_HEADER)

    def test_the_fast_path_counts_and_decides_as_the_slow_one(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        fast = Script()
        run_virtual(fast.play())
        assert fast.kinds.count(Refreshed) > 20
        monkeypatch.setattr(Machine, "refreshable", property(lambda _machine: False))
        slow = Script()
        run_virtual(slow.play())
        assert Refreshed not in slow.kinds
        assert slow.statistics == fast.statistics
        assert slow.deadlines == fast.deadlines
        assert slow.changes == fast.changes


class Script:
    """A run with every reason to leave the fast path, and what came of it."""

    def __init__(self) -> None:
        self.kinds: list[type[Input]] = []
        self.deadlines: list[float | None] = []
        self.statistics: list[RouterStatistics] = []
        self.changes: list[str] = []
        self._machine: Machine | None = None

    def record(self, machine: Machine, event: Input, at: float, effects: Sequence[Effect]) -> None:
        self.kinds.append(type(event))
        self._machine = machine

    async def play(self) -> None:
        bus = MemoryBus(seed=3, delay=0.01, duplication=0.1)
        async with (
            router(bus) as a,
            router(bus, "b", "192.0.2.2", priority=100, recorder=self) as b,
        ):
            b.on_transition(lambda change: self.changes.append(f"{change.at:.6f} {change}"))
            for step in self._steps(bus, a, b):
                await asyncio.sleep(6.3)
                step()
                await asyncio.sleep(0.05)
                assert self._machine is not None
                self.deadlines.append(self._machine.deadline)
                self.statistics.append(attrs.evolve(b.statistics, **_copied(b.statistics)))

    def _steps(
        self, bus: MemoryBus, a: VRRPInstance, b: VRRPInstance
    ) -> Iterator[Callable[[], object]]:
        yield lambda: b.set_priority(120)
        yield lambda: a.set_priority(110)
        yield lambda: a.set_priority(200)
        yield lambda: b.demote(5)
        yield lambda: bus.unplug("192.0.2.1")
        yield lambda: bus.plug("192.0.2.1")
        yield lambda: forge(bus, ttl=3)
        yield lambda: bus.cut("192.0.2.1", "192.0.2.2")
        yield lambda: bus.heal()
        yield lambda: a.demote(3)


def _copied(statistics: RouterStatistics) -> dict[str, object]:
    return {
        "rejected": statistics.rejected.copy(),
        "anomalies": statistics.anomalies.copy(),
        "peers": {str(source): attrs.evolve(peer) for source, peer in statistics.peers.items()},
    }


@virtual_time()
async def test_silence_counts_only_once_the_socket_was_read_up_to_its_end() -> None:
    """A drain that is bounded in time leaves something behind under a flood."""
    bus = MemoryBus()
    async with router(bus) as instance:
        deadlines = bus.interface("192.0.2.1").deadlines
        read_to = 0.0
        deadlines.drains["flood"] = lambda: read_to
        await asyncio.sleep(4)
        assert instance.state is BACKUP
        begin = read_to = now()
        assert await instance.wait_for(MASTER) is MASTER
        assert now() - begin < 0.01, "looked at again at once"
        read_to = 0.0
        await asyncio.sleep(5)
        sent = [when for when, _ in adverts(bus) if when > begin]
        assert len(sent) == 6, "and adverts wait for nothing"


def test_rounding_never_makes_a_deadline_spin(monkeypatch: pytest.MonkeyPatch) -> None:
    """A takeover may be due one interval from now by one way of computing, and later by another."""
    due = Driver._due
    turns = 0

    def counted(self: Driver) -> None:
        nonlocal turns
        turns += 1
        assert turns < 1000
        due(self)

    monkeypatch.setattr(Driver, "_due", counted)

    async def main() -> None:
        async with Lan() as lan:
            for name, priority in (("a", 255), ("b", 150)):
                lan.router(
                    name,
                    vips=[f"{VIP}/24"],
                    priority=priority,
                    interval=0.1,
                    down_factor=1,
                    startup_delay=2.5,
                )
            await asyncio.sleep(5)

    run_virtual(main())
