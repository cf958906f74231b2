"""What a server remembers of probes: what counts as different, as a duplicate, and who gives way to whom."""

from __future__ import annotations

import random
import sys
import time
from typing import TYPE_CHECKING

from twisted.trial.unittest import SynchronousTestCase

from twistedudp.probing import COUNTS_ONLY
from twistedudp.probing._sessions import MAX_SESSION_IDLE, MAX_SESSIONS, SESSION_WINDOW, ProbeSessions

if TYPE_CHECKING:
    from collections.abc import Iterable

    from twistedudp.address import Address

PEER = ("192.0.2.2", 4000)
SESSION = 2**63 + 1


class SessionsTestCase(SynchronousTestCase):
    """A table, and shorter ways to drive it."""

    def setUp(self) -> None:
        """Begin with none."""
        self.sessions = ProbeSessions()
        self.now = 1000.0

    def send(self, *sequences: int, session: int = SESSION, peer: Address = PEER) -> tuple[int, int]:
        """Let probes arrive and return the counts that the last of them is answered with."""
        for sequence in sequences:
            counts = self.sessions.probe_received(peer, session, sequence, now=self.now)
        return counts

    def counts(self, session: int = SESSION, peer: Address = PEER) -> tuple[int, int]:
        """Ask for the counts."""
        return self.send(COUNTS_ONLY, session=session, peer=peer)

    def known(self, sessions: Iterable[int]) -> list[int]:
        """Return those of the sessions that are remembered."""
        return [session for session in sessions if self.counts(session) != (0, 0)]


class CountingTests(SessionsTestCase):
    """The counts of one session."""

    def test_in_order(self) -> None:
        """Each probe is answered with how many there were, itself included."""
        self.assertEqual([self.send(sequence) for sequence in range(4)], [(1, 0), (2, 0), (3, 0), (4, 0)])

    def test_lost(self) -> None:
        """What does not come is not counted."""
        self.assertEqual(self.send(0, 3, 4, 100), (4, 0))

    def test_begins_anywhere(self) -> None:
        """The first probe that comes need not be the first that was sent, which may come later."""
        self.assertEqual(self.send(5, 4, 0, 6), (4, 0))

    def test_duplicates(self) -> None:
        """A copy is a duplicate, each further one too, the latest probe's as well as an earlier one's."""
        self.assertEqual(self.send(0, 0), (1, 1))
        self.assertEqual(self.send(1, 2, 1, 1, 0, 2), (3, 5))

    def test_reordered(self) -> None:
        """A probe that was overtaken is no duplicate, and its copy is one."""
        self.assertEqual(self.send(0, 2, 1), (3, 0))
        self.assertEqual(self.send(1), (3, 1))

    def test_counts_only(self) -> None:
        """The question for the counts is counted nowhere, and makes no session."""
        self.assertEqual((self.counts(), len(self.sessions)), ((0, 0), 0))
        self.send(0, 1, 1)
        self.assertEqual([self.counts() for _ in range(3)], [(2, 1)] * 3)
        self.assertEqual(self.send(2), (3, 1))

    def test_apart(self) -> None:
        """Another session, another port and another host are another series each."""
        self.send(0, 1, 2)
        for session, peer in ((SESSION + 1, PEER), (SESSION, ("192.0.2.2", 4001)), (SESSION, ("192.0.2.3", 4000))):
            self.assertEqual(self.send(1, session=session, peer=peer), (1, 0))
        self.assertEqual(self.counts(), (3, 0))

    def test_like_a_set(self) -> None:
        """Within the window the counts are those of a set of all that has come, whatever order it comes in."""
        rng = random.Random(7)  # noqa: S311  # the same each time
        for session in range(20):
            seen: set[int] = set()
            copies = 0
            base = rng.choice((0, 1, 2**20, COUNTS_ONLY - 20_000))
            for step in range(0, 10_000, 10):
                sequence = max(0, base + step + rng.randrange(-4000, 4000))
                copies += sequence in seen
                seen.add(sequence)
                self.assertEqual(self.send(sequence, session=session), (len(seen), copies))

    def test_window(self) -> None:
        """The last 8,192 numbers are remembered exactly; what is further behind may be anything, and counts nothing."""
        self.send(0, 1, 3, SESSION_WINDOW)
        self.assertEqual(self.send(1), (4, 1))
        self.assertEqual(self.send(2), (5, 1))
        self.assertEqual(self.send(0), (5, 1))
        self.send(SESSION_WINDOW + 2)
        self.assertEqual(self.send(2, 4), (7, 1))

    def test_last_numbers(self) -> None:
        """The numbers up to the last are counted like any others."""
        self.assertEqual(self.send(COUNTS_ONLY - 3, COUNTS_ONLY - 1, COUNTS_ONLY - 2, COUNTS_ONLY - 1), (3, 1))


