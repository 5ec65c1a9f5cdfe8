"""What to do about adverts that are dropped, in words for people. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from vrrpkit.vrrp.protocol.packet import RejectReason

__all__ = ["advice"]


def _version(got: str, want: str) -> str:
    return f"it speaks version {got}: say version={got}, or 'vrrp_version {want}' there"


def _interval(got: str, want: str) -> str:
    here, there = got.removesuffix(" s"), want.removesuffix(" s")
    return f"say interval={here}, or 'advert_int {there}' there"


def _auth_type(got: str, want: str) -> str:
    if want == "0":
        return "it uses a password: say auth=PasswordAuth(...), or no 'authentication' there"
    return f"it uses no password: leave auth out, or say 'auth_type PASS' there (type {want})"


def _destination(got: str, want: str) -> str:
    if want == "unicast":
        return f"it sends to the group {got}: leave peers= out, or say 'unicast_peer' there"
    return (
        f"it sends to {got}: say peers= with its address, or no 'unicast_peer' and the group "
        f"{want} there"
    )


def _checksum(got: str, want: str) -> str:
    return "leave insist_checksum out" if want else "it is damaged on its way, or forged"


def _length(_got: str, _want: str) -> str:
    return "if it signs its adverts, say auth=HMACAuth(...)"


_UNKNOWN_PEER = "add it to peers=, or remove this host from 'unicast_peer' there"
_TTL = "it crossed a router, or is forged; for unicast see Peer(min_ttl=, max_ttl=)"
_KEYS = "give both the same HMAC keys"

_ADVICE: Mapping[RejectReason, str | Callable[[str, str], str]] = {
    RejectReason.VERSION: _version,
    RejectReason.INTERVAL_MISMATCH: _interval,
    RejectReason.AUTH_TYPE_MISMATCH: _auth_type,
    RejectReason.AUTH_FAILURE: "say the same password on both ('auth_pass' there)",
    RejectReason.DESTINATION: _destination,
    RejectReason.CHECKSUM: _checksum,
    RejectReason.PACKET_LENGTH: _length,
    RejectReason.TTL: _TTL,
    RejectReason.UNKNOWN_PEER: _UNKNOWN_PEER,
    RejectReason.OWN_SOURCE: "two hosts have this address, or the link sends adverts back",
    RejectReason.ADDRESS_LIST: "give both the same virtual addresses",
    RejectReason.OWNER: "only one router may own the addresses: leave priority 255 to one",
    RejectReason.HMAC_MISSING: f"{_KEYS}, or HMACAuth(mode='permissive') until it has them",
    RejectReason.HMAC_STALE: "set both clocks (NTP), or HMACAuth(anti_replay='monotonic')",
    RejectReason.HMAC_UNKNOWN_KEY: _KEYS,
    RejectReason.HMAC_FAILURE: _KEYS,
    RejectReason.HMAC_REPLAY: "somebody repeats old adverts, or its clock was set back",
}
"""Who sends a wrong type, or no address, is no VRRP router, and there is nothing to say."""


def advice(reason: RejectReason, got: str | None, want: str | None) -> str | None:
    """What the reader can do, or ``None``."""
    found = _ADVICE.get(reason)
    if found is None or got is None:
        return None
    return found if isinstance(found, str) else found(got, want or "")
