"""Answers as servers give them, made independently of the code under test: by their bytes.

Theory of operation: an echo server's answer is the probe. An rpc server's is laid out here by hand, as docs/wire.md has
it, so that a mistake in the codec cannot hide behind itself.
"""

from __future__ import annotations

import struct
from typing import Final
from zlib import crc32

from twistedudp import _msgpack
from twistedudp.messages import Request
from twistedudp.probing import ProbeSeries, ProbeWire, SeriesNames

__all__ = [
    "EPOCH",
    "MS",
    "SESSION",
    "SIZE",
    "error_answer",
    "probe_of",
    "rpc_answer",
    "series_of",
    "wire_of",
]

SESSION: Final = 0xFEDCBA9876543210
SIZE: Final = 80
EPOCH: Final = 1_800_000_000 * 10**9
"""The server's clock, in nanoseconds, when the probe's is 0."""
MS: Final = 1_000_000
"""Nanoseconds of a millisecond."""

_HEAD: Final = struct.Struct(">3sI3sIBIBIBQBQBIBH")


def wire_of(session: int = SESSION, size: int = SIZE, padding: bytes | None = None) -> ProbeWire:
    """Return a wire whose padding is none that repeats itself."""
    return ProbeWire(session, size, bytes(number * 7 % 251 for number in range(size)) if padding is None else padding)


def series_of(*, timeout_ns: int = 1000 * MS, window: int = 64, wire: ProbeWire | None = None) -> ProbeSeries:
    """Return a series."""
    names = SeriesNames("server", "192.0.2.1:10000", 0.01)
    return ProbeSeries(wire or wire_of(), names, timeout_ns=timeout_ns, window=window)


def probe_of(probe: bytes) -> Request:
    """Return a probe as an rpc server sees it."""
    request = _msgpack.decode_untrusted(probe)
    assert isinstance(request, Request)
    return request


def _parameters_of(probe: bytes) -> tuple[int, bytes]:
    _, sequence, _, padding = probe_of(probe).params
    assert isinstance(sequence, int)
    assert isinstance(padding, bytes)
    return sequence, padding


def rpc_answer(
    probe: bytes,
    received: int = 1,
    duplicates: int = 0,
    *,
    arrived_ns: int = EPOCH,
    departed_ns: int = EPOCH,
    check: int | None = None,
) -> bytes:
    """Return what an rpc server of ours answers to a probe, of the size of the probe.

    Args:
        probe: The request.
        received: Different probes that it has had.
        duplicates: Probes that it has had again.
        arrived_ns: When the probe arrived.
        departed_ns: When the answer leaves.
        check: Another check than the right one.
    """
    sequence, padding = _parameters_of(probe)
    numbers = (sequence, received, duplicates, arrived_ns, departed_ns)
    right = crc32(struct.pack(">IIIQQ", *numbers))
    room = len(probe) - _HEAD.size
    head = _HEAD.pack(
        *(b"\x94\x01\xce", probe_of(probe).msgid, b"\xc0\x97\xce", sequence, 0xCE, received, 0xCE, duplicates),
        *(0xCF, arrived_ns, 0xCF, departed_ns, 0xCE, right if check is None else check, 0xC5, room),
    )
    return head + (padding * 2)[:room]


def error_answer(probe: bytes, code: str = "unknown_method") -> bytes:
    """Return what an rpc server answers that lacks the method."""
    return _msgpack.encode_response(probe_of(probe).msgid, {"code": code, "message": "no such method"}, None)
