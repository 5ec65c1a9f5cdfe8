"""Carrying letters to a server that is away, hangs, hangs up, or takes some and not others."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import threading
import time
from collections.abc import AsyncGenerator
from email.message import EmailMessage
from typing import ClassVar

import aiosmtplib
import pytest
import trustme

from notify.postbox import ADDRESS, Server, delivered, failed, mail, serving
from vrrpkit import Mail, MemoryBus, State, VRRPInstance
from vrrpkit.notify.mail import connect, delivery
from vrrpkit.testing import virtual_time

OPS, NIGHT = "ops@example.net", "night@example.net"
HELO = "lb1.example.net"


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tries soon follow one another."""
    monkeypatch.setattr(delivery, "pause_before", lambda tries: 0.05)
    monkeypatch.setattr(delivery, "FAREWELL", 0.1)


def test_a_server_that_comes_back_gets_what_waited_merged() -> None:
    async def main() -> None:
        async with serving() as server:
            port = server.port
        nobody = Server()
        nobody.port = port
        async with mail(nobody, limit=3) as mailing:
            for number in range(1000):
                mailing.send(f"flap {number % 2}", f"body {number}")
                if number % 100 == 0:
                    await asyncio.sleep(0.02)
            assert mailing.waiting == 2
            for number in range(5):
                mailing.send(f"more {number}", "body")
            assert (mailing.waiting, mailing.dropped) == (3, 4)
            assert mailing.last_problem
            async with serving(port) as server:
                await server.wait(3)
        assert server.subjects == ["more 2", "more 3", "more 4"]

    asyncio.run(main())


def test_what_is_refused_for_good_is_not_tried_again() -> None:
    async def main() -> None:
        async with serving() as server, mail(server) as mailing:
            server.answers = ["554 no such mail here", "", "451 later", ""]
            for number in range(3):
                mailing.send(f"letter {number}", "body")
            await server.wait(2)
        assert server.subjects == ["letter 1", "letter 2"]
        assert (mailing.sent, mailing.refused) == (2, 1)

    asyncio.run(main())


def test_leaving_is_bounded_when_the_server_hangs() -> None:
    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            await reader.read()
        writer.close()

    async def main() -> None:
        async with await asyncio.start_server(silent, ADDRESS, 0) as listener:
            nobody = Server()
            nobody.port = listener.sockets[0].getsockname()[1]
            async with asyncio.timeout(20):
                async with mail(nobody, deadline=0.2, flush=0.5) as mailing:
                    mailing.send("one", "body")
                    await failed(mailing)
                assert "TimeoutError" in str(mailing.last_problem)
                assert mailing.waiting == 1

    asyncio.run(main())


def test_a_letter_that_no_server_could_take_holds_up_no_other() -> None:
    async def main() -> None:
        async with serving() as server, mail(server) as mailing:
            mailing.send("half a pair \udc80", "\udc80")
            mailing.send("whole", "body")
            await server.wait(2)
        assert server.subjects == ["half a pair", "whole"]
        assert str(server.mails[0].get_content()).strip() == "?"

    asyncio.run(main())


def test_a_server_that_hangs_up_after_a_refusal_is_not_asked_again() -> None:
    async def main() -> None:
        async with serving() as server, mail(server) as mailing:
            server.hangs_up = True
            server.answers = ["554 go away"]
            mailing.send("refused", "body")
            mailing.send("taken", "body")
            await server.wait(1)
        assert server.subjects == ["taken"]
        assert (mailing.sent, mailing.refused, mailing.waiting) == (1, 1, 0)

    asyncio.run(main())


