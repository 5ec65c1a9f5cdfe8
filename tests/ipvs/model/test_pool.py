"""The pool: up, down, weights, quorum, sorry server, rest."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest

from vrrpkit.ipvs.model.endpoints import destination_key
from vrrpkit.ipvs.model.entries import WEIGHT_LIMIT
from vrrpkit.ipvs.model.events import PoolEvent
from vrrpkit.ipvs.model.pool import Adopted, Member, Pool, ServerState


def member(name: str, **changes: Any) -> Member:
    return Member(name=name, key=destination_key(f"10.0.0.{ord(name)}:80"), **changes)


SORRY = member("s")


def pool(
    members: Iterable[Member | str] = ("a", "b"), *, failing: Iterable[int] = (), **changes: Any
) -> Pool:
    made = Pool("web", **changes)
    for each in members:
        made.add(each if isinstance(each, Member) else member(each), failing, 0.0)
    made.start(0.0)
    return made


def entries(of: Pool) -> dict[str, int]:
    """Who is wanted in the table, by the last octet's letter, and the weight."""
    return {chr(int(str(d.key.address).split(".")[3])): d.weight for d in of.wanted()}


def told(notices: Iterable[PoolEvent]) -> list[str]:
    return [
        f"{type(notice).__name__} {getattr(notice, 'server', '')}".strip() for notice in notices
    ]


def fail(of: Pool, name: str, check: int = 0) -> list[str]:
    return told(of.report(name, check, healthy=False, reason=f"reason {check}", at=1.0))


def heal(of: Pool, name: str, check: int = 0) -> list[str]:
    return told(of.report(name, check, healthy=True, at=1.0))


class TestUpAndDown:
    def test_all_serve_before_any_check(self) -> None:
        assert entries(pool()) == {"a": 1, "b": 1}

    def test_one_that_fails_leaves_and_comes_back(self) -> None:
        web = pool()
        assert fail(web, "a") == ["ServerDown a"]
        assert entries(web) == {"b": 1}
        assert heal(web, "a") == ["ServerUp a"]
        assert entries(web) == {"a": 1, "b": 1}

    def test_inhibited_it_stays_with_weight_0(self) -> None:
        web = pool([member("a", inhibit_on_failure=True), "b"])
        fail(web, "a")
        assert entries(web) == {"a": 0, "b": 1}

    def test_down_with_the_first_check_that_fails_up_with_the_last_that_recovers(self) -> None:
        web = pool()
        assert fail(web, "a", 1) == ["ServerDown a"]
        assert fail(web, "a", 0) == []
        pool_server = web.pool_server("a")
        assert pool_server is not None and (pool_server.reason, pool_server.state) == (
            "reason 1",
            ServerState.DOWN,
        )
        assert heal(web, "a", 1) == []
        assert (pool_server.reason, pool_server.up) == ("reason 0", False)
        assert heal(web, "a", 0) == ["ServerUp a"]
        assert (pool_server.reason, pool_server.state) == ("", ServerState.UP)

    def test_the_same_verdict_again_changes_only_the_reason(self) -> None:
        web = pool()
        fail(web, "a")
        web.changes()
        assert web.report("a", 0, healthy=False, reason="other", at=2.0) == []
        pool_server = web.pool_server("a")
        assert pool_server is not None and pool_server.reason == "other"
        assert heal(web, "b") == []
        assert web.changes() == {}

    def test_a_check_that_passes_not_often_enough_yet_leaves_the_reason(self) -> None:
        web = pool()
        fail(web, "a")
        assert web.report("a", 0, healthy=False, reason="", at=2.0) == []
        pool_server = web.pool_server("a")
        assert pool_server is not None and pool_server.reason == "reason 0"

    def test_one_that_is_held_leaves_with_its_first_failure(self) -> None:
        web = Pool("web")
        web.add(member("a"), range(2), 0.0, held=True)
        web.start(0.0)
        assert entries(web) == {"a": 0}
        assert heal(web, "a", 0) == []
        assert web.report("a", 1, healthy=False, reason="", at=2.0) == []
        assert entries(web) == {"a": 0}
        web.changes()
        assert fail(web, "a", 1) == []
        assert (entries(web), web.changes()) == ({}, {member("a").key: None})

    def test_one_that_is_held_serves_when_all_pass_and_is_held_no_more(self) -> None:
        web = Pool("web")
        web.add(member("a"), [0], 0.0, held=True)
        web.start(0.0)
        assert heal(web, "a") == ["ServerUp a", "QuorumUp"]
        assert entries(web) == {"a": 1}
        fail(web, "a")
        assert entries(web) == {}

    def test_alpha_waits_for_every_check(self) -> None:
        web = pool(["a"], failing=range(2))
        pool_server = web.pool_server("a")
        assert (entries(web), web.quorate) == ({}, False)
        assert pool_server is not None and pool_server.reason == "not checked yet"
        assert heal(web, "a", 0) == []
        assert heal(web, "a", 1) == ["ServerUp a", "QuorumUp"]
        assert entries(web) == {"a": 1}

    def test_the_down_notice_says_why(self) -> None:
        (notice, _) = pool(["a"]).report("a", 0, healthy=False, reason="refused", at=3.0)
        assert str(notice) == "web: a is down: refused"
        assert notice.at == 3.0


