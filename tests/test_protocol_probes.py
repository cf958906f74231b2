"""What the built-in method ``rpc.probe`` answers: sizes, counts, times, and who is not answered so."""

from __future__ import annotations

import random
from collections import Counter
from typing import TYPE_CHECKING, Any

from tests.probing.answers import EPOCH, rpc_answer, wire_of
from tests.simulation import CLIENT, DELAY, PORT, SERVER, Peer, SimulatedTestCase
from tests.test_protocol import BatchTransport
from twistedudp import _msgpack
from twistedudp.messages import Response
from twistedudp.methods import RPCMethods, method
from twistedudp.probing import COUNTS_ONLY, SMALLEST_PROBE, ServerSide, check_of
from twistedudp.probing._sessions import ProbeSessions
from twistedudp.protocol import RPCServerProtocol

if TYPE_CHECKING:
    from twisted.internet.task import Clock

    from twistedudp.address import Address
    from twistedudp.probing import ProbeWire


class Working(RPCMethods):
    """A method that takes time, and one that stops the server.

    Attributes:
        protocol: What serves it.
    """

    protocol: RPCServerProtocol

    def __init__(self, clock: Clock) -> None:
        self.clock = clock

    @method
    def work(self, seconds: float) -> None:
        """Take so long."""
        self.clock.advance(seconds)

    @method
    def stop(self) -> None:
        """Stop the server."""
        self.protocol.doStop()


