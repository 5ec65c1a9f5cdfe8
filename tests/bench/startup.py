"""What the first lines of a user's program cost."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator

from bench.table import Figure

PROGRAM = """
import asyncio, sys, time
start = time.perf_counter()
from vrrpkit import MemoryBus, VRRPInstance
bus = MemoryBus()
pair = [
    VRRPInstance(name, bus.interface(address), vrid=51, vips=["192.0.2.10/24"], priority=priority)
    for name, address, priority in (("a", "192.0.2.1", 150), ("b", "192.0.2.2", 100))
]
print((time.perf_counter() - start) * 1e3)
unwanted = {"pyroute2", "dpkt"} & set(sys.modules)
sys.exit(f"loaded: {unwanted}" if unwanted else 0)
"""


def startup(quick: bool) -> Iterator[Figure]:
    """The import and one pair in memory, beyond ``import asyncio``."""
    runs = 7 if quick else 21
    with tempfile.TemporaryDirectory() as cache:
        # Compiled modules wherever and however the package is installed.
        env = {**os.environ, "PYTHONPYCACHEPREFIX": cache}
        env.pop("PYTHONDONTWRITEBYTECODE", None)
        times = [_run(env) for _ in range(runs + 1)][1:]
    yield Figure(
        name=f"import and one pair in memory, median of {runs}",
        unit="ms",
        vrrpkit=statistics.median(times),
        target=60,
    )


def _run(env: dict[str, str]) -> float:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], env=env, capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        raise RuntimeError(done.stderr)
    return float(done.stdout)
