"""What holds whatever happens to a series, by Hypothesis: the account always balances, and nothing can upset it.

Theory of operation: a model keeps for each probe what has become of it, in plain dictionaries without a window; the
machine does to both what a network may do, in any order, and compares all counters after each step.
"""

from __future__ import annotations

from typing import Any

from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test
from twisted.trial.unittest import SynchronousTestCase

from tests.probing.answers import EPOCH, MS, error_answer, rpc_answer, series_of, wire_of
from tests.properties import MACHINE, PROPERTY
from twistedudp.errors import DecodeError
from twistedudp.probing import COUNTS_ONLY

WINDOW = 16
TIMEOUT = 50 * MS


class SeriesMachine(RuleBasedStateMachine):
    """A series, and what must be true of it."""

    def __init__(self) -> None:
        super().__init__()
        self.series = series_of(timeout_ns=TIMEOUT, window=WINDOW)
        self.table = self.series.table
        self.now = 0
        self.sent: list[tuple[bytes, int]] = []
        self.fates: dict[int, str] = {}
        self.duplicates = self.late = 0

    @rule(after=st.integers(0, 2 * TIMEOUT))
    def time_passes(self, after: int) -> None:
        """Nobody looks at the deadlines meanwhile."""
        self.now += after

    @rule(count=st.integers(1, 6))
    def send(self, count: int) -> None:
        """Send some probes at once."""
        for _ in range(count):
            sequence, probe, given_up = self.series.next_probe(due_ns=self.now, now_ns=self.now)
            assert sequence == len(self.sent)
            if given_up is not None:
                assert self.fates[given_up.sequence] == "waiting"
                assert given_up.sequence == sequence - WINDOW
                self.fates[given_up.sequence] = "lost"
            self.sent.append((probe, self.now))
            self.fates[sequence] = "waiting"

    @rule(data=st.data(), server=st.sampled_from(["echo", "rpc", "error"]), age=st.integers(0, 5 * MS))
    @precondition(lambda self: self.sent)
    def reply(self, data: Any, server: str, age: int) -> None:
        """Answer any probe that was ever sent, again or not, as it arrived a while ago."""
        sequence = data.draw(st.integers(max(0, len(self.sent) - WINDOW - 3), len(self.sent) - 1))
        probe, sent_ns = self.sent[sequence]
        arrived = max(sent_ns, self.now - age)
        answer = {"echo": probe, "rpc": rpc_answer(probe, sequence + 1), "error": error_answer(probe)}[server]
        event = self.series.reply_received_untrusted(answer, arrived_ns=arrived)
        fate = self.fates[sequence]
        if sequence < len(self.sent) - WINDOW:
            assert event.detail == "forgotten_sequence"
        elif fate == "not_sent":
            assert event.detail == "wrong_sequence"
        elif fate in {"received", "late"}:
            assert event.kind == "duplicate"
            self.duplicates += 1
        elif fate == "waiting" and arrived - sent_ns <= TIMEOUT:
            assert event.kind == "reply"
            assert event.rtt_ns == arrived - sent_ns
            self.fates[sequence] = "received"
        else:
            assert event.kind == "late"
            self.fates[sequence] = "late"

    @rule()
    def give_up(self) -> None:
        """Look at the deadlines."""
        overdue = {
            sequence
            for sequence, fate in self.fates.items()
            if fate == "waiting" and self.sent[sequence][1] + TIMEOUT <= self.now
        }
        events = self.series.deadline_reached(now_ns=self.now)
        assert [event.sequence for event in events] == sorted(overdue)
        assert {event.kind for event in events} <= {"lost"}
        self.fates.update(dict.fromkeys(overdue, "lost"))

    @rule(data=st.data())
    @precondition(lambda self: self.sent)
    def not_sent(self, data: Any) -> None:
        """Take back one of the last probes."""
        sequence = data.draw(st.integers(max(0, len(self.sent) - 3), len(self.sent) - 1))
        self.series.probe_not_sent(sequence, "why")
        if self.fates[sequence] == "waiting":
            self.fates[sequence] = "not_sent"

    @rule(datagram=st.binary(max_size=120))
    def noise(self, datagram: bytes) -> None:
        """Any bytes at all."""
        self.odd(datagram)

    @rule(data=st.data(), rpc=st.booleans())
    @precondition(lambda self: self.sent)
    def corrupted(self, data: Any, rpc: bool) -> None:
        """An answer of which something was changed, cut off or added."""
        probe = data.draw(st.sampled_from(self.sent[-WINDOW:]))[0]
        answer = bytearray(rpc_answer(probe, 7) if rpc else probe)
        place = data.draw(st.integers(0, len(answer) - 1))
        how = data.draw(st.sampled_from(["change", "cut", "add"]))
        if how == "change":
            answer[place] ^= data.draw(st.integers(1, 255))
        elif how == "cut":
            del answer[place:]
        else:
            answer += data.draw(st.binary(min_size=1, max_size=20))
        self.odd(bytes(answer))

    def odd(self, datagram: bytes) -> None:
        """Take what is no answer; it changes neither what is received nor what is lost."""
        before = self.table.received, self.table.lost, self.table.late, self.table.duplicated, self.series.rtt.count
        event = self.series.reply_received_untrusted(datagram, arrived_ns=self.now)
        assert event.kind in {"corrupted", "foreign"}, (event, datagram)
        after = self.table.received, self.table.lost, self.table.late, self.table.duplicated, self.series.rtt.count
        assert before == after

    @rule(quoted=st.binary(max_size=60))
    def icmp(self, quoted: bytes) -> None:
        """An ICMP error that quotes anything."""
        event = self.series.probe_unreachable_untrusted(quoted, "Connection refused", now_ns=self.now)
        assert event.kind == "foreign"

    @invariant()
    def balanced(self) -> None:
        """Every probe has one fate, and the counters are the sums of these."""
        table = self.table
        fates = list(self.fates.values())
        lost = fates.count("lost") + fates.count("late")
        assert (table.received, table.lost, table.late) == (fates.count("received"), lost, fates.count("late"))
        assert (table.waiting, table.not_sent) == (fates.count("waiting"), fates.count("not_sent"))
        assert table.sent == table.received + table.lost + table.waiting
        assert (table.duplicated, self.series.rtt.count) == (self.duplicates, table.received)
        assert table.reordered <= table.received

    @invariant()
    def deadline(self) -> None:
        """The next deadline is that of the oldest that waits."""
        waiting = [self.sent[sequence][1] + TIMEOUT for sequence, fate in self.fates.items() if fate == "waiting"]
        assert self.series.next_deadline() == min(waiting, default=None)

    @rule()
    def summary(self) -> None:
        """A summary can be had at any time, and a split of the loss is never more than the loss."""
        summary = self.series.summary()
        assert 0 <= (summary.loss or 0) <= 1
        if summary.lost_there is not None:
            assert summary.lost_back is not None
            assert 0 <= summary.lost_there + summary.lost_back <= summary.lost


