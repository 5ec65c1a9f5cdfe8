"""A kernel with IPVS as an ordinary process: user-mode-linux on this machine's own file system.

The kernel sees this machine's files as they are (hostfs), has its own network, processes and
``/run``, and ends with the command that it was booted for. One boot takes about two seconds.
Debian's package ``user-mode-linux`` brings it with its modules.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

PROGRAM = "linux"
COMPILER = "cc"
REGISTERS = Path(__file__).with_name("registers.c")
"""Preloaded: without it the kernel panics on processors with more registers than it knows."""
MODULES = Path("/usr/lib/uml/modules")
MEMORY = 512
"""Megabytes."""
PATHS = "/usr/local/sbin:/usr/sbin:/sbin:/usr/local/bin:/usr/bin:/bin"

INSIDE = "VRRPKIT_INSIDE_KERNEL"
"""Set in the environment of whatever runs inside, to the scratch directory of its machine."""

_PASSED_ON = ("PYTHONPATH", "PYTHONSAFEPATH", "PYTHONWARNINGS", "VRRPKIT_EXAMPLES")

# /tmp is this machine's and stays visible, for checkouts and environments below it; temporary
# files of the command go to a tmpfs. The kernel loads modules with the helper, programs with
# MODPROBE_OPTIONS: its modules are not in /lib/modules.
_INIT = """#!/bin/sh
exec </dev/null >{output} 2>&1
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t tmpfs -o mode=755 tmpfs /run
mkdir -m 1777 /run/tmp
mkdir -m 700 /run/home
printf '#!/bin/sh\\nexec modprobe -d %s "$@"\\n' {root} >/run/modprobe
chmod 755 /run/modprobe
echo /run/modprobe >/proc/sys/kernel/modprobe
ip link set dev lo up
/run/modprobe ip_vs
(cd {directory} && exec env -i {environment} {command})
echo $? >{status}
sync
echo o >/proc/sysrq-trigger
sleep 60
"""


def missing() -> str | None:
    """Why no such kernel can be booted here, or None if one can."""
    if not MODULES.is_dir() or not any(MODULES.iterdir()):
        return f"needs user-mode-linux: there are no modules in {MODULES}"
    lacking = [name for name in (PROGRAM, COMPILER, "ip", "modprobe") if _which(name) is None]
    return f"needs {', '.join(lacking)}" if lacking else None


def inside() -> bool:
    """Whether this process runs in a kernel booted by :class:`Machine`."""
    return INSIDE in os.environ


def run_inside(
    argv: Sequence[str],
    *,
    timeout: float = 120,
    environment: Mapping[str, str] | None = None,
    directory: Path | None = None,
) -> str:
    """Boot, run one command there as root, and return its output (stdout and stderr).

    ``environment`` is added to a clean one; ``directory`` is the working directory, by default the
    current one. Raises :class:`RuntimeError` with the output if the command fails, or the kernel
    does, and :class:`TimeoutError` after ``timeout`` seconds, boot included.
    """
    with Machine(argv, environment=environment, directory=directory) as machine:
        if not machine.wait(timeout):
            raise TimeoutError(f"not done within {timeout} s\n{machine.told()}")
        if machine.status != 0:
            raise RuntimeError(f"{shlex.join(argv)}: exit {machine.status}\n{machine.told()}")
        return machine.output


class Machine:
    """A kernel that runs one command and ends with it, or with the ``with`` block.

    ``self.scratch`` is a directory that both sides see, removed at the end. ``options`` are added
    to the kernel's command line.
    """

    def __init__(
        self,
        argv: Sequence[str],
        *,
        environment: Mapping[str, str] | None = None,
        directory: Path | None = None,
        memory: int = MEMORY,
        options: Sequence[str] = (),
    ) -> None:
        self._argv = list(argv)
        self._environment = dict(environment or {})
        self._directory = directory or Path.cwd()
        self._memory = memory
        self._options = list(options)
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> Self:
        if reason := missing():
            raise RuntimeError(reason)
        with contextlib.ExitStack() as stack:
            scratch = stack.enter_context(tempfile.TemporaryDirectory(prefix="vrrpkit-kernel-"))
            self.scratch = Path(scratch).resolve()
            self._boot(stack)
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Kill the kernel if it still runs, and remove its files; may be called twice."""
        self._stack.close()

    @property
    def pid(self) -> int:
        """The kernel's process, and the group of all processes inside."""
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether the kernel runs."""
        return self._process.poll() is None

    @property
    def status(self) -> int | None:
        """The command's exit status; None while it runs, or if the kernel ended before it."""
        text = _read(self.scratch / "status").strip()
        return int(text) if text else None

    @property
    def output(self) -> str:
        """What the command has said so far."""
        return _read(self.scratch / "output")

    def told(self) -> str:
        """What the command and the kernel have said, for people."""
        console = _read(self.scratch / "console").splitlines()[-40:]
        return "\n".join([self.output, "--- console ---", *console])

    def wait(self, timeout: float) -> bool:
        """Wait until the kernel has ended; whether it did in time."""
        deadline = time.monotonic() + timeout
        while self.running and time.monotonic() < deadline:
            time.sleep(0.02)
        return not self.running

    def _boot(self, stack: contextlib.ExitStack) -> None:
        root = self.scratch / "root"
        (root / "lib").mkdir(parents=True)
        (root / "lib" / "modules").symlink_to(MODULES)
        script = self.scratch / "init"
        script.write_text(self._script(root))
        script.chmod(0o755)
        argv = [
            _which(PROGRAM) or PROGRAM,
            f"mem={self._memory}M",
            f"uml_dir={self.scratch}",
            "rootfstype=hostfs",
            "rootflags=/",
            "rw",
            f"init={script}",
            "con=null",
            "con0=null,fd:1",
            "quiet",
            *self._options,
        ]
        with (self.scratch / "console").open("wb") as console:
            self._process = subprocess.Popen(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=subprocess.STDOUT,
                env={
                    "PATH": PATHS,
                    "TMPDIR": self._memory_directory(),
                    "LD_PRELOAD": str(self._registers()),
                },
                start_new_session=True,
            )
        stack.callback(self._kill)
        # Ends the kernel if this process ends without doing so: then its pipe is closed.
        watch = 'read -r _; kill -9 -"$1"; rm -rf -- "$2"'
        watcher = subprocess.Popen(
            ["sh", "-c", watch, "watcher", str(self.pid), str(self.scratch)],
            stdin=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        stack.enter_context(watcher)
        stack.callback(watcher.kill)

    def _registers(self) -> Path:
        library = self.scratch / "registers.so"
        compiler = _which(COMPILER) or COMPILER
        command = [compiler, "-O1", "-shared", "-fPIC", "-o", str(library), str(REGISTERS)]
        subprocess.run(command, check=True, env={"PATH": PATHS})
        return library

    def _script(self, root: Path) -> str:
        settings = {
            "PATH": f"{Path(sys.executable).parent}:{PATHS}",
            "HOME": "/run/home",
            "TMPDIR": "/run/tmp",
            "LANG": "C.UTF-8",
            "MODPROBE_OPTIONS": f"-d {root}",
            "PYTHONDONTWRITEBYTECODE": "1",
            **{name: os.environ[name] for name in _PASSED_ON if name in os.environ},
            **self._environment,
            INSIDE: str(self.scratch),
        }
        return _INIT.format(
            root=shlex.quote(str(root)),
            output=shlex.quote(str(self.scratch / "output")),
            status=shlex.quote(str(self.scratch / "status")),
            directory=shlex.quote(str(self._directory.resolve())),
            environment=shlex.join(f"{name}={value}" for name, value in settings.items()),
            command=shlex.join(self._argv),
        )

    def _memory_directory(self) -> str:
        # The machine's memory is a file; a container's /dev/shm is often smaller than that.
        shared = Path("/dev/shm")
        needed = (self._memory + 64) * 2**20
        fits = shared.is_dir() and shutil.disk_usage(shared).free >= needed
        return str(shared if fits else self.scratch)

    def _kill(self) -> None:
        # Every process inside is a process of the group outside.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait(30)


def _which(name: str) -> str | None:
    return shutil.which(name, path=f"{os.environ.get('PATH', '')}:{PATHS}")


def _read(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except FileNotFoundError:
        return ""
