"""The protocol that serves methods: results and errors on the wire, who asks, what is logged, and the stop."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from twisted.internet.defer import CancelledError, Deferred, gatherResults, succeed
from twisted.internet.error import MessageLengthError
from twisted.internet.task import deferLater
from twisted.internet.testing import StringTransport

from tests.simulation import CLIENT, CLIENT6, PORT, SERVER, SERVER6, Peer, SimulatedTestCase
from twistedudp import _msgpack, errors
from twistedudp._rate_limit import MAX_LOGGED_FAILURES
from twistedudp.methods import MethodDefinitionError, NoCurrentPeer, RPCMethods, current_peer, method
from twistedudp.probing import check_of
from twistedudp.protocol import RPCServerProtocol

if TYPE_CHECKING:
    from twistedudp.address import Address
    from twistedudp.client import UDPClientService

SECRET = "the password is xyzzy"  # noqa: S105  # what must not get out


class SecretError(Exception):
    """What a method of the user's may raise."""


class Methods(RPCMethods):
    """Methods of every kind."""

    def __init__(self, reactor: Any = None) -> None:
        self.reactor = reactor
        self.waiting: list[Deferred[Any]] = []
        self.cancelled: list[str] = []
        self.shared: Deferred[Any] = Deferred()
        self.ran = 0

    @method
    def value(self, value: object) -> object:
        """Return at once."""
        self.ran += 1
        return value

    @method
    def fired(self, value: object) -> Deferred[object]:
        """Return a Deferred that has fired."""
        return succeed(value)

    @method
    def wait(self) -> Deferred[object]:
        """Return a Deferred that the test fires."""
        self.waiting.append(Deferred(lambda _: self.cancelled.append("wait")))
        return self.waiting[-1]

    @method
    def share(self) -> Deferred[object]:
        """Return the same Deferred every time."""
        return self.shared

    @method
    async def coroutine(self, seconds: float) -> str:
        """Wait a while."""
        await deferLater(self.reactor, seconds)
        return "done"

    @method
    async def stubborn(self) -> str:
        """Return a result even when cancelled."""
        try:
            await self.wait()
        except CancelledError:
            self.cancelled.append("stubborn")
        return "late"

    @method
    async def clumsy(self) -> None:
        """Fail when cancelled."""
        try:
            await self.wait()
        finally:
            raise SecretError(SECRET)

    @method
    def fail(self) -> None:
        """Raise an exception."""
        raise SecretError(SECRET)

    @method
    def leave(self) -> None:
        """Raise what is no Exception."""
        raise SystemExit(SECRET)

    @method
    async def leave_later(self) -> None:
        """Raise it in a coroutine."""
        await deferLater(self.reactor, 0.1)
        raise SystemExit(SECRET)

    @method
    async def fail_later(self) -> None:
        """Raise an exception in a coroutine."""
        await deferLater(self.reactor, 0.1)
        raise SecretError(SECRET)

    @method
    def refuse(self, data: object = None) -> None:
        """Raise an error of its own."""
        raise errors.MethodError("sold_out", "nothing is left", data)

    @method
    def bad(self, kind: str) -> object:
        """Return what cannot be sent."""
        deep: object = 1
        for _ in range(20):
            deep = [deep]
        return {"object": object(), "integer": 2**64, "key": {1: 1}, "large": "x" * 65536, "deep": deep}[kind]

    @method
    def peer(self) -> str:
        """Tell who asks."""
        return str(current_peer())

    @method
    async def peer_later(self, seconds: float) -> list[str]:
        """Tell who asks, before and after waiting."""
        before = str(current_peer())
        await deferLater(self.reactor, seconds)
        return [before, str(current_peer())]

    @method
    def peer_in_a_callback(self) -> Deferred[object]:
        """Ask in a callback, which is too late."""
        self.waiting.append(Deferred())
        return self.waiting[-1].addCallback(lambda _: str(current_peer()))


class ProtocolTestCase(SimulatedTestCase):
    """A server with :class:`Methods`, and a client."""

    options: dict[str, Any] = {}  # noqa: RUF012  # never changed

    def setUp(self) -> None:
        """Start both."""
        super().setUp()
        self.methods = Methods(self.there)
        self.protocol = self.serve_methods(self.methods, **self.options)
        self.caller = self.client()

    def refused(self, name: str, *params: object) -> Any:
        """Return the error with which a call is answered."""
        return self.assertRaises(errors.ErrorReplyReceived, self.result, self.caller.call(name, *params))

    def flush(self) -> list[Any]:
        """Return the logged failures, and forget them."""
        return list(self.flushLoggedErrors())


