r"""What a probe is on the wire: one datagram that echo servers and rpc servers of ours both answer.

Theory of operation: a probe is a MessagePack-RPC request for the method ``rpc.probe``. An echo server (RFC 862) sends
it back as it was, an rpc server of ours answers with what it knows, and one that lacks the method answers with an
error: each of the three proves that the probe arrived and its answer came back. All numbers of a request have one
width, so that its size is what was asked for, and an rpc server's answer has the same size as the request (RFC 8762 has
it so as well: nothing is amplified, and the way back carries what the way there did). docs/wire.md has
both byte by byte.

The padding is random and the same in all probes of a series: what comes back is compared with it, and no compression on
the way can make the datagram smaller than it claims to be.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final, NamedTuple
from zlib import crc32

from .._msgpack import decode_untrusted
from ..address import LARGEST_PAYLOAD
from ..errors import DecodeError
from ..messages import Response

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = [
    "COUNTS_ONLY",
    "DEFAULT_PROBE_SIZE",
    "PROBE_METHOD",
    "SMALLEST_PROBE",
    "ProbeReply",
    "ProbeWire",
    "ServerSide",
    "check_of",
]

PROBE_METHOD: Final = "rpc.probe"

SMALLEST_PROBE: Final = 56
"""Bytes of the smallest probe: less does not hold the request and, in as many bytes, an rpc server's answer. It is also
what ``ping`` sends when it is not told a size."""

DEFAULT_PROBE_SIZE: Final = 64

COUNTS_ONLY: Final = 0xFFFFFFFF
"""The sequence number that asks for the server's counts at the end of a series, and is not counted itself."""

_HEAD: Final = struct.Struct(">BBBI10sBBQBIBQBH")
_BYTES_BEFORE_PADDING: Final = _HEAD.size
_SESSION: Final = slice(19, 27)
_SEQUENCE: Final = slice(28, 32)
_TELLING: Final = 8  # bytes of random padding by which a series is known
_NAME: Final = bytes([0xA0 | len(PROBE_METHOD)]) + PROBE_METHOD.encode()
_UINT16_BYTES, _UINT32, _UINT64 = 0xC5, 0xCE, 0xCF
_LONGEST_CODE: Final = 64  # characters of an error's code: a datagram could hold 65,000, and each probe prints it
_COUNTED: Final = struct.Struct(">IIIQQ")


class ServerSide(NamedTuple):
    """What an rpc server of ours tells of the probe that it answers."""

    received: int
    """Different probes of this series that it has had, this one included."""
    duplicates: int
    """Probes that it has had more than once, each further time counted."""
    arrived_ns: int
    """When the probe arrived, by the server's clock, in nanoseconds since the epoch."""
    departed_ns: int
    """When the answer left, likewise."""


class ProbeReply(NamedTuple):
    """An answer to a probe."""

    sequence: int
    sent_ns: int
    """What the answer claims as the probe's send time; -1 where it does not say."""
    server: ServerSide | None
    """None where an echo server answered, or an rpc server without the method."""
    error: str = ""
    """The code of the error with which an rpc server without the method answered."""


