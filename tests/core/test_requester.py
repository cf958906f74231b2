"""The client's half: commands, and what counts as the answer to a request."""

from __future__ import annotations

from itertools import chain, count, repeat

from twisted.trial.unittest import SynchronousTestCase

from tests.core.driver import FIRST, SECOND, START, STRANGER, Client
from twistedudp._msgpack import decode_untrusted, encode_notification, encode_request, encode_response
from twistedudp.core import Kind, Requester, RequesterSettings, Transmit
from twistedudp.errors import (
    DatagramTooLarge,
    EncodeError,
    ErrorReplyReceived,
    HostNotFound,
    LocalError,
    PeerReflects,
    RequestAborted,
    RequestTimedOut,
    TooManyRequests,
    TwistedUDPError,
)
from twistedudp.messages import Notification, Request, Response


class CommandTests(SynchronousTestCase):
    """What the caller asks for."""

    def test_default_settings(self) -> None:
        """Without settings the documented ones hold."""
        settings = Requester(msgids=count(), random=lambda: 0.0).settings
        self.assertEqual((settings.max_datagram_size, settings.max_outstanding), (8192, 262144))
        self.assertEqual((settings.max_queued_notifications, settings.retry_refused), (1024, False))

    def test_call(self) -> None:
        """A call is one datagram to the server, and waits."""
        client = Client(FIRST)
        request = client.call(1, "two")
        [transmit] = client.sent()
        self.assertEqual(transmit, Transmit(encode_request(1, "m", [1, "two"]), FIRST, 0))
        self.assertEqual(len(client.requester), 1)
        self.assertEqual((request.done, request.attempts, request.asked), (False, 1, (FIRST,)))
        self.assertEqual((request.started, request.deadline), (START, START + 2.0))
        self.assertEqual(client.sent(), [])
        self.assertEqual(client.requester.events(), [])

    def test_notification(self) -> None:
        """A notification is one datagram, and nothing waits for anything."""
        client = Client(FIRST)
        client.requester.send_notification("log", ["hi"])
        [transmit] = client.sent()
        self.assertEqual(decode_untrusted(transmit.payload), Notification("log", ["hi"]))
        self.assertEqual((transmit.peer, transmit.socket), (FIRST, 0))
        self.assertEqual(client.requester.stats.notifications, 1)
        self.assertTrue(client.is_idle)

    def test_not_encodable(self) -> None:
        """A value that cannot be sent is refused at the call, and nothing is left of it."""
        client = Client(FIRST)
        self.assertRaises(EncodeError, client.call, object())
        self.assertRaises(EncodeError, client.requester.send_notification, "m", [object()])
        self.assertTrue(client.is_idle)
        self.assertEqual((client.requester.stats.requests, client.requester.stats.notifications), (0, 0))

    def test_too_large(self) -> None:
        """One byte more than the limit is refused at the call with both sizes; the limit itself is not."""
        client = Client(FIRST, settings=RequesterSettings(max_datagram_size=100))
        overhead = len(encode_request(1, "m", [bytes(90)])) - 90
        error = self.assertRaises(DatagramTooLarge, client.call, bytes(101 - overhead))
        self.assertEqual((error.size, error.limit), (101, 100))
        error = self.assertRaises(DatagramTooLarge, client.requester.send_notification, "m", [bytes(200)])
        self.assertEqual(error.limit, 100)
        self.assertTrue(client.is_idle)
        client.call(bytes(100 - overhead))
        client.requester.send_notification("m", [bytes(100 - overhead)])
        self.assertEqual([len(transmit.payload) for transmit in client.sent()], [100, 99])

    def test_too_many(self) -> None:
        """Beyond the bound calls and echoes are refused until one has its outcome."""
        client = Client(FIRST, settings=RequesterSettings(max_outstanding=2))
        first, _ = client.call(), client.echo(b"a")
        for refused in (client.call, lambda: client.echo(b"b")):
            error = self.assertRaises(TooManyRequests, refused)
            self.assertIn("2 requests are waiting", str(error))
        self.assertEqual(
            (len(client.requester), len(client.requester._echoes), client.requester.stats.requests), (2, 1, 2)
        )
        client.answer(first)
        client.call()

    def test_cancel(self) -> None:
        """A cancelled request has no outcome, is not sent again, and its answer is a datagram like any other."""
        client = Client(FIRST)
        for request in (client.call(), client.echo(b"echo")):
            client.cancel(request)
            self.assertTrue(request.done)
            client.cancel(request)
        client.sent()
        self.assertTrue(client.is_idle)
        self.assertEqual(client.requester.stats.cancelled, 2)
        client.answer(request)
        client.receive(b"echo")
        self.assertEqual(client.run(10.0), [])
        self.assertTrue(client.is_idle)

    def test_cancel_after_the_outcome(self) -> None:
        """Cancelling what has an outcome changes nothing of it."""
        client = Client(FIRST)
        request = client.call()
        client.answer(request)
        client.cancel(request)
        self.assertEqual(client.result(), "ok")
        self.assertEqual(client.requester.stats.cancelled, 0)

    def test_cancel_unsent(self) -> None:
        """A request cancelled before the address is known is never sent."""
        client = Client()
        client.cancel(client.call())
        client.resolve(FIRST)
        self.assertTrue(client.is_idle)

    def test_close(self) -> None:
        """Everything that waits is aborted, sent or not, and the queued notifications are dropped and counted."""
        for client in (Client(), Client(FIRST)):
            requests = [client.call(), client.echo(b"a"), client.echo(b"a"), client.call(kind=Kind.ECHO)]
            client.sent()
            client.requester.send_notification("m", [])
            client.requester.close()
            events = client.requester.events()
            self.assertEqual(events, requests)
            self.assertEqual({type(request.error) for request in events}, {RequestAborted})
            self.assertEqual(client.requester.stats.aborted, 4)
            dropped = client.requester.stats.notifications_dropped
            self.assertEqual(len(client.sent()) + dropped, 1)
            self.assertTrue(client.is_idle)
            client.requester.close()
            client.resolve(FIRST)
            self.assertTrue(client.is_idle)

    def test_msgid_of_a_waiting_request(self) -> None:
        """An id that still waits when the ids come round is skipped."""
        client = Client(FIRST, msgids=chain([5, 5, 5, 6, 6, 5, 7], repeat(8)))
        msgids = [client.call().msgid, client.echo(b"a").msgid, client.call().msgid, client.call().msgid]
        self.assertEqual(msgids, [5, 6, 7, 8])

    def test_context(self) -> None:
        """What the caller sets comes back with the outcome."""
        client = Client(FIRST)
        request = client.call()
        request.context = marker = object()
        client.answer(request)
        self.assertIs(client.outcome().context, marker)


