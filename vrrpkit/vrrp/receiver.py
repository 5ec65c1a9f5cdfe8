"""What one virtual router hears, from a datagram to an event for its machine.

A BACKUP hears the same octets for months, so a repetition of the last accepted advert takes a short
way: only the deadline and the counters move.
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
