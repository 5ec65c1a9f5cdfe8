"""What a restart takes over: from the table, from what was written, and what an edit touches."""

from __future__ import annotations

import json
from typing import Any

import attrs
import pytest
from hypothesis import given, strategies as st

from vrrpkit.errors import ConfigError
from vrrpkit.ipvs.model.adoption import (
    LIFETIME,
    Adoptable,
    PoolMemory,
    Remembered,
    adopt,
    decode,
    encode,
    quorate,
)
from vrrpkit.ipvs.model.endpoints import destination_key
from vrrpkit.ipvs.model.entries import WEIGHT_LIMIT
from vrrpkit.ipvs.model.pool import Adopted, Member, Pool, PoolServer, ServerState

ENDPOINT = "10.0.0.1:80"
SERVES = Adoptable(live=2)
OTHERS_SERVE = Adoptable(live=1)
NOBODY = Adoptable()
SORRY = Adoptable(stands_in=True)


def member(**changes: Any) -> Member:
    return Member(name="a", key=destination_key(ENDPOINT), **({"weight": 10} | changes))


def remembered(**changes: Any) -> Remembered:
    usual: dict[str, Any] = {
        "endpoint": ENDPOINT,
        "described": 10,
        "configured": 10,
        "checks": ("HTTP",),
    }
    return Remembered(**(usual | changes))


def memory(*, quorate: bool = True, **servers: Remembered) -> PoolMemory:
    return PoolMemory(at=1000.0, quorate=quorate, servers=servers)


def begin(
    *weights: int,
    table: Adoptable = SERVES,
    known: PoolMemory | None = None,
    checks: tuple[str, ...] = ("HTTP",),
    alpha: bool = False,
    **changes: Any,
) -> Adopted:
    return adopt(member(**changes), checks, alpha, weights, table, known)


def state(adopted: Adopted) -> str:
    if adopted.disabled:
        return "disabled"
    return "down" if adopted.failing else "up"


class TestByTheTableAlone:
    @pytest.mark.parametrize("alpha", [False, True])
    def test_who_serves_is_up_also_with_alpha_and_is_seen(self, alpha: bool) -> None:
        adopted = begin(10, alpha=alpha)
        assert (state(adopted), adopted.seen, adopted.weight) == ("up", True, None)

    def test_another_weight_holds_until_the_checks_passed(self) -> None:
        assert begin(3, 3).weight == 3
        # Nothing would ever end it.
        assert begin(3, checks=()).weight is None

    @pytest.mark.parametrize("table", [OTHERS_SERVE, SORRY])
    def test_who_is_missing_while_somebody_serves_has_failed(self, table: Adoptable) -> None:
        adopted = begin(table=table)
        assert (state(adopted), adopted.seen, adopted.held) == ("down", False, False)
        assert state(begin(table=table, checks=())) == "up"

    def test_weight_0_stays_0_while_somebody_serves(self) -> None:
        adopted = begin(0, table=OTHERS_SERVE)
        assert (state(adopted), adopted.held) == ("down", True)

    def test_without_a_check_that_could_speak_it_is_disabled(self) -> None:
        assert state(begin(0, table=OTHERS_SERVE, checks=())) == "disabled"
        # It has that weight, or it left for the sorry server.
        assert state(begin(0, table=OTHERS_SERVE, checks=(), weight=0)) == "up"
        assert state(begin(0, table=SORRY, checks=())) == "up"

    @pytest.mark.parametrize("alpha", [False, True])
    @pytest.mark.parametrize("weights", [(), (0,)])
    def test_where_nobody_serves_all_begin_as_configured(
        self, weights: tuple[int, ...], alpha: bool
    ) -> None:
        adopted = begin(*weights, table=NOBODY, alpha=alpha)
        assert (state(adopted), adopted.seen) == ("down" if alpha else "up", False)


