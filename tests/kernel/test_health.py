"""What clients see when real servers come and go."""

from __future__ import annotations

import time

import pytest

from kernel.farm import FAR, NEAR, Client, Farm, weights
from kernel.program import Program, one_pool, servers
from system.lab import Host

pytestmark = pytest.mark.kernel


def answered(client: Client, since: float) -> list[str]:
    """Who answered the connections that were begun after a moment."""
    return [line["who"] for line in client.lines if line["start"] > since]


@pytest.mark.parametrize(("forward", "source"), [("nat", FAR), ("dr", NEAR), ("tun", NEAR)])
def test_a_killed_server_gets_nothing_once_that_is_seen(
    farm: Farm, director: Host, forward: str, source: str
) -> None:
    program = Program(director, one_pool("s1", "s2", forward=forward)).ready()
    client = farm.steady(source=source)
    program.waits_for(lambda: {"s1", "s2"} <= set(answered(client, 0)))
    farm.servers["s1"].kill()
    program.waits_for(lambda: weights(director) == {"s2": 1})
    seen = time.monotonic()
    program.waits_for(lambda: len(answered(client, seen)) >= 10)
    assert set(answered(client, seen)) == {"s2"}
    farm.servers["s1"].start()
    program.waits_for(lambda: "s1" in answered(client, seen))
    assert set(answered(client, seen)) == {"s1", "s2"}


def test_a_server_that_is_silent_gets_nothing_once_that_is_seen(farm: Farm, director: Host) -> None:
    check = {"kind": "http", "timeout": 1.0}
    program = Program(director, one_pool("s1", "s2", check=check)).ready()
    farm.servers["s1"].host.cut()
    try:
        program.waits_for(lambda: weights(director) == {"s2": 1})
        assert farm.many(10, source=FAR) == {"s2": 10}
    finally:
        farm.servers["s1"].host.heal()
    program.waits_for(lambda: weights(director) == {"s1": 1, "s2": 1})


def test_a_server_that_is_inhibited_keeps_its_connections(farm: Farm, director: Host) -> None:
    # The check goes to a port of its own, which is closed for a while: the server itself lives.
    director.run(["ip", "address", "add", "10.0.0.200/24", "dev", director.dev])
    check = {"kind": "tcp", "source": "10.0.0.200"}
    pool = one_pool("s1", "s2", inhibit_on_failure=True) | {
        "servers": servers("s1", check=check) + servers("s2")
    }
    program = Program(director, pool).ready()
    held = [farm.hold(source=FAR) for _ in range(2)]
    (on_s1,) = [one for one in held if one.who == "s1"]
    refuse = ["iptables-legacy", "-A", "OUTPUT", "-s", "10.0.0.200", "-p", "tcp", "-j", "REJECT"]
    director.run([*refuse, "--reject-with", "tcp-reset"])
    program.waits_for(lambda: weights(director) == {"s1": 0, "s2": 1})
    assert farm.many(4, source=FAR) == {"s2": 4}
    on_s1.goes_on()


def test_the_sorry_server_serves_while_there_is_no_quorum(farm: Farm, director: Host) -> None:
    # The kernel drops what comes for a server that was removed: without sorry_inhibit, a connection
    # that is under way at the sorry server when the others return would be cut.
    pool = one_pool("s1", "s2", quorum=2, sorry=servers("sorry")[0], sorry_inhibit=True)
    program = Program(director, pool).ready()
    program.waits_for(lambda: weights(director) == {"s1": 1, "s2": 1, "sorry": 0})
    client = farm.steady(source=FAR)
    farm.servers["s2"].kill()
    program.waits_for(lambda: weights(director) == {"sorry": 1})
    lost = time.monotonic()
    program.waits_for(lambda: len(answered(client, lost)) >= 5)
    assert set(answered(client, lost)) == {"sorry"}
    farm.servers["s2"].start()
    program.waits_for(lambda: weights(director) == {"s1": 1, "s2": 1, "sorry": 0})
    back = time.monotonic()
    program.waits_for(lambda: len(answered(client, back)) >= 5)
    assert set(answered(client, back)) == {"s1", "s2"}
    # One replaced the other without a moment in which nobody was there.
    assert set(answered(client, lost)) == {"sorry", "s1", "s2"}
