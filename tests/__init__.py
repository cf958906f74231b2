"""The tests of twistedudp: they mirror the package; real sockets and processes only in contracts/ and integration/."""

from __future__ import annotations

import os
import sys
from typing import Any
from unittest import SkipTest

from hypothesis import HealthCheck, settings

# Here, and not in a conftest.py, because trial must use the same settings. No deadline: coverage on a busy
# machine is slow, and that is no fault of the code; what must be fast has a test of its own.
settings.register_profile("quick", max_examples=35, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("brief", settings.get_profile("quick"), max_examples=12, stateful_step_count=20)
settings.register_profile("full", settings.get_profile("quick"), max_examples=3500, stateful_step_count=200)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "quick"))


def _skip_modules_in_trial() -> None:
    """Have trial skip a module that raises SkipTest when it is imported, as pytest does: its extra is not installed."""
    from twisted.trial import runner  # noqa: PLC0415  # pytest needs nothing of it

    holder: Any = runner.ErrorHolder
    tell_error = holder.run

    def run(self: Any, result: Any) -> None:
        reason = self.error[1]
        if not isinstance(reason, SkipTest):
            tell_error(self, result)
            return
        result.startTest(self)
        result.addSkip(self, str(reason))
        result.stopTest(self)

    holder.run = run


if "twisted.trial.runner" in sys.modules:
    _skip_modules_in_trial()
