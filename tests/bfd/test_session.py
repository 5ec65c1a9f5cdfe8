"""BFDSession on a bus in memory, under virtual time."""

from __future__ import annotations

import asyncio
from ipaddress import ip_address
from itertools import pairwise

import pytest

from bfd.ends import A, B, Journal, both_up, end
from vrrpkit import Closed, HostError, MemoryBus, State, VRRPInstance
from vrrpkit.bfd.protocol.events import BFDRejected, BFDSendFailed, BFDTimersAgreed, BFDTransition
from vrrpkit.bfd.protocol.packet import (
    BFDDiagnostic,
    BFDRejectReason,
    BFDState,
    ControlPacket,
    encode,
)
from vrrpkit.bfd.run import SessionRun
from vrrpkit.bfd.session import BFDSession
from vrrpkit.errors import SourceMissing
from vrrpkit.testing import virtual_time
from vrrpkit.transport.memory import Conditions

LOST = "control detection time expired"


def run_of(session: BFDSession) -> SessionRun:
    """What runs a session that was entered."""
    run = session._run
    assert run is not None
    return run


def now() -> float:
    return asyncio.get_running_loop().time()


def forge(bus: MemoryBus, packet: bytes, *, source: str = B, ttl: int = 255) -> None:
    """Send ``packet`` to A, as from ``source``."""
    station = bus.interface(B).station
    head = bytes(2) + (3784).to_bytes(2)
    station.send(head + packet, ip_address(source), ip_address(A), ttl)


STRANGE = ControlPacket(
    state=BFDState.DOWN,
    multiplier=3,
    my_discriminator=5,
    desired_min_tx=1,
    required_min_rx=1,
)


@virtual_time()
async def test_a_lost_neighbour_is_noticed_within_the_detection_time_and_its_return_too() -> None:
    bus = MemoryBus(delay=0.001)
    a, b = end(bus), end(bus, B, A)
    async with a, b:
        await both_up(a, b)
        assert (a.detection_time, a.transmit_interval) == (0.5, 0.1)
        journal = Journal(a)
        bus.cut(A, B)
        cut = now()
        await a.wait_for(BFDState.DOWN)
        assert 0.39 < now() - cut <= 0.501
        assert a.diagnostic is BFDDiagnostic.DETECTION_EXPIRED
        assert a.detection_time is None
        await b.wait_for(BFDState.DOWN)
        bus.heal()
        healed = now()
        await both_up(a, b)
        assert now() - healed < 2.1
    await journal.ended()
    changes = [(state, why) for _at, state, why in journal.changes if state != "Init"]
    assert changes == [
        ("Down", LOST),
        ("Up", "no diagnostic"),
        ("AdminDown", "administratively down"),
    ]
    assert (a.statistics.ups, a.statistics.downs) == (2, 2)
    assert a.statistics.packets_sent > a.statistics.packets_received > 20


@virtual_time()
async def test_one_way_loss_takes_both_down() -> None:
    bus = MemoryBus()
    a, b = end(bus), end(bus, B, A)
    async with a, b:
        await both_up(a, b)
        lost: list[str] = []
        a.on_lost(lambda: lost.append("a"))
        b.on_lost(lambda: lost.append("b"))
        bus.cut(A, B, one_way=True)
        await b.wait_for(BFDState.DOWN)
        await asyncio.sleep(0)
        # Only b hears nothing; a is told so, and has not lost anybody.
        assert (a.state, a.diagnostic) == (BFDState.DOWN, BFDDiagnostic.NEIGHBOR_DOWN)
        assert a.remote_diagnostic is BFDDiagnostic.DETECTION_EXPIRED
        assert lost == ["b"]


@virtual_time()
async def test_a_lossy_link_is_no_failure() -> None:
    bus = MemoryBus(seed=3, loss=0.1, delay=0.002, jitter=0.01, duplication=0.05)
    a, b = end(bus), end(bus, B, A)
    async with a, b:
        await both_up(a, b)
        await asyncio.sleep(60)
        assert (a.statistics.downs, b.statistics.downs) == (0, 0)
        # Nine in ten of about eleven packets a second.
        assert 0.85 < a.statistics.packets_received / b.statistics.packets_sent < 1.0


