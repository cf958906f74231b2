"""A server that stops when what runs has been answered; on the simulated network."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred, fail
from twisted.internet.protocol import DatagramProtocol
from twisted.logger import LogLevel, capturedLogs

from tests.simulation import CLIENT, DELAY, PORT, SERVER, Peer, SimulatedTestCase
from twistedudp import UDPServerService, _msgpack
from twistedudp.core._outbox import MAX_OWED
from twistedudp.echo import EchoProtocol
from twistedudp.errors import ErrorReplyReceived, MethodError
from twistedudp.messages import Response
from twistedudp.methods import RPCMethods, method
from twistedudp.protocol import RPCServerProtocol


class Methods(RPCMethods):
    """Methods that the test ends."""

    def __init__(self) -> None:
        self.waiting: list[Deferred[Any]] = []
        self.shared: Deferred[Any] = Deferred()
        self.noticed = 0
        self.ran = 0

    @method
    def wait(self, value: object = None) -> Deferred[object]:
        """Return a Deferred that the test fires."""
        self.waiting.append(Deferred())
        return self.waiting[-1]

    @method(idempotent=True)
    def look(self, value: object = None) -> Deferred[object]:
        """Do the same, without harm when it is done twice."""
        return self.wait(value)

    @method
    def share(self) -> Deferred[object]:
        """Return the same Deferred every time."""
        return self.shared

    @method
    def value(self, value: object) -> object:
        """Return at once."""
        self.ran += 1
        return value

    @method
    def say(self, value: object = None) -> str:
        """Return much."""
        self.ran += 1
        return "x" * 1000

    @method
    def notice(self) -> None:
        """Count."""
        self.noticed += 1


class DrainingTestCase(SimulatedTestCase):
    """A service with :class:`Methods`, and a client."""

    def setUp(self) -> None:
        """Start both."""
        super().setUp()
        self.methods = Methods()
        self.addCleanup(self.stop)
        self.service = self.start(self.methods)
        self.caller = self.client(window=16)
        self.plain = Peer()
        self.sender: Any = self.serve(self.plain, 0, on=self.here)

    def start(self, what: Any, **options: Any) -> UDPServerService:
        """Start a service."""
        service = UDPServerService(self.there, PORT, what, SERVER, **options)
        service.startService()
        return service

    def stop(self) -> None:
        """Stop what the test has left running."""
        self.service.stopService()
        self.advance()

    @property
    def protocol(self) -> RPCServerProtocol:
        """What serves the methods."""
        protocol = self.service.protocol
        assert isinstance(protocol, RPCServerProtocol)
        return protocol

    def send(self, payload: bytes) -> None:
        """Send a datagram of a plain peer's."""
        self.sender.write(payload, (SERVER, PORT))
        self.advance()

    def replies(self) -> list[object]:
        """Return the errors' codes and the results that the plain peer has got since the last look."""
        messages = self.plain.messages
        self.plain.received.clear()
        replies: list[object] = []
        for message in messages:
            assert isinstance(message, Response)
            replies.append(message.error["code"] if isinstance(message.error, dict) else message.result)
        return replies

    def check_stopped(self, stopped: Deferred[None]) -> None:
        """Check that a drain has ended and nothing is left of it."""
        self.assertIsNone(self.successResultOf(stopped))
        self.assertEqual((self.service.address, self.service.running, self.service._draining), (None, 0, None))
        self.assertEqual(self.there.getDelayedCalls(), [])


