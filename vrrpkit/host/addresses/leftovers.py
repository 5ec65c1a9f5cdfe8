"""Addresses, and interfaces with virtual MAC addresses, that a killed run left behind (see
:mod:`vrrpkit.host.liveness`)."""

from __future__ import annotations

import errno
import logging
from collections.abc import Callable, Sequence

import attrs

from vrrpkit.host.links import requests as link_requests
from vrrpkit.host.links.macvlan import recall_settings, was_ours
from vrrpkit.host.links.monitor import LinkMonitor
from vrrpkit.host.links.records import AddressKey, AddressRecord, LinkRecord
from vrrpkit.host.liveness import SETTLE, Liveness
from vrrpkit.linux.netlink import CHUNK, Netlink
from vrrpkit.linux.sysctl import Sysctls
from vrrpkit.timers import Deadline, Deadlines

__all__ = ["Sweep", "Users"]

log = logging.getLogger(__name__)

GONE = frozenset({errno.EADDRNOTAVAIL, errno.ENODEV})


@attrs.frozen
class Users:
    """What this process wants now."""

    held: Callable[[str], set[AddressKey]]
    """The addresses that are held on the interface of a name."""
    uses: Callable[[str], bool]
    """Whether the interface of a name is in use."""


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
        self._links: set[int] = set()
        self._addresses: dict[int, set[AddressKey]] = {}

    def begin(self, users: Users) -> None:
        """Note what is there; only the first time."""
        if self._begun:
            return
        self._begun = True
        for link in self._monitor.links():
            if was_ours(link):
                self._links.add(link.ifindex)
            if keys := self._marked(link).keys() - users.held(link.name):
                self._addresses[link.ifindex] = keys
        if self._links or self._addresses:
            deadline = self._deadlines.new(lambda: self._remove(users, deadline))
            deadline.set(self._deadlines.now() + SETTLE)

    def _marked(self, link: LinkRecord) -> dict[AddressKey, AddressRecord]:
        records = self._monitor.addresses(link.name)
        return {key: record for key, record in records.items() if self._monitor.mine(record)}

    def _remove(self, users: Users, deadline: Deadline) -> None:
        links: list[LinkRecord] = []
        doomed: list[tuple[str, list[AddressRecord]]] = []
        for link in self._monitor.links():
            if link.ifindex in self._links and was_ours(link) and not users.uses(link.name):
                links.append(link)
            marked = self._marked(link)
            keys = marked.keys() & self._addresses.get(link.ifindex, set())
            if left := keys - users.held(link.name):
                doomed.append((link.name, [marked[key] for key in sorted(left)]))
        if not (links or doomed):
            return
        if not self._liveness.alone():
            log.info("leftovers may be another process's: no address and no interface is removed")
            return
        for name, records in doomed:
            self._remove_addresses(name, records)
        self._addresses.clear()
        for link in links[:1]:
            self._links.discard(link.ifindex)
            self._remove_link(link)
        if links[1:]:
            # One at a time, for the kernel takes some 20 ms for each.
            deadline.set(self._deadlines.now())

    def _remove_link(self, link: LinkRecord) -> None:
        log.warning("removing interface %s, left behind by a run that was killed", link.name)
        self._ask(link.name, [link_requests.delete_link(link.ifindex)])
        below = self._monitor.at(link.parent)
        if below is not None:
            recall_settings(self._sysctls, link, below.name)

    def _remove_addresses(self, name: str, records: Sequence[AddressRecord]) -> None:
        log.warning(
            "removing %s from %s, left behind by a run that was killed",
            ", ".join(map(str, records)),
            name,
        )
        with self._monitor.removing((record.ifindex, record.key) for record in records):
            self._ask(name, [link_requests.delete_found(record) for record in records])

    def _ask(self, name: str, requests: Sequence[bytearray]) -> None:
        for start in range(0, len(requests), CHUNK):
            for problem in self._netlink.exchange(requests[start : start + CHUNK]):
                if problem is not None and problem.errno not in GONE:
                    log.warning("%s: %s", name, problem)
