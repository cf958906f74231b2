"""Effects on what datagrams carry."""

from __future__ import annotations

import errno
from collections import Counter

from twisted.trial.unittest import SynchronousTestCase

from tests.impairment.links import (
    ASK,
    ASK6,
    BROADCAST,
    CLIENT,
    CLIENT6,
    REFUSAL,
    SERVER,
    SERVER6,
    TRIALS,
    likely,
    rng,
    sized,
    stream,
)
from twistedudp.impairment import MTU, Arrival, Corrupt, Datagram, Truncate
from twistedudp.interfaces import Unreachable


def payloads(effect: Corrupt | Truncate, datagram: Datagram, count: int = TRIALS) -> list[bytes]:
    """Return the payloads of a stream, and check that nothing else has changed."""
    arrivals = [arrival for (arrival,) in stream(effect, count, datagram=datagram)]
    assert all(arrival == Arrival(datagram._replace(payload=arrival.datagram.payload)) for arrival in arrivals)
    return [arrival.datagram.payload for arrival in arrivals]


def flipped(before: bytes, after: bytes) -> list[int]:
    """Return the numbers of the bits in which two payloads differ."""
    difference = int.from_bytes(before, "little") ^ int.from_bytes(after, "little")
    return [bit for bit in range(len(before) * 8) if difference >> bit & 1]


class CorruptTests(SynchronousTestCase):
    """Flipped bits."""

    def test_share(self) -> None:
        """The share of changed datagrams is the probability, and these have one flipped bit."""
        counts = Counter(len(flipped(b"ask", payload)) for payload in payloads(Corrupt(0.05), ASK))
        self.assertEqual(set(counts), {0, 1})
        self.assertTrue(likely(counts[1], TRIALS, 0.05))

    def test_every_bit(self) -> None:
        """Each bit is as likely as another."""
        counts = Counter(flipped(b"ok", payload)[0] for payload in payloads(Corrupt(1), ASK._replace(payload=b"ok")))
        self.assertEqual(set(counts), set(range(16)))
        for bit, count in counts.items():
            self.assertTrue(likely(count, TRIALS, 1 / 16), bit)

    def test_several_bits(self) -> None:
        """So many different bits are flipped, and never more than there are; the length stays."""
        for size in (1, 2, 100):
            for payload in payloads(Corrupt(1, 13), sized(size), 200):
                self.assertEqual(len(payload), size)
                self.assertEqual(len(flipped(bytes(size), payload)), min(13, size * 8))

    def test_left_alone(self) -> None:
        """Empty datagrams and ICMP errors pass as they are."""
        for datagram in (sized(0), REFUSAL):
            self.assertEqual(list(Corrupt(1)(datagram, 0.0, rng())), [Arrival(datagram)])


class TruncateTests(SynchronousTestCase):
    """Cut ends."""

    def test_share(self) -> None:
        """The share of cut datagrams is the probability."""
        cut = [payload for payload in payloads(Truncate(0.05), sized(100)) if len(payload) < 100]
        self.assertTrue(likely(len(cut), TRIALS, 0.05))

    def test_random_size(self) -> None:
        """Each length from none to all but one is as likely as another, and what is left is the beginning."""
        found = payloads(Truncate(1), ASK._replace(payload=b"01234567"))
        self.assertTrue(all(b"01234567".startswith(payload) for payload in found))
        counts = Counter(map(len, found))
        self.assertEqual(set(counts), set(range(8)))
        for size, count in counts.items():
            self.assertTrue(likely(count, TRIALS, 1 / 8), size)

    def test_size(self) -> None:
        """A size that is told is kept; what is shorter passes whole."""
        for size, left in ((0, 0), (99, 99), (100, 100), (101, 100), (5000, 100)):
            self.assertEqual({len(payload) for payload in payloads(Truncate(1, 100), sized(size), 10)}, {left})
        self.assertEqual(payloads(Truncate(1, 0), ASK, 1), [b""])

    def test_left_alone(self) -> None:
        """Empty datagrams and ICMP errors pass as they are."""
        for datagram in (sized(0), REFUSAL):
            self.assertEqual(list(Truncate(1)(datagram, 0.0, rng())), [Arrival(datagram)])


class MTUTests(SynchronousTestCase):
    """A largest size."""

    def passes(self, effect: MTU, datagram: Datagram) -> bool:
        """Tell whether a datagram passes; if not, nothing comes."""
        arrivals = list(effect(datagram, 0.0, rng()))
        self.assertIn(arrivals, ([], [Arrival(datagram)]))
        return bool(arrivals)

    def test_headers_count(self) -> None:
        """An MTU of 1,500 passes 1,472 bytes of payload, 1,452 with IPv6."""
        for datagram, most in ((ASK, 1472), (ASK6, 1452)):
            self.assertTrue(self.passes(MTU(1500), sized(most, datagram)))
            self.assertFalse(self.passes(MTU(1500), sized(most + 1, datagram)))

    def test_icmp(self) -> None:
        """The sender is told if wanted: type 3 code 4, which quotes as much as an ICMP error does."""
        error = Unreachable(errno.EMSGSIZE, "Message too long", 3, 4, "")
        self.assertEqual(
            list(MTU(1500, icmp=True)(sized(1473), 0.0, rng())), [Arrival(Datagram(SERVER, CLIENT, bytes(520), error))]
        )

    def test_icmp_ipv6(self) -> None:
        """With IPv6 that is type 2."""
        error = Unreachable(errno.EMSGSIZE, "Message too long", 2, 0, "")
        self.assertEqual(
            list(MTU(1280, icmp=True)(sized(1233, ASK6), 0.0, rng())),
            [Arrival(Datagram(SERVER6, CLIENT6, bytes(1184), error))],
        )

    def test_group(self) -> None:
        """Nobody is told about a broadcast."""
        self.assertFalse(self.passes(MTU(100, icmp=True), sized(101, BROADCAST)))

    def test_errors(self) -> None:
        """ICMP errors pass."""
        self.assertTrue(self.passes(MTU(68, icmp=True), sized(520, REFUSAL)))