class TestByWhatWasWritten:
    @pytest.mark.parametrize(("alpha", "begins"), [(False, "up"), (True, "down")])
    def test_who_is_not_in_it_is_new(self, alpha: bool, begins: str) -> None:
        adopted = begin(table=OTHERS_SERVE, known=memory(), alpha=alpha)
        assert (state(adopted), adopted.seen) == (begins, False)
        other = memory(a=remembered(endpoint="10.0.0.2:80", disabled=True))
        assert state(begin(table=OTHERS_SERVE, known=other, alpha=alpha)) == begins

    def test_somebody_put_it_into_the_table_by_hand(self) -> None:
        assert state(begin(0, table=OTHERS_SERVE, known=memory())) == "down"
        assert begin(4, known=memory()).weight == 4

    def test_who_was_down_is_down_for_the_same_reason(self) -> None:
        known = memory(a=remembered(failing={0: "refused"}))
        adopted = begin(table=OTHERS_SERVE, known=known)
        assert (dict(adopted.failing), adopted.seen) == ({0: "refused"}, False)
        # Other checks must all pass.
        adopted = begin(table=OTHERS_SERVE, known=known, checks=("TCP", "DNS"))
        assert dict(adopted.failing) == {0: "not checked yet", 1: "not checked yet"}

    def test_who_was_disabled_is_disabled(self) -> None:
        known = memory(a=remembered(disabled=True))
        for table in (OTHERS_SERVE, NOBODY):
            assert state(begin(0, table=table, known=known)) == "disabled"

    def test_the_table_is_newer(self) -> None:
        for changes in ({"failing": {0: "refused"}}, {"disabled": True}):
            known = memory(a=remembered(**changes))
            assert state(begin(10, known=known)) == "up"
        known = memory(a=remembered())
        assert state(begin(table=OTHERS_SERVE, known=known)) == "down"
        assert state(begin(0, table=OTHERS_SERVE, known=known)) == "down"

    def test_weight_0_that_has_a_reason_is_no_failure(self) -> None:
        said = memory(a=remembered(check_weights={0: (0, False)}))
        adopted = begin(0, table=OTHERS_SERVE, known=said)
        assert (state(adopted), adopted.weight, adopted.seen) == ("up", None, True)
        assert state(begin(table=SORRY, known=memory(a=remembered()))) == "up"

    @pytest.mark.parametrize(("alpha", "begins"), [(False, "up"), (True, "down")])
    def test_where_nobody_serves_alpha_decides(self, alpha: bool, begins: str) -> None:
        known = memory(a=remembered())
        assert state(begin(table=NOBODY, known=known, alpha=alpha)) == begins

    def test_weights_that_were_said_and_set(self) -> None:
        known = memory(a=remembered(configured=7, check_weights={0: (-2, True)}))
        adopted = begin(5, known=known)
        assert (adopted.configured, dict(adopted.check_weights), adopted.weight) == (
            7,
            {0: (-2, True)},
            None,
        )
        # The table was changed after that was written.
        assert begin(6, known=known).weight == 6
        # Another check says something else.
        adopted = begin(5, known=known, checks=("TCP",))
        assert (dict(adopted.check_weights), adopted.weight) == ({}, 5)

    def test_a_weight_that_was_edited_holds_at_once(self) -> None:
        known = memory(a=remembered(described=9, configured=7))
        adopted = begin(7, known=known)
        assert (adopted.configured, adopted.weight) == (10, None)


@pytest.mark.parametrize(
    ("table", "sorry", "written", "expected"),
    [
        (NOBODY, False, None, False),
        (NOBODY, True, True, True),
        (NOBODY, True, False, False),
        (SERVES, True, None, True),
        (SERVES, False, None, True),
        (SERVES, False, False, False),
        (SERVES, False, True, True),
        # The sorry server had left already.
        (SERVES, True, False, True),
        (SORRY, True, None, False),
        (SORRY, True, True, False),
    ],
)
def test_whether_it_had_its_quorum(
    table: Adoptable, sorry: bool, written: bool | None, expected: bool
) -> None:
    known = None if written is None else memory(quorate=written)
    assert quorate(table, sorry, known) is expected


