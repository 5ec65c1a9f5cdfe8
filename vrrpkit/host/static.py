"""Addresses, routes and rules that stay where they are, whoever is MASTER (keepalived:
``static_ipaddress``, ``static_routes``, ``static_rules``)."""

from __future__ import annotations

import contextlib
import logging
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import TracebackType

import attrs

from vrrpkit.errors import ConfigError, InterfaceMissing, KernelRefused, VRRPKitError
from vrrpkit.host.base import AddressClaim, Interface, RouteClaim
from vrrpkit.host.local import on_this_host
from vrrpkit.lifecycle.fork import ProcessOrigin
from vrrpkit.lifecycle.leaving import shielded
from vrrpkit.routes.route import Entry, Route, Rule, parse_routes, parse_rules
from vrrpkit.routes.syntax import read_address, said_of
from vrrpkit.timers import Deadlines
from vrrpkit.validate import listed
from vrrpkit.values import VIP, Announcements, IPAddress

__all__ = ["StaticNetwork"]

log = logging.getLogger(__name__)

PACE = 1.0
"""Seconds between two repairs: two programs that disagree must not keep the machine busy."""

RETRY = 5.0
"""Seconds until the next try after the kernel has refused."""

ANNOUNCED = Announcements(repeat=1, delay=0.0)


class StaticNetwork:
    """Addresses, routes and rules that are in place as long as the ``async with`` lasts, and are
    put back when somebody else removes them.

    ::

        async with StaticNetwork(
            ["192.0.2.7/24 dev eth1", "2001:db8::7/64 dev eth1"],
            routes=["10.0.0.0/8 via 192.0.2.254"],
            rules=["from 192.0.2.7 table 100 priority 1000"],
        ):
            ...

    What is removed comes back at once, and at most once a second. What the kernel refuses later is
    tried again every 5 seconds. What goes with its interface comes back with it. An address, route
    or rule that was there before, without vrrpkit's mark, is used as it is and left there.

    :param addresses: as text, ``ADDRESS/PREFIX dev NAME`` with ``label``, ``scope``, ``brd``,
        ``peer``, ``nodad`` or ``noprefixroute`` as in ``ip address add``; or a
        :class:`vrrpkit.VIP` with ``dev``. Unlike a virtual address, one in text is an ordinary one
        of the host: checked for duplicates (IPv6) and preferred as a source.
    :param routes: see :class:`vrrpkit.Route`; put in place after the addresses.
    :param rules: see :class:`vrrpkit.Rule`; put in place after the routes.
    :param netns: the network namespace in which the interfaces are.
    :param interfaces: interfaces by name, of a :class:`vrrpkit.MemoryBus`, instead of this host's.
    :param wait_for_interface: enter although an interface is not there yet.
    :raises ConfigError: a value is unusable; the message says what to write.
    """

    def __init__(
        self,
        addresses: Iterable[str | VIP] = (),
        *,
        routes: Iterable[str | Route] = (),
        rules: Iterable[str | Rule] = (),
        netns: str | None = None,
        interfaces: Mapping[str, Interface] | None = None,
        wait_for_interface: bool = False,
    ) -> None:
        self.addresses = _parse(addresses)
        self.routes = parse_routes(routes)
        self.rules = parse_rules(rules)
        if not (self.addresses or self.routes or self.rules):
            raise ConfigError(
                "nothing is static here; write for example StaticNetwork(['192.0.2.7/24 dev eth1'])"
            )
        if netns is not None and interfaces is not None:
            raise ConfigError("netns goes with names of interfaces; leave it out")
        checked = {v.address for v in self.addresses if v.family == 6 and not v.nodad}
        for route in self.routes:
            if route.src in checked:
                raise ConfigError(
                    f"route {route}: {route.src} cannot be a source while it is checked for "
                    "duplicates; write nodad behind that address"
                )
        self._netns = netns
        self._interfaces = interfaces
        self._waits = wait_for_interface
        self._devices: list[_Device] = []
        self._routes: _Routes | None = None
        self._stack: contextlib.AsyncExitStack | None = None
        self._origin: ProcessOrigin | None = None

    async def __aenter__(self) -> StaticNetwork:
        """Put everything in place: addresses, routes, rules.

        :raises InterfaceMissing: there is no such interface.
        :raises KernelRefused: the kernel refused something; nothing is left behind.
        :raises PermissionMissing: a capability is missing.
        """
        if self._stack is not None:
            raise VRRPKitError("static addresses were entered already; make a new object")
        self._origin = ProcessOrigin()
        stack = contextlib.AsyncExitStack()
        try:
            await self._start(stack)
        except BaseException:
            await shielded(stack.aclose(), "vrrpkit: static addresses are removed")
            raise
        self._stack = stack
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        stack, self._stack = self._stack, None
        if stack is not None and self._origin is not None and not self._origin.elsewhere:
            await shielded(stack.aclose(), "vrrpkit: static addresses are removed")

    async def _start(self, stack: contextlib.AsyncExitStack) -> None:
        self._devices, self._routes = [], None
        by_name: dict[str, list[VIP]] = {}
        for vip in self.addresses:
            by_name.setdefault(vip.dev or "", []).append(vip)
        first: Interface | None = None
        for name, vips in by_name.items():
            interface = await self._interface(name)
            await interface.open()
            stack.push_async_callback(interface.close)
            if interface.link is None and not self._waits:
                raise InterfaceMissing(name)
            device = _Device(interface, vips, self._in_place)
            self._devices.append(device)
            await device.start(stack)
            first = first or interface
        if self.routes or self.rules:
            if first is None:
                first = await self._any_interface()
                await first.open()
                stack.push_async_callback(first.close)
            self._routes = _Routes(first, self.routes, self.rules)
            self._routes.start(stack)

    async def _interface(self, name: str) -> Interface:
        if self._interfaces is not None:
            if name not in self._interfaces:
                raise InterfaceMissing(name)
            return self._interfaces[name]
        return await on_this_host(name, self._netns)

    async def _any_interface(self) -> Interface:
        """Routes belong to the host; an interface is the way to it."""
        if self._interfaces:
            return next(iter(self._interfaces.values()))
        return await self._interface("lo")

    def _in_place(self) -> None:
        # With an address the kernel takes the routes that prefer it as a source.
        if self._routes is not None:
            self._routes.mend()

    @property
    def missing(self) -> tuple[str, ...]:
        """What should be in place and is not, at this moment."""
        found = [f"{vip} dev {device.name}" for device in self._devices for vip in device.missing]
        routes: Sequence[Entry] = () if self._routes is None else self._routes.missing
        return (*found, *(entry.described for entry in routes))


