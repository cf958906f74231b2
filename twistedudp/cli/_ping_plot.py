"""``udpecho ping --plot FILE``: round trips over time with the losses marked, and their distribution, as a picture.

Theory of operation: while the run lasts, the points are kept in arrays, thinned to every second, fourth, ... answer
when they become too many. matplotlib is loaded before the first probe, so that a run is not made in vain where it is
missing, and draws at the end without a display (its Agg canvas; no pyplot, which would look for a window).
"""

from __future__ import annotations

import importlib
import os
from array import array
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from ._arguments import Misuse
from ._output import one_line
from ._ping_units import counted, share_text, time_text

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ..probing import ProbeEvent, ProbeSeries, Summary

__all__ = ["MOST_POINTS", "PlotPoints", "checked_plot_file", "draw", "load_matplotlib"]

MOST_POINTS: Final = 100_000
"""Answers drawn at most, 16 bytes each: more than a picture of this width has pixels for. Losses have a bound of the
same number of their own."""

_SUFFIXES: Final = (".png", ".svg", ".pdf")
_LOGARITHMIC_FROM: Final = 20.0
"""Ratio of the longest to the shortest round trip from which the axis is logarithmic."""


def checked_plot_file(name: str) -> Path:
    """Return the file that ``--plot`` names, which can be written.

    Raises:
        Misuse: It cannot be written, or is no picture by its name.
    """
    path = Path(name)
    if path.suffix.lower() not in _SUFFIXES:
        raise Misuse(
            f"--plot {name}: the name of the picture must end in {', '.join(_SUFFIXES[:-1])} or {_SUFFIXES[-1]}"
        )
    if path.is_dir():
        raise Misuse(f"--plot {name}: that is a directory")
    if not path.parent.is_dir():
        raise Misuse(f"--plot {name}: there is no directory {path.parent}")
    if not os.access(path if path.exists() else path.parent, os.W_OK):
        raise Misuse(f"--plot {name}: it cannot be written; check the permissions of {path.parent}")
    return path


def load_matplotlib() -> None:
    """Load what draws.

    Raises:
        Misuse: It is not installed.
    """
    try:
        for module in ("matplotlib.figure", "matplotlib.backends.backend_agg"):
            importlib.import_module(module)
    except ImportError as error:
        raise Misuse(
            f"--plot needs matplotlib, which cannot be imported ({error}): pip install 'twistedudp[plot]'"
        ) from error


class PlotPoints:
    """The points of a picture, kept while a run lasts.

    Args:
        series: The run, which knows when it began.

    Attributes:
        seconds: When the probes of the answers were sent, in seconds since the first.
        rtts: Their round trips, in seconds.
        lost: When the lost probes were sent, likewise.
        stride: Every how many answers one is kept.
        lost_stride: Every how many losses one is kept.
    """

    def __init__(self, series: ProbeSeries) -> None:
        self._series = series
        self.seconds = array("d")
        self.rtts = array("d")
        self.lost = array("d")
        self.stride = self.lost_stride = 1
        self._answers = self._losses = 0

    def start(self, reactor: Any, failed: Callable[[Exception], None]) -> None:
        """Nothing is to be started."""

    def happened(self, event: ProbeEvent) -> None:
        """Keep the point of an answer or a loss."""
        kind = event.kind
        if kind not in ("reply", "lost") or event.sent_ns < 0:
            return
        second = (event.sent_ns - self._series.started_ns) / 1e9
        if kind == "reply":
            if self._answers % self.stride == 0:
                self.seconds.append(second)
                self.rtts.append(event.rtt_ns / 1e9)
                if len(self.seconds) >= MOST_POINTS:
                    self.seconds, self.rtts = self.seconds[::2], self.rtts[::2]
                    self.stride *= 2
            self._answers += 1
            return
        if self._losses % self.lost_stride == 0:
            self.lost.append(second)
            if len(self.lost) >= MOST_POINTS:
                self.lost = self.lost[::2]
                self.lost_stride *= 2
        self._losses += 1

    def stop(self) -> None:
        """Nothing is to be ended."""


