"""What has become of the routes and rules that are wanted in one network namespace: the books of
:class:`vrrpkit.host.routing.reconciler.Routing`, which knows the kernel."""

from __future__ import annotations

import enum
from collections.abc import Sequence

import attrs

from vrrpkit.host.links.records import MARK
from vrrpkit.host.routing.records import Key, RouteKey, RouteRecord, key_of
from vrrpkit.routes.route import Entry, Rule

__all__ = ["Item", "Items", "RouteState"]


class RouteState(enum.Enum):
    """Of one route or rule that is wanted."""

    IN_PLACE = enum.auto()
    WAITING = enum.auto()
    """It went with its interface, and comes back with that."""
    LOST = enum.auto()
    """Somebody else removed it, and its holders are to hear of it."""
    GONE = enum.auto()
    """They have heard."""


@attrs.define(eq=False)
class Item:
    """One route or rule that is wanted."""

    entry: Entry
    key: Key
    protocol: int
    """Another one than ours: somebody else's, used in place and never removed."""
    state: RouteState = RouteState.IN_PLACE
    devices: set[int] = attrs.field(factory=set[int])
    """Indexes of the interfaces that it leads over, as far as the kernel has told."""

    def note(self, *, there: bool) -> None:
        """Learn that it came or went, whoever did that."""
        if there and self.state is RouteState.LOST:
            self.state = RouteState.IN_PLACE
        elif not there and self.state is RouteState.IN_PLACE:
            self.state = RouteState.LOST

    def fits(self, record: RouteRecord) -> bool:
        """Whether what the kernel tells of a route with its key may be about this one."""
        if isinstance(self.entry, Rule) or self.protocol != record.protocol:
            return False
        # In IPv4, two of ours may differ in their ways only. A blackhole leads nowhere, which the
        # kernel may express as a way.
        ways = {b"" if hop.via is None else hop.via.packed for hop in self.entry.ways}
        return not ways or ways.issuperset(hop.via for hop in record.hops)

    def concerns(self, index: int) -> bool:
        """Whether it may go when the interface of that index goes."""
        if isinstance(self.entry, Rule) or self.entry.type != "unicast":
            return False
        return not self.devices or index in self.devices


class Items:
    """All of them, by entry and by key."""

    def __init__(self) -> None:
        self._items: dict[Entry, Item] = {}
        self._by_key: dict[Key, list[Item]] = {}

    def get(self, entry: Entry) -> Item | None:
        """The item of an entry, if it was ever in place."""
        return self._items.get(entry)

    def alike(self, key: Key) -> Sequence[Item]:
        """Those of one key."""
        return self._by_key.get(key, ())

    def within(self, state: RouteState) -> list[Item]:
        """Those in one state."""
        return [item for item in self._items.values() if item.state is state]

    def ours(self) -> list[Item]:
        """Those that carry our mark."""
        return [item for item in self._items.values() if item.protocol == MARK]

    def shared(self, entry: Entry) -> bool:
        """Whether another entry has the same key."""
        return any(item.entry != entry for item in self.alike(key_of(entry)))

    def put(self, entry: Entry, protocol: int) -> bool:
        """Learn that an entry is in place; whether it had been waiting."""
        item = self._items.get(entry)
        if item is None:
            item = self._items[entry] = Item(entry, key_of(entry), protocol)
            self._by_key.setdefault(item.key, []).append(item)
        waited = item.state is RouteState.WAITING
        item.state, item.protocol = RouteState.IN_PLACE, protocol
        return waited

    def pop(self, entry: Entry) -> Item | None:
        """Forget an entry."""
        item = self._items.pop(entry, None)
        if item is not None:
            alike = self._by_key[item.key]
            alike.remove(item)
            if not alike:
                del self._by_key[item.key]
        return item

    @property
    def protocols(self) -> frozenset[int]:
        """Those of all routes and rules, and ours."""
        return frozenset({MARK, *(item.protocol for item in self._items.values())})

    @property
    def lengths(self) -> frozenset[int]:
        """The prefix lengths of all routes."""
        return frozenset(key.prefix for key in self._by_key if isinstance(key, RouteKey))
