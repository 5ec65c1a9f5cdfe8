"""What crossed a link: VRRP adverts, BFD, ARP, neighbour advertisements, with kernel timestamps."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import select
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address, ip_address
from types import TracebackType
from typing import Self, TypeVar

from system.lab import NETNS_DIRECTORY, Host

_CLONE_NEWNET = 0x40000000
_ETH_P_ALL = 0x0003
_ETH_P_IP = 0x0800
_ETH_P_ARP = 0x0806
_ETH_P_IPV6 = 0x86DD
_PROTOCOL_VRRP = 112
_PROTOCOL_ICMPV6 = 58
_PROTOCOL_UDP = 17
_PROTOCOL_IGMP = 2
_HOP_BY_HOP = 0
_IGMP_REPORTS = (0x12, 0x16, 0x17, 0x22)
_MLD_REPORTS = (131, 132, 143)
_BFD_PORTS = (3784, 4784)
_NEIGHBOUR_ADVERTISEMENT = 136
_OPTION_TARGET_LINK_ADDRESS = 2
_SO_TIMESTAMPNS = 35
_SO_RCVBUFFORCE = 33
_TIMESPEC = struct.Struct("@ll")


@dataclass(frozen=True, kw_only=True)
class Frame:
    """A frame of interest."""

    #: When it arrived, in seconds of :func:`time.monotonic`.
    time: float
    #: Ethernet source address.
    source_mac: str


@dataclass(frozen=True, kw_only=True)
class Advert(Frame):
    """A VRRP advertisement, fields as on the wire."""

    source: str
    destination: str
    ttl: int
    version: int
    vrid: int
    priority: int
    #: v3: centiseconds (12 bits); v2: seconds (8 bits).
    interval: int
    addresses: tuple[str, ...]
    payload: bytes = field(repr=False)

    @property
    def family(self) -> int:
        """4 or 6."""
        return ip_address(self.source).version


@dataclass(frozen=True, kw_only=True)
class Arp(Frame):
    """An ARP packet."""

    operation: int
    sender_mac: str
    sender: str
    target_mac: str
    target: str

    @property
    def gratuitous(self) -> bool:
        """Whether sender and target are the same address."""
        return self.sender == self.target


@dataclass(frozen=True, kw_only=True)
class NeighbourAdvert(Frame):
    """An ICMPv6 neighbour advertisement."""

    source: str
    destination: str
    target: str
    router: bool
    solicited: bool
    override: bool
    #: The target link-layer address option, None if absent.
    mac: str | None


@dataclass(frozen=True, kw_only=True)
class Report(Frame):
    """A report of group memberships, IGMP or MLD, of any version; one that leaves a group too."""

    source: str
    groups: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class BFDPacket(Frame):
    """A BFD control packet, fields as on the wire."""

    source: str
    destination: str
    ttl: int
    source_port: int
    port: int
    state: str
    diagnostic: int
    poll: bool
    final: bool
    multiplier: int
    #: Microseconds.
    desired_min_tx: int
    required_min_rx: int


F = TypeVar("F", bound=Frame)


def socket_in(namespace: str, family: int, kind: int, protocol: int = 0) -> socket.socket:
    """Open a socket inside a network namespace; only a short-lived thread enters it."""
    result: list[socket.socket | BaseException] = []

    def enter_and_open() -> None:
        try:
            with (NETNS_DIRECTORY / namespace).open("rb") as entry:
                libc = ctypes.CDLL(None, use_errno=True)
                if libc.setns(entry.fileno(), _CLONE_NEWNET) != 0:
                    number = ctypes.get_errno()
                    raise OSError(number, os.strerror(number), namespace)
            result.append(socket.socket(family, kind, protocol))
        except BaseException as error:
            result.append(error)

    thread = threading.Thread(target=enter_and_open, name=f"enter {namespace}")
    thread.start()
    thread.join()
    outcome = result[0]
    if isinstance(outcome, BaseException):
        raise outcome
    return outcome


class Sniffer:
    """Records the frames of one interface in a background thread.

    Listening on ``lab.switch`` shows every frame that the switch forwards, unicast ones included;
    on a host also what that host sends itself.
    """

    def __init__(self, host: Host, dev: str | None = None) -> None:
        self._name = f"{host.name} {dev or host.dev}"
        self._frames: list[Frame] = []
        self._changed = threading.Condition()
        self._closing = threading.Event()
        self._offset = _realtime_minus_monotonic()
        self._socket = socket_in(host.namespace, socket.AF_PACKET, socket.SOCK_RAW)
        try:
            self._socket.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, 8 << 20)
            self._socket.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
            self._socket.bind((dev or host.dev, _ETH_P_ALL))
            self._socket.setblocking(False)
        except BaseException:
            self._socket.close()
            raise
        self._thread = threading.Thread(target=self._read, name=f"sniff {self._name}", daemon=True)
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Stop listening; what was recorded stays readable. May be called twice."""
        self._closing.set()
        self._thread.join()
        self._socket.close()

    def frames(self, kind: type[F], since: float = 0.0) -> list[F]:
        """The recorded frames of a kind, oldest first, from a monotonic time on."""
        with self._changed:
            return [f for f in self._frames if isinstance(f, kind) and f.time >= since]

    def adverts(
        self, vrid: int | None = None, since: float = 0.0, *, family: int | None = None
    ) -> list[Advert]:
        """The adverts of a virtual router (default: all) from a monotonic time on."""
        return [
            advert
            for advert in self.frames(Advert, since)
            if vrid in (None, advert.vrid) and family in (None, advert.family)
        ]

    def garps(self, address: str, since: float = 0.0) -> list[Arp]:
        """The gratuitous ARP packets for an address."""
        return [arp for arp in self.frames(Arp, since) if arp.gratuitous and arp.sender == address]

    def unsolicited(self, address: str, since: float = 0.0) -> list[NeighbourAdvert]:
        """The unsolicited neighbour advertisements for an address."""
        wanted = str(ip_address(address))
        found = self.frames(NeighbourAdvert, since)
        return [advert for advert in found if not advert.solicited and advert.target == wanted]

    def wait_for(
        self,
        kind: type[F],
        predicate: Callable[[F], bool] = lambda frame: True,
        timeout: float = 10.0,
        since: float = 0.0,
    ) -> F:
        """The first frame, recorded already or yet to come, that fulfils the predicate.

        Raises :class:`TimeoutError` after ``timeout`` seconds, with the last adverts in the text.
        """
        deadline = time.monotonic() + timeout
        seen = 0
        with self._changed:
            while True:
                for frame in self._frames[seen:]:
                    if isinstance(frame, kind) and frame.time >= since and predicate(frame):
                        return frame
                seen = len(self._frames)
                if not self._changed.wait(deadline - time.monotonic()):
                    last = "\n".join(map(str, self._frames[-12:]))
                    text = f"{self._name}: no such {kind.__name__} in {timeout} s; last frames:"
                    raise TimeoutError(f"{text}\n{last}")

    def _read(self) -> None:
        while not self._closing.is_set():
            # Short, since the thread is told to end by an event only.
            if not select.select([self._socket], [], [], 0.05)[0]:
                continue
            arrived = [frame for at, data in self._drain() for frame in _parse_safely(at, data)]
            if arrived:
                with self._changed:
                    self._frames += arrived
                    self._changed.notify_all()

    def _drain(self) -> Iterator[tuple[float, bytes]]:
        while True:
            try:
                data, control, _, _ = self._socket.recvmsg(65536, 64)
            except BlockingIOError:
                return
            except OSError as error:
                # Reported once when the interface goes down; the socket then goes on.
                if error.errno != errno.ENETDOWN:
                    raise
            else:
                at = time.monotonic()
                for level, kind, value in control:
                    if (level, kind) == (socket.SOL_SOCKET, _SO_TIMESTAMPNS):
                        seconds, nanoseconds = _TIMESPEC.unpack_from(value)
                        at = seconds - self._offset + nanoseconds / 1e9
                yield at, data


