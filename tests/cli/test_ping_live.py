"""The live display of ``udpecho ping``: what it shows, how it is drawn, and that nothing of it remains."""

from __future__ import annotations

import io
import os
import signal
from typing import TYPE_CHECKING, Any

from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from tests.cli.pings import ADDRESS, MS, reply, screen_of, series_of
from twistedudp.cli._ping_live import (
    REFRESH_AT_SHORT_INTERVALS,
    REFRESH_EVERY,
    LiveDisplay,
    RunNames,
    spark,
)
from twistedudp.cli._ping_recent import MOST_COLUMNS, Column, RecentProbes, RunningPercentiles
from twistedudp.cli._ping_units import ASCII_BARS, BARS, CROSS
from twistedudp.probing import ProbeEvent

if TYPE_CHECKING:
    from twistedudp.probing import ProbeSeries


class Terminal(Console):
    """A terminal in memory, whose width can change."""

    def __init__(self, width: int = 80, **named: Any) -> None:
        self.sent = io.StringIO()
        super().__init__(
            file=self.sent, force_terminal=True, width=width, height=24, color_system="standard", _environ={}, **named
        )


class Displayed(SynchronousTestCase):
    """A test that has a display of a series whose events it plays."""

    def display(
        self, series: ProbeSeries, console: Console | None = None, *, clock: Clock | None = None, **changes: Any
    ) -> LiveDisplay:
        """Return a display that was told of a series' answers and losses."""
        names: dict[str, Any] = {"title": ADDRESS, "interval": 0.2, "count": None, "duration": None}
        characters = changes.pop("characters", True)
        shown = LiveDisplay(
            series,
            RunNames(**{**names, **changes}),
            console or Terminal(),
            characters=characters,
            seconds=(clock or Clock()).seconds,
        )
        self.addCleanup(shown.stop)
        return shown

    def lines(self, shown: LiveDisplay, width: int = 76) -> list[str]:
        """Return what a display shows."""
        return [line.rstrip() for line in shown.text(width).plain.split("\n")]


class TextTests(Displayed):
    """What the display says."""

    def test_run_with_an_end(self) -> None:
        """A run with a count shows its server, the last round trips with the losses, the figures, and the time left."""
        clock = Clock()
        shown = self.display(series_of([MS, 2 * MS, None, 4 * MS]), clock=clock, count=40)
        for event in (reply(0), reply(1, 2 * MS), reply(3, 4 * MS), ProbeEvent("lost", 2)):
            shown.happened(event)
        clock.advance(2.6)  # 4 probes are overdue
        self.assertEqual(
            self.lines(shown),
            [
                f"{ADDRESS}  64 bytes every 200 ms",
                f"1.00 ms to 4.00 ms     ▁▅{CROSS}█",
                "4 sent, 3 received, 1 lost (25%)  p50 2.00 ms  p99 4.00 ms",
                "━━━━━─────────────────────────────────────────────────  10%  7.2 s left",
            ],
        )

    def test_run_without_an_end(self) -> None:
        """A run without an end tells how long it has lasted, and how to end it."""
        clock = Clock()
        shown = self.display(series_of([]), clock=clock)
        clock.advance(187.0)
        self.assertEqual(
            self.lines(shown)[1:],
            [
                "no answer yet",
                "0 sent, 0 received, 0 lost  p50 -  p99 -",
                "3:07; Ctrl-C ends the run and prints its summary",
            ],
        )

    def test_time_left(self) -> None:
        """Of count and duration the one that ends first counts; when all is sent, the answers are waited for."""
        clock = Clock()
        shown = self.display(series_of([MS] * 5), clock=clock, count=10, duration=100.0)
        self.assertTrue(self.lines(shown)[-1].endswith(" 50%  1.0 s left"), self.lines(shown))
        clock.advance(99.5)
        self.assertTrue(self.lines(shown)[-1].endswith(" 100%  0.5 s left"), self.lines(shown))
        series = series_of([MS] * 10)
        series.next_probe(due_ns=0, now_ns=10**12)
        shown = self.display(series, clock=Clock(), count=11)
        self.assertTrue(self.lines(shown)[-1].endswith(" waiting for 1 more"), self.lines(shown))
        shown = self.display(series_of([MS]), clock=Clock(), duration=3600.0)
        self.assertTrue(self.lines(shown)[-1].endswith(" 0%  1:00:00 left"), self.lines(shown))

    def test_loss_so_far(self) -> None:
        """The share of lost probes is that of the ones whose timeout has passed: others may yet be lost."""
        clock = Clock()
        series = series_of([MS] * 20)
        shown = self.display(series, clock=clock)
        self.assertIn("0 lost  p50", self.lines(shown)[2])
        series.table.lost, series.table.received = 1, 10
        clock.advance(2.2)  # two probes have had their two seconds
        self.assertIn("1 lost (50%)", self.lines(shown)[2])
        clock.advance(1000.0)
        self.assertIn("1 lost (5%)", self.lines(shown)[2])

    def test_refused(self) -> None:
        """What the network says against it is a line of its own, without what could steer the terminal."""
        series = series_of([None])
        series.table.unreachable = 3
        shown = self.display(series)
        shown.happened(ProbeEvent("unreachable", 0, detail="Connection refused\x1b"))
        self.assertEqual(self.lines(shown)[3], r"3 ICMP errors: Connection refused\u001b")
        self.assertEqual(len(self.lines(shown)), 5)

    def test_short_intervals(self) -> None:
        """Where probes leave faster than columns can be told apart, a column is several, and losses have a row."""
        shown = self.display(series_of([MS] * 30), interval=0.01)
        for sequence in range(10):
            shown.happened(reply(sequence, (1 + sequence) * MS))
        for sequence in range(10, 20):
            shown.happened(reply(sequence) if sequence % 2 else ProbeEvent("lost", sequence))
        for sequence in range(20, 30):
            shown.happened(ProbeEvent("lost", sequence))
        self.assertEqual(
            self.lines(shown)[1:3],
            [f"1.00 ms to 10.0 ms     █▁{CROSS}", "lost of each 10         ▅█"],
        )

    def test_ascii(self) -> None:
        """A terminal with ASCII only gets ASCII only."""
        shown = self.display(series_of([MS, None, 2 * MS]), characters=False, count=10)
        for event in (reply(0), ProbeEvent("lost", 1), reply(2, 2 * MS)):
            shown.happened(event)
        self.assertTrue("\n".join(self.lines(shown)).isascii())
        self.assertEqual(self.lines(shown)[1], "1.00 ms to 2.00 ms     _x#")

    def test_widths(self) -> None:
        """No line is longer than what there is, however narrow."""
        shown = self.display(series_of([MS] * 300), count=301, interval=0.01)
        for sequence in range(300):
            shown.happened(reply(sequence, MS + sequence))
        for width in (200, 80, 40, 10, 1):
            self.assertLessEqual(max(map(len, self.lines(shown, width))), width)
        self.assertEqual(len(self.lines(shown, 200)[1]), 23 + 30)

    def test_meaning_without_colour(self) -> None:
        """The colours are those of any terminal's own, and repeat only what the characters say."""
        shown = self.display(series_of([MS, None]))
        shown.happened(reply(0))
        shown.happened(ProbeEvent("lost", 1))
        styles = {str(span.style) for span in shown.text(76).spans}
        self.assertTrue(styles <= {"", "bold", "dim", "green", "yellow", "bold red"}, styles)


