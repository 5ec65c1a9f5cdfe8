"""Interfaces with the virtual MAC of a virtual router (RFC 9568 section 7.3; keepalived:
``use_vmac``).

Decisions, and why:

* *Private mode.* A frame whose source is our virtual MAC, which is what the master of our own group
  sends, then arrives on the macvlan while that is up. All other frames arrive on both. An
  existing macvlan of another mode is adopted nevertheless, for both places are listened to.
* *No link-local address on the macvlan.* The one that the kernel would make follows from the
  virtual MAC and is the same on every router of the group: each would take the others' adverts for
  its own. A copy of the base interface's (keepalived) makes two MAC addresses answer for one host.
  So the macvlan has none, and adverts that leave by it carry the base interface's link-local
  address, which the sending socket binds with IPV6_FREEBIND.
* *No router advertisements are taken in* on the macvlan: autoconfiguration would give every router
  of the group the same global address.
* *ARP.* The macvlan answers for its own addresses only (``arp_ignore``), or the virtual MAC would
  answer for the host's addresses; the base interface likewise, or the host's MAC would answer for
  the virtual address (``arp_ignore``, ``arp_filter``). Nor may the base interface ask for a
  client's address with the virtual one as sender, from which the client would learn the host's MAC
  (``arp_announce``). The base interface gets its old settings back; until then they stand in the
  macvlan's alias, where the run after one that was killed finds them. (By the alias it also knows
  the macvlan.)
* *Groups.* What the kernel would report of the macvlan's memberships is dropped, and the parent is
  a member itself (see :mod:`vrrpkit.host.firewall.filters`).
"""

from __future__ import annotations

import errno
import logging
from collections.abc import Callable, Mapping

from vrrpkit.errors import HostError, KernelRefused
from vrrpkit.host.links import requests
from vrrpkit.host.links.monitor import LinkMonitor
from vrrpkit.host.links.records import IFF_UP, LinkRecord
from vrrpkit.host.links.solicited import SolicitedNodes
from vrrpkit.linux.netlink import Netlink
from vrrpkit.linux.sysctl import Sysctls
from vrrpkit.timers import Deadlines

__all__ = ["Macvlan", "default_name", "recall_settings", "virtual_mac", "was_ours"]

log = logging.getLogger(__name__)

PATIENCE = 1.0
"""Seconds between two attempts to make a macvlan that somebody removes."""

ON_TOP = {
    "ipv4/conf/{}/arp_ignore": 1,
    "ipv4/conf/{}/accept_local": 1,
    "ipv4/conf/{}/rp_filter": 0,
    "ipv6/conf/{}/accept_ra": 0,
    "ipv6/conf/{}/autoconf": 0,
}
BELOW = {
    "ipv4/conf/{}/arp_ignore": 1,
    "ipv4/conf/{}/arp_filter": 1,
    "ipv4/conf/{}/arp_announce": 2,
}
KIND = "macvlan"
ALIAS = "vrrpkit:"
RP_FILTER = "ipv4/conf/all/rp_filter"


def virtual_mac(vrid: int, family: int) -> bytes:
    """The virtual router MAC address (RFC 9568 section 7.3)."""
    return bytes((0x00, 0x00, 0x5E, 0x00, 0x01 if family == 4 else 0x02, vrid))


def default_name(vrid: int, family: int) -> str:
    """The name that keepalived gives to such an interface."""
    return f"vrrp.{vrid}" if family == 4 else f"vrrp6.{vrid}"


def _to_remember(before: Mapping[str, int | None]) -> str:
    """An alias that tells the settings to restore, by the last part of their names."""
    pairs = (f"{name.rpartition('/')[2]}={value}" for name, value in before.items())
    return " ".join((ALIAS, *pairs))


def _remembered(alias: str) -> dict[str, int]:
    """The settings of :data:`BELOW` that an alias tells; none if it is somebody else's."""
    first, *pairs = alias.split() or [""]
    values: dict[str, int] = {}
    for name in BELOW if first == ALIAS else ():
        for pair in pairs:
            key, _, value = pair.partition("=")
            if key == name.rpartition("/")[2] and value.isdecimal():
                values[name] = int(value)
    return values


def was_ours(link: LinkRecord) -> bool:
    """Whether a link is a macvlan that a run of this library made or adopted."""
    return link.kind == KIND and link.alias.split()[:1] == [ALIAS]


def recall_settings(sysctls: Sysctls, link: LinkRecord, parent: str) -> None:
    """Put back those settings of the parent that the alias of a link tells."""
    for name, before in _remembered(link.alias).items():
        sysctls.recall(name.format(parent), BELOW[name], before)


