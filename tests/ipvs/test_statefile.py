"""The state file: atomic, shared by names, harmless when damaged."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from vrrpkit.errors import HostError
from vrrpkit.ipvs.model.adoption import LIFETIME, PoolMemory, Remembered
from vrrpkit.ipvs.model.endpoints import service_keys
from vrrpkit.ipvs.statefile import LARGEST, StateFile, StateRecord

WEB = service_keys(["192.0.2.10:80/tcp", "[2001:db8::1]:53/udp", "fwmark 7 (IPv6)"])
DNS = service_keys("192.0.2.10:53/udp")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "deep" / "ipvs.json"


def test_each_name_has_its_services(path: Path) -> None:
    file = StateFile(path)
    assert file.read("web") == frozenset()
    file.write("web", WEB)
    file.write("dns", DNS)
    assert (file.read("web"), file.read("dns")) == (frozenset(WEB), frozenset(DNS))
    file.write("web", WEB[:1])
    assert (StateFile(path).read("web"), file.read("dns")) == (frozenset(WEB[:1]), frozenset(DNS))
    file.write("web", ())
    assert json.loads(path.read_text()) == {
        "version": 1,
        "services": {"dns": ["192.0.2.10:53/udp"]},
    }


def test_nothing_but_the_file_is_left(path: Path) -> None:
    StateFile(path).write("web", WEB)
    assert os.listdir(path.parent) == ["ipvs.json"]


def test_a_write_that_fails_leaves_the_old_content(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = StateFile(path)
    file.write("web", WEB)

    def full(*args: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.replace", full)
    with pytest.raises(HostError, match="cannot be written: No space left on device"):
        file.write("web", ())
    assert file.read("web") == frozenset(WEB)
    assert os.listdir(path.parent) == ["ipvs.json"]


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"\xff\xfe",
        b"[]",
        b'{"version": 2, "services": {}}',
        b'{"version": 1}',
        b'{"version": 1, "services": []}',
        b'{"version": 1, "services": {"web": "192.0.2.10:80"}}',
        b'{"version": 1, "services": {"web": ["192.0.2.10:http"]}}',
        b'{"version": 1, "services": {"dns": [7]}}',
    ],
)
def test_a_damaged_file_is_empty_and_said_so(
    path: Path, content: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    path.parent.mkdir()
    path.write_bytes(content)
    assert StateFile(path).read("web") == frozenset()
    assert "is damaged and counts as empty" in caplog.text
    StateFile(path).write("web", WEB)
    assert StateFile(path).read("web") == frozenset(WEB)


def memory(at: float, name: str = "a") -> PoolMemory:
    known = Remembered(endpoint="10.0.0.1:80", described=1, configured=2, disabled=True)
    return PoolMemory(at=at, quorate=True, servers={name: known})


def test_what_is_known_of_servers_has_a_place_of_its_own(path: Path) -> None:
    file = StateFile(path)
    file.write("web", WEB)
    file.remember("web", memory(1000.0))
    file.remember("dns", memory(1000.0, "b"))
    file.write("dns", DNS)
    assert (file.recall("web"), file.recall("dns")) == (memory(1000.0), memory(1000.0, "b"))
    assert (file.read("web"), file.read("dns")) == (frozenset(WEB), frozenset(DNS))
    file.write("web", ())
    assert file.recall("web") == memory(1000.0)
    # What is too old of others goes.
    file.remember("dns", memory(1000.0 + LIFETIME + 1))
    assert (file.recall("web"), file.read("dns")) == (None, frozenset(DNS))
    assert path.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("pools", [7, {"web": 7}, {"web": {"at": 1}}])
def test_what_is_damaged_of_the_servers_leaves_the_services(
    path: Path, pools: object, caplog: pytest.LogCaptureFixture
) -> None:
    path.parent.mkdir()
    services = {"web": [str(key) for key in WEB]}
    path.write_text(json.dumps({"version": 1, "services": services, "pools": pools}))
    assert StateFile(path).recall("web") is None
    assert StateFile(path).read("web") == frozenset(WEB)


@pytest.mark.parametrize(
    "text",
    [
        "[" * 100_000,
        '{"version": 1, "services": {}, "pools": ' + '{"x":' * 50_000 + "1" + "}" * 50_000 + "}",
        '{"version": 1, "services": {"web": [' + "[" * 900 + "]" * 900 + "]}}",
    ],
)
def test_nesting_has_an_end(path: Path, text: str) -> None:
    path.parent.mkdir()
    path.write_text(text)
    file = StateFile(path)
    assert (file.read("web"), file.recall("web")) == (frozenset(), None)
    file.write("web", WEB)
    assert file.read("web") == frozenset(WEB)


class TestTrust:
    """Whoever can write the file decides what is removed from the table."""

    def test_a_link_is_refused_and_what_it_points_to_stays(self, tmp_path: Path) -> None:
        target, link = tmp_path / "target", tmp_path / "state"
        target.write_text("precious")
        link.symlink_to(target)
        for work in (
            lambda: StateFile(link).read("web"),
            lambda: StateFile(link).write("web", WEB),
        ):
            with pytest.raises(HostError, match="it is a link"):
                work()
        assert target.read_text() == "precious"

    def test_a_fifo_is_refused_without_a_wait(self, tmp_path: Path) -> None:
        os.mkfifo(tmp_path / "state")
        with pytest.raises(HostError, match="no regular file"):
            StateFile(tmp_path / "state").read("web")

    def test_one_that_everybody_can_write_is_refused(self, path: Path) -> None:
        StateFile(path).write("web", WEB)
        path.chmod(0o666)
        with pytest.raises(HostError, match="everybody can write it; remove it, or name one in a"):
            StateFile(path).read("web")

    def test_one_of_somebody_else_is_refused(
        self, path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        StateFile(path).write("web", WEB)
        owner = path.stat().st_uid
        fstat = os.fstat

        def foreign(number: int) -> os.stat_result:
            found = list(fstat(number))
            found[4] = 4711
            return os.stat_result(found)

        with monkeypatch.context() as patch:
            patch.setattr("os.fstat", foreign)
            with pytest.raises(HostError, match="belongs to the user 4711"):
                StateFile(path).read("web")
            patch.setattr("os.geteuid", lambda: 4711)
            assert StateFile(path).read("web") == frozenset(WEB)
        # Root's is as good as ours.
        if owner == 0:
            monkeypatch.setattr("os.geteuid", lambda: 4711)
            assert StateFile(path).read("web") == frozenset(WEB)

    def test_one_that_is_far_too_long_is_refused(self, path: Path) -> None:
        path.parent.mkdir()
        with path.open("wb") as file:
            file.truncate(LARGEST + 1)
        with pytest.raises(HostError, match="more than"):
            StateFile(path).read("web")


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(HostError, match="cannot be read: Is a directory"):
        StateFile(tmp_path).read("web")
    (tmp_path / "file").write_text("{}")
    with pytest.raises(HostError, match="cannot be read: Not a directory"):
        StateFile(tmp_path / "file" / "x").write("web", WEB)


class TestRecord:
    def test_what_an_earlier_run_left_stays_on_record_until_it_is_gone(self, path: Path) -> None:
        StateRecord(path, "web").keep(WEB)
        record = StateRecord(path, "web")
        assert record.inherit(frozenset(WEB[:1])) == set(WEB[1:])
        assert StateFile(path).read("web") == frozenset(WEB)
        record.keep(WEB[:1])
        assert StateRecord(path, "web").inherit(frozenset(WEB[:1])) == set()

    def test_one_of_a_program_is_on_record_under_a_name(
        self, path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        first, again, other = (
            StateRecord(path, "web"),
            StateRecord(path, "web"),
            StateRecord(path, "other"),
        )
        first.open()
        other.open()
        with pytest.raises(HostError, match=r"on record in .* as 'web': give one of them another"):
            again.open()
        again.close()
        path.parent.mkdir()
        monkeypatch.chdir(path.parent)
        with pytest.raises(HostError, match="another name"):
            StateRecord(Path(path.name), "web").open()
        first.close()
        first.close()
        again.open()
        again.close()
        other.close()

    def test_without_a_file_nothing_is_known(self) -> None:
        record = StateRecord(None, "web")
        record.open()
        StateRecord(None, "web").open()
        assert record.inherit(frozenset(WEB)) == set()
        record.keep(WEB)

    def test_what_cannot_be_kept_is_logged(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        StateRecord(tmp_path, "web").keep(WEB)
        assert "web: state file" in caplog.text
        with pytest.raises(HostError):
            StateRecord(tmp_path, "web").inherit(frozenset(WEB))
