"""BFDSession: one BFD session, as users see it. ``session.py`` decides."""

from __future__ import annotations

import logging
import random as randomness
from collections import deque
from collections.abc import AsyncIterator, Callable
from types import TracebackType
from typing import assert_never

from vrrpkit.bfd.notices import BFDNotice, BFDRejected, BFDSendFailed, BFDTransition
from vrrpkit.bfd.options import BFDOptions, timers
from vrrpkit.bfd.packet import (
    BFDDiagnostic,
    BFDRejectReason,
    BFDState,
    ControlPacket,
    encode,
)
from vrrpkit.bfd.session import Session
from vrrpkit.bfd.speaker import Seat, Speaker
from vrrpkit.bfd.statistics import BFDStatistics, Rate
from vrrpkit.bfd.vocabulary import (
    AdminDown,
    AdminUp,
    Effect,
    Event,
    PacketReceived,
    PacketsLost,
    Publish,
    Retimed,
    SendPacket,
    Start,
    Stop,
    TimerFired,
)
from vrrpkit.errors import Closed, ConfigError, DecodeError
from vrrpkit.events import EventsLost, Hub
from vrrpkit.host.deadlines import Deadline
from vrrpkit.host.memory import MemoryInterface
from vrrpkit.values import IPAddress

__all__ = ["BFDSession"]

log = logging.getLogger(__name__)

_TIMER_FIRED = TimerFired()


