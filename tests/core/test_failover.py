"""Servers that do not answer: who is asked instead, from where, and when nobody is asked at all."""

from __future__ import annotations

from typing import TYPE_CHECKING

from twisted.trial.unittest import SynchronousTestCase

from tests.core.driver import FIRST, SECOND, START, STRANGER, THIRD, Client, held
from twistedudp._msgpack import encode_response
from twistedudp.core import LAN, Kind, RequesterSettings
from twistedudp.errors import CircuitOpen, ErrorReplyReceived, PeerUnreachable, RequestTimedOut

if TYPE_CHECKING:
    from twistedudp.address import Address
    from twistedudp.core import PeerStats

ALL = (FIRST, SECOND, THIRD)


class FailoverTestCase(SynchronousTestCase):
    """What the tests have in common."""

    def lose(self, client: Client, count: int = 1, timeout: float = 1.0, peer: Address | None = None) -> None:
        """Make a call that nobody answers, some times in a row."""
        for _ in range(count):
            request = client.call(timeout=timeout)
            if peer is not None:
                self.assertEqual(request.asked, (peer,))
            client.run(timeout)
            self.assertIs(client.outcome(), request)
            self.assertIsInstance(request.error, RequestTimedOut)

    def stats(self, client: Client, address: Address = FIRST) -> PeerStats:
        """Return what is known of one server."""
        [stats] = [peer for peer in client.requester.stats.peers if peer.address == address]
        return stats

    def busy(self, client: Client, msgid: int) -> None:
        """Let the first server be too busy."""
        client.receive(encode_response(msgid, {"code": "busy", "message": "later"}, None))

    def stay_busy(self, client: Client, msgid: int) -> None:
        """Let each try of the only call be answered by "busy", until its deadline."""
        while len(client.requester):
            for _ in client.sent():
                self.busy(client, msgid)
            due = client.requester.next_deadline()
            assert due is not None
            client.now = due
            client.requester.deadline_reached(now=due)