class ResultTests(ProtocolTestCase):
    """What a method returns."""

    def test_kinds(self) -> None:
        """A value, a Deferred that has fired, one that fires later, a coroutine: all the same to the caller."""
        self.assertEqual(self.result(self.caller.call("value", 1)), 1)
        self.assertEqual(self.result(self.caller.call("fired", [2])), [2])
        later = self.caller.call("wait")
        self.advance()
        self.assertNoResult(later)
        self.methods.waiting[0].callback("three")
        self.assertEqual(self.result(later), "three")
        self.assertEqual(self.result(self.caller.call("coroutine", 0.05)), "done")
        self.assertEqual(self.protocol.stats.responses, 4)
        self.assertEqual(len(self.protocol._unfinished), 0)

    def test_others_go_on(self) -> None:
        """While one method waits, others are answered."""
        slow = self.caller.call("coroutine", 1.0)
        self.assertEqual(self.result(self.caller.call("value", "quick")), "quick")
        self.assertNoResult(slow)
        self.assertEqual(self.result(slow), "done")

    def test_shared_deferred(self) -> None:
        """A method that returns one Deferred for several requests answers each of them with its result."""
        calls = [self.caller.call("share", timeout=0.2) for _ in range(3)]
        self.advance()
        self.methods.shared.callback("shared")
        self.assertEqual(self.result(gatherResults(calls)), ["shared"] * 3)
        self.assertEqual(len(self.protocol._unfinished), 0)

    def test_shared_later(self) -> None:
        """A Deferred that is kept and returned again after it has fired still has its result."""
        for _ in range(3):
            call = self.caller.call("share")
            self.advance()
            if not self.methods.shared.called:
                self.methods.shared.callback("kept")
            self.assertEqual(self.result(call), "kept")

    def test_shared_failure(self) -> None:
        """If it fails, each of the requests has failed."""
        calls = [self.caller.call("share", timeout=0.2) for _ in range(3)]
        self.advance()
        self.methods.shared.errback(errors.MethodError("c", "m"))
        self.advance()
        for call in calls:
            self.assertEqual(self.error(call, errors.ErrorReplyReceived).code, "c")
        self.assertEqual(self.refused("share").code, "c", "it has not become a success meanwhile")

    def test_stats(self) -> None:
        """Requests, notifications, responses and errors are counted."""
        self.result(self.caller.call("value", 1))
        self.refused("refuse")
        self.caller.notify("value", 1)
        self.advance()
        stats = self.protocol.stats
        self.assertEqual((stats.requests, stats.notifications, stats.responses), (2, 1, 1))
        # The error is too large for its request, so that the client had to prove its address first.
        self.assertEqual((stats.errors, stats.proofs), ({"sold_out": 1, "unproven_address": 1}, 1))


class ErrorTests(ProtocolTestCase):
    """How a call that cannot be answered with a result is answered."""

    def test_codes(self) -> None:
        """Each fault has a code of its own, and a text that says what to do."""
        for name, params, code, text in (
            ("nothing", (), "unknown_method", "no method 'nothing'; rpc.methods lists"),
            ("unmarked", (), "unknown_method", "no method 'unmarked'"),
            ("__init__", (), "unknown_method", "no method '__init__'"),
            ("methods.reactor", (), "unknown_method", "no method"),
            ("value", (), "wrong_parameter_count", "value(value: object) -> object was given 0 parameters"),
            ("coroutine", ("x",), "wrong_parameter_type", "parameter seconds: Expected float, got str"),
            ("bad", ("object",), "result_not_encodable", "result: a value of type object"),
            ("bad", ("integer",), "result_not_encodable", "result: an integer must be"),
            ("bad", ("key",), "result_not_encodable", "the keys of a map must be text"),
            ("bad", ("large",), "result_too_large", "more than the limit of 65,507"),
            ("bad", ("deep",), "result_too_large", "nested more than 16 deep"),
        ):
            error = self.refused(name, *params)
            self.assertEqual(error.code, code)
            self.assertIn(text, error.message)
            self.assertIsNone(error.data)

    def test_long_name(self) -> None:
        """Of an unknown name only the beginning is sent back: an error is not larger than need be."""
        error = self.refused("n" * 5000)
        self.assertLess(len(error.message), 200)

    def test_method_error(self) -> None:
        """A MethodError goes to the caller with code, message and data, and not to the log."""
        error = self.refused("refuse", {"left": [0]})
        self.assertEqual((error.code, error.message, error.data), ("sold_out", "nothing is left", {"left": [0]}))
        self.assertEqual(self.log.warnings, [])

    def test_method_error_later(self) -> None:
        """So does one that a Deferred fails with."""
        call = self.caller.call("wait")
        self.advance()
        self.methods.waiting[0].errback(errors.MethodError("c", "m", 1))
        self.advance()
        error = self.error(call, errors.ErrorReplyReceived)
        self.assertEqual((error.code, error.message, error.data), ("c", "m", 1))

    def test_method_error_with_bad_data(self) -> None:
        """Data that cannot be sent is left out; the code arrives all the same."""
        call = self.caller.call("wait")
        self.advance()
        self.methods.waiting[0].errback(errors.MethodError("c", "m", object()))
        self.advance()
        self.assertEqual(self.error(call, errors.ErrorReplyReceived).code, "c")

    def test_exception(self) -> None:
        """An exception is method_failed; its traceback is in the log with the method's name, nothing is on the wire."""
        for name in ("fail", "fail_later"):
            error = self.refused(name)
            self.assertEqual(error.code, "method_failed")
            self.assertEqual(error.message, f"the method {name!r} failed; the server's log says why")
            (failure,) = self.flush()
            self.assertIsInstance(failure.value, SecretError)
            logged = self.log.warnings[-1]
            self.assertIn(f"the method {name!r}, called by {CLIENT}, failed", logged)
            self.assertIn(SECRET, logged)
            self.assertIn("test_protocol.py", logged)
        for record in self.network.trace:
            for secret in (SECRET, "SecretError", "Traceback", "test_protocol"):
                self.assertNotIn(secret.encode(), record.payload)
        self.assertEqual(self.log.events[-1]["log_namespace"], "tests.test_protocol.Methods")

    def test_system_exit(self) -> None:
        """A method that calls sys.exit() fails like any other: it ends neither the server nor keeps its place in it."""
        for name in ("leave", "leave_later"):
            error = self.refused(name)
            self.assertEqual(error.code, "method_failed")
            self.assertEqual(len(self.flush()), 1)
            self.assertEqual(len(self.protocol._responder), 0)

    def test_log_limit(self) -> None:
        """Anybody can call a method that fails: so many tracebacks a minute and no more, the others are counted."""
        for _ in range(MAX_LOGGED_FAILURES + 7):
            self.assertEqual(self.refused("fail").code, "method_failed")
        self.assertEqual(len(self.flush()), MAX_LOGGED_FAILURES)
        self.advance(60.0)
        self.refused("fail")
        self.assertEqual(len(self.flush()), 1)
        self.assertIn("7 failures of methods were not logged", self.log.warnings[-2])
        self.assertEqual(self.protocol.stats.errors["method_failed"], MAX_LOGGED_FAILURES + 8)

    def test_cannot_be_served(self) -> None:
        """A class with a method that cannot be served makes no protocol."""

        class Bad(RPCMethods):
            @method
            def f(self, *, must: int) -> None: ...

        self.assertRaises(MethodDefinitionError, RPCServerProtocol, Bad())


