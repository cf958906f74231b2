"""What an rpc server of ours answers to a probe: its half of :mod:`._wire`.

Theory of operation: an answer is made as large as the request that it answers, by as much of the request's own padding
as that takes, so all its numbers have one width, whatever they are. A request of :class:`ProbeWire` has always room for
that. One written by somebody else may have less; its answer is the smallest there is.
"""

from __future__ import annotations

import struct
from typing import Final, NamedTuple

from ._wire import check_of

__all__ = ["SMALLEST_ANSWER", "Probe", "ProbeAnswer", "encode_answer", "is_answer"]

_HEAD: Final = struct.Struct(">BBBIBB BIBIBIBQBQBI BH")
_PREFIX: Final = b"\x94\x01\xce"
_UINT32, _UINT64, _NIL, _SEVEN, _BYTES16 = 0xCE, 0xCF, 0xC0, 0x97, 0xC5

SMALLEST_ANSWER: Final = _HEAD.size
"""Bytes of an answer without padding: what a smaller request is answered with."""


class Probe(NamedTuple):
    """A probe as a server takes it."""

    session: int
    """The number of its series."""
    sequence: int
    """Its own number, or :data:`~twistedudp.probing.COUNTS_ONLY`."""
    padding: bytes


class ProbeAnswer(NamedTuple):
    """What is told of a probe."""

    sequence: int
    received: int
    """Different probes of the session that have come."""
    duplicates: int
    """Further copies of these."""
    arrived_ns: int
    """When the probe arrived, in nanoseconds since the epoch."""
    departed_ns: int
    """When the answer was made, likewise."""

    def result(self, padding: bytes = b"") -> list[object]:
        """Return the result of ``rpc.probe``: these numbers, their check, and the padding."""
        return [*self, check_of(self), padding]


def encode_answer(msgid: int, answer: ProbeAnswer, padding: bytes, size: int) -> bytes:
    """Return the response to a probe.

    Args:
        msgid: The request's.
        answer: What is told.
        padding: The request's.
        size: Bytes of the request: the response has no more, unless that is less than :data:`SMALLEST_ANSWER`, and as
            many where the padding suffices.
    """
    padding = padding[: max(0, size - SMALLEST_ANSWER)]
    head = _HEAD.pack(
        0x94, 1, _UINT32, msgid, _NIL, _SEVEN,
        _UINT32, answer.sequence, _UINT32, answer.received, _UINT32, answer.duplicates,
        _UINT64, answer.arrived_ns, _UINT64, answer.departed_ns, _UINT32, check_of(answer),
        _BYTES16, len(padding),
    )  # fmt: skip
    return head + padding


def is_answer(payload: bytes) -> bool:
    """Tell whether a response is the answer to a probe."""
    if len(payload) < SMALLEST_ANSWER or not payload.startswith(_PREFIX):
        return False
    fields = _HEAD.unpack_from(payload)
    numbers = fields[7:16:2]
    return fields[4:6] == (_NIL, _SEVEN) and fields[17] == check_of(numbers)
