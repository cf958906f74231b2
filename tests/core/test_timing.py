"""When requests are sent again, where to, and when they fail."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

from twisted.trial.unittest import SynchronousTestCase

from tests.core.driver import FIRST, SECOND, START, THIRD, Client
from twistedudp._msgpack import encode_response
from twistedudp.core import Kind
from twistedudp.errors import RequestTimedOut

if TYPE_CHECKING:
    from twistedudp.core import PendingRequest

JITTERS = (0.0, 0.25, 0.5, 0.999999)


def times(client: Client, seconds: float) -> list[float]:
    """Return the seconds after which datagrams were sent."""
    return [at for at, _ in client.run(seconds)]


class ScheduleTests(SynchronousTestCase):
    """The times of the tries of one call."""

    def assertTimes(self, actual: list[float], expected: list[float]) -> None:
        """Compare times, but for what floats cannot hold."""
        self.assertEqual([round(at, 6) for at in actual], [round(at, 6) for at in expected])

    def test_default_timeout(self) -> None:
        """A call of 2 s makes four tries whatever the jitter: the first wait is stretched, the later ones double."""
        for jitter in JITTERS:
            client = Client(FIRST, jitter=jitter)
            client.call(timeout=2.0)
            first = 0.25 * (1 + jitter / 2)
            self.assertTimes(times(client, 2.0), [0.0, first, first + 0.5, first + 1.5])
            error = client.error()
            assert isinstance(error, RequestTimedOut)
            self.assertEqual((error.attempts, error.elapsed, error.peers), (4, 2.0, (FIRST,)))
            self.assertTrue(client.is_idle)

    def test_a_minute(self) -> None:
        """A call of 60 s doubles from 1 s to 3 s and makes about twenty tries."""
        for jitter in JITTERS:
            client = Client(FIRST, jitter=jitter)
            client.call(timeout=60.0)
            sent = times(client, 60.0)
            first = 1.0 + jitter / 2
            self.assertTimes(sent[:5], [0.0, first, first + 2.0, first + 5.0, first + 8.0])
            waits = {round(later - earlier, 6) for earlier, later in pairwise(sent[2:])}
            self.assertEqual(waits, {3.0})
            self.assertTrue(20 <= len(sent) <= 22, len(sent))
            self.assertIsInstance(client.error(), RequestTimedOut)

    def test_jitter_bounds(self) -> None:
        """The first retransmission is within [RTO, 1.5 RTO]."""
        for jitter in JITTERS:
            client = Client(FIRST, jitter=jitter)
            client.call(timeout=8.0)
            due = client.requester.next_deadline()
            assert due is not None
            self.assertTrue(1.0 <= due - START < 1.5, due)

    def test_measured(self) -> None:
        """Once a round trip is known it rules: SRTT + 4 RTTVAR, doubling from there."""
        client = Client(FIRST)
        request = client.call(timeout=60.0)
        client.answer(request, after=0.1)
        client.outcome(), client.sent()
        client.call(timeout=60.0)
        self.assertTimes(times(client, 5.0), [0.0, 0.3, 0.9, 2.1, 4.5])

    def test_deadline_governs(self) -> None:
        """A call fails at its deadline, not a moment before or after, whatever is due around it."""
        for timeout in (0.001, 0.3, 1.0, 2.0, 7.77):
            client = Client(FIRST)
            request = client.call(timeout=timeout)
            client.run(timeout * 0.999)
            self.assertFalse(request.done)
            due = client.requester.next_deadline()
            self.assertEqual(due, START + timeout)
            client.now = START + timeout
            client.requester.deadline_reached(now=client.now)
            self.assertIsInstance(client.error(), RequestTimedOut)

    def test_too_early(self) -> None:
        """A timer that fires early changes nothing."""
        client = Client(FIRST)
        client.call(timeout=2.0)
        client.sent()
        client.requester.deadline_reached(now=START + 0.2499)
        self.assertEqual((client.sent(), client.requester.events()), ([], []))
        self.assertEqual(client.requester.next_deadline(), START + 0.25)

    def test_too_late(self) -> None:
        """A timer that fires late sends once, and the next wait counts from then."""
        client = Client(FIRST)
        client.call(timeout=4.0)
        client.sent()
        client.requester.deadline_reached(now=START + 2.0)
        self.assertEqual(len(client.sent()), 1)
        self.assertEqual(client.requester.next_deadline(), START + 3.0)

    def test_far_too_late(self) -> None:
        """A timer that fires after the deadline ends the call and sends nothing."""
        client = Client(FIRST)
        client.call(timeout=2.0)
        client.sent()
        client.now = START + 50.0
        client.requester.deadline_reached(now=client.now)
        error = client.error()
        assert isinstance(error, RequestTimedOut)
        self.assertEqual((error.attempts, error.elapsed), (1, 50.0))
        self.assertTrue(client.is_idle)

    def test_many(self) -> None:
        """One deadline serves all requests: the earliest; each is sent at its own times."""
        client = Client(FIRST)
        slow, fast = client.call(timeout=8.0), client.call(timeout=0.8)
        self.assertEqual(client.requester.next_deadline(), START + 0.1)
        sent = client.run(0.8)
        self.assertEqual([transmit.payload == fast.payload for _, transmit in sent], [False, True, True, True, True])
        self.assertIs(client.outcome(), fast)
        self.assertEqual(client.requester.next_deadline(), START + 1.0)
        self.assertFalse(slow.done)

    def test_nothing_waits(self) -> None:
        """Without a waiting request nothing is due."""
        client = Client(FIRST)
        self.assertIsNone(client.requester.next_deadline())
        client.requester.deadline_reached(now=START + 1e6)
        self.assertTrue(client.is_idle)

    def test_answered_is_not_sent_again(self) -> None:
        """After the answer nothing is due any more."""
        client = Client(FIRST)
        client.answer(client.call(), after=0.1)
        client.outcome(), client.sent()
        self.assertTrue(client.is_idle)
        self.assertEqual(client.run(10.0), [])

    def test_shortest_timeouts(self) -> None:
        """A timeout that the clock can hardly tell from nothing ends the call as any other does."""
        for timeout in (1e-300, 1e-13, 2.3e-13, 1e-9):
            client = Client(FIRST)
            client.call(timeout=timeout)
            client.run(1.0)
            self.assertIsInstance(client.error(), RequestTimedOut)
            self.assertTrue(client.is_idle)

    def test_counters(self) -> None:
        """Tries are counted as transmitted, all but the first as retransmitted."""
        client = Client(FIRST)
        client.call(timeout=2.0)
        client.run(2.0)
        stats = client.requester.stats
        self.assertEqual((stats.requests, stats.transmitted, stats.retransmitted, stats.timed_out), (1, 4, 3, 1))


class LearningTests(SynchronousTestCase):
    """What an answer teaches of the round trip."""

    def first_wait(self, client: Client) -> float:
        """Return the wait before the first retransmission of the next long call."""
        request = client.call(timeout=60.0)
        client.cancel(request)
        client.sent()
        return round(request.due - client.now, 6)

    def test_sample(self) -> None:
        """An answer to a single datagram is a sample."""
        client = Client(FIRST)
        client.answer(client.call(), after=0.2)
        self.assertEqual(self.first_wait(client), 0.6)

    def test_error_is_a_sample(self) -> None:
        """An error is an answer too."""
        client = Client(FIRST)
        request = client.call()
        client.now += 0.2
        client.receive(encode_response(request.msgid, "bad", None))
        self.assertEqual(self.first_wait(client), 0.6)

    def test_echoes_are_samples(self) -> None:
        """Reflected bytes are answers too, raw ones and messages."""
        for kind in ("raw", "message"):
            client = Client(FIRST)
            request = client.echo(b"a") if kind == "raw" else client.call(1, kind=Kind.ECHO)
            client.now += 0.2
            client.receive(request.payload)
            self.assertEqual(self.first_wait(client), 0.6, kind)

    def test_karn(self) -> None:
        """The answer to a request that was sent again is no sample, but its backed-off timeout is kept."""
        client = Client(FIRST)
        request = client.call(timeout=60.0)
        client.run(4.0)  # sent at 0, 1 and 3 s; the wait is now 3 s, or 4 s but for the ceiling
        client.answer(request)
        self.assertEqual(self.first_wait(client), 3.0)
        request = client.call(timeout=60.0)
        client.answer(request, after=0.1)
        self.assertEqual(self.first_wait(client), 0.3)

    def test_backed_off_once(self) -> None:
        """The timeout that is kept is that after the last try."""
        client = Client(FIRST)
        request = client.call(timeout=2.0)
        client.run(0.3)
        client.answer(request)
        self.assertEqual(self.first_wait(client), 0.5)

    def test_slow_path_yields_a_sample_at_last(self) -> None:
        """On a path slower than the timeout the kept back-off lets a later call be answered before it is repeated."""
        client = Client(FIRST)
        attempts = []
        for _ in range(4):
            request = client.call(timeout=8.0)
            client.run(1.4)
            client.answer(request)
            attempts.append(request.attempts)
        self.assertEqual(attempts, [2, 1, 1, 1])

    def test_per_address(self) -> None:
        """Each address has its own round trip."""
        client = Client(FIRST, SECOND)
        client.answer(client.call(), after=0.2)
        client.refuse(client.call(timeout=60.0))
        client.requester.close()
        self.assertEqual(self.first_wait(client), 1.0)

    def test_answer_of_a_former_address(self) -> None:
        """An address that the resolver no longer names teaches nothing, but its answer counts."""
        client = Client(FIRST)
        request = client.call()
        client.resolve(SECOND)
        client.answer(request, after=0.2)
        self.assertEqual(client.result(), "ok")
        self.assertEqual(self.first_wait(client), 1.0)


class RetransmissionTests(SynchronousTestCase):
    """Where the later tries go, and with what."""

    def path(self, client: Client, request: PendingRequest, seconds: float) -> list[tuple[str, int]]:
        """Return where a request was sent, having checked that all of the tries have the same bytes.

        Those of an idempotent one leave from a fresh socket each, those of any other from one and the same.
        """
        transmits = [transmit for _, transmit in client.run(seconds)]
        self.assertEqual({transmit.payload for transmit in transmits}, {request.payload})
        sockets = len({transmit.socket for transmit in transmits})
        fresh = request.idempotent and request.kind is not Kind.RAW
        self.assertEqual(sockets, len(transmits) if fresh else 1)
        return [transmit.peer for transmit in transmits]

    def test_same_server(self) -> None:
        """A call goes to the same address again, where the server recognises it."""
        client = Client(FIRST, SECOND)
        self.assertEqual(self.path(client, client.call(), 2.0), [FIRST] * 4)

    def test_idempotent_goes_round(self) -> None:
        """An idempotent one goes round the addresses."""
        client = Client(FIRST, SECOND, THIRD)
        request = client.call(idempotent=True)
        self.assertEqual(self.path(client, request, 2.0), [FIRST, SECOND, THIRD, FIRST])
        error = client.error()
        assert isinstance(error, RequestTimedOut)
        self.assertEqual(error.peers, (FIRST, SECOND, THIRD))

    def test_idempotent_alone(self) -> None:
        """With one address it goes there again."""
        client = Client(FIRST)
        self.assertEqual(self.path(client, client.call(idempotent=True), 2.0), [FIRST] * 4)

    def test_raw_echo_goes_round(self) -> None:
        """A raw echo is idempotent."""
        client = Client(FIRST, SECOND)
        self.assertEqual(self.path(client, client.echo(b"a"), 2.0), [FIRST, SECOND, FIRST, SECOND])

    def test_idempotent_answered_by_the_first(self) -> None:
        """The first address may still answer after the second was asked."""
        client = Client(FIRST, SECOND)
        request = client.call(idempotent=True)
        client.run(0.3)
        client.answer(request, peer=FIRST)
        self.assertEqual(client.result(), "ok")
        client.call()
        self.assertEqual(client.asked(), [FIRST])

    def test_silent_server_is_left(self) -> None:
        """After a call without an answer new ones go to the next address; one that answers is preferred."""
        client = Client(FIRST, SECOND)
        client.call(timeout=1.0)
        client.run(1.0)
        client.outcome()
        request = client.call()
        self.assertEqual(client.asked(), [SECOND])
        client.answer(request, peer=SECOND)
        client.call()
        self.assertEqual(client.asked(), [SECOND])

    def test_silent_together(self) -> None:
        """Many calls that time out together leave the address once, not once each."""
        client = Client(FIRST, SECOND, THIRD)
        for _ in range(5):
            client.call(timeout=1.0)
        client.run(1.0)
        client.call()
        self.assertEqual(client.asked(), [SECOND])
