"""Modules are loaded without holding up the loop."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from vrrpkit.lifecycle.leaving import ending
from vrrpkit.lifecycle.loading import aside, load
from vrrpkit.testing import virtual_time

SLOW = """
import threading, time
time.sleep(0.3)
thread = threading.current_thread()
"""


def test_it_happens_in_another_thread_while_the_loop_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "slow_to_load.py").write_text(SLOW)
    monkeypatch.syspath_prepend(tmp_path)
    turns = 0

    async def main() -> None:
        nonlocal turns
        loading = asyncio.create_task(load("slow_to_load", "asyncio"))
        while not loading.done():
            turns += 1
            await asyncio.sleep(0.01)
        await loading
        # The second time there is nothing to do.
        await load("slow_to_load")

    asyncio.run(main())
    assert turns > 10
    module = sys.modules.pop("slow_to_load")
    assert module.thread is not threading.main_thread()


def test_a_cancellation_waits_for_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "slow_to_load_too.py").write_text(SLOW)
    monkeypatch.syspath_prepend(tmp_path)

    async def main() -> None:
        loading = asyncio.create_task(load("slow_to_load_too"))
        await asyncio.sleep(0.05)
        loading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await loading
        assert "slow_to_load_too" in sys.modules
        assert not ending()

    asyncio.run(main())
    del sys.modules["slow_to_load_too"]


@virtual_time()
async def test_under_virtual_time_it_is_done_at_once() -> None:
    home = threading.current_thread()
    assert await aside(threading.current_thread) is home


def test_what_cannot_be_loaded_is_told() -> None:
    with pytest.raises(ModuleNotFoundError, match="no_such_module"):
        asyncio.run(load("no_such_module"))


def test_a_thread_that_comes_late_finds_nobody() -> None:
    """Who awaits may be gone, and the loop with him."""

    async def main() -> None:
        loading = asyncio.create_task(load("no_such_module_either"))
        await asyncio.sleep(0)
        for task in ending():
            task.cancel()
        with pytest.raises((asyncio.CancelledError, ModuleNotFoundError)):
            await loading
        await asyncio.sleep(0.05)

    asyncio.run(main())


@pytest.mark.parametrize(
    "entered",
    [
        "VRRPInstance('r', 'no-such-if', vrid=51, vips=['192.0.2.10/32'])",
        "StaticNetwork(['192.0.2.7/24 dev no-such-if'])",
        "StaticNetwork(routes=['10.0.0.0/8 via 192.0.2.254'])",
        "VirtualServer('192.0.2.10:80', servers=[RealServer('192.0.2.1:80')])",
        "Mail('127.0.0.1', to='a@example.org', helo='a.example.org', security='tls')",
    ],
)
def test_entering_loads_nothing_big_on_the_loops_thread(entered: str) -> None:
    """Whether it may be entered here or not."""
    text = f"""
import asyncio, sys, threading

at_home = []

class Watch:
    def find_spec(self, name, path=None, target=None):
        heavy = name.partition(".")[0] in ("pyroute2", "dpkt", "aiosmtplib", "ssl")
        heavy = heavy or name.startswith("vrrpkit.ipvs.kernel")
        if heavy and threading.current_thread() is threading.main_thread():
            at_home.append(name)

async def main():
    from vrrpkit import Mail, RealServer, StaticNetwork, VirtualServer, VRRPInstance
    from vrrpkit.errors import VRRPKitError
    # What asyncio itself loads.
    import ssl
    it = {entered}
    sys.meta_path.insert(0, Watch())
    try:
        async with it:
            pass
    except (VRRPKitError, OSError) as problem:
        print(type(problem).__name__)

asyncio.run(main())
print(at_home)
"""
    done = subprocess.run(
        [sys.executable, "-c", text], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.splitlines()[-1] == "[]", done.stdout + done.stderr
