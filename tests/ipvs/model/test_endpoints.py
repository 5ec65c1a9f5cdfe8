"""What users write for services and real servers."""

from __future__ import annotations

from ipaddress import ip_address

import pytest
from hypothesis import given, strategies as st

from ipvs.entries_strategies import keys
from strategies import quick
from vrrpkit import ConfigError
from vrrpkit.ipvs.model.endpoints import LIMIT, destination_key, service_keys, takes_every_port
from vrrpkit.ipvs.model.entries import DestinationKey, Protocol, ServiceKey


def service(address: str, port: int, protocol: Protocol = Protocol.TCP) -> ServiceKey:
    ip = ip_address(address)
    return ServiceKey(ip.version, protocol, ip, port)


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("192.0.2.10:80/tcp", ["192.0.2.10:80/tcp"]),
        ("192.0.2.10:80/UDP", ["192.0.2.10:80/udp"]),
        ("192.0.2.10:80", ["192.0.2.10:80/tcp"]),
        ("[2001:db8::1]:53/udp", ["[2001:db8::1]:53/udp"]),
        ("192.0.2.10:65535/sctp", ["192.0.2.10:65535/sctp"]),
        ("192.0.2.10/udp", ["192.0.2.10:0/udp"]),
        ("192.0.2.10", ["192.0.2.10:0/tcp"]),
        ("[2001:db8::1]", ["[2001:db8::1]:0/tcp"]),
        ("192.0.2.10:0", ["192.0.2.10:0/tcp"]),
        ("192.0.2.10:443,80", ["192.0.2.10:443/tcp", "192.0.2.10:80/tcp"]),
        (
            "192.0.2.10:80,8000-8002/udp",
            [f"192.0.2.10:{port}/udp" for port in (80, 8000, 8001, 8002)],
        ),
        ("192.0.2.10:8000-8000", ["192.0.2.10:8000/tcp"]),
        ("192.0.2.9-11:80", [f"192.0.2.{n}:80/tcp" for n in (9, 10, 11)]),
        ("192.0.2.9-9:80", ["192.0.2.9:80/tcp"]),
        (
            "192.0.2.255-192.0.3.1:80",
            ["192.0.2.255:80/tcp", "192.0.3.0:80/tcp", "192.0.3.1:80/tcp"],
        ),
        ("[2001:db8::1e-20]:80", [f"[2001:db8::{n}]:80/tcp" for n in ("1e", "1f", "20")]),
        (
            "[2001:db8::ffff-2001:db8::1:0]:80",
            ["[2001:db8::ffff]:80/tcp", "[2001:db8::1:0]:80/tcp"],
        ),
        ("192.0.2.4/30:80/tcp", [f"192.0.2.{n}:80/tcp" for n in (4, 5, 6, 7)]),
        ("192.0.2.4/31", ["192.0.2.4:0/tcp", "192.0.2.5:0/tcp"]),
        ("192.0.2.4/32:80", ["192.0.2.4:80/tcp"]),
        ("[2001:db8::/127]:80", ["[2001:db8::]:80/tcp", "[2001:db8::1]:80/tcp"]),
        (
            "192.0.2.1-2:80,443",
            ["192.0.2.1:80/tcp", "192.0.2.1:443/tcp", "192.0.2.2:80/tcp", "192.0.2.2:443/tcp"],
        ),
        ("fwmark 7", ["fwmark 7"]),
        ("fwmark 4294967295 (IPv6)", ["fwmark 4294967295 (IPv6)"]),
        (["192.0.2.1:80", "fwmark 7"], ["192.0.2.1:80/tcp", "fwmark 7"]),
    ],
)
def test_a_service_may_be_written(written: str | list[str], expected: list[str]) -> None:
    assert [str(key) for key in service_keys(written)] == expected


def test_the_parts_of_a_key() -> None:
    assert service_keys("192.0.2.10:80") == (service("192.0.2.10", 80),)
    assert service_keys("[2001:db8::1]:53/udp") == (service("2001:db8::1", 53, Protocol.UDP),)


@quick
@given(keys())
def test_what_a_key_shows_can_be_written(key: ServiceKey) -> None:
    assert service_keys(str(key)) == (key,)


def test_marks() -> None:
    assert service_keys(fwmark=7) == (ServiceKey(4, fwmark=7),)
    assert service_keys(fwmark=[1, 2], family=6) == (
        ServiceKey(6, fwmark=1),
        ServiceKey(6, fwmark=2),
    )


