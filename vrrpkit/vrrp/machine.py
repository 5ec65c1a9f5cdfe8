"""One virtual router as a state machine: RFC 9568 section 6.4 and what operators of keepalived rely
on. Pure.

``handle(event, now)`` returns effects in the order in which they must be carried out. Time is an
argument and deadlines are numbers: whoever drives the machine wakes it at :attr:`Machine.deadline`.
"""

from __future__ import annotations

from typing import assert_never

from vrrpkit.values import IPAddress, State
from vrrpkit.vrrp import notices
from vrrpkit.vrrp.election import DEMOTED, OWNER, MachineConfig, advert_slack, wins
from vrrpkit.vrrp.following import Following
from vrrpkit.vrrp.notices import Anomaly, Notice, Transition, TransitionReason
from vrrpkit.vrrp.profile import LostPolicy
from vrrpkit.vrrp.repair import Backoff, LossWindow
from vrrpkit.vrrp.vocabulary import (
    AddressesInPlace,
    AdvertReceived,
    AdvertsLost,
    Announce,
    Demote,
    DropAddresses,
    Effect,
    Event,
    FaultsNow,
    Granted,
    GroupReleased,
    KernelRefusedAddresses,
    LostAddress,
    LostRoute,
    MasterUnreachable,
    PrimaryAddress,
    Promote,
    Publish,
    Refreshed,
    SendAdvert,
    SetPriority,
    Shutdown,
    Startup,
    TakeAddresses,
    TimerFired,
    Withdrawn,
)

__all__ = ["OWNER", "Machine", "MachineConfig"]

ADDRESSES_FAULT = "addresses"
"""The fault that a kernel's refusal of a virtual address raises."""

_EPSILON = 1e-6


