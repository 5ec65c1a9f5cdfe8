"""Two directors: the VIP moves by VRRP, and connections move with it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from kernel.farm import FAR, GATEWAY, NEAR, VIP, Farm, weights
from kernel.program import Program, one_pool
from system.lab import Host

pytestmark = pytest.mark.kernel


@pytest.fixture
def pair(farm: Farm) -> Iterator[list[Host]]:
    """Two directors that have no VIP yet."""
    hosts = [farm.director(number) for number in (1, 2)]
    for host in hosts:
        # Every packet of a connection is worth a message, from the first on.
        host.sysctl({"net/ipv4/vs/sync_threshold": "1 2"})
    yield hosts
    for host in hosts:
        farm.remove(host)
    farm.forget_neighbours()


def director(host: Host, priority: int, **options: Any) -> Program:
    """A director's program: an instance, the sync daemon, and a pool that follows."""
    instance = {
        "name": "vip",
        "interface": host.dev,
        "vrid": 51,
        "vips": [f"{VIP}/32", f"{GATEWAY}/32"],
        "priority": priority,
        "interval": 0.5,
    }
    pool = one_pool("s1", "s2", follows=True, **options)
    return Program(host, pool, instance=instance, sync={"interface": host.dev, "id": 7})


@pytest.mark.parametrize(("forward", "source"), [("nat", FAR), ("dr", NEAR)])
def test_a_connection_survives_its_director(
    farm: Farm, pair: list[Host], forward: str, source: str
) -> None:
    a, b = pair
    first = director(a, 200, forward=forward)
    second = director(b, 100, forward=forward)
    first.event("Transition", "-> MASTER")
    second.ready()
    first.waits_for(lambda: daemons(a) == {"master"})
    second.waits_for(lambda: daemons(b) == {"backup"})
    held = farm.hold(source=source)
    second.waits_for(lambda: held_by(b) == held_by(a) != [])
    first.kill()
    # What is left on the first is not taken for a director: it is gone, like a machine.
    a.link_down()
    second.waits_for(lambda: b.has(VIP))
    held.goes_on()
    second.waits_for(lambda: daemons(b) == {"master"})
    assert weights(b) == {"s1": 1, "s2": 1}
    assert farm.many(4, source=source) == {"s1": 2, "s2": 2}
    held.goes_on()


def daemons(host: Host) -> set[str]:
    """The roles of the sync daemons that run."""
    words = host.run(["ipvsadm", "-L", "--daemon"]).split()
    return {"master", "backup"} & set(words)


def held_by(host: Host) -> list[list[str]]:
    """The established connections that a director knows: client, VIP and real server."""
    rows = [line.split() for line in host.run(["ipvsadm", "-Lnc"]).splitlines()[2:]]
    return [row[3:6] for row in rows if row[2] == "ESTABLISHED"]
