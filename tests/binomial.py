"""How many of many independent trials may succeed: the bound that tests of random loss compare with.

Theory of operation: a datagram that is lost with a known probability, independently of all others, makes the number of
losses binomial. A test that demands a share exactly would fail by chance, one with a margin of thumb would miss faults;
the exact distribution says how far a count may be off before chance is no longer an explanation.
"""

from __future__ import annotations

import math
from itertools import accumulate
from typing import Final

__all__ = ["DOUBT", "binomial_bounds"]

DOUBT: Final = 1e-6
"""The probability, for each side, with which a count is outside of its bounds although nothing is wrong."""


def binomial_bounds(trials: int, chance: float, doubt: float = DOUBT) -> tuple[int, int]:
    """Return the least and the greatest count of successes that chance explains.

    Args:
        trials: How many there were.
        chance: The probability of each to succeed.
        doubt: Fewer successes than the least have at most this probability, and so have more than the greatest.
    """
    if not 0 < chance < 1:
        return round(trials * chance), round(trials * chance)
    below = list(accumulate(_probability(trials, chance, count) for count in range(trials + 1)))
    above = list(accumulate(_probability(trials, 1 - chance, count) for count in range(trials + 1)))
    least = next(count for count in range(trials + 1) if below[count] > doubt)
    greatest = trials - next(count for count in range(trials + 1) if above[count] > doubt)
    return least, greatest


def _probability(trials: int, chance: float, count: int) -> float:
    """Return the probability of exactly ``count`` successes; by logarithms, since the factors leave a float's range."""
    ways = math.lgamma(trials + 1) - math.lgamma(count + 1) - math.lgamma(trials - count + 1)
    return math.exp(ways + count * math.log(chance) + (trials - count) * math.log1p(-chance))
