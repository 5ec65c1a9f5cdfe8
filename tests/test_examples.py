"""The examples run as they stand."""

from __future__ import annotations

import os
import re
import select
import signal
import socket
import subprocess
import sys
import time
from itertools import groupby
from pathlib import Path

import pytest

from system.lab import Host, Lab, require_root_and, wait_until

EXAMPLES = Path(__file__).parent.parent / "examples"


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.py")), ids=lambda path: path.name)
def test_is_short_enough_to_copy(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= 40


def lines(text: str) -> list[tuple[str, str]]:
    """What the first example prints: when, and what happened."""
    return re.findall(r"^ *(\d+\.\d+) s  (.*)$", text, re.MULTILINE)


def test_two_nodes() -> None:
    done = subprocess.run(
        [sys.executable, EXAMPLES / "01_two_nodes.py"], capture_output=True, text=True, timeout=60
    )
    # Without any logging set up, Python writes warnings to the standard error stream.
    warned = "a: MASTER -> FAULT: fault (interface-down)\n"
    assert (done.returncode, done.stderr) == (0, warned)
    happened = lines(done.stdout)
    assert [what for _when, what in happened] == [
        "a: BACKUP -> MASTER: no-response",
        "the cable of a is pulled",
        "a: MASTER -> FAULT: fault (interface-down)",
        "b: BACKUP -> MASTER: no-response",
        "the cable of a is plugged in again",
        "a: FAULT -> BACKUP: fault-cleared",
        "a: BACKUP -> MASTER: preempted",
        "b: MASTER -> BACKUP: higher-priority",
        "both leave",
        "b: BACKUP -> INIT: shutdown",
        "a: MASTER -> INIT: shutdown",
    ]
    page = EXAMPLES.parent / "docs" / "tutorial" / "first-failover.md"
    assert [what for _when, what in lines(page.read_text())] == [what for _when, what in happened]
    # Master_Down_Interval at priority 150 is 3.414 s, at 100 it is 3.609 s. A busy machine is late.
    started, failed_over = float(happened[0][0]), float(happened[3][0])
    assert 3.41 <= started < 8
    assert 3.60 <= failed_over - started < 8


def test_two_nodes_end_well_on_sigterm() -> None:
    running = subprocess.Popen(
        [sys.executable, EXAMPLES / "01_two_nodes.py"], stdout=subprocess.PIPE, text=True
    )
    assert running.stdout is not None
    readable, _, _ = select.select([running.stdout], [], [], 20)
    assert readable, "no line within 20 s"
    running.send_signal(signal.SIGTERM)
    output, _ = running.communicate(timeout=20)
    assert running.returncode == 0
    assert output.count("INIT: shutdown") == 2


def test_application_test_runs_both_ways() -> None:
    path = EXAMPLES / "05_test_failover.py"
    script = subprocess.run([sys.executable, path], capture_output=True, text=True, timeout=60)
    assert (script.returncode, script.stderr) == (0, "")
    assert script.stdout == "b took over within 3.7 simulated seconds\n"
    environment = {**os.environ, "PYTEST_ADDOPTS": ""}
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "-c",
        os.devnull,
        path,
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, env=environment)
    assert "1 passed" in done.stdout, done.stdout + done.stderr


def test_own_checker() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    done = subprocess.run(
        [sys.executable, EXAMPLES / "07_own_checker.py", port],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stderr) == (0, "")
    up, down = "redis healthy by Redis", "redis not healthy by Redis: [Errno 111] cannot connect"
    states = [line.startswith(up) for line in done.stdout.splitlines()]
    assert [state for state, _group in groupby(states)] == [True, False, True, False]
    assert down in done.stdout


