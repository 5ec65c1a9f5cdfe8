"""The HTTPS checker: who is trusted, and what is said of those who are not."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator
from ipaddress import ip_address
from pathlib import Path

import pytest

from checks import hostile
from checks.attempts import PASSED, attempt, real_sockets, until
from checks.certificates import Authority, issued_by
from checks.test_http import ENDLESS, SHORT, answer, chunked
from vrrpkit.checks.http import URL, HTTPSChecker
from vrrpkit.checks.target import Target
from vrrpkit.errors import ConfigError

GOOD = hostile.answering(answer())


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """The CA that is trusted here."""
    return Authority(tmp_path_factory.mktemp("ca"))


@pytest.fixture(scope="module")
def stranger(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """A CA that nobody trusts."""
    return Authority(tmp_path_factory.mktemp("stranger"))


@contextlib.contextmanager
def blocking_server(tls: ssl.SSLContext) -> Iterator[Target]:
    """A server in a thread, for two connections whose handshakes fail."""

    def serve() -> None:
        for _ in range(2):
            raw, _address = listener.accept()
            with raw, contextlib.suppress(ssl.SSLError), tls.wrap_socket(raw, server_side=True):
                pass

    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(10)
        thread = threading.Thread(target=serve, name="blocking TLS server")
        thread.start()
        yield Target(ip_address("127.0.0.1"), listener.getsockname()[1])
        thread.join()


@pytest.mark.parametrize("family", [4, 6])
@real_sockets
async def test_the_address_is_verified(authority: Authority, family: int) -> None:
    tls = authority.localhost.server()
    async with hostile.serving(GOOD, family=family, tls=tls) as server:
        assert await attempt(HTTPSChecker(ca=authority.file), server.target) == PASSED
        assert server.heard.startswith(b"GET / HTTP/1.1\r\nHost: ")


@real_sockets
async def test_the_name_is_verified_and_told(authority: Authority) -> None:
    told: list[str | None] = []
    tls = authority.issue("localhost", "www.example.net").server()
    tls.sni_callback = lambda _ssl, name, _context: told.append(name)
    async with hostile.serving(GOOD, tls=tls) as server:

        async def outcome(**options: object) -> str:
            checker = HTTPSChecker(ca=authority.file, **options)  # type: ignore[arg-type]
            return await attempt(checker, server.target)

        assert await outcome(server_name="localhost") == PASSED
        assert await outcome(host="www.example.net:8443") == PASSED
        assert await outcome(host="other.example.net", server_name="localhost") == PASSED
        assert await outcome(urls=URL("/", host="localhost"), host="a.example.net") == PASSED
        assert told == ["localhost", "www.example.net", "localhost", "localhost"]
        wrong = "certificate not accepted: wrong name: it is not for "
        assert await outcome(server_name="other.example.net") == wrong + "'other.example.net'"
        assert await outcome(host="[::1]:443") == wrong + "'::1'"
        assert await outcome() == wrong + "'127.0.0.1'"
        assert told[-2:] == [None, None]


@real_sockets
async def test_each_url_has_its_name(authority: Authority) -> None:
    async with hostile.serving(GOOD, tls=authority.localhost.server()) as server:
        urls = [URL("/", host="localhost"), URL("/", host="nobody.example.net")]
        found = await attempt(HTTPSChecker(urls, ca=authority.file), server.target)
        assert found.endswith("it is not for 'nobody.example.net'")
        assert server.heard.count(b"GET") == 1


@real_sockets
async def test_time_is_verified(authority: Authority) -> None:
    for files, says in (
        (authority.expired, "it, or one that it depends on, has expired"),
        (authority.premature, "it is not valid yet"),
    ):
        async with hostile.serving(GOOD, tls=files.server()) as server:
            found = await attempt(HTTPSChecker(ca=authority.file), server.target)
            assert found == f"certificate not accepted: {says}"
            assert server.heard == b""


@real_sockets
async def test_issuer_is_verified(authority: Authority, stranger: Authority) -> None:
    async with hostile.serving(GOOD, tls=stranger.localhost.server()) as server:
        for checker in (HTTPSChecker(ca=authority.file), HTTPSChecker()):
            found = await attempt(checker, server.target)
            assert found.startswith("certificate not accepted: unknown CA (")
            assert found.endswith("give its certificate as ca=")
        assert server.heard == b""


@real_sockets
async def test_an_issuer_that_must_not_issue(authority: Authority, tmp_path: Path) -> None:
    files = issued_by(authority.client, tmp_path)
    async with hostile.serving(GOOD, tls=files.server()) as server:
        found = await attempt(HTTPSChecker(ca=authority.file), server.target)
        assert found == "certificate not accepted: invalid CA certificate"


@real_sockets
async def test_verification_off(authority: Authority, stranger: Authority) -> None:
    for files in (stranger.localhost, authority.expired, stranger.issue("elsewhere")):
        async with hostile.serving(GOOD, tls=files.server()) as server:
            assert await attempt(HTTPSChecker(verify=False), server.target) == PASSED


@real_sockets
async def test_client_certificate(authority: Authority, stranger: Authority) -> None:
    tls = authority.localhost.server(clients=authority.file)
    client, other = authority.client, stranger.client
    both = client.cert.parent / "both.pem"
    both.write_bytes(client.key.read_bytes() + client.cert.read_bytes())
    async with hostile.serving(GOOD, tls=tls) as server:
        good = HTTPSChecker(ca=authority.file, cert=client.cert, key=client.key)
        assert await attempt(good, server.target) == PASSED
        assert await attempt(HTTPSChecker(ca=authority.file, cert=both), server.target) == PASSED
    # asyncio's server hangs up without an alert, OpenSSL's own tells why.
    with blocking_server(tls) as target:
        found = await attempt(HTTPSChecker(ca=authority.file), target)
        assert found == (
            "TLS connection failed: tlsv13 alert certificate required; give cert= and key="
        )
        wrong = HTTPSChecker(ca=authority.file, cert=other.cert, key=other.key)
        assert await attempt(wrong, target) == "TLS connection failed: tlsv1 alert unknown ca"


@real_sockets
async def test_older_protocol(authority: Authority) -> None:
    tls = authority.localhost.server()
    tls.maximum_version = ssl.TLSVersion.TLSv1_2
    async with hostile.serving(GOOD, tls=tls) as server:
        assert await attempt(HTTPSChecker(ca=authority.file), server.target) == PASSED


@real_sockets
async def test_says_goodbye(authority: Authority) -> None:
    endings: list[bytes] = []

    async def behave(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await hostile.request(reader)
        writer.write(answer())
        # Without the goodbye asyncio would raise here.
        endings.append(await reader.read())

    async with hostile.serving(behave, tls=authority.localhost.server()) as server:
        assert await attempt(HTTPSChecker(ca=authority.file), server.target) == PASSED
        await until(lambda: endings == [b""])


@pytest.mark.parametrize(
    ("behaviour", "says"),
    [
        (hostile.garbage(), "TLS handshake failed: wrong version number; the port seems not to"),
        (hostile.saying(b"HTTP/1.1 400 Bad\r\n\r\n"), "TLS handshake failed: wrong version number"),
        (hostile.flood(), "TLS handshake failed: "),
        (hostile.cut(b""), "closed during the TLS handshake"),
        (hostile.cut(b"\x16\x03\x03\x00\x50\x02"), "closed during the TLS handshake"),
        (hostile.saying(b"\x15\x03\x03\x00\x02\x02\x28"), "TLS handshake failed: "),
        # Its goodbye, without a handshake.
        (hostile.saying(b"\x15\x03\x03\x00\x02\x01\x00"), "closed during the TLS handshake"),
        (hostile.saying(b"\x16\x03\x03\x00\x05\x02\x00\x00\x01\x00"), "TLS handshake failed: "),
        (hostile.silent, "timeout"),
        (hostile.drip(b"\x16\x03\x03\x00\x50\x02"), "timeout"),
    ],
)
@real_sockets
async def test_invalid_tls(behaviour: hostile.Behaviour, says: str) -> None:
    async with hostile.serving(behaviour) as server:
        found = await attempt(HTTPSChecker(), server.target, SHORT if says == "timeout" else 10)
        assert found.startswith(says), found


@pytest.mark.parametrize(
    ("behaviour", "says"),
    [
        (hostile.silent, "timeout"),
        (hostile.drip(answer()), "timeout"),
        (hostile.cut(answer()[:-3]), "/: closed with 3 octets of the body still to come"),
        (hostile.cut(b""), "/: closed without an answer"),
        (hostile.reset(answer()[:-3]), "lost the connection to "),
        (hostile.garbage(), "/: the answer is no HTTP"),
        (hostile.flood(ENDLESS), "/: the body has more than 1048576 octets"),
        (hostile.answering(answer(length=False)), PASSED),
        (hostile.answering(chunked(b"x" * 100_000)), PASSED),
    ],
)
@real_sockets
async def test_inside_tls(authority: Authority, behaviour: hostile.Behaviour, says: str) -> None:
    async with hostile.serving(behaviour, tls=authority.localhost.server()) as server:
        limit = SHORT if says == "timeout" else 20
        found = await attempt(HTTPSChecker(ca=authority.file), server.target, limit)
        assert found.startswith(says), found


@real_sockets
async def test_cut_without_goodbye(authority: Authority) -> None:
    """A body that ends with the connection may be a part of it only."""

    async def behave(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await hostile.request(reader)
        writer.write(answer(length=False))
        await writer.drain()
        await asyncio.sleep(0.05)
        writer.get_extra_info("socket").shutdown(2)

    async with hostile.serving(behave, tls=authority.localhost.server()) as server:
        for whole in (
            HTTPSChecker(ca=authority.file, strict=True),
            HTTPSChecker(ca=authority.file, regex="works"),
        ):
            assert await attempt(whole, server.target) == "the server broke the TLS connection off"
        # Of the status nothing can have been cut off.
        assert await attempt(HTTPSChecker(ca=authority.file), server.target) == PASSED


def test_files(authority: Authority, stranger: Authority, tmp_path: Path) -> None:
    mine, theirs = authority.client, stranger.client
    nothing = tmp_path / "nothing.pem"
    text = tmp_path / "text.pem"
    text.write_text("no certificate\n")
    locked = tmp_path / "locked.key"
    subprocess.run(
        ["openssl", "pkey", "-in", mine.key, "-aes256", "-passout", "pass:secret", "-out", locked],
        check=True,
    )
    HTTPSChecker(cert=mine.cert, key=locked, password="secret")
    for options, says in (
        ({"ca": nothing}, "ca '.*nothing.pem' cannot be read: No such file"),
        ({"ca": text}, "ca '.*text.pem' must be a readable file of PEM certificates"),
        ({"ca": tmp_path}, "must be a readable file of PEM certificates"),
        ({"cert": nothing}, "cert '.*nothing.pem' cannot be read"),
        ({"cert": mine.cert, "key": nothing}, "key '.*nothing.pem' cannot be read"),
        ({"cert": mine.cert}, "must be readable PEM files that belong together"),
        ({"cert": mine.cert, "key": theirs.key}, "key values mismatch"),
        ({"cert": mine.cert, "key": locked}, "without a password or with the right one"),
        ({"cert": mine.cert, "key": locked, "password": "x"}, "with the right one"),
        ({"cert": mine.cert, "key": locked, "password": 5}, "password must be text"),
        ({"cert": mine.cert, "key": locked, "password": "x" * 2000}, "password cannot be longer"),
        ({"ca": "a\0b"}, "ca 'a.x00b' is no path of a file"),
        ({"key": mine.key}, "need a cert"),
        ({"password": "x"}, "need a cert"),
        ({"verify": False, "ca": authority.file}, "leave one of them out"),
        ({"server_name": "a:80"}, "server_name 'a:80'"),
    ):
        with pytest.raises(ConfigError, match=says):
            HTTPSChecker(**options)  # type: ignore[arg-type]


def test_contexts_are_shared_until_a_file_changes(authority: Authority, tmp_path: Path) -> None:
    ca = tmp_path / "ca.pem"
    ca.write_bytes(authority.file.read_bytes())
    first = HTTPSChecker("/a", ca=ca)
    assert HTTPSChecker("/b", ca=str(ca))._context is first._context
    assert HTTPSChecker("/b")._context is not first._context
    ca.write_bytes(authority.file.read_bytes() * 2)
    assert HTTPSChecker("/a", ca=ca)._context is not first._context
    assert HTTPSChecker("/a", ca=ca) == first


def test_password_is_not_shown(authority: Authority) -> None:
    client = authority.client
    checker = HTTPSChecker(cert=client.cert, key=client.key, password="secret")
    assert "secret" not in repr(checker)
    assert str(checker) == "HTTPS"
