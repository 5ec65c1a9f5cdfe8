"""What an operator does: drain, restart, deploy; and what others do to the table."""

from __future__ import annotations

import re
from typing import Any

import pytest

from kernel.farm import FAR, NEAR, PORT, VIP, Farm, endpoint, table, weights
from kernel.program import Program, one_pool, servers
from system.lab import Host, wait_until

pytestmark = pytest.mark.kernel


def test_drain_waits_for_a_long_connection(farm: Farm, director: Host) -> None:
    program = Program(director, one_pool("s1", "s2")).ready()
    held = [farm.hold(source=FAR) for _ in range(2)]
    (on_s1,) = [one for one in held if one.who == "s1"]
    program.command("drain", "s1", 600)
    program.waits_for(lambda: weights(director) == {"s1": 0, "s2": 1})
    assert farm.many(4, source=FAR) == {"s2": 4}
    on_s1.goes_on()
    assert not program.did("drain")
    on_s1.close()
    program.waits_for(lambda: program.did("drain"))
    assert weights(director) == {"s2": 1}


def test_drain_ends_when_the_time_is_up(farm: Farm, director: Host) -> None:
    program = Program(director, one_pool("s1", "s2")).ready()
    held = [farm.hold(source=FAR) for _ in range(2)]
    program.command("drain", "s1", 1.0)
    program.waits_for(lambda: program.did("drain"))
    assert weights(director) == {"s2": 1}
    (on_s2,) = [one for one in held if one.who == "s2"]
    on_s2.goes_on()


def test_a_drain_goes_on_while_its_check_fails(farm: Farm, director: Host) -> None:
    # The checks come from an address of their own, which is refused: the server itself lives.
    director.run(["ip", "address", "add", "10.0.0.200/24", "dev", director.dev])
    check = {"kind": "tcp", "source": "10.0.0.200"}
    program = Program(director, one_pool("s1", "s2", check=check)).ready()
    held = [farm.hold(source=FAR) for _ in range(2)]
    (on_s1,) = [one for one in held if one.who == "s1"]
    program.command("drain", "s1", 600)
    program.waits_for(lambda: weights(director) == {"s1": 0, "s2": 1})
    refuse = ["iptables-legacy", "-A", "OUTPUT", "-s", "10.0.0.200", "-d", "10.0.0.11", "-p", "tcp"]
    director.run([*refuse, "-j", "REJECT", "--reject-with", "tcp-reset"])
    program.event("ServerDown", "s1")
    assert weights(director) == {"s1": 0, "s2": 1}
    on_s1.goes_on()
    # Nor has it ended because somebody took the server out: it comes back, and the connection too.
    director.run(["ipvsadm", "-d", "-t", f"{VIP}:{PORT}", "-r", endpoint("s1")])
    program.waits_for(lambda: weights(director) == {"s1": 0, "s2": 1})
    on_s1.goes_on()
    assert not program.did("drain")
    on_s1.close()
    program.waits_for(lambda: program.did("drain"))
    assert weights(director) == {"s2": 1}


def test_a_drain_whose_time_is_up_says_how_many_were_cut(farm: Farm, director: Host) -> None:
    program = Program(director, one_pool("s1", "s2")).ready()
    held = [farm.hold(source=FAR) for _ in range(4)]
    assert [one.who for one in held].count("s1") == 2
    program.command("drain", "s1", 2.0)
    program.waits_for(lambda: program.did("drain"))
    assert program.result("drain") == 2


@pytest.mark.parametrize("state", [False, True])
def test_a_restart_keeps_a_quorum_and_its_connections(
    farm: Farm, director: Host, state: bool
) -> None:
    # Reached at 3, lost at 0: two are enough to keep it, and not to reach it.
    options: dict[str, Any] = {"quorum": 2, "hysteresis": 1, "sorry": servers("sorry")[0]}
    if state:
        options["state_file"] = str(director.directory / "state")
    pool = one_pool("s1", "s2", "s3", **options)
    first = Program(director, pool).ready()
    farm.servers["s3"].kill()
    first.waits_for(lambda: weights(director) == {"s1": 1, "s2": 1})
    first.event("ServerDown", "s3")
    held = [farm.hold(source=FAR) for _ in range(2)]
    before = table(director)
    first.kill()
    second = Program(director, pool).ready()
    assert table(director) == before
    for one in held:
        one.goes_on()
    assert table(director) == before
    farm.servers["s3"].start()
    second.waits_for(lambda: weights(director) == {"s1": 1, "s2": 1, "s3": 1})
    for one in held:
        one.goes_on()


