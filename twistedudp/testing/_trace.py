"""What happened on the simulated network: one record per datagram.

Theory of operation: a record is made when a datagram is sent, so the records stand in the order of sending, and it is
replaced once the datagram's fate is known. What an effect makes out of one datagram beyond the first gets records of
its own. Records are plain tuples of values, so they can be compared with each other and with literal tuples, and the
digest over them depends on nothing but the simulation's events: equal seeds give equal digests, in every process.
"""

from __future__ import annotations

import enum
import hashlib
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ..address import Address
    from ..impairment._link import Datagram
    from ..interfaces import Unreachable

__all__ = ["Fate", "Trace", "TraceRecord"]


@enum.unique
class Fate(str, enum.Enum):
    """What became of a datagram; each is a text as well, and compares with one."""

    IN_FLIGHT = "in flight"
    """It is on its way."""
    DELIVERED = "delivered"
    """A protocol got it."""
    LOST = "lost"
    """An effect of the link dropped it; the record's ``cause`` names the effect."""
    REFUSED = "refused"
    """Nobody listened, or an effect refused it, and the sender is told by an ICMP error, which has its own record."""
    UNHEARD = "unheard"
    """Nobody listened, and nobody was told: a silent host, a datagram to a group, or an ICMP error too late."""
    NO_HOST = "no host"
    """No host of the network has that address."""
    UNROUTABLE = "unroutable"
    """The sender's own host had no way to send it."""
    TOO_LARGE = "too large"
    """It had more bytes than the receiving port accepts."""

    __str__ = str.__str__


class TraceRecord(NamedTuple):
    """One datagram, or one ICMP error, and what became of it."""

    time: float
    """When it was sent, in virtual seconds."""
    source: Address
    destination: Address
    """Where it was sent to, or where an effect has redirected it."""
    size: int
    """Bytes of payload; of an ICMP error, of what it quotes."""
    fate: Fate
    settled_at: float | None
    """When its fate was decided; ``None`` while it is in flight."""
    rank: int
    """How many fates had been decided before: tells the order of those that were decided at the same time."""
    cause: str
    """The effect that dropped or made it, where one did."""
    error: Unreachable | None
    """The ICMP error, if the record is one."""
    payload: bytes


class Trace:
    """The records of a simulated network, in the order of sending; grows as long as the simulation runs."""

    def __init__(self) -> None:
        self._records: list[TraceRecord] = []
        self._settled = 0

    def __len__(self) -> int:
        return len(self._records)

    def __iter__(self) -> Iterator[TraceRecord]:
        return iter(self._records)

    def __getitem__(self, index: int) -> TraceRecord:
        return self._records[index]

    def select(
        self, *, source: Address | None = None, destination: Address | None = None, fate: Fate | None = None
    ) -> list[TraceRecord]:
        """Return the records of datagrams (not of ICMP errors) that have what is asked for."""
        return [
            record
            for record in self._records
            if record.error is None
            and source in (None, record.source)
            and destination in (None, record.destination)
            and fate in (None, record.fate)
        ]

    def digest(self) -> str:
        """Return a hexadecimal SHA-256 over everything that has happened, payloads included."""
        sha256 = hashlib.sha256()
        for record in self._records:
            # Only what has the same repr() everywhere: errno values and enums differ between platforms and Pythons.
            error = record.error and (record.error.icmp_type, record.error.icmp_code, record.error.reporter)
            moments = (record.time, record.settled_at, record.rank)
            route = (record.source, record.destination, str(record.fate), record.cause)
            sha256.update(repr((moments, route, error, record.payload)).encode())
        return sha256.hexdigest()

    def sent(self, datagram: Datagram, now: float, cause: str = "") -> int:
        """Record that a datagram is on its way; return the record's number."""
        payload = datagram.payload
        self._records.append(
            TraceRecord(
                now,
                datagram.source,
                datagram.destination,
                len(payload),
                Fate.IN_FLIGHT,
                None,
                -1,
                cause,
                datagram.error,
                payload,
            )
        )
        return len(self._records) - 1

    def settled(self, number: int, fate: Fate, now: float, datagram: Datagram, cause: str = "") -> None:
        """Record what became of a datagram, as it was in the end."""
        record = self._records[number]
        self._records[number] = record._replace(
            source=datagram.source,
            destination=datagram.destination,
            size=len(datagram.payload),
            fate=fate,
            settled_at=now,
            rank=self._settled,
            cause=cause or record.cause,
            payload=datagram.payload,
        )
        self._settled += 1
