"""The window before each server: who leaves at once, who waits for a turn, and what makes room."""

from __future__ import annotations

from typing import TYPE_CHECKING

from twisted.trial.unittest import SynchronousTestCase

from tests.core.driver import FIRST, SECOND, START, Client, held
from twistedudp._msgpack import encode_response
from twistedudp.core import Kind, RequesterSettings, Transmit
from twistedudp.errors import (
    DatagramTooLarge,
    ErrorReplyReceived,
    HostNotFound,
    LocalError,
    PeerReflects,
    PeerUnreachable,
    RequestAborted,
    RequestTimedOut,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from twistedudp.core import PendingRequest


def fixed(window: int, **options: object) -> RequesterSettings:
    """Return settings with a window that does not change, and without a breaker."""
    return RequesterSettings(window=window, breaker_threshold=0, **options)  # type: ignore[arg-type]  # any of them


class QueueTestCase(SynchronousTestCase):
    """What the tests have in common."""

    def sent(self, client: Client) -> list[bytes]:
        """Take the payloads that are to be sent."""
        return [transmit.payload for transmit in client.sent()]

    def in_flight(self, client: Client) -> list[int]:
        """Return how many requests count as in flight, for each server."""
        return [peer.in_flight for peer in client.requester.stats.peers]


class OrderTests(QueueTestCase):
    """Calls beyond the window wait in order."""

    def test_first_window(self) -> None:
        """Four leave at once, the fifth waits and is counted, and leaves when one is answered."""
        client = Client(FIRST)
        calls = [client.call(number) for number in range(6)]
        self.assertEqual(self.sent(client), [call.payload for call in calls[:4]])
        self.assertEqual((client.requester.stats.queued, self.in_flight(client)), (2, [4]))
        self.assertEqual((calls[4].server, calls[4].asked, calls[4].attempts), (None, (), 0))
        client.answer(calls[2])
        self.assertEqual(self.sent(client), [calls[4].payload, calls[5].payload])  # the window has grown to five
        self.assertEqual((self.in_flight(client), client.requester.stats.queued), ([5], 2))

    def test_in_order(self) -> None:
        """The one that has waited longest leaves first; a new one does not overtake it, be it of another kind."""
        client = Client(FIRST, settings=fixed(1))
        first = client.call("first")
        waiting = [client.call(1), client.echo(b"2"), client.call(3, kind=Kind.ECHO), client.call(4, idempotent=True)]
        self.assertEqual(self.sent(client), [first.payload])
        order = []
        for number, request in enumerate([first, *waiting[:-1]]):
            reply = request.payload if request.kind is Kind.RAW else encode_response(request.msgid, None, 1)
            client.receive(reply)
            order += self.sent(client)
            client.call(number, "new")
        self.assertEqual(order, [request.payload for request in waiting])

    def test_not_overtaken_where_there_is_room(self) -> None:
        """A new call waits behind those that wait also if a server is free by now, which they then get first."""
        client = Client(FIRST, SECOND, settings=RequesterSettings(window=1, breaker_threshold=2))
        client.call(timeout=1.0)
        client.run(1.0)
        both = client.call(timeout=1.0, idempotent=True)
        client.run(0.5)
        client.now = both.deadline
        client.requester.deadline_reached(now=client.now)
        # The first one's circuit is open now, the second one's is not; but the first one is preferred.
        running, waiting = client.call("running", timeout=60.0), client.call("waiting", timeout=60.0)
        self.assertEqual((running.asked, waiting.asked), ((SECOND,), ()))
        client.now += 3.0
        new = client.call("new", timeout=60.0)
        self.assertEqual(new.asked, ())
        client.requester.deadline_reached(now=client.now)
        self.assertEqual((waiting.asked, new.asked), ((FIRST,), ()))

    def test_refused_and_no_room_elsewhere(self) -> None:
        """A call that is refused waits for its turn at the next server, before later ones, and gives its place back."""
        client = Client(FIRST, SECOND, settings=fixed(1))
        elsewhere = client.call("elsewhere", timeout=8.0, idempotent=True)
        refused = client.call("refused", timeout=60.0)
        client.run(1.0)  # the first one moves on to the second server
        self.assertEqual((self.in_flight(client), refused.asked), ([1, 1], (FIRST,)))
        later = client.call("later", timeout=60.0)
        client.sent()
        client.refuse(refused)
        self.assertEqual((client.sent(), self.in_flight(client)), ([], [0, 1]))
        client.answer(elsewhere, peer=SECOND)
        self.assertEqual([(one.payload, one.peer) for one in client.sent()], [(refused.payload, SECOND)])
        client.answer(refused, peer=SECOND)
        self.assertEqual(self.sent(client), [later.payload])
        self.assertEqual([request.result for request in client.requester.events()], ["ok", "ok"])

    def test_cancelled_in_the_queue(self) -> None:
        """A call that is cancelled while it waits is never sent; the next one takes its turn."""
        client = Client(FIRST, settings=fixed(1))
        first, second, third, fourth = (client.call(number) for number in range(4))
        client.cancel(second)
        client.cancel(third)
        client.answer(first)
        self.assertEqual(self.sent(client), [first.payload, fourth.payload])
        client.answer(fourth)
        client.requester.events()
        self.assertTrue(client.is_idle)

    def test_cancelled_for_ever(self) -> None:
        """However many are cancelled behind one that waits, the queue does not grow with them."""
        client = Client(FIRST, settings=fixed(1))
        waiting = [client.call("running"), client.call("next")]
        for number in range(5000):
            client.cancel(client.call(number))
        self.assertTrue(len(client.requester._dispatch.queue) <= 1025)
        client.answer(waiting[0])
        self.assertEqual(self.sent(client), [request.payload for request in waiting])

    def test_deadline_runs(self) -> None:
        """The deadline of a waiting call runs; it fails without having been sent, and its error says so."""
        client = Client(FIRST, settings=fixed(1))
        client.call(timeout=60.0)
        waiting = client.call(timeout=2.0)
        client.run(1.999)
        self.assertFalse(waiting.done)
        client.run(0.001)
        error = client.error()
        assert isinstance(error, RequestTimedOut)
        self.assertEqual((error.attempts, round(error.elapsed, 6), error.peers), (0, 2.0, ()))
        self.assertIn("its turn to be sent did not come", str(error))
        self.assertEqual((self.in_flight(client), client.requester.stats.timed_out), ([1], 1))
        self.assertEqual(client.requester.stats.peers[0].circuit_open, False)

    def test_what_is_left(self) -> None:
        """A call that leaves late makes its tries in what is left of its time."""
        client = Client(FIRST, settings=fixed(1))
        first, second = client.call(timeout=60.0), client.call(timeout=2.0)
        client.answer(first, after=1.0)
        client.outcome(), client.sent()
        # A round trip of 1 s is known by now, which says 3 s: later than the deadline.
        self.assertEqual(second.due, START + 2.0)
        client = Client(FIRST, settings=fixed(1))
        first, second = client.call(timeout=60.0), client.call(timeout=2.0)
        client.now += 1.2
        client.cancel(first)
        self.assertEqual([round(at, 6) for at, _ in client.run(2.0)], [0.0, 0.0, 0.1, 0.3, 0.7])
        self.assertIs(client.outcome(), second)

    def test_unresolved(self) -> None:
        """Of the calls made before the address was known as many leave as the window has places."""
        client = Client()
        calls = [client.call(number) for number in range(6)]
        client.resolve(FIRST)
        self.assertEqual(self.sent(client), [call.payload for call in calls[:4]])
        self.assertEqual(client.requester.stats.queued, 0)  # they waited for the name, not for their turn
        client.answer(calls[0])
        self.assertEqual(self.sent(client), [calls[4].payload, calls[5].payload])

    def test_resolution_fails_later(self) -> None:
        """A name server that is gone does not fail the calls that wait for their turn: the address is known."""
        client = Client(FIRST, settings=fixed(1))
        first, second = client.call(1), client.call(2)
        client.requester.resolution_failed(HostNotFound("no.example"))
        self.assertEqual(client.requester.events(), [])
        client.answer(first)
        self.assertEqual(self.sent(client), [first.payload, second.payload])

    def test_too_large_for_the_next_server(self) -> None:
        """One that waited for a server of IPv6 and comes to one of IPv4 that does not carry it fails; others go on."""
        client = Client(SECOND, settings=fixed(1))
        first, large, small = client.call(timeout=60.0), client.echo(bytes(65508)), client.echo(b"small")
        client.resolve(FIRST)
        self.assertEqual(self.sent(client)[1:], [b"small"])
        error = client.error()
        assert isinstance(error, DatagramTooLarge)
        self.assertEqual((error.limit, large.done, client.requester.stats.failed), (65507, True, 1))
        client.receive(b"small")
        client.answer(first, peer=SECOND)
        self.assertEqual(client.requester.events(), [small, first])
        self.assertTrue(client.is_idle)

    def test_close(self) -> None:
        """Those that wait for their turn are aborted as well, and a requester that goes on is none the worse."""
        client = Client(FIRST, settings=fixed(1))
        requests = [client.call(number) for number in range(3)]
        client.requester.close()
        self.assertEqual(client.requester.events(), requests)
        self.assertEqual({type(request.error) for request in requests}, {RequestAborted})
        client.sent()
        self.assertTrue(client.is_idle)
        again = client.call("again")
        self.assertEqual(self.sent(client), [again.payload])


class RoomTests(QueueTestCase):
    """Whatever ends a request makes room for the next one, exactly one."""

    def assertMakesRoom(self, ends: Callable[[Client, PendingRequest], object], *errors: type[Exception]) -> None:
        """Check that one more leaves when one ends; an answer comes with what it does."""
        client = Client(FIRST, settings=fixed(2))
        calls = [client.call(number) for number in range(5)]
        client.sent()
        ends(client, calls[0])
        self.assertEqual(self.sent(client), [calls[2].payload])
        self.assertEqual((calls[0].done, self.in_flight(client)), (True, [2]))
        for request in client.requester.events():
            self.assertIsInstance(request.error, errors)
        ends(client, calls[1])
        self.assertEqual(self.sent(client), [calls[3].payload])
        self.assertEqual(self.in_flight(client), [2])

    def test_answer(self) -> None:
        """An answer, and the second copy of it does not."""

        def twice(client: Client, request: PendingRequest) -> None:
            client.answer(request)
            client.answer(request)
            [done] = client.requester.events()
            self.assertIsNone(done.error)

        self.assertMakesRoom(twice)

    def test_error(self) -> None:
        """An error of the server."""
        self.assertMakesRoom(
            lambda client, request: client.receive(encode_response(request.msgid, "bad", None)), ErrorReplyReceived
        )

    def test_reflection(self) -> None:
        """A call that comes back."""
        self.assertMakesRoom(lambda client, request: client.receive(request.payload), PeerReflects)

    def test_refusal(self) -> None:
        """A refusal."""
        self.assertMakesRoom(lambda client, request: client.refuse(request), PeerUnreachable)

    def test_cancel(self) -> None:
        """A cancel, and a second one does not."""

        def twice(client: Client, request: PendingRequest) -> None:
            client.cancel(request)
            client.cancel(request)

        self.assertMakesRoom(twice)

    def test_send_failed(self) -> None:
        """A datagram that can never be sent."""

        def fail(client: Client, request: PendingRequest) -> None:
            client.requester.send_failed(Transmit(request.payload, FIRST, 0), LocalError("no"), now=client.now)

        self.assertMakesRoom(fail, LocalError)

    def test_timeout(self) -> None:
        """A deadline."""
        client = Client(FIRST, settings=fixed(1))
        client.call(timeout=1.0)
        waiting = client.call(timeout=60.0)
        sent = client.run(1.0)
        self.assertEqual((sent[-1][0], sent[-1][1].payload), (1.0, waiting.payload))
        self.assertIsInstance(client.error(), RequestTimedOut)
        self.assertEqual(self.in_flight(client), [1])

    def test_new_address(self) -> None:
        """A new address, whose window is empty."""
        client = Client(FIRST, settings=fixed(1))
        first, second = client.call(1), client.call(2)
        client.resolve(SECOND)
        self.assertEqual(
            [(one.payload, one.peer) for one in client.sent()], [(first.payload, FIRST), (second.payload, SECOND)]
        )
        self.assertEqual(self.in_flight(client), [1])

    def test_busy_makes_none(self) -> None:
        """A request that the server was too busy for is still in flight."""
        client = Client(FIRST, settings=fixed(1))
        first, _ = client.call(1), client.call(2)
        client.sent()
        client.receive(encode_response(first.msgid, {"code": "busy", "message": "later"}, None))
        self.assertEqual((self.sent(client), self.in_flight(client)), ([], [1]))

    def test_retransmissions_need_none(self) -> None:
        """A retransmission needs no place of its own, and what moves to another server takes its place along."""
        client = Client(FIRST, SECOND, settings=fixed(1))
        client.call(timeout=2.0, idempotent=True)
        client.run(0.0)
        self.assertEqual(self.in_flight(client), [1, 0])
        self.assertEqual(len(client.run(0.3)), 1)
        self.assertEqual(self.in_flight(client), [0, 1])


class CongestionTests(QueueTestCase):
    """The window of a server grows with its answers and shrinks with their absence."""

    def window(self, client: Client) -> float:
        """Return the size of the first server's window."""
        return client.requester.stats.peers[0].window

    def test_slow_start(self) -> None:
        """A window of answers lets twice as many leave."""
        client = Client(FIRST)
        for number in range(100):
            client.call(number, timeout=60.0)
        for size in (4, 8, 16, 32):
            self.assertEqual((self.in_flight(client)[0], self.window(client)), (size, size))
            for transmit in client.sent():
                client.receive(encode_response(int.from_bytes(transmit.payload[2:3], "big"), None, 1))

    def test_one_loss_episode(self) -> None:
        """Requests that left together and are lost together halve it once, not once each."""
        client = Client(FIRST)
        for number in range(4):
            client.answer(client.call(number))
            client.call(number, timeout=60.0)
        client.sent(), client.requester.events()
        size = self.window(client)
        self.assertEqual((size, self.in_flight(client)), (7, [4]))  # the first, that used less than half, did not count
        self.assertEqual(len(client.run(0.3)), 4)
        self.assertEqual(self.window(client), 3.5)
        client.run(0.4)
        self.assertEqual(self.window(client), 2)

    def test_lost_without_a_retransmission(self) -> None:
        """A call that runs out before it is sent again halves it too; one that was sent again has done so before."""
        client = Client(FIRST)
        client.answer(client.call(timeout=60.0), after=1.0)  # the first retransmission is due after 3 s
        client.call(timeout=2.0)
        client.run(2.0)
        self.assertEqual(self.window(client), 2)

    def test_fixed(self) -> None:
        """A window for a network of one's own stays as it is, and lets as many leave."""
        client = Client(FIRST, settings=fixed(100))
        calls = [client.call(number) for number in range(120)]
        self.assertEqual(len(client.sent()), 100)
        for call in calls[:10]:
            client.answer(call)
        client.run(2.0)
        self.assertEqual(self.window(client), 100)
        self.assertTrue(client.requester.next_deadline() is None)
        self.assertEqual(held(client.requester)["queue"], 0)

    def test_each_server_its_own(self) -> None:
        """What is lost on the way to one server does not slow down another."""
        client = Client(FIRST, SECOND)
        client.call(timeout=1.0)
        client.run(1.0)
        client.call(timeout=1.0)
        self.assertEqual([peer.window for peer in client.requester.stats.peers], [2, 4])
        self.assertEqual(self.in_flight(client), [0, 1])
