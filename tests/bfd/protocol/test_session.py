"""The state machine of one session, event by event: RFC 5880 section 6."""

from __future__ import annotations

from typing import Any

import attrs
import pytest

from vrrpkit.bfd.protocol.effects import Effect, Publish, SendPacket
from vrrpkit.bfd.protocol.events import BFDTimersAgreed, BFDTransition
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
from vrrpkit.bfd.protocol.packet import BFDDiagnostic, BFDState, ControlPacket
from vrrpkit.bfd.protocol.session import SessionConfig, SessionMachine

DOWN, INIT, UP, ADMIN_DOWN = BFDState.DOWN, BFDState.INIT, BFDState.UP, BFDState.ADMIN_DOWN
OURS, THEIRS = 7, 9


class Bench:
    """One session, and what came of each event. Jitter takes off nothing unless told."""

    def __init__(self, *, chance: float = 1.0, **options: Any) -> None:
        timers = {
            "min_tx": options.pop("min_tx", 0.1),
            "min_rx": options.pop("min_rx", 0.1),
            "multiplier": options.pop("multiplier", 5),
        }
        self.chance = chance
        config = SessionConfig(name="x", timers=Timers(**timers), **options)
        self.session = SessionMachine(config, OURS, lambda: self.chance)
        self.now = 1000.0
        self.effects: list[Effect] = []

    def give(self, event: Input, after: float = 0.0) -> list[ControlPacket]:
        """The packets that are sent because of an event."""
        self.now += after
        self.effects = self.session.handle(event, self.now)
        return [effect.packet for effect in self.effects if isinstance(effect, SendPacket)]

    def hear(self, state: BFDState, after: float = 0.0, **fields: Any) -> list[ControlPacket]:
        usual: dict[str, Any] = {
            "state": state,
            "multiplier": 3,
            "my_discriminator": THEIRS,
            "your_discriminator": OURS,
            "desired_min_tx": 0.2 if state is UP else 1.0,
            "required_min_rx": 0.05,
        }
        packet = ControlPacket(**(usual | fields))
        return self.give(PacketReceived(packet=packet, at=self.now + after), after)

    def wait(self) -> list[ControlPacket]:
        """Let the time pass until the deadline."""
        deadline = self.session.deadline
        assert deadline is not None
        return self.give(TimerFired(), deadline - self.now)

    @property
    def due(self) -> float:
        """Seconds until the deadline."""
        assert self.session.deadline is not None
        return self.session.deadline - self.now

    @property
    def told(self) -> list[BFDTransition | BFDTimersAgreed]:
        return [
            effect.notice
            for effect in self.effects
            if isinstance(effect, Publish)
            and isinstance(effect.notice, BFDTransition | BFDTimersAgreed)
        ]


def up(**options: Any) -> Bench:
    """A session that is Up, with the first Poll Sequence answered and a packet just sent."""
    bench = Bench(**options)
    bench.give(Start())
    bench.hear(INIT)
    bench.hear(UP, final=True)
    assert (bench.session.state, bench.session.polling) == (UP, False)
    bench.wait()
    return bench


# --- what is sent, and when


def test_the_first_packet_leaves_at_once_and_the_next_ones_once_a_second() -> None:
    bench = Bench()
    (first,) = bench.give(Start())
    assert first == ControlPacket(
        state=DOWN,
        multiplier=5,
        my_discriminator=OURS,
        your_discriminator=0,
        desired_min_tx=1.0,
        required_min_rx=0.1,
    )
    assert bench.due == pytest.approx(1.0)
    assert bench.wait() == [first]
    assert bench.give(TimerFired(), 0.5) == []
    assert bench.give(TimerFired(), 0.5) == [first]


@pytest.mark.parametrize(
    ("multiplier", "chance", "share"),
    [(5, 0.0, 0.75), (5, 1.0, 1.0), (2, 0.5, 0.875), (1, 0.0, 0.75), (1, 1.0, 0.9)],
)
def test_jitter_shortens_each_interval(multiplier: int, chance: float, share: float) -> None:
    bench = Bench(multiplier=multiplier, chance=chance)
    bench.give(Start())
    assert bench.due == pytest.approx(share)


