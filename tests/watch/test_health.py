"""The state machine of ``twistd udpprobe``: a table of sequences, and what holds for every sequence."""

from __future__ import annotations

import random
from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from twistedudp.watch._health import DEGRADED, DOWN, UNKNOWN, UP, Change, Health, Thresholds

SMALL = Thresholds(window=20, degraded_loss=0.2, down_after=3, up_after=2)
"""Degraded at 4 failures of 20 or 2 slow answers, until no more than 2 and 1 for 20 answers."""


def play(health: Health, fates: str) -> list[tuple[int, str, str]]:
    """Feed a machine with fates, ``.`` an answer, ``~`` a slow one, ``x`` a failure; return its changes by number."""
    changes = []
    for number, fate in enumerate(fates):
        change = health.failed("no_answer", "no answer") if fate == "x" else health.answered(slow=fate == "~")
        if change is not None:
            changes.append((number, change.state, change.reason))
    return changes


class TableTests(SynchronousTestCase):
    """Sequences, and each change that they make."""

    def check(self, fates: str, *expected: tuple[int, str, str], thresholds: Thresholds = SMALL) -> Health:
        """Compare the changes of a new machine."""
        health = Health(thresholds)
        self.assertEqual(play(health, fates), list(expected))
        return health

    def test_start(self) -> None:
        """The first answer makes it up; failures first make it down when there were enough."""
        self.assertEqual(Health(SMALL).state, UNKNOWN)
        self.check(".", (0, UP, "answers"))
        self.check("xx.", (2, UP, "answers"))
        self.check("xxx", (2, DOWN, "no_answer"))

    def test_down_and_up(self) -> None:
        """Down takes failures in a row, its end answers in a row, and an outage does not pass through degraded."""
        up = (0, UP, "answers")
        self.check(".xx.xx.", up, (6, DEGRADED, "loss"))
        self.check("." * 20 + "xxx", up, (22, DOWN, "no_answer"))
        self.check(".xxx.x.x..", up, (3, DOWN, "no_answer"), (9, UP, "answers"))
        self.check(".xxxxxxxxxx..", up, (3, DOWN, "no_answer"), (12, UP, "answers"))

    def test_outage_is_forgotten(self) -> None:
        """What was counted before and during an outage makes nobody degraded after it."""
        health = self.check("." * 20 + "x.x.xxx..", (0, UP, "answers"), (26, DOWN, "no_answer"), (28, UP, "answers"))
        self.assertEqual(play(health, "." * 40), [])
        self.assertEqual(play(health, "x.x.x."), [])
        self.assertEqual(play(health, "x."), [(1, DEGRADED, "loss")])

    def test_outage_of_a_degraded_one(self) -> None:
        """One that was degraded before an outage returns to that."""
        self.check(".x.x.x.x.xxx..", (0, UP, "answers"), (8, DEGRADED, "loss"), (11, DOWN, "no_answer"),
                   (13, DEGRADED, "answers"))  # fmt: skip

    def test_degraded_by_loss(self) -> None:
        """The fourth failure of twenty is one too many; twenty answers with no more than two in the window end it."""
        health = self.check("." + "x....." * 3, (0, UP, "answers"))
        self.assertEqual(play(health, "x."), [(1, DEGRADED, "loss")])
        # 4 failures in the window; it has 2 when 7 more answers pushed out the first two, and 20 such end it.
        self.assertEqual(play(health, "." * 60)[0][1:], (UP, "steady"))

    def test_quiet_without_a_break(self) -> None:
        """A failure too many in the quiet time begins it anew."""
        health = self.check(".x.x.x.x.", (0, UP, "answers"), (8, DEGRADED, "loss"))
        first = play(Health(SMALL), ".x.x.x.x." + "." * 60)[-1][0]
        later = play(Health(SMALL), ".x.x.x.x." + "." * (first - 12) + "x.x.x." + "." * 60)[-1][0]
        self.assertGreater(later, first + 10)
        self.assertEqual(health.state, DEGRADED)

    def test_half_as_many(self) -> None:
        """With three failures of twenty for ever, a degraded server stays so, and one that is up stays up."""
        steady = "x.....x.....x......." * 20
        self.check("." * 20 + steady, (0, UP, "answers"))
        health = self.check(".x.x.x.x.", (0, UP, "answers"), (8, DEGRADED, "loss"))
        self.assertEqual(play(health, steady), [])

    def test_degraded_by_delay(self) -> None:
        """One slow answer of twenty is none, two are; the last of them must be long ago."""
        health = self.check("." * 20 + "~", (0, UP, "answers"))
        self.assertEqual(play(health, "...~"), [(3, DEGRADED, "slow")])
        self.assertEqual(play(health, "." * 60), [(34, UP, "steady")])

    def test_relapse(self) -> None:
        """Down again soon after its return: it takes twice as much each time, and it returns to degraded."""
        health = self.check(".xxx..xxx", (0, UP, "answers"), (3, DOWN, "no_answer"), (5, UP, "answers"),
                            (8, DOWN, "no_answer"))  # fmt: skip
        self.assertEqual(health.patience, 2)
        self.assertEqual(play(health, "..."), [])
        self.assertEqual(play(health, "."), [(0, DEGRADED, "relapse")])
        self.assertEqual(play(health, "xxxxx.xxxxx"), [])
        self.assertEqual(play(health, "x"), [(0, DOWN, "no_answer")])
        self.assertEqual(health.patience, 4)
        self.assertEqual(play(health, "........"), [(7, DEGRADED, "relapse")])
        self.assertEqual(play(health, "." * 60), [(19, UP, "steady")])
        self.assertEqual((health.patience, play(health, "xxx")), (1, [(2, DOWN, "no_answer")]))

    def test_patience_has_a_bound(self) -> None:
        """However often it relapses, a window of failures makes it down and a window of answers ends that."""
        health = Health(SMALL)
        play(health, ("x" * 20 + "." * 20)[:39] * 50)
        self.assertLessEqual(health.patience, 20)
        play(health, "x" * 20)
        self.assertEqual(health.state, DOWN)
        play(health, "." * 20)
        self.assertNotEqual(health.state, DOWN)

    def test_name_unknown(self) -> None:
        """A name without an address makes it down at once and once; answers end that."""
        health = Health(SMALL)
        play(health, "..")
        self.assertEqual(health.impossible("name_unknown", "gone"), Change(DOWN, UP, "name_unknown", "gone"))
        self.assertEqual((health.impossible("name_unknown", "gone"), health.reason), (None, "name_unknown"))
        self.assertEqual(play(health, ".."), [(1, UP, "answers")])

    def test_says(self) -> None:
        """Each change has words for people."""
        health = Health(SMALL)
        health.answered()
        for _ in range(2):
            health.failed("no_answer", "no answer within 2 s")
        change = health.failed("no_answer", "no answer within 2 s")
        assert change is not None
        self.assertEqual(change.says, "3 probes in a row failed: no answer within 2 s")

    def test_extremes(self) -> None:
        """One failure may be enough for either state, and a share of 1 switches degraded off."""
        touchy = Thresholds(10, 0.001, 1, 1)
        self.check(".x.x", (0, UP, "answers"), (1, DOWN, "no_answer"), (2, UP, "answers"), (3, DOWN, "no_answer"),
                   thresholds=touchy)  # fmt: skip
        never = Thresholds(10, 1.0, 100, 1)
        self.check("." + "x" * 9 + "." + "x" * 9 + ".", (0, UP, "answers"), thresholds=never)


