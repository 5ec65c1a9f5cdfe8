"""Which services are ours, and what is known of their servers: a small file below ``/run`` that
outlives this program.

::

    {"version": 1,
     "services": {"web": ["192.0.2.10:80/tcp", "192.0.2.10:443/tcp"]},
     "pools": {"web": {"at": 1767225600.0, "quorate": true, "servers": {...}}}}

The virtual servers of one program may share a file, each under its name. Two programs may not.

A user who can write the file decides which services are removed from the table. So it must be a
regular file of root or of this user that others cannot write, and what is asked about is the file
that was opened, not the one that has its name.
"""

from __future__ import annotations

import contextlib
import errno
import json
import logging
import os
import stat
import tempfile
import time
from collections.abc import Iterable, Mapping, Set as AbstractSet
from pathlib import Path
from typing import cast

import attrs

from vrrpkit.errors import ConfigError, HostError
from vrrpkit.ipvs.model.adoption import PoolMemory, decode, encode
from vrrpkit.ipvs.model.endpoints import service_keys
from vrrpkit.ipvs.model.entries import ServiceKey

__all__ = ["StateFile", "StateRecord"]

log = logging.getLogger(__name__)

VERSION = 1

LARGEST = 32 * 1024 * 1024
"""Octets; 10,000 servers take 2 MB."""

_on_record: set[tuple[str, str]] = set()


@attrs.frozen
class _Content:
    services: Mapping[str, tuple[str, ...]] = attrs.field(factory=dict[str, tuple[str, ...]])
    pools: Mapping[str, PoolMemory] = attrs.field(factory=dict[str, PoolMemory])


