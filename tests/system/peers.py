"""Real VRRP daemons inside a laboratory: keepalived and FRR's vrrpd."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
from collections.abc import Mapping, Sequence
from ipaddress import ip_interface
from pathlib import Path
from typing import Protocol, cast

from system.lab import Host, alive, kill_all, wait_until

KEEPALIVED = "keepalived"
FRR_DIRECTORY = Path("/usr/lib/frr")
ZEBRA = str(FRR_DIRECTORY / "zebra")
VRRPD = str(FRR_DIRECTORY / "vrrpd")
FRR_PROGRAMS = (ZEBRA, VRRPD, "vtysh")

INITIALIZE, BACKUP, MASTER, FAULT = "INIT", "BACKUP", "MASTER", "FAULT"


class Peer(Protocol):
    """What a scenario needs of a daemon, whichever it is."""

    host: Host

    def start(self) -> None:
        """Start and wait until the daemon has taken part."""

    def stop(self) -> None:
        """End in good order: a master releases."""

    def kill9(self) -> None:
        """End at once, releasing nothing."""

    def restart(self) -> None:
        """Stop if running, then start."""

    def owns(self, address: str) -> bool:
        """Whether the host answers for a VIP now."""
        ...


def keepalived_conf(
    *,
    vrid: int,
    vips: Sequence[str],
    priority: int = 100,
    name: str = "vip",
    dev: str = "eth0",
    interval: float = 1,
    version: int = 3,
    state: str = BACKUP,
    auth_pass: str | None = None,
    unicast_src: str | None = None,
    unicast_peers: Sequence[str] = (),
    use_vmac: bool | str = False,
    nopreempt: bool = False,
    options: Mapping[str, str | int | float | None] | None = None,
) -> str:
    """A ``vrrp_instance`` block.

    ``vips`` are written as they are (``"192.0.2.10/24 dev eth0"``); their family is the instance's.
    ``interval`` is in seconds (``advert_int``). ``options`` holds further keywords of the block,
    None for those without a value (``{"garp_master_delay": 1, "vmac_xmit_base": None}``).
    """
    lines = [
        f"state {state}",
        f"interface {dev}",
        f"virtual_router_id {vrid}",
        f"priority {priority}",
        f"version {version}",
        f"advert_int {interval:g}",
    ]
    if use_vmac:
        lines.append("use_vmac" if use_vmac is True else f"use_vmac {use_vmac}")
    if nopreempt:
        lines.append("nopreempt")
    if auth_pass is not None:
        lines += ["authentication {", "  auth_type PASS", f"  auth_pass {auth_pass}", "}"]
    if unicast_src is not None:
        lines.append(f"unicast_src_ip {unicast_src}")
    if unicast_peers:
        lines += ["unicast_peer {", *(f"  {peer}" for peer in unicast_peers), "}"]
    for keyword, value in (options or {}).items():
        lines.append(keyword if value is None else f"{keyword} {value}")
    lines += ["virtual_ipaddress {", *(f"  {vip}" for vip in vips), "}"]
    return "\n".join([f"vrrp_instance {name} {{", *(f"  {line}" for line in lines), "}", ""])


def sync_group_conf(name: str, members: Sequence[str], *lines: str) -> str:
    """A ``vrrp_sync_group`` block with further ``lines``."""
    body = ["group {", *(f"  {member}" for member in members), "}", *lines]
    return "\n".join([f"vrrp_sync_group {name} {{", *(f"  {line}" for line in body), "}", ""])


class Keepalived:
    """Debian's keepalived in the foreground of a host, with files of its own."""

    def __init__(self, host: Host, config: str) -> None:
        self.host = host
        self.config = config
        self._directory = host.directory / "keepalived"
        self._directory.mkdir()
        self._log = self._directory / "log"
        self._log.touch()
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, timeout: float = 10) -> None:
        """Start and wait until an instance has entered its first state."""
        assert self._process is None, "already running"
        config = self._directory / "keepalived.conf"
        config.write_text(self.config)
        seen = len(self.log())
        pids = [f"--{kind}pid={self._directory / f'{kind}pid'}" for kind in ("", "vrrp_")]
        self._process = process = self.host.popen(
            [
                KEEPALIVED,
                "--dont-fork",
                "--log-console",
                "--log-detail",
                "--no-syslog",
                "--vrrp",
                f"--use-file={config}",
                *pids,
            ],
            log=self._log,
            env={"TMPDIR": str(self._directory)},
        )
        wait_until(
            lambda: process.poll() is not None or "Entering" in self.log()[seen:],
            timeout,
            f"keepalived on {self.host.name}",
        )
        if process.poll() is not None:
            self._process = None
            raise RuntimeError(f"keepalived ended: {self.log()[seen:]}")

    def stop(self, timeout: float = 10) -> None:
        """SIGTERM: a master sends priority 0 and removes its VIPs. Waits for the end."""
        process = self._running()
        process.terminate()
        process.wait(timeout)
        self._process = None

    def kill9(self) -> None:
        """Die at once, releasing nothing; the VIPs stay on the interface."""
        process = self._running()
        # The parent is halted first: alive it would start a new child, and dead it would make
        # the kernel send SIGTERM to the child, which then releases.
        process.send_signal(signal.SIGSTOP)
        children = _children(process.pid)
        kill_all([*children, process.pid])
        process.wait(10)
        wait_until(lambda: not any(map(alive, children)), 10, "the children's end")
        self._process = None
        # Whoever finds a pid file and a not yet reaped child believes it to be running.
        for path in self._directory.glob("*pid"):
            path.unlink()

    def restart(self) -> None:
        """Stop if running, then start."""
        if self._process is not None:
            self.stop()
        self.start()

    def reload(self, config: str) -> None:
        """Give it another configuration with SIGHUP."""
        self.config = config
        (self._directory / "keepalived.conf").write_text(config)
        self._running().send_signal(signal.SIGHUP)

    def state(self, name: str = "vip") -> str | None:
        """The state last entered by an instance, in capitals; None if not running."""
        if self._process is None:
            return None
        entered = re.findall(rf"\({re.escape(name)}\) Entering (\w+) STATE", self.log())
        return entered[-1] if entered else None

    def owns(self, address: str) -> bool:
        """Whether the host carries the VIP now (after :meth:`kill9` it still does)."""
        return self.host.has(address)

    def log(self) -> str:
        """All that it wrote since it was made."""
        return self._log.read_text(errors="replace")

    def _running(self) -> subprocess.Popen[bytes]:
        assert self._process is not None, "not running"
        return self._process


