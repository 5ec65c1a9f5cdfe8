"""What a virtual server refuses on construction, and what it makes of what it accepts."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import attrs
import pytest

from vrrpkit import ConfigError, VRRPInstance
from vrrpkit.checks.ping import PingChecker
from vrrpkit.checks.tcp import TCPChecker
from vrrpkit.configured import values_of
from vrrpkit.ipvs.config import VirtualServerConfig
from vrrpkit.ipvs.memory.table import MemoryTable
from vrrpkit.ipvs.model.entries import SCHEDULERS, Forward, Tunnel, TunnelType
from vrrpkit.ipvs.server import RealServer, VirtualServer

GUE = Tunnel(type=TunnelType.GUE, port=5555)


def options(**changes: Any) -> VirtualServerConfig:
    usual: dict[str, Any] = {"services": "192.0.2.10:80", "servers": ["10.0.0.1:80"]}
    return VirtualServerConfig(**(usual | changes))


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"services": ()}, "needs a service"),
    ({"services": (), "fwmark": 0}, "fwmark 0 must be"),
    ({"services": "192.0.2.10:80", "fwmark": 1}, "a firewall mark takes the place of"),
    ({"services": "fwmark 1:80"}, "a firewall mark has no port"),
    ({"services": [80]}, "service 80 must be text, such as '192.0.2.10:80/tcp'"),
    ({"family": 6}, "family 6 goes with fwmark="),
    ({"servers": [1]}, "real server 1 must be text, such as '10.0.0.1:8080'"),
    ({"servers": 5}, r"write servers as a list: \['10.0.0.1:8080'\]"),
    ({"scheduler_flags": [5]}, "flag 5 must be text"),
    ({"services": "[::ffff:192.0.2.10]:80"}, "no packet carries; write 192.0.2.10"),
    ({"servers": RealServer("10.0.0.1:80")}, r"as a list: servers=\['10.0.0.1:80'\]"),
    ({"tunnel": "gue"}, r"tunnel 'gue' is no Tunnel; write Tunnel\(type="),
    ({"poll_interval": "3"}, "poll_interval '3' must be 0.1 to 86400 seconds, or None"),
    ({"poll_interval": True}, "poll_interval True must be"),
    ({"name": ""}, "name of the virtual server is empty"),
    ({"scheduler": "best"}, "scheduler 'best' must be one of rr, wrr"),
    ({"scheduler_flags": ["sh-port"]}, "scheduler wlc of .* has no flag 'sh-port'"),
    ({"scheduler": "mh", "scheduler_flags": ["sh-port"]}, "has no flag 'sh-port'.*mh-fallback"),
    ({"scheduler_flags": "flag-1"}, "as a list"),
    ({"forward": "masq"}, "forward 'masq' must be one of 'nat', 'dr', 'tun'"),
    ({"forward": Forward.LOCAL}, "must be one of"),
    ({"weight": -1}, "weight -1 must be"),
    ({"weight": 2**31}, "weight 2147483648 must be"),
    ({"weight": True}, "weight True must be"),
    ({"persistence": 0}, "persistence 0 must be"),
    ({"persistence": 2678401}, "persistence 2678401 must be"),
    ({"granularity": 24}, "granularity goes with persistence"),
    ({"persistence_engine": "sip"}, "persistence_engine goes with persistence"),
    ({"persistence": 9, "granularity": 0}, "granularity 0 must be .* 1 to 32"),
    ({"persistence": 9, "granularity": 33}, "granularity 33 must be .* 1 to 32"),
    (
        {
            "services": "[2001:db8::1]:80",
            "servers": [],
            "persistence": 9,
            "granularity": 129,
        },
        "1 to 128",
    ),
    ({"persistence": 9, "persistence_engine": "http"}, "must be 'sip'"),
    ({"persistence": 9, "persistence_engine": "sip"}, "'sip' reads UDP only"),
    ({"services": "192.0.2.10"}, "is for every port, which takes persistence"),
    ({"one_packet": True}, "one_packet schedules each packet of UDP"),
    ({"services": "192.0.2.10:80/sctp", "one_packet": True}, "one_packet"),
    ({"quorum": 0}, "quorum 0 must be"),
    (
        {"quorum": 2, "hysteresis": 2},
        "hysteresis 2 must be a whole number from 0 to 1: less than quorum",
    ),
    ({"hysteresis": -1}, "hysteresis -1"),
    ({"quorum": 2, "hysteresis": 0.5}, "hysteresis 0.5"),
    ({"at_exit": "leave"}, "at_exit 'leave' must be 'remove' or 'keep'"),
    ({"sorry_inhibit": True}, "sorry_inhibit goes with sorry"),
    ({"state_file": "/run/x"}, "state_file goes with name"),
    ({"poll_interval": 0}, "poll_interval 0 must be"),
    ({"masquerade": True, "forward": "dr"}, "masquerade is for forward='nat'"),
    ({"tunnel": Tunnel()}, "tunnel goes with forward='tun'"),
    ({"forward": "tun", "tunnel": Tunnel(type=TunnelType.GUE)}, "port of the GUE tunnel 0"),
    ({"forward": "tun", "tunnel": Tunnel(port=5)}, "only a GUE tunnel has a port"),
    ({"forward": "tun", "tunnel": Tunnel(checksum=True)}, "an IPIP tunnel has no checksum"),
    (
        {"forward": "tun", "tunnel": Tunnel(type=TunnelType.GRE, remote_checksum=True)},
        "only a GUE tunnel offloads",
    ),
    (
        {
            "forward": "tun",
            "tunnel": Tunnel(type=TunnelType.GUE, port=1, checksum=True, remote_checksum=True),
        },
        "exclude each other",
    ),
    ({"check": "tcp"}, "check 'tcp' is no Checker"),
    ({"check": TCPChecker}, "is no Checker"),
    ({"servers": "10.0.0.1:80"}, "servers as a list"),
    ({"servers": ["10.0.0.1:80", "10.0.0.1:80"]}, "10.0.0.1:80 is in the pool already"),
    (
        {"servers": ["10.0.0.1:80", RealServer("10.0.0.1:80", name="b")]},
        "real server b: 10.0.0.1:80 is in the pool already",
    ),
    ({"servers": ["10.0.0.1:80", "10.0.0.1"]}, "10.0.0.1:0 is in the pool already"),
    ({"servers": ["10.0.0.1", "10.0.0.1:80"]}, "10.0.0.1:80 is in the pool already"),
    ({"sorry": "10.0.0.1:80"}, "10.0.0.1:80 is in the pool already"),
    ({"forward": "dr", "servers": ["10.0.0.1:8080"]}, "dr cannot change the port"),
    ({"forward": "tun", "servers": ["10.0.0.1:8080"]}, "tun cannot change the port"),
    ({"services": "192.0.2.10:80,443", "forward": "dr"}, "leave it out"),
    ({"services": (), "fwmark": 1, "forward": "dr"}, "dr cannot change the port"),
    ({"forward": "dr", "sorry": "10.0.0.9:8080"}, "10.0.0.9:8080: dr cannot change the port"),
    ({"servers": ["[2001:db8::1]:80"]}, "different address families"),
    ({"servers": ["[2001:db8::1]"], "forward": "dr"}, "different address families"),
    ({"services": (), "fwmark": 1, "family": 6, "servers": ["10.0.0.1"]}, "different address"),
    ({"services": ["192.0.2.10:80", "[2001:db8::1]:80"]}, "different address families"),
    ({"alpha": True}, "with alpha it is down until its checks pass"),
    ({"servers": ["10.0.0.1"], "services": (), "fwmark": 1, "check": TCPChecker()}, "no port"),
    ({"servers": ["10.0.0.1"], "services": "192.0.2.10:80,443", "check": TCPChecker()}, "no port"),
    ({"sorry": RealServer("10.0.0.9:80", check=TCPChecker())}, "it is not checked"),
    ({"sorry": RealServer("10.0.0.9:80", alpha=True)}, "it is not checked"),
    ({"sorry": RealServer("10.0.0.9:80", inhibit_on_failure=True)}, "it is not checked"),
    ({"sorry": RealServer("10.0.0.9:80", weight=0)}, "stand in for nobody"),
    ({"servers": [RealServer("10.0.0.1:80", tunnel=GUE)]}, "tunnel goes with forward='tun'"),
]


@pytest.mark.parametrize(("changes", "message"), REFUSED)
def test_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        options(**changes)


WRONG: list[object] = [5, 1.5, b"x", object(), [None], {"a": 1}, float("nan"), "2", TCPChecker]
TAKEN: dict[str, tuple[object, ...]] = {
    "services": ("2",),
    "name": ("2",),
    "fwmark": (5,),
    "weight": (5,),
    "persistence": (5,),
    "granularity": (5,),
    "quorum": (5,),
    "state_file": ("2",),
    "poll_interval": (5, 1.5),
    "sorry": ("2",),
}
"""What is of the right type among them."""
NAMED = {
    "services": "service",
    "servers": "servers|real server",
    "sorry": "sorry server",
    "notify": "notify",
    "scheduler_flags": "scheduler_flags|has no flag 'a'",
}
PARAMETERS = [name for name in inspect.signature(VirtualServer).parameters if name != "follows"]


@pytest.mark.parametrize("name", PARAMETERS)
def test_what_is_of_a_wholly_wrong_type_is_refused_by_name(name: str) -> None:
    usual: dict[str, Any] = {"services": "192.0.2.10:80", "servers": ["10.0.0.1:80"], "name": "web"}
    if name == "fwmark":
        del usual["services"]
    if name in ("granularity", "persistence_engine"):
        usual["persistence"] = 360
    for value in WRONG:
        if value in TAKEN.get(name, ()):
            continue
        with pytest.raises(ConfigError, match=NAMED.get(name, name)):
            VirtualServer(**(usual | {name: value}))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"endpoint": 5}, "endpoint 5 must be text"),
        ({"name": 5}, "name 5 must be text"),
        ({"alpha": 1}, "alpha 1 must be True or False"),
        ({"inhibit_on_failure": "no"}, "inhibit_on_failure 'no' must be True or False"),
        ({"endpoint": "[::ffff:10.0.0.1]:80"}, "no packet carries; write 10.0.0.1"),
        ({"endpoint": "10.0.0.1:http"}, "port 'http'"),
        ({"endpoint": "[fe80::1]:80"}, "link-local"),
        ({"name": ""}, "name is empty"),
        ({"weight": -1}, "weight -1 must be"),
        ({"weight": 2**31}, "weight 2147483648 must be"),
        ({"upper": -1}, "upper -1 must be"),
        ({"upper": 2**32}, "upper 4294967296 must be"),
        ({"upper": 9, "lower": 10}, "lower 10 is above upper 9"),
        ({"lower": 1}, "lower 1 is above upper 0"),
        ({"forward": "gre"}, "forward 'gre' must be"),
        ({"tunnel": Tunnel(port=1)}, "only a GUE tunnel"),
        ({"check": [1]}, "check 1 is no Checker"),
    ],
)
def test_a_real_server_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        RealServer(**({"endpoint": "10.0.0.1:80"} | changes))


@pytest.mark.parametrize(
    "changes",
    [
        {"weight": 0},
        {"weight": 2**31 - 1},
        {"persistence": 1},
        {"persistence": 2678400},
        {"persistence": 9, "granularity": 1},
        {"services": "192.0.2.10", "persistence": 360},
        {"services": "192.0.2.10:80/udp", "one_packet": True},
        {"services": "192.0.2.10:80/udp", "persistence": 9, "persistence_engine": "sip"},
        {"services": (), "fwmark": [1, 2], "servers": ["10.0.0.1"], "one_packet": True},
        {"quorum": 5, "hysteresis": 4},
        {"poll_interval": None},
        {"poll_interval": 0.1},
        {"forward": "dr"},
        {"forward": "tun", "servers": ["[2001:db8::1]:80"]},
        {"services": ["192.0.2.10:80", "[2001:db8::1]:80"], "forward": "tun"},
        {"services": (), "fwmark": 1, "forward": "dr", "servers": ["10.0.0.1"]},
        {"forward": "tun", "tunnel": GUE},
        {"tunnel": GUE, "servers": [RealServer("10.0.0.1", forward="tun")]},
        {"forward": "dr", "masquerade": True, "servers": [RealServer("10.0.0.1", forward="nat")]},
        {"servers": ["10.0.0.1:80", "10.0.0.1:81"]},
        {"servers": ["10.0.0.1", "10.0.0.1:81"]},
        {"servers": []},
        {"scheduler": "sh", "scheduler_flags": ["sh-port", "sh-fallback"]},
        {"scheduler": "mh", "scheduler_flags": ["flag-1"]},
        {"state_file": "/run/x", "name": "web"},
        {"sorry": "10.0.0.9:80", "sorry_inhibit": True},
        {"services": (), "fwmark": 1, "servers": ["10.0.0.1"], "check": TCPChecker(port=80)},
    ],
)
def test_accepted(changes: dict[str, Any]) -> None:
    assert options(**changes).entries


@pytest.mark.parametrize("scheduler", SCHEDULERS)
def test_the_schedulers_are_those_that_the_table_knows(scheduler: str) -> None:
    MemoryTable().require([scheduler])
    assert options(scheduler=scheduler).entries[0].scheduler == scheduler


def test_the_virtual_server_passes_everything_on() -> None:
    checker = TCPChecker()
    given: dict[str, Any] = {
        "name": "web",
        "scheduler": "sh",
        "scheduler_flags": ["sh-port"],
        "forward": "tun",
        "tunnel": GUE,
        "weight": 3,
        "persistence": 50,
        "granularity": 24,
        "check": checker,
        "quorum": 4,
        "hysteresis": 2,
        "sorry": "10.0.0.9",
        "sorry_inhibit": True,
        "inhibit_on_failure": True,
        "alpha": True,
        "omega": True,
        "at_exit": "keep",
        "state_file": "/run/web.json",
        "poll_interval": 3.0,
    }
    web = VirtualServer("192.0.2.10:80/udp", servers=["10.0.0.1"], **given)
    assert web.config == VirtualServerConfig(
        services="192.0.2.10:80/udp", servers=["10.0.0.1"], **given
    )
    assert web.config.state_file == Path("/run/web.json")
    (service,) = web.config.entries
    assert (service.scheduler, service.flags) == ("sh", {"sh-port"})
    assert (service.persistence, service.granularity) == (50, 24)
    ((member, checks, target, alpha),) = [
        (e.member, e.checks, e.target, e.alpha) for e in web.config.configured_server
    ]
    assert (member.weight, member.forward, member.tunnel) == (3, Forward.TUN, GUE)
    assert (member.inhibit_on_failure, alpha, checks) == (True, True, (checker,))
    assert (str(target.address), target.port, target.name) == ("10.0.0.1", 80, "10.0.0.1")
    assert web.config.stand_in is not None and web.config.stand_in.weight == 1
    assert (web.name, repr(web)) == ("web", "<VirtualServer 'web' init>")
    packets = VirtualServer(
        fwmark=7, family=6, servers=["[2001:db8::1]"], one_packet=True, masquerade=True
    )
    assert packets.name == "fwmark 7 (IPv6)"
    assert packets.config.entries[0].one_packet and packets.config.masquerade


def test_a_description_makes_the_server_it_describes() -> None:
    config = options(name="web", quorum=2, servers=["10.0.0.1:80", "10.0.0.2:80"])
    web = VirtualServer.of(config, table=MemoryTable())
    assert web.config == config
    assert VirtualServer(**values_of(config)).config == config
    assert attrs.evolve(config, quorum=1) == options(
        name="web", servers=["10.0.0.1:80", "10.0.0.2:80"]
    )
    with pytest.raises(ConfigError, match="hysteresis 5 must be a whole number from 0 to 1: less"):
        attrs.evolve(config, hysteresis=5)


def test_a_description_names_what_it_follows() -> None:
    router = VRRPInstance("VI_1", "eth0", vrid=1, vips=["192.0.2.10/24"])
    other = VRRPInstance("VI_2", "eth0", vrid=2, vips=["192.0.2.11/24"])
    config = options(follows="VI_1")
    assert VirtualServer("192.0.2.10:80", servers=["10.0.0.1:80"], follows=router).config == config
    assert VirtualServer.of(config, follows=router).config == config
    with pytest.raises(ConfigError, match="tcp: its description follows 'VI_1', not 'VI_2'; pass"):
        VirtualServer.of(config, follows=other)
    with pytest.raises(ConfigError, match="follows 'VI_1', and none was given; pass that router"):
        VirtualServer.of(config)
    wrong: Any = router
    with pytest.raises(ConfigError, match="must be text, such as 'web', the name of a router"):
        options(follows=wrong)


def test_the_constructor_shows_its_options() -> None:
    parameters = inspect.signature(VirtualServer).parameters
    described = inspect.signature(VirtualServerConfig).parameters
    assert set(parameters) - set(described) == {"table", "check_scheduler", "notify"}
    assert list(parameters)[:3] == ["services", "servers", "name"]
    assert parameters["services"].kind is inspect.Parameter.POSITIONAL_OR_KEYWORD
    assert parameters["servers"].kind is inspect.Parameter.KEYWORD_ONLY
    assert parameters["scheduler"].default == "wlc"
    text = VirtualServer.__init__.__doc__ or ""
    assert [name for name in parameters if f":param {name}:" not in text] == []


def test_only_a_router_or_a_group_is_followed() -> None:
    name: Any = "VI_1"
    with pytest.raises(ConfigError, match=r"web: follows 'VI_1' must be a VRRPInstance or a Sync"):
        VirtualServer("192.0.2.10:80", servers=["10.0.0.1"], name="web", follows=name)


def test_a_real_server_says_it_for_itself() -> None:
    own = TCPChecker(port=1)
    made = options(
        check=TCPChecker(),
        alpha=True,
        inhibit_on_failure=True,
        servers=[
            RealServer(
                "10.0.0.1",
                name="a",
                weight=0,
                forward="dr",
                upper=9,
                lower=3,
                inhibit_on_failure=False,
                alpha=False,
                check=own,
            ),
            RealServer("10.0.0.2", check=(), alpha=False),
        ],
    )
    a, b = made.configured_server
    assert (a.member.name, a.member.weight, a.member.forward) == ("a", 0, Forward.DR)
    assert (a.member.upper, a.member.lower, a.member.inhibit_on_failure) == (9, 3, False)
    assert (a.alpha, a.checks, a.target.name) == (False, (own,), "a")
    assert (b.checks, b.member.inhibit_on_failure) == ((), True)


def test_a_target_without_one_port_has_none() -> None:
    checker = PingChecker()
    made = options(services="192.0.2.10:80,443", servers=["10.0.0.1"], check=checker)
    assert made.configured_server[0].target.port is None
    assert made.enlist(RealServer("10.0.0.2:81")).target.port == 81


def test_the_kind_of_a_tunnel_may_be_written_as_text() -> None:
    kind: Any = "gre"
    assert Tunnel(type=kind) == Tunnel(type=TunnelType.GRE)
    for wrong in ("vxlan", 5, None):
        kind = wrong
        with pytest.raises(ConfigError, match=f"type {wrong!r} must be one of 'ipip', 'gue'"):
            Tunnel(type=kind)
    for name in ("checksum", "remote_checksum"):
        with pytest.raises(ConfigError, match=f"{name} 1 must be True or False"):
            Tunnel(**{name: 1})  # type: ignore[arg-type]
