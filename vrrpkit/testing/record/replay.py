"""Lets recorded machines live again, and compares what they do with what they did.

::

    print(replay("/var/log/vrrp/web.jsonl"))

So a failover in production becomes a test: after a change to the state machine, or with another
version of this library, the same events must still have the same effects.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from pathlib import Path

import attrs

from vrrpkit.testing.record.jsonform import (
    JSON,
    JSONObject,
    config_from_json,
    effect_from_json,
    event_from_json,
    machine_state,
    restore_machine,
)
from vrrpkit.testing.record.recorder import FORMAT, recorded_files
from vrrpkit.validate import is_number
from vrrpkit.vrrp.protocol.effects import Effect
from vrrpkit.vrrp.protocol.inputs import Input, Refreshed
from vrrpkit.vrrp.protocol.machine import Machine

__all__ = ["RecordedStep", "RecordingUnreadable", "Replay", "ReplayMismatch", "replay"]


@attrs.frozen(kw_only=True)
class RecordedStep:
    """One event of one run of a router, as it was recorded."""

    where: str
    """File and line."""
    router: str
    now: float
    event: Input
    effects: tuple[Effect, ...]


class RecordingUnreadable(ValueError):
    """A line of a recording cannot be understood; the message says which and why."""


class ReplayMismatch(AssertionError):
    """A machine did not do again what it had done; ``step`` is the last event that it was fed."""

    def __init__(self, step: RecordedStep, differences: Iterable[str]) -> None:
        head = f"{step.where}: {step.router} at {step.now:.6f}, {step.event}"
        listed = "\n    ".join([head, *differences])
        super().__init__(f"the replay differs from the recording\n  {listed}")
        self.step = step


@attrs.frozen(kw_only=True)
class Replay:
    """What a replay went through without finding a difference."""

    runs: int
    """Runs of routers; one that was entered again counts twice."""
    steps: int
    """Events, repeated adverts included."""
    skipped: int
    """Events of runs whose beginning is not on record any more, up to the next place from where
    they can be followed."""


def replay(path: str | os.PathLike[str]) -> Replay:
    """Feed every recorded event to a machine made as the recorded one was, and compare the effects.

    :param path: the present file of the recording; older ones beside it come first.
    :raises ReplayMismatch: other effects came out, or another state was reached.
    :raises RecordingUnreadable: the recording is damaged, or of another version.
    :raises FileNotFoundError: there is none.
    """
    return _Replayer().play(recorded_files(path))


class _Replayer:
    def __init__(self) -> None:
        self._session: JSON = None
        self._machines: dict[JSON, Machine] = {}
        self._steps: dict[JSON, RecordedStep] = {}
        self._seen: set[tuple[JSON, JSON]] = set()
        self._played = 0
        self._skipped = 0

    def play(self, files: Iterable[Path]) -> Replay:
        for file in files:
            with file.open(encoding="utf-8", errors="replace") as lines:
                for number, line in enumerate(lines, 1):
                    self._play(f"{file}:{number}", line)
        return Replay(runs=len(self._seen), steps=self._played, skipped=self._skipped)

    def _play(self, where: str, line: str) -> None:
        if not line.endswith("\n"):
            # The process, or the machine, died while it wrote.
            self._machines.clear()
            return
        try:
            form: JSON = json.loads(line)
            if not isinstance(form, dict):
                raise ValueError("this is no line of a recording")
            self._line(where, form)
        except (ValueError, KeyError) as problem:
            raise RecordingUnreadable(f"{where}: {problem!r}") from problem

    def _line(self, where: str, form: JSONObject) -> None:
        if "vrrpkit" in form:
            self._head(form)
        elif "left_out" in form:
            self._machines.clear()
        elif "state" in form:
            self._known(form["run"], form)
        elif "config" in form:
            self._seen.add((self._session, form["run"]))
            self._machines[form["run"]] = Machine(config_from_json(form["config"]))
        elif form["run"] in self._machines:
            self._step(form["run"], _step(where, self._machines[form["run"]], form))
        else:
            self._skipped += 1

    def _head(self, form: JSONObject) -> None:
        if form["vrrpkit"] != FORMAT:
            raise ValueError(f"format {form['vrrpkit']} must be {FORMAT}")
        if form["session"] != self._session:
            self._session = form["session"]
            self._machines.clear()

    def _known(self, run: JSON, form: JSONObject) -> None:
        """How a machine stands: where a replay may begin, or is checked."""
        state = form["state"]
        if not isinstance(state, dict):
            raise ValueError("the state must be an object")
        followed = self._machines.get(run)
        if followed is not None and machine_state(followed) != state:
            reached = machine_state(followed)
            raise ReplayMismatch(
                self._steps[run],
                [
                    f"{name} was recorded as {state.get(name)}, and is {value} in the replay"
                    for name, value in reached.items()
                    if value != state.get(name)
                ],
            )
        self._seen.add((self._session, run))
        self._machines[run] = restore_machine(config_from_json(form["config"]), state)

    def _step(self, run: JSON, step: RecordedStep) -> None:
        self._played += 1
        self._steps[run] = step
        effects = tuple(self._machines[run].handle(step.event, step.now))
        if effects != step.effects:
            missing = [effect for effect in step.effects if effect not in effects]
            added = [effect for effect in effects if effect not in step.effects]
            raise ReplayMismatch(
                step,
                [
                    *(f"recorded only: {effect}" for effect in missing),
                    *(f"replayed only: {effect}" for effect in added),
                ]
                or ["the same effects came in another order, or another number"],
            )


def _step(where: str, machine: Machine, form: JSONObject) -> RecordedStep:
    effects: tuple[Effect, ...] = ()
    if "again" in form:
        now = _number(form["again"])
        event: Input = Refreshed(now)
    else:
        now = _number(form["now"])
        event = event_from_json(form["event"])
        listed = form["effects"]
        if not isinstance(listed, list):
            raise ValueError("the effects must be a list")
        effects = tuple(effect_from_json(effect) for effect in listed)
    router = machine.config.router
    return RecordedStep(where=where, router=router, now=now, event=event, effects=effects)


def _number(form: JSON) -> float:
    if not is_number(form):
        raise ValueError(f"{form!r} must be seconds")
    return float(form)
