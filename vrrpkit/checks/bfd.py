"""The BFD checker: a server is healthy while a BFD session with it is Up."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Hashable

import attrs

from vrrpkit.bfd.config import BFDSettings
from vrrpkit.bfd.protocol.events import BFDTransition
from vrrpkit.bfd.protocol.packet import BFDDiagnostic, BFDState
from vrrpkit.bfd.session import BFDSession
from vrrpkit.checks.base import Checker
from vrrpkit.checks.target import Target
from vrrpkit.configured import advised, values_of
from vrrpkit.errors import CheckFailed, HostError
from vrrpkit.local_errors import own_trouble
from vrrpkit.runtime import Runtime
from vrrpkit.validate import times_field

__all__ = ["BFDChecker"]


class _SessionWatch:
    """The session with one address, shared by all checks that want the same of it."""

    def __init__(self, session: BFDSession) -> None:
        self.session = session
        self.users = 0
        self.since = 0.0
        """When the session began to run."""
        self._open = False

    def start(self) -> None:
        """Begin, unless it runs.

        :raises OSError: not now.
        :raises HostError: not now.
        """
        if not self._open:
            self.session.open()
            self._open = True
            self.since = asyncio.get_running_loop().time()

    def shutdown(self) -> None:
        """See :meth:`vrrpkit.runtime.Shared.shutdown`."""
        if self._open:
            self.session.close()
            self._open = False


@advised
@attrs.frozen(kw_only=True)
class BFDChecker(BFDSettings, Checker):
    """A server is healthy while a BFD session with its address is Up (keepalived: ``BFD_CHECK``)::

        BFDChecker(min_tx=0.1, min_rx=0.1, multiplier=5)

    The server must run BFD too. There is one session for each address, however many servers have
    it, from the first check that begins to the last that ends. A change of its state is a check at
    once; ``interval`` only says how often there is a result besides. While a session is new, an
    attempt waits for it to come Up.

    The parameters are those of :class:`vrrpkit.bfd.config.BFDSettings` and of
    :class:`vrrpkit.Checker`, and ``retry`` is 0 by default: missed
    packets have been counted already.

    :raises ConfigError: a value is unusable.
    """

    retry: int = attrs.field(default=0, validator=times_field(0))

    @property
    def who(self) -> str:
        return "BFDChecker"

    def validate(self, target: Target) -> None:
        self._session(target)

    def attach(self, target: Target, soon: Callable[[], None]) -> Callable[[], None]:
        runtime = Runtime.current()
        key = self._key(target)
        watch = runtime.use(_SessionWatch, key, lambda: _SessionWatch(self._session(target)))
        watch.users += 1

        def changed(transition: BFDTransition) -> None:
            if BFDState.UP in (transition.previous, transition.state):
                soon()

        unsubscribe = watch.session.on_transition(changed)
        # Every attempt tries again, and says why it cannot be.
        with contextlib.suppress(HostError, OSError):
            watch.start()

        def detach() -> None:
            unsubscribe()
            watch.users -= 1
            if not watch.users:
                runtime.forget(_SessionWatch, key)
                watch.shutdown()

        return detach

    async def check(self, target: Target) -> None:
        loop = asyncio.get_running_loop()
        watch = Runtime.current(loop).find(_SessionWatch, self._key(target))
        if watch is None:
            # Nobody checks it regularly.
            async with self._session(target) as session:
                await session.wait_for(BFDState.UP)
            return
        try:
            watch.start()
        except (HostError, OSError) as problem:
            if own_trouble(problem):
                raise
            raise CheckFailed(str(problem)) from None
        session = watch.session
        if not session.statistics.ups and loop.time() - watch.since < self.timeout:
            await session.wait_for(BFDState.UP)
        if session.state is not BFDState.UP:
            raise CheckFailed(_why(session))

    def _key(self, target: Target) -> Hashable:
        """Equal for checks that can share a session."""
        return (target.address, *values_of(self, BFDSettings).values())

    def _session(self, target: Target) -> BFDSession:
        return BFDSession(target.address, **values_of(self, BFDSettings))


def _why(session: BFDSession) -> str:
    diagnostic = session.diagnostic
    if diagnostic is BFDDiagnostic.NEIGHBOR_DOWN and session.remote_state is BFDState.ADMIN_DOWN:
        diagnostic = BFDDiagnostic.ADMIN_DOWN
    if diagnostic is BFDDiagnostic.NONE:
        return f"the BFD session is {session.state}, and was never Up"
    return f"the BFD session is {session.state}: {diagnostic}"
