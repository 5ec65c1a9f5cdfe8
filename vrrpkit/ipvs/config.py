"""The descriptions of a virtual server and of connection sync, and what their options may be."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import attrs

from vrrpkit.checks.base import Checker
from vrrpkit.checks.target import Target
from vrrpkit.configured import advised, from_keepalived
from vrrpkit.errors import ConfigError
from vrrpkit.ipvs.base import SyncDaemon, SyncRole, sync_group
from vrrpkit.ipvs.enlisted import ConfiguredServer, ConfiguredServers
from vrrpkit.ipvs.model.endpoints import destination_key, service_keys, takes_every_port
from vrrpkit.ipvs.model.entries import (
    ENGINES,
    SCHEDULERS,
    WEIGHT_LIMIT,
    Forward,
    Protocol,
    Service,
    ServiceKey,
    Tunnel,
)
from vrrpkit.ipvs.model.pool import Member
from vrrpkit.ipvs.realserver import (
    CHECK_KEYWORDS,
    TUNNEL_KEYWORDS,
    RealServer,
    checkers,
    forward_of,
    optional_tunnel,
    usable_tunnel,
)
from vrrpkit.validate import flag_field, is_number, listed, optional_path, text, whole_number
from vrrpkit.values import IPAddress

__all__ = ["ConnectionSyncConfig", "VirtualServerConfig"]

POLL: float | None = 10.0
LONGEST_POLL = 86400

SERVERS = "['10.0.0.1:8080'], with RealServer('10.0.0.1:8080', weight=2) where one needs more"

LONGEST_PERSISTENCE = 86400 * 31
"""Seconds; the limit of ipvsadm."""


def _servers(values: Iterable[str | RealServer]) -> tuple[RealServer, ...]:
    given = str(values) if isinstance(values, RealServer) else values
    return tuple(RealServer.of(value) for value in listed("servers", given, SERVERS))


def _sorry(value: str | RealServer | None) -> RealServer | None:
    return None if value is None else RealServer.of(value, "sorry server")


def _flags(values: Iterable[str]) -> frozenset[str]:
    found = listed("scheduler_flags", values, "['sh-port']")
    for flag in found:
        text("scheduler_flags: the flag", flag, "'sh-port'", empty=True)
    return frozenset(found)


def _services(values: str | Iterable[str]) -> tuple[str, ...]:
    if isinstance(values, str):
        return (values,)
    return listed("services", values, "['192.0.2.10:80/tcp']")


def _marks(values: int | Iterable[int]) -> tuple[int, ...]:
    if isinstance(values, int):
        return (values,)
    return listed("fwmark", values, "[7, 8]")


def _poll_interval(value: float | None) -> float | None:
    if value is not None and not (is_number(value) and 0.1 <= value <= LONGEST_POLL):
        raise ConfigError(
            f"poll_interval {value!r} must be 0.1 to {LONGEST_POLL} seconds, or None for never"
        )
    return value


def _path(value: str | Path | None) -> Path | None:
    return optional_path("state_file", value, "/run/web/services.json")


def _name(value: str | None) -> str | None:
    if value is not None:
        text("name", value, "'web'; or leave it out", empty=True)
        if not value:
            raise ConfigError("the name of the virtual server is empty; leave it out")
    return value


def _followed_name(value: str | None) -> str | None:
    if value is not None:
        text("follows", value, "'web', the name of a router or a sync group", empty=True)
    return value


@advised
@attrs.frozen
class VirtualServerConfig:
    """The description of a :class:`vrrpkit.VirtualServer`: everything about it that is a value.

    Two descriptions of the same options are equal, and :func:`attrs.evolve` checks the changed one
    as a whole.

    :param services: what clients connect to: ``"192.0.2.10:80/tcp"``, or listed, also ranges of
        addresses and ports, see :mod:`vrrpkit.ipvs.model.endpoints`. All share one pool, and each
        real server is checked once.
    :param servers: the real servers, as endpoints or :class:`vrrpkit.RealServer`
        (keepalived: ``real_server``); more may join later.
    :param name: what events, logs and the state file call it; by default the first service.
    :param fwmark: instead of ``services``, firewall marks (``virtual_server fwmark``).
    :param family: address family of ``fwmark``, 4 or 6 (``ip_family``).
    :param scheduler: one of rr wrr lc wlc lblc lblcr sh mh dh fo ovf sed nq twos (``lvs_sched``).
    :param scheduler_flags: ``sh-port``, ``sh-fallback``, ``mh-port``, ``mh-fallback``, or
        ``flag-1`` to ``flag-3``.
    :param forward: ``"nat"``, ``"dr"`` or ``"tun"`` (``lvs_method``).
    :param tunnel: encapsulation of ``"tun"``; by default IPIP.
    :param weight: the weight of real servers that have none of their own, 0 to 2147483647.
    :param persistence: seconds, 1 to 2678400, that a client stays with its server
        (``persistence_timeout``).
    :param granularity: prefix length by which clients share that (``persistence_granularity``).
    :param persistence_engine: ``"sip"``, UDP only.
    :param one_packet: schedule each packet of UDP by itself (``ops``).
    :param check: what decides whether a server is healthy; several must all agree. Without one a
        server is always up.
    :param quorum: the weight of healthy servers, from 1, that makes the pool usable (``quorum``).
    :param hysteresis: less than ``quorum``: the quorum is reached at ``quorum + hysteresis``, and
        lost at 0 or below ``quorum - hysteresis`` (``hysteresis``).
    :param sorry: a server that stands in while the quorum is lost; those that are healthy leave
        then (``sorry_server``).
    :param sorry_inhibit: the sorry server stays in the table with weight 0 while it is not needed,
        so that its connections are not cut (``sorry_server_inhibit``).
    :param inhibit_on_failure: a server that fails stays in the table with weight 0
        (``inhibit_on_failure``).
    :param alpha: a server is down until its checks pass (``alpha``).
    :param omega: on leaving, publish of every server and of the quorum that they went down
        (``omega``).
    :param follows: the name of a virtual router or a sync group; checks pause while it is not
        MASTER (``ha_suspend``). The table stays as it is, with the last verdicts.
    :param masquerade: let replies of NAT servers that have another way to the client pass this
        director: their packets get its own address, and ``net.ipv4.vs.conntrack`` is switched on.
    :param at_exit: ``"remove"`` the services on leaving, or ``"keep"`` them, so that the next run
        of this program finds them and cuts no connection.
    :param state_file: a file below ``/run`` that records which services are ours, so that the next
        run removes those that are not wanted any more. Needs ``name``. One program each.
    :param poll_interval: seconds, 0.1 to 86400, between two readings of the table, which put right
        what another program changed. ``None`` never reads.
    :raises ConfigError: a value, or a combination, is unusable; the message says what to do.
    """

    services: tuple[str, ...] = attrs.field(
        default=(),
        converter=_services,
        metadata=from_keepalived(protocol="a part of the service: '192.0.2.10:80/udp'"),
    )
    servers: tuple[RealServer, ...] = attrs.field(
        kw_only=True, converter=_servers, metadata=from_keepalived("real_server", "real_servers")
    )
    name: str | None = attrs.field(default=None, kw_only=True, converter=_name)
    fwmark: tuple[int, ...] = attrs.field(default=(), kw_only=True, converter=_marks)
    family: int = attrs.field(default=4, kw_only=True, metadata=from_keepalived("ip_family"))
    scheduler: str = attrs.field(
        default="wlc", kw_only=True, metadata=from_keepalived("lb_algo", "lvs_sched")
    )
    scheduler_flags: frozenset[str] = attrs.field(
        default=frozenset[str](), kw_only=True, converter=_flags
    )
    forward: Forward = attrs.field(
        default=Forward.NAT,
        kw_only=True,
        converter=forward_of,
        metadata=from_keepalived("lb_kind", "lvs_method"),
    )
    tunnel: Tunnel | None = attrs.field(
        default=None,
        kw_only=True,
        converter=optional_tunnel,
        metadata=from_keepalived(**TUNNEL_KEYWORDS),
    )
    weight: int = attrs.field(default=1, kw_only=True)
    persistence: int | None = attrs.field(
        default=None,
        kw_only=True,
        metadata=from_keepalived("persistence_timeout", unit="seconds"),
    )
    granularity: int | None = attrs.field(
        default=None,
        kw_only=True,
        metadata=from_keepalived("persistence_granularity", unit="a prefix length"),
    )
    persistence_engine: str = attrs.field(default="", kw_only=True)
    one_packet: bool = attrs.field(
        default=False, kw_only=True, validator=flag_field, metadata=from_keepalived("ops")
    )
    check: tuple[Checker, ...] = attrs.field(
        default=(),
        kw_only=True,
        converter=checkers,
        metadata=from_keepalived("checks", **CHECK_KEYWORDS),
    )
    quorum: int = attrs.field(default=1, kw_only=True)
    hysteresis: int = attrs.field(default=0, kw_only=True)
    sorry: RealServer | None = attrs.field(
        default=None, kw_only=True, converter=_sorry, metadata=from_keepalived("sorry_server")
    )
    sorry_inhibit: bool = attrs.field(
        default=False,
        kw_only=True,
        validator=flag_field,
        metadata=from_keepalived("sorry_server_inhibit"),
    )
    inhibit_on_failure: bool = attrs.field(default=False, kw_only=True, validator=flag_field)
    alpha: bool = attrs.field(default=False, kw_only=True, validator=flag_field)
    omega: bool = attrs.field(default=False, kw_only=True, validator=flag_field)
    follows: str | None = attrs.field(
        default=None,
        kw_only=True,
        converter=_followed_name,
        metadata=from_keepalived(ha_suspend="follows=, the router or the sync group"),
    )
    masquerade: bool = attrs.field(default=False, kw_only=True, validator=flag_field)
    at_exit: str = attrs.field(default="remove", kw_only=True)
    state_file: Path | None = attrs.field(default=None, kw_only=True, converter=_path)
    poll_interval: float | None = attrs.field(default=POLL, kw_only=True, converter=_poll_interval)

    label: str = attrs.field(init=False, default="")
    """The name, also where none was given."""
    entries: tuple[Service, ...] = attrs.field(init=False, default=())
    """The services, as the table is to hold them."""
    configured_server: tuple[ConfiguredServer, ...] = attrs.field(init=False, default=())
    """The real servers at the start."""
    stand_in: Member | None = attrs.field(init=False, default=None)
    """The sorry server."""
    _ports: frozenset[int] = attrs.field(init=False, default=frozenset[int]())
    _families: frozenset[int] = attrs.field(init=False, default=frozenset[int]())

    def __attrs_post_init__(self) -> None:
        keys = service_keys(self.services, fwmark=self.fwmark, family=self.family)
        self._set("label", str(keys[0]) if self.name is None else self.name)
        self._set("_ports", frozenset(key.port for key in keys))
        self._set("_families", frozenset(key.family for key in keys))
        self._check_scheduling(keys)
        self._check_pool()
        if self.sorry is not None:
            self._set("stand_in", self._stand_in(self.sorry))
        self._set(
            "entries",
            tuple(
                Service(
                    key=key,
                    scheduler=self.scheduler,
                    flags=self.scheduler_flags,
                    persistence=self.persistence,
                    granularity=self.granularity,
                    engine=self.persistence_engine,
                    one_packet=self.one_packet,
                )
                for key in keys
            ),
        )
        configured = self.configured()
        configured_server = tuple(self.enlist(server) for server in self.servers)
        for found in configured_server:
            configured.enter(found.member)
        self._set("configured_server", configured_server)
        members = [found.member for found in configured_server]
        if self.stand_in is not None:
            members.append(self.stand_in)
        forwards = {self.forward} | {member.forward for member in members}
        if self.tunnel is not None and Forward.TUN not in forwards:
            raise ConfigError(f"{self.label}: tunnel goes with forward='tun'; write that, too")
        if self.masquerade and Forward.NAT not in forwards:
            raise ConfigError(
                f"{self.label}: masquerade is for forward='nat'; with dr and tun replies do not "
                "pass the director, so leave it out"
            )

    def _set(self, name: str, value: object) -> None:
        object.__setattr__(self, name, value)

    @property
    def mixed(self) -> bool:
        """Whether a real server is of another address family than its service."""
        members = [found.member for found in self.configured_server]
        if self.stand_in is not None:
            members.append(self.stand_in)
        return any(frozenset((member.key.address.version,)) != self._families for member in members)

    def configured(self) -> ConfiguredServers:
        """The names and endpoints that are taken before there is any real server."""
        configured = ConfiguredServers(self._ports)
        if self.stand_in is not None:
            configured.enter(self.stand_in)
        return configured

    # --- the services ---------------------------------------------------------------------------

    def _check_scheduling(self, keys: tuple[ServiceKey, ...]) -> None:
        if self.scheduler not in SCHEDULERS:
            raise ConfigError(
                f"scheduler {self.scheduler!r} must be one of {', '.join(SCHEDULERS)}"
            )
        if self.persistence is not None:
            hint = "seconds that a client stays with its server; keepalived's default is 360"
            whole_number("persistence", self.persistence, 1, LONGEST_PERSISTENCE, hint)
        elif self.granularity is not None or self.persistence_engine:
            what = "granularity" if self.granularity is not None else "persistence_engine"
            raise ConfigError(f"{what} goes with persistence; write persistence=360, too")
        if self.granularity is not None:
            most = 128 if self._families == frozenset((6,)) else 32
            hint = "the length of the prefix that clients share; leave it out for one client"
            whole_number("granularity", self.granularity, 1, most, hint)
        if self.persistence_engine not in ("", *ENGINES):
            raise ConfigError(
                f"persistence_engine {self.persistence_engine!r} must be 'sip'; leave it out for "
                "persistence by the client's address"
            )
        for key in keys:
            self._check_key(key)

    def _check_key(self, key: ServiceKey) -> None:
        if takes_every_port(key) and self.persistence is None:
            raise ConfigError(
                f"service {key} is for every port, which takes persistence; write persistence=360, "
                "or name the ports"
            )
        if key.protocol in (None, Protocol.UDP):
            return
        if self.one_packet:
            raise ConfigError(
                f"service {key}: one_packet schedules each packet of UDP by itself, and would tear "
                "connections apart; leave it out, or write '/udp'"
            )
        if self.persistence_engine == "sip":
            raise ConfigError(
                f"service {key}: persistence_engine 'sip' reads UDP only; leave it out, or write "
                "'/udp'"
            )

    # --- the pool -------------------------------------------------------------------------------

    def _check_pool(self) -> None:
        hint = "the weight that must be up"
        whole_number("quorum", self.quorum, 1, WEIGHT_LIMIT, hint)
        hint = "less than quorum"
        whole_number("hysteresis", self.hysteresis, 0, self.quorum - 1, hint)
        whole_number("weight", self.weight, 0, WEIGHT_LIMIT, "0 gets no connections")
        if self.tunnel is not None:
            usable_tunnel(self.tunnel, self.label)
        if self.at_exit not in ("remove", "keep"):
            raise ConfigError(f"at_exit {self.at_exit!r} must be 'remove' or 'keep'")
        if self.sorry_inhibit and self.sorry is None:
            raise ConfigError("sorry_inhibit goes with sorry; name the sorry server, too")
        if self.state_file is not None and self.name is None:
            raise ConfigError(
                "state_file goes with name: that is what the next run finds its services by; "
                "write name='web'"
            )

    def enlist(self, server: RealServer) -> ConfiguredServer:
        """Fill in what the virtual server says, and check the whole.

        :raises ConfigError: the server does not fit the services, or a checker does not fit it.
        """
        checks = self.check if server.check is None else server.check
        alpha = self.alpha if server.alpha is None else server.alpha
        member = self._member(server, self.weight if server.weight is None else server.weight)
        if alpha and not checks:
            raise ConfigError(
                f"real server {server}: with alpha it is down until its checks pass, and it has "
                "none; give it check=, or alpha=False"
            )
        port = member.key.port or (min(self._ports) if len(self._ports) == 1 else 0)
        target = Target(member.key.address, port or None, member.name)
        for checker in checks:
            checker.validate(target)
        return ConfiguredServer(member, checks, target, alpha)

    def _stand_in(self, server: RealServer) -> Member:
        if server.check or server.alpha or server.inhibit_on_failure is not None:
            raise ConfigError(
                f"sorry server {server}: it is not checked, so check, alpha and inhibit_on_failure "
                "mean nothing there; leave them out (sorry_inhibit keeps it in the table)"
            )
        weight = 1 if server.weight is None else server.weight
        if not weight:
            raise ConfigError(f"sorry server {server}: with weight 0 it would stand in for nobody")
        return self._member(server, weight)

    def _member(self, server: RealServer, weight: int) -> Member:
        key = destination_key(server.endpoint)
        forward = self.forward if server.forward is None else server.forward
        if server.tunnel is not None and forward is not Forward.TUN:
            raise ConfigError(
                f"real server {server}: tunnel goes with forward='tun'; write that, too"
            )
        if forward is not Forward.NAT and key.port and self._ports != frozenset((key.port,)):
            raise ConfigError(
                f"real server {server}: {forward.value} cannot change the port of a packet, so "
                f"{key.port} must be the port of the service; leave it out"
            )
        if self._families != frozenset((key.address.version,)) and forward is not Forward.TUN:
            raise ConfigError(
                f"real server {server} and its services are of different address families, which "
                f"only forward='tun' can bridge, not {forward.value!r}; use servers of the "
                "services' family, or a virtual server for each family"
            )
        inhibit = server.inhibit_on_failure
        return Member(
            name=str(server),
            key=key,
            weight=weight,
            forward=forward,
            tunnel=(server.tunnel or self.tunnel) if forward is Forward.TUN else None,
            upper=server.upper,
            lower=server.lower,
            inhibit_on_failure=self.inhibit_on_failure if inhibit is None else inhibit,
        )


@advised
@attrs.frozen
class ConnectionSyncConfig:
    """The description of a :class:`vrrpkit.ConnectionSync`: everything about it that is a value
    (keepalived: ``lvs_sync_daemon``).

    Two descriptions of the same options are equal, and :func:`attrs.evolve` checks the changed one
    as a whole.

    :param interface: the network interface that the directors synchronise over.
    :param follows: the name of the virtual router, or of the sync group, whose MASTER sends.
        Without it this director does both, for directors that serve at the same time.
    :param id: 0 to 255, the same on both directors; by default the VRID of the router that it
        follows, or 0 (``id``).
    :param group: multicast group; by default 224.0.0.81 (``group``).
    :param port: UDP port, 1 to 65535; by default 8848 (``port``).
    :param ttl: TTL or hop limit of the messages, 1 to 255; by default 1 (``ttl``).
    :param maxlen: octets of one message, 1 to 65507; by default what fits the interface
        (``maxlen``).
    :raises ConfigError: a value is unusable; the message says what to do.
    """

    interface: str = attrs.field(metadata=from_keepalived("mcast_interface"))
    follows: str | None = attrs.field(
        default=None,
        kw_only=True,
        converter=_followed_name,
        metadata=from_keepalived(instance="follows=, the router or the sync group"),
    )
    id: int | None = attrs.field(
        default=None, kw_only=True, metadata=from_keepalived("syncid", "sync_id")
    )
    group: IPAddress | None = attrs.field(
        default=None,
        kw_only=True,
        converter=sync_group,
        metadata=from_keepalived("mcast_group"),
    )
    port: int | None = attrs.field(
        default=None, kw_only=True, metadata=from_keepalived("mcast_port")
    )
    ttl: int | None = attrs.field(default=None, kw_only=True, metadata=from_keepalived("mcast_ttl"))
    maxlen: int | None = attrs.field(
        default=None, kw_only=True, metadata=from_keepalived("sync_maxlen", unit="octets")
    )

    def __attrs_post_init__(self) -> None:
        self.daemon(SyncRole.MASTER, 0)

    def daemon(self, role: SyncRole, vrid: int) -> SyncDaemon:
        """The daemon of the kernel for one role.

        :param vrid: its id, where the description has none.
        """
        return SyncDaemon(
            role=role,
            interface=self.interface,
            id=vrid if self.id is None else self.id,
            maxlen=self.maxlen,
            group=self.group,
            port=self.port,
            ttl=self.ttl,
        )
