"""What holds for every value and for every datagram."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgpack  # type: ignore[import-untyped]  # it ships no annotations
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.properties import PROPERTY
from tests.properties.strategies import anything, datagrams, values
from twistedudp._msgpack import (
    MAX_CONTAINERS,
    MAX_DEPTH,
    MAX_MSGID,
    decode_untrusted,
    encode_notification,
    encode_request,
    encode_response,
    peek_msgid_untrusted,
)
from twistedudp.errors import DecodeError, EncodeError
from twistedudp.messages import TYPE_REQUEST, TYPE_RESPONSE, Notification, Request, Response

if TYPE_CHECKING:
    from twistedudp.messages import Message

msgids = st.integers(0, MAX_MSGID)


def decoded(payload: bytes) -> Message | None:
    """Return the message, or ``None`` where there is none; any other exception than DecodeError gets through."""
    try:
        return decode_untrusted(payload)
    except DecodeError:
        return None


def encode(message: Message) -> bytes:
    """Encode a message of any kind."""
    if isinstance(message, Request):
        return encode_request(*message)
    return encode_response(*message) if isinstance(message, Response) else encode_notification(*message)


class OracleRefused(Exception):
    """The oracle's own rules, which are stated differently from those of the module under test, do not allow it."""


def oracle(payload: bytes) -> list[Any] | None:
    """Return what msgpack alone makes of bytes, if that is within the limits; computed from the result, not before."""

    def unique(pairs: list[tuple[Any, Any]]) -> dict[Any, Any]:
        keys = [key for key, _ in pairs]
        if not all(isinstance(key, str) for key in keys) or len(set(keys)) < len(keys):
            raise OracleRefused
        return dict(pairs)

    try:
        value = msgpack.unpackb(payload, raw=False, timestamp=3, object_pairs_hook=unique)
        containers, depth = measured(value)
    except Exception:  # noqa: BLE001  # msgpack has no root of errors
        return None
    return value if isinstance(value, list) and containers <= MAX_CONTAINERS and depth <= MAX_DEPTH else None


def measured(value: object) -> tuple[int, int]:
    """Return how many lists and maps a value has, and how many of them are inside one another."""
    if isinstance(value, msgpack.ExtType):
        raise OracleRefused
    if not isinstance(value, (list, dict)):
        return 0, 0
    inside = [measured(element) for element in (value.values() if isinstance(value, dict) else value)]
    return 1 + sum(count for count, _ in inside), 1 + max((depth for _, depth in inside), default=0)


def is_message(value: list[Any]) -> bool:
    """Tell whether a list is one of the three messages of the published specification."""
    if not value or type(value[0]) is not int:
        return False
    kind, *rest = value
    if kind in {0, 1} and len(rest) == 3:
        msgid_is_good = type(rest[0]) is int and 0 <= rest[0] < 2**32
        return msgid_is_good and (kind == 1 or (isinstance(rest[1], str) and isinstance(rest[2], list)))
    return kind == 2 and len(rest) == 2 and isinstance(rest[0], str) and isinstance(rest[1], list)


class EncodingTests(SynchronousTestCase):
    """What is sent arrives, or is refused before it is sent."""

    @PROPERTY
    @given(msgids, st.text(max_size=20), st.lists(values(), max_size=4))
    def test_request_round_trip(self, msgid: int, method: str, params: list[object]) -> None:
        """A request arrives as it was sent."""
        message = Request(msgid, method, params)
        self.assertEqual(repr(decode_untrusted(encode_request(*message))), repr(message))

    @PROPERTY
    @given(msgids, values(), st.booleans())
    def test_response_round_trip(self, msgid: int, value: object, is_error: bool) -> None:
        """A response arrives as it was sent."""
        message = Response(msgid, value, None) if is_error else Response(msgid, None, value)
        self.assertEqual(repr(decode_untrusted(encode_response(*message))), repr(message))

    @PROPERTY
    @given(st.text(max_size=20), st.lists(values(), max_size=4))
    def test_notification_round_trip(self, method: str, params: list[object]) -> None:
        """A notification arrives as it was sent."""
        message = Notification(method, params)
        self.assertEqual(repr(decode_untrusted(encode_notification(*message))), repr(message))

    @PROPERTY
    @given(st.sampled_from(["request", "notification", "result", "error"]), anything())
    def test_symmetry(self, kind: str, value: object) -> None:
        """Whatever can be encoded can be decoded; what cannot raises EncodeError, which knows the place."""
        try:
            payload = {
                "request": lambda: encode_request(7, "m", [value]),
                "notification": lambda: encode_notification("m", [value]),
                "result": lambda: encode_response(7, None, value),
                "error": lambda: encode_response(7, value, None),
            }[kind]()
        except EncodeError as error:
            self.assertTrue(error.reason)
            self.assertTrue(error.path.startswith(("params", "result", "error")), error.path)
            self.assertTrue(str(error).startswith(f"{error.path}: "), str(error))
        else:
            decode_untrusted(payload)

    @PROPERTY
    @given(msgids, st.text(max_size=5), st.lists(values(), max_size=2))
    def test_peek(self, msgid: int, method: str, params: list[object]) -> None:
        """The id of what was encoded can be seen without decoding, in the first seven bytes, but as no other kind."""
        payload = encode_request(msgid, method, params)
        self.assertEqual(peek_msgid_untrusted(payload, TYPE_REQUEST), msgid)
        self.assertEqual(peek_msgid_untrusted(payload[:7], TYPE_REQUEST), msgid)
        self.assertIsNone(peek_msgid_untrusted(payload, TYPE_RESPONSE))


class DecodingTests(SynchronousTestCase):
    """Datagrams of any origin."""

    @settings(PROPERTY, max_examples=PROPERTY.max_examples * 2 // 3)
    @given(datagrams())
    def test_any_datagram(self, payload: bytes) -> None:
        """Decoding raises DecodeError and nothing else; it accepts what msgpack alone does, within the limits."""
        message, expected = decoded(payload), oracle(payload)
        self.check_peek(payload, message)
        if expected is None or not is_message(expected) or payload[0] not in {0x93, 0x94, 0xDC, 0xDD}:
            self.assertIsNone(message)
            return
        assert message is not None, expected
        kind = {Request: 0, Response: 1, Notification: 2}[type(message)]
        self.assertEqual(repr([kind, *message]), repr(expected))
        again = decode_untrusted(encode(message))
        self.assertEqual((type(again), repr(again)), (type(message), repr(message)))

    def check_peek(self, payload: bytes, message: Message | None) -> None:
        """Check that looking at the id does not fail, and does not disagree with decoding."""
        for kind, message_class in ((TYPE_REQUEST, Request), (TYPE_RESPONSE, Response)):
            peeked = peek_msgid_untrusted(payload, kind)
            if peeked is not None and message is not None:
                self.assertIsInstance(message, message_class)
                self.assertEqual(message[0], peeked)
