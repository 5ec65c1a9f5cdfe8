"""Mail to the operator (keepalived: ``smtp_alert``, ``smtp_server``, ``notification_email``)."""

from __future__ import annotations

import logging
import socket
import time
from collections.abc import Iterable
from email.utils import make_msgid
from typing import TYPE_CHECKING, Literal

from vrrpkit.errors import ConfigError, VRRPKitError
from vrrpkit.keyword_advice import advised
from vrrpkit.lifecycle.callbacks import LoopThread
from vrrpkit.lifecycle.fork import ProcessOrigin
from vrrpkit.lifecycle.leaving import shielded
from vrrpkit.lifecycle.loading import aside, load
from vrrpkit.notify.mail.delivery import Delivery, MailAccount
from vrrpkit.notify.model.mail import BODY, FIELDS, SUBJECT, fields_of
from vrrpkit.notify.model.mail_addresses import check_helo, check_server, mailbox, own_mailbox
from vrrpkit.notify.model.outbox import MailMessage, Outbox
from vrrpkit.publishing import Attachment, Notifier
from vrrpkit.validate import one_line, whole_number

if TYPE_CHECKING:
    from ssl import SSLContext
    from types import TracebackType

__all__ = ["Mail"]

log = logging.getLogger(__name__)

PORTS = {"tls": 465, "starttls": 587, "opportunistic": 25, "none": 25}

STATES = ("MASTER", "BACKUP", "FAULT", "STOP", "UP", "DOWN")


