"""Tracks a BFD session (keepalived: ``track_bfd``)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

import attrs

from vrrpkit.bfd.protocol.packet import BFDState
from vrrpkit.bfd.session import BFDSession
from vrrpkit.errors import ConfigError
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

    async def signals(self) -> AsyncGenerator[Signal, None]:
        async with self.session:
            changed = asyncio.Event()
            unsubscribe = self.session.on_transition(lambda _transition: changed.set())
            try:
                while True:
                    yield self.session.state is BFDState.UP
                    await changed.wait()
                    changed.clear()
            finally:
                unsubscribe()
