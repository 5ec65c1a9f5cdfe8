"""What the README shows is true."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)


def python(code: str, warned: str = "") -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, warned), done.stderr
    return done.stdout


def test_failover_prints_what_is_shown() -> None:
    warned = "a: MASTER -> FAULT: fault (interface-down)\n"
    assert python(blocks("python")[0], warned) == blocks("text")[0]


def test_application_test_passes() -> None:
    python(f"{blocks('python')[4]}\ntest_writer_follows_the_vip()\n")


def in_memory(number: int, *changes: tuple[str, str]) -> str:
    """A block, as it stands there but for what is in memory here. With real interfaces it runs in
    ``tests/system/test_blocks.py``."""
    block = blocks("python")[number]
    for old, new in changes:
        assert old in block, old
        block = block.replace(old, new)
    return block


def test_real_interface_program_runs_in_memory() -> None:
    program = in_memory(
        1,
        ('"eth0"', 'vrrpkit.MemoryBus().interface("192.0.2.1")'),
        ("print(event)", "print(event); break"),
    )
    assert "BACKUP -> MASTER" in python(program)


def test_links_lead_somewhere() -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        assert (ROOT / target).exists(), target


def test_two_commands_are_the_ones_that_ci_runs() -> None:
    assert "`.ci/nox -s demo`" in README and "`.ci/nox`" in README
    assert re.search(r"^\S*\.ci/nox\b", (ROOT / ".ci" / "run").read_text(), re.MULTILINE)


def test_virtual_server_program_runs_in_memory() -> None:
    """On a table in memory, with a checker that needs no network."""
    program = in_memory(
        2,
        ('HTTPChecker("/healthz", status=200, ', "ScriptedChecker("),
        ("HTTPChecker, ", "MemoryTable, "),
        ("import vrrpkit\n", "import vrrpkit\nfrom vrrpkit.testing import ScriptedChecker\n"),
        ("        servers=", "        table=MemoryTable(), servers="),
        ("interval=2", "interval=0.1"),
        ("timeout=60)\n", "timeout=60)\n        print([server.name for server in web.servers])\n"),
    )
    assert python(program) == "['10.0.0.2:8080']\n"


def test_sync_group_program_runs_in_memory() -> None:
    """With a script that is everywhere and without a mail."""
    program = in_memory(
        3,
        ("pgrep -x haproxy", "true"),
        ('to="ops@example.net"', 'to="ops@example.net", states=[]'),
        ('"eth0"', 'vrrpkit.MemoryBus().interface("192.0.2.2")'),
        ('"eth1"', 'vrrpkit.MemoryBus().interface("198.51.100.2")'),
    )
    # The script may or may not have ended by then.
    reason = python(program)
    assert "inside" in reason and "outside" in reason
