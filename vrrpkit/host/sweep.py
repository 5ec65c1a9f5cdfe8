"""Addresses, and interfaces with virtual MAC addresses, that a killed run left behind (see
:mod:`vrrpkit.host.leftovers`)."""

from __future__ import annotations

import errno
import logging
from collections.abc import Callable, Sequence
from ipaddress import ip_interface

import attrs

from vrrpkit.host import messages
from vrrpkit.host.deadlines import Deadlines
from vrrpkit.host.leftovers import SETTLE, Liveness
from vrrpkit.host.macvlan import settings_left, was_ours
from vrrpkit.host.monitor import LinkMonitor
from vrrpkit.host.netlink import CHUNK, Netlink
from vrrpkit.host.notices import AddressKey, LinkRecord, to_address
from vrrpkit.host.sysctl import Sysctls
from vrrpkit.values import VIP

__all__ = ["Sweep", "Users"]

log = logging.getLogger(__name__)

GONE = frozenset({errno.EADDRNOTAVAIL, errno.ENODEV})


@attrs.frozen
class Users:
    """What this process wants now."""

    held: Callable[[str], set[AddressKey]]
    """The addresses that are held on the interface of a name."""
    carries: Callable[[str], bool]
    """Whether the interface of a name is one with a virtual MAC address, and in use."""


class Sweep:
    """Notes what is there when the first address or route is wanted, on whatever interface, and
    removes it a second later if nobody wants it then and no other process lives."""

    def __init__(
        self,
        netlink: Netlink,
        monitor: LinkMonitor,
        sysctls: Sysctls,
        deadlines: Deadlines,
        liveness: Liveness,
    ) -> None:
        self._netlink = netlink
        self._monitor = monitor
        self._sysctls = sysctls
        self._deadlines = deadlines
        self._liveness = liveness
        self._begun = False

    def begin(self, users: Users) -> None:
        """Note what is there; only the first time."""
        if self._begun:
            return
        self._begun = True
        links = {link.ifindex for link in self._monitor.links() if was_ours(link)}
        addresses = {
            link.ifindex: keys - users.held(link.name)
            for link in self._monitor.links()
            if (keys := self._marked(link))
        }
        if links or addresses:
            deadline = self._deadlines.new(lambda: self._remove(users, links, addresses))
            deadline.set(self._deadlines.now() + SETTLE)

    def _marked(self, link: LinkRecord) -> set[AddressKey]:
        records = self._monitor.addresses(link.name)
        return {key for key, record in records.items() if self._monitor.mine(record)}

    def _remove(self, users: Users, noted: set[int], addresses: dict[int, set[AddressKey]]) -> None:
        links: list[LinkRecord] = []
        doomed: list[tuple[LinkRecord, set[AddressKey]]] = []
        for link in self._monitor.links():
            keys = self._marked(link) & addresses.get(link.ifindex, set())
            if link.ifindex in noted and was_ours(link) and not users.carries(link.name):
                links.append(link)
            elif left := keys - users.held(link.name):
                doomed.append((link, left))
        if not (links or doomed):
            return
        if not self._liveness.alone():
            log.info("leftovers may be another process's: no address and no interface is removed")
            return
        for link in links:
            self._remove_link(link)
        for link, keys in doomed:
            self._remove_addresses(link, keys)

    def _remove_link(self, link: LinkRecord) -> None:
        log.warning("removing interface %s, left behind by a run that was killed", link.name)
        self._ask(link.name, [messages.delete_link(link.ifindex)])
        below = self._monitor.at(link.parent)
        if below is not None:
            for name, value, before in settings_left(link.alias, below.name):
                self._sysctls.recall(name, value, before)

    def _remove_addresses(self, link: LinkRecord, keys: set[AddressKey]) -> None:
        vips = [VIP(ip_interface((to_address(key[0]), key[1]))) for key in sorted(keys)]
        log.warning(
            "removing %s from %s, left behind by a run that was killed",
            ", ".join(map(str, vips)),
            link.name,
        )
        requests = [messages.delete_address(vip) for vip in vips]
        for request in requests:
            messages.set_index(request, link.ifindex)
        self._ask(link.name, requests)

    def _ask(self, name: str, requests: Sequence[bytearray]) -> None:
        for start in range(0, len(requests), CHUNK):
            for problem in self._netlink.exchange(requests[start : start + CHUNK]):
                if problem is not None and problem.errno not in GONE:
                    log.warning("%s: %s", name, problem)
