"""How everything is run: ``.ci/nox`` runs all but bench, ``.ci/nox -s NAME`` runs one session.

Whatever executes vrrpkit does so from the built wheel: a module that the wheel lacks, or that only
works beside the source tree, fails here and not at the user's.
"""

from __future__ import annotations

import atexit
import json
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import nox

nox.needs_version = ">=2024.10.9"
nox.options.default_venv_backend = "virtualenv"
nox.options.reuse_venv = "yes"
nox.options.sessions = [
    "lint",
    "types",
    "imports",
    "tests",
    "docs",
    "examples",
    "demo",
    "system",
]

ROOT = Path(__file__).parent
PYPROJECT = nox.project.load_toml(ROOT / "pyproject.toml")

EXAMPLE_TESTS = ["tests/test_examples.py", "tests/test_readme.py"]

# SAFEPATH keeps ./vrrpkit out of sys.path, for child processes of the tests too.
ENV = {"PYTHONSAFEPATH": "1", "PYTHONDONTWRITEBYTECODE": "1"}

INSTALLED = """
import sysconfig, vrrpkit
where, site = vrrpkit.__file__, sysconfig.get_path("purelib")
assert where.startswith(site), f"vrrpkit was imported from {where}, not from {site}"
print("testing", where)
"""

wheels: list[str] = []


def group(name: str) -> list[str]:
    """The requirements of one dependency group of pyproject.toml."""
    return list(nox.project.dependency_groups(PYPROJECT, name))


def pure_modules() -> list[str]:
    """The folders and modules that the import contract declares pure."""
    contracts = PYPROJECT["tool"]["importlinter"]["contracts"]
    (pure,) = [c["source_modules"] for c in contracts if c["name"].startswith("Pure folders")]
    return [str(module) for module in pure]


def files_of(module: str) -> str:
    """The pattern of a module's file, or of all files of a folder."""
    path = module.replace(".", "/")
    return f"{path}/*.py" if (ROOT / path).is_dir() else f"{path}.py"


def install(session: nox.Session, *groups: str) -> None:
    """Install the wheel, built once per run of nox, and the dependency groups."""
    if not wheels:
        target = tempfile.mkdtemp(prefix="vrrpkit-wheel-")
        atexit.register(shutil.rmtree, target)
        session.run_install(
            "python", "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", target, str(ROOT)
        )
        wheels.extend(str(path) for path in Path(target).glob("*.whl"))
    (wheel,) = wheels
    requirements = [line for name in groups for line in group(name)]
    session.install(wheel, *requirements)
    # Two builds have the same version, so a reused environment must be told to replace it.
    session.install("--force-reinstall", "--no-deps", wheel)
    session.run("python", "-c", INSTALLED, env=ENV)


def as_root(session: nox.Session, *command: str, **env: str) -> None:
    """Run the environment's Python with root's rights."""
    prefix = [] if os.geteuid() == 0 else ["sudo"]
    settings = [f"{name}={value}" for name, value in (ENV | env).items()]
    python = str(Path(session.bin) / "python")
    session.run(*prefix, "env", *settings, python, *command, external=True)


def debian_packages(session: nox.Session) -> None:
    """Install the real peers and the network tools, if they are missing."""
    session.run(str(ROOT / ".ci" / "packages"), external=True)


def pytest(*arguments: str) -> list[str]:
    """The pytest command line; no cache, so that a run as root leaves no files of root's behind."""
    return ["-m", "pytest", "-p", "no:cacheprovider", *arguments]


@nox.session
def demo(session: nox.Session) -> None:
    """A failover to watch: two routers on the in-memory bus. No root, no network."""
    install(session)
    session.run("python", "examples/01_two_nodes.py", env=ENV)


@nox.session
def tests(session: nox.Session) -> None:
    """Everything that needs neither root nor a network, with coverage."""
    install(session, "test")
    data = Path(session.create_tmp()).resolve()
    env = ENV | {"COVERAGE_FILE": str(data / "coverage")}
    ignored = [f"--ignore={path}" for path in EXAMPLE_TESTS]
    chosen = ["-m", "not system and not kernel and not bench"]
    command = pytest(*ignored, *chosen, "-n", "2", "--dist", "loadfile", *session.posargs)
    session.run("coverage", "erase", env=env)
    session.run("python", "-m", "coverage", "run", *command, env=env)
    session.run("coverage", "combine", "--quiet", env=env)
    session.run("coverage", "report", env=env)
    if not session.posargs:
        pure = ",".join(f"*/{files_of(module)}" for module in pure_modules())
        session.run("coverage", "report", f"--include={pure}", "--fail-under=100", env=env)


@nox.session(python=["3.11", "3.12", "3.13"])
def pythons(session: nox.Session) -> None:
    """The tests that need neither root nor a network, under each Python that is there."""
    install(session, "test")
    ignored = [f"--ignore={path}" for path in EXAMPLE_TESTS]
    chosen = ["-m", "not system and not kernel and not bench", "-n", "2", "--dist", "loadfile"]
    session.run("python", *pytest(*ignored, *chosen, *session.posargs), env=ENV)


