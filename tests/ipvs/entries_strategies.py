"""Hypothesis strategies for IPVS tables: few keys, so that two tables overlap."""

from __future__ import annotations

from hypothesis import strategies as st

from vrrpkit.ipvs.model.diff import Wanted
from vrrpkit.ipvs.model.endpoints import destination_key, service_keys
from vrrpkit.ipvs.model.entries import (
    Destination,
    DestinationEntry,
    DestinationKey,
    Forward,
    Protocol,
    Service,
    ServiceEntry,
    ServiceKey,
    Snapshot,
    Tunnel,
    TunnelType,
)

SERVICES = service_keys(["192.0.2.10:80", "[2001:db8::1]:53/udp", "192.0.2.10:80/sctp", "fwmark 7"])
SERVERS = tuple(destination_key(f"10.0.0.{n}:80") for n in range(1, 6))

tunnels = st.sampled_from([None, Tunnel(), Tunnel(type=TunnelType.GUE, port=6080)])


@st.composite
def keys(draw: st.DrawFn) -> ServiceKey:
    """Any key of a service."""
    family = draw(st.sampled_from([4, 6]))
    if draw(st.booleans()):
        return ServiceKey(family, fwmark=draw(st.integers(1, 2**32 - 1)))
    network = "192.0.2.0/24" if family == 4 else "2001:db8::/32"
    address = draw(st.ip_addresses(network=network))
    return ServiceKey(family, draw(st.sampled_from(Protocol)), address, draw(st.integers(0, 65535)))


def services(key: ServiceKey) -> st.SearchStrategy[Service]:
    """Any attributes of a service."""
    return st.builds(
        Service,
        key=st.just(key),
        scheduler=st.sampled_from(["wlc", "sh", "mh"]),
        flags=st.frozensets(st.sampled_from(["flag-1", "flag-2"])),
        persistence=st.sampled_from([None, 300]),
        granularity=st.sampled_from([None, 24]),
        engine=st.sampled_from(["", "sip"]),
        one_packet=st.booleans(),
    )


def destinations(key: DestinationKey) -> st.SearchStrategy[Destination]:
    """Any attributes of a real server."""
    return st.builds(
        Destination,
        key=st.just(key),
        weight=st.integers(0, 3),
        forward=st.sampled_from([Forward.NAT, Forward.DR, Forward.TUN]),
        tunnel=tunnels,
        upper=st.sampled_from([0, 10]),
        lower=st.sampled_from([0, 5]),
    )


@st.composite
def pools(draw: st.DrawFn) -> list[Destination]:
    """The real servers of one service."""
    keys = draw(st.lists(st.sampled_from(SERVERS), unique=True))
    return [draw(destinations(key)) for key in keys]


@st.composite
def wishes(draw: st.DrawFn) -> Wanted:
    """Services as they shall be."""
    keys = draw(st.lists(st.sampled_from(SERVICES), unique=True))
    return {key: (draw(services(key)), draw(pools())) for key in keys}


def snapshot(wanted: Wanted) -> Snapshot:
    """What the kernel would show of it."""
    return {
        key: ServiceEntry(
            service=service,
            destinations={one.key: DestinationEntry(destination=one, active=3) for one in pool},
        )
        for key, (service, pool) in wanted.items()
    }


snapshots = wishes().map(snapshot)
"""Tables, as the kernel shows them."""
