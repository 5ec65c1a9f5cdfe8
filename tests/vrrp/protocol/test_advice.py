"""What a reader is told to do about adverts that are dropped."""

from __future__ import annotations

import pytest

from vrrpkit.vrrp.protocol.advice import advice
from vrrpkit.vrrp.protocol.packet import RejectReason


@pytest.mark.parametrize(
    ("reason", "got", "want", "words"),
    [
        ("version", "2", "3", "it speaks version 2: say version=2, or 'vrrp_version 3' there"),
        ("interval-mismatch", "2 s", "1 s", "say interval=2, or 'advert_int 1' there"),
        ("auth-type-mismatch", "1", "0", "it uses a password: say auth=PasswordAuth(...)"),
        ("auth-type-mismatch", "0", "1", "it uses no password: leave auth out"),
        ("destination", "224.0.0.18", "unicast", "leave peers= out, or say 'unicast_peer' there"),
        ("destination", "192.0.2.1", "224.0.0.18", "say peers= with its address"),
        ("checksum", "message-only", "pseudo-header", "leave insist_checksum out"),
        ("checksum", "beef", None, "it is damaged on its way, or forged"),
        ("packet-length", "40", "12", "if it signs its adverts, say auth=HMACAuth(...)"),
        ("unknown-peer", "192.0.2.9", "one of peers=", "add it to peers="),
        ("hmac-missing", "no trailer", "a signed advert", "give both the same HMAC keys, or"),
    ],
)
def test_says_what_to_do(reason: str, got: str, want: str | None, words: str) -> None:
    assert words in (advice(RejectReason(reason), got, want) or "")


def test_there_is_something_to_say_of_all_that_a_configuration_can_cause() -> None:
    silent = {reason for reason in RejectReason if advice(reason, "1", "2") is None}
    assert silent == {
        RejectReason.TYPE,
        RejectReason.VRID,
        RejectReason.ADDRESS_COUNT_ZERO,
        RejectReason.INTERVAL_ZERO,
        RejectReason.AUTH_TYPE_INVALID,
        RejectReason.HMAC_MALFORMED,
    }
    assert advice(RejectReason.VERSION, None, None) is None
