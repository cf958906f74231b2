"""Whatever the network does, calls run once and end in time, and nothing is left behind: thousands of seeds."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from twisted.trial.unittest import SynchronousTestCase

from tests.checkout import SCRIPTS
from tests.properties import PROFILE
from tests.simulated.ledger import Broken
from tests.simulated.plan import make_plan
from tests.simulated.run import simulate
from tests.simulated.seeds import run_here, run_spread

SHARE = {"brief": 25, "quick": 120, "full": 120}[PROFILE]
"""Seeds that run wherever all tests run."""

ALL = {"brief": 300, "quick": 10_000, "full": 10_000}[PROFILE]
"""Seeds that run in scripts/test --full; under trial it is asked only whether they run at all."""


class SeedTests(SynchronousTestCase):
    """What must hold in every seed."""

    def test_share(self) -> None:
        """The first seeds hold, and all that is to happen does happen in some of them."""
        summary = run_here(range(SHARE))
        self.flushLoggedErrors(Broken)
        self.assertEqual("\n".join(summary.reports), "")
        self.assertEqual(summary.rare(0.01), {})

    @pytest.mark.slow
    def test_all(self) -> None:
        """All seeds hold; each effect, cancels, stops, restarts and so on occur in one fifth of them at least."""
        summary = run_spread(0, ALL - 1)
        self.assertEqual("\n".join(summary.reports), "")
        self.assertEqual((summary.seeds, summary.failed), (ALL, []))
        self.assertEqual(summary.rare(), {})


class ReplayTests(SynchronousTestCase):
    """A seed is all that is needed to see the same again."""

    def replay(self, *arguments: str, hash_seed: str = "0") -> subprocess.CompletedProcess[str]:
        """Run the program in another process."""
        return self.run_python("-m", "tests.simulated", *arguments, PYTHONHASHSEED=hash_seed)

    def run_python(self, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
        """Run Python with the package and the tests where this process has found them."""
        return subprocess.run(
            [sys.executable, *arguments],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), **variables},
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )

    def test_across_processes(self) -> None:
        """Processes with different hash seeds see what this one sees, datagram by datagram."""
        here = simulate(11, ladder=True)
        self.flushLoggedErrors(Broken)
        for hash_seed in ("1", "2"):
            done = self.replay("11", hash_seed=hash_seed)
            self.assertEqual((done.returncode, done.stderr), (0, ""))
            self.assertEqual(done.stdout, f"{here.ladder}\ndigest {here.digest}\nseed 11: everything holds\n")

    def test_plans_differ(self) -> None:
        """Different seeds mean different things; equal seeds the same."""
        self.assertEqual(len({repr(make_plan(seed).events) for seed in range(50)}), 50)
        self.assertEqual(make_plan(3).events, make_plan(3).events)

    def test_failure_is_reported(self) -> None:
        """A seed that fails prints itself, its ladder diagram, and the command that replays it."""
        summary = run_here([1], mutant="next_server")
        self.flushLoggedErrors(Broken)
        [report] = summary.reports
        self.assertRegex(report, r"^seed 1: calls stay where they were sent: call \d+ ")
        self.assertRegex(report, r"10000\|  request 0x[0-9a-f]+ \"(work|look)\", \d+ B")
        self.assertTrue(report.endswith(" by: ./scripts/simulate 1 --mutant next_server\n"), report)

    def test_failure_is_replayed(self) -> None:
        """... which fails as well, with the same words and the whole diagram."""
        summary = run_here([1], mutant="next_server")
        self.flushLoggedErrors(Broken)
        done = self.replay("1", "--mutant", "next_server")
        self.assertEqual((done.returncode, done.stderr), (1, ""))
        self.assertEqual(done.stdout.splitlines()[-1], summary.reports[0].splitlines()[0])

    def test_command(self) -> None:
        """The command of the reports is there, and runs from anywhere."""
        done = self.run_python(str(SCRIPTS / "simulate"), "--installed", "11")
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        self.assertTrue(done.stdout.endswith("\nseed 11: everything holds\n"), done.stdout[-500:])

    def test_range(self) -> None:
        """Several seeds are spread over processes, and their summaries added up."""
        here, there = run_here(range(5)), run_spread(0, 4, processes=2)
        self.flushLoggedErrors(Broken)
        self.assertEqual(there, here)
        done = self.replay("0-3", "--processes", "1")
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        self.assertIn("4 seeds with ", done.stdout)
        self.assertIn("none failed", done.stdout)
