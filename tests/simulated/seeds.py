"""Many seeds: in this process, or spread over others, and what they had in common.

Theory of operation: seeds have nothing to do with each other, so a range is cut into one piece for each processor, and
each piece runs in a Python of its own, which prints its :class:`Summary` as JSON.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from contextlib import nullcontext
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING, Final

from tests.simulated.mutants import mutated
from tests.simulated.plan import EFFECTS
from tests.simulated.run import simulate

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["COMMON", "LEAST_SHARE", "Summary", "run_here", "run_spread"]

LEAST_SHARE: Final = 0.2
"""The share of the seeds in which each of :data:`COMMON` has to occur."""

COMMON: Final = (
    *EFFECTS,
    "NATRebinding",
    "cancel",
    "cancel in a callback",
    "client stop",
    "client restart",
    "server restart",
    "crash",
    "busy",
    "forged",
    "late",
    "name moves",
    "queued",
    "refused",
    "repeated",
    "suspended",
    "too_many",
    "unproven",
)
"""What has to occur often; effects count where they have done something to a datagram."""

MOST_REPORTS: Final = 3
"""Failed seeds of which all is kept; of others the number."""


@dataclass
class Summary:
    """What became of a number of seeds.

    Attributes:
        seeds: How many ran.
        datagrams: How many datagrams were sent in all of them.
        failed: The seeds that failed.
        reports: What to print of the first of them.
        occurred: In how many seeds what has happened at least once.
    """

    seeds: int = 0
    datagrams: int = 0
    failed: list[int] = field(default_factory=list)
    reports: list[str] = field(default_factory=list)
    occurred: Counter[str] = field(default_factory=Counter)

    def add(self, other: Summary) -> None:
        """Add another number of seeds."""
        self.seeds += other.seeds
        self.datagrams += other.datagrams
        self.failed += other.failed
        self.reports += other.reports[: MOST_REPORTS - len(self.reports)]
        self.occurred += other.occurred

    def rare(self, least: float = LEAST_SHARE) -> dict[str, float]:
        """Return what of :data:`COMMON` has occurred in too few seeds, with the share of the seeds in which it has."""
        shares = {name: self.occurred[name] / self.seeds for name in COMMON}
        return {name: share for name, share in shares.items() if share < least}

    def __str__(self) -> str:
        shares = ", ".join(f"{name} {100 * count / self.seeds:.0f} %" for name, count in sorted(self.occurred.items()))
        verdict = f"{len(self.failed):,} failed: {self.failed[:10]}" if self.failed else "none failed"
        return f"{self.seeds:,} seeds with {self.datagrams:,} datagrams, {verdict}\nof the seeds had: {shares}\n"


def run_here(seeds: Iterable[int], *, mutant: str = "", until_failure: bool = False) -> Summary:
    """Run seeds one after the other.

    Args:
        seeds: The seeds.
        mutant: The name of the mutant to have in place, if any.
        until_failure: Whether to stop at the first seed that fails.
    """
    summary = Summary()
    with mutated(mutant) if mutant else nullcontext():
        for seed in seeds:
            outcome = simulate(seed)
            summary.seeds += 1
            summary.datagrams += outcome.datagrams
            summary.occurred.update(name for name, count in outcome.occurred.items() if count)
            if not outcome.violation:
                continue
            summary.failed.append(seed)
            if len(summary.reports) < MOST_REPORTS:
                summary.reports.append(outcome.report(mutant))
            if until_failure:
                break
    return summary


def run_spread(first: int, last: int, *, processes: int | None = None) -> Summary:
    """Run a range of seeds in several processes.

    Args:
        first: The first seed.
        last: The last one.
        processes: How many; as many as there are processors by default.
    """
    count = processes or os.cpu_count() or 1
    cuts = [first + (last + 1 - first) * piece // count for piece in range(count + 1)]
    # Where this process found the package and the tests. Coverage would treble the time, and has seen all of it.
    variables = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE_")}
    variables["PYTHONPATH"] = os.pathsep.join(sys.path)
    started = [
        subprocess.Popen(
            [sys.executable, "-m", "tests.simulated", f"{begin}-{end - 1}", "--json"],
            env=variables,
            stdout=subprocess.PIPE,
            text=True,
        )
        for begin, end in pairwise(cuts)
        if begin < end
    ]
    summary = Summary()
    try:
        for process in started:
            output, _ = process.communicate()
            if process.returncode:
                raise subprocess.CalledProcessError(process.returncode, process.args)
            summary.add(from_json(output))
    finally:
        for process in started:
            if process.poll() is None:
                process.kill()
                process.wait()
    return summary


def to_json(summary: Summary) -> str:
    """Write a summary for another process."""
    return json.dumps(vars(summary))


def from_json(text: str) -> Summary:
    """Read what :func:`to_json` has written."""
    fields = json.loads(text)
    return Summary(**{**fields, "occurred": Counter(fields["occurred"])})
