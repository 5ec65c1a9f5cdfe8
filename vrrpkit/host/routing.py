"""The routes and rules that virtual routers want in one network namespace: put in place in order,
watched, and taken away. Nothing here waits: a route is there, or is refused, when a call returns.

Only while somebody holds routes are there sockets for them, and the kernel filters their notices,
so that a router with a million routes of others pays nothing for those.
"""

from __future__ import annotations

import asyncio
import contextlib
import enum
import errno
import logging
from collections import Counter
from collections.abc import Callable, Iterable, Sequence

import attrs

from vrrpkit.errors import Closed, KernelRefused
from vrrpkit.host import route_notices
from vrrpkit.host.base import RouteHold
from vrrpkit.host.deadlines import Deadlines
from vrrpkit.host.leftovers import SETTLE, Liveness
from vrrpkit.host.monitor import LinkMonitor
from vrrpkit.host.netlink import Message, Netlink, Overrun, Subscription
from vrrpkit.host.netns import Namespace
from vrrpkit.host.notices import MARK
from vrrpkit.host.route_notices import Key, RouteRecord
from vrrpkit.host.route_table import GONE, Leftover, RouteTable
from vrrpkit.host.routes import Entry, Route, Rule

__all__ = ["RETRY", "Routing"]

log = logging.getLogger(__name__)

READS = 1024
"""Datagrams read in one go."""

RETRY = 1.0
"""Seconds between two tries to put a route back whose interface was down."""


class _State(enum.Enum):
    IN_PLACE = enum.auto()
    WAITING = enum.auto()
    """The kernel dropped it with its interface; it comes back with that."""
    LOST = enum.auto()
    """Somebody else removed it, and its holders are to hear of it."""
    GONE = enum.auto()
    """They have heard."""


@attrs.define(eq=False)
class _Item:
    """One route or rule that is wanted."""

    entry: Entry
    key: Key
    protocol: int
    """Another one than ours: somebody else's, used in place and never removed."""
    state: _State = _State.IN_PLACE
    devices: set[int] = attrs.field(factory=set[int])
    """Indexes of the interfaces that it leads over, as far as the kernel has told."""

    def concerns(self, index: int) -> bool:
        """Whether it may go when the interface of that index goes."""
        if isinstance(self.entry, Rule) or self.entry.type != "unicast":
            return False
        return not self.devices or index in self.devices


class Hold(RouteHold):
    """The routes and rules of one virtual router; made by :meth:`Routing.hold`."""

    def __init__(
        self,
        routing: Routing,
        routes: Sequence[Route],
        rules: Sequence[Rule],
        lost: Callable[[Entry], None],
    ) -> None:
        self.routes = tuple(routes)
        self.rules = tuple(rules)
        self.entries: frozenset[Entry] = frozenset((*routes, *rules))
        self.lost = lost
        self.wanted = False
        self._routing = routing

    def acquire(self) -> list[tuple[Entry, OSError]]:
        return self._routing.acquire(self)

    @property
    def missing(self) -> list[Entry]:
        entries: list[Entry] = [*self.routes, *self.rules]
        return [entry for entry in entries if not self._routing.in_place(entry)]

    def release(self) -> None:
        self._routing.release(self)

    def close(self) -> None:
        self._routing.forget(self)


@attrs.frozen(eq=False)
class _Opened:
    """What there is while somebody holds routes."""

    subscription: Subscription
    questions: Netlink
    loop: asyncio.AbstractEventLoop


