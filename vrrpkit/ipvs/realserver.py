"""A real server, as users describe it."""

from __future__ import annotations

from collections.abc import Iterable

import attrs

from vrrpkit.checks.base import Checker
from vrrpkit.configured import advised, from_keepalived
from vrrpkit.errors import ConfigError
from vrrpkit.ipvs.model.endpoints import destination_key
from vrrpkit.ipvs.model.entries import WEIGHT_LIMIT, Forward, Tunnel, TunnelType
from vrrpkit.validate import flag_field, text, whole_number

__all__ = [
    "CHECK_KEYWORDS",
    "TUNNEL_KEYWORDS",
    "RealServer",
    "checkers",
    "forward_of",
    "optional_tunnel",
    "usable_tunnel",
]

CONNECTIONS_LIMIT = 2**32 - 1

FORWARDS = (Forward.NAT, Forward.DR, Forward.TUN)


TUNNEL_KEYWORDS = {
    "tun_type": "forward='tun', tunnel=Tunnel(type=...)",
    "tun_port": "forward='tun', tunnel=Tunnel(type=TunnelType.GUE, port=...)",
}
CHECK_KEYWORDS = {
    "delay_loop": "the interval= of its checker, check=TCPChecker(interval=...)",
    "retry": "the retry= of its checker, check=TCPChecker(retry=...)",
    "delay_before_retry": "that of its checker, check=TCPChecker(delay_before_retry=...)",
    "warmup": "the warmup= of its checker, check=TCPChecker(warmup=...)",
    "TCP_CHECK": "check=TCPChecker()",
    "HTTP_GET": "check=HTTPChecker(...)",
    "SSL_GET": "check=HTTPSChecker(...)",
    "MISC_CHECK": "check=ScriptChecker(...)",
}
"""What keepalived writes into ``real_server`` and ``virtual_server`` alike, for a description's
``tunnel`` and ``check``."""


def checkers(value: Checker | Iterable[Checker]) -> tuple[Checker, ...]:
    """Accept one checker or several.

    :raises ConfigError: one is something else.
    """
    if isinstance(value, Checker):
        return (value,)
    _require(Iterable, value)
    found = tuple(value)
    for checker in found:
        _require(Checker, checker)
    return found


def _require(kind: type, value: object) -> None:
    if isinstance(value, str) or not isinstance(value, kind):
        raise ConfigError(
            f"check {value!r} is no Checker; write TCPChecker(), HTTPChecker('/healthz'), or "
            "FunctionChecker(function) around a coroutine function; () is none"
        )


def _optional_checkers(
    value: Checker | Iterable[Checker] | None,
) -> tuple[Checker, ...] | None:
    return None if value is None else checkers(value)


def forward_of(value: str | Forward) -> Forward:
    """Accept what a user may write for a way of forwarding.

    :raises ConfigError: it is something else.
    """
    for forward in FORWARDS:
        if value in (forward, forward.value):
            return forward
    known = ", ".join(repr(forward.value) for forward in FORWARDS)
    raise ConfigError(f"forward {value!r} must be one of {known}")


def _optional_forward(value: str | Forward | None) -> Forward | None:
    return None if value is None else forward_of(value)


def _tunnel(value: object) -> Tunnel:
    if isinstance(value, Tunnel):
        return value
    raise ConfigError(
        f"tunnel {value!r} is no Tunnel; write Tunnel(type=TunnelType.GRE), or for GUE "
        "Tunnel(type=TunnelType.GUE, port=5555)"
    )


def optional_tunnel(value: Tunnel | None) -> Tunnel | None:
    """Accept a tunnel, or none.

    :raises ConfigError: it is something else.
    """
    return None if value is None else _tunnel(value)


def usable_tunnel(tunnel: Tunnel, what: str) -> None:
    """Refuse a tunnel that the kernel would refuse, or that it would not make as it says.

    :raises ConfigError: ``what`` begins the message.
    """
    kind = tunnel.type.value
    if tunnel.type is TunnelType.GUE:
        whole_number(
            f"{what}: port of the GUE tunnel",
            tunnel.port,
            1,
            65535,
            "the real server listens there",
        )
    elif tunnel.port:
        raise ConfigError(f"{what}: only a GUE tunnel has a port; leave it out with {kind}")
    if tunnel.checksum and tunnel.type is TunnelType.IPIP:
        raise ConfigError(
            f"{what}: an IPIP tunnel has no checksum; leave it out, or use gue or gre"
        )
    if tunnel.remote_checksum and tunnel.type is not TunnelType.GUE:
        raise ConfigError(f"{what}: only a GUE tunnel offloads checksums; leave it out with {kind}")
    if tunnel.checksum and tunnel.remote_checksum:
        raise ConfigError(f"{what}: checksum and remote_checksum exclude each other; choose one")


