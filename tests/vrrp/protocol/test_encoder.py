"""Adverts as octets: encoded once where nothing changes, signed anew where they must be."""

from __future__ import annotations

from ipaddress import ip_address
from typing import Any

import pytest

from builders import options, validator
from vrrpkit.vrrp.protocol.auth import HMACAuth, PasswordAuth, Verifier
from vrrpkit.vrrp.protocol.encoder import AdvertWriter
from vrrpkit.vrrp.protocol.packet import ChecksumForm, decode

SOURCE = ip_address("192.0.2.1")
GROUP = ip_address("224.0.0.18")
WALL = 1.7e9
KEYS = HMACAuth({1: bytes(32)}, active=1)


def writer(**changes: Any) -> AdvertWriter:
    return options(**changes).advert_writer()


def test_one_advert_to_the_group() -> None:
    ((payload, destination),) = writer().outgoing(150, SOURCE, WALL)
    assert destination == GROUP
    decoded = decode(payload, SOURCE, GROUP)
    assert decoded.checksum is ChecksumForm.PSEUDO_HEADER
    advert = decoded.advert
    assert (advert.version, advert.vrid, advert.priority, advert.interval) == (3, 51, 150, 1.0)
    assert [str(address) for address in advert.addresses] == ["192.0.2.10"]


def test_excluded_addresses_are_not_announced_and_link_local_goes_first() -> None:
    ours = writer(vips=["2001:db8::10", "fe80::10"], excluded_vips=["192.0.2.11"])
    source = ip_address("fe80::1")
    ((payload, destination),) = ours.outgoing(150, source, WALL)
    assert destination == ip_address("ff02::12")
    addresses = decode(payload, source, destination).advert.addresses
    assert [str(address) for address in addresses] == ["fe80::10", "2001:db8::10"]


def test_the_same_octets_until_something_changes() -> None:
    ours = writer()
    assert not ours.signs
    first = ours.outgoing(150, SOURCE, WALL)
    assert ours.outgoing(150, SOURCE, WALL + 1) is first
    assert ours.outgoing(0, SOURCE, WALL) != first
    assert ours.outgoing(150, SOURCE, WALL) is first
    assert ours.outgoing(150, SOURCE + 1, WALL) != first
    for priority in range(1, 100):
        ours.outgoing(priority, SOURCE, WALL)
    assert ours.outgoing(150, SOURCE, WALL) == first


@pytest.mark.parametrize(
    ("changes", "form"),
    [
        ({}, ChecksumForm.PSEUDO_HEADER),
        ({"profile": "strict"}, ChecksumForm.MESSAGE_ONLY),
        ({"checksum": "message-only"}, ChecksumForm.MESSAGE_ONLY),
        ({"profile": "strict", "checksum": "pseudo-header"}, ChecksumForm.PSEUDO_HEADER),
        ({"version": 2}, ChecksumForm.MESSAGE_ONLY),
    ],
)
def test_the_form_of_the_checksum(changes: dict[str, Any], form: ChecksumForm) -> None:
    ((payload, _),) = writer(**changes).outgoing(150, SOURCE, WALL)
    assert decode(payload, SOURCE, GROUP).checksum is form


def test_every_peer_gets_its_own_checksum() -> None:
    outgoing = writer(peers=["192.0.2.2", "192.0.2.3"]).outgoing(150, SOURCE, WALL)
    assert [str(destination) for _, destination in outgoing] == ["192.0.2.2", "192.0.2.3"]
    assert len({payload for payload, _ in outgoing}) == 2
    for payload, destination in outgoing:
        decode(payload, SOURCE, destination)


def test_a_password() -> None:
    auth = PasswordAuth("s3cret")
    ((payload, _),) = writer(version=2, auth=auth).outgoing(150, SOURCE, WALL)
    advert = decode(payload, SOURCE, GROUP).advert
    assert (advert.auth_type, advert.auth_data) == (1, b"s3cret\0\0")


@pytest.mark.parametrize("version", [2, 3])
def test_signed_adverts(version: int) -> None:
    ours = writer(version=version, auth=KEYS)
    assert ours.signs
    receiver = validator(
        version=version,
        wire_interval=1 if version == 2 else 100,
        auth=KEYS,
        verifier=Verifier(KEYS, 1.0),
    )
    for _ in range(3):
        ((payload, _),) = ours.outgoing(150, SOURCE, WALL)
        assert receiver.inspect(payload, SOURCE, GROUP, 255, WALL).ahead == pytest.approx(0, abs=1)


def test_one_signature_for_all_peers() -> None:
    ours = writer(auth=KEYS, peers=["192.0.2.2", "192.0.2.3"])
    (one, _), (other, _) = ours.outgoing(150, SOURCE, WALL)
    assert one[-28:] == other[-28:]
    assert one[6:8] != other[6:8]


def test_receive_only_signs_nothing() -> None:
    ours = writer(auth=HMACAuth({1: bytes(32)}, active=1, mode="receive-only"))
    assert not ours.signs
    ((payload, _),) = ours.outgoing(150, SOURCE, WALL)
    assert len(payload) == 12
