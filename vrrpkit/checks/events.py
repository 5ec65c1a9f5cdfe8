"""What the scheduler tells about checks. Pure."""

from __future__ import annotations

import attrs

from vrrpkit.checks.base import Checker, Weight
from vrrpkit.checks.target import Target
from vrrpkit.values import Stamped

__all__ = ["CheckNotMade", "CheckResult", "CheckStuck"]


# Thousands a second are made: without slots attrs fills the fields in one go.
@attrs.frozen(kw_only=True, slots=False, eq=False, repr=False)
class CheckResult(Stamped):
    """One check has ended, with all its attempts."""

    target: Target
    checker: Checker
    passed: bool
    """How this check ended."""
    healthy: bool
    """The verdict after it, with ``rise`` and ``fall`` counted."""
    changed: bool
    """Whether the verdict is another one than before."""
    weight: Weight | None
    """What a check that passed said about the weight."""
    text: str
    """Why it failed, or empty."""
    attempts: int
    duration: float
    """Seconds, from the start of the first attempt to the end of the last."""
    at: float
    """When it ended, in seconds of the event loop's clock."""
    count: int
    """Checks of this server by this checker so far, this one included."""

    def __str__(self) -> str:
        state = "healthy" if self.healthy else "not healthy"
        why = f": {self.text}" if self.text else ""
        return f"{self.target} {state} by {self.checker}{why} ({self.duration * 1000:.1f} ms)"


@attrs.frozen(kw_only=True, eq=False, repr=False)
class CheckStuck(Stamped):
    """A check has given no result for three of its periods."""

    target: Target
    checker: Checker
    at: float
    """When that was noticed, in seconds of the event loop's clock."""
    since: float
    """Seconds without a result."""
    why: str = ""
    """Why it could not be made, if that is the reason."""

    def __str__(self) -> str:
        why = f": {self.why}" if self.why else ""
        return f"{self.target}: no result from {self.checker} for {self.since:.1f} s{why}"


@attrs.frozen(kw_only=True, eq=False, repr=False)
class CheckNotMade(Stamped):
    """A check could not be made, for a reason that is this machine's: no result, and the verdict
    stays. Told for the first of several in a row."""

    target: Target
    checker: Checker
    why: str
    healthy: bool
    """The verdict, which stays."""
    at: float
    """When it was, in seconds of the event loop's clock."""

    def __str__(self) -> str:
        state = "healthy" if self.healthy else "not healthy"
        return (
            f"{self.target} could not be checked by {self.checker}, and stays {state}: {self.why}"
        )
