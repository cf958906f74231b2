"""What a port says in the log about exceptions that its protocol lets out.

Theory of operation: what provokes them may come from the network, at any rate, so the log must not grow with them. Each
is counted; a few in a minute are logged with their tracebacks, and of the others the number, with the next that is.
"""

from __future__ import annotations

from time import monotonic
from typing import TYPE_CHECKING

from twisted.logger import Logger

from .._rate_limit import failure_limit

if TYPE_CHECKING:
    from collections.abc import Callable

    from ._stats import DatagramStats

__all__ = ["CallbackFailures"]

_log = Logger(namespace="twistedudp.transport")


class CallbackFailures:
    """The exceptions of one port's protocol.

    Args:
        stats: Where they are counted.
        clock: Returns monotonic seconds.
    """

    __slots__ = ("_limit", "_stats")

    def __init__(self, stats: DatagramStats, clock: Callable[[], float] = monotonic) -> None:
        self._stats = stats
        self._limit = failure_limit(clock)

    def caught(self, text: str) -> None:
        """Count the exception that is being handled, and log it if it is to be logged.

        Args:
            text: What has failed, as a sentence.
        """
        self._stats.callback_errors += 1
        if not self._limit.allowed():
            return
        missed = self._limit.take_suppressed()
        more = f" ({missed:,} failures since the last one were not logged)" if missed else ""
        _log.failure("{text}{more}", text=text, more=more)
