"""Which event is logged at which level, how often, and that none is forgotten."""

from __future__ import annotations

import ast
import asyncio
import json
import logging
import re
import time
from ipaddress import ip_address
from pathlib import Path
from typing import get_args

import attrs
import pytest

import vrrpkit
from vrrpkit import bfd, checks, events, ipvs, vrrp
from vrrpkit.bfd.protocol.events import BFDEvent, BFDRejected, BFDSendFailed, BFDTransition
from vrrpkit.bfd.protocol.packet import BFDDiagnostic, BFDRejectReason, BFDState
from vrrpkit.checks.events import CheckNotMade, CheckResult, CheckStuck
from vrrpkit.eventlog import AGAIN, BURST, PEERS, TABLE, EventLog, LogRule, level_of, rule_of
from vrrpkit.ipvs.model.events import (
    QuorumDown,
    ServerDown,
    ServerRemoved,
    VirtualServerEvent as PoolEvents,
)
from vrrpkit.ipvs.sync import SyncEvent
from vrrpkit.publishing import EventsLost, Hub
from vrrpkit.testing import virtual_time
from vrrpkit.tracking.runner import TrackerSignal
from vrrpkit.values import Stamped, State
from vrrpkit.vrrp.protocol.events import (
    AdvertAnomaly,
    AdvertRejected,
    Anomaly,
    PriorityChanged,
    RouterEvent,
    Stalled,
    Transition,
    TransitionReason,
)
from vrrpkit.vrrp.protocol.packet import RejectReason
from vrrpkit.vrrp.syncgroup import GroupTransition

PACKAGE = Path(vrrpkit.__file__).parent
PAGE = Path(__file__).parent.parent / "docs" / "reference" / "logging.md"

PUBLISHED = {
    *get_args(RouterEvent),
    *get_args(PoolEvents),
    *get_args(BFDEvent),
    *get_args(SyncEvent),
    CheckNotMade,
    CheckResult,
    CheckStuck,
    GroupTransition,
}
WITHOUT_A_STAMP = {"EventsLost", "TrackerReason", "TrackerSignal"}


def event_classes() -> set[str]:
    """Every class of the package that looks like an event: frozen, with ``at`` or a stamp."""
    found: set[str] = set()
    for path in PACKAGE.rglob("*.py"):
        if "testing" in path.parts:
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ClassDef) and any(
                isinstance(base, ast.Name) and base.id == "Stamped" for base in node.bases
            ):
                found.add(node.name)
    return found


def test_no_class_of_events_is_missing_in_any_room() -> None:
    assert {kind.__name__ for kind in PUBLISHED} == event_classes()
    assert set(TABLE) == event_classes() | WITHOUT_A_STAMP


@pytest.mark.parametrize("kind", sorted(PUBLISHED, key=lambda kind: kind.__name__))
def test_every_event_has_wall_time_and_its_rule_fits(kind: type[attrs.AttrsInstance]) -> None:
    assert issubclass(kind, Stamped)
    fields = {field.name for field in attrs.fields(kind)}
    rule = TABLE[kind.__name__]
    assert set(rule.kind) <= fields
    for condition, other in rule.when.items():
        assert condition.partition("=")[0] in fields
        assert set(other.kind) <= fields
    # Each reads as a line.
    assert "__str__" in vars(kind)


def described() -> dict[str, tuple[str, str]]:
    rows = re.findall(r"^\| `(\w+)`(.*?) \| (\w+) \| (.*?) \|$", PAGE.read_text(), re.M)
    return {f"{name}{when}": (level, often) for name, when, level, often in rows}


OFTEN = {
    "each": "each",
    "some": "the first 10 of a kind in 5 minutes",
    "bounded": "the first of a kind, then one in 5 minutes",
    "once": "the first of a kind",
}


def row(rule: LogRule) -> tuple[str, str]:
    if not rule.level:
        return "never", ""
    of = ", ".join(f"`{name}`" for name in rule.kind)
    of = f": {of}" if of else ""
    together = ", for all routers of the program" if rule.together else ""
    return logging.getLevelName(rule.level), OFTEN[rule.repeats] + together + of


def test_the_page_says_what_the_table_says() -> None:
    expected: dict[str, tuple[str, str]] = {}
    for name, rule in TABLE.items():
        if name in ("TrackerReason", "TrackerSignal"):
            continue
        expected[name] = row(rule)
        for condition, other in rule.when.items():
            attribute, _, value = condition.partition("=")
            expected[f"{name}, `{attribute}` {value}"] = row(other)
    assert described() == expected


