"""The machine itself: these run outside."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

from kernel.uml import Machine, missing, run_inside
from system.lab import alive, wait_until

pytestmark = [
    pytest.mark.kernel(outside=True),
    pytest.mark.skipif(missing() is not None, reason=missing() or ""),
]


def test_a_command_runs_on_a_kernel_with_ipvs() -> None:
    output = run_inside(["sh", "-c", "uname -m; ipvsadm -Sn && ls /sys/class/net && id -u"])
    assert output.split()[1:] == ["lo", "0"]


def test_a_command_that_fails_raises_with_its_output() -> None:
    with pytest.raises(RuntimeError, match=r"(?s)exit 7\n.*good bye"):
        run_inside(["sh", "-c", "echo good bye; exit 7"])


def test_a_machine_ends_with_its_block_and_leaves_nothing() -> None:
    with Machine(["sh", "-c", "echo here; sleep 600"]) as machine:
        wait_until(lambda: "here" in machine.output, 60)
        members = group(machine.pid)
        assert len(members) > 1
    wait_until(lambda: not group(machine.pid), 10)
    assert not machine.scratch.exists()


STARTER = """
import time
from kernel.uml import Machine
with Machine(["sleep", "600"]) as machine:
    print(machine.pid, machine.scratch, flush=True)
    time.sleep(600)
"""


def test_a_machine_ends_with_the_process_that_started_it() -> None:
    starter = subprocess.Popen(
        [sys.executable, "-c", STARTER],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])},
    )
    with starter:
        assert starter.stdout is not None
        pid, scratch = starter.stdout.readline().split()
        assert group(int(pid))
        starter.kill()
    wait_until(lambda: not group(int(pid)) and not os.path.exists(scratch), 10)


def test_time_is_up() -> None:
    with pytest.raises(TimeoutError, match=r"not done within 0\.5 s"):
        run_inside(["sleep", "600"], timeout=0.5)


def group(number: int) -> list[int]:
    """The living processes of a process group."""
    members = []
    for name in os.listdir("/proc"):
        if name.isdigit() and alive(int(name)):
            with contextlib.suppress(ProcessLookupError):
                if os.getpgid(int(name)) == number:
                    members.append(int(name))
    return members
