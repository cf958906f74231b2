"""What all effects have in common."""

from __future__ import annotations

import math
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

import twistedudp
from tests.impairment.links import rng
from twistedudp.impairment import (
    MTU,
    BurstLoss,
    Corrupt,
    Delay,
    Duplicate,
    Effect,
    EffectError,
    Jitter,
    Loss,
    PortUnreachable,
    Reorder,
    Truncate,
)
from twistedudp.impairment._effect import checked_number, checked_whole, delay_until

Make = Callable[[Any], Effect]

PROBABILITIES: list[tuple[Make, str]] = [
    (Loss, "probability"),
    (lambda value: BurstLoss(value, 0.5), "enter"),
    (lambda value: BurstLoss(0.5, value), "leave"),
    (lambda value: BurstLoss(0.5, 0.5, value), "loss_in_good"),
    (lambda value: BurstLoss(0.5, 0.5, 0.5, value), "loss_in_bad"),
    (lambda value: BurstLoss.from_means(value, 4), "loss"),
    (Duplicate, "probability"),
    (Reorder, "probability"),
    (Corrupt, "probability"),
    (Truncate, "probability"),
    (PortUnreachable, "probability"),
]
TIMES: list[tuple[Make, str]] = [
    (Delay, "seconds"),
    (Jitter, "seconds"),
    (lambda value: Duplicate(0.5, value), "delay"),
    (lambda value: Reorder(0.5, value), "hold"),
]
WHOLE: list[tuple[Make, str]] = [
    (lambda value: Corrupt(0.5, value), "bits"),
    (lambda value: Truncate(0.5, value), "size"),
    (MTU, "size"),
]


class ArgumentTests(SynchronousTestCase):
    """Arguments are checked when an effect is made."""

    def test_probabilities(self) -> None:
        """A probability is a number from 0 to 1, and the error names the argument."""
        for make, parameter in PROBABILITIES:
            for value in (-0.001, 1.001, 5, math.nan, math.inf, "5%", None, True):
                error = self.assertRaises(EffectError, make, value)
                self.assertEqual(error.parameter, parameter)
                self.assertIn(f"{parameter} must be ", str(error))
            make(0.25)

    def test_times(self) -> None:
        """A time is a number from 0 to an hour."""
        for make, parameter in TIMES:
            for value in (-0.001, 3600.001, math.nan, math.inf, "1s", None, False):
                error = self.assertRaises(EffectError, make, value)
                self.assertEqual(error.parameter, parameter)
                self.assertIn("3,600 seconds", str(error))
            make(3600)

    def test_whole_numbers(self) -> None:
        """A size or count is a whole number."""
        for make, parameter in WHOLE:
            for value in (-1, 600_000, 70.5, "100", True, math.nan):
                error = self.assertRaises(EffectError, make, value)
                self.assertEqual(error.parameter, parameter)
            make(1000)

    def test_texts(self) -> None:
        """The error says what is allowed and what was given, in a bounded line."""
        error = self.assertRaises(EffectError, checked_number, "speed", 7, 1, 5, " m/s")
        self.assertEqual(str(error), "speed must be a number from 1 to 5 m/s, not 7")
        error = self.assertRaises(EffectError, checked_number, "speed", 1, 1, 5, " m/s", above=True)
        self.assertEqual(str(error), "speed must be above 1 and at most 5 m/s, not 1")
        error = self.assertRaises(EffectError, checked_whole, "count", 2000, 1, 1500, "")
        self.assertEqual(str(error), "count must be a whole number from 1 to 1,500, not 2000")
        self.assertLess(len(str(self.assertRaises(EffectError, Loss, "x" * 9999))), 120)

    def test_bounds_are_allowed(self) -> None:
        """Both ends of a range belong to it, unless it is said to be above its lower end."""
        self.assertEqual([checked_number("x", value, 1, 5, "") for value in (1, 5)], [1.0, 5.0])
        self.assertEqual(checked_number("x", 1.001, 1, 5, "", above=True), 1.001)
        self.assertEqual([checked_whole("x", value, 1, 5, "") for value in (1, 5)], [1, 5])


class DelayUntilTests(SynchronousTestCase):
    """A delay that rounding does not shorten."""

    def test_never_early(self) -> None:
        """At the end of the delay the moment has come, and hardly more."""
        generator = rng()
        corrected = 0
        for _ in range(100_000):
            now = generator.random() * 10 ** generator.randrange(-3, 7)
            moment = now * (1 + generator.random() * 10 ** generator.randrange(-9, 2))
            delay = delay_until(now, moment)
            self.assertGreaterEqual(now + delay, moment)
            self.assertLessEqual(now + delay, moment + 2 * math.ulp(moment))
            corrected += delay != moment - now
        self.assertGreater(corrected, 0)

    def test_now(self) -> None:
        """Where it has come already, there is no delay."""
        self.assertEqual(delay_until(5.0, 5.0), 0.0)


class ImportTests(SynchronousTestCase):
    """Effects are used where a program starts."""

    def test_import_is_light(self) -> None:
        """Importing them imports no reactor, no codec and no port."""
        done = subprocess.run(
            [sys.executable, "-c", "import sys, twistedudp.impairment; print(*sys.modules)"],
            env={"PYTHONPATH": str(Path(twistedudp.__file__).parent.parent)},
            capture_output=True,
            text=True,
            check=True,
            timeout=60,
        )
        loaded = set(done.stdout.split())
        heavy = {"twisted.internet.reactor", "msgpack", "msgspec", "click", "rich", "twistedudp.transport"}
        self.assertEqual(loaded & heavy, set())
        self.assertIn("twistedudp.impairment._nat", loaded)
