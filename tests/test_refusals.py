"""What is logged about refusals: enough to know, and never much."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from twisted.internet.task import Clock
from twisted.logger import Logger, formatEvent
from twisted.trial.unittest import SynchronousTestCase

from twistedudp._refusals import LINES_PER_MINUTE, RefusalLog, network_prefix

if TYPE_CHECKING:
    from twisted.logger import LogEvent


class RefusalLogTests(SynchronousTestCase):
    """Lines are bounded by reason, by prefix and altogether."""

    def setUp(self) -> None:
        """Make a log whose lines are kept."""
        self.events: list[LogEvent] = []
        observer: Any = self.events.append
        self.clock = Clock()
        self.log = RefusalLog(self.clock.seconds, Logger(namespace="tests", observer=observer))

    def lines(self) -> list[str]:
        """Return what was logged since this was last asked."""
        lines = [formatEvent(event) for event in self.events]
        self.events.clear()
        return lines

    def test_line(self) -> None:
        """A line names the prefix, the host, the reason and what was given as its text."""
        self.log.refused("host_rate", "192.0.2.7", "more than 1,000 a second")
        expected = (
            "refused a datagram of 192.0.2.0/24 (from 192.0.2.7): more than 1,000 a second "
            "(host_rate; told at most once a minute)"
        )
        self.assertEqual(self.lines(), [expected])

    def test_once_a_minute(self) -> None:
        """One reason and prefix makes one line within any sixty seconds, whichever host of the prefix it is."""
        for second in range(120):
            self.log.refused("denied", f"192.0.2.{second}", "no")
            self.clock.advance(1.0)
        lines = self.lines()
        self.assertEqual(len([line for line in lines if "192.0.2.0/24" in line]), 2)
        self.clock.advance(59.0)
        self.log.refused("denied", "192.0.2.1", "no")
        self.assertEqual(len([line for line in self.lines() if "192.0.2.0/24" in line]), 1)

    def test_apart(self) -> None:
        """Another reason, and another prefix, has a line of its own."""
        for reason, host in (("a", "192.0.2.1"), ("b", "192.0.2.1"), ("a", "192.0.3.1"), ("a", "2001:db8::1")):
            self.log.refused(reason, host, "no")
        self.assertEqual(len(self.lines()), 4)

    def test_all_together(self) -> None:
        """Twenty lines a minute are all that any number of prefixes gets, and one with the number of the others."""
        for number in range(1000):
            self.log.refused("denied", f"10.{number % 250}.{number // 250}.1", "no")
            self.clock.advance(0.05)
        self.assertEqual(len(self.lines()), LINES_PER_MINUTE)
        self.assertEqual(self.log.not_shown, 1000 - LINES_PER_MINUTE)
        self.clock.advance(60.0)
        self.log.refused("denied", "10.0.0.1", "no")
        lines = self.lines()
        self.assertEqual(len(lines), 2)
        self.assertIn("refused 980 more datagrams", lines[0])

    def test_bounded(self) -> None:
        """What it remembers is what it has told within a minute, under any number of sources."""
        for number in range(100_000):
            self.log.refused("denied", f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}", "no")
        self.assertLessEqual(len(self.log._shown), LINES_PER_MINUTE)

    def test_any_minute(self) -> None:
        """No sixty seconds hold more than twenty lines, wherever they begin; the line with the number is beside."""
        at = []
        for number in range(3000):
            self.log.refused("denied", f"10.{number % 200}.{number // 200}.1", "no")
            at += [self.clock.seconds() for line in self.lines() if "more datagrams" not in line]
            self.clock.advance(0.1)
        self.assertGreater(len(at), 60)
        for start in at:
            self.assertLessEqual(len([one for one in at if start <= one < start + 60]), LINES_PER_MINUTE)

    def test_no_minute_begins_anew(self) -> None:
        """After twenty lines spread over a minute each that is a minute old makes room for one, and not for twenty."""
        for number in range(LINES_PER_MINUTE):
            self.log.refused("denied", f"10.0.{number}.1", "no")
            self.clock.advance(3.0)
        self.assertEqual(len(self.lines()), LINES_PER_MINUTE)
        for number in range(100):
            self.log.refused("denied", f"10.1.{number}.1", "no")
        self.assertEqual(len(self.lines()), 1)

    def test_several_at_once(self) -> None:
        """Where several are told at once, one has its line and the others are counted."""
        self.log.refused("denied", "192.0.2.1", "no", 5)
        self.assertEqual(self.log.not_shown, 4)

    def test_close(self) -> None:
        """At the end what was not told is told."""
        self.log.refused("denied", "192.0.2.1", "no", 3)
        self.lines()
        self.log.close()
        self.log.close()
        self.assertEqual(self.lines(), ["refused 2 more datagrams in the minute before; see the counters"])

    def test_text_is_no_format(self) -> None:
        """Braces in what is given are no part of a format."""
        self.log.refused("denied", "fe80::1%{log_level}", "{nothing}")
        (line,) = self.lines()
        self.assertIn("{nothing}", line)


class NetworkPrefixTests(SynchronousTestCase):
    """The network around a host."""

    def test_prefixes(self) -> None:
        """/24 and /56, whatever the spelling; what is no address is left as it is."""
        for host, prefix in (
            ("192.0.2.77", "192.0.2.0/24"),
            ("::ffff:192.0.2.77", "192.0.2.0/24"),
            ("2001:db8:1:2345::1", "2001:db8:1:2300::/56"),
            ("fe80::1%eth0", "fe80::/56"),
            ("::1", "::/56"),
            ("somewhere", "somewhere"),
        ):
            self.assertEqual(network_prefix(host), prefix)