def test_a_passive_session_speaks_when_it_is_spoken_to() -> None:
    bench = Bench(passive=True)
    assert bench.give(Start()) == []
    assert bench.session.deadline is None
    (answer,) = bench.hear(DOWN, 5, your_discriminator=0)
    assert (answer.state, answer.your_discriminator) == (INIT, THEIRS)
    # Its silence ends this, too.
    while bench.session.remote is not None:
        bench.wait()
    assert bench.session.state is DOWN
    assert bench.session.deadline is None


def test_nothing_is_sent_to_a_neighbour_that_wants_nothing() -> None:
    bench = Bench()
    bench.give(Start())
    assert bench.hear(DOWN, required_min_rx=0.0) == []
    assert bench.session.state is INIT
    assert bench.due == pytest.approx(3.0)
    # It changes its mind: the last packet was long ago, so the next one is due at once.
    assert bench.hear(DOWN, 2) == []
    assert bench.due <= 0
    assert len(bench.wait()) == 1


def test_the_slower_of_the_two_decides_how_often() -> None:
    bench = up(min_tx=0.1)
    assert bench.session.transmit_interval == 0.1
    bench.hear(UP, required_min_rx=0.4)
    assert bench.session.transmit_interval == 0.4
    assert bench.due == pytest.approx(0.4)
    # And a shorter one holds at once, counted from the last packet.
    bench.hear(UP, 0.3, required_min_rx=0.2)
    assert bench.due == pytest.approx(-0.1)


def test_a_neighbour_in_demand_mode_is_left_alone_once_both_are_up() -> None:
    bench = Bench()
    bench.give(Start())
    bench.hear(INIT, demand=True)
    assert bench.session.state is UP
    # Not up over there yet.
    bench.hear(INIT, demand=True, final=True)
    assert bench.due == pytest.approx(0.1)
    bench.give(Retimed(Timers(min_tx=0.1, min_rx=0.2, multiplier=5)))
    bench.hear(UP, demand=True)
    # The Poll Sequence goes on until it is answered.
    assert len(bench.wait()) == 1
    bench.hear(UP, demand=True, final=True)
    assert bench.due == pytest.approx(0.6)
    bench.hear(UP)
    assert bench.due == pytest.approx(0.1)


# --- the state machine


@pytest.mark.parametrize(
    ("ours", "theirs", "then", "diagnostic"),
    [
        (DOWN, ADMIN_DOWN, DOWN, BFDDiagnostic.NONE),
        (DOWN, DOWN, INIT, BFDDiagnostic.NONE),
        (DOWN, INIT, UP, BFDDiagnostic.NONE),
        (DOWN, UP, DOWN, BFDDiagnostic.NONE),
        (INIT, ADMIN_DOWN, DOWN, BFDDiagnostic.NEIGHBOR_DOWN),
        (INIT, DOWN, INIT, BFDDiagnostic.NONE),
        (INIT, INIT, UP, BFDDiagnostic.NONE),
        (INIT, UP, UP, BFDDiagnostic.NONE),
        (UP, ADMIN_DOWN, DOWN, BFDDiagnostic.NEIGHBOR_DOWN),
        (UP, DOWN, DOWN, BFDDiagnostic.NEIGHBOR_DOWN),
        (UP, INIT, UP, BFDDiagnostic.NONE),
        (UP, UP, UP, BFDDiagnostic.NONE),
        (ADMIN_DOWN, ADMIN_DOWN, ADMIN_DOWN, BFDDiagnostic.ADMIN_DOWN),
        (ADMIN_DOWN, DOWN, ADMIN_DOWN, BFDDiagnostic.ADMIN_DOWN),
        (ADMIN_DOWN, INIT, ADMIN_DOWN, BFDDiagnostic.ADMIN_DOWN),
        (ADMIN_DOWN, UP, ADMIN_DOWN, BFDDiagnostic.ADMIN_DOWN),
    ],
)
def test_what_is_heard_in_each_state(
    ours: BFDState, theirs: BFDState, then: BFDState, diagnostic: BFDDiagnostic
) -> None:
    if ours is UP:
        bench = up()
    else:
        bench = Bench()
        bench.give(Start())
        if ours is INIT:
            bench.hear(DOWN)
        elif ours is ADMIN_DOWN:
            bench.give(AdminDown())
    assert bench.session.state is ours
    sent = bench.hear(theirs)
    assert (bench.session.state, bench.session.diagnostic) == (then, diagnostic)
    assert bench.session.remote_state is theirs
    # A change is told at once; anything else waits for the clock.
    assert [packet.state for packet in sent] == ([] if then is ours else [then])
    changes = [notice for notice in bench.told if isinstance(notice, BFDTransition)]
    assert [(n.previous, n.state, n.diagnostic) for n in changes] == (
        [] if then is ours else [(ours, then, diagnostic)]
    )