class NotificationTests(ProtocolTestCase):
    """Notifications run and are never answered."""

    def test_run(self) -> None:
        """A notification runs its method, whatever it returns."""
        for name, params in (
            ("value", (1,)),
            ("fired", (1,)),
            ("coroutine", (0.1,)),
            ("wait", ()),
            ("bad", ("large",)),
        ):
            self.caller.notify(name, *params)
        self.advance(1.0)
        self.methods.waiting[0].callback(object())
        self.advance()
        self.assertEqual(self.methods.ran, 1)
        self.assertEqual(len(self.network.trace), 5)
        self.assertEqual(len(self.protocol._responder), 0)

    def test_never_answered(self) -> None:
        """It is not answered whatever goes wrong: no such method, wrong parameters, errors, exceptions."""
        for name, params in (
            ("nothing", ()), ("value", ()), ("coroutine", ("x",)), ("refuse", ()), ("fail", ()), ("fail_later", ()),
        ):  # fmt: skip
            self.caller.notify(name, *params)
        self.advance(1.0)
        self.assertEqual(len(self.network.trace), 6)
        self.assertEqual(len(self.flush()), 2)
        self.assertEqual(self.protocol.stats.errors, {})
        self.assertEqual(len(self.protocol._responder), 0)


class CurrentPeerTests(ProtocolTestCase):
    """Who asks."""

    def test_sync(self) -> None:
        """In a method it is whoever sent the request."""
        asked_by = self.result(self.caller.call("peer"))
        self.assertEqual(asked_by, f"{CLIENT}:{self.ports_bound()[0]}")
        other = self.client(SERVER6)
        self.assertTrue(self.result(other.call("peer")).startswith(f"[{CLIENT6}]:"))
        self.assertEqual(self.result(self.caller.call("peer")), asked_by)

    def test_after_await(self) -> None:
        """In a coroutine it is known after an await as well, though others have asked meanwhile."""
        first = self.caller.call("peer_later", 0.3)
        second = self.client(SERVER6).call("peer_later", 0.1)
        third = self.client().call("peer_later", 0.2)
        peers = self.result(gatherResults([first, second, third]))
        for before, after in peers:
            self.assertEqual(before, after)
        self.assertEqual(len({before for before, _ in peers}), 3)

    def test_outside(self) -> None:
        """After the method has returned nobody asks, nor in the callbacks of a Deferred that it returned."""
        call = self.caller.call("peer_in_a_callback")
        self.advance()
        self.assertRaises(NoCurrentPeer, current_peer)
        self.methods.waiting[0].callback(None)
        self.advance()
        self.assertEqual(self.error(call, errors.ErrorReplyReceived).code, "method_failed")
        (failure,) = self.flush()
        self.assertIsInstance(failure.value, NoCurrentPeer)

    def test_after_a_failure(self) -> None:
        """A method that raises leaves nobody behind."""
        self.refused("fail")
        self.flush()
        self.assertRaises(NoCurrentPeer, current_peer)


