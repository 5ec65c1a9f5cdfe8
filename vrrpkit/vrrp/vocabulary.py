"""The vocabulary of a virtual router: events go into a machine, effects come out. Pure.

Events are values, so that what happened in production can be recorded and happen again in a test.
"""

from __future__ import annotations

from typing import TypeAlias

import attrs

from vrrpkit.values import IPAddress
from vrrpkit.vrrp.notices import Notice

__all__ = [
    "AdvertReceived",
    "AdvertsLost",
    "Announce",
    "AnnounceAgain",
    "Demote",
    "DropAddresses",
    "Effect",
    "Event",
    "EverythingInPlace",
    "FaultsNow",
    "Granted",
    "GroupReleased",
    "HostChanged",
    "KernelRefusedAddresses",
    "LostAddress",
    "LostRoute",
    "MasterUnreachable",
    "PrimaryAddress",
    "Promote",
    "Publish",
    "Refreshed",
    "SendAdvert",
    "SetPriority",
    "Shutdown",
    "Startup",
    "TakeAddresses",
    "TimerFired",
    "Withdrawn",
]

# --- events


@attrs.frozen(kw_only=True)
class Startup:
    """Begin, with the address that adverts leave from and the faults that hold now."""

    primary: IPAddress | None
    faults: frozenset[str] = frozenset()


@attrs.frozen
class Shutdown:
    """End."""


@attrs.frozen
class TimerFired:
    """The deadline may have passed; too early is harmless."""


@attrs.frozen(kw_only=True)
class AdvertReceived:
    """An advert passed every check."""

    source: IPAddress
    priority: int
    interval: float
    """The sender's advertisement interval in seconds."""
    at: float
    """When it reached this host."""


@attrs.frozen
class Refreshed:
    """The followed master repeated its last accepted advert to the octet: see
    :meth:`Machine.refreshed`."""

    at: float


@attrs.frozen(kw_only=True)
class FaultsNow:
    """The reasons that make the router unfit, all of them; none means fit."""

    faults: frozenset[str]


@attrs.frozen
class SetPriority:
    """Use another priority from now on."""

    priority: int
    source: str = ""
    """What it is made up of, in words."""


@attrs.frozen
class PrimaryAddress:
    """Adverts leave from another address now."""

    address: IPAddress


@attrs.frozen
class Demote:
    """Let somebody else be master for a while."""

    seconds: float


@attrs.frozen
class Promote:
    """Become master now; see :meth:`Machine.promotion_obstacle`."""


@attrs.frozen
class LostAddress:
    """Somebody else removed a virtual address."""

    address: IPAddress
    duplicate: bool = False
    """It is there, but somebody else on the link has it too, found duplicate address detection."""


@attrs.frozen
class LostRoute:
    """Somebody else removed a virtual route or rule."""

    route: str
    """As text, with the word ``route`` or ``rule`` in front."""


@attrs.frozen
class KernelRefusedAddresses:
    """The kernel refused virtual addresses, or routes or rules."""

    failures: tuple[str, ...]
    watchable: bool = True
    """Whether a change of a link, an address or a route of this host would show that another try
    may work."""


@attrs.frozen
class HostChanged:
    """A link, an address or a route of this host has changed, and not by what a virtual router does
    here: what the kernel refused before it may take now."""


@attrs.frozen
class EverythingInPlace:
    """The kernel has every virtual address, route and rule."""


@attrs.frozen
class Granted:
    """Every member of the sync group wants to be MASTER: be it."""


@attrs.frozen
class Withdrawn:
    """Another member of the sync group stopped being MASTER: stop too."""

    resign: bool
    """Whether to say so by priority 0: that member was not beaten, it gave up."""


@attrs.frozen
class AnnounceAgain:
    """Another member of the sync group announces its addresses again: do the same."""


@attrs.frozen
class GroupReleased:
    """The master that another member of the sync group follows said that it leaves, or cannot be
    reached any more. Its siblings leave with it, whether or not this link still carries their
    adverts."""


@attrs.frozen
class MasterUnreachable:
    """A neighbour that could be reached cannot be reached any more, says something quicker than
    adverts (BFD). It matters if that neighbour is the followed master."""

    neighbor: IPAddress


@attrs.frozen
class AdvertsLost:
    """The kernel dropped adverts of this link before they could be read."""


Event: TypeAlias = (
    Startup
    | Shutdown
    | TimerFired
    | AdvertReceived
    | Refreshed
    | FaultsNow
    | SetPriority
    | PrimaryAddress
    | Demote
    | Promote
    | LostAddress
    | LostRoute
    | KernelRefusedAddresses
    | HostChanged
    | EverythingInPlace
    | AdvertsLost
    | Granted
    | Withdrawn
    | AnnounceAgain
    | GroupReleased
    | MasterUnreachable
)

# --- effects


@attrs.frozen
class SendAdvert:
    """Send an advert with this priority, now."""

    priority: int


@attrs.frozen
class TakeAddresses:
    """Put the virtual addresses, routes and rules in place, and announce the addresses."""


@attrs.frozen
class DropAddresses:
    """Remove the virtual rules, routes and addresses, and announce nothing any more."""


@attrs.frozen
class Announce:
    """Announce the virtual addresses again."""

    repeat: int


@attrs.frozen
class Publish:
    """Tell the users."""

    notice: Notice


Effect: TypeAlias = SendAdvert | TakeAddresses | DropAddresses | Announce | Publish
