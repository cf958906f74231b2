"""Message ids: a keyed permutation of a counter.

Theory of operation: a msgid must not repeat while a late response to its last use may live, and somebody off the path
must not be able to guess the ids in flight. A random number gives the second but needs a memory for the first; a
counter gives the first only. A permutation of the counter chosen by a secret key gives both without any memory: no id
repeats within 2**32 requests. The permutation is a Feistel network of four rounds over two halves of 16 bits (Luby and
Rackoff 1988), its round function the strongly universal multiply-add-shift (Dietzfelbinger 1996) with 64-bit
constants from the key. It resists whoever does not see the ids; one who sees many of them is on the path and could
forge responses anyway, since the ids travel in clear.

The ids are computed 128 at a time, each in a lane of 96 bits of one large integer, which a product of 16 and 64 bits
and a sum cannot leave: the interpreter does as much for 128 ids as it would do for one.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["KEY_SIZE", "message_ids"]

KEY_SIZE: Final = 64
"""Bytes of the key: two constants of 64 bits for each of four rounds."""

_LANES: Final = 128
_LANE_BITS: Final = 96
_IDS: Final = struct.Struct("<" + "I8x" * _LANES).unpack


def message_ids(key: bytes) -> Iterator[int]:
    """Yield message ids for ever, each in 0 to 2**32 - 1, none repeated within 2**32.

    Args:
        key: ``KEY_SIZE`` secret random bytes; equal keys give equal sequences.

    Raises:
        ValueError: The key has another size.
    """
    if len(key) != KEY_SIZE:
        raise ValueError(f"the key must have {KEY_SIZE} bytes, not {len(key)}")
    return _permuted_counter([int.from_bytes(key[at : at + 8], "big") for at in range(0, KEY_SIZE, 8)])


def _permuted_counter(constants: list[int]) -> Iterator[int]:
    ones = sum(1 << lane for lane in range(0, _LANES * _LANE_BITS, _LANE_BITS))
    steps = sum(number << number * _LANE_BITS for number in range(_LANES))
    mask = 0xFFFF * ones
    a0, b0, a1, b1, a2, b2, a3, b3 = (
        constant * ones if number % 2 else constant for number, constant in enumerate(constants)
    )
    while True:
        for high in range(0x10000):  # pragma: no branch  # no test waits for 2**32 ids
            highs = high * ones
            for low in range(0, 0x10000, _LANES):
                lows = low * ones + steps
                left = highs ^ ((lows * a0 + b0) >> 48 & mask)
                right = lows ^ ((left * a1 + b1) >> 48 & mask)
                left ^= (right * a2 + b2) >> 48 & mask
                right ^= (left * a3 + b3) >> 48 & mask
                yield from _IDS((left << 16 | right).to_bytes(_LANES * _LANE_BITS // 8, "little"))
