"""Messages to and from the kernel, and the addresses that they put in place."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import math
import struct
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from hypothesis import given, strategies as st

from namespaces import OWN, Net
from vrrpkit.errors import HostError
from vrrpkit.host.addresses.kernel import KernelAddresses, key_of
from vrrpkit.host.links import records, requests
from vrrpkit.host.links.monitor import LinkMonitor, Removal
from vrrpkit.host.links.records import AddressKey
from vrrpkit.linux.netlink import Netlink, NetlinkMessage, Overrun, attributes
from vrrpkit.linux.netns import Namespace, identity
from vrrpkit.values import VIP

FOREVER = 0xFFFFFFFF
KEEPALIVED = 18
"""The mark of keepalived's addresses."""


class Host:
    """The parts below an interface, opened in a namespace on the running loop."""

    def __init__(self, net: Net) -> None:
        self.removals: list[Removal] = []
        self.arrivals: list[str] = []
        self.namespace = Namespace(net.name)
        self.netlink = Netlink(self.namespace)
        self.monitor = LinkMonitor(
            self.namespace,
            self.netlink,
            self.removals.extend,
            self._detected,
        )
        self.monitor.start()
        self.addresses = KernelAddresses("eth0", self.netlink, self.monitor)

    def _detected(self, name: str, key: AddressKey, usable: bool) -> None:
        assert usable
        self.arrivals.append(f"{records.to_address(key[0])} on {name}")

    def close(self) -> None:
        self.monitor.close()
        self.netlink.close()
        self.namespace.close()


def run(net: Net, test: Callable[[Host], Coroutine[Any, Any, None]]) -> None:
    async def main() -> None:
        host = Host(net)
        try:
            await test(host)
        finally:
            host.close()

    asyncio.run(main())


async def soon(condition: Callable[[], object]) -> None:
    for _ in range(600):
        if condition():
            return
        await asyncio.sleep(0.005)
    raise TimeoutError


# --- without a kernel


@pytest.mark.parametrize(
    ("vip", "lease", "preferred", "valid"),
    [
        (VIP("192.0.2.1"), None, FOREVER, FOREVER),
        (VIP("192.0.2.1"), 2.5, 3, 3),
        (VIP("2001:db8::1"), None, 0, FOREVER),
        (VIP("2001:db8::1"), 3, 0, 3),
        (VIP("2001:db8::1", preferred_lifetime=math.inf), None, FOREVER, FOREVER),
        (VIP("2001:db8::1", preferred_lifetime=10), 3, 3, 3),
        (VIP("2001:db8::1", preferred_lifetime=1e12), None, FOREVER - 1, FOREVER),
    ],
)
def test_lifetimes(vip: VIP, lease: float | None, preferred: int, valid: int) -> None:
    assert requests.lifetimes(vip, lease) == (preferred, valid)


def test_address_request() -> None:
    vip = VIP("192.0.2.1/24", label="eth0:v", scope="link", broadcast="192.0.2.255")
    request = requests.add_address(vip, None)
    requests.set_index(request, 7)
    length, kind, flags = struct.unpack_from("=IHH", request)
    assert (length, kind, flags) == (len(request), records.RTM_NEWADDR, 0x1 | 0x4 | 0x100 | 0x400)
    assert struct.unpack_from("=BBBBI", request, 16) == (2, 24, 0, 253, 7)
    found = attributes(bytes(request), 24)
    assert found[records.IFA_LOCAL] == found[records.IFA_ADDRESS] == vip.address.packed
    assert found[records.IFA_PROTO] == bytes([records.MARK])
    assert found[3] == b"eth0:v\0"
    assert found[4] == bytes([192, 0, 2, 255])
    record = records.parse_address_notice(bytes(request[16:]))
    assert record is not None and record.key == key_of(vip) and record.marked


def test_flags_of_an_address() -> None:
    def flags(vip: VIP) -> int:
        found = attributes(bytes(requests.add_address(vip, None)), 24)
        return int.from_bytes(found[records.IFA_FLAGS], "little")

    assert flags(VIP("192.0.2.1")) == 0
    assert flags(VIP("2001:db8::1")) == requests.IFA_F_NODAD
    assert flags(VIP("2001:db8::1", nodad=False, noprefixroute=True)) == 0x200


def test_mark_is_not_keepalived() -> None:
    assert records.MARK != KEEPALIVED


@given(st.binary(max_size=200))
def test_any_attributes(octets: bytes) -> None:
    assert all(len(value) <= len(octets) for value in attributes(octets, 0).values())


# --- namespaces


@pytest.mark.parametrize("name", ["vrrpkit-none-such", "", ".", "a/b"])
def test_no_namespace(name: str) -> None:
    with pytest.raises(HostError, match="ip netns"):
        Namespace(name)