class Machine:
    """The state of one virtual router. Read its attributes freely; change them through
    :meth:`handle` only."""

    def __init__(self, config: MachineConfig) -> None:
        self.config = config
        self.state = State.INIT
        self.faults: frozenset[str] = frozenset()
        self.primary: IPAddress | None = None
        self.base_priority = config.priority
        self.priority = config.priority
        """The effective priority: what the next advert says."""
        self.deadline: float | None = None
        """When :class:`TimerFired` is due; ``None`` is never."""
        self._wish: TransitionReason | None = None
        self._effects: list[Effect] = []
        self._following = Following(config)
        self._advert_at: float | None = None
        self._demoted_until: float | None = None
        self._retry_at: float | None = None
        self._ready_at = 0.0
        self._last_sent = 0.0
        self._slack = advert_slack(config.interval)
        self._backoff = Backoff()
        self._losses = LossWindow()

    # --- what can be read

    @property
    def master(self) -> IPAddress | None:
        """The master that is followed in BACKUP."""
        return self._following.master

    @property
    def master_priority(self) -> int:
        """What that master last said of itself."""
        return self._following.master_priority

    @property
    def master_interval(self) -> float:
        """Active_Adver_Interval in seconds: learnt from the master in version 3."""
        return self._following.interval

    @property
    def skew(self) -> float:
        """Skew_Time in seconds (RFC 9568 section 6.1; in version 2 a part of one second)."""
        return self._following.skew(self.priority)

    @property
    def down_interval(self) -> float:
        """Active_Down_Interval in seconds."""
        return self._following.down_interval(self.priority)

    @property
    def slack(self) -> float:
        """By how many seconds :class:`TimerFired` may come early: an advert may, nothing else
        may."""
        if self._advert_at is not None and self.deadline == self._advert_at:
            return self._slack
        return 0.0

    @property
    def demoted(self) -> bool:
        """Whether a demotion is in force."""
        return self._demoted_until is not None

    @property
    def wanting(self) -> bool:
        """Whether this router would be MASTER, if its sync group let it."""
        return self._wish is not None

    @property
    def _preempting(self) -> bool:
        return self.priority == OWNER or (self.config.preempt and self._demoted_until is None)

    @property
    def refused(self) -> bool:
        """Whether the kernel has refused addresses and has not taken them since."""
        return not self._backoff.idle

    def promotion_obstacle(self) -> str | None:
        """Why a promotion would be undone at once, in words; ``None`` when it can hold."""
        if self.state is State.INIT:
            return "the router is not running"
        if self.faults:
            return f"the router is in FAULT: {', '.join(sorted(self.faults))}"
        priority, master = self.base_priority, self.master
        if master is not None and wins(self.master_priority, master, priority, self.primary):
            return (
                f"the master {master} has priority {self.master_priority} and would take the "
                f"addresses back from priority {priority}; demote it, or raise the priority here "
                "first"
            )
        return None

    # --- the fast path

    def repeated(self, now: float) -> bool:
        """The advert is due and nothing else, as nearly always in MASTER: note that it leaves at
        ``now``. Whether that is so; if not, let :meth:`handle` have :class:`TimerFired`."""
        due = self._advert_at
        if due is None or self._demoted_until is not None or self._retry_at is not None:
            return False
        if now + self._slack < due or self._late(now):
            return False
        self._last_sent = now
        self._advert_at = self.deadline = now + self.config.interval
        return True

    def refreshed(self, at: float) -> None:
        """The followed master repeated its last accepted advert: only the deadline moves. Allowed
        while :attr:`refreshable`."""
        self._following.repeated(at, self.priority)
        self._settle()

    @property
    def refreshable(self) -> bool:
        """Whether a repetition of the last accepted advert would be accepted again and change
        nothing else."""
        return self.state is State.BACKUP and self._following.repeatable(
            self.priority, self._preempting
        )

    # --- events

    def handle(self, event: Event, now: float) -> list[Effect]:
        """Take one event in at ``now`` (seconds of a clock that never jumps back); return what to
        do, in order."""
        effects: list[Effect] = []
        self._effects = effects
        match event:
            case TimerFired():
                self._timer(now)
            case AdvertReceived():
                self._advert(event, now)
            case Refreshed():
                self._following.repeated(event.at, self.priority)
            case Startup():
                self._startup(event, now)
            case Shutdown():
                self._leave(now)
                self._demoted_until = self._retry_at = None
                self.priority = self.base_priority
                self._enter(State.INIT, TransitionReason.SHUTDOWN, now)
            case FaultsNow():
                self._set_faults(event.faults, now)
            case SetPriority():
                self.base_priority = event.priority
                self._apply_priority(now)
            case PrimaryAddress():
                self.primary = event.address
            case Demote():
                self._demote(event.seconds, now)
            case Promote():
                self._promote(now)
            case LostAddress() | LostRoute():
                self._lost(event, now)
            case KernelRefusedAddresses():
                self._refused(event.failures, now)
            case AddressesInPlace():
                self._backoff.reset()
            case AdvertsLost():
                self._deaf(now)
            case Granted():
                self._serve(self._wish or TransitionReason.SYNC_GROUP, now)
            case Withdrawn():
                self._withdraw(event.resign, now)
            case GroupReleased():
                if self.state is State.BACKUP and self._wish is None:
                    self._following.group_released(now, self.priority)
            case MasterUnreachable():
                if event.neighbor == self.master:
                    self._following.unreachable(now, self.priority)
            case _:
                assert_never(event)
        self._settle()
        return effects

    def _publish(self, notice: Notice) -> None:
        self._effects.append(Publish(notice))

    def _settle(self) -> None:
        main = self._following.due if self._advert_at is None else self._advert_at
        if self._demoted_until is None and self._retry_at is None:
            self.deadline = main
        else:
            moments = (main, self._demoted_until, self._retry_at)
            self.deadline = min(moment for moment in moments if moment is not None)

    def _startup(self, event: Startup, now: float) -> None:
        self.primary = event.primary
        self.faults = event.faults
        self._ready_at = now + self.config.startup_delay
        if event.faults:
            self._enter(State.FAULT, TransitionReason.FAULT, now)
        else:
            self._begin(TransitionReason.STARTUP, now)

    # --- time passes

    def _timer(self, now: float) -> None:
        soon = now + _EPSILON
        if self._demoted_until is not None and soon >= self._demoted_until:
            self._demoted_until = None
            self._apply_priority(now)
        if self._retry_at is not None and soon >= self._retry_at:
            self._retry_at = None
            self._set_faults(self.faults - {ADDRESSES_FAULT}, now)
        if self._advert_at is not None:
            if soon + self.slack >= self._advert_at:
                self._advertise(now)
            return
        due = self._following.due
        if due is not None and soon >= due:
            self._take_over(due, now)

    def _late(self, now: float) -> bool:
        """Whether the others may have given this master up, because it said nothing for so long."""
        return now - self._last_sent > self.config.down_factor * self.config.interval

    def _advertise(self, now: float) -> None:
        late = self._late(now)
        if late:
            seconds = now - self._last_sent
            self._publish(notices.Stalled(router=self.config.router, at=now, seconds=seconds))
            if self.priority != OWNER:
                # Somebody may have taken over while we stood still, and we cannot know: hear one
                # interval of the link first.
                self._effects.append(DropAddresses())
                self._back_up(TransitionReason.STALLED, self.config.interval + self.skew, now)
                return
        self._send(now)
        if late:
            self._effects.append(Announce(self.config.repeat))

    def _take_over(self, due: float, now: float) -> None:
        following = self._following
        if following.held:
            self._begin(TransitionReason.STARTUP, now)
        elif following.overslept(due, now, self.priority):
            self._publish(notices.Stalled(router=self.config.router, at=now, seconds=now - due))
        else:
            self._become_master(following.reason(due), now)

    # --- adverts

    def _advert(self, event: AdvertReceived, now: float) -> None:
        if self.state is State.MASTER:
            self._advert_in_master(event, now)
        elif self.state is State.BACKUP:
            previous = self.master
            followed = self._following.heard(event, self.priority, self._preempting)
            if followed:
                self._wish = None
            if followed and previous != event.source:
                self._publish(
                    notices.MasterChanged(
                        router=self.config.router,
                        at=now,
                        previous=previous,
                        master=event.source,
                        priority=event.priority,
                    )
                )

    def _advert_in_master(self, event: AdvertReceived, now: float) -> None:
        router, source, priority = self.config.router, event.source, event.priority
        if priority == self.priority and source == self.primary:
            self._publish(
                notices.AdvertAnomaly(
                    router=router,
                    at=now,
                    anomaly=Anomaly.DUPLICATE_ADDRESS,
                    peer=source,
                    got=str(source),
                )
            )
        elif wins(priority, source, self.priority, self.primary):
            self._effects.append(DropAddresses())
            self._following.follow(event, self.priority)
            tie = priority == self.priority
            reason = TransitionReason.TIE if tie else TransitionReason.HIGHER_PRIORITY
            self._enter(State.BACKUP, reason, now)
        elif priority == 0:
            self._advertise(now)
        else:
            self._publish(
                notices.AnotherMaster(router=router, at=now, peer=source, priority=priority)
            )
            late = self._late(now)
            self._advertise(now)
            if self.config.profile.announce_on_losing and not late:
                self._effects.append(Announce(self.config.repeat))

    def _deaf(self, now: float) -> None:
        if self.state is State.BACKUP and self._following.deaf(now, self.priority):
            self._wish = None
            self._publish(notices.Deaf(router=self.config.router, at=now))

    # --- priority and fitness

    def _apply_priority(self, now: float) -> None:
        previous = self.priority
        self.priority = self.base_priority if self._demoted_until is None else DEMOTED
        if previous == self.priority:
            return
        self._publish(
            notices.PriorityChanged(
                router=self.config.router, at=now, previous=previous, priority=self.priority
            )
        )
        self._following.reprioritised(previous, self.priority)

    def _demote(self, seconds: float, now: float) -> None:
        self._demoted_until = now + seconds
        self._following.demoted()
        self._wish = None
        mastered = self.state is State.MASTER
        self._leave(now)
        self._apply_priority(now)
        if mastered:
            self._back_up(TransitionReason.DEMOTED, self.down_interval, now)

    def _promote(self, now: float) -> None:
        if self._demoted_until is not None:
            self._demoted_until = None
            self._apply_priority(now)
        if self.state is State.BACKUP and self.promotion_obstacle() is None:
            self._become_master(TransitionReason.PROMOTED, now)

    def _set_faults(self, faults: frozenset[str], now: float) -> None:
        if self._retry_at is not None:
            faults |= {ADDRESSES_FAULT}
        if faults == self.faults or self.state is State.INIT:
            return
        self.faults = faults
        self._publish(notices.FaultsChanged(router=self.config.router, at=now, faults=faults))
        if not faults:
            self._begin(TransitionReason.FAULT_CLEARED, now)
        elif self.state is not State.FAULT:
            self._leave(now)
            self._enter(State.FAULT, TransitionReason.FAULT, now)

    # --- what the kernel says of the addresses

    def _lost(self, event: LostAddress | LostRoute, now: float) -> None:
        if self.state is not State.MASTER:
            return
        policy = self.config.address_lost
        if policy is LostPolicy.IGNORE:
            action = "ignored"
        elif policy is LostPolicy.REINSTATE and not self._losses.exhausted(now):
            action = "reinstated"
            self._effects.append(TakeAddresses())
        else:
            action = "stepped down"
        router = self.config.router
        if isinstance(event, LostAddress):
            reason = TransitionReason.ADDRESS_LOST
            self._publish(
                notices.AddressLost(router=router, at=now, address=event.address, action=action)
            )
        else:
            reason = TransitionReason.ROUTE_LOST
            self._publish(
                notices.RouteLost(router=router, at=now, route=event.route, action=action)
            )
        if action == "stepped down":
            self._losses.clear()
            self._leave(now)
            # keepalived elects again after its skew; giving up on purpose leaves the others a full
            # interval to win.
            wait = self.skew if policy is LostPolicy.STEP_DOWN else self.down_interval
            self._back_up(reason, wait, now)

    def _refused(self, failures: tuple[str, ...], now: float) -> None:
        if self.state is not State.MASTER:
            return
        retry_in = self._backoff.next()
        self._retry_at = now + retry_in
        self._publish(
            notices.AddressesRefused(
                router=self.config.router, at=now, failures=failures, retry_in=retry_in
            )
        )
        self._set_faults(self.faults, now)

    # --- transitions

    def _begin(self, reason: TransitionReason, now: float) -> None:
        if self._ready_at - now > _EPSILON:
            self._following.wait(self._ready_at, hold=True)
            self._enter(State.BACKUP, reason, now)
        elif self.priority == OWNER:
            self._become_master(TransitionReason.OWNER, now)
        else:
            self._back_up(reason, self.down_interval, now)

    def _back_up(self, reason: TransitionReason, wait: float, now: float) -> None:
        """Be BACKUP, and take over in ``wait`` seconds unless a master is heard."""
        self._following.wait(now + wait)
        self._enter(State.BACKUP, reason, now)

    def _become_master(self, reason: TransitionReason, now: float) -> None:
        if not self.config.grouped:
            self._serve(reason, now)
            return
        wish = self._wish or reason
        self._following.ask_again(now + self.down_interval)
        self._enter(State.BACKUP, reason, now)
        self._wish = wish

    def _withdraw(self, resign: bool, now: float) -> None:
        if resign:
            self._leave(now)
        else:
            self._effects.append(DropAddresses())
        self._back_up(TransitionReason.SYNC_GROUP, self.down_interval, now)

    def _serve(self, reason: TransitionReason, now: float) -> None:
        self._send(now)
        self._effects.append(TakeAddresses())
        self._enter(State.MASTER, reason, now)

    def _leave(self, now: float) -> None:
        """Give up being MASTER, if it is, in a way that the others hear."""
        if self.state is State.MASTER:
            self._effects.append(SendAdvert(0))
            self._effects.append(DropAddresses())
            self._last_sent = now

    def _enter(self, state: State, reason: TransitionReason, now: float) -> None:
        previous, self.state = self.state, state
        self._wish = None
        if state is not State.BACKUP:
            self._following.stop()
        if state is not State.MASTER:
            self._advert_at = None
        if previous is not state:
            self._publish(
                Transition(
                    router=self.config.router,
                    at=now,
                    previous=previous,
                    state=state,
                    reason=reason,
                    priority=self.priority,
                    master=self.master,
                    faults=self.faults if state is State.FAULT else frozenset(),
                )
            )

    def _send(self, now: float) -> None:
        self._effects.append(SendAdvert(self.priority))
        self._last_sent = now
        self._advert_at = now + self.config.interval
