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

    :param session: the session. Trackers of one and the same object share it.
    :raises ConfigError: it is no :class:`vrrpkit.BFDSession`.
    """

    session: BFDSession = attrs.field(validator=_session)

    def describe(self) -> str:
        return f"BFD to {self.session.name}"

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
