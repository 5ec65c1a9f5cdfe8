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
from ipaddress import ip_address
from typing import TYPE_CHECKING

import attrs

from vrrpkit.lifecycle.callbacks import is_own_end
from vrrpkit.lifecycle.shutdown import patience
from vrrpkit.lifecycle.worker import Worker
from vrrpkit.notify.mail.connect import Connector, OwnName
from vrrpkit.notify.model.mail_addresses import PlainSubject, address_literal
from vrrpkit.notify.model.outbox import MailMessage, Outbox, pause_before
from vrrpkit.validate import one_line

if TYPE_CHECKING:
    import socket
    from ssl import SSLContext

    import aiosmtplib

__all__ = ["Delivery", "MailAccount"]

log = logging.getLogger(__name__)

PROGRAM = "vrrpkit"
"""Who writes, where nobody says who."""

FAREWELL = 1.0
"""Seconds for QUIT: everything is delivered then."""

PATIENCE = 1.0
"""Seconds after which a session that is being cancelled is cancelled again."""

NAMING = 2.0
"""Seconds that the resolver gets for the full name of this host."""

TLS_SHARE = 1 / 3
"""Of the time of a session, what STARTTLS may take where clear text is the other way."""

HELO_REFUSED = "helo command rejected"
"""What Postfix says to a recipient when it has not liked the name in EHLO."""

WANTED_FIRST = frozenset({530, 538})
"""Replies that want STARTTLS or AUTH first (RFC 3207, section 4; RFC 4954, section 6)."""

HURRIED = 0.5
"""Seconds that letters which wait get at the end, once somebody is in a hurry."""

CLOSING = 421
"""The reply by which a server says that it is about to hang up."""


