"""The SMTP checker against good and hostile servers."""

from __future__ import annotations

import asyncio
import re
import ssl
import subprocess
import sys
from collections.abc import Mapping
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest

from checks import hostile
from checks.attempts import NOT_ASKED, PASSED, attempt, collect, descriptors, real_sockets, until
from checks.certificates import Authority
from checks.privileges import unprivileged
from vrrpkit.checks.io.poller import Poller
from vrrpkit.checks.smtp import SMTPChecker
from vrrpkit.checks.target import Target
from vrrpkit.errors import ConfigError

families = pytest.mark.parametrize("family", [4, 6])
SHORT = 0.2
ME = "checker.example.net"

GOOD = {
    "": b"220 mx.example.net ESMTP\r\n",
    "EHLO": b"250-mx.example.net\r\n250-STARTTLS\r\n250 8BITMIME\r\n",
    "HELO": b"250 mx.example.net\r\n",
    "STARTTLS": b"220 go ahead\r\n",
    "QUIT": b"221 bye\r\n",
}


def smtp(
    *,
    tls: ssl.SSLContext | None = None,
    within: Mapping[str, bytes] = GOOD,
    **answers: bytes | None,
) -> hostile.Behaviour:
    """A server that answers as :data:`GOOD` says, but for what is given: ``greeting``, and the
    commands. ``None`` is no answer at all, and an answer that does not end in a newline is the last
    thing that is said. ``within``: the answers within TLS."""
    changes = {"" if key == "greeting" else key: value for key, value in answers.items()}
    outside: Mapping[str, bytes | None] = {**GOOD, **changes}

    async def behave(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        said = outside
        command = ""
        while True:
            answer = said[command]
            if answer is None:
                await reader.read()
                return
            writer.write(answer)
            if not answer.endswith(b"\n") or command == "QUIT":
                await writer.drain()
                return
            if command == "STARTTLS" and tls is not None and answer == GOOD[command]:
                try:
                    await writer.start_tls(tls)
                except ssl.SSLError:
                    return
                said = within
            if not (line := await reader.readline()):
                return
            command = line.split()[0].decode().upper()

    return behave


async def outcome(behaviour: hostile.Behaviour, **options: Any) -> str:
    """What a checker says of a server."""
    async with hostile.serving(behaviour) as server:
        return await attempt(SMTPChecker(helo_name=ME, **options), server.target)


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("ca"))


# --- greeting, EHLO, HELO, QUIT -----------------------------------------------------------------


@families
@real_sockets
async def test_passes(family: int) -> None:
    async with hostile.serving(smtp(), family=family) as server:
        assert await attempt(SMTPChecker(helo_name=ME), server.target) == PASSED
        assert server.heard == b"EHLO checker.example.net\r\nQUIT\r\n"


@real_sockets
async def test_says_helo_if_told() -> None:
    async with hostile.serving(smtp(EHLO=b"502 no\r\n")) as server:
        assert await attempt(SMTPChecker(helo_name="[192.0.2.1]", esmtp=False), server.target) == (
            PASSED
        )
        assert server.heard == b"HELO [192.0.2.1]\r\nQUIT\r\n"


@pytest.mark.parametrize("code", [b"500", b"502", b"550"])
@real_sockets
async def test_says_helo_if_ehlo_is_refused(code: bytes) -> None:
    async with hostile.serving(smtp(EHLO=code + b" what?\r\n")) as server:
        assert await attempt(SMTPChecker(helo_name=ME), server.target) == PASSED
        assert server.heard == f"EHLO {ME}\r\nHELO {ME}\r\nQUIT\r\n".encode()


@pytest.mark.parametrize(
    ("node", "said"),
    [
        ("lb1", b"EHLO lb1\r\n"),
        ("lb1.example.net", b"EHLO lb1.example.net\r\n"),
        ("lb_1", b"EHLO [127.0.0.1]\r\n"),
    ],
)
@real_sockets
async def test_own_name(monkeypatch: pytest.MonkeyPatch, node: str, said: bytes) -> None:
    class Uname:
        nodename = node

    async with hostile.serving(smtp()) as server:
        with monkeypatch.context() as patch:
            patch.setattr("os.uname", Uname)
            assert await attempt(SMTPChecker(), server.target) == PASSED
        assert server.heard == said + b"QUIT\r\n"


@pytest.mark.parametrize(
    "answers",
    [
        {"greeting": b"220-one moment\r\n220-please\r\n220 mx\r\n"},
        {"greeting": b"220\r\n"},
        {"greeting": b"220 mx\n", "EHLO": b"250-mx\n250 X\n", "QUIT": b"221\n"},
        {"EHLO": b"250-\r\n250-x\r\n250\r\n"},
        {"EHLO": b"250 " + b"x" * 16378 + b"\r\n"},
        {"QUIT": b"221-bye\r\n221 bye\r\n and more"},
    ],
)
@real_sockets
async def test_forms_of_replies(answers: dict[str, bytes]) -> None:
    assert await outcome(smtp(**answers)) == PASSED


