"""What a virtual router asks of the machine it runs on; ``memory/`` and ``kernel_interface.py``
provide it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Hashable, Iterable, Sequence
from typing import TYPE_CHECKING, Protocol

import attrs

from vrrpkit.errors import DuplicateRouter
from vrrpkit.timers import Deadlines
from vrrpkit.transport.base import Transport
from vrrpkit.values import VIP, Announcements, IPAddress

if TYPE_CHECKING:
    # Their parsing is loaded where there are any.
    from vrrpkit.routes.route import Entry, Route, Rule

__all__ = [
    "AddressClaim",
    "AddressListener",
    "AddressManager",
    "Announcements",
    "FilterRule",
    "Interface",
    "Link",
    "RouteClaim",
]


@attrs.frozen(kw_only=True)
class Link:
    """One network interface as the kernel sees it now."""

    name: str
    ifindex: int
    up: bool
    """Administratively up and with carrier."""
    mac: bytes = b""
    mtu: int = 1500
    addresses: tuple[tuple[IPAddress, int], ...] = ()
    """Usable addresses with their prefix lengths, in the kernel's order: primary ones first, no
    tentative ones."""
    tentative: tuple[IPAddress, ...] = ()
    """Addresses that may be used once duplicate address detection has found nobody with them."""
    listed: frozenset[IPAddress] = attrs.field(init=False, eq=False, repr=False)
    """:attr:`addresses` without prefix lengths: one set, which all routers of a link share."""

    def __attrs_post_init__(self) -> None:
        listed = frozenset(address for address, _prefix in self.addresses)
        object.__setattr__(self, "listed", listed)

    def source(
        self, family: int, exclude: Iterable[IPAddress] = (), link_local: bool = True
    ) -> IPAddress | None:
        """The address that adverts leave from: the primary IPv4 address, or the IPv6 link-local
        one, never one of ``exclude`` (RFC 9568 section 5.1.1.1 and 5.1.2.1). ``link_local=False``
        takes a global IPv6 address, which unicast across routers needs."""
        barred = exclude if isinstance(exclude, frozenset) else frozenset(exclude)
        for address, _prefix in self.addresses:
            fits = family == 4 or address.is_link_local is link_local
            if address.version == family and fits and address not in barred:
                return address
        return None


class AddressManager(Protocol):
    """Puts addresses on one interface and takes them off. The reconciler is its only caller."""

    async def apply(
        self, add: Sequence[VIP], remove: Sequence[VIP], lease: float | None
    ) -> list[tuple[VIP, OSError]]:
        """Remove, then add, in as few system calls as possible; return what the kernel refused.

        Adding what is there and removing what is gone succeed, and so does adding one that is not
        tracked to an interface that is missing. The added addresses vanish ``lease``
        seconds after they were last added; ``None`` means never.
        """
        ...

    def present(self, vip: VIP) -> bool:
        """Whether the address is on the interface now, whoever put it there."""
        ...

    def ours(self, vip: VIP) -> bool:
        """Whether the address is on the interface now and carries the mark of this library."""
        ...

    def tentative(self, vip: VIP) -> bool:
        """Whether the address is on the interface now and may not be used, for duplicate address
        detection has not passed."""
        ...


class AddressListener(Protocol):
    """Who hears how the kernel took a wish. Called on the event loop."""

    def acquired(self) -> None:
        """Every address is in place, and is announced next unless it is released here, or has to
        pass duplicate address detection first."""

    def refused(self, failures: Sequence[tuple[VIP, OSError]]) -> None:
        """The kernel refused some addresses."""

    def lost(self, vip: VIP) -> None:
        """Somebody else removed an address that is wanted."""

    def usable(self, vip: VIP) -> None:
        """An address has passed duplicate address detection, and is announced."""

    def duplicate(self, vip: VIP) -> None:
        """Somebody else on the link has an address, found duplicate address detection: it is in
        place, and useless. :meth:`AddressClaim.detect` tries again."""


class AddressClaim(ABC):
    """The addresses of one router on one interface. The last wish wins; the kernel follows."""

    @abstractmethod
    def acquire(self) -> None:
        """Want the addresses in place, then announced."""

    @abstractmethod
    def release(self) -> None:
        """Want them gone, and no announcement to leave any more."""

    @abstractmethod
    def announce(self, repeat: int) -> None:
        """Announce the addresses again, ``repeat`` packets each, if they are in place."""

    @property
    @abstractmethod
    def checking(self) -> bool:
        """Whether duplicate address detection of an address that is wanted has not passed."""

    @abstractmethod
    def detect(self, vip: VIP) -> None:
        """Take an address off and put it back, so that duplicate address detection runs anew."""

    @abstractmethod
    def make_do(self) -> None:
        """Announce those that are in place, though the kernel refused others."""

    @abstractmethod
    async def settled(self) -> None:
        """Wait until the kernel agrees with the last wish."""

    @abstractmethod
    async def close(self) -> None:
        """Release, wait for it, and forget the addresses."""


class RouteClaim(ABC):
    """The routes and rules of one router. Everything happens at once: a call returns when the
    kernel has done it."""

    @abstractmethod
    def acquire(self) -> list[tuple[Entry, OSError]]:
        """Put the routes in place, then the rules; what the kernel refused. Those that are there
        already stay as they are."""

    @property
    @abstractmethod
    def missing(self) -> list[Entry]:
        """What is not in place now, as far as the kernel has told."""

    @abstractmethod
    def release(self) -> None:
        """Remove the rules, then the routes."""

    @abstractmethod
    def close(self) -> None:
        """Release, and forget them."""


class FilterRule(ABC):
    """Packets that the packet filter drops on behalf of one router."""

    @abstractmethod
    async def close(self) -> None:
        """Let them pass again; calling it twice is harmless."""


class Interface(ABC):
    """One network interface. Several virtual routers share it; the last to leave closes it."""

    name: str
    deadlines: Deadlines
    transport: Transport

    def __init__(self, name: str) -> None:
        self.name = name
        self._claims: set[Hashable] = set()

    @abstractmethod
    async def open(self) -> None:
        """Take a reference and start watching the interface.

        :raises PermissionMissing: a capability is missing.
        """

    @abstractmethod
    async def close(self) -> None:
        """Give the reference back."""

    @property
    @abstractmethod
    def link(self) -> Link | None:
        """What the interface is now; ``None`` while there is no such interface."""

    @abstractmethod
    def watch(self, changed: Callable[[], None]) -> Callable[[], None]:
        """Call ``changed`` after each change of :attr:`link`; returns what ends it."""

    def watch_machine(self, changed: Callable[[], None]) -> Callable[[], None]:
        """Call ``changed`` after changes of links, addresses and routes of the whole machine that
        this library did not make; returns what ends it. Here: of this link only."""
        return self.watch(changed)

    @abstractmethod
    def device(self, name: str) -> Interface:
        """The interface of that name on the same machine, whether there is one or not. It is opened
        and closed like this one."""

    @abstractmethod
    async def hold(
        self,
        vips: Sequence[VIP],
        announcements: Announcements,
        listener: AddressListener,
        lease: float | None = None,
    ) -> AddressClaim:
        """Make a hold on ``vips``: none is put in place yet, and leftovers of a killed run are
        removed.

        ``lease`` is the finite valid lifetime in seconds that the addresses get, renewed while they
        are wanted.
        """

    @abstractmethod
    def remove_abandoned(self, addresses: Collection[IPAddress]) -> None:
        """Remove those of these addresses from the interface that a killed keepalived left on it,
        whatever their prefix length."""

    @abstractmethod
    def remove_foreign(self, address: IPAddress, prefix: int) -> OSError | None:
        """Remove an address from the interface, whoever put it there; what the kernel says if it
        refuses."""

    @abstractmethod
    def hold_routes(
        self, routes: Sequence[Route], rules: Sequence[Rule], lost: Callable[[Entry], None]
    ) -> RouteClaim:
        """Make a hold on routes and rules of the host that this interface belongs to: none is put
        in place yet, and leftovers of a killed run are removed.

        ``lost`` is called on the event loop when somebody else has removed one that is wanted.

        :raises KernelRefused: a leftover could not be removed.
        """

    @abstractmethod
    async def refuse(self, vips: Sequence[VIP]) -> FilterRule:
        """Drop packets to these addresses, which may be put on this interface, but for what it
        takes to find out its MAC address (RFC 9568 section 6.1: Accept_Mode False).

        :raises HostError: this host cannot do it; the message says what is missing.
        """

    @abstractmethod
    async def virtual(self, vrid: int, family: int, name: str | None) -> Interface:
        """The interface with the virtual MAC of ``vrid`` on top of this one, made when it is not
        there (RFC 9568 section 7.3; keepalived: ``use_vmac``)."""

    def claim(self, key: Hashable) -> None:
        """Reserve the identity of a virtual router.

        :raises DuplicateRouter: it is taken.
        """
        if key in self._claims:
            raise DuplicateRouter(
                f"a virtual router with {key} runs on {self.name} already; choose another VRID, "
                "group or set of peers"
            )
        self._claims.add(key)

    def unclaim(self, key: Hashable) -> None:
        """Give the identity back."""
        self._claims.discard(key)
