"""What decides how fit a router is: signals from outside, and the priority and the faults that
follow from them (keepalived: ``track_*``). Pure.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Sequence
from typing import TypeAlias

import attrs

from vrrpkit.errors import ConfigError
from vrrpkit.validate import flag_field, is_whole, text, whole_number
from vrrpkit.values import NO_NAMES, OWNER

__all__ = [
    "WEIGHT_LIMIT",
    "Shortfall",
    "Signal",
    "Tracker",
    "TrackerState",
    "effective_priority",
    "is_fault",
    "shortfalls",
]

Signal: TypeAlias = bool | int | None
"""``True`` and ``False``: fit and unfit. A number: how fit, in units of the tracker's weight.
``None``: not known yet."""

WEIGHT_LIMIT = 253
"""Between the lowest priority, 1, and the highest that is not the owner's, 254."""

UNFIT = -254
"""A number times its weight from here on down makes a router unfit, whatever its priority."""


def _weight(instance: Tracker, attribute: attrs.Attribute[int], value: int) -> None:
    whole_number(
        f"{type(instance).__name__}: weight",
        value,
        -WEIGHT_LIMIT,
        WEIGHT_LIMIT,
        "priorities go from 1 to 254, so more can never matter; 0 means FAULT",
    )


def _name(instance: Tracker, attribute: attrs.Attribute[str], value: object) -> None:
    text(f"{type(instance).__name__}: name", value, "'uplink'", empty=True)


@attrs.frozen(kw_only=True)
class Tracker:
    """Tells a router, or a sync group, how fit it is. Subclass it and write :meth:`signals`::

        @attrs.frozen(kw_only=True)
        class TrackTemperature(Tracker):
            async def signals(self):
                while True:
                    yield await celsius() < 70
                    await asyncio.sleep(10)

    A tracker is an immutable description. What it looks at is looked at once, however many routers
    of one event loop are given an equal tracker, weight and name aside. (If its class is no attrs
    class: the same tracker.)

    :param weight: what the signal does to the priority, -253 to 253 (keepalived: ``weight``). Above
        0 it is added while the signal is good; below 0 it is added, so subtracted, while the signal
        is bad. 0, the default: FAULT while the signal is bad or not known yet. A signal that is a
        number is multiplied by it; with weight 0 any number but 0 is bad.
    :param reverse: the other way round: the sign of what is added changes, and with weight 0 a good
        signal is the bad one (``reverse``).
    :param name: what events and faults call it; by default what it looks at.
    :raises ConfigError: the weight is out of range, or a value is of another kind.
    """

    weight: int = attrs.field(default=0, validator=_weight)
    reverse: bool = attrs.field(default=False, validator=flag_field)
    name: str = attrs.field(default="", validator=_name)

    @property
    def settling(self) -> float:
        """Seconds from its start in which a bad signal may only mean that it has just begun: with
        weight 0 the router waits so long for a better one before it starts. 0 for most."""
        return 0.0

    def signals(self) -> AsyncIterator[Signal]:
        """An async generator of signals, for as long as it is iterated over.

        The first one counts before the router starts, if it needs no waiting; with weight 0 the
        router waits half a second for it, and begins in FAULT without it. An exception, and
        anything that is no signal, counts as a bad one, is logged, and the generator is started
        again a while later.
        """
        raise NotImplementedError(f"{type(self).__name__} has no signals() of its own: write one")

    @property
    def label(self) -> str:
        """What events and faults call it."""
        return self.name or self.describe()

    def describe(self) -> str:
        """What it looks at, in a word or two."""
        return type(self).__name__.removeprefix("Track").lower()


@attrs.frozen
class _Share:
    """What one signal does."""

    weight: int = 0
    fault: bool = False


def _share(tracker: Tracker, signal: Signal) -> _Share:
    weight, reverse = tracker.weight, tracker.reverse
    if signal is None:
        return _Share(fault=weight == 0)
    if isinstance(signal, bool):
        if weight == 0:
            return _Share(fault=signal is reverse)
        counts = signal if weight > 0 else not signal
        return _Share((-weight if reverse else weight) if counts else 0)
    if weight == 0:
        return _Share(fault=bool(signal) is not reverse)
    product = signal * weight * (-1 if reverse else 1)
    return _Share(max(-WEIGHT_LIMIT, min(product, WEIGHT_LIMIT)), fault=product <= UNFIT)


