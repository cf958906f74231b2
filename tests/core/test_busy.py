"""A server that is busy and says when to come back: when the client sends again, and what goes on meanwhile."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from twisted.trial.unittest import SynchronousTestCase

from tests.core.driver import FIRST, START, THIRD, Client
from twistedudp._msgpack import encode_response
from twistedudp.core import RequesterSettings
from twistedudp.errors import ErrorReplyReceived, RequestTimedOut

if TYPE_CHECKING:
    from collections.abc import Callable

    from twistedudp.core import PendingRequest


def busy(client: Client, request: PendingRequest, retry_after: object, peer: tuple[str, int] = FIRST) -> None:
    """Let a server say that it is busy."""
    error = {"code": "busy", "message": "later", "data": {"retry_after": retry_after}}
    client.receive(encode_response(request.msgid, error, None), peer)


class ComeBackTests(SynchronousTestCase):
    """When a request is sent again."""

    def times(self, retry_after: object, *, jitter: float = 0.0, timeout: float = 10.0) -> list[float]:
        """Return when a request is sent whose first try is answered busy, and the others not at all."""
        client = Client(FIRST, jitter=jitter)
        request = client.call(timeout=timeout)
        first = client.sent()
        busy(client, request, retry_after)
        return [0.0 for _ in first] + [round(at, 3) for at, _ in client.run(timeout + 1.0)]

    def test_not_before(self) -> None:
        """It is sent again when the server wants it, and from then on in the rhythm of retransmissions."""
        self.assertEqual(self.times(4.0), [0.0, 4.0, 5.0, 7.0])

    def test_jitter(self) -> None:
        """Each client adds up to half of the time, so that those put off together do not come back together."""
        self.assertEqual(self.times(4.0, jitter=0.5)[1], 5.0)
        self.assertEqual(self.times(4.0, jitter=1.0)[1], 6.0)
        self.assertEqual(self.times(8.0, jitter=0.75, timeout=10.0)[1], 9.5, "no more than is left of the call's time")

    def test_floor(self) -> None:
        """A hint may call sooner than the rhythm of retransmissions, but not sooner than any of them may leave."""
        self.assertEqual(self.times(0.5), [0.0, 0.5, 1.5, 3.5, 6.5, 9.5])
        for hint in (0, 0.0, 0.05, 0.199):
            self.assertEqual(self.times(hint)[:3], [0.0, 0.2, 1.2], hint)

    def test_eager_server(self) -> None:
        """A server that always says "at once" gets five tries a second of each call, each for an answer of its own."""
        client = Client(FIRST)
        request = client.call(timeout=10.0)
        tries = len(client.sent())
        for _ in range(1000):
            for _ in range(3):  # as often as it likes
                busy(client, request, 0.0)
            tries += len(client.run(0.0101))
        self.assertLessEqual(tries, 51)

    def test_bad_hints(self) -> None:
        """What is no hint is none: the wrong type, negative, not a number, without end."""
        usual = self.times(None)
        for hint in (-1.0, math.nan, math.inf, -math.inf, "4", True, [4], {"s": 4}, b"4"):
            self.assertEqual(self.times(hint), usual, hint)
        client = Client(FIRST)
        request = client.call(timeout=10.0)
        for data in (None, 4, [4.0], "retry_after", {"retry": 4.0}):
            client.receive(encode_response(request.msgid, {"code": "busy", "message": "later", "data": data}, None))
        self.assertEqual(len(client.run(11.0)), len(usual))

    def test_beyond_the_deadline(self) -> None:
        """Where nothing would be sent any more before the deadline the call fails at once with what the server said."""
        for hint in (10.0, 1e300, 2**64 - 1):
            client = Client(FIRST)
            request = client.call(timeout=10.0)
            busy(client, request, hint)
            error = client.error()
            assert isinstance(error, ErrorReplyReceived)
            self.assertEqual((error.code, error.retry_after), ("busy", float(hint)))
            stats = client.requester.stats
            self.assertEqual((stats.busy, stats.errors, stats.timed_out), (0, 1, 0))
            self.assertIsNone(client.requester.next_deadline())

    def test_again_and_again(self) -> None:
        """Each answer puts it off anew, and the last one is what the call fails with at its deadline."""
        client = Client(FIRST)
        request = client.call(timeout=10.0)
        sent = [START for _ in client.sent()]
        busy(client, request, 3.0)
        while not request.done:
            client.now = client.requester.next_deadline() or 0.0
            client.requester.deadline_reached(now=client.now)
            sent += [client.now for _ in client.sent()]
            busy(client, request, 3.0)
        self.assertEqual([at - START for at in sent], [0.0, 3.0, 6.0, 9.0])
        self.assertEqual(client.now, START + 9.0)
        self.assertIsInstance(client.error(), ErrorReplyReceived)

    def test_lost_after_it(self) -> None:
        """If the try after it gets no answer, the call times out: the server may have run it."""
        client = Client(FIRST)
        busy(client, client.call(timeout=10.0), 4.0)
        client.run(10.0)
        self.assertIsInstance(client.error(), RequestTimedOut)

    def test_answer_meanwhile(self) -> None:
        """An answer that comes all the same, to a copy of the request say, is taken."""
        client = Client(FIRST)
        request = client.call(timeout=10.0)
        busy(client, request, 4.0)
        client.answer(request, 5, after=1.0)
        self.assertEqual(client.result(), 5)
        self.assertEqual(client.requester._servers.stats[0].in_flight, 0)


class ServersTests(SynchronousTestCase):
    """Calls that may go to another server."""

    def test_other_server(self) -> None:
        """An idempotent call goes to a server that has not been asked in its usual rhythm, whatever the first said."""
        client = Client(FIRST, THIRD)
        request = client.call(timeout=10.0, idempotent=True)
        client.sent()
        busy(client, request, 30.0)
        [(at, again)] = client.run(1.5)
        self.assertEqual((again.peer, round(at, 3)), (THIRD, 1.0))
        busy(client, request, 4.0, THIRD)
        self.assertEqual([(round(at, 3), one.peer) for at, one in client.run(5.0)], [(4.0, FIRST)])

    def test_copies(self) -> None:
        """Where another copy may be running somewhere, a hint beyond the deadline ends the tries, not the call."""
        client = Client(FIRST, THIRD)
        request = client.call(timeout=10.0, idempotent=True)
        client.run(1.5)
        busy(client, request, 60.0, THIRD)
        self.assertEqual((client.run(5.0), client.requester.events()), ([], []))
        client.answer(request, "at last")
        self.assertEqual(client.result(), "at last")

    def test_not_idempotent(self) -> None:
        """Any other call stays with its server."""
        client = Client(FIRST, THIRD)
        request = client.call(timeout=10.0)
        client.sent()
        busy(client, request, 4.0)
        self.assertEqual([(round(at, 3), one.peer) for at, one in client.run(4.5)], [(4.0, FIRST)])


class WindowTests(SynchronousTestCase):
    """What a busy method leaves to others."""

    def setUp(self) -> None:
        """Make a client with room for two."""
        self.client = Client(FIRST, settings=RequesterSettings(window=2))

    def in_flight(self) -> int:
        """Return how many requests count as under way."""
        return self.client.requester._servers.stats[0].in_flight

    def test_others_go_on(self) -> None:
        """Requests that were put off take no room, and whoever waited behind them is sent."""
        calls = [self.client.call(timeout=60.0) for _ in range(6)]
        for at in (0, 2):
            self.assertEqual(len(self.client.sent()), 2)
            for request in calls[at : at + 2]:
                busy(self.client, request, 20.0)
        self.assertEqual((len(self.client.sent()), self.in_flight()), (2, 2))
        for request in calls[4:]:
            self.client.answer(request)
        self.assertEqual((len(self.client.requester.events()), self.in_flight()), (2, 0))

    def test_room_again(self) -> None:
        """When they come back they wait for room, before those that have not been sent at all."""
        first, second = [self.client.call(timeout=60.0) for _ in range(2)]
        for request in (first, second):
            busy(self.client, request, 5.0)
        third, fourth, fifth = [self.client.call(timeout=60.0) for _ in range(3)]
        self.client.sent()
        self.client.now = START + 5.0
        self.client.requester.deadline_reached(now=self.client.now)
        late = [one.payload for one in self.client.sent()]
        self.assertEqual(set(late), {third.payload, fourth.payload}, "their own retransmissions")
        self.client.answer(third)
        self.client.answer(fourth)
        came = [one.payload for one in self.client.sent()]
        self.assertEqual(set(came), {first.payload, second.payload})
        self.assertEqual(self.client.requester.stats.retransmitted, 4)
        self.client.answer(first)
        self.assertEqual([one.payload for one in self.client.sent()], [fifth.payload])
        self.client.answer(second)
        self.client.answer(fifth)
        self.assertEqual((self.in_flight(), len(self.client.requester)), (0, 0))

    def test_window_is_kept(self) -> None:
        """To be put off is no loss: the window does not shrink."""
        client = Client(FIRST)
        request = client.call(timeout=60.0)
        before = client.requester._servers.stats[0].window
        busy(client, request, 5.0)
        client.run(5.5)
        self.assertEqual(client.requester._servers.stats[0].window, before)

    def test_any_end(self) -> None:
        """However a call ends that was put off, it has left the window once: cancelled, refused, closed, run out."""
        ends: tuple[Callable[[Client, PendingRequest], object], ...] = (
            Client.cancel,
            Client.refuse,
            lambda client, _: client.requester.close(),
            lambda client, _: client.run(61.0),
        )
        for end in ends:
            self.setUp()
            request = self.client.call(timeout=60.0)
            self.client.sent()
            busy(self.client, request, 30.0)
            self.assertEqual(self.in_flight(), 0)
            end(self.client, request)
            self.assertTrue(request.done)
            self.assertEqual(self.in_flight(), 0)
