"""The public names: each has one home, is written where type checkers look, and is documented."""

from __future__ import annotations

import ast
import importlib
import re
import subprocess
import sys
from collections import Counter
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import get_args

import pytest

import vrrpkit
from vrrpkit import events
from vrrpkit.eventlog import TABLE

PACKAGE = Path(vrrpkit.__file__).parent
DOCS = Path(__file__).parent.parent / "docs"

ROOMS = ["bfd", "checks", "host", "ipvs", "notify", "routes", "transport", "vrrp"]
FACES = ["vrrpkit", "vrrpkit.events", *(f"vrrpkit.{room}" for room in ROOMS)]
"""The modules that import each of their names when it is first used."""

IN_TWO = {"Transition", "GroupTransition"}
"""What nearly every program asks for stands at the top, and with all other events too."""

NOT_RECEIVED = {"TrackerReason", "TrackerSignal"}
"""Go to the log only."""


def face_of(name: str) -> ModuleType:
    return importlib.import_module(name)


@pytest.mark.parametrize("face", FACES)
def test_no_module_takes_a_public_name(face: str) -> None:
    """Importing a module binds its name in the package, in place of what was there."""
    if hasattr(face_of(face), "__path__"):
        assert [name for name in face_of(face).__all__ if find_spec(f"{face}.{name}")] == []


@pytest.mark.parametrize("face", FACES)
def test_each_name_is_there_and_listed(face: str) -> None:
    module = face_of(face)
    assert module.__doc__
    assert dir(module) == sorted(module.__all__)
    for name in module.__all__:
        value = getattr(module, name)
        assert vars(module)[name] is value


@pytest.mark.parametrize("face", FACES)
def test_type_checkers_see_the_same_names_from_the_same_homes(face: str) -> None:
    """They read the imports under TYPE_CHECKING, and the program the list below them."""
    tree = ast.parse(Path(str(face_of(face).__file__)).read_text())
    (switch,) = [node for node in tree.body if isinstance(node, ast.If)]
    seen = {
        node.module: {alias.name for alias in node.names}
        for node in switch.body
        if isinstance(node, ast.ImportFrom)
    }
    (call,) = [node for node in ast.walk(switch) if isinstance(node, ast.Call)]
    homes: dict[str, tuple[str, ...]] = ast.literal_eval(call.args[1])
    assert seen == {home: set(names) for home, names in homes.items()}
    assert sum(map(len, homes.values())) == sum(map(len, seen.values()))


@pytest.mark.parametrize("face", FACES)
def test_a_name_that_does_not_exist(face: str) -> None:
    with pytest.raises(AttributeError, match=f"module '{face}' has no attribute 'VRRPInstanze'"):
        face_of(face).__getattr__("VRRPInstanze")


def test_no_name_has_two_homes() -> None:
    count = Counter(name for face in FACES for name in face_of(face).__all__)
    assert {name for name, homes in count.items() if homes > 1} == IN_TWO


def test_the_top_is_short() -> None:
    assert len(vrrpkit.__all__) <= 60


def test_every_event_of_every_room_can_be_imported() -> None:
    assert set(TABLE) - NOT_RECEIVED <= set(events.__all__)
    for union in ("RouterEvent", "VirtualServerEvent", "BFDEvent", "SyncEvent"):
        for kind in get_args(getattr(events, union)):
            assert getattr(events, kind.__name__) is kind
    # What else is there belongs to an event: why it happened, or a union of events.
    others = {"Anomaly", "TransitionReason", "RouterEvent", "VirtualServerEvent"}
    assert set(events.__all__) - set(TABLE) == others | {"BFDEvent", "SyncEvent"}


def test_the_version_is_that_of_the_distribution() -> None:
    assert vrrpkit.__version__ == version("vrrpkit")


def test_importing_the_package_loads_nothing_heavy() -> None:
    code = """
import sys
before = set(sys.modules)
import vrrpkit, vrrpkit.events
print(*sorted(name for name in set(sys.modules) - before if "vrrpkit" in name))
heavy = {"asyncio", "attrs", "importlib.metadata", "ipaddress"}
# Measuring coverage has loaded some of them already.
print(*sorted(heavy & (set(sys.modules) - before)))
"""
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.splitlines() == ["vrrpkit vrrpkit.events vrrpkit.lazy_names", ""]


ROOM = rf"vrrpkit\.(?:{'|'.join(ROOMS)}|trackers|tracking)"
INTERNAL = re.compile(rf"(?:from |import |:: |{{[a-z]+}}`~?)({ROOM}\.[a-z]\w*)")


@pytest.mark.parametrize("page", sorted(DOCS.rglob("*.md")), ids=lambda page: page.name)
def test_docs_teach_no_internal_module(page: Path) -> None:
    # A function of a room has a small first letter too.
    assert [name for name in INTERNAL.findall(page.read_text()) if find_spec(name)] == []


def test_references_to_public_names_lead_somewhere() -> None:
    wrong: list[str] = []
    texts = [*PACKAGE.rglob("*.py"), *DOCS.rglob("*.md")]
    for path in texts:
        for face, name in re.findall(r"`~?(vrrpkit(?:\.[a-z_]+)*)\.([A-Z]\w+)`", path.read_text()):
            module = importlib.import_module(face)
            if not hasattr(module, name):
                wrong.append(f"{path.name}: {face}.{name}")
    assert wrong == []
