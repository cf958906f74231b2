"""Whether a server is up, degraded or down: a state machine without I/O and without a clock.

Theory of operation: its inputs are the fates of probes, one after the other. Five things keep it from flapping:

* ``down`` takes ``down_after`` failures in a row, and its end ``up_after`` answers in a row.
* ``degraded`` begins when too many of the last ``window`` probes failed or were slow, and ends when no more than half
as
  many did, for ``window`` probes without a break.
* What was counted before an outage is forgotten with it: a server that was restarted is ``up`` again. One that was
  ``degraded`` before returns to that.
* A server that is down again before it was ``up`` for ``window`` probes has relapsed. Each relapse doubles the failures
  and the answers in a row that it takes, up to ``window`` of them, and it returns to ``degraded`` only. So one that
  loses every other probe is ``degraded``, and not down and up by turns.
* Each change has a reason, and none happens without a probe or a look-up.

So ``degraded`` ends at most once in ``window`` probes, and ``down`` begins at most once in ``down_after + up_after``,
ever more seldom.
"""

from __future__ import annotations

import math
from typing import Final, NamedTuple

__all__ = ["DEGRADED", "DOWN", "SLOW_SHARE", "UNKNOWN", "UP", "Change", "Health", "Thresholds"]

UNKNOWN: Final = "unknown"
UP: Final = "up"
DEGRADED: Final = "degraded"
DOWN: Final = "down"

SLOW_SHARE: Final = 0.1
"""Share of the window's probes whose answers may be slow: a single one, as any scheduler produces, is no alarm."""


class Thresholds(NamedTuple):
    """When a server is what."""

    window: int = 300
    """Probes that loss and slowness are counted over."""
    degraded_loss: float = 0.05
    """Share of failures in the window from which it is degraded; at least one failure."""
    down_after: int = 5
    """Failures in a row after which it is down."""
    up_after: int = 3
    """Answers in a row after which it is down no more."""


class Change(NamedTuple):
    """A change of state."""

    state: str
    previous: str
    reason: str
    """A stable word: ``answers``, ``relapse``, ``steady``, ``loss``, ``slow``, or what its caller gave."""
    says: str
    """The same for people."""


class Health:  # budget: five counts, each of them one half of a hysteresis
    """The state of one server.

    Args:
        thresholds: When it is what.

    Attributes:
        state: ``"unknown"`` before the first answer, then ``"up"``, ``"degraded"`` or ``"down"``.
        reason: Why, in the stable word of the last change; empty before.
    """

    __slots__ = ("_answers", "_failed", "_failures", "_mask", "_most_failed", "_most_slow", "_patience", "_quiet",
                 "_recovering", "_since_return", "_slow", "_thresholds", "_was_degraded", "reason",
                 "state")  # fmt: skip

    def __init__(self, thresholds: Thresholds) -> None:
        self._thresholds = thresholds
        self._mask = (1 << thresholds.window) - 1
        self._most_failed = max(1, math.ceil(thresholds.degraded_loss * thresholds.window))
        self._most_slow = max(1, math.ceil(SLOW_SHARE * thresholds.window))
        self._failed = self._slow = 0  # the window's probes, a bit each, the last one lowest
        self._answers = self._failures = 0  # in a row
        self._quiet = 0
        self._patience = 1
        self._since_return = 0  # probes
        self._recovering = False  # whether it was not up for a window since the last outage
        self._was_degraded = False  # when the last outage began
        self.state = UNKNOWN
        self.reason = ""

    @property
    def patience(self) -> int:
        """How many times as many failures and answers in a row it takes, after relapses; 1 without."""
        return self._patience

    def answered(self, *, slow: bool = False) -> Change | None:
        """Take an answer; return the change that it makes.

        Args:
            slow: Whether it took longer than it should.
        """
        self._answers += 1
        self._failures = 0
        if self.state == UP and not (slow or self._failed or self._slow or self._recovering):
            return None  # as nearly always: nothing that could change
        self._shift(failed=0, slow=int(slow))
        if self.state == UNKNOWN:
            return self._change(UP, "answers", "it answers")
        if self.state == DOWN:
            if self._answers < self._in_a_row(self._thresholds.up_after):
                return None
            return self._return()
        return self._weigh()

    def failed(self, reason: str, says: str) -> Change | None:
        """Take a probe without an answer that counts; return the change that it makes.

        Args:
            reason: Why, in a stable word: the change's if this one makes it ``down``.
            says: The same for people.
        """
        self._failures += 1
        self._answers = 0
        self._shift(failed=1, slow=0)
        if self.state == DOWN:
            return None
        if self._failures >= self._in_a_row(self._thresholds.down_after):
            return self._fall(reason, f"{self._failures} probes in a row failed: {says}")
        return None  # whether it is degraded is for the next answer to say; without one it is on its way down

    def impossible(self, reason: str, says: str) -> Change | None:
        """Learn that the server cannot even be asked, because its name has no address; it is down at once."""
        self._answers = 0
        return None if self.state == DOWN else self._fall(reason, says)

    def _shift(self, *, failed: int, slow: int) -> None:
        self._failed = (self._failed << 1 | failed) & self._mask
        self._slow = (self._slow << 1 | slow) & self._mask
        if self._recovering and self.state == UP:
            self._since_return += 1
            if self._since_return >= self._thresholds.window:
                self._recovering = False
                self._patience = 1

    def _in_a_row(self, number: int) -> int:
        return max(number, min(number * self._patience, self._thresholds.window))

    def _fall(self, reason: str, says: str) -> Change:
        if self._recovering:
            self._patience = min(self._patience * 2, self._thresholds.window)
        self._was_degraded = self.state == DEGRADED
        return self._change(DOWN, reason, says)

    def _return(self) -> Change:
        self._failed = self._slow = 0
        self._since_return = 0
        self._recovering = True
        answers = f"{self._answers} answers in a row"
        if self._patience > 1:
            return self._change(DEGRADED, "relapse", f"{answers}, but it was down just before")
        if self._was_degraded:
            return self._change(DEGRADED, "answers", f"{answers}, as before the outage")
        return self._change(UP, "answers", answers)

    def _weigh(self) -> Change | None:
        failed, slow = self._failed.bit_count(), self._slow.bit_count()
        window = self._thresholds.window
        if self.state == UP:
            if failed >= self._most_failed:
                return self._change(DEGRADED, "loss", f"{failed} of the last {window} probes failed")
            if slow >= self._most_slow:
                return self._change(DEGRADED, "slow", f"{slow} of the last {window} answers took too long")
            return None
        if failed > self._most_failed // 2 or slow > self._most_slow // 2:
            self._quiet = 0
            return None
        self._quiet += 1
        if self._quiet < window:
            return None
        return self._change(UP, "steady", f"loss and delay were within their limits for {window} answers")

    def _change(self, state: str, reason: str, says: str) -> Change:
        change = Change(state, self.state, reason, says)
        self.state = state
        self.reason = reason
        self._quiet = 0
        return change
