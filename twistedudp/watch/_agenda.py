"""What is due when, for many things that need not be told apart by less than a tick.

Theory of operation: times are divided into slots of one tick, and whatever is due in a slot is due together. Only slots
that have something are kept, and a heap has their numbers: adding to a slot that is there already, as nearly all are
when there is much, costs no more than appending to a list, where a heap of the things themselves would compare a dozen
of them.
"""

from __future__ import annotations

import heapq
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Agenda"]

Thing = TypeVar("Thing")


class Agenda(Generic[Thing]):
    """Things that are due at times.

    Args:
        tick_ns: Nanoseconds of a slot: by so much a thing may be late.
    """

    __slots__ = ("_first", "_slots", "_tick_ns")

    def __init__(self, tick_ns: int) -> None:
        self._tick_ns = tick_ns
        self._slots: dict[int, list[Thing]] = {}
        self._first: list[int] = []

    def __len__(self) -> int:
        return sum(map(len, self._slots.values()))

    def add(self, due_ns: int, thing: Thing) -> None:
        """Have a thing due at a time; one that has passed is due with the next."""
        number = -(-due_ns // self._tick_ns)
        slot = self._slots.get(number)
        if slot is None:
            self._slots[number] = [thing]
            heapq.heappush(self._first, number)
        else:
            slot.append(thing)

    @property
    def next_due(self) -> int | None:
        """When the next thing is due, None where there is nothing."""
        return self._first[0] * self._tick_ns if self._first else None

    def take_due(self, now_ns: int) -> list[Thing]:
        """Return what is due by now, in the order of the slots, and forget it."""
        due: list[Thing] = []
        while self._first and self._first[0] * self._tick_ns <= now_ns:
            due += self._slots.pop(heapq.heappop(self._first))
        return due

    def keep(self, wanted: Callable[[Thing], bool]) -> None:
        """Forget what is not wanted any more, at whatever time it would be due."""
        self._slots = {
            number: kept for number, slot in self._slots.items() if (kept := [one for one in slot if wanted(one)])
        }
        self._first = sorted(self._slots)
