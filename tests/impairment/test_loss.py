"""Effects that lose datagrams."""

from __future__ import annotations

import errno
import math
from itertools import pairwise

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
    times,
)
from twistedudp.impairment import Arrival, BurstLoss, Datagram, EffectError, Loss, Partition, PortUnreachable
from twistedudp.interfaces import Unreachable


def lost(effect: Loss | BurstLoss, count: int = TRIALS, seed: int = 1, datagram: Datagram = ASK) -> list[bool]:
    """Return for each datagram of a stream whether it was lost."""
    return [not arrivals for arrivals in stream(effect, count, seed=seed, datagram=datagram)]


class LossTests(SynchronousTestCase):
    """Each datagram by itself."""

    def test_share(self) -> None:
        """The share of lost datagrams is the probability, for small ones and large ones."""
        for probability in (0.001, 0.05, 0.3, 0.9):
            self.assertTrue(likely(sum(lost(Loss(probability))), TRIALS, probability), probability)

    def test_independent(self) -> None:
        """What follows a loss is lost as often as what follows none."""
        outcome = lost(Loss(0.3))
        after = [second for first, second in pairwise(outcome) if first][:5000]
        self.assertTrue(likely(sum(after), 5000, 0.3))

    def test_never_and_always(self) -> None:
        """0 loses nothing and 1 everything."""
        self.assertEqual(sum(lost(Loss(0))), 0)
        self.assertEqual(sum(lost(Loss(1))), TRIALS)

    def test_passes_unchanged(self) -> None:
        """What passes does so at once, and as it is."""
        self.assertEqual(list(Loss(0)(ASK, 5.0, rng())), [Arrival(ASK, 0.0)])

    def test_errors_are_lost(self) -> None:
        """ICMP errors are lost as datagrams are."""
        self.assertTrue(likely(sum(lost(Loss(0.3), datagram=REFUSAL)), TRIALS, 0.3))


