"""A server with more to do than it can: what it sheds, and that a slow method takes nothing from the others."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import gatherResults
from twisted.internet.task import deferLater

from tests.probing.answers import EPOCH, wire_of
from tests.simulation import CLIENT, SimulatedTestCase
from tests.test_protocol import BatchTransport
from twistedudp import _msgpack, errors
from twistedudp.messages import Response
from twistedudp.methods import RPCMethods, method
from twistedudp.protocol import RPCServerProtocol

if TYPE_CHECKING:
    from collections.abc import Sequence

    from twisted.internet.defer import Deferred

    from twistedudp.address import Address


class Working(RPCMethods):
    """Methods that are quick, and one that is slow."""

    def __init__(self, reactor: Any = None) -> None:
        self.reactor = reactor
        self.ran: list[object] = []
        self.most = 0
        self.running = 0

    @method
    def quick(self, value: object) -> object:
        """Return at once."""
        self.ran.append(value)
        return value

    @method
    async def brief(self, value: object) -> object:
        """Return soon."""
        await deferLater(self.reactor, 0.01)
        return value

    @method(max_running=20)
    async def slow(self, seconds: float) -> float:
        """Return late."""
        return await self.endless(seconds)

    @method
    async def endless(self, seconds: float) -> float:
        """Return late, as many as want it."""
        self.running += 1
        self.most = max(self.most, self.running)
        await deferLater(self.reactor, seconds)
        self.running -= 1
        return seconds

    @method(private=True)
    def secret(self) -> None:
        """Do nothing that others may see."""


class TimedTransport(BatchTransport):
    """A port that tells when datagrams arrived."""

    arrival_times: Sequence[int] = ()


class WaitingTestCase(SimulatedTestCase):
    """A server that is handed requests which have waited."""

    options: dict[str, Any] = {}  # noqa: RUF012  # never changed

    def setUp(self) -> None:
        """Make a server that is handed what comes."""
        super().setUp()
        self.wall = EPOCH
        self.methods = Working()
        self.protocol = RPCServerProtocol(
            self.methods, clock=self.network.clock.seconds, wall_clock=self.now_ns, **self.options
        )
        self.port = TimedTransport()
        transport: Any = self.port
        self.protocol.transport = transport

    def now_ns(self) -> int:
        """Return the wall clock's time."""
        return self.wall + round(self.network.clock.seconds() * 1e9)

    def come(self, *ages: float, payloads: Sequence[bytes] = ()) -> list[int]:
        """Let requests come together, with some age each; return which were answered, by their place."""
        self.port.alone.clear()
        self.port.batches.clear()
        self.port.arrival_times = tuple(self.now_ns() - round(age * 1e9) for age in ages)
        peer: Address = (CLIENT, 4000)
        datagrams = [(_msgpack.encode_request(at, "quick", [at]), peer) for at in range(len(ages))]
        datagrams = [(payload, peer) for payload in payloads] or datagrams
        self.protocol.datagrams_received(datagrams)
        self.port.arrival_times = ()
        sent = [*self.port.alone, *(data for batch in self.port.batches for data, _ in batch)]
        answers = [_msgpack.decode_untrusted(data) for data in sent]
        assert all(isinstance(answer, Response) for answer in answers)
        return [answer.msgid for answer in answers if isinstance(answer, Response)]


