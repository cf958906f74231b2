"""The live display of ``udpecho ping`` on a terminal.

Theory of operation: a few lines at the bottom of the screen, rewritten in place by Rich's ``Live`` and erased at the
end, so that the summary stands alone. It is one text and no table, refreshed by the reactor and not by a thread, since
it takes time from the sending of probes: at short intervals between these it is refreshed less often. Colours repeat
what the characters say. A terminal that became narrower has wrapped the lines: what they take up now is erased first.
"""

from __future__ import annotations

import os
import signal
import time
from dataclasses import dataclass
from math import log
from typing import TYPE_CHECKING, Any, Final

from ._output import one_line
from ._ping_recent import RecentProbes, RunningPercentiles
from ._ping_units import ASCII_BARS, BARS, CROSS, counted, interval_text, share_text, time_text

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from types import FrameType

    from rich.console import Console
    from rich.text import Text

    from ..probing import ProbeEvent, ProbeSeries
    from ._ping_recent import Column

__all__ = ["REFRESH_AT_SHORT_INTERVALS", "REFRESH_EVERY", "SHORT_INTERVAL", "LiveDisplay", "RunNames", "spark"]

REFRESH_EVERY: Final = 0.1
"""Seconds between two refreshes."""

REFRESH_AT_SHORT_INTERVALS: Final = 0.25
"""Likewise, where probes leave more often than :data:`SHORT_INTERVAL`: each delays one or two of them by a millisecond,
and four in a second are fewer than half a percent of them."""

SHORT_INTERVAL: Final = 0.01
"""Seconds between two probes below which the display makes way."""

_SPARE: Final = 4
"""Columns left free at the right: terminals echo ``^C`` where the cursor is, and it shall not begin a new line."""

_FLAT: Final = 1.5
"""Ratio of the longest to the shortest round trip shown below which the sparkline is not stretched further: noise."""

_ENDING: Final = (signal.SIGTERM, signal.SIGHUP)


@dataclass(frozen=True)
class RunNames:
    """What the display says of its run beside the figures.

    Attributes:
        title: The server, safe to print.
        interval: Seconds between two probes.
        count: How many probes there will be, None if that is open.
        duration: How many seconds it takes at most, likewise.
    """

    title: str
    interval: float
    count: int | None
    duration: float | None