def test_the_reason_of_a_failure_is_told_until_the_session_is_up_again() -> None:
    bench = up()
    bench.hear(DOWN, diagnostic=BFDDiagnostic.DETECTION_EXPIRED)
    assert bench.session.remote_diagnostic is BFDDiagnostic.DETECTION_EXPIRED
    (packet,) = bench.hear(DOWN)
    assert (packet.state, packet.diagnostic) == (INIT, BFDDiagnostic.NEIGHBOR_DOWN)
    (packet,) = bench.hear(INIT)
    assert (packet.state, packet.diagnostic) == (UP, BFDDiagnostic.NONE)


def test_silence_for_the_detection_time_ends_it() -> None:
    bench = up()
    # Their multiplier times the slower of what they send at and what we take.
    assert bench.session.detection_time == pytest.approx(0.6)
    heard = bench.now
    bench.hear(UP)
    while bench.session.state is UP:
        sent = bench.wait()
    assert bench.now - heard == pytest.approx(0.6)
    assert [(p.state, p.diagnostic) for p in sent] == [(DOWN, BFDDiagnostic.DETECTION_EXPIRED)]
    assert sent[0].your_discriminator == 0
    assert bench.session.detection_time is None
    assert bench.session.remote_state is DOWN
    assert bench.session.remote_diagnostic is BFDDiagnostic.NONE
    # Slow again, and no longer bound by what the lost neighbour had asked for.
    assert bench.session.transmit_interval == 1.0


def test_our_own_slowness_counts_for_detection() -> None:
    bench = up(min_rx=0.5)
    assert bench.session.detection_time == pytest.approx(1.5)


def test_what_lay_in_the_socket_counts_from_when_it_came() -> None:
    bench = up()
    packet = attrs.evolve(bench.session.remote, final=False)
    bench.give(PacketReceived(packet=packet, at=bench.now + 1.0), 1.5)
    bench.give(PacketReceived(packet=packet, at=bench.now - 1.0))
    assert bench.session.state is UP
    bench.give(TimerFired(), 0.09)
    assert bench.session.state is UP
    bench.give(TimerFired(), 0.02)
    assert bench.session.state is DOWN


def test_packets_that_the_kernel_dropped_are_no_silence() -> None:
    bench = up()
    bench.give(PacketsLost(), 0.59)
    bench.give(TimerFired(), 0.59)
    assert bench.session.state is UP
    bench.give(TimerFired(), 0.02)
    assert bench.session.state is DOWN


def test_a_neighbour_that_fell_silent_before_it_was_up_is_forgotten() -> None:
    bench = Bench()
    bench.give(Start())
    bench.hear(ADMIN_DOWN)
    bench.give(TimerFired(), 2.9)
    assert bench.session.remote is not None
    assert bench.session.deadline is not None
    bench.give(TimerFired(), 0.2)
    assert bench.session.remote is None
    assert (bench.session.state, bench.session.diagnostic) == (DOWN, BFDDiagnostic.NONE)


# --- timers and their negotiation


def test_coming_up_is_a_poll_sequence_that_makes_it_fast() -> None:
    bench = Bench()
    bench.give(Start())
    (packet,) = bench.hear(INIT)
    assert (packet.state, packet.poll, packet.desired_min_tx) == (UP, True, 0.1)
    # Until the answer comes, on packets that are due anyway.
    assert bench.due == pytest.approx(0.1)
    assert [p.poll for p in bench.wait()] == [True]
    bench.hear(UP, final=True)
    assert [p.poll for p in bench.wait()] == [False]


def test_coming_up_needs_no_poll_where_nothing_changes() -> None:
    bench = Bench(min_tx=2.0)
    bench.give(Start())
    (packet,) = bench.hear(INIT)
    assert (packet.poll, bench.session.polling) == (False, False)


