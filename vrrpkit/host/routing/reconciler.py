"""The routes and rules that virtual routers want in one network namespace: put in place in order,
watched, and taken away. Nothing here waits: a route is there, or is refused, when a call returns.

Only while somebody holds routes are there sockets for them, and the kernel filters their notices,
so that a router with a million routes of others pays nothing for those.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
from collections import Counter
from collections.abc import Callable, Sequence

import attrs

from vrrpkit.errors import Closed
from vrrpkit.host.base import RouteClaim
from vrrpkit.host.links.monitor import LinkMonitor
from vrrpkit.host.links.records import MARK
from vrrpkit.host.liveness import Liveness
from vrrpkit.host.routing import records
from vrrpkit.host.routing.kernel import RouteTable
from vrrpkit.host.routing.leftovers import RouteLeftovers
from vrrpkit.host.routing.records import NLM_F_REPLACE, RouteRecord
from vrrpkit.host.routing.tracked import Item, Items, RouteState
from vrrpkit.lifecycle.callbacks import contain
from vrrpkit.linux.netlink import Netlink, NetlinkMessage, Overrun, Subscription
from vrrpkit.linux.netns import Namespace
from vrrpkit.routes.route import Entry, Route, Rule
from vrrpkit.timers import Deadlines

__all__ = ["RETRY", "Routing"]

log = logging.getLogger(__name__)

REMOVED = (records.RTM_DELROUTE, records.RTM_DELRULE)

READS = 1024
"""Datagrams read in one go."""

RETRY = 1.0
"""Seconds between two tries to put a route back whose interface was down, and between two to read
the routes after notices were lost."""


class NamespaceRouteClaim(RouteClaim):
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
class _OpenedNamespace:
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
        self._port = netlink.port
        self._monitor = monitor
        self._deadlines = deadlines
        self._table = RouteTable(netlink, self._index)
        self._opened: _OpenedNamespace | None = None
        self._heeded: tuple[frozenset[int], frozenset[int]] | None = None
        self._holds: dict[NamespaceRouteClaim, None] = {}
        self._wanting: Counter[Entry] = Counter()
        self._items = Items()
        self._leftovers = RouteLeftovers(
            self._table, deadlines, liveness, lambda key: bool(self._items.alike(key))
        )
        self._swept = False
        self._retrial = deadlines.new(self._retry)
        self._rereading = deadlines.new(self._reread)
        self._links_changed = False
        self._losses: dict[Item, Sequence[NamespaceRouteClaim]] = {}

    def _index(self, name: str) -> int:
        record = self._monitor.record(name)
        if record is None:
            raise OSError(errno.ENODEV, f"there is no network interface {name}")
        return record.ifindex

    # --- holds

    def hold(
        self, routes: Sequence[Route], rules: Sequence[Rule], lost: Callable[[Entry], None]
    ) -> RouteClaim:
        """Make a hold (see :meth:`vrrpkit.host.base.Interface.hold_routes`).

        :raises KernelRefused: a leftover could not be removed.
        """
        hold = NamespaceRouteClaim(self, routes, rules, lost)
        if self._opened is None:
            self._open()
        self._holds[hold] = None
        try:
            keys = {records.key_of(entry) for entry in hold.entries}
            self._leftovers.claim({key for key in keys if not self._items.alike(key)})
        except BaseException:
            self.forget(hold)
            raise
        for entry in hold.entries:
            # Encoded now, so that a takeover has only to send it.
            with contextlib.suppress(OSError):
                self._table.prepare(entry)
        return hold

    def acquire(self, hold: NamespaceRouteClaim) -> list[tuple[Entry, OSError]]:
        """Put the routes and rules of a hold in place; what the kernel refused.

        :raises Closed: the hold was closed.
        """
        if hold not in self._holds:
            raise Closed("the routes were given back; make a new hold")
        # First, for what was lost before concerns those who had it.
        self._take_notices()
        if not hold.wanted:
            hold.wanted = True
            self._wanting.update(hold.entries)
        failures = self._place(hold.routes) + self._place(hold.rules)
        self._learn()
        if self._opened is not None and (self._losses or self._links_changed):
            self._opened.loop.call_soon(self._readable)
        return failures

    def in_place(self, entry: Entry) -> bool:
        """Whether a route or a rule that is wanted is there, as far as the kernel has told."""
        item = self._items.get(entry)
        return item is not None and item.state is RouteState.IN_PLACE

    def release(self, hold: NamespaceRouteClaim) -> None:
        """Remove the rules and the routes of a hold that nobody else wants."""
        if not hold.wanted:
            return
        hold.wanted = False
        self._wanting.subtract(hold.entries)
        self._remove(hold.rules)
        self._remove(hold.routes)
        # Without those at zero.
        self._wanting = +self._wanting

    def forget(self, hold: NamespaceRouteClaim) -> None:
        """Release a hold for good; the last one closes the sockets."""
        self.release(hold)
        self._holds.pop(hold, None)
        for entry in hold.entries.difference(*(other.entries for other in self._holds)):
            self._table.forget(entry)
        if not self._holds:
            self._close()

    def sweep(self) -> None:
        """Have what a killed run left behind removed, unless that was begun: for a program that
        holds no routes itself."""
        if self._swept or self._opened is not None:
            return
        self._swept = True
        with contextlib.closing(Netlink(self._namespace, strict=True)) as questions:
            self._table.questions = questions
            try:
                self._leftovers.note()
            finally:
                self._table.questions = None

    def close(self) -> None:
        """Forget every hold."""
        for hold in list(self._holds):
            self.forget(hold)
        self._leftovers.close()

    # --- sockets

    def _open(self) -> None:
        with contextlib.ExitStack() as stack:
            subscription = Subscription(self._namespace, records.GROUPS)
            stack.callback(subscription.close)
            questions = Netlink(self._namespace, strict=True)
            stack.callback(questions.close)
            opened = _OpenedNamespace(subscription, questions, asyncio.get_running_loop())
            self._opened, self._heeded = opened, None
            self._heed()
            self._table.questions = questions
            self._leftovers.note()
            opened.loop.add_reader(subscription.fileno(), self._readable)
            stack.pop_all()

    def _close(self) -> None:
        opened, self._opened = self._opened, None
        self._table.questions = None
        self._retrial.set(None)
        self._rereading.set(None)
        if opened is not None:
            opened.loop.remove_reader(opened.subscription.fileno())
            opened.subscription.close()
            opened.questions.close()

    def _heed(self) -> None:
        """Hear of routes that are ours, or are used in place, and of what may replace one."""
        heeded = (self._items.protocols, self._items.lengths)
        if self._opened is not None and heeded != self._heeded:
            self._opened.subscription.heed(records.notice_filter(*heeded))
            self._heeded = heeded

    # --- changes

    def _place(self, entries: Sequence[Entry]) -> list[tuple[Entry, OSError]]:
        failures: list[tuple[Entry, OSError]] = []
        outcomes = self._table.add(entries, self._items.shared)
        for entry, outcome in zip(entries, outcomes, strict=True):
            if not isinstance(outcome, OSError):
                if self._items.put(entry, outcome.protocol):
                    log.info("%s is back", entry.described)
                continue
            item = self._items.get(entry)
            if item is None or item.state is not RouteState.WAITING:
                failures.append((entry, outcome))
        return failures

    def _remove(self, entries: Sequence[Entry]) -> None:
        """Remove what nobody wants any more."""
        doomed: list[Entry] = []
        for entry in reversed(entries):
            item = None if self._wanting[entry] else self._items.pop(entry)
            if item is not None and item.protocol == MARK:
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
        risen = self._take_notices()
        moved = self._leave_renamed()
        if risen or moved:
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

    def _take(self, message: NetlinkMessage) -> bool:
        kind, payload = message.kind, message.payload
        if kind in REMOVED and message.port == self._port:
            # By ourselves, and perhaps put back since.
            return False
        if kind in (records.RTM_NEWROUTE, records.RTM_DELROUTE):
            record = records.parse_route(payload)
            if record is not None and message.flags & NLM_F_REPLACE:
                self._take_replacement(record)
            elif record is not None:
                self._take_route(record, kind == records.RTM_NEWROUTE)
        elif kind in (records.RTM_NEWRULE, records.RTM_DELRULE):
            rule = records.parse_rule(payload)
            for item in () if rule is None else self._items.alike(rule[0]):
                if rule is not None and item.protocol == rule[1]:
                    self._note(item, there=kind == records.RTM_NEWRULE)
        else:
            link = records.parse_link_notice(kind, payload)
            return link is not None and self._take_link(*link)
        return False

    def _take_route(self, record: RouteRecord, there: bool) -> None:
        for item in self._items.alike(record.key):
            if item.fits(record):
                if there:
                    item.devices |= record.devices
                self._note(item, there=there)

    def _take_replacement(self, record: RouteRecord) -> None:
        """Find out which route somebody else has replaced: the kernel tells of the new one only."""
        for item in self._items.alike(record.key):
            if item.state is RouteState.IN_PLACE and not self._table.there(
                item.entry, item.protocol
            ):
                self._note(item, there=False)

    def _note(self, item: Item, *, there: bool) -> None:
        item.note(there=there)
        if item.state is RouteState.LOST:
            # It is a loss even if it is mended before anybody hears of it.
            holds = [hold for hold in self._holds if hold.wanted and item.entry in hold.entries]
            self._losses.setdefault(item, holds)

    def _take_link(self, index: int, up: bool) -> bool:
        self._links_changed = True
        if not up:
            # In IPv4 the kernel says nothing of the routes that go with it.
            for item in self._items.within(RouteState.IN_PLACE):
                if item.concerns(index):
                    item.state = RouteState.WAITING
        if not self._items.within(RouteState.WAITING):
            return False
        if self._retrial.when is None:
            self._retrial.set(self._deadlines.now() + RETRY)
        return up

    def _leave_renamed(self) -> bool:
        """Take routes off interfaces that have other names now; whether there are such."""
        changed, self._links_changed = self._links_changed, False
        items = self._items.within(RouteState.IN_PLACE) if changed else []
        moved = [item for item in items if self._table.moved(item.entry)]
        self._table.remove([item.entry for item in moved if item.protocol == MARK])
        for item in moved:
            item.state = RouteState.WAITING
        return bool(moved)

    def _retry(self) -> None:
        """Put back what went with its interface, as far as it can be."""
        self._retrial.set(None)
        self._place([item.entry for item in self._items.within(RouteState.WAITING)])
        self._learn()
        if self._items.within(RouteState.WAITING):
            self._retrial.set(self._deadlines.now() + RETRY)

    def _look(self) -> None:
        """Find out what is lost without a notice."""
        self._rereading.set(None)
        try:
            there = {leftover.key for leftover in self._table.marked()}
        except OSError as problem:
            log.warning("routes and rules cannot be read: %s; again in %g s", problem, RETRY)
            self._rereading.set(self._deadlines.now() + RETRY)
            return
        for item in self._items.ours():
            self._note(item, there=item.key in there)

    def _reread(self) -> None:
        self._look()
        self._tell()

    def _tell(self) -> None:
        losses, self._losses = self._losses, {}
        for item in losses:
            if item.state is RouteState.LOST:
                item.state = RouteState.GONE
        for item, holds in losses.items():
            for hold in holds:
                if hold.wanted:
                    try:
                        hold.lost(item.entry)
                    except BaseException as problem:
                        # One virtual router's bug must not take the routes of the others down.
                        contain(problem, log, "a listener failed in %s", hold.lost)
