"""A client's calls over DTLS: what they wait for, where they are repeated, and what they fail with."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from twisted.internet.defer import gatherResults

from tests.secure import Counter, SecureTestCase, world
from tests.simulation import DELAY, PORT, SERVER, Echo
from twistedudp import _client_sessions, errors
from twistedudp.dtls import DTLSClient, DTLSLimits
from twistedudp.echo import EchoProtocol
from twistedudp.impairment import Loss

if TYPE_CHECKING:
    from twisted.internet.defer import Deferred

    from twistedudp.client import UDPClientService
    from twistedudp.testing import SimulatedReactor


class CallTests(SecureTestCase):
    """Calls while all is well."""

    def test_call(self) -> None:
        """A call waits for the handshake, and further ones go through the same session, none of it readable."""
        counter = Counter()
        server = self.secure_server(counter)
        client = self.secure_client()
        self.assertEqual(self.result(client.call("add", 2)), 2)
        self.assertEqual(self.result(gatherResults([client.call("add", 1) for _ in range(20)]))[-1], 22)
        assert server.dtls_stats is not None
        self.assertEqual(server.dtls_stats.opened, 1)
        self.assertEqual(len(self.ports_bound()), 1)
        self.assertFalse([row for row in self.network.trace if b"add" in row.payload])
        self.assertEqual(client.stats.retransmitted, 0)

    def test_everything_else(self) -> None:
        """Notifications, echoes and raw echoes go the same way; equal raw echoes at once are all answered."""
        counter = Counter()
        self.secure_server(counter)
        client = self.secure_client()
        client.notify("add", 5)
        self.advance()
        self.assertEqual(self.result(client.call("look", idempotent=True)), 5)
        self.assertEqual(self.result(client.echo({"a": 1})), {"a": 1})

    def test_echo_server(self) -> None:
        """An echo server serves over DTLS unchanged: values, bytes, and equal bytes at once."""
        server = self.secure_server(EchoProtocol())
        client = self.secure_client()
        self.assertEqual(self.result(client.echo("x")), "x")
        self.assertEqual(self.result(client.echo_bytes(b"bytes")), b"bytes")
        self.assertEqual(self.result(gatherResults([client.echo_bytes(b"same") for _ in range(5)])), [b"same"] * 5)
        self.error(self.settled(client, "add", 1), errors.PeerReflects)
        self.assertEqual(server.protocol.stats.echoed, 8)  # type: ignore[union-attr]  # it is an EchoProtocol

    def settled(self, client: UDPClientService, method: str, parameter: object) -> Deferred[Any]:
        """Make a call and let it end."""
        made = client.call(method, parameter)
        self.advance(100 * DELAY)
        return made

    def test_sizes(self) -> None:
        """What does not fit a record is told: the caller of its call, and by the server of its result."""
        limit = DTLSLimits().mtu - 37
        self.secure_server(Counter())
        client = self.secure_client()
        error = self.error(client.call("echo", "x" * limit), errors.DatagramTooLarge)
        self.assertEqual(error.limit, limit)
        self.assertNotIn("raise max_datagram_size", str(error))
        self.error(client.echo_bytes(b"x" * (limit + 1)), errors.DatagramTooLarge)
        self.error(client.echo_bytes(b""), errors.EncodeError)
        self.assertEqual(len(self.result(client.call("echo", "x" * (limit - 20)))), limit - 20)

    def test_limit_is_dtls(self) -> None:
        """The limit of a call is what a session of those bounds carries."""
        limits = DTLSLimits(mtu=900)
        client = self.secure_client(dtls_limits=limits)
        session = DTLSClient(self.here, (SERVER, PORT), SERVER, world().client_context(), Echo(), limits=limits)
        self.addCleanup(session.stopListening)
        error = self.error(client.call("echo", "x" * 2000), errors.DatagramTooLarge)
        self.assertEqual(error.limit, session.payload_limit)

    def test_large_result(self) -> None:
        """A result that does not fit a record is answered with the error that says so."""
        self.secure_server(Counter(), dtls_limits=DTLSLimits(mtu=400))
        client = self.secure_client()
        error = self.error(self.settled(client, "echo", "x" * 600), errors.ErrorReplyReceived)
        self.assertEqual(error.code, "result_too_large")

    def test_names(self) -> None:
        """The certificate must be for the name that the client was given, not for what that resolves to."""
        self.network.names["server.example"] = (SERVER,)
        self.network.names["wrong.example"] = (SERVER,)
        self.secure_server(Counter())
        self.assertEqual(self.result(self.secure_client("server.example").call("add", 1)), 1)
        wrong = self.secure_client("wrong.example").call("add", 1)
        self.advance(0.5)
        error = self.error(wrong, errors.DTLSHandshakeFailed)
        self.assertEqual(error.reason, "wrong_name")
        self.assertIn("'wrong.example'", str(error))

    def test_several_addresses(self) -> None:
        """Where the first address does not answer, the next one is tried soon, inside the call's time."""
        self.network.reactor("192.0.2.99", silent=True)
        self.network.names["server.example"] = ("192.0.2.99", SERVER)
        server = self.secure_server(Counter())
        client = self.secure_client("server.example", timeout=1.0)
        self.assertEqual(self.result(client.call("add", 1)), 1)
        self.assertEqual(server.dtls_stats.opened if server.dtls_stats else 0, 1)


