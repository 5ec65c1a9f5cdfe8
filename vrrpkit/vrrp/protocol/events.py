"""What a virtual router tells its users: one frozen class per kind of event. Pure.

Every event carries ``router``, the name of the instance, and ``at``, seconds of the clock of its
interface: CLOCK_BOOTTIME on a host, the event loop's in memory. ``str()`` of one is a line for a
log.
"""

from __future__ import annotations

import enum
from typing import TypeAlias

import attrs

from vrrpkit.values import IPAddress, Stamped, State
from vrrpkit.vrrp.protocol.advice import advice
from vrrpkit.vrrp.protocol.packet import RejectReason

__all__ = [
    "AddressLost",
    "AddressesInPlace",
    "AddressesRefused",
    "AdvertAnomaly",
    "AdvertRejected",
    "Anomaly",
    "AnotherMaster",
    "ClockSkew",
    "FaultsChanged",
    "ForeignAddress",
    "MasterChanged",
    "PriorityChanged",
    "ReceiveOverflow",
    "RouteLost",
    "RouterEvent",
    "SendFailed",
    "Stalled",
    "Transition",
    "TransitionReason",
    "WeightTooSmall",
]


class TransitionReason(enum.StrEnum):
    """Why a router changed its state (RFC 8347: ``last-event`` and ``new-master-reason``)."""

    STARTUP = "startup"
    OWNER = "owner"
    """Started, or recovered, as the owner of the addresses."""
    NO_RESPONSE = "no-response"
    """The master fell silent for Master_Down_Interval."""
    RELEASED = "released"
    """The master said that it leaves (priority 0)."""
    UNREACHABLE = "unreachable"
    """The master cannot be reached any more, said BFD, and kept silent for a skew time."""
    PREEMPTED = "preempted"
    """A master of lower priority was replaced."""
    PROMOTED = "promoted"
    """``promote()`` was called."""
    HIGHER_PRIORITY = "higher-priority"
    """Another master has the higher priority."""
    TIE = "tie"
    """Another master has the same priority and the higher address."""
    DEMOTED = "demoted"
    """``demote()`` was called."""
    STALLED = "stalled"
    """This process stood still so long that another router may be master by now."""
    ADDRESS_LOST = "address-lost"
    """Somebody else removed a virtual address, and the policy was to step down."""
    ROUTE_LOST = "route-lost"
    """Somebody else removed a virtual route or rule, and the policy was to step down."""
    FAULT = "fault"
    """Something makes the router unfit; :attr:`Transition.faults` says what."""
    FAULT_CLEARED = "fault-cleared"
    """Nothing does any more."""
    SYNC_GROUP = "sync-group"
    """Another member of the sync group stopped being MASTER."""
    SHUTDOWN = "shutdown"
    """The program left the router."""


class Anomaly(enum.StrEnum):
    """Something wrong with an advert that was accepted all the same."""

    INTERVAL = "interval"
    """Version 3: the master's interval is not ours; it is followed (RFC 9568 section 7.1)."""
    ADDRESS_LIST = "address-list"
    """The sender announces other addresses than we do."""
    FIRST_NOT_LINK_LOCAL = "first-address-not-link-local"
    """IPv6: the first address must be link-local (RFC 9568 section 5.2.9)."""
    SOURCE_NOT_LINK_LOCAL = "source-not-link-local"
    """IPv6 multicast: adverts must come from a link-local address (RFC 9568 section 5.1.2.1)."""
    ANOTHER_OWNER = "another-owner"
    """Two routers claim to own the addresses: one of them is misconfigured."""
    DUPLICATE_ADDRESS = "duplicate-address"
    """The sender has our priority and our own address: reflected, or an address used twice."""


def _times(count: int) -> str:
    return f" ({count} times)" if count > 1 else ""


def _told(what: str, event: AdvertRejected | AdvertAnomaly) -> str:
    """What was wrong with adverts, in words."""
    got = "" if event.got is None else f", got {event.got}"
    want = "" if event.want is None else f", want {event.want}"
    return f"{what}{got}{want}{_times(event.count)}"


@attrs.frozen(kw_only=True, eq=False, repr=False)
class Transition(Stamped):
    """The router changed its state."""

    router: str
    at: float
    previous: State
    state: State
    reason: TransitionReason
    priority: int
    """The effective priority of this router, 1 to 255."""
    master: IPAddress | None = None
    """The master that is followed, in BACKUP, once one was heard."""
    faults: frozenset[str] = frozenset()
    """What makes the router unfit."""

    def __str__(self) -> str:
        detail = f" ({', '.join(sorted(self.faults))})" if self.faults else ""
        return f"{self.router}: {self.previous} -> {self.state}: {self.reason}{detail}"


