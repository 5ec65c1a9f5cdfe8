"""Masquerading on the host's kernel. It has no IPVS, so nftables' own DNAT stands in for it: both
change the destination of a connection that was opened to the service."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

import pytest

from system.lab import Host, Lab, require_root_and, wait_until
from vrrpkit.errors import HostError
from vrrpkit.host.firewall.nftables import Firewall
from vrrpkit.ipvs.masquerade.rules import Masquerade, discard, require_forwarding
from vrrpkit.ipvs.model.endpoints import destination_key, service_keys
from vrrpkit.ipvs.model.entries import Destination, Forward
from vrrpkit.linux.sysctl import Sysctls

pytestmark = [
    pytest.mark.system,
    pytest.mark.skipif(
        require_root_and("nft", "nsenter") is not None,
        reason=require_root_and("nft", "nsenter") or "installed",
    ),
]

VIP, VIP6 = "192.0.2.10", "2001:db8::10"
CLIENT, CLIENT6 = "192.0.2.100", "2001:db8::100"
INSIDE, INSIDE6 = "10.0.0.1", "fd00::1"
SERVER, SERVER6 = "10.0.0.2", "fd00::2"
FAILED = "failed"

# It tells each client which address it has seen.
SERVE = """
import socket
sock = socket.create_server(("::", 8080), family=socket.AF_INET6, dualstack_ipv6=True)
print("ready", flush=True)
while True:
    connection, peer = sock.accept()
    connection.sendall(peer[0].removeprefix("::ffff:").encode())
    connection.close()
"""
ASK = """
import socket, sys
try:
    with socket.create_connection((sys.argv[1], int(sys.argv[2])), 1) as sock:
        print(sock.recv(100).decode())
except OSError:
    print("failed")