@nox.session
def lint(session: nox.Session) -> None:
    """Style, and that the formatter has nothing to say."""
    session.install(*group("lint"))
    session.run("ruff", "check", "--no-cache", ".")
    session.run("ruff", "format", "--no-cache", "--check", ".")


@nox.session
def types(session: nox.Session) -> None:
    """mypy and pyright, both strict on the package."""
    session.install(*PYPROJECT["project"]["dependencies"], *group("types"))
    session.run("mypy", f"--cache-dir={session.create_tmp()}/mypy")
    session.run("pyright", "--pythonpath", str(Path(session.bin) / "python"))


@nox.session
def imports(session: nox.Session) -> None:
    """The import rule: who may import whom."""
    session.install(*group("imports"))
    session.run("lint-imports", "--no-cache", env={"PYTHONPATH": str(ROOT)})


@nox.session
def docs(session: nox.Session) -> None:
    """Build the documentation; a warning is an error."""
    install(session, "docs")
    out = Path(session.create_tmp()).resolve() / "html"
    session.run(
        "python",
        "-m",
        "sphinx",
        "-W",
        "--keep-going",
        "-q",
        "-E",
        "-b",
        "html",
        "docs",
        str(out),
        env=ENV,
    )
    session.log(f"open {out}/index.html")


@nox.session
def examples(session: nox.Session) -> None:
    """Run the examples and the README's code; those that need root run in the system session."""
    install(session, "test")
    session.run("python", *pytest(*EXAMPLE_TESTS, "-m", "not system", *session.posargs), env=ENV)


@nox.session
def system(session: nox.Session) -> None:
    """Real sockets, addresses and peers in network namespaces; beside them, real connections
    through IPVS, in a kernel that runs as an ordinary process. Uses sudo unless run as root."""
    debian_packages(session)
    install(session, "test")
    if session.posargs:
        as_root(session, *pytest("-m", "system or kernel", *session.posargs))
        return
    # Both mostly wait, so they run at the same time, and of the first three tests at a time.
    with tempfile.TemporaryFile("w+") as output:
        inside = subprocess.Popen(
            [Path(session.bin) / "python", *pytest("-m", "kernel", "tests/kernel")],
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, **ENV},
        )
        try:
            as_root(session, *pytest("-m", "system", "-n", "3", "--dist", "worksteal"))
        finally:
            status = inside.wait(600)
            output.seek(0)
            print(output.read(), flush=True)
    if status:
        session.error("tests inside the IPVS kernel failed, see above")


@nox.session
def bench(session: nox.Session) -> None:
    """Speed beside keepalived and HAProxy, as a table. Uses sudo unless run as root."""
    debian_packages(session)
    install(session, "test")
    as_root(session, "tests/bench/run.py", *session.posargs, PYTHONPATH=str(ROOT / "tests"))


MUTATED = ("vrrpkit.vrrp.protocol", "vrrpkit.ipvs.model")
"""The pure folders in which one changed line at a time is tried."""


@nox.session
def mutants(session: nox.Session) -> None:
    """Change the pure folders of vrrp and ipvs, one line at a time, and count the changes that no
    test notices. Takes an hour or two; names of modules after -- choose some of them."""
    session.install(*PYPROJECT["project"]["dependencies"], *group("test"), *group("mutants"))
    chosen = session.posargs or list(MUTATED)
    for each in chosen:
        if not f"{each}.".startswith(tuple(f"{folder}." for folder in MUTATED)):
            session.error(f"{each} is in none of {', '.join(MUTATED)}")
    rooms = sorted({each.split(".")[1] for each in chosen})
    where = Path(session.create_tmp()).resolve() / "tree"
    shutil.rmtree(where, ignore_errors=True)
    where.mkdir()
    for part in ("vrrpkit", "tests", "examples", "docs"):
        shutil.copytree(ROOT / part, where / part, ignore=shutil.ignore_patterns("__pycache__"))
    settings = {
        "source_paths": ["vrrpkit"],
        "only_mutate": [files_of(each) for each in chosen],
        "pytest_add_cli_args_test_selection": [f"tests/{room}" for room in rooms],
        "pytest_add_cli_args": ["-m", "not system and not kernel and not bench"],
        "also_copy": ["vrrpkit", "tests", "examples", "docs"],
    }
    lines = [f"{name} = {json.dumps(value)}" for name, value in settings.items()]
    pyproject = (ROOT / "pyproject.toml").read_text()
    (where / "pyproject.toml").write_text("\n".join([pyproject, "[tool.mutmut]", *lines, ""]))
    with session.chdir(where):
        session.run("mutmut", "run", success_codes=[0, 1])
        session.run("mutmut", "results")
