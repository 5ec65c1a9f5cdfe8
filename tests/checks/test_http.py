"""The HTTP checker against good and hostile servers."""

from __future__ import annotations

import asyncio
import hashlib
import re
import subprocess
import sys
from ipaddress import ip_address

import attrs
import pytest

from checks import hostile
from checks.attempts import PASSED, attempt, collect, descriptors, real_sockets, until
from vrrpkit.checks.http import URL, HTTPChecker
from vrrpkit.checks.io.poller import Poller
from vrrpkit.checks.target import Endpoint, Target
from vrrpkit.errors import ConfigError

SHORT = 0.2
BODY = b"It works!\n"


def answer(body: bytes = BODY, status: str = "200 OK", *headers: str, length: bool = True) -> bytes:
    """An answer of HTTP/1.1."""
    lines = [f"HTTP/1.1 {status}", *headers]
    if length:
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*lines, "", ""]).encode() + body


def chunked(*chunks: bytes, end: bytes = b"0\r\n\r\n") -> bytes:
    """An answer in chunks."""
    parts = [b"%x\r\n%s\r\n" % (len(chunk), chunk) for chunk in chunks]
    head = answer(b"", "200 OK", "Transfer-Encoding: chunked", length=False)
    return head + b"".join(parts) + end


async def outcome(checker: HTTPChecker, data: bytes) -> str:
    """What a checker says of a server that answers with ``data`` and closes."""
    async with hostile.serving(hostile.answering(data)) as server:
        return await attempt(checker, server.target)


@pytest.mark.parametrize("family", [4, 6])
@real_sockets
async def test_passes(family: int) -> None:
    async with hostile.serving(hostile.answering(answer()), family=family) as server:
        assert await attempt(HTTPChecker(), server.target) == PASSED
        assert server.heard.startswith(f"GET / HTTP/1.1\r\nHost: {server.target}\r\n".encode())
        assert b"Accept-Encoding" not in server.heard


@pytest.mark.parametrize(
    "data",
    [
        answer(b""),
        answer(BODY, "204 No Content", length=False)[: -len(BODY)],
        answer(BODY, length=False),
        b"HTTP/1.0 200 OK\r\n\r\n" + BODY,
        b"HTTP/1.1 200\r\nContent-Length: 0\r\n\r\n",
        chunked(BODY),
        chunked(*[bytes([octet]) for octet in BODY]),
        chunked(BODY, end=b"0\r\nX-Trailer: y\r\n\r\n"),
        b"HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n" + answer(),
        answer() + b"and more than was announced",
    ],
)
@real_sockets
async def test_forms_of_answers(data: bytes) -> None:
    assert await outcome(HTTPChecker(), data) == PASSED


@real_sockets
async def test_verdict_does_not_wait_for_the_end_of_the_connection() -> None:
    async with hostile.serving(hostile.saying(answer())) as server:
        assert await attempt(HTTPChecker(), server.target) == PASSED


@real_sockets
async def test_answer_in_pieces() -> None:
    async with hostile.serving(hostile.drip(chunked(BODY), 0.001)) as server:
        assert await attempt(HTTPChecker(regex="works"), server.target) == PASSED


@pytest.mark.parametrize(
    ("status", "accepted", "says"),
    [
        ("200 OK", 200, PASSED),
        ("204 No Content", range(200, 300), PASSED),
        ("404 Not Found", [200, range(400, 410)], PASSED),
        ("404 Not Found", 200, "/: status 404, expected 200"),
        ("301 Moved", range(200, 300), "/: status 301, expected 200-299"),
        ("301 Moved", 301, PASSED),
        ("503 Busy", [200, 204], "/: status 503, expected 200, 204"),
    ],
)
@real_sockets
async def test_status(status: str, accepted: int | range | list[int | range], says: str) -> None:
    data = answer(b"", status, "Location: http://192.0.2.1/")
    assert await outcome(HTTPChecker(status=accepted), data) == says


@pytest.mark.parametrize("data", [answer(), chunked(BODY[:3], BODY[3:]), answer(length=False)])
@real_sockets
async def test_rules_about_the_body(data: bytes) -> None:
    md5, sha256 = hashlib.md5(BODY).hexdigest(), hashlib.sha256(BODY).hexdigest()
    assert await outcome(HTTPChecker(digest=md5), data) == PASSED
    assert await outcome(HTTPChecker(digest=sha256), data) == PASSED
    wrong = await outcome(HTTPChecker(digest="0" * 32), data)
    assert wrong == f"/: md5 digest {md5}, expected {'0' * 32}"
    assert await outcome(HTTPChecker(regex="^It w"), data) == PASSED
    assert "is not in the body" in await outcome(HTTPChecker(regex="^w"), data)
    assert await outcome(HTTPChecker(no_match="down"), data) == PASSED
    assert "is in the body" in await outcome(HTTPChecker(no_match="works"), data)


