"""Advertisement to octets and back: VRRPv2 (RFC 3768) and VRRPv3 (RFC 9568), over IPv4 and IPv6.
Pure.

The units of the wire stay in this module: seconds in version 2, centiseconds in version 3.
"""

from __future__ import annotations

import enum
import functools
import math
import struct
from ipaddress import IPv4Address, IPv6Address
from typing import NamedTuple, cast

import attrs

from vrrpkit.errors import ConfigError, DecodeError
from vrrpkit.validate import is_number
from vrrpkit.values import IPAddress

__all__ = [
    "PROTOCOL",
    "Advertisement",
    "ChecksumForm",
    "Decoded",
    "Message",
    "RejectReason",
    "decode",
    "encode",
    "interval_from_wire",
    "interval_to_wire",
    "read",
]

PROTOCOL = 112
"""The IP protocol number of VRRP."""

_ADVERTISEMENT = 1
_HEADER = struct.Struct("!BBBBHH")
_V2_AUTH_DATA = 8


class RejectReason(enum.StrEnum):
    """Why an advert was dropped. A dropped advert is counted and moves no timer."""

    PACKET_LENGTH = "packet-length"
    TTL = "ttl"
    VERSION = "version"
    TYPE = "type"
    VRID = "vrid"
    CHECKSUM = "checksum"
    ADDRESS_COUNT_ZERO = "address-count-zero"
    INTERVAL_ZERO = "interval-zero"
    INTERVAL_MISMATCH = "interval-mismatch"
    AUTH_TYPE_INVALID = "auth-type-invalid"
    AUTH_TYPE_MISMATCH = "auth-type-mismatch"
    AUTH_FAILURE = "auth-failure"
    HMAC_MISSING = "hmac-missing"
    HMAC_MALFORMED = "hmac-malformed"
    HMAC_STALE = "hmac-stale"
    HMAC_UNKNOWN_KEY = "hmac-unknown-key"
    HMAC_FAILURE = "hmac-failure"
    HMAC_REPLAY = "hmac-replay"
    DESTINATION = "destination"
    UNKNOWN_PEER = "unknown-peer"
    OWN_SOURCE = "own-source"
    ADDRESS_LIST = "address-list"
    OWNER = "owner"


class ChecksumForm(enum.StrEnum):
    """What the checksum of a version 3 advert over IPv4 covers. IPv6 and version 2 know one form
    each."""

    PSEUDO_HEADER = "pseudo-header"
    """A pseudo-header and the message: the reading of RFC 5798 that keepalived and FRR ship with.
    """
    MESSAGE_ONLY = "message-only"
    """The message alone: RFC 9568 section 5.2.8, and most vendors."""


@attrs.frozen(kw_only=True)
class Advertisement:
    """One VRRP advertisement, field by field.

    :param version: 2 or 3.
    :param vrid: virtual router identifier, 1 to 255.
    :param priority: 255 owner, 1 to 254 backup, 0 the master is leaving.
    :param wire_interval: the advertisement interval in the unit of the version: seconds, 1 to 255,
        in version 2; centiseconds, 1 to 4095, in version 3.
    :param addresses: 1 to 255 virtual addresses of one family.
    :param reserved: the Reserve nibble of version 3 as received; sent as 0.
    :param auth_type: version 2 only: 0 none, 1 plain-text password.
    :param auth_data: version 2 only: 8 octets.
    """

    version: int
    vrid: int
    priority: int
    wire_interval: int
    addresses: tuple[IPAddress, ...]
    reserved: int = 0
    auth_type: int = 0
    auth_data: bytes = bytes(_V2_AUTH_DATA)

    @property
    def interval(self) -> float:
        """The advertisement interval in seconds."""
        return interval_from_wire(self.version, self.wire_interval)

    @property
    def family(self) -> int:
        """4 or 6."""
        return self.addresses[0].version


