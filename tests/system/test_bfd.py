"""BFD with FRR's bfdd and with keepalived, and on real sockets."""

from __future__ import annotations

import asyncio
import functools
import gc
import inspect
import itertools
import os
import socket
import sys
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Concatenate, ParamSpec

import pytest

from checks.attempts import until
from system.bfd_peers import PROGRAMS, Bfdd, BFDDaemon, KeepalivedBFD
from system.lab import Host, Lab, require_root_and
from system.wire import BFDPacket, Sniffer, socket_in
from vrrpkit.bfd.protocol.events import BFDTransition
from vrrpkit.bfd.protocol.packet import BFDDiagnostic, BFDRejectReason, BFDState
from vrrpkit.bfd.session import BFDSession
from vrrpkit.errors import HostError, InterfaceMissing, SourceMissing

REASON = require_root_and(*PROGRAMS, "ping") or ""

pytestmark = [pytest.mark.system, pytest.mark.skipif(bool(REASON), reason=REASON)]

P = ParamSpec("P")

PROMPT = 0.9
"""Seconds that a busy machine may add to what a timer says."""

PATIENT = 20
"""A multiplier that bears with an event loop, or a daemon, that is kept waiting for two seconds."""

OURS = {4: "192.0.2.1", 6: "2001:db8::1"}
THEIRS = {4: "192.0.2.2", 6: "2001:db8::2"}

ON = """
import asyncio, sys
from vrrpkit.bfd.session import BFDSession
async def main():
    async with BFDSession(sys.argv[1], multiplier=10):
        await asyncio.Event().wait()
asyncio.run(main())
"""
"""A session in a process of its own."""


def in_lab(
    test: Callable[Concatenate[Bench, P], Awaitable[None]],
) -> Callable[Concatenate[Lab, Sniffer, P], None]:
    """Run a coroutine function as a test, with hosts and a real event loop; afterwards no file is
    open that was not before."""

    @functools.wraps(test)
    def run(lab: Lab, wire: Sniffer, *args: P.args, **kwargs: P.kwargs) -> None:
        bench = Bench(lab, wire)
        # The loops of earlier tests in this process go with what they had open, whenever they do.
        gc.collect()
        before = os.listdir("/proc/self/fd")
        asyncio.run(_limited(test(bench, *args, **kwargs)))
        gc.collect()
        assert len(os.listdir("/proc/self/fd")) == len(before)

    # What pytest reads the names of fixtures and parameters from.
    fixtures = inspect.signature(run, follow_wrapped=False).parameters.values()
    own = list(inspect.signature(test).parameters.values())[1:]
    wanted = [*list(fixtures)[:2], *own]
    run.__signature__ = inspect.Signature(wanted)  # type: ignore[attr-defined]
    return run


async def _limited(work: Awaitable[None]) -> None:
    async with asyncio.timeout(60):
        await work


class Bench:
    """Two hosts, and what crosses the switch between them."""

    def __init__(self, lab: Lab, wire: Sniffer) -> None:
        self.lab = lab
        self.wire = wire
        self.a = lab.host("a", "192.0.2.1/24", "2001:db8::1/64")
        self.b = lab.host("b", "192.0.2.2/24", "2001:db8::2/64")

    def packets(self, host: Host, since: float = 0.0) -> list[BFDPacket]:
        """The BFD packets that a host sent."""
        frames = self.wire.frames(BFDPacket, since)
        return [frame for frame in frames if frame.source_mac == host.mac]

    def session(self, family: int = 4) -> BFDSession:
        """Our session with the daemon on the other host: 100 ms, ten packets."""
        return BFDSession(
            THEIRS[family], netns=self.a.namespace, source=OURS[family], multiplier=10
        )

    def daemon(self, kind: str, family: int = 4) -> BFDDaemon:
        """A daemon on the other host."""
        make = {"frr": Bfdd, "keepalived": KeepalivedBFD}[kind]
        return make(self.b, OURS[family], THEIRS[family])


