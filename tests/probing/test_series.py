"""A series and its summary: the table, the figures and the JSON object together."""

from __future__ import annotations

import json

from hdrh.histogram import HdrHistogram  # type: ignore[import-untyped]  # it has no types
from twisted.trial.unittest import SynchronousTestCase

from tests.probing.answers import EPOCH, MS, SIZE, error_answer, rpc_answer, series_of
from twistedudp.probing import COUNTS_ONLY, SUMMARY_FORMAT

TIMEOUT = 1000 * MS


class SeriesTests(SynchronousTestCase):
    """A series against a server that answers by hand."""

    def setUp(self) -> None:
        """Begin."""
        self.series = series_of(timeout_ns=TIMEOUT)

    def send(self, count: int, late_ns: int = 0) -> list[bytes]:
        """Send probes 10 ms apart, each so much later than planned."""
        first = self.series.table.next_sequence
        return [
            self.series.next_probe(due_ns=sequence * 10 * MS, now_ns=sequence * 10 * MS + late_ns)[1]
            for sequence in range(first, first + count)
        ]

    def test_echo(self) -> None:
        """All figures of an echo server's series, worked out by hand."""
        probes = self.send(5, late_ns=MS // 2)
        for sequence, rtt in ((0, 2), (1, 4), (3, 6), (3, 7)):
            arrived_ns = sequence * 10 * MS + MS // 2 + rtt * MS
            self.series.reply_received_untrusted(probes[sequence], arrived_ns=arrived_ns, kernel_time=True)
        self.series.reply_received_untrusted(b"noise", arrived_ns=38 * MS)
        self.series.deadline_reached(now_ns=2000 * MS)
        summary = self.series.summary()
        self.assertEqual((summary.target, summary.address, summary.protocol), ("server", "192.0.2.1:10000", "echo"))
        self.assertEqual((summary.sent, summary.received, summary.lost, summary.duplicated), (5, 3, 2, 1))
        self.assertEqual(summary.loss, 0.4)
        self.assertEqual((summary.rtt.min, summary.rtt.max), (0.002, 0.006))
        self.assertAlmostEqual(summary.rtt.mean or 0, 0.004)
        self.assertAlmostEqual(summary.jitter or 0, (0.002 / 16) * 15 / 16 + 0.002 / 16)
        self.assertEqual((summary.schedule_error.min, summary.schedule_error.max), (0.0005, 0.0005))
        self.assertEqual((summary.size, summary.interval, summary.duration), (SIZE, 0.01, 1.9995))
        self.assertTrue(summary.kernel_times)
        self.assertEqual(summary.oddities, {"not_a_probe": 1})
        self.assertEqual((summary.lost_there, summary.lost_back, summary.duplicated_there), (None, None, None))
        self.assertIsNone(self.series.counts_question(now_ns=0))

    def test_rpc(self) -> None:
        """An rpc server's counts at the end split the loss, late answers apart."""
        probes = self.send(10)
        had = 0
        for sequence, fate in enumerate("rr.b.rrblr"):  # received, lost there or back, late
            had += fate != "."
            answer = rpc_answer(probes[sequence], had, arrived_ns=EPOCH, departed_ns=EPOCH + MS)
            if fate in "rl":
                arrived_ns = sequence * 10 * MS + (5 * MS if fate == "r" else 2 * TIMEOUT)
                self.series.reply_received_untrusted(answer, arrived_ns=arrived_ns)
        self.series.deadline_reached(now_ns=3 * TIMEOUT)
        question = self.series.counts_question(now_ns=3 * TIMEOUT)
        assert question is not None
        answer = rpc_answer(question, had, 3, arrived_ns=EPOCH + TIMEOUT)
        event = self.series.reply_received_untrusted(answer, arrived_ns=3 * TIMEOUT)
        self.assertEqual((event.kind, event.sequence), ("counts", -1))
        summary = self.series.summary()
        self.assertEqual((summary.sent, summary.received, summary.lost, summary.late), (10, 5, 5, 1))
        self.assertEqual((summary.lost_there, summary.lost_back, summary.duplicated_there), (2, 2, 3))
        self.assertEqual(summary.protocol, "rpc")
        self.assertEqual(summary.server_time.max, 0.001)

    def test_split_without_counts(self) -> None:
        """Before the counts are known, loss is split up to the last answered probe: the rest is open."""
        probes = self.send(10)
        for sequence, had in ((0, 1), (1, 2), (5, 4)):  # 2 and 3 never arrived, the answer to 4 was lost
            self.series.reply_received_untrusted(rpc_answer(probes[sequence], had), arrived_ns=60 * MS)
        self.assertEqual(self.series.summary().lost_there, None)  # while they wait, nothing is lost
        self.series.deadline_reached(now_ns=2 * TIMEOUT)
        summary = self.series.summary()
        self.assertEqual((summary.lost, summary.lost_there, summary.lost_back), (7, 2, 1))

    def test_split_at_stop(self) -> None:
        """At a stop, probes that are still open among the answered ones make the split unknown, not wrong."""
        probes = self.send(4)
        for sequence, had in ((0, 1), (1, 2), (3, 3)):
            self.series.reply_received_untrusted(rpc_answer(probes[sequence], had), arrived_ns=60 * MS)
        self.assertEqual(self.series.stop_waiting(), 1)
        summary = self.series.summary()
        self.assertEqual((summary.sent, summary.received, summary.lost), (3, 3, 0))
        self.assertEqual((summary.lost_there, summary.lost_back), (None, None))
        self.assertEqual(summary.oddities, {"unanswered_at_stop": 1})

    def test_split_at_stop_of_the_last(self) -> None:
        """... whereas the last ones, which are on their way, leave it known."""
        probes = self.send(4)
        for sequence, had in ((0, 1), (1, 2)):
            self.series.reply_received_untrusted(rpc_answer(probes[sequence], had), arrived_ns=60 * MS)
        self.series.stop_waiting()
        summary = self.series.summary()
        self.assertEqual((summary.sent, summary.lost_there, summary.lost_back), (2, 0, 0))

    def test_without_method(self) -> None:
        """An rpc server without rpc.probe is one, has no counts, and its answers' round trips count."""
        [probe] = self.send(1)
        self.series.reply_received_untrusted(error_answer(probe), arrived_ns=3 * MS)
        summary = self.series.summary()
        self.assertEqual((summary.protocol, summary.received), ("rpc, without rpc.probe", 1))
        self.assertEqual(summary.rtt.max, 0.003)
        self.assertIsNone(self.series.counts_question(now_ns=0))

    def test_counts_question(self) -> None:
        """The question for the counts is a probe of the largest number, and no probe of the account."""
        [probe] = self.send(1)
        self.series.reply_received_untrusted(rpc_answer(probe), arrived_ns=3 * MS)
        question = self.series.counts_question(now_ns=5 * MS)
        assert question is not None
        self.assertEqual(len(question), SIZE)
        self.assertEqual(self.series.table.wire.decode_untrusted(question).sequence, COUNTS_ONLY)
        self.assertEqual(self.series.table.sent, 1)

    def test_nothing_answered(self) -> None:
        """A series without an answer has no times, and all of it is lost."""
        self.send(2)
        self.series.deadline_reached(now_ns=10 * TIMEOUT)
        summary = self.series.summary()
        self.assertEqual((summary.protocol, summary.loss, summary.histogram), ("", 1.0, ""))
        self.assertEqual((summary.rtt.p50, summary.jitter), (None, None))

    def test_nothing_sent(self) -> None:
        """A series that never began has no loss either."""
        summary = self.series.summary()
        self.assertEqual((summary.sent, summary.loss, summary.duration), (0, None, 0.0))

    def test_not_sent(self) -> None:
        """What the own machine did not send is no loss."""
        self.send(2)
        self.series.probe_not_sent(1, "a firewall on this machine forbids it (EPERM)")
        self.series.deadline_reached(now_ns=10 * TIMEOUT)
        summary = self.series.summary()
        self.assertEqual((summary.sent, summary.lost, summary.not_sent), (1, 1, 1))

    def test_duration_of_one(self) -> None:
        """A series lasts until the last answer, also where that was taken before the sending was noted."""
        _, probe, _ = self.series.table.next_probe(now_ns=0)
        self.series.reply_received_untrusted(probe, arrived_ns=3 * MS)
        self.series.probe_made(due_ns=0, now_ns=0)
        self.assertEqual(self.series.summary().duration, 0.003)

    def test_clock(self) -> None:
        """That the wall clock was set is told."""
        self.series.clock_jumped()
        self.assertEqual(self.series.summary().oddities, {"clock_jump": 1})

    def test_duplicates_change_no_time(self) -> None:
        """Duplicates, late and corrupted answers change neither round trips nor jitter."""
        probes = self.send(3)
        self.series.reply_received_untrusted(probes[0], arrived_ns=2 * MS)
        for datagram, arrived_ns in ((probes[0], 900 * MS), (probes[1], 3 * TIMEOUT), (probes[2][:-1], 5 * MS)):
            self.series.reply_received_untrusted(datagram, arrived_ns=arrived_ns)
        self.assertEqual((self.series.rtt.count, self.series.rtt.longest_ns), (1, 2 * MS))
        self.assertIsNone(self.series.summary().jitter)

    def test_json(self) -> None:
        """The JSON object is flat, has its percentiles in seconds, and a histogram that others decode."""
        probes = self.send(2)
        for sequence, probe in enumerate(probes):
            self.series.reply_received_untrusted(probe, arrived_ns=sequence * 10 * MS + 2 * MS)
        whole = json.loads(json.dumps(self.series.summary().as_json()))
        self.assertEqual(whole["format"], SUMMARY_FORMAT)
        self.assertEqual((whole["sent"], whole["received"], whole["lost"], whole["loss"]), (2, 2, 0, 0.0))
        self.assertEqual({whole[name] for name in ("min", "mean", "p50", "p90", "p99", "p99.9", "max")}, {0.002})
        self.assertEqual(whole["jitter"], 0.0)
        self.assertEqual(set(whole["server_time"].values()), {None})
        self.assertEqual(HdrHistogram.decode(whole["histogram"]).get_total_count(), 2)
