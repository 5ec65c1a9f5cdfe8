"""Mail that waits for its server: merged and bounded, so that a server that is dead for an hour
costs nothing but what is kept. Pure."""

from __future__ import annotations

import attrs

__all__ = ["Letter", "Outbox", "pause_before"]

FIRST_PAUSE = 5.0
LONGEST_PAUSE = 300.0


@attrs.frozen(kw_only=True)
class Letter:
    """One mail before it has an address."""

    subject: str
    body: str
    at: float
    """When it happened, in seconds since 1970."""
    repeats: int = 0
    """How often the same happened before, since the last mail about it left."""
    first: float = 0.0
    """When the first of those happened."""


def pause_before(tries: int) -> float:
    """Seconds to wait after ``tries`` failures in a row: 5, 10, 20, ... at most 300."""
    return min(FIRST_PAUSE * 2.0 ** min(max(tries, 1) - 1, 16), LONGEST_PAUSE)


class Outbox:
    """Letters in order. A newer one with the same subject takes in the older ones; beyond ``limit``
    the oldest is dropped and counted."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._letters: dict[str, Letter] = {}
        self.dropped = 0

    def __len__(self) -> int:
        return len(self._letters)

    def put(self, letter: Letter) -> None:
        """Keep a letter until it is taken."""
        before = self._letters.pop(letter.subject, None)
        if before is not None:
            first = before.first if before.repeats else before.at
            letter = attrs.evolve(letter, repeats=before.repeats + 1, first=first)
        elif len(self._letters) >= self._limit:
            del self._letters[next(iter(self._letters))]
            self.dropped += 1
        self._letters[letter.subject] = letter

    def first(self) -> Letter | None:
        """The letter that has waited longest; it stays."""
        return next(iter(self._letters.values()), None)

    def sent(self, letter: Letter) -> None:
        """Forget a letter, unless it has taken in a newer one since."""
        if self._letters.get(letter.subject) is letter:
            del self._letters[letter.subject]