class LiveDisplay:
    """The display of one run.

    Args:
        series: The run.
        names: What else it says.
        console: Where it is shown.
        characters: Whether the terminal has more than ASCII.
        seconds: The time in seconds, by a clock that does not go back.
    """

    def __init__(
        self,
        series: ProbeSeries,
        names: RunNames,
        console: Console,
        *,
        characters: bool = True,
        seconds: Callable[[], float] = time.monotonic,
    ) -> None:
        self._series = series
        self._names = names
        self._console = console
        self._bars = BARS if characters else ASCII_BARS
        self._characters = characters
        self._seconds = seconds
        self._recent = RecentProbes(names.interval)
        self._percentiles = RunningPercentiles()
        self._screen: _Screen | None = None
        self._started = 0.0
        self._unreachable = ""
        self._loop: Any = None

    def start(self, reactor: Any, failed: Callable[[Exception], None]) -> None:
        """Show it from now on; see :class:`~._ping_outputs.Output`."""
        from twisted.internet.task import LoopingCall  # noqa: PLC0415  # Twisted: only where something is asked

        self._started = self._seconds()
        self._screen = _Screen(self._console)
        self._loop = LoopingCall(self.refresh)
        self._loop.clock = reactor
        every = REFRESH_AT_SHORT_INTERVALS if self._names.interval < SHORT_INTERVAL else REFRESH_EVERY
        self._loop.start(every).addErrback(lambda failure: failed(failure.value))

    def happened(self, event: ProbeEvent) -> None:
        """Take note of an event; nothing is drawn for it."""
        self._recent.happened(event)
        if event.kind == "reply":
            self._percentiles.add(event.rtt_ns)
        elif event.kind == "unreachable":
            self._unreachable = one_line(event.detail)

    def refresh(self) -> None:
        """Draw it as it stands."""
        if self._screen is not None:
            self._screen.show(self.text(self._console.width - _SPARE))

    def stop(self) -> None:
        """Erase it."""
        if self._loop is not None and self._loop.running:
            self._loop.stop()
        if self._screen is not None:
            self._screen.clear()
            self._screen = None

    def text(self, width: int) -> Text:
        """Return the display as one text.

        Args:
            width: Characters of a line at most.
        """
        from rich.text import Text  # noqa: PLC0415  # slow to import: only for people

        text = Text(no_wrap=True, overflow="crop", end="")
        for number, line in enumerate(self._lines(width)):
            text.append("\n" if number else "")
            room = width
            for characters, style in line:
                text.append(characters[:room], style=style)
                room = max(0, room - len(characters))
        return text

    def _lines(self, width: int) -> Iterator[list[tuple[str, str]]]:
        names, recent = self._names, self._recent
        size = self._series.table.wire.size
        yield [(names.title, "bold"), (f"  {size:,} bytes every {interval_text(names.interval)}", "dim")]
        grouped = recent.per_column > 1
        label_width = 23
        columns = recent.columns(max(1, width - label_width), self._series.table.next_sequence)
        times = [column.worst_ns for column in columns if column.worst_ns >= 0]
        label = f"{time_text(min(times) / 1e9)} to {time_text(max(times) / 1e9)}" if times else "no answer yet"
        yield [(f"{label:<{label_width}}", ""), *spark(columns, self._bars, cross=CROSS if self._characters else "x")]
        if grouped:
            label = f"lost of each {recent.per_column:,}"
            yield [(f"{label:<{label_width}}", ""), (_lost_row(columns, self._bars), "bold red")]
        yield self._figures()
        if self._unreachable:
            yield [(f"{counted(self._series.table.unreachable, 'ICMP error')}: {self._unreachable}", "yellow")]
        yield self._progress(width)

    def _figures(self) -> list[tuple[str, str]]:
        table = self._series.table
        loss = self._loss()
        p50, p99 = (self._percentiles.value(percent) for percent in (50, 99))
        colour = "" if loss is None else "green" if not loss else "yellow" if loss < 0.05 else "bold red"
        return [
            (f"{table.sent:,} sent, {table.received:,} received, ", ""),
            (f"{table.lost:,} lost" + ("" if loss is None else f" ({share_text(loss)})"), colour),
            ("  p50 ", "dim"),
            (time_text(None if p50 is None else p50 / 1e9), "bold"),
            ("  p99 ", "dim"),
            (time_text(None if p99 is None else p99 / 1e9), "bold"),
        ]

    def _loss(self) -> float | None:
        """Return the share lost of the probes whose timeout has passed: of the others no loss can be known yet."""
        table, interval = self._series.table, self._names.interval
        overdue = self._seconds() - self._started - table.timeout_ns / 1e9
        settled = min(table.next_sequence, int(overdue / interval) + 1) if overdue >= 0 else 0
        settled = max(settled, table.lost)
        return table.lost / settled if settled else None

    def _progress(self, width: int) -> list[tuple[str, str]]:
        done, left = self._share_done()
        if left is None:
            elapsed = self._seconds() - self._started
            return [(f"{_clock_text(elapsed)}; Ctrl-C ends the run and prints its summary", "dim")]
        tail = f" {100 * done:3.0f}%  {_clock_text(left)} left" if left > 0 else f" {self._waiting_text()}"
        room = max(1, min(60, width - max(22, len(tail))))
        full = round(done * room)
        bar, rest = ("━", "─") if self._characters else ("=", "-")
        return [(bar * full, "bold"), (rest * (room - full), "dim"), (tail, "")]

    def _waiting_text(self) -> str:
        waiting = self._series.table.waiting
        return f"waiting for {waiting:,} more" if waiting else "100%"

    def _share_done(self) -> tuple[float, float | None]:
        """Return which share of the run is over, and the seconds left; None where it has no end."""
        names, sent = self._names, self._series.table.next_sequence
        elapsed = self._seconds() - self._started
        ends: list[tuple[float, float]] = []
        if names.count is not None:
            ends.append((max(0.0, (names.count - sent) * names.interval), names.count * names.interval))
        if names.duration is not None:
            ends.append((max(0.0, names.duration - elapsed), names.duration))
        if not ends:
            return 0.0, None
        left, whole = min(ends)
        return min(1.0, 1 - left / whole), left


