"""How often a router mends what others break before it gives way. Pure."""

from __future__ import annotations

from vrrpkit.values import NO_NAMES
from vrrpkit.vrrp.protocol.election import MachineConfig
from vrrpkit.vrrp.protocol.profile import AddressLostPolicy

__all__ = ["AddressRecovery", "Backoff", "LossWindow"]

UNSEEN = 300.0
"""Seconds after which a takeover is tried again that failed for something that nobody can watch,
such as a lack of memory."""

SOON = 1.0
"""Seconds from a change until a MASTER without all that belongs to it asks the kernel again."""


class LossWindow:
    """Counts the occasions on which virtual addresses were removed by somebody else.

    :param limit: occasions within ``window`` seconds that are repaired.
    :param together: losses within so many seconds are one occasion: one command may remove twenty
        addresses.
    """

    def __init__(self, limit: int = 3, window: float = 10.0, together: float = 0.1) -> None:
        self._occasions: tuple[float, ...] = ()
        self._limit = limit
        self._window = window
        self._together = together

    def exhausted(self, now: float) -> bool:
        """Note a loss; whether it is one too many."""
        if self._occasions and now - self._occasions[-1] < self._together:
            return False
        full = len(self._occasions) == self._limit and now - self._occasions[0] < self._window
        # A handful at most: a deque would take half a kilobyte a router.
        self._occasions = (*self._occasions, now)[-self._limit :]
        return full

    def clear(self) -> None:
        """Forget every loss."""
        self._occasions = ()


class Backoff:
    """Seconds to wait before the next try: doubled each time, up to ``most``."""

    def __init__(self, first: float = 5.0, most: float = 300.0) -> None:
        self._first = first
        self._most = most
        self._next = first

    @property
    def idle(self) -> bool:
        """Whether there is nothing to reset."""
        return self._next == self._first

    def next(self) -> float:
        """The wait before the coming try."""
        wait, self._next = self._next, min(2 * self._next, self._most)
        return wait

    def reset(self) -> None:
        """It worked: start small again."""
        self._next = self._first


class AddressRecovery:
    """What a MASTER does about addresses, routes and rules that others remove or the kernel
    refuses."""

    def __init__(self, config: MachineConfig) -> None:
        self._config = config
        self._backoff = Backoff()
        self._losses = LossWindow()
        self.retry_at: float | None = None
        """When the kernel, which refused, is asked again."""
        self.causes = NO_NAMES
        """What was refused when a takeover failed, and why. Until something has changed that may
        matter, another master is left in place: each try takes the addresses away from it."""
        self.lift_at: float | None = None
        """When one more try is due although nothing was seen to change."""
        self._led = False
        self._short = False

    @property
    def refused(self) -> bool:
        """Whether the kernel has refused something and has not taken it since."""
        return not self._backoff.idle

    def lost(self, now: float) -> str:
        """Somebody else removed one: it is ``reinstated``, ``stepped down`` over, or
        ``ignored``."""
        if self._config.address_lost is AddressLostPolicy.IGNORE:
            return "ignored"
        if self._config.address_lost is AddressLostPolicy.REINSTATE and not self._losses.exhausted(
            now
        ):
            return "reinstated"
        self._losses.clear()
        return "stepped down"

    def doubted(self) -> str:
        """Duplicate address detection of one has failed for the first time: it is ``ignored``, or
        ``checked again``."""
        return (
            "ignored" if self._config.address_lost is AddressLostPolicy.IGNORE else "checked again"
        )

    @property
    def patient(self) -> bool:
        """Whether stepping down leaves the others a full interval to win; keepalived elects again
        after its skew."""
        return self._config.address_lost is not AddressLostPolicy.STEP_DOWN

    @property
    def suspended(self) -> bool:
        """Whether preemption is suspended: a takeover failed, and nothing relevant has changed."""
        return bool(self.causes)

    @property
    def short(self) -> bool:
        """Whether this router is MASTER with only a part of what belongs to it."""
        return self._short

    def led(self) -> None:
        """Another master serves meanwhile."""
        self._led = self.suspended

    def postpone(self, now: float, causes: frozenset[str], *, watchable: bool) -> float:
        """The kernel refused; in how many seconds it is asked again.

        Another master served after the last refusal and is gone: then a part is better than nothing
        (:attr:`short`). Else the others are given the chance.
        """
        retry_in = self._backoff.next()
        self.retry_at = now + retry_in
        self._short = self._led
        self.causes = causes
        self.lift_at = None if watchable else now + UNSEEN
        return retry_in

    def changed(self, now: float) -> None:
        """Something relevant has changed: the next takeover may work."""
        self.causes, self.lift_at, self._led = NO_NAMES, None, False
        if self._short and self.retry_at is not None:
            # What changed may still be changing.
            self.retry_at = min(self.retry_at, now + SOON)

    def resigned(self) -> None:
        """This router is not MASTER any more."""
        if self._short:
            self._short, self.retry_at = False, None

    def in_place(self) -> None:
        """The kernel has taken everything."""
        self._backoff.reset()
        self.causes, self.lift_at, self._led = NO_NAMES, None, False
        if self._short:
            self._short, self.retry_at = False, None
