"""The simulated network as a whole: driving it, links, effects, foreign protocols."""

from __future__ import annotations

import tempfile
from typing import TYPE_CHECKING

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.task import LoopingCall, deferLater
from twisted.names import dns, hosts, server
from twisted.python.filepath import FilePath
from twisted.trial.unittest import SynchronousTestCase

from tests.testing.protocols import Echo, ErrorRecorder, Recorder
from twistedudp.interfaces import Unreachable
from twistedudp.testing import Arrival, Datagram, Fate, SimulatedNetwork, SimulationError

if TYPE_CHECKING:
    import random
    from collections.abc import Iterable

    from twistedudp.testing import LinkEffect, SimulatedPort

SERVER = "192.0.2.1"
CLIENT = "192.0.2.2"


class DropEverySecond:
    """An effect: the second, fourth, ... datagram is lost."""

    def __init__(self) -> None:
        self.seen = 0

    def __call__(self, datagram: Datagram, _now: float, _rng: random.Random) -> Iterable[Arrival]:
        """Let every other datagram pass."""
        self.seen += 1
        return [Arrival(datagram)] if self.seen % 2 else []


def twice(datagram: Datagram, _now: float, _rng: random.Random) -> Iterable[Arrival]:
    """Duplicate: the copy leaves half a second later."""
    return [Arrival(datagram), Arrival(datagram, 0.5)]


def late(datagram: Datagram, _now: float, _rng: random.Random) -> Iterable[Arrival]:
    """Hold everything up for two seconds."""
    return [Arrival(datagram, 2.0)]


def jitter(datagram: Datagram, _now: float, rng: random.Random) -> Iterable[Arrival]:
    """Hold everything up for a random time below a second."""
    return [Arrival(datagram, rng.random())]


class NetworkTestCase(SynchronousTestCase):
    """A client and an echo server, one second apart."""

    def setUp(self) -> None:
        """Make the network."""
        self.network = SimulatedNetwork(seed=7, delay=1.0)
        self.server = self.network.reactor(SERVER)
        self.client = self.network.reactor(CLIENT)
        self.server.listenUDP(7, Echo())
        self.recorder = ErrorRecorder(self.client)
        self.port: SimulatedPort = self.client.listenUDP(9, self.recorder)
        self.there = self.network.link(self.client, self.server)
        self.back = self.network.link(self.server, self.client)

    def send(self, *payloads: bytes) -> None:
        """Send these to the echo server."""
        for payload in payloads:
            self.port.write(payload, (SERVER, 7))

    def arrivals(self) -> list[tuple[float, bytes]]:
        """Run until nothing happens any more and return what the client got, and when."""
        self.network.run_until_idle()
        return [(time, payload) for time, payload, _ in self.recorder.received]