class ShedTests(WaitingTestCase):
    """Requests that have waited for too long."""

    def test_stale(self) -> None:
        """What is older than 2 s is neither run nor answered nor even decoded, but counted; the others are served."""
        self.assertEqual(self.come(2.1, 2.05, 1.9, 0.0), [2, 3])
        self.assertEqual(self.methods.ran, [2, 3])
        self.assertEqual(self.come(2.1, payloads=[b"garbage"]), [])
        self.assertEqual(self.come(9.0, 9.0), [])
        self.assertEqual(self.protocol.stats.rejected, {"stale": 5})
        self.assertEqual(self.protocol.stats.requests, 2)

    def test_standing(self) -> None:
        """While the queue is standing half a second is too old, until a young one comes."""
        for _ in range(12):
            self.come(0.7, 0.6)
            self.advance(0.05)
        self.assertEqual(self.come(0.7, 0.6, 0.4), [2])
        self.assertEqual(self.come(0.7, 0.01), [0, 1])
        self.assertEqual(self.come(0.7), [0])

    def test_clock_set(self) -> None:
        """A wall clock that is put forward by an hour sheds nothing."""
        self.come(0.0)
        self.wall += 3600 * 10**9
        self.assertEqual(self.come(3600.5, 3600.1, 0.0), [0, 1, 2])
        self.advance(2.1)
        self.assertEqual(self.come(2.2, 0.0), [1])

    def test_repeats(self) -> None:
        """A repeat that is stale is shed as well, though its response is kept: nobody waits for that one either."""
        self.come(0.0)
        self.assertEqual(self.come(0.0), [0])
        self.assertEqual(self.come(3.0), [])
        self.assertEqual((self.protocol.stats.repeated, self.protocol.stats.rejected), (1, {"stale": 1}))

    def test_probes(self) -> None:
        """Of what is left each probe still tells when it was itself that came."""
        wire = wire_of()
        probes = [wire.encode(sequence, 0) for sequence in range(3)]
        self.come(5.0, 1.5, 0.5, payloads=probes)
        [batch] = self.port.batches
        sides = [wire.decode_untrusted(data).server for data, _ in batch]
        self.assertEqual([side.received for side in sides if side], [1, 2])
        self.assertEqual([(self.now_ns() - side.arrived_ns) / 1e9 for side in sides if side], [1.5, 0.5])

    def test_port_does_not_tell(self) -> None:
        """Where the port does not tell when they came, none is shed."""
        self.protocol.datagramReceived(_msgpack.encode_request(1, "quick", [1]), (CLIENT, 4000))
        self.assertEqual((self.methods.ran, self.protocol.stats.rejected), ([1], {}))

    def test_wanted(self) -> None:
        """Whether it wants to be told, and whether something is private, can be asked of the protocol."""
        self.assertTrue(self.protocol.wants_arrival_times)
        self.assertTrue(self.protocol.has_private_methods)
        other = RPCServerProtocol(RPCMethods(), max_wait=None)
        self.assertFalse(other.wants_arrival_times)
        self.assertFalse(other.has_private_methods)

    def test_bad_limit(self) -> None:
        """A limit that is no positive number is refused."""
        for bad in (0, -1, "2", float("inf")):
            error = self.assertRaises(ValueError, RPCServerProtocol, Working(), max_wait=bad)
            self.assertIn(f"max_wait={bad!r}: it must be a positive number of seconds, or None", str(error))


class NotShedTests(WaitingTestCase):
    """A server that sheds nothing."""

    options = {"max_wait": None}  # noqa: RUF012  # never changed

    def test_stale(self) -> None:
        """Without max_wait everything is served."""
        self.assertEqual(self.come(60.0, 0.0), [0, 1])


