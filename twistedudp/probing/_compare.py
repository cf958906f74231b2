"""Whether two runs differ, and by how much: intervals for the differences of loss, round trips and jitter.

Theory of operation: each figure of each run gets an interval by a method that makes no assumption on the shape of the
distribution where that can be had: a share by Wilson's score interval (1927), a percentile by the order statistics
between which it lies with a binomial probability, which the histograms hold. Two such intervals make that of the
difference by the method that Newcombe (1998, method 10) has for shares and Zou and Donner (2008) for anything else: the
distances from the estimates to the far ends, added as the sides of a right-angled triangle. Means have Welch's.

All the intervals of one comparison together hold with the confidence asked for (Bonferroni's correction), so that a
script that acts on any of them is misled no more often than was said. What no method mends: probes are taken as
independent of each other, and two runs as runs of the same network unless something has changed.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from statistics import NormalDist
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from ._runs import Bucket, Run

__all__ = ["DEFAULT_CONFIDENCE", "JITTER_SETTLES", "MEASURES", "Comparison", "Difference", "compare_runs"]

DEFAULT_CONFIDENCE: Final = 0.95

MEASURES: Final = ("loss", "mean", "p50", "p90", "p99", "jitter")
"""What is compared, in this order; in each of them more is worse."""

JITTER_SETTLES: Final = 64
"""Answers before which jitter says little: RFC 3550 has it grow from 0 by sixteenths; by then it is 2 % short."""

_QUANTILES: Final = {"p50": 0.5, "p90": 0.9, "p99": 0.99}
_GAIN: Final = 1 / 16  # of the jitter, RFC 3550 section 6.4.1
_NANOSECOND: Final = 1e-9  # no time is told apart more finely

_Interval = tuple[float, float, float]  # least, estimate, greatest


@dataclass(frozen=True)
class Difference:
    """How one figure differs between two runs, in the figure's own unit: a share from 0 to 1, or seconds.

    Attributes:
        measure: One of :data:`MEASURES`.
        a: The figure of the first run; None where it has none.
        b: The figure of the second.
        low: The least difference, b less a, that the data allow; None where they are too few to tell.
        high: The greatest.
        wants: Where the data are too few, how many answers each run needs; 0 otherwise.
        margin: What a difference has to exceed to be called one.
    """

    measure: str
    a: float | None
    b: float | None
    low: float | None = None
    high: float | None = None
    wants: int = 0
    margin: float = 0.0

    @property
    def difference(self) -> float | None:
        """What b has more than a."""
        return None if self.a is None or self.b is None else self.b - self.a

    @property
    def verdict(self) -> str:
        """``"worse"`` or ``"better"``, meaning b; ``"no difference"`` where the interval has 0 in it.

        It is ``"negligible"`` where there is a difference that may be within the margin, and ``"unknown"`` where the
        data are too few.
        """
        if self.low is None or self.high is None:
            return "unknown"
        if self.low <= 0 <= self.high:
            return "no difference"
        return "worse" if self.low > self.margin else "better" if self.high < -self.margin else "negligible"

    def as_json(self) -> dict[str, object]:
        """Return it as ``udpecho compare --json`` prints it."""
        return {
            "measure": self.measure,
            "unit": "share" if self.measure == "loss" else "seconds",
            "a": self.a,
            "b": self.b,
            "difference": self.difference,
            "low": self.low,
            "high": self.high,
            "margin": self.margin,
            "verdict": self.verdict,
        }


@dataclass(frozen=True)
class Comparison:
    """Two runs compared.

    Attributes:
        confidence: With which all the intervals together hold, 0 to 1.
        differences: One for each of :data:`MEASURES`.
        notes: What else differs between the runs, in words.
    """

    confidence: float
    differences: tuple[Difference, ...]
    notes: tuple[str, ...]

    def having(self, verdict: str) -> list[str]:
        """Return the measures with a verdict."""
        return [one.measure for one in self.differences if one.verdict == verdict]

    def as_json(self) -> dict[str, object]:
        """Return it as ``udpecho compare --json`` prints it."""
        return {
            "format": 1,
            "confidence": self.confidence,
            "worse": self.having("worse"),
            "better": self.having("better"),
            "differences": [one.as_json() for one in self.differences],
            "notes": list(self.notes),
        }


def compare_runs(a: Run, b: Run, confidence: float = DEFAULT_CONFIDENCE, margin: float = 0.0) -> Comparison:
    """Compare two runs.

    Args:
        a: The first, which the second is measured against.
        b: The second.
        confidence: With which all the intervals together hold, above 0 and below 1.
        margin: What a difference of times has to exceed, as a share of the first run's: networks change by a few
            percent from one minute to the next. A difference of loss has to exceed none.
    """
    doubt = (1 - confidence) / len(MEASURES)
    differences = [_loss(a, b, doubt), _mean(a, b, doubt)]
    differences += [_quantile(name, share, a, b, doubt) for name, share in _QUANTILES.items()]
    differences.append(_jitter(a, b, doubt))
    judged = [one if one.measure == "loss" else replace(one, margin=margin * (one.a or 0.0)) for one in differences]
    return Comparison(confidence, tuple(judged), _notes(a, b))


def _notes(a: Run, b: Run) -> tuple[str, ...]:
    """Say what else differs: then the figures may differ because of it."""
    asked = (
        ("size", f"{a.size:,} and {b.size:,} bytes"),
        ("interval", f"{a.interval:g} s and {b.interval:g} s"),
        ("address", f"{a.address} and {b.address}"),
        ("protocol", f"{a.protocol or 'unknown'} and {b.protocol or 'unknown'}"),
    )
    return tuple(f"the runs differ in {name}: {text}" for name, text in asked if getattr(a, name) != getattr(b, name))


def _loss(a: Run, b: Run, doubt: float) -> Difference:
    ours, theirs = _wilson(a.lost, a.settled, doubt), _wilson(b.lost, b.settled, doubt)
    if ours is None or theirs is None:
        return Difference("loss", ours and ours[1], theirs and theirs[1], wants=1)
    return _between("loss", ours, theirs)


def _wilson(count: int, total: int, doubt: float) -> _Interval | None:
    """Return Wilson's score interval of a share."""
    if not total:
        return None
    z = NormalDist().inv_cdf(1 - doubt / 2)
    share = count / total
    middle = (share + z * z / (2 * total)) / (1 + z * z / total)
    half = z * math.sqrt(share * (1 - share) / total + z * z / (4 * total * total)) / (1 + z * z / total)
    # The ends are 0 and 1 exactly where nothing or all was lost; rounding would have them beside it.
    return (0.0 if not count else middle - half), share, (1.0 if count == total else middle + half)