class DrainTests(DrainingTestCase):
    """From the wish to stop to the stop."""

    def test_idle(self) -> None:
        """Where nothing runs it stops at once, and nothing is said about waiting."""
        self.assertEqual(self.result(self.caller.call("value", 1)), 1)
        with capturedLogs() as events:
            stopped = self.service.drain(60.0)
            self.assertNoResult(stopped)
            self.advance()
        self.check_stopped(stopped)
        self.assertEqual(len([event for event in events if "stopp" in event["log_format"]]), 1)

    def test_answered(self) -> None:
        """What runs is answered, also a Deferred that several have; the last answer ends the drain."""
        calls = [self.caller.call(name, timeout=60.0) for name in ("wait", "wait", "look", "share", "share")]
        self.advance()
        stopped = self.service.drain(60.0)
        self.methods.shared.callback("shared")
        for number, waiting in enumerate(self.methods.waiting):
            self.assertNoResult(stopped)
            self.advance(1.0)
            waiting.callback(number)
        self.advance()
        self.assertEqual([self.result(call) for call in calls], [0, 1, 2, "shared", "shared"])
        self.check_stopped(stopped)

    def test_fails(self) -> None:
        """An error is an answer."""
        call = self.caller.call("wait", timeout=60.0)
        self.advance()
        stopped = self.service.drain(60.0)
        self.methods.waiting[0].errback(MethodError("sold_out", "nothing is left"))
        self.advance()
        self.assertEqual(self.error(call, ErrorReplyReceived).code, "sold_out")
        self.check_stopped(stopped)

    def test_new_requests(self) -> None:
        """They are answered server_stopping, and do not run; notifications are dropped; both are counted."""
        self.send(_msgpack.encode_request(1, "wait", []))
        self.service.drain(60.0)
        for payload in (
            _msgpack.encode_request(2, "value", ["x" * 40]),
            _msgpack.encode_request(3, "look", ["x" * 40]),
            _msgpack.encode_request(4, "no_such_method", []),
            _msgpack.encode_notification("notice", []),
        ):
            self.send(payload)
        self.assertEqual(self.replies(), ["server_stopping"] * 3)
        stats = self.protocol.stats
        self.assertEqual((stats.errors["server_stopping"], stats.rejected["server_stopping"]), (3, 1))
        self.assertEqual((self.methods.ran, self.methods.noticed, len(self.methods.waiting)), (0, 0, 1))

    def test_repeated(self) -> None:
        """A request that was answered gets that answer again; one that runs is answered once, idempotent or not."""
        answered = _msgpack.encode_request(1, "value", [5])
        running = [_msgpack.encode_request(2, "wait", []), _msgpack.encode_request(3, "look", [])]
        for payload in (answered, *running):
            self.send(payload)
        self.assertEqual(self.replies(), [5])
        self.service.drain(60.0)
        for payload in (answered, *running):
            self.send(payload)
        self.assertEqual(self.replies(), [5])
        self.assertEqual((self.methods.ran, len(self.methods.waiting)), (1, 2))
        for waiting in reversed(self.methods.waiting):
            waiting.callback(7)
            self.advance()
        self.assertEqual(self.replies(), [7, 7])

    def test_unproven_addresses(self) -> None:
        """Who has to prove its address before it is sent a large response gets it before the stop, all by itself."""
        call = self.caller.call("wait", timeout=60.0)
        self.advance()
        stopped = self.service.drain(60.0)
        self.methods.waiting[0].callback("x" * 1000)
        self.assertNoResult(stopped)
        self.advance()
        self.assertEqual(self.result(call), "x" * 1000)
        self.assertEqual(self.protocol.stats.proofs, 1)
        self.check_stopped(stopped)

    def test_withheld(self) -> None:
        """So does who could not even be told to: its proof brings one response, its repeated request the other."""
        requests = [_msgpack.encode_request(number, "wait", []) for number in (1, 2)]
        for request in requests:
            self.send(request)
        stopped = self.service.drain(60.0)
        for waiting in self.methods.waiting:
            waiting.callback("x" * 1000)
        self.advance()
        (told,) = self.plain.messages
        assert isinstance(told, Response)
        error: Any = told.error
        self.assertEqual((error["code"], self.protocol.stats.withheld), ("unproven_address", 1))
        self.replies()
        self.send(_msgpack.encode_notification("rpc.prove", [error["data"]]))
        self.assertEqual(self.replies(), ["x" * 1000])
        self.assertNoResult(stopped)
        self.send(requests[told.msgid - 1])
        self.assertEqual(self.replies(), ["x" * 1000])
        self.check_stopped(stopped)

    def test_withheld_before(self) -> None:
        """So does who was told to just before the drain began; the method has run, and must not be run by another."""
        call = self.caller.call("say", timeout=60.0)
        self.advance(1.5 * DELAY)
        stopped = self.service.drain(60.0)
        self.assertNoResult(stopped)
        self.advance()
        self.assertEqual(self.result(call), "x" * 1000)
        self.assertEqual((self.methods.ran, self.protocol.stats.proofs), (1, 1))
        self.check_stopped(stopped)

    def test_withheld_just_before(self) -> None:
        """So does who was told to when its method had run for so long that nothing else came meanwhile."""
        request = _msgpack.encode_request(1, "wait", [])
        self.send(request)
        self.advance(10.0)
        self.methods.waiting[0].callback("x" * 1000)
        stopped = self.service.drain(60.0)
        self.advance()
        (told,) = self.plain.messages
        assert isinstance(told, Response)
        error: Any = told.error
        self.replies()
        self.assertNoResult(stopped)
        self.send(_msgpack.encode_notification("rpc.prove", [error["data"]]))
        self.send(request)
        self.assertEqual(self.replies(), ["x" * 1000])
        self.check_stopped(stopped)

    def test_withheld_long_before(self) -> None:
        """Who was told to and has not come by then does not hold the stop up, however many there are."""
        for number in range(2 * MAX_OWED):
            self.send(_msgpack.encode_request(number, "say", ["x" * 40]))
        self.assertEqual(set(self.replies()), {"unproven_address"})
        self.assertEqual(len(self.protocol._responder._outbox.owed), MAX_OWED)
        self.advance(2.0)
        stopped = self.service.drain(60.0)
        self.advance()
        self.check_stopped(stopped)

    def test_forged_address(self) -> None:
        """A response that nobody comes for does not hold the stop up for longer than the timeout."""
        self.send(_msgpack.encode_request(1, "wait", []))
        stopped = self.service.drain(2.0)
        self.methods.waiting[0].callback("x" * 1000)
        self.advance(1.9)
        self.assertNoResult(stopped)
        self.advance(0.2)
        self.assertEqual(self.replies(), ["unproven_address"])
        self.check_stopped(stopped)

    def test_repeated_from_a_fresh_port(self) -> None:
        """Our client repeats an idempotent call from another port: that does not make it a new one."""
        call = self.caller.call("look", timeout=60.0, idempotent=True)
        self.advance()
        self.service.drain(60.0)
        self.advance(10.0)
        ports = {record.source[1] for record in self.network.trace.select(destination=(SERVER, PORT))}
        self.assertGreater(len(ports), 1)
        self.methods.waiting[0].callback(1)
        self.assertEqual((self.result(call), len(self.methods.waiting)), (1, 1))

    def test_repeated_idempotent_answered(self) -> None:
        """The answer of an idempotent request is not kept: when it is repeated while others run, it is refused."""
        request = _msgpack.encode_request(1, "look", [])
        self.send(request)
        self.send(_msgpack.encode_request(2, "wait", []))
        self.service.drain(60.0)
        self.methods.waiting[0].callback(1)
        self.send(request)
        self.assertEqual(self.replies(), [1, "server_stopping"])

    def test_time_is_over(self) -> None:
        """What still runs after the timeout is answered server_stopping, and the log says so."""
        call = self.caller.call("wait", timeout=60.0)
        self.advance()
        with capturedLogs() as events:
            stopped = self.service.drain(2.0)
            self.advance(1.9)
            self.assertNoResult(stopped)
            self.advance(0.2)
        self.assertEqual(self.error(call, ErrorReplyReceived).code, "server_stopping")
        self.check_stopped(stopped)
        warnings = [event for event in events if event["log_level"] is LogLevel.warn]
        self.assertEqual(
            [event["log_format"].format(**event) for event in warnings],
            ["RPCServerProtocol: what still runs after 2 s is ended"],
        )

    def test_no_time(self) -> None:
        """With a timeout of 0 it stops at once, whatever runs."""
        call = self.caller.call("wait", timeout=60.0)
        self.advance()
        stopped = self.service.drain(0)
        self.advance()
        self.assertEqual(self.error(call, ErrorReplyReceived).code, "server_stopping")
        self.check_stopped(stopped)

    def test_stopped_meanwhile(self) -> None:
        """A stop ends it at once, and whoever waited for the drain is told when the port is free."""
        call = self.caller.call("wait", timeout=60.0)
        self.advance()
        drained = [self.service.drain(60.0), self.service.drain(1.0)]
        stopped: Any = self.service.stopService()
        self.assertNoResult(drained[0])
        self.advance()
        self.assertEqual(self.error(call, ErrorReplyReceived).code, "server_stopping")
        self.successResultOf(stopped)
        for each in drained:
            self.check_stopped(each)

    def test_not_started(self) -> None:
        """Before the start and after the stop there is nothing to wait for."""
        service = UDPServerService(self.there, 0, self.methods, SERVER)
        self.assertIsNone(self.successResultOf(service.drain(5.0)))
        service.startService()
        service.stopService()
        self.advance()
        self.assertIsNone(self.successResultOf(service.drain(5.0)))

    def test_start_again(self) -> None:
        """The same service starts again afterwards, and lets requests in; what it has answered it still knows."""
        self.send(_msgpack.encode_request(1, "value", [5]))
        self.send(_msgpack.encode_request(2, "wait", []))
        self.service.drain(1.0)
        self.advance(1.1)
        self.service.startService()
        self.send(_msgpack.encode_request(1, "value", [5]))
        self.send(_msgpack.encode_request(3, "value", [6]))
        self.assertEqual(self.replies(), [5, "server_stopping", 5, 6])
        self.assertEqual(self.methods.ran, 2)

    def test_wrong_timeout(self) -> None:
        """What is no number of seconds is refused, and the service goes on."""
        for timeout in (-1, float("nan"), float("inf"), "5", None, True):
            wrong: Any = timeout
            self.assertRaises(ValueError, self.service.drain, wrong)
        self.assertEqual(self.result(self.caller.call("value", 1)), 1)

    def test_discovery(self) -> None:
        """A server that stops cannot be found any more, and its discovery port is free at the end."""
        self.service.stopService()
        self.advance()
        self.service = self.start(self.methods, discoverable="kitchen")
        self.send(_msgpack.encode_request(1, "wait", []))
        stopped = self.service.drain(60.0)
        self.advance()
        discovery: Any = self.service._discovery
        self.assertIsNone(discovery._listening)
        self.methods.waiting[0].callback(1)
        self.advance()
        self.check_stopped(stopped)


