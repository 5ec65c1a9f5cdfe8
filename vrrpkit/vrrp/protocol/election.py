"""The arithmetic of an election: who wins, and how skew follows from priority (RFC 9568 sections
6.1 and 6.4). Pure.
"""

from __future__ import annotations

import attrs

from vrrpkit.values import IPAddress
from vrrpkit.vrrp.protocol.profile import AddressLostPolicy, Profile

__all__ = ["DEMOTED", "MachineConfig", "advert_slack", "advert_step", "skew_time", "wins"]

DEMOTED = 1
"""The priority of a router during a demotion."""

_MOST_SLACK = 0.005
_STEP = 0.05


@attrs.frozen(kw_only=True)
class MachineConfig:
    """What a machine must know and never changes. Values are checked where users write them."""

    router: str
    version: int
    priority: int
    interval: float
    """Advertisement_Interval in seconds."""
    preempt: bool
    preempt_delay: float
    down_factor: int
    """Adverts that may be missed before the master counts as silent; the RFC says 3."""
    startup_delay: float
    address_lost: AddressLostPolicy
    profile: Profile
    repeat: int
    """Announcements per address when a burst is due."""
    grouped: bool = False
    """Whether a sync group decides when this router becomes MASTER."""


def skew_time(version: int, priority: int, interval: float) -> float:
    """Skew_Time in seconds: the higher the priority, the sooner the takeover. In version 2 it is a
    part of one second, in version 3 of the master's interval."""
    return (256 - priority) / 256 * (1.0 if version == 2 else interval)


def advert_slack(interval: float) -> float:
    """By how many seconds a periodic advert may leave early, so that one wake-up serves many."""
    return min(interval / 20, _MOST_SLACK)


def advert_step(interval: float) -> float:
    """Seconds whose multiples the moments of adverts become, by and by and within their slack, so
    that the adverts of many routers leave together; but not all of them at once."""
    return _STEP if abs(interval / _STEP - round(interval / _STEP)) < 1e-9 else interval


def wins(priority: int, source: IPAddress, ours: int, primary: IPAddress | None) -> bool:
    """Whether a master of ``priority`` at ``source`` takes the addresses from one of priority
    ``ours`` at ``primary``: the greater address breaks a tie."""
    if priority != ours:
        return priority > ours
    return primary is not None and source.packed > primary.packed
