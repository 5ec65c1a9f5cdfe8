"""The reconciler: the kernel follows the last wish, whatever happens in between."""

from __future__ import annotations

import asyncio
import errno
import random
from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings, strategies as st

from vrrpkit.errors import Closed, KernelRefused
from vrrpkit.host.addresses.reconciler import Reconciler
from vrrpkit.host.announce.announcer import Announcer
from vrrpkit.host.base import AddressClaim
from vrrpkit.host.memory.resources import IPInterface, MemoryAddresses
from vrrpkit.testing.virtual import run_virtual, virtual_time
from vrrpkit.timers import Deadlines, LoopAlarm
from vrrpkit.values import VIP, Announcements

A, B, C = (VIP(f"192.0.2.{number}/24") for number in (10, 11, 12))
BRIEF = Announcements(repeat=1, delay=0)
EPERM = OSError(errno.EPERM, "Operation not permitted")


@dataclass
class Listener:
    """Notes what it hears, and may answer."""

    acquisitions: int = 0
    refusals: list[list[tuple[VIP, OSError]]] = field(default_factory=list)
    losses: list[VIP] = field(default_factory=list)
    hold: AddressClaim | None = None
    reinstate: bool = False

    def acquired(self) -> None:
        self.acquisitions += 1

    def refused(self, failures: Sequence[tuple[VIP, OSError]]) -> None:
        self.refusals.append(list(failures))

    def usable(self, vip: VIP) -> None:
        pass

    def duplicate(self, vip: VIP) -> None:
        pass

    def lost(self, vip: VIP) -> None:
        self.losses.append(vip)
        if self.reinstate and self.hold is not None:
            self.hold.acquire()


class Host:
    """A reconciler over addresses in memory."""

    def __init__(self) -> None:
        self.manager = MemoryAddresses(self.removed, lambda: None)
        self.deadlines = Deadlines(LoopAlarm())
        self.announced: list[VIP] = []
        self.announcer = Announcer(self.deadlines, self.announced.extend)
        self.reconciler = Reconciler(self.manager, self.announcer, self.deadlines)
        self.echo = True

    def removed(self, address: IPInterface, own: bool) -> None:
        if self.echo:
            self.reconciler.removed(address.ip, address.network.prefixlen, own=own)

    async def hold(self, *vips: VIP, lease: float | None = None) -> tuple[AddressClaim, Listener]:
        listener = Listener()
        hold = await self.reconciler.hold(vips, BRIEF, listener, lease)
        listener.hold = hold
        return hold, listener

    @property
    def there(self) -> set[VIP]:
        return {vip for vip in (A, B, C) if self.manager.present(vip)}


@virtual_time()
async def test_acquire_and_release() -> None:
    host = Host()
    hold, listener = await host.hold(A, B)
    assert host.manager.requests == 0
    hold.acquire()
    await hold.settled()
    assert host.there == {A, B}
    assert (listener.acquisitions, host.announced) == (1, [A, B])
    hold.release()
    await hold.settled()
    assert host.there == set()
    assert asyncio.get_running_loop().time() == 1000


@virtual_time()
async def test_announcements_follow_the_addresses() -> None:
    host = Host()
    host.manager.delay = 0.5
    hold, _ = await host.hold(A)
    hold.acquire()
    await asyncio.sleep(0.4)
    assert host.announced == []
    await asyncio.sleep(0.2)
    assert host.announced == [A]


@virtual_time()
async def test_all_wishes_of_one_turn_are_one_request() -> None:
    host = Host()
    holds = [(await host.hold(VIP(f"10.0.0.{n}/32")))[0] for n in range(1, 101)]
    for hold in holds[:50]:
        hold.acquire()
    await holds[0].settled()
    assert host.manager.requests == 1
    for hold in holds[:50]:
        hold.release()
    for hold in holds[50:]:
        hold.acquire()
    await holds[99].settled()
    assert host.manager.requests == 2


@virtual_time()
async def test_flapping_within_a_turn_asks_the_kernel_nothing() -> None:
    host = Host()
    hold, listener = await host.hold(A)
    hold.acquire()
    hold.release()
    await hold.settled()
    assert (host.manager.requests, listener.acquisitions, host.announced) == (0, 0, [])


