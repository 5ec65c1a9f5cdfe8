"""Control packets to octets and back."""

from __future__ import annotations

import contextlib

import attrs
import pytest
from hypothesis import given, strategies as st

from vrrpkit.bfd.protocol.packet import (
    BFDDiagnostic,
    BFDRejectReason,
    BFDState,
    ControlPacket,
    decode,
    encode,
)
from vrrpkit.errors import DecodeError

MICROSECONDS = st.integers(0, 2**32 - 1).map(lambda n: n / 1_000_000)
NUMBERS = st.integers(1, 2**32 - 1)

PACKETS = st.builds(
    ControlPacket,
    state=st.sampled_from([BFDState.DOWN, BFDState.ADMIN_DOWN, BFDState.INIT, BFDState.UP]),
    diagnostic=st.sampled_from(BFDDiagnostic),
    multiplier=st.integers(1, 255),
    my_discriminator=NUMBERS,
    your_discriminator=NUMBERS,
    desired_min_tx=MICROSECONDS,
    required_min_rx=MICROSECONDS,
    required_min_echo_rx=MICROSECONDS,
    poll=st.booleans(),
    final=st.booleans(),
    control_plane_independent=st.booleans(),
    demand=st.booleans(),
)

UP = ControlPacket(
    state=BFDState.UP,
    diagnostic=BFDDiagnostic.NEIGHBOR_DOWN,
    multiplier=3,
    my_discriminator=0x01020304,
    your_discriminator=0x05060708,
    desired_min_tx=0.3,
    required_min_rx=0.05,
    poll=True,
)
OCTETS = bytes.fromhex("23e003180102030405060708000493e00000c35000000000")


def test_known_octets() -> None:
    assert encode(UP) == OCTETS
    assert decode(OCTETS) == UP


@pytest.mark.parametrize(
    ("flag", "bit"),
    [("poll", 32), ("final", 16), ("control_plane_independent", 8), ("demand", 2)],
)
def test_each_flag_has_its_bit(flag: str, bit: int) -> None:
    plain = attrs.evolve(UP, poll=False)
    flagged = attrs.evolve(plain, **{flag: True})
    assert encode(flagged)[1] ^ encode(plain)[1] == bit
    assert decode(encode(flagged)) == flagged


@given(PACKETS)
def test_round_trip(packet: ControlPacket) -> None:
    assert decode(encode(packet)) == packet


def test_a_first_packet_names_no_session_of_ours() -> None:
    for state in (BFDState.DOWN, BFDState.ADMIN_DOWN):
        first = attrs.evolve(UP, state=state, your_discriminator=0)
        assert decode(encode(first)) == first


def test_an_interval_beyond_the_wire_is_the_longest() -> None:
    packet = decode(encode(attrs.evolve(UP, desired_min_tx=1e6)))
    assert packet.desired_min_tx == pytest.approx(4294.967295)


def test_what_follows_the_packet_is_ignored() -> None:
    assert decode(OCTETS + b"padding") == UP


def test_a_diagnostic_without_a_meaning() -> None:
    assert decode(b"\x2f" + OCTETS[1:]).diagnostic is BFDDiagnostic.RESERVED


def changed(at: int, octets: str) -> bytes:
    new = bytes.fromhex(octets)
    return OCTETS[:at] + new + OCTETS[at + len(new) :]


@pytest.mark.parametrize(
    ("octets", "reason"),
    [
        (b"", BFDRejectReason.LENGTH),
        (OCTETS[:23], BFDRejectReason.LENGTH),
        (changed(3, "17"), BFDRejectReason.LENGTH),
        (changed(3, "19"), BFDRejectReason.LENGTH),
        (changed(0, "03"), BFDRejectReason.VERSION),
        (changed(0, "43"), BFDRejectReason.VERSION),
        (changed(2, "00"), BFDRejectReason.MULTIPLIER),
        (changed(1, "e1"), BFDRejectReason.MULTIPOINT),
        (changed(4, "00000000"), BFDRejectReason.MY_DISCRIMINATOR),
        (changed(8, "00000000"), BFDRejectReason.YOUR_DISCRIMINATOR),
        (changed(1, "a00318010203040000000000"), BFDRejectReason.YOUR_DISCRIMINATOR),
        (changed(1, "e4"), BFDRejectReason.AUTHENTICATION),
    ],
)
def test_rejected(octets: bytes, reason: BFDRejectReason) -> None:
    with pytest.raises(DecodeError) as caught:
        decode(octets)
    assert caught.value.reason == reason


@given(st.binary(max_size=64))
def test_nothing_but_a_decode_error_comes_of_any_octets(octets: bytes) -> None:
    with contextlib.suppress(DecodeError):
        packet = decode(octets)
        assert packet.multiplier
        assert packet.my_discriminator


def test_words_for_people() -> None:
    assert [str(state) for state in BFDState] == ["AdminDown", "Down", "Init", "Up"]
    assert str(BFDDiagnostic.DETECTION_EXPIRED) == "control detection time expired"
    assert all(str(diagnostic) for diagnostic in BFDDiagnostic)
