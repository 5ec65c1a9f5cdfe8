"""Octets from the kernel, captured on Linux 6.1, and to it, as pyroute2 reads them."""

from __future__ import annotations

import contextlib
import errno
import struct
from functools import partial
from ipaddress import ip_address
from typing import Any

import pytest
from hypothesis import given, strategies as st
from pyroute2.netlink.generic.ipvs import ipvsmsg

from ipvs.table_contract import HERE, MARK, WEB, WEB6, destination, key, server
from kernel.table_strategies import entries
from strategies import quick
from vrrpkit.ipvs.base import ConnectionTimeouts, SyncDaemon, SyncRole
from vrrpkit.ipvs.kernel import constants as n, records, requests
from vrrpkit.ipvs.model.entries import (
    AddDestination,
    AddService,
    DeleteDestination,
    DeleteService,
    Destination,
    EditDestination,
    EditService,
    Forward,
    Operation,
    Protocol,
    Service,
    ServiceKey,
    TrafficCounters,
    Tunnel,
    TunnelType,
)
from vrrpkit.linux.netlink import attributes

FAMILY = 28
MASK = "3f000000"
"""Every flag but the kernel's own (0x02), which must not be among them."""


def octets(text: str) -> bytes:
    return bytes.fromhex(text)


def attribute(kind: int, value: bytes) -> bytes:
    return struct.pack("=HH", 4 + len(value), kind) + value + bytes(-len(value) % 4)


ZEROS = octets("60000a00") + bytes(92)
"""Counters of 32 bits, which nobody looks at."""


def stats(*values: int, padded: bool = True) -> bytes:
    """IPVS_SVC_ATTR_STATS64 or IPVS_DEST_ATTR_STATS64; some machines need the padding."""
    padding = octets("04000b00") if padded else b""
    counted = (
        attribute(kind, struct.pack("=Q", value)) + padding for kind, value in enumerate(values, 1)
    )
    return attribute(12, b"".join(counted))


QUIET = stats(*[0] * 10)
BUSY = stats(*(number << 33 | number for number in range(1, 11)))
COUNTED = TrafficCounters(
    connections=1 << 33 | 1,
    packets_in=2 << 33 | 2,
    packets_out=3 << 33 | 3,
    bytes_in=4 << 33 | 4,
    bytes_out=5 << 33 | 5,
    connection_rate=6 << 33 | 6,
    packet_rate_in=7 << 33 | 7,
    packet_rate_out=8 << 33 | 8,
    byte_rate_in=9 << 33 | 9,
    byte_rate_out=10 << 33 | 10,
)


def answer(command: int, kind: int, nested: str, counters: bytes = b"") -> bytes:
    """A message of the kernel, without its struct nlmsghdr."""
    value = octets(nested) + counters
    return bytes([command, 1, 0, 0]) + attribute(kind, value)


SIP = (
    "06000100 0a000000 06000200 11000000 14000300 20010db8 00000000 00000000 00000010"
    "06000400 13c40000 08000600 77727200 08000b00 73697000 0c000700 07000000 ffffffff"
    "08000800 3c000000 08000900 40000000"
)
HASHED = (
    "06000100 02000000 06000200 06000000 14000300 c000020a 00000000 00000000 00000000"
    "06000400 00500000 07000600 73680000 0c000700 13000000 ffffffff 08000800 09000000"
    "08000900 ffffff00"
)
MARKED = (
    "06000100 0a000000 08000500 09000000 07000600 72720000 0c000700 02000000 ffffffff"
    "08000800 00000000 08000900 80000000"
)
GUE = (
    "14000100 0a000002 00000000 00000000 00000000 06000200 00500000 08000300 02000000"
    "08000400 01000000 05000d00 01000000 06000e00 17c00000 06000f00 02000000 08000500 00000000"
    "08000600 00000000 08000700 00000000 08000800 00000000 08000900 00000000 06000b00 02000000"
)
NAT = (
    "14000100 0a000001 00000000 00000000 00000000 06000200 1f900000 08000300 00000000"
    "08000400 05000000 05000d00 00000000 06000e00 00000000 06000f00 00000000 08000500 09000000"
    "08000600 03000000 08000700 07000000 08000800 08000000 08000900 ffffffff 06000b00 02000000"
)
DR6 = (
    "14000100 fd000000 00000000 00000000 00000001 06000200 13c40000 08000300 03000000"
    "08000400 01000000 05000d00 00000000 06000e00 00000000 06000f00 00000000 08000500 00000000"
    "08000600 00000000 08000700 00000000 08000800 00000000 08000900 00000000 06000b00 0a000000"
)


