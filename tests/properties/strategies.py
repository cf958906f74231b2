"""Values, messages and bytes for the properties of the codec."""

from __future__ import annotations

import datetime as dt
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgpack  # type: ignore[import-untyped]  # it ships no annotations
import msgspec
from hypothesis import strategies as st

from tests.properties.bombs import BAD, BOMBS

if TYPE_CHECKING:
    from collections.abc import Callable

    from hypothesis.strategies import DrawFn, SearchStrategy

__all__ = ["anything", "datagrams", "encoded", "values"]


@dataclass
class Record:
    """What a program may send as it is."""

    value: object


class Struct(msgspec.Struct):
    """The same of msgspec's."""

    value: Any


class Row(msgspec.Struct, array_like=True):
    """One that is sent as a list."""

    value: Any


def values() -> SearchStrategy[Any]:
    """Return a strategy for what arrives as it was sent: base types and datetimes in UTC, nested."""
    leaves = st.one_of(
        st.none(),
        st.booleans(),
        st.integers(-(2**63), 2**64 - 1),
        st.sampled_from(
            [width + step for width in (0, 2**5, 2**7, 2**8, 2**15, 2**16, 2**31, 2**32) for step in (-1, 0)]
        ),
        st.floats(),
        st.text(max_size=40),
        st.binary(max_size=40),
        st.datetimes(timezones=st.just(dt.timezone.utc)).map(lambda time: time.replace(fold=0)),
    )
    return st.recursive(
        leaves,
        lambda inner: st.lists(inner, max_size=8) | st.dictionaries(st.text(max_size=5), inner, max_size=5),
        max_leaves=25,
    )


def anything() -> SearchStrategy[Any]:
    """Return a strategy for what a program may try to send, much of which cannot be."""
    leaves = st.one_of(
        values(),
        st.integers(),
        st.text(st.characters(codec=None), max_size=5),
        st.datetimes(timezones=st.none() | st.timezones()),
        st.sampled_from([object(), object, {1, 2}, frozenset(), 1j, range(3), dt.date(2020, 1, 1), Ellipsis, int]),
        st.builds(msgpack.ExtType, st.integers(0, 127), st.binary(max_size=17)),
        st.builds(msgpack.Timestamp, st.integers(-(2**63), 2**63 - 1), st.integers(0, 10**9 - 1)),
        st.builds(bytearray, st.binary(max_size=5)),
        st.binary(max_size=5).map(lambda content: memoryview(content)),  # noqa: PLW0108  # mypy cannot see through the class
        st.integers(0, 30).map(_nested),
        st.integers(1000, 1030).map(lambda count: [[]] * count),
    )
    keys = st.text(st.characters(codec=None), max_size=3) | st.binary(max_size=3) | st.integers() | st.none()
    return st.recursive(
        leaves,
        lambda inner: st.one_of(
            st.lists(inner, max_size=4),
            st.lists(inner, max_size=4).map(tuple),
            st.dictionaries(keys, inner, max_size=3),
            st.builds(Record, inner),
            st.builds(Struct, inner),
            st.builds(Row, inner),
        ),
        max_leaves=8,
    )