class BusyTests(ProtocolTestCase):
    """No more than so many requests run at once, and none waits because of another method."""

    options = {"max_running": 2, "prove_addresses": False}  # noqa: RUF012  # never changed

    def setUp(self) -> None:
        """Start a client in which no call waits for the turn of another."""
        super().setUp()
        self.caller = self.client(window=64)

    def test_busy(self) -> None:
        """One request more is answered busy and not run; a notification more is dropped and counted."""
        waiting = [self.caller.call("wait", timeout=60.0) for _ in range(2)]
        self.advance()
        error = self.refused("wait")
        self.assertEqual(error.code, "busy")
        self.assertIn("2 requests are running", error.message)
        self.caller.notify("wait")
        self.advance()
        self.assertEqual(len(self.methods.waiting), 2)
        self.assertEqual(self.protocol.stats.rejected, {"busy": 1})
        self.methods.waiting[0].callback(1)
        self.assertEqual(self.result(waiting[0]), 1)
        waiting[0] = self.caller.call("wait")
        self.advance()
        self.methods.waiting[2].callback(2)
        self.assertEqual(self.result(waiting[0]), 2)
        self.methods.waiting[1].callback(1)
        self.result(waiting[1])

    def test_others(self) -> None:
        """At the bound a method that holds no slot still runs: one that returns at once, a built-in, a first run."""
        waiting = [self.caller.call("wait", timeout=60.0) for _ in range(2)]
        self.advance()
        self.assertEqual(self.result(self.caller.call("value", 1)), 1)
        self.assertEqual(self.result(self.caller.echo("still here")), "still here")
        self.assertEqual(self.refused("nothing").code, "unknown_method")
        self.assertEqual(self.result(self.caller.call("fired", 2)), 2)
        first, second = self.caller.call("coroutine", 0.5), self.caller.call("coroutine", 0.5, timeout=0.3)
        self.assertEqual(self.error_of(second).code, "busy")
        self.assertEqual(self.result(first), "done")
        for deferred in self.methods.waiting:
            deferred.callback(None)
        self.result(gatherResults(waiting))

    def error_of(self, call: Deferred[Any]) -> Any:
        """Return the error that a server sends to a call under way."""
        return self.assertRaises(errors.ErrorReplyReceived, self.result, call)

    def test_hint(self) -> None:
        """It says when to come back: the mean time of the latest runs, or half that of the oldest which goes on."""
        self.result(self.caller.call("coroutine", 1.0))
        waiting = [self.caller.call("coroutine", 9.0, timeout=60.0) for _ in range(2)]
        self.advance()
        error = self.error_of(self.caller.call("coroutine", 9.0, timeout=0.5))
        self.assertApproximates(error.retry_after, 1.0, 0.01)
        self.advance(6.0)
        error = self.error_of(self.caller.call("coroutine", 9.0, timeout=0.5))
        self.assertApproximates(error.retry_after, 3.0, 0.1)
        self.result(gatherResults(waiting))
        slots = self.protocol._responder.slots
        self.assertEqual((slots.held("coroutine"), slots.full), (0, set()))

    def test_comes_back(self) -> None:
        """A caller of ours comes back when it was told to, and is answered if that is within its deadline."""
        waiting = [self.caller.call("coroutine", 3.0, timeout=60.0) for _ in range(2)]
        self.advance(2.9)
        before = self.protocol.stats.errors["busy"]
        call = self.caller.call("coroutine", 0.1, timeout=3.0)
        self.assertEqual(self.result(call), "done")
        self.assertEqual(self.protocol.stats.errors["busy"] - before, 1)
        self.result(gatherResults(waiting))

    def test_stop(self) -> None:
        """A stop gives all slots back."""
        waiting = [self.caller.call(name, timeout=60.0) for name in ("wait", "stubborn")]
        self.advance()
        self.methods.waiting[0].addErrback(lambda _: None)
        port: Any = self.protocol.transport
        port.stopListening()
        self.advance()
        for call in waiting:
            self.assertEqual(self.error(call, errors.ErrorReplyReceived).code, "server_stopping")
        slots = self.protocol._responder.slots
        self.assertEqual((slots.held("wait"), slots.held("stubborn")), (0, 0))


