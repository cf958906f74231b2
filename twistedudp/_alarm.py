"""One timer for many deadlines.

Theory of operation: a delayed call for each of many things costs more than the things themselves. Whoever keeps them in
order needs one delayed call, for the first; it is moved only when something is due earlier than it is set for, and when
it fires it is set again for what is the first then. A reactor goes by the wall clock, which may be set. Put forward, it
makes a timer fire early: then it is set again. Put back, late: it is set anew when somebody next wants to be called.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Final

from twisted.internet.base import ReactorBase

if TYPE_CHECKING:
    from collections.abc import Callable

    from twisted.internet.interfaces import IDelayedCall

__all__ = ["Alarm", "steady_clock", "wall_clock"]

_HAIR: Final = 0.001
"""Seconds by which a timer may be early: seconds are rounded when they are added and subtracted, reactors wake up by
the millisecond, and two clocks do not run alike. What it was set for has come then; to set it again for so short a time
could go on for ever."""

_OVERDUE: Final = 1.0
"""Seconds after which a timer is not late because the reactor is busy: the wall clock was put back."""


def steady_clock(reactor: Any) -> Callable[[], float]:
    """Return what tells the time in seconds on a reactor and does not go back.

    A real reactor's own ``seconds()`` is the wall clock, which may be set; a simulated one's is virtual.
    """
    clock: Callable[[], float] = time.monotonic if isinstance(reactor, ReactorBase) else reactor.seconds
    return clock


def wall_clock(reactor: Any) -> Callable[[], int]:
    """Return what tells nanoseconds since the epoch on a reactor; on a simulated one, of virtual time."""
    return time.time_ns if isinstance(reactor, ReactorBase) else lambda: round(reactor.seconds() * 1e9)


class Alarm:
    """Call back when the first of many things is due.

    Args:
        reactor: Provides IReactorTime.
        clock: Returns seconds and does not go back; the times of :meth:`at` are its own.
        callback: What to call with the time, which is not before the one asked for; it asks for the next by itself.
    """

    __slots__ = ("_callback", "_clock", "_reactor", "_set_for", "_timer")

    def __init__(self, reactor: Any, clock: Callable[[], float], callback: Callable[[float], None]) -> None:
        self._reactor = reactor
        self._clock = clock
        self._callback = callback
        self._timer: IDelayedCall | None = None
        self._set_for = 0.0

    def at(self, due: float | None) -> None:
        """Call back at a time, or earlier; ``None`` asks for nothing."""
        if due is None:
            return
        if self._timer is None:
            self._timer = self._reactor.callLater(max(0.0, due - self._clock()), self._fired)
            self._set_for = due
        elif due < self._set_for or self._set_for < self._clock() - _OVERDUE:
            self._timer.reset(max(0.0, due - self._clock()))
            self._set_for = due

    def cancel(self) -> None:
        """Leave nothing in the reactor."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _fired(self) -> None:
        self._timer = None
        now = self._clock()
        if now < self._set_for - _HAIR:
            self.at(self._set_for)
        else:
            self._callback(max(now, self._set_for))
