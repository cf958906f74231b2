"""Messages that hold nothing but scalars, as most do: the short way of the codec.

Theory of operation: what a codec has to guard against comes with lists and maps, with extensions and with what is not
msgpack at all. A request or response whose parameters or result are ``None``, truth values, numbers and texts has
nothing of it. A msgspec decoder that knows just such messages takes one by a single call in C, at a quarter of what the
careful way costs, or refuses it, which means nothing: the careful way (:mod:`twistedudp._msgpack`) is the one that
decides. What this one takes, that one would take for the same; a property test compares them, and the bytes that both
write.

The decoder makes no room for what a header claims, only for what it finds, and it goes no deeper than its types. To be
refused by it takes as long as the careful way, so it is not even asked where the first parameter, or the result, begins
as something else. Bytes go the careful way because msgspec has no type that is either text or bytes; responses of more
than ``MAX_SIZE`` bytes because there it should be known first whether anybody waits for them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, TypeAlias

import msgspec

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["MAX_SIZE", "SCALARS", "encode", "scalar_request_untrusted", "scalar_response_untrusted"]

MAX_SIZE: Final = 1200
"""Bytes of the largest response that is taken the short way: what passes every path whole."""

SCALARS: Final = frozenset({type(None), bool, int, float, str, bytes})
"""The types whose values, where msgpack carries them at all, are written alike by this module and the careful way."""

_Scalar: TypeAlias = bool | int | float | str | None
_Msgid: TypeAlias = Annotated[int, msgspec.Meta(ge=0, le=2**32 - 1)]

_EMPTY: Final = 0x90
_METHOD: Final = 7  # where the method's header is, behind a msgid of 32 bits
_RESULT: Final = 8  # where a result is, behind the header of an error that is none
# Where the parameters' header is, by the header of a method's name of at most 31 bytes; 0 where it is none of these.
_PARAMS: Final = bytes(_METHOD + 1 + (first & 0x1F) if 0xA0 <= first <= 0xBF else 0 for first in range(256))
# The first bytes of the values that these decoders take.
_IS_SCALAR: Final = bytes(
    first < 0x80 or 0xA0 <= first <= 0xBF or first >= 0xE0 or first in b"\xc0\xc2\xc3\xd9\xda\xdb"
    or 0xCA <= first <= 0xD3
    for first in range(256)
)  # fmt: skip

_REQUEST: Final[Callable[[bytes], tuple[int, int, str, Any]]] = msgspec.msgpack.Decoder(
    tuple[Literal[0], _Msgid, str, list[_Scalar]]  # 0: TYPE_REQUEST
).decode
_RESPONSE: Final[Callable[[bytes], tuple[int, int, None, object]]] = msgspec.msgpack.Decoder(
    tuple[Literal[1], _Msgid, None, _Scalar]  # 1: TYPE_RESPONSE
).decode

encode: Final[Callable[[Any], bytes]] = msgspec.msgpack.Encoder().encode
"""Write a message of ``SCALARS``; raises any exception where one of them cannot be written."""


def scalar_request_untrusted(payload: bytes) -> tuple[int, int, str, list[object]] | None:
    """Decode a request whose parameters are all scalars.

    Args:
        payload: A whole datagram, of any origin.

    Returns:
        Its type, msgid, method and parameters, or ``None`` where this is not the way to tell what it is. Cannot fail.
    """
    try:
        params = _PARAMS[payload[_METHOD]]
        header = payload[params]
        if (
            header & 0xF0 == 0x90  # a list of at most 15 elements
            and params
            and (header == _EMPTY or _IS_SCALAR[payload[params + 1]])  # a list that begins otherwise would be refused
        ):
            return _REQUEST(payload)
    except Exception:  # noqa: BLE001  # the careful way tells what is wrong with it
        return None
    return None


def scalar_response_untrusted(payload: bytes) -> tuple[int, int, None, object] | None:
    """Decode a response with a result that is a scalar.

    Args:
        payload: A whole datagram, of any origin.

    Returns:
        Its type, msgid, ``None`` and its result, or ``None`` where this is not the way to tell what it is. Cannot fail.
    """
    if _RESULT < len(payload) <= MAX_SIZE and _IS_SCALAR[payload[_RESULT]]:
        try:
            return _RESPONSE(payload)
        except Exception:  # noqa: BLE001  # the careful way tells what is wrong with it
            return None
    return None
