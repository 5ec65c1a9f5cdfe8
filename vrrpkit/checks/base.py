"""What a health check is: a checker describes it, and any number of servers may share one."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Self, TypeAlias

import attrs

from vrrpkit.checks.target import Endpoint, Target
from vrrpkit.errors import ConfigError
from vrrpkit.validate import flag_field, link_name, seconds_field, times_field, whole_number
from vrrpkit.values import IPAddress, parse_address

__all__ = ["Begin", "CallbackChecker", "Checker", "Done", "NetworkChecker", "Weight"]

WEIGHT_LIMIT = 2**31 - 1
"""The kernel keeps the weight of a real server in a signed 32-bit number."""


@attrs.frozen
class Weight:
    """A healthy server, and how much of the load it should get.

    :param value: 0 to 2147483647 instead of the weight that the server was given; 0 means healthy,
        but no new connections. What several checks of a server say is added up as differences to
        the configured weight, and the sum is at least 0.
    :param relative: ``value`` is such a difference itself, and may be negative.
    :raises ConfigError: the value is out of range.
    """

    value: int
    relative: bool = attrs.field(default=False, validator=flag_field)

    def __attrs_post_init__(self) -> None:
        low = -WEIGHT_LIMIT if self.relative else 0
        whole_number("weight", self.value, low, WEIGHT_LIMIT, "0 sends no new connections")


Done: TypeAlias = "Callable[[Weight | BaseException | None], None]"
"""How an attempt ends: ``None`` is healthy, an exception is not, and its text says why."""

Begin: TypeAlias = "Callable[[Done, asyncio.AbstractEventLoop | None], Callable[[], None]]"
"""Starts an attempt; returns what abandons it."""


@attrs.frozen(kw_only=True)
class Checker:
    """Decides whether a server is healthy. Subclass it and write :meth:`check`::

        @attrs.frozen(kw_only=True)
        class RedisChecker(Checker):
            async def check(self, target: Target) -> None:
                reader, writer = await target.connect()
                try:
                    writer.write(b"PING\\r\\n")
                    answer = await reader.readline()
                finally:
                    writer.close()
                if answer != b"+PONG\\r\\n":
                    raise CheckFailed(f"answered {answer!r}")

    A checker is an immutable description and keeps no state. It never sleeps, repeats, counts or
    times out: that is the scheduler's work. One *check* is up to 1 + ``retry`` *attempts*, each one
    call of :meth:`check`, and passes with the first of them that does.

    :param interval: seconds from the end of one check to the start of the next, 0.01 to 86400
        (keepalived: ``delay_loop``).
    :param timeout: seconds that one attempt may take, 0.001 to 86400 (``connect_timeout``).
    :param deadline: seconds that a whole check may take with all its attempts; ``None`` is no
        limit.
    :param retry: further attempts after one that failed while the server is up, 0 to 1000000
        (``retry``). A server that is down is asked once in each check.
    :param delay_before_retry: seconds between two attempts (``delay_before_retry``).
    :param rise: checks that must pass in a row before a server that is down is up, from 1.
    :param fall: checks that must fail in a row before a server that is up is down, from 1. The very
        first attempt is final at once: a server that was never seen healthy gets no second chance.
    :param warmup: the first check starts at a random moment within so many seconds, so that the
        checks of many servers spread (``warmup``); ``None`` is ``interval``, 0 is at once.
    :param jitter: random share of ``interval``, 0 to 1, that each pause is made longer or shorter.
    :raises ConfigError: a value is out of range.
    """

    interval: float = attrs.field(default=5.0, validator=seconds_field(0.01))
    timeout: float = attrs.field(default=3.0, validator=seconds_field(0.001))
    deadline: float | None = attrs.field(
        default=None, validator=attrs.validators.optional(seconds_field(0.001))
    )
    retry: int = attrs.field(default=1, validator=times_field(0))
    delay_before_retry: float = attrs.field(default=1.0, validator=seconds_field(0))
    rise: int = attrs.field(default=1, validator=times_field(1))
    fall: int = attrs.field(default=1, validator=times_field(1))
    warmup: float | None = attrs.field(
        default=None, validator=attrs.validators.optional(seconds_field(0))
    )
    jitter: float = attrs.field(default=0.0, validator=seconds_field(0, 1))

    def __new__(cls, *_arguments: object, **_options: object) -> Self:
        if cls.check is Checker.check:
            raise ConfigError(
                f"{cls.__name__} has no check() of its own, so checks nothing: use TCPChecker() "
                "or another one, FunctionChecker(function), or write a subclass with "
                "'async def check(self, target)'"
            )
        return super().__new__(cls)

    async def check(self, target: Target) -> Weight | None:
        """Make one attempt.

        Return: the server is healthy (or a :class:`Weight`: healthy, with that weight). Raise: it
        is not, and the text of the exception says why; any exception will do. But one that is
        trouble of this machine (:func:`vrrpkit.checks.own_trouble`: no file descriptor, no
        permission, a :class:`vrrpkit.errors.CouldNotAsk`) leaves the verdict as it is. It is
        cancelled when its time is up.
        """
        raise NotImplementedError(f"{type(self).__name__} has no check() of its own: write one")

    def validate(self, target: Target) -> None:
        """Refuse a target that this checker cannot check; called before the first check.

        :raises ConfigError: it says what the target lacks.
        """

    def attach(self, target: Target, soon: Callable[[], None]) -> Callable[[], None] | None:
        """A check of ``target`` begins: whatever may call ``soon`` to have it checked at once, and
        not only at the next interval, starts here. Return what ends it, or ``None``."""
        return None

    def endpoint(self, target: Target) -> Endpoint:
        """Where and how connections to ``target`` are made."""
        return Endpoint(target.address, target.port)

    def __str__(self) -> str:
        return type(self).__name__.removesuffix("Checker") or type(self).__name__


def _address(value: str | IPAddress | None) -> IPAddress | None:
    return _optional(value, "address")


def _source(value: str | IPAddress | None) -> IPAddress | None:
    return _optional(value, "source")


def _optional(value: str | IPAddress | None, what: str) -> IPAddress | None:
    if value is None:
        return None
    if "%" in str(value):
        raise ConfigError(
            f"{what} '{value}' carries a zone; leave out the part after '%', and name the link in "
            "interface="
        )
    return parse_address(value, what)


@attrs.frozen(kw_only=True)
class NetworkChecker(Checker):
    """A checker that sends something to the server, and may do so on a way of its own.

    :param address: connect to this address instead of the server's (keepalived: ``connect_ip``).
    :param port: connect to this port instead of the server's (``connect_port``).
    :param source: the local address to connect from (``bindto``).
    :param source_port: the local port to connect from (``bind_port``).
    :param interface: the network interface to go out by (``bind_if``); before Linux 5.7 this needs
        CAP_NET_RAW.
    :param fwmark: mark on the packets, 0 to 4294967295, for routing rules (``fwmark``); needs
        CAP_NET_ADMIN.
    """

    address: IPAddress | None = attrs.field(default=None, converter=_address)
    port: int | None = None
    source: IPAddress | None = attrs.field(default=None, converter=_source)
    source_port: int | None = None
    interface: str | None = None
    fwmark: int = 0

    def __attrs_post_init__(self) -> None:
        what = type(self).__name__
        for name, value in (("port", self.port), ("source_port", self.source_port)):
            if value is not None:
                whole_number(f"{what}: {name}", value, 1, 65535, "leave it out for the usual one")
        whole_number(f"{what}: fwmark", self.fwmark, 0, 2**32 - 1, "0 is no mark")
        link_name(f"{what}: interface", self.interface)

    needs_port = True
    """Whether a target without a port cannot be checked."""

    def endpoint(self, target: Target) -> Endpoint:
        return Endpoint(
            self.address or target.address,
            self.port if self.port is not None else target.port,
            source=self.source,
            source_port=self.source_port,
            interface=self.interface,
            fwmark=self.fwmark,
        )

    def validate(self, target: Target) -> None:
        endpoint = self.endpoint(target)
        if self.needs_port and not endpoint.port:
            raise ConfigError(
                f"{type(self).__name__} of {target}: there is no port to connect to; give the "
                "checker port=, or the server a port"
            )
        if endpoint.source is not None and endpoint.source.version != endpoint.address.version:
            raise ConfigError(
                f"{type(self).__name__} of {target}: source {endpoint.source} and destination "
                f"{endpoint.address} are of different address families"
            )


@attrs.frozen(kw_only=True)
class CallbackChecker(NetworkChecker):
    """A checker that works by callbacks, without a task for each attempt: for checks that run
    hundreds of times a second. Inside this package only."""

    def prepare(self, target: Target) -> Begin:
        """What makes attempts at a server: what is the same in each of them is done here.

        It is called with a ``report`` and the running event loop, if the caller has it (to ask for
        it is a system call before Python 3.12), and returns what abandons the attempt. ``report``
        is called once, later or before that returns, and never after the attempt was abandoned.
        Nothing is raised. A subclass has either this or :meth:`begin` of its own.
        """
        if type(self).begin is CallbackChecker.begin:
            raise NotImplementedError(f"{type(self).__name__} has neither prepare() nor begin()")
        return partial(self.begin, target)

    def begin(
        self, target: Target, report: Done, loop: asyncio.AbstractEventLoop | None = None
    ) -> Callable[[], None]:
        """Start one attempt; return what abandons it."""
        return self.prepare(target)(report, loop)

    async def check(self, target: Target) -> Weight | None:
        loop = asyncio.get_running_loop()
        done: asyncio.Future[Weight | None] = loop.create_future()

        def report(outcome: Weight | BaseException | None) -> None:
            if done.done():
                return
            if isinstance(outcome, BaseException):
                done.set_exception(outcome)
            else:
                done.set_result(outcome)

        abandon = self.begin(target, report, loop)
        try:
            return await done
        finally:
            if not done.done() or done.cancelled():
                abandon()
