"""Hypothesis strategies for what travels between routers."""

from __future__ import annotations

from hypothesis import settings, strategies as st

from vrrpkit.values import IPAddress
from vrrpkit.vrrp.protocol.packet import Advertisement, ChecksumForm

quick = settings(max_examples=60, deadline=None)
"""For properties that cost little: the whole set must stay a matter of seconds."""

octets = st.binary(max_size=80)
forms = st.sampled_from(ChecksumForm)
families = st.sampled_from([4, 6])


def addresses(family: int) -> st.SearchStrategy[IPAddress]:
    """Any address of a family."""
    return st.ip_addresses(v=4 if family == 4 else 6)


@st.composite
def advertisements(draw: st.DrawFn, family: int | None = None) -> Advertisement:
    """Any advertisement that can be sent, of either version."""
    version = draw(st.sampled_from([2, 3]))
    if family is None:
        family = draw(families)
    count = draw(st.one_of(st.integers(1, 4), st.integers(1, 255)))
    first = draw(addresses(family))
    kind = type(first)
    most = 2 ** (32 if family == 4 else 128)
    listed = tuple(kind((int(first) + offset) % most) for offset in range(count))
    return Advertisement(
        version=version,
        vrid=draw(st.integers(1, 255)),
        priority=draw(st.integers(0, 255)),
        wire_interval=draw(st.integers(1, 255 if version == 2 else 4095)),
        addresses=listed,
        auth_type=draw(st.integers(0, 255)) if version == 2 else 0,
        auth_data=draw(st.binary(min_size=8, max_size=8)) if version == 2 else bytes(8),
    )