class StateFile:
    """The file at ``path``. Its directory is made when it is written first."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def read(self, name: str) -> frozenset[ServiceKey]:
        """The services of the virtual server ``name``; none where nothing is known.

        A file that is damaged is logged and counts as empty: then nothing is removed for it.

        :raises HostError: the file is there and cannot be read, or is not ours.
        """
        texts = self._load().services.get(name, ())
        return frozenset(key for text in texts for key in service_keys(text))

    def recall(self, name: str) -> PoolMemory | None:
        """What is known of the servers of the virtual server ``name``, if anything; as :meth:`read`
        does."""
        return self._load().pools.get(name)

    def write(self, name: str, services: Iterable[ServiceKey]) -> None:
        """Keep the services of the virtual server ``name``; without any, its name is dropped.

        The file is replaced as a whole, so that it is never seen half written.

        :raises HostError: it cannot be written.
        """
        known = self._load()
        kept = {one: texts for one, texts in known.services.items() if one != name}
        texts = tuple(str(key) for key in services)
        if texts:
            kept[name] = texts
        self._store(attrs.evolve(known, services=kept))

    def remember(self, name: str, memory: PoolMemory) -> None:
        """Keep what is known of the servers of the virtual server ``name``; what is too old of
        others goes.

        :raises HostError: it cannot be written.
        """
        known = self._load()
        pools = {one: kept for one, kept in known.pools.items() if kept.counts(memory.at)}
        self._store(attrs.evolve(known, pools=pools | {name: memory}))

    def _store(self, content: _Content) -> None:
        fields: dict[str, object] = {"version": VERSION, "services": dict(content.services)}
        if content.pools:
            fields["pools"] = {name: encode(memory) for name, memory in content.pools.items()}
        try:
            self._replace(json.dumps(fields) + "\n")
        except OSError as problem:
            raise HostError(
                f"state file {self._path} cannot be written: {problem.strerror}; name one in a "
                "directory that this program may write to, such as RuntimeDirectory= of its "
                "systemd unit"
            ) from problem

    def _replace(self, content: str) -> None:
        directory = self._path.parent
        directory.mkdir(parents=True, exist_ok=True)
        # Made with mode 0600, and it takes the place of a link, not of what that points to.
        number, draft = tempfile.mkstemp(prefix=f".{self._path.name}.", dir=directory)
        try:
            with open(number, "w", encoding="utf-8") as file:
                file.write(content)
            os.replace(draft, self._path)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(draft)
            raise

    def _load(self) -> _Content:
        try:
            content = self._octets()
        except FileNotFoundError:
            return _Content()
        except OSError as problem:
            why = "it is a link" if problem.errno == errno.ELOOP else problem.strerror
            raise HostError(
                f"state file {self._path} cannot be read: {why}; let this program read it, or name "
                "another one"
            ) from problem
        try:
            return _parsed(json.loads(content.decode()))
        except (ValueError, RecursionError) as problem:
            # Whatever is nested too deep raises RecursionError.
            log.warning("state file %s is damaged and counts as empty: %s", self._path, problem)
            return _Content()

    def _octets(self) -> bytes:
        # Without a wait for the writer of a FIFO, and not where a link leads.
        number = os.open(self._path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with open(number, "rb") as file:
            found = os.fstat(number)
            if stat.S_ISDIR(found.st_mode):
                raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
            why = _unfit(found)
            if why:
                raise HostError(
                    f"state file {self._path} is not trusted: {why}; remove it, or name one in a "
                    "directory that only this program can write to, such as RuntimeDirectory= of "
                    "its systemd unit"
                )
            return file.read(LARGEST)


def _unfit(found: os.stat_result) -> str:
    """Why a file is not ours, or empty."""
    if not stat.S_ISREG(found.st_mode):
        return "it is no regular file"
    if found.st_uid not in (0, os.geteuid()):
        return f"it belongs to the user {found.st_uid}"
    if found.st_mode & stat.S_IWOTH:
        return "everybody can write it"
    if found.st_size > LARGEST:
        return f"it has more than {LARGEST} octets"
    return ""


class StateRecord:
    """What one virtual server has on record.

    :param path: its state file; ``None`` is no record at all.
    """

    def __init__(self, path: Path | None, name: str) -> None:
        self._file = None if path is None else StateFile(path)
        self._name = name
        self._place = str(path and path.absolute()), name
        self._open = False
        self._failed = False

    def open(self) -> None:
        """Be the only one of this program who is on record there under this name.

        :raises HostError: another program is.
        """
        if self._file is None:
            return
        if self._place in _on_record:
            raise HostError(
                f"another virtual server of this program is on record in {self._place[0]} as "
                f"{self._name!r}: give one of them another name, or another state_file"
            )
        _on_record.add(self._place)
        self._open = True

    def close(self) -> None:
        """Let another program be on record; what was written stays."""
        if self._open:
            self._open = False
            _on_record.discard(self._place)

    def inherit(self, services: AbstractSet[ServiceKey]) -> set[ServiceKey]:
        """Put these services on record, and return those of an earlier run that are not among
        them. They stay on record until they are gone.

        :raises HostError: the file cannot be read or written.
        """
        if self._file is None:
            return set()
        stale = set(self._file.read(self._name) - services)
        self._file.write(self._name, [*services, *stale])
        return stale

    def recall(self) -> PoolMemory | None:
        """What an earlier run wrote down of the servers, if that is not too old.

        :raises HostError: the file cannot be read.
        """
        memory = None if self._file is None else self._file.recall(self._name)
        return memory if memory is not None and memory.counts(time.time()) else None

    def remember(self, memory: PoolMemory) -> None:
        """Write down what is known of the servers; what goes wrong is logged, once in a row."""
        if self._file is None:
            return
        try:
            self._file.remember(self._name, memory)
        except HostError as problem:
            log.log(
                logging.DEBUG if self._failed else logging.WARNING, "%s: %s", self._name, problem
            )
            self._failed = True
        else:
            self._failed = False

    @property
    def kept(self) -> bool:
        """Whether there is a file."""
        return self._file is not None

    def keep(self, services: Iterable[ServiceKey]) -> None:
        """Put these services on record instead; what goes wrong is logged."""
        if self._file is None:
            return
        try:
            self._file.write(self._name, dict.fromkeys(services))
        except HostError as problem:
            log.warning("%s: %s", self._name, problem)


def _parsed(content: object) -> _Content:
    if not isinstance(content, dict):
        raise ConfigError("it holds no object")
    fields = cast("dict[str, object]", content)
    if fields.get("version") != VERSION:
        raise ConfigError(f"it has no version {VERSION}")
    services = fields.get("services")
    if not isinstance(services, dict):
        raise ConfigError("it has no services")
    found: dict[str, tuple[str, ...]] = {}
    for name, texts in cast("dict[str, object]", services).items():
        if not isinstance(texts, list):
            raise ConfigError(f"it has no list of services for {name!r}")
        keys = tuple(str(text) for text in cast("list[object]", texts))
        # What is no service must not turn up when it is read by its name.
        for key in keys:
            service_keys(key)
        found[name] = keys
    return _Content(found, _pools(fields.get("pools", {})))


def _pools(content: object) -> dict[str, PoolMemory]:
    found: dict[str, PoolMemory] = {}
    if not isinstance(content, dict):
        return found
    for name, pool in cast("dict[str, object]", content).items():
        try:
            found[name] = decode(pool)
        except ConfigError as problem:
            # Which services are ours is still known.
            log.warning("what is known of the servers of %r is damaged: %s", name, problem)
    return found
