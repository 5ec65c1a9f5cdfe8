"""The table in the kernel, beside what ipvsadm says of it."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import json
import re
import shlex
import socket
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from ipaddress import ip_address
from pathlib import Path

import attrs
import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

from ipvs import table_contract as contract
from ipvs.table_contract import MARK, WEB, WEB6, destination, done, key
from kernel.table_strategies import entries
from namespaces import Net
from vrrpkit.errors import KernelRefused, ModuleMissing
from vrrpkit.ipvs.base import SyncDaemon, SyncRole, Table
from vrrpkit.ipvs.kernel.table import KernelTable
from vrrpkit.ipvs.model.entries import (
    AddDestination,
    AddService,
    DeleteDestination,
    Destination,
    DestinationKey,
    EditDestination,
    Forward,
    Service,
    ServiceKey,
    Tunnel,
    TunnelType,
)
from vrrpkit.linux.netns import Namespace

pytestmark = pytest.mark.kernel

OPTIONAL = ("ip_vs_fo", "ip_vs_pe_sip")
MODPROBE = Path("/proc/sys/kernel/modprobe")
LOAD = Path(__file__).parents[1] / "bench" / "ipvs_load.py"


@pytest.fixture(scope="module")
def net() -> Iterator[Net]:
    with Net() as net:
        yield net


def run(net: Net, test: Callable[[KernelTable], Awaitable[None]]) -> None:
    """Run a test on the namespace's table, which is empty before and after."""

    async def main() -> None:
        table = KernelTable(net.name)
        await table.open()
        try:
            await test(table)
        finally:
            await table.flush()
            await table.close()

    asyncio.run(main())


