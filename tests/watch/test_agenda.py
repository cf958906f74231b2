"""What is due when: against a sorted list."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from twistedudp.watch._agenda import Agenda


class AgendaTests(SynchronousTestCase):
    """Slots of ten."""

    @settings(deadline=None)
    @given(st.lists(st.tuples(st.integers(0, 300), st.integers(0, 20))))
    def test_like_a_list(self, entries: list[tuple[int, int]]) -> None:
        """Each thing is taken once, never before its time and less than a slot after it."""
        agenda: Agenda[int] = Agenda(10)
        waiting: dict[int, int] = {}
        now = 0
        for number, (ahead, step) in enumerate(entries):
            agenda.add(now + ahead, number)
            waiting[number] = now + ahead
            now += step
            for taken in agenda.take_due(now):
                self.assertLessEqual(waiting.pop(taken), now)
            self.assertTrue(all(due > now - 10 for due in waiting.values()))
            self.assertEqual(len(agenda), len(waiting))
        while (due := agenda.next_due) is not None:
            self.assertLess(due - 10, min(waiting.values()))
            for taken in agenda.take_due(due):
                del waiting[taken]
        self.assertEqual(waiting, {})

    def test_empty(self) -> None:
        """Without anything nothing is due."""
        agenda: Agenda[int] = Agenda(10)
        self.assertEqual((agenda.next_due, agenda.take_due(10**18), len(agenda)), (None, [], 0))

    def test_order(self) -> None:
        """What is due earlier is taken earlier; within a slot the order is that of adding."""
        agenda: Agenda[str] = Agenda(10)
        for due, thing in ((25, "c"), (5, "a"), (22, "d"), (7, "b")):
            agenda.add(due, thing)
        self.assertEqual(agenda.next_due, 10)
        self.assertEqual(agenda.take_due(9), [])
        self.assertEqual(agenda.take_due(30), ["a", "b", "c", "d"])

    def test_keep(self) -> None:
        """What is not wanted is gone, and an empty slot with it."""
        agenda: Agenda[int] = Agenda(10)
        for due in (5, 15, 16, 25):
            agenda.add(due, due)
        agenda.keep(lambda thing: thing in (16, 25))
        self.assertEqual((len(agenda), agenda.next_due), (2, 20))
        agenda.add(5, 5)
        self.assertEqual(agenda.take_due(100), [5, 16, 25])
