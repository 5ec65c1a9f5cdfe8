"""One virtual router as a state machine: RFC 9568 section 6.4 and what operators of keepalived rely
on. Pure.

``handle(event, now)`` returns effects in the order in which they must be carried out. Time is an
argument and deadlines are numbers: whoever drives the machine wakes it at :attr:`Machine.deadline`.
"""

from __future__ import annotations

from typing import assert_never

from vrrpkit.values import NO_NAMES, OWNER, IPAddress, State
from vrrpkit.vrrp.protocol import events
from vrrpkit.vrrp.protocol.backup import BackupState
from vrrpkit.vrrp.protocol.effects import (
    Announce,
    DropAddresses,
    Effect,
    Publish,
    SendAdvert,
    TakeAddresses,
)
from vrrpkit.vrrp.protocol.election import DEMOTED, MachineConfig, advert_slack, wins
from vrrpkit.vrrp.protocol.events import Anomaly, RouterEvent, Transition, TransitionReason
from vrrpkit.vrrp.protocol.inputs import (
    AdvertReceived,
    AdvertsLost,
    AnnounceAgain,
    Demote,
    EverythingInPlace,
    FaultsNow,
    Granted,
    GroupReleased,
    HostChanged,
    Input,
    KernelRefusedAddresses,
    LostAddress,
    LostRoute,
    MasterUnreachable,
    PrimaryAddress,
    Promote,
    Refreshed,
    SetPriority,
    Shutdown,
    Startup,
    TimerFired,
    Withdrawn,
)
from vrrpkit.vrrp.protocol.other_masters import OtherMasters
from vrrpkit.vrrp.protocol.recovery import AddressRecovery

__all__ = ["AdvertTimer", "Machine", "MachineConfig"]

ADDRESSES_FAULT = "addresses"
"""The fault that a kernel's refusal of a virtual address raises."""

_EPSILON = 1e-6


class AdvertTimer:
    """The adverts of one router. ``due`` is ``None`` while it is not MASTER."""

    def __init__(self, config: MachineConfig) -> None:
        self._config = config
        self.due: float | None = None
        """When the next advert leaves."""
        self.last_sent = 0.0
        """When the last one left, priority 0 included."""
        self.slack = advert_slack(config.interval)
        """By how many seconds an advert may leave early."""

    def silence(self, now: float) -> float | None:
        """For how many seconds nothing was said, if it is so long that the others may have given
        this master up."""
        silent = now - self.last_sent
        return silent if silent > self._config.down_factor * self._config.interval else None

    def sent(self, now: float) -> float:
        """An advert leaves at ``now``; when the next one is due."""
        self.last_sent = now
        self.due = due = now + self._config.interval
        return due