@advised
class Mail(Notifier):
    """Mails what happens to whoever it is given to, through one SMTP server::

        async with Mail("smtp.example.net", to=["ops@example.net"]) as mail:
            async with VRRPInstance(..., notify=[mail]): ...

    Nothing waits for it. What cannot be delivered is kept, merged with its repetitions, and tried
    again after 5, 10, 20, ... at most 300 seconds, for as long as it takes; a server that refuses a
    letter for good (SMTP 5xx) is not asked again. That holds for each recipient by itself: who has
    a letter does not get it again because another one's mailbox is closed for now (SMTP 4xx), as
    with greylisting, and new letters wait at most 5 seconds for such a one. Leaving gives what
    waits ``flush`` seconds.

    :param host: name or address of the SMTP server, without a port.
    :param to: one or more addresses (``notification_email``).
    :param sender: the address that it comes from (``notification_email_from``), at a full host
        name, at ``localhost`` or at an address literal such as ``[192.0.2.1]``; by default
        ``vrrpkit@`` and what ``helo`` is.
    :param port: by default 25, 587 with ``security="starttls"``, 465 with ``"tls"``.
    :param security: ``"opportunistic"``: STARTTLS if the server offers it, whatever its
        certificate, and clear text where that fails, which a warning and :attr:`tls_problem` say;
        ``"starttls"``: or no mail; ``"tls"``: from the first octet on; ``"none"``. By default
        ``"starttls"`` with a password, and ``"opportunistic"`` without.
    :param verify: whether the server's certificate must be valid for ``host``.
    :param ca: a file with the certificates to trust instead of the system's.
    :param username: for AUTH.
    :param password: for AUTH.
    :param helo: what to say in EHLO (``smtp_helo_name``): a full host name, or an address literal
        such as ``[192.0.2.1]``; by default this host's full name, and where it has none the address
        that it reaches the server from (RFC 5321, section 4.1.4).
    :param router_id: what the subject begins with (``router_id``); by default this host's name.
    :param subject: template, with the fields of :data:`vrrpkit.notify.model.mail.FIELDS` in braces.
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
        self._security = security or ("opportunistic" if password is None else "starttls")
        self._verify = verify
        self._ca = ca
        self._router_id = router_id or name
        self._subject = subject
        self._body = body
        self._states = frozenset([states] if isinstance(states, str) else states)
        self._flush = flush
        self._check(host, port, helo, limit, username, password, deadline)
        recipients = tuple(mailbox("to", one) for one in ([to] if isinstance(to, str) else to))
        if not recipients:
            raise ConfigError("mail: to is empty; give at least one address")
        self._post = MailAccount(
            host=host,
            port=PORTS[self._security] if port is None else port,
            security=self._security,
            sender=None if sender is None else own_mailbox("sender", sender),
            recipients=recipients,
            helo=helo,
            username=username,
            password=password,
            deadline=deadline,
        )
        sender_address = self._post.sender
        self._domain = name if sender_address is None else sender_address.domain
        # Once each, in order.
        self._left = tuple(dict.fromkeys(one.addr_spec for one in recipients))
        self._outbox = Outbox(limit)
        self._delivery = Delivery(self._post, self._outbox)
        self._entered = self._ended = False
        self._origin: ProcessOrigin | None = None
        self._home: LoopThread | None = None

    def _check(
        self,
        host: str,
        port: int | None,
        helo: str | None,
        limit: int,
        username: str | None,
        password: str | None,
        deadline: float,
    ) -> None:
        check_server(host)
        if helo is not None:
            check_helo(helo)
        if self._security not in PORTS:
            raise ConfigError(
                f"mail: security {self._security!r} must be one of {', '.join(PORTS)}"
            )
        if port is not None:
            whole_number("mail: port", port, 1, 65535, "leave it out for the usual one")
        if (username is None) is not (password is None):
            raise ConfigError("mail: username and password go together; give both or neither")
        if password is not None and self._security not in {"starttls", "tls"}:
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
        for what, seconds in (("deadline", deadline), ("flush", self._flush)):
            if not 0 < seconds <= 3600:
                raise ConfigError(f"mail: {what} {seconds} must be above 0 seconds, up to 3600")
        sample: dict[str, str] = dict.fromkeys(FIELDS, "")
        for what, template in (("subject", self._subject), ("body", self._body)):
            try:
                template.format_map(sample)
            except (KeyError, ValueError, IndexError, AttributeError) as problem:
                raise ConfigError(
                    f"mail: the {what} template is no good: {problem!r}; fields are "
                    f"{', '.join(sample)}"
                ) from None

    # --- life

    async def __aenter__(self) -> Mail:
        """Begin to deliver.

        :raises ConfigError: the certificates to trust cannot be read.
        """
        if self._entered:
            raise VRRPKitError("this Mail was entered before: make another one")
        # Loaded here: in the middle of things it would hold everybody up for a moment.
        await load("aiosmtplib")
        context = None if self._security == "none" else await aside(self._context)
        self._entered = True
        self._origin = ProcessOrigin()
        self._home = LoopThread()
        self._delivery.start(context)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._origin is not None and self._origin.elsewhere:
            # The parent delivers what waits.
            return
        try:
            await self._delivery.leave(self._flush)
        finally:
            self._ended = True
            if self._outbox:
                log.warning(
                    "mail: %d letters were not delivered within %g s: %s",
                    len(self._outbox),
                    self._flush,
                    self.last_problem or "no answer",
                )
            await shielded(self._delivery.end(), "vrrpkit: mail ends")

    @property
    def waiting(self) -> int:
        """Letters that wait to be delivered."""
        return len(self._outbox)

    @property
    def dropped(self) -> int:
        """Letters that were dropped because too many waited, or came after the end."""
        return self._outbox.dropped

    @property
    def sent(self) -> int:
        """Letters that the server took, for one recipient at least."""
        return self._delivery.sent

    @property
    def refused(self) -> int:
        """Letters that the server refused for good, for all recipients."""
        return self._delivery.refused

    @property
    def last_problem(self) -> str | None:
        """Why the last try failed; ``None`` after one that did not."""
        return self._delivery.problem

    @property
    def tls_problem(self) -> str | None:
        """Why the last session was in clear text although the server offers STARTTLS, with
        ``security="opportunistic"``; ``None`` if it was not."""
        return self._delivery.tls_problem

    # --- what comes in

    def attach(self, subject: object) -> Attachment:
        """Begin to tell of ``subject``.

        :raises ConfigError: this Mail is not entered, so that nothing would be delivered.
        """
        self._require_entered()
        if self._ended:
            raise ConfigError(
                "this Mail has ended and delivers nothing more; enter it around the routers and "
                "servers that it tells of"
            )
        return _MailAttachment(self, subject)

    def _require_entered(self) -> None:
        if not self._entered:
            raise ConfigError(
                "this Mail was not entered, so nothing would be delivered; write 'async with "
                "Mail(...) as mail:' around what it tells of"
            )
        if self._home is not None:
            self._home.require("Mail.send")

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
        :raises ConfigError: this Mail was never entered.
        """
        self._require_entered()
        before = self._outbox.dropped
        if self._ended:
            self._outbox.dropped += 1
            if not before:
                log.warning("mail: %r comes too late: enter Mail around what it tells of", subject)
            return
        # What UTF-8 has no octets for could never be sent.
        self._outbox.put(
            MailMessage(
                id=make_msgid(domain=self._domain),
                subject=one_line(subject),
                body=body.encode(errors="replace").decode(),
                at=time.time() if at is None else at,
                left=self._left,
            )
        )
        if self._outbox.dropped > before == 0:
            log.warning("mail: too much waits for %s; the oldest is dropped", self._post.host)
        self._delivery.wake()

    def _context(self) -> SSLContext:
        import ssl

        try:
            context = ssl.create_default_context(cafile=self._ca)
        except (OSError, ssl.SSLError) as problem:
            raise ConfigError(f"mail: ca {self._ca!r} cannot be used: {problem}") from None
        if not self._verify or self._security == "opportunistic":
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        return context


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
