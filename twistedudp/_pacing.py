"""Doing something at exact times: timers finer than the reactor's, and clocks that agree.

Theory of operation: a reactor's own timers are not made for pacing. They go by the wall clock, and the epoll reactor
wakes up by whole milliseconds. A :class:`Ticker` has the kernel wake it instead: a timerfd (timerfd_create(2)) set to
an absolute time of CLOCK_MONOTONIC is a descriptor that becomes readable at that time, which any reactor with
descriptors can watch. Elsewhere, and on simulated reactors, an :class:`~twistedudp._alarm.Alarm` serves.

The kernel tells when a datagram arrived by the wall clock, which may be set meanwhile, whereas send times are of a
clock that does not go back. :class:`ArrivalClock` knows how far the two are apart and notices when that changes.
"""

from __future__ import annotations

import ctypes
import os
import sys
import time
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from twisted.internet.base import ReactorBase
from twisted.internet.interfaces import IReactorFDSet, IReadDescriptor
from twisted.logger import Logger
from zope.interface import implementer

from ._alarm import Alarm

if TYPE_CHECKING:
    from collections.abc import Callable

    from twisted.python.failure import Failure

__all__ = ["CLOCK_STEP_NS", "MOST_LAG_NS", "ArrivalClock", "Clocks", "Ticker", "clocks_of"]

CLOCK_STEP_NS: Final = 100_000
"""Nanoseconds by which the wall clock must leap to count as set: 0.1 ms. An NTP client that only slews the clock moves
both clocks alike; what remains is how exactly two clocks can be read at once."""

MOST_LAG_NS: Final = 60_000_000_000
"""Nanoseconds that a datagram may have waited to be read for the kernel's time to be believed. A process may be stopped
for a while, but the longer nobody looks, the likelier is a clock that was set and set back."""

_HAIR_NS: Final = 1_000
"""Nanoseconds by which a timer in seconds may be early: floating point has rounded."""

_CLOCK_MONOTONIC: Final = 1  # <linux/time.h>
_TFD_TIMER_ABSTIME: Final = 1  # <linux/timerfd.h>
_TFD_FLAGS: Final = getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0)  # TFD_NONBLOCK, TFD_CLOEXEC
_NS: Final = 1_000_000_000

_log = Logger(namespace="twistedudp")


class Clocks(NamedTuple):
    """The two clocks of a machine, in nanoseconds."""

    monotonic_ns: Callable[[], int]
    """Does not go back and is never set."""
    wall_ns: Callable[[], int]
    """What the kernel stamps datagrams with: since the epoch; may be set at any time."""


def clocks_of(reactor: Any) -> Clocks:
    """Return the clocks of this machine, or of a simulated one."""
    if isinstance(reactor, ReactorBase):
        return Clocks(time.monotonic_ns, time.time_ns)

    def virtual_ns() -> int:
        seconds: float = reactor.seconds()
        return round(seconds * _NS)

    return Clocks(virtual_ns, virtual_ns)


class ArrivalClock:
    """Tell when datagrams arrived, by the monotonic clock.

    The difference of the two clocks is known as an interval, for they cannot be read in the same instant; each reading
    narrows it. A reading that contradicts it means that the wall clock was set.

    Args:
        clocks: The two clocks.
        stepped: Called whenever the wall clock was set.
    """

    __slots__ = ("_high", "_low", "_monotonic_ns", "_set_at", "_stepped", "_wall_ns")

    def __init__(self, clocks: Clocks, stepped: Callable[[], None]) -> None:
        self._monotonic_ns, self._wall_ns = clocks
        self._stepped = stepped
        before, wall, after = self._monotonic_ns(), self._wall_ns(), self._monotonic_ns()
        self._low, self._high = wall - after, wall - before
        self._set_at = before

    def look(self) -> int:
        """Return the monotonic time, having looked whether the wall clock was set."""
        before, wall, now = self._monotonic_ns(), self._wall_ns(), self._monotonic_ns()
        low, high = wall - now, wall - before
        if low > self._high or high < self._low:
            leap = max(low - self._high, self._low - high)
            self._low, self._high = low, high
            if leap > CLOCK_STEP_NS:
                self._set_at = now
                self._stepped()
        else:
            self._low, self._high = max(low, self._low), min(high, self._high)
        return now

    def arrived(self, kernel_ns: int | None) -> tuple[int, bool, int]:
        """Return when the datagram being delivered arrived, whether the kernel told that, and the present time.

        Args:
            kernel_ns: What the kernel says, by the wall clock; None where it says nothing.

        Returns:
            Nanoseconds of the monotonic clock. The arrival is the present time where the kernel's word is not to be
            believed, because the wall clock was set since it stamped the datagram.
        """
        now = self.look()
        if kernel_ns is None:
            return now, False, now
        arrived = kernel_ns - (self._low + self._high) // 2
        if self._set_at <= arrived <= now and now - arrived <= MOST_LAG_NS:
            return arrived, True, now
        if now < arrived <= now + self._high - self._low:  # as exact as the clocks can be compared
            return now, True, now
        return now, False, now


