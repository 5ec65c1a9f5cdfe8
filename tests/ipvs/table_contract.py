"""What every IPVS table does alike, the kernel's and the one in memory.

Each function of :data:`CONTRACT` takes an open table that is empty; :data:`REFUSALS` are what no
table does, and the kernel's number for it.
"""

from __future__ import annotations

import errno
from collections.abc import Awaitable, Callable, Sequence
from ipaddress import ip_address

import attrs
import pytest

from vrrpkit.errors import ConfigError, KernelRefused, ModuleMissing
from vrrpkit.ipvs.base import SyncDaemon, SyncRole, Table
from vrrpkit.ipvs.model.entries import (
    AddDestination,
    AddService,
    DeleteDestination,
    DeleteService,
    Destination,
    DestinationKey,
    EditDestination,
    EditService,
    Forward,
    Operation,
    Protocol,
    Service,
    ServiceKey,
    Tunnel,
    TunnelType,
)

SCHEDULERS = (
    *("rr", "wrr", "lc", "wlc", "lblc", "lblcr", "sh", "mh", "dh", "fo", "ovf", "sed", "nq"),
)


def key(
    address: str = "192.0.2.10", port: int = 80, protocol: Protocol = Protocol.TCP
) -> ServiceKey:
    """A service by its address."""
    ip = ip_address(address)
    return ServiceKey(ip.version, protocol, ip, port)


def server(address: str, port: int = 80) -> DestinationKey:
    """A real server."""
    return DestinationKey(ip_address(address), port)


def destination(
    address: str,
    port: int = 80,
    *,
    weight: int = 1,
    forward: Forward = Forward.NAT,
    tunnel: Tunnel | None = None,
    upper: int = 0,
    lower: int = 0,
) -> Destination:
    """A real server as an entry."""
    return Destination(
        key=server(address, port),
        weight=weight,
        forward=forward,
        tunnel=tunnel,
        upper=upper,
        lower=lower,
    )


WEB = key()
WEB6 = key("2001:db8::10")
MARK = ServiceKey(4, fwmark=7)
NOWHERE = key("192.0.2.99")
HERE = destination("10.0.0.1")
GONE = destination("10.0.0.99")


async def fill(table: Table) -> None:
    """The table that :data:`REFUSALS` are tried on."""
    await done(
        table,
        AddService(Service(key=WEB)),
        AddService(Service(key=WEB6)),
        AddDestination(WEB, HERE),
        AddDestination(WEB6, destination("fd00::1")),
    )


async def done(table: Table, *operations: Operation) -> None:
    """Apply what must succeed."""
    assert await table.apply(operations) == [None] * len(operations)


async def numbers(table: Table, *operations: Operation) -> list[int | None]:
    """Apply, and the error number of each operation."""
    return [answer and answer.errno for answer in await table.apply(operations)]


def bad(
    destination: Destination, service: ServiceKey = WEB
) -> tuple[AddDestination, EditDestination]:
    """Both ways to ask for a real server."""
    return AddDestination(service, destination), EditDestination(service, destination)


GUE_TO_NOWHERE = Tunnel(type=TunnelType.GUE)

REFUSALS: list[tuple[str, Operation, int]] = [
    ("service that is there", AddService(Service(key=WEB, scheduler="rr")), errno.EEXIST),
    ("change of no service", EditService(Service(key=NOWHERE)), errno.ESRCH),
    ("change of no mark", EditService(Service(key=MARK)), errno.ESRCH),
    ("removal of no service", DeleteService(NOWHERE), errno.ESRCH),
    ("removal of the other protocol", DeleteService(key(protocol=Protocol.UDP)), errno.ESRCH),
    ("scheduler", AddService(Service(key=NOWHERE, scheduler="fastest")), errno.ENOENT),
    ("scheduler, changed", EditService(Service(key=WEB, scheduler="fastest")), errno.ENOENT),
    ("engine", AddService(Service(key=NOWHERE, engine="http", persistence=1)), errno.ENOENT),
    ("engine, changed", EditService(Service(key=WEB, engine="http", persistence=1)), errno.ENOENT),
    ("no prefix", AddService(Service(key=key("2001:db8::99"), granularity=0)), errno.EINVAL),
    ("no prefix, changed", EditService(Service(key=WEB6, granularity=0)), errno.EINVAL),
    ("server of no service", AddDestination(NOWHERE, HERE), errno.ESRCH),
    ("server that is there", AddDestination(WEB, HERE), errno.EEXIST),
    ("change of no server", EditDestination(WEB, GONE), errno.ENOENT),
    ("change of a server of no service", EditDestination(NOWHERE, HERE), errno.ESRCH),
    ("removal of no server", DeleteDestination(WEB, GONE.key), errno.ENOENT),
    ("removal of another port", DeleteDestination(WEB, server("10.0.0.1", 81)), errno.ENOENT),
    ("removal from no service", DeleteDestination(NOWHERE, HERE.key), errno.ESRCH),
    ("multicast", AddDestination(WEB, destination("224.0.0.5")), errno.EINVAL),
    ("broadcast", AddDestination(WEB, destination("255.255.255.255")), errno.EINVAL),
    ("unspecified", AddDestination(WEB, destination("0.0.0.0")), errno.EINVAL),
    ("multicast 6", AddDestination(WEB6, destination("ff02::5")), errno.EINVAL),
    ("link-local 6", AddDestination(WEB6, destination("fe80::5")), errno.EINVAL),
    ("mapped 6", AddDestination(WEB6, destination("::ffff:10.0.0.5")), errno.EINVAL),
    ("unspecified 6", AddDestination(WEB6, destination("::")), errno.EINVAL),
    ("NAT to 6", AddDestination(WEB, destination("fd00::1")), errno.EINVAL),
    (
        "DR to 4",
        AddDestination(WEB6, destination("10.0.0.1", forward=Forward.DR)),
        errno.EINVAL,
    ),
    *(("weight", which, errno.ERANGE) for which in bad(destination("10.0.0.1", weight=-1))),
    *(
        ("thresholds", which, errno.ERANGE)
        for which in bad(destination("10.0.0.1", upper=4, lower=5))
    ),
    *(
        ("GUE without a port", which, errno.EINVAL)
        for which in bad(destination("10.0.0.1", forward=Forward.TUN, tunnel=GUE_TO_NOWHERE))
    ),
]


