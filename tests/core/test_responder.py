"""The server's half: what is a request, and what is answered."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING, Any

from twisted.trial.unittest import SynchronousTestCase

from tests.core.driver import FIRST, SECOND
from twistedudp._msgpack import MAX_CONTAINERS, decode_untrusted, encode_notification, encode_request, encode_response
from twistedudp.core import Responder, ResponderSettings
from twistedudp.messages import Notification, Request, Response

if TYPE_CHECKING:
    from collections.abc import Callable

    from twistedudp.core import IncomingRequest

CALL = encode_request(7, "m", [1])
NOTICE = encode_notification("m", [2])


class ResponderTestCase(SynchronousTestCase):
    """A responder, and shorter ways to drive it."""

    now = 1000.0
    idempotent: frozenset[str] = frozenset()

    def make(self, **settings: Any) -> None:
        """Make a responder."""
        self.responder = Responder(ResponderSettings(**{"idempotent": self.idempotent, **settings}))

    def setUp(self) -> None:
        """Make one with the default settings."""
        self.make()

    def take(self, payload: bytes = CALL, peer: tuple[str, int] = FIRST) -> IncomingRequest:
        """Let a datagram come in and return the one request that it is."""
        self.responder.datagram_received(payload, peer, now=self.now)
        [incoming] = self.responder.events()
        return incoming

    def answer(self) -> Response:
        """Return the one response that is to be sent, decoded as the client will."""
        [transmit] = self.responder.transmits()
        self.assertEqual((transmit.peer, transmit.socket), (FIRST, 0))
        response = decode_untrusted(transmit.payload)
        assert isinstance(response, Response)
        return response

    def error(self) -> dict[str, object]:
        """Return the error of the one response that is to be sent."""
        error = self.answer().error
        assert isinstance(error, dict)
        return error

    def assertSilent(self) -> None:
        """Check that nothing is to be sent and nothing to be run."""
        self.assertEqual((self.responder.transmits(), self.responder.events()), ([], []))


class ReceivingTests(ResponderTestCase):
    """What comes in."""

    def test_default_settings(self) -> None:
        """Without settings the documented ones hold."""
        responder = Responder()
        settings = responder.settings
        self.assertEqual(
            (settings.max_request_size, settings.max_response_size, settings.max_running), (8192, 65507, 4096)
        )

    def test_request(self) -> None:
        """A request is to be run, once, and counts as running until it is answered."""
        incoming = self.take()
        self.assertEqual((incoming.message, incoming.peer, incoming.done), (Request(7, "m", [1]), FIRST, False))
        self.assertEqual(len(self.responder), 1)
        self.assertEqual(self.responder.stats.requests, 1)
        self.assertSilent()

    def test_notification(self) -> None:
        """A notification is to be run, and counts as running too, but is never answered, whatever becomes of it."""
        ends: list[Callable[[IncomingRequest], None]] = [
            lambda incoming: self.responder.respond(incoming, 5),
            lambda incoming: self.responder.respond(incoming, object()),
            lambda incoming: self.responder.respond_error(incoming, "code", "text"),
        ]
        for end in ends:
            incoming = self.take(NOTICE)
            self.assertEqual(incoming.message, Notification("m", [2]))
            self.assertEqual(len(self.responder), 1)
            end(incoming)
            self.assertTrue(incoming.done)
            self.assertEqual(len(self.responder), 0)
            self.assertSilent()
        self.assertEqual((self.responder.stats.notifications, self.responder.stats.requests), (3, 0))
        self.assertEqual(self.responder.stats.responses, 0)

    def test_order(self) -> None:
        """Requests are run in the order in which they came."""
        for msgid in (3, 1, 2):
            self.responder.datagram_received(encode_request(msgid, "m", []), FIRST, now=self.now)
        messages = [incoming.message for incoming in self.responder.events()]
        self.assertEqual(messages, [Request(msgid, "m", []) for msgid in (3, 1, 2)])

    def test_rejected(self) -> None:
        """What is no request is counted by its reason and never answered; the next request is."""
        peer_of_port_0 = ("127.0.0.1", 0)
        for reason, payload, peer in (
            ("malformed", b"", FIRST),
            ("malformed", b"\xff\x00hello", FIRST),
            ("malformed", CALL[:-1], FIRST),
            ("malformed", CALL + b"\x00", FIRST),
            ("not_a_request", encode_response(7, None, 1), FIRST),
            ("not_a_request", encode_response(7, "error", None), FIRST),
            ("source_port_zero", CALL, peer_of_port_0),
            ("too_large", bytes(8193), FIRST),
            ("too_large", encode_request(7, "m", [bytes(8192)]), FIRST),
        ):
            before = self.responder.stats.rejected[reason]
            self.responder.datagram_received(payload, peer, now=self.now)
            self.assertEqual(self.responder.stats.rejected[reason], before + 1, reason)
            self.assertSilent()
        self.assertEqual(sum(self.responder.stats.rejected.values()), 9)
        self.responder.respond(self.take(), "still there")
        self.assertEqual(self.answer(), Response(7, None, "still there"))

    def test_largest(self) -> None:
        """A request of exactly the limit is taken."""
        payload = encode_request(7, "m", [bytes(8192 - 9)])
        self.assertEqual(len(payload), 8192)
        self.take(payload)

    def test_busy(self) -> None:
        """Beyond the bound a request is answered at once that it was not run; a notification is dropped and counted."""
        self.make(max_running=2)
        running = [self.take(encode_request(1, "m", [])), self.take(NOTICE)]
        self.responder.slots.hold(running[0], self.now)
        self.now += 3.0
        self.responder.datagram_received(CALL, FIRST, now=self.now)
        self.assertEqual(
            self.error(),
            {
                "code": "busy",
                "message": "2 requests are running, the most allowed",
                "data": {"retry_after": 1.5},
            },
        )
        self.responder.datagram_received(NOTICE, FIRST, now=self.now)
        self.assertSilent()
        stats = self.responder.stats
        self.assertEqual((stats.rejected, stats.errors), ({"busy": 1}, {"busy": 1}))
        self.assertEqual((stats.requests, stats.notifications), (1, 1))
        self.assertEqual(len(self.responder), 2)
        self.responder.respond(running[1], None)
        self.take(CALL)


class RespondingTests(ResponderTestCase):
    """What goes out."""

    idempotent = frozenset({"m"})  # so that one request can be used again and again

    def test_result(self) -> None:
        """The result goes to who asked, with the msgid, and is counted."""
        self.responder.respond(self.take(), {"when": dt.datetime(2024, 1, 1, tzinfo=dt.timezone.utc)})
        self.assertEqual(self.answer().result, {"when": dt.datetime(2024, 1, 1, tzinfo=dt.timezone.utc)})
        self.assertEqual(self.responder.stats.responses, 1)
        self.assertEqual(len(self.responder), 0)

    def test_peers(self) -> None:
        """Each gets the answer to its own, even of equal datagrams, in the order of the answers."""
        one, other = self.take(CALL, FIRST), self.take(CALL, SECOND)
        self.responder.respond(other, "other")
        self.responder.respond(one, "one")
        expected = [(SECOND, Response(7, None, "other")), (FIRST, Response(7, None, "one"))]
        self.assertEqual(
            [(transmit.peer, decode_untrusted(transmit.payload)) for transmit in self.responder.transmits()], expected
        )

    def test_error(self) -> None:
        """An error is a map of code and message, and of data where there is any."""
        self.responder.respond_error(self.take(), "no_such_user", "there is none")
        self.assertEqual(self.answer(), Response(7, {"code": "no_such_user", "message": "there is none"}, None))
        self.responder.respond_error(self.take(), "no_such_user", "there is none", {"id": 5})
        self.assertEqual(self.error(), {"code": "no_such_user", "message": "there is none", "data": {"id": 5}})
        self.assertEqual(self.responder.stats.errors, {"no_such_user": 2})
        self.assertEqual(self.responder.stats.responses, 0)

    def test_answered_once(self) -> None:
        """Whatever comes after the first answer is ignored."""
        ends: list[Callable[[IncomingRequest], None]] = [
            lambda incoming: self.responder.respond(incoming, 1),
            lambda incoming: self.responder.respond_error(incoming, "a", "b"),
            lambda _: self.responder.close(),
        ]
        for first in ends:
            incoming = self.take()
            first(incoming)
            self.answer()
            self.responder.respond(incoming, 2)
            self.responder.respond_error(incoming, "c", "d")
            self.responder.close()
            self.assertSilent()

    def test_result_not_encodable(self) -> None:
        """A result that msgpack cannot carry is answered with the error that names its place."""
        self.responder.respond(self.take(), {"a": [object()]})
        error = self.error()
        self.assertEqual(error["code"], "result_not_encodable")
        self.assertIn("result['a'][0]: a value of type object", str(error["message"]))

    def test_result_beyond_the_limits(self) -> None:
        """A result that the client's decoder would refuse is answered with the error that names the limit."""
        self.responder.respond(self.take(), [[]] * MAX_CONTAINERS)
        error = self.error()
        self.assertEqual(error["code"], "result_too_large")
        self.assertIn("at most 1,024 lists and maps", str(error["message"]))

    def test_result_too_large(self) -> None:
        """A result that fits exactly is sent, one byte more is answered with the error that tells the sizes."""
        self.responder.respond(self.take(), bytes(65507 - 7))
        [transmit] = self.responder.transmits()
        self.assertEqual(len(transmit.payload), 65507)
        self.responder.respond(self.take(), bytes(65507 - 6))
        error = self.error()
        self.assertEqual(error["code"], "result_too_large")
        self.assertEqual(error["message"], "the response would have 65,508 bytes, more than the limit of 65,507")
        self.assertEqual(self.responder.stats.errors, {"result_too_large": 1})
        self.assertEqual(self.responder.stats.responses, 1)

    def test_error_that_cannot_be_sent(self) -> None:
        """Where the data or the text of an error cannot be sent its code still is."""
        self.make(max_response_size=1000)
        data: object
        for message, data in (
            ("text", object()), ("text", bytes(1000)), ("text" * 250, None), ("\ud800", None), ("text", [[]] * 2000),
        ):  # fmt: skip
            self.responder.respond_error(self.take(), "my_code", message, data)
            self.assertEqual(self.error(), {"code": "my_code", "message": "(too large to send)"})
        self.assertEqual(self.responder.stats.errors, {"my_code": 5})

    def test_code_that_cannot_be_sent(self) -> None:
        """A code is cut where it is too long, and made of what can be sent."""
        self.make(max_response_size=200)
        for code, sent in (("c" * 500, "c" * 64), ("é\ud800", "??"), ("\U0001f600" * 100, "?" * 64)):
            self.responder.respond_error(self.take(), code, "text")
            [transmit] = self.responder.transmits()
            self.assertTrue(len(transmit.payload) <= 200, len(transmit.payload))
            response = decode_untrusted(transmit.payload)
            self.assertEqual(response, Response(7, {"code": sent, "message": "(too large to send)"}, None))

    def test_close(self) -> None:
        """Everything that is running is answered in order, except for notifications; then nothing is running."""
        for msgid in (3, 1, 2):
            self.take(encode_request(msgid, "m", []))
        self.take(NOTICE)
        self.responder.close()
        responses = [decode_untrusted(transmit.payload) for transmit in self.responder.transmits()]
        error = {"code": "server_stopping", "message": "the server stopped while the method was running"}
        self.assertEqual(responses, [Response(msgid, error, None) for msgid in (3, 1, 2)])
        self.assertEqual(len(self.responder), 0)
        self.assertEqual(self.responder.stats.errors, {"server_stopping": 3})