class BreakerTests(FailoverTestCase):
    """A server that does not answer is asked once in each cool-down."""

    def test_opens(self) -> None:
        """After five calls that ran out in a row the sixth fails at once, unsent, and the error says when to ask."""
        client = Client(FIRST)
        self.lose(client, 5)
        error = self.assertRaises(CircuitOpen, client.call)
        self.assertEqual((error.peers, error.retry_in), ((FIRST,), 3.0))
        stats = client.requester.stats
        self.assertEqual((stats.suspended, stats.requests, stats.timed_out), (1, 5, 5))
        self.assertTrue(self.stats(client).circuit_open)
        self.assertTrue(client.is_idle)

    def test_echoes_too(self) -> None:
        """Raw echoes fail in the same way, and leave nothing in their table."""
        client = Client(FIRST)
        self.lose(client, 5)
        self.assertRaises(CircuitOpen, client.echo, b"a")
        self.assertRaises(CircuitOpen, client.call, kind=Kind.ECHO)
        self.assertTrue(client.is_idle)
        self.assertEqual(client.requester.stats.suspended, 2)

    def test_settings(self) -> None:
        """Both numbers can be set; 0 calls mean never."""
        client = Client(FIRST, settings=RequesterSettings(breaker_threshold=2, breaker_cooldown=10.0))
        self.lose(client, 2)
        self.assertEqual(self.assertRaises(CircuitOpen, client.call).retry_in, 10.0)
        client = Client(FIRST, settings=RequesterSettings(breaker_threshold=0))
        self.lose(client, 30)
        client.call()

    def test_one_look_in_each_cool_down(self) -> None:
        """When it is over one call is let through, as long as that takes the next ones fail, and so on."""
        client = Client(FIRST)
        self.lose(client, 5)
        looks = []
        for _ in range(200):
            client.now += 0.1
            client.requester.deadline_reached(now=client.now)
            try:
                client.call(timeout=1.0)
            except CircuitOpen:
                pass
            else:
                looks.append(round(client.now - START - 5.0, 6))
        self.assertEqual(looks, [3.0, 6.0, 9.0, 12.0, 15.0, 18.0])

    def test_an_answer_closes(self) -> None:
        """The answer to that one call closes it, and five more have to run out to open it again."""
        client = Client(FIRST)
        self.lose(client, 5)
        client.now += 3.0
        client.answer(client.call())
        self.assertEqual(client.result(), "ok")
        self.assertFalse(self.stats(client).circuit_open)
        self.lose(client, 4)
        client.call(timeout=1.0)
        client.run(1.0)
        self.assertRaises(CircuitOpen, client.call)

    def test_any_answer_closes(self) -> None:
        """An error, "busy" and a reflection are answers: whatever it said, it is there."""
        for reply in ("bad", {"code": "busy", "message": "later"}):
            client = Client(FIRST)
            self.lose(client, 5)
            client.now += 3.0
            client.receive(encode_response(client.call().msgid, reply, None))
            self.assertFalse(self.stats(client).circuit_open)
        for kind in (Kind.ECHO, Kind.CALL):
            client = Client(FIRST)
            self.lose(client, 5)
            client.now += 3.0
            client.receive(client.call("x", kind=kind).payload)
            self.assertFalse(self.stats(client).circuit_open, kind)

    def test_a_late_answer_closes(self) -> None:
        """An answer that comes after its call has failed closes it as well; a second one of the past does not."""
        client = Client(FIRST)
        answered = client.call()
        client.answer(answered)
        client.outcome()
        self.lose(client, 4)
        late = client.call(timeout=1.0)
        client.run(1.0)
        client.outcome()
        client.answer(answered)
        self.assertRaises(CircuitOpen, client.call)
        client.answer(late, peer=STRANGER)
        self.assertRaises(CircuitOpen, client.call)
        client.answer(late)
        client.call()
        stats = client.requester.stats
        self.assertEqual((stats.late, stats.duplicate, client.rejected), (1, 1, {"wrong_peer": 1}))

    def test_in_a_row(self) -> None:
        """An answer between calls that run out begins the row anew."""
        client = Client(FIRST)
        for _ in range(3):
            self.lose(client, 4)
            client.answer(client.call())
            client.outcome()
        client.call()

    def test_busy_and_then_silence(self) -> None:
        """If a later try was not answered, that one may have run: the call does not say that it has not."""
        client = Client(FIRST)
        request = client.call(timeout=1.0)
        self.busy(client, request.msgid)
        client.run(1.0)
        self.assertIsInstance(client.error(), RequestTimedOut)

    def test_busy_is_no_failure(self) -> None:
        """A call whose tries were all answered "busy" got an answer."""
        client = Client(FIRST, settings=RequesterSettings(breaker_threshold=1))
        for _ in range(10):
            self.stay_busy(client, client.call(timeout=1.0).msgid)
            self.assertIsInstance(client.error(), ErrorReplyReceived)
        self.assertFalse(self.stats(client).circuit_open)

    def test_a_cancel_says_nothing(self) -> None:
        """Nor does a refusal, which is no silence."""
        client = Client(FIRST)
        for _ in range(10):
            client.cancel(client.call())
            client.refuse(client.call())
            self.assertIsInstance(client.error(), PeerUnreachable)
        client.call()

    def test_queued_calls_fail_fast(self) -> None:
        """Calls that wait for their turn fail in the instant in which the circuit opens, with the same error."""
        client = Client(FIRST, settings=RequesterSettings(window=5))
        calls = [client.call(timeout=1.0) for _ in range(5)]
        waiting = [client.call(timeout=60.0) for _ in range(3)]
        client.run(1.0)
        self.assertEqual(client.requester.events(), [*calls, *waiting])
        for request in waiting:
            assert isinstance(request.error, CircuitOpen)
            self.assertEqual((request.error.retry_in, request.attempts), (3.0, 0))
        self.assertEqual(client.requester.stats.suspended, 3)
        self.assertTrue(client.is_idle)

    def test_those_under_way_go_on(self) -> None:
        """Calls that were sent before keep their deadlines, and may be answered."""
        client = Client(FIRST, settings=RequesterSettings(window=100))
        long = client.call(timeout=60.0)
        self.lose(client, 5)
        self.assertRaises(CircuitOpen, client.call)
        self.assertFalse(long.done)
        client.answer(long)
        self.assertEqual(client.result(), "ok")
        client.call()

    def test_a_queued_call_looks(self) -> None:
        """Of calls that wait for another reason when the cool-down is over, one is let through and the others fail."""
        client = Client(FIRST, settings=RequesterSettings(window=1, breaker_threshold=1))
        long = client.call(timeout=60.0)
        client.run(0.0)
        client.requester._dispatch.servers.choose(client.now).breaker.ran_out(client.now - 3.0)  # type: ignore[union-attr]  # it is there
        waiting = [client.call(timeout=2.0) for _ in range(2)]
        client.cancel(long)
        self.assertEqual([transmit.payload for transmit in client.sent()], [waiting[0].payload])
        self.assertIs(client.outcome(), waiting[1])
        self.assertIsInstance(waiting[1].error, CircuitOpen)


