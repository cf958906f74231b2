"""The client proves its address when a server asks for it, without its caller."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from twisted.trial.unittest import SynchronousTestCase

from tests.core.driver import FIRST, START, STRANGER, THIRD, Client
from twistedudp._msgpack import encode_notification, encode_response
from twistedudp.core import Kind, RequesterSettings, Transmit
from twistedudp.core._amplification import unproven_error
from twistedudp.core._proofs import MAX_PROOFS
from twistedudp.errors import ErrorReplyReceived, RequestTimedOut

if TYPE_CHECKING:
    from twistedudp.core import PendingRequest

TOKEN: Final = bytes(range(16))
PROOF: Final = encode_notification("rpc.prove", [TOKEN])


class ProofTests(SynchronousTestCase):
    """One client; what it sends when it is asked to prove its address."""

    def setUp(self) -> None:
        """Make it."""
        self.client = Client(FIRST, THIRD)

    def ask(self, request: PendingRequest, peer: tuple[str, int] = FIRST, token: bytes = TOKEN) -> list[Transmit]:
        """Let a server ask for a proof, and return what is sent then."""
        self.client.receive(unproven_error(request.msgid, token), peer)
        return self.client.sent()

    def test_answered(self) -> None:
        """The token goes back, and the request again, at once, with the same bytes, from the same port."""
        for kind in (Kind.CALL, Kind.ECHO):
            request = self.client.call(kind=kind)
            [first] = self.client.sent()
            self.assertEqual(self.ask(request), [Transmit(PROOF, FIRST, 0), first])
            self.assertEqual(self.client.requester.events(), [])
            self.client.answer(request)
            self.assertEqual(self.client.result(), "ok")
        stats = self.client.requester.stats
        self.assertEqual((stats.unproven, stats.errors, stats.answered, stats.retransmitted), (2, 0, 2, 0))
        self.assertEqual((stats.transmitted, stats.notifications), (6, 0))
        self.assertTrue(self.client.is_idle)

    def test_lost(self) -> None:
        """Each further try of this request has the proof before it; the schedule goes on where it was."""
        request = self.client.call(timeout=2.0)
        self.assertEqual([time for time, _ in self.client.run(0.1)], [0.0])
        again = [Transmit(PROOF, FIRST, 0), Transmit(request.payload, FIRST, 0)]
        self.assertEqual(self.ask(request), again)
        sent = self.client.run(2.0)
        self.assertEqual([transmit for _, transmit in sent], again * (len(sent) // 2))
        self.assertEqual([time for time, _ in sent[::2]], [0.25, 0.75, 1.75])
        self.assertIsInstance(self.client.error(), RequestTimedOut)
        self.assertTrue(self.client.is_idle)

    def test_other_calls(self) -> None:
        """Other calls have none."""
        request = self.client.call()
        self.client.sent()
        self.ask(request)
        other = self.client.call()
        self.assertEqual(self.client.sent(), [Transmit(other.payload, FIRST, 0)])

    def test_again(self) -> None:
        """A server that asks with the same token again is answered at the next try; with another one, at once."""
        request = self.client.call(timeout=2.0)
        self.client.run(0.1)
        self.ask(request)
        for _ in range(20):
            self.assertEqual(self.ask(request), [])
        self.assertEqual([transmit.payload for _, transmit in self.client.run(0.3)], [PROOF, request.payload])
        other = encode_notification("rpc.prove", [bytes(16)])
        self.assertEqual([one.payload for one in self.ask(request, token=bytes(16))], [other, request.payload])
        self.assertEqual(self.client.requester.stats.unproven, 22)

    def test_in_vain(self) -> None:
        """Where no proof is good enough for the server, the call ends with the error, at its deadline."""
        request = self.client.call(timeout=2.0)
        self.client.run(0.1)
        while not request.done:
            self.ask(request)
            self.client.run(0.1)
        error = self.client.error()
        assert isinstance(error, ErrorReplyReceived)
        self.assertEqual((error.code, error.data), ("unproven_address", TOKEN))
        self.assertAlmostEqual(self.client.now, START + 2.0)
        stats = self.client.requester.stats
        self.assertEqual((stats.timed_out, stats.errors, stats.transmitted), (1, 0, 9))
        self.assertTrue(self.client.is_idle)

    def test_silent_afterwards(self) -> None:
        """One that asks once, and then says nothing any more, has not answered."""
        request = self.client.call(timeout=0.1)
        self.client.run(0.095)
        self.assertEqual(len(self.ask(request)), 2)
        self.assertEqual(self.client.run(0.01), [])
        self.assertIsInstance(self.client.error(), RequestTimedOut)

    def test_bounded(self) -> None:
        """A server can ask with eight tokens for one request; then the error is the call's outcome."""
        request = self.client.call(timeout=60.0)
        self.client.sent()
        for number in range(MAX_PROOFS):
            self.assertEqual(len(self.ask(request, token=bytes([number]) * 16)), 2)
        self.assertEqual(self.ask(request), [])
        error = self.client.error()
        assert isinstance(error, ErrorReplyReceived)
        self.assertEqual((error.code, error.data), ("unproven_address", TOKEN))
        self.assertIn("rpc.prove", str(error))
        self.assertEqual((self.client.requester.stats.unproven, self.client.requester.stats.errors), (MAX_PROOFS, 1))
        self.assertTrue(self.client.is_idle)

    def test_no_token(self) -> None:
        """An error without a token is like any other: there is nothing to prove with."""
        for data in (None, b"", bytes(33), "0123456789abcdef", 16, [TOKEN]):
            request = self.client.call()
            self.client.sent()
            error = {"code": "unproven_address", "message": "no", "data": data}
            self.client.receive(encode_response(request.msgid, error, None))
            self.assertEqual(self.client.sent(), [])
            self.assertIsInstance(self.client.error(), ErrorReplyReceived)

    def test_strangers(self) -> None:
        """Nothing is sent to who was not asked, or for a request that does not wait."""
        request = self.client.call()
        self.client.sent()
        self.assertEqual(self.ask(request, STRANGER), [])
        self.client.answer(request)
        self.client.result()
        self.assertEqual(self.ask(request), [])
        stats = self.client.requester.stats
        self.assertEqual((stats.unproven, stats.duplicate, stats.rejected), (0, 1, {"wrong_peer": 1}))

    def test_raw_echo(self) -> None:
        """A raw echo is not concerned, whatever its bytes."""
        request = self.client.echo(unproven_error(7, TOKEN))
        self.client.sent()
        self.client.receive(unproven_error(request.msgid, TOKEN))
        self.assertEqual(self.client.sent(), [])

    def test_fresh_port(self) -> None:
        """A call that is idempotent proves and repeats from the port that it uses now."""
        self.client = Client(FIRST)
        request = self.client.call(timeout=2.0, idempotent=True)
        self.client.run(0.3)
        self.assertNotEqual(request.socket, 0)
        self.assertEqual(
            self.ask(request),
            [Transmit(PROOF, FIRST, request.socket), Transmit(request.payload, FIRST, request.socket)],
        )

    def test_gone_on(self) -> None:
        """One that has gone on to another server waits for that; the proof is not for it."""
        request = self.client.call(timeout=2.0, idempotent=True)
        self.client.run(0.3)
        assert request.server is not None
        self.assertEqual(request.server.address, THIRD)
        self.assertEqual(self.ask(request, FIRST), [])
        self.assertEqual(self.client.requester.stats.unproven, 1)
        self.assertEqual([transmit.payload for transmit in self.ask(request, THIRD)], [PROOF, request.payload])
        [(_, back)] = self.client.run(0.6)
        self.assertEqual((back.payload, back.peer), (request.payload, FIRST))
        self.client.answer(request, peer=FIRST)
        self.assertEqual(self.client.result(), "ok")

    def test_round_trip(self) -> None:
        """The error is the sample of the round trip; what comes after the repeat is none (Karn)."""
        request = self.client.call()
        self.client.sent()
        self.client.now += 0.1
        self.ask(request)
        [peer, _] = self.client.requester.stats.peers
        self.assertAlmostEqual(peer.round_trip or 0.0, 0.1)
        self.client.answer(request, after=0.3)
        self.assertAlmostEqual(self.client.requester.stats.peers[0].round_trip or 0.0, 0.1)

    def test_window(self) -> None:
        """A request that is proven and repeated takes no more room than before."""
        self.client = Client(FIRST, settings=RequesterSettings(window=1))
        request = self.client.call()
        self.client.sent()
        self.ask(request)
        self.assertEqual(self.client.requester.stats.peers[0].in_flight, 1)
        self.client.answer(request)
        self.client.result()
        self.assertTrue(self.client.is_idle)
