"""Simulated connections through a service of an IPVS table in memory."""

from __future__ import annotations

from ipaddress import ip_network

import attrs

from vrrpkit.ipvs.model.endpoints import takes_every_port
from vrrpkit.ipvs.model.entries import (
    Destination,
    DestinationEntry,
    DestinationKey,
    Protocol,
    Service,
    TrafficCounters,
)
from vrrpkit.values import IPAddress

__all__ = ["Traffic"]

Pool = dict[DestinationKey, DestinationEntry]


@attrs.frozen
class _Template:
    server: DestinationKey
    until: float


class Traffic:
    """The connections of one service: who gets the next one, and why not."""

    def __init__(self) -> None:
        self.counters = TrafficCounters()
        self._turns: dict[DestinationKey, int] = {}
        self._templates: dict[str, _Template] = {}
        self._overloaded: set[DestinationKey] = set()

    def connect(
        self, service: Service, pool: Pool, client: IPAddress, now: float
    ) -> DestinationKey | None:
        """The real server for one more connection, ``None`` if there is none."""
        self.expire(pool, now)
        if service.persistence is None:
            # The kernel has such a service in its table, and schedules nothing by it.
            if takes_every_port(service.key):
                return None
            key = self._choose(service, pool)
        else:
            key = self._sticky(service, pool, client, now)
        if key is None:
            return None
        self._count(service, pool, key)
        return key

    def weigh(self, entry: DestinationEntry) -> None:
        """See whether a real server has reached its upper threshold, or fallen below the lower."""
        destination = entry.destination
        total = entry.active + entry.inactive
        if destination.upper and total >= destination.upper:
            self._overloaded.add(destination.key)
        elif total < (destination.lower or destination.upper * 3 / 4) or not destination.upper:
            self._overloaded.discard(destination.key)

    def limits_changed(self, before: Destination, after: Destination) -> None:
        """Follow an edit: a raised threshold lets connections in at once, a lowered one shuts
        them out with the next connection that comes or goes."""
        if not after.upper or after.upper > before.upper:
            self._overloaded.discard(after.key)

    def forget(self, key: DestinationKey) -> None:
        """A real server is gone."""
        self._turns.pop(key, None)
        self._overloaded.discard(key)
        self._templates = {
            who: template for who, template in self._templates.items() if template.server != key
        }

    def expire(self, pool: Pool, now: float) -> None:
        """Drop persistence templates whose time is up."""
        over = [who for who, template in self._templates.items() if template.until <= now]
        for who in over:
            self._recount(pool, self._templates.pop(who).server, -1)

    def _sticky(
        self, service: Service, pool: Pool, client: IPAddress, now: float
    ) -> DestinationKey | None:
        prefix = client.max_prefixlen if service.granularity is None else service.granularity
        who = str(ip_network(f"{client}/{prefix}", strict=False))
        template = self._templates.get(who)
        if template is None:
            key = self._choose(service, pool)
            if key is None:
                return None
            self._recount(pool, key, 1)
        else:
            # Also one whose weight is 0 by now: clients that it has stay with it.
            key = template.server
        self._templates[who] = _Template(key, now + (service.persistence or 0))
        return key

    def _choose(self, service: Service, pool: Pool) -> DestinationKey | None:
        ready = {
            key: entry.destination.weight
            for key, entry in pool.items()
            if entry.destination.weight and key not in self._overloaded
        }
        if not ready:
            return None
        if service.scheduler in ("rr", "lc"):
            ready = dict.fromkeys(ready, 1)
        if service.scheduler in ("rr", "wrr"):
            return self._by_turns(ready)

        def load(key: DestinationKey) -> float:
            entry = pool[key]
            return (entry.active + entry.inactive + 1) / ready[key]

        return min(ready, key=load)

    def _by_turns(self, ready: dict[DestinationKey, int]) -> DestinationKey:
        # Each server saves its weight; the richest is chosen and pays for the round.
        for key, weight in ready.items():
            self._turns[key] = self._turns.get(key, 0) + weight
        chosen = max(ready, key=self._turns.__getitem__)
        self._turns[chosen] -= sum(ready.values())
        return chosen

    def _count(self, service: Service, pool: Pool, key: DestinationKey) -> None:
        entry = pool[key]
        udp = service.key.protocol is Protocol.UDP
        # What is scheduled packet by packet is no connection, and UDP knows no established one.
        held = not (udp and service.one_packet)
        entry = attrs.evolve(
            entry,
            active=entry.active + (held and not udp),
            inactive=entry.inactive + (held and udp),
            counters=_one_more(entry.counters),
        )
        pool[key] = entry
        self.weigh(entry)
        self.counters = _one_more(self.counters)

    def _recount(self, pool: Pool, key: DestinationKey, change: int) -> None:
        pool[key] = attrs.evolve(pool[key], persistent=pool[key].persistent + change)


def _one_more(counters: TrafficCounters) -> TrafficCounters:
    return attrs.evolve(counters, connections=counters.connections + 1)
