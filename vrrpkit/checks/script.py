"""Checks by a program (keepalived: ``MISC_CHECK``)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

import attrs

from vrrpkit.checks.base import Checker, Weight
from vrrpkit.checks.target import Target
from vrrpkit.commands.command import Command, attempted, group_names, variables, words
from vrrpkit.errors import CheckFailed, ConfigError
from vrrpkit.validate import flag_field
from vrrpkit.values import hidden

__all__ = ["ScriptChecker"]

DYNAMIC = 2
"""The exit status that means weight 0; each one above adds 1."""

FIELDS = ("address", "port", "name")

# A variable of a shell, ${port}, is the shell's.
_FIELD = re.compile(r"\{(\{\w+\})\}|(?<!\$)\{(\w+)\}")


@attrs.frozen
class ScriptChecker(Checker):
    """Healthy if a program ends with exit status 0::

        ScriptChecker(["/usr/local/bin/check-app", "{address}", "{port}"], user="nobody", timeout=5)

    In the arguments ``{address}``, ``{port}`` and ``{name}`` stand for the server's, and
    ``{{name}}`` for the text ``{name}``; the program finds them in ``VRRPKIT_ADDRESS``,
    ``VRRPKIT_PORT`` and ``VRRPKIT_NAME`` too. It runs without a shell, in a process group of its
    own. When the attempt's ``timeout`` is up the check has failed, whatever the program says then:
    its group gets SIGTERM, and two seconds later SIGKILL. Where this machine has
    no file descriptor or process left, or the exit status is lost, the verdict stays.

    :param argv: the program and its arguments (``misc_path``), as a sequence or as text that is
        split the way a shell would.
    :param user: run it as this user (``user``), by name or number; needs root. By default the user
        of this program.
    :param groups: with ``user``, the groups instead of the user's own; the first is the primary.
    :param dynamic: exit status 2 to 255 is healthy too, with a weight of the status less 2
        (``misc_dynamic``). Without it, anything but 0 has failed.
    :param environment: variables to add.
    :raises ConfigError: there is no such program or user, a field is unknown, or it would run as
        root and others may change it.
    """

    argv: str | tuple[str, ...] = attrs.field(converter=words)
    user: str | int | None = attrs.field(default=None, kw_only=True)
    groups: Iterable[str | int] | None = attrs.field(
        default=None, kw_only=True, converter=group_names
    )
    dynamic: bool = attrs.field(default=False, kw_only=True, validator=flag_field)
    environment: Mapping[str, str] = attrs.field(
        factory=dict[str, str], kw_only=True, hash=False, converter=variables, repr=hidden
    )
    _command: Command = attrs.field(init=False, eq=False, repr=False)
    _arguments: tuple[str, ...] = attrs.field(init=False, eq=False, repr=False)

    def __attrs_post_init__(self) -> None:
        whole = Command(self.argv, user=self.user, groups=self.groups, environment=self.environment)
        for word in whole.argv[1:]:
            for _, name in _FIELD.findall(word):
                if name and name not in FIELDS:
                    known = ", ".join(f"{{{field}}}" for field in FIELDS)
                    raise ConfigError(
                        f"ScriptChecker: {word!r} has an unknown field {{{name}}}; there are "
                        f"{known}. Write {{{{{name}}}}} for that very text"
                    )
        # The words are filled in for each server, the program is the same.
        object.__setattr__(self, "_command", attrs.evolve(whole, argv=whole.argv[:1]))
        object.__setattr__(self, "_arguments", whole.argv[1:])

    def validate(self, target: Target) -> None:
        if not target.port and any(
            name == "port" for word in self._arguments for _, name in _FIELD.findall(word)
        ):
            raise ConfigError(
                f"ScriptChecker of {target}: there is no port for {{port}}; leave it out, or give "
                "the server a port"
            )

    async def check(self, target: Target) -> Weight | None:
        fields = {
            "address": str(target.address),
            "port": str(target.port or ""),
            "name": str(target),
        }

        def fill(found: re.Match[str]) -> str:
            return found[1] or fields[found[2]]

        done = await attempted(
            self._command,
            *(_FIELD.sub(fill, word) for word in self._arguments),
            environment={f"VRRPKIT_{name.upper()}": value for name, value in fields.items()},
        )
        if done.ok:
            return None
        if self.dynamic and done.status is not None and done.status >= DYNAMIC:
            return Weight(done.status - DYNAMIC)
        raise CheckFailed(str(done))

    def __str__(self) -> str:
        return f"script {self._command.argv[0].rpartition('/')[2]}"
