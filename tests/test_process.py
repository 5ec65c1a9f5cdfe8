"""External commands: real ones, that behave badly in every way."""

from __future__ import annotations

import asyncio
import os
import stat
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from vrrpkit import ConfigError
from vrrpkit.process import Command, Finished, Untrusted

ROOT = os.geteuid() == 0


def run(command: Command, *extra: str, **changes: Any) -> Finished:
    return asyncio.run(command.run(*extra, **changes))


def sh(script: str, **options: Any) -> Command:
    return Command(["/bin/sh", "-c", script, "script"], **options)


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state not in "ZX"


def gone(pid: int) -> bool:
    end = time.monotonic() + 5
    while alive(pid):
        if time.monotonic() > end:
            return False
        time.sleep(0.01)
    return True


def test_status_and_output_of_both_streams() -> None:
    done = run(sh("echo out; echo err >&2; exit 3"))
    assert (done.status, done.signal, done.ok, done.timed_out) == (3, None, False, False)
    assert sorted(done.output.split()) == [b"err", b"out"]
    assert not done.truncated
    assert 0 <= done.duration < 10
    assert str(done).startswith("exit status 3: ")
    assert run(sh("exit 0")).ok
    assert str(run(sh("exit 0"))) == "exit status 0"


def test_text_is_split_without_a_shell() -> None:
    command = Command("printf '%s|' 'a b' $HOME ; \\*")
    assert run(command).output == b"a b|$HOME|;|*|"
    assert run(command, "x y").output == b"a b|$HOME|;|*|x y|"
    assert str(Command(["echo", "a b"])) == "echo 'a b'"


