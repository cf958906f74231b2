"""The requests that have ended lately, so that what comes too late or twice can be told from what was never asked for.

Theory of operation: two generations of msgids; when the young one is full the old one is forgotten. Ids do not repeat
within 2**32 requests, so a msgid that is known here was ours.
"""

from __future__ import annotations

from typing import Final

__all__ = ["MAX_RECENT", "RecentRequests"]

MAX_RECENT: Final = 8192
"""Requests in one generation. Two of them need 2 MiB at most; at 10,000 requests a second they reach back for a second
or so, at lower rates for as long as datagrams live."""


class RecentRequests:
    """How the last some thousand requests ended."""

    __slots__ = ("_old", "_young")

    def __init__(self) -> None:
        self._young: dict[int, bool] = {}
        self._old: dict[int, bool] = {}

    def __len__(self) -> int:
        return len(self._young) + len(self._old)

    def ended(self, msgid: int, answered: bool) -> None:
        """Remember a request.

        Args:
            msgid: Its number.
            answered: Whether its server had answered it.
        """
        young = self._young
        young[msgid] = answered
        if len(young) >= MAX_RECENT:
            self._old = young
            self._young = {}

    def was_answered(self, msgid: int) -> bool | None:
        """Return whether a request was answered, or ``None`` where nothing is known of it."""
        answered = self._young.get(msgid)
        return self._old.get(msgid) if answered is None else answered
