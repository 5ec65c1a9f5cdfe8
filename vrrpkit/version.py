"""The version of the installed distribution, by which :mod:`importlib.metadata` knows it."""

from __future__ import annotations

from importlib.metadata import version

__all__ = ["__version__"]

__version__ = version("vrrpkit")
