"""ScriptChecker with real programs."""

from __future__ import annotations

import asyncio
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest

from vrrpkit import CheckFailed, CheckResult, ConfigError, Target, Weight
from vrrpkit.checks.scheduler import Scheduler
from vrrpkit.checks.script import ScriptChecker

TARGET = Target(ip_address("10.0.0.1"), 8080, "web1")


def sh(script: str, *arguments: str, **options: Any) -> ScriptChecker:
    return ScriptChecker(["/bin/sh", "-c", script, "check", *arguments], **options)


def ask(checker: ScriptChecker, target: Target = TARGET) -> Weight | None:
    return asyncio.run(checker.check(target))


def test_exit_status_0_is_healthy_and_others_are_not() -> None:
    assert ask(sh("exit 0")) is None
    with pytest.raises(CheckFailed, match="exit status 1: no space left"):
        ask(sh("echo all is well; echo no space left >&2; exit 1"))
    with pytest.raises(CheckFailed, match="exit status 7"):
        ask(sh("exit 7"))
    with pytest.raises(CheckFailed, match="SIGKILL"):
        ask(sh("kill -9 $$"))


def test_dynamic_weights() -> None:
    assert ask(sh("exit 0", dynamic=True)) is None
    with pytest.raises(CheckFailed, match="exit status 1"):
        ask(sh("exit 1", dynamic=True))
    assert ask(sh("exit 2", dynamic=True)) == Weight(0)
    assert ask(sh("exit 52", dynamic=True)) == Weight(50)
    assert ask(sh("exit 255", dynamic=True)) == Weight(253)


def test_it_knows_the_server() -> None:
    test = '[ "$1" = 10.0.0.1:8080 ] && [ "$VRRPKIT_ADDRESS:$VRRPKIT_PORT" = "$1" ]'
    assert ask(sh(test, "{address}:{port}")) is None
    assert ask(sh('[ "$1$VRRPKIT_NAME$A" = web1web1x ]', "{name}", environment={"A": "x"})) is None
    assert ask(sh('[ -z "$1$VRRPKIT_PORT" ]', "{port}"), Target(ip_address("::1"))) is None


def test_exit_0_on_the_term_of_the_timeout_has_failed() -> None:
    results: list[CheckResult] = []

    async def main() -> None:
        done = asyncio.Event()

        def take(result: CheckResult) -> None:
            results.append(result)
            done.set()

        checker = sh(
            "trap 'exit 0' TERM; sleep 60 & wait", timeout=0.2, interval=60, warmup=0, retry=0
        )
        async with Scheduler() as scheduler, asyncio.timeout(20):
            scheduler.add(checker, TARGET, on_result=take)
            await done.wait()

    asyncio.run(main())
    assert [result.passed for result in results] == [False]
    assert "0.2 s" in results[0].text


def test_bad_ones_are_refused() -> None:
    with pytest.raises(ConfigError, match="install it"):
        ScriptChecker("no-such-program-anywhere")
    with pytest.raises(ConfigError, match="unknown field"):
        ScriptChecker(["/bin/true", "{host}"])
    with pytest.raises(ConfigError, match="no user"):
        ScriptChecker("true", user="no-such-user-here")


def test_equal_descriptions_are_equal() -> None:
    assert ScriptChecker("true", interval=2) == ScriptChecker("true", interval=2)
    assert hash(ScriptChecker("true")) == hash(ScriptChecker("true"))
    assert ScriptChecker("true") != ScriptChecker("false")
    assert str(ScriptChecker("/bin/true")) == "script true"


def test_one_that_vanishes_fails(tmp_path: Path) -> None:
    path = tmp_path / "check"
    path.write_text("#!/bin/sh\n")
    path.chmod(0o755)
    checker = ScriptChecker([str(path)])
    assert ask(checker) is None
    path.unlink()
    with pytest.raises(Exception, match="No such file"):
        ask(checker)
