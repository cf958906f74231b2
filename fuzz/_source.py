"""Inputs as targets read them, and what they raise and tell.

Theory of operation: the first byte of a step says what is done, the next ones to what. Bytes of variable length have
their length in front. No input is wrong: numbers choose from a list by their remainder, lengths are cut to what is
there, and after the end everything is zero. So most changes of single bytes lead to another sensible input.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Protocol, TypeVar

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["MAX_STEPS", "Broken", "Source", "Tell", "chunk", "silent"]

_T = TypeVar("_T")

MAX_STEPS: Final = 24
"""Steps of one input that are played: short sequences find as much as long ones, and more of them are tried."""

_LONG: Final = 255  # as the length of a chunk: the length follows in two bytes


class Broken(AssertionError):
    """The target's invariant does not hold; the text says what happened instead."""


class Tell(Protocol):
    """Where a target tells what an input means: a format and its values, so that it costs little if nobody listens.

    Bytes are among the values as they are.
    """

    def __call__(self, text: str, *values: object) -> None:
        """Take one line."""


def silent(text: str, *values: object) -> None:
    """Tell nobody."""


class Source:
    """Take an input apart.

    Args:
        data: The input.
    """

    __slots__ = ("_data", "_position")

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._position = 0

    def __bool__(self) -> bool:
        return self._position < len(self._data)

    def byte(self) -> int:
        """Return a number from 0 to 255."""
        position = self._position
        self._position = position + 1
        return self._data[position] if position < len(self._data) else 0

    def choose(self, among: Sequence[_T]) -> _T:
        """Return one of up to 256 things."""
        return among[self.byte() % len(among)]

    def chunk(self) -> bytes:
        """Return bytes, as :func:`chunk` wrote them."""
        size = self.byte()
        if size == _LONG:
            size = self.byte() << 8 | self.byte()
        taken = self._data[self._position : self._position + size]
        self._position += size
        return taken


def chunk(data: bytes) -> bytes:
    """Write bytes of variable length."""
    length = bytes([len(data)]) if len(data) < _LONG else bytes([_LONG, *len(data).to_bytes(2, "big")])
    return length + data
