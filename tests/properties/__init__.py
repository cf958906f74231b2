"""Tests of what must hold for every input, by Hypothesis, by tables of the worst cases known, and by state machines.

``TWISTEDUDP_HYPOTHESIS_PROFILE=full`` (or ``HYPOTHESIS_PROFILE=full``, which scripts/test --full sets) tries many more
examples, other ones each time. The default is quick and tries the same examples in each run, so that a change that
breaks nothing fails nothing. ``brief`` only shows that they run.
"""

from __future__ import annotations

import os
from typing import Final

from hypothesis import HealthCheck, settings

_QUICK: Final = settings(
    max_examples=300,
    stateful_step_count=50,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.too_slow],
)
_PROFILES: Final = {
    "brief": settings(_QUICK, max_examples=20, stateful_step_count=20),
    "quick": _QUICK,
    "full": settings(_QUICK, max_examples=10_000, stateful_step_count=100, derandomize=False, print_blob=True),
}

PROFILE: Final = os.environ.get("TWISTEDUDP_HYPOTHESIS_PROFILE") or os.environ.get("HYPOTHESIS_PROFILE", "quick")
"""The name of the profile in use."""

PROPERTY: Final = _PROFILES[PROFILE]
"""The settings of a property of one value."""

MACHINE: Final = settings(PROPERTY, max_examples={"brief": 10, "quick": 120, "full": 2000}[PROFILE])
"""The settings of a state machine, each of whose examples has many steps."""