class Machine:
    """The rules of one virtual router: inputs go into :meth:`handle`, and nothing else changes its
    state but the two methods of the fast path. Its attributes are for reading."""

    def __init__(self, config: MachineConfig) -> None:
        self.config = config
        self.state = State.INIT
        self.faults = NO_NAMES
        self.primary: IPAddress | None = None
        self.base_priority = config.priority
        self.priority = config.priority
        """The effective priority: what the next advert says."""
        self.deadline: float | None = None
        """When :class:`TimerFired` is due; ``None`` is never."""
        self._pending_promotion: TransitionReason | None = None
        self.backup = BackupState(config)
        """What is known of the master, in BACKUP."""
        self._advert_timer = AdvertTimer(config)
        self._recovery = AddressRecovery(config)
        self._rivalry = OtherMasters(config.interval)
        self._demoted_until: float | None = None
        self._ready_at = 0.0
        self._effects: list[Effect] = []

    # --- what can be read

    @property
    def master(self) -> IPAddress | None:
        """The master that is followed in BACKUP."""
        return self.backup.master

    @property
    def master_priority(self) -> int:
        """What that master last said of itself."""
        return self.backup.master_priority

    @property
    def master_interval(self) -> float:
        """Active_Adver_Interval in seconds: learnt from the master in version 3."""
        return self.backup.interval

    @property
    def skew(self) -> float:
        """Skew_Time in seconds (RFC 9568 section 6.1; in version 2 a part of one second)."""
        return self.backup.skew(self.priority)

    @property
    def down_interval(self) -> float:
        """Active_Down_Interval in seconds."""
        return self.backup.down_interval(self.priority)

    @property
    def slack(self) -> float:
        """By how many seconds :class:`TimerFired` may come early: an advert may, nothing else
        may."""
        advert_timer = self._advert_timer
        return (
            advert_timer.slack
            if advert_timer.due is not None and self.deadline == advert_timer.due
            else 0.0
        )

    @property
    def demoted(self) -> bool:
        """Whether a demotion is in force."""
        return self._demoted_until is not None

    @property
    def eligible(self) -> bool:
        """Whether this router would be MASTER, if its sync group let it."""
        return self._pending_promotion is not None

    @property
    def preempting(self) -> bool:
        """Whether a master of lower priority is replaced."""
        if self._recovery.suspended:
            return False
        return self.priority == OWNER or (self.config.preempt and self._demoted_until is None)

    @property
    def suspended(self) -> bool:
        """Whether preemption is suspended: a takeover failed, and nothing relevant has changed
        since."""
        return self._recovery.suspended

    @property
    def causes(self) -> frozenset[str]:
        """What the kernel refused then, and why."""
        return self._recovery.causes

    @property
    def short(self) -> bool:
        """Whether this router is MASTER with only a part of what belongs to it."""
        return self._recovery.short

    @property
    def refused(self) -> bool:
        """Whether the kernel has refused addresses and has not taken them since."""
        return self._recovery.refused

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
        advert_timer = self._advert_timer
        due = advert_timer.due
        if due is None or self._demoted_until is not None or self._rivalry.due is not None:
            return False
        # Else only while it serves with a part of what belongs to it.
        if self._recovery.refused:
            return False
        if now + advert_timer.slack < due or advert_timer.silence(now) is not None:
            return False
        self.deadline = advert_timer.sent(now)
        return True

    def refreshed(self, at: float) -> None:
        """The followed master repeated its last accepted advert: only the deadline moves. Allowed
        while :attr:`refreshable`."""
        self.backup.repeated(at, self.priority)
        self._settle()

    @property
    def refreshable(self) -> bool:
        """Whether a repetition of the last accepted advert would be accepted again and change
        nothing else."""
        return self.state is State.BACKUP and self.backup.repeatable(self.priority, self.preempting)

    # --- the rules

    def handle(self, event: Input, now: float) -> list[Effect]:
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
                self.backup.repeated(event.at, self.priority)
            case Startup():
                self._startup(event, now)
            case Shutdown():
                self._leave(now)
                self._demoted_until = self._recovery.retry_at = None
                self._recovery.changed(now)
                self.priority = self.base_priority
                self._enter(State.INIT, TransitionReason.SHUTDOWN, now)
            case FaultsNow():
                self._set_faults(event.faults, now)
            case SetPriority():
                self.base_priority = event.priority
                self._apply_priority(event.source, now)
            case PrimaryAddress():
                self.primary = event.address
            case Demote():
                self._demote(event.seconds, now)
            case Promote():
                self._promote(now)
            case LostAddress() | LostRoute():
                self._lost(event, now)
            case KernelRefusedAddresses():
                self._refused(event, now)
            case EverythingInPlace():
                self._recovery.in_place()
                self._apply_priority("everything is in place", now)
            case HostChanged():
                self._recovery.changed(now)
            case AdvertsLost():
                self._deaf(now)
            case Granted():
                self._serve(self._pending_promotion or TransitionReason.SYNC_GROUP, now)
            case Withdrawn():
                self._withdraw(event.resign, now)
            case AnnounceAgain():
                if self.state is State.MASTER:
                    self._announce_again(now)
            case GroupReleased():
                if self.state is State.BACKUP and self._pending_promotion is None:
                    self.backup.group_released(now, self.priority)
            case MasterUnreachable():
                if event.neighbor == self.master:
                    self.backup.unreachable(now, self.priority)
            case _:
                assert_never(event)
        self._settle()
        return effects

    def _settle(self) -> None:
        due, retry_at = self._advert_timer.due, self._recovery.retry_at
        main = self.backup.due if due is None else due
        again, lift_at = self._rivalry.due, self._recovery.lift_at
        if self._demoted_until is None and retry_at is None and again is None and lift_at is None:
            self.deadline = main
        else:
            moments = (main, self._demoted_until, retry_at, again, lift_at)
            self.deadline = min(moment for moment in moments if moment is not None)

    def _publish(self, notice: RouterEvent) -> None:
        self._effects.append(Publish(notice))

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
            self._apply_priority("the end of demote()", now)
        recovery, advert_timer = self._recovery, self._advert_timer
        if recovery.retry_at is not None and soon >= recovery.retry_at:
            recovery.retry_at = None
            if recovery.short:
                self._effects.append(TakeAddresses())
            else:
                self._set_faults(self.faults - {ADDRESSES_FAULT}, now)
        if recovery.lift_at is not None and soon >= recovery.lift_at:
            recovery.changed(now)
        if advert_timer.due is not None:
            if soon + self.slack >= advert_timer.due:
                self._advertise(now)
            again = self._rivalry.due
            if again is not None and soon >= again:
                self._rivalry.due = None
                self._announce_again(now)
            return
        due = self.backup.due
        if due is not None and soon >= due:
            self._take_over(due, now)

    def _advertise(self, now: float) -> None:
        silence = self._advert_timer.silence(now)
        if silence is not None:
            self._publish(events.Stalled(router=self.config.router, at=now, seconds=silence))
            if self.priority != OWNER:
                # Somebody may have taken over while we stood still, and we cannot know: hear one
                # interval of the link first.
                self._effects.append(DropAddresses())
                self._back_up(TransitionReason.STALLED, self.config.interval + self.skew, now)
                return
        self._send(now)
        if silence is not None:
            self._effects.append(Announce(self.config.repeat))

    def _take_over(self, due: float, now: float) -> None:
        backup = self.backup
        if backup.held:
            self._begin(TransitionReason.STARTUP, now)
        elif backup.overslept(due, now, self.priority):
            self._publish(events.Stalled(router=self.config.router, at=now, seconds=now - due))
        else:
            self._become_master(backup.reason(due), now)

    # --- adverts

    def _advert(self, event: AdvertReceived, now: float) -> None:
        if self.state is State.MASTER:
            self._advert_in_master(event, now)
        elif self.state is State.BACKUP:
            previous = self.master
            followed = self.backup.heard(event, self.priority, self.preempting)
            if followed:
                self._pending_promotion = None
                self._recovery.led()
            if followed and previous != event.source:
                self._publish(
                    events.MasterChanged(
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
                events.AdvertAnomaly(
                    router=router,
                    at=now,
                    anomaly=Anomaly.DUPLICATE_ADDRESS,
                    peer=source,
                    got=str(source),
                )
            )
        elif wins(priority, source, self.priority, self.primary):
            self._effects.append(DropAddresses())
            self.backup.follow(event, self.priority)
            tie = priority == self.priority
            reason = TransitionReason.TIE if tie else TransitionReason.HIGHER_PRIORITY
            self._enter(State.BACKUP, reason, now)
        else:
            if priority:
                self._publish(
                    events.AnotherMaster(router=router, at=now, peer=source, priority=priority)
                )
            self._contradict(event, now)

    def _contradict(self, event: AdvertReceived, now: float) -> None:
        """Somebody who loses is MASTER, or was until now, and has announced the addresses too."""
        rivalry, advert_timer = self._rivalry, self._advert_timer
        if advert_timer.silence(now) is not None:
            self._advertise(now)
            if self.state is not State.MASTER:
                return
        else:
            at = rivalry.answer_at(now)
            if at <= now:
                self._advertise(now)
            else:
                assert advert_timer.due is not None, "a MASTER has a next advert"
                advert_timer.due = min(advert_timer.due, at)
            self._announce_again(now)
        if self.config.profile.announce_on_losing and event.priority:
            # The rival counts by its own interval.
            interval = max(event.interval, self.config.interval)
            rivalry.heard(now, self.config.down_factor * interval + self.skew)

    def _announce_again(self, now: float) -> None:
        if self.config.profile.announce_on_losing and self._rivalry.announce(now):
            self._effects.append(Announce(self.config.repeat))

    def _deaf(self, now: float) -> None:
        if self.state is State.BACKUP and self.backup.overflowed(now, self.priority):
            self._pending_promotion = None
            self._publish(events.ReceiveOverflow(router=self.config.router, at=now))

    # --- priority and fitness

    def _apply_priority(self, source: str, now: float) -> None:
        previous = self.priority
        # Whoever can have all that belongs to the router shall have it.
        low = self._demoted_until is not None or self._recovery.short
        self.priority = DEMOTED if low else self.base_priority
        if previous == self.priority:
            return
        self._publish(
            events.PriorityChanged(
                router=self.config.router,
                at=now,
                previous=previous,
                priority=self.priority,
                source=source,
            )
        )
        self.backup.reprioritised(previous, self.priority)

    def _demote(self, seconds: float, now: float) -> None:
        self._demoted_until = now + seconds
        self.backup.demoted()
        self._pending_promotion = None
        mastered = self.state is State.MASTER
        self._leave(now)
        self._apply_priority("demote()", now)
        if mastered:
            self._back_up(TransitionReason.DEMOTED, self.down_interval, now)

    def _promote(self, now: float) -> None:
        if self._demoted_until is not None:
            self._demoted_until = None
            self._apply_priority("promote()", now)
        # Who orders it has seen to what was missing.
        self._recovery.changed(now)
        if self.state is State.BACKUP and self.promotion_obstacle() is None:
            self._become_master(TransitionReason.PROMOTED, now)

    def _set_faults(self, faults: frozenset[str], now: float) -> None:
        if self._recovery.retry_at is not None and not self._recovery.short:
            faults |= {ADDRESSES_FAULT}
        if faults == self.faults or self.state is State.INIT:
            return
        self.faults = faults
        self._publish(events.FaultsChanged(router=self.config.router, at=now, faults=faults))
        if not faults:
            self._begin(TransitionReason.FAULT_CLEARED, now)
        elif self.state is not State.FAULT:
            self._leave(now)
            self._enter(State.FAULT, TransitionReason.FAULT, now)

    # --- what the kernel says of the addresses

    def _lost(self, event: LostAddress | LostRoute, now: float) -> None:
        if self.state is not State.MASTER:
            return
        duplicate = isinstance(event, LostAddress) and event.duplicate
        action = self._recovery.doubted() if duplicate else self._recovery.lost(now)
        if action == "reinstated":
            self._effects.append(TakeAddresses())
        router = self.config.router
        if isinstance(event, LostAddress):
            reason = TransitionReason.ADDRESS_LOST
            self._publish(
                events.AddressLost(
                    router=router,
                    at=now,
                    address=event.address,
                    action=action,
                    duplicate=event.duplicate,
                )
            )
        else:
            reason = TransitionReason.ROUTE_LOST
            self._publish(events.RouteLost(router=router, at=now, route=event.route, action=action))
        if action == "stepped down":
            self._leave(now)
            self._back_up(reason, self.down_interval if self._recovery.patient else self.skew, now)

    def _refused(self, event: KernelRefusedAddresses, now: float) -> None:
        if self.state is not State.MASTER:
            return
        recovery = self._recovery
        retry_in = recovery.postpone(now, frozenset(event.failures), watchable=event.watchable)
        self._publish(
            events.AddressesRefused(
                router=self.config.router,
                at=now,
                failures=event.failures,
                retry_in=retry_in,
                serves=recovery.short,
            )
        )
        self._apply_priority("the kernel refused a part", now)
        self._set_faults(self.faults, now)

    # --- transitions

    def _begin(self, reason: TransitionReason, now: float) -> None:
        if self._ready_at - now > _EPSILON:
            self.backup.wait(self._ready_at, hold=True)
            self._enter(State.BACKUP, reason, now)
        elif self.priority == OWNER and not self._recovery.suspended:
            self._become_master(TransitionReason.OWNER, now)
        else:
            self._back_up(reason, self.down_interval, now)

    def _back_up(self, reason: TransitionReason, wait: float, now: float) -> None:
        """Be BACKUP, and take over in ``wait`` seconds unless a master is heard."""
        self.backup.wait(now + wait)
        self._enter(State.BACKUP, reason, now)

    def _become_master(self, reason: TransitionReason, now: float) -> None:
        if not self.config.grouped:
            self._serve(reason, now)
            return
        wish = self._pending_promotion or reason
        self.backup.ask_again(now + self.down_interval)
        self._enter(State.BACKUP, reason, now)
        self._pending_promotion = wish

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
            self._advert_timer.last_sent = now

    def _enter(self, state: State, reason: TransitionReason, now: float) -> None:
        previous, self.state = self.state, state
        self._pending_promotion = None
        if state is not State.BACKUP:
            self.backup.stop()
        if state is not State.MASTER:
            self._advert_timer.due = None
            self._rivalry.end()
            self._recovery.resigned()
            self._apply_priority("no MASTER with a part any more", now)
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
                    faults=self.faults if state is State.FAULT else NO_NAMES,
                )
            )

    def _send(self, now: float) -> None:
        self._effects.append(SendAdvert(self.priority))
        self._advert_timer.sent(now)