@real_sockets
async def test_a_reply_in_pieces() -> None:
    async def behave(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for octet in b"220-mx\r\n220 mx\r\n":
            writer.write(bytes([octet]))
            await asyncio.sleep(0.001)
        await reader.readline()
        writer.write(b"250-mx\r\n2")
        await asyncio.sleep(0.01)
        writer.write(b"50-b\r\n250 c\r\n")
        await reader.readline()
        writer.write(b"221 bye\r\n")

    assert await outcome(behave) == PASSED


@pytest.mark.parametrize(
    ("answers", "says"),
    [
        ({"greeting": b"421 busy\r\n"}, "the greeting is 421 'busy', expected 220"),
        ({"greeting": b"554-no\r\n554 way\r\n"}, "the greeting is 554 'no / way', expected 220"),
        ({"greeting": b"250\r\n"}, "the greeting is 250, expected 220"),
        ({"EHLO": b"421 gone\r\n"}, "the answer to EHLO is 421 'gone', expected 250"),
        ({"EHLO": b"220 mx\r\n"}, "the answer to EHLO is 220 'mx', expected 250"),
        (
            {"EHLO": b"502 no\r\n", "HELO": b"550 go\r\n"},
            "the answer to HELO is 550 'go', expected 250",
        ),
        ({"QUIT": b"250 ok\r\n"}, "the answer to QUIT is 250 'ok', expected 221"),
        ({"greeting": b""}, "closed before the greeting"),
        ({"greeting": b"220 m"}, "closed before the greeting"),
        ({"EHLO": b""}, "closed before the answer to EHLO"),
        ({"EHLO": b"250-mx\r\n250"}, "closed before the answer to EHLO"),
        ({"QUIT": b""}, "closed before the answer to QUIT"),
        ({"greeting": b"SSH-2.0-x\r\n"}, "the greeting is no SMTP: 'SSH-2.0-x\\r'"),
        ({"greeting": b"22\r\n"}, "the greeting is no SMTP: '22\\r'"),
        ({"greeting": b"120 x\r\n"}, "the greeting is no SMTP: '120 x\\r'"),
        ({"greeting": b"220mx\r\n"}, "the greeting is no SMTP: '220mx\\r'"),
        ({"greeting": b"\xff" * 200 + b"\n"}, "the greeting is no SMTP: '" + "�" * 100 + "'..."),
        ({"EHLO": b"250-mx\r\n\r\n"}, "the answer to EHLO is no SMTP: '\\r'"),
        ({"EHLO": b"250-mx\r\n220 x\r\n"}, "the answer to EHLO has both 250 and 220"),
        (
            {"greeting": b"220 mx\r\n250 x\r\n"},
            "more was sent than the greeting: after 220 'mx'",
        ),
        ({"EHLO": b"250 mx\r\n2\r\n"}, "more was sent than the answer to EHLO: after 250 'mx'"),
        ({"EHLO": b"250 " + b"x" * 20000 + b"\r\n"}, "the answer to EHLO has more than 16384"),
        ({"EHLO": b"250-x\r\n" * 3000}, "the answer to EHLO has more than 16384 octets"),
        ({"EHLO": b"250-" + b"x" * 20000}, "the answer to EHLO has more than 16384 octets"),
    ],
)
@real_sockets
async def test_fails(answers: dict[str, bytes], says: str) -> None:
    assert (await outcome(smtp(**answers))).startswith(says)


@families
@real_sockets
async def test_nobody_listens(family: int) -> None:
    target = hostile.refused(family)
    says = f"cannot connect to {target}: Connection refused"
    assert await attempt(SMTPChecker(), target) == says


# --- STARTTLS -----------------------------------------------------------------------------------


@families
@real_sockets
async def test_starttls(authority: Authority, family: int) -> None:
    behaviour = smtp(tls=authority.localhost.server())
    checker = SMTPChecker(helo_name=ME, starttls=True, ca=authority.file)
    async with hostile.serving(behaviour, family=family) as server:
        assert await attempt(checker, server.target) == PASSED
        hello = f"EHLO {ME}\r\n".encode()
        assert server.heard == hello + b"STARTTLS\r\n" + hello + b"QUIT\r\n"


@real_sockets
async def test_the_name_that_was_asked_for_is_verified(authority: Authority) -> None:
    tls = authority.issue("mail.example.net").server()
    names: list[str] = []
    tls.sni_callback = lambda _sock, name, _context: names.append(name or "")
    options = {"starttls": True, "ca": authority.file}
    assert await outcome(smtp(tls=tls), server_name="mail.example.net", **options) == PASSED
    assert names == ["mail.example.net"]
    for name in ("mx.example.net", None):
        shown = name or "127.0.0.1"
        says = f"certificate not accepted: wrong name: it is not for '{shown}'"
        assert await outcome(smtp(tls=tls), server_name=name, **options) == says


@real_sockets
async def test_certificates_that_are_not_accepted(authority: Authority) -> None:
    expired = smtp(tls=authority.expired.server())
    good = smtp(tls=authority.localhost.server())
    says = await outcome(expired, starttls=True, ca=authority.file)
    assert says.endswith("has expired")
    assert "unknown CA" in await outcome(good, starttls=True)
    for behaviour in (expired, good):
        assert await outcome(behaviour, starttls=True, verify=False) == PASSED


@pytest.mark.parametrize(
    ("answers", "says"),
    [
        ({"EHLO": b"250 mx\r\n"}, "STARTTLS is not offered"),
        ({"EHLO": b"250-STARTTLS.net\r\n250 NOSTARTTLS\r\n"}, "STARTTLS is not offered"),
        ({"EHLO": b"502 no\r\n"}, "the answer to EHLO is 502 'no', expected 250"),
        ({"STARTTLS": b"454 no\r\n"}, "the answer to STARTTLS is 454 'no', expected 220"),
        ({"STARTTLS": b""}, "closed before the answer to STARTTLS"),
        (
            {"STARTTLS": b"220 go\r\n250 injected\r\n"},
            "more was sent than the answer to STARTTLS: after 220 'go'",
        ),
        ({"STARTTLS": b"220 go\r\ninjected"}, "more was sent than the answer to STARTTLS"),
    ],
)
@real_sockets
async def test_starttls_fails(answers: dict[str, bytes], says: str) -> None:
    assert (await outcome(smtp(**answers), starttls=True)).startswith(says)


def after_starttls(then: bytes, *, close: bool) -> hostile.Behaviour:
    """A server that says something else than TLS once TLS is due."""

    async def behave(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for answer in (GOOD[""], GOOD["EHLO"], GOOD["STARTTLS"]):
            writer.write(answer)
            await (reader.readline() if answer != GOOD["STARTTLS"] else reader.read(5))
        # What is left unread would make of the end a reset.
        await asyncio.sleep(0.02)
        await reader.read(65536)
        writer.write(then)
        if not close:
            await reader.read()

    return behave


@pytest.mark.parametrize(
    ("then", "close", "says"),
    [
        (b"", True, "closed during the TLS handshake"),
        (b"250 mx\r\n", False, "TLS handshake failed: "),
        (hostile.GARBAGE, False, "TLS handshake failed: "),
        (b"", False, "timeout"),
    ],
)
@real_sockets
async def test_no_tls_after_starttls(then: bytes, close: bool, says: str) -> None:
    async with hostile.serving(after_starttls(then, close=close)) as server:
        before = descriptors()
        said = await attempt(
            SMTPChecker(starttls=True), server.target, SHORT if says == "timeout" else 10
        )
        assert said.startswith(says)
        await until(lambda: descriptors() <= before + 2)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"EHLO": b"421 no\r\n"}, "the answer to EHLO is 421 'no', expected 250"),
        ({"EHLO": b"what?\r\n"}, "the answer to EHLO is no SMTP: 'what?\\r'"),
        ({"EHLO": b"502 no\r\n"}, PASSED),
        ({"QUIT": b"500 no\r\n"}, "the answer to QUIT is 500 'no', expected 221"),
        ({"QUIT": b""}, "closed before the answer to QUIT"),
        ({"EHLO": b"250-" + b"x" * 20000}, "the answer to EHLO has more than 16384 octets"),
        ({"STARTTLS": GOOD["STARTTLS"]}, PASSED),
    ],
)
@real_sockets
async def test_within_tls(authority: Authority, changes: dict[str, bytes], says: str) -> None:
    behaviour = smtp(tls=authority.localhost.server(), within={**GOOD, **changes})
    assert await outcome(behaviour, starttls=True, ca=authority.file) == says


