"""Turns "send an advert with this priority" into octets for each destination, once for each
priority. Pure."""

from __future__ import annotations

from typing import TypeAlias

from vrrpkit.values import IPAddress
from vrrpkit.vrrp.protocol.auth import HMACAuth, PasswordAuth, Signer
from vrrpkit.vrrp.protocol.packet import Advertisement, ChecksumForm, encode, unsigned

__all__ = ["AdvertWriter", "Outgoing"]

Outgoing: TypeAlias = tuple[bytes, IPAddress]
"""Octets and where they go."""

_PASSWORD = 1


class AdvertWriter:
    """Writes the adverts of one router. What does not change from one advert to the next is encoded
    once.

    :param interval: seconds between adverts, for the freshness of signed ones.
    :param addresses: those that are announced, in the order of the wire.
    :param form: of the checksum.
    """

    def __init__(
        self,
        *,
        version: int,
        vrid: int,
        interval: float,
        wire_interval: int,
        addresses: tuple[IPAddress, ...],
        destinations: tuple[IPAddress, ...],
        auth: PasswordAuth | HMACAuth | None,
        form: ChecksumForm,
    ) -> None:
        self._version = version
        self._vrid = vrid
        self._wire_interval = wire_interval
        self._addresses = addresses
        self._destinations = destinations
        self._password = auth.data if isinstance(auth, PasswordAuth) else None
        self._form = form
        self._cache: dict[tuple[int, IPAddress], tuple[Outgoing, ...]] = {}
        self._latest: tuple[int, IPAddress, tuple[Outgoing, ...]] | None = None
        self._signer: Signer | None = None
        if isinstance(auth, HMACAuth) and auth.mode != "receive-only":
            self._signer = Signer(auth, interval)

    @property
    def signs(self) -> bool:
        """Whether every advert carries a trailer of its own."""
        return self._signer is not None

    def outgoing(self, priority: int, source: IPAddress, wall: float) -> tuple[Outgoing, ...]:
        """The octets of an advert of ``priority`` from ``source``; ``wall`` is the wall clock, for
        signing."""
        latest = self._latest
        # By identity: to hash an address costs as much as to send an advert.
        if latest is not None and priority == latest[0] and source is latest[1]:
            return latest[2]
        if self._signer is not None:
            advert = self._advert(priority)
            trailer = self._signer.sign(unsigned(advert), source, wall)
            return tuple(
                (encode(advert, source, to, self._form, trailer), to) for to in self._destinations
            )
        key = (priority, source)
        ready = self._cache.get(key)
        if ready is None:
            if len(self._cache) > 8:
                self._cache.clear()
            advert = self._advert(priority)
            ready = tuple((encode(advert, source, to, self._form), to) for to in self._destinations)
            self._cache[key] = ready
        self._latest = (priority, source, ready)
        return ready

    def _advert(self, priority: int) -> Advertisement:
        return Advertisement(
            version=self._version,
            vrid=self._vrid,
            priority=priority,
            wire_interval=self._wire_interval,
            addresses=self._addresses,
            auth_type=0 if self._password is None else _PASSWORD,
            auth_data=self._password or bytes(8),
        )
