"""What may be written about HTTP, and what is refused."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import cast

import pytest

from vrrpkit.checks.protocol import http_options as options
from vrrpkit.errors import ConfigError

LINE_ENDS = ["\r\n", "\n", "\r", "\0"]


@pytest.mark.parametrize(
    ("value", "codes"),
    [
        (200, {200}),
        (range(200, 203), {200, 201, 202}),
        ([204, range(301, 303)], {204, 301, 302}),
        ({200, 599}, {200, 599}),
        (frozenset({404}), {404}),
    ],
)
def test_status_codes(value: options.Status, codes: set[int]) -> None:
    assert options.status_codes(value) == codes


@pytest.mark.parametrize(
    "value",
    [199, 600, 0, -1, [], range(0), [200, 600], range(199, 300), "200", b"200", True, [True],
     200.0, None, ["200"]],
)  # fmt: skip
def test_no_status_codes(value: object) -> None:
    with pytest.raises(ConfigError, match=r"range\(200, 300\)"):
        options.status_codes(cast(int, value))


def test_status_codes_if_any() -> None:
    assert options.status_codes_if_any(None) is None
    assert options.status_codes_if_any(200) == {200}


@pytest.mark.parametrize(
    ("codes", "text"),
    [
        (None, ""),
        ({200}, "200"),
        ({200, 201}, "200-201"),
        ({404, 200, 202, 201, 301}, "200-202, 301, 404"),
    ],
)
def test_spelled(codes: set[int] | None, text: str) -> None:
    assert options.spelled(None if codes is None else frozenset(codes)) == text


def test_digest_digits() -> None:
    assert options.digest_digits(None) is None
    assert options.digest_digits("AB" * 16) == "ab" * 16
    assert options.digest_digits("0f" * 32) == "0f" * 32
    for value in ("", "ab" * 15, "ab" * 20, "xy" * 16, "ab" * 16 + "\n", b"ab" * 16, 5):
        with pytest.raises(ConfigError, match="genhash"):
            options.digest_digits(cast(str, value))


def test_body_pattern() -> None:
    assert options.body_pattern(None) is None
    for value in ("ä+", "ä+".encode(), re.compile("ä+"), re.compile("ä+".encode())):
        found = options.body_pattern(value)
        assert found is not None
        assert found.search("xäy".encode())
    caseless = options.body_pattern(re.compile("OK", re.IGNORECASE))
    assert caseless is not None
    assert caseless.search(b"it is ok")
    for value in ("(", b"(", 5, ["x"]):
        with pytest.raises(ConfigError, match="no regular expression"):
            options.body_pattern(cast(str, value))


@pytest.mark.parametrize("value", ["/", "/a/b?c=d&e=%20", "*", "/~x/[1]"])
def test_request_path(value: str) -> None:
    assert options.request_path(value) == value


@pytest.mark.parametrize(
    "value",
    ["", "a", "/a b", "/ä", "/a#b", "/\x7f", 5, b"/", None, *(f"/{end}X: y" for end in LINE_ENDS)],
)
def test_no_request_path(value: object) -> None:
    with pytest.raises(ConfigError, match="must begin with '/'"):
        options.request_path(cast(str, value))


@pytest.mark.parametrize("value", ["http://192.0.2.1/", "https://x/\n"])
def test_a_whole_url_is_no_path(value: str) -> None:
    with pytest.raises(ConfigError, match="whole URL"):
        options.request_path(value)


@pytest.mark.parametrize(
    ("value", "alone"),
    [
        ("www.example.net", "www.example.net"),
        ("www.example.net:8080", "www.example.net"),
        ("my_host", "my_host"),
        ("192.0.2.1", "192.0.2.1"),
        ("192.0.2.1:80", "192.0.2.1"),
        ("[2001:db8::1]", "2001:db8::1"),
        ("[2001:db8::1]:8443", "2001:db8::1"),
    ],
)
def test_host_name(value: str, alone: str) -> None:
    assert options.host_name(value) == value
    assert options.without_port(value) == alone
    assert options.server_name(alone) == alone


@pytest.mark.parametrize(
    "value",
    ["", " ", "a b", "a/b", "münchen.de", ".x", "a:b", "a:123456", "2001:db8::1", "u@h", 5,
     *(f"a{end}X: y" for end in LINE_ENDS), "a\n"],
)  # fmt: skip
def test_no_host_name(value: object) -> None:
    with pytest.raises(ConfigError, match="xn--"):
        options.host_name(cast(str, value))


@pytest.mark.parametrize(
    "value", ["", "[2001:db8::1]", "a:80", ".x", "a b", "münchen.de", 5, "a\n"]
)
def test_no_server_name(value: object) -> None:
    with pytest.raises(ConfigError, match="server_name"):
        options.server_name(cast(str, value))


def test_no_names_at_all() -> None:
    assert options.host_name(None) is None
    assert options.server_name(None) is None


def test_method_name() -> None:
    for good in ("GET", "HEAD", "OPTIONS", "POST"):
        assert options.method_name(good) == good
    for bad in ("", "CONNECT", "GET ", "G\nT", "GÄT", 5, *(f"GET{end}" for end in LINE_ENDS)):
        with pytest.raises(ConfigError, match="method"):
            options.method_name(cast(str, bad))


def test_header_lines() -> None:
    assert options.header_lines({}) == ()
    pairs = options.header_lines({"X-Probe": "a b\tc", "Accept": "*/*", "X-Empty": ""})
    assert pairs == (("X-Probe", "a b\tc"), ("Accept", "*/*"), ("X-Empty", ""))
    assert options.header_lines(pairs) == pairs


@pytest.mark.parametrize("name", ["", "X Y", "X:", "Ä", 5, *(f"X{end}Y" for end in LINE_ENDS)])
def test_no_header_name(name: object) -> None:
    with pytest.raises(ConfigError, match="header name"):
        options.header_lines({cast(str, name): "x"})


@pytest.mark.parametrize("value", [" x", "x ", "€", 5, *(f"x{end}Y: z" for end in LINE_ENDS)])
def test_no_header_value(value: object) -> None:
    with pytest.raises(ConfigError, match="one line"):
        options.header_lines({"X": cast(str, value)})


@pytest.mark.parametrize("name", ["Host", "connection", "CONTENT-LENGTH", "Transfer-Encoding"])
def test_headers_that_are_not_the_users(name: str) -> None:
    with pytest.raises(ConfigError, match="cannot be given"):
        options.header_lines({name: "x"})


def test_http_version() -> None:
    assert [options.http_version(version) for version in ("1.0", "1.1")] == ["1.0", "1.1"]
    for bad in ("1.0C", "2", "", 1.1):
        with pytest.raises(ConfigError, match=r"'1\.0' or '1\.1'"):
            options.http_version(cast(str, bad))


@pytest.mark.parametrize(
    "convert", [options.digest_digits, options.body_pattern, options.status_codes_if_any]
)
def test_what_is_converted_twice_stays(convert: Callable[[object], object]) -> None:
    value: object = {
        options.digest_digits: "ab" * 16,
        options.body_pattern: "x",
        options.status_codes_if_any: 200,
    }[convert]
    once = convert(value)
    assert convert(once) == once