class SeveralServersTests(FailoverTestCase):
    """Which of them is asked."""

    def test_sample_of_the_next(self) -> None:
        """The answer of a server that was sent one datagram measures its round trip, whoever was asked before."""
        client = Client(FIRST, SECOND)
        request = client.call()
        client.sent()
        client.now += 0.125
        client.refuse(request, FIRST)
        client.answer(request, peer=SECOND, after=0.5)
        self.assertEqual([peer.round_trip for peer in client.requester.stats.peers], [None, 0.5])

    def test_no_sample_of_several(self) -> None:
        """A server that was asked twice, even with others in between, is not measured by the answer."""
        client = Client(FIRST, SECOND)
        request = client.call(idempotent=True, timeout=60.0)
        client.run(3.5)
        self.assertEqual(request.attempts, 3)
        client.answer(request, peer=FIRST, after=0.5)
        self.assertEqual([peer.round_trip for peer in client.requester.stats.peers], [None, None])

    def test_retries_of_idempotent_calls(self) -> None:
        """Each try goes to the next server, from a fresh socket, with the same bytes; any of them may answer."""
        for answering in ALL:
            client = Client(*ALL)
            request = client.call(idempotent=True)
            sent = [transmit for _, transmit in client.run(0.8)]
            self.assertEqual([transmit.peer for transmit in sent], [FIRST, SECOND, THIRD])
            self.assertEqual({transmit.payload for transmit in sent}, {request.payload})
            self.assertEqual(len({transmit.socket for transmit in sent}), 3)
            self.assertEqual(sent[0].socket, 0)
            client.answer(request, peer=answering)
            self.assertEqual(client.result(), "ok")
            client.call()
            self.assertEqual(client.asked(), [answering])
            client.requester.close()
            client.requester.events()
            self.assertEqual(client.requester.unused_sockets(), [transmit.socket for transmit in sent[1:]])
            self.assertTrue(client.is_idle)

    def test_others_stay(self) -> None:
        """A call that is not idempotent leaves from one socket to one server, whatever is lost."""
        client = Client(*ALL)
        client.call(timeout=10.0)
        sent = {(transmit.peer, transmit.socket) for _, transmit in client.run(10.0)}
        self.assertEqual(sent, {(FIRST, 0)})

    def test_new_calls_follow_the_answers(self) -> None:
        """They go to the server that answered last, as long as it answers."""
        client = Client(*ALL)
        self.lose(client, peer=FIRST)
        self.lose(client, peer=SECOND)
        for _ in range(3):
            request = client.call()
            self.assertEqual(client.sent()[-1].peer, THIRD)
            client.answer(request, peer=THIRD)
            self.assertEqual(client.result(), "ok")

    def test_each_its_own(self) -> None:
        """Round trips, windows and breakers are known of each server apart."""
        client = Client(FIRST, SECOND, settings=RequesterSettings(breaker_threshold=2))
        client.answer(client.call(), after=0.1)
        client.outcome()
        self.lose(client, timeout=2.0, peer=FIRST)
        client.answer(client.call(), peer=SECOND, after=0.5)
        client.outcome()
        first, second = client.requester.stats.peers
        self.assertEqual([round(peer.round_trip or 0.0, 6) for peer in (first, second)], [0.1, 0.5])
        self.assertEqual([peer.window for peer in (first, second)], [2, 4])
        self.lose(client, 2, peer=None)
        self.assertEqual([peer.circuit_open for peer in client.requester.stats.peers], [True, False])

    def test_open_circuits_are_passed_over(self) -> None:
        """New calls and retries leave out a server whose circuit is open; when all are open, calls fail at once."""
        client = Client(*ALL, settings=RequesterSettings(breaker_threshold=1, breaker_cooldown=1000.0))
        self.lose(client, peer=FIRST)
        request = client.call(timeout=4.0, idempotent=True)
        self.assertEqual([transmit.peer for _, transmit in client.run(3.9)], [SECOND, THIRD, SECOND, THIRD])
        client.run(0.1)
        self.assertIs(client.outcome(), request)
        error = self.assertRaises(CircuitOpen, client.call)
        self.assertEqual(error.peers, ALL)
        self.assertTrue(client.is_idle)

    def test_the_only_one_left(self) -> None:
        """Where no other server's circuit is closed an idempotent call is repeated at the one that it went to."""
        client = Client(FIRST, SECOND, settings=RequesterSettings(breaker_threshold=1, breaker_cooldown=1000.0))
        self.lose(client, peer=FIRST)
        client.call(timeout=2.0, idempotent=True)
        sent = [transmit for _, transmit in client.run(1.9)]
        self.assertEqual([transmit.peer for transmit in sent], [SECOND] * 4)
        self.assertEqual(len({transmit.socket for transmit in sent}), 4)

    def test_all_of_them_failed(self) -> None:
        """An idempotent call that ran out counts against every server that it was sent to."""
        client = Client(*ALL, settings=RequesterSettings(breaker_threshold=1))
        client.call(timeout=2.0, idempotent=True)
        client.run(0.3)  # two of them
        client.run(0.1)
        client.requester.deadline_reached(now=START + 2.0)
        self.assertEqual([peer.circuit_open for peer in client.requester.stats.peers], [True, True, False])

    def test_refused_goes_on(self) -> None:
        """A call that is refused goes to the next server from the same socket, idempotent or not, and then stays."""
        for idempotent in (False, True):
            client = Client(FIRST, SECOND)
            request = client.call(timeout=2.0, idempotent=idempotent)
            client.refuse(request)
            sent = client.sent()
            self.assertEqual([(one.peer, one.socket) for one in sent], [(FIRST, 0), (SECOND, 0)])
        client = Client(*ALL)
        client.refuse(client.call())
        sent = [transmit for _, transmit in client.run(2.0)]
        self.assertEqual([transmit.peer for transmit in sent], [FIRST] + [SECOND] * 4)

    def test_both_families(self) -> None:
        """Addresses of both families may stand in one list."""
        client = Client(SECOND, FIRST)
        request = client.call(idempotent=True)
        self.assertEqual([transmit.peer for _, transmit in client.run(0.8)], [SECOND, FIRST, SECOND])
        client.answer(request, peer=FIRST)
        self.assertEqual(client.result(), "ok")

    def test_busy_server_is_left(self) -> None:
        """A server that stayed too busy for a call until its deadline is not the first to be asked by the next one."""
        client = Client(FIRST, SECOND)
        self.stay_busy(client, client.call(timeout=1.0).msgid)
        self.assertIsInstance(client.error(), ErrorReplyReceived)
        client.call()
        self.assertEqual(client.asked(), [SECOND])

    def test_gone_and_back(self) -> None:
        """A call in flight to a server that leaves the list and comes back is answered, and its place is given back."""
        client = Client(FIRST, SECOND)
        request = client.call(timeout=60.0)
        client.resolve(SECOND)
        client.resolve(FIRST, SECOND)
        client.answer(request, after=0.5)
        self.assertEqual(client.result(), "ok")
        self.assertEqual([peer.in_flight for peer in client.requester.stats.peers], [0, 0])

    def test_expiry(self) -> None:
        """After ten minutes without an answer what was known of a server is forgotten."""
        client = Client(FIRST, settings=RequesterSettings(peer_age=600.0))
        client.answer(client.call(), after=0.5)
        client.outcome()
        client.now += 600.0
        client.answer(client.call(), after=0.5)
        client.outcome()
        self.assertEqual(self.stats(client).round_trip, 0.5)
        self.assertLess(self.stats(client).variation, 0.25)
        client.now += 600.1
        client.call(timeout=80.0)
        self.assertEqual((self.stats(client).round_trip, self.stats(client).timeout), (None, None))


