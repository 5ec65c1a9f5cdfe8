"""The links and addresses of one network namespace as the kernel last told, and who wants to know.

Interfaces are known by name, because a name is what a configuration holds: one that vanishes and
returns is followed to its new index.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import re
from collections.abc import Callable, Generator, Iterable
from typing import NamedTuple

from vrrpkit.host.base import Link
from vrrpkit.host.links import records as link_records
from vrrpkit.host.links.records import AddressKey, AddressRecord, LinkRecord
from vrrpkit.linux.netlink import Netlink, NetlinkMessage, Overrun, Subscription
from vrrpkit.linux.netns import Namespace

__all__ = ["LinkMonitor", "Removal"]

log = logging.getLogger(__name__)

GROUPS = 0x1 | 0x10 | 0x100
"""RTMGRP_LINK | RTMGRP_IPV4_IFADDR | RTMGRP_IPV6_IFADDR."""

READS = 1024
"""Datagrams read in one go, so that no storm of notices keeps the event loop for long."""

RETRY = 1.0
"""Seconds until links and addresses are read again that could not be."""

MARKS_SINCE = (5, 18)
"""The Linux version that brought IFA_PROTO."""


class Removal(NamedTuple):
    """An address that was on the interface ``name`` and is gone from there."""

    name: str
    key: AddressKey
    ifindex: int = 0
    """Where it still is, for the interface was given another name; 0 is nowhere."""
    taken_along: bytes = b""
    """Its notice, where the kernel took the address along with one that was removed here: without
    the sysctl promote_secondaries it does so with those of the same prefix."""


class LinkMonitor:
    """Follows links and addresses from :meth:`start` until :meth:`close`.

    :param removed: called with the addresses that went, after all watchers have heard of links:
        an interface that goes down takes its IPv6 addresses with it, and that is a fault of the
        link, not of the addresses.
    :param detected: called with the name of an interface on which duplicate address detection has
        found an address usable, or not.
    """

    def __init__(
        self,
        namespace: Namespace,
        netlink: Netlink,
        removed: Callable[[list[Removal]], None],
        detected: Callable[[str, AddressKey, bool], None],
    ) -> None:
        self._netlink = netlink
        self._removed = removed
        self._detected = detected
        self._subscription = Subscription(namespace, GROUPS)
        self._links: dict[int, LinkRecord] = {}
        self._indexes: dict[str, int] = {}
        self._addresses: dict[int, dict[AddressKey, AddressRecord]] = {}
        self._unmarked: set[tuple[int, AddressKey]] = set()
        self._doomed: set[tuple[int, AddressKey]] = set()
        self._seen: dict[str, Link | None] = {}
        self._watchers: dict[str, list[Callable[[], None]]] = {}
        self._watching_all: dict[object, Callable[[], None]] = {}
        self._dirty: set[str] = set()
        self._removals: list[Removal] = []
        self._verdicts: list[tuple[str, AddressKey, bool]] = []
        self._loop: asyncio.AbstractEventLoop | None = None
        self._again: asyncio.TimerHandle | None = None
        self._draining = False
        self.marks = _release() >= MARKS_SINCE
        """Whether this kernel keeps the mark on an address."""

    # --- life

    def start(self) -> None:
        """Learn what there is, then follow changes on the running event loop."""
        self._read_all()
        self._dirty.clear()
        self._removals.clear()
        self._verdicts.clear()
        # Kept because a reader must be removed from the loop that has it, whoever closes.
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._subscription.fileno(), self.drain)

    def close(self) -> None:
        """Stop following; calling it twice is harmless."""
        if self._loop is not None:
            self._loop.remove_reader(self._subscription.fileno())
            self._loop = None
        if self._again is not None:
            self._again.cancel()
            self._again = None
        self._subscription.close()
        self._watchers.clear()
        self._watching_all.clear()

    # --- questions

    def record(self, name: str) -> LinkRecord | None:
        """The link of that name."""
        return self._links.get(self._indexes.get(name, 0))

    def link(self, name: str) -> Link | None:
        """The link of that name, as virtual routers see it: without the addresses that this
        library put there, for none of them may become a source of adverts."""
        if name not in self._seen:
            self._seen[name] = self._describe(name)
        return self._seen[name]

    def links(self) -> list[LinkRecord]:
        """All links."""
        return list(self._links.values())

    def at(self, ifindex: int) -> LinkRecord | None:
        """The link of that index, whatever its name is now."""
        return self._links.get(ifindex)

    def addresses(self, name: str) -> dict[AddressKey, AddressRecord]:
        """The addresses on the link of that name."""
        return self._addresses.get(self._indexes.get(name, 0), {})

    def address(self, ifindex: int, key: AddressKey) -> AddressRecord | None:
        """An address on the link of that index."""
        return self._addresses.get(ifindex, {}).get(key)

    def mine(self, record: AddressRecord) -> bool:
        """Whether the address was put there by this library, as far as the kernel lets us know."""
        return record.marked or (record.ifindex, record.key) in self._unmarked

    def watch(self, name: str, changed: Callable[[], None]) -> Callable[[], None]:
        """Call ``changed`` after each change of :meth:`link`; returns what ends it."""
        # Asked now, so that the next change is seen as one.
        self.link(name)
        watchers = self._watchers.setdefault(name, [])
        watchers.append(changed)

        def unwatch() -> None:
            if changed in watchers:
                watchers.remove(changed)
            if not watchers and self._watchers.get(name) is watchers:
                # Interfaces come and go under ever new names, as those of containers and of PPP.
                del self._watchers[name]
                self._seen.pop(name, None)

        return unwatch

    def watch_all(self, changed: Callable[[], None]) -> Callable[[], None]:
        """Call ``changed`` after changes of any link or address that this library did not make;
        returns what ends it."""
        key = object()
        self._watching_all[key] = changed

        def unwatch() -> None:
            self._watching_all.pop(key, None)

        return unwatch

    # --- what this library did itself

    def added(self, record: AddressRecord) -> None:
        """Take an address in that the kernel has just confirmed. (Its notice of an IPv6 address
        comes later, from a kernel thread.)"""
        if not record.marked:
            self._unmarked.add((record.ifindex, record.key))
        self._addresses.setdefault(record.ifindex, {}).setdefault(record.key, record)

    @contextlib.contextmanager
    def removing(self, addresses: Iterable[tuple[int, AddressKey]]) -> Generator[None]:
        """Addresses, by interface index, that are removed inside of the block by this library's
        netlink socket: they alone are what it asks for."""
        doomed = set(addresses)
        self._doomed |= doomed
        try:
            yield
            # The notices of what was done wait already: what is known is up to date on return.
            self.drain()
        finally:
            self._doomed -= doomed

    # --- what the kernel says

    def drain(self) -> None:
        """Take in every notice that waits, then tell whom it concerns."""
        if self._loop is None or self._draining:
            return
        self._draining = True
        try:
            self._read_notices()
            # Links first: has one gone down, of which the notice is still to come?
            for name in {removal.name for removal in self._removals}:
                self._ask(name)
        finally:
            self._draining = False
        self._tell()

    def _read_notices(self) -> None:
        try:
            for _read in range(READS):
                messages = self._subscription.read()
                if not messages:
                    return
                for message in messages:
                    self._take(message)
        except Overrun:
            log.warning("notices of the kernel were lost: reading all links and addresses anew")
            # What still waits is older than what is read next.
            self._subscription.discard()
            self._read_anew()

    def _read_anew(self) -> None:
        if self._again is not None:
            self._again.cancel()
            self._again = None
        if self._loop is None:
            return
        try:
            self._read_all()
        except OSError as problem:
            log.warning("links and addresses cannot be read: %s; again in %g s", problem, RETRY)
            self._again = self._loop.call_later(RETRY, self._retry)

    def _retry(self) -> None:
        self._read_anew()
        self.drain()

    def _ask(self, name: str) -> None:
        record = self.record(name)
        if record is None:
            return
        try:
            self._take(
                self._netlink.get(link_records.RTM_GETLINK, link_records.link_body(record.ifindex))
            )
        except OSError as problem:
            log.debug("%s is going: %s", name, problem)

    def _tell(self) -> None:
        dirty, self._dirty = self._dirty, set()
        for name in dirty & self._seen.keys():
            now = self._describe(name)
            # Somebody who was told before may have been the last who watched this one.
            if name not in self._seen or now == self._seen[name]:
                continue
            self._seen[name] = now
            for changed in list(self._watchers.get(name, ())):
                changed()
        if dirty:
            for changed in list(self._watching_all.values()):
                changed()
        if self._removals:
            removals, self._removals = self._removals, []
            self._removed(removals)
        if self._verdicts:
            verdicts, self._verdicts = self._verdicts, []
            for verdict in verdicts:
                self._detected(*verdict)

    def _take(self, message: NetlinkMessage) -> None:
        kind, payload = message.kind, message.payload
        if kind == link_records.RTM_NEWADDR:
            self._new_address(payload)
        elif kind == link_records.RTM_DELADDR:
            record = link_records.parse_address_notice(payload)
            if record is not None:
                place = (record.ifindex, record.key)
                along = message.port == self._netlink.port and place not in self._doomed
                self._gone(*place, taken_along=payload if along else b"")
        elif kind in (link_records.RTM_NEWLINK, link_records.RTM_DELLINK):
            link = link_records.parse_link(payload)
            if link is not None and kind == link_records.RTM_NEWLINK:
                self._new_link(link)
            elif link is not None:
                self._lost_link(link.ifindex)

    def _new_link(self, link: LinkRecord) -> None:
        before = self._links.get(link.ifindex)
        if link == before:
            return
        if before is not None and before.name != link.name:
            self._forget_name(before)
            for key in self._addresses.get(link.ifindex, ()):
                self._removals.append(Removal(before.name, key, link.ifindex))
        self._links[link.ifindex] = link
        self._indexes[link.name] = link.ifindex
        self._dirty.add(link.name)

    def _lost_link(self, index: int) -> None:
        link = self._links.get(index)
        if link is None:
            return
        for key in list(self._addresses.get(index, ())):
            self._gone(index, key)
        self._addresses.pop(index, None)
        del self._links[index]
        self._forget_name(link)

    def _forget_name(self, link: LinkRecord) -> None:
        # A renamed link and a new one may have passed each other.
        if self._indexes.get(link.name) == link.ifindex:
            del self._indexes[link.name]
        self._dirty.add(link.name)

    def _new_address(self, payload: bytes) -> None:
        record = link_records.parse_address_notice(payload)
        if record is None:
            return
        there = self._addresses.setdefault(record.ifindex, {})
        before = there.get(record.key)
        if before == record:
            return
        there[record.key] = record
        link = self._links.get(record.ifindex)
        if link is None:
            return
        if record.failed and (before is None or not before.failed):
            self._verdicts.append((link.name, record.key, False))
        elif before is not None and record.usable and not before.usable:
            self._verdicts.append((link.name, record.key, True))
        if not self.mine(record):
            self._dirty.add(link.name)

    def _gone(self, index: int, key: AddressKey, *, taken_along: bytes = b"") -> None:
        record = self._addresses.get(index, {}).pop(key, None)
        self._unmarked.discard((index, key))
        link = self._links.get(index)
        if record is None or link is None:
            return
        self._removals.append(Removal(link.name, key, taken_along=taken_along))
        if not record.marked:
            self._dirty.add(link.name)

    def _read_all(self) -> None:
        """Read everything anew, and find out what has changed."""
        links = self._netlink.dump(link_records.RTM_GETLINK, bytes(16))
        addresses = self._netlink.dump(link_records.RTM_GETADDR, bytes(8))
        left = set(self._links)
        # With the old addresses, of which a link with another name has taken some along.
        for message in links:
            self._take(message)
            left.discard(_index(message))
        old, self._addresses = self._addresses, {}
        for message in addresses:
            self._take(message)
        for index, records in old.items():
            now = self._addresses.setdefault(index, {})
            for key, record in records.items():
                if key not in now:
                    now[key] = record
                    self._gone(index, key)
        for index in left:
            self._lost_link(index)
        self._dirty.update(self._indexes)

    def _describe(self, name: str) -> Link | None:
        link = self.record(name)
        if link is None:
            return None
        records = self._addresses.get(link.ifindex, {}).values()
        others = [record for record in records if not self.mine(record)]
        fit = [record for record in others if record.usable]
        fit.sort(key=lambda record: record.rank)
        return Link(
            name=link.name,
            ifindex=link.ifindex,
            up=link.up,
            mac=link.mac,
            mtu=link.mtu,
            addresses=tuple(
                (link_records.to_address(record.key[0]), record.key[1]) for record in fit
            ),
            tentative=tuple(
                link_records.to_address(record.key[0]) for record in others if record.tentative
            ),
        )


def _release() -> tuple[int, ...]:
    numbers = re.match(r"(\d+)\.(\d+)", os.uname().release)
    return tuple(int(number) for number in numbers.groups()) if numbers else (0, 0)


def _index(message: NetlinkMessage) -> int:
    link = link_records.parse_link(message.payload)
    return 0 if link is None else link.ifindex
