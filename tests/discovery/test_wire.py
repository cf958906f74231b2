"""Questions and answers as datagrams."""

from __future__ import annotations

import contextlib
from typing import Any

from hypothesis import example, given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.discovery.world import a_question, an_answer
from twistedudp._msgpack import encode_notification, encode_request, encode_response
from twistedudp.discovery._wire import (
    NO_RESULT,
    decode_answer_untrusted,
    decode_question_untrusted,
    encode_answer,
    encode_question,
    is_known,
)
from twistedudp.errors import DecodeError

texts = st.text(min_size=1, max_size=64).filter(
    lambda text: text.isascii() or text.encode("utf-8", "ignore").decode() == text
)
values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.binary(max_size=20) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=8,
)
ids = st.binary(min_size=8, max_size=8)
questions = st.builds(
    a_question,
    msgid=st.integers(0, 2**32 - 1),
    id=ids,
    attempt=st.integers(0, 65535),
    round=st.integers(1, 255),
    known=st.lists(st.binary(min_size=4, max_size=4), max_size=20).map(b"".join),
    window=st.integers(0, 60000),
    method=st.none() | texts,
    params=st.lists(values, max_size=4),
)
answers = st.builds(
    an_answer,
    msgid=st.integers(0, 2**32 - 1),
    id=ids,
    name=texts,
    protocol=texts,
    version=texts,
    attempt=st.integers(0, 65535),
    held=st.integers(0, 2**40),
    result=st.just(NO_RESULT) | values,
)


class RoundTripTests(SynchronousTestCase):
    """There and back."""

    @given(questions)
    def test_questions(self, question: Any) -> None:
        """What a question says is what is heard."""
        self.assertEqual(decode_question_untrusted(encode_question(question)), question)

    @given(answers)
    def test_answers(self, answer: Any) -> None:
        """What an answer says is what is heard."""
        self.assertEqual(decode_answer_untrusted(encode_answer(answer)), answer)

    def test_bytes(self) -> None:
        """The question's bytes are those that docs/wire.md shows: other programs are written after it."""
        self.assertEqual(
            encode_question(a_question(window=850)),
            b"\x94\x00\x07\xacrpc.discover\x97\xc4\x08question\x00\x01\xc4\x00\xcd\x03\x52\xc0\x90",
        )


class UntrustedTests(SynchronousTestCase):
    """What anybody may send."""

    def decode(self, datagram: bytes) -> None:
        """Decode it in both ways, which may fail as it should."""
        for decode in (decode_question_untrusted, decode_answer_untrusted):
            with contextlib.suppress(DecodeError):
                decode(datagram)

    @given(st.binary(max_size=200))
    @example(b"")
    def test_any_bytes(self, datagram: bytes) -> None:
        """Whatever the bytes are, the only error is DecodeError."""
        self.decode(datagram)

    @given(st.lists(values, max_size=9), st.data())
    def test_any_message(self, params: list[Any], data: Any) -> None:
        """The same for messages of other kinds, other methods, and parameters of other types."""
        good = list(a_question())[1:]
        place = data.draw(st.integers(0, 6))
        bent = [*good[:place], data.draw(values), *good[place + 1 :]]
        for datagram in (
            encode_request(1, "rpc.discover", params),
            encode_request(1, "rpc.discover", bent),
            encode_response(1, None, params),
        ):
            self.decode(datagram)

    def test_no_questions(self) -> None:
        """Other messages, too few parameters, wrong types and numbers out of range are no questions."""
        _, *params = a_question()
        wrong: list[bytes] = [
            encode_request(1, "discover", params),
            encode_notification("rpc.discover", params),
            encode_response(1, None, params),
            encode_request(1, "rpc.discover", params[:-1]),
        ]
        bad: tuple[tuple[object, ...], ...] = (
            (b"seven77", b"nine bytes", "question", 1, None),
            (-1, 65536, True, 1.0),
            (0, 256, None),
            (b"123", b"12345", "1234", None),
            (-1, 60001, 1.5, True),
            ("", "x" * 65, b"status", 1),
            ({}, None, "x"),
        )
        for place, others in enumerate(bad):
            wrong += [
                encode_request(1, "rpc.discover", [*params[:place], value, *params[place + 1 :]]) for value in others
            ]
        for datagram in wrong:
            self.assertRaises(DecodeError, decode_question_untrusted, datagram)

    def test_no_answers(self) -> None:
        """Errors, requests, what lacks a key or has one of the wrong type are no answers."""
        fields = {"id": b"answerer", "name": "n", "protocol": "p", "version": "v", "attempt": 0, "held": 0}
        self.assertEqual(decode_answer_untrusted(encode_response(1, None, fields)).name, "n")
        wrong = [
            encode_response(1, {"code": "x", "message": "y"}, None),
            encode_response(1, 1, fields),
            encode_request(1, "rpc.discover", [fields]),
            encode_response(1, None, None),
        ]
        wrong += [
            encode_response(1, None, {key: value for key, value in fields.items() if key != missing})
            for missing in fields
        ]
        for key, bad in (
            *(("id", value) for value in (b"", b"seven77", "answerer", None)),
            *((key, value) for key in ("name", "protocol", "version") for value in ("", "x" * 65, b"x", 1, None)),
            *((key, value) for key in ("attempt", "held") for value in (-1, 2**41, True, 0.5, None)),
        ):
            wrong.append(encode_response(1, None, {**fields, key: bad}))
        for datagram in wrong:
            self.assertRaises(DecodeError, decode_answer_untrusted, datagram)

    def test_later_versions(self) -> None:
        """More parameters and other keys are for later versions, and ignored."""
        msgid, *params = a_question()
        self.assertEqual(
            decode_question_untrusted(encode_request(msgid, "rpc.discover", [*params, 1, 2])), a_question()
        )
        fields = an_answer()._asdict()
        del fields["msgid"], fields["result"]
        self.assertEqual(decode_answer_untrusted(encode_response(7, None, {**fields, "more": 1})), an_answer())


class KnownTests(SynchronousTestCase):
    """Who a question names."""

    @given(st.lists(ids, max_size=40), ids)
    def test_members(self, members: list[bytes], other: bytes) -> None:
        """Whoever is in the list is known, and nobody else, however the four bytes lie."""
        known = b"".join(member[:4] for member in members)
        for member in members:
            self.assertTrue(is_known(known, member))
        self.assertEqual(is_known(known, other), other[:4] in [member[:4] for member in members])

    def test_between(self) -> None:
        """The end of one and the beginning of the next are not somebody else."""
        self.assertFalse(is_known(b"abcdefgh", b"cdefXXXX"))
        self.assertTrue(is_known(b"abcdefghcdef", b"cdefXXXX"))
        self.assertTrue(is_known(b"aaaabbbb", b"bbbbXXXX"))
        self.assertFalse(is_known(b"", b"abcdXXXX"))