class ResolutionTests(SynchronousTestCase):
    """Before the address is known, and when it is not."""

    def test_calls_wait(self) -> None:
        """Calls, echoes and notifications made before are sent as soon as the address is known, in order."""
        client = Client()
        call = client.call()
        client.requester.send_notification("n", [])
        echo = client.echo(b"a")
        self.assertEqual(client.sent(), [])
        self.assertEqual(client.requester.next_deadline(), START + 2.0)
        client.now += 0.5
        client.resolve(FIRST)
        self.assertEqual(
            client.sent(),
            [
                Transmit(call.payload, FIRST, 0),
                Transmit(b"a", FIRST, 0),
                Transmit(encode_notification("n", []), FIRST, 0),
            ],
        )
        self.assertEqual(client.requester.next_deadline(), START + 0.5 + 1.5 / 8)
        client.answer(call)
        client.receive(b"a")
        self.assertEqual(client.requester.events(), [call, echo])
        self.assertTrue(client.is_idle)

    def test_expire_in_time(self) -> None:
        """A call whose server is never found fails at its deadline, having sent nothing."""
        client = Client()
        request = client.call(timeout=2.0)
        self.assertEqual(client.run(1.999), [])
        self.assertFalse(request.done)
        self.assertEqual(client.run(0.001), [])
        error = client.error()
        assert isinstance(error, RequestTimedOut)
        self.assertEqual((error.attempts, error.elapsed, error.peers), (0, 2.0, ()))
        self.assertTrue(client.is_idle)

    def test_within_the_deadline(self) -> None:
        """The time until the address is known is part of the deadline, and what is left of it is shared out."""
        client = Client()
        client.call(timeout=2.0)
        client.now += 1.9
        client.resolve(FIRST)
        self.assertEqual([round(at, 6) for at, _ in client.run(5.0)], [0.0, 0.0125, 0.0375, 0.0875])
        error = client.error()
        assert isinstance(error, RequestTimedOut)
        self.assertEqual((error.attempts, round(error.elapsed, 6)), (4, 2.0))

    def test_failed(self) -> None:
        """Where the name does not resolve everything that waits for it fails with that error, and nothing else."""
        client = Client()
        requests = [client.call(), client.echo(b"a")]
        client.requester.send_notification("m", [])
        error = HostNotFound("no.example")
        client.requester.resolution_failed(error)
        events = client.requester.events()
        self.assertEqual(events, requests)
        self.assertEqual([request.error for request in events], [error, error])
        self.assertEqual((client.requester.stats.failed, client.requester.stats.notifications_dropped), (2, 1))
        self.assertTrue(client.is_idle)

    def test_failed_later(self) -> None:
        """A later failure leaves alone what has been sent."""
        client = Client(FIRST)
        request = client.call()
        client.requester.resolution_failed(HostNotFound("no.example"))
        self.assertFalse(request.done)
        client.answer(request)
        self.assertEqual(client.result(), "ok")

    def test_queue_of_notifications(self) -> None:
        """It is bounded; what does not fit is dropped and counted."""
        client = Client(settings=RequesterSettings(max_queued_notifications=3))
        for number in range(5):
            client.requester.send_notification("m", [number])
        client.resolve(FIRST)
        sent = [decode_untrusted(transmit.payload) for transmit in client.sent()]
        self.assertEqual(sent, [Notification("m", [number]) for number in range(3)])
        stats = client.requester.stats
        self.assertEqual((stats.notifications, stats.notifications_dropped, stats.transmitted), (5, 2, 3))
        self.assertTrue(client.is_idle)

    def test_too_large_for_the_address(self) -> None:
        """What fits IPv6 but not IPv4 is refused at the call, or as soon as it is known that it goes to IPv4."""
        client = Client(FIRST)
        error = self.assertRaises(DatagramTooLarge, client.echo, bytes(65508))
        self.assertEqual(error.limit, 65507)
        self.assertTrue(client.is_idle)
        client = Client(SECOND)
        client.echo(bytes(65527))
        client = Client()
        fits, large = client.echo(bytes(65507)), client.echo(bytes(65508))
        client.resolve(FIRST)
        self.assertEqual([len(transmit.payload) for transmit in client.sent()], [65507])
        self.assertIs(client.outcome(), large)
        assert isinstance(large.error, DatagramTooLarge)
        self.assertEqual((large.error.size, large.error.limit), (65508, 65507))
        self.assertFalse(fits.done)
        self.assertEqual(client.requester.stats.failed, 1)

    def test_new_addresses(self) -> None:
        """After a new answer of the resolver a waiting request is still answered by whom it was sent to."""
        client = Client(FIRST)
        request = client.call()
        client.resolve(SECOND)
        client.answer(request, peer=FIRST)
        self.assertEqual(client.result(), "ok")
        client.sent()
        client.call()
        self.assertEqual(client.asked(), [SECOND])

    def test_former_address(self) -> None:
        """One that was asked before the resolver's new answer may still answer; nothing is learnt of it any more."""
        client = Client(FIRST)
        request = client.call(idempotent=True)
        client.resolve(SECOND)
        self.assertEqual([transmit.peer for _, transmit in client.run(0.3)], [FIRST, SECOND])
        client.answer(request, "late", peer=FIRST)
        self.assertEqual(client.result(), "late")
        client.call()
        self.assertEqual(client.asked(), [SECOND])


