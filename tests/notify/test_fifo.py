"""The FIFO: its lines, and a reader that does not read."""

from __future__ import annotations

import asyncio
import os
import stat
from pathlib import Path

import pytest

from vrrpkit import ConfigError, HostError, MemoryBus, State, VRRPInstance
from vrrpkit.notify.fifo import NotifyFIFO
from vrrpkit.notify.model.keepalived import Notification
from vrrpkit.testing import virtual_time


def router(bus: MemoryBus, fifo: NotifyFIFO, name: str = "VI_1", vrid: int = 1) -> VRRPInstance:
    return VRRPInstance(
        name,
        bus.interface("192.0.2.1"),
        vrid=vrid,
        vips=[f"192.0.2.{vrid}0/24"],
        notify=[fifo],
    )


def read(path: Path) -> list[str]:
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    try:
        data = bytearray()
        while True:
            try:
                part = os.read(descriptor, 65536)
            except BlockingIOError:
                break
            if not part:
                break
            data += part
        return data.decode().splitlines()
    finally:
        os.close(descriptor)


@virtual_time()
async def test_lines_of_two_routers_in_one_pipe_that_is_made_and_removed(tmp_path: Path) -> None:
    path = tmp_path / "fifo"
    fifo = NotifyFIFO(path, priorities=True)
    bus = MemoryBus()
    async with router(bus, fifo) as one:
        async with router(bus, fifo, 'odd "name"', 2) as two:
            await one.wait_for(State.MASTER)
            await two.wait_for(State.MASTER)
            one.set_priority(120)
            mode = os.stat(path).st_mode
            assert stat.S_ISFIFO(mode)
            assert stat.S_IMODE(mode) == 0o600
        lines = read(path)
    assert [line for line in lines if line.startswith('INSTANCE "VI_1"')] == [
        'INSTANCE "VI_1" BACKUP 100',
        'INSTANCE "VI_1" MASTER 100',
        'INSTANCE "VI_1" MASTER_PRIORITY 120',
    ]
    assert 'INSTANCE "odd ?name?" MASTER 100' in lines
    assert lines[-1] == 'INSTANCE "odd ?name?" STOP 100'
    assert not path.exists()


