"""The judgement on HTTP answers."""

from __future__ import annotations

import hashlib
import re

import pytest

from vrrpkit.checks.protocol.http import URL, Question, Rules, compose
from vrrpkit.errors import CheckFailed, ConfigError

BODY = b"It works!\n"
MD5 = "0868f0b9bf25d4e6a611be8f02a880b5"
SHA256 = hashlib.sha256(BODY).hexdigest()


def question(url: URL | None = None, **options: object) -> Question:
    """A question with everything usual but ``options``."""
    rules = options.pop("rules", Rules())
    usual: dict[str, object] = {"method": "GET", "host": None, "headers": (), "version": "1.1"}
    return compose(url or URL("/"), rules, **{**usual, **options})  # type: ignore[arg-type]


def test_status() -> None:
    for status in (200, 299):
        Rules().judge_status(status)
    for status in (300, 301, 404, 503):
        with pytest.raises(CheckFailed, match=f"status {status}, expected 200-299"):
            Rules().judge_status(status)
    Rules(status=[301, 302]).judge_status(302)
    with pytest.raises(CheckFailed, match="status 200, expected 301-302"):
        Rules(status=[301, 302]).judge_status(200)


def test_digest() -> None:
    assert hashlib.md5(BODY).hexdigest() == MD5
    for good in (MD5, MD5.upper(), SHA256):
        Rules(digest=good).judge_body(BODY)
    for name, bad in (("md5", "0" * 32), ("sha256", "0" * 64)):
        with pytest.raises(CheckFailed, match=f"{name} digest [0-9a-f]+, expected 000"):
            Rules(digest=bad).judge_body(BODY)


def test_regex() -> None:
    Rules(regex="wor[k]s").judge_body(BODY)
    with pytest.raises(CheckFailed, match=r"b'down' is not in the body: b'It works!\\n'"):
        Rules(regex="down").judge_body(BODY)
    with pytest.raises(CheckFailed, match=r"not in the body: b'x{60}'\.\.\.$"):
        Rules(regex="down").judge_body(b"x" * 100)


def test_where_a_match_may_begin_is_part_of_the_expression() -> None:
    """As with keepalived's ``regex_min_offset 3`` and ``regex_max_offset 5``."""
    rules = Rules(regex=re.compile(rb"\A(?s:.{3,5}?)(?:ok)"))
    for before in (b"...", b"\n\n\n\n", b"ok...", b"\xff" * 5):
        rules.judge_body(before + b"ok then")
    for before in (b"", b"..", b"." * 6, b"ok...."):
        with pytest.raises(CheckFailed, match="is not in the body"):
            rules.judge_body(before + b"ok then")


def test_no_match() -> None:
    Rules(no_match="down").judge_body(BODY)
    with pytest.raises(CheckFailed, match=r"b'W.*S' is in the body: b'works'$"):
        Rules(no_match=re.compile("W.*S", re.IGNORECASE)).judge_body(BODY)


def test_order() -> None:
    """Digest before the expressions, the one that must match first."""
    rules = Rules(digest="0" * 32, regex="absent", no_match="works")
    with pytest.raises(CheckFailed, match="digest"):
        rules.judge_body(BODY)
    with pytest.raises(CheckFailed, match="not in the body"):
        Rules(regex="absent", no_match="works").judge_body(BODY)


def test_no_rules_about_the_body() -> None:
    Rules().judge_body(BODY)
    assert not Rules(status=500).need_body
    assert Rules(digest=MD5).need_body
    assert Rules(regex="").need_body
    assert Rules(no_match="x").need_body


def test_a_url_has_rules_of_its_own() -> None:
    checker = Rules(status=200, digest=MD5, regex="a", no_match="b")
    plain = question(URL("/"), rules=checker).rules
    assert plain == checker
    own = question(
        URL("/x", status=204, digest=SHA256, regex="c", no_match="d"), rules=checker
    ).rules
    assert own == Rules(status=204, digest=SHA256, regex="c", no_match="d")
    part = question(URL("/x", regex="c"), rules=checker).rules
    assert part == Rules(status=200, digest=MD5, regex="c", no_match="b")


def test_request() -> None:
    assert question().request("192.0.2.1:8080") == (
        b"GET / HTTP/1.1\r\nHost: 192.0.2.1:8080\r\nUser-Agent: vrrpkit\r\n"
        b"Connection: close\r\n\r\n"
    )
    assert question(version="1.0").request("x").startswith(b"GET / HTTP/1.0\r\nHost: x\r\n")


def test_request_with_everything() -> None:
    asked = question(
        URL("/a?b=c", host="own.example.net:81"),
        method="POST",
        host="www.example.net",
        headers=(("user-agent", "probe"), ("X-A", "ä")),
    )
    assert asked.request("192.0.2.1") == (
        b"POST /a?b=c HTTP/1.1\r\nHost: own.example.net:81\r\nuser-agent: probe\r\nX-A: \xe4\r\n"
        b"Content-Length: 0\r\nConnection: close\r\n\r\n"
    )


def test_host() -> None:
    assert b"Host: www.example.net\r\n" in question(host="www.example.net").request("192.0.2.1")


def test_head_has_no_body() -> None:
    question(method="HEAD", rules=Rules(status=204))
    for rules in (Rules(digest=MD5), Rules(regex="x"), Rules(no_match="x")):
        with pytest.raises(ConfigError, match="use GET"):
            question(method="HEAD", rules=rules)


def test_url_reads_well() -> None:
    assert str(URL("/healthz", status=200)) == "/healthz"
    assert "200-202" in repr(URL("/", status=range(200, 203)))
    assert "200-299" in repr(Rules())
