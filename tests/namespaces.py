"""A network namespace with a cable in it, for tests of what the kernel does."""

from __future__ import annotations

import itertools
import json
import os
import shlex
import socket
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from vrrpkit.linux.netns import Namespace
from vrrpkit.linux.sysctl import read_proc
from vrrpkit.values import VIP

_numbers = itertools.count(1)

ETH_P_ALL = 3
OWN = "198.51.100.1/24"
OWN_6 = "fe80::1/64"


def until(condition: Callable[[], object], seconds: float = 3.0) -> None:
    """Poll until ``condition`` holds; for use outside of an event loop."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"not within {seconds} s"
        time.sleep(0.01)


class Net:
    """The namespace ``name`` with the cable eth0 - eth1; eth0 has :data:`OWN` and :data:`OWN_6`."""

    def __init__(self) -> None:
        self.name = f"vkh-{os.getpid()}-{next(_numbers)}"

    def __enter__(self) -> Self:
        _run(f"ip netns add {self.name}")
        self.ip("link set lo up")
        self.cable()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        _run(f"ip netns delete {self.name}")

    def cable(self) -> None:
        """Plug it in: from nothing to addresses that may be used."""
        self.ip("link add eth0 address 02:00:00:00:00:01 type veth peer name eth1")
        for dev in ("eth0", "eth1"):
            self.set(f"ipv6/conf/{dev}/addr_gen_mode", 1)
            self.ip(f"link set {dev} up")
        self.ip(f"address add {OWN} dev eth0")
        self.ip(f"address add {OWN_6} dev eth0 nodad")

    def ip(self, command: str) -> str:
        """Run ``ip`` in the namespace."""
        return _run(f"ip -n {self.name} {command}")

    def python(self, code: str, *prefix: str) -> subprocess.Popen[str]:
        """Start a Python program on the same interpreter, not in the namespace."""
        import sys

        return subprocess.Popen(
            [*prefix, sys.executable, "-c", code],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)},
        )

    def addresses(self, dev: str = "eth0") -> dict[str, dict[str, Any]]:
        """What ``ip address`` says of each address, by ``ADDRESS/PREFIX``."""
        found = json.loads(self.ip(f"-j -d address show dev {dev}"))
        return {
            f"{info['local']}/{info['prefixlen']}": info
            for link in found
            for info in link["addr_info"]
        }

    def links(self) -> dict[str, dict[str, Any]]:
        """What ``ip link`` says of each link, by name."""
        return {link["ifname"]: link for link in json.loads(self.ip("-j -d link show"))}

    def get(self, name: str) -> int:
        """A kernel setting below ``/proc/sys/net``."""
        namespace = Namespace(self.name)
        with namespace.inside():
            value = int(read_proc(f"/proc/sys/net/{name}"))
        namespace.close()
        return value

    def set(self, name: str, value: int) -> None:
        """Change a kernel setting."""
        namespace = Namespace(self.name)
        with namespace.inside():
            Path(f"/proc/sys/net/{name}").write_text(str(value))
        namespace.close()

    def sniffer(self, dev: str = "eth1") -> socket.socket:
        """A socket that hears every frame arriving at ``dev``."""
        namespace = Namespace(self.name)
        sock = namespace.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_NONBLOCK, 0)
        sock.bind((dev, ETH_P_ALL))
        namespace.close()
        return sock


KERNEL_CHATTER = tuple(bytes.fromhex(f"3333000000{last}") for last in ("02", "16"))
"""Where router solicitations and multicast listener reports go, which kernels send at any time."""


def heard(sock: socket.socket) -> list[bytes]:
    """The frames that wait in a sniffer, but for what kernels say of themselves."""
    frames = []
    while True:
        try:
            frame = sock.recv(2048)
        except BlockingIOError:
            return frames
        if not frame.startswith(KERNEL_CHATTER):
            frames.append(frame)


def _run(command: str) -> str:
    done = subprocess.run(shlex.split(command), capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{command}: {done.stderr}"
    return done.stdout


@dataclass
class Listener:
    """Notes what it hears of its addresses."""

    acquisitions: int = 0
    refusals: list[tuple[VIP, OSError]] = field(default_factory=list)
    losses: list[str] = field(default_factory=list)

    def acquired(self) -> None:
        self.acquisitions += 1

    def refused(self, failures: Sequence[tuple[VIP, OSError]]) -> None:
        self.refusals += failures

    def usable(self, vip: VIP) -> None:
        pass

    def duplicate(self, vip: VIP) -> None:
        pass

    def lost(self, vip: VIP) -> None:
        self.losses.append(str(vip))