def _between(measure: str, a: _Interval, b: _Interval) -> Difference:
    """Make the interval of a difference of those of its two terms."""
    apart = b[1] - a[1]
    low = apart - math.hypot(b[1] - b[0], a[2] - a[1])
    high = apart + math.hypot(b[2] - b[1], a[1] - a[0])
    return Difference(measure, a[1], b[1], low, high)


def _mean(a: Run, b: Run, doubt: float) -> Difference:
    if a.received < 2 or b.received < 2:
        return Difference("mean", a.mean, b.mean, wants=2)
    apart = (b.mean or 0.0) - (a.mean or 0.0)
    ours, theirs = (run.stddev**2 / (run.received - 1) for run in (a, b))
    half = _NANOSECOND
    if ours + theirs > 0:
        freedom = (ours + theirs) ** 2 / (ours**2 / (a.received - 1) + theirs**2 / (b.received - 1))
        half += _student(1 - doubt / 2, freedom) * math.sqrt(ours + theirs)
    return Difference("mean", a.mean, b.mean, apart - half, apart + half)


def _student(chance: float, freedom: float) -> float:
    """Return a quantile of Student's t distribution, by Cornish and Fisher's expansion (Abramowitz and Stegun 26.7.5).

    Below 3 degrees of freedom it is too small; as many are had from four answers on.
    """
    z = NormalDist().inv_cdf(chance)
    terms = (
        z,
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
    )
    return sum(term / freedom**power for power, term in enumerate(terms))


def _quantile(measure: str, share: float, a: Run, b: Run, doubt: float) -> Difference:
    ours, theirs = _order_statistics(a, share, doubt), _order_statistics(b, share, doubt)
    if ours is None or theirs is None:
        # As many that the largest of them is above the quantile, but for the doubt: share ** n <= doubt / 2.
        wants = math.ceil(math.log(doubt / 2) / math.log(share))
        return Difference(measure, _value_at(a, share), _value_at(b, share), wants=wants)
    return _between(measure, ours, theirs)