@attrs.frozen(kw_only=True)
class MailAccount:
    """Who writes to whom, and by which server."""

    host: str
    port: int
    security: str
    sender: Address | None
    """``None`` is this program at the name in EHLO."""
    recipients: tuple[Address, ...]
    helo: str | None
    """``None`` is the full name of this host, or its address."""
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

    def __init__(self, post: MailAccount, outbox: Outbox) -> None:
        self._post = post
        self._outbox = outbox
        self._connector = Connector(post.host, post.port)
        self._own_name = OwnName()
        self._sender = Address(username=PROGRAM)
        if post.sender is not None:
            self._sender = post.sender
        self._wake = asyncio.Event()
        self._leaving = asyncio.Event()
        self._idle = asyncio.Event()
        self._ended = False
        self._progress = False
        self._context: SSLContext | None = None
        self._worker = Worker("vrrpkit: mail", self._run, lambda: not self._ended)
        self.sent = 0
        """Letters that the server took, for one recipient at least."""
        self.refused = 0
        """Letters that the server refused for good, for all recipients."""
        self.problem: str | None = None
        """Why the last try failed; ``None`` after one that did not."""
        self.tls_problem: str | None = None
        """Why the last session was in clear text, although the server offers STARTTLS."""

    def start(self, context: SSLContext | None) -> None:
        """Deliver until :meth:`end`."""
        self._context = context
        self._worker.start()

    def wake(self) -> None:
        """There is something in the outbox."""
        self._idle.clear()
        self._wake.set()

    async def leave(self, seconds: float) -> None:
        """Try at once and often from now on; returns when nothing waits, or the time is up."""
        self._leaving.set()
        self._wake.set()
        with contextlib.suppress(TimeoutError):
            async with patience(seconds, HURRIED):
                await self._idle.wait()

    async def end(self) -> None:
        """Deliver no more."""
        self._ended = True
        while self._worker.busy:
            # More than once: asyncio.wait_for of Python 3.11 may lose one, and aiosmtplib uses it.
            self._worker.cancel()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(PATIENCE):
                    await self._worker.idle()

    async def _run(self) -> None:
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
                    await self._session(self._context)
            except BaseException as problem:
                if is_own_end(problem) or isinstance(problem, KeyboardInterrupt | SystemExit):
                    raise
                tries = 1 if self._progress else tries + 1
                self.problem = _said(problem)
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

        client = await self._opened(context)
        try:
            await self._hand_over_all(client)
            # Not everybody answers it, and nobody needs to.
            with contextlib.suppress(TimeoutError, OSError, aiosmtplib.SMTPException):
                async with asyncio.timeout(FAREWELL):
                    await client.quit()
        finally:
            client.close()

    async def _opened(self, context: SSLContext | None) -> aiosmtplib.SMTP:
        """A session in which a letter may be handed over.

        Both sides have introduced themselves: a server that does not like the name is trouble of
        the session, and no verdict on a letter.

        With security ``"opportunistic"`` it is encrypted if that works, and otherwise in clear
        text, like that with a server which offers no STARTTLS (RFC 7435, section 3).

        :raises Exception: there is none.
        """
        client = await self._connected(context)
        opportunistic = self._post.security == "opportunistic"
        try:
            if not (opportunistic and client.supports_extension("starttls")):
                self._tls_is(None)
                return client
            problem = await self._encrypted(client)
            if problem is not None and not client.is_connected:
                client.close()
                client = await self._connected(context)
            self._tls_is(problem)
        except BaseException:
            client.close()
            raise
        return client

    async def _encrypted(self, client: aiosmtplib.SMTP) -> str | None:
        """Encrypt a session; ``None``, or why that failed.

        After a failure the session goes on if the client is connected still: the server has refused
        before anything was begun, and answers.
        """
        import aiosmtplib

        said = ""
        try:
            async with asyncio.timeout(self._post.deadline * TLS_SHARE):
                try:
                    await client.starttls()
                except aiosmtplib.SMTPResponseException as refusal:
                    said = _said(refusal)
                    await client.noop()
                else:
                    await _introduce(client)
                    return None
        except (OSError, ValueError, aiosmtplib.SMTPException) as problem:
            # Of ValueError: a name that no certificate could have. TimeoutError is an OSError.
            client.close()
            return said or _said(problem)
        return said

    def _tls_is(self, problem: str | None) -> None:
        """Tell when it begins to fail, and when it works again."""
        before, self.tls_problem = self.tls_problem, problem
        if problem is not None and before is None:
            log.warning(
                "mail: %s offers STARTTLS, which fails (%s): letters go in clear text. Mend it "
                "there, or pass security='starttls' to send none in clear, or 'none' to try no TLS",
                self._post.host,
                problem,
            )
        elif problem is None and before is not None:
            log.info("mail: %s: letters do not go in clear text any more", self._post.host)

    async def _connected(self, context: SSLContext | None) -> aiosmtplib.SMTP:
        """A session that the server has greeted, and that has been introduced to it.

        :raises Exception: there is none.
        """
        import aiosmtplib

        post = self._post
        made = await self._connector.connect(post.deadline)
        helo = await self._helo(made)
        if post.sender is None:
            self._sender = Address(username=PROGRAM, domain=helo)
        client = aiosmtplib.SMTP(
            # By its name, which its certificate must have.
            hostname=post.host,
            sock=made,
            username=post.username,
            password=post.password,
            local_hostname=helo,
            timeout=post.deadline,
            use_tls=post.security == "tls",
            start_tls=post.security == "starttls",
            tls_context=context,
        )
        try:
            await client.connect()
            await _introduce(client)
        except BaseException:
            client.close()
            raise
        return client

    async def _helo(self, made: socket.socket) -> str:
        """How this host introduces itself by a socket (RFC 5321, section 4.1.4)."""
        if self._post.helo is not None:
            return self._post.helo
        try:
            own = await self._own_name.full(NAMING)
            return own or address_literal(ip_address(made.getsockname()[0].partition("%")[0]))
        except BaseException:
            made.close()
            raise

    async def _hand_over_all(self, client: aiosmtplib.SMTP) -> None:
        """Hand over every letter once.

        One that is refused for now steps back behind those that have not been tried: if something
        in it is the reason, the others must not wait for it.
        """
        stepped_back: dict[str, str] = {}
        while (mail_message := self._outbox.first(stepped_back)) is not None:
            reason = await self._hand_over(client, mail_message)
            if reason:
                stepped_back[mail_message.id] = reason
                self._outbox.step_back(mail_message)
        if self._outbox:
            # Nothing has come that was not tried.
            self._wake.clear()
            raise Postponed(next(iter(stepped_back.values())))

    async def _hand_over(self, client: aiosmtplib.SMTP, mail_message: MailMessage) -> str:
        """Hand over one letter; why not everybody can have it now, or empty.

        :raises Exception: the server takes no letter now.
        """
        import aiosmtplib

        refusals: Mapping[str, object] = {}
        recipients = list(mail_message.left)
        try:
            refusals, _ = await client.send_message(
                self._written(mail_message), sender=self._sender.addr_spec, recipients=recipients
            )
            mail_message = attrs.evolve(mail_message, taken=True)
        except aiosmtplib.SMTPRecipientsRefused as refusal:
            refusals = {one.recipient: one for one in refusal.recipients}
            for answer in refusals.values():
                if _of_the_session(answer):
                    raise SessionRefused(_in_one_line(answer)) from None
        except aiosmtplib.SMTPResponseException as refusal:
            if _of_the_session(refusal):
                raise SessionRefused(_in_one_line(refusal)) from None
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
                    mail_message.subject,
                    recipient,
                    _in_one_line(answer),
                )
        left = tuple(one for one in recipients if one in refusals and not _for_good(refusals[one]))
        self._outbox.done(mail_message, left)
        self._progress |= len(left) < len(recipients)
        if not left:
            if mail_message.taken:
                self.sent += 1
            else:
                self.refused += 1
        return ", ".join(f"for {one}: {_in_one_line(refusals[one])}" for one in left)

    def _written(self, mail_message: MailMessage) -> EmailMessage:
        message = EmailMessage()
        message["From"] = self._sender
        message["To"] = self._post.recipients
        message["Subject"] = PlainSubject(mail_message.subject)
        message["Date"] = format_datetime(datetime.fromtimestamp(mail_message.at).astimezone())
        message["Message-ID"] = mail_message.id
        message["Auto-Submitted"] = "auto-generated"
        body = mail_message.body
        if mail_message.repeats:
            since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(mail_message.first))
            body += f"\nThis has happened {mail_message.repeats + 1} times since {since}.\n"
        message.set_content(body)
        return message


