"""Every exception that vrrpkit raises on purpose.

::

    VRRPKitError
    ├── ConfigError (ValueError)              a value was refused; nothing has happened yet
    ├── DecodeError (ValueError)              these octets are no acceptable advertisement
    ├── HostError                             this host cannot do what was asked
    │   ├── PermissionMissing (PermissionError)   a Linux capability is missing
    │   ├── InterfaceMissing (LookupError)        there is no such network interface
    │   ├── SourceMissing (LookupError)           the interface has no address to send from
    │   ├── DuplicateRouter (ValueError)          this virtual router already runs here
    │   ├── DuplicateService (ValueError)         another virtual server here has this service
    │   ├── KernelRefused (OSError)               the kernel answered a request with an error
    │   ├── UntrustedCommand                      a command that others may change is not run
    │   └── ModuleMissing                         the kernel lacks a module, for example ip_vs_wrr
    ├── CheckFailed                           a health check: the server is not healthy, and why
    ├── CouldNotAsk                           a health check could not be made: own trouble
    ├── NotEligible                           a promotion that the election would undo at once
    └── Closed                                the object waited for has ended

Each message says what to do about it.
"""

from __future__ import annotations

__all__ = [
    "CheckFailed",
    "Closed",
    "ConfigError",
    "CouldNotAsk",
    "DecodeError",
    "DuplicateRouter",
    "DuplicateService",
    "HostError",
    "InterfaceMissing",
    "KernelRefused",
    "ModuleMissing",
    "NotEligible",
    "PermissionMissing",
    "SourceMissing",
    "UntrustedCommand",
    "VRRPKitError",
]


class VRRPKitError(Exception):
    """The root of the tree: catch this to catch everything that vrrpkit raises."""


class ConfigError(VRRPKitError, ValueError):
    """A value was refused on construction, before anything was changed."""


class DecodeError(VRRPKitError, ValueError):
    """Octets from the wire that are no acceptable advertisement.

    ``reason`` is a :class:`vrrpkit.vrrp.RejectReason`, ``got`` and ``want`` say what differed.
    """

    def __init__(self, reason: str, got: object = None, want: object = None) -> None:
        detail = "" if got is None else f": got {got}"
        detail += "" if want is None else f", want {want}"
        super().__init__(f"{reason}{detail}")
        self.reason = reason
        self.got = got
        self.want = want


class HostError(VRRPKitError):
    """This host, as it is now, cannot do what was asked."""


class PermissionMissing(HostError, PermissionError):
    """A Linux capability is missing; ``capability`` names it, for example ``CAP_NET_RAW``."""

    def __init__(self, capability: str, purpose: str) -> None:
        super().__init__(
            f"{capability} is missing: {purpose} needs it. Run as root, or grant it with "
            f"'AmbientCapabilities={capability}' in the systemd unit, or with 'setcap' on the "
            "interpreter."
        )
        self.capability = capability


class InterfaceMissing(HostError, LookupError):
    """There is no such network interface; ``interface`` is the name that was asked for."""

    def __init__(self, interface: str) -> None:
        super().__init__(
            f"there is no network interface {interface!r}. Check the name with 'ip link', or pass "
            "wait_for_interface=True to start in FAULT until it appears."
        )
        self.interface = interface


class SourceMissing(HostError, LookupError):
    """The interface has no address that adverts could be sent from."""


class DuplicateRouter(HostError, ValueError):
    """A virtual router with the same interface, family, VRID and group or peers runs already."""


class DuplicateService(HostError, ValueError):
    """Another virtual server of this program has the same service."""


class KernelRefused(HostError, OSError):
    """The kernel answered a request with an error; ``errno`` and ``strerror`` are its own."""


class UntrustedCommand(HostError):
    """A command is not run: since it was configured, somebody other than root may change it, or it
    has gone."""


class ModuleMissing(HostError):
    """The kernel lacks a module; ``module`` names it, for example ``ip_vs_wrr``."""

    def __init__(self, module: str, purpose: str) -> None:
        super().__init__(
            f"this kernel has no {module}, which {purpose} needs. Load it with 'modprobe {module}' "
            "as root, or build a kernel that has it."
        )
        self.module = module


class CheckFailed(VRRPKitError):
    """A health check found its server not healthy; the text says why, for people."""


class CouldNotAsk(VRRPKitError):
    """A health check or a tracker could not do its work, for a reason that is ours and says nothing
    about the server: its verdict stays. ``errno`` is the system's number, if there is one."""

    def __init__(self, why: str, errno: int | None = None) -> None:
        super().__init__(why)
        self.errno = errno


class NotEligible(VRRPKitError):
    """A promotion that the election would undo at once, or that a FAULT forbids."""


class Closed(VRRPKitError):
    """What was waited for cannot come any more: the instance has ended."""
