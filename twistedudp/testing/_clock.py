"""A virtual clock on which every delayed call runs at its own time.

Theory of operation: ``twisted.internet.task.Clock.advance(10)`` moves to the end first and runs what is due
afterwards, so a call due at 1 s sees 10 s, and what it schedules "one second later" is due at 11 s
(https://github.com/twisted/twisted/issues/9819). :class:`SteppingClock` moves from call to call instead: time stands
at a call's own time while it runs. Pending calls are ordered by time and then by a serial number that each gets when it
is made, so calls due together run in the order in which they were made, whatever happened to them since. They stand in
a heap, and nothing is ever taken out of its middle: a call that was cancelled or brought forward leaves its entry
behind, which is passed over when it comes up, or swept out when such entries are the majority.
"""

from __future__ import annotations

import math
from heapq import heapify, heappop, heappush, heapreplace
from typing import TYPE_CHECKING, Final, TypeAlias, cast

from twisted.internet.base import DelayedCall
from twisted.internet.task import Clock

from ..errors import TwistedUDPError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from twisted.internet.interfaces import IDelayedCall

__all__ = ["MAX_CALLS_PER_INSTANT", "OrderedCall", "SimulationError", "SteppingClock"]

MAX_CALLS_PER_INSTANT = 1_000_000
"""Delayed calls that may run without time moving on.

A loop of zero-delay calls never lets time pass, and without a bound the test would hang. 100,000 requests made in one
instant cause some 300,000 calls in an instant, and that is no loop.
"""

_ENTRIES_LEFT_BEHIND: Final = 64
"""Entries without a call that are never worth a sweep: fewer than this take no noticeable room or time."""


class SimulationError(TwistedUDPError):
    """The simulation cannot get where the test wanted: it loops, never ends, or nothing is left that could happen."""


class OrderedCall(DelayedCall):
    """A delayed call that knows when it was made, relative to others, and for whom."""

    serial: int
    owner: object
    dropped = False
    """Its owner has crashed: it looks pending to its owner's programs, and never runs."""


_Entry: TypeAlias = "tuple[float, int, OrderedCall]"
"""The time, the serial number and the call; it counts as long as the call is pending and due at that time."""


class SteppingClock(Clock):
    """A ``task.Clock`` whose time stops at every delayed call, in order of time and then of making.

    An exception that a delayed call raises goes to whoever moves the clock, as with ``task.Clock``; time stands at that
    call, and moving on works.

    Args:
        max_calls_per_instant: How many calls may run without time moving on before :class:`SimulationError` says that
            they schedule each other without delay.
    """

    def __init__(self, *, max_calls_per_instant: int = MAX_CALLS_PER_INSTANT) -> None:
        # Not super().__init__(): it sets self.calls, which is worked out here.
        self.max_calls_per_instant = max_calls_per_instant
        self._heap: list[_Entry] = []
        self._pending = 0
        self._serial = 0
        self._ran_this_instant = 0
        # Made once: each call holds them, and making three bound methods takes as long as the call itself.
        self._callbacks = (self._cancelled, self._moved, self.seconds)

    @property
    def calls(self) -> list[DelayedCall]:  # type: ignore[override]  # a list of one's own here, to look at
        """The pending calls in the order in which they will run, as it is now."""
        return [*self.pending_calls()]

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
        call = OrderedCall(self.rightNow + delay, function, args, kw, *self._callbacks)
        call.serial = self._serial
        call.owner = owner
        self._serial += 1
        self._pending += 1
        self._push(call)
        return cast("IDelayedCall", call)

    def getDelayedCalls(self) -> list[IDelayedCall]:
        """Return the pending calls in the order in which they will run; see ``IReactorTime.getDelayedCalls``."""
        return cast("list[IDelayedCall]", self.calls)

    def pending_calls(self) -> list[OrderedCall]:
        """Return the pending calls in the order in which they will run, with their owners."""
        return _in_order(self._live_calls())

    def calls_of(self, owner: object) -> list[IDelayedCall]:
        """Return the pending calls that were scheduled for this owner (by identity), in order."""
        return cast("list[IDelayedCall]", _in_order(call for call in self._live_calls() if call.owner is owner))

    def drop_calls_of(self, owner: object) -> int:
        """Let the pending calls of an owner never run, and tell none of its programs; return how many there were.

        They still look pending to whoever holds one, and may be cancelled or put off without any effect.
        """
        dropped = [call for call in self._live_calls() if call.owner is owner]
        for call in dropped:
            call.dropped = True
        self._pending -= len(dropped)
        self._sweep()
        return len(dropped)

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
        heap = self._heap
        while heap:
            time, serial, call = heap[0]
            if call.cancelled or call.called or call.dropped or call.time != time:
                heappop(heap)
            elif call.delayed_time:
                # DelayedCall.reset() and delay() to a later time tell nobody: the entry stands where it was until now.
                call.activate_delay()
                heapreplace(heap, (call.time, serial, call))
            elif time > until:
                return False
            else:
                self._run_first(time, call)
                return True
        return False

    def _run_first(self, time: float, call: OrderedCall) -> None:
        self._move_to(time)
        if self._ran_this_instant >= self.max_calls_per_instant:
            raise SimulationError(
                f"{self._ran_this_instant:,} delayed calls ran at {self.rightNow} s without time moving on, and the "
                f"next is {call}: something schedules itself without delay; give it one, or raise max_calls_per_instant"
            )
        self._ran_this_instant += 1
        heappop(self._heap)
        self._pending -= 1
        call.called = 1
        call.func(*call.args, **call.kw)

    def _move_to(self, time: float) -> None:
        # A call may itself have advanced the clock, beyond where its caller was going: time never goes back.
        if time > self.rightNow:
            self.rightNow = time
            self._ran_this_instant = 0

    def _push(self, call: OrderedCall) -> None:
        if len(self._heap) > 2 * self._pending + _ENTRIES_LEFT_BEHIND:
            self._sweep()
        heappush(self._heap, (call.time, call.serial, call))

    def _moved(self, call: DelayedCall) -> None:
        moved = cast("OrderedCall", call)
        if not moved.dropped:
            self._push(moved)

    def _cancelled(self, call: DelayedCall) -> None:
        if not cast("OrderedCall", call).dropped:
            self._pending -= 1

    def _live_calls(self) -> Iterable[OrderedCall]:
        # A call that was moved away and back has two entries that count; whichever comes first runs it.
        live = {
            serial: call
            for time, serial, call in self._heap
            if not (call.cancelled or call.called or call.dropped) and call.time == time
        }
        return live.values()

    def _sweep(self) -> None:
        self._heap[:] = [(call.time, call.serial, call) for call in self._live_calls()]
        heapify(self._heap)


def _in_order(calls: Iterable[OrderedCall]) -> list[OrderedCall]:
    return sorted(calls, key=lambda call: (call.getTime(), call.serial))
