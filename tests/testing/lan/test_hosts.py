"""A router on a Lan takes every option of VRRPInstance, for Python and for the type checkers."""

from __future__ import annotations

import inspect
import subprocess
import sys
from pathlib import Path

import pytest

from vrrpkit import VRRPInstance
from vrrpkit.testing import Lan, run_virtual

LINES = """
from vrrpkit.testing import Lan


async def test() -> None:
    async with Lan() as lan:
        lan.router("a", vips=["192.0.2.10/24"], priority=150, track=[], accept=False)
        lan.router("b", vips=["192.0.2.10/24"], prioritty=100)
        lan.router("c", vips=["192.0.2.10/24"], priority="high")
"""


def test_options_are_those_of_the_constructor() -> None:
    ours = dict(inspect.signature(VRRPInstance).parameters)
    lan = dict(inspect.signature(Lan.router).parameters)
    del ours["interface"], ours["vrid"]
    assert lan["vrid"].default == 51
    assert {name: lan[name] for name in ours} == ours
    assert set(lan) - set(ours) == {"self", "vrid", "address", "on"}


def test_a_wrong_keyword_is_refused() -> None:
    async def main() -> None:
        async with Lan() as lan:
            lan.router("a", vips=["192.0.2.10/24"], prioritty=100)  # type: ignore[call-arg]

    with pytest.raises(TypeError, match="prioritty"):
        run_virtual(main())


def test_type_checkers_see_a_wrong_keyword_and_a_wrong_type(tmp_path: Path) -> None:
    pytest.importorskip("mypy")
    file = tmp_path / "wrong.py"
    file.write_text(LINES)
    command = [sys.executable, "-m", "mypy", "--strict", f"--cache-dir={tmp_path}/cache"]
    told = subprocess.run(
        [*command, str(file)], capture_output=True, text=True, check=False, cwd=tmp_path
    ).stdout
    lines = [line for line in told.splitlines() if line.startswith("wrong.py")]
    assert [line.split(":")[1] for line in lines if ": error:" in line] == ["8", "9"]
    assert "prioritty" in told
