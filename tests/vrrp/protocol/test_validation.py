"""Which adverts are acted upon: every verdict, and which comes first."""

from __future__ import annotations

from ipaddress import ip_address
from typing import Any

import attrs
import pytest

from builders import validator
from vrrpkit.errors import DecodeError
from vrrpkit.values import Peer
from vrrpkit.vrrp.protocol.auth import HMACAuth, PasswordAuth, Signer, Verifier
from vrrpkit.vrrp.protocol.packet import Advertisement, ChecksumForm, Message, encode, unsigned
from vrrpkit.vrrp.protocol.validation import ValidAdvert

SOURCE, GROUP = ip_address("192.0.2.2"), ip_address("224.0.0.18")
SOURCE6, GROUP6 = ip_address("fe80::2"), ip_address("ff02::12")
US = ip_address("192.0.2.1")
FOUR = Advertisement(
    version=3, vrid=51, priority=150, wire_interval=100, addresses=(ip_address("192.0.2.10"),)
)
SIX = attrs.evolve(FOUR, addresses=(ip_address("fe80::10"), ip_address("2001:db8::10")))
TWO = attrs.evolve(FOUR, version=2, wire_interval=1)
OURS = {
    3: {},
    2: {"version": 2, "wire_interval": 1},
    6: {"addresses": frozenset(SIX.addresses), "group": GROUP6},
}
WALL = 1.7e9


def hear(
    advert: Advertisement = FOUR,
    *,
    source: Any = None,
    destination: Any = None,
    ttl: int = 255,
    payload: bytes | None = None,
    form: ChecksumForm = ChecksumForm.PSEUDO_HEADER,
    **ours: Any,
) -> ValidAdvert:
    source = source or (SOURCE if advert.family == 4 else SOURCE6)
    destination = destination or (GROUP if advert.family == 4 else GROUP6)
    usual = OURS[6 if advert.family == 6 else advert.version]
    if payload is None:
        payload = encode(advert, source, destination, form)
    return validator(**(usual | ours)).inspect(payload, source, destination, ttl, WALL)


def verdict(*args: Any, **changes: Any) -> str:
    """``accepted``, or the reason and what differed."""
    try:
        hear(*args, **changes)
    except DecodeError as problem:
        return str(problem)
    return "accepted"


def remarks(*args: Any, **changes: Any) -> list[str]:
    heard = hear(*args, **changes)
    return [f"{remark.anomaly}: {remark.got} / {remark.want}" for remark in heard.remarks]


@pytest.mark.parametrize("advert", [FOUR, SIX, TWO], ids=["v3", "v6", "v2"])
def test_a_good_advert(advert: Advertisement) -> None:
    heard = hear(advert)
    assert (heard.advert, heard.remarks, heard.ahead) == (advert, (), 0.0)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"ttl": 254}, "ttl: got 254, want 255"),
        ({"ttl": 0}, "ttl: got 0, want 255"),
        (
            {"destination": ip_address("224.0.0.19")},
            "destination: got 224.0.0.19, want 224.0.0.18",
        ),
        ({"destination": US}, "destination: got 192.0.2.1, want 224.0.0.18"),
        (
            {"own": frozenset({SOURCE})},
            "own-source: got 192.0.2.2, want another router's address",
        ),
        ({"vrid": 52}, "vrid: got 51, want 52"),
        ({"version": 2, "wire_interval": 1}, "version: got 3, want 2"),
        ({"payload": b"short"}, "packet-length: got 5, want at least 8"),
    ],
)
def test_dropped(changes: dict[str, Any], expected: str) -> None:
    assert verdict(**changes) == expected


# --- unicast


PEERS = {SOURCE: Peer("192.0.2.2")}
UNICAST = {"group": None, "peers": PEERS, "destination": US}


@pytest.mark.parametrize("ttl", [1, 64, 255])
def test_a_peer_may_be_routed(ttl: int) -> None:
    assert verdict(ttl=ttl, **UNICAST) == "accepted"


@pytest.mark.parametrize(
    ("ttl", "expected"),
    [
        (252, "ttl: got 252, want 253 to 254"),
        (253, "accepted"),
        (254, "accepted"),
        (255, "ttl: got 255, want 253 to 254"),
    ],
)
def test_the_ttl_range_of_a_peer(ttl: int, expected: str) -> None:
    peers = {SOURCE: Peer("192.0.2.2", min_ttl=253, max_ttl=254)}
    assert verdict(ttl=ttl, **(UNICAST | {"peers": peers})) == expected