def _realtime_minus_monotonic() -> float:
    # The narrowest of several brackets: a preemption between two clock reads would spoil one.
    brackets: list[tuple[float, float]] = []
    for _ in range(20):
        before, real, after = time.monotonic(), time.time(), time.monotonic()
        brackets.append((after - before, real - (before + after) / 2))
    return min(brackets)[1]


def _parse_safely(at: float, data: bytes) -> Iterator[Frame]:
    # Malformed on purpose, perhaps: no test looks for such a frame here.
    with contextlib.suppress(struct.error, IndexError, ValueError):
        frame = parse(at, data)
        if frame is not None:
            yield frame


def parse(at: float, data: bytes) -> Frame | None:
    """The frame of interest in an Ethernet frame, None for any other."""
    source_mac = data[6:12].hex(":")
    (ethertype,) = struct.unpack_from("!H", data, 12)
    body = data[14:]
    if ethertype == _ETH_P_ARP:
        return _parse_arp(at, source_mac, body)
    if ethertype == _ETH_P_IP and body[9] == _PROTOCOL_VRRP:
        start, (total,) = (body[0] & 0x0F) * 4, struct.unpack_from("!H", body, 2)
        source, destination = str(IPv4Address(body[12:16])), str(IPv4Address(body[16:20]))
        payload = body[start:total]
        return _parse_advert(at, source_mac, source, destination, body[8], payload, 4)
    if ethertype == _ETH_P_IP and body[9] == _PROTOCOL_UDP:
        source, destination = str(IPv4Address(body[12:16])), str(IPv4Address(body[16:20]))
        return _parse_bfd(
            at, source_mac, source, destination, body[8], body[(body[0] & 0x0F) * 4 :]
        )
    if ethertype == _ETH_P_IP and body[9] == _PROTOCOL_IGMP:
        source, start = str(IPv4Address(body[12:16])), (body[0] & 0x0F) * 4
        return _parse_report(at, source_mac, source, body[start:], _IGMP_REPORTS, 4)
    if ethertype == _ETH_P_IPV6:
        (length,) = struct.unpack_from("!H", body, 4)
        source, destination = str(IPv6Address(body[8:24])), str(IPv6Address(body[24:40]))
        payload = body[40 : 40 + length]
        if body[6] == _PROTOCOL_VRRP:
            return _parse_advert(at, source_mac, source, destination, body[7], payload, 16)
        if body[6] == _PROTOCOL_UDP:
            return _parse_bfd(at, source_mac, source, destination, body[7], payload)
        if (body[6], payload[0]) == (_HOP_BY_HOP, _PROTOCOL_ICMPV6):
            report = payload[(payload[1] + 1) * 8 :]
            return _parse_report(at, source_mac, source, report, _MLD_REPORTS, 16)
        if body[6] == _PROTOCOL_ICMPV6 and payload[0] == _NEIGHBOUR_ADVERTISEMENT:
            return _parse_neighbour_advert(at, source_mac, source, destination, payload)
    return None


