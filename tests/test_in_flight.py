"""Datagrams under way: which effect they meet when, what is counted, and the bounds."""

from __future__ import annotations

from typing import TYPE_CHECKING

from twisted.trial.unittest import SynchronousTestCase

from twistedudp._in_flight import Direction, InFlight
from twistedudp.impairment import Arrival, Datagram, Link
from twistedudp.interfaces import Unreachable

if TYPE_CHECKING:
    import random
    from collections.abc import Iterable

    from twistedudp.address import Address

CLIENT = ("192.0.2.2", 5000)
OTHER = ("192.0.2.3", 5001)
SERVER = ("192.0.2.1", 10000)


class Recorder:
    """An effect that notes when it meets what, and lets it go on after a delay.

    Attributes:
        met: Time and payload of each datagram.
    """

    def __init__(self, delay: float = 0.0) -> None:
        self.met: list[tuple[float, bytes]] = []
        self._delay = delay

    def __call__(self, datagram: Datagram, now: float, _rng: random.Random, /) -> Iterable[Arrival]:
        """Note and delay."""
        self.met.append((now, datagram.payload))
        return [Arrival(datagram, self._delay)]


def lose(_datagram: Datagram, _now: float, _rng: random.Random, /) -> Iterable[Arrival]:
    """Let nothing pass."""
    return []


def triple(datagram: Datagram, _now: float, _rng: random.Random, /) -> Iterable[Arrival]:
    """Let it pass now, and two more times later."""
    return [Arrival(datagram), Arrival(datagram, 0.5), Arrival(datagram, 0.25)]


def shout(datagram: Datagram, _now: float, _rng: random.Random, /) -> Iterable[Arrival]:
    """Change the payload."""
    return [Arrival(datagram._replace(payload=datagram.payload.upper()))]


def refuse(datagram: Datagram, _now: float, _rng: random.Random, /) -> Iterable[Arrival]:
    """Answer with an ICMP error."""
    error = Unreachable(111, "Connection refused", 3, 3, SERVER[0])
    return [Arrival(Datagram(datagram.destination, datagram.source, datagram.payload, error))]


def draw(datagram: Datagram, _now: float, rng: random.Random, /) -> Iterable[Arrival]:
    """Write a random number into the payload."""
    return [Arrival(datagram._replace(payload=b"%d" % rng.getrandbits(32)))]