def _nested(depth: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(depth):
        value = [value]
    return value


def _sized(formats: dict[int, str], length: int, draw: DrawFn) -> bytes:
    """Write a header whose length may be written in more bytes than needed."""
    first, width = draw(st.sampled_from([item for item in formats.items() if length < 256 ** struct.calcsize(item[1])]))
    return bytes([first]) + struct.pack(f">{width}", length)


def _lied(length: int, draw: DrawFn) -> int:
    """Return what a header claims: nearly always the truth."""
    return max(0, length + draw(st.sampled_from([0] * 30 + [1, -1, 100])))


_STR = {0xD9: "B", 0xDA: "H", 0xDB: "I"}
_BIN = {0xC4: "B", 0xC5: "H", 0xC6: "I"}
_EXT = {0xC7: "B", 0xC8: "H", 0xC9: "I"}
_ARRAY = {0xDC: "H", 0xDD: "I"}
_MAP = {0xDE: "H", 0xDF: "I"}
_NUMBERS = {0xCA: 4, 0xCB: 8, 0xCC: 1, 0xCD: 2, 0xCE: 4, 0xCF: 8, 0xD0: 1, 0xD1: 2, 0xD2: 4, 0xD3: 8}
_FIXED_EXT = {0xD4: 1, 0xD5: 2, 0xD6: 4, 0xD7: 8, 0xD8: 16}


@st.composite
def _leaf(draw: DrawFn) -> bytes:
    """Write one element that is no container, in any of the forms of the format."""
    kind = draw(st.sampled_from(["byte", "number", "str", "bin", "ext", "fixed ext", "timestamp"]))
    if kind == "byte":
        return bytes([draw(st.sampled_from([*range(0x80), 0xC0, 0xC1, 0xC2, 0xC3, *range(0xE0, 0x100)]))])
    if kind == "number":
        first, size = draw(st.sampled_from(list(_NUMBERS.items())))
        return bytes([first]) + draw(st.binary(min_size=size, max_size=size))
    if kind == "timestamp":
        size = draw(st.sampled_from([4, 8, 12, 12, 3]))
        content = draw(st.binary(min_size=size, max_size=size))
        return _sized(_EXT, size, draw) + b"\xff" + content
    if kind == "fixed ext":
        first, size = draw(st.sampled_from(list(_FIXED_EXT.items())))
        return bytes([first, draw(st.sampled_from([0xFF, 5]))]) + draw(st.binary(min_size=size, max_size=size))
    if kind == "ext":
        content = draw(st.binary(max_size=20))
        return _sized(_EXT, _lied(len(content), draw), draw) + bytes([draw(st.sampled_from([0xFF, 5]))]) + content
    return draw(_text()) if kind == "str" else draw(_binary())


@st.composite
def _text(draw: DrawFn) -> bytes:
    content = draw(st.one_of(st.text(max_size=8).map(str.encode), st.binary(max_size=3)))
    length = _lied(len(content), draw)
    if length < 32 and draw(st.booleans()):
        return bytes([0xA0 + length]) + content
    return _sized(_STR, length, draw) + content


@st.composite
def _binary(draw: DrawFn) -> bytes:
    content = draw(st.binary(max_size=8))
    return _sized(_BIN, _lied(len(content), draw), draw) + content


def _container(inner: SearchStrategy[bytes]) -> SearchStrategy[bytes]:
    @st.composite
    def container(draw: DrawFn) -> bytes:
        if draw(st.booleans()):
            elements = draw(st.lists(inner, max_size=6))
            length, fixed, formats = _lied(len(elements), draw), 0x90, _ARRAY
        else:
            key = st.one_of(_text(), st.sampled_from([b"\xa1a", b"\xa1b", b"\xd9\x01a"]), inner)
            pairs = draw(st.lists(st.tuples(key, inner), max_size=4))
            elements = [part for pair in pairs for part in pair]
            length, fixed, formats = _lied(len(pairs), draw), 0x80, _MAP
        is_fixed = length < 16 and draw(st.booleans())
        header = bytes([fixed + length]) if is_fixed else _sized(formats, length, draw)
        repeat = draw(st.sampled_from([1] * 20 + [3, 12, 20]))
        around = bytes([0x91]) * (repeat - 1)
        return around + header + b"".join(elements)

    return container()


def encoded() -> SearchStrategy[bytes]:
    """Return a strategy for one element as bytes, written by hand: any header, mostly true, in any of its widths."""
    return st.recursive(_leaf(), _container, max_leaves=12)


@st.composite
def _near_messages(draw: DrawFn) -> bytes:
    """Write a message whose parts are elements of any kind, mostly of the right ones."""
    msgid = draw(st.one_of(st.integers(0, 127).map(lambda number: bytes([number])), _leaf()))
    method, params = draw(_text()), draw(st.one_of(_container(encoded()), encoded()))
    parts = draw(
        st.sampled_from(
            [
                [b"\x00", msgid, method, params],
                [b"\x01", msgid, b"\xc0", params],
                [b"\x01", msgid, params, b"\xc0"],
                [b"\x02", method, params],
                [b"\xcc\x02", method, params],
            ]
        )
    )
    header = draw(st.sampled_from([bytes([0x90 + len(parts)])] * 5 + [b"\xdc\x00" + bytes([len(parts)])]))
    return header + b"".join(parts)


@st.composite
def _mutated(draw: DrawFn) -> bytes:
    """Change a few bytes of a datagram of the tables, or of a near message."""
    known = [payload for payload in [*BOMBS.values(), *(payload for payload, _ in BAD.values())] if len(payload) < 1500]
    payload = bytearray(draw(st.one_of(st.sampled_from(known), _near_messages())))
    mutate: Callable[[bytearray, int], None]
    for mutate in draw(st.lists(st.sampled_from([_flip, _cut, _insert]), max_size=4)):
        mutate(payload, draw(st.integers(0, 2**24)))
    return bytes(payload)


def _flip(payload: bytearray, number: int) -> None:
    if payload:
        payload[number // 256 % len(payload)] = number % 256


def _cut(payload: bytearray, number: int) -> None:
    del payload[number % (len(payload) + 1) :]


def _insert(payload: bytearray, number: int) -> None:
    payload.insert(number // 256 % (len(payload) + 1), number % 256)


def datagrams() -> SearchStrategy[bytes]:
    """Return a strategy for datagrams of any origin."""
    random = st.binary(max_size=80)
    begun = random.map(lambda rest: b"\x94\x00\x01\xa1m" + rest)
    return st.one_of(random, begun, _near_messages(), _mutated())