class PropertyTests(SynchronousTestCase):
    """The machine, and single properties."""

    def test_machine(self) -> None:
        """Sent = received + lost + waiting, whatever happens in whatever order."""
        run_state_machine_as_test(SeriesMachine, settings=MACHINE)

    def test_arbitrary_bytes(self) -> None:
        """No bytes make the account fail, or count as an answer."""

        @PROPERTY
        @given(st.binary(max_size=200), st.integers(-(2**62), 2**62))
        def check(datagram: bytes, arrived_ns: int) -> None:
            series = series_of()
            probes = [series.next_probe(due_ns=0, now_ns=MS)[1] for _ in range(3)]
            assume(datagram not in probes)
            event = series.reply_received_untrusted(datagram, arrived_ns=arrived_ns)
            self.assertIn(event.kind, ("corrupted", "foreign"))
            self.assertEqual((series.table.received, series.table.lost, series.table.sent), (0, 0, 3))

        check()

    def test_answers_of_a_hostile_server(self) -> None:
        """Whatever numbers a server tells, with the right check, nothing fails, and no split is beyond the loss."""
        number = st.integers(0, 2**32 - 1)
        time = st.integers(0, 2**64 - 1)

        @settings(PROPERTY, max_examples=PROPERTY.max_examples // 5)
        @given(st.lists(st.tuples(st.integers(0, 9), number, number, time, time), max_size=20), st.booleans())
        def check(answers: list[tuple[int, int, int, int, int]], counts: bool) -> None:
            series = series_of()
            probes = [series.next_probe(due_ns=0, now_ns=MS)[1] for _ in range(10)]
            for sequence, received, duplicates, arrived, departed in answers:
                answer = rpc_answer(probes[sequence], received, duplicates, arrived_ns=arrived, departed_ns=departed)
                self.assertIn(series.reply_received_untrusted(answer, arrived_ns=2 * MS).kind, ("reply", "duplicate"))
            series.deadline_reached(now_ns=10**12)
            question = series.counts_question(now_ns=10**12)
            if counts and question is not None:
                series.reply_received_untrusted(rpc_answer(question, *answers[0][1:3]), arrived_ns=10**12)
            summary = series.summary()
            self.assertEqual(summary.received, len({answer[0] for answer in answers}))
            self.assertEqual(summary.sent, summary.received + summary.lost)
            if summary.lost_there is not None and summary.lost_back is not None:
                self.assertTrue(0 <= summary.lost_there + summary.lost_back <= summary.lost)
            summary.as_json()

        check()

    def test_round_trip(self) -> None:
        """What a probe says comes back, from an echo server and from ours, for all sessions, sizes and numbers."""
        word = st.integers(0, 2**64 - 1)

        @PROPERTY
        @given(word, st.integers(56, 400), st.integers(0, COUNTS_ONLY), word, st.integers(0, 2**32 - 1))
        def check(session: int, size: int, sequence: int, sent_ns: int, received: int) -> None:
            wire = wire_of(session, size)
            probe = wire.encode(sequence, sent_ns)
            self.assertEqual(len(probe), size)
            self.assertEqual(wire.decode_untrusted(probe)[:2], (sequence, sent_ns))
            self.assertEqual(wire.quoted_sequence_untrusted(probe), sequence)
            answer = rpc_answer(probe, received, arrived_ns=EPOCH, departed_ns=EPOCH)
            reply = wire.decode_untrusted(answer)
            self.assertEqual((reply.sequence, len(answer)), (sequence, size))
            assert reply.server is not None
            self.assertEqual(reply.server.received, received)

        check()

    def test_two_series_never_mix(self) -> None:
        """No answer to one series is one of another, whatever both are."""
        word = st.integers(0, 2**64 - 1)

        @PROPERTY
        @given(word, word, st.integers(56, 120), st.integers(0, 2**32 - 1), st.booleans())
        def check(mine: int, other: int, size: int, sequence: int, rpc: bool) -> None:
            assume(mine != other)
            probe = wire_of(other, size, bytes(range(255, 255 - size, -1))).encode(sequence, 5)
            answer = rpc_answer(probe) if rpc else probe
            self.assertRaises(DecodeError, wire_of(mine, size).decode_untrusted, answer)

        check()