class InFlightTests(SynchronousTestCase):
    """One direction, driven by hand."""

    def setUp(self) -> None:
        """Make the link."""
        self.link = Link(7, "to server", 0.0)
        self.arrived: list[tuple[bytes, Address]] = []
        self.direction = Direction(self.link, self.arrive)
        self.in_flight = InFlight()

    def arrive(self, datagram: Datagram, client: Address) -> None:
        """Note what comes out."""
        self.arrived.append((datagram.payload, client))

    def send(self, payload: bytes, now: float, client: Address = CLIENT) -> None:
        """Send a datagram."""
        self.in_flight.send(Datagram(client, SERVER, payload), self.direction, client, now)

    def counted(self, label: str) -> tuple[int, int, int, int]:
        """Return the counters of an effect."""
        effect = self.direction.stats.effects[label]
        return effect.lost, effect.refused, effect.added, effect.changed

    def test_nothing_in_the_way(self) -> None:
        """Without effects a datagram arrives at once, and nothing waits."""
        self.send(b"a", 1.0)
        self.assertEqual(self.arrived, [(b"a", CLIENT)])
        self.assertEqual((len(self.in_flight), self.in_flight.next_due), (0, None))

    def test_each_effect_at_its_own_time(self) -> None:
        """An effect behind a delay is called with the time at which the datagram is there, however late that is run."""
        before, behind = Recorder(0.02), Recorder(0.03)
        self.link.add(before)
        self.link.add(behind)
        self.send(b"a", 1.0)
        self.assertEqual(behind.met, [])
        self.assertEqual(self.in_flight.next_due, 1.02)
        self.in_flight.run(1.9)
        self.assertEqual((before.met, behind.met), ([(1.0, b"a")], [(1.02, b"a")]))
        self.assertEqual(self.arrived, [(b"a", CLIENT)])

    def test_not_early(self) -> None:
        """What is due later stays."""
        self.link.add(Recorder(0.02))
        self.send(b"a", 1.0)
        self.in_flight.run(1.0199)
        self.assertEqual(self.arrived, [])
        self.in_flight.run(1.02)
        self.assertEqual(self.arrived, [(b"a", CLIENT)])

    def test_order_of_time(self) -> None:
        """What is due goes on before a new datagram enters: each effect sees its datagrams in order of time."""
        behind = Recorder()
        self.link.add(lambda datagram, _now, _rng: [Arrival(datagram, 0.02 if datagram.payload == b"slow" else 0.0)])
        self.link.add(behind)
        self.send(b"slow", 1.0)
        self.send(b"fast", 1.5, OTHER)
        self.assertEqual(behind.met, [(1.02, b"slow"), (1.5, b"fast")])
        self.assertEqual(self.arrived, [(b"slow", CLIENT), (b"fast", OTHER)])

    def test_equal_times(self) -> None:
        """What is due at the same time leaves in the order in which it was sent."""
        self.link.add(Recorder(0.02))
        for number in range(20):
            self.send(b"%d" % number, 1.0)
        self.in_flight.run(2.0)
        self.assertEqual([payload for payload, _ in self.arrived], [b"%d" % number for number in range(20)])

    def test_constant_delay(self) -> None:
        """The link's own delay comes behind those of the effects."""
        self.link.delay = 0.5
        self.link.add(Recorder(0.25))
        self.send(b"a", 1.0)
        self.in_flight.run(1.25)
        self.assertEqual((self.arrived, self.in_flight.next_due), ([], 1.75))
        self.in_flight.run(1.75)
        self.assertEqual(self.arrived, [(b"a", CLIENT)])

    def test_effects_when_sent(self) -> None:
        """A datagram meets the effects that the link had when it was sent."""
        self.link.add(Recorder(0.5))
        self.send(b"a", 1.0)
        self.link.clear()
        self.link.add(lose)
        self.link.add(lose)
        self.in_flight.run(2.0)
        self.assertEqual(self.arrived, [(b"a", CLIENT)])

    def test_counted(self) -> None:
        """What each effect lost, refused, added and changed, and what set out and arrived."""
        for effect, expected, arrived in (
            (lose, (1, 0, 0, 0), 0),
            (refuse, (0, 1, 0, 0), 0),
            (triple, (0, 0, 2, 0), 3),
            (shout, (0, 0, 0, 1), 1),
        ):
            self.setUp()
            self.link.add(effect)
            self.send(b"a", 1.0)
            self.in_flight.run(2.0)
            self.assertEqual(self.counted(effect.__name__), expected)
            stats = self.direction.stats
            self.assertEqual((stats.sent, stats.arrived, len(self.arrived)), (1, arrived, arrived))
            self.assertEqual(stats.lost, sum(expected[:2]))

    def test_copies(self) -> None:
        """Each copy goes through what comes behind, at its own time."""
        behind = Recorder()
        self.link.add(triple)
        self.link.add(behind)
        self.send(b"a", 1.0)
        self.in_flight.run(2.0)
        self.assertEqual([now for now, _ in behind.met], [1.0, 1.25, 1.5])

    def test_seed(self) -> None:
        """The draws depend on the seed and the names of link and effect."""
        self.link.add(draw)
        self.send(b"", 1.0)
        first = self.arrived[0][0]
        for seed, name, same in ((7, "to server", True), (8, "to server", False), (7, "to client", False)):
            self.setUp()
            self.direction = Direction(Link(seed, name, 0.0), self.arrive)
            self.direction.link.add(draw)
            self.send(b"", 1.0)
            self.assertEqual(self.arrived[0][0] == first, same)

    def test_bound_of_datagrams(self) -> None:
        """Too many under way: the new one is dropped and counted; when one has arrived there is room again."""
        self.in_flight = InFlight(max_datagrams=2)
        self.link.add(Recorder(0.5))
        for number in range(3):
            self.send(b"%d" % number, 1.0)
        self.assertEqual((len(self.in_flight), self.direction.stats.overflowed), (2, 1))
        self.send(b"3", 1.5)
        self.in_flight.run(2.0)
        self.assertEqual([payload for payload, _ in self.arrived], [b"0", b"1", b"3"])

    def test_bound_of_bytes(self) -> None:
        """Too many bytes under way, likewise; they are given back exactly."""
        self.in_flight = InFlight(max_bytes=10)
        self.link.add(Recorder(0.5))
        self.send(b"12345", 1.0)
        self.send(b"123456", 1.0)
        self.send(b"12345", 1.0)
        self.assertEqual((self.in_flight.bytes, self.direction.stats.overflowed), (10, 1))
        self.in_flight.run(2.0)
        self.assertEqual((self.in_flight.bytes, len(self.arrived)), (0, 2))

    def test_clear(self) -> None:
        """What is under way can be forgotten."""
        self.link.add(Recorder(0.5))
        self.send(b"12345", 1.0)
        self.assertEqual((self.in_flight.clear(), self.in_flight.bytes, self.in_flight.next_due), (1, 0, None))
        self.in_flight.run(9.0)
        self.assertEqual(self.arrived, [])