# --- from the kernel


@pytest.mark.parametrize(
    ("nested", "service"),
    [
        (
            SIP,
            Service(
                key=key("2001:db8::10", 5060, Protocol.UDP),
                scheduler="wrr",
                persistence=60,
                granularity=64,
                engine="sip",
                one_packet=True,
            ),
        ),
        (
            HASHED,
            Service(
                key=WEB,
                scheduler="sh",
                flags=frozenset({"sh-port"}),
                persistence=9,
                granularity=24,
            ),
        ),
        (MARKED, Service(key=ServiceKey(6, fwmark=9), scheduler="rr")),
    ],
)
def test_services(nested: str, service: Service) -> None:
    quiet = records.service(answer(1, n.ATTR_SERVICE, nested, ZEROS + QUIET))
    assert quiet is not None
    assert (quiet.service, quiet.destinations, quiet.counters) == (service, {}, TrafficCounters())
    busy = records.service(answer(1, n.ATTR_SERVICE, nested, BUSY))
    assert busy is not None and busy.counters == COUNTED


def test_a_service_of_another_protocol_is_none_of_ours() -> None:
    ah = HASHED.replace("06000200 06000000", "06000200 33000000")
    assert records.service(answer(1, n.ATTR_SERVICE, ah, QUIET)) is None


@pytest.mark.parametrize(
    ("nested", "wanted"),
    [
        (
            GUE,
            destination(
                "10.0.0.2",
                forward=Forward.TUN,
                tunnel=Tunnel(type=TunnelType.GUE, port=6080, remote_checksum=True),
            ),
        ),
        (NAT, destination("10.0.0.1", 8080, weight=5, upper=9, lower=3)),
        (DR6, destination("fd00::1", 5060, forward=Forward.DR)),
    ],
)
@pytest.mark.parametrize("family", [4, 6])
def test_destinations(nested: str, wanted: Destination, family: int) -> None:
    """The family that a real server says is its own counts."""
    found = records.destination(answer(5, n.ATTR_DEST, nested, ZEROS + QUIET), family)
    assert (found.destination, found.counters) == (wanted, TrafficCounters())


def test_connections_of_a_destination() -> None:
    found = records.destination(answer(5, n.ATTR_DEST, NAT, BUSY), 4)
    assert (found.active, found.inactive, found.persistent) == (7, 8, 2**32 - 1)
    assert found.counters == COUNTED


def test_counters_without_padding() -> None:
    values = [number << 33 | number for number in range(1, 11)]
    payload = answer(5, n.ATTR_DEST, NAT, stats(*values, padded=False))
    assert records.destination(payload, 4).counters == COUNTED


def test_what_old_kernels_leave_out() -> None:
    """Before 3.18 the family, before 4.1 counters of 64 bits, before 5.2 tunnels but IPIP."""
    old = GUE[: GUE.index("05000d00")] + GUE[GUE.index("08000500") : GUE.index("06000b00")]
    found = records.destination(answer(5, n.ATTR_DEST, old, ZEROS), 4)
    assert found.destination == destination("10.0.0.2", forward=Forward.TUN)
    assert found.counters == TrafficCounters()
    of_service = records.service(answer(1, n.ATTR_SERVICE, HASHED, ZEROS))
    assert of_service is not None and of_service.counters == TrafficCounters()


def test_what_newer_kernels_may_add() -> None:
    """Unknown ways to forward are shown as the kernel's own, unknown tunnels as IPIP."""
    unknown = NAT.replace("08000300 00000000", "08000300 07000000")
    found = records.destination(answer(5, n.ATTR_DEST, unknown, QUIET), 4).destination
    assert found.forward is Forward.BYPASS
    unknown = GUE.replace("05000d00 01000000", "05000d00 09000000")
    tunnel = records.destination(answer(5, n.ATTR_DEST, unknown, QUIET), 4).destination.tunnel
    assert tunnel is not None and tunnel.type is TunnelType.IPIP


