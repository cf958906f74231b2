"""What ``udpecho ping`` prints while it runs where there is no live display: a line for each datagram, as ping does.

Theory of operation: a line says what became of one probe, and is flushed at once, so that a pipe's reader has it in
time. Where probes leave more often than :data:`SHORTEST_PRINTED`, lines would disturb the sending and nobody could read
them: then one line each second says how it stands.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Final

import click

from ._output import one_line
from ._ping_units import share_text, time_text

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..probing import ProbeEvent, ProbeSeries

__all__ = ["SHORTEST_PRINTED", "PlainLines", "PlainProgress", "event_line", "progress_line"]

SHORTEST_PRINTED: Final = 0.01
"""Seconds between probes below which there is no line for each: a hundred lines a second are read by no person."""

FOREIGN_EVERY: Final = 1.0
"""Seconds between two lines about datagrams that answer nothing."""

PROGRESS_EVERY: Final = 1.0
"""Seconds between two lines that say how it stands."""


def event_line(event: ProbeEvent, *, address: str, size: int, timeout: float) -> str:
    """Return the line of an event; empty for one of which there is nothing to say.

    Args:
        event: What happened.
        address: The server's.
        size: Bytes of a probe.
        timeout: Seconds after which an answer is late.
    """
    place = f"seq={event.sequence}"
    kind = event.kind
    if kind in ("reply", "duplicate", "late"):
        marks = [kind] if kind != "reply" else ["reordered"] if event.reordered else []
        if kind == "reply" and event.detail:
            marks.append(f"error {one_line(event.detail)}")
        mark = f" ({', '.join(marks)})" if marks else ""
        return f"{size} bytes from {address}: {place} time={_milliseconds(event.rtt_ns)} ms{mark}"
    others = {
        "lost": f"no answer from {address} within {timeout:g} s: {place}",
        "unreachable": f"unreachable: {place} {one_line(event.detail)}",
        "not_sent": f"not sent to {address}: {place} {one_line(event.detail)}",
        "corrupted": f"from {address}: an answer that was changed on its way"
        + (f": {place}" if event.sequence >= 0 else ""),
        "foreign": f"a datagram that answers no probe: {event.detail}",
    }
    return others.get(kind, "")


def _milliseconds(nanoseconds: int) -> str:
    """Return a round trip as ping prints it: three digits or, above a second, all of them."""
    value = nanoseconds / 1e6
    decimals = 3 if value < 0.9995 else 2 if value < 9.995 else 1 if value < 99.95 else 0
    return f"{value:.{decimals}f}"


def progress_line(series: ProbeSeries, *, elapsed: float) -> str:
    """Return how a series stands, as one line."""
    table = series.table
    settled = table.received + table.lost
    # No percentiles: to find one takes as long as two probes of the shortest interval.
    loss = share_text(table.lost / settled) if settled else "-"
    mean = time_text(series.rtt.mean_ns / 1e9) if series.rtt.count else "-"
    return (
        f"{elapsed:.0f} s: {table.sent:,} sent, {table.received:,} received, {table.lost:,} lost ({loss}), "
        f"round trip mean {mean}"
    )


class PlainLines:
    """A line for each datagram; the arguments are those of :func:`event_line`."""

    def __init__(
        self, *, address: str, size: int, timeout: float, seconds: Callable[[], float] = time.monotonic
    ) -> None:
        self._address = address
        self._seconds = seconds
        self._foreign_after = 0.0
        self._size = size
        self._timeout = timeout

    def start(self, reactor: Any, failed: Callable[[Exception], None]) -> None:
        """Nothing is to be started."""

    def happened(self, event: ProbeEvent) -> None:
        """Print the line of an event."""
        if event.kind == "foreign":  # anybody may send these, and as many as they like; the summary counts them
            now = self._seconds()
            if now < self._foreign_after:
                return
            self._foreign_after = now + FOREIGN_EVERY
        line = event_line(event, address=self._address, size=self._size, timeout=self._timeout)
        if line:
            click.echo(line)

    def stop(self) -> None:
        """Nothing is to be ended."""


class PlainProgress:
    """A line each second.

    Args:
        series: Of which it tells.
    """

    def __init__(self, series: ProbeSeries) -> None:
        self._series = series
        self._loop: Any = None
        self._seconds = 0

    def start(self, reactor: Any, failed: Callable[[Exception], None]) -> None:
        """Begin to print; see :class:`~._ping_outputs.Output`."""
        from twisted.internet.task import LoopingCall  # noqa: PLC0415  # Twisted: only where something is asked

        self._loop = LoopingCall.withCount(self._tick)
        self._loop.clock = reactor
        self._loop.start(PROGRESS_EVERY, now=False).addErrback(lambda failure: failed(failure.value))

    def happened(self, event: ProbeEvent) -> None:
        """Print nothing."""

    def stop(self) -> None:
        """Print no more."""
        if self._loop is not None and self._loop.running:
            self._loop.stop()

    def _tick(self, count: int) -> None:
        self._seconds += count
        click.echo(progress_line(self._series, elapsed=self._seconds * PROGRESS_EVERY))
