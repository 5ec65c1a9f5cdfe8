"""One entry of the table has one form, whoever writes it."""

from __future__ import annotations

import pytest

from vrrpkit import ConfigError
from vrrpkit.ipvs.model.endpoints import destination_key, service_keys
from vrrpkit.ipvs.model.entries import Destination, Forward, Service, Tunnel, TunnelType, flag_names

WEB, DNS6, MARK, MARK6 = service_keys(
    ["192.0.2.10:80", "[2001:db8::1]:53/udp", "fwmark 7", "fwmark 7 (IPv6)"]
)
SERVER = destination_key("10.0.0.1:8080")


def test_keys_show_themselves_as_people_write_them() -> None:
    assert [str(key) for key in (WEB, DNS6, MARK, MARK6)] == [
        "192.0.2.10:80/tcp",
        "[2001:db8::1]:53/udp",
        "fwmark 7",
        "fwmark 7 (IPv6)",
    ]
    assert str(SERVER) == "10.0.0.1:8080"
    assert str(destination_key("[2001:db8::2]:1")) == "[2001:db8::2]:1"


@pytest.mark.parametrize(
    ("scheduler", "names"),
    [
        ("sh", ("sh-fallback", "sh-port", "flag-3")),
        ("mh", ("mh-fallback", "mh-port", "flag-3")),
        ("wlc", ("flag-1", "flag-2", "flag-3")),
    ],
)
def test_a_flag_and_its_number_are_one(scheduler: str, names: tuple[str, str, str]) -> None:
    assert flag_names(scheduler) == names
    for number, name in enumerate(names, 1):
        numbered = Service(key=WEB, scheduler=scheduler, flags=frozenset({f"flag-{number}"}))
        assert numbered == Service(key=WEB, scheduler=scheduler, flags=frozenset({name}))
        assert numbered.flags == {name}


@pytest.mark.parametrize(("scheduler", "flag"), [("wlc", "sh-port"), ("mh", "sh-port"), ("sh", "")])
def test_a_flag_that_the_scheduler_does_not_have_is_refused(scheduler: str, flag: str) -> None:
    with pytest.raises(ConfigError, match=f"scheduler {scheduler} .* has no flag '{flag}'"):
        Service(key=WEB, scheduler=scheduler, flags=frozenset({flag}))


def test_the_granularity_of_one_client_is_none() -> None:
    assert Service(key=WEB, granularity=32) == Service(key=WEB)
    assert Service(key=DNS6, granularity=128) == Service(key=DNS6)
    assert Service(key=DNS6, granularity=32).granularity == 32
    assert Service(key=WEB, granularity=24).granularity == 24


def test_a_tunnel_belongs_to_tun_alone() -> None:
    gue = Tunnel(type=TunnelType.GUE, port=6080)
    assert Destination(key=SERVER, forward=Forward.TUN).tunnel == Tunnel()
    assert Destination(key=SERVER, forward=Forward.TUN, tunnel=gue).tunnel == gue
    assert Destination(key=SERVER, forward=Forward.DR, tunnel=gue).tunnel is None
    assert Destination(key=SERVER).tunnel is None
