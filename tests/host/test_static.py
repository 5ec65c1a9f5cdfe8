"""Static addresses, routes and rules: there from beginning to end, whoever removes them."""

from __future__ import annotations

import asyncio
import errno
import logging
from ipaddress import ip_address
from typing import Any

import pytest

from namespaces import Net
from vrrpkit.errors import ConfigError, InterfaceMissing, KernelRefused, VRRPKitError
from vrrpkit.host.memory.bus import MemoryBus, MemoryInterface
from vrrpkit.host.static import PACE, RETRY, StaticNetwork
from vrrpkit.routes.route import Route, Rule
from vrrpkit.testing.virtual import virtual_time
from vrrpkit.values import VIP

ADDRESS = "192.0.2.7/24 dev eth1"
ROUTE = "10.0.0.0/8 via 192.0.2.254"
RULE = "from 192.0.2.7 table 100 priority 1000"


class Machine:
    """One host in memory with eth1 and eth2."""

    def __init__(self) -> None:
        self.bus = MemoryBus()
        self.interfaces: dict[str, MemoryInterface] = {
            "eth1": self.bus.interface("192.0.2.1", name="eth1"),
            "eth2": self.bus.interface("198.51.100.1", name="eth2"),
        }

    def static(self, addresses: Any = (ADDRESS,), **options: Any) -> StaticNetwork:
        return StaticNetwork(addresses, interfaces=self.interfaces, **options)

    def has(self, address: str, dev: str = "eth1") -> bool:
        return self.interfaces[dev].holds(ip_address(address))

    def delete(self, address: str, dev: str = "eth1") -> None:
        self.interfaces[dev].delete(address)


@virtual_time()
async def test_in_place_from_beginning_to_end() -> None:
    machine = Machine()
    one = machine.interfaces["eth1"]
    static = machine.static(
        [ADDRESS, "2001:db8::7/64 dev eth1", VIP("198.51.100.7/24", dev="eth2")],
        routes=[ROUTE],
        rules=[RULE],
    )
    assert static.missing == ()
    async with static:
        assert machine.has("192.0.2.7") and machine.has("2001:db8::7")
        assert machine.has("198.51.100.7", "eth2") and not machine.has("198.51.100.7")
        assert one.routes == [Route.of(ROUTE)] and one.rules == [Rule.of(RULE)]
        assert static.missing == ()
        with pytest.raises(VRRPKitError, match="entered already"):
            await static.__aenter__()
    assert not machine.has("192.0.2.7") and not machine.has("198.51.100.7", "eth2")
    assert one.routes == [] and one.rules == []
    # And once more.
    async with static:
        assert machine.has("192.0.2.7")
    await static.__aexit__(None, None, None)


@virtual_time()
async def test_an_address_that_is_removed_comes_back(caplog: pytest.LogCaptureFixture) -> None:
    machine = Machine()
    static = machine.static(routes=[ROUTE])
    async with static:
        await asyncio.sleep(PACE)
        # The kernel takes routes along that prefer the address as a source, and says nothing.
        machine.interfaces["eth1"].routing.table.clear()
        machine.delete("192.0.2.7")
        assert static.missing == ("192.0.2.7/24 dev eth1", f"route {ROUTE}")
        await asyncio.sleep(0.01)
        assert machine.has("192.0.2.7") and static.missing == ()
        assert "somebody removed 192.0.2.7/24 from eth1: putting it back" in caplog.text
        # Again within a second: it has to wait, or two programs could keep the machine busy.
        machine.delete("192.0.2.7")
        await asyncio.sleep(PACE - 0.1)
        assert not machine.has("192.0.2.7")
        await asyncio.sleep(0.2)
        assert machine.has("192.0.2.7")


@virtual_time()
async def test_a_route_that_is_removed_comes_back(caplog: pytest.LogCaptureFixture) -> None:
    machine = Machine()
    one = machine.interfaces["eth1"]
    static = machine.static((), routes=[ROUTE], rules=[RULE])
    async with static:
        for entry in (Route.of(ROUTE), Rule.of(RULE)):
            one.delete_route(entry)
            assert static.missing == () and entry in one.routing.table
            await asyncio.sleep(PACE)
        assert f"somebody removed rule {Rule.of(RULE)}: putting it back" in caplog.text
        one.delete_route(ROUTE)
        one.delete_route(ROUTE)
        one.delete_route(Rule.of(RULE))
        assert static.missing == (f"route {ROUTE}", f"rule {Rule.of(RULE)}")
        await asyncio.sleep(PACE)
        assert static.missing == ()
    one.delete_route(ROUTE)
    await asyncio.sleep(PACE)
    assert one.routing.table == {}


