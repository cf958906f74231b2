"""Probe input: sent is received, lost and still waiting together; only an intact answer makes a probe received.

Whatever comes, and at whatever time. So: nothing raises; an answer with one wrong byte is counted as odd, and once; an
answer that comes again is a duplicate, one behind its timeout is late; an ICMP error that quotes no probe is odd. A
second account, kept here in the plainest way, agrees with the table's after each step.
"""

from __future__ import annotations

from enum import IntEnum
from typing import TYPE_CHECKING, Final

from twistedudp import _msgpack
from twistedudp.probing import COUNTS_ONLY, ProbeTable, ProbeWire, check_of

from ._source import MAX_STEPS, Broken, Source, chunk, silent

if TYPE_CHECKING:
    from collections.abc import Callable

    from twistedudp.probing import ProbeEvent

    from ._source import Tell

__all__ = ["MAX_SIZE", "Step", "play", "seeds"]

MAX_SIZE: Final = 96
"""Bytes of an input."""

_WINDOW: Final = 4
_TIMEOUT: Final = 1000
_WAITS: Final = (1, 400, 1000, 1001, 100_000)
_SESSION: Final = 0xA1B2C3D4E5F60718
_SIZE: Final = 64
_PADDING: Final = bytes(range(100, 100 + _SIZE))
_QUOTED: Final = (64, 32, 31, 8, 0)


class Step(IntEnum):
    """What an input can do."""

    SEND = 0
    """The next probe is sent."""
    REFLECTION = 1
    """A probe comes back: which, its damage."""
    RESPONSE = 2
    """An rpc server's answer: to which, its damage."""
    ERROR = 3
    """An rpc server's error: to which."""
    DATAGRAM = 4
    """Any bytes."""
    ICMP = 5
    """An ICMP error: which probe it quotes, how much of it, its damage."""
    TIME = 6
    """Time passes: how much."""
    UNSENT = 7
    """The last probe could not be sent."""


class _Account:
    """What became of each probe, by its number; and the table that must know the same."""

    def __init__(self, tell: Tell) -> None:
        self.tell = tell
        self.wire = ProbeWire(_SESSION, _SIZE, _PADDING)
        self.table = ProbeTable(self.wire, timeout_ns=_TIMEOUT, window=_WINDOW)
        self.now = 5000
        self.sent_at: dict[int, int] = {}
        self.fates: dict[int, str] = {}
        self.duplicates = 0
        self.late = 0
        self.odd = 0

    def check(self) -> None:
        """Compare the two."""
        table, fates = self.table, list(self.fates.values())
        lost = fates.count("lost") + fates.count("late")
        own = (len(fates), fates.count("received"), lost, self.late, self.duplicates, self.odd)
        theirs = (table.sent, table.received, table.lost, table.late, table.duplicated, table.corrupted + table.foreign)
        if own != theirs:
            raise Broken(f"sent, received, lost, late, duplicated, odd are {theirs}, and should be {own}")
        if table.waiting != fates.count("waiting"):
            raise Broken(f"{table.waiting} wait, and should be {fates.count('waiting')}")

    def send(self) -> None:
        """Send the next probe, for which the oldest that is remembered is given up."""
        sequence, payload, _ = self.table.next_probe(now_ns=self.now)
        if len(payload) != _SIZE:
            raise Broken(f"the probe has {len(payload)} bytes")
        if self.fates.get(sequence - _WINDOW) == "waiting":
            self.fates[sequence - _WINDOW] = "lost"
        self.sent_at[sequence], self.fates[sequence] = self.now, "waiting"
        self.tell("probe %d is sent at %d", sequence, self.now)

    def answered(self, sequence: int, payload: bytes, *, intact: bool) -> None:
        """Let an answer come."""
        event = self.table.reply_received_untrusted(payload, arrived_ns=self.now)
        self.tell("%s for %d at %d: %s", payload, sequence, self.now, event.kind)
        fate = self.fates.get(sequence) if sequence >= self.table.next_sequence - _WINDOW else None
        if not intact or fate is None:
            self.odd += 1
        elif fate in ("received", "late"):
            self.duplicates += 1
        elif fate == "waiting" and self.now - self.sent_at[sequence] <= _TIMEOUT:
            self.fates[sequence] = "received"
            self._check_time(event, sequence)
        else:
            self.fates[sequence] = "late"
            self.late += 1

    def _check_time(self, event: ProbeEvent, sequence: int) -> None:
        if (event.sequence, event.rtt_ns) != (sequence, self.now - self.sent_at[sequence]):
            raise Broken(f"the reply to {sequence} is {event}")

    def pass_time(self, nanoseconds: int) -> None:
        """Let time pass, and what has run out be given up."""
        self.now += nanoseconds
        self.table.deadline_reached(now_ns=self.now)
        for sequence, fate in self.fates.items():
            if fate == "waiting" and self.sent_at[sequence] + _TIMEOUT <= self.now:
                self.fates[sequence] = "lost"
        self.tell("it is %d", self.now)


def play(data: bytes, tell: Tell = silent) -> None:
    """Play one input to one table."""
    source, account = Source(data), _Account(tell)
    steps: tuple[Callable[[Source, _Account], None], ...] = (
        _send, _reflection, _response, _error, _datagram, _icmp, _time, _unsent,
    )  # fmt: skip
    for _ in range(MAX_STEPS):
        if not source:
            break
        source.choose(steps)(source, account)
        account.check()
    account.pass_time(_TIMEOUT + 1)
    account.check()
    if account.table.waiting or account.table.next_deadline() is not None:
        raise Broken("a probe waits behind its timeout")


