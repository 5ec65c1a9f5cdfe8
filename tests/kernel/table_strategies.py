"""Hypothesis strategies for what may be in an IPVS table."""

from __future__ import annotations

from hypothesis import strategies as st

from ipvs.table_contract import SCHEDULERS
from vrrpkit.ipvs.model.entries import (
    Destination,
    DestinationKey,
    Forward,
    Protocol,
    Service,
    ServiceKey,
    Tunnel,
    TunnelType,
    flag_names,
)
from vrrpkit.values import IPAddress

ports = st.one_of(st.sampled_from([1, 80, 65535]), st.integers(1, 65535))
marks = st.one_of(st.integers(1, 9), st.just(2**31 - 1))
weights = st.one_of(st.integers(0, 10), st.just(65535))


def servers(family: int) -> st.SearchStrategy[IPAddress]:
    """Addresses that a real server may have."""
    return st.ip_addresses(network="10.0.0.0/8" if family == 4 else "fd00::/8")


@st.composite
def keys(draw: st.DrawFn) -> ServiceKey:
    """Of a service: an address and a port, or a mark."""
    family = draw(st.sampled_from([4, 6]))
    if draw(st.booleans()):
        return ServiceKey(family, fwmark=draw(marks))
    protocol = draw(st.sampled_from(Protocol))
    network = "192.0.2.0/24" if family == 4 else "2001:db8::/32"
    return ServiceKey(family, protocol, draw(st.ip_addresses(network=network)), draw(ports))


@st.composite
def services(draw: st.DrawFn) -> Service:
    """Any that the kernel takes and ipvsadm can save."""
    key = draw(keys())
    scheduler = draw(st.sampled_from(SCHEDULERS))
    persistence = draw(st.none() | st.integers(1, 86400))
    longest = 32 if key.family == 4 else 128
    # The third flag of a scheduler that has names for two is one that ipvsadm does not save.
    names = flag_names(scheduler)[: 2 if scheduler in {"sh", "mh"} else 3]
    return Service(
        key=key,
        scheduler=scheduler,
        flags=draw(st.frozensets(st.sampled_from(names))),
        persistence=persistence,
        granularity=None if persistence is None else draw(st.none() | st.integers(1, longest)),
        engine=draw(st.sampled_from(["", "sip"])) if persistence is not None else "",
        one_packet=key.protocol is Protocol.UDP and draw(st.booleans()),
    )


@st.composite
def destinations(draw: st.DrawFn, service: ServiceKey) -> Destination:
    """Any of a service."""
    forward = draw(st.sampled_from([Forward.NAT, Forward.DR, Forward.TUN]))
    family = draw(st.sampled_from([4, 6])) if forward is Forward.TUN else service.family
    # ipvsadm cannot ask for another port than the service's where packets stay as they are.
    port = ports if forward is Forward.NAT else st.just(service.port)
    upper = draw(st.one_of(st.just(0), st.integers(0, 2**31 - 1)))
    return Destination(
        key=DestinationKey(draw(servers(family)), draw(port)),
        weight=draw(weights),
        forward=forward,
        tunnel=draw(st.none() | tunnels()) if forward is Forward.TUN else None,
        upper=upper,
        lower=draw(st.integers(0, upper)),
    )


@st.composite
def tunnels(draw: st.DrawFn) -> Tunnel:
    """Any that the kernel takes and ipvsadm can save."""
    kind = draw(st.sampled_from(TunnelType))
    if kind is TunnelType.IPIP:
        return Tunnel()
    checksum = draw(st.booleans())
    gue = kind is TunnelType.GUE
    return Tunnel(
        type=kind,
        port=draw(ports) if gue else 0,
        checksum=checksum,
        remote_checksum=gue and not checksum and draw(st.booleans()),
    )


@st.composite
def entries(draw: st.DrawFn) -> tuple[Service, list[Destination]]:
    """A service and its real servers."""
    service = draw(services())
    found = st.lists(destinations(service.key), max_size=5, unique_by=lambda entry: entry.key)
    return service, draw(found)