def test_draining_cuts_nobody_off() -> None:
    done = subprocess.run(
        [sys.executable, EXAMPLES / "08_drain_for_a_deploy.py"],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == [
        f"10.0.0.{number}:8080: 2 connections ended, 0 were cut, deployed" for number in (1, 2, 3)
    ]


def test_mail_and_scripts(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.touch()
    port = tmp_path / "port"
    # An SMTP server that prints what it gets, in a process of its own.
    server = subprocess.Popen(
        [sys.executable, "-c", MAIL_SERVER, port], stdout=subprocess.PIPE, text=True
    )
    try:
        wait_until(lambda: port.exists() and bool(port.read_text()), 20, "the mail server")
        command = [EXAMPLES / "11_mail_and_scripts.py", f"127.0.0.1:{port.read_text()}"]
        script = f"/bin/sh -c 'echo $* >> {log}' script"
        done = subprocess.run(
            [sys.executable, *command, "ops@example.net", script],
            capture_output=True,
            text=True,
            timeout=60,
        )
    finally:
        server.terminate()
        mails, _ = server.communicate()
    assert (done.returncode, done.stderr) == (0, "web: MASTER -> FAULT: fault (interface-down)\n")
    assert [line.partition(":")[0] for line in mails.splitlines() if "Subject" in line] == [
        "Subject",
        "Subject",
    ]
    assert "VRRP Instance web - Entering MASTER state" in mails
    assert "VRRP Instance web - Entering FAULT state" in mails
    ran = log.read_text().splitlines()
    assert ran[:2] == ["INSTANCE web BACKUP 100", "INSTANCE web MASTER 100"]
    # FAULT may have waited until it was STOP.
    assert ran[-1] == "INSTANCE web STOP 100"
    assert "web: BACKUP -> MASTER: no-response" in done.stdout


MAIL_SERVER = """
import asyncio, sys
from aiosmtpd.smtp import SMTP
class Printer:
    async def handle_DATA(self, server, session, envelope):
        print(envelope.content.decode(), flush=True)
        return "250 OK"
async def main():
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: SMTP(Printer(), hostname="x"), "127.0.0.1", 0)
    with open(sys.argv[1], "w") as file:
        file.write(str(server.sockets[0].getsockname()[1]))
    await asyncio.sleep(120)
asyncio.run(main())
"""


# --- on real interfaces -------------------------------------------------------------------------

needs_root = pytest.mark.skipif(
    require_root_and("ping") is not None, reason=require_root_and("ping") or ""
)


def start(host: Host, name: str, *arguments: str) -> subprocess.Popen[bytes]:
    return host.python(str(EXAMPLES / name), *arguments, log=host.directory / "example.log")


def output(host: Host) -> str:
    return (host.directory / "example.log").read_text()


@pytest.mark.system
@needs_root
def test_real_vip_moves() -> None:
    with Lab() as lab:
        a, b = lab.host("a", "192.0.2.1/24"), lab.host("b", "192.0.2.2/24")
        first = start(a, "02_real_vip.py", "eth0", "192.0.2.10/32", "150")
        start(b, "02_real_vip.py", "eth0", "192.0.2.10/32", "100")
        wait_until(lambda: a.has("192.0.2.10"), 10, output(a))
        assert not b.has("192.0.2.10")
        first.send_signal(signal.SIGTERM)
        assert first.wait(10) == 0
        assert not a.has("192.0.2.10")
        wait_until(lambda: b.has("192.0.2.10"), 3, "b takes over after its skew")
        assert "MASTER -> INIT: shutdown" not in output(b)


@pytest.mark.system
@needs_root
def test_unicast_hmac() -> None:
    with Lab() as lab:
        a, b = lab.host("a", "192.0.2.1/24"), lab.host("b", "192.0.2.2/24")
        key = a.directory / "vrrp.key"
        key.write_text("hex:" + "5a" * 32 + "\n")
        key.chmod(0o600)
        vip = "192.0.2.10/32"
        first = start(
            a, "03_unicast_hmac.py", "eth0", vip, "192.0.2.1", "192.0.2.2", str(key), "150"
        )
        wait_until(lambda: a.has("192.0.2.10"), 10, output(a))
        start(b, "03_unicast_hmac.py", "eth0", vip, "192.0.2.2", "192.0.2.1", str(key), "100")
        wait_until(lambda: "follows 192.0.2.1" in output(b), 10, output(b))
        first.send_signal(signal.SIGTERM)
        assert first.wait(10) == 0
        wait_until(lambda: b.has("192.0.2.10"), 3, output(b))
        assert "rejected" not in output(a) + output(b)


@pytest.mark.system
@needs_root
def test_service_runs_where_the_vip_is() -> None:
    with Lab() as lab:
        a, b = lab.host("a", "192.0.2.1/24"), lab.host("b", "192.0.2.2/24")
        client = lab.host("client", "192.0.2.9/24")
        vip = "192.0.2.10/32"
        first = start(a, "04_service_on_vip.py", "eth0", vip, "8080", "150")
        start(b, "04_service_on_vip.py", "eth0", vip, "8080", "100")
        url = "http://192.0.2.10:8080"
        code = f"import urllib.request as u; print(u.urlopen('{url}', timeout=5).read())"
        client.ip("route", "replace", "192.0.2.0/24", "dev", "eth0")
        wait_until(lambda: "serving" in output(a), 10, output(a))
        assert "behind the virtual address" in client.run([sys.executable, "-c", code])
        first.send_signal(signal.SIGTERM)
        assert first.wait(10) == 0
        wait_until(lambda: "serving" in output(b), 5, output(b))
        assert "behind the virtual address" in client.run([sys.executable, "-c", code])


@pytest.mark.system
@needs_root
def test_gateway_pair_moves_as_one() -> None:
    with Lab() as lab:
        a, b = lab.host("a", "192.0.2.1/24"), lab.host("b", "192.0.2.2/24")
        a.ip("link", "add", "eth1", "type", "veth", "peer", "name", "eth1", "netns", b.namespace)
        for number, host in enumerate((a, b), 1):
            host.ip("address", "add", f"198.51.100.{number}/24", "dev", "eth1")
            host.ip("link", "set", "eth1", "up")
            (host.directory / "fit").touch()
        vips = ("192.0.2.10", "198.51.100.10")

        def run(host: Host, priority: str) -> None:
            interfaces = ("eth0", f"{vips[0]}/32", "eth1", f"{vips[1]}/32")
            script = f"test -e {host.directory}/fit"
            start(host, "10_gateway_pair.py", *interfaces, priority, script)

        def owns(host: Host) -> bool:
            return all(host.has(vip) for vip in vips)

        def free(host: Host) -> bool:
            return not any(host.has(vip) for vip in vips)

        run(a, "150")
        wait_until(lambda: owns(a), 15, output(a))
        run(b, "100")
        wait_until(lambda: "follows 192.0.2.1" in output(b) or "BACKUP" in output(b), 10, output(b))
        # Both follow by now.
        time.sleep(2.5)
        assert free(b)
        pulled = time.monotonic()
        a.unplug()
        moved = wait_until(lambda: owns(b), 10, output(b)) - pulled
        # The skew of priority 100 is 0.61 s; silence alone would take 3.6 s.
        assert moved < 2.5
        wait_until(lambda: free(a), 5, output(a))
        a.plug()
        wait_until(lambda: owns(a) and free(b), 15, output(a))
        (a.directory / "fit").unlink()
        wait_until(lambda: owns(b) and free(a), 15, output(a) + output(b))
        assert "in FAULT" in output(a)


@pytest.mark.system
@needs_root
def test_bfd_fails_over_in_less_than_a_second() -> None:
    with Lab() as lab:
        a, b = lab.host("a", "192.0.2.1/24"), lab.host("b", "192.0.2.2/24")
        first = start(a, "12_bfd.py", "eth0", "192.0.2.10/32", "250", "192.0.2.2")
        start(b, "12_bfd.py", "eth0", "192.0.2.10/32", "200", "192.0.2.1")
        wait_until(lambda: a.has("192.0.2.10"), 15, output(a))
        wait_until(lambda: "BFD 192.0.2.1: " in output(b) and "-> Up" in output(b), 10, output(b))
        time.sleep(1.5)
        assert not b.has("192.0.2.10")
        first.kill()
        killed = time.monotonic()
        # 0.15 s and a skew of 0.22 s; silence alone would take 3.2 s.
        assert wait_until(lambda: b.has("192.0.2.10"), 10, output(b)) - killed < 1.0
        wait_until(lambda: "BACKUP -> MASTER: unreachable" in output(b), 5, output(b))
        assert "BFD 192.0.2.1: Up -> Down: control detection time expired" in output(b)