def test_a_check_that_does_not_end_leaves_no_service(farm: Farm, director: Host) -> None:
    program = Program(director, one_pool("s1", "s2", check={"kind": "stuck"})).ready()
    assert table(director)
    program.waits_for(lambda: "asked" in program.said)
    program.terminate()
    wait_until(lambda: table(director) == [], 30, "the table is empty")
    program.kill()


@pytest.mark.parametrize(("forward", "source"), [("nat", FAR), ("dr", NEAR)])
def test_kill_9_and_a_restart_keep_connections(
    farm: Farm, director: Host, forward: str, source: str
) -> None:
    pool = one_pool("s1", "s2", forward=forward, state_file=str(director.directory / "state"))
    first = Program(director, pool).ready()
    held = [farm.hold(source=source) for _ in range(2)]
    before = table(director)
    first.waits_for(lambda: served(director) == {"s1": 1, "s2": 1})
    first.kill()
    for one in held:
        one.goes_on()
    assert table(director) == before
    second = Program(director, pool).ready()
    for one in held:
        one.goes_on()
    assert table(director) == before
    # Entries that were made anew would count from 0.
    assert served(director) == {"s1": 1, "s2": 1}
    farm.servers["s1"].kill()
    second.waits_for(lambda: weights(director) == {"s2": 1})


def test_what_went_while_the_program_was_away_goes_from_the_table(
    farm: Farm, director: Host
) -> None:
    pool = one_pool("s1", "s2", "s3", state_file=str(director.directory / "state"))
    first = Program(director, pool).ready()
    held = [farm.hold(source=FAR) for _ in range(3)]
    first.kill()
    less = one_pool("s1", "s2", state_file=str(director.directory / "state"))
    Program(director, less).ready()
    assert weights(director) == {"s1": 1, "s2": 1}
    for one in held:
        if one.who != "s3":
            one.goes_on()


@pytest.mark.parametrize("at_exit", ["keep", "remove"])
def test_at_exit(farm: Farm, director: Host, at_exit: str) -> None:
    program = Program(director, one_pool("s1", "s2", at_exit=at_exit)).ready()
    held = farm.hold(source=FAR)
    other = {"s1": "s2", "s2": "s1"}[held.who]
    if at_exit == "keep":
        program.command("disable", held.who)
        program.waits_for(lambda: weights(director) == {held.who: 0, other: 1})
    before = table(director)
    program.stop()
    assert table(director) == (before if at_exit == "keep" else [])
    if at_exit == "keep":
        held.goes_on()
        assert farm.many(2, source=FAR) == {other: 2}
        # The next run cannot know that it was disabled, and must not cut its connection.
        Program(director, one_pool("s1", "s2")).waits_for(
            lambda: weights(director) == {"s1": 1, "s2": 1}
        )
        held.goes_on()
    else:
        assert farm.many(1, source=FAR) == {"ConnectionRefusedError": 1}


def test_what_others_change_is_put_right(farm: Farm, director: Host) -> None:
    foreign = f"-A -u {VIP}:53 -s rr"
    director.run(["ipvsadm", *foreign.split()])
    program = Program(director, one_pool("s1", "s2", poll_interval=0.3)).ready()
    right = table(director)
    assert foreign in right
    service = ["-t", f"{VIP}:{PORT}"]
    for change in (
        ["-d", *service, "-r", endpoint("s1")],
        ["-e", *service, "-r", endpoint("s1"), "-m", "-w", "7"],
        ["-a", *service, "-r", endpoint("s3"), "-m"],
        ["-E", *service, "-s", "wlc"],
        ["-D", *service],
    ):
        with program.another("TableRepaired"):
            director.run(["ipvsadm", *change])
        assert table(director) == right
    assert farm.many(4, source=FAR) == {"s1": 2, "s2": 2}


def served(director: Host) -> dict[str, int]:
    """Connections that each real server has had since its entry was made."""
    listing = director.run(["ipvsadm", "-Ln", "--stats"])
    rows = re.findall(r"-> 10\.0\.0\.1(\d):\d+ +(\d+)", listing)
    return {f"s{number}": int(count) for number, count in rows}
