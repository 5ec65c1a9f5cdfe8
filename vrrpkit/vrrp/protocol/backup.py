"""What a BACKUP knows of the master, and when it must take over: the Active_Down_Timer of RFC 9568
section 6 with preemption, its delay and what a router may know by silence. Pure.
"""

from __future__ import annotations

from vrrpkit.values import OWNER, IPAddress
from vrrpkit.vrrp.protocol.election import MachineConfig, skew_time
from vrrpkit.vrrp.protocol.events import TransitionReason
from vrrpkit.vrrp.protocol.inputs import AdvertReceived

__all__ = ["BackupState"]

DEAF = 3
"""Down intervals after which a takeover is put off no more by adverts that were lost on this
host, counted from the first loss since the last advert."""


class BackupState:
    """The master that one router follows while it is BACKUP.

    ``priority`` in the methods is the router's own effective priority, ``preempting`` whether it
    may replace a master of lower priority.
    """

    def __init__(self, config: MachineConfig) -> None:
        self._config = config
        self.master: IPAddress | None = None
        self.master_priority = 0
        self.interval = config.interval
        self._down_at: float | None = None
        self._preempt_at: float | None = None
        self._held = False
        # What has happened since the last accepted advert.
        self._released = self._unreachable = self._heard_lower_priority = self._overslept = False
        self._preempt_delay_elapsed = False
        self._deaf_until: float | None = None

    def skew(self, priority: int) -> float:
        """Skew_Time in seconds."""
        return skew_time(self._config.version, priority, self.interval)

    def down_interval(self, priority: int) -> float:
        """Active_Down_Interval in seconds."""
        return self._config.down_factor * self.interval + self.skew(priority)

    @property
    def held(self) -> bool:
        """Whether adverts are discarded until the startup delay has passed."""
        return self._held

    @property
    def leaving(self) -> bool:
        """Whether the master is known to leave, or cannot be reached any more."""
        return self._released or self._unreachable

    @property
    def replacing(self) -> bool:
        """Whether the latest advert came from a master of lower priority, whose time runs out."""
        return self._heard_lower_priority

    @property
    def delaying(self) -> bool:
        """Whether a master of lower priority is followed until the preemption delay has passed."""
        return self._preempt_at is not None

    @property
    def due(self) -> float | None:
        """When to take over: a preemption may come before the silence would end."""
        down_at, preempt_at = self._down_at, self._preempt_at
        if preempt_at is None or down_at is None or not self._config.profile.exact_preempt_delay:
            return down_at
        return min(down_at, preempt_at)

    def stop(self) -> None:
        """Follow nobody any more."""
        self.master = self._down_at = None
        self.master_priority = 0
        self.interval = self._config.interval
        self._clear()

    def wait(self, until: float, *, hold: bool = False) -> None:
        """Take over at ``until`` if nothing is heard; with ``hold``, whatever is heard."""
        self._clear()
        self._held = hold
        self._down_at = until

    def _clear(self) -> None:
        self._preempt_at = None
        self._held = self._released = self._unreachable = False
        self._heard_lower_priority = self._overslept = False
        self._preempt_delay_elapsed = False
        self._deaf_until = None

    def ask_again(self, until: float) -> None:
        """It was due, and whether to take over is for others to say: be due again at ``until``,
        with every preemption delay served."""
        self.master, self.master_priority = None, 0
        self._preempt_at = None
        self._preempt_delay_elapsed = True
        self._down_at = until

    def group_released(self, now: float, priority: int) -> None:
        """The master is known to leave, though it did not say so here."""
        if not self._held and self.master is not None and self._down_at is not None:
            self._down_at = min(self._down_at, now + self.skew(priority))
            self._released = True

    def unreachable(self, now: float, priority: int) -> None:
        """The master cannot be reached any more; its next advert proves the contrary."""
        due = now + self.skew(priority)
        self._down_at = due if self._down_at is None else min(self._down_at, due)
        self._unreachable = True

    def follow(self, event: AdvertReceived, priority: int) -> None:
        """Accept an advert: its sender is master."""
        if self._config.version == 3:
            self.interval = event.interval
        self.master, self.master_priority = event.source, event.priority
        self._down_at = event.at + self.down_interval(priority)
        self._released = self._unreachable = False
        self._heard_lower_priority = self._overslept = self._preempt_delay_elapsed = False
        self._deaf_until = None

    def heard(self, event: AdvertReceived, priority: int, preempting: bool) -> bool:
        """Take an advert in; whether its sender is followed now."""
        if self._held:
            return False
        if event.priority == 0:
            # Several routers, or one twice, may say it: a later one never puts the takeover off.
            due = event.at + self.skew(priority)
            self._down_at = due if self._down_at is None else min(self._down_at, due)
            self._released = True
            self.master, self.master_priority = None, 0
            return False
        if event.priority >= priority:
            self._preempt_at = None
        elif preempting and not self._delaying(event.at, priority):
            self._heard_lower_priority = True
            return False
        self.follow(event, priority)
        return True

    def _delaying(self, at: float, priority: int) -> bool:
        # The delay counts from the first losing advert.
        if self._config.preempt_delay == 0 or priority == OWNER or self._preempt_delay_elapsed:
            return False
        if self._preempt_at is None:
            self._preempt_at = at + self._config.preempt_delay
        return at < self._preempt_at

    def repeated(self, at: float, priority: int) -> None:
        """The master repeated its last accepted advert: the same as :meth:`heard`, while
        :meth:`repeatable`."""
        self._down_at = at + self.down_interval(priority)

    def repeatable(self, priority: int, preempting: bool) -> bool:
        """Whether a repetition of the last accepted advert would be accepted again and change
        nothing but the deadline."""
        return (
            self.master is not None
            and not (
                self._heard_lower_priority or self._overslept or self._released or self._unreachable
            )
            and self._deaf_until is None
            and (not preempting or self.master_priority >= priority)
        )

    def reprioritised(self, previous: int, priority: int) -> None:
        """The router's own priority changed: the running deadline moves by the change of skew."""
        if self._held or self._down_at is None:
            return
        self._down_at += self.skew(priority) - self.skew(previous)
        if self.master_priority >= priority:
            self._preempt_at = None

    def demoted(self) -> None:
        """The router gave preemption up."""
        self._preempt_at = None

    def overflowed(self, now: float, priority: int) -> bool:
        """Adverts were lost, so silence up to now proved nothing; whether that matters here.

        Under a flood some are lost all the time, and a master that died meanwhile must be replaced
        all the same: so without an advert the takeover is put off to an end.
        """
        if self._held:
            return False
        wait = self.down_interval(priority)
        if self._deaf_until is None:
            self._deaf_until = now + DEAF * wait
        due = min(now + wait, self._deaf_until)
        if self._down_at is not None and self._down_at >= due:
            return False
        self._down_at = due
        self._released = self._unreachable = False
        return True

    def overslept(self, due: float, now: float, priority: int) -> bool:
        """Whether ``due`` passed so long ago that one more interval must be listened to.

        A machine that stood still receives nothing either, so this silence proves nothing yet. Only
        once: on a host that is always late somebody must serve all the same.
        """
        if self._overslept or priority == OWNER or now - due <= self.interval:
            return False
        self._overslept = True
        self._down_at = now + self.interval + self.skew(priority)
        if self.due != self._down_at:
            # Nor does the end of the preemption delay, if it falls into the same time.
            self._preempt_at = self._down_at
        return True

    def reason(self, due: float) -> TransitionReason:
        """Why the router takes over at ``due``."""
        if self._released:
            return TransitionReason.RELEASED
        if self._heard_lower_priority or due == self._preempt_at:
            return TransitionReason.PREEMPTED
        if self._unreachable:
            return TransitionReason.UNREACHABLE
        return TransitionReason.NO_RESPONSE