@virtual_time()
async def test_releasing_while_the_kernel_adds_announces_nothing() -> None:
    host = Host()
    host.manager.delay = 1
    hold, listener = await host.hold(A)
    hold.acquire()
    await asyncio.sleep(0.5)
    hold.release()
    await hold.settled()
    assert (host.there, listener.acquisitions, host.announced) == (set(), 0, [])


@virtual_time()
async def test_flapping_while_the_kernel_adds_announces_once() -> None:
    host = Host()
    host.manager.delay = 1
    hold, listener = await host.hold(A)
    hold.acquire()
    await asyncio.sleep(0.5)
    hold.release()
    hold.acquire()
    await hold.settled()
    assert (host.there, listener.acquisitions, host.announced) == ({A}, 1, [A])
    assert host.manager.requests == 1


@virtual_time()
async def test_flapping_while_the_kernel_removes_puts_it_back() -> None:
    host = Host()
    hold, listener = await host.hold(A)
    hold.acquire()
    await hold.settled()
    host.manager.delay = 1
    hold.release()
    await asyncio.sleep(0.5)
    hold.acquire()
    await hold.settled()
    assert (host.there, listener.acquisitions, listener.losses) == ({A}, 2, [])


@virtual_time()
async def test_release_stops_announcements_at_once() -> None:
    host = Host()
    listener = Listener()
    hold = await host.reconciler.hold([A], Announcements(repeat=5, interval=1), listener)
    hold.acquire()
    await hold.settled()
    hold.release()
    await asyncio.sleep(20)
    assert host.announced == [A]


@virtual_time()
async def test_announce_on_demand() -> None:
    host = Host()
    hold, _ = await host.hold(A)
    hold.announce(3)
    hold.acquire()
    hold.announce(3)
    await hold.settled()
    assert host.announced == [A]
    hold.announce(3)
    await asyncio.sleep(0.01)
    assert host.announced == [A] * 4
    hold.release()
    hold.announce(3)
    await hold.settled()
    assert host.announced == [A] * 4


@virtual_time()
async def test_a_refusal_is_told_and_not_tried_again_by_itself() -> None:
    host = Host()
    host.manager.failures[B.address] = EPERM
    hold, listener = await host.hold(A, B)
    hold.acquire()
    await hold.settled()
    assert listener.refusals == [[(B, EPERM)]]
    assert (listener.acquisitions, host.announced) == (0, [])
    await asyncio.sleep(100)
    assert host.manager.requests == 1
    host.manager.failures.clear()
    hold.acquire()
    await hold.settled()
    assert (host.there, listener.acquisitions) == ({A, B}, 1)


@virtual_time()
async def test_a_refusal_concerns_only_whose_address_it_is() -> None:
    host = Host()
    host.manager.failures[B.address] = EPERM
    good, good_listener = await host.hold(A)
    bad, bad_listener = await host.hold(B)
    good.acquire()
    bad.acquire()
    await bad.settled()
    assert (good_listener.acquisitions, good_listener.refusals) == (1, [])
    assert len(bad_listener.refusals) == 1


@virtual_time()
async def test_a_refused_removal_is_tried_again_at_the_next_wish() -> None:
    host = Host()
    hold, listener = await host.hold(A)
    hold.acquire()
    await hold.settled()
    host.manager.failures[A.address] = EPERM
    hold.release()
    await hold.settled()
    assert listener.refusals == [[(A, EPERM)]]
    host.manager.failures.clear()
    await hold.close()
    assert host.there == set()


@virtual_time()
async def test_an_error_of_the_whole_request_concerns_all_of_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    host = Host()
    hold, listener = await host.hold(A, B)

    async def apply(
        _add: Sequence[VIP], _remove: Sequence[VIP], _lease: float | None
    ) -> list[tuple[VIP, OSError]]:
        raise EPERM

    monkeypatch.setattr(host.manager, "apply", apply)
    hold.acquire()
    await hold.settled()
    assert listener.refusals == [[(A, EPERM), (B, EPERM)]]