@real_sockets
async def test_status_comes_first() -> None:
    """A wrong status is told though the body never comes."""
    data = b"HTTP/1.1 500 Oops\r\nContent-Length: 10\r\n\r\n"
    async with hostile.serving(hostile.saying(data)) as server:
        checker = HTTPChecker(digest="0" * 32)
        assert await attempt(checker, server.target) == "/: status 500, expected 200-299"


@real_sockets
async def test_several_urls() -> None:
    asked: list[bytes] = []

    async def behave(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        path = (await hostile.request(reader)).split()[1]
        asked.append(path)
        writer.write(answer(path, {b"/bad": "503 Busy"}.get(path, "200 OK")))

    async with hostile.serving(behave) as server:
        checker = HTTPChecker(["/a", URL("/b", regex="^/b$"), URL("/bad", status=503)])
        assert await attempt(checker, server.target) == PASSED
        assert asked == [b"/a", b"/b", b"/bad"]
        assert server.connections == 3
        checker = HTTPChecker(["/a", "/bad", "/c"])
        assert await attempt(checker, server.target) == "/bad: status 503, expected 200-299"
        assert asked[3:] == [b"/a", b"/bad"]


@real_sockets
async def test_several_urls_of_a_server_that_is_gone() -> None:
    outcomes: list[object] = []
    target = Target(ip_address("255.255.255.255"), 80)
    abandon = HTTPChecker(["/a", "/b"]).begin(target, collect(outcomes))
    assert outcomes == [f"cannot connect to {target}: Network is unreachable"]
    abandon()


@real_sockets
async def test_abandoned_at_the_second_url() -> None:
    outcomes: list[object] = []

    async def behave(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if b"/a" in await hostile.request(reader):
            writer.write(answer())
        else:
            await reader.read()

    async with hostile.serving(behave) as server:
        abandon = HTTPChecker(["/a", "/b"]).begin(server.target, collect(outcomes))
        await until(lambda: b"/b" in server.heard)
        abandon()
        abandon()
        assert Poller.current().watched == 0
        assert outcomes == []


@real_sockets
async def test_request_options() -> None:
    async with hostile.serving(hostile.answering(answer(b""))) as server:
        checker = HTTPChecker(
            URL("/x?y", host="b.example.net"),
            host="a.example.net",
            method="OPTIONS",
            headers={"X-Probe": "1"},
            version="1.0",
        )
        assert await attempt(checker, server.target) == PASSED
        assert server.heard == (
            b"OPTIONS /x?y HTTP/1.0\r\nHost: b.example.net\r\nX-Probe: 1\r\n"
            b"User-Agent: vrrpkit\r\nConnection: close\r\n\r\n"
        )


@real_sockets
async def test_another_port_is_in_the_host_header() -> None:
    async with hostile.serving(hostile.answering(answer())) as server:
        target = Target(ip_address(server.address), 80)
        assert await attempt(HTTPChecker(port=server.port), target) == PASSED
        assert f"Host: 127.0.0.1:{server.port}\r\n".encode() in server.heard


def test_the_link_of_ours_is_not() -> None:
    checker = HTTPChecker()
    endpoint = Endpoint(ip_address("fe80::5%eth0"), 8080)
    assert endpoint.authority(checker.usual_port) == "[fe80::5]:8080"


def test_the_usual_port_is_not() -> None:
    from vrrpkit.checks.target import Endpoint

    checker = HTTPChecker()
    for address, port, host in (("192.0.2.1", 80, "192.0.2.1"), ("::1", 81, "[::1]:81")):
        assert Endpoint(ip_address(address), port).authority(checker.usual_port) == host


@real_sockets
async def test_head() -> None:
    """The length that an answer to HEAD tells is not that of a body."""
    data = b"HTTP/1.1 200 OK\r\nContent-Length: 99999999\r\n\r\n"
    assert await outcome(HTTPChecker(method="HEAD"), data) == PASSED


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "/: closed without an answer"),
        (b"HTTP/1.1 200 OK\r\nContent-", "/: the answer is broken: .*closed connection"),
        (answer()[:-3], "/: the answer is broken: .*received 7 bytes, expected 10"),
        (chunked(BODY, end=b""), "/: the answer is broken: .*incomplete chunked"),
        (hostile.GARBAGE, "/: the answer is no HTTP: b'.xff"),
        (b"220 mail ESMTP\r\n", "/: the answer is no HTTP: b'220 mail"),
        (b"HTTPS is something else\r\n\r\n", "/: the answer is no HTTP"),
        (b"HTTP/1.1 abc OK\r\n\r\n", "/: the answer is broken: illegal status line"),
        (b"HTTP/1.1 200 OK\r\nno colon\r\n\r\n", "/: the answer is broken: illegal header"),
        (
            b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
            "/: the answer is broken: conflicting Content-Length",
        ),
        (b"HTTP/1.1 101 Switching\r\nUpgrade: x\r\n\r\n", "/: the answer is broken"),
        (chunked(end=b"zz\r\n"), "/: the answer is broken: illegal chunk header"),
    ],
)
@real_sockets
async def test_broken_answers(data: bytes, says: str) -> None:
    for strict in (HTTPChecker(strict=True), HTTPChecker(regex="works")):
        found = await outcome(strict, data)
        assert re.match(says, found), found


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "/: closed without an answer"),
        (b"HTTP/1.1 200 OK\r\nContent-", "/: closed within the head of its answer"),
        (answer()[:-3], "/: closed with 3 octets of the body still to come"),
        (chunked(BODY, end=b""), "/: closed before the last chunk of the body"),
        (hostile.GARBAGE, "/: the answer is no HTTP: b'.xff"),
        (b"HTTPS is something else\r\n\r\n", "/: the answer is no HTTP"),
        (b"HTTP/1.1 abc OK\r\n\r\n", "/: the answer has no status: b'HTTP/1.1 abc OK"),
        (b"HTTP/1.1 101 Switching\r\nUpgrade: x\r\n\r\n", "/: status 101, expected 200-299"),
        # A client gets along with all of these.
        (b"HTTP/1.1 200 OK\r\nno colon\r\n\r\n", PASSED),
        (b"HTTP/1.1 200 OK\r\nX Foo: bar\r\n: x\r\nA : b\r\nContent-Length: 2\r\n\r\nok", PASSED),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", PASSED),
        (b"HTTP/1.1 200 OK\r\nContent-Length: many\r\n\r\nx", PASSED),
        (b"HTTP/1.0 200\n\nok", PASSED),
        (chunked(end=b"zz\r\n"), PASSED),
    ],
)
@real_sockets
async def test_a_status_is_judged_and_what_no_rule_is_about_is_not(data: bytes, says: str) -> None:
    found = await outcome(HTTPChecker(), data)
    assert re.match(says, found), found