@advised
@attrs.frozen
class RealServer:
    """A server that connections are sent to (keepalived: ``real_server``).

    What is ``None`` is as the virtual server says.

    :param endpoint: ``"10.0.0.1:8080"``, ``"[2001:db8::1]:80"``, or without a port: the port that
        the client asked for. With DR and TUN the port cannot be changed: leave it out.
    :param name: what events and statistics call it; by default the endpoint.
    :param weight: share of the connections, 0 to 2147483647; 0 gets no new ones.
    :param forward: ``"nat"``, ``"dr"`` or ``"tun"`` (``lvs_method``).
    :param tunnel: encapsulation with ``"tun"``.
    :param upper: connections at which it gets no new ones, 0 for no limit (``uthreshold``).
    :param lower: connections below which it gets new ones again, at most ``upper``; 0 is three
        quarters of it (``lthreshold``).
    :param inhibit_on_failure: keep it in the table with weight 0 when it is down, so that its
        connections are not cut.
    :param alpha: it is down until its checks have passed.
    :param check: what decides whether it is healthy; ``()`` is nothing: it is always up.
    :raises ConfigError: a value is unusable.
    """

    endpoint: str = attrs.field(
        metadata=from_keepalived(port="a part of the endpoint: '10.0.0.1:8080'")
    )
    name: str | None = attrs.field(default=None, kw_only=True)
    weight: int | None = attrs.field(default=None, kw_only=True)
    forward: Forward | None = attrs.field(
        default=None,
        kw_only=True,
        converter=_optional_forward,
        metadata=from_keepalived("lb_kind", "lvs_method"),
    )
    tunnel: Tunnel | None = attrs.field(
        default=None,
        kw_only=True,
        converter=optional_tunnel,
        metadata=from_keepalived(**TUNNEL_KEYWORDS),
    )
    upper: int = attrs.field(default=0, kw_only=True, metadata=from_keepalived("uthreshold"))
    lower: int = attrs.field(default=0, kw_only=True, metadata=from_keepalived("lthreshold"))
    inhibit_on_failure: bool | None = attrs.field(
        default=None, kw_only=True, validator=attrs.validators.optional(flag_field)
    )
    alpha: bool | None = attrs.field(
        default=None, kw_only=True, validator=attrs.validators.optional(flag_field)
    )
    check: tuple[Checker, ...] | None = attrs.field(
        default=None,
        kw_only=True,
        converter=_optional_checkers,
        metadata=from_keepalived("checks", **CHECK_KEYWORDS),
    )

    def __attrs_post_init__(self) -> None:
        text("endpoint", self.endpoint, "'10.0.0.1:8080'", empty=True)
        if self.name is not None:
            text("name", self.name, "'web1'; or leave it out", empty=True)
        address = destination_key(self.endpoint).address
        what = f"real server {self}"
        if address.version == 6 and address.is_link_local:
            raise ConfigError(
                f"{what}: IPVS cannot reach a link-local address; give the server a global or a "
                "unique local one (fd00::/8)"
            )
        if self.name is not None and not self.name:
            raise ConfigError(f"{what}: the name is empty; leave it out")
        if self.weight is not None:
            whole_number(f"{what}: weight", self.weight, 0, WEIGHT_LIMIT, "0 gets no connections")
        for name, value in (("upper", self.upper), ("lower", self.lower)):
            whole_number(f"{what}: {name}", value, 0, CONNECTIONS_LIMIT, "0 is the default")
        if self.lower > self.upper:
            raise ConfigError(
                f"{what}: lower {self.lower} is above upper {self.upper}; exchange them"
            )
        if self.tunnel is not None:
            usable_tunnel(self.tunnel, what)

    @classmethod
    def of(cls, value: str | RealServer, what: str = "real server") -> RealServer:
        """Accept whatever a user may write for a real server.

        :raises ConfigError: it is something else; ``what`` begins the message.
        """
        if isinstance(value, RealServer):
            return value
        text(what, value, "'10.0.0.1:8080', or a RealServer", empty=True)
        return cls(value)

    def __str__(self) -> str:
        return self.name or self.endpoint
