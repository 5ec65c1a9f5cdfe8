"""What waits for a mail server."""

from __future__ import annotations

from vrrpkit.notify.model.outbox import MailMessage, Outbox, pause_before


def mail_message(subject: str, at: float) -> MailMessage:
    return MailMessage(
        id=f"{subject}{at}", subject=subject, body=f"{subject} at {at}", at=at, left=("a@x", "b@x")
    )


def test_repeats_are_merged_into_the_newest() -> None:
    outbox = Outbox(10)
    outbox.put(mail_message("a", 1.0))
    outbox.put(mail_message("b", 2.0))
    outbox.put(mail_message("a", 3.0))
    outbox.put(mail_message("a", 4.0))
    assert len(outbox) == 2
    first = outbox.first()
    assert first is not None and (first.subject, first.repeats) == ("b", 0)
    outbox.done(first, ())
    second = outbox.first()
    assert second is not None
    assert (second.body, second.repeats, second.first) == ("a at 4.0", 2, 1.0)


def test_the_oldest_is_dropped_beyond_the_limit() -> None:
    outbox = Outbox(2)
    for subject in "abc":
        outbox.put(mail_message(subject, 1.0))
    first = outbox.first()
    assert first is not None
    assert (len(outbox), outbox.dropped, first.subject) == (2, 1, "b")


def test_a_repeat_during_delivery_is_not_lost() -> None:
    outbox = Outbox(2)
    outbox.put(mail_message("a", 1.0))
    first = outbox.first()
    assert first is not None
    outbox.put(mail_message("a", 2.0))
    outbox.done(first, ())
    assert len(outbox) == 1
    outbox.done(outbox.first() or first, ())
    assert outbox.first() is None


def test_recipients_who_have_it_are_left_out_but_of_a_newer_one() -> None:
    outbox = Outbox(2)
    outbox.put(mail_message("a", 1.0))
    first = outbox.first()
    assert first is not None
    outbox.done(first, ("b@x",))
    again = outbox.first()
    assert again is not None
    assert (again.id, again.left) == (first.id, ("b@x",))
    outbox.put(mail_message("a", 2.0))
    outbox.done(again, ())
    newer = outbox.first()
    assert newer is not None
    assert (newer.left, newer.repeats) == (("a@x", "b@x"), 1)


def test_one_that_steps_back_is_the_last_unless_it_has_gone() -> None:
    outbox = Outbox(3)
    mail_messages = [mail_message(subject, 1.0) for subject in "abc"]
    for one in mail_messages:
        outbox.put(one)
    outbox.step_back(mail_messages[0])
    outbox.done(mail_messages[1], ())
    outbox.step_back(mail_messages[1])
    found = []
    while (one := outbox.first()) is not None:
        found.append(one.subject)
        outbox.done(one, ())
    assert found == ["c", "a"]


def test_some_can_be_left_out() -> None:
    outbox = Outbox(3)
    mail_messages = [mail_message(subject, 1.0) for subject in "abc"]
    for one in mail_messages:
        outbox.put(one)
    assert outbox.first({mail_messages[0].id}) is mail_messages[1]
    assert outbox.first({one.id for one in mail_messages}) is None


def test_pauses_grow_to_a_limit() -> None:
    assert [pause_before(tries) for tries in (0, 1, 2, 3, 6, 7, 1000)] == [
        *(5, 5, 10, 20, 160),
        *(300, 300),
    ]
