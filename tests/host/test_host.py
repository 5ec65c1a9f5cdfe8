"""Interfaces of this machine: shared, reference-counted, and clean after every end."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import signal
import socket
import textwrap
import time
import weakref
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
from blockbuster import blockbuster_ctx

from namespaces import OWN, Listener, Net, heard, until
from vrrpkit.errors import Closed, HostError
from vrrpkit.host.announce.frames import gratuitous_arp, unsolicited_na
from vrrpkit.host.host import Host
from vrrpkit.host.kernel_interface import KernelInterface
from vrrpkit.host.links import records, requests
from vrrpkit.host.links.requests import add_address
from vrrpkit.host.liveness import SETTLE
from vrrpkit.linux.netlink import Netlink
from vrrpkit.linux.netns import Namespace
from vrrpkit.values import VIP, Announcements

V4, V6 = VIP("192.0.2.10"), VIP("2001:db8::a")
MAC = bytes.fromhex("020000000001")
BRIEF = Announcements(repeat=2, delay=0)


@contextlib.asynccontextmanager
async def opened(net: Net, name: str = "eth0") -> AsyncIterator[KernelInterface]:
    interface = Host.current(net.name).interface(name)
    await interface.open()
    try:
        yield interface
    finally:
        await interface.close()


async def soon(condition: Callable[[], object], seconds: float = 3) -> None:
    for _ in range(round(seconds / 0.01)):
        if condition():
            return
        await asyncio.sleep(0.01)
    raise TimeoutError


@pytest.fixture(autouse=True)
def loaded() -> None:
    """What is imported at need is there, so that no test counts the import."""
    add_address(V4, None)
    gratuitous_arp(V4.address, MAC)


def run(main: Coroutine[Any, Any, None]) -> None:
    asyncio.run(main)


# --- the Host


def test_needs_a_loop() -> None:
    with pytest.raises(RuntimeError, match="no running event loop"):
        Host.current()


def test_one_for_all() -> None:
    async def main() -> None:
        host = Host.current()
        assert Host.current() is host
        assert host.interface("eth0") is host.interface("eth0")
        assert host.interface("eth0") is not host.interface("eth1")
        with pytest.raises(HostError, match="no network namespace"):
            Host.current("vrrpkit-none-such")

    run(main())


def test_not_open() -> None:
    async def main() -> None:
        interface = Host.current().interface("vrrpkit0")
        assert interface.link is None
        with pytest.raises(Closed, match="not open"):
            interface.watch(lambda: None)
        await interface.close()

    run(main())


@pytest.mark.system
def test_does_not_keep_the_loop(net: Net) -> None:
    async def main() -> weakref.ref[asyncio.AbstractEventLoop]:
        async with opened(net):
            pass
        return weakref.ref(asyncio.get_running_loop())

    loop = asyncio.run(main())
    gc.collect()
    assert loop() is None


@pytest.mark.system
def test_counts_references(net: Net) -> None:
    async def main() -> None:
        interface = Host.current(net.name).interface("eth0")
        await interface.open()
        await interface.open()
        async with opened(net, "eth1") as other:
            assert other.deadlines is interface.deadlines
            assert other.transport is interface.transport
            await interface.close()
            assert interface.link is not None
            await interface.close()
            assert interface.link is None and other.link is not None
        await interface.close()
        async with opened(net) as again:
            assert again is interface and again.link is not None

    run(main())


@pytest.mark.system
def test_reopened_while_it_closes(net: Net) -> None:
    async def main() -> None:
        async with opened(net) as interface:
            hold = await interface.hold([V4], BRIEF, Listener())
            hold.acquire()
        closing = interface.open(), interface.close(), interface.open(), interface.close()
        await asyncio.gather(*closing)
        assert interface.link is None and str(V4) not in net.addresses()

    run(main())


@pytest.mark.system
def test_never_blocks(net: Net) -> None:
    async def main() -> None:
        listener = Listener()
        with blockbuster_ctx("vrrpkit") as blockbuster:
            # What it takes to run nft, see the tests of vrrpkit.commands.command: local disk,
            # vfork, /proc.
            for function, file, caller in (
                ("os.stat", "vrrpkit/host/firewall/nft.py", "program"),
                ("os.access", "vrrpkit/host/firewall/nft.py", "program"),
                ("os.readlink", "vrrpkit/host/firewall/nft.py", "program"),
                ("os.stat", "vrrpkit/commands/command.py", "_look"),
                ("os.readlink", "vrrpkit/commands/command.py", "_look"),
                ("os.read", "subprocess.py", "_execute_child"),
                ("os.listdir", "vrrpkit/commands/process.py", "_living"),
                ("io.BufferedReader.read", "vrrpkit/commands/process.py", "_lives"),
            ):
                blockbuster.functions[function].can_block_in(file, caller)
            async with opened(net) as interface:
                hold = await interface.hold([V4, V6], BRIEF, listener, 3)
                hold.acquire()
                await hold.settled()
                above = await interface.virtual(51, 4, None)
                await above.open()
                await above.close()
                await hold.close()
        assert listener.acquisitions == 1

    run(main())


# --- addresses


@pytest.mark.system
def test_hold(net: Net) -> None:
    sniffer = net.sniffer()

    async def main() -> None:
        listener = Listener()
        async with opened(net) as interface:
            hold = await interface.hold([V4, V6], BRIEF, listener)
            assert str(V4) not in net.addresses()
            hold.acquire()
            await hold.settled()
            assert {str(V4), str(V6)} <= net.addresses().keys()
            assert net.addresses()[str(V6)]["deprecated"]
            await asyncio.sleep(0.05)
            arp = gratuitous_arp(V4.address, MAC)
            na = unsolicited_na(V6.address, MAC, router=False)
            announced = [frame for frame in heard(sniffer) if frame in (arp, na)]
            assert announced == [arp, na, arp, na]
            assert interface.link is not None and interface.link.source(4) is not None
            hold.release()
            await hold.settled()
            assert not {str(V4), str(V6)} & net.addresses().keys()
            hold.acquire()
        # Closing releases what is still wished for.
        assert not {str(V4), str(V6)} & net.addresses().keys()
        assert listener.refusals == [] and listener.losses == []

    run(main())
    sniffer.close()


@pytest.mark.system
def test_router_flag_follows_forwarding(net: Net) -> None:
    net.set("ipv6/conf/eth0/forwarding", 1)
    sniffer = net.sniffer()

    async def main() -> None:
        async with opened(net) as interface:
            hold = await interface.hold([V6], BRIEF, Listener())
            hold.acquire()
            await hold.settled()

    run(main())
    assert unsolicited_na(V6.address, MAC, router=True) in heard(sniffer)
    sniffer.close()


@pytest.mark.system
def test_deleted_from_outside(net: Net) -> None:
    net.ip("link add other type veth peer name other1")
    net.ip("link set other up")
    elsewhere = VIP("192.0.2.11", dev="other")

    async def main() -> None:
        listener = Listener()
        async with opened(net) as interface:
            hold = await interface.hold([V4, V6, elsewhere], BRIEF, listener)
            hold.acquire()
            await hold.settled()
            net.ip(f"address delete {V4} dev eth0")
            net.ip(f"address delete {V6} dev eth0")
            net.ip(f"address delete {elsewhere} dev other")
            await soon(lambda: len(listener.losses) == 3)
            assert listener.losses == [str(V4), str(V6), str(elsewhere)]
            hold.acquire()
            await hold.settled()
            assert {str(V4), str(V6)} <= net.addresses().keys()
            assert str(elsewhere) in net.addresses("other")
            await hold.close()
        assert len(listener.losses) == 3

    run(main())


@pytest.mark.system
def test_what_our_own_removal_takes_along_is_put_back(net: Net) -> None:
    net.set("ipv4/conf/eth0/promote_secondaries", 0)
    net.set("ipv4/conf/all/promote_secondaries", 0)
    # The first of a prefix, on which the others hang.
    first, second, elsewhere = (
        VIP("203.0.113.10/24"),
        VIP("203.0.113.11/24"),
        VIP("203.0.113.12/24", dev="eth0"),
    )
    theirs = "203.0.113.99/24"

    async def main() -> None:
        listeners = [Listener(), Listener(), Listener()]
        async with opened(net) as interface, opened(net, "eth1") as other:
            holds = [
                await interface.hold([first], BRIEF, listeners[0]),
                await interface.hold([second], BRIEF, listeners[1]),
                # By the reconciler of another interface.
                await other.hold([elsewhere], BRIEF, listeners[2]),
            ]
            for hold in holds:
                hold.acquire()
                await hold.settled()
            net.ip(f"address add {theirs} dev eth0 label eth0:x broadcast 203.0.113.255")
            holds[0].release()
            await holds[0].settled()
            wanted = {str(second), str(elsewhere), theirs}
            await soon(lambda: wanted <= net.addresses().keys())
            assert net.addresses()[theirs]["label"] == "eth0:x"
            assert str(first) not in net.addresses()
            assert [listener.losses for listener in listeners] == [[], [], []]
            # Somebody else's removal is what it was.
            primary = next(
                name
                for name, info in net.addresses().items()
                if name.startswith("203.") and not info.get("secondary")
            )
            net.ip(f"address delete {primary} dev eth0")
            await soon(lambda: listeners[1].losses and listeners[2].losses)
            for hold in holds:
                await hold.close()

    run(main())


def left_by_keepalived(net: Net, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Put an address on as keepalived does from its version 2.3 on; no older iproute2 can."""
    monkeypatch.setattr(requests, "MARK", records.KEEPALIVED)
    namespace = Namespace(net.name)
    request = requests.add_address(VIP(text), None)
    monkeypatch.undo()
    with namespace.inside():
        requests.set_index(request, socket.if_nametoindex("eth0"))
    netlink = Netlink(namespace)
    netlink.request(request)
    netlink.close()
    namespace.close()