class Macvlan:
    """One macvlan on the interface ``parent``: made or adopted by :meth:`ensure`, made again when
    the parent returns, removed by :meth:`close`."""

    def __init__(
        self,
        parent: str,
        name: str,
        mac: bytes,
        *,
        netlink: Netlink,
        monitor: LinkMonitor,
        sysctls: Sysctls,
        deadlines: Deadlines,
        solicited: SolicitedNodes,
    ) -> None:
        self.parent = parent
        self.name = name
        self.mac = mac
        self.solicited = solicited
        """Memberships of the parent for the addresses of the macvlan."""
        self._netlink = netlink
        self._monitor = monitor
        self._sysctls = sysctls
        self._deadlines = deadlines
        self._retry = deadlines.new(self._check)
        self._not_before = 0.0
        self._index = 0
        self._raised = False
        self._complete = False
        """Whether it was set up to the end: one that was not is made again."""
        self._borrowed: list[str] = []
        self._unwatch: list[Callable[[], None]] = []

    def ensure(self) -> None:
        """Make the macvlan, or adopt the one of that name. While the parent is missing this waits
        for it.

        :raises HostError: another interface has that name.
        :raises KernelRefused: the kernel did not make it.
        """
        parent = self._monitor.record(self.parent)
        if parent is not None:
            try:
                self._set_up(parent)
            except OSError as problem:
                if isinstance(problem, HostError):
                    raise
                raise KernelRefused(
                    problem.errno,
                    f"cannot set up macvlan {self.name} on {self.parent}: {problem.strerror}",
                ) from None
        if not self._unwatch:
            self._unwatch = [
                self._monitor.watch(name, self._check) for name in (self.parent, self.name)
            ]

    def close(self) -> None:
        """Remove the macvlan and put the parent's settings back; calling it twice is harmless."""
        self._retry.set(None)
        for unwatch in self._unwatch:
            unwatch()
        self._unwatch.clear()
        self._delete()
        self.solicited.close()
        self._give_back()

    def _delete(self) -> None:
        """Remove it, also under another name that somebody gave it."""
        index, self._index = self._index, 0
        there = self._monitor.at(index)
        if there is None or (there.kind, there.mac) != (KIND, self.mac):
            return
        try:
            self._netlink.request(requests.delete_link(index))
        except OSError as problem:
            if problem.errno != errno.ENODEV:
                log.warning("macvlan %s stays: %s", there.name, problem.strerror)
        below = self._monitor.at(there.parent)
        if below is not None and below.name != self.parent:
            # Renamed, and its settings went with it.
            recall_settings(self._sysctls, there, below.name)

    def _set_up(self, parent: LinkRecord) -> None:
        self._complete = False
        existing = self._monitor.record(self.name)
        if existing is None:
            self._netlink.request(requests.new_macvlan(self.name, parent.ifindex, self.mac))
            self._monitor.drain()
            existing = self._monitor.record(self.name)
            if existing is None:
                raise OSError(errno.ENODEV, "it vanished at once")
        else:
            self._check_fit(existing, parent)
            log.info("adopting macvlan %s on %s", self.name, self.parent)
        self._index = existing.ifindex
        self.solicited.move(parent.ifindex)
        for setting, value in ON_TOP.items():
            self._sysctls.write(setting.format(self.name), value)
        self._borrow(existing)
        try:
            self._netlink.request(requests.no_link_local(self._index))
        except OSError as problem:
            # No IPv6 on this host, or none on this interface: no link-local address either.
            log.debug("%s: addrgenmode: %s", self.name, problem)
        self._raise()
        self._complete = True

    def _check_fit(self, existing: LinkRecord, parent: LinkRecord) -> None:
        differs: list[str] = []
        if existing.kind != KIND:
            differs.append(f"is a {existing.kind or 'hardware'} interface, not a macvlan")
        elif existing.parent != parent.ifindex:
            differs.append(f"is not on {self.parent}")
        if existing.mac != self.mac:
            differs.append(f"has MAC {existing.mac.hex(':')}, not {self.mac.hex(':')}")
        if differs:
            raise HostError(
                f"an interface {self.name} exists already and {' and '.join(differs)}: remove it "
                f"with 'ip link delete {self.name}', or choose another name with "
                'virtual_mac="NAME"'
            )

    def _borrow(self, link: LinkRecord) -> None:
        self._give_back()
        if self.mac[4] != virtual_mac(0, 4)[4]:
            self._netlink.request(requests.set_alias(link.ifindex, ALIAS))
            return
        remembered = _remembered(link.alias)
        before = {
            setting: remembered.get(setting, self._sysctls.before(setting.format(self.parent)))
            for setting in BELOW
        }
        self._netlink.request(requests.set_alias(link.ifindex, _to_remember(before)))
        for setting, value in BELOW.items():
            name = setting.format(self.parent)
            self._sysctls.borrow(name, value, before[setting])
            self._borrowed.append(name)
        if self._sysctls.read(RP_FILTER):
            log.warning(
                "net.ipv4.conf.all.rp_filter is set and overrules the 0 of %s, so the kernel may "
                "drop what arrives there: run 'sysctl -w net.ipv4.conf.all.rp_filter=0', and set "
                "it per interface",
                self.name,
            )

    def _give_back(self) -> None:
        for name in self._borrowed:
            self._sysctls.give_back(name)
        self._borrowed.clear()

    def _raise(self) -> None:
        self._raised = False
        try:
            self._netlink.request(requests.set_up(self._index))
        except OSError as problem:
            if problem.errno != errno.ENETDOWN:
                raise
        else:
            self._raised = True

    def _check(self) -> None:
        """Follow the parent to its new index, and repair what somebody removed or renamed."""
        parent = self._monitor.record(self.parent)
        if parent is None:
            return
        there = self._monitor.record(self.name)
        strayed = there is not None and there.parent != parent.ifindex
        fits = there is not None and not strayed and self._complete
        if there is not None and fits and (self._raised or there.flags & IFF_UP):
            return
        now = self._deadlines.now()
        if now < self._not_before:
            self._retry.set(self._not_before)
            return
        self._not_before = now + PATIENCE
        try:
            if there is not None and fits and there.ifindex == self._index:
                self._raise()
            else:
                self._delete()
                self._monitor.drain()
                self.ensure()
        except (HostError, OSError) as problem:
            log.warning("%s", problem)
            self._retry.set(self._not_before)
