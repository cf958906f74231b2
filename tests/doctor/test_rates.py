"""Loss against limits: what the figures of the series say."""

from __future__ import annotations

import errno
import os
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from twistedudp.doctor._examine import _good
from twistedudp.doctor._rates import Paced, Rates, differ, judge_rates

PEER = ("192.0.2.1", 7)


def paced(sent: int, answered: int, **members: Any) -> Paced:
    """Return a series of some probes."""
    blank = Paced(
        rate=1000.0, burst=0, sent=sent, answered=answered, first=0, duplicated=0, dropped=0, receive_buffer=106496,
        passed=0.0,
    )  # fmt: skip
    return blank._replace(**members)


class RatesTests(SynchronousTestCase):
    """Series of all kinds."""

    def codes(self, rates: Rates) -> list[tuple[str, bool]]:
        """Return the codes of what is found, and whether each is a fault."""
        return [(finding.code, finding.fault) for finding in judge_rates(PEER, rates)]

    def test_nothing_lost(self) -> None:
        """Where nothing is lost there is nothing to say."""
        self.assertEqual(self.codes(Rates(paced(600, 600))), [])

    def test_random(self) -> None:
        """The same share at both rates is loss at random, from one per cent on a fault."""
        self.assertEqual(self.codes(Rates(paced(600, 480), paced(100, 80))), [("UDP-LOSS", True)])
        self.assertEqual(self.codes(Rates(paced(600, 599), paced(100, 100))), [("UDP-LOSS", False)])
        [finding] = judge_rates(PEER, Rates(paced(600, 480), paced(100, 80)))
        self.assertTrue(finding.says.startswith("20.0% of the datagrams"), finding.says)
        [finding] = judge_rates(PEER, Rates(paced(600, 599), paced(100, 100)))
        self.assertIn("1 of 700 datagrams", finding.says)
        self.assertIn("too few to tell", finding.says)

    def test_chance(self) -> None:
        """Shares of the same loss that differ by chance are no limit, up to four standard deviations."""
        self.assertFalse(Rates(paced(600, 480), paced(100, 90)).limited)
        self.assertTrue(Rates(paced(600, 350), paced(100, 90)).limited)
        self.assertLess(abs(differ(paced(600, 480), paced(100, 80))), 1e-9)
        self.assertEqual(differ(paced(600, 600), paced(100, 100)), 0.0)

    def test_everything_lost(self) -> None:
        """A path that has gone silent meanwhile is loss, not a limit, and nothing divides by zero."""
        self.assertEqual(self.codes(Rates(paced(600, 0), paced(100, 0))), [("UDP-LOSS", True)])

    def test_slower_is_worse(self) -> None:
        """More loss at the low rate is no limit."""
        self.assertFalse(Rates(paced(600, 599), paced(100, 50)).limited)

    def test_limited(self) -> None:
        """More loss at the high rate is a limit, and the rate that passed is named."""
        rates = Rates(paced(600, 60, burst=100, first=31), paced(100, 100), paced(750, 80, rate=500.0, passed=50.2))
        [finding] = judge_rates(PEER, rates)
        self.assertEqual((finding.code, finding.fault), ("UDP-RATE-LIMITED", True))
        self.assertIn("lost above about 50 per second", finding.says)
        self.assertIn("of the 100 at once the first 31 were answered without a gap", finding.evidence)

    def test_refused_here(self) -> None:
        """What the own kernel did not send is a finding of its own, by why, and no loss of the path's."""
        for number, code in ((errno.EPERM, "UDP-LOCAL-FIREWALL"), (errno.ENOBUFS, "UDP-CANNOT-SEND")):
            rates = Rates(paced(420, 420, refused=((number, 180),)))
            [finding] = judge_rates(PEER, rates)
            self.assertEqual((finding.code, finding.fault), (code, True))
            self.assertIn("sent only 420 of 600 datagrams", finding.says)
            self.assertEqual(finding.evidence, (f"180 not sent: {os.strerror(number)}",))
            self.assertEqual(_good(rates, None)[:-1], [])
        self.assertIn("all answered", _good(Rates(paced(600, 600)), None)[0])

    def test_forking_server(self) -> None:
        """A limit may be a server that starts a process for each datagram; the advice names it."""
        for steady in (paced(750, 80, rate=500.0, passed=50.2), paced(750, 750, rate=500.0)):
            [finding] = judge_rates(PEER, Rates(paced(600, 60, burst=100, first=31), paced(200, 200), steady))
            self.assertIn("starts a process for each datagram", finding.advice)

    def test_bursts_only(self) -> None:
        """Where an even series passes, only the burst is to blame."""
        rates = Rates(paced(600, 540, burst=100, first=40), paced(200, 200), paced(750, 750, rate=500.0))
        [finding] = judge_rates(PEER, rates)
        self.assertEqual(finding.code, "UDP-RATE-LIMITED")
        self.assertIn("100 come at once and the first 40 pass; 500 per second pass when", finding.says)

    def test_buffer(self) -> None:
        """Answers that the own kernel dropped are told beside what the path itself loses."""
        small = paced(600, 500, dropped=100, receive_buffer=2304)
        self.assertEqual(self.codes(Rates(paced(600, 600), small_buffer=small)), [("UDP-RECEIVE-BUFFER", True)])
        both = Rates(paced(600, 480), paced(100, 80), small_buffer=small)
        self.assertEqual([code for code, _ in self.codes(both)], ["UDP-RECEIVE-BUFFER", "UDP-LOSS"])
        [finding] = judge_rates(PEER, Rates(paced(600, 600), small_buffer=small))
        self.assertIn("dropped 100 answers", finding.says)
        self.assertIn("2,304 bytes", finding.says)