@pytest.mark.system
def test_namespace(net: Net) -> None:
    namespace = Namespace(net.name)
    here = identity(None)
    assert namespace.identity == identity(net.name) != here
    with contextlib.suppress(ZeroDivisionError), namespace.inside():
        assert identity(None) == namespace.identity
        raise ZeroDivisionError
    assert identity(None) == here
    namespace.close()
    namespace.close()


# --- addresses


@pytest.mark.system
def test_hundreds(net: Net) -> None:
    vips = [VIP(f"10.9.{n // 250}.{n % 250 + 1}") for n in range(300)]
    vips += [VIP(f"2001:db8::{n:x}") for n in range(1, 301)]
    wanted = {str(vip) for vip in vips}

    async def test(host: Host) -> None:
        before = set(net.addresses())
        assert await host.addresses.apply(vips, [], None) == []
        assert all(host.addresses.present(vip) and host.addresses.ours(vip) for vip in vips)
        assert set(net.addresses()) == before | wanted
        # Adding what is there, removing what is gone: fine.
        assert await host.addresses.apply(vips, [], None) == []
        assert await host.addresses.apply([], vips, None) == []
        assert not any(host.addresses.present(vip) for vip in vips)
        assert set(net.addresses()) == before
        assert await host.addresses.apply([], vips, None) == []
        assert len(host.removals) == 600

    run(net, test)


@pytest.mark.system
def test_loop_runs_between_chunks(net: Net) -> None:
    vips = [VIP(f"10.9.{n // 250}.{n % 250 + 1}") for n in range(300)]

    async def test(host: Host) -> None:
        turns = 0

        def turn() -> None:
            nonlocal turns
            turns += 1
            asyncio.get_running_loop().call_soon(turn)

        host.addresses.prepare(vips, None)
        turn()
        await host.addresses.apply(vips, [], None)
        assert turns >= 5

    run(net, test)


@pytest.mark.system
def test_every_option(net: Net) -> None:
    net.ip("link add other type veth peer name other1")
    net.ip("link set other up")
    vips = [
        VIP("192.0.2.1/24", label="eth0:vip", broadcast="192.0.2.255", noprefixroute=True),
        VIP("192.0.2.2/32", scope="link", peer="192.0.2.9"),
        VIP("192.0.2.3/32", dev="other", preferred_lifetime=100),
        VIP("2001:db8::1/64", noprefixroute=True),
        VIP("2001:db8::2/128", preferred_lifetime=math.inf),
    ]

    async def test(host: Host) -> None:
        assert await host.addresses.apply(vips, [], 60) == []
        found = net.addresses()
        first = found["192.0.2.1/24"]
        assert first["label"] == "eth0:vip" and first["broadcast"] == "192.0.2.255"
        assert first["noprefixroute"] and 55 <= first["valid_life_time"] <= 60
        assert found["192.0.2.2/32"]["scope"] == "link"
        assert found["192.0.2.2/32"]["address"] == "192.0.2.9"
        assert net.addresses("other")["192.0.2.3/32"]["preferred_life_time"] <= 60
        assert found["2001:db8::1/64"]["deprecated"] and found["2001:db8::1/64"]["nodad"]
        assert found["2001:db8::1/64"]["noprefixroute"]
        assert not found["2001:db8::2/128"].get("deprecated")
        assert await host.addresses.apply([], vips, 60) == []
        assert not set(map(str, vips)) & {*net.addresses(), *net.addresses("other")}

    run(net, test)


@pytest.mark.system
def test_lease_ends(net: Net) -> None:
    vips = [VIP("192.0.2.1"), VIP("2001:db8::1")]

    async def test(host: Host) -> None:
        await host.addresses.apply(vips, [], 1)
        await asyncio.sleep(0.6)
        await host.addresses.apply(vips, [], 2)
        await asyncio.sleep(1)
        assert all(host.addresses.present(vip) for vip in vips)
        await soon(lambda: not any(host.addresses.present(vip) for vip in vips))

    run(net, test)


@pytest.mark.system
def test_what_the_kernel_refuses(net: Net) -> None:
    net.set("ipv6/conf/eth0/disable_ipv6", 1)
    good, bad = VIP("192.0.2.1"), VIP("2001:db8::1")
    nowhere = VIP("192.0.2.2", dev="nowhere")

    async def test(host: Host) -> None:
        failures = await host.addresses.apply([bad, nowhere, good], [], None)
        assert {vip: problem.errno for vip, problem in failures} == {
            bad: errno.EACCES,
            nowhere: errno.ENODEV,
        }
        # The kernel's own words are handed on.
        assert "IPv6 is disabled" in str(dict(failures)[bad])
        assert host.addresses.present(good) and not host.addresses.present(bad)
        assert await host.addresses.apply([], [nowhere, bad], None) == []

    run(net, test)


