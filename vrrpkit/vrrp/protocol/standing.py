"""How a virtual router stands between two events, and the short way of those that change next to
nothing. Pure."""

from __future__ import annotations

from vrrpkit.values import NO_NAMES, OWNER, IPAddress, State
from vrrpkit.vrrp.protocol.backup import BackupState
from vrrpkit.vrrp.protocol.election import MachineConfig, wins
from vrrpkit.vrrp.protocol.events import TransitionReason
from vrrpkit.vrrp.protocol.other_masters import OtherMasters
from vrrpkit.vrrp.protocol.recovery import AddressRecovery
from vrrpkit.vrrp.protocol.serving import AdvertTimer

__all__ = ["Standing"]


class Standing:
    """How one virtual router stands. Read its attributes freely: the machine changes them."""

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

    def _settle(self) -> None:
        due, retry_at = self._advert_timer.due, self._recovery.retry_at
        main = self.backup.due if due is None else due
        again, lift_at = self._rivalry.due, self._recovery.lift_at
        if self._demoted_until is None and retry_at is None and again is None and lift_at is None:
            self.deadline = main
        else:
            moments = (main, self._demoted_until, retry_at, again, lift_at)
            self.deadline = min(moment for moment in moments if moment is not None)