@pytest.mark.parametrize(
    ("written", "message"),
    [
        ("", "not of the form"),
        (":80", "not of the form"),
        ("[]:80", "not of the form"),
        ("2001:db8::1:80", r"not of the form .*'\[2001:db8::1\]:53/udp'"),
        ("192.0.2.10:80/tcp/udp", "not of the form"),
        ("192.0.2.10 :80", "'192.0.2.10 ' is no IPv4 or IPv6 address"),
        ("192.0.2.10:80/icmp", "protocol 'icmp' must be one of tcp, udp, sctp"),
        ("www.example.net:80", "'www.example.net' is no IPv4 or IPv6 address"),
        ("[192.0.2.10]:80", "IPv6 addresses stand in brackets, IPv4 addresses do not"),
        ("[fe80::1%eth0]:80", "carries a zone"),
        ("192.0.2.10:", "port '' must be a number"),
        ("192.0.2.10:http", "port 'http' must be a number from 1 to 65535"),
        ("192.0.2.10:65536", "port '65536' must be"),
        ("192.0.2.10:-1", "port '' must be"),
        ("192.0.2.10:80,", "port '' must be"),
        ("192.0.2.10:٨", "port '٨' must be"),
        ("192.0.2.10:90-80", "port range '90-80' must run upwards from 1"),
        ("192.0.2.10:0-5", "port range '0-5' must run upwards from 1"),
        ("192.0.2.10-256:80", "'256' is neither"),
        ("192.0.2.10-1f:80", "'1f' is neither"),
        ("192.0.2.10-:80", "'' is neither"),
        ("[2001:db8::1-10000]:80", "'10000' is neither"),
        ("[2001:db8::1-g]:80", "'g' is neither"),
        ("192.0.2.10-9:80", "ends before 192.0.2.10; exchange"),
        ("[2001:db8::1-192.0.2.1]:80", "both ends of a range are of one family"),
        (
            "192.0.2.1/30:80",
            r"host bits set; write 192\.0\.2\.0/30 for all of it, or 192\.0\.2\.1 ",
        ),
        ("192.0.2.0/33:80", "does not appear to be an IPv4"),
        ("[192.0.2.0/30]:80", "IPv6 addresses stand in brackets"),
        ("224.0.0.5:80", "must be a unicast address"),
        ("[ff02::1]:80", "must be a unicast address"),
        ("0.0.0.0:80", "must be a unicast address"),
        ("[::]:80", "must be a unicast address"),
        ("255.255.255.255:80", "must be a unicast address"),
        ("0.0.0.0/30:80", "must be a unicast address"),
        ("223.255.255.255-224.0.0.1:80", "must be a unicast address"),
        ("192.0.2.10:80,80", "service 192.0.2.10:80/tcp is given twice"),
        (["192.0.2.0/24:80", "192.0.2.77:80/tcp"], "192.0.2.77:80/tcp is given twice"),
        (["fwmark 7", "fwmark 7"], "service fwmark 7 is given twice"),
        ("fwmark 7:80", "a firewall mark has no port: .* write 'fwmark 7'"),
        ("fwmark seven", "fwmark 'seven' must be a whole number from 1 to 4294967295"),
        ("fwmark 0", "fwmark 0 must be"),
        ("fwmark 4294967296", "fwmark 4294967296 must be"),
        ([], "needs a service"),
        ("[2001:db8::/64]:80", "stands for 18446744073709551616 services.* at most 65536"),
        ("192.0.2.0/31:1-32769", "stands for 65538 services"),
        (["10.0.0.0/16:80", "192.0.2.1:80"], "65536 and more services are too many"),
    ],
)
def test_a_service_that_is_written_wrongly_is_refused(
    written: str | list[str], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        service_keys(written)


def test_as_many_as_are_allowed() -> None:
    assert len(service_keys("10.0.0.0/16:80")) == LIMIT
    assert len(service_keys("192.0.2.1:1-65535")) == 65535


@pytest.mark.parametrize("mark", [0, -1, 2**32, True, 1.5])
def test_a_mark_out_of_range_is_refused(mark: int) -> None:
    with pytest.raises(ConfigError, match="must be a whole number from 1 to 4294967295"):
        service_keys(fwmark=[mark])


def test_a_mark_is_of_one_family() -> None:
    with pytest.raises(ConfigError, match="family 5 must be 4 or 6"):
        service_keys(fwmark=1, family=5)


def test_addresses_and_marks_are_not_combined_by_accident() -> None:
    for written in ("192.0.2.10:80", ":80", "fwmark 2"):
        with pytest.raises(ConfigError, match="takes the place of address, port and protocol"):
            service_keys(written, fwmark=1)
    with pytest.raises(ConfigError, match="service fwmark 1 is given twice"):
        service_keys(fwmark=[1, 1])


@pytest.mark.parametrize(
    ("written", "address", "port"),
    [
        ("10.0.0.1:8080", "10.0.0.1", 8080),
        ("10.0.0.1", "10.0.0.1", 0),
        ("[2001:db8::1]:80", "2001:db8::1", 80),
        ("[2001:db8::1]", "2001:db8::1", 0),
    ],
)
def test_a_real_server_may_be_written(written: str, address: str, port: int) -> None:
    assert destination_key(written) == DestinationKey(ip_address(address), port)


@quick
@given(
    st.ip_addresses(network="10.0.0.0/8") | st.ip_addresses(network="fd00::/8"),
    st.integers(0, 65535),
)
def test_what_a_real_server_shows_can_be_written(address: str, port: int) -> None:
    key = DestinationKey(ip_address(address), port)
    assert destination_key(str(key)) == key


@pytest.mark.parametrize(
    ("written", "message"),
    [
        ("", "not of the form"),
        (":80", "not of the form"),
        ("2001:db8::1", r"not of the form '10\.0\.0\.1:8080' or '\[2001:db8::1\]:80'"),
        ("10.0.0.1:80/tcp", "the protocol is that of the service"),
        ("10.0.0.0/24:80", "not of the form"),
        ("10.0.0.1-3:80", "is no IPv4 or IPv6 address"),
        ("10.0.0.1:80,81", "port '80,81' must be"),
        ("10.0.0.1:", "port '' must be"),
        ("[10.0.0.1]:80", "IPv6 addresses stand in brackets"),
        ("web1:80", "'web1' is no IPv4 or IPv6 address"),
        ("239.0.0.1:80", "must be a unicast address"),
        ("0.0.0.0:80", "must be a unicast address"),
    ],
)
def test_a_real_server_that_is_written_wrongly_is_refused(written: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        destination_key(written)


def test_every_port_is_port_0_of_an_address() -> None:
    assert takes_every_port(service("192.0.2.10", 0))
    assert not takes_every_port(service("192.0.2.10", 80))
    assert not takes_every_port(ServiceKey(4, fwmark=7))
