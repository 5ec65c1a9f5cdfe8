"""Raw sockets between two hosts: who hears what, and what a trouble does."""

from __future__ import annotations

import asyncio
import errno
import socket
import struct
from ipaddress import IPv4Address, IPv6Address, ip_address

import attrs
import pytest

from system.lab import Host
from system.wire import socket_in
from transport.stations import GROUPS, Listener, advert, now, stall, stations
from vrrpkit.errors import PermissionMissing
from vrrpkit.transport.base import Datagram, Membership, Repeats, TransportLink
from vrrpkit.transport.raw import RawTransport
from vrrpkit.transport.receiver import Subscriber
from vrrpkit.transport.recvmmsg import MOST, Batch
from vrrpkit.values import IPAddress

pytestmark = pytest.mark.system

families = pytest.mark.parametrize("family", [4, 6])
SOON = 0.1


@families
def test_multicast(hosts: tuple[Host, Host], family: int) -> None:
    async def main() -> None:
        async with stations(hosts) as (a, b):
            other, mine = Listener(), Listener()
            sender = a.join(mine, a.membership(7, family))
            b.join(other, b.membership(7, family))
            sent = now()
            sender.send(advert(7), GROUPS[family])
            await other.wait(1)
            (datagram,) = other.heard
            assert datagram.payload == advert(7)
            assert datagram.source == a.source(family)
            assert datagram.destination == GROUPS[family]
            assert datagram.ttl == 255
            assert sent <= datagram.received <= other.at[0]
            await asyncio.sleep(SOON)
            assert mine.heard == []

    asyncio.run(main())


@families
def test_traffic_class(hosts: tuple[Host, Host], family: int) -> None:
    async def main() -> None:
        async with stations(hosts) as (a, b):
            level, option = (
                (socket.IPPROTO_IP, socket.IP_RECVTOS)
                if family == 4
                else (socket.IPPROTO_IPV6, socket.IPV6_RECVTCLASS)
            )
            b.join(Listener(), b.membership(7, family))
            b.opened[0].setsockopt(level, option, 1)
            classes: list[int] = []
            asyncio.get_running_loop().remove_reader(b.opened[0].fileno())
            a.join(Listener(), a.membership(7, family)).send(advert(7), GROUPS[family])
            await asyncio.sleep(SOON)
            for _level, kind, data in b.opened[0].recvmsg(100, 200)[1]:
                if kind in (socket.IP_TOS, socket.IPV6_TCLASS):
                    classes.append(data[0])
            assert classes == [0xC0]

    asyncio.run(main())


@families
def test_demultiplexing(hosts: tuple[Host, Host], family: int) -> None:
    async def main() -> None:
        async with stations(hosts) as (a, b):
            listeners = {vrid: Listener() for vrid in range(1, 41)}
            ports = [b.join(who, b.membership(vrid, family)) for vrid, who in listeners.items()]
            assert b.sockets == 2, "one to receive, one to send"
            sender = a.join(Listener(), a.membership(1, family))
            for vrid in (*listeners, 200, 200):
                sender.send(advert(vrid), GROUPS[family])
            sender.send(b"\x31", GROUPS[family])
            sender.send(b"", GROUPS[family])
            sender.send(advert(40, 99), GROUPS[family])
            await listeners[40].wait(2)
            for vrid in range(1, 40):
                assert listeners[vrid].payloads == [advert(vrid)]
            assert (b.transport.counters.unknown_vrid, b.transport.counters.short) == (2, 2)
            for port in ports:
                port.close()
                port.close()
            await asyncio.sleep(0)
            assert b.sockets == 0

    asyncio.run(main())


@families
def test_groups_are_apart(hosts: tuple[Host, Host], family: int) -> None:
    async def main() -> None:
        async with stations(hosts) as (a, b):
            second: IPAddress = ip_address("224.0.0.20" if family == 4 else "ff02::20")
            one, two = Listener(), Listener()
            b.join(one, b.membership(7, family))
            b.join(two, b.membership(7, family, group=second))
            first_sender = a.join(Listener(), a.membership(7, family))
            second_sender = a.join(Listener(), a.membership(7, family, group=second))
            first_sender.send(advert(7, 1), GROUPS[family])
            second_sender.send(advert(7, 2), second)
            await asyncio.gather(one.wait(1), two.wait(1))
            await asyncio.sleep(SOON)
            assert (one.payloads, two.payloads) == ([advert(7, 1)], [advert(7, 2)])
            assert b.transport.counters.unknown_vrid == 0

    asyncio.run(main())


