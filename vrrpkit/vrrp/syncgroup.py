"""SyncGroup: virtual routers that move together, as users see them. ``protocol/group.py``
decides."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import TYPE_CHECKING, TypeAlias

import attrs

from vrrpkit.configured import configured_by, described, from_keepalived
from vrrpkit.errors import ConfigError, NotEligible
from vrrpkit.lifecycle.leaving import all_shielded, shielded
from vrrpkit.observable import Notifying
from vrrpkit.publishing import Attachments, Hub, Notifier
from vrrpkit.tracking.runner import TrackerRunner
from vrrpkit.tracking.tracker import Signal, Tracker, TrackerState, check
from vrrpkit.validate import demotion, listed, of_kind
from vrrpkit.values import Stamped, State
from vrrpkit.vrrp.config import SyncGroupConfig
from vrrpkit.vrrp.driver import Driver
from vrrpkit.vrrp.instance import (
    VRRPInstance,
    as_notifiers,
    as_trackers,
    enter_member,
    run_of,
    was_entered,
)
from vrrpkit.vrrp.protocol.group import Group
from vrrpkit.vrrp.protocol.inputs import Demote, Input, Promote
from vrrpkit.vrrp.run import GroupMembership, RouterRun

if TYPE_CHECKING:
    from vrrpkit.vrrp.protocol.status import GroupStatus

__all__ = ["GroupTransition", "SyncGroup", "SyncGroupArguments"]


@attrs.frozen(kw_only=True)
class GroupTransition(Stamped):
    """A sync group changed its state; its members have said so of themselves before."""

    group: str
    at: float
    previous: State
    state: State

    def __str__(self) -> str:
        return f"{self.group}: {self.previous} -> {self.state}"


Work: TypeAlias = tuple[str, Input]


class _Runner:
    """Takes the events of all members in, one at a time, and has the drivers carry out the
    rest."""

    def __init__(
        self,
        name: str,
        drivers: dict[str, Driver],
        hub: Hub[GroupTransition],
        notify: Attachments,
    ) -> None:
        self._notify = notify
        self._waiters: list[asyncio.Future[None]] = []
        self.group = Group({member: driver.machine for member, driver in drivers.items()})
        self._name = name
        self._drivers = drivers
        self._hub = hub
        self._state = State.INIT
        self.latest: GroupTransition | None = None
        """The last change of state."""
        self._queue: deque[Work] = deque()
        self._feeding = False
        self.begun = False
        for member, driver in drivers.items():
            driver.join(self._court(member))
            driver.placement.on_end(self._placed)

    def _court(self, member: str) -> Callable[[Input], None]:
        return lambda event: self.feed(member, event)

    @property
    def _placing(self) -> bool:
        return any(driver.placement.pending for driver in self._drivers.values())

    def _placed(self) -> None:
        if self._placing:
            return
        # Who is told of it begins before who waits goes on, and perhaps leaves at once.
        self._notify.resume()
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_result(None)
        self._waiters.clear()

    async def placed(self) -> None:
        """Wait until the addresses of all members are in place, or what ends that wait."""
        while self._placing:
            waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiters.append(waiter)
            await waiter

    def feed(self, member: str, event: Input) -> None:
        """Give a member one event; called from within a callback, it waits its turn."""
        self._queue.append((member, event))
        if self._feeding:
            return
        self._feeding = True
        try:
            while self._queue:
                self._step(*self._queue.popleft())
        finally:
            self._feeding = False

    def _step(self, member: str, event: Input) -> None:
        now = self._drivers[member].now()
        bugs: list[tuple[str, BaseException]] = []
        try:
            for driver in self._drivers.values():
                driver.receiver.catch_up()
            steps = self.group.handle(member, event, now)
        except BaseException as bug:
            steps = []
            bugs.append((member, bug))
        for step in steps:
            driver = self._drivers[step.member]
            try:
                driver.receiver.forget()
                driver.settle(step.event, step.effects, now)
            except BaseException as bug:
                # The machines of the others have taken their steps: theirs is carried out too.
                bugs.append((step.member, bug))
        if bugs:
            self._queue.clear()
            # What it says while leaving is carried out at once, not after this.
            self._feeding = False
            for name, problem in bugs:
                self._drivers[name].fail(problem)
            self._feeding = True
        self.tell(now)

    def tell(self, now: float) -> None:
        """Publish the state of the group, if it is another one."""
        state = self.group.state
        if self.begun and state is not self._state:
            previous, self._state = self._state, state
            transition = GroupTransition(group=self._name, at=now, previous=previous, state=state)
            if state is State.MASTER and self._placing:
                self._notify.pause()
            self.latest = transition
            self._hub.publish(transition)


def _instances(values: Iterable[VRRPInstance]) -> tuple[VRRPInstance, ...]:
    return listed("instances", values)


@attrs.frozen
class SyncGroupArguments(SyncGroupConfig):
    """What :class:`vrrpkit.SyncGroup` is made of: its description, and live objects.

    :param instances: 2 or more virtual routers with different names, none of them in another group.
    :param track: what moves the priority of every member or makes the group unfit, see
        :class:`vrrpkit.Tracker`.
    :param notify: who is told of the group's changes of state, see :mod:`vrrpkit.notify`.
    :raises ConfigError: there are fewer members, a name occurs twice, or one is in a group already.
    """

    # They are the names of the instances. Pyright takes a field with a converter for a descriptor.
    members: tuple[str, ...] = attrs.field(init=False)  # pyright: ignore[reportIncompatibleVariableOverride]
    instances: tuple[VRRPInstance, ...] = attrs.field(
        converter=_instances,
        eq=False,
        repr=False,
        metadata=from_keepalived(
            group="the second argument, a list of VRRPInstance",
            members="the second argument, a list of VRRPInstance",
        ),
    )
    track: tuple[Tracker, ...] = attrs.field(
        default=(),
        converter=as_trackers,
        kw_only=True,
        eq=False,
        repr=False,
        metadata=from_keepalived(
            track_script="track=[TrackScript(...)]",
            track_interface="track=[TrackInterface(...)]",
        ),
    )
    notify: tuple[Notifier, ...] = attrs.field(
        default=(),
        converter=as_notifiers,
        kw_only=True,
        eq=False,
        repr=False,
        metadata=from_keepalived(smtp_alert="notify=[Mail(...)]"),
    )

    def __attrs_post_init__(self) -> None:
        for instance in self.instances:
            of_kind(
                f"each member of the sync group {self.name!r},",
                instance,
                VRRPInstance,
                "a VRRPInstance; its name is not enough, and a group cannot be in a group",
            )
        names = tuple(instance.name for instance in self.instances)
        object.__setattr__(self, "members", names)
        super().__attrs_post_init__()


class SyncGroup(Notifying[GroupTransition]):
    """Virtual routers that are MASTER together or not at all (keepalived: ``vrrp_sync_group``).

    ::

        async with SyncGroup("gateway", [inside, outside]) as gateway:
            await gateway.wait_for(State.MASTER)

    Entering enters the members, leaving leaves them; do neither yourself. The states of the members
    never differ: all become MASTER once every one of them may be, one that stops takes the others
    with it, and a fault of one is a fault of all until every member is fit. The addresses follow
    within one exchange with the kernel. A member whose peer leaves (priority 0) counts the peers of
    the other members as leaving too, so configure the same group on every machine.
    """

    @configured_by(SyncGroupArguments)
    def __init__(self, arguments: SyncGroupArguments) -> None:
        hub: Hub[GroupTransition] = Hub(logging.getLogger("vrrpkit.vrrp"))
        super().__init__(arguments.name, hub, arguments.notify)
        self.config = described(SyncGroupConfig, arguments, members=arguments.members)
        """What it was made with, as far as values can say it."""
        self.members = arguments.instances
        """The virtual routers of the group."""
        self._trackers = TrackerRunner(arguments.track, self._tracked)
        self._check()
        for member in self.members:
            run_of(member).join(self.name)
        self._runner: _Runner | None = None

    @classmethod
    def of(cls, config: SyncGroupConfig, instances: Iterable[VRRPInstance]) -> SyncGroup:
        """A group that ``config`` describes.

        :param instances: the virtual routers that the description names, and perhaps others.
        :raises ConfigError: one that it names is missing.
        """
        found = {instance.name: instance for instance in instances}
        for name in config.members:
            if name not in found:
                raise ConfigError(f"sync group {config.name!r}: there is no VRRPInstance {name!r}")
        return cls(
            config.name,
            [found[name] for name in config.members],
            member_weights=config.member_weights,
        )

    def _check(self) -> None:
        for member in self.members:
            check(self._trackers.trackers, member.config.priority, f"sync group {self.name!r}")
            for tracker in run_of(member).trackers.trackers:
                if tracker.weight and not self.config.member_weights:
                    raise ConfigError(
                        f"{member.name} tracks {tracker.label} with weight {tracker.weight}, which "
                        f"would move its priority alone and tear the sync group {self.name!r} "
                        "apart; give the tracker to the group (track=), or set member_weights=True"
                    )
            group = run_of(member).group
            if group is not None:
                raise ConfigError(
                    f"{member.name} is in the sync group {group!r} already; a VRRPInstance can be "
                    "in one group only"
                )
            if member.state is not State.INIT:
                raise ConfigError(
                    f"{member.name} runs already: make the group before, and enter only the group"
                )
            if was_entered(member):
                raise ConfigError(f"{member.name} was entered before: make a new VRRPInstance")

    def __repr__(self) -> str:
        return f"<SyncGroup {self.name!r} of {len(self.members)} {self.state}>"

    # --- life ------------------------------------------------------------------------------------

    async def __aenter__(self) -> SyncGroup:
        """Start every member.

        :raises HostError: what entering a member raises; no member runs then.
        """
        self._enter("a new SyncGroup, of new members,")
        self._body.begin()
        drivers: dict[str, Driver] = {}
        try:
            for member in self.members:
                router_run = run_of(member)
                enter_member(member)
                membership = GroupMembership(
                    self._tracked, self._shared_with(member), self.why_not_master
                )
                drivers[member.name] = await router_run.prepare(self._body.interrupt, membership)
            await self._trackers.start()
            self._notify.start(self._hub)
            self._begin(drivers)
        except BaseException:
            await self._body.end(self._end, self._failure)
            raise
        return self

    def _begin(self, drivers: dict[str, Driver]) -> None:
        self._runner = _Runner(self.name, drivers, self._hub, self._notify)
        self._tracked()
        # Those with a fault first, lest the others be BACKUP for a moment.
        for driver in sorted(drivers.values(), key=lambda driver: not driver.faults):
            driver.begin()
        self._runner.begun = True
        self._runner.tell(next(iter(drivers.values())).now())

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._body.end(self._end, self._failure)

    def _shared_with(self, member: VRRPInstance) -> list[TrackerState]:
        others = [each for each in self.members if each is not member]
        weights = (
            [run_of(each).trackers.tally for each in others] if self.config.member_weights else []
        )
        return [self._trackers.tally, *weights]

    def _tracked(self) -> None:
        """Tell every member what all trackers say."""
        if self._runner is None:
            return
        tally = self._trackers.tally
        router_runs = [run_of(member) for member in self.members]
        weights = [
            tally,
            *(
                router_run.trackers.tally
                for router_run in router_runs
                if self.config.member_weights
            ),
        ]
        weight = sum(each.weight for each in weights)
        parts = [part for each in weights for part in each.parts]
        for router_run in router_runs:
            router_run.adjust(weight, tally.faults | router_run.trackers.tally.faults, parts)

    def _failure(self) -> BaseException | None:
        failures = [run_of(member).failure for member in self.members]
        return next((failure for failure in failures if failure is not None), None)

    async def _end(self) -> None:
        """Leave. Every member has said priority 0 before the first await; a cancellation waits for
        the rest."""
        router_runs = [run_of(member) for member in self.members]
        for router_run in router_runs:
            if router_run.driver is not None:
                router_run.driver.leave()
        await shielded(self._conclude(router_runs), f"vrrpkit: {self.name} leaves its members")

    async def _conclude(self, router_runs: list[RouterRun]) -> None:
        async with contextlib.AsyncExitStack() as stack:
            stack.push_async_callback(self._notify.close)
            stack.callback(self._hub.close)
            stack.push_async_callback(self._trackers.stop)
            # All at the same time: each may have to wait for the kernel, or for a notifier.
            await all_shielded(
                {
                    f"vrrpkit: {self.name} leaves {router_run.config.name}": router_run.end()
                    for router_run in router_runs
                }
            )

    # --- what it is and tells --------------------------------------------------------------------

    @property
    def state(self) -> State:
        """INIT, BACKUP, MASTER or FAULT: the state of every member."""
        if self._runner is None or self._hub.closed:
            return State.INIT
        return self._runner.group.state

    @property
    def signals(self) -> dict[str, Signal]:
        """The latest signal of each tracker of the group itself."""
        return self._trackers.tally.signals

    def why_not_master(self) -> str | None:
        """What the group waits for, member by member and in words; ``None`` while it is MASTER."""
        if self._runner is None or self._hub.closed:
            return self._why_idle
        return self._runner.group.why_not_master()

    def status(self) -> GroupStatus:
        """How the group and its members are, as values of one moment that ``json.dumps`` takes."""
        return {
            "name": self.name,
            "state": str(self.state),
            "why_not_master": self.why_not_master(),
            "signals": dict(self.signals),
            "members": [member.status() for member in self.members],
        }

    async def wait_for(self, state: State, *others: State) -> State:
        """Return at once in one of these states, else the next time that one is entered, even if it
        was left again since. Returns that state. MASTER is told once the addresses of all members
        are in place: see :meth:`VRRPInstance.wait_for`.

        :raises ConfigError: one is no :class:`vrrpkit.State`.
        :raises Closed: the group ended before.
        """
        self._require_home("wait_for")
        wanted = (state, *others)
        for state in wanted:
            of_kind("the state to wait for,", state, State, "a State, such as State.MASTER")
        entered = await self._wait_in(wanted, self.state, lambda transition: transition.state)
        if entered is State.MASTER and self._runner is not None:
            await self._runner.placed()
        return entered

    def on_transition(self, callback: Callable[[GroupTransition], None]) -> Callable[[], None]:
        """Call ``callback`` on each change of state, on the event loop; it must not block. Returns
        what ends it.

        :raises ConfigError: it is not callable, or a coroutine function.
        """
        self._require_callback("on_transition", callback)
        return self._hub.subscribe(callback)

    def _present(self) -> tuple[GroupTransition | None]:
        return (None if self._runner is None else self._runner.latest,)

    # --- what it can be told ---------------------------------------------------------------------

    @property
    def _drivers(self) -> list[Driver]:
        self._required(self._runner)
        drivers = [run_of(member).driver for member in self.members]
        return [driver for driver in drivers if driver is not None]

    def demote(self, seconds: float) -> None:
        """Let the others serve for a while: see :meth:`VRRPInstance.demote`.

        :param seconds: how long, more than 0, up to a year.
        :raises ConfigError: ``seconds`` is something else.
        """
        self._require_home("demote")
        demotion(seconds)
        for driver in self._drivers:
            driver.feed(Demote(seconds))

    def promote(self) -> None:
        """Become MASTER at once, with every member: see :meth:`VRRPInstance.promote`.

        :raises NotEligible: a member's present master would win its addresses back at once, or
            there is a fault.
        """
        self._require_home("promote")
        drivers = self._drivers
        for member, driver in zip(self.members, drivers, strict=True):
            obstacle = driver.machine.promotion_obstacle()
            if obstacle is not None:
                raise NotEligible(
                    f"{self.name} cannot be promoted because of {member.name}: {obstacle}"
                )
        for driver in drivers:
            driver.feed(Promote())
