"""Interfaces with a virtual MAC: made, adopted, repaired, removed, and every setting put back."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
import struct
from collections.abc import AsyncIterator, Callable, Coroutine
from functools import partial
from typing import Any

import pytest

from namespaces import Listener, Net, heard
from vrrpkit.errors import HostError, KernelRefused
from vrrpkit.host.announce.frames import gratuitous_arp
from vrrpkit.host.host import Host
from vrrpkit.host.kernel_interface import KernelInterface
from vrrpkit.host.links import macvlan, requests
from vrrpkit.host.links.macvlan import BELOW, ON_TOP, default_name, virtual_mac
from vrrpkit.linux.netns import Namespace
from vrrpkit.values import VIP, Announcements

BRIEF = Announcements(repeat=1, delay=0)
MAC = bytes.fromhex("00005e000133")
PARENT = [setting.format("eth0") for setting in BELOW]


@contextlib.asynccontextmanager
async def opened(net: Net, name: str = "eth0") -> AsyncIterator[KernelInterface]:
    interface = Host.current(net.name).interface(name)
    await interface.open()
    try:
        yield interface
    finally:
        await interface.close()


async def soon(condition: Callable[[], object]) -> None:
    for _ in range(300):
        if condition():
            return
        await asyncio.sleep(0.01)
    raise TimeoutError


def run(main: Coroutine[Any, Any, None]) -> None:
    asyncio.run(main)


def test_names() -> None:
    assert default_name(51, 4) == "vrrp.51" and default_name(255, 6) == "vrrp6.255"
    assert virtual_mac(51, 4) == MAC
    assert virtual_mac(1, 6) == bytes.fromhex("00005e000201")


@pytest.mark.system
def test_life(net: Net) -> None:
    net.set("ipv4/conf/eth0/arp_filter", 0)
    net.set("ipv4/conf/eth0/arp_ignore", 2)
    before = {setting: net.get(setting) for setting in PARENT}
    sniffer = net.sniffer()

    async def main() -> None:
        async with opened(net) as base:
            above = await base.virtual(51, 4, None)
            assert above.name == "vrrp.51"
            await above.open()
            found = net.links()["vrrp.51"]
            assert found["address"] == MAC.hex(":") and found["link"] == "eth0"
            assert found["linkinfo"]["info_data"]["mode"] == "private"
            assert "UP" in found["flags"] and found["inet6_addr_gen_mode"] == "none"
            for setting, value in ON_TOP.items():
                assert net.get(setting.format("vrrp.51")) == value, setting
            for setting, value in BELOW.items():
                assert net.get(setting.format("eth0")) == value, setting
            await soon(lambda: above.link is not None and above.link.up)
            assert net.addresses("vrrp.51") == {}
            hold = await above.hold([VIP("192.0.2.10")], BRIEF, Listener())
            hold.acquire()
            await hold.settled()
            assert "192.0.2.10/32" in net.addresses("vrrp.51")
            assert gratuitous_arp(VIP("192.0.2.10").address, MAC) in heard(sniffer)
            await hold.close()
            await above.close()
            assert "vrrp.51" not in net.links()
            assert {setting: net.get(setting) for setting in PARENT} == before

    run(main())
    sniffer.close()


@pytest.mark.system
def test_shared(net: Net) -> None:
    async def main() -> None:
        async with opened(net) as base:
            first = await base.virtual(51, 4, None)
            second = await base.virtual(52, 4, "fancy")
            assert await base.virtual(51, 4, None) is first
            for interface in (first, first, second):
                await interface.open()
            with pytest.raises(HostError, match="in use on eth0"):
                await base.virtual(53, 4, "fancy")
            await first.close()
            assert "vrrp.51" in net.links()
            await first.close()
            # The settings stay while anybody needs them.
            assert "vrrp.51" not in net.links() and net.get(PARENT[0]) == 1
            await second.close()
            assert "fancy" not in net.links() and net.get(PARENT[0]) == 0

    run(main())


@pytest.mark.system
def test_never_opened(net: Net) -> None:
    async def main() -> None:
        async with opened(net) as base:
            await base.virtual(51, 4, None)
            assert "vrrp.51" in net.links()
        assert "vrrp.51" not in net.links() and net.get(PARENT[0]) == 0

    run(main())


@pytest.mark.system
def test_ipv6_leaves_arp_of_the_base_alone(net: Net) -> None:
    async def main() -> None:
        async with opened(net) as base:
            above = await base.virtual(51, 6, None)
            assert above.name == "vrrp6.51"
            assert net.links()["vrrp6.51"]["address"] == "00:00:5e:00:02:33"
            # By which a later run knows it.
            assert net.links()["vrrp6.51"]["ifalias"] == "vrrpkit:"
            assert not any(net.get(setting) for setting in PARENT)

    run(main())


@pytest.mark.system
def test_adverts_with_the_link_local_of_the_base(net: Net) -> None:
    sniffer = net.sniffer()

    async def main() -> None:
        async with opened(net) as base:
            above = await base.virtual(51, 6, None)
            await above.open()
            await soon(lambda: above.link is not None and above.link.up)
            assert base.link is not None and above.link is not None
            source, ifindex = base.link.source(6), above.link.ifindex
            namespace = Namespace(net.name)
            sock = namespace.socket(socket.AF_INET6, socket.SOCK_RAW, 112)
            sock.setsockopt(socket.IPPROTO_IPV6, 78, 1)  # IPV6_FREEBIND
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_IF, ifindex)
            sock.bind((str(source), 0, 0, ifindex))
            sock.sendto(b"advert", ("ff02::12", 0, 0, ifindex))
            frame = next(frame for frame in heard(sniffer) if frame.endswith(b"advert"))
            assert frame[6:12] == virtual_mac(51, 6)
            assert source is not None and frame[22:38] == source.packed
            sock.close()
            namespace.close()
            await above.close()

    run(main())
    sniffer.close()


@pytest.mark.system
@pytest.mark.parametrize("mode", ["private", "bridge"])
def test_adopted(net: Net, mode: str) -> None:
    net.ip(f"link add vrrp.51 link eth0 address {MAC.hex(':')} type macvlan mode {mode}")
    index = net.links()["vrrp.51"]["ifindex"]

    async def main() -> None:
        async with opened(net) as base:
            above = await base.virtual(51, 4, None)
            await above.open()
            found = net.links()["vrrp.51"]
            assert found["ifindex"] == index and "UP" in found["flags"]
            await above.close()
            assert "vrrp.51" not in net.links()

    run(main())


@pytest.mark.system
@pytest.mark.parametrize(
    ("command", "complaint"),
    [
        ("link add vrrp.51 type veth peer name v1", "is a veth interface, not a macvlan and has"),
        ("link add vrrp.51 link eth0 address 02:00:00:00:00:09 type macvlan", "has MAC 02:00"),
        ("link add vrrp.51 link eth1 address 00:00:5e:00:01:33 type macvlan", "is not on eth0"),
    ],
)
def test_not_adopted(net: Net, command: str, complaint: str) -> None:
    net.ip(command)

    async def main() -> None:
        async with opened(net) as base:
            with pytest.raises(HostError, match=complaint):
                await base.virtual(51, 4, None)
        assert "vrrp.51" in net.links() and net.get(PARENT[0]) == 0

    run(main())


@pytest.mark.system
def test_refused(net: Net) -> None:
    async def main() -> None:
        async with opened(net, "lo") as base:
            with pytest.raises(KernelRefused, match=r"cannot set up macvlan vrrp\.51 on lo"):
                await base.virtual(51, 4, None)

    run(main())


@pytest.mark.system
def test_made_again(net: Net) -> None:
    async def main() -> None:
        async with opened(net) as base:
            above = await base.virtual(51, 4, None)
            await above.open()
            first = net.links()["vrrp.51"]["ifindex"]
            net.ip("link delete eth0")
            await soon(lambda: above.link is None and base.link is None)
            net.cable()
            await soon(lambda: above.link is not None and above.link.up)
            second = net.links()["vrrp.51"]["ifindex"]
            assert second != first and net.get(PARENT[0]) == 1
            net.ip("link delete vrrp.51")
            await soon(lambda: above.link is not None and above.link.ifindex != second)
            await above.close()
            assert "vrrp.51" not in net.links() and net.get(PARENT[0]) == 0

    run(main())


@pytest.mark.system
@pytest.mark.parametrize("step", ["new_macvlan", "set_alias", "set_up"])
def test_one_that_cannot_be_made_again_is_made_later(
    net: Net, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, step: str
) -> None:
    """A single failure at any step, and no other notice from the kernel, leaves none half made."""
    monkeypatch.setattr(macvlan, "PATIENCE", 0.05)
    failures = 2
    real = getattr(requests, step)

    def refused(*args: object) -> bytearray:
        nonlocal failures
        if failures:
            failures -= 1
            raise OSError(errno.ENOBUFS, "No buffer space available")
        return bytearray(real(*args))

    async def main() -> None:
        async with opened(net) as base:
            above = await base.virtual(51, 4, None)
            await above.open()
            first = net.links()["vrrp.51"]["ifindex"]
            monkeypatch.setattr(requests, step, refused)
            net.ip("link delete vrrp.51")
            await soon(lambda: not failures)
            await soon(
                lambda: above.link is not None and above.link.up and above.link.ifindex != first
            )
            link = net.links()["vrrp.51"]
            assert link["ifalias"].startswith("vrrpkit:") and "UP" in link["flags"]
            assert net.get(PARENT[0]) == 1
            await above.close()
            assert "vrrp.51" not in net.links() and net.get(PARENT[0]) == 0

    run(main())
    assert caplog.text.count("No buffer space available") == 2


@pytest.mark.system
def test_renamed(net: Net) -> None:
    """The one with another name would keep the MAC address to itself."""

    async def main() -> None:
        async with opened(net) as base:
            above = await base.virtual(51, 4, None)
            await above.open()
            first = net.links()["vrrp.51"]["ifindex"]
            net.ip("link set vrrp.51 name other")
            await soon(lambda: above.link is not None and above.link.ifindex != first)
            await soon(lambda: above.link is not None and above.link.up)
            assert "other" not in net.links()
            net.ip("link set vrrp.51 name other")
            await above.close()
            assert not {"vrrp.51", "other"} & net.links().keys()

    run(main())


def is_on(net: Net, name: str, base: str) -> bool:
    return bool(net.links().get(name, {}).get("link") == base)


@pytest.mark.system
def test_another_base_takes_the_name(net: Net) -> None:
    async def main() -> None:
        async with opened(net) as base:
            above = await base.virtual(51, 4, None)
            second = await base.virtual(52, 4, None)
            await above.open()
            await second.open()
            net.ip("link set eth0 name wan0")
            await soon(lambda: base.link is None)
            assert net.links()["vrrp.51"]["link"] == "wan0"
            net.ip("link set eth1 name eth0")
            for name in ("vrrp.51", "vrrp.52"):
                await soon(partial(is_on, net, name, "eth0"))
            await soon(lambda: above.link is not None and above.link.up)
            assert [net.get(setting.format("wan0")) for setting in BELOW] == [0, 0, 0]
            assert [net.get(setting) for setting in PARENT] == [1, 1, 2]
            await second.close()
            await above.close()
        assert not {"vrrp.51", "vrrp.52"} & net.links().keys()
        assert [net.get(setting) for setting in PARENT] == [0, 0, 0]

    run(main())


@pytest.mark.system
def test_base_comes_later(net: Net) -> None:
    net.ip("link delete eth0")

    async def main() -> None:
        async with opened(net) as base:
            above = await base.virtual(51, 4, None)
            await above.open()
            assert above.link is None
            net.cable()
            await soon(lambda: above.link is not None and above.link.up)
            await above.close()
            assert "vrrp.51" not in net.links()

    run(main())


@pytest.mark.system
def test_reverse_path_filter_of_all(net: Net, caplog: pytest.LogCaptureFixture) -> None:
    net.set("ipv4/conf/all/rp_filter", 1)

    async def main() -> None:
        async with opened(net) as base:
            await base.virtual(51, 4, None)

    run(main())
    assert "sysctl -w net.ipv4.conf.all.rp_filter=0" in caplog.text
    assert net.get("ipv4/conf/all/rp_filter") == 1


@pytest.mark.system
def test_frames_from_the_virtual_mac_arrive_on_top(net: Net) -> None:
    async def main() -> None:
        async with opened(net) as base:
            above = await base.virtual(51, 4, None)
            await above.open()
            await soon(lambda: above.link is not None and above.link.up)
            top, below = net.sniffer("vrrp.51"), net.sniffer("eth0")
            namespace = Namespace(net.name)
            wire = namespace.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
            wire.bind(("eth1", 0))
            for mac in (MAC, bytes.fromhex("020000000007")):
                wire.send(b"\x01\x00\x5e\x00\x00\x12" + mac + struct.pack("!H", 0x88B5) + bytes(46))
            await asyncio.sleep(0.1)
            sources = [
                [frame[6:12] for frame in heard(sniffer) if frame[12:14] == b"\x88\xb5"]
                for sniffer in (top, below)
            ]
            assert MAC in sources[0] and bytes.fromhex("020000000007") in sources[1]
            for sock in (top, below, wire):
                sock.close()
            namespace.close()
            await above.close()

    run(main())
