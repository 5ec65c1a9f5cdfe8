"""What one virtual router hears, from a datagram to an input of its machine; and the whole fast
path of adverts, which several modules share.

255 routers at 100 ms send or hear 2550 adverts a second, and nearly all of them say what the one
before said. Each step of the path saves what such an advert does not need:

1. *Reading* (``transport/receiver.py``). While every router on a socket is BACKUP and enough
   adverts are expected, the socket is read by the clock, at most one interval or 0.1 s apart. A
   second socket that hears only priority 0 wakes the reader at once. Arrival times come from the
   kernel, and the socket is read before any deadline may fire, so no decision depends on the delay.
2. *One system call* (``transport/recvmmsg.py``) takes up to 64 adverts: 5 to 6 us an advert,
   against 14 us with one ``recvmsg`` each.
3. *Comparing* (:meth:`AdvertReceiver.received`). The same octets, addresses and hop limit as those
   of the last accepted advert need no decoding: the transport only notes in a
   :class:`vrrpkit.transport.base.Repeats` that they came and when. An advert with a trailer differs
   each time, and takes the long way.
4. *Taking in late* (:meth:`AdvertReceiver.catch_up`). What was noted moves the deadline and the
   counters when the old deadline fires, before any other input, and when a user reads the counters.
   Whatever might change the answer calls :meth:`AdvertReceiver.forget` first.
5. *Sending* (``protocol/encoder.py``, ``Machine.repeated``, ``driver.py``). An advert is encoded
   once for each priority, a MASTER with nothing else to do bypasses the rules of the machine, and
   the adverts of one host leave in herds, within their slack, so that one wake-up serves many.

CPU per advert sent is 0.47 of keepalived's, and per advert received 0.77, with 255 routers at 100
ms: ``nox -s bench`` measures both in one run.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Protocol

from vrrpkit.errors import DecodeError
from vrrpkit.transport.base import Datagram, Repeats
from vrrpkit.vrrp.protocol.effects import Effect
from vrrpkit.vrrp.protocol.inputs import AdvertReceived, AdvertsLost, Input, Refreshed
from vrrpkit.vrrp.protocol.machine import Machine
from vrrpkit.vrrp.protocol.reporting import Reporter
from vrrpkit.vrrp.protocol.statistics import RouterStatistics
from vrrpkit.vrrp.protocol.validation import AdvertValidator

__all__ = ["AdvertReceiver", "InstanceRecorder"]


class InstanceRecorder(Protocol):
    """Sees everything that goes into a machine and comes out of it."""

    def record(self, machine: Machine, event: Input, now: float, effects: Sequence[Effect]) -> None:
        """``machine`` took ``event`` in at ``now`` and answered with ``effects``."""


class AdvertReceiver:
    """The receiver of one virtual router (see :class:`vrrpkit.transport.base.Receiver`).

    :param feed: takes events for the machine.
    :param fail: told of a bug.
    :param now: reads the clock of the interface.
    """

    def __init__(
        self,
        machine: Machine,
        validator: AdvertValidator,
        statistics: RouterStatistics,
        reporter: Reporter,
        recorder: InstanceRecorder | None,
        *,
        feed: Callable[[Input], None],
        fail: Callable[[BaseException], None],
        now: Callable[[], float],
    ) -> None:
        self._heard: Callable[[int, float], None] | None = None
        self.repeats = Repeats(0)
        """What was noted of repetitions of the last accepted advert."""
        self.validator = validator
        self._machine = machine
        self._statistics = statistics
        self._reporter = reporter
        self._recorder = recorder
        self._feed = feed
        self._fail = fail
        self._now = now
        self._known: Datagram | None = None

    def on_priority(self, heard: Callable[[int, float], None]) -> None:
        """Call ``heard`` with the priority of each advert and the time when it came, unless the
        advert only repeats the last."""
        self._heard = heard

    def received(self, datagram: Datagram) -> Repeats | None:
        """One message for this VRID."""
        known = self._known
        if (
            known is not None
            and datagram.payload == known.payload
            and datagram.source is known.source
            and datagram.ttl == known.ttl
            and datagram.destination is known.destination
        ):
            repeats = self.repeats
            repeats.at = datagram.received
            repeats.count += 1
            if self._recorder is None:
                return repeats
            self.catch_up()
            event = Refreshed(datagram.received)
            try:
                self._recorder.record(self._machine, event, datagram.received, ())
            except BaseException as bug:
                self._fail(bug)
            return None
        try:
            self._inspect(datagram)
        except BaseException as bug:
            self._fail(bug)
        return None

    def overflowed(self) -> None:
        """Messages were lost on this host."""
        self._feed(AdvertsLost())

    def catch_up(self) -> None:
        """Take in the repetitions of the last accepted advert that were only noted so far."""
        known, repeats = self._known, self.repeats
        if known is not None and repeats.count:
            self._statistics.advertisement_rcvd += repeats.count
            self._statistics.peer(known.source).accepted += repeats.count
            repeats.count = 0
            self._machine.refreshed(repeats.at)

    def forget(self) -> None:
        """Take in what was noted of repeated adverts, and look at the next one in full."""
        if self._known is not None:
            self.catch_up()
            self.repeats.live = False
            self._known = None

    def _inspect(self, datagram: Datagram) -> None:
        payload, source, destination, ttl, at = datagram
        verifier = self.validator.verifier
        wall = time.time() if verifier is not None else 0.0
        try:
            heard = self.validator.inspect(payload, source, destination, ttl, wall)
        except DecodeError as problem:
            self._reporter.rejected(problem, source, self._now())
            return
        advert = heard.advert
        statistics = self._statistics
        statistics.advertisement_rcvd += 1
        if advert.priority == 0:
            statistics.priority_zero_pkts_rcvd += 1
        counts = statistics.peer(source)
        counts.accepted += 1
        counts.checksum = heard.checksum
        self._reporter.remarked(heard, source, at)
        if verifier is not None and verifier.skewed(heard.ahead):
            self._reporter.skewed(source, heard.ahead, at)
        if self._heard is not None and advert.priority:
            self._heard(advert.priority, at)
        self._feed(
            AdvertReceived(source=source, priority=advert.priority, interval=advert.interval, at=at)
        )
        machine = self._machine
        if (
            machine.refreshable
            and source == machine.master
            and not heard.remarks
            and verifier is None
        ):
            self._known, self.repeats = datagram, Repeats(datagram.ttl)
