"""Codec: any bytes are refused with ``DecodeError``, or are a message that encodes to bytes of the same meaning.

In either case within the promised bounds: 1.2 MB of memory and little time for a datagram of up to 8 kB; and
``peek_msgid_untrusted`` says nothing else than ``decode_untrusted`` about any beginning of it. The input is the
datagram.
"""

from __future__ import annotations

import datetime as dt
import time
import tracemalloc
from typing import TYPE_CHECKING, Final

from twistedudp import _msgpack
from twistedudp.errors import DecodeError
from twistedudp.messages import TYPE_REQUEST, TYPE_RESPONSE, Notification, Request, Response

from ._source import Broken, silent

if TYPE_CHECKING:
    from twistedudp.messages import Message

    from ._source import Tell

__all__ = ["MAX_SIZE", "play", "seeds"]

MAX_SIZE: Final = 8192
"""Bytes of an input."""

_PEAK_BYTES: Final = 1_200_000
_SECONDS: Final = 0.5
"""Far above the promised 2 ms, which tests/properties/test_bombs.py measures: here every line is traced by the fuzzer
or by coverage. It finds what grows faster than the datagram."""


def play(data: bytes, tell: Tell = silent) -> None:
    """Decode one datagram, and encode what it was."""
    started = time.thread_time()
    message = _decoded(data)
    seconds = time.thread_time() - started
    tell("%d bytes in %.1f ms: %r", len(data), seconds * 1e3, message)
    if seconds > _SECONDS:
        raise Broken(f"{len(data):,} bytes took {seconds * 1e3:.0f} ms")
    _check_memory(data)
    if message is None:
        return
    _check_peek(data, message)
    canonical = _encoded(message)
    again = _decoded(canonical)
    if repr(again) != repr(message):  # repr: a NaN is not equal to itself
        raise Broken(f"{message!r} came back as {again!r}")
    if _encoded(message) != canonical:
        raise Broken(f"{message!r} is encoded in two ways")
    if not isinstance(message, Notification):
        kind = TYPE_REQUEST if isinstance(message, Request) else TYPE_RESPONSE
        if _msgpack.peek_msgid_untrusted(canonical, kind) != message.msgid:
            raise Broken(f"the msgid of {message!r} is not seen in what we encode")
    _check_peek(canonical, message)


def _decoded(data: bytes) -> Message | None:
    try:
        return _msgpack.decode_untrusted(data)
    except DecodeError as error:
        if "\n" in str(error) or not str(error):
            raise Broken(f"the error's text is not one line: {error}") from error
        return None


def _encoded(message: Message) -> bytes:
    if isinstance(message, Request):
        return _msgpack.encode_request(*message)
    if isinstance(message, Response):
        return _msgpack.encode_response(*message)
    return _msgpack.encode_notification(*message)


def _check_memory(data: bytes) -> None:
    if not tracemalloc.is_tracing():
        return  # coverage and tracemalloc together are slow: the fuzzer's process traces memory, the unit tests do not
    before = tracemalloc.get_traced_memory()[0]
    tracemalloc.reset_peak()
    _decoded(data)
    peak = tracemalloc.get_traced_memory()[1] - before
    if peak > _PEAK_BYTES:
        raise Broken(f"{len(data):,} bytes took {peak:,} bytes of memory")


def _check_peek(data: bytes, message: Message) -> None:
    for kind, of in ((TYPE_REQUEST, Request), (TYPE_RESPONSE, Response)):
        allowed = {None, message.msgid} if isinstance(message, of) else {None}
        for end in (*range(1, 12), len(data)):
            seen = _msgpack.peek_msgid_untrusted(data[:end], kind)
            if seen not in allowed:
                raise Broken(f"{message!r} seems to have msgid {seen!r} after {end} bytes")


def seeds() -> list[bytes]:
    """Return messages of every kind, and some that are none."""
    everything: list[object] = [
        None,
        True,
        0,
        127,
        2**16,
        2**40,
        -1,
        -40,
        -(2**62),
        2.5,
        "text",
        "ä" * 40,
        b"bytes",
        [[]],
        {"k": {"l": [1]}},
    ]
    everything.append(dt.datetime(2026, 11, 22, 12, 0, 0, 123456, tzinfo=dt.timezone.utc))
    request = _msgpack.encode_request(1, "echo", ["Hello, UDP server!"])
    return [
        request,
        _msgpack.encode_request(2**32 - 1, "mean", [[3.14159, 2.71828, 1.41421]]),
        _msgpack.encode_request(300, "everything", everything),
        _msgpack.encode_notification("log", [{"level": "info", "text": "started"}]),
        _msgpack.encode_response(1, None, everything),
        _msgpack.encode_response(70000, {"code": "busy", "message": "ask again later", "data": {"left": 0}}, None),
        _msgpack.encode_response(1, "an error of another implementation", None),
        b"\x94\x00\xcd\x01\x00\xa4echo\xdc\x00\x01\xdd\x00\x00\x00\x01\xde\x00\x01\xd9\x01a\xdf\x00\x00\x00\x00",
        b"\x94\x01\xcc\x80\xc0\x9f\xc4\x01a\xc5\x00\x01a\xc6\x00\x00\x00\x01a\xda\x00\x01a\xdb\x00\x00\x00\x01a"
        b"\xca\x3f\x80\x00\x00\xd0\x80\xd1\x80\x00\xd2\x80\x00\x00\x00\xd3\x80\x00\x00\x00\x00\x00\x00\x00\xcf"
        + b"\xff" * 8 + b"\xd6\xff\x00\x00\x00\x01\xd7\xff" + bytes(8) + b"\xc7\x0c\xff" + bytes(12) + b"\xc0\xc2",
        request[:-1],
        request + b"\0",
        b"\x94\x00\x01\xa1m" + b"\x91" * 20 + b"\x90",
        b"\x94\x00\x01\xa1m\x91" + b"\xdc\x20\x00" * 12,
        b"\x94\x01\x01\xc0\x82\xa1a\x01\xa1a\x02",
        b"\x94\x01\x01\xc0\x81\x01\x02",
        b"\x94\x01\x01\xc0\xd4\x05\x00",
        b"",
        b"hello",
    ]  # fmt: skip
