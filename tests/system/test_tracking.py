"""Scripts decide who is MASTER, beside keepalived with the same ones."""

from __future__ import annotations

import time
from collections.abc import Callable
from itertools import pairwise

import pytest

from system.lab import Host, Lab, require_root_and, wait_until
from system.ours import DOWN, INTERVAL, SKEW, Vrrpkit, mastered, router, settled, tracking
from system.peers import KEEPALIVED, Keepalived, keepalived_conf
from system.scenario import HIGH, LOW, VIP4, VRID, Bench, announced, goodbyes, last_advert
from system.wire import Advert

pytestmark = pytest.mark.system

needs_keepalived = pytest.mark.skipif(
    require_root_and(KEEPALIVED) is not None, reason=require_root_and(KEEPALIVED) or "installed"
)

EARLY = 0.002
#: What a busy machine may add.
LATE = 5 * INTERVAL
#: Moves the higher one below the lower one.
ENOUGH = -60


def keepalived(host: Host, priority: int, *, track: str = "", head: str = "") -> Keepalived:
    config = keepalived_conf(
        vrid=VRID,
        vips=[f"{VIP4}/32"],
        priority=priority,
        interval=INTERVAL,
        options={"garp_master_delay": 1, **({track: None} if track else {})},
    )
    return Keepalived(host, head + config)


class Flag:
    """A file that a script looks for: while it is there, the script fails."""

    def __init__(self, lab: Lab) -> None:
        self.path = lab.directory / "sick"
        self.argv = ["/usr/bin/test", "!", "-e", str(self.path)]

    def track(self, weight: int, **options: object) -> dict[str, object]:
        return {
            "kind": "TrackScript",
            "args": [self.argv],
            "weight": weight,
            "interval": 0.1,
            **options,
        }

    def keepalived(self, weight: int) -> tuple[str, str]:
        """The head of a configuration, and what tracks it."""
        head = (
            "global_defs {\n  script_user root\n  enable_script_security\n}\n"
            f'vrrp_script fit {{\n  script "{" ".join(self.argv)}"\n  interval 1\n}}\n'
        )
        return head, f"track_script {{\n    fit weight {weight}\n  }}"

    def set(self) -> float:
        self.path.touch()
        return time.monotonic()

    def clear(self) -> float:
        self.path.unlink()
        return time.monotonic()


@needs_keepalived
@pytest.mark.parametrize("ours_high", [True, False], ids=["ours-high", "ours-low"])
def test_a_script_with_weight_0_makes_a_fault_and_its_recovery_brings_back(
    bench: Bench, ours_high: bool
) -> None:
    flag = Flag(bench.lab)
    head, track = flag.keepalived(0)
    high: Vrrpkit | Keepalived
    low: Vrrpkit | Keepalived
    if ours_high:
        high, low = tracking(bench.a, flag.track(0)), keepalived(bench.b, LOW)
    else:
        high, low = keepalived(bench.a, HIGH, track=track, head=head), router(bench.b, LOW)
    settled(high, low)
    sick = flag.set()
    wait_until(lambda: high.state() == "FAULT", 5, "FAULT")
    goodbye = bench.wire.wait_for(Advert, lambda a: a.priority == 0, since=sick).time
    at = announced(bench, VIP4, goodbye, bench.b.mac) - goodbye
    assert SKEW - EARLY < at < SKEW + LATE
    assert not high.owns(VIP4)
    if ours_high:
        assert len(goodbyes(bench, sick)) == 1
    well = flag.clear()
    announced(bench, VIP4, well, bench.a.mac)
    wait_until(lambda: (high.state(), low.state()) == ("MASTER", "BACKUP"), 5, "back again")


@needs_keepalived
@pytest.mark.parametrize("ours_high", [True, False], ids=["ours-high", "ours-low"])
def test_a_master_whose_priority_drops_serves_until_the_other_ones_timer_ends(
    bench: Bench, ours_high: bool
) -> None:
    flag = Flag(bench.lab)
    head, track = flag.keepalived(ENOUGH)
    high: Vrrpkit | Keepalived
    low: Vrrpkit | Keepalived
    if ours_high:
        high, low = tracking(bench.a, flag.track(ENOUGH)), keepalived(bench.b, LOW)
    else:
        high, low = keepalived(bench.a, HIGH, track=track, head=head), router(bench.b, LOW)
    settled(high, low)
    sick = flag.set()
    lowered = bench.wire.wait_for(Advert, lambda a: a.priority == HIGH + ENOUGH, since=sick)
    accepted = last_advert(bench, HIGH, lowered.time).time
    took = announced(bench, VIP4, sick, bench.b.mac)
    assert DOWN - EARLY < took - accepted < DOWN + LATE
    # Until then it served, and repeated its lower priority, which nobody accepts.
    kept = [a for a in bench.wire.adverts(VRID, lowered.time) if a.source == bench.a.address]
    assert len(kept) >= 2
    assert {a.priority for a in kept} == {HIGH + ENOUGH}
    wait_until(lambda: not high.owns(VIP4), 2, "the retreat")
    wait_until(lambda: (high.state(), low.state()) == ("BACKUP", "MASTER"), 5, "roles changed")
    assert not goodbyes(bench, 0)
    well = flag.clear()
    announced(bench, VIP4, well, bench.a.mac)


