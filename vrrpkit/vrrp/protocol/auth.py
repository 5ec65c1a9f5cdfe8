"""Who may speak: the plain-text password of VRRPv2, and the HMAC trailer
(draft-cassen-vrrp-auth-hmac). Pure.

A password keeps strangers out by accident only: it crosses the link in clear. The trailer proves
the sender and the age of every advert.
"""

from __future__ import annotations

import struct
from collections import OrderedDict
from collections.abc import Mapping
from typing import Literal, cast

import attrs

from vrrpkit.errors import ConfigError, DecodeError
from vrrpkit.validate import seconds, whole_number
from vrrpkit.values import IPAddress
from vrrpkit.vrrp.protocol.packet import RejectReason

__all__ = ["TRAILER", "HMACAuth", "PasswordAuth", "Signer", "Verifier"]

TRAILER = 28
"""Octets of an HMAC trailer."""

_HMAC_SHA256 = 1
_PREFIX = struct.Struct("!BBHQ")
_MULTICAST_SOURCES = 4
_WRAP = 1 << 64


@attrs.frozen
class PasswordAuth:
    """The plain-text password of VRRPv2 (RFC 2338 section 5.3.6.1; keepalived: ``auth_type PASS``).

    :param password: 1 to 8 octets; the same on every router of the group.
    :raises ConfigError: it is empty or longer than 8 octets (keepalived would cut it silently).
    """

    password: str = attrs.field(repr=False)

    def __attrs_post_init__(self) -> None:
        given = cast(object, self.password)
        # The value is never shown.
        if not isinstance(given, str) or not 1 <= len(given.encode()) <= 8:
            raise ConfigError(
                "a VRRPv2 password is text of 1 to 8 octets; keepalived uses the first 8 of a "
                "longer one"
            )

    @property
    def data(self) -> bytes:
        """The Authentication Data field."""
        return self.password.encode().ljust(8, b"\0")


def _key(value: bytes | str) -> bytes:
    if isinstance(value, bytes):
        return value
    given = cast(object, value)
    if not isinstance(given, str):
        raise ConfigError(
            "an HMAC key must be bytes, such as secrets.token_bytes(32), or text, such as 'hex:...'"
        )
    if value.startswith("hex:"):
        try:
            return bytes.fromhex(value[4:])
        except ValueError:
            raise ConfigError(
                "an HMAC key after 'hex:' must be pairs of hexadecimal digits"
            ) from None
    if value.startswith("file:"):
        raise ConfigError("read an HMAC key file with read_key(path) and pass its octets")
    return value.encode()


def _keys(value: Mapping[int, bytes | str]) -> dict[int, bytes]:
    if not hasattr(value, "items"):
        raise ConfigError("HMAC keys go by their ids: write HMACAuth({1: key}, active=1)")
    return {key_id: _key(key) for key_id, key in value.items()}


@attrs.frozen
class HMACAuth:
    """Sign every advert and verify every one heard (keepalived 2.4: ``auth_hmac``).

    :param keys: key id (1 to 255) to 32 to 64 octets, or text: ``"hex:..."`` or ASCII. Several
        during a rotation.
    :param active: the id to sign with.
    :param anti_replay: ``time`` needs clocks in step within ``window``; ``monotonic`` needs no
        clock, but trusts the first advert that it hears of a router.
    :param window: seconds an advert may be old or early, 1 to 300; ``None`` is max(3 x interval,
        5).
    :param mode: ``enforce`` accepts signed adverts only; ``permissive`` signs, and accepts unsigned
        ones too; ``receive-only`` signs nothing, accepts unsigned ones, and verifies what is
        signed. The last two are for the days of a migration.
    :raises ConfigError: a key, an id or the window is unusable.
    """

    keys: Mapping[int, bytes] = attrs.field(converter=_keys, repr=False)
    active: int = attrs.field(kw_only=True)
    anti_replay: Literal["time", "monotonic"] = attrs.field(default="time", kw_only=True)
    window: float | None = attrs.field(default=None, kw_only=True)
    mode: Literal["enforce", "permissive", "receive-only"] = attrs.field(
        default="enforce", kw_only=True
    )

    def __attrs_post_init__(self) -> None:
        for key_id, key in self.keys.items():
            whole_number("HMAC key id", key_id, 1, 255, "it travels in one octet")
            if not 32 <= len(key) <= 64:
                raise ConfigError(
                    f"HMAC key {key_id} has {len(key)} octets; use 32 to 64, for example those of "
                    "secrets.token_bytes(32)"
                )
        if self.active not in self.keys:
            raise ConfigError(
                f"active HMAC key {self.active} is not among the keys {sorted(self.keys)}"
            )
        if self.anti_replay not in ("time", "monotonic"):
            raise ConfigError(f"anti_replay {self.anti_replay!r} must be 'time' or 'monotonic'")
        if self.mode not in ("enforce", "permissive", "receive-only"):
            raise ConfigError(
                f"HMAC mode {self.mode!r} must be 'enforce', 'permissive' or 'receive-only'"
            )
        if self.window is not None:
            seconds("HMAC window", self.window, 1, 300)

    def window_for(self, interval: float) -> float:
        """The time window in seconds at an advertisement interval of ``interval`` seconds."""
        return max(3 * interval, 5.0) if self.window is None else self.window


