"""What the kernel's IPVS refuses, for the table in memory. 0 is nothing, else a number of errno."""

from __future__ import annotations

import errno
from collections.abc import Set as AbstractSet
from ipaddress import IPv4Address, IPv6Address

from vrrpkit.ipvs.model.entries import (
    WEIGHT_LIMIT,
    Destination,
    Forward,
    Service,
    ServiceKey,
    TunnelType,
)

__all__ = ["unfit_destination", "unfit_service"]

_BROADCAST = IPv4Address("255.255.255.255")


def unfit_service(service: Service, modules: AbstractSet[str]) -> int:
    """Why a service with these attributes is refused.

    :param modules: the schedulers and persistence engines that there are.
    """
    if not {service.scheduler, service.engine or service.scheduler} <= modules:
        return errno.ENOENT
    granularity = service.granularity
    if service.key.family == 6 and granularity is not None and not 1 <= granularity <= 128:
        return errno.EINVAL
    return 0


def unfit_destination(service: ServiceKey, destination: Destination, syncing: bool) -> int:
    """Why a real server with these attributes is refused.

    :param syncing: whether a sync daemon runs; its messages cannot express mixed families.
    """
    address = destination.key.address
    tunnelled = destination.forward is Forward.TUN
    if address.version != service.family and (syncing or not tunnelled):
        return errno.EINVAL
    if address.is_multicast or address.is_unspecified or address == _BROADCAST:
        return errno.EINVAL
    if isinstance(address, IPv6Address) and (address.is_link_local or address.ipv4_mapped):
        return errno.EINVAL
    if not 0 <= destination.weight <= WEIGHT_LIMIT or destination.lower > destination.upper:
        return errno.ERANGE
    tunnel = destination.tunnel
    if tunnel is not None and tunnel.type is TunnelType.GUE and not tunnel.port:
        return errno.EINVAL
    return 0
