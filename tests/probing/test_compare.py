"""Comparisons of runs: that the intervals hold as often as they claim to, and that differences are found."""

from __future__ import annotations

import base64
import json
import math
import random
import tracemalloc
import zlib
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from twisted.trial.unittest import SynchronousTestCase

from tests.binomial import binomial_bounds
from tests.probing.runs import draw, run_of, summary_of
from twistedudp.probing._compare import (
    DEFAULT_CONFIDENCE,
    JITTER_SETTLES,
    MEASURES,
    _binomial,
    _neighbours,
    _order_statistics,
    _ranks,
    _smoothed,
    _student,
    _wilson,
    compare_runs,
)
from twistedudp.probing._runs import LARGEST_HISTOGRAM, LARGEST_PAYLOAD, run_of_json_untrusted

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from twistedudp.probing._compare import Comparison, Difference
    from twistedudp.probing._runs import Run

ROUND_TRIPS: Final[Mapping[str, Callable[[random.Random], float]]] = {
    "uniform": lambda rng: 0.01 + 0.01 * rng.random(),
    "lognormal": lambda rng: rng.lognormvariate(-5, 0.5),
    "two paths": lambda rng: (0.001 if rng.random() < 0.5 else 0.005) + 1e-4 * rng.random(),
    "long tail": lambda rng: 0.001 + 1e-4 * rng.paretovariate(2.5),
    "constant": lambda _rng: 0.05,
}
"""Networks: round trips in seconds."""

PAIRS: Final = 150
"""Pairs of runs of each network. What is seen of them never changes, for chance is seeded."""


def seeded(seed: int | str) -> random.Random:
    """Return a generator of chance that is always the same."""
    return random.Random(seed)  # noqa: S311  # nothing is secret


def pairs(
    seed: str,
    count: int,
    probes: int,
    a: Callable[[random.Random], float],
    b: Callable[[random.Random], float] | None = None,
    *,
    losses: tuple[float, float] = (0.02, 0.02),
    confidence: float = DEFAULT_CONFIDENCE,
) -> list[Comparison]:
    """Return comparisons of as many pairs of runs; without a second network both are of the first."""
    rng = seeded(seed)
    return [
        compare_runs(
            run_of(draw(rng, probes, loss=losses[0], rtt=a)),
            run_of(draw(rng, probes, loss=losses[1], rtt=b or a)),
            confidence,
        )
        for _ in range(count)
    ]


def measured(compared: Comparison, measure: str) -> Difference:
    """Return the difference of one figure."""
    [one] = (one for one in compared.differences if one.measure == measure)
    return one


class ValidityTests(SynchronousTestCase):
    """Intervals hold as often as they claim to."""

    def test_false_alarms(self) -> None:
        """Two runs of one network differ in any figure no more often than the confidence allows."""
        alarms = total = 0
        for name, rtt in ROUND_TRIPS.items():
            for probes, loss in ((100, 0.0), (600, 0.02)):
                compared = pairs(f"{name} {probes}", PAIRS, probes, rtt, losses=(loss, loss))
                wrong = sum(bool(one.having("worse") or one.having("better")) for one in compared)
                self.assertLessEqual(wrong, binomial_bounds(PAIRS, 1 - DEFAULT_CONFIDENCE)[1], (name, probes))
                alarms += wrong
                total += PAIRS
        self.assertLessEqual(alarms, binomial_bounds(total, 1 - DEFAULT_CONFIDENCE)[1])

    def test_true_differences(self) -> None:
        """Where the true differences are known, the intervals hold all of them as often as they claim to."""
        true = {"loss": 0.03, "mean": 3e-3, "p50": 3e-3, "p90": 3.8e-3, "p99": 3.98e-3, "jitter": 2e-3 / 3}
        compared = pairs(
            "known",
            PAIRS,
            700,
            lambda rng: 0.010 + 0.010 * rng.random(),
            lambda rng: 0.012 + 0.012 * rng.random(),
            losses=(0.02, 0.05),
        )
        missed = 0
        for comparison in compared:
            found = {one.measure: one for one in comparison.differences}
            self.assertEqual(comparison.having("unknown"), [])
            missed += not all(
                (found[measure].low or 0.0) <= value <= (found[measure].high or 0.0) for measure, value in true.items()
            )
        self.assertLessEqual(missed, binomial_bounds(PAIRS, 1 - DEFAULT_CONFIDENCE)[1])

    def test_no_wider_than_need_be(self) -> None:
        """Intervals of little confidence are wrong about as often as they may be: none is valid by being wide."""
        count, confidence = 400, 0.4
        compared = pairs("narrow", count, 300, ROUND_TRIPS["lognormal"], losses=(0.1, 0.1), confidence=confidence)
        doubt = (1 - confidence) / len(MEASURES)
        for measure in ("loss", "mean", "jitter"):  # those of percentiles are known to err on the safe side
            wrong = sum(measured(one, measure).verdict in ("worse", "better") for one in compared)
            self.assertGreaterEqual(wrong, binomial_bounds(count, doubt / 2)[0], measure)
        for measure in MEASURES:
            wrong = sum(measured(one, measure).verdict in ("worse", "better") for one in compared)
            self.assertLessEqual(wrong, binomial_bounds(count, doubt * 1.3)[1], measure)


