"""External commands: real ones, that behave badly in every way."""

from __future__ import annotations

import asyncio
import ctypes
import errno
import gc
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import attrs
import pytest
from blockbuster import blockbuster_ctx

from vrrpkit import ConfigError, HostError
from vrrpkit.commands import command as module
from vrrpkit.commands.command import Command, Finished
from vrrpkit.errors import UntrustedCommand

PR_SET_CHILD_SUBREAPER = 36

PATIENCE = 20.0
"""Seconds that nothing here takes, on a machine however busy."""


def run(command: Command, *extra: str, **changes: Any) -> Finished:
    return asyncio.run(command.run(*extra, **changes))


def sh(script: str, **options: Any) -> Command:
    return Command(["/bin/sh", "-c", script, "script"], **options)


def python(code: str, **options: Any) -> Command:
    return Command([sys.executable, "-c", code], **options)


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state not in "ZX"


def soon(condition: Callable[[], object]) -> None:
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


async def written(path: Path) -> str:
    """The first line of a file that a command is about to write."""
    async with asyncio.timeout(PATIENCE):
        while not (lines := lines_of(path)):  # noqa: ASYNC110
            await asyncio.sleep(0.005)
    return lines[0]


def lines_of(path: Path) -> list[str]:
    try:
        return path.read_text().splitlines()
    except FileNotFoundError:
        return []


@pytest.fixture(autouse=True)
def nothing_is_left() -> Generator[None]:
    """Neither descriptors nor processes, not even dead ones, are left by any of these tests."""
    gc.collect()
    before = descriptors()
    yield
    gc.collect()
    assert descriptors() == before
    no_children()


def no_children() -> None:
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)


def test_status_and_output_of_both_streams() -> None:
    done = run(sh("echo out; echo err >&2; exit 3"))
    assert (done.status, done.signal, done.ok, done.timed_out) == (3, None, False, False)
    assert (done.output, done.end, done.truncated) == (b"out\nerr\n", b"out\nerr\n", False)
    assert 0 <= done.duration < PATIENCE
    assert str(done) == "exit status 3: err"
    assert run(sh("exit 0")).ok
    assert str(run(sh("exit 0"))) == "exit status 0"


def test_text_is_split_without_a_shell() -> None:
    command = Command("printf '%s|' 'a b' $HOME \\; \\*")
    assert run(command).output == b"a b|$HOME|;|*|"
    assert run(command, "x y").output == b"a b|$HOME|;|*|x y|"
    assert str(Command(["echo", "a b"])) == "echo 'a b'"


def test_the_environment_is_clean(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LD_PRELOAD", "")
    monkeypatch.setenv("SECRET", "x")
    given = {"A": "1", "B": "1"}
    command = Command("env", environment=given)
    given["C"] = "too late"
    found = run(command, environment={"B": "2"}).output.decode()
    values = dict(line.split("=", 1) for line in found.splitlines())
    assert values.keys() == {"PATH", "HOME", "USER", "LOGNAME", "LANG", "A", "B"}
    assert (values["A"], values["B"]) == ("1", "2")


def test_it_is_a_session_of_its_own_in_the_root_directory(tmp_path: Path) -> None:
    code = "import os; print(os.getcwd(), os.getsid(0) == os.getpid() == os.getpgid(0))"
    assert run(python(code)).output == b"/ True\n"
    assert run(Command("pwd", directory=str(tmp_path))).output.decode() == f"{tmp_path}\n"
    local = tmp_path / "local"
    local.write_text("#!/bin/sh\necho here\n")
    local.chmod(0o755)
    assert run(Command("./local", directory=str(tmp_path))).output == b"here\n"


def test_nothing_of_ours_is_open_in_it() -> None:
    with open("/dev/null") as extra:
        os.set_inheritable(extra.fileno(), True)
        listed = run(Command("ls /proc/self/fd")).output.split()
    # The fourth is that of the directory which is listed.
    assert listed == [b"0", b"1", b"2", b"3"]


SIGNALS = "import signal as s; print(s.pthread_sigmask(s.SIG_BLOCK, ()), int(s.getsignal({})))"


def test_signals_are_the_usual_ones() -> None:
    # Python ignores SIGPIPE in itself: in a shell, it ends the writer.
    assert run(sh("sh -c 'kill -PIPE $$'; echo $?")).output == b"141\n"
    assert run(python(SIGNALS.format("s.SIGTERM"))).output == b"set() 0\n"
    done = run(sh("kill -9 $$"))
    assert (done.status, done.signal, str(done)) == (None, 9, "ended by SIGKILL")
    assert str(run(sh("kill -40 $$"))) == "ended by signal 40"


def test_what_this_program_blocks_or_ignores_reaches_a_command() -> None:
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1, signal.SIGTERM})
    try:
        assert run(python(SIGNALS.format("s.SIGTERM"))).output == b"set() 0\n"
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    handler = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        assert run(python(SIGNALS.format("s.SIGTERM"))).output == b"set() 0\n"
    finally:
        signal.signal(signal.SIGTERM, handler)


