"""How many runs of each method go on at once.

Theory of operation: a method that returns its result needs no slot; one that returns a Deferred or a coroutine holds
one from then until that has fired. The slots of a method are bounded, so that a slow one does not take all that there
are, and those of all together: at that bound only methods are refused that hold some. So one that holds none is never
refused because of others, least of all the built-in methods, which never hold any; the sum exceeds its bound by one for
each method at most.

Whoever is refused is told when to come back: after the mean time of the method's latest runs, or half the time for
which the oldest of the present ones has run, whichever is longer; the latter is known also where none has ended.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ._responder import IncomingRequest

__all__ = ["MAX_RETRY_AFTER", "METHOD_SLOTS", "MIN_RETRY_AFTER", "MethodSlots", "bounded_hint"]

METHOD_SLOTS: Final = 1024
"""Runs of one method at once, unless it is marked otherwise: a quarter of those of all, and about 1 MiB."""

MIN_RETRY_AFTER: Final = 0.05
MAX_RETRY_AFTER: Final = 30.0
"""Seconds between which every hint lies: nobody is to ask in a closer rhythm, or to be put off for longer than a cached
response would be kept."""

_WEIGHT: Final = 1 / 8
"""Of the latest run in the mean, as of a round trip in RFC 6298."""


class _Runs:
    """The runs of one method."""

    __slots__ = ("bound", "mean", "started")

    def __init__(self, bound: int) -> None:
        self.bound = bound
        self.started: OrderedDict[IncomingRequest, float] = OrderedDict()  # whose front can be taken off many times
        self.mean: float | None = None


class MethodSlots:
    """The slots of all methods.

    Args:
        bounds: The slots of those methods that do not have :data:`METHOD_SLOTS`.

    Attributes:
        full: The names of the methods all of whose slots are held.
    """

    __slots__ = ("_bounds", "_runs", "full")

    def __init__(self, bounds: Mapping[str, int]) -> None:
        self.full: set[str] = set()
        self._bounds = bounds
        self._runs: dict[str, _Runs] = {}

    def hold(self, incoming: IncomingRequest, now: float) -> None:
        """Learn that a request's method goes on; only methods that exist may be named."""
        name = incoming.method
        runs = self._runs.get(name)
        if runs is None:
            runs = self._runs[name] = _Runs(self._bounds.get(name, METHOD_SLOTS))
        runs.started[incoming] = now
        if len(runs.started) >= runs.bound:
            self.full.add(name)

    def release(self, incoming: IncomingRequest, now: float) -> None:
        """Learn that the method of a request that held a slot has ended."""
        name = incoming.method
        runs = self._runs[name]
        took = now - runs.started.pop(incoming)
        runs.mean = took if runs.mean is None else runs.mean + _WEIGHT * (took - runs.mean)
        if len(runs.started) < runs.bound:
            self.full.discard(name)

    def held(self, method: str) -> int:
        """Return how many slots a method holds."""
        runs = self._runs.get(method)
        return 0 if runs is None else len(runs.started)

    def retry_after(self, method: str, now: float) -> float:
        """Return after how many seconds to ask again for a method that is refused."""
        runs = self._runs[method]
        oldest = now - next(iter(runs.started.values()), now)
        return bounded_hint(max(runs.mean or 0.0, oldest / 2))


def bounded_hint(seconds: float) -> float:
    """Return seconds as they are told to callers: within the bounds, in milliseconds."""
    return round(min(max(seconds, MIN_RETRY_AFTER), MAX_RETRY_AFTER), 3)
