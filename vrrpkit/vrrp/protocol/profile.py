"""Named sets of behaviour, instead of a dozen switches that can contradict each other. Pure."""

from __future__ import annotations

import enum

import attrs

from vrrpkit.errors import ConfigError
from vrrpkit.values import Announcements
from vrrpkit.vrrp.protocol.packet import ChecksumForm

__all__ = ["DEFAULT", "KEEPALIVED", "STRICT", "AddressLostPolicy", "Profile"]


class AddressLostPolicy(enum.StrEnum):
    """What a MASTER does when somebody else removes a virtual address, route or rule."""

    REINSTATE = "reinstate"
    """Put it back and announce it, with no change of state; after three times in ten seconds, step
    down."""
    STEP_DOWN = "step_down"
    """Release everything and start the election again, as keepalived does."""
    IGNORE = "ignore"
    """Leave it gone until the next time this router becomes MASTER."""

    @classmethod
    def of(cls, value: str) -> AddressLostPolicy:
        """The policy of that name.

        :raises ConfigError: there is none.
        """
        try:
            return cls(value)
        except ValueError:
            raise ConfigError(
                f"on_address_lost {value!r} must be one of {', '.join(cls)}"
            ) from None


@attrs.frozen(kw_only=True)
class Profile:
    """How a router behaves where implementations differ. Use one of :data:`DEFAULT`,
    :data:`KEEPALIVED` and :data:`STRICT`, or ``attrs.evolve`` one of them."""

    name: str
    checksum: ChecksumForm = ChecksumForm.PSEUDO_HEADER
    """The checksum that version 3 adverts over IPv4 are sent with."""
    announcements: Announcements = attrs.field(factory=Announcements)
    """Announcements of a takeover, unless the instance names its own."""
    announce_on_losing: bool = True
    """A MASTER that hears a losing advert announces its addresses, and those of its sync group,
    again, besides answering with an advert: at once, and when the other has been silent for one
    down interval; at most one set a second (keepalived: ``garp_lower_prio_repeat``)."""
    exact_preempt_delay: bool = True
    """Preempt at the end of ``preempt_delay``; keepalived then still waits for the rest of
    Master_Down_Interval."""
    address_lost: AddressLostPolicy = AddressLostPolicy.REINSTATE
    """What happens when somebody else removes a virtual address, route or rule, unless the instance
    says otherwise."""
    accept: bool = True
    """Accept_Mode (RFC 9568 section 6.1): whether a master that does not own the addresses accepts
    packets to them."""
    drop_address_list: bool = False
    """Drop adverts that list other addresses, instead of counting them."""
    owner_deaf: bool = False
    """The owner of the addresses drops every advert."""
    extensions: bool = True
    """Allow unicast peers, authentication and delays, which no RFC in force knows."""

    @classmethod
    def of(cls, value: str | Profile) -> Profile:
        """The profile of that name.

        :raises ConfigError: there is none.
        """
        if isinstance(value, Profile):
            return value
        try:
            return _BY_NAME[value]
        except KeyError:
            raise ConfigError(
                f"profile {value!r} must be one of {', '.join(_BY_NAME)}, or a Profile"
            ) from None


DEFAULT = Profile(name="default")
"""RFC 9568 where it helps, keepalived's announcements, and repair instead of surrender."""

KEEPALIVED = Profile(
    name="keepalived",
    exact_preempt_delay=False,
    address_lost=AddressLostPolicy.STEP_DOWN,
)
"""As keepalived 2.4 behaves with its defaults."""

STRICT = Profile(
    name="strict",
    checksum=ChecksumForm.MESSAGE_ONLY,
    announcements=Announcements(repeat=1, delay=0.0),
    announce_on_losing=False,
    accept=False,
    drop_address_list=True,
    owner_deaf=True,
    extensions=False,
)
"""RFC 9568 to the letter."""

_BY_NAME = {profile.name: profile for profile in (DEFAULT, KEEPALIVED, STRICT)}