class AnswerTests(SynchronousTestCase):
    """What ends a request, and what does not."""

    def test_result(self) -> None:
        """The response with its msgid from the server is the answer."""
        client = Client(FIRST)
        request = client.call()
        client.answer(request, {"a": [1]})
        self.assertTrue(request.done)
        self.assertEqual(client.result(), {"a": [1]})
        client.sent()
        self.assertTrue(client.is_idle)
        self.assertEqual((client.requester.stats.answered, client.rejected), (1, {}))

    def test_error(self) -> None:
        """An error of our servers or of foreign ones fails the request."""
        client = Client(FIRST)
        for sent, code, message in (
            ({"code": "no", "message": "never"}, "no", "never"),
            ("no method", "", "no method"),
            (False, "", "the server sent the error False"),
        ):
            request = client.call()
            client.receive(encode_response(request.msgid, sent, None))
            error = client.error()
            assert isinstance(error, ErrorReplyReceived)
            self.assertEqual((error.code, error.message), (code, message))
        client.sent()
        self.assertTrue(client.is_idle)
        self.assertEqual((client.requester.stats.errors, client.requester.stats.answered), (3, 0))

    def test_busy(self) -> None:
        """A server that is too busy has not run the request: it is sent again, and the answer may still come."""
        client = Client(FIRST)
        request = client.call()
        busy = encode_response(request.msgid, {"code": "busy", "message": "later"}, None)
        client.sent()
        client.receive(busy)
        self.assertEqual((request.done, client.requester.events(), client.requester.stats.busy), (False, [], 1))
        client.now = client.requester.next_deadline() or 0.0
        client.requester.deadline_reached(now=client.now)
        [again] = client.requester.transmits()
        self.assertEqual(again.payload, request.payload)
        client.answer(request, 5)
        self.assertEqual(client.result(), 5)

    def test_busy_then_an_error(self) -> None:
        """A server that was busy may fail the request after all; a copy of that error is a duplicate, not late."""
        client = Client(FIRST)
        request = client.call()
        for error in ({"code": "busy", "message": "later"}, "bad", "bad"):
            client.receive(encode_response(request.msgid, error, None))
        self.assertIsInstance(client.error(), ErrorReplyReceived)
        stats = client.requester.stats
        self.assertEqual((stats.busy, stats.errors, stats.duplicate, stats.late), (1, 1, 1, 0))

    def test_busy_to_the_end(self) -> None:
        """Where the server stays too busy the deadline ends the request with what the server said."""
        client = Client(FIRST)
        request = client.call(timeout=2.0)
        client.receive(encode_response(request.msgid, {"code": "busy", "message": "later"}, None))
        client.now = request.deadline
        client.requester.deadline_reached(now=client.now)
        error = client.error()
        assert isinstance(error, ErrorReplyReceived)
        self.assertEqual((error.code, client.requester.stats.timed_out), ("busy", 1))
        client.answer(request)
        self.assertEqual((client.requester.stats.late, client.requester.stats.duplicate), (1, 0))

    def test_error_beside_a_result(self) -> None:
        """Where a foreign server sends both the error counts."""
        client = Client(FIRST)
        request = client.call()
        client.receive(encode_response(request.msgid, "bad", "good"))
        self.assertIsInstance(client.error(), ErrorReplyReceived)

    def test_order(self) -> None:
        """Outcomes come in the order in which they happened, not in that of the calls."""
        client = Client(FIRST)
        requests = [client.call() for _ in range(4)]
        for index in (2, 0, 3, 1):
            client.answer(requests[index], index)
        self.assertEqual([request.result for request in client.requester.events()], [2, 0, 3, 1])
        self.assertEqual(client.requester.events(), [])

    def test_other_forms(self) -> None:
        """A msgid in a form that no encoder of ours writes counts as well, and is checked as well."""
        client = Client(FIRST)
        request = client.call()
        foreign = b"\x94\x01\xd2\x00\x00\x00\x01\xc0\x05"
        client.receive(foreign, STRANGER)
        client.receive(b"\x94\x01\xd2\x00\x00\x00\x02\xc0\x05")
        self.assertEqual(client.rejected, {"wrong_peer": 1, "unmatched": 1})
        self.assertFalse(request.done)
        client.receive(foreign)
        self.assertEqual(client.result(), 5)

    def test_response_to_a_raw_echo(self) -> None:
        """The number that a raw echo has in the table is on no wire: a response with it answers nothing."""
        for msgids in (count(1), count(2**16)):  # each of these has its own way through the codec
            client = Client(FIRST, msgids=msgids)
            echo = client.echo(b"raw")
            client.receive(encode_response(echo.msgid, None, "ok"))
            self.assertEqual((client.rejected, echo.done), ({"unmatched": 1}, False))

    def test_dropped(self) -> None:
        """Everything else is counted by its reason and dropped, and the request is answered after all."""
        client = Client(FIRST)
        request = client.call("x")
        echo = client.echo(b"raw")
        response = encode_response(request.msgid, None, "ok")
        for reason, payload, peer in (
            ("wrong_peer", response, STRANGER),
            ("wrong_peer", response, (FIRST[0], FIRST[1] + 1)),
            ("unmatched", encode_response(request.msgid + 100, None, "ok"), FIRST),
            ("unmatched", encode_response(request.msgid + 100, None, {"not": "a scalar"}), FIRST),
            ("unmatched", bytes.fromhex("94 01 cf 00 00 00 00 00 00 0f ff c0 80"), FIRST),  # an id as long as can be
            ("unmatched", encode_response(echo.msgid, None, "ok"), FIRST),
            ("malformed", b"", FIRST),
            ("malformed", b"\xff\xfe", FIRST),
            ("malformed", response[:-1], FIRST),
            ("malformed", response + b"\x00", FIRST),
            ("not_a_response", encode_request(request.msgid, "m", ["y"]), FIRST),
            ("not_a_response", encode_request(request.msgid + 100, "m", ["x"]), FIRST),
            ("not_a_response", request.payload, STRANGER),
            ("not_a_response", encode_notification("m", []), FIRST),
            ("malformed", b"raw", STRANGER),
        ):
            before = client.requester.stats.rejected[reason]
            client.receive(payload, peer)
            self.assertEqual(client.requester.stats.rejected[reason], before + 1, (reason, payload))
            self.assertEqual(client.requester.events(), [])
        self.assertEqual(sum(client.rejected.values()), 15)
        self.assertEqual(len(client.requester), 2)
        client.receive(response)
        self.assertEqual(client.result(), "ok")

    def test_twice(self) -> None:
        """The second of two answers is counted and dropped."""
        client = Client(FIRST)
        request = client.call()
        client.answer(request, 1)
        client.answer(request, 2)
        self.assertEqual(client.result(), 1)
        stats = client.requester.stats
        self.assertEqual((stats.duplicate, stats.late, client.rejected), (1, 0, {}))

    def test_late(self) -> None:
        """An answer after the deadline is counted and dropped."""
        client = Client(FIRST)
        request = client.call(timeout=2.0)
        client.run(2.0)
        self.assertIsInstance(client.error(), RequestTimedOut)
        client.answer(request)
        client.answer(request)
        stats = client.requester.stats
        self.assertEqual((stats.late, stats.duplicate, client.rejected), (2, 0, {}))
        self.assertTrue(client.is_idle)

    def test_after_cancel(self) -> None:
        """An answer after the cancel is counted and dropped."""
        client = Client(FIRST)
        request = client.call()
        client.cancel(request)
        client.answer(request)
        self.assertEqual((client.requester.stats.late, client.rejected, client.requester.events()), (1, {}, []))

    def test_every_asked_address(self) -> None:
        """The answer may come from any address that was asked, and from no other of the server's."""
        client = Client(FIRST, SECOND)
        request = client.call()
        client.answer(request, peer=SECOND)
        self.assertEqual(client.rejected, {"wrong_peer": 1})
        client.refuse(request, FIRST)
        client.answer(request, "from the first", peer=FIRST)
        self.assertEqual(client.result(), "from the first")

    def test_send_failed(self) -> None:
        """A transmit that can never be sent fails its request; one of a notification or of the past fails none."""
        client = Client(FIRST)
        client.call(), client.echo(b"some payload")
        client.requester.send_notification("m", [])
        call, echo, notification = client.sent()
        error = LocalError("no")
        client.requester.send_failed(notification, error, now=client.now)
        self.assertEqual(client.requester.events(), [])
        for transmit in (call, echo):
            client.requester.send_failed(transmit, error, now=client.now)
            self.assertIs(client.error(), error)
            client.requester.send_failed(transmit, error, now=client.now)
        self.assertTrue(client.is_idle)
        self.assertEqual(client.requester.stats.failed, 2)

    def test_send_failed_of_another(self) -> None:
        """One that is but the beginning of what waits is another's; only the very bytes count."""
        client = Client(FIRST)
        echo = client.echo(b"some payload")
        client.requester.send_failed(Transmit(b"some pay", FIRST, 0), LocalError("no"), now=client.now)
        self.assertFalse(echo.done)


