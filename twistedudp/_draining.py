"""A server's last seconds: nothing new is begun, and what has begun may end.

Theory of operation: the protocol knows what runs, the service knows how to stop, and a :class:`Draining` stands between
the two with a timer. It ends in one of three ways, whichever comes first: nothing runs any more, the time is over, or
somebody stops the service. Each of them goes through the service's own ``stopService``, which hands back here the
Deferred of the stop: everybody who waits is told when the port is free, whatever the way was.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.logger import Logger
from twisted.python.failure import Failure

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Draining", "check_timeout", "work_of"]

_log = Logger(namespace="twistedudp")


def check_timeout(timeout: Any) -> None:
    """Check how long a server may take to stop.

    Raises:
        ValueError: It is not a number of seconds from 0 on, or has no end.
    """
    if type(timeout) not in (int, float) or not 0 <= timeout < float("inf"):
        raise ValueError(f"timeout={timeout!r}: it must be a number of seconds, 0 or more")


def work_of(protocol: object) -> Deferred[None] | None:
    """Let a protocol begin no new work, if it can; return what fires when its present work is done."""
    drain = getattr(protocol, "drain", None)
    if not callable(drain):
        return None
    work: Deferred[None] = maybeDeferred(drain)

    def failed(failure: Failure) -> None:
        _log.failure("the protocol's drain failed; the server stops", failure)

    return work.addErrback(failed)


class Draining:
    """The time from the wish to stop to the stop.

    Args:
        reactor: Provides ``callLater``.
        work: Fires when nothing runs any more.
        timeout: Seconds after which it is stopped all the same.
        stop: The service's ``stopService``, which must call :meth:`end`.
        label: What the service is called in the log.
    """

    __slots__ = ("_label", "_stop", "_timeout", "_timer", "_waiting")

    def __init__(
        self,
        reactor: Any,
        work: Deferred[None],
        timeout: float,
        stop: Callable[[], Deferred[Any] | None],
        label: str,
    ) -> None:
        self._label = label
        self._stop = stop
        self._timeout = timeout
        self._waiting: list[Deferred[None]] = []
        self._timer: Any = reactor.callLater(timeout, self._time_is_over)
        _log.info(
            "{server} takes no new requests, and stops when those that run are answered, after {timeout:g} s at most",
            server=label,
            timeout=timeout,
        )
        work.addBoth(self._work_is_done)

    def wait(self) -> Deferred[None]:
        """Return a Deferred that fires with None when the service has stopped."""
        waiting: Deferred[None] = Deferred()
        self._waiting.append(waiting)
        return waiting

    def end(self, stopped: Deferred[Any]) -> None:
        """Tell those who wait, when the stop that is under way is done; called once."""
        if self._timer.active():
            self._timer.cancel()

        def tell(result: object) -> object:
            waiting, self._waiting = self._waiting, []
            for each in waiting:
                if isinstance(result, Failure):
                    each.errback(result)
                else:
                    each.callback(None)
            return result

        self._timer = None
        stopped.addBoth(tell)

    def _work_is_done(self, _: object) -> None:
        if self._timer is not None:
            self._begin_stop()

    def _time_is_over(self) -> None:
        _log.warn("{server}: what still runs after {timeout:g} s is ended", server=self._label, timeout=self._timeout)
        self._begin_stop()

    def _begin_stop(self) -> None:
        maybeDeferred(self._stop).addErrback(lambda _: None)  # those who wait were told
