"""Virtual addresses as the kernel shows them, and what happens to them."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest

from system.lab import Host, wait_until
from system.ours import INTERVAL, mastered, router
from system.scenario import (
    HIGH,
    LOW,
    OUR_MARK,
    VIP4,
    VIP6,
    VRID,
    Bench,
    address_marks,
    announced,
    announcements,
    goodbyes,
    reached,
    skew,
    taken,
)
from system.wire import Advert

pytestmark = pytest.mark.system

DOWN = 3 * INTERVAL + skew(HIGH, INTERVAL)
#: As the kernel shows a lifetime without end.
FOREVER = 0xFFFFFFFF


def shown(host: Host, dev: str = "eth0") -> dict[str, dict[str, Any]]:
    """The addresses of an interface as ``ip`` shows them."""
    (link,) = filter(None, json.loads(host.ip("-json", "address", "show", "dev", dev)))
    return {entry["local"]: entry for entry in link["addr_info"]}


# --- how they are put on the interface


def test_ipv4_options_reach_the_kernel(bench: Bench) -> None:
    ours = router(
        bench.a,
        vips=[
            {"address": f"{VIP4}/24", "label": "eth0:web", "broadcast": "192.0.2.255"},
            {"address": "203.0.113.1/32", "peer": "203.0.113.2"},
            {"address": "198.51.100.1/24", "scope": "link", "noprefixroute": True},
            "198.51.100.7",
            {"address": "203.0.113.77/32", "preferred_lifetime": 0},
        ],
    )
    ours.start()
    mastered(ours, VIP4, "203.0.113.77")
    found = shown(bench.a)
    one = found[VIP4]
    assert (one["prefixlen"], one["label"], one["broadcast"]) == (24, "eth0:web", "192.0.2.255")
    assert (one["scope"], one["preferred_life_time"]) == ("global", FOREVER)
    two = found["203.0.113.1"]
    assert (two["address"], two["prefixlen"]) == ("203.0.113.2", 32)
    three = found["198.51.100.1"]
    assert (three["scope"], three["noprefixroute"]) == ("link", True)
    assert "198.51.100.0/24" not in bench.a.ip("route", "show")
    assert found["198.51.100.7"]["prefixlen"] == 32
    # The kernel shows no finite preferred lifetime of an IPv4 address that is valid for ever.
    assert found["203.0.113.77"]["deprecated"]
    assert all(found[vip]["valid_life_time"] == FOREVER for vip in found)
    marks = address_marks(bench.a)
    assert {vip for vip, mark in marks.items() if mark == OUR_MARK} == set(found) - {
        "192.0.2.1",
        "2001:db8::1",
        "fe80::1",
    }
    ours.stop()
    assert set(shown(bench.a)) == {"192.0.2.1", "2001:db8::1", "fe80::1"}


def test_ipv6_options_reach_the_kernel(bench: Bench) -> None:
    ours = router(
        bench.a,
        vips=[
            "fe80::51:10/64",
            f"{VIP6}/64",
            {"address": "2001:db8:8::1/64", "preferred_lifetime": 1000},
            {"address": "2001:db8:7::1/64", "noprefixroute": True},
            {"address": "2001:db8::12/128", "nodad": False},
        ],
    )
    ours.start()
    mastered(ours, VIP6, "2001:db8::12")
    found = shown(bench.a)
    assert found[VIP6]["nodad"] and found[VIP6]["deprecated"]
    assert found[VIP6]["preferred_life_time"] == 0
    assert found[VIP6]["valid_life_time"] == FOREVER
    assert found["fe80::51:10"]["scope"] == "link"
    assert 990 <= found["2001:db8:8::1"]["preferred_life_time"] <= 1000
    assert "deprecated" not in found["2001:db8:8::1"]
    assert found["2001:db8:7::1"]["noprefixroute"]
    assert "2001:db8:7::/64" not in bench.a.ip("-6", "route", "show")
    # Not told to anybody before detection has found no duplicate.
    assert "nodad" not in found["2001:db8::12"] and found["2001:db8::12"]["tentative"]
    assert not bench.wire.unsolicited("2001:db8::12")
    wait_until(lambda: bool(bench.wire.unsolicited("2001:db8::12")), 4, "its announcement")
    assert "tentative" not in shown(bench.a)["2001:db8::12"]
    # The host does not choose a VIP for its own connections.
    route = bench.a.ip("-6", "route", "get", bench.watch.own_addresses[2].split("/")[0])
    assert "src 2001:db8::1 " in route
    ours.stop()
    assert set(shown(bench.a)) == {"192.0.2.1", "2001:db8::1", "fe80::1"}


def test_excluded_addresses_move_along_unannounced_in_adverts(bench: Bench) -> None:
    ours = router(bench.a, excluded_vips=[f"{VIP6}/128", "198.51.100.7/32"])
    ours.start()
    mastered(ours, VIP4, VIP6, "198.51.100.7")
    assert bench.wire.wait_for(Advert).addresses == (VIP4,)
    for address in (VIP4, VIP6, "198.51.100.7"):
        wait_until(lambda a=address: bool(announcements(bench, a, 0, bench.a.mac)), 1, address)
    reached(bench, VIP6, bench.a, bench.a.mac)
    ours.stop()
    assert not any(map(ours.owns, (VIP4, VIP6, "198.51.100.7")))


def test_addresses_may_go_on_another_interface(bench: Bench) -> None:
    bench.a.ip("link", "add", "link", "eth0", "name", "eth1", "type", "macvlan", "mode", "bridge")
    bench.a.ip("link", "set", "dev", "eth1", "up")
    ours = router(bench.a, vips=[VIP4, {"address": "198.51.100.7/32", "dev": "eth1"}])
    ours.start()
    mastered(ours, VIP4, "198.51.100.7")
    assert (bench.a.where(VIP4), bench.a.where("198.51.100.7")) == (["eth0"], ["eth1"])
    mac = json.loads(bench.a.ip("-json", "link", "show", "dev", "eth1"))[0]["address"]
    wait_until(lambda: bool(announcements(bench, "198.51.100.7", 0, mac)), 1, "its announcement")
    deleted = time.monotonic()
    bench.a.ip("address", "delete", "198.51.100.7/32", "dev", "eth1")
    wait_until(lambda: ours.owns("198.51.100.7"), 0.5, "the address")
    assert ours.transitions(deleted) == []
    ours.stop()
    assert not ours.owns(VIP4) and not ours.owns("198.51.100.7")


def test_255_addresses_at_once(bench: Bench) -> None:
    addresses = [f"198.51.100.{n}" for n in range(1, 256)]
    ours, other = router(bench.a, vips=addresses), router(bench.b, LOW, vips=addresses)
    ours.start()
    mastered(ours)
    wait_until(lambda: shown(bench.a).keys() >= set(addresses), 2, "all addresses")
    other.start()
    stopped = time.monotonic()
    ours.stop()
    assert not shown(bench.a).keys() & set(addresses)
    wait_until(lambda: shown(bench.b).keys() >= set(addresses), 3, "all addresses")

    def times() -> dict[str, list[float]]:
        return {vip: announcements(bench, vip, stopped, bench.b.mac) for vip in addresses}

    wait_until(lambda: {len(sent) for sent in times().values()} == {5}, 5, "all announcements")
    released = goodbyes(bench, stopped)[0].time + skew(LOW, INTERVAL)
    firsts = [sent[0] - released for sent in times().values()]
    # No address gets a second packet before all have had the first.
    assert max(firsts) < min(sent[1] for sent in times().values()) - released
    print(f"255 addresses: first announced {min(firsts):.4f} s, last {max(firsts):.4f} s late")
    # On a busy machine; bench has the figures.
    assert max(firsts) < 1
    other.stop()
    assert not shown(bench.b).keys() & set(addresses)


# --- who else has a hand in them


def test_a_deleted_address_is_put_back_and_announced(bench: Bench) -> None:
    ours = router(bench.a, excluded_vips=[f"{VIP6}/128"])
    ours.start()
    mastered(ours, VIP4, VIP6)
    time.sleep(0.3)
    started = time.monotonic()
    for address, prefix in ((VIP4, 32), (VIP6, 128), (VIP4, 32)):
        time.sleep(0.2)
        deleted = time.monotonic()
        bench.a.ip("address", "delete", f"{address}/{prefix}", "dev", "eth0")
        again = announced(bench, address, deleted, bench.a.mac)
        # At once, and not after another election.
        assert again - deleted < DOWN
        assert ours.owns(address)
    lost = ours.events("AddressLost")
    assert [line["action"] for line in lost] == ["reinstated"] * 3
    assert [line["address"] for line in lost] == [VIP4, VIP6, VIP4]
    assert ours.transitions(started) == []

    # Whoever keeps on deleting shall have it: the fourth time within ten seconds.
    time.sleep(0.2)
    deleted = time.monotonic()
    bench.a.ip("address", "delete", f"{VIP4}/32", "dev", "eth0")
    wait_until(lambda: ours.state() == "BACKUP", 1, "BACKUP")
    assert ours.events("AddressLost")[-1]["action"] == "stepped down"
    wait_until(lambda: not ours.owns(VIP6), 0.5, "all addresses gone")
    assert len(goodbyes(bench, deleted)) == 1
    # Nobody else is there.
    mastered(ours, VIP4, VIP6)
    assert ours.transitions(started) == [("BACKUP", "address-lost"), ("MASTER", "no-response")]
    assert time.monotonic() - deleted > DOWN


def test_twenty_addresses_deleted_together_are_one_occasion(bench: Bench) -> None:
    addresses = [f"198.51.100.{n}" for n in range(1, 21)]
    ours = router(bench.a, vips=addresses)
    ours.start()
    mastered(ours, *addresses)
    time.sleep(0.2)
    started = time.monotonic()
    # Not "ip address flush", which comes again as long as it finds any.
    batch = "".join(f"address delete {vip}/32 dev eth0\n" for vip in addresses)
    for _ in range(2):
        bench.a.run(["ip", "-batch", "-"], stdin=batch)
        wait_until(lambda: all(map(ours.owns, addresses)), 1, "all addresses")
        time.sleep(0.3)
    assert ours.transitions(started) == []
    assert len(ours.events("AddressLost")) == 40


def test_stepping_down_for_a_deleted_address(bench: Bench) -> None:
    ours, other = router(bench.a, on_address_lost="step_down"), router(bench.b, LOW)
    ours.start()
    mastered(ours, VIP4)
    other.start()
    time.sleep(INTERVAL)
    deleted = time.monotonic()
    bench.a.ip("address", "delete", f"{VIP4}/32", "dev", "eth0")
    wait_until(lambda: len(ours.transitions(deleted)) == 2, 3, "an election")
    # As keepalived: an election at once, which the higher one wins after its skew.
    assert ours.transitions(deleted) == [("BACKUP", "address-lost"), ("MASTER", "no-response")]
    assert [line["action"] for line in ours.events("AddressLost")] == ["stepped down"]
    assert len(goodbyes(bench, deleted)) == 1
    taken(bench, bench.a, VIP4, deleted)
    wait_until(lambda: not other.owns(VIP4), 1, "one holder")


def test_a_deleted_address_may_be_left_alone(bench: Bench) -> None:
    ours = router(bench.a, on_address_lost="ignore", excluded_vips=[f"{VIP6}/128"])
    ours.start()
    mastered(ours, VIP4, VIP6)
    deleted = time.monotonic()
    bench.a.ip("address", "delete", f"{VIP4}/32", "dev", "eth0")
    time.sleep(1)
    assert not ours.owns(VIP4) and ours.owns(VIP6)
    assert ours.transitions(deleted) == []
    assert [line["action"] for line in ours.events("AddressLost")] == ["ignored"]
    ours.stop()
    assert not ours.owns(VIP6)


def test_an_address_that_was_there_is_used_and_never_removed(bench: Bench) -> None:
    bench.a.ip("address", "add", f"{VIP4}/32", "dev", "eth0", "label", "eth0:mine")
    bench.a.ip("address", "add", f"{VIP6}/128", "dev", "eth0", "nodad")
    before = shown(bench.a)
    ours = router(bench.a, excluded_vips=[f"{VIP6}/128", "198.51.100.7"])
    ours.start()
    mastered(ours, VIP4, VIP6, "198.51.100.7")
    taken(bench, bench.a, VIP4, 0)
    taken(bench, bench.a, VIP6, 0)
    found = shown(bench.a)
    assert {vip: found[vip] for vip in before} == before
    assert address_marks(bench.a)[VIP4] == 0
    ours.stop()
    assert shown(bench.a) == before
    # Nor after a kill.
    ours.start()
    mastered(ours, VIP4, "198.51.100.7")
    ours.kill9()
    ours.start()
    wait_until(lambda: not ours.owns("198.51.100.7"), 3, "the leftover gone")
    assert shown(bench.a) == before
    mastered(ours, "198.51.100.7")
    ours.stop()
    assert shown(bench.a) == before


def test_an_address_that_the_kernel_refuses_is_a_fault(bench: Bench) -> None:
    bench.a.sysctl({"net/ipv6/conf/eth0/disable_ipv6": 1})
    ours, other = router(bench.a, excluded_vips=[VIP6]), router(bench.b, LOW)
    ours.start()
    other.start()
    wait_until(lambda: ours.state() == "FAULT", 3, "FAULT")
    assert not ours.owns(VIP4)
    (refused,) = ours.events("AddressesRefused")
    assert refused["failures"][0].startswith(f"{VIP6}/128: ")
    assert ours.report()["faults"] == ["addresses"]
    mastered(other, VIP4)
    taken(bench, bench.b, VIP4, 0)
    ours.stop()


# --- links and sources that come and go


@pytest.mark.parametrize("how", ["carrier", "down", "renamed"])
def test_a_link_that_goes_is_a_fault_until_it_returns(bench: Bench, how: str) -> None:
    ours, other = router(bench.a, excluded_vips=[VIP6]), router(bench.b, LOW)
    ours.start()
    mastered(ours, VIP4, VIP6)
    other.start()
    lost = time.monotonic()
    if how == "carrier":
        bench.a.unplug()
    elif how == "down":
        bench.a.link_down()
    else:
        bench.a.ip("link", "set", "dev", "eth0", "name", "lan0")
    wait_until(lambda: ours.state() == "FAULT", 2, "FAULT")
    fault = "interface-missing" if how == "renamed" else "interface-down"
    assert ours.report()["faults"] == [fault]
    wait_until(lambda: not ours.owns(VIP4) and not ours.owns(VIP6), 1, "addresses gone")
    # Taken along by the interface, and nobody's doing.
    assert ours.events("AddressLost") == []
    taken(bench, bench.b, VIP4, lost)
    back = time.monotonic()
    if how == "carrier":
        bench.a.plug()
    elif how == "down":
        bench.a.link_up()
    else:
        bench.a.ip("link", "set", "dev", "lan0", "name", "eth0")
    mastered(ours, VIP4, VIP6)
    taken(bench, bench.a, VIP4, back)
    taken(bench, bench.a, VIP6, back)
    assert ours.transitions(lost) == [
        ("FAULT", "fault"),
        ("BACKUP", "fault-cleared"),
        ("MASTER", "preempted"),
    ]
    wait_until(lambda: not other.owns(VIP4), 1, "one holder")


def test_a_start_without_carrier_waits_in_fault(bench: Bench) -> None:
    bench.a.unplug()
    ours = router(bench.a)
    ours.start()
    assert ours.state() == "FAULT"
    bench.a.plug()
    mastered(ours, VIP4)
    taken(bench, bench.a, VIP4, 0)


SOURCES = {4: ("192.0.2.1/24", "198.51.100.1/24"), 6: ("fe80::1/64", "fe80::2/64")}


@pytest.mark.parametrize("family", [4, 6])
def test_a_lost_source_is_a_fault_until_it_returns(bench: Bench, family: int) -> None:
    vip = VIP4 if family == 4 else VIP6
    own = SOURCES[family][0]
    ours = router(bench.a, vips=[vip])
    ours.start()
    mastered(ours, vip)
    lost = time.monotonic()
    bench.a.ip("address", "delete", own, "dev", "eth0")
    wait_until(lambda: ours.state() == "FAULT", 1, "FAULT")
    assert ours.report()["faults"] == ["no-source"]
    wait_until(lambda: not ours.owns(vip), 1, "the address gone")
    nodad = ["nodad"] if family == 6 else []
    bench.a.ip("address", "add", own, "dev", "eth0", *nodad)
    mastered(ours, vip)
    assert ours.transitions(lost) == [
        ("FAULT", "fault"),
        ("BACKUP", "fault-cleared"),
        ("MASTER", "no-response"),
    ]
    taken(bench, bench.a, vip, lost)


@pytest.mark.parametrize("family", [4, 6])
def test_another_source_is_chosen_when_one_goes(bench: Bench, family: int) -> None:
    vip = VIP4 if family == 4 else VIP6
    own, other = SOURCES[family]
    nodad = ["nodad"] if family == 6 else []
    bench.a.ip("address", "add", other, "dev", "eth0", *nodad)
    ours = router(bench.a, vips=[vip])
    ours.start()
    mastered(ours, vip)
    first = ours.report()["source"]
    (second,) = {address.split("/")[0] for address in (own, other)} - {first}
    prefix = own.split("/")[1]
    lost = time.monotonic()
    bench.a.ip("address", "delete", f"{first}/{prefix}", "dev", "eth0")
    bench.wire.wait_for(Advert, lambda seen: seen.source == second, 1, lost)
    assert ours.report()["source"] == second
    assert ours.transitions(lost) == []
    assert ours.owns(vip)
    gone = [a for a in bench.wire.adverts(VRID, lost + INTERVAL) if a.source == first]
    assert not gone


def test_a_named_source_is_not_replaced(bench: Bench) -> None:
    bench.a.ip("address", "add", "198.51.100.1/24", "dev", "eth0")
    ours = router(bench.a, source="198.51.100.1")
    ours.start()
    mastered(ours, VIP4)
    assert {advert.source for advert in bench.wire.adverts()} == {"198.51.100.1"}
    bench.a.ip("address", "delete", "198.51.100.1/24", "dev", "eth0")
    wait_until(lambda: ours.state() == "FAULT", 1, "FAULT")
    wait_until(lambda: not ours.owns(VIP4), 1, "the address gone")


def test_demotion_hands_over_without_silence(bench: Bench) -> None:
    ours, other = router(bench.a), router(bench.b, LOW)
    ours.start()
    mastered(ours, VIP4)
    other.start()
    time.sleep(INTERVAL)
    before = time.monotonic()
    ours.do("demote", seconds=2)
    mastered(other, VIP4)
    taken(bench, bench.b, VIP4, before)
    assert not ours.owns(VIP4)
    wait_until(lambda: ours.state() == "MASTER", 5, "MASTER again")
    taken(bench, bench.a, VIP4, before + 2)
    assert ours.transitions(before) == [("BACKUP", "demoted"), ("MASTER", "preempted")]


# --- addresses of somebody else on a BACKUP


@pytest.mark.parametrize("policy", ["tell", "remove"])
@pytest.mark.parametrize("prefix", [24, 32])
def test_an_address_of_somebody_else_on_a_backup(bench: Bench, prefix: int, policy: str) -> None:
    ours = router(bench.a)
    ours.start()
    mastered(ours, VIP4)
    bench.b.ip("address", "add", f"{VIP4}/{prefix}", "dev", "eth0")
    other = router(bench.b, LOW, foreign_address=policy)
    other.start()
    action = "removed" if policy == "remove" else "left there"
    wait_until(lambda: len(other.events("ForeignAddress")) == 1, 2, "the event")
    (told,) = other.events("ForeignAddress")
    assert (told["address"], told["prefix"], told["device"]) == (VIP4, prefix, "eth0")
    assert (told["state"], told["action"]) == ("BACKUP", action)
    assert bench.b.has(VIP4) is (policy == "tell")
    if policy == "tell":
        bench.b.ip("address", "delete", f"{VIP4}/{prefix}", "dev", "eth0")
        # One that is back before the router has read that it went is the same one.
        time.sleep(0.2)
    # And while it runs.
    bench.b.ip("address", "add", f"{VIP4}/{prefix}", "dev", "eth0")
    wait_until(lambda: len(other.events("ForeignAddress")) == 2, 2, "the second event")
    assert bench.b.has(VIP4) is (policy == "tell")
    # The other addresses of the interface stay.
    assert set(bench.b.own_addresses) <= set(bench.b.addresses("eth0"))
    # A master uses it in place, and tells when it stops being one.
    ours.stop()
    wait_until(lambda: other.state() == "MASTER", 3, "MASTER")
    wait_until(lambda: bench.b.has(VIP4), 1, "the address")
    ours.start()
    wait_until(lambda: other.state() == "BACKUP", 3, "BACKUP")
    if policy == "tell":
        wait_until(lambda: len(other.events("ForeignAddress")) == 3, 2, "the third event")
    else:
        wait_until(lambda: not bench.b.has(VIP4), 1, "no address")
    assert bench.a.has(VIP4)


# --- duplicate address detection


@pytest.mark.parametrize("policy", ["reinstate", "ignore"])
def test_an_address_that_fails_duplicate_detection(bench: Bench, policy: str) -> None:
    checked = {"address": "2001:db8::12/128", "nodad": False}
    bench.b.ip("address", "add", "2001:db8::12/64", "dev", "eth0", "nodad")
    ours = router(bench.a, excluded_vips=[checked], on_address_lost=policy)
    ours.start()
    mastered(ours, VIP4)
    wait_until(lambda: bool(ours.events("AddressLost")), 4, "the first failure")
    (first,) = ours.events("AddressLost")
    assert first["duplicate"] and first["address"] == "2001:db8::12"
    if policy == "ignore":
        time.sleep(3)
        assert first["action"] == "ignored" and ours.state() == "MASTER"
        return
    assert first["action"] == "checked again"
    wait_until(lambda: ours.state() == "FAULT", 5, "FAULT")
    (refusal,) = ours.events("AddressesRefused")
    assert refusal["retry_in"] == 5
    wait_until(lambda: not bench.a.has("2001:db8::12"), 1, "no address")
    bench.b.ip("address", "delete", "2001:db8::12/64", "dev", "eth0")
    wait_until(lambda: ours.state() == "MASTER", 8, "another try")
    wait_until(lambda: "tentative" not in shown(bench.a)["2001:db8::12"], 4, "a usable address")
    time.sleep(1)
    assert ours.state() == "MASTER" and len(ours.events("AddressesRefused")) == 1


def test_who_preempts_passes_detection_the_second_time(bench: Bench) -> None:
    """The old master has the address while the new one looks whether anybody has."""
    checked = {"address": "2001:db8::12/128", "nodad": False}
    ours = router(bench.a, excluded_vips=[checked])
    bench.b.ip("address", "add", "2001:db8::12/64", "dev", "eth0", "nodad")
    ours.start()
    mastered(ours, VIP4)
    wait_until(lambda: bool(ours.events("AddressLost")), 4, "the first failure")
    bench.b.ip("address", "delete", "2001:db8::12/64", "dev", "eth0")

    def usable() -> bool:
        found = shown(bench.a).get("2001:db8::12")
        return found is not None and not {"tentative", "dadfailed"} & found.keys()

    wait_until(usable, 5, "a usable address")
    wait_until(lambda: bool(bench.wire.unsolicited("2001:db8::12")), 2, "its announcement")
    assert ours.transitions()[-1][0] == "MASTER"
