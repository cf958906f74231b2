"""The client's life: started, stopped, started again, and used in an ``async with``."""

from __future__ import annotations

from typing import Any

from twisted.application.service import IService, MultiService
from twisted.internet.defer import Deferred
from zope.interface.verify import verifyObject

from tests.simulation import DELAY, PORT, SERVER, SERVER6, SimulatedTestCase
from twistedudp import errors
from twistedudp.client import UDPClientService
from twistedudp.methods import RPCMethods, method


class Notes(RPCMethods):
    """Something to call."""

    def __init__(self) -> None:
        self.noted: list[object] = []

    @method
    def note(self, what: object) -> object:
        """Take a note and return it."""
        self.noted.append(what)
        return what


class LifecycleTests(SimulatedTestCase):
    """Start and stop."""

    def test_service(self) -> None:
        """It is a service, and starts and stops with its parent."""
        self.serve_methods(Notes())
        client = self.client(start=False)
        self.assertTrue(verifyObject(IService, client))
        parent: Any = MultiService()  # type: ignore[no-untyped-call]  # Twisted has no annotation here
        client.setServiceParent(parent)  # type: ignore[no-untyped-call]  # nor here
        parent.startService()
        self.assertEqual(self.result(client.call("note", 1)), 1)
        stopped = parent.stopService()
        self.advance()
        self.successResultOf(stopped)
        self.error(client.call("note", 2), errors.ServiceNotRunning)

    def test_not_running(self) -> None:
        """Before the start and after the stop everything is ServiceNotRunning, and nothing is sent."""
        client = self.client(start=False)
        for _ in range(2):
            for deferred in (client.call("x"), client.echo("x"), client.echo_bytes(b"x")):
                self.assertIn("startService()", str(self.error(deferred, errors.ServiceNotRunning)))
            self.assertRaises(errors.ServiceNotRunning, client.notify, "x")
            client.startService()
            client.stopService()
        self.advance()
        self.assertEqual(len(self.network.trace), 0)

    def test_no_port_without_need(self) -> None:
        """No local port is opened before something is sent, and one serves all calls of a family."""
        self.peer()
        client = self.client()
        self.assertEqual(self.ports_bound(), [])
        for _ in range(10):
            client.call("x").addErrback(lambda _: None)
        self.assertEqual(len(self.ports_bound()), 1)

    def test_started_twice(self) -> None:
        """Starting a client that runs changes nothing: what waits goes on."""
        peer = self.peer()
        client = self.client()
        call = client.call("x")
        client.startService()
        self.advance()
        peer.respond("still")
        self.advance()
        self.assertEqual(self.successResultOf(call), "still")

    def test_aborted(self) -> None:
        """Stopping fails all that waits with RequestAborted, at once; the ports are free when the Deferred fires."""
        self.peer()
        client = self.client()
        calls = [client.call("x"), client.echo("x"), client.echo_bytes(b"x"), client.echo_bytes(b"x")]
        self.advance()
        self.assertEqual(len(self.ports_bound()), 2)
        stopped = client.stopService()
        for call in calls:
            self.error(call, errors.RequestAborted)
        self.assertEqual(client.stats.aborted, 4)
        self.assertNoResult(stopped)
        self.advance(0.0)
        self.successResultOf(stopped)
        self.assertEqual((self.ports_bound(), self.here.getDelayedCalls()), ([], []))

    def test_no_timer_after_stop(self) -> None:
        """Stopping takes the timer away at once: only the closing of the port is left to the reactor."""
        self.peer()
        client = self.client()
        client.call("x", timeout=60.0).addErrback(lambda _: None)
        client.stopService()
        self.assertEqual([call.getTime() for call in self.here.getDelayedCalls()], [0.0])

    def test_late_response_after_stop(self) -> None:
        """What comes while the ports are being closed, or later, disturbs nobody."""
        peer = self.peer()
        client = self.client()
        call = client.call("x")
        self.advance()
        peer.respond(1)
        client.stopService()
        self.error(call, errors.RequestAborted)
        self.advance()
        peer.respond(2)
        self.advance()

    def test_stopped_twice(self) -> None:
        """Stopping twice, or without a start, is harmless; both Deferreds fire when the ports are free."""
        client = self.client(start=False)
        self.successResultOf(client.stopService())
        client.startService()
        client.call("x").addErrback(lambda _: None)
        both = [client.stopService(), client.stopService()]
        for stopped in both:
            self.assertNoResult(stopped)
        self.advance()
        for stopped in both:
            self.successResultOf(stopped)
        self.assertEqual(self.ports_bound(), [])

    def test_started_again(self) -> None:
        """A client can be started again, at once too; old calls stay aborted and new ones work."""
        methods = Notes()
        self.serve_methods(methods)
        client = self.client()
        for number in range(3):
            self.assertEqual(self.result(client.call("note", number)), number)
            aborted = client.call("note", "lost")
            client.stopService()
            client.startService()
            self.error(aborted, errors.RequestAborted)
            aborted.cancel()
        self.assertEqual(self.result(client.call("note", 3)), 3)
        self.assertEqual(len(self.ports_bound()), 1)

    def test_stop_while_resolving(self) -> None:
        """Stopping while the name is looked up aborts what waits; the answer that comes later changes nothing."""
        self.network.names["server.example"] = (SERVER,)
        self.network.lookup_delay = 0.05
        client = self.client("server.example")
        call = client.call("x")
        client.notify("y")
        client.stopService()
        self.error(call, errors.RequestAborted)
        self.assertEqual(client.stats.notifications_dropped, 1)
        self.advance(0.1)
        self.assertEqual((len(self.network.trace), self.ports_bound()), (0, []))

    def test_old_lookup(self) -> None:
        """The answer to a look-up of before a restart is not taken for the new one's."""
        self.network.names["server.example"] = (SERVER6,)
        self.network.lookup_delay = 0.05
        peer = self.peer()
        client = self.client("server.example")
        client.stopService()
        self.advance(0.02)
        self.network.lookup_delay = 0.06
        client.startService()
        client.call("x").addErrback(lambda _: None)
        self.advance(0.04)
        self.assertEqual(peer.received, [])
        self.advance(0.03)
        self.assertEqual(len(peer.received), 1)

    def test_names_again(self) -> None:
        """Each start looks the name up anew."""
        self.network.names["server.example"] = (SERVER,)
        peer = self.peer()
        client = self.client("server.example")
        self.advance()
        client.stopService()
        self.network.names["server.example"] = (SERVER6,)
        client.startService()
        self.advance()
        client.call("x").addErrback(lambda _: None)
        self.advance()
        self.assertEqual(self.network.trace[0].destination, (SERVER6, PORT))
        self.assertEqual(len(peer.received), 1)