@pytest.mark.parametrize(
    ("nested", "daemon"),
    [
        (
            "08000100 01000000 07000200 6c6f0000 08000300 07000000 06000400 c0050000"
            "06000700 90220000 05000800 01000000 08000500 e0000051",
            SyncDaemon(
                role=SyncRole.MASTER,
                interface="lo",
                id=7,
                maxlen=1472,
                group=ip_address("224.0.0.81"),
                port=8848,
                ttl=1,
            ),
        ),
        (
            "08000100 02000000 07000200 6c6f0000 08000300 08010000 06000400 14050000"
            "06000700 28230000 05000800 04000000 14000600 ff050000 00000000 00000000 00000051",
            SyncDaemon(
                role=SyncRole.BACKUP,
                interface="lo",
                id=8,
                maxlen=1300,
                group=ip_address("ff05::51"),
                port=9000,
                ttl=4,
            ),
        ),
        (
            "08000100 02000000 07000200 6c6f0000 08000300 08000000",
            SyncDaemon(role=SyncRole.BACKUP, interface="lo", id=8),
        ),
    ],
    ids=["IPv4", "IPv6, with an id of 264", "before Linux 4.3"],
)
def test_daemons(nested: str, daemon: SyncDaemon) -> None:
    assert records.daemon(answer(9, n.ATTR_DAEMON, nested)) == daemon


def test_timeouts() -> None:
    payload = octets("0c010000 08000400 84030000 08000500 78000000 08000600 2c010000")
    assert records.timeouts(payload) == ConnectionTimeouts(tcp=900, tcp_fin=120, udp=300)
    assert records.timeouts(payload[:20]) == ConnectionTimeouts(tcp=900, tcp_fin=120, udp=0)


def test_family() -> None:
    payload = "01020000 09000200 49505653 00000000 06000100 1c000000 08000300 01000000"
    assert records.family(octets(payload)) == 28


# --- to the kernel


def seen(message: bytearray) -> dict[str, Any]:
    """A request as pyroute2 reads it: the header, the command, the attributes."""
    decoded = ipvsmsg(bytes(message))
    decoded.decode()
    head = decoded["header"]
    assert head["length"] == len(message)
    return {
        "head": (head["type"], head["flags"], decoded["cmd"], decoded["version"]),
        **{name.removeprefix("IPVS_CMD_ATTR_"): flat(value) for name, value in decoded["attrs"]},
    }


def flat(nested: Any) -> dict[str, Any]:
    return {name.split("_ATTR_")[1]: value for name, value in nested["attrs"]}


WEB_SEEN = {"AF": 2, "PROTOCOL": 6, "ADDR": "192.0.2.10", "PORT": 80}
MARK_SEEN = {"AF": 2, "FWMARK": 7}
HERE_SEEN = {"ADDR_FAMILY": 2, "ADDR": "10.0.0.1", "PORT": 80}


@pytest.mark.parametrize(
    ("operation", "command"),
    [
        (AddService(Service(key=WEB)), 1),
        (EditService(Service(key=WEB)), 2),
        (DeleteService(WEB), 3),
        (AddDestination(WEB, HERE), 5),
        (EditDestination(WEB, HERE), 6),
        (DeleteDestination(WEB, HERE.key), 7),
    ],
)
def test_commands(operation: Operation, command: int) -> None:
    assert seen(requests.operation(FAMILY, operation))["head"] == (FAMILY, 5, command, 1)


def test_deletions_name_what_goes() -> None:
    service = seen(requests.operation(FAMILY, DeleteService(MARK)))
    assert service["SERVICE"] == MARK_SEEN
    real = seen(requests.operation(FAMILY, DeleteDestination(WEB, HERE.key)))
    assert (real["SERVICE"], real["DEST"]) == (WEB_SEEN, HERE_SEEN)