def draw(path: Path, summary: Summary, points: PlotPoints, buckets: Sequence[tuple[int, int]]) -> None:
    """Draw a run into a file.

    Args:
        path: The file; its suffix says which format.
        summary: The figures.
        points: The points over time.
        buckets: The round trips, in nanoseconds, and how many there are of each.

    Raises:
        OSError: The file cannot be written.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # noqa: PLC0415  # slow: only for a plot
    from matplotlib.figure import Figure  # noqa: PLC0415  # likewise

    figure = Figure(figsize=(10, 7.5), layout="constrained")
    FigureCanvasAgg(figure)
    over_time, distribution = figure.subplots(2, 1)
    title = (
        f"udpecho ping {one_line(summary.target)}: {counted(summary.sent, 'probe')} of {summary.size:,} bytes, "
        f"{share_text(summary.loss)} lost"
    )
    figure.suptitle(title, parse_math=False)
    unit, name = (
        (1e6, "us") if (summary.rtt.max or 0) < 1e-3 else (1e3, "ms") if (summary.rtt.max or 0) < 1 else (1, "s")
    )
    _draw_over_time(over_time, summary, points, unit, name)
    _draw_distribution(distribution, summary, buckets, unit, name)
    figure.savefig(path, dpi=110)


def _draw_over_time(axes: Any, summary: Summary, points: PlotPoints, unit: float, name: str) -> None:
    every = f" (every {points.stride:,}th)" if points.stride > 1 else ""
    axes.plot(
        points.seconds, [rtt * unit for rtt in points.rtts], ".", color="C0", markersize=3, label=f"round trip{every}"
    )
    if points.lost:
        # In the axes' own coordinates, at the top: a lost probe has no round trip.
        label = f"lost ({summary.lost:,})"
        axes.plot(
            points.lost, [0.97] * len(points.lost), "x", color="C3", transform=axes.get_xaxis_transform(), label=label
        )
    longest = (summary.rtt.max or 0) * unit
    if (summary.rtt.max or 0) > _LOGARITHMIC_FROM * (summary.rtt.min or 1):
        axes.set_yscale("log")
        axes.set_ylim(top=longest * 2)
    else:
        axes.set_ylim(0, longest * 1.1 or 1)  # the crosses stand above the points
    axes.set_xlabel("seconds since the first probe")
    axes.set_ylabel(f"round trip ({name})")
    axes.grid(alpha=0.3)
    _add_legend(axes)


def _draw_distribution(axes: Any, summary: Summary, buckets: Sequence[tuple[int, int]], unit: float, name: str) -> None:
    rtt = summary.rtt
    if rtt.min is not None and rtt.max is not None:
        values = [nanoseconds / 1e9 * unit for nanoseconds, _ in buckets]
        axes.hist(values, bins=80, weights=[count for _, count in buckets], color="C0", alpha=0.7)
        for percentile, label, style in ((rtt.p50, "p50", "-"), (rtt.p90, "p90", "--"), (rtt.p99, "p99", ":")):
            if percentile is not None:
                axes.axvline(percentile * unit, color="C1", linestyle=style, label=f"{label} {time_text(percentile)}")
        axes.set_yscale("log")  # the tail is what one looks for, and it is thin
        axes.set_ylim(bottom=0.7)
        _add_legend(axes)
    else:
        axes.text(0.5, 0.5, "no answers", ha="center", va="center", transform=axes.transAxes)
    axes.set_xlabel(f"round trip ({name})")
    axes.set_ylabel(f"answers, {summary.received:,} in all")
    axes.grid(alpha=0.3)


def _add_legend(axes: Any) -> None:
    """Say above the picture what is what; within it, points would be behind."""
    axes.legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=4, frameon=False)