async def services_read_back(table: Table) -> None:
    """Every kind of service, as it was written."""
    written = [
        Service(key=key()),
        Service(key=key(protocol=Protocol.UDP), scheduler="rr", one_packet=True),
        Service(key=key(protocol=Protocol.SCTP, port=1), scheduler="sed"),
        Service(key=key("2001:db8::10", 65535), scheduler="nq", persistence=60, granularity=64),
        Service(key=key(port=0), persistence=300, granularity=24),
        Service(key=key(port=81), persistence=300, granularity=0),
        Service(key=MARK, scheduler="sh", flags=frozenset({"sh-port", "sh-fallback"})),
        Service(key=ServiceKey(6, fwmark=7), scheduler="mh", flags=frozenset({"flag-2"})),
        Service(key=ServiceKey(6, fwmark=0xFFFFFFFF), scheduler="lc", flags=frozenset({"flag-3"})),
        Service(key=key(port=5060, protocol=Protocol.UDP), persistence=60, engine="sip"),
    ]
    await done(table, *map(AddService, written))
    snapshot = await table.read()
    assert {k: entry.service for k, entry in snapshot.items()} == {s.key: s for s in written}
    assert not any(entry.destinations for entry in snapshot.values())


async def destinations_read_back(table: Table) -> None:
    """Every kind of real server, as it was written; no connection yet."""
    gue = Tunnel(type=TunnelType.GUE, port=6080, remote_checksum=True)
    gre = Tunnel(type=TunnelType.GRE, checksum=True)
    written = [
        destination("10.0.0.1"),
        destination("10.0.0.1", 65535, weight=0),
        destination("10.0.0.2", weight=65535, upper=4_000_000_000, lower=3_000_000_000),
        destination("10.0.0.3", forward=Forward.DR),
        destination("10.0.0.4", forward=Forward.TUN),
        destination("10.0.0.5", forward=Forward.TUN, tunnel=gue),
        destination("10.0.0.6", forward=Forward.TUN, tunnel=gre),
        destination("fd00::7", forward=Forward.TUN),
    ]
    await done(table, AddService(Service(key=WEB)), *(AddDestination(WEB, d) for d in written))
    entry = await table.read_service(WEB)
    assert entry is not None
    assert entry == (await table.read())[WEB]
    assert {k: e.destination for k, e in entry.destinations.items()} == {d.key: d for d in written}
    for found in entry.destinations.values():
        assert (found.active, found.inactive, found.persistent) == (0, 0, 0)
        assert found.counters.connections == 0


async def one_service_of_many(table: Table) -> None:
    """:meth:`Table.read_service` finds by the whole key."""
    await fill(table)
    assert await table.read_service(NOWHERE) is None
    assert await table.read_service(MARK) is None
    assert await table.read_service(key(protocol=Protocol.UDP)) is None
    found = await table.read_service(WEB6)
    assert found is not None and found.service == Service(key=WEB6)
    assert list(found.destinations) == [server("fd00::1")]


async def changes(table: Table) -> None:
    """An edit changes what it says and keeps the real servers."""
    await fill(table)
    changed = Service(key=WEB, scheduler="wrr", persistence=30, granularity=16, engine="sip")
    await done(table, EditService(changed))
    heavier = destination("10.0.0.1", weight=9, forward=Forward.DR, upper=5, lower=2)
    await done(table, EditDestination(WEB, heavier))
    entry = (await table.read())[WEB]
    assert entry.service == changed
    assert [e.destination for e in entry.destinations.values()] == [heavier]
    await done(table, EditService(Service(key=WEB)), EditDestination(WEB, HERE))
    entry = (await table.read())[WEB]
    assert entry.service == Service(key=WEB)
    assert [e.destination for e in entry.destinations.values()] == [HERE]


