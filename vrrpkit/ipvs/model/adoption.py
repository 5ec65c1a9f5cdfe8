"""What a restart takes over: from the table, and from what the run before it recorded. Pure.

A restart changes nothing before a check has spoken. The table says who serves and with what
weight, and it is never older than what was written. What was written says why: which check failed
and with which reason, the weights that checks gave, what the program set or disabled, and
whether the quorum was reached. Without it the table alone decides:

- a server with a weight there is up, also with ``alpha``, and keeps it until its checks passed;
- one with weight 0 there while another one serves stays at 0 until they did; one without checks
  counts as disabled;
- a server that is missing there while another one serves has failed, and waits for its checks;
- where no server serves, all begin as they are configured.

With it, a server that is not in it is new, and begins as it is configured. What the configuration
says otherwise than at that time holds at once.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import cast

import attrs

from vrrpkit.errors import ConfigError
from vrrpkit.ipvs.model.entries import WEIGHT_LIMIT
from vrrpkit.ipvs.model.pool import UNKNOWN, Adopted, Member, PoolServer, ServerState
from vrrpkit.validate import is_number, is_whole

__all__ = [
    "LIFETIME",
    "Adoptable",
    "PoolMemory",
    "Remembered",
    "adopt",
    "decode",
    "encode",
    "quorate",
]

LIFETIME = 3600.0
"""Seconds after which what was written counts no more: too much may have changed."""

LATEST = 1e12
"""Seconds since 1970 that no clock says."""

REASON_LIMIT = 1000
CHECKS_LIMIT = 1000


@attrs.frozen(kw_only=True)
class Remembered:
    """What was written of one server."""

    endpoint: str
    described: int
    """The weight of its description."""
    configured: int
    """The weight that the program gave it last."""
    disabled: bool = False
    checks: tuple[str, ...] = ()
    """What its checkers are called."""
    failing: Mapping[int, str] = attrs.field(factory=dict[int, str])
    check_weights: Mapping[int, tuple[int, bool]] = attrs.field(factory=dict[int, tuple[int, bool]])

    @classmethod
    def of(cls, pool_server: PoolServer, checks: Sequence[str]) -> Remembered:
        """What is to be written of a server now."""
        member = pool_server.member
        return cls(
            endpoint=str(member.key),
            described=member.weight,
            configured=pool_server.configured,
            disabled=pool_server.admin_state is ServerState.DISABLED,
            checks=tuple(checks),
            failing=dict(pool_server.failing),
            check_weights=dict(pool_server.check_weights),
        )


@attrs.frozen(kw_only=True)
class PoolMemory:
    """What was written of one virtual server."""

    at: float
    """When, in seconds since 1970."""
    quorate: bool
    servers: Mapping[str, Remembered]
    """By name."""

    def counts(self, wall: float) -> bool:
        """Whether it is young enough at ``wall``, seconds since 1970."""
        return abs(wall - self.at) <= LIFETIME


@attrs.frozen(kw_only=True)
class Adoptable:
    """What the table shows of a pool."""

    live: int = 0
    """How many real servers have a weight, the sorry server aside."""
    stands_in: bool = False
    """Whether the sorry server has one."""

    @property
    def serves(self) -> bool:
        """Whether anybody gets connections."""
        return self.stands_in or self.live > 0


def adopt(
    member: Member,
    checks: Sequence[str],
    alpha: bool,
    weights: Iterable[int],
    table: Adoptable,
    memory: PoolMemory | None,
) -> Adopted:
    """How a server begins.

    :param checks: what its checkers are called.
    :param weights: those of its entries, one for each service that it stands in.
    :param memory: what was written, if it counts.
    """
    found = tuple(weights)
    serves = max(found, default=0)
    known = None if memory is None else memory.servers.get(member.name)
    if known is not None and known.endpoint != str(member.key):
        known = None
    every = dict.fromkeys(range(len(checks)), UNKNOWN)
    as_configured = every if alpha else {}
    begins = _begins(member, checks, known, every)
    failing, disabled = begins.failing, begins.disabled
    if serves:
        # The table is never older than what was written.
        failing, disabled = {}, False
    elif known is None:
        new = not table.serves or (memory is not None and not found)
        failing = as_configured if new else every
        # No check will ever say that it may serve again: the program has to.
        idle = bool(found and member.weight) and not (new or table.stands_in)
        disabled = idle and not checks
    elif not (failing or disabled):
        if not table.serves:
            failing = as_configured
        elif not table.stands_in and _weight_of(member, begins):
            failing = every
    touched = known is not None and known.described != member.weight
    differs = serves > 0 and bool(checks) and not touched and serves != _weight_of(member, begins)
    return Adopted(
        failing=failing,
        check_weights=begins.check_weights,
        configured=begins.configured,
        weight=serves if differs else None,
        checks=len(checks),
        disabled=disabled,
        held=bool(found),
        seen=not failing and (serves > 0 or known is not None),
    )


def _begins(
    member: Member, checks: Sequence[str], known: Remembered | None, every: Mapping[int, str]
) -> Remembered:
    """What was written of a server, as far as the configuration is what it was."""
    usual = Remembered(
        endpoint=str(member.key),
        described=member.weight,
        configured=member.weight,
        checks=tuple(checks),
    )
    if known is None:
        return usual
    same = known.checks == usual.checks
    return attrs.evolve(
        usual,
        configured=known.configured if known.described == member.weight else member.weight,
        disabled=known.disabled,
        failing=known.failing if same or not known.failing else every,
        check_weights=known.check_weights if same else {},
    )


def _weight_of(member: Member, begins: Remembered) -> int:
    """The weight that a server has by what is known of it."""
    return PoolServer(
        member, Adopted(configured=begins.configured, check_weights=begins.check_weights)
    ).weight


def quorate(table: Adoptable, sorry: bool, memory: PoolMemory | None) -> bool:
    """Whether the run before had its quorum.

    :param sorry: there is a sorry server.
    """
    if table.live and (sorry or memory is None):
        # With a quorum lost they would have left for the sorry server.
        return True
    return memory is not None and memory.quorate and not table.stands_in


# --- as it is written -----------------------------------------------------------------------------


def encode(memory: PoolMemory) -> dict[str, object]:
    """For JSON; what is as usual is left out."""
    return {
        "at": memory.at,
        "quorate": memory.quorate,
        "servers": {name: _encoded(server) for name, server in memory.servers.items()},
    }


def _encoded(server: Remembered) -> dict[str, object]:
    fields: dict[str, object] = {"endpoint": server.endpoint, "described": server.described}
    if server.configured != server.described:
        fields["configured"] = server.configured
    if server.disabled:
        fields["disabled"] = True
    if server.checks:
        fields["checks"] = list(server.checks)
    if server.failing:
        fields["failing"] = [[check, reason] for check, reason in server.failing.items()]
    if server.check_weights:
        fields["said"] = [[check, *weight] for check, weight in server.check_weights.items()]
    return fields


def decode(content: object) -> PoolMemory:
    """The opposite of :func:`encode`.

    :raises ConfigError: it is something else.
    """
    fields = _object(content)
    at = fields.get("at")
    if not is_number(at) or not 0 <= at < LATEST:
        raise ConfigError("it says no time")
    servers = _object(fields.get("servers"))
    return PoolMemory(
        at=float(at),
        quorate=fields.get("quorate") is True,
        servers={name: _decoded(value) for name, value in servers.items()},
    )


def _decoded(value: object) -> Remembered:
    fields = _object(value)
    described = _weight(fields.get("described"))
    configured = fields.get("configured")
    checks = tuple(str(name) for name in _list(fields.get("checks", [])))
    failing: dict[int, str] = {}
    check_weights: dict[int, tuple[int, bool]] = {}
    for row in _list(fields.get("failing", [])):
        check, reason = _row(row, 2, len(checks))
        failing[check] = str(reason[0])[:REASON_LIMIT]
    for row in _list(fields.get("said", [])):
        check, (number, relative) = _row(row, 3, len(checks))
        check_weights[check] = _weight(number, relative is True), relative is True
    return Remembered(
        endpoint=str(fields.get("endpoint")),
        described=described,
        configured=described if configured is None else _weight(configured),
        disabled=fields.get("disabled") is True,
        checks=checks,
        failing=failing,
        check_weights=check_weights,
    )


def _object(value: object) -> dict[str, object]:
    if not isinstance(value, dict):
        raise ConfigError("a pool or a server of it is no object")
    return cast("dict[str, object]", value)


def _list(value: object) -> list[object]:
    rows = cast("list[object]", value) if isinstance(value, list) else None
    if rows is None or len(rows) > CHECKS_LIMIT:
        raise ConfigError("what is said of the checks of a server is no list, or too long")
    return rows


def _row(value: object, length: int, checks: int) -> tuple[int, list[object]]:
    row = _list(value)
    number = row[0] if row else None
    if not is_whole(number) or len(row) != length or not 0 <= number < checks:
        raise ConfigError(f"{row!r} says nothing of a check")
    return number, row[1:]


def _weight(value: object, relative: bool = False) -> int:
    low = -WEIGHT_LIMIT if relative else 0
    if not is_whole(value) or not low <= value <= WEIGHT_LIMIT:
        raise ConfigError(f"{value!r} is no weight")
    return value
