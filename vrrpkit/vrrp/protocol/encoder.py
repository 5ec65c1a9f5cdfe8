"""Turns "send an advert with this priority" into octets for each destination, once for each
priority. Pure."""

from __future__ import annotations

from typing import TypeAlias

from vrrpkit.values import IPAddress
from vrrpkit.vrrp.protocol.auth import HMACAuth, PasswordAuth, Signer
from vrrpkit.vrrp.protocol.options import VRRPInstanceConfig
from vrrpkit.vrrp.protocol.packet import Advertisement, encode, unsigned

__all__ = ["AdvertWriter", "Outgoing"]

Outgoing: TypeAlias = tuple[bytes, IPAddress]
"""Octets and where they go."""

_PASSWORD = 1


class AdvertWriter:
    """Writes the adverts of one router. What does not change from one advert to the next is encoded
    once."""

    def __init__(self, options: VRRPInstanceConfig) -> None:
        self._options = options
        self._form = options.checksum or options.profile.checksum
        # One that is on several interfaces is announced once.
        self._addresses = tuple(dict.fromkeys(vip.address for vip in options.vips_in_order))
        group = options.destination
        self._destinations = (
            tuple(peer.address for peer in options.peers) if group is None else (group,)
        )
        self._cache: dict[tuple[int, IPAddress], tuple[Outgoing, ...]] = {}
        self._latest: tuple[int, IPAddress, tuple[Outgoing, ...]] | None = None
        self._signer: Signer | None = None
        if isinstance(options.auth, HMACAuth) and options.auth.mode != "receive-only":
            self._signer = Signer(options.auth, options.interval)

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
        options = self._options
        auth = options.auth
        return Advertisement(
            version=options.version,
            vrid=options.vrid,
            priority=priority,
            wire_interval=options.wire_interval,
            addresses=self._addresses,
            auth_type=_PASSWORD if isinstance(auth, PasswordAuth) else 0,
            auth_data=auth.data if isinstance(auth, PasswordAuth) else bytes(8),
        )
