"""BFDSession: one BFD session, as users see it. ``run.py`` runs it, ``protocol/session.py``
decides."""

from __future__ import annotations

import logging
import random as randomness
from collections.abc import Callable
from types import TracebackType
from typing import Self

import attrs

from vrrpkit.bfd.config import BFDSessionConfig, timers
from vrrpkit.bfd.endpoint import BFDEndpoint
from vrrpkit.bfd.protocol.events import BFDEvent, BFDTransition
from vrrpkit.bfd.protocol.inputs import AdminDown, AdminUp, Input, Retimed, Start
from vrrpkit.bfd.protocol.packet import BFDDiagnostic, BFDState
from vrrpkit.bfd.protocol.session import SessionMachine
from vrrpkit.bfd.protocol.statistics import BFDStatistics, Rate
from vrrpkit.bfd.run import SessionRun
from vrrpkit.configured import configured_by, described, values_of
from vrrpkit.lifecycle.fork import ProcessOrigin
from vrrpkit.observable import Observable
from vrrpkit.publishing import Hub
from vrrpkit.values import IPAddress

__all__ = ["BFDSession"]


@attrs.frozen
class _BFDSessionArguments(BFDSessionConfig):
    """A session's description, and the live objects that no description can have.

    :param random: what jitter is drawn from; one with a seed repeats a run.
    """

    random: randomness.Random | None = attrs.field(default=None, kw_only=True, eq=False, repr=False)
    config: BFDSessionConfig = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        object.__setattr__(self, "config", described(BFDSessionConfig, self))


class BFDSession(Observable[BFDEvent]):
    """Finds out in a fraction of a second that a neighbour cannot be reached any more (RFC 5880,
    asynchronous mode, without echo and authentication; keepalived: ``bfd_instance``).

    ::

        async with BFDSession("192.0.2.2") as session:
            await session.wait_for(BFDState.UP)

    The neighbour must run a session with this host too. One object may be entered several times, by
    a tracker and by the program for example: it runs from the first entering to the last leaving,
    and then says that it is administratively down, so that the neighbour does not count it as a
    failure. After that it may be entered again.

    The parameters are those of :class:`vrrpkit.bfd.BFDSessionConfig`, and ``random``.
    """

    @configured_by(_BFDSessionArguments)
    def __init__(self, arguments: _BFDSessionArguments) -> None:
        self.config = arguments.config
        """The description that this was made from."""
        super().__init__(self.config.label, _hub())
        self.statistics = BFDStatistics()
        self._random = arguments.random or randomness.Random()
        self._timers = self.config.session_config().timers
        self._held_down = False
        # Callbacks outlive a run; streams, and those who wait, end with it.
        self._transitions: Hub[BFDTransition] = Hub()
        self._rate = Rate()
        self._users = 0
        self._run: SessionRun | None = None
        self._origin: ProcessOrigin | None = None

    @classmethod
    def of(cls, config: BFDSessionConfig, *, random: randomness.Random | None = None) -> Self:
        """Make what ``config`` describes.

        :param random: what jitter is drawn from; one with a seed repeats a run.
        """
        return cls(**values_of(config), random=random)

    @property
    def _title(self) -> str:
        return f"BFD to {self.name}"

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
            self.config,
            BFDEndpoint.current(self.config.memory or self.config.netns),
            self.statistics,
            self._rate,
            self._publish,
            self._random.random,
        )
        self._run = run
        self._origin = ProcessOrigin()
        self._settle()
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
        return self.config.neighbor

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
        return await self._wait_in((state, *others), self.state, _entered)

    def on_transition(self, callback: Callable[[BFDTransition], None]) -> Callable[[], None]:
        """Call ``callback`` on each change of state, on the event loop, also when the session is
        entered again; it must not block. Returns what ends it.

        An exception in it is logged and changes nothing for the session.

        :raises ConfigError: it is not callable, or a coroutine function.
        """
        self._require_callback("on_transition", callback)
        return self._transitions.subscribe(callback)

    def on_lost(self, callback: Callable[[], None]) -> Callable[[], None]:
        """Call ``callback`` when a neighbour that was Up has not been heard for the Detection Time:
        not when one of the two is held down on purpose, nor when only the neighbour misses packets.
        Returns what ends it.

        :raises ConfigError: it is not callable, or a coroutine function.
        """
        self._require_callback("on_lost", callback)

        def filtered(transition: BFDTransition) -> None:
            expired = transition.diagnostic is BFDDiagnostic.DETECTION_EXPIRED
            if transition.previous is BFDState.UP and expired:
                callback()

        return self.on_transition(filtered)

    # --- what it can be asked --------------------------------------------------------------------

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


def _entered(event: BFDEvent) -> BFDState | None:
    return event.state if isinstance(event, BFDTransition) else None


def _hub() -> Hub[BFDEvent]:
    return Hub(logging.getLogger("vrrpkit.bfd"), "BFD to ")
