"""What one virtual router has on its host while it is MASTER: addresses, routes, rules, and a ban
on packets to the addresses where it does not accept any."""

from __future__ import annotations

import asyncio
import errno
import logging
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from vrrpkit.host.base import AddressClaim, FilterRule, Interface, RouteClaim
from vrrpkit.timers import Deadline
from vrrpkit.values import VIP, IPAddress
from vrrpkit.vrrp.config import VRRPInstanceConfig
from vrrpkit.vrrp.link import VRRPLink
from vrrpkit.vrrp.protocol.foreign_addresses import MisplacedAddress
from vrrpkit.vrrp.protocol.inputs import (
    EverythingInPlace,
    Input,
    KernelRefusedAddresses,
    LostAddress,
    LostRoute,
)
from vrrpkit.vrrp.protocol.machine import Machine
from vrrpkit.vrrp.protocol.profile import AddressLostPolicy

if TYPE_CHECKING:
    from vrrpkit.routes.route import Entry

__all__ = ["GRACE", "HostResources"]

log = logging.getLogger(__name__)

DUPLICATE = "duplicate address detection failed: somebody else on the link has it"

GRACE = 5.0
"""Seconds that leaving may take to remove the addresses."""


UNSEEN = frozenset(
    {
        *(errno.ENOBUFS, errno.ENOMEM, errno.EAGAIN, errno.EBUSY, errno.EMFILE, errno.ENFILE),
        *(errno.EPERM, errno.EACCES, errno.EIO, errno.ENOSPC, errno.ETIMEDOUT),
        # Of duplicate address detection: who has the address is elsewhere.
        errno.EADDRINUSE,
    }
)
"""Refusals that no change of a link, an address or a route shows the end of."""