class UntrustedTests(ProtocolTestCase):
    """Datagrams that are no requests: counted, dropped, never answered."""

    def send(self, payload: bytes, addr: Address | None = None) -> None:
        """Hand the server a datagram."""
        self.protocol.datagramReceived(payload, addr or (CLIENT, 4000))
        self.advance()

    def test_never_answered(self) -> None:
        """Malformed ones, responses, and whatever comes from source port 0."""
        request = _msgpack.encode_request(1, "value", [1])
        for reason, payload, port in (
            ("malformed", b"", 4000),
            ("malformed", b"hello", 4000),
            ("malformed", request[:-1], 4000),
            ("malformed", request + b"\0", 4000),
            ("malformed", b"\x94\x00\x01\xa5value" + b"\x91" * 1025, 4000),
            ("malformed", b"\x94\x00\x01\xa5value\xdd\xff\xff\xff\xff", 4000),
            ("not_a_request", _msgpack.encode_response(1, None, 1), 4000),
            ("source_port_zero", request, 0),
            ("too_large", _msgpack.encode_request(1, "value", ["x" * 8192]), 4000),
        ):
            before = self.protocol.stats.rejected[reason]
            self.send(payload, (CLIENT, port))
            self.assertEqual(self.protocol.stats.rejected[reason], before + 1, payload[:20])
        self.assertEqual((len(self.network.trace), self.methods.ran), (0, 0))
        self.assertEqual(self.log.warnings, [])
        self.assertEqual(self.result(self.caller.call("value", "still here")), "still here")

    def test_group(self) -> None:
        """Nor is a request to a broadcast address run; a notification is, and who asks directly is answered."""
        broadcast = "255.255.255.255"
        sender = self.here.listenUDP(0, Peer(), "", 65535)
        self.addCleanup(sender.stopListening)
        sender.setBroadcastAllowed(True)
        for payload in (
            _msgpack.encode_request(1, "value", [1]),
            b"garbage",
            _msgpack.encode_notification("value", []),
        ):
            sender.write(payload, (broadcast, PORT))
        self.advance()
        self.assertEqual(self.protocol.stats.rejected, {"to_group": 2})
        self.assertEqual((self.methods.ran, self.protocol.stats.notifications), (0, 1))
        sender.write(_msgpack.encode_notification("value", [1]), (broadcast, PORT))
        sender.write(_msgpack.encode_request(1, "value", [1]), (SERVER, PORT))
        self.advance()
        self.assertEqual((self.methods.ran, self.protocol.stats.responses), (2, 1))

    def test_largest(self) -> None:
        """A request of exactly the largest size is taken."""
        request = _msgpack.encode_request(1, "value", ["x" * 8000])
        self.send(_msgpack.encode_request(1, "value", ["x" * (8000 + 8192 - len(request))]))
        self.assertEqual(self.protocol.stats.requests, 1)

    def test_repeated_request(self) -> None:
        """A request that comes twice from one port runs once and is answered twice."""
        for _ in range(2):
            self.send(_msgpack.encode_request(1, "value", [1]))
        stats = self.protocol.stats
        self.assertEqual((self.methods.ran, stats.responses, stats.repeated), (1, 1, 1))


class FailingTransport(StringTransport):
    """A transport that cannot send."""

    def __init__(self, fault: Exception) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # Twisted has no annotation here
        self.fault = fault

    def write(self, data: bytes, addr: Address | None = None) -> None:
        """Fail."""
        raise self.fault


class TransportTests(ProtocolTestCase):
    """The port's part."""

    def test_cannot_send(self) -> None:
        """A response that cannot be sent is counted: it is the caller's to ask again."""
        protocol = RPCServerProtocol(Methods())
        for msgid, fault in enumerate((OSError("no buffer space"), MessageLengthError("too long"))):
            transport: Any = FailingTransport(fault)
            protocol.transport = transport
            protocol.datagramReceived(_msgpack.encode_request(msgid, "value", [1]), (CLIENT, 4000))
        self.assertEqual((protocol.stats.rejected["send_failed"], protocol.stats.responses), (2, 2))

    def test_without_a_port(self) -> None:
        """A method that ends after its port is gone disturbs nobody."""
        protocol = RPCServerProtocol(Methods())
        protocol.datagramReceived(_msgpack.encode_request(1, "value", [1]), (CLIENT, 4000))
        self.assertEqual(protocol.stats.responses, 1)

    def test_answers_where_it_was_asked(self) -> None:
        """Responses come from the address that was asked, for each of two clients."""
        clients: list[UDPClientService] = [self.client(SERVER), self.client(SERVER6)]
        self.assertEqual(self.result(gatherResults([client.call("value", 1) for client in clients])), [1, 1])