@virtual_time()
async def test_what_the_kernel_refuses_later_is_tried_again(
    caplog: pytest.LogCaptureFixture,
) -> None:
    machine = Machine()
    one = machine.interfaces["eth1"]
    static = machine.static(routes=[ROUTE])
    async with static:
        await asyncio.sleep(PACE)
        one.manager.failures[ip_address("192.0.2.7")] = OSError(errno.ENOSPC, "No space left")
        one.routing.failures[Route.of(ROUTE)] = OSError(errno.ENETUNREACH, "Network is unreachable")
        machine.delete("192.0.2.7")
        one.delete_route(ROUTE)
        await asyncio.sleep(0.01)
        assert static.missing == ("192.0.2.7/24 dev eth1", f"route {ROUTE}")
        assert "192.0.2.7/24 dev eth1: [Errno 28] No space left" in caplog.text
        assert f"route {ROUTE}: [Errno 101] Network is unreachable" in caplog.text
        one.manager.failures.clear()
        one.routing.failures.clear()
        await asyncio.sleep(RETRY - 0.1)
        assert len(static.missing) == 2
        await asyncio.sleep(0.2)
        assert static.missing == () and machine.has("192.0.2.7")


@virtual_time()
async def test_what_the_kernel_refuses_at_the_start_leaves_nothing_behind() -> None:
    machine = Machine()
    one = machine.interfaces["eth1"]
    one.routing.failures[Route.of(ROUTE)] = OSError(errno.ENETUNREACH, "Network is unreachable")
    static = machine.static([ADDRESS, "198.51.100.7/24 dev eth2"], routes=[ROUTE], rules=[RULE])
    with pytest.raises(KernelRefused, match=f"route {ROUTE}: Network is unreachable"):
        async with static:
            pytest.fail("entered")
    assert not machine.has("192.0.2.7") and one.routing.table == {}
    one.routing.failures.clear()
    machine.interfaces["eth2"].manager.failures[ip_address("198.51.100.7")] = OSError(28, "No room")
    with pytest.raises(KernelRefused, match=r"address 198.51.100.7/24 dev eth2: No room"):
        async with static:
            pytest.fail("entered")
    assert not machine.has("192.0.2.7")


@virtual_time()
async def test_addresses_come_back_with_their_interface() -> None:
    machine = Machine()
    static = machine.static()
    async with static:
        machine.bus.unplug("192.0.2.1")
        # As the kernel takes IPv6 addresses of an interface that goes down.
        machine.delete("192.0.2.7")
        await asyncio.sleep(10)
        assert static.missing == ("192.0.2.7/24 dev eth1",)
        machine.bus.plug("192.0.2.1")
        await asyncio.sleep(0.01)
        assert static.missing == () and machine.has("192.0.2.7")
        # A change of the link alone is no reason to do anything.
        requests = machine.interfaces["eth1"].manager.requests
        machine.bus.unplug("192.0.2.1")
        machine.bus.plug("192.0.2.1")
        await asyncio.sleep(0.01)
        assert machine.interfaces["eth1"].manager.requests == requests


@virtual_time()
async def test_what_was_there_before_stays() -> None:
    machine = Machine()
    one = machine.interfaces["eth1"]
    one.add("192.0.2.7/24")
    one.routing.table[Route.of(ROUTE)] = False
    async with machine.static(routes=[ROUTE]):
        assert machine.has("192.0.2.7")
    assert machine.has("192.0.2.7") and one.routes == [Route.of(ROUTE)]


