"""What must not pass because of virtual routers: the rules, how they are shared, and what a killed
run left of them."""

from __future__ import annotations

import asyncio
import contextlib
import re
import shutil
import socket
import subprocess
from collections.abc import Callable, Coroutine, Iterator
from ipaddress import IPv6Address, ip_address
from typing import Any

import pytest

from namespaces import Listener, Net
from vrrpkit import MemoryBus, VRRPInstance
from vrrpkit.commands import command as command_command
from vrrpkit.errors import HostError
from vrrpkit.host.base import FilterRule
from vrrpkit.host.firewall.filters import DISCOVERY, FilteredAddress, PacketFilter, refusal, silence
from vrrpkit.host.firewall.nftables import SWEEPS, Firewall
from vrrpkit.host.host import Host
from vrrpkit.host.links.solicited import EACH, SolicitedNodes, solicited_node
from vrrpkit.linux.netns import Namespace
from vrrpkit.linux.nfnetlink import TableWatch
from vrrpkit.testing import virtual_time
from vrrpkit.values import VIP, Announcements

needs_nft = pytest.mark.skipif(
    shutil.which("nft", path=command_command.PATH) is None, reason="needs nft"
)
BRIEF = Announcements(repeat=1, delay=0)
FORWARD = "ipv4/ip_forward"

KILLED = """
import asyncio, sys
from vrrpkit.host.firewall.nftables import Chain, Firewall
async def main(netns, setting, value):
    firewall = Firewall(netns)
    chain = Chain(name="drops", type="filter", hook="input", priority="filter")
    await firewall.hold("holder", {chain: ["ip daddr 192.0.2.9 drop"]}, {setting: int(value)})
    print(firewall.table, flush=True)
    await asyncio.to_thread(sys.stdin.read)
asyncio.run(main(*sys.argv[1:]))
"""


def places(*texts: str, device: str = "eth0") -> list[FilteredAddress]:
    return [FilteredAddress(ip_address(text), device) for text in texts]