def test_a_poll_is_answered_at_once_whatever_the_clock_says() -> None:
    bench = up()
    due = bench.session.deadline
    (answer,) = bench.hear(UP, 0.01, poll=True)
    assert (answer.final, answer.poll) == (True, False)
    # It replaces no packet that is due.
    assert bench.session.deadline == due
    # A neighbour that wants no packets gets its answer all the same.
    (answer,) = bench.hear(UP, 0.01, poll=True, required_min_rx=0.0)
    assert answer.final
    # Nobody answers while held down.
    bench.give(AdminDown())
    assert bench.hear(DOWN, poll=True) == []


def test_an_answer_never_asks_and_tells_a_change_along() -> None:
    bench = Bench()
    bench.give(Start())
    (answer,) = bench.hear(INIT, poll=True)
    assert (answer.state, answer.final, answer.poll) == (UP, True, False)
    assert bench.due == pytest.approx(0.1)
    assert [p.poll for p in bench.wait()] == [True]


def test_slower_timers_wait_for_the_answer_and_faster_ones_do_not() -> None:
    bench = up()
    due = bench.session.deadline
    assert bench.give(Retimed(Timers(min_tx=0.4, min_rx=0.05, multiplier=5))) == []
    # The neighbour may not know yet that we have become slow, nor that it may be fast.
    assert bench.session.deadline == due
    assert bench.session.transmit_interval == 0.1
    (packet,) = bench.wait()
    assert (packet.poll, packet.desired_min_tx, packet.required_min_rx) == (True, 0.4, 0.05)
    bench.hear(UP, final=True, desired_min_tx=0.05)
    assert bench.session.transmit_interval == 0.4
    assert bench.session.detection_time == pytest.approx(0.15)
    # Back: fast sending may begin at once, and slow hearing holds at once.
    bench.give(Retimed(Timers(min_tx=0.1, min_rx=0.3, multiplier=5)))
    assert bench.session.transmit_interval == 0.1
    assert bench.session.detection_time == pytest.approx(0.9)


def test_a_neighbour_is_not_called_late_before_it_knows_that_it_may_be_faster() -> None:
    bench = up()
    bench.hear(UP, desired_min_tx=0.05)
    assert bench.session.detection_time == pytest.approx(0.3)
    bench.give(Retimed(Timers(min_tx=0.1, min_rx=0.05, multiplier=5)))
    assert bench.session.detection_time == pytest.approx(0.3)
    bench.hear(UP, desired_min_tx=0.05, final=True)
    assert bench.session.detection_time == pytest.approx(0.15)


def test_a_second_change_during_a_poll_is_asked_for_anew() -> None:
    bench = up()
    bench.give(Retimed(Timers(min_tx=0.4, min_rx=0.1, multiplier=5)))
    bench.wait()
    bench.give(Retimed(Timers(min_tx=0.5, min_rx=0.1, multiplier=5)))
    # This answers the first question.
    bench.hear(UP, final=True)
    assert (bench.session.polling, bench.session.transmit_interval) == (True, 0.1)
    bench.wait()
    bench.hear(UP, final=True)
    assert (bench.session.polling, bench.session.transmit_interval) == (False, 0.5)


def test_another_multiplier_needs_no_poll() -> None:
    bench = up()
    bench.give(Retimed(Timers(min_tx=0.1, min_rx=0.1, multiplier=9)))
    (packet,) = bench.wait()
    assert (packet.multiplier, packet.poll) == (9, False)


def test_other_timers_hold_at_once_while_not_up() -> None:
    bench = Bench()
    bench.give(Start())
    bench.give(Retimed(Timers(min_tx=3.0, min_rx=0.2, multiplier=5)))
    assert bench.session.transmit_interval == 3.0
    assert not bench.session.polling


def test_the_end_of_a_session_ends_its_poll() -> None:
    bench = Bench()
    bench.give(Start())
    bench.hear(INIT)
    assert bench.session.polling
    (packet,) = bench.hear(DOWN)
    assert (packet.poll, bench.session.polling) == (False, False)
    # An answer that comes after all means nothing.
    bench.hear(DOWN, final=True)
    assert bench.session.state is INIT


def test_agreed_timers_are_told_when_they_change() -> None:
    bench = Bench()
    bench.give(Start())
    bench.hear(INIT)
    assert [n for n in bench.told if isinstance(n, BFDTimersAgreed)] == [
        BFDTimersAgreed(session="x", at=bench.now, transmit_interval=0.1, detection_time=3.0)
    ]
    bench.hear(UP)
    (agreed,) = bench.told
    assert str(agreed) == "x: sends every 100 ms, detects within 600 ms"
    bench.hear(UP)
    assert bench.told == []


