"""Turns what is wrong with adverts into counts, and into events at a bounded rate. Pure."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import NamedTuple

import attrs

from vrrpkit.errors import DecodeError
from vrrpkit.values import IPAddress
from vrrpkit.vrrp.protocol.events import (
    AdvertAnomaly,
    AdvertRejected,
    AnotherMaster,
    ClockSkew,
    MasterChanged,
    ReceiveOverflow,
    RouterEvent,
    SendFailed,
)
from vrrpkit.vrrp.protocol.packet import RejectReason
from vrrpkit.vrrp.protocol.statistics import PEER_LIMIT, RateLimit, RouterStatistics
from vrrpkit.vrrp.protocol.validation import ValidAdvert

__all__ = ["Reporter"]

MOVES = 10
"""Changes of the master that are told in one second."""

MOST_NAMED = 4
"""Other masters that are named; then their number is."""


class _Claim(NamedTuple):
    """Somebody else sent an advert for this router."""

    at: float
    how: object
    """Why it was dropped, or in which way it lost."""


def _why(how: object) -> str:
    if not isinstance(how, DecodeError):
        return f", {how}"
    got = "" if how.got is None else f": got {how.got}"
    want = "" if how.want is None else f", want {how.want}"
    return f": its adverts are rejected ({how.reason}{got}{want})"


class Reporter:
    """Reports for one virtual router: every occasion is counted, one a second of a kind is told.

    :param router: the name of the router.
    :param publish: takes the events.
    """

    def __init__(
        self, router: str, statistics: RouterStatistics, publish: Callable[[RouterEvent], None]
    ) -> None:
        self._router = router
        self._statistics = statistics
        self._publish = publish
        self._tally = RateLimit()
        self._moves: list[float] = []
        self._claims: OrderedDict[IPAddress, _Claim] = OrderedDict()

    def tell(self, notice: RouterEvent) -> None:
        """Publish what the machine says, but at a bounded rate what a peer can make it say."""
        match notice:
            case AnotherMaster():
                self._claim(notice.peer, notice.at, f"with priority {notice.priority}")
                count = self._tally.report(("another master", notice.peer), notice.at)
                if count:
                    self._publish(attrs.evolve(notice, count=count))
            case AdvertAnomaly():
                self._statistics.note_anomaly(notice.anomaly, notice.peer)
                count = self._tally.report((notice.anomaly, notice.peer), notice.at)
                if count:
                    self._publish(attrs.evolve(notice, count=count))
            case ReceiveOverflow():
                if self._tally.report("deaf", notice.at):
                    self._publish(notice)
            case MasterChanged():
                # Two that compete are worth knowing, and a thousand forged ones are not.
                moves = self._moves
                if len(moves) < MOVES or notice.at - moves[0] >= 1.0:
                    self._moves = [*moves, notice.at][-MOVES:]
                    self._publish(notice)
            case _:
                self._publish(notice)

    def _claim(self, peer: IPAddress, at: float, how: object) -> None:
        self._claims[peer] = _Claim(at, how)
        self._claims.move_to_end(peer)
        if len(self._claims) > PEER_LIMIT:
            self._claims.popitem(last=False)

    def contested(self, now: float, within: float) -> str | None:
        """Who else has claimed to be MASTER in the last ``within`` seconds, and why nothing came of
        it; ``None``: nobody."""
        claims = [
            f"{peer} claims it too{_why(claim.how)}"
            for peer, claim in self._claims.items()
            if now - claim.at <= within
        ]
        more = f"; and {len(claims) - MOST_NAMED} more" if len(claims) > MOST_NAMED else ""
        return "; ".join(claims[-MOST_NAMED:]) + more if claims else None

    def rejected(self, problem: DecodeError, source: IPAddress, now: float) -> None:
        """An advert was dropped."""
        reason = RejectReason(problem.reason)
        self._statistics.note_rejected(reason, source)
        if reason is not RejectReason.OWN_SOURCE:
            self._claim(source, now, problem)
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

    def remarked(self, heard: ValidAdvert, source: IPAddress, at: float) -> None:
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
