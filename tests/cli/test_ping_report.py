"""The summary of ``udpecho ping`` as text, its limits, and what it says where nothing came."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from tests.cli.pings import ADDRESS, MS, series_of, summary_of, times_of
from twistedudp.cli._ping_report import WORDS, Limits, Observed, exceeded, nothing_came, remarks, report_lines

NAMED = "server.example:10000"


class ReportTests(SynchronousTestCase):
    """The summary."""

    def test_echo(self) -> None:
        """An echo server's run has all counts, also zeros, the round trips, the jitter and the histogram."""
        series = series_of([MS] * 8 + [None, 2 * MS], target=NAMED)
        self.assertEqual(
            report_lines(series.summary(), series.rtt.buckets(), width=70, blocks=False),
            [
                "--- server.example:10000 (192.0.2.1:10000) ---",
                "run          64 bytes every 200 ms for 4.00 s, answered by echo",
                "probes       10 sent, 9 received, 1 lost (10%)",
                "answers      0 late, 0 duplicated, 0 reordered",
                "             0 corrupted, 0 foreign",
                "round trip   min 1.00 ms, mean 1.11 ms, max 2.00 ms, stddev 314 us",
                "             p50 1.00 ms, p90 1.00 ms, p99 2.00 ms, p99.9 2.00 ms",
                "jitter       62.5 us (RFC 3550)",
                "schedule     probes left 0 us (p50), 0 us (p99) behind time",
                "             arrival was told by the kernel",
                "",
                "     1 ms to  1.1 ms  ####################################### 8  88.9%",
                "      ...",
                "     2 ms to  2.2 ms  #####                                   1  11.1%",
            ],
        )

    def test_rpc(self) -> None:
        """An rpc server's run has the loss in each direction, the server's time and the delay's variation."""
        summary = summary_of(
            protocol="rpc",
            sent=20,
            lost=10,
            lost_there=7,
            lost_back=3,
            duplicated_there=2,
            server_time=times_of(0.0001),
            variation_there=times_of(0.000002),
            variation_back=times_of(0.003),
        )
        lines = report_lines(summary, [])
        for line in (
            "probes       20 sent, 10 received, 10 lost (50%)",
            "lost there   7 on the way to the server, 3 on the way back",
            "dup. there   2 probes reached the server more than once",
            "server took  p50 100 us, p99 100 us, max 100 us",
            "varies there p50 2.00 us, p99 2.00 us, max 2.00 us",
            "varies back  p50 3.00 ms, p99 3.00 ms, max 3.00 ms",
        ):
            self.assertIn(line, lines)

    def test_rpc_unknown(self) -> None:
        """Where an rpc server's count cannot be right, it is said and not guessed."""
        lines = report_lines(summary_of(protocol="rpc", lost_there=None), [])
        self.assertIn("lost there   unknown: the server's count does not fit this run's", lines)

    def test_odd(self) -> None:
        """What was odd is named in words and by its stable word; each word has its words."""
        summary = summary_of(
            unreachable=1, not_sent=2, oddities={"clock_jump": 1, "unanswered_at_stop": 3, "wrong_sequence": 4}
        )
        text = "\n".join(report_lines(summary, []))
        self.assertIn("ICMP         1 error\n", text)
        self.assertIn("not sent     2 probes\n", text)
        self.assertIn("not counted  3 probes whose answers were still awaited when the run was ended\n", text)
        self.assertIn("odd          1 times the wall clock was set (clock_jump)\n", text)
        self.assertIn("             4 answers with a number never sent (wrong_sequence)\n", text)
        self.assertNotIn("unanswered_at_stop", text)

    def test_nothing(self) -> None:
        """A run without an answer has neither round trips nor a histogram, and no figure of them."""
        lines = report_lines(summary_of([None, None]), [])
        self.assertEqual(
            lines,
            [
                "--- 192.0.2.1:10000 ---",
                "run          64 bytes every 200 ms for 2.40 s",
                "probes       2 sent, 0 received, 2 lost (100%)",
                "answers      0 late, 0 duplicated, 0 reordered",
                "             0 corrupted, 0 foreign",
                "schedule     probes left 0 us (p50), 0 us (p99) behind time",
            ],
        )

    def test_times_of_the_program(self) -> None:
        """Where the kernel told no times of arrival, the summary says so."""
        self.assertIn("arrival was told by this program", "\n".join(report_lines(summary_of(kernel_times=False), [])))

    def test_hostile_name(self) -> None:
        """A name as it was typed reaches the terminal without what could steer it."""
        lines = report_lines(summary_of(target="\x1b[2Jname:1"), [])
        self.assertEqual(lines[0], r"--- \u001b[2Jname:1 (192.0.2.1:10000) ---")

    def test_narrow(self) -> None:
        """At 80 columns nothing but names and addresses could make a line too long, whatever the figures are."""
        summary = summary_of(
            sent=12_345_678, received=12_345_678, lost=12_345_678, late=1_234_567, duplicated=1_234, reordered=1_234,
            corrupted=1_234, foreign=1_234, rtt=times_of(0.123456), server_time=times_of(0.123456),
            lost_there=12_345_678, lost_back=12_345_678, variation_there=times_of(0.1), variation_back=times_of(0.1),
        )  # fmt: skip
        self.assertLessEqual(max(map(len, report_lines(summary, [(MS, 12_345_678)]))), 79)


