"""What all objects have in common that users enter and listen to: :class:`vrrpkit.VRRPInstance`,
:class:`vrrpkit.SyncGroup`, :class:`vrrpkit.VirtualServer` and others.

:class:`Observable` publishes events and can be waited for; :class:`Notifying` also serves
notifiers, and interrupts the body of its ``async with`` when a bug ends its run. Their methods with
an underscore are for the classes that derive from them.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable
from typing import Generic, TypeVar

from vrrpkit.errors import Closed, VRRPKitError
from vrrpkit.lifecycle.callbacks import LoopThread, require_callback
from vrrpkit.lifecycle.leaving import TaskGuard
from vrrpkit.publishing import LIMIT, Attachments, EventsLost, Hub, Notifier

__all__ = ["Notifying", "Observable"]

E = TypeVar("E")
R = TypeVar("R")
S = TypeVar("S")


class Observable(Generic[E]):
    """An object that publishes events while it runs.

    Once it has been entered, its methods are for the thread of its event loop only.

    :param name: what events and logs call it.
    :param hub: publishes its events; it closes when the object ends.
    """

    def __init__(self, name: str, hub: Hub[E]) -> None:
        self.name = name
        """What events and logs call it."""
        self._hub = hub
        self._home: LoopThread | None = None
        self._used = False

    def events(self, limit: int = LIMIT) -> AsyncIterator[E | EventsLost]:
        """Everything that happens from now on, until this object ends.

        :param limit: events kept for a slow reader, 1 to 1000000; then the oldest are dropped and
            :class:`vrrpkit.events.EventsLost` says how many.
        :raises ConfigError: ``limit`` is something else.
        """
        self._require_home("events")
        return self._hub.stream(limit)

    # --- for derived classes: life ---------------------------------------------------------------

    @property
    def _title(self) -> str:
        """What error messages call this object."""
        return self.name

    def _enter(self, again: str = "") -> None:
        """Begin the one run of this object, on the current thread.

        :param again: what to make for another run; by default a new object of this class.
        :raises VRRPKitError: there was a run already.
        """
        if self._used:
            again = again or f"a new {type(self).__name__}"
            raise VRRPKitError(f"{self._title} was entered before: make {again} for each run")
        self._used = True
        self._settle()

    def _settle(self) -> None:
        """From now on this object belongs to the current thread."""
        self._home = LoopThread()

    def _require_home(self, method: str) -> None:
        """Refuse a call of ``method`` from another thread than that of the event loop.

        :raises VRRPKitError: this is another thread.
        """
        if self._home is not None:
            self._home.require(f"{self.name}.{method}")

    @property
    def _why_idle(self) -> str:
        """Why this object does not run, in words."""
        return "has ended" if self._hub.closed else "not running: enter it with 'async with'"

    def _required(self, run: R | None) -> R:
        """``run``, which is there while this object runs.

        :raises VRRPKitError: it does not run.
        """
        if self._hub.closed:
            kind = type(self).__name__
            raise VRRPKitError(f"{self._title} has ended: make a new {kind} for each run")
        if run is None:
            raise VRRPKitError(f"{self._title} is not running: enter it with 'async with' first")
        return run

    # --- for derived classes: events -------------------------------------------------------------

    def _require_callback(self, method: str, callback: object) -> None:
        """Check a call of ``method``, which takes ``callback``.

        :raises VRRPKitError: this is another thread.
        :raises ConfigError: ``callback`` is not callable, or a coroutine function.
        """
        self._require_home(method)
        require_callback(method, callback)

    async def _next(self, matches: Callable[[E], bool], what: str) -> E:
        """Wait for the next event that matches.

        :param what: what it means, for the message: ``"be MASTER"``.
        :raises Closed: this object has ended.
        """
        if self._hub.closed:
            raise Closed(f"{self._title} has ended and will not {what} any more")
        return await self._hub.wait_for(matches)

    async def _wait_in(
        self, wanted: tuple[S, ...], present: S, entered: Callable[[E], S | None]
    ) -> S:
        """Return at once if ``present`` is one of the wanted states, else the next time that one is
        entered. Returns that state.

        :param entered: the state that an event says was entered, or None if it says nothing of it.
        :raises Closed: this object has ended.
        """
        if present in wanted:
            return present
        event = await self._next(lambda event: entered(event) in wanted, f"be {wanted[0]}")
        state = entered(event)
        assert state is not None
        return state


class Notifying(Observable[E]):
    """An observable object that notifiers can be attached to (``notify=[...]``).

    :param name: what events and logs call it.
    :param hub: publishes its events; it closes when the object ends.
    :param notify: the notifiers that it begins with.
    """

    def __init__(self, name: str, hub: Hub[E], notify: Iterable[Notifier]) -> None:
        super().__init__(name, hub)
        self._notify = Attachments(self, notify)
        self._body = TaskGuard()

    def add_notifier(self, notifier: Notifier) -> Callable[[], None]:
        """Let one more notifier take everything that happens, beginning with the present state.
        Returns what ends it.

        :raises ConfigError: the notifier cannot take events of this class.
        """
        self._require_home("add_notifier")
        return self._notify.add(self._hub, notifier, *self._present())

    def _present(self) -> Iterable[E | None]:
        """The events that a notifier begins with when it joins now."""
        return ()
