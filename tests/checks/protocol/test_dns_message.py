"""DNS messages and records, beside dpkt's."""

from __future__ import annotations

import random
import re
import struct
from ipaddress import IPv4Address, IPv6Address
from typing import Any

import dpkt
import pytest
from hypothesis import given, strategies as st

from strategies import quick
from vrrpkit.checks.protocol import dns_records
from vrrpkit.checks.protocol.dns_message import TYPES, Answer, Malformed, answer, encode_name, query
from vrrpkit.errors import CheckFailed, ConfigError

NAME = encode_name("www.Example.net")
ASKED = query(0x1234, NAME, TYPES["A"], recursion=True)
HEADER = 12

labels = st.text("abcXYZ019-_", min_size=1, max_size=63)
names = st.lists(labels, min_size=1, max_size=3).map(".".join)


def said(
    asked: bytes = ASKED,
    *records: bytes,
    flags: int = 0x8180,
    questions: int = 1,
    count: int | None = None,
) -> bytes:
    """An answer to a query: its header, the question, the records."""
    number = len(records) if count is None else count
    header = asked[:2] + struct.pack("!HHHHH", flags, questions, number, 0, 0)
    return header + asked[HEADER:] + b"".join(records)


def record(kind: int | str, content: bytes, *, name: bytes = b"\xc0\x0c", group: int = 1) -> bytes:
    """A record of an answer; by default its name points to the question."""
    number = TYPES[kind] if isinstance(kind, str) else kind
    return name + struct.pack("!HHIH", number, group, 60, len(content)) + content


def read(message: bytes, asked: bytes = ASKED) -> Answer:
    found = answer(message, asked)
    assert found is not None
    return found


def texts(message: bytes, kind: str, asked: bytes = ASKED) -> list[str]:
    return list(map(dns_records.text, read(message, asked).records(TYPES[kind])))


# --- names and queries --------------------------------------------------------------------------


def test_names() -> None:
    assert encode_name(".") == b"\0"
    assert encode_name("a.bc") == encode_name("a.bc.") == b"\x01a\x02bc\0"
    assert encode_name("_sip._udp.example.net")[:5] == b"\x04_sip"
    assert len(encode_name(".".join(["x" * 63] * 3 + ["x" * 61]))) == 255


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("", "must be a name, or '.' for the root"),
        (None, "must be a name, or '.' for the root"),
        (b"example.net", "must be a name, or '.' for the root"),
        ("a..b", "between dots there must be 1 to 63"),
        ("..", "between dots there must be 1 to 63"),
        (".a", "between dots there must be 1 to 63"),
        ("x" * 64, "between dots there must be 1 to 63"),
        ("exämple.net", "in its xn-- form"),
        ("a b", "visible ASCII characters"),
        ("a\\.b", "visible ASCII characters"),
        (".".join(["x" * 63] * 3 + ["x" * 62]), "has more than 255 octets"),
    ],
)
def test_no_names(name: str, says: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(says)):
        encode_name(name)


@quick
@given(names, st.integers(0, 65535), st.sampled_from(sorted(TYPES)), st.booleans())
def test_queries_are_what_dpkt_reads(name: str, number: int, kind: str, recursion: bool) -> None:
    message = dpkt.dns.DNS(query(number, encode_name(name), TYPES[kind], recursion=recursion))
    assert (message.id, message.qr, message.opcode, message.rd) == (number, 0, 0, int(recursion))
    assert [(q.name, q.type, q.cls) for q in message.qd] == [(name, TYPES[kind], 1)]
    assert not message.an and not message.ns and not message.ar


# --- the head of an answer ----------------------------------------------------------------------


def test_answer() -> None:
    found = read(said(flags=0x8183))
    assert (found.rcode, found.truncated) == (3, False)
    assert read(said(flags=0x8380)).truncated
    assert list(found.records(TYPES["A"])) == []


def test_the_question_may_come_back_in_another_case() -> None:
    assert read(said().replace(b"Example", b"eXAMPLE")).rcode == 0


