"""Whose an abstract socket is, and whether it could hold addresses."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from namespaces import Net
from vrrpkit.host.liveness import Liveness
from vrrpkit.linux import socket_owners
from vrrpkit.linux.netns import Namespace
from vrrpkit.linux.socket_owners import OVERFLOW, abstract_names, may_hold

STATUS = "Name:\tx\nUid:\t{uid}\t{uid}\t{uid}\t{uid}\nCapPrm:\t{caps:016x}\nCapEff:\t0\n"
NET_ADMIN = 1 << 12


@pytest.fixture
def net() -> Iterator[Net]:
    with Net() as made:
        yield made


def proc(monkeypatch: pytest.MonkeyPatch, files: dict[str, str]) -> None:
    def read(path: str) -> str:
        if path not in files:
            raise FileNotFoundError(path)
        return files[path]

    monkeypatch.setattr(socket_owners, "read_proc", read)
    monkeypatch.setattr(os, "geteuid", lambda: 1000)


WHOLE = {"/proc/self/uid_map": "         0          0 4294967295\n"}


@pytest.mark.parametrize("user", [0, 1000])
def test_root_and_who_runs_this_may(monkeypatch: pytest.MonkeyPatch, user: int) -> None:
    proc(monkeypatch, WHOLE)
    assert may_hold(user, 1)


@pytest.mark.parametrize(
    ("status", "may"),
    [
        (STATUS.format(uid=2000, caps=NET_ADMIN), True),
        (STATUS.format(uid=2000, caps=~NET_ADMIN & 0xFFFF), False),
        (STATUS.format(uid=0, caps=NET_ADMIN), False),
        ("", False),
        (None, False),
    ],
    ids=["capable", "incapable", "of another", "strange", "gone"],
)
def test_others_may_if_their_process_has_the_capability(
    monkeypatch: pytest.MonkeyPatch, status: str | None, may: bool
) -> None:
    proc(monkeypatch, WHOLE | ({} if status is None else {"/proc/7/status": status}))
    assert may_hold(2000, 7) is may


@pytest.mark.parametrize(
    ("files", "may"),
    [(WHOLE, False), ({"/proc/self/uid_map": "0 100000 65536\n"}, True), ({}, True)],
    ids=["all users", "some users", "unknown"],
)
def test_who_has_no_number_here_may_be_anybody(
    monkeypatch: pytest.MonkeyPatch, files: dict[str, str], may: bool
) -> None:
    proc(monkeypatch, files)
    assert may_hold(OVERFLOW, 7) is may


SQUAT = (
    "import os, socket; os.setgid(65534); os.setuid(65534); "
    "s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM); "
    "s.bind('\\0vrrpkit/1/0'); print(flush=True); input()"
)


@pytest.mark.system
@pytest.mark.parametrize("told", [True, False], ids=["sock_diag", "/proc"])
def test_a_squatter_is_nobody(net: Net, told: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not told:
        monkeypatch.setattr(socket_owners, "NETLINK_SOCK_DIAG", 31)
    other = net.python(SQUAT, "ip", "netns", "exec", net.name)
    assert other.stdout is not None
    other.stdout.readline()
    namespace = Namespace(net.name)
    one, two = Liveness(namespace), Liveness(namespace)
    names = dict(abstract_names(namespace))
    assert names["vrrpkit/1/0"] == (65534 if told else None)
    assert names[one.name] == (0 if told else None)
    assert one.others() == ({two.name} if told else {two.name, "vrrpkit/1/0"})
    two.close()
    # Where the kernel does not tell whose it is, it counts.
    assert one.alone() is told
    one.close()
    other.communicate("\n")
    namespace.close()
