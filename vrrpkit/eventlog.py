"""Which event is logged at which level, and how often: one table for all rooms, and one way into
the log.

An event is logged once, by the object that publishes it: a router, a sync group, a virtual server,
connection sync, a BFD session. The level says who has to know: a WARNING that somebody should look,
an INFO what has happened, DEBUG is for whoever looks for something.

What a peer can trigger, and what may happen again and again, is bounded: the first time of each
kind is logged, and then at most once in :data:`AGAIN` seconds, with how many there were.
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Hashable, Mapping
from types import MappingProxyType
from typing import Literal, TypeAlias
from weakref import WeakKeyDictionary

import attrs

from vrrpkit.validate import one_line

__all__ = ["TABLE", "EventLog", "LogRule", "level_of", "rule_of"]

AGAIN = 300.0
"""Seconds until what goes on is logged again."""

MINUTE = 60.0

BURST = 10
"""First lines about peers in one minute, and lines of one bounded kind where more than one is of
use: a server that flaps, a router that moves to and fro."""

REMEMBERED = 10_000
"""Kinds that one object keeps in mind; then the oldest is forgotten."""

PEERS = 32
"""Kinds of one class that are told apart; all others count as one more."""


Repeats: TypeAlias = Literal["each", "some", "bounded", "once"]


@attrs.frozen
class LogRule:
    """How events of one class are logged."""

    level: int
    """Of :mod:`logging`; 0 is never."""
    repeats: Repeats = "each"
    """``each``; ``some``: the first 10 of a kind in 300 seconds; ``bounded``: the first of a kind,
    and then one in 300 seconds; ``once``: the first of a kind."""
    kind: tuple[str, ...] = ()
    """The attributes by which kinds are told apart."""
    when: Mapping[str, LogRule] = MappingProxyType({})
    """Another rule where an attribute has a value: ``{"state=FAULT": LogRule(...)}``."""
    together: bool = False
    """Whether all objects of an event loop share one line, which names none of them: what happens
    to the program happens to each of them at once."""


NEVER = 0

_FALLS = {"state=FAULT": LogRule(logging.WARNING, "some", ("state",))}

TABLE: Mapping[str, LogRule] = MappingProxyType(
    {
        # routers and sync groups
        "Transition": LogRule(logging.INFO, "some", ("state",), _FALLS),
        "GroupTransition": LogRule(logging.INFO, "some", ("state",), _FALLS),
        "MasterChanged": LogRule(logging.INFO, "some", ("master",)),
        "PriorityChanged": LogRule(logging.INFO, "some", ("priority",)),
        "FaultsChanged": LogRule(logging.INFO, "some", ("faults",)),
        "AnotherMaster": LogRule(logging.WARNING, "bounded", ("peer",)),
        "AdvertRejected": LogRule(logging.WARNING, "bounded", ("peer", "reason")),
        "AdvertAnomaly": LogRule(
            logging.WARNING,
            "once",
            ("peer", "anomaly"),
            {
                # Not harmless: one of the two must be changed.
                "anomaly=another-owner": LogRule(logging.WARNING, "bounded", ("peer", "anomaly")),
                "anomaly=duplicate-address": LogRule(
                    logging.WARNING, "bounded", ("peer", "anomaly")
                ),
            },
        ),
        "ClockSkew": LogRule(logging.WARNING, "bounded", ("peer",)),
        "WeightTooSmall": LogRule(logging.WARNING, "once", ("tracker",)),
        "AddressLost": LogRule(logging.WARNING, "bounded", ("address", "action")),
        "AddressesInPlace": LogRule(logging.DEBUG),
        "ForeignAddress": LogRule(logging.WARNING, "bounded", ("address", "device", "action")),
        "RouteLost": LogRule(logging.WARNING, "bounded", ("route", "action")),
        "AddressesRefused": LogRule(logging.WARNING, "bounded", ("failures",)),
        "SendFailed": LogRule(logging.WARNING, "bounded", ("error",)),
        "Stalled": LogRule(logging.WARNING, "bounded", together=True),
        "ReceiveOverflow": LogRule(logging.WARNING, "bounded"),
        # What a tracker sees; why, its own module logs at the same level.
        "TrackerReason": LogRule(logging.INFO, "some", ("why",)),
        "TrackerSignal": LogRule(
            logging.DEBUG,
            when={
                "signal=good": LogRule(logging.INFO, "some", ("signal",)),
                "signal=bad": LogRule(logging.INFO, "some", ("signal",)),
            },
        ),
        # virtual servers
        "ServerUp": LogRule(logging.INFO, "some", ("server",)),
        "ServerDown": LogRule(
            logging.WARNING,
            "some",
            ("server",),
            {"reason=shutdown": LogRule(logging.INFO)},
        ),
        "WeightChanged": LogRule(logging.DEBUG),
        "ServerAdded": LogRule(logging.INFO),
        "ServerRemoved": LogRule(logging.INFO),
        "ServerDraining": LogRule(logging.INFO),
        "ServerDrained": LogRule(logging.INFO),
        "ServerDisabled": LogRule(logging.INFO),
        "ServerEnabled": LogRule(logging.INFO),
        "QuorumUp": LogRule(logging.INFO, "some"),
        "QuorumDown": LogRule(logging.WARNING, "some"),
        "QuorumUnreachable": LogRule(logging.WARNING, "some"),
        "CheckOverdue": LogRule(logging.WARNING, "bounded", ("server", "checker")),
        # The scheduler has a line for all checks that suffer from the same.
        "CheckPostponed": LogRule(logging.DEBUG),
        "ServicesAdopted": LogRule(logging.INFO),
        "StaleServices": LogRule(logging.INFO),
        "ForeignServices": LogRule(logging.INFO),
        "TableRepaired": LogRule(logging.WARNING, "bounded"),
        "TableRefused": LogRule(logging.WARNING, "bounded", ("failures",)),
        "TableFollows": LogRule(logging.INFO, "some"),
        "SyncSwitched": LogRule(logging.INFO, "some"),
        "SyncRefused": LogRule(logging.WARNING, "bounded", ("failure",)),
        # BFD sessions
        "BFDTransition": LogRule(logging.INFO, "some", ("state",)),
        "BFDTimersAgreed": LogRule(logging.DEBUG),
        "BFDRejected": LogRule(logging.WARNING, "bounded", ("source", "reason")),
        "BFDSendFailed": LogRule(logging.WARNING, "bounded", ("error",)),
        # A pool of a thousand has a thousand a second: those who want them subscribe to them.
        "CheckNotMade": LogRule(NEVER),
        "CheckResult": LogRule(NEVER),
        "CheckStuck": LogRule(NEVER),
        "EventsLost": LogRule(NEVER),
    }
)
"""For each class of events, by its name: this module stands below the rooms that have them."""

UNKNOWN = LogRule(logging.INFO, "some")
"""For an event of a class that is not in the table: a program's own."""


