"""Mail that waits for its server: merged and bounded, so that a server that is dead for an hour
costs nothing but what is kept. Pure."""

from __future__ import annotations

from collections.abc import Container

import attrs

__all__ = ["MailMessage", "Outbox", "pause_before"]

FIRST_PAUSE = 5.0
LONGEST_PAUSE = 300.0


@attrs.frozen(kw_only=True)
class MailMessage:
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
        self._mail_messages: dict[str, MailMessage] = {}
        self.dropped = 0

    def __len__(self) -> int:
        return len(self._mail_messages)

    def put(self, mail_message: MailMessage) -> None:
        """Keep a letter until it is taken."""
        before = self._mail_messages.pop(mail_message.subject, None)
        if before is not None:
            first = before.first if before.repeats else before.at
            mail_message = attrs.evolve(mail_message, repeats=before.repeats + 1, first=first)
        elif len(self._mail_messages) >= self._limit:
            del self._mail_messages[next(iter(self._mail_messages))]
            self.dropped += 1
        self._mail_messages[mail_message.subject] = mail_message

    def first(self, but: Container[str] = ()) -> MailMessage | None:
        """The letter that has waited longest, leaving out those with these ids; it stays."""
        return next(
            (
                mail_message
                for mail_message in self._mail_messages.values()
                if mail_message.id not in but
            ),
            None,
        )

    def done(self, mail_message: MailMessage, left: tuple[str, ...]) -> None:
        """Forget a letter that is done with but for the recipients ``left``; one that took it in
        meanwhile still goes to everybody."""
        if self._holds(mail_message):
            if left:
                self._mail_messages[mail_message.subject] = attrs.evolve(mail_message, left=left)
            else:
                del self._mail_messages[mail_message.subject]

    def step_back(self, mail_message: MailMessage) -> None:
        """Put a letter behind all others."""
        if self._holds(mail_message):
            self._mail_messages[mail_message.subject] = self._mail_messages.pop(
                mail_message.subject
            )

    def _holds(self, mail_message: MailMessage) -> bool:
        there = self._mail_messages.get(mail_message.subject)
        return there is not None and there.id == mail_message.id