# --- hostile servers ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("behaviour", "says"),
    [
        (hostile.silent, "timeout"),
        (hostile.drip(b"220-mx\r\n"), "timeout"),
        (hostile.garbage(), "the greeting is no SMTP: "),
        (hostile.flood(), "the greeting has more than 16384 octets"),
        (hostile.flood(b"220-mx\r\n", b"220-x\r\n" * 9000), "the greeting has more than 16384"),
        (hostile.flood(b"220 mx\r\n"), "more was sent than the greeting"),
        (hostile.cut(b"", wait=False), "closed before the greeting"),
        (hostile.reset(b"220-m", wait=False), "lost the connection to 127.0.0.1:"),
        (smtp(EHLO=None), "timeout"),
        (smtp(QUIT=None), "timeout"),
    ],
)
@real_sockets
async def test_hostile(behaviour: hostile.Behaviour, says: str) -> None:
    async with hostile.serving(behaviour) as server:
        before = descriptors()
        said = await attempt(SMTPChecker(), server.target, SHORT if says == "timeout" else 10)
        assert said.startswith(says)
        assert Poller.current().watched == 0
        await until(lambda: descriptors() <= before + 2)


@real_sockets
async def test_abandoned_within_tls_the_descriptor_is_free_at_once(authority: Authority) -> None:
    entered = asyncio.Event()

    async def behave(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for answer in (GOOD[""], GOOD["EHLO"], GOOD["STARTTLS"]):
            writer.write(answer)
            if answer != GOOD["STARTTLS"]:
                await reader.readline()
        await writer.start_tls(authority.localhost.server())
        await reader.readline()
        entered.set()
        await asyncio.sleep(60)

    outcomes: list[object] = []
    async with hostile.serving(behave) as server:
        checker = SMTPChecker(starttls=True, ca=authority.file)
        abandon = checker.begin(server.target, collect(outcomes))
        async with asyncio.timeout(5):
            await entered.wait()
        before = descriptors()
        abandon()
        abandon()
        assert descriptors() == before - 1
        assert Poller.current().watched == 0
        assert outcomes == []


# --- the way ------------------------------------------------------------------------------------


@families
@real_sockets
async def test_source(family: int) -> None:
    source = {4: "127.0.0.77", 6: "::1"}[family]
    async with hostile.serving(smtp(), family=family) as server:
        assert await attempt(SMTPChecker(source=source), server.target) == PASSED
        assert server.sources[0][0] == source


def test_port() -> None:
    somewhere = ip_address("192.0.2.1")
    for port, given, endpoint in [(None, None, 25), (587, None, 587), (587, 26, 26)]:
        checker = SMTPChecker(port=given)
        checker.validate(Target(somewhere, port))
        assert checker.endpoint(Target(somewhere, port)).port == endpoint


@real_sockets
async def test_a_way_that_is_barred() -> None:
    target = hostile.refused()
    with unprivileged():
        said = await attempt(SMTPChecker(fwmark=7), target)
    start = f"{NOT_ASKED}cannot connect to {target}: "
    assert said.startswith(f"{start}CAP_NET_ADMIN is missing: fwmark=7 needs it")
    said = await attempt(SMTPChecker(interface="nowhere7"), target)
    assert said == f"{start}interface 'nowhere7': No such device"


# --- options ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"helo_name": ""}, "helo_name '' must be a domain name or an address literal"),
        ({"helo_name": "a b"}, "helo_name 'a b' must be"),
        ({"helo_name": "a\r\nDATA"}, "must be a domain name"),
        ({"helo_name": "-a.net"}, "helo_name '-a.net' must be"),
        ({"helo_name": "a..net"}, "helo_name 'a..net' must be"),
        ({"helo_name": "[]"}, "helo_name '[]' must be"),
        ({"helo_name": "[a]\n"}, "must be a domain name"),
        ({"helo_name": "a" * 256}, "must be a domain name"),
        ({"helo_name": 7}, "helo_name 7 must be"),
        ({"ca": "/ca.pem"}, "ca is of no use without TLS; add starttls=True"),
        ({"server_name": "mx"}, "server_name is of no use without TLS; add starttls=True"),
        ({"verify": False}, "verify=False is of no use without TLS; add starttls=True"),
        ({"starttls": True, "esmtp": False}, "leave out esmtp=False"),
        ({"starttls": True, "verify": False, "ca": "/ca.pem"}, "ca is of no use with verify=False"),
        ({"starttls": True, "ca": "/nowhere.pem"}, "ca '/nowhere.pem' cannot be read: No such"),
        ({"starttls": True, "ca": __file__}, "must be a readable file of PEM certificates"),
        ({"starttls": True, "server_name": "a b"}, "server_name 'a b'"),
        ({"port": 0}, "port 0 must be"),
    ],
)
def test_bad_values(options: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(says)):
        SMTPChecker(**options)


def test_ca_may_be_a_path(authority: Authority) -> None:
    assert SMTPChecker(starttls=True, ca=str(authority.file)).ca == Path(authority.file)


def test_checkers_load_nothing_but_what_they_use() -> None:
    code = (
        "import sys\n"
        "import vrrpkit.checks.dns, vrrpkit.checks.ping, vrrpkit.checks.smtp, vrrpkit.checks.udp\n"
        "vrrpkit.checks.smtp.SMTPChecker()\n"
        "third = {'aiosmtplib', 'dpkt', 'h11', 'pyroute2', 'vrrpkit.checks.io.tls'}\n"
        "print(sorted(third & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