def test_input() -> None:
    data = b"x" * 3_000_000
    assert run(Command("wc -c"), input=data).output.strip() == b"3000000"
    assert run(Command("cat"), input=data).truncated
    # One that does not read it is not waited for.
    assert run(sh("exit 0"), input=data).ok
    assert run(sh("exec <&-; sleep 0.1"), input=data).ok
    assert run(Command("cat")).output == b""


def test_its_input_leaves_the_descriptors_of_others_alone(tmp_path: Path) -> None:
    pid = tmp_path / "pid"

    async def main() -> None:
        task = asyncio.create_task(
            sh(f"cat; echo $$ > {pid}; read _ < {tmp_path}/go").run(input=b"x")
        )
        await written(pid)
        # Of these one has the number that its input had.
        pipes = [os.pipe() for _ in range(4)]
        told: set[int] = set()
        loop = asyncio.get_running_loop()
        for _, sink in pipes:
            loop.add_writer(sink, told.add, sink)
        os.write(go, b"\n")
        assert (await task).ok
        told.clear()
        await asyncio.sleep(0.05)
        assert told == {sink for _, sink in pipes}
        for source, sink in pipes:
            loop.remove_writer(sink)
            os.close(source)
            os.close(sink)

    os.mkfifo(tmp_path / "go")
    go = os.open(tmp_path / "go", os.O_RDWR | os.O_CLOEXEC)
    asyncio.run(main())
    os.close(go)


def test_output_is_capped_and_read_all_the_same() -> None:
    code = (
        "import sys\n"
        "for _ in range(100): sys.stdout.write('x' * 1000000)\n"
        "print('\\nno space left \\x07'); sys.exit(1)"
    )
    done = run(python(code, output_limit=1000))
    assert (done.status, done.truncated) == (1, True)
    assert done.output == b"x" * 1000
    # What went wrong is said last.
    assert len(done.end) == 1000
    assert str(done) == "exit status 1: no space left ?"
    assert run(python("print('x' * 9, end='')", output_limit=9)).truncated is False


def test_all_that_was_written_before_the_end_is_there() -> None:
    # As much as a pipe holds, and nobody reads it before the process has ended.
    done = run(python("import os; os.write(1, b'y' * 65536); os._exit(0)", output_limit=100_000))
    assert done.output == b"y" * 65536


# --- ends


