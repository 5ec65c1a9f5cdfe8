"""Tools for testing failover: virtual time, a link in memory, scripted health checks,
invariants, recordings.

Importing this costs a program that only runs routers nothing: nothing else imports it.
"""

from __future__ import annotations

from vrrpkit.testing.checks import ScriptedChecker
from vrrpkit.testing.lan.invariants import Invariant, InvariantBroken, Violation, violations
from vrrpkit.testing.lan.lan import Lan
from vrrpkit.testing.lan.timeline import Entry, Timeline
from vrrpkit.testing.mailbox import Mailbox, MailboxLetter
from vrrpkit.testing.record.recorder import Recorder
from vrrpkit.testing.record.replay import RecordingUnreadable, Replay, ReplayMismatch, replay
from vrrpkit.testing.trackers import ScriptedTracker
from vrrpkit.testing.virtual import (
    BlockedForever,
    RealWorldNeeded,
    TasksLeft,
    VirtualLoop,
    randomness,
    run_virtual,
    virtual_time,
)

__all__ = [
    "BlockedForever",
    "Entry",
    "Invariant",
    "InvariantBroken",
    "Lan",
    "Mailbox",
    "MailboxLetter",
    "RealWorldNeeded",
    "Recorder",
    "RecordingUnreadable",
    "Replay",
    "ReplayMismatch",
    "ScriptedChecker",
    "ScriptedTracker",
    "TasksLeft",
    "Timeline",
    "Violation",
    "VirtualLoop",
    "randomness",
    "replay",
    "run_virtual",
    "violations",
    "virtual_time",
]