class BatchTransport(StringTransport):
    """A transport that takes several datagrams at once.

    Attributes:
        batches: What it was given together.
        alone: What it was given one by one.
        refuses: The payloads that it does not take.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # Twisted has no annotation here
        self.batches: list[list[tuple[bytes, Address]]] = []
        self.alone: list[bytes] = []
        self.refuses: list[bytes] = []

    def write(self, data: bytes, addr: Address | None = None) -> None:
        """Note one."""
        self.alone.append(data)

    def write_batch(self, datagrams: Any) -> list[tuple[bytes, Address, Exception]]:
        """Note several."""
        self.batches.append(list(datagrams))
        return [(data, addr, OSError("no")) for data, addr in datagrams if data in self.refuses]


class BatchTests(SimulatedTestCase):
    """Several requests that have come together."""

    def setUp(self) -> None:
        """Make a server on such a transport."""
        super().setUp()
        self.methods = Methods()
        # Each answer is looked at as it is, however short the request.
        self.protocol = RPCServerProtocol(self.methods, clock=self.network.clock.seconds, prove_addresses=False)
        self.port = BatchTransport()
        transport: Any = self.port
        self.protocol.transport = transport

    def request(
        self, number: int, method: str = "value", params: tuple[object, ...] | None = None
    ) -> tuple[bytes, Address]:
        """Return a request of a client of its own, by default for its own number."""
        return _msgpack.encode_request(number, method, (number,) if params is None else params), (CLIENT, 4000 + number)

    def answers(self) -> list[tuple[object, object, int]]:
        """Return what was answered in the only batch: result, the error's code, the client's port."""
        [batch] = self.port.batches
        return [
            (message.result, message.error and message.error["code"], peer[1])  # type: ignore[union-attr,index]
            for message, peer in ((_msgpack.decode_untrusted(data), peer) for data, peer in batch)
        ]

    def test_together(self) -> None:
        """Their answers leave together, in order, each to who asked; what fails fails alone."""
        self.protocol.datagrams_received(
            [
                self.request(1),
                (b"garbage", (CLIENT, 4000)),
                self.request(2, "nothing"),
                self.request(3, "value", ()),
                self.request(4, "wait", ()),
                self.request(5),
                self.request(5),
            ]
        )
        self.assertEqual(
            [
                (1, None, 4001),
                (None, "unknown_method", 4002),
                (None, "wrong_parameter_count", 4003),
                (5, None, 4005),
                (5, None, 4005),
            ],
            self.answers(),
        )
        self.assertEqual(([], 2), (self.port.alone, self.methods.ran))
        self.assertEqual((self.protocol.stats.rejected["malformed"], self.protocol.stats.repeated), (1, 1))

    def test_single_answer(self) -> None:
        """A single answer is written by itself."""
        self.protocol.datagrams_received([self.request(1), self.request(2, "wait", ()), (b"garbage", (CLIENT, 4000))])
        self.assertEqual((1, []), (len(self.port.alone), self.port.batches))

    def test_refused(self) -> None:
        """Those that the port does not take are counted; they are their callers' to ask for again."""
        self.port.refuses = [_msgpack.encode_response(number, None, number) for number in (2, 3)]
        self.protocol.datagrams_received([self.request(number) for number in range(1, 5)])
        self.assertEqual((self.protocol.stats.rejected["send_failed"], self.protocol.stats.responses), (2, 4))

    def test_other_ports(self) -> None:
        """A port that knows no batches is written to one by one, and one that it cannot send does not keep others."""
        transport: Any = FailingTransport(OSError("no buffer space"))
        self.protocol.transport = transport
        self.protocol.datagrams_received([self.request(number) for number in range(3)])
        self.assertEqual(self.protocol.stats.rejected["send_failed"], 3)

    def test_large_responses(self) -> None:
        """Responses above 1,200 bytes are counted each, and logged once a minute, but not on loopback."""
        own = len(_msgpack.encode_response(1, None, "x" * 1000)) - 1000
        fits, large = "x" * (1200 - own), "x" * (1201 - own)
        self.protocol.datagramReceived(*self.request(1, "value", (fits,)))
        self.assertEqual((self.protocol.stats.large, self.log.warnings), (0, []))
        for number, host in enumerate(("127.0.0.1", "::1", "127.0.0.7")):
            self.protocol.datagramReceived(self.request(number, "value", (large,))[0], (host, 4000))
        self.assertEqual((self.protocol.stats.large, self.log.warnings), (3, []))
        self.protocol.datagrams_received([self.request(number, "value", (large,)) for number in range(2, 5)])
        self.assertEqual((self.protocol.stats.large, len(self.log.warnings)), (6, 1))
        self.assertIn("a response of 1,201 bytes: more than 1,200 may be cut into fragments", self.log.warnings[0])
        self.assertNotIn("xxx", self.log.warnings[0])
        self.advance(60.0)
        self.protocol.datagramReceived(*self.request(9, "value", (large,)))
        self.assertEqual((self.protocol.stats.large, len(self.log.warnings)), (7, 2))


