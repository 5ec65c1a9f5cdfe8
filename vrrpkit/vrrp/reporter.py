"""Turns what is wrong with adverts into counts, and into events at a bounded rate. Pure."""

from __future__ import annotations

from collections.abc import Callable

from vrrpkit.errors import DecodeError
from vrrpkit.values import IPAddress
from vrrpkit.vrrp.notices import AdvertAnomaly, AdvertRejected, ClockSkew, Notice, SendFailed
from vrrpkit.vrrp.packet import RejectReason
from vrrpkit.vrrp.receive import Heard
from vrrpkit.vrrp.statistics import Statistics, Tally

__all__ = ["Reporter"]


class Reporter:
    """Reports for one virtual router: every occasion is counted, one a second of a kind is told.

    :param router: the name of the router.
    :param publish: takes the events.
    """

    def __init__(
        self, router: str, statistics: Statistics, publish: Callable[[Notice], None]
    ) -> None:
        self._router = router
        self._statistics = statistics
        self._publish = publish
        self._tally = Tally()

    def rejected(self, problem: DecodeError, source: IPAddress, now: float) -> None:
        """An advert was dropped."""
        reason = RejectReason(problem.reason)
        self._statistics.note_rejected(reason, source)
        count = self._tally.report((reason, source), now)
        if count:
            self._publish(
                AdvertRejected(
                    router=self._router,
                    at=now,
                    reason=reason,
                    peer=source,
                    got=None if problem.got is None else str(problem.got),
                    want=None if problem.want is None else str(problem.want),
                    count=count,
                )
            )

    def remarked(self, heard: Heard, source: IPAddress, at: float) -> None:
        """An advert was accepted, perhaps with something wrong about it."""
        for remark in heard.remarks:
            self._statistics.note_anomaly(remark.anomaly, source)
            count = self._tally.report((remark.anomaly, source), at)
            if count:
                self._publish(
                    AdvertAnomaly(
                        router=self._router,
                        at=at,
                        anomaly=remark.anomaly,
                        peer=source,
                        got=str(remark.got),
                        want=str(remark.want),
                        count=count,
                    )
                )

    def skewed(self, source: IPAddress, seconds: float, at: float) -> None:
        """A signing peer's clock differs by ``seconds``, which is worth a warning."""
        if self._tally.report(("skew", source), at):
            self._publish(ClockSkew(router=self._router, at=at, peer=source, seconds=seconds))

    def send_failed(self, problem: OSError, now: float) -> None:
        """The system refused to send an advert."""
        self._statistics.send_errors += 1
        count = self._tally.report("send", now)
        if count:
            self._publish(SendFailed(router=self._router, at=now, error=str(problem), count=count))