def _send(_: Source, account: _Account) -> None:
    account.send()


def _damaged(payload: bytes, damage: int) -> bytes:
    """Change one byte, cut the end off, or leave the payload as it is: 0."""
    if damage == 0:
        return payload
    if damage & 0x80:
        return payload[: damage & 0x3F]
    place = damage % len(payload)
    return payload[:place] + bytes([payload[place] ^ (1 << damage % 7)]) + payload[place + 1 :]


def _reflection(source: Source, account: _Account) -> None:
    sequence, damage = source.byte() % 16, source.byte()
    payload = account.wire.encode(sequence, account.sent_at.get(sequence, 1))
    account.answered(sequence, _damaged(payload, damage), intact=damage == 0)


def _response(source: Source, account: _Account) -> None:
    sequence, damage = source.byte() % 16, source.byte()
    numbers = [sequence, sequence + 1, 0, account.now + 2**60, account.now + 2**60 + 5]
    msgid = ((_SESSION & 0xFFFFFFFF) + sequence) & 0xFFFFFFFF
    padding = account.wire.encode(0, 0)[44:]
    bare = _msgpack.encode_response(msgid, None, [*numbers, check_of(numbers), b""])
    payload = _msgpack.encode_response(msgid, None, [*numbers, check_of(numbers), (padding * 2)[: _SIZE - len(bare)]])
    account.answered(sequence, _damaged(payload, damage), intact=damage == 0)


def _error(source: Source, account: _Account) -> None:
    sequence = source.byte() % 16
    msgid = ((_SESSION & 0xFFFFFFFF) + sequence) & 0xFFFFFFFF
    error = {"code": "unknown_method", "message": "no"}
    account.answered(sequence, _msgpack.encode_response(msgid, error, None), intact=True)


def _datagram(source: Source, account: _Account) -> None:
    payload = source.chunk()
    account.answered(-1, payload, intact=False)


def _icmp(source: Source, account: _Account) -> None:
    sequence, size, damage = source.byte() % 16, source.choose(_QUOTED), source.byte()
    quoted = account.wire.encode(sequence, 1)[:size]
    quoted = _damaged(quoted, damage & 0x7F) if quoted else quoted
    before = account.table.unreachable
    account.table.probe_unreachable_untrusted(quoted, "Connection refused", now_ns=account.now)
    account.tell("an ICMP error quotes %s: %d counted", quoted, account.table.unreachable - before)
    in_session = quoted[19:27] == _SESSION.to_bytes(8, "big") and len(quoted) >= 32
    known = int.from_bytes(quoted[28:32], "big") if in_session else -1
    told = known == COUNTS_ONLY or max(0, account.table.next_sequence - _WINDOW) <= known < account.table.next_sequence
    if account.table.unreachable - before != told:
        raise Broken(f"an ICMP error that quotes {quoted!r} counted {account.table.unreachable - before} times")


def _time(source: Source, account: _Account) -> None:
    account.pass_time(source.choose(_WAITS))


def _unsent(_: Source, account: _Account) -> None:
    last = account.table.next_sequence - 1
    if account.fates.get(last) == "waiting":
        account.table.probe_not_sent(last, "no")
        del account.fates[last], account.sent_at[last]


def seeds() -> list[bytes]:
    """Return series to begin with."""
    send, soon, late = bytes([Step.SEND]), bytes([Step.TIME, 1]), bytes([Step.TIME, 3])
    unsent = bytes([Step.UNSENT])

    def back(sequence: int = 0, damage: int = 0) -> bytes:
        return bytes([Step.REFLECTION, sequence, damage])

    def response(sequence: int = 0, damage: int = 0) -> bytes:
        return bytes([Step.RESPONSE, sequence, damage])

    def icmp(sequence: int = 0, quoted: int = 0, damage: int = 0) -> bytes:
        return bytes([Step.ICMP, sequence, quoted, damage])

    def datagram(payload: bytes) -> bytes:
        return bytes([Step.DATAGRAM]) + chunk(payload)

    return [
        send + soon + back() + back(),
        send + soon + response() + response(),
        send * 3 + response(2) + response(0) + response(1) + late,
        send + late + back() + back(),
        send * 6 + back(0) + back(1) + back(2) + back(5),
        send * 2 + back(0, 20) + back(0, 0xBF) + back(1, 33) + back(3),
        *(send + response(0, damage) + response() for damage in (1, 2, 4, 7, 20, 50, 63, 0x8A)),
        send + bytes([Step.ERROR, 0]) + bytes([Step.ERROR, 1]),
        send + unsent + back() + send + unsent + send + back(2),
        send + icmp() + icmp(0, 1) + icmp(0, 2) + icmp(0, 3) + icmp(1) + icmp(0, 0, 30) + late,
        send + datagram(b"") + datagram(b"hello") + datagram(_msgpack.encode_request(1, "rpc.probe", [])),
        send + datagram(_msgpack.encode_response(1, None, "no")) + datagram(_msgpack.encode_notification("m", [])),
    ]
