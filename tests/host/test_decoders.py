"""What the kernel says is read without a complaint, whatever it is: a message that is cut short, or
strange, must not lose those behind it."""

from __future__ import annotations

import struct
from collections.abc import Callable

import pytest
from hypothesis import given, strategies as st

from vrrpkit.host.links import requests
from vrrpkit.host.links.records import AddressRecord, parse_address_notice, parse_link
from vrrpkit.host.routing import records
from vrrpkit.linux import netlink, nfnetlink, procevents
from vrrpkit.linux.netlink import HEADER, NetlinkMessage
from vrrpkit.values import VIP

ADDRESS = struct.pack("=BBBBI", 2, 24, 0, 0, 7)
SIX = struct.pack("=BBBBI", 10, 64, 0, 0, 7)
LINK = struct.pack("=BxHiII", 0, 1, 7, 0x41, 0)
ROUTE = struct.pack("=BBBBBBBBI", 2, 24, 0, 0, 254, 112, 0, 1, 0)
RULE = struct.pack("=BBBBBxxBI", 2, 24, 0, 0, 100, 1, 0)
EVENT = bytes(16 + 20)

DECODERS: dict[str, tuple[Callable[[bytes], object], list[bytes]]] = {
    "address": (parse_address_notice, [ADDRESS, SIX]),
    "link": (parse_link, [LINK]),
    "route": (records.parse_route, [ROUTE, b"\x0a" + ROUTE[1:]]),
    "rule": (records.parse_rule, [RULE, b"\x0a" + RULE[1:]]),
    "link of routes": (lambda payload: records.parse_link_notice(16, payload), [LINK]),
    "nftables": (lambda data: list(nfnetlink._tables(data)), [b"\x30\0\0\0\0\x0a"]),
    "process": (procevents.changed_by, [EVENT + bytes([1, 0, 0, 0]), EVENT + bytes([2, 0, 0, 0])]),
    "messages": (lambda data: list(netlink._messages(data)), [HEADER.pack(16, 20, 0, 0, 0)]),
    "error": (
        lambda payload: netlink._problem(NetlinkMessage(2, 0x300, 1, payload)),
        [b"\xff\xff\xff\xff"],
    ),
}


@st.composite
def attribute(draw: st.DrawFn) -> bytes:
    """An attribute that says it is as long as it is, or as long as anything."""
    value = draw(st.binary(max_size=20))
    length = draw(st.just(4 + len(value)) | st.integers(0, 40))
    kind = draw(st.integers(0, 30) | st.integers(0, 0xFFFF))
    return struct.pack("=HH", length, kind) + value + bytes(-len(value) % 4)


@pytest.mark.parametrize("name", DECODERS)
@given(data=st.data())
def test_no_decoder_complains(name: str, data: st.DataObject) -> None:
    decoder, heads = DECODERS[name]
    head = data.draw(st.sampled_from(heads) | st.binary(max_size=40))
    body = b"".join(data.draw(st.lists(attribute(), max_size=6)))
    message = (head + body)[: data.draw(st.integers(0, 300))]
    decoder(message)


@given(
    payload=st.lists(attribute(), max_size=6).map(b"".join), head=st.sampled_from([ADDRESS, SIX])
)
def test_whatever_counts_as_an_address_is_one(head: bytes, payload: bytes) -> None:
    record = parse_address_notice(head + payload)
    if record is not None:
        assert str(record)
        assert requests.delete_found(record)


def test_what_is_well_formed_is_read() -> None:
    told = bytes(requests.add_address(VIP("192.0.2.10/24"), None))[16:]
    record = parse_address_notice(told)
    assert isinstance(record, AddressRecord)
    assert (record.key, record.marked) == ((VIP("192.0.2.10").address.packed, 24), True)


@pytest.mark.parametrize("cut", [0, 3, 7])
def test_what_is_cut_short_is_nothing(cut: int) -> None:
    assert parse_address_notice(ADDRESS[:cut]) is None
    assert parse_link(LINK[:cut]) is None
    assert records.parse_route(ROUTE[:cut]) is None
    assert records.parse_rule(RULE[:cut]) is None
    assert records.parse_link_notice(16, LINK[:cut]) is None


@pytest.mark.parametrize("length", [3, 5, 16])
def test_an_address_of_another_length_is_none(length: int) -> None:
    wrong = struct.pack("=HH", 4 + length, 2) + bytes(length) + bytes(-length % 4)
    assert parse_address_notice(ADDRESS + wrong) is None
    assert records.parse_route(ROUTE + struct.pack("=HH", 4 + length, 1) + bytes(20)) is None
    assert records.parse_rule(RULE + struct.pack("=HH", 4 + length, 1) + bytes(20)) is None