def spark(columns: Sequence[Column], bars: str, *, cross: str) -> list[tuple[str, str]]:
    """Return columns as pieces of text with their styles.

    Args:
        columns: What to draw; heights are on a logarithmic scale.
        bars: The characters of the heights, the lowest first.
        cross: The character where all was lost.
    """
    times = [column.worst_ns for column in columns if column.worst_ns >= 0]
    lowest = max(1, min(times)) if times else 1
    ratio = max(max(times) / lowest, _FLAT) if times else _FLAT
    pieces: list[tuple[str, str]] = []
    for column in columns:
        if column.worst_ns >= 0:
            height = log(max(column.worst_ns, lowest) / lowest) / log(ratio)
            character, style = bars[min(len(bars) - 1, int(height * len(bars)))], ""
        else:
            character, style = (cross, "bold red") if column.lost else (" ", "")
        if pieces and pieces[-1][1] == style:
            pieces[-1] = (pieces[-1][0] + character, style)
        else:
            pieces.append((character, style))
    return pieces


def _lost_row(columns: Sequence[Column], bars: str) -> str:
    return "".join(bars[min(len(bars) - 1, int(column.lost * len(bars)))] if column.lost else " " for column in columns)


def _clock_text(seconds: float) -> str:
    """Return a duration that is being waited for: ``4.2 s``, ``3:07``, ``1:00:00``."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


class _Screen:
    """A text at the bottom of a terminal, rewritten in place."""

    def __init__(self, console: Console) -> None:
        from rich.live import Live  # noqa: PLC0415  # slow to import: only for people

        self._console = console
        self._live = Live(
            console=console, auto_refresh=False, transient=True, redirect_stdout=False, redirect_stderr=False
        )
        self._width = console.width
        self._lengths: list[int] = []
        self._before = {number: signal.signal(number, self._end) for number in _ENDING}
        self._live.start()

    def show(self, text: Text) -> None:
        """Show a text in place of the one before."""
        width = self._console.width
        if width != self._width:
            self._unwrap(width)
            self._width = width
        self._lengths = [len(line) for line in text.plain.split("\n")]
        self._live.update(text, refresh=True)

    def clear(self) -> None:
        """Erase it, and give the terminal back as it was."""
        if self._console.width != self._width:
            self._unwrap(self._console.width)
        self._live.stop()
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _unwrap(self, width: int) -> None:
        """Erase what a terminal of another width has made of the lines, and leave the cursor where Live expects it."""
        rows = sum(max(1, -(-length // max(1, width))) for length in self._lengths)
        # Row by row: a screen that is erased as a whole is kept for scrolling back to by some terminals.
        self._console.file.write("\r\x1b[2K" + "\x1b[A\x1b[2K" * (rows - 1) + "\n" * (len(self._lengths) - 1))

    def _end(self, number: int, _frame: FrameType | None) -> None:
        """Show the cursor again, which Live has hidden, and let the signal do what it does."""
        self._console.show_cursor(True)
        signal.signal(number, self._before.get(signal.Signals(number), signal.SIG_DFL))
        os.kill(os.getpid(), number)