class PowerTests(SynchronousTestCase):
    """Differences that are there are found, and only those."""

    def found(self, measure: str, compared: list[Comparison]) -> int:
        """Return in how many comparisons a figure is found to be worse."""
        return sum(measured(one, measure).verdict == "worse" for one in compared)

    def test_loss(self) -> None:
        """1 % and 6 % of 1,000 probes lost are told apart, and the round trips stay the same."""
        compared = pairs("loss", 60, 1000, ROUND_TRIPS["uniform"], losses=(0.01, 0.06))
        self.assertGreaterEqual(self.found("loss", compared), 57)
        self.assertLessEqual(sum(self.found(measure, compared) for measure in MEASURES[1:]), 6)

    def test_slower(self) -> None:
        """Round trips that are longer by a tenth are found in mean and median."""
        compared = pairs("slow", 60, 1000, ROUND_TRIPS["uniform"], lambda rng: 0.011 + 0.011 * rng.random())
        for measure in ("mean", "p50", "p90"):
            self.assertGreaterEqual(self.found(measure, compared), 57, measure)

    def test_tail(self) -> None:
        """Where 5 % take ten times as long the 99th percentile says so, and the median does not."""

        def with_tail(rng: random.Random) -> float:
            return (0.1 if rng.random() < 0.05 else 0.01) + 0.01 * rng.random()

        compared = pairs("tail", 60, 1000, ROUND_TRIPS["uniform"], with_tail)
        self.assertGreaterEqual(self.found("p99", compared), 57)
        self.assertLessEqual(self.found("p50", compared), 6)

    def test_jitter(self) -> None:
        """Four times the jitter around the same median is found."""
        compared = pairs(
            "jitter",
            60,
            400,
            lambda rng: 0.020 + 0.001 * rng.uniform(-1, 1),
            lambda rng: 0.020 + 0.004 * rng.uniform(-1, 1),
        )
        self.assertGreaterEqual(self.found("jitter", compared), 57)

    def test_other_way_round(self) -> None:
        """What is worse one way is better the other way round, by the same numbers."""
        rng = seeded(5)
        a = run_of(draw(rng, 700, loss=0.02, rtt=ROUND_TRIPS["uniform"]))
        b = run_of(draw(rng, 700, loss=0.10, rtt=ROUND_TRIPS["lognormal"]))
        there, back = compare_runs(a, b), compare_runs(b, a)
        self.assertEqual(there.having("worse"), back.having("better"))
        self.assertIn("loss", there.having("worse"))
        for one, other in zip(there.differences, back.differences, strict=True):
            for value, opposite in ((one.low, other.high), (one.high, other.low), (one.difference, other.difference)):
                assert value is not None
                assert opposite is not None
                self.assertAlmostEqual(value, -opposite, 12)


