"""ScriptChecker with real programs."""

from __future__ import annotations

import asyncio
import errno
import os
import signal
import subprocess
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest

from vrrpkit import CheckFailed, ConfigError, Target
from vrrpkit.checks import Weight
from vrrpkit.checks.engine.scheduler import CheckScheduler
from vrrpkit.checks.script import ScriptChecker
from vrrpkit.commands.command import Command
from vrrpkit.errors import CouldNotAsk, UntrustedCommand
from vrrpkit.events import CheckResult
from vrrpkit.local_errors import own_trouble

TARGET = Target(ip_address("10.0.0.1"), 8080, "web1")
BARE = Target(ip_address("::1"))


def sh(script: str, *arguments: str, **options: Any) -> ScriptChecker:
    return ScriptChecker(["/bin/sh", "-c", script, "check", *arguments], **options)


def ask(checker: ScriptChecker, target: Target = TARGET) -> Weight | None:
    return asyncio.run(checker.check(target))


def words(*arguments: str, target: Target = TARGET) -> str:
    """What a program gets as its arguments."""
    with pytest.raises(CheckFailed) as caught:
        ask(sh('for word; do printf "<%s>" "$word"; done; exit 1', *arguments), target)
    return str(caught.value).removeprefix("exit status 1: ")


def test_exit_status_0_is_healthy_and_others_are_not() -> None:
    assert ask(sh("exit 0")) is None
    with pytest.raises(CheckFailed, match=r"^exit status 1: no space left$"):
        ask(sh("echo all is well; echo no space left >&2; exit 1"))
    for status in (2, 7, 255):
        with pytest.raises(CheckFailed, match=rf"^exit status {status}$"):
            ask(sh(f"exit {status}"))
    with pytest.raises(CheckFailed, match=r"^ended by SIGKILL$"):
        ask(sh("kill -9 $$"))


def test_dynamic_weights() -> None:
    assert ask(sh("exit 0", dynamic=True)) is None
    with pytest.raises(CheckFailed, match="exit status 1"):
        ask(sh("exit 1", dynamic=True))
    assert ask(sh("exit 2", dynamic=True)) == Weight(0)
    assert ask(sh("exit 52", dynamic=True)) == Weight(50)
    assert ask(sh("exit 255", dynamic=True)) == Weight(253)
    with pytest.raises(CheckFailed, match="SIGTERM"):
        ask(sh("kill $$", dynamic=True))


def test_the_end_of_a_long_output_is_shown() -> None:
    with pytest.raises(CheckFailed, match=r"^exit status 1: the reason$"):
        ask(sh("yes | head -n 100000; echo the reason; exit 1"))


def test_its_arguments_know_the_server() -> None:
    assert words("{address}:{port}", "{name}") == "<10.0.0.1:8080><web1>"
    assert words("{address}{address}", target=BARE) == "<::1::1>"
    assert words("{name}", target=BARE) == "<[::1]>"


def test_other_braces_are_text() -> None:
    assert words("{}", "{", "{a b}", "${port}", "{{port}}", "{{print}}") == (
        "<{}><{><{a b}><${port}><{port}><{print}>"
    )


def test_its_environment_knows_the_server() -> None:
    seen = '[ "$VRRPKIT_ADDRESS $VRRPKIT_PORT $VRRPKIT_NAME $A" = "10.0.0.1 8080 web1 x" ]'
    assert ask(sh(seen, environment={"A": "x"})) is None
    assert ask(sh('[ "$VRRPKIT_ADDRESS/$VRRPKIT_PORT" = ::1/ ]'), BARE) is None


def test_a_server_without_a_port() -> None:
    ScriptChecker(["true", "${port}", "{{port}}", "{address}"]).validate(BARE)
    checker = ScriptChecker(["true", "{address}:{port}"])
    checker.validate(TARGET)
    for target in (BARE, Target(ip_address("::1"), 0)):
        with pytest.raises(ConfigError, match="no port"):
            checker.validate(target)


def test_exit_0_on_the_term_of_the_timeout_has_failed(tmp_path: Path) -> None:
    results: list[CheckResult] = []
    log = tmp_path / "log"

    async def main() -> None:
        done = asyncio.Event()

        def take(result: CheckResult) -> None:
            results.append(result)
            if len(results) == 2:
                done.set()

        checker = sh(
            f"trap 'echo ended >> {log}; exit 0' TERM; echo begun >> {log}; sleep 60 & wait",
            timeout=0.2,
            interval=0.01,
            warmup=0,
            retry=0,
        )
        async with CheckScheduler() as scheduler, asyncio.timeout(20):
            scheduler.add(checker, TARGET, on_result=take)
            await done.wait()

    asyncio.run(main())
    assert [result.passed for result in results] == [False, False]
    assert "0.2 s" in results[0].text
    # The next attempt began when the one before had ended.
    lines = log.read_text().split()
    assert lines == ["begun", "ended"] * (len(lines) // 2)


def test_bad_ones_are_refused() -> None:
    with pytest.raises(ConfigError, match="install it"):
        ScriptChecker("no-such-program-anywhere")
    with pytest.raises(ConfigError, match="cannot be split"):
        ScriptChecker("true 'x")
    with pytest.raises(ConfigError, match=r"unknown field \{host\}.*\{\{host\}\}"):
        ScriptChecker(["/bin/true", "{address} {host}"])
    with pytest.raises(ConfigError, match="no user"):
        ScriptChecker("true", user="no-such-user-here")
    with pytest.raises(ConfigError, match="must be a sequence"):
        ScriptChecker("true", user=0, groups="root")


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
    with pytest.raises(UntrustedCommand, match="No such file"):
        ask(checker)


# --- trouble of our own -------------------------------------------------------------------------


def test_a_status_that_is_lost_is_no_answer() -> None:
    before = signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    try:
        for script in ("sleep 0.2", "true"):
            with pytest.raises(CouldNotAsk, match="its exit status is not known") as caught:
                ask(sh(script))
            assert caught.value.errno == errno.ECHILD
        # That its time was up is known all the same.
        done = asyncio.run(Command(["/bin/sleep", "9"], timeout=0.1).run())
        assert done.known
        assert not done.ok
    finally:
        signal.signal(signal.SIGCHLD, before)


@pytest.mark.parametrize("number", [errno.EMFILE, errno.EAGAIN, errno.ENOMEM])
def test_one_that_cannot_be_started_now_is_no_answer(
    monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def refuse(*_arguments: object, **_options: object) -> None:
        raise OSError(number, os.strerror(number))

    checker = sh("true")
    monkeypatch.setattr(subprocess, "Popen", refuse)
    with pytest.raises(CouldNotAsk, match="is not run: ") as caught:
        ask(checker)
    assert caught.value.errno == number


def test_one_that_can_never_be_started_has_failed(tmp_path: Path) -> None:
    program = tmp_path / "check"
    program.write_text("#!/nowhere/interpreter\n")
    program.chmod(0o755)
    with pytest.raises(OSError, match="interpreter in its first line") as caught:
        ask(ScriptChecker([str(program)]))
    assert not own_trouble(caught.value)
