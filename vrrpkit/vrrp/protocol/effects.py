"""What comes out of the state machine of a virtual router, in the order in which it must be
carried out. Pure."""

from __future__ import annotations

from typing import TypeAlias

import attrs

from vrrpkit.values import Record
from vrrpkit.vrrp.protocol.events import RouterEvent

__all__ = [
    "Announce",
    "DropAddresses",
    "Effect",
    "Publish",
    "SendAdvert",
    "TakeAddresses",
]


@attrs.frozen(eq=False, repr=False)
class SendAdvert(Record):
    """Send an advert with this priority, now."""

    priority: int


@attrs.frozen(eq=False, repr=False)
class TakeAddresses(Record):
    """Put the virtual addresses, routes and rules in place, and announce the addresses."""


@attrs.frozen(eq=False, repr=False)
class DropAddresses(Record):
    """Remove the virtual rules, routes and addresses, and announce nothing any more."""


@attrs.frozen(eq=False, repr=False)
class Announce(Record):
    """Announce the virtual addresses again."""

    repeat: int


@attrs.frozen(eq=False, repr=False)
class Publish(Record):
    """Tell the users."""

    notice: RouterEvent


Effect: TypeAlias = SendAdvert | TakeAddresses | DropAddresses | Announce | Publish
