"""What a server remembers of the probes that it has had: how many different ones of each series, and how many twice.

Theory of operation: a series is known by its peer and its session, a random number. Of each, the last
``SESSION_WINDOW`` sequence numbers are remembered as the bits of one number, by which a duplicate is told from a probe
that was overtaken. A sequence number far from these is believed when the next probe follows it, as in RFC 3550 appendix
A.1: after a long outage that is so. A single one may have been changed on its way, and to believe it would leave all
that come after it far behind.

Nobody proves who they are, so what is kept is bounded, and whoever floods a server with forged series shall not drive
out those in use. Sessions stand in levels by how many probes they have had, in powers of two, and where there is no
room the one on the lowest level that has been quiet for the longest gives way: to drive one out of its place takes
thousands of others that have had as many probes.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Final, NamedTuple, TypeAlias

import msgspec

from ._wire import COUNTS_ONLY

if TYPE_CHECKING:
    from ..address import Address

    _Key: TypeAlias = tuple[Address, int]

__all__ = ["MAX_SESSIONS", "MAX_SESSION_IDLE", "SESSION_WINDOW", "ProbeCounts", "ProbeSessions"]

SESSION_WINDOW: Final = 8192
"""Sequence numbers of each session that are remembered, a bit each: 8 s at the shortest interval of ``udpecho ping``,
and 1 KiB."""

MAX_SESSIONS: Final = 4096
"""Sessions at once: of these, 6 MB at the most."""

MAX_SESSION_IDLE: Final = 600.0
"""Seconds after which a session is over: twice what a NAT remembers (RFC 4787), behind which it would be another."""

_ALL: Final = (1 << SESSION_WINDOW) - 1
_LEVELS: Final = 12  # the highest from 2,048 probes on
_MOST: Final = 0xFFFFFFFF  # what an answer has room for


class ProbeCounts(NamedTuple):
    """How many probes of a session have come."""

    received: int
    """Different ones."""
    duplicates: int
    """Further copies of these."""


_NONE: Final = ProbeCounts(0, 0)


class _Session(msgspec.Struct, eq=False, gc=False):
    """One series. A msgspec Struct, unknown to the garbage collector: it refers to nothing that can refer to it."""

    key: _Key
    seen: float  # when it had its last probe, in seconds
    highest: int  # of the sequence numbers
    window: int = 1  # bit n: whether the number that is n below the highest has come
    received: int = 1
    duplicates: int = 0
    far: int = -1  # the number of the last probe, if that was far from the others; else -1

    @property
    def level(self) -> int:
        return min(self.received.bit_length(), _LEVELS) - 1

    @property
    def counts(self) -> ProbeCounts:
        return ProbeCounts(min(self.received, _MOST), min(self.duplicates, _MOST))

    def count(self, sequence: int) -> None:
        step = sequence - self.highest
        if abs(step) < SESSION_WINDOW:
            self.far = -1
            self._count_near(step)
        elif self.far >= 0 and 0 < sequence - self.far < SESSION_WINDOW:
            self.window = 1 << (sequence - self.far) | 1
            self.highest = sequence
            self.received += 2
            self.far = -1
        else:
            self.far = sequence

    def _count_near(self, step: int) -> None:
        if step > 0:
            self.window = (self.window << step | 1) & _ALL
            self.highest += step
            self.received += 1
            return
        bit = 1 << -step
        if self.window & bit:
            self.duplicates += 1
        else:
            self.window |= bit
            self.received += 1


class ProbeSessions:
    """The series of probes that a server has lately been sent.

    Args:
        max_sessions: Sessions kept at once.
        max_idle: Seconds without a probe after which a session is over.

    Attributes:
        evicted: Sessions that gave way to others before their time was over.
    """

    def __init__(self, *, max_sessions: int = MAX_SESSIONS, max_idle: float = MAX_SESSION_IDLE) -> None:
        self.evicted = 0
        self._max_sessions = max_sessions
        self._max_idle = max_idle
        self._sessions: dict[_Key, _Session] = {}
        # Each in the order of the last probes. A dict whose first entries were removed is searched from its beginning.
        self._levels: list[OrderedDict[_Key, _Session]] = [OrderedDict() for _ in range(_LEVELS)]

    def __len__(self) -> int:
        return len(self._sessions)

    def probe_received(self, peer: Address, session: int, sequence: int, *, now: float) -> ProbeCounts:
        """Count a probe of any origin, and return the counts of its session, itself included.

        Args:
            peer: Who sent it.
            session: The number of its series.
            sequence: Its own; :data:`COUNTS_ONLY` is counted nowhere.
            now: The time, in seconds of a clock that does not go back.
        """
        known = self._sessions.get((peer, session))
        if sequence == COUNTS_ONLY:
            return known.counts if known is not None else _NONE
        if known is None:
            self._make_room(now)
            known = self._sessions[peer, session] = _Session((peer, session), now, sequence)
        else:
            del self._levels[known.level][known.key]
            known.seen = now
            known.count(sequence)
        self._levels[known.level][known.key] = known
        return known.counts

    def _make_room(self, now: float) -> None:
        oldest = now - self._max_idle
        for level in self._levels:
            while level and (first := next(iter(level.values()))).seen < oldest:
                del level[first.key], self._sessions[first.key]
        if len(self._sessions) >= self._max_sessions:
            key, _ = next(filter(None, self._levels)).popitem(last=False)
            del self._sessions[key]
            self.evicted += 1
