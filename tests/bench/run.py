"""Speed beside keepalived and HAProxy on this machine, in one run and on the same kind of link.

    PYTHONPATH=tests python tests/bench/run.py [figure ...] [--quick] [--reference REVISION]

Needs root, iproute2 and keepalived; "checks" and "table" need user-mode-linux and kmod as well,
"table" also ipvsadm, "loopback" haproxy. The exit status is 1 if a target is missed.
Figures of different runs do not compare, and those of a busy machine mean little.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial

from bench.balancer import checks, lacking, pool, table
from bench.failover import bunched, crowd, single
from bench.load import cpu, memory, steady
from bench.loopback import loopback
from bench.startup import startup
from bench.table import Figure, render
from system.lab import require_root_and

FIGURES: dict[str, Callable[[bool], Iterator[Figure]]] = {
    "cpu": cpu,
    "steady": steady,
    "single": single,
    "crowd": crowd,
    "bunched": bunched,
    "memory": memory,
    "startup": startup,
    "checks": checks,
    "loopback": loopback,
    "table": table,
    "pool": pool,
}


def main() -> int:
    """Take the figures that were asked for, and print one table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("figures", nargs="*", metavar="figure", help=", ".join(FIGURES))
    parser.add_argument("--quick", action="store_true", help="fewer and shorter measurements")
    parser.add_argument(
        "--reference", metavar="REVISION", help="of git, with which startup is compared"
    )
    options = parser.parse_args()
    unknown = set(options.figures) - set(FIGURES)
    if unknown:
        parser.error(f"unknown: {', '.join(sorted(unknown))}; choose from {', '.join(FIGURES)}")
    if reason := require_root_and("keepalived"):
        parser.error(reason)
    chosen = options.figures or list(FIGURES)
    for name in chosen:
        if reason := lacking(name):
            parser.error(f"{name}: {reason}")
    print(f"{os.cpu_count()} processors, load {os.getloadavg()[0]:.2f}", flush=True)
    found: list[Figure] = []
    for name in chosen:
        start = time.monotonic()
        take = partial(startup, reference=options.reference) if name == "startup" else FIGURES[name]
        figures = list(take(options.quick))
        print(f"{name}: {time.monotonic() - start:.0f} s", file=sys.stderr, flush=True)
        found += figures
    print(render(found))
    return 0 if all(figure.ok for figure in found) else 1


if __name__ == "__main__":
    sys.exit(main())