class RunMethodTests(ProtocolTestCase):
    """Methods that are run for who asked by another way than a request."""

    options = {"max_running": 2, "prove_addresses": False}  # noqa: RUF012  # never changed

    def run_method(self, name: str, *params: object, peer: Address = (CLIENT6, 4000)) -> Deferred[object]:
        """Run a method."""
        return self.protocol.run_method(name, list(params), peer)

    def test_kinds(self) -> None:
        """A value, a Deferred and a coroutine: all the same to the caller, and nothing is sent."""
        self.assertEqual(self.successResultOf(self.run_method("value", [1, "x"])), [1, "x"])
        self.assertEqual(self.successResultOf(self.run_method("fired", 2)), 2)
        later = self.run_method("wait")
        self.assertNoResult(later)
        self.methods.waiting[0].callback("three")
        self.assertEqual(self.successResultOf(later), "three")
        coroutine = self.run_method("coroutine", 0.5)
        self.assertNoResult(coroutine)
        self.advance(0.5)
        self.assertEqual(self.successResultOf(coroutine), "done")
        stats = self.protocol.stats
        self.assertEqual((stats.requests, stats.notifications, stats.responses, stats.errors), (4, 0, 0, {}))
        self.assertEqual((len(self.protocol._responder), len(self.network.trace)), (0, 0))

    def test_result_as_it_is(self) -> None:
        """The result need not be one that can be sent: that is the caller's part."""
        self.assertIsNone(self.successResultOf(self.run_method("value", None)))
        deep = self.successResultOf(self.run_method("bad", "object"))
        self.assertIs(type(deep), object)

    def test_errors(self) -> None:
        """It fails with what a request would be answered with."""
        for name, params, code, text in (
            ("nothing", (), "unknown_method", "no method 'nothing'"),
            ("__init__", (), "unknown_method", "no method"),
            ("value", (), "wrong_parameter_count", "was given 0 parameters"),
            ("coroutine", ("x",), "wrong_parameter_type", "parameter seconds: Expected float, got str"),
            ("refuse", ({"left": 0},), "sold_out", "nothing is left"),
        ):
            error = self.failureResultOf(self.run_method(name, *params), errors.MethodError).value
            self.assertEqual(error.code, code)
            self.assertIn(text, error.message)
        self.assertEqual(self.log.warnings, [])

    def test_data(self) -> None:
        """An error of the method's own keeps its data."""
        error = self.failureResultOf(self.run_method("refuse", {"left": 0}), errors.MethodError).value
        self.assertEqual(error.data, {"left": 0})

    def test_exceptions(self) -> None:
        """Exceptions are logged, with who asked, and told as no more than that."""
        for name in ("fail", "fail_later", "leave"):
            call = self.run_method(name)
            self.advance(0.1)
            error = self.failureResultOf(call, errors.MethodError).value
            self.assertEqual(error.code, "method_failed")
            self.assertNotIn(SECRET, str(error))
            self.assertEqual(len(self.flush()), 1)
            self.assertIn(f"the method {name!r}, called by {CLIENT6}, failed", self.log.warnings[-1])
        self.assertEqual(len(self.protocol._responder), 0)

    def test_current_peer(self) -> None:
        """The method knows who asks, also after it has waited, and afterwards nobody asks."""
        self.assertEqual(self.successResultOf(self.run_method("peer")), f"[{CLIENT6}]:4000")
        later = self.run_method("peer_later", 0.5, peer=(CLIENT, 7))
        self.assertRaises(NoCurrentPeer, current_peer)
        self.advance(0.5)
        self.assertEqual(self.successResultOf(later), [f"{CLIENT}:7"] * 2)

    def test_busy(self) -> None:
        """They and requests together are no more than may run at once."""
        mine, theirs = self.run_method("wait"), self.caller.call("wait", timeout=60.0)
        self.advance()
        error = self.failureResultOf(self.run_method("wait"), errors.MethodError).value
        self.assertEqual((error.code, len(self.methods.waiting)), ("busy", 2))
        self.assertIn("2 requests are running", error.message)
        self.assertEqual(self.refused("wait").code, "busy")
        for waiting in self.methods.waiting:
            waiting.callback(1)
        self.assertEqual((self.successResultOf(mine), self.result(theirs)), (1, 1))
        self.assertEqual(self.successResultOf(self.run_method("value", 2)), 2)

    def test_shared_deferred(self) -> None:
        """A Deferred that a method returns to several stays the method's: each has the result of its own."""
        mine, theirs = self.run_method("share"), self.caller.call("share")
        self.advance()
        mine.addCallback(lambda _: "changed")
        self.methods.shared.callback("shared")
        self.assertEqual((self.successResultOf(mine), self.result(theirs)), ("changed", "shared"))

    def test_cancel(self) -> None:
        """Who no longer wants the result does not end the method."""
        call = self.run_method("wait")
        call.cancel()
        self.failureResultOf(call, CancelledError)
        self.assertEqual((self.methods.cancelled, len(self.protocol._responder)), ([], 1))
        self.methods.waiting[0].callback(1)
        self.assertEqual(len(self.protocol._responder), 0)

    def test_stop(self) -> None:
        """When the server stops, it fails, and the method is cancelled."""
        call = self.run_method("wait")
        port: Any = self.protocol.transport
        port.stopListening()
        self.advance()
        self.assertEqual(self.failureResultOf(call, errors.MethodError).value.code, "server_stopping")
        self.assertEqual((self.methods.cancelled, len(self.protocol._responder)), (["wait"], 0))
        self.assertEqual(self.log.warnings, [])

    def test_probe(self) -> None:
        """rpc.probe, too, is counted by who asks, and its answer is the documented list."""
        self.protocol._probes._wall_clock = lambda: 5
        for received in (1, 2):
            result = self.successResultOf(self.run_method("rpc.probe", 2**63, received, 0, b"xy"))
            numbers = [received, received, 0, 5, 5]
            self.assertEqual(result, [*numbers, check_of(numbers), b"xy"])


