"""Effects on when datagrams arrive."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

from twisted.trial.unittest import SynchronousTestCase

from tests.impairment.links import ASK, ASK6, REFUSAL, TRIALS, likely, rng, sized, stream, times
from twistedudp.impairment import Arrival, Delay, Duplicate, EffectError, Jitter, Rate, Reorder


class DelayTests(SynchronousTestCase):
    """The same for all."""

    def test_delay(self) -> None:
        """Datagrams and ICMP errors arrive so much later, unchanged."""
        for datagram in (ASK, REFUSAL):
            self.assertEqual(list(Delay(0.25)(datagram, 7.0, rng())), [Arrival(datagram, 0.25)])


class JitterTests(SynchronousTestCase):
    """A random time more."""

    def delays(self, effect: Jitter) -> list[float]:
        """Return the delays of a stream."""
        return [arrival.delay for (arrival,) in stream(effect)]

    def test_even(self) -> None:
        """Delays are from 0 to the limit, each tenth of the range as likely as another."""
        delays = self.delays(Jitter(0.5))
        self.assertGreaterEqual(min(delays), 0.0)
        self.assertLessEqual(max(delays), 0.5)
        tenths = Counter(int(delay / 0.05) for delay in delays)
        self.assertEqual(set(tenths), set(range(10)))
        for tenth, count in tenths.items():
            self.assertTrue(likely(count, TRIALS, 0.1), tenth)

    def test_reorders(self) -> None:
        """Without keep_order, what comes close behind may overtake."""
        arrivals = [number * 0.01 + delay for number, delay in enumerate(self.delays(Jitter(0.5)))]
        self.assertTrue(any(second < first for first, second in pairwise(arrivals)))

    def test_keep_order(self) -> None:
        """With it nothing overtakes, the limit holds all the same, and who is alone gets the full range."""
        delays = self.delays(Jitter(0.5, keep_order=True))
        arrivals = [number * 0.01 + delay for number, delay in enumerate(delays)]
        self.assertTrue(all(second >= first for first, second in pairwise(arrivals)))
        self.assertLessEqual(max(delays), 0.5 + 1e-9)
        alone = [arrival.delay for (arrival,) in stream(Jitter(0.5, keep_order=True), interval=1.0)]
        self.assertTrue(likely(sum(delay < 0.05 for delay in alone), TRIALS, 0.1))

    def test_errors(self) -> None:
        """ICMP errors are delayed as datagrams are."""
        self.assertGreater(len(set(times(Jitter(1.0), [0.0] * 10, datagram=REFUSAL))), 9)


class ReorderTests(SynchronousTestCase):
    """Held back, so that others overtake."""

    def held(self, effect: Reorder, seed: int = 1) -> list[bool]:
        """Return for each datagram of a stream whether it was held back, and check for how long."""
        delays = [arrival.delay for (arrival,) in stream(effect, seed=seed)]
        self.assertLessEqual(set(delays), {0.0, effect.hold})
        return [delay > 0 for delay in delays]

    def test_share(self) -> None:
        """The share of held ones is the probability: in pairs of neighbours, which hold at most one, twice that."""
        for probability in (0.01, 0.2, 0.5):
            held = self.held(Reorder(probability))
            pairs = [held[index] or held[index + 1] for index in range(0, TRIALS, 50)]
            self.assertTrue(likely(sum(pairs), len(pairs), 2 * probability), probability)

    def test_share_after_one_that_passed(self) -> None:
        """Independently of all before, one that does not follow a held one is held with p / (1 - p)."""
        held = self.held(Reorder(0.2))
        free = [second for first, second in pairwise(held) if not first][:10_000]
        self.assertTrue(likely(sum(free), 10_000, 0.25))

    def test_first(self) -> None:
        """The first datagram is held as often as any other."""
        generator = rng()
        first = [next(iter(Reorder(0.2)(ASK, 0.0, generator))).delay > 0 for _ in range(TRIALS)]
        self.assertTrue(likely(sum(first), TRIALS, 0.2))

    def test_really_reorders(self) -> None:
        """Each held one is overtaken by the next, also where as many are held as can be."""
        for probability in (0.02, 0.5):
            arrivals = times(Reorder(probability, hold=0.015), [number * 0.01 for number in range(1000)])
            held = self.held(Reorder(probability, hold=0.015))[:999]
            overtaken = [bool(second and first and second < first) for first, second in pairwise(arrivals)]
            self.assertEqual(overtaken, held)
            self.assertIn(True, held)

    def test_sparse(self) -> None:
        """Where nothing comes in time it is late by the hold, and no more."""
        arrivals = times(Reorder(0.5, hold=0.015), [float(number) for number in range(10)])
        self.assertEqual({round((arrival or 0) % 1, 6) for arrival in arrivals}, {0.0, 0.015})

    def test_errors(self) -> None:
        """ICMP errors are held as datagrams are."""
        self.assertEqual({arrival.delay for (arrival,) in stream(Reorder(0.5), 10, datagram=REFUSAL)}, {0.0, 0.1})

    def test_arguments(self) -> None:
        """More than half cannot be held: each needs one that overtakes it."""
        self.assertEqual(self.assertRaises(EffectError, Reorder, 0.51).parameter, "probability")
        self.assertEqual(self.assertRaises(EffectError, Reorder, 0.5, 0).parameter, "hold")


class DuplicateTests(SynchronousTestCase):
    """Twice."""

    def test_share(self) -> None:
        """The share of doubled datagrams is the probability; none comes three times or not at all."""
        counts = Counter(map(len, stream(Duplicate(0.05))))
        self.assertEqual(set(counts), {1, 2})
        self.assertTrue(likely(counts[2], TRIALS, 0.05))

    def test_delay(self) -> None:
        """The first one is not delayed, and the second as told."""
        self.assertEqual(list(Duplicate(1, 0.5)(ASK, 7.0, rng())), [Arrival(ASK), Arrival(ASK, 0.5)])
        self.assertEqual(list(Duplicate(1)(ASK, 7.0, rng())), [Arrival(ASK), Arrival(ASK)])

    def test_errors(self) -> None:
        """ICMP errors come once."""
        self.assertEqual(list(Duplicate(1)(REFUSAL, 7.0, rng())), [Arrival(REFUSAL)])


class RateTests(SynchronousTestCase):
    """So many bits a second, and a queue."""

    def test_serialization(self) -> None:
        """A datagram arrives when its last bit has been sent, with 28 bytes of headers, or 48 with IPv6."""
        for datagram, headers in ((ASK, 28), (ASK6, 48)):
            self.assertEqual(times(Rate(8000), [5.0], datagram=sized(1000 - headers, datagram)), [6.0])

    def test_error_size(self) -> None:
        """An ICMP error has four headers around what it quotes: 56 bytes, 96 with IPv6."""
        refusal6 = REFUSAL._replace(source=ASK6.destination, destination=ASK6.source)
        for datagram, headers in ((REFUSAL, 56), (refusal6, 96)):
            self.assertEqual(times(Rate(8000), [0.0], datagram=sized(500 - headers, datagram)), [0.5])

    def test_one_after_the_other(self) -> None:
        """What comes at once leaves in order, each after the one before; an idle line starts at once."""
        effect = Rate(8000, queue_seconds=60)
        self.assertEqual(times(effect, [0.0, 0.0, 0.5, 2.75, 10.0], datagram=sized(972)), [1.0, 2.0, 3.0, 4.0, 11.0])

    def test_full_queue_in_seconds(self) -> None:
        """What would wait longer than the queue is lost, and counted; exactly as long is no longer."""
        effect = Rate(8000, queue_seconds=2)
        arrivals = times(effect, [0.0, 0.0, 0.0, 0.0, 0.0, 0.999, 1.0, 1.0], datagram=sized(972))
        self.assertEqual(arrivals, [1.0, 2.0, 3.0, None, None, None, 4.0, None])
        self.assertEqual(effect.dropped, 4)

    def test_full_queue_in_bytes(self) -> None:
        """The same, by what is ahead and unsent."""
        effect = Rate(8000, queue_bytes=1999)
        self.assertEqual(times(effect, [0.0, 0.0, 0.0, 0.001], datagram=sized(972)), [1.0, 2.0, None, 3.0])
        self.assertEqual(effect.dropped, 1)

    def test_no_queue(self) -> None:
        """Without a queue only an idle line takes something, however long that takes."""
        effect = Rate(8, queue_bytes=0)
        self.assertEqual(times(effect, [0.0, 500.0, 999.0, 1000.0], datagram=sized(972)), [1000.0, None, None, 2000.0])

    def test_default_queue(self) -> None:
        """The queue holds a tenth of a second without a word."""
        effect = Rate(1_000_000)
        arrivals = times(effect, [0.0] * 100, datagram=sized(1222))
        self.assertEqual(sum(arrival is not None for arrival in arrivals), 11)

    def test_throughput(self) -> None:
        """Offered twice what it carries, it carries just its rate."""
        effect = Rate(1_000_000, queue_bytes=10_000)
        offered = [number * 0.005 for number in range(2000)]
        arrivals = [arrival for arrival in times(effect, offered, datagram=sized(1222)) if arrival is not None]
        self.assertAlmostEqual(len(arrivals) * 1250 * 8 / max(arrivals), 1_000_000, delta=1)
        self.assertEqual(effect.dropped, 2000 - len(arrivals))

    def test_errors_are_queued(self) -> None:
        """ICMP errors stand in the same queue."""
        effect = Rate(8000, queue_bytes=500)
        list(effect(sized(972), 0.0, rng()))
        self.assertEqual(list(effect(REFUSAL, 0.0, rng())), [])
        ((datagram, delay),) = effect(REFUSAL, 0.5, rng())
        self.assertEqual((datagram, round(delay, 9)), (REFUSAL, 0.559))

    def test_arguments(self) -> None:
        """Rates and queues out of range are refused with the argument's name, and so are two queues."""
        for arguments, parameter in (
            ({"bits_per_second": 0}, "bits_per_second"),
            ({"bits_per_second": 1e12}, "bits_per_second"),
            ({"bits_per_second": 8, "queue_seconds": -1}, "queue_seconds"),
            ({"bits_per_second": 8, "queue_bytes": 2**30 + 1}, "queue_bytes"),
            ({"bits_per_second": 8, "queue_bytes": 1.5}, "queue_bytes"),
            ({"bits_per_second": 8, "queue_bytes": 1, "queue_seconds": 1}, "queue_bytes"),
            ({"bits_per_second": 1e11, "queue_seconds": 0.1}, "queue_seconds"),
        ):
            error = self.assertRaises(EffectError, Rate, **arguments)
            self.assertEqual(error.parameter, parameter, arguments)
