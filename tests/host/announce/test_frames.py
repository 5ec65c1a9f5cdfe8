"""Gratuitous ARP and unsolicited neighbour advertisements: the octets, and that they leave."""

from __future__ import annotations

import errno
import struct
from collections.abc import Callable
from ipaddress import ip_address

import pytest
from hypothesis import given, strategies as st

from namespaces import Net, heard
from vrrpkit.host.announce.frames import FrameSender, gratuitous_arp, unsolicited_na
from vrrpkit.host.links.records import ARPHRD_ETHER, IFF_LOOPBACK, IFF_NOARP, LinkRecord
from vrrpkit.linux.netns import Namespace
from vrrpkit.values import VIP

MAC = bytes.fromhex("00005e000133")


def test_gratuitous_arp() -> None:
    # A broadcast request with sender = target = VIP, and the link broadcast as target hardware.
    assert gratuitous_arp(ip_address("192.0.2.10"), MAC).hex() == (
        "ffffffffffff" "00005e000133" "0806"
        "0001" "0800" "06" "04" "0001"
        "00005e000133" "c000020a"
        "ffffffffffff" "c000020a"
    )  # fmt: skip


@pytest.mark.parametrize(("router", "flags"), [(False, "20"), (True, "a0")])
def test_unsolicited_na(router: bool, flags: str) -> None:
    frame = unsolicited_na(ip_address("2001:db8::a"), MAC, router=router)
    vip = "20010db800000000000000000000000a"
    ethernet, ip, icmp = frame[:14].hex(), frame[14:54].hex(), frame[54:].hex()
    assert ethernet == "33330000000100005e00013386dd"
    assert ip == "6000000000203aff" + vip + "ff02" + "00" * 13 + "01"
    assert icmp[:4] == "8800"
    assert icmp[8:] == flags + "000000" + vip + "0201" + MAC.hex()


@given(st.ip_addresses(v=6), st.binary(min_size=6, max_size=6), st.booleans())
def test_checksum(address: object, mac: bytes, router: bool) -> None:
    frame = unsolicited_na(ip_address(str(address)), mac, router=router)
    packet, message = frame[14:], frame[54:]
    pseudo = packet[8:40] + struct.pack("!IxxxB", len(message), 58)
    words = struct.unpack(f"!{(len(pseudo) + len(message)) // 2}H", pseudo + message)
    total = sum(words)
    while total > 0xFFFF:
        total = (total & 0xFFFF) + (total >> 16)
    assert total == 0xFFFF


def link(name: str, ifindex: int, flags: int = 0x43, hardware: int = ARPHRD_ETHER) -> LinkRecord:
    return LinkRecord(ifindex, name, flags, hardware, MAC, 1500, 0, "")


@pytest.mark.parametrize(
    ("record", "resolves"),
    [
        (link("eth0", 2), True),
        (link("dummy0", 2, 0x43 | IFF_NOARP), False),
        (link("lo", 1, 0x43 | IFF_LOOPBACK, 772), False),
        (link("tun0", 3, 0x43, 65534), False),
    ],
)
def test_where_nobody_resolves(record: LinkRecord, resolves: bool) -> None:
    assert record.resolves is resolves


class Fixture:
    """A sender in a namespace, with what it asks for at hand."""

    def __init__(self, net: Net) -> None:
        self.namespace = Namespace(net.name)
        self.links = {name: link(name, found["ifindex"]) for name, found in net.links().items()}
        self.forwards = False
        self.quiet: Callable[[VIP], bool] = lambda vip: False
        self.sender = FrameSender(
            self.namespace,
            lambda vip: vip.dev or "eth0",
            self.links.get,
            lambda vip: self.quiet(vip),
            lambda name: self.forwards,
        )

    def close(self) -> None:
        self.sender.close()
        self.sender.close()
        self.namespace.close()


V4, V6 = VIP("192.0.2.10"), VIP("2001:db8::a")


@pytest.mark.system
def test_sends(net: Net) -> None:
    fixture = Fixture(net)
    sniffer = net.sniffer()
    arp = gratuitous_arp(V4.address, MAC)
    fixture.sender.send([V4, V6])
    assert heard(sniffer) == [arp, unsolicited_na(V6.address, MAC, router=False)]
    fixture.forwards = True
    fixture.sender.send([V6, V4])
    assert heard(sniffer) == [unsolicited_na(V6.address, MAC, router=True), arp]
    # Another MAC, as after the replacement of a macvlan: another frame.
    mac = bytes.fromhex("020000000009")
    fixture.links["eth0"] = fixture.links["eth0"]._replace(mac=mac)
    fixture.sender.send([V4])
    assert heard(sniffer) == [gratuitous_arp(V4.address, mac)]
    fixture.quiet = lambda vip: vip is V6
    fixture.sender.send([V6])
    fixture.sender.keep([])
    assert heard(sniffer) == []
    sniffer.close()
    fixture.close()


@pytest.mark.system
def test_refused_on_one_device_only(net: Net) -> None:
    net.ip("link add other type veth peer name other1")
    elsewhere = VIP("192.0.2.11", dev="other")
    fixture = Fixture(net)
    sniffer = net.sniffer()
    with pytest.raises(OSError, match="Network is down") as caught:
        fixture.sender.send([elsewhere, V4, elsewhere])
    assert caught.value.errno == errno.ENETDOWN
    assert heard(sniffer) == [gratuitous_arp(V4.address, MAC)]
    sniffer.close()
    fixture.close()


@pytest.mark.system
def test_follows_an_interface_that_returns(net: Net) -> None:
    fixture = Fixture(net)
    fixture.sender.send([V4])
    net.ip("link delete eth0")
    del fixture.links["eth0"]
    fixture.sender.send([V4])
    net.cable()
    sniffer = net.sniffer()
    fixture.links["eth0"] = link("eth0", net.links()["eth0"]["ifindex"])
    fixture.sender.send([V4])
    assert gratuitous_arp(V4.address, MAC) in heard(sniffer)
    sniffer.close()
    fixture.close()


@pytest.mark.system
def test_hears_nothing(net: Net) -> None:
    fixture = Fixture(net)
    fixture.sender.send([V4])
    net.ip("address add 198.51.100.2/24 dev eth1")
    ((_index, sock),) = fixture.sender._sockets.values()
    with pytest.raises(BlockingIOError):
        sock.recv(1)
    fixture.close()