class Message(NamedTuple):
    """What :func:`read` found: everything but the addresses, which are made of octets that nobody
    has vouched for yet, and cost more than all the rest."""

    version: int
    vrid: int
    priority: int
    wire_interval: int
    reserved: int
    auth_type: int
    auth_data: bytes
    addresses: bytes
    """The octets of 1 to 255 addresses of the family of the sender."""
    width: int
    """Octets of one address: 4 or 16."""
    checksum: ChecksumForm
    """The form that the checksum verified in."""
    message: bytes
    """The VRRP message without a trailer, as received."""
    trailer: bytes
    """The octets after the message: an HMAC trailer, or nothing."""

    def advert(self) -> Advertisement:
        """The message with its addresses."""
        return Advertisement(
            version=self.version,
            vrid=self.vrid,
            priority=self.priority,
            wire_interval=self.wire_interval,
            addresses=_addresses(self.addresses, self.width),
            reserved=self.reserved,
            auth_type=self.auth_type,
            auth_data=self.auth_data,
        )


@functools.lru_cache(maxsize=64)
def _addresses(octets: bytes, width: int) -> tuple[IPAddress, ...]:
    # Every advert of a router lists the same ones.
    kind = IPv4Address if width == 4 else IPv6Address
    return tuple(kind(octets[at : at + width]) for at in range(0, len(octets), width))


@attrs.frozen
class Decoded:
    """What :func:`decode` found."""

    advert: Advertisement
    checksum: ChecksumForm
    """The form that the checksum verified in."""
    message: bytes
    """The VRRP message without a trailer, as received."""
    trailer: bytes
    """The octets after the message: an HMAC trailer, or nothing."""


def interval_from_wire(version: int, wire: int) -> float:
    """Seconds for an interval field."""
    return float(wire) if version == 2 else wire / 100


def interval_to_wire(version: int, seconds: float) -> int:
    """The interval field for ``seconds``.

    :raises ConfigError: the version cannot express it: version 2 knows whole seconds, 1 to 255,
        version 3 hundredths, 0.01 to 40.95.
    """
    unit, most = (1, 255) if version == 2 else (100, 4095)
    finite = is_number(cast(object, seconds)) and math.isfinite(seconds)
    wire = round(seconds * unit) if finite else 0
    if not 1 <= wire <= most or abs(wire - seconds * unit) > 1e-6:
        form = (
            "whole seconds from 1 to 255"
            if version == 2
            else "0.01 to 40.95 seconds in steps of 0.01"
        )
        raise ConfigError(
            f"interval {seconds!r} cannot be said in VRRP version {version}: use {form}"
        )
    return wire


def _sum(data: bytes) -> int:
    # The Internet checksum is a sum modulo 65535, and 65536 is 1 modulo 65535: the whole message is
    # one number.
    return int.from_bytes(data, "big") % 65535


def _pseudo_header(source: IPAddress, destination: IPAddress, length: int) -> bytes:
    if source.version == 4:
        return source.packed + destination.packed + struct.pack("!BBH", 0, PROTOCOL, length)
    return source.packed + destination.packed + struct.pack("!II", length, PROTOCOL)


def encode(
    advert: Advertisement,
    source: IPAddress,
    destination: IPAddress,
    form: ChecksumForm = ChecksumForm.PSEUDO_HEADER,
    trailer: bytes = b"",
) -> bytes:
    """The octets of an advert, from the version on, with ``trailer`` behind.

    :param form: which checksum a version 3 advert over IPv4 gets; without effect elsewhere.
    :raises ConfigError: a field is out of its range.
    """
    message = unsigned(advert)
    covered = message
    if advert.family == 6:
        covered = message + trailer
    if advert.family == 6 or (advert.version == 3 and form is ChecksumForm.PSEUDO_HEADER):
        covered = _pseudo_header(source, destination, len(covered)) + covered
    checksum = 65535 - (_sum(covered) or 65535)
    return message[:6] + checksum.to_bytes(2, "big") + message[8:] + trailer