class StopInACallbackTests(SimulatedTestCase):
    """A callback that stops the client it is called by, the usual end of a coroutine."""

    def test_others_are_aborted(self) -> None:
        """The other calls fail with RequestAborted, the timer and the ports go."""
        peer = self.peer()
        client = self.client()
        first = client.call("a").addCallback(lambda _: client.stopService())
        others = [client.call("b") for _ in range(5)]
        self.advance()
        peer.respond(1, 0)
        self.advance()
        self.successResultOf(first)
        for call in others:
            self.error(call, errors.RequestAborted)
        self.assertEqual((self.ports_bound(), self.here.getDelayedCalls()), ([], []))

    def test_stop_in_an_abort(self) -> None:
        """An errback of an aborted call may stop the client again, call, or start it."""
        methods = Notes()
        self.serve_methods(methods)
        client = self.client()
        outcomes: list[Any] = []

        def again(_: object) -> None:
            client.stopService()
            outcomes.append(client.call("note", "no"))
            client.startService()
            outcomes.append(client.call("note", "yes"))

        client.call("note", "first").addErrback(again)
        second = client.call("note", "second")
        client.stopService()
        self.error(second, errors.RequestAborted)
        self.error(outcomes[0], errors.ServiceNotRunning)
        self.advance()
        self.assertEqual(self.successResultOf(outcomes[1]), "yes")

    def test_commands_before_the_stop(self) -> None:
        """What a callback sends before it stops the client leaves before the ports close, and opens none again."""
        methods = Notes()
        self.serve_methods(methods)
        client = self.client()
        aborted: list[Deferred[Any]] = []

        def goodbye(_: object) -> Deferred[Any]:
            client.notify("note", "goodbye")
            aborted.append(client.call("note", "late"))
            return client.stopService()

        self.result(client.call("note", "hello").addCallback(goodbye))
        self.error(aborted[0], errors.RequestAborted)
        self.advance()
        self.assertEqual(self.ports_bound(), [])
        self.assertEqual(methods.noted, ["hello", "goodbye", "late"])

    def test_new_port_before_the_stop(self) -> None:
        """So does what needs a port that is not open yet: it is opened, used, and closed with the others."""
        peer = self.peer()
        client = self.client()
        aborted: list[Deferred[Any]] = []

        def twice(_: object) -> Deferred[Any]:
            aborted.extend(client.echo_bytes(b"same") for _ in range(2))
            return client.stopService()

        client.call("x").addCallback(twice)
        self.advance()
        peer.respond(None)
        self.advance()
        for echo in aborted:
            self.error(echo, errors.RequestAborted)
        self.assertEqual([payload for payload, _ in peer.received[1:]], [b"same", b"same"])
        self.assertEqual(self.ports_bound(), [])

    def test_async_with(self) -> None:
        """The same in a coroutine: its block ends inside the last call's callback."""
        methods = Notes()
        self.serve_methods(methods)

        async def program() -> object:
            async with self.client(start=False) as client:
                result: object = await client.call("note", "hello")
                client.notify("note", "goodbye")
            return result

        self.assertEqual(self.network.run_until(program()), "hello")
        self.advance()
        self.assertEqual(self.ports_bound(), [])
        self.assertEqual(methods.noted, ["hello", "goodbye"])