class FarTests(SessionsTestCase):
    """Sequence numbers far from the others."""

    def test_alone(self) -> None:
        """A single one, changed on its way perhaps, counts nothing and changes nothing, nor does its copy."""
        self.send(50_000, 50_001)
        for far in (50_001 + SESSION_WINDOW, 2**31, 2**31, COUNTS_ONLY - 1, 2**30, 50_001 - SESSION_WINDOW, 7, 7, 0):
            self.assertEqual(self.send(far), (2, 0))
        self.assertEqual(self.send(50_002, 50_003, 50_001), (4, 1))

    def test_followed(self) -> None:
        """When the next probe follows it, both count: it was an outage."""
        self.send(0, 1)
        self.assertEqual(self.send(20_000), (2, 0))
        self.assertEqual(self.send(20_005), (4, 0))
        self.assertEqual(self.send(20_005, 20_000, 20_004), (5, 2))

    def test_not_followed_closely(self) -> None:
        """Two that are far from each other as well are two changed ones."""
        self.send(0, 1)
        self.assertEqual(self.send(20_000, 20_000 + SESSION_WINDOW, 2), (3, 0))

    def test_followed_later(self) -> None:
        """Nor is one believed where a probe of the others came between: the same bit was changed twice."""
        self.send(0, 1)
        self.assertEqual(self.send(2**31 + 2, 3, 2**31 + 4, 5), (4, 0))

    def test_first_is_wrong(self) -> None:
        """If it is the very first that was changed, the others are believed when there are two of them."""
        self.send(2**31)
        self.assertEqual(self.send(1), (1, 0))
        self.assertEqual(self.send(2), (3, 0))
        self.assertEqual(self.send(3, 3), (4, 1))

    def test_wrongly_believed(self) -> None:
        """If two in a row were changed alike, the counts go on all the same."""
        self.send(*range(100))
        self.send(2**31 + 100, 2**31 + 101)
        self.assertEqual(self.send(*range(102, 200)), (200, 0))
        self.assertEqual(self.send(150), (200, 1))

    def test_changed_at_random(self) -> None:
        """Of 10,000 probes one in 50 has a changed number: the counts are right to within these."""
        for seed in range(10):
            rng = random.Random(seed)  # noqa: S311  # the same each time
            changed = 0
            for sequence in range(10_000):
                if rng.random() < 0.02:
                    changed += 1
                    self.send(sequence ^ (1 << rng.randrange(32)), session=seed)
                else:
                    self.send(sequence, session=seed)
            received, duplicates = self.counts(seed)
            self.assertLessEqual(abs(received - 10_000), changed)
            self.assertLessEqual(duplicates, changed)