def test_one_recipient_that_is_refused_is_named_and_the_other_gets_it(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def main() -> None:
        async with serving() as server, mail(server) as mailing:
            server.refusals[NIGHT] = ["550 5.1.1 no such user", "550 5.1.1 no such user"]
            mailing.send("one", "body")
            await server.wait(1)
            mailing.send("two", "body")
        assert [envelope.rcpt_tos for envelope in server.envelopes] == [[OPS], [OPS]]
        assert (mailing.sent, mailing.refused, mailing.waiting) == (2, 0, 0)
        assert mailing.last_problem is None

    asyncio.run(main())
    assert caplog.text.count(f"for {NIGHT}: 550 5.1.1 no such user") == 2
    assert OPS not in caplog.text


def test_greylisting_of_one_recipient_costs_no_letter_and_repeats_none() -> None:
    async def main() -> None:
        async with serving() as server, mail(server) as mailing:
            server.refusals[NIGHT] = ["451 4.7.1 come back later"] * 3
            mailing.send("one", "body")
            mailing.send("two", "body")
            await server.wait(4)
        told = [(envelope.rcpt_tos, mail["Subject"]) for envelope, mail in server.mail_messages]
        assert told[:2] == [([OPS], "one"), ([OPS], "two")]
        assert sorted(told[2:]) == [([NIGHT], "one"), ([NIGHT], "two")]
        # The same letter, not another one.
        assert len({mail["Message-ID"] for mail in server.mails}) == 2
        assert (mailing.sent, mailing.refused, mailing.waiting) == (2, 0, 0)

    asyncio.run(main())


def test_greylisting_of_all_keeps_the_order() -> None:
    async def main() -> None:
        async with serving() as server, mail(server) as mailing:
            server.refusals = {OPS: ["450 later"] * 3, NIGHT: ["450 later"] * 3}
            for subject in ("one", "two", "three"):
                mailing.send(subject, "body")
            await server.wait(3)
        assert server.subjects == ["one", "two", "three"]
        assert {len(envelope.rcpt_tos) for envelope in server.envelopes} == {2}

    asyncio.run(main())


def test_one_refused_for_good_and_the_other_for_now() -> None:
    async def main() -> None:
        async with serving() as server, mail(server) as mailing:
            server.refusals = {OPS: ["550 never"], NIGHT: ["450 later"]}
            mailing.send("one", "body")
            await server.wait(1)
            server.refusals = {OPS: ["550 never"], NIGHT: ["550 never"]}
            mailing.send("two", "body")
        assert [envelope.rcpt_tos for envelope in server.envelopes] == [[NIGHT]]
        assert (mailing.sent, mailing.refused) == (1, 1)

    asyncio.run(main())


def test_a_letter_that_is_refused_for_now_holds_up_no_other() -> None:
    async def main() -> None:
        async with serving() as server, mail(server) as mailing:
            server.answers = ["451 looks like spam", "", "451 looks like spam", ""]
            mailing.send("odd", "body")
            mailing.send("plain", "body")
            await server.wait(2)
        assert server.subjects == ["plain", "odd"]
        assert mailing.sent == 2

    asyncio.run(main())


@pytest.mark.parametrize("how", ["421 closing", "hang up"])
def test_a_server_that_hangs_up_in_the_middle_is_asked_again(how: str) -> None:
    async def main() -> None:
        async with serving() as server, mail(server) as mailing:
            server.answers = [how]
            mailing.send("one", "body")
            mailing.send("two", "body")
            await server.wait(2)
        assert server.subjects == ["one", "two"]
        assert server.sessions >= 2
        assert (mailing.sent, mailing.refused) == (2, 0)

    asyncio.run(main())


def test_a_server_that_does_not_answer_quit_has_its_letters_all_the_same() -> None:
    async def main() -> None:
        async with serving() as server:
            server.farewell = False
            async with mail(server, flush=3600) as mailing:
                mailing.send("one", "body")
                await server.wait(1)
                mailing.send("two", "body")
            assert mailing.last_problem is None
        assert server.subjects == ["one", "two"]

    asyncio.run(main())


def test_what_is_sent_as_the_last_thing_is_delivered() -> None:
    async def main() -> None:
        async with serving() as server, mail(server, flush=3600) as mailing:
            # It has begun to wait for letters.
            await asyncio.sleep(0.05)
            mailing.send("last words", "body")
        assert server.subjects == ["last words"]

    asyncio.run(main())


def test_what_comes_after_the_end_is_counted_and_complained_of_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def main() -> None:
        async with serving() as server:
            async with mail(server) as mailing:
                pass
            mailing.send("one", "body")
            mailing.send("two", "body")
            assert (mailing.waiting, mailing.dropped) == (0, 2)

    asyncio.run(main())
    assert caplog.text.count("comes too late") == 1


def test_leaving_can_be_cancelled() -> None:
    async def main() -> None:
        async with serving() as server:
            port = server.port
        nobody = Server()
        nobody.port = port

        async def use() -> None:
            async with mail(nobody, flush=3600) as mailing:
                mailing.send("one", "body")

        before = len(asyncio.all_tasks())
        task = asyncio.create_task(use())
        await asyncio.sleep(0.1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert len(asyncio.all_tasks()) == before

    asyncio.run(main())


class Broken:
    """A server that offers STARTTLS, which fails, and takes mail in clear text."""

    def __init__(self, answer: bytes, then: str = "") -> None:
        self.answer = answer
        self.then = then
        self.heard: list[bytes] = []
        self.helo = b"250-here\r\n250 STARTTLS\r\n"
        self.mail = b"250 fine\r\n"
        self.port = 0
        self.bodies: list[bytes] = []

    async def talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, ssl.SSLError):
            await self._talk(reader, writer)
        writer.close()

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 ready\r\n")
        while line := await reader.readline():
            self.heard.append(line.strip())
            word = line[:4].upper()
            if word == b"STAR":
                writer.write(self.answer)
                if self.then == "hang":
                    await reader.read()
                if self.then == "hang up":
                    await reader.read(1)
                if self.then == "garbage":
                    writer.write(b"this is no TLS at all\r\n")
                if self.then:
                    return
            elif word == b"DATA":
                writer.write(b"354 go ahead\r\n")
                self.bodies.append(await reader.readuntil(b"\r\n.\r\n"))
                writer.write(b"250 taken\r\n")
            elif word == b"QUIT":
                writer.write(b"221 bye\r\n")
                return
            elif word in (b"EHLO", b"HELO"):
                writer.write(self.helo)
            else:
                writer.write(self.mail if word == b"MAIL" else b"250 fine\r\n")
            await writer.drain()

    @contextlib.asynccontextmanager
    async def serving(self) -> AsyncGenerator[Server]:
        async with await asyncio.start_server(self.talk, ADDRESS, 0) as listener:
            server = Server()
            server.port = self.port = listener.sockets[0].getsockname()[1]
            yield server


FAILURES = [
    (b"454 4.7.0 TLS not available\r\n", ""),
    (b"502 5.5.1 not here\r\n", ""),
    (b"421 4.3.0 later\r\n", "hang up"),
    (b"220 go ahead\r\n", "hang up"),
    (b"220 go ahead\r\n", "garbage"),
    (b"220 go ahead\r\n", "hang"),
]


@pytest.mark.parametrize(("answer", "then"), FAILURES)
def test_opportunistic_mail_goes_in_clear_text_when_starttls_fails_and_says_so(
    answer: bytes, then: str, caplog: pytest.LogCaptureFixture
) -> None:
    broken = Broken(answer, then)

    async def main() -> None:
        async with broken.serving() as server:
            async with mail(server, security="opportunistic", deadline=3, flush=10) as mailing:
                for subject in ("one", "two"):
                    mailing.send(subject, "body")
                    await delivered(mailing)
                assert mailing.tls_problem
            assert (mailing.sent, mailing.waiting, mailing.last_problem) == (2, 0, None)

    asyncio.run(main())
    assert [body.count(b"Subject: ") for body in broken.bodies] == [1, 1]
    assert caplog.text.count("letters go in clear text") == 1
    assert "security='starttls'" in caplog.text


@pytest.mark.parametrize(("answer", "then"), FAILURES[:-1])
def test_mail_that_insists_on_starttls_never_goes_in_clear_text(answer: bytes, then: str) -> None:
    broken = Broken(answer, then)

    async def main() -> None:
        async with (
            broken.serving() as server,
            mail(server, security="starttls", deadline=3, flush=0.3) as mailing,
        ):
            mailing.send("secret", "body")
            await failed(mailing)
        assert mailing.waiting == 1
        assert mailing.last_problem
        assert mailing.tls_problem is None

    asyncio.run(main())
    assert any(line.startswith(b"STARTTLS") for line in broken.heard)
    assert not any(line.startswith(b"MAIL") for line in broken.heard)


def test_tls_that_works_again_is_told(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(ADDRESS).configure_cert(context)

    async def main() -> None:
        async with contextlib.AsyncExitStack() as stack:
            broken = Broken(b"454 not now\r\n")
            async with broken.serving() as first:
                port = first.port
                mailing = await stack.enter_async_context(mail(first, security="opportunistic"))
                mailing.send("one", "body")
                await delivered(mailing)
            async with serving(port, tls_context=context) as server:
                mailing.send("two", "body")
                await server.wait(1)
                await delivered(mailing)
                assert server.encrypted == [True]
            assert mailing.tls_problem is None

    asyncio.run(main())
    assert "do not go in clear text any more" in caplog.text


@pytest.mark.parametrize("where", ["helo", "mail", "recipient"])
@pytest.mark.parametrize(
    "answer",
    [b"504 5.5.2 <lb1>: Helo command rejected: need fully-qualified hostname\r\n", b"530 TLS!\r\n"],
)
def test_a_name_that_is_refused_is_no_refusal_of_the_letter(where: str, answer: bytes) -> None:
    async def main() -> None:
        if where == "recipient":
            async with serving() as server, mail(server) as mailing:
                answers = [answer.decode().strip()] * 3
                server.refusals = {OPS: answers[:], NIGHT: answers[:]}
                mailing.send("one", "body")
                await failed(mailing)
                await server.wait(1)
            assert server.subjects == ["one"]
        else:
            broken = Broken(b"")
            broken.helo, usual = (answer if where == "helo" else b"250 here\r\n"), b"250 here\r\n"
            broken.mail = answer if where == "mail" else b"250 fine\r\n"
            async with broken.serving() as server, mail(server) as mailing:
                mailing.send("one", "body")
                await failed(mailing)
                assert answer[:3].decode() in str(mailing.last_problem)
                assert mailing.waiting == 1
                broken.helo, broken.mail = usual, b"250 fine\r\n"
                await delivered(mailing)
            assert len(broken.bodies) == 1
        assert (mailing.sent, mailing.refused) == (1, 0)

    asyncio.run(main())


@pytest.mark.parametrize(
    ("host", "canonical", "said"),
    [
        ("lb1.example.net", None, "lb1.example.net"),
        ("lb1", "lb1.example.org", "lb1.example.org"),
        ("lb1", "lb1", f"[{ADDRESS}]"),
        ("lb1", None, f"[{ADDRESS}]"),
        ("lb1", "hang", f"[{ADDRESS}]"),
    ],
)
def test_this_host_says_its_full_name_or_its_address(
    host: str, canonical: str | None, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[object] = []
    gate = threading.Event()

    def answer(name: str, port: object, **_: object) -> list[tuple[object, ...]]:
        asked.append(name)
        if canonical == "hang":
            gate.wait(60)
        if canonical is None:
            raise OSError("no resolver")
        return [(2, 1, 6, canonical, ("192.0.2.1", 0))]

    monkeypatch.setattr("socket.gethostname", lambda: host)
    monkeypatch.setattr("socket.getaddrinfo", answer)
    monkeypatch.setattr(delivery, "NAMING", 0.3)
    broken = Broken(b"")
    broken.helo = b"250 here\r\n"

    async def main() -> None:
        async with broken.serving() as server, mail(server, sender=None) as mailing:
            mailing.send("one", "body")
            await delivered(mailing)

    asyncio.run(main())
    gate.set()
    assert f"EHLO {said}".encode() in broken.heard
    assert any(line.startswith(f"MAIL FROM:<vrrpkit@{said}>".encode()) for line in broken.heard)
    assert f"From: vrrpkit@{said}".encode() in broken.bodies[0]
    assert bool(asked) is (host == "lb1")
    for thread in threading.enumerate():
        if thread.name == "vrrpkit: resolver":
            thread.join(20)


def test_tls_from_the_first_octet_on() -> None:
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(ADDRESS).configure_cert(context)

    async def main() -> None:
        async with serving(ssl=context) as server:
            with authority.cert_pem.tempfile() as trusted:
                async with mail(server, security="tls", ca=trusted) as mailing:
                    mailing.send("one", "body")
                async with mail(server, security="tls", flush=0.3) as mailing:
                    mailing.send("two", "body")
                    await failed(mailing)
                assert "CERTIFICATE_VERIFY_FAILED" in str(mailing.last_problem)
        assert server.subjects == ["one"]

    asyncio.run(main())


def test_names_of_any_letters_and_a_comma() -> None:
    async def main() -> None:
        people = ['"Müller, Night" <night@example.net>', "ops@example.net"]
        async with serving() as server, mail(server, to=people) as mailing:
            mailing.send("Zürich 東京 MASTER", "größer\n.\nend")
            await server.wait(1)
        (mail_message,) = server.mails
        (night, ops) = mail_message["To"].addresses
        assert (night.display_name, night.addr_spec) == ("Müller, Night", NIGHT)
        assert ops.addr_spec == OPS
        assert server.subjects == ["Zürich 東京 MASTER"]
        assert str(mail_message.get_content()).splitlines() == ["größer", ".", "end"]

    asyncio.run(main())


# --- without a network, under virtual time


class Away:
    """In place of ``aiosmtplib.SMTP``: a server that is away for an hour, and then back."""

    back = 0.0
    tries: ClassVar[list[float]] = []
    taken: ClassVar[list[EmailMessage]] = []

    is_ehlo_or_helo_needed = False

    def __init__(self, **_: object) -> None:
        self.is_connected = True

    def supports_extension(self, name: str) -> bool:
        return False

    async def connect(self) -> None:
        loop = asyncio.get_running_loop()
        self.tries.append(loop.time())
        if loop.time() < self.back:
            if len(self.tries) % 2:
                raise ConnectionRefusedError("nobody there")
            await asyncio.sleep(3600)

    async def send_message(
        self, message: EmailMessage, *, sender: str, recipients: list[str]
    ) -> tuple[dict[str, object], str]:
        self.taken.append(message)
        return {}, "OK"

    async def quit(self) -> None:
        """It says goodbye."""

    def close(self) -> None:
        """There is nothing to close."""


class Stubborn(Away):
    """It hangs, and a cancellation of what it does is lost, as in Python 3.11 may happen."""

    async def send_message(
        self, message: EmailMessage, *, sender: str, recipients: list[str]
    ) -> tuple[dict[str, object], str]:
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(3600)
        return {}, "OK"


@virtual_time()
async def test_a_cancellation_that_is_lost_ends_it_all_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def connected(_: object, __: float) -> None:
        return None

    monkeypatch.setattr(aiosmtplib, "SMTP", Stubborn)
    monkeypatch.setattr(connect.Connector, "connect", connected)
    loop = asyncio.get_running_loop()
    before, start = len(asyncio.all_tasks()), loop.time()
    async with Mail(ADDRESS, to=OPS, helo=HELO, flush=5, deadline=600) as mailing:
        for number in range(3):
            mailing.send(f"letter {number}", "body")
    assert loop.time() - start < 10
    assert len(asyncio.all_tasks()) == before


@virtual_time()
async def test_one_who_is_cancelled_twice_leaves_nothing_behind(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def connected(_: object, __: float) -> None:
        return None

    async def use() -> None:
        async with Mail(ADDRESS, to=OPS, helo=HELO, flush=3600, deadline=600) as mailing:
            for number in range(3):
                mailing.send(f"letter {number}", "body")

    monkeypatch.setattr(aiosmtplib, "SMTP", Stubborn)
    monkeypatch.setattr(connect.Connector, "connect", connected)
    before = len(asyncio.all_tasks())
    task = asyncio.create_task(use())
    await asyncio.sleep(1)
    for _ in range(2):
        task.cancel()
        await asyncio.sleep(0.1)
    with pytest.raises(asyncio.CancelledError):
        await task
    assert len(asyncio.all_tasks()) == before


class Full(Away):
    """One mailbox is full."""

    async def send_message(
        self, message: EmailMessage, *, sender: str, recipients: list[str]
    ) -> tuple[dict[str, object], str]:
        full = {one: aiosmtplib.SMTPResponse(452, "full") for one in recipients if one == NIGHT}
        if len(full) == len(recipients):
            refused = [aiosmtplib.SMTPRecipientRefused(452, "full", one) for one in full]
            raise aiosmtplib.SMTPRecipientsRefused(refused)
        self.taken.append(message)
        return dict(full), "OK"


@virtual_time(limit=5000)
async def test_a_mailbox_that_is_full_for_long_delays_nobody_elses_mail(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def connected(_: object, __: float) -> None:
        return None

    monkeypatch.undo()
    monkeypatch.setattr(aiosmtplib, "SMTP", Full)
    monkeypatch.setattr(connect.Connector, "connect", connected)
    monkeypatch.setattr(Full, "tries", [])
    monkeypatch.setattr(Full, "taken", [])
    async with Mail(ADDRESS, to=[OPS, NIGHT], helo=HELO) as mailing:
        mailing.send("one", "body")
        await asyncio.sleep(2000)
        # 5, 10, 20, ... 300.
        assert len(Full.tries) in range(10, 13)
        assert mailing.last_problem == f"Postponed: for {NIGHT}: 452 full"
        mailing.send("two", "body")
        await asyncio.sleep(5.1)
        assert [mail["Subject"] for mail in Full.taken] == ["one", "two"]
        # That many letters do not become that many sessions.
        before = len(Full.tries)
        for number in range(40):
            mailing.send(f"more {number}", "body")
            await asyncio.sleep(1)
        assert len(Full.tries) - before in range(7, 10)
        assert len(Full.taken) > 34
        mailing.send("last", "body")
    assert Full.taken[-1]["Subject"] == "last"


@virtual_time(limit=5000)
async def test_an_hour_without_the_server_costs_little_and_loses_no_state(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def connected(_: object, __: float) -> None:
        return None

    loop = asyncio.get_running_loop()
    # Pauses as they are.
    monkeypatch.undo()
    monkeypatch.setattr(aiosmtplib, "SMTP", Away)
    monkeypatch.setattr(connect.Connector, "connect", connected)
    start = loop.time()
    monkeypatch.setattr(Away, "back", start + 3600)
    monkeypatch.setattr(Away, "tries", [])
    monkeypatch.setattr(Away, "taken", [])
    bus = MemoryBus()
    async with (
        Mail(ADDRESS, to=OPS, helo=HELO, limit=5) as mailing,
        VRRPInstance(
            "web", bus.interface("192.0.2.1"), vrid=1, vips=["192.0.2.10/24"], notify=[mailing]
        ) as one,
    ):
        while loop.time() < start + 3600:
            await one.wait_for(State.MASTER)
            bus.unplug("192.0.2.1")
            await one.wait_for(State.FAULT)
            await asyncio.sleep(15)
            bus.plug("192.0.2.1")
            assert mailing.waiting <= 3
        await one.wait_for(State.MASTER)
        flaps = one.statistics.master_transitions
        assert flaps > 100
        pauses = [b - a for a, b in zip(Away.tries, Away.tries[1:], strict=False)]
        # 5, 10, 20, ... 300, and every other time the 30 seconds of the deadline.
        assert pauses[:4] == pytest.approx([5, 40, 20, 70], abs=0.1)
        assert max(pauses) <= 330.1
        assert len(pauses) < 20
        await asyncio.sleep(331)
        assert mailing.waiting == 0
        assert len(Away.taken) >= 3
        bodies = {str(m["Subject"])[-12:]: str(m.get_content()) for m in Away.taken[:3]}
        assert f"This has happened {flaps} times since" in bodies["MASTER state"]
    assert mailing.dropped == 0
    assert str(Away.taken[-1]["Subject"]).endswith("Stopping")


@virtual_time()
async def test_an_address_that_is_silent_leaves_time_for_the_next(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tried: list[object] = []

    async def to(place: object) -> object:
        tried.append(place)
        if len(tried) == 1:
            await asyncio.sleep(3600)
        if len(tried) == 2:
            raise ConnectionRefusedError("nobody there")
        return "a socket"

    async def places(_: object) -> list[object]:
        return ["silent", "closed", "open"]

    monkeypatch.setattr(connect, "_to", to)
    monkeypatch.setattr(connect.Connector, "_places", places)
    loop = asyncio.get_running_loop()
    start = loop.time()
    assert await connect.Connector("mail.example.net", 25).connect(30) == "a socket"
    assert loop.time() - start == pytest.approx(7.5)
    assert tried == ["silent", "closed", "open"]


def test_a_resolver_that_hangs_delays_no_end_and_is_asked_once_at_a_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    gate, asked = threading.Event(), []

    def hang(host: str, port: int, **_: object) -> list[object]:
        asked.append(host)
        gate.wait(60)
        raise OSError("no such name")

    async def main() -> None:
        async with Mail("mail.example.net", to=OPS, deadline=0.1, flush=0.5) as mailing:
            mailing.send("one", "body")
            await failed(mailing)
        assert mailing.waiting == 1
        assert "TimeoutError" in str(mailing.last_problem)

    monkeypatch.setattr("socket.getaddrinfo", hang)
    start = time.monotonic()
    asyncio.run(main())
    assert time.monotonic() - start < 30
    assert asked == ["mail.example.net"]
    gate.set()
    for thread in threading.enumerate():
        if thread.name == "vrrpkit: resolver":
            thread.join(20)


def test_a_resolver_that_cannot_be_started_is_tried_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    async def main() -> None:
        async with serving() as server:
            made = Mail("localhost", to=OPS, port=server.port, security="none")
            async with made as mailing:
                with monkeypatch.context() as patched:
                    patched.setattr(threading.Thread, "start", refuse)
                    mailing.send("one", "body")
                    await failed(mailing)
                assert mailing.last_problem == "RuntimeError: can't start new thread"
                await server.wait(1)

    asyncio.run(main())


def test_a_name_is_looked_up_and_one_that_is_not_there_is_a_reason(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def main() -> None:
        async with serving() as server:
            made = Mail("localhost", to=OPS, port=server.port, security="none")
            async with made as mailing:
                mailing.send("one", "body")
                await server.wait(1)
            long = "mx.example.invalid"
            async with Mail(long, to=OPS, flush=0.3) as mailing:
                mailing.send("two", "body")
                await failed(mailing)
            assert f"the name {long} is not found" in str(mailing.last_problem)
        assert server.subjects == ["one"]

    asyncio.run(main())
