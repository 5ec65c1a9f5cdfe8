"""Notifiers on a virtual server: servers and quorum, in keepalived's words."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any

from vrrpkit import NotifyFunction, RealServer, VirtualServer
from vrrpkit.ipvs.memory.table import MemoryTable
from vrrpkit.ipvs.model.events import QuorumDown, QuorumUp, ServerDown, ServerUp
from vrrpkit.notify.fifo import NotifyFIFO
from vrrpkit.notify.model.mail import Fields, fields_of
from vrrpkit.notify.scripts import NotifyScripts
from vrrpkit.publishing import Attachment, Notifier
from vrrpkit.testing import ScriptedChecker, virtual_time

A, B = "10.0.0.1:8080", "10.0.0.2:8080"


class Letters(Notifier):
    """Keeps what mail would say."""

    def __init__(self) -> None:
        self.written: list[Fields] = []

    def attach(self, subject: object) -> Attachment:
        return _Letters(self, subject)

    @property
    def subjects(self) -> list[str]:
        return [f"{one['kind']} {one['name']} - {one['event']}" for one in self.written]


class _Letters:
    def __init__(self, mail_messages: Letters, subject: object) -> None:
        self._mail_messages = mail_messages
        self._subject = subject

    def tell(self, event: object) -> None:
        found = fields_of(event, self._subject, "lb1", 0)
        if found is not None:
            self._mail_messages.written.append(found)

    async def close(self) -> None:
        """Nothing waits."""

    def cancel(self) -> None:
        """Nothing waits."""


def server(checker: ScriptedChecker, *notify: Notifier, **changes: Any) -> VirtualServer:
    settings: dict[str, Any] = {
        "services": "192.0.2.10:80",
        "servers": [A, B],
        "name": "web",
        "table": MemoryTable(),
        "check": checker,
        "notify": notify,
    }
    return VirtualServer(**(settings | changes))


async def life(checker: ScriptedChecker) -> None:
    """One server fails, then the other one too, and both come back."""
    await asyncio.sleep(5)
    checker.fails(A, "connection refused")
    await asyncio.sleep(5)
    checker.fails(B, "timeout")
    await asyncio.sleep(5)
    checker.passes(A)
    checker.passes(B)
    await asyncio.sleep(5)


def checking() -> ScriptedChecker:
    return ScriptedChecker(interval=1, retry=0)


LINES = [
    "VS [192.0.2.10]:tcp:80 UP",
    "RS [10.0.0.1]:tcp:8080 [192.0.2.10]:tcp:80 DOWN",
    "RS [10.0.0.2]:tcp:8080 [192.0.2.10]:tcp:80 DOWN",
    "VS [192.0.2.10]:tcp:80 DOWN",
    "RS [10.0.0.1]:tcp:8080 [192.0.2.10]:tcp:80 UP",
    "VS [192.0.2.10]:tcp:80 UP",
    "RS [10.0.0.2]:tcp:8080 [192.0.2.10]:tcp:80 UP",
]


@virtual_time()
async def test_the_lines_of_the_fifo(tmp_path: Path) -> None:
    path = tmp_path / "fifo"
    os.mkfifo(path)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    checker = checking()
    async with server(checker, NotifyFIFO(path)):
        await life(checker)
    lines = os.read(reader, 65536).decode().splitlines()
    os.close(reader)
    assert lines == LINES


@virtual_time()
async def test_what_mail_says() -> None:
    mail_messages, checker = Letters(), checking()
    async with server(checker, mail_messages, sorry="10.0.0.9:80"):
        await life(checker)
    assert mail_messages.subjects == [
        "Virtualserver [192.0.2.10]:tcp:80 - UP",
        "Realserver [10.0.0.1]:tcp:8080 of virtual server [192.0.2.10]:tcp:80 - DOWN",
        "Realserver [10.0.0.2]:tcp:8080 of virtual server [192.0.2.10]:tcp:80 - DOWN",
        "Virtualserver [192.0.2.10]:tcp:80 - DOWN",
        "Realserver [10.0.0.1]:tcp:8080 of virtual server [192.0.2.10]:tcp:80 - UP",
        "Virtualserver [192.0.2.10]:tcp:80 - UP",
        "Realserver [10.0.0.2]:tcp:8080 of virtual server [192.0.2.10]:tcp:80 - UP",
    ]
    first, down, _, lost, up, gained, _ = mail_messages.written
    assert first["reason"] == "weight 2"
    assert "connection refused" in down["reason"]
    assert (down["state"], lost["state"], up["state"]) == ("DOWN", "DOWN", "UP")
    assert lost["reason"] == "weight 0, 10.0.0.9:80 stands in"
    assert up["reason"] == "its checks pass"
    assert gained["reason"] == "weight 1"
    assert gained["text"] == "web: quorum reached with weight 1"


@virtual_time()
async def test_one_letter_for_all_services_and_no_header_out_of_a_reason() -> None:
    mail_messages, checker = Letters(), checking()
    services = ["192.0.2.10:80", "192.0.2.10:443"]
    servers = [RealServer("10.0.0.1", name="first"), B]
    async with server(checker, mail_messages, services=services, servers=servers):
        await asyncio.sleep(3)
        checker.fails("first", "no\r\nBcc: victim@example.net")
        await asyncio.sleep(3)
    assert mail_messages.subjects[1] == (
        "Realserver [10.0.0.1]:tcp:0 of virtual server [web]:0 - DOWN"
    )
    assert not any("\n" in text or "\r" in text for text in mail_messages.written[1].values())


@virtual_time()
async def test_a_firewall_mark_and_ipv6() -> None:
    mail_messages, checker = Letters(), checking()
    async with server(
        checker, mail_messages, services=(), fwmark=7, family=6, servers=["[2001:db8::1]:80"]
    ):
        await asyncio.sleep(3)
        checker.fails("[2001:db8::1]:80")
        await asyncio.sleep(3)
    assert "Virtualserver FWM 7 - DOWN" in mail_messages.subjects
    assert (
        mail_messages.subjects[1]
        == "Realserver [2001:db8::1]:none:80 of virtual server FWM 7 - DOWN"
    )


@virtual_time()
async def test_a_slow_hook_hears_the_newest_state_of_each_server() -> None:
    heard: list[str] = []
    checker = checking()

    async def slow(event: object) -> None:
        if isinstance(event, ServerUp | ServerDown | QuorumUp | QuorumDown):
            await asyncio.sleep(60)
            heard.append(str(event))

    async with server(checker, NotifyFunction(slow, timeout=None)):
        for _ in range(4):
            await life(checker)
        await asyncio.sleep(600)
    assert len(heard) < 7
    assert set(heard[-3:]) == {
        "web: 10.0.0.1:8080 is up",
        "web: 10.0.0.2:8080 is up",
        "web: quorum reached with weight 1",
    }


@virtual_time()
async def test_a_slow_hook_misses_no_server_of_a_pool_that_goes_down_as_one() -> None:
    heard: list[str] = []
    checker = checking()
    names = [f"10.0.0.{number}:80" for number in range(1, 151)]

    async def slow(event: object) -> None:
        if isinstance(event, ServerDown | QuorumDown):
            await asyncio.sleep(0.1)
            heard.append(event.server if isinstance(event, ServerDown) else "quorum")

    async with server(checker, NotifyFunction(slow), servers=names):
        await asyncio.sleep(5)
        for name in names:
            checker.fails(name)
        await asyncio.sleep(20)
    assert sorted(heard) == sorted([*names, "quorum"])


def test_scripts(tmp_path: Path) -> None:
    log = tmp_path / "log"

    def noting(words: str) -> list[str]:
        return ["/bin/sh", "-c", f"echo {words} >> {log}", "script"]

    scripts = NotifyScripts(
        noting('"$@"'),
        down=noting("down $VRRPKIT_NAME: $VRRPKIT_REASON"),
        quorum_down=noting("lost"),
        quorum_up=noting("gained"),
    )
    checker = ScriptedChecker(interval=0.1, retry=0)

    async def main() -> None:
        async with server(checker, scripts, servers=[A]):
            await written(log, 2)
            checker.fails(A, "connection refused")
            await written(log, 6)
            checker.passes(A)
            await written(log, 9)

    up, down = "VS [192.0.2.10]:tcp:80 UP", "VS [192.0.2.10]:tcp:80 DOWN"
    asyncio.run(main())
    lines = log.read_text().splitlines()
    # In order about each thing, and side by side about different ones.
    of_the_server = [line for line in lines if "[10.0.0.1]" in line]
    assert of_the_server == [
        "down [10.0.0.1]:tcp:8080: Scripted: connection refused",
        "RS [10.0.0.1]:tcp:8080 [192.0.2.10]:tcp:80 DOWN",
        "RS [10.0.0.1]:tcp:8080 [192.0.2.10]:tcp:80 UP",
    ]
    of_the_quorum = [line for line in lines if line not in of_the_server]
    assert of_the_quorum == [*("gained", up), *("lost", down), *("gained", up)]


async def written(log: Path, lines: int = 1) -> None:
    """Wait until there are so many lines."""

    def there() -> int:
        return len(log.read_text().splitlines()) if log.exists() else 0

    async with asyncio.timeout(30):
        while True:
            if there() >= lines:
                return
            await asyncio.sleep(0.02)


def test_the_script_of_the_quorum_waits_for_no_server(tmp_path: Path) -> None:
    log = tmp_path / "log"
    names = [f"10.0.0.{number}:8080" for number in range(1, 21)]
    scripts = NotifyScripts(
        down=["/bin/sh", "-c", f"echo began >> {log}; sleep 600"],
        quorum_down=["/bin/sh", "-c", f"echo lost >> {log}"],
        flush=0.1,
    )
    checker = ScriptedChecker(interval=0.1, retry=0)

    async def main() -> None:
        async with server(checker, scripts, servers=names):
            await asyncio.sleep(0.3)
            for name in names:
                checker.fails(name)
            # Nor does a server wait for another's.
            await written(log, lines=len(names) + 1)

    asyncio.run(main())
    assert sorted(log.read_text().splitlines()) == [*["began"] * len(names), "lost"]


def test_no_line_end_out_of_a_reason_reaches_a_script(tmp_path: Path) -> None:
    log = tmp_path / "log"
    scripts = NotifyScripts(down=["/bin/sh", "-c", f'printf "%s" "$VRRPKIT_REASON" > {log}'])
    checker = ScriptedChecker(interval=0.1, retry=0)

    async def main() -> None:
        async with server(checker, scripts, servers=[A]):
            await asyncio.sleep(0.3)
            checker.fails(A, "554 no\r\nRS [10.0.0.2]:tcp:8080\x1b[2J\x00\ud800 DOWN")
            await written(log)

    asyncio.run(main())
    told = log.read_text()
    assert told.startswith("Scripted: 554 no RS [10.0.0.2]:tcp:8080") and told.isprintable()
