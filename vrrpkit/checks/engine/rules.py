"""What holds for every check: how long it may take, and what the outcome of an attempt means."""

from __future__ import annotations

from typing import TypeAlias

from vrrpkit.checks.base import Checker, Weight
from vrrpkit.errors import VRRPKitError
from vrrpkit.lifecycle.callbacks import pass_on

__all__ = ["Outcome", "judged", "period", "text_of", "worst_case"]

Outcome: TypeAlias = Weight | BaseException | None

TEXT_LIMIT = 1000
"""Characters of a failure's text that are kept: a server may put anything into it."""


def worst_case(checker: Checker) -> float:
    """Seconds that a check takes when every attempt runs into its timeout."""
    attempts = (1 + checker.retry) * checker.timeout + checker.retry * checker.delay_before_retry
    return attempts if checker.deadline is None else min(attempts, checker.deadline)


def period(checker: Checker) -> float:
    """Seconds from one result to the next at the latest, jitter aside: the interval, and the worst
    case of a check."""
    return checker.interval + worst_case(checker)


def text_of(problem: BaseException) -> str:
    """Why a check failed, for people, in one line."""
    name = type(problem).__name__
    try:
        text = str(problem)
    except BaseException as broken:
        # Not even a broken __str__ may end the scheduler.
        if isinstance(broken, KeyboardInterrupt | SystemExit):
            pass_on(broken)
        return name
    if not text:
        return name
    # What the checker or the system says speaks for itself; 'port' alone, of a KeyError, does not.
    return _bounded(text if isinstance(problem, VRRPKitError | OSError) else f"{name}: {text}")


def _bounded(text: str) -> str:
    shown = text if len(text) <= TEXT_LIMIT else f"{text[:TEXT_LIMIT]}..."
    if shown.isprintable():
        return shown
    # A server may have put it there, to write lines of its own into somebody's log.
    return "".join(c if c.isprintable() else " " if c.isspace() else "?" for c in shown)


def judged(checker: Checker, outcome: object) -> tuple[bool, Weight | None, str]:
    """Whether an attempt passed, the weight it gave, and why it failed."""
    if outcome is None:
        return True, None, ""
    if isinstance(outcome, Weight):
        return True, outcome, ""
    if isinstance(outcome, BaseException):
        return False, None, text_of(outcome)
    shown = _bounded(repr(outcome))
    return (
        False,
        None,
        f"{type(checker).__name__} returned {shown}: a check returns None or a Weight when the "
        "server is healthy, and raises when it is not",
    )