def run(main: Coroutine[Any, Any, None]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(30):
            await main

    asyncio.run(bounded())


def nft(net: Net, *words: str, lines: str = "") -> str:
    command = ["ip", "netns", "exec", net.name, "nft", *words]
    return subprocess.run(command, check=True, capture_output=True, text=True, input=lines).stdout


def tables(net: Net) -> list[str]:
    return re.findall(r"^table inet (\S+)", nft(net, "list", "tables"), re.MULTILINE)


def rules(net: Net) -> list[str]:
    """The rules that drop or accept something, as nft lists them."""
    listed = (line.strip() for line in nft(net, "list", "ruleset").splitlines())
    return [line for line in listed if line.endswith((" drop", " accept"))]


async def soon(condition: Callable[[], object]) -> None:
    for _ in range(300):
        if condition():
            return
        await asyncio.sleep(0.01)
    raise TimeoutError


# --- the rules


def test_addresses_of_a_family_share_a_rule() -> None:
    assert refusal(places("192.0.2.20", "192.0.2.3", "192.0.2.20")) == [
        "ip daddr { 192.0.2.3, 192.0.2.20 } drop"
    ]
    assert refusal([]) == []


def test_neighbour_discovery_comes_first() -> None:
    assert refusal(places("2001:db8::10", "192.0.2.3")) == [
        DISCOVERY,
        "ip daddr { 192.0.2.3 } drop",
        "ip6 daddr { 2001:db8::10 } drop",
    ]


def test_link_local_addresses_are_those_of_an_interface() -> None:
    here, there = places("fe80::1", "fe80::2"), places("fe80::1", "169.254.0.1", device="b.2")
    assert refusal([*here, *there]) == [
        DISCOVERY,
        'iifname "b.2" ip daddr { 169.254.0.1 } drop',
        'iifname "b.2" ip6 daddr { fe80::1 } drop',
        'iifname "eth0" ip6 daddr { fe80::1, fe80::2 } drop',
    ]


def test_silent_interfaces_share_rules() -> None:
    said = silence(["vrrp.51", "vrrp.5", "vrrp.51"])
    assert len(said) == 3
    assert all(rule.startswith('oifname { "vrrp.5", "vrrp.51" } ') for rule in said)
    assert silence([]) == []


@pytest.mark.parametrize("name", ['a"b', "eth*", "eth\\"])
def test_a_name_that_nft_cannot_be_told_is_refused(name: str) -> None:
    with pytest.raises(HostError, match="no words for the interface name"):
        silence([name])
    with pytest.raises(HostError, match="without quotes, asterisks and backslashes"):
        refusal(places("fe80::1", device=name))
    assert refusal(places("192.0.2.1", device=name)), "needs no name"


def test_the_group_that_neighbours_ask_in() -> None:
    assert solicited_node(IPv6Address("2001:db8::12:3456")) == IPv6Address("ff02::1:ff12:3456")


# --- in the kernel


@pytest.mark.system
@needs_nft
def test_bans_last_until_they_are_closed(net: Net) -> None:
    async def main() -> None:
        firewall = Firewall(net.name)
        packet_filter = PacketFilter(firewall)
        one = await packet_filter.refuse(places("192.0.2.1", "fe80::1"))
        both = await packet_filter.refuse(places("192.0.2.1", "192.0.2.2"))
        quiet = await packet_filter.silence("vrrp.51")
        assert rules(net)[:3] == [
            "icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert } accept",
            "ip daddr { 192.0.2.1, 192.0.2.2 } drop",
            'iifname "eth0" ip6 daddr fe80::1 drop',
        ]
        assert len(rules(net)) == 6
        await both.close()
        assert "ip daddr 192.0.2.1 drop" in rules(net), "another still refuses it"
        await one.close()
        await one.close()
        assert len(rules(net)) == 3 and all('"vrrp.51"' in rule for rule in rules(net))
        await quiet.close()
        assert firewall.table is None

    run(main())
    assert tables(net) == []


@pytest.mark.system
@needs_nft
def test_bans_that_come_at_once_all_count(net: Net) -> None:
    async def main() -> None:
        packet_filter = PacketFilter(Firewall(net.name))
        async with asyncio.TaskGroup() as group:
            tasks = [
                group.create_task(packet_filter.refuse(places(f"192.0.2.{n}"))) for n in range(5)
            ]
        assert rules(net)[0].count("192.0.2.") == 5
        async with asyncio.TaskGroup() as group:
            for task in tasks[1:]:
                group.create_task(task.result().close())
        assert rules(net) == ["ip daddr 192.0.2.0 drop"]
        await tasks[0].result().close()

    run(main())
    assert tables(net) == []


@pytest.mark.system
@needs_nft
def test_a_ban_that_cannot_be_imposed_changes_nothing(net: Net) -> None:
    async def main() -> None:
        packet_filter = PacketFilter(Firewall(net.name))
        with pytest.raises(HostError, match="no words"):
            await packet_filter.silence("eth*")
        assert tables(net) == []
        filter_rule = await packet_filter.refuse(places("192.0.2.1"))
        with pytest.raises(HostError, match="no words"):
            await packet_filter.silence("eth*")
        assert rules(net) == ["ip daddr 192.0.2.1 drop"]
        await (await packet_filter.silence("eth0")).close()
        await filter_rule.close()

    run(main())
    assert tables(net) == []


@pytest.mark.system
@needs_nft
def test_a_ban_that_cannot_be_lifted_is_told(
    net: Net, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        firewall = Firewall(net.name)
        packet_filter = PacketFilter(firewall)
        one, two = [await packet_filter.refuse(places(f"192.0.2.{n}")) for n in (1, 2)]
        with monkeypatch.context() as patch:
            patch.setattr("vrrpkit.commands.process.subprocess.Popen", missing)
            await one.close()
        assert "stay behind" in caplog.text and len(rules(net)) == 1
        await two.close()
        assert firewall.table is None

    def missing(*_: object, **__: object) -> None:
        raise FileNotFoundError("nsenter")

    run(main())
    assert tables(net) == []


@pytest.mark.system
@needs_nft
def test_a_macvlan_is_silent_as_long_as_it_is_there(net: Net) -> None:
    async def main() -> None:
        base = Host.current(net.name).interface("eth0")
        await base.open()
        one, again, other = [
            await base.virtual(*which) for which in ((51, 4, None), (51, 4, None), (52, 4, None))
        ]
        assert one is again
        assert len(rules(net)) == 3
        assert all('{ "vrrp.51", "vrrp.52" }' in rule for rule in rules(net))
        await one.open()
        filter_rule = await one.refuse([VIP("192.0.2.10"), VIP("fe80::10")])
        assert 'iifname "vrrp.51" ip6 daddr fe80::10 drop' in rules(net)
        await filter_rule.close()
        await one.close()
        assert "vrrp.51" not in net.links()
        assert all('"vrrp.52"' in rule for rule in rules(net))
        await base.close()
        assert other.name not in net.links()

    run(main())
    assert tables(net) == []


@pytest.mark.system
@needs_nft
def test_one_macvlan_for_those_who_ask_at_once(net: Net) -> None:
    async def main() -> None:
        base = Host.current(net.name).interface("eth0")
        await base.open()
        one, two = await asyncio.gather(base.virtual(51, 4, None), base.virtual(51, 4, None))
        assert one is two
        await one.open()
        await one.close()
        await base.close()

    run(main())
    assert "vrrp.51" not in net.links() and tables(net) == []


@pytest.mark.system
@needs_nft
def test_a_macvlan_that_is_refused_leaves_no_rule(net: Net) -> None:
    net.ip("link add link eth0 name vrrp.51 type macvlan")

    async def main() -> None:
        base = Host.current(net.name).interface("eth0")
        await base.open()
        with pytest.raises(HostError, match="exists already"):
            await base.virtual(51, 4, None)
        assert tables(net) == []
        await base.close()

    run(main())


# --- groups of the base interface


def groups(net: Net, dev: str = "eth0") -> set[str]:
    return set(re.findall(r"inet6 (\S+)", net.ip(f"maddress show dev {dev}")))


@pytest.mark.system
@needs_nft
def test_the_base_is_where_neighbours_ask_for_addresses_on_a_macvlan(net: Net) -> None:
    wanted = {"ff02::1:ff00:10", "ff02::1:ff00:11"}

    async def main() -> None:
        base = Host.current(net.name).interface("eth0")
        await base.open()
        above = await base.virtual(51, 6, None)
        await above.open()
        before = groups(net)
        holds = [
            await above.hold([VIP(text) for text in texts], BRIEF, Listener())
            for texts in (["2001:db8::10", "fe80::10"], ["2001:db8::11", "192.0.2.11"])
        ]
        assert groups(net) - before == wanted
        # A base that returns has forgotten all.
        net.ip("link delete eth0")
        await soon(lambda: base.link is None)
        net.cable()
        await soon(lambda: "vrrp6.51" in net.links() and wanted <= groups(net))
        for hold in holds:
            await hold.close()
        await above.close()
        assert not wanted & groups(net)
        await base.close()

    run(main())


@pytest.mark.system
def test_more_groups_than_a_socket_should_have(net: Net) -> None:
    namespace = Namespace(net.name)
    nodes = SolicitedNodes(namespace.socket)
    index = net.links()["eth0"]["ifindex"]
    before = groups(net)
    many = [ip_address(f"2001:db8::{n:x}") for n in range(0x100, 0x100 + 3 * EACH + 1)]
    nodes.want(many)
    assert groups(net) == before
    nodes.move(index)
    assert len(groups(net) - before) == len(many)
    nodes.want([*many[:2], ip_address("192.0.2.1")])
    assert groups(net) - before == {"ff02::1:ff00:100", "ff02::1:ff00:101"}
    nodes.close()
    nodes.close()
    assert groups(net) == before
    namespace.close()


@pytest.mark.system
def test_groups_that_cannot_be_joined_are_told(net: Net, caplog: pytest.LogCaptureFixture) -> None:
    namespace = Namespace(net.name)
    nodes = SolicitedNodes(namespace.socket)
    nodes.want([ip_address("2001:db8::1")])
    nodes.move(4711)
    assert "cannot join the groups that neighbours ask" in caplog.text
    nodes.close()
    namespace.close()


# --- what others did


@contextlib.contextmanager
def other_process(net: Net) -> Iterator[subprocess.Popen[str]]:
    words = net.name, FORWARD, "1"
    child = net.python(f"import sys\nsys.argv[1:] = {words!r}\n{KILLED}")
    assert child.stdin and child.stdout and child.stderr
    with child.stdin, child.stdout, child.stderr:
        try:
            assert child.stdout.readline().startswith("vrrpkit-firewall-")
            yield child
        finally:
            child.kill()
            child.wait()


async def held(net: Net) -> None:
    """Use the host as a router does that accepts everything."""
    base = Host.current(net.name).interface("eth0")
    await base.open()
    hold = await base.hold([VIP("192.0.2.10")], BRIEF, Listener())
    await hold.close()
    await base.close()


@pytest.mark.system
@needs_nft
def test_what_a_killed_run_left_is_removed_by_one_without_rules(
    net: Net, caplog: pytest.LogCaptureFixture
) -> None:
    nft(net, "add", "table", "inet", "vrrpkit-firewall")
    with other_process(net):
        pass
    assert len(tables(net)) == 2 and net.get(FORWARD) == 1
    run(held(net))
    assert tables(net) == ["vrrpkit-firewall"] and net.get(FORWARD) == 0
    assert "left behind by runs that were killed: vrrpkit-firewall-" in caplog.text


@pytest.mark.system
@needs_nft
def test_what_a_living_process_has_stays(net: Net, caplog: pytest.LogCaptureFixture) -> None:
    with other_process(net):
        with other_process(net):
            pass
        assert len(tables(net)) == 2
        run(held(net))
        assert len(tables(net)) == 1 and net.get(FORWARD) == 1
        caplog.clear()
        run(held(net))
        assert caplog.text == ""


@pytest.mark.system
@needs_nft
def test_leftovers_that_cannot_be_removed_stop_nobody(
    net: Net, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with other_process(net):
        pass
    with monkeypatch.context() as patch:
        patch.setattr("vrrpkit.host.firewall.nftables._removal", lambda table: "rubbish\n")
        run(held(net))
    assert "left behind stay: " in caplog.text
    with monkeypatch.context() as patch:
        patch.setattr("vrrpkit.commands.command.shutil.which", lambda *_, **__: None)
        run(held(net))
    assert len(tables(net)) == 1
    run(held(net))
    assert tables(net) == []


@pytest.mark.system
@needs_nft
def test_leftovers_are_looked_for_once(net: Net, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[Firewall] = []
    real = Firewall._open

    def counted(self: Firewall) -> Any:
        opened.append(self)
        return real(self)

    monkeypatch.setattr(Firewall, "_open", counted)

    async def main() -> None:
        packet_filter = PacketFilter(Firewall(net.name))
        for _ in range(3):
            await packet_filter.sweep()
        assert len(opened) == 1
        other = PacketFilter(Firewall(net.name))
        filter_rule = await other.refuse(places("192.0.2.1"))
        await other.sweep()
        assert len(opened) == 2
        await filter_rule.close()

    run(main())


@pytest.mark.system
@needs_nft
def test_a_table_that_somebody_deletes_comes_back(
    net: Net, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vrrpkit.host.firewall.nftables.PAUSE", 0.1)

    async def main() -> None:
        firewall = Firewall(net.name)
        filter_rule = await PacketFilter(firewall).refuse(places("192.0.2.1"))
        before = nft(net, "list", "ruleset")
        for command in (["flush", "ruleset"], ["delete", "table", "inet", str(firewall.table)]):
            nft(net, *command)
            await soon(lambda: nft(net, "list", "ruleset") == before)
        # Even soon after it was put back.
        nft(net, "flush", "ruleset")
        await soon(lambda: nft(net, "list", "ruleset") == before)
        nft(net, "flush", "ruleset")
        await soon(lambda: nft(net, "list", "ruleset") == before)
        nft(net, "flush", "ruleset")
        await filter_rule.close()
        await asyncio.sleep(0)
        assert asyncio.all_tasks() == {asyncio.current_task()}

    run(main())
    assert tables(net) == []


@pytest.mark.system
@needs_nft
def test_a_table_that_cannot_be_put_back_is_told(
    net: Net, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main() -> None:
        filter_rule = await PacketFilter(Firewall(net.name)).refuse(places("192.0.2.1"))
        with monkeypatch.context() as patch:
            patch.setattr("vrrpkit.host.firewall.nftables.Chain.render", lambda *_: "rubbish\n")
            nft(net, "flush", "ruleset")
            await soon(lambda: "are not put back" in caplog.text)
        await filter_rule.close()

    run(main())


@pytest.mark.system
@needs_nft
def test_a_table_that_could_not_be_put_back_is_put_back_later(
    net: Net, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vrrpkit.host.firewall.nftables.PAUSE", 0.05)
    caplog.set_level("DEBUG", "vrrpkit.host.firewall.nftables")

    async def main() -> None:
        filter_rule = await PacketFilter(Firewall(net.name)).refuse(places("192.0.2.1"))
        before = nft(net, "list", "ruleset")
        with monkeypatch.context() as patch:
            patch.setattr("vrrpkit.host.firewall.nftables.Chain.render", lambda *_: "rubbish\n")
            nft(net, "flush", "ruleset")
            await soon(lambda: caplog.text.count("are not put back") >= 2)
        await soon(lambda: nft(net, "list", "ruleset") == before)
        await filter_rule.close()

    run(main())
    levels = [each.levelname for each in caplog.records if "are not put back" in each.message]
    assert levels[0] == "WARNING" and set(levels[1:]) == {"DEBUG"}


@pytest.mark.system
@needs_nft
@pytest.mark.parametrize("fails", ["removing", "looking"])
def test_leftovers_that_could_not_be_removed_are_removed_later(
    net: Net, monkeypatch: pytest.MonkeyPatch, fails: str
) -> None:
    monkeypatch.setattr("vrrpkit.host.firewall.nftables.SWEEP_AGAIN", 0.05)
    with other_process(net):
        pass

    async def main() -> None:
        firewall = Firewall(net.name)
        with monkeypatch.context() as patch:
            if fails == "removing":
                patch.setattr("vrrpkit.host.firewall.nftables._removal", lambda _table: "rubbish\n")
            else:
                patch.setattr("vrrpkit.host.firewall.nftables.Namespace", no_descriptor)
            await firewall.sweep()
            assert len(tables(net)) == 1
        await soon(lambda: tables(net) == [] and net.get(FORWARD) == 0)
        await firewall.sweep()

    def no_descriptor(_name: str | None) -> Namespace:
        raise OSError(24, "Too many open files")

    run(main())


@pytest.mark.system
@needs_nft
@pytest.mark.parametrize("virtual_mac", [False, True])
def test_a_router_whose_entering_is_cancelled_leaves_no_rule(net: Net, virtual_mac: bool) -> None:
    async def life() -> None:
        router = VRRPInstance(
            "web",
            "eth0",
            netns=net.name,
            vrid=51,
            vips=["192.0.2.100/32"],
            interval=0.02,
            accept=False,
            virtual_mac=virtual_mac,
        )
        async with router:
            await asyncio.sleep(5)

    async def main() -> None:
        met = 0
        for attempt in range(30):
            task = asyncio.create_task(life())
            await asyncio.sleep(attempt * 0.0015)
            met += tables(net) != []
            task.cancel()
            await asyncio.wait({task})
            assert tables(net) == [] and "vrrp.51" not in net.links()
        assert met, "none of the attempts came as far as the rules"

    run(main())


@pytest.mark.system
@needs_nft
def test_attempts_to_remove_leftovers_end(net: Net, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vrrpkit.host.firewall.nftables.SWEEP_AGAIN", 0.001)
    attempts: list[None] = []

    def none(*_: object) -> Namespace:
        attempts.append(None)
        raise OSError(24, "Too many open files")

    async def main() -> None:
        firewall = Firewall(net.name)
        monkeypatch.setattr("vrrpkit.host.firewall.nftables.Namespace", none)
        await firewall.sweep()
        await soon(lambda: len(attempts) == SWEEPS)
        await asyncio.sleep(0.4)
        assert len(attempts) == SWEEPS

    run(main())


@pytest.mark.system
@needs_nft
def test_a_watch_hears_of_its_own_table_only(net: Net) -> None:
    async def main() -> None:
        heard: list[None] = []
        namespace = Namespace(net.name)
        watch = TableWatch(namespace, "mine", lambda: heard.append(None))
        replaced = "add table inet mine\ndelete table inet mine\ntable inet mine {\n}\n"
        for transaction in (replaced, replaced):
            nft(net, "-f", "-", lines=transaction)
            await asyncio.sleep(0.05)
        for family, name in (("inet", "min"), ("inet", "mine2"), ("ip", "mine")):
            nft(net, "add", "table", family, name)
            nft(net, "delete", "table", family, name)
        await asyncio.sleep(0.05)
        assert heard == []
        nft(net, "delete", "table", "inet", "mine")
        await soon(lambda: len(heard) == 1)
        watch.close()
        watch.close()
        namespace.close()

    run(main())


@pytest.mark.system
@needs_nft
def test_a_watch_that_missed_something_asks(net: Net) -> None:
    async def main() -> None:
        heard: list[None] = []
        namespace = Namespace(net.name)
        watch = TableWatch(namespace, "mine", lambda: heard.append(None))
        watch._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
        lines = "".join(f"table inet t{n} {{\n}}\n" for n in range(200))
        nft(net, "-f", "-", lines=lines)
        await soon(lambda: heard)
        watch.close()
        namespace.close()

    run(main())


# --- in memory


@virtual_time()
async def test_interfaces_in_memory_know_what_is_refused() -> None:
    bus = MemoryBus()
    interface = bus.interface("192.0.2.1")
    addresses = {ip_address("192.0.2.10"), ip_address("2001:db8::10")}

    def router(vrid: int, **options: Any) -> VRRPInstance:
        vips = options.pop("vips", ["192.0.2.10/32"])
        return VRRPInstance("vip", interface, vrid=vrid, vips=vips, **options)

    async with router(1, accept=False, excluded_vips=["2001:db8::10"], virtual_mac=True):
        assert interface.refused == addresses, "as a BACKUP already"
        async with router(2, profile="strict", vips=["192.0.2.20"]):
            assert interface.refused == {*addresses, ip_address("192.0.2.20")}
        assert interface.refused == addresses
    assert interface.refused == set()
    for options in ({}, {"profile": "strict", "accept": True}, {"priority": 255}):
        async with router(3, **options):
            assert interface.refused == set()


@virtual_time()
async def test_a_ban_in_memory_ends_once() -> None:
    interface = MemoryBus().interface("192.0.2.1")
    first: FilterRule = await interface.refuse([VIP("192.0.2.10")])
    second = await interface.refuse([VIP("192.0.2.10")])
    await first.close()
    await first.close()
    assert interface.refused == {ip_address("192.0.2.10")}
    await second.close()
    assert interface.refused == set()
