"""The short way of the codec comes to the same as the careful one."""

from __future__ import annotations

from typing import Any

import msgpack  # type: ignore[import-untyped]  # it ships no annotations
from hypothesis import example, given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.properties import PROPERTY
from tests.properties.strategies import anything, datagrams, values
from twistedudp._msgpack import MAX_MSGID, decode_untrusted, encode_request, encode_response
from twistedudp._scalars import scalar_request_untrusted, scalar_response_untrusted
from twistedudp.errors import EncodeError
from twistedudp.messages import Request, Response

scalars = st.one_of(
    st.none(), st.booleans(), st.integers(-(2**63), 2**64 - 1), st.floats(), st.text(max_size=40), st.binary(max_size=9)
)


@st.composite
def nearly(draw: st.DrawFn) -> bytes:
    """Return a message with a msgid of 32 bits, and perhaps some of its bytes replaced, removed or added."""
    msgid = draw(st.integers(2**16, MAX_MSGID))
    elements = st.lists(scalars | values(), max_size=5)
    fields = draw(st.tuples(st.just(0), st.just(msgid), st.text(max_size=12), elements))
    answer = draw(st.tuples(st.just(1), st.just(msgid), st.none(), scalars | values()))
    payload = bytearray(msgpack.packb(draw(st.sampled_from([fields, answer])), datetime=True))
    for _ in range(draw(st.integers(0, 3))):
        at = draw(st.integers(0, len(payload)))
        payload[at : at + draw(st.integers(0, 2))] = draw(st.binary(max_size=2))
    return bytes(payload)


class AgreementTests(SynchronousTestCase):
    """Two ways to one end."""

    @PROPERTY
    @given(nearly() | datagrams())
    def test_decoding(self, payload: bytes) -> None:
        """What the short way takes, the careful way takes for the same."""
        request, response = scalar_request_untrusted(payload), scalar_response_untrusted(payload)
        if request is not None:
            self.assertEqual(repr(decode_untrusted(payload)), repr(Request(*request[1:])))
        if response is not None:
            self.assertEqual(repr(decode_untrusted(payload)), repr(Response(*response[1:])))

    @PROPERTY
    @given(st.integers(0, MAX_MSGID), st.text(max_size=40), st.lists(scalars, max_size=20))
    @example(2**16, "m", [2**7 - 1, 2**7, 2**8 - 1, 2**8, 2**16 - 1, 2**16, 2**32 - 1, 2**32, 2**63 - 1, 2**63])
    @example(2**16, "m", [-(2**5), -(2**5) - 1, -(2**7), -(2**7) - 1, -(2**15), -(2**15) - 1, -(2**31), -(2**31) - 1])
    @example(2**16, "m", ["x" * size for size in (31, 32, 255, 256, 65535, 65536)])
    @example(2**16, "m", [b"x" * size for size in (0, 255, 256, 65535, 65536)])
    def test_encoding(self, msgid: int, method: str, params: list[object]) -> None:
        """Both write the same bytes; a tuple of scalars goes the short way, a list the careful one."""
        expected: bytes = msgpack.packb([0, msgid, method, params])
        self.assertEqual(encode_request(msgid, method, tuple(params)), expected)
        self.assertEqual(encode_request(msgid, method, params), expected)
        for value in params:
            self.assertEqual(encode_response(msgid, None, value), msgpack.packb([1, msgid, None, value]))

    @PROPERTY
    @given(st.lists(anything(), max_size=3))
    @example([{1: 2}])
    @example([{1, 2}])
    @example([2**64])
    @example(["\ud800"])
    def test_refusing(self, params: list[Any]) -> None:
        """Both refuse the same, for the same reason."""
        self.assertEqual(self.outcome(tuple(params)), self.outcome(params))

    def outcome(self, params: Any) -> bytes | str:
        """Return a request, or why there is none."""
        try:
            return encode_request(2**16, "m", params)
        except EncodeError as error:
            return str(error)