@virtual_time()
async def test_jitter_spreads_the_packets() -> None:
    bus = MemoryBus()
    a, b = end(bus), end(bus, B, A)
    async with a, b:
        await both_up(a, b)
        start = now()
        await asyncio.sleep(20)
    sent = [c.time for c in bus.record if c.sender == A and start <= c.time < start + 20]
    gaps = [later - earlier for earlier, later in pairwise(sent)]
    assert all(0.0749 < gap < 0.1001 for gap in gaps)
    assert max(gaps) - min(gaps) > 0.02


@virtual_time()
async def test_timers_are_negotiated_while_up() -> None:
    bus = MemoryBus(delay=0.001)
    a, b = end(bus), end(bus, B, A, min_rx=0.05)
    async with a, b:
        await both_up(a, b)
        journal = Journal(b)
        a.set_timers(min_tx=0.4, min_rx=0.3, multiplier=3)
        # No faster, no slower than the other expects, while it is asked.
        assert (a.transmit_interval, a.detection_time) == (0.1, 1.5)
        await asyncio.sleep(1)
        assert (a.transmit_interval, a.detection_time) == (0.4, 1.5)
        assert b.transmit_interval == 0.3
        assert b.detection_time == pytest.approx(1.2)
        assert (a.statistics.downs, b.statistics.downs) == (0, 0)
        await asyncio.sleep(10)
        assert a.state is b.state is BFDState.UP
    await journal.ended()
    agreed = [notice for notice in journal.notices if isinstance(notice, BFDTimersAgreed)]
    assert (agreed[-1].transmit_interval, agreed[-1].detection_time) == (0.3, pytest.approx(1.2))


@virtual_time()
async def test_timers_may_be_set_before_and_last_from_run_to_run() -> None:
    bus = MemoryBus()
    a, b = end(bus), end(bus, B, A)
    a.set_timers(min_tx=0.3)
    for _ in range(2):
        async with a, b:
            await both_up(a, b)
            assert a.transmit_interval == 0.3


@virtual_time()
async def test_held_down_on_purpose() -> None:
    bus = MemoryBus()
    a, b = end(bus), end(bus, B, A)
    async with a, b:
        await both_up(a, b)
        a.admin_down()
        assert a.state is BFDState.ADMIN_DOWN
        await b.wait_for(BFDState.DOWN)
        assert (b.diagnostic, b.remote_state) == (BFDDiagnostic.NEIGHBOR_DOWN, BFDState.ADMIN_DOWN)
        assert b.remote_diagnostic is BFDDiagnostic.ADMIN_DOWN
        await asyncio.sleep(10)
        assert (a.state, b.state) == (BFDState.ADMIN_DOWN, BFDState.DOWN)
        a.admin_up()
        await both_up(a, b)
    b.admin_down()
    async with a, b:
        await asyncio.sleep(10)
        assert (a.state, b.state) == (BFDState.DOWN, BFDState.ADMIN_DOWN)
        b.admin_up()
        await both_up(a, b)


@virtual_time()
async def test_leaving_is_told_at_once() -> None:
    bus = MemoryBus()
    a, b = end(bus), end(bus, B, A)
    lost: list[None] = []
    a.on_lost(lambda: lost.append(None))
    async with a:
        async with b:
            await both_up(a, b)
        left = now()
        await a.wait_for(BFDState.DOWN)
        assert now() == left
        assert a.diagnostic is BFDDiagnostic.NEIGHBOR_DOWN
        assert not lost
        assert b.state is BFDState.ADMIN_DOWN


