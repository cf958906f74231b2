"""The addresses of targets that have names, looked up again and again without anything waiting for them.

Theory of operation: the resolver of a reactor uses a thread for each look-up, of which there are few, and a name server
that does not answer holds one for half a minute. So there is one queue and a bound on how many run at once; probes go
on meanwhile to the address that is known. A name that stops resolving loses its address only after several look-ups in
a row, for a name server has its bad moments too and its own monitoring.
"""

from __future__ import annotations

from collections import deque
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from .._resolve import resolve

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..address import Address
    from ._watched import Watched

__all__ = ["AGAIN_AFTER", "FAILURES_BELIEVED", "MAX_LOOKUPS", "RETRY_AFTER", "NameLookups"]

MAX_LOOKUPS: Final = 4
"""Look-ups at once: a reactor has ten threads, and the metrics are made by one of them too."""

AGAIN_AFTER: Final = 60.0
"""Seconds from an answer to the next look-up, as in the client: the resolver does not tell how long an answer holds."""

RETRY_AFTER: Final = 5.0
"""Seconds after a look-up that found nothing."""

FAILURES_BELIEVED: Final = 3
"""Look-ups in a row that must find nothing before an address that was known is given up."""


class NameLookups:
    """Look names up, a few at once.

    Args:
        reactor: Provides IReactorPluggableNameResolver.
        done: Called with a target and its addresses, none of them where the name has none.
    """

    __slots__ = ("_done", "_queue", "_reactor", "_running")

    def __init__(self, reactor: Any, done: Callable[[Watched, list[Address]], None]) -> None:
        self._reactor = reactor
        self._done = done
        self._queue: deque[Watched] = deque()
        self._running: set[Watched] = set()

    def __len__(self) -> int:
        return len(self._queue) + len(self._running)

    def start(self, watched: Watched) -> None:
        """Look up a target's name when its turn comes; a numeric host is told before this returns."""
        self._queue.append(watched)
        self._next()

    def stop(self) -> None:
        """Take no answer any more."""
        self._queue.clear()
        self._running.clear()

    def _next(self) -> None:
        while self._queue and len(self._running) < MAX_LOOKUPS:
            watched = self._queue.popleft()
            if watched.gone:
                continue
            self._running.add(watched)
            target = watched.target
            family = target.settings.address_family
            resolve(self._reactor, target.host, target.port, family, partial(self._resolved, watched))

    def _resolved(self, watched: Watched, addresses: list[Address]) -> None:
        if watched not in self._running:  # stopped meanwhile
            return
        self._running.discard(watched)
        if not watched.gone:
            self._done(watched, addresses)
        self._next()
