"""A laboratory of network namespaces: hosts on one switch, for tests against the real kernel.

Every :class:`Lab` builds one namespace holding a bridge and one namespace per host, joined by
veth pairs. Namespaces are called ``vk-<pid>-<number>-<name>``; veth pairs are created inside
them, so the machine's own namespace is never touched. Needs root and iproute2.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from ipaddress import ip_interface
from pathlib import Path
from types import TracebackType
from typing import Self, TypedDict, cast

NETNS_DIRECTORY = Path("/run/netns")
BRIDGE = "br0"
INTERFACE = "eth0"

_PREFIX = "vk"
_OURS = re.compile(rf"{_PREFIX}-(\d+)-\d+-.+")
_numbers = itertools.count(1)


def require_root_and(*programs: str) -> str | None:
    """Why system tests cannot run here, or None if they can.

    ``programs`` are names looked up on PATH (and in the sbin directories) or absolute paths.
    """
    if os.geteuid() != 0:
        return "needs root (network namespaces)"
    path = os.environ.get("PATH", "") + ":/usr/local/sbin:/usr/sbin:/sbin"
    missing = [
        name for name in ("ip", "bridge", *programs) if shutil.which(name, path=path) is None
    ]
    return f"needs {', '.join(missing)}" if missing else None


def wait_until(condition: Callable[[], bool], timeout: float, what: str = "condition") -> float:
    """Poll ``condition`` every 10 ms; return the monotonic time at which it held.

    Raises :class:`TimeoutError` after ``timeout`` seconds.
    """
    deadline = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what}: not within {timeout} s")
        time.sleep(0.01)
    return time.monotonic()


class _Address(TypedDict):
    local: str
    prefixlen: int


class _Link(TypedDict):
    ifname: str
    address: str
    addr_info: list[_Address]


class Host:
    """One namespace of a :class:`Lab`; made by :meth:`Lab.host`."""

    def __init__(
        self, name: str, namespace: str, directory: Path, dev: str, addresses: Sequence[str] = ()
    ) -> None:
        self.name = name
        self.namespace = namespace
        #: A scratch directory, removed with the laboratory.
        self.directory = directory
        self.dev = dev
        #: Own addresses with prefix length, the link-local included; VIPs are not in it.
        self.own_addresses = tuple(addresses)
        self._switch: Host | None = None
        self._processes: list[subprocess.Popen[bytes]] = []
        directory.mkdir(mode=0o755)

    @property
    def address(self) -> str:
        """The host's IPv4 address without prefix length."""
        return str(ip_interface(self.own_addresses[0]).ip)

    @property
    def link_local(self) -> str:
        """The host's fixed IPv6 link-local address."""
        return str(ip_interface(self.own_addresses[1]).ip)

    @property
    def mac(self) -> str:
        """The interface's MAC address, read from the kernel."""
        return self._links("dev", self.dev)[0]["address"]

    def run(
        self,
        argv: Sequence[str],
        *,
        check: bool = True,
        timeout: float = 30,
        stdin: str | None = None,
    ) -> str:
        """Run a command inside the namespace and return its output (stdout and stderr).

        Raises :class:`RuntimeError` with the output if it fails and ``check`` is set.
        """
        done = subprocess.run(
            ["ip", "netns", "exec", self.namespace, *argv],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            input=stdin,
            text=True,
            timeout=timeout,
            check=False,
        )
        if check and done.returncode != 0:
            raise RuntimeError(
                f"{self.name}: {' '.join(argv)}: exit {done.returncode}\n{done.stdout}"
            )
        return done.stdout

    def popen(
        self, argv: Sequence[str], *, log: Path | None = None, env: Mapping[str, str] | None = None
    ) -> subprocess.Popen[bytes]:
        """Start a command in a process group of its own; killed when the laboratory closes.

        The returned process *is* the command (``env`` and ``ip netns exec`` replace themselves by
        it). Its output is appended to ``log``, by default a file in :attr:`directory`.
        """
        log = log or self.directory / f"{Path(argv[0]).name}.log"
        # Whoever started the tests may ignore signals (nohup does), and programs inherit that.
        heeding = ["env", "--default-signal"]
        with log.open("ab") as output:
            process = subprocess.Popen(
                [*heeding, "ip", "netns", "exec", self.namespace, *argv],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=None if env is None else {**os.environ, **env},
                start_new_session=True,
            )
        self._processes.append(process)
        return process

    def python(
        self,
        *args: str,
        log: Path | None = None,
        env: Mapping[str, str] | None = None,
    ) -> subprocess.Popen[bytes]:
        """Start this Python inside the namespace: ``python("-c", code)`` or ``python(script)``."""
        log = log or self.directory / "python.log"
        return self.popen([sys.executable, "-u", *args], log=log, env=env)

    def ip(self, *args: str) -> str:
        """``ip`` of iproute2 acting on the namespace."""
        return _ip("-n", self.namespace, *args)

    def ip_batch(self, *commands: str) -> None:
        """Commands of ``ip`` (``address add 192.0.2.1/24 dev eth0``) in one call."""
        _ip("-n", self.namespace, "-batch", "-", stdin="\n".join(commands) + "\n")

    def sysctl(self, values: Mapping[str, str | int]) -> None:
        """Set sysctls, names with slashes as below ``/proc/sys`` (``net/ipv4/ip_forward``)."""
        lines = [f"echo {value} > /proc/sys/{name}" for name, value in values.items()]
        self.run(["sh", "-ec", "\n".join(lines)])

    def addresses(self, dev: str | None = None) -> list[str]:
        """Addresses with prefix length on an interface (default :attr:`dev`), both families."""
        links = self._links("dev", dev or self.dev)
        return [f"{a['local']}/{a['prefixlen']}" for link in links for a in link["addr_info"]]

    def has(self, address: str) -> bool:
        """Whether an address (no prefix length) is on any interface of the host."""
        return bool(self.where(address))

    def where(self, address: str) -> list[str]:
        """Names of the interfaces that carry an address (no prefix length)."""
        wanted = ip_interface(address).ip
        return [
            link["ifname"]
            for link in self._links()
            for entry in link["addr_info"]
            if ip_interface(entry["local"]).ip == wanted
        ]

    def ping(self, address: str, count: int = 1, interval: float = 0.2) -> int:
        """Ping; the number of replies received. Each may take up to one second."""
        scope = f"%{self.dev}" if ip_interface(address).ip.is_link_local else ""
        output = self.run(
            ["ping", "-n", "-c", str(count), "-i", str(interval), "-W", "1", address + scope],
            check=False,
            timeout=30 + count * max(interval, 1),
        )
        found = re.search(r"(\d+) received", output)
        return int(found.group(1)) if found else 0

    def neighbour(self, address: str) -> str | None:
        """The MAC address in the ARP or neighbour cache, None without a usable entry."""
        entry = self.ip("neighbour", "show", "to", address, "dev", self.dev)
        found = re.search(r"lladdr (\S+)", entry)
        return found.group(1) if found else None

    def link_down(self) -> None:
        """Set the interface down (the kernel drops its IPv6 addresses)."""
        self.ip("link", "set", "dev", self.dev, "down")

    def link_up(self) -> None:
        """Set the interface up again and give it back its own addresses."""
        self.ip_batch(*self._start())

    def unplug(self) -> None:
        """Take the switch's end of the cable down: the host sees its carrier go."""
        self._leg("link", "set", "dev", self.name, "down")

    def plug(self) -> None:
        """The opposite of :meth:`unplug`."""
        self._leg("link", "set", "dev", self.name, "up")

    def cut(self) -> None:
        """Make the switch drop all frames of this host, carrier kept: a silent partition."""
        self._port_state("disabled")

    def heal(self) -> None:
        """The opposite of :meth:`cut`."""
        self._port_state("forwarding")

    def close(self) -> None:
        """Kill everything started here and whatever else lives in the namespace."""
        for process in self._processes:
            if process.poll() is None:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
        _kill_inhabitants(self.namespace)
        for process in self._processes:
            process.wait(10)
        self._processes.clear()

    def attach(self, switch: Host, mac: str) -> None:
        """Connect to the switch; :meth:`Lab.host` has done it."""
        self._switch = switch
        leg = ["name", self.name, "type", "veth", "peer", "name", self.dev]
        switch.ip("link", "add", *leg, "address", mac, "netns", self.namespace)
        switch.ip("link", "set", "dev", self.name, "master", BRIDGE, "up")
        # A virtual router's peer may send router advertisements; nobody here shall heed them.
        interfaces = ("default", self.dev)
        self.sysctl({f"net/ipv6/conf/{name}/accept_ra": 0 for name in interfaces})
        self.ip_batch(f"link set dev {self.dev} addrgenmode none", "link set lo up", *self._start())

    def _start(self) -> list[str]:
        commands = [f"link set dev {self.dev} up"]
        for address in self.own_addresses:
            # Duplicate address detection would hold it back for a second or two.
            nodad = " nodad" if ip_interface(address).version == 6 else ""
            commands.append(f"address replace {address} dev {self.dev}{nodad}")
        return commands

    def _leg(self, *args: str) -> None:
        assert self._switch is not None, "the switch has no cable"
        self._switch.ip(*args)

    def _port_state(self, state: str) -> None:
        assert self._switch is not None, "the switch has no cable"
        self._switch.run(["bridge", "link", "set", "dev", self.name, "state", state])

    def _links(self, *args: str) -> list[_Link]:
        # A filtered listing may hold an empty object for an interface that was left out.
        links = json.loads(self.ip("-json", "address", "show", *args) or "[]")
        return [link for link in cast(list[_Link | None], links) if link]


