"""Datagrams made to cost the decoder as much as possible, and messages at its limits: the worst that were found.

Those at the end come from a search (random starts, then changes kept while they made it worse) over headers in front
and runs of elements behind them, for peak memory and for CPU time.
"""

from __future__ import annotations

import struct
from typing import Final

__all__ = ["BAD", "BOMBS", "MESSAGE", "message"]

LARGEST: Final = 8192
"""Bytes of the largest datagram that the promised cost is for."""

MESSAGE: Final = b"\x94\x00\x01\xa1m"
"""The beginning of a request whose params follow."""

UCS2: Final = b"\xa2\xc4\xa0"
"""A text of one character that needs two bytes: 76 bytes of memory for three on the wire, the worst of all elements."""


def array16(count: int) -> bytes:
    """Return the header of a list that claims so many elements."""
    return b"\xdc" + struct.pack(">H", count)


def map16(count: int) -> bytes:
    """Return the header of a map that claims so many pairs."""
    return b"\xde" + struct.pack(">H", count)


def filled(head: bytes, unit: bytes, size: int = LARGEST) -> bytes:
    """Return a datagram of that size: a head, then one unit again and again, the last one cut."""
    return (head + unit * size)[:size]


def message(*runs: tuple[bytes, int], depth: int = 0, size: int = LARGEST) -> bytes:
    """Return an honest request that fills a datagram.

    Args:
        runs: Elements and how often each is repeated at most.
        depth: Lists of one element around the list that holds them.
        size: Bytes of the whole at most.
    """
    elements: list[bytes] = []
    left = size - len(MESSAGE) - depth - 3
    for element, times in runs:
        fitting = min(times, left // len(element))
        elements += [element] * fitting
        left -= fitting * len(element)
    return MESSAGE + b"\x91" * depth + array16(len(elements)) + b"".join(elements)


def _pairs(size: int) -> bytes:
    """Return as many pairs with keys of their own as fit, none of whose bytes could be a container's header."""
    keys = [
        bytes((0xA3, first, second, third))
        for first in range(0xE1, 0xE9)
        for second in range(0xA0, 0xC0)
        for third in range(0xA0, 0xC0)
    ]
    pairs = b"".join(key + UCS2 for key in keys[: size // 7])
    return map16(len(pairs) // 7) + pairs


def _nested(size: int) -> dict[str, bytes]:
    """Return headers inside one another, of each kind, bare and as the params of a request."""
    headers = {
        "array16": array16(size), "array16 of 128": array16(128), "array32": b"\xdd" + struct.pack(">I", size),
        "map16": map16(size // 2), "map32": b"\xdf" + struct.pack(">I", size // 2),
        "fixarray": b"\x9f", "fixmap": b"\x8f", "map16 with keys": map16(size // 2 - 1) + b"\xa1k",
    }  # fmt: skip
    bombs = {}
    for kind, header in headers.items():
        bombs[f"nested {kind}, {size} bytes"] = filled(array16(4), header, size)
        bombs[f"params of nested {kind}, {size} bytes"] = filled(MESSAGE, header, size)
        for depth in (7, 8, 15, 16):
            bombs[f"{depth} times {kind} then texts, {size} bytes"] = filled(array16(size) + header * depth, UCS2, size)
    return bombs


TIMESTAMP_32: Final = b"\xd6\xff\x00\x00\x00\x01"
TIMESTAMP_64: Final = b"\xd7\xff" + struct.pack(">Q", 999_999_999 << 34 | 5)
TIMESTAMP_96: Final = b"\xc7\x0c\xff" + struct.pack(">Iq", 999, -5)
MAP_OF_ONE: Final = b"\x81\xa0\xc0"
LONG_MAP_OF_ONE: Final = b"\xde\x00\x01\xa0\xc0"

BOMBS: Final[dict[str, bytes]] = {
    **_nested(1400),
    **_nested(LARGEST),
    # more containers than allowed, and as many as allowed
    **{
        f"{name} only": message((unit, LARGEST))
        for name, unit in {
            "empty lists": b"\x90", "empty maps": b"\x80", "lists of one": b"\x91\x00", "maps of one": MAP_OF_ONE,
        }.items()
    },
    **{
        f"1,020 {outer}, then {inner}": message((first, 1020), (then, LARGEST))
        for outer, first in {
            "empty lists": b"\x90", "empty maps": b"\x80", "maps of one": MAP_OF_ONE, "long maps": LONG_MAP_OF_ONE,
        }.items()
        for inner, then in {
            "numbers": b"\x00", "new numbers": b"\xd0\x80", "texts": UCS2, "empty str8": b"\xd9\x00",
            "empty bin8": b"\xc4\x00", "empty str16": b"\xda\x00\x00", "empty bin32": b"\xc6\x00\x00\x00\x00",
            "timestamps 32": TIMESTAMP_32, "timestamps 64": TIMESTAMP_64, "timestamps 96": TIMESTAMP_96,
        }.items()
    },
    # depth
    "16 honest lists, maximal claims": (
        b"\x94\x00\x01\xa1m" + b"".join(array16(8000 // 14) for _ in range(14)) + b"\xc0" * LARGEST
    )[:LARGEST],
    "14 deep, then texts": message((UCS2, LARGEST), depth=13),
    "14 deep, then lists": message((b"\x90", 1008), (b"\xd9\x00", LARGEST), depth=13),
    "15 lists and a map of many keys": (array16(8191) * 15 + _pairs(8000))[:LARGEST],
    "7 lists and a map of many keys": (array16(8191) * 7 + _pairs(8000))[:LARGEST],
    "a map of many keys": MESSAGE + b"\x91" + _pairs(8000),
    # found by the search
    "memory: 16 lists, then texts": filled(array16(LARGEST) * 16, UCS2),
    "memory: 8 lists of both widths, then texts and pairs": filled(
        (array16(LARGEST) * 2 + b"\xdd\x00\x00\x20\x00") * 2 + array16(LARGEST) * 2, UCS2 * 2600 + UCS2 + b"\xd0\xa0"
    ),
    "time: long maps, then str16": message((LONG_MAP_OF_ONE, 1000), (b"\xc5\x00\x00", 1000), (b"\xc0", 200), depth=11),
    "time: str16, then maps, then str32": message(
        (b"\xda\x00\x00", 1000), (b"\xde\x00\x00", 1000), (b"\xdb\x00\x00\x00\x00", LARGEST), depth=3
    ),
}  # fmt: skip
"""By name; none is larger than 8,192 bytes."""

BAD: Final[dict[str, tuple[bytes, str]]] = {
    "empty": (b"", "an empty datagram"),
    "text": (b"hello", "not a MessagePack-RPC message"),
    "a map": (b"\x81\xa1a\x01", "not a MessagePack-RPC message"),
    "a list too short": (b"\x92\x00\x01", "not a MessagePack-RPC message"),
    "a list too long": (b"\xdc\x00\x05\x00\x01\xa1m\x90\x00", "type 0 with 5 fields"),
    "an empty list": (b"\xdc\x00\x00", "not a list that begins with its type"),
    "a type that is no number": (b"\x94\xa10\x01\xa1m\x90", "not a list that begins with its type"),
    "a type that is a truth": (b"\x94\xc2\x01\xa1m\x90", "not a list that begins with its type"),
    "a type that is a float": (b"\x94\xca\x00\x00\x00\x00\x01\xa1m\x90", "not a list that begins with its type"),
    "an unknown type": (b"\x94\x03\x01\xa1m\x90", "type 3 with 4 fields"),
    "a negative type": (b"\x94\xff\x01\xa1m\x90", "type -1 with 4 fields"),
    "a request of three": (b"\x93\x00\x01\xa1m", "type 0 with 3 fields"),
    "a response of three": (b"\x93\x01\x01\xc0", "type 1 with 3 fields"),
    "a notification of four": (b"\x94\x02\x01\xa1m\x90", "type 2 with 4 fields"),
    "a method that is bytes": (b"\x94\x00\x01\xc4\x01m\x90", "of the wrong kinds"),
    "params that are a map": (b"\x94\x00\x01\xa1m\x80", "of the wrong kinds"),
    "params that are nil": (b"\x94\x00\x01\xa1m\xc0", "of the wrong kinds"),
    "a notified method that is a number": (b"\x93\x02\x05\x90", "of the wrong kinds"),
    "notified params that are text": (b"\x93\x02\xa1m\xa1x", "of the wrong kinds"),
    "a msgid below 0": (b"\x94\x00\xff\xa1m\x90", "a msgid must be"),
    "a msgid of 33 bits": (b"\x94\x00\xcf\x00\x00\x00\x01\x00\x00\x00\x00\xa1m\x90", "a msgid must be"),
    "a msgid that is a truth": (b"\x94\x01\xc3\xc0\xc0", "a msgid must be"),
    "a msgid that is text": (b"\x94\x01\xa11\xc0\xc0", "a msgid must be"),
    "a msgid that is a float": (b"\x94\x01\xca\x00\x00\x00\x00\xc0\xc0", "a msgid must be"),
    "cut in the header": (b"\xdc\x00", "not msgpack: "),
    "cut before the params": (MESSAGE, "not msgpack: "),
    "cut in a text": (MESSAGE + b"\x91\xa5abc", "not msgpack: "),
    "cut in a number": (MESSAGE + b"\x91\xcf\x00", "not msgpack: "),
    "cut after many lists": (MESSAGE + b"\x9f" + b"\x90" * 14 + b"\xda", "ends inside an element"),
    "cut in a length after many lists": (MESSAGE + b"\x9f" + b"\x90" * 14 + b"\xd9", "ends inside an element"),
    "cut in a long text after many lists": (MESSAGE + b"\x9f" + b"\x90" * 14 + b"\xda\x20\x00ab", "not msgpack: "),
    "trailing bytes": (MESSAGE + b"\x90\x00", "extra data"),
    "trailing bytes after many lists": (MESSAGE + b"\x9f" + b"\x90" * 15 + b"\xc0", "extra data"),
    "the byte that is nothing": (MESSAGE + b"\x91\xc1", "not msgpack: "),
    "1,025 nested arrays": (b"\x91" * 1025, "not a MessagePack-RPC message"),
    "1,025 nested arrays as params": (MESSAGE + b"\x91" * 1025, "nested more than 16 deep"),
    "17 deep": (MESSAGE + b"\x91" * 15 + b"\x90", "nested more than 16 deep"),
    "17 deep in maps": (MESSAGE + b"\x91" + b"\x81\xa0" * 14 + b"\x80", "nested more than 16 deep"),
    "1,025 lists": (MESSAGE + array16(1023) + b"\x90" * 1023, "more than 1,024 lists and maps"),
    "1,025 maps": (b"\x94\x01\x01\xc0" + array16(1023) + b"\x80" * 1023, "more than 1,024 lists and maps"),
    "array32 of 4 G": (b"\xdd\xff\xff\xff\xff", "not msgpack: 4294967295 exceeds"),
    "array32 of 4 G as params": (MESSAGE + b"\xdd\xff\xff\xff\xff", "not msgpack: 4294967295 exceeds"),
    "map32 of 4 G": (MESSAGE + b"\x91\xdf\xff\xff\xff\xff", "not msgpack: 4294967295 exceeds"),
    "str32 of 4 G": (MESSAGE + b"\x91\xdb\xff\xff\xff\xff", "not msgpack: "),
    "bin32 of 4 G": (MESSAGE + b"\x91\xc6\xff\xff\xff\xff", "not msgpack: "),
    "ext32 of 4 G": (MESSAGE + b"\x91\xc9\xff\xff\xff\xff\x05", "not msgpack: "),
    "nested array16": (filled(MESSAGE, array16(1400), 1400), "more elements than the datagram has bytes"),
    "nested map16": (filled(MESSAGE, map16(700) + b"\xa0", 1400), "more elements than the datagram has bytes"),
    "nested array32": (filled(MESSAGE, b"\xdd\x00\x00\x05\x00", 1400), "more elements than the datagram has bytes"),
    "the same key twice": (MESSAGE + b"\x91\x82\xa1a\x01\xa1a\x02", "a map has the same key twice"),
    "the same key twice, deep": (MESSAGE + b"\x91\x81\xa1x\x91\x82\xa1a\x01\xd9\x01a\x02", "the same key twice"),
    "a key that is a number": (MESSAGE + b"\x91\x81\x01\x02", "not allowed for map key"),
    "a key that is nil": (MESSAGE + b"\x91\x81\xc0\x02", "not allowed for map key"),
    "a key that is a list": (MESSAGE + b"\x91\x81\x90\x02", "not allowed for map key"),
    "a key that is bytes": (MESSAGE + b"\x91\x81\xc4\x01a\x02", "a key that is not text but bytes"),
    "an unknown extension": (MESSAGE + b"\x91\xd4\x05\x00", "extension type 5 with 1 bytes"),
    "an unknown extension of 0 bytes": (MESSAGE + b"\x91\xc7\x00\x05", "extension type 5 with 0 bytes"),
    "a reserved extension": (MESSAGE + b"\x91\xd5\xfe\x00\x00", "extension type -2 with 2 bytes"),
    "an extension of 13 bytes": (MESSAGE + b"\x91\xc7\x0d\x05" + bytes(13), "exceeds max_ext_len(12)"),
    "an extension of 16 bytes": (MESSAGE + b"\x91\xd8\x05" + bytes(16), "exceeds max_ext_len(12)"),
    "an extension of 12 bytes": (MESSAGE + b"\x91\xc7\x0c\x05" + bytes(12), "extension type 5 with 12 bytes"),
    "a timestamp of 2 bytes": (MESSAGE + b"\x91\xd5\xff\x00\x00", "not msgpack: "),
    "a timestamp of 0 bytes": (MESSAGE + b"\x91\xc7\x00\xff", "not msgpack: "),
    "a timestamp of 2**30 ns": (MESSAGE + b"\x91\xd7\xff" + b"\xff" * 8, "not msgpack: nanoseconds"),
    "a timestamp of year 36,812": (MESSAGE + b"\x91\xc7\x0c\xff" + struct.pack(">Iq", 0, 2**40), "not msgpack: "),
    "a timestamp beyond a C int": (MESSAGE + b"\x91\xc7\x0c\xff" + struct.pack(">Iq", 0, 2**62), "not msgpack: "),
    "a timestamp before year 1": (MESSAGE + b"\x91\xc7\x0c\xff" + struct.pack(">Iq", 0, -(2**40)), "not msgpack: "),
    "no UTF-8": (MESSAGE + b"\x91\xa1\xff", "not msgpack: 'utf-8' codec can't decode"),
    "half a UTF-8 character": (MESSAGE + b"\x91\xa1\xc3", "not msgpack: 'utf-8' codec can't decode"),
    "a surrogate in UTF-8": (MESSAGE + b"\x91\xa3\xed\xa0\x80", "not msgpack: 'utf-8' codec can't decode"),
    "no UTF-8 in a key": (MESSAGE + b"\x91\x81\xa1\xff\x00", "not msgpack: 'utf-8' codec can't decode"),
    "no UTF-8 in the method": (b"\x94\x00\x01\xa1\xff\x90", "not msgpack: 'utf-8' codec can't decode"),
}
"""By name: the datagram, and a part of what the DecodeError says."""