class BFDSession:
    """Finds out in a fraction of a second that a neighbour cannot be reached any more (RFC 5880,
    asynchronous mode, without echo and authentication; keepalived: ``bfd_instance``).

    ::

        async with BFDSession("192.0.2.2") as session:
            await session.wait_for(BFDState.UP)

    The neighbour must run a session with this host too. One object may be entered several times, by
    a tracker and by the program for example: it runs from the first entering to the last leaving,
    and then says that it is administratively down, so that the neighbour does not count it as a
    failure. After that it may be entered again.

    :param neighbor: its IPv4 or IPv6 address (keepalived: ``neighbor_ip``).
    :param source: the address to send from (``source_ip``); by default the kernel chooses.
    :param interface: send, and accept packets, through this network interface only; a link-local
        address needs it. Or an interface of a :class:`vrrpkit.MemoryBus`.
    :param min_tx: the shortest interval to send at, 0.001 to 60 seconds (``min_tx``, in
        milliseconds).
    :param min_rx: the shortest interval that packets may arrive at, 0.001 to 60 seconds
        (``min_rx``). The neighbour sends at the longer of its ``min_tx`` and this.
    :param idle_tx: the interval to send at while not Up, 1 to 60 seconds (``idle_tx``).
    :param multiplier: packets that the neighbour may miss before it counts this host as lost, 1 to
        255 (``multiplier``). How many may be missed here is for the neighbour to say.
    :param passive: say nothing before the neighbour does (``passive``); one of the two must be
        active.
    :param multihop: routers may lie in between (RFC 5883, UDP port 4784 instead of 3784).
    :param max_hops: how many, 0 to 255; 255 accepts any number (``max_hops``). With ``multihop``
        only, and needed there.
    :param ttl: TTL or hop limit to send with, 1 to 255 (``ttl``, ``hoplimit``). Another one than
        255 with ``multihop`` only; the neighbour is expected to use the same.
    :param name: what events and logs call it; by default the neighbour's address.
    :param netns: the name of a network namespace to run in.
    :param random: what jitter is drawn from; one with a seed repeats a run.
    :raises ConfigError: a value, or a combination, is unusable; the message says what to do.
    """

    def __init__(
        self,
        neighbor: str | IPAddress,
        *,
        source: str | IPAddress | None = None,
        interface: str | MemoryInterface | None = None,
        min_tx: float = 0.1,
        min_rx: float = 0.1,
        idle_tx: float = 1.0,
        multiplier: int = 5,
        passive: bool = False,
        multihop: bool = False,
        max_hops: int | None = None,
        ttl: int = 255,
        name: str = "",
        netns: str | None = None,
        random: randomness.Random | None = None,
    ) -> None:
        self._memory = interface if isinstance(interface, MemoryInterface) else None
        self.options = BFDOptions(
            neighbor=neighbor,
            source=source,
            interface=interface.name if isinstance(interface, MemoryInterface) else interface,
            min_tx=min_tx,
            min_rx=min_rx,
            idle_tx=idle_tx,
            multiplier=multiplier,
            passive=passive,
            multihop=multihop,
            max_hops=max_hops,
            ttl=ttl,
            name=name,
        )
        if netns is not None and self._memory is not None:
            raise ConfigError("netns goes with the real network; an interface in memory has none")
        self.name = self.options.label
        """What events and logs call it."""
        self.statistics = BFDStatistics()
        self._netns = netns
        self._random = random or randomness.Random()
        self._timers = self.options.session_config().timers
        self._held_down = False
        self._hub: Hub[BFDNotice] = Hub()
        self._rate = Rate()
        self._users = 0
        self._speaker: Speaker | None = None
        self._seat: Seat | None = None
        self._session: Session | None = None
        self._deadline: Deadline | None = None
        self._queue: deque[Event] = deque()
        self._feeding = False

    def __repr__(self) -> str:
        return f"<BFDSession {self.name!r} {self.state}>"

    # --- life ------------------------------------------------------------------------------------

    async def __aenter__(self) -> BFDSession:
        """Start the session, unless it runs.

        :raises HostError: another session with this neighbour runs here, or another BFD daemon.
        :raises InterfaceMissing: there is no such interface.
        :raises SourceMissing: the source address is not on this host.
        :raises PermissionMissing: ``interface`` or ``netns`` needs a capability.
        """
        self.open()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def open(self) -> None:
        """Enter, where there is no ``async with``; each call needs one of :meth:`close`. The errors
        are those of entering."""
        if not self._users:
            self._begin()
        self._users += 1

    def close(self) -> None:
        """End one use; the last one ends the session."""
        if not self._users:
            return
        self._users -= 1
        if not self._users:
            self._end()

    def _begin(self) -> None:
        speaker = Speaker.current(self._memory or self._netns)
        self._seat = speaker.enter(self)
        self._speaker = speaker
        self._deadline = speaker.deadlines.new(self._due)
        self._session = Session(
            self.options.session_config(), self._seat.discriminator, self._random.random
        )
        if self._hub.closed:
            self._hub = Hub()
        if self._timers != self._session.timers:
            self._feed(Retimed(self._timers))
        self._feed(Start())
        if self._held_down:
            self._feed(AdminDown())

    def _end(self) -> None:
        seat, deadline = self._seat, self._deadline
        assert seat is not None
        assert deadline is not None
        # At once, also when a callback of this session asks for it.
        self._step(Stop())
        self._session = self._seat = self._deadline = self._speaker = None
        deadline.set(None)
        seat.leave()
        self._hub.close()

    # --- what it is ------------------------------------------------------------------------------

    @property
    def neighbor(self) -> IPAddress:
        """The address of the neighbour."""
        return self.options.neighbor

    @property
    def state(self) -> BFDState:
        """AdminDown, Down, Init or Up; AdminDown while it does not run."""
        return BFDState.ADMIN_DOWN if self._session is None else self._session.state

    @property
    def diagnostic(self) -> BFDDiagnostic:
        """Why the session last left Up."""
        return BFDDiagnostic.NONE if self._session is None else self._session.diagnostic

    @property
    def remote_state(self) -> BFDState:
        """The neighbour's state, as far as it is known."""
        return BFDState.DOWN if self._session is None else self._session.remote_state

    @property
    def remote_diagnostic(self) -> BFDDiagnostic:
        """Why the neighbour's session last left Up, as far as it is known."""
        return BFDDiagnostic.NONE if self._session is None else self._session.remote_diagnostic

    @property
    def detection_time(self) -> float | None:
        """Seconds of silence after which the neighbour counts as lost, as agreed now; ``None``
        while it is not heard."""
        return None if self._session is None else self._session.detection_time

    @property
    def transmit_interval(self) -> float | None:
        """Seconds between two packets, as agreed now, before jitter makes them up to a quarter
        shorter; ``None`` while the session does not run."""
        return None if self._session is None else self._session.transmit_interval

    # --- what it tells ---------------------------------------------------------------------------

    async def wait_for(self, state: BFDState, *others: BFDState) -> BFDState:
        """Return at once in one of these states, else the next time that one is entered, even if it
        was left again since. Returns that state.

        :raises Closed: the session ended before.
        """
        states = (state, *others)
        if self.state in states:
            return self.state
        if self._hub.closed:
            raise Closed(f"BFD to {self.name} has ended and will not be {state} any more")
        entered = await self._hub.wait_for(
            lambda notice: isinstance(notice, BFDTransition) and notice.state in states
        )
        assert isinstance(entered, BFDTransition)
        return entered.state

    def events(self, limit: int = 1000) -> AsyncIterator[BFDNotice | EventsLost]:
        """Everything that happens from now on, until the session ends.

        :param limit: events kept for a slow reader; then the oldest are dropped and ``EventsLost``
            says how many.
        """
        return self._hub.stream(limit)

    def on_transition(self, callback: Callable[[BFDTransition], None]) -> Callable[[], None]:
        """Call ``callback`` on each change of state, on the event loop; it must not block. Returns
        what ends it.

        An exception in it is logged and changes nothing for the session.
        """

        return self._hub.on(BFDTransition, callback)

    def on_lost(self, callback: Callable[[], None]) -> Callable[[], None]:
        """Call ``callback`` when a neighbour that was Up has not been heard for the Detection Time:
        not when one of the two is held down on purpose, nor when only the neighbour misses packets.
        Returns what ends it."""

        def filtered(transition: BFDTransition) -> None:
            expired = transition.diagnostic is BFDDiagnostic.DETECTION_EXPIRED
            if transition.previous is BFDState.UP and expired:
                callback()

        return self.on_transition(filtered)

    # --- what it can be told ---------------------------------------------------------------------

    def admin_down(self) -> None:
        """Hold the session down, and let the neighbour know that this is no failure; also before it
        is entered."""
        self._held_down = True
        self._feed(AdminDown())

    def admin_up(self) -> None:
        """End what :meth:`admin_down` began."""
        self._held_down = False
        self._feed(AdminUp())

    def set_timers(
        self,
        *,
        min_tx: float | None = None,
        min_rx: float | None = None,
        multiplier: int | None = None,
    ) -> None:
        """Want other timers from now on. While Up the change is negotiated (a Poll Sequence), and
        both ends keep to what the other expects until it is.

        :raises ConfigError: a value is out of range.
        """
        now = self._timers
        self._timers = timers(
            f"BFD to {self.name}",
            now.min_tx if min_tx is None else min_tx,
            now.min_rx if min_rx is None else min_rx,
            now.multiplier if multiplier is None else multiplier,
        )
        self._feed(Retimed(self._timers))

    # --- what comes in (vrrpkit.bfd.speaker.Tenant) ----------------------------------------------

    def received(self, packet: ControlPacket, at: float) -> None:
        """A packet of this session passed every check."""
        self.statistics.packets_received += 1
        self._feed(PacketReceived(packet=packet, at=at))

    def rejected(self, problem: DecodeError, source: IPAddress) -> None:
        """A packet from the neighbour was dropped."""
        reason = BFDRejectReason(problem.reason)
        self.statistics.rejected[reason] += 1
        now = self._now
        count = self._rate.report(reason, now)
        if count:
            self._hub.publish(
                BFDRejected(
                    session=self.name,
                    at=now,
                    reason=reason,
                    source=source,
                    got=None if problem.got is None else str(problem.got),
                    want=None if problem.want is None else str(problem.want),
                    count=count,
                )
            )

    def deaf(self) -> None:
        """Packets were lost on this host."""
        self.statistics.losses += 1
        self._feed(PacketsLost())

    def _due(self) -> None:
        self._feed(_TIMER_FIRED)

    # --- the choke point -------------------------------------------------------------------------

    @property
    def _now(self) -> float:
        assert self._speaker is not None
        return self._speaker.deadlines.now()

    def _feed(self, event: Event) -> None:
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

    def _step(self, event: Event) -> None:
        session, deadline = self._session, self._deadline
        if session is None or deadline is None:
            return
        now = self._now
        for effect in session.handle(event, now):
            self._carry_out(effect, now)
            if self._session is not session:
                # A callback ended it.
                return
        deadline.set(session.deadline)

    def _carry_out(self, effect: Effect, now: float) -> None:
        match effect:
            case SendPacket():
                self._send(effect.packet, now)
            case Publish():
                self._publish(effect.notice)
            case _:
                assert_never(effect)

    def _send(self, packet: ControlPacket, now: float) -> None:
        assert self._seat is not None
        try:
            self._seat.send(encode(packet))
        except OSError as problem:
            self.statistics.send_errors += 1
            count = self._rate.report("send", now)
            if count:
                self._hub.publish(
                    BFDSendFailed(session=self.name, at=now, error=str(problem), count=count)
                )
        else:
            self.statistics.packets_sent += 1

    def _publish(self, notice: BFDNotice) -> None:
        if isinstance(notice, BFDTransition):
            self.statistics.ups += notice.state is BFDState.UP
            self.statistics.downs += notice.previous is BFDState.UP
            log.info("BFD to %s", notice)
        self._hub.publish(notice)