def test_the_time_is_up_for_the_whole_group(tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    done = run(sh(f"sleep 60 & echo $! > {pids}; echo begun; wait", timeout=0.3))
    assert (done.timed_out, done.ok, done.signal) == (True, False, signal.SIGTERM)
    assert str(done) == "not done within 0.3 s: begun"
    assert not alive(int(pids.read_text()))


def test_exit_0_on_the_term_of_the_timeout_is_no_success() -> None:
    done = run(sh("trap 'exit 0' TERM; sleep 60 & wait", timeout=0.2))
    assert (done.status, done.timed_out, done.ok) == (0, True, False)


def test_one_that_ignores_term_is_killed_with_its_group(tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    script = f"trap '' TERM; sh -c 'sleep 60; sleep 60' & echo $! > {pids}; sleep 60; sleep 60"
    done = run(sh(script, timeout=0.2, kill_after=0.2))
    assert (done.signal, done.timed_out) == (9, True)
    assert not alive(int(pids.read_text()))


def test_a_descendant_may_clean_up_after_its_parent_has_ended(tmp_path: Path) -> None:
    child = f"trap 'sleep 0.2; echo done > {tmp_path}/clean; exit' TERM; echo 1 > {tmp_path}/ready"
    child += "; while :; do sleep 0.01; done"
    # Its output is its own, so that only the process group is left to know it by.
    done = run(sh('sh -c "$1" >/dev/null 2>&1 & wait', timeout=0.5, kill_after=10), child)
    assert done.timed_out
    assert done.duration < PATIENCE
    assert (tmp_path / "clean").read_text() == "done\n"


def test_and_is_killed_if_it_does_not_end(tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    child = f"trap '' TERM; echo $$ > {pids}; while :; do sleep 0.01; done"
    done = run(sh('sh -c "$1" >/dev/null 2>&1 & wait', timeout=0.3, kill_after=0.2), child)
    assert (done.timed_out, done.signal) == (True, signal.SIGTERM)
    assert not alive(int(pids.read_text()))


def test_a_descendant_that_holds_the_output_is_not_waited_for(tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    # It even goes on writing.
    done = run(sh(f"echo begun; yes >&1 & echo $! > {pids}", output_limit=6))
    assert (done.status, done.output) == (0, b"begun\n")
    assert done.duration < PATIENCE
    # Nobody reads it now, and so SIGPIPE ends it.
    soon(lambda: not alive(int(pids.read_text())))


def test_what_ends_by_itself_leaves_its_descendants_alone(tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    assert run(sh(f"sleep 60 >/dev/null 2>&1 & echo $! > {pids}", timeout=30)).ok
    pid = int(pids.read_text())
    assert alive(pid)
    os.kill(pid, signal.SIGKILL)


STUBBORN = "echo $$ > {}; trap '' TERM; while :; do sleep 0.01; done"


@pytest.mark.parametrize("turns", [0, 1, 2, 5, 50])
@pytest.mark.parametrize("script", [STUBBORN, "echo $$ > {}; sleep 60"])
def test_a_cancellation_at_any_moment_leaves_nothing(
    script: str, turns: int, tmp_path: Path
) -> None:
    pid = tmp_path / "pid"

    async def main() -> None:
        before = descriptors()
        task = asyncio.create_task(sh(script.format(pid), kill_after=0.1).run(input=b"x" * 200_000))
        for _ in range(turns):
            await asyncio.sleep(0.001)
        task.cancel("enough")
        await asyncio.wait([task])
        assert task.cancelled()
        assert descriptors() == before
        no_children()

    asyncio.run(main())
    if pid.exists() and pid.read_text():
        assert not alive(int(pid.read_text()))


def test_further_cancellations_do_not_cut_the_end_short(tmp_path: Path) -> None:
    pid = tmp_path / "pid"

    async def main() -> None:
        task = asyncio.create_task(sh(STUBBORN.format(pid), kill_after=0.2).run())
        number = int(await written(pid))
        while not task.done():
            task.cancel()
            await asyncio.sleep(0.01)
        assert task.cancelled()
        assert not alive(number)

    asyncio.run(main())


def test_a_cancellation_while_a_timeout_ends_it_comes_after(tmp_path: Path) -> None:
    pid, asked = tmp_path / "pid", tmp_path / "asked"
    script = f"trap 'echo yes > {asked}' TERM; echo $$ > {pid}; while :; do sleep 0.01; done"

    async def main() -> None:
        task = asyncio.create_task(sh(script, timeout=0.4, kill_after=1.2).run())
        number = int(await written(pid))
        await written(asked)
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled()
        assert not alive(number)

    asyncio.run(main())


def test_the_end_of_the_loop_ends_it(tmp_path: Path) -> None:
    pid = tmp_path / "pid"
    tasks = []

    async def main() -> None:
        tasks.append(asyncio.create_task(sh(STUBBORN.format(pid), kill_after=0.1).run()))
        await written(pid)

    asyncio.run(main())
    assert tasks[0].cancelled()
    assert not alive(int(pid.read_text()))


def test_many_at_once() -> None:
    async def main() -> None:
        async with asyncio.TaskGroup() as tasks:
            runs = [tasks.create_task(sh(f"exit {n}").run(input=b"x")) for n in range(50)]
        assert [task.result().status for task in runs] == list(range(50))

    asyncio.run(main())


def test_it_never_blocks_the_loop_and_has_no_thread() -> None:
    echo = sh("cat; sleep 0.1; exit 3")
    slow = sh(f"{STUBBORN.format('/dev/null')} & wait", timeout=0.2, kill_after=0.2)

    async def main() -> None:
        with blockbuster_ctx("vrrpkit") as blockbuster:
            # A look at the path of a program, which is on a local disk, must come before each run;
            # Popen waits until vfork and exec are done, which is as long as both take; and /proc
            # answers at once.
            for function, file, caller in (
                ("os.stat", "vrrpkit/commands/command.py", "_look"),
                ("os.readlink", "vrrpkit/commands/command.py", "_look"),
                ("os.read", "subprocess.py", "_execute_child"),
                ("os.listdir", "vrrpkit/commands/process.py", "_living"),
                ("io.BufferedReader.read", "vrrpkit/commands/process.py", "_lives"),
            ):
                blockbuster.functions[function].can_block_in(file, caller)
            done = await echo.run(input=b"in")
            assert (done.status, done.output) == (3, b"in")
            turns = 0
            task = asyncio.create_task(slow.run())
            while not task.done():
                await asyncio.sleep(0.005)
                turns += 1
            assert task.result().timed_out
            assert turns > 10
            assert threading.active_count() == threads

    threads = threading.active_count()
    asyncio.run(main())


# --- what else may go wrong


def test_a_status_that_somebody_else_took_is_no_success() -> None:
    before = signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    try:
        done = run(sh("sleep 0.2"))
    finally:
        signal.signal(signal.SIGCHLD, before)
    assert (done.status, done.signal, done.ok) == (None, None, False)
    assert "not known" in str(done)


@pytest.mark.parametrize(
    ("number", "expected"), [(errno.EMFILE, "Too many open files"), (errno.ESRCH, "SIGCHLD")]
)
def test_a_lack_of_descriptors_leaves_nothing(
    monkeypatch: pytest.MonkeyPatch, number: int, expected: str
) -> None:
    def none_left(pid: int) -> int:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "pidfd_open", none_left)
    with pytest.raises(OSError, match=expected):
        run(Command("sleep 60"), input=b"x")


@pytest.mark.parametrize("output", ["", ">/dev/null 2>&1"])
def test_the_dead_that_nobody_reaps_are_not_waited_for(output: str) -> None:
    # This process adopts the orphans, as the first one of a container does, and does not reap.
    libc = ctypes.CDLL(None)
    assert libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) == 0
    try:
        done = run(sh(f"sleep 60 {output} & wait", timeout=0.2, kill_after=PATIENCE))
        assert done.timed_out
        assert done.duration < PATIENCE / 2
        assert os.waitpid(-1, os.WNOHANG)[1] == signal.SIGTERM
    finally:
        libc.prctl(PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0)


def test_what_not_even_kill_ends_is_let_go_and_reaped_later(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    pid = tmp_path / "pid"
    monkeypatch.setattr(os, "killpg", lambda group, number: None)

    async def main() -> None:
        done = await sh(f"echo $$ > {pid}; exec sleep 60", timeout=0.2, kill_after=0.1).run()
        assert (done.timed_out, done.status, done.signal) == (True, None, None)
        number = int(await written(pid))
        os.kill(number, signal.SIGKILL)
        async with asyncio.timeout(PATIENCE):
            while lines_of(Path(f"/proc/{number}/stat")):  # noqa: ASYNC110
                await asyncio.sleep(0.01)

    asyncio.run(main())
    assert "still runs 0.1 s after SIGKILL" in caplog.text


def program(path: Path, text: str = "#!/bin/sh\necho hello\n") -> Path:
    path.write_text(text)
    path.chmod(0o755)
    return path


def test_one_that_vanishes_or_can_be_run_no_more_is_not_run(tmp_path: Path) -> None:
    path = program(tmp_path / "check")
    command = Command([str(path)])
    assert run(command).output == b"hello\n"
    path.chmod(0o644)
    with pytest.raises(UntrustedCommand, match="chmod"):
        run(command)
    path.unlink()
    with pytest.raises(HostError, match="No such file"):
        run(command)


def test_one_that_the_kernel_cannot_execute_says_so(tmp_path: Path) -> None:
    path = program(tmp_path / "check", "no format that the kernel knows")
    with pytest.raises(OSError, match=f"let it begin with '#!/bin/sh' or such: '{path}'"):
        run(Command([str(path)]))
    program(path, "#!/no/such/interpreter\n")
    with pytest.raises(FileNotFoundError, match="interpreter in its first line does not exist"):
        run(Command([str(path)]))
    with path.open("r+b"), pytest.raises(OSError, match="Text file busy"):
        run(Command([str(path)]))
    gone = tmp_path / "gone"
    gone.mkdir()
    command = Command([str(program(path))], directory=str(gone))
    gone.rmdir()
    with pytest.raises(FileNotFoundError, match=str(gone)):
        run(command)


def test_one_that_env_cannot_execute_has_no_status(tmp_path: Path) -> None:
    """126 and 127 would be weights to a dynamic check."""
    path = program(tmp_path / "check", "#!/no/such/interpreter\n")
    odd = program(tmp_path / "odd", "#!/bin/sh\necho env: this is mine; echo and this; exit 127\n")
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
    try:
        with pytest.raises(OSError, match=r"could not be executed: .*env: .*No such file"):
            run(Command([str(path)]))
        assert run(Command([str(odd)])).status == 127
        assert run(sh("exit 127")).status == 127
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    assert run(sh("echo env: mine; exit 127")).status == 127


def test_it_is_looked_at_on_construction_and_before_each_run(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    looked: list[tuple[str, int]] = []
    refused: list[ConfigError] = []

    def look(path: str, uid: int) -> None:
        looked.append((path, uid))
        for problem in refused:
            raise problem

    monkeypatch.setattr(module, "require_trusted", look)
    command = Command("/bin/true")
    assert looked == [("/bin/true", os.geteuid())]
    assert run(command).ok
    assert len(looked) == 2
    refused.append(ConfigError("/bin can be written to by everybody"))
    with pytest.raises(UntrustedCommand, match="written to by everybody"):
        run(command)
    with pytest.raises(ConfigError, match="written to by everybody"):
        Command("/bin/true")


def test_two_of_the_same_are_equal() -> None:
    assert Command("echo x", environment={"A": "1"}) == Command(
        ["echo", "x"], environment={"A": "1"}
    )
    assert hash(Command("echo x", user=os.geteuid())) == hash(Command("echo x", user=os.geteuid()))
    assert Command("echo x") != Command("echo y")
    assert run(attrs.evolve(Command("echo x"), argv=["echo", "y"])).output == b"y\n"


# --- what is refused


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ("", "empty"),
        ([], "empty"),
        ([""], "empty"),
        ("'open", "cannot be split"),
        ("no-such-program-anywhere", "install it"),
        ("/no/such/program", "No such file"),
        ("/etc/passwd", "chmod"),
        ("/etc", "is no program"),
        (["echo", "a\0b"], "NUL"),
        (["echo", 5], "must be text"),
    ],
)
def test_bad_commands(argv: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Command(argv)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"timeout": 0}, "timeout"),
        ({"timeout": float("nan")}, "timeout"),
        ({"timeout": "3"}, "timeout"),
        ({"timeout": True}, "timeout"),
        ({"timeout": 86401}, "timeout"),
        ({"kill_after": 0}, "kill_after"),
        ({"kill_after": 3601}, "kill_after"),
        ({"output_limit": -1}, "output_limit"),
        ({"output_limit": 1.5}, "output_limit"),
        ({"directory": "tmp"}, "absolute"),
        ({"directory": "/etc/passwd"}, "directory '/etc/passwd' is none"),
        ({"environment": {"A=": "1"}}, "environment"),
        ({"environment": {"": "1"}}, "environment"),
        ({"environment": {"A": "\0"}}, "environment"),
        ({"groups": ["root"]}, "name the user"),
        ({"groups": "root", "user": 0}, r"groups=\['root'\]"),
        ({"user": 0, "groups": []}, "groups is empty"),
        ({"user": 0, "groups": ["no-such-group"]}, "no group 'no-such-group'"),
        ({"user": 0, "groups": [-1]}, "group -1"),
        ({"user": "no-such-user-here"}, "useradd"),
        ({"user": -1}, "user -1"),
        ({"user": 2**32 - 1}, "user 4294967295"),
        ({"user": True}, "user True"),
        ({"user": 3999999999}, "give groups="),
    ],
)
def test_bad_options(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Command("echo", **options)


def test_only_root_switches_users_or_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 3999999998)
    for options in ({"user": 0}, {"user": 3999999998, "groups": [1]}):
        with pytest.raises(ConfigError, match="only root"):
            Command("echo", **options)