class LimitsTests(SynchronousTestCase):
    """``--max-loss`` and the others."""

    def test_within(self) -> None:
        """A run that keeps to its limits, or has just what they allow, exceeds none."""
        self.assertEqual(exceeded(summary_of(), Limits()), "")
        summary = summary_of([MS] * 99 + [None])
        self.assertEqual(exceeded(summary, Limits(loss=0.01, p50=0.0011, p99=0.0011, jitter=1.0)), "")

    def test_exceeded(self) -> None:
        """Each limit that is exceeded is named, with the figure and the limit."""
        summary = summary_of([MS] * 9 + [None], jitter=0.004)
        self.assertEqual(
            exceeded(summary, Limits(loss=0.01, p50=0.0005, p99=0.0002, jitter=0.003)),
            "loss is 10%, more than --max-loss 1%; p50 is 1.00 ms, more than --max-p50 500 us; "
            "p99 is 1.00 ms, more than --max-p99 200 us; jitter is 4.00 ms, more than --max-jitter 3 ms",
        )

    def test_no_loss_allowed(self) -> None:
        """One lost probe in a million exceeds a limit of none, and the line shows how many."""
        summary = summary_of(received=10**6 - 1, lost=1)
        self.assertEqual(exceeded(summary, Limits(loss=0.0)), "loss is <0.001%, more than --max-loss 0%")

    def test_hardly_exceeded(self) -> None:
        """Where three digits would not tell which is more, there are more of them."""
        summary = summary_of(received=98_999, lost=1001)
        self.assertEqual(exceeded(summary, Limits(loss=0.01)), "loss is 1,001 of 100,000, more than --max-loss 1%")
        summary = summary_of(rtt=times_of(0.05000001))
        self.assertEqual(exceeded(summary, Limits(p99=0.05)), "p99 is 0.050000010 s, more than --max-p99 50 ms")

    def test_jitter_of_one(self) -> None:
        """One answer has no jitter, and does not exceed a limit of it."""
        self.assertEqual(exceeded(summary_of([MS]), Limits(jitter=0.001)), "")