class StarvationTests(SimulatedTestCase):
    """A slow method with thousands of callers."""

    def setUp(self) -> None:
        """Start a server, and a client with jitter in which no call waits for the turn of another."""
        super().setUp()
        self.methods = Working(self.there)
        self.protocol = self.serve_methods(self.methods, max_running=100, prove_addresses=False)
        self.crowd = self.client(window=4096, rng=random.Random(6))  # noqa: S311  # reproducible on purpose

    def test_own_slots(self) -> None:
        """It has its own slots and no more: each other method is answered at once, built in or not, at any time."""
        calls = [self.crowd.call("slow", 1.0, timeout=4.0) for _ in range(3000)]
        other = self.client()
        outcomes: list[Any] = []
        for call in calls:
            call.addBoth(outcomes.append)
        for round_ in range(8):
            before = self.network.clock.seconds()
            self.assertEqual(self.result(other.call("quick", round_)), round_)
            self.assertEqual(self.result(other.call("brief", round_)), round_)
            self.assertEqual(self.result(other.echo(round_)), round_)
            self.assertLess(self.network.clock.seconds() - before, 0.1)
            self.advance(0.5)
        self.advance(1.0)
        self.assertEqual((len(outcomes), self.methods.most), (3000, 20))
        served = sum(outcome == 1.0 for outcome in outcomes)
        self.assertGreaterEqual(served, 60)  # of 80 at most: some slots wait for the next who comes back
        self.assertGreater(self.protocol.stats.errors["busy"], 3000 - 20)
        slots = self.protocol._responder.slots
        self.assertEqual((slots.held("slow"), slots.full), (0, set()))

    def test_all_slots(self) -> None:
        """When methods with room of their own have taken all there is, those that hold none are let in all the same."""
        held = [self.crowd.call("endless", 5.0, timeout=60.0) for _ in range(150)]
        self.advance()
        self.assertEqual(self.methods.running, 100)
        other = self.client(window=64)
        self.assertEqual(self.result(other.call("quick", 1)), 1)
        self.assertEqual(self.result(other.call("brief", 2)), 2)
        self.assertEqual(self.result(other.echo("three")), "three")
        self.assertIn("echo", [entry["name"] for entry in self.result(other.call("rpc.methods"))])
        first, second = other.call("slow", 0.5), other.call("slow", 0.5, timeout=0.2)
        error = self.assertRaises(errors.ErrorReplyReceived, self.result, second)
        self.assertEqual((error.code, "101 requests are running" in error.message), ("busy", True))
        self.assertEqual(self.result(first), 0.5)
        self.assertEqual(self.result(gatherResults(held)), [5.0] * 150)

    def test_spread(self) -> None:
        """Callers that were refused together come back spread over half of the time that they were told."""
        holding: list[Deferred[Any]] = [self.crowd.call("slow", 4.0, timeout=60.0) for _ in range(20)]
        self.advance(2.0)
        calls = [self.crowd.call("slow", 0.01, timeout=30.0) for _ in range(400)]
        self.advance(0.05)
        before = len(self.sent())
        times: list[float] = []
        for _ in range(300):
            self.advance(0.01)
            if len(times) >= 400:
                break
            now = len(self.sent())
            times += [self.network.clock.seconds()] * (now - before)
            before = now
        hint = 1.0  # half of the two seconds for which the oldest has run
        self.assertGreaterEqual(times[0], 2.0 + hint)
        self.assertGreater(times[359] - times[39], 0.3 * hint)
        self.assertLess(max(times.count(at) for at in set(times)), 40)
        self.assertEqual(self.result(gatherResults(holding)), [4.0] * 20)
        self.assertEqual(self.result(gatherResults(calls)), [0.01] * 400)


class ErrorSizeTests(SimulatedTestCase):
    """What a refusal costs on the wire."""

    def test_size(self) -> None:
        """No refusal has more than 128 bytes, so that it may be sent to an address that is not proven."""
        every: tuple[dict[str, Any], ...] = ({}, {"max_running": 1023}, {"cache_entries": 1})
        for options in every:
            methods = Working(self.there)
            protocol = RPCServerProtocol(methods, clock=self.network.clock.seconds, prove_addresses=False, **options)
            port: Any = BatchTransport()
            protocol.transport = port
            for at in range(5000):
                protocol.datagramReceived(_msgpack.encode_request(2**32 - 1 - at, "endless", [1.0]), (CLIENT, 4000))
            refusals = [data for data in port.alone if b"busy" in data]
            self.assertTrue(refusals)
            self.assertLessEqual(max(map(len, refusals)), 128)
            self.advance(1.5)
