"""Every option: what is taken, and what is refused with advice."""

from __future__ import annotations

import math
from ipaddress import ip_address
from typing import Any

import pytest

from builders import machine_config, options
from vrrpkit import VRRPInstance
from vrrpkit.errors import ConfigError
from vrrpkit.values import VIP, Announcements, Peer
from vrrpkit.vrrp.protocol.auth import HMACAuth, PasswordAuth
from vrrpkit.vrrp.protocol.packet import ChecksumForm
from vrrpkit.vrrp.protocol.profile import AddressLostPolicy

KEYS = HMACAuth({1: bytes(32)}, active=1)
MANY = [f"10.0.{n // 250}.{n % 250 + 1}" for n in range(256)]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"vrid": 0}, "vrid 0 must be a whole number from 1 to 255: the number that all routers"),
        ({"vrid": 256}, "vrid 256"),
        ({"vrid": "51"}, "vrid '51'"),
        ({"vrid": True}, "vrid True"),
        ({"priority": 0}, "priority 0 must be a whole number from 1 to 255: 255 is for the owner"),
        ({"priority": 256}, "priority 256"),
        ({"down_factor": 0}, "down_factor 0 must be a whole number from 1 to 100"),
        ({"down_factor": 101}, "down_factor 101"),
        ({"version": 1}, "version 1 must be a whole number from 2 to 3"),
        ({"version": "3"}, "version '3' must be a whole number from 2 to 3"),
        ({"interval": 0}, "use 0.01 to 40.95 seconds in steps of 0.01"),
        ({"interval": 41}, "use 0.01 to 40.95 seconds"),
        ({"interval": math.nan}, "use 0.01 to 40.95 seconds"),
        ({"interval": 0.5, "version": 2}, "use whole seconds from 1 to 255"),
        ({"preempt_delay": -1}, "preempt_delay -1 must be 0 to 1000 seconds"),
        ({"preempt_delay": math.nan}, "preempt_delay nan"),
        ({"startup_delay": 1001}, "startup_delay 1001 must be 0 to 1000 seconds"),
        ({"preempt": False, "priority": 255}, "preempt=False is impossible for an owner"),
        ({"accept": False, "priority": 255}, "accept=False is impossible for an owner"),
        ({"vip_lease": 1}, "vip_lease 1 must be a whole number from 2 to 86400"),
        ({"vip_lease": 2.5}, "vip_lease 2.5"),
        ({"vips": []}, "vips is empty: name at least one virtual address"),
        ({"vips": "192.0.2.10"}, r"write vips as a list: vips=\['192.0.2.10'\]"),
        ({"vips": ["192.0.2.10/240"]}, "ADDRESS/PREFIX"),
        ({"vips": MANY}, "256 announced addresses do not fit an advert: move all but 255"),
        ({"vips": ["192.0.2.10", "fe80::1"]}, "mixes IPv4 and IPv6: .* put the other in excluded"),
        ({"vips": ["192.0.2.10", "192.0.2.10/24"]}, "192.0.2.10 is named twice"),
        ({"excluded_vips": ["192.0.2.10"]}, "192.0.2.10 is named twice"),
        (
            {"excluded_vips": [VIP("fe80::1/64", dev="eth1"), VIP("fe80::1/128", dev="eth1")]},
            "fe80::1 on eth1 is named twice",
        ),
        ({"vips": ["127.0.0.1"]}, "127.0.0.1 is a loopback address.*'192.0.2.10/32'"),
        ({"vips": ["127.255.0.9/8"]}, "127.255.0.9 is a loopback address"),
        ({"vips": ["::1"]}, "::1 is a loopback address"),
        ({"excluded_vips": ["127.0.0.2"]}, "127.0.0.2 is a loopback address"),
        ({"excluded_vips": "192.0.2.11"}, "as a list"),
        ({"peers": "192.0.2.2"}, r"write peers as a list: peers=\['192.0.2.2'\]"),
        ({"peers": ["host"]}, "peer 'host' is no IPv4"),
        ({"peers": ["192.0.2.2", "192.0.2.2"]}, "a peer is named twice"),
        ({"peers": ["fe80::2"]}, "peer fe80::2 is not IPv4, as the virtual addresses are"),
        ({"peers": ["192.0.2.2"], "group": "224.0.0.19"}, "peers and group exclude each other"),
        ({"peers": ["192.0.2.2"], "source": "192.0.2.2"}, "is this router's own source"),
        ({"group": "192.0.2.2"}, "is no multicast address; for unicast use peers="),
        ({"group": "all"}, "group 'all' is no IPv4"),
        ({"group": "ff02::13"}, "group ff02::13 is not IPv4"),
        ({"source": "me"}, "source 'me' is no IPv4"),
        ({"source": "fe80::1"}, "source fe80::1 is not IPv4"),
        ({"source": "192.0.2.10"}, "is a virtual address: it moves away"),
        ({"source": "192.0.2.11", "excluded_vips": ["192.0.2.11"]}, "is a virtual address"),
        ({"virtual_mac": ""}, "interface name '' must have 1 to 15 octets"),
        ({"virtual_mac": "a" * 16}, "must have 1 to 15 octets"),
        ({"auth": PasswordAuth("s3cret")}, "a password exists in VRRP version 2 only"),
        ({"auth": "s3cret"}, "auth must be a PasswordAuth or an HMACAuth"),
        ({"profile": "cisco"}, "profile 'cisco' must be one of"),
        ({"checksum": "md5"}, "checksum form 'md5' must be one of pseudo-header, message-only"),
        ({"insist_checksum": "md5"}, "must be one of pseudo-header, message-only"),
        ({"vips": ["fe80::1"], "version": 2}, "version 2 knows no IPv6: use version=3"),
        ({"on_address_lost": "cry"}, "on_address_lost 'cry' must be one of reinstate"),
    ],
)
def test_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        options(**changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"peers": ["192.0.2.2"]}, "the strict profile allows no peers"),
        ({"auth": KEYS}, "no auth"),
        ({"preempt_delay": 1}, "no preempt_delay"),
        ({"startup_delay": 1}, "no startup_delay"),
        ({"down_factor": 4}, "no down_factor"),
        ({"vips": ["2001:db8::1"]}, "wants a link-local IPv6 address first: add one"),
    ],
)
def test_refused_by_the_strict_profile(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        options(profile="strict", **changes)
    options(**changes)


def test_a_password_is_not_shown_when_it_is_refused() -> None:
    with pytest.raises(ConfigError) as caught:
        options(auth="hunter22", version=2)
    assert "hunter22" not in str(caught.value)


@pytest.mark.parametrize(
    "changes",
    [
        {"vips": MANY[:255]},
        {"excluded_vips": ["fe80::1", "192.0.2.11/32"]},
        {"interval": 0.01, "preempt_delay": 1000, "startup_delay": 1000, "down_factor": 100},
        {"version": 2, "interval": 255, "auth": PasswordAuth("s3cret")},
        {"version": 2, "auth": KEYS},
        {"priority": 255, "source": "192.0.2.10"},
        {"vip_lease": 3, "virtual_mac": True, "adverts_on_base": True},
        {"virtual_mac": "vrrp.51"},
        {"vips": ["fe80::10", "2001:db8::10"], "profile": "strict"},
        {"profile": "strict"},
    ],
)
def test_taken(changes: dict[str, Any]) -> None:
    options(**changes)


def test_families_and_destinations() -> None:
    four = options()
    assert (four.family, four.destination) == (4, ip_address("224.0.0.18"))
    six = options(vips=["2001:db8::10/64", "fe80::10"])
    assert (six.family, six.destination) == (6, ip_address("ff02::12"))
    assert options(group="224.0.0.99").destination == ip_address("224.0.0.99")
    assert options(peers=[Peer("192.0.2.2"), "192.0.2.3"]).destination is None


def test_a_link_local_address_goes_first() -> None:
    six = options(vips=["2001:db8::10/64", "fe80::10", "2001:db8::11"], excluded_vips=["10.0.0.1"])
    assert [str(vip.address) for vip in six.vips_in_order] == [
        "fe80::10",
        "2001:db8::10",
        "2001:db8::11",
    ]
    assert [str(vip.address) for vip in six.all_vips][-1] == "10.0.0.1"
    assert ip_address("10.0.0.1") in six.all_addresses
    assert [str(vip) for vip in options().vips_in_order] == ["192.0.2.10/24"]


def test_what_must_be_unique_on_an_interface() -> None:
    key = options().key
    assert key == options(name="other", priority=1, vips=["192.0.2.11"]).key
    different = [
        options(vrid=52),
        options(vips=["fe80::1"]),
        options(group="224.0.0.99"),
        options(peers=["192.0.2.2"]),
        options(peers=["192.0.2.2", "192.0.2.3"]),
    ]
    assert len({key, *(one.key for one in different)}) == 6
    backwards = options(peers=["192.0.2.3", "192.0.2.2"])
    assert backwards.key == different[-1].key


def test_what_the_profile_decides_unless_told() -> None:
    assert options().used_announcements == Announcements()
    assert options(profile="strict").used_announcements.repeat == 1
    mine = Announcements(repeat=3)
    assert options(announcements=mine).used_announcements is mine
    assert options().machine_config().address_lost is AddressLostPolicy.REINSTATE
    lost = options(profile="keepalived", on_address_lost="ignore").machine_config().address_lost
    assert lost is AddressLostPolicy.IGNORE
    assert options(checksum="message-only").checksum is ChecksumForm.MESSAGE_ONLY


def test_the_machine_is_told_everything() -> None:
    told = options(
        priority=254,
        interval=0.25,
        preempt=False,
        preempt_delay=2,
        down_factor=5,
        startup_delay=7,
        profile="keepalived",
        announcements=Announcements(repeat=9),
    )
    assert told.machine_config() == machine_config(
        priority=254,
        interval=0.25,
        preempt=False,
        preempt_delay=2,
        down_factor=5,
        startup_delay=7,
        profile="keepalived",
        repeat=9,
    )
    assert told.wire_interval == 25
    assert not told.owner
    assert options(priority=255).owner


@pytest.mark.parametrize(
    ("changes", "accepts"),
    [
        ({}, True),
        ({"accept": False}, False),
        ({"profile": "strict"}, False),
        ({"profile": "strict", "accept": True}, True),
        ({"profile": "strict", "priority": 255}, True),
        ({"accept": True, "priority": 255}, True),
    ],
)
def test_an_owner_always_accepts_and_others_as_they_are_told(
    changes: dict[str, Any], accepts: bool
) -> None:
    assert options(**changes).accepts is accepts


def test_version_2_has_no_ipv6() -> None:
    with pytest.raises(ConfigError, match="version 2 knows no IPv6: use version=3"):
        VRRPInstance("web", "eth0", vrid=1, vips=["2001:db8::10/64"], version=2)
    # An IPv4 router may well carry it along.
    VRRPInstance(
        "web",
        "eth0",
        vrid=1,
        vips=["192.0.2.10/24"],
        excluded_vips=["2001:db8::10/64"],
        version=2,
    )
