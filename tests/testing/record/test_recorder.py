"""Recordings: values survive the round trip, a replay does the same again, files stay small."""

from __future__ import annotations

import asyncio
import errno
import io
import json
import math
from collections.abc import Callable
from ipaddress import ip_address
from pathlib import Path
from typing import Any, get_args

import pytest
from hypothesis import given, settings, strategies as st

from vrrpkit import ConfigError, State
from vrrpkit.testing import (
    Lan,
    Recorder,
    RecordingUnreadable,
    ReplayMismatch,
    randomness,
    replay,
    virtual_time,
)
from vrrpkit.testing.record.jsonform import (
    config_from_json,
    effect_from_json,
    event_from_json,
    machine_state,
    notice_from_json,
    restore_machine,
    to_json,
)
from vrrpkit.testing.record.recorder import recorded_files
from vrrpkit.values import IPAddress
from vrrpkit.vrrp.protocol.backup import BackupState
from vrrpkit.vrrp.protocol.effects import Effect, Publish
from vrrpkit.vrrp.protocol.events import RouterEvent
from vrrpkit.vrrp.protocol.inputs import (
    AdvertReceived,
    Demote,
    Input,
    KernelRefusedAddresses,
    LostAddress,
    Refreshed,
    SetPriority,
    Startup,
    TimerFired,
)
from vrrpkit.vrrp.protocol.machine import Machine, MachineConfig
from vrrpkit.vrrp.protocol.profile import DEFAULT, KEEPALIVED, STRICT

VIPS = ["192.0.2.10/24"]

st.register_type_strategy(float, st.floats(allow_nan=False))
notices: st.SearchStrategy[Any] = st.one_of([st.from_type(kind) for kind in get_args(RouterEvent)])
events: st.SearchStrategy[Any] = st.one_of([st.from_type(kind) for kind in get_args(Input)])
effects: st.SearchStrategy[Any] = st.one_of([st.from_type(kind) for kind in get_args(Effect)])


def through_json(value: object) -> Any:
    """What a file gives back."""
    return json.loads(json.dumps(to_json(value), allow_nan=False))


class TestRoundTrip:
    @given(events)
    @settings(deadline=None)
    def test_events(self, event: Input) -> None:
        assert event_from_json(through_json(event)) == event

    @given(effects)
    @settings(deadline=None)
    def test_effects(self, effect: Effect) -> None:
        assert effect_from_json(through_json(effect)) == effect

    @given(notices)
    @settings(deadline=None)
    def test_notices(self, notice: RouterEvent) -> None:
        assert notice_from_json(through_json(notice)) == notice

    @given(st.sampled_from([DEFAULT, KEEPALIVED, STRICT]), st.integers(1, 255))
    @settings(deadline=None)
    def test_configurations(self, profile: Any, priority: int) -> None:
        config = configuration(profile=profile, priority=priority)
        assert config_from_json(through_json(config)) == config

    def test_types_are_kept(self) -> None:
        event = AdvertReceived(source=ip_address("fe80::1"), priority=7, interval=1, at=2.5)
        form = through_json(event)
        assert form == {
            "type": "AdvertReceived",
            "source": "fe80::1",
            "priority": 7,
            "interval": 1,
            "at": 2.5,
        }
        assert isinstance(event_from_json(form), AdvertReceived)
        assert event_from_json(through_json(Demote(math.inf))) == Demote(math.inf)

    @pytest.mark.parametrize(
        "form",
        [
            None,
            7,
            [],
            {},
            {"type": "Nonsense"},
            {"type": "SendAdvert", "priority": 7},
            {"type": "SetPriority"},
            {"type": "SetPriority", "priority": "7"},
            {"type": "SetPriority", "priority": 7, "more": 1},
            {"type": "Refreshed", "at": None},
            {"type": "LostAddress", "address": "nowhere"},
            {"type": "LostAddress", "address": 7},
            {"type": "FaultsNow", "faults": "x"},
            {"type": "FaultsNow", "faults": [7]},
        ],
    )
    def test_nonsense_is_refused(self, form: Any) -> None:
        with pytest.raises(ValueError, match=r"."):
            event_from_json(form)

    def test_what_has_no_form(self) -> None:
        with pytest.raises(TypeError, match="has no JSON form"):
            to_json(object())


def configuration(**changes: Any) -> MachineConfig:
    usual: dict[str, Any] = {
        "router": "r",
        "version": 3,
        "priority": 100,
        "interval": 1.0,
        "preempt": True,
        "preempt_delay": 0.0,
        "down_factor": 3,
        "startup_delay": 0.0,
        "address_lost": DEFAULT.address_lost,
        "profile": DEFAULT,
        "repeat": 5,
    }
    return MachineConfig(**(usual | changes))


