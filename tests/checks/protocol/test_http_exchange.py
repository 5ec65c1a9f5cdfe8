"""Whole answers, read by h11 and judged by the rules."""

from __future__ import annotations

import pytest

from vrrpkit.checks.protocol.http import URL, Rules, compose
from vrrpkit.checks.protocol.http_exchange import HTTPExchange
from vrrpkit.errors import CheckFailed

HEAD = b"HTTP/1.1 200 OK\r\n"
HEADER_LIMIT, BODY_LIMIT = 200, 100


def exchange(method: str = "GET") -> HTTPExchange:
    question = compose(URL("/"), Rules(), method=method, host=None, headers=(), version="1.1")
    made = HTTPExchange(question, b"request", HEADER_LIMIT, BODY_LIMIT)
    assert made.opened() == b"request"
    return made


def receive(it: HTTPExchange, pieces: list[bytes]) -> None:
    for piece in pieces:
        it.received(piece)


@pytest.mark.parametrize(
    "pieces",
    [
        [HEAD + b"Content-Length: 2\r\n\r\nok"],
        [b"HT", b"TP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n", b"o", b"k"],
        [b"HTTP/1.1 100 Continue\r\n\r\n" + HEAD + b"Content-Length: 0\r\n\r\n"],
        [HEAD + b"Transfer-Encoding: chunked\r\n\r\n", b"2\r\nok\r\n", b"0\r\n\r\n"],
        [HEAD + b"\r\nok", b""],
    ],
)
def test_an_answer_that_arrives_whole_passes(pieces: list[bytes]) -> None:
    it = exchange()
    for piece in pieces:
        assert not it.passed
        assert it.received(piece) == b""
    assert it.passed


def test_a_head_request_announces_a_body_that_does_not_come() -> None:
    it = exchange("HEAD")
    it.received(HEAD + b"Content-Length: 100000\r\n\r\n")
    assert it.passed


@pytest.mark.parametrize(
    ("pieces", "why"),
    [
        ([b""], "/: closed without an answer"),
        ([b"SSH-2.0\r\n"], r"/: the answer is no HTTP: b'SSH-2.0\\r\\n'"),
        ([HEAD + b"X Foo: bar\r\n\r\n"], "/: the answer is broken: illegal header line"),
        ([HEAD + b"X: " + b"x" * 300], "/: the answer has a head of more than 200 octets"),
        ([HEAD, b""], "/: the answer is broken: "),
        ([b"HTTP/1.1 503 Busy\r\n\r\n"], "/: status 503, expected 200-299"),
        ([HEAD + b"Content-Length: 101\r\n\r\n"], "/: the body has more than 100 octets"),
        ([HEAD + b"\r\n" + b"x" * 101], "/: the body has more than 100 octets"),
        (
            [b"HTTP/1.1 100 Continue\r\n\r\n" * 6] * 3,
            "/: the answer has more than 300 octets in all",
        ),
    ],
)
def test_an_answer_that_does_not(pieces: list[bytes], why: str) -> None:
    it = exchange()
    with pytest.raises(CheckFailed, match=f"^{why}"):
        receive(it, pieces)
    assert not it.passed