def test_a_type_is_not_text() -> None:
    # HTTPS is 65, an A; 97 is an a.
    asked = query(7, NAME, 65, recursion=True)
    assert read(said(asked), asked)
    with pytest.raises(Malformed, match="another question"):
        read(said(query(7, NAME, 97, recursion=True)), asked)


@pytest.mark.parametrize("message", [b"", b"\x12", b"\x12\x35" + ASKED[2:], b"\x34\x12"])
def test_answers_to_something_else(message: bytes) -> None:
    assert answer(message, ASKED) is None


@pytest.mark.parametrize("rcode", [1, 2, 4, 5, 9])
def test_a_refusal_need_not_repeat_the_question(rcode: int) -> None:
    header = ASKED[:2] + struct.pack("!HHHHH", 0x8180 | rcode, 0, 0, 0, 0)
    assert read(header).rcode == rcode
    assert list(read(header).records(1)) == []


def test_a_truncated_answer_need_not_repeat_the_question() -> None:
    header = ASKED[:2] + struct.pack("!HHHHH", 0x8380, 0, 0, 0, 0)
    assert read(header).truncated
    assert read(said(flags=0x8380)[:-3]).truncated
    with pytest.raises(Malformed, match="another question"):
        read(said(ASKED[:-1] + b"\x03", flags=0x8380))


@pytest.mark.parametrize(
    ("message", "says"),
    [
        (ASKED[:2], "the answer has 2 octets, its header alone has 12"),
        (said()[:11], "the answer has 11 octets"),
        (ASKED, "is a query, not an answer"),
        (said(flags=0xA180), "to an operation 4, not to a query"),
        (said()[:-1], "another question"),
        (said(questions=2), "another question"),
        (said(questions=0), "another question"),
        (said(query(0x1234, NAME, TYPES["AAAA"], recursion=True)), "another question"),
        (said(query(0x1234, encode_name("w.example.net"), 1, recursion=True)), "another question"),
        (said(ASKED[:-1] + b"\x03"), "another question"),
    ],
)
def test_broken_heads(message: bytes, says: str) -> None:
    with pytest.raises(Malformed, match=re.escape(says)):
        answer(message, ASKED)


def test_a_question_that_was_not_understood_cannot_be_repeated() -> None:
    header = ASKED[:2] + struct.pack("!HHHHH", 0x8181, 0, 0, 0, 0)
    assert read(header).rcode == 1


# --- records ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "content", "text"),
    [
        ("A", b"\xc0\x00\x02\x0a", "192.0.2.10"),
        ("AAAA", IPv6Address("2001:db8::a").packed, "2001:db8::a"),
        ("NS", b"\x03NS1\xc0\x10", "ns1.example.net."),
        ("CNAME", b"\xc0\x0c", "www.example.net."),
        ("PTR", b"\0", "."),
        ("DNAME", b"\x01a\x01b\0", "a.b."),
        ("MX", b"\x00\x0a\x04mail\xc0\x10", "10 mail.example.net."),
        ("SRV", b"\x00\x01\x00\x02\x13\xc4\x03sip\xc0\x10", "1 2 5060 sip.example.net."),
        (
            "SOA",
            b"\x02ns\xc0\x10\x05admin\xc0\x10" + struct.pack("!IIIII", 2**32 - 1, 2, 3, 4, 5),
            "ns.example.net. admin.example.net. 4294967295 2 3 4 5",
        ),
        ("TXT", b"\x05v=abc\x00\x02de", "v=abcde"),
        ("TXT", b"", ""),
        ("TXT", b"\x02\xc3\xa4", "ä"),
        ("TXT", b"\x02\xff\xfe", "\\xff\\xfe"),
        ("SPF", b"\x02hi", "hi"),
        ("CAA", b"\x00\x05issueca", "\\# 9 00056973737565" + "6361"),
        ("HINFO", b"", "\\# 0"),
        ("NS", b"\x03a.b\x02\\\x07\0", "a\\.b.\\\\\\007."),
    ],
)
def test_texts(kind: str, content: bytes, text: str) -> None:
    asked = query(9, NAME, TYPES[kind], recursion=True)
    message = said(asked, record("CNAME", b"\xc0\x0c"), record(kind, content))
    assert texts(message, kind, asked)[-1] == text
    # Nothing is left over of the message when the content is read.
    assert texts(message + b"\xff" * 9, kind, asked)[-1] == text