class FailureTests(SecureTestCase):
    """Handshakes that do not come about."""

    def failed(self, client: UDPClientService, seconds: float = 2.1) -> errors.DTLSHandshakeFailed:
        """Make a call that fails, and return the error."""
        call = client.call("add", 1)
        self.advance(seconds)
        error = self.failureResultOf(call, errors.DTLSHandshakeFailed).value
        assert isinstance(error, errors.DTLSHandshakeFailed)
        return error

    def test_wrong_authority(self) -> None:
        """A server of another authority is refused in the end, sooner than the deadline, and told in plain words."""
        counter = Counter()
        self.secure_server(counter)
        client = self.secure_client(dtls=world().client_context(ca=world().other.certificate), timeout=60.0)
        error = self.failed(client, 1.0)
        self.assertEqual(error.reason, "wrong_ca")
        self.assertIn("authority that is trusted here", str(error))
        self.assertEqual((counter.total, self.ports_bound()), (0, []))

    def test_no_certificate(self) -> None:
        """A server that wants a certificate refuses who has none."""
        counter = Counter()
        self.secure_server(counter, context=world().server_context(client_ca=world().authority.certificate))
        self.assertEqual(self.failed(self.secure_client()).reason, "refused")
        self.assertEqual(counter.total, 0)

    def test_nobody_listens(self) -> None:
        """A port where nobody listens fails a call at once, as without DTLS."""
        self.assertEqual(self.failed(self.secure_client(timeout=60.0), 0.5).reason, "unreachable")

    def test_silence(self) -> None:
        """A server that says nothing fails a call at its deadline, not before and not with the wrong reason."""
        self.peer()
        client = self.secure_client(timeout=2.0)
        call = client.call("add", 1)
        self.advance(1.9)
        self.assertNoResult(call)
        self.advance(0.2)
        error = self.error(call, errors.DTLSHandshakeFailed)
        self.assertEqual(error.reason, "no_answer")
        self.assertIn("does it speak DTLS", str(error))
        self.advance(1.0)
        self.assertEqual(self.ports_bound(), [])  # nobody waits: nothing is tried

    def test_server_comes_later(self) -> None:
        """A call outlasts a server that is not there yet, where refusals are to be outlasted."""
        client = self.secure_client(retry_refused=True, timeout=10.0)
        call = client.call("add", 3)
        self.advance(2.0)
        self.assertNoResult(call)
        self.secure_server(Counter())
        self.assertEqual(self.result(call), 3)

    def test_reason_is_not_stale(self) -> None:
        """What a handshake failed with is not told of another one, later, that just was not answered."""
        client = self.secure_client(timeout=1.0)
        self.assertEqual(self.failed(client).reason, "unreachable")
        self.peer()
        self.assertEqual(self.failed(client).reason, "no_answer")

    def test_stop_while_shaking(self) -> None:
        """A stop during the handshake aborts what waits, at once; the ports are free when its Deferred fires."""
        self.peer()
        client = self.secure_client()
        calls = [client.call("add", 1), client.echo("x"), client.echo_bytes(b"x")]
        self.advance()
        self.assertEqual(len(self.ports_bound()), 1)
        stopped = client.stopService()
        for call in calls:
            self.error(call, errors.RequestAborted)
        self.advance(0.0)
        self.successResultOf(stopped)
        self.assertEqual((self.ports_bound(), self.here.getDelayedCalls()), ([], []))

    def test_stop_with_session(self) -> None:
        """A stop tells the server, which forgets the session; a client that is started again has another."""
        server = self.secure_server(Counter())
        client = self.secure_client()
        for number in (1, 2):
            self.assertEqual(self.result(client.call("add", 1)), number)
            stopped = client.stopService()
            self.advance()
            self.successResultOf(stopped)
            assert server.dtls_stats is not None
            self.assertEqual(server.dtls_stats.ended["closed"], number)
            self.assertEqual((self.ports_bound(), self.here.getDelayedCalls()), ([], []))
            client.startService()

    def test_cancel_while_shaking(self) -> None:
        """A call that is cancelled during the handshake is never sent."""
        counter = Counter()
        self.secure_server(counter)
        client = self.secure_client()
        call = client.call("add", 1)
        call.addErrback(lambda _: None)
        call.cancel()
        self.assertEqual(self.result(client.call("look", idempotent=True)), 0)


