"""Virtual addresses on one interface: the :class:`vrrpkit.host.base.AddressManager` for Linux."""

from __future__ import annotations

import errno
from collections.abc import Iterable, Sequence

import attrs

from vrrpkit.host.links import records, requests as link_requests
from vrrpkit.host.links.monitor import LinkMonitor
from vrrpkit.host.links.records import AddressKey, AddressRecord
from vrrpkit.linux.netlink import Netlink
from vrrpkit.values import SCOPES, VIP

__all__ = ["KernelAddresses", "key_of"]

THERE = frozenset({errno.EEXIST})
GONE = frozenset({errno.EADDRNOTAVAIL, errno.ENODEV})


def key_of(vip: VIP) -> AddressKey:
    """How the link monitor knows the address."""
    return vip.address.packed, vip.prefix


@attrs.define(eq=False)
class _Prepared:
    """One address with what is needed of it during a takeover."""

    vip: VIP
    """Kept so that its ``id`` stays its own."""
    key: AddressKey
    device: str
    removal: bytearray
    additions: dict[float | None, bytearray] = attrs.field(factory=dict[float | None, bytearray])
    """By lease."""


class KernelAddresses:
    """Puts addresses on the interface ``name``, or on the one that a VIP names."""

    def __init__(self, name: str, netlink: Netlink, monitor: LinkMonitor) -> None:
        self._name = name
        self._netlink = netlink
        self._monitor = monitor
        # By identity: to hash a VIP takes as long as half a request to the kernel.
        self._prepared: dict[int, _Prepared] = {}

    def prepare(self, vips: Iterable[VIP], lease: float | None) -> None:
        """Encode the requests that will be needed, so that a takeover has only to send them."""
        for vip in vips:
            self._addition(self._of(vip), lease)

    def keep(self, vips: Iterable[VIP]) -> None:
        """Drop what :meth:`prepare` made for all other addresses."""
        kept = {id(vip) for vip in vips}
        for identity in self._prepared.keys() - kept:
            del self._prepared[identity]

    def device(self, vip: VIP) -> str:
        """The name of the interface that ``vip`` goes on."""
        return vip.dev or self._name

    async def apply(
        self, add: Sequence[VIP], remove: Sequence[VIP], lease: float | None
    ) -> list[tuple[VIP, OSError]]:
        """Carry out removals and additions (see :class:`vrrpkit.host.base.AddressManager`)."""
        failures: list[tuple[VIP, OSError]] = []
        requests: list[bytearray] = []
        asked: list[tuple[_Prepared, int, bool]] = []
        for wanted, vips in ((False, remove), (True, add)):
            for vip in vips:
                prepared = self._of(vip)
                link = self._monitor.record(prepared.device)
                if link is not None:
                    request = self._addition(prepared, lease) if wanted else prepared.removal
                    link_requests.set_index(request, link.ifindex)
                    requests.append(request)
                    asked.append((prepared, link.ifindex, wanted))
                elif wanted and vip.track:
                    gone = f"there is no network interface {prepared.device}"
                    failures.append((vip, OSError(errno.ENODEV, gone)))
        removed = {(index, prepared.key) for prepared, index, wanted in asked if not wanted}
        with self._monitor.removing(removed):
            answers = await self._netlink.batch(requests)
            there: list[AddressRecord] = []
            for (prepared, index, wanted), problem in zip(asked, answers, strict=True):
                if problem is not None and problem.errno not in (THERE if wanted else GONE):
                    failures.append((prepared.vip, problem))
                elif wanted:
                    there.append(self._expected(prepared, index))
                    self._monitor.added(there[-1])
            # The notices of what was done wait already: what is known is up to date on return.
            self._monitor.drain()
            for record in there:
                # Taken off and put back: the kernel has told of the first only.
                if (record.ifindex, record.key) in removed:
                    self._monitor.added(record)
        return failures

    def present(self, vip: VIP) -> bool:
        """Whether the address is there now."""
        return self._record(vip) is not None

    def ours(self, vip: VIP) -> bool:
        """Whether the address is there now and was put there by this library.

        Before Linux 5.18 addresses carry no mark, so an earlier run is known by the configuration
        only: a configured address is taken for its leftover, unless it looks like an address of
        the interface itself: the first one of a prefix longer than itself, or one that is
        preferred as a source.
        """
        record = self._record(vip)
        if record is None:
            return False
        if self._monitor.mine(record) or self._monitor.marks:
            return self._monitor.mine(record)
        if vip.family == 6:
            return bool(record.flags & records.IFA_F_DEPRECATED)
        return vip.prefix == 32 or bool(record.flags & records.IFA_F_SECONDARY)

    def tentative(self, vip: VIP) -> bool:
        """Whether the address is there and may not be used yet."""
        if vip.nodad or vip.family == 4:
            return False
        record = self._record(vip)
        return record is not None and not record.usable

    def _record(self, vip: VIP) -> AddressRecord | None:
        prepared = self._of(vip)
        return self._monitor.addresses(prepared.device).get(prepared.key)

    def _of(self, vip: VIP) -> _Prepared:
        prepared = self._prepared.get(id(vip))
        if prepared is None:
            prepared = self._prepared[id(vip)] = _Prepared(
                vip, key_of(vip), self.device(vip), link_requests.delete_address(vip)
            )
        return prepared

    def _addition(self, prepared: _Prepared, lease: float | None) -> bytearray:
        request = prepared.additions.get(lease)
        if request is None:
            request = prepared.additions[lease] = link_requests.add_address(prepared.vip, lease)
        return request

    def _expected(self, prepared: _Prepared, ifindex: int) -> AddressRecord:
        vip = prepared.vip
        return AddressRecord(
            ifindex=ifindex,
            key=prepared.key,
            flags=records.IFA_F_TENTATIVE if vip.family == 6 and not vip.nodad else 0,
            scope=SCOPES[vip.scope],
            protocol=records.MARK if self._monitor.marks else 0,
            peer=b"" if vip.peer is None else vip.peer.packed,
        )