class FigureTests(SynchronousTestCase):
    """Single methods against numbers that others have worked out."""

    def test_wilson(self) -> None:
        """Wilson's interval of 81 of 263 (Newcombe 1998, table I: 0.2553 to 0.3662), and of none and all."""
        low, share, high = _wilson(81, 263, 0.05) or (0.0, 0.0, 0.0)
        self.assertEqual((round(low, 4), round(high, 4)), (0.2553, 0.3662))
        self.assertAlmostEqual(share, 81 / 263)
        self.assertEqual((_wilson(0, 20, 0.05) or (1,))[0], 0.0)
        self.assertEqual((_wilson(20, 20, 0.05) or (0, 0, 0))[2], 1.0)
        self.assertIsNone(_wilson(0, 0, 0.05))

    def test_newcombe(self) -> None:
        """The difference of 56/70 and 48/80 (Newcombe 1998, table II, method 10: 0.0524 to 0.3339)."""
        confidence = 1 - 0.05 * len(MEASURES)  # so that each interval has 95 %
        rng = seeded(1)
        run = run_of(draw(rng, 100, rtt=ROUND_TRIPS["uniform"]))
        a, b = replace(run, lost=48, received=32), replace(run, lost=56, received=14)
        one = measured(compare_runs(a, b, confidence), "loss")
        assert one.low is not None
        assert one.high is not None
        self.assertEqual((round(one.low, 4), round(one.high, 4)), (0.0524, 0.3339))

    def test_student(self) -> None:
        """Quantiles of Student's t against the tables."""
        for freedom, value in ((5, 2.571), (10, 2.228), (30, 2.042), (1e6, 1.960)):
            self.assertAlmostEqual(_student(0.975, freedom), value, 2)

    def test_neighbours(self) -> None:
        """Moments of the distance of two round trips, and of two distances with one in common, by trying all."""
        times = [3_000_000, 3_000_000, 5_000_000, 9_000_000, 1_000_000]
        mean, variance, covariance = _neighbours(run_of(times))
        distances = [[abs(one - other) / 1e9 for one in times] for other in times]
        every = [distance for row in distances for distance in row]
        expected = sum(every) / len(every)
        self.assertAlmostEqual(mean / expected, 1, 3)
        self.assertAlmostEqual(variance / (sum(one**2 for one in every) / len(every) - expected**2), 1, 2)
        shared = [one * other for row in distances for one in row for other in row]
        self.assertAlmostEqual(covariance / (sum(shared) / len(shared) - expected**2), 1, 2)

    def test_jitter_varies(self) -> None:
        """The jitter varies from run to run as much as its interval supposes."""
        rng = seeded(11)
        runs = [run_of(draw(rng, 120, rtt=lambda rng: 0.01 + rng.expovariate(100))) for _ in range(1200)]
        jitters = [run.jitter or 0.0 for run in runs]
        mean = sum(jitters) / len(jitters)
        variance = sum((jitter - mean) ** 2 for jitter in jitters) / len(jitters)
        z = 1.96
        intervals = [_smoothed(run, mean, 0.05) for run in runs]
        supposed = sum((math.log(high / low) / 2 / z * mean) ** 2 for low, _, high in intervals) / len(runs)
        self.assertTrue(0.85 < supposed / variance < 1.15, supposed / variance)

    def test_order_statistics(self) -> None:
        """The ends are those of the histogram's buckets in which the ranks fall."""
        times = [1_000_000 * number for number in range(1, 1001)]
        run = run_of(times)
        ranks = _ranks(1000, 0.5, 0.05)
        assert ranks is not None
        low, _, high = _order_statistics(run, 0.5, 0.05) or (0.0, 0.0, 0.0)
        low_bucket, high_bucket = run.buckets[ranks[0] - 1], run.buckets[ranks[1] - 1]
        self.assertEqual((low_bucket.answers, high_bucket.answers), (1, 1))
        self.assertAlmostEqual(low, low_bucket.low, 8)
        self.assertAlmostEqual(high, high_bucket.high, 8)

    def test_ranks(self) -> None:
        """The ranks are those of which the binomial distribution says so, and no nearer ones."""
        for count, share in ((10, 0.5), (100, 0.5), (100, 0.9), (1000, 0.99), (5000, 0.5)):
            low, high = _ranks(count, share, 0.05) or (0, 0)
            below = [_binomial(count, share, number) for number in range(count + 1)]
            self.assertLessEqual(sum(below[:low]), 0.025)
            self.assertGreater(sum(below[: low + 1]), 0.025)
            self.assertLessEqual(sum(below[high:]), 0.025)
            self.assertGreater(sum(below[high - 1 :]), 0.025)
        self.assertEqual(_ranks(10, 0.5, 0.05), (2, 9))  # as the tables of the sign test have it
        self.assertIsNone(_ranks(100, 0.99, 0.05))
        self.assertIsNone(_ranks(1, 0.5, 0.05))

    def test_large_counts(self) -> None:
        """Ten million answers are no more work than need be."""
        low, high = _ranks(10_000_000, 0.5, 0.05) or (0, 0)
        self.assertLess(abs(5_000_000 - 1.96 * math.sqrt(2_500_000) - low), 3)
        self.assertLess(abs(5_000_000 + 1.96 * math.sqrt(2_500_000) - high), 3)