def _value_at(run: Run, share: float) -> float | None:
    """Return a percentile as the run's own summary has it."""
    if not run.received:
        return None
    return run.clamped(_at_rank(run.buckets, max(1, math.floor(run.received * share + 0.5))).high)


def _order_statistics(run: Run, share: float, doubt: float) -> _Interval | None:
    """Return a quantile with the order statistics that have it between them; None where there are too few."""
    ranks = _ranks(run.received, share, doubt)
    value = _value_at(run, share)
    if ranks is None or value is None:
        return None
    low, high = _at_rank(run.buckets, ranks[0]).low, _at_rank(run.buckets, ranks[1]).high
    # An estimate is told apart from its neighbours only as finely as the histogram does.
    return min(run.clamped(low), value) - _NANOSECOND, value, max(run.clamped(high), value) + _NANOSECOND


def _at_rank(buckets: tuple[Bucket, ...], rank: int) -> Bucket:
    passed = 0
    for bucket in buckets:
        passed += bucket.answers
        if passed >= rank:
            return bucket
    return buckets[-1]


def _ranks(count: int, share: float, doubt: float) -> tuple[int, int] | None:
    """Return the ranks between which a quantile lies: each side is wrong with half of the doubt at most.

    That is so if fewer than the lower rank of the values are below the quantile: a binomial number of them is.
    """
    if count < 2:
        return None
    deviation = math.sqrt(count * share * (1 - share))
    first = max(0, math.floor(count * share - 12 * deviation - 12))
    last = min(count, math.ceil(count * share + 12 * deviation + 12))
    chances = [_binomial(count, share, number) for number in range(first, last + 1)]
    lower = first
    below = chances[0]
    while below <= doubt / 2:  # P(number <= lower) may be in doubt
        lower += 1
        below += chances[lower - first]
    upper = last + 1
    above = 0.0
    while above + chances[upper - 1 - first] <= doubt / 2:  # P(number >= upper)
        upper -= 1
        above += chances[upper - first]
    return (lower, upper) if lower >= 1 and upper <= count else None


def _binomial(count: int, share: float, number: int) -> float:
    ways = math.lgamma(count + 1) - math.lgamma(number + 1) - math.lgamma(count - number + 1)
    return math.exp(ways + number * math.log(share) + (count - number) * math.log1p(-share))


def _jitter(a: Run, b: Run, doubt: float) -> Difference:
    if min(a.received, b.received) < JITTER_SETTLES or a.jitter is None or b.jitter is None:
        return Difference("jitter", a.jitter, b.jitter, wants=JITTER_SETTLES)
    return _between("jitter", _smoothed(a, a.jitter, doubt), _smoothed(b, b.jitter, doubt))


def _smoothed(run: Run, jitter: float, doubt: float) -> _Interval:
    """Return the jitter with its interval, on a logarithmic scale, for it is positive and leans to the right.

    It is a moving average of the differences of neighbours, each two of which have a round trip in common. How much
    such an average varies follows from the distribution of the round trips, were they independent of each other; where
    they are not, they differ less from neighbour to neighbour and the interval is too wide rather than too narrow.
    """
    mean, variance, covariance = _neighbours(run)
    if jitter <= 0 or mean <= 0:
        return -_NANOSECOND, 0.0, _NANOSECOND
    spread = math.sqrt(_GAIN / (2 - _GAIN) * (variance + 2 * (1 - _GAIN) * covariance)) / mean
    factor = math.exp(NormalDist().inv_cdf(1 - doubt / 2) * spread)
    return jitter / factor - _NANOSECOND, jitter, jitter * factor + _NANOSECOND


def _neighbours(run: Run) -> tuple[float, float, float]:
    """Return mean and variance of the distance of two round trips, and the covariance of two that share one."""
    weights = [bucket.answers / run.received for bucket in run.buckets]
    values = [(bucket.low + bucket.high) / 2 for bucket in run.buckets]
    centre = sum(weight * value for weight, value in zip(weights, values, strict=True))
    mean = squares = variance = 0.0
    passed, sum_passed = 0.0, 0.0
    for weight, value in zip(weights, values, strict=True):
        # The mean distance of all values from this one: those below it, and those from it on.
        distance = value * passed - sum_passed + (centre - sum_passed) - value * (1 - passed)
        mean += weight * distance
        squares += weight * distance**2
        variance += weight * (value - centre) ** 2
        passed += weight
        sum_passed += weight * value
    return mean, max(0.0, 2 * variance - mean**2), max(0.0, squares - mean**2)
