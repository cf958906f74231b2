"""A distribution of round trips as lines of a terminal.

Theory of operation: rows are ranges of time between round numbers. Round trips spread over orders of magnitude, so the
ranges grow by a factor (preferred numbers: from twenty to one per decade), unless all lie close together, where they
grow by a fixed step. The finest division that fits into :data:`MOST_ROWS`, and into fewer where there are few round
trips, is taken; runs of empty ranges are one line of dots and cost no more.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

__all__ = ["LEAST_ANSWERS", "MOST_ROWS", "histogram_lines"]

MOST_ROWS: Final = 14
"""Rows at most: they leave the figures above them on a screen of 24 lines."""

LEAST_ANSWERS: Final = 5
"""Round trips below which there is no histogram: it would be a list of them."""

_DECADES: Final = (
    (1.0, 1.1, 1.25, 1.4, 1.6, 1.8, 2.0, 2.2, 2.5, 2.8, 3.2, 3.6, 4.0, 4.5, 5.0, 5.6, 6.3, 7.1, 8.0, 9.0),
    (1.0, 1.25, 1.6, 2.0, 2.5, 3.2, 4.0, 5.0, 6.3, 8.0),
    (1.0, 1.5, 2.0, 3.0, 5.0, 7.0),
    (1.0, 2.0, 5.0),
    (1.0,),
)
"""Divisions of a decade, from fine to coarse."""

_CLOSE: Final = 1.6  # below this ratio of longest to shortest the steps are equal ones
_STEPS: Final = (1, 2, 5)
_EMPTY_SHOWN: Final = 2  # a run of more empty rows becomes dots
_EIGHTHS: Final = "▏▎▍▌▋▊▉█"
_UNITS: Final = ((10**9, "s"), (10**6, "ms"), (10**3, "us"), (1, "ns"))


def histogram_lines(buckets: Sequence[tuple[int, int]], *, width: int, blocks: bool) -> list[str]:
    """Draw a histogram.

    Args:
        buckets: Nanoseconds and how many there are of them, in order.
        width: Characters of a line.
        blocks: Whether bars are drawn with block characters; with ``#`` otherwise.
    """
    total = sum(count for _, count in buckets)
    if total < LEAST_ANSWERS:
        return []
    rows = _rows(buckets, min(MOST_ROWS, 3 + math.isqrt(total)))
    labels = [(_edge_text(low), _edge_text(high)) for low, high, _ in rows]
    low_width = max(len(low) for low, _ in labels)
    high_width = max(len(high) for _, high in labels)
    count_width = max(len(f"{count:,}") for _, _, count in rows)
    most = max(count for _, _, count in rows)
    room = max(8, width - low_width - high_width - count_width - 16)
    lines: list[str] = []
    empty: list[str] = []
    for (low, high), (_, _, count) in zip(labels, rows, strict=True):
        label = f"{low:>{low_width}} to {high:>{high_width}}"
        tail = f"{count:>{count_width},} {_percent(count / total):>6}"
        line = f"  {label}  {_bar(count / most, room, blocks=blocks):<{room}} {tail}"
        if not count:
            empty.append(line)
            continue
        lines += empty if len(empty) <= _EMPTY_SHOWN else [f"  {'...':>{low_width}}"]
        empty = []
        lines.append(line)
    return lines


def _rows(buckets: Sequence[tuple[int, int]], most_lines: int) -> list[tuple[int, int, int]]:
    """Return ranges of nanoseconds and their counts, from the first that has something to the last."""
    least, most = buckets[0][0], buckets[-1][0]
    for edges in _divisions(least, most):
        counts = [0] * (len(edges) - 1)
        for value, count in buckets:
            counts[min(bisect_right(edges, value) - 1, len(counts) - 1)] += count
        if _shown(counts) <= most_lines:
            break
    return list(zip(edges[:-1], edges[1:], counts, strict=True))


def _divisions(least: int, most: int) -> Iterator[list[int]]:
    """Yield the edges of ranges that hold all, from fine to coarse."""
    if most <= least * _CLOSE:
        # Not below the resolution of the figures themselves, three digits.
        power = 10 ** max(0, math.floor(math.log10(max(least, 1))) - 2)
        while True:
            for step in _STEPS:
                start = least // (step * power) * step * power
                yield list(range(start, most + step * power + 1, step * power))
            power *= 10
    for decade in _DECADES:
        edges = sorted(
            {
                round(factor * 10**power)
                for power in range(math.floor(math.log10(max(least, 1))) - 1, math.ceil(math.log10(most)) + 2)
                for factor in decade
                if power >= 0
            }
        )
        first = max(0, bisect_right(edges, least) - 1)
        yield edges[first : bisect_right(edges, most) + 1]


def _shown(counts: Sequence[int]) -> int:
    """Return how many lines the counts take."""
    lines = run = 0
    for count in counts:
        if not count:
            run += 1
            continue
        lines += 1 + (run if run <= _EMPTY_SHOWN else 1)
        run = 0
    return lines


def _bar(share: float, room: int, *, blocks: bool) -> str:
    if share <= 0:
        return ""
    if not blocks:
        return "#" * max(1, round(share * room))
    eighths = max(1, round(share * room * 8))
    whole, rest = divmod(eighths, 8)
    return "█" * whole + (_EIGHTHS[rest - 1] if rest else "")


def _percent(share: float) -> str:
    percent = 100 * share
    return "<0.1%" if 0 < percent < 0.1 else f"{percent:.1f}%"


def _edge_text(nanoseconds: int) -> str:
    for unit, name in _UNITS:
        if nanoseconds >= unit:
            return f"{nanoseconds / unit:g} {name}"
    return "0"