class RepeatedTests(ResponderTestCase):
    """The same request, more than once."""

    def receive(self, payload: bytes = CALL, peer: tuple[str, int] = FIRST) -> None:
        """Let a datagram come in that must be no event."""
        self.responder.datagram_received(payload, peer, now=self.now)
        self.assertEqual(self.responder.events(), [])

    def test_while_running(self) -> None:
        """Repeats of a request that is running are dropped: one run answers them all."""
        incoming = self.take()
        for _ in range(3):
            self.receive()
        self.assertSilent()
        self.responder.respond(incoming, "once")
        self.assertEqual(self.answer().result, "once")
        self.assertEqual((self.responder.stats.requests, self.responder.stats.repeated), (1, 3))

    def test_after(self) -> None:
        """A repeat of a request that has run gets the same bytes, whether they were a result or an error."""
        ends: list[Callable[[IncomingRequest], None]] = [
            lambda incoming: self.responder.respond(incoming, "result"),
            lambda incoming: self.responder.respond(incoming, object()),
            lambda incoming: self.responder.respond_error(incoming, "no", "not here"),
        ]
        for number, end in enumerate(ends):
            payload = encode_request(number, "m", [])
            end(self.take(payload))
            [first] = self.responder.transmits()
            for _ in range(3):
                self.receive(payload)
                self.assertEqual(self.responder.transmits(), [first])

    def test_other_sender(self) -> None:
        """The response is given to nobody else: the same bytes from another port or host are another request."""
        self.responder.respond(self.take(), "secret")
        self.responder.transmits()
        for peer in (("127.0.0.1", FIRST[1] + 1), ("127.0.0.2", FIRST[1])):
            incoming = self.take(peer=peer)
            self.assertEqual(self.responder.transmits(), [])
            self.responder.respond_error(incoming, "no", "not yours")
            self.responder.transmits()

    def test_other_bytes(self) -> None:
        """A request with the same msgid and other parameters is another request."""
        self.responder.respond(self.take(encode_request(7, "m", [1])), 1)
        self.take(encode_request(7, "m", [2]))

    def test_age(self) -> None:
        """A response is kept for 30 s after its request was last seen, and not longer."""
        self.responder.respond(self.take(), "old")
        for _ in range(5):
            self.now += 30.0
            self.receive()
        self.now += 30.001
        self.take()

    def test_idempotent(self) -> None:
        """What may run twice does, and nothing is kept of it."""
        self.make(idempotent=frozenset({"m"}), cache_entries=0)
        for _ in range(2):
            self.responder.respond(self.take(), 1)
        self.assertEqual(self.responder.stats.requests, 2)

    def test_notification(self) -> None:
        """Notifications have no repeats: nobody sends them again."""
        for _ in range(2):
            self.take(NOTICE)

    def test_no_room(self) -> None:
        """A full cache gives up nothing that may be asked for: new requests are refused until there is room."""
        for settings in ({"cache_entries": 2}, {"cache_size": 16}):
            self.make(**settings)
            for msgid in (1, 2):
                self.responder.respond(self.take(encode_request(msgid, "m", [])), msgid)
                self.now += 10.0
            self.responder.transmits()
            for _ in range(2):
                self.receive(encode_request(3, "m", []))
                error = self.error()
                self.assertEqual(error["code"], "busy")
                self.assertIn("ask again later", str(error["message"]))
                self.assertEqual(error["data"], {"retry_after": 10.0})  # when the first is too old
            self.receive(encode_request(1, "m", []))
            self.assertEqual(self.answer().result, 1)
            self.now += 20.001  # the second is old now, the first was just asked for
            self.take(encode_request(3, "m", []))
            self.assertEqual(self.responder.stats.errors, {"busy": 2})

    def test_running_for_long(self) -> None:
        """A method that outlasts the age of an entry is not started again, is answered, and its response is kept."""
        incoming = self.take()
        for _ in range(2):
            self.now += 31.0
            self.receive(CALL)
            self.assertEqual((self.responder.events(), self.responder.transmits()), ([], []))
        self.now += 31.0
        other = self.take(encode_request(8, "m", []))
        self.responder.respond(incoming, "late")
        self.assertEqual(self.answer().result, "late")
        self.responder.respond(other, "x")
        self.responder.transmits()
        self.receive(CALL)
        self.assertEqual(self.answer().result, "late")

    def test_memory(self) -> None:
        """What is counted as used is what the entries have, and nothing when they are gone."""
        cache = self.responder._cache
        for msgid in range(100):
            self.responder.respond(self.take(encode_request(msgid, "m", [])), "x" * msgid)
        self.assertEqual(len(cache), 100)
        self.assertGreater(cache.size, sum(range(100)) + 100 * len(CALL))
        self.assertLess(cache.size, sum(range(100)) + 100 * 2 * (len(CALL) + 8))
        self.now += 100.0
        self.take(CALL)
        self.assertEqual((len(cache), cache.size), (1, len(CALL)))