class AnswerTests(SimulatedTestCase):
    """What the built-in method rpc.probe answers, byte by byte."""

    def setUp(self) -> None:
        """Make a server whose wall clock is the virtual one, and which is handed what comes."""
        super().setUp()
        self.port = BatchTransport()
        self.make()

    def make(self, **options: Any) -> None:
        """Make the server."""
        working = Working(self.network.clock)
        self.protocol = working.protocol = RPCServerProtocol(
            working,
            clock=self.network.clock.seconds,
            wall_clock=lambda: EPOCH + round(self.network.clock.seconds() * 1e9),
            prove_addresses=False,  # each answer is looked at as it is, however short the request
            **options,
        )
        transport: Any = self.port
        self.protocol.transport = transport

    def answers(self, *datagrams: bytes, peer: Address = (CLIENT, 4000)) -> list[bytes]:
        """Return what several datagrams that have come together are answered with."""
        self.port.alone.clear()
        self.port.batches.clear()
        self.protocol.datagrams_received([(datagram, peer) for datagram in datagrams])
        return [*self.port.alone, *(answer for batch in self.port.batches for answer, _ in batch)]

    def told(self, wire: ProbeWire, sequence: int) -> ServerSide:
        """Return what one probe is answered with."""
        [answer] = self.answers(wire.encode(sequence, 0))
        reply = wire.decode_untrusted(answer)
        self.assertEqual((reply.sequence, reply.error), (sequence, ""))
        assert reply.server is not None
        return reply.server

    def test_as_documented(self) -> None:
        """The answer is the one that docs/wire.md has, laid out by hand."""
        probe = wire_of().encode(7, 123)
        for received, duplicates in ((1, 0), (1, 1), (1, 2)):
            now = EPOCH + round(self.network.clock.seconds() * 1e9)
            expected = rpc_answer(probe, received, duplicates, arrived_ns=now, departed_ns=now)
            self.assertEqual(self.answers(probe), [expected])
            self.advance(1.5)

    def test_every_size(self) -> None:
        """Whatever the size of a probe, its answer has the same, and the prober takes it."""
        for size in (*range(SMALLEST_PROBE, 600), 1200, 1472, 4096, 8191, 8192):
            wire = wire_of(session=2**63 + size, size=size)
            [answer] = self.answers(wire.encode(0, 2**64 - 1))
            self.assertEqual(len(answer), size)
            self.assertEqual(wire.decode_untrusted(answer).server, ServerSide(1, 0, EPOCH, EPOCH))

    def test_never_larger(self) -> None:
        """Nor is the answer to any other caller's request larger than it, from 50 bytes on, which is the smallest."""
        for size in range(70):
            for session, msgid in ((0, 0), (2**16, 200), (2**40, 2**20), (2**64 - 1, 2**32 - 1)):
                request = _msgpack.encode_request(msgid, "rpc.probe", [session, size, 0, bytes(range(size))])
                [answer] = self.answers(request)
                response = _msgpack.decode_untrusted(answer)
                assert isinstance(response, Response)
                assert isinstance(response.result, list)
                padding = response.result.pop()
                self.assertEqual((response.msgid, response.error), (msgid, None))
                self.assertEqual(response.result[-1], check_of(response.result[:-1]))
                self.assertTrue(bytes(range(size)).startswith(padding))
                self.assertEqual(len(answer), max(50, min(len(request), 50 + size)))

    def test_padding_too_short(self) -> None:
        """A request that is large by the width of its headers has a smaller answer, with all its padding."""
        request = b"\xdd\0\0\0\4\0\xce\0\0\0\1\xdb\0\0\0\x09rpc.probe\xdd\0\0\0\4"
        request += b"\xcf\0\0\0\0\0\0\0\1" * 3 + b"\xc6\0\0\0\3abc"
        [answer] = self.answers(request)
        self.assertEqual((len(request), len(answer), answer[-4:]), (65, 53, b"\x03abc"))

    def test_counts(self) -> None:
        """Different probes and copies are counted for each series, and told when asked for."""
        wire, other = wire_of(), wire_of(session=2**63)
        self.assertEqual([self.told(wire, sequence)[:2] for sequence in (0, 3, 3, 1)], [(1, 0), (2, 0), (2, 1), (3, 1)])
        self.assertEqual(self.told(other, 0)[:2], (1, 0))
        self.assertEqual([self.told(wire, COUNTS_ONLY)[:2] for _ in range(2)], [(3, 1), (3, 1)])
        [answer] = self.answers(wire.encode(4, 0), peer=(CLIENT, 4001))
        reply = wire.decode_untrusted(answer)
        self.assertEqual(reply.server and reply.server[:2], (1, 0))

    def test_nothing_is_kept(self) -> None:
        """No answer is kept for requests that repeat: each copy is counted, and has its own times."""
        self.make(cache_entries=1)
        self.answers(_msgpack.encode_request(1, "echo", [1]))
        self.assertEqual([self.told(wire_of(), 1)[:2] for _ in range(3)], [(1, 0), (1, 1), (1, 2)])
        self.assertEqual((self.protocol.stats.repeated, self.protocol.stats.responses), (0, 4))
        self.assertEqual(len(self.protocol._responder), 0)

    def test_arrival_by_the_kernel(self) -> None:
        """Each probe of a batch is told the time at which it came itself, where the port knows."""
        wire = wire_of()
        ordinary = [_msgpack.encode_request(number, "echo", [number]) for number in range(3)]
        same = wire.encode(2, 0)
        batch = [b"garbage", wire.encode(0, 0), ordinary[0], ordinary[1], wire.encode(1, 0), same, same, ordinary[2]]
        transport: Any = self.port
        transport.arrival_times = tuple(EPOCH - 1000 + place for place in range(len(batch)))
        answers = [wire.decode_untrusted(answer) for answer in self.answers(*batch) if len(answer) == wire.size]
        self.assertEqual(
            [(reply.sequence, reply.server and reply.server.arrived_ns - EPOCH) for reply in answers],
            [(0, -999), (1, -996), (2, -995), (2, -994)],
        )
        self.assertEqual({reply.server.departed_ns for reply in answers if reply.server}, {EPOCH})

    def test_arrival_by_the_clock(self) -> None:
        """Where it does not, a probe came when its batch did, and departs when all of that has run."""
        wire = wire_of()
        before, after = (_msgpack.encode_request(msgid, "work", [0.25]) for msgid in (1, 2))
        probes = [answer for answer in self.answers(before, wire.encode(0, 0), after) if len(answer) == wire.size]
        server = wire.decode_untrusted(probes[0]).server
        self.assertEqual(server, ServerSide(1, 0, EPOCH, EPOCH + 500_000_000))

    def test_on_a_port(self) -> None:
        """On a port the arrival times are the port's own; a client's call gets the list."""
        wire = wire_of()
        protocol = self.serve_methods(RPCMethods(), wall_clock=lambda: 2 * 10**9)
        peer = Peer()
        sender = self.here.listenUDP(0, peer, "", 65535)
        self.addCleanup(sender.stopListening)
        port: Any = protocol.transport
        port.timestamps = True
        sender.write(wire.encode(0, 0), (SERVER, PORT))
        self.advance(1.0)
        reply = wire.decode_untrusted(peer.received[0][0])
        self.assertEqual(reply.server, ServerSide(1, 0, round(DELAY * 1e9), 2 * 10**9))
        result = self.result(self.client().call("rpc.probe", 1, 5, 0, b"x" * 100))
        self.assertEqual((result[:3], result[6]), ([5, 1, 0], b"x" * len(result[6])))

    def test_notification(self) -> None:
        """A notification is counted, and not answered."""
        notification = _msgpack.encode_notification("rpc.probe", [wire_of().session, 5, 0, b""])
        self.assertEqual(self.answers(notification), [])
        self.assertEqual(self.told(wire_of(), 6)[:2], (2, 0))

    def test_wrong_parameters(self) -> None:
        """What is no probe is an error, like with any method."""
        for params in ([], [1, 2, 3], [-1, 0, 0, b""], [1, 2**32, 3, b""], [1, 2, 3, "padding"]):
            [answer] = self.answers(_msgpack.encode_request(1, "rpc.probe", params))
            response = _msgpack.decode_untrusted(answer)
            assert isinstance(response, Response)
            self.assertIn("wrong_parameter", str(response.error))
        self.assertEqual(len(self.protocol._probes.sessions), 0)

    def test_changed_on_the_way(self) -> None:
        """Probes with changed bytes have one answer or none; none is larger than the probe unless it is an error."""
        rng = random.Random(7)  # noqa: S311  # the same each time
        kinds: Counter[str] = Counter()
        for sequence in range(5000):
            probe = bytearray(wire_of(size=rng.randrange(SMALLEST_PROBE, 90)).encode(sequence, 0))
            for _ in range(rng.randrange(1, 4)):
                probe[rng.randrange(len(probe))] = rng.randrange(256)
            answers = self.answers(bytes(probe))
            kinds[f"{len(answers)} answers"] += 1
            for answer in answers:
                response = _msgpack.decode_untrusted(answer)
                assert isinstance(response, Response)
                kinds["error" if response.error else "result"] += 1
                self.assertTrue(response.error or len(answer) <= len(probe))
        self.assertEqual(kinds["0 answers"] + kinds["1 answers"], 5000)
        for kind in ("0 answers", "1 answers", "error", "result"):
            self.assertGreater(kinds[kind], 300, kind)
        self.assertEqual((len(self.protocol._responder), self.log.warnings), (0, []))

    def test_stop_in_a_batch(self) -> None:
        """A probe whose batch stops the server is answered like what else runs then: that the server stops, once."""
        self.protocol.numPorts = 1
        stop = _msgpack.encode_request(1, "stop", [])
        wire = wire_of()
        answers = [wire.decode_untrusted(answer).error for answer in self.answers(wire.encode(0, 0), stop)]
        self.assertEqual(answers, ["server_stopping"] * 2)

    def test_limit_of_responses(self) -> None:
        """Where responses may not be as large as requests, the error says so."""
        self.make(max_response_size=200)
        self.assertEqual(self.told(wire_of(size=200), 0)[:2], (1, 0))
        wire = wire_of(size=201)
        [answer] = self.answers(wire.encode(0, 0))
        self.assertEqual(wire.decode_untrusted(answer).error, "result_too_large")

    def test_large_ones_are_not_logged(self) -> None:
        """How large a probe is, is the prober's choice: its answer is counted as large, and no warning is logged."""
        for size in (1200, 1201, 8192):
            self.told(wire_of(size=size), 0)
        self.assertEqual((self.protocol.stats.large, self.log.warnings), (2, []))

    def test_evictions_are_counted(self) -> None:
        """Series that had to be forgotten are among the counters."""
        self.protocol._probes.sessions = ProbeSessions(max_sessions=2)
        for session in range(5):
            self.told(wire_of(session=2**63 + session), 0)
        self.assertEqual(self.protocol.stats.probe_sessions_evicted, 3)
        self.assertIn("probe_sessions_evicted=3", repr(self.protocol.stats))
