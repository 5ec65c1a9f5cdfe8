"""What happened on a :class:`vrrpkit.testing.Lan`, in order, and how it prints. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TypeAlias

import attrs

from vrrpkit.publishing import EventsLost
from vrrpkit.values import IPAddress, State
from vrrpkit.vrrp.config import VRRPInstanceConfig
from vrrpkit.vrrp.protocol.effects import Effect, Publish, SendAdvert
from vrrpkit.vrrp.protocol.events import (
    AddressesInPlace,
    AddressesRefused,
    AddressLost,
    AdvertAnomaly,
    AdvertRejected,
    AnotherMaster,
    ClockSkew,
    FaultsChanged,
    ForeignAddress,
    MasterChanged,
    PriorityChanged,
    ReceiveOverflow,
    RouteLost,
    RouterEvent,
    SendFailed,
    Stalled,
    Transition,
    WeightTooSmall,
)
from vrrpkit.vrrp.protocol.inputs import Input

__all__ = [
    "AddressesChanged",
    "Announced",
    "Arrived",
    "Conditioned",
    "Crashed",
    "Cut",
    "Entry",
    "Healed",
    "Killed",
    "LanEvent",
    "Lost",
    "MachineStep",
    "Noted",
    "Paused",
    "Plugged",
    "Resumed",
    "Sent",
    "Started",
    "Timeline",
    "Unplugged",
]


@attrs.frozen
class Started:
    """A router began to run on a host."""

    host: str
    config: VRRPInstanceConfig

    def __str__(self) -> str:
        where = "" if self.host == self.config.name else f" on {self.host}"
        return f"started{where} (priority {self.config.priority})"


@attrs.frozen
class MachineStep:
    """A router's machine took an event in."""

    event: Input
    effects: tuple[Effect, ...]
    state: State
    """Its state afterwards."""
    priority: int
    """Its effective priority afterwards."""


@attrs.frozen
class Noted:
    """A router published something that its machine does not know, such as a rejected advert."""

    notice: RouterEvent | EventsLost


@attrs.frozen
class Crashed:
    """A host lost its power."""

    def __str__(self) -> str:
        return "*** crash"


@attrs.frozen
class Killed:
    """The process on a host was killed, and the host goes on."""

    def __str__(self) -> str:
        return "*** kill -9"


@attrs.frozen
class Paused:
    """The process on a host stands still."""

    def __str__(self) -> str:
        return "*** paused"


@attrs.frozen
class Resumed:
    """It goes on."""

    def __str__(self) -> str:
        return "*** resumed"


@attrs.frozen
class Unplugged:
    """A host lost its carrier."""

    def __str__(self) -> str:
        return "*** unplugged"


@attrs.frozen
class Plugged:
    """It has its carrier again."""

    def __str__(self) -> str:
        return "*** plugged in"


@attrs.frozen
class Cut:
    """Nothing goes from one host to another any more."""

    to: str
    one_way: bool

    def __str__(self) -> str:
        return f"*** cut {'->' if self.one_way else '<->'} {self.to}"


@attrs.frozen
class Healed:
    """Cuts ended: those with ``other``, those of one host, or all (without a router)."""

    other: str | None

    def __str__(self) -> str:
        return "*** healed" if self.other is None else f"*** healed <-> {self.other}"


@attrs.frozen
class Conditioned:
    """The link became better or worse."""

    loss: float
    transit: float
    """Seconds that a message takes at most."""

    def __str__(self) -> str:
        return f"*** loss {self.loss:g}, transit at most {self.transit:g} s"


@attrs.frozen
class Lost:
    """A message of one host to another was lost by chance."""

    to: str

    def __str__(self) -> str:
        return f"advert to {self.to} lost"


@attrs.frozen
class Sent:
    """A router put an advert on the link."""

    priority: int

    def __str__(self) -> str:
        return f"sends priority {self.priority}"


@attrs.frozen
class Arrived:
    """An advert of a router reached a host where somebody listens to its group and VRID."""

    sender: str
    """The router that sent it."""
    priority: int
    interval: float
    """The advertisement interval that it names, in seconds."""
    sent: float
    """When it left, in seconds of the event loop."""

    def __str__(self) -> str:
        return f"priority {self.priority} of {self.sender} arrives"


@attrs.frozen
class Announced:
    """A host told the link that an address is there (gratuitous ARP, neighbour advertisement)."""

    address: IPAddress

    def __str__(self) -> str:
        return f"announces {self.address}"


@attrs.frozen
class AddressesChanged:
    """The addresses that virtual routers have put on a host are these now."""

    added: tuple[IPAddress, ...]
    removed: tuple[IPAddress, ...]
    held: frozenset[IPAddress]
    foreign: frozenset[IPAddress] = frozenset()
    """Those that are there besides, put there by somebody else."""

    def __str__(self) -> str:
        added = [f"+{address}" for address in self.added]
        return " ".join(added + [f"-{address}" for address in self.removed])


LanEvent: TypeAlias = (
    Started
    | MachineStep
    | Noted
    | Crashed
    | Killed
    | Paused
    | Resumed
    | Unplugged
    | Plugged
    | Cut
    | Healed
    | Conditioned
    | Lost
    | Sent
    | Arrived
    | Announced
    | AddressesChanged
)


