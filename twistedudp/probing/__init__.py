"""Measuring a path by probes: pure, without I/O and without a clock.

Theory of operation: a :class:`ProbeSeries` is driven by whoever has a socket and a clock: ``udpecho ping``, sweeps,
the doctor. A :class:`ProbeTable` alone, which has no histograms and little memory, is what a daemon with a thousand
targets keeps for each. Times are nanoseconds of a clock that does not go back.
"""

from __future__ import annotations

from ._figures import Distribution, Jitter, OneWay
from ._series import ProbeSeries, SeriesNames
from ._summary import PERCENTILES, SUMMARY_FORMAT, Summary, Times
from ._table import DEFAULT_WINDOW, ProbeEvent, ProbeTable
from ._wire import (
    COUNTS_ONLY,
    DEFAULT_PROBE_SIZE,
    PROBE_METHOD,
    SMALLEST_PROBE,
    ProbeReply,
    ProbeWire,
    ServerSide,
    check_of,
)

__all__ = [
    "COUNTS_ONLY",
    "DEFAULT_PROBE_SIZE",
    "DEFAULT_WINDOW",
    "PERCENTILES",
    "PROBE_METHOD",
    "SMALLEST_PROBE",
    "SUMMARY_FORMAT",
    "Distribution",
    "Jitter",
    "OneWay",
    "ProbeEvent",
    "ProbeReply",
    "ProbeSeries",
    "ProbeTable",
    "ProbeWire",
    "SeriesNames",
    "ServerSide",
    "Summary",
    "Times",
    "check_of",
]