@pytest.mark.system
def test_foreign_addresses(net: Net) -> None:
    async def test(host: Host) -> None:
        own = VIP(OWN)
        assert host.addresses.present(own) and not host.addresses.ours(own)
        theirs = VIP("192.0.2.1")
        request = requests.add_address(theirs, None)
        at = request.index(struct.pack("=HHB", 5, records.IFA_PROTO, records.MARK))
        request[at + 4] = KEEPALIVED
        record = host.monitor.record("eth0")
        assert record is not None
        requests.set_index(request, record.ifindex)
        host.netlink.request(request)
        await soon(lambda: host.addresses.present(theirs))
        assert not host.addresses.ours(theirs)

    run(net, test)


@pytest.mark.system
def test_before_marks(net: Net) -> None:
    async def test(host: Host) -> None:
        net.ip("address add 198.51.100.7/24 dev eth0")
        net.ip("address add 198.51.100.8/32 dev eth0")
        net.ip("address add 2001:db8::1/128 dev eth0 preferred_lft 0 nodad")
        host.monitor.marks = False
        host.monitor.drain()
        await soon(lambda: host.addresses.present(VIP("2001:db8::1")))
        ours = {
            text: host.addresses.ours(VIP(text))
            for text in (OWN, "198.51.100.7/24", "198.51.100.8/32", "2001:db8::1", "fe80::1/64")
        }
        assert list(ours.values()) == [False, True, True, True, False]

    run(net, test)


# --- the monitor


@pytest.mark.system
def test_link(net: Net) -> None:
    async def test(host: Host) -> None:
        link = host.monitor.link("eth0")
        assert link is not None and link.up and link.mac == bytes.fromhex("020000000001")
        assert [f"{address}/{prefix}" for address, prefix in link.addresses] == [OWN, "fe80::1/64"]
        assert str(link.source(4)) == OWN.partition("/")[0] and str(link.source(6)) == "fe80::1"
        changes = 0

        def changed() -> None:
            nonlocal changes
            changes += 1

        unwatch = host.monitor.watch("eth0", changed)
        # Ours make no difference: none of them may become a source.
        await host.addresses.apply([VIP("192.0.2.1"), VIP("2001:db8::1")], [], None)
        await asyncio.sleep(0.1)
        assert changes == 0 and host.monitor.link("eth0") == link
        net.ip("link set eth1 down")
        await soon(lambda: changes == 1)
        assert (now := host.monitor.link("eth0")) is not None and not now.up
        net.ip("link set eth1 up")
        net.ip("link set eth0 mtu 1400")
        await soon(lambda: (now := host.monitor.link("eth0")) and now.up and now.mtu == 1400)
        unwatch()
        unwatch()
        before = changes
        net.ip("link set eth0 mtu 1300")
        await soon(lambda: (now := host.monitor.link("eth0")) and now.mtu == 1300)
        assert changes == before

    run(net, test)


@pytest.mark.system
def test_nothing_is_kept_of_a_name_that_nobody_watches(net: Net) -> None:
    async def test(host: Host) -> None:
        monitor = host.monitor
        stay = monitor.watch("eth0", lambda: None)
        for number in range(100):
            first = monitor.watch(f"ppp{number}", lambda: None)
            second = monitor.watch(f"ppp{number}", lambda: None)
            first()
            second()
        assert set(monitor._watchers) == set(monitor._seen) == {"eth0"}
        # One that is told may be the one who ends the others.
        ends: list[Callable[[], None]] = []

        def end_all() -> None:
            for end in ends:
                end()

        ends += [monitor.watch(name, end_all) for name in ("eth0", "lo")]
        stay()
        net.ip("link set lo down")
        net.ip("link set eth0 mtu 1400")
        await soon(lambda: not monitor._watchers)

    run(net, test)


@pytest.mark.system
def test_vanish_and_return(net: Net) -> None:
    async def test(host: Host) -> None:
        seen: list[int | None] = []
        host.monitor.watch(
            "eth0", lambda: seen.append((now := host.monitor.link("eth0")) and now.ifindex)
        )
        first = host.monitor.record("eth0")
        assert first is not None
        net.ip("link delete eth0")
        await soon(lambda: seen and seen[-1] is None)
        net.cable()
        await soon(lambda: (now := host.monitor.link("eth0")) and now.up and now.source(6))
        assert (second := host.monitor.record("eth0")) and second.ifindex != first.ifindex
        assert await host.addresses.apply([VIP("192.0.2.1")], [], None) == []
        assert "192.0.2.1/32" in net.addresses()

    run(net, test)


