"""One tree of errors, with the built-ins that fit, and messages that say what to do."""

from __future__ import annotations

import errno

import pytest

from vrrpkit import errors

TREE = {
    errors.ConfigError: (errors.VRRPKitError, ValueError),
    errors.DecodeError: (errors.VRRPKitError, ValueError),
    errors.HostError: (errors.VRRPKitError,),
    errors.PermissionMissing: (errors.HostError, PermissionError),
    errors.InterfaceMissing: (errors.HostError, LookupError),
    errors.SourceMissing: (errors.HostError, LookupError),
    errors.DuplicateRouter: (errors.HostError, ValueError),
    errors.DuplicateService: (errors.HostError, ValueError),
    errors.KernelRefused: (errors.HostError, OSError),
    errors.UntrustedCommand: (errors.HostError,),
    errors.ModuleMissing: (errors.HostError,),
    errors.CheckFailed: (errors.VRRPKitError,),
    errors.CouldNotAsk: (errors.VRRPKitError,),
    errors.NotEligible: (errors.VRRPKitError,),
    errors.Closed: (errors.VRRPKitError,),
}


@pytest.mark.parametrize("kind", TREE, ids=lambda kind: kind.__name__)
def test_the_tree(kind: type[Exception]) -> None:
    assert kind.__bases__ == TREE[kind]
    assert kind.__name__ in (errors.__doc__ or "")


def test_every_error_is_public_and_drawn() -> None:
    assert set(errors.__all__) == {kind.__name__ for kind in TREE} | {"VRRPKitError"}


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("ttl", 254, 255), "ttl: got 254, want 255"),
        (("checksum", "dead"), "checksum: got dead"),
        (("destination",), "destination"),
        (("type", None, 1), "type, want 1"),
    ],
)
def test_decode_errors(arguments: tuple[object, ...], text: str) -> None:
    problem = errors.DecodeError(*arguments)  # type: ignore[arg-type]
    assert str(problem) == text
    padded = (*arguments, None, None)[:3]
    assert (problem.reason, problem.got, problem.want) == padded


def test_a_missing_capability() -> None:
    problem = errors.PermissionMissing("CAP_NET_RAW", "sending adverts")
    assert problem.capability == "CAP_NET_RAW"
    assert "sending adverts" in str(problem)
    assert "AmbientCapabilities=CAP_NET_RAW" in str(problem)


def test_a_missing_interface() -> None:
    problem = errors.InterfaceMissing("eth7")
    assert problem.interface == "eth7"
    assert "wait_for_interface=True" in str(problem)


def test_the_kernel_keeps_its_number() -> None:
    problem = errors.KernelRefused(errno.EPERM, "Operation not permitted")
    assert (problem.errno, problem.strerror) == (errno.EPERM, "Operation not permitted")