class HostResources:
    """Takes and drops what belongs to one router, and tells its machine how the kernel took it (see
    :class:`vrrpkit.host.base.AddressListener`).

    :param feed: takes events for the machine.
    :param fail: told of a bug.
    :param placed: told that everything is in place, or that some of it was refused.
    :param tell_all: tell of success even when the kernel has refused nothing before.
    """

    def __init__(
        self,
        config: VRRPInstanceConfig,
        machine: Machine,
        *,
        feed: Callable[[Input], None],
        fail: Callable[[BaseException], None],
        placed: Callable[[bool], None],
        tell_all: bool,
    ) -> None:
        self._config = config
        self._machine = machine
        self._feed = feed
        self._fail = fail
        self._tell_all = tell_all
        self._placed = placed
        self._addresses: AddressClaim | None = None
        self._routes: RouteClaim | None = None
        self._ban: FilterRule | None = None
        self._devices: dict[VIP, Interface] = {}
        self._places: dict[Interface, frozenset[IPAddress]] = {}
        self._waiting: list[VIP] = []
        """Addresses that are wanted and went, or could not come, because of their interface, which
        does not count as down or is not tracked."""
        self._policy = machine.config.address_lost
        self._doubted: set[VIP] = set()
        """Addresses that have failed duplicate address detection once."""
        self._detection: Deadline | None = None

    async def prepare(self, vrrp_link: VRRPLink) -> None:
        """Make the holds; none of it is put in place yet."""
        config, interface, carrier = self._config, vrrp_link.interface, vrrp_link.carrier
        named = {each.name: each for each in vrrp_link.interfaces}
        self._devices = {vip: named[vip.dev or carrier.name] for vip in config.all_vips}
        for each in named.values():
            vips = [vip for vip, device in self._devices.items() if device is each]
            # An owner has its addresses for good, and a real server has them on lo.
            if vips and each.name != "lo" and not config.owner:
                alone = len(vips) == len(self._devices)
                self._places[each] = (
                    config.all_addresses if alone else frozenset(vip.address for vip in vips)
                )
                each.remove_abandoned(self._places[each])
        self._detection = interface.deadlines.new(self._detect)
        self._now = interface.deadlines.now
        if not config.accepts:
            self._ban = await carrier.refuse(config.all_vips)
        self._addresses = await carrier.hold(
            config.all_vips, config.used_announcements, self, config.vip_lease
        )
        if config.routes or config.rules:
            self._routes = interface.hold_routes(config.routes, config.rules, self.route_lost)

    def take(self) -> None:
        """Put the addresses in place; routes and rules follow when they are."""
        if self._doubted:
            self._detect()
        self._held.acquire()

    def drop(self) -> None:
        """Remove rules, routes and addresses."""
        self._waiting.clear()
        self._trust()
        if self._routes is not None:
            self._routes.release()
        self._held.release()

    def announce(self, repeat: int) -> None:
        """Announce the addresses again."""
        self._held.announce(repeat)

    @property
    def _held(self) -> AddressClaim:
        assert self._addresses is not None
        return self._addresses

    async def give_back(self) -> None:
        """Remove everything within :data:`GRACE` seconds, and forget it."""
        self._trust()
        routes, self._routes = self._routes, None
        try:
            if routes is not None:
                routes.close()
        finally:
            if self._addresses is not None:
                await self._remove(self._addresses)

    async def _remove(self, addresses: AddressClaim) -> None:
        try:
            async with asyncio.timeout(GRACE):
                await addresses.close()
        except TimeoutError:
            log.error(
                "%s: the kernel did not take the addresses back within %g s",
                self._config.name,
                GRACE,
            )

    async def lift_ban(self) -> None:
        """Let packets to the addresses pass again."""
        if self._ban is not None:
            await self._ban.close()

    # --- what the kernel says --------------------------------------------------------------------

    def acquired(self) -> None:
        """Every address is in place."""
        self._waiting = [vip for vip in self._devices if not vip.track and not self._usable(vip)]
        if self._routes is not None and not self._take_routes(self._routes):
            return
        self._in_place()

    def _in_place(self) -> None:
        if self._held.checking:
            return
        if self._machine.refused or self._tell_all:
            self._feed(EverythingInPlace())
        self._placed(True)

    def _take_routes(self, routes: RouteClaim) -> bool:
        """Put routes and rules in place; whether all are."""
        try:
            failures = routes.acquire()
        except BaseException as bug:
            self._fail(bug)
            return False
        self._refused([(entry.described, error) for entry, error in failures])
        return not failures

    def refused(self, failures: Sequence[tuple[VIP, OSError]]) -> None:
        """The kernel refused addresses."""
        self._refused([(str(vip), error) for vip, error in failures])
        if self._machine.short:
            # It serves with what it can have.
            if self._routes is not None:
                self._routes.acquire()
            self._held.make_do()

    def _refused(self, failures: Sequence[tuple[str, OSError]]) -> None:
        if failures:
            told = tuple(f"{what}: {error.strerror or error}" for what, error in failures)
            seen = all(error.errno not in UNSEEN for _what, error in failures)
            self._feed(KernelRefusedAddresses(told, watchable=seen))
            self._placed(False)

    def lost(self, vip: VIP) -> None:
        """Somebody else removed an address, unless it went with its interface: then it is put back
        when that returns."""
        if self._usable(vip):
            self._feed(LostAddress(vip.address))
        elif vip not in self._waiting:
            self._waiting.append(vip)

    def usable(self, vip: VIP) -> None:
        """An address has passed duplicate address detection."""
        self._doubted.discard(vip)
        self._in_place()

    def duplicate(self, vip: VIP) -> None:
        """An address has failed duplicate address detection. Whoever preempts runs it while the old
        master still has the address, so it is repeated once, after an interval."""
        if vip in self._doubted:
            self.refused([(vip, OSError(errno.EADDRINUSE, DUPLICATE))])
            return
        if self._detection is not None and self._policy is not AddressLostPolicy.IGNORE:
            self._doubted.add(vip)
            self._detection.set(self._now() + self._config.interval)
        self._feed(LostAddress(vip.address, duplicate=True))

    def _detect(self) -> None:
        for vip in self._doubted:
            self._held.detect(vip)

    def _trust(self) -> None:
        self._doubted.clear()
        if self._detection is not None:
            self._detection.set(None)

    def _usable(self, vip: VIP) -> bool:
        link = self._devices[vip].link
        return link is not None and link.up

    @property
    def foreign(self) -> frozenset[MisplacedAddress]:
        """What somebody else has put where this router puts its addresses."""
        return frozenset(
            MisplacedAddress(interface.name, address, prefix)
            for interface, mine in self._places.items()
            if (link := interface.link) is not None
            if not mine.isdisjoint(link.listed)
            for address, prefix in link.addresses
            if address in mine
        )

    def evict(self, intruder: MisplacedAddress) -> OSError | None:
        """Remove what somebody else has put there; what the kernel says if it refuses."""
        for interface in self._places:
            if interface.name == intruder.device:
                return interface.remove_foreign(intruder.address, intruder.prefix)
        return None

    def look(self) -> None:
        """An interface has changed: put back what waits for it."""
        if any(self._usable(vip) for vip in self._waiting):
            self._waiting.clear()
            self._held.acquire()

    def route_lost(self, entry: Entry) -> None:
        """Somebody else removed a route or a rule."""
        self._feed(LostRoute(entry.described))
