"""One run of a BFD session: it has a place among the sessions of its host, and carries out what
``protocol/session.py`` decides."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import assert_never

from vrrpkit.bfd.config import BFDSessionConfig
from vrrpkit.bfd.endpoint import BFDEndpoint
from vrrpkit.bfd.protocol.effects import Effect, Publish, SendPacket
from vrrpkit.bfd.protocol.events import BFDEvent, BFDRejected, BFDSendFailed
from vrrpkit.bfd.protocol.inputs import Input, PacketReceived, PacketsLost, Stop, TimerFired
from vrrpkit.bfd.protocol.packet import BFDRejectReason, ControlPacket, encode
from vrrpkit.bfd.protocol.session import SessionMachine
from vrrpkit.bfd.protocol.statistics import BFDStatistics, Rate
from vrrpkit.errors import DecodeError
from vrrpkit.timers import AGAIN
from vrrpkit.values import IPAddress

__all__ = ["SessionRun"]


class SessionRun:
    """Takes a place on the host when it is made, and gives it back at :meth:`end`. Everything meets
    in :meth:`feed`.

    :param publish: gets what happens, and must not raise.
    :param chance: draws a number from 0 to 1.
    :raises HostError: the place is taken, or the host lacks something.
    """

    def __init__(
        self,
        config: BFDSessionConfig,
        endpoint: BFDEndpoint,
        statistics: BFDStatistics,
        rate: Rate,
        publish: Callable[[BFDEvent], None],
        chance: Callable[[], float],
    ) -> None:
        self.config = config
        self.endpoint = endpoint
        self.slot = endpoint.enter(self)
        self.session = SessionMachine(config.session_config(), self.slot.discriminator, chance)
        self._deadline = endpoint.deadlines.new(self._due)
        self._statistics = statistics
        self._rate = rate
        self._publish = publish
        self._queue: deque[Input] = deque()
        self._feeding = False
        self._ended = False

    def end(self) -> None:
        """Tell the neighbour, and give the place back."""
        # At once, also when a callback of this session asks for it.
        self._step(Stop())
        self._ended = True
        self._deadline.drop()
        self.slot.leave()

    def feed(self, event: Input) -> None:
        """Give the session one event and carry out its effects. Called from within a callback, it
        waits its turn."""
        self._queue.append(event)
        if self._feeding:
            return
        self._feeding = True
        try:
            while self._queue:
                self._step(self._queue.popleft())
        finally:
            self._queue.clear()
            self._feeding = False

    def _step(self, event: Input) -> None:
        if self._ended:
            return
        now = self._now
        try:
            for effect in self.session.handle(event, now):
                self._carry_out(effect, now)
                if self._was_ended():
                    return
        finally:
            # Whatever was raised, or the session would never speak again.
            if not self._was_ended():
                self._deadline.set(self.session.deadline)

    def _was_ended(self) -> bool:
        """Whether a callback has ended this run."""
        return self._ended

    @property
    def _now(self) -> float:
        return self.endpoint.deadlines.now()

    def _due(self) -> None:
        deadlines = self.endpoint.deadlines
        self.feed(TimerFired(deadlines.heard_to))
        deadline = self.session.deadline
        if not self._ended and deadline is not None and deadline > deadlines.heard_to:
            # Detection waits for a socket to be read.
            self._deadline.set(max(deadline, deadlines.now() + AGAIN))

    def _carry_out(self, effect: Effect, now: float) -> None:
        match effect:
            case SendPacket():
                self._send(effect.packet, now)
            case Publish():
                self._publish(effect.notice)
            case _:
                assert_never(effect)

    def _send(self, packet: ControlPacket, now: float) -> None:
        try:
            self.slot.send(encode(packet))
        except OSError as problem:
            self._statistics.send_errors += 1
            count = self._rate.report("send", now)
            if count:
                self._publish(
                    BFDSendFailed(
                        session=self.config.label, at=now, error=str(problem), count=count
                    )
                )
        else:
            self._statistics.packets_sent += 1

    # --- what comes in (vrrpkit.bfd.endpoint.SessionHandler)

    def received(self, packet: ControlPacket, at: float) -> None:
        """A packet of this session passed every check."""
        self._statistics.packets_received += 1
        self.feed(PacketReceived(packet=packet, at=at))

    def rejected(self, problem: DecodeError, source: IPAddress) -> None:
        """A packet from the neighbour was dropped."""
        reason = BFDRejectReason(problem.reason)
        self._statistics.rejected[reason] += 1
        now = self._now
        count = self._rate.report(reason, now)
        if count:
            self._publish(
                BFDRejected(
                    session=self.config.label,
                    at=now,
                    reason=reason,
                    source=source,
                    got=None if problem.got is None else str(problem.got),
                    want=None if problem.want is None else str(problem.want),
                    count=count,
                )
            )

    def overflowed(self) -> None:
        """Packets were lost on this host."""
        self._statistics.losses += 1
        self.feed(PacketsLost())
