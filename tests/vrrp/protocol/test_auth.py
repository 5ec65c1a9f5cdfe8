"""Passwords and the HMAC trailer: fixed vectors, an independent computation, and replays."""

from __future__ import annotations

import hashlib
from ipaddress import ip_address
from typing import Any

import pytest
from hypothesis import given, strategies as st

from strategies import addresses, advertisements, quick
from vrrpkit.errors import ConfigError, DecodeError
from vrrpkit.values import IPAddress
from vrrpkit.vrrp.protocol.auth import TRAILER, HMACAuth, PasswordAuth, Signer, Verifier
from vrrpkit.vrrp.protocol.packet import Advertisement, ChecksumForm, decode, encode, unsigned

KEY = bytes(range(32))
SECOND = 0x68000000
WALL = SECOND + 0.5
FOUR = (
    ip_address("198.51.100.10"),
    ip_address("224.0.0.18"),
    "3133c80100644402c00002640101000068000000800000001b84bc4e8e43892dc6d98448f8ee2265",
)
SIX = (
    ip_address("fe80::10"),
    ip_address("fe80::20"),
    "3133c8010064a2e9fe800000000000000000000000000100"
    "010100006800000080000000"
    "c8c56146ebfd66ee10ec4d8186461b78",
)
SOURCE = FOUR[0]
MESSAGE = bytes.fromhex(FOUR[2])[:12]


def auth(**changes: Any) -> HMACAuth:
    return HMACAuth(changes.pop("keys", {1: KEY}), active=changes.pop("active", 1), **changes)


def verifier(sources: int = 4, interval: float = 1.0, **changes: Any) -> Verifier:
    return Verifier(auth(**changes), interval, sources)


def signer(**changes: Any) -> Signer:
    return Signer(auth(**changes), 1.0)


def reason(
    check: Verifier,
    trailer: bytes,
    wall: float = WALL,
    source: IPAddress = SOURCE,
    message: bytes = MESSAGE,
) -> str:
    """``accepted``, or why not."""
    try:
        check.verify(message, trailer, source, wall)
    except DecodeError as problem:
        return problem.reason
    return "accepted"


