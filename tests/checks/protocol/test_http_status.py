"""The reader of a status alone: by whatever pieces an answer comes in."""

from __future__ import annotations

import pytest

from vrrpkit.checks.protocol.http import Rules
from vrrpkit.checks.protocol.http_exchange import body_in_chunks
from vrrpkit.checks.protocol.http_status import BEFORE, StatusExchange
from vrrpkit.errors import CheckFailed

PASSED = "passed"
WAITS = "waits"
LIMIT = 1000
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, Chunked\r\n\r\n"
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


def said(data: bytes, size: int, method: str = "GET", *, closed: bool = True) -> str:
    """What comes of an answer in pieces of so many octets."""
    talk = StatusExchange(
        "/",
        b"GET / HTTP/1.1\r\n\r\n",
        Rules(status=200),
        method,
        header_limit=LIMIT,
        body_limit=LIMIT,
        chunks=lambda: body_in_chunks(LIMIT),
    )
    assert talk.opened() == b"GET / HTTP/1.1\r\n\r\n"
    pieces = [data[at : at + size] for at in range(0, len(data), size)]
    try:
        for piece in [*pieces, b""] if closed else pieces:
            assert talk.received(piece) == b""
            if talk.passed:
                return PASSED
    except CheckFailed as problem:
        return str(problem).removeprefix("/: ")
    return WAITS


@pytest.mark.parametrize("size", [1, 2, 3, 7, 10_000])
@pytest.mark.parametrize(
    ("data", "whole", "closed"),
    [
        # The length says where it ends, and what comes beyond is nobody's business.
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", PASSED, PASSED),
        (b"HTTP/1.1 200 OK\ncontent-length : 2\n\nok", PASSED, PASSED),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", PASSED, PASSED),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\nok", PASSED, PASSED),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok and more", PASSED, PASSED),
        (
            b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nok",
            WAITS,
            "closed with 1 octets of the body still to come",
        ),
        # No length, or none that makes sense: it ends with the connection.
        (b"HTTP/1.1 200 OK\r\n\r\nok", WAITS, PASSED),
        (b"HTTP/1.0 200\r\n\r\n", WAITS, PASSED),
        (b"HTTP/1.1 200 OK\r\nContent-Length: -2\r\n\r\nok", WAITS, PASSED),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nok", WAITS, PASSED),
        # In chunks, which count before a length.
        (CHUNKED + b"2\r\nok\r\n0\r\n\r\n", PASSED, PASSED),
        (CHUNKED + b"2\r\nok\r\n0\r\nX-Trailer: y\r\n\r\n", PASSED, PASSED),
        (CHUNKED + b"2\r\nok\r\n", WAITS, "closed before the last chunk of the body"),
        (CHUNKED + b"what?\r\nok", WAITS, PASSED),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\nok", WAITS, PASSED),
        # Odd lines.
        (b"HTTP/1.1 200 OK\r\nX Y: z\r\n: x\r\nbox\r\nContent-Length: 2\r\n\r\nok", PASSED, PASSED),
        # Informational ones come before.
        (CONTINUE * BEFORE + b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", PASSED, PASSED),
        (CONTINUE, WAITS, "closed without an answer"),
        (
            CONTINUE * (BEFORE + 1),
            f"the answer has more than {BEFORE} others before it",
            f"the answer has more than {BEFORE} others before it",
        ),
        # What is no healthy answer.
        (b"", WAITS, "closed without an answer"),
        (b"HTTP/1.1 20", WAITS, "closed within the head of its answer"),
        (b"HTTP/1.1 503 No\r\n\r\n", "status 503, expected 200", "status 503, expected 200"),
        (b"HTTP/1.1 101 Up\r\n\r\n", "status 101, expected 200", "status 101, expected 200"),
    ],
)
def test_answers(data: bytes, size: int, whole: str, closed: str) -> None:
    assert said(data, size, closed=False) == whole
    assert said(data, size) == closed


@pytest.mark.parametrize("size", [1, 10_000])
def test_answers_without_a_body(size: int) -> None:
    head = b"HTTP/1.1 200 OK\r\nContent-Length: 99999999\r\n\r\n"
    assert said(head, size, "HEAD", closed=False) == PASSED
    for status in (204, 304):
        found = said(b"HTTP/1.1 %d X\r\n\r\n" % status, size, closed=False)
        assert found == f"status {status}, expected 200"


@pytest.mark.parametrize("start", [b"220 mail ESMTP\r\n", b"HTTPS/1.1", b"HTT P", b"\xff"])
@pytest.mark.parametrize("size", [1, 100])
def test_no_http(start: bytes, size: int) -> None:
    assert said(start, size, closed=False).startswith("the answer is no HTTP: b'")


@pytest.mark.parametrize(
    "line", [b"HTTP/1.1 abc", b"HTTP/1.1 2000 OK", b"HTTP/x.y 200", b"HTTP/1.1"]
)
def test_no_status(line: bytes) -> None:
    assert said(line + b"\r\n\r\n", 3).startswith("the answer has no status: b'HTTP/")


@pytest.mark.parametrize("size", [1, 999, 10_000])
def test_limits(size: int) -> None:
    head = b"HTTP/1.1 200 OK\r\nX: "
    fits = head + b"y" * (LIMIT - len(head) - 4) + b"\r\n\r\n"
    assert said(fits, size) == PASSED
    for long in (head + b"y" * LIMIT, fits.replace(b"X", b"XX")):
        assert said(long, size) == f"the answer has a head of more than {LIMIT} octets"
    body = f"the body has more than {LIMIT} octets"
    start = b"HTTP/1.1 200 OK\r\n\r\n"
    assert said(start + b"x" * LIMIT, size) == PASSED
    assert said(start + b"x" * (LIMIT + 1), size, closed=False) == body
    length = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n"
    assert said(length % LIMIT + b"x" * LIMIT, size, closed=False) == PASSED
    assert said(length % (LIMIT + 1), size, closed=False) == body
    assert said(CHUNKED + b"3e8\r\n" + b"x" * LIMIT + b"\r\n0\r\n\r\n", size) == PASSED
    assert said(CHUNKED + b"3e9\r\n" + b"x" * 1001 + b"\r\n0\r\n\r\n", size) == body
    # Heads of chunks count too.
    found = said(CHUNKED + b"1\r\nx\r\n" * 400, size, closed=False)
    assert found == f"the answer has more than {2 * LIMIT} octets in all"
