"""The client's calls: what they give back, how they fail, and that each ends exactly once."""

from __future__ import annotations

import dataclasses
import datetime as dt
from typing import Any

from twisted.internet.defer import CancelledError, Deferred, gatherResults

from tests.simulation import DELAY, PORT, SERVER, Echo, SimulatedTestCase
from twistedudp import _msgpack, errors
from twistedudp.client import DEFAULT, UDPClientService
from twistedudp.core import RequesterSettings
from twistedudp.messages import Notification, Request
from twistedudp.methods import RPCMethods, method


@dataclasses.dataclass
class Point:
    """What calls carry."""

    x: int
    y: int


class Calculator(RPCMethods):
    """Methods to call."""

    def __init__(self) -> None:
        self.noted: list[object] = []

    @method
    def add(self, a: int, b: int) -> int:
        """Add."""
        return a + b

    @method
    def move(self, point: Point, by: int = 1) -> Point:
        """Move a point."""
        return Point(point.x + by, point.y + by)

    @method
    def tomorrow(self, day: dt.datetime) -> dt.datetime:
        """Return the day after."""
        return day + dt.timedelta(days=1)

    @method
    def note(self, what: object) -> None:
        """Take a note."""
        self.noted.append(what)

    @method
    def refuse(self) -> None:
        """Fail on purpose."""
        raise errors.MethodError("sold_out", "nothing is left", {"left": 0})


class ResultTests(SimulatedTestCase):
    """What a call gives back."""

    def test_call(self) -> None:
        """A call fires with the method's result."""
        self.serve_methods(Calculator())
        client = self.client()
        self.assertEqual(self.result(client.call("add", 2, 3)), 5)
        self.assertEqual((client.stats.requests, client.stats.answered, client.stats.transmitted), (1, 1, 1))

    def test_one_round_trip(self) -> None:
        """The datagram leaves inside call(), and the Deferred fires when the response arrives."""
        self.serve_methods(Calculator())
        call = self.client().call("add", 2, 3)
        self.assertEqual(len(self.sent(to=(SERVER, PORT))), 1)
        self.network.run_until(call)
        self.assertAlmostEqual(self.network.clock.seconds(), 2 * DELAY)

    def test_await(self) -> None:
        """A call can be awaited."""
        self.serve_methods(Calculator())

        async def twice() -> int:
            client = self.client()
            first: int = await client.call("add", 1, 2)
            second: int = await client.call("add", first, first)
            return second

        self.assertEqual(self.network.run_until(twice()), 6)

    def test_none(self) -> None:
        """A method that returns nothing gives None."""
        methods = Calculator()
        self.serve_methods(methods)
        self.assertIsNone(self.result(self.client().call("note", [1, {"a": None}])))
        self.assertEqual(methods.noted, [[1, {"a": None}]])

    def test_objects(self) -> None:
        """Dataclasses go as maps and come back as what returns= names; datetimes keep their type."""
        self.serve_methods(Calculator())
        client = self.client()
        self.assertEqual(self.result(client.call("move", Point(1, 2))), {"x": 2, "y": 3})
        moved: Point = self.result(client.call("move", Point(1, 2), 10, returns=Point))
        self.assertEqual(moved, Point(11, 12))
        self.assertEqual(self.result(client.call("move", Point(1, 2), returns=dict[str, int])), {"x": 2, "y": 3})
        now = dt.datetime(2026, 11, 22, 8, 30, 0, 123456, dt.timezone.utc)
        self.assertEqual(self.result(client.call("tomorrow", now)), now + dt.timedelta(days=1))

    def test_returns_not_that(self) -> None:
        """A result that is not what returns= names is a DecodeError that says what does not fit."""
        self.serve_methods(Calculator())
        client = self.client()
        error = self.error_of(client.call("add", 1, 2, returns=Point), errors.DecodeError)
        self.assertIn("does not fit Point", str(error))
        self.assertIn("got `int`", str(error))
        error = self.error_of(client.call("add", 1, 2, returns=list[int]), errors.DecodeError)
        self.assertIsInstance(error, ValueError)
        self.assertEqual(client.stats.answered, 2)

    def test_any_order(self) -> None:
        """A hundred calls get each its own answer, in whatever order the server answers."""
        peer = self.peer()
        calls = [self.client().call("number", number) for number in range(100)]
        self.advance()
        for number in sorted(range(100), key=lambda number: number * 37 % 100):
            peer.respond(f"answer {peer.request(number).params[0]}", number)
        self.assertEqual(
            self.result(gatherResults(calls)),
            [f"answer {number}" for number in range(100)],
        )

    def test_notify(self) -> None:
        """A notification is one datagram, runs the method, and gets no answer."""
        methods = Calculator()
        self.serve_methods(methods)
        client = self.client()
        client.notify("note", "hello")
        self.advance(5.0)
        self.assertEqual(methods.noted, ["hello"])
        self.assertEqual(len(self.network.trace), 1)
        self.assertEqual((client.stats.notifications, client.stats.transmitted), (1, 1))

    def test_notification_on_the_wire(self) -> None:
        """A notification is [2, method, params], a request [0, msgid, method, params]."""
        peer = self.peer()
        client = self.client()
        client.notify("note", 1, "a")
        client.call("add", 1).addErrback(lambda _: None)
        self.advance()
        self.assertEqual(peer.messages[0], Notification("note", [1, "a"]))
        self.assertEqual(peer.messages[1], Request(peer.request(1).msgid, "add", [1]))

    def error_of(self, deferred: Deferred[Any], kind: type[Exception]) -> Any:
        """Run until a call has failed, and return its error."""
        return self.assertRaises(kind, self.result, deferred)