class NothingCameTests(SynchronousTestCase):
    """Why nothing came back."""

    def reason(self, observed: Observed | None = None, **changes: object) -> str:
        """Return what is said of a run of three lost probes, with some of its summary changed."""
        return nothing_came(summary_of([None] * 3, **changes), observed or Observed())

    def test_silence(self) -> None:
        """Silence has no reason that could be known; the doctor looks for one."""
        self.assertEqual(
            self.reason(target=NAMED),
            f"nothing came back from {NAMED} ({ADDRESS}); is a server running there? a firewall may be silent, too: "
            f"'udpecho doctor {NAMED}' tells why",
        )

    def test_refused(self) -> None:
        """A refusal means that nobody listens."""
        line = self.reason(Observed(unreachable="Connection refused (says 192.0.2.1)"), unreachable=3)
        self.assertIn(f"nobody listens at {ADDRESS}: its host refused (ICMP port unreachable)", line)

    def test_other_icmp(self) -> None:
        """Another ICMP error is quoted, and cannot steer the terminal."""
        line = self.reason(Observed(unreachable="No route to host\x1b"), unreachable=3)
        self.assertIn(rf"nothing came back from {ADDRESS}: No route to host\u001b; 'udpecho doctor", line)

    def test_another_address(self) -> None:
        """Answers from another address are told first, with the address, for that is a fault of the server."""
        line = self.reason(Observed("Connection refused", strangers={("192.0.2.9", 10000): 3}), foreign=3)
        self.assertEqual(
            line,
            f"nothing came back from {ADDRESS}, but 3 answers came from ANOTHER address: 192.0.2.9:10000; "
            f"'udpecho doctor {ADDRESS}' tells why",
        )

    def test_many_other_addresses(self) -> None:
        """Of many other addresses the most frequent are named."""
        strangers = {(f"192.0.2.{number}", 7): number for number in range(1, 6)}
        self.assertIn(
            "15 answers came from ANOTHER address: 192.0.2.5:7, 192.0.2.4:7, 192.0.2.3:7 and 2 more;",
            self.reason(Observed(strangers=strangers)),
        )

    def test_late(self) -> None:
        """Answers that were all late are told with the option that would count them."""
        self.assertIn("2 answers too late; a longer --timeout counts them", self.reason(late=2))

    def test_corrupted(self) -> None:
        """Answers that were all changed on the way are told as that."""
        self.assertIn(f"nothing came back intact from {ADDRESS}: 2 answers changed", self.reason(corrupted=2))

    def test_not_sent(self) -> None:
        """Probes that never left are the own machine's fault."""
        line = self.reason(Observed(not_sent="a firewall on this machine forbids it"), sent=0, lost=0, not_sent=3)
        self.assertIn(f"nothing was sent to {ADDRESS}: a firewall on this machine forbids it; ", line)

    def test_ended_early(self) -> None:
        """A run that was ended before an answer could have come blames nobody."""
        self.assertIn("ended while its probes waited", self.reason(sent=0, lost=0, oddities={"unanswered_at_stop": 1}))
        self.assertIn("ended before its first probe", self.reason(sent=0, lost=0))
        refused = self.reason(Observed("Connection refused"), sent=0, lost=0, oddities={"unanswered_at_stop": 1})
        self.assertIn("nobody listens", refused)


class RemarksTests(SynchronousTestCase):
    """What else is said below a summary."""

    def test_none(self) -> None:
        """A run without oddities needs no words."""
        self.assertEqual(remarks(summary_of(), Observed(strangers={})), [])

    def test_all(self) -> None:
        """Strangers, ICMP errors, probes not sent and late answers each have a line."""
        observed = Observed("No route to host", "no buffer space", {("192.0.2.9", 7): 1})
        self.assertEqual(
            remarks(summary_of(unreachable=1, not_sent=2, late=3), observed),
            [
                f"an answer came from ANOTHER address: 192.0.2.9:7; 'udpecho doctor {ADDRESS}' tells why",
                "1 ICMP error about these probes, the last of which says: No route to host",
                "2 probes could not be sent: no buffer space",
                "3 answers came after the timeout; a longer --timeout counts them",
            ],
        )

    def test_words(self) -> None:
        """No stable word is explained by itself, and all fit into a line of 80 columns."""
        for word, words in WORDS.items():
            self.assertNotIn("_", words)
            self.assertLess(len(f"             1,234 {words} ({word})"), 80)