@pytest.mark.system
@pytest.mark.parametrize("alive", [False, True])
def test_what_keepalived_left_is_removed_unless_it_lives(
    net: Net, alive: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    for text in ("192.0.2.10/24", "192.0.2.11/24", "2001:db8::10/64"):
        left_by_keepalived(net, text, monkeypatch)
    net.ip("address add 192.0.2.12/24 dev eth0")
    wanted = [ip_address(text) for text in ("192.0.2.10", "2001:db8::10", "192.0.2.12")]
    other = net.python(
        "import socket; s = socket.socket(socket.AF_INET, socket.SOCK_RAW, 112); "
        "print(flush=True); input()",
        "ip", "netns", "exec", net.name,
    )  # fmt: skip
    assert other.stdout is not None
    other.stdout.readline()
    if not alive:
        other.communicate("\n")

    async def main() -> None:
        namespace = Namespace(net.name)
        # One of our own, which is no sign of it.
        with contextlib.closing(namespace.socket(socket.AF_INET, socket.SOCK_RAW, 112)):
            async with opened(net) as interface:
                interface.remove_abandoned(wanted)
        namespace.close()

    run(main())
    gone = set() if alive else {"192.0.2.10/24", "2001:db8::10/64"}
    there = {"192.0.2.10/24", "192.0.2.11/24", "2001:db8::10/64", "192.0.2.12/24"}
    assert there & net.addresses().keys() == there - gone
    if alive:
        other.communicate("\n")


@pytest.mark.system
def test_what_somebody_else_put_there_is_removed_if_asked(net: Net) -> None:
    net.ip("address add 203.0.113.9/24 dev eth0")
    net.ip("address add 203.0.113.10/24 dev eth0")

    async def main() -> None:
        async with opened(net) as interface:
            assert interface.remove_foreign(ip_address("203.0.113.9"), 24) is None
            assert interface.remove_foreign(ip_address("203.0.113.9"), 24) is None
            assert interface.remove_foreign(ip_address("203.0.113.10"), 32) is None
            assert interface.link is not None
            assert ip_address("203.0.113.9") not in dict(interface.link.addresses)

    run(main())
    assert "203.0.113.9/24" not in net.addresses()
    # The second of the prefix, which the kernel took along.
    assert "203.0.113.10/24" in net.addresses()


@pytest.mark.system
def test_foreign_address_is_used_in_place(net: Net) -> None:
    async def main() -> None:
        listener = Listener()
        async with opened(net) as interface:
            hold = await interface.hold([VIP(OWN)], BRIEF, listener)
            hold.acquire()
            await hold.settled()
            assert listener.acquisitions == 1
            await hold.close()
        assert OWN in net.addresses()

    run(main())


@pytest.mark.system
def test_interface_vanishes_and_returns(net: Net) -> None:
    async def main() -> None:
        listener, changes = Listener(), []
        async with opened(net) as interface:
            interface.watch(lambda: changes.append(interface.link))
            hold = await interface.hold([V4], BRIEF, listener)
            hold.acquire()
            await hold.settled()
            net.ip("link delete eth0")
            await soon(lambda: changes and changes[-1] is None)
            hold.acquire()
            await hold.settled()
            assert "no network interface eth0" in str(listener.refusals[0][1])
            net.cable()
            await soon(lambda: changes[-1] is not None and changes[-1].up)
            hold.acquire()
            await hold.settled()
            assert str(V4) in net.addresses()

    run(main())


@pytest.mark.system
def test_an_interface_that_is_renamed_loses_the_addresses(net: Net) -> None:
    """Under its new name nobody would look for them, and another router may take them over."""
    net.ip("address add 192.0.2.9/32 dev eth0")

    async def main() -> None:
        listener = Listener()
        foreign, unheld = VIP("192.0.2.9"), VIP("192.0.2.8")
        far = VIP("192.0.2.7", peer="192.0.2.6")
        async with opened(net) as interface:
            hold = await interface.hold([V4, V6, far, foreign], BRIEF, listener)
            hold.acquire()
            await hold.settled()
            # As another process of this library may have put it there.
            manager = interface._required.addresses
            assert await manager.apply([unheld], [], None) == []
            interface.watch(hold.release)
            net.ip("link set eth0 name wan0")
            await soon(lambda: interface.link is None)
            await hold.settled()
            left = net.addresses("wan0").keys()
            assert (
                not {str(V4), str(V6), str(far)} & left and {str(foreign), str(unheld), OWN} <= left
            )
            assert listener.losses == []
            net.ip("link set wan0 name eth0")
            await soon(lambda: interface.link is not None)
            hold.acquire()
            await hold.settled()
            assert {str(V4), str(V6)} <= net.addresses().keys()

    run(main())


@pytest.mark.system
def test_another_interface_takes_the_name(net: Net) -> None:
    """Between two turns of the loop, so that the name was never seen to be nobody's."""

    async def main() -> None:
        listener = Listener()
        async with opened(net) as interface:
            hold = await interface.hold([V4, V6], BRIEF, listener)
            hold.acquire()
            await hold.settled()
            net.ip("link set eth0 name wan0")
            net.ip("link set eth1 name eth0")
            await soon(lambda: len(listener.losses) == 2)
            assert not {str(V4), str(V6)} & net.addresses("wan0").keys()
            hold.acquire()
            await hold.settled()
            assert {str(V4), str(V6)} <= net.addresses().keys()
            net.ip("link set eth0 name lan0")
            await soon(lambda: interface.link is None)
        assert not {str(V4), str(V6)} & net.addresses("lan0").keys()

    run(main())


@pytest.mark.system
def test_tentative_address_is_announced_later(net: Net) -> None:
    net.set("ipv6/conf/eth0/dad_transmits", 1)
    vip = VIP("2001:db8::b/128", nodad=False)
    sniffer = net.sniffer()
    na = unsolicited_na(vip.address, MAC, router=False)

    async def main() -> None:
        async with opened(net) as interface:
            hold = await interface.hold([vip], BRIEF, Listener())
            hold.acquire()
            await hold.settled()
            await asyncio.sleep(0.05)
            assert na not in heard(sniffer)
            await soon(lambda: na in heard(sniffer))

    run(main())
    sniffer.close()


@pytest.mark.system
@pytest.mark.parametrize("promoted", [0, 1])
def test_vip_in_the_own_prefix(net: Net, caplog: pytest.LogCaptureFixture, promoted: int) -> None:
    for place in ("all", "eth0"):
        net.set(f"ipv4/conf/{place}/promote_secondaries", promoted)

    async def main() -> None:
        async with opened(net) as interface:
            vips = [VIP("198.51.100.9/24"), VIP("198.51.100.10/32"), V4]
            await interface.hold(vips, BRIEF, Listener())

    run(main())
    assert "198.51.100.9/24 on eth0" in caplog.text and "write /32" in caplog.text
    assert "198.51.100.10" not in caplog.text
    assert ("promote_secondaries is 0" in caplog.text) is (not promoted)


# --- ends that nobody chose

HOLDER = textwrap.dedent(
    """
    import asyncio, sys
    from vrrpkit.host.host import Host
    from vrrpkit.values import VIP, Announcements

    class Listener:
        def acquired(self): print("acquired", flush=True)
        def refused(self, failures): print(failures, flush=True)
        def lost(self, vip): print("lost", vip, flush=True)

    async def main(netns, lease, *vips):
        interface = Host.current(netns).interface("eth0")
        await interface.open()
        hold = await interface.hold(
            [VIP(vip) for vip in vips], Announcements(), Listener(), float(lease) or None
        )
        hold.acquire()
        await asyncio.Event().wait()

    asyncio.run(main(*{arguments!r}))
    """
)


@contextlib.contextmanager
def holder(net: Net, lease: float, *vips: VIP) -> Iterator[int]:
    """A process that holds addresses; yields its number."""
    arguments = (net.name, lease, *map(str, vips))
    with net.python(HOLDER.replace("{arguments!r}", repr(arguments))) as process:
        assert process.stdout is not None and process.stderr is not None
        try:
            assert process.stdout.readline() == "acquired\n", process.stderr.read()
            yield process.pid
        finally:
            process.kill()
            process.communicate()


@pytest.mark.system
def test_lease_of_a_stopped_process(net: Net) -> None:
    with holder(net, 3, V4, V6) as pid:
        time.sleep(3.5)
        assert {str(V4), str(V6)} <= net.addresses().keys(), "not renewed"
        os.kill(pid, signal.SIGSTOP)
        until(lambda: not {str(V4), str(V6)} & net.addresses().keys(), 6)


@pytest.mark.system
def test_leftovers(net: Net, caplog: pytest.LogCaptureFixture) -> None:
    nobodys, nobodys_6 = VIP("192.0.2.99"), VIP("2001:db8::99")
    others = VIP("192.0.2.50")
    with holder(net, 0, V4, V6, nobodys, nobodys_6, others):
        pass
    assert {str(V4), str(V6), str(nobodys)} <= net.addresses().keys()

    async def main() -> None:
        listener = Listener()
        async with opened(net) as interface:
            # Ours of before: gone as soon as the hold is made.
            hold = await interface.hold([V4, V6], BRIEF, listener)
            assert not {str(V4), str(V6)} & net.addresses().keys()
            assert str(nobodys) in net.addresses()
            hold.acquire()
            await asyncio.sleep(SETTLE / 2)
            other = await interface.hold([others], BRIEF, Listener())
            other.acquire()
            await soon(lambda: str(nobodys) not in net.addresses(), SETTLE)
            assert str(nobodys_6) not in net.addresses()
            assert {OWN, str(V4), str(V6), str(others)} <= net.addresses().keys()
        assert listener.losses == []

    run(main())
    assert "left behind by a run that was killed" in caplog.text


@pytest.mark.system
def test_addresses_of_a_live_process_stay(net: Net) -> None:
    with holder(net, 0, V4):

        async def main() -> None:
            async with opened(net) as interface:
                await interface.hold([V6], BRIEF, Listener())
                await asyncio.sleep(SETTLE + 0.2)

        run(main())
        assert str(V4) in net.addresses()


@pytest.mark.system
@pytest.mark.parametrize(
    ("dropped", "netns"),
    [("net_admin", None), ("net_raw", None), ("sys_admin", "{net}")],
)
def test_missing_capability(net: Net, dropped: str, netns: str | None) -> None:
    netns = None if netns is None else net.name
    code = textwrap.dedent(
        f"""
        import asyncio
        from vrrpkit.errors import PermissionMissing
        from vrrpkit.host.host import Host

        async def main():
            try:
                await Host.current({netns!r}).interface("lo").open()
            except PermissionMissing as missing:
                print(missing.capability)

        asyncio.run(main())
        """
    )
    if not Path("/usr/bin/setpriv").exists():
        pytest.skip("needs setpriv")
    with net.python(code, "setpriv", "--bounding-set", f"-{dropped}") as process:
        output, errors = process.communicate()
    assert output.strip() == f"CAP_{dropped.upper()}", errors