@virtual_time()
async def test_one_object_may_be_entered_several_times_and_again() -> None:
    bus = MemoryBus()
    a, b = end(bus), end(bus, B, A)
    async with b:
        async with a:
            async with a:
                await both_up(a, b)
            assert a.state is BFDState.UP
            waiting = asyncio.create_task(a.wait_for(BFDState.INIT), name="waits")
            await asyncio.sleep(0)
        assert a.state is BFDState.ADMIN_DOWN
        with pytest.raises(Closed):
            await waiting
        with pytest.raises(Closed, match="has ended and will not be Up"):
            await a.wait_for(BFDState.UP)
        a.close()
        async with a:
            await both_up(a, b)


@virtual_time()
async def test_a_stopped_process_is_lost_and_sees_it_when_it_goes_on() -> None:
    bus = MemoryBus()
    a, b = end(bus), end(bus, B, A)
    async with a, b:
        await both_up(a, b)
        bus.pause(B)
        await a.wait_for(BFDState.DOWN)
        await asyncio.sleep(5)
        # Nothing happens in a process that is stopped.
        assert b.state is BFDState.UP
        journal = Journal(b)
        bus.resume(B)
        await both_up(a, b)
    await journal.ended()
    # What waited is read before the timer may say that nothing was heard.
    assert journal.changes[0] == (0.0, "Down", "neighbor signaled session down")


@virtual_time()
async def test_a_short_stop_is_no_failure() -> None:
    bus = MemoryBus()
    a, b = end(bus), end(bus, B, A)
    async with a, b:
        await both_up(a, b)
        bus.pause(B)
        await asyncio.sleep(0.35)
        bus.resume(B)
        await asyncio.sleep(5)
        assert (a.statistics.downs, b.statistics.downs) == (0, 0)


@virtual_time()
async def test_what_has_arrived_is_read_before_a_timer_may_fire() -> None:
    bus = MemoryBus()
    a, b = end(bus), end(bus, B, A)
    async with a, b:
        await both_up(a, b)
        # Nothing comes by itself any more.
        bus.interface(A).station.frozen = True
        await asyncio.sleep(5)
        assert (a.state, a.statistics.downs) == (BFDState.UP, 0)


@virtual_time()
async def test_ipv6_and_many_neighbours_on_one_interface() -> None:
    bus = MemoryBus()
    hub = bus.interface("2001:db8::1")
    others = [bus.interface(f"2001:db8::{n}") for n in (2, 3, 4)]
    ours = [BFDSession(f"2001:db8::{n}", interface=hub) for n in (2, 3, 4)]
    theirs = [BFDSession("2001:db8::1", interface=other) for other in others]
    async with ours[0], ours[1], ours[2], theirs[0], theirs[1], theirs[2]:
        for session in (*ours, *theirs):
            await session.wait_for(BFDState.UP)
        await asyncio.sleep(1)
        bus.unplug("2001:db8::3")
        await asyncio.sleep(0.6)
        assert [str(session.state) for session in ours] == ["Up", "Down", "Up"]


@virtual_time()
async def test_link_local_addresses() -> None:
    bus = MemoryBus()
    a, b = bus.interface(A), bus.interface(B)
    own = [str(each.link.source(6)) for each in (a, b)]
    one, other = BFDSession(own[1], interface=a), BFDSession(own[0], interface=b)
    async with one, other:
        await both_up(one, other)


@virtual_time()
async def test_a_passive_end_waits_for_the_other() -> None:
    bus = MemoryBus()
    a, b = end(bus, passive=True), end(bus, B, A, passive=True)
    async with a, b:
        await asyncio.sleep(10)
        assert (a.statistics.packets_sent, a.state) == (0, BFDState.DOWN)
    b = end(bus, B, A)
    async with a, b:
        await both_up(a, b)