class SparkTests(SynchronousTestCase):
    """Columns as characters."""

    def test_scale(self) -> None:
        """Heights grow with the logarithm of the round trip, from the shortest to the longest."""
        columns = [Column(MS * 2**power, 0.0) for power in range(8)]
        self.assertEqual(spark(columns, BARS, cross="x"), [(BARS, "")])
        self.assertEqual(spark(columns, ASCII_BARS, cross="x"), [(ASCII_BARS, "")])

    def test_noise(self) -> None:
        """What differs by a few percent is drawn as nearly the same."""
        ((text, _),) = spark([Column(1000, 0.0), Column(1010, 0.0), Column(1030, 0.0)], BARS, cross="x")
        self.assertEqual(text, "▁▁▁")

    def test_losses(self) -> None:
        """A column without an answer is a cross where all was lost, and a blank where nothing is known."""
        self.assertEqual(
            spark([Column(MS, 0.5), Column(-1, 1.0), Column(-1, 0.0)], BARS, cross="x"),
            [("▁", ""), ("x", "bold red"), (" ", "")],
        )
        self.assertEqual(spark([], BARS, cross="x"), [])


class RecentTests(SynchronousTestCase):
    """The last probes by columns, and percentiles so far."""

    def test_columns(self) -> None:
        """Columns are in the order of the probes, the newest last, whatever order answers come in."""
        recent = RecentProbes(0.2)
        for event in (reply(1, 20), reply(0, 10), ProbeEvent("lost", 2), reply(1, 99, kind="late")):
            recent.happened(event)
        expected = [Column(10, 0.0), Column(20, 0.0), Column(-1, 1.0), Column(-1, 0.0)]
        self.assertEqual(recent.columns(10, 4), expected)
        self.assertEqual(recent.columns(2, 4), expected[-2:])
        self.assertEqual(recent.columns(10, 0), [])

    def test_ring(self) -> None:
        """Old columns make room, and an answer that is late by more than all of them is left out."""
        recent = RecentProbes(0.2)
        recent.happened(reply(MOST_COLUMNS + 3, 10))
        recent.happened(reply(3, 99))
        columns = recent.columns(1000, MOST_COLUMNS + 4)
        self.assertEqual((len(columns), columns[-1], columns[0]), (MOST_COLUMNS, Column(10, 0.0), Column(-1, 0.0)))

    def test_several_in_a_column(self) -> None:
        """A column of several probes has their longest round trip and the share that was lost."""
        recent = RecentProbes(0.001)
        self.assertEqual(recent.per_column, 100)
        for event in (reply(0, 10), reply(50, 30), reply(99, 20), ProbeEvent("lost", 98)):
            recent.happened(event)
        self.assertEqual(recent.columns(10, 100), [Column(30, 0.25)])

    @given(st.lists(st.integers(0, 2**62), min_size=1, max_size=300), st.floats(0, 100))
    def test_percentiles(self, values: list[int], percent: float) -> None:
        """A percentile is within 0.2 % of the value that so many do not exceed."""
        percentiles = RunningPercentiles()
        for value in values:
            percentiles.add(value)
        found = percentiles.value(percent)
        assert found is not None
        rank = max(1.0, len(values) * percent / 100)
        exact = next(value for place, value in enumerate(sorted(values), 1) if place >= rank)
        self.assertLessEqual(abs(found - exact), exact / 500 + 0.5)

    def test_no_percentile(self) -> None:
        """Of nothing there is none."""
        self.assertIsNone(RunningPercentiles().value(50))


