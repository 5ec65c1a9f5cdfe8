"""Real BFD daemons inside a laboratory: FRR's bfdd and keepalived's BFD process."""

from __future__ import annotations

import json
import re
import shutil
import signal
import subprocess
from pathlib import Path
from typing import Protocol, cast

from system.lab import Host, alive, kill_all, wait_until
from system.peers import FRR_DIRECTORY, KEEPALIVED, ZEBRA

BFDD = str(FRR_DIRECTORY / "bfdd")
PROGRAMS = (KEEPALIVED, ZEBRA, BFDD, "vtysh")


class BFDDaemon(Protocol):
    """What the tests need of a daemon with one session."""

    multiplier: int
    """How many of its packets may be missed."""
    interval: float
    """Seconds between its packets, at the least."""

    def start(self) -> None:
        """Start, and return when it has begun."""

    def stop(self) -> None:
        """End in good order."""

    def kill9(self) -> None:
        """End at once, saying nothing."""

    def up(self) -> bool:
        """Whether it says that its session is Up."""
        ...


# Ten packets, for a machine that does other things too may keep a daemon waiting for half a second.


class Bfdd:
    """FRR's zebra and bfdd with one session, 100 ms and ten packets."""

    multiplier = 10
    interval = 0.1

    def __init__(self, host: Host, neighbor: str, own: str, *, multihop: bool = False) -> None:
        self.host = host
        endpoint = f"local-address {own}"
        endpoint = f"multihop {endpoint}" if multihop else f"{endpoint} interface {host.dev}"
        self.peer = f"peer {neighbor} {endpoint}"
        self._directory = host.directory / "bfdd"
        self._directory.mkdir()
        lines = [
            "bfd",
            f" {self.peer}",
            *(["  minimum-ttl 250"] if multihop else []),
            "  receive-interval 100",
            "  transmit-interval 100",
            f"  detect-multiplier {self.multiplier}",
            "  no shutdown",
            "",
        ]
        (self._directory / "bfdd.conf").write_text("\n".join(lines))
        (self._directory / "zebra.conf").write_text("")
        # The daemons change to this user; as root they refuse to start (vty group).
        for path in (self._directory, *self._directory.iterdir()):
            shutil.chown(path, "frr", "frr")
        self._zebra: subprocess.Popen[bytes] | None = None
        self._bfdd: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        if self._zebra is None:
            self._zebra = self._daemon(ZEBRA)
            wait_until((self._directory / "zserv.api").exists, 15, "zebra's socket")
        self._bfdd = self._daemon(BFDD, "--bfdctl", str(self._directory / "bfdd.sock"))
        wait_until((self._directory / "bfdd.vty").exists, 15, "bfdd's socket")

    def stop(self) -> None:
        assert self._bfdd is not None
        self._bfdd.terminate()
        self._bfdd.wait(10)

    def kill9(self) -> None:
        assert self._bfdd is not None
        self._bfdd.kill()
        self._bfdd.wait(10)
        (self._directory / "bfdd.vty").unlink(missing_ok=True)

    def up(self) -> bool:
        return self.status()["status"] == "up"

    def status(self) -> dict[str, object]:
        """What it shows of its session."""
        shown = json.loads(self.vtysh("show bfd peers json"))
        return cast("dict[str, object]", shown[0])

    def configure(self, *lines: str) -> None:
        """Change its session."""
        self.vtysh("configure terminal", "bfd", self.peer, *lines)

    def vtysh(self, *commands: str) -> str:
        """Give it commands."""
        argv = ["vtysh", "--vty_socket", str(self._directory)]
        return self.host.run([*argv, *(part for line in commands for part in ("-c", line))])

    def _daemon(self, program: str, *more: str) -> subprocess.Popen[bytes]:
        directory, name = self._directory, Path(program).name
        return self.host.popen(
            [
                program,
                *("--user", "frr", "--group", "frr"),
                *("--config_file", str(directory / f"{name}.conf")),
                *("--pid_file", str(directory / f"{name}.pid")),
                *("--socket", str(directory / "zserv.api")),
                *("--vty_socket", str(directory)),
                *("--vty_port", "0"),
                *more,
            ],
            log=directory / f"{name}.out",
        )


class KeepalivedBFD:
    """keepalived with one ``bfd_instance``, 100 ms and ten packets, and a virtual router without
    which it would have nothing to tell."""

    multiplier = 10
    interval = 0.1

    def __init__(self, host: Host, neighbor: str, own: str) -> None:
        self.host = host
        self._directory = host.directory / "keepalived-bfd"
        self._directory.mkdir()
        # Over IPv6 it would send with hop limit 64, which no single-hop session may accept.
        hops = "hoplimit 255" if ":" in neighbor else "ttl 255"
        (self._directory / "keepalived.conf").write_text(
            f"""
            bfd_instance peer {{
                source_ip {own}
                neighbor_ip {neighbor}
                min_rx 100
                min_tx 100
                multiplier {self.multiplier}
                {hops}
            }}
            vrrp_instance vip {{
                interface {host.dev}
                virtual_router_id 51
                virtual_ipaddress {{
                    198.51.100.10/32
                }}
                track_bfd {{
                    peer
                }}
            }}
            """
        )
        self._log = self._directory / "log"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        seen = len(self.log())
        pids = [f"--{kind}pid={self._directory / f'{kind}pid'}" for kind in ("", "vrrp_", "bfd_")]
        self._process = self.host.popen(
            [
                KEEPALIVED,
                *("--dont-fork", "--log-console", "--log-detail", "--no-syslog"),
                f"--use-file={self._directory / 'keepalived.conf'}",
                *pids,
            ],
            log=self._log,
            env={"TMPDIR": str(self._directory)},
        )
        wait_until(lambda: "Startup complete" in self.log()[seen:], 10, "keepalived")

    def stop(self) -> None:
        assert self._process is not None
        self._process.terminate()
        self._process.wait(10)

    def kill9(self) -> None:
        assert self._process is not None
        # The parent is halted first: alive it would start new children.
        self._process.send_signal(signal.SIGSTOP)
        pid = self._process.pid
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        kill_all([*map(int, children), pid])
        self._process.wait(10)
        wait_until(lambda: not any(alive(int(child)) for child in children), 10, "its children")
        for path in self._directory.glob("*pid"):
            path.unlink()

    def up(self) -> bool:
        entered = re.findall(r"\(peer\) Entering (\w+) state", self.log())
        return bool(entered) and entered[-1] == "Up"

    def log(self) -> str:
        """All that it wrote since it was made."""
        return self._log.read_text(errors="replace") if self._log.exists() else ""