@virtual_time()
async def test_routers_in_between_are_for_multihop_sessions_only() -> None:
    bus = MemoryBus()
    bus.segment.conditions = Conditions(hops=2)
    a, b = end(bus), end(bus, B, A)
    async with a, b:
        journal = Journal(a)
        await asyncio.sleep(5)
        assert a.state is BFDState.DOWN
        assert a.statistics.rejected == {BFDRejectReason.TTL: b.statistics.packets_sent}
    await journal.ended()
    first = next(notice for notice in journal.notices if isinstance(notice, BFDRejected))
    assert (first.reason, first.got, first.want) == ("ttl", "253", "at least 255")
    a, b = (
        end(bus, *ends, multihop=True, max_hops=hops) for ends, hops in (((A, B), 2), ((B, A), 1))
    )
    async with a, b:
        await a.wait_for(BFDState.INIT)
        await asyncio.sleep(5)
        # A hears it, and says so to one that does not.
        assert (a.state, b.state) == (BFDState.INIT, BFDState.DOWN)
        assert not a.statistics.rejected
        assert b.statistics.rejected[BFDRejectReason.TTL] > 3
    a, b = (end(bus, *ends, multihop=True, max_hops=2) for ends in ((A, B), (B, A)))
    async with a, b:
        await both_up(a, b)


@virtual_time()
async def test_single_hop_and_multihop_do_not_hear_each_other() -> None:
    bus = MemoryBus()
    a, b = end(bus), end(bus, B, A, multihop=True, max_hops=255)
    async with a, b:
        await asyncio.sleep(5)
        assert (a.state, a.statistics.packets_received) == (BFDState.DOWN, 0)
        assert not a.statistics.rejected


@virtual_time()
async def test_strange_packets_are_counted_and_change_nothing(
    caplog: pytest.LogCaptureFixture,
) -> None:
    bus = MemoryBus()
    a, b = end(bus), end(bus, B, A)
    async with a, b:
        await both_up(a, b)
        journal = Journal(a)
        await asyncio.sleep(0)
        known = run_of(a).slot.discriminator
        with caplog.at_level("INFO"):
            for _ in range(3):
                forge(bus, b"short")
                forge(bus, encode(STRANGE), source="192.0.2.66")
                forge(bus, encode(STRANGE), ttl=254)
                forge(bus, _naming(known + 1))
                forge(bus, _naming(known), source="192.0.2.66")
            await asyncio.sleep(0.01)
        assert a.state is BFDState.UP
        assert a.statistics.rejected == {
            BFDRejectReason.LENGTH: 3,
            BFDRejectReason.TTL: 3,
            BFDRejectReason.SESSION: 3,
        }
        strangers = [r.getMessage() for r in caplog.records if "from 192.0.2.66" in r.getMessage()]
        assert strangers == [
            "BFD packets from 192.0.2.66 are dropped: session: got 0, want one of ours"
        ]
        assert run_of(a).endpoint.strangers == {
            BFDRejectReason.SESSION: 3,
            BFDRejectReason.SOURCE: 3,
        }
        # One event a second for each reason.
        await asyncio.sleep(1)
        forge(bus, b"short")
        await asyncio.sleep(0.01)
    await journal.ended()
    rejected = [notice for notice in journal.notices if isinstance(notice, BFDRejected)]
    assert [(n.reason, n.count) for n in rejected if n.reason == "length"] == [
        ("length", 1),
        ("length", 3),
    ]


def _naming(discriminator: int) -> bytes:
    """A packet that says Down and names a session."""
    return encode(
        ControlPacket(
            state=BFDState.DOWN,
            multiplier=3,
            my_discriminator=5,
            your_discriminator=discriminator,
            desired_min_tx=1,
            required_min_rx=1,
        )
    )


@virtual_time()
async def test_there_is_one_session_between_two_addresses() -> None:
    bus = MemoryBus()
    async with end(bus, name="core"):
        with pytest.raises(HostError, match="runs here already, as 'core'"):
            await end(bus).__aenter__()
        # What was refused has left nothing behind.
        async with end(bus, B, A):
            pass


