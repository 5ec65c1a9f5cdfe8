"""Mail, delivered to a real SMTP server on the loopback interface."""

from __future__ import annotations

import asyncio
import ssl
import subprocess
import sys
from email.message import EmailMessage
from typing import Any

import pytest
import trustme
from aiosmtpd.smtp import SMTP, AuthResult, Envelope, Session

from notify.postbox import ADDRESS, failed, mail, serving
from vrrpkit import ConfigError, MemoryBus, State, VRRPInstance
from vrrpkit.notify.mail.notifier import Mail
from vrrpkit.testing import RealWorldNeeded, run_virtual
from vrrpkit.vrrp.protocol.events import Transition, TransitionReason


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


def context(authority: trustme.CA, name: str = ADDRESS) -> ssl.SSLContext:
    found = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(name).configure_cert(found)
    return found


def text(message: EmailMessage) -> str:
    return str(message.get_content()).replace("\r\n", "\n")


def router(name: str, mailing: Mail, bus: MemoryBus | None = None) -> VRRPInstance:
    return VRRPInstance(
        name,
        (bus or MemoryBus()).interface("192.0.2.1"),
        vrid=1,
        vips=["192.0.2.10/24"],
        interval=0.2,
        notify=[mailing],
    )


def test_transitions_are_mailed_in_the_words_that_readers_know() -> None:
    async def main() -> None:
        async with serving() as server, mail(server) as mailing:
            async with router("VI_1", mailing) as one:
                await one.wait_for(State.MASTER)
            await server.wait(3)
        assert server.subjects == [
            "[lb1] VRRP Instance VI_1 - Entering BACKUP state",
            "[lb1] VRRP Instance VI_1 - Entering MASTER state",
            "[lb1] VRRP Instance VI_1 - Stopping",
        ]
        first = server.mails[1]
        assert first["To"] == "ops@example.net, Night Shift <night@example.net>"
        assert first["From"] == "lb1@example.net"
        assert "reason: no-response\ntime: 2" in text(first)
        assert server.envelopes[0].rcpt_tos == ["ops@example.net", "night@example.net"]
        assert (mailing.sent, mailing.waiting, mailing.last_problem) == (3, 0, None)

    asyncio.run(main())


def test_only_the_states_that_are_asked_for_and_own_templates() -> None:
    async def main() -> None:
        async with serving() as server:
            own = {"states": ["MASTER"], "subject": "{name} is {state}", "body": "by {reason}"}
            async with mail(server, **own) as mailing, router("VI_1", mailing) as one:
                await one.wait_for(State.MASTER)
                await server.wait(1)
        assert server.subjects == ["VI_1 is MASTER"]
        assert text(server.mails[0]) == "by no-response\n"

    asyncio.run(main())


def test_a_name_cannot_inject_a_header() -> None:
    evil = "VI\r\nBcc: victim@example.net\r\n\r\nspam"

    async def main() -> None:
        async with serving() as server, mail(server, states=["MASTER"]) as mailing:
            # A router cannot have such a name; something else that tells of events might.
            with pytest.raises(ConfigError, match="control characters"):
                router(evil, mailing)
            mailing.tell(
                Transition(
                    router=evil,
                    at=0.0,
                    previous=State.BACKUP,
                    state=State.MASTER,
                    reason=TransitionReason.NO_RESPONSE,
                    priority=100,
                ),
                object(),
            )
            await server.wait(1)
            mailing.send("own\r\nBcc: victim@example.net", "body")
            await server.wait(2)
        assert server.mails[0]["Bcc"] is None
        assert server.subjects[0] == (
            "[lb1] VRRP Instance VI Bcc: victim@example.net spam - Entering MASTER state"
        )
        assert server.mails[1]["Bcc"] is None
        assert [len(envelope.rcpt_tos) for envelope in server.envelopes] == [2, 2]

    asyncio.run(main())


def test_an_answer_with_encoded_words_is_taken_literally() -> None:
    """A checked server must not write the operator's mail (CVE-2024-6923)."""
    evil = "=?utf-8?q?no=0D=0ABcc:_victim=40example.org=0D=0AX-Evil:_yes?="

    async def main() -> None:
        async with serving() as server, mail(server, subject="{name}: {reason}") as mailing:
            mailing.tell(
                Transition(
                    router=evil,
                    at=0.0,
                    previous=State.BACKUP,
                    state=State.FAULT,
                    reason=TransitionReason.FAULT,
                    faults=frozenset({evil}),
                    priority=100,
                ),
                object(),
            )
            await server.wait(1)
        (mail_message,) = server.mails
        assert mail_message["Bcc"] is None and mail_message["X-Evil"] is None
        # Folding may have put white space between the words.
        assert "".join(server.subjects[0].split()) == "".join(f"{evil}:fault({evil})".split())
        assert evil in text(mail_message)

    asyncio.run(main())


def test_starttls_and_auth(authority: trustme.CA, tmp_path: Any) -> None:
    trusted = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(str(trusted))

    def allowed(
        server: SMTP, session: Session, envelope: Envelope, mechanism: str, data: Any
    ) -> AuthResult:
        return AuthResult(success=(data.login, data.password) == (b"lb", b"secret"))

    async def main() -> None:
        settings = {
            "tls_context": context(authority),
            "authenticator": allowed,
            "auth_required": True,
            "auth_require_tls": True,
        }
        async with serving(**settings) as server:
            secure = {"security": None, "ca": str(trusted), "username": "lb"}
            async with mail(server, password="secret", **secure) as mailing:
                mailing.send("one", "body")
                await server.wait(1)
            async with mail(server, password="wrong", flush=0.3, **secure) as mailing:
                mailing.send("two", "body")
            assert (mailing.sent, mailing.waiting) == (0, 1)
        assert server.subjects == ["one"]
        assert server.encrypted == [True]

    asyncio.run(main())


