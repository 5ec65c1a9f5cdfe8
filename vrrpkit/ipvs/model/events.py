"""What a virtual server tells its users: one frozen class per kind of event. Pure.

Every event carries ``virtual_server``, its name, and ``at``, seconds of the event loop's clock.
"""

from __future__ import annotations

from typing import TypeAlias

import attrs

from vrrpkit.ipvs.model.entries import ServiceKey
from vrrpkit.values import Stamped

__all__ = [
    "CheckOverdue",
    "CheckPostponed",
    "ForeignServices",
    "PoolEvent",
    "QuorumDown",
    "QuorumUnreachable",
    "QuorumUp",
    "ServerAdded",
    "ServerDisabled",
    "ServerDown",
    "ServerDrained",
    "ServerDraining",
    "ServerEnabled",
    "ServerRemoved",
    "ServerUp",
    "ServicesAdopted",
    "StaleServices",
    "TableFollows",
    "TableRefused",
    "TableRepaired",
    "VirtualServerEvent",
    "WeightChanged",
]

SHOWN = 5
"""Entries that a text lists before it only counts."""


def _listing(values: tuple[object, ...], between: str = ", ") -> str:
    shown = between.join(str(value) for value in values[:SHOWN])
    return shown if len(values) <= SHOWN else f"{shown} and {len(values) - SHOWN} more"


@attrs.frozen(kw_only=True)
class ServerUp(Stamped):
    """All checks of a real server pass."""

    virtual_server: str
    at: float
    server: str

    def __str__(self) -> str:
        return f"{self.virtual_server}: {self.server} is up"


@attrs.frozen(kw_only=True)
class ServerDown(Stamped):
    """The first check of a real server fails, or the virtual server ends (``omega``)."""

    virtual_server: str
    at: float
    server: str
    reason: str

    def __str__(self) -> str:
        return f"{self.virtual_server}: {self.server} is down: {self.reason}"


@attrs.frozen(kw_only=True)
class WeightChanged(Stamped):
    """The effective weight of a real server is another one: a check or the program said so."""

    virtual_server: str
    at: float
    server: str
    previous: int
    weight: int

    def __str__(self) -> str:
        return (
            f"{self.virtual_server}: the weight of {self.server} is {self.weight}, "
            f"no longer {self.previous}"
        )


@attrs.frozen(kw_only=True)
class ServerAdded(Stamped):
    """A real server joined the pool."""

    virtual_server: str
    at: float
    server: str

    def __str__(self) -> str:
        return f"{self.virtual_server}: {self.server} was added"


@attrs.frozen(kw_only=True)
class ServerRemoved(Stamped):
    """A real server left the pool."""

    virtual_server: str
    at: float
    server: str

    def __str__(self) -> str:
        return f"{self.virtual_server}: {self.server} was removed"


@attrs.frozen(kw_only=True)
class ServerDraining(Stamped):
    """A real server gets no new connections, and will be removed when those it has are gone."""

    virtual_server: str
    at: float
    server: str

    def __str__(self) -> str:
        return f"{self.virtual_server}: {self.server} drains"


@attrs.frozen(kw_only=True)
class ServerDrained(Stamped):
    """A real server that drained is about to be removed."""

    virtual_server: str
    at: float
    server: str
    remaining: int
    """Connections that are cut because the time was up."""

    def __str__(self) -> str:
        rest = f", {self.remaining} connections are left" if self.remaining else ""
        return f"{self.virtual_server}: {self.server} was drained{rest}"


@attrs.frozen(kw_only=True)
class ServerDisabled(Stamped):
    """A real server gets no new connections until it is enabled."""

    virtual_server: str
    at: float
    server: str

    def __str__(self) -> str:
        return f"{self.virtual_server}: {self.server} is disabled"


@attrs.frozen(kw_only=True)
class ServerEnabled(Stamped):
    """A real server that was disabled, or whose draining was given up, is in service again."""

    virtual_server: str
    at: float
    server: str

    def __str__(self) -> str:
        return f"{self.virtual_server}: {self.server} is enabled"


@attrs.frozen(kw_only=True)
class QuorumUp(Stamped):
    """The servers that are up carry enough weight."""

    virtual_server: str
    at: float
    weight: int
    """What they carry."""

    def __str__(self) -> str:
        return f"{self.virtual_server}: quorum reached with weight {self.weight}"