def unsigned(advert: Advertisement) -> bytes:
    """The message with a checksum of zero: what an HMAC covers.

    :raises ConfigError: a field is out of its range.
    """
    count = len(advert.addresses)
    most = 255 if advert.version == 2 else 4095
    for name, value, low, high in (
        ("version", advert.version, 2, 3),
        ("VRID", advert.vrid, 1, 255),
        ("priority", advert.priority, 0, 255),
        ("number of addresses", count, 1, 255),
        ("interval", advert.wire_interval, 1, most),
        ("authentication type", advert.auth_type, 0, 255),
        ("octets of authentication data", len(advert.auth_data), _V2_AUTH_DATA, _V2_AUTH_DATA),
    ):
        if not low <= value <= high:
            raise ConfigError(f"{name} {value} must be {low} to {high} to fit an advertisement")
    if len({address.version for address in advert.addresses}) != 1:
        raise ConfigError(
            "the addresses of an advertisement must be of one family; run one router per family"
        )
    fourth = advert.auth_type << 8 if advert.version == 2 else 0
    header = _HEADER.pack(
        advert.version << 4 | _ADVERTISEMENT,
        advert.vrid,
        advert.priority,
        count,
        fourth | advert.wire_interval,
        0,
    )
    addresses = b"".join(address.packed for address in advert.addresses)
    return header + addresses + (advert.auth_data if advert.version == 2 else b"")


def decode(
    payload: bytes, source: IPAddress, destination: IPAddress, *, trailer: int = 0
) -> Decoded:
    """Read an advert from the octets behind the IP header, with its addresses: see
    :func:`read`.

    :raises DecodeError: these octets are no advertisement; nothing else is ever raised.
    """
    found = read(payload, source, destination, trailer=trailer)
    return Decoded(found.advert(), found.checksum, found.message, found.trailer)


def read(payload: bytes, source: IPAddress, destination: IPAddress, *, trailer: int = 0) -> Message:
    """Read the octets behind the IP header, as far as it takes to know whose they are.

    :param trailer: how many octets may follow the message (all of them or none).
    :raises DecodeError: these octets are no advertisement; nothing else is ever raised.
    """
    if len(payload) < _HEADER.size:
        raise DecodeError(RejectReason.PACKET_LENGTH, len(payload), f"at least {_HEADER.size}")
    first, vrid, priority, count, interval, _checksum = _HEADER.unpack_from(payload)
    version = first >> 4
    if version not in (2, 3):
        raise DecodeError(RejectReason.VERSION, version, "2 or 3")
    if first & 15 != _ADVERTISEMENT:
        raise DecodeError(RejectReason.TYPE, first & 15, _ADVERTISEMENT)
    if count == 0:
        raise DecodeError(RejectReason.ADDRESS_COUNT_ZERO, 0, "1 to 255")
    width = 4 if source.version == 4 else 16
    end = _HEADER.size + count * width + (_V2_AUTH_DATA if version == 2 else 0)
    extra = len(payload) - end
    if extra not in (0, trailer):
        raise DecodeError(RejectReason.PACKET_LENGTH, len(payload), end)
    form = _verify(payload, source, destination, version, end)
    reserved = auth_type = 0
    auth_data = bytes(_V2_AUTH_DATA)
    if version == 2:
        auth_type, interval = interval >> 8, interval & 255
        auth_data = payload[end - _V2_AUTH_DATA : end]
    else:
        reserved, interval = interval >> 12, interval & 4095
    if interval == 0:
        raise DecodeError(RejectReason.INTERVAL_ZERO, 0, "at least 1")
    if vrid == 0:
        raise DecodeError(RejectReason.VRID, 0, "1 to 255")
    listed = payload[_HEADER.size : _HEADER.size + count * width]
    return Message(
        version,
        vrid,
        priority,
        interval,
        reserved,
        auth_type,
        auth_data,
        listed,
        width,
        form,
        payload[:end],
        payload[end:],
    )


def _verify(
    payload: bytes, source: IPAddress, destination: IPAddress, version: int, end: int
) -> ChecksumForm:
    if source.version == 6:
        if (_sum(payload) + _sum(_pseudo_header(source, destination, len(payload)))) % 65535 == 0:
            return ChecksumForm.PSEUDO_HEADER
    else:
        message = _sum(payload[:end])
        if version == 3 and (message + _sum(_pseudo_header(source, destination, end))) % 65535 == 0:
            return ChecksumForm.PSEUDO_HEADER
        if message == 0:
            return ChecksumForm.MESSAGE_ONLY
    raise DecodeError(RejectReason.CHECKSUM, payload[6:8].hex())