class ScreenTests(Displayed):
    """How it is drawn on a terminal."""

    def started(self, console: Terminal, clock: Clock, **names: Any) -> LiveDisplay:
        """Return a display that is on the screen."""
        shown = self.display(series_of([MS]), console, clock=clock, **names)
        shown.start(clock, self.fail)
        return shown

    def test_refreshed(self) -> None:
        """It is drawn at once and ten times a second, and four times where probes leave more often."""
        for interval, every in ((0.2, REFRESH_EVERY), (0.001, REFRESH_AT_SHORT_INTERVALS)):
            console, clock = Terminal(), Clock()
            shown = self.started(console, clock, interval=interval)
            self.assertEqual(console.sent.getvalue().count("Ctrl-C"), 1)
            clock.pump([every] * 4)
            self.assertEqual(console.sent.getvalue().count("Ctrl-C"), 5)
            clock.pump([every / 100] * 50)
            self.assertEqual(console.sent.getvalue().count("Ctrl-C"), 5)
            shown.stop()
            self.assertEqual(clock.getDelayedCalls(), [])

    def test_erased(self) -> None:
        """At the end each of its lines is erased, the cursor is shown again, and signals do what they did."""
        before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)]
        console, clock = Terminal(), Clock()
        shown = self.started(console, clock)
        self.assertEqual(len(screen_of(console.sent.getvalue())), 4)
        clock.pump([REFRESH_EVERY] * 3)
        self.assertEqual(len(screen_of(console.sent.getvalue())), 4)
        shown.stop()
        shown.stop()
        self.assertEqual(screen_of(console.sent.getvalue()), [])
        self.assertGreater(console.sent.getvalue().rfind("\x1b[?25h"), console.sent.getvalue().rfind("\x1b[?25l"))
        self.assertEqual([signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)], before)

    def test_narrower(self) -> None:
        """When the terminal became narrower, what its lines take up now is erased, and drawn anew for the width."""
        console, clock = Terminal(), Clock()
        self.started(console, clock)
        console.sent.truncate(0)
        console.width = 30
        clock.advance(REFRESH_EVERY)
        sent = console.sent.getvalue().lstrip("\0")
        # Of 30 columns, three of the four lines take up two rows each.
        self.assertTrue(sent.startswith("\r\x1b[2K" + "\x1b[A\x1b[2K" * 6 + "\n" * 3 + "\r"), repr(sent[:80]))
        self.assertLess(max(map(len, screen_of(console.sent.getvalue()))), 30)

    def test_no_colour(self) -> None:
        """Where NO_COLOR is set, no colour is sent."""
        console, clock = Terminal(no_color=True), Clock()
        shown = self.display(series_of([None]), console, clock=clock)
        shown.happened(ProbeEvent("lost", 0))
        shown.start(clock, self.fail)
        self.assertNotIn("\x1b[1;31m", console.sent.getvalue())
        self.assertIn(CROSS, console.sent.getvalue())
        coloured = Terminal()
        shown = self.display(series_of([None]), coloured, clock=clock)
        shown.happened(ProbeEvent("lost", 0))
        shown.start(clock, self.fail)
        self.assertIn("\x1b[1;31m", coloured.sent.getvalue())

    def test_killed(self) -> None:
        """SIGTERM has its effect, but first the cursor is shown again."""
        got: list[str] = []
        console, clock = Terminal(), Clock()

        def handler(_number: int, _frame: object) -> None:
            got.append(console.sent.getvalue()[-20:])

        before = signal.signal(signal.SIGTERM, handler)
        self.addCleanup(signal.signal, signal.SIGTERM, before)
        self.started(console, clock)
        console.sent.truncate(0)
        os.kill(os.getpid(), signal.SIGTERM)
        self.assertEqual(len(got), 1)
        self.assertIn("\x1b[?25h", got[0])
