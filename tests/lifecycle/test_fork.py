"""What a child of fork() does to its parent: nothing."""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
import signal
import socket
import sys
import warnings
from collections.abc import Callable, Iterator

import pytest

from vrrpkit import (
    BFDSession,
    FunctionChecker,
    MemoryBus,
    MemoryTable,
    NotifyFunction,
    State,
    StaticNetwork,
    VirtualServer,
    VRRPInstance,
)
from vrrpkit.checks.io.poller import Poller
from vrrpkit.commands.command import Command
from vrrpkit.lifecycle.fork import ProcessOrigin, in_child, share_nothing
from vrrpkit.linux.inotify import watch
from vrrpkit.linux.timerfd import TimerfdAlarm
from vrrpkit.runner import run

pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")


@contextlib.contextmanager
def child(status: list[int]) -> Iterator[bool]:
    """True in the child, which ends with the block; its exit status in the parent."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        pid = os.fork()
    if pid:
        yield False
        status.append(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
        return
    code = 99
    try:
        yield True
        code = 0
    except SystemExit as ending:
        code = int(ending.code or 0)
    finally:
        os._exit(code)


def in_a_child(work: Callable[[], object]) -> int:
    status: list[int] = []
    with child(status) as here:
        if here:
            work()
    return status[0]


def test_an_object_knows_that_it_was_begun_elsewhere() -> None:
    origin = ProcessOrigin()
    assert not origin.elsewhere

    def look() -> None:
        assert origin.elsewhere
        assert not ProcessOrigin().elsewhere

    assert in_a_child(look) == 0
    assert not origin.elsewhere


def test_what_was_to_be_reset_is_reset_in_the_child_only() -> None:
    told: list[str] = []
    stop = in_child(lambda: told.append("child"))
    gone = in_child(lambda: told.append("gone"))
    gone()

    def look() -> None:
        assert told == ["child"]

    assert in_a_child(look) == 0
    assert told == []
    stop()


def test_a_descriptor_leads_nowhere_in_the_child() -> None:
    ours, theirs = socket.socketpair()
    closed = socket.socket()
    for each in (ours, closed):
        share_nothing(each)
    closed.close()

    def speak() -> None:
        with pytest.raises(OSError, match="Socket operation on non-socket"):
            ours.send(b"from the child")

    with ours, theirs:
        assert in_a_child(speak) == 0
        ours.send(b"from the parent")
        assert theirs.recv(100) == b"from the parent"


def test_the_loop_of_the_parent_goes_on_hearing() -> None:
    """In the kernel both loops have one epoll; so has what both poll, time and watch."""

    async def main() -> None:
        ProcessOrigin()
        loop = asyncio.get_running_loop()
        heard = asyncio.Event()
        reading, writing = os.pipe()
        loop.add_reader(reading, heard.set)
        poller = Poller.current()
        near, far = socket.socketpair()
        near.setblocking(False)
        ready = asyncio.Event()
        poller.watch(near.fileno(), lambda what: ready.set() if what & select.EPOLLIN else None)
        alarm = TimerfdAlarm()
        rung = asyncio.Event()
        alarm.arm(alarm.now() + 0.5, rung.set)

        def leave() -> None:
            loop.remove_reader(reading)
            loop.remove_reader(poller.fileno())
            alarm.close()

        assert in_a_child(leave) == 0
        os.write(writing, b"!")
        far.send(b"!")
        async with asyncio.timeout(5):
            await heard.wait()
            await ready.wait()
            await rung.wait()
        loop.remove_reader(reading)
        alarm.close()
        poller.forget(near.fileno())
        poller.close()
        near.close()
        far.close()
        os.close(reading)
        os.close(writing)

    asyncio.run(main())


def test_files_that_are_watched_are_watched_on(tmp_path: os.PathLike[str]) -> None:
    async def main() -> None:
        changed = asyncio.Event()
        path = os.path.join(tmp_path, "file")
        stop = watch(path, changed.set)

        assert in_a_child(stop) == 0
        os.mknod(path)
        async with asyncio.timeout(5):
            await changed.wait()
        stop()

    asyncio.run(main())


def test_a_program_that_was_started_is_not_ended_by_the_child() -> None:
    async def main() -> None:
        command = Command([sys.executable, "-c", "import time; time.sleep(1); print('done')"])
        running = asyncio.create_task(command.run())
        await asyncio.sleep(0.3)

        def cancel() -> None:
            running.cancel()
            # As asyncio.run does with all tasks of a child that exits.
            with contextlib.suppress(asyncio.CancelledError):
                asyncio.new_event_loop().run_until_complete(asyncio.sleep(0))
            asyncio._set_running_loop(None)
            with contextlib.suppress(asyncio.CancelledError):
                running.get_loop().run_until_complete(running)

        in_a_child(cancel)
        done = await running
        assert done.ok
        assert done.output == b"done\n"

    asyncio.run(main())


class Witness:
    """Sees what objects do when they are left."""

    def __init__(self) -> None:
        self.told: list[str] = []

    def hear(self, event: object) -> None:
        self.told.append(str(event))


@pytest.mark.parametrize("runner", [run, asyncio.run])
def test_a_child_that_exits_leaves_nothing(runner: Callable[..., object]) -> None:
    """Routers, pools, BFD and static addresses in memory: the copies in the child stay as they are,
    and the parent's go on."""
    parent = os.getpid()
    bus = MemoryBus()
    table = MemoryTable()
    witness = Witness()
    found: list[str] = []
    statuses: list[int] = []

    async def passes(target: object) -> None:
        """The server is well."""

    def exit_in_a_child() -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            pid = os.fork()
        if not pid:
            # Out of a callback, through the whole program.
            raise SystemExit(7)
        statuses.append(pid)

    async def main() -> None:
        interface = bus.interface("192.0.2.1")
        web = VRRPInstance(
            "web",
            interface,
            vrid=51,
            vips=["192.0.2.10/24"],
            interval=0.05,
            notify=[NotifyFunction(witness.hear)],
        )
        check = FunctionChecker(passes, interval=1)
        pool = VirtualServer("192.0.2.10:80/tcp", servers=["10.0.0.1:80"], check=check, table=table)
        bfd = BFDSession("192.0.2.2", interface=interface)
        static = StaticNetwork(["192.0.2.99/24 dev m0"], interfaces={"m0": interface})
        async with web, pool, bfd, static:
            async with asyncio.timeout(5):
                await web.wait_for(State.MASTER)
            await asyncio.sleep(0.1)
            asyncio.get_running_loop().call_soon(exit_in_a_child)
            await asyncio.sleep(0.5)
            found.append(f"{web.state} {interface_holds(bus)} {len(await table.read())}")

    try:
        runner(main())
    except BaseException as problem:
        if os.getpid() != parent:
            # What the child knows when it has gone through all of its "async with".
            services = len(asyncio.run(table.read()))
            untouched = (
                interface_holds(bus)
                and services
                and not any("-> INIT" in told for told in witness.told)
            )
            code = problem.code if isinstance(problem, SystemExit) else 98
            os._exit(int(code or 0) if untouched else 97)
        raise
    assert found == ["MASTER True 1"]
    assert os.waitstatus_to_exitcode(os.waitpid(statuses[0], 0)[1]) == 7
    assert not interface_holds(bus)


def interface_holds(bus: MemoryBus) -> bool:
    from ipaddress import ip_address

    return bus.interface("192.0.2.1").holds(ip_address("192.0.2.10"))


def test_a_signal_to_the_child_is_the_childs() -> None:
    """The descriptor that tells of signals was the parent's too."""
    pids: list[int] = []

    async def main() -> str:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            pid = os.fork()
        if not pid:
            signal.pause()
            os._exit(0)
        pids.append(pid)
        await asyncio.sleep(0.2)
        os.kill(pid, signal.SIGTERM)
        await asyncio.sleep(0.3)
        return "the parent goes on"

    assert run(main()) == "the parent goes on"
    assert os.waitstatus_to_exitcode(os.waitpid(pids[0], 0)[1]) == -signal.SIGTERM
