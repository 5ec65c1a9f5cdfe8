"""What happens to one virtual router between entering and leaving: its interface is opened, its
driver runs, and everything is given back, whatever is being cancelled meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine

from vrrpkit.errors import VRRPKitError
from vrrpkit.events import Hub
from vrrpkit.host.base import Interface
from vrrpkit.transport.base import Transport
from vrrpkit.vrrp.driver import Driver, InstanceRecorder
from vrrpkit.vrrp.notices import Notice
from vrrpkit.vrrp.options import Options
from vrrpkit.vrrp.statistics import Statistics

__all__ = ["Life", "to_the_end"]


async def to_the_end(work: Coroutine[object, object, None], name: str) -> None:
    """Run ``work`` to its end. A cancellation is raised after it, not instead of it."""
    task = asyncio.create_task(work, name=name)
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError as cancellation:
            cancelled = cancellation
        except Exception:
            break
    task.result()
    if cancelled is not None:
        raise cancelled


class Life:
    """The one run of one virtual router.

    :param place: gives the interface; called when the run begins.
    """

    def __init__(
        self,
        options: Options,
        hub: Hub[Notice],
        statistics: Statistics,
        place: Callable[[], Interface],
        *,
        wait_for_interface: bool,
        transport: Transport | None,
        recorder: InstanceRecorder | None,
    ) -> None:
        self.options = options
        self.hub = hub
        self.driver: Driver | None = None
        self.group: str | None = None
        """The sync group that enters and leaves this router."""
        self._statistics = statistics
        self._place = place
        self._wait_for_interface = wait_for_interface
        self._transport = transport
        self._recorder = recorder
        self._interface: Interface | None = None
        self._used = False

    async def prepare(self, failed: Callable[[], None], *, grouped: bool = False) -> Driver:
        """Open the interface and take a place on the link; :meth:`Driver.begin` is next.

        :param failed: called once when a bug ends the run.
        :raises VRRPKitError: there was a run already.
        """
        if self._used:
            raise VRRPKitError(
                f"{self.options.name} was entered before: make a new VRRPInstance for each run"
            )
        self._used = True
        interface = self._place()
        await interface.open()
        self._interface = interface
        self.driver = Driver(
            self.options,
            interface,
            self.hub,
            self._statistics,
            transport=self._transport,
            recorder=self._recorder,
            failed=failed,
            grouped=grouped,
        )
        try:
            await self.driver.prepare(self._wait_for_interface)
        except BaseException:
            await self.end()
            raise
        return self.driver

    async def end(self) -> None:
        """Leave. Priority 0 is out before the first await; a cancellation waits for the rest."""
        driver, interface = self.driver, self._interface
        if driver is None or interface is None:
            return
        driver.leave()

        async def give_back() -> None:
            try:
                await driver.stop()
            finally:
                await interface.close()

        try:
            await to_the_end(give_back(), f"vrrpkit: {self.options.name} gives its addresses back")
        finally:
            self.hub.close()
