"""Mailbox: the letters of a Mail, with no server."""

from __future__ import annotations

import asyncio

import pytest

from vrrpkit import ConfigError
from vrrpkit.testing import Lan, Mailbox, virtual_time

VIP = "192.0.2.10"


@virtual_time()
async def test_letters_have_subject_recipients_and_body() -> None:
    async with (
        Mailbox(to=["ops@example.net", "night@example.net"], router_id="lb1") as mail,
        Lan() as lan,
    ):
        lan.router("a", vips=[f"{VIP}/24"], notify=[mail])
        await lan.settle()
        await asyncio.sleep(0)
        letter = mail.letters[-1]
        assert "lb1" in letter.subject and "MASTER" in letter.subject
        assert letter.recipients == ("ops@example.net", "night@example.net")
        assert "a" in letter.body
        assert letter.message["To"] == "ops@example.net, night@example.net"
        assert letter.message["From"] == "vrrpkit@example.net"
        assert mail.sent == len(mail.letters)
        count = mail.sent
    assert mail.sent == count + 1
    assert mail.letters[-1].subject != letter.subject


@virtual_time()
async def test_only_the_states_that_were_asked_for_in_the_words_that_were_given() -> None:
    async with Mailbox(states=["MASTER"], subject="{name} is {state}") as mail, Lan() as lan:
        lan.router("a", vips=[f"{VIP}/24"], notify=[mail])
        await lan.settle()
        await asyncio.sleep(0)
    assert [letter.subject for letter in mail.letters] == ["a is MASTER"]


@virtual_time()
async def test_without_a_server_letters_wait_and_are_tried_again() -> None:
    async with Mailbox() as mail:
        with mail.out_of_order("no route"):
            mail.send("hello", "text")
            await asyncio.sleep(1)
            assert (mail.letters, mail.waiting) == ([], 1)
            assert "no route" in (mail.last_problem or "")
        await asyncio.sleep(5)
        assert [letter.subject for letter in mail.letters] == ["hello"]
        assert mail.last_problem is None


def test_what_mail_refuses_is_refused() -> None:
    with pytest.raises(ConfigError, match="among"):
        Mailbox(states=["HAPPY"])
