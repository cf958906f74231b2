"""What becomes of each probe, whatever comes back."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from tests.probing.answers import MS, SESSION, SIZE, error_answer, rpc_answer, wire_of
from twistedudp.probing import COUNTS_ONLY, ProbeTable

TIMEOUT = 100 * MS
WINDOW = 8


class TableCase(SynchronousTestCase):
    """A table of a small window, whose probes are sent a millisecond apart."""

    def setUp(self) -> None:
        """Make the table."""
        self.table = ProbeTable(wire_of(), timeout_ns=TIMEOUT, window=WINDOW)
        self.probes: list[bytes] = []

    def send(self, count: int = 1) -> None:
        """Send probes: the n-th at n milliseconds."""
        for _ in range(count):
            sequence, probe, _ = self.table.next_probe(now_ns=len(self.probes) * MS)
            self.assertEqual(sequence, len(self.probes))
            self.probes.append(probe)

    def reply(self, sequence: int, at_ns: int) -> str:
        """Take a probe back as its answer; return what it counts as."""
        event = self.table.reply_received_untrusted(self.probes[sequence], arrived_ns=at_ns)
        return event.detail if event.kind == "foreign" else event.kind

    def assert_counts(self, **expected: int) -> None:
        """Check all counters; those not named are 0."""
        names = ("sent", "received", "lost", "late", "reordered", "duplicated", "corrupted", "foreign", "unreachable",
                 "not_sent", "errors", "waiting")  # fmt: skip
        found = {name: getattr(self.table, name) for name in names}
        self.assertEqual(found, dict.fromkeys(names, 0) | expected)


class FateTests(TableCase):
    """Answers in time, late, twice, in another order, and never."""

    def test_received(self) -> None:
        """An answer in time tells its round trip, and when its probe was sent."""
        self.send(3)
        event = self.table.reply_received_untrusted(self.probes[1], arrived_ns=6 * MS)
        self.assertEqual(
            (event.kind, event.sequence, event.rtt_ns, event.sent_ns, event.arrived_ns, event.reordered),
            ("reply", 1, 5 * MS, 1 * MS, 6 * MS, False),
        )
        self.assert_counts(sent=3, received=1, waiting=2)

    def test_lost(self) -> None:
        """A probe is lost when its timeout has passed, not a nanosecond before."""
        self.send(2)
        self.assertEqual(self.table.next_deadline(), TIMEOUT)
        self.assertEqual(self.table.deadline_reached(now_ns=TIMEOUT - 1), [])
        [event] = self.table.deadline_reached(now_ns=TIMEOUT)
        self.assertEqual((event.kind, event.sequence, event.sent_ns), ("lost", 0, 0))
        self.assertEqual(self.table.next_deadline(), TIMEOUT + MS)
        self.assert_counts(sent=2, lost=1, waiting=1)

    def test_deadline_of_waiting_only(self) -> None:
        """What is answered has no deadline any more."""
        self.assertIsNone(self.table.next_deadline())
        self.send(3)
        for sequence in (0, 2):
            self.reply(sequence, 4 * MS)
        self.assertEqual(self.table.next_deadline(), TIMEOUT + MS)
        self.reply(1, 4 * MS)
        self.assertIsNone(self.table.next_deadline())
        self.assertEqual(self.table.deadline_reached(now_ns=10 * TIMEOUT), [])

    def test_just_in_time(self) -> None:
        """An answer that arrives at the deadline itself is in time; whether that was noticed later does not matter."""
        self.send(2)
        self.assertEqual(self.reply(0, TIMEOUT), "reply")
        self.assertEqual(self.reply(1, TIMEOUT + MS + 1), "late")
        self.assert_counts(sent=2, received=1, lost=1, late=1)

    def test_late(self) -> None:
        """An answer after the timeout is late, and its probe stays lost; another one is a duplicate."""
        self.send()
        self.table.deadline_reached(now_ns=TIMEOUT)
        self.assertEqual(self.reply(0, TIMEOUT + 5), "late")
        self.assert_counts(sent=1, lost=1, late=1)
        self.assertEqual(self.reply(0, TIMEOUT + 6), "duplicate")
        self.assert_counts(sent=1, lost=1, late=1, duplicated=1)

    def test_newly_lost(self) -> None:
        """The first to tell of a loss is the late answer only where nothing has told of it before."""
        self.send(2)
        first = self.table.reply_received_untrusted(self.probes[0], arrived_ns=TIMEOUT + 5)
        self.assertEqual((first.kind, first.newly_lost, first.sent_ns), ("late", True, 0))
        self.assertEqual([event.sequence for event in self.table.deadline_reached(now_ns=TIMEOUT + MS)], [1])
        second = self.table.reply_received_untrusted(self.probes[1], arrived_ns=TIMEOUT + 2 * MS)
        self.assertEqual((second.kind, second.newly_lost), ("late", False))
        again = self.table.reply_received_untrusted(self.probes[0], arrived_ns=TIMEOUT + 6)
        self.assertEqual((again.kind, again.newly_lost), ("duplicate", False))

    def test_duplicates(self) -> None:
        """Each further answer is a duplicate; the first one alone tells a round trip that counts."""
        self.send()
        self.assertEqual([self.reply(0, at * MS) for at in (1, 2, 3)], ["reply", "duplicate", "duplicate"])
        self.assert_counts(sent=1, received=1, duplicated=2)

    def test_reordered(self) -> None:
        """An answer is reordered when a later probe's came before; a duplicate is not."""
        self.send(5)
        events = [
            self.table.reply_received_untrusted(self.probes[sequence], arrived_ns=10 * MS)
            for sequence in (0, 3, 1, 3, 2, 4)
        ]
        self.assertEqual([event.reordered for event in events], [False, False, True, False, True, False])
        self.assert_counts(sent=5, received=5, reordered=2, duplicated=1)

    def test_late_makes_none_reordered(self) -> None:
        """Late answers to later probes do not make one reordered that comes in time."""
        self.send(2)
        self.reply(1, TIMEOUT + 2 * MS)
        self.assertEqual(self.reply(0, TIMEOUT), "reply")
        self.assert_counts(sent=2, received=1, lost=1, late=1)

    def test_not_sent(self) -> None:
        """A probe that the own machine did not send is neither sent nor lost, and cannot be answered."""
        self.send(2)
        event = self.table.probe_not_sent(0, "a firewall")
        self.assertEqual((event.kind, event.sequence, event.detail), ("not_sent", 0, "a firewall"))
        self.table.probe_not_sent(0, "twice")
        self.assertEqual(self.reply(0, 3 * MS), "wrong_sequence")
        self.assert_counts(sent=1, not_sent=1, foreign=1, waiting=1)
        self.assertEqual(self.table.next_deadline(), TIMEOUT + MS)

    def test_not_sent_though_answered(self) -> None:
        """What has been answered was sent, whoever says otherwise."""
        self.send()
        self.reply(0, MS)
        self.table.probe_not_sent(0, "a mistake")
        self.assert_counts(sent=1, received=1)

    def test_error(self) -> None:
        """An error of an rpc server without the method is an answer, and told as such."""
        self.send()
        event = self.table.reply_received_untrusted(error_answer(self.probes[0]), arrived_ns=MS)
        self.assertEqual((event.kind, event.detail, event.rtt_ns), ("reply", "unknown_method", MS))
        self.assert_counts(sent=1, received=1, errors=1)

    def test_stop_waiting(self) -> None:
        """What still waits at the end is neither received nor lost nor sent, and is counted by its name."""
        self.send(4)
        self.reply(1, 2 * MS)
        self.table.deadline_reached(now_ns=TIMEOUT)
        self.assertEqual(self.table.stop_waiting(), 2)
        self.assert_counts(sent=2, received=1, lost=1)
        self.assertEqual(self.table.oddities, {"unanswered_at_stop": 2})
        self.assertIsNone(self.table.next_deadline())
        self.assertEqual(self.reply(2, 5 * MS), "wrong_sequence")
        self.assertEqual(self.table.stop_waiting(), 0)

    def test_sent_until(self) -> None:
        """How many have left up to a probe: the later ones, and those that were not sent, do not count."""
        self.send(6)
        self.table.probe_not_sent(1, "")
        self.table.probe_not_sent(4, "")
        self.assertEqual([self.table.sent_until(sequence) for sequence in range(-1, 7)], [-1, 1, 1, 2, 3, 3, 4, -1])
        self.table.stop_waiting()
        self.assertEqual(self.table.sent_until(3), 3)
        self.send(WINDOW)
        self.assertEqual(self.table.sent_until(3), -1)


