"""What :class:`KernelTable` does on a kernel without IPVS, and with a kernel that is played."""

from __future__ import annotations

import asyncio
import errno
import gc
import os
import struct
import weakref
from collections.abc import Iterator, Sequence
from typing import TypeAlias

import pytest

from ipvs.table_contract import GONE, HERE, WEB, destination, numbers
from vrrpkit.errors import ConfigError, HostError, KernelRefused, ModuleMissing, PermissionMissing
from vrrpkit.ipvs.base import SyncDaemon, SyncRole, Table
from vrrpkit.ipvs.kernel import (
    constants as n,
    records,
    requests as ipvs_requests,
    table as ipvs_table,
)
from vrrpkit.ipvs.kernel.table import KernelTable
from vrrpkit.ipvs.model.entries import AddDestination, DeleteDestination, Destination
from vrrpkit.linux import capabilities
from vrrpkit.linux.netlink import NetlinkMessage
from vrrpkit.linux.netns import Namespace

FAMILY = 28


def attribute(kind: int, value: bytes) -> bytes:
    return struct.pack("=HH", 4 + len(value), kind) + value + bytes(-len(value) % 4)


SERVICE = bytes.fromhex(
    "01010000 5c000100 06000100 02000000 06000200 06000000 14000300 c000020a 00000000 00000000"
    "00000000 06000400 00500000 08000600 776c6300 0c000700 02000000 ffffffff 08000800 00000000"
    "08000900 ffffffff"
)
DAEMON = bytes.fromhex("09010000 1c000300 08000100 01000000 07000200 6c6f0000 08000300 07000000")


def shown(wanted: Destination) -> NetlinkMessage:
    """A real server as the kernel lists it."""
    sent = bytes(ipvs_requests.operation(FAMILY, AddDestination(WEB, wanted)))
    nested = sent[sent.index(ipvs_requests.about(WEB)) + len(ipvs_requests.about(WEB)) + 4 :]
    none = b"".join(attribute(kind, bytes(4)) for kind in (7, 8, 9))
    return NetlinkMessage(FAMILY, 2, 1, bytes([5, 1, 0, 0]) + attribute(n.ATTR_DEST, nested + none))


Parts: TypeAlias = list[tuple[bool, list[NetlinkMessage]]]


class Played:
    """A kernel: what it shows, what it refuses, and how long it takes."""

    def __init__(self) -> None:
        self.sockets = 0
        self.lists: list[Parts] = [[]]
        """What it lists of the real servers; the last one again and again."""
        self.listed = 0
        self.daemons: list[NetlinkMessage] = []
        self.answers: dict[int, OSError] = {}
        self.chunks: list[int] = []
        self.pause = 0.0
        self.clock = 0.0

    def perf_counter(self) -> float:
        return self.clock

    def open(self, namespace: Namespace, protocol: int) -> Netlink:
        assert protocol == 16
        self.sockets += 1
        return Netlink(self)


class Netlink:
    """A socket to it, with the methods of :class:`vrrpkit.linux.netlink.Netlink`."""

    def __init__(self, played: Played) -> None:
        self._played = played

    def close(self) -> None:
        self._played.sockets -= 1

    def get(self, kind: int, body: bytes) -> NetlinkMessage:
        if kind == n.CONTROLLER:
            family = attribute(n.CTRL_FAMILY_ID, struct.pack("=H", FAMILY))
            return NetlinkMessage(kind, 0, 1, bytes([1, 2, 0, 0]) + family)
        assert kind == FAMILY
        if body[0] in self._played.answers:
            raise self._played.answers[body[0]]
        return NetlinkMessage(kind, 0, 1, SERVICE)

    def dump(self, kind: int, body: bytes) -> list[NetlinkMessage]:
        if body[0] == n.GET_DAEMON:
            return self._played.daemons
        return [NetlinkMessage(kind, 2, 1, SERVICE)]

    def parts(self, kind: int, body: bytes) -> Iterator[tuple[bool, list[NetlinkMessage]]]:
        lists = self._played.lists
        self._played.listed += 1
        yield from lists.pop(0) if len(lists) > 1 else lists[0]

    def exchange(self, requests: Sequence[bytearray]) -> list[OSError | None]:
        self._played.chunks.append(len(requests))
        self._played.clock += self._played.pause
        return [self._played.answers.get(request[16]) for request in requests]


