"""Mail that waits for its server: merged and bounded, so that a server that is dead for an hour
costs nothing but what is kept. Pure."""

from __future__ import annotations

from collections.abc import Container

import attrs

__all__ = ["Letter", "Outbox", "pause_before"]

FIRST_PAUSE = 5.0
LONGEST_PAUSE = 300.0


@attrs.frozen(kw_only=True)
class Letter:
    """One mail before it has an address."""

    id: str
    """Its Message-ID: the same at each try, so that a reader sees one that came twice once."""
    subject: str
    body: str
    left: tuple[str, ...]
    """The addresses that do not have it yet."""
    taken: bool = False
    """Whether somebody has it."""
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

    def first(self, but: Container[str] = ()) -> Letter | None:
        """The letter that has waited longest, leaving out those with these ids; it stays."""
        return next((letter for letter in self._letters.values() if letter.id not in but), None)

    def done(self, letter: Letter, left: tuple[str, ...]) -> None:
        """Forget a letter that is done with but for the recipients ``left``; one that took it in
        meanwhile still goes to everybody."""
        if self._holds(letter):
            if left:
                self._letters[letter.subject] = attrs.evolve(letter, left=left)
            else:
                del self._letters[letter.subject]

    def step_back(self, letter: Letter) -> None:
        """Put a letter behind all others."""
        if self._holds(letter):
            self._letters[letter.subject] = self._letters.pop(letter.subject)

    def _holds(self, letter: Letter) -> bool:
        there = self._letters.get(letter.subject)
        return there is not None and there.id == letter.id