def test_strangers() -> None:
    stranger = ip_address("192.0.2.3")
    assert verdict(source=stranger, **UNICAST) == "unknown-peer: got 192.0.2.3, want one of peers="
    assert (
        verdict(**(UNICAST | {"destination": GROUP})) == "destination: got 224.0.0.18, want unicast"
    )


def test_global_peers_of_ipv6_need_no_link_local_source() -> None:
    source = ip_address("2001:db8::2")
    peers = {source: Peer("2001:db8::2")}
    to = ip_address("2001:db8::1")
    assert remarks(SIX, source=source, destination=to, group=None, peers=peers) == []


# --- the form of the checksum


@pytest.mark.parametrize("form", ChecksumForm)
def test_either_form_or_one_only(form: ChecksumForm) -> None:
    other = next(one for one in ChecksumForm if one is not form)
    assert hear(form=form).checksum is form
    assert verdict(form=form, insist=form) == "accepted"
    assert verdict(form=other, insist=form) == f"checksum: got {other}, want {form}"


def test_version_2_and_ipv6_know_one_form_each() -> None:
    assert verdict(TWO, insist=ChecksumForm.PSEUDO_HEADER) == "accepted"
    assert verdict(SIX, insist=ChecksumForm.MESSAGE_ONLY) == "accepted"


# --- version 2


SECRET = PasswordAuth("s3cret")


@pytest.mark.parametrize(
    ("auth_type", "data", "auth", "expected"),
    [
        (0, bytes(8), None, "accepted"),
        (1, SECRET.data, SECRET, "accepted"),
        (1, SECRET.data, None, "auth-type-mismatch: got 1, want 0"),
        (2, bytes(8), None, "auth-type-mismatch: got 2, want 0"),
        (0, bytes(8), SECRET, "auth-type-mismatch: got 0, want 1"),
        (2, bytes(8), SECRET, "auth-type-mismatch: got 2, want 1"),
        (3, bytes(8), None, "auth-type-invalid: got 3, want 0"),
        (255, bytes(8), SECRET, "auth-type-invalid: got 255, want 1"),
        (1, b"other\0\0\0", SECRET, "auth-failure: got another password"),
    ],
)
def test_passwords(auth_type: int, data: bytes, auth: Any, expected: str) -> None:
    advert = attrs.evolve(TWO, auth_type=auth_type, auth_data=data)
    assert verdict(advert, auth=auth) == expected


def test_another_interval_in_version_2() -> None:
    advert = attrs.evolve(TWO, wire_interval=2)
    assert verdict(advert) == "interval-mismatch: got 2 s, want 1 s"


# --- signed adverts


def test_signed() -> None:
    auth = HMACAuth({1: bytes(range(32))}, active=1)
    trailer = Signer(auth, 1.0).sign(unsigned(FOUR), SOURCE, WALL + 1)
    payload = encode(FOUR, SOURCE, GROUP, trailer=trailer)
    assert hear(payload=payload, auth=auth, verifier=Verifier(auth, 1.0)).ahead == 1.0
    assert verdict(payload=payload) == "packet-length: got 40, want 12"
    enforcing = verdict(auth=auth, verifier=Verifier(auth, 1.0))
    assert enforcing == "hmac-missing: got no trailer, want a signed advert"


# --- accepted, with a remark


def test_another_interval_in_version_3() -> None:
    advert = attrs.evolve(FOUR, wire_interval=25)
    assert remarks(advert) == ["interval: 25 cs / 100 cs"]


def test_other_addresses() -> None:
    advert = attrs.evolve(FOUR, addresses=(ip_address("192.0.2.99"),))
    assert remarks(advert) == ["address-list: 192.0.2.99 / 192.0.2.10"]
    more = attrs.evolve(FOUR, addresses=(*FOUR.addresses, *(SOURCE + n for n in range(90, 96))))
    got = "192.0.2.92, 192.0.2.93, 192.0.2.94, 192.0.2.95 and 2 more"
    assert remarks(more) == [f"address-list: {got} / nothing else"]


