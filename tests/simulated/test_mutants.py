"""The simulation finds the bugs that it is there to find: each is put back on purpose, and some seed fails."""

from __future__ import annotations

import itertools

import pytest
from twisted.trial.unittest import SynchronousTestCase

from tests.properties import PROFILE
from tests.simulated.ledger import Broken
from tests.simulated.mutants import MUTANTS
from tests.simulated.run import simulate
from tests.simulated.seeds import run_here

MOST_SEEDS = 1000
"""Seeds within which each bug is to be found."""

RULES = {
    "ages_from_first_sight": "nothing runs twice",
    "answers_too_early": "each outcome is true",
    "answers_twice": "servers only answer",
    "any_peer": "each outcome is true",
    "evicts": "nothing runs twice",
    "believes_any_token": "nobody is flooded",
    "cancels_nothing": "all that waits is known",
    "fires_twice": "nothing raises",
    "floors_nothing": "tries are few",
    "forgets_deadline": "deadlines are kept",
    "forgets_karn": "round trips are possible",
    "forgets_peer_port": "results go to who asked",
    "fresh_msgid": "tries are identical",
    "fresh_port": "tries leave from one port",
    "gives_up_when_busy": "each outcome is true",
    "keeps_nothing": "nothing runs twice",
    "leaks_port": "ports are closed",
    "leaks_timer": "nothing is left behind",
    "leaks_window": "windows are exact",
    "leaves_queue": "the queue is drained",
    "next_server": "calls stay where they were sent",
    "refuses_everybody": "nobody is flooded",
    "runs_what_is_running": "nothing runs twice",
}
"""Which rule each bug breaks."""


class MutantTests(SynchronousTestCase):
    """Each known bug is found, by the rule that is there for it."""

    def find(self, name: str, first: int) -> int:
        """Return the seed that finds a bug: the one that is known to, or else the first of all."""
        for seed in itertools.chain((first,), range(MOST_SEEDS)):
            summary = run_here([seed], mutant=name)
            self.flushLoggedErrors()
            if summary.failed:
                self.assertRegex(summary.reports[0], f"^seed {seed}: {RULES[name]}: ", MUTANTS[name].sentence)
                return seed
        raise self.failureException(f"no seed finds the mutant {name}: {MUTANTS[name].sentence}")

    def test_each(self) -> None:
        """With the bug a seed fails that holds without it."""
        self.assertEqual(sorted(MUTANTS), sorted(RULES))
        self.assertGreaterEqual(len(MUTANTS), 10)
        for name, mutant in MUTANTS.items():
            seed = self.find(name, mutant.seed)
            if PROFILE != "brief":
                self.assertEqual(simulate(seed).violation, "", f"seed {seed} fails without the mutant {name}, too")
        self.flushLoggedErrors(Broken)

    @pytest.mark.slow
    def test_from_the_beginning(self) -> None:
        """Whoever starts at seed 0 has found each bug after 1,000 seeds."""
        for name, mutant in MUTANTS.items():
            summary = run_here(range(MOST_SEEDS), mutant=name, until_failure=True)
            self.flushLoggedErrors()
            self.assertTrue(summary.failed, f"no seed finds the mutant {name}: {mutant.sentence}")
