"""What a newcomer may write wrongly: each is refused on construction, and told what to write."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest

from vrrpkit import (
    VIP,
    Announcements,
    ConfigError,
    HMACAuth,
    MemoryBus,
    NotifyScripts,
    PasswordAuth,
    Peer,
    State,
    SyncGroup,
    TrackInterface,
    TrackScript,
    VRRPInstance,
)
from vrrpkit.testing import virtual_time


def router(interface: Any = "eth0", **changes: Any) -> VRRPInstance:
    usual: dict[str, Any] = {"name": "web", "vrid": 51, "vips": ["192.0.2.10/24"]}
    return VRRPInstance(interface=interface, **(usual | changes))


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"name": ""}, "the name of a router, '' must be text, such as 'web'"),
        ({"name": 5}, "the name of a router, 5"),
        ({"interface": None}, "interface None must be the name of a network interface, .* 'eth0'"),
        ({"interface": ""}, "interface '' must be"),
        ({"interface": MemoryBus()}, r"a MemoryBus: bus\.interface\('192\.0\.2\.1'\)"),
        ({"netns": 5}, "netns 5 must be a name that 'ip netns list' shows"),
        ({"netns": "/run/netns/a"}, "without a path"),
        ({"vips": None}, r"vips None must be a list; an empty one is written \[\]"),
        ({"vips": VIP("192.0.2.10/24")}, r"write vips as a list: vips=\[VIP\("),
        ({"vips": ["192.0.2.0/24"]}, "of the network itself, .* the address of a host in 192"),
        ({"vips": ["192.0.2.255/24"]}, r"or 192\.0\.2\.255/32 if it is meant"),
        ({"excluded_vips": "192.0.2.11"}, "write excluded_vips as a list"),
        ({"peers": Peer("192.0.2.2")}, "write peers as a list"),
        ({"routes": None}, "routes None must be a list"),
        ({"rules": "from all"}, "write rules as a list"),
        ({"source": "0.0.0.0"}, "leave it out to use the primary one"),
        ({"source": "224.0.0.18"}, "must be an address of the interface"),
        ({"interval": "1"}, "interval '1' cannot be said in VRRP version 3: use 0.01 to 40.95"),
        ({"interval": None}, "interval None"),
        ({"interval": True}, "interval True"),
        ({"preempt": "no"}, "preempt 'no' must be True or False"),
        ({"preempt_delay": "5"}, "preempt_delay '5' must be 0 to 1000 seconds"),
        ({"startup_delay": None}, "startup_delay None must be 0 to 1000 seconds"),
        ({"announcements": {"delay": 0}}, r"such as Announcements\(delay=1\)"),
        ({"accept": "no"}, "accept 'no' must be True or False"),
        ({"adverts_on_base": 1}, "adverts_on_base 1 must be True or False"),
        ({"wait_for_interface": "yes"}, "wait_for_interface 'yes' must be True or False"),
        ({"virtual_mac": 1}, "virtual_mac, unless it is the name .* 1 must be True or False"),
        ({"virtual_mac": "a/b"}, "and no '/', ':' or space"),
        ({"transport": "udp"}, "transport 'udp' must be a Transport"),
        ({"recorder": "x"}, "recorder 'x' must be a recorder, such as vrrpkit.testing.Recorder"),
        ({"bfd": "192.0.2.2"}, r"must be a BFDSession, such as BFDSession\('192\.0\.2\.2'"),
        ({"track": TrackInterface("eth1")}, "write track as a list"),
        ({"track": ["eth1"]}, r"track: each 'eth1' must be a Tracker, such as TrackInterface"),
        ({"track": [TrackScript]}, "must be a Tracker"),
        ({"notify": NotifyScripts("/bin/true")}, "write notify as a list"),
        ({"notify": [print]}, r"must be a notifier, .* or NotifyFunction\(function\)"),
        ({"notify": [NotifyScripts]}, "must be a notifier"),
    ],
)
def test_of_a_router(changes: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        router(**changes)


def test_netns_goes_with_a_name() -> None:
    with pytest.raises(ConfigError, match="netns goes with the name of an interface"):
        router(MemoryBus().interface("192.0.2.1"), netns="blue")
    assert router(netns="blue").state is State.INIT


def test_small_networks_have_no_ends() -> None:
    for vip in ("192.0.2.0/31", "192.0.2.255/32", "2001:db8::/64"):
        assert router(vips=[vip]).config.vips[0] == VIP(vip)


@pytest.mark.parametrize(
    ("made", "says"),
    [
        (lambda a, b: SyncGroup(a, [a, b]), "the name of a sync group, .* such as 'gateway'"),
        (lambda a, b: SyncGroup("g", a), "write instances as a list"),
        (lambda a, b: SyncGroup("g", None), r"an empty one is written \[\]"),
        (lambda a, b: SyncGroup("g", []), "needs 2 members or more, not 0"),
        (lambda a, b: SyncGroup("g", [a]), "a single VRRPInstance needs no group"),
        (lambda a, b: SyncGroup("g", ["a", "b"]), "its name is not enough"),
        (lambda a, b: SyncGroup("g", [SyncGroup("h", [a, b])]), "a group cannot be in a group"),
        (lambda a, b: SyncGroup("g", [a, a]), "two members 'a'; rename one"),
        (lambda a, b: SyncGroup("g", [a, b], track=["x"]), "must be a Tracker"),
        (lambda a, b: SyncGroup("g", [a, b], track=TrackInterface("x")), "track as a list"),
        (lambda a, b: SyncGroup("g", [a, b], notify=[print]), "must be a notifier"),
        (lambda a, b: SyncGroup("g", [a, b], member_weights=1), "must be True or False"),
    ],
)
def test_of_a_group(made: Callable[[Any, Any], object], says: str) -> None:
    interface = MemoryBus().interface("192.0.2.1")
    with pytest.raises(ConfigError, match=says):
        made(router(interface, name="a"), router(interface, name="b", vrid=52))


@pytest.mark.parametrize(
    ("kind", "values", "options", "says"),
    [
        (
            VIP,
            ("192.0.2.10/24",),
            {"label": 5},
            "label of 192.0.2.10/24: 5 must be text, such as 'eth0:1'",
        ),
        (VIP, ("192.0.2.10/24",), {"dev": 5}, "dev of 192.0.2.10/24: 5 must be text"),
        (VIP, ("192.0.2.10/24",), {"preferred_lifetime": "x"}, "0 seconds or more, or math.inf"),
        (Announcements, (), {"delay": "5"}, "delay '5' must be 0 to 86400 seconds"),
        (PasswordAuth, (None,), {}, "is text of 1 to 8 octets"),
        (HMACAuth, ({1: 5},), {"active": 1}, "an HMAC key must be bytes"),
        (HMACAuth, ({1: b"x" * 32},), {"active": 1, "window": "5"}, "window '5' must be 1 to 300"),
    ],
)
def test_of_small_values(
    kind: Callable[..., object], values: tuple[Any, ...], options: dict[str, Any], says: str
) -> None:
    with pytest.raises(ConfigError, match=says):
        kind(*values, **options)


@virtual_time()
async def test_of_commands() -> None:
    bus = MemoryBus()
    a, b = (
        router(bus.interface("192.0.2.1"), name=name, vrid=vrid, vips=[f"192.0.2.{vrid}/24"])
        for name, vrid in (("a", 51), ("b", 52))
    )
    group = SyncGroup("g", [a, b])
    async with group:
        for target in (a, group):
            with pytest.raises(ConfigError, match=r"such as State\.MASTER"):
                await target.wait_for("MASTER")  # type: ignore[arg-type]
            for seconds in ("60", True, math.inf, math.nan, 0):
                with pytest.raises(ConfigError, match="the number of seconds, more than 0"):
                    target.demote(seconds)  # type: ignore[arg-type]
        await group.wait_for(State.MASTER)
        with pytest.raises(ConfigError, match="repeat 0 must be a whole number from 1 to 60"):
            await a.announce(0)
        with pytest.raises(ConfigError, match="priority 255 must be a whole number from 1 to 254"):
            a.set_priority(255)