class BurstLossTests(SynchronousTestCase):
    """Gilbert and Elliott's model."""

    def test_transitions(self) -> None:
        """Where a good link loses nothing and a bad one everything, losses show the state, which changes as told."""
        outcome = lost(BurstLoss(0.2, 0.4), 5 * TRIALS)
        after_good = [second for first, second in pairwise(outcome) if not first][:TRIALS]
        after_bad = [second for first, second in pairwise(outcome) if first][:TRIALS]
        self.assertEqual((len(after_good), len(after_bad)), (TRIALS, TRIALS))
        self.assertTrue(likely(sum(after_good), TRIALS, 0.2))
        self.assertTrue(likely(sum(after_bad), TRIALS, 0.6))

    def test_first(self) -> None:
        """The very first datagram is lost with the mean probability: a short run is not better than a long one."""
        effects = [BurstLoss(0.1, 0.3, 0.04, 0.8) for _ in range(TRIALS)]
        generator = rng()
        first = [not list(effect(ASK, 0.0, generator)) for effect in effects]
        self.assertTrue(likely(sum(first), TRIALS, 0.23))

    def test_loss_in_good(self) -> None:
        """A link that never turns bad loses with the probability of the good state."""
        self.assertTrue(likely(sum(lost(BurstLoss(0, 1, 0.07, 1.0))), TRIALS, 0.07))

    def test_loss_in_bad(self) -> None:
        """A link that is hardly ever good loses with the probability of the bad state."""
        self.assertTrue(likely(sum(lost(BurstLoss(1, 1e-12, 0.0, 0.8))), TRIALS, 0.8))

    def test_means(self) -> None:
        """The means are those of the theory: p / (p + r) of the time it is bad, for 1 / r datagrams."""
        effect = BurstLoss(0.1, 0.3, 0.04, 0.8)
        self.assertAlmostEqual(effect.mean_loss, 0.25 * 0.8 + 0.75 * 0.04)
        self.assertAlmostEqual(effect.mean_burst, 10 / 3)

    def test_from_means(self) -> None:
        """The simple case has the means that it was made from, and loses all or nothing."""
        effect = BurstLoss.from_means(loss=0.05, burst=4)
        self.assertAlmostEqual(effect.mean_loss, 0.05)
        self.assertAlmostEqual(effect.mean_burst, 4)
        self.assertEqual((effect.loss_in_good, effect.loss_in_bad), (0.0, 1.0))

    def test_bursts_are_bursts(self) -> None:
        """5 % in bursts of 4 has about a quarter as many bursts as losses, where independent losses have nearly all."""
        outcome = lost(BurstLoss.from_means(0.05, 4), 10 * TRIALS)
        ends = [not second for first, second in pairwise(outcome) if first][:5000]
        self.assertEqual(len(ends), 5000)
        self.assertTrue(likely(sum(ends), 5000, 0.25))

    def test_most_that_bursts_allow(self) -> None:
        """The greatest share for a length is allowed: every burst is followed by one datagram that passes."""
        for burst in (1, 1.5, 3, 4, 9, 49):  # 4 and 9: where rounding would make more than 1 of it
            effect = BurstLoss.from_means(burst / (burst + 1), burst)
            self.assertAlmostEqual(effect.enter, 1.0)
        for seed in range(10):
            self.assertTrue(
                all(first != second for first, second in pairwise(lost(BurstLoss.from_means(0.5, 1), 9, seed)))
            )

    def test_impossible_means(self) -> None:
        """A share that the length does not allow is refused, and the error says what it does allow."""
        error = self.assertRaises(EffectError, BurstLoss.from_means, 0.9, 2)
        self.assertEqual(error.parameter, "loss")
        self.assertIn("at most 0.6667 in bursts of 2", str(error))
        self.assertRaises(EffectError, BurstLoss.from_means, 0.1, 0.5)

    def test_never_leaving(self) -> None:
        """A bad state that never ends is refused: it is no burst."""
        error = self.assertRaises(EffectError, BurstLoss, 0.1, 0)
        self.assertEqual(str(error), "leave must be above 0 and at most 1 (100%), not 0")

    def test_errors_are_lost(self) -> None:
        """ICMP errors are lost as datagrams are."""
        self.assertEqual(lost(BurstLoss(1, 1e-12), 10, datagram=REFUSAL), [True] * 10)


