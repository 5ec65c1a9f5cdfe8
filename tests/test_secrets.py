"""What may be a password, a key or a token stands in no repr, event, message or log (SECURITY.md).

One mechanism hides them all: :func:`vrrpkit.values.hidden`, or ``repr=False``.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import pytest

from checks.scripts import TARGET
from vrrpkit import (
    ConfigError,
    FunctionChecker,
    HMACAuth,
    HTTPChecker,
    MemoryTable,
    NotifyScripts,
    PasswordAuth,
    ScriptChecker,
    Target,
    TCPChecker,
    TrackFunction,
    TrackScript,
    UDPChecker,
    VirtualServer,
)
from vrrpkit.checks.events import CheckResult
from vrrpkit.commands.command import Command
from vrrpkit.notify.mail.notifier import Mail
from vrrpkit.values import HIDDEN, hidden

SECRET = "S3CR3T-0123"
HEADERS = {"Authorization": f"Bearer {SECRET}"}
ENVIRONMENT = {"PASSWORD": SECRET}


async def ask(_password: str, _target: Target) -> None:
    """A function that gets its password by functools.partial."""


async def look(_password: str) -> bool:
    return True


def result() -> CheckResult:
    """An event that carries a checker."""
    return CheckResult(
        target=TARGET,
        checker=HTTPChecker(headers=HEADERS),
        passed=True,
        healthy=True,
        changed=False,
        weight=None,
        text="",
        attempts=1,
        duration=0.0,
        at=0.0,
        count=1,
    )


@pytest.mark.parametrize(
    "make",
    [
        lambda: HTTPChecker(headers=HEADERS),
        lambda: HTTPChecker(headers=HEADERS)._questions,
        lambda: ScriptChecker("true", environment=ENVIRONMENT),
        lambda: TrackScript("true", environment=ENVIRONMENT),
        lambda: Command("true", environment=ENVIRONMENT),
        lambda: UDPChecker(payload=SECRET.encode()),
        lambda: TCPChecker(send=SECRET.encode(), expect=b"+OK"),
        lambda: FunctionChecker(functools.partial(ask, SECRET)),
        lambda: TrackFunction(functools.partial(look, SECRET)),
        lambda: PasswordAuth(SECRET[:8]),
        lambda: HMACAuth({1: SECRET.encode() * 4}, active=1),
        lambda: NotifyScripts("true"),
        lambda: Mail(
            "mail.example.net", sender="a@example.net", to="b@example.net", username="u",
            password=SECRET,
        ),
        lambda: VirtualServer(
            "192.0.2.10:80/tcp",
            servers=["10.0.0.1:80"],
            check=HTTPChecker(headers=HEADERS),
            table=MemoryTable(),
        ).servers,
        result,
    ],
)  # fmt: skip
def test_representations(make: Callable[[], object]) -> None:
    made = make()
    for text in (repr(made), str(made)):
        assert SECRET[:8] not in text
        assert SECRET.encode().hex()[:16] not in text


@pytest.mark.parametrize(
    "make",
    [
        lambda: HTTPChecker(headers={"Authorization": f"Bearer {SECRET}\n"}),
        lambda: HTTPChecker(headers=f"Authorization: {SECRET}"),  # type: ignore[arg-type]
        lambda: ScriptChecker("true", environment={"PASSWORD": f"{SECRET}\0"}),
        lambda: TrackScript("true", environment={"PASSWORD": SECRET.encode()}),  # type: ignore[dict-item]
        lambda: Command("true", environment=[SECRET]),  # type: ignore[arg-type]
        lambda: UDPChecker(payload=SECRET),
        lambda: TCPChecker(send=SECRET),  # type: ignore[arg-type]
        lambda: PasswordAuth(SECRET),
    ],
)
def test_messages(make: Callable[[], object]) -> None:
    with pytest.raises(ConfigError) as caught:
        make()
    assert SECRET[:8] not in str(caught.value)


def test_hidden() -> None:
    assert [hidden(value) for value in (None, "", b"")] == ["None", "''", "b''"]
    assert hidden("x") == hidden(b"x") == hidden(7) == HIDDEN
    assert hidden({"A": "x"}) == hidden((("A", "x"),)) == f"{{'A': {HIDDEN}}}"
    assert hidden({}) == hidden(()) == "{}"
