"""What ``udpecho ping`` writes for programs while it runs: JSON lines and CSV.

Theory of operation: one line for an event, or one row for a probe, written when it is known. Times of day are those of
the wall clock when the run began plus what the monotonic clock has counted since, so that setting the wall clock
meanwhile moves nothing; durations are seconds. A value that is not known is ``null``, or empty in CSV, never left out.
"""

from __future__ import annotations

import csv
import json
import time
from typing import TYPE_CHECKING, Any, Final, TextIO

import click

from ._output import escaped

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..probing import ProbeEvent, ServerSide

__all__ = ["CSV_COLUMNS", "CsvRows", "JsonLines", "WallClock", "event_as_json"]

CSV_COLUMNS: Final = (
    "sequence", "fate", "sent", "rtt", "reordered", "server_arrived", "server_departed", "detail"
)  # fmt: skip
"""The columns of ``--csv``, which docs/ping.md describes."""

_FATES: Final = {"reply": "received", "lost": "lost", "not_sent": "not_sent"}


class WallClock:
    """The wall clock of times that are the monotonic clock's.

    Args:
        wall_ns: The wall clock in nanoseconds since the epoch.
        monotonic_ns: The monotonic clock in the same moment.
    """

    def __init__(self, wall_ns: int, monotonic_ns: int) -> None:
        self._offset_ns = wall_ns - monotonic_ns

    @classmethod
    def of_now(cls) -> WallClock:
        """Return one by this machine's clocks."""
        return cls(time.time_ns(), time.monotonic_ns())

    def at(self, monotonic_ns: int) -> int | None:
        """Return the time of day in nanoseconds since the epoch; None for a time that is not known (-1)."""
        return monotonic_ns + self._offset_ns if monotonic_ns >= 0 else None


def _seconds(nanoseconds: int | None) -> float | None:
    """Return seconds; since the epoch they are exact to a quarter of a microsecond, as floats of 64 bits are."""
    return None if nanoseconds is None or nanoseconds < 0 else nanoseconds / 10**9


def event_as_json(event: ProbeEvent, clock: WallClock) -> dict[str, object]:
    """Return an event as the object that ``--json-lines`` prints."""
    return {
        "event": event.kind,
        "sequence": event.sequence if event.sequence >= 0 else None,
        "sent": _seconds(clock.at(event.sent_ns)),
        "arrived": _seconds(clock.at(event.arrived_ns)),
        "rtt": _seconds(event.rtt_ns),
        "reordered": event.reordered,
        "server": _server_as_json(event.server),
        "detail": event.detail or None,
    }


def _server_as_json(server: ServerSide | None) -> dict[str, object] | None:
    if server is None:
        return None
    return {
        "received": server.received,
        "duplicates": server.duplicates,
        "arrived": _seconds(server.arrived_ns),
        "departed": _seconds(server.departed_ns),
    }


class JsonLines:
    """``--json-lines``: an object in a line for each event, on standard output."""

    def __init__(self, clock: WallClock) -> None:
        self._clock = clock

    def start(self, reactor: Any, failed: Callable[[Exception], None]) -> None:
        """Nothing is to be started."""

    def happened(self, event: ProbeEvent) -> None:
        """Print the line of an event."""
        if event.kind != "counts":  # it is about the series, whose summary has it
            # Pure ASCII, in which json escapes all that could steer a terminal but DEL.
            click.echo(escaped(json.dumps(event_as_json(event, self._clock), allow_nan=False, separators=(",", ":"))))

    def stop(self) -> None:
        """Nothing is to be ended."""


class CsvRows:
    """``--csv``: a row for each probe, once its fate is decided; the first row names the columns.

    Args:
        file: Where to write.
        clock: Tells the time of day.
        flush: Flush each row, for a reader at the other end of a pipe.
    """

    def __init__(self, file: TextIO, clock: WallClock, *, flush: bool) -> None:
        self._file = file
        self._clock = clock
        self._flush = flush
        self._writer = csv.writer(file, lineterminator="\n")
        self._writer.writerow(CSV_COLUMNS)

    def start(self, reactor: Any, failed: Callable[[Exception], None]) -> None:
        """Nothing is to be started."""

    def happened(self, event: ProbeEvent) -> None:
        """Write the row of a probe whose fate an event decides."""
        fate = _FATES.get(event.kind)
        if fate is None:
            return
        server = event.server
        self._writer.writerow(
            (
                event.sequence,
                fate,
                _decimal(self._clock.at(event.sent_ns)),
                _decimal(event.rtt_ns),
                int(event.reordered) if fate == "received" else "",
                _decimal(server.arrived_ns) if server else "",
                _decimal(server.departed_ns) if server else "",
                escaped(event.detail),
            )
        )
        if self._flush:
            self._file.flush()

    def stop(self) -> None:
        """Have all that was written reach the file."""
        self._file.flush()


def _decimal(nanoseconds: int | None) -> str:
    """Return seconds with all nine decimals, which a float of seconds since the epoch cannot hold."""
    if nanoseconds is None or nanoseconds < 0:
        return ""
    whole, rest = divmod(nanoseconds, 10**9)
    return f"{whole}.{rest:09d}"