class _Mender:
    """Repairs at once, yet not too often."""

    def __init__(self, deadlines: Deadlines, mend: Callable[[], None]) -> None:
        self._deadlines = deadlines
        self._mend = mend
        self._deadline = deadlines.new(self._run)
        self._next = 0.0

    def soon(self) -> None:
        """Repair now, or at the end of the pace."""
        if self._deadlines.now() >= self._next:
            self._run()
        else:
            self._deadline.set(self._next)

    def later(self) -> None:
        """Try again after a while."""
        self._deadline.set(self._deadlines.now() + RETRY)

    def _run(self) -> None:
        self._deadline.set(None)
        self._next = self._deadlines.now() + PACE
        self._mend()

    def close(self) -> None:
        """Repair nothing any more."""
        self._deadline.set(None)


class _Device:
    """The static addresses of one interface; it listens to its hold."""

    def __init__(
        self, interface: Interface, vips: Sequence[VIP], in_place: Callable[[], None]
    ) -> None:
        self.name = interface.name
        self._interface = interface
        # On the interface itself, so that none needs to name it.
        self._vips = [attrs.evolve(vip, dev=None) for vip in vips]
        self.missing: dict[VIP, None] = dict.fromkeys(self._vips)
        self._duplicates: set[VIP] = set()
        self._in_place = in_place
        self._hold: AddressClaim | None = None
        self._mender: _Mender | None = None
        self._starting = True
        self._refusals: Sequence[tuple[VIP, OSError]] = ()
        self._waiting = False
        """For the interface, with which the addresses went."""

    async def start(self, stack: contextlib.AsyncExitStack) -> None:
        """Put the addresses in place, and keep them there until ``stack`` ends."""
        hold = await self._interface.hold(self._vips, ANNOUNCED, self)
        stack.push_async_callback(hold.close)
        self._hold = hold
        self._mender = _Mender(self._interface.deadlines, self._mend)
        stack.callback(self._mender.close)
        stack.callback(self._interface.watch(self._look))
        hold.acquire()
        await hold.settled()
        self._starting = False
        if self._refusals and not self._waiting:
            vip, problem = self._refusals[0]
            raise KernelRefused(problem.errno, f"address {vip} dev {self.name}: {problem.strerror}")

    @property
    def _usable(self) -> bool:
        link = self._interface.link
        return link is not None and link.up

    def _look(self) -> None:
        if self._waiting and self._usable and self._mender is not None:
            self._waiting = False
            self._mender.soon()

    def acquired(self) -> None:
        """See :class:`vrrpkit.host.base.AddressListener`."""
        self.missing = dict.fromkeys(self._duplicates)
        self._refusals = ()
        self._in_place()

    def refused(self, failures: Sequence[tuple[VIP, OSError]]) -> None:
        """See :class:`vrrpkit.host.base.AddressListener`."""
        self._refusals = failures
        self.missing.update((vip, None) for vip, _problem in failures)
        if self._interface.link is None:
            self._waiting = True
        elif not self._starting and self._mender is not None:
            for vip, problem in failures:
                log.warning("%s dev %s: %s", vip, self.name, problem)
            self._mender.later()

    def usable(self, vip: VIP) -> None:
        """See :class:`vrrpkit.host.base.AddressListener`."""
        self._duplicates.discard(vip)
        self.missing.pop(vip, None)

    def duplicate(self, vip: VIP) -> None:
        """See :class:`vrrpkit.host.base.AddressListener`."""
        log.warning("%s dev %s: somebody else on the link has this address", vip, self.name)
        self._duplicates.add(vip)
        self.missing[vip] = None
        if self._mender is not None:
            self._mender.later()

    def _mend(self) -> None:
        if self._hold is not None:
            for vip in self._duplicates:
                self._hold.detect(vip)
            self._hold.acquire()

    def lost(self, vip: VIP) -> None:
        """See :class:`vrrpkit.host.base.AddressListener`."""
        self.missing[vip] = None
        if not self._usable:
            self._waiting = True
        elif self._mender is not None:
            log.warning("somebody removed %s from %s: putting it back", vip, self.name)
            self._mender.soon()