class Ticker:
    """Call back at an absolute time, once for each :meth:`at`.

    Args:
        reactor: Any reactor.
        callback: Called when the time has come; it may ask for the next. What it raises is logged.
        monotonic_ns: The clock of the times, CLOCK_MONOTONIC on a real machine.

    Attributes:
        precise: Whether a timerfd serves.
    """

    __slots__ = ("_alarm", "_callback", "_cancelled", "_due_ns", "_monotonic_ns", "_timer", "precise")

    def __init__(self, reactor: Any, callback: Callable[[], None], monotonic_ns: Callable[[], int]) -> None:
        self._callback = callback
        self._monotonic_ns = monotonic_ns
        self._due_ns: int | None = None
        self._cancelled = False
        self._timer = _timer_on(reactor, self._fired) if monotonic_ns is time.monotonic_ns else None
        self._alarm = Alarm(reactor, lambda: monotonic_ns() / _NS, self._alarmed)
        self.precise = self._timer is not None

    def at(self, due_ns: int) -> None:
        """Call back at a time instead of the one asked for before; in the next turn where that has passed."""
        if self._cancelled:
            return
        self._due_ns = due_ns
        if self._timer is not None:
            self._timer.set(due_ns)
        else:
            self._alarm.at(due_ns / _NS)

    def cancel(self) -> None:
        """Call back no more, and leave nothing in the reactor; afterwards an :meth:`at` is without effect."""
        self._cancelled = True
        self._due_ns = None
        self._alarm.cancel()
        if self._timer is not None:
            self._timer.close()

    def _alarmed(self, _now: float) -> None:
        due_ns = self._due_ns
        if due_ns is not None and self._monotonic_ns() < due_ns - _HAIR_NS:
            self._alarm.at(due_ns / _NS)
        else:
            self._fired()

    def _fired(self) -> None:
        if self._due_ns is None:
            return
        self._due_ns = None
        try:
            self._callback()
        except BaseException:  # noqa: BLE001  # the reactor would catch it too, and drop the descriptor for it
            _log.failure("what was to be done at a time failed")


@implementer(IReadDescriptor)
class _TimerDescriptor:
    """A timerfd in a reactor."""

    def __init__(self, reactor: Any, descriptor: int, fired: Callable[[], None]) -> None:
        self._reactor = reactor
        self._descriptor = descriptor
        self._fired = fired
        reactor.addReader(self)

    def set(self, due_ns: int) -> None:
        """Have the descriptor become readable at a time of CLOCK_MONOTONIC."""
        if self._descriptor >= 0:
            _set_timer(self._descriptor, max(1, due_ns))  # 0 would disarm it

    def close(self) -> None:
        """Leave the reactor and close the descriptor."""
        if self._descriptor >= 0:
            self._reactor.removeReader(self)
            descriptor, self._descriptor = self._descriptor, -1
            os.close(descriptor)

    def doRead(self) -> None:
        """Take note that the time has come."""
        if self._descriptor < 0:
            return
        try:
            os.read(self._descriptor, 8)
        except BlockingIOError:  # it was set anew meanwhile
            return
        self._fired()

    def fileno(self) -> int:
        """Return the descriptor, -1 when closed."""
        return self._descriptor

    def connectionLost(self, reason: Failure) -> None:  # noqa: ARG002  # IFileDescriptor passes it
        """Close the descriptor; the reactor calls it when it shuts down."""
        self.close()

    def logPrefix(self) -> str:
        """Return the prefix of what is logged meanwhile."""
        return "twistedudp"


def _timer_on(reactor: Any, fired: Callable[[], None]) -> _TimerDescriptor | None:
    """Return a timerfd on a reactor, None where there is none to be had."""
    if not (isinstance(reactor, ReactorBase) and IReactorFDSet.providedBy(reactor)):
        return None
    try:
        descriptor = _make_timer()
    except (OSError, AttributeError):  # too many open files; a kernel or a C library without it
        return None
    return _TimerDescriptor(reactor, descriptor, fired)


if sys.version_info >= (3, 13) and hasattr(os, "timerfd_create"):

    def _make_timer() -> int:
        return os.timerfd_create(_CLOCK_MONOTONIC, flags=_TFD_FLAGS)

    def _set_timer(descriptor: int, due_ns: int) -> None:
        os.timerfd_settime_ns(descriptor, flags=_TFD_TIMER_ABSTIME, initial=due_ns)

else:
    # <time.h>, <sys/timerfd.h>
    class _TimeSpec(ctypes.Structure):
        _fields_ = (("seconds", ctypes.c_long), ("nanoseconds", ctypes.c_long))

    class _TimerSpec(ctypes.Structure):
        _fields_ = (("interval", _TimeSpec), ("value", _TimeSpec))

    _libc: Final[Any] = ctypes.CDLL(None, use_errno=True) if sys.platform != "win32" else None

    def _make_timer() -> int:
        descriptor: int = _libc.timerfd_create(_CLOCK_MONOTONIC, _TFD_FLAGS)
        if descriptor < 0:
            raise _os_error()
        return descriptor

    def _set_timer(descriptor: int, due_ns: int) -> None:
        spec = _TimerSpec(_TimeSpec(0, 0), _TimeSpec(*divmod(due_ns, _NS)))
        if _libc.timerfd_settime(descriptor, _TFD_TIMER_ABSTIME, ctypes.byref(spec), None) < 0:
            raise _os_error()

    def _os_error() -> OSError:
        number = ctypes.get_errno()
        return OSError(number, os.strerror(number))
