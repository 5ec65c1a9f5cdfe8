"""BFDSession: one BFD session, as users see it. ``run.py`` runs it, ``protocol/session.py``
decides."""

from __future__ import annotations

import logging
import random as randomness
from collections.abc import AsyncIterator, Callable
from types import TracebackType

from vrrpkit.bfd.endpoint import BFDEndpoint
from vrrpkit.bfd.protocol.events import BFDEvent, BFDTransition
from vrrpkit.bfd.protocol.inputs import AdminDown, AdminUp, Input, Retimed, Start
from vrrpkit.bfd.protocol.options import BFDSessionConfig, timers
from vrrpkit.bfd.protocol.packet import BFDDiagnostic, BFDState
from vrrpkit.bfd.protocol.session import SessionMachine
from vrrpkit.bfd.protocol.statistics import BFDStatistics, Rate
from vrrpkit.bfd.run import SessionRun
from vrrpkit.errors import Closed, ConfigError
from vrrpkit.host.memory.bus import MemoryInterface
from vrrpkit.lifecycle.callbacks import LoopThread, require_callback
from vrrpkit.lifecycle.fork import ProcessOrigin
from vrrpkit.publishing import EventsLost, Hub
from vrrpkit.values import IPAddress

__all__ = ["BFDSession"]


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
        From 10 on it is taken for milliseconds and refused, unless ``min_rx`` is below 0.1.
    :param min_rx: the shortest interval that packets may arrive at, 0.001 to 60 seconds, likewise
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
        self.options = BFDSessionConfig(
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
        self._hub: Hub[BFDEvent] = _hub()
        # Callbacks outlive a run; streams, and those who wait, end with it.
        self._transitions: Hub[BFDTransition] = Hub()
        self._rate = Rate()
        self._users = 0
        self._run: SessionRun | None = None
        self._origin: ProcessOrigin | None = None
        self._home: LoopThread | None = None

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
        self._require_home("close")
        if not self._users:
            return
        self._users -= 1
        if not self._users:
            self._end()

    def _begin(self) -> None:
        run = SessionRun(
            self.options,
            BFDEndpoint.current(self._memory or self._netns),
            self.statistics,
            self._rate,
            self._publish,
            self._random.random,
        )
        self._run = run
        self._origin = ProcessOrigin()
        self._home = LoopThread()
        if self._hub.closed:
            self._hub = _hub()
        if self._timers != run.session.timers:
            run.feed(Retimed(self._timers))
        run.feed(Start())
        if self._held_down:
            run.feed(AdminDown())

    def _end(self) -> None:
        assert self._run is not None
        if self._origin is not None and self._origin.elsewhere:
            return
        self._run.end()
        self._run = None
        self._hub.close()

    def _require_home(self, method: str) -> None:
        if self._home is not None:
            self._home.require(f"{self.name}.{method}")

    @property
    def _session(self) -> SessionMachine | None:
        return None if self._run is None else self._run.session

    def _feed(self, event: Input) -> None:
        if self._run is not None:
            self._run.feed(event)

    def _publish(self, notice: BFDEvent) -> None:
        self._hub.publish(notice)
        if isinstance(notice, BFDTransition):
            self.statistics.ups += notice.state is BFDState.UP
            self.statistics.downs += notice.previous is BFDState.UP
            # Last, for they may do anything.
            self._transitions.publish(notice)

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
        self._require_home("wait_for")
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

    def events(self, limit: int = 1000) -> AsyncIterator[BFDEvent | EventsLost]:
        """Everything that happens from now on, until the session ends.

        :param limit: events kept for a slow reader; then the oldest are dropped and ``EventsLost``
            says how many.
        """
        self._require_home("events")
        return self._hub.stream(limit)

    def on_transition(self, callback: Callable[[BFDTransition], None]) -> Callable[[], None]:
        """Call ``callback`` on each change of state, on the event loop, also when the session is
        entered again; it must not block. Returns what ends it.

        An exception in it is logged and changes nothing for the session.

        :raises ConfigError: it is not callable, or a coroutine function.
        """
        self._require_home("on_transition")
        require_callback("on_transition", callback)
        return self._transitions.subscribe(callback)

    def on_lost(self, callback: Callable[[], None]) -> Callable[[], None]:
        """Call ``callback`` when a neighbour that was Up has not been heard for the Detection Time:
        not when one of the two is held down on purpose, nor when only the neighbour misses packets.
        Returns what ends it.

        :raises ConfigError: it is not callable, or a coroutine function.
        """
        self._require_home("on_lost")
        require_callback("on_lost", callback)

        def filtered(transition: BFDTransition) -> None:
            expired = transition.diagnostic is BFDDiagnostic.DETECTION_EXPIRED
            if transition.previous is BFDState.UP and expired:
                callback()

        return self.on_transition(filtered)

    # --- what it can be told ---------------------------------------------------------------------

    def admin_down(self) -> None:
        """Hold the session down, and let the neighbour know that this is no failure; also before it
        is entered."""
        self._require_home("admin_down")
        self._held_down = True
        self._feed(AdminDown())

    def admin_up(self) -> None:
        """End what :meth:`admin_down` began."""
        self._require_home("admin_up")
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
        self._require_home("set_timers")
        now = self._timers
        self._timers = timers(
            f"BFD to {self.name}",
            now.min_tx if min_tx is None else min_tx,
            now.min_rx if min_rx is None else min_rx,
            now.multiplier if multiplier is None else multiplier,
        )
        self._feed(Retimed(self._timers))


def _hub() -> Hub[BFDEvent]:
    return Hub(logging.getLogger("vrrpkit.bfd"), "BFD to ")
