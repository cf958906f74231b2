"""The seed decides what effects do, and nothing else does."""

from __future__ import annotations

import os
import subprocess
import sys

from twisted.trial.unittest import SynchronousTestCase

from tests.impairment.scenario import digest_of, outcomes

UNCHANCED = {"partition", "mtu", "rate", "seed"}
"""What leaves nothing to chance, and so does the same with each seed."""


class DeterminismTests(SynchronousTestCase):
    """Equal seeds, equal outcomes."""

    def digest_elsewhere(self, hash_seed: str) -> str:
        """Run the scenario in another process and return its digest."""
        environment = {**os.environ, "PYTHONHASHSEED": hash_seed, "PYTHONPATH": os.pathsep.join(sys.path)}
        command = [sys.executable, "-m", "tests.impairment.scenario", "5"]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True, timeout=60)
        return done.stdout

    def test_across_processes(self) -> None:
        """Processes with different hash seeds see the same as this one."""
        self.assertEqual({self.digest_elsewhere("1"), self.digest_elsewhere("2"), digest_of(5)}, {digest_of(5)})

    def test_seeds_differ(self) -> None:
        """Each effect that draws at all does something else with another seed."""
        first, second = outcomes(1), outcomes(2)
        same = {name for name in first if first[name] == second[name]}
        self.assertEqual({name.split()[0] for name in same} - UNCHANCED, {"nat"})
        self.assertNotIn("nat there", same)
