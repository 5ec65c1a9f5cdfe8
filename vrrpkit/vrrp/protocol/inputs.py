"""What goes into the state machine of a virtual router. Pure.

Inputs are values, so that what happened in production can be recorded and happen again in a test.
"""

from __future__ import annotations

from typing import TypeAlias

import attrs

from vrrpkit.values import IPAddress, Record

__all__ = [
    "AdvertReceived",
    "AdvertsLost",
    "AnnounceAgain",
    "Demote",
    "EverythingInPlace",
    "FaultsNow",
    "Granted",
    "GroupReleased",
    "HostChanged",
    "Input",
    "KernelRefusedAddresses",
    "LostAddress",
    "LostRoute",
    "MasterUnreachable",
    "PrimaryAddress",
    "Promote",
    "Refreshed",
    "SetPriority",
    "Shutdown",
    "Startup",
    "TimerFired",
    "Withdrawn",
]


@attrs.frozen(kw_only=True, eq=False, repr=False)
class Startup(Record):
    """Begin, with the address that adverts leave from and the faults that hold now."""

    primary: IPAddress | None
    faults: frozenset[str] = frozenset()


@attrs.frozen(eq=False, repr=False)
class Shutdown(Record):
    """End."""


@attrs.frozen(eq=False, repr=False)
class TimerFired(Record):
    """The deadline may have passed; too early is harmless."""


@attrs.frozen(kw_only=True, eq=False, repr=False)
class AdvertReceived(Record):
    """An advert passed every check."""

    source: IPAddress
    priority: int
    interval: float
    """The sender's advertisement interval in seconds."""
    at: float
    """When it reached this host."""


@attrs.frozen(eq=False, repr=False)
class Refreshed(Record):
    """The followed master repeated its last accepted advert to the octet: see
    :meth:`Machine.refreshed`."""

    at: float


@attrs.frozen(kw_only=True, eq=False, repr=False)
class FaultsNow(Record):
    """The reasons that make the router unfit, all of them; none means fit."""

    faults: frozenset[str]


@attrs.frozen(eq=False, repr=False)
class SetPriority(Record):
    """Use another priority from now on."""

    priority: int
    source: str = ""
    """What it is made up of, in words."""


@attrs.frozen(eq=False, repr=False)
class PrimaryAddress(Record):
    """Adverts leave from another address now."""

    address: IPAddress


@attrs.frozen(eq=False, repr=False)
class Demote(Record):
    """Let somebody else be master for a while."""

    seconds: float


@attrs.frozen(eq=False, repr=False)
class Promote(Record):
    """Become master now; see :meth:`Machine.promotion_obstacle`."""


@attrs.frozen(eq=False, repr=False)
class LostAddress(Record):
    """Somebody else removed a virtual address."""

    address: IPAddress
    duplicate: bool = False
    """It is there, but somebody else on the link has it too, found duplicate address detection."""


@attrs.frozen(eq=False, repr=False)
class LostRoute(Record):
    """Somebody else removed a virtual route or rule."""

    route: str
    """As text, with the word ``route`` or ``rule`` in front."""


@attrs.frozen(eq=False, repr=False)
class KernelRefusedAddresses(Record):
    """The kernel refused virtual addresses, or routes or rules."""

    failures: tuple[str, ...]
    watchable: bool = True
    """Whether a change of a link, an address or a route of this host would show that another try
    may work."""


@attrs.frozen(eq=False, repr=False)
class HostChanged(Record):
    """A link, an address or a route of this host has changed, and not by what a virtual router does
    here: what the kernel refused before it may take now."""


@attrs.frozen(eq=False, repr=False)
class EverythingInPlace(Record):
    """The kernel has every virtual address, route and rule."""


@attrs.frozen(eq=False, repr=False)
class Granted(Record):
    """Every member of the sync group wants to be MASTER: be it."""


@attrs.frozen(eq=False, repr=False)
class Withdrawn(Record):
    """Another member of the sync group stopped being MASTER: stop too."""

    resign: bool
    """Whether to say so by priority 0: that member was not beaten, it gave up."""


@attrs.frozen(eq=False, repr=False)
class AnnounceAgain(Record):
    """Another member of the sync group announces its addresses again: do the same."""


@attrs.frozen(eq=False, repr=False)
class GroupReleased(Record):
    """The master that another member of the sync group follows said that it leaves, or cannot be
    reached any more. Its siblings leave with it, whether or not this link still carries their
    adverts."""


@attrs.frozen(eq=False, repr=False)
class MasterUnreachable(Record):
    """A neighbour that could be reached cannot be reached any more, says something quicker than
    adverts (BFD). It matters if that neighbour is the followed master."""

    neighbor: IPAddress


@attrs.frozen(eq=False, repr=False)
class AdvertsLost(Record):
    """The kernel dropped adverts of this link before they could be read."""


Input: TypeAlias = (
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
