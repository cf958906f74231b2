"""Datagrams on their way over links: which effect each of them meets next, and when.

Theory of operation: :meth:`InFlight.send` takes a datagram through the effects of its link until one of them delays it.
What is delayed waits in one heap for all links, by the time at which it is due, and goes on from there when
:meth:`InFlight.run` is called. Each effect is called with the time at which the datagram is *there*, not with the time
at which somebody came to look: a late timer does not add up over several effects. For the same reason what is due goes
on before a new datagram enters, so that every effect sees its datagrams in order of time. Nothing here knows a clock, a
timer or a socket: whoever drives it arms one timer for :meth:`InFlight.next_due`.
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from dataclasses import dataclass, field
from heapq import heappop, heappush
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable

    from .address import Address
    from .impairment import Datagram, Link
    from .impairment._link import Stage

__all__ = ["MAX_BYTES_IN_FLIGHT", "MAX_IN_FLIGHT", "Direction", "DirectionStats", "EffectStats", "InFlight"]

MAX_IN_FLIGHT: Final = 65536
"""Datagrams that may wait at once: a second of what a relay in Python carries. Each costs some 350 bytes beside its
payload."""

MAX_BYTES_IN_FLIGHT: Final = 64 * 2**20
"""Bytes of payload that may wait at once: half a second at 1 Gbit/s."""


@dataclass(slots=True)
class EffectStats:
    """What one effect did, in datagrams."""

    lost: int = 0
    """None left it."""
    refused: int = 0
    """It answered with an ICMP error instead of letting it pass."""
    added: int = 0
    """What left it beside the first of each."""
    changed: int = 0
    """What left it with another payload."""


@dataclass(slots=True)
class DirectionStats:
    """What became of the datagrams in one direction; what was sent in and is in no other counter still waits."""

    sent: int = 0
    """Datagrams that set out."""
    arrived: int = 0
    """Datagrams that came out at the other end, the added ones included."""
    overflowed: int = 0
    """Dropped because too many were waiting."""
    effects: defaultdict[str, EffectStats] = field(default_factory=lambda: defaultdict(EffectStats))
    """What each effect did, by its label on the link."""

    @property
    def lost(self) -> int:
        """Datagrams that an effect lost or refused."""
        return sum(effect.lost + effect.refused for effect in self.effects.values())


class Direction:
    """A link in use.

    Args:
        link: The link; effects that are added later count for what is sent later.
        arrived: Called with each datagram at the other end, and the client that it comes from or goes to.

    Attributes:
        stats: The :class:`DirectionStats`.
    """

    __slots__ = ("arrived", "link", "stats")

    def __init__(self, link: Link, arrived: Callable[[Datagram, Address], None]) -> None:
        self.link = link
        self.arrived = arrived
        self.stats = DirectionStats()


class _Journey(NamedTuple):
    """What does not change while a datagram, and what effects make of it, is under way."""

    direction: Direction
    stages: tuple[Stage, ...]
    """The link's effects when it set out."""
    client: Address


class InFlight:
    """The datagrams that are under way.

    Args:
        max_datagrams: Datagrams that may wait at once; what exceeds it is dropped and counted.
        max_bytes: Bytes of payload that may wait at once, likewise.

    Attributes:
        bytes: Bytes of payload that are waiting.
    """

    def __init__(self, *, max_datagrams: int = MAX_IN_FLIGHT, max_bytes: int = MAX_BYTES_IN_FLIGHT) -> None:
        self.bytes = 0
        self._max_datagrams = max_datagrams
        self._max_bytes = max_bytes
        # The serial number keeps what is due at the same time in order, and the rest from being compared.
        self._waiting: list[tuple[float, int, _Journey, int, Datagram]] = []
        self._serial = itertools.count()

    def __len__(self) -> int:
        return len(self._waiting)

    @property
    def next_due(self) -> float | None:
        """The time at which :meth:`run` has something to do, ``None`` if nothing waits."""
        return self._waiting[0][0] if self._waiting else None

    def send(self, datagram: Datagram, direction: Direction, client: Address, now: float) -> None:
        """Put a datagram on its way.

        Args:
            datagram: The datagram.
            direction: Which way.
            client: Whose it is; handed on to ``direction.arrived``, whatever the effects make of the addresses.
            now: The time, in seconds.
        """
        if self._waiting and self._waiting[0][0] <= now:
            self.run(now)
        direction.stats.sent += 1
        self._pass(datagram, _Journey(direction, direction.link.stages, client), 0, now)

    def run(self, now: float) -> None:
        """Let everything go on that is due."""
        waiting = self._waiting
        while waiting and waiting[0][0] <= now:
            due, _, journey, passed, datagram = heappop(waiting)
            self.bytes -= len(datagram.payload)
            self._pass(datagram, journey, passed, due)

    def clear(self) -> int:
        """Forget what is under way and return how many datagrams that were."""
        count = len(self._waiting)
        self._waiting.clear()
        self.bytes = 0
        return count

    def _pass(self, datagram: Datagram, journey: _Journey, passed: int, now: float) -> None:
        """Take a datagram that has passed some of the effects through the next one."""
        direction, stages, client = journey
        if passed >= len(stages):
            delay = direction.link.delay
            if delay > 0 and passed == len(stages):
                self._wait(now + delay, datagram, journey, passed + 1)
            else:
                direction.stats.arrived += 1
                direction.arrived(datagram, client)
            return
        effect, rng, label = stages[passed]
        arrivals = list(effect(datagram, now, rng))
        onwards = 0
        for copy, delay in arrivals:
            if copy.error != datagram.error:  # an ICMP error about it, which goes the other way
                continue
            onwards += 1
            if copy.payload != datagram.payload:
                direction.stats.effects[label].changed += 1
            if delay > 0:
                self._wait(now + delay, copy, journey, passed + 1)
            else:
                self._pass(copy, journey, passed + 1, now)
        if onwards != 1:
            self._count(direction.stats.effects[label], onwards, refused=bool(arrivals))

    def _wait(self, due: float, datagram: Datagram, journey: _Journey, passed: int) -> None:
        size = len(datagram.payload)
        if len(self._waiting) >= self._max_datagrams or self.bytes + size > self._max_bytes:
            journey.direction.stats.overflowed += 1
            return
        self.bytes += size
        heappush(self._waiting, (due, next(self._serial), journey, passed, datagram))

    @staticmethod
    def _count(stats: EffectStats, onwards: int, *, refused: bool) -> None:
        if onwards:
            stats.added += onwards - 1
        elif refused:
            stats.refused += 1
        else:
            stats.lost += 1