class TestMachineState:
    @given(st.lists(st.tuples(st.floats(0, 5), events.filter(lambda e: not _endless(e)))))
    @settings(deadline=None)
    def test_a_restored_machine_goes_on_as_the_original(
        self, steps: list[tuple[float, Input]]
    ) -> None:
        original = Machine(configuration())
        now = 0.0
        primary: IPAddress = ip_address("192.0.2.1")
        original.handle(Startup(primary=primary), now)
        for number, (gap, event) in enumerate(steps):
            if number == len(steps) // 2:
                state = json.loads(json.dumps(machine_state(original)))
                copy = restore_machine(original.config, state)
                assert machine_state(copy) == state
            now += gap
            answer = original.handle(event, now)
            if number >= len(steps) // 2:
                assert copy.handle(event, now) == answer
                # As text: absurd intervals make moments that are not a number, nor equal to one.
                assert repr(copy.deadline) == repr(original.deadline)

    def test_what_a_machine_remembers_is_kept(self) -> None:
        machine = Machine(configuration())
        primary, vip = ip_address("192.0.2.1"), ip_address("192.0.2.10")
        for now, event in (
            (0.0, Startup(primary=primary)),
            (4.0, TimerFired()),
            (5.0, LostAddress(vip)),
            (6.0, LostAddress(vip)),
            (7.0, Demote(math.inf)),
            (11.0, TimerFired()),
            (12.0, KernelRefusedAddresses(("x",))),
        ):
            machine.handle(event, now)
        state = json.loads(json.dumps(machine_state(machine), allow_nan=False))
        copy = restore_machine(machine.config, state)
        assert copy.state is State.FAULT and copy.faults == {"addresses"}
        assert machine_state(copy) == state

    def test_a_state_of_another_version_is_refused(self) -> None:
        state = machine_state(Machine(configuration()))
        with pytest.raises(ValueError, match="another version"):
            restore_machine(configuration(), {**state, "mood": "good"})
        with pytest.raises(ValueError, match="is no recorded state"):
            restore_machine(configuration(), {**state, "state": {"Nonsense": 1}})


def _endless(event: Input) -> bool:
    return isinstance(event, Demote) and not event.seconds > 0


async def router_run(recorder: Recorder, seconds: float = 60.0) -> None:
    """Three routers through thick and thin."""
    async with Lan(loss=0.05, jitter=0.01) as lan:
        for name, priority in (("a", 150), ("b", 100), ("c", 50)):
            lan.router(
                name, vips=VIPS, priority=priority, recorder=recorder, interval=0.2, vip_lease=3
            )
        await lan.settle()
        end = asyncio.get_running_loop().time() + seconds
        choose = randomness()
        while asyncio.get_running_loop().time() < end:
            await asyncio.sleep(choose.uniform(0.1, 2))
            name = choose.choice("abc")
            instance = lan.instance(name)
            if instance.state is State.INIT:
                lan.start(name)
                continue
            match choose.randrange(8):
                case 0:
                    lan.crash(name)
                case 1:
                    lan.unplug(name)
                case 2:
                    lan.plug(name)
                case 3:
                    lan.pause(name)
                case 4:
                    lan.resume(name)
                case 5:
                    lan.interface(name).delete("192.0.2.10")
                case 6:
                    instance.demote(1.5)
                case _:
                    instance.set_priority(choose.randrange(1, 255))