class FailureTests(SimulatedTestCase):
    """How a call fails, beside by its deadline."""

    def test_error_reply(self) -> None:
        """An error that a method raises on purpose comes with its code, message and data."""
        self.serve_methods(Calculator())
        client = self.client()
        error = self.assertRaises(errors.ErrorReplyReceived, self.result, client.call("refuse"))
        self.assertEqual((error.code, error.message, error.data), ("sold_out", "nothing is left", {"left": 0}))
        self.assertEqual((client.stats.errors, client.stats.answered), (1, 0))

    def test_foreign_errors(self) -> None:
        """Any object but nil is an error; what a foreign server sends is kept whole."""
        peer = self.peer()
        client = self.client()
        for sent, code, message, data in (
            ("no such thing", "", "no such thing", "no such thing"),
            (17, "", "the server sent the error 17", 17),
            (False, "", "the server sent the error False", False),
            ([1, "x"], "", "the server sent the error [1, 'x']", [1, "x"]),
            ({"code": 5, "message": "m"}, "", "the server sent the error", {"code": 5, "message": "m"}),
            ({"code": "c", "message": "m"}, "c", "m", None),
            ({"code": "c", "message": "m", "data": [1]}, "c", "m", [1]),
        ):
            call = client.call("x")
            self.advance()
            peer.respond(None, error=sent)
            self.advance()
            error = self.error(call, errors.ErrorReplyReceived)
            self.assertEqual((error.code, error.data), (code, data))
            self.assertIn(message, error.message)

    def test_too_large(self) -> None:
        """Too much to send is a DatagramTooLarge with both sizes, and nothing is sent."""
        client = self.client(max_datagram_size=100)
        error = self.error(client.call("add", "x" * 200), errors.DatagramTooLarge)
        size = len(_msgpack.encode_request(2**32 - 1, "add", ["x" * 200]))
        self.assertEqual((error.size, error.limit), (size, 100))
        self.assertRaises(errors.DatagramTooLarge, client.notify, "add", "x" * 200)
        self.error(client.echo("x" * 200), errors.DatagramTooLarge)
        self.assertEqual(len(self.network.trace), 0)

    def test_largest(self) -> None:
        """The largest request that is allowed goes through: the default is what a server takes by default."""
        self.serve_methods(Calculator())
        client = self.client()
        own = len(_msgpack.encode_request(2**32 - 1, "echo", ["x" * 8000])) - 8000
        text = "x" * (8192 - own)
        self.assertEqual(self.result(client.call("echo", text)), text)
        self.error(client.call("echo", text + "x"), errors.DatagramTooLarge)

    def test_not_encodable(self) -> None:
        """What msgpack cannot carry is an EncodeError that names the place, and nothing is sent."""
        client = self.client()
        error = self.error(client.call("add", 1, {"name": {1, 2}}), errors.EncodeError)
        self.assertEqual(error.path, "params[1]['name']")
        self.assertRaises(errors.EncodeError, client.notify, "add", 2**64)
        deep: list[object] = []
        for _ in range(20):
            deep = [deep]
        self.error(client.call("add", deep), errors.LimitExceeded)
        self.error(client.echo(object()), errors.EncodeError)
        self.assertEqual(len(self.network.trace), 0)

    def test_flat_list(self) -> None:
        """A flat list of 1,000 numbers passes, both ways."""
        self.serve_methods(Calculator())
        numbers = list(range(1000))
        self.assertEqual(self.result(self.client().echo(numbers)), numbers)

    def test_reflected_call(self) -> None:
        """A call that comes back byte for byte fails at once: an echo server listens there."""
        self.serve(Echo())
        client = self.client()
        error = self.assertRaises(errors.PeerReflects, self.result, client.call("add", 1, 2))
        self.assertEqual(error.peer, (SERVER, PORT))
        self.assertIn("echo server", str(error))
        self.assertAlmostEqual(self.network.clock.seconds(), 2 * DELAY)
        self.assertEqual(client.stats.failed, 1)

    def test_too_many(self) -> None:
        """More requests than may wait are refused, and go through again when there is room."""
        peer = self.peer()
        client = self.client()
        client._pump.requester.settings = RequesterSettings(max_outstanding=2)
        calls = [client.call("x") for _ in range(3)]
        self.assertIn("2 requests", str(self.error(calls[2], errors.TooManyRequests)))
        self.advance()
        peer.respond(1, 0)
        self.advance()
        self.assertEqual(self.successResultOf(calls[0]), 1)
        for call in (calls[1], client.call("x")):
            self.assertNoResult(call)
            call.addErrback(lambda _: None)

    def test_invalid_timeouts(self) -> None:
        """A timeout that is no positive number of seconds is a ValueError at the call: no call waits for ever."""
        client = self.client()
        for wrong in (None, 0, 0.0, -1, float("nan"), float("inf"), True, "2", 10**400, [1]):
            bad: Any = wrong
            for command in (client.call, client.echo):
                self.assertRaisesRegex(ValueError, "positive number of seconds", command, "x", timeout=bad)
            self.assertRaisesRegex(ValueError, "positive number", client.echo_bytes, b"x", timeout=bad)
            self.assertRaisesRegex(ValueError, "positive number", UDPClientService, self.here, SERVER, 1, timeout=bad)
        self.assertEqual((len(self.network.trace), client.stats.requests), (0, 0))

    def test_default_timeout(self) -> None:
        """DEFAULT stands for the client's own timeout."""
        self.peer()
        client = self.client(timeout=3)
        calls = [client.call("x", timeout=DEFAULT), client.echo("x", timeout=DEFAULT), client.echo_bytes(b"x")]
        self.advance(2.9999)
        for call in calls:
            self.assertNoResult(call)
        self.advance(0.0001)
        for call in calls:
            self.error(call, errors.RequestTimedOut)


