"""run(): signals become a cancellation, and leaving ends in time."""

from __future__ import annotations

import asyncio
import logging
import os
import resource
import select
import signal
import subprocess
import sys
import threading
import time

import pytest

from vrrpkit.errors import ConfigError
from vrrpkit.runner import FILES, SIGNALS, run

SERVICE = """
import asyncio, logging, signal, sys
{before}
from vrrpkit.runner import run

logging.basicConfig(format="%(message)s", level=logging.INFO)

async def main():
    try:
        print("ready", flush=True)
        await asyncio.sleep(30)
    finally:
        print("leaving", flush=True)
        await {cleanup}
        print("left", flush=True)
{after}

run(main(){options})
print("not reached", flush=True)
"""


def service(
    cleanup: str = "asyncio.sleep(0)",
    before: str = "",
    after: str = "",
    options: str = "",
    stdin: int = subprocess.PIPE,
) -> subprocess.Popen[bytes]:
    text = SERVICE.format(cleanup=cleanup, before=before, after=after, options=options)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    # Whoever started the tests may ignore signals (nohup does), and programs inherit that.
    return subprocess.Popen(
        ["env", "--default-signal", sys.executable, "-c", text],
        stdin=stdin,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment,
    )


def wait_for_line(process: subprocess.Popen[bytes], wanted: bytes) -> None:
    assert process.stdout is not None
    readable, _, _ = select.select([process.stdout], [], [], 20)
    assert readable, f"no {wanted!r} within 20 s"
    assert process.stdout.readline().strip() == wanted


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_program_in_good_order(number: signal.Signals) -> None:
    with service() as process:
        wait_for_line(process, b"ready")
        process.send_signal(number)
        out, err = process.communicate(timeout=20)
    assert (out, process.returncode) == (b"leaving\nleft\n", 0)
    assert b"Traceback" not in err
    assert f"leaving because of {number.name}".encode() in err


def test_an_ignored_sigchld_is_set_back_to_its_default() -> None:
    before = "import subprocess\nsignal.signal(signal.SIGCHLD, signal.SIG_IGN)"
    cleanup = "asyncio.to_thread(print, subprocess.run(['sh', '-c', 'exit 3']).returncode)"
    with service(cleanup, before=before) as process:
        wait_for_line(process, b"ready")
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=20)
    assert (out, process.returncode) == (b"leaving\n3\nleft\n", 0)
    assert err.count(b"SIGCHLD was ignored") == 1


@pytest.mark.parametrize("ours", [signal.SIG_IGN, signal.SIG_DFL])
def test_sigchld_is_as_it_was_after_run(
    ours: signal.Handlers, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> object:
        return signal.getsignal(signal.SIGCHLD)

    before = signal.signal(signal.SIGCHLD, ours)
    try:
        assert run(main()) is signal.SIG_DFL
        assert signal.getsignal(signal.SIGCHLD) is ours
    finally:
        signal.signal(signal.SIGCHLD, before)
    assert ("SIGCHLD" in caplog.text) is (ours is signal.SIG_IGN)


STUCK = """
async def stuck():
    while True:
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            pass
"""


def leave(process: subprocess.Popen[bytes], *numbers: signal.Signals) -> tuple[float, bytes]:
    """How long it takes to leave after the last of these signals, and what is logged."""
    for number in numbers:
        time.sleep(0.3)
        process.send_signal(number)
    began = time.monotonic()
    _out, err = process.communicate(timeout=30)
    return time.monotonic() - began, err


def test_what_does_not_end_is_named_and_left_alone_after_ten_seconds() -> None:
    main = "asyncio.create_task(stuck(), name='a check')"
    with service(cleanup=main, before=STUCK) as process:
        wait_for_line(process, b"ready")
        seconds, err = leave(process, signal.SIGTERM)
    assert 8 < seconds < 10.5
    assert process.returncode == 1
    assert b"not waiting any longer for the task " in err
    assert b"the task 'a check' at " in err
    assert b"<string>:" in err


def test_a_second_signal_ends_it_within_two_seconds() -> None:
    with service(cleanup="stuck()", before=STUCK) as process:
        wait_for_line(process, b"ready")
        seconds, err = leave(process, signal.SIGTERM, signal.SIGINT)
    assert 1 < seconds < 2.5
    assert process.returncode == 1
    assert b"SIGINT: leaving because of SIGTERM is cut short" in err


def test_a_second_signal_shortens_what_is_waited_for() -> None:
    hurried = "from vrrpkit.lifecycle.shutdown import patience"
    cleanup = "patient()"
    patient = """
async def patient():
    try:
        async with patience(30, 0.1):
            await asyncio.sleep(60)
    except TimeoutError:
        print("no more patience", flush=True)
"""
    with service(cleanup=cleanup, before=hurried + patient) as process:
        wait_for_line(process, b"ready")
        process.send_signal(signal.SIGTERM)
        wait_for_line(process, b"leaving")
        process.send_signal(signal.SIGTERM)
        out, _err = process.communicate(timeout=20)
    assert (out, process.returncode) == (b"no more patience\nleft\n", 0)


def test_a_thread_that_does_not_end_is_left_alone_too() -> None:
    with service(cleanup="asyncio.to_thread(__import__('time').sleep, 60)") as process:
        wait_for_line(process, b"ready")
        seconds, err = leave(process, signal.SIGTERM, signal.SIGTERM)
    assert seconds < 2.5
    assert process.returncode == 1
    assert b"the thread 'asyncio_0'" in err


def test_a_hangup_is_ignored_with_a_line() -> None:
    with service() as process:
        wait_for_line(process, b"ready")
        _seconds, err = leave(process, signal.SIGHUP, signal.SIGTERM)
    assert process.returncode == 0
    assert b"SIGHUP ignored; run(main, on_hangup=...) sets what it does" in err


def test_a_hangup_does_what_it_is_told_to() -> None:
    before = "def reload():\n    print('reload', flush=True)\n    raise ZeroDivisionError"
    for ignored in ("", "\nsignal.signal(signal.SIGHUP, signal.SIG_IGN)"):
        with service(before=before + ignored, options=", on_hangup=reload") as process:
            wait_for_line(process, b"ready")
            process.send_signal(signal.SIGHUP)
            wait_for_line(process, b"reload")
            process.send_signal(signal.SIGHUP)
            wait_for_line(process, b"reload")
            _seconds, err = leave(process, signal.SIGTERM)
        assert process.returncode == 0
        assert b"ZeroDivisionError" in err


def test_a_terminal_that_is_gone_ends_the_program() -> None:
    ours, terminal = os.openpty()
    with service(stdin=terminal) as process:
        os.close(terminal)
        wait_for_line(process, b"ready")
        os.close(ours)
        process.send_signal(signal.SIGHUP)
        out, err = process.communicate(timeout=20)
    assert (out, process.returncode) == (b"leaving\nleft\n", 129)
    assert b"leaving because of SIGHUP" in err


def test_what_a_hangup_does_is_checked() -> None:
    async def reload() -> None:
        """Nobody would await it."""

    for wrong in (reload, "reload"):
        main = asyncio.sleep(0)
        with pytest.raises(ConfigError, match="on_hangup"):
            run(main, on_hangup=wrong)  # type: ignore[arg-type]


def test_as_many_files_may_be_open_as_the_system_allows(caplog: pytest.LogCaptureFixture) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    lower = 256
    resource.setrlimit(resource.RLIMIT_NOFILE, (lower, hard))

    async def main() -> int:
        return resource.getrlimit(resource.RLIMIT_NOFILE)[0]

    try:
        with caplog.at_level(logging.INFO):
            raised = run(main())
        assert raised == min(hard, FILES)
        assert f"the limit on open files is raised from {lower} to {raised}" in caplog.text
        assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] == lower
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    with_asyncio = asyncio.run(main())
    assert with_asyncio == soft


