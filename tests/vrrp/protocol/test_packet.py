"""Golden packets of other implementations, round trips, and what must never get through."""

from __future__ import annotations

import json
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import attrs
import pytest
from hypothesis import given, strategies as st

from builders import validator
from strategies import addresses, advertisements, forms, octets, quick
from vrrpkit.errors import ConfigError, DecodeError
from vrrpkit.values import IPAddress
from vrrpkit.vrrp.protocol.auth import HMACAuth, PasswordAuth, Verifier
from vrrpkit.vrrp.protocol.packet import (
    Advertisement,
    ChecksumForm,
    Decoded,
    RejectReason,
    decode,
    encode,
    interval_from_wire,
    interval_to_wire,
)
from vrrpkit.vrrp.protocol.validation import AdvertValidator, ValidAdvert

VECTORS: list[dict[str, Any]] = json.loads(
    Path(__file__).with_name("vectors.json").read_text(encoding="utf-8")
)["vectors"]
BY_NAME = {vector["name"]: vector for vector in VECTORS}
PSEUDO, PLAIN = ChecksumForm.PSEUDO_HEADER, ChecksumForm.MESSAGE_ONLY
SOURCE, GROUP = ip_address("192.0.2.2"), ip_address("224.0.0.18")
SIMPLE = Advertisement(
    version=3, vrid=51, priority=100, wire_interval=100, addresses=(ip_address("192.0.2.10"),)
)


def kind(*kinds: str) -> list[Any]:
    return [pytest.param(v, id=v["name"]) for v in VECTORS if v["kind"] in kinds]


def place(vector: dict[str, Any]) -> tuple[bytes, IPAddress, IPAddress]:
    return bytes.fromhex(vector["hex"]), ip_address(vector["src"]), ip_address(vector["dst"])


def receiver(vector: dict[str, Any]) -> AdvertValidator:
    """The router that the hand-made packets of the fixture were sent at."""
    if vector["ip_version"] == 6:
        vips, vrid, version = ("fe80::72:1", "2001:db8:0:72::1"), 72, 3
    elif vector["receiver"].startswith("v2"):
        vips, vrid, version = ("192.0.2.70",), 70, 2
    else:
        vips, vrid, version = ("192.0.2.71",), 71, 3
    return validator(
        version=version,
        vrid=vrid,
        wire_interval=1 if version == 2 else 100,
        addresses=frozenset(ip_address(vip) for vip in vips),
        group=ip_address(vector["dst"]),
    )


def member(vector: dict[str, Any], **changes: Any) -> AdvertValidator:
    """A router of the same group as the sender of a captured packet."""
    expect = vector["expect"]
    usual = {
        "version": expect["version"],
        "vrid": expect["vrid"],
        "wire_interval": expect["interval"],
        "addresses": frozenset(ip_address(text) for text in expect["addresses"]),
        "group": ip_address(vector["dst"]),
    }
    return validator(**(usual | changes))


def attempt(
    payload: bytes, source: IPAddress, destination: IPAddress, *, trailer: int = 0
) -> Decoded | str:
    """What was found, or why nothing."""
    try:
        return decode(payload, source, destination, trailer=trailer)
    except DecodeError as problem:
        return problem.reason


@pytest.mark.parametrize("vector", kind("valid"))
def test_reads_what_others_send(vector: dict[str, Any]) -> None:
    payload, source, destination = place(vector)
    expect = vector["expect"]
    decoded = decode(payload, source, destination)
    advert = decoded.advert
    assert (advert.version, advert.vrid, advert.priority) == (
        expect["version"],
        expect["vrid"],
        expect["priority"],
    )
    assert advert.wire_interval == expect["interval"]
    assert [str(address) for address in advert.addresses] == expect["addresses"]
    assert len(advert.addresses) == expect["count"]
    assert advert.auth_type == expect.get("auth_type", 0)
    assert advert.auth_data.hex() == expect.get("auth_data", "00" * 8)
    assert advert.reserved == expect.get("reserved", 0)
    pseudo = vector["checksum_style"] != "vrrp-only"
    assert decoded.checksum is (PSEUDO if pseudo else PLAIN)
    assert decoded.message == payload
    assert decoded.trailer == b""


@pytest.mark.parametrize("vector", kind("valid"))
def test_sends_what_others_send(vector: dict[str, Any]) -> None:
    payload, source, destination = place(vector)
    decoded = decode(payload, source, destination)
    assert encode(decoded.advert, source, destination, decoded.checksum) == payload


@pytest.mark.parametrize("vector", kind("valid"))
def test_a_member_of_the_group_accepts(vector: dict[str, Any]) -> None:
    payload, source, destination = place(vector)
    auth = None
    if vector["expect"].get("auth_type") == 1:
        auth = PasswordAuth(bytes.fromhex(vector["expect"]["auth_data"]).rstrip(b"\0").decode())
    inspect = member(vector, auth=auth).inspect
    if vector["name"] == "ka-v2-auth-ah":
        with pytest.raises(DecodeError, match="auth-type-mismatch"):
            inspect(payload, source, destination, vector["ttl"], 0.0)
        return
    assert inspect(payload, source, destination, vector["ttl"], 0.0).remarks == ()