@pytest.fixture
def played(monkeypatch: pytest.MonkeyPatch) -> Iterator[Played]:
    """Every table is the played kernel's."""
    played = Played()
    monkeypatch.setattr(ipvs_table, "Netlink", played.open)
    monkeypatch.setattr(ipvs_table, "time", played)
    monkeypatch.setattr(capabilities, "_effective", lambda: -1)
    yield played
    assert played.sockets == 0


def test_the_protocol() -> None:
    table: Table = KernelTable()
    assert isinstance(table, KernelTable)


# --- opening


def test_the_capability_comes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(capabilities, "_effective", lambda: 0)
    with pytest.raises(PermissionMissing, match="CAP_NET_ADMIN is missing: balancing connections"):
        asyncio.run(KernelTable().open())


def test_a_kernel_without_ipvs(monkeypatch: pytest.MonkeyPatch) -> None:
    """The real controller is asked, for a family that no kernel has."""
    nobody = ipvs_requests.which_family("VRRPKIT-NOBODY")
    monkeypatch.setattr(ipvs_requests, "which_family", lambda name: nobody)
    monkeypatch.setattr(capabilities, "_effective", lambda: -1)
    gc.collect()
    before = set(os.listdir("/proc/self/fd"))
    with pytest.raises(ModuleMissing, match=r"has no ip_vs, .* 'modprobe ip_vs'") as missing:
        asyncio.run(KernelTable().open())
    assert missing.value.module == "ip_vs"
    assert set(os.listdir("/proc/self/fd")) == before


def test_the_real_controller_knows_itself() -> None:
    namespace = Namespace()
    netlink = ipvs_table.Netlink(namespace, 16)
    try:
        answer = netlink.get(n.CONTROLLER, ipvs_requests.which_family("nlctrl"))
        assert records.family(answer.payload) == n.CONTROLLER
    finally:
        netlink.close()
        namespace.close()


def test_a_namespace_where_the_capability_does_not_count(played: Played) -> None:
    played.answers[n.GET_INFO] = PermissionError(errno.EPERM, "Operation not permitted")
    with pytest.raises(PermissionMissing, match="CAP_NET_ADMIN"):
        asyncio.run(KernelTable().open())


def test_no_such_namespace(played: Played) -> None:
    with pytest.raises(HostError, match="no network namespace 'vrrpkit-nowhere'"):
        asyncio.run(KernelTable("vrrpkit-nowhere").open())
    with pytest.raises(HostError, match="no network namespace 'vrrpkit-nowhere'"):
        asyncio.run(current("vrrpkit-nowhere"))


async def current(netns: str | None = None) -> KernelTable:
    return KernelTable.current(netns)


def test_the_last_user_closes(played: Played) -> None:
    async def main() -> None:
        table = KernelTable()
        with pytest.raises(RuntimeError, match="not open"):
            await table.apply([DeleteDestination(WEB, GONE.key)])
        await table.open()
        await table.open()
        assert played.sockets == 1
        await table.close()
        assert await numbers(table, DeleteDestination(WEB, GONE.key)) == [None]
        await table.close()
        assert played.sockets == 0
        with pytest.raises(RuntimeError, match="not open"):
            await table.read()
        await table.open()
        await table.close()

    asyncio.run(main())


# --- one table for all


def test_one_for_a_loop_and_a_namespace() -> None:
    async def main() -> KernelTable:
        table = KernelTable.current()
        assert KernelTable.current() is table
        return table

    first, second = asyncio.run(main()), asyncio.run(main())
    assert first is not second


