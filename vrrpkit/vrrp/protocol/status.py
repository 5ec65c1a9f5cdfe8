"""How a router or a sync group is at one moment, as values that JSON has. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypedDict

from vrrpkit.values import IPAddress
from vrrpkit.vrrp.protocol.events import Anomaly, Transition
from vrrpkit.vrrp.protocol.packet import RejectReason
from vrrpkit.vrrp.protocol.statistics import PeerCounters, RouterStatistics

__all__ = [
    "GroupStatus",
    "PeerStatus",
    "RouterCounters",
    "RouterStatus",
    "TransitionStatus",
    "statistics_of",
    "text_of",
    "transition_of",
]


class TransitionStatus(TypedDict):
    """A change of state."""

    time: float
    """When it was published, in seconds since 1970."""
    at: float
    """Seconds of the event loop's clock."""
    previous: str
    state: str
    reason: str
    priority: int
    faults: list[str]


class PeerStatus(TypedDict):
    """What came from one peer."""

    accepted: int
    rejected: dict[str, int]
    """By reason."""
    anomalies: dict[str, int]
    checksum: str | None


class RouterCounters(TypedDict):
    """The counters of a router, under the names of RFC 8347."""

    counters: dict[str, int]
    rejected: dict[str, int]
    """By reason."""
    anomalies: dict[str, int]
    peers: dict[str, PeerStatus]
    """By address; ``others`` are those that are not told apart any more."""


class RouterStatus(TypedDict):
    """A virtual router at one moment; ``json.dumps`` takes it as it is."""

    name: str
    state: str
    """``INIT``, ``BACKUP``, ``MASTER`` or ``FAULT``."""
    why_not_master: str | None
    """What it waits for, in words; ``None`` while it is MASTER."""
    contested: str | None
    """Who else claims to be MASTER while it is, in words."""
    vrid: int
    version: int
    priority: int
    """The effective priority, 1 to 255."""
    configured_priority: int
    """The priority that it was made with."""
    virtual_addresses: list[str]
    """With their prefix lengths, those that no advert carries included."""
    source: str | None
    """The address that adverts leave from."""
    master: str | None
    """The current master, while one is known."""
    master_priority: int | None
    faults: list[str]
    foreign_addresses: list[str]
    """Virtual addresses that somebody else put on this host."""
    signals: dict[str, bool | int | None]
    """The latest signal of each tracker."""
    last_transition: TransitionStatus | None
    statistics: RouterCounters


class GroupStatus(TypedDict):
    """A sync group at one moment; ``json.dumps`` takes it as it is."""

    name: str
    state: str
    why_not_master: str | None
    signals: dict[str, bool | int | None]
    """The latest signal of each tracker of the group itself."""
    members: list[RouterStatus]


def text_of(address: IPAddress | None) -> str | None:
    """An address as text."""
    return None if address is None else str(address)


def transition_of(event: Transition | None) -> TransitionStatus | None:
    """A change of state as values."""
    if event is None:
        return None
    return {
        "time": event.time,
        "at": event.at,
        "previous": str(event.previous),
        "state": str(event.state),
        "reason": str(event.reason),
        "priority": event.priority,
        "faults": sorted(event.faults),
    }


def statistics_of(counted: RouterStatistics) -> RouterCounters:
    """The counters as values."""
    values = {name: getattr(counted, name) for name in counted.__annotations__}
    return {
        "counters": {name: value for name, value in values.items() if isinstance(value, int)},
        "rejected": _counts(counted.rejected),
        "anomalies": _counts(counted.anomalies),
        "peers": {
            "others" if peer is None else str(peer): _peer(counts)
            for peer, counts in counted.peers.items()
        },
    }


def _peer(counts: PeerCounters) -> PeerStatus:
    return {
        "accepted": counts.accepted,
        "rejected": _counts(counts.rejected),
        "anomalies": _counts(counts.anomalies),
        "checksum": None if counts.checksum is None else str(counts.checksum),
    }


def _counts(counter: Mapping[RejectReason, int] | Mapping[Anomaly, int]) -> dict[str, int]:
    return {str(what): count for what, count in counter.items()}