@families
def test_unicast(hosts: tuple[Host, Host], family: int) -> None:
    async def main() -> None:
        async with stations(hosts) as (a, b):
            unicast, twice, multicast = Listener(), Listener(), Listener()
            b.join(unicast, b.membership(7, family, peers=(a.source(family),)))
            b.join(twice, b.membership(7, family, peers=(a.source(family),)))
            b.join(multicast, b.membership(7, family))
            assert b.sockets == 4
            sender = a.join(Listener(), a.membership(7, family, peers=(b.source(family),)))
            group_sender = a.join(Listener(), a.membership(7, family))
            sender.send(advert(7, 1), b.source(family))
            group_sender.send(advert(7, 2), GROUPS[family])
            await asyncio.gather(unicast.wait(1), multicast.wait(1))
            await asyncio.sleep(SOON)
            assert unicast.payloads == twice.payloads == [advert(7, 1)]
            assert multicast.payloads == [advert(7, 2)]
            assert unicast.heard[0].source == a.source(family)
            assert unicast.heard[0].destination == b.source(family)
            assert unicast.heard[0].ttl == 255

    asyncio.run(main())


@families
def test_a_peer_that_runs_no_vrrp_disturbs_nothing(hosts: tuple[Host, Host], family: int) -> None:
    async def main() -> None:
        async with stations(hosts) as (a, b):
            sender = a.join(Listener(), a.membership(7, family, peers=(b.source(family),)))
            # Each one provokes an ICMP error, of which the next must know nothing.
            for _ in range(5):
                sender.send(advert(7), b.source(family))
                await asyncio.sleep(0.02)
            listener = Listener()
            b.join(listener, b.membership(7, family, peers=(a.source(family),)))
            sender.send(advert(7), b.source(family))
            await listener.wait(1)

    asyncio.run(main())


def test_ip_options_are_skipped(hosts: tuple[Host, Host]) -> None:
    async def main() -> None:
        async with stations(hosts) as (a, b):
            listener = Listener()
            b.join(listener, b.membership(7))
            sender = a.join(Listener(), a.membership(7))
            # Record route: room for three addresses.
            a.opened[-1].setsockopt(
                socket.IPPROTO_IP, socket.IP_OPTIONS, b"\x07\x0f\x04" + bytes(12)
            )
            sender.send(advert(7), GROUPS[4])
            sender.send(b"\x31", GROUPS[4])
            await listener.wait(1)
            assert listener.payloads == [advert(7)]
            assert listener.heard[0].source == a.source(4)

    asyncio.run(main())


def test_padding_of_the_link_is_cut(hosts: tuple[Host, Host]) -> None:
    async def main() -> None:
        async with stations(hosts) as (a, b):
            listener = Listener()
            b.join(listener, b.membership(7))
            message = advert(7)
            head = bytes((0x45, 0xC0, 0, 20 + len(message), 0, 1, 0, 0, 255, 112, 0, 0))
            head += a.source(4).packed + GROUPS[4].packed
            total = sum(struct.unpack("!10H", head))
            total = (total & 0xFFFF) + (total >> 16)
            head = head[:10] + struct.pack("!H", ~total & 0xFFFF) + head[12:]
            frame = bytes.fromhex("01005e000012 020000000001 0800") + head + message
            with socket_in(a.host.namespace, socket.AF_PACKET, socket.SOCK_RAW) as wire:
                wire.bind(("eth0", 0))
                wire.send(frame.ljust(60, b"\xee"))
            await listener.wait(1)
            assert listener.payloads == [message]
            assert listener.heard[0].ttl == 255

    asyncio.run(main())


def test_leaving_and_joining_again_keeps_the_socket(hosts: tuple[Host, Host]) -> None:
    async def main() -> None:
        async with stations(hosts) as (a, b):
            listener = Listener()
            membership = b.membership(7)
            port = b.join(listener, membership)
            sender = a.join(Listener(), a.membership(7))
            sender.send(advert(7), GROUPS[4])
            stall(0.02)
            port.close()
            b.join(listener, membership)
            assert len(b.opened) == 3, "only a send socket was made anew"
            await listener.wait(1)

    asyncio.run(main())