def on_the_wire(at: float) -> float:
    """A moment of a session in the clock of the sniffer."""
    return at + time.monotonic() - time.clock_gettime(time.CLOCK_BOOTTIME)


async def says(daemon: BFDDaemon, *, up: bool = True) -> None:
    """Wait until the daemon says that its session is Up, or is not. To ask it takes time, in which
    the session here must go on."""
    async with asyncio.timeout(20):
        while await asyncio.to_thread(daemon.up) is not up:  # noqa: ASYNC110
            await asyncio.sleep(0.05)


async def agreed(session: BFDSession, daemon: BFDDaemon) -> float:
    """Wait until both are Up and fast; the detection time here."""
    await session.wait_for(BFDState.UP)
    expected = pytest.approx(daemon.multiplier * daemon.interval)
    await says(daemon)
    await until(lambda: session.detection_time == expected, 10)
    return daemon.multiplier * daemon.interval


PEERS = pytest.mark.parametrize(
    ("kind", "family"), [("frr", 4), ("frr", 6), ("keepalived", 4), ("keepalived", 6)]
)
ONE_FAMILY = pytest.mark.parametrize(("kind", "family"), [("frr", 4), ("keepalived", 4)])


@PEERS
@in_lab
async def test_a_peer_that_is_killed_is_noticed_in_time_and_its_return_too(
    bench: Bench, kind: str, family: int
) -> None:
    daemon = bench.daemon(kind, family)
    daemon.start()
    async with bench.session(family) as session:
        detection = await agreed(session, daemon)
        downs: list[BFDTransition] = []
        session.on_transition(downs.append)
        await asyncio.sleep(1)
        assert session.state is BFDState.UP
        await asyncio.to_thread(daemon.kill9)
        await until(lambda: bool(downs))
        last = bench.packets(bench.b)[-1].time
        silence = on_the_wire(downs[0].at) - last
        assert detection - 0.002 <= silence < detection + PROMPT
        assert downs[0].diagnostic is BFDDiagnostic.DETECTION_EXPIRED
        await asyncio.to_thread(daemon.start)
        await agreed(session, daemon)
        assert not session.statistics.rejected
        assert not session.statistics.send_errors
    sent = bench.packets(bench.a)
    assert {(packet.ttl, packet.port) for packet in sent} == {(255, 3784)}
    ports = {packet.source_port for packet in sent}
    assert len(ports) == 1
    assert ports.pop() >= 49152
    # Jitter: mostly between three quarters of the interval and all of it.
    up = [p.time for p in sent if p.state == "Up" and p.desired_min_tx == 100_000 and not p.final]
    gaps = sorted(later - earlier for earlier, later in itertools.pairwise(up))
    assert 0.07 < gaps[len(gaps) // 2] < 0.15
    await asyncio.to_thread(daemon.stop)


@ONE_FAMILY
@in_lab
async def test_timers_are_renegotiated_while_up(bench: Bench, kind: str, family: int) -> None:
    daemon = bench.daemon(kind, family)
    daemon.start()
    async with bench.session(family) as session:
        await agreed(session, daemon)
        changed = time.monotonic()
        session.set_timers(min_tx=0.3, min_rx=0.2)
        detection = pytest.approx(daemon.multiplier * 0.2)
        await until(lambda: (session.transmit_interval, session.detection_time) == (0.3, detection))
        asked = [p for p in bench.packets(bench.a, changed) if p.poll]
        answers = [p for p in bench.packets(bench.b, changed) if p.final]
        assert asked
        assert answers
        assert (asked[0].desired_min_tx, asked[0].required_min_rx) == (300_000, 200_000)
        await asyncio.sleep(1.5)
        # With the intervals of before these would be twelve or more.
        slow, theirs = (
            len([p for p in bench.packets(host, time.monotonic() - 1.2) if not p.final])
            for host in (bench.a, bench.b)
        )
        assert 1 <= slow <= 7
        assert 1 <= theirs <= 10
        await says(daemon)
        assert (session.state, session.statistics.downs) == (BFDState.UP, 0)
        if isinstance(daemon, Bfdd):
            await asyncio.to_thread(
                daemon.configure, "transmit-interval 400", "receive-interval 50"
            )
            detection = pytest.approx(daemon.multiplier * 0.4)
            await until(lambda: session.detection_time == detection)
            # The answer to their poll; who listens on the wire may be a little behind.
            await until(lambda: any(p.final for p in bench.packets(bench.a, changed)))
            session.set_timers(min_tx=0.05)
            await until(lambda: session.transmit_interval == 0.05)
            async with asyncio.timeout(20):
                while True:
                    status = await asyncio.to_thread(daemon.status)
                    if status["remote-transmit-interval"] == 50:
                        break
                    await asyncio.sleep(0.05)
            assert status["status"] == "up"
            assert session.statistics.downs == 0
    await asyncio.to_thread(daemon.stop)


@PEERS
@in_lab
async def test_held_down_here(bench: Bench, kind: str, family: int) -> None:
    daemon = bench.daemon(kind, family)
    daemon.start()
    async with bench.session(family) as session:
        await agreed(session, daemon)
        session.admin_down()
        await says(daemon, up=False)
        await asyncio.sleep(1)
        await says(daemon, up=False)
        session.admin_up()
        await agreed(session, daemon)
    # Leaving is no failure either.
    await says(daemon, up=False)
    await until(lambda: bench.packets(bench.a)[-1].state == "AdminDown")
    assert bench.packets(bench.a)[-1].diagnostic == BFDDiagnostic.ADMIN_DOWN.code
    await asyncio.to_thread(daemon.stop)


@in_lab
async def test_held_down_by_frr(bench: Bench) -> None:
    daemon = Bfdd(bench.b, OURS[4], THEIRS[4])
    daemon.start()
    async with bench.session() as session:
        await agreed(session, daemon)
        lost: list[None] = []
        session.on_lost(lambda: lost.append(None))
        await asyncio.to_thread(daemon.configure, "shutdown")
        await session.wait_for(BFDState.DOWN)
        assert session.diagnostic is BFDDiagnostic.NEIGHBOR_DOWN
        assert session.remote_state is BFDState.ADMIN_DOWN
        await asyncio.sleep(1.5)
        assert (session.state, lost) == (BFDState.DOWN, [])
        await asyncio.to_thread(daemon.configure, "no shutdown")
        await agreed(session, daemon)


@in_lab
async def test_keepalived_that_ends_falls_silent(bench: Bench) -> None:
    daemon = bench.daemon("keepalived")
    daemon.start()
    async with bench.session() as session:
        await agreed(session, daemon)
        await asyncio.to_thread(daemon.stop)
        await session.wait_for(BFDState.DOWN)
        # It says nothing of the end, which is a failure for its neighbour.
        assert session.diagnostic is BFDDiagnostic.DETECTION_EXPIRED


@ONE_FAMILY
@in_lab
async def test_we_are_killed(bench: Bench, kind: str, family: int) -> None:
    daemon = bench.daemon(kind, family)
    daemon.start()
    ours = bench.a.python("-c", ON, THEIRS[family])
    await says(daemon)
    await asyncio.sleep(1)
    ours.kill()
    ours.wait(10)
    await says(daemon, up=False)
    last = bench.packets(bench.a)[-1]
    (down, *_) = [p for p in bench.packets(bench.b, last.time) if p.state == "Down"]
    assert (last.state, down.diagnostic) == ("Up", BFDDiagnostic.DETECTION_EXPIRED.code)
    # Ten packets of ours, which is what we told it; keepalived says so with its next packet.
    assert 0.998 <= down.time - last.time < 1 + PROMPT + (1 if kind == "keepalived" else 0)
    await asyncio.to_thread(daemon.stop)


@in_lab
async def test_an_event_loop_that_stood_still_has_not_lost_its_neighbour(bench: Bench) -> None:
    daemon = bench.daemon("frr")
    daemon.start()
    async with bench.session() as session:
        session.set_timers(multiplier=30)
        detection = await agreed(session, daemon)
        await asyncio.sleep(0.5)
        for _ in range(2):
            time.sleep(1.5 * detection)  # noqa: ASYNC251
            await asyncio.sleep(0.5)
        await says(daemon)
        assert (session.state, session.statistics.downs) == (BFDState.UP, 0)


@in_lab
async def test_across_a_router(bench: Bench) -> None:
    router = bench.lab.host("r", "192.0.2.3/24")
    router.sysctl({"net/ipv4/ip_forward": 1, "net/ipv4/conf/all/send_redirects": 0})
    router.sysctl({"net/ipv4/conf/eth0/send_redirects": 0})
    far = {bench.a: "203.0.113.1", bench.b: "203.0.113.2"}
    for host, other in ((bench.a, bench.b), (bench.b, bench.a)):
        host.ip("address", "add", f"{far[host]}/32", "dev", "lo")
        host.ip("route", "add", far[other], "via", "192.0.2.3", "src", far[host])
        router.ip("route", "add", far[other], "via", other.address)
    daemon = Bfdd(bench.b, far[bench.a], far[bench.b], multihop=True)
    daemon.start()

    def session(max_hops: int) -> BFDSession:
        return BFDSession(
            far[bench.b],
            source=far[bench.a],
            netns=bench.a.namespace,
            multihop=True,
            max_hops=max_hops,
        )

    async with session(1) as near:
        await agreed(near, daemon)
        assert not near.statistics.rejected
    arrived = [p for p in bench.packets(router) if p.source == far[bench.b]]
    assert {(p.ttl, p.port) for p in arrived} == {(254, 4784)}
    async with session(0) as strict:
        await until(lambda: strict.statistics.rejected[BFDRejectReason.TTL] > 2, 10)
        assert strict.state is BFDState.DOWN


# --- without a daemon ----------------------------------------------------------------------------


@in_lab
async def test_link_local_neighbours_on_one_interface(bench: Bench) -> None:
    one, other = (
        BFDSession(there.link_local, interface="eth0", netns=here.namespace)
        for here, there in ((bench.a, bench.b), (bench.b, bench.a))
    )
    async with one, other:
        await one.wait_for(BFDState.UP)
        # The kernel forgets the addresses with the link, and gets them back with it.
        bench.a.link_down()
        await other.wait_for(BFDState.DOWN)
        await asyncio.sleep(1)
        assert one.statistics.send_errors
        bench.a.link_up()
        await one.wait_for(BFDState.UP)


@in_lab
async def test_an_interface_that_is_made_anew_is_found_again(bench: Bench) -> None:
    one, other = (
        BFDSession(there.address, interface="eth0", netns=here.namespace)
        for here, there in ((bench.a, bench.b), (bench.b, bench.a))
    )
    async with one, other:
        await one.wait_for(BFDState.UP)
        bench.a.ip("link", "delete", "dev", "eth0")
        await one.wait_for(BFDState.DOWN)
        bench.a.attach(bench.lab.switch, "02:00:00:00:00:01")
        await one.wait_for(BFDState.UP)
        await until(lambda: other.state is BFDState.UP)


@in_lab
async def test_another_interface_does_not_count(bench: Bench) -> None:
    bench.a.ip("link", "add", "other", "type", "veth", "peer", "name", "more")
    bench.a.ip("link", "set", "other", "up")
    wrong = BFDSession(bench.b.address, interface="other", netns=bench.a.namespace)
    right = BFDSession(bench.a.address, netns=bench.b.namespace)
    async with wrong, right:
        await asyncio.sleep(2.5)
        assert (wrong.state, right.state) == (BFDState.DOWN, BFDState.DOWN)
        assert wrong.statistics.packets_received == 0


@in_lab
async def test_a_packet_that_crossed_a_router_is_dropped(bench: Bench) -> None:
    one = BFDSession(bench.b.address, netns=bench.a.namespace, multiplier=PATIENT)
    other = BFDSession(bench.a.address, netns=bench.b.namespace, multiplier=PATIENT)
    async with one, other:
        await one.wait_for(BFDState.UP)
        for ttl, reason in ((254, BFDRejectReason.TTL), (255, BFDRejectReason.LENGTH)):
            forged = bytes.fromhex("204003180000000500000000000f4240000f424000000000")
            with socket_in(bench.b.namespace, socket.AF_INET, socket.SOCK_DGRAM) as sock:
                sock.setsockopt(socket.IPPROTO_IP, socket.IP_TTL, ttl)
                sock.sendto(forged if ttl == 254 else b"?", (bench.a.address, 3784))
            await until(lambda reason=reason: one.statistics.rejected[reason] == 1)  # type: ignore[misc]
        assert one.state is BFDState.UP


@in_lab
async def test_sessions_share_what_they_hear_with(bench: Bench) -> None:
    count = 20
    both = ((bench.a, bench.b, 100), (bench.b, bench.a, 150))
    for host, _there, first in both:
        host.ip_batch(
            *(f"address add 192.0.2.{first + n}/24 dev eth0" for n in range(count)),
        )
    sessions = [
        BFDSession(
            f"192.0.2.{250 - first + n}",
            source=f"192.0.2.{first + n}",
            netns=host.namespace,
            multiplier=PATIENT,
        )
        for host, _there, first in both
        for n in range(count)
    ]
    before = len(os.listdir("/proc/self/fd"))
    async with AsyncExitStack() as stack:
        for session in sessions:
            await stack.enter_async_context(session)
        # For each host the namespace, the timer and one socket to hear with; one for each session.
        assert len(os.listdir("/proc/self/fd")) - before == 2 * (3 + count)
        for session in sessions:
            await session.wait_for(BFDState.UP)
        await asyncio.sleep(2)
        assert [session.statistics.downs for session in sessions] == [0] * len(sessions)


@in_lab
async def test_only_one_daemon_can_have_the_port(bench: Bench) -> None:
    daemon = bench.daemon("keepalived")
    daemon.start()
    with pytest.raises(HostError, match="UDP port 3784 is taken: another BFD runs"):
        await BFDSession("192.0.2.9", netns=bench.b.namespace).__aenter__()


@in_lab
async def test_what_the_host_lacks_is_named(bench: Bench) -> None:
    namespace = bench.a.namespace
    with pytest.raises(InterfaceMissing, match="'eth7'"):
        await BFDSession("192.0.2.2", interface="eth7", netns=namespace).__aenter__()
    with pytest.raises(SourceMissing, match=r"192\.0\.2\.66 is no address of this host"):
        await BFDSession("192.0.2.2", source="192.0.2.66", netns=namespace).__aenter__()
    with pytest.raises(HostError, match="no network namespace 'nowhere'"):
        await BFDSession("192.0.2.2", netns="nowhere").__aenter__()


@in_lab
async def test_a_route_may_come_later(bench: Bench) -> None:
    bench.a.ip("address", "add", "203.0.113.1/32", "dev", "lo")
    bench.b.ip("address", "add", "203.0.113.2/32", "dev", "lo")
    bench.b.ip("route", "add", "203.0.113.1", "via", "192.0.2.1")
    one = BFDSession("203.0.113.2", source="203.0.113.1", netns=bench.a.namespace)
    other = BFDSession("203.0.113.1", source="203.0.113.2", netns=bench.b.namespace)
    async with one, other:
        await asyncio.sleep(1.5)
        assert one.statistics.send_errors
        bench.a.ip("route", "add", "203.0.113.2", "via", "192.0.2.2")
        await one.wait_for(BFDState.UP)


@in_lab
async def test_no_privilege_is_needed_without_an_interface(bench: Bench) -> None:
    nobody = ["setpriv", "--bounding-set=-all", "--inh-caps=-all", sys.executable, "-u", "-c"]
    ours = bench.a.popen([*nobody, ON, THEIRS[4]])
    async with BFDSession(OURS[4], netns=bench.b.namespace) as session:
        await session.wait_for(BFDState.UP)
        ours.kill()
        ours.wait(10)
