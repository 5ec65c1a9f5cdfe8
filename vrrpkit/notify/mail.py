"""Mail to the operator (keepalived: ``smtp_alert``, ``smtp_server``, ``notification_email``)."""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import logging
import socket
import time
from collections.abc import Iterable
from email.message import EmailMessage
from email.utils import format_datetime, localtime, make_msgid, parseaddr
from typing import TYPE_CHECKING, Literal

from vrrpkit.errors import ConfigError, VRRPKitError
from vrrpkit.events import Attachment, Notifier
from vrrpkit.notify.letters import BODY, FIELDS, SUBJECT, fields_of, one_line
from vrrpkit.notify.outbox import Letter, Outbox, pause_before
from vrrpkit.values import whole_number

if TYPE_CHECKING:
    from ssl import SSLContext
    from types import TracebackType

    import aiosmtplib

__all__ = ["Mail"]

log = logging.getLogger(__name__)

PORTS = {"tls": 465, "starttls": 587, "opportunistic": 25, "none": 25}

STATES = ("MASTER", "BACKUP", "FAULT", "STOP", "UP", "DOWN")


class Mail(Notifier):
    """Mails what happens to whoever it is given to, through one SMTP server::

        async with Mail("smtp.example.net", to=["ops@example.net"]) as mail:
            async with VRRPInstance(..., notify=[mail]): ...

    Nothing waits for it. What cannot be delivered is kept, merged with its repetitions, and tried
    again after 5, 10, 20, ... at most 300 seconds, for as long as it takes; a server that refuses a
    letter for good (SMTP 5xx) is not asked again. Leaving gives what waits ``flush`` seconds.

    :param host: name or address of the SMTP server.
    :param to: one or more addresses (``notification_email``).
    :param sender: the address that it comes from (``notification_email_from``); by default
        ``vrrpkit@`` and the name of this host.
    :param port: by default 25, 587 with ``security="starttls"``, 465 with ``"tls"``.
    :param security: ``"opportunistic"``: STARTTLS if the server offers it, whatever its
        certificate; ``"starttls"``: or no mail; ``"tls"``: from the first octet on; ``"none"``. By
        default ``"starttls"`` with a password, and ``"opportunistic"`` without.
    :param verify: whether the server's certificate must be valid for ``host``.
    :param ca: a file with the certificates to trust instead of the system's.
    :param username: for AUTH.
    :param password: for AUTH.
    :param helo: the name to say in EHLO (``smtp_helo_name``); by default this host's.
    :param router_id: what the subject begins with (``router_id``); by default this host's name.
    :param subject: template, with the fields of :data:`vrrpkit.notify.letters.FIELDS` in braces.
    :param body: likewise.
    :param states: which states are worth a mail: ``MASTER``, ``BACKUP``, ``FAULT``, ``STOP`` of a
        router or group; ``UP``, ``DOWN`` of a real server or the quorum of a virtual server.
    :param deadline: seconds for one session with the server, all told (``smtp_connect_timeout``).
    :param flush: seconds that leaving gives what still waits.
    :param limit: letters that wait at most; beyond, the oldest is dropped.
    :raises ConfigError: a value is unusable; a template has an unknown field.
    """

    def __init__(
        self,
        host: str,
        *,
        to: str | Iterable[str],
        sender: str | None = None,
        port: int | None = None,
        security: Literal["opportunistic", "starttls", "tls", "none"] | None = None,
        verify: bool = True,
        ca: str | None = None,
        username: str | None = None,
        password: str | None = None,
        helo: str | None = None,
        router_id: str | None = None,
        subject: str = SUBJECT,
        body: str = BODY,
        states: Iterable[str] = STATES,
        deadline: float = 30.0,
        flush: float = 10.0,
        limit: int = 100,
    ) -> None:
        name = socket.gethostname()
        self._host = host
        self._to = tuple(_mailbox("to", one) for one in ([to] if isinstance(to, str) else to))
        self._sender = _mailbox("sender", sender or f"vrrpkit@{name}")
        self._security = security or ("opportunistic" if password is None else "starttls")
        self._verify = verify
        self._ca = ca
        self._username = username
        self._password = password
        self._helo = helo or name
        self._router_id = router_id or name
        self._subject = subject
        self._body = body
        self._states = frozenset(states)
        self._deadline = deadline
        self._flush = flush
        self._outbox = Outbox(limit)
        self._wake = asyncio.Event()
        self._leaving = asyncio.Event()
        self._delivered = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._check(port, limit)
        self._port = PORTS[self._security] if port is None else port
        self.sent = 0
        """Letters that the server took."""
        self.refused = 0
        """Letters that the server refused for good."""
        self.last_problem: str | None = None
        """Why the last try failed; ``None`` after one that did not."""

    def _check(self, port: int | None, limit: int) -> None:
        if not self._host or self._host != one_line(self._host):
            raise ConfigError(f"mail: host {self._host!r} is no name or address of a server")
        if not self._to:
            raise ConfigError("mail: to is empty; give at least one address")
        if self._security not in PORTS:
            raise ConfigError(
                f"mail: security {self._security!r} must be one of {', '.join(PORTS)}"
            )
        if port is not None:
            whole_number("mail: port", port, 1, 65535, "leave it out for the usual one")
        if (self._username is None) is not (self._password is None):
            raise ConfigError("mail: username and password go together; give both or neither")
        if self._password is not None and self._security not in {"starttls", "tls"}:
            raise ConfigError(
                "mail: a password would cross the network in clear; use security='starttls' or "
                "'tls'"
            )
        unknown = self._states - set(STATES)
        if unknown:
            raise ConfigError(
                f"mail: states {', '.join(sorted(unknown))} must be among {', '.join(STATES)}"
            )
        whole_number("mail: limit", limit, 1, 100_000, "letters that may wait")
        for what, seconds in (("deadline", self._deadline), ("flush", self._flush)):
            if not 0 < seconds <= 3600:
                raise ConfigError(f"mail: {what} {seconds} must be above 0 seconds, up to 3600")
        sample: dict[str, str] = dict.fromkeys(FIELDS, "")
        for what, template in (("subject", self._subject), ("body", self._body)):
            try:
                template.format_map(sample)
            except (KeyError, ValueError, IndexError) as problem:
                raise ConfigError(
                    f"mail: the {what} template is no good: {problem!r}; fields are "
                    f"{', '.join(sample)}"
                ) from None

    # --- life

    async def __aenter__(self) -> Mail:
        """Begin to deliver.

        :raises ConfigError: the certificates to trust cannot be read.
        """
        if self._task is not None:
            raise VRRPKitError("this Mail is in use already: make another one")
        # Loaded here: in the middle of things it would hold everybody up for a moment.
        importlib.import_module("aiosmtplib")
        context = self._context()
        self._task = asyncio.create_task(self._deliver(context), name="vrrpkit: mail")
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        task, self._task = self._task, None
        assert task is not None
        try:
            self._leaving.set()
            if self._outbox:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(self._flush):
                        await self._delivered.wait()
        finally:
            if self._outbox:
                log.warning(
                    "mail: %d letters were not delivered within %g s: %s",
                    len(self._outbox),
                    self._flush,
                    self.last_problem or "no answer",
                )
            task.cancel()
            await asyncio.wait([task])

    @property
    def waiting(self) -> int:
        """Letters that wait to be delivered."""
        return len(self._outbox)

    @property
    def dropped(self) -> int:
        """Letters that were dropped because too many waited."""
        return self._outbox.dropped

    # --- what comes in

    def attach(self, subject: object) -> Attachment:
        return _MailAttachment(self, subject)

    def tell(self, event: object, subject: object) -> None:
        """Mail about ``event`` of ``subject``, if it is worth one; returns at once."""
        now = time.time()
        fields = fields_of(event, subject, self._router_id, now)
        if fields is None or fields["state"] not in self._states:
            return
        self.send(self._subject.format_map(fields), self._body.format_map(fields), now)

    def send(self, subject: str, body: str, at: float | None = None) -> None:
        """Mail something of your own; returns at once.

        :param at: when it happened, in seconds since 1970; by default now.
        """
        before = self._outbox.dropped
        when = time.time() if at is None else at
        # What UTF-8 has no octets for could never be sent, and everything else waits behind it.
        body = body.encode(errors="replace").decode()
        self._outbox.put(Letter(subject=one_line(subject), body=body, at=when))
        if self._outbox.dropped > before == 0:
            log.warning("mail: too much waits for %s; the oldest is dropped", self._host)
        self._wake.set()

    # --- what goes out

    async def _deliver(self, context: SSLContext | None) -> None:
        tries = 0
        while True:
            self._wake.clear()
            if not self._outbox:
                self._delivered.set()
                await self._wake.wait()
            self._delivered.clear()
            try:
                async with asyncio.timeout(self._deadline):
                    await self._session(context)
            except Exception as problem:
                tries += 1
                pause = pause_before(tries)
                self.last_problem = f"{type(problem).__name__}: {problem}".rstrip(": ")
                level = logging.WARNING if tries == 1 else logging.DEBUG
                log.log(level, "mail: %s: %s", self._host, self.last_problem)
                await self._pause(pause)
            else:
                tries, self.last_problem = 0, None

    async def _pause(self, seconds: float) -> None:
        """Wait, unless it is time to leave: then try at once, and go on trying."""
        leaving = self._leaving.is_set()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(1.0 if leaving else seconds):
                await (asyncio.Event() if leaving else self._leaving).wait()

    async def _session(self, context: SSLContext | None) -> None:
        """Deliver what waits, in one session."""
        import aiosmtplib

        client = aiosmtplib.SMTP(
            hostname=self._host,
            port=self._port,
            username=self._username,
            password=self._password,
            local_hostname=self._helo,
            timeout=self._deadline,
            use_tls=self._security == "tls",
            start_tls={"starttls": True, "opportunistic": None}.get(self._security, False),
            tls_context=context,
        )
        try:
            await client.connect()
            while (letter := self._outbox.first()) is not None:
                taken = await self._hand_over(client, letter)
                self._outbox.sent(letter)
                if not taken:
                    await client.rset()
            await client.quit()
        finally:
            client.close()

    async def _hand_over(self, client: aiosmtplib.SMTP, letter: Letter) -> bool:
        """Whether the server took it; otherwise it refused it for good."""
        import aiosmtplib

        try:
            await client.send_message(
                self._written(letter), sender=self._sender, recipients=list(self._to)
            )
        except (aiosmtplib.SMTPRecipientsRefused, aiosmtplib.SMTPResponseException) as refusal:
            if not _for_good(refusal):
                raise
            self.refused += 1
            log.warning("mail: %s refused %r: %s", self._host, letter.subject, refusal)
            return False
        self.sent += 1
        return True

    def _written(self, letter: Letter) -> EmailMessage:
        message = EmailMessage()
        message["From"] = self._sender
        message["To"] = ", ".join(self._to)
        message["Subject"] = letter.subject
        message["Date"] = format_datetime(localtime())
        message["Message-ID"] = make_msgid(domain=parseaddr(self._sender)[1].rpartition("@")[2])
        message["Auto-Submitted"] = "auto-generated"
        body = letter.body
        if letter.repeats:
            since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(letter.first))
            body += f"\nThis has happened {letter.repeats + 1} times since {since}.\n"
        message.set_content(body)
        return message

    def _context(self) -> SSLContext | None:
        if self._security == "none":
            return None
        import ssl

        try:
            context = ssl.create_default_context(cafile=self._ca)
        except (OSError, ssl.SSLError) as problem:
            raise ConfigError(f"mail: ca {self._ca!r} cannot be used: {problem}") from None
        if not self._verify or self._security == "opportunistic":
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        return context


def _for_good(refusal: Exception) -> bool:
    codes = [getattr(one, "code", 0) for one in getattr(refusal, "recipients", None) or [refusal]]
    return all(500 <= code < 600 for code in codes)


def _mailbox(what: str, value: str) -> str:
    name, address = parseaddr(value)
    local, at, domain = address.rpartition("@")
    if value != one_line(value) or not (local and at and domain) or " " in address:
        raise ConfigError(f"mail: {what} {value!r} is no address; write it as 'ops@example.net'")
    return f"{name} <{address}>" if name else address


class _MailAttachment:
    """One object's mail. Everything waits in one outbox, which outlives the object."""

    def __init__(self, mail: Mail, subject: object) -> None:
        self._mail = mail
        self._subject = subject

    def tell(self, event: object) -> None:
        self._mail.tell(event, self._subject)

    async def close(self) -> None:
        """The mail's own end delivers what waits."""

    def cancel(self) -> None:
        """What was told is delivered all the same."""