def test_an_error_while_leaving_comes_out() -> None:
    with service(after="        raise ValueError('broken')") as process:
        wait_for_line(process, b"ready")
        process.send_signal(signal.SIGTERM)
        _out, err = process.communicate(timeout=20)
    assert process.returncode == 1
    assert b"ValueError: broken" in err


def test_a_signal_that_is_ignored_stays_ignored() -> None:
    with service(before="signal.signal(signal.SIGHUP, signal.SIG_IGN)") as process:
        wait_for_line(process, b"ready")
        process.send_signal(signal.SIGHUP)
        process.send_signal(signal.SIGTERM)
        _out, err = process.communicate(timeout=20)
    assert b"leaving because of SIGTERM" in err


def test_the_result_and_the_exception_come_out() -> None:
    async def fail() -> None:
        raise ZeroDivisionError

    assert run(asyncio.sleep(0, "done")) == "done"
    with pytest.raises(ZeroDivisionError):
        run(fail())


def test_a_main_that_catches_the_cancellation_keeps_its_result() -> None:
    async def main() -> str:
        os.kill(os.getpid(), signal.SIGTERM)
        try:
            await asyncio.sleep(20)
        except asyncio.CancelledError:
            return "caught"
        return "slept"

    assert run(main()) == "caught"


def test_a_cancellation_of_its_own_stays_one() -> None:
    async def main() -> None:
        raise asyncio.CancelledError

    with pytest.raises(asyncio.CancelledError):
        run(main())


def test_handlers_are_put_back() -> None:
    before = [signal.getsignal(number) for number in SIGNALS]
    run(asyncio.sleep(0))
    assert [signal.getsignal(number) for number in SIGNALS] == before

    async def main() -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        await asyncio.sleep(20)

    with pytest.raises(SystemExit) as caught:
        run(main())
    assert caught.value.code == 0
    assert [signal.getsignal(number) for number in SIGNALS] == before


def test_another_loop_can_be_chosen() -> None:
    made: list[asyncio.AbstractEventLoop] = []

    def factory() -> asyncio.AbstractEventLoop:
        made.append(asyncio.new_event_loop())
        return made[0]

    async def main() -> asyncio.AbstractEventLoop:
        return asyncio.get_running_loop()

    assert run(main(), loop_factory=factory) is made[0]


def test_only_the_main_thread_may() -> None:
    problems: list[BaseException] = []

    def elsewhere() -> None:
        try:
            run(asyncio.sleep(0))
        except RuntimeError as problem:
            problems.append(problem)

    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join()
    assert "main thread" in str(problems[0])
