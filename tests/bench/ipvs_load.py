"""One service with many real servers, loaded by ipvsadm and by vrrpkit into the same table.

    python ipvs_load.py [SERVERS]

Needs root and a kernel with IPVS whose table may be emptied. Prints one line of JSON: seconds of
``ipvsadm -R``, of :meth:`KernelTable.apply` and of :meth:`KernelTable.read`, and the longest time
that other callbacks of the event loop waited meanwhile. ipvsadm loads what it saved
of vrrpkit's table.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from ipaddress import IPv4Address

from vrrpkit.ipvs.kernel.table import KernelTable
from vrrpkit.ipvs.model.entries import (
    AddDestination,
    AddService,
    Destination,
    DestinationKey,
    Operation,
    Protocol,
    Service,
    ServiceKey,
)

SERVERS = 10_000
WEB = ServiceKey(4, Protocol.TCP, IPv4Address("192.0.2.10"), 80)
FIRST = IPv4Address("10.0.0.1")


class Turns:
    """The longest time between two turns of the event loop."""

    def __init__(self) -> None:
        self.longest = 0.0

    async def watch(self) -> None:
        before = time.perf_counter()
        while True:
            await asyncio.sleep(0)
            now = time.perf_counter()
            self.longest = max(self.longest, now - before)
            before = now


def wanted(servers: int) -> list[Operation]:
    """The operations that make the table."""
    keys = (DestinationKey(FIRST + number, 8080) for number in range(servers))
    entries = (AddDestination(WEB, Destination(key=key)) for key in keys)
    return [AddService(Service(key=WEB)), *entries]


def save() -> bytes:
    """What ipvsadm makes of the table."""
    return subprocess.run(["ipvsadm", "-Sn"], stdout=subprocess.PIPE, check=True).stdout


def restore(saved: bytes) -> float:
    """The seconds that ipvsadm takes to load it."""
    start = time.perf_counter()
    subprocess.run(["ipvsadm", "-R"], input=saved, check=True)
    return time.perf_counter() - start


async def measure(servers: int) -> dict[str, float]:
    table = KernelTable()
    await table.open()
    table.require(["wlc"])
    operations = wanted(servers)
    turns = Turns()
    watching = asyncio.create_task(turns.watch(), name="turns")
    start = time.perf_counter()
    answers = await table.apply(operations)
    applied = time.perf_counter() - start
    start = time.perf_counter()
    ours = await table.read()
    read = time.perf_counter() - start
    watching.cancel()
    problems = [answer for answer in answers if answer is not None]
    if problems or len(ours[WEB].destinations) != servers:
        raise RuntimeError(f"not loaded: {problems[:3]}")
    saved = save()
    await table.flush()
    peer = restore(saved)
    theirs = await table.read()
    await table.flush()
    await table.close()
    if theirs != ours:
        raise RuntimeError("the two tables differ")
    return {
        "servers": servers,
        "ipvsadm": peer,
        "vrrpkit": applied,
        "read": read,
        "longest_turn": turns.longest,
    }


if __name__ == "__main__":
    count = int(sys.argv[1]) if len(sys.argv) > 1 else SERVERS
    print(json.dumps(asyncio.run(measure(count))))