@pytest.mark.system
def test_rename(net: Net) -> None:
    async def test(host: Host) -> None:
        net.ip("link set eth0 name wan0")
        await soon(lambda: host.monitor.link("wan0"))
        assert host.monitor.link("eth0") is None
        record = host.monitor.record("wan0")
        assert record is not None and host.monitor.at(record.ifindex) == record
        own = {(removal.name, removal.ifindex) for removal in host.removals}
        assert own == {("eth0", record.ifindex)} and len(host.removals) == 2

    run(net, test)


@pytest.mark.system
def test_overrun_by_a_rename(net: Net) -> None:
    async def test(host: Host) -> None:
        await host.addresses.apply([VIP("192.0.2.1")], [], None)
        host.monitor._subscription._socket.setsockopt(1, 33, 4096)
        for mtu in range(1300, 1340):
            net.ip(f"link set eth0 mtu {mtu}")
        net.ip("link set eth0 name wan0")
        await soon(lambda: host.monitor.link("wan0"))
        record = host.monitor.record("wan0")
        removed = {(removal.key[0][:1], removal.ifindex) for removal in host.removals}
        assert record is not None and (b"\xc0", record.ifindex) in removed

    run(net, test)


@pytest.mark.system
def test_link_down_is_told_before_its_addresses(net: Net) -> None:
    vips = [VIP(f"2001:db8::{n:x}") for n in range(1, 200)]

    async def test(host: Host) -> None:
        order: list[str] = []
        host.monitor.watch("eth0", lambda: order.append("link"))
        host.monitor._removed = lambda removals: order.append("addresses")
        await host.addresses.apply(vips, [], None)
        net.ip("link set eth0 down")
        await soon(lambda: "addresses" in order)
        assert order[0] == "link"

    run(net, test)


@pytest.mark.system
def test_overrun(net: Net, caplog: pytest.LogCaptureFixture) -> None:
    gone, new = VIP("192.0.2.1"), VIP("192.0.2.2")

    async def test(host: Host) -> None:
        await host.addresses.apply([gone], [], None)
        host.monitor._subscription._socket.setsockopt(1, 33, 4096)
        net.ip("address delete 192.0.2.1/32 dev eth0")
        net.ip("address add 192.0.2.2/32 dev eth0")
        for mtu in range(1300, 1340):
            net.ip(f"link set eth0 mtu {mtu}")
        await soon(lambda: host.addresses.present(new))
        assert not host.addresses.present(gone)
        assert [str(records.to_address(removal.key[0])) for removal in host.removals] == [
            "192.0.2.1"
        ]
        assert (now := host.monitor.link("eth0")) and now.mtu == 1339
        assert "were lost" in caplog.text

    run(net, test)


@pytest.mark.system
def test_tentative(net: Net) -> None:
    net.set("ipv6/conf/eth0/dad_transmits", 1)
    vip = VIP("2001:db8::1/64", nodad=False)

    async def test(host: Host) -> None:
        await host.addresses.apply([vip], [], None)
        assert host.addresses.tentative(vip)
        assert host.arrivals == []
        await soon(lambda: host.arrivals)
        assert host.arrivals == ["2001:db8::1 on eth0"]
        assert not host.addresses.tentative(vip)

    run(net, test)


@pytest.mark.system
def test_a_strange_notice_does_not_lose_the_others(
    net: Net, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main(host: Host) -> None:
        read = host.monitor._subscription.read
        cut = [NetlinkMessage(kind, 0, 0, b"\x02") for kind in (16, 17, 20, 21, 99)]
        monkeypatch.setattr(
            host.monitor._subscription, "read", lambda: [*cut, *found] if (found := read()) else []
        )
        net.ip("address add 192.0.2.99/24 dev eth0")
        await soon(lambda: host.monitor.addresses("eth0").get((bytes([192, 0, 2, 99]), 24)))

    run(net, main)


@pytest.mark.system
def test_what_cannot_be_read_anew_is_read_later(
    net: Net, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def main(host: Host) -> None:
        dump, lost = host.netlink.dump, [True]

        def refuse(*_: object) -> list[NetlinkMessage]:
            raise OSError(errno.ENOBUFS, "No buffer space available")

        def overrun() -> list[NetlinkMessage]:
            if lost:
                lost.clear()
                raise Overrun
            return []

        monkeypatch.setattr(host.monitor._subscription, "read", overrun)
        monkeypatch.setattr(host.netlink, "dump", refuse)
        net.ip("address add 192.0.2.99/24 dev eth0")
        await soon(lambda: "cannot be read" in caplog.text)
        host.monitor._loop.remove_reader(host.monitor._subscription.fileno())  # type: ignore[union-attr]
        monkeypatch.setattr(host.netlink, "dump", dump)
        await soon(lambda: host.monitor.addresses("eth0").get((bytes([192, 0, 2, 99]), 24)))

    run(net, main)
