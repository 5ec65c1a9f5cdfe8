"""A mail server on the loopback interface that does as it is told."""

from __future__ import annotations

import asyncio
import contextlib
import email
import email.policy
from collections.abc import AsyncGenerator
from email.message import EmailMessage
from ssl import SSLContext
from typing import Any

from aiosmtpd.smtp import SMTP, Envelope, Session

from vrrpkit.notify.mail.notifier import Mail

ADDRESS = "127.0.0.1"


class Server:
    """Keeps what it is given."""

    def __init__(self) -> None:
        self.mails: list[EmailMessage] = []
        self.envelopes: list[Envelope] = []
        self.answers: list[str] = []
        self.refusals: dict[str, list[str]] = {}
        """Answers to RCPT for an address, in turn; then it is accepted."""
        self.farewell = True
        """Whether QUIT is answered."""
        self.hangs_up = False
        self.port = 0
        self.sessions = 0
        self.encrypted: list[bool] = []
        self.came = asyncio.Event()

    async def handle_EHLO(  # noqa: N802
        self, server: SMTP, session: Session, envelope: Envelope, hostname: str, lines: list[str]
    ) -> list[str]:
        self.sessions += 1
        session.host_name = hostname
        return lines

    async def handle_RCPT(  # noqa: N802
        self,
        server: SMTP,
        session: Session,
        envelope: Envelope,
        address: str,
        rcpt_options: list[str],
    ) -> str:
        answers = self.refusals.get(address)
        if answers:
            return answers.pop(0)
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_QUIT(  # noqa: N802
        self, server: SMTP, session: Session, envelope: Envelope
    ) -> str:
        if not self.farewell:
            await asyncio.sleep(3600)
        return "221 Bye"

    async def handle_DATA(  # noqa: N802
        self, server: SMTP, session: Session, envelope: Envelope
    ) -> str:
        if self.answers:
            answer = self.answers.pop(0)
            if answer == "hang up" and server.transport is not None:
                server.transport.close()
            if answer:
                if self.hangs_up and server.transport is not None:
                    asyncio.get_running_loop().call_later(0.02, server.transport.close)
                return answer
        assert isinstance(envelope.content, bytes)
        parsed = email.message_from_bytes(envelope.content, policy=email.policy.default)
        assert isinstance(parsed, EmailMessage)
        self.mails.append(parsed)
        self.envelopes.append(envelope)
        self.encrypted.append(session.ssl is not None)
        self.came.set()
        return "250 OK"

    @property
    def mail_messages(self) -> list[tuple[Envelope, EmailMessage]]:
        """What came, with its envelope."""
        return list(zip(self.envelopes, self.mails, strict=True))

    @property
    def subjects(self) -> list[str]:
        # Long ones are folded, which leaves white space.
        return [str(mail["Subject"]).strip() for mail in self.mails]

    async def wait(self, count: int) -> None:
        async with asyncio.timeout(20):
            while len(self.mails) < count:
                self.came.clear()
                await self.came.wait()


@contextlib.asynccontextmanager
async def serving(
    port: int = 0, *, ssl: SSLContext | None = None, **settings: Any
) -> AsyncGenerator[Server]:
    """Run one; ``settings`` are aiosmtpd's."""
    server = Server()
    loop = asyncio.get_running_loop()

    def make() -> SMTP:
        return SMTP(server, hostname="test.example", loop=loop, **settings)

    async with await asyncio.get_running_loop().create_server(
        make, ADDRESS, port, ssl=ssl
    ) as listener:
        server.port = listener.sockets[0].getsockname()[1]
        yield server


def mail(server: Server, **changes: Any) -> Mail:
    """Mail by way of a server, in clear unless told otherwise."""
    settings: dict[str, Any] = {
        "to": ["ops@example.net", "Night Shift <night@example.net>"],
        "sender": "lb1@example.net",
        "router_id": "lb1",
        "port": server.port,
        "security": "none",
    }
    return Mail(ADDRESS, **(settings | changes))


async def failed(mailing: Mail) -> None:
    """Wait until a try has failed."""
    async with asyncio.timeout(30):
        while True:
            if mailing.last_problem is not None:
                return
            await asyncio.sleep(0.01)


async def delivered(mailing: Mail) -> None:
    """Wait until nothing waits any more."""
    async with asyncio.timeout(60):
        while True:
            if not mailing.waiting:
                return
            await asyncio.sleep(0.01)
