"""What the pytest fixture and the trial mixin have in common: the seed from outside, the report, the last check.

Theory of operation: a test that fails on a simulated network is worth as much as what is said about it. The report has
the seed, the end of the trace as a ladder diagram, and the one command that runs the same again.
"""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from ._network import SimulatedNetwork

__all__ = ["SEED_VARIABLE", "check_leftovers", "chosen_seeds", "report"]

SEED_VARIABLE: Final = "TWISTEDUDP_SEED"
"""The environment variable that chooses the seed."""

_SEEDS: Final = re.compile(r"([0-9]{1,20})(?:-([0-9]{1,20}))?", re.ASCII)
_REPORTED: Final = 60
"""Datagrams that a report draws, the latest: some screens, and mostly the whole story of a failing call."""


MAX_SEEDS: Final = 10_000
"""Seeds of one run: pytest makes a test of each before the first one runs."""


def chosen_seeds(text: str | None = None) -> range | None:
    """Return the seeds that were chosen from outside, ``None`` if none was.

    Args:
        text: ``"7"``, or ``"0-99"`` for a hundred; by default what the environment variable ``TWISTEDUDP_SEED`` has.

    Raises:
        ValueError: It is neither; the message says what it must be.
    """
    text = os.environ.get(SEED_VARIABLE) if text is None else text
    if not text:
        return None
    match = _SEEDS.fullmatch(text.strip())
    first, last = (int(match[1]), int(match[2] or match[1])) if match else (0, -1)
    if last < first:
        raise ValueError(
            f"{text!r} is no seed: it must be a whole number such as 7, or two such as 0-99 for all between"
        )
    if last - first >= MAX_SEEDS:
        raise ValueError(f"{text!r} are {last - first + 1:,} seeds: at most {MAX_SEEDS:,} at once")
    return range(first, last + 1)


def report(network: SimulatedNetwork, command: str) -> str:
    """Return what to tell of a failed test: seed, diagram, and how to run it again.

    Args:
        network: The test's network.
        command: The command that runs this test with this seed.
    """
    return f"seed {network.seed}\n{network.explain(last=_REPORTED)}run it again: {command}\n"


def check_leftovers(network: SimulatedNetwork, advice: str) -> None:
    """Check that the test's programs have cleaned up.

    Args:
        network: The test's network.
        advice: How to say that what is left is wanted.

    Raises:
        AssertionError: They have left ports or delayed calls behind.
    """
    left = network.leftovers()
    if left:
        listed = "".join(f"\n  {what}" for what in left)
        raise AssertionError(f"the test has left something behind:{listed}\nStop it before the test ends, or {advice}.")