def test_only_records_of_the_type_and_class() -> None:
    message = said(
        ASKED,
        record("CNAME", b"\x01x\xc0\x10"),
        record("A", b"\1\2\3\4", name=b"\x01x\xc0\x10"),
        record("A", b"\1\2\3\5", group=3),
        record(65280, b"whatever"),
        record("A", b"\1\2\3\6", name=b"\0"),
    )
    assert texts(message, "A") == ["1.2.3.4", "1.2.3.6"]
    assert len(list(read(message).records(TYPES["ANY"]))) == 4


@pytest.mark.parametrize(
    ("kind", "content"),
    [
        ("A", b"\1\2\3"),
        ("A", b"\1\2\3\4\5"),
        ("AAAA", b"\1" * 4),
        ("MX", b"\0"),
        ("MX", b"\0\1"),
        ("SRV", b"\0\1\0\2"),
        ("SOA", b"\0\0" + b"\0" * 19),
        ("TXT", b"\x05abcd"),
        ("NS", b"\x03abc"),
        ("NS", b""),
        ("NS", b"\x40" + b"x" * 64 + b"\0"),
        ("NS", b"\xc0"),
        ("NS", b"\xff\xff"),
    ],
)
def test_broken_contents(kind: str, content: bytes) -> None:
    with pytest.raises(Malformed):
        texts(said(ASKED, record(kind, content)), kind)


@pytest.mark.parametrize(("before", "back"), [(b"", 0), (b"\x01a", 2), (b"", -2)])
def test_names_in_circles(before: bytes, back: int) -> None:
    at = len(said()) + 12 + len(before)
    pointer = struct.pack("!H", 0xC000 | at - back)
    with pytest.raises(Malformed, match="in a circle"):
        texts(said(ASKED, record("NS", before + pointer), record("NS", b"\0")), "NS")


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"\x50", "begins with 0x50"),
        (b"\x3f", "ends within a name"),
        # As long as what follows in the message.
        (b"\x0e", "ends within a name"),
    ],
)
def test_pointers_to_what_is_no_name(content: bytes, says: str) -> None:
    pointer = struct.pack("!H", 0xC000 | len(said()) + 12)
    message = said(ASKED, record("TXT", content), record("NS", pointer))
    with pytest.raises(Malformed, match=says):
        texts(message, "NS")


def test_a_name_that_goes_on_in_the_next_record() -> None:
    with pytest.raises(Malformed, match="longer than its record"):
        texts(said(ASKED, record("NS", b"\x01a"), record("NS", b"\0")), "NS")


class Counted(bytes):
    """Octets that count how often one is looked at."""

    looks = 0

    def __getitem__(self, key: Any) -> Any:
        Counted.looks += 1
        return super().__getitem__(key)


def chain(step: bytes) -> tuple[bytes, int]:
    """A record full of ``step`` and a pointer to the one before, and where the last of them is."""
    content = b"\0"
    at = start = len(said()) + 12
    while start + len(content) + len(step) + 2 < 0x3FFF:
        here = start + len(content)
        content += step + struct.pack("!H", 0xC000 | at)
        at = here
    return record(65280, content), at


