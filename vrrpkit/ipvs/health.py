"""The checks of a pool: one for each server and checker, however many services the pool serves."""

from __future__ import annotations

import time
from collections.abc import Callable, Container
from functools import partial
from typing import TypeAlias

from vrrpkit.checks.engine.scheduler import Check, CheckScheduler
from vrrpkit.checks.events import CheckNotMade, CheckResult, CheckStuck
from vrrpkit.errors import ConfigError
from vrrpkit.ipvs.enlisted import ConfiguredServer
from vrrpkit.values import State
from vrrpkit.vrrp.instance import VRRPInstance
from vrrpkit.vrrp.protocol.events import Transition
from vrrpkit.vrrp.syncgroup import GroupTransition, SyncGroup

__all__ = [
    "Followed",
    "PoolChecks",
    "name_of",
    "require_followed",
    "require_named",
    "require_scheduler",
]

Followed: TypeAlias = VRRPInstance | SyncGroup


def require_followed(what: str, value: object) -> None:
    """Refuse what cannot be followed; ``what`` begins the message.

    :raises ConfigError: it is neither ``None`` nor a virtual router nor a group.
    """
    if not isinstance(value, VRRPInstance | SyncGroup | None):
        raise ConfigError(f"{what}: follows {value!r} must be a VRRPInstance or a SyncGroup")


def name_of(follows: object) -> str | None:
    """The name by which a description refers to what is followed, or None for what cannot be."""
    return follows.name if isinstance(follows, VRRPInstance | SyncGroup) else None


def require_named(what: str, name: str | None, follows: Followed | None) -> None:
    """Refuse another router or group than the one that a description names; ``what`` begins the
    message.

    :raises ConfigError: it has another name, or is missing.
    """
    if name is None or name_of(follows) == name:
        return
    given = "and none was given" if follows is None else f"not {name_of(follows)!r}"
    raise ConfigError(
        f"{what}: its description follows {name!r}, {given}; pass that router or group as follows="
    )


def require_scheduler(what: str, value: object) -> None:
    """Refuse what cannot run checks; ``what`` begins the message.

    :raises ConfigError: it is neither ``None`` nor a scheduler.
    """
    if not isinstance(value, CheckScheduler | None):
        raise ConfigError(
            f"{what}: check_scheduler {value!r} is no CheckScheduler; write CheckScheduler(), or "
            "leave it out for the one that all virtual servers share"
        )


class PoolChecks:
    """Runs the checks, pausing them while what they follow is not MASTER.

    :param scheduler: runs them.
    :param follows: the virtual router, or the group, that they follow.
    :param checked: called with the name of the server, the number of the check, and its result.
    :param overdue: called with the name of the server when a check is stuck.
    :param not_made: called with the name of the server when a check could not be made.
    """

    def __init__(
        self,
        scheduler: CheckScheduler,
        follows: Followed | None,
        checked: Callable[[str, int, CheckResult], None],
        overdue: Callable[[str, CheckStuck], None],
        not_made: Callable[[str, CheckNotMade], None],
    ) -> None:
        self._scheduler = scheduler
        self._follows = follows
        self._checked = checked
        self._overdue = overdue
        self._not_made = not_made
        self._checks: dict[str, tuple[Check, ...]] = {}
        self.paused_since = None if self._serves else time.time()
        """Since when no check is made, in seconds since 1970; ``None`` while they are."""
        self._unfollow = None if follows is None else follows.on_transition(self._changed)

    @property
    def _serves(self) -> bool:
        return self._follows is None or self._follows.state is State.MASTER

    def of(self, name: str) -> tuple[Check, ...]:
        """The checks of a server, in the order of its checkers."""
        return self._checks.get(name, ())

    def add(
        self,
        configured_server: ConfiguredServer,
        *,
        failing: Container[int] = (),
        seen: bool = False,
    ) -> None:
        """Begin to check a server.

        :param failing: the checks that must pass before it is up.
        :param seen: an earlier run saw it in service: its first failure is one of many.
        """
        name = configured_server.member.name
        self._checks[name] = tuple(
            self._scheduler.add(
                checker,
                configured_server.target,
                alpha=number in failing,
                seen=seen,
                paused=not self._serves,
                on_result=partial(self._checked, name, number),
                on_stuck=partial(self._overdue, name),
                on_not_made=partial(self._not_made, name),
            )
            for number, checker in enumerate(configured_server.checks)
        )

    def drop(self, name: str) -> tuple[Check, ...]:
        """Check a server no more; the caller waits for the end of its checks."""
        checks = self._checks.pop(name, ())
        for check in checks:
            check.close()
        return checks

    def close(self) -> tuple[Check, ...]:
        """Check nothing any more; the caller waits for the end of the checks."""
        if self._unfollow is not None:
            self._unfollow()
        return tuple(check for name in tuple(self._checks) for check in self.drop(name))

    def _changed(self, transition: Transition | GroupTransition) -> None:
        if transition.state is State.MASTER:
            self.paused_since = None
        elif self.paused_since is None:
            self.paused_since = time.time()
        for checks in self._checks.values():
            for check in checks:
                if transition.state is State.MASTER:
                    check.resume()
                else:
                    check.pause()
