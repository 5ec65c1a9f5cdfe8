"""Names of hosts: what resolvers and TLS would refuse later is refused at once, with advice."""

from __future__ import annotations

import ssl
from collections.abc import Callable

import pytest

import vrrpkit
from vrrpkit import ConfigError
from vrrpkit.checks import URL
from vrrpkit.hostnames import ascii_form, fault_in_name, is_address

LABEL = "a" * 63
LONGEST = ".".join([LABEL, LABEL, LABEL, "a" * 61])

GOOD = [
    "localhost",
    "www.example.net",
    "www.example.net.",
    "_srv._tcp.example.net",
    "db_1",
    "a-b.example",
    "xn--mnchen-3ya.de",
    "1.example",
    "3com.example",
    LABEL,
    LONGEST,
    f"{LONGEST}.",
]

BAD = [
    ("", "empty"),
    ("https://www.example.net/x", "scheme in it (https); write 'www.example.net'"),
    ("http://u@www.example.net:80", "write 'www.example.net'"),
    ("http://[2001:db8::1]:80/", "write '2001:db8::1'"),
    ("http://", "write 'www.example.net'"),
    ("www.example.net/health", "a path in it; write 'www.example.net'"),
    ("www.example.net:443", "a port in it; write 'www.example.net'"),
    ("[2001:db8::1]", "brackets around it; write '2001:db8::1'"),
    ("münchen.de", "write its ASCII form 'xn--mnchen-3ya.de'"),
    ("ü" * 64, "no ASCII form"),
    ("a..b", "nothing between two dots"),
    (".a", "nothing between two dots"),
    (".", "nothing between two dots"),
    (f"{LABEL}a.example", "has 64 characters"),
    (f"{LONGEST}a", "has 254 characters"),
    ("-a.example", "'-a' must have letters"),
    ("a-.example", "'a-' must have letters"),
    ("a b", "'a b' must have letters"),
    ("a\n", "must have letters"),
    ("192.0.2.300", "ends as an address does"),
    ("192.0.2", "ends as an address does"),
    ("2001:db8::g", "must have letters"),
]


def _taken_by_tls(name: str) -> bool:
    context = ssl.create_default_context()
    try:
        context.wrap_bio(ssl.MemoryBIO(), ssl.MemoryBIO(), server_hostname=name)
    except (ValueError, ssl.SSLError):
        return False
    return True


@pytest.mark.parametrize("name", GOOD)
def test_a_name(name: str) -> None:
    assert fault_in_name(name) is None
    assert _taken_by_tls(name.removesuffix("."))


@pytest.mark.parametrize(("name", "advice"), BAD)
def test_no_name(name: str, advice: str) -> None:
    assert advice in (fault_in_name(name) or "it is good")


def test_address() -> None:
    assert is_address("192.0.2.1")
    assert is_address("2001:db8::1")
    assert not is_address("192.0.2.300")
    assert not is_address(5)


def test_ascii_form() -> None:
    assert ascii_form("a.b") == "a.b"
    assert ascii_form("münchen.de") == "xn--mnchen-3ya.de"


MAKERS: dict[str, Callable[[str], object]] = {
    "HTTPChecker": lambda name: vrrpkit.HTTPChecker(host=name),
    "URL": lambda name: URL("/", host=name),
    "HTTPSChecker": lambda name: vrrpkit.HTTPSChecker(server_name=name),
    "SMTPChecker": lambda name: vrrpkit.SMTPChecker(starttls=True, server_name=name),
    "helo_name": lambda name: vrrpkit.SMTPChecker(helo_name=name),
    "Mail": lambda name: vrrpkit.Mail(name, to="ops@example.net", sender="a@example.net"),
    "DNSChecker": lambda name: vrrpkit.DNSChecker(name=name),
}


@pytest.mark.parametrize("where", MAKERS)
@pytest.mark.parametrize(
    "name",
    ["", "https://a.example/", "a..b", f"{LABEL}a.example", f"{LONGEST}a", "a\r\nX: y", "ü" * 64],
)
def test_refused_on_construction(where: str, name: str) -> None:
    with pytest.raises(ConfigError, match=r"name|host"):
        MAKERS[where](name)


@pytest.mark.parametrize("where", MAKERS)
@pytest.mark.parametrize("name", ["a.example", LONGEST])
def test_taken_on_construction(where: str, name: str) -> None:
    MAKERS[where](name)


@pytest.mark.parametrize(
    ("name", "advice"),
    [
        ("a.example:53", "write the name alone, 'a.example'"),
        ("https://a.example/x", "write the name alone, 'a.example'"),
        ("münchen.de", "in its xn-- form, 'xn--mnchen-3ya.de'"),
    ],
)
def test_dns_name(name: str, advice: str) -> None:
    with pytest.raises(ConfigError, match=advice):
        vrrpkit.DNSChecker(name=name)
    # RFC 2317.
    vrrpkit.DNSChecker(name="0/25.2.0.192.in-addr.arpa")


@pytest.mark.parametrize(
    ("host", "advice"),
    [
        ("2001:db8::1", "write '[2001:db8::1]'"),
        ("[2001:db8::g]", "has brackets"),
        ("[1:2]", "is no IPv6 address"),
        ("a:65536", "no port above 65535"),
        ("192.0.2.300:80", "ends as an address does"),
    ],
)
def test_host_header(host: str, advice: str) -> None:
    with pytest.raises(ConfigError, match=advice.replace("[", r"\[")):
        vrrpkit.HTTPChecker(host=host)


def test_name_for_tls_has_no_dot_at_its_end() -> None:
    with pytest.raises(ConfigError, match=r"write 'a\.example', without the dot"):
        vrrpkit.HTTPSChecker(server_name="a.example.")
    with pytest.raises(ConfigError, match="after '%'"):
        vrrpkit.HTTPSChecker(server_name="fe80::1%eth0")
    vrrpkit.HTTPSChecker(host="a.example.:8443")
