"""What sweeps print: a line for each step, and what was found in sentences."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from tests.cli.test_output import OutputTestCase
from tests.cli.test_program import ProgramTestCase
from twistedudp._sweeps import RateStep, RateSweep, SizeStep, SizeSweep
from twistedudp.cli._sweep import _Lines, _rate_line, _size_line
from twistedudp.cli._sweep_findings import rate_findings, rate_text, size_findings

SIZE_STEP = SizeStep("search", 1472, "passed", 1, 0.00123, "", 1472, 1473)
SIZES = SizeSweep(
    address="192.0.2.1:10000",
    largest=1472,
    path_mtu=1500,
    limit="interface",
    interface_mtu=1500,
    fragments_pass=True,
    cut_to=None,
    both_ways=True,
    verified=True,
    detail="",
    duration=1.0,
    probes=20,
    steps=(SIZE_STEP,),
)
RATE_STEP = RateStep("search", 640.0, 640.0, "passed", 640, 0, 0.0, None, 0.00123, "", 640.0, None)
RATES = RateSweep(
    address="192.0.2.1:10000",
    size=64,
    highest=697.9,
    lost_at=728.0,
    bound="loss",
    confirmed=True,
    detail="",
    most_rate=10_000.0,
    max_loss=0.0,
    seconds_per_step=1.0,
    resolution=0.05,
    steps=(replace(RATE_STEP, rate=728.0, outcome="lost", lost=10, sent=728, loss=10 / 728),),
)
ATTACK = "\x1b[2J"


class SizeTests(SynchronousTestCase):
    """Sweeps over sizes."""

    def line(self, **changes: Any) -> str:
        """Return the line of a step."""
        return _size_line(replace(SIZE_STEP, **changes))[0]

    def findings(self, **changes: Any) -> str:
        """Return what was found as one text."""
        return " ".join(size_findings(replace(SIZES, **changes)))

    def test_lines(self) -> None:
        """Each outcome has its words."""
        self.assertEqual(self.line(), "   1,472 bytes  pass, 1.23 ms")
        self.assertEqual(self.line(outcome="silent", tries=4), "   1,472 bytes  no answer to 4 tries")
        self.assertEqual(self.line(outcome="silent", tries=1), "   1,472 bytes  no answer to 1 try")
        self.assertEqual(
            self.line(outcome="too large here", detail="an MTU of 1,500 bytes"),
            "   1,472 bytes  too large: an MTU of 1,500 bytes",
        )
        self.assertEqual(self.line(outcome="too large there"), "   1,472 bytes  too large, says ICMP")
        self.assertEqual(self.line(outcome="cut", detail="it has 5 bytes"), "   1,472 bytes  cut: it has 5 bytes")
        self.assertEqual(self.line(outcome="unreachable", detail="refused"), "   1,472 bytes  refused")
        self.assertIn("again: pass", self.line(stage="check"))
        self.assertIn("in fragments: pass", self.line(stage="fragments"))
        self.assertNotIn("\x1b", self.line(outcome="unreachable", detail=ATTACK))

    def test_limits(self) -> None:
        """Each limit is told with what is known of it, and two explanations where there are two."""
        self.assertEqual(
            self.findings(),
            "Payloads of up to 1,472 bytes pass whole. The path MTU is 1,500 bytes, which is that of the own interface."
            " Larger datagrams pass in fragments.",
        )
        self.assertIn("as a router says by ICMP", self.findings(limit="router"))
        self.assertIn("the path may carry more", self.findings(limit="none"))
        self.assertIn("fragments do not pass.", self.findings(fragments_pass=False))
        self.assertRegex(self.findings(limit="silence"), "vanish without a word: a black hole")
        self.assertRegex(self.findings(limit="silence", fragments_pass=None), "black hole .*, or a server")
        self.assertIn("cuts larger ones to 1,472 bytes", self.findings(limit="server", cut_to=1472, path_mtu=None))
        self.assertIn("size of a buffer", self.findings(limit="server", path_mtu=None))

    def test_doubts(self) -> None:
        """What did not hold, and what holds for one way only, is said."""
        self.assertIn("did not hold", self.findings(verified=False))
        self.assertIn("way there only", self.findings(both_ways=False))

    def test_nothing(self) -> None:
        """Without any answer it says why, as far as that is known."""
        nothing = {"largest": None, "path_mtu": None, "limit": "no answer", "steps": (replace(SIZE_STEP, tries=10),)}
        self.assertIn("did not answer 10 probes: is a server running there?", self.findings(**nothing))
        self.assertIn("10 probes: Connection refused", self.findings(**nothing, detail="Connection refused"))
        self.assertNotIn("\x1b", self.findings(**nothing, detail=ATTACK))
        self.assertIn("is no echo server", self.findings(**{**nothing, "limit": "server"}))
        self.assertEqual(
            self.findings(**{**nothing, "limit": "this machine"}, detail="not permitted"),
            "It is this machine that sends nothing to 192.0.2.1:10000: not permitted.",
        )
        self.assertIn(
            "It is this machine that stops larger ones: x.",
            self.findings(limit="this machine", path_mtu=None, detail="x"),
        )


class RateTests(SynchronousTestCase):
    """Sweeps over rates."""

    def line(self, **changes: Any) -> str:
        """Return the line of a step."""
        return _rate_line(replace(RATE_STEP, **changes))[0]

    def findings(self, **changes: Any) -> str:
        """Return what was found as one text."""
        return " ".join(rate_findings(replace(RATES, **changes)))

    def test_rates(self) -> None:
        """Rates are written as people read them."""
        self.assertEqual(
            [rate_text(rate) for rate in (1.25, 20.0, 697.9, 1000.4)], ["1.25/s", "20/s", "697.9/s", "1,000/s"]
        )

    def test_lines(self) -> None:
        """Each outcome has its words."""
        self.assertEqual(self.line(), "       640/s  nothing lost, p99 1.23 ms")
        self.assertEqual(self.line(lost=3, loss=3 / 640), "       640/s  3 of 640 lost (0.469%), p99 1.23 ms")
        self.assertEqual(
            self.line(outcome="lost", lost=320, loss=0.5), "       640/s  320 of 640 lost (50%), p99 1.23 ms"
        )
        self.assertIn("this machine: it was late", self.line(outcome="this machine", detail="it was late"))
        self.assertEqual(
            self.line(outcome="no answer", lost=640, loss=1.0, p99=None), "       640/s  no answer to 640 probes"
        )
        self.assertIn("again: nothing lost", self.line(stage="check"))

    def test_bounds(self) -> None:
        """Each bound is told, and whose it is."""
        self.assertEqual(
            self.findings(),
            "Up to 697.9/s nothing is lost (64 bytes each, 357 kbit/s of payload). At 728/s 1.37% was lost.",
        )
        self.assertIn("at most 1% is lost", self.findings(max_loss=0.01))
        most = self.findings(bound="most_rate", highest=10_000.0, lost_at=None)
        self.assertRegex(most, "Up to 10,000/s .*--flood RATE")
        own = self.findings(bound="this machine", lost_at=None, detail="it sent 5 instead of 9")
        self.assertIn("this machine that cannot do more, not the network: it sent 5 instead of 9", own)
        self.assertIn("the limit moves", self.findings(bound="steps", confirmed=False))

    def test_nothing(self) -> None:
        """Without a rate it says whether nothing answered, this machine lost it, or the network."""
        nothing = {"highest": None, "lost_at": 1.25, "confirmed": False}
        self.assertIn("--max-loss 1%", self.findings(**nothing))
        self.assertIn("It is this machine", self.findings(**nothing, bound="this machine", detail="x"))
        unsent = (replace(RATE_STEP, sent=0),)
        own = self.findings(**nothing, bound="this machine", detail="x", steps=unsent)
        self.assertEqual(own, "It is this machine that sends nothing to 192.0.2.1:10000: x.")
        refused = (replace(RATE_STEP, outcome="no answer", detail="refused"),)
        self.assertIn("did not answer 640 probes: refused", self.findings(**nothing, bound="no answer", steps=refused))


class UsageTests(ProgramTestCase):
    """What a sweep cannot do is wrong usage."""

    def test_all_lost(self) -> None:
        """A rate at which everything may be lost has no bound."""
        for share in ("100%", "1.0"):
            self.assertIn(
                "--max-loss 100%: with --sweep-rate it must be below 100%",
                self.misuse("ping", "--sweep-rate", "--max-loss", share, "127.0.0.1"),
            )


class ScreenTests(OutputTestCase):
    """Where the lines go."""

    def printed(self, *, plain: bool = False, silent: bool = False) -> None:
        """Print a line, with a status below it, and a finding."""
        lines = _Lines(plain=plain, silent=silent)
        lines.add("a line", "green")
        lines.status("looking " + "x" * 200)
        lines.add("another line")
        lines.status("")
        lines.findings(["One.", "Two."])

    def test_terminal(self) -> None:
        """On a terminal the status is as wide as that at most, and is erased before anything else is printed."""
        screen = self.terminal(COLUMNS="80")
        self.printed()
        text = screen.written().decode()
        before, erase, after = text.partition("\r\x1b[2K")
        self.assertTrue(erase)
        self.assertIn("\x1b[32ma line", before)
        status = before.rpartition("\n")[2]
        self.assertTrue(status.startswith("looking x"))
        self.assertEqual(len(status), 79)
        self.assertTrue(after.startswith("another line\n"), after)
        self.assertNotIn("looking", after)
        self.assertIn("One. Two.", re.sub(r"\x1b\[[0-9;]*m", "", after))

    def test_plain(self) -> None:
        """With --plain, elsewhere, and on terminals that can do nothing, there are lines and nothing else."""
        for variables, plain in (({}, True), (None, False), ({"TERM": "dumb"}, False)):
            screen = self.screen() if variables is None else self.terminal(**variables)
            self.printed(plain=plain)
            self.assertEqual(screen.written(), b"a line\nanother line\n\nOne.\nTwo.\n")

    def test_no_colour(self) -> None:
        """Where no colours are wanted there are none."""
        screen = self.terminal(NO_COLOR="1")
        self.printed()
        self.assertNotRegex(screen.written().decode(), r"\x1b\[[0-9;]*3[0-9]m")

    def test_silent(self) -> None:
        """With --json there is nothing but the object."""
        screen = self.terminal()
        lines = _Lines(plain=False, silent=True)
        lines.add("a line")
        lines.status("looking")
        self.assertEqual(screen.written(), b"")
