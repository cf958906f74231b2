"""The codec: what is sent and how it looks on the wire, what is refused on either side, and why.

Here are fixed values; what must hold for every value is in tests/properties, where the table of bad datagrams stands.
"""

from __future__ import annotations

import datetime as dt
import enum
import math
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import msgpack  # type: ignore[import-untyped]  # it ships no annotations
import msgspec
from twisted.trial.unittest import SynchronousTestCase

from tests.properties.bombs import BAD, BOMBS, filled, message
from twistedudp._msgpack import (
    MAX_CONTAINERS,
    MAX_DEPTH,
    decode_untrusted,
    encode_notification,
    encode_request,
    encode_response,
    peek_msgid_untrusted,
)
from twistedudp.errors import DecodeError, EncodeError, LimitExceeded
from twistedudp.messages import TYPE_NOTIFICATION, TYPE_REQUEST, TYPE_RESPONSE, Notification, Request, Response

if TYPE_CHECKING:
    from twistedudp.messages import Message

UTC = dt.timezone.utc


@dataclass
class Point:
    """A dataclass of a user."""

    x: float
    label: str = ""


@dataclass
class Holder:
    """A dataclass that holds anything."""

    value: object


class Track(msgspec.Struct):
    """A Struct of a user, with structs inside."""

    points: list[Point]
    when: dt.datetime | None = None
    raw: bytes = b""


class Row(msgspec.Struct, array_like=True):
    """A Struct that is sent as a list."""

    value: Any


class Pair(NamedTuple):
    """A named tuple, sent as the list that it is."""

    first: int
    second: int


class Color(enum.IntEnum):
    """A number with a name."""

    RED = 1


def nested(depth: int) -> list[Any]:
    """Return lists inside one another, so many in all."""
    value: list[Any] = []
    for _ in range(depth - 1):
        value = [value]
    return value


def sent(value: object) -> object:
    """Return what arrives of one parameter."""
    request = decode_untrusted(encode_request(5, "m", [value]))
    assert isinstance(request, Request)
    return request.params[0]