def test_text_makes_ordinary_addresses() -> None:
    first, second = StaticNetwork(
        ["2001:db8::7/64 dev eth1", VIP("2001:db8::8/64", dev="eth1")]
    ).addresses
    # Preferred as a source, and checked for duplicates; a VIP is as it says.
    assert (first.preferred_lifetime, first.nodad) == (float("inf"), False)
    assert (second.preferred_lifetime, second.nodad) == (None, True)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({}, "nothing is static here; write for example"),
        ({"addresses": ADDRESS}, "write addresses as a list"),
        ({"addresses": ["192.0.2.7/24"]}, "on which interface\\? Write '192.0.2.7/24 dev eth1'"),
        ({"addresses": [VIP("192.0.2.7/24")]}, "on which interface"),
        ({"addresses": ["192.0.2.300/24 dev eth1"]}, "'192.0.2.300/24 dev eth1': virtual address"),
        ({"addresses": [ADDRESS, ADDRESS]}, "192.0.2.7 dev eth1 is named twice"),
        ({"routes": ["10.0.0.0/8"]}, "where to"),
        ({"rules": ["from all table 5"]}, "the priority is missing"),
        (
            {"addresses": [ADDRESS], "netns": "x", "interfaces": {}},
            "netns goes with names of interfaces",
        ),
        (
            {
                "addresses": ["2001:db8::7/64 dev eth1"],
                "routes": ["default via fe80::1 dev eth1 src 2001:db8::7"],
            },
            "write nodad behind that address",
        ),
    ],
)
def test_bad_options(options: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        StaticNetwork(**options)


@virtual_time()
async def test_an_interface_that_is_not_there() -> None:
    with pytest.raises(InterfaceMissing, match="eth9"):
        async with Machine().static([ADDRESS, "192.0.2.8/24 dev eth9"]):
            pytest.fail("entered")


# --- on a real kernel


async def settle(condition: Any) -> None:
    for _ in range(300):
        if condition():
            return
        await asyncio.sleep(0.01)
    raise TimeoutError


@pytest.mark.system
def test_in_a_real_kernel(net: Net) -> None:
    addresses = [
        "192.0.2.7/24 dev eth1 label eth1:web brd 192.0.2.255",
        "2001:db8::7/64 dev eth1 nodad",
        "198.51.100.7/32 dev eth0",
    ]
    routes = [
        "10.0.0.0/8 via 192.0.2.254 src 192.0.2.7",
        "default via 2001:db8::1 src 2001:db8::7",
        "blackhole 10.9.0.0/16",
    ]

    async def main() -> None:
        static = StaticNetwork(addresses, routes=routes, rules=[RULE], netns=net.name)
        async with static:
            found = net.addresses("eth1")
            assert found["192.0.2.7/24"]["label"] == "eth1:web"
            assert found["2001:db8::7/64"]["preferred_life_time"] == 0xFFFFFFFF
            assert "198.51.100.7/32" in net.addresses()
            assert "proto 112" in net.ip("rule")
            await asyncio.sleep(PACE)
            # With the address the kernel takes the route that prefers it, in silence.
            net.ip("address del 192.0.2.7/24 dev eth1")
            net.ip("-6 route del default")
            net.ip("rule del priority 1000")
            await settle(lambda: "192.0.2.7/24" in net.addresses("eth1"))
            await settle(lambda: not static.missing)
            assert "10.0.0.0/8 via 192.0.2.254" in net.ip("route")
            assert "default via 2001:db8::1" in net.ip("-6 route")
            await asyncio.sleep(PACE)
            net.ip("link set eth1 down")
            await settle(lambda: len(static.missing) == 3)
            net.ip("link set eth1 up")
            await settle(lambda: not static.missing)
            assert "2001:db8::7/64" in net.addresses("eth1")
            assert "default via 2001:db8::1" in net.ip("-6 route")
        left = net.ip("address") + net.ip("route") + net.ip("-6 route") + net.ip("rule")
        for gone in ("192.0.2.7", "2001:db8::7", "198.51.100.7", "proto 112"):
            assert gone not in left

    asyncio.run(main())


@pytest.mark.system
def test_an_interface_that_comes_later(net: Net, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, "vrrpkit")

    async def main() -> None:
        with pytest.raises(InterfaceMissing, match="up0"):
            async with StaticNetwork(["192.0.2.7/24 dev up0"], netns=net.name):
                pytest.fail("entered")
        static = StaticNetwork(["192.0.2.7/24 dev up0"], netns=net.name, wait_for_interface=True)
        async with static:
            assert static.missing == ("192.0.2.7/24 dev up0",)
            net.ip("link add up0 type veth peer name up1")
            net.ip("link set up1 up")
            net.ip("link set up0 up")
            await settle(lambda: not static.missing)
            net.ip("link del up0")
            await settle(lambda: static.missing)
            net.ip("link add up0 type veth peer name up1")
            net.ip("link set up1 up")
            net.ip("link set up0 up")
            await settle(lambda: not static.missing)
            assert "192.0.2.7/24" in net.addresses("up0")
        assert caplog.text == ""

    asyncio.run(main())


@pytest.mark.system
def test_routes_alone_in_a_real_kernel(net: Net) -> None:
    async def main() -> None:
        async with StaticNetwork(routes=["10.0.0.0/8 via 198.51.100.9"], netns=net.name):
            assert "proto 112" in net.ip("route")
        assert "proto 112" not in net.ip("route")
        with pytest.raises(KernelRefused, match="Network is unreachable"):
            async with StaticNetwork(routes=["10.0.0.0/8 via 203.0.113.1"], netns=net.name):
                pytest.fail("entered")

    asyncio.run(main())