class LostSessionTests(SecureTestCase):
    """Servers that have forgotten a session."""

    def setUp(self) -> None:
        """Make a server and a client that have a session."""
        super().setUp()
        self.counter = Counter()
        self.first = self.secure_server(self.counter)
        self.secured = self.secure_client(timeout=4.0)
        self.assertEqual(self.result(self.secured.call("add", 1)), 1)

    def crash(self) -> SimulatedReactor:
        """Have the server die without a word, and another in its place that knows no session."""
        self.there.crash()
        reactor = self.there.restart()
        self.counter = Counter()
        self.second = self.secure_server(self.counter, on=reactor)
        return reactor

    def cut(self, seconds: float) -> None:
        """Let time pass, in which nothing comes from the server."""
        link = self.network.link(self.there, self.here)
        link.add(Loss(1.0))
        self.advance(seconds)
        link.clear()

    def test_idempotent(self) -> None:
        """A call that may run twice is repeated in a new session, inside its time."""
        self.crash()
        self.assertEqual(self.result(self.secured.call("look", idempotent=True)), 0)
        assert self.second.dtls_stats is not None
        self.assertEqual((self.second.dtls_stats.opened, self.counter.looked), (1, 1))
        self.assertEqual(self.result(self.secured.echo("x")), "x")

    def test_not_idempotent(self) -> None:
        """A call that may have run already is not repeated in another session; later ones run there."""
        self.crash()
        lost = self.secured.call("add", 1, timeout=3.0)
        self.advance(1.0)
        self.assertEqual(self.result(self.secured.call("add", 10)), 10)
        self.advance(3.0)
        self.error(lost, errors.RequestTimedOut)
        self.assertEqual(self.counter.total, 10)
        self.advance(1.0)
        self.assertEqual(len(self.ports_bound()), 1)  # the old session went with its last call

    def test_after_quiet(self) -> None:
        """After some time without a call any call is answered: it is sent only when the session was found alive."""
        self.advance(_client_sessions.QUIET + 1.0)
        self.crash()
        self.assertEqual(self.result(self.secured.call("add", 5)), 5)
        self.assertEqual(self.counter.total, 5)

    def test_quiet_and_alive(self) -> None:
        """A session that was only quiet goes on: one round trip more, and no handshake."""
        self.advance(_client_sessions.QUIET + 1.0)
        before = self.network.clock.seconds()
        self.assertEqual(self.result(self.secured.call("add", 5)), 6)
        self.assertLess(self.network.clock.seconds() - before, 5 * DELAY)
        assert self.first.dtls_stats is not None
        self.assertEqual(self.first.dtls_stats.opened, 1)

    def test_closed(self) -> None:
        """A server that stops in order says so: what was under way fails at once with the reason, the rest goes on."""
        waiting = self.secured.call("wait", timeout=60.0)
        self.advance()
        self.first.stopService()
        self.advance()
        self.failureResultOf(waiting, errors.ErrorReplyReceived)  # as it stops, it answers what runs
        self.secure_server(self.counter)
        self.assertEqual(self.result(self.secured.call("add", 1)), 2)

    def test_closed_without_answer(self) -> None:
        """Where the server only closes the session, a call that may have run fails with that, and is not repeated."""
        waiting = self.secured.call("wait", timeout=60.0)
        also = self.secured.call("look", idempotent=True, timeout=60.0)
        self.cut(0.01)
        self.first._dtls._endpoint.close_sessions()  # type: ignore[union-attr]  # it has one
        self.advance()
        error = self.error(waiting, errors.DTLSSessionLost)
        self.assertIn("it may have run", str(error))
        self.assertEqual(self.result(also), 1)
        self.assertEqual(len(self.counter.waiting), 1)

    def test_slow_method(self) -> None:
        """A method that takes long leaves its session alone: it is asked, says that it lives, and stays in use."""
        waiting = self.secured.call("wait", timeout=60.0)
        for _ in range(30):
            self.advance(1.0)
        self.assertEqual(self.result(self.secured.call("add", 1)), 2)
        self.counter.waiting[0].callback("done")
        self.assertEqual(self.result(waiting), "done")
        assert self.first.dtls_stats is not None
        self.assertEqual((self.first.dtls_stats.opened, len(self.counter.waiting)), (1, 1))
        self.assertEqual(self.secured.stats.rejected, {})

    def test_retries_stay(self) -> None:
        """A call whose answer was lost is repeated in its session and runs once; so does one that may run twice."""
        call = self.secured.call("add", 1)
        look = self.secured.call("look", idempotent=True)
        self.cut(0.15)
        self.assertEqual(self.result(call), 2)
        self.assertEqual(self.result(look), 2)
        self.assertEqual(self.counter.total, 2)
        assert self.first.dtls_stats is not None
        self.assertEqual(self.first.dtls_stats.opened, 1)
        self.assertEqual(len(self.ports_bound()), 1)

    def test_server_gone(self) -> None:
        """Where the server is gone for good, calls fail with that at once, as without DTLS."""
        self.there.crash()
        self.there.restart()
        error = self.error_within(self.secured, 0.5)
        self.assertIsInstance(error, errors.PeerUnreachable)
        later = self.error_within(self.secured, 0.5)
        self.assertIsInstance(later, errors.DTLSHandshakeFailed)
        self.assertEqual(getattr(later, "reason", ""), "unreachable")

    def error_within(self, client: UDPClientService, seconds: float) -> BaseException:
        """Make a call that fails soon, and return the error."""
        call = client.call("add", 1, timeout=60.0)
        self.advance(seconds)
        value: BaseException = self.failureResultOf(call).value
        return value

    def test_stop_with_old_session(self) -> None:
        """A stop while an old session waits for its last call ends all, and leaves nothing."""
        self.crash()
        lost = self.secured.call("add", 1, timeout=60.0)
        self.advance(3.0)
        self.assertEqual(len(self.ports_bound()), 2)
        stopped = self.secured.stopService()
        self.error(lost, errors.RequestAborted)
        self.advance()
        self.successResultOf(stopped)
        self.assertEqual((self.ports_bound(), self.here.getDelayedCalls()), ([], []))