@virtual_time()
async def test_two_ways_to_one_neighbour_are_told_apart_by_the_own_address() -> None:
    bus = MemoryBus()
    near, far = bus.interface(A, "192.0.2.11"), bus.interface(B, "192.0.2.12")
    first = BFDSession(B, interface=near, source=A)
    second = BFDSession(B, interface=near, source="192.0.2.11")
    back = BFDSession("192.0.2.11", interface=far, source=B)
    async with first, second, back:
        await second.wait_for(BFDState.UP)
        await asyncio.sleep(5)
        assert (first.state, first.statistics.packets_received) == (BFDState.DOWN, 0)


@virtual_time()
@pytest.mark.parametrize("exact_first", [True, False])
async def test_a_first_packet_is_for_the_session_that_names_its_own_address(
    exact_first: bool,
) -> None:
    bus = MemoryBus()
    own = "192.0.2.11"
    near, far = bus.interface(A, own), bus.interface(B)
    exact, vague = BFDSession(B, interface=near, source=own), BFDSession(B, interface=near)
    back = BFDSession(own, interface=far)
    first, second = (exact, vague) if exact_first else (vague, exact)
    async with first, second, back:
        await exact.wait_for(BFDState.UP)
        await asyncio.sleep(5)
        assert (vague.state, vague.statistics.packets_received) == (BFDState.DOWN, 0)


@virtual_time()
async def test_an_address_that_is_not_there_is_refused() -> None:
    bus = MemoryBus()
    with pytest.raises(SourceMissing, match=r"192\.0\.2\.77"):
        await end(bus, source="192.0.2.77").__aenter__()
    with pytest.raises(SourceMissing, match="none of its family"):
        await end(bus, other="2001:db8::2").__aenter__()


@virtual_time()
async def test_what_the_system_refuses_is_counted_and_tried_again() -> None:
    bus = MemoryBus()
    a, b = end(bus), end(bus, B, A)
    async with a, b:
        await both_up(a, b)
        journal = Journal(a)
        await asyncio.sleep(0)
        assert run_of(a).slot.sender is not None
        send = run_of(a).slot.sender.send
        run_of(a).slot.sender.send = _refuse  # type: ignore[method-assign]
        await b.wait_for(BFDState.DOWN)
        run_of(a).slot.sender.send = send  # type: ignore[method-assign]
        await both_up(a, b)
        assert a.statistics.send_errors >= 5
    await journal.ended()
    failed = [notice for notice in journal.notices if isinstance(notice, BFDSendFailed)]
    assert failed[0].error == "[Errno 101] Network is unreachable"
    assert len(failed) < a.statistics.send_errors


def _refuse(_payload: bytes) -> None:
    raise OSError(101, "Network is unreachable")


@virtual_time()
async def test_callbacks_may_do_anything() -> None:
    bus = MemoryBus()
    a, b = end(bus), end(bus, B, A)
    seen: list[str] = []

    def hold(transition: BFDTransition) -> None:
        seen.append(str(transition.state))
        if transition.state is BFDState.UP:
            a.admin_down()
            assert a.state is BFDState.UP

    a.on_transition(hold)
    async with a, b:
        await a.wait_for(BFDState.ADMIN_DOWN)
        await asyncio.sleep(0)
        assert seen[-2:] == ["Up", "AdminDown"]
    c = end(bus)
    c.on_transition(lambda change: c.close() if change.state is BFDState.UP else None)
    c.open()
    async with b:
        await asyncio.sleep(3)
        assert (c.state, b.remote_diagnostic) == (
            BFDState.ADMIN_DOWN,
            BFDDiagnostic.ADMIN_DOWN,
        )
        assert b.state is BFDState.DOWN


@virtual_time()
async def test_losing_packets_on_this_host_is_not_silence() -> None:
    bus = MemoryBus()
    a, b = end(bus), end(bus, B, A)
    async with a, b:
        await both_up(a, b)
        bus.cut(B, A, one_way=True)
        for _ in range(5):
            await asyncio.sleep(0.4)
            run_of(a).overflowed()
        assert (a.state, a.statistics.losses) == (BFDState.UP, 5)
        await asyncio.sleep(0.5)
        assert a.state is BFDState.DOWN


