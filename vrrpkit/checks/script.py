"""Checks by a program (keepalived: ``MISC_CHECK``)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

import attrs

from vrrpkit.checks.base import Checker, Weight
from vrrpkit.checks.target import Target
from vrrpkit.errors import CheckFailed, ConfigError
from vrrpkit.process import Command

__all__ = ["ScriptChecker"]

DYNAMIC = 2
"""The exit status that means weight 0; each one above adds 1."""

_FIELD = re.compile(r"\{(\w*)\}")
_FIELDS = ("address", "port", "name")


def _names(value: Iterable[str | int] | None) -> tuple[str | int, ...] | None:
    return None if value is None else tuple(value)


def _words(value: str | Sequence[str]) -> str | tuple[str, ...]:
    return value if isinstance(value, str) else tuple(value)


@attrs.frozen
class ScriptChecker(Checker):
    """Healthy if a program ends with exit status 0::

        ScriptChecker(["/usr/local/bin/check-app", "{address}", "{port}"], user="nobody", timeout=5)

    In the arguments ``{address}``, ``{port}`` and ``{name}`` stand for the server's; the program
    finds them in ``VRRPKIT_ADDRESS``, ``VRRPKIT_PORT`` and ``VRRPKIT_NAME`` too. It runs without a
    shell, in a process group of its own. When the attempt's ``timeout`` is up, the group gets
    SIGTERM and two seconds later SIGKILL, and the check has failed, whatever it says then.

    :param argv: the program and its arguments (``misc_path``), as a sequence or as text that is
        split the way a shell would.
    :param user: run it as this user (``user``); needs root. By default the user of this program.
    :param groups: with ``user``, the groups instead of the user's own.
    :param dynamic: exit status 2 to 255 is healthy too, with a weight of the status less 2
        (``misc_dynamic``). Without it, anything but 0 has failed.
    :param environment: variables to add.
    :raises ConfigError: there is no such program or user, a field is unknown, or it would run as
        root and others may change it.
    """

    argv: str | tuple[str, ...] = attrs.field(converter=_words)
    user: str | int | None = attrs.field(default=None, kw_only=True)
    groups: tuple[str | int, ...] | None = attrs.field(default=None, kw_only=True, converter=_names)
    dynamic: bool = attrs.field(default=False, kw_only=True)
    environment: Mapping[str, str] = attrs.field(factory=dict[str, str], kw_only=True, hash=False)
    _command: Command = attrs.field(init=False, eq=False, repr=False)

    def __attrs_post_init__(self) -> None:
        command = Command(
            self.argv, user=self.user, groups=self.groups, environment=self.environment
        )
        for word in command.argv[1:]:
            unknown = set(_FIELD.findall(word)) - set(_FIELDS)
            if unknown:
                raise ConfigError(
                    f"ScriptChecker: {word!r} has an unknown field; there are "
                    + ", ".join(f"{{{name}}}" for name in _FIELDS)
                )
        object.__setattr__(self, "_command", command)

    async def check(self, target: Target) -> Weight | None:
        fields = {
            "address": str(target.address),
            "port": "" if target.port is None else str(target.port),
            "name": str(target),
        }
        program, *words = self._command.argv
        filled = [_FIELD.sub(lambda found: fields[found[1]], word) for word in words]
        command = attrs.evolve(self._command, argv=(program, *filled))
        variables = {f"VRRPKIT_{name.upper()}": value for name, value in fields.items()}
        done = await command.run(environment=variables)
        if done.status == 0:
            return None
        if self.dynamic and done.status is not None and done.status >= DYNAMIC:
            return Weight(done.status - DYNAMIC)
        raise CheckFailed(str(done))

    def __str__(self) -> str:
        return f"script {self._command.argv[0].rpartition('/')[2]}"
