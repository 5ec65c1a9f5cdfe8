"""Masquerading as a virtual server uses it: for its whole pool, and never against its table."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from vrrpkit.errors import HostError
from vrrpkit.ipvs.base import Table
from vrrpkit.ipvs.model.entries import Destination, ServiceKey
from vrrpkit.ipvs.model.pool import Member
from vrrpkit.lifecycle.loading import load
from vrrpkit.lifecycle.worker import Worker

if TYPE_CHECKING:
    from vrrpkit.ipvs.kernel.table import KernelTable

__all__ = ["MasqueradeLifecycle", "forget_kept", "load_rules"]

log = logging.getLogger(__name__)


class MasqueradeLifecycle:
    """The masquerading of one virtual server. A table in memory has none, and takes it as done.

    :param name: of the virtual server: what is kept is found again by it.
    :param restored: called when another program had removed the rules and they are back.
    """

    def __init__(
        self,
        table: Table,
        services: Iterable[ServiceKey],
        name: str,
        restored: Callable[[], None],
    ) -> None:
        self._rules: Masquerade | None = None
        kernel = _of_the_kernel(table)
        if kernel is not None:
            from vrrpkit.ipvs.masquerade.rules import Masquerade

            self._rules = Masquerade(services, netns=kernel.netns, name=name)
        self._restored = restored
        self._due = False
        """Whether a look was asked for and not made yet."""
        self._worker = Worker("vrrpkit masquerading", self._ensure, lambda: self._due)

    async def start(self, members: Iterable[Member]) -> None:
        """Masquerade connections to these servers.

        :raises HostError: the host does not forward packets, or has no ``nft``.
        """
        if self._rules is not None:
            await self._rules.update(_entries(members))
            await self._rules.__aenter__()

    async def update(self, members: Iterable[Member]) -> None:
        """Masquerade connections to these servers instead.

        :raises HostError: ``nft`` refuses; the rules before stay.
        """
        if self._rules is not None:
            await self._rules.update(_entries(members))

    def look(self) -> None:
        """See whether the rules are still there, and put them back if not."""
        if self._rules is not None:
            self._due = True
            self._worker.start()

    async def end(self, *, keep: bool) -> None:
        """Stop it; with ``keep`` its rules stay, for the connections that go on, until the next run
        under this name."""
        await self._worker.idle()
        if self._rules is None:
            return
        if keep:
            await self._rules.keep()
        else:
            await self._rules.__aexit__(None, None, None)

    async def _ensure(self) -> None:
        assert self._rules is not None
        try:
            restored = await self._rules.ensure()
        except HostError as problem:
            log.warning("the rules for masquerading cannot be restored: %s", problem)
            restored = False
        self._due = False
        if restored:
            self._restored()


def _of_the_kernel(table: Table) -> KernelTable | None:
    """The table, if it is the kernel's. There is no object of a module that is not loaded, and a
    program that stays in memory never loads netlink."""
    if "vrrpkit.ipvs.kernel.table" not in sys.modules:
        return None
    from vrrpkit.ipvs.kernel.table import KernelTable

    return table if isinstance(table, KernelTable) else None


async def load_rules(table: Table) -> None:
    """Load what masquerading needs, unless the table is in memory."""
    if _of_the_kernel(table) is not None:
        await load("vrrpkit.ipvs.masquerade.rules")


async def forget_kept(table: Table, name: str) -> None:
    """Remove the rules that an earlier run kept under this name: they are not wanted any more."""
    kernel = _of_the_kernel(table)
    if kernel is not None:
        await load_rules(kernel)
        from vrrpkit.ipvs.masquerade.rules import discard

        await discard(name, kernel.netns)


def _entries(members: Iterable[Member]) -> list[Destination]:
    return [member.destination(member.weight) for member in members]