@pytest.mark.parametrize("step", [b"", b"\x01a"])
@pytest.mark.parametrize("back", [0, 400])
def test_all_names_together_take_as_many_steps_as_there_are_octets(step: bytes, back: int) -> None:
    """A thousand names that begin at the end of a long chain of pointers, or all along it."""
    first, last = chain(step)
    number = 3700
    names = [
        record("NS", struct.pack("!H", 0xC000 | max(12, last - index * back // number * 2)))
        for index in range(number)
    ]
    message = Counted(said(ASKED, first, *names))
    Counted.looks = 0
    try:
        found = [dns_records.text(each) for each in read(message).records(TYPES["NS"])]
    except Malformed:
        found = []
    assert not found
    assert Counted.looks < 3 * len(message)


def test_names_that_share_their_ends_are_read_once() -> None:
    """Many good names, each pointing into the one before: as a zone of a long chain has them."""
    base = len(said()) + 12
    records = [record("NS", b"\x01a" * 100 + b"\0")]
    records += [
        record("NS", struct.pack("!H", 0xC000 | (base + 2 * (index % 100))))
        for index in range(4000)
    ]
    message = Counted(said(ASKED, *records))
    Counted.looks = 0
    found = [dns_records.text(each) for each in read(message).records(TYPES["NS"])]
    assert found[:3] == ["a." * 100, "a." * 100, "a." * 99]
    assert len(found) == 4001
    assert Counted.looks < 2 * len(message)


def test_a_name_without_end_is_skipped_no_further_than_a_name_may_go() -> None:
    """What would be names of 60,000 octets, one beginning after the other."""
    content = b"\x01a" * 6
    message = Counted(said(ASKED, *[record("NS", content)] * 2000))
    Counted.looks = 0
    with pytest.raises(Malformed):
        [dns_records.text(each) for each in read(message).records(TYPES["NS"])]
    assert Counted.looks < 1000


def test_a_name_that_is_passed_over_may_be_no_longer_either() -> None:
    long = record("A", bytes(4), name=b"\x01a" * 127 + b"\0")
    assert len(list(read(said(ASKED, long)).records(1))) == 1
    long = record("A", bytes(4), name=b"\x01a" * 128 + b"\0")
    with pytest.raises(Malformed, match="more than 255 octets"):
        list(read(said(ASKED, long)).records(1))


def test_a_name_has_pointers_enough() -> None:
    first, last = chain(b"")
    message = said(ASKED, first, record("NS", struct.pack("!H", 0xC000 | last)))
    with pytest.raises(Malformed, match="more than 255 compression pointers"):
        texts(message, "NS")


def test_a_name_of_many_small_steps_is_too_long() -> None:
    """Each label points back to the one before: short to write, without end to read."""
    content = b"\x01a\0"
    at = start = len(said()) + 12
    for _ in range(150):
        length = len(content)
        content += b"\x01a" + struct.pack("!H", 0xC000 | at)
        at = start + length
    last = struct.pack("!H", 0xC000 | at)
    message = said(ASKED, record("TXT", content), record("NS", last))
    with pytest.raises(Malformed, match="more than 255 octets"):
        texts(message, "NS")


def test_more_records_announced_than_there_are() -> None:
    message = said(ASKED, record("A", b"\1\2\3\4"), count=65535)
    with pytest.raises(Malformed, match="ends within a name"):
        texts(message, "A")
    with pytest.raises(Malformed, match="within a record"):
        texts(said(ASKED, record("A", b"\1\2\3\4")[:-1], count=1), "A")
    with pytest.raises(Malformed, match="within a record"):
        texts(said(ASKED, b"\xc0\x0c\0\1", count=1), "A")
    with pytest.raises(Malformed, match="begins with 0x80"):
        texts(said(ASKED, b"\x80\x0c\0\1", count=1), "A")


@quick
@given(st.binary(max_size=80), st.integers(0, 4), st.sampled_from(sorted(TYPES)))
def test_whatever_comes_is_a_failure_at_worst(octets: bytes, count: int, kind: str) -> None:
    asked = query(1, NAME, TYPES[kind], recursion=True)
    try:
        texts(said(asked, octets, count=count), kind, asked)
    except CheckFailed:
        return


@quick
@given(st.integers(0, 2**32), st.data())
def test_damaged_answers(seed: int, data: st.DataObject) -> None:
    kind = data.draw(st.sampled_from(["NS", "MX", "SOA", "TXT", "SRV", "A"]))
    asked = query(1, NAME, TYPES[kind], recursion=True)
    content = b"\x00\x0a\x04mail\xc0\x10" + bytes(24)
    message = bytearray(said(asked, record(kind, content), record("NS", b"\x01a\xc0\x10")))
    chance = random.Random(seed)
    for _ in range(chance.randrange(1, 6)):
        message[chance.randrange(len(message))] = chance.randrange(256)
    try:
        found = answer(bytes(message[: chance.randrange(len(message) + 1)]), asked)
        if found is not None:
            list(map(dns_records.text, found.records(TYPES[kind])))
    except CheckFailed:
        return


def by_dpkt(kind: int, **fields: object) -> bytes:
    message = dpkt.dns.DNS(ASKED)
    message.op = 0x8180
    message.qd[0].type = kind
    rr = dpkt.dns.DNS.RR(name="www.Example.net", type=kind, ttl=60)
    for name, value in fields.items():
        setattr(rr, name, value)
    message.an = [rr]
    return bytes(message)


@quick
@given(names, st.integers(0, 65535))
def test_what_dpkt_writes_is_read(name: str, number: int) -> None:
    def read_one(kind: str, **fields: object) -> str:
        asked = query(0x1234, NAME, TYPES[kind], recursion=True)
        (text,) = texts(by_dpkt(TYPES[kind], **fields), kind, asked)
        return text

    shown = f"{name.lower()}."
    assert read_one("NS", nsname=name) == shown
    assert read_one("CNAME", cname=f"{name}.Example.net") == f"{shown}example.net."
    assert read_one("MX", preference=number, mxname=name) == f"{number} {shown}"
    assert read_one("TXT", text=[name.encode()[:99], b"!"]) == f"{name[:99]}!"
    assert read_one("A", ip=number.to_bytes(4, "big")) == str(IPv4Address(number))


# --- what is expected ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "written", "text"),
    [
        ("A", "192.0.2.10", "192.0.2.10"),
        ("AAAA", "2001:DB8:0::A", "2001:db8::a"),
        ("NS", "NS1.example.net", "ns1.example.net."),
        ("CNAME", ".", "."),
        ("MX", "010  Mail.Example.net.", "10 mail.example.net."),
        ("SRV", "0 5 5060 sip.example.net", "0 5 5060 sip.example.net."),
        ("SOA", "Ns. admin. 1 2 3 4 5", "ns. admin. 1 2 3 4 5"),
        ("TXT", " As it is ", " As it is "),
        ("CAA", "\\# 2 0aFF", "\\# 2 0aff"),
        ("CAA", "0a ff", "\\# 2 0aff"),
        ("CAA", "", "\\# 0"),
    ],
)
def test_expected(kind: str, written: str, text: str) -> None:
    assert dns_records.expected(TYPES[kind], written) == text


def test_expected_addresses() -> None:
    assert dns_records.expected(1, IPv4Address("192.0.2.1")) == "192.0.2.1"


@pytest.mark.parametrize(
    ("kind", "written", "says"),
    [
        ("A", "2001:db8::1", "must be an IPv4 address"),
        ("AAAA", "192.0.2.1", "must be an IPv6 address"),
        ("A", "www", "must be an IPv4 address"),
        ("NS", "a..b", "between dots"),
        ("MX", "mail.example.net", "of the form '10 mail.example.net'"),
        ("MX", "x mail.example.net", "of the form '10 mail.example.net'"),
        ("SRV", "0 5 sip.example.net", "of the form '0 5 5060 sip.example.net'"),
        ("SOA", "ns. admin. 1 2 3 4", "of the form 'ns.example.net admin"),
        ("SOA", "ns. admin. 1 2 3 4 five", "of the form 'ns.example.net admin"),
        ("CAA", '0 issue "ca"', "write their hexadecimal digits"),
        ("CAA", "abc", "write their hexadecimal digits"),
    ],
)
def test_what_cannot_be_expected(kind: str, written: str, says: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(says)):
        dns_records.expected(TYPES[kind], written)
