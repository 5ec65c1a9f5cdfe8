"""A life beside a real keepalived is recorded, and happens again in a replay."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest

from system.lab import Host, Lab, require_root_and, wait_until
from system.peers import KEEPALIVED, Keepalived, keepalived_conf
from vrrpkit.testing import Replay, ReplayMismatch, replay
from vrrpkit.vrrp.protocol.backup import BackupState

REASON = require_root_and(KEEPALIVED) or ""

pytestmark = [pytest.mark.system, pytest.mark.skipif(bool(REASON), reason=REASON)]

VIP = "192.0.2.10"

ROUTER = """
import asyncio, sys
import vrrpkit
from vrrpkit import VRRPInstance
from vrrpkit.testing import Recorder

async def main():
    with Recorder(sys.argv[1], max_bytes=20_000, files=4) as recorder:
        async with VRRPInstance(
            "web", "eth0", vrid=51, vips=["192.0.2.10/32"], priority=150, interval=0.1,
            recorder=recorder,
        ):
            await asyncio.sleep(600)

vrrpkit.run(main())
"""


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two runs beside keepalived: one ends by SIGTERM, the other by SIGKILL."""
    path = tmp_path_factory.mktemp("recording") / "web.jsonl"
    with Lab() as lab:
        ours, theirs = lab.host("ours", "192.0.2.1/24"), lab.host("theirs", "192.0.2.2/24")
        config = keepalived_conf(vrid=51, vips=[f"{VIP}/32"], priority=200, interval=0.1)
        peer = Keepalived(theirs, config)
        for end in (signal.SIGTERM, signal.SIGKILL):
            process = ours.python("-c", ROUTER, str(path))
            _owns(ours)
            peer.start()
            _owns(theirs)
            # Long enough in BACKUP that most of the recording is repeated adverts.
            wait_until(lambda: _repeats(path) > 20, 10, "repeated adverts")
            peer.kill9()
            theirs.ip("address", "del", f"{VIP}/32", "dev", "eth0")
            _owns(ours)
            ours.ip("address", "del", f"{VIP}/32", "dev", "eth0")
            _owns(ours)
            ours.unplug()
            wait_until(lambda: not ours.has(VIP), 10, "the end of the address")
            ours.plug()
            _owns(ours)
            _wait_for_the_disk(path)
            process.send_signal(end)
            process.wait(10)
    return path


def _owns(host: Host) -> None:
    wait_until(lambda: host.has(VIP), 10, f"{VIP} on {host.name}")


def _wait_for_the_disk(path: Path) -> None:
    # Lines are gathered for a moment before they are written.
    size = path.stat().st_size
    wait_until(lambda: path.stat().st_size > size, 10, "the disk")


def _repeats(path: Path) -> int:
    return path.read_text().count('"again"')


def test_it_replays(recording: Path) -> None:
    result = replay(recording)
    assert isinstance(result, Replay)
    assert result.runs == 2 and result.steps > 60 and result.skipped == 0


def test_it_tells_what_happened(recording: Path) -> None:
    older = recording.with_name(f"{recording.name}.1")
    text = older.read_text() + recording.read_text()
    forms = [json.loads(line) for line in text.splitlines()]
    reasons = [
        effect["notice"]["reason"]
        for form in forms
        for effect in form.get("effects", ())
        if effect["type"] == "Publish" and effect["notice"]["type"] == "Transition"
    ]
    router_run = [
        "startup",
        "no-response",
        "higher-priority",
        "no-response",
        "fault",
        "fault-cleared",
        "no-response",
    ]
    assert reasons == [*router_run, "shutdown", *router_run]


def test_a_changed_machine_does_not_pass(recording: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(BackupState, "down_interval", lambda self, priority: 0.7)
    with pytest.raises(ReplayMismatch, match=r"web\.jsonl"):
        replay(recording)