@attrs.frozen(kw_only=True, eq=False, repr=False)
class MasterChanged(Stamped):
    """A BACKUP follows another master than before."""

    router: str
    at: float
    previous: IPAddress | None
    """The one before; ``None``: none was heard."""
    master: IPAddress
    priority: int
    """The new one's, 1 to 255."""

    def __str__(self) -> str:
        before = "" if self.previous is None else f", no longer {self.previous}"
        return f"{self.router}: follows {self.master}, priority {self.priority}{before}"


@attrs.frozen(kw_only=True, eq=False, repr=False)
class WeightTooSmall(Stamped):
    """The priority of another router was heard, and the weight of a tracker cannot bridge the gap:
    with all other trackers good, a bad signal of that one alone will not move the addresses there.

    What a tracker of the other router has taken off its priority meanwhile is not known here. A
    tracker whose signal is a number is never doubted."""

    router: str
    at: float
    tracker: str
    weight: int
    enough: int
    """The least amount of a weight below 0 that could; none can if it is above 253."""
    priority: int
    """This router's configured priority."""
    other: int
    """The other router's priority, the highest that was heard."""
    adds: bool = False
    """Whether the weight is added while the signal is good: however great, it then takes nothing
    off the configured priority."""

    def __str__(self) -> str:
        if self.enough > 253:
            advice = "it takes weight 0 (FAULT), or a lower priority"
        elif self.adds:
            advice = f"that only adds: it takes {-self.enough} or less, or a lower priority"
        else:
            advice = f"it takes {self.enough} or more"
        return (
            f"{self.router}: the weight {self.weight} of {self.tracker} cannot hand the addresses "
            f"from priority {self.priority} to the router of priority {self.other}; {advice}"
        )


@attrs.frozen(kw_only=True, eq=False, repr=False)
class AnotherMaster(Stamped):
    """A MASTER heard a master that loses against it. Seen on every takeover; more than a few mean a
    split brain."""

    router: str
    at: float
    peer: IPAddress
    priority: int
    count: int = 1
    """How many of its adverts since the last such event of this peer: one a second is told."""

    def __str__(self) -> str:
        times = _times(self.count)
        return f"{self.router}: {self.peer} is MASTER too, with priority {self.priority}{times}"


@attrs.frozen(kw_only=True, eq=False, repr=False)
class AdvertRejected(Stamped):
    """An advert was dropped. At most one such event a second for each pair of reason and peer."""

    router: str
    at: float
    reason: RejectReason
    peer: IPAddress
    got: str | None = None
    """What was in the advert, where that can be told."""
    want: str | None = None
    """What should have been."""
    count: int = 1
    """How many since the last such event of this pair."""

    def __str__(self) -> str:
        todo = "" if self.advice is None else f": {self.advice}"
        return (
            f"{self.router}: rejected an advert from {self.peer}: {_told(self.reason, self)}{todo}"
        )

    @property
    def advice(self) -> str | None:
        """What the reader can do about it, if something can be said."""
        return advice(self.reason, self.got, self.want)


@attrs.frozen(kw_only=True, eq=False, repr=False)
class AdvertAnomaly(Stamped):
    """An advert was accepted although something is wrong with it. At most one a second for each
    pair."""

    router: str
    at: float
    anomaly: Anomaly
    peer: IPAddress
    got: str | None = None
    """What was in the advert, where that can be told."""
    want: str | None = None
    """What was expected."""
    count: int = 1
    """How many since the last such event of this pair."""

    def __str__(self) -> str:
        return f"{self.router}: accepted an advert from {self.peer}: {_told(self.anomaly, self)}"


@attrs.frozen(kw_only=True, eq=False, repr=False)
class PriorityChanged(Stamped):
    """The effective priority changed."""

    router: str
    at: float
    previous: int
    priority: int
    source: str = ""
    """Why: what the priority is made up of now (``configured 150, script haproxy -60``), or
    ``demote()`` and ``the end of demote()``."""

    def __str__(self) -> str:
        why = f": {self.source}" if self.source else ""
        return f"{self.router}: priority {self.priority}, no longer {self.previous}{why}"


@attrs.frozen(kw_only=True, eq=False, repr=False)
class FaultsChanged(Stamped):
    """The set of reasons that make the router unfit changed."""

    router: str
    at: float
    faults: frozenset[str]

    def __str__(self) -> str:
        return f"{self.router}: faults: {', '.join(sorted(self.faults)) or 'none'}"


@attrs.frozen(kw_only=True, eq=False, repr=False)
class Stalled(Stamped):
    """This process, or the machine, stood still for ``seconds``."""

    router: str
    at: float
    seconds: float

    def __str__(self) -> str:
        return f"{self.router}: this process stood still for {self.seconds:.3g} s"


@attrs.frozen(kw_only=True, eq=False, repr=False)
class ReceiveOverflow(Stamped):
    """The kernel dropped adverts before they could be read, so silence proves nothing: deadlines
    start again."""

    router: str
    at: float

    def __str__(self) -> str:
        return f"{self.router}: the kernel dropped adverts; all deadlines start again"