class TestWeights:
    @pytest.mark.parametrize(
        ("said", "weight"),
        [
            ([(7, False)], 7),
            ([(0, False)], 0),
            ([(7, False), (12, False)], 9),
            ([(-3, True)], 7),
            ([(-3, True), (4, True), (15, False)], 16),
            ([(-11, True)], 0),
            ([(WEIGHT_LIMIT, False), (WEIGHT_LIMIT, True)], WEIGHT_LIMIT),
        ],
    )
    def test_what_checks_say_adds_up_as_differences(
        self, said: list[tuple[int, bool]], weight: int
    ) -> None:
        web = pool([member("a", weight=10)])
        for check, (value, relative) in enumerate(said):
            web.report("a", check, healthy=True, weight=value, relative=relative, at=1.0)
        assert entries(web) == {"a": weight}

    def test_a_change_is_told_with_both_weights(self) -> None:
        web = pool([member("a", weight=10)])
        (notice,) = web.report("a", 0, healthy=True, weight=3, at=1.0)
        assert str(notice) == "web: the weight of a is 3, no longer 10"
        assert web.report("a", 0, healthy=True, weight=3, at=1.0) == []
        assert told(web.report("a", 0, healthy=True, at=1.0)) == ["WeightChanged a"]
        assert entries(web) == {"a": 10}

    def test_a_weight_outlasts_a_failure(self) -> None:
        web = pool([member("a", weight=10), "b"])
        web.report("a", 0, healthy=True, weight=3, at=1.0)
        web.report("a", 0, healthy=False, reason="x", weight=3, at=1.0)
        assert entries(web) == {"b": 1}
        web.report("a", 0, healthy=True, weight=3, at=1.0)
        assert entries(web) == {"a": 3, "b": 1}

    def test_the_program_sets_another(self) -> None:
        web = pool()
        assert told(web.set_weight("a", 5, 1.0)) == ["WeightChanged a"]
        assert web.set_weight("a", 5, 1.0) == []
        web.report("a", 0, healthy=True, weight=-2, relative=True, at=1.0)
        assert (entries(web), web.weight) == ({"a": 3, "b": 1}, 4)

    def test_an_absolute_one_holds_whatever_the_program_sets(self) -> None:
        web = pool()
        web.report("a", 0, healthy=True, weight=7, at=1.0)
        assert web.set_weight("a", 5, 1.0) == []
        assert entries(web)["a"] == 7


class TestQuorum:
    @pytest.mark.parametrize(
        ("quorum", "hysteresis", "lost_at", "reached_at"),
        [(1, 0, 0, 1), (3, 0, 2, 3), (3, 1, 1, 4), (3, 2, 0, 5), (4, 1, 2, 5)],
    )
    def test_the_limits_are_exact(
        self, quorum: int, hysteresis: int, lost_at: int, reached_at: int
    ) -> None:
        names = "abcdef"
        web = pool(names, quorum=quorum, hysteresis=hysteresis)
        assert web.quorate
        for left in range(len(names) - 1, -1, -1):
            lost = "QuorumDown" in fail(web, names[left])
            assert (web.weight, lost) == (left, left == lost_at)
        for up in range(1, len(names) + 1):
            reached = "QuorumUp" in heal(web, names[up - 1])
            assert (web.weight, reached) == (up, up == reached_at)

    def test_weight_0_is_lost_whatever_the_hysteresis(self) -> None:
        web = pool(["a"])
        notices = web.report("a", 0, healthy=True, weight=0, at=1.0)
        assert told(notices) == ["WeightChanged a", "QuorumDown"]
        assert entries(web) == {"a": 0}

    @pytest.mark.parametrize(("names", "reached"), [("abc", False), ("abcd", True)])
    def test_at_the_start_it_takes_the_hysteresis_too(self, names: str, reached: bool) -> None:
        web = Pool("web", quorum=3, hysteresis=1)
        for name in names:
            assert web.add(member(name), (), 0.0) == []
        notices = told(web.start(0.0))
        assert (notices[-1] == "QuorumUp", notices[-1] == "QuorumDown") == (reached, not reached)

    def test_one_out_of_reach_is_told_once_and_again_when_it_was_within(self) -> None:
        web = pool([], quorum=3)
        (_, notice, *_) = web.add(member("a"), (), 0.0)
        assert str(notice) == (
            "web: the weights of all its servers add up to 1, and it takes 3 for the quorum; lower "
            "quorum, or raise the weights"
        )
        assert told(web.add(member("b"), (), 0.0)) == ["ServerAdded b"]
        assert "QuorumUp" in told(web.add(member("c"), (), 0.0))
        assert told(web.remove("c", 0.0)) == ["ServerRemoved c", "QuorumUnreachable", "QuorumDown"]

    def test_without_a_sorry_server_those_that_are_up_serve_on(self) -> None:
        web = pool(quorum=2)
        assert fail(web, "a") == ["ServerDown a", "QuorumDown"]
        assert entries(web) == {"b": 1}