def test_a_weight_that_is_too_small_moves_nothing_and_says_so(bench: Bench) -> None:
    flag = Flag(bench.lab)
    high, low = tracking(bench.a, flag.track(LOW - HIGH)), router(bench.b, LOW)
    low.start()
    mastered(low, VIP4)
    high.start()
    mastered(high, VIP4)
    # One less would do; that many only make the priorities equal.
    (warning,) = high.events("WeightTooSmall")
    assert (warning["weight"], warning["enough"]) == (LOW - HIGH, HIGH - LOW + 1)
    sick = flag.set()
    bench.wire.wait_for(
        Advert, lambda a: a.source == bench.a.address and a.priority == LOW, since=sick
    )
    time.sleep(2 * DOWN)
    assert (high.state(), low.state()) == ("MASTER", "BACKUP")
    assert high.transitions(sick) == []


class Scripted:
    """A script whose exit codes are written down beforehand, and that writes down its runs."""

    def __init__(self, host: Host, codes: str) -> None:
        self._log = host.directory / "runs"
        self._log.touch()
        file = host.directory / "codes"
        file.write_text(codes + "0" * 200)
        self.path = host.directory / "script.sh"
        self.path.write_text(
            f"""\
#!/bin/sh
date +%s.%N >> {self._log}
exit $(cut -c $(wc -l < {self._log}) {file})
"""
        )
        self.path.chmod(0o755)

    @property
    def runs(self) -> list[float]:
        """When it ran, in seconds of the real time."""
        return [float(line) for line in self._log.read_text().split()]

    def until(self, condition: Callable[[], bool], what: str) -> int:
        """How often it had run when something was seen."""
        wait_until(condition, 30, what)
        return len(self.runs)


@needs_keepalived
def test_rise_and_fall_are_counted_as_keepalived_does(lab: Lab) -> None:
    # Up at once; two failures and a success count for nothing; the third failure in a row is down;
    # one success is not enough for up, nor are two with a failure between them.
    codes = "0110111" + "01001"
    ours_host, their_host = lab.host("a", "192.0.2.1/24"), lab.host("b", "192.0.2.2/24")
    one, other = Scripted(ours_host, codes), Scripted(their_host, codes)
    ours = router(
        ours_host,
        track=[
            {"kind": "TrackScript", "args": [[str(one.path)]], "interval": 1, "rise": 2, "fall": 3}
        ],
    )
    head = (
        "global_defs {\n  script_user root\n  enable_script_security\n}\n"
        f'vrrp_script fit {{\n  script "{other.path}"\n  interval 1\n  rise 2\n  fall 3\n}}\n'
    )
    # Another virtual router: the two shall not meet.
    config = keepalived_conf(
        vrid=VRID + 1,
        vips=["192.0.2.11/32"],
        interval=INTERVAL,
        options={"track_script {\n    fit\n  }": None},
    )
    theirs = Keepalived(their_host, head + config)
    ours.start()
    theirs.start()
    counted: list[list[int]] = []
    for script, peer in ((one, ours), (other, theirs)):
        # Which run it was that made the difference: the state follows within milliseconds.
        counted.append([script.until(lambda p=peer: p.state() == "FAULT", "FAULT")])
    for runs, (script, peer) in zip(counted, ((one, ours), (other, theirs)), strict=True):
        runs.append(script.until(lambda p=peer: p.state() != "FAULT", "no FAULT"))
    assert counted == [[7, 11], [7, 11]]
    # A run that begins late does not put off the next one.
    gaps = [later - earlier for earlier, later in pairwise(one.runs)]
    assert 0.9 < sum(gaps) / len(gaps) < 1.1, gaps


def test_runs_never_overlap_and_one_that_traps_sigterm_fails(lab: Lab) -> None:
    host = lab.host("a", "192.0.2.1/24")
    log = host.directory / "log"
    script = host.directory / "slow.sh"
    script.write_text(
        f"""\
#!/bin/sh
trap 'echo end >> {log}; exit 0' TERM
echo begin >> {log}
while :; do sleep 0.05; done
"""
    )
    script.chmod(0o755)
    track = {"kind": "TrackScript", "args": [[str(script)]], "interval": 0.1, "timeout": 0.35}
    ours = tracking(host, track)
    ours.start()
    wait_until(lambda: log.exists() and len(log.read_text().split()) >= 8, 10, "four runs")
    words = log.read_text().split()
    assert words[:8] == ["begin", "end"] * 4
    assert ours.state() == "FAULT"
    ours.stop()
    # Nothing of the script is left.
    assert log.read_text().split()[-1] == "end"
    assert str(script) not in host.run(["ps", "-e", "-o", "args"])


def test_a_script_runs_as_another_user_and_root_runs_none_that_others_can_write_to(
    lab: Lab,
) -> None:
    host = lab.host("a", "192.0.2.1/24")
    script = host.directory / "who.sh"
    script.write_text("#!/bin/sh\ntest $(id -u) = 65534\n")
    script.chmod(0o777)
    track = {"kind": "TrackScript", "args": [[str(script)]], "interval": 0.1}
    ours = tracking(host, track | {"user": "nobody"})
    ours.start()
    mastered(ours, VIP4)
    ours.stop()
    ours.options["track"] = [track]
    text = ours.fails()
    assert f"{script} would run as root, but {script} can be written to by everybody" in text
