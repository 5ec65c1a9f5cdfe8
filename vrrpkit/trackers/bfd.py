"""Tracks a BFD session (keepalived: ``track_bfd``)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

import attrs

from vrrpkit.bfd.protocol.packet import BFDDiagnostic, BFDState
from vrrpkit.bfd.session import BFDSession
from vrrpkit.errors import ConfigError
from vrrpkit.tracking.runner import Reasons
from vrrpkit.tracking.tracker import Signal, Tracker

__all__ = ["TrackBFD"]

PACKETS = 3
"""Packets of a session that is not Up, until it is if the neighbour answers."""

LONGEST = 5.0
"""Seconds that a router waits for a session at most before it starts."""


def _session(instance: object, attribute: attrs.Attribute[BFDSession], value: object) -> None:
    if not isinstance(value, BFDSession):
        raise ConfigError(
            f"TrackBFD takes a BFDSession, not {value!r}: write TrackBFD(BFDSession(...))"
        )


@attrs.frozen
class TrackBFD(Tracker):
    """Good while a BFD session is Up; one that is held down on purpose is not::

        TrackBFD(BFDSession("198.51.100.1"), weight=-60)

    The session runs as long as it is tracked, whether or not the program enters it too.

    With weight 0 the router waits for the session before it starts: three times its ``idle_tx``,
    but 5 seconds at most. A session that is not Up then is a FAULT, which ends when it is.

    :param session: the session. Trackers of one and the same object share it.
    :raises ConfigError: it is no :class:`vrrpkit.BFDSession`.
    """

    session: BFDSession = attrs.field(validator=_session)

    def describe(self) -> str:
        return f"BFD to {self.session.name}"

    @property
    def settling(self) -> float:
        return min(PACKETS * self.session.config.idle_tx, LONGEST)

    def _fault(self) -> str:
        """Why the signal is bad; empty while it is good."""
        session = self.session
        if session.state is BFDState.UP:
            return ""
        words = [f"the session is {session.state}"]
        if session.diagnostic is not BFDDiagnostic.NONE:
            words.append(str(session.diagnostic))
        if session.remote_diagnostic is not BFDDiagnostic.NONE:
            words.append(f"the neighbour says: {session.remote_diagnostic}")
        return ", ".join(words)

    async def signals(self) -> AsyncGenerator[Signal, None]:
        async with self.session:
            changed = asyncio.Event()
            reasons = Reasons(self.label)
            unsubscribe = self.session.on_transition(lambda _transition: changed.set())
            try:
                while True:
                    yield reasons.look(self._fault())
                    await changed.wait()
                    changed.clear()
            finally:
                unsubscribe()
