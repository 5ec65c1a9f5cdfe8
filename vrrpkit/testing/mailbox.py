"""Mail that goes nowhere: a test reads what would have been sent.

::

    @virtual_time()
    async def test_a_takeover_is_mailed():
        async with Mailbox(to="ops@example.net") as mail, Lan() as lan:
            lan.router("a", vips=["192.0.2.10/24"], notify=[mail])
            await lan.settle()
            await asyncio.sleep(1)
            assert "MASTER" in mail.letters[-1].subject
"""

from __future__ import annotations

from collections.abc import Generator, Iterable
from contextlib import contextmanager
from email.message import EmailMessage
from ssl import SSLContext

import attrs

from vrrpkit.notify.mail.delivery import Delivery, MailAccount
from vrrpkit.notify.mail.notifier import STATES, Mail
from vrrpkit.notify.model.mail import BODY, SUBJECT
from vrrpkit.notify.model.outbox import Outbox

__all__ = ["Mailbox", "MailboxLetter"]


@attrs.frozen
class MailboxLetter:
    """One letter that would have been sent."""

    subject: str
    body: str
    recipients: tuple[str, ...]
    message: EmailMessage
    """All of it, with its other header fields."""


class _Collection(Delivery):
    """Takes every letter at once, for all recipients."""

    def __init__(self, post: MailAccount, outbox: Outbox) -> None:
        super().__init__(post, outbox)
        self.letters: list[MailboxLetter] = []
        self.refusal: str | None = None
        self._queue = outbox

    async def _session(self, context: SSLContext | None) -> None:
        if self.refusal is not None:
            raise ConnectionRefusedError(self.refusal)
        while (letter := self._queue.first()) is not None:
            message = self._written(letter)
            body = message.get_content()
            self.letters.append(MailboxLetter(letter.subject, body, letter.left, message))
            self._queue.done(letter, ())
            self.sent += 1


class Mailbox(Mail):
    """A :class:`vrrpkit.Mail` whose letters stay here. It needs no server and no network, and works
    under virtual time; what is worth a letter, its subject and its text are as with ``Mail``.

    :param to: as for ``Mail``, and so are the others.
    :raises ConfigError: a value is unusable; a template has an unknown field.
    """

    def __init__(
        self,
        *,
        to: str | Iterable[str] = "operator@example.net",
        sender: str = "vrrpkit@example.net",
        router_id: str | None = None,
        subject: str = SUBJECT,
        body: str = BODY,
        states: Iterable[str] = STATES,
        flush: float = 10.0,
        limit: int = 100,
    ) -> None:
        super().__init__(
            "mailbox.invalid",
            to=to,
            sender=sender,
            security="none",
            helo="mailbox.invalid",
            router_id=router_id,
            subject=subject,
            body=body,
            states=states,
            flush=flush,
            limit=limit,
        )
        self._collection = _Collection(self._post, self._outbox)
        self._delivery = self._collection

    @property
    def letters(self) -> list[MailboxLetter]:
        """What was sent so far, oldest first. A letter is here one turn of the event loop after
        what it tells of."""
        return list(self._collection.letters)

    @contextmanager
    def out_of_order(self, text: str = "connection refused") -> Generator[None, None, None]:
        """Within this, letters wait: there is no server. They are tried again as with ``Mail``.

        :param text: what :attr:`vrrpkit.Mail.last_problem` says.
        """
        self._collection.refusal = text
        try:
            yield
        finally:
            self._collection.refusal = None
