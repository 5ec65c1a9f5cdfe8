"""Real servers as a virtual server takes them in: what it says about them, and which are there."""

from __future__ import annotations

import attrs

from vrrpkit.checks.base import Checker
from vrrpkit.checks.target import Target
from vrrpkit.errors import ConfigError
from vrrpkit.ipvs.model.pool import Member
from vrrpkit.values import IPAddress

__all__ = ["ConfiguredServer", "ConfiguredServers"]


@attrs.frozen
class ConfiguredServer:
    """A real server with everything that the virtual server says about it."""

    member: Member
    checks: tuple[Checker, ...]
    target: Target
    alpha: bool


class ConfiguredServers:
    """Which names and endpoints are taken."""

    def __init__(self, ports: frozenset[int]) -> None:
        self._ports = ports
        self._members: dict[str, Member] = {}
        self._taken: dict[IPAddress, set[int]] = {}

    @property
    def members(self) -> list[Member]:
        """The servers that are there, or about to be."""
        return list(self._members.values())

    def enter(self, member: Member) -> None:
        """Take the name and the endpoint of a server.

        :raises ConfigError: they are taken.
        """
        key = member.key
        taken = self._taken.get(key.address, set[int]())
        # Without a port of its own a server stands at the port of each service.
        same = self._ports if not key.port else {0} if key.port in self._ports else set[int]()
        if key.port in taken or taken & same:
            raise ConfigError(
                f"real server {member.name}: {key} is in the pool already; leave one of them out, "
                "and give the other the weight of both"
            )
        if member.name in self._members:
            raise ConfigError(f"real server {member.name} is there already; give it another name=")
        self._members[member.name] = member
        self._taken.setdefault(key.address, set()).add(key.port)

    def leave(self, member: Member) -> None:
        """Give the name and the endpoint back."""
        self._members.pop(member.name, None)
        taken = self._taken[member.key.address]
        taken.discard(member.key.port)
        if not taken:
            # Servers may come and go for years, each with an address of its own.
            del self._taken[member.key.address]
