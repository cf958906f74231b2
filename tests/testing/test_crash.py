"""Hosts that crash and come back."""

from __future__ import annotations

from twisted.internet.error import CannotListenError
from twisted.internet.task import LoopingCall
from twisted.trial.unittest import SynchronousTestCase

from tests.testing.protocols import Echo, ErrorRecorder, Recorder
from twistedudp import RPCMethods, UDPClientService, UDPServerService, method
from twistedudp.errors import LocalError, RequestTimedOut
from twistedudp.testing import SimulatedNetwork

SERVER = "192.0.2.1"
CLIENT = "192.0.2.2"


class CrashTests(SynchronousTestCase):
    """A server's host fails in the middle of things."""

    def setUp(self) -> None:
        """Make the network."""
        self.network = SimulatedNetwork(names={})
        self.server = self.network.reactor(SERVER, name="server")
        self.client = self.network.reactor(CLIENT)
        self.recorder = Recorder(self.server)
        self.listening = self.server.listenUDP(7, self.recorder)
        self.asking = ErrorRecorder(self.client)
        self.port = self.client.listenUDP(9, self.asking)

    def test_ports_vanish(self) -> None:
        """No protocol is stopped, no Deferred fires, and what arrives is not heard and not answered."""
        stopped = self.listening.stopListening()
        assert stopped is not None
        self.server.crash()
        self.port.write(b"x", (SERVER, 7))
        self.network.run_until_idle()
        self.assertEqual((self.server.ports, self.recorder.stopped, self.recorder.received), ([], 0, []))
        self.assertNoResult(stopped)
        self.assertEqual((self.asking.errors, self.network.trace[0].fate), ([], "unheard"))
        self.assertIn("not listening", repr(self.listening))

    def test_calls_never_run(self) -> None:
        """Its delayed calls never run, nor those that its programs still make; other hosts' do."""
        ran: list[str] = []
        self.server.callLater(1, ran.append, "server")
        self.client.callLater(1, ran.append, "client")
        self.server.crash()
        self.server.callLater(0.5, ran.append, "ghost")
        self.assertEqual(self.server.getDelayedCalls(), [])
        self.network.run_until_idle()
        self.assertEqual(ran, ["client"])
        self.assertEqual(self.network.clock.seconds(), 1.0)

    def test_ghosts_may_clean_up(self) -> None:
        """What a program does with its calls and ports after the crash has no effect and raises nothing."""
        calls = [self.server.callLater(1, self.fail) for _ in range(3)]
        loop = LoopingCall(self.fail)
        loop.clock = self.server
        loop.start(1, now=False)
        self.server.crash()
        calls[0].cancel()
        calls[1].reset(0.1)
        calls[2].delay(5)
        loop.stop()
        self.assertIsNone(self.listening.stopListening())
        self.listening.write(b"x", (CLIENT, 9))
        self.assertEqual(self.listening.stats.written_after_stop, 1)
        self.assertEqual(self.network.clock.getDelayedCalls(), [])
        self.network.run_until_idle()
        self.assertEqual(self.network.clock.seconds(), 0.0)

    def test_what_was_sent_arrives(self) -> None:
        """A datagram that has left before the crash arrives."""
        self.listening.write(b"last words", (CLIENT, 9))
        self.server.crash()
        self.network.run_until_idle()
        self.assertEqual([payload for _, payload, _ in self.asking.received], [b"last words"])

    def test_crash_inside_a_callback(self) -> None:
        """A protocol whose host crashes while it is called goes on without any effect."""
        server = self.server

        class Fatal(Echo):
            def datagramReceived(self, datagram: bytes, addr: tuple[str, int]) -> None:
                server.crash()
                server.callLater(0, super().datagramReceived, datagram, addr)
                super().datagramReceived(datagram, addr)

        server.listenUDP(8, Fatal())
        self.port.write(b"x", (SERVER, 8))
        self.network.run_until_idle()
        self.assertEqual(self.asking.received, [])

    def test_old_reactor_binds_nothing(self) -> None:
        """On the reactor of the old life nothing can be bound, not by an old port either; the error says what can."""
        self.server.crash()
        error = self.assertRaises(CannotListenError, self.server.listenUDP, 7, Echo())
        self.assertIn("use the reactor that restart() returns", str(error))
        self.server.restart()
        self.assertRaises(CannotListenError, self.listening.startListening)

    def test_restart(self) -> None:
        """The host comes back with its addresses, name and links, without programs, and answers for itself again."""
        self.network.link(CLIENT, SERVER).delay = 0.25
        self.server.crash()
        reactor = self.server.restart()
        self.assertEqual((reactor.addresses, reactor.ports, reactor.crashed), ((SERVER,), [], False))
        self.port.write(b"x", (SERVER, 7))
        self.network.advance(0.3)
        self.assertEqual(len(self.asking.errors), 1)
        recorder = Recorder(reactor)
        reactor.listenUDP(7, recorder)
        self.port.write(b"y", (SERVER, 7))
        self.network.run_until_idle()
        self.assertEqual([(round(time, 3), payload) for time, payload, _ in recorder.received], [(0.55, b"y")])
        self.assertIs(self.network.link(CLIENT, reactor), self.network.link(CLIENT, SERVER))

    def test_restart_once(self) -> None:
        """Only a crashed host can be restarted, once for each crash; to crash twice is harmless."""
        self.assertRaises(LocalError, self.server.restart)
        self.server.crash()
        self.server.crash()
        reactor = self.server.restart()
        self.assertRaises(LocalError, self.server.restart)
        self.server.crash()
        reactor.listenUDP(7, Echo())
        reactor.crash()
        reactor.restart()
        self.assertEqual([note.text for note in self.network.trace.notes], ["crashed", "restarted"] * 2)

    def test_look_ups_are_dropped(self) -> None:
        """A look-up that was under way brings nothing, and can be given up."""
        from tests.testing.test_reactor import Receiver  # noqa: PLC0415  # only this test looks up

        receiver = Receiver()
        resolution = self.server.nameResolver.resolveHostName(receiver, "localhost")
        self.server.crash()
        self.network.run_until_idle()
        resolution.cancel()
        self.assertEqual(receiver.events, ["began"])

    def test_no_traces_of_many_lives(self) -> None:
        """Equal seeds give equal digests over crashes and restarts."""

        def digest() -> str:
            network = SimulatedNetwork(3, effects="loss=30%,delay=5ms±5ms")
            client = network.reactor(CLIENT).listenUDP(9, Echo())
            reactor = network.reactor(SERVER)
            for _ in range(5):
                reactor.listenUDP(7, Recorder(reactor))
                client.write(b"x", (SERVER, 7))
                network.advance(0.005)
                reactor.crash()
                client.write(b"y", (SERVER, 7))
                reactor = reactor.restart()
            network.run_until_idle()
            return network.trace.digest()

        self.assertEqual(digest(), digest())


