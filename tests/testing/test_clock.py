"""The stepping clock."""

from __future__ import annotations

import math
import random
from functools import partial
from typing import TYPE_CHECKING

from twisted.internet.error import AlreadyCalled, AlreadyCancelled
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import Clock, LoopingCall
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from twistedudp.testing import SimulationError, SteppingClock

if TYPE_CHECKING:
    from collections.abc import Callable

    from twisted.internet.interfaces import IDelayedCall


class SteppingClockTests(SynchronousTestCase):
    """Time stops at every delayed call."""

    def setUp(self) -> None:
        """Make a clock and a list to write the time into."""
        self.clock = SteppingClock()
        self.seen: list[tuple[str, float]] = []

    def note(self, name: str) -> None:
        """Write down that a call ran, and when."""
        self.seen.append((name, self.clock.seconds()))

    def test_is_a_clock(self) -> None:
        """It is a task.Clock and provides IReactorTime."""
        self.assertIsInstance(self.clock, Clock)
        self.assertTrue(verifyObject(IReactorTime, self.clock))

    def test_stops_at_every_call(self) -> None:
        """A call due at 1 s sees 1 s, and what it schedules one second later runs at 2 s."""

        def first() -> None:
            self.note("first")
            self.clock.callLater(1, self.note, "second")

        self.clock.callLater(1, first)
        self.clock.advance(10)
        self.assertEqual(self.seen, [("first", 1.0), ("second", 2.0)])
        self.assertEqual(self.clock.seconds(), 10.0)

    def test_time_order(self) -> None:
        """Calls run in order of time, whatever the order of making."""
        for delay in (3, 1, 2):
            self.clock.callLater(delay, self.note, str(delay))
        self.clock.advance(3)
        self.assertEqual(self.seen, [("1", 1.0), ("2", 2.0), ("3", 3.0)])

    def test_later_calls_wait(self) -> None:
        """What is due after the time advanced to is left alone."""
        self.clock.callLater(1.5, self.note, "late")
        self.clock.advance(1)
        self.assertEqual(self.seen, [])
        self.assertEqual(len(self.clock.getDelayedCalls()), 1)

    def test_ties_in_order_of_making(self) -> None:
        """Calls due together run in the order in which they were made, also where one was moved there."""
        first = self.clock.callLater(1, self.note, "first")
        self.clock.callLater(5, self.note, "second")
        third = self.clock.callLater(9, self.note, "third")
        self.clock.callLater(5, self.note, "fourth")
        third.reset(5)
        first.delay(4)
        self.clock.advance(5)
        self.assertEqual([name for name, _ in self.seen], ["first", "second", "third", "fourth"])

    def test_zero_delay_runs_after_what_is_due(self) -> None:
        """A zero-delay call made by a call runs after those that were due at the same time already."""

        def first() -> None:
            self.note("first")
            self.clock.callLater(0, self.note, "third")

        self.clock.callLater(1, first)
        self.clock.callLater(1, self.note, "second")
        self.clock.advance(1)
        self.assertEqual([name for name, _ in self.seen], ["first", "second", "third"])

    def test_moved_calls(self) -> None:
        """A call that was put off runs at its new time, and so does one that was brought forward."""
        self.clock.callLater(1, self.note, "put off").reset(4)
        self.clock.callLater(9, self.note, "brought forward").delay(-7)
        self.clock.advance(10)
        self.assertEqual(self.seen, [("brought forward", 2.0), ("put off", 4.0)])

    def test_cancelled(self) -> None:
        """A cancelled call does not run and is no longer listed; cancelling twice and too late are errors."""
        call = self.clock.callLater(1, self.note, "never")
        call.cancel()
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.assertRaises(AlreadyCancelled, call.cancel)
        ran = self.clock.callLater(1, self.note, "ran")
        self.clock.advance(2)
        self.assertRaises(AlreadyCalled, ran.cancel)
        self.assertEqual(self.seen, [("ran", 1.0)])

    def test_keyword_arguments(self) -> None:
        """Arguments of both kinds reach the function."""
        self.clock.callLater(0, self.note, name="named")
        self.clock.advance(0)
        self.assertEqual(self.seen, [("named", 0.0)])

    def test_looping_call(self) -> None:
        """A LoopingCall runs once per interval inside one advance, which a plain Clock skips."""
        loop = LoopingCall(self.note, "tick")
        loop.clock = self.clock
        loop.start(0.25, now=False)
        self.clock.advance(1)
        loop.stop()
        self.assertEqual([time for _, time in self.seen], [0.25, 0.5, 0.75, 1.0])

    def test_refuses_bad_times(self) -> None:
        """Time does not go back, and nothing can be scheduled in the past or at no time at all."""
        for bad in (-0.001, math.nan):
            self.assertRaises(ValueError, self.clock.advance, bad)
            self.assertRaises(ValueError, self.clock.callLater, bad, self.note, "never")
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_exception_goes_to_the_caller(self) -> None:
        """An exception leaves advance(), time stands at the call that raised it, and moving on works."""

        def fail() -> None:
            raise ZeroDivisionError

        self.clock.callLater(1, fail)
        self.clock.callLater(2, self.note, "after")
        self.assertRaises(ZeroDivisionError, self.clock.advance, 5)
        self.assertEqual(self.clock.seconds(), 1.0)
        self.clock.advance(1)
        self.assertEqual(self.seen, [("after", 2.0)])

    def test_advance_inside_a_call(self) -> None:
        """A call that takes long, by advancing the clock itself, never sends time back."""
        self.clock.callLater(1, partial(self.clock.advance, 5))
        self.clock.callLater(2, self.note, "on time")
        self.clock.advance(3)
        self.assertEqual(self.seen, [("on time", 2.0)])
        self.assertEqual(self.clock.seconds(), 6.0)

    def test_step(self) -> None:
        """A step runs one call and tells so; beyond its limit nothing runs and time stands."""
        self.clock.callLater(1, self.note, "one")
        self.clock.callLater(2, self.note, "two")
        self.assertTrue(self.clock.step())
        self.assertFalse(self.clock.step(until=1.5))
        self.assertEqual(self.clock.seconds(), 1.0)
        self.assertTrue(self.clock.step(until=2))
        self.assertFalse(self.clock.step())
        self.assertEqual(self.seen, [("one", 1.0), ("two", 2.0)])

    def test_owners(self) -> None:
        """Calls are told apart by who made them."""
        ours, theirs = object(), object()
        call = self.clock.call_later_for(ours, 1, self.note, "ours")
        self.clock.call_later_for(theirs, 1, self.note, "theirs")
        self.assertEqual(self.clock.calls_of(ours), [call])
        self.clock.advance(1)
        self.assertEqual(self.clock.calls_of(ours), [])


