"""Bytes to messages and back: the only module that imports msgpack.

Theory of operation: a datagram is a bomb until proven otherwise. ``msgpack`` allocates a list for every array header
at the size which the header *claims*, so 8 kB of nested headers cost 65 MB; its own limits can only cap the length of
each list, which would refuse an honest flat list as well. So the structure is checked before anything is allocated:
nesting depth, number of lists and maps, and elements claimed by all open containers together against the bytes that
are left (an element takes at least one). The check walks the datagram in Python and costs 0.1 us per element; most
datagrams do not need it, since one that has only ``_HARMLESS`` bytes which could be a container header cannot nest
deeply, and what those few can make msgpack allocate is bounded. Counting those bytes is one call in C.

The same limits hold for what is sent: a value that a peer of ours would refuse raises :class:`EncodeError`, which names
the limit and the place in the value. Structured data is msgpack's base types with text keys, and the timestamp
extension as ``datetime``; dataclasses (and msgspec Structs) are sent as maps.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import struct
from typing import TYPE_CHECKING, Final, NoReturn

import msgpack  # type: ignore[import-untyped]  # it ships no annotations

from ._scalars import SCALARS, encode
from .errors import DecodeError, EncodeError, LimitExceeded
from .messages import TYPE_NOTIFICATION, TYPE_REQUEST, TYPE_RESPONSE, Notification, new_request, new_response

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from .messages import Message

__all__ = [
    "MAX_CONTAINERS",
    "MAX_DEPTH",
    "MAX_MSGID",
    "decode_untrusted",
    "encode_notification",
    "encode_request",
    "encode_response",
    "peek_msgid_untrusted",
]

MAX_DEPTH: Final = 16
"""Lists and maps inside one another, the message's own list counted. Both implementations of msgpack then behave alike
(they give up at about 1,000), and what open headers can allocate is bounded: 16 lists of at most 10,000 slots."""

MAX_CONTAINERS: Final = 1024
"""Lists and maps in one datagram. Each costs a call and 64 bytes or more for one byte on the wire; with this bound any
datagram of 8 kB is decoded or refused within 2 ms and 1.2 MB."""

MAX_MSGID: Final = 2**32 - 1
_HARMLESS: Final = 8
"""Container headers that need no check: at the worst each makes msgpack allocate 64 KiB in a datagram of 8 kB, beside
the 300 kB that its other bytes can become."""

_MAX_TIMESTAMP_SIZE: Final = 12

# The first bytes of every container: fixmap, fixarray, array16, array32, map16, map32.
_CONTAINER_BYTES: Final = bytes([*range(0x80, 0xA0), 0xDC, 0xDD, 0xDE, 0xDF])
# ... and those of extensions beside: msgpack packs any, and timestamps that no datetime can hold.
_DOUBTFUL_BYTES: Final = _CONTAINER_BYTES + bytes([0xC7, 0xC8, 0xC9, 0xD4, 0xD5, 0xD6, 0xD7, 0xD8])
_MESSAGE_FIRST_BYTES: Final = frozenset((0x93, 0x94, 0xDC, 0xDD))


def _element_sizes() -> bytes:
    """Return for each first byte the size of a whole element where the byte alone tells it, else 0."""
    sizes = bytearray([1]) * 256
    sizes[0xA0:0xC0] = bytes(range(1, 33))
    for first, size in (
        *((byte, 0) for byte in _CONTAINER_BYTES),
        *((byte, 0) for byte in (0xC4, 0xC5, 0xC6, 0xC7, 0xC8, 0xC9, 0xD9, 0xDA, 0xDB)),
        *zip((0xCA, 0xCB, 0xCC, 0xCD, 0xCE, 0xCF, 0xD0, 0xD1, 0xD2, 0xD3), (5, 9, 2, 3, 5, 9, 2, 3, 5, 9), strict=True),
        *zip((0xD4, 0xD5, 0xD6, 0xD7, 0xD8), (3, 4, 6, 10, 18), strict=True),
    ):
        sizes[first] = size
    return bytes(sizes)


_SIZES: Final = _element_sizes()
_UINT32: Final = 0xCE
_MSGID_END: Final = 7  # after the list's header, the type, the header of a uint32, and itself
_HEAD: Final[Callable[[bytes], tuple[int, int, int, int]]] = struct.Struct(">BBBI").unpack_from
_FOUR_FIELDS: Final = 0x94
_MSGID_WIDTHS: Final = {0xCC: 1, 0xCD: 2, 0xCE: 4}
# Strings, bytes and extensions whose length follows: the bytes of that length, and what follows it beside the content.
_COUNTED: Final = {
    0xC4: (1, 0), 0xC5: (2, 0), 0xC6: (4, 0),
    0xC7: (1, 1), 0xC8: (2, 1), 0xC9: (4, 1),
    0xD9: (1, 0), 0xDA: (2, 0), 0xDB: (4, 0),
}  # fmt: skip


def _check_structure_untrusted(payload: bytes) -> None:
    """Walk a datagram's elements without building any.

    Raises:
        DecodeError: It nests too deeply, has too many containers, or claims more elements than it can hold.
        IndexError: It ends inside an element, which the caller must take as a DecodeError too.
    """
    position = 0
    containers = 0
    left = 1  # elements still to come in the innermost open container
    outer: list[int] = []  # the same for those around it
    outside = 0  # their sum
    sizes = _SIZES
    while True:
        first = payload[position]
        size = sizes[first]
        left -= 1
        if size:
            position += size
        elif first in (0xC4, 0xD9):  # the shortest of the next kind apart, since a datagram can hold most of them
            position += 2 + payload[position + 1]
        elif first in (0xC5, 0xDA):
            position += 3 + (payload[position + 1] << 8 | payload[position + 2])
        elif first in _COUNTED:
            width, extra = _COUNTED[first]
            start = position + 1 + width
            position = start + extra + int.from_bytes(payload[position + 1 : start], "big")
        else:
            claimed, position = _container_untrusted(payload, position)
            containers += 1
            outer.append(left)
            outside += left
            left = claimed
            if len(outer) > MAX_DEPTH:
                raise DecodeError(f"lists and maps are nested more than {MAX_DEPTH} deep")
            if containers > MAX_CONTAINERS:
                raise DecodeError(f"it has more than {MAX_CONTAINERS:,} lists and maps")
            if left + outside > len(payload) - position:
                raise DecodeError("a list or map claims more elements than the datagram has bytes")
        while not left:
            if not outer:
                return
            left = outer.pop()
            outside -= left


def _container_untrusted(payload: bytes, position: int) -> tuple[int, int]:
    """Return how many elements the container at a position claims, and where the first of them starts."""
    first = payload[position]
    if first < 0xA0:
        claimed, start, is_map = first & 0x0F, position + 1, first < 0x90
    else:
        start = position + (3 if first in (0xDC, 0xDE) else 5)
        claimed, is_map = int.from_bytes(payload[position + 1 : start], "big"), first >= 0xDE
    return (2 * claimed if is_map else claimed), start


def _map_untrusted(pairs: list[tuple[object, object]]) -> dict[object, object]:
    """Build a map, refusing what parsers disagree on: duplicate keys, and keys that are not text."""
    result = dict(pairs)
    if len(result) != len(pairs):
        raise DecodeError("a map has the same key twice")
    for key in result:
        if type(key) is not str:
            raise DecodeError(f"a map has a key that is not text but {type(key).__name__}")
    return result


def _extension_untrusted(code: int, data: bytes) -> NoReturn:
    raise DecodeError(f"extension type {code} with {len(data)} bytes: only the timestamp (-1) is known here")


def _unpack_untrusted(payload: bytes) -> object:
    try:
        if len(payload) - len(payload.translate(None, _CONTAINER_BYTES)) > _HARMLESS:
            _check_structure_untrusted(payload)
        unpacked: object = msgpack.unpackb(
            payload,
            raw=False,
            strict_map_key=True,
            timestamp=3,
            object_pairs_hook=_map_untrusted,
            ext_hook=_extension_untrusted,
            max_ext_len=_MAX_TIMESTAMP_SIZE,
        )
    except DecodeError:
        raise
    except IndexError as error:
        raise DecodeError("not msgpack: it ends inside an element") from error
    except Exception as error:  # msgpack raises six types, OverflowError among them
        raise DecodeError(f"not msgpack: {str(error) or type(error).__name__}") from error
    return unpacked


def decode_untrusted(payload: bytes) -> Message:
    """Decode one datagram into the message that it is.

    Args:
        payload: The whole datagram, of any origin.

    Raises:
        DecodeError: It is not exactly one MessagePack-RPC message within the limits of this module. Nothing else is
            raised, whatever the bytes.
    """
    if not payload or payload[0] not in _MESSAGE_FIRST_BYTES:
        raise DecodeError("not a MessagePack-RPC message" if payload else "an empty datagram")
    unpacked = _unpack_untrusted(payload)
    if type(unpacked) is not list or not unpacked or type(unpacked[0]) is not int:
        raise DecodeError("not a MessagePack-RPC message: not a list that begins with its type")
    if len(unpacked) == 4:
        kind, msgid, third, fourth = unpacked
        if type(msgid) is not int or not 0 <= msgid <= MAX_MSGID:
            raise DecodeError("a msgid must be an integer from 0 to 2**32 - 1")
        if kind == TYPE_RESPONSE:
            return new_response((msgid, third, fourth))
        if kind == TYPE_REQUEST and type(third) is str and type(fourth) is list:
            return new_request((msgid, third, fourth))
    elif len(unpacked) == 3:
        kind, method, params = unpacked
        if kind == TYPE_NOTIFICATION and type(method) is str and type(params) is list:
            return Notification(method, params)
    kind = unpacked[0]
    raise DecodeError(f"not a MessagePack-RPC message: type {kind} with {len(unpacked)} fields of the wrong kinds")


def peek_msgid_untrusted(payload: bytes, kind: int) -> int | None:
    """Return the msgid of a request or response without decoding it, so that what nobody waits for costs little.

    Args:
        payload: A datagram, or the first bytes of one as an ICMP error quotes them.
        kind: ``TYPE_REQUEST`` or ``TYPE_RESPONSE``.

    Returns:
        The msgid, or ``None`` where the bytes are not the beginning of such a message as every encoder writes it.
        Cannot fail.
    """
    size = len(payload)
    if size >= _MSGID_END:
        head, type_, first, msgid = _HEAD(payload)
        if first == _UINT32 and type_ == kind and head == _FOUR_FIELDS:  # as almost all msgids are
            return msgid
    if size < 3 or payload[0] != _FOUR_FIELDS or payload[1] != kind:
        return None
    first = payload[2]
    if first < 0x80:
        return first
    width = _MSGID_WIDTHS.get(first)
    if width is None or size < 3 + width:
        return None
    return int.from_bytes(payload[3 : 3 + width], "big")


def encode_request(msgid: int, method: str, params: Sequence[object]) -> bytes:
    """Encode a request.

    Raises:
        EncodeError: A parameter cannot be sent, or a peer of ours would refuse it.
    """
    if type(params) is tuple and type(method) is str:
        for param in params:
            if type(param) not in SCALARS:
                break
        else:
            try:
                return encode((TYPE_REQUEST, msgid, method, params))
            except Exception:  # noqa: BLE001, S110  # the careful way says what is wrong with which of them
                pass
    if not isinstance(method, str):
        raise EncodeError("it must be text", "method")
    return _encode((TYPE_REQUEST, msgid, method, params), 1, _are_scalars(params))


def encode_notification(method: str, params: Sequence[object]) -> bytes:
    """Encode a notification.

    Raises:
        EncodeError: A parameter cannot be sent, or a peer of ours would refuse it.
    """
    if not isinstance(method, str):
        raise EncodeError("it must be text", "method")
    return _encode((TYPE_NOTIFICATION, method, params), 2, _are_scalars(params))


def encode_response(msgid: int, error: object, result: object) -> bytes:
    """Encode a response; one of error and result is ``None``.

    Raises:
        EncodeError: The value cannot be sent, or a peer of ours would refuse it.
    """
    only_scalars = error is None and type(result) in SCALARS
    if only_scalars:
        try:
            return encode((TYPE_RESPONSE, msgid, None, result))
        except Exception:  # noqa: BLE001, S110  # as above
            pass
    return _encode((TYPE_RESPONSE, msgid, error, result), 0, only_scalars)


def _are_scalars(params: Sequence[object]) -> bool:
    """Tell whether there is neither a container nor an extension among the parameters."""
    for param in params:  # noqa: SIM110  # all() with a generator takes three times as long for the usual one or two
        if type(param) not in SCALARS:
            return False
    return True


def _encode(message: tuple[object, ...], own_containers: int, only_scalars: bool) -> bytes:
    """Encode a message and make sure that a decoder with the limits of this module takes it.

    Args:
        message: The whole message.
        own_containers: How many lists it has itself: behind its msgid, if it has one.
        only_scalars: Whether it holds nothing else that such a decoder could refuse.
    """
    try:
        payload: bytes = _PACKER.pack(message)
        if only_scalars:
            return payload
        # The four bytes of a msgid look like container headers every second time, and need no check.
        body = payload[_MSGID_END:] if payload[2] == _UINT32 else payload
        if len(body) - len(body.translate(None, _DOUBTFUL_BYTES)) > own_containers:
            _unpack_untrusted(payload)
    except Exception as error:  # what msgpack raises for a value has no common root either
        raise _refusal(message, error) from error
    return payload


def _refusal(message: tuple[object, ...], error: Exception) -> EncodeError:
    """Return the error that says what in a message cannot be sent."""
    names = ("error", "result") if message[0] == TYPE_RESPONSE else ("method", "params")
    try:
        for name, value in zip(names, message[-2:], strict=True):
            _explain(name, value)
    except EncodeError as refusal:
        return refusal
    return EncodeError(f"it cannot be sent: {error}", names[1])


def _plain(value: object) -> object:
    """Turn what msgpack does not know into what it does: dataclasses and Structs into maps.

    Raises:
        TypeError: It is neither; the text says what to do.
    """
    if (dataclasses.is_dataclass(value) and not isinstance(value, type)) or hasattr(value, "__struct_fields__"):
        import msgspec  # noqa: PLC0415  # only programs that send objects pay for it

        plain: object = msgspec.to_builtins(value, builtin_types=(dt.datetime, bytes, bytearray, memoryview))
        return plain
    if isinstance(value, dt.datetime):
        raise TypeError("a datetime without a time zone: give it one, such as datetime.timezone.utc")
    raise TypeError(f"a value of type {type(value).__name__}: send base types, datetimes or dataclasses")


_PACKER: Final = msgpack.Packer(datetime=True, default=_plain)


def _explain(name: str, value: object) -> None:
    """Find the first thing in a value that cannot be sent, and raise the error that names it."""
    containers = 1
    for path, element, depth in _walk(name, value, 2):
        if isinstance(element, (dict, list, tuple)):
            containers += 1
            if depth > MAX_DEPTH:
                raise LimitExceeded(f"lists and maps are nested more than {MAX_DEPTH} deep, the message included", path)
            if containers > MAX_CONTAINERS:
                raise LimitExceeded(f"a datagram may hold at most {MAX_CONTAINERS:,} lists and maps", path)
        reason = _fault(element)
        if reason:
            raise EncodeError(reason, path)


def _fault(element: object) -> str:
    """Say why one element cannot be sent whatever it holds, or return an empty text."""
    if isinstance(element, dict):
        for key in element:
            if not isinstance(key, str):
                return f"the keys of a map must be text, not {type(key).__name__} ({key!r})"
        element = dict.fromkeys(element)  # the values have their turn, and a key that is text may be no valid one
    if isinstance(element, (list, tuple)):
        return ""
    if isinstance(element, int) and not -(2**63) <= element < 2**64:
        return "an integer must be from -2**63 to 2**64 - 1"
    try:
        _unpack_untrusted(_PACKER.pack(element))
    except Exception as error:  # noqa: BLE001  # whatever msgpack or a dataclass of the user raises is the reason
        return str(error)
    return ""


def _walk(path: str, value: object, depth: int) -> Iterator[tuple[str, object, int]]:
    """Yield every element of a value with its path and its depth, objects as the maps that they become."""
    if not isinstance(value, (dict, list, tuple, str, bytes, int, float, type(None))):
        try:
            plain = _plain(value)
        except Exception:  # noqa: BLE001  # _fault tells why
            plain = value
        value = plain if isinstance(plain, (dict, list)) else value
    yield path, value, depth
    if isinstance(value, (dict, list, tuple)) and depth <= MAX_DEPTH:
        for key, element in value.items() if isinstance(value, dict) else enumerate(value):
            yield from _walk(f"{path}[{key!r}]", element, depth + 1)
