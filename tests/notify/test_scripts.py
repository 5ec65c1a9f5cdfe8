"""Scripts on transitions: real ones, around routers in memory."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from itertools import chain
from pathlib import Path
from typing import Any

import pytest

from vrrpkit import ConfigError, MemoryBus, State, VRRPInstance
from vrrpkit.notify.scripts import NotifyScripts
from vrrpkit.testing import RealWorldNeeded, virtual_time
from vrrpkit.vrrp.syncgroup import SyncGroup

#: So long that a busy machine does not make a router believe that it has been stalled.
INTERVAL = 0.2


def router(bus: MemoryBus, *notify: NotifyScripts, number: int = 1, **changes: Any) -> VRRPInstance:
    settings: dict[str, Any] = {"vrid": 1, "vips": ["192.0.2.10/24"], "interval": INTERVAL}
    return VRRPInstance(
        f"r{number}",
        bus.interface(f"192.0.2.{number}"),
        **(settings | {"notify": notify} | changes),
    )


def noting(path: Path, what: str = '"$@"') -> list[str]:
    return ["/bin/sh", "-c", f"echo {what} >> {path}", "script"]


async def reads(path: Path, line: str) -> None:
    """Wait until this is the last line."""
    async with asyncio.timeout(30):
        while True:
            if noted(path)[-1:] == [line]:
                return
            await asyncio.sleep(0.02)


def noted(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []


def test_the_specific_one_comes_first_and_the_generic_one_gets_arguments(tmp_path: Path) -> None:
    log = tmp_path / "log"
    scripts = NotifyScripts(
        noting(log),
        master=noting(log, "master $VRRPKIT_REASON $VRRPKIT_PREVIOUS"),
        stop=noting(log, "stop"),
        fault=noting(log, "fault: $VRRPKIT_REASON"),
    )

    async def main() -> None:
        bus = MemoryBus()
        async with router(bus, scripts):
            await reads(log, "INSTANCE r1 MASTER 100")
            bus.unplug("192.0.2.1")
            await reads(log, "INSTANCE r1 FAULT 100")

    asyncio.run(main())
    assert noted(log) == [
        "INSTANCE r1 BACKUP 100",
        "master no-response BACKUP",
        "INSTANCE r1 MASTER 100",
        "fault: fault, interface-down",
        "INSTANCE r1 FAULT 100",
        "stop",
        "INSTANCE r1 STOP 100",
    ]


def test_a_group_tells_after_its_members_with_priority_0(tmp_path: Path) -> None:
    log = tmp_path / "log"

    async def main() -> None:
        bus = MemoryBus()
        members = [router(bus), router(bus, number=2, vrid=2, vips=["192.0.2.11/24"])]
        async with SyncGroup("g", members, notify=[NotifyScripts(noting(log))]) as group:
            await group.wait_for(State.MASTER)
            await reads(log, "GROUP g MASTER 0")

    asyncio.run(main())
    assert noted(log) == ["GROUP g BACKUP 0", "GROUP g MASTER 0", "GROUP g STOP 0"]


def test_priorities_deletion_and_lower_masters(tmp_path: Path) -> None:
    log = tmp_path / "log"
    scripts = NotifyScripts(
        noting(log),
        priorities=True,
        lower_priority=noting(log, "lower"),
        deleted=noting(log, "gone"),
    )

    async def main() -> None:
        bus = MemoryBus()
        async with router(bus, scripts, priority=150) as one:
            await reads(log, "INSTANCE r1 MASTER 150")
            one.set_priority(160)
            await reads(log, "INSTANCE r1 MASTER_PRIORITY 160")
            two = router(bus, number=2, priority=100)
            bus.cut("192.0.2.1", "192.0.2.2", one_way=True)
            async with two:
                await reads(log, "lower")
            one.deleted = True

    asyncio.run(main())
    found = noted(log)
    assert found[:3] == [
        "INSTANCE r1 BACKUP 150",
        "INSTANCE r1 MASTER 150",
        "INSTANCE r1 MASTER_PRIORITY 160",
    ]
    assert set(found[3:-2]) == {"lower"}
    assert found[-2:] == ["gone", "INSTANCE r1 DELETED 160"]


def test_one_that_hangs_delays_no_advert_and_hears_only_the_newest(tmp_path: Path) -> None:
    log, gate = tmp_path / "log", tmp_path / "gate"
    waiting = f"while ! test -e {gate}; do sleep 0.05; done"
    scripts = NotifyScripts(
        ["/bin/sh", "-c", f"echo begin $3 >> {log}; {waiting}; echo end $3 >> {log}", "script"]
    )

    async def main() -> None:
        bus = MemoryBus()
        async with router(bus, scripts) as one:
            await reads(log, "begin BACKUP")
            for _ in range(2):
                await one.wait_for(State.MASTER)
                sent = one.statistics.advertisement_sent
                await asyncio.sleep(2 * INTERVAL)
                assert one.statistics.advertisement_sent > sent
                bus.unplug("192.0.2.1")
                await one.wait_for(State.FAULT)
                bus.plug("192.0.2.1")
            await one.wait_for(State.MASTER)
            gate.touch()
            await reads(log, "end MASTER")

    asyncio.run(main())
    # Never two at once, in order, and of what waited the newest alone.
    told = [[f"begin {state}", f"end {state}"] for state in ("BACKUP", "MASTER", "STOP")]
    assert noted(log) == list(chain(*told))


def test_leaving_gives_scripts_a_limit_and_leaves_none_behind(tmp_path: Path) -> None:
    pid = tmp_path / "pid"
    scripts = NotifyScripts(["/bin/sh", "-c", f"echo $$ > {pid}; sleep 60"], flush=0.3)

    async def main() -> None:
        async with router(MemoryBus(), scripts):
            async with asyncio.timeout(30):
                while True:
                    if pid.exists() and pid.read_text():
                        break
                    await asyncio.sleep(0.02)

    start = time.monotonic()
    asyncio.run(main())
    # Far from the minute that the script takes.
    assert time.monotonic() - start < 40
    assert not os.path.exists(f"/proc/{pid.read_text().strip()}")


def test_failures_are_logged_and_change_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    log = tmp_path / "log"
    scripts = NotifyScripts(
        noting(log),
        backup=["/bin/sh", "-c", "echo no such thing; exit 3"],
        timeout=0.3,
        master=["/bin/sleep", "60"],
    )

    async def main() -> None:
        async with router(MemoryBus(), scripts):
            await reads(log, "INSTANCE r1 MASTER 100")

    asyncio.run(main())
    assert "exit status 3: no such thing" in caplog.text
    assert "sleep 60 : not done within 0.3" in caplog.text
    assert noted(log)[:2] == ["INSTANCE r1 BACKUP 100", "INSTANCE r1 MASTER 100"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "at least one"),
        ({"script": "no-such-program-anywhere"}, "install it"),
        ({"master": "true", "user": "no-such-user-here"}, "no user"),
        ({"script": "true", "timeout": 0}, "timeout"),
        ({"script": "true", "flush": -1}, "flush"),
        ({"script": "true", "limit": 0}, "limit"),
    ],
)
def test_bad_values_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        NotifyScripts(**options)


@virtual_time()
async def test_under_virtual_time_scripts_are_refused() -> None:
    with pytest.raises(RealWorldNeeded, match="under virtual time, because no real time passes"):
        async with router(MemoryBus(), NotifyScripts("true")):
            pytest.fail("it would never run")


@pytest.mark.parametrize("option", ["script", "master", "quorum_down"])
def test_a_text_for_a_shell_is_refused(option: str) -> None:
    with pytest.raises(ConfigError, match=r"write \['/bin/sh', '-c', 'echo x > /tmp/x'\]"):
        NotifyScripts(**{option: "echo x > /tmp/x"})


def test_a_status_that_is_lost_is_no_failure_of_the_script(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    log = tmp_path / "log"

    async def main() -> None:
        async with router(MemoryBus(), NotifyScripts(noting(log))):
            await reads(log, "INSTANCE r1 MASTER 100")

    ignored = signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    try:
        asyncio.run(main())
    finally:
        signal.signal(signal.SIGCHLD, ignored)
    said = [record.message for record in caplog.records if "exit status" in record.message]
    assert said
    assert all("that is no failure of the script" in line for line in said)