class EdgeTests(SynchronousTestCase):
    """Runs about which little can be said."""

    def nothing(self) -> Run:
        """Return a run of which nothing came back."""
        return run_of_json_untrusted(summary_of([None] * 50))

    def test_few(self) -> None:
        """Too few answers for a percentile say how many it needs, and make no difference of it."""
        run = run_of(draw(seeded(1), 100, rtt=ROUND_TRIPS["uniform"]))
        one = measured(compare_runs(run, run), "p99")
        self.assertEqual((one.verdict, one.low, one.high), ("unknown", None, None))
        assert one.a is not None
        doubt = (1 - DEFAULT_CONFIDENCE) / len(MEASURES)
        self.assertLessEqual(0.99**one.wants, doubt / 2)
        self.assertGreater(0.99 ** (one.wants - 1), doubt / 2)
        enough = run_of(draw(seeded(1), one.wants, rtt=ROUND_TRIPS["uniform"]))
        self.assertEqual(measured(compare_runs(enough, enough), "p99").verdict, "no difference")

    def test_unsettled_jitter(self) -> None:
        """A jitter that has not settled is not compared."""
        few = run_of(draw(seeded(1), JITTER_SETTLES - 1, rtt=ROUND_TRIPS["uniform"]))
        one = measured(compare_runs(few, few), "jitter")
        self.assertEqual((one.verdict, one.wants), ("unknown", JITTER_SETTLES))

    def test_nothing_received(self) -> None:
        """Where nothing came back the loss is worse, and the times are not known."""
        run = run_of(draw(seeded(1), 100, rtt=ROUND_TRIPS["uniform"]))
        compared = compare_runs(run, self.nothing())
        self.assertEqual(compared.having("worse"), ["loss"])
        self.assertEqual(compared.having("unknown"), list(MEASURES[1:]))
        self.assertEqual(compare_runs(self.nothing(), self.nothing()).having("no difference"), ["loss"])

    def test_same(self) -> None:
        """A run does not differ from itself, whatever the confidence."""
        run = run_of(draw(seeded(1), 3000, loss=0.1, rtt=ROUND_TRIPS["lognormal"]))
        for confidence in (0.5, 0.95, 0.9999):
            self.assertEqual(compare_runs(run, run, confidence).having("no difference"), list(MEASURES))

    def test_finer_than_the_histogram(self) -> None:
        """Round trips that the histogram does not tell apart make no difference of their percentiles."""
        a, b = (run_of([40_000_000, *[50_000_000 + extra] * 998, 60_000_000]) for extra in (0, 2_000))
        compared = compare_runs(a, b)
        for measure in ("p50", "p90"):
            self.assertEqual(measured(compared, measure).verdict, "no difference", measure)

    def test_margin(self) -> None:
        """A difference of times within the margin is negligible; one of loss never is."""
        rng = seeded(2)
        a = run_of(draw(rng, 1000, loss=0.01, rtt=lambda rng: 0.01 + 0.001 * rng.random()))
        b = run_of(draw(rng, 1000, loss=0.10, rtt=lambda rng: 0.0103 + 0.001 * rng.random()))
        self.assertIn("p50", compare_runs(a, b).having("worse"))
        compared = compare_runs(a, b, margin=0.1)
        self.assertEqual(compared.having("worse"), ["loss"])
        self.assertIn("p50", compared.having("negligible"))
        self.assertIn("p50", compare_runs(b, a, margin=0.1).having("negligible"))
        self.assertIn("p50", compare_runs(a, b, margin=0.01).having("worse"))
        # A margin within the interval: the difference may be less, or more.
        one = measured(compare_runs(a, b), "p50")
        assert one.low is not None
        assert one.high is not None
        assert one.a is not None
        self.assertIn("p50", compare_runs(a, b, margin=(one.low + one.high) / 2 / one.a).having("negligible"))

    def test_notes(self) -> None:
        """What else differs between the runs is named."""
        rng = seeded(1)
        fates = draw(rng, 10, rtt=ROUND_TRIPS["uniform"])
        a, b = (run_of_json_untrusted(summary_of(fates, size=size, interval=size / 1e4)) for size in (64, 512))
        self.assertEqual(compare_runs(a, a).notes, ())
        self.assertEqual(
            compare_runs(a, b).notes,
            (
                "the runs differ in size: 64 and 512 bytes",
                "the runs differ in interval: 0.0064 s and 0.0512 s",
            ),
        )

    def test_json(self) -> None:
        """A comparison is a JSON object with a verdict for each figure."""
        run = run_of(draw(seeded(1), 1000, rtt=ROUND_TRIPS["uniform"]))
        whole = json.loads(json.dumps(compare_runs(run, replace(run, lost=500)).as_json(), allow_nan=False))
        self.assertEqual((whole["format"], whole["worse"], whole["better"]), (1, ["loss"], []))
        self.assertEqual([one["measure"] for one in whole["differences"]], list(MEASURES))
        self.assertEqual({one["unit"] for one in whole["differences"][1:]}, {"seconds"})