class WindowTests(TableCase):
    """More probes than are remembered."""

    def test_full(self) -> None:
        """When all of the window waits, the oldest is given up for the next one, and told."""
        self.send(WINDOW)
        sequence, _, given_up = self.table.next_probe(now_ns=WINDOW * MS)
        self.assertEqual(sequence, WINDOW)
        assert given_up is not None
        self.assertEqual((given_up.kind, given_up.sequence), ("lost", 0))
        self.assertEqual(self.table.oddities, {"window_full": 1})
        self.assert_counts(sent=WINDOW + 1, lost=1, waiting=WINDOW)

    def test_forgotten(self) -> None:
        """An answer to a probe that is forgotten is told apart from one to a probe that never was."""
        self.send(WINDOW + 3)
        self.assertEqual(self.reply(2, 20 * MS), "forgotten_sequence")
        never = wire_of().encode(WINDOW + 3, 0)
        self.assertEqual(self.table.reply_received_untrusted(never, arrived_ns=20 * MS).detail, "wrong_sequence")
        self.assertEqual(self.reply(3, 20 * MS), "reply")

    def test_long(self) -> None:
        """A series far longer than the window is accounted for to the last probe."""
        for sequence in range(50 * WINDOW):
            self.send()
            if sequence % 4:
                self.assertEqual(self.reply(sequence, sequence * MS + 1), "reply")
        lost = len(self.table.deadline_reached(now_ns=10**12))
        self.assert_counts(sent=50 * WINDOW, received=50 * WINDOW * 3 // 4, lost=50 * WINDOW // 4)
        self.assertEqual(lost + self.table.oddities["window_full"], 50 * WINDOW // 4)


class OddityTests(TableCase):
    """What comes from the server's address and is no answer changes no figure, and is told by its name."""

    def setUp(self) -> None:
        """Send three probes and have one answered."""
        super().setUp()
        self.send(3)
        self.reply(0, MS)

    def assert_odd(self, datagram: bytes, kind: str, detail: str) -> None:
        """Check what a datagram counts as, and that neither received nor lost has changed."""
        event = self.table.reply_received_untrusted(datagram, arrived_ns=5 * MS)
        self.assertEqual((event.kind, event.detail), (kind, detail))
        self.assert_counts(sent=3, received=1, waiting=2, **{kind: 1})

    def test_wrong_sequence(self) -> None:
        """An answer to a probe that was never sent."""
        self.assert_odd(wire_of().encode(3, 0), "foreign", "wrong_sequence")
        self.assertEqual(self.table.oddities, {"wrong_sequence": 1})

    def test_wrong_sequence_of_rpc(self) -> None:
        """The same from an rpc server."""
        self.assert_odd(rpc_answer(wire_of().encode(77, 0)), "foreign", "wrong_sequence")

    def test_counts_not_asked(self) -> None:
        """Counts that nobody asked for."""
        self.assert_odd(rpc_answer(wire_of().encode(COUNTS_ONLY, 0), 10**6), "foreign", "wrong_sequence")

    def test_other_sequence(self) -> None:
        """A probe whose sequence was changed into another's: the send time gives it away."""
        self.assert_odd(wire_of().encode(2, MS), "corrupted", "corrupted")

    def test_changed_time(self) -> None:
        """A probe whose send time was changed."""
        self.assert_odd(wire_of().encode(1, MS + 1), "corrupted", "corrupted")

    def test_changed_padding(self) -> None:
        """A probe whose padding was changed."""
        self.assert_odd(self.probes[1][:-1] + b"\0", "corrupted", "corrupted")

    def test_cut(self) -> None:
        """A probe that was cut short: corrupted, and of a wrong size."""
        self.assert_odd(self.probes[1][:-1], "corrupted", "corrupted")
        self.assertEqual(self.table.oddities, {"wrong_size": 1})

    def test_longer(self) -> None:
        """A probe with something behind it."""
        self.assert_odd(self.probes[1] + b"\0", "corrupted", "corrupted")
        self.assertEqual(self.table.oddities, {"wrong_size": 1})

    def test_other_series(self) -> None:
        """An answer to another series, such as one that ended just now on the same port."""
        self.assert_odd(wire_of(SESSION ^ 1 << 40, padding=bytes(SIZE)).encode(1, MS), "foreign", "other_series")

    def test_noise(self) -> None:
        """Anything else."""
        self.assert_odd(b"hello", "foreign", "not_a_probe")

    def test_wrong_check(self) -> None:
        """An rpc server's answer whose numbers were changed on the way."""
        self.assert_odd(rpc_answer(self.probes[1], 9, check=12345), "corrupted", "corrupted")

    def test_stranger(self) -> None:
        """A datagram from another address."""
        self.assertEqual(self.table.stranger_received(arrived_ns=2).detail, "from_another_address")
        self.assert_counts(sent=3, received=1, waiting=2, foreign=1)

    def test_corrupted_then_intact(self) -> None:
        """A probe whose answer came in two copies, the first one changed, is received."""
        self.assert_odd(self.probes[1][:-1] + b"\0", "corrupted", "corrupted")
        self.assertEqual(self.reply(1, 6 * MS), "reply")

    def test_answered_before_sent(self) -> None:
        """An arrival before the probe was sent cannot be: the time at which it was read counts instead."""
        event = self.table.reply_received_untrusted(self.probes[2], arrived_ns=MS, read_ns=7 * MS)
        self.assertEqual((event.kind, event.rtt_ns), ("reply", 5 * MS))
        self.assertEqual(self.table.oddities, {"answered_before_sent": 1})
        self.assertEqual(self.table.reply_received_untrusted(self.probes[1], arrived_ns=0).rtt_ns, 0)


class UnreachableTests(TableCase):
    """ICMP errors."""

    def unreachable(self, quoted: bytes) -> tuple[str, int, str]:
        """Take one."""
        event = self.table.probe_unreachable_untrusted(quoted, "Connection refused", now_ns=5 * MS)
        return event.kind, event.sequence, event.detail

    def test_quotes_probe(self) -> None:
        """One that quotes a probe tells which, and does not settle it: an answer may still come."""
        self.send(2)
        self.assertEqual(self.unreachable(self.probes[1]), ("unreachable", 1, "Connection refused"))
        self.assertEqual(self.unreachable(self.probes[1][:40]), ("unreachable", 1, "Connection refused"))
        self.assert_counts(sent=2, waiting=2, unreachable=2)

    def test_forged(self) -> None:
        """One that quotes something else is an oddity and no more."""
        self.send(2)
        for quoted in (b"anything", wire_of(1 << 63).encode(1, MS), wire_of().encode(2, 0), wire_of().encode(2**31, 0)):
            self.assertEqual(self.unreachable(quoted), ("foreign", -1, "forged_icmp_error"))
        self.assert_counts(sent=2, waiting=2)
        self.assertEqual(self.table.oddities, {"forged_icmp_error": 4})

    def test_quotes_too_little(self) -> None:
        """One that quotes so little that nobody can tell is another oddity."""
        self.send()
        self.assertEqual(self.unreachable(b""), ("foreign", -1, "icmp_error_without_quote"))
        self.assertEqual(self.unreachable(self.probes[0][:8]), ("foreign", -1, "icmp_error_without_quote"))
        self.assert_counts(sent=1, waiting=1)

    def test_counts_question(self) -> None:
        """One about the question for the counts is genuine once that was asked."""
        question = wire_of().encode(COUNTS_ONLY, 0)
        self.assertEqual(self.unreachable(question)[0], "foreign")
        self.table.counts_asked = True
        self.assertEqual(self.unreachable(question), ("unreachable", COUNTS_ONLY, "Connection refused"))
