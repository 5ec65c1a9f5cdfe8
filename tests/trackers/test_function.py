"""TrackFunction under virtual time."""

from __future__ import annotations

import asyncio
import errno
import logging
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from vrrpkit import ConfigError, MemoryBus, VRRPInstance
from vrrpkit.errors import CouldNotAsk
from vrrpkit.testing import virtual_time
from vrrpkit.trackers.function import TrackFunction
from vrrpkit.tracking.tracker import Signal


async def told(tracker: TrackFunction, count: int) -> list[tuple[float, Signal]]:
    """The first signals, and when they came."""
    loop = asyncio.get_running_loop()
    start, found = loop.time(), []
    signals = tracker.signals()
    async for signal in signals:
        found.append((round(loop.time() - start, 3), signal))
        if len(found) == count:
            break
    await signals.aclose()
    return found


def answers(*results: Signal | Exception, takes: float = 0.0) -> Callable[[], Awaitable[Signal]]:
    waiting = list(results)

    async def ask() -> Signal:
        await asyncio.sleep(takes)
        result = waiting.pop(0)
        if isinstance(result, Exception):
            raise result
        return result

    return ask


@virtual_time()
async def test_it_is_asked_at_a_fixed_rate_and_an_exception_is_a_bad_signal() -> None:
    ask = answers(True, 5, RuntimeError("no"), False, takes=0.25)
    assert await told(TrackFunction(ask, interval=1), 4) == [
        (0.25, True),
        (1.25, 5),
        (2.25, False),
        (3.25, False),
    ]


@virtual_time()
async def test_slow_answers_never_overlap_and_a_timeout_is_a_bad_signal() -> None:
    ask = answers(True, True, takes=3)
    assert await told(TrackFunction(ask, interval=1), 2) == [(3, True), (6, True)]
    ask = answers(True, takes=3)
    assert await told(TrackFunction(ask, interval=1, timeout=2), 1) == [(2, False)]


@virtual_time()
async def test_rise_and_fall() -> None:
    ask = answers(True, False, False, True, True)
    found = await told(TrackFunction(ask, rise=2, fall=2), 5)
    assert [signal for _, signal in found] == [True, True, False, False, True]


@virtual_time()
async def test_an_async_iterator_gives_every_signal() -> None:
    async def levels() -> AsyncIterator[Signal]:
        for level in (3, 2):
            yield level

    assert await told(TrackFunction(levels), 2) == [(0, 3), (0, 2)]


@virtual_time()
async def test_rise_and_fall_count_for_the_items_of_an_iterator_too() -> None:
    async def items() -> AsyncIterator[Signal]:
        for item in (True, False, 5, False, True, True):
            yield item

    found = await told(TrackFunction(items, rise=2, fall=2), 6)
    assert [signal for _, signal in found] == [True, True, 5, False, False, True]


@virtual_time()
async def test_an_iterator_is_ended_before_it_is_begun_anew() -> None:
    counts: list[int] = []
    running = [0]

    async def items() -> AsyncIterator[Signal]:
        running[0] += 1
        counts.append(running[0])
        try:
            yield True
            yield "well"  # type: ignore[misc]
        finally:
            await asyncio.sleep(10)
            running[0] -= 1

    async with VRRPInstance(
        "a",
        MemoryBus().interface("192.0.2.1"),
        vrid=1,
        vips=["192.0.2.10/24"],
        track=[TrackFunction(items)],
    ) as a:
        assert a.faults == {"items"}
        await asyncio.sleep(29)
    assert counts == [1, 1]
    assert running == [0]


@virtual_time()
async def test_what_is_no_coroutine_function_says_so() -> None:
    with pytest.raises(ConfigError, match="async def"):
        await told(TrackFunction(lambda: True), 1)  # type: ignore[arg-type, return-value]


def test_bad_values_are_refused() -> None:
    ask = answers(True)
    with pytest.raises(ConfigError, match="takes a function"):
        TrackFunction(3)  # type: ignore[arg-type]
    for changes in ({"interval": 0}, {"interval": "1"}, {"timeout": 0}, {"rise": 0}, {"fall": 0}):
        with pytest.raises(ConfigError, match=next(iter(changes))):
            TrackFunction(ask, **changes)  # type: ignore[arg-type]
    assert TrackFunction(ask).label == "ask"


@virtual_time()
async def test_a_function_that_raises_at_once_is_asked_again_like_any_other(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("INFO")
    results = [True, None, None, None, True]

    def ask() -> Awaitable[Signal]:
        if results.pop(0) is None:
            raise AttributeError("there is no pool yet")
        return answers(True)()

    found = await told(TrackFunction(ask, interval=1, fall=3), 5)
    assert found == [(0, True), (1, True), (2, True), (3, False), (4, True)]
    # Why, and once for failures in a row.
    assert [r.message for r in caplog.records] == ["ask: there is no pool yet"]


@virtual_time()
async def test_a_timeout_says_so(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    await told(TrackFunction(answers(True, takes=3), timeout=2), 1)
    assert "no answer within 2 s" in caplog.text


@virtual_time()
async def test_trouble_of_our_own_is_no_signal(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    busy = OSError(errno.EMFILE, "Too many open files")
    ask = answers(True, busy, busy, CouldNotAsk("no idea"), RuntimeError("no"))
    assert await told(TrackFunction(ask, interval=1), 2) == [(0, True), (4, False)]
    assert [r.levelname for r in caplog.records if "cannot look" in r.message] == [
        "WARNING",
        "DEBUG",
        "WARNING",
    ]