class UntrustedTests(SimulatedTestCase):
    """What comes to a client and is no answer: counted, dropped, and the call goes on."""

    def test_not_the_answer(self) -> None:
        """Wrong ids, kinds and bytes are counted by reason, and then the right answer still counts."""
        peer = self.peer()
        client = self.client()
        call = client.call("x")
        self.advance()
        msgid = peer.request().msgid
        for reason, payload in (
            ("unmatched", _msgpack.encode_response(msgid ^ 1, None, "forged")),
            ("malformed", b""),
            ("malformed", b"garbage"),
            ("malformed", _msgpack.encode_response(msgid, None, "cut")[:-1]),
            ("malformed", _msgpack.encode_response(msgid, None, "long") + b"\0"),
            ("malformed", b"\x94\x01\xce" + msgid.to_bytes(4, "big") + b"\xc0" + b"\x91" * 1025),
            ("not_a_response", _msgpack.encode_request(msgid, "x", [1])),
            ("not_a_response", _msgpack.encode_request(msgid ^ 1, "x", [])),
            ("not_a_response", _msgpack.encode_notification("x", [])),
        ):
            before = client.stats.rejected[reason]
            peer.send(payload)
            self.advance()
            self.assertEqual(client.stats.rejected[reason], before + 1, payload)
            self.assertNoResult(call)
        peer.respond("right")
        self.advance()
        self.assertEqual(self.successResultOf(call), "right")
        self.assertEqual(sum(client.stats.rejected.values()), 9)
        self.assertEqual(len(self.sent()), 1)

    def test_wrong_peer(self) -> None:
        """A response with the right id from anybody but the server asked is counted and dropped."""
        peer, stranger = self.peer(), self.peer(9)
        third = self.network.reactor("192.0.2.3")
        forger = self.peer(on=third)
        client = self.client()
        call = client.call("x")
        self.advance()
        response = _msgpack.encode_response(peer.request().msgid, None, "forged")
        for other in (stranger, forger):
            other.received.append(peer.received[0])
            other.send(response)
        self.advance()
        self.assertNoResult(call)
        self.assertEqual(client.stats.rejected, {"wrong_peer": 2})
        peer.respond("right")
        self.advance()
        self.assertEqual(self.successResultOf(call), "right")

    def test_late_and_twice(self) -> None:
        """A second response, and one after the deadline, are counted and dropped."""
        peer = self.peer()
        client = self.client()
        first, second = client.call("x"), client.call("y", timeout=0.1)
        self.advance()
        peer.respond(1, 0)
        peer.respond(2, 0)
        self.advance(0.2)
        self.assertEqual(self.successResultOf(first), 1)
        self.error(second, errors.RequestTimedOut)
        peer.respond(3, 1)
        self.advance()
        self.assertEqual((client.stats.duplicate, client.stats.late, client.stats.rejected), (1, 1, {}))

    def test_unusual_encodings(self) -> None:
        """A response is taken in every encoding that msgpack allows for it."""
        peer = self.peer()
        client = self.client()
        for head in (b"\x94\x01\xce", b"\xdc\x00\x04\x01\xce", b"\xdd\x00\x00\x00\x04\xcc\x01\xce"):
            call = client.call("x")
            self.advance()
            peer.send(head + peer.request().msgid.to_bytes(4, "big") + b"\xc0\x07")
            self.advance()
            self.assertEqual(self.successResultOf(call), 7)