class Routing:
    """The only one who changes routes and rules in one network namespace.

    :param netlink: for requests.
    :param monitor: knows the interfaces by name.
    """

    def __init__(
        self,
        namespace: Namespace,
        netlink: Netlink,
        monitor: LinkMonitor,
        deadlines: Deadlines,
        liveness: Liveness,
    ) -> None:
        self._namespace = namespace
        self._monitor = monitor
        self._deadlines = deadlines
        self._liveness = liveness
        self._table = RouteTable(netlink, self._index)
        self._opened: _Opened | None = None
        self._heeded: frozenset[int] = frozenset()
        self._holds: dict[Hold, None] = {}
        self._wanting: Counter[Entry] = Counter()
        self._items: dict[Entry, _Item] = {}
        self._by_key: dict[Key, list[_Item]] = {}
        self._leftovers: list[Leftover] = []
        self._sweep = deadlines.new(self._remove_leftovers)
        self._retrial = deadlines.new(self._retry)

    def _index(self, name: str) -> int:
        record = self._monitor.record(name)
        if record is None:
            raise OSError(errno.ENODEV, f"there is no network interface {name}")
        return record.ifindex

    # --- holds

    def hold(
        self, routes: Sequence[Route], rules: Sequence[Rule], lost: Callable[[Entry], None]
    ) -> RouteHold:
        """Make a hold (see :meth:`vrrpkit.host.base.Interface.hold_routes`).

        :raises KernelRefused: a leftover could not be removed.
        """
        hold = Hold(self, routes, rules, lost)
        if self._opened is None:
            self._open()
        self._holds[hold] = None
        try:
            self._claim(hold.entries)
        except BaseException:
            self.forget(hold)
            raise
        for entry in hold.entries:
            # Encoded now, so that a takeover has only to send it.
            with contextlib.suppress(OSError):
                self._table.prepare(entry)
        return hold

    def acquire(self, hold: Hold) -> list[tuple[Entry, OSError]]:
        """Put the routes and rules of a hold in place; what the kernel refused.

        :raises Closed: the hold was closed.
        """
        if hold not in self._holds:
            raise Closed("the routes were given back; make a new hold")
        if not hold.wanted:
            hold.wanted = True
            self._wanting.update(hold.entries)
        self._take_notices()
        failures = self._place(hold.routes) + self._place(hold.rules)
        self._learn()
        if self._opened is not None and self._in(_State.LOST):
            self._opened.loop.call_soon(self._tell)
        return failures

    def in_place(self, entry: Entry) -> bool:
        """Whether a route or a rule that is wanted is there, as far as the kernel has told."""
        item = self._items.get(entry)
        return item is not None and item.state is _State.IN_PLACE

    def release(self, hold: Hold) -> None:
        """Remove the rules and the routes of a hold that nobody else wants."""
        if not hold.wanted:
            return
        hold.wanted = False
        self._wanting.subtract(hold.entries)
        self._remove(hold.rules)
        self._remove(hold.routes)
        # Without those at zero.
        self._wanting = +self._wanting

    def forget(self, hold: Hold) -> None:
        """Release a hold for good; the last one closes the sockets."""
        self.release(hold)
        self._holds.pop(hold, None)
        for entry in hold.entries.difference(*(other.entries for other in self._holds)):
            self._table.forget(entry)
        if not self._holds:
            self._close()

    def close(self) -> None:
        """Forget every hold."""
        for hold in list(self._holds):
            self.forget(hold)

    # --- sockets

    def _open(self) -> None:
        with contextlib.ExitStack() as stack:
            subscription = Subscription(self._namespace, route_notices.GROUPS)
            stack.callback(subscription.close)
            questions = Netlink(self._namespace, strict=True)
            stack.callback(questions.close)
            opened = _Opened(subscription, questions, asyncio.get_running_loop())
            self._opened, self._heeded = opened, frozenset()
            self._heed()
            self._table.questions = questions
            self._leftovers = self._table.marked()
            opened.loop.add_reader(subscription.fileno(), self._readable)
            stack.pop_all()
        if self._leftovers:
            self._sweep.set(self._deadlines.now() + SETTLE)

    def _close(self) -> None:
        opened, self._opened = self._opened, None
        self._table.questions = None
        self._sweep.set(None)
        self._retrial.set(None)
        self._leftovers = []
        if opened is not None:
            opened.loop.remove_reader(opened.subscription.fileno())
            opened.subscription.close()
            opened.questions.close()

    def _heed(self) -> None:
        """Hear of routes that are ours, or are used in place."""
        protocols = frozenset({MARK, *(item.protocol for item in self._items.values())})
        if self._opened is not None and protocols != self._heeded:
            self._opened.subscription.heed(route_notices.notice_filter(protocols))
            self._heeded = protocols

    # --- changes

    def _in(self, state: _State) -> list[_Item]:
        return [item for item in self._items.values() if item.state is state]

    def _place(self, entries: Sequence[Entry]) -> list[tuple[Entry, OSError]]:
        failures: list[tuple[Entry, OSError]] = []
        outcomes = self._table.add(entries, self._shared)
        for entry, outcome in zip(entries, outcomes, strict=True):
            item = self._items.get(entry)
            if not isinstance(outcome, OSError):
                self._settled(entry, item, outcome.protocol)
            elif item is None or item.state is not _State.WAITING:
                failures.append((entry, outcome))
        return failures

    def _settled(self, entry: Entry, item: _Item | None, protocol: int) -> None:
        if item is None:
            item = self._items[entry] = _Item(entry, route_notices.key_of(entry), protocol)
            self._by_key.setdefault(item.key, []).append(item)
        elif item.state is _State.WAITING:
            log.info("%s is back", entry.described)
        item.state, item.protocol = _State.IN_PLACE, protocol

    def _shared(self, entry: Entry) -> bool:
        """Whether another entry in place has the same identity."""
        alike = self._by_key.get(route_notices.key_of(entry), ())
        return any(item.entry != entry for item in alike)

    def _remove(self, entries: Sequence[Entry]) -> None:
        """Remove what nobody wants any more."""
        doomed: list[Entry] = []
        for entry in reversed(entries):
            item = None if self._wanting[entry] else self._items.pop(entry, None)
            if item is None:
                continue
            self._by_key[item.key].remove(item)
            if not self._by_key[item.key]:
                del self._by_key[item.key]
            if item.protocol == MARK:
                doomed.append(entry)
        self._table.remove(doomed)

    def _learn(self) -> None:
        """Take in the notices of what was done here: they tell which way the routes lead."""
        self._take_notices()
        self._heed()

    # --- what the kernel says

    def _readable(self) -> None:
        # Links and addresses first: that an interface is down explains why a route went.
        self._monitor.drain()
        if self._take_notices():
            self._retry()
        self._tell()

    def _take_notices(self) -> bool:
        """Take in what waits; whether an interface came up that routes may wait for."""
        risen = False
        if self._opened is None:
            return risen
        subscription = self._opened.subscription
        try:
            for _read in range(READS):
                messages = subscription.read()
                if not messages:
                    break
                for message in messages:
                    risen = self._take(message) or risen
        except Overrun:
            log.warning("notices of the kernel about routes were lost: looking at all of them")
            subscription.discard()
            self._look()
        return risen

    def _take(self, message: Message) -> bool:
        kind, payload = message.kind, message.payload
        if kind in (route_notices.RTM_NEWROUTE, route_notices.RTM_DELROUTE):
            record = route_notices.parse_route(payload)
            if record is not None:
                self._take_route(record, kind == route_notices.RTM_NEWROUTE)
        elif kind in (route_notices.RTM_NEWRULE, route_notices.RTM_DELRULE):
            rule = route_notices.parse_rule(payload)
            for item in () if rule is None else self._by_key.get(rule[0], ()):
                if rule is not None and item.protocol == rule[1]:
                    _note(item, there=kind == route_notices.RTM_NEWRULE)
        else:
            return self._take_link(*route_notices.parse_link_notice(kind, payload))
        return False

    def _take_route(self, record: RouteRecord, there: bool) -> None:
        for item in self._by_key.get(record.key, ()):
            assert isinstance(item.entry, Route)
            ways = {b"" if hop.via is None else hop.via.packed for hop in item.entry.ways}
            # In IPv4, two of ours may differ in their ways only. A blackhole leads nowhere, which
            # the kernel may express as a way.
            fits = not ways or ways.issuperset(hop.via for hop in record.hops)
            if fits and item.protocol == record.protocol:
                if there:
                    item.devices |= record.devices
                _note(item, there=there)

    def _take_link(self, index: int, up: bool) -> bool:
        if not up:
            # In IPv4 the kernel says nothing of the routes that go with it.
            for item in self._in(_State.IN_PLACE):
                if item.concerns(index):
                    item.state = _State.WAITING
        if not self._in(_State.WAITING):
            return False
        if self._retrial.when is None:
            self._retrial.set(self._deadlines.now() + RETRY)
        return up

    def _retry(self) -> None:
        """Put back what went with its interface, as far as it can be."""
        self._retrial.set(None)
        self._place([item.entry for item in self._in(_State.WAITING)])
        self._learn()
        if self._in(_State.WAITING):
            self._retrial.set(self._deadlines.now() + RETRY)

    def _look(self) -> None:
        """Find out what is lost without having been told."""
        there = {leftover.key for leftover in self._table.marked()}
        for item in self._items.values():
            if item.protocol == MARK:
                _note(item, there=item.key in there)

    def _tell(self) -> None:
        lost = self._in(_State.LOST)
        for item in lost:
            item.state = _State.GONE
        for item in lost:
            for hold in list(self._holds):
                if hold.wanted and item.entry in hold.entries:
                    try:
                        hold.lost(item.entry)
                    except Exception:
                        # One virtual router's bug must not take the routes of the others down.
                        log.exception("a listener failed in %s", hold.lost)

    # --- leftovers (see leftovers.py)

    def _claim(self, entries: Iterable[Entry]) -> None:
        """Remove what an earlier run with the same configuration left behind."""
        keys = {route_notices.key_of(entry) for entry in entries} - self._by_key.keys()
        mine = [leftover for leftover in self._leftovers if leftover.key in keys]
        self._leftovers = [leftover for leftover in self._leftovers if leftover.key not in keys]
        answers = self._table.exchange([leftover.request for leftover in mine])
        for (key, _request), problem in zip(mine, answers, strict=True):
            log.info("removing %s, which an earlier run left behind", key)
            if problem is not None and problem.errno not in GONE:
                raise KernelRefused(
                    problem.errno,
                    f"{key} is left from an earlier run and cannot be removed: {problem.strerror}",
                )

    def _remove_leftovers(self) -> None:
        doomed = [leftover for leftover in self._leftovers if leftover.key not in self._by_key]
        self._leftovers = []
        if not doomed:
            return
        if not self._liveness.alone():
            log.info("routes may be another process's: none is removed")
            return
        names = ", ".join(str(leftover.key) for leftover in doomed)
        log.warning("removing %s, left behind by a run that was killed", names)
        for problem in self._table.exchange([leftover.request for leftover in doomed]):
            if problem is not None and problem.errno not in GONE:
                log.warning("%s: %s", names, problem)


def _note(item: _Item, *, there: bool) -> None:
    if there and item.state is _State.LOST:
        item.state = _State.IN_PLACE
    elif not there and item.state is _State.IN_PLACE:
        item.state = _State.LOST
