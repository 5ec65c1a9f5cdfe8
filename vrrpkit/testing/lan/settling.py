"""Whether anything is still going to happen on a :class:`vrrpkit.testing.Lan` by itself."""

from __future__ import annotations

from collections.abc import Collection

from vrrpkit.testing.lan.hosts import RouterPlace
from vrrpkit.testing.lan.model import LanModel, RouterModel
from vrrpkit.values import State

__all__ = ["settled", "slowest_takeover"]


def slowest_takeover(places: Collection[RouterPlace], transit: float) -> float:
    """Seconds without any change after which there will be none."""
    configs = [place.config for place in places]
    longest = max((each.interval for each in configs), default=1.0)
    factor = max((each.down_factor for each in configs), default=3)
    delays = max((each.startup_delay + each.preempt_delay for each in configs), default=0.0)
    # One interval (or, in version 2, second) more for the skew, and one to spare.
    return delays + (factor + 2) * max(longest, 1.0) + transit


def settled(places: Collection[RouterPlace], world: LanModel) -> bool:
    """Whether every router follows a MASTER that it will not preempt, or is the one MASTER as far
    as it hears, and the addresses are with the MASTERs."""
    for place in places:
        if place.takes_part:
            router = world.routers.get(place.name)
            if router is None or router.state is State.INIT:
                return False
            if not (_content(router, world) and _placed(place, router)):
                return False
    return True


def _content(router: RouterModel, world: LanModel) -> bool:
    if not router.able:
        return True
    heard = [
        other
        for other in world.routers.values()
        if other is not router and other.master and world.hears(router, other)
    ]
    if router.master:
        return not any(world.hears(other, router) for other in heard)
    if not heard:
        return False
    preempts = router.config.preempt or router.config.owner
    return not preempts or any(other.priority >= router.priority for other in heard)


def _placed(place: RouterPlace, router: RouterModel) -> bool:
    if place.config.owner and not router.master:
        # Its own address stays with it.
        return True
    holds = place.host.interface.holds
    return all(holds(vip.address) is router.master for vip in place.config.all_vips)
