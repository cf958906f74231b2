"""The table of buckets: of fixed size, and what it forgets."""

from __future__ import annotations

import random

from twisted.trial.unittest import SynchronousTestCase

from tests.admission.senders import KEY, MILLISECOND, SECOND, admission
from twistedudp.admission import AdmissionPolicy, AdmissionStats
from twistedudp.admission._buckets import SETS_SHIFT, SLOTS, WAYS, BucketTable, mixed, secrets_of

NOW = 10 * SECOND


def mark(group: int, number: int) -> int:
    """Return a mark of a set."""
    return group << SETS_SHIFT | number + 1


class TableTests(SynchronousTestCase):
    """Places in a set."""

    def setUp(self) -> None:
        """Make a table."""
        self.stats = AdmissionStats()
        self.table = BucketTable(self.stats)

    def put(self, which: int, full_at: int, now: int = NOW) -> None:
        """Set a bucket."""
        self.table.put(self.table.place(which), which, full_at, now)

    def full_at(self, which: int, now: int = NOW) -> int:
        """Return when a bucket is full."""
        return self.table.full_at(self.table.place(which), which, now)

    def test_unknown_is_full(self) -> None:
        """A bucket that is not there is full now, and so is one whose time has passed."""
        self.assertEqual(self.full_at(mark(3, 0)), NOW)
        self.put(mark(3, 0), NOW + 5)
        self.assertEqual(self.full_at(mark(3, 0)), NOW + 5)
        self.assertEqual(self.full_at(mark(3, 0), NOW + 6), NOW + 6)

    def test_sets_apart(self) -> None:
        """Every set has four places of its own; the last ends where the table does."""
        last = (SLOTS // WAYS) - 1
        for group in (0, 1, last):
            for number in range(WAYS):
                self.put(mark(group, number), NOW + number + 1)
        for group in (0, 1, last):
            self.assertEqual([self.full_at(mark(group, number)) - NOW for number in range(WAYS)], [1, 2, 3, 4])
        self.assertEqual(self.stats.evictions, 0)

    def test_fullest_is_forgotten(self) -> None:
        """Where a set is full, the bucket that is nearest to full makes room."""
        for number, ahead in enumerate((40, 10, 30, 20)):
            self.put(mark(5, number), NOW + ahead)
        self.put(mark(5, 9), NOW + 100)
        self.assertEqual([self.full_at(mark(5, number)) - NOW for number in (0, 1, 2, 3, 9)], [40, 0, 30, 20, 100])
        self.assertEqual(self.stats.evictions, 1)

    def test_full_ones_are_no_loss(self) -> None:
        """To forget a bucket that is full again is not counted: nothing is lost."""
        for number in range(WAYS):
            self.put(mark(5, number), NOW + 1)
        self.put(mark(5, 9), NOW + 100, now=NOW + 1)
        self.assertEqual(self.stats.evictions, 0)

    def test_marks_are_unique(self) -> None:
        """Mixing loses nothing: no two prefixes share a mark, and near ones are spread over the sets."""
        secrets = secrets_of(KEY)
        marks = {mixed(number << shift, secrets.ipv4, secrets) for number in range(4096) for shift in (0, 12, 20)}
        self.assertEqual(len(marks), len({number << shift for number in range(4096) for shift in (0, 12, 20)}))
        groups = {one >> SETS_SHIFT for one in marks}
        self.assertGreater(len(groups), 7500, "as many as chance hits of 16,384")


class FloodTests(SynchronousTestCase):
    """Forged senders."""

    def test_heavy_senders_are_remembered(self) -> None:
        """Hosts that have used up their bursts stay refused, though others come that the table has no room for."""
        decider = admission(AdmissionPolicy(rate=1.0, burst=200, total_rate=0))
        heavy = [f"203.0.{number}.9" for number in range(50)]
        self.assertEqual([decider.admitted(host, NOW, 500) for host in heavy], [200] * 50)
        rng = random.Random(6)  # noqa: S311  # nobody is kept out by it
        for number in range(30_000):
            decider.admits(".".join(map(str, rng.randbytes(4))), NOW + number)
        self.assertGreater(decider.stats.evictions, 300)
        self.assertEqual([host for host in heavy if decider.admits(host, NOW + 30_000)], [])

    def test_size(self) -> None:
        """The tables have their size from the first sender to the last."""
        decider = admission(AdmissionPolicy())
        before = decider.__sizeof__()
        self.assertLess(before, 2.2 * 1024 * 1024)
        for number in range(5_000):
            decider.admits(f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}", NOW + number * MILLISECOND)
        self.assertEqual(decider.__sizeof__(), before)
