"""Sockets that are bound as a way asks."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
from ipaddress import ip_address
from typing import Any, cast

import pytest

from checks.attempts import descriptors
from checks.privileges import unprivileged
from vrrpkit.checks import target
from vrrpkit.checks.target import EPHEMERAL, Endpoint, Target, is_self_connection
from vrrpkit.errors import ConfigError, PermissionMissing

HERE = {4: ip_address("127.0.0.1"), 6: ip_address("::1")}
families = pytest.mark.parametrize("family", [4, 6])


def opened(endpoint: Endpoint) -> tuple[str, int]:
    with contextlib.closing(endpoint.socket(socket.SOCK_DGRAM)) as sock:
        assert not sock.getblocking()
        return cast(tuple[str, int], sock.getsockname()[:2])


@families
def test_source(family: int) -> None:
    unbound = {4: "0.0.0.0", 6: "::"}[family]
    here = HERE[family]
    assert opened(Endpoint(here, 9)) == (unbound, 0)
    address, port = opened(Endpoint(here, 9, source=here))
    assert (address, port > 0) == (str(here), True)
    assert opened(Endpoint(here, 9, source_port=port)) == (unbound, port)
    assert opened(Endpoint(here, 9, source=here, source_port=port)) == (str(here), port)


@pytest.mark.parametrize(
    ("endpoint", "says"),
    [
        (Endpoint(HERE[4], 9, source=ip_address("192.0.2.1")), "from 192.0.2.1: Cannot assign"),
        (
            Endpoint(HERE[6], 9, source=ip_address("2001:db8::1"), source_port=50009),
            r":50009: Cannot",
        ),
        (Endpoint(HERE[4], 9, interface="nowhere7"), "interface 'nowhere7': No such device"),
    ],
)
def test_what_is_not_here(endpoint: Endpoint, says: str) -> None:
    before = descriptors()
    with pytest.raises(OSError, match=says):
        opened(endpoint)
    assert descriptors() == before


def test_a_mark_needs_a_capability() -> None:
    before = descriptors()
    with unprivileged(), pytest.raises(PermissionMissing, match="fwmark=7 needs it") as caught:
        opened(Endpoint(HERE[4], 9, fwmark=7))
    assert caught.value.capability == "CAP_NET_ADMIN"
    assert descriptors() == before


def test_an_interface_needed_a_capability_before_linux_5_7() -> None:
    class Refusing:
        def setsockopt(self, *_: object) -> None:
            raise PermissionError(errno.EPERM, "Operation not permitted")

    with pytest.raises(PermissionMissing, match="interface='eth0' needs it") as caught:
        target._leave_by(cast(socket.socket, Refusing()), "eth0")
    assert caught.value.capability == "CAP_NET_RAW"


def test_is_shown_as_urls_write_it() -> None:
    assert str(Endpoint(HERE[6], 80)) == "[::1]:80"
    assert str(Endpoint(HERE[4], None)) == "127.0.0.1"
    assert Endpoint(HERE[4], None).destination == ("127.0.0.1", 0)


def test_a_link_local_address_goes_by_its_link() -> None:
    number = socket.if_nametoindex("lo")
    for link in ("lo", str(number)):
        endpoint = Endpoint(ip_address(f"fe80::5%{link}"), 80)
        assert endpoint.sockaddr == ("fe80::5", 80, 0, number)
        assert str(endpoint) == f"[fe80::5%{link}]:80"
        # The other side is not told of our link.
        assert (endpoint.host, endpoint.authority(80), endpoint.authority(443)) == (
            *("fe80::5", "[fe80::5]"),
            "[fe80::5]:80",
        )
    with pytest.raises(OSError, match="no interface with this name"):
        _ = Endpoint(ip_address("fe80::5%nowhere7"), 80).sockaddr
    assert Endpoint(HERE[6], 80).sockaddr == ("::1", 80)
    assert Endpoint(HERE[4], None).sockaddr == ("127.0.0.1", 0)
    assert Endpoint(HERE[4], 8080).authority(80) == "127.0.0.1:8080"


def test_a_connection_that_is_gone_leads_nowhere() -> None:
    with socket.socket() as sock:
        assert not is_self_connection(Endpoint(HERE[4], EPHEMERAL), sock)


def test_a_target_takes_text_and_objects() -> None:
    assert Target("192.0.2.1", 80) == Target(ip_address("192.0.2.1"), 80)
    assert Target("2001:db8::1").address == ip_address("2001:db8::1")
    # A link-local server is found by its link.
    assert str(Target(ip_address("fe80::1%eth0"), 65535).endpoint) == "[fe80::1%eth0]:65535"


@pytest.mark.parametrize(
    ("values", "says"),
    [
        (("web1",), "target: address 'web1' is no IPv4 or IPv6 address"),
        (("192.0.2.1", -1), "target: port -1 must be a whole number from 0 to 65535"),
        (("192.0.2.1", 65536), "target: port 65536 must be"),
        (("192.0.2.1", "80"), "target: port '80' must be"),
        (("192.0.2.1", 80, 7), "target: name 7 must be text"),
    ],
)
def test_a_target_refuses(values: Any, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        Target(*values)


def test_connect_says_what_it_could_not_do() -> None:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        port = bound.getsockname()[1]
        with pytest.raises(ConnectionRefusedError) as refusal:
            asyncio.run(Target("127.0.0.1", port).connect())
    assert refusal.value.strerror == f"cannot connect to 127.0.0.1:{port}: Connection refused"