@pytest.mark.parametrize("vector", kind("malformed"))
def test_drops_what_is_wrong(vector: dict[str, Any]) -> None:
    payload, source, destination = place(vector)
    with pytest.raises(DecodeError) as caught:
        receiver(vector).inspect(payload, source, destination, vector["ttl"], 0.0)
    assert caught.value.reason == vector["expect"]["error"]


@pytest.mark.parametrize("vector", kind("edge-accept"))
def test_accepts_what_is_only_odd(vector: dict[str, Any]) -> None:
    payload, source, destination = place(vector)
    heard = receiver(vector).inspect(payload, source, destination, vector["ttl"], 0.0)
    assert heard.advert.wire_interval == 100
    listed = "address-list" in vector["name"]
    assert [remark.anomaly for remark in heard.remarks] == (["address-list"] if listed else [])


def test_keeps_the_reserved_nibble() -> None:
    payload, source, destination = place(BY_NAME["edge-v3-reserved-nibble-set"])
    advert = decode(payload, source, destination).advert
    assert (advert.reserved, advert.wire_interval) == (15, 100)
    assert encode(advert, source, destination)[4] == 0


def test_a_signed_packet_of_keepalived() -> None:
    vector = BY_NAME["ka-v3-ip4-auth-hmac-draft"]
    payload, source, destination = place(vector)
    wall = float(vector["expect"]["trailer"]["sec"])

    def hear(**changes: Any) -> ValidAdvert:
        return member(vector, **changes).inspect(payload, source, destination, 255, wall)

    auth = HMACAuth({1: bytes.fromhex(vector["hmac_key_hex"])}, active=1)
    heard = hear(auth=auth, verifier=Verifier(auth, 1.0))
    assert heard.advert.priority == 100
    assert heard.ahead == pytest.approx(24914 / 65536)
    with pytest.raises(DecodeError, match="packet-length: got 40, want 12"):
        hear()
    other = HMACAuth({1: bytes(32)}, active=1)
    with pytest.raises(DecodeError, match="hmac-failure"):
        hear(auth=other, verifier=Verifier(other, 1.0))


@quick
@given(st.data())
def test_round_trip(data: st.DataObject) -> None:
    advert = data.draw(advertisements())
    source = data.draw(addresses(advert.family))
    destination = data.draw(addresses(advert.family))
    form = data.draw(forms)
    trailer = data.draw(st.sampled_from([b"", b"t" * 28]))
    payload = encode(advert, source, destination, form, trailer)
    decoded = decode(payload, source, destination, trailer=28)
    assert decoded.advert == advert
    assert decoded.message + decoded.trailer == payload
    assert decoded.trailer == trailer
    if advert.family == 6:
        assert decoded.checksum is PSEUDO
    elif advert.version == 2:
        assert decoded.checksum is PLAIN


@pytest.mark.parametrize("form", ChecksumForm)
def test_the_form_of_the_checksum_is_found(form: ChecksumForm) -> None:
    payload = encode(SIMPLE, SOURCE, GROUP, form)
    assert decode(payload, SOURCE, GROUP).checksum is form


@pytest.mark.parametrize("count", [1, 2, 20, 254, 255])
@pytest.mark.parametrize("first", ["198.51.100.0", "2001:db8::"])
def test_up_to_255_addresses(first: str, count: int) -> None:
    start = ip_address(first)
    advert = attrs.evolve(SIMPLE, addresses=tuple(start + n for n in range(count)))
    payload = encode(advert, start, start)
    assert len(payload) == 8 + count * len(start.packed)
    assert decode(payload, start, start).advert == advert


@quick
@given(octets, st.sampled_from([4, 6]), st.sampled_from([0, 28]))
def test_any_octets_give_an_advert_or_a_decode_error(
    payload: bytes, family: int, trailer: int
) -> None:
    address = SOURCE if family == 4 else ip_address("fe80::2")
    found = attempt(payload, address, address, trailer=trailer)
    assert isinstance(found, Decoded) or found in RejectReason


@quick
@given(st.data())
def test_any_octets_with_a_right_checksum(data: st.DataObject) -> None:
    """The checksum must not hide what stands behind it: here it always fits."""
    count = data.draw(st.integers(0, 3))
    first, second = data.draw(st.sampled_from([0x21, 0x31])), data.draw(st.integers(0, 65535))
    head = bytes((first, data.draw(st.integers(0, 255)), 100, count)) + second.to_bytes(2, "big")
    body = data.draw(st.binary(min_size=count * 4, max_size=count * 4 + 8))
    total = int.from_bytes(head + b"\0\0" + body, "big") % 65535
    payload = head + (65535 - (total or 65535)).to_bytes(2, "big") + body
    found = attempt(payload, SOURCE, GROUP)
    if isinstance(found, Decoded):
        assert found.advert.vrid > 0
        assert found.advert.wire_interval > 0
    else:
        assert found in RejectReason