@attrs.frozen(kw_only=True, eq=False, repr=False)
class AddressLost(Stamped):
    """Somebody else removed a virtual address while this router was MASTER, or has it too."""

    router: str
    at: float
    address: IPAddress
    action: str
    """``reinstated``, ``stepped down``, ``ignored``, or of a duplicate ``checked again``: when that
    fails too, :class:`AddressesRefused` follows."""
    duplicate: bool = False
    """Nobody removed it, but duplicate address detection has found it elsewhere on the link."""

    def __str__(self) -> str:
        what = "somebody else on the link has" if self.duplicate else "somebody removed"
        return f"{self.router}: {what} {self.address}: {self.action}"


@attrs.frozen(kw_only=True, eq=False, repr=False)
class RouteLost(Stamped):
    """Somebody else removed a virtual route or rule while this router was MASTER."""

    router: str
    at: float
    route: str
    """As text, with the word ``route`` or ``rule`` in front."""
    action: str
    """``reinstated``, ``stepped down`` or ``ignored``."""

    def __str__(self) -> str:
        return f"{self.router}: somebody removed {self.route}: {self.action}"


@attrs.frozen(kw_only=True, eq=False, repr=False)
class AddressesInPlace(Stamped):
    """A router that has become MASTER has all its addresses, routes and rules: programs may bind
    the addresses. Its change of state was told before, when the advert that takes them left."""

    router: str
    at: float

    def __str__(self) -> str:
        return f"{self.router}: all addresses are in place"


@attrs.frozen(kw_only=True, eq=False, repr=False)
class AddressesRefused(Stamped):
    """The kernel refused virtual addresses, or routes or rules.

    The router is in FAULT until it may try again. While another one is MASTER then, it is left in
    place until a link, an address or a route of this host has changed. If that one falls silent or
    leaves, this router takes over with what it can have, announces priority 1 so that a better one
    may take that from it, and asks for the rest again and again.
    """

    router: str
    at: float
    failures: tuple[str, ...]
    """One text for each: what was refused, and why."""
    retry_in: float
    """Seconds until the fault is cleared for another try, or the kernel is asked again."""
    serves: bool = False
    """Whether the router stays MASTER with what it can have."""

    def __str__(self) -> str:
        return (
            f"{self.router}: the kernel refused {'; '.join(self.failures)}; "
            f"{'serves without, and ' if self.serves else ''}tries again in {self.retry_in:g} s"
        )


@attrs.frozen(kw_only=True, eq=False, repr=False)
class ForeignAddress(Stamped):
    """A virtual address is on this host although this router is not MASTER: somebody else put it
    there. The host answers for it next to the master."""

    router: str
    at: float
    address: IPAddress
    prefix: int
    """The prefix length that it has there."""
    device: str
    """The interface that it is on."""
    state: State
    """What this router is: BACKUP or FAULT."""
    action: str
    """``left there``, ``removed``, or why it cannot be."""

    def __str__(self) -> str:
        return (
            f"{self.router}: {self.address}/{self.prefix} is on {self.device}, where somebody else "
            f"put it, and this router is {self.state}: {self.action}{self._advice}"
        )

    @property
    def _advice(self) -> str:
        if self.action == "removed":
            return ""
        command = f"ip address delete {self.address}/{self.prefix} dev {self.device}"
        return f"; remove it ('{command}', or foreign_address=\"remove\")"


@attrs.frozen(kw_only=True, eq=False, repr=False)
class SendFailed(Stamped):
    """The system refused to send an advert. At most one such event a second."""

    router: str
    at: float
    error: str
    """The system's reason."""
    count: int = 1
    """How many since the last such event."""

    def __str__(self) -> str:
        return f"{self.router}: an advert could not be sent: {self.error}{_times(self.count)}"


@attrs.frozen(kw_only=True, eq=False, repr=False)
class ClockSkew(Stamped):
    """A peer's signed adverts come from a clock that differs by more than half of the HMAC
    window."""

    router: str
    at: float
    peer: IPAddress
    seconds: float

    def __str__(self) -> str:
        return (
            f"{self.router}: the clock of {self.peer} differs by {self.seconds:.3g} s: its signed "
            "adverts are soon refused"
        )


RouterEvent: TypeAlias = (
    Transition
    | MasterChanged
    | AnotherMaster
    | AdvertRejected
    | AdvertAnomaly
    | PriorityChanged
    | FaultsChanged
    | Stalled
    | ReceiveOverflow
    | AddressLost
    | RouteLost
    | AddressesInPlace
    | AddressesRefused
    | ForeignAddress
    | SendFailed
    | ClockSkew
    | WeightTooSmall
)
"""Everything that ``events()`` of an instance may yield, besides ``EventsLost``."""