class TestSorryServer:
    def test_it_stands_in_and_those_that_are_up_leave(self) -> None:
        web = pool(quorum=2, sorry=SORRY)
        assert entries(web) == {"a": 1, "b": 1}
        web.changes()
        fail(web, "a")
        assert entries(web) == {"s": 1}
        assert set(web.changes()) == {member(name).key for name in "abs"}
        heal(web, "a")
        assert entries(web) == {"a": 1, "b": 1}

    def test_an_inhibited_server_stays_with_weight_0(self) -> None:
        web = pool([member("a", inhibit_on_failure=True), "b"], quorum=2, sorry=SORRY)
        fail(web, "b")
        assert entries(web) == {"a": 0, "s": 1}
        pool_server = web.pool_server("a")
        assert pool_server is not None and (pool_server.up, web.serves(pool_server)) == (True, 0)

    def test_inhibited_it_waits_with_weight_0(self) -> None:
        web = pool(["a"], sorry=SORRY, sorry_inhibit=True)
        assert entries(web) == {"a": 1, "s": 0}
        fail(web, "a")
        assert entries(web) == {"s": 1}

    def test_its_weight_is_its_own(self) -> None:
        web = pool([], sorry=member("s", weight=4))
        assert entries(web) == {"s": 4}
        assert set(web.changes()) == {SORRY.key}

    def test_the_notice_names_it(self) -> None:
        web = pool(["a"], sorry=SORRY)
        (_, notice) = web.report("a", 0, healthy=False, reason="x", at=1.0)
        assert str(notice) == "web: quorum lost with weight 0; s stands in"


class TestRest:
    @pytest.mark.parametrize("rest", [ServerState.DISABLED, ServerState.DRAINING])
    def test_it_stays_with_weight_0_and_counts_for_nothing(self, rest: ServerState) -> None:
        web = pool()
        assert told(web.set_admin_state("a", rest, 1.0)) == [f"Server{rest.name.capitalize()} a"]
        assert web.set_admin_state("a", rest, 1.0) == []
        pool_server = web.pool_server("a")
        assert pool_server is not None and (
            pool_server.state,
            pool_server.up,
            pool_server.quorum_weight,
        ) == (rest, True, 0)
        assert (entries(web), web.weight) == ({"a": 0, "b": 1}, 1)
        assert told(web.set_admin_state("a", None, 1.0)) == ["ServerEnabled a"]
        assert entries(web) == {"a": 1, "b": 1}

    def test_it_stays_also_when_the_sorry_server_comes(self) -> None:
        web = pool(["a"], sorry=SORRY)
        assert told(web.set_admin_state("a", ServerState.DRAINING, 1.0)) == [
            "ServerDraining a",
            "QuorumDown",
        ]
        assert entries(web) == {"a": 0, "s": 1}

    def test_one_that_fails_meanwhile_leaves(self) -> None:
        web = pool()
        web.set_admin_state("a", ServerState.DISABLED, 1.0)
        assert fail(web, "a") == ["ServerDown a"]
        assert entries(web) == {"b": 1}
        assert heal(web, "a") == ["ServerUp a"]
        assert entries(web) == {"a": 0, "b": 1}

    def test_one_that_drains_stays_whatever_its_checks_say(self) -> None:
        web = pool()
        web.set_admin_state("a", ServerState.DRAINING, 1.0)
        assert fail(web, "a") == ["ServerDown a"]
        assert entries(web) == {"a": 0, "b": 1}
        assert heal(web, "a") == ["ServerUp a"]
        assert entries(web) == {"a": 0, "b": 1}
        fail(web, "a")
        web.changes()
        # Given up, it is as any other that is down.
        web.set_admin_state("a", None, 1.0)
        assert (entries(web), web.changes()) == ({"b": 1}, {member("a").key: None})

    def test_one_that_is_out_already_does_not_come_back_to_drain(self) -> None:
        web = pool()
        fail(web, "a")
        web.set_admin_state("a", ServerState.DRAINING, 1.0)
        assert entries(web) == {"b": 1}

    def test_disabled_while_it_drains_it_leaves_if_it_fails(self) -> None:
        web = pool()
        web.set_admin_state("a", ServerState.DRAINING, 1.0)
        fail(web, "a")
        web.set_admin_state("a", ServerState.DISABLED, 1.0)
        assert entries(web) == {"b": 1}


