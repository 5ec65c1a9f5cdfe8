"""Scripts on every transition (keepalived: ``notify``, ``notify_master``, ...)."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from typing import TypeAlias

from vrrpkit.commands.command import Command, attempted, group_names
from vrrpkit.errors import ConfigError, CouldNotAsk, UntrustedCommand
from vrrpkit.lifecycle.real_world import needs_real_world
from vrrpkit.notify.model.keepalived import STATES, Notification, notification_of
from vrrpkit.notify.queues import CoalescingQueues
from vrrpkit.publishing import Attachment, Notifier
from vrrpkit.validate import one_line, whole_number

__all__ = ["NotifyScripts"]

log = logging.getLogger(__name__)

AT_ONCE = 64
"""Real servers of one virtual server whose scripts run at the same time: a pool of a thousand that
fails as one must not fork a thousand times."""

Script: TypeAlias = str | Sequence[str] | None


class NotifyScripts(Notifier):
    """Runs programs when something changes::

        NotifyScripts("/etc/vrrp/notify.sh", master="/etc/vrrp/master.sh 'eth0'")

    About one thing they run in order and never two at once: first the one for the new state, then
    the generic one. While one is slow, of the changes of state that wait only the newest is kept.
    About different things they run side by side: the scripts of one real server wait for no other
    server's while fewer than 64 run, and those of a router, a group or a quorum start at once,
    whatever else runs. Nothing waits for them: not a router, and not a check.

    Each is given as a sequence, or as text that is split the way a shell would, and runs without a
    shell, in a process group of its own. The generic ones are called with further arguments, as
    keepalived has them: ``INSTANCE NAME STATE PRIORITY``, ``GROUP NAME STATE 0``,
    ``VS [ADDRESS]:tcp:PORT STATE`` and ``RS [ADDRESS]:tcp:PORT [ADDRESS]:tcp:PORT STATE``. All find
    these in their environment too: ``VRRPKIT_KIND``, ``VRRPKIT_NAME``, ``VRRPKIT_STATE``,
    ``VRRPKIT_PRIORITY``, and what keepalived does not tell: ``VRRPKIT_PREVIOUS``,
    ``VRRPKIT_REASON``.

    :param script: the generic one, for every change of state (``notify``).
    :param master: entering MASTER (``notify_master``).
    :param backup: entering BACKUP (``notify_backup``).
    :param fault: entering FAULT (``notify_fault``).
    :param stop: ending (``notify_stop``).
    :param deleted: ending because it was deleted (``notify_deleted``); by default ``stop``.
    :param lower_priority: a MASTER heard a master of lower priority
        (``notify_master_rx_lower_pri``).
    :param priorities: call the generic script on changes of priority too
        (``notify_priority_changes``).
    :param up: a real server is up (``notify_up``).
    :param down: a real server is down (``notify_down``).
    :param quorum_up: a virtual server has its quorum (``quorum_up``).
    :param quorum_down: a virtual server lost it (``quorum_down``).
    :param user: run them as this user (``script_user``); needs root. By default the user of this
        program.
    :param groups: with ``user``, the groups instead of the user's own.
    :param timeout: seconds until one that runs is ended, with its process group.
    :param flush: seconds that an object which ends gives its scripts.
    :param limit: things that scripts of one object may wait or run about at the same time, which
        for a virtual server are its real servers and its quorum. Beyond, what is new about another
        one is dropped.
    :raises ConfigError: there is no script at all, no such program or user, or one would run as
        root and others may change it.
    """

    def __init__(
        self,
        script: Script = None,
        *,
        master: Script = None,
        backup: Script = None,
        fault: Script = None,
        stop: Script = None,
        deleted: Script = None,
        lower_priority: Script = None,
        priorities: bool = False,
        up: Script = None,
        down: Script = None,
        quorum_up: Script = None,
        quorum_down: Script = None,
        user: str | int | None = None,
        groups: Iterable[str | int] | None = None,
        timeout: float = 60.0,
        flush: float = 10.0,
        limit: int = 10_000,
    ) -> None:
        whole_number(
            "NotifyScripts: limit", limit, 1, 1_000_000, "things that scripts may wait about"
        )
        if not 0 <= flush <= 3600:
            raise ConfigError(f"NotifyScripts: flush {flush} must be 0 to 3600 seconds")
        members = group_names(groups)
        scripts = {
            "": script,
            "MASTER": master,
            "BACKUP": backup,
            "FAULT": fault,
            "STOP": stop,
            "DELETED": stop if deleted is None else deleted,
            "MASTER_RX_LOWER_PRI": lower_priority,
            "RS UP": up,
            "RS DOWN": down,
            "VS UP": quorum_up,
            "VS DOWN": quorum_down,
        }
        self._commands = {
            state: Command(argv, user=user, groups=members, timeout=timeout)
            for state, argv in scripts.items()
            if argv is not None
        }
        if not self._commands:
            raise ConfigError("NotifyScripts: there is no script; give at least one")
        self._priorities = priorities
        self._flush = flush
        self._limit = limit

    def attach(self, subject: object) -> Attachment:
        """Begin to tell of ``subject``.

        :raises vrrpkit.testing.RealWorldNeeded: the event loop is one of virtual time, in which no
            program can run.
        """
        needs_real_world("running a program")
        name = getattr(subject, "name", "")
        lanes: CoalescingQueues[Notification] = CoalescingQueues(
            f"scripts of {name}",
            self._run,
            subject=lambda word: (word.kind, word.name, word.of),
            kind=lambda word: word.slot,
            urgent=lambda word: word.kind != "RS",
            at_once=AT_ONCE,
            limit=self._limit,
        )
        return _ScriptsAttachment(lanes, subject, self._flush)

    async def _run(self, word: Notification) -> None:
        specific = word.state if word.kind in ("INSTANCE", "GROUP") else f"{word.kind} {word.state}"
        environment = {
            "VRRPKIT_KIND": word.kind,
            "VRRPKIT_NAME": word.name,
            "VRRPKIT_STATE": word.state,
            "VRRPKIT_PRIORITY": str(word.priority),
            "VRRPKIT_VIRTUAL_SERVER": word.of,
            "VRRPKIT_PREVIOUS": word.previous,
            # A server's answer or a script's output may be in it.
            "VRRPKIT_REASON": one_line(word.reason),
        }
        command = self._commands.get(specific)
        if command is not None:
            await _one(command, (), environment)
        generic = self._commands.get("")
        if generic is not None and self._worth(word):
            await _one(generic, word.arguments, environment)

    def _worth(self, word: Notification) -> bool:
        """Whether the generic script is called."""
        return word.state in STATES or (self._priorities and word.state.endswith("_PRIORITY"))


def _printable(text: str) -> str:
    """Text without control characters: one that a script writes into a file stays one line."""
    return "".join(character if character.isprintable() else "?" for character in text)


async def _one(command: Command, extra: tuple[str, ...], environment: dict[str, str]) -> None:
    environment = {name: _printable(value) for name, value in environment.items()}
    extra = tuple(map(_printable, extra))
    try:
        done = await attempted(command, *extra, environment=environment)
    except CouldNotAsk as problem:
        # Trouble of this machine, or a lost status: nothing is known of the script.
        log.warning("%s; that is no failure of the script", problem)
        return
    except (UntrustedCommand, OSError) as problem:
        log.warning("%s is not run: %s", command, problem)
        return
    if not done.ok:
        log.warning("%s %s: %s", command, " ".join(extra), done)


class _ScriptsAttachment:
    """The scripts of one object."""

    limit: float | None = None
    """It ends within ``flush``."""

    def __init__(
        self, lanes: CoalescingQueues[Notification], subject: object, flush: float
    ) -> None:
        self._lanes = lanes
        self._subject = subject
        self._flush = flush

    def tell(self, event: object) -> None:
        word = notification_of(event, self._subject)
        if word is not None:
            self._lanes.put(word)

    async def close(self) -> None:
        await self._lanes.close(self._flush)

    def cancel(self) -> None:
        self._lanes.cancel()
