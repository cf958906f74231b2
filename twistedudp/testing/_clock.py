"""A virtual clock on which every delayed call runs at its own time.

Theory of operation: ``twisted.internet.task.Clock.advance(10)`` moves to the end first and runs what is due
afterwards, so a call due at 1 s sees 10 s, and what it schedules "one second later" is due at 11 s
(https://github.com/twisted/twisted/issues/9819). :class:`SteppingClock` moves from call to call instead: time stands
at a call's own time while it runs. Pending calls are kept sorted by time and then by a serial number that each gets
when it is made, so calls due together run in the order in which they were made, whatever happened to them since.
"""

from __future__ import annotations

import math
from bisect import insort
from typing import TYPE_CHECKING, cast

from twisted.internet.base import DelayedCall
from twisted.internet.task import Clock

from ..errors import TwistedUDPError

if TYPE_CHECKING:
    from collections.abc import Callable

    from twisted.internet.interfaces import IDelayedCall

__all__ = ["MAX_CALLS_PER_INSTANT", "SimulationError", "SteppingClock"]

MAX_CALLS_PER_INSTANT = 1_000_000
"""Delayed calls that may run without time moving on.

A loop of zero-delay calls never lets time pass, and without a bound the test would hang. 100,000 requests made in one
instant cause some 300,000 calls in an instant, and that is no loop.
"""


class SimulationError(TwistedUDPError):
    """The simulation cannot get where the test wanted: it loops, never ends, or nothing is left that could happen."""


class _OrderedCall(DelayedCall):
    """A delayed call that knows when it was made, relative to others, and for whom."""

    serial: int
    owner: object


def _order(call: DelayedCall) -> tuple[float, int]:
    return call.time, cast("_OrderedCall", call).serial


class SteppingClock(Clock):
    """A ``task.Clock`` whose time stops at every delayed call, in order of time and then of making.

    An exception that a delayed call raises goes to whoever moves the clock, as with ``task.Clock``; time stands at that
    call, and moving on works.

    Args:
        max_calls_per_instant: How many calls may run without time moving on before :class:`SimulationError` says that
            they schedule each other without delay.
    """

    def __init__(self, *, max_calls_per_instant: int = MAX_CALLS_PER_INSTANT) -> None:
        super().__init__()
        self.max_calls_per_instant = max_calls_per_instant
        self._serial = 0
        self._ran_this_instant = 0

    def callLater(
        self,
        delay: float,
        callable: Callable[..., object],  # noqa: A002  # IReactorTime names it so
        *args: object,
        **kw: object,
    ) -> IDelayedCall:
        """Schedule a call ``delay`` seconds from now; see ``IReactorTime.callLater``.

        Raises:
            ValueError: The delay is negative or not a number.
        """
        return self.call_later_for(None, delay, callable, *args, **kw)

    def call_later_for(
        self, owner: object, delay: float, function: Callable[..., object], *args: object, **kw: object
    ) -> IDelayedCall:
        """Schedule a call as :meth:`callLater` does, and remember for whom; see :meth:`calls_of`."""
        if not delay >= 0:  # this way round it refuses NaN as well
            raise ValueError(f"a call cannot be made {delay!r} s from now: the delay must be 0 or more")
        call = _OrderedCall(self.rightNow + delay, function, args, kw, self.calls.remove, self._moved, self.seconds)
        call.serial = self._serial
        call.owner = owner
        self._serial += 1
        insort(self.calls, call, key=_order)
        return cast("IDelayedCall", call)

    def getDelayedCalls(self) -> list[IDelayedCall]:
        """Return the pending calls; see ``IReactorTime.getDelayedCalls``."""
        return cast("list[IDelayedCall]", list(self.calls))

    def calls_of(self, owner: object) -> list[IDelayedCall]:
        """Return the pending calls that were scheduled for this owner (by identity)."""
        return [call for call in self.getDelayedCalls() if cast("_OrderedCall", call).owner is owner]

    def advance(self, amount: float) -> None:
        """Move time on by ``amount`` seconds, running each call that is due on the way at its own time.

        Raises:
            ValueError: The amount is negative or not a number.
            SimulationError: More than ``max_calls_per_instant`` calls ran at one instant.
        """
        if not amount >= 0:
            raise ValueError(f"time cannot be advanced by {amount!r} s: it only moves on")
        end = self.rightNow + amount
        while self.step(until=end):
            pass
        self._move_to(end)

    def step(self, until: float = math.inf) -> bool:
        """Move to the next delayed call and run it.

        Args:
            until: The time, in the clock's seconds, after which calls are left alone.

        Returns:
            Whether a call ran; if not, time has not moved.

        Raises:
            SimulationError: More than ``max_calls_per_instant`` calls ran at one instant.
        """
        call = self._next_call()
        if call is None or call.time > until:
            return False
        self._move_to(call.time)
        if self._ran_this_instant >= self.max_calls_per_instant:
            raise SimulationError(
                f"{self._ran_this_instant:,} delayed calls ran at {self.rightNow} s without time moving on, and the "
                f"next is {call}: something schedules itself without delay; give it one, or raise max_calls_per_instant"
            )
        self._ran_this_instant += 1
        del self.calls[0]
        call.called = 1
        call.func(*call.args, **call.kw)
        return True

    def _move_to(self, time: float) -> None:
        # A call may itself have advanced the clock, beyond where its caller was going: time never goes back.
        if time > self.rightNow:
            self.rightNow = time
            self._ran_this_instant = 0

    def _next_call(self) -> DelayedCall | None:
        while self.calls:
            call = self.calls[0]
            if not call.delayed_time:
                return call
            # DelayedCall.reset() and delay() to a later time tell nobody: the call stands at its old place until then.
            call.activate_delay()
            self._moved(call)
        return None

    def _moved(self, call: DelayedCall) -> None:
        self.calls.remove(call)
        insort(self.calls, call, key=_order)