class TestReplay:
    def test_a_recorded_lan_replays(self, tmp_path: Path) -> None:
        path = tmp_path / "lan.jsonl"
        with Recorder(path) as recorder:
            virtual_time(seed=3)(router_run)(recorder)
        result = replay(path)
        assert result.runs > 5 and result.steps > 300 and result.skipped == 0
        kinds = _kinds(path)
        assert {"Startup", "Shutdown", "TimerFired", "AdvertReceived", "again"} <= kinds

    def test_refreshed_adverts_take_little_room(self, tmp_path: Path) -> None:
        path = tmp_path / "quiet.jsonl"

        @virtual_time()
        async def quiet() -> None:
            with Recorder(path) as recorder:
                async with Lan() as lan:
                    lan.router("a", vips=VIPS, priority=150)
                    lan.router("b", vips=VIPS, recorder=recorder)
                    await asyncio.sleep(600)

        quiet()
        assert replay(path).steps > 590
        assert path.stat().st_size < 600 * 40

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            (lambda step: _effect(step, "SendAdvert").update(priority=7), "recorded only"),
            (lambda step: step["effects"].pop(), "replayed only"),
            (lambda step: step["effects"].reverse(), "another order"),
        ],
    )
    def test_a_tampered_one_says_where(
        self, tmp_path: Path, change: Callable[[Any], object], message: str
    ) -> None:
        path = tmp_path / "lan.jsonl"
        with Recorder(path) as recorder:
            virtual_time(seed=3)(router_run)(recorder, 10.0)
        lines = path.read_text().splitlines()
        number, step = next(
            (number, form)
            for number, form in enumerate(map(json.loads, lines))
            if any(effect["type"] == "TakeAddresses" for effect in form.get("effects", ()))
        )
        change(step)
        lines[number] = json.dumps(step)
        path.write_text("\n".join([*lines, ""]))
        with pytest.raises(ReplayMismatch, match=message) as caught:
            replay(path)
        assert caught.value.step.where == f"{path}:{number + 1}"
        assert str(caught.value.step.where) in str(caught.value)
        assert caught.value.step.router in "abc"

    def test_a_changed_machine_is_found_out(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        path = tmp_path / "lan.jsonl"
        with Recorder(path) as recorder:
            virtual_time(seed=3)(router_run)(recorder)
        monkeypatch.setattr(BackupState, "down_interval", lambda self, priority: 9.0)
        with pytest.raises(ReplayMismatch):
            replay(path)

    @pytest.mark.parametrize(
        "line",
        [
            "nonsense",
            "7",
            "{}",
            '{"vrrpkit":99,"session":"x"}',
            '{"run":1,"config":{}}',
            '{"run":1,"config":{},"state":7}',
            '{"run":1,"again":null}',
            '{"run":1,"now":true}',
            '{"run":1,"now":1,"event":{"type":"TimerFired"},"effects":7}',
            '{"run":1,"now":1,"event":{"type":"Unheard"},"effects":[]}',
        ],
    )
    def test_a_damaged_one_says_where(self, tmp_path: Path, line: str) -> None:
        path = tmp_path / "short.jsonl"
        with Recorder(path) as recorder:
            recorder.record(Machine(configuration()), Startup(primary=None), 0.0, [])
        lines = path.read_text().splitlines()[:2]
        path.write_text("\n".join([*lines, line, ""]))
        with pytest.raises(RecordingUnreadable, match=r"short\.jsonl:3: "):
            replay(path)

    def test_there_must_be_one(self, tmp_path: Path) -> None:
        with pytest.raises(FileNotFoundError, match="there is no recording"):
            replay(tmp_path / "none.jsonl")

    def test_a_torn_last_line_is_left_out(self, tmp_path: Path) -> None:
        path = tmp_path / "lan.jsonl"
        with Recorder(path) as recorder:
            virtual_time(seed=3)(router_run)(recorder, 10.0)
        whole = replay(path)
        path.write_text(path.read_text()[:-9])
        assert replay(path).steps == whole.steps - 1


def _kinds(path: Path) -> set[str]:
    forms = [json.loads(line) for line in path.read_text().splitlines()]
    found = {form["event"]["type"] for form in forms if "event" in form}
    return found | {"again" for form in forms if "again" in form}


def _effect(step: Any, kind: str) -> Any:
    return next(effect for effect in step["effects"] if effect["type"] == kind)


class TestFiles:
    def test_they_stay_small_and_few_and_replay_all_the_same(self, tmp_path: Path) -> None:
        path = tmp_path / "lan.jsonl"
        with Recorder(path, max_bytes=20_000, files=3) as recorder:
            virtual_time(seed=3)(router_run)(recorder, 300.0)
        files = recorded_files(path)
        assert [file.name for file in files] == ["lan.jsonl.2", "lan.jsonl.1", "lan.jsonl"]
        assert all(file.stat().st_size <= 20_000 for file in files)
        result = replay(path)
        assert 0 < result.skipped < 20 < result.steps
        # Each later file tells how the machines stand, and that is checked.
        assert all('"state"' in file.read_text() for file in files)

    def test_a_state_that_differs_is_found(self, tmp_path: Path) -> None:
        path = tmp_path / "lan.jsonl"
        with Recorder(path, max_bytes=20_000, files=3) as recorder:
            virtual_time(seed=3)(router_run)(recorder, 300.0)
        lines = path.read_text().splitlines()
        number = next(n for n, line in enumerate(lines) if "state" in json.loads(line))
        form = json.loads(lines[number])
        form["state"]["_ready_at"] = 7.25
        lines[number] = json.dumps(form)
        path.write_text("\n".join([*lines, ""]))
        with pytest.raises(ReplayMismatch, match=r"_ready_at was recorded as 7\.25"):
            replay(path)

    def test_an_earlier_recording_is_kept_beside(self, tmp_path: Path) -> None:
        path = tmp_path / "lan.jsonl"
        steps = 0
        for seed in (3, 4):
            with Recorder(path) as recorder:
                virtual_time(seed=seed)(router_run)(recorder, 5.0)
            steps += replay(path).steps if seed == 3 else 0
        assert len(recorded_files(path)) == 2
        assert replay(path).steps > steps

    def test_one_file_is_enough(self, tmp_path: Path) -> None:
        path = tmp_path / "lan.jsonl"
        with Recorder(path, max_bytes=20_000, files=1) as recorder:
            virtual_time(seed=3)(router_run)(recorder, 100.0)
        assert len(recorded_files(path)) == 1
        assert replay(path).steps > 0

    def test_limits_are_checked(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match="max_bytes 10"):
            Recorder(tmp_path / "x", max_bytes=10)
        with pytest.raises(ConfigError, match="files 0"):
            Recorder(tmp_path / "x", files=0)
        with pytest.raises(OSError, match="No such file"):
            Recorder(tmp_path / "nowhere" / "x")
        with pytest.raises(ConfigError, match="no ordinary file"):
            Recorder(tmp_path)
        assert list(tmp_path.iterdir()) == []

    def test_a_machine_that_runs_already(self, tmp_path: Path) -> None:
        path = tmp_path / "late.jsonl"
        machine = Machine(configuration())
        machine.handle(Startup(primary=ip_address("192.0.2.1")), 0.0)
        with Recorder(path) as recorder:
            for now in (1.0, 4.0, 5.0):
                recorder.record(machine, TimerFired(), now, machine.handle(TimerFired(), now))
        result = replay(path)
        assert (result.runs, result.steps, result.skipped) == (1, 2, 1)


class TestTrouble:
    def test_a_full_disk_ends_the_recording_only(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        class Full(io.BytesIO):
            def write(self, data: Any) -> int:
                raise OSError(errno.ENOSPC, "No space left on device")

        recorder = Recorder(tmp_path / "full")
        recorder._file.close()
        recorder._file = Full()
        machine = Machine(configuration())
        recorder.record(machine, Startup(primary=None), 0.0, [])
        recorder.close()
        recorder.close()
        assert isinstance(recorder.failure, OSError)
        assert "the recording ends here" in caplog.text
        recorder.record(machine, TimerFired(), 1.0, [])

    def test_so_does_a_bug_of_ours(self, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        with Recorder(tmp_path / "x") as recorder:
            recorder.record(Machine(configuration()), object(), 0.0, [])  # type: ignore[arg-type]
            assert isinstance(recorder.failure, TypeError)
        assert "has no JSON form" in caplog.text

    def test_a_slow_disk_leaves_events_out(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        path = tmp_path / "slow.jsonl"
        machine = Machine(configuration())
        with Recorder(path) as recorder:

            def step(event: Input, now: float) -> None:
                recorder.record(machine, event, now, machine.handle(event, now))

            step(Startup(primary=ip_address("192.0.2.1")), 0.0)
            monkeypatch.setattr("vrrpkit.testing.record.recorder.QUEUE", -1)
            step(SetPriority(7), 1.0)
            step(SetPriority(8), 1.5)
            monkeypatch.undo()
            step(SetPriority(9), 2.0)
            step(TimerFired(), 4.5)
            assert recorder.left_out == 2
        assert caplog.text.count("too slow") == 1
        result = replay(path)
        assert (result.runs, result.steps, result.skipped) == (1, 2, 1)

    def test_closing_twice_and_recording_afterwards_are_harmless(self, tmp_path: Path) -> None:
        recorder = Recorder(tmp_path / "x")
        recorder.close()
        recorder.close()
        recorder.record(Machine(configuration()), Refreshed(0.0), 0.0, [Publish])  # type: ignore[list-item]


@pytest.mark.parametrize("files", [1, 2])
def test_a_link_in_its_place_is_not_written_through(tmp_path: Path, files: int) -> None:
    path, theirs = tmp_path / "run.jsonl", tmp_path / "theirs"
    theirs.write_text("theirs")
    path.symlink_to(theirs)
    with Recorder(path, files=files):
        pass
    assert theirs.read_text() == "theirs"
    assert path.is_file() and not path.is_symlink()
