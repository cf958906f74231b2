"""A call runs once, whatever the network loses, repeats or reorders: client and server on the simulated network."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred
from twisted.internet.protocol import DatagramProtocol
from twisted.trial.unittest import SynchronousTestCase

from tests.simulation import CLIENT, PORT, SERVER, NoJitter
from twistedudp import RPCMethods, UDPClientService, UDPServerService, errors, method
from twistedudp._msgpack import decode_untrusted
from twistedudp.impairment import Arrival, Datagram
from twistedudp.messages import Response
from twistedudp.testing import Fate, SimulatedNetwork

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from twistedudp.testing import SimulatedReactor


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

    def test_same_bytes(self) -> None:
        """Every try is of the same bytes and from the same port, and every response, lost or not, the stored one."""
        for lost in (1, 2, 3, 4, 10):
            self.lose_responses(lost)
            before = len(self.network.trace)
            result = self.network.run_until(self.client.call("count"))
            records = list(self.network.trace)[before:]
            requests = [record for record in records if record.destination == (SERVER, PORT)]
            responses = [record for record in records if record.source == (SERVER, PORT)]
            self.assertEqual(len(records), 2 * (lost + 1))
            self.assertEqual(len({(record.source, record.payload) for record in requests}), 1)
            self.assertEqual([record.fate for record in responses], [Fate.LOST] * lost + [Fate.DELIVERED])
            [(destination, payload)] = {(record.destination, record.payload) for record in responses}
            self.assertEqual(destination, requests[0].source)
            self.assertEqual(self.result_of(payload), result)

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
        """Whoever knows a request's bytes gets nothing of its response at another address or port: it runs for him."""
        self.assertEqual(self.network.run_until(self.client.call("count")), 1)
        request, response = self.exchanged()
        for runs, reactor in enumerate((self.network.reactor("192.0.2.66"), self.here), 2):
            with self.listening(reactor) as (port, answers):
                port.write(request, (SERVER, PORT))
                self.network.advance(1.0)
                self.assertEqual(self.methods.runs, runs)
                self.assertEqual(len(answers), 1)
                self.assertNotEqual(answers[0], response)
                self.assertEqual(self.result_of(answers[0]), runs)
        self.assertEqual(self.server_stats.repeated, 0)

    def test_forged_repeat_of_a_running_request(self) -> None:
        """Nor does he get the response of a request that is still running, which goes to who asked first."""
        for reactor in (self.network.reactor("192.0.2.66"), self.here):
            call = self.client.call("count_slowly")
            self.network.advance(0.1)
            mine = self.methods.waiting
            with self.listening(reactor) as (port, answers):
                port.write(self.network.trace.select(destination=(SERVER, PORT))[-1].payload, (SERVER, PORT))
                self.network.advance(0.01)
                his = self.methods.waiting
                assert mine is not None
                assert his is not None
                self.assertIsNot(mine, his)
                mine.callback(42)
                self.assertEqual(self.network.run_until(call), 42)
                self.network.advance(1.0)
                self.assertEqual(answers, [])
                his.callback(7)
                self.network.advance(1.0)
                self.assertEqual([self.result_of(answer) for answer in answers], [7])

    def test_forged_source(self) -> None:
        """A repeat under the client's own address makes nothing run either; the client drops the second response."""
        self.assertEqual(self.network.run_until(self.client.call("count")), 1)
        request, response = self.exchanged()
        source = self.network.trace.select(destination=(SERVER, PORT))[0].source
        forger = self.network.reactor("192.0.2.66")
        self.network.send(forger.host, Datagram(source, (SERVER, PORT), request))
        self.network.advance(1.0)
        self.assertEqual((self.methods.runs, self.server_stats.repeated), (1, 1))
        [second] = self.network.trace.select(destination=source)[1:]
        self.assertEqual((second.payload, second.fate), (response, Fate.DELIVERED))
        self.assertEqual(self.client.stats.answered, 1)
        self.assertEqual(self.network.run_until(self.client.call("count")), 2)

    def result_of(self, payload: bytes) -> object:
        """Return the result in the bytes of a response."""
        message = decode_untrusted(payload)
        assert isinstance(message, Response), message
        return message.result

    def exchanged(self) -> tuple[bytes, bytes]:
        """Return the bytes of the first request and of the first response."""
        request = self.network.trace.select(destination=(SERVER, PORT))[0].payload
        return request, self.network.trace.select(source=(SERVER, PORT))[0].payload

    @contextmanager
    def listening(self, reactor: SimulatedReactor) -> Iterator[tuple[Any, list[bytes]]]:
        """Open a port for somebody else; yield it with the list of what comes to it."""
        answers: list[bytes] = []

        class Thief(DatagramProtocol):
            noisy = False

            def datagramReceived(self, datagram: bytes, addr: Any) -> None:
                answers.append(datagram)

        port: Any = reactor.listenUDP(0, Thief())
        yield port, answers
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