@virtual_time()
async def test_a_bug_below_is_logged_and_counts_as_a_refusal(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    host = Host()
    hold, listener = await host.hold(A)

    async def apply(
        _add: Sequence[VIP], _remove: Sequence[VIP], _lease: float | None
    ) -> list[tuple[VIP, OSError]]:
        raise ZeroDivisionError

    monkeypatch.setattr(host.manager, "apply", apply)
    hold.acquire()
    await hold.settled()
    assert listener.refusals[0][0][1].errno == errno.EIO
    assert "ZeroDivisionError" in caplog.text


@virtual_time()
async def test_a_failing_listener_harms_no_other(caplog: pytest.LogCaptureFixture) -> None:
    class Failing(Listener):
        def acquired(self) -> None:
            raise ZeroDivisionError

    host = Host()
    bad = await host.reconciler.hold([A], BRIEF, Failing())
    good, listener = await host.hold(B)
    bad.acquire()
    good.acquire()
    await good.settled()
    await bad.settled()
    assert (host.there, listener.acquisitions) == ({A, B}, 1)
    assert "ZeroDivisionError" in caplog.text


@virtual_time()
async def test_an_address_of_somebody_else_is_used_in_place() -> None:
    host = Host()
    host.manager.put(A.interface, None, ours=False)
    hold, listener = await host.hold(A)
    hold.acquire()
    await hold.settled()
    assert (listener.acquisitions, host.announced, host.manager.requests) == (1, [A], 0)
    hold.release()
    await hold.settled()
    await hold.close()
    assert host.there == {A}


@virtual_time()
async def test_the_loss_of_an_address_of_somebody_else_is_told() -> None:
    host = Host()
    host.manager.put(A.interface, None, ours=False)
    hold, listener = await host.hold(A)
    hold.acquire()
    await hold.settled()
    host.manager.remove(A.interface)
    assert listener.losses == [A]


@virtual_time()
async def test_leftovers_of_a_killed_run_are_removed() -> None:
    host = Host()
    host.manager.put(A.interface, None, ours=True)
    host.manager.put(B.interface, None, ours=True)
    await host.hold(A)
    assert host.there == {B}


@virtual_time()
async def test_what_another_router_holds_is_no_leftover() -> None:
    host = Host()
    first, _ = await host.hold(A)
    first.acquire()
    await first.settled()
    second, _ = await host.hold(A)
    assert host.there == {A}
    second.acquire()
    await second.settled()
    first.release()
    await first.settled()
    assert host.there == {A}
    second.release()
    await second.settled()
    assert host.there == set()


@virtual_time()
async def test_a_leftover_that_stays_refuses_the_hold() -> None:
    host = Host()
    host.manager.put(A.interface, None, ours=True)
    host.manager.failures[A.address] = EPERM
    with pytest.raises(KernelRefused, match="earlier run") as caught:
        await host.hold(A)
    assert caught.value.errno == errno.EPERM


@virtual_time()
async def test_a_loss_is_told_and_left_to_the_listener() -> None:
    host = Host()
    hold, listener = await host.hold(A, B)
    hold.acquire()
    await hold.settled()
    host.manager.remove(A.interface)
    assert listener.losses == [A]
    await asyncio.sleep(10)
    assert host.there == {B}
    hold.acquire()
    await hold.settled()
    assert (host.there, listener.acquisitions) == ({A, B}, 2)
    assert host.announced == [A, B, A, B]


@virtual_time()
async def test_a_listener_may_reinstate_at_once() -> None:
    host = Host()
    hold, listener = await host.hold(A)
    listener.reinstate = True
    hold.acquire()
    await hold.settled()
    host.manager.remove(A.interface)
    await hold.settled()
    assert (host.there, listener.acquisitions) == ({A}, 2)


@virtual_time()
async def test_a_loss_while_the_kernel_is_busy_is_told() -> None:
    host = Host()
    hold, listener = await host.hold(A)
    listener.reinstate = True
    hold.acquire()
    await hold.settled()
    host.manager.delay = 1
    other, _ = await host.hold(B)
    other.acquire()
    await asyncio.sleep(0.5)
    host.manager.remove(A.interface)
    await hold.settled()
    assert (host.there, listener.losses) == ({A, B}, [A])


@virtual_time()
async def test_notices_of_our_own_removals_are_no_losses_even_when_late() -> None:
    host = Host()
    host.echo = False
    hold, listener = await host.hold(A)
    for _ in range(3):
        hold.acquire()
        await hold.settled()
        hold.release()
        await hold.settled()
    hold.acquire()
    await hold.settled()
    for _ in range(3):
        host.reconciler.removed(A.address, A.prefix)
    assert listener.losses == []
    host.reconciler.removed(A.address, A.prefix)
    assert listener.losses == [A]


@virtual_time()
async def test_a_notice_that_never_came_hides_no_later_loss() -> None:
    host = Host()
    host.echo = False
    hold, listener = await host.hold(A)
    hold.acquire()
    await hold.settled()
    hold.release()
    await hold.settled()
    await asyncio.sleep(10)
    hold.acquire()
    await hold.settled()
    host.echo = True
    host.manager.remove(A.interface)
    assert listener.losses == [A]


@virtual_time()
async def test_unknown_addresses_that_vanish_concern_nobody() -> None:
    host = Host()
    hold, listener = await host.hold(A)
    host.reconciler.removed(A.address, A.prefix)
    host.reconciler.removed(B.address, B.prefix)
    hold.acquire()
    await hold.settled()
    host.reconciler.removed(A.address, 32)
    assert listener.losses == []


@virtual_time()
async def test_leases_are_renewed_while_wanted_and_run_out_afterwards() -> None:
    host = Host()
    hold, listener = await host.hold(A, B, lease=3)
    hold.acquire()
    await asyncio.sleep(60)
    assert (host.there, listener.losses, listener.acquisitions) == ({A, B}, [], 1)
    assert host.manager.requests == pytest.approx(61, abs=1)
    assert host.announced == [A, B]
    hold.release()
    await hold.settled()
    requests = host.manager.requests
    await asyncio.sleep(60)
    assert host.manager.requests == requests


@virtual_time()
async def test_leases_are_renewed_in_batches() -> None:
    host = Host()
    for vip in (A, B, C):
        hold, _ = await host.hold(vip, lease=30)
        hold.acquire()
        await asyncio.sleep(1)
    requests = host.manager.requests
    await asyncio.sleep(10)
    assert host.manager.requests == requests + 1
    await asyncio.sleep(300)
    assert host.there == {A, B, C}


@virtual_time()
async def test_a_lease_that_runs_out_is_a_loss() -> None:
    host = Host()
    hold, listener = await host.hold(A, lease=3)
    hold.acquire()
    await hold.settled()
    host.manager.running.clear()
    await asyncio.sleep(10)
    assert (host.there, listener.losses) == (set(), [A])
    hold.release()
    host.manager.running.set()
    await hold.settled()
    assert host.there == set()


@virtual_time()
async def test_a_refused_renewal_is_told() -> None:
    host = Host()
    hold, listener = await host.hold(A, lease=3)
    hold.acquire()
    await hold.settled()
    host.manager.failures[A.address] = EPERM
    await asyncio.sleep(1.5)
    assert listener.refusals == [[(A, EPERM)]]


@virtual_time()
async def test_different_leases_get_a_request_each() -> None:
    host = Host()
    for vip, lease in ((A, 3.0), (B, 6.0), (C, None)):
        hold, _ = await host.hold(vip, lease=lease)
        hold.acquire()
    await hold.settled()
    assert (host.manager.requests, host.there) == (3, {A, B, C})
    host.manager.running.clear()
    await asyncio.sleep(4)
    assert host.there == {B, C}
    await asyncio.sleep(4)
    assert host.there == {C}
    host.manager.running.set()


@virtual_time()
async def test_closing_a_hold_removes_and_forgets() -> None:
    host = Host()
    hold, listener = await host.hold(A)
    hold.acquire()
    await hold.close()
    await hold.close()
    hold.acquire()
    await hold.settled()
    assert (host.there, listener.acquisitions) == (set(), 0)


@virtual_time()
async def test_closing_while_the_kernel_adds() -> None:
    host = Host()
    host.manager.delay = 1
    hold, _ = await host.hold(A)
    hold.acquire()
    await asyncio.sleep(0.5)
    await host.reconciler.close()
    assert host.there == set()
    with pytest.raises(Closed):
        await host.hold(B)


@virtual_time()
async def test_a_cancelled_close_of_a_hold_still_removes() -> None:
    host = Host()
    hold, _ = await host.hold(A)
    hold.acquire()
    await hold.settled()
    host.manager.delay = 1
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.5):
            await hold.close()
    await asyncio.sleep(1)
    assert host.there == set()


