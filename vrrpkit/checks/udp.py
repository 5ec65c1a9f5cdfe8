"""The UDP checker: a datagram, and what comes back."""

from __future__ import annotations

import re

import attrs

from vrrpkit.checks.base import Begin, CallbackChecker
from vrrpkit.checks.io.udp import ask
from vrrpkit.checks.target import Target
from vrrpkit.errors import CheckFailed, ConfigError
from vrrpkit.validate import flag_field, seconds_field, whole_number
from vrrpkit.values import hidden

__all__ = ["UDPChecker"]

LARGEST = 65507
"""Octets that a UDP datagram over IPv4 can carry."""

PATIENCE = 1.0
"""Seconds that an ICMP error is waited for unless something else is said."""

SHOWN = 40
"""Octets of an unexpected reply that the failure's text quotes."""

_DIGITS = re.compile("[0-9A-Fa-f]*")
_NIBBLES = re.compile("[0-9A-Fa-fXx]+")


def _octets_written(text: str) -> list[str]:
    """Two digits for each octet. As in keepalived, there may be blanks between octets, and a digit
    that is left alone before one is an octet of its own."""
    return [
        group[start : start + 2].rjust(2, "0")
        for group in text.split()
        for start in range(0, len(group), 2)
    ]


def _consists_of(digits: re.Pattern[str], value: object) -> bool:
    return isinstance(value, str) and digits.fullmatch("".join(value.split())) is not None


def _payload(value: bytes | str) -> bytes:
    if isinstance(value, bytes):
        return value
    if _consists_of(_DIGITS, value):
        return bytes.fromhex("".join(_octets_written(value)))
    raise ConfigError(
        "UDPChecker: payload must be octets or hexadecimal digits; write b'PING' or '50 49 4e 47' "
        "(what was given is not shown: it may be a secret)"
    )


def _pattern(value: bytes | str | None) -> bytes | str | None:
    if value is None or (isinstance(value, bytes) and value) or _consists_of(_NIBBLES, value):
        return value
    raise ConfigError(
        f"UDPChecker: reply {value!r} must be octets, or hexadecimal digits with x for any digit; "
        "write b'PONG' or '0001 xx 4x'"
    )


@attrs.frozen(kw_only=True)
class UDPChecker(CallbackChecker):
    """Sends a datagram (keepalived: ``UDP_CHECK``)::

        UDPChecker(payload="00 01 f3", reply="00 81 xx")
        UDPChecker(payload=b"PING", require_reply=True)
        UDPChecker()

    An ICMP error about it - nobody listens on the port, the host or the network cannot be reached -
    is a failure at once. A reply must have an acceptable length and match the pattern; only those
    from the address and port that were asked count. Without a required reply, no error within
    ``patience`` is a healthy server, and nothing but an error can show that it is not.

    :param payload: what to send: octets, or their hexadecimal digits (``payload``; keepalived sends
        random octets when it is not given). Empty is a datagram without content.
    :param reply: what must come back: octets, or hexadecimal digits where ``x`` stands for any
        digit (``require_reply``). A longer reply is compared as far as this goes; one that is
        shorter has failed, which keepalived lets pass.
    :param require_reply: a reply must come, whatever it contains. ``reply`` implies it.
    :param min_reply_length: the fewest octets that a reply may have, 0 to 65507
        (``min_reply_length``).
    :param max_reply_length: the most octets that a reply may have, 0 to 65507
        (``max_reply_length``).
    :param patience: seconds without an error after which a server that need not reply is healthy,
        less than ``timeout``; ``None`` is one second, or half of ``timeout`` if that is less
        (keepalived: ``connect_timeout``). That a host of the same link is gone the kernel says
        after three seconds: to see it, write ``timeout=5, patience=4``.
    :raises ConfigError: a value is unusable.
    """

    payload: bytes = attrs.field(default=b"", converter=_payload, repr=hidden)
    reply: bytes | str | None = attrs.field(default=None, converter=_pattern)
    require_reply: bool = attrs.field(default=False, validator=flag_field)
    min_reply_length: int = 0
    max_reply_length: int = 255
    patience: float | None = attrs.field(
        default=None, validator=attrs.validators.optional(seconds_field(0.001))
    )
    _value: int = attrs.field(init=False, repr=False, eq=False, default=0)
    _mask: int = attrs.field(init=False, repr=False, eq=False, default=0)
    _compared: int = attrs.field(init=False, repr=False, eq=False, default=0)

    def __attrs_post_init__(self) -> None:
        super().__attrs_post_init__()
        if len(self.payload) > LARGEST:
            raise ConfigError(
                f"UDPChecker: payload has {len(self.payload)} octets; a datagram carries at most "
                f"{LARGEST}"
            )
        self._check_lengths()
        self._compile()
        if self.patience is not None and self.patience >= self.timeout:
            raise ConfigError(
                f"UDPChecker: patience {self.patience:g} must be less than timeout "
                f"{self.timeout:g}, when an attempt without a verdict has failed"
            )

    def _check_lengths(self) -> None:
        for name in ("min_reply_length", "max_reply_length"):
            value: object = getattr(self, name)
            whole_number(f"UDPChecker: {name}", value, 0, LARGEST, "it is a number of octets")
        if self.min_reply_length > self.max_reply_length:
            raise ConfigError(
                f"UDPChecker: min_reply_length {self.min_reply_length} is above max_reply_length "
                f"{self.max_reply_length}, so no reply would do; exchange them"
            )

    def _compile(self) -> None:
        """Turn the pattern into numbers: one comparison does for all digits."""
        if self.reply is None:
            return
        reply = self.reply
        written = list(reply.hex()) if isinstance(reply, bytes) else _octets_written(reply.lower())
        digits = "".join(written)
        length = len(digits) // 2
        if length > self.max_reply_length:
            raise ConfigError(
                f"UDPChecker: reply has {length} octets, max_reply_length is "
                f"{self.max_reply_length}; raise it"
            )
        object.__setattr__(self, "_value", int(digits.replace("x", "0"), 16))
        mask = "".join("0" if digit == "x" else "f" for digit in digits)
        object.__setattr__(self, "_mask", int(mask, 16))
        object.__setattr__(self, "_compared", length)

    def prepare(self, target: Target) -> Begin:
        endpoint = self.endpoint(target)
        silence: float | None = None
        if not self.require_reply and self.reply is None:
            silence = self.patience
            if silence is None:
                silence = min(PATIENCE, self.timeout / 2)
        return lambda report, loop: ask(
            endpoint,
            self.payload,
            self._judge,
            report,
            # One octet more tells a reply that is too long.
            limit=self.max_reply_length + 1,
            silence=silence,
            loop=loop,
        )

    def _judge(self, reply: bytes) -> bool:
        if len(reply) > self.max_reply_length:
            raise CheckFailed(
                f"the reply has more than {self.max_reply_length} octets: {_shown(reply)}"
            )
        if len(reply) < self.min_reply_length:
            raise CheckFailed(
                f"the reply has {len(reply)} octets, expected at least {self.min_reply_length}: "
                f"{_shown(reply)}"
            )
        compared = reply[: self._compared]
        if len(compared) < self._compared or (
            int.from_bytes(compared, "big") & self._mask != self._value
        ):
            expected = self.reply.hex() if isinstance(self.reply, bytes) else self.reply
            raise CheckFailed(f"the reply is {_shown(reply)}, expected {expected}")
        return True


def _shown(reply: bytes) -> str:
    """In hexadecimal, as the pattern is written."""
    if not reply:
        return "empty"
    return f"{reply[:SHOWN].hex()}..." if len(reply) > SHOWN else reply.hex()