def test_nobody_keeps_it() -> None:
    async def main() -> None:
        table = weakref.ref(KernelTable.current())
        gc.collect()
        assert table() is None

    asyncio.run(main())


# --- reading


def read(played: Played, lists: list[Parts]) -> list[str]:
    """The real servers of a service, listed like that."""
    played.lists = lists

    async def main() -> list[str]:
        table = KernelTable()
        await table.open()
        entry = await table.read_service(WEB)
        assert entry is not None
        assert (await table.read())[WEB].destinations == entry.destinations
        await table.close()
        return [str(key) for key in entry.destinations]

    return asyncio.run(main())


FIRST, SECOND = shown(HERE), shown(destination("10.0.0.2"))
NAMES = ["10.0.0.1:80", "10.0.0.2:80"]


def test_parts_are_put_together(played: Played) -> None:
    assert read(played, [[(True, [FIRST]), (True, [SECOND]), (True, [])]]) == NAMES
    assert played.listed == 2


@pytest.mark.parametrize("at", [0, 1])
def test_an_interrupted_list_is_read_again(played: Played, at: int) -> None:
    torn: Parts = [(at != 0, [FIRST]), (at != 1, [])]
    assert read(played, [torn, torn, [(True, [FIRST, SECOND])]]) == NAMES
    assert played.listed == 4


def test_what_is_not_understood_hides_nothing_else_and_is_logged_once(
    played: Played, caplog: pytest.LogCaptureFixture
) -> None:
    cut = FIRST._replace(payload=FIRST.payload[:30])
    assert read(played, [[(True, [cut, FIRST, cut, SECOND])]]) == NAMES
    (record,) = [record for record in caplog.records if record.levelname == "WARNING"]
    assert "about an IPVS destination is not understood" in record.message

    async def main() -> None:
        table = KernelTable()
        await table.open()
        assert await table.sync_daemons() == ()
        await table.close()

    played.daemons = [NetlinkMessage(FAMILY, 2, 1, b"strange")]
    asyncio.run(main())


