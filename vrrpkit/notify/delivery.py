"""Carries what waits in an outbox to an SMTP server, again and again until it is taken."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Mapping
from datetime import datetime
from email.headerregistry import Address
from email.message import EmailMessage
from email.utils import format_datetime
from typing import TYPE_CHECKING

import attrs

from vrrpkit.notify.dial import Dialler
from vrrpkit.notify.outbox import Letter, Outbox, pause_before

if TYPE_CHECKING:
    from ssl import SSLContext

    import aiosmtplib

__all__ = ["Delivery", "Post"]

log = logging.getLogger(__name__)

FAREWELL = 1.0
"""Seconds for QUIT: everything is delivered then."""

PATIENCE = 1.0
"""Seconds after which a session that is being cancelled is cancelled again."""

CLOSING = 421
"""The reply by which a server says that it is about to hang up."""


@attrs.frozen(kw_only=True)
class Post:
    """Who writes to whom, and by which server."""

    host: str
    port: int
    security: str
    sender: Address
    recipients: tuple[Address, ...]
    helo: str
    username: str | None
    password: str | None
    deadline: float
    """Seconds for one session."""


class Delivery:
    """Delivers an outbox through one server. What that refuses for good is dropped; everything else
    is tried again.

    A letter is done with for each recipient by itself: who has it does not get it again because
    another one's mailbox is closed for now.
    """

    def __init__(self, post: Post, outbox: Outbox) -> None:
        self._post = post
        self._outbox = outbox
        self._dialler = Dialler(post.host, post.port)
        self._wake = asyncio.Event()
        self._leaving = asyncio.Event()
        self._idle = asyncio.Event()
        self._ended = False
        self._progress = False
        self._task: asyncio.Task[None] | None = None
        self.sent = 0
        """Letters that the server took, for one recipient at least."""
        self.refused = 0
        """Letters that the server refused for good, for all recipients."""
        self.problem: str | None = None
        """Why the last try failed; ``None`` after one that did not."""

    def start(self, context: SSLContext | None) -> None:
        """Deliver until :meth:`end`."""
        self._task = asyncio.create_task(self._run(context), name="vrrpkit: mail")

    def wake(self) -> None:
        """There is something in the outbox."""
        self._idle.clear()
        self._wake.set()

    async def leave(self, seconds: float) -> None:
        """Try at once and often from now on; returns when nothing waits, or the time is up."""
        self._leaving.set()
        self._wake.set()
        await _within(seconds, self._idle)

    async def end(self) -> None:
        """Deliver no more."""
        self._ended = True
        task = self._task
        while task is not None and not task.done():
            # More than once: asyncio.wait_for of Python 3.11 may lose one, and aiosmtplib uses it.
            task.cancel()
            await asyncio.wait([task], timeout=PATIENCE)

    async def _run(self, context: SSLContext | None) -> None:
        tries = 0
        while not self._ended:
            self._wake.clear()
            if not self._outbox:
                self._idle.set()
                await self._wake.wait()
                continue
            self._progress = False
            try:
                async with asyncio.timeout(self._post.deadline):
                    await self._session(context)
            except Exception as problem:
                tries = 1 if self._progress else tries + 1
                self.problem = f"{type(problem).__name__}: {problem}".rstrip(": ")
                level = logging.WARNING if tries == 1 else logging.DEBUG
                log.log(level, "mail: %s: %s", self._post.host, self.problem)
                await self._pause(tries, postponed=isinstance(problem, Postponed))
            else:
                tries, self.problem = 0, None

    async def _pause(self, tries: int, *, postponed: bool) -> None:
        """Wait, unless it is time to leave: then try at once, and go on trying.

        :param postponed: the server is there, and does not want some letters yet: a new one waits
            only as long as after a first failure.
        """
        if self._leaving.is_set():
            await asyncio.sleep(1.0)
            return
        seconds = pause_before(tries)
        least = pause_before(1) if postponed else seconds
        await _within(least, self._leaving)
        await _within(seconds - least, self._wake)

    async def _session(self, context: SSLContext | None) -> None:
        """Deliver what waits, in one session.

        :raises Exception: something still waits, and why.
        """
        import aiosmtplib

        post = self._post
        client = aiosmtplib.SMTP(
            # By its name, which its certificate must have.
            hostname=post.host,
            sock=await self._dialler.connect(post.deadline),
            username=post.username,
            password=post.password,
            local_hostname=post.helo,
            timeout=post.deadline,
            use_tls=post.security == "tls",
            start_tls={"starttls": True, "opportunistic": None}.get(post.security, False),
            tls_context=context,
        )
        try:
            await client.connect()
            await self._hand_over_all(client)
            # Not everybody answers it, and nobody needs to.
            with contextlib.suppress(TimeoutError, OSError, aiosmtplib.SMTPException):
                async with asyncio.timeout(FAREWELL):
                    await client.quit()
        finally:
            client.close()

    async def _hand_over_all(self, client: aiosmtplib.SMTP) -> None:
        """Hand over every letter once.

        One that is refused for now steps back behind those that have not been tried: if something
        in it is the reason, the others must not wait for it.
        """
        stepped_back: dict[str, str] = {}
        while (letter := self._outbox.first(stepped_back)) is not None:
            reason = await self._hand_over(client, letter)
            if reason:
                stepped_back[letter.id] = reason
                self._outbox.step_back(letter)
        if self._outbox:
            # Nothing has come that was not tried.
            self._wake.clear()
            raise Postponed(next(iter(stepped_back.values())))

    async def _hand_over(self, client: aiosmtplib.SMTP, letter: Letter) -> str:
        """Hand over one letter; why not everybody can have it now, or empty.

        :raises Exception: the server takes no letter now.
        """
        import aiosmtplib

        refusals: Mapping[str, object] = {}
        recipients = list(letter.left)
        try:
            refusals, _ = await client.send_message(
                self._written(letter), sender=self._post.sender.addr_spec, recipients=recipients
            )
            letter = attrs.evolve(letter, taken=True)
        except aiosmtplib.SMTPRecipientsRefused as refusal:
            refusals = {one.recipient: one for one in refusal.recipients}
        except aiosmtplib.SMTPResponseException as refusal:
            # Closing, or a sender that is not wanted now: it is the same for all letters.
            whole = isinstance(refusal, aiosmtplib.SMTPSenderRefused) or refusal.code == CLOSING
            if not _for_good(refusal) and (whole or not client.is_connected):
                raise
            refusals = dict.fromkeys(recipients, refusal)
        for recipient, answer in refusals.items():
            if _for_good(answer):
                log.warning(
                    "mail: %s refused %r for %s: %s",
                    self._post.host,
                    letter.subject,
                    recipient,
                    _in_one_line(answer),
                )
        left = tuple(one for one in recipients if one in refusals and not _for_good(refusals[one]))
        self._outbox.done(letter, left)
        self._progress |= len(left) < len(recipients)
        if not left:
            if letter.taken:
                self.sent += 1
            else:
                self.refused += 1
        return ", ".join(f"for {one}: {_in_one_line(refusals[one])}" for one in left)

    def _written(self, letter: Letter) -> EmailMessage:
        message = EmailMessage()
        message["From"] = self._post.sender
        message["To"] = self._post.recipients
        message["Subject"] = letter.subject
        message["Date"] = format_datetime(datetime.fromtimestamp(letter.at).astimezone())
        message["Message-ID"] = letter.id
        message["Auto-Submitted"] = "auto-generated"
        body = letter.body
        if letter.repeats:
            since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(letter.first))
            body += f"\nThis has happened {letter.repeats + 1} times since {since}.\n"
        message.set_content(body)
        return message


class Postponed(Exception):
    """The server does not want some letters yet, or not for everybody."""


async def _within(seconds: float, event: asyncio.Event) -> None:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await event.wait()


def _for_good(refusal: object) -> bool:
    return 500 <= getattr(refusal, "code", 0) < 600


def _in_one_line(refusal: object) -> str:
    return " ".join(f"{getattr(refusal, 'code', '')} {getattr(refusal, 'message', '')}".split())