class AsyncWithTests(SimulatedTestCase):
    """An ``async with`` instead of an Application."""

    def test_started_and_stopped(self) -> None:
        """The client runs inside of the block, and its ports are free behind it."""
        self.serve_methods(Notes())
        client = self.client(start=False)

        async def program() -> None:
            async with client as entered:
                self.assertIs(entered, client)
                self.assertTrue(client.running)
                await client.call("note", 1)
                self.assertEqual(len(self.ports_bound()), 1)
            self.assertEqual(self.ports_bound(), [])

        self.network.run_until(program())
        self.assertFalse(client.running)

    def test_exception(self) -> None:
        """An exception leaves the block as it is, and the client is stopped all the same."""
        self.peer()
        client = self.client(start=False)
        calls: list[Deferred[Any]] = []

        async def program() -> None:
            async with client:
                calls.append(client.call("x"))
                raise KeyError("mine")

        self.assertRaises(KeyError, self.network.run_until, program())
        self.error(calls[0], errors.RequestAborted)
        self.assertFalse(client.running)

    def test_error_of_a_call(self) -> None:
        """A call that fails in the block ends it with its error, one round trip later."""
        self.assertRaises(errors.PeerUnreachable, self.network.run_until, self.one_call())
        self.assertAlmostEqual(self.network.clock.seconds(), 2 * DELAY)
        self.assertEqual(self.ports_bound(), [])

    def test_cancelled(self) -> None:
        """Cancelling a coroutine inside of the block cancels its call and stops the client."""
        self.peer()
        program = Deferred.fromCoroutine(self.one_call())
        self.advance()
        program.cancel()
        self.advance()
        self.assertEqual(type(self.failureResultOf(program).value).__name__, "CancelledError")
        self.assertEqual((self.ports_bound(), self.here.getDelayedCalls()), ([], []))

    async def one_call(self) -> object:
        """Make a call in an ``async with``."""
        async with UDPClientService(self.here, SERVER, PORT) as client:
            result: object = await client.call("x")
            return result