def test_switching_users_needs_setpriv(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    program(tmp_path / "hello")
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(module, "PATH", str(tmp_path))
    with pytest.raises(ConfigError, match="util-linux"):
        Command("hello", user=1, groups=[1])


def test_a_user_without_a_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 3999999998)
    assert run(Command("printenv USER HOME")).output == b"3999999998\n/\n"


@pytest.mark.parametrize(
    ("text", "operator"),
    [
        ("cat /proc/loadavg | grep 0", "|"),
        ("test -e /tmp && true", "&&"),
        ("true || true", "||"),
        ("true; true", ";"),
        ("echo x>/dev/null", ">"),
        ("echo x >>/dev/null 2>&1", ">>"),
        ("sort </dev/null", "<"),
        ("echo $(date)", "$("),
        ("echo `date`", "`"),
        ("echo 'a' | sort", "|"),
        (r"echo 'a\' | sort", "|"),
        ("sleep 1 &", "&"),
    ],
)
def test_a_text_for_a_shell_is_refused(text: str, operator: str) -> None:
    with pytest.raises(ConfigError, match="runs without one; write") as refusal:
        Command(text)
    assert repr(operator) in str(refusal.value)
    assert f"['/bin/sh', '-c', {text!r}]" in str(refusal.value)
    Command(["/bin/sh", "-c", text])
    Command(["/bin/echo", text])


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("sh -c 'echo a | cat'", "a\n"),
        ('sh -c "echo a; echo b"', "a\nb\n"),
        ('sh -c "echo \\"a\\" \'|\'"', "a |\n"),
        (r"echo a\;b \$\(c\)", "a;b $(c)\n"),
        ("echo '$(date) `x`' \"> &\"", "$(date) `x` > &\n"),
        ("echo $HOME * ~ {a}", "$HOME * ~ {a}\n"),
    ],
)
def test_what_is_in_quotes_stands_as_it_is(text: str, words: str) -> None:
    assert run(Command(text)).output.decode() == words
