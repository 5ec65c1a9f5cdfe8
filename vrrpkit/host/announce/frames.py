"""The frames that tell neighbours where a virtual address is, and the sockets that send them.

When they are sent is the business of ``announcer.py``.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from vrrpkit.host.links.records import LinkRecord
from vrrpkit.linux.netns import Namespace
from vrrpkit.values import VIP, IPAddress

__all__ = ["FrameSender", "gratuitous_arp", "unsolicited_na"]

BROADCAST = b"\xff" * 6
ALL_NODES = bytes.fromhex("ff02" + "00" * 13 + "01")
ALL_NODES_MAC = bytes.fromhex("333300000001")

ETHERNET_IPV6 = 0x86DD
ICMPV6 = 58
NEIGHBOUR_ADVERTISEMENT = 136
ROUTER = 0x80
OVERRIDE = 0x20
TARGET_LINK_LAYER_ADDRESS = 2


def gratuitous_arp(address: IPAddress, mac: bytes) -> bytes:
    """A gratuitous ARP frame: a broadcast request whose sender and target are ``address``, with the
    link broadcast as target hardware address, as keepalived sends it (RFC 5227 section 3 allows
    request and reply; more hosts take in a request)."""
    from dpkt import arp, ethernet

    request = arp.ARP(
        op=arp.ARP_OP_REQUEST,
        sha=mac,
        spa=address.packed,
        tha=BROADCAST,
        tpa=address.packed,
    )
    frame = ethernet.Ethernet(src=mac, dst=BROADCAST, type=ethernet.ETH_TYPE_ARP, data=request)
    return bytes(frame)


def unsolicited_na(address: IPAddress, mac: bytes, *, router: bool) -> bytes:
    """An unsolicited neighbour advertisement frame to all nodes with Override set (RFC 4861
    section 7.2.6).

    :param router: whether this host forwards. Hosts drop a router from their default routers when
        it says no.
    """
    from dpkt import ethernet, icmp6, ip6

    flags = OVERRIDE | (ROUTER if router else 0)
    option = bytes((TARGET_LINK_LAYER_ADDRESS, 1)) + mac
    body = bytes((flags, 0, 0, 0)) + address.packed + option
    packet = ip6.IP6(
        src=address.packed,
        dst=ALL_NODES,
        nxt=ICMPV6,
        p=ICMPV6,
        hlim=255,
        plen=4 + len(body),
        data=icmp6.ICMP6(type=NEIGHBOUR_ADVERTISEMENT, code=0, sum=0, data=body),
    )
    frame = ethernet.Ethernet(src=mac, dst=ALL_NODES_MAC, type=ETHERNET_IPV6, data=packet)
    return bytes(frame)


class _Frame(NamedTuple):
    """One frame, and what it was built from. (The VIP is kept so that its ``id`` stays its own.)"""

    vip: VIP
    mac: bytes
    router: bool
    octets: bytes


class FrameSender:
    """Sends one frame per address on the devices of one interface. Needs CAP_NET_RAW.

    :param device: the name of the device that an address is on.
    :param record: the link of that name.
    :param quiet: whether an address may not be announced yet, being under duplicate address
        detection.
    :param forwards: whether the host forwards IPv6 packets from the device of that name.
    """

    def __init__(
        self,
        namespace: Namespace,
        device: Callable[[VIP], str],
        record: Callable[[str], LinkRecord | None],
        quiet: Callable[[VIP], bool],
        forwards: Callable[[str], bool],
    ) -> None:
        self._namespace = namespace
        self._device = device
        self._record = record
        self._quiet = quiet
        self._forwards = forwards
        self._frames: dict[int, _Frame] = {}
        self._sockets: dict[str, tuple[int, socket.socket]] = {}

    def send(self, vips: Sequence[VIP]) -> None:
        """Put one frame per address on the wire. An interface on which nobody resolves addresses,
        such as a tunnel, gets none.

        :raises OSError: some frame was refused; a device that refuses one gets no more of this
            batch, all others get theirs.
        """
        refused: dict[str, OSError] = {}
        router: dict[str, bool] = {}
        for vip in vips:
            name = self._device(vip)
            link = self._record(name)
            if link is None or not link.resolves or name in refused or self._quiet(vip):
                continue
            if vip.family == 6 and name not in router:
                router[name] = self._forwards(name)
            try:
                self._socket(link).send(self._frame(vip, link.mac, router.get(name, False)))
            except OSError as problem:
                refused[name] = problem
        if refused:
            raise next(iter(refused.values()))

    def prepare(self, vips: Iterable[VIP]) -> None:
        """Build the frames and open the sockets beforehand: a takeover must not wait for the
        libraries to load (50 ms)."""
        for vip in vips:
            link = self._record(self._device(vip))
            router = link is not None and vip.family == 6 and self._forwards(link.name)
            self._frame(vip, bytes(6) if link is None else link.mac, router)
            if link is not None and link.resolves:
                # It may be going; whoever sends will see.
                with contextlib.suppress(OSError):
                    self._socket(link)

    def keep(self, vips: Iterable[VIP]) -> None:
        """Drop the frames of all other addresses."""
        kept = {id(vip) for vip in vips}
        for identity in self._frames.keys() - kept:
            del self._frames[identity]

    def close(self) -> None:
        """Close the sockets; calling it twice is harmless."""
        for _index, sock in self._sockets.values():
            sock.close()
        self._sockets.clear()
        self._frames.clear()

    def _frame(self, vip: VIP, mac: bytes, router: bool) -> bytes:
        # By identity: to hash all fields of a VIP takes as long as to send the frame.
        frame = self._frames.get(id(vip))
        router = router and vip.family == 6
        if frame is None or frame.mac != mac or frame.router is not router:
            if vip.family == 4:
                octets = gratuitous_arp(vip.address, mac)
            else:
                octets = unsolicited_na(vip.address, mac, router=router)
            frame = self._frames[id(vip)] = _Frame(vip, mac, router, octets)
        return frame.octets

    def _socket(self, link: LinkRecord) -> socket.socket:
        known = self._sockets.get(link.name)
        if known is not None:
            if known[0] == link.ifindex:
                return known[1]
            known[1].close()
            del self._sockets[link.name]
        # Protocol 0: it hears nothing.
        kind = socket.SOCK_RAW | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC
        sock = self._namespace.socket(socket.AF_PACKET, kind, 0)
        try:
            # Looked up by name by the kernel, in the namespace of the socket.
            sock.bind((link.name, 0))
        except BaseException:
            sock.close()
            raise
        self._sockets[link.name] = (link.ifindex, sock)
        return sock
