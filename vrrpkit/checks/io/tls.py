"""TLS around a conversation, and why it failed, in an operator's words."""

from __future__ import annotations

import contextlib
import functools
import os
import ssl
from pathlib import Path

from vrrpkit.checks.protocol.exchange import Exchange
from vrrpkit.errors import CheckFailed, ConfigError

__all__ = ["TLSExchange", "context"]

RECORD = 16384
"""Octets of plaintext that a TLS record has at most."""

# OpenSSL's X509_V_ERR_* numbers.
_NOT_YET_VALID = 9
_EXPIRED = 10
_UNKNOWN_ISSUER = {2, 18, 19, 20, 21}
_OTHER_NAME = {62, 64}


def context(
    *,
    verify: bool,
    ca: Path | None,
    cert: Path | None,
    key: Path | None,
    password: str | None,
    alpn: str | None = "http/1.1",
) -> ssl.SSLContext:
    """What connections are made with; the same one for the same files, as long as those do not
    change.

    :param verify: verify the certificate and its name.
    :param ca: file of PEM certificates to trust; ``None`` for the system's.
    :param cert: file with the client's certificate, and those of its chain.
    :param key: file with its private key, unless that is in ``cert``.
    :param password: of the private key.
    :param alpn: the protocol to name in the handshake, if any.
    :raises ConfigError: a file cannot be read, or is not what it should be.
    """
    stamps: list[tuple[int, int, int] | None] = []
    for option, path in (("ca", ca), ("cert", cert), ("key", key)):
        try:
            found = None if path is None else os.stat(path)
        except (OSError, ValueError) as problem:
            raise ConfigError(f"{option} '{path}' cannot be read: {_said(problem)}") from None
        stamps.append(found and (found.st_ino, found.st_mtime_ns, found.st_size))
    return _context(verify, ca, cert, key, password, alpn, tuple(stamps))


@functools.lru_cache(maxsize=64)
def _context(
    verify: bool,
    ca: Path | None,
    cert: Path | None,
    key: Path | None,
    password: str | None,
    alpn: str | None,
    stamps: tuple[object, ...],
) -> ssl.SSLContext:
    try:
        made = ssl.create_default_context(cafile=ca)
    except (OSError, ssl.SSLError) as problem:
        raise ConfigError(
            f"ca '{ca}' must be a readable file of PEM certificates: {_said(problem)}"
        ) from None
    if not verify:
        made.check_hostname = False
        made.verify_mode = ssl.CERT_NONE
    if alpn is not None:
        made.set_alpn_protocols([alpn])
    if cert is not None:
        try:
            # Without a password OpenSSL would ask for one on the terminal.
            made.load_cert_chain(cert, key, password or "")
        except (OSError, ssl.SSLError, ValueError) as problem:
            raise ConfigError(
                f"cert '{cert}' and key '{key or cert}' must be readable PEM files that belong "
                f"together, the key without a password or with the right one: {_said(problem)}"
            ) from None
    return made


def _said(problem: Exception) -> str:
    if isinstance(problem, ssl.SSLError):
        return (problem.reason or str(problem)).lower().replace("_", " ")
    if isinstance(problem, OSError):
        return problem.strerror or str(problem)
    return str(problem)


def _is_end(problem: ssl.SSLError) -> bool:
    closed = isinstance(problem, ssl.SSLEOFError | ssl.SSLZeroReturnError)
    return closed or problem.reason == "UNEXPECTED_EOF_WHILE_READING"


class TLSExchange:
    """A conversation held through TLS.

    :param name: the name or address that the certificate must be for; a name is also told to the
        server (SNI).
    """

    forgiving = False
    __slots__ = ("_arrived", "_inner", "_leaving", "_name", "_shaken", "_tls", "farewell", "passed")

    def __init__(self, settings: ssl.SSLContext, name: str, inner: Exchange) -> None:
        self._arrived = ssl.MemoryBIO()
        self._leaving = ssl.MemoryBIO()
        self._tls = settings.wrap_bio(self._arrived, self._leaving, server_hostname=name)
        self._name = name
        self._inner = inner
        self._shaken = False
        self.passed = False
        self.farewell = b""

    def opened(self) -> bytes:
        return self._advance()

    def received(self, data: bytes) -> bytes:
        if data:
            self._arrived.write(data)
        else:
            self._arrived.write_eof()
        return self._advance()

    def _advance(self) -> bytes:
        try:
            self._talk()
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLError as problem:
            if not (self._shaken and self._inner.forgiving and _is_end(problem)):
                raise CheckFailed(self._why(problem)) from None
            # It may have been cut off by somebody else; so may any that knows no TLS.
            self._inner.received(b"")
        said = self._leaving.read()
        if self._inner.passed:
            self.passed = True
            # The server's own goodbye is not waited for.
            with contextlib.suppress(ssl.SSLError):
                self._tls.unwrap()
            self.farewell = self._leaving.read()
        return said

    def _talk(self) -> None:
        tls, inner = self._tls, self._inner
        if not self._shaken:
            tls.do_handshake()
            self._shaken = True
            if first := inner.opened():
                tls.write(first)
        while not inner.passed:
            heard = tls.read(RECORD)
            if answer := inner.received(heard):
                tls.write(answer)
            if not heard:
                return

    def _why(self, problem: ssl.SSLError) -> str:
        if isinstance(problem, ssl.SSLCertVerificationError):
            return f"certificate not accepted: {self._unverified(problem)}"
        if _is_end(problem):
            if self._shaken:
                return "the server broke the TLS connection off"
            return "closed during the TLS handshake"
        stage = "connection" if self._shaken else "handshake"
        hint = ""
        if problem.reason in ("WRONG_VERSION_NUMBER", "HTTP_REQUEST", "RECORD_LAYER_FAILURE"):
            hint = "; the port seems not to speak TLS"
        elif "CERTIFICATE_REQUIRED" in (problem.reason or ""):
            hint = "; give cert= and key="
        return f"TLS {stage} failed: {_said(problem)}{hint}"

    def _unverified(self, problem: ssl.SSLCertVerificationError) -> str:
        code = problem.verify_code
        if code == _EXPIRED:
            return "it, or one that it depends on, has expired"
        if code == _NOT_YET_VALID:
            return "it is not valid yet"
        if code in _UNKNOWN_ISSUER:
            return f"unknown CA ({problem.verify_message}); give its certificate as ca="
        if code in _OTHER_NAME:
            return f"wrong name: it is not for {self._name!r}"
        return problem.verify_message
