"""The code in the documentation runs."""

from __future__ import annotations

import ast
import asyncio
import builtins
import importlib
import inspect
import re
import subprocess
import sys
from ipaddress import ip_address
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import trustme

import vrrpkit
from vrrpkit import (
    CheckFailed,
    MemoryBus,
    State,
    Target,
    VRRPInstance,
    bfd,
    checks,
    errors,
    events,
    host,
    ipvs,
    notify,
    routes,
    transport,
    vrrp,
)
from vrrpkit.testing import run_virtual, virtual_time

HOW_TO = Path(__file__).parent.parent / "docs" / "how-to"


def code(page: str) -> SimpleNamespace:
    """The names that the first Python block of a page defines."""
    found = re.search(r"^```python\n(.*?)^```$", (HOW_TO / page).read_text(), re.M | re.S)
    assert found is not None
    names: dict[str, Any] = {"__name__": page}
    exec(compile(found[1], page, "exec"), names)
    return SimpleNamespace(**names)


def test_own_transport_carries_a_failover() -> None:
    transport = code("own-transport.md").UDPTransport(port=11200)
    bus = MemoryBus()

    def node(name: str, own: str, other: str, priority: int) -> VRRPInstance:
        return VRRPInstance(
            name,
            bus.interface(own),
            vrid=51,
            vips=["192.0.2.10/24"],
            priority=priority,
            interval=0.05,
            peers=[other],
            transport=transport,
        )

    async def main() -> None:
        async with node("b", "127.0.0.2", "127.0.0.1", 100) as b:
            async with node("a", "127.0.0.1", "127.0.0.2", 150) as a, asyncio.timeout(10):
                await a.wait_for(State.MASTER)
                await asyncio.sleep(0.2)
                assert (b.state, str(b.master)) == (State.BACKUP, "127.0.0.1")
            async with asyncio.timeout(10):
                await b.wait_for(State.MASTER)
        assert a.statistics.advertisement_sent > 1
        assert b.statistics.advertisement_rcvd > 1
        assert not b.statistics.rejected

    asyncio.run(main())


def test_own_checker_tells_a_primary_from_a_replica() -> None:
    names = code("own-checker.md")
    roles = {b"primary": b"master", b"replica": b"slave"}

    async def main() -> None:
        for role, word in roles.items():

            async def answer(
                reader: asyncio.StreamReader, writer: asyncio.StreamWriter, word: bytes = word
            ) -> None:
                assert await reader.readline() == b"ROLE\r\n"
                writer.write(b"*3\r\n$%d\r\n%s\r\n:0\r\n*0\r\n" % (len(word), word))
                await writer.drain()
                writer.close()

            async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
                port = server.sockets[0].getsockname()[1]
                target = Target(ip_address("127.0.0.1"), port, "redis")
                wanted = names.RedisChecker(role=role.decode())
                assert (await wanted.check(target)).value == 100
                other = names.RedisChecker(role="replica" if role == b"primary" else "primary")
                with pytest.raises(CheckFailed, match=f"is a {role.decode()}"):
                    await other.check(target)

    asyncio.run(main())


def test_tracking_follows_what_the_program_knows() -> None:
    page = code("tracking.md")
    interface = MemoryBus().interface("192.0.2.1")

    @virtual_time()
    async def main() -> list[State]:
        return await page.failover(interface, page.Pool())

    assert main() == [State.MASTER, State.FAULT, State.BACKUP]


def test_bfd_decides_who_is_fit() -> None:
    assert run_virtual(code("bfd.md").main()) == [90, 150, 90]


DOCS = HOW_TO.parent
PAGES = [DOCS.parent / "README.md", *sorted(DOCS.rglob("*.md"))]
BLOCKS = [
    pytest.param(block, id=f"{page.relative_to(DOCS.parent)}-{number}")
    for page in PAGES
    for number, block in enumerate(
        re.findall(r"^```python\n(.*?)^```$", page.read_text(), re.M | re.S)
    )
]
FACES = [vrrpkit, bfd, checks, errors, events, host, ipvs, notify, routes, transport, vrrp]
PUBLIC = {name: getattr(face, name) for face in FACES for name in face.__all__}


@pytest.mark.parametrize("block", BLOCKS)
def test_calls_have_parameters_that_exist(block: str) -> None:
    """Also in what cannot run here."""
    for node in ast.walk(ast.parse(block)):
        match node:
            case ast.Call(func=ast.Name(id=name), keywords=[_, *_] as keywords) if name in PUBLIC:
                given = {keyword.arg for keyword in keywords} - {None}
                assert given <= set(inspect.signature(PUBLIC[name]).parameters)
            case ast.ImportFrom(module=str(module), names=names) if "vrrpkit" in module:
                home = importlib.import_module(module)
                assert [alias.name for alias in names if not hasattr(home, alias.name)] == []


RUN = re.compile(r"^(?:vrrpkit|asyncio)\.run\(main\(\)\)$", re.M)
"""How a block that is a whole program ends."""