async def removals(table: Table) -> None:
    """A service goes with its real servers, a real server alone."""
    await fill(table)
    await done(table, DeleteDestination(WEB, HERE.key))
    assert not (await table.read())[WEB].destinations
    await done(table, DeleteService(WEB6))
    assert set(await table.read()) == {WEB}
    await done(table, AddService(Service(key=WEB6)))
    assert not (await table.read())[WEB6].destinations


async def in_order(table: Table) -> None:
    """Operations build on those before them, and one that is refused stops none."""
    answers = await numbers(
        table,
        AddDestination(WEB, HERE),
        AddService(Service(key=WEB)),
        AddDestination(WEB, HERE),
        AddDestination(WEB, HERE),
        EditDestination(WEB, destination("10.0.0.1", weight=2)),
        DeleteDestination(WEB, HERE.key),
        DeleteDestination(WEB, HERE.key),
        DeleteService(WEB),
        DeleteService(WEB),
    )
    refused = (errno.ESRCH, errno.EEXIST, errno.ENOENT, errno.ESRCH)
    first, second, third, fourth = refused
    assert answers == [first, None, None, second, None, None, third, None, fourth]
    assert await table.read() == {}
    assert await table.apply([]) == []


async def many(table: Table) -> None:
    """More operations than fit one system call, with refusals at either end of each."""
    wanted = [destination(f"10.0.{i // 200}.{i % 200 + 1}") for i in range(500)]
    operations: list[Operation] = [AddService(Service(key=WEB))]
    for entry in wanted:
        operations += [AddDestination(WEB, entry), AddDestination(WEB, entry)]
    answers = await numbers(table, *operations)
    assert answers == [None] + [None, errno.EEXIST] * 500
    entry = await table.read_service(WEB)
    assert entry is not None
    assert set(entry.destinations) == {d.key for d in wanted}


async def flush(table: Table) -> None:
    """Nothing stays, and an empty table may be emptied."""
    await fill(table)
    await table.flush()
    assert await table.read() == {}
    await table.flush()


async def timeouts(table: Table) -> None:
    """Each timeout alone, and none that is out of range."""
    before = await table.timeouts()
    try:
        await table.set_timeouts(tcp=800)
        assert await table.timeouts() == attrs.evolve(before, tcp=800)
        await table.set_timeouts(tcp_fin=1, udp=4)
        now = await table.timeouts()
        assert (now.tcp, now.tcp_fin, now.udp) == (800, 1, 4)
        for wrong in (0, -1, 2**31):
            with pytest.raises(ConfigError, match="udp"):
                await table.set_timeouts(tcp=5, udp=wrong)
        assert await table.timeouts() == now
    finally:
        await table.set_timeouts(tcp=before.tcp, tcp_fin=before.tcp_fin, udp=before.udp)


async def sync_daemons(table: Table) -> None:
    """One of each role, with what was asked for; ``None`` may read back as the kernel's own."""
    master = SyncDaemon(role=SyncRole.MASTER, interface="lo")
    backup = SyncDaemon(
        role=SyncRole.BACKUP,
        interface="lo",
        id=255,
        maxlen=1400,
        group=ip_address("239.1.2.3"),
        port=9000,
        ttl=3,
    )
    assert await table.sync_daemons() == ()
    await table.stop_sync_daemon(SyncRole.MASTER)
    await table.start_sync_daemon(master)
    await table.start_sync_daemon(backup)
    try:
        running = {found.role: found for found in await table.sync_daemons()}
        assert running[SyncRole.BACKUP] == backup
        assert running[SyncRole.MASTER].interface == "lo" and running[SyncRole.MASTER].id == 0
        with pytest.raises(KernelRefused) as refused:
            await table.start_sync_daemon(attrs.evolve(master, id=1))
        assert refused.value.errno == errno.EEXIST
        await table.stop_sync_daemon(SyncRole.MASTER)
        assert await table.sync_daemons() == (backup,)
    finally:
        await table.stop_sync_daemon(SyncRole.BACKUP)
    assert await table.sync_daemons() == ()


async def modules(table: Table) -> None:
    """All schedulers are there, and what is not is named."""
    table.require(SCHEDULERS, ["", "sip"])
    for schedulers, engines, module in (
        (["rr", "fastest"], [], "ip_vs_fastest"),
        (["rr"], ["http"], "ip_vs_pe_http"),
        ([], ["http"], "ip_vs_pe_http"),
    ):
        with pytest.raises(ModuleMissing, match=f"modprobe {module}") as missing:
            table.require(schedulers, engines)
        assert missing.value.module == module
    assert await table.read() == {}


async def opened_twice(table: Table) -> None:
    """It serves until the last user has closed it, and the entries stay."""
    await fill(table)
    await table.open()
    await table.close()
    assert set(await table.read()) == {WEB, WEB6}


CONTRACT: Sequence[Callable[[Table], Awaitable[None]]] = (
    services_read_back,
    destinations_read_back,
    one_service_of_many,
    changes,
    removals,
    in_order,
    many,
    flush,
    timeouts,
    sync_daemons,
    modules,
    opened_twice,
)
