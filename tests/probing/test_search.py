"""Searches for the largest size and the highest rate, against networks that are a number each."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from twistedudp.probing._search import (
    DOUBT_PER_SIZE,
    LEAST_RATE,
    LEAST_TRIES,
    MOST_TRIES,
    RateSearch,
    SizeSearch,
    tries_for,
)

LEAST, MOST = 56, 65507
HALVINGS = math.ceil(math.log2(MOST - LEAST)) + 1
"""Trials that a search by halving needs at most."""

FIRST, RESOLUTION, CONFIRMATIONS = 20.0, 0.05, 2


def trials_of(search: SizeSearch, passes: int) -> list[int]:
    """Run a search where payloads of up to a size pass; return what was tried."""
    tried = []
    while (size := search.next_size()) is not None:
        tried.append(size)
        if size <= passes:
            search.passed(size)
        else:
            search.failed(size)
        assert len(tried) < 100
    return tried


def rates_of(search: RateSearch, limit: float) -> list[float]:
    """Run a search where rates of up to a limit pass; return what was tried."""
    tried = []
    while (rate := search.next_rate()) is not None:
        tried.append(rate)
        if rate <= limit:
            search.passed(rate)
        else:
            search.failed(rate)
        assert len(tried) < 100
    return tried


class SizeTests(SynchronousTestCase):
    """The largest size that passes."""

    @given(st.integers(LEAST, MOST))
    def test_exact(self, passes: int) -> None:
        """Whatever passes is found to the byte, by halving."""
        search = SizeSearch(LEAST, MOST)
        tried = trials_of(search, passes)
        self.assertEqual(search.largest, passes)
        self.assertEqual(search.too_large, passes + 1)
        self.assertLessEqual(len(tried), HALVINGS + 2)
        self.assertEqual(len(tried), len(set(tried)))
        self.assertTrue(all(LEAST <= size <= MOST for size in tried))

    @given(st.integers(LEAST, MOST), st.lists(st.integers(0, 2 * MOST), max_size=5))
    def test_hints(self, passes: int, hints: list[int]) -> None:
        """Hints of whatever kind change nothing about the result."""
        search = SizeSearch(LEAST, MOST)
        for hint in hints:
            search.hinted(hint)
        trials_of(search, passes)
        self.assertEqual((search.largest, search.too_large), (passes, passes + 1))

    def test_right_hint(self) -> None:
        """A hint that is right settles it: the smallest, the largest, the hint, and one byte more."""
        search = SizeSearch(LEAST, MOST)
        search.hinted(1272)
        self.assertEqual(trials_of(search, 1272), [LEAST, MOST, 1272, 1273])

    def test_whole_range(self) -> None:
        """Where the largest passes, nothing else is tried."""
        self.assertEqual(trials_of(SizeSearch(LEAST, MOST), MOST), [LEAST, MOST])

    def test_one_size(self) -> None:
        """There may be only one size to try."""
        search = SizeSearch(100, 100)
        self.assertEqual(trials_of(search, 100), [100])
        self.assertEqual(search.largest, 100)

    def test_nothing(self) -> None:
        """Where not even the smallest passes, it ends there."""
        search = SizeSearch(LEAST, MOST)
        self.assertEqual(trials_of(search, 0), [LEAST])
        self.assertIsNone(search.largest)
        self.assertEqual(search.too_large, LEAST)

    def test_limited(self) -> None:
        """What the own machine does not send is not tried."""
        search = SizeSearch(LEAST, MOST)
        search.passed(LEAST)
        search.limited(1472)
        self.assertEqual(search.next_size(), 1472)
        search.passed(1472)
        self.assertIsNone(search.next_size())
        self.assertEqual((search.largest, search.too_large), (1472, 1473))
        search.limited(9000)
        self.assertEqual(search.most, 1472)

    def test_contradicted(self) -> None:
        """A size that passes after all is believed, and the search goes on above it."""
        search = SizeSearch(LEAST, MOST)
        above = min(size for size in trials_of(search, 1000) if size > 1001)
        search.passed(1001)
        self.assertEqual((search.largest, search.too_large), (1001, above))
        trials_of(search, 1472)
        self.assertEqual(search.largest, above - 1)

    def test_taken_back(self) -> None:
        """A size that does not pass any more is taken back, and the search goes on below it."""
        search = SizeSearch(LEAST, MOST)
        trials_of(search, 1472)
        search.failed(1472)
        trials_of(search, 1300)
        self.assertEqual((search.largest, search.too_large), (1300, 1301))

    def test_untried(self) -> None:
        """What was only said to be too large can be forgotten."""
        search = SizeSearch(LEAST, 2000)
        search.passed(LEAST)
        search.failed(2000)
        search.untried(2000)
        self.assertEqual(search.next_size(), 2000)


class TriesTests(SynchronousTestCase):
    """How often silence has to be met."""

    def test_bounds(self) -> None:
        """The more is lost, the more tries, between two bounds."""
        counts = [tries_for(unanswered, 1000) for unanswered in range(0, 1001, 50)]
        self.assertEqual(counts, sorted(counts))
        self.assertEqual((counts[0], counts[-1]), (LEAST_TRIES, MOST_TRIES))

    def test_doubt(self) -> None:
        """A size that passes is missed no more often than was said, as far as the bound on tries allows."""
        for percent in range(1, 63):
            self.assertLessEqual((percent / 100) ** tries_for(10 * percent, 1000), DOUBT_PER_SIZE)
        self.assertLess(0.6**MOST_TRIES, 1 / 27_000)

    def test_few_probes(self) -> None:
        """That ten probes were answered is not believed to mean that none is lost."""
        self.assertGreater(tries_for(0, 10), tries_for(0, 10_000))


class RateTests(SynchronousTestCase):
    """The highest rate that passes."""

    def search(self, most: float = 10_000.0) -> RateSearch:
        """Return a search."""
        return RateSearch(FIRST, most, resolution=RESOLUTION, confirmations=CONFIRMATIONS)

    @given(st.floats(FIRST / 2**4, 9_999))
    def test_found(self, limit: float) -> None:
        """A limit is found within the resolution, confirmed, and never exceeded by more than twice."""
        search = self.search()
        tried = rates_of(search, limit)
        assert search.highest is not None
        assert search.too_fast is not None
        self.assertTrue(search.highest <= limit <= search.too_fast)
        self.assertLessEqual(search.too_fast, search.highest * (1 + RESOLUTION))
        self.assertTrue(search.confirmed)
        self.assertEqual(tried.count(search.highest), 1 + CONFIRMATIONS)
        self.assertLessEqual(max(tried), max(FIRST, 2 * limit))
        self.assertEqual(tried[0], FIRST)

    @given(st.floats(1.5, 1e6))
    def test_most(self, most: float) -> None:
        """The bound is never exceeded, and is the result where nothing is lost."""
        search = self.search(most)
        tried = rates_of(search, math.inf)
        self.assertEqual(search.highest, most)
        self.assertIsNone(search.too_fast)
        self.assertLessEqual(max(tried), most)
        self.assertTrue(search.confirmed)

    def test_doubling(self) -> None:
        """It doubles up to the first loss, then looks between the bounds only."""
        tried = rates_of(self.search(), 700)
        self.assertEqual(tried[:7], [20, 40, 80, 160, 320, 640, 1280])
        self.assertTrue(all(640 <= rate < 1280 for rate in tried[7:]))

    def test_nothing(self) -> None:
        """Where every rate loses it goes down to the least, and has no result."""
        search = self.search()
        tried = rates_of(search, 0)
        self.assertEqual(tried, [20, 10, 5, 2.5, 1.25])
        self.assertGreaterEqual(tried[-1], LEAST_RATE)
        self.assertIsNone(search.highest)
        self.assertFalse(search.confirmed)

    def test_good_luck(self) -> None:
        """A rate that passes once and not again is not the result, nor is what is above it."""
        search = self.search()
        rates_of(search, 700)
        assert search.highest is not None
        lucky = search.highest
        search.failed(lucky)
        rates_of(search, 500)
        self.assertEqual(search.too_fast and search.too_fast <= lucky, True)
        self.assertTrue(500 / (1 + RESOLUTION) <= search.highest <= 500)
        self.assertTrue(search.confirmed)

    def test_limited(self) -> None:
        """What the own machine cannot send is not asked of it again; what it can is the result, if it passes again."""
        search = self.search()
        search.passed(20)
        search.passed(40)
        search.limited(70.0)
        self.assertEqual((search.highest, search.next_rate(), search.too_fast), (70.0, 70.0, None))
        self.assertEqual(rates_of(search, math.inf), [70.0] * CONFIRMATIONS)
        self.assertTrue(search.confirmed)