def test_what_is_old_or_of_the_future_counts_no_more() -> None:
    known = memory()
    assert known.counts(1000.0 + LIFETIME) and known.counts(1000.0 - LIFETIME)
    assert not known.counts(1001.0 + LIFETIME) and not known.counts(999.0 - LIFETIME)


# --- as it is written -----------------------------------------------------------------------------

servers = st.builds(
    Remembered,
    endpoint=st.just(ENDPOINT),
    described=st.integers(0, WEIGHT_LIMIT),
    configured=st.integers(0, WEIGHT_LIMIT),
    disabled=st.booleans(),
    checks=st.lists(st.text(), min_size=3, max_size=3).map(tuple),
    failing=st.dictionaries(st.integers(0, 2), st.text(max_size=20)),
    check_weights=st.dictionaries(
        st.integers(0, 2),
        st.tuples(st.integers(0, 9), st.booleans()) | st.tuples(st.integers(-9, -1), st.just(True)),
    ),
)


@given(
    st.builds(
        PoolMemory,
        at=st.floats(0, 1e11),
        quorate=st.booleans(),
        servers=st.dictionaries(st.text(), servers, max_size=3),
    )
)
def test_what_is_written_is_read(known: PoolMemory) -> None:
    assert decode(json.loads(json.dumps(encode(known)))) == known


def test_what_is_as_usual_is_left_out() -> None:
    known = memory(a=remembered(checks=()))
    assert encode(known)["servers"] == {"a": {"endpoint": ENDPOINT, "described": 10}}


BAD_ROWS: list[object] = [7, [], [0], [True, "x"], ["0", "x"], [3, "x"], [-1, "x"], [0, "x", "y"]]


@pytest.mark.parametrize(
    "changes",
    [
        {"described": None},
        {"described": -1},
        {"described": True},
        {"described": 2**31},
        {"configured": "7"},
        {"checks": "HTTP"},
        {"checks": ["x"] * 1001},
        *({"failing": [row]} for row in BAD_ROWS),
        {"said": [[0, 1]]},
        {"said": [[0, -1, False]]},
        {"said": [[0, -(2**31), True]]},
    ],
)
def test_what_is_damaged_is_refused(changes: dict[str, object]) -> None:
    content: Any = encode(memory(a=remembered()))
    content["servers"]["a"].update(changes)
    with pytest.raises(ConfigError):
        decode(content)


@pytest.mark.parametrize(
    "content",
    [
        None,
        [],
        {},
        {"at": True, "servers": {}},
        {"at": "now", "servers": {}},
        {"at": float("nan"), "servers": {}},
        {"at": 10**400, "servers": {}},
        {"at": -1, "servers": {}},
        {"at": 1},
        {"at": 1, "servers": {"a": 7}},
    ],
)
def test_what_is_something_else_is_refused(content: object) -> None:
    with pytest.raises(ConfigError):
        decode(content)


def test_a_reason_that_never_ends_does() -> None:
    content: Any = encode(memory(a=remembered(failing={0: "x" * 5000})))
    assert len(decode(content).servers["a"].failing[0]) == 1000


def test_a_seat_is_written_as_it_is() -> None:
    web = Pool("web")
    web.add(member(), (), 0.0)
    web.start(0.0)
    web.report("a", 0, healthy=True, weight=3, at=1.0)
    web.report("a", 0, healthy=False, reason="refused", weight=3, at=1.0)
    web.set_weight("a", 8, 1.0)
    web.set_admin_state("a", ServerState.DISABLED, 1.0)
    seat = web.pool_server("a")
    assert seat is not None
    written = Remembered.of(seat, ["HTTP"])
    assert written == remembered(
        configured=8, disabled=True, failing={0: "refused"}, check_weights={0: (3, False)}
    )
    web.set_admin_state("a", ServerState.DRAINING, 1.0)
    assert not Remembered.of(seat, ["HTTP"]).disabled
    again = PoolServer(
        member(), attrs.evolve(begin(0, table=OTHERS_SERVE, known=memory(a=written)), held=False)
    )
    assert (again.state, again.configured, again.reason) == (ServerState.DISABLED, 8, "refused")
