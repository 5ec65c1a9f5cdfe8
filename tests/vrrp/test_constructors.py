"""The constructors of VRRPInstance and SyncGroup are derived from their descriptions, for Python,
for help() and for the type checkers."""

from __future__ import annotations

import inspect
import pydoc
import shutil
import subprocess
import sys
import typing
from collections.abc import Iterable
from pathlib import Path

import attrs
import pytest

import vrrpkit.routes.route
import vrrpkit.vrrp.instance
import vrrpkit.vrrp.syncgroup
from vrrpkit import VIP, ConfigError, MemoryBus, State, SyncGroup, TrackFunction, VRRPInstance
from vrrpkit.testing import virtual_time
from vrrpkit.vrrp.config import SyncGroupConfig, VRRPInstanceConfig
from vrrpkit.vrrp.instance import VRRPInstanceArguments

CALLS = """\
from vrrpkit import SyncGroup, VRRPInstance
from vrrpkit.vrrp.config import VRRPInstanceConfig

web = VRRPInstance("web", "eth0", vrid=51, vips=["192.0.2.10/24"], routes=["10.0.0.0/8"])
db = VRRPInstance.of(VRRPInstanceConfig("db", "eth0", vrid=52, vips=["192.0.2.11/24"]))
both = SyncGroup("both", [web, db], member_weights=True)
VRRPInstance("web", "eth0", vrid="51", vips=["192.0.2.10/24"])
VRRPInstance("web", "eth0", vips=["192.0.2.10/24"])
VRRPInstance("web", "eth0", vrid=51, vips=["192.0.2.10/24"], prioritty=100)
VRRPInstance("web", 5, vrid=51, vips=[])
VRRPInstance("web", "eth0", vrid=51, vips=[10])
SyncGroup("both", ["web", "db"])
SyncGroup("both")
web.config.priority = 7
"""
WRONG = [str(number) for number in range(7, 15)]


def checked(tmp_path: Path, *command: str) -> str:
    file = tmp_path / "wrong.py"
    file.write_text(CALLS)
    return subprocess.run(
        [*command, str(file)], capture_output=True, text=True, check=False, cwd=tmp_path
    ).stdout


def test_mypy_finds_what_is_wrong_and_nothing_else(tmp_path: Path) -> None:
    pytest.importorskip("mypy")
    told = checked(
        tmp_path, sys.executable, "-m", "mypy", "--strict", f"--cache-dir={tmp_path}/cache"
    )
    errors = [line for line in told.splitlines() if ": error:" in line]
    assert sorted({line.split(":")[1] for line in errors}, key=int) == WRONG, told
    assert 'incompatible type "str"; expected "int"' in told
    assert 'Missing named argument "vrid"' in told
    assert 'Unexpected keyword argument "prioritty"' in told


def test_pyright_finds_what_is_wrong_and_nothing_else(tmp_path: Path) -> None:
    if shutil.which("pyright", path=str(Path(sys.executable).parent)) is None:
        pytest.skip("pyright is not installed here")
    told = checked(tmp_path, sys.executable, "-m", "pyright", "--pythonpath", sys.executable)
    errors = [line for line in told.splitlines() if " - error: " in line]
    assert sorted({line.split(":")[1] for line in errors}, key=int) == WRONG, told
    assert '"vrid" of type "int"' in told
    assert 'Argument missing for parameter "vrid"' in told
    assert 'No parameter named "prioritty"' in told


@pytest.mark.parametrize(
    ("made", "words", "first"),
    [
        (VRRPInstance, vars(vrrpkit.vrrp.instance), ["name", "interface"]),
        (SyncGroup, vars(vrrpkit.vrrp.syncgroup), ["name", "instances"]),
    ],
)
def test_python_sees_the_parameters(
    made: type[object], words: dict[str, object], first: list[str]
) -> None:
    parameters = inspect.signature(made).parameters
    positional = [
        name for name, each in parameters.items() if each.kind is each.POSITIONAL_OR_KEYWORD
    ]
    assert positional == first
    where = vars(vrrpkit.routes.route) | vars(vrrpkit.vrrp.config) | words
    hints = typing.get_type_hints(made.__init__, localns=where)
    assert set(hints) == {*parameters, "return"}
    shown = pydoc.render_doc(made, renderer=pydoc.plaintext)
    for name in parameters:
        assert f":param {name}:" in shown
        assert (made.__init__.__doc__ or "").count(f":param {name}:") == 1