class RunTests(NetworkTestCase):
    """Driving the network."""

    def test_run_until_result(self) -> None:
        """It returns the result at the very time at which the Deferred fires."""
        self.assertEqual(self.network.run_until(deferLater(self.client, 3, lambda: "done")), "done")
        self.assertEqual(self.network.clock.seconds(), 3.0)

    def test_run_until_fired_already(self) -> None:
        """A Deferred that has fired needs no time."""
        self.client.callLater(0, self.fail, "time was moved")
        self.assertEqual(self.network.run_until(succeed(5)), 5)

    def test_run_until_failure(self) -> None:
        """It raises what the Deferred fails with."""
        self.assertRaises(ZeroDivisionError, self.network.run_until, fail(ZeroDivisionError()))

    def test_run_until_coroutine(self) -> None:
        """A coroutine does as well."""

        async def wait() -> float:
            await deferLater(self.client, 2)
            return self.client.seconds()

        self.assertEqual(self.network.run_until(wait()), 2.0)

    def test_run_until_too_late(self) -> None:
        """If it has not fired in time that is an error, and a later failure is still reported to others."""
        slow: Deferred[None] = deferLater(self.client, 10, lambda: 1 // 0)  # type: ignore[arg-type]  # never returns
        error = self.assertRaises(SimulationError, self.network.run_until, slow, timeout=9.5)
        self.assertIn("did not fire within 9.5 s", str(error))
        self.network.advance(10)
        self.failureResultOf(slow, ZeroDivisionError)

    def test_run_until_never(self) -> None:
        """If nothing is left that could make it fire, it says so at once."""
        error = self.assertRaises(SimulationError, self.network.run_until, Deferred())
        self.assertIn("nothing is scheduled", str(error))

    def test_run_until_idle(self) -> None:
        """It ends at the last event, and not without it."""
        self.send(b"x")
        self.network.run_until_idle()
        self.assertEqual(self.network.clock.seconds(), 2.0)

    def test_never_idle(self) -> None:
        """A timer without end is an error that names it."""
        loop = LoopingCall(lambda: None)
        loop.clock = self.client
        loop.start(1)
        error = self.assertRaises(SimulationError, self.network.run_until_idle, limit=100)
        self.assertIn("not idle after 100 s", str(error))
        loop.stop()


class LinkTests(NetworkTestCase):
    """The way between two hosts."""

    def test_delay_per_direction(self) -> None:
        """Each direction has its own delay, which holds for what is sent from then on."""
        self.send(b"before")
        self.there.delay = 0.25
        self.send(b"after")
        self.assertEqual(self.arrivals(), [(1.25, b"after"), (2.0, b"before")])

    def test_default_delay(self) -> None:
        """Without a word a datagram takes a millisecond, also from a host to itself."""
        network = SimulatedNetwork()
        reactor = network.reactor()
        recorder = Recorder(reactor)
        reactor.listenUDP(9, recorder).write(b"", ("127.0.0.1", 9))
        network.run_until_idle()
        self.assertEqual([time for time, *_ in recorder.received], [0.001])

    def test_order_is_kept(self) -> None:
        """What is sent at one instant arrives in the order of sending."""
        payloads = [bytes([number]) for number in range(50)]
        self.send(*payloads)
        self.assertEqual([payload for _, payload in self.arrivals()], payloads)

    def test_same_link(self) -> None:
        """A link is named by reactors or addresses, in whatever spelling; an unknown address is an error."""
        six = self.network.reactor("2001:db8::1")
        self.assertIs(self.network.link(CLIENT, SERVER), self.there)
        self.assertIs(self.network.link("2001:DB8::0:1", CLIENT), self.network.link(six, self.client))
        self.assertIsNot(self.there, self.back)
        self.assertRaises(ValueError, self.network.link, CLIENT, "192.0.2.99")

    def test_loopback_stays_on_its_host(self) -> None:
        """127.0.0.1 is another place on each host."""
        self.port.write(b"", ("127.0.0.1", 7))
        self.network.run_until_idle()
        self.assertEqual(len(self.recorder.errors), 1)


class EffectTests(NetworkTestCase):
    """The seam at which effects work."""

    def test_drop_every_second(self) -> None:
        """An effect drops what it does not return, in its direction only, and the trace names it."""
        effect: LinkEffect = DropEverySecond()
        self.there.add(effect)
        self.send(b"1", b"2", b"3", b"4")
        self.assertEqual(self.arrivals(), [(2.0, b"1"), (2.0, b"3")])
        lost = self.network.trace.select(fate=Fate.LOST)
        self.assertEqual(
            [(record.payload, record.cause) for record in lost],
            [(b"2", "DropEverySecond")] * 1 + [(b"4", "DropEverySecond")],
        )
        self.assertEqual(self.there.effects, [effect])

    def test_duplicate(self) -> None:
        """Each copy has a record of its own."""
        self.there.add(twice)
        self.send(b"x")
        self.assertEqual(self.arrivals(), [(2.0, b"x"), (2.5, b"x")])
        copies = self.network.trace.select(destination=(SERVER, 7))
        self.assertEqual([(record.settled_at, record.cause) for record in copies], [(1.0, ""), (1.5, "twice")])

    def test_stacked_in_time(self) -> None:
        """Effects apply in the order of adding, each at the time at which the datagram is there."""
        times: list[float] = []

        def observe(datagram: Datagram, now: float, _rng: random.Random) -> Iterable[Arrival]:
            times.append(now)
            return [Arrival(datagram)]

        self.there.add(late)
        self.there.add(observe)
        self.there.add(twice)
        self.there.add(observe)
        self.send(b"x")
        self.assertEqual(self.arrivals(), [(4.0, b"x"), (4.5, b"x")])
        self.assertEqual(times, [2.0, 2.0, 2.5])
        self.assertEqual(self.there.effects, [late, observe, twice, observe])

    def test_cleared(self) -> None:
        """Effects taken away still apply to what is under way, and not to what is sent later."""
        self.there.add(late)
        self.there.add(DropEverySecond())
        self.send(b"1", b"2")
        self.there.clear()
        self.send(b"3", b"4")
        self.assertEqual(self.arrivals(), [(2.0, b"3"), (2.0, b"4"), (4.0, b"1")])

    def test_change_of_payload(self) -> None:
        """What an effect changes is what arrives, and what the trace tells."""

        def truncate(datagram: Datagram, _now: float, _rng: random.Random) -> Iterable[Arrival]:
            return [Arrival(datagram._replace(payload=datagram.payload[:1]))]

        self.there.add(truncate)
        self.send(b"long")
        self.assertEqual(self.arrivals(), [(2.0, b"l")])
        self.assertEqual((self.network.trace[0].size, self.network.trace[0].payload), (1, b"l"))

    def test_address_translation(self) -> None:
        """Effects of both directions together can play a NAT."""

        def outwards(datagram: Datagram, _now: float, _rng: random.Random) -> Iterable[Arrival]:
            return [Arrival(datagram._replace(source=(CLIENT, 40000)))]

        def inwards(datagram: Datagram, _now: float, _rng: random.Random) -> Iterable[Arrival]:
            return [Arrival(datagram._replace(destination=(CLIENT, 9)))]

        seen = Recorder(self.server)
        self.server.listenUDP(8, seen)
        self.there.add(outwards)
        self.back.add(inwards)
        self.port.write(b"y", (SERVER, 8))
        self.send(b"x")
        self.assertEqual(self.arrivals(), [(2.0, b"x")])
        self.assertEqual(seen.received, [(1.0, b"y", (CLIENT, 40000))])

    def test_redirected_to_another_host(self) -> None:
        """A datagram arrives at the host whose address it has in the end."""
        third = self.network.reactor("192.0.2.3")
        recorder = Recorder(third)
        third.listenUDP(7, recorder)

        def redirect(datagram: Datagram, _now: float, _rng: random.Random) -> Iterable[Arrival]:
            return [Arrival(datagram._replace(destination=("192.0.2.3", 7)))]

        self.there.add(redirect)
        self.send(b"x")
        self.assertEqual(self.arrivals(), [])
        self.assertEqual(recorder.received, [(1.0, b"x", (CLIENT, 9))])
        self.assertEqual(self.network.trace[0].destination, ("192.0.2.3", 7))

    def test_answer_to_source_port_zero(self) -> None:
        """To answer a forged source port 0 raises nothing in the protocol: it is counted, as on a real port."""

        def forge(datagram: Datagram, _now: float, _rng: random.Random) -> Iterable[Arrival]:
            return [Arrival(datagram._replace(source=(CLIENT, 0)))]

        self.there.add(forge)
        self.send(b"x")
        self.assertEqual(self.arrivals(), [])
        self.assertEqual(self.network.trace[-1].fate, Fate.UNROUTABLE)

    def test_router_error(self) -> None:
        """An effect can answer with an ICMP error in place of the datagram."""
        unreachable = Unreachable(113, "No route to host", 3, 1, "192.0.2.254")

        def no_route(datagram: Datagram, _now: float, _rng: random.Random) -> Iterable[Arrival]:
            return [Arrival(Datagram(datagram.destination, datagram.source, datagram.payload[:8], unreachable))]

        self.there.add(no_route)
        self.send(b"0123456789")
        self.network.run_until_idle()
        self.assertEqual(self.recorder.errors, [(1.0, (SERVER, 7), unreachable, b"01234567")])
        self.assertEqual(
            [(record.source, record.destination, record.fate, record.cause) for record in self.network.trace],
            [((CLIENT, 9), (SERVER, 7), "refused", "no_route"), ((SERVER, 7), (CLIENT, 9), "delivered", "no_route")],
        )

    def test_errors_meet_effects(self) -> None:
        """An ICMP error comes back through the effects of its own direction."""
        self.back.add(late)
        self.port.write(b"", (SERVER, 8))
        self.network.run_until_idle()
        self.assertEqual([time for time, *_ in self.recorder.errors], [4.0])

    def test_loopback_meets_effects(self) -> None:
        """What a host sends to itself has a link as well."""
        self.network.link(CLIENT, CLIENT).add(twice)
        self.client.listenUDP(7, Echo())
        self.port.write(b"x", ("127.0.0.1", 7))
        self.assertEqual([time for time, _ in self.arrivals()], [2.0, 2.5, 2.5, 3.0])

    def test_generators_are_independent(self) -> None:
        """What an effect draws depends on the seed and its own place, not on other effects or traffic."""

        def arrival_times(seed: int, *, others: bool) -> list[float]:
            network = SimulatedNetwork(seed, delay=0)
            sender, receiver = network.reactor(SERVER), network.reactor(CLIENT)
            recorder = Recorder(receiver)
            receiver.listenUDP(7, recorder)
            if others:
                network.link(CLIENT, SERVER).add(jitter)
                network.link(SERVER, CLIENT).add(lambda datagram, _, rng: [Arrival(datagram, rng.random() * 0)])
            network.link(SERVER, CLIENT).add(jitter)
            port = sender.listenUDP(8, Echo())
            for _ in range(5):
                port.write(b"", (CLIENT, 7))
            network.run_until_idle()
            return [time for time, *_ in recorder.received]

        self.assertEqual(arrival_times(1, others=False), arrival_times(1, others=True))
        self.assertNotEqual(arrival_times(1, others=False), arrival_times(2, others=False))

    def test_directions_draw_differently(self) -> None:
        """One effect on both directions draws differently on each."""
        drawn: list[float] = []

        def draw(datagram: Datagram, _now: float, rng: random.Random) -> Iterable[Arrival]:
            drawn.append(rng.random())
            return [Arrival(datagram)]

        self.there.add(draw)
        self.back.add(draw)
        self.send(b"")
        self.network.run_until_idle()
        self.assertEqual(len(set(drawn)), 2)

    def test_same_effect_twice(self) -> None:
        """Effects of one name on one link draw differently; in the trace they are numbered."""
        drawn: list[float] = []

        def draw(datagram: Datagram, _now: float, rng: random.Random) -> Iterable[Arrival]:
            drawn.append(rng.random())
            return [Arrival(datagram), Arrival(datagram)]

        self.there.add(draw)
        self.there.add(draw)
        self.there.add(draw, "named")
        self.send(b"")
        self.network.run_until_idle()
        self.assertEqual(len(set(drawn)), len(drawn))
        causes = [record.cause for record in self.network.trace.select(destination=(SERVER, 7))]
        self.assertEqual(sorted(set(causes)), ["", "draw", "draw-2", "named"])


class TraceTests(NetworkTestCase):
    """What the trace tells."""

    def test_record(self) -> None:
        """A record starts with time, from, to, size and fate, and compares with a tuple."""
        self.send(b"abc")
        self.assertEqual(self.network.trace[0][:5], (0.0, (CLIENT, 9), (SERVER, 7), 3, "in flight"))
        self.assertEqual(str(self.network.trace[0].fate), "in flight")
        self.network.run_until_idle()
        self.assertEqual(
            [record[:5] for record in self.network.trace],
            [(0.0, (CLIENT, 9), (SERVER, 7), 3, "delivered"), (1.0, (SERVER, 7), (CLIENT, 9), 3, "delivered")],
        )
        first = self.network.trace[0]
        self.assertEqual((first.settled_at, first.rank, first.payload, first.error), (1.0, 0, b"abc", None))

    def test_select(self) -> None:
        """Records are chosen by source, destination and fate; ICMP errors are not among them."""
        self.send(b"a")
        self.port.write(b"b", (SERVER, 8))
        self.network.run_until_idle()
        trace = self.network.trace
        self.assertEqual(len(trace), 4)
        self.assertEqual([record.payload for record in trace.select()], [b"a", b"b", b"a"])
        self.assertEqual([record.payload for record in trace.select(source=(CLIENT, 9))], [b"a", b"b"])
        self.assertEqual([record.payload for record in trace.select(destination=(SERVER, 8))], [b"b"])
        self.assertEqual([record.payload for record in trace.select(fate=Fate.REFUSED)], [b"b"])

    def test_digest_sees_everything(self) -> None:
        """Another payload, time, address, fate, cause or order gives another digest; the same run the same one."""

        def digest(payloads: list[bytes], *, delay: float = 0.5, port: int = 8, at: float = 0, name: str = "e") -> str:
            network = SimulatedNetwork(delay=delay)
            reactor = network.reactor()
            reactor.listenUDP(7, Echo())
            network.link(reactor, reactor).add(lambda datagram, *_: [Arrival(datagram)] * len(datagram.payload), name)
            sender = reactor.listenUDP(port, Recorder(reactor))
            network.advance(at)
            for payload in payloads:
                sender.write(payload, (reactor.addresses[0], 7))
            network.run_until_idle()
            return network.trace.digest()

        plain = digest([b"a", b"b"])
        self.assertEqual(digest([b"a", b"b"]), plain)
        others = {
            digest([b"b", b"a"]),
            digest([b"a", b""]),
            digest([b"a", b"b"], delay=0.25),
            digest([b"a", b"b"], port=9),
            digest([b"a", b"b"], at=1),
        }
        self.assertEqual(len(others | {plain}), 6)
        self.assertNotEqual(digest([b""], name="e"), digest([b""], name="f"))

    def test_digest_tells_order_of_arrival(self) -> None:
        """Two datagrams that arrive at one instant in another order give another digest."""

        def digest(first: float, second: float) -> str:
            network = SimulatedNetwork(delay=0)
            sender, receiver = network.reactor(), network.reactor()
            receiver.listenUDP(7, Recorder(receiver))
            port = sender.listenUDP(8, Echo())
            delays = {b"a": (first, 1 - first), b"b": (second, 1 - second)}
            for stage in (0, 1):
                network.link(sender, receiver).add(
                    lambda datagram, _now, _rng, stage=stage: [Arrival(datagram, delays[datagram.payload][stage])]
                )
            for payload in delays:
                port.write(payload, (receiver.addresses[0], 7))
            network.run_until_idle()
            return network.trace.digest()

        self.assertNotEqual(digest(0.25, 0.5), digest(0.5, 0.25))

    def test_digest_tells_errors(self) -> None:
        """An ICMP error of another kind gives another digest."""

        def digest(code: int) -> str:
            network = SimulatedNetwork()
            reactor = network.reactor()
            error = Unreachable(111, "Connection refused", 3, code, "192.0.2.254")
            network.link(reactor, reactor).add(
                lambda datagram, *_: [Arrival(Datagram(datagram.destination, datagram.source, b"", error))]
            )
            reactor.listenUDP(7, Recorder(reactor)).write(b"", ("127.0.0.1", 8))
            network.run_until_idle()
            return network.trace.digest()

        self.assertNotEqual(digest(3), digest(13))


class ForeignProtocolTests(SynchronousTestCase):
    """Protocols that know nothing of twistedudp run unchanged."""

    def setUp(self) -> None:
        """Start Twisted's own DNS server on one host and its client on another."""
        folder = tempfile.TemporaryDirectory()  # mktemp() leaves its files behind under pytest
        self.addCleanup(folder.cleanup)
        table = FilePath(folder.name).child("hosts")
        table.setContent(b"192.0.2.80 www.example\n")
        self.network = SimulatedNetwork()
        self.server = self.network.reactor(SERVER)
        self.client = self.network.reactor(CLIENT)
        resolver = hosts.Resolver(table.path.encode())  # type: ignore[no-untyped-call]  # Twisted has not annotated it
        factory = server.DNSServerFactory(clients=[resolver])  # type: ignore[no-untyped-call]  # as above
        serving = dns.DNSDatagramProtocol(factory, reactor=self.server)  # type: ignore[no-untyped-call]  # as above
        serving.noisy = False
        self.listening = self.server.listenUDP(53, serving)
        self.asking = dns.DNSDatagramProtocol(None, reactor=self.client)  # type: ignore[no-untyped-call]  # as above
        self.asking.noisy = False

    def test_dns(self) -> None:
        """A question of twisted.names gets its answer."""
        answer = self.network.run_until(self.asking.query((SERVER, 53), [dns.Query(b"www.example")], timeout=5))
        self.assertEqual([str(record.payload) for record in answer.answers], ["<A address=192.0.2.80 ttl=3600>"])
        self.assertEqual(self.network.clock.seconds(), 0.002)
        self.assertEqual(self.client.getDelayedCalls(), [])

    def test_dns_timeout(self) -> None:
        """Without a server the question times out at its own time."""
        self.network.run_until(self.listening.stopListening())  # type: ignore[arg-type]  # it listens: a Deferred
        question = self.asking.query((SERVER, 53), [dns.Query(b"www.example")], timeout=5)
        self.assertRaises(dns.DNSQueryTimeoutError, self.network.run_until, question)
        self.assertEqual(self.network.clock.seconds(), 5.0)
