"""The pool of a virtual server: which real servers stand in the table, and with what weight. Pure.

The rules are those of keepalived's ``check/ipwrapper.c``:

- a server is down from the first of its checks that fails until the last one recovers;
- one that is down is taken out of the table, or stays with weight 0 (``inhibit_on_failure``);
- the weights that several checks give it add up, as differences to the configured weight;
- the quorum is reached at ``quorum + hysteresis`` and lost at 0 or below ``quorum - hysteresis``;
- without a quorum a sorry server, if there is one, stands in, and those that are up leave as if
  they had failed.

Of our own: a server that is disabled or drains keeps its connections, with weight 0, whatever the
quorum; one that drains keeps them whatever its checks say, too. What an earlier run knew of a
server is taken over (:class:`Adopted`). Nothing is capped silently: keepalived lowers a quorum
above the sum of all weights to it.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Iterator, Mapping

import attrs

from vrrpkit.ipvs.model.entries import WEIGHT_LIMIT, Destination, DestinationKey, Forward, Tunnel
from vrrpkit.ipvs.model.events import (
    PoolEvent,
    QuorumDown,
    QuorumUnreachable,
    QuorumUp,
    ServerAdded,
    ServerDisabled,
    ServerDown,
    ServerDrained,
    ServerDraining,
    ServerEnabled,
    ServerRemoved,
    ServerUp,
    WeightChanged,
)

__all__ = ["UNKNOWN", "Adopted", "Member", "Pool", "PoolServer", "ServerState"]

UNKNOWN = "not checked yet"
"""Why a server is down before any check of this run has a result."""


class ServerState(enum.StrEnum):
    """The state of a real server."""

    UP = "up"
    """All of its checks pass."""
    DOWN = "down"
    """At least one of its checks fails."""
    DISABLED = "disabled"
    """It gets no new connections until it is enabled, whatever its checks say."""
    DRAINING = "draining"
    """It gets no new connections, and is removed when those it has are gone."""


@attrs.frozen(kw_only=True)
class Member:
    """A real server, as it was configured."""

    name: str
    key: DestinationKey
    """Port 0 is the port of the service."""
    weight: int = 1
    forward: Forward = Forward.NAT
    tunnel: Tunnel | None = None
    upper: int = 0
    lower: int = 0
    inhibit_on_failure: bool = False

    def destination(self, weight: int) -> Destination:
        """The entry of this server with a weight."""
        return Destination(
            key=self.key,
            weight=weight,
            forward=self.forward,
            tunnel=self.tunnel,
            upper=self.upper,
            lower=self.lower,
        )


@attrs.frozen(kw_only=True)
class Adopted:
    """What an earlier run knew of a server, or left of it in the table: it holds until a check of
    this run says otherwise. ``adoption.py`` finds it out."""

    failing: Mapping[int, str] = attrs.field(factory=dict[int, str])
    """The checks that failed, with the reason of each."""
    check_weights: Mapping[int, tuple[int, bool]] = attrs.field(factory=dict[int, tuple[int, bool]])
    """The weights that checks gave it: a number, and whether it is a difference."""
    configured: int
    """The weight that the program gave it last."""
    weight: int | None = None
    """The weight in the table, if that is another one; it holds until each check has passed."""
    checks: int = 0
    """How many checks there are."""
    disabled: bool = False
    held: bool = False
    """It stands in the table, perhaps with connections: one that is down stays there with weight 0
    until a check of this run says that it has failed."""
    seen: bool = False
    """Whether it served: then its first check that fails is one of many, and not final."""


class PoolServer:
    """A member of a pool with what is known of it; made by :meth:`Pool.add`."""

    __slots__ = (
        "admin_state",
        "check_weights",
        "configured",
        "counted",
        "failing",
        "held",
        "kept",
        "member",
        "table_weight",
        "unheard",
    )

    def __init__(self, member: Member, adopted: Adopted) -> None:
        self.member = member
        self.configured = adopted.configured
        """The weight that the program gave it last."""
        self.failing = dict(adopted.failing)
        """The checks that fail, the first one first, with the reason of each."""
        self.check_weights = dict(adopted.check_weights)
        """The weights that checks give it: a number, and whether it is a difference."""
        self.admin_state = ServerState.DISABLED if adopted.disabled else None
        """DISABLED or DRAINING, or ``None`` while it is in service."""
        self.counted = 0
        """Its share of the weight of the pool."""
        self.held = adopted.held and bool(self.failing)
        """Whether it stays in the table with weight 0 until a check has failed or all passed."""
        self.kept = False
        """Whether it stays there with weight 0 while it drains, whatever its checks say."""
        self.table_weight = adopted.weight
        """The weight that an earlier run gave it, while checks are missing that may say another."""
        self.unheard = set(range(adopted.checks)) if adopted.weight is not None else set[int]()
        """The checks that are missing."""

    @property
    def up(self) -> bool:
        """Whether no check fails."""
        return not self.failing

    @property
    def state(self) -> ServerState:
        """What the program set, else what the checks say."""
        if self.admin_state is not None:
            return self.admin_state
        return ServerState.DOWN if self.failing else ServerState.UP

    @property
    def reason(self) -> str:
        """Why it is down, or empty."""
        return next(iter(self.failing.values()), "")

    @property
    def weight(self) -> int:
        """The effective weight while it is in service."""
        if self.table_weight is not None:
            return self.table_weight
        if not self.check_weights:
            return self.configured
        total = self.configured
        for value, relative in self.check_weights.values():
            total += value if relative else value - self.configured
        return min(max(total, 0), WEIGHT_LIMIT)

    @property
    def quorum_weight(self) -> int:
        """The weight that counts for the quorum."""
        return 0 if self.failing or self.admin_state else self.weight


_ADMIN_EVENTS: dict[ServerState | None, type[ServerDisabled | ServerDraining | ServerEnabled]] = {
    ServerState.DISABLED: ServerDisabled,
    ServerState.DRAINING: ServerDraining,
    None: ServerEnabled,
}


class Pool:
    """The reducer: what happens to a pool goes in by its methods, and events come out.

    :param name: of the virtual server, for the events.
    :param quorum: weight that makes the pool usable, from 1.
    :param hysteresis: see above; less than ``quorum``.
    :param sorry: stands in while the quorum is lost.
    :param sorry_inhibit: the sorry server stays in the table with weight 0 when it is not needed.
    """

    def __init__(
        self,
        name: str,
        *,
        quorum: int = 1,
        hysteresis: int = 0,
        sorry: Member | None = None,
        sorry_inhibit: bool = False,
    ) -> None:
        self._name = name
        self._quorum = quorum
        self._hysteresis = hysteresis
        self._sorry = sorry
        self._sorry_inhibit = sorry_inhibit
        self._pool_servers: dict[str, PoolServer] = {}
        self._by_key: dict[DestinationKey, PoolServer] = {}
        self._changed: dict[DestinationKey, None] = {}
        self._started = False
        self._warned = False
        self._configured = 0
        self.weight = 0
        """The sum of the weights of the servers that are up."""
        self.quorate = False
        """Whether the quorum is reached."""
        if sorry is not None:
            self._changed[sorry.key] = None

    # --- what it is -----------------------------------------------------------------------------

    @property
    def pool_servers(self) -> Iterator[PoolServer]:
        """All members, in the order in which they were added."""
        return iter(self._pool_servers.values())

    def pool_server(self, name: str) -> PoolServer | None:
        """The member ``name``."""
        return self._pool_servers.get(name)

    def server_at(self, key: DestinationKey) -> PoolServer | None:
        """The member with this address and port."""
        return self._by_key.get(key)

    def wanted(self) -> tuple[Destination, ...]:
        """Everything that should stand in the table."""
        entries = [self._place(pool_server) for pool_server in self._pool_servers.values()]
        entries.append(self._stand_in())
        return tuple(entry for entry in entries if entry is not None)

    def changes(self) -> dict[DestinationKey, Destination | None]:
        """What of :meth:`wanted` may have changed since the last call; ``None`` is gone."""
        found: dict[DestinationKey, Destination | None] = dict.fromkeys(self._changed)
        for key in found:
            if (pool_server := self._by_key.get(key)) is not None:
                found[key] = self._place(pool_server)
        if self._sorry is not None and self._sorry.key in found:
            found[self._sorry.key] = self._stand_in()
        self._changed.clear()
        return found

    def serves(self, pool_server: PoolServer) -> int:
        """The weight that a member serves with: 0 also while the sorry server stands in."""
        entry = self._place(pool_server)
        return 0 if entry is None else entry.weight

    # --- what happens to it ---------------------------------------------------------------------

    def start(self, at: float, *, quorate: bool = False) -> list[PoolEvent]:
        """Decide on the quorum for the first time; members that were added before publish nothing.

        :param quorate: an earlier run had it, so that it takes no hysteresis to have it again.
        """
        self._started = True
        self.quorate = quorate
        events = self._judge(at)
        if self.quorate is quorate:
            events.append(self._reached(at) if quorate else self._lost(at))
        return events

    def present(self, at: float) -> list[PoolEvent]:
        """The events that a new listener begins with: the servers that are down, and the quorum."""
        events: list[PoolEvent] = [
            ServerDown(virtual_server=self._name, at=at, server=name, reason=pool_server.reason)
            for name, pool_server in self._pool_servers.items()
            if not pool_server.up
        ]
        if not self.quorate:
            return [*events, self._lost(at)]
        return [*events, self._reached(at)]

    def add(
        self, member: Member, failing: Iterable[int], at: float, *, held: bool = False
    ) -> list[PoolEvent]:
        """Take a server in that has another name and key than the others.

        :param failing: the checks that must pass before it is up (``alpha``).
        :param held: it stands in the table, perhaps with connections: it stays there with weight 0
            until a check says that it has failed.
        """
        must_pass = dict.fromkeys(failing, UNKNOWN)
        new = Adopted(failing=must_pass, configured=member.weight, held=held)
        return self.adopt(member, new, at)

    def adopt(self, member: Member, adopted: Adopted, at: float) -> list[PoolEvent]:
        """Take a server in as an earlier run left it; see :meth:`add`."""
        pool_server = self._pool_servers[member.name] = self._by_key[member.key] = PoolServer(
            member, adopted
        )
        self._configured += pool_server.configured
        events: list[PoolEvent] = [
            ServerAdded(virtual_server=self._name, at=at, server=member.name)
        ]
        return self._settle(pool_server, events, at)

    def remove(self, name: str, at: float, *, remaining: int | None = None) -> list[PoolEvent]:
        """Drop a server.

        :param remaining: it was drained, and has so many connections yet.
        """
        pool_server = self._pool_servers.pop(name)
        del self._by_key[pool_server.member.key]
        self._configured -= pool_server.configured
        pool_server.admin_state = ServerState.DRAINING
        events: list[PoolEvent] = []
        if remaining is not None:
            events.append(
                ServerDrained(virtual_server=self._name, at=at, server=name, remaining=remaining)
            )
        events.append(ServerRemoved(virtual_server=self._name, at=at, server=name))
        return self._settle(pool_server, events, at)

    def report(
        self,
        name: str,
        check: int,
        *,
        healthy: bool,
        reason: str = "",
        weight: int | None = None,
        relative: bool = False,
        at: float,
    ) -> list[PoolEvent]:
        """Learn the verdict of one check of a server.

        :param reason: why the check failed; empty if it passed, be it not often enough yet.
        :param weight: the weight that the last check that passed gave, if any.
        :param relative: it is a difference to the configured weight.
        """
        pool_server = self._pool_servers[name]
        check_weight = None if weight is None else (weight, relative)
        was_up, before, was_held = pool_server.up, pool_server.weight, pool_server.held
        known = healthy is (check not in pool_server.failing)
        known = known and check_weight == pool_server.check_weights.get(check)
        if not reason and check in pool_server.unheard:
            known = False
            pool_server.unheard.discard(check)
            if not pool_server.unheard:
                pool_server.table_weight = None
        if healthy:
            pool_server.failing.pop(check, None)
        else:
            pool_server.failing[check] = reason or pool_server.failing.get(check, UNKNOWN)
        pool_server.held = was_held and not pool_server.up and (healthy or not reason)
        if known and pool_server.held is was_held:
            return []
        if check_weight is None:
            pool_server.check_weights.pop(check, None)
        else:
            pool_server.check_weights[check] = check_weight
        events = self._weighed(pool_server, before, at)
        if pool_server.up and not was_up:
            events.append(ServerUp(virtual_server=self._name, at=at, server=name))
        elif was_up and not pool_server.up:
            events.append(
                ServerDown(virtual_server=self._name, at=at, server=name, reason=pool_server.reason)
            )
        return self._settle(pool_server, events, at)

    def set_weight(self, name: str, weight: int, at: float) -> list[PoolEvent]:
        """Give a server another configured weight."""
        pool_server = self._pool_servers[name]
        before = pool_server.weight
        self._configured += weight - pool_server.configured
        pool_server.configured = weight
        pool_server.table_weight = None
        pool_server.unheard.clear()
        return self._settle(pool_server, self._weighed(pool_server, before, at), at)

    def set_admin_state(
        self, name: str, admin_state: ServerState | None, at: float
    ) -> list[PoolEvent]:
        """Send a server no new connections, or let it serve again.

        :param admin_state: DISABLED, DRAINING, or ``None`` for service.
        """
        pool_server = self._pool_servers[name]
        if pool_server.admin_state is admin_state:
            return []
        # Its connections go on whatever its checks say meanwhile: a server that is to stop often
        # fails its checks first. One that is out already has no connections that could go on.
        draining = admin_state is ServerState.DRAINING
        pool_server.kept = draining and self._place(pool_server) is not None
        pool_server.admin_state = admin_state
        kind = _ADMIN_EVENTS[admin_state]
        return self._settle(pool_server, [kind(virtual_server=self._name, at=at, server=name)], at)

    def end(self, at: float) -> list[PoolEvent]:
        """The events of a pool whose servers all fail at once (``omega``)."""
        events: list[PoolEvent] = [
            ServerDown(virtual_server=self._name, at=at, server=name, reason="shutdown")
            for name, pool_server in self._pool_servers.items()
            if pool_server.up
        ]
        if self.quorate:
            events.append(QuorumDown(virtual_server=self._name, at=at, weight=0))
        return events

    # --- how it decides -------------------------------------------------------------------------

    def _weighed(self, pool_server: PoolServer, before: int, at: float) -> list[PoolEvent]:
        if pool_server.weight == before:
            return []
        return [
            WeightChanged(
                virtual_server=self._name,
                at=at,
                server=pool_server.member.name,
                previous=before,
                weight=pool_server.weight,
            )
        ]

    def _settle(
        self, pool_server: PoolServer, events: list[PoolEvent], at: float
    ) -> list[PoolEvent]:
        self._changed[pool_server.member.key] = None
        quorum_weight = pool_server.quorum_weight
        self.weight += quorum_weight - pool_server.counted
        pool_server.counted = quorum_weight
        return events + self._judge(at) if self._started else []

    def _judge(self, at: float) -> list[PoolEvent]:
        events = self._doubt(at)
        if self.quorate:
            if self.weight and self.weight >= self._quorum - self._hysteresis:
                return events
            self.quorate = False
            events.append(self._lost(at))
        else:
            if self.weight < self._quorum + self._hysteresis:
                return events
            self.quorate = True
            events.append(self._reached(at))
        if self._sorry is not None:
            self._changed.update(dict.fromkeys(self._by_key))
            self._changed[self._sorry.key] = None
        return events

    def _reached(self, at: float) -> PoolEvent:
        return QuorumUp(virtual_server=self._name, at=at, weight=self.weight)

    def _lost(self, at: float) -> PoolEvent:
        sorry = None if self._sorry is None else self._sorry.name
        return QuorumDown(virtual_server=self._name, at=at, weight=self.weight, sorry=sorry)

    def _doubt(self, at: float) -> list[PoolEvent]:
        needed = self._quorum + self._hysteresis
        # An empty pool gives no warning: it waits for its first servers.
        short = bool(self._pool_servers) and self._configured < needed
        warned, self._warned = self._warned, short
        if warned or not short:
            return []
        return [
            QuorumUnreachable(
                virtual_server=self._name, at=at, weight=self._configured, needed=needed
            )
        ]

    def _place(self, pool_server: PoolServer) -> Destination | None:
        out = pool_server.failing or (
            self._sorry is not None and not self.quorate and not pool_server.admin_state
        )
        if out:
            stays = pool_server.member.inhibit_on_failure or pool_server.held or pool_server.kept
            return pool_server.member.destination(0) if stays else None
        return pool_server.member.destination(pool_server.quorum_weight)

    def _stand_in(self) -> Destination | None:
        sorry = self._sorry
        if sorry is None:
            return None
        if not self.quorate:
            return sorry.destination(sorry.weight)
        return sorry.destination(0) if self._sorry_inhibit else None
