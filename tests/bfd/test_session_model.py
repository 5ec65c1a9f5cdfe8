"""Two sessions and a link that loses, delays and repeats packets: whatever happens to them, they
come Up again when the link heals, and agree."""

from __future__ import annotations

import random
from collections import deque

from hypothesis import settings, strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from vrrpkit.bfd.protocol.effects import Publish, SendPacket
from vrrpkit.bfd.protocol.events import BFDTransition
from vrrpkit.bfd.protocol.inputs import (
    AdminDown,
    AdminUp,
    Input,
    PacketReceived,
    PacketsLost,
    Retimed,
    Start,
    Stop,
    TimerFired,
    Timers,
)
from vrrpkit.bfd.protocol.packet import BFDState, ControlPacket, decode, encode
from vrrpkit.bfd.protocol.session import SessionConfig, SessionMachine

TIMERS = st.builds(
    Timers,
    min_tx=st.sampled_from([0.01, 0.1, 0.3, 2.0]),
    min_rx=st.sampled_from([0.01, 0.1, 0.5, 1.5]),
    multiplier=st.sampled_from([1, 2, 3, 5]),
)
SIDES = st.sampled_from([0, 1])
FLIGHT = 0.001
"""Seconds that a packet takes on the good link."""


class Pair(RuleBasedStateMachine):
    """Both ends, and the packets between them."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0

    @initialize(
        timers=st.tuples(TIMERS, TIMERS),
        passive=st.sampled_from([None, 0, 1]),
        seed=st.integers(0, 1000),
    )
    def begin(self, timers: tuple[Timers, Timers], passive: int | None, seed: int) -> None:
        chance = random.Random(seed).random
        self.ends = [
            SessionMachine(
                SessionConfig(name=str(side), timers=timers[side], passive=passive == side),
                100 + side,
                chance,
            )
            for side in (0, 1)
        ]
        self.transport: list[deque[tuple[float, bytes]]] = [deque(), deque()]
        self.held = [False, False]
        self.sent_at = [0.0, 0.0]
        for side in (0, 1):
            self.give(side, Start())

    def give(self, side: int, event: Input) -> None:
        session = self.ends[side]
        before = session.state
        sent: list[ControlPacket] = []
        for effect in session.handle(event, self.now):
            match effect:
                case SendPacket():
                    sent.append(effect.packet)
                    self.transport[side].append((self.now + FLIGHT, encode(effect.packet)))
                case Publish(notice=BFDTransition() as change):
                    assert change.previous is before
                    assert change.state is not before
                    before = change.state
                case _:
                    pass
        assert before is session.state
        self.check(side, event, sent)

    def check(self, side: int, event: Input, sent: list[ControlPacket]) -> None:
        """What RFC 5880 asks of every packet."""
        session = self.ends[side]
        assert len(sent) <= 1
        for packet in sent:
            assert packet.state is session.state
            assert not (packet.poll and packet.final)
            if packet.state is not BFDState.UP:
                assert packet.desired_min_tx >= 1.0
            asked = isinstance(event, PacketReceived) and event.packet.poll
            assert packet.final is (asked and session.state is not BFDState.ADMIN_DOWN)
            if session.config.passive and packet.state is not BFDState.ADMIN_DOWN:
                assert packet.your_discriminator

    def deliver(self, side: int) -> None:
        """Bring the next packet of one end to the other."""
        _at, octets = self.transport[side].popleft()
        self.give(1 - side, PacketReceived(packet=decode(octets), at=self.now))

    # --- what may happen

    @rule(seconds=st.sampled_from([0.0, 0.005, 0.05, 0.3, 1.0, 8.0]))
    def time_passes_and_the_timers_fire_late(self, seconds: float) -> None:
        self.now += seconds
        for side in (0, 1):
            self.give(side, TimerFired())

    @rule(side=SIDES)
    def the_timer(self, side: int) -> None:
        deadline = self.ends[side].deadline
        if deadline is not None:
            self.now = max(self.now, deadline)
            self.give(side, TimerFired())
            later = self.ends[side].deadline
            assert later is None or later > self.now

    @rule(side=SIDES)
    def a_packet_arrives(self, side: int) -> None:
        if self.transport[side]:
            self.now = max(self.now, self.transport[side][0][0])
            self.deliver(side)

    @rule(side=SIDES)
    def a_packet_is_lost(self, side: int) -> None:
        if self.transport[side]:
            self.transport[side].popleft()

    @rule(side=SIDES)
    def a_packet_is_repeated(self, side: int) -> None:
        if self.transport[side]:
            self.transport[side].append(self.transport[side][0])

    @rule(side=SIDES, timers=TIMERS)
    def somebody_wants_other_timers(self, side: int, timers: Timers) -> None:
        self.give(side, Retimed(timers))

    @rule(side=SIDES)
    def somebody_holds_it_down_or_lets_it_go(self, side: int) -> None:
        self.held[side] = not self.held[side]
        self.give(side, AdminDown() if self.held[side] else AdminUp())

    @rule(side=SIDES)
    def the_kernel_drops_packets(self, side: int) -> None:
        self.give(side, PacketsLost())

    @rule(side=SIDES, farewell=st.booleans())
    def one_end_starts_anew(self, side: int, farewell: bool) -> None:
        old = self.ends[side]
        if farewell:
            self.give(side, Stop())
        config = old.config
        self.ends[side] = SessionMachine(config, old.discriminator + 2, random.Random(1).random)
        self.give(side, Retimed(old.timers))
        self.give(side, Start())
        self.held[side] = False

    # --- what always holds

    @invariant()
    def up_means_that_somebody_was_heard(self) -> None:
        for session in getattr(self, "ends", ()):
            if session.state in (BFDState.UP, BFDState.INIT):
                assert session.remote is not None
            if session.polling:
                assert session.state is BFDState.UP

    @invariant()
    def jitter_leaves_at_least_three_quarters(self) -> None:
        for session in getattr(self, "ends", ()):
            if session._transmit_at is not None:
                assert 0.75 <= session._share <= 1.0

    def heal(self) -> None:
        """Nothing happens any more but what the two do themselves, for twenty seconds and what is
        left of the longest Detection Time."""
        for side in (0, 1):
            if self.held[side]:
                self.give(side, AdminUp())
        end = self.now + 20 + max(session.detection_time or 0 for session in self.ends)
        while True:
            moments: list[tuple[float, int, bool]] = []
            for side in (0, 1):
                if self.transport[side]:
                    moments.append((max(self.transport[side][0][0], self.now), side, False))
                deadline = self.ends[side].deadline
                if deadline is not None:
                    moments.append((max(deadline, self.now), side, True))
            # Packets first, as a driver reads its sockets before a deadline may fire.
            moment, side, timer = min(moments, key=lambda m: (m[0], m[2], m[1]))
            if moment > end:
                return
            self.now = moment
            if timer:
                self.give(side, TimerFired())
            else:
                self.deliver(side)

    def teardown(self) -> None:
        if not hasattr(self, "ends"):
            return
        self.heal()
        a, b = self.ends
        assert (a.state, b.state) == (BFDState.UP, BFDState.UP)
        for one, other in ((a, b), (b, a)):
            assert not one.polling
            # Each detects what the other sends at, and nobody is too slow for the other.
            assert one.transmit_interval == max(one.timers.min_tx, other.timers.min_rx)
            assert other.detection_time == one.timers.multiplier * one.transmit_interval
            assert one.remote is not None
            assert one.remote.my_discriminator == other.discriminator


TestPair = Pair.TestCase
TestPair.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