class TestAdopted:
    def test_a_quorum_that_was_reached_is_lost_where_it_always_is(self) -> None:
        for names, reached in (("abc", True), ("ab", True), ("a", False)):
            web = Pool("web", quorum=3, hysteresis=1, sorry=SORRY)
            for name in names:
                web.add(member(name), (), 0.0)
            (*_, last) = told(web.start(0.0, quorate=True))
            assert (web.quorate, last) == (reached, "QuorumUp" if reached else "QuorumDown")
            assert entries(web) == (dict.fromkeys(names, 1) if reached else {"s": 1})

    def test_the_weight_of_the_table_holds_until_each_check_has_passed(self) -> None:
        web = Pool("web")
        web.adopt(member("a", weight=10), Adopted(configured=10, weight=3, checks=2), 0.0)
        web.start(0.0)
        assert (entries(web), web.weight) == ({"a": 3}, 3)
        assert web.report("a", 0, healthy=True, reason="flaky", at=1.0) == []
        assert heal(web, "a", 0) == []
        assert entries(web) == {"a": 3}
        assert told(web.report("a", 1, healthy=True, weight=4, at=1.0)) == ["WeightChanged a"]
        assert (entries(web), web.weight) == ({"a": 4}, 4)

    def test_the_program_sets_another_than_that_of_the_table(self) -> None:
        web = Pool("web")
        web.adopt(member("a", weight=10), Adopted(configured=10, weight=3, checks=1), 0.0)
        web.start(0.0)
        assert told(web.set_weight("a", 5, 1.0)) == ["WeightChanged a"]
        assert heal(web, "a") == []
        assert entries(web) == {"a": 5}

    def test_what_was_disabled_said_and_failing(self) -> None:
        web = Pool("web")
        web.adopt(
            member("a"), Adopted(configured=2, check_weights={0: (7, False)}, disabled=True), 0.0
        )
        web.adopt(member("b"), Adopted(configured=1, failing={0: "old"}, held=True), 0.0)
        web.adopt(member("c"), Adopted(configured=4, check_weights={0: (-1, True)}), 0.0)
        web.start(0.0)
        assert entries(web) == {"a": 0, "b": 0, "c": 3}
        assert [pool_server.reason for pool_server in web.pool_servers] == ["", "old", ""]
        web.set_admin_state("a", None, 1.0)
        assert entries(web)["a"] == 7


class TestMembers:
    def test_one_joins_and_leaves(self) -> None:
        web = pool(["a"])
        web.changes()
        assert told(web.add(member("b"), (), 1.0)) == ["ServerAdded b"]
        assert web.changes() == {member("b").key: member("b").destination(1)}
        assert told(web.remove("a", 1.0)) == ["ServerRemoved a"]
        assert web.changes() == {member("a").key: None}
        assert (
            [pool_server.member.name for pool_server in web.pool_servers],
            web.pool_server("a"),
        ) == (["b"], None)

    def test_what_is_left_of_one_that_drained_is_told(self) -> None:
        web = pool()
        drained, removed = web.remove("a", 1.0, remaining=3)
        assert str(drained) == "web: a was drained, 3 connections are left"
        assert str(removed) == "web: a was removed"
        assert str(web.remove("b", 1.0, remaining=0)[0]) == "web: b was drained"

    def test_everything_of_an_entry_comes_from_the_member(self) -> None:
        odd = member("a", upper=9, lower=4, weight=2)
        (entry,) = pool([odd]).wanted()
        assert (entry.key, entry.upper, entry.lower, entry.weight) == (odd.key, 9, 4, 2)


class TestPresent:
    def test_who_listens_late_hears_of_the_quorum_and_of_those_that_are_down(self) -> None:
        web = pool(sorry=SORRY, quorum=2)
        assert told(web.present(1.0)) == ["QuorumUp"]
        fail(web, "a")
        assert told(web.present(1.0)) == ["ServerDown a", "QuorumDown"]


class TestEnd:
    def test_all_go_down_as_if_they_had_failed(self) -> None:
        web = pool(["a", "b", "c"])
        fail(web, "b")
        notices = web.end(9.0)
        assert told(notices) == ["ServerDown a", "ServerDown c", "QuorumDown"]
        assert str(notices[0]) == "web: a is down: shutdown"
        assert str(notices[2]) == "web: quorum lost with weight 0"

    def test_what_is_down_already_is_not_told_again(self) -> None:
        web = pool(["a"])
        fail(web, "a")
        assert web.end(9.0) == []
