"""One BFD session as a state machine: the asynchronous mode of RFC 5880 section 6. Pure.

``handle(event, now)`` returns effects in the order in which they must be carried out. Time is an
argument and deadlines are numbers: the driver of the session wakes it at
:attr:`SessionMachine.deadline`. Both timers follow from what was last sent, last heard and agreed,
so that nothing needs to be moved when an interval changes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import assert_never

import attrs

from vrrpkit.bfd.protocol.budget import Budget
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
from vrrpkit.bfd.protocol.packet import MICROSECOND, BFDDiagnostic, BFDState, ControlPacket

__all__ = ["SessionConfig", "SessionMachine"]

_EPSILON = 1e-6

LEAST_SHARE = 0.75
"""Of the interval, that jitter leaves (RFC 5880 section 6.8.7)."""
MOST_SHARE_OF_ONE = 0.9
"""The same the other way round, where a single missing packet is a failure."""

ANSWERS = (200.0, 20.0)
"""Polls that are answered: so many a second, and so many at once. A neighbour polls with the
packets that it sends anyway until it has an answer, so the next one makes good for one that had
none."""

RISES = (1.0, 10.0)
"""Times that a session may leave Down, likewise. It needs forged packets to leave it more often,
and Down is the side on which an error costs least."""

NOTICES = (10.0, 20.0)
"""Notices of timers, likewise; the last ones are published as soon as they may be."""

DEAF = 5
"""Detection Times by which packets that were lost on this host can put the detection off."""


@attrs.frozen(kw_only=True)
class SessionConfig:
    """What a session is made with."""

    name: str
    timers: Timers
    idle_tx: float = 1.0
    """Seconds between packets while not Up, at least 1."""
    passive: bool = False
    """Say nothing before the neighbour does."""


class SessionMachine:
    """The state of one session. Read its attributes freely; change them through :meth:`handle`
    only.

    :param discriminator: what this session is called on this host, from 1.
    :param chance: draws a number from 0 to 1, for the jitter.
    """

    def __init__(
        self, config: SessionConfig, discriminator: int, chance: Callable[[], float]
    ) -> None:
        self.config = config
        self.discriminator = discriminator
        self.state = BFDState.ADMIN_DOWN
        self.diagnostic = BFDDiagnostic.NONE
        """Why the session last left Up (bfd.LocalDiag)."""
        self.timers = config.timers
        self.remote: ControlPacket | None = None
        """What the neighbour last said, until it is not heard for a Detection Time."""
        self.polling = False
        """Whether a Poll Sequence is going on."""
        self._chance = chance
        self._running = False
        self._effects: list[Effect] = []
        self._used_tx = self._used_rx = 0.0
        self._poll_again = False
        self._heard_at = self._spoke_at = 0.0
        # The second is when the neighbour was last heard, the first when it might have been.
        self._sent_at = 0.0
        self._share = 1.0
        self._news = False
        self._asked = False
        self._agreed: tuple[float, float] | None = None
        self._answers, self._rises = Budget(*ANSWERS), Budget(*RISES)
        self._notices = Budget(*NOTICES)

    # --- what can be read

    @property
    def remote_state(self) -> BFDState:
        """The neighbour's state of the session, as far as it is known."""
        return BFDState.DOWN if self.remote is None else self.remote.state

    @property
    def remote_diagnostic(self) -> BFDDiagnostic:
        """Why the neighbour's session last left Up, as far as it is known."""
        return BFDDiagnostic.NONE if self.remote is None else self.remote.diagnostic

    @property
    def desired_min_tx(self) -> float:
        """bfd.DesiredMinTxInterval: slow while not Up (section 6.8.3)."""
        wanted = self.timers.min_tx
        return wanted if self.state is BFDState.UP else max(wanted, self.config.idle_tx)

    @property
    def transmit_interval(self) -> float:
        """Seconds between two packets, before jitter: both ends have a say."""
        remote_min_rx = MICROSECOND if self.remote is None else self.remote.required_min_rx
        return max(self._used_tx, remote_min_rx)

    @property
    def detection_time(self) -> float | None:
        """Seconds of silence that mean the neighbour is lost (section 6.8.4); ``None`` while
        nothing is heard anyway."""
        if self.remote is None:
            return None
        return self.remote.multiplier * max(self._used_rx, self.remote.desired_min_tx)

    @property
    def deadline(self) -> float | None:
        """When :class:`TimerFired` is due; ``None`` is never."""
        moments = (self._transmit_at, self._detect_at)
        return min((moment for moment in moments if moment is not None), default=None)

    @property
    def _silent(self) -> bool:
        """Whether nothing may be sent by the clock (section 6.8.7)."""
        remote = self.remote
        if not self._running:
            return True
        if remote is None:
            return self.config.passive
        if remote.required_min_rx == 0:
            return True
        both_up = self.state is BFDState.UP and remote.state is BFDState.UP
        return remote.demand and both_up and not self.polling

    @property
    def _transmit_at(self) -> float | None:
        return None if self._silent else self._sent_at + self._share * self.transmit_interval

    @property
    def _detect_at(self) -> float | None:
        detection = self.detection_time
        return None if detection is None else self._heard_at + detection

    # --- events

    def handle(self, event: Input, now: float) -> list[Effect]:
        """Take one event in at ``now`` (seconds of a clock that never jumps back); return what to
        do, in order."""
        effects: list[Effect] = []
        self._effects = effects
        self._news = self._asked = False
        if not self._running and not isinstance(event, Start | Retimed):
            return effects
        match event:
            case Start():
                self._running = True
                self._enter(BFDState.DOWN, BFDDiagnostic.NONE, now)
            case Stop():
                self._stop(now)
            case TimerFired():
                self._timer(now, event.heard_to)
            case PacketReceived():
                self._received(event.packet, event.at, now)
            case PacketsLost():
                self._deaf(now)
            case AdminDown():
                if self.state is not BFDState.ADMIN_DOWN:
                    self._enter(BFDState.ADMIN_DOWN, BFDDiagnostic.ADMIN_DOWN, now)
            case AdminUp():
                if self.state is BFDState.ADMIN_DOWN:
                    self._enter(BFDState.DOWN, BFDDiagnostic.NONE, now)
            case Retimed():
                self._retime(event.timers)
            case _:
                assert_never(event)
        if self._asked:
            # Whatever the clock and the state say (section 6.5).
            self._send(now, final=True)
        elif self._news and not self._silent:
            self._send(now)
        self._tell_timers(now)
        return effects

    def _stop(self, now: float) -> None:
        if self.state is not BFDState.ADMIN_DOWN:
            self._enter(BFDState.ADMIN_DOWN, BFDDiagnostic.ADMIN_DOWN, now)
            if not self._silent:
                self._send(now)
        self._running = False
        self.remote = None

    def _timer(self, now: float, heard_to: float) -> None:
        soon = now + _EPSILON
        detect_at = self._detect_at
        if detect_at is not None and min(now, heard_to) + _EPSILON >= detect_at:
            self._forget_remote(now)
        transmit_at = self._transmit_at
        if transmit_at is not None and soon >= transmit_at:
            self._news = True

    def _deaf(self, now: float) -> None:
        """Silence up to now proved nothing. But under a flood packets are lost all the time, and a
        neighbour of which none came through for so long counts as lost all the same."""
        patience = DEAF * (self.detection_time or 0.0)
        self._heard_at = max(self._heard_at, min(now, self._spoke_at + patience))

    def _forget_remote(self, now: float) -> None:
        self.remote = None
        if self.state in (BFDState.INIT, BFDState.UP):
            self._enter(BFDState.DOWN, BFDDiagnostic.DETECTION_EXPIRED, now)

    def _received(self, packet: ControlPacket, at: float, now: float) -> None:
        """Section 6.8.6, from where the packet is accepted."""
        # One that lay in a socket longer than a later one proves no less than that.
        self._heard_at = at if self.remote is None else max(at, self._heard_at)
        self._spoke_at = at
        self.remote = packet
        if packet.final and self.polling:
            self._poll_answered()
        state, theirs = self.state, packet.state
        if state is BFDState.ADMIN_DOWN:
            return
        if theirs is BFDState.ADMIN_DOWN:
            if state is not BFDState.DOWN:
                self._enter(BFDState.DOWN, BFDDiagnostic.NEIGHBOR_DOWN, now)
        elif state is BFDState.DOWN:
            if theirs is not BFDState.UP and self._rises.take(now):
                if theirs is BFDState.DOWN:
                    self._enter(BFDState.INIT, self.diagnostic, now)
                else:
                    self._enter(BFDState.UP, BFDDiagnostic.NONE, now)
        elif state is BFDState.INIT:
            if theirs in (BFDState.INIT, BFDState.UP):
                self._enter(BFDState.UP, BFDDiagnostic.NONE, now)
        elif theirs is BFDState.DOWN:
            self._enter(BFDState.DOWN, BFDDiagnostic.NEIGHBOR_DOWN, now)
        self._asked = packet.poll and self._answers.take(now)

    def _enter(self, state: BFDState, diagnostic: BFDDiagnostic, now: float) -> None:
        previous, self.state = self.state, state
        announced = max(self.timers.min_tx, self.config.idle_tx)
        self.diagnostic = diagnostic
        self.polling = self._poll_again = False
        self._use_announced()
        if state is BFDState.UP and self.desired_min_tx != announced:
            self._poll()
        # The neighbour shall not learn of it only with the next packet that is due.
        self._news = True
        self._effects.append(
            Publish(
                BFDTransition(
                    session=self.config.name,
                    at=now,
                    previous=previous,
                    state=state,
                    diagnostic=diagnostic,
                    remote_diagnostic=self.remote_diagnostic,
                )
            )
        )

    # --- timers and their negotiation

    def _use_announced(self) -> None:
        self._used_tx, self._used_rx = self.desired_min_tx, self.timers.min_rx

    def _poll(self) -> None:
        # An answer under way belongs to the question before.
        self._poll_again = self.polling
        self.polling = True

    def _poll_answered(self) -> None:
        if self._poll_again:
            self._poll_again = False
        else:
            self.polling = False
            self._use_announced()

    def _retime(self, timers: Timers) -> None:
        previous, self.timers = self.timers, timers
        if self.state is not BFDState.UP:
            self._use_announced()
            return
        # Until the neighbour is known to agree, we send as often as it expects and allow it what it
        # was promised (section 6.8.3).
        self._used_tx = min(self._used_tx, timers.min_tx)
        self._used_rx = max(self._used_rx, timers.min_rx)
        if (previous.min_tx, previous.min_rx) != (timers.min_tx, timers.min_rx):
            self._poll()

    def _tell_timers(self, now: float) -> None:
        detection = self.detection_time
        if self.state is not BFDState.UP or detection is None:
            self._agreed = None
            return
        agreed = (self.transmit_interval, detection)
        if agreed != self._agreed and self._notices.take(now):
            self._agreed = agreed
            self._effects.append(
                Publish(
                    BFDTimersAgreed(
                        session=self.config.name,
                        at=now,
                        transmit_interval=agreed[0],
                        detection_time=agreed[1],
                    )
                )
            )

    def _send(self, now: float, *, final: bool = False) -> None:
        packet = ControlPacket(
            state=self.state,
            diagnostic=self.diagnostic,
            multiplier=self.timers.multiplier,
            my_discriminator=self.discriminator,
            your_discriminator=0 if self.remote is None else self.remote.my_discriminator,
            desired_min_tx=self.desired_min_tx,
            required_min_rx=self.timers.min_rx,
            poll=self.polling and not final,
            final=final,
        )
        self._effects.append(SendPacket(packet))
        if final and not self._news:
            # An answer takes the place of no packet that the clock asks for.
            return
        self._sent_at = now
        most = MOST_SHARE_OF_ONE if self.timers.multiplier == 1 else 1.0
        self._share = LEAST_SHARE + (most - LEAST_SHARE) * self._chance()
