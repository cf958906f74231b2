"""A call runs once, whatever the network loses, repeats or reorders: client and server on the simulated network."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred
from twisted.internet.protocol import DatagramProtocol
from twisted.trial.unittest import SynchronousTestCase

from tests.simulation import CLIENT, PORT, SERVER, NoJitter
from twistedudp import RPCMethods, UDPClientService, UDPServerService, errors, method
from twistedudp.testing import Arrival, SimulatedNetwork

if TYPE_CHECKING:
    from collections.abc import Iterable

    from twistedudp.testing import Datagram


class Counter(RPCMethods):
    """Counts how often it is asked to."""

    def __init__(self) -> None:
        self.runs = 0
        self.waiting: Deferred[int] | None = None

    @method
    def count(self) -> int:
        """Count."""
        self.runs += 1
        return self.runs

    @method
    def count_slowly(self) -> Deferred[int]:
        """Count, and answer when the test says so."""
        self.runs += 1
        self.waiting = Deferred()
        return self.waiting

    @method(idempotent=True)
    def look(self) -> int:
        """Do no harm."""
        self.runs += 1
        return 0


class OnceTests(SynchronousTestCase):
    """One client, one server, and a link that a test spoils."""

    def setUp(self) -> None:
        """Start both."""
        self.network = SimulatedNetwork(seed=5)
        self.there, self.here = self.network.reactor(SERVER), self.network.reactor(CLIENT)
        self.methods = Counter()
        self.server = UDPServerService(self.there, PORT, self.methods, interface=SERVER)
        self.client = UDPClientService(self.here, SERVER, PORT, timeout=60.0, rng=NoJitter(5))
        self.server.startService()
        self.client.startService()
        self.addCleanup(self.stop)

    def stop(self) -> None:
        """Stop both; nothing is left."""
        self.network.run_until(self.client.stopService())
        stopped = self.server.stopService()
        if stopped is not None:
            self.network.run_until(stopped)
        self.network.run_until_idle()
        self.assertEqual((self.here.getDelayedCalls(), self.there.getDelayedCalls()), ([], []))

    def lose_responses(self, count: int) -> None:
        """Lose the next datagrams from the server."""
        left = [count]

        def effect(datagram: Datagram, *_: object) -> Iterable[Arrival]:
            if left[0]:
                left[0] -= 1
                return []
            return [Arrival(datagram)]

        self.network.link(self.there, self.here).add(effect)

    @property
    def server_stats(self) -> Any:
        """The server's counters."""
        protocol: Any = self.server.protocol
        return protocol.stats

    def test_lost_responses(self) -> None:
        """Exactly the responses are lost, of one to four tries and for more than 20 s: one run, and its result."""
        for lost in (1, 2, 3, 4, 10):
            self.lose_responses(lost)
            before = self.methods.runs
            self.assertEqual(self.network.run_until(self.client.call("count")), before + 1)
            self.assertEqual(self.methods.runs, before + 1)
        self.assertEqual(self.server_stats.repeated, 1 + 2 + 3 + 4 + 10)
        self.assertGreater(self.network.clock.seconds(), 20.0)

    def test_slow_method(self) -> None:
        """A client that asks again while the method is running does not start it again."""
        call = self.client.call("count_slowly")
        self.network.advance(20.0)
        self.assertEqual(self.methods.runs, 1)
        self.assertGreater(self.server_stats.repeated, 5)
        assert self.methods.waiting is not None
        self.methods.waiting.callback(42)
        self.assertEqual(self.network.run_until(call), 42)
        self.assertEqual(self.client.stats.answered, 1)

    def test_duplicated_requests(self) -> None:
        """A network that delivers requests twice, the second time late, makes nothing run twice."""
        self.network.link(self.here, self.there).add(
            lambda datagram, *_: [Arrival(datagram), Arrival(datagram, delay=1.5)]
        )
        self.assertEqual([self.network.run_until(self.client.call("count")) for _ in range(5)], [1, 2, 3, 4, 5])
        self.network.advance(5.0)
        self.assertEqual(self.methods.runs, 5)
        self.assertEqual(self.server_stats.repeated, 5)

    def test_idempotent(self) -> None:
        """What is marked idempotent runs as often as it is asked."""
        self.lose_responses(3)
        self.network.run_until(self.client.call("look"))
        self.assertEqual((self.methods.runs, self.server_stats.repeated), (4, 0))

    def test_forged_repeat(self) -> None:
        """Somebody who knows a request's bytes gets nothing of its response from another address: it runs for him."""
        self.network.run_until(self.client.call("count"))
        request = self.network.trace.select(destination=(SERVER, PORT))[0].payload
        thief = self.network.reactor("192.0.2.66")
        answers: list[bytes] = []

        class Thief(DatagramProtocol):
            def datagramReceived(self, datagram: bytes, addr: Any) -> None:
                answers.append(datagram)

        port: Any = thief.listenUDP(0, Thief())
        port.write(request, (SERVER, PORT))
        self.network.advance(1.0)
        first = self.network.trace.select(source=(SERVER, PORT))[0].payload
        self.assertEqual(len(answers), 1)
        self.assertNotEqual(answers[0], first)
        self.assertEqual(self.methods.runs, 2)
        self.network.run_until(port.stopListening())

    def test_server_restarted(self) -> None:
        """The promise is one server's: a new one has not seen the request. The call says what it can."""
        call = self.client.call("count_slowly")
        self.network.advance(0.1)
        stopped = self.server.stopService()
        assert stopped is not None
        self.network.run_until(stopped)
        with self.assertRaises(errors.ErrorReplyReceived) as caught:
            self.network.run_until(call)
        self.assertEqual(caught.exception.code, "server_stopping")