def is_fault(tracker: Tracker, signal: Signal) -> bool:
    """Whether a signal of a tracker makes a router unfit."""
    return _share(tracker, signal).fault


class TrackerState:
    """The signals of all trackers of one router, added up."""

    def __init__(self, trackers: Iterable[Tracker]) -> None:
        self.pairs: list[tuple[Tracker, Signal]] = [(tracker, None) for tracker in trackers]
        """Each tracker and its latest signal."""

    def set(self, place: int, signal: Signal) -> bool:
        """Note the latest signal of the tracker at ``place``; whether it is another one."""
        tracker, before = self.pairs[place]
        self.pairs[place] = (tracker, signal)
        return before is not signal and (before != signal or type(before) is not type(signal))

    @property
    def weight(self) -> int:
        """What is added to the priority."""
        return sum(_share(*pair).weight for pair in self.pairs)

    @property
    def parts(self) -> list[str]:
        """What each tracker adds, in words; those that add nothing are left out."""
        shares = [(tracker.label, _share(tracker, signal).weight) for tracker, signal in self.pairs]
        return [f"{label} {weight:+d}" for label, weight in shares if weight]

    @property
    def faults(self) -> frozenset[str]:
        """The labels of the trackers that make the router unfit."""
        faults = [t.label for t, signal in self.pairs if _share(t, signal).fault]
        return frozenset(faults) if faults else NO_NAMES

    @property
    def signals(self) -> dict[str, Signal]:
        """The latest signal of each tracker, by label."""
        return {tracker.label: signal for tracker, signal in self.pairs}


def effective_priority(base: int, weight: int) -> int:
    """The priority that adverts carry: 1 to 254, or the owner's 255, which nothing moves."""
    return base if base == OWNER else max(1, min(base + weight, OWNER - 1))


def check(trackers: Sequence[Tracker], priority: int, who: str) -> None:
    """Refuse trackers that contradict each other or the priority.

    :raises ConfigError: two have one label, or a weight can never matter.
    """
    labels = [tracker.label for tracker in trackers]
    for tracker in trackers:
        if labels.count(tracker.label) > 1:
            raise ConfigError(
                f"{who} has two trackers called {tracker.label!r}; give one of them another name="
            )
        if priority == OWNER and tracker.weight:
            raise ConfigError(
                f"{who} owns its addresses, so its priority stays 255 and the weight "
                f"{tracker.weight} of {tracker.label} can never matter; use weight 0 (FAULT), or a "
                "priority below 255"
            )


@attrs.frozen
class Shortfall:
    """A tracker whose bad signal alone leaves the addresses where they are."""

    tracker: Tracker
    enough: int
    """The amount of a weight below 0 that would move them; more than :data:`WEIGHT_LIMIT` if none
    can."""
    adds: bool
    """Whether its weight is added while the signal is good, so that a greater one is of no use."""


def shortfalls(pairs: Iterable[tuple[Tracker, Signal]], base: int, other: int) -> list[Shortfall]:
    """The trackers that cannot hand the addresses of a router of priority ``base`` over to one of
    priority ``other``, though all other trackers were good and only this one became bad.

    :param pairs: all trackers of the router and their latest signals. One whose signal is a number
        is not judged, for nobody knows what other numbers it may give.
    """
    known = list(pairs)
    best = base + sum(_good(*pair) for pair in known)
    if effective_priority(base, best - base) <= other:
        return []
    found: list[Shortfall] = []
    for tracker, signal in known:
        if not isinstance(signal, bool) or not tracker.weight:
            continue
        added = _good(tracker, signal)
        loss = abs(tracker.weight)
        if effective_priority(base, best - base - loss) >= other:
            found.append(Shortfall(tracker, best - added - other + 1, added > 0))
    return found


def _good(tracker: Tracker, signal: Signal) -> int:
    """What a tracker adds to the priority while it is good; if its signal is a number, now."""
    if is_whole(signal):
        return _share(tracker, signal).weight
    return max(0, -tracker.weight if tracker.reverse else tracker.weight)
