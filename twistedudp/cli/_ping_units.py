"""Figures as people read them: times with three digits and a unit, shares in percent, bars.

Theory of operation: pure functions. A time says as much as its three first digits do; what is not zero is never
shown as ``0%``, and what is not all is never shown as ``100%``.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Final

from ._output import is_open

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = [
    "ASCII_BARS",
    "BARS",
    "CROSS",
    "can_show",
    "counted",
    "interval_text",
    "share_text",
    "time_text",
    "times_text",
]

BARS: Final = "▁▂▃▄▅▆▇█"
"""Heights of a column, in eighths."""

ASCII_BARS: Final = "_.-=+*%#"
"""Likewise, where the encoding has no more; each has more ink than the one before."""

CROSS: Final = "\N{MULTIPLICATION SIGN}"
"""A column of the sparkline whose probes were all lost."""

_LARGER_THAN_LARGEST: Final = 999.5  # what rounds to 1,000 is a 1 of the next unit


def time_text(seconds: float | None) -> str:
    """Return a time with three digits: ``85.2 us``, ``1.20 ms``, ``12.3 s``; ``-`` where there is none."""
    if seconds is None:
        return "-"
    for value, unit in ((seconds * 1e6, "us"), (seconds * 1e3, "ms")):
        if value < _LARGER_THAN_LARGEST:
            return f"{_three_digits(value)} {unit}"
    return f"{_three_digits(seconds)} s"


def _three_digits(value: float) -> str:
    if value == 0:
        return "0"
    decimals = 2 if value < 9.995 else 1 if value < 99.95 else 0
    return f"{value:,.{decimals}f}"


def interval_text(seconds: float) -> str:
    """Return a time that somebody chose, without digits that nobody wrote: ``200 ms``, ``1 s``, ``66.67 us``."""
    return f"{seconds * 1e6:.4g} us" if seconds < 1e-3 else f"{seconds * 1e3:g} ms" if seconds < 1 else f"{seconds:g} s"


def times_text(times: Mapping[str, float | None]) -> str:
    """Return named times as one text: ``p50 85.2 us, p99 1.20 ms``."""
    return ", ".join(f"{name} {time_text(value)}" for name, value in times.items())


def share_text(share: float | None) -> str:
    """Return a share of 0 to 1 in percent, with three digits; ``-`` where there is none."""
    if share is None:
        return "-"
    percent = share * 100
    if 0 < percent < 0.001:
        return "<0.001%"
    if 99.9 < percent < 100:
        return ">99.9%"
    return f"{percent:.3g}%"


def counted(count: int, one: str, more: str = "") -> str:
    """Return a number of things: ``1 answer``, ``1,234 answers``."""
    return f"{count:,} {one if count == 1 else more or one + 's'}"


def can_show(characters: str) -> bool:
    """Tell whether standard output's encoding has these characters."""
    encoding = sys.stdout.encoding if is_open(sys.stdout) else None
    try:
        characters.encode(encoding or "ascii")
    except (UnicodeEncodeError, LookupError):
        return False
    return True
