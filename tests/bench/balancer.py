"""Health checks and the IPVS table beside keepalived and ipvsadm, inside the IPVS kernel.

Wall time in there is slower than outside, so only ratios say something.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bench.rounds import TESTS, measured, middle
from bench.table import Figure
from kernel.uml import missing, run_inside
from system.lab import require_root_and
from vrrpkit.ipvs.memory.table import MemoryTable
from vrrpkit.ipvs.model.entries import EditDestination, ServiceKey
from vrrpkit.ipvs.server import RealServer, VirtualServer

MOST = {"tcp": 1.3, "http": 1.5}
"""The largest ratio allowed, by kind of check."""


def _inside(module: str, *arguments: str, timeout: float) -> dict[str, Any]:
    """Run a module there; the JSON object in the last line of its output."""
    command = [sys.executable, "-m", module, *arguments]
    output = run_inside(command, timeout=timeout, environment={"PYTHONPATH": str(TESTS)})
    found: dict[str, Any] = json.loads(output.strip().splitlines()[-1])
    return found


def lacking(figure: str) -> str | None:
    """What this machine needs before it can take a figure of this module, or None."""
    if figure == "loopback":
        return require_root_and("unshare", "haproxy")
    if figure == "table":
        return missing() or require_root_and("ipvsadm")
    if figure != "checks":
        return None
    if not Path("/dev/net/tun").exists():
        return "needs /dev/net/tun (the kernel's module tun)"
    return missing() or require_root_and("unshare")


def checks(quick: bool) -> Iterator[Figure]:
    """CPU per health check, 500 a second: the round whose ratio is the middle one of several."""
    for kind, most in MOST.items():
        yield middle(
            measured("bench.check_cost", kind, *((6, 3) if quick else (15, 5))),
            name=f"CPU per {kind.upper()} check, 500 a second",
            unit="us",
            peer="keepalived",
            target=most,
        )


def table(quick: bool) -> Iterator[Figure]:
    """Loading one service with 10,000 real servers, beside ipvsadm -R."""
    found = _inside("bench.ipvs_load", "2000" if quick else "10000", timeout=300)
    yield Figure(
        name=f"loading {found['servers']:,} real servers (the other is ipvsadm -R)",
        unit="s",
        vrrpkit=found["vrrpkit"],
        keepalived=found["ipvsadm"],
        target=1.2,
        relative=True,
    )


SERVERS = 10_000
CHANGED = 100


async def _change() -> tuple[float, int]:
    """Seconds until the table is right after many servers changed at once, and the operations."""
    memory = MemoryTable()
    names = [f"10.0.{number // 256}.{number % 256}:80" for number in range(SERVERS)]
    servers = [RealServer(name, weight=10) for name in names]
    async with VirtualServer("192.0.2.10:80/tcp", servers=servers, table=memory) as pool:
        (key,) = pool.services
        before = len(memory.operations)
        start = time.perf_counter()
        async with asyncio.TaskGroup() as tasks:
            for number in range(CHANGED):
                tasks.create_task(pool.set_weight(names[number * 99], 20))
        if await _changed(memory, key) != CHANGED:
            raise RuntimeError("set_weight() returned before the table was right")
        took = time.perf_counter() - start
        done = [one for batch in memory.operations[before:] for one in batch]
        if not all(isinstance(one, EditDestination) for one in done):
            raise RuntimeError(f"more than the weights was touched: {done[:3]}")
        return took, len(done)


async def _changed(memory: MemoryTable, key: ServiceKey) -> int:
    entry = await memory.read_service(key)
    if entry is None:
        return 0
    return sum(there.destination.weight == 20 for there in entry.destinations.values())


def pool(quick: bool) -> Iterator[Figure]:
    """100 of 10,000 servers change at once, on a table in memory."""
    took, operations = min(asyncio.run(_change()) for _ in range(1 if quick else 3))
    name = f"{CHANGED} of {SERVERS:,} servers change: "
    yield Figure(name=name + "table right", unit="ms", vrrpkit=took * 1e3, target=100)
    yield Figure(name=name + "operations", unit="", vrrpkit=operations, target=CHANGED)