@virtual_time()
async def test_a_cancelled_hold_is_forgotten() -> None:
    host = Host()
    host.manager.put(A.interface, None, ours=True)
    host.manager.delay = 1
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.5):
            await host.hold(A)
    await asyncio.sleep(1)
    assert host.there == set()
    await host.reconciler.close()


@virtual_time()
async def test_a_cancelled_close_can_be_repeated() -> None:
    host = Host()
    hold, _ = await host.hold(A)
    hold.acquire()
    await hold.settled()
    host.manager.delay = 1
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.5):
            await host.reconciler.close()
    await host.reconciler.close()
    await host.reconciler.close()
    assert host.there == set()


@virtual_time()
@pytest.mark.parametrize("after", [0, 0.5])
async def test_a_wish_outlives_who_cancels_all_tasks(after: float) -> None:
    """In the very turn in which the task was made, and while the kernel is at work."""
    host = Host()
    host.manager.delay = 1
    hold, _ = await host.hold(A)
    hold.acquire()
    if after:
        await asyncio.sleep(after)
    (worker,) = [task for task in asyncio.all_tasks() if task.get_name() == "vrrpkit addresses"]
    worker.cancel()
    await hold.settled()
    assert host.there == {A}
    hold.release()
    await host.reconciler.close()
    assert host.there == set()


