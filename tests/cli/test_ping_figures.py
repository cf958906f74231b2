"""Figures of ``udpecho ping`` as people read them: units, shares, and the histogram."""

from __future__ import annotations

import sys

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.cli.test_output import Screen
from twistedudp.cli._ping_histogram import LEAST_ANSWERS, MOST_ROWS, histogram_lines
from twistedudp.cli._ping_units import BARS, can_show, counted, interval_text, share_text, time_text, times_text


class UnitsTests(SynchronousTestCase):
    """Numbers with their units."""

    def test_times(self) -> None:
        """A time has three digits and the unit that suits it, also where rounding leads into the next unit."""
        for seconds, text in (
            (0.0, "0 us"),
            (0.0000004, "0.40 us"),
            (0.00000123, "1.23 us"),
            (0.0000123, "12.3 us"),
            (0.000123, "123 us"),
            (0.0009994, "999 us"),
            (0.0009996, "1.00 ms"),
            (0.0099949, "9.99 ms"),
            (0.0099951, "10.0 ms"),
            (0.09996, "100 ms"),
            (0.9996, "1.00 s"),
            (12.34, "12.3 s"),
            (1234.5, "1,234 s"),
            (None, "-"),
        ):
            self.assertEqual(time_text(seconds), text, seconds)

    def test_named_times(self) -> None:
        """Several times are named in one text."""
        self.assertEqual(times_text({"p50": 0.001, "p99": None}), "p50 1.00 ms, p99 -")

    def test_intervals(self) -> None:
        """What somebody chose is shown as it was chosen, without digits that nobody wrote."""
        for seconds, text in (
            (0.2, "200 ms"),
            (0.001, "1 ms"),
            (2.5, "2.5 s"),
            (1 / 15000, "66.67 us"),
            (1e-6, "1 us"),
        ):
            self.assertEqual(interval_text(seconds), text)

    def test_shares(self) -> None:
        """A share is never shown as nothing or as all unless it is."""
        for share, text in (
            (0.0, "0%"),
            (1.0, "100%"),
            (0.01, "1%"),
            (0.12345, "12.3%"),
            (0.000123, "0.0123%"),
            (0.000001, "<0.001%"),
            (0.99999, ">99.9%"),
            (None, "-"),
        ):
            self.assertEqual(share_text(share), text)

    @given(st.floats(0, 1))
    def test_any_share(self, share: float) -> None:
        """Whatever the share is, it stays short."""
        self.assertLessEqual(len(share_text(share)), 8)

    def test_counted(self) -> None:
        """One thing is named otherwise than several."""
        self.assertEqual([counted(number, "probe") for number in (0, 1, 1234)], ["0 probes", "1 probe", "1,234 probes"])

    def test_encodings(self) -> None:
        """Whether bars can be shown is a matter of the encoding of standard output; a closed one shows none."""
        for encoding, can in (("utf-8", True), ("ascii", False), ("latin-1", False)):
            self.patch(sys, "stdout", Screen(terminal=True, encoding=encoding))
            self.assertIs(can_show(BARS), can, encoding)
        self.patch(sys, "stdout", None)
        self.assertFalse(can_show(BARS))


class HistogramTests(SynchronousTestCase):
    """The histogram in the terminal."""

    def test_spread(self) -> None:
        """Round trips over orders of magnitude have ranges that grow, empty ones between them are a line of dots."""
        buckets = [(85_000, 50), (120_000, 100), (130_000, 25), (5_000_000, 1)]
        self.assertEqual(
            histogram_lines(buckets, width=60, blocks=False),
            [
                "    80 us to   90 us  ##############               50  28.4%",
                "    90 us to  100 us                                0   0.0%",
                "   100 us to  110 us                                0   0.0%",
                "   110 us to  125 us  ########################### 100  56.8%",
                "   125 us to  140 us  #######                      25  14.2%",
                "      ...",
                "     5 ms to  5.6 ms  #                             1   0.6%",
            ],
        )

    def test_blocks(self) -> None:
        """With block characters a bar is drawn to the eighth of a character, and what is there is never invisible."""
        lines = histogram_lines([(1_000_000, 1000), (2_000_000, 1), (4_000_000, 501)], width=60, blocks=True)
        bars = ["".join(character for character in line if not character.isascii()) for line in lines]
        full = len(bars[0])
        self.assertEqual(bars[0], "█" * full)
        self.assertIn("▏", bars)
        self.assertIn("█" * (full // 2), bars[-1])

    def test_close_together(self) -> None:
        """Round trips that lie close together have ranges of equal width."""
        buckets = [(200_000_000 + number * 500_000, 10) for number in range(20)]
        lines = histogram_lines(buckets, width=79, blocks=False)
        self.assertTrue(lines[0].startswith("  200 ms to 201 ms  ####"), lines)
        self.assertEqual(len(lines), 10)

    def test_few(self) -> None:
        """A handful of round trips has no histogram, for it would be a list; a few more have few rows."""
        self.assertEqual(histogram_lines([(1000, LEAST_ANSWERS - 1)], width=79, blocks=True), [])
        self.assertEqual(histogram_lines([], width=79, blocks=True), [])
        self.assertEqual(len(histogram_lines([(1000, LEAST_ANSWERS)], width=79, blocks=True)), 1)
        ten = [(100_000 + number * 1000, 1) for number in range(10)]
        self.assertLessEqual(len(histogram_lines(ten, width=79, blocks=True)), 6)

    @given(
        st.lists(st.tuples(st.integers(1, 3600 * 10**9), st.integers(1, 10**6)), min_size=1, max_size=200),
        st.integers(60, 200),
        st.booleans(),
    )
    def test_any(self, unordered: list[tuple[int, int]], width: int, blocks: bool) -> None:
        """Whatever the round trips are, each is counted once, rows and widths keep to their bounds."""
        buckets = sorted(dict(unordered).items())
        total = sum(count for _, count in buckets)
        lines = histogram_lines(buckets, width=width, blocks=blocks)
        if total < LEAST_ANSWERS:
            self.assertEqual(lines, [])
            return
        self.assertLessEqual(len(lines), MOST_ROWS)
        self.assertLessEqual(max(map(len, lines)), width)
        counts = [int(line.split()[-2].replace(",", "")) for line in lines if not line.strip().startswith("...")]
        self.assertEqual(sum(counts), total)
