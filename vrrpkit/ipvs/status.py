"""What can be asked of a virtual server: values of one moment. Pure but for the types of checks."""

from __future__ import annotations

import enum
from collections.abc import Iterable, Mapping

import attrs

from vrrpkit.checks.notices import CheckResult
from vrrpkit.ipvs.connections import entries_of
from vrrpkit.ipvs.entries import DestinationEntry, ServiceEntry, ServiceKey, TrafficCounters
from vrrpkit.ipvs.pool import Member, Seat, ServerState

__all__ = ["ServerStatus", "ServiceStatistics", "VirtualServerState", "statistics", "status"]


class VirtualServerState(enum.StrEnum):
    """The state of a virtual server."""

    INIT = "init"
    """Not started, or ended."""
    UP = "up"
    """The quorum is reached."""
    DOWN = "down"
    """The quorum is lost; the sorry server stands in, if there is one."""


@attrs.frozen(kw_only=True)
class ServerStatus:
    """A real server at one moment."""

    name: str
    endpoint: str
    """Address and port; port 0 is that of the service."""
    state: ServerState
    healthy: bool
    """Whether all of its checks pass."""
    reason: str
    """Why it is not, or empty."""
    configured: int
    """The weight that the program gave it."""
    weight: int
    """The weight that it serves with: 0 when it does not."""
    results: tuple[CheckResult | None, ...]
    """The last result of each of its checks, in the order of its checkers."""
    active: int
    """Established connections, over all services, when the table was read last: at the start, at
    each poll, and when statistics were asked for."""
    inactive: int
    """Connections in any other state, likewise."""

    def __str__(self) -> str:
        why = f" ({self.reason})" if self.reason else ""
        return f"{self.name} {self.state}{why}, weight {self.weight}, {self.active} connections"


@attrs.frozen(kw_only=True)
class ServiceStatistics:
    """What a service has carried, and each real server of it."""

    counters: TrafficCounters
    servers: Mapping[str, DestinationEntry]
    """By name: the sorry server too, and only those that stand in the table."""


def status(
    seat: Seat,
    weight: int,
    results: Iterable[CheckResult | None],
    entries: Mapping[ServiceKey, ServiceEntry],
) -> ServerStatus:
    """What is known of a real server.

    :param weight: that it serves with.
    :param results: the last of each of its checks.
    :param entries: the services, as they were read last.
    """
    found = entries_of(seat.member.key, entries)
    return ServerStatus(
        name=seat.member.name,
        endpoint=str(seat.member.key),
        state=seat.state,
        healthy=seat.up,
        reason=seat.reason,
        configured=seat.configured,
        weight=weight,
        results=tuple(results),
        active=sum(entry.active for _, entry in found),
        inactive=sum(entry.inactive for _, entry in found),
    )


def statistics(
    members: Iterable[Member], entries: Mapping[ServiceKey, ServiceEntry]
) -> dict[ServiceKey, ServiceStatistics]:
    """What each of the services, and each of these members in it, has carried."""
    known = tuple(members)
    found: dict[ServiceKey, ServiceStatistics] = {}
    for key, entry in entries.items():
        servers = {
            member.name: there
            for member in known
            for _, there in entries_of(member.key, {key: entry})
        }
        found[key] = ServiceStatistics(counters=entry.counters, servers=servers)
    return found
