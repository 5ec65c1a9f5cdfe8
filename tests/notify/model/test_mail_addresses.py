"""Names, addresses and subjects as mail needs them."""

from __future__ import annotations

import email
import email.policy
from email.generator import BytesGenerator
from email.message import EmailMessage
from io import BytesIO
from ipaddress import ip_address

import pytest
from hypothesis import given, strategies as st

from vrrpkit import ConfigError
from vrrpkit.notify.model.mail_addresses import (
    PlainSubject,
    address_literal,
    check_helo,
    check_server,
    is_full_name,
    mailbox,
    own_mailbox,
)
from vrrpkit.validate import one_line

EVIL = "=?utf-8?q?no=0D=0ABcc:_victim=40example.org=0D=0AX-Evil:_yes?="


def sent(subject: str) -> bytes:
    message = EmailMessage()
    message["Subject"] = PlainSubject(subject)
    message.set_content("body")
    out = BytesIO()
    BytesGenerator(out, policy=email.policy.SMTP).flatten(message)
    return out.getvalue()


def read(octets: bytes) -> str:
    return str(email.message_from_bytes(octets, policy=email.policy.default)["Subject"])


@pytest.mark.parametrize(
    "subject",
    [EVIL, f"[lb1] 192.0.2.10 DOWN: 554 {EVIL}", f"{'x' * 70} {EVIL}", "=?", "a =?b?= c", "Zürich"],
)
def test_a_subject_is_shown_as_it_is_and_holds_no_header(subject: str) -> None:
    octets = sent(subject)
    names = [line.partition(b":")[0] for line in octets.split(b"\r\n\r\n")[0].split(b"\r\n")]
    assert b"Bcc" not in names and b"X-Evil" not in names
    assert "".join(read(octets).split()) == "".join(subject.split())


@given(st.text())
def test_any_text_comes_back(text: str) -> None:
    subject = one_line(text.encode(errors="replace").decode())
    # White space at a fold may become another one.
    assert "".join(read(sent(subject)).split()) == "".join(subject.split())


def test_a_subject_of_plain_letters_is_readable_on_the_wire() -> None:
    assert b"Subject: [lb1] VRRP Instance web - Entering MASTER state\r\n" in sent(
        "[lb1] VRRP Instance web - Entering MASTER state"
    )


@pytest.mark.parametrize("name", ["lb1.example.net", "lb1.example.net.", "a_b.c-d.xn--p1ai"])
def test_full_names(name: str) -> None:
    assert is_full_name(name)
    check_helo(name)


@pytest.mark.parametrize(
    "name",
    ["", "lb1", "lb1.", "lb1..net", "-a.example", "a-.example", "192.0.2.1", f"{'x' * 64}.net",
     ".".join(["x" * 60] * 5), "two words.net", "a\n.net"],
)  # fmt: skip
def test_names_that_are_not_full(name: str) -> None:
    assert not is_full_name(name)
    with pytest.raises(ConfigError, match=r"lb1\.example\.net"):
        check_helo(name)


def test_address_literals() -> None:
    for address, literal in (
        ("192.0.2.1", "[192.0.2.1]"),
        ("2001:db8::1", "[IPv6:2001:db8::1]"),
    ):
        assert address_literal(ip_address(address)) == literal
        check_helo(literal)
        assert own_mailbox("sender", f"vrrpkit@{literal}").domain == literal
    for wrong in ("[2001:db8::1]", "[IPv6:192.0.2.1]", "[192.0.2.256]", "192.0.2.1", "[lb1]", 7):
        with pytest.raises(ConfigError):
            check_helo(wrong)
    check_helo("localhost")


@pytest.mark.parametrize(
    "host", ["smtp.example.net", "mail", "192.0.2.25", "2001:db8::25", "bücher.example", "mx."]
)
def test_servers(host: str) -> None:
    check_server(host)


@pytest.mark.parametrize(
    ("host", "advice"),
    [
        ("smtp.example.net:2525", r"Mail\('smtp.example.net', port=2525\)"),
        ("[2001:db8::1]:25", r"Mail\('2001:db8::1', port=25\)"),
        ("192.0.2.1:25", r"Mail\('192.0.2.1', port=25\)"),
        ("[2001:db8::1]", "without brackets"),
        ("smtp://mail.example.net", "is no name"),
        ("mail.example.net/x", "is no name"),
        ("mx..example.net", "is no name"),
        (f"{'x' * 64}.example", "is no name"),
        ("a:b:25", "is no name"),
        ("", "is no name"),
        ("mail example", "is no name"),
        ("mail\nexample", "is no name"),
        (25, "is no name"),
    ],
)
def test_what_is_no_server_is_refused_with_advice(host: object, advice: str) -> None:
    with pytest.raises(ConfigError, match=advice):
        check_server(host)


def test_mailboxes() -> None:
    assert mailbox("to", "Night Shift <night@example.net>").display_name == "Night Shift"
    for wrong in (EVIL, f"{EVIL} <ops@example.net>", "ops", "ops@", "ops@bücher.example", 7):
        with pytest.raises(ConfigError, match="is no address"):
            mailbox("to", wrong)
    with pytest.raises(ConfigError, match="more than one"):
        mailbox("to", "a@example.net, b@example.net")
    assert own_mailbox("sender", "root@localhost").domain == "localhost"
    with pytest.raises(ConfigError, match=r"vrrpkit@lb1\.example\.net"):
        own_mailbox("sender", "vrrpkit@lb1")
