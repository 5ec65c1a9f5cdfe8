"""Masquerading of what IPVS sends to its real servers by NAT.

Replies must come back through the director, which rewrites them. Real servers whose default route
is not the director would answer the client directly, from an address that it never spoke to. With
masquerading they see the director as the client, and answer to it.

IPVS changes the destination of a packet and leaves the connection tracking entry's original
direction as it was. So a connection is ours if it was opened to one of our services and now goes to
one of our real servers.
"""

from __future__ import annotations

import socket
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from types import TracebackType
from typing import Self

from vrrpkit.errors import HostError
from vrrpkit.host.firewall.nftables import Chain, Firewall
from vrrpkit.ipvs.model.entries import Destination, Forward, Protocol, ServiceKey
from vrrpkit.lifecycle.leaving import shielded
from vrrpkit.linux.netns import Namespace
from vrrpkit.linux.sysctl import Sysctls
from vrrpkit.values import IPAddress

__all__ = ["CHAIN", "Masquerade", "discard", "require_forwarding", "rules"]

CHAIN = Chain(name="ipvs-nat", type="nat", hook="postrouting", priority="srcnat")

CONNTRACK = "ipv4/vs/conntrack"
"""Without it IPVS keeps its packets out of connection tracking, and so out of nftables' NAT."""
OF_EVERY_IPVS = "ipv4/vs/amemthresh"

_NFT_FAMILY = {4: "ip", 6: "ip6"}
_FORWARDING = {
    4: ("ipv4/ip_forward", "ipv4/conf/{}/forwarding"),
    6: ("ipv6/conf/all/forwarding", "ipv6/conf/{}/force_forwarding"),
}
"""Of the whole host, and of one interface."""


class Masquerade:
    """Masquerading for one virtual server, while entered.

    Enter it when the IPVS table is open, for only then its settings are there.

    :param services: the services; those of firewall marks too.
    :param destinations: the real servers; only those of :attr:`Forward.NAT` matter.
    :param netns: a name in ``/run/netns``; ``None`` is the namespace of the calling thread.
    :param name: by which :meth:`keep` leaves the rules to the next run, who enters under the same.
    """

    def __init__(
        self,
        services: Iterable[ServiceKey],
        destinations: Iterable[Destination] = (),
        *,
        netns: str | None = None,
        name: str = "",
    ) -> None:
        self._services = tuple(services)
        self._rules = rules(self._services, destinations)
        self._netns = netns
        self._name = name
        self._firewall: Firewall | None = None

    async def __aenter__(self) -> Self:
        """Set the rules and ``net.ipv4.vs.conntrack``.

        :raises PermissionMissing: CAP_NET_ADMIN is missing.
        :raises HostError: the host forwards no packets, its IPVS knows no connection tracking, or
            the program ``nft`` is missing or refuses the rules.
        """
        require_forwarding({key.family for key in self._services}, self._netns)
        _require_conntrack(self._netns)
        firewall = Firewall.current(self._netns)
        await firewall.hold(self, {CHAIN: self._rules}, {CONNTRACK: 1})
        self._firewall = firewall
        if self._name:
            # Only now: there is no moment without the rules.
            await firewall.discard(self._name)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        firewall, self._firewall = self._firewall, None
        if firewall is not None:
            await shielded(firewall.release(self), "vrrpkit: ends masquerading")

    async def keep(self) -> None:
        """Leave; rules and setting stay in force until another run enters under this name."""
        firewall, self._firewall = self._firewall, None
        if firewall is not None:
            await shielded(firewall.keep(self, self._name), "vrrpkit: masquerading is kept")

    async def update(self, destinations: Iterable[Destination]) -> None:
        """Masquerade connections to these real servers from now on; those that are open stay.

        :raises HostError: ``nft`` refuses the rules; those before stay.
        """
        wanted = rules(self._services, destinations)
        if wanted != self._rules:
            if self._firewall is not None:
                await self._firewall.hold(self, {CHAIN: wanted})
            self._rules = wanted

    async def ensure(self) -> bool:
        """Put the rules back if another program removed them, as ``nft flush ruleset`` does;
        whether that was so.

        :raises HostError: the program ``nft`` cannot do it.
        """
        return self._firewall is not None and await self._firewall.ensure()