class BoundsTests(SessionsTestCase):
    """What is kept, and for how long."""

    def test_numbers(self) -> None:
        """The bounds are those of docs/wire.md."""
        self.assertEqual((SESSION_WINDOW, MAX_SESSIONS, MAX_SESSION_IDLE), (8192, 4096, 600.0))

    def test_idle(self) -> None:
        """A session is over when nothing has come for so long, counted from its last probe."""
        self.send(0, 1, session=1)
        self.send(0, session=2)
        self.now += MAX_SESSION_IDLE - 1
        self.send(2, session=1)
        self.now += 1
        self.send(0, session=3)
        self.assertEqual(self.known((1, 2, 3)), [1, 2, 3])
        self.now += 0.001
        self.send(0, session=4)
        self.assertEqual(self.known((1, 2, 3, 4)), [1, 3, 4])
        self.now += MAX_SESSION_IDLE + 1
        self.send(0, session=5)
        self.assertEqual((self.known(range(6)), len(self.sessions), self.sessions.evicted), ([5], 1, 0))

    def test_question_is_no_probe(self) -> None:
        """To ask for the counts does not keep a session."""
        self.send(0)
        self.now += MAX_SESSION_IDLE
        self.assertEqual(self.counts(), (1, 0))
        self.now += 1
        self.send(0, session=2)
        self.assertEqual(self.counts(), (0, 0))

    def test_full(self) -> None:
        """Where there is no room, the one that has been quiet for the longest gives way, and is counted."""
        self.sessions = ProbeSessions(max_sessions=3)
        for session in range(3):
            self.send(0, session=session)
        self.send(0, session=0)
        self.send(0, session=3)
        self.assertEqual((self.known(range(4)), self.sessions.evicted), ([0, 2, 3], 1))

    def test_fewest_first(self) -> None:
        """Those that have had fewer probes give way first, by powers of two, however lately they were seen."""
        self.sessions = ProbeSessions(max_sessions=4)
        for session, probes in ((1, 8), (2, 4), (3, 2), (4, 1)):
            self.send(*range(probes), session=session)
        for new in range(100, 150):
            self.send(0, session=new)
        self.assertEqual(self.known((1, 2, 3, 4, 149)), [1, 2, 3, 149])
        for new in range(200, 250):
            self.send(0, 1, session=new)
        self.assertEqual(self.known((1, 2, 3, 249)), [1, 2, 249])
        for new in range(300, 350):
            self.send(0, 1, 2, 3, session=new)
        self.assertEqual(self.known((1, 2, 349)), [1, 349])

    def test_copies_do_not_count(self) -> None:
        """To send the same probe again and again makes no session more important."""
        self.sessions = ProbeSessions(max_sessions=2)
        self.send(0, 1, session=1)
        self.send(*[0] * 100, session=2)
        self.send(0, session=3)
        self.assertEqual(self.known((1, 2, 3)), [1, 3])

    def test_forged_flood(self) -> None:
        """A hundred thousand forged series of one probe drive out none that is in use, and take bounded memory."""
        honest = range(100)
        for sequence in range(2):
            for session in honest:
                self.send(sequence, session=session)
        rng = random.Random(7)  # noqa: S311  # the same each time
        for number in range(100_000):
            self.now += 1e-5
            self.send(
                rng.getrandbits(32), session=rng.getrandbits(64), peer=(f"192.0.2.{number % 256}", number % 65536)
            )
        self.assertEqual(len(self.sessions), MAX_SESSIONS)
        self.assertEqual(self.sessions.evicted, 100_000 + 100 - MAX_SESSIONS)
        self.assertEqual([self.send(2, session=session) for session in honest], [(3, 0)] * 100)

    def test_memory(self) -> None:
        """What a session takes does not grow with the numbers that are sent, however far apart they are."""
        for sequence in range(0, 400_000, 3):
            self.send(sequence)
        self.send(0, SESSION_WINDOW - 1, session=2)
        for known in self.sessions._sessions.values():
            self.assertLessEqual(sys.getsizeof(known.window), SESSION_WINDOW // 7)
        self.assertEqual(sum(map(len, self.sessions._levels)), len(self.sessions))

    def test_cost(self) -> None:
        """A probe costs the same in a full table as in an empty one, also where each drives out another."""
        few, full = ProbeSessions(max_sessions=10), ProbeSessions()

        def seconds(sessions: ProbeSessions) -> float:
            begun = time.perf_counter()
            for number in range(5000):
                sessions.probe_received(PEER, number, 0, now=0.0)
            return time.perf_counter() - begun

        seconds(full)
        ratios = sorted(seconds(full) / seconds(few) for _ in range(5))
        self.assertLess(ratios[2], 5, ratios)