class PartitionTests(SynchronousTestCase):
    """Nothing passes, for a time."""

    def test_windows(self) -> None:
        """A window includes its first moment and not its last."""
        effect = Partition([(1, 2), (4, 5)])
        moments = [0.0, 0.999, 1.0, 1.999, 2.0, 3.0, 4.0, 4.5, 5.0]
        passed = [0.0, 0.999, None, None, 2.0, 3.0, None, None, 5.0]
        self.assertEqual(times(effect, moments), passed)

    def test_for_ever(self) -> None:
        """A window may have no end."""
        self.assertEqual(times(Partition([(3, math.inf)]), [2.9, 3.0, 1e9]), [2.9, None, None])

    def test_periods(self) -> None:
        """Each period begins dark, and the first one at the start."""
        moments = [0.0, 4.9, 5.0, 6.9, 7.0, 11.9, 12.0, 700.0, 705.5]
        passed = [None, None, 5.0, 6.9, None, None, 12.0, None, 705.5]
        self.assertEqual(times(Partition(dark=5, light=2), moments), passed)

    def test_periods_from_a_start(self) -> None:
        """Before the start everything passes."""
        moments = [0.0, 9.9, 10.0, 11.9, 12.0, 21.9, 22.0]
        self.assertEqual(
            times(Partition(dark=2, light=10, start=10), moments), [0.0, 9.9, None, None, 12.0, 21.9, None]
        )
        self.assertEqual(times(Partition(dark=2, light=10, start=30), [6.5, 18.5, 30.5]), [6.5, 18.5, None])

    def test_by_hand(self) -> None:
        """It may be cut and healed at any time; windows go on meanwhile."""
        effect = Partition([(2, 3)])
        self.assertFalse(effect.is_cut)
        effect.cut()
        self.assertTrue(effect.is_cut)
        self.assertEqual(times(effect, [0.0, 1.0]), [None, None])
        effect.heal()
        self.assertEqual(times(effect, [1.0, 2.0, 3.0]), [1.0, None, 3.0])

    def test_cut_at_first(self) -> None:
        """It may be cut from the beginning."""
        self.assertEqual(times(Partition(cut=True), [0.0]), [None])

    def test_errors_are_lost(self) -> None:
        """ICMP errors are lost as datagrams are, and pass unchanged where datagrams do."""
        effect = Partition([(1, 2)])
        self.assertEqual(list(effect(REFUSAL, 1.0, rng())), [])
        self.assertEqual(list(effect(REFUSAL, 2.0, rng())), [Arrival(REFUSAL)])

    def test_arguments(self) -> None:
        """What is no window, and half a period, is refused with the argument's name."""
        for arguments, parameter in (
            ({"windows": [5]}, "windows"),
            ({"windows": [(1, 2, 3)]}, "windows"),
            ({"windows": [(-1, 2)]}, "windows: begin"),
            ({"windows": [(2, 2)]}, "windows: end"),
            ({"windows": [(1, 2)] * 1001}, "windows"),
            ({"dark": 5}, "light"),
            ({"start": 5}, "start"),
            ({"light": 5}, "light"),
            ({"dark": -1, "light": 1}, "dark"),
            ({"dark": 1, "light": 1, "start": math.inf}, "start"),
        ):
            error = self.assertRaises(EffectError, Partition, **arguments)
            self.assertEqual(error.parameter, parameter, arguments)
        self.assertTrue(Partition([(1, 2)] * 1000).blocks(1.5))


class PortUnreachableTests(SynchronousTestCase):
    """Lost, and the sender is told."""

    def test_share(self) -> None:
        """The share that is refused is the probability; the others pass."""
        arrivals = stream(PortUnreachable(0.3))
        refused = [found for (found,) in arrivals if found.datagram.error]
        self.assertTrue(likely(len(refused), TRIALS, 0.3))
        self.assertEqual({found for (found,) in arrivals if not found.datagram.error}, {Arrival(ASK)})

    def test_error(self) -> None:
        """The error goes to who sent the datagram, and says what was not reached."""
        (arrival,) = PortUnreachable(1)(ASK, 0.0, rng())
        error = Unreachable(errno.ECONNREFUSED, "Connection refused", 3, 3, SERVER[0])
        self.assertEqual(arrival, Arrival(Datagram(SERVER, CLIENT, b"ask", error)))

    def test_error_ipv6(self) -> None:
        """ICMPv6 has its own type and code."""
        (arrival,) = PortUnreachable(1)(ASK6, 0.0, rng())
        error = Unreachable(errno.ECONNREFUSED, "Connection refused", 1, 4, SERVER6[0])
        self.assertEqual(arrival, Arrival(Datagram(SERVER6, CLIENT6, b"ask", error)))

    def test_quote(self) -> None:
        """It quotes 520 bytes of payload at most, 1,184 with IPv6."""
        for datagram, most in ((ASK, 520), (ASK6, 1184)):
            for size in (most - 1, most, most + 1, 9000):
                (arrival,) = PortUnreachable(1)(sized(size, datagram), 0.0, rng())
                self.assertEqual(len(arrival.datagram.payload), min(size, most))

    def test_nothing_about_errors_and_groups(self) -> None:
        """ICMP errors, broadcasts and multicasts pass: no error may be sent about these."""
        for datagram in (REFUSAL, BROADCAST, ASK._replace(destination=("224.0.0.251", 5353))):
            self.assertEqual(list(PortUnreachable(1)(datagram, 0.0, rng())), [Arrival(datagram)])