@attrs.frozen(kw_only=True)
class QuorumDown(Stamped):
    """The servers that are up carry too little weight, or the virtual server ends (``omega``)."""

    virtual_server: str
    at: float
    weight: int
    """What they carry."""
    sorry: str | None = None
    """The server that stands in."""

    def __str__(self) -> str:
        stands_in = f"; {self.sorry} stands in" if self.sorry else ""
        return f"{self.virtual_server}: quorum lost with weight {self.weight}{stands_in}"


@attrs.frozen(kw_only=True)
class QuorumUnreachable(Stamped):
    """The configured weights of all servers together do not reach the quorum."""

    virtual_server: str
    at: float
    weight: int
    """What they add up to."""
    needed: int
    """Quorum plus hysteresis."""

    def __str__(self) -> str:
        return (
            f"{self.virtual_server}: the weights of all its servers add up to {self.weight}, and "
            f"it takes {self.needed} for the quorum; lower quorum, or raise the weights"
        )


PoolEvent: TypeAlias = (
    ServerUp
    | ServerDown
    | WeightChanged
    | ServerAdded
    | ServerRemoved
    | ServerDraining
    | ServerDrained
    | ServerDisabled
    | ServerEnabled
    | QuorumUp
    | QuorumDown
    | QuorumUnreachable
)
"""What a pool says of itself."""


@attrs.frozen(kw_only=True)
class CheckOverdue(Stamped):
    """A check of a real server gave no result for three of its periods."""

    virtual_server: str
    at: float
    server: str
    checker: str
    since: float
    """Seconds without a result."""
    why: str = ""
    """Why it could not be made, if that is the reason."""

    def __str__(self) -> str:
        why = f": {self.why}" if self.why else ""
        return (
            f"{self.virtual_server}: no result from {self.checker} of {self.server} for "
            f"{self.since:.1f} s{why}"
        )


@attrs.frozen(kw_only=True)
class CheckPostponed(Stamped):
    """A check of a real server could not be made, for a reason that is this machine's: no file
    descriptor, no local address, an exit status that is lost. The verdict stays. Published for the
    first of several in a row."""

    virtual_server: str
    at: float
    server: str
    checker: str
    why: str

    def __str__(self) -> str:
        return (
            f"{self.virtual_server}: {self.server} could not be checked by {self.checker}, its "
            f"verdict stays: {self.why}"
        )


@attrs.frozen(kw_only=True)
class ServicesAdopted(Stamped):
    """Services were in the table at the start, and their entries that fit stayed untouched."""

    virtual_server: str
    at: float
    services: tuple[ServiceKey, ...]

    def __str__(self) -> str:
        return f"{self.virtual_server}: adopted {_listing(self.services)}"


@attrs.frozen(kw_only=True)
class StaleServices(Stamped):
    """Services that an earlier run made, and that are not wanted any more, are being removed."""

    virtual_server: str
    at: float
    services: tuple[ServiceKey, ...]

    def __str__(self) -> str:
        return f"{self.virtual_server}: removing {_listing(self.services)} of an earlier run"


@attrs.frozen(kw_only=True)
class ForeignServices(Stamped):
    """The table holds services that no virtual server of this program made. They are left alone,
    and listed once."""

    virtual_server: str
    at: float
    services: tuple[ServiceKey, ...]

    def __str__(self) -> str:
        return f"{self.virtual_server}: the table also holds {_listing(self.services)}"


@attrs.frozen(kw_only=True)
class TableRepaired(Stamped):
    """Another program changed entries of ours, and they were put right."""

    virtual_server: str
    at: float
    entries: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.virtual_server}: changed by somebody else, put right: " + _listing(
            self.entries
        )


@attrs.frozen(kw_only=True)
class TableRefused(Stamped):
    """The kernel refused changes, or to be read. Published once, and tried again at each poll."""

    virtual_server: str
    at: float
    failures: tuple[str, ...]
    retry_in: float
    """Seconds until the next try."""

    def __str__(self) -> str:
        return (
            f"{self.virtual_server}: the kernel refused {_listing(self.failures, '; ')}; next "
            f"try in {self.retry_in:g} s"
        )


@attrs.frozen(kw_only=True)
class TableFollows(Stamped):
    """The kernel accepted what it had refused before."""

    virtual_server: str
    at: float

    def __str__(self) -> str:
        return f"{self.virtual_server}: the table is as it should be again"


VirtualServerEvent: TypeAlias = (
    PoolEvent
    | CheckOverdue
    | CheckPostponed
    | ServicesAdopted
    | StaleServices
    | ForeignServices
    | TableRepaired
    | TableRefused
    | TableFollows
)
"""Everything that ``events()`` of a virtual server may yield, besides ``EventsLost``."""
