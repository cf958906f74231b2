"""The seed decides what happens, and nothing else does."""

from __future__ import annotations

import os
import subprocess
import sys

from twisted.trial.unittest import SynchronousTestCase

from tests.testing.scenario import digest_of


class DeterminismTests(SynchronousTestCase):
    """Equal seeds give equal traces."""

    def digest_elsewhere(self, hash_seed: str) -> str:
        """Run the scenario in another process and return its digest."""
        environment = {**os.environ, "PYTHONHASHSEED": hash_seed, "PYTHONPATH": os.pathsep.join(sys.path)}
        command = [sys.executable, "-m", "tests.testing.scenario", "5"]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True, timeout=60)
        return done.stdout

    def test_across_processes(self) -> None:
        """Processes with different hash seeds see the same as this one."""
        self.assertEqual({self.digest_elsewhere("1"), self.digest_elsewhere("2"), digest_of(5)}, {digest_of(5)})

    def test_seeds_differ(self) -> None:
        """Different seeds give different traces."""
        self.assertEqual(len({digest_of(seed) for seed in range(10)}), 10)
