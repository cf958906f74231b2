"""Searching for the largest size and the highest rate that pass: what to try next, and when it is found.

Theory of operation: no I/O and no clock. Whoever has a socket asks for the next trial, makes it, and says what came of
it; :class:`SizeSearch` and :class:`RateSearch` keep what is known and halve what is not. Both take it that what passes
at one value passes below it, and mend their bounds where a later trial contradicts an earlier one: a size that passed
after all, a rate that was found by good luck.

How often a size has to be tried before silence says that it is too large depends on how much is lost anyway:
:func:`tries_for` answers that. RFC 8899 (packetization layer path MTU discovery) has the same search for transports.
"""

from __future__ import annotations

import math
from typing import Final

__all__ = ["DOUBT_PER_SIZE", "LEAST_RATE", "LEAST_TRIES", "MOST_TRIES", "RateSearch", "SizeSearch", "tries_for"]

LEAST_TRIES: Final = 3
"""Probes of one size that must stay unanswered before it counts as too large, where nothing else is lost."""

MOST_TRIES: Final = 20
"""The same at most: at a loss of 60 % there and back a size that passes is missed in 1 of 27,000 cases. What loses more
cannot be searched."""

DOUBT_PER_SIZE: Final = 1e-4
"""The probability with which a size that passes may be taken for too large, because each of its tries was lost."""

LEAST_RATE: Final = 1.0
"""Probes in a second below which no rate is looked for."""


def tries_for(unanswered: int, sent: int) -> int:
    """Return how many probes of a size must stay unanswered before it counts as too large.

    Args:
        unanswered: Probes without an answer among those of sizes that pass.
        sent: How many those were.
    """
    # Laplace's rule: that none was lost does not say that none will be, nor that all were that all will be.
    share = (max(0, min(unanswered, sent)) + 1) / (sent + 2)
    wanted = math.ceil(math.log(DOUBT_PER_SIZE) / math.log(share))
    return min(max(wanted, LEAST_TRIES), MOST_TRIES)


class SizeSearch:
    """The largest size that passes.

    It begins with the smallest size, which shows that anything passes at all, goes on with the largest, which usually
    settles it, and follows hints, each of which is checked by one byte more. Without any it halves what is left.

    Args:
        least: Bytes; smaller sizes are not tried.
        most: Bytes; larger ones are not.

    Attributes:
        most: As given, or less where the own machine sends no more: see :meth:`limited`.
    """

    def __init__(self, least: int, most: int) -> None:
        self.most = max(least, most)
        self._least = least
        self._passed: set[int] = set()
        self._failed: set[int] = set()
        self._hints: set[int] = set()

    @property
    def largest(self) -> int | None:
        """The largest size that has passed; None if none has."""
        return max(self._passed, default=None)

    @property
    def too_large(self) -> int:
        """The least size above it that has not, or that is not tried."""
        return min([self.most + 1, *(size for size in self._failed if size > (self.largest or 0))])

    def next_size(self) -> int | None:
        """Return the size to try next, None where there is nothing left to try."""
        largest, too_large = self.largest, self.too_large
        if largest is None:
            return None if self._least in self._failed else self._least
        if too_large - largest <= 1:
            return None
        if too_large > self.most:
            return self.most
        hints = [hint for hint in self._hints if largest < hint < too_large]
        if hints:
            return max(hints)
        if largest in self._hints:
            return largest + 1
        return (largest + too_large) // 2

    def passed(self, size: int) -> None:
        """Take note that a size has passed whole: whoever said that less would pass was wrong."""
        self._passed.add(size)
        self._failed.discard(size)
        self._hints = {hint for hint in self._hints if hint >= size}

    def failed(self, size: int) -> None:
        """Take note that a size does not pass; if it seemed to before, nothing but the least size is still believed."""
        self._failed.add(size)
        if size in self._passed:
            self._passed &= {self._least} - {size}

    def untried(self, size: int) -> None:
        """Forget that a size does not pass: nobody has seen that, somebody has only said so."""
        self._failed.discard(size)

    def hinted(self, size: int) -> None:
        """Take note that somebody who may know says that no more than this passes."""
        if size >= self._least:
            self._hints.add(size)

    def limited(self, most: int) -> None:
        """Take note that the own machine sends no more than this."""
        self.most = max(self._least, min(self.most, most))


class RateSearch:
    """The highest rate at which nothing is lost, or no more than is allowed.

    It begins low and doubles until something is lost, so that it never sends more than twice what passes. Then it
    halves what is left, on a logarithmic scale, until the bounds are near enough to each other; and the rate found has
    to pass again, so that it was no good luck.

    Args:
        first: The rate to begin with, in probes per second.
        most: The rate that is never exceeded.
        resolution: How near the bounds have to come, as a share of the lower one: 0.05.
        confirmations: How often the rate found has to pass again.

    Attributes:
        most: As given, or less where the own machine cannot send faster: see :meth:`limited`.
    """

    def __init__(self, first: float, most: float, *, resolution: float, confirmations: int) -> None:
        self.most = most
        self._first = min(first, most)
        self._resolution = resolution
        self._confirmations = confirmations
        self._passed: dict[float, int] = {}
        self._too_fast = math.inf

    @property
    def highest(self) -> float | None:
        """The highest rate that has passed, and has not failed since; None if none has."""
        return max(self._passed, default=None)

    @property
    def too_fast(self) -> float | None:
        """The lowest rate that has failed; None if none has."""
        return None if self._too_fast == math.inf else self._too_fast

    @property
    def confirmed(self) -> bool:
        """Whether the highest rate has passed as often as was asked for."""
        highest = self.highest
        return highest is not None and self._passed[highest] > self._confirmations

    def next_rate(self) -> float | None:
        """Return the rate to try next, None where it is found, or nothing passes."""
        highest = self.highest
        if highest is None:
            if self._too_fast == math.inf:
                return self._first
            return self._too_fast / 2 if self._too_fast / 2 >= LEAST_RATE else None
        if self._too_fast == math.inf and highest < self.most:
            return min(highest * 2, self.most)
        if self._too_fast > highest * (1 + self._resolution) and highest < self.most:
            return float(f"{math.sqrt(highest * self._too_fast):.4g}")
        return None if self.confirmed else highest

    def passed(self, rate: float) -> None:
        """Take note that a rate has passed."""
        self._passed[rate] = self._passed.get(rate, 0) + 1

    def failed(self, rate: float) -> None:
        """Take note that a rate has not: it, and what is above it, passed by good luck if it did."""
        self._too_fast = min(self._too_fast, rate)
        self._passed = {slower: count for slower, count in self._passed.items() if slower < rate}

    def limited(self, rate: float) -> None:
        """Take note that the own machine cannot send faster than this, at which all that it sent has passed."""
        self.most = min(self.most, rate)
        self._passed = {slower: count for slower, count in self._passed.items() if slower < rate}
        self.passed(rate)