def test_a_service() -> None:
    service = Service(
        key=WEB,
        scheduler="mh",
        flags=frozenset({"mh-port"}),
        persistence=300,
        granularity=24,
        engine="sip",
        one_packet=True,
    )
    for wanted in (AddService(service), EditService(service)):
        assert seen(requests.operation(FAMILY, wanted))["SERVICE"] == {
            **WEB_SEEN,
            "SCHED_NAME": "mh",
            "FLAGS": {"flags": 0x15, "mask": 0x3D},
            "TIMEOUT": 300,
            "NETMASK": "255.255.255.0",
            "PE_NAME": "sip",
        }


@pytest.mark.parametrize(
    ("wanted", "mask"),
    [
        (Service(key=WEB), "ffffffff"),
        (Service(key=WEB, granularity=1), "80000000"),
        (Service(key=WEB, granularity=0), "00000000"),
        (Service(key=WEB6), "80000000"),
        (Service(key=WEB6, granularity=64), "40000000"),
    ],
)
def test_netmasks(wanted: Service, mask: str) -> None:
    """A mask in network order of IPv4, a length in host order of IPv6."""
    message = requests.operation(FAMILY, AddService(wanted))
    nested = attributes(attributes(bytes(message), 20)[n.ATTR_SERVICE], 0)
    assert nested[n.SVC_NETMASK] == octets(mask)


def test_a_destination() -> None:
    wanted = destination("10.0.0.1", weight=5, upper=9, lower=3)
    for operation in (AddDestination(WEB, wanted), EditDestination(WEB, wanted)):
        message = seen(requests.operation(FAMILY, operation))
        assert message["SERVICE"] == WEB_SEEN
        assert message["DEST"] == {
            **HERE_SEEN,
            "FWD_METHOD": 0,
            "WEIGHT": 5,
            "U_THRESH": 9,
            "L_THRESH": 3,
        }


def test_a_tunnel() -> None:
    tunnel = Tunnel(type=TunnelType.GUE, port=6080, checksum=True, remote_checksum=True)
    wanted = destination("fd00::1", forward=Forward.TUN, tunnel=tunnel)
    found = seen(requests.operation(FAMILY, AddDestination(WEB, wanted)))["DEST"]
    assert (found["ADDR_FAMILY"], found["ADDR"], found["FWD_METHOD"]) == (10, "fd00::1", 2)
    # pyroute2 takes the port for a number in host order.
    assert found["TUN_PORT"].to_bytes(2, "little") == (6080).to_bytes(2, "big")
    assert (found["TUN_TYPE"], found["TUN_FLAGS"]) == (1, 3)


def test_only_tunnels_have_one() -> None:
    for forward in (Forward.NAT, Forward.DR):
        wanted = Destination(key=server("10.0.0.1"), forward=forward)
        found = seen(requests.operation(FAMILY, AddDestination(WEB, wanted)))["DEST"]
        assert not any(name.startswith("TUN") for name in found)


def test_a_negative_weight_is_for_the_kernel_to_refuse() -> None:
    wanted = AddDestination(WEB, destination("10.0.0.1", weight=-1))
    found = seen(requests.operation(FAMILY, wanted))["DEST"]
    assert found["WEIGHT"] == 2**32 - 1


def test_a_probe_asks_for_what_cannot_be() -> None:
    found = seen(requests.probe(FAMILY, "wrr", "sip"))
    assert found["head"][2] == n.NEW_SERVICE
    service = found["SERVICE"]
    assert (service["AF"], service["SCHED_NAME"], service["PE_NAME"]) == (10, "wrr", "sip")
    assert service["NETMASK"] == "0.0.0.0"


def test_a_daemon() -> None:
    least = requests.start_daemon(FAMILY, SyncDaemon(role=SyncRole.MASTER, interface="lo", id=7))
    assert least[16:] == octets(
        "09010000 1c000300 08000100 01000000 07000200 6c6f0000 08000300 07000000"
    )
    most = SyncDaemon(
        role=SyncRole.BACKUP,
        interface="eth0",
        id=8,
        maxlen=1300,
        group=ip_address("ff05::51"),
        port=9000,
        ttl=4,
    )
    for daemon in (most, SyncDaemon(role=SyncRole.MASTER, interface="x", group="239.1.2.3")):
        assert records.daemon(bytes(requests.start_daemon(FAMILY, daemon)[16:])) == daemon


