"""Reads the file that an HMAC key is kept in."""

from __future__ import annotations

import logging
import os
import stat

from vrrpkit.errors import ConfigError

__all__ = ["read_key"]

log = logging.getLogger(__name__)

_SHORTEST, _LONGEST = 32, 64


def read_key(path: str | os.PathLike[str]) -> bytes:
    """The HMAC key in a file, for :class:`vrrpkit.HMACAuth` (keepalived: ``key 1 file:PATH``).

    The file holds the octets themselves, or ``hex:`` and hexadecimal digits; one newline at its end
    does not count. A file that its group or others may read earns a warning in the log.

    :raises ConfigError: the file cannot be read, or holds fewer than 32 or more than 64 octets.
    """
    name = os.fspath(path)
    try:
        with open(name, "rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            content = file.read(4 * _LONGEST)
    except OSError as problem:
        raise ConfigError(
            f"HMAC key file {name!r} cannot be read: {problem.strerror}; make one with "
            f"python -c 'import secrets; print(\"hex:\" + secrets.token_hex(32))' > {name}"
        ) from None
    if mode & (stat.S_IRGRP | stat.S_IROTH):
        log.warning(
            "HMAC key file %r can be read by others than its owner: chmod 600 %s", name, name
        )
    key = content.removesuffix(b"\n")
    if key.startswith(b"hex:"):
        try:
            key = bytes.fromhex(key[4:].decode("ascii"))
        except ValueError:
            raise ConfigError(
                f"HMAC key file {name!r}: after 'hex:' there must be pairs of hexadecimal digits"
            ) from None
    if not _SHORTEST <= len(key) <= _LONGEST:
        raise ConfigError(
            f"HMAC key file {name!r} holds {len(key)} octets; use {_SHORTEST} to {_LONGEST}, for "
            "example those of secrets.token_bytes(32)"
        )
    return key