"""
STAND_IN = f"""
table inet standin {{
  chain marks {{
    type filter hook prerouting priority mangle;
    tcp dport 82 meta mark set 7
  }}
  chain changes {{
    type nat hook prerouting priority dstnat;
    ip daddr {VIP} tcp dport {{ 80, 81, 82 }} dnat ip to {SERVER}:8080
    ip6 daddr {VIP6} tcp dport {{ 80, 81, 82 }} dnat ip6 to [{SERVER6}]:8080
  }}
}}
"""


class Farm:
    """A client, a director between two networks, and one real server."""

    def __init__(self, lab: Lab) -> None:
        self.client = lab.host("client", f"{CLIENT}/24", f"{CLIENT6}/64")
        self.director = lab.host(
            "director", "192.0.2.1/24", "2001:db8::1/64", f"{INSIDE}/24", f"{INSIDE6}/64"
        )
        self.server = lab.host("server", f"{SERVER}/24", f"{SERVER6}/64")
        for vip in (f"{VIP}/32", f"{VIP6}/128"):
            self.director.ip("address", "add", vip, "dev", "eth0", "nodad")
        self.forward(1)
        self.director.run(["nft", "-f", "-"], stdin=STAND_IN)
        self.client.ip("route", "add", "10.0.0.0/24", "via", "192.0.2.1")
        self.server.ip("route", "add", "default", "via", INSIDE)
        self.client.ip("-6", "route", "add", "fd00::/64", "via", "2001:db8::1")
        self.server.ip("-6", "route", "add", "default", "via", INSIDE6)
        log = self.server.directory / "server.log"
        self.server.python("-c", SERVE, log=log)
        wait_until(lambda: log.exists() and "ready" in log.read_text(), 10, "the server listens")

    def forward(self, value: int) -> None:
        self.director.sysctl(
            {
                "net/ipv4/ip_forward": value,
                "net/ipv6/conf/all/forwarding": value,
                "net/ipv4/conf/all/send_redirects": 0,
                "net/ipv4/conf/eth0/send_redirects": 0,
            }
        )

    def strand(self) -> None:
        """Let the real server know no way back to the client."""
        self.server.ip("route", "delete", "default")
        self.server.ip("-6", "route", "delete", "default")

    async def asked(self, address: str, port: int) -> str:
        """Which address the real server sees when the client connects there."""
        return await asyncio.to_thread(self._ask, address, port)

    def _ask(self, address: str, port: int) -> str:
        python = self.client.python
        log = self.client.directory / f"{address.replace(':', '_')}-{port}.log"
        log.unlink(missing_ok=True)
        assert python("-c", ASK, address, str(port), log=log).wait(20) == 0
        return log.read_text().strip()


@pytest.fixture
def farm(lab: Lab) -> Farm:
    return Farm(lab)


def run(main: Coroutine[Any, Any, None]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(60):
            await main

    asyncio.run(bounded())


def nat(server: str) -> Destination:
    return Destination(key=destination_key(f"{server}:8080"))


BOTH = [nat(SERVER), nat(f"[{SERVER6}]")]
SERVICES = service_keys([f"{VIP}:80", f"[{VIP6}]:80"])


def test_servers_see_the_director_and_answer_to_it(farm: Farm) -> None:
    async def main() -> None:
        farm.strand()
        assert await farm.asked(VIP, 80) == FAILED
        async with Masquerade(SERVICES, BOTH, netns=farm.director.namespace):
            assert await farm.asked(VIP, 80) == INSIDE
            assert await farm.asked(VIP6, 80) == INSIDE6
        assert await farm.asked(VIP, 80) == FAILED

    run(main())


def test_nothing_else_is_masqueraded(farm: Farm) -> None:
    async def main() -> None:
        assert await farm.asked(VIP, 80) == CLIENT
        async with Masquerade(SERVICES, BOTH, netns=farm.director.namespace):
            assert await farm.asked(VIP, 80) == INSIDE
            assert await farm.asked(VIP, 81) == CLIENT, "another port of the address"
            assert await farm.asked(VIP6, 81) == CLIENT6
            assert await farm.asked(SERVER, 8080) == CLIENT, "routed, and to no service"
            assert await farm.asked(SERVER6, 8080) == CLIENT6
        assert await farm.asked(VIP, 80) == CLIENT
        assert await farm.asked(VIP6, 80) == CLIENT6

    run(main())


@pytest.mark.parametrize(
    ("services", "expected"),
    [
        ([f"{VIP}:80-81"], (INSIDE, INSIDE, CLIENT)),
        ([f"{VIP}:81", f"{VIP}:82"], (CLIENT, INSIDE, INSIDE)),
        ([VIP], (INSIDE, INSIDE, INSIDE)),
        ([f"{VIP}/udp", f"{VIP}:80/udp"], (CLIENT, CLIENT, CLIENT)),
        (["fwmark 7"], (CLIENT, CLIENT, INSIDE)),
        (["192.0.2.9:80", "192.0.2.11-12:80"], (CLIENT, CLIENT, CLIENT)),
    ],
)
def test_every_form_of_a_service(
    farm: Farm, services: list[str], expected: tuple[str, str, str]
) -> None:
    async def main() -> None:
        async with Masquerade(service_keys(services), BOTH, netns=farm.director.namespace):
            seen = [await farm.asked(VIP, port) for port in (80, 81, 82)]
            assert tuple(seen) == expected

    run(main())


def test_servers_come_and_go(farm: Farm) -> None:
    async def main() -> None:
        masquerade = Masquerade(SERVICES, netns=farm.director.namespace)
        async with masquerade:
            assert await farm.asked(VIP, 80) == CLIENT
            await masquerade.update([nat("10.0.0.3"), nat(SERVER)])
            assert await farm.asked(VIP, 80) == INSIDE
            direct = Destination(key=destination_key(f"{SERVER}:8080"), forward=Forward.DR)
            await masquerade.update([nat("10.0.0.3"), direct])
            assert await farm.asked(VIP, 80) == CLIENT
        await masquerade.update(BOTH)
        async with masquerade:
            assert await farm.asked(VIP, 80) == INSIDE

    run(main())


def test_what_is_kept_goes_on_until_the_next_run(farm: Farm) -> None:
    async def main() -> None:
        netns = farm.director.namespace
        first = Masquerade(SERVICES, BOTH, netns=netns, name="web")
        await first.__aenter__()
        await first.keep()
        (kept,) = set(tables(farm.director)) - {"table inet standin"}
        assert kept.startswith("table inet vrrpkit-kept-web-")
        async with Masquerade(service_keys("192.0.2.11:80"), BOTH, netns=netns, name="other"):
            assert await farm.asked(VIP, 80) == INSIDE
        assert await farm.asked(VIP, 80) == INSIDE
        async with Masquerade(SERVICES, BOTH, netns=netns, name="web"):
            assert kept not in tables(farm.director)
            assert await farm.asked(VIP, 80) == INSIDE
        assert await farm.asked(VIP, 80) == CLIENT

    run(main())


def test_a_run_without_it_removes_what_earlier_ones_left(
    farm: Farm, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main() -> None:
        netns = farm.director.namespace
        first = Masquerade(SERVICES, BOTH, netns=netns, name="web")
        await first.__aenter__()
        await first.keep()
        farm.director.run(["nft", "add", "table", "inet", "vrrpkit-firewall-1-0123abcd"])
        # The kernel has no setting for the connections of IPVS, and so there was nothing to keep.
        await discard("web", netns)
        assert len(tables(farm.director)) == 3
        monkeypatch.setattr(Sysctls, "read", lambda *_: 1)
        await discard("web", netns)
        assert tables(farm.director) == ["table inet standin"]

    run(main())


def test_it_survives_a_flush(farm: Farm) -> None:
    async def main() -> None:
        masquerade = Masquerade(SERVICES, BOTH, netns=farm.director.namespace)
        assert not await masquerade.ensure()
        async with masquerade:
            assert not await masquerade.ensure()
            farm.director.run(["nft", "flush", "ruleset"])
            farm.director.run(["nft", "-f", "-"], stdin=STAND_IN)
            assert await masquerade.ensure()
            assert await farm.asked(VIP, 80) == INSIDE

    run(main())


def test_a_cancelled_user_leaves_no_rule(farm: Farm) -> None:
    async def main() -> None:
        async def user() -> None:
            async with Masquerade(SERVICES, BOTH, netns=farm.director.namespace):
                entered.set()
                await asyncio.sleep(60)

        entered = asyncio.Event()
        task = asyncio.create_task(user(), name="user")
        await entered.wait()
        for _ in range(3):
            task.cancel()
            await asyncio.sleep(0)
        with pytest.raises(asyncio.CancelledError):
            await task
        assert tables(farm.director) == ["table inet standin"]

    run(main())


def tables(director: Host) -> list[str]:
    return director.run(["nft", "list", "tables"]).splitlines()


def refused(director: Host, setting: str, families: set[int]) -> None:
    async def main() -> None:
        message = rf"run 'sysctl -w {setting}=1'"
        with pytest.raises(HostError, match=message):
            require_forwarding(families, director.namespace)
        services = [key for key in SERVICES if key.family in families]
        with pytest.raises(HostError, match=message):
            await Masquerade(services, BOTH, netns=director.namespace).__aenter__()
        assert Firewall.current(director.namespace).table is None

    run(main())


def test_a_host_that_does_not_forward_is_refused(lab: Lab) -> None:
    director = lab.host("director", "192.0.2.1/24")
    names = ("net/ipv4/ip_forward", "net/ipv6/conf/all/forwarding")
    director.sysctl(dict.fromkeys(names, 0))
    refused(director, "net.ipv4.ip_forward", {4, 6})
    refused(director, "net.ipv6.conf.all.forwarding", {6})
    assert tables(director) == []
    director.sysctl(dict.fromkeys(names, 1))
    require_forwarding({4, 6}, director.namespace)


def test_forwarding_from_one_interface_will_do(lab: Lab) -> None:
    director = lab.host("director", "192.0.2.1/24")
    director.sysctl({"net/ipv4/ip_forward": 0, "net/ipv4/conf/eth0/forwarding": 1})
    require_forwarding({4}, director.namespace)
