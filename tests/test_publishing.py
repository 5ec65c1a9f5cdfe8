"""The hub: who hears what, in which order, and what a slow or failing listener does."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging

import pytest

from vrrpkit.errors import Closed, ConfigError
from vrrpkit.publishing import Attachment, Attachments, EventsLost, Hub, Notifier
from vrrpkit.testing.virtual import virtual_time


def test_every_callback_hears_every_event_in_order() -> None:
    hub: Hub[int] = Hub()
    heard: list[tuple[str, int]] = []
    hub.subscribe(lambda event: heard.append(("a", event)))
    hub.subscribe(lambda event: heard.append(("b", event)))
    hub.publish(1)
    hub.publish(2)
    assert heard == [("a", 1), ("b", 1), ("a", 2), ("b", 2)]


def test_publishing_to_nobody_is_harmless() -> None:
    hub: Hub[int] = Hub()
    hub.publish(1)
    heard: list[int] = []
    hub.subscribe(heard.append)
    assert heard == []


def test_unsubscribing_ends_it_and_may_be_repeated() -> None:
    hub: Hub[int] = Hub()
    heard: list[int] = []
    unsubscribe = hub.subscribe(heard.append)
    unsubscribe()
    unsubscribe()
    hub.publish(1)
    assert heard == []


def test_a_failing_callback_is_logged_and_harms_nobody(caplog: pytest.LogCaptureFixture) -> None:
    hub: Hub[int] = Hub()
    heard: list[int] = []

    def fail(_event: int) -> None:
        raise ZeroDivisionError

    hub.subscribe(fail)
    hub.subscribe(heard.append)
    with caplog.at_level(logging.ERROR):
        hub.publish(1)
    assert heard == [1]
    assert "ZeroDivisionError" in caplog.text


def test_what_a_callback_publishes_comes_after_the_present_event() -> None:
    hub: Hub[int] = Hub()
    heard: list[tuple[str, int]] = []

    def first(event: int) -> None:
        heard.append(("first", event))
        if event == 1:
            hub.publish(2)

    hub.subscribe(first)
    hub.subscribe(lambda event: heard.append(("second", event)))
    hub.publish(1)
    assert heard == [("first", 1), ("second", 1), ("first", 2), ("second", 2)]


def test_a_callback_may_unsubscribe_another() -> None:
    hub: Hub[int] = Hub()
    heard: list[int] = []
    hub.subscribe(lambda _event: unsubscribe())
    unsubscribe = hub.subscribe(heard.append)
    hub.publish(1)
    assert heard == []


def test_closing_from_a_callback_lets_the_present_event_through() -> None:
    hub: Hub[int] = Hub()
    heard: list[int] = []
    hub.subscribe(lambda _event: hub.close())
    hub.subscribe(heard.append)
    hub.publish(1)
    hub.publish(2)
    assert (heard, hub.closed) == ([1], True)


def test_a_closed_hub_takes_listeners_and_tells_them_nothing() -> None:
    hub: Hub[int] = Hub()
    hub.close()
    hub.close()
    heard: list[int] = []
    hub.subscribe(heard.append)()
    hub.publish(1)
    assert heard == []


@virtual_time()
async def test_a_stream_hears_from_the_call_on_and_ends_with_the_hub() -> None:
    hub: Hub[int] = Hub()
    hub.publish(0)
    stream = hub.stream()
    hub.publish(1)
    hub.publish(2)
    hub.close()
    assert [event async for event in stream] == [1, 2]


@virtual_time()
async def test_a_stream_waits_for_events() -> None:
    hub: Hub[int] = Hub()
    loop = asyncio.get_running_loop()
    loop.call_later(1, hub.publish, 1)
    loop.call_later(2, hub.publish, 2)
    loop.call_later(3, hub.close)
    assert [(event, loop.time() - 1000) async for event in hub.stream()] == [(1, 1), (2, 2)]
    assert loop.time() == 1003


@virtual_time()
async def test_a_slow_reader_loses_the_oldest_and_is_told() -> None:
    hub: Hub[int] = Hub()
    stream = hub.stream(limit=3)
    for event in range(10):
        hub.publish(event)
    assert await anext(stream) == EventsLost(7)
    assert [await anext(stream) for _ in range(3)] == [7, 8, 9]
    hub.publish(10)
    assert await anext(stream) == 10


@virtual_time()
async def test_a_cancelled_reader_loses_nothing() -> None:
    hub: Hub[int] = Hub()
    stream = hub.stream()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(1):
            await anext(stream)
    reader = asyncio.ensure_future(anext(stream))
    await asyncio.sleep(0)
    hub.publish(1)
    reader.cancel()
    await asyncio.wait({reader})
    assert await anext(stream) == 1


@virtual_time()
async def test_a_stream_has_one_reader() -> None:
    hub: Hub[int] = Hub()
    stream = hub.stream()
    reader = asyncio.ensure_future(anext(stream))
    await asyncio.sleep(0)
    with pytest.raises(RuntimeError, match="one stream per reader"):
        await anext(stream)
    hub.publish(1)
    assert await reader == 1


@virtual_time()
async def test_a_dropped_stream_costs_nothing_any_more() -> None:
    hub: Hub[int] = Hub()
    hub.publish(0)
    loop = asyncio.get_running_loop()
    loop.call_soon(hub.publish, 1)
    async for _event in hub.stream():
        break
    gc.collect()
    assert not hub._listeners


def test_a_stream_needs_room() -> None:
    with pytest.raises(ConfigError, match="limit 0"):
        Hub[int]().stream(limit=0)


@virtual_time()
async def test_wait_for_takes_the_first_that_fits() -> None:
    hub: Hub[int] = Hub()
    loop = asyncio.get_running_loop()
    for delay in range(1, 6):
        loop.call_later(delay, hub.publish, delay)
    assert await hub.wait_for(lambda event: event % 3 == 0) == 3
    assert loop.time() == 1003
    assert not hub._listeners


@virtual_time()
async def test_wait_for_keeps_what_fitted_when_more_comes_at_once() -> None:
    hub: Hub[int] = Hub()
    waiter = asyncio.ensure_future(hub.wait_for(lambda event: event > 1))
    await asyncio.sleep(0)
    for event in range(5):
        hub.publish(event)
    hub.close()
    assert await waiter == 2


@virtual_time()
async def test_wait_for_raises_closed() -> None:
    hub: Hub[int] = Hub()
    asyncio.get_running_loop().call_later(1, hub.close)
    with pytest.raises(Closed):
        await hub.wait_for(lambda _event: True)
    with pytest.raises(Closed):
        await hub.wait_for(lambda _event: True)


@virtual_time()
async def test_wait_for_raises_what_the_predicate_raises() -> None:
    hub: Hub[int] = Hub()
    asyncio.get_running_loop().call_soon(hub.publish, 0)
    with pytest.raises(ZeroDivisionError):
        await hub.wait_for(lambda event: 1 / event > 0)


@virtual_time()
async def test_wait_for_can_be_cancelled() -> None:
    hub: Hub[int] = Hub()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(1):
            await hub.wait_for(lambda _event: True)
    assert not hub._listeners


def test_a_callback_may_ask_for_some_classes_only() -> None:
    hub: Hub[object] = Hub()
    texts: list[str] = []
    both: list[str | int] = []
    stop = hub.on(str, texts.append)
    hub.on((str, int), both.append)
    for event in ("a", 1, 2.5):
        hub.publish(event)
    stop()
    hub.publish("b")
    assert (texts, both) == (["a"], ["a", 1, "b"])


class Notes(Notifier):
    """Writes down what it is told, and how it ends."""

    def __init__(self, *, broken: bool = False) -> None:
        self.broken = broken
        self.told: list[object] = []
        self.attached = 0

    def attach(self, subject: object) -> Attachment:
        if self.broken:
            raise ConfigError("it cannot tell of such a thing")
        self.attached += 1
        return self

    def tell(self, event: object) -> None:
        if event == "bad":
            raise RuntimeError("my own bug")
        self.told.append(event)

    async def close(self) -> None:
        self.attached -= 1
        self.told.append("closed")

    def cancel(self) -> None:
        self.attached -= 1


@virtual_time()
async def test_notifiers_from_the_start_to_the_end(caplog: pytest.LogCaptureFixture) -> None:
    first, early, late = Notes(), Notes(), Notes()
    hub: Hub[str] = Hub()
    attachments = Attachments(None, [first])
    attachments.add(hub, early, "before")
    # Nothing is attached to what may never be entered.
    assert first.attached == early.attached == 0
    attachments.start(hub)
    hub.publish("one")
    attachments.add(hub, late, "present", None, "bad")
    hub.publish("two")
    await attachments.close()
    await attachments.close()
    hub.publish("three")
    assert first.told == early.told == ["one", "two", "closed"]
    assert late.told == ["present", "two", "closed"]
    assert first.attached == early.attached == late.attached == 0
    assert caplog.text.count("failed on bad") == 1


@virtual_time()
async def test_a_notifier_that_is_removed_hears_no_more() -> None:
    one, two, never = Notes(), Notes(), Notes()
    hub: Hub[str] = Hub()
    attachments = Attachments(None, [])
    attachments.add(hub, never)()
    attachments.start(hub)
    removals = [attachments.add(hub, notes) for notes in (one, two)]
    # By the first one that is told, in the middle of an event.
    hub.subscribe(lambda _: removals[1]())
    hub.publish("a")
    removals[1]()
    hub.publish("b")
    assert (one.told, two.told, never.told) == (["a", "b"], ["a"], [])
    await attachments.close()
    removals[0]()
    assert one.attached == two.attached == never.attached == 0


@virtual_time()
async def test_who_comes_after_the_end_is_told_nothing_and_keeps_nothing_open() -> None:
    late = Notes()
    hub: Hub[str] = Hub()
    attachments = Attachments(None, [])
    attachments.start(hub)
    await attachments.close()
    attachments.add(hub, late, "the last")()
    assert (late.told, late.attached) == ([], 0)


@virtual_time()
async def test_the_others_are_closed_when_one_cannot_be_attached() -> None:
    one = Notes()
    hub: Hub[str] = Hub()
    attachments = Attachments(None, [one, Notes(broken=True)])
    with pytest.raises(ConfigError, match="such a thing"):
        attachments.start(hub)
    await attachments.close()
    assert one.attached == 0


@virtual_time()
async def test_a_notifier_that_does_not_end_is_left_behind(
    caplog: pytest.LogCaptureFixture,
) -> None:
    loop = asyncio.get_running_loop()

    class Deaf:
        limit: float | None

        def tell(self, event: object) -> None:
            pass

        def cancel(self) -> None:
            pass

        async def close(self) -> None:
            until = loop.time() + 100
            while loop.time() < until:
                with contextlib.suppress(asyncio.CancelledError):
                    await asyncio.sleep(until - loop.time())

    class Patient(Deaf):
        limit = 20.0

    class Notifies:
        def __init__(self, kind: type[Deaf]) -> None:
            self._kind = kind

        def attach(self, subject: object) -> Attachment:
            return self._kind()

    for kind, seconds in ((Deaf, 8), (Patient, 20)):
        hub: Hub[str] = Hub()
        attachments = Attachments("subject", [Notifies(kind), Notifies(kind)])
        attachments.start(hub)
        began = loop.time()
        await attachments.close()
        assert loop.time() - began == pytest.approx(seconds + 0.2)
    assert caplog.text.count("does not end and is left behind") == 4
    await asyncio.sleep(200)
