"""Is this datagram an advert that we must act upon? The receive checks of RFC 9568 section 7.1, and
ours. Pure.

The order matters where two things are wrong at once: what is cheap and what an attacker can choose
comes first, and a digest is computed only for what passed everything else. The addresses are looked
at last: they are up to 255, and only who may speak at all can make us read them.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

import attrs

from vrrpkit.errors import DecodeError
from vrrpkit.values import IPAddress, Peer
from vrrpkit.vrrp.protocol.auth import TRAILER, HMACAuth, PasswordAuth, Verifier
from vrrpkit.vrrp.protocol.events import Anomaly
from vrrpkit.vrrp.protocol.packet import Advertisement, ChecksumForm, Message, RejectReason, read

__all__ = ["AdvertValidator", "Remark", "ValidAdvert"]

_PASSWORD = 1

MOST_NAMED = 4
"""Addresses that are named where two lists differ."""


@attrs.frozen
class Remark:
    """Something wrong with an advert that is accepted all the same."""

    anomaly: Anomaly
    got: object
    """What was in the advert; its ``str()`` is for people, and is made when one is told."""
    want: object


@attrs.frozen
class ValidAdvert:
    """An advert that passed."""

    advert: Advertisement
    checksum: ChecksumForm
    remarks: tuple[Remark, ...]
    ahead: float
    """Seconds by which a signing sender's clock is ahead of ours."""


@attrs.define(kw_only=True)
class AdvertValidator:
    """What one virtual router demands of the adverts that it hears."""

    version: int
    vrid: int
    wire_interval: int
    addresses: frozenset[IPAddress]
    group: IPAddress | None
    peers: Mapping[IPAddress, Peer]
    auth: PasswordAuth | HMACAuth | None
    insist: ChecksumForm | None
    """Accept only this form of checksum in version 3 over IPv4; ``None`` accepts either."""
    drop_address_list: bool
    deaf_owner: bool
    """Drop everything, because this router owns the addresses."""
    owner: bool
    verifier: Verifier | None = None
    own: frozenset[IPAddress] = frozenset()
    """The addresses of this router: what comes from them is an echo."""
    _same: tuple[IPAddress, ...] | None = attrs.field(default=None, init=False)
    """Addresses that were heard, and are ours."""

    def set_own(self, addresses: frozenset[IPAddress]) -> None:
        """These are the addresses of this router now."""
        self.own = addresses

    def inspect(
        self, payload: bytes, source: IPAddress, destination: IPAddress, ttl: int, wall: float
    ) -> ValidAdvert:
        """Accept a datagram or say why not; ``wall`` is the wall clock, for signed adverts.

        :raises DecodeError: the advert must be dropped; its ``reason`` says why. No timer may move.
        """
        self._envelope(source, destination, ttl)
        message = read(
            payload, source, destination, trailer=0 if self.verifier is None else TRAILER
        )
        self._header(message, source)
        ahead = 0.0
        if self.verifier is not None:
            ahead = self.verifier.verify(message.message, message.trailer, source, wall)
        if self.deaf_owner:
            raise DecodeError(
                RejectReason.OWNER,
                f"priority {message.priority}",
                "nothing: this router owns the addresses",
            )
        advert = message.advert()
        return ValidAdvert(advert, message.checksum, self._remarks(advert, source), ahead)

    def _header(self, advert: Message, source: IPAddress) -> None:
        if advert.version != self.version:
            raise DecodeError(RejectReason.VERSION, advert.version, self.version)
        if advert.vrid != self.vrid:
            raise DecodeError(RejectReason.VRID, advert.vrid, self.vrid)
        if (
            self.insist is not None
            and advert.version == 3
            and source.version == 4
            and advert.checksum is not self.insist
        ):
            raise DecodeError(RejectReason.CHECKSUM, advert.checksum, self.insist)
        if advert.version == 2:
            self._version_2(advert)

    def _envelope(self, source: IPAddress, destination: IPAddress, ttl: int) -> None:
        if source in self.own:
            raise DecodeError(RejectReason.OWN_SOURCE, source, "another router's address")
        if self.group is not None:
            if destination != self.group:
                raise DecodeError(RejectReason.DESTINATION, destination, self.group)
            if ttl != 255:
                raise DecodeError(RejectReason.TTL, ttl, 255)
            return
        if destination.is_multicast:
            raise DecodeError(RejectReason.DESTINATION, destination, "unicast")
        peer = self.peers.get(source)
        if peer is None:
            raise DecodeError(RejectReason.UNKNOWN_PEER, source, "one of peers=")
        if not peer.min_ttl <= ttl <= peer.max_ttl:
            raise DecodeError(RejectReason.TTL, ttl, f"{peer.min_ttl} to {peer.max_ttl}")

    def _version_2(self, advert: Message) -> None:
        wanted = _PASSWORD if isinstance(self.auth, PasswordAuth) else 0
        if advert.auth_type > 2:
            raise DecodeError(RejectReason.AUTH_TYPE_INVALID, advert.auth_type, wanted)
        if advert.auth_type != wanted:
            raise DecodeError(RejectReason.AUTH_TYPE_MISMATCH, advert.auth_type, wanted)
        if isinstance(self.auth, PasswordAuth) and advert.auth_data != self.auth.data:
            raise DecodeError(RejectReason.AUTH_FAILURE, "another password")
        if advert.wire_interval != self.wire_interval:
            raise DecodeError(
                RejectReason.INTERVAL_MISMATCH,
                f"{advert.wire_interval} s",
                f"{self.wire_interval} s",
            )

    def _remarks(self, advert: Advertisement, source: IPAddress) -> tuple[Remark, ...]:
        remarks: list[Remark] = []
        if advert.wire_interval != self.wire_interval:
            remarks.append(
                Remark(Anomaly.INTERVAL, f"{advert.wire_interval} cs", f"{self.wire_interval} cs")
            )
        if advert.addresses is not self._same and frozenset(advert.addresses) == self.addresses:
            # The same octets are the same object: see Message.advert().
            self._same = advert.addresses
        if advert.addresses is not self._same:
            got = _Only(advert.addresses, self.addresses)
            want = _Only(self.addresses, advert.addresses)
            if self.drop_address_list:
                raise DecodeError(RejectReason.ADDRESS_LIST, got, want)
            remarks.append(Remark(Anomaly.ADDRESS_LIST, got, want))
        if source.version == 6:
            first = advert.addresses[0]
            if not first.is_link_local:
                remarks.append(Remark(Anomaly.FIRST_NOT_LINK_LOCAL, str(first), "fe80::/10"))
            if self.group is not None and not source.is_link_local:
                remarks.append(Remark(Anomaly.SOURCE_NOT_LINK_LOCAL, str(source), "fe80::/10"))
        if self.owner and advert.priority == 255:
            remarks.append(
                Remark(Anomaly.ANOTHER_OWNER, f"priority 255 from {source}", "one owner")
            )
        return tuple(remarks)


class _Only:
    """What only one side lists, shortened: an advert may carry 255 addresses."""

    def __init__(self, one: Collection[IPAddress], other: Collection[IPAddress]) -> None:
        self._one = one
        self._other = other

    def __str__(self) -> str:
        names = sorted(str(address) for address in set(self._one) - set(self._other))
        more = f" and {len(names) - MOST_NAMED} more" if len(names) > MOST_NAMED else ""
        return (", ".join(names[:MOST_NAMED]) + more) or "nothing else"