class CancelTests(SimulatedTestCase):
    """Giving a call up."""

    def test_forgotten(self) -> None:
        """A cancelled call fails with CancelledError, is not sent again, and its response is dropped."""
        peer = self.peer()
        client = self.client()
        call = client.call("x")
        self.advance()
        call.cancel()
        self.error(call, CancelledError)
        self.assertEqual(len(client._pump.requester), 0)
        peer.respond("late")
        self.advance(5.0)
        self.assertEqual((len(self.sent()), len(peer.received)), (1, 1))
        self.assertEqual((client.stats.cancelled, client.stats.late), (1, 1))
        self.assertEqual(self.here.getDelayedCalls(), [])

    def test_raw_echo(self) -> None:
        """A cancelled raw echo leaves its bytes free for the next one on the usual port."""
        peer = self.peer()
        client = self.client()
        first = client.echo_bytes(b"same")
        first.cancel()
        self.error(first, CancelledError)
        second = client.echo_bytes(b"same")
        self.advance()
        self.assertEqual(peer.received[0][1], peer.received[1][1])
        peer.send(b"same")
        self.advance()
        self.assertEqual(self.successResultOf(second), b"same")

    def test_too_late(self) -> None:
        """Cancelling a call that has fired does nothing."""
        self.serve_methods(Calculator())
        client = self.client()
        call = client.call("add", 1, 2)
        self.result(call)
        call.cancel()
        self.assertEqual(client.stats.cancelled, 0)

    def test_with_returns(self) -> None:
        """Cancelling goes through the conversion of the result."""
        client = self.client(host="192.0.2.77")
        call = client.call("x", returns=int)
        call.cancel()
        self.error(call, CancelledError)
        self.assertEqual(len(client._pump.requester), 0)

    def test_before_the_address(self) -> None:
        """A call that is cancelled while the name is looked up is never sent."""
        self.network.lookup_delay = 0.5
        self.network.names["slow.example"] = [SERVER]
        peer = self.peer()
        call = self.client("slow.example").call("x")
        call.cancel()
        self.error(call, CancelledError)
        self.advance(5.0)
        self.assertEqual(peer.received, [])


