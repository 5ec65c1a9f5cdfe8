"""Reads routes, rules and static addresses as ``ip`` and keepalived write them. Pure.

The text is only taken apart here; what its values may be is for whom they are given to.
"""

from __future__ import annotations

import contextlib
from collections.abc import Generator
from typing import TypedDict

from vrrpkit.errors import ConfigError

__all__ = [
    "AddressFields",
    "HopFields",
    "RouteFields",
    "RuleFields",
    "read_address",
    "read_route",
    "read_rule",
    "said_of",
]

_TYPES = frozenset({"unicast", "blackhole", "unreachable", "prohibit"})
_FAMILIES = {"inet": 4, "-4": 4, "inet6": 6, "-6": 6}


class HopFields(TypedDict, total=False):
    """What :class:`vrrpkit.routes.route.NextHop` takes."""

    via: str
    dev: str
    weight: int
    onlink: bool


class RouteFields(TypedDict, total=False):
    """What :class:`vrrpkit.routes.route.Route` takes, without its next hops."""

    destination: str
    via: str
    dev: str
    src: str
    table: str | int
    metric: int
    scope: str
    onlink: bool
    mtu: int
    type: str
    track: bool


class RuleFields(TypedDict, total=False):
    """What :class:`vrrpkit.routes.route.Rule` takes."""

    table: str | int
    priority: int
    source: str
    destination: str
    fwmark: int
    mask: int
    iif: str
    oif: str
    family: int


class AddressFields(TypedDict, total=False):
    """What :class:`vrrpkit.VIP` takes, as text."""

    interface: str
    dev: str
    label: str
    scope: str
    broadcast: str
    peer: str
    nodad: bool
    noprefixroute: bool


@contextlib.contextmanager
def said_of(text: str) -> Generator[None]:
    """Name the text in a complaint about one of its values."""
    try:
        yield
    except ConfigError as problem:
        said = str(problem)
        raise ConfigError(said if text in said else f"'{text}': {said}") from None


class _Words:
    """The words of a text, one after the other."""

    def __init__(self, text: object, what: str) -> None:
        if not isinstance(text, str):
            raise ConfigError(f"{what} {text!r} must be text")
        self.text = text
        self._words = text.split()
        self._place = 0

    def __bool__(self) -> bool:
        return self._place < len(self._words)

    @property
    def coming(self) -> str:
        """The next word, which is left for :meth:`take`; empty at the end."""
        return self._words[self._place] if self else ""

    def take(self) -> str:
        """The next word."""
        word = self.coming
        self._place += 1
        return word

    def value(self, of: str) -> str:
        """The word behind the word ``of``."""
        if not self:
            raise self.problem(f"a value must follow {of!r}")
        return self.take()

    def number(self, of: str) -> int:
        """The number behind the word ``of``."""
        return self.as_number(of, self.value(of))

    def as_number(self, of: str, word: str) -> int:
        """A word as a number."""
        try:
            return int(word, 0)
        except ValueError:
            raise self.problem(f"{of} {word!r} is no number") from None

    def table(self, of: str) -> str | int:
        """The table behind the word ``of``, by number or by name."""
        word = self.value(of)
        return int(word) if word.isdecimal() else word

    def problem(self, what: str) -> ConfigError:
        """A complaint."""
        return ConfigError(f"'{self.text}': {what}")


def read_route(text: object) -> tuple[RouteFields, list[HopFields]]:
    """Take apart ``[TYPE] PREFIX [via ADDRESS] [dev NAME] ... [nexthop ...]``.

    :raises ConfigError: a word is unknown, or a value is missing.
    """
    words = _Words(text, "route")
    fields: RouteFields = {}
    hops: list[HopFields] = []
    family = _FAMILIES.get(words.coming)
    if family is not None:
        words.take()
    while words:
        word = words.take()
        if word in _TYPES:
            fields["type"] = word
        elif word == "nexthop":
            hops.append(_hop(words))
        elif word == "or" and "via" in fields:
            # As keepalived wrote several gateways before it knew nexthop.
            hops.append({"via": fields.pop("via")})
            hops.append({"via": words.value("or")})
        elif not _route_word(words, word, fields):
            if "destination" in fields or word in {"src", "via"}:
                raise words.problem(_unknown_route_word(word))
            fields["destination"] = words.value("to") if word == "to" else word
    if "destination" not in fields:
        raise words.problem("the destination is missing; write '10.0.0.0/8 ...' or 'default ...'")
    if family is not None and fields["destination"] == "default":
        fields["destination"] = "::/0" if family == 6 else "0.0.0.0/0"
    return fields, hops