def rejected(peer: str, at: float, count: int = 1, want: str = "3") -> AdvertRejected:
    return AdvertRejected(
        router="web",
        at=at,
        reason=RejectReason.VERSION,
        peer=ip_address(peer),
        got="2",
        want=want,
        count=count,
    )


def transition(state: State, at: float = 0.0) -> Transition:
    return Transition(
        router="web",
        at=at,
        previous=State.BACKUP,
        state=state,
        reason=TransitionReason.STARTUP,
        priority=100,
    )


def test_levels() -> None:
    assert level_of(transition(State.MASTER)) == logging.INFO
    assert level_of(transition(State.FAULT)) == logging.WARNING
    assert level_of(QuorumDown(virtual_server="web", at=0.0, weight=0)) == logging.WARNING
    down = ServerDown(virtual_server="web", at=0.0, server="a", reason="refused")
    assert level_of(down) == logging.WARNING
    assert level_of(attrs.evolve(down, reason="shutdown")) == logging.INFO
    assert level_of(EventsLost(3)) == 0
    assert level_of(object()) == logging.INFO
    anomaly = AdvertAnomaly(
        router="web", at=0.0, anomaly=Anomaly.INTERVAL, peer=ip_address("192.0.2.1")
    )
    assert rule_of(anomaly).repeats == "once"
    assert rule_of(attrs.evolve(anomaly, anomaly=Anomaly.ANOTHER_OWNER)).repeats == "bounded"


@pytest.fixture
def book() -> EventLog:
    return EventLog(logging.getLogger("vrrpkit.vrrp"))


def test_what_a_peer_causes_is_logged_once_and_then_rarely(
    book: EventLog, caplog: pytest.LogCaptureFixture
) -> None:
    for second in range(int(2 * AGAIN)):
        book.tell(rejected("192.0.2.2", float(second), count=100))
    assert [record.getMessage() for record in caplog.records] == [
        "web: rejected an advert from 192.0.2.2: version, got 2, want 3 (100 times): "
        "it speaks version 2: say version=2, or 'vrrp_version 3' there",
        "web: rejected an advert from 192.0.2.2: version, got 2, want 3 (100 times): "
        "it speaks version 2: say version=2, or 'vrrp_version 3' there "
        "(and 29900 more since the last such line)",
    ]
    assert {record.levelname for record in caplog.records} == {"WARNING"}


def test_whoever_invents_peers_fills_no_log(
    book: EventLog, caplog: pytest.LogCaptureFixture
) -> None:
    for number in range(1000):
        book.tell(rejected(f"10.0.{number // 250}.{number % 250 + 1}", number / 1000))
    assert len(caplog.records) == BURST
    for number in range(1000):
        book.tell(rejected(f"10.1.{number // 250}.{number % 250 + 1}", 60.0 + number))
    assert len(caplog.records) <= BURST + PEERS


def test_harmless_differences_are_logged_once(
    book: EventLog, caplog: pytest.LogCaptureFixture
) -> None:
    for hour in range(100):
        book.tell(
            AdvertAnomaly(
                router="web",
                at=3600.0 * hour,
                anomaly=Anomaly.ADDRESS_LIST,
                peer=ip_address("192.0.2.2"),
            )
        )
    assert len(caplog.records) == 1


def test_a_router_that_flaps_does_not_fill_the_log(
    book: EventLog, caplog: pytest.LogCaptureFixture
) -> None:
    for second in range(3600):
        book.tell(transition(State.FAULT if second % 2 else State.BACKUP, float(second)))
    assert len(caplog.records) <= 12 * BURST
    assert sum(record.levelname == "WARNING" for record in caplog.records) == 12 * BURST


def test_each_kind_counts_by_itself_and_old_ones_are_forgotten(
    book: EventLog, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.INFO)
    monkeypatch.setattr("vrrpkit.eventlog.REMEMBERED", 5)
    for number in range(20):
        for _ in range(2):
            book.tell(ServerDown(virtual_server="v", at=0.0, server=f"s{number}", reason="no"))
    assert len(caplog.records) == 40


def test_a_level_that_nobody_wants_costs_no_text() -> None:
    logger = logging.getLogger("vrrpkit.test.quiet")
    logger.setLevel(logging.ERROR)

    class Shy(Stamped):
        def __str__(self) -> str:
            raise AssertionError("nobody asked")

    EventLog(logger).tell(Shy())


def test_one_event_is_one_line(book: EventLog, caplog: pytest.LogCaptureFixture) -> None:
    evil = "554 no\r\nweb: BACKUP -> MASTER\x1b[2J"
    book.tell(ServerDown(virtual_server="web", at=0.0, server="10.0.0.1:25", reason=evil))
    (record,) = caplog.records
    assert record.getMessage().isprintable()