class ProbeWire:
    """Probes of one series, as bytes and back.

    Args:
        session: The series' random number of 64 bits: answers to other series are known by it.
        size: Bytes of each probe, from :data:`SMALLEST_PROBE` on.
        padding: Random bytes, at least ``size`` of them.

    Raises:
        ValueError: The size is too small or too large.
    """

    __slots__ = ("_first_msgid", "_padding", "session", "size")

    def __init__(self, session: int, size: int, padding: bytes) -> None:
        if not SMALLEST_PROBE <= size <= LARGEST_PAYLOAD:
            raise ValueError(f"size={size}: a probe has {SMALLEST_PROBE} to {LARGEST_PAYLOAD:,} bytes")
        if len(padding) < size:
            raise ValueError(f"padding has {len(padding)} bytes, and the size is {size}")
        self.session = session
        self.size = size
        self._padding = padding[: size - _BYTES_BEFORE_PADDING]
        self._first_msgid = session & 0xFFFFFFFF

    def encode(self, sequence: int, sent_ns: int) -> bytes:
        """Return a probe.

        Args:
            sequence: From 0 on; below 2^32.
            sent_ns: When it is sent, by any clock, in nanoseconds; not negative, below 2^64.
        """
        padding = self._padding
        msgid = (self._first_msgid + sequence) & 0xFFFFFFFF
        head = _HEAD.pack(
            0x94, 0, _UINT32, msgid, _NAME, 0x94,
            _UINT64, self.session, _UINT32, sequence, _UINT64, sent_ns, _UINT16_BYTES, len(padding),
        )  # fmt: skip
        return head + padding

    def decode_untrusted(self, datagram: bytes) -> ProbeReply:
        """Return what a datagram from the server says.

        Raises:
            DecodeError: It is no answer to a probe of this series, or was changed on its way.
        """
        if len(datagram) == self.size and datagram[1:2] == b"\0":
            return self._reflected_untrusted(datagram)
        message = decode_untrusted(datagram)
        if not isinstance(message, Response):
            raise DecodeError("it is a message, but no response")
        sequence = (message.msgid - self._first_msgid) & 0xFFFFFFFF
        if message.error is not None:
            error = message.error
            if message.result is not None:
                raise DecodeError("it has both an error and a result")
            code = error.get("code") if isinstance(error, dict) else None
            return ProbeReply(sequence, -1, None, code[:_LONGEST_CODE] if isinstance(code, str) else "error")
        if len(datagram) != self.size:
            raise DecodeError(f"it has {len(datagram)} bytes, and the probe had {self.size}")
        return ProbeReply(sequence, -1, self._server_side_untrusted(message.result, sequence))

    def resembles_untrusted(self, datagram: bytes, sent: int) -> bool:
        """Tell whether a datagram that is no answer was one before something on its way changed it.

        Args:
            datagram: What came from the server.
            sent: How many probes were sent.
        """
        if self.session.to_bytes(8, "big") in datagram[:_BYTES_BEFORE_PADDING]:
            return True
        if self._padding[:_TELLING] in datagram or self._padding[-_TELLING:] in datagram:
            return True
        if not datagram.startswith(b"\x94\x01\xce") or len(datagram) != self.size:
            return False
        msgid = int.from_bytes(datagram[3:7], "big")
        return (msgid - self._first_msgid) & 0xFFFFFFFF < sent

    def quoted_sequence_untrusted(self, quoted: bytes) -> int:
        """Return the sequence number of the probe that an ICMP error quotes, -1 where it quotes none of this series.

        Args:
            quoted: The start of a payload; routers need not quote all of it.
        """
        if len(quoted) < _SEQUENCE.stop or quoted[_SESSION] != self.session.to_bytes(8, "big"):
            return -1
        return int.from_bytes(quoted[_SEQUENCE], "big")

    def quote_too_short(self, quoted: bytes) -> bool:
        """Tell whether an ICMP error quotes so little that it may be any probe, of this series or another."""
        return len(quoted) < _SEQUENCE.stop and self.encode(0, 0)[: _SESSION.start].startswith(quoted[:3])

    def _reflected_untrusted(self, datagram: bytes) -> ProbeReply:
        fields = _HEAD.unpack_from(datagram)
        sequence, sent_ns = fields[9], fields[11]
        if fields[7] != self.session or self.encode(sequence, sent_ns) != datagram:
            raise DecodeError("it is no probe of this series")
        return ProbeReply(sequence, sent_ns, None)

    def _server_side_untrusted(self, result: object, sequence: int) -> ServerSide:
        if not (isinstance(result, list) and len(result) == 7 and isinstance(result[6], bytes)):
            raise DecodeError("its result is not that of rpc.probe")
        *numbers, check, padding = result
        if not all(type(number) is int and 0 <= number < 2**64 for number in numbers):
            raise DecodeError("a number of it is out of range")
        if numbers[0] != sequence or check != check_of(numbers) or padding != (self._padding * 2)[: len(padding)]:
            raise DecodeError("it was changed on its way")
        return ServerSide(*numbers[1:])


def check_of(numbers: Sequence[int]) -> int:
    """Return the check (CRC-32) of the five numbers of an answer; -1 where one of them is too large for any answer.

    Args:
        numbers: Sequence number, received, duplicates, arrival and departure.
    """
    try:
        return crc32(_COUNTED.pack(*numbers))
    except struct.error:
        return -1