class CacheTests(ProtocolTestCase):
    """The bounds of the kept responses."""

    options = {"cache_entries": 2, "cache_age": 5.0, "prove_addresses": False}  # noqa: RUF012  # never changed

    def test_full(self) -> None:
        """Where there is no room a request is answered busy, which the client honours until there is room."""
        for number in range(2):
            self.assertEqual(self.result(self.caller.call("value", number)), number)
        self.assertEqual(self.refused("value", 3).code, "busy")
        self.assertEqual(self.methods.ran, 2)
        self.advance(3.0)  # after two tries within the 2 s of the last call, the first two are soon too old
        self.assertEqual(self.result(self.caller.call("value", 4, timeout=10.0)), 4)
        self.assertGreaterEqual(self.caller.stats.busy, 1)

    def test_expire(self) -> None:
        """An entry is kept for its age, in which a repeat gets the same answer, and not for longer."""
        request = _msgpack.encode_request(1, "value", [1])
        for seconds, ran in ((0.0, 1), (5.0, 1), (5.0, 1), (5.001, 2)):
            self.advance(seconds)
            self.protocol.datagramReceived(request, (CLIENT, 4000))
            self.assertEqual(self.methods.ran, ran)
        self.advance()

    def test_invalid(self) -> None:
        """Bounds that would let requests run twice are refused."""
        for options in ({"cache_entries": 0}, {"cache_size": 0}, {"cache_age": 0.0}, {"cache_age": float("nan")}):
            bounds: Any = options
            with self.assertRaisesRegex(ValueError, "a repeated request would run twice"):
                RPCServerProtocol(Methods(), **bounds)


class SmallCacheTests(ProtocolTestCase):
    """The bound in bytes."""

    options = {"cache_size": 2000}  # noqa: RUF012  # never changed

    def test_full(self) -> None:
        """Some hundred bytes for each request, and what its response takes."""
        self.result(self.caller.call("value", "x" * 1000))
        self.assertEqual(self.refused("value", 1).code, "busy")


class StopTests(SimulatedTestCase):
    """The server stops while methods run."""

    def setUp(self) -> None:
        """Start a server by hand."""
        super().setUp()
        self.methods = Methods(self.there)
        self.protocol = RPCServerProtocol(self.methods, prove_addresses=False)  # see AddressProofTests for the others
        self.port = self.serve(self.protocol)

    def test_answered_and_cancelled(self) -> None:
        """What runs is answered server_stopping and cancelled; nothing is logged whatever the methods make of it."""
        client = self.client()
        names = ("wait", "coroutine", "stubborn", "clumsy")
        calls = [client.call(name, *((60.0,) if name == "coroutine" else ())) for name in names]
        client.notify("wait")
        self.advance()
        self.port.stopListening()
        self.advance()
        for call in calls:
            error = self.error(call, errors.ErrorReplyReceived)
            self.assertEqual(error.code, "server_stopping")
        self.assertEqual(sorted(self.methods.cancelled), ["stubborn", "wait", "wait", "wait", "wait"])
        self.assertEqual((len(self.protocol._unfinished), len(self.protocol._responder)), (0, 0))
        self.assertEqual(self.there.getDelayedCalls(), [])
        self.assertEqual(self.log.warnings, [])

    def test_answered_once(self) -> None:
        """After that nothing is answered a second time."""
        peer = Peer()
        sender = self.here.listenUDP(0, peer, "", 65535)
        sender.write(_msgpack.encode_request(7, "stubborn", []), (SERVER, PORT))
        self.advance()
        self.port.stopListening()
        self.advance()
        (response,) = peer.messages
        self.assertEqual(getattr(response, "error", {})["code"], "server_stopping")
        sender.stopListening()

    def test_start_again(self) -> None:
        """The protocol can be served again."""
        self.port.stopListening()
        self.advance()
        self.serve(self.protocol)
        self.assertEqual(self.result(self.client().call("value", 1)), 1)
