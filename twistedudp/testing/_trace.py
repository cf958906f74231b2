"""What happened on the simulated network: one record per datagram.

Theory of operation: a row is made when a datagram is sent, so the rows stand in the order of sending, and it is filled
in once the datagram's fate is known. What an effect makes out of one datagram beyond the first gets rows of its own.
Whoever reads the trace gets :class:`TraceRecord`, plain tuples of values, which can be compared with each other and
with literal tuples; they are made when they are asked for, since most are never looked at. The digest over them depends
on nothing but the simulation's events: equal seeds give equal digests, in every process.
"""

from __future__ import annotations

import enum
import hashlib
from collections import deque
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ..address import Address
    from ..impairment._link import Datagram
    from ..interfaces import Unreachable

__all__ = ["Fate", "Trace", "TraceNote", "TraceRecord", "TraceRow"]


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
    """Nobody listened, and nobody was told: the host is silent or has crashed, it went to a group, or it was an ICMP
    error."""
    NO_HOST = "no host"
    """No host of the network has that address."""
    UNROUTABLE = "unroutable"
    """The sender's own host had no way to send it."""
    TOO_LARGE = "too large"
    """It had more bytes than the receiving port accepts."""
    NOT_ADMITTED = "not admitted"
    """The receiving port's admission policy did not let it in."""

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
    """What arrived, or would have."""
    number: int
    """How many records were made before this one."""
    sender: str
    """The host that sent it, by the first of its addresses."""
    receiver: str
    """The host that it was sent to, by the first of its addresses; empty where no host has the address."""
    payload_sent: bytes
    """What was sent: differs from ``payload`` where an effect has changed that."""
    fates_before: int
    """How many fates had been decided when it was sent: what it may be an answer to has a lower ``rank``."""
    made_by: str
    """The effect that made it of another datagram, such as ``Duplicate``; empty if a program or a host sent it."""


class TraceNote(NamedTuple):
    """A remark between the records: that a host crashed, or what a test wants to find in the diagram."""

    time: float
    """In virtual seconds."""
    text: str
    host: str
    """The host that it is about, by the first of its addresses; empty if it is about none."""
    number: int
    """How many records were made before it."""
    fates_before: int
    """How many fates had been decided before it."""


class TraceRow:
    """A datagram under way, as the network fills it in; readers get a :class:`TraceRecord`."""

    __slots__ = (
        "cause",
        "datagram",
        "fate",
        "fates_before",
        "made_by",
        "number",
        "payload_sent",
        "rank",
        "receiver",
        "sender",
        "settled_at",
        "time",
    )

    def __init__(self, datagram: Datagram, now: float, sender: str, receiver: str, cause: str) -> None:
        self.time = now
        self.datagram = datagram
        self.payload_sent = datagram.payload
        self.sender = sender
        self.receiver = receiver
        self.cause = self.made_by = cause
        self.fate = Fate.IN_FLIGHT
        self.settled_at: float | None = None
        self.rank = -1

    number: int
    fates_before: int

    @property
    def record(self) -> TraceRecord:
        """The row as readers see it."""
        datagram = self.datagram
        return TraceRecord(
            self.time,
            datagram.source,
            datagram.destination,
            len(datagram.payload),
            self.fate,
            self.settled_at,
            self.rank,
            self.cause,
            datagram.error,
            datagram.payload,
            self.number,
            self.sender,
            self.receiver,
            self.payload_sent,
            self.fates_before,
            self.made_by,
        )


class Trace:
    """The records of a simulated network, in the order of sending.

    It grows as long as the simulation runs, some 400 bytes and the payload for each datagram, unless it is given a
    limit or cleared now and then.

    Args:
        limit: How many records to keep, the latest; ``None`` for all.

    Attributes:
        forgotten: How many records were dropped, for the limit or by :meth:`clear`.
    """

    def __init__(self, limit: int | None = None) -> None:
        if limit is not None and limit < 0:
            raise ValueError(f"a trace cannot keep {limit} records: the limit must be 0 or more, or None for all")
        self.forgotten = 0
        self._rows: deque[TraceRow] = deque(maxlen=limit)
        self._notes: deque[TraceNote] = deque(maxlen=limit)
        self._made = 0
        self._settled = 0

    def __len__(self) -> int:
        return len(self._rows)

    def __iter__(self) -> Iterator[TraceRecord]:
        return (row.record for row in self._rows)

    def __getitem__(self, index: int) -> TraceRecord:
        return self._rows[index].record

    @property
    def limit(self) -> int | None:
        """How many records are kept; ``None`` for all."""
        return self._rows.maxlen

    @property
    def notes(self) -> list[TraceNote]:
        """The remarks, in order of time."""
        return list(self._notes)

    def select(
        self, *, source: Address | None = None, destination: Address | None = None, fate: Fate | None = None
    ) -> list[TraceRecord]:
        """Return the records of datagrams (not of ICMP errors) that have what is asked for."""
        return [
            row.record
            for row in self._rows
            if row.datagram.error is None
            and source in (None, row.datagram.source)
            and destination in (None, row.datagram.destination)
            and fate in (None, row.fate)
        ]

    def clear(self) -> None:
        """Forget all records and remarks; what is in flight arrives all the same, and leaves no record."""
        self.forgotten += len(self._rows)
        self._rows.clear()
        self._notes.clear()

    def digest(self) -> str:
        """Return a hexadecimal SHA-256 over everything that is recorded, payloads included.

        What was forgotten counts by its number alone; so with a limit, or after :meth:`clear`, equal digests tell of
        the end of a simulation only.
        """
        sha256 = hashlib.sha256(b"%d" % self.forgotten)
        for record in self:
            # Only what has the same repr() everywhere: errno values and enums differ between platforms and Pythons.
            error = record.error and (record.error.icmp_type, record.error.icmp_code, record.error.reporter)
            moments = (record.time, record.fates_before, record.settled_at, record.rank)
            route = (record.sender, record.receiver, record.source, record.destination, str(record.fate), record.cause)
            sha256.update(repr((moments, route, error, record.payload_sent, record.payload)).encode())
        for note in self._notes:
            sha256.update(repr(tuple(note)).encode())
        return sha256.hexdigest()

    # -- what the network calls

    def sent(self, datagram: Datagram, now: float, sender: str, receiver: str, cause: str = "") -> TraceRow:
        """Record that a datagram is on its way, and return what :meth:`settled` wants to know."""
        row = TraceRow(datagram, now, sender, receiver, cause)
        row.number = self._made
        row.fates_before = self._settled
        self._made += 1
        rows = self._rows
        if len(rows) == rows.maxlen:
            self.forgotten += 1
        rows.append(row)
        return row

    def settled(self, row: TraceRow, fate: Fate, now: float, datagram: Datagram, cause: str = "") -> None:
        """Record what became of a datagram, as it was in the end."""
        row.datagram = datagram
        row.fate = fate
        row.settled_at = now
        row.rank = self._settled
        if cause:
            row.cause = cause
        self._settled += 1

    def note(self, text: str, now: float, host: str = "") -> None:
        """Record a remark; tests call :meth:`SimulatedNetwork.note`."""
        self._notes.append(TraceNote(now, text, host, self._made, self._settled))
