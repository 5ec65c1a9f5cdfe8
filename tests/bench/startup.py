"""What the first lines of a user's program cost."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from bench.table import Figure

REPOSITORY = Path(__file__).parents[2]

PROGRAM = """
import asyncio, json, sys, time
start = time.perf_counter()
from vrrpkit import MemoryBus, VRRPInstance
bus = MemoryBus()
pair = [
    VRRPInstance(name, bus.interface(address), vrid=51, vips=["192.0.2.10/24"], priority=priority)
    for name, address, priority in (("a", "192.0.2.1", 150), ("b", "192.0.2.2", 100))
]
took = time.perf_counter() - start
print(json.dumps([took * 1e3, sys.modules["vrrpkit"].__file__]))
unwanted = {"pyroute2", "dpkt"} & set(sys.modules)
sys.exit(f"loaded: {unwanted}" if unwanted else 0)
"""


def startup(quick: bool, reference: str | None = None) -> Iterator[Figure]:
    """The import and one pair in memory, beyond ``import asyncio``.

    :param reference: a git revision of this repository to compare with, run by run in turns.
    """
    runs = 7 if quick else 21
    with tempfile.TemporaryDirectory() as scratch:
        tree = None if reference is None else _checked_out(reference, Path(scratch, "tree"))
        # Compiled modules wherever and however the package is installed.
        env = {**os.environ, "PYTHONPYCACHEPREFIX": str(Path(scratch, "cache"))}
        env.pop("PYTHONDONTWRITEBYTECODE", None)
        ours: list[float] = []
        theirs: list[float] = []
        for _ in range(runs + 1):
            ours.append(_run(env))
            if tree is not None:
                theirs.append(_run(env, tree))
    told = f"import and one pair in memory, median of {runs}"
    # The first ones compile.
    middle = statistics.median(ours[1:])
    if reference is None:
        yield Figure(name=told, unit="ms", vrrpkit=middle, target=60)
        return
    ratios = sorted(one / other for one, other in zip(ours[1:], theirs[1:], strict=True))
    yield Figure(
        name=f"{told} (the other is {reference})",
        unit="ms",
        vrrpkit=middle,
        keepalived=statistics.median(theirs[1:]),
        target=1,
        relative=True,
        ratios=(ratios[0], ratios[-1]),
    )


def _checked_out(revision: str, tree: Path) -> Path:
    tree.mkdir()
    command = ["git", "-C", str(REPOSITORY), "archive", revision, "vrrpkit"]
    # Root looks at a user's repository here.
    env = {
        **os.environ,
        "GIT_CONFIG_COUNT": "1",
        "GIT_CONFIG_KEY_0": "safe.directory",
        "GIT_CONFIG_VALUE_0": str(REPOSITORY),
    }
    packed = subprocess.run(command, env=env, stdout=subprocess.PIPE, check=True).stdout
    subprocess.run(["tar", "-x", "-C", str(tree)], input=packed, check=True)
    return tree


def _run(env: dict[str, str], tree: Path | None = None) -> float:
    if tree is not None:
        env = {**env, "PYTHONPATH": str(tree)}
    # Without -P the directory that this was started in would come first.
    command = [sys.executable, "-P", "-c", PROGRAM]
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(done.stderr)
    took, where = json.loads(done.stdout)
    if tree is not None and not Path(where).is_relative_to(tree):
        raise RuntimeError(f"{where} was loaded, which is not in {tree}")
    return float(took)