@settings(max_examples=150, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_whatever_happens_the_last_wish_wins(seed: int) -> None:
    chance = random.Random(seed)

    async def main() -> None:
        host = Host()
        holds = [await host.hold(*vips) for vips in ((A, B), (B,), (C,))]
        wishes = [False] * len(holds)
        for _ in range(chance.randrange(30)):
            host.manager.delay = chance.choice((0, 0.1, 1))
            number = chance.randrange(len(holds))
            wishes[number] = chance.random() < 0.5
            hold = holds[number][0]
            (hold.acquire if wishes[number] else hold.release)()
            if chance.random() < 0.3:
                host.manager.failures[chance.choice((A, B, C)).address] = EPERM
            else:
                host.manager.failures.clear()
            await asyncio.sleep(chance.choice((0, 0, 0.05, 0.5)))
        host.manager.failures.clear()
        for (hold, listener), wish in zip(holds, wishes, strict=True):
            (hold.acquire if wish else hold.release)()
            listener.acquisitions = 0
            assert listener.losses == []
        for (hold, listener), wish in zip(holds, wishes, strict=True):
            await hold.settled()
            assert listener.acquisitions == wish
        wanted = [vips for vips, wish in zip(((A, B), (B,), (C,)), wishes, strict=True) if wish]
        assert host.there == {vip for vips in wanted for vip in vips}
        await host.reconciler.close()
        assert host.there == set()

    run_virtual(main())


@virtual_time()
async def test_what_our_own_removal_took_along_is_put_back() -> None:
    host = Host()
    host.manager.promote_secondaries = False
    (first, _), (second, other) = await host.hold(A), await host.hold(B)
    for hold in (first, second):
        hold.acquire()
        await hold.settled()
    first.release()
    await first.settled()
    await second.settled()
    assert host.there == {B}
    assert (other.losses, other.refusals) == ([], [])
    # Routes that prefer the address went with it: the holder puts them back.
    assert other.acquisitions == 2


@virtual_time()
async def test_what_goes_with_it_and_is_not_wanted_any_more_stays_away() -> None:
    host = Host()
    host.manager.promote_secondaries = False
    (first, _), (second, other) = await host.hold(A), await host.hold(B)
    first.acquire()
    second.acquire()
    await second.settled()
    host.manager.delay = 1
    first.release()
    await asyncio.sleep(0.5)
    second.release()
    await second.settled()
    assert host.there == set() and other.losses == []
    second.acquire()
    await second.settled()
    assert host.there == {B}


@virtual_time()
async def test_what_somebody_else_removes_along_is_a_loss() -> None:
    host = Host()
    host.manager.promote_secondaries = False
    (first, one), (second, other) = await host.hold(A), await host.hold(B)
    first.acquire()
    second.acquire()
    await second.settled()
    host.manager.remove(A.interface)
    assert (one.losses, other.losses) == ([A], [B])


@virtual_time()
async def test_what_goes_along_while_another_request_is_under_way_is_put_back() -> None:
    host = Host()
    host.manager.promote_secondaries = False
    (first, _), (second, other), (third, _) = [await host.hold(each) for each in (A, B, C)]
    first.acquire()
    second.acquire()
    await second.settled()
    host.manager.delay = 1
    second.announce(1)
    second.acquire()
    first.release()
    third.acquire()
    await third.settled()
    await second.settled()
    assert host.there == {B, C} and other.losses == []
