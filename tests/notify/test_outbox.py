"""What waits for a mail server."""

from __future__ import annotations

from vrrpkit.notify.outbox import Letter, Outbox, pause_before


def letter(subject: str, at: float) -> Letter:
    return Letter(subject=subject, body=f"{subject} at {at}", at=at)


def test_repeats_are_merged_into_the_newest() -> None:
    outbox = Outbox(10)
    outbox.put(letter("a", 1.0))
    outbox.put(letter("b", 2.0))
    outbox.put(letter("a", 3.0))
    outbox.put(letter("a", 4.0))
    assert len(outbox) == 2
    first = outbox.first()
    assert first is not None and (first.subject, first.repeats) == ("b", 0)
    outbox.sent(first)
    second = outbox.first()
    assert second is not None
    assert (second.body, second.repeats, second.first) == ("a at 4.0", 2, 1.0)


def test_the_oldest_is_dropped_beyond_the_limit() -> None:
    outbox = Outbox(2)
    for subject in "abc":
        outbox.put(letter(subject, 1.0))
    first = outbox.first()
    assert first is not None
    assert (len(outbox), outbox.dropped, first.subject) == (2, 1, "b")


def test_a_repeat_during_delivery_is_not_lost() -> None:
    outbox = Outbox(2)
    outbox.put(letter("a", 1.0))
    first = outbox.first()
    assert first is not None
    outbox.put(letter("a", 2.0))
    outbox.sent(first)
    assert len(outbox) == 1
    outbox.sent(outbox.first() or first)
    assert outbox.first() is None


def test_pauses_grow_to_a_limit() -> None:
    assert [pause_before(tries) for tries in (0, 1, 2, 3, 6, 7, 1000)] == [
        *(5, 5, 10, 20, 160),
        *(300, 300),
    ]
