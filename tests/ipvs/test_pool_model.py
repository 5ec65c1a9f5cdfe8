"""The pool against a model that computes everything anew, and what may never happen on the way."""

from __future__ import annotations

from typing import Any

import attrs
from hypothesis import settings, strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from vrrpkit.ipvs.model.cache import TableCache
from vrrpkit.ipvs.model.diff import diff
from vrrpkit.ipvs.model.endpoints import destination_key, service_keys
from vrrpkit.ipvs.model.entries import (
    WEIGHT_LIMIT,
    Destination,
    DestinationKey,
    Service,
    ServiceEntry,
    ServiceKey,
)
from vrrpkit.ipvs.model.events import PoolEvent, QuorumDown, QuorumUp, ServerDown, ServerUp
from vrrpkit.ipvs.model.pool import Adopted, Member, Pool, ServerState

NAMES = "abc"
CHECKS = 2
(KEY,) = service_keys("192.0.2.10:80")
SERVICE = Service(key=KEY)


def member(name: str, **changes: Any) -> Member:
    return Member(name=name, key=destination_key(f"10.0.0.{ord(name)}:80"), **changes)


@attrs.define
class Known:
    """What a model knows of one server."""

    member: Member
    configured: int
    failing: set[int]
    said: dict[int, tuple[int, bool]]
    rest: ServerState | None = None
    held: bool = False
    kept: bool = False
    adopted: int | None = None
    unheard: set[int] = attrs.Factory(set[int])

    @property
    def weight(self) -> int:
        if self.adopted is not None:
            return self.adopted
        total = self.configured
        for value, relative in self.said.values():
            total += value - (0 if relative else self.configured)
        return max(0, min(total, WEIGHT_LIMIT))

    @property
    def serving(self) -> bool:
        return not self.failing and self.rest is None


