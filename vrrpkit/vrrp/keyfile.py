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
    does not count. A file that its group or others may read or change, or that belongs to another
    user than root and that of this program, earns a warning in the log.

    :raises ConfigError: the file cannot be read, is no ordinary file, or holds fewer than 32 or
        more than 64 octets.
    """
    name = os.fspath(path)
    try:
        # A FIFO must not hold the program up, and what is looked at is what is read.
        descriptor = os.open(name, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            found = os.fstat(descriptor)
            content = os.read(descriptor, 4 * _LONGEST) if stat.S_ISREG(found.st_mode) else b""
        finally:
            os.close(descriptor)
    except OSError as problem:
        raise ConfigError(
            f"HMAC key file {name!r} cannot be read: {problem.strerror}; make one with "
            f"python -c 'import secrets; print(\"hex:\" + secrets.token_hex(32))' > {name}"
        ) from None
    if not stat.S_ISREG(found.st_mode):
        raise ConfigError(f"HMAC key file {name!r} is no ordinary file; write the key into one")
    if found.st_mode & (stat.S_IRWXG | stat.S_IRWXO):
        done = "read" if found.st_mode & (stat.S_IRGRP | stat.S_IROTH) else "changed"
        log.warning(
            "HMAC key file %r can be %s by others than its owner: chmod 600 %s", name, done, name
        )
    if found.st_uid not in (0, os.geteuid()):
        log.warning(
            "HMAC key file %r belongs to user %d, who knows and may change the key: chown %d %s",
            name,
            found.st_uid,
            os.geteuid(),
            name,
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