async def discard(name: str, netns: str | None = None) -> None:
    """Remove the rules that :meth:`Masquerade.keep` left under a name, and those of runs that were
    killed."""
    with closing(Namespace(netns)) as namespace:
        # Where it is off there are none, and nft need not be asked.
        on = Sysctls(namespace).read(CONNTRACK)
    if on:
        firewall = Firewall.current(netns)
        await firewall.sweep()
        await firewall.discard(name)


def require_forwarding(families: Iterable[int], netns: str | None = None) -> None:
    """Refuse to go on where the replies of real servers would end at the director.

    Forwarding is not switched on from here, for that makes the host a router between all its
    networks.

    :raises HostError: the kernel forwards no packets of one of the address families.
    """
    with closing(Namespace(netns)) as namespace:
        for family in sorted(families):
            if not _forwards(namespace, family):
                setting = f"net.{_FORWARDING[family][0].replace('/', '.')}"
                raise HostError(
                    f"this host does not forward IPv{family}, so replies of real servers would not "
                    f"get back to clients: run 'sysctl -w {setting}=1' as root, and put it into "
                    "/etc/sysctl.d"
                )


def _forwards(namespace: Namespace, family: int) -> bool:
    sysctls = Sysctls(namespace)
    everywhere, at_one = _FORWARDING[family]
    if sysctls.read(everywhere) != 0:
        return True
    with namespace.inside():
        devices = [name for _, name in socket.if_nameindex()]
    return any(sysctls.read(at_one.format(device)) for device in devices)


def _require_conntrack(netns: str | None) -> None:
    with closing(Namespace(netns)) as namespace:
        sysctls = Sysctls(namespace)
        if sysctls.read(OF_EVERY_IPVS) is not None and sysctls.read(CONNTRACK) is None:
            raise HostError(
                "masquerading needs net.ipv4.vs.conntrack, which this kernel does not have: it was "
                "built without CONFIG_IP_VS_NFCT"
            )


def rules(services: Iterable[ServiceKey], destinations: Iterable[Destination]) -> list[str]:
    """The rules of :data:`CHAIN`, in the language of nft: one for each address family."""
    servers: dict[int, set[IPAddress]] = {4: set(), 6: set()}
    for destination in destinations:
        if destination.forward is Forward.NAT:
            servers[destination.key.address.version].add(destination.key.address)
    opened: dict[int, list[str]] = {4: [], 6: []}
    for family, match in _matches(services):
        opened[family].append(match)
    return [
        _rule(f"{_NFT_FAMILY[family]} daddr {_set(addresses)}", opened[family])
        for family, addresses in servers.items()
        if addresses and opened[family]
    ]


def _rule(servers: str, opened: Sequence[str]) -> str:
    if len(opened) == 1:
        return f"{opened[0]} {servers} masquerade"
    # The set of real servers may be large, so it is written once.
    return f"{servers} jump {{ " + "; ".join(f"{match} masquerade" for match in opened) + "; }"


def _matches(services: Iterable[ServiceKey]) -> Iterator[tuple[int, str]]:
    """What connections to the services look like, with the address family of each."""
    marks: dict[int, list[int]] = {}
    ports: dict[tuple[int, Protocol, IPAddress], set[int]] = {}
    for key in services:
        if key.protocol is None or key.address is None:
            marks.setdefault(key.family, []).append(key.fwmark)
        else:
            ports.setdefault((key.family, key.protocol, key.address), set()).add(key.port)
    for family, marked in marks.items():
        yield family, f"meta mark {_set(marked)}"
    alike: dict[tuple[int, Protocol, frozenset[int]], list[IPAddress]] = {}
    for (family, protocol, address), numbers in ports.items():
        alike.setdefault((family, protocol, frozenset(numbers)), []).append(address)
    for (family, protocol, chosen), addresses in alike.items():
        to = f"ct original {_NFT_FAMILY[family]} daddr {_set(addresses)}"
        match = f"meta l4proto {protocol.value} {to}"
        if 0 in chosen:
            yield family, match
            continue
        # Ranges and not one set, whose elements nft would list in a form that it cannot read.
        for low, high in _runs(sorted(chosen)):
            yield (
                family,
                f"{match} ct original proto-dst {low}" + (f"-{high}" if high > low else ""),
            )


def _runs(numbers: Sequence[int]) -> Iterator[tuple[int, int]]:
    low = high = numbers[0]
    for number in numbers[1:]:
        if number > high + 1:
            yield low, high
            low = number
        high = number
    yield low, high


def _set(elements: Iterable[IPAddress] | Iterable[int]) -> str:
    return "{ " + ", ".join(map(str, sorted(elements, key=int))) + " }"
