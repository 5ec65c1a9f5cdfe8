"""The rules that masquerade what IPVS forwards."""

from __future__ import annotations

import asyncio

import pytest

from vrrpkit.errors import HostError
from vrrpkit.ipvs.masquerade.rules import Masquerade, rules
from vrrpkit.ipvs.model.endpoints import destination_key, service_keys
from vrrpkit.ipvs.model.entries import Destination, Forward
from vrrpkit.linux.sysctl import Sysctls


def nat(*servers: str, forward: Forward = Forward.NAT) -> list[Destination]:
    return [Destination(key=destination_key(server), forward=forward) for server in servers]


TO_80 = "meta l4proto tcp ct original ip daddr { 192.0.2.10 } ct original proto-dst 80"


def test_one_service() -> None:
    assert rules(service_keys("192.0.2.10:80"), nat("10.0.0.10:80", "10.0.0.9:80")) == [
        f"{TO_80} ip daddr {{ 10.0.0.9, 10.0.0.10 }} masquerade"
    ]


def test_many_services_share_the_set_of_servers() -> None:
    services = service_keys(["192.0.2.10-11:443,80,8000-8003", "192.0.2.12/udp", "fwmark 7"])
    both = "ct original ip daddr { 192.0.2.10, 192.0.2.11 }"
    assert rules(services, nat("10.0.0.1:80")) == [
        "ip daddr { 10.0.0.1 } jump { meta mark { 7 } masquerade; "
        f"meta l4proto tcp {both} ct original proto-dst 80 masquerade; "
        f"meta l4proto tcp {both} ct original proto-dst 443 masquerade; "
        f"meta l4proto tcp {both} ct original proto-dst 8000-8003 masquerade; "
        "meta l4proto udp ct original ip daddr { 192.0.2.12 } masquerade; }"
    ]


def test_each_family_has_its_rule() -> None:
    services = service_keys(["192.0.2.10:80", "[2001:db8::1]:53/udp"])
    assert rules(services, nat("10.0.0.1:80", "[fd00::1]:53")) == [
        f"{TO_80} ip daddr {{ 10.0.0.1 }} masquerade",
        "meta l4proto udp ct original ip6 daddr { 2001:db8::1 } ct original proto-dst 53 "
        "ip6 daddr { fd00::1 } masquerade",
    ]
    assert rules(services, nat("[fd00::1]:53"))[0].startswith("meta l4proto udp")
    assert rules(service_keys("fwmark 7 (IPv6)"), nat("[fd00::1]:53", "10.0.0.1:1")) == [
        "meta mark { 7 } ip6 daddr { fd00::1 } masquerade"
    ]


def test_only_nat_is_masqueraded() -> None:
    services = service_keys("192.0.2.10:80")
    assert rules(services, []) == []
    assert rules(services, nat("10.0.0.1:80", forward=Forward.DR)) == []
    assert rules(services, nat("10.0.0.1:80", forward=Forward.TUN)) == []


def test_an_address_with_several_ports_is_one_server() -> None:
    (rule,) = rules(service_keys("192.0.2.10:80"), nat("10.0.0.1:80", "10.0.0.1:81"))
    assert rule == f"{TO_80} ip daddr {{ 10.0.0.1 }} masquerade"


def test_an_ipvs_without_connection_tracking_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = {"ipv4/ip_forward": 1, "ipv4/vs/amemthresh": 1024}
    monkeypatch.setattr(Sysctls, "read", lambda _, name: settings.get(name))

    async def main() -> None:
        with pytest.raises(HostError, match="built without CONFIG_IP_VS_NFCT"):
            await Masquerade(service_keys("192.0.2.10:80")).__aenter__()

    asyncio.run(main())
