"""The named sets of behaviour."""

from __future__ import annotations

import attrs
import pytest

from vrrpkit.errors import ConfigError
from vrrpkit.vrrp.protocol.packet import ChecksumForm
from vrrpkit.vrrp.protocol.profile import DEFAULT, KEEPALIVED, STRICT, AddressLostPolicy, Profile


def test_by_name() -> None:
    assert [Profile.of(name) for name in ("default", "keepalived", "strict")] == [
        DEFAULT,
        KEEPALIVED,
        STRICT,
    ]
    mine = attrs.evolve(DEFAULT, name="mine", announce_on_losing=True)
    assert Profile.of(mine) is mine


def test_unknown_names() -> None:
    with pytest.raises(ConfigError, match="'cisco' must be one of default, keepalived, strict"):
        Profile.of("cisco")
    with pytest.raises(ConfigError, match="must be one of reinstate, step_down, ignore"):
        AddressLostPolicy.of("shrug")
    assert AddressLostPolicy.of("ignore") is AddressLostPolicy.IGNORE


def test_what_sets_them_apart() -> None:
    assert DEFAULT.checksum is KEEPALIVED.checksum is ChecksumForm.PSEUDO_HEADER
    assert STRICT.checksum is ChecksumForm.MESSAGE_ONLY
    assert KEEPALIVED.address_lost is AddressLostPolicy.STEP_DOWN
    assert KEEPALIVED.announce_on_losing
    assert not KEEPALIVED.exact_preempt_delay
    assert not STRICT.accept
    assert not STRICT.extensions
    assert STRICT.owner_deaf
    assert STRICT.drop_address_list
    assert (STRICT.announcements.repeat, STRICT.announcements.delay) == (1, 0)