def ipvsadm(net: Net, arguments: str, stdin: str | None = None) -> str:
    done = subprocess.run(
        ["ip", "netns", "exec", net.name, "ipvsadm", *shlex.split(arguments)],
        input=stdin,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return done.stdout


@pytest.mark.parametrize("rule", contract.CONTRACT, ids=lambda rule: rule.__name__)
def test_contract(net: Net, rule: Callable[[Table], Awaitable[None]]) -> None:
    run(net, rule)


def test_refusals(net: Net) -> None:
    async def test(table: KernelTable) -> None:
        await contract.fill(table)
        before = await table.read()
        for what, operation, number in contract.REFUSALS:
            assert await contract.numbers(table, operation) == [number], (what, operation)
            assert await table.read() == before, what

    run(net, test)


def test_as_ipvsadm_saves_it(net: Net) -> None:
    async def test(table: KernelTable) -> None:
        gue = Tunnel(type=TunnelType.GUE, port=6080, remote_checksum=True)
        udp6 = key("2001:db8::10", 5060, contract.Protocol.UDP)
        mark6 = ServiceKey(6, fwmark=9)
        sh, mh = frozenset({"sh-port"}), frozenset({"mh-fallback", "mh-port"})
        await done(
            table,
            AddService(Service(key=WEB, scheduler="sh", flags=sh, persistence=9, granularity=24)),
            AddDestination(WEB, destination("10.0.0.1", 8080, weight=5, upper=9, lower=3)),
            AddDestination(WEB, destination("10.0.0.2", forward=Forward.TUN, tunnel=gue)),
            AddDestination(WEB, destination("fd00::2", weight=0, forward=Forward.TUN)),
            AddService(
                Service(key=udp6, scheduler="wrr", persistence=60, granularity=64, engine="sip")
            ),
            AddDestination(udp6, destination("fd00::1", 5060, forward=Forward.DR)),
            AddService(Service(key=MARK, scheduler="mh", flags=mh)),
            AddService(Service(key=mark6, scheduler="rr", one_packet=True)),
        )
        assert set(ipvsadm(net, "-Sn").splitlines()) == {
            "-A -t 192.0.2.10:80 -s sh -p 9 -M 255.255.255.0 -b sh-port",
            "-a -t 192.0.2.10:80 -r 10.0.0.1:8080 -m -w 5",
            "-a -t 192.0.2.10:80 -r 10.0.0.2:80 -i -w 1 --tun-type gue --tun-port 6080"
            " --tun-remcsum",
            "-a -t 192.0.2.10:80 -r [fd00::2]:80 -i -w 0 --tun-type ipip",
            "-A -u [2001:db8::10]:5060 -s wrr -p 60 -M 64 --pe sip",
            "-a -u [2001:db8::10]:5060 -r [fd00::1]:5060 -g -w 1",
            "-A -f 7 -s mh -b mh-fallback,mh-port",
            "-A -f 9 -6 -s rr -o",
        }
        thresholds = ipvsadm(net, "-Ln --thresholds")
        assert re.search(r"10\.0\.0\.1:8080 +9 +3 ", thresholds), thresholds

    run(net, test)


@settings(
    max_examples=25,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(wanted=st.lists(entries(), max_size=5, unique_by=lambda entry: entry[0].key))
def test_any_table_reads_back(net: Net, wanted: list[tuple[Service, list[Destination]]]) -> None:
    """From the kernel, and from it again after ipvsadm saved and restored it."""

    async def test(table: KernelTable) -> None:
        for service, destinations in wanted:
            await done(table, AddService(service))
            await done(table, *(AddDestination(service.key, d) for d in destinations))
        expected = {
            service.key: (service, {d.key: d for d in destinations})
            for service, destinations in wanted
        }
        assert await plain(table) == expected
        saved = ipvsadm(net, "-Sn")
        await table.flush()
        ipvsadm(net, "-R", stdin=saved)
        # It saves no thresholds.
        saved_too = {
            key: (service, {k: attrs.evolve(d, upper=0, lower=0) for k, d in found.items()})
            for key, (service, found) in expected.items()
        }
        assert await plain(table) == saved_too

    run(net, test)


async def plain(
    table: KernelTable,
) -> dict[ServiceKey, tuple[Service, dict[DestinationKey, Destination]]]:
    """The table without what counts connections."""
    return {
        key: (entry.service, {k: found.destination for k, found in entry.destinations.items()})
        for key, entry in (await table.read()).items()
    }


def test_connections_and_counters(net: Net) -> None:
    net.ip("address replace 192.0.2.10/32 dev lo")
    namespace = Namespace(net.name)
    listener = namespace.socket(socket.AF_INET, socket.SOCK_STREAM, 0)
    listener.bind(("198.51.100.1", 8080))
    listener.listen()

    async def test(table: KernelTable) -> None:
        real = destination("198.51.100.1", 8080)
        await done(table, AddService(Service(key=WEB, persistence=300)), AddDestination(WEB, real))
        opened = []
        for _ in range(5):
            client = namespace.socket(socket.AF_INET, socket.SOCK_STREAM, 0)
            client.connect(("192.0.2.10", 80))
            served, _address = listener.accept()
            client.sendall(b"question")
            served.sendall(b"answer" * 1000)
            assert (served.recv(100), client.recv(6)) == (b"question", b"answer")
            opened += [client, served]
        for sock in opened[:2]:
            sock.close()
        # The kernel adds up what its processors have counted every two seconds.
        deadline = time.monotonic() + 30
        while True:
            entry = await table.read_service(WEB)
            assert entry is not None
            found = entry.destinations[real.key]
            if entry.counters.connections == 5 and found.inactive == 1:
                break
            assert time.monotonic() < deadline, entry
            await asyncio.sleep(0.1)
        for sock in opened[2:]:
            sock.close()
        assert (found.active, found.inactive, found.persistent) == (4, 1, 1)
        assert found.counters.connections == 5
        # What only ever grows, read before, between and after.
        for place in (WEB, real.key):
            line = re.compile(rf"\s{re.escape(str(place).removesuffix('/tcp'))}\s+([\d ]+)$", re.M)
            printed = line.search(ipvsadm(net, "-Ln --stats --exact"))
            assert printed is not None
            after = await table.read_service(WEB)
            assert after is not None
            low, high = (
                e.counters if place is WEB else e.destinations[real.key].counters
                for e in (entry, after)
            )
            names = ("connections", "packets_in", "packets_out", "bytes_in", "bytes_out")
            for name, number in zip(names, map(int, printed[1].split()), strict=True):
                assert 0 < getattr(low, name) <= number <= getattr(high, name), (place, name)
            # The answers are longer than the questions.
            assert low.bytes_out > low.bytes_in

    try:
        run(net, test)
    finally:
        listener.close()
        namespace.close()


def test_timeouts(net: Net) -> None:
    async def test(table: KernelTable) -> None:
        before = await table.timeouts()
        await table.set_timeouts(tcp=801, tcp_fin=11, udp=5)
        assert ipvsadm(net, "-Ln --timeout").endswith(": 801 11 5\n")
        ipvsadm(net, "--set 802 12 6")
        now = await table.timeouts()
        assert (now.tcp, now.tcp_fin, now.udp) == (802, 12, 6)
        await table.set_timeouts(tcp=before.tcp, tcp_fin=before.tcp_fin, udp=before.udp)

    run(net, test)


def test_sync_daemons(net: Net) -> None:
    async def test(table: KernelTable) -> None:
        await table.start_sync_daemon(SyncDaemon(role=SyncRole.MASTER, interface="eth0", id=7))
        group = ip_address("ff05::51")
        backup = SyncDaemon(
            role=SyncRole.BACKUP,
            interface="eth0",
            id=8,
            maxlen=1300,
            group=group,
            port=9000,
            ttl=4,
        )
        await table.start_sync_daemon(backup)
        assert ipvsadm(net, "-Ln --daemon").splitlines() == [
            "master sync daemon (mcast=eth0, syncid=7, maxlen=1472, group=224.0.0.81, port=8848, "
            "ttl=1)",
            "backup sync daemon (mcast=eth0, syncid=8, maxlen=1300, group=ff05::51, port=9000, "
            "ttl=4)",
        ]
        as_it_runs = SyncDaemon(
            role=SyncRole.MASTER,
            interface="eth0",
            id=7,
            maxlen=1472,
            group=ip_address("224.0.0.81"),
            port=8848,
            ttl=1,
        )
        assert await table.sync_daemons() == (as_it_runs, backup)
        # The daemons cannot speak of two families at once.
        await done(table, AddService(Service(key=WEB)))
        mixed = AddDestination(WEB, destination("fd00::1", forward=Forward.TUN))
        assert await contract.numbers(table, mixed) == [errno.EINVAL]
        await table.stop_sync_daemon(SyncRole.MASTER)
        await table.stop_sync_daemon(SyncRole.BACKUP)
        await done(table, mixed)
        with pytest.raises(KernelRefused, match="cannot start the master sync daemon on eth0"):
            await table.start_sync_daemon(as_it_runs)
        assert ipvsadm(net, "-Ln --daemon") == ""

    run(net, test)


def test_a_sync_daemon_needs_its_interface(net: Net) -> None:
    async def test(table: KernelTable) -> None:
        with pytest.raises(KernelRefused, match="on eth9: No such device") as refused:
            await table.start_sync_daemon(SyncDaemon(role=SyncRole.BACKUP, interface="eth9"))
        assert refused.value.errno == errno.ENODEV

    run(net, test)


def test_the_kernel_loads_what_is_required(net: Net) -> None:
    async def test(table: KernelTable) -> None:
        unload()
        table.require(["fo"], ["sip"])
        assert loaded() == {"ip_vs_fo", "ip_vs_pe_sip"}
        unload()
        with no_loader():
            with pytest.raises(ModuleMissing, match="modprobe ip_vs_fo"):
                table.require(["rr", "fo"])
            with pytest.raises(ModuleMissing, match="modprobe ip_vs_pe_sip"):
                table.require(["rr"], ["sip"])
        assert loaded() == set()
        await done(table, AddService(Service(key=WEB, scheduler="fo")))
        assert loaded() == {"ip_vs_fo"}

    run(net, test)


def unload() -> None:
    subprocess.run(["modprobe", "-r", *OPTIONAL], check=True)


def loaded() -> set[str]:
    return {name for name in OPTIONAL if Path("/sys/module", name).exists()}


@contextlib.contextmanager
def no_loader() -> Iterator[None]:
    """A machine where the kernel may load no modules."""
    helper = MODPROBE.read_text()
    MODPROBE.write_text("/bin/false\n")
    try:
        yield
    finally:
        MODPROBE.write_text(helper)


def test_a_read_during_changes_misses_nothing_that_stays(net: Net) -> None:
    """What is removed while the kernel lists the rest must not hide it."""
    servers = [destination(f"10.0.{i // 200}.{i % 200 + 1}") for i in range(1000)]

    async def test(table: KernelTable) -> None:
        await done(table, AddService(Service(key=WEB)), *(AddDestination(WEB, d) for d in servers))
        reading = asyncio.create_task(table.read(), name="read")
        await asyncio.sleep(0)
        await done(table, *(DeleteDestination(WEB, d.key) for d in servers[::2]))
        found = set((await reading)[WEB].destinations)
        assert found >= {d.key for d in servers[1::2]}

    run(net, test)


@pytest.mark.parametrize("scheduler", ["wlc", "mh"])
def test_others_run_meanwhile(net: Net, scheduler: str) -> None:
    """Neither a load nor a read holds up the event loop."""
    servers = [destination(f"10.0.{i // 200}.{i % 200 + 1}") for i in range(1000)]

    async def turns(work: Awaitable[object]) -> int:
        task = asyncio.ensure_future(work)
        count = 0
        while not task.done():
            await asyncio.sleep(0)
            count += 1
        await task
        return count

    async def test(table: KernelTable) -> None:
        await done(table, AddService(Service(key=WEB, scheduler=scheduler)))
        assert await turns(table.apply([AddDestination(WEB, d) for d in servers])) >= 16
        assert await turns(table.read()) >= 8

    run(net, test)


def test_two_reads_at_once(net: Net) -> None:
    async def test(table: KernelTable) -> None:
        await contract.fill(table)
        first, second = await asyncio.gather(table.read(), table.read())
        assert first == second and set(first) == {WEB, WEB6}

    run(net, test)


def test_a_read_can_be_cancelled(net: Net) -> None:
    async def test(table: KernelTable) -> None:
        await contract.fill(table)
        for turns in range(4):
            reading = asyncio.create_task(table.read(), name="read")
            for _ in range(turns):
                await asyncio.sleep(0)
            reading.cancel()
            await asyncio.wait([reading])
        assert set(await table.read()) == {WEB, WEB6}
        await done(table, EditDestination(WEB, destination("10.0.0.1", weight=3)))

    run(net, test)


def test_each_namespace_has_a_table(net: Net) -> None:
    async def test(table: KernelTable) -> None:
        await contract.fill(table)
        here = KernelTable()
        await here.open()
        assert await here.read() == {}
        await here.close()

    run(net, test)


OPENS = """
import asyncio
from vrrpkit.ipvs.kernel.table import KernelTable
asyncio.run(KernelTable().open())
"""


@pytest.mark.parametrize(
    "how",
    [
        "setpriv --reuid 65534 --clear-groups",
        "setpriv --bounding-set -net_admin --inh-caps -net_admin",
        "unshare --user --map-root-user --net",
    ],
)
def test_no_privilege(how: str) -> None:
    """Also of root without the capability, and of a root whose namespace has it in vain."""
    argv = [*how.split(), sys.executable, "-c", OPENS]
    tried = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
    assert "PermissionMissing: CAP_NET_ADMIN is missing" in tried.stderr, tried.stderr


def test_a_load_is_no_slower_than_ipvsadm() -> None:
    argv = [sys.executable, str(LOAD), "1000"]
    figures = json.loads(
        subprocess.run(argv, stdout=subprocess.PIPE, timeout=120, check=True).stdout
    )
    assert figures["servers"] == 1000
    assert figures["vrrpkit"] <= 1.2 * figures["ipvsadm"], figures