class RunawayTests(SynchronousTestCase):
    """A loop without delay ends in an error that says so."""

    def spin(self, clock: SteppingClock) -> Callable[[], None]:
        """Return a function that schedules itself without delay."""

        def again() -> None:
            clock.callLater(0, again)

        return again

    def test_zero_delay_loop(self) -> None:
        """More calls than allowed at one instant raise SimulationError naming the loop's call."""
        clock = SteppingClock(max_calls_per_instant=100)
        clock.callLater(1, self.spin(clock))
        error = self.assertRaises(SimulationError, clock.advance, 5)
        self.assertIn("100 delayed calls ran at 1.0 s", str(error))
        self.assertIn("again", str(error))

    def test_bound_is_reached_exactly(self) -> None:
        """As many calls as allowed at one instant are no loop."""
        clock = SteppingClock(max_calls_per_instant=100)
        ran: list[int] = []
        for number in range(100):
            clock.callLater(1, ran.append, number)
        clock.advance(1)
        self.assertEqual(ran, list(range(100)))

    def test_counts_anew_at_each_instant(self) -> None:
        """Calls at different times do not add up."""
        clock = SteppingClock(max_calls_per_instant=2)
        ran: list[float] = []
        for tenth in range(10):
            clock.callLater(tenth / 10, lambda: ran.append(clock.seconds()))
        clock.advance(1)
        self.assertEqual(len(ran), 10)