class _Routes:
    """The static routes and rules."""

    def __init__(
        self, interface: Interface, routes: Sequence[Route], rules: Sequence[Rule]
    ) -> None:
        self._interface = interface
        self._wanted = (routes, rules)
        self._hold: RouteClaim | None = None
        self._mender = _Mender(interface.deadlines, self.mend)

    def start(self, stack: contextlib.AsyncExitStack) -> None:
        """Put them in place, and keep them there until ``stack`` ends."""
        hold = self._interface.hold_routes(*self._wanted, self._lost)
        stack.callback(self._close, hold)
        failures = hold.acquire()
        if failures:
            entry, problem = failures[0]
            raise KernelRefused(problem.errno, f"{entry.described}: {problem.strerror}")
        self._hold = hold

    def _close(self, hold: RouteClaim) -> None:
        self._hold = None
        self._mender.close()
        hold.close()

    @property
    def missing(self) -> list[Entry]:
        """What is not in place now."""
        return [] if self._hold is None else self._hold.missing

    def mend(self) -> None:
        """Put back what is not there."""
        if self._hold is None:
            return
        for entry, problem in self._hold.acquire():
            log.warning("%s: %s", entry.described, problem)
            self._mender.later()

    def _lost(self, entry: Entry) -> None:
        log.warning("somebody removed %s: putting it back", entry.described)
        self._mender.soon()


def _parse(values: Iterable[str | VIP]) -> tuple[VIP, ...]:
    vips = tuple(_address(value) for value in listed("addresses", values))
    seen: set[tuple[str | None, IPAddress]] = set()
    for vip in vips:
        if (vip.dev, vip.address) in seen:
            raise ConfigError(f"static address {vip.address} dev {vip.dev} is named twice")
        seen.add((vip.dev, vip.address))
    return vips


def _address(value: str | VIP) -> VIP:
    if isinstance(value, VIP):
        vip = value
    else:
        fields = read_address(value)
        fields.setdefault("nodad", False)
        with said_of(value):
            vip = VIP(**fields, preferred_lifetime=math.inf)
    if not vip.dev:
        raise ConfigError(f"static address {vip}: on which interface? Write '{vip} dev eth1'")
    return vip
