"""Rules of our own in the host's packet filter, by the program ``nft``.

All rules of one process in one network namespace are in one table, ``vrrpkit-firewall-PID-...``,
which is always replaced as a whole, in one transaction: no packet meets half of it. A process shows
that it lives by an abstract socket (see :mod:`vrrpkit.host.liveness`), so that the table of one
that was killed is found and removed by the next. Deleted by somebody else, as by
``nft flush ruleset``, it is put back.

What a process keeps for the next one goes to a table of its own, ``vrrpkit-kept-NAME-...``, which
stays whoever lives, until it is discarded by its name.

Rules may rely on kernel settings. What those were before is noted in the comment of the table, for
whoever is the last to need them.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TypeAlias
from weakref import WeakMethod

import attrs

from vrrpkit.commands.command import Command
from vrrpkit.errors import HostError
from vrrpkit.host.firewall.nft import ask, carry_out, program
from vrrpkit.host.liveness import Liveness
from vrrpkit.lifecycle.leaving import shielded
from vrrpkit.lifecycle.worker import Worker
from vrrpkit.linux import capabilities
from vrrpkit.linux.netns import Namespace, identity
from vrrpkit.linux.nfnetlink import TableWatch
from vrrpkit.linux.sysctl import Sysctls
from vrrpkit.runtime import Runtime

__all__ = ["Chain", "Firewall", "Rules"]

log = logging.getLogger(__name__)

KIND = "vrrpkit-firewall"
KEPT = "vrrpkit-kept"
PAUSE = 1.0
"""Seconds between two attempts to put back a table that is deleted again and again."""

LONGEST_PAUSE = 60.0
"""The same in seconds while ``nft`` fails: each failure doubles the pause up to this."""

SWEEP_AGAIN = 5.0
"""Seconds until leftovers are looked for again after a failure; each failure doubles them."""

SWEEPS = 8
"""Attempts in all, over some ten minutes."""

NEEDED = {"CAP_NET_ADMIN": "changing the rules of nftables"}

_TABLE = re.compile(
    rf"^table inet ({KIND}-(\d+)-([0-9a-f]+)|{KEPT}-[\w.-]+)$", re.MULTILINE | re.ASCII
)
_NOTED = re.compile(r"(\S+)=(-?\d+)")
_COMMENT = re.compile(r'^\s*comment "([^"]*)"', re.MULTILINE)


@attrs.frozen(kw_only=True)
class Chain:
    """A base chain: what its rules are for, and where packets meet them (nft(8), *Chains*)."""

    name: str
    type: str
    hook: str
    priority: str

    def render(self, rules: Sequence[str]) -> str:
        """The chain with these rules, in the language of nft."""
        lines = "\n".join(f"    {rule}" for rule in rules)
        head = f"type {self.type} hook {self.hook} priority {self.priority}; policy accept;"
        return f"  chain {self.name} {{\n    {head}\n{lines}\n  }}\n"


Rules: TypeAlias = Mapping[Chain, Sequence[str]]
"""What one holder wants in each chain, in the language of nft."""


@attrs.frozen
class _Wish:
    rules: Rules
    borrowed: tuple[str, ...]


@attrs.frozen(eq=False)
class _Opened:
    namespace: Namespace
    liveness: Liveness
    sysctls: Sysctls
    nft: Command
    noted: dict[str, int]
    resources: contextlib.ExitStack

    @property
    def table(self) -> str:
        return _table(self.liveness)


def _table(liveness: Liveness) -> str:
    return liveness.name.replace("/", "-")


def _kept(name: str) -> str:
    # Readable for operators, and different for different names.
    readable = re.sub(r"[^\w.-]+", "-", name, flags=re.ASCII)[:40]
    return f"{KEPT}-{readable}-{hashlib.sha256(name.encode()).hexdigest()[:12]}"


class Firewall:
    """The rules of this process in one network namespace.

    :param netns: a name in ``/run/netns``; ``None`` is the namespace of the calling thread.
    """

    def __init__(self, netns: str | None = None) -> None:
        self._netns = netns
        self._wishes: dict[object, _Wish] = {}
        self._stale: set[str] = set()
        self._swept = False
        self._sweeps = 0
        self._sweeper = Worker(f"vrrpkit: {KIND} sweeps", self.sweep, lambda: False)
        self._gone = False
        """Whether somebody may have deleted the table."""
        self._repair = self._repairer()
        self._opened: _Opened | None = None
        self._lock = asyncio.Lock()

    @classmethod
    def current(cls, netns: str | None = None) -> Firewall:
        """The firewall of the running loop and of a network namespace: the same object for
        everybody.

        :raises HostError: there is no such namespace.
        """
        return Runtime.current().use(cls, identity(netns), lambda: cls(netns))

    async def shutdown(self) -> None:
        """See :meth:`vrrpkit.runtime.Shared.shutdown`."""
        for holder in list(self._wishes):
            await self.release(holder)

    @property
    def table(self) -> str | None:
        """The name of the table, of the family ``inet``, while anybody holds rules."""
        return None if self._opened is None else self._opened.table

    async def hold(
        self, holder: object, rules: Rules, settings: Mapping[str, int] | None = None
    ) -> None:
        """Set the rules of one holder, in place of those that it has, until :meth:`release`.

        :param settings: what the rules rely on below ``/proc/sys/net``, by the names that
            :class:`~vrrpkit.linux.sysctl.Sysctls` uses. The first call of a holder decides. One
            that this kernel does not have is passed over.
        :raises PermissionMissing: CAP_NET_ADMIN is missing.
        :raises HostError: there is no program ``nft``, it refused the rules, or a setting cannot be
            changed. What the holder had before stays, also when this is cancelled.
        """
        before = self._wishes.get(holder)
        try:
            await shielded(self._hold(holder, rules, settings), f"vrrpkit: {KIND} changes")
        except asyncio.CancelledError:
            # What nft was told is done by now; the caller does not know of it.
            if before is None:
                undo = self.release(holder)
            else:
                undo = self._hold(holder, before.rules, None)
            await shielded(undo, f"vrrpkit: {KIND} changes back")
            raise

    async def _hold(self, holder: object, rules: Rules, settings: Mapping[str, int] | None) -> None:
        async with self._lock:
            opened = self._opened
            if opened is None:
                opened = self._opened = await self._open()
            before = self._wishes.get(holder)
            try:
                borrowed = before.borrowed if before else _borrow(opened, settings or {})
                self._wishes[holder] = _Wish(rules, borrowed)
                await self._write(opened)
            except BaseException:
                wish = self._wishes.pop(holder, None)
                if before is not None:
                    self._wishes[holder] = before
                elif wish is not None:
                    _give_back(opened, wish.borrowed, set())
                self._close_if_unused()
                raise

    async def release(self, holder: object) -> None:
        """Remove the rules of one holder; without effect if it has none. A cancellation waits for
        it."""
        await shielded(self._release(holder), f"vrrpkit: {KIND} is given back")

    async def _release(self, holder: object) -> None:
        async with self._lock:
            wish = self._wishes.pop(holder, None)
            opened = self._opened
            if wish is None or opened is None:
                return
            try:
                if self._wishes:
                    await self._write(opened)
                else:
                    await carry_out(opened.nft, _removal(opened.table))
                if wish.borrowed:
                    _give_back(opened, wish.borrowed, await _needed_by_others(opened))
            except HostError as problem:
                log.warning("rules and settings of nftables stay behind: %s", problem)
            finally:
                self._close_if_unused()

    async def keep(self, holder: object, name: str) -> None:
        """Release one holder, but leave its rules and settings in force until :meth:`discard`,
        also when this process is gone. Without effect if it has none. A cancellation waits for
        it."""
        await shielded(self._keep(holder, name), f"vrrpkit: {KIND} keeps")

    async def _keep(self, holder: object, name: str) -> None:
        async with self._lock:
            wish = self._wishes.pop(holder, None)
            opened = self._opened
            if wish is None or opened is None:
                return
            kept = _kept(name)
            others = self._wishes.values()
            own = self._render(opened, opened.table, others) if others else ""
            lines = [_removal(kept), self._render(opened, kept, [wish])]
            lines += [_removal(opened.table), own]
            try:
                await carry_out(opened.nft, "".join(lines))
            except HostError as problem:
                log.warning("rules of nftables may be gone after this program: %s", problem)
            finally:
                _give_back(opened, wish.borrowed, set(wish.borrowed))
                self._close_if_unused()

    async def discard(self, name: str) -> None:
        """Remove what :meth:`keep` has left under a name, here or in an earlier run, and put its
        settings back unless they are still needed. What goes wrong is logged. A cancellation waits
        for it."""
        await shielded(self._discard(_kept(name)), f"vrrpkit: {KIND} discards")

    async def _discard(self, kept: str) -> None:
        async with self._lock:
            opened = await self._look()
            if opened is None:
                return
            try:
                if kept in await _tables(opened.nft):
                    before = await _note(opened.nft, kept)
                    await carry_out(opened.nft, _removal(kept))
                    _restore(opened, before, await _needed_by_others(opened))
            except HostError as problem:
                log.warning("rules of nftables that were kept stay behind: %s", problem)
            finally:
                self._close_if_unused()

    async def sweep(self) -> None:
        """Remove what killed processes left, the first time that this is called: for a program that
        holds no rules now. Without the program ``nft`` nothing is removed. After a failure this
        goes on by itself, later. A cancellation waits for it."""
        # A router that enters while another one sweeps waits for that.
        if not self._swept or self._lock.locked():
            await shielded(self._sweep(), f"vrrpkit: {KIND} sweeps")

    async def _sweep(self) -> None:
        async with self._lock:
            if self._swept:
                return
            self._swept = True
            if self._opened is not None:
                return
            opened = await self._look()
            if opened is None:
                self._sweep_later()
                return
            try:
                if self._stale:
                    log.warning(
                        "removing tables of nftables that were left behind by runs that "
                        "were killed: %s",
                        ", ".join(sorted(self._stale)),
                    )
                    await carry_out(opened.nft, "".join(map(_removal, sorted(self._stale))))
                    self._stale = set()
                    _restore(opened, opened.noted, await _needed_by_others(opened))
            except HostError as problem:
                log.warning("rules of nftables that were left behind stay: %s", problem)
                self._sweep_later()
            finally:
                self._close_if_unused()

    def _sweep_later(self) -> None:
        self._sweeps += 1
        if self._sweeps < SWEEPS:
            # The timer keeps no firewall alive that is not used any more.
            again = WeakMethod(self._sweep_again)
            delay = SWEEP_AGAIN * 2 ** (self._sweeps - 1)
            asyncio.get_running_loop().call_later(delay, _call_if_alive, again)

    def _sweep_again(self) -> None:
        self._swept = False
        self._sweeper.start()

    async def ensure(self) -> bool:
        """Put the table back if somebody has removed it, as ``nft flush ruleset`` does; whether
        that was so.

        :raises HostError: the program ``nft`` cannot do it.
        """
        async with self._lock:
            opened = self._opened
            if opened is None or opened.table in await _tables(opened.nft):
                return False
            log.warning("table inet %s of nftables is gone; putting it back", opened.table)
            await self._write(opened)
            return True

    async def _look(self) -> _Opened | None:
        """Open it to see what earlier runs left; ``None`` without the program ``nft``, for example,
        and then there is nothing to be seen."""
        if self._opened is None:
            try:
                self._opened = await self._open()
            except (HostError, OSError) as problem:
                log.debug("not looking for rules that were left behind: %s", problem)
        return self._opened

    async def _open(self) -> _Opened:
        capabilities.require(NEEDED)
        nft = program(self._netns)
        with contextlib.ExitStack() as stack:
            namespace = Namespace(self._netns)
            stack.callback(namespace.close)
            # Alive before there is a table: others remove those of the dead.
            liveness = Liveness(namespace, KIND)
            stack.callback(liveness.close)
            found = await _tables(nft)
            noted: dict[str, int] = {}
            for table in found:
                noted |= await _note(nft, table)
            living = liveness.others()
            watch = TableWatch(namespace, _table(liveness), self._deleted)
            stack.callback(watch.close)
            dead = (table for table, owner in found.items() if owner and owner not in living)
            self._stale = set(dead)
            return _Opened(namespace, liveness, Sysctls(namespace), nft, noted, stack.pop_all())
        raise AssertionError("an exit stack swallows nothing")

    def _close_if_unused(self) -> None:
        opened = self._opened
        if opened is not None and not self._wishes:
            self._opened = None
            opened.resources.close()
            self._gone = False
            self._repair.cancel()
            self._repair = self._repairer()

    def _repairer(self) -> Worker:
        return Worker("vrrpkit: repairs nftables", self._put_back, lambda: self._gone)

    def _deleted(self) -> None:
        self._gone = True
        self._repair.start()

    async def _put_back(self) -> None:
        pause = PAUSE
        while self._gone:
            try:
                if not await self.ensure():
                    self._gone = False
                    return
                pause = PAUSE
            except HostError as problem:
                level = logging.WARNING if pause == PAUSE else logging.DEBUG
                log.log(level, "rules of nftables are not put back yet: %s", problem)
                pause = min(2 * pause, LONGEST_PAUSE)
            # What deleted the table may delete it again, and is not heard meanwhile.
            await asyncio.sleep(pause)

    async def _write(self, opened: _Opened) -> None:
        lines = [*map(_removal, sorted(self._stale)), _removal(opened.table)]
        lines.append(self._render(opened, opened.table, self._wishes.values()))
        await carry_out(opened.nft, "".join(lines))
        self._stale = set()

    @staticmethod
    def _render(opened: _Opened, table: str, wishes: Iterable[_Wish]) -> str:
        """A table with the rules of these wishes, and the note of what they borrow."""
        chains: dict[Chain, list[str]] = {}
        borrowed: dict[str, int | None] = {}
        for wish in wishes:
            for chain, rules in wish.rules.items():
                chains.setdefault(chain, []).extend(rules)
            borrowed |= {name: opened.sysctls.before(name) for name in wish.borrowed}
        note = " ".join(f"{name}={value}" for name, value in borrowed.items() if value is not None)
        lines = [f"table inet {table} {{\n", f'  comment "{note}"\n' if note else ""]
        lines += [chain.render(rules) for chain, rules in chains.items()]
        return "".join([*lines, "}\n"])


def _call_if_alive(method: WeakMethod[Callable[[], None]]) -> None:
    found = method()
    if found is not None:
        found()


def _borrow(opened: _Opened, settings: Mapping[str, int]) -> tuple[str, ...]:
    done: list[str] = []
    for name, value in settings.items():
        try:
            opened.sysctls.borrow(name, value, opened.noted.get(name))
        except OSError as problem:
            _give_back(opened, done, set())
            raise HostError(f"net/{name} cannot be set to {value}: {problem.strerror}") from None
        done.append(name)
    return tuple(done)


def _give_back(opened: _Opened, names: Sequence[str], needed: set[str]) -> None:
    for name in names:
        opened.sysctls.give_back(name, restore=name not in needed)


def _restore(opened: _Opened, noted: Mapping[str, int], needed: set[str]) -> None:
    """Put back what only those had changed who are gone."""
    for name, before in noted.items():
        now = opened.sysctls.read(name)
        if now is not None and name not in needed:
            opened.sysctls.recall(name, now, before)


async def _needed_by_others(opened: _Opened) -> set[str]:
    """The settings that other living processes have noted, or that are kept."""
    living = opened.liveness.others()
    found = await _tables(opened.nft)
    needed = [table for table, owner in found.items() if not owner or owner in living]
    return {name for table in needed for name in await _note(opened.nft, table)}


async def _tables(nft: Command) -> dict[str, str]:
    """The tables of all processes of this library, and the sign of life of each one's owner; of one
    that is kept, nothing."""
    output = await ask(nft, "list", "tables", "inet")
    return {
        table: f"{KIND}/{pid}/{token}" if pid else ""
        for table, pid, token in _TABLE.findall(output)
    }


async def _note(nft: Command, table: str) -> dict[str, int]:
    """What settings were before the owner of a table changed them."""
    try:
        found = _COMMENT.search(await ask(nft, "--terse", "list", "table", "inet", table))
    except HostError:
        # Its owner has removed it meanwhile.
        return {}
    return {} if found is None else {name: int(value) for name, value in _NOTED.findall(found[1])}


def _removal(table: str) -> str:
    # Deleting what is not there would make the whole transaction fail.
    return f"add table inet {table}\ndelete table inet {table}\n"
