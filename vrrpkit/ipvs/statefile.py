"""Which services are ours: a small file below ``/run`` that outlives this program.

::

    {"version": 1, "services": {"web": ["192.0.2.10:80/tcp", "192.0.2.10:443/tcp"]}}

The virtual servers of one program may share a file, each under its name. Two programs may not.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import tempfile
from collections.abc import Iterable
from collections.abc import Set as AbstractSet
from pathlib import Path
from typing import cast

from vrrpkit.errors import ConfigError, HostError
from vrrpkit.ipvs.addresses import service_keys
from vrrpkit.ipvs.entries import ServiceKey

__all__ = ["Record", "StateFile"]

log = logging.getLogger(__name__)

VERSION = 1

_on_record: set[tuple[str, str]] = set()


class StateFile:
    """The file at ``path``. Its directory is made when it is written first."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def read(self, name: str) -> frozenset[ServiceKey]:
        """The services of the virtual server ``name``; none where nothing is known.

        A file that is damaged is logged and counts as empty: then nothing is removed for it.

        :raises HostError: the file is there and cannot be read.
        """
        return frozenset(key for text in self._load().get(name, ()) for key in service_keys(text))

    def write(self, name: str, services: Iterable[ServiceKey]) -> None:
        """Keep the services of the virtual server ``name``; without any, its name is dropped.

        The file is replaced as a whole, so that it is never seen half written.

        :raises HostError: it cannot be written.
        """
        known = self._load()
        known.pop(name, None)
        texts = tuple(str(key) for key in services)
        if texts:
            known[name] = texts
        content = json.dumps({"version": VERSION, "services": known}, indent=1)
        try:
            self._replace(content + "\n")
        except OSError as problem:
            raise HostError(
                f"state file {self._path} cannot be written: {problem.strerror}; name one in a "
                "directory that this program may write to, such as RuntimeDirectory= of its "
                "systemd unit"
            ) from problem

    def _replace(self, content: str) -> None:
        directory = self._path.parent
        directory.mkdir(parents=True, exist_ok=True)
        number, draft = tempfile.mkstemp(prefix=f".{self._path.name}.", dir=directory)
        try:
            with open(number, "w", encoding="utf-8") as file:
                file.write(content)
            os.replace(draft, self._path)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(draft)
            raise

    def _load(self) -> dict[str, tuple[str, ...]]:
        try:
            text = self._path.read_text(encoding="utf-8")
        except FileNotFoundError:
            return {}
        except OSError as problem:
            raise HostError(
                f"state file {self._path} cannot be read: {problem.strerror}; let this program "
                "read it, or name another one"
            ) from problem
        except UnicodeDecodeError as problem:
            return self._damaged(problem)
        try:
            return _services(json.loads(text))
        except ValueError as problem:
            return self._damaged(problem)

    def _damaged(self, problem: ValueError) -> dict[str, tuple[str, ...]]:
        log.warning("state file %s is damaged and counts as empty: %s", self._path, problem)
        return {}


class Record:
    """What one virtual server has on record.

    :param path: its state file; ``None`` is no record at all.
    """

    def __init__(self, path: Path | None, name: str) -> None:
        self._file = None if path is None else StateFile(path)
        self._name = name
        self._place = str(path and path.absolute()), name
        self._open = False

    def open(self) -> None:
        """Be the only one of this program who is on record there under this name.

        :raises HostError: somebody else is.
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
        """Let somebody else be on record; what was written stays."""
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

    def keep(self, services: Iterable[ServiceKey]) -> None:
        """Put these services on record instead; what goes wrong is logged."""
        if self._file is None:
            return
        try:
            self._file.write(self._name, dict.fromkeys(services))
        except HostError as problem:
            log.warning("%s: %s", self._name, problem)


def _services(content: object) -> dict[str, tuple[str, ...]]:
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
        # What is no service must not turn up when somebody reads it by its name.
        for key in keys:
            service_keys(key)
        found[name] = keys
    return found