def _parse_advert(
    at: float,
    source_mac: str,
    source: str,
    destination: str,
    ttl: int,
    payload: bytes,
    size: int,
) -> Advert:
    first, vrid, priority, count, word = struct.unpack_from("!BBBBH", payload)
    version = first >> 4
    ends = range(8 + size, 8 + size * count + 1, size)
    return Advert(
        time=at,
        source_mac=source_mac,
        source=source,
        destination=destination,
        ttl=ttl,
        version=version,
        vrid=vrid,
        priority=priority,
        interval=word & 0x0FFF if version == 3 else word & 0xFF,
        addresses=tuple(str(ip_address(payload[end - size : end])) for end in ends),
        payload=payload,
    )


def _parse_bfd(
    at: float, source_mac: str, source: str, destination: str, ttl: int, datagram: bytes
) -> BFDPacket | None:
    source_port, port = struct.unpack_from("!HH", datagram)
    if port not in _BFD_PORTS:
        return None
    first, flags, multiplier, tx, rx = struct.unpack_from("!BBBx8xII", datagram, 8)
    return BFDPacket(
        time=at,
        source_mac=source_mac,
        source=source,
        destination=destination,
        ttl=ttl,
        source_port=source_port,
        port=port,
        state=("AdminDown", "Down", "Init", "Up")[flags >> 6],
        diagnostic=first & 31,
        poll=bool(flags & 32),
        final=bool(flags & 16),
        multiplier=multiplier,
        desired_min_tx=tx,
        required_min_rx=rx,
    )


def _parse_report(
    at: float, source_mac: str, source: str, report: bytes, kinds: tuple[int, ...], size: int
) -> Report | None:
    if report[0] not in kinds:
        return None
    groups: list[str] = []
    if report[0] != kinds[-1]:
        groups.append(str(ip_address(report[-size:])))
    else:
        (count,) = struct.unpack_from("!H", report, 6)
        start = 8
        for _ in range(count):
            auxiliary, sources = struct.unpack_from("!xBH", report, start)
            groups.append(str(ip_address(report[start + 4 : start + 4 + size])))
            start += 4 + size + sources * size + auxiliary * 4
    return Report(time=at, source_mac=source_mac, source=source, groups=tuple(groups))


def _parse_arp(at: float, source_mac: str, body: bytes) -> Arp | None:
    hardware, protocol, _, _, operation = struct.unpack_from("!HHBBH", body)
    if (hardware, protocol) != (1, _ETH_P_IP):
        return None
    return Arp(
        time=at,
        source_mac=source_mac,
        operation=operation,
        sender_mac=body[8:14].hex(":"),
        sender=str(IPv4Address(body[14:18])),
        target_mac=body[18:24].hex(":"),
        target=str(IPv4Address(body[24:28])),
    )


def _parse_neighbour_advert(
    at: float, source_mac: str, source: str, destination: str, payload: bytes
) -> NeighbourAdvert:
    flags = payload[4]
    mac = None
    offset = 24
    while offset + 8 <= len(payload) and payload[offset + 1]:
        if payload[offset] == _OPTION_TARGET_LINK_ADDRESS:
            mac = payload[offset + 2 : offset + 8].hex(":")
        offset += payload[offset + 1] * 8
    return NeighbourAdvert(
        time=at,
        source_mac=source_mac,
        source=source,
        destination=destination,
        target=str(IPv6Address(payload[8:24])),
        router=bool(flags & 0x80),
        solicited=bool(flags & 0x40),
        override=bool(flags & 0x20),
        mac=mac,
    )