def test_a_hub_stamps_and_logs_each_event_once_whoever_listens(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    hub: Hub[object] = Hub(logging.getLogger("vrrpkit.vrrp"), "so: ")
    before = time.time()
    event = transition(State.MASTER)
    same = transition(State.MASTER)
    assert event.time == 0.0
    told: list[object] = []
    hub.publish(event)
    hub.subscribe(told.append)
    hub.subscribe(told.append)
    hub.publish(same)
    assert told == [same, same]
    assert before <= event.time <= same.time <= time.time()
    assert event == same, "when it was published is no part of what happened"
    assert [r.getMessage() for r in caplog.records] == ["so: web: BACKUP -> MASTER: startup"] * 2
    stamped = same.time
    hub.publish(same)
    assert same.time == stamped
    hub.publish("of another kind")


def test_what_users_see_is_text_in_json() -> None:
    event = PriorityChanged(
        router="web", at=1.0, previous=150, priority=90, source="configured 150, script x -60"
    )
    assert str(event).endswith("no longer 150: configured 150, script x -60")
    assert json.dumps([State.MASTER, TransitionReason.TIE, BFDState.ADMIN_DOWN]) == (
        '["MASTER", "tie", "AdminDown"]'
    )
    assert [diagnostic.code for diagnostic in BFDDiagnostic] == [*range(9), 31]
    kinds = [
        value
        for face in (vrrpkit, bfd, checks, events, ipvs, vrrp)
        for value in (getattr(face, name) for name in face.__all__)
        if isinstance(value, type) and hasattr(value, "__members__")
    ]
    assert {State, BFDState, TransitionReason, RejectReason} <= set(kinds)
    for kind in kinds:
        for member in kind:
            assert isinstance(member, str), f"{kind.__name__} is not text in JSON"
            assert str(member) == member.value
    down = BFDTransition(
        session="a",
        at=0.0,
        previous=BFDState.UP,
        state=BFDState.DOWN,
        diagnostic=BFDDiagnostic.PATH_DOWN,
    )
    assert str(down) == "a: Up -> Down: path down"


def test_a_tracker_says_how_it_is() -> None:
    bad = TrackerSignal(tracker="script x", at=0.0, signal="bad")
    assert (str(bad), level_of(bad)) == ("tracker script x is bad", logging.INFO)
    assert level_of(attrs.evolve(bad, signal="not known")) == logging.DEBUG


def test_what_is_logged_each_time_is(book: EventLog, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    for _ in range(100):
        book.tell(ServerRemoved(virtual_server="v", at=0.0, server="a"))
    assert len(caplog.records) == 100


def test_bfd_events_read_as_lines() -> None:
    rejected_packet = BFDRejected(
        session="a", at=0.0, reason=BFDRejectReason.TTL, source=ip_address("192.0.2.2")
    )
    assert str(rejected_packet) == "a: rejected a packet from 192.0.2.2: ttl"
    more = attrs.evolve(rejected_packet, got="254", want="255", count=3)
    assert str(more).endswith(": ttl, got 254, want 255 (3 times)")
    assert str(BFDSendFailed(session="a", at=0.0, error="no route")) == (
        "a: a packet could not be sent: no route"
    )


@virtual_time()
async def test_a_pause_of_the_program_is_one_line(caplog: pytest.LogCaptureFixture) -> None:
    """However many routers notice it; each of them has its event."""
    clock = asyncio.get_running_loop().time
    names = [f"r{number}" for number in range(1, 256)]
    hubs = [Hub[Stalled](logging.getLogger("vrrpkit.vrrp"), "web: ") for _ in names]
    told: list[str] = []
    for hub in hubs:
        hub.subscribe(lambda event: told.append(event.router))

    async def pause() -> None:
        for name, hub in zip(names, hubs, strict=True):
            hub.publish(Stalled(router=name, at=clock(), seconds=2.0))
            await asyncio.sleep(0.01)

    await pause()
    assert told == names
    assert caplog.messages == ["this process stood still for 2 s"]
    await asyncio.sleep(AGAIN)
    await pause()
    assert len(told) == 2 * len(names)
    assert caplog.messages[1:] == [
        "this process stood still for 2 s (and 254 more since the last such line)"
    ]


def test_without_a_loop_each_object_has_its_own_line(caplog: pytest.LogCaptureFixture) -> None:
    for name in ("a", "b"):
        log = EventLog(logging.getLogger("vrrpkit.vrrp"))
        for _ in range(2):
            log.tell(Stalled(router=name, at=1.0, seconds=2.0))
    assert caplog.messages == ["this process stood still for 2 s"] * 2