def test_a_service_that_is_not_understood_is_not_there(
    played: Played, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main() -> None:
        table = KernelTable()
        await table.open()
        monkeypatch.setattr(f"{__name__}.SERVICE", SERVICE[:20])
        assert (await table.read(), await table.read_service(WEB)) == ({}, None)
        await table.close()

    asyncio.run(main())


def test_a_list_that_is_always_interrupted_is_taken_as_it_is(played: Played) -> None:
    assert read(played, [[(False, [FIRST])]]) == NAMES[:1]
    assert played.listed == 2 * (ipvs_table.READ_TRIES + 1)


def test_a_change_of_ours_interrupts_too(played: Played) -> None:
    played.lists = [[(True, [FIRST]), (True, [])], [(True, [FIRST, SECOND])]]

    async def main() -> None:
        table = KernelTable()
        await table.open()
        reading = asyncio.create_task(table.read_service(WEB), name="read")
        await asyncio.sleep(0)
        await table.apply([AddDestination(WEB, destination("10.0.0.2"))])
        entry = await reading
        assert entry is not None and [str(key) for key in entry.destinations] == NAMES
        await table.close()

    asyncio.run(main())
    assert played.listed == 2


def test_other_trouble_is_no_absent_service(played: Played) -> None:
    async def main() -> None:
        table = KernelTable()
        await table.open()
        played.answers[n.GET_SERVICE] = OSError(errno.ESRCH, "No such process")
        assert await table.read_service(WEB) is None
        played.answers[n.GET_SERVICE] = OSError(errno.ENOMEM, "Cannot allocate memory")
        with pytest.raises(OSError, match="Cannot allocate"):
            await table.read_service(WEB)
        await table.close()

    asyncio.run(main())


# --- changing


def apply(played: Played, count: int) -> int:
    """Apply many operations; how many turns others had meanwhile."""

    async def main() -> int:
        table = KernelTable()
        await table.open()
        played.chunks.clear()
        applying = asyncio.create_task(
            table.apply([AddDestination(WEB, HERE)] * count), name="apply"
        )
        turns = 0
        while not applying.done():
            await asyncio.sleep(0)
            turns += 1
        assert await applying == [None] * count
        await table.close()
        return turns

    return asyncio.run(main())


def test_many_go_in_chunks(played: Played) -> None:
    assert apply(played, 200) >= 4
    assert played.chunks == [64, 64, 64, 8]


def test_a_slow_kernel_gets_smaller_chunks(played: Played) -> None:
    played.pause = 2 * ipvs_table.TURN
    apply(played, 64 + 32 + 16 + 8 + 4 + 2 + 1 + 1)
    assert played.chunks == [64, 32, 16, 8, 4, 2, 1, 1]


def test_nothing_is_no_request(played: Played) -> None:
    assert apply(played, 0) == 1
    assert played.chunks == []


@pytest.mark.parametrize(
    ("answer", "schedulers", "engines", "module"),
    [
        (errno.ENOENT, ["wrr"], [], "ip_vs_wrr"),
        (errno.ENOENT, [], ["sip"], "ip_vs_pe_sip"),
        (errno.EINVAL, ["wrr"], ["", "sip"], None),
        (errno.EAFNOSUPPORT, ["wrr"], ["sip"], None),
        (errno.EEXIST, ["wrr"], ["sip"], None),
        (errno.ENOENT, [], [""], None),
    ],
)
def test_what_is_required(
    played: Played, answer: int, schedulers: list[str], engines: list[str], module: str | None
) -> None:
    """Only that the kernel does not know it counts: one without IPv6 tells nothing."""
    played.answers[n.NEW_SERVICE] = OSError(answer, os.strerror(answer))

    async def main() -> None:
        table = KernelTable()
        await table.open()
        try:
            table.require(schedulers, engines)
        finally:
            await table.close()

    if module is None:
        asyncio.run(main())
    else:
        with pytest.raises(ModuleMissing) as missing:
            asyncio.run(main())
        assert missing.value.module == module


# --- daemons, timeouts


@pytest.mark.parametrize(
    ("daemons", "refused"), [([], False), ([NetlinkMessage(FAMILY, 2, 1, DAEMON)], True)]
)
def test_no_answer_to_a_stop_counts_if_it_runs_on(
    played: Played, daemons: list[NetlinkMessage], refused: bool
) -> None:
    """The kernel says nothing when it stops a daemon that has not run yet."""

    async def main() -> None:
        table = KernelTable()
        await table.open()
        played.answers[n.DEL_DAEMON] = OSError(errno.EIO, "the kernel gave no answer")
        played.daemons = daemons
        try:
            await table.stop_sync_daemon(SyncRole.MASTER)
        finally:
            await table.close()

    if refused:
        with pytest.raises(KernelRefused, match="cannot stop the master sync daemon: the kernel"):
            asyncio.run(main())
    else:
        asyncio.run(main())


def test_refusals_say_what_was_wanted(played: Played) -> None:
    async def main() -> None:
        table = KernelTable()
        await table.open()
        for command in (n.NEW_DAEMON, n.SET_CONFIG, n.FLUSH):
            played.answers[command] = OSError(errno.EINVAL, "Invalid argument")
        daemon = SyncDaemon(role=SyncRole.BACKUP, interface="eth0")
        with pytest.raises(KernelRefused, match="start the backup sync daemon on eth0: Invalid"):
            await table.start_sync_daemon(daemon)
        with pytest.raises(KernelRefused, match="cannot set the timeouts") as refused:
            await table.set_timeouts(udp=5)
        assert refused.value.errno == errno.EINVAL
        with pytest.raises(KernelRefused, match="cannot empty the IPVS table"):
            await table.flush()
        with pytest.raises(ConfigError, match=r"timeout tcp_fin 0 must be .* from 1 to 2147483"):
            await table.set_timeouts(tcp_fin=0)
        await table.close()

    asyncio.run(main())
