"""Checks by the number in a file (keepalived: ``FILE_CHECK``, ``track_file``)."""

from __future__ import annotations

import logging
import os
import stat
from collections.abc import Callable

import attrs

from vrrpkit.checks.base import WEIGHT_LIMIT, Checker, Weight
from vrrpkit.checks.target import Target
from vrrpkit.errors import CheckFailed, ConfigError, CouldNotAsk
from vrrpkit.linux.inotify import watch
from vrrpkit.local_errors import own_trouble
from vrrpkit.validate import as_path, flag_field, whole_number

__all__ = ["FileChecker", "read_number"]

log = logging.getLogger(__name__)

LONGEST = 64
"""Octets of a file that are looked at: more is no number."""

UNHEALTHY = -WEIGHT_LIMIT - 1
"""From here on down a value times its weight means that the server is down."""


class Emptied(CheckFailed):
    """A file has no content: a shell empties it before the command begins that writes it."""


def read_number(path: str) -> int:
    """The whole number that a file holds, with white space around it.

    :raises CheckFailed: there is none, or it holds something else.
    :raises CouldNotAsk: this process cannot look into it now.
    """
    try:
        # A FIFO or a device must not hold us up.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            data = os.read(descriptor, LONGEST + 1)
            emptied = not data and stat.S_ISREG(os.fstat(descriptor).st_mode)
        finally:
            os.close(descriptor)
    except OSError as problem:
        text = f"{path} cannot be read: {problem.strerror}"
        # A FIFO in which nothing stands yet says EAGAIN.
        if own_trouble(problem) and not isinstance(problem, BlockingIOError):
            raise CouldNotAsk(text, problem.errno) from None
        raise CheckFailed(text) from None
    if emptied:
        raise Emptied(f"{path} holds nothing")
    text = data.decode("ascii", "replace").strip()
    try:
        if len(data) > LONGEST or "_" in text:
            raise ValueError
        return int(text)
    except ValueError:
        what = f"{text[:40]!r}, which is no whole number" if data else "nothing"
        raise CheckFailed(f"{path} holds {what}") from None


@attrs.frozen
class FileChecker(Checker):
    """Lets the whole number in a file decide: healthy or not, or how much weight::

        FileChecker("/run/maintenance")
        FileChecker("/run/spare-capacity", weight=10)

    With ``weight=0`` the server is healthy while the number is 0. With another weight the number
    times ``weight`` is added to the weight of the server, and a product of -2147483648 or less
    means that it is not healthy. A file that is missing, or holds something else, is not healthy;
    one that is empty may be being written, and the verdict stays until there is something in it. A
    change is noticed at once; besides, the file is read at every check.

    :param path: the file (``track_file``).
    :param weight: -2147483647 to 2147483647 (``weight``).
    :param reverse: the sign of the product changes; with ``weight=0``, healthy while the number is
        not 0 (``reverse``).
    :raises ConfigError: a value is unusable.
    """

    path: str = attrs.field(converter=as_path)
    weight: int = attrs.field(default=0, kw_only=True)
    reverse: bool = attrs.field(default=False, kw_only=True, validator=flag_field)

    def __attrs_post_init__(self) -> None:
        if not self.path:
            raise ConfigError("FileChecker: the path is empty; name the file")
        whole_number(
            "FileChecker: weight", self.weight, -WEIGHT_LIMIT, WEIGHT_LIMIT, "0 is healthy or not"
        )

    def attach(self, target: Target, soon: Callable[[], None]) -> Callable[[], None] | None:
        return watch(self.path, soon)

    async def check(self, target: Target) -> Weight | None:
        try:
            value = read_number(self.path)
        except Emptied as problem:
            raise CouldNotAsk(f"{problem}: it may be being written") from None
        if self.weight == 0:
            if bool(value) is not self.reverse:
                raise CheckFailed(f"{self.path} holds {value}")
            return None
        product = value * self.weight * (-1 if self.reverse else 1)
        if product <= UNHEALTHY:
            raise CheckFailed(f"{self.path} holds {value}, which makes {product}")
        return Weight(min(product, WEIGHT_LIMIT), relative=True)

    def __str__(self) -> str:
        return f"file {self.path}"