class FRR:
    """FRR's zebra and vrrpd on a host, one VRID, for each family that has VIPs.

    FRR expects what it does not make itself: a macvlan in bridge mode with the virtual MAC per
    family (``vrrp4-<vrid>``, ``vrrp6-<vrid>``) which carries the VIPs. A Backup keeps them there
    and takes the macvlan's carrier away through zebra ("protodown").
    """

    def __init__(
        self,
        host: Host,
        *,
        vrid: int,
        vips: Sequence[str],
        priority: int = 100,
        interval: float = 1,
        version: int = 3,
        preempt: bool = True,
    ) -> None:
        self.host = host
        self.vrid = vrid
        self._directory = host.directory / "frr"
        self._directory.mkdir()
        self._log = self._directory / "vrrpd.log"
        self._vips = [ip_interface(vip) for vip in vips]
        self._zebra: subprocess.Popen[bytes] | None = None
        self._vrrpd: subprocess.Popen[bytes] | None = None
        self._write_config(priority, round(interval * 1000), version, preempt)
        self._make_macvlans()

    @property
    def families(self) -> tuple[int, ...]:
        """4, 6 or both: those that have VIPs."""
        return tuple(sorted({vip.version for vip in self._vips}))

    def macvlan(self, family: int) -> str:
        """The interface with the virtual MAC of a family."""
        return f"vrrp{family}-{self.vrid}"

    def virtual_mac(self, family: int) -> str:
        """The virtual MAC of a family (RFC 9568 section 7.3)."""
        return f"00:00:5e:00:0{1 if family == 4 else 2}:{self.vrid:02x}"

    @property
    def link_local(self) -> str:
        """The link-local address of the IPv6 macvlan, which IPv6 adverts come from."""
        return self.host.link_local.replace("fe80::", f"fe80::{self.vrid:x}:")

    def start(self, timeout: float = 15) -> None:
        """Start zebra, then vrrpd, and wait until every family has left Initialize."""
        assert self._vrrpd is None, "already running"
        seen = len(self.log())
        self._zebra = self._daemon(ZEBRA)
        # vrrpd retries a missing zebra only after seconds.
        wait_until((self._directory / "zserv.api").exists, timeout, "zebra's socket")
        self._vrrpd = vrrpd = self._daemon(VRRPD)
        wait_until(
            lambda: vrrpd.poll() is not None or self._all_started(self.log()[seen:]),
            timeout,
            f"vrrpd on {self.host.name}",
        )
        if vrrpd.poll() is not None:
            raise RuntimeError(f"vrrpd ended with {vrrpd.returncode}: {self.log()[seen:]}")

    def stop(self, timeout: float = 10) -> None:
        """SIGTERM to vrrpd: a Master sends priority 0 and asks zebra to set protodown.

        zebra goes last, once the macvlans have lost their carrier.
        """
        vrrpd, zebra = self._running()
        vrrpd.terminate()
        vrrpd.wait(timeout)
        wait_until(lambda: not any(map(self._up, self.families)), timeout, "protodown")
        zebra.terminate()
        zebra.wait(timeout)
        self._forget()

    def kill9(self) -> None:
        """Die at once, releasing nothing; a Master's macvlans stay up with the VIPs."""
        vrrpd, zebra = self._running()
        # zebra first and halted: it might undo what its lost client had asked for.
        zebra.send_signal(signal.SIGSTOP)
        kill_all([vrrpd.pid, zebra.pid])
        vrrpd.wait(10)
        zebra.wait(10)
        self._forget()

    def restart(self) -> None:
        """Stop if running, then start."""
        if self._vrrpd is not None:
            self.stop()
        self.start()

    def state(self, family: int = 4) -> str | None:
        """INIT, BACKUP or MASTER from the log of state changes; None if not running."""
        if self._vrrpd is None:
            return None
        pattern = rf"\[VRID {self.vrid}\] \[IPv{family}\] \w+ -> (\w+)"
        entered = re.findall(pattern, self.log())
        return {"Initialize": INITIALIZE}.get(entered[-1], entered[-1].upper()) if entered else None

    def status(self) -> dict[str, object]:
        """What ``show vrrp json`` reports; its keys ``v4`` and ``v6`` hold the families."""
        command = ["vtysh", "--vty_socket", str(self._directory), "-c", "show vrrp json"]
        return cast(list[dict[str, object]], json.loads(self.host.run(command)))[0]

    def owns(self, address: str) -> bool:
        """Whether the VIP's macvlan has its carrier (after :meth:`kill9` it still may)."""
        return self._up(ip_interface(address).version)

    def log(self) -> str:
        """All that vrrpd wrote since it was made."""
        return self._log.read_text(errors="replace") if self._log.exists() else ""

    def _write_config(self, priority: int, milliseconds: int, version: int, preempt: bool) -> None:
        vrrp = f" vrrp {self.vrid}"
        lines = [
            "log timestamp precision 6",
            f"log file {self._log}",
            "debug vrrp protocol",
            f"interface {self.host.dev}",
            f"{vrrp} version {version}",
            f"{vrrp} priority {priority}",
            f"{vrrp} advertisement-interval {milliseconds}",
            *([] if preempt else [f" no vrrp {self.vrid} preempt"]),
            *(f"{vrrp} {'ip' if vip.version == 4 else 'ipv6'} {vip.ip}" for vip in self._vips),
        ]
        (self._directory / "vrrpd.conf").write_text("\n".join([*lines, ""]))
        (self._directory / "zebra.conf").write_text(f"log file {self._directory}/zebra.log\n")
        # The daemons change to this user; as root they refuse to start (vty group).
        for path in (self._directory, *self._directory.iterdir()):
            shutil.chown(path, "frr", "frr")

    def _make_macvlans(self) -> None:
        host = self.host
        host.sysctl(
            {
                # A Backup's macvlan keeps the VIPs: the parent must not answer ARP for them,
                "net/ipv4/conf/all/arp_ignore": 1,
                # nor a Master's parent ask with a VIP as sender, which spoils its askers' caches.
                "net/ipv4/conf/all/arp_announce": 2,
                "net/ipv4/conf/all/ignore_routes_with_linkdown": 1,
            }
        )
        for family in self.families:
            dev = self.macvlan(family)
            host.ip(
                "link", "add", "link", host.dev, "name", dev, "type", "macvlan", "mode", "bridge"
            )
            # The link-local address derived from the virtual MAC would be the same on every router.
            host.ip("link", "set", "dev", dev, "addrgenmode", "none")
            host.sysctl(
                {
                    f"net/ipv4/conf/{dev}/rp_filter": 0,
                    f"net/ipv6/conf/{dev}/accept_dad": 0,
                    f"net/ipv6/conf/{dev}/accept_ra": 0,
                }
            )
            host.ip("link", "set", "dev", dev, "address", self.virtual_mac(family), "up")
        for vip in self._vips:
            nodad = ["nodad"] if vip.version == 6 else []
            host.ip("address", "add", str(vip), "dev", self.macvlan(vip.version), *nodad)
        if 6 in self.families:
            # Last: vrrpd sends from the newest link-local address, which must not be a VIP.
            own = f"{self.link_local}/64"
            host.ip("address", "add", own, "dev", self.macvlan(6), "nodad")

    def _daemon(self, program: str) -> subprocess.Popen[bytes]:
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
            ],
            log=directory / f"{name}.out",
        )

    def _all_started(self, log: str) -> bool:
        found = set(re.findall(rf"\[VRID {self.vrid}\] \[IPv(\d)\] Initialize -> \w+", log))
        return found == {str(family) for family in self.families}

    def _up(self, family: int) -> bool:
        return "LOWER_UP" in self.host.ip("link", "show", "dev", self.macvlan(family))

    def _running(self) -> tuple[subprocess.Popen[bytes], subprocess.Popen[bytes]]:
        assert self._vrrpd is not None and self._zebra is not None, "not running"
        return self._vrrpd, self._zebra

    def _forget(self) -> None:
        self._vrrpd = self._zebra = None
        # Left behind by a kill, it would make the next start believe that zebra is there.
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._directory / "zserv.api")


def _children(pid: int) -> list[int]:
    return [int(text) for text in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
