"""The kernel's routes and rules: additions, removals, and what is there already.

What is ours carries the protocol 112. A route that was there without it and is alike to the last
option is left to serve.
"""

from __future__ import annotations

import errno
import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

from vrrpkit.host.links.records import MARK
from vrrpkit.host.routing import records, requests as routing_requests
from vrrpkit.host.routing.records import Key, RouteRecord
from vrrpkit.linux.netlink import CHUNK, HEADER, REQUEST, Netlink, NetlinkMessage
from vrrpkit.routes.route import Entry, Route, Rule

__all__ = ["GONE", "InPlace", "Leftover", "RouteTable"]

log = logging.getLogger(__name__)

GONE = frozenset({errno.ESRCH, errno.ENOENT, errno.ENODEV})
"""What the kernel says of a route or a rule that is not there to be removed."""

_PROTOCOLS = tuple(number for number in range(256) if number != MARK)

_CONFLICT = "another route has this destination, table and metric; give one of both another metric"


class InPlace(NamedTuple):
    """A route or a rule that is there."""

    protocol: int
    """Another one than :data:`vrrpkit.host.links.records.MARK`: somebody else's, and the very
    same."""


class Leftover(NamedTuple):
    """A route or a rule with our mark."""

    key: Key
    request: bytearray
    """Removes it."""


