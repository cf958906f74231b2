"""Sweeps: the largest size and the highest rate that pass to a server and back.

Theory of operation: :mod:`._sweep_size` sends single probes of many sizes on a port of its own, :mod:`._sweep_rate` has
a :class:`~._prober.Prober` send whole series; what to try next is in :mod:`.probing._search`. Here the two are under
one name, for the command line and the doctor.
"""

from __future__ import annotations

from ._sweep_rate import DEFAULT_MOST_RATE, RateStep, RateSweep, sweep_rate
from ._sweep_size import SizeStep, SizeSweep, sweep_size

__all__ = ["DEFAULT_MOST_RATE", "RateStep", "RateSweep", "SizeStep", "SizeSweep", "sweep_rate", "sweep_size"]
