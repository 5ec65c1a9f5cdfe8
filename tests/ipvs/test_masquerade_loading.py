"""What masquerading needs is loaded aside."""

from __future__ import annotations

import subprocess
import sys

TEXT = """
import asyncio, sys, threading
from vrrpkit import KernelTable, MemoryTable
from vrrpkit.ipvs.masquerade.lifecycle import load_rules

RULES = "vrrpkit.ipvs.masquerade.rules"
at_home = []

class Watch:
    def find_spec(self, name, path=None, target=None):
        if threading.current_thread() is threading.main_thread():
            at_home.append(name)

async def main():
    sys.meta_path.insert(0, Watch())
    await load_rules(MemoryTable())
    print(RULES in sys.modules)
    await load_rules(KernelTable())
    print(RULES in sys.modules, RULES in at_home)

asyncio.run(main())
"""


def test_the_rules_are_loaded_aside_and_for_the_kernel_only() -> None:
    done = subprocess.run(
        [sys.executable, "-c", TEXT], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.split() == ["False", "True", "False"], done.stderr


POOL = """
import asyncio, sys
from vrrpkit import MemoryTable, VirtualServer

async def main():
    table, servers = MemoryTable(), ["10.0.0.1:80"]
    async with VirtualServer("192.0.2.10:80/tcp", servers=servers, table=table, masquerade=True):
        print(*(name for name in sys.modules if name.startswith("vrrpkit.ipvs.kernel.")))
        print("vrrpkit.linux.netlink" in sys.modules)

asyncio.run(main())
"""


def test_a_pool_in_memory_loads_no_netlink() -> None:
    done = subprocess.run(
        [sys.executable, "-c", POOL], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.splitlines() == ["", "False"], done.stderr