IN_MEMORY = {
    # Block: what stands there, and what is put in its place to be in memory.
    "docs/how-to/own-checker.md-2": (),
    "docs/reference/virtual-server.md-0": (
        ('HTTPChecker("/healthz", ', "HTTPChecker("),
        ("HTTPChecker", "ScriptedChecker"),
        ("from vrrpkit import ScriptedChecker,", "from vrrpkit import MemoryTable,"),
        ("import vrrpkit\n", "import vrrpkit\nfrom vrrpkit.testing import ScriptedChecker\n"),
        ("    quorum=20", "    table=MemoryTable(), quorum=20"),
    ),
    "docs/reference/virtual-server.md-1": (
        ("KernelTable.current()", "MemoryTable()"),
        ("KernelTable", "MemoryTable"),
    ),
}

ELSEWHERE = {
    # By the session "system", in a network namespace: tests/system/test_blocks.py.
    "docs/how-to/routes.md-1",
    # By test_readme.py, in memory, and with real interfaces by tests/system/test_blocks.py.
    "README.md-0",
    "README.md-1",
    "README.md-2",
    "README.md-3",
}


@pytest.mark.parametrize("block", BLOCKS)
def test_every_block_can_be_copied(block: str) -> None:
    """It imports what it uses, and waits for nothing outside of a function."""
    tree = ast.parse(block)
    flags = compile(block, "page", "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT).co_flags
    assert not flags & inspect.CO_COROUTINE
    bound, used = set(dir(builtins)) | {"__name__"}, set[str]()
    for node in ast.walk(tree):
        match node:
            case ast.Name(id=name, ctx=ast.Load()):
                used.add(name)
            case ast.Name(id=name):
                bound.add(name)
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
                bound.add(name)
            case ast.ClassDef(name=name) | ast.arg(arg=name):
                bound.add(name)
            case ast.alias(name=name, asname=other):
                bound.add(other or name.partition(".")[0])
            case _:
                pass
    # What the reader's own program knows.
    assert used - bound <= {"cluster"}


def test_each_program_runs_somewhere() -> None:
    programs = {str(block.id) for block in BLOCKS if RUN.search(str(block.values[0]))}
    assert programs == set(IN_MEMORY) | ELSEWHERE


@pytest.mark.parametrize(
    "block", [block for block in BLOCKS if not RUN.search(str(block.values[0]))]
)
def test_what_needs_no_loop_runs(block: str, tmp_path: Path) -> None:
    """Constructing checks every value."""
    if (path := "/etc/ssl/internal-ca.pem") in block:
        trustme.CA().cert_pem.write_to_path(tmp_path / "ca.pem")
        block = block.replace(path, str(tmp_path / "ca.pem"))
    block = re.sub(r"/usr/local/bin/\w[\w-]*", "/bin/true", block)
    block = block.replace('user="nobody", ', "")  # that takes root
    block = block.replace("logging.basicConfig(", "dict(")  # that would stay
    exec(compile(block, "page", "exec"), {"__name__": "page"})


@pytest.mark.parametrize("name", sorted(IN_MEMORY))
def test_programs_run_in_memory(name: str) -> None:
    (block,) = [str(block.values[0]) for block in BLOCKS if block.id == name]
    for old, new in IN_MEMORY[name]:
        assert old in block
        block = block.replace(old, new)
    if "sleep(60)" in block:
        block = block.replace("sleep(60)", "sleep(0.05)")
    exec(compile(block, name, "exec"), {"__name__": "__main__"})


def test_the_first_virtual_server_prints_what_is_shown() -> None:
    page = (DOCS / "tutorial" / "first-virtual-server.md").read_text()
    (program,) = re.findall(r"^```python\n(.*?)^```$", page, re.M | re.S)
    (shown,) = re.findall(r"^```text\n(.*?)^```$", page, re.M | re.S)
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stdout) == (0, shown), done.stderr


def test_every_public_name_is_in_the_reference() -> None:
    described: set[object] = set()
    for page in (DOCS / "reference").rglob("*.md"), (DOCS / "how-to").rglob("*.md"):
        for text in page:
            for kind, what, options in re.findall(
                r"^\.\. auto(\w+):: (\S+)\n((?:   :.*\n)*)", text.read_text(), re.M
            ):
                module = what if kind == "module" else what.rpartition(".")[0]
                home = importlib.import_module(module)
                if kind != "module":
                    described.add(getattr(home, what.rpartition(".")[2]))
                elif found := re.search(r":members: *(.*)", options):
                    listed = found[1].replace(",", " ").split() or home.__all__
                    described |= {getattr(home, name) for name in listed}
    assert [name for name, value in PUBLIC.items() if value not in described] == []


@pytest.mark.parametrize("example", sorted((DOCS.parent / "examples").glob("*.py")))
def test_every_example_is_on_a_page(example: Path) -> None:
    assert any(f"examples/{example.name}" in page.read_text() for page in PAGES[1:])


def test_test_your_failover_passes() -> None:
    page = (HOW_TO / "test-your-failover.md").read_text()
    blocks = re.findall(r"^```python\n(.*?)^```$", page, re.M | re.S)
    assert len(blocks) == 2
    for block in blocks:
        names: dict[str, Any] = {}
        exec(compile(block, "test-your-failover.md", "exec"), names)
        (test,) = [value for name, value in names.items() if name.startswith("test_")]
        test()