@real_sockets
async def test_reset_in_the_middle() -> None:
    async with hostile.serving(hostile.reset(answer()[:-3])) as server:
        found = await attempt(HTTPChecker(), server.target)
        assert found == f"lost the connection to {server.target}: Connection reset by peer"


@pytest.mark.parametrize(
    "behaviour",
    [hostile.silent, hostile.drip(answer()), hostile.saying(answer()[:-1]), hostile.saying(b"HTT")],
)
@real_sockets
async def test_no_verdict_in_time(behaviour: hostile.Behaviour) -> None:
    async with hostile.serving(behaviour) as server:
        before = descriptors()
        assert await attempt(HTTPChecker(), server.target, SHORT) == "timeout"
        await until(lambda: descriptors() <= before + 2)


@real_sockets
async def test_garbage_is_not_waited_for() -> None:
    async with hostile.serving(hostile.garbage()) as server:
        assert "no HTTP" in await attempt(HTTPChecker(), server.target)


ENDLESS = b"HTTP/1.1 200 OK\r\n\r\n"


@pytest.mark.parametrize(
    ("first", "filling", "says"),
    [
        (ENDLESS, b"x" * 65536, "/: the body has more than 1000000 octets"),
        (answer(b"", "200 OK", "Content-Length: 10737418240", length=False), b"x" * 65536,
         "/: the body has more than 1000000 octets"),
        (chunked(end=b""), b"%x\r\n%s\r\n" % (60000, b"x" * 60000),
         "/: the body has more than 1000000 octets"),
        (b"HTTP/1.1 200 OK\r\nX: ", b"x" * 65536, "/: the answer has a head of more than"),
        (b"HTTP/1.1 200 OK\r\n", b"X: y\r\n" * 1000, "/: the answer has a head of more than"),
        (b"", b"HTTP/1.1 100 Continue\r\n\r\n" * 1000,
         "/: the answer has more than 16 others before it"),
        (chunked(end=b""), b"1\r\nx\r\n" * 1000,
         "/: the answer has more than 1016384 octets in all"),
        (chunked(end=b""), b"1;" + b"x" * 10000 + b"\r\nx\r\n",
         "/: the answer has more than 1016384 octets in all"),
        (b"HTTP/1.1 500 Oops\r\n\r\n", b"x" * 65536, "/: status 500"),
    ],
)  # fmt: skip
@real_sockets
async def test_ten_gigabytes(first: bytes, filling: bytes, says: str) -> None:
    async with hostile.serving(hostile.flood(first, filling)) as server:
        found = await attempt(HTTPChecker(body_limit=10**6), server.target, 60)
        assert found.startswith(says), found
        await until(lambda: len(server.errors) == 1)


