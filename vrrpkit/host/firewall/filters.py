"""Packets that must not pass because of the virtual routers of this host.

* *To virtual addresses that a master holds but accepts no packets to* (RFC 9568 section 6.1,
  Accept_Mode False; keepalived: ``no_accept``). Neighbour discovery passes, and ARP is no IP
  packet, so the addresses still resolve. The rules are there as long as the router runs and not
  only while it is MASTER, for a takeover shall not wait for a program. In BACKUP they match
  nothing: packets on their way to an address of another host never meet the ``input`` hook.
* *Reports of group memberships from a virtual MAC address.* The kernel sends them for the groups of
  a macvlan, those of a BACKUP too, and the switches between would look for the virtual MAC address
  there. Nothing is lost by it: adverts are heard on the base interface as well, whose own reports
  stand for both, and so does what neighbours ask (see :mod:`vrrpkit.host.links.solicited`). Router
  solicitations are kept back for the same reason.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Iterable
from typing import NamedTuple

import attrs

from vrrpkit.errors import HostError
from vrrpkit.host.base import FilterRule
from vrrpkit.host.firewall.nftables import Chain, Firewall, Rules
from vrrpkit.lifecycle.leaving import shielded
from vrrpkit.values import IPAddress

__all__ = ["REFUSED", "SILENT", "FilteredAddress", "PacketFilter", "refusal", "silence"]

log = logging.getLogger(__name__)

REFUSED = Chain(name="refused-addresses", type="filter", hook="input", priority="101")
"""Behind IPVS, which takes the packets of its services out of this hook at 98 and 99: a virtual
server works at an address that its host accepts nothing else to."""
SILENT = Chain(name="virtual-macs", type="filter", hook="output", priority="filter")

DISCOVERY = "icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert } accept"
SAID_BY_ITSELF = (
    "meta l4proto igmp",
    "icmpv6 type { mld-listener-report, mld-listener-done, mld2-listener-report }",
    "icmpv6 type nd-router-solicit",
)

_NFT_FAMILY = {4: "ip", 6: "ip6"}
_UNSPEAKABLE = re.compile(r'["*\\]')
"""What a quoted string of nft cannot contain, or would take for a pattern."""


class FilteredAddress(NamedTuple):
    """An address, and the interface that it is put on."""

    address: IPAddress
    device: str


@attrs.frozen(eq=False)
class _FilterRule(FilterRule):
    packet_filter: PacketFilter
    refused: frozenset[FilteredAddress] = frozenset()
    silent: frozenset[str] = frozenset()

    async def close(self) -> None:
        await self.packet_filter.lift(self)


class PacketFilter:
    """What must not pass in one network namespace, for all virtual routers of one event loop.

    Their rules are merged: each packet has to pass all that there are.
    """

    def __init__(self, firewall: Firewall) -> None:
        self._firewall = firewall
        self._filter_rules: list[_FilterRule] = []
        self._lock = asyncio.Lock()

    async def refuse(self, places: Iterable[FilteredAddress]) -> FilterRule:
        """Drop packets to these addresses, but for neighbour discovery.

        A link-local address is refused on its own interface only: on another it may be somebody
        else's.

        :raises HostError: there is no program ``nft``, it refuses the rules, or cannot be told the
            name of an interface.
        """
        return await self._impose(_FilterRule(self, refused=frozenset(places)))

    async def silence(self, device: str) -> FilterRule:
        """Let no report of group memberships, and no router solicitation, leave an interface, which
        need not be there yet.

        :raises HostError: as :meth:`refuse`.
        """
        return await self._impose(_FilterRule(self, silent=frozenset({device})))

    async def sweep(self) -> None:
        """Remove what killed processes have left in the packet filter, unless that was done."""
        await self._firewall.sweep()

    async def lift(self, filter_rule: _FilterRule) -> None:
        """End a ban; without effect if it has ended. A cancellation waits for it."""
        await shielded(self._lift(filter_rule), "vrrpkit: a ban ends")

    async def _lift(self, filter_rule: _FilterRule) -> None:
        async with self._lock:
            if filter_rule not in self._filter_rules:
                return
            self._filter_rules.remove(filter_rule)
            try:
                if self._filter_rules:
                    await self._firewall.hold(self, self._rules())
                else:
                    await self._firewall.release(self)
            except HostError as problem:
                log.warning("rules of nftables stay behind: %s", problem)

    async def _impose(self, filter_rule: _FilterRule) -> FilterRule:
        async with self._lock:
            self._filter_rules.append(filter_rule)
            try:
                await self._firewall.hold(self, self._rules())
            except BaseException:
                self._filter_rules.remove(filter_rule)
                raise
        return filter_rule

    def _rules(self) -> Rules:
        refused = refusal(
            place for filter_rule in self._filter_rules for place in filter_rule.refused
        )
        silent = silence(
            device for filter_rule in self._filter_rules for device in filter_rule.silent
        )
        return {chain: rules for chain, rules in ((REFUSED, refused), (SILENT, silent)) if rules}


def refusal(places: Iterable[FilteredAddress]) -> list[str]:
    """The rules of :data:`REFUSED`, in the language of nft.

    :raises HostError: nft cannot be told the name of an interface.
    """
    alike: dict[tuple[str, int], set[IPAddress]] = {}
    for address, device in places:
        where = f"iifname {_quoted(device)} " if address.is_link_local else ""
        alike.setdefault((where, address.version), set()).add(address)
    rules = [
        f"{where}{_NFT_FAMILY[family]} daddr {_set(found)} drop"
        for (where, family), found in sorted(alike.items())
    ]
    return [DISCOVERY, *rules] if any(family == 6 for _, family in alike) else rules


def silence(devices: Iterable[str]) -> list[str]:
    """The rules of :data:`SILENT`, in the language of nft.

    :raises HostError: nft cannot be told the name of an interface.
    """
    names = ", ".join(map(_quoted, sorted(set(devices))))
    return [f"oifname {{ {names} }} {said} drop" for said in SAID_BY_ITSELF] if names else []


def _set(addresses: Iterable[IPAddress]) -> str:
    return "{ " + ", ".join(map(str, sorted(addresses, key=int))) + " }"


def _quoted(device: str) -> str:
    if _UNSPEAKABLE.search(device):
        raise HostError(
            f"nftables has no words for the interface name {device!r}: give it one without quotes, "
            "asterisks and backslashes"
        )
    return f'"{device}"'
