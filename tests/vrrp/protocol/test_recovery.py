"""How often a router mends what others break."""

from __future__ import annotations

import pytest

from vrrpkit.vrrp.config import VRRPInstanceConfig
from vrrpkit.vrrp.protocol.profile import AddressLostPolicy
from vrrpkit.vrrp.protocol.recovery import AddressRecovery, Backoff, LossWindow


def test_three_occasions_in_ten_seconds() -> None:
    losses = LossWindow()
    assert [losses.exhausted(now) for now in (0.0, 1.0, 2.0)] == [False] * 3
    assert losses.exhausted(9.9)


def test_old_occasions_do_not_count() -> None:
    losses = LossWindow()
    moments = [0.0, 1.0, 2.0, 10.0, 11.0, 12.0, 20.0]
    assert not any(losses.exhausted(now) for now in moments)


def test_twenty_addresses_at_once_are_one_occasion() -> None:
    losses = LossWindow()
    assert not any(losses.exhausted(5.0 + n / 1000) for n in range(20))
    assert [losses.exhausted(now) for now in (6.0, 7.0, 8.0)] == [False, False, True]


def test_a_new_beginning() -> None:
    losses = LossWindow()
    for now in range(3):
        losses.exhausted(float(now))
    losses.clear()
    assert not losses.exhausted(3.0)


def test_backoff_doubles_up_to_its_limit() -> None:
    backoff = Backoff()
    assert [backoff.next() for _ in range(8)] == [5, 10, 20, 40, 80, 160, 300, 300]
    backoff.reset()
    assert backoff.next() == 5


@pytest.mark.parametrize("policy", AddressLostPolicy)
def test_a_duplicate_is_checked_again_unless_losses_are_ignored(policy: AddressLostPolicy) -> None:
    options = VRRPInstanceConfig("a", "eth0", vrid=1, vips=["192.0.2.10"], on_address_lost=policy)
    recovery = AddressRecovery(options.machine_config())
    assert recovery.doubted() == (
        "ignored" if policy is AddressLostPolicy.IGNORE else "checked again"
    )
