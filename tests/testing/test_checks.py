"""The checker whose answers a test sets."""

from __future__ import annotations

import asyncio
from ipaddress import ip_address

import pytest

from checks.scripts import TARGET, Notebook
from vrrpkit.checks.base import Weight
from vrrpkit.checks.engine.scheduler import CheckScheduler
from vrrpkit.checks.target import Target
from vrrpkit.errors import CheckFailed, ConfigError
from vrrpkit.testing import ScriptedChecker, virtual_time

OTHER = Target(ip_address("192.0.2.2"), 80)


@virtual_time()
async def test_everybody_passes_until_told_otherwise() -> None:
    checker = ScriptedChecker()
    assert await checker.check(TARGET) is None
    checker.fails("web1", "refused")
    with pytest.raises(CheckFailed, match=r"^refused$"):
        await checker.check(TARGET)
    assert await checker.check(OTHER) is None
    checker.passes("web1")
    assert await checker.check(TARGET) is None


@pytest.mark.parametrize("server", ["web1", "192.0.2.1:80", "192.0.2.1"])
@virtual_time()
async def test_a_server_has_three_names(server: str) -> None:
    checker = ScriptedChecker()
    checker.fails(server)
    with pytest.raises(CheckFailed):
        await checker.check(TARGET)
    assert await checker.check(OTHER) is None
    assert checker.attempts(server) == [1000.0]


@virtual_time()
async def test_the_narrowest_name_counts() -> None:
    checker = ScriptedChecker()
    checker.fails("192.0.2.1")
    checker.passes("192.0.2.1:80", 5)
    assert await checker.check(TARGET) == Weight(5)
    checker.passes("web1", Weight(-1, relative=True))
    assert await checker.check(TARGET) == Weight(-1, relative=True)


@virtual_time()
async def test_answers_take_their_time() -> None:
    checker = ScriptedChecker(after=0.5, interval=2, timeout=3, retry=0)
    checker.passes("web1", after=1)
    notes = Notebook()
    async with CheckScheduler() as scheduler:
        notes.add(scheduler, checker)
        await asyncio.sleep(2.5)
        checker.fails("web1", "refused")
        await asyncio.sleep(1.25)
        assert notes.times == [1, 3.5]
        checker.hangs("web1")
        await asyncio.sleep(5)
    assert notes.times == [1, 3.5, 8.5]
    assert notes.texts == ["", "refused", "no answer within 3 s"]
    assert checker.attempts("web1") == [1000, 1003, 1005.5]
    assert checker.attempts("web2") == []


def test_is_itself_and_nobody_else() -> None:
    checker = ScriptedChecker()
    assert checker != ScriptedChecker()
    assert {checker: 1}[checker] == 1


def test_refuses_what_no_checker_takes() -> None:
    with pytest.raises(ConfigError, match="after"):
        ScriptedChecker(after=-1)
    with pytest.raises(ConfigError, match="warmup"):
        ScriptedChecker(warmup=-1)
    with pytest.raises(ConfigError, match="weight"):
        ScriptedChecker().passes("web1", -1)
