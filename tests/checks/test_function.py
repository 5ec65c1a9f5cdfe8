"""Any coroutine function as a checker."""

from __future__ import annotations

import asyncio
from functools import partial, wraps
from typing import Any

import pytest

from checks.scripts import TARGET, Notebook
from vrrpkit.checks.base import Weight
from vrrpkit.checks.engine.scheduler import CheckScheduler
from vrrpkit.checks.function import FunctionChecker
from vrrpkit.checks.target import Target
from vrrpkit.errors import CheckFailed, ConfigError
from vrrpkit.testing import virtual_time


async def probe(target: Target) -> Weight | None:
    return Weight(target.port or 0)


async def probe_of(prefix: str, target: Target) -> None:
    if not target.name.startswith(prefix):
        raise CheckFailed(f"{target} does not start with {prefix}")


class Probe:
    async def method(self, target: Target) -> None:
        """Passes."""

    async def __call__(self, target: Target) -> None:
        """Passes."""


class Heir(Probe):
    pass


def plain(target: Target) -> None:
    """Would block the event loop."""


@wraps(probe)
def wrapper(target: Target) -> Any:
    return probe(target)


async def generator(target: Target) -> Any:
    yield


async def nothing() -> None:
    """Takes no target."""


async def two(target: Target, other: str) -> None:
    """Takes too much."""


@pytest.mark.parametrize(
    ("function", "outcome", "name"),
    [
        (probe, Weight(80), "probe"),
        (Probe().method, None, "method"),
        (Probe(), None, "Probe"),
        (Heir(), None, "Heir"),
        (partial(probe_of, "web"), None, "probe_of"),
        (partial(partial(probe_of), "web"), None, "probe_of"),
    ],
)
def test_takes_what_can_be_awaited_with_a_target(
    function: Any, outcome: Weight | None, name: str
) -> None:
    checker = FunctionChecker(function)
    assert asyncio.run(checker.check(TARGET)) == outcome
    assert str(checker) == name


@pytest.mark.parametrize(
    "function", [plain, wrapper, generator, Probe, len, partial(plain), lambda target: None, 5]
)
def test_refuses_what_is_no_coroutine_function(function: Any) -> None:
    with pytest.raises(ConfigError, match="is no coroutine function; write it as 'async def"):
        FunctionChecker(function)


@pytest.mark.parametrize("function", [nothing, two, probe_of, partial(probe_of, "web", "more")])
def test_refuses_what_does_not_take_one_argument(function: Any) -> None:
    with pytest.raises(ConfigError, match="cannot be called with one argument, the target"):
        FunctionChecker(function)


def test_has_the_schedule_of_any_checker() -> None:
    assert FunctionChecker(probe, interval=2, fall=3).fall == 3
    with pytest.raises(ConfigError, match="interval"):
        FunctionChecker(probe, interval=0)


def test_equal_functions_make_equal_checkers() -> None:
    assert FunctionChecker(probe, rise=2) == FunctionChecker(probe, rise=2)
    assert FunctionChecker(probe) != FunctionChecker(partial(probe_of, "web"))


@virtual_time()
async def test_runs_on_the_scheduler() -> None:
    notes = Notebook()
    async with CheckScheduler() as scheduler:
        notes.add(
            scheduler, FunctionChecker(partial(probe_of, "db"), interval=2, warmup=0, retry=0)
        )
        await asyncio.sleep(3)
    assert notes.texts == ["web1 does not start with db"] * 2
    assert notes.times == [0, 2]