class FreshSocketTests(FailoverTestCase):
    """The local sockets of idempotent retries."""

    def test_bound(self) -> None:
        """64 may be open at once; further retries leave from where their request left before, and are counted."""
        client = Client(FIRST, settings=RequesterSettings(window=1000))
        requests = [client.call(number, idempotent=True) for number in range(70)]
        client.sent()
        sockets = [transmit.socket for _, transmit in client.run(0.3)]
        self.assertEqual((len(set(sockets)), sockets.count(0)), (65, 6))
        self.assertEqual((client.requester.stats.retry_ports_short, held(client.requester)["retry sockets"]), (6, 64))
        client.answer(requests[3])
        self.assertEqual(len(client.requester.unused_sockets()), 1)
        client.run(0.5)
        self.assertEqual(
            (client.requester.stats.retry_ports_short, held(client.requester)["retry sockets"]), (6 + 68, 64)
        )

    def test_numbers(self) -> None:
        """No number is used twice, and none is that of a raw echo."""
        client = Client(FIRST)
        seen: list[int] = []
        for _ in range(5):
            client.call(timeout=2.0, idempotent=True)
            seen += [transmit.socket for _, transmit in client.run(2.0)][1:]
            client.requester.events()
            self.assertEqual(client.requester.unused_sockets(), seen[-3:])
            client.receive(encode_response(1, None, 1))
            client.requester._dispatch.servers.choose(client.now)
            client.resolve(SECOND)
            client.resolve(FIRST)
        self.assertEqual(len(set(seen)), len(seen))
        self.assertTrue(min(seen) > 256)

    def test_given_back(self) -> None:
        """However a request ends, its sockets are unused from then on, once, and not sooner."""
        for end in ("answer", "error", "cancel", "refuse", "timeout", "close"):
            client = Client(FIRST)
            request = client.call(idempotent=True)
            sockets = [transmit.socket for _, transmit in client.run(0.8)][1:]
            self.assertEqual(len(sockets), 2)
            self.assertEqual(client.requester.unused_sockets(), [])
            if end == "answer":
                client.answer(request)
            elif end == "error":
                client.receive(encode_response(request.msgid, "bad", None))
            elif end == "cancel":
                client.cancel(request)
            elif end == "refuse":
                client.refuse(request)
            elif end == "timeout":
                sockets += [transmit.socket for _, transmit in client.run(2.0)]
            else:
                client.requester.close()
            self.assertEqual(client.requester.unused_sockets(), sockets, end)
            self.assertEqual(client.requester.unused_sockets(), [])
            client.requester.events()
            self.assertTrue(client.is_idle)

    def test_answers_to_any_socket(self) -> None:
        """An answer counts to whichever socket it comes."""
        client = Client(FIRST)
        for socket in (0, 65536, 99):
            request = client.call(idempotent=True)
            client.run(0.3)
            client.receive(encode_response(request.msgid, None, "ok"), FIRST, socket)
            self.assertEqual(client.result(), "ok")

    def test_refusals_of_the_present_socket(self) -> None:
        """An ICMP error counts for the socket from which the request last left."""
        client = Client(FIRST)
        request = client.call(idempotent=True)
        client.run(0.3)
        client.refuse(request, socket=0)
        self.assertFalse(request.done)
        client.refuse(request)
        self.assertIsInstance(client.error(), PeerUnreachable)

    def test_raw_echoes_stay(self) -> None:
        """A raw echo is known by its socket: it goes round the servers, but leaves from where it left."""
        client = Client(*ALL)
        client.echo(b"same"), client.echo(b"same")
        sent = [transmit for _, transmit in client.run(0.8)]
        self.assertEqual({transmit.socket for transmit in sent}, {0, 1})
        self.assertEqual({transmit.peer for transmit in sent}, set(ALL))

    def test_sockets_of_equal_echoes(self) -> None:
        """One that an equal echo needed is unused when no echo waits on it, unless it is taken again at once."""
        client = Client(FIRST)
        first, second, other, third = client.echo(b"a"), client.echo(b"a"), client.echo(b"b"), client.echo(b"b")
        self.assertEqual([one.socket for one in (first, second, other, third)], [0, 1, 0, 1])
        client.receive(b"a", socket=1)
        self.assertEqual(client.requester.unused_sockets(), [])
        client.receive(b"b", socket=1)
        again = client.echo(b"b")
        self.assertEqual(again.socket, 1)
        self.assertEqual(client.requester.unused_sockets(), [])
        client.receive(b"b", socket=1)
        self.assertEqual(client.requester.unused_sockets(), [1])
        self.assertEqual(client.requester.unused_sockets(), [])
        for data in (b"a", b"b"):
            client.receive(data)
        self.assertEqual((len(client.requester.events()), client.requester.unused_sockets()), (5, []))


