"""Token buckets of very many senders in a table of fixed size.

Theory of operation: a bucket is one number, the time at which it is full again (the "theoretical arrival time" of the
generic cell rate algorithm, ITU-T I.371): a datagram moves it on by one interval, and may come as long as it is not
further ahead of the clock than the tolerance. A bucket whose time has passed is full, and not worth remembering.

The table has sets of four places. Which set a sender belongs to follows from a number that is mixed from its address
and secret ones, so that nobody can aim at another's set; that number, which no two senders share, marks the place.
Where a set has no place left, the bucket that is nearest to full makes room: it loses the least. A flood of forged
senders with a datagram each so drives out others of its kind, and not the few that send much.
"""

from __future__ import annotations

from array import array
from hashlib import blake2b
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from ._stats import AdmissionStats

__all__ = ["KEY_SIZE", "SLOTS", "WAYS", "BucketTable", "Secrets", "mixed", "secrets_of"]

SLOTS: Final = 65536
"""Senders that a table remembers: those that have sent within the last moments. 1 MiB, whoever sends."""

WAYS: Final = 4
"""Places in a set: of 16 bytes each, so that a set is one line of a processor's cache."""

SETS_SHIFT: Final = 50
"""The 14 highest bits of the mixed number choose one of 16,384 sets."""

KEY_SIZE: Final = 16
"""Bytes of a key at least."""

_MASK: Final = 0xFFFF_FFFF_FFFF_FFFF


class Secrets(NamedTuple):
    """What addresses are mixed with: four numbers of 64 bits."""

    ipv4: int
    ipv6: int
    first: int
    """Odd, so that multiplying with it loses nothing; likewise the second."""
    second: int


def secrets_of(key: bytes) -> Secrets:
    """Return the numbers that follow from a key.

    Args:
        key: At least 16 random bytes, which nobody outside of the process may know.

    Raises:
        ValueError: It is shorter.
    """
    if len(key) < KEY_SIZE:
        raise ValueError(f"key: {len(key)} bytes are too few; pass at least {KEY_SIZE} random bytes")
    digest = blake2b(key, digest_size=32, person=b"admission").digest()
    ipv4, ipv6, first, second = (int.from_bytes(digest[at : at + 8], "little") for at in range(0, 32, 8))
    return Secrets(ipv4, ipv6, first | 1, second | 1)


def mixed(word: int, salt: int, secrets: Secrets) -> int:
    """Return the number of 64 bits that a prefix is known by: different for different prefixes of one IP version."""
    number = (word ^ salt) * secrets.first & _MASK
    number ^= number >> 32
    number = number * secrets.second & _MASK
    return number ^ number >> 29


class BucketTable:
    """The buckets of one kind of prefix.

    Args:
        stats: What to count evictions in.
    """

    __slots__ = ("_marks", "_stats", "_times")

    def __init__(self, stats: AdmissionStats) -> None:
        self._stats = stats
        self._marks = array("Q", bytes(8 * SLOTS))
        self._times = array("q", bytes(8 * SLOTS))

    def __sizeof__(self) -> int:
        """Return the bytes that it takes, which never change."""
        return object.__sizeof__(self) + self._marks.__sizeof__() + self._times.__sizeof__()

    def place(self, mark: int) -> int:
        """Return the place of a bucket: where it is, or where it would be put."""
        marks = self._marks
        first = (mark >> SETS_SHIFT) * WAYS
        if marks[first] == mark:
            return first
        for place in range(first + 1, first + WAYS):
            if marks[place] == mark:
                return place
        return min(range(first, first + WAYS), key=self._times.__getitem__)

    def full_at(self, place: int, mark: int, now: int) -> int:
        """Return when a bucket is full again, ``now`` if it is."""
        return max(self._times[place], now) if self._marks[place] == mark else now

    def put(self, place: int, mark: int, full_at: int, now: int) -> None:
        """Set when a bucket is full again.

        Args:
            place: Its :meth:`place`.
            mark: Whose bucket it is.
            full_at: When it is full, in nanoseconds.
            now: The time; what was in this place is forgotten, which is a loss if it is not full yet.
        """
        if self._marks[place] != mark:
            self._stats.evictions += self._times[place] > now
            self._marks[place] = mark
        self._times[place] = full_at
