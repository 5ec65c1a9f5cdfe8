"""run(): signals become a cancellation, and cleanup is never cut short."""

from __future__ import annotations

import asyncio
import os
import select
import signal
import subprocess
import sys
import threading

import pytest

from vrrpkit.runner import SIGNALS, run

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

run(main())
print("not reached", flush=True)
"""


def service(
    cleanup: str = "asyncio.sleep(0)", before: str = "", after: str = ""
) -> subprocess.Popen[bytes]:
    text = SERVICE.format(cleanup=cleanup, before=before, after=after)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    # Whoever started the tests may ignore signals (nohup does), and programs inherit that.
    return subprocess.Popen(
        ["env", "--default-signal", sys.executable, "-c", text],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment,
    )


def wait_for_line(process: subprocess.Popen[bytes], wanted: bytes) -> None:
    assert process.stdout is not None
    readable, _, _ = select.select([process.stdout], [], [], 20)
    assert readable, f"no {wanted!r} within 20 s"
    assert process.stdout.readline().strip() == wanted


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_ends_the_program_in_good_order(number: signal.Signals) -> None:
    with service() as process:
        wait_for_line(process, b"ready")
        process.send_signal(number)
        out, err = process.communicate(timeout=20)
    assert (out, process.returncode) == (b"leaving\nleft\n", 0)
    assert b"Traceback" not in err
    assert f"leaving because of {number.name}".encode() in err


def test_further_signals_do_not_cut_the_cleanup_short() -> None:
    with service(cleanup="asyncio.to_thread(sys.stdin.read)") as process:
        wait_for_line(process, b"ready")
        process.send_signal(signal.SIGTERM)
        wait_for_line(process, b"leaving")
        process.send_signal(signal.SIGTERM)
        process.send_signal(signal.SIGINT)
        # Until the cleanup is told to end, by the end of its input.
        out, err = process.communicate(timeout=20)
    assert (out, process.returncode) == (b"left\n", 0)
    assert b"SIGINT ignored: already leaving because of SIGTERM" in err


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
