"""Runs of ``udpecho ping`` that are known: events, series and summaries made for the tests of what shows them."""

from __future__ import annotations

import dataclasses
import re
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from twistedudp.probing import ProbeEvent, ProbeSeries, ProbeWire, SeriesNames, Times

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from twisted.trial.unittest import SynchronousTestCase

    from twistedudp.probing import Summary

__all__ = [
    "ADDRESS",
    "MS",
    "NoReactor",
    "reply",
    "screen_of",
    "series_of",
    "summary_of",
    "temporary_folder",
    "times_of",
]

ADDRESS: Final = "192.0.2.1:10000"
MS: Final = 1_000_000
"""Nanoseconds of a millisecond."""


def series_of(rtts: Sequence[int | None], *, target: str = ADDRESS, interval: float = 0.2) -> ProbeSeries:
    """Return a series of which each probe has this round trip in nanoseconds, or was lost."""
    wire = ProbeWire(1 << 63, 64, bytes(64))
    series = ProbeSeries(wire, SeriesNames(target, ADDRESS, interval), timeout_ns=2000 * MS)
    now = 0
    for rtt in rtts:
        _, probe, _ = series.next_probe(due_ns=now, now_ns=now)
        if rtt is not None:
            series.reply_received_untrusted(probe, arrived_ns=now + rtt, kernel_time=True)
        now += round(interval * 1e9)
    series.deadline_reached(now_ns=now + 2000 * MS)
    return series


def summary_of(rtts: Sequence[int | None] | None = None, **changes: Any) -> Summary:
    """Return the summary of such a series (ten probes of 1 ms, if nothing else is said) with some of it changed."""
    return dataclasses.replace(series_of([MS] * 10 if rtts is None else rtts).summary(), **changes)


def times_of(seconds: float) -> Times:
    """Return a distribution all of whose figures are this one."""
    return Times(*[seconds] * len(dataclasses.fields(Times)))


def reply(sequence: int, rtt_ns: int = MS, **changes: Any) -> ProbeEvent:
    """Return the event of an answer."""
    sent_ns = sequence * 200 * MS
    event = ProbeEvent("reply", sequence, rtt_ns, sent_ns=sent_ns, arrived_ns=sent_ns + rtt_ns)
    return event._replace(**changes)


def screen_of(sent: str) -> list[str]:
    """Return the rows that are not empty of a screen that is wide enough, after all that was sent to it."""
    rows: dict[int, str] = {}
    row = column = 0
    for part in re.split(r"(\x1b\[[0-9;?]*[a-zA-Z]|\r|\n)", sent.replace("\0", "")):
        if part == "\r":
            column = 0
        elif part == "\n":
            row, column = row + 1, 0
        elif part == "\x1b[2K":
            rows[row] = ""
        elif up := re.fullmatch(r"\x1b\[(\d*)A", part):
            row -= int(up[1] or 1)
        elif not part.startswith("\x1b"):
            before = rows.get(row, "").ljust(column)
            rows[row] = before[:column] + part + before[column + len(part) :]
            column += len(part)
    return [text.rstrip() for _, text in sorted(rows.items()) if text.strip()]


def temporary_folder(test: SynchronousTestCase) -> Path:
    """Return an empty directory that is gone after the test."""
    folder = tempfile.TemporaryDirectory(prefix="twistedudp-test-")
    test.addCleanup(folder.cleanup)
    return Path(folder.name)


class NoReactor:
    """What an output is started with that needs no reactor."""

    def __init__(self) -> None:
        self.failures: list[Exception] = []

    def start(self, output: Any) -> Callable[[Exception], None]:
        """Start an output."""
        output.start(None, self.failures.append)
        return self.failures.append