def test_a_daemon_is_stopped_by_its_role() -> None:
    message = requests.stop_daemon(FAMILY, SyncRole.BACKUP)
    assert message[16:] == octets("0a010000 0c000300 08000100 02000000")


def test_timeouts_are_set_and_left() -> None:
    message = requests.set_timeouts(FAMILY, 900, 0, 300)
    assert message[16:] == octets("0c010000 08000400 84030000 08000500 00000000 08000600 2c010000")


def test_the_controller_is_asked_by_name() -> None:
    assert requests.which_family("IPVS") == octets("03010000 09000200 49505653 00000000")


@quick
@given(entry=entries())
def test_what_is_asked_for_is_what_is_read(entry: tuple[Service, list[Destination]]) -> None:
    """The kernel answers in the attributes that it was asked in."""
    service, destinations = entry
    sent = requests.operation(FAMILY, AddService(service))
    found = records.service(bytes(sent[16:]))
    assert found is not None and found.service == service
    none = b"".join(attribute(kind, bytes(4)) for kind in (7, 8, 9))
    for wanted in destinations:
        sent = requests.operation(FAMILY, EditDestination(service.key, wanted))
        nested = attributes(bytes(sent), 20)[n.ATTR_DEST]
        payload = bytes([5, 1, 0, 0]) + attribute(n.ATTR_DEST, nested + none)
        assert records.destination(payload, service.key.family).destination == wanted


# --- strange kernels ------------------------------------------------------------------------------

ANSWERS = [
    (records.service, answer(1, n.ATTR_SERVICE, SIP, ZEROS + BUSY)),
    (records.service, answer(1, n.ATTR_SERVICE, HASHED, BUSY)),
    (records.service, answer(1, n.ATTR_SERVICE, MARKED, BUSY)),
    (partial(records.destination, family=4), answer(5, n.ATTR_DEST, NAT, BUSY)),
    (partial(records.destination, family=6), answer(5, n.ATTR_DEST, GUE, BUSY)),
    (records.daemon, bytes(requests.start_daemon(FAMILY, SyncDaemon(
        role=SyncRole.MASTER, interface="eth1", id=7, maxlen=1400, group="224.0.0.82", port=9, ttl=3
    ))[16:])),
    (records.timeouts, bytes(requests.set_timeouts(FAMILY, 1, 2, 3)[16:])),
    (records.family, bytes(4) + attribute(n.CTRL_FAMILY_ID, struct.pack("=H", 28))),
]  # fmt: skip


def decoded(decoder: Any, payload: bytes) -> object:
    """What a decoder returns, and no other exception than its own."""
    with contextlib.suppress(records.Garbled):
        return decoder(payload)
    return None


@pytest.mark.parametrize(("decoder", "payload"), ANSWERS)
def test_an_answer_that_ends_anywhere_raises_nothing_else(decoder: Any, payload: bytes) -> None:
    assert decoder(payload) is not None
    if decoder is not records.timeouts:
        with pytest.raises(records.Garbled, match="is not understood") as garbled:
            decoder(b"")
        assert garbled.value.errno == errno.EBADMSG
    for end in range(len(payload)):
        decoded(decoder, payload[:end])


@pytest.mark.parametrize(("decoder", "payload"), ANSWERS)
@quick
@given(data=st.data())
def test_strange_octets_raise_nothing_else(decoder: Any, payload: bytes, data: Any) -> None:
    changed = bytearray(payload)
    places = st.integers(0, len(payload) - 1)
    for place in data.draw(st.lists(places, min_size=1, max_size=6)):
        changed[place] = data.draw(st.integers(0, 255))
    decoded(decoder, bytes(changed))
    decoded(decoder, data.draw(st.binary(max_size=200)))


@quick
@given(
    st.dictionaries(st.integers(0, 20), st.binary(max_size=20), max_size=15),
    st.sampled_from(ANSWERS),
    st.integers(0, 6),
)
def test_strange_attributes_raise_nothing_else(
    found: dict[int, bytes], chosen: tuple[Any, bytes], kind: int
) -> None:
    nested = b"".join(attribute(number, value) for number, value in found.items())
    decoded(chosen[0], bytes(4) + attribute(kind, nested))