class RoundTripTests(SynchronousTestCase):
    """Every type arrives as it was sent, or as what is documented."""

    def assertArrives(self, value: object) -> None:
        """Check that a value arrives as a parameter, a notified one, a result, and an error."""
        self.assertEqual(repr(sent(value)), repr(value))
        self.assertEqual(decode_untrusted(encode_notification("m", [value])), Notification("m", [value]))
        self.assertEqual(decode_untrusted(encode_response(5, None, value)), Response(5, None, value))
        if value is not None:
            self.assertEqual(decode_untrusted(encode_response(5, value, None)), Response(5, value, None))

    def test_nil_and_truth(self) -> None:
        """Nil and both truths, which are no numbers."""
        for value in (None, True, False):
            self.assertArrives(value)
            self.assertIs(sent(value), value)

    def test_integers(self) -> None:
        """Both sides of each width's limits, up to -2**63 and 2**64 - 1."""
        for bits in (5, 7, 8, 15, 16, 31, 32, 63):
            for value in (2**bits - 1, 2**bits, -(2**bits) + 1, -(2**bits), -(2**bits) - (bits < 63)):
                self.assertArrives(value)
        self.assertArrives(2**64 - 1)

    def test_floats(self) -> None:
        """Limits, infinities, the negative zero."""
        for value in (0.0, -0.0, 1.5, 3.14159, 5e-324, 1.7976931348623157e308, math.inf, -math.inf):
            self.assertArrives(value)

    def test_nan(self) -> None:
        """What is no number arrives as what is no number."""
        self.assertTrue(math.isnan(sent(math.nan)))  # type: ignore[arg-type]  # it fails the test if it is no float

    def test_text(self) -> None:
        """Each width of UTF-8 and of the length."""
        for value in ("", "a", "\x00", "é", "€", "😀", "a" * 31, "a" * 32, "a" * 255, "é" * 128, "😀" * 16384):
            self.assertArrives(value)

    def test_bytes(self) -> None:
        """Bytes stay bytes, in each width of the length."""
        for value in (b"", b"\x00\xff", bytes(255), bytes(256), bytes(65536)):
            self.assertArrives(value)

    def test_lists_and_maps(self) -> None:
        """Empty, long, and inside one another."""
        value: object
        for value in (
            [], {}, [[]], {"a": {}}, [None] * 15, [0] * 16, {str(key): key for key in range(16)}, [0] * 65536,
            {"": [{"a": [1, {"b": b""}]}], "é": None},
        ):  # fmt: skip
            self.assertArrives(value)

    def test_datetimes(self) -> None:
        """All three timestamp formats, to the microsecond, in years 1 to 9999."""
        for value in (
            dt.datetime(1970, 1, 1, tzinfo=UTC),
            dt.datetime(2024, 2, 29, 12, 30, 15, 123456, tzinfo=UTC),
            dt.datetime(2106, 2, 7, 6, 28, 16, tzinfo=UTC),
            dt.datetime(1969, 12, 31, 23, 59, 59, 999999, tzinfo=UTC),
            dt.datetime.min.replace(tzinfo=UTC),
            dt.datetime.max.replace(tzinfo=UTC),
        ):
            self.assertArrives(value)

    def test_other_time_zone(self) -> None:
        """A datetime with another time zone arrives as the same moment in UTC."""
        value = dt.datetime(2024, 5, 1, 12, 0, tzinfo=dt.timezone(dt.timedelta(hours=5, minutes=45)))
        self.assertEqual(repr(sent(value)), repr(value.astimezone(UTC)))

    def test_objects(self) -> None:
        """Dataclasses and Structs arrive as maps, one that is like a list as a list, however nested."""
        when = dt.datetime(2024, 5, 1, tzinfo=UTC)
        track = Track([Point(1.5, "a"), Point(-1.0)], when, b"\x00")
        as_map = {"points": [{"x": 1.5, "label": "a"}, {"x": -1.0, "label": ""}], "when": when, "raw": b"\x00"}
        self.assertEqual(sent(track), as_map)
        self.assertEqual(sent({"tracks": [track]}), {"tracks": [as_map]})
        self.assertEqual(sent(Holder(track)), {"value": as_map})
        self.assertEqual(sent(Row([Row(1)])), [[[1]]])

    def test_relatives_of_base_types(self) -> None:
        """What is a base type by inheritance or by nature is sent as that."""
        self.assertEqual(sent((1, (2,))), [1, [2]])
        self.assertEqual(sent(Pair(1, 2)), [1, 2])
        self.assertEqual(sent(Color.RED), 1)
        self.assertEqual(sent(bytearray(b"ab")), b"ab")
        self.assertEqual(sent(memoryview(b"ab")), b"ab")

    def test_msgids(self) -> None:
        """All of 32 bits."""
        for msgid in (0, 127, 128, 255, 256, 65535, 65536, 2**32 - 1):
            self.assertEqual(decode_untrusted(encode_request(msgid, "m", [])), Request(msgid, "m", []))
            self.assertEqual(decode_untrusted(encode_response(msgid, None, 1)), Response(msgid, None, 1))

    def test_1000_numbers(self) -> None:
        """A flat list of 1,000 numbers passes, and so do lists that fill 8,192 and 65,507 bytes."""
        for count in (1000, 8180 // 9, 65490 // 9):
            self.assertArrives([1.5] * count)
        for size in (8192, 65507):
            self.assertArrives([7] * (size - len(encode_response(5, None, [7] * 65000)) + 65000))

    def test_fills_a_datagram(self) -> None:
        """What just fitted fills the datagram to the byte."""
        for size in (8192, 65507):
            payload = message((b"\x07", size), size=size)
            self.assertEqual(len(payload), size)
            request = decode_untrusted(payload)
            assert isinstance(request, Request)
            self.assertEqual(request.params, [7] * (size - 8))

    def test_limits(self) -> None:
        """The deepest value and the one with the most lists arrive: 2 of each are the message's own."""
        deepest = nested(MAX_DEPTH - 2)
        self.assertEqual(sent(deepest), deepest)
        self.assertEqual(sent({"a": nested(MAX_DEPTH - 3)}), {"a": nested(MAX_DEPTH - 3)})
        most: list[list[Any]] = [[]] * (MAX_CONTAINERS - 3)
        self.assertEqual(sent(most), most)
        result = decode_untrusted(encode_response(5, None, [[]] * (MAX_CONTAINERS - 2)))
        self.assertEqual(result, Response(5, None, [[]] * (MAX_CONTAINERS - 2)))


VECTORS: dict[str, Message] = {
    "94 00 01 a3 73 75 6d 92 01 02": Request(1, "sum", [1, 2]),
    "94 00 cc 80 a4 65 63 68 6f 91 a5 68 65 6c 6c 6f": Request(128, "echo", ["hello"]),
    "94 00 cd 01 00 a1 6d 90": Request(256, "m", []),
    "94 00 ce ff ff ff ff a1 6d 91 c0": Request(2**32 - 1, "m", [None]),
    "94 00 07 a0 93 c2 c3 ff": Request(7, "", [False, True, -1]),
    "94 00 01 a1 6d 91 cb 40 09 21 f9 f0 1b 86 6e": Request(1, "m", [3.14159]),
    "94 00 01 a1 6d 91 82 a1 61 01 a1 62 92 c4 02 00 ff a2 c3 a9": Request(1, "m", [{"a": 1, "b": [b"\x00\xff", "é"]}]),
    "94 00 01 a1 6d 91 d6 ff 00 00 00 01": Request(1, "m", [dt.datetime(1970, 1, 1, 0, 0, 1, tzinfo=UTC)]),
    "94 01 01 c0 03": Response(1, None, 3),
    "94 01 ce 00 01 00 00 c0 c0": Response(65536, None, None),
    "94 01 05 82 a4 63 6f 64 65 a4 62 75 73 79 a7 6d 65 73 73 61 67 65 a1 78 c0": Response(
        5, {"code": "busy", "message": "x"}, None
    ),
    "94 01 02 a9 6e 6f 20 6d 65 74 68 6f 64 c0": Response(2, "no method", None),
    "93 02 a3 6c 6f 67 91 a2 68 69": Notification("log", ["hi"]),
}
"""MessagePack-RPC as published, written by hand from its specification and that of msgpack."""

FOREIGN_VECTORS: dict[str, Message] = {
    # what other encoders write: longer forms than needed, which the format allows
    "dc 00 04 00 d2 00 00 00 01 d9 01 6d dd 00 00 00 00": Request(1, "m", []),
    "dd 00 00 00 04 cc 01 cf 00 00 00 00 00 00 00 05 c0 d3 ff ff ff ff ff ff ff ff": Response(5, None, -1),
    "94 01 d0 05 c0 ca 3f c0 00 00": Response(5, None, 1.5),
    "dc 00 03 02 da 00 01 6d 91 df 00 00 00 01 db 00 00 00 01 61 c5 00 01 ff": Notification("m", [{"a": b"\xff"}]),
    # an error beside a result, which the specification does not forbid
    "94 01 05 a1 65 a1 72": Response(5, "e", "r"),
}


class WireTests(SynchronousTestCase):
    """The bytes themselves: programs in other languages speak to these."""

    def test_encode(self) -> None:
        """Each message has exactly the bytes of the specification."""
        for text, expected in VECTORS.items():
            if isinstance(expected, Request):
                payload = encode_request(*expected)
            elif isinstance(expected, Response):
                payload = encode_response(*expected)
            else:
                payload = encode_notification(*expected)
            self.assertEqual(payload.hex(" "), text)

    def test_decode(self) -> None:
        """... and these bytes mean that message, in longer forms as well."""
        for text, expected in {**VECTORS, **FOREIGN_VECTORS}.items():
            decoded = decode_untrusted(bytes.fromhex(text))
            self.assertEqual((type(decoded), repr(decoded)), (type(expected), repr(expected)), text)


class MethodNameTests(SynchronousTestCase):
    """The name of a method is the caller's as well."""

    def test_not_text(self) -> None:
        """A name that is no text, or none that UTF-8 has, is an EncodeError at ``method``."""
        for name in (5, b"add", None, "lone \ud800"):
            for encode in (encode_notification, partial(encode_request, 1)):
                error = self.assertRaises(EncodeError, encode, cast("str", name), [1])
                self.assertEqual(error.path, "method")


class EncodeErrorTests(SynchronousTestCase):
    """What cannot be sent is refused, with the place and the reason."""

    def assertRefused(self, value: object, place: str, reason: str) -> None:
        """Check the error of a value as a parameter, as a notified one, as a result, and as an error."""
        for name, encode in {
            "params[0]": lambda: encode_request(5, "m", [value]),
            "params[1]": lambda: encode_notification("m", [None, value]),
            "result": lambda: encode_response(5, None, value),
            "error": lambda: encode_response(5, value, None),
        }.items():
            error = self.assertRaises(EncodeError, encode)
            self.assertIs(type(error), EncodeError, name)
            self.assertEqual(error.path, name + place)
            self.assertIn(reason, error.reason)
            self.assertEqual(str(error), f"{error.path}: {error.reason}")

    def test_integers(self) -> None:
        """One beyond the limits, on both sides."""
        for value in (2**64, -(2**63) - 1, 10**30):
            self.assertRefused(value, "", "from -2**63 to 2**64 - 1")
        self.assertRefused({"a": [1, 2**64]}, "['a'][1]", "from -2**63 to 2**64 - 1")

    def test_foreign_types(self) -> None:
        """The type is named, and what may be sent."""
        for value in (object(), {1, 2}, frozenset(), 1j, range(3), dt.date(2020, 1, 1), int, Point):
            self.assertRefused(value, "", f"a value of type {type(value).__name__}")
            self.assertRefused({"a": [value]}, "['a'][0]", "send base types, datetimes or dataclasses")

    def test_keys(self) -> None:
        """A key that is not text is shown, at the map that has it."""
        for key in (1, None, b"a", 1.5, True, (1,)):
            reason = f"the keys of a map must be text, not {type(key).__name__} ({key!r})"
            self.assertRefused({key: 1}, "", reason)
            self.assertRefused({"a": [{"b": {"c": 1, key: 2}}]}, "['a'][0]['b']", reason)

    def test_surrogates(self) -> None:
        """A text that UTF-8 has no bytes for, as a value and as a key."""
        self.assertRefused("\ud800", "", "surrogates not allowed")
        self.assertRefused(["a", {"b": "\udfff"}], "[1]['b']", "surrogates not allowed")
        self.assertRefused([{"\ud800": 1}], "[0]", "surrogates not allowed")

    def test_surrogate_in_the_method(self) -> None:
        """A method's name is refused as well."""
        for encode in (lambda: encode_request(5, "\ud800", []), lambda: encode_notification("\ud800", [])):
            error = self.assertRaises(EncodeError, encode)
            self.assertIn("surrogates not allowed", str(error))

    def test_naive_datetime(self) -> None:
        """A datetime without a time zone is no moment; the text says what to do."""
        self.assertRefused(dt.datetime(2024, 5, 1), "", "without a time zone: give it one")  # noqa: DTZ001  # the fault

    def test_datetime_out_of_range(self) -> None:
        """A moment that is not in years 1 to 9999 in UTC could not be decoded."""
        early = dt.datetime(1, 1, 1, tzinfo=dt.timezone(dt.timedelta(hours=5)))
        late = dt.datetime(9999, 12, 31, 23, tzinfo=dt.timezone(dt.timedelta(hours=-5)))
        for value in (early, late):
            self.assertRefused(value, "", "out of range")
            self.assertRefused([[value]], "[0][0]", "out of range")

    def test_extensions(self) -> None:
        """Extension objects of msgpack's own get no further than other objects: a peer of ours refuses them."""
        for value in (msgpack.ExtType(5, b"a"), msgpack.ExtType(5, bytes(16)), msgpack.ExtType(5, bytes(300))):
            for encode in (
                lambda value=value: encode_response(5, None, value),
                lambda value=value: encode_request(5, "m", [value]),
                lambda value=value: encode_notification("m", ({"a": value},)),
            ):
                self.assertRaises(EncodeError, encode)
        self.assertRefused(msgpack.Timestamp(2**62), "", "too large")

    def test_inside_objects(self) -> None:
        """The place is found in dataclasses and Structs, which are seen as what they are sent as."""
        self.assertRefused(Holder(2**70), "['value']", "from -2**63 to 2**64 - 1")
        self.assertRefused([Holder(Holder({"a": {1: 2}}))], "[0]['value']['value']['a']", "must be text")
        self.assertRefused(Row([2**70]), "[0][0]", "from -2**63 to 2**64 - 1")
        self.assertRefused(Holder("\ud800"), "['value']", "surrogates not allowed")
        self.assertRefused([Holder([object()])], "[0]", "unsupported")

    def test_broken_buffer(self) -> None:
        """What msgpack itself cannot read is refused with msgpack's reason."""
        self.assertRefused([memoryview(b"abcd")[::2]], "[0]", "contiguous")

    def test_depth(self) -> None:
        """One list too deep: the limit is named, and the place of the list that is too deep."""
        for encode, place in (
            (lambda: encode_request(5, "m", [nested(MAX_DEPTH - 1)]), "params[0]" + "[0]" * 14),
            (lambda: encode_notification("m", [nested(MAX_DEPTH - 1)]), "params[0]" + "[0]" * 14),
            (lambda: encode_response(5, None, nested(MAX_DEPTH)), "result" + "[0]" * 15),
            (lambda: encode_response(5, nested(MAX_DEPTH), None), "error" + "[0]" * 15),
        ):
            error = self.assertRaises(LimitExceeded, encode)
            self.assertEqual(error.path, place)
            self.assertEqual(error.reason, "lists and maps are nested more than 16 deep, the message included")

    def assertDeep(self, value: object) -> None:
        """Check that a value is refused for its depth, in a request."""
        error = self.assertRaises(LimitExceeded, encode_request, 5, "m", [value])
        self.assertIn("nested more than 16 deep, the message included", error.reason)
        self.assertTrue(error.path.startswith("params[0]"), error.path)

    def test_depth_of_all_kinds(self) -> None:
        """Maps, objects and tuples count like lists, and what holds itself is too deep."""
        deep_map: dict[str, Any] = {}
        deep_object: object = None
        deep_row: object = None
        deep_tuple: tuple[Any, ...] = ()
        for _ in range(MAX_DEPTH):
            deep_map, deep_object = {"a": deep_map}, Holder(deep_object)
            deep_row, deep_tuple = Row(deep_row), (deep_tuple,)
        itself: list[Any] = []
        itself.append(itself)
        for value in (deep_map, deep_object, deep_row, deep_tuple, itself, nested(900), nested(2000)):
            self.assertDeep(value)

    def test_object_that_holds_itself(self) -> None:
        """An object that holds itself is refused too, with whatever msgspec says of it."""
        itself = Holder(None)
        itself.value = itself
        self.assertRaises(EncodeError, encode_request, 5, "m", [itself])

    def test_containers(self) -> None:
        """One list too many: the limit is named, and the place of the one that is too many."""
        error = self.assertRaises(LimitExceeded, encode_request, 5, "m", [[[]] * (MAX_CONTAINERS - 2)])
        self.assertEqual(error.path, f"params[0][{MAX_CONTAINERS - 3}]")
        self.assertEqual(error.reason, "a datagram may hold at most 1,024 lists and maps")
        error = self.assertRaises(LimitExceeded, encode_response, 5, None, [{}] * (MAX_CONTAINERS - 1))
        self.assertEqual(error.path, f"result[{MAX_CONTAINERS - 2}]")
        error = self.assertRaises(LimitExceeded, encode_response, 5, [Row([])] * 600, None)
        self.assertIn("at most 1,024", error.reason)

    def test_goes_on(self) -> None:
        """After a refusal the encoder works as before."""
        self.assertRaises(EncodeError, encode_request, 5, "m", ["before", object()])
        self.assertEqual(encode_request(1, "sum", [1, 2]).hex(" "), "94 00 01 a3 73 75 6d 92 01 02")


class DecodeErrorTests(SynchronousTestCase):
    """Datagrams of any origin."""

    def test_table(self) -> None:
        """Each bad datagram is a DecodeError whose text says what is wrong."""
        for name, (payload, reason) in BAD.items():
            error = self.assertRaises(DecodeError, decode_untrusted, payload)
            self.assertIn(reason, str(error), name)

    def test_every_truncation(self) -> None:
        """A message that ends early is one, wherever it ends, on both ways through the decoder."""
        simple = encode_request(70000, "method", [1, 2.5, "text", b"bytes", dt.datetime(2024, 1, 1, tzinfo=UTC)])
        careful = encode_request(70000, "method", [[], {"a": "b" * 40}, [[b"c" * 300, "é" * 200]]] * 5)
        for payload in (simple, careful):
            for size in range(len(payload)):
                self.assertRaises(DecodeError, decode_untrusted, payload[:size])
            decode_untrusted(payload)

    def test_every_first_byte(self) -> None:
        """Of all datagrams of one byte none is a message."""
        for byte in range(256):
            self.assertRaises(DecodeError, decode_untrusted, bytes([byte]))

    def test_huge_datagrams(self) -> None:
        """The structure is refused in the largest datagrams as well."""
        self.assertRaises(DecodeError, decode_untrusted, filled(b"", b"\xdc\xff\xff", 65507))
        self.assertRaises(DecodeError, decode_untrusted, message((b"\x90", 65507), size=65507))

    def test_never_allocates_for_a_claim(self) -> None:
        """A container that claims more than the datagram holds is refused before msgpack sees it."""
        for name in ("nested array16, 8192 bytes", "15 times map16 then texts, 8192 bytes"):
            error = self.assertRaises(DecodeError, decode_untrusted, BOMBS[name])
            self.assertIn("claims more elements", str(error), name)
            self.assertIsNone(error.__cause__)

    def test_cause(self) -> None:
        """What msgpack said is the cause, for whoever looks into it."""
        error = self.assertRaises(DecodeError, decode_untrusted, BAD["no UTF-8"][0])
        self.assertIsInstance(error.__cause__, UnicodeDecodeError)

    def test_text_that_looks_like_containers(self) -> None:
        """Text and bytes full of what could be headers is no container, whatever their length's form."""
        for size in (20, 31, 32, 255, 256, 2000, 70000):
            for value in ("\u0790" * size, "\U0001f710" * size, b"\x9f\xdf\xdd" * size):
                self.assertEqual(sent(value), value)
        self.assertEqual(sent([-36.5, 0x9F9F9F9F, "\u0790"] * 20), [-36.5, 0x9F9F9F9F, "\u0790"] * 20)


class PeekTests(SynchronousTestCase):
    """The msgid without decoding."""

    def test_widths(self) -> None:
        """Each form that encoders write, in requests and in responses."""
        for msgid in (0, 127, 128, 255, 256, 65535, 65536, 2**32 - 1):
            self.assertEqual(peek_msgid_untrusted(encode_request(msgid, "m", []), TYPE_REQUEST), msgid)
            self.assertEqual(peek_msgid_untrusted(encode_response(msgid, None, 1), TYPE_RESPONSE), msgid)

    def test_kind(self) -> None:
        """The other kind has none, nor has a notification."""
        self.assertIsNone(peek_msgid_untrusted(encode_request(5, "m", []), TYPE_RESPONSE))
        self.assertIsNone(peek_msgid_untrusted(encode_response(5, None, 1), TYPE_REQUEST))
        self.assertIsNone(peek_msgid_untrusted(encode_notification("m", []), TYPE_NOTIFICATION))

    def test_cut(self) -> None:
        """As much as the msgid needs is enough; less has none."""
        for text in ("94 00 05", "94 00 cc 80", "94 00 cd 01 00", "94 00 ce 00 01 00 00"):
            payload = bytes.fromhex(text)
            self.assertIsNotNone(peek_msgid_untrusted(payload, TYPE_REQUEST))
            for size in range(len(payload)):
                self.assertIsNone(peek_msgid_untrusted(payload[:size], TYPE_REQUEST))

    def test_other_forms(self) -> None:
        """Forms that no encoder chooses, and what is no msgid, are left to the decoder."""
        for text in ("94 00 d2 00 00 00 05", "94 00 cf 00 00 00 00 00 00 00 05", "94 00 ff", "94 00 a1 35", "93 00 05"):
            self.assertIsNone(peek_msgid_untrusted(bytes.fromhex(text), TYPE_REQUEST))