class Lab:
    """Hosts on one switch, in namespaces that end with the ``with`` block.

    >>> with Lab() as lab:  # doctest: +SKIP
    ...     a = lab.host("a", "192.0.2.1/24")
    ...     b = lab.host("b", "192.0.2.2/24", "2001:db8::2/64")
    ...     assert a.ping("192.0.2.2") == 1
    """

    def __init__(self) -> None:
        self._stem = f"{_PREFIX}-{os.getpid()}-{next(_numbers)}"
        self._stack = contextlib.ExitStack()
        self.hosts: dict[str, Host] = {}

    def __enter__(self) -> Self:
        remove_leftovers()
        with contextlib.ExitStack() as stack:
            scratch = stack.enter_context(tempfile.TemporaryDirectory(prefix=f"{self._stem}-"))
            self.directory = Path(scratch)
            self.directory.chmod(0o755)
            self._stack = stack
            #: The switch's own namespace; its ``br0`` sees every frame, unicast ones included.
            self.switch = self._namespace("switch", BRIDGE)
            self._build_bridge(self.switch)
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Kill what runs in the laboratory and remove it; may be called twice."""
        self._stack.close()

    def host(self, name: str, *addresses: str) -> Host:
        """Connect a host whose ``eth0`` has the given addresses (IPv4 first, with prefix length).

        It also gets the link-local address ``fe80::<last octet of the IPv4 address>`` and a MAC
        address that ends in the same octet. The name has at most 15 letters and is also that of
        the switch's port.
        """
        number = int(ip_interface(addresses[0]).ip) & 0xFF
        own = (addresses[0], f"fe80::{number:x}/64", *addresses[1:])
        host = self._namespace(name, INTERFACE, own)
        host.attach(self.switch, f"02:00:00:00:00:{number:02x}")
        self.hosts[name] = host
        return host

    def second_switch(self, name: str = "outside") -> Host:
        """Another switch, which nothing is connected to yet: see :meth:`second_link`."""
        switch = self._namespace(name, BRIDGE)
        self._build_bridge(switch)
        return switch

    def second_link(self, host: Host, switch: Host, *addresses: str) -> Host:
        """Connect a host to another switch too, with ``eth1``, and return it as seen from there:
        the same namespace, with that interface, cable and addresses."""
        number = int(ip_interface(addresses[0]).ip) & 0xFF
        own = (addresses[0], f"fe80::1:{number:x}/64", *addresses[1:])
        directory = self.directory / f"{host.name}-eth1"
        link = Host(host.name, host.namespace, directory, "eth1", own)
        self._stack.callback(link.close)
        link.attach(switch, f"02:00:00:00:01:{number:02x}")
        return link

    def remove(self, host: Host) -> None:
        """Kill what runs on a host and remove it, before the laboratory closes."""
        host.close()
        _remove_namespace(host.namespace)
        self.hosts.pop(host.name, None)

    def port(self, mac: str) -> str | None:
        """The name of the host behind whose port the switch has last seen a MAC address."""
        table = json.loads(self.switch.run(["bridge", "-json", "fdb", "show", "br", BRIDGE]))
        found = (str(entry["ifname"]) for entry in table if entry["mac"] == mac)
        return next(found, None)

    def _namespace(self, name: str, dev: str, addresses: Sequence[str] = ()) -> Host:
        namespace = f"{self._stem}-{name}"
        _ip("netns", "add", namespace)
        self._stack.callback(_remove_namespace, namespace)
        host = Host(name, namespace, self.directory / name, dev, addresses)
        self._stack.callback(host.close)
        return host

    def _build_bridge(self, switch: Host) -> None:
        # Snooping without a querier makes IPv6 adverts vanish after a few minutes; promiscuous
        # mode delivers a copy of every forwarded frame to br0, where a sniffer listens.
        options = ["mcast_snooping", "0", "stp_state", "0", "forward_delay", "0"]
        switch.sysctl({"net/ipv6/conf/default/disable_ipv6": 1})
        switch.ip("link", "add", BRIDGE, "type", "bridge", *options)
        switch.ip("link", "set", BRIDGE, "promisc", "on", "up")


def remove_leftovers() -> None:
    """Remove namespaces and files of laboratories whose process no longer lives."""
    temporary = Path(tempfile.gettempdir())
    for directory, remove in ((NETNS_DIRECTORY, _end_namespace), (temporary, _remove_tree)):
        names = os.listdir(directory) if directory.is_dir() else []
        for name in names:
            found = _OURS.fullmatch(name)
            if found and not Path(f"/proc/{found.group(1)}").exists():
                remove(directory / name)


def kill_all(pids: Iterable[int]) -> None:
    """SIGKILL for each process that still lives."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def alive(pid: int) -> bool:
    """Whether a process runs; one that has ended and waits to be reaped does not."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return "State:\tZ" not in status


def _ip(*args: str, stdin: str | None = None) -> str:
    argv = ["ip", *args]
    done = subprocess.run(
        argv, capture_output=True, input=stdin, text=True, timeout=30, check=False
    )
    if done.returncode != 0:
        raise RuntimeError(f"ip {' '.join(args)}: {done.stderr.strip()}")
    return done.stdout


def _kill_inhabitants(namespace: str) -> None:
    # Daemons leave their process group; those in the namespace that are not this process go too.
    with contextlib.suppress(RuntimeError):
        kill_all(pid for pid in map(int, _ip("netns", "pids", namespace).split()) if pid > 1)


def _end_namespace(path: Path) -> None:
    _kill_inhabitants(path.name)
    _remove_namespace(path.name)


def _remove_tree(path: Path) -> None:
    shutil.rmtree(path, ignore_errors=True)


def _remove_namespace(namespace: str) -> None:
    with contextlib.suppress(RuntimeError):
        _ip("netns", "delete", namespace)
