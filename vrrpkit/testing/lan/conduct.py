"""What each virtual router on a link owes the others, by what it does and hears. Pure.

A second opinion on the state machine: it follows the adverts that reached a router, not what its
machine made of them, by the rules of RFC 9568 section 6.4 and of the router's options. Where they
leave a router a choice, the earliest or the latest moment that any choice allows counts.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypeAlias

import attrs

from vrrpkit.testing.lan.model import HostModel, LanModel, RouterModel, understands
from vrrpkit.testing.lan.timeline import (
    Announced,
    Arrived,
    Crashed,
    Entry,
    Killed,
    MachineStep,
    Paused,
    Plugged,
    Resumed,
    Sent,
    Started,
    Unplugged,
)
from vrrpkit.values import IPAddress, State
from vrrpkit.vrrp.protocol.auth import HMACAuth
from vrrpkit.vrrp.protocol.inputs import (
    AdvertReceived,
    AdvertsLost,
    Demote,
    Granted,
    GroupReleased,
    KernelRefusedAddresses,
    LostAddress,
    LostRoute,
    MasterUnreachable,
    PrimaryAddress,
    Promote,
    Startup,
    TimerFired,
    Withdrawn,
)
from vrrpkit.vrrp.protocol.profile import AddressLostPolicy

__all__ = ["ADVERT", "ANNOUNCEMENT", "GOODBYE", "RELEASED", "Breach", "Conduct", "Duty"]

SAME = 1e-9
"""Seconds: what is no further apart happened at the same moment, in an order that is unknown."""

Duty: TypeAlias = tuple[str, str, object]
"""What is owed, by which router, and of what."""

ADVERT = "advert"
GOODBYE = "goodbye"
RELEASED = "released"
ANNOUNCEMENT = "announcement"


@attrs.frozen
class Breach:
    """Something that a router may not do, done."""

    what: str
    """``early``, ``unbeaten`` or ``advert``."""
    router: str
    message: str


@attrs.define(eq=False)
class _Past:
    """What one router has lived through, as far as its duties depend on it."""

    router: RouterModel
    changed: float = -1.0
    """When its state, its priority or its wish to preempt last changed."""
    left: float = -1.0
    """When it last ceased to be MASTER."""
    said: float | None = None
    """When its last advert left."""
    farewell: float = -1.0
    """When it last said priority 0."""
    down_at: float = 0.0
    """When Active_Down_Timer ends at the earliest."""
    preempt_at: float | None = None
    """When ``preempt_delay`` has passed at the earliest."""
    learnt: float = 1.0
    primary: IPAddress | None = None
    latest: dict[str, float] = attrs.Factory(dict[str, float])
    """When the latest advert of each sender had left it."""

    @property
    def not_before(self) -> float:
        """When it may take over at the earliest."""
        return self.down_at if self.preempt_at is None else min(self.down_at, self.preempt_at)


class Conduct:
    """Follows a timeline together with ``world``, which is as it was before each entry in
    :meth:`before` and as it is after it in :meth:`after`."""

    def __init__(self, world: LanModel, *, reconcile: float, tolerance: float) -> None:
        self.due: dict[Duty, tuple[float, str]] = {}
        """Until when what is owed must be done, and in words what it is if it was not."""
        self._world = world
        self._reconcile = reconcile
        self._tolerance = tolerance
        self._pasts: dict[str, _Past] = {}
        self._was: tuple[State, int] = (State.INIT, 0)

    def before(self, entry: Entry) -> None:
        """The entry comes."""
        router = self._world.routers.get(entry.who or "")
        if router is not None and isinstance(entry.what, MachineStep):
            self._was = (router.state, router.priority)

    def after(self, entry: Entry) -> Iterator[Breach]:
        """The entry came; what of it should not have been."""
        world, who, what, at = self._world, entry.who or "", entry.what, entry.at
        match what:
            case Started():
                router = world.routers[what.config.name]
                self._forget(router.name)
                before = self._pasts.get(router.name)
                left = -1.0 if before is None else before.left
                past = _Past(router, left=left, learnt=router.config.interval)
                self._pasts[router.name] = past
            case MachineStep() if who in self._pasts:
                yield from self._step(self._pasts[who], what, at)
            case Sent() if who in self._pasts:
                yield from self._sent(self._pasts[who], what, at)
            case Arrived():
                for past in self._on(world.hosts[who]):
                    self._arrived(past, what, at)
            case Announced():
                for past in self._on(world.hosts[who]):
                    self.due.pop((ANNOUNCEMENT, past.router.name, what.address), None)
            case Crashed() | Killed() | Paused() | Unplugged() if who in world.hosts:
                for past in self._on(world.hosts[who]):
                    self._forget(past.router.name)
                    if isinstance(what, Crashed | Killed):
                        past.left = at
            case Resumed() | Plugged() if who in world.hosts:
                for past in self._on(world.hosts[who]):
                    past.changed = at
                    if past.router.master:
                        interval = past.router.config.interval
                        next_one = at if past.said is None else past.said + interval
                        plugged = isinstance(what, Plugged)
                        self._owes_advert(past, at + interval if plugged else max(at, next_one))
            case _:
                pass

    def _on(self, host: HostModel) -> list[_Past]:
        return [past for past in self._pasts.values() if past.router.host is host]

    def _forget(self, name: str) -> None:
        self.due = {duty: due for duty, due in self.due.items() if duty[1] != name}

    # --- what its machine did

    def _step(self, past: _Past, step: MachineStep, at: float) -> Iterator[Breach]:
        router, event = past.router, step.event
        state, priority = self._was
        if isinstance(event, Startup):
            past.primary = event.primary
        elif isinstance(event, PrimaryAddress):
            past.primary = event.address
        if isinstance(event, KernelRefusedAddresses):
            for address in router.config.all_addresses:
                self.due.pop((ANNOUNCEMENT, router.name, address), None)
        if priority != router.priority:
            skews = [router.skew(each, past.learnt) for each in (priority, router.priority)]
            past.down_at += skews[1] - skews[0]
            self.due.pop((RELEASED, router.name, None), None)
        elif isinstance(event, AdvertsLost):
            self.due.pop((RELEASED, router.name, None), None)
        elif isinstance(event, GroupReleased | MasterUnreachable):
            past.down_at = min(past.down_at, at + router.skew(router.priority, past.learnt))
        if (state, priority) != (router.state, router.priority) or isinstance(
            event, Demote | Promote
        ):
            past.changed = at
        if state is router.state:
            return
        self._forget(router.name)
        if state in (State.INIT, State.FAULT):
            past.learnt = router.config.interval
            self._wait(past, self._afresh(router, at))
        if state is State.MASTER:
            past.left = at
            yield from self._leaves(past, step, at)
        elif router.state is State.MASTER:
            yield from self._takes_over(past, step, at)

    def _afresh(self, router: RouterModel, at: float) -> float:
        ready = max(at, router.ready_at)
        return ready if router.config.owner else ready + router.down(router.config.interval)

    def _wait(self, past: _Past, until: float) -> None:
        past.down_at, past.preempt_at = until, None

    def _takes_over(self, past: _Past, step: MachineStep, at: float) -> Iterator[Breach]:
        router = past.router
        if router.master:
            self._owes_advert(past, at)
            for address in router.config.all_addresses:
                if not router.config.used_announcements.interval:
                    message = f"{router.name} is MASTER and does not announce {address}"
                    duty = (ANNOUNCEMENT, router.name, address)
                    self.due[duty] = (at + self._reconcile, message)
        early = past.not_before - at
        if early > self._tolerance and not isinstance(step.event, Promote | Granted):
            yield Breach(
                "early",
                router.name,
                f"{router.name} becomes MASTER {early:.3f} s before its time has come",
            )

    def _leaves(self, past: _Past, step: MachineStep, at: float) -> Iterator[Breach]:
        router, event = past.router, step.event
        config = router.config
        past.learnt = config.interval
        match event:
            case AdvertReceived() if _beats(event, router, past.primary):
                if config.version == 3:
                    past.learnt = event.interval
                self._wait(past, event.at + router.down(past.learnt))
                return
            case AdvertReceived() | TimerFired():
                # It stood still, so others may be MASTER: it listens for an interval.
                self._wait(past, at + config.interval + router.skew(router.priority))
                enough = config.down_factor * config.interval - self._tolerance
                if past.said is not None and at - past.said < enough:
                    yield Breach(
                        "unbeaten",
                        router.name,
                        f"{router.name} with priority {router.priority} yields to {_who(event)}",
                    )
                return
            case LostAddress() | LostRoute():
                policy = config.on_address_lost or config.profile.address_lost
                hasty = policy is AddressLostPolicy.STEP_DOWN
                wait = router.skew(router.priority) if hasty else router.down(config.interval)
                self._wait(past, at + wait)
            case _:
                self._wait(past, at + router.down(config.interval))
        silent = isinstance(event, Withdrawn) and not event.resign
        if router.host.plugged and not silent and at - past.farewell > self._tolerance:
            message = f"{router.name} gives up being MASTER and does not say priority 0"
            self.due[(GOODBYE, router.name, None)] = (at, message)

    # --- what crosses the link

    def _owes_advert(self, past: _Past, when: float) -> None:
        name = past.router.name
        self.due[(ADVERT, name, None)] = (when, f"{name} is MASTER and sends no advert")

    def _sent(self, past: _Past, advert: Sent, at: float) -> Iterator[Breach]:
        router = past.router
        past.said = at
        if advert.priority == 0:
            past.farewell = at
            self.due.pop((GOODBYE, router.name, None), None)
            return
        if router.state is State.MASTER:
            if router.master:
                self._owes_advert(past, at + router.config.interval)
            if advert.priority != router.priority and at - past.changed > self._tolerance:
                yield Breach(
                    "advert",
                    router.name,
                    f"{router.name} has priority {router.priority} and says {advert.priority}",
                )
        elif at - past.left > self._tolerance:
            yield Breach("advert", router.name, f"{router.name} is not MASTER and sends adverts")

    def _arrived(self, past: _Past, advert: Arrived, at: float) -> None:
        router, sender = past.router, self._world.routers.get(advert.sender)
        if sender is None or sender is router or not understands(router.config, sender.config):
            return
        if isinstance(router.config.auth, HMACAuth):
            # What is overtaken is taken for a repetition by an attacker.
            if advert.sent < past.latest.get(advert.sender, 0.0):
                return
            past.latest[advert.sender] = advert.sent
        if advert.priority:
            self.due.pop((RELEASED, router.name, None), None)
        overflowed = at < router.ready_at - self._tolerance
        if router.state is State.BACKUP and not overflowed:
            self._heard(past, advert, at)

    def _heard(self, past: _Past, advert: Arrived, at: float) -> None:
        """An advert that counts reached a BACKUP."""
        router = past.router
        # Which came first is unknown, so only what makes it freer counts.
        unsure = at - past.changed <= SAME or at - router.ready_at <= self._tolerance
        if advert.priority == 0:
            past.down_at = min(past.down_at, at + router.skew(router.priority, past.learnt))
            if router.able and not unsure:
                longest = max(router.config.interval, router.heard)
                message = f"{router.name} heard priority 0 and does not become MASTER"
                due = at + router.skew(router.priority, longest)
                self.due.setdefault((RELEASED, router.name, None), (due, message))
            return
        if advert.priority < router.priority and router.preempts(at + self._tolerance):
            delay = router.config.preempt_delay
            if not delay or router.config.owner:
                return
            if past.preempt_at is None:
                past.preempt_at = at + delay
            if at >= past.preempt_at - self._tolerance:
                return
        elif advert.priority >= router.priority and not unsure:
            past.preempt_at = None
        learnt = advert.interval if router.config.version == 3 else past.learnt
        due = at + router.down(learnt)
        past.learnt = min(learnt, past.learnt) if unsure else learnt
        past.down_at = min(due, past.down_at) if unsure else due


def _beats(advert: AdvertReceived, router: RouterModel, primary: IPAddress | None) -> bool:
    """Whether a MASTER must yield to an advert: the greater address breaks a tie."""
    if advert.priority != router.priority:
        return advert.priority > router.priority
    return primary is None or advert.source.packed > primary.packed


def _who(event: AdvertReceived | TimerFired) -> str:
    if isinstance(event, TimerFired):
        return "nobody"
    return f"priority {event.priority} of {event.source}"
