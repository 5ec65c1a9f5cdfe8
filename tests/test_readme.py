"""What the README shows is true."""

from __future__ import annotations

import re
import subprocess
import sys
import textwrap
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
    test = blocks("python")[4]
    preamble = "import asyncio\nfrom vrrpkit.testing import Lan, virtual_time\n"
    python(f"{preamble}{test}\ntest_writer_follows_the_vip()\n")


def test_real_interface_snippet_names_what_exists() -> None:
    """The real thing runs in the system tests; here it runs against an interface in memory."""
    snippet = blocks("python")[1].replace('"eth0"', 'MemoryBus().interface("192.0.2.1")')
    body = textwrap.indent(snippet.replace("print(event)", "print(event); break"), "    ")
    code = (
        "from vrrpkit import MemoryBus, VRRPInstance\nfrom vrrpkit.testing import run_virtual\n"
        f"async def main():\n{body}\nrun_virtual(main())\n"
    )
    assert "MASTER" in python(code)


def test_links_lead_somewhere() -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        assert (ROOT / target).exists(), target


def test_two_commands_are_the_ones_that_ci_runs() -> None:
    assert "`.ci/nox -s demo`" in README and "`.ci/nox`" in README
    assert re.search(r"^\S*\.ci/nox\b", (ROOT / ".ci" / "run").read_text(), re.MULTILINE)


def test_virtual_server_snippet_names_what_exists() -> None:
    """On a table in memory, with a checker that needs no network."""
    snippet = blocks("python")[2].replace('HTTPChecker("/healthz", status=200, ', "Scripted(")
    snippet = snippet.replace("    servers=", "    table=MemoryTable(), servers=")
    code = (
        "from vrrpkit import MemoryTable, VirtualServer\n"
        "from vrrpkit.testing import run_virtual\n"
        "from vrrpkit.testing import ScriptedChecker as Scripted\n"
        f"async def main():\n{textwrap.indent(snippet, '    ')}"
        "    print(web.state, [server.name for server in web.servers])\n"
        "run_virtual(main())\n"
    )
    assert python(code) == "init ['10.0.0.2:8080']\n"


def test_sync_group_snippet_names_what_exists() -> None:
    """In memory, with a script that is everywhere and without a mail."""
    snippet = blocks("python")[3].replace("pgrep -x haproxy", "true")
    snippet = snippet.replace('to="ops@example.net"', 'to="ops@example.net", states=[]')
    code = (
        "import asyncio\n"
        "from vrrpkit import Mail, MemoryBus, SyncGroup, TrackScript, VRRPInstance\n"
        "def router(name, vrid):\n"
        "    interface = MemoryBus().interface('192.0.2.1')\n"
        "    return VRRPInstance(name, interface, vrid=vrid, vips=['192.0.2.10/24'])\n"
        "async def main():\n"
        "    inside, outside = router('inside', 1), router('outside', 2)\n"
        f"{textwrap.indent(snippet, '    ')}"
        "asyncio.run(main())\n"
    )
    # The script may or may not have ended by then.
    reason = python(code)
    assert "inside" in reason and "outside" in reason
