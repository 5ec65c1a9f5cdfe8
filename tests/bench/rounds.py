"""Figures that are taken in several rounds, of which the middle one counts."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

from bench.table import Figure

TESTS = Path(__file__).parent.parent


def measured(module: str, kind: str, seconds: int, rounds: int) -> list[dict[str, float]]:
    """What a module says that is run in an empty network namespace: a JSON object for each round,
    with a figure by program."""
    path = os.pathsep.join(filter(None, [str(TESTS), os.environ.get("PYTHONPATH")]))
    done = subprocess.run(
        ["unshare", "--net", sys.executable, "-m", module, kind, str(seconds), str(rounds)],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": path},
        check=False,
    )
    if done.returncode:
        raise SystemExit(f"{module} {kind}: not measured, see above")
    return [json.loads(line) for line in done.stdout.splitlines()]


def middle(
    found: Iterable[dict[str, float]], *, name: str, unit: str, peer: str, target: float
) -> Figure:
    """The round whose ratio of vrrpkit to its peer is the middle one, with the range of all."""

    def ratio(one: dict[str, float]) -> float:
        return one["vrrpkit"] / one[peer]

    in_order = sorted(found, key=ratio)
    chosen = in_order[len(in_order) // 2]
    return Figure(
        name=name,
        unit=unit,
        vrrpkit=chosen["vrrpkit"],
        keepalived=chosen[peer],
        target=target,
        relative=True,
        ratios=(ratio(in_order[0]), ratio(in_order[-1])),
    )