@real_sockets
async def test_limits_are_exact() -> None:
    for data in (answer(), answer(length=False), chunked(BODY)):
        assert await outcome(HTTPChecker(body_limit=len(BODY)), data) == PASSED
        found = await outcome(HTTPChecker(body_limit=len(BODY) - 1), data)
        assert found == f"/: the body has more than {len(BODY) - 1} octets"


@real_sockets
async def test_a_flood_does_not_hold_up_others() -> None:
    async with (
        hostile.serving(hostile.flood(ENDLESS)) as bad,
        hostile.serving(hostile.answering(answer())) as good,
    ):
        outcomes: list[object] = []
        flooded = HTTPChecker(body_limit=2**26)
        abandon = flooded.begin(bad.target, collect(outcomes))
        await until(lambda: bad.connections == 1)
        assert await attempt(HTTPChecker(), good.target) == PASSED
        assert outcomes == []
        abandon()


@real_sockets
async def test_a_big_body_arrives_in_full() -> None:
    body = bytes(range(256)) * 4 * 1024 * 8
    digest = hashlib.sha256(body).hexdigest()
    for data in (answer(body), answer(body, length=False), chunked(body[:70000], body[70000:])):
        assert await outcome(HTTPChecker(digest=digest, body_limit=2**24), data) == PASSED


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"urls": []}, "at least one of them"),
        ({"urls": "healthz"}, "must begin with '/'"),
        ({"urls": ["/a", "/b\r\nX: y"]}, "must begin with '/'"),
        ({"status": 99}, "status 99"),
        ({"digest": "abc"}, "digest 'abc'"),
        ({"regex": "("}, "no regular expression"),
        ({"no_match": "("}, "no regular expression"),
        ({"host": "a\r\nX: y"}, "host "),
        ({"method": "GET /"}, "method"),
        ({"headers": {"X": "a\nb"}}, "one line"),
        ({"version": "2"}, "version '2'"),
        ({"header_limit": 255}, "header_limit 255"),
        ({"header_limit": 2**20 + 1}, "header_limit"),
        ({"body_limit": -1}, "body_limit -1"),
        ({"body_limit": 2**26 + 1}, "body_limit"),
        ({"method": "HEAD", "regex": "x"}, "use GET"),
        ({"fwmark": -1}, "fwmark"),
    ],
)
def test_bad_values(options: dict[str, object], says: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(says)):
        HTTPChecker(**options)  # type: ignore[arg-type]


def test_ends_of_the_ranges() -> None:
    HTTPChecker(header_limit=256, body_limit=0)
    HTTPChecker(header_limit=2**20, body_limit=2**26)


def test_is_a_value() -> None:
    checker = HTTPChecker("/healthz", status=200, regex="x", headers={"X": "y"}, interval=2)
    assert checker == HTTPChecker(["/healthz"], status=[200], regex=b"x", headers={"X": "y"},
                                  interval=2)  # fmt: skip
    assert checker != HTTPChecker("/other", status=200)
    assert hash(checker) == hash(attrs.evolve(checker))
    changed = attrs.evolve(checker, urls="/other")
    assert [question.path for question in changed._questions] == ["/other"]
    assert str(checker) == "HTTP"
    assert "status=200," in repr(checker)


def test_parser_and_tls_are_loaded_only_when_needed() -> None:
    code = (
        "import sys, vrrpkit.checks.http as http; http.HTTPChecker('/');"
        "print([name for name in ('h11', 'vrrpkit.checks.io.tls') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
