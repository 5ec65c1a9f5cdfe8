"""What a user may write about an HTTP request and its answer, and what is made of it. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from ipaddress import IPv6Address
from typing import TypeAlias, cast

from vrrpkit.errors import ConfigError
from vrrpkit.hostnames import fault_in_name, is_address
from vrrpkit.validate import is_whole

__all__ = [
    "DIGESTS",
    "PatternLike",
    "Status",
    "body_pattern",
    "digest_digits",
    "header_lines",
    "host_name",
    "http_version",
    "method_name",
    "request_path",
    "server_name",
    "spelled",
    "status_codes",
    "status_codes_if_any",
    "without_port",
]

Status: TypeAlias = int | Iterable[int | range]
"""A status code, a range of them, or several of both."""

PatternLike: TypeAlias = str | bytes | re.Pattern[str] | re.Pattern[bytes]
"""A regular expression over the body; one of text is applied to its UTF-8 form."""

DIGESTS = {32: "md5", 64: "sha256"}
"""Which digest it is, by its number of hexadecimal digits."""

PORT_LIMIT = 65535

_TOKEN = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
_DIGITS = re.compile(r"[0-9A-Fa-f]+")
_PATH = re.compile(r"/[!-\"$-~]*|\*")
_WHOLE_URL = re.compile(r"[A-Za-z]+://.*", re.DOTALL)
_HOST = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[^:/@\[\]]*)(?::([0-9]{1,5}))?")
_HEADER = re.compile(r"(?:[!-~\x80-\xff](?:[ \t!-~\x80-\xff]*[!-~\x80-\xff])?)?")
_OURS = {
    "host": "use host=",
    "connection": "each request has a connection of its own, which is closed",
    "content-length": "a check has no body to send",
    "transfer-encoding": "a check has no body to send",
}


def status_codes(value: Status) -> frozenset[int]:
    """The status codes meant.

    :raises ConfigError: one is no final status of HTTP.
    """
    found: set[int] = set()
    several: Iterable[object] = value if isinstance(value, Iterable) else (value,)
    for item in () if isinstance(value, str | bytes) else several:
        found.update(item if isinstance(item, range) else [_status(item)])
    if not found or min(found) < 200 or max(found) > 599:
        raise ConfigError(
            f"status {value!r} must be of the numbers 200 to 599; write 200, range(200, 300) or "
            "[200, range(301, 309)]"
        )
    return frozenset(found)


def _status(value: object) -> int:
    if not is_whole(value):
        raise ConfigError(
            f"status {value!r} must be a number; write 200, range(200, 300) or "
            "[200, range(301, 309)]"
        )
    return value


def spelled(codes: frozenset[int] | None) -> str:
    """Status codes for people: ``200-204, 301``."""
    runs: list[list[int]] = []
    for code in sorted(codes or ()):
        if runs and code == runs[-1][-1] + 1:
            runs[-1][1:] = [code]
        else:
            runs.append([code])
    return ", ".join("-".join(map(str, run)) for run in runs)


def status_codes_if_any(value: Status | None) -> frozenset[int] | None:
    """As :func:`status_codes`, where there may be none."""
    return None if value is None else status_codes(value)


def digest_digits(value: str | None) -> str | None:
    """A digest in small letters.

    :raises ConfigError: it is neither MD5 nor SHA-256.
    """
    if value is None:
        return None
    if not _is(value, _DIGITS) or len(value) not in DIGESTS:
        raise ConfigError(
            f"digest {value!r} must be 32 (MD5) or 64 (SHA-256) hexadecimal digits, as md5sum, "
            "genhash or sha256sum print them"
        )
    return value.lower()


def body_pattern(value: PatternLike | None, option: str = "regex") -> re.Pattern[bytes] | None:
    """A compiled expression over octets.

    :param option: what messages call it.
    :raises ConfigError: it is no regular expression.
    """
    if value is None:
        return None
    flags = 0
    source: str | bytes
    if isinstance(value, re.Pattern):
        flags, source = value.flags & ~re.UNICODE, value.pattern
    else:
        source = value
    try:
        return re.compile(source.encode() if isinstance(source, str) else source, flags)
    except (re.error, TypeError, ValueError) as problem:
        raise ConfigError(f"{option} {value!r} is no regular expression: {problem}") from None


def no_match_pattern(value: PatternLike | None) -> re.Pattern[bytes] | None:
    """As :func:`body_pattern`, for ``no_match``."""
    return body_pattern(value, "no_match")


def request_path(value: str) -> str:
    """A path that can stand in a request.

    :raises ConfigError: it cannot.
    """
    if _is(value, _WHOLE_URL):
        raise ConfigError(
            f"path {value!r} is a whole URL; write the part from the '/' after the host on: the "
            "address is the server's, and its name goes into host="
        )
    if not _is(value, _PATH):
        raise ConfigError(
            f"path {value!r} must begin with '/' and have visible ASCII characters only, without "
            "'#'; percent-encode the others: '/a%20b'"
        )
    return value


def host_name(value: str | None) -> str | None:
    """What can stand in a Host header.

    :raises ConfigError: it cannot.
    """
    if value is not None and (fault := _fault_in_host(value)):
        raise ConfigError(
            f"host {value!r} must be a name or an address, perhaps with a port: "
            f"'www.example.net', '[2001:db8::1]:8080'; {fault}; an international name is written "
            "in its xn-- form"
        )
    return value


def _fault_in_host(value: object) -> str | None:
    if not isinstance(value, str):
        return "it is no text"
    found = _HOST.fullmatch(value)
    if found is None:
        return f"write {f'[{value}]'!r}" if is_address(value) else fault_in_name(value)
    host, port = found.groups()
    if port is not None and int(port) > PORT_LIMIT:
        return f"there is no port above {PORT_LIMIT}"
    if host.startswith("["):
        return None if _is_ipv6(host[1:-1]) else f"{host} is no IPv6 address"
    return None if is_address(host) else fault_in_name(host)


def _is_ipv6(text: str) -> bool:
    try:
        IPv6Address(text)
    except ValueError:
        return False
    return True


def server_name(value: str | None) -> str | None:
    """What a certificate may be for, as TLS takes it (RFC 6066 section 3: without the dot at the
    end).

    :raises ConfigError: it is no name and no address.
    """
    if value is not None and (fault := _fault_in_server_name(value)):
        raise ConfigError(
            f"server_name {value!r} must be a name or an address, without brackets and port; "
            f"{fault}; an international name is written in its xn-- form"
        )
    return value


def _fault_in_server_name(value: object) -> str | None:
    if not isinstance(value, str):
        return "it is no text"
    if is_address(value):
        return None if "%" not in value else "leave out the part after '%'"
    if value.endswith("."):
        return f"write {value.removesuffix('.')!r}, without the dot at the end"
    return fault_in_name(value)


def without_port(host: str) -> str:
    """The name or the address in a Host header, as TLS takes it: without the dot at the end."""
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.partition(":")[0].removesuffix(".")


def method_name(value: str) -> str:
    """The name of a method.

    :raises ConfigError: it is none that a check can use.
    """
    if not _is(value, _TOKEN) or value == "CONNECT":
        raise ConfigError(f"method {value!r} is of no use in a check; write GET, HEAD, OPTIONS ...")
    return value


def header_lines(
    value: Mapping[str, str] | Iterable[tuple[str, str]],
) -> tuple[tuple[str, str], ...]:
    """Headers that can stand in a request.

    :raises ConfigError: one cannot, or is not the user's to set.
    """
    try:
        given = cast(Mapping[str, str], value).items() if isinstance(value, Mapping) else value
        pairs = tuple((name, content) for name, content in given)
    except (TypeError, ValueError):
        raise ConfigError(
            "headers must be a mapping of names to values; write {'X-Probe': '1'}"
        ) from None
    for name, content in pairs:
        if not _is(name, _TOKEN):
            raise ConfigError(f"header name {name!r} is none; write it as 'X-Probe'")
        if not _is(content, _HEADER):
            raise ConfigError(
                f"header {name}: its value must be one line of visible Latin-1 characters, "
                "without blanks or line ends around them (it is not shown: it may be a secret)"
            )
        if (why := _OURS.get(name.lower())) is not None:
            raise ConfigError(f"header {name} cannot be given: {why}")
    return pairs


def http_version(value: str) -> str:
    """A version that can be spoken.

    :raises ConfigError: it cannot.
    """
    if value not in ("1.0", "1.1"):
        raise ConfigError(f"version {value!r} must be '1.0' or '1.1'")
    return value


def _is(value: object, form: re.Pattern[str]) -> bool:
    return isinstance(value, str) and form.fullmatch(value) is not None
