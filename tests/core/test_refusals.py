"""ICMP errors: hints that can be forged, and what they do to a request."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from tests.core.driver import FIRST, REFUSED, SECOND, STRANGER, THIRD, Client
from twistedudp.core import RequesterSettings, Transmit
from twistedudp.errors import PeerUnreachable, RequestTimedOut


class MatchingTests(SynchronousTestCase):
    """Which errors count at all."""

    def test_whole_quote(self) -> None:
        """One that quotes the whole of a request fails it at once, if there is no other address."""
        client = Client(FIRST)
        client.refuse(client.call("x"))
        error = client.error()
        assert isinstance(error, PeerUnreachable)
        self.assertEqual((error.peer, error.reason), (FIRST, REFUSED))
        client.sent()
        self.assertTrue(client.is_idle)
        self.assertEqual((client.requester.stats.refused, client.rejected), (1, {}))

    def test_cut_quote(self) -> None:
        """A router may quote the first bytes only; those up to the msgid are enough."""
        client = Client(FIRST)
        client.refuse(client.call("some longer text"), quoted=3)
        self.assertIsInstance(client.error(), PeerUnreachable)

    def test_echo(self) -> None:
        """A raw echo is known by its bytes and its socket, whole or cut."""
        client = Client(FIRST)
        for payload, quoted in ((b"", 0), (b"short", 5), (b"a longer payload", 8), (b"a longer payload", 16)):
            client.refuse(client.echo(payload), quoted=quoted)
            self.assertIsInstance(client.error(), PeerUnreachable)
        self.assertEqual(len(client.requester._echoes), 0)

    def test_equal_echoes(self) -> None:
        """Of equal echoes the one fails whose socket is told."""
        client = Client(FIRST)
        first, second = client.echo(b"same"), client.echo(b"same")
        client.refuse(second)
        self.assertIs(client.outcome(), second)
        self.assertFalse(first.done)

    def test_unmatched(self) -> None:
        """Everything that does not quote a waiting request, its peer and its socket is counted and ignored."""
        client = Client(FIRST)
        done, request, echo = client.call(), client.call("some text"), client.echo(b"some payload")
        client.answer(done)
        client.outcome()
        for peer, quoted, socket in (
            (FIRST, b"", 0),
            (FIRST, b"\x94\x00", 0),
            (FIRST, b"nothing of ours", 0),
            (FIRST, done.payload, 0),
            (FIRST, request.payload[:-1] + b"!", 0),
            (FIRST, request.payload, 1),
            (STRANGER, request.payload, 0),
            (FIRST, echo.payload[:7], 0),
            (FIRST, echo.payload, 1),
            (STRANGER, echo.payload, 0),
        ):
            before = client.requester.stats.rejected["unmatched_icmp"]
            client.requester.peer_unreachable(peer, REFUSED, quoted, socket, now=client.now)
            self.assertEqual(client.requester.stats.rejected["unmatched_icmp"], before + 1, (peer, quoted, socket))
        self.assertEqual((client.requester.events(), client.requester.stats.refused), ([], 0))
        self.assertEqual(len(client.requester), 2)

    def test_several_in_a_row(self) -> None:
        """One that quotes several requests which left in one buffer counts for all of them, the last one cut short."""
        client = Client(FIRST)
        calls = [client.call(number, "text") for number in range(4)]
        whole = b"".join(call.payload for call in calls[:3])
        client.refuse_bytes(whole[:-2])
        self.assertEqual(client.requester.events(), calls[:3])
        self.assertEqual({type(call.error) for call in calls[:3]}, {PeerUnreachable})
        self.assertFalse(calls[3].done)
        self.assertEqual((client.requester.stats.refused, client.rejected), (3, {}))

    def test_several_in_a_row_of_one_socket(self) -> None:
        """The row ends where something comes that did not leave from there, or that waits no more."""
        client = Client(FIRST)
        first, done, third = (client.call(number) for number in range(3))
        client.answer(done)
        client.outcome()
        quoted = first.payload + done.payload + third.payload
        client.requester.peer_unreachable(FIRST, REFUSED, quoted, 1, now=client.now)
        self.assertEqual((client.requester.events(), client.rejected), ([], {"unmatched_icmp": 1}))
        client.refuse_bytes(quoted)
        self.assertEqual(client.requester.events(), [first])
        self.assertFalse(third.done)

    def test_row_that_refuses_once(self) -> None:
        """A row that quotes one request twice moves it on once."""
        client = Client(FIRST, SECOND, THIRD)
        request = client.call()
        client.refuse_bytes(2 * request.payload)
        self.assertEqual((client.asked(), client.requester.stats.refused), ([FIRST, SECOND], 1))

    def test_unresolved(self) -> None:
        """A request that was not sent to anybody cannot have been refused."""
        client = Client()
        client.refuse(client.call())
        self.assertEqual((client.rejected, client.requester.events()), ({"unmatched_icmp": 1}, []))

    def test_after_the_outcome(self) -> None:
        """A second error for the same request is counted and ignored."""
        client = Client(FIRST)
        request = client.call()
        client.refuse(request)
        client.refuse(request)
        self.assertIsInstance(client.error(), PeerUnreachable)
        self.assertEqual(client.rejected, {"unmatched_icmp": 1})


class MovingTests(SynchronousTestCase):
    """What a refused request does next."""

    def test_next_address(self) -> None:
        """It goes to the next address at once, with the same bytes, and is answered there."""
        client = Client(FIRST, SECOND)
        request = client.call()
        client.sent()
        client.refuse(request)
        self.assertEqual(client.sent(), [Transmit(request.payload, SECOND, 0)])
        self.assertFalse(request.done)
        client.answer(request, peer=SECOND)
        self.assertEqual(client.result(), "ok")

    def test_new_requests_follow(self) -> None:
        """New requests go to the address that is next, without asking the refusing one again."""
        client = Client(FIRST, SECOND)
        client.refuse(client.call())
        client.sent()
        client.call()
        self.assertEqual(client.asked(), [SECOND])

    def test_all_refuse(self) -> None:
        """It fails when the last address has refused it, with that address's error."""
        client = Client(FIRST, SECOND, THIRD)
        request = client.call()
        for peer in (FIRST, SECOND):
            client.refuse(request, peer)
            self.assertEqual(client.requester.events(), [])
        client.refuse(request, THIRD)
        error = client.error()
        assert isinstance(error, PeerUnreachable)
        self.assertEqual(error.peer, THIRD)
        self.assertEqual(client.asked(), [FIRST, SECOND, THIRD])
        self.assertTrue(client.is_idle)

    def test_all_refuse_from_the_middle(self) -> None:
        """It goes round from wherever it began."""
        client = Client(FIRST, SECOND, THIRD)
        client.answer(client.call(), peer=FIRST)
        client.refuse(client.call())
        client.requester.close()
        client.sent(), client.requester.events()
        request = client.call()
        for peer in (SECOND, THIRD, FIRST):
            self.assertEqual(client.asked(), [peer])
            client.refuse(request, peer)
        self.assertIsInstance(client.error(), PeerUnreachable)

    def test_late_error_of_the_former_address(self) -> None:
        """An error of an address that it has left already does not move it again."""
        client = Client(FIRST, SECOND)
        request = client.call()
        client.sent()
        client.refuse(request, FIRST)
        client.refuse(request, FIRST)
        self.assertEqual(client.asked(), [SECOND])
        self.assertEqual(client.rejected, {"unmatched_icmp": 1})
        self.assertFalse(request.done)

    def test_may_have_run(self) -> None:
        """A call of which an earlier try was not refused may have run there: it goes nowhere else."""
        client = Client(FIRST, SECOND)
        request = client.call()
        client.run(0.3)
        client.refuse(request, FIRST)
        self.assertEqual(client.asked(), [])
        self.assertIsInstance(client.error(), PeerUnreachable)

    def test_no_crowd(self) -> None:
        """What a server refuses does not go to the next one all at once: the window of that one holds, in order."""
        client = Client(FIRST, SECOND, settings=RequesterSettings(window=4))
        calls = [client.call(timeout=60.0) for _ in range(6)]
        self.assertEqual(client.asked(), [FIRST] * 4)
        for call in calls[:4]:
            client.refuse(call, FIRST)
        self.assertEqual(client.asked(), [SECOND] * 4)
        self.assertEqual([peer.in_flight for peer in client.requester.stats.peers], [0, 4])
        waiting = [call for call in calls if call.server is None]
        self.assertEqual(len(waiting), 2)
        [first] = [call for call in calls[:1] if call.server is not None]
        client.answer(first, peer=SECOND)
        [transmit] = client.sent()
        self.assertIn(transmit.payload, [call.payload for call in waiting])
        self.assertEqual(transmit.peer, SECOND)

    def test_waits_where_it_goes(self) -> None:
        """A refused call waits for its turn at the next server, before those that came later, and is answered there."""
        client = Client(FIRST, SECOND, settings=RequesterSettings(window=2))
        calls = [client.call(timeout=60.0) for _ in range(2)]
        client.requester.servers_resolved([SECOND, FIRST], now=client.now)
        others = [client.call(timeout=60.0) for _ in range(3)]
        client.sent()
        client.refuse(calls[0], FIRST)
        client.refuse(calls[1], FIRST)
        self.assertEqual(client.asked(), [])
        client.answer(others[0], peer=SECOND)
        client.answer(others[1], peer=SECOND)
        self.assertEqual({transmit.payload for transmit in client.sent()}, {call.payload for call in calls})
        self.assertEqual(calls[0].asked, (FIRST, SECOND))
        client.answer(calls[0], peer=SECOND)
        self.assertEqual([peer.in_flight for peer in client.requester.stats.peers], [2, 0])

    def test_schedule_goes_on(self) -> None:
        """At the next address it waits as long as it would have at the first."""
        client = Client(FIRST, SECOND)
        request = client.call(timeout=2.0)
        client.sent()
        client.now += 0.01
        client.refuse(request)
        sent = client.run(1.98)
        self.assertEqual([round(at, 6) for at, _ in sent], [0.0, 0.25, 0.75, 1.75])
        self.assertEqual({transmit.peer for _, transmit in sent}, {SECOND})

    def test_deadline_is_the_calls(self) -> None:
        """Moving on does not move the deadline."""
        client = Client(FIRST, SECOND)
        request = client.call(timeout=2.0)
        client.now += 1.95
        client.refuse(request)
        client.run(0.05)
        error = client.error()
        assert isinstance(error, RequestTimedOut)
        self.assertEqual((round(error.elapsed, 6), error.peers), (2.0, (FIRST, SECOND)))

    def test_idempotent_is_not_failed_by_one_address(self) -> None:
        """An address that refuses an idempotent request twice has not refused it for the other one, which is slow."""
        client = Client(FIRST, SECOND)
        request = client.call(timeout=8.0, idempotent=True)
        client.refuse(request, FIRST)
        self.assertEqual(client.asked(), [FIRST, SECOND])
        for _ in range(2):
            if FIRST in [transmit.peer for _, transmit in client.run(2.1)]:
                client.refuse(request, FIRST)
        self.assertEqual(client.requester.events(), [])
        client.answer(request, peer=SECOND)
        self.assertEqual(client.result(), "ok")

    def test_idempotent_all_refuse(self) -> None:
        """When each address has refused an idempotent request it fails."""
        client = Client(FIRST, SECOND)
        request = client.call(idempotent=True)
        client.refuse(request, FIRST)
        client.refuse(request, SECOND)
        self.assertIsInstance(client.error(), PeerUnreachable)

    def test_retry_refused(self) -> None:
        """With that setting it goes on until the deadline, and is answered if the server comes up in time."""
        client = Client(FIRST, settings=RequesterSettings(retry_refused=True))
        request = client.call(timeout=2.0)
        client.refuse(request)
        self.assertEqual(client.requester.events(), [])
        self.assertEqual(client.asked(), [FIRST])
        sent = client.run(1.0)
        self.assertEqual([(round(at, 6), transmit.peer) for at, transmit in sent], [(0.25, FIRST), (0.75, FIRST)])
        client.refuse(request)
        client.answer(request)
        self.assertEqual(client.result(), "ok")
        self.assertEqual(client.requester.stats.refused, 2)

    def test_retry_refused_until_the_deadline(self) -> None:
        """... and times out where it does not."""
        client = Client(FIRST, SECOND, settings=RequesterSettings(retry_refused=True))
        request = client.call(timeout=2.0)
        for peer in (FIRST, SECOND, SECOND):
            client.refuse(request, peer)
        client.run(2.0)
        self.assertIsInstance(client.error(), RequestTimedOut)