@virtual_time()
async def test_before_it_runs_it_knows_nothing() -> None:
    session = end(MemoryBus())
    assert session.state is BFDState.ADMIN_DOWN
    assert session.remote_state is BFDState.DOWN
    assert (session.diagnostic, session.remote_diagnostic) == (BFDDiagnostic.NONE,) * 2
    assert (session.detection_time, session.transmit_interval) == (None, None)
    assert repr(session) == "<BFDSession '192.0.2.2' AdminDown>"
    session.close()


# --- a virtual router that follows a master watched by BFD ---------------------------------------


def router(bus: MemoryBus, own: str, priority: int, bfd: BFDSession | None = None) -> VRRPInstance:
    return VRRPInstance(
        own, bus.interface(own), vrid=51, vips=["192.0.2.10/24"], priority=priority, bfd=bfd
    )


@virtual_time()
async def test_a_backup_takes_over_from_an_unreachable_master_after_its_skew() -> None:
    bus = MemoryBus()
    watch, other = end(bus, B, A), end(bus)
    async with router(bus, A, 150, other) as master, router(bus, B, 100, watch) as backup:
        await master.wait_for(State.MASTER)
        await both_up(watch, other)
        assert backup.master == ip_address(A)
        bus.crash(A)
        crashed = now()
        await backup.wait_for(State.MASTER)
        # 0.4 to 0.5 s to detect it, and a skew of 0.609 s; without BFD it takes 3.609 s.
        assert 0.99 < now() - crashed < 1.12
        assert backup.last_transition is not None
        assert str(backup.last_transition) == f"{B}: BACKUP -> MASTER: unreachable"
        bus.restart(A)


@virtual_time()
async def test_an_advert_is_better_proof_than_bfd() -> None:
    bus = MemoryBus()
    watch, other = end(bus, B, A), end(bus)
    async with router(bus, A, 150) as master, router(bus, B, 100, watch) as backup, other:
        await master.wait_for(State.MASTER)
        await both_up(watch, other)
        # BFD alone falls silent.
        assert run_of(other).slot.sender is not None
        run_of(other).slot.sender.send = lambda payload: None  # type: ignore[method-assign]
        await watch.wait_for(BFDState.DOWN)
        await asyncio.sleep(5)
        assert backup.state is State.BACKUP
        # A later silence has its usual length and reason.
        bus.crash(A)
        crashed = now()
        await backup.wait_for(State.MASTER)
        assert now() - crashed > 2.6
        assert backup.last_transition is not None
        assert backup.last_transition.reason == "no-response"
        bus.restart(A)
    assert watch.state is BFDState.ADMIN_DOWN


@virtual_time()
async def test_a_neighbour_that_is_not_the_master_does_not_matter() -> None:
    bus = MemoryBus()
    third = "192.0.2.3"
    watch, other = end(bus, B, third), end(bus, third, B)
    async with router(bus, A, 150), router(bus, B, 100, watch) as backup, other:
        await both_up(watch, other)
        await asyncio.sleep(5)
        bus.crash(third)
        await watch.wait_for(BFDState.DOWN)
        await asyncio.sleep(5)
        assert backup.state is State.BACKUP
        bus.restart(third)


@virtual_time()
async def test_callbacks_outlive_a_run() -> None:
    bus = MemoryBus()
    a, b = end(bus), end(bus, B, A)
    states: list[BFDState] = []
    stop = a.on_transition(lambda change: states.append(change.state))
    async with b:
        for _ in range(2):
            async with a:
                await a.wait_for(BFDState.UP)
        # Which of the two is Init on the way is a matter of who speaks first.
        told = [state for state in states if state is not BFDState.INIT]
        assert told == 2 * [BFDState.DOWN, BFDState.UP, BFDState.ADMIN_DOWN]
        stop()
        states.clear()
        async with a:
            await a.wait_for(BFDState.UP)
    assert states == []