class SessionRefused(Exception):
    """The server takes no letter in such a session, whatever is in it: it does not like the name of
    this host, or wants TLS or AUTH."""


class Postponed(Exception):
    """The server does not want some letters yet, or not for everybody."""


async def _within(seconds: float, event: asyncio.Event) -> None:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await event.wait()


def _for_good(refusal: object) -> bool:
    return 500 <= getattr(refusal, "code", 0) < 600


def _of_the_session(refusal: object) -> bool:
    """Whether an answer is about how this host introduced itself, and not about a letter."""
    code = getattr(refusal, "code", 0)
    return code in WANTED_FIRST or HELO_REFUSED in _in_one_line(refusal).lower()


def _in_one_line(refusal: object) -> str:
    return one_line(f"{getattr(refusal, 'code', '')} {getattr(refusal, 'message', '')}")


def _said(problem: BaseException) -> str:
    return one_line(f"{type(problem).__name__}: {problem}").rstrip(": ")


async def _introduce(client: aiosmtplib.SMTP) -> None:
    """EHLO, or HELO for a server that knows only that, unless it has been said.

    :raises aiosmtplib.SMTPHeloError: the server refuses both.
    """
    import aiosmtplib

    if client.is_ehlo_or_helo_needed:
        try:
            await client.ehlo()
        except aiosmtplib.SMTPHeloError:
            if not client.is_connected:
                raise
            await client.helo()
