"""The short way of the codec: what it takes, and what it leaves to the careful way."""

from __future__ import annotations

import tracemalloc
from typing import Any

import msgpack  # type: ignore[import-untyped]  # it ships no annotations
from twisted.trial.unittest import SynchronousTestCase

from twistedudp._scalars import MAX_SIZE, scalar_request_untrusted, scalar_response_untrusted

MSGID = 0xDEADBEEF
HEAD = b"\x94\x00\xce\xde\xad\xbe\xef\xa1m"
"""The beginning of a request, before its parameters."""


def request(*params: Any, method: str = "m", msgid: int = MSGID) -> bytes:
    """Return a request."""
    packed: bytes = msgpack.packb([0, msgid, method, params])
    return packed


def response(result: Any, error: Any = None, msgid: int = MSGID) -> bytes:
    """Return a response."""
    packed: bytes = msgpack.packb([1, msgid, error, result])
    return packed


class RequestTests(SynchronousTestCase):
    """Requests whose parameters are scalars."""

    def test_taken(self) -> None:
        """Parameters of every kind but bytes, none of them or 15, of a method with a name of 0 to 31 bytes."""
        for method in ("", "m", "m" * 31):
            for params in ([], [None], [True, False], [0, -1, 2**64 - 1, -(2**63), 1.5], ["", "ü" * 600], [1] * 15):
                taken = scalar_request_untrusted(request(*params, method=method))
                self.assertEqual(taken, (0, MSGID, method, params))

    def test_left(self) -> None:
        """Whatever else it is, the careful way is to look at it."""
        left = {
            "nothing": b"",
            "one byte": b"\x94",
            "bytes": request(b"x"),
            "bytes later": request(1, b"x"),
            "a list": request([]),
            "a list later": request(1, []),
            "a map": request({}),
            "a map later": request("x", {"a": 1}),
            "a timestamp": HEAD + b"\x91\xd6\xff\x00\x00\x00\x01",
            "an extension": HEAD + b"\x91\xd4\x05\x00",
            "16 parameters": request(*[1] * 16),
            "a long name": request(1, method="m" * 32),
            "a short msgid": request(1, msgid=7),
            "a msgid of 16 bits": request(1, msgid=65535),
            "a response": response(1),
            "a notification": msgpack.packb([2, "method", [1]]),
            "cut": request("text")[:-1],
            "something behind it": request(1) + b"\xc0",
            "not text": HEAD + b"\x91\xa1\xff",
            "a surrogate": HEAD + b"\x91\xa3\xed\xa0\x80",
            "a name that is not text": b"\x94\x00\xce\xde\xad\xbe\xef\xa1\xff\x91\x01",
            "no parameters": b"\x94\x00\xce\xde\xad\xbe\xef\xa1m\xc0",
            "a byte that means nothing": HEAD + b"\x91\xc1",
        }
        for name, payload in left.items():
            self.assertIsNone(scalar_request_untrusted(payload), name)

    def test_claims(self) -> None:
        """Headers that claim more than there is make nobody allocate anything, wherever they stand."""
        # A name that looks like parameters to whoever takes a msgid of one byte for one of four.
        name = "aaé00000000Ñ0".encode()
        self.assertEqual((name[3], name[13]), (0xA9, 0x91))
        odd = b"\x94\x00\x05" + bytes([0xA0 + len(name)]) + name
        claims = (
            b"\xdd\x00\x10\x00\x00",
            b"\xdd\xff\xff\xff\xff",
            b"\xdc\xff\xff",
            b"\xdf\x7f\xff\xff\xff",
            b"\xdb\xff\xff\xff\xff",
            b"\x9f",
        )
        tracemalloc.start()
        self.addCleanup(tracemalloc.stop)
        for claim in claims:
            for head in (HEAD, HEAD + b"\x91", HEAD + b"\x92\x01", b"\x94\x00\xce\xde\xad\xbe\xef", odd):
                payload = head + claim + b"\x91" * 40
                tracemalloc.reset_peak()
                before = tracemalloc.get_traced_memory()[0]
                self.assertIsNone(scalar_request_untrusted(payload))
                self.assertLess(tracemalloc.get_traced_memory()[1] - before, 8192, payload)


class ResponseTests(SynchronousTestCase):
    """Responses with a result that is a scalar."""

    def test_taken(self) -> None:
        """Results of every kind but bytes, and any msgid of 32 bits."""
        for result in (None, True, False, 0, -33, 2**64 - 1, 1.5, "", "x", "ü" * 400):
            self.assertEqual(scalar_response_untrusted(response(result)), (1, MSGID, None, result))
        self.assertEqual(scalar_response_untrusted(response(0, msgid=2**32 - 1)), (1, 2**32 - 1, None, 0))

    def test_left(self) -> None:
        """Whatever else it is, the careful way is to look at it."""
        left = {
            "nothing": b"",
            "bytes": response(b"x"),
            "a list": response([]),
            "a map": response({}),
            "a timestamp": response(0)[:-1] + b"\xd6\xff\x00\x00\x00\x01",
            "an error": response(None, "no"),
            "an error and a result": response(1, "no"),
            "a request": request("text"),
            "a msgid too large": b"\x94\x01\xcf\x00\x00\x00\x01\x00\x00\x00\x00\xc0\x01",
            "a msgid below 0": b"\x94\x01\xd2\xff\xff\xff\xff\xc0\x01",
            "a msgid that is none": b"\x94\x01\xca\x00\x00\x00\x00\xc0\x01",
            "cut": response("text")[:-1],
            "something behind it": response(1) + b"\xc0",
            "not text": response("x")[:-1] + b"\xff",
        }
        for name, payload in left.items():
            self.assertIsNone(scalar_response_untrusted(payload), name)

    def test_size(self) -> None:
        """What is large is left to whoever asks first whether somebody waits for it."""
        largest = response("x" * (MAX_SIZE - len(response("x" * 1000)) + 1000))
        self.assertEqual(len(largest), MAX_SIZE)
        self.assertIsNotNone(scalar_response_untrusted(largest))
        self.assertIsNone(scalar_response_untrusted(response("x" * 1200)))