@pytest.mark.parametrize("form", ChecksumForm)
@pytest.mark.parametrize("version", [2, 3])
def test_every_flipped_bit_is_noticed(version: int, form: ChecksumForm) -> None:
    advert = attrs.evolve(SIMPLE, version=version, wire_interval=1)
    payload = encode(advert, SOURCE, GROUP, form)
    for bit in range(len(payload) * 8):
        flipped = bytearray(payload)
        flipped[bit // 8] ^= 1 << bit % 8
        with pytest.raises(DecodeError):
            decode(bytes(flipped), SOURCE, GROUP)


@quick
@given(st.data())
def test_a_flipped_bit_is_noticed_in_ipv6(data: st.DataObject) -> None:
    advert = data.draw(advertisements(family=6))
    source = ip_address("fe80::2")
    payload = bytearray(encode(advert, source, ip_address("ff02::12")))
    bit = data.draw(st.integers(0, len(payload) * 8 - 1))
    payload[bit // 8] ^= 1 << bit % 8
    with pytest.raises(DecodeError):
        decode(bytes(payload), source, ip_address("ff02::12"))


def test_a_checksum_of_zero() -> None:
    """A sum of 0xffff has the complement 0."""
    address = ip_address(0xFFFF_FFFF - (0x3133_6401 + 0x0064_0000))
    advert = attrs.evolve(SIMPLE, addresses=(address,))
    payload = encode(advert, SOURCE, GROUP, PLAIN)
    assert payload[6:8] == b"\0\0"
    assert decode(payload, SOURCE, GROUP).checksum is PLAIN


@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        (b"", RejectReason.PACKET_LENGTH),
        (bytes.fromhex("31336401006400"), RejectReason.PACKET_LENGTH),
        (bytes.fromhex("1133640100640000c000020a"), RejectReason.VERSION),
        (bytes.fromhex("3233640100640000c000020a"), RejectReason.TYPE),
        (bytes.fromhex("3133640000640000"), RejectReason.ADDRESS_COUNT_ZERO),
        (bytes.fromhex("3133640100640000c000020a00"), RejectReason.PACKET_LENGTH),
        (bytes.fromhex("3133640100640000c000020a"), RejectReason.CHECKSUM),
    ],
)
def test_reasons(payload: bytes, reason: RejectReason) -> None:
    with pytest.raises(DecodeError) as caught:
        decode(payload, SOURCE, GROUP)
    assert caught.value.reason is reason


def test_vrid_zero() -> None:
    payload = bytearray(encode(attrs.evolve(SIMPLE, vrid=1), SOURCE, GROUP, PLAIN))
    payload[1] -= 1
    payload[7] += 1
    with pytest.raises(DecodeError) as caught:
        decode(bytes(payload), SOURCE, GROUP)
    assert caught.value.reason is RejectReason.VRID


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"version": 4}, "version 4 must be 2 to 3"),
        ({"vrid": 0}, "VRID 0"),
        ({"vrid": 256}, "VRID 256"),
        ({"priority": -1}, "priority -1"),
        ({"priority": 256}, "priority 256"),
        ({"wire_interval": 0}, "interval 0"),
        ({"wire_interval": 4096}, "interval 4096"),
        ({"version": 2, "wire_interval": 256}, "interval 256 must be 1 to 255"),
        ({"addresses": ()}, "number of addresses 0"),
        ({"addresses": (ip_address("192.0.2.1"),) * 256}, "number of addresses 256"),
        ({"addresses": (ip_address("192.0.2.1"), ip_address("fe80::1"))}, "one family"),
        ({"version": 2, "auth_type": 256}, "authentication type 256"),
        ({"version": 2, "auth_data": b"short"}, "octets of authentication data 5"),
    ],
)
def test_refuses_what_does_not_fit(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        encode(attrs.evolve(SIMPLE, **change), SOURCE, GROUP)


@pytest.mark.parametrize(
    ("version", "seconds", "wire"),
    [(2, 1, 1), (2, 255.0, 255), (3, 0.01, 1), (3, 0.07, 7), (3, 1.0, 100), (3, 40.95, 4095)],
)
def test_intervals(version: int, seconds: float, wire: int) -> None:
    assert interval_to_wire(version, seconds) == wire
    assert interval_from_wire(version, wire) == seconds
    assert attrs.evolve(SIMPLE, version=version, wire_interval=wire).interval == seconds


@pytest.mark.parametrize(
    ("version", "seconds"),
    [
        *((2, bad) for bad in (0, 0.5, 1.5, 256, -1)),
        *((3, bad) for bad in (0, 0.001, 0.015, 40.96, -0.01, float("nan"), float("inf"))),
    ],
)
def test_intervals_that_no_packet_can_say(version: int, seconds: float) -> None:
    with pytest.raises(ConfigError, match=f"version {version}: use"):
        interval_to_wire(version, seconds)
