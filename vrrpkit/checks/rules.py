"""What holds for every check: how long it may take, and what the outcome of an attempt means."""

from __future__ import annotations

from typing import TypeAlias

from vrrpkit.checks.base import Checker, Weight

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
    """Why a check failed, for people."""
    name = type(problem).__name__
    try:
        text = str(problem) or name
    except Exception:
        # Not even a broken __str__ may end the scheduler.
        return name
    return _bounded(text)


def _bounded(text: str) -> str:
    return text if len(text) <= TEXT_LIMIT else f"{text[:TEXT_LIMIT]}..."


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
