"""Values that routes and rules have in common, checked. Pure."""

from __future__ import annotations

from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import TypeAlias

from vrrpkit.errors import ConfigError
from vrrpkit.validate import whole_number

__all__ = ["MAIN", "U32", "IPNetwork", "check_device", "network", "table"]

IPNetwork: TypeAlias = IPv4Network | IPv6Network

TABLES = {"default": 253, "main": 254, "local": 255}
"""The tables that the kernel itself has names for."""
MAIN = TABLES["main"]

U32 = 0xFFFFFFFF


def network(value: str | IPNetwork, what: str) -> IPNetwork:
    """A prefix.

    :param what: what to call it in a complaint.
    :raises ConfigError: it is none, has host bits or a zone.
    """
    try:
        prefix = ip_network(value)
    except ValueError as problem:
        hint = ""
        if "host bits" in str(problem):
            hint = f"; write {str(ip_network(value, strict=False))!r}"
        raise ConfigError(
            f"{what} {value!r} is not of the form '10.0.0.0/8' or '2001:db8::/32': {problem}{hint}"
        ) from None
    if isinstance(prefix, IPv6Network) and prefix.network_address.scope_id is not None:
        raise ConfigError(f"{what} '{prefix}' carries a zone; leave out the part after '%'")
    return prefix


def table(value: str | int) -> int:
    """The number of a routing table that is given by number or by name.

    :raises ConfigError: it is unknown, or out of range.
    """
    number = TABLES.get(value) if isinstance(value, str) else value
    if number is None:
        raise ConfigError(
            f"table {value!r} has no name here but {', '.join(TABLES)}; write its number, which "
            "/etc/iproute2/rt_tables tells"
        )
    whole_number("table", number, 1, U32, "254 is 'main'")
    return number


def check_device(name: str | None, what: str) -> None:
    """Refuse what cannot be the name of an interface; ``None`` is no interface.

    :raises ConfigError: it cannot.
    """
    if name is None:
        return
    if not 1 <= len(name.encode()) <= 15 or "/" in name or name.split() != [name]:
        raise ConfigError(f"{what} {name!r} must be the name of an interface: 1 to 15 octets")
