"""Real servers for checkers inside a laboratory: Postfix, BIND and dnsmasq."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from ipaddress import ip_address
from pathlib import Path
from typing import TypeVar

import attrs

from checks.attempts import PASSED, attempt
from system.lab import Host, wait_until
from vrrpkit.checks.base import Checker
from vrrpkit.checks.target import Target
from vrrpkit.linux.netns import Namespace

T = TypeVar("T")

POSTFIX = "/usr/sbin/postfix"
NAMED = "/usr/sbin/named"
DNSMASQ = "/usr/sbin/dnsmasq"

ZONE = """\
$TTL 60
@       SOA   ns1 hostmaster 2024 7200 3600 1209600 300
@       NS    ns1
@       MX    10 mail
ns1     A     192.0.2.2
www     A     192.0.2.10
www     A     192.0.2.11
www     AAAA  2001:db8::10
web     CNAME www
mail    A     192.0.2.12
short   TXT   "v=abc" "def"
octets  TXT   "\\255\\254"
_sip._udp SRV 1 2 5060 mail
@       CAA   0 issue "ca.example.net"
"""

_QUEUES = (
    "active bounce corrupt defer deferred flush hold incoming maildrop pid private public saved "
    "trace"
)


def within(host: Host, work: Callable[[], Awaitable[T]], timeout: float = 60) -> T:
    """Run a coroutine function in the host's namespace: on a thread that has moved there."""

    async def main() -> T:
        return await work()

    def run() -> T:
        namespace = Namespace(host.namespace)
        try:
            with namespace.inside():
                return asyncio.run(main())
        finally:
            namespace.close()

    with ThreadPoolExecutor(1, thread_name_prefix=host.name) as pool:
        return pool.submit(run).result(timeout)


def check(
    host: Host, checker: Checker, address: str, port: int | None = None, timeout: float = 10
) -> str:
    """One attempt, made on ``host``: PASSED, or why not."""
    target = Target(ip_address(address), port)

    async def work() -> str:
        checker.validate(target)
        way = attrs.evolve(target, via=checker.endpoint(target))
        return await attempt(checker, way, timeout)

    return within(host, work)


def answers(host: Host, checker: Checker, address: str, port: int | None = None) -> None:
    """Wait until a server that was started passes."""
    wait_until(lambda: check(host, checker, address, port) == PASSED, 30, f"{checker} {address}")


class Postfix:
    """Postfix with directories of its own.

    On port 25 with STARTTLS, on 26 without, on 27 refusing whoever says EHLO or HELO, on 28 under
    stress: one connection at a time and address.
    """

    def __init__(self, host: Host, cert: Path, key: Path) -> None:
        self.host = host
        directory = host.directory / "postfix"
        directory.mkdir(mode=0o755)
        queue, data = directory / "queue", directory / "data"
        for path in (queue, data, *(queue / name for name in _QUEUES.split())):
            path.mkdir(mode=0o755)
            if path not in (queue, queue / "pid"):
                shutil.chown(path, "postfix")
        for name in ("public", "maildrop"):
            shutil.chown(queue / name, "postfix", "postdrop")
        self.log = directory / "mail.log"
        self._directory = directory
        (directory / "main.cf").write_text(
            f"""\
compatibility_level = 3.6
queue_directory = {queue}
data_directory = {data}
maillog_file = {self.log}
maillog_file_prefixes = {directory}
myhostname = mx.example.net
mydestination =
inet_interfaces = all
inet_protocols = all
alias_maps =
alias_database =
local_recipient_maps =
smtpd_peername_lookup = no
smtpd_tls_security_level = may
smtpd_tls_cert_file = {cert}
smtpd_tls_key_file = {key}
"""
        )
        (directory / "master.cf").write_text(
            """\
smtp inet n - n - - smtpd
26 inet n - n - - smtpd -o smtpd_tls_security_level=none
27 inet n - n - - smtpd -o smtpd_delay_reject=no -o smtpd_helo_restrictions=reject
28 inet n - n - - smtpd -o smtpd_client_connection_count_limit=1
    -o smtpd_client_event_limit_exceptions=
anvil unix - - n - 1 anvil
tlsmgr unix - - n 1000? 1 tlsmgr
rewrite unix - - n - - trivial-rewrite
proxymap unix - - n - - proxymap
postlog unix-dgram n - n - 1 postlogd
"""
        )

    def start(self) -> None:
        self.host.popen([POSTFIX, "-c", str(self._directory), "start-fg"])

    def configure(self, *lines: str) -> None:
        """Add lines to ``main.cf``, before it is started."""
        with (self._directory / "main.cf").open("a") as config:
            config.write("".join(f"{line}\n" for line in lines))

    def stop(self) -> None:
        self.host.run([POSTFIX, "-c", str(self._directory), "stop"], check=False)

    def logged(self) -> str:
        """What it has written so far."""
        return self.log.read_text() if self.log.exists() else ""

    def await_log(self, text: str) -> None:
        """Wait until it has written something."""
        wait_until(lambda: text in self.logged(), 10, text)


class Named:
    """BIND with authority for example.net, and for nothing else."""

    def __init__(self, host: Host) -> None:
        self.host = host
        directory = host.directory / "named"
        directory.mkdir(mode=0o755)
        many = "".join(f'many TXT "{number:03d}{"x" * 90}"\n' for number in range(12))
        (directory / "zone").write_text(ZONE + many)
        self._conf = directory / "named.conf"
        self._conf.write_text(
            f"""\
options {{
    directory "{directory}";
    pid-file none;
    session-keyfile none;
    recursion no;
    dnssec-validation no;
    listen-on {{ any; }};
    listen-on-v6 {{ any; }};
}};
controls {{ }};
zone "example.net" {{ type primary; file "zone"; }};
"""
        )

    def start(self) -> None:
        self.host.popen([NAMED, "-g", "-n", "1", "-c", str(self._conf)])


class Dnsmasq:
    """dnsmasq with a few names of its own, and nobody to ask for others."""

    def __init__(self, host: Host, port: int = 53) -> None:
        self.host = host
        self._port = port

    def start(self) -> None:
        options = [
            "keep-in-foreground",
            "conf-file=/dev/null",
            "no-resolv",
            "no-hosts",
            "user=root",
            "pid-file=",
            f"port={self._port}",
            "host-record=www.example.org,192.0.2.20,2001:db8::20",
            "txt-record=www.example.org,hello",
        ]
        self.host.popen([DNSMASQ, *(f"--{option}" for option in options)])