class ReflectionTests(SynchronousTestCase):
    """An echo server at the other end."""

    def test_call(self) -> None:
        """A call that comes back fails: no rpc server listens there."""
        client = Client(FIRST)
        request = client.call("x")
        client.receive(request.payload)
        error = client.error()
        assert isinstance(error, PeerReflects)
        self.assertEqual(error.peer, FIRST)
        client.sent()
        self.assertTrue(client.is_idle)
        self.assertEqual(client.requester.stats.failed, 1)

    def test_echo(self) -> None:
        """An echo that comes back is answered with its value, as one that an rpc server answers is."""
        client = Client(FIRST)
        value = {"a": [1.5]}
        request = client.call(value, kind=Kind.ECHO)
        client.receive(request.payload)
        self.assertEqual(client.result(), value)
        request = client.call(value, kind=Kind.ECHO)
        client.answer(request, value)
        self.assertEqual(client.result(), value)
        self.assertEqual(client.requester.stats.answered, 2)

    def test_twice(self) -> None:
        """The second copy is counted and dropped."""
        client = Client(FIRST)
        request = client.call("x", kind=Kind.ECHO)
        client.receive(request.payload)
        client.receive(request.payload)
        self.assertEqual(client.result(), "x")
        self.assertEqual(client.rejected, {"not_a_response": 1})

    def test_raw(self) -> None:
        """A raw echo is answered by its exact bytes, be they empty, random or a message."""
        client = Client(FIRST)
        for payload in (b"", b"a", bytes(range(256)) * 255, encode_response(1, None, 1), encode_request(1, "m", [])):
            request = client.echo(payload)
            self.assertEqual(client.sent(), [Transmit(payload, FIRST, 0)])
            client.receive(payload + b"x")
            self.assertFalse(request.done)
            client.receive(payload)
            self.assertEqual(client.result(), payload)
        self.assertTrue(client.is_idle)

    def test_raw_equals(self) -> None:
        """Equal payloads leave from sockets of their own, and each is answered by what comes to its socket."""
        client = Client(FIRST)
        requests = [client.echo(b"same") for _ in range(3)]
        self.assertEqual([transmit.socket for transmit in client.sent()], [0, 1, 2])
        client.receive(b"same", socket=1)
        self.assertEqual(client.requester.events(), [requests[1]])
        client.receive(b"same", socket=1)
        client.receive(b"same", socket=7)
        self.assertEqual(client.rejected, {"malformed": 2})
        again = client.echo(b"same")
        self.assertEqual(again.socket, 1)
        client.receive(b"same", socket=0)
        client.receive(b"same", socket=2)
        self.assertEqual(client.requester.events(), [requests[0], requests[2]])

    def test_raw_retransmission(self) -> None:
        """A retransmission leaves from the same socket as the first."""
        client = Client(FIRST)
        client.echo(b"same"), client.echo(b"same")
        client.sent()
        self.assertEqual({transmit.socket for _, transmit in client.run(0.3)}, {0, 1})

    def test_raw_and_call(self) -> None:
        """A raw echo of a call's very bytes is answered first, the call's own reflection after it."""
        client = Client(FIRST)
        call = client.call("x")
        echo = client.echo(call.payload)
        client.receive(call.payload)
        self.assertIs(client.outcome(), echo)
        client.receive(call.payload)
        self.assertIsInstance(client.error(), PeerReflects)

    def test_raw_too_large(self) -> None:
        """More than any datagram carries is refused before it is looked at."""
        client = Client()
        self.assertRaises(DatagramTooLarge, client.echo, bytes(65528))
        self.assertTrue(client.is_idle)

    def test_raw_too_many_equals(self) -> None:
        """The 257th of equal payloads is refused, and nothing is left of it."""
        client = Client(FIRST)
        for _ in range(256):
            client.echo(b"same")
        self.assertRaises(TooManyRequests, client.echo, b"same")
        self.assertEqual(len(client.requester), 256)
        self.assertEqual(client.requester.stats.requests, 256)


