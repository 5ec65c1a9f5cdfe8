"""What can be asked of a virtual server: values of one moment, also as plain ones for JSON."""

from __future__ import annotations

import enum
import time
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import TypedDict

import attrs

from vrrpkit.checks.events import CheckResult
from vrrpkit.ipvs.config import VirtualServerConfig
from vrrpkit.ipvs.model.connections import entries_of
from vrrpkit.ipvs.model.entries import DestinationEntry, ServiceEntry, ServiceKey, TrafficCounters
from vrrpkit.ipvs.model.pool import Member, PoolServer, ServerState

__all__ = [
    "CheckValues",
    "PoolStatus",
    "ServerStatus",
    "ServerValues",
    "ServiceStatistics",
    "VirtualServerState",
    "pool_status",
    "statistics",
    "status",
]


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
    paused_since: float | None = None
    """Since when it is not checked, in seconds since 1970: the verdict is of before. ``None`` while
    it is."""

    def __str__(self) -> str:
        why = f" ({self.reason})" if self.reason else ""
        text = f"{self.name} {self.state}{why}, weight {self.weight}, {self.active} connections"
        if self.paused_since is None:
            return text
        since = datetime.fromtimestamp(self.paused_since).astimezone()
        return f"{text}, not checked since {since.isoformat(sep=' ', timespec='seconds')}"


@attrs.frozen(kw_only=True)
class ServiceStatistics:
    """What a service has carried, and each real server of it."""

    counters: TrafficCounters
    servers: Mapping[str, DestinationEntry]
    """By name: the sorry server too, and only those that stand in the table."""


def status(
    pool_server: PoolServer,
    weight: int,
    results: Iterable[CheckResult | None],
    entries: Mapping[ServiceKey, ServiceEntry],
    paused_since: float | None = None,
) -> ServerStatus:
    """What is known of a real server.

    :param weight: that it serves with.
    :param results: the last of each of its checks.
    :param entries: the services, as they were read last.
    """
    found = entries_of(pool_server.member.key, entries)
    return ServerStatus(
        name=pool_server.member.name,
        endpoint=str(pool_server.member.key),
        state=pool_server.state,
        healthy=pool_server.up,
        reason=pool_server.reason,
        configured=pool_server.configured,
        weight=weight,
        results=tuple(results),
        active=sum(entry.active for _, entry in found),
        inactive=sum(entry.inactive for _, entry in found),
        paused_since=paused_since,
    )


class CheckValues(TypedDict):
    """The last result of one check, in plain values."""

    checker: str
    passed: bool
    healthy: bool
    """The verdict after it, with ``rise`` and ``fall`` counted."""
    text: str
    """Why it failed, or empty."""
    weight: int | None
    """What it said about the weight."""
    relative: bool
    """Whether that is a difference to the configured weight."""
    attempts: int
    duration: float
    """Seconds."""
    count: int
    """Results so far."""
    time: float
    """When it ended, in seconds since 1970."""


class ServerValues(TypedDict):
    """A real server, in plain values; see :class:`ServerStatus`."""

    name: str
    endpoint: str
    state: str
    healthy: bool
    reason: str
    configured: int
    weight: int
    active: int
    inactive: int
    paused_since: float | None
    checks: list[CheckValues | None]
    """The last result of each check; ``None`` before the first."""


class PoolStatus(TypedDict):
    """A virtual server at one moment, in plain values: ``json.dumps`` takes it as it is."""

    name: str
    time: float
    """The moment, in seconds since 1970."""
    state: str
    """``init``, ``up`` or ``down``."""
    services: list[str]
    weight: int
    """What the servers that are up carry."""
    quorum: int
    hysteresis: int
    sorry: str | None
    """The sorry server."""
    stands_in: bool
    """Whether it stands in now."""
    paused_since: float | None
    """See :attr:`vrrpkit.VirtualServer.paused_since`."""
    refused: list[str]
    """What the kernel refuses now."""
    servers: list[ServerValues]


def pool_status(
    config: VirtualServerConfig,
    *,
    state: VirtualServerState,
    weight: int,
    refused: Iterable[str],
    paused_since: float | None,
    servers: Iterable[ServerStatus],
) -> PoolStatus:
    """What is known of a virtual server, in plain values."""
    sorry = config.stand_in
    return PoolStatus(
        name=config.label,
        time=time.time(),
        state=state.value,
        services=[str(service.key) for service in config.entries],
        weight=weight,
        quorum=config.quorum,
        hysteresis=config.hysteresis,
        sorry=None if sorry is None else sorry.name,
        stands_in=sorry is not None and state is VirtualServerState.DOWN,
        paused_since=paused_since,
        refused=list(refused),
        servers=[_server_values(server) for server in servers],
    )


def _server_values(server: ServerStatus) -> ServerValues:
    return ServerValues(
        name=server.name,
        endpoint=server.endpoint,
        state=server.state.value,
        healthy=server.healthy,
        reason=server.reason,
        configured=server.configured,
        weight=server.weight,
        active=server.active,
        inactive=server.inactive,
        paused_since=server.paused_since,
        checks=[None if result is None else _check_values(result) for result in server.results],
    )


def _check_values(result: CheckResult) -> CheckValues:
    weight = result.weight
    return CheckValues(
        checker=str(result.checker),
        passed=result.passed,
        healthy=result.healthy,
        text=result.text,
        weight=None if weight is None else weight.value,
        relative=weight is not None and weight.relative,
        attempts=result.attempts,
        duration=result.duration,
        count=result.count,
        time=result.time,
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