# --- administration, start and end


def test_held_down_it_says_so_and_nothing_brings_it_up() -> None:
    bench = up()
    (packet,) = bench.give(AdminDown())
    assert (packet.state, packet.diagnostic) == (ADMIN_DOWN, BFDDiagnostic.ADMIN_DOWN)
    assert bench.give(AdminDown()) == []
    bench.hear(DOWN)
    assert [p.state for p in bench.wait()] == [ADMIN_DOWN]
    assert bench.session.transmit_interval == 1.0
    # Silence is forgotten here too, and is no failure.
    bench.give(TimerFired(), 10)
    assert (bench.session.remote, bench.session.state) == (None, ADMIN_DOWN)
    (packet,) = bench.give(AdminUp())
    assert (packet.state, packet.diagnostic) == (DOWN, BFDDiagnostic.NONE)
    assert bench.give(AdminUp()) == []


def test_at_the_end_it_says_that_this_is_no_failure() -> None:
    bench = up()
    (packet,) = bench.give(Stop())
    assert (packet.state, packet.diagnostic) == (ADMIN_DOWN, BFDDiagnostic.ADMIN_DOWN)
    assert bench.session.deadline is None
    for event in (TimerFired(), AdminUp(), Stop(), PacketsLost()):
        assert bench.give(event, 5) == []
    assert bench.hear(DOWN) == []
    assert bench.session.state is ADMIN_DOWN


def test_at_the_end_a_neighbour_that_knows_or_wants_nothing_is_told_nothing() -> None:
    bench = up()
    bench.give(AdminDown())
    assert bench.give(Stop()) == []
    silent = Bench(passive=True)
    silent.give(Start())
    assert silent.give(Stop()) == []


def test_transitions_read_like_a_log() -> None:
    bench = up()
    bench.hear(DOWN)
    assert str(bench.told[0]) == "x: Up -> Down: neighbor signaled session down"
    bench.hear(DOWN)
    assert str(bench.told[0]) == "x: Down -> Init"
    bench.give(AdminDown())
    assert str(bench.told[0]) == "x: Init -> AdminDown: administratively down"
    bench.give(AdminUp())
    assert str(bench.told[0]) == "x: AdminDown -> Down"


def flood(bench: Bench, *packets: dict[str, Any], seconds: float = 10.0) -> tuple[int, int]:
    """Packets that are sent and events that are told when forged ones come 10,000 a second."""
    sent = told = 0
    for number in range(int(seconds * 10_000)):
        sent += len(bench.hear(**packets[number % len(packets)], after=1e-4))
        told += len(bench.told)
    return sent, told


def test_a_flood_of_polls_is_answered_at_a_bounded_rate() -> None:
    bench = up()
    sent, told = flood(bench, {"state": UP, "poll": True})
    assert 10 * 200 <= sent <= 10 * 200 + 30
    assert told == 0
    # And a poll after it at once.
    (answer,) = bench.hear(UP, 1.0, poll=True)
    assert answer.final


def test_a_flood_of_changes_of_state_is_followed_at_a_bounded_rate() -> None:
    bench = up()
    sent, told = flood(bench, {"state": DOWN}, {"state": INIT})
    # Each rise is at most Init, Up and Down again, with its timers.
    assert sent <= 3 * 25
    assert told <= 4 * 25
    assert bench.session.state is DOWN
    # A second later it comes up as ever.
    bench.hear(DOWN, 1.0)
    assert bench.session.state is INIT
    bench.hear(UP, 0.1)
    assert bench.session.state is UP


def test_a_flood_of_timers_is_told_at_a_bounded_rate_and_the_last_one_always() -> None:
    bench = up()
    _, told = flood(
        bench, {"state": UP, "desired_min_tx": 0.3}, {"state": UP, "desired_min_tx": 0.4}
    )
    assert told <= 10 * 10 + 25
    bench.hear(UP, 1e-4, desired_min_tx=0.5)
    last = bench.told
    bench.hear(UP, 0.5, desired_min_tx=0.5)
    (agreed,) = last + bench.told
    assert isinstance(agreed, BFDTimersAgreed)
    assert agreed.detection_time == pytest.approx(1.5)