@attrs.frozen
class Entry:
    """One thing that happened."""

    at: float
    """Seconds of the event loop."""
    who: str | None
    """A router or its host; ``None`` for what concerns the link."""
    what: LanEvent


class Timeline(Sequence[Entry]):
    """Entries in the order in which they happened. ``str()`` of it is meant to be read::

            0.000  a  started (priority 150)
            0.000  b  started (priority 100)
            3.414  a  BACKUP -> MASTER: no-response
            3.414  a  +192.0.2.10

    :param start: what prints as second 0.
    :param adverts_from: since when every advert and every announcement is among the entries;
        ``None``: they are not.
    """

    def __init__(
        self, entries: Iterable[Entry], start: float = 0.0, adverts_from: float | None = None
    ) -> None:
        self._entries = tuple(entries)
        self.start = start
        self.adverts_from = adverts_from

    def __len__(self) -> int:
        return len(self._entries)

    def __getitem__(self, index: int) -> Entry:  # type: ignore[override]
        return self._entries[index]

    def __str__(self) -> str:
        return self.text()

    def since(self, at: float) -> Timeline:
        """What happened at and after ``at``, in seconds of the event loop."""
        entries = (entry for entry in self if entry.at >= at)
        return Timeline(entries, self.start, self.adverts_from)

    def of(self, *names: str) -> Timeline:
        """What happened to these routers."""
        return Timeline((entry for entry in self if entry.who in names), self.start)

    def text(self, *, adverts: bool = False) -> str:
        """The timeline to print.

        :param adverts: also show every advert that was sent or lost; equal ones are counted.
        """
        rows = [
            (entry.at - self.start, entry.who or "", line)
            for entry in self
            for line in _lines(entry.what, adverts)
        ]
        width = max((len(who) for _at, who, _line in rows), default=0)
        return "\n".join(
            f"{at:9.3f}  {who:{width}}  {line}".rstrip() for at, who, line in _folded(rows)
        )


def _folded(rows: list[tuple[float, str, str]]) -> Iterable[tuple[float, str, str]]:
    """Rows that repeat what the same router just did become a number on the first one."""
    last: dict[str, int] = {}
    folded: list[tuple[float, str, str]] = []
    counts: list[int] = []
    for at, who, line in rows:
        index = last.get(who)
        if index is not None and line.startswith("advert") and folded[index][2] == line:
            counts[index] += 1
            continue
        if not line.startswith("advert"):
            last.clear()
        last[who] = len(folded)
        folded.append((at, who, line))
        counts.append(1)
    for (at, who, line), count in zip(folded, counts, strict=True):
        yield at, who, line if count == 1 else f"{line} ({count} times)"


def _lines(what: LanEvent, adverts: bool) -> list[str]:
    match what:
        case MachineStep():
            lines: list[str] = []
            for effect in what.effects:
                if isinstance(effect, Publish):
                    lines.append(_notice(effect.notice))
                elif isinstance(effect, SendAdvert) and (adverts or effect.priority == 0):
                    lines.append(f"advert with priority {effect.priority}")
            return lines
        case Noted():
            return [_notice(what.notice)]
        case Lost():
            return [str(what)] if adverts else []
        case Sent() | Arrived() | Announced():
            return []
        case AddressesChanged() if not (what.added or what.removed):
            return []
        case _:
            return [str(what)]


def _notice(notice: RouterEvent | EventsLost) -> str:
    match notice:
        case Transition():
            faults = f" ({', '.join(sorted(notice.faults))})" if notice.faults else ""
            return f"{notice.previous} -> {notice.state}: {notice.reason}{faults}"
        case MasterChanged():
            return f"follows {notice.master} (priority {notice.priority})"
        case AnotherMaster():
            return f"hears another master, {notice.peer} (priority {notice.priority})"
        case AdvertRejected():
            why = f"{notice.reason}: got {notice.got}, want {notice.want}"
            return f"rejects {notice.count} from {notice.peer}: {why}"
        case AdvertAnomaly():
            return f"{notice.anomaly} from {notice.peer}: got {notice.got}, want {notice.want}"
        case PriorityChanged():
            return f"priority {notice.previous} -> {notice.priority}"
        case FaultsChanged():
            return f"faults: {', '.join(sorted(notice.faults)) or 'none'}"
        case WeightTooSmall():
            return f"the weight {notice.weight} of {notice.tracker} is less than {notice.enough}"
        case Stalled():
            return f"stood still for {notice.seconds:.3f} s"
        case ReceiveOverflow():
            return "was deaf"
        case AddressLost():
            return f"lost {notice.address}, {notice.action}"
        case RouteLost():
            return f"lost {notice.route}, {notice.action}"
        case AddressesInPlace():
            return "has its addresses"
        case AddressesRefused():
            return (
                f"kernel refused {', '.join(notice.failures)}; tries again in {notice.retry_in:g} s"
            )
        case ForeignAddress():
            return f"{notice.address}/{notice.prefix} is on {notice.device}: {notice.action}"
        case SendFailed():
            return f"cannot send: {notice.error}"
        case ClockSkew():
            return f"clock of {notice.peer} is ahead by {notice.seconds:g} s"
        case EventsLost():
            return f"{notice.count} events were dropped"