def test_the_environment_is_clean(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET", "x")
    found = run(Command("env", environment={"A": "1"}), environment={"B": "2"}).output.decode()
    names = {line.partition("=")[0] for line in found.splitlines()}
    assert names == {"PATH", "HOME", "USER", "LOGNAME", "LANG", "A", "B"}


def test_it_is_a_session_of_its_own_in_the_root_directory() -> None:
    code = "import os; print(os.getcwd(), os.getsid(0) == os.getpid() == os.getpgid(0))"
    assert run(Command([sys.executable, "-c", code])).output == b"/ True\n"


def test_signals_are_the_usual_ones() -> None:
    code = "import signal as s; print(s.pthread_sigmask(s.SIG_BLOCK, ()))"
    assert run(Command([sys.executable, "-c", code])).output == b"set()\n"
    done = run(sh("kill -9 $$"))
    assert (done.status, done.signal, str(done)) == (None, 9, "ended by SIGKILL")


def test_input() -> None:
    data = b"x" * 3_000_000
    done = run(Command("wc -c"), input=data)
    assert done.output.strip() == b"3000000"
    # One that does not read it is not waited for.
    assert run(sh("exit 0"), input=data).ok
    assert run(Command("cat")).output == b""


def test_output_is_capped_and_read_all_the_same() -> None:
    code = "import sys; [sys.stdout.write('x' * 1000000) for _ in range(100)]"
    done = run(Command([sys.executable, "-c", code], output_limit=1000))
    assert done.ok
    assert done.truncated
    assert done.output == b"x" * 1000


def test_the_time_is_up_for_the_whole_group(tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    script = f"sleep 60 & echo $! > {pids}; echo begun; wait"
    done = run(sh(script, timeout=0.3))
    assert (done.timed_out, done.ok, done.output) == (True, False, b"begun\n")
    assert gone(int(pids.read_text()))
    assert str(done).startswith("not done within 0.3")


def test_exit_0_on_the_term_of_the_timeout_is_no_success() -> None:
    done = run(sh("trap 'exit 0' TERM; sleep 60 & wait", timeout=0.2))
    assert (done.status, done.timed_out, done.ok) == (0, True, False)


def test_one_that_ignores_term_is_killed_with_its_group(tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    script = (
        f"trap '' TERM; sh -c 'trap \"\" TERM; sleep 60' & echo $! > {pids}; sleep 60; sleep 60"
    )
    done = run(sh(script, timeout=0.2, kill_after=0.2))
    assert (done.signal, done.timed_out) == (9, True)
    assert gone(int(pids.read_text()))


def test_a_descendant_that_holds_the_output_does_not_hold_us() -> None:
    start = time.monotonic()
    done = run(sh("sleep 60 & echo begun"))
    assert (done.status, done.output) == (0, b"begun\n")
    assert time.monotonic() - start < 30


@pytest.mark.parametrize("after", [0.0, 0.01, 0.05, 0.2])
def test_a_cancellation_leaves_nothing(after: float, tmp_path: Path) -> None:
    pids = tmp_path / "pids"

    async def main() -> None:
        before = descriptors()
        script = f"echo $$ > {pids}; trap '' TERM; sleep 60; sleep 60"
        task = asyncio.create_task(sh(script, kill_after=0.1).run())
        await asyncio.sleep(after)
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled()
        assert descriptors() == before

    asyncio.run(main())
    if pids.exists() and pids.read_text():
        assert gone(int(pids.read_text()))


def test_many_at_once_leave_no_zombies_and_no_descriptors() -> None:
    async def main() -> None:
        before = descriptors()
        async with asyncio.TaskGroup() as tasks:
            runs = [tasks.create_task(sh(f"exit {n}").run()) for n in range(50)]
        assert [task.result().status for task in runs] == list(range(50))
        assert descriptors() == before

    asyncio.run(main())
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)


def test_the_loop_goes_on_meanwhile() -> None:
    async def main() -> int:
        turns = 0
        task = asyncio.create_task(sh("sleep 0.3").run())
        while not task.done():
            await asyncio.sleep(0.005)
            turns += 1
        return turns

    assert asyncio.run(main()) > 20


# --- what is refused


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ("", "empty"),
        ([], "empty"),
        ("'open", "cannot be split"),
        ("no-such-program-anywhere", "install it"),
        ("/no/such/program", "No such file"),
        ("/etc/passwd", "chmod"),
        ("/etc", "is no program"),
        (["echo", "a\0b"], "NUL"),
    ],
)
def test_bad_commands(argv: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Command(argv)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"timeout": 0}, "timeout"),
        ({"kill_after": 0}, "kill_after"),
        ({"output_limit": -1}, "output_limit"),
        ({"groups": ["root"]}, "name the user"),
        ({"user": "no-such-user-here"}, "no user"),
    ],
)
def test_bad_options(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Command("echo", **options)


@pytest.mark.skipif(ROOT, reason="root may run as anybody")
def test_only_root_switches_users() -> None:
    with pytest.raises(ConfigError, match="only root"):
        Command("echo", user=0)


def program(path: Path, text: str = "#!/bin/sh\nid -un\n") -> Path:
    path.write_text(text)
    path.chmod(0o755)
    return path


def test_one_that_vanishes_is_not_run(tmp_path: Path) -> None:
    path = program(tmp_path / "check")
    command = Command([str(path)], **({"user": "nobody"} if ROOT else {}))
    path.unlink()
    with pytest.raises(Untrusted, match="No such file"):
        run(command)


def test_one_that_cannot_be_executed_says_so(tmp_path: Path) -> None:
    path = program(tmp_path / "check", "no format that the kernel knows")
    command = Command([str(path)], **({"user": os.getuid()} if not ROOT else {"user": "nobody"}))
    if ROOT:
        assert not run(command).ok
    else:
        with pytest.raises(OSError, match="format"):
            run(command)


@pytest.mark.skipif(not ROOT, reason="needs root")
class TestAsRoot:
    def test_another_user_with_its_groups(self) -> None:
        done = run(Command("id", user="daemon"))
        assert done.output.startswith(b"uid=1(daemon) gid=1(daemon) groups=1(daemon)")
        assert run(Command("id", user=1, groups=[2, "sys"])).output.startswith(
            b"uid=1(daemon) gid=2(bin) groups=2(bin),3(sys)"
        )
        assert run(Command(["printenv", "USER"], user="daemon")).output == b"daemon\n"

    def test_a_group_is_named_that_there_is_not(self) -> None:
        with pytest.raises(ConfigError, match="no-such-group"):
            run(Command("id", user=1, groups=["no-such-group"]))

    def test_what_others_may_change_is_not_run_as_root(self, tmp_path: Path) -> None:
        path = program(tmp_path / "check")
        path.chmod(0o777)
        with pytest.raises(ConfigError, match="would run as root"):
            Command([str(path)])
        assert Command([str(path)], user="nobody").user == "nobody"

    def test_and_it_is_looked_at_before_each_run(self) -> None:
        path = Path(f"/usr/local/bin/vrrpkit-test-{os.getpid()}")
        try:
            command = Command([str(program(path))])
            assert run(command).output == b"root\n"
            path.chmod(path.stat().st_mode | stat.S_IWOTH)
            with pytest.raises(Untrusted, match="written to by everybody"):
                run(command)
        finally:
            path.unlink()
