"""The programs in the README and the documentation run as they are copied, on real interfaces."""

from __future__ import annotations

import re
import signal
import subprocess
from pathlib import Path

import pytest

from system.lab import Host, Lab, require_root_and, wait_until

pytestmark = [
    pytest.mark.system,
    pytest.mark.skipif(require_root_and() is not None, reason=require_root_and() or "root"),
]

ROOT = Path(__file__).parent.parent.parent


def program(page: str, number: int) -> str:
    return re.findall(r"^```python\n(.*?)^```$", (ROOT / page).read_text(), re.M | re.S)[number]


def start(host: Host, page: str, number: int) -> subprocess.Popen[bytes]:
    """Run a block, which writes into the file ``output``."""
    path = host.directory / "program.py"
    path.write_text(program(page, number))
    return host.python(str(path), log=host.directory / "output")


def output(host: Host) -> str:
    return (host.directory / "output").read_text()


def ends(host: Host, running: subprocess.Popen[bytes]) -> None:
    running.send_signal(signal.SIGTERM)
    assert running.wait(20) == 0, output(host)


def second_link(a: Host, b: Host) -> None:
    a.ip("link", "add", "eth1", "type", "veth", "peer", "name", "eth1", "netns", b.namespace)
    for number, host in enumerate((a, b), 1):
        host.ip("address", "add", f"198.51.100.{number + 100}/24", "dev", "eth1")
        host.ip("link", "set", "eth1", "up")


def test_readme_virtual_router() -> None:
    with Lab() as lab:
        a = lab.host("a", "192.0.2.2/24")
        running = start(a, "README.md", 1)
        wait_until(lambda: a.has("192.0.2.10"), 15, output(a))
        ends(a, running)
        assert not a.has("192.0.2.10")
        assert "BACKUP -> MASTER" in output(a)


def test_readme_sync_group() -> None:
    with Lab() as lab:
        a, b = lab.host("a", "192.0.2.2/24"), lab.host("b", "192.0.2.3/24")
        second_link(a, b)
        running = start(a, "README.md", 3)
        # It asks once, and leaves.
        assert running.wait(30) == 0, output(a)
        assert "inside" in output(a) and "outside" in output(a)


def test_static_addresses() -> None:
    with Lab() as lab:
        a, b = lab.host("a", "192.0.2.2/24"), lab.host("b", "192.0.2.3/24")
        second_link(a, b)
        running = start(a, "docs/how-to/routes.md", 1)
        wait_until(lambda: a.has("198.51.100.7"), 15, output(a))
        wait_until(lambda: "198.51.100.254" in a.ip("route", "show", "table", "all"), 5, output(a))
        wait_until(lambda: "from 198.51.100.7" in a.ip("rule"), 5, output(a))
        ends(a, running)
        assert not a.has("198.51.100.7")