class PolicyTests(FailoverTestCase):
    """The bounds of the time between two tries."""

    def test_lan(self) -> None:
        """On a LAN the first retransmission comes after 0.2 s at most, and after 0.05 s where a round trip is known."""
        client = Client(FIRST, settings=RequesterSettings(policy=LAN))
        request = client.call(timeout=60.0)
        times = [round(at, 6) for at, _ in client.run(10.0)]
        self.assertEqual(times, [0.0, 0.2, 0.6, 1.4, 3.0, 6.0, 9.0])
        client.cancel(request)
        client.answer(client.call(), after=0.0001)
        client.outcome(), client.sent()
        client.call(timeout=60.0)
        times = [round(at, 6) for at, _ in client.run(1.0)]
        self.assertEqual(times, [0.0, 0.05, 0.15, 0.35, 0.75])

    def test_lan_share(self) -> None:
        """A short call on a LAN makes four tries as well."""
        client = Client(FIRST, settings=RequesterSettings(policy=LAN))
        client.call(timeout=0.8)
        self.assertEqual([round(at, 6) for at, _ in client.run(0.8)], [0.0, 0.1, 0.3, 0.7])

    def test_numbers(self) -> None:
        """The documented ones."""
        self.assertEqual(tuple(LAN), (0.2, 0.05, 3.0))
        self.assertEqual(tuple(RequesterSettings().policy), (1.0, 0.2, 3.0))