class ContractTests(SynchronousTestCase):
    """The driving contract: outputs are complete after each input, and a command from an event's receiver is safe."""

    def test_outputs_are_taken_once(self) -> None:
        """What was taken is not there again, and a list once taken does not change any more."""
        client = Client(FIRST)
        client.call()
        taken = client.sent()
        request = client.call()
        self.assertEqual((len(taken), len(client.sent())), (1, 1))
        client.answer(request)
        events = client.requester.events()
        client.requester.close()
        self.assertEqual((len(events), len(client.requester.events())), (1, 1))

    def test_commands_while_events_are_delivered(self) -> None:
        """Every kind of command is safe while the events of a batch are delivered, and no event is lost or doubled."""
        client = Client(FIRST)
        first, second, third = client.call(), client.call(), client.echo(b"a")
        client.answer(first)
        client.answer(second)
        delivered: list[object] = []
        for request in client.requester.events():
            delivered.append(request)
            client.cancel(second)
            client.cancel(third)
            client.requester.send_notification("m", [])
            delivered.append(client.call())
            client.receive(b"garbage")
            client.requester.close()
        self.assertEqual(delivered[0::2], [first, second])
        aborted = client.requester.events()
        self.assertEqual(aborted, delivered[1::2])
        client.sent()
        self.assertTrue(client.is_idle)

    def test_deadlines_while_events_are_delivered(self) -> None:
        """A call made for each of many that time out together is armed, and is not due at once."""
        client = Client(FIRST)
        for _ in range(5):
            client.call(timeout=1.0)
        client.run(1.0)
        for _ in client.requester.events():
            client.call(timeout=1.0)
            due = client.requester.next_deadline()
            assert due is not None
            self.assertTrue(due > client.now)
        self.assertEqual(len(client.requester), 5)

    def test_failures_are_of_the_family(self) -> None:
        """Every outcome that is no result is a TwistedUDPError."""
        client = Client(FIRST)
        client.call(timeout=0.1)
        client.run(0.1)
        client.refuse(client.call())
        client.call()
        client.requester.close()
        for request in client.requester.events():
            self.assertIsInstance(request.error, TwistedUDPError)

    def test_message_types(self) -> None:
        """What is on the wire are the messages of the published specification."""
        client = Client(FIRST)
        client.call(1)
        [transmit] = client.sent()
        self.assertEqual(decode_untrusted(transmit.payload), Request(1, "m", [1]))
        self.assertEqual(decode_untrusted(encode_response(1, None, 2)), Response(1, None, 2))
