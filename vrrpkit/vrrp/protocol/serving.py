"""The rhythm of a MASTER: when its next advert leaves, and whether it fell silent. Pure."""

from __future__ import annotations

from vrrpkit.vrrp.protocol.election import MachineConfig, advert_slack

__all__ = ["AdvertTimer"]


class AdvertTimer:
    """The adverts of one router. ``due`` is ``None`` while it is not MASTER."""

    def __init__(self, config: MachineConfig) -> None:
        self._config = config
        self.due: float | None = None
        """When the next advert leaves."""
        self.last_sent = 0.0
        """When the last one left, priority 0 included."""
        self.slack = advert_slack(config.interval)
        """By how many seconds an advert may leave early."""

    def silence(self, now: float) -> float | None:
        """For how many seconds nothing was said, if it is so long that the others may have given
        this master up."""
        silent = now - self.last_sent
        return silent if silent > self._config.down_factor * self._config.interval else None

    def sent(self, now: float) -> float:
        """An advert leaves at ``now``; when the next one is due."""
        self.last_sent = now
        self.due = due = now + self._config.interval
        return due
