"""What an operator does: drain, restart, deploy; and what others do to the table."""

from __future__ import annotations

import re

import pytest

from kernel.farm import FAR, NEAR, PORT, VIP, Farm, endpoint, table, weights
from kernel.program import Program, one_pool
from system.lab import Host

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
