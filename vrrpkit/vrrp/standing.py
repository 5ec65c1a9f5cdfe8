"""How a virtual router stands between two events, and the short way of those that change next to
nothing. Pure."""

from __future__ import annotations

from vrrpkit.values import NO_NAMES, IPAddress, State
from vrrpkit.vrrp.election import OWNER, MachineConfig, wins
from vrrpkit.vrrp.following import Following
from vrrpkit.vrrp.notices import TransitionReason
from vrrpkit.vrrp.repair import Repair
from vrrpkit.vrrp.rivalry import Rivalry
from vrrpkit.vrrp.serving import Serving

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
        self._wish: TransitionReason | None = None
        self.following = Following(config)
        """What is known of the master, in BACKUP."""
        self._serving = Serving(config)
        self._repair = Repair(config)
        self._rivalry = Rivalry(config.interval)
        self._demoted_until: float | None = None
        self._ready_at = 0.0

    # --- what can be read

    @property
    def master(self) -> IPAddress | None:
        """The master that is followed in BACKUP."""
        return self.following.master

    @property
    def master_priority(self) -> int:
        """What that master last said of itself."""
        return self.following.master_priority

    @property
    def master_interval(self) -> float:
        """Active_Adver_Interval in seconds: learnt from the master in version 3."""
        return self.following.interval

    @property
    def skew(self) -> float:
        """Skew_Time in seconds (RFC 9568 section 6.1; in version 2 a part of one second)."""
        return self.following.skew(self.priority)

    @property
    def down_interval(self) -> float:
        """Active_Down_Interval in seconds."""
        return self.following.down_interval(self.priority)

    @property
    def slack(self) -> float:
        """By how many seconds :class:`TimerFired` may come early: an advert may, nothing else
        may."""
        serving = self._serving
        return serving.slack if serving.due is not None and self.deadline == serving.due else 0.0

    @property
    def demoted(self) -> bool:
        """Whether a demotion is in force."""
        return self._demoted_until is not None

    @property
    def wanting(self) -> bool:
        """Whether this router would be MASTER, if its sync group let it."""
        return self._wish is not None

    @property
    def preempting(self) -> bool:
        """Whether a master of lower priority is replaced."""
        if self._repair.suspended:
            return False
        return self.priority == OWNER or (self.config.preempt and self._demoted_until is None)

    @property
    def suspended(self) -> bool:
        """Whether preemption is suspended: a takeover failed, and nothing relevant has changed
        since."""
        return self._repair.suspended

    @property
    def causes(self) -> frozenset[str]:
        """What the kernel refused then, and why."""
        return self._repair.causes

    @property
    def short(self) -> bool:
        """Whether this router is MASTER with only a part of what belongs to it."""
        return self._repair.short

    @property
    def refused(self) -> bool:
        """Whether the kernel has refused addresses and has not taken them since."""
        return self._repair.refused

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
        serving = self._serving
        due = serving.due
        if due is None or self._demoted_until is not None or self._rivalry.due is not None:
            return False
        # Else only while it serves with a part of what belongs to it.
        if self._repair.refused:
            return False
        if now + serving.slack < due or serving.silence(now) is not None:
            return False
        self.deadline = serving.sent(now)
        return True

    def refreshed(self, at: float) -> None:
        """The followed master repeated its last accepted advert: only the deadline moves. Allowed
        while :attr:`refreshable`."""
        self.following.repeated(at, self.priority)
        self._settle()

    @property
    def refreshable(self) -> bool:
        """Whether a repetition of the last accepted advert would be accepted again and change
        nothing else."""
        return self.state is State.BACKUP and self.following.repeatable(
            self.priority, self.preempting
        )

    def _settle(self) -> None:
        due, retry_at = self._serving.due, self._repair.retry_at
        main = self.following.due if due is None else due
        again, lift_at = self._rivalry.due, self._repair.lift_at
        if self._demoted_until is None and retry_at is None and again is None and lift_at is None:
            self.deadline = main
        else:
            moments = (main, self._demoted_until, retry_at, again, lift_at)
            self.deadline = min(moment for moment in moments if moment is not None)
