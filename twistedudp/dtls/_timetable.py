"""One timer for all sessions of a port.

Theory of operation: a heap of when each session is to be looked at, and one delayed call for the first of them. An
entry is a time and the session's number, not the session itself, so that one that is over is not kept for its entry;
and it is never moved. A session that is to be looked at earlier gets another entry, later ones ask anew when looked at.
Entries that mean nothing any more are passed over, and cleared away when there are more of them than others.
"""

from __future__ import annotations

import heapq
from math import inf
from typing import TYPE_CHECKING, Any, Final

from .._alarm import Alarm

if TYPE_CHECKING:
    from collections.abc import Callable

    from ._session import Session

__all__ = ["Timetable"]

_SPARE: Final = 64
"""Entries without meaning that are left in peace, however few sessions there are."""


class Timetable:
    """Call for each session when it is due.

    Args:
        reactor: Provides IReactorTime.
        clock: Returns seconds and does not go back.
        callback: Called with the session and the time; it sets the session's next time.
    """

    __slots__ = ("_alarm", "_callback", "_entries", "_sessions")

    def __init__(self, reactor: Any, clock: Callable[[], float], callback: Callable[[Session, float], None]) -> None:
        self._alarm = Alarm(reactor, clock, self._fired)
        self._callback = callback
        self._entries: list[tuple[float, int]] = []
        self._sessions: dict[int, Session] = {}

    def __len__(self) -> int:
        return len(self._entries)

    def set(self, session: Session, due: float) -> None:
        """Look at a session at a time, or earlier if that was asked for before."""
        self._sessions[session.number] = session
        if due < session.due:
            session.due = due
            heapq.heappush(self._entries, (due, session.number))
            self._alarm.at(due)

    def forget(self, session: Session) -> None:
        """Look at a session no more."""
        self._sessions.pop(session.number, None)
        if len(self._entries) > 2 * len(self._sessions) + _SPARE:
            self._entries = [(session.due, number) for number, session in self._sessions.items() if session.due < inf]
            heapq.heapify(self._entries)

    def cancel(self) -> None:
        """Forget all, and leave nothing in the reactor."""
        self._alarm.cancel()
        self._entries.clear()
        self._sessions.clear()

    def _fired(self, now: float) -> None:
        while self._entries and self._entries[0][0] <= now:
            due, number = heapq.heappop(self._entries)
            session = self._sessions.get(number)
            if session is not None and session.due == due:
                session.due = inf
                self._callback(session, now)
        self._alarm.at(self._entries[0][0] if self._entries else None)