def test_the_order_of_addresses_is_free() -> None:
    advert = attrs.evolve(SIX, addresses=SIX.addresses[::-1])
    assert remarks(advert) == ["first-address-not-link-local: 2001:db8::10 / fe80::/10"]


def test_an_ipv6_source_that_is_not_link_local() -> None:
    source = ip_address("2001:db8::2")
    assert remarks(SIX, source=source) == ["source-not-link-local: 2001:db8::2 / fe80::/10"]


def test_another_owner() -> None:
    advert = attrs.evolve(FOUR, priority=255)
    assert remarks(advert) == []
    assert remarks(advert, owner=True) == ["another-owner: priority 255 from 192.0.2.2 / one owner"]
    assert remarks(FOUR, owner=True) == []


# --- strict


def test_strict_drops_other_addresses() -> None:
    advert = attrs.evolve(FOUR, addresses=(ip_address("192.0.2.99"),))
    expected = "address-list: got 192.0.2.99, want 192.0.2.10"
    assert verdict(advert, drop_address_list=True) == expected
    assert verdict(drop_address_list=True) == "accepted"


def test_a_strict_owner_hears_nothing() -> None:
    expected = "owner: got priority 150, want nothing: this router owns the addresses"
    assert verdict(deaf_owner=True) == expected
    assert verdict(deaf_owner=True, ttl=1) == "ttl: got 1, want 255"


# --- order


def test_the_cheap_checks_come_first() -> None:
    """Each advert has every fault but those before it in the list."""
    wrong: dict[str, Any] = {
        "own-source": {"own": frozenset({SOURCE})},
        "destination": {"destination": ip_address("224.0.0.19")},
        "ttl": {"ttl": 1},
        "vrid": {"vrid": 52},
        "checksum": {"insist": ChecksumForm.MESSAGE_ONLY},
        "owner": {"deaf_owner": True},
    }
    order = list(wrong)
    for position, expected in enumerate(order):
        faults: dict[str, Any] = {}
        for name in order[position:]:
            faults |= wrong[name]
        assert verdict(**faults).startswith(expected)


def test_addresses_are_made_only_for_who_may_speak(monkeypatch: pytest.MonkeyPatch) -> None:
    """255 of them cost more than all other checks together."""
    made: list[int] = []
    genuine = Message.advert

    def counted(message: Message) -> Advertisement:
        made.append(message.width)
        return genuine(message)

    monkeypatch.setattr(Message, "advert", counted)
    auth = HMACAuth({1: bytes(range(32))}, active=1)
    signed = {"auth": auth, "verifier": Verifier(auth, 1.0)}
    trailer = bytes((1, 1, 0, 0)) + int(WALL).to_bytes(4, "big") + bytes(20)
    forged = encode(FOUR, SOURCE, GROUP, trailer=trailer)
    plain = attrs.evolve(TWO, auth_type=1, auth_data=b"guessed!")
    assert verdict(**signed).startswith("hmac-missing")
    assert verdict(payload=forged, **signed).startswith("hmac-failure")
    assert verdict(plain, auth=SECRET).startswith("auth-failure")
    assert verdict(vrid=9).startswith("vrid")
    assert verdict(deaf_owner=True).startswith("owner")
    assert made == []
    assert verdict() == "accepted"
    assert made == [4]


def test_the_same_octets_are_the_same_addresses() -> None:
    ours = validator()
    payload = encode(FOUR, SOURCE, GROUP)
    first = ours.inspect(payload, SOURCE, GROUP, 255, WALL)
    later = encode(attrs.evolve(FOUR, priority=1), SOURCE, GROUP)
    second = ours.inspect(later, SOURCE, GROUP, 255, WALL)
    assert first.advert.addresses is second.advert.addresses
    assert (first.remarks, second.remarks) == ((), ())


def test_a_forger_does_not_reach_the_address_list() -> None:
    auth = HMACAuth({1: bytes(range(32))}, active=1)
    advert = attrs.evolve(FOUR, addresses=(ip_address("192.0.2.99"),))
    trailer = bytes((1, 1, 0, 0)) + int(WALL).to_bytes(4, "big") + bytes(20)
    payload = encode(advert, SOURCE, GROUP, trailer=trailer)
    check = Verifier(auth, 1.0)
    got = verdict(payload=payload, auth=auth, verifier=check, drop_address_list=True)
    assert got.startswith("hmac-failure")