def test_a_wrong_certificate_is_refused_unless_nobody_asked(authority: trustme.CA) -> None:
    async def main() -> None:
        async with serving(tls_context=context(authority, "other.example")) as server:
            async with mail(server, security="starttls", flush=0.3) as mailing:
                mailing.send("checked", "body")
                await failed(mailing)
            assert "CERTIFICATE_VERIFY_FAILED" in str(mailing.last_problem)
            async with mail(server, security="starttls", verify=False) as mailing:
                mailing.send("unchecked", "body")
            async with mail(server, security="opportunistic") as mailing:
                mailing.send("opportunistic", "body")
        assert server.subjects == ["unchecked", "opportunistic"]
        assert server.encrypted == [True, True]

    asyncio.run(main())


def test_starttls_that_is_not_offered_means_no_mail_in_clear() -> None:
    async def main() -> None:
        async with (
            serving() as server,
            mail(server, security="starttls", flush=0.3) as mailing,
        ):
            mailing.send("secret", "body")
        assert server.mails == []
        assert mailing.waiting == 1

    asyncio.run(main())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"to": []}, "at least one address"),
        ({"to": ["ops"]}, "is no address"),
        ({"to": "ops@example.net, night@example.net"}, "more than one"),
        ({"to": "Shift, Night <night@example.net>"}, "more than one"),
        ({"to": ["ops@"]}, "is no address"),
        ({"to": [7]}, "is no address"),
        ({"to": "ops@bücher.example"}, "xn--"),
        ({"helo": "two words"}, "helo"),
        ({"helo": ""}, "helo"),
        ({"helo": "lb1"}, "full name"),
        ({"sender": "vrrpkit@lb1"}, "full name"),
        ({"subject": "{name.x}"}, "subject template"),
        ({"to": ["ops@example.net\r\nBcc: x@example.net"]}, "is no address"),
        ({"sender": "a b@example.net"}, "is no address"),
        ({"port": 0}, "port"),
        ({"security": "ssl"}, "must be one of"),
        ({"username": "x"}, "go together"),
        ({"username": "x", "password": "y", "security": "none"}, "in clear"),
        ({"username": "x", "password": "y", "security": "opportunistic"}, "in clear"),
        ({"states": ["INIT"]}, "states INIT"),
        ({"subject": "{nobody}"}, "fields are"),
        ({"body": "{"}, "body template"),
        ({"deadline": 0}, "deadline"),
        ({"flush": -1}, "flush"),
        ({"limit": 0}, "limit"),
    ],
)
def test_bad_values_are_refused(changes: dict[str, Any], message: str) -> None:
    settings: dict[str, Any] = {"to": "ops@example.net"}
    with pytest.raises(ConfigError, match=message):
        Mail("mail.example.net", **(settings | changes))


def test_a_mail_that_is_not_entered_is_refused_where_it_is_used() -> None:
    async def main() -> None:
        mailing = Mail("127.0.0.1", to="ops@example.net")
        with pytest.raises(ConfigError, match="async with Mail"):
            mailing.send("one", "body")
        one = router("VI_1", mailing)
        with pytest.raises(ConfigError, match="async with Mail"):
            async with one:
                pytest.fail("it would tell nobody")
        assert one.state is State.INIT
        async with mailing:
            pass
        with pytest.raises(ConfigError, match="has ended"):
            async with router("VI_2", mailing):
                pytest.fail("it would tell nobody")
        assert mailing.waiting == 0

    asyncio.run(main())


@pytest.mark.parametrize("host", ["127.0.0.1", "mail.example.net"])
def test_under_virtual_time_mail_fails_the_test_and_says_why(host: str) -> None:
    async def main() -> None:
        mailing = Mail(host, to="ops@example.net")
        async with mailing, router("VI_1", mailing) as one:
            await one.wait_for(State.MASTER)
            await asyncio.sleep(60)

    # At once, and by itself.
    with pytest.raises(RealWorldNeeded) as caught:
        run_virtual(main())
    assert f"connecting to {host} is impossible" in str(caught.value)
    assert "use a Mailbox" in str(caught.value)


def test_bad_files_and_hosts_are_refused() -> None:
    for host in ("", "mail\nexample", "mail example"):
        with pytest.raises(ConfigError, match="no name"):
            Mail(host, to="ops@example.net")
    with pytest.raises(ConfigError, match="port=2525"):
        Mail("mail.example.net:2525", to="ops@example.net")

    async def main() -> None:
        async with Mail("127.0.0.1", to="ops@example.net", security="tls", ca="/no/such"):
            pass

    with pytest.raises(ConfigError, match="/no/such"):
        asyncio.run(main())


def test_everything_that_takes_its_time_is_loaded_on_entering() -> None:
    code = """
import asyncio, sys
from vrrpkit import Mail

async def main():
    assert "aiosmtplib" not in sys.modules
    async with Mail("127.0.0.1", to="ops@example.net"):
        assert "aiosmtplib" in sys.modules

asyncio.run(main())
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
