"""The simulated network for trial's and unittest's test cases.

Theory of operation: the network is made when a test first asks for it, so ``setUp`` need not call this class's. Making
it registers the last check as a cleanup, which runs after those that the test registers later. Whether the test has
failed is seen from outside, by what its run adds to the result, since logged errors and cleanups can fail it as well;
under pytest, whose results cannot be looked at, :mod:`.pytest_plugin` does the reporting.
"""

from __future__ import annotations

import functools
import shlex
import sys
from typing import TYPE_CHECKING, Any

from ._outcome import SEED_VARIABLE, check_leftovers, chosen_seeds, report

if TYPE_CHECKING:
    from collections.abc import Mapping
    from unittest import TestCase as _Base

    from ._network import SimulatedNetwork
else:
    _Base = object

__all__ = ["SimulatedNetworkMixin"]


class SimulatedNetworkMixin(_Base):
    """A test case with a simulated network; name it before the test case's class.

    That class is best a ``SynchronousTestCase``: ``network.run_until()`` waits for Deferreds. In trial's ``TestCase`` a
    Deferred that a test or a cleanup returns fires only if the simulated time is moved before.

    ::

        class ProtocolTests(SimulatedNetworkMixin, SynchronousTestCase):
            network_options = {"effects": "loss=30%"}

            def test_it(self):
                server = self.network.reactor("192.0.2.1")

    The environment variable ``TWISTEDUDP_SEED`` chooses the seed, which is 0 otherwise. If the test fails, the seed,
    what happened as a ladder diagram, and the command that runs it again are printed. At the end the test fails if a
    port is still bound or a delayed call still pending.

    Attributes:
        network_options: The arguments of :class:`SimulatedNetwork`; a ``seed`` among them cannot be changed from
            outside.
        leftovers_wanted: Whether ports and delayed calls may be left behind.
    """

    network_options: Mapping[str, Any] = {}
    leftovers_wanted = False

    @functools.cached_property
    def network(self) -> SimulatedNetwork:
        """The network of this test, a :class:`SimulatedNetwork`."""
        from ._network import SimulatedNetwork  # noqa: PLC0415  # only where a test asks for it

        network = SimulatedNetwork(**{"seed": _seed(), **self.network_options})
        self.addCleanup(self._check_network, network)
        return network

    def run(self, result: Any = None) -> Any:
        """Run the test, and print the report if it fails."""
        # trial runs the same object again with --until-failure.
        vars(self).pop("network", None)
        before = _failures(result)
        outcome = super().run(result)
        network = vars(self).get("network")
        if network is not None and _failures(result) > before:
            sys.stdout.write(f"\n{self.id()}: {report(network, self._command(network))}")
        return outcome

    def _check_network(self, network: SimulatedNetwork) -> None:
        if not self.leftovers_wanted:
            check_leftovers(network, "say leftovers_wanted = True in the test's class")

    def _command(self, network: SimulatedNetwork) -> str:
        trial = any(base.__module__.startswith("twisted.trial") for base in type(self).__mro__)
        runner = "twisted.trial" if trial else "unittest"
        seed = "" if "seed" in self.network_options else f"{SEED_VARIABLE}={network.seed} "
        return f"{seed}python -m {runner} {shlex.quote(self.id())}"


def _seed() -> int:
    seeds = chosen_seeds() or range(1)
    if len(seeds) > 1:
        raise ValueError(f"{SEED_VARIABLE} must be one number here; only pytest's fixture takes a range")
    return seeds[0]


def _failures(result: Any) -> int:
    # Some of trial's reporters stand in front of the one that counts.
    while hasattr(result, "_originalReporter"):
        result = result._originalReporter
    return len(getattr(result, "failures", ())) + len(getattr(result, "errors", ()))
