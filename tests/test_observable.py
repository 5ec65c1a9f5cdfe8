"""What all objects have in common that users enter, listen to and wait for."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable

import pytest

from vrrpkit.errors import Closed, ConfigError, VRRPKitError
from vrrpkit.observable import Notifying, Observable
from vrrpkit.publishing import Hub
from vrrpkit.testing.virtual import virtual_time


class Lamp(Observable[str]):
    """Publishes its colours."""

    colour = "green"

    def __init__(self) -> None:
        super().__init__("lamp", Hub())

    def enter(self) -> None:
        self._enter()

    def turn(self, colour: str) -> None:
        self.colour = colour
        self._hub.publish(colour)

    def end(self) -> None:
        self._hub.close()

    def work(self, run: int | None) -> int:
        return self._required(run)

    def why_idle(self) -> str:
        return self._why_idle

    def on_colour(self, callback: Callable[[str], None]) -> Callable[[], None]:
        self._require_callback("on_colour", callback)
        return self._hub.subscribe(callback)

    async def wait_for(self, *colours: str) -> str:
        return await self._wait_in(colours, self.colour, lambda event: event)


def test_it_is_entered_once() -> None:
    lamp = Lamp()
    lamp.enter()
    with pytest.raises(VRRPKitError, match="lamp was entered before: make a new Lamp for each run"):
        lamp.enter()


def test_it_says_why_it_does_not_work() -> None:
    lamp = Lamp()
    assert lamp.why_idle() == "not running: enter it with 'async with'"
    with pytest.raises(VRRPKitError, match="lamp is not running: enter it with 'async with' first"):
        lamp.work(None)
    assert lamp.work(7) == 7
    lamp.end()
    assert lamp.why_idle() == "has ended"
    with pytest.raises(VRRPKitError, match="lamp has ended: make a new Lamp for each run"):
        lamp.work(7)


@virtual_time()
async def test_a_state_that_holds_is_returned_at_once_and_another_when_it_is_entered() -> None:
    lamp = Lamp()
    assert await lamp.wait_for("red", "green") == "green"
    waiting = asyncio.ensure_future(lamp.wait_for("red", "yellow"))
    await asyncio.sleep(0)
    lamp.turn("blue")
    lamp.turn("yellow")
    lamp.turn("green")
    assert await waiting == "yellow"


@virtual_time()
async def test_a_wait_ends_with_the_object() -> None:
    lamp = Lamp()
    waiting = asyncio.ensure_future(lamp.wait_for("red"))
    await asyncio.sleep(0)
    lamp.end()
    with pytest.raises(Closed, match="no such event can come any more"):
        await waiting
    with pytest.raises(Closed, match="lamp has ended and will not be red any more"):
        await lamp.wait_for("red")


@virtual_time()
async def test_events_are_those_from_now_on() -> None:
    lamp = Lamp()
    lamp.turn("red")
    stream = lamp.events(limit=5)
    lamp.turn("blue")
    lamp.end()
    assert [event async for event in stream] == ["blue"]


def test_its_methods_belong_to_the_thread_that_entered_it() -> None:
    lamp = Lamp()
    problems: list[str] = []

    def elsewhere() -> None:
        for call in (lamp.events, lambda: lamp.on_colour(problems.append)):
            try:
                call()
            except VRRPKitError as problem:
                problems.append(str(problem))

    def run() -> None:
        thread = threading.Thread(target=elsewhere, name="stranger")
        thread.start()
        thread.join()

    run()
    assert problems == []
    lamp.enter()
    run()
    assert [problem.partition(" from")[0] for problem in problems] == [
        "lamp.events is called",
        "lamp.on_colour is called",
    ]


def test_a_callback_is_checked() -> None:
    with pytest.raises(ConfigError, match="on_colour"):
        Lamp().on_colour(7)  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]


class Notes:
    """A notifier that keeps what it gets."""

    def __init__(self) -> None:
        self.events: list[object] = []

    def attach(self, subject: object) -> Notes:
        return self

    def tell(self, event: object) -> None:
        self.events.append(event)

    async def close(self) -> None:
        self.events.append("closed")

    def cancel(self) -> None:
        self.events.append("cancelled")


class Beacon(Notifying[str]):
    """A lamp that notifiers can be attached to."""

    def __init__(self, first: Notes) -> None:
        super().__init__("beacon", Hub(), [first])

    def start(self) -> None:
        self._notify.start(self._hub)

    def turn(self, colour: str) -> None:
        self._hub.publish(colour)

    def _present(self) -> tuple[str, None]:
        return ("lit", None)


def test_a_notifier_that_joins_begins_with_what_holds_now() -> None:
    first, second, third = Notes(), Notes(), Notes()
    beacon = Beacon(first)
    beacon.add_notifier(second)
    beacon.start()
    remove = beacon.add_notifier(third)
    beacon.turn("red")
    remove()
    beacon.turn("blue")
    assert first.events == second.events == ["red", "blue"]
    assert third.events == ["lit", "red", "cancelled"]