class ReadingTests(SynchronousTestCase):
    """Summaries read back."""

    def summary(self) -> dict[str, object]:
        """Return a right one."""
        return summary_of(draw(seeded(3), 300, loss=0.1, rtt=ROUND_TRIPS["lognormal"]))

    def test_round_trip(self) -> None:
        """What a series sums up is read back as it was."""
        for name, rtt in ROUND_TRIPS.items():
            fates = draw(seeded(3), 300, loss=0.1, rtt=rtt)
            read, made = run_of_json_untrusted(summary_of(fates)), run_of(fates)
            self.assertEqual((read.received, read.lost), (made.received, made.lost))
            self.assertEqual(read.buckets, made.buckets, name)
            for field in ("mean", "stddev", "jitter", "shortest", "longest"):
                self.assertAlmostEqual(getattr(read, field), getattr(made, field), 12, f"{name} {field}")

    def test_percentiles(self) -> None:
        """The percentiles compared are those of the summary."""
        summary = self.summary()
        run = run_of_json_untrusted(summary)
        compared = compare_runs(run, run)
        for measure in ("loss", "mean", "p50", "p90", "p99", "jitter"):
            self.assertAlmostEqual(measured(compared, measure).a or 0.0, float(str(summary[measure])), 9, measure)

    def test_bomb(self) -> None:
        """A histogram of some kilobytes that unpacks to many megabytes is refused before it does."""
        head = base64.b64decode(str(self.summary()["histogram"]))[:4]
        packed = zlib.compress(bytes(64 * 1024 * 1024))
        bomb = base64.b64encode(head + len(packed).to_bytes(4, "big") + packed).decode()
        self.assertLess(len(bomb), LARGEST_HISTOGRAM)
        tracemalloc.start()
        self.addCleanup(tracemalloc.stop)
        with self.assertRaisesRegex(ValueError, "is damaged"):
            run_of_json_untrusted({**self.summary(), "histogram": bomb})
        self.assertLess(tracemalloc.get_traced_memory()[1], 6 * LARGEST_PAYLOAD)

    def test_refused(self) -> None:
        """What is no summary is refused with a reason, and with nothing but a ValueError."""
        right = self.summary()
        for change, reason in (
            ({"format": 2}, "has format 2, and this version reads format 1"),
            ({"received": -1}, "'received' is no count"),
            ({"received": True}, "'received' is no count"),
            ({"received": 7}, "another number of round trips"),
            ({"lost": 1.5}, "'lost' is no count"),
            ({"mean": None}, "'mean' is no number"),
            ({"mean": math.nan}, "'mean' is no number"),
            ({"stddev": -1}, "'stddev' is no number"),
            ({"jitter": "1"}, "'jitter' is no number"),
            ({"address": 5}, "'address' is no text"),
            ({"histogram": ""}, "is empty"),
            ({"histogram": "x"}, "is damaged"),
            ({"histogram": "H" * 5000}, "is damaged"),
            ({"histogram": str(right["histogram"])[:-9] + "AAAAAAAA="}, "is damaged"),
            ({"histogram": "H" * (LARGEST_HISTOGRAM + 1)}, "more than any"),
        ):
            with self.assertRaisesRegex(ValueError, reason):
                run_of_json_untrusted({**right, **change})
        for name in ("received", "lost", "histogram", "size", "interval", "protocol", "min", "jitter"):
            with self.assertRaisesRegex(ValueError, f"'{name}' is missing"):
                run_of_json_untrusted({key: value for key, value in right.items() if key != name})
        nothing: tuple[object, ...] = (None, [], "text", 5, {}, {"sent": 1})
        for value in nothing:
            with self.assertRaisesRegex(ValueError, "no summary"):
                run_of_json_untrusted(value)