def test_nobody_reads_and_nobody_waits(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "fifo"
    os.mkfifo(path)
    fifo = NotifyFIFO(path, limit=10)

    async def main() -> list[str]:
        attachment = fifo.attach(None)
        word = Notification(kind="INSTANCE", name="x" * 100, state="MASTER", priority=1)
        for _ in range(2000):
            fifo.write(word)
        assert fifo.dropped > 1000
        first = read(path)
        # Now there is room: what waited follows without being asked.
        async with asyncio.timeout(30):
            while True:
                if not fifo.waiting:
                    break
                await asyncio.sleep(0.01)
        second = read(path)
        assert len(second) == 10
        attachment.cancel()
        await attachment.close()
        return first + second

    lines = asyncio.run(main())
    assert set(lines) == {'INSTANCE "' + "x" * 100 + '" MASTER 1'}
    assert len(lines) + fifo.dropped == 2000
    assert caplog.text.count("nobody reads") == 1
    # It was there before.
    assert path.exists()


def test_priorities_are_told_when_asked_for_only(tmp_path: Path) -> None:
    path = tmp_path / "fifo"
    fifo = NotifyFIFO(path)

    async def main() -> list[str]:
        attachment = fifo.attach(None)
        fifo.write(Notification(kind="INSTANCE", name="a", state="BACKUP_PRIORITY", priority=1))
        fifo.write(Notification(kind="GROUP", name="g", state="FAULT"))
        lines = read(path)
        await attachment.close()
        return lines

    assert asyncio.run(main()) == ['GROUP "g" FAULT 0']


def test_lines_of_servers() -> None:
    server = Notification(
        kind="RS", name="[10.0.0.1]:tcp:8080", of="[192.0.2.10]:tcp:80", state="DOWN", reason="x"
    )
    assert server.line == "RS [10.0.0.1]:tcp:8080 [192.0.2.10]:tcp:80 DOWN"
    assert Notification(kind="VS", name="[192.0.2.10]:tcp:80", state="UP").line == (
        "VS [192.0.2.10]:tcp:80 UP"
    )


def test_what_is_no_fifo_is_refused_and_stays_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("mine")

    async def attach(where: Path) -> None:
        NotifyFIFO(where).attach(None)

    with pytest.raises(HostError, match="is no FIFO"):
        asyncio.run(attach(path))
    assert path.read_text() == "mine"
    with pytest.raises(HostError, match="No such file"):
        asyncio.run(attach(tmp_path / "no" / "fifo"))


def test_a_link_or_a_fifo_of_somebody_else_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = tmp_path / "real"
    os.mkfifo(real)
    link = tmp_path / "link"
    link.symlink_to(real)
    wide = tmp_path / "wide"
    os.mkfifo(wide)
    wide.chmod(0o666)

    async def attach(where: Path, mode: int = 0o600) -> None:
        await NotifyFIFO(where, mode=mode).attach(None).close()

    with pytest.raises(HostError, match="symbolic link; give the path"):
        asyncio.run(attach(link))
    with pytest.raises(HostError, match="by everybody"):
        asyncio.run(attach(wide))
    asyncio.run(attach(wide, 0o666))
    asyncio.run(attach(real))
    monkeypatch.setattr(os, "geteuid", lambda: real.stat().st_uid + 1)
    if real.stat().st_uid:
        with pytest.raises(HostError, match="belongs to user"):
            asyncio.run(attach(real))
    else:
        asyncio.run(attach(real))
        os.chown(real, 1234, -1)
        with pytest.raises(HostError, match="belongs to user 1234"):
            asyncio.run(attach(real))
    assert real.exists() and wide.exists() and link.is_symlink()


def test_what_is_opened_is_what_was_looked_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody exchanges the FIFO for a link right after the look."""
    path, theirs = tmp_path / "fifo", tmp_path / "theirs"
    theirs.write_text("")
    fstat = os.fstat

    def exchange(descriptor: int) -> os.stat_result:
        found = fstat(descriptor)
        monkeypatch.setattr(os, "fstat", fstat)
        path.unlink()
        path.symlink_to(theirs)
        return found

    async def main() -> None:
        fifo = NotifyFIFO(path, mode=0o666)
        monkeypatch.setattr(os, "fstat", exchange)
        attachment = fifo.attach(None)
        fifo.write(Notification(kind="GROUP", name="g", state="MASTER"))
        await attachment.close()

    asyncio.run(main())
    assert theirs.read_text() == ""
    assert stat.S_IMODE(theirs.stat().st_mode) & 0o022 == 0
    assert path.is_symlink()


def test_a_pipe_that_somebody_replaces_or_removes_is_followed(tmp_path: Path) -> None:
    path = tmp_path / "fifo"
    fifo = NotifyFIFO(path, mode=0o640)

    def tell(state: str) -> None:
        fifo.write(Notification(kind="GROUP", name="g", state=state))

    async def main() -> None:
        attachment = fifo.attach(None)
        tell("BACKUP")
        assert read(path) == ['GROUP "g" BACKUP 0']
        # As a reader does that makes its own pipe when it starts.
        path.unlink()
        os.mkfifo(path)
        tell("MASTER")
        assert read(path) == ['GROUP "g" MASTER 0']
        path.unlink()
        tell("FAULT")
        assert read(path) == ['GROUP "g" FAULT 0']
        assert stat.S_IMODE(path.stat().st_mode) == 0o640
        await attachment.close()
        assert not path.exists()

    asyncio.run(main())


def test_a_file_in_its_place_is_left_alone_and_complained_of_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "fifo"
    fifo = NotifyFIFO(path)

    async def main() -> None:
        attachment = fifo.attach(None)
        path.unlink()
        path.write_text("mine")
        for _ in range(3):
            fifo.write(Notification(kind="GROUP", name="g", state="MASTER"))
        await attachment.close()

    asyncio.run(main())
    assert path.read_text() == "mine"
    assert caplog.text.count("is no FIFO") == 1


def test_what_waited_goes_to_the_pipe_that_is_there_now(tmp_path: Path) -> None:
    path = tmp_path / "fifo"
    fifo = NotifyFIFO(path)

    async def main() -> list[str]:
        attachment = fifo.attach(None)
        word = Notification(kind="INSTANCE", name="x" * 900, state="MASTER", priority=1)
        while not fifo.waiting:
            fifo.write(word)
        path.unlink()
        os.mkfifo(path)
        fifo.write(word)
        assert fifo.waiting == 0
        lines = read(path)
        await attachment.close()
        return lines

    assert len(asyncio.run(main())) == 2


def test_a_name_of_any_length_and_kind_leaves_the_line_whole(tmp_path: Path) -> None:
    path = tmp_path / "fifo"
    fifo = NotifyFIFO(path)

    async def main() -> list[str]:
        attachment = fifo.attach(None)
        for name in ("\U0001f600" * 5000, "\udc80 \x00\u2028 Zürich"):
            fifo.write(
                Notification(kind="INSTANCE", name=name, state="MASTER_RX_LOWER_PRI", priority=254)
            )
        lines = read(path)
        await attachment.close()
        return lines

    long, odd = asyncio.run(main())
    assert long == 'INSTANCE "' + "\U0001f600" * 1000 + '" MASTER_RX_LOWER_PRI 254'
    assert odd == 'INSTANCE "? ?? Zürich" MASTER_RX_LOWER_PRI 254'


def test_nothing_is_left_behind_when_it_cannot_be_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "fifo"

    def refuse(*_: object) -> int:
        raise PermissionError(13, "Permission denied")

    async def main() -> None:
        with monkeypatch.context() as patched:
            patched.setattr(os, "open", refuse)
            NotifyFIFO(path).attach(None)

    with pytest.raises(HostError, match="Permission denied"):
        asyncio.run(main())
    assert not path.exists()


def test_bad_values_are_refused() -> None:
    with pytest.raises(ConfigError, match="empty"):
        NotifyFIFO("")
    with pytest.raises(ConfigError, match="limit"):
        NotifyFIFO("/run/x", limit=0)
    with pytest.raises(ConfigError, match="mode"):
        NotifyFIFO("/run/x", mode=0o1777)