def test_closing_while_hearing(hosts: tuple[Host, Host]) -> None:
    async def main() -> None:
        async with stations(hosts) as (a, b):
            ports: list[TransportLink] = []
            listeners: list[Listener] = []

            def close_all() -> None:
                for port in ports:
                    port.close()

            for _ in range(2):
                listeners.append(Listener(close_all))
                ports.append(b.join(listeners[-1], b.membership(7)))
            ending = Listener(b.transport.close)
            b.join(ending, b.membership(8))
            sender = a.join(Listener(), a.membership(7))
            for payload in (advert(7), advert(7), advert(8), advert(8)):
                sender.send(payload, GROUPS[4])
            await ending.wait(1)
            assert [len(listener.heard) for listener in listeners] == [1, 0]
            assert len(ending.heard) == 1
            ports[0].drain()
            ports[0].set_batching(1.0)
            with pytest.raises(OSError, match="closed"):
                ports[0].send(advert(7), GROUPS[4])

    asyncio.run(main())


@families
def test_a_macvlan_pair_hears_once(hosts: tuple[Host, Host], family: int) -> None:
    async def main() -> None:
        async with stations(hosts) as (a, b):
            b.host.ip("link", "add", "mv0", "link", "eth0", "type", "macvlan", "mode", "private")
            b.host.ip("link", "set", "mv0", "up")
            try:
                both, parent, child = Listener(), Listener(), Listener()
                macvlan = b.ifindex("mv0")
                b.join(both, b.membership(7, family, also=(macvlan,)))
                b.join(parent, b.membership(7, family))
                receive_socket = b.transport.receive_socket(macvlan, GROUPS[family])
                receive_socket.enter(Subscriber(7, 1.0, child.received, child.overflowed))
                sender = a.join(Listener(), a.membership(7, family))
                for _ in range(3):
                    sender.send(advert(7), GROUPS[family])
                    stall(0.02)
                await both.wait(3)
                for _ in range(5):
                    sender.send(advert(7), GROUPS[family])
                    await asyncio.sleep(0.02)
                await child.wait(8)
                assert len(both.heard) == len(parent.heard) == len(child.heard) == 8
            finally:
                b.host.ip("link", "delete", "mv0")

    asyncio.run(main())


def test_no_route_is_an_error_of_sending(hosts: tuple[Host, Host]) -> None:
    async def main() -> None:
        async with stations(hosts) as (a, b):
            far, near = IPv6Address("2001:db8:9::9"), b.source(6)
            listener = Listener()
            b.join(listener, b.membership(7, 6, peers=(a.source(6),)))
            port = a.join(Listener(), a.membership(7, 6, peers=(far, near)))
            for _ in range(2):
                with pytest.raises(OSError, match=r"unreachable|assign") as refused:
                    port.send(advert(7), far)
                assert refused.value.errno in (errno.ENETUNREACH, errno.EHOSTUNREACH)
                port.send(advert(7), near)
            await listener.wait(2)

    asyncio.run(main())


def test_link_trouble(hosts: tuple[Host, Host]) -> None:
    async def main() -> None:
        async with stations(hosts) as (_, b):
            b.host.ip("link", "add", "gone0", "type", "veth", "peer", "name", "gone1")
            b.host.ip("address", "add", "198.51.100.1/24", "dev", "gone0")
            membership = b.membership(7, dev="gone0", source=ip_address("198.51.100.1"))
            port = b.join(Listener(), membership)
            with pytest.raises(OSError, match=r"unreachable|down") as down:
                port.send(advert(7), GROUPS[4])
            assert down.value.errno in (errno.ENETUNREACH, errno.ENETDOWN)
            b.host.ip("link", "set", "gone0", "up")
            b.host.ip("link", "set", "gone1", "up")
            port.send(advert(7), GROUPS[4])
            b.host.ip("link", "delete", "gone0")
            with pytest.raises(OSError, match=r"unreachable|No such device"):
                port.send(advert(7), GROUPS[4])
            b.transport.drain()
            port.close()
            await asyncio.sleep(0)
            opened = b.sockets
            with pytest.raises(OSError, match="No such device") as gone:
                b.join(Listener(), membership)
            assert gone.value.errno == errno.ENODEV
            assert b.sockets == opened == 0

    asyncio.run(main())


