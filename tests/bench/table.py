"""The table of figures."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Figure:
    """One line of the table; lower is better."""

    name: str
    unit: str
    vrrpkit: float
    #: Of whoever the name says; None where there is nothing to compare with.
    keepalived: float | None = None
    #: The largest value allowed, or the largest ratio if ``relative``; None is no target.
    target: float | None
    relative: bool = False
    ratios: tuple[float, float] | None = None
    """The smallest and the largest ratio of several rounds."""

    @property
    def ratio(self) -> float | None:
        """vrrpkit's figure in units of keepalived's."""
        return self.vrrpkit / self.keepalived if self.keepalived else None

    @property
    def ok(self) -> bool:
        """Whether the target is reached."""
        if self.target is None:
            return True
        value = self.ratio if self.relative else self.vrrpkit
        return value is not None and value <= self.target

    def cells(self) -> list[str]:
        """The line as text."""
        ratio = self.ratio
        target = "" if self.target is None else f"<= {self.target:g}"
        return [
            self.name,
            _number(self.vrrpkit, self.unit),
            "-" if self.keepalived is None else _number(self.keepalived, self.unit),
            "-" if ratio is None else f"{ratio:.2f}x",
            "" if self.ratios is None else "{:.2f}-{:.2f}x".format(*self.ratios),
            f"{target}x" if self.relative else target and f"{target} {self.unit}".strip(),
            "" if self.target is None else "yes" if self.ok else "NO",
        ]


HEADER = ["figure", "vrrpkit", "keepalived", "ratio", "range", "target", "ok"]


def render(figures: Iterable[Figure]) -> str:
    """The table as text."""
    rows = [HEADER, *(figure.cells() for figure in figures)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "  ".join(
            cell.ljust(width) if number in (0, 6) else cell.rjust(width)
            for number, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
    return "\n".join([lines[0], "-" * len(lines[0]), *lines[1:]])


def _number(value: float, unit: str) -> str:
    return f"{value:.0f}" if unit == "" else f"{value:.2f} {unit}"