class RouteTable:
    """Changes and asks, synchronously; knows nothing of who wants what.

    :param index: the index of an interface by name; OSError (ENODEV) when there is none.
    """

    def __init__(self, netlink: Netlink, index: Callable[[str], int]) -> None:
        self._netlink = netlink
        self._index = index
        self._prepared: dict[Entry, tuple[tuple[int, ...], bytearray]] = {}
        self.questions: Netlink | None = None
        """The socket for dumps, while there is one."""

    # --- requests

    def prepare(self, entry: Entry) -> bytearray:
        """The request that adds an entry: encoded once, as long as its interfaces are the same.

        :raises OSError: there is no such interface.
        """
        indexes = self._indexes(entry)
        known = self._prepared.get(entry)
        if known is None or known[0] != indexes:
            known = (indexes, routing_requests.addition(entry, self._index))
            self._prepared[entry] = known
        return known[1]

    def _indexes(self, entry: Entry) -> tuple[int, ...]:
        if isinstance(entry, Rule):
            return ()
        return tuple(self._index(hop.dev) for hop in entry.ways if hop.dev is not None)

    def moved(self, entry: Entry) -> bool:
        """Whether an entry that is in place leads over an interface that has another name now."""
        try:
            return self._indexes(entry) != self._prepared[entry][0]
        except OSError:
            return True

    def there(self, entry: Entry, protocol: int) -> bool:
        """Whether a route that was put in place, or used there, is there still.

        What cannot be told counts as there.
        """
        if isinstance(entry, Rule):
            return True
        if entry.family == 4:
            query = routing_requests.query(self._prepared[entry][1], protocol)
            (answer,) = self.exchange([query])
            return answer is None or answer.errno != errno.ENOENT
        try:
            found = self._ask(entry, protocol=protocol)
            return any(self._same(record, entry) for record, _message in found)
        except OSError:
            return True

    def forget(self, entry: Entry) -> None:
        """Drop what :meth:`prepare` made."""
        self._prepared.pop(entry, None)

    def exchange(self, requests: Sequence[bytearray]) -> list[OSError | None]:
        """Have any number of requests carried out in order; what the kernel answered to each."""
        answers: list[OSError | None] = []
        for start in range(0, len(requests), CHUNK):
            chunk = requests[start : start + CHUNK]
            try:
                answers += self._netlink.exchange(chunk)
            except OSError as problem:
                answers += [problem] * len(chunk)
        return answers

    # --- changes

    def add(
        self, entries: Sequence[Entry], shared: Callable[[Entry], bool]
    ) -> list[InPlace | OSError]:
        """Put entries in place that are not; what became of each.

        :param shared: whether another entry of this process with the same identity is in place, so
            that what the kernel has may be that one.
        """
        outcomes: list[InPlace | OSError | None] = []
        asked: list[tuple[Entry, bytearray]] = []
        rules = self._present_rules(entries)
        for entry in entries:
            outcome = rules.get(records.key_of(entry))
            if outcome is None:
                try:
                    asked.append((entry, self.prepare(entry)))
                except OSError as problem:
                    outcome = problem
            outcomes.append(outcome)
        answers = iter(self._add(asked, shared))
        return [next(answers) if outcome is None else outcome for outcome in outcomes]

    def _add(
        self, asked: Sequence[tuple[Entry, bytearray]], shared: Callable[[Entry], bool]
    ) -> Iterator[InPlace | OSError]:
        answers = self.exchange([request for _entry, request in asked])
        for (entry, request), answer in zip(asked, answers, strict=True):
            if answer is None:
                yield InPlace(MARK)
            elif answer.errno != errno.EEXIST:
                yield answer
            elif isinstance(entry, Rule):
                yield InPlace(MARK)
            elif entry.family == 4:
                yield self._meet_4(request)
            else:
                yield self._meet_6(entry, request, shared(entry))

    def _present_rules(self, entries: Sequence[Entry]) -> dict[Key, InPlace | OSError]:
        """The rules that are there; ours before others'."""
        present: dict[Key, InPlace | OSError] = {}
        for family in {entry.family for entry in entries if isinstance(entry, Rule)}:
            body = records.rule_question(family)
            for message in self._dump(records.RTM_GETRULE, body):
                rule = records.parse_rule(message.payload)
                if rule is not None and (rule[1] == MARK or rule[0] not in present):
                    present[rule[0]] = InPlace(rule[1])
        return present

    def _meet_4(self, request: bytearray) -> InPlace | OSError:
        """The identity of an IPv4 route is taken: by the very same?"""
        # To ask costs 8 us for a protocol; a dump may bring a million routes.
        for protocols in ((MARK,), _PROTOCOLS):
            queries = [routing_requests.query(request, protocol) for protocol in protocols]
            for protocol, answer in zip(protocols, self.exchange(queries), strict=True):
                if answer is not None and answer.errno == errno.EEXIST:
                    return InPlace(protocol)
        # Another way for the same destination: ours goes in front until it is removed.
        (answer,) = self.exchange([routing_requests.beside(request)])
        return answer or InPlace(MARK)

    def _meet_6(self, route: Route, request: bytearray, shared: bool) -> InPlace | OSError:
        ours = self._ask(route, protocol=MARK)
        if any(self._same(record, route) for record, _message in ours):
            return InPlace(MARK)
        if ours and not shared:
            # One of its ways went with an interface.
            stale = [_removal(message) for _record, message in ours]
            return self.exchange([*stale, request])[-1] or InPlace(MARK)
        for record, _message in self._ask(route, index=self._only_device(route)):
            if self._same(record, route):
                return InPlace(record.protocol)
        # What was in the way may have gone before the look at it.
        (answer,) = self.exchange([request])
        if answer is not None and answer.errno == errno.EEXIST:
            return OSError(errno.EEXIST, _CONFLICT)
        return answer or InPlace(MARK)

    def _only_device(self, route: Route) -> int:
        names = {hop.dev for hop in route.ways}
        name = names.pop() if len(names) == 1 else None
        return 0 if name is None else self._index(name)

    def _same(self, record: RouteRecord, route: Route) -> bool:
        """Whether what the kernel has is what was asked for."""
        if record.type != routing_requests.TYPES[route.type] or record.mtu != (route.mtu or 0):
            return False
        if record.src != (b"" if route.src is None else route.src.packed):
            return False
        if route.type != "unicast":
            return True
        have = list(record.hops)
        for hop in route.ways:
            via = b"" if hop.via is None else hop.via.packed
            index = None if hop.dev is None else self._index(hop.dev)
            for other in have:
                if (other.via, other.weight) == (via, hop.weight) and index in (
                    None,
                    other.ifindex,
                ):
                    have.remove(other)
                    break
            else:
                return False
        return not have

    def remove(self, entries: Sequence[Entry]) -> None:
        """Remove entries that :meth:`add` has put in place."""
        known = [(entry, self._prepared[entry][1]) for entry in entries if entry in self._prepared]
        requests = [routing_requests.removal(request) for _entry, request in known]
        for (entry, _request), problem in zip(known, self.exchange(requests), strict=True):
            if problem is not None and problem.errno not in GONE:
                log.warning("the kernel kept %s: %s", entry.described, problem)

    # --- questions

    def _dump(self, kind: int, body: bytes) -> list[NetlinkMessage]:
        assert self.questions is not None, "nobody holds routes"
        return self.questions.dump(kind, body)

    def _ask(
        self, route: Route, *, protocol: int = 0, index: int = 0
    ) -> list[tuple[RouteRecord, NetlinkMessage]]:
        """What the kernel has of the identity of a route."""
        key = records.key_of(route)
        body = records.route_question(
            route.family, table=route.table, protocol=protocol, index=index
        )
        found: list[tuple[RouteRecord, NetlinkMessage]] = []
        for message in self._dump(records.RTM_GETROUTE, body):
            record = records.parse_route(message.payload)
            # Before Linux 4.20 the kernel does not heed what was asked for.
            if record is not None and record.key == key and protocol in (0, record.protocol):
                found.append((record, message))
        return found

    def marked(self) -> list[Leftover]:
        """Everything that carries our mark: rules, then routes, as it is to be removed."""
        return [*self._marked_rules(), *self._marked_routes()]

    def _marked_rules(self) -> Iterable[Leftover]:
        for family in (4, 6):
            body = records.rule_question(family)
            for message in self._dump(records.RTM_GETRULE, body):
                rule = records.parse_rule(message.payload)
                if rule is not None and rule[1] == MARK:
                    yield Leftover(rule[0], _removal(message))

    def _marked_routes(self) -> Iterable[Leftover]:
        for family in (4, 6):
            body = records.route_question(family, protocol=MARK)
            for message in self._dump(records.RTM_GETROUTE, body):
                record = records.parse_route(message.payload)
                if record is not None and record.protocol == MARK:
                    yield Leftover(record.key, _removal(message))


def _removal(message: NetlinkMessage) -> bytearray:
    """Removes what a dump has told, as ``ip route flush`` does."""
    route = message.kind == records.RTM_NEWROUTE
    kind = records.RTM_DELROUTE if route else records.RTM_DELRULE
    size = HEADER.size + len(message.payload)
    return bytearray(HEADER.pack(size, kind, REQUEST, 0, 0) + message.payload)
