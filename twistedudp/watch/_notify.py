"""Telling others of changes: what a command and a webhook have in common.

Theory of operation: a change is never waited for. It goes into a queue with a bound, and where that is full the oldest
is dropped, for the newest says how things are. Failures are counted, and logged once in a while: a receiver that is
broken is broken for each change.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any, Final, Protocol

from twisted.logger import Logger

from .._rate_limit import RateLimit

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from twisted.internet.defer import Deferred

    from ._watched import StateChange

__all__ = ["MAX_WAITING", "Notifier", "Outbox", "as_text"]

MAX_WAITING: Final = 1000
"""Changes that wait to be told; a thousand targets behind one router go down together."""

_SECONDS_PER_WARNING: Final = 60.0

_log = Logger(namespace="twistedudp")


class Notifier(Protocol):
    """Who is told of changes."""

    @property
    def counters(self) -> Mapping[str, tuple[str, Callable[[], int]]]:
        """Counters for metrics: name without ``_total``, what it counts, and what returns the count."""

    def tell(self, change: StateChange) -> None:
        """Take a change; returns at once."""

    def stop(self) -> Deferred[Any]:
        """Drop what waits; the Deferred fires when nothing is under way any more."""


class Outbox:
    """The changes that wait to be told, and what became of the others.

    Args:
        what: Who is told, as counters and the log call it: ``command``, ``webhook``.
        clock: Returns seconds, for the rate of warnings.

    Attributes:
        waiting: The changes, the oldest first.
        told: Changes that were told.
        failed: Changes that could not be told.
        dropped: Changes that were not told because too many waited.
    """

    def __init__(self, what: str, clock: Callable[[], float]) -> None:
        self.waiting: deque[StateChange] = deque()
        self.told = self.failed = self.dropped = 0
        self._what = what
        self._warnings = RateLimit(1, _SECONDS_PER_WARNING, clock)

    @property
    def counters(self) -> dict[str, tuple[str, Callable[[], int]]]:
        """See :class:`Notifier`."""
        what = self._what
        return {
            f"udpprobe_{what}_changes_told": (f"Changes told to the {what}.", lambda: self.told),
            f"udpprobe_{what}_changes_failed": (f"Changes that the {what} did not take.", lambda: self.failed),
            f"udpprobe_{what}_changes_dropped": (
                f"Changes not told to the {what} because too many waited.",
                lambda: self.dropped,
            ),
        }

    def add(self, change: StateChange) -> None:
        """Take a change."""
        if len(self.waiting) >= MAX_WAITING:
            self.waiting.popleft()
            self.dropped += 1
            self.warn(f"more than {MAX_WAITING:,} changes wait; the oldest are dropped")
        self.waiting.append(change)

    def fail(self, change: StateChange, why: str) -> None:
        """Count a change that could not be told."""
        self.failed += 1
        self.warn(f"that {change.target} is {change.state} could not be told: {why}")

    def warn(self, text: str) -> None:
        """Log a warning unless one was logged just now."""
        if self._warnings.allowed():
            more = self._warnings.take_suppressed()
            _log.warn(
                "{what}: {text}",
                what=self._what,
                text=f"{text} ({more:,} warnings before this one were left out)" if more else text,
            )


def as_text(change: StateChange) -> dict[str, str]:
    """Return a change's fields as texts; empty where nothing is known, times in seconds."""
    return {key: "" if value is None else str(value) for key, value in change._asdict().items()}