class ReentryTests(SimulatedTestCase):
    """Callbacks that come back with commands."""

    def test_call_from_a_callback(self) -> None:
        """A chain of calls, each made in the callback of the one before, without growing the stack."""
        self.serve_methods(Calculator())
        client = self.client()
        finished: Deferred[int] = Deferred()

        def again(total: int) -> None:
            if total == 3000:
                finished.callback(total)
            else:
                client.call("add", total, 1).addCallback(again)

        client.call("add", 0, 1).addCallback(again)
        self.assertEqual(self.result(finished), 3000)

    def test_call_that_fails_at_once(self) -> None:
        """A call made in a callback that fails without being sent fails like any other."""
        self.serve_methods(Calculator())
        client = self.client()
        chain = client.call("add", 1, 2).addCallback(lambda _: client.call("add", object()))
        self.assertRaises(errors.EncodeError, self.result, chain)

    def test_notify_from_a_callback(self) -> None:
        """A notification made in a callback goes out."""
        methods = Calculator()
        self.serve_methods(methods)
        client = self.client()
        self.result(client.call("add", 1, 2).addCallback(lambda sum_: client.notify("note", sum_)))
        self.advance()
        self.assertEqual(methods.noted, [3])

    def test_cancel_a_waiting_call(self) -> None:
        """A callback may cancel another call that waits."""
        peer = self.peer()
        client = self.client()
        second: Deferred[Any] = Deferred()
        first = client.call("a").addCallback(lambda _: second.cancel())
        second = client.call("b")
        self.advance()
        peer.respond(1, 0)
        self.advance()
        self.successResultOf(first)
        self.error(second, CancelledError)
        peer.respond(2, 1)
        self.advance()
        self.assertEqual((client.stats.late, client.stats.rejected), (1, {}))

    def test_cancel_an_outcome(self) -> None:
        """A callback may cancel a call whose outcome is about to be delivered; the others get theirs."""
        client = self.client(host="192.0.2.77")
        calls: list[Deferred[Any]] = []

        def cancel_next(failure: Any) -> Any:
            calls[1].cancel()
            return failure

        calls.append(client.call("a").addErrback(cancel_next))
        calls.extend(client.call("b") for _ in range(2))
        client.stopService()
        self.error(calls[0], errors.RequestAborted)
        self.error(calls[1], CancelledError)
        self.error(calls[2], errors.RequestAborted)

    def test_exception_in_a_callback(self) -> None:
        """An exception in a callback is that Deferred's own matter: other calls go on."""
        self.serve_methods(Calculator())
        client = self.client()

        def broken(_: object) -> None:
            raise RuntimeError("mine")

        calls = [client.call("add", 1, 1).addCallback(broken), client.call("add", 2, 2)]
        self.advance()
        self.error(calls[0], RuntimeError)
        self.assertEqual(self.successResultOf(calls[1]), 4)
        self.assertEqual(self.result(client.call("add", 3, 3)), 6)

    def test_fires_once(self) -> None:
        """Whatever comes after the outcome, callbacks run once."""
        peer = self.peer()
        client = self.client()
        fired: list[object] = []
        call = client.call("x").addBoth(fired.append)
        self.advance()
        for _ in range(3):
            peer.respond("again", 0)
        self.advance(3.0)
        client.stopService()
        call.cancel()
        self.advance(3.0)
        self.assertEqual(fired, ["again"])