def _route_word(words: _Words, word: str, fields: RouteFields) -> bool:
    match word:
        case "via" | "gw":
            fields["via"] = _gateway(words, word)
        case "dev":
            fields["dev"] = words.value(word)
        case "src":
            fields["src"] = words.value(word)
        case "table":
            fields["table"] = words.table(word)
        case "metric" | "preference" | "priority":
            fields["metric"] = words.number(word)
        case "scope":
            fields["scope"] = _scope(words)
        case "mtu":
            fields["mtu"] = words.number(word)
        case "onlink":
            fields["onlink"] = True
        case "no_track":
            fields["track"] = False
        case _:
            return False
    return True


def _scope(words: _Words) -> str:
    scope = words.value("scope")
    return "global" if scope == "universe" else scope


def _gateway(words: _Words, word: str) -> str:
    address = words.value(word)
    return words.value(address) if address in _FAMILIES else address


def _unknown_route_word(word: str) -> str:
    if word in {"proto", "protocol"}:
        return f"leave out {word!r}: routes are marked as vrrpkit's own by their protocol, 112"
    return (
        f"{word!r} is not known here; a route may have via, dev, src, table, metric, scope, mtu, "
        "onlink, no_track and nexthop"
    )


def _hop(words: _Words) -> HopFields:
    hop: HopFields = {}
    while words and words.coming != "nexthop":
        match word := words.take():
            case "via" | "gw":
                hop["via"] = _gateway(words, word)
            case "dev":
                hop["dev"] = words.value(word)
            case "weight":
                hop["weight"] = words.number(word)
            case "onlink":
                hop["onlink"] = True
            case _:
                raise words.problem(
                    f"{word!r} is not known behind nexthop, which may have via, dev, weight and "
                    "onlink; write what concerns the whole route before the first nexthop"
                )
    return hop


def read_rule(text: object) -> RuleFields:
    """Take apart ``[from PREFIX] [to PREFIX] ... table TABLE priority NUMBER``.

    :raises ConfigError: a word is unknown, or a value is missing.
    """
    words = _Words(text, "rule")
    fields: RuleFields = {}
    while words:
        match word := words.take():
            case "inet" | "-4" | "inet6" | "-6":
                fields["family"] = _FAMILIES[word]
            case "from":
                fields["source"] = words.value(word)
            case "to":
                fields["destination"] = words.value(word)
            case "table" | "lookup":
                fields["table"] = words.table(word)
            case "priority" | "preference" | "pref" | "order":
                fields["priority"] = words.number(word)
            case "fwmark":
                mark, slash, mask = words.value(word).partition("/")
                fields["fwmark"] = words.as_number(word, mark)
                if slash:
                    fields["mask"] = words.as_number("mask", mask)
            case "iif" | "dev":
                fields["iif"] = words.value(word)
            case "oif":
                fields["oif"] = words.value(word)
            case _:
                raise words.problem(
                    f"{word!r} is not known here; a rule may have from, to, fwmark, iif, oif, "
                    "table and priority"
                )
    if "table" not in fields:
        raise words.problem("the table is missing; write for example 'table 100'")
    if "priority" not in fields:
        raise words.problem(
            "the priority is missing, and one that the kernel chooses is hardly what you want; "
            "write for example 'priority 1000' (the table main is looked up at 32766)"
        )
    return fields


def read_address(text: object) -> AddressFields:
    """Take apart ``ADDRESS/PREFIX dev NAME [label NAME] ...``.

    :raises ConfigError: a word is unknown, or a value is missing.
    """
    words = _Words(text, "static address")
    fields: AddressFields = {}
    while words:
        match word := words.take():
            case "dev":
                fields["dev"] = words.value(word)
            case "label":
                fields["label"] = words.value(word)
            case "scope":
                fields["scope"] = _scope(words)
            case "brd" | "broadcast":
                fields["broadcast"] = words.value(word)
            case "peer":
                fields["peer"] = words.value(word)
            case "nodad":
                fields["nodad"] = True
            case "noprefixroute":
                fields["noprefixroute"] = True
            case _ if "interface" not in fields:
                fields["interface"] = word
            case _:
                raise words.problem(
                    f"{word!r} is not known here; an address may have dev, label, scope, brd, "
                    "peer, nodad and noprefixroute"
                )
    if "interface" not in fields:
        raise words.problem("the address is missing; write for example '192.0.2.7/24 dev eth1'")
    return fields