class PoolMachine(RuleBasedStateMachine):
    @initialize(
        quorum=st.integers(1, 6),
        hysteresis=st.integers(0, 5),
        sorry=st.booleans(),
        inhibit=st.booleans(),
    )
    def begin(self, quorum: int, hysteresis: int, sorry: bool, inhibit: bool) -> None:
        self.quorum = quorum
        self.hysteresis = min(hysteresis, quorum - 1)
        self.sorry = member("s", weight=3) if sorry else None
        self.sorry_inhibit = sorry and inhibit
        self.pool = Pool(
            "web",
            quorum=quorum,
            hysteresis=self.hysteresis,
            sorry=self.sorry,
            sorry_inhibit=self.sorry_inhibit,
        )
        self.model: dict[str, Known] = {}
        self.up: set[str] = set()
        self.quorate = False
        self.pool.start(0.0)
        self.table: dict[DestinationKey, Destination] = {}
        self.cache = TableCache()
        self.cache.learn({KEY: ServiceEntry(service=SERVICE)})
        self.follow([])

    def follow(self, notices: list[PoolEvent]) -> None:
        """Take in what the pool says, and carry it out on a table, step by step."""
        for notice in notices:
            if isinstance(notice, ServerUp):
                assert notice.server not in self.up
                self.up.add(notice.server)
            elif isinstance(notice, ServerDown):
                self.up.remove(notice.server)
            elif isinstance(notice, QuorumUp | QuorumDown):
                assert isinstance(notice, QuorumUp) is not self.quorate
                self.quorate = not self.quorate
        for key, destination in self.pool.changes().items():
            if destination is None:
                self.table.pop(key, None)
            else:
                self.table[key] = destination
        served = self.served()
        operations = diff(
            {KEY: self.entry()}, {KEY: (SERVICE, list(self.table.values()))}, frozenset()
        )
        will = any(destination.weight for destination in self.table.values())
        for operation in operations:
            self.cache.carried_out(operation)
            assert self.served() or not (served and will), "nobody would have served"

    def entry(self) -> ServiceEntry:
        entry = self.cache.get(KEY)
        assert entry is not None
        return entry

    def served(self) -> bool:
        return any(found.destination.weight for found in self.entry().destinations.values())

    @rule(
        name=st.sampled_from(NAMES),
        weight=st.integers(0, 4),
        inhibit=st.booleans(),
        alpha=st.booleans(),
        held=st.booleans(),
    )
    def add(self, name: str, weight: int, inhibit: bool, alpha: bool, held: bool) -> None:
        if name in self.model:
            return
        new = member(name, weight=weight, inhibit_on_failure=inhibit)
        failing = range(CHECKS) if alpha else ()
        self.model[name] = Known(new, weight, set(failing), {}, held=held and alpha)
        if not alpha:
            self.up.add(name)
        self.follow(self.pool.add(new, failing, 0.0, held=held))

    @rule(
        name=st.sampled_from(NAMES),
        weight=st.integers(0, 4),
        configured=st.integers(0, 4),
        check_weights=st.dictionaries(
            st.integers(0, CHECKS - 1), st.tuples(st.integers(0, 5), st.just(True))
        ),
        failing=st.sets(st.integers(0, CHECKS - 1)),
        disabled=st.booleans(),
        held=st.booleans(),
        adopted=st.none() | st.integers(1, 4),
    )
    def adopt(
        self,
        name: str,
        weight: int,
        configured: int,
        check_weights: dict[int, tuple[int, bool]],
        failing: set[int],
        disabled: bool,
        held: bool,
        adopted: int | None,
    ) -> None:
        """A server comes as an earlier run left it."""
        if name in self.model:
            return
        new = member(name, weight=weight)
        self.model[name] = Known(
            new,
            configured,
            set(failing),
            dict(check_weights),
            rest=ServerState.DISABLED if disabled else None,
            held=held and bool(failing),
            adopted=adopted,
            unheard=set(range(CHECKS)) if adopted is not None else set(),
        )
        if not failing:
            self.up.add(name)
        known = Adopted(
            failing=dict.fromkeys(sorted(failing), "told"),
            check_weights=check_weights,
            configured=configured,
            weight=adopted,
            checks=CHECKS,
            disabled=disabled,
            held=held,
        )
        self.follow(self.pool.adopt(new, known, 0.0))

    @rule(data=st.data())
    def remove(self, data: st.DataObject) -> None:
        if self.model:
            name = data.draw(st.sampled_from(sorted(self.model)))
            del self.model[name]
            self.up.discard(name)
            self.follow(self.pool.remove(name, 0.0))

    @rule(
        data=st.data(),
        check=st.integers(0, CHECKS - 1),
        healthy=st.booleans(),
        passing=st.booleans(),
        said=st.none() | st.tuples(st.integers(0, 5), st.booleans()),
    )
    def report(
        self,
        data: st.DataObject,
        check: int,
        healthy: bool,
        passing: bool,
        said: tuple[int, bool] | None,
    ) -> None:
        if not self.model:
            return
        name = data.draw(st.sampled_from(sorted(self.model)))
        known = self.model[name]
        before = set(known.failing)
        (known.failing.discard if healthy else known.failing.add)(check)
        # One that passes, and not often enough yet, says no why.
        passed = healthy or (check in before and passing)
        known.held = known.held and passed and bool(known.failing)
        if passed:
            known.unheard.discard(check)
        if not known.unheard:
            known.adopted = None
        known.said.pop(check, None)
        if said is not None:
            known.said[check] = said
        value, relative = said or (None, False)
        self.follow(
            self.pool.report(
                name,
                check,
                healthy=healthy,
                reason="" if passed else "told",
                weight=value,
                relative=relative,
                at=0.0,
            )
        )

    @rule(data=st.data(), weight=st.integers(0, 4))
    def set_weight(self, data: st.DataObject, weight: int) -> None:
        if self.model:
            name = data.draw(st.sampled_from(sorted(self.model)))
            self.model[name].configured = weight
            self.model[name].adopted = None
            self.model[name].unheard.clear()
            self.follow(self.pool.set_weight(name, weight, 0.0))

    @rule(
        data=st.data(),
        rest=st.sampled_from([ServerState.DRAINING, ServerState.DISABLED, None]),
    )
    def rest(self, data: st.DataObject, rest: ServerState | None) -> None:
        if self.model:
            name = data.draw(st.sampled_from(sorted(self.model)))
            known = self.model[name]
            if rest is not known.rest:
                known.kept = rest is ServerState.DRAINING and known.member.key in self.table
                known.rest = rest
            self.follow(self.pool.set_admin_state(name, rest, 0.0))

    @invariant()
    def it_is_as_the_model_says(self) -> None:
        weight = sum(known.weight for known in self.model.values() if known.serving)
        assert self.pool.weight == weight
        assert self.pool.quorate is self.quorate
        if self.quorate:
            assert weight > 0 and weight >= self.quorum - self.hysteresis
        else:
            assert weight < self.quorum + self.hysteresis
        assert self.up == {name for name, known in self.model.items() if not known.failing}
        expected: dict[ServiceKey | DestinationKey, int] = {}
        stands_in = self.sorry is not None and not self.quorate
        for known in self.model.values():
            out = known.failing or (stands_in and known.rest is None)
            if not out:
                expected[known.member.key] = known.weight if known.serving else 0
            elif known.member.inhibit_on_failure or known.held or known.kept:
                expected[known.member.key] = 0
        if self.sorry is not None and (stands_in or self.sorry_inhibit):
            expected[self.sorry.key] = self.sorry.weight if stands_in else 0
        assert {entry.key: entry.weight for entry in self.pool.wanted()} == expected
        assert self.table == {entry.key: entry for entry in self.pool.wanted()}
        assert {
            key: found.destination for key, found in self.entry().destinations.items()
        } == self.table


PoolMachine.TestCase.settings = settings(max_examples=200, stateful_step_count=40, deadline=None)
TestPool = PoolMachine.TestCase