class ProtocolTests(DrainingTestCase):
    """Protocols of other kinds."""

    def replace(self, protocol: DatagramProtocol) -> None:
        """Serve another protocol."""
        self.service.stopService()
        self.advance()
        self.service = self.start(protocol)

    def test_without_drain(self) -> None:
        """A protocol that knows nothing of it is stopped at once; so is echo."""
        for protocol in (DatagramProtocol(), EchoProtocol()):
            self.replace(protocol)
            stopped = self.service.drain(60.0)
            self.advance()
            self.check_stopped(stopped)

    def test_own(self) -> None:
        """A protocol's own drain is waited for, and one that fails ends the wait as well."""
        for begun in (Deferred[None](), fail(ValueError("mine"))):

            class Own(DatagramProtocol):
                """Has a drain."""

                def drain(self, begun: Deferred[None] = begun) -> Deferred[None]:
                    """Return what the test gave."""
                    return begun

            self.replace(Own())
            stopped = self.service.drain(60.0)
            self.advance()
            if not begun.called:
                self.assertNoResult(stopped)
                begun.callback(None)
                self.advance()
            self.check_stopped(stopped)
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 1)

    def test_from_outside(self) -> None:
        """A request that came by another way is refused in the same way, and one that runs is waited for."""
        protocol = self.protocol
        running = protocol.run_method("wait", [], (CLIENT, 7))
        stopped = self.service.drain(60.0)
        refused = protocol.run_method("value", [1], (CLIENT, 7))
        error: Any = self.failureResultOf(refused, MethodError).value
        self.assertEqual(error.code, "server_stopping")
        self.methods.waiting[0].callback(1)
        self.assertEqual(self.successResultOf(running), 1)
        self.advance()
        self.check_stopped(stopped)