def _later(one: int, other: int) -> bool:
    """Serial number arithmetic (RFC 1982): whether ``one`` comes after ``other``, across a wrap."""
    return 0 < (one - other) % _WRAP < _WRAP // 2


def _moment(wall: float) -> int:
    """A wall clock time as a sequence number: 32 bits of seconds, 16 of their fraction, 16 of
    counter."""
    return (int(wall * 65536) << 16) % _WRAP


def _seconds_apart(sequence: int, wall: float) -> float:
    """How far the sender's clock was ahead of ``wall`` when it made ``sequence``."""
    difference = (sequence - _moment(wall)) % _WRAP
    if difference >= _WRAP // 2:
        difference -= _WRAP
    return difference / (1 << 32)


def digest(key: bytes, message: bytes, source: IPAddress, prefix: bytes) -> bytes:
    """The truncated HMAC-SHA256 of a message (its checksum read as zero) and the first 12 octets of
    its trailer."""
    identity = bytes((source.version, message[0] >> 4, message[1], 0)) + source.packed.ljust(
        16, b"\0"
    )
    covered = identity + message[:6] + b"\0\0" + message[8:] + prefix + bytes(16)
    # Imported at need: most programs sign nothing, and it is a noticeable part of their start.
    import hmac

    return hmac.digest(key, covered, "sha256")[:16]


def _equal(one: bytes, other: bytes) -> bool:
    """Compare in a time that does not tell where they differ."""
    import hmac

    return hmac.compare_digest(one, other)


class Signer:
    """Makes the trailers of one virtual router; keeps the last sequence number."""

    def __init__(self, auth: HMACAuth, interval: float) -> None:
        self._auth = auth
        self._window = auth.window_for(interval)
        self._last: int | None = None

    def sign(self, message: bytes, source: IPAddress, wall: float) -> bytes:
        """The trailer for ``message``; ``wall`` is the wall clock, seconds since the Unix epoch."""
        sequence = _moment(wall)
        last = self._last
        if last is not None and not _later(sequence, last):
            stepped_back = (
                self._auth.anti_replay == "time" and _seconds_apart(last, wall) > self._window
            )
            sequence = sequence if stepped_back else (last + 1) % _WRAP
        self._last = sequence
        prefix = _PREFIX.pack(_HMAC_SHA256, self._auth.active, 0, sequence)
        return prefix + digest(self._auth.keys[self._auth.active], message, source, prefix)


class Verifier:
    """Checks the trailers of one virtual router; keeps the newest sequence number of each sender.

    :param sources: how many senders are remembered, the least recently heard forgotten first.
    """

    def __init__(self, auth: HMACAuth, interval: float, sources: int = _MULTICAST_SOURCES) -> None:
        self._auth = auth
        self._window = auth.window_for(interval)
        self._limit = max(1, sources)
        self._marks: OrderedDict[IPAddress, int] = OrderedDict()

    def verify(self, message: bytes, trailer: bytes, source: IPAddress, wall: float) -> float:
        """Accept a message or raise; returns by how many seconds the sender's clock is ahead of
        ``wall``.

        :raises DecodeError: ``HMAC_MISSING``, ``HMAC_MALFORMED``, ``HMAC_STALE``,
            ``HMAC_UNKNOWN_KEY``, ``HMAC_FAILURE`` or ``HMAC_REPLAY``, in this order of checks.
        """
        if not trailer:
            if self._auth.mode == "enforce":
                raise DecodeError(RejectReason.HMAC_MISSING, "no trailer", "a signed advert")
            return 0.0
        kind, key_id, reserved, sequence = _PREFIX.unpack_from(trailer)
        if kind != _HMAC_SHA256 or reserved != 0:
            raise DecodeError(
                RejectReason.HMAC_MALFORMED,
                f"type {kind}, reserved {reserved}",
                f"type {_HMAC_SHA256}, reserved 0",
            )
        timed = self._auth.anti_replay == "time"
        ahead = _seconds_apart(sequence, wall)
        if timed and abs(ahead) > self._window:
            raise DecodeError(
                RejectReason.HMAC_STALE, f"{ahead:+.1f} s", f"within {self._window:g} s"
            )
        key = self._auth.keys.get(key_id)
        if key is None:
            raise DecodeError(RejectReason.HMAC_UNKNOWN_KEY, key_id, sorted(self._auth.keys))
        expected = digest(key, message, source, trailer[: _PREFIX.size])
        if not _equal(expected, trailer[_PREFIX.size :]):
            raise DecodeError(RejectReason.HMAC_FAILURE, "another HMAC", f"that of key {key_id}")
        mark = self._marks.get(source)
        if mark is not None and timed and abs(_seconds_apart(mark, wall)) > self._window:
            mark = None
        if mark is not None and not _later(sequence, mark):
            raise DecodeError(RejectReason.HMAC_REPLAY, f"{sequence:016x}", f"after {mark:016x}")
        self._marks[source] = sequence
        self._marks.move_to_end(source)
        if len(self._marks) > self._limit:
            self._marks.popitem(last=False)
        return ahead if timed else 0.0

    def skewed(self, ahead: float) -> bool:
        """Whether a clock difference is worth a warning: more than half of the window."""
        return abs(ahead) > self._window / 2
