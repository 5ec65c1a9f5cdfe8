"""What users write for services and real servers, turned into keys. Pure.

===================================  =================================================
``"192.0.2.10:80/tcp"``              one service; ``tcp``, ``udp`` or ``sctp``
``"[2001:db8::1]:53/udp"``           IPv6 addresses stand in brackets
``"192.0.2.10:80"``                  without a protocol it is TCP
``"192.0.2.10:80,443,8000-8003"``    several ports, and a range of them
``"192.0.2.10-20:80"``               11 addresses: to the last octet 20; in IPv6 to the
                                     last group, ``"[2001:db8::1-1f]:80"``
``"192.0.2.250-192.0.3.5:80"``       a range with both ends in full
``"192.0.2.0/28:80"``                all 16 addresses of a network; ``"[2001:db8::/124]:80"``
``"192.0.2.10/tcp"``                 every port, of a persistent service
``"fwmark 7"``, ``"fwmark 7 (IPv6)"``  what a firewall rule has marked with 7
===================================  =================================================

The ranges are those of keepalived's ``virtual_server_group``. What ``str()`` of a key gives can be
written too.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from ipaddress import IPv4Address, IPv6Address, ip_network

from vrrpkit.errors import ConfigError
from vrrpkit.ipvs.model.entries import DestinationKey, Protocol, ServiceKey
from vrrpkit.validate import text, whole_number
from vrrpkit.values import IPAddress, parse_address

__all__ = ["LIMIT", "destination_key", "service_keys", "takes_every_port"]

LIMIT = 65536
"""Services of one virtual server."""

MOST_FWMARK = 0xFFFF_FFFF

_ENDPOINT = re.compile(
    r"(?:\[(?P<six>[^\[\]]*)\]|(?P<four>[^:/\[\]]+(?:/[0-9]+)?))?"
    r"(?::(?P<ports>[^:/\[\]]*))?"
    r"(?:/(?P<protocol>[A-Za-z]+))?"
)
_MARK = re.compile(r"fwmark\s+(?P<mark>[^\s:]+)(?P<six>\s+\(IPv6\))?(?P<port>:.*)?", re.IGNORECASE)
_BROADCAST = IPv4Address("255.255.255.255")


def service_keys(
    services: str | Iterable[str] = (), *, fwmark: int | Iterable[int] = (), family: int = 4
) -> tuple[ServiceKey, ...]:
    """The keys that ``services`` or ``fwmark`` stand for, in the order given.

    :param services: one or several of the forms above.
    :param fwmark: firewall marks, 1 to 4294967295, in place of ``services``.
    :param family: 4 or 6, of the packets that ``fwmark`` takes.
    :raises ConfigError: there is none, one is malformed or comes twice, they are more than
        :data:`LIMIT`, or ``fwmark`` is combined with addresses.
    """
    if family not in (4, 6):
        raise ConfigError(f"family {family!r} must be 4 or 6")
    written = [services] if isinstance(services, str) else list(services)
    marks = [fwmark] if isinstance(fwmark, int) else list(fwmark)
    if marks and written:
        raise ConfigError(
            f"service {written[0]!r} with fwmark {marks[0]!r}: a firewall mark takes the place of "
            "address, port and protocol, which the rule that marks the packets chooses; give only "
            "one of them, or for a pool that serves both write 'fwmark N' among the services"
        )
    if family != 4 and not marks:
        raise ConfigError(
            f"family {family} goes with fwmark=; addresses say theirs, and among the services "
            "write 'fwmark N (IPv6)'"
        )
    found: dict[ServiceKey, None] = {}
    for key in _expand(written):
        _enter(found, key)
    for mark in marks:
        _enter(found, _fwmark(mark, family))
    if not found:
        raise ConfigError(
            "a virtual server needs a service: write one as '192.0.2.10:80/tcp', or give fwmark="
        )
    return tuple(found)


def destination_key(endpoint: str) -> DestinationKey:
    """The key of a real server, written as ``"10.0.0.1:8080"``, ``"[2001:db8::1]:80"`` or without
    a port, which is then 0: the port that the client asked for.

    :raises ConfigError: it is malformed or no unicast address.
    """
    what = "real server"
    found = _ENDPOINT.fullmatch(endpoint)
    host = found and (found["six"] or found["four"])
    if found is None or not host or found["protocol"] or "/" in host:
        raise ConfigError(
            f"{what} {endpoint!r} is not of the form '10.0.0.1:8080' or '[2001:db8::1]:80'; the "
            "protocol is that of the service"
        )
    address = _address(host, what, endpoint, 6 if found["six"] else 4)
    ports = found["ports"]
    return DestinationKey(address, 0 if ports is None else _port(ports, what, endpoint))


def takes_every_port(key: ServiceKey) -> bool:
    """Whether a service is for all ports of its address, which the kernel allows only to a
    persistent one."""
    return key.fwmark == 0 and key.port == 0


def _enter(found: dict[ServiceKey, None], key: ServiceKey) -> None:
    if key in found:
        raise ConfigError(f"service {key} is given twice; leave one out")
    found[key] = None
    if len(found) > LIMIT:
        raise _too_many(f"{LIMIT} and more services")


def _too_many(what: str) -> ConfigError:
    return ConfigError(
        f"{what} are too many: a virtual server has at most {LIMIT}; mark the packets by a "
        "firewall rule and give fwmark="
    )


def _expand(written: Iterable[object]) -> Iterator[ServiceKey]:
    for given in written:
        service = text("service", given, "'192.0.2.10:80/tcp'", empty=True)
        marked = _MARK.fullmatch(service)
        if marked is None:
            yield from _addressed(service)
            continue
        if marked["port"]:
            raise ConfigError(
                f"service {service!r}: a firewall mark has no port: the rule that marks the "
                f"packets chooses them; write 'fwmark {marked['mark']}'"
            )
        mark = marked["mark"]
        number = int(mark) if mark.isascii() and mark.isdecimal() else mark
        yield _fwmark(number, 6 if marked["six"] else 4)


def _fwmark(mark: object, family: int) -> ServiceKey:
    number = whole_number("fwmark", mark, 1, MOST_FWMARK, "0 is what an unmarked packet has")
    return ServiceKey(family, fwmark=number)


def _addressed(text: str) -> Iterator[ServiceKey]:
    what = "service"
    found = _ENDPOINT.fullmatch(text)
    host = found and (found["six"] or found["four"])
    if found is None or not host:
        raise ConfigError(
            f"{what} {text!r} is not of the form 'ADDRESS:PORT/PROTOCOL', as "
            "'192.0.2.10:80/tcp' or '[2001:db8::1]:53/udp'"
        )
    protocol = _protocol(found["protocol"], text)
    first, last = _span(host, text, 6 if found["six"] else 4)
    ports = (0,) if found["ports"] is None else _ports(found["ports"], text)
    count = int(last) - int(first) + 1
    if count * len(ports) > LIMIT:
        raise _too_many(f"{what} {text!r} stands for {count * len(ports)} services, which")
    for address in _unicast(first, last, text):
        for port in ports:
            yield ServiceKey(address.version, protocol, address, port)


def _protocol(name: str | None, text: str) -> Protocol:
    try:
        return Protocol.TCP if name is None else Protocol(name.lower())
    except ValueError:
        known = ", ".join(protocol.value for protocol in Protocol)
        raise ConfigError(f"service {text!r}: protocol {name!r} must be one of {known}") from None


def _span(host: str, text: str, family: int) -> tuple[IPAddress, IPAddress]:
    what = "service"
    if "/" in host:
        try:
            network = ip_network(host, strict=False)
        except ValueError as problem:
            raise ConfigError(f"{what} {text!r}: {problem}") from None
        start = host.partition("/")[0]
        if _address(start, what, text, family, unicast=False) != network.network_address:
            raise ConfigError(
                f"{what} {text!r}: network {host} has host bits set; write {network} for all of "
                f"it, or {start} for the one address"
            )
        return network[0], network[-1]
    start, dash, end = host.partition("-")
    first = _address(start, what, text, family)
    if not dash:
        return first, first
    last = _range_end(first, end, text)
    if int(last) < int(first):
        raise ConfigError(f"{what} {text!r}: the range ends before {first}; exchange its ends")
    return first, last


def _range_end(first: IPAddress, end: str, text: str) -> IPAddress:
    if ":" in end or "." in end:
        return _address(end, "service", text, first.version)
    base, most = (10, 0xFF) if first.version == 4 else (16, 0xFFFF)
    try:
        number = int(end, base) if end.isascii() and end.isalnum() else -1
    except ValueError:
        number = -1
    if not 0 <= number <= most:
        part = "octet" if first.version == 4 else "group of digits"
        raise ConfigError(
            f"service {text!r}: a range ends in the last {part}, as '192.0.2.10-20' or "
            f"'[2001:db8::1-1f]', or in a whole address; {end!r} is neither"
        )
    return type(first)(int(first) & ~most | number)


def _unicast(first: IPAddress, last: IPAddress, text: str) -> Iterator[IPAddress]:
    kind = IPv4Address if first.version == 4 else IPv6Address
    for end in (first, last):
        _require_unicast(end, "service", text)
    for number in range(int(first), int(last) + 1):
        yield kind(number)


def _require_unicast(address: IPAddress, what: str, text: str) -> None:
    if address.is_multicast or address.is_unspecified or address == _BROADCAST:
        raise ConfigError(
            f"{what} {text!r}: {address} is no address of one machine; it must be a unicast address"
        )


def _address(host: str, what: str, text: str, family: int, *, unicast: bool = True) -> IPAddress:
    address = parse_address(host, f"{what} {text!r}:")
    if address.version != family:
        raise ConfigError(
            f"{what} {text!r}: IPv6 addresses stand in brackets, IPv4 addresses do not, and both "
            "ends of a range are of one family: '[2001:db8::1]:80', '192.0.2.10:80'"
        )
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        raise ConfigError(
            f"{what} {text!r}: {host} is an IPv4 address in the form of IPv6, which no packet "
            f"carries; write {address.ipv4_mapped}"
        )
    if unicast:
        _require_unicast(address, what, text)
    return address


def _ports(written: str, text: str) -> Sequence[int]:
    found: list[int] = []
    for part in written.split(","):
        start, dash, end = part.partition("-")
        low = _port(start, "service", text)
        high = _port(end, "service", text) if dash else low
        if high < low or (dash and low == 0):
            raise ConfigError(
                f"service {text!r}: port range {part!r} must run upwards from 1, as '8000-8003'"
            )
        found += range(low, high + 1)
    return found


def _port(written: str, what: str, text: str) -> int:
    number = int(written) if written.isascii() and written.isdecimal() else -1
    if not 0 <= number <= 65535:
        raise ConfigError(
            f"{what} {text!r}: port {written!r} must be a number from 1 to 65535; leave the port "
            "out, with its colon, for whichever the client asked for"
        )
    return number
