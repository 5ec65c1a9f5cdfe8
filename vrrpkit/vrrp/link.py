"""Where a virtual router sits: its interface, the address it speaks from, and its port on the
transport.

Interfaces vanish and return, and so do addresses. The seat turns that into faults, and joins the
transport again whenever the interface index or the source address is another.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Iterable

import attrs

from vrrpkit.errors import ConfigError, InterfaceMissing, SourceMissing
from vrrpkit.host.base import Interface, Link
from vrrpkit.host.links.delay import LinkDelay
from vrrpkit.transport.base import Membership, Receiver, Transport, TransportLink
from vrrpkit.values import NO_NAMES, IPAddress
from vrrpkit.vrrp.config import GROUPS, VRRPInstanceConfig
from vrrpkit.vrrp.protocol.recovery import Backoff

__all__ = ["INTERFACE_DOWN", "INTERFACE_MISSING", "NO_SOURCE", "VRRPLink"]

log = logging.getLogger(__name__)

INTERFACE_MISSING = "interface-missing"
INTERFACE_DOWN = "interface-down"
NO_SOURCE = "no-source"
NOT_JOINED = "not-joined"
"""The system refused a socket or a group membership. It is asked again at the next change of the
interface, and after 1 s, then 2, 4, ... up to 30 s."""

FIRST_RETRY, LAST_RETRY = 1.0, 30.0

SETTLE = 1.0
"""Seconds for an interface that was made here to come up."""

DETECTION = 3.0
"""Seconds for duplicate address detection of an address of the interface: it takes one or two."""

_HEADERS = {4: 20, 6: 40}


class VRRPLink:
    """One router's place on one interface. :meth:`look` follows the interface; :attr:`faults` says
    what is wrong.

    :param wake: called when a delay of a link has passed, or it is time to ask again for what the
        system refused, for another :meth:`look`.
    """

    def __init__(
        self,
        config: VRRPInstanceConfig,
        interface: Interface,
        receiver: Receiver,
        transport: Transport | None,
        wake: Callable[[], None],
    ) -> None:
        self._config = config
        self._barred = frozenset[IPAddress]() if config.owner else config.all_addresses
        """What moves away, and is never a source."""
        self._deadlines = interface.deadlines
        self._delayed = self._deadlines.new(wake)
        self._retry = self._deadlines.new(wake)
        self._backoff = Backoff(FIRST_RETRY, LAST_RETRY)
        self._looked = False
        self._parting: TransportLink | None = None
        self._delays: dict[str, LinkDelay] = {}
        self._receiver = receiver
        self._transport = transport or interface.transport
        self._joined: tuple[int, tuple[int, ...], IPAddress] | None = None
        self.interface = interface
        self.virtual: Interface | None = None
        """The interface with the virtual MAC, if the router has one."""
        self.port: TransportLink | None = None
        self.source: IPAddress | None = None
        self.devices: dict[str, Interface] = {}
        """The other interfaces that addresses and routes name. They are open."""
        self._needed: frozenset[frozenset[str]] = frozenset()
        self.faults = NO_NAMES

    async def open_devices(self) -> None:
        """Take the interfaces that addresses and routes name, besides the router's own."""
        self._needed = self._config.tracked_devices
        for name in self._config.devices:
            if name not in (self.interface.name, self.carrier.name):
                device = self.interface.device(name)
                await device.open()
                self.devices[name] = device

    @property
    def interfaces(self) -> list[Interface]:
        """All interfaces that this router is on."""
        return list(dict.fromkeys((self.interface, self.carrier, *self.devices.values())))

    @property
    def carrier(self) -> Interface:
        """The interface that the virtual addresses go on."""
        return self.virtual or self.interface

    @property
    def own(self) -> frozenset[IPAddress]:
        """The addresses that are this router's and nobody else's."""
        link = self.interface.link
        # Nearly always the set of the link itself, of which there is one for all of its routers.
        own = frozenset[IPAddress]() if link is None else link.listed
        if not own.isdisjoint(self._barred):
            own -= self._barred
        if self.source is not None and self.source not in own:
            own |= {self.source}
        return own

    def check(self, wait: bool) -> None:
        """Refuse to start where starting cannot work.

        :param wait: the interface, or its address, may come later.
        :raises InterfaceMissing: there is no such interface.
        :raises SourceMissing: it has no address to send from.
        :raises ConfigError: the advert does not fit a packet of the interface.
        """
        on_carrier = {vip.address for vip in self._config.all_vips if vip.dev is None}
        carrier = self._config.virtual_mac or self.interface.name
        for vip in self._config.all_vips:
            if vip.dev == carrier and vip.address in on_carrier:
                raise ConfigError(
                    f"virtual address {vip.address} is named twice: {vip.dev} is where it goes "
                    "without dev, too"
                )
        link = self.interface.link
        if link is None:
            if wait:
                return
            raise InterfaceMissing(self.interface.name)
        size = (
            16
            + len(self._config.vips) * (4 if self._config.family == 4 else 16)
            + _HEADERS[self._config.family]
        )
        if size > link.mtu:
            raise ConfigError(
                f"an advert of {len(self._config.vips)} addresses has {size} octets, more than "
                f"the MTU {link.mtu} of "
                f"{link.name}: move some to excluded_vips"
            )
        if self._choose(link) is None and not wait and link.up:
            raise SourceMissing(self._no_source(link))

    def _no_source(self, link: Link) -> str:
        wanted = self._config.source
        if wanted is not None:
            return (
                f"source {wanted} is not on {link.name}; add it, or choose one that "
                f"'ip address show {link.name}' lists"
            )
        kind = "IPv4 address" if self._config.family == 4 else "link-local IPv6 address"
        return (
            f"{link.name} has no {kind} to send adverts from besides the virtual ones; add one, "
            "or pass source="
        )

    async def settle(self) -> None:
        """Wait, within limits, for what the kernel tells a moment later than it is asked: that an
        interface with a virtual MAC is up, and that an IPv6 address may be used. An ordinary start
        shall cause no FAULT."""
        changed = asyncio.Event()
        with contextlib.ExitStack() as stack:
            for interface in self.interfaces:
                stack.callback(interface.watch(changed.set))
            for limit, unsettled in ((DETECTION, self._detecting), (SETTLE, self._rising)):
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(limit):
                        while unsettled():
                            changed.clear()
                            await changed.wait()

    def _detecting(self) -> bool:
        """Whether an address that could be the source is not usable yet."""
        link = self.interface.link
        if link is None or not link.up or self._choose(link) is not None:
            return False
        usable = attrs.evolve(
            link, addresses=tuple((address, address.max_prefixlen) for address in link.tentative)
        )
        return self._choose(usable) is not None

    def _rising(self) -> bool:
        """Whether the interface with the virtual MAC is about to come up."""
        link = self.interface.link
        if self.virtual is None or link is None or not link.up:
            return False
        above = self.virtual.link
        return above is None or not above.up

    def look(self) -> bool:
        """Follow the interface as it is now; whether faults or the source changed.

        Where the router must leave the link, its port stays open until :meth:`part`: first the
        others must hear of it.

        :raises PermissionMissing: at the first look, a capability is missing.
        """
        before = (self.faults, self.source)
        link = self.interface.link
        source = None if link is None else self._choose(link)
        above = link if self.virtual is None else self.virtual.link
        counts = self._counts()
        if link is None or above is None:
            self.faults = frozenset({INTERFACE_MISSING})
        elif not (counts[self.interface.name] and counts[self.carrier.name]):
            self.faults = frozenset({INTERFACE_DOWN})
        elif source is None and link.up:
            self.faults = frozenset({NO_SOURCE})
        else:
            self.faults = NO_NAMES
        if missing := frozenset(self._missing(counts)):
            self.faults |= missing
        if link is None or (source is None and (link.up or self.faults)):
            self._retry.set(None)
            self._leave(silently=link is None)
        elif source is not None:
            self.source = source
            self._join(link, source)
        self._looked = True
        return (self.faults, self.source) != before

    def _counts(self) -> dict[str, bool]:
        """Whether each interface counts as up, its delays considered."""
        now, config = self._deadlines.now(), self._config
        counts: dict[str, bool] = {}
        for interface in self.interfaces:
            link = interface.link
            delay = self._delays.get(interface.name)
            if delay is None:
                delay = LinkDelay(config.link_up_delay, config.link_down_delay)
                self._delays[interface.name] = delay
            up = link is not None and link.up
            counts[interface.name] = delay.see(up, now, gone=link is None)
        dues = [delay.due for delay in self._delays.values() if delay.due is not None]
        self._delayed.set(min(dues, default=None))
        return counts

    def _missing(self, counts: dict[str, bool]) -> Iterable[str]:
        """The faults of interfaces that addresses and routes need."""
        for names in self._needed:
            if any(counts[name] for name in names):
                continue
            for name in names & self.devices.keys():
                missing = self.devices[name].link is None
                yield f"{INTERFACE_MISSING if missing else INTERFACE_DOWN}:{name}"

    def _choose(self, link: Link) -> IPAddress | None:
        config = self._config
        if config.source is not None:
            return config.source if config.source in link.listed else None
        local = not config.peers or config.peers[0].address.is_link_local
        return link.source(config.family, self._barred, link_local=local)

    def _join(self, link: Link, source: IPAddress) -> None:
        speaks, also = self._indexes(link)
        if self.port is not None and self._joined == (speaks, also, source):
            return
        membership = Membership(
            interface=link.name if speaks == link.ifindex else self.carrier.name,
            ifindex=speaks,
            vrid=self._config.vrid,
            source=source,
            group=self._config.destination,
            peers=self._config.peers,
            interval=self._config.interval,
            also=also,
            strays=tuple((link.ifindex, address) for address in self._strays(source)),
        )
        try:
            port = self._transport.join(membership, self._receiver)
        except OSError as problem:
            if isinstance(problem, PermissionError) and not self._looked:
                raise
            wait = self._backoff.next()
            log.warning(
                "%s: cannot join on %s: %s; tries again in %g s",
                self._config.name,
                link.name,
                problem,
                wait,
            )
            self.faults |= {NOT_JOINED}
            self._retry.set(self._deadlines.now() + wait)
            self._leave(silently=False)
            return
        # Only now, so that a socket that both need stays open.
        self._leave(silently=True)
        self._backoff.reset()
        self._retry.set(None)
        self.port, self._joined = port, (speaks, also, source)

    def _strays(self, source: IPAddress) -> tuple[IPAddress, ...]:
        """Where routers of another configuration send their adverts for this VRID."""
        config = self._config
        usual = GROUPS[config.family]
        if config.peers:
            return (usual,) if config.diagnose else ()
        return (source,) if config.destination == usual else (source, usual)

    def _indexes(self, link: Link) -> tuple[int, tuple[int, ...]]:
        """Where adverts leave, and where else they may arrive: a macvlan and its base hear
        different peers."""
        above = None if self.virtual is None else self.virtual.link
        if above is None:
            return link.ifindex, ()
        if self._config.adverts_on_base or self._config.peers:
            return link.ifindex, (above.ifindex,)
        return above.ifindex, (link.ifindex,)

    def _leave(self, *, silently: bool) -> None:
        self._joined = None
        if silently:
            self._parting = self.port
            self.part()
        elif self.port is not None:
            self._parting = self.port

    def part(self) -> None:
        """Close the port that the router left: all that it had to say there is said."""
        parting, self._parting = self._parting, None
        if parting is not None:
            parting.close()
            if parting is self.port:
                self.port = None

    async def close(self) -> None:
        """Leave the transport for good, and give the interfaces back."""
        self._delayed.set(None)
        self._retry.set(None)
        self._leave(silently=True)
        devices, self.devices = self.devices, {}
        async with contextlib.AsyncExitStack() as stack:
            if self.virtual is not None:
                stack.push_async_callback(self.virtual.close)
            for device in devices.values():
                stack.push_async_callback(device.close)