class ModelTests(SynchronousTestCase):
    """The heap against the simplest thing that is right: a list, sorted anew whenever it matters."""

    def play(self, seed: int) -> tuple[list[object], list[object]]:
        """Do random things to both, and return what each saw."""
        rng = random.Random(seed)  # noqa: S311  # reproducible on purpose
        clock = SteppingClock()
        model: dict[int, float] = {}
        calls: dict[int, IDelayedCall] = {}
        seen: list[object] = []
        expected: list[object] = []

        def ran(number: int) -> None:
            seen.append((clock.seconds(), number))

        for number in range(300):
            # Few different times, so that many calls are due together.
            action, delay = rng.randrange(8), rng.randrange(6) / 2
            if action < 3 or not model:
                calls[number] = clock.callLater(delay, ran, number)
                model[number] = clock.seconds() + delay
                continue
            chosen = rng.choice(list(model))
            if action == 3:
                calls[chosen].cancel()
                del model[chosen]
            elif action == 4:
                calls[chosen].reset(delay)
                model[chosen] = clock.seconds() + delay
            elif action == 5:
                later = max(clock.seconds() - model[chosen], delay - 1)
                calls[chosen].delay(later)
                model[chosen] += later
            else:
                end = clock.seconds() + delay / 4
                due = sorted(((time, each) for each, time in model.items() if time <= end))
                expected += due
                model = {each: time for each, time in model.items() if time > end}
                clock.advance(delay / 4)
            pending = sorted(model, key=lambda each: (model[each], each))
            expected.append(pending)
            seen.append([call.args[0] for call in clock.pending_calls()])
        return seen, expected

    def test_same_as_a_sorted_list(self) -> None:
        """Whatever is made, cancelled, put off and brought forward, the same calls run at the same times in order."""
        for seed in range(100):
            seen, expected = self.play(seed)
            self.assertEqual(seen, expected, seed)

    def test_no_refuse(self) -> None:
        """What cancelled and moved calls leave behind is never more than the calls that wait, and some."""
        clock = SteppingClock()
        waiting = [clock.callLater(1000, self.fail) for _ in range(100)]
        longest = 0
        for number in range(5000):
            clock.callLater(50, self.fail).cancel()
            waiting[number % 100].reset(900 - number / 10)
            longest = max(longest, len(clock._heap))
        self.assertLessEqual(longest, 2 * 101 + 64 + 1)
        self.assertEqual(len(clock.getDelayedCalls()), 100)

    def test_calls_attribute(self) -> None:
        """The calls of a task.Clock can be looked at, in the order in which they will run."""
        clock = SteppingClock()
        late, early = clock.callLater(2, self.fail), clock.callLater(1, self.fail)
        self.assertEqual(clock.calls, [early, late])
        early.reset(3)
        self.assertEqual(clock.calls, [late, early])

    def test_moved_away_and_back(self) -> None:
        """A call that was brought forward, then put off to its first time, runs once."""
        clock = SteppingClock()
        ran: list[float] = []
        call = clock.callLater(5, lambda: ran.append(clock.seconds()))
        call.reset(3)
        call.reset(5)
        clock.advance(10)
        self.assertEqual((ran, clock.getDelayedCalls()), ([5.0], []))

    def test_dropped(self) -> None:
        """An owner's dropped calls never run, look pending, and may be cancelled or moved without effect."""
        clock = SteppingClock()
        owner = object()
        calls = [clock.call_later_for(owner, delay, self.fail) for delay in (1, 2, 3)]
        kept = clock.callLater(2, lambda: None)
        self.assertEqual(clock.drop_calls_of(owner), 3)
        self.assertTrue(all(call.active() for call in calls))
        calls[0].cancel()
        calls[1].reset(0.5)
        calls[2].delay(-2.9)
        self.assertEqual(clock.getDelayedCalls(), [kept])
        clock.advance(5)
        self.assertEqual((clock.getDelayedCalls(), clock._pending), ([], 0))