THRESHOLDS = st.builds(
    Thresholds,
    window=st.integers(10, 60),
    degraded_loss=st.floats(0.001, 1.0),
    down_after=st.integers(1, 20),
    up_after=st.integers(1, 20),
)
FATES = st.lists(st.tuples(st.sampled_from(".~x"), st.integers(1, 40)), max_size=40).map(
    lambda runs: "".join(fate * count for fate, count in runs)
)


class PropertyTests(SynchronousTestCase):
    """What holds whatever comes."""

    @settings(deadline=None, max_examples=300)
    @given(THRESHOLDS, FATES)
    def test_changes(self, thresholds: Thresholds, fates: str) -> None:
        """A change leads from the state that was to another one, with a reason, and none leads back to unknown."""
        health = Health(thresholds)
        state = UNKNOWN
        for fate in fates:
            change = health.failed("no_answer", "x") if fate == "x" else health.answered(slow=fate == "~")
            if change is not None:
                self.assertEqual(change.previous, state)
                self.assertNotIn(change.state, (state, UNKNOWN))
                self.assertTrue(change.reason)
                self.assertTrue(change.says)
                state = change.state
            self.assertEqual(health.state, state)

    @settings(deadline=None, max_examples=300)
    @given(THRESHOLDS, FATES)
    def test_no_flapping(self, thresholds: Thresholds, fates: str) -> None:
        """Degraded ends a window after it began at the soonest; down lasts and takes as many probes as it must."""
        changes = play(Health(thresholds), fates)
        for (begun, state, _), (ended, following, _) in pairwise(changes):
            if state == DEGRADED and following == UP:
                self.assertGreaterEqual(ended - begun, thresholds.window)
            if state == DOWN:
                self.assertGreaterEqual(ended - begun, thresholds.up_after)
            if following == DOWN:
                self.assertGreaterEqual(ended - begun, min(thresholds.down_after, thresholds.window))

    @settings(deadline=None, max_examples=200)
    @given(THRESHOLDS, FATES)
    def test_extremes_are_told(self, thresholds: Thresholds, fates: str) -> None:
        """Whatever was before: long enough without an answer it is down, long enough without a failure it is up."""
        health = Health(thresholds)
        play(health, fates)
        play(health, "x" * max(thresholds.window, thresholds.down_after))
        self.assertEqual(health.state, DOWN)
        play(health, "." * (3 * thresholds.window + thresholds.up_after))
        self.assertEqual(health.state, UP)

    def test_borderline_noise(self) -> None:
        """Losses at random for as many probes as a day has seconds: never more than two changes in an hour."""
        for share in (0.02, 0.03, 0.05, 0.06, 0.1, 0.4, 0.5, 0.6, 0.8):
            chance = random.Random(round(share * 1000))  # noqa: S311  # repeatable
            changes = play(Health(Thresholds()), "".join("x" if chance.random() < share else "." for _ in range(86400)))
            self.assertLess(len(changes), 48, f"{share}: {len(changes)}")
            self.assertLess(len([state for _, state, _ in changes if state == DOWN]), 6, share)