def rule_of(event: object) -> LogRule:
    """The rule for an event."""
    rule = TABLE.get(type(event).__name__, UNKNOWN)
    for condition, other in rule.when.items():
        name, _, value = condition.partition("=")
        if str(getattr(event, name, None)) == value:
            return other
    return rule


def level_of(event: object) -> int:
    """The level at which an event is logged, of :mod:`logging`; 0 is never."""
    return rule_of(event).level


class _Kind:
    """What has been logged of one kind.

    :param since: when the present period began.
    """

    __slots__ = ("left_out", "lines", "since")

    def __init__(self, since: float) -> None:
        self.since = since
        self.lines = 0
        """Lines in it."""
        self.left_out = 0
        """Events since the last line."""


# What the objects of one event loop have logged together, by the class of the event.
_together: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[str, _Kind]] = WeakKeyDictionary()


class EventLog:
    """Logs the events of one object.

    :param logger: of the module that publishes them.
    :param prefix: what stands before each line.
    """

    def __init__(self, logger: logging.Logger, prefix: str = "") -> None:
        self._logger = logger
        self._prefix = prefix
        self._kinds: OrderedDict[Hashable, _Kind] = OrderedDict()
        self._many: dict[str, int] = {}
        self._minute = _Kind(float("-inf"))

    def tell(self, event: object) -> None:
        """Log an event, unless it has been logged often enough.

        The clock is what the event has as ``at``: seconds of the event loop.
        """
        rule = rule_of(event)
        at: float = getattr(event, "at", 0.0)
        if not rule.level or not self._logger.isEnabledFor(rule.level):
            return
        if rule.repeats == "each":
            self._log(rule, event, 0)
            return
        kind = (_shared_kind(event, at) if rule.together else None) or self._kind(rule, event, at)
        if self._due(rule, kind, at):
            kind.lines += 1
            left_out, kind.left_out = kind.left_out, 0
            self._log(rule, event, left_out)
        else:
            # An event may stand for several.
            kind.left_out += getattr(event, "count", 1)

    def _log(self, rule: LogRule, event: object, left_out: int) -> None:
        more = f" (and {left_out} more since the last such line)" if left_out else ""
        prefix, text = self._prefix, str(event)
        if rule.together:
            prefix, text = "", text.removeprefix(f"{getattr(event, 'router', '')}: ")
        # A server's answer may be in it: one event is one line.
        self._logger.log(rule.level, "%s%s%s", prefix, one_line(text), more)

    def _kind(self, rule: LogRule, event: object, at: float) -> _Kind:
        name = type(event).__name__
        key: Hashable = (name, *(str(getattr(event, attribute, "")) for attribute in rule.kind))
        kind = self._kinds.get(key)
        if kind is None:
            bounded = rule.repeats in ("bounded", "once")
            if bounded and self._many.get(name, 0) >= PEERS:
                # Whoever invents peers gets one kind for all of them.
                key = (name,)
                kind = self._kinds.get(key)
            if kind is None:
                if bounded:
                    self._many[name] = self._many.get(name, 0) + 1
                kind = self._kinds[key] = _Kind(at)
                if len(self._kinds) > REMEMBERED:
                    self._kinds.popitem(last=False)
        if rule.repeats != "once" and at - kind.since >= AGAIN:
            kind.since, kind.lines = at, 0
        return kind

    def _due(self, rule: LogRule, kind: _Kind, at: float) -> bool:
        if rule.repeats == "some":
            return kind.lines < BURST
        if kind.lines:
            return False
        minute = self._minute
        if at - minute.since >= MINUTE:
            minute.since, minute.lines = at, 0
        if minute.lines >= BURST:
            return False
        minute.lines += 1
        return True


def _shared_kind(event: object, at: float) -> _Kind | None:
    """What all objects of the running loop have logged of a class of events; ``None`` without a
    loop."""
    try:
        kinds = _together.setdefault(asyncio.get_running_loop(), {})
    except RuntimeError:
        return None
    kind = kinds.setdefault(type(event).__name__, _Kind(at))
    if at - kind.since >= AGAIN:
        kind.since, kind.lines = at, 0
    return kind