def test_a_missing_source_is_refused(hosts: tuple[Host, Host]) -> None:
    async def main() -> None:
        async with stations(hosts) as (_, b):
            membership = b.membership(7, source=ip_address("192.0.2.77"))
            with pytest.raises(OSError, match=r"unreachable|assign") as refused:
                b.join(Listener(), membership)
            assert refused.value.errno == errno.EADDRNOTAVAIL
            await asyncio.sleep(0)
            assert b.sockets == 0

    asyncio.run(main())


@families
def test_errors_of_reading_are_counted(
    hosts: tuple[Host, Host], family: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    read, failures = Batch.read, [errno.ENETDOWN, errno.ENETDOWN]

    def unlucky(self: Batch, descriptor: int) -> int:
        if failures:
            raise OSError(failures.pop(), "Network is down")
        return read(self, descriptor)

    async def main() -> None:
        async with stations(hosts) as (a, b):
            listener = Listener()
            b.join(listener, b.membership(7, family))
            monkeypatch.setattr(Batch, "read", unlucky)
            a.join(Listener(), a.membership(7, family)).send(advert(7), GROUPS[family])
            await listener.wait(1)
            assert b.transport.counters.errors == 2

    asyncio.run(main())


def test_many_sources_do_not_fill_the_memory(
    hosts: tuple[Host, Host], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vrrpkit.transport.receiver.ROUTES", 4)

    async def main() -> None:
        async with stations(hosts) as (a, b):
            listener = Listener()
            b.join(listener, b.membership(7))
            sender = a.join(Listener(), a.membership(7))
            for vrid in (*range(1, 20), 7):
                sender.send(advert(vrid), GROUPS[4])
            await listener.wait(2)
            assert b.transport.counters.unknown_vrid == 18

    asyncio.run(main())


def test_a_missing_capability_is_named() -> None:
    def refuse(_family: int, _kind: int, _protocol: int) -> socket.socket:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    async def main() -> None:
        transport = RawTransport(now=now, sockets=refuse)
        member = Membership(
            interface="eth0",
            ifindex=1,
            vrid=7,
            source=IPv4Address("192.0.2.1"),
            group=IPv4Address("224.0.0.18"),
        )
        with pytest.raises(PermissionMissing, match="CAP_NET_RAW") as missing:
            transport.join(member, Listener())
        assert missing.value.capability == "CAP_NET_RAW"
        transport.close()

    asyncio.run(main())


class Noting(Listener):
    """A receiver that has repetitions noted."""

    def __init__(self) -> None:
        super().__init__()
        self.repeats = Repeats(255)

    def received(self, datagram: Datagram) -> Repeats:
        super().received(datagram)
        return self.repeats


@families
def test_repetitions_are_noted(hosts: tuple[Host, Host], family: int) -> None:
    async def main() -> None:
        async with stations(hosts) as (a, b):
            listener, group = Noting(), GROUPS[family]
            port = b.join(listener, b.membership(7, family))
            sender = a.join(Listener(), a.membership(7, family))
            near = a.join(Listener(), attrs.evolve(a.membership(7, family), hop_limit=254))

            def say(*payloads: bytes, through: TransportLink = sender) -> None:
                for payload in payloads:
                    through.send(payload, group)
                stall(0.02)
                port.drain()

            say(advert(7))
            started = now()
            say(advert(7), advert(7))
            assert (len(listener.heard), listener.repeats.count) == (1, 2)
            assert started - 0.001 <= listener.repeats.at <= started + 0.02
            say(advert(7, 50))
            say(advert(7), through=near)
            assert (len(listener.heard), listener.repeats.count) == (3, 2), "not the same"
            listener.repeats.live = False
            say(advert(7))
            assert (len(listener.heard), listener.repeats.count) == (4, 2), "not any more"

    asyncio.run(main())


@families
def test_more_than_one_batch(hosts: tuple[Host, Host], family: int) -> None:
    async def main() -> None:
        async with stations(hosts) as (a, b):
            listener = Listener()
            port = b.join(listener, b.membership(7, family))
            sender = a.join(Listener(), a.membership(7, family))
            payloads = [advert(7, 100, number.to_bytes(4)) for number in range(2 * MOST + 1)]
            for payload in payloads:
                sender.send(payload, GROUPS[family])
            stall(0.02)
            port.drain()
            assert listener.payloads == payloads

    asyncio.run(main())