def independent(key: bytes, message: bytes, source: IPAddress, prefix: bytes) -> bytes:
    """RFC 2104 from nothing but SHA-256, over what the draft says is covered."""
    block = bytearray()
    block += bytes([6 if ":" in str(source) else 4, message[0] // 16, message[1], 0])
    block += source.packed + bytes(16 - len(source.packed))
    block += message[:6] + bytes(2) + message[8:]
    block += prefix + bytes(16)
    padded = key + bytes(64 - len(key))
    inner = hashlib.sha256(bytes(octet ^ 0x36 for octet in padded) + block).digest()
    return hashlib.sha256(bytes(octet ^ 0x5C for octet in padded) + inner).digest()[:16]


# --- the wire


@pytest.mark.parametrize(("source", "destination", "text"), [FOUR, SIX])
def test_the_fixed_vectors(source: IPAddress, destination: IPAddress, text: str) -> None:
    payload = bytes.fromhex(text)
    decoded = decode(payload, source, destination, trailer=TRAILER)
    assert decoded.advert.priority == 200
    assert verifier().verify(decoded.message, decoded.trailer, source, WALL) == 0.0
    trailer = signer().sign(unsigned(decoded.advert), source, WALL)
    assert trailer == decoded.trailer
    form = ChecksumForm.MESSAGE_ONLY
    assert encode(decoded.advert, source, destination, form, trailer) == payload


@quick
@given(st.data())
def test_an_independent_computation_agrees(data: st.DataObject) -> None:
    advert: Advertisement = data.draw(advertisements())
    source = data.draw(addresses(advert.family))
    key = data.draw(st.binary(min_size=32, max_size=64))
    wall = data.draw(st.floats(0, 2**32 - 1))
    payload = encode(advert, source, source)
    trailer = signer(keys={7: key}, active=7).sign(payload, source, wall)
    assert len(trailer) == TRAILER
    assert trailer[:4] == bytes((1, 7, 0, 0))
    assert trailer[12:] == independent(key, payload, source, trailer[:12])


FLIPS = [
    ("message", 2, "hmac-failure"),  # priority
    ("message", 5, "hmac-failure"),  # interval
    ("message", 11, "hmac-failure"),  # virtual address
    ("trailer", 7, "hmac-failure"),  # seconds
    ("trailer", 11, "hmac-failure"),  # counter
    ("trailer", 12, "hmac-failure"),
    ("trailer", 27, "hmac-failure"),
    ("trailer", 0, "hmac-malformed"),
    ("trailer", 2, "hmac-malformed"),
    ("trailer", 3, "hmac-malformed"),
    ("trailer", 1, "hmac-unknown-key"),
    ("message", 6, "accepted"),  # the checksum is not covered: it fails by itself
    ("message", 7, "accepted"),
]


@pytest.mark.parametrize(("part", "octet", "verdict"), FLIPS)
def test_one_flipped_bit(part: str, octet: int, verdict: str) -> None:
    payload = bytearray.fromhex(FOUR[2])
    payload[octet + (12 if part == "trailer" else 0)] ^= 1
    message, trailer = bytes(payload[:12]), bytes(payload[12:])
    assert reason(verifier(), trailer, message=message) == verdict
    if verdict == "accepted":
        with pytest.raises(DecodeError, match="checksum"):
            decode(bytes(payload), SOURCE, FOUR[1], trailer=TRAILER)


def test_the_source_is_covered_and_the_destination_is_not() -> None:
    trailer = signer().sign(MESSAGE, SOURCE, WALL)
    assert reason(verifier(), trailer) == "accepted"
    assert reason(verifier(), trailer, source=ip_address("198.51.100.11")) == "hmac-failure"


# --- modes and rotation


@pytest.mark.parametrize(
    ("mode", "unsigned_verdict"),
    [("enforce", "hmac-missing"), ("permissive", "accepted"), ("receive-only", "accepted")],
)
def test_modes(mode: str, unsigned_verdict: str) -> None:
    check = verifier(mode=mode)
    assert reason(check, b"") == unsigned_verdict
    assert reason(check, signer().sign(MESSAGE, SOURCE, WALL)) == "accepted"
    forged = signer(keys={1: bytes(32)}).sign(MESSAGE, SOURCE, WALL + 1)
    assert reason(check, forged) == "hmac-failure"


def test_rotation() -> None:
    new = bytes(range(32, 96))
    both = {1: KEY, 2: new}
    receiver = verifier(keys=both)
    assert reason(receiver, signer(keys=both, active=1).sign(MESSAGE, SOURCE, WALL)) == "accepted"
    late = signer(keys=both, active=2).sign(MESSAGE, SOURCE, WALL + 1)
    assert late[1] == 2
    assert reason(receiver, late, WALL + 1) == "accepted"
    assert reason(verifier(), late, WALL + 1) == "hmac-unknown-key"


# --- time


@pytest.mark.parametrize(
    ("interval", "window", "expected"), [(1.0, None, 5.0), (10.0, None, 30.0), (1.0, 300, 300)]
)
def test_window(interval: float, window: float | None, expected: float) -> None:
    assert auth(window=window).window_for(interval) == expected


@pytest.mark.parametrize("age", [-5.0, -1.0, 0.0, 4.5, 5.0])
def test_within_the_window(age: float) -> None:
    trailer = signer().sign(MESSAGE, SOURCE, WALL)
    assert verifier().verify(MESSAGE, trailer, SOURCE, WALL + age) == -age


@pytest.mark.parametrize("age", [-3600.0, -5.5, 5.5, 1e6])
def test_outside_the_window(age: float) -> None:
    trailer = signer().sign(MESSAGE, SOURCE, WALL)
    assert reason(verifier(), trailer, WALL + age) == "hmac-stale"
    assert reason(verifier(anti_replay="monotonic"), trailer, WALL + age) == "accepted"


def test_stale_comes_before_the_digest() -> None:
    """A flood of old captures must not cost a digest each."""
    forged = signer(keys={9: bytes(32)}, active=9).sign(MESSAGE, SOURCE, WALL)
    assert reason(verifier(), forged, WALL + 60) == "hmac-stale"


def test_skew_warning() -> None:
    check = verifier()
    assert [check.skewed(ahead) for ahead in (0.0, 2.5, -2.5, 2.6, -2.6)] == [
        False,
        False,
        False,
        True,
        True,
    ]
    trailer = signer().sign(MESSAGE, SOURCE, WALL)
    assert check.skewed(check.verify(MESSAGE, trailer, SOURCE, WALL - 3))


# --- replay


def test_a_replay() -> None:
    check, sender = verifier(), signer()
    first = sender.sign(MESSAGE, SOURCE, WALL)
    second = sender.sign(MESSAGE, SOURCE, WALL)
    assert reason(check, first) == "accepted"
    assert reason(check, first) == "hmac-replay"
    assert reason(check, second) == "accepted"
    assert reason(check, first) == "hmac-replay"


def test_the_counter_tells_adverts_of_one_moment_apart() -> None:
    sender = signer()
    counters = [sender.sign(MESSAGE, SOURCE, WALL)[10:12].hex() for _ in range(3)]
    assert counters == ["0000", "0001", "0002"]


def test_a_clock_stepped_back_a_little() -> None:
    """Within the window the sender counts on, so that its receivers take every advert."""
    check, sender = verifier(), signer()
    for wall in (WALL, WALL - 2, WALL - 2, WALL - 1, WALL + 1):
        assert reason(check, sender.sign(MESSAGE, SOURCE, wall), wall) == "accepted"


def test_a_clock_stepped_back_far() -> None:
    """The sender starts again from its clock, and the receivers' mark expires."""
    check, sender = verifier(), signer()
    assert reason(check, sender.sign(MESSAGE, SOURCE, WALL), WALL) == "accepted"
    before = WALL - 3600
    trailer = sender.sign(MESSAGE, SOURCE, before)
    assert int.from_bytes(trailer[4:8], "big") == SECOND - 3600
    assert reason(check, trailer, before) == "accepted"
    assert reason(check, trailer, before) == "hmac-replay"


def test_a_monotonic_sender_never_goes_back() -> None:
    check, sender = verifier(anti_replay="monotonic"), signer(anti_replay="monotonic")
    last = sender.sign(MESSAGE, SOURCE, WALL)
    assert check.verify(MESSAGE, last, SOURCE, 0.0) == 0.0
    for wall in (WALL - 3600, WALL - 7200):
        trailer = sender.sign(MESSAGE, SOURCE, wall)
        assert trailer[4:12] > last[4:12]
        assert reason(check, trailer, wall) == "accepted"
        assert reason(check, last, wall) == "hmac-replay"
        last = trailer


def test_the_sequence_survives_its_wrap() -> None:
    check, sender = verifier(), signer()
    for wall in (2**32 - 1.0, 2**32 - 0.5, 2**32 + 0.5, 2**32 + 1.0):
        trailer = sender.sign(MESSAGE, SOURCE, wall)
        assert reason(check, trailer, wall) == "accepted"
    assert trailer[4:8] == bytes((0, 0, 0, 1))


def test_only_verified_adverts_move_the_mark() -> None:
    check, sender = verifier(), signer()
    good = sender.sign(MESSAGE, SOURCE, WALL)
    forged = signer(keys={1: bytes(32)}).sign(MESSAGE, SOURCE, WALL + 4)
    assert reason(check, forged) == "hmac-failure"
    assert reason(check, good) == "accepted"


def test_the_table_forgets_the_least_recently_heard() -> None:
    check = verifier(sources=4)
    sources = [SOURCE + n for n in range(6)]
    first = {source: signer().sign(MESSAGE, source, WALL) for source in sources}
    for source in sources[:4]:
        assert reason(check, first[source], source=source) == "accepted"
    # Strangers without the key take no place.
    for stranger in range(100, 120):
        assert reason(check, first[SOURCE], source=SOURCE + stranger) == "hmac-failure"
    again = signer().sign(MESSAGE, SOURCE, WALL + 1)
    assert reason(check, again, WALL + 1) == "accepted"
    assert reason(check, first[sources[4]], source=sources[4]) == "accepted"
    verdicts = [reason(check, first[source], source=source) for source in (SOURCE, *sources[2:5])]
    assert verdicts == ["hmac-replay"] * 4
    assert reason(check, first[sources[1]], source=sources[1]) == "accepted"


# --- what is refused


@pytest.mark.parametrize("password", ["", "ninechars", "pässwört"])
def test_bad_passwords(password: str) -> None:
    with pytest.raises(ConfigError, match="1 to 8 octets"):
        PasswordAuth(password)


def test_a_password_is_padded() -> None:
    assert PasswordAuth("s3cret").data == b"s3cret\0\0"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"keys": {0: KEY}, "active": 0}, "HMAC key id 0 must be a whole number from 1 to 255"),
        ({"keys": {256: KEY}, "active": 256}, "HMAC key id 256"),
        ({"keys": {"1": KEY}}, "HMAC key id '1'"),
        ({"keys": {1: bytes(31)}}, "has 31 octets; use 32 to 64"),
        ({"keys": {1: bytes(65)}}, "has 65 octets"),
        ({"keys": {1: "short"}}, "has 5 octets"),
        ({"keys": {1: "hex:0x"}}, "pairs of hexadecimal digits"),
        ({"keys": {1: "file:/etc/key"}}, "read_key"),
        ({"keys": KEY}, "HMACAuth\\({1: key}, active=1\\)"),
        ({"active": 2}, r"active HMAC key 2 is not among the keys \[1\]"),
        ({"anti_replay": "never"}, "'time' or 'monotonic'"),
        ({"mode": "off"}, "'enforce', 'permissive' or 'receive-only'"),
        ({"window": 0.5}, "window 0.5 must be 1 to 300"),
        ({"window": 301}, "window 301"),
    ],
)
def test_bad_hmac_settings(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        auth(**changes)
    assert "short" not in str(caught.value)


def test_keys_as_text() -> None:
    text = {1: "hex:" + KEY.hex(), 2: "a" * 32}
    assert auth(keys=text).keys == {1: KEY, 2: b"a" * 32}


def test_secrets_are_never_shown() -> None:
    assert "s3cret" not in repr(PasswordAuth("s3cret"))
    shown = repr(auth(keys={1: "k" * 32}))
    assert "kkk" not in shown
    assert "enforce" in shown