def test_the_types_are_those_that_may_be_written() -> None:
    where = vars(vrrpkit.routes.route) | vars(vrrpkit.vrrp.config) | vars(vrrpkit.vrrp.instance)
    hints = typing.get_type_hints(VRRPInstance.__init__, localns=where)
    assert hints["vips"] == Iterable[str | VIP]
    assert hints["vrid"] is int
    assert inspect.signature(VRRPInstance).parameters["interval"].default == 1.0


@virtual_time()
async def test_a_router_and_a_group_are_made_from_descriptions() -> None:
    bus = MemoryBus()
    interface = bus.interface("192.0.2.1/24")
    web = VRRPInstance("web", interface, vrid=1, vips=["192.0.2.10/24"], track=[])
    assert web.config == VRRPInstanceConfig("web", interface.name, vrid=1, vips=["192.0.2.10/24"])

    async def fit() -> bool:
        return True

    lamp = TrackFunction(fit)
    db = VRRPInstance.of(
        VRRPInstanceArguments("db", interface, vrid=2, vips=["192.0.2.11/24"], track=[lamp])
    )
    described = SyncGroupConfig("both", ["web", "db"], member_weights=True)
    both = SyncGroup.of(described, [db, web])
    assert both.config == described and both.members == (web, db)
    async with both:
        assert await both.wait_for(State.MASTER) is State.MASTER
        assert list(db.signals) == [lamp.label]


def test_a_router_of_the_host_is_made_from_its_description() -> None:
    config = VRRPInstanceConfig("web", "eth0", vrid=1, vips=["192.0.2.10/24"], netns="blue")
    assert VRRPInstance.of(config).config == config


def test_another_description_is_checked_too() -> None:
    config = VRRPInstanceConfig("web", "eth0", vrid=1, vips=["192.0.2.10/24"])
    assert attrs.evolve(config, priority=7).priority == 7
    with pytest.raises(ConfigError, match="priority 0 must be a whole number from 1 to 255"):
        attrs.evolve(config, priority=0)
    with pytest.raises(ConfigError, match="virtual address 'foo' is not of the form"):
        attrs.evolve(config, vips=["foo"])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"interface": ""}, "interface '' must be the name of a network interface"),
        ({"interface": None}, "interface None must be the name of a network interface"),
        ({"netns": "/run/netns/x"}, "netns '/run/netns/x' must be a name that 'ip netns list'"),
        ({"netns": ""}, "netns '' must be a name"),
        ({"name": ""}, "the name of a router, '' must be text"),
        ({"wait_for_interface": 1}, "wait_for_interface 1 must be True or False"),
        ({"advert_int": 1}, "VRRPInstanceConfig: advert_int= is called interval= here"),
    ],
)
def test_a_description_of_a_router_is_checked(changes: dict[str, object], message: str) -> None:
    usual = {"name": "web", "interface": "eth0", "vrid": 1, "vips": ["192.0.2.10/24"]}
    with pytest.raises((ConfigError, TypeError), match=message):
        VRRPInstanceConfig(**(usual | changes))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("members", "message"),
    [
        (["a"], "sync group 'g' needs 2 members or more, not 1"),
        (["a", "a"], "sync group 'g' has two members 'a'; rename one"),
        (["a", 5], "each member of the sync group 'g', 5 must be text"),
        ("ab", "write members as a list"),
    ],
)
def test_a_description_of_a_group_is_checked(members: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        SyncGroupConfig("g", members)


def test_a_group_needs_the_routers_that_it_names() -> None:
    web = VRRPInstance("web", "eth0", vrid=1, vips=["192.0.2.10/24"])
    with pytest.raises(ConfigError, match="sync group 'g': there is no VRRPInstance 'db'"):
        SyncGroup.of(SyncGroupConfig("g", ["web", "db"]), [web])