class ServiceTests(SynchronousTestCase):
    """Our own client and server over a restart."""

    def test_server_restarted(self) -> None:
        """Calls fail at their deadline while the server's host is down, and succeed once another one is started."""

        class Numbers(RPCMethods):
            @method
            def add(self, one: int, other: int) -> int:
                """Add two numbers."""
                return one + other

        network = SimulatedNetwork()
        there, here = network.reactor(SERVER), network.reactor(CLIENT)
        client = UDPClientService(here, SERVER, 7000, timeout=1.0)
        client.startService()
        old = UDPServerService(there, 7000, Numbers(), interface=SERVER)
        old.startService()
        self.assertEqual(network.run_until(client.call("add", 1, 2)), 3)
        there.crash()
        self.assertRaises(RequestTimedOut, network.run_until, client.call("add", 1, 2))
        new = UDPServerService(there.restart(), 7000, Numbers(), interface=SERVER)
        new.startService()
        self.assertEqual(network.run_until(client.call("add", 3, 4)), 7)
        for service in (client, new, old):
            service.stopService()
        self.assertEqual(network.leftovers(), [])


class LeftoverTests(SynchronousTestCase):
    """What programs leave behind."""

    def test_nothing(self) -> None:
        """Datagrams in flight and ports that are closing are not left behind."""
        network = SimulatedNetwork()
        port = network.reactor(SERVER).listenUDP(9, Echo())
        port.write(b"x", ("127.0.0.1", 9))
        port.stopListening()
        self.assertEqual(network.leftovers(), [])
        self.assertEqual(len(network.clock.getDelayedCalls()), 1)

    def test_ports_and_calls(self) -> None:
        """Ports and delayed calls are named, with whose they are."""
        network = SimulatedNetwork()
        reactor = network.reactor(SERVER)
        reactor.listenUDP(9, Echo())
        reactor.callLater(5, self.fail)
        network.clock.callLater(6, self.fail)
        port, call, other = network.leftovers()
        self.assertRegex(port, r"port 9 of 192\.0\.2\.1 is still bound, by <.*Echo")
        self.assertRegex(call, r"a delayed call of <SimulatedReactor 192\.0\.2\.1> is still pending: .*5\.0s.*fail")
        self.assertRegex(other, r"a delayed call is still pending: .*6\.0s.*fail")

    def test_names(self) -> None:
        """A host's name is in the table, for all hosts to look up; a name that is there already is refused."""
        network = SimulatedNetwork(names={"taken.example": [CLIENT]})
        network.reactor(SERVER, "2001:db8::1", name="Server.Example.")
        self.assertEqual(network.look_up("server.example"), (SERVER, "2001:db8::1"))
        for name in ("taken.example", "SERVER.example", "localhost"):
            self.assertRaises(ValueError, network.reactor, name=name)
