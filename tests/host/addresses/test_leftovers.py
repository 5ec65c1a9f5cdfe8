"""What a run left behind that was killed with another configuration."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

import pytest

from namespaces import OWN, Listener, Net
from vrrpkit.host.host import Host
from vrrpkit.host.kernel_interface import KernelInterface
from vrrpkit.host.links.requests import add_address, set_index
from vrrpkit.host.liveness import SETTLE, Liveness
from vrrpkit.linux.netlink import Netlink
from vrrpkit.linux.netns import Namespace
from vrrpkit.linux.sysctl import Sysctls
from vrrpkit.routes.route import Route
from vrrpkit.values import VIP, Announcements

pytestmark = pytest.mark.system

BRIEF = Announcements(repeat=1, delay=0)
OLD, OLD_6, NEW = VIP("192.0.2.10"), VIP("2001:db8::a"), VIP("192.0.2.11")
FAR = VIP("192.0.2.12/32", peer="192.0.2.13")
BELOW = {"arp_ignore": 1, "arp_filter": 1, "arp_announce": 2}


def mark(net: Net, dev: str, *vips: VIP) -> None:
    """Put addresses on as a run of this library."""
    index = net.links()[dev]["ifindex"]
    namespace = Namespace(net.name)
    with contextlib.closing(Netlink(namespace)) as netlink:
        for vip in vips:
            request = add_address(vip, None)
            set_index(request, index)
            netlink.request(request)
    namespace.close()


def carry(net: Net, name: str, mac: str, alias: str) -> None:
    """Make a macvlan on eth0."""
    net.ip(f"link add link eth0 name {name} address {mac} type macvlan mode private")
    net.ip(f"link set {name} up alias '{alias}'")


def left_behind(net: Net) -> None:
    """Virtual MAC addresses of both families, with one address, and one on another interface."""
    carry(net, "vrrp.51", "00:00:5e:00:01:33", "vrrpkit: arp_ignore=0 arp_filter=0 arp_announce=1")
    carry(net, "vrrp6.51", "00:00:5e:00:02:33", "vrrpkit:")
    carry(net, "vrrp.77", "00:00:5e:00:01:4d", "of keepalived")
    for name, value in BELOW.items():
        net.set(f"ipv4/conf/eth0/{name}", value)
    mark(net, "vrrp.51", OLD)
    mark(net, "eth1", OLD, OLD_6, FAR)
    # Of an operator, with the same address.
    net.ip(f"address add {FAR.address}/24 dev eth1")


async def gone(net: Net, *names: str) -> None:
    for _ in range(round((SETTLE + 3) / 0.02)):
        if not net.links().keys() & set(names):
            return
        await asyncio.sleep(0.02)
    raise TimeoutError


@contextlib.asynccontextmanager
async def opened(net: Net, name: str) -> AsyncIterator[KernelInterface]:
    interface = Host.current(net.name).interface(name)
    await interface.open()
    try:
        yield interface
    finally:
        await interface.close()


def run(test: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(test())


def test_of_interfaces_that_are_not_used_any_more(
    net: Net, caplog: pytest.LogCaptureFixture
) -> None:
    left_behind(net)

    async def test() -> None:
        async with opened(net, "eth0") as interface:
            await interface.hold([NEW], BRIEF, Listener())
            assert {"vrrp.51", "vrrp6.51"} <= net.links().keys()
            # It may change until then.
            net.ip("link set vrrp.51 mtu 1300")
            await gone(net, "vrrp.51", "vrrp6.51")
            left = net.addresses("eth1").keys()
            assert not {str(OLD), str(OLD_6), str(FAR)} & left and "192.0.2.12/24" in left
            assert "vrrp.77" in net.links() and OWN in net.addresses()
            assert [net.get(f"ipv4/conf/eth0/{name}") for name in BELOW] == [0, 0, 1]

    run(test)
    assert "removing interface vrrp.51, left behind by a run" in caplog.text


def test_by_a_program_that_has_routes_only(net: Net) -> None:
    left_behind(net)

    async def test() -> None:
        async with opened(net, "lo") as interface:
            interface.hold_routes([Route.of("blackhole 10.0.0.0/8")], [], lambda entry: None)
            await gone(net, "vrrp.51", "vrrp6.51")
            assert not {str(OLD), str(OLD_6)} & net.addresses("eth1").keys()

    run(test)


def test_what_is_used_again_stays(net: Net) -> None:
    left_behind(net)
    # As somebody has set it since.
    net.set("ipv4/conf/eth0/arp_filter", 0)
    for number, name in enumerate(("plain", "named"), 1):
        carry(net, name, f"00:00:5e:00:01:0{number}", "vrrpkit:")

    async def test() -> None:
        async with (
            opened(net, "eth0") as base,
            opened(net, "eth1") as other,
            opened(net, "plain"),
        ):
            index = net.links()["vrrp6.51"]["ifindex"]
            above = await base.virtual(51, 6, None)
            # A second one on the same interface needs the same settings.
            second = await base.virtual(52, 4, None)
            held = await other.hold([NEW, VIP("192.0.2.14", dev="named")], BRIEF, Listener())
            mine = await other.hold([OLD], BRIEF, Listener())
            mine.acquire()
            async with opened(net, second.name):
                await gone(net, "vrrp.51")
                assert net.links()["vrrp6.51"]["ifindex"] == index
                assert {"plain", "named"} <= net.links().keys()
                assert str(OLD) in net.addresses("eth1")
                assert str(OLD_6) not in net.addresses("eth1")
                assert [net.get(f"ipv4/conf/eth0/{name}") for name in BELOW] == [1, 1, 2]
            assert isinstance(above, KernelInterface) and above.carried
            await held.close()
            await mine.close()
        assert [net.get(f"ipv4/conf/eth0/{name}") for name in BELOW] == [0, 0, 1]

    run(test)


def test_nothing_while_another_process_lives(net: Net, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    left_behind(net)
    namespace = Namespace(net.name)
    other = Liveness(namespace)

    async def test() -> None:
        async with opened(net, "eth0") as interface:
            await interface.hold([NEW], BRIEF, Listener())
            for _ in range(round((SETTLE + 3) / 0.02)):
                if "may be another process's" in caplog.text:
                    break
                await asyncio.sleep(0.02)
        assert {"vrrp.51", "vrrp6.51"} <= net.links().keys()
        assert {str(OLD), str(OLD_6)} <= net.addresses("eth1").keys()

    try:
        run(test)
    finally:
        other.close()
        namespace.close()
    assert "no address and no interface is removed" in caplog.text


def test_a_setting_that_somebody_has_changed_since_stays(net: Net) -> None:
    namespace = Namespace(net.name)
    sysctls = Sysctls(namespace)
    net.set("ipv4/conf/eth0/arp_announce", 1)
    sysctls.recall("ipv4/conf/eth0/arp_announce", 2, 0)
    assert net.get("ipv4/conf/eth0/arp_announce") == 1
    sysctls.recall("ipv4/conf/eth0/arp_announce", 1, 0)
    assert net.get("ipv4/conf/eth0/arp_announce") == 0
    namespace.close()


def test_a_setting_is_lent_anew_where_it_has_changed(net: Net) -> None:
    """As when its interface was made anew, of which several tell one after the other."""
    setting = "ipv4/conf/eth0/arp_announce"
    namespace = Namespace(net.name)
    sysctls = Sysctls(namespace)
    for _ in range(2):
        sysctls.borrow(setting, 2)
    net.set(setting, 1)
    assert sysctls.before(setting) == 1
    sysctls.borrow(setting, 2)
    assert net.get(setting) == 2 and sysctls.before(setting) == 1
    for expected in (2, 2, 1):
        sysctls.give_back(setting)
        assert net.get(setting) == expected
    namespace.close()
