"""Rules as users write them. Pure."""

from __future__ import annotations

from collections.abc import Iterable

import attrs

from vrrpkit.errors import ConfigError
from vrrpkit.routes import syntax
from vrrpkit.routes.values import U32, IPNetwork, check_device, network, table
from vrrpkit.validate import listed, whole_number

__all__ = ["Rule", "parse_rules"]


def _selector(value: str | IPNetwork | None) -> IPNetwork | None:
    return None if value in (None, "all") else network(value, "prefix")


@attrs.frozen(kw_only=True)
class Rule:
    """Which routing table decides on which packets (keepalived: ``virtual_rules``,
    ``static_rules``).

    As text, :meth:`of` reads what ``ip rule add`` takes::

        Rule(source="10.0.0.0/8", table=100, priority=1000)
        Rule.of("from 10.0.0.0/8 table 100 priority 1000")

    :param table: where the packets are looked up: 1 to 4294967295, ``"main"``, ``"local"`` or
        ``"default"``.
    :param priority: 1 to 4294967295; rules are tried from the lowest on, and the table ``main`` is
        looked up at 32766. It must be given: one that the kernel chooses puts the rule in front of
        all others but ``local``, whatever they are.
    :param source: only packets from this prefix (``from``).
    :param destination: only packets to this prefix (``to``).
    :param fwmark: only packets with this firewall mark, 0 to 4294967295.
    :param mask: the bits of the mark that count; by default all.
    :param iif: only packets that came in by this interface; ``lo`` is this host itself.
    :param oif: only packets of sockets that are bound to this interface.
    :param family: 4 or 6, for a rule without prefixes; by default 4.
    :raises ConfigError: a value, or a combination, is unusable.
    """

    table: int = attrs.field(converter=table)
    priority: int
    source: IPNetwork | None = attrs.field(default=None, converter=_selector)
    destination: IPNetwork | None = attrs.field(default=None, converter=_selector)
    fwmark: int | None = None
    mask: int | None = None
    iif: str | None = None
    oif: str | None = None
    _family: int | None = attrs.field(default=None, alias="family")

    def __attrs_post_init__(self) -> None:
        whole_number("priority", self.priority, 1, U32, "rules are tried from the lowest on")
        for name, value in (("fwmark", self.fwmark), ("mask", self.mask)):
            if value is not None:
                whole_number(name, value, 0, U32, "32 bits")
        if self.mask is not None and self.fwmark is None:
            raise ConfigError(f"{self}: mask goes with fwmark")
        if self.fwmark is not None and self.mask is not None and self.fwmark & ~self.mask:
            raise ConfigError(
                f"{self}: the mask {self.mask:#x} leaves bits of the mark {self.fwmark:#x} out, so "
                "no packet would fit"
            )
        check_device(self.iif, "iif")
        check_device(self.oif, "oif")
        families: set[int] = {
            prefix.version for prefix in (self.source, self.destination) if prefix is not None
        }
        if self._family not in (None, 4, 6):
            raise ConfigError(f"family {self._family!r} must be 4 or 6")
        if self._family is not None:
            families.add(self._family)
        if len(families) > 1:
            raise ConfigError(f"{self}: IPv4 and IPv6 in one rule; write one for each")

    @property
    def family(self) -> int:
        """4 or 6."""
        for prefix in (self.source, self.destination):
            if prefix is not None:
                return prefix.version
        return self._family or 4

    @property
    def used_mask(self) -> int:
        """The mask as the kernel shows it; 0 without a mark."""
        if self.fwmark is None:
            return 0
        return U32 if self.mask is None else self.mask

    @property
    def described(self) -> str:
        """With the word for what it is."""
        return f"rule {self}"

    def __str__(self) -> str:
        bare = self.source is None and self.destination is None
        parts = ["inet6"] if bare and self._family == 6 else []
        parts.append(f"from {self.source or 'all'}")
        if self.destination is not None:
            parts.append(f"to {self.destination}")
        if self.fwmark is not None:
            mask = "" if self.mask is None else f"/{self.mask:#x}"
            parts.append(f"fwmark {self.fwmark:#x}{mask}")
        if self.iif is not None:
            parts.append(f"iif {self.iif}")
        if self.oif is not None:
            parts.append(f"oif {self.oif}")
        return " ".join([*parts, f"table {self.table} priority {self.priority}"])

    @classmethod
    def of(cls, value: str | Rule) -> Rule:
        """Accept whatever a user may write for a rule.

        :raises ConfigError: the text is none, or a value is unusable.
        """
        if isinstance(value, Rule):
            return value
        fields = syntax.read_rule(value)
        with syntax.said_of(value):
            return cls(**fields)


def parse_rules(values: Iterable[str | Rule]) -> tuple[Rule, ...]:
    """Read a list of rules.

    :raises ConfigError: one is unusable, or is named twice.
    """
    rules = tuple(Rule.of(value) for value in listed("rules", values))
    seen: set[Rule] = set()
    for rule in rules:
        if rule in seen:
            raise ConfigError(f"the rule '{rule}' is named twice")
        seen.add(rule)
    return rules
