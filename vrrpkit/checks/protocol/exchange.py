"""What a check says over a connection, and how it judges what it hears. Pure."""

from __future__ import annotations

from typing import Protocol

__all__ = ["Exchange"]


class Exchange(Protocol):
    """What is said over a connection, and whether that is a healthy server. It does no I/O."""

    passed: bool
    """Set as soon as the server counts as healthy: what is to be sent still leaves, and no more is
    heard."""
    farewell: bytes
    """What to send before closing then, if it can be sent."""
    forgiving: bool
    """Whether a connection that ends without TLS's goodbye has simply ended."""

    def opened(self) -> bytes:
        """The connection stands: what to send first.

        :raises CheckFailed: the server is not healthy.
        """
        ...

    def received(self, data: bytes) -> bytes:
        """The server has sent something, or closed its side if ``data`` is empty: what to answer.

        Having closed without a verdict is a failure.

        :raises CheckFailed: the server is not healthy.
        """
        ...
